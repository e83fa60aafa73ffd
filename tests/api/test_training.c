/* From spec to weights through the API alone: what comes back is complete, agrees with itself, and
 * agrees with loops of our own over the uploaded bytes. */
#include "tests/api/tensors.h"

#include <math.h>
#include <stdio.h>

enum { N_TRAIN = 200, N_TEST = 60, HIDDEN = 48, PIXELS = 3072, CLASSES = 10 };

/* Experiments that all tests look at, and what they were posted as. */
static char *encoder, *published, *mlp;

/* The eigenvectors of 3072 pixels take seconds, so only one has them. */
#define PCA ",{'pca':{'components':20}}"
#define ENCODER(steps, training)                                                                   \
    "{'dataset':{'name':'images'},'preprocess':['standardize'" steps "],"                          \
    "'model':{'kind':'ovr_encoder','hidden':[48]},'loss':{'ovr':{'lambda':1e-4}},"                 \
    "'optimizer':{'learning_rate':0.01},'training':{'epochs':6,'batch_size':60" training           \
    "},'probe':{'epochs':15,'learning_rate':0.01}}"
#define MLP(epochs, training)                                                                      \
    "{'dataset':{'generator':'sphere','samples':600,'test_samples':150,'seed':3},"                 \
    "'model':{'kind':'mlp','hidden':[70]},'optimizer':{'learning_rate':0.02},"                     \
    "'training':{'epochs':" epochs ",'batch_size':32" training "}}"

static int set_up(void **state) {
    struct daemon *d = daemon_new(NULL);
    *state = d;
    upload_images(d, "images", N_TRAIN, N_TEST, 11);
    encoder = submit(d, ENCODER(PCA, ""));
    published = submit(d, ENCODER("", ",'protocol':'published'"));
    mlp = submit(d, MLP("12", ""));
    wait_for(d, encoder, "succeeded");
    wait_for(d, published, "succeeded");
    wait_for(d, mlp, "succeeded");
    return 0;
}

static int tear_down(void **state) {
    free(encoder), free(published), free(mlp);
    return without_daemon(state);
}

static const json_t *result_of(struct daemon *d, const char *id) {
    return at(get(d, "/v1/experiments/%s", id)->json, "/result");
}

static void assert_share(const json_t *json, const char *pointer) {
    double share = number_at(json, pointer);
    if (!(share >= 0 && share <= 1))
        fail_msg("%s is %g, no share", pointer, share);
}

static void test_a_finished_experiment_is_complete(void **state) {
    struct daemon *d = *state;
    const char *const ids[] = {encoder, published, mlp};
    for (size_t i = 0; i < COUNT(ids); i++) {
        const json_t *e = get(d, "/v1/experiments/%s", ids[i])->json;
        assert_json(e, "/attempts", "1");
        assert_json(e, "/error", "null");
        assert_json(e, "/progress", "null");
        assert_json(e, "/queue", "null");
        assert_string_equal(text_at(e, "/result/protocol"), i == 1 ? "published" : "clean");
        assert_true(strcmp(text_at(e, "/created_at"), text_at(e, "/started_at")) <= 0);
        assert_true(strcmp(text_at(e, "/started_at"), text_at(e, "/finished_at")) <= 0);
        assert_true(isfinite(number_at(e, "/result/test/loss")));
        assert_share(e, "/result/accuracy");
        assert_share(e, "/result/sparsity/near_zero");
        assert_share(e, "/result/sparsity/zero");
        assert_true(number_at(e, "/result/sparsity/near_zero") >=
                    number_at(e, "/result/sparsity/zero"));
        assert_int_equal(number_at(e, "/result/epochs"), i == 2 ? 12 : 6);
        assert_true(number_at(e, "/result/best_epoch") >= 1);
        assert_true(number_at(e, "/result/best_epoch") <= number_at(e, "/result/epochs"));
        assert_null(at(e, "/result/nonfinite"));
        assert_int_equal((at(e, "/result/probe") != NULL), i != 2);
        assert_int_equal((at(e, "/provenance/data/train_sha256") != NULL), i != 2);
        assert_int_equal(number_at(e, "/provenance/seed"), 1);
    }
    /* λ is per batch: λ·n(n − 1). */
    assert_true(fabs(number_at(result_of(d, encoder), "/lambda_per_pair") - 1e-4 * 60 * 59) < 1e-9);
    /* There was something to learn. */
    assert_true(number_at(result_of(d, encoder), "/accuracy") > 0.4);
    assert_true(number_at(result_of(d, mlp), "/accuracy") > 0.3);
}

/* The sum of the terms is the loss, and its split is that of the protocol. */
static void check_terms(const json_t *terms, int is_mlp) {
    double loss = number_at(terms, "/loss");
    double sum = number_at(terms, "/ovr") + number_at(terms, "/activity") +
                 (is_mlp ? number_at(terms, "/cross_entropy") : 0);
    assert_true(isfinite(loss));
    if (fabs(loss - sum) > 1e-9 * fabs(loss) + 1e-12)
        fail_msg("a loss of %.15g has terms that make %.15g", loss, sum);
    assert_int_equal(at(terms, "/accuracy") != NULL, is_mlp);
}

static void check_series(struct daemon *d, const char *id, size_t epochs, const char *watched,
                         int is_mlp) {
    const json_t *series = at(get(d, "/v1/experiments/%s/metrics", id)->json, "/series");
    const char *other = strcmp(watched, "test") == 0 ? "/validation" : "/test";
    double best = INFINITY;
    size_t i, best_epoch = 0;
    const json_t *epoch;
    assert_int_equal(json_array_size(series), epochs);
    json_array_foreach(series, i, epoch) {
        assert_int_equal(number_at(epoch, "/epoch"), i + 1);
        assert_null(at(epoch, other));
        assert_null(at(epoch, "/nonfinite"));
        check_terms(at(epoch, "/train"), is_mlp);
        check_terms(at(epoch, text("/%s", watched)), is_mlp);
        assert_share(epoch, "/sparsity/near_zero");
        assert_share(epoch, "/sparsity/zero");
        assert_true(number_at(epoch, "/learning_rate") > 0);
        assert_true(number_at(epoch, "/seconds") > 0);
        double loss = number_at(epoch, text("/%s/loss", watched));
        best_epoch = loss < best ? i + 1 : best_epoch;
        best = loss < best ? loss : best;
    }
    const json_t *e = get(d, "/v1/experiments/%s", id)->json;
    assert_int_equal(number_at(e, "/result/best_epoch"), best_epoch);
    /* The digest of the weights is the one of their epoch. */
    assert_string_equal(text_at(e, "/provenance/weights/best_sha256"),
                        text_at(json_array_get(series, best_epoch - 1), "/digest"));
    assert_string_equal(text_at(e, "/provenance/weights/last_sha256"),
                        text_at(json_array_get(series, epochs - 1), "/digest"));
    assert_true(number_at(json_array_get(series, epochs - 1), "/train/loss") <
                number_at(json_array_get(series, 0), "/train/loss"));
    check_terms(at(e, "/result/test"), is_mlp);
}

static void test_metrics_by_protocol(void **state) {
    check_series(*state, encoder, 6, "validation", 0);
    check_series(*state, published, 6, "test", 0);
    check_series(*state, mlp, 12, "validation", 1);
}

static void test_metrics_in_part(void **state) {
    struct daemon *d = *state;
    const json_t *all = get(d, "/v1/experiments/%s/metrics", mlp)->json;
    const json_t *late = get(d, "/v1/experiments/%s/metrics?from_epoch=10", mlp)->json;
    assert_int_equal(json_array_size(at(late, "/series")), 3);
    assert_true(json_equal(at(late, "/series/0"), at(all, "/series/9")));
    assert_json(get(d, "/v1/experiments/%s/metrics?from_epoch=13", mlp)->json, "", "{'series':[]}");
    for (size_t points = 1; points <= 13; points++) {
        const json_t *few =
            at(get(d, "/v1/experiments/%s/metrics?max_points=%zu", mlp, points)->json, "/series");
        size_t n = points < 12 ? points : 12;
        assert_int_equal(json_array_size(few), n);
        assert_int_equal(number_at(json_array_get(few, n - 1), "/epoch"), 12);
        if (n > 1)
            assert_int_equal(number_at(json_array_get(few, 0), "/epoch"), 1);
        for (size_t i = 1; i < n; i++)
            assert_true(number_at(json_array_get(few, i), "/epoch") >
                        number_at(json_array_get(few, i - 1), "/epoch"));
    }
    assert_problem(get(d, "/v1/experiments/%s/metrics?max_points=0", mlp), 422, "invalid-query",
                   "1..5000");
}

/* ---- Histograms ---- */

static void check_histogram(const json_t *h, double samples, double units) {
    const json_t *edges = at(h, "/edges"), *counts = at(h, "/counts");
    size_t n = json_array_size(counts), i, edges_at_tenth = 0;
    double sum = number_at(h, "/zero_count"), near = sum, total = number_at(h, "/total");
    const json_t *count;
    assert_int_equal(json_array_size(edges), n + 1);
    assert_true(total == samples * units);
    json_array_foreach(counts, i, count) {
        double low = json_number_value(json_array_get(edges, i));
        assert_true(low < json_number_value(json_array_get(edges, i + 1)));
        edges_at_tenth += low == 0.1;
        sum += json_number_value(count);
        near += low < 0.1 ? json_number_value(count) : 0;
    }
    assert_true(json_number_value(json_array_get(edges, 0)) == 0);
    assert_true(number_at(h, "/maximum") <= json_number_value(json_array_get(edges, n)));
    assert_int_equal(edges_at_tenth, 1);
    assert_true(sum == total);
    assert_true(fabs(number_at(h, "/sparsity/near_zero") - near / total) < 1e-14);
    assert_true(fabs(number_at(h, "/sparsity/zero") - number_at(h, "/zero_count") / total) < 1e-14);
}

static void test_histogram_adds_up(void **state) {
    struct daemon *d = *state;
    const char *const ids[] = {encoder, published, mlp};
    const double units[] = {HIDDEN, HIDDEN, 70}, samples[] = {N_TEST, N_TEST, 150};
    for (size_t i = 0; i < COUNT(ids); i++) {
        const json_t *h = get(d, "/v1/experiments/%s/histogram", ids[i])->json;
        assert_string_equal(text_at(h, "/split"), "test");
        assert_string_equal(text_at(h, "/epoch"), "best");
        assert_string_equal(text_at(h, "/experiment"), ids[i]);
        check_histogram(h, samples[i], units[i]);
        const json_t *result = result_of(d, ids[i]);
        assert_true(number_at(h, "/sparsity/near_zero") ==
                    number_at(result, "/sparsity/near_zero"));
        assert_true(number_at(h, "/sparsity/zero") == number_at(result, "/sparsity/zero"));
        assert_json(
            get(d, "/v1/experiments/%s/histogram?epoch=best&split=test&layer=hidden.0", ids[i])
                ->json,
            "", text("%s", get(d, "/v1/experiments/%s/histogram", ids[i])->body));
    }
}

static void test_histogram_of_every_epoch(void **state) {
    struct daemon *d = *state;
    const json_t *series = at(get(d, "/v1/experiments/%s/metrics", encoder)->json, "/series");
    for (int epoch = 1; epoch <= 6; epoch++) {
        const json_t *h = get(d, "/v1/experiments/%s/histogram?epoch=%d", encoder, epoch)->json;
        assert_int_equal(number_at(h, "/epoch"), epoch);
        assert_string_equal(text_at(h, "/split"), "validation");
        check_histogram(h, N_TRAIN / 10, HIDDEN);
        assert_true(number_at(h, "/sparsity/near_zero") ==
                    number_at(json_array_get(series, (size_t)epoch - 1), "/sparsity/near_zero"));
    }
    assert_problem(get(d, "/v1/experiments/%s/histogram?epoch=7", encoder), 404, "not-found",
                   "epoch 7");
    assert_problem(get(d, "/v1/experiments/%s/histogram?epoch=1&split=test", encoder), 404,
                   "not-found", "test");
    assert_problem(get(d, "/v1/experiments/%s/histogram?layer=hidden.1", encoder), 404, "not-found",
                   "hidden.1");
    assert_problem(get(d, "/v1/experiments/%s/histogram?layer=output", encoder), 422,
                   "invalid-query", "hidden.0");
}

static void test_histogram_with_fewer_bins(void **state) {
    struct daemon *d = *state;
    const json_t *full = get(d, "/v1/experiments/%s/histogram", encoder)->json;
    for (int bins = 2; bins <= 58; bins++) {
        const struct answer *a = get(d, "/v1/experiments/%s/histogram?bins=%d", encoder, bins);
        assert_true((int)json_array_size(at(a->json, "/counts")) <= bins);
        check_histogram(a->json, N_TEST, HIDDEN);
        assert_true(json_equal(at(a->json, "/sparsity"), at(full, "/sparsity")));
        assert_true(json_equal(at(a->json, "/total"), at(full, "/total")));
    }
    assert_problem(get(d, "/v1/experiments/%s/histogram?bins=1", encoder), 422, "invalid-query",
                   "2..58");
}

/* ---- Weights ---- */

static void compare_json_and_npy(struct daemon *d, const char *id, const json_t *listed,
                                 const char *epoch) {
    const char *name = text_at(listed, "/name");
    int dimensions = (int)json_array_size(at(listed, "/shape"));
    struct tensor t = fetch(d, id, name, dimensions, text("&epoch=%s", epoch));
    const json_t *j = get(d, "/v1/experiments/%s/weights/%s?epoch=%s", id, name, epoch)->json;
    assert_true(json_equal(at(j, "/shape"), at(listed, "/shape")));
    assert_string_equal(text_at(j, "/name"), name);
    assert_string_equal(text_at(j, "/dtype"), "float32");
    assert_int_equal(number_at(j, "/shape/0"), t.rows);
    if (dimensions == 2)
        assert_int_equal(number_at(j, "/shape/1"), t.columns);
    assert_int_equal(number_at(j, "/rows/0"), 0);
    assert_int_equal(number_at(j, "/rows/1"), t.rows);
    const json_t *data = at(j, "/data");
    assert_int_equal(json_array_size(data), t.rows);
    for (size_t r = 0; r < t.rows; r++) {
        const json_t *row = json_array_get(data, r);
        assert_int_equal(dimensions == 2 ? json_array_size(row) : 1, t.columns);
        for (size_t c = 0; c < t.columns; c++) {
            const json_t *number = dimensions == 2 ? json_array_get(row, c) : row;
            if ((float)json_number_value(number) != t.numbers[r * t.columns + c])
                fail_msg("%s[%zu,%zu] is not the same as JSON and as NPY", name, r, c);
        }
    }
    free(t.numbers);
}

static void check_tensors(struct daemon *d, const char *id, const char *epoch,
                          const char *expected) {
    const json_t *list = get(d, "/v1/experiments/%s/weights?epoch=%s", id, epoch)->json;
    assert_string_equal(text_at(list, "/epoch"), epoch);
    assert_json(list, "/tensors", expected);
    size_t i;
    const json_t *listed;
    json_array_foreach(at(list, "/tensors"), i, listed) {
        compare_json_and_npy(d, id, listed, epoch);
    }
}

#define T(name, shape) "{'name':'" name "','shape':" shape ",'dtype':'float32'}"

static void test_json_and_npy_are_the_same(void **state) {
    struct daemon *d = *state;
    check_tensors(
        d, encoder, "best",
        "[" T("encoder.weight", "[48,20]") "," T("encoder.bias", "[48]") "," T(
            "preprocess.0.mean",
            "[3072]") "," T("preprocess.0.scale",
                            "[3072]") "," T("preprocess.1.mean",
                                            "[3072]") "," T("preprocess.1.components",
                                                            "[20,3072]") "," T("probe.weight",
                                                                               "[10,48]") "," T("pr"
                                                                                                "ob"
                                                                                                "e."
                                                                                                "bi"
                                                                                                "a"
                                                                                                "s",
                                                                                                "[1"
                                                                                                "0"
                                                                                                "]") "]");
    check_tensors(d, encoder, "last",
                  "[" T("encoder.weight", "[48,20]") "," T("encoder.bias", "[48]") "]");
    check_tensors(d, mlp, "best",
                  "[" T("hidden.0.weight", "[70,3]") "," T("hidden.0.bias", "[70]") "," T(
                      "output.weight", "[10,70]") "," T("output.bias", "[10]") "]");
}

static void test_rows(void **state) {
    struct daemon *d = *state;
    struct tensor all = fetch(d, encoder, "encoder.weight", 2, "");
    struct tensor some = fetch(d, encoder, "encoder.weight", 2, "&rows=5:12");
    assert_int_equal(some.rows, 7);
    assert_memory_equal(some.numbers, all.numbers + 5 * 20, 7 * 20 * sizeof(float));
    const json_t *j = get(d, "/v1/experiments/%s/weights/encoder.weight?rows=47:48", encoder)->json;
    assert_json(j, "/rows", "[47,48]");
    assert_json(j, "/shape", "[48,20]"); /* of the whole */
    assert_int_equal(json_array_size(at(j, "/data")), 1);
    assert_true((float)number_at(j, "/data/0/19") == all.numbers[47 * 20 + 19]);
    j = get(d, "/v1/experiments/%s/weights/encoder.bias?rows=3:5", encoder)->json;
    assert_int_equal(json_array_size(at(j, "/data")), 2);
    static const char *const bad[] = {"5", "5:5", "6:5", "0:49", "-1:3", "a:b", "0:5x", ":", ""};
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_problem(get(d, "/v1/experiments/%s/weights/encoder.weight?rows=%s", encoder, bad[i]),
                       422, "invalid-query", "first:end");
    free(all.numbers), free(some.numbers);
}

static void test_best_and_last_epoch(void **state) {
    struct daemon *d = *state;
    /* Made to overfit, so that best is not last: the epochs' digests say which is which. */
    char *id = submit(d, "{'dataset':{'name':'images'},'preprocess':['standardize'],'model':{'kind'"
                         ":'mlp','hidden':[20]},'optimizer':{'learning_rate':0.3},'training':{"
                         "'epochs':5,'schedule':'constant','batch_size':20}}");
    const json_t *e = wait_for(d, id, "succeeded")->json;
    struct tensor best = fetch(d, id, "hidden.0.weight", 2, "");
    struct tensor last = fetch(d, id, "hidden.0.weight", 2, "&epoch=last");
    int same = strcmp(text_at(e, "/provenance/weights/best_sha256"),
                      text_at(e, "/provenance/weights/last_sha256")) == 0;
    assert_int_equal(
        memcmp(best.numbers, last.numbers, best.rows * best.columns * sizeof(float)) == 0, same);
    assert_int_equal(same, number_at(e, "/result/best_epoch") == 5);
    assert_problem(get(d, "/v1/experiments/%s/weights?epoch=3", id), 422, "invalid-query",
                   "best or last");
    free(best.numbers), free(last.numbers), free(id);
}

static void test_no_weights_before_success(void **state) {
    struct daemon *d = *state;
    char *id = submit(d, "{'dataset':{'generator':'sphere'},'model':{'kind':'mlp','hidden':[64]},"
                         "'training':{'epochs':100000}}");
    assert_problem(get(d, "/v1/experiments/%s/weights", id), 404, "not-found", "no weights yet");
    wait_for_epoch(d, id, 2);
    while (!json_array_size(at(get(d, "/v1/experiments/%s/metrics", id)->json, "/series")))
        nap(20); /* epochs reach the database a few times a second */
    assert_problem(get(d, "/v1/experiments/%s/weights/hidden.0.weight", id), 404, "not-found",
                   "is running and has no weights yet");
    assert_status(get(d, "/v1/experiments/%s/histogram", id), 200); /* of the newest epoch */
    assert_status(post(d, text("/v1/experiments/%s/cancel", id), NULL), 202);
    assert_problem(get(d, "/v1/experiments/%s/weights", id), 404, "not-found", "is cancelled");
    assert_problem(get(d, "/v1/experiments/nobody/weights"), 404, "not-found", "nobody");
    assert_problem(get(d, "/v1/experiments/%s/weights/encoder.nothing", encoder), 404, "not-found",
                   "encoder.nothing");
    assert_problem(get(d, "/v1/experiments/%s/weights/encoder.bias?format=csv", encoder), 422,
                   "invalid-query", "json or npy");
    free(id);
}

/* ---- An independent reckoning ---- */

/* One sample as the encoder gets it, in double. Returns how many values. */
static size_t reckon_input(const uint8_t *pixels, const struct tensor steps[4], double *x) {
    double standard[PIXELS];
    for (size_t p = 0; p < PIXELS; p++)
        standard[p] =
            ((double)pixels[p] - (double)steps[0].numbers[p]) * (double)steps[1].numbers[p];
    if (!steps[3].numbers) {
        memcpy(x, standard, sizeof standard);
        return PIXELS;
    }
    for (size_t c = 0; c < steps[3].rows; c++) {
        x[c] = 0;
        for (size_t p = 0; p < PIXELS; p++)
            x[c] += (double)steps[3].numbers[c * PIXELS + p] *
                    (standard[p] - (double)steps[2].numbers[p]);
    }
    return steps[3].rows;
}

/* X Wᵀ + b of the whole test split, from the uploaded bytes and the tensors. */
static double *reckon_code(struct daemon *d, const char *id, int with_pca, const uint8_t *records) {
    struct tensor steps[4] = {fetch(d, id, "preprocess.0.mean", 1, ""),
                              fetch(d, id, "preprocess.0.scale", 1, "")};
    if (with_pca) {
        steps[2] = fetch(d, id, "preprocess.1.mean", 1, "");
        steps[3] = fetch(d, id, "preprocess.1.components", 2, "");
    }
    struct tensor weight = fetch(d, id, "encoder.weight", 2, "");
    struct tensor bias = fetch(d, id, "encoder.bias", 1, "");
    double *code = malloc(sizeof *code * N_TEST * HIDDEN), x[PIXELS];
    for (size_t i = 0; i < N_TEST; i++) {
        size_t width = reckon_input(records + i * RECORD + 1, steps, x);
        assert_int_equal(width, weight.columns);
        for (size_t k = 0; k < HIDDEN; k++) {
            double a = (double)bias.numbers[k];
            for (size_t c = 0; c < width; c++)
                a += (double)weight.numbers[k * width + c] * x[c];
            code[i * HIDDEN + k] = a;
        }
    }
    for (size_t i = 0; i < COUNT(steps); i++)
        free(steps[i].numbers);
    free(weight.numbers), free(bias.numbers);
    return code;
}

/* |count − expected| at most the number of values too near the border to tell. */
static void assert_count(double count, double expected, double doubtful, const char *what) {
    if (fabs(count - expected) > doubtful + 1e-6)
        fail_msg("%s: %.10g, reckoned %.10g ± %g", what, count, expected, doubtful);
}

static void check_sparsity(struct daemon *d, const char *id, double *code) {
    const double total = N_TEST * HIDDEN, border = 2e-4;
    double zero = 0, near = 0, at_zero = 0, at_tenth = 0, maximum = 0;
    for (size_t i = 0; i < N_TEST * HIDDEN; i++) {
        at_zero += fabs(code[i]) < border;
        at_tenth += fabs(code[i] - 0.1) < border;
        code[i] = code[i] > 0 ? code[i] : 0;
        zero += code[i] == 0;
        near += code[i] < 0.1;
        maximum = code[i] > maximum ? code[i] : maximum;
    }
    assert_true(zero > 0.05 * total && zero < 0.99 * total); /* else this would prove nothing */
    assert_true(at_zero + at_tenth < 0.01 * total);
    const json_t *result = result_of(d, id);
    const json_t *h = get(d, "/v1/experiments/%s/histogram", id)->json;
    assert_count(number_at(result, "/sparsity/zero") * total, zero, at_zero, "zero");
    assert_count(number_at(result, "/sparsity/near_zero") * total, near, at_tenth, "near_zero");
    assert_count(number_at(h, "/zero_count"), zero, at_zero, "zero_count");
    double below = number_at(h, "/zero_count");
    for (size_t i = 0; number_at(h, text("/edges/%zu", i)) < 0.1; i++)
        below += number_at(h, text("/counts/%zu", i));
    assert_count(below, near, at_tenth, "the counts below 0.1");
    assert_true(fabs(number_at(h, "/maximum") - maximum) < 1e-4 * maximum);
    for (size_t b = 0; b < json_array_size(at(h, "/counts")); b++) { /* every bin */
        double low = number_at(h, text("/edges/%zu", b)), n = 0, doubtful = 0;
        double high = number_at(h, text("/edges/%zu", b + 1));
        for (size_t i = 0; i < N_TEST * HIDDEN; i++) {
            n += code[i] > 0 && code[i] >= low && code[i] < high;
            doubtful += fabs(code[i] - low) < border || fabs(code[i] - high) < border;
        }
        assert_count(number_at(h, text("/counts/%zu", b)), n, doubtful, text("bin %zu", b));
    }
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Hoyer, Treves–Rolls and Gini of m values `stride` apart, by their formulas, added to sums[3].
 * Returns whether the vector is not zero. */
static int reckon_three(const double *v, size_t m, size_t stride, double sums[3]) {
    double sorted[N_TEST > HIDDEN ? N_TEST : HIDDEN], l1 = 0, squares = 0, ranked = 0;
    double size = (double)m;
    for (size_t k = 0; k < m; k++) {
        sorted[k] = v[k * stride];
        l1 += sorted[k];
        squares += sorted[k] * sorted[k];
    }
    if (l1 == 0)
        return 0;
    qsort(sorted, m, sizeof *sorted, by_value);
    for (size_t k = 1; k <= m; k++)
        ranked += sorted[k - 1] / l1 * (size - (double)k + 0.5) / size;
    sums[0] += (sqrt(size) - l1 / sqrt(squares)) / (sqrt(size) - 1);
    sums[1] += (1 - l1 * l1 / (size * squares)) / (1 - 1 / size);
    sums[2] += 1 - 2 * ranked;
    return 1;
}

static void assert_three(const json_t *given, const double sums[3], double n) {
    static const char *const names[] = {"hoyer", "treves_rolls", "gini"};
    for (size_t i = 0; i < 3; i++)
        if (fabs(number_at(given, text("/%s", names[i])) - sums[i] / n) > 1e-4)
            fail_msg("%s is %.9g, reckoned %.9g", names[i], number_at(given, text("/%s", names[i])),
                     sums[i] / n);
}

/* One row of the table of units, from its column of the code. */
static double check_unit(const json_t *unit, const double *column, const uint8_t *records) {
    double by_class[CLASSES] = {0}, n_class[CLASSES] = {0}, mean = 0, maximum = 0, active = 0;
    double three[3] = {0}, total = 0, entropy = 0;
    for (size_t i = 0; i < N_TEST; i++) {
        double h = column[i * HIDDEN];
        by_class[records[i * RECORD]] += h;
        n_class[records[i * RECORD]]++;
        mean += h / N_TEST;
        maximum = fmax(maximum, h);
        active += h > 1e-4;
    }
    for (size_t c = 0; c < CLASSES; c++)
        total += by_class[c] /= fmax(n_class[c], 1);
    for (size_t c = 0; c < CLASSES; c++)
        entropy -= by_class[c] > 0 ? by_class[c] / total * log(by_class[c] / total) : 0;
    assert_true(fabs(number_at(unit, "/mean") - mean) < 1e-4);
    assert_true(fabs(number_at(unit, "/maximum") - maximum) < 1e-3);
    assert_count(number_at(unit, "/firing_rate") * N_TEST, active, 1, "firing_rate");
    if (!reckon_three(column, N_TEST, HIDDEN, three))
        return NAN;
    assert_three(unit, three, 1);
    assert_true(fabs(number_at(unit, "/classes") - exp(entropy)) < 1e-3);
    assert_true(by_class[(int)number_at(unit, "/strongest_class")] >= 0.999 * mean);
    return exp(entropy);
}

static void check_units(struct daemon *d, const char *id, const double *code,
                        const uint8_t *records) {
    const json_t *sparsity = at(result_of(d, id), "/sparsity");
    const json_t *table = get(d, "/v1/experiments/%s/units?limit=500", id)->json;
    struct tensor weight = fetch(d, id, "encoder.weight", 2, "");
    struct tensor bias = fetch(d, id, "encoder.bias", 1, "");
    double rows[3] = {0}, columns[3] = {0}, n_rows = 0, n_columns = 0, classes = 0, negative = 0;
    for (size_t i = 0; i < N_TEST; i++)
        n_rows += reckon_three(code + i * HIDDEN, HIDDEN, 1, rows);
    for (size_t k = 0; k < HIDDEN; k++) {
        const json_t *unit = at(table, text("/units/%zu", k));
        double squares = 0, number = check_unit(unit, code + k, records);
        for (size_t c = 0; c < weight.columns; c++)
            squares += pow((double)weight.numbers[k * weight.columns + c], 2);
        assert_int_equal(number_at(unit, "/unit"), k);
        assert_true(fabs(number_at(unit, "/weight_norm") - sqrt(squares)) < 1e-5 * sqrt(squares));
        assert_true((float)number_at(unit, "/bias") == bias.numbers[k]);
        n_columns += reckon_three(code + k, N_TEST, HIDDEN, columns);
        classes += isnan(number) ? 0 : number;
        negative += bias.numbers[k] < 0;
    }
    assert_three(at(sparsity, "/over_samples"), rows, n_rows);
    assert_three(at(sparsity, "/over_units"), columns, n_columns);
    assert_true(fabs(number_at(sparsity, "/classes_per_unit") - classes / n_columns) < 1e-3);
    assert_true(fabs(number_at(result_of(d, id), "/bias/negative") - negative / HIDDEN) < 1e-9);
    double sum = 0;
    for (size_t i = 0; i < N_TEST * HIDDEN; i++)
        sum += code[i];
    assert_true(fabs(number_at(sparsity, "/mean_activation") * N_TEST * HIDDEN - sum) < 1e-4 * sum);
    double active = (1 - number_at(sparsity, "/zero")) * HIDDEN;
    assert_true(fabs(number_at(sparsity, "/active_units/mean") - active) < 1e-9);
    free(weight.numbers), free(bias.numbers);
}

/* The test split is one batch, so J's terms follow from the definitions of the loss. */
static void check_loss(struct daemon *d, const char *id, const double *code) {
    double sum[HIDDEN] = {0}, mean = 0, alive = 0, square = 0;
    for (size_t i = 0; i < N_TEST; i++) {
        const double *h = code + i * HIDDEN;
        double norm = 0;
        for (size_t k = 0; k < HIDDEN; k++) {
            norm += h[k] * h[k];
            mean += h[k] / (N_TEST * HIDDEN);
        }
        norm = sqrt(norm);
        alive += norm > 1e-12;
        for (size_t k = 0; k < HIDDEN; k++)
            sum[k] += norm > 1e-12 ? h[k] / norm : 0;
    }
    for (size_t k = 0; k < HIDDEN; k++)
        square += sum[k] * sum[k];
    double ovr = 1e-4 * (square - alive), activity = fabs(mean - 0.5);
    double overlap = (square - alive) / (alive * (alive - 1));
    const json_t *result = result_of(d, id);
    assert_true(fabs(number_at(result, "/test/ovr") - ovr) < 1e-4 * fabs(ovr));
    assert_true(fabs(number_at(result, "/test/activity") - activity) < 1e-4);
    assert_true(fabs(number_at(result, "/test/loss") - ovr - activity) < 1e-4);
    assert_true(fabs(number_at(result, "/sparsity/overlap") - overlap) < 1e-4);
    assert_int_equal(number_at(result, "/sparsity/zero_codes"), N_TEST - alive);
}

static void check_probe(struct daemon *d, const char *id, const double *code,
                        const uint8_t *records) {
    struct tensor weight = fetch(d, id, "probe.weight", 2, "");
    struct tensor bias = fetch(d, id, "probe.bias", 1, "");
    double correct = 0, doubtful = 0;
    for (size_t i = 0; i < N_TEST; i++) {
        double best = -INFINITY, second = -INFINITY;
        size_t chosen = 0;
        for (size_t c = 0; c < CLASSES; c++) {
            double logit = (double)bias.numbers[c];
            for (size_t k = 0; k < HIDDEN; k++)
                logit += (double)weight.numbers[c * HIDDEN + k] * code[i * HIDDEN + k];
            if (logit > best) {
                second = best;
                best = logit;
                chosen = c;
            } else if (logit > second) {
                second = logit;
            }
        }
        correct += chosen == records[i * RECORD];
        doubtful += best - second < 1e-4;
    }
    const json_t *result = result_of(d, id);
    double reported = number_at(result, "/probe/accuracy") * N_TEST;
    assert_true(number_at(result, "/accuracy") == number_at(result, "/probe/accuracy"));
    if (strcmp(text_at(result, "/protocol"), "published") == 0) /* the best of all its epochs */
        assert_true(reported >= correct - doubtful - 1e-6);
    else
        assert_count(reported, correct, doubtful, "probe.accuracy");
    free(weight.numbers), free(bias.numbers);
}

static void test_figures_follow_from_the_downloads(void **state) {
    struct daemon *d = *state;
    uint8_t *records = make_records(N_TEST, 12); /* as upload_images() made them */
    const char *const ids[] = {encoder, published};
    for (size_t i = 0; i < COUNT(ids); i++) {
        double *code = reckon_code(d, ids[i], i == 0, records);
        check_sparsity(d, ids[i], code); /* leaves relu(code) */
        check_units(d, ids[i], code, records);
        check_loss(d, ids[i], code);
        check_probe(d, ids[i], code, records);
        free(code);
    }
    free(records);
}

/* Standardised values have mean 0 and variance 1 on the samples that were trained on; the whole
 * split with the published protocol. */
static void test_preprocessing_fits_the_training_split(void **state) {
    struct daemon *d = *state;
    uint8_t *records = make_records(N_TRAIN, 11);
    struct tensor mean = fetch(d, published, "preprocess.0.mean", 1, "");
    struct tensor scale = fetch(d, published, "preprocess.0.scale", 1, "");
    for (size_t p = 0; p < PIXELS; p += 97) {
        double sum = 0, squares = 0;
        for (size_t i = 0; i < N_TRAIN; i++)
            sum += records[i * RECORD + 1 + p];
        for (size_t i = 0; i < N_TRAIN; i++)
            squares += pow(records[i * RECORD + 1 + p] - sum / N_TRAIN, 2);
        assert_true(fabs((double)mean.numbers[p] - sum / N_TRAIN) < 1e-4);
        assert_true(fabs((double)scale.numbers[p] * sqrt(squares / N_TRAIN) - 1) < 1e-5);
    }
    free(mean.numbers), free(scale.numbers), free(records);
}

/* ---- The same again ---- */

static const json_t *digests_of(struct daemon *d, const char *id) {
    return at(wait_for(d, id, "succeeded")->json, "/provenance/weights");
}

/* Weights and all figures but seconds, epoch by epoch. */
static void check_same(struct daemon *d, const char *first, const char *spec) {
    static const char *const same[] = {"train", "validation", "test", "sparsity", "digest"};
    char *id = submit(d, "%s", spec);
    assert_true(json_equal(digests_of(d, id), digests_of(d, first)));
    const json_t *a = at(get(d, "/v1/experiments/%s/metrics", id)->json, "/series"), *epoch;
    const json_t *b = at(get(d, "/v1/experiments/%s/metrics", first)->json, "/series");
    size_t i;
    assert_int_equal(json_array_size(a), json_array_size(b));
    json_array_foreach(a, i, epoch) {
        for (size_t k = 0; k < COUNT(same); k++) {
            const json_t *mine = json_object_get(epoch, same[k]);
            const json_t *other = json_object_get(json_array_get(b, i), same[k]);
            assert_true(json_equal(mine, other) || (!mine && !other));
        }
    }
    assert_true(
        json_equal(at(result_of(d, id), "/sparsity"), at(result_of(d, first), "/sparsity")));
    assert_true(
        json_equal(at(result_of(d, id), "/accuracy"), at(result_of(d, first), "/accuracy")));
    free(id);
}

static void test_the_same_spec_gives_the_same_bits(void **state) {
    check_same(*state, published, ENCODER("", ",'protocol':'published'"));
    check_same(*state, mlp, MLP("12", ""));
}

static void test_threads_do_not_change_the_bits(void **state) {
    struct daemon *d = *state;
    check_same(d, encoder, ENCODER(PCA, ",'threads':1"));
    check_same(d, published, ENCODER("", ",'protocol':'published','threads':1"));
    check_same(d, published, ENCODER("", ",'protocol':'published','threads':2"));
    check_same(d, published, ENCODER("", ",'protocol':'published','threads':3"));
    check_same(d, mlp, MLP("12", ",'threads':1"));
    check_same(d, mlp, MLP("12", ",'threads':2"));
    char *id = submit(d, MLP("12", ",'threads':2"));
    assert_json(wait_for(d, id, "succeeded")->json, "/provenance/threads", "2");
    free(id);
}

static void test_another_seed_gives_other_bits(void **state) {
    struct daemon *d = *state;
    char *id = submit(d, MLP("12", ",'seed':2"));
    assert_false(json_equal(digests_of(d, id), digests_of(d, mlp)));
    free(id);
}

static void test_the_stored_spec_runs_the_same(void **state) {
    struct daemon *d = *state;
    char *spec =
        json_dumps(at(get(d, "/v1/experiments/%s", published)->json, "/spec"), JSON_COMPACT);
    check_same(d, published, spec);
    free(spec);
}

static void test_early_stopping(void **state) {
    struct daemon *d = *state;
    char *id = submit(d, MLP("500", ",'early_stopping':{'patience':2,'min_delta':0.05}"));
    const json_t *e = wait_for(d, id, "succeeded")->json;
    assert_true(number_at(e, "/result/epochs") < 500);
    assert_int_equal(json_array_size(at(get(d, "/v1/experiments/%s/metrics", id)->json, "/series")),
                     number_at(e, "/result/epochs"));
    free(id);
}

static void test_whatever_is_allowed_trains(void **state) {
    struct daemon *d = *state;
    static const char *const specs[] = {
        "{'dataset':{'generator':'sphere','samples':90},'preprocess':[{'pca':{'variance':0.5,'"
        "whiten':true}}],'model'"
        ":{'kind':'ovr_encoder','hidden':[5],'init':'he'},'loss':{'ovr':{'lambda_per_pair':0.1,"
        "'form':'raw'},'activity':null},'optimizer':{'name':'sgd','momentum':0.9,'nesterov':true},"
        "'training':{'epochs':2,'schedule':'constant'},'probe':null}",
        "{'dataset':{'generator':'sphere','samples':2,'test_samples':1,'latitudes':0,'sectors':1,"
        "'classes':2},'model':{'kind':'mlp','hidden':[1]},'training':{'epochs':1,'batch_size':1}}",
        "{'dataset':{'generator':'sphere','samples':50},'model':{'kind':'ovr_encoder','hidden':[9],"
        "'init':{'normal':1}},'loss':{'ovr':null},'training':{'epochs':2,'protocol':'published'},"
        "'probe':{'epochs':1}}",
        "{'dataset':{'name':'images','train_limit':30,'test_limit':7},'preprocess':['standardize'],"
        "'model':{'kind':'mlp','hidden':[300]},'loss':{'ovr':{},'activity':{'target':1}},'probe':{"
        "'epochs':2},'training':{'epochs':2,'batch_size':65536}}",
    };
    for (size_t i = 0; i < COUNT(specs); i++) {
        char *id = submit(d, "%s", specs[i]);
        wait_for(d, id, "succeeded");
        assert_status(get(d, "/v1/experiments/%s/metrics", id), 200);
        assert_status(get(d, "/v1/experiments/%s/histogram", id), 200);
        assert_status(get(d, "/v1/experiments/%s/weights", id), 200);
        free(id);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_finished_experiment_is_complete),
        cmocka_unit_test(test_metrics_by_protocol),
        cmocka_unit_test(test_metrics_in_part),
        cmocka_unit_test(test_histogram_adds_up),
        cmocka_unit_test(test_histogram_of_every_epoch),
        cmocka_unit_test(test_histogram_with_fewer_bins),
        cmocka_unit_test(test_json_and_npy_are_the_same),
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_best_and_last_epoch),
        cmocka_unit_test(test_no_weights_before_success),
        cmocka_unit_test(test_figures_follow_from_the_downloads),
        cmocka_unit_test(test_preprocessing_fits_the_training_split),
        cmocka_unit_test(test_the_same_spec_gives_the_same_bits),
        cmocka_unit_test(test_threads_do_not_change_the_bits),
        cmocka_unit_test(test_another_seed_gives_other_bits),
        cmocka_unit_test(test_the_stored_spec_runs_the_same),
        cmocka_unit_test(test_early_stopping),
        cmocka_unit_test(test_whatever_is_allowed_trains),
    };
    return cmocka_run_group_tests_name("training", tests, set_up, tear_down);
}
