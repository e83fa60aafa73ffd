/* Every kind of net that an optimiser trains, from spec to figures: J's terms on the test split are
 * reckoned again, in loops of our own, from the uploaded bytes and the downloaded tensors. */
#include "tests/api/tensors.h"

#include <math.h>

enum { N_TRAIN = 200, N_TEST = 60, PIXELS = 3072, CLASSES = 10, MOST_UNITS = 64 };

/* What a spec says of a net, as far as a reckoning needs it. */
struct model {
    const char *kind; /* of the layers' names: "encoder" or "hidden" */
    enum { RELU, SIGMOID, TANH, TOP_K, THRESHOLDED } activation;
    size_t top_k;
    double threshold;
    int tied;
    double ovr, l1, l2, kl, target, contractive; /* weights in J */
    size_t layers;
};

/* A matrix with rows of samples. */
struct rows {
    size_t n, d;
    double *x;
};

static struct rows new_rows(size_t n, size_t d) {
    return (struct rows){n, d, calloc(n * d, sizeof(double))};
}

static int set_up(void **state) {
    struct daemon *d = daemon_new(NULL);
    *state = d;
    upload_images(d, "images", N_TRAIN, N_TEST, 11);
    return 0;
}

/* The test split, standardised as the experiment did it. */
static struct rows inputs_of(struct daemon *d, const char *id) {
    uint8_t *records = make_records(N_TEST, 12); /* as upload_images() made them */
    struct tensor mean = fetch(d, id, "preprocess.0.mean", 1, "");
    struct tensor scale = fetch(d, id, "preprocess.0.scale", 1, "");
    struct rows x = new_rows(N_TEST, PIXELS);
    for (size_t i = 0; i < N_TEST; i++)
        for (size_t p = 0; p < PIXELS; p++)
            x.x[i * PIXELS + p] = ((double)records[i * RECORD + 1 + p] - (double)mean.numbers[p]) *
                                  (double)scale.numbers[p];
    free(records), free(mean.numbers), free(scale.numbers);
    return x;
}

/* Whether a unit is among the k largest of its row. */
static int is_top(const double *row, size_t n, size_t unit, size_t k) {
    size_t larger = 0;
    for (size_t j = 0; j < n; j++)
        larger += row[j] > row[unit];
    return larger < k;
}

static double activation(const struct model *m, const double *row, size_t n, size_t unit) {
    double a = row[unit];
    switch (m->activation) {
    case SIGMOID:
        return 1 / (1 + exp(-a));
    case TANH:
        return tanh(a);
    case TOP_K:
        return is_top(row, n, unit, m->top_k) ? a : 0;
    case THRESHOLDED:
        return a > m->threshold ? a : 0;
    default:
        return a > 0 ? a : 0;
    }
}

static double slope(const struct model *m, double h) {
    switch (m->activation) {
    case SIGMOID:
        return h * (1 - h);
    case TANH:
        return 1 - h * h;
    default:
        return h != 0;
    }
}

/* x·wᵀ + b, w one row for each output. */
static struct rows affine(struct rows x, const struct tensor *w, const struct tensor *b) {
    struct rows y = new_rows(x.n, w->rows);
    assert_int_equal(w->columns, x.d);
    assert_int_equal(b->rows, w->rows);
    for (size_t i = 0; i < x.n; i++)
        for (size_t k = 0; k < y.d; k++) {
            double sum = (double)b->numbers[k];
            for (size_t j = 0; j < x.d; j++)
                sum += (double)w->numbers[k * x.d + j] * x.x[i * x.d + j];
            y.x[i * y.d + k] = sum;
        }
    return y;
}

static struct tensor layer_tensor(struct daemon *d, const char *id, const struct model *m,
                                  size_t layer, const char *what) {
    int numbered = m->layers > 1 || strcmp(m->kind, "hidden") == 0;
    const char *name =
        numbered ? text("%s.%zu.%s", m->kind, layer, what) : text("%s.%s", m->kind, what);
    return fetch(d, id, name, strcmp(what, "weight") == 0 ? 2 : 1, "");
}

static struct rows layer_of(struct daemon *d, const char *id, const struct model *m, size_t layer,
                            struct rows x) {
    struct tensor w = layer_tensor(d, id, m, layer, "weight");
    struct tensor b = layer_tensor(d, id, m, layer, "bias");
    struct rows a = affine(x, &w, &b), h = new_rows(a.n, a.d);
    for (size_t i = 0; i < a.n; i++)
        for (size_t k = 0; k < a.d; k++)
            h.x[i * a.d + k] = activation(m, a.x + i * a.d, a.d, k);
    for (size_t k = 0; m->activation == THRESHOLDED && k < b.rows; k++)
        assert_true(b.numbers[k] == 0);
    free(w.numbers), free(b.numbers), free(a.x);
    return h;
}

/* ---- J's terms ---- */

static double squares(const float *x, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    return sum;
}

/* Pair by pair. */
static double cosine_ovr(struct rows h) {
    double sum = 0;
    for (size_t i = 0; i < h.n; i++)
        for (size_t j = 0; j < h.n; j++) {
            double dot = 0, a = 0, b = 0;
            for (size_t k = 0; k < h.d; k++) {
                dot += h.x[i * h.d + k] * h.x[j * h.d + k];
                a += h.x[i * h.d + k] * h.x[i * h.d + k];
                b += h.x[j * h.d + k] * h.x[j * h.d + k];
            }
            sum += i != j && a > 0 && b > 0 ? dot / sqrt(a * b) : 0;
        }
    return sum;
}

static double mean_of(struct rows h) {
    double sum = 0;
    for (size_t i = 0; i < h.n * h.d; i++)
        sum += h.x[i];
    return sum / (double)(h.n * h.d);
}

static double l1_of(struct rows h) {
    double sum = 0;
    for (size_t i = 0; i < h.n * h.d; i++)
        sum += fabs(h.x[i]);
    return sum / (double)h.n;
}

static double kl_of(struct rows h, double target) {
    double sum = 0;
    for (size_t k = 0; k < h.d; k++) {
        double q = 0;
        for (size_t i = 0; i < h.n; i++)
            q += h.x[i * h.d + k] / (double)h.n;
        sum += target * log(target / q) + (1 - target) * log((1 - target) / (1 - q));
    }
    return sum;
}

static double contraction_of(const struct model *m, struct rows h, const struct tensor *w) {
    double sum = 0;
    for (size_t k = 0; k < h.d; k++) {
        double norm = squares(w->numbers + k * w->columns, w->columns);
        for (size_t i = 0; i < h.n; i++)
            sum += pow(slope(m, h.x[i * h.d + k]), 2) * norm / (double)h.n;
    }
    return sum;
}

static double squared_error(struct rows a, struct rows b) {
    double sum = 0;
    for (size_t i = 0; i < a.n * a.d; i++)
        sum += pow(a.x[i] - b.x[i], 2);
    return sum / (double)(a.n * a.d);
}

static void assert_term(const json_t *result, const char *name, double expected) {
    double reported = number_at(result, text("/test/%s", name));
    if (fabs(reported - expected) > 2e-4 * fabs(expected) + 1e-7)
        fail_msg("%s is %.9g, reckoned %.9g", name, reported, expected);
}

/* ---- Autoencoders ---- */

static struct rows decode(struct daemon *d, const char *id, const struct model *m, struct rows h,
                          double *weights) {
    struct tensor v = {0}, c = fetch(d, id, "decoder.bias", 1, "");
    if (!m->tied) {
        v = fetch(d, id, "decoder.weight", 2, "");
        *weights += squares(v.numbers, v.rows * v.columns);
    } else { /* V = W, which has units in rows */
        struct tensor w = fetch(d, id, "encoder.weight", 2, "");
        assert_status(get(d, "/v1/experiments/%s/weights/decoder.weight", id), 404);
        v = (struct tensor){w.columns, w.rows, malloc(w.rows * w.columns * sizeof(float))};
        for (size_t k = 0; k < w.rows; k++)
            for (size_t j = 0; j < w.columns; j++)
                v.numbers[j * w.rows + k] = w.numbers[k * w.columns + j];
        free(w.numbers);
    }
    struct rows decoded = affine(h, &v, &c);
    free(v.numbers), free(c.numbers);
    return decoded;
}

static void check_autoencoder(struct daemon *d, const char *id, const struct model *m) {
    struct rows x = inputs_of(d, id), h = layer_of(d, id, m, 0, x);
    struct tensor w = fetch(d, id, "encoder.weight", 2, "");
    double weights = squares(w.numbers, w.rows * w.columns), loss = 0;
    struct rows decoded = decode(d, id, m, h, &weights);
    const json_t *result = at(get(d, "/v1/experiments/%s", id)->json, "/result"), *value;
    assert_term(result, "reconstruction", squared_error(decoded, x));
    assert_term(result, "ovr", m->ovr > 0 ? m->ovr * cosine_ovr(h) : 0);
    assert_term(result, "activity", 0);
    const struct {
        const char *name;
        double weight, value;
    } terms[] = {
        {"l1", m->l1, l1_of(h)},
        {"l2", m->l2, weights},
        {"kl", m->kl, m->kl > 0 ? kl_of(h, m->target) : 0},
        {"contractive", m->contractive, contraction_of(m, h, &w)},
    };
    for (size_t i = 0; i < COUNT(terms); i++)
        if (terms[i].weight > 0)
            assert_term(result, terms[i].name, terms[i].weight * terms[i].value);
        else
            assert_null(at(result, text("/test/%s", terms[i].name)));
    const char *name;
    json_object_foreach(at(result, "/test"), name, value) {
        loss += strcmp(name, "loss") ? json_number_value(value) : 0;
    }
    assert_term(result, "loss", loss);
    assert_true(squared_error(decoded, x) < 0.8); /* 1 would be no reconstruction at all */
    free(x.x), free(h.x), free(decoded.x), free(w.numbers);
}

static char *train_autoencoder(struct daemon *d, const char *model, const char *loss,
                               const char *more) {
    return submit(d,
                  "{'dataset':{'name':'images'},'preprocess':['standardize'],"
                  "'model':{'kind':'autoencoder','hidden':[32]%s},'loss':{%s},"
                  "'optimizer':{'learning_rate':0.002},"
                  "'training':{'epochs':20,'batch_size':60%s},'probe':null}",
                  model, loss, more);
}

static void test_autoencoders(void **state) {
    struct daemon *d = *state;
    static const struct {
        const char *spec, *loss;
        struct model model;
    } cases[] = {
        {"", "", {.activation = RELU}},
        {",'tied':true", "'l1':0.001", {.activation = RELU, .tied = 1, .l1 = 1e-3}},
        {",'corruption':0.3", "'ovr':{'lambda':1e-4}", {.activation = RELU, .ovr = 1e-4}},
        {",'corruption':{'gaussian':0.5},'activation':'tanh','tied':true",
         "'l2':1e-5",
         {.activation = TANH, .tied = 1, .l2 = 1e-5}},
        {",'activation':'sigmoid'",
         "'contractive':0.01,'l2':1e-5",
         {.activation = SIGMOID, .contractive = 0.01, .l2 = 1e-5}},
        {",'activation':'sigmoid','tied':true",
         "'kl':{'target':0.1,'weight':0.01}",
         {.activation = SIGMOID, .tied = 1, .kl = 0.01, .target = 0.1}},
        {",'top_k':5", "'ovr':{'lambda':1e-5}", {.activation = TOP_K, .top_k = 5, .ovr = 1e-5}},
        {",'threshold':0.5,'tied':true",
         "'contractive':1e-4",
         {.activation = THRESHOLDED, .threshold = 0.5, .tied = 1, .contractive = 1e-4}},
    };
    char *ids[COUNT(cases)];
    for (size_t i = 0; i < COUNT(cases); i++)
        ids[i] = train_autoencoder(d, cases[i].spec, cases[i].loss, "");
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct model m = cases[i].model;
        m.kind = "encoder";
        m.layers = 1;
        wait_for(d, ids[i], "succeeded");
        check_autoencoder(d, ids[i], &m);
        const json_t *series = at(get(d, "/v1/experiments/%s/metrics", ids[i])->json, "/series");
        assert_true(number_at(series, "/19/train/reconstruction") <
                    0.95 * number_at(series, "/0/train/reconstruction"));
        assert_true(number_at(series, "/0/gradient/reconstruction") > 0);
        free(ids[i]);
    }
}

/* ---- Deep nets ---- */

static double cross_entropy(struct rows z, const uint8_t *records, double *accuracy) {
    double sum = 0;
    *accuracy = 0;
    for (size_t i = 0; i < z.n; i++) {
        const double *row = z.x + i * z.d;
        double total = 0;
        size_t best = 0, label = records[i * RECORD];
        for (size_t c = 0; c < z.d; c++) {
            total += exp(row[c]);
            best = row[c] > row[best] ? c : best;
        }
        sum += (log(total) - row[label]) / (double)z.n;
        *accuracy += (double)(best == label) / (double)z.n;
    }
    return sum;
}

#define DEEP(training)                                                                             \
    "{'dataset':{'name':'images'},'preprocess':['standardize'],"                                   \
    "'model':{'kind':'mlp','hidden':[40,20,30],'dropout':[0.5,0,0.2]},"                            \
    "'loss':{'ovr':{'lambda':1e-5,'layers':[1]},'activity':{}},"                                   \
    "'optimizer':{'learning_rate':0.003},'training':{'epochs':6,'batch_size':60" training "}}"

static void test_a_deep_mlp_with_dropout(void **state) {
    struct daemon *d = *state;
    const struct model m = {.kind = "hidden", .activation = RELU, .layers = 3};
    uint8_t *records = make_records(N_TEST, 12);
    char *id = submit(d, DEEP("")), *again = submit(d, DEEP(",'threads':1"));
    const json_t *e = wait_for(d, id, "succeeded")->json, *result = at(e, "/result");
    struct rows h = inputs_of(d, id);
    double accuracy;
    for (size_t l = 0; l < 3; l++) {
        struct rows above = layer_of(d, id, &m, l, h);
        free(h.x);
        h = above;
        if (l == 1) {
            assert_term(result, "ovr", 1e-5 * cosine_ovr(h));
            assert_term(result, "activity", fabs(mean_of(h) - 0.5));
        }
    }
    struct tensor v = fetch(d, id, "output.weight", 2, ""), c = fetch(d, id, "output.bias", 1, "");
    struct rows z = affine(h, &v, &c);
    assert_term(result, "cross_entropy", cross_entropy(z, records, &accuracy));
    assert_true(fabs(number_at(result, "/test/accuracy") - accuracy) < 1.5 / N_TEST);
    assert_true(number_at(result, "/accuracy") > 0.4);
    assert_true(json_equal(at(wait_for(d, again, "succeeded")->json, "/provenance/weights"),
                           at(e, "/provenance/weights"))); /* whatever the number of threads */
    free(h.x), free(z.x), free(v.numbers), free(c.numbers), free(records), free(id), free(again);
}

#define ENCODER(model, training)                                                                   \
    "{'dataset':{'name':'images'},'preprocess':['standardize'],"                                   \
    "'model':{'kind':'ovr_encoder'," model "},'loss':{'ovr':{'lambda':1e-4}},"                     \
    "'optimizer':{'learning_rate':0.003},'training':{'epochs':3,'batch_size':60" training          \
    "},'probe':null}"

/* An encoder on an encoder: the first one's weights stay, bit by bit. */
static void test_a_stack_is_trained_layer_by_layer(void **state) {
    struct daemon *d = *state;
    const struct model m = {.kind = "encoder", .activation = RELU, .layers = 2};
    char *first = submit(d, ENCODER("'hidden':[48]", ""));
    wait_for(d, first, "succeeded");
    char *second =
        submit(d, ENCODER("'hidden':[48,24],'freeze':1,'init':{'experiment':'%s'}", ""), first);
    const json_t *result = at(wait_for(d, second, "succeeded")->json, "/result");
    struct tensor w = fetch(d, first, "encoder.weight", 2, "");
    struct tensor kept = fetch(d, second, "encoder.0.weight", 2, "&epoch=last");
    assert_memory_equal(w.numbers, kept.numbers, w.rows * w.columns * sizeof(float));
    struct rows x = inputs_of(d, second), h = layer_of(d, second, &m, 0, x);
    struct rows above = layer_of(d, second, &m, 1, h);
    assert_term(result, "ovr", 1e-4 * cosine_ovr(above)); /* the frozen layer has no term */
    assert_term(result, "activity", fabs(mean_of(above) - 0.5));
    const json_t *series = at(get(d, "/v1/experiments/%s/metrics", second)->json, "/series");
    assert_true(number_at(series, "/2/train/loss") < number_at(series, "/0/train/loss"));
    free(w.numbers), free(kept.numbers), free(x.x), free(h.x), free(above.x);
    free(first), free(second);
}

/* Classes that arrive one after the other: the second run starts where the first one ended. */
static void test_training_is_continued(void **state) {
    struct daemon *d = *state;
    char *first = submit(d, ENCODER("'hidden':[48]", ",'only_classes':[0,1,2,3,4]"));
    const json_t *ended =
        at(wait_for(d, first, "succeeded")->json, "/provenance/weights/last_sha256");
    char *still = submit(d,
                         "{'dataset':{'name':'images'},'preprocess':['standardize'],"
                         "'model':{'kind':'ovr_encoder','hidden':[48],"
                         "'init':{'experiment':'%s','epoch':'last'}},"
                         "'loss':{'ovr':{'lambda':1e-4}},'probe':null,"
                         "'optimizer':{'name':'sgd','learning_rate':1e-30},"
                         "'training':{'epochs':1,'batch_size':60,'only_classes':[5,6,7,8,9]}}",
                         first);
    char *second = submit(d,
                          ENCODER("'hidden':[48],'init':{'experiment':'%s','epoch':'last'}",
                                  ",'only_classes':[5,6,7,8,9],'batching':'single_class'"),
                          first);
    struct tensor a = fetch(d, first, "encoder.weight", 2, "&epoch=last");
    wait_for(d, still, "succeeded");
    struct tensor b = fetch(d, still, "encoder.weight", 2, "");
    assert_memory_equal(a.numbers, b.numbers, a.rows * a.columns * sizeof(float));
    const json_t *old = at(get(d, "/v1/experiments/%s/metrics", first)->json, "/series/2");
    const json_t *new = at(get(d, "/v1/experiments/%s/metrics", still)->json, "/series/0");
    assert_true(fabs(number_at(new, "/validation/loss") - number_at(old, "/validation/loss")) <
                1e-6);
    const json_t *e = wait_for(d, second, "succeeded")->json;
    assert_false(json_equal(at(e, "/provenance/weights/last_sha256"), ended));
    free(a.numbers), free(b.numbers), free(first), free(still), free(second);
}

static void check_init_refused(struct daemon *d, const char *hidden, const char *from,
                               const char *part) {
    const struct answer *a =
        post(d, "/v1/experiments",
             text("{'dataset':{'name':'images'},'preprocess':['standardize'],"
                  "'model':{'kind':'ovr_encoder','hidden':[%s],'init':{'experiment':'%s'}}}",
                  hidden, from));
    assert_problem(a, 422, "invalid-spec", "");
    assert_fault(a, "/model/init/experiment", part);
}

static void test_weights_that_cannot_be_started_from(void **state) {
    struct daemon *d = *state;
    char *done = submit(d, ENCODER("'hidden':[8]", ""));
    char *running = submit(d, "{'dataset':{'generator':'sphere'},'model':{'kind':'mlp','hidden':"
                              "[64]},'training':{'epochs':100000}}");
    wait_for(d, done, "succeeded");
    check_init_refused(d, "8", "aaaaaaaaaaaa", "there is no experiment aaaaaaaaaaaa");
    check_init_refused(d, "9", done, "no weights of the shapes");
    char *bare = submit(d, "{'dataset':{'generator':'sphere'},'model':{'kind':'identity'},"
                           "'probe':null}"); /* has no weights at all */
    wait_for(d, bare, "succeeded");
    check_init_refused(d, "8", bare, "no weights of the shapes");
    free(bare);
    wait_for_epoch(d, running, 1);
    check_init_refused(d, "8", running, "its weights are there once it succeeded");
    assert_status(post(d, text("/v1/experiments/%s/cancel", running), NULL), 202);
    free(done), free(running);
}

static void test_classes_that_are_not_there(void **state) {
    const struct answer *a =
        post(*state, "/v1/experiments",
             "{'dataset':{'name':'images'},'model':{'kind':'mlp','hidden':[4]},"
             "'training':{'only_classes':[9,10,0]}}");
    assert_problem(a, 422, "invalid-spec", "");
    assert_fault(a, "/training/only_classes/1", "is 10, but the data set has only 10 classes");
    assert_int_equal(json_array_size(at(a->json, "/errors")), 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_autoencoders),
        cmocka_unit_test(test_a_deep_mlp_with_dropout),
        cmocka_unit_test(test_a_stack_is_trained_layer_by_layer),
        cmocka_unit_test(test_training_is_continued),
        cmocka_unit_test(test_weights_that_cannot_be_started_from),
        cmocka_unit_test(test_classes_that_are_not_there),
    };
    return cmocka_run_group_tests_name("models", tests, set_up, without_daemon);
}
