/* Models beside the nets: k-means, PCA, random projection, identity, in whole runs. What they
 * compute is held against numpy in tests/science; here are teams, ends, refusals and what a run
 * reports. */
#include "core/train.h"
#include "tests/core/check.h"

enum { MAX_EPOCHS = 64, N_TRAIN = 420, N_TEST = 90, D = 7, CLASSES = 3, K = 150 };

struct record {
    struct train_progress progress;
    struct train_result result;
    struct ovr_err err;
    int rc, n_reports;
    double train_loss[MAX_EPOCHS], watched_loss[MAX_EPOCHS], direction[MAX_EPOCHS];
};

static int keep_report(void *context, const struct epoch_report *report, struct ovr_err *err) {
    struct record *record = context;
    (void)err;
    record->train_loss[record->n_reports] = report->train.value[TERM_DISTORTION];
    record->watched_loss[record->n_reports] = report->watched.loss;
    record->direction[record->n_reports++] = report->gradients.direction;
    return 0;
}

struct data {
    struct samples train, test;
};

/* Each class around a place of its own. */
static struct samples clustered(size_t n, uint32_t index) {
    struct samples s = new_samples(n, D, CLASSES, index);
    for (size_t i = 0; i < n; i++)
        s.values[i * D] += (real)(10 * s.labels[i]);
    return s;
}

static struct data new_data(void) {
    return (struct data){clustered(N_TRAIN, 1), clustered(N_TEST, 3)};
}

static void data_release(struct data *data) {
    samples_release(&data->train);
    samples_release(&data->test);
}

static struct train_config config_of(enum model_kind kind) {
    struct train_config config = {
        .kind = kind,
        .hidden = {K},
        .n_hidden = 1,
        .f = {ACT_LINEAR},
        .epochs = 5,
        .batch_size = 32,
        .seed = 5,
        .data = {.protocol = PROTOCOL_PUBLISHED, .validation = 0.2},
        .probe = 1,
        .probe_config = {.epochs = 2,
                         .batch_size = 16,
                         .optimizer = {OPT_ADAM, 1e-2, 0.9, 0.999, 1e-7}},
    };
    if (kind == MODEL_KMEANS || kind == MODEL_ONLINE_KMEANS) {
        config.f.kind = ACT_TRIANGLE;
        config.init = INIT_SAMPLES;
    }
    if (kind == MODEL_RANDOM_PROJECTION) {
        config.f.kind = ACT_RELU;
        config.init_scale = 0.05;
    }
    if (kind == MODEL_PCA)
        config.hidden[0] = D - 2;
    if (kind == MODEL_IDENTITY)
        config.n_hidden = 0;
    return config;
}

static void run_into(struct record *record, const struct train_config *config,
                     const struct data *data, int threads) {
    struct team *team = new_team(threads);
    const struct train_hooks hooks = {record, NULL, &record->progress, keep_report};
    *record = (struct record){0};
    record->rc = prepare_and_train(config, &data->train, &data->test, team, &hooks, &record->result,
                                   &record->err);
    team_free(team);
}

static void run(struct record *record, const struct train_config *config, const struct data *data,
                int threads) {
    run_into(record, config, data, threads);
    assert_ok(record->rc, &record->err);
}

static const enum model_kind KINDS[] = {MODEL_KMEANS, MODEL_ONLINE_KMEANS, MODEL_PCA,
                                        MODEL_RANDOM_PROJECTION, MODEL_IDENTITY};

static void assert_same_bits(const struct record *a, const struct record *b) {
    const struct train_result *x = &a->result, *y = &b->result;
    size_t bytes = x->net.n_params * sizeof(real);
    assert_int_equal(x->epochs, y->epochs);
    assert_memory_equal(a->train_loss, b->train_loss, sizeof a->train_loss);
    assert_memory_equal(a->watched_loss, b->watched_loss, sizeof a->watched_loss);
    assert_memory_equal(a->direction, b->direction, sizeof a->direction);
    assert_memory_equal(x->best, y->best, bytes);
    assert_memory_equal(x->last, y->last, bytes);
    assert_memory_equal(&x->terms, &y->terms, sizeof x->terms);
    assert_memory_equal(&x->measures, &y->measures, sizeof x->measures);
    assert_memory_equal(&x->accuracy, &y->accuracy, sizeof x->accuracy);
    if (x->last_counts)
        assert_memory_equal(x->last_counts, y->last_counts, K * sizeof(real));
}

static void bits_do_not_depend_on_team(void **state) {
    (void)state;
    struct data data = new_data();
    for (size_t kind = 0; kind < COUNT(KINDS); kind++)
        for (int clean = 0; clean <= 1; clean++) {
            struct train_config config = config_of(KINDS[kind]);
            struct record first, other;
            if (clean) {
                config.data.protocol = PROTOCOL_CLEAN;
                config.init = config.init == INIT_SAMPLES ? INIT_KMEANS_PLUS_PLUS : config.init;
                config.f.kind = config.f.kind == ACT_TRIANGLE ? ACT_HARD : config.f.kind;
            }
            run(&first, &config, &data, TEAM_SIZES[0]);
            for (size_t i = 1; i < COUNT(TEAM_SIZES); i++) {
                run(&other, &config, &data, TEAM_SIZES[i]);
                assert_same_bits(&first, &other);
                train_result_release(&other.result);
            }
            train_result_release(&first.result);
        }
    data_release(&data);
}

/* Neither step of Lloyd's algorithm makes the distortion grow, and it ends by itself. */
static void lloyd_goes_down_and_ends(void **state) {
    (void)state;
    struct data data = new_data();
    struct train_config config = config_of(MODEL_KMEANS);
    struct record record;
    config.hidden[0] = 20;
    config.epochs = MAX_EPOCHS;
    run(&record, &config, &data, 2);
    assert_true(record.n_reports > 3 && record.n_reports < MAX_EPOCHS);
    assert_int_equal(record.result.epochs, record.n_reports);
    for (int i = 1; i < record.n_reports; i++)
        assert_true(record.train_loss[i] <= record.train_loss[i - 1] * (1 + 1e-6));
    assert_relative(record.train_loss[record.n_reports - 1],
                    record.train_loss[record.n_reports - 2], 1e-2);
    double counted = 0;
    for (size_t k = 0; k < 20; k++)
        counted += record.result.last_counts[k];
    assert_near(counted, N_TRAIN, 0);
    assert_true(fabs(record.direction[0]) <= 1);
    train_result_release(&record.result);
    data_release(&data);
}

static void online_ends_with_its_epochs(void **state) {
    (void)state;
    struct data data = new_data();
    struct train_config config = config_of(MODEL_ONLINE_KMEANS);
    struct record record;
    config.hidden[0] = 3;
    config.epochs = 20;
    run(&record, &config, &data, 2);
    assert_int_equal(record.n_reports, 20);
    assert_true(fabs(record.direction[0]) <= 1);
    assert_true(record.result.terms.value[TERM_DISTORTION] < 1.5 * D);
    double counted = 0;
    for (size_t k = 0; k < 3; k++)
        counted += record.result.last_counts[k];
    assert_near(counted, 20 * N_TRAIN, 0);
    train_result_release(&record.result);
    data_release(&data);
}

/* Where all samples are far from 0 the distances are small differences of large scores, and yet the
 * distortion is right; with as many centroids as places Lloyd comes to rest there. */
static void far_from_zero(void **state) {
    (void)state;
    struct data data = new_data();
    struct train_config config = config_of(MODEL_KMEANS);
    struct record near, far;
    config.hidden[0] = 3;
    config.init = INIT_KMEANS_PLUS_PLUS;
    config.epochs = 10;
    config.probe = 0;
    run(&near, &config, &data, 2);
    for (size_t i = 0; i < N_TRAIN * D; i++)
        data.train.values[i] += 300;
    for (size_t i = 0; i < N_TEST * D; i++)
        data.test.values[i] += 300;
    run(&far, &config, &data, 2);
    assert_relative(far.result.terms.value[TERM_DISTORTION],
                    near.result.terms.value[TERM_DISTORTION], 1e-3);
    train_result_release(&near.result);
    train_result_release(&far.result);
    for (size_t i = 0; i < N_TRAIN * D; i++)
        data.train.values[i] = (real)(300.1 + (double)(i / D % 3));
    config.hidden[0] = 10;
    run(&far, &config, &data, 2);
    assert_true(far.train_loss[0] == 0 && far.n_reports == 2);
    train_result_release(&far.result);
    data_release(&data);
}

/* The other classes are 10 and more away, and no centroid goes there. */
static void centroids_of_one_class(void **state) {
    (void)state;
    struct data data = new_data();
    for (size_t kind = 0; kind < 2; kind++)
        for (int init = INIT_SAMPLES; init <= INIT_KMEANS_PLUS_PLUS; init++) {
            struct train_config config = config_of(KINDS[kind]);
            struct record record;
            config.init = (enum init)init;
            config.hidden[0] = 30;
            config.only = (struct class_list){1, {1}};
            run(&record, &config, &data, 3);
            for (size_t k = 0; k < 30; k++)
                assert_near(record.result.last[k * D], 10, 5);
            train_result_release(&record.result);
        }
    data_release(&data);
}

static void more_centroids_than_samples(void **state) {
    (void)state;
    struct data data = new_data();
    struct train_config config = config_of(MODEL_KMEANS);
    struct record record;
    config.hidden[0] = N_TRAIN + 1;
    run_into(&record, &config, &data, 2);
    assert_failed(record.rc, OVR_INVALID, &record.err, "must be 1..420");
    assert_string_equal(record.err.field, "/model/hidden/0");
    train_result_release(&record.result);
    config.hidden[0] = N_TRAIN; /* each sample its own */
    config.probe = 0;
    run(&record, &config, &data, 2);
    assert_near(record.train_loss[0], 0, 1e-3);
    assert_int_equal(record.n_reports, 2);
    train_result_release(&record.result);
    data_release(&data);
}

/* Squares beyond float32: there is no learning rate to lower. */
static void values_too_large_for_distances(void **state) {
    (void)state;
    struct data data = new_data();
    struct train_config config = config_of(MODEL_KMEANS);
    struct record record;
    for (size_t i = 0; i < N_TRAIN * D; i++)
        data.train.values[i] *= (real)1e30;
    run_into(&record, &config, &data, 2);
    assert_failed(record.rc, OVR_DIVERGED, &record.err, "(epoch 1); standardize the data");
    assert_string_equal(record.err.field, "/preprocess");
    train_result_release(&record.result);
    data_release(&data);
}

static void more_axes_than_values(void **state) {
    (void)state;
    struct data data = new_data();
    struct train_config config = config_of(MODEL_PCA);
    struct record record;
    config.hidden[0] = D + 1;
    run_into(&record, &config, &data, 2);
    assert_failed(record.rc, OVR_INVALID, &record.err, "must be 1..7");
    assert_string_equal(record.err.field, "/model/hidden/0");
    train_result_release(&record.result);
    data_release(&data);
}

/* Centroids of an earlier run: its biases are not asked for, they follow. */
static void centroids_from_elsewhere(void **state) {
    (void)state;
    struct data data = new_data();
    struct train_config config = config_of(MODEL_KMEANS);
    struct record first, second;
    config.hidden[0] = 20;
    config.epochs = 2;
    run(&first, &config, &data, 2);
    struct initial initial = {.n = 1,
                              .parts = {{.part = PART_WEIGHT, .rows = 20, .cols = D}},
                              .weights = {first.result.last}};
    config.initial = &initial;
    config.seed++;
    run(&second, &config, &data, 2);
    config.initial = NULL;
    config.seed--;
    config.epochs = 4;
    struct record whole;
    run(&whole, &config, &data, 2);
    assert_relative(second.train_loss[0], whole.train_loss[2], 1e-6);
    assert_relative(second.train_loss[1], whole.train_loss[3], 1e-6);
    train_result_release(&first.result);
    train_result_release(&second.result);
    train_result_release(&whole.result);
    data_release(&data);
}

static void nothing_to_train_has_no_epochs(void **state) {
    (void)state;
    struct data data = new_data();
    for (size_t kind = 2; kind < COUNT(KINDS); kind++) {
        struct train_config config = config_of(KINDS[kind]);
        struct record record;
        run(&record, &config, &data, 2);
        assert_int_equal(record.n_reports, 0);
        assert_int_equal(record.result.epochs, 0);
        assert_int_equal(record.progress.steps, 0);
        assert_true(record.result.terms.loss == 0);
        assert_memory_equal(record.result.best, record.result.last,
                            record.result.net.n_params * sizeof(real));
        assert_true(record.result.accuracy > 0.3 && record.result.accuracy <= 1);
        assert_int_equal(train_terms(&config), 0);
        train_result_release(&record.result);
    }
    data_release(&data);
}

/* What a run takes is what its estimate says, beside data and code. */
static void estimates_have_the_arrays(void **state) {
    (void)state;
    struct data data = new_data();
    const struct train_data shape = {.n_train = N_TRAIN,
                                     .n_test = N_TEST,
                                     .n_values = D,
                                     .n_classes = CLASSES,
                                     .bytes = (N_TRAIN + N_TEST) * (D * sizeof(real) + 2)};
    for (size_t kind = 0; kind < COUNT(KINDS); kind++) {
        struct train_config config = config_of(KINDS[kind]);
        struct record record;
        run(&record, &config, &data, 2);
        struct train_estimate estimate = train_estimate(&config, &shape, &(struct crew){2, 1});
        assert_true(estimate.memory_bytes > record.result.arena.size);
        assert_true(estimate.flops_total > 0);
        if (kind < 2)
            assert_int_equal(estimate.parameters, K * D);
        train_result_release(&record.result);
    }
    data_release(&data);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bits_do_not_depend_on_team),
        cmocka_unit_test(lloyd_goes_down_and_ends),
        cmocka_unit_test(online_ends_with_its_epochs),
        cmocka_unit_test(far_from_zero),
        cmocka_unit_test(centroids_of_one_class),
        cmocka_unit_test(more_centroids_than_samples),
        cmocka_unit_test(values_too_large_for_distances),
        cmocka_unit_test(more_axes_than_values),
        cmocka_unit_test(centroids_from_elsewhere),
        cmocka_unit_test(nothing_to_train_has_no_epochs),
        cmocka_unit_test(estimates_have_the_arrays),
    };
    return cmocka_run_group_tests_name("core/baselines", tests, start_blas, NULL);
}
