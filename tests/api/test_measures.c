/* What was measured, as the API gives it: tables of units, the tiling, series of histograms, their
 * distances, CSV. The figures themselves are reckoned anew in test_training.c. */
#include "tests/api/daemon.h"

#include <math.h>
#include <stdio.h>
#include <sys/wait.h>

enum { HIDDEN = 70, EPOCHS = 9, N_TEST = 300, CELLS = 12, CLASSES = 4 };

static char *sphere, *dead, *stored, *deep;

static int set_up(void **state) {
    struct daemon *d = daemon_new(NULL);
    *state = d;
    upload_images(d, "images", 60, 20, 5);
    sphere = submit(d, "{'name':'a sphere','dataset':{'generator':'sphere','samples':900,"
                       "'test_samples':300,'latitudes':2,'sectors':4,'classes':4,'seed':3},"
                       "'model':{'kind':'mlp','hidden':[70]},'optimizer':{'learning_rate':0.02},"
                       "'training':{'epochs':9,'batch_size':64}}");
    /* So strong that it kills units. */
    dead = submit(d, "{'dataset':{'generator':'sphere','samples':500,'latitudes':2,'sectors':4},"
                     "'model':{'kind':'ovr_encoder','hidden':[70]},'probe':null,'loss':{'ovr':"
                     "{'lambda':1}},'optimizer':{'learning_rate':0.05},'training':{'epochs':30}}");
    stored = submit(d, "{'dataset':{'name':'images'},'model':{'kind':'mlp','hidden':[8]},"
                       "'training':{'epochs':2}}");
    deep = submit(d, "{'dataset':{'generator':'sphere','samples':400},'model':{'kind':'mlp',"
                     "'hidden':[20,12]},'training':{'epochs':3}}");
    wait_for(d, deep, "succeeded");
    wait_for(d, sphere, "succeeded");
    wait_for(d, dead, "succeeded");
    wait_for(d, stored, "succeeded");
    return 0;
}

static int tear_down(void **state) {
    free(sphere), free(dead), free(stored), free(deep);
    return without_daemon(state);
}

/* ---- Units ---- */

static const char *const figures[] = {"firing_rate", "mean",    "maximum",        "bias",
                                      "weight_norm", "classes", "hoyer",          "treves_rolls",
                                      "gini",        "cells",   "strongest_class"};

/* A figure, infinite where it is null. */
static double figure_of(const json_t *unit, const char *name) {
    const json_t *value = json_object_get(unit, name);
    assert_non_null(value);
    return json_is_null(value) ? INFINITY : json_number_value(value);
}

static void test_units_in_every_order(void **state) {
    struct daemon *d = *state;
    for (size_t f = 0; f < COUNT(figures); f++)
        for (int down = 0; down < 2; down++) {
            const json_t *table = get(d, "/v1/experiments/%s/units?limit=500&sort=%s%s", dead,
                                      down ? "-" : "", figures[f])
                                      ->json;
            const json_t *units = at(table, "/units");
            int seen[HIDDEN] = {0};
            assert_int_equal(json_array_size(units), HIDDEN);
            for (size_t i = 0; i < HIDDEN; i++) {
                const json_t *unit = json_array_get(units, i);
                seen[(int)number_at(unit, "/unit")]++;
                if (i == 0)
                    continue;
                double before = figure_of(json_array_get(units, i - 1), figures[f]);
                double value = figure_of(unit, figures[f]);
                assert_true(isinf(value) || (down ? value <= before : value >= before));
            }
            for (size_t k = 0; k < HIDDEN; k++)
                assert_int_equal(seen[k], 1);
        }
}

static void test_pages_make_the_whole(void **state) {
    struct daemon *d = *state;
    const json_t *whole =
        at(get(d, "/v1/experiments/%s/units?limit=500&sort=-mean", sphere)->json, "/units");
    const char *path =
        text("/v1/experiments/%s/units?limit=32&sort=-mean&class_means=true", sphere);
    char next[256];
    size_t n = 0, pages = 0;
    for (; path; pages++) {
        const struct answer *a = get(d, "%s", path);
        size_t i;
        json_t *unit;
        assert_status(a, 200);
        json_array_foreach(at(a->json, "/units"), i, unit) {
            assert_int_equal(json_array_size(at(unit, "/class_means")), CLASSES);
            json_t *bare = json_deep_copy(unit);
            json_object_del(bare, "class_means");
            assert_true(json_equal(bare, json_array_get(whole, n++)));
            json_decref(bare);
        }
        const char *link = header(a, "Link");
        path = link && sscanf(link, "<%255[^>]>; rel=\"next\"", next) == 1 ? next : NULL;
    }
    assert_int_equal(n, HIDDEN);
    assert_int_equal(pages, 3);
}

static void test_dead_units(void **state) {
    struct daemon *d = *state;
    const json_t *e = get(d, "/v1/experiments/%s", dead)->json;
    const json_t *table = get(d, "/v1/experiments/%s/units?dead=true&limit=500", dead)->json;
    double n = number_at(e, "/result/sparsity/dead_units");
    assert_true(n > 0 && n < HIDDEN); /* else this would prove nothing */
    assert_true(number_at(table, "/matching") == n && number_at(table, "/total") == HIDDEN);
    size_t i;
    const json_t *unit;
    static const char *const of_the_living[] = {
        "classes", "strongest_class", "hoyer", "treves_rolls", "gini", "cells"};
    json_array_foreach(at(table, "/units"), i, unit) {
        assert_json(unit, "/dead", "true");
        assert_true(number_at(unit, "/maximum") == 0 && number_at(unit, "/firing_rate") == 0);
        for (size_t f = 0; f < COUNT(of_the_living); f++)
            assert_true(json_is_null(json_object_get(unit, of_the_living[f])));
    }
    table = get(d, "/v1/experiments/%s/units?dead=false&limit=500", dead)->json;
    assert_true(number_at(table, "/matching") == HIDDEN - n);
    json_array_foreach(at(table, "/units"), i, unit) {
        assert_json(unit, "/dead", "false");
        assert_true(number_at(unit, "/firing_rate") > 0 && number_at(unit, "/classes") >= 1);
    }
}

static void test_refused_queries(void **state) {
    struct daemon *d = *state;
    const char *units = text("/v1/experiments/%s/units", sphere);
    assert_problem(get(d, "%s?sort=name", units), 422, "invalid-query", "firing_rate");
    assert_problem(get(d, "%s?sort=--mean", units), 422, "invalid-query", "sort");
    assert_problem(get(d, "%s?dead=maybe", units), 422, "invalid-query", "true or false");
    assert_problem(get(d, "%s?layer=1", units), 404, "not-found", "hidden.1");
    assert_problem(get(d, "/v1/experiments/nobody/units"), 404, "not-found", "nobody");
    static const char *const slices[] = {"5", "3:3", "4:2", "0:71", "-1:3", "a:b", "0:5x", ""};
    for (size_t i = 0; i < COUNT(slices); i++)
        assert_problem(get(d, "/v1/experiments/%s/tiling?units=%s", sphere, slices[i]), 422,
                       "invalid-query", "first:end");
    assert_problem(get(d, "/v1/experiments/%s/tiling", stored), 404, "not-found", "not the sphere");
    assert_int_equal(
        json_array_size(at(get(d, "/v1/experiments/%s/units", stored)->json, "/units")), 8);
    assert_null(at(get(d, "/v1/experiments/%s/units", stored)->json, "/units/0/cells"));
}

static void test_no_table_before_success(void **state) {
    struct daemon *d = *state;
    char *id = submit(d, "{'dataset':{'generator':'sphere'},'model':{'kind':'mlp','hidden':[8]},"
                         "'training':{'epochs':100000}}");
    wait_for_epoch(d, id, 2);
    assert_problem(get(d, "/v1/experiments/%s/units", id), 404, "not-found", "yet");
    assert_problem(get(d, "/v1/experiments/%s/tiling", id), 404, "not-found", "yet");
    assert_status(post(d, text("/v1/experiments/%s/cancel", id), NULL), 202);
    wait_for(d, id, "cancelled");
    assert_problem(get(d, "/v1/experiments/%s/units", id), 404, "not-found", "cancelled");
    free(id);
}

/* ---- The tiling ---- */

/* Means by unit and cell from shares: scaled so that the mean over all samples is the table's. */
static void reckon_means(const json_t *tiling, const json_t *table, double means[HIDDEN][CELLS]) {
    for (size_t k = 0; k < HIDDEN; k++) {
        double weighted = 0, sum = 0, entropy = 0;
        for (size_t c = 0; c < CELLS; c++) {
            means[k][c] = number_at(tiling, text("/units/%zu/shares/%zu", k, c));
            weighted += means[k][c] * number_at(tiling, text("/cells/%zu/samples", c)) / N_TEST;
            sum += means[k][c];
            entropy -= means[k][c] > 0 ? means[k][c] * log(means[k][c]) : 0;
        }
        assert_int_equal(number_at(tiling, text("/units/%zu/unit", k)), k);
        if (sum == 0) {
            assert_json(tiling, text("/units/%zu/dead", k), "true");
            continue;
        }
        assert_true(fabs(sum - 1) < 1e-9);
        double cells = number_at(tiling, text("/units/%zu/cells", k));
        assert_true(fabs(exp(entropy) - cells) < 1e-5 * cells);
        assert_true(cells == number_at(table, text("/units/%zu/cells", k)));
        for (size_t c = 0; c < CELLS; c++)
            means[k][c] *= number_at(table, text("/units/%zu/mean", k)) / weighted;
    }
}

static void test_tiling(void **state) {
    struct daemon *d = *state;
    static double means[HIDDEN][CELLS];
    const json_t *tiling = get(d, "/v1/experiments/%s/tiling?units=0:70", sphere)->json;
    const json_t *table =
        get(d, "/v1/experiments/%s/units?limit=500&class_means=true", sphere)->json;
    double samples = 0, in_class[CLASSES] = {0};
    assert_int_equal(json_array_size(at(tiling, "/cells")), CELLS);
    reckon_means(tiling, table, means);
    for (size_t c = 0; c < CELLS; c++) {
        const json_t *cell = at(tiling, text("/cells/%zu", c));
        double n = number_at(cell, "/samples"), most = 0;
        size_t band = c / 4, sector = c % 4;
        assert_int_equal(number_at(cell, "/band"), band);
        assert_int_equal(number_at(cell, "/sector"), sector);
        assert_true(fabs(number_at(cell, "/z/0") - (2 * (double)band / 3 - 1)) < 1e-12);
        assert_true(fabs(number_at(cell, "/z/1") - (2 * (double)(band + 1) / 3 - 1)) < 1e-12);
        assert_true(number_at(cell, "/longitude/0") == 90 * (double)sector);
        assert_true(number_at(cell, "/longitude/1") == 90 * (double)(sector + 1));
        assert_true(n > 5 && n < 60); /* equal areas: 25 each, in the mean */
        samples += n;
        in_class[(int)number_at(cell, "/class")] += n;
        for (size_t k = 0; k < HIDDEN; k++)
            most = fmax(most, means[k][c]);
        double mean = number_at(cell, "/mean");
        assert_true(fabs(mean - most) < 1e-5 * most);
        assert_true(fabs(means[(int)number_at(cell, "/unit")][c] - most) < 1e-5 * most);
    }
    assert_true(samples == N_TEST);
    /* A cell is of one class, so the means by class follow. */
    for (size_t k = 0; k < HIDDEN; k++) {
        double by_class[CLASSES] = {0};
        for (size_t c = 0; c < CELLS; c++) {
            int class = (int)number_at(tiling, text("/cells/%zu/class", c));
            by_class[class] +=
                means[k][c] * number_at(tiling, text("/cells/%zu/samples", c)) / in_class[class];
        }
        for (size_t c = 0; c < CLASSES; c++)
            assert_true(fabs(by_class[c] -
                             number_at(table, text("/units/%zu/class_means/%zu", k, c))) < 1e-5);
    }
    const json_t *few = get(d, "/v1/experiments/%s/tiling?units=7:9", sphere)->json;
    assert_int_equal(json_array_size(at(few, "/units")), 2);
    assert_true(json_equal(at(few, "/units/0"), at(tiling, "/units/7")));
    assert_true(json_equal(at(few, "/cells"), at(tiling, "/cells")));
}

/* ---- Histograms ---- */

static void test_series_of_histograms(void **state) {
    struct daemon *d = *state;
    const json_t *all = get(d, "/v1/experiments/%s/histograms", sphere)->json;
    assert_string_equal(text_at(all, "/split"), "validation");
    assert_int_equal(json_array_size(at(all, "/series")), EPOCHS);
    for (size_t epoch = 1; epoch <= EPOCHS; epoch++) {
        const json_t *point = at(all, text("/series/%zu", epoch - 1));
        const json_t *one = get(d, "/v1/experiments/%s/histogram?epoch=%zu", sphere, epoch)->json;
        assert_int_equal(number_at(point, "/epoch"), epoch);
        assert_true(json_equal(at(point, "/zero_count"), at(one, "/zero_count")));
        assert_true(json_equal(at(point, "/total"), at(one, "/total")));
        assert_int_equal(json_array_size(at(point, "/counts")) + 1,
                         json_array_size(at(all, "/edges")));
        for (size_t bin = 0; bin < json_array_size(at(one, "/counts")); bin++) {
            assert_true(
                json_equal(at(point, text("/counts/%zu", bin)), at(one, text("/counts/%zu", bin))));
            assert_true(
                json_equal(at(all, text("/edges/%zu", bin)), at(one, text("/edges/%zu", bin))));
        }
    }
    const json_t *few =
        get(d, "/v1/experiments/%s/histograms?from_epoch=3&max_points=3", sphere)->json;
    assert_int_equal(json_array_size(at(few, "/series")), 3);
    assert_int_equal(number_at(few, "/series/0/epoch"), 3);
    assert_int_equal(number_at(few, "/series/1/epoch"), 6);
    assert_int_equal(number_at(few, "/series/2/epoch"), EPOCHS);
    assert_json(get(d, "/v1/experiments/%s/histograms?layer=3", sphere)->json, "/series", "[]");
    assert_problem(get(d, "/v1/experiments/nobody/histograms"), 404, "not-found", "nobody");
}

/* The sparsity beside a histogram is that of its epoch. */
static void test_a_histogram_has_all_definitions(void **state) {
    struct daemon *d = *state;
    const json_t *result = at(get(d, "/v1/experiments/%s", sphere)->json, "/result");
    const json_t *best = get(d, "/v1/experiments/%s/histogram", sphere)->json;
    const json_t *third = get(d, "/v1/experiments/%s/histogram?epoch=3", sphere)->json;
    const json_t *series = get(d, "/v1/experiments/%s/metrics", sphere)->json;
    assert_true(json_equal(at(best, "/sparsity"), at(result, "/sparsity")));
    assert_true(json_equal(at(third, "/sparsity"), at(series, "/series/2/sparsity")));
    assert_non_null(at(best, "/sparsity/over_units/gini"));
    assert_null(at(third, "/sparsity/over_units"));
}

/* ∫|F_a − F_b| by many small steps over both polygons. */
static void reckon_distance(const json_t *a, const json_t *b, double *ks, double *wasserstein) {
    *ks = *wasserstein = 0;
    double edges[64], f[2][64];
    const json_t *points[2] = {at(a, "/series/0"), at(b, "/series/0")};
    size_t n = json_array_size(at(points[0], "/counts"));
    for (int side = 0; side < 2; side++) {
        double below = number_at(points[side], "/zero_count");
        for (size_t i = 0; i <= n; i++) {
            edges[i] = number_at(a, text("/edges/%zu", i));
            f[side][i] = below / number_at(points[side], "/total");
            below += i < n ? number_at(points[side], text("/counts/%zu", i)) : 0;
        }
    }
    for (size_t i = 0; i <= n; i++)
        *ks = fmax(*ks, fabs(f[0][i] - f[1][i]));
    enum { STEPS = 2000 };
    for (size_t i = 0; i < n; i++)
        for (int s = 0; s < STEPS; s++) {
            double t = (s + 0.5) / STEPS;
            double gap = (f[0][i] - f[1][i]) * (1 - t) + (f[0][i + 1] - f[1][i + 1]) * t;
            *wasserstein += fabs(gap) * (edges[i + 1] - edges[i]) / STEPS;
        }
}

static const json_t *compare(struct daemon *d, const char *a, const char *b) {
    const struct answer *answer = get(d, "/v1/compare/histograms?a=%s&b=%s", a, b);
    assert_status(answer, 200);
    return answer->json;
}

static void test_distances(void **state) {
    struct daemon *d = *state;
    const char *first = text("%s:1", sphere), *last = text("%s:9", sphere);
    double ks, wasserstein;
    const json_t *c = compare(d, first, last), *back = compare(d, last, first);
    reckon_distance(get(d, "/v1/experiments/%s/histograms?max_points=2&from_epoch=1", sphere)->json,
                    get(d, "/v1/experiments/%s/histograms?from_epoch=9", sphere)->json, &ks,
                    &wasserstein);
    assert_true(ks > 0.01); /* else this would prove nothing */
    assert_true(fabs(number_at(c, "/ks") - ks) < 1e-12);
    assert_true(fabs(number_at(c, "/wasserstein") - wasserstein) < 1e-4 * wasserstein);
    assert_true(number_at(back, "/ks") == number_at(c, "/ks"));
    assert_int_equal(number_at(c, "/a/epoch"), 1);
    assert_int_equal(number_at(c, "/b/epoch"), 9);
    assert_string_equal(text_at(c, "/b/name"), "a sphere");
    assert_string_equal(text_at(c, "/a/split"), "validation");
    c = compare(d, sphere, text("%s:best", sphere));
    assert_json(c, "/ks", "0.0");
    assert_json(c, "/wasserstein", "0.0");
    assert_string_equal(text_at(c, "/a/split"), "test");
    assert_string_equal(text_at(c, "/a/epoch"), "best");
    c = compare(d, sphere, dead);
    assert_true(number_at(c, "/ks") > 0 && number_at(c, "/wasserstein") > 0);
    assert_problem(get(d, "/v1/compare/histograms?a=%s", sphere), 422, "invalid-query", "b must");
    assert_problem(get(d, "/v1/compare/histograms?a=%s:0&b=%s", sphere, dead), 422, "invalid-query",
                   "epoch of a");
    assert_problem(get(d, "/v1/compare/histograms?a=%s:1x&b=%s", sphere, dead), 422,
                   "invalid-query", "epoch of a");
    assert_problem(get(d, "/v1/compare/histograms?a=%s&b=%s:99", sphere, dead), 404, "not-found",
                   "epoch 99");
    assert_problem(get(d, "/v1/compare/histograms?a=%s&b=nobody", sphere), 404, "not-found",
                   "nobody");
    assert_problem(get(d, "/v1/compare/histograms?a=%s&b=abcdefghijklmnopqrst", sphere), 404,
                   "not-found", "abcdefghijklmnopqrst");
}

/* ---- Several hidden layers ---- */

static void test_each_layer_is_measured(void **state) {
    struct daemon *d = *state;
    const json_t *result = at(get(d, "/v1/experiments/%s", deep)->json, "/result");
    const json_t *series = get(d, "/v1/experiments/%s/metrics", deep)->json;
    const double units[] = {20, 12};
    for (int layer = 0; layer < 2; layer++) {
        const json_t *h = get(d, "/v1/experiments/%s/histogram?layer=%d", deep, layer)->json;
        const json_t *epochs =
            get(d, "/v1/experiments/%s/histograms?layer=hidden.%d", deep, layer)->json;
        const json_t *table = get(d, "/v1/experiments/%s/units?layer=%d", deep, layer)->json;
        const char *name = text("hidden.%d", layer);
        assert_string_equal(text_at(h, "/layer"), name);
        assert_string_equal(text_at(epochs, "/layer"), name);
        assert_string_equal(text_at(table, "/layer"), name);
        assert_true(number_at(h, "/total") == 80 * units[layer]);
        assert_true(number_at(epochs, "/series/2/total") == 40 * units[layer]);
        assert_true(number_at(table, "/total") == units[layer]);
        assert_non_null(at(h, "/sparsity/zero"));
        const char *place = layer == 0 ? "/layers/0" : "/sparsity";
        assert_true(number_at(h, "/sparsity/zero") == number_at(result, text("%s/zero", place)));
        double zero = number_at(series, text("/series/2%s/zero", place)) * 40 * units[layer];
        assert_true(fabs(number_at(epochs, "/series/2/zero_count") - zero) < 1e-6);
        double firing = 0;
        for (size_t k = 0; k < (size_t)units[layer]; k++)
            firing += number_at(table, text("/units/%zu/firing_rate", k)) / units[layer];
        assert_true(fabs(1 - firing - number_at(h, "/sparsity/zero")) < 1e-6);
    }
    /* By default the last one, whose sparsity is the code's. */
    assert_string_equal(text_at(get(d, "/v1/experiments/%s/histogram", deep)->json, "/layer"),
                        "hidden.1");
    assert_string_equal(text_at(get(d, "/v1/experiments/%s/histograms", deep)->json, "/layer"),
                        "hidden.1");
    assert_string_equal(text_at(get(d, "/v1/experiments/%s/units", deep)->json, "/layer"),
                        "hidden.1");
    assert_string_equal(text_at(get(d, "/v1/experiments/%s/tiling", deep)->json, "/layer"),
                        "hidden.1");
    assert_string_equal(text_at(compare(d, deep, text("%s:1", deep)), "/b/layer"), "hidden.1");
    assert_true(number_at(get(d, "/v1/compare/histograms?a=%s&b=%s&layer=0", deep, sphere)->json,
                          "/ks") > 0);
    assert_string_equal(text_at(compare(d, deep, sphere), "/b/layer"), "hidden.0");
    assert_problem(get(d, "/v1/compare/histograms?a=%s&b=%s&layer=1", deep, sphere), 404,
                   "not-found", "hidden.1");
    assert_null(at(at(series, "/series/0/layers"), "/1"));
    assert_null(at(get(d, "/v1/experiments/%s", sphere)->json, "/result/layers"));
}

/* ---- CSV ---- */

/* Field `column` of a line, in a buffer that lasts for the next few. */
static const char *field(const char *line, size_t column) {
    for (; column; column--)
        line += strcspn(line, ",\r") + 1;
    return text("%.*s", (int)strcspn(line, ",\r"), line);
}

/* Every figure of the JSON has its column, and the columns have nothing else. */
static size_t count_leaves(const json_t *value) {
    size_t n = 0;
    const char *name;
    json_t *member;
    if (!json_is_object(value))
        return json_is_array(value) ? 0 : 1;
    json_object_foreach((json_t *)(uintptr_t)value, name, member) {
        n += count_leaves(member);
    }
    return n;
}

static void test_metrics_as_csv(void **state) {
    struct daemon *d = *state;
    const struct answer *a = get(d, "/v1/experiments/%s/metrics?format=csv", sphere);
    const json_t *series = at(get(d, "/v1/experiments/%s/metrics", sphere)->json, "/series");
    assert_status(a, 200);
    assert_string_equal(header(a, "Content-Type"), "text/csv; charset=utf-8");
    size_t columns = 1, lines = 0;
    for (const char *c = a->body; *c != '\r'; c++)
        columns += *c == ',';
    assert_int_equal(columns, count_leaves(json_array_get(series, 0)));
    assert_string_equal(field(a->body, 0), "epoch");
    for (const char *line = strstr(a->body, "\r\n") + 2; *line;
         line = strstr(line, "\r\n") + 2, lines++)
        for (size_t column = 0; column < columns; column++) {
            char pointer[128];
            snprintf(pointer, sizeof pointer, "/%s", field(a->body, column));
            for (char *c = pointer; *c; c++)
                *c = *c == '.' ? '/' : *c;
            const json_t *value = at(json_array_get(series, lines), pointer);
            const char *got = field(line, column);
            if (json_is_string(value))
                assert_string_equal(got, json_string_value(value));
            else if (atof(got) != json_number_value(value))
                fail_msg("%s is %s", pointer, got);
        }
    assert_int_equal(lines, EPOCHS);
    a = get(d, "/v1/experiments/%s/metrics?format=csv&from_epoch=100", sphere);
    assert_string_equal(a->body, "epoch\r\n");
}

/* ---- ovrctl ---- */

/* Everything that a command prints, in a buffer of its own. */
static const char *ovrctl(const struct daemon *d, int expected, const char *arguments) {
    static char output[8192];
    const char *build = getenv("OVRD_TEST_BUILD");
    FILE *pipe =
        popen(text("%s/ovrctl --host %s %s 2>&1", build ? build : "build", d->url, arguments), "r");
    assert_non_null(pipe);
    size_t n = fread(output, 1, sizeof output - 1, pipe);
    output[n] = '\0';
    int status = pclose(pipe);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != expected)
        fail_msg("ovrctl %s: status %d\n%s", arguments, status, output);
    return output;
}

static void test_ovrctl(void **state) {
    struct daemon *d = *state;
    const json_t *best =
        at(get(d, "/v1/experiments/%s/units?sort=-mean", sphere)->json, "/units/0");
    const char *said = ovrctl(d, 0, text("units %s --sort=-mean --limit 1", sphere));
    assert_non_null(strstr(said, "70 of 70 units of layer hidden.0, on the test split"));
    assert_non_null(strstr(said, "firing_rate"));
    assert_non_null(strstr(said, text("%.4g", number_at(best, "/mean"))));
    assert_int_equal(atoi(strstr(said, "gini\n") + 5), number_at(best, "/unit"));
    said = ovrctl(d, 0, text("units %s --dead", dead));
    assert_non_null(strstr(
        said,
        text("%g of 70 units",
             number_at(get(d, "/v1/experiments/%s/units?dead=true", dead)->json, "/matching"))));
    const json_t *distance = compare(d, text("%s:1", sphere), dead);
    said = ovrctl(d, 0, text("compare %s:1 %s", sphere, dead));
    assert_non_null(strstr(said, text("%.4g", number_at(distance, "/ks"))));
    assert_non_null(strstr(said, text("%.4g", number_at(distance, "/wasserstein"))));
    assert_non_null(strstr(said, "a sphere  epoch 1  validation split"));
    assert_non_null(strstr(ovrctl(d, 3, text("compare %s nobody", sphere)), "nobody"));
    assert_non_null(strstr(ovrctl(d, 2, text("compare %s", sphere)), "usage"));
    assert_non_null(strstr(ovrctl(d, 3, text("units %s --layer 4", sphere)), "hidden.4"));
    said = ovrctl(d, 0, text("metrics %s --format csv", sphere));
    assert_int_equal(strncmp(said, "epoch,train.loss,", 17), 0);
    assert_string_equal(said, get(d, "/v1/experiments/%s/metrics?format=csv", sphere)->body);
    assert_non_null(strstr(ovrctl(d, 2, text("metrics %s --format xml", sphere)), "csv"));
    said = ovrctl(d, 0, text("weights %s hidden.0.bias --rows 0:2", sphere));
    assert_non_null(strstr(said, "\"data\":["));
    assert_int_equal(said[strlen(said) - 1], '\n');
    said = ovrctl(d, 0, text("show %s", sphere));
    assert_non_null(strstr(said, "over_units: hoyer"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_units_in_every_order),
        cmocka_unit_test(test_pages_make_the_whole),
        cmocka_unit_test(test_dead_units),
        cmocka_unit_test(test_refused_queries),
        cmocka_unit_test(test_no_table_before_success),
        cmocka_unit_test(test_tiling),
        cmocka_unit_test(test_series_of_histograms),
        cmocka_unit_test(test_a_histogram_has_all_definitions),
        cmocka_unit_test(test_distances),
        cmocka_unit_test(test_each_layer_is_measured),
        cmocka_unit_test(test_metrics_as_csv),
        cmocka_unit_test(test_ovrctl),
    };
    return cmocka_run_group_tests_name("api/measures", tests, set_up, tear_down);
}
