/* The probe: learns what can be learned, and takes the steps of an independent logistic regression.
 */
#include "core/probe.h"
#include "tests/core/check.h"

enum { UNITS = 300, CLASSES = 3, WIDTH = 16 };

/* A split: activations, labels and their code. */
struct data {
    real *h;
    uint16_t *labels;
    struct code *code;
};

static struct data new_data(struct team *team, size_t n, uint32_t index) {
    struct data data = {new_activations(n * UNITS, index), new_labels(n, CLASSES, index + 1), NULL};
    data.code = new_code(team, data.h, n, UNITS, data.labels);
    return data;
}

/* The units of its class (every CLASSES-th) are active for a sample and no others. */
static struct data new_separable_data(struct team *team, size_t n, uint32_t index) {
    struct data data = {new_activations(n * UNITS, index), new_labels(n, CLASSES, index + 1), NULL};
    for (size_t i = 0; i < n * UNITS; i++)
        if (i % UNITS % CLASSES != data.labels[i / UNITS])
            data.h[i] = 0;
    data.code = new_code(team, data.h, n, UNITS, data.labels);
    return data;
}

static void data_release(struct data *data) {
    code_free(data->code);
    free(data->h);
    free(data->labels);
}

static struct probe_config adam_config(double rate, int epochs) {
    return (struct probe_config){.epochs = epochs,
                                 .batch_size = 16,
                                 .optimizer = {OPT_ADAM, rate, 0.9, 0.999, 1e-7, 0, 0},
                                 .seed = 9};
}

/* What probe_plan() counts is what a run takes: an arena of exactly that size. */
static struct arena probe_arena(struct team *team, const struct probe_config *config,
                                const struct data *train) {
    struct arena counting = {0}, arena;
    struct ovr_err err = {0};
    probe_plan(config, UNITS, CLASSES, train->code->n, team_size(team), &counting);
    assert_ok(arena_open(&arena, counting.used, &err), &err);
    return arena;
}

/* The weights are the caller's. */
static struct probe_result run(struct team *team, const struct probe_config *config,
                               const struct data *train, const struct data *watch,
                               const struct data *test) {
    const struct probe_progress progress = {0};
    struct probe_result result;
    struct ovr_err err = {0};
    struct arena arena = probe_arena(team, config, train);
    assert_ok(probe_run(team, kernels_get(ISA_AUTO), config, CLASSES, train->code, watch->code,
                        test ? test->code : NULL, &progress, &arena, &result, &err),
              &err);
    assert_int_equal(arena.used, arena.size);
    size_t n = (UNITS + 1) * result.width;
    result.weights = memcpy(new_reals(n), result.weights, n * sizeof(real));
    arena_close(&arena);
    return result;
}

static void learns_separable_classes(void **state) {
    (void)state;
    struct team *team = new_team(2);
    struct data train = new_separable_data(team, 300, 1), watch = new_separable_data(team, 300, 3);
    struct data test = new_separable_data(team, 77, 5);
    struct probe_config config = adam_config(1e-2, 10);
    struct probe_result result = run(team, &config, &train, &watch, &test);
    assert_true(result.accuracy_best == 1);
    assert_true(result.accuracy_last == 1);
    assert_true(result.accuracy_test == 1);
    assert_int_equal(result.epoch_best, 10); /* the loss still falls */
    free(result.weights);
    result = run(team, &config, &train, &watch, NULL);
    assert_true(isnan(result.accuracy_test));
    free(result.weights);
    data_release(&train);
    data_release(&watch);
    data_release(&test);
    team_free(team);
}

/* Multinomial logistic regression with Adam, dense and in float64. Row UNITS of the weights is the
 * bias. */
struct naive {
    double w[(UNITS + 1) * CLASSES], m[(UNITS + 1) * CLASSES], v[(UNITS + 1) * CLASSES];
    double g[(UNITS + 1) * CLASSES];
};

static double naive_loss(const struct naive *naive, const real *h, size_t label, double *p) {
    double sum = 0;
    for (size_t c = 0; c < CLASSES; c++) {
        double z = naive->w[UNITS * CLASSES + c];
        for (size_t k = 0; k < UNITS; k++)
            z += naive->w[k * CLASSES + c] * h[k];
        p[c] = exp(z);
        sum += p[c];
    }
    for (size_t c = 0; c < CLASSES; c++)
        p[c] /= sum;
    return -log(p[label]);
}

static void naive_step(struct naive *naive, const struct data *data, const uint32_t *order,
                       size_t n, double rate, int t) {
    memset(naive->g, 0, sizeof naive->g);
    for (size_t i = 0; i < n; i++) {
        const real *h = data->h + order[i] * UNITS;
        double p[CLASSES];
        naive_loss(naive, h, data->labels[order[i]], p);
        for (size_t c = 0; c < CLASSES; c++) {
            double delta = (p[c] - (c == data->labels[order[i]])) / (double)n;
            for (size_t k = 0; k <= UNITS; k++)
                naive->g[k * CLASSES + c] += delta * (k < UNITS ? h[k] : 1);
        }
    }
    for (size_t i = 0; i < COUNT(naive->w); i++) {
        naive->m[i] = 0.9 * naive->m[i] + 0.1 * naive->g[i];
        naive->v[i] = 0.999 * naive->v[i] + 0.001 * naive->g[i] * naive->g[i];
        naive->w[i] -= rate * (naive->m[i] / (1 - pow(0.9, t))) /
                       (sqrt(naive->v[i] / (1 - pow(0.999, t))) + 1e-7);
    }
}

static void steps_equal_naive_regression(void **state) {
    (void)state;
    enum { N = 60, EPOCHS = 2 };
    struct team *team = new_team(2);
    struct data train = new_data(team, N, 10), watch = new_data(team, 40, 12);
    struct probe_config config = adam_config(1e-3, EPOCHS);
    struct naive *naive = calloc(1, sizeof *naive);
    uint32_t order[N];
    double best_loss = INFINITY, p[CLASSES];
    double best[COUNT(naive->w)] = {0};
    int t = 0;
    for (uint32_t epoch = 1; epoch <= EPOCHS; epoch++) {
        struct rng rng;
        rng_init(&rng, config.seed, RNG_PROBE_SHUFFLE, epoch, 0);
        rng_permutation(&rng, order, N);
        for (size_t first = 0; first < N; first += 16)
            naive_step(naive, &train, order + first, min_size(16, N - first), 1e-3, ++t);
        double loss = 0;
        for (size_t i = 0; i < 40; i++)
            loss += naive_loss(naive, watch.h + i * UNITS, watch.labels[i], p) / 40;
        if (loss < best_loss) {
            best_loss = loss;
            memcpy(best, naive->w, sizeof best);
        }
    }
    struct probe_result result = run(team, &config, &train, &watch, NULL);
    assert_relative(result.loss_best, best_loss, 1e-4);
    assert_int_equal(result.width, WIDTH);
    real weights[COUNT(naive->w)];
    for (size_t i = 0; i < (UNITS + 1) * WIDTH; i++) {
        if (i % WIDTH < CLASSES)
            weights[i / WIDTH * CLASSES + i % WIDTH] = result.weights[i];
        else
            assert_true(result.weights[i] == 0);
    }
    assert_true(distance(COUNT(weights), weights, best, NULL) < 1e-4);
    free(result.weights);
    free(naive);
    data_release(&train);
    data_release(&watch);
    team_free(team);
}

/* The weights of the epoch with the lowest loss are kept, and read the test split. */
static void best_epoch_is_kept(void **state) {
    (void)state;
    struct team *team = new_team(2);
    struct data train = new_data(team, 40, 20), watch = new_data(team, 200, 22);
    struct probe_config config = adam_config(3e-2, 6); /* random labels: it only gets worse */
    struct probe_result result = run(team, &config, &train, &watch, &watch);
    assert_true(result.epoch_best < 6);
    config.epochs = result.epoch_best;
    struct probe_result shorter = run(team, &config, &train, &watch, NULL);
    assert_memory_equal(result.weights, shorter.weights, (UNITS + 1) * WIDTH * sizeof(real));
    assert_true(result.accuracy_test == shorter.accuracy_last);
    free(result.weights);
    free(shorter.weights);
    data_release(&train);
    data_release(&watch);
    team_free(team);
}

static void same_bits_for_any_team(void **state) {
    (void)state;
    struct probe_config config = adam_config(1e-3, 2);
    config.schedule = (struct schedule_config){SCHEDULE_PLATEAU, 0.1, 1e-6, 1e-4, 1};
    struct probe_result first = {0};
    for (size_t i = 0; i < COUNT(TEAM_SIZES); i++) {
        struct team *team = new_team(TEAM_SIZES[i]);
        struct data train = new_data(team, 150, 30), watch = new_data(team, 301, 32);
        struct probe_result result = run(team, &config, &train, &watch, &watch);
        if (first.weights) {
            assert_memory_equal(result.weights, first.weights, (UNITS + 1) * WIDTH * sizeof(real));
            assert_true(result.loss_best == first.loss_best);
            assert_true(result.accuracy_test == first.accuracy_test);
            free(result.weights);
        } else {
            first = result;
        }
        data_release(&train);
        data_release(&watch);
        team_free(team);
    }
    free(first.weights);
}

static void raise_flag(void *context, int epoch) {
    if (epoch == 2)
        *(_Atomic int *)context = 1;
}

static void stop_flag_is_obeyed(void **state) {
    (void)state;
    struct team *team = new_team(3);
    struct data train = new_data(team, 100, 40), watch = new_data(team, 50, 42);
    struct probe_config config = adam_config(1e-3, 1000000);
    _Atomic int stop = 0;
    const struct probe_progress progress = {&stop, raise_flag, &stop};
    struct probe_result result;
    struct ovr_err err = {0};
    struct arena arena = probe_arena(team, &config, &train);
    int rc = probe_run(team, kernels_get(ISA_AUTO), &config, CLASSES, train.code, watch.code, NULL,
                       &progress, &arena, &result, &err);
    arena_close(&arena);
    assert_failed(rc, OVR_STOPPED, &err, "stopped");
    assert_null(result.weights);
    data_release(&train);
    data_release(&watch);
    team_free(team);
}

static void divergence_is_reported(void **state) {
    (void)state;
    struct team *team = new_team(2);
    struct data train = new_data(team, 100, 50);
    struct probe_config config = {.epochs = 3, .batch_size = 16};
    config.optimizer = (struct optimizer_config){.name = OPT_SGD, .learning_rate = 1e38};
    const struct probe_progress progress = {0};
    struct probe_result result;
    struct ovr_err err = {0};
    struct arena arena = probe_arena(team, &config, &train);
    int rc = probe_run(team, kernels_get(ISA_AUTO), &config, CLASSES, train.code, train.code, NULL,
                       &progress, &arena, &result, &err);
    arena_close(&arena);
    assert_failed(rc, OVR_DIVERGED, &err, "lower its learning rate");
    assert_null(result.weights);
    data_release(&train);
    team_free(team);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(learns_separable_classes), cmocka_unit_test(steps_equal_naive_regression),
        cmocka_unit_test(best_epoch_is_kept),       cmocka_unit_test(same_bits_for_any_team),
        cmocka_unit_test(stop_flag_is_obeyed),      cmocka_unit_test(divergence_is_reported),
    };
    return cmocka_run_group_tests_name("core/probe", tests, start_blas, NULL);
}
