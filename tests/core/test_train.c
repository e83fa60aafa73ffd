/* Whole runs: the same bits for any team, an independent trainer, protocols, stopping, divergence.
 */
#include "core/train.h"
#include "tests/core/check.h"

#include <malloc.h>
#include <time.h>

enum { MAX_EPOCHS = 64 };

/* What a run leaves behind: its result, and a copy of every report. */
struct record {
    struct epoch_report reports[MAX_EPOCHS];
    int n_reports;
    struct train_progress progress;
    struct train_result result;
    struct ovr_err err;
    int rc;
    _Atomic int stop;
    int stop_after; /* epoch after which the hook raises the flag; 0: never */
};

static int keep_report(void *context, const struct epoch_report *report, struct ovr_err *err) {
    struct record *record = context;
    (void)err;
    struct epoch_report *copy =
        &record->reports[record->n_reports++]; /* no garbage in its padding */
    copy->epoch = report->epoch;
    copy->train = report->train;
    copy->watched = report->watched;
    copy->measures = report->measures;
    copy->learning_rate = report->learning_rate;
    if (report->epoch == record->stop_after)
        record->stop = 1;
    return 0;
}

static struct record *new_record(void) {
    struct record *record = calloc(1, sizeof *record);
    assert_non_null(record);
    return record;
}

static void record_free(struct record *record) {
    train_result_release(&record->result);
    free(record);
}

static void run_into(struct record *record, const struct train_config *config,
                     const struct samples *train, const struct samples *test, int threads) {
    struct team *team = new_team(threads);
    struct train_hooks hooks = {record, &record->stop, &record->progress, keep_report};
    record->rc =
        prepare_and_train(config, train, test, team, &hooks, &record->result, &record->err);
    team_free(team);
}

static struct record *run(const struct train_config *config, const struct samples *train,
                          const struct samples *test, int threads) {
    struct record *record = new_record();
    run_into(record, config, train, test, threads);
    assert_ok(record->rc, &record->err);
    return record;
}

struct sphere {
    struct samples train, test;
};

static struct sphere new_sphere(size_t n_train, size_t n_test) {
    const struct sphere_config config = {n_train, n_test, 2, 3, 4, 77};
    struct sphere sphere;
    struct ovr_err err = {0};
    assert_ok(sphere_generate(&sphere.train, &config, 0, &err), &err);
    assert_ok(sphere_generate(&sphere.test, &config, 1, &err), &err);
    return sphere;
}

static void sphere_release(struct sphere *sphere) {
    samples_release(&sphere->train);
    samples_release(&sphere->test);
}

static struct train_config encoder_config(void) {
    return (struct train_config){
        .kind = MODEL_OVR_ENCODER,
        .hidden = {300},
        .n_hidden = 1,
        .init = INIT_NORMAL,
        .init_scale = 0.05,
        .ovr = {.lambda = 1e-3, .form = OVR_COSINE},
        .activity = 1,
        .activity_target = 0.5,
        .optimizer = {OPT_ADAM, 1e-3, 0.9, 0.999, 1e-7, 0, 0},
        .epochs = 3,
        .batch_size = 32,
        .seed = 5,
        .data = {.protocol = PROTOCOL_PUBLISHED, .validation = 0.2},
    };
}

static struct train_config mlp_config(void) {
    struct train_config config = encoder_config();
    config.kind = MODEL_MLP;
    config.init = INIT_GLOROT;
    config.activity = 0;
    config.optimizer = (struct optimizer_config){.name = OPT_SGD, .learning_rate = 0.5};
    return config;
}

static void add_probe(struct train_config *config) {
    config->probe = 1;
    config->probe_config = (struct probe_config){
        .epochs = 2, .batch_size = 16, .optimizer = {OPT_ADAM, 1e-2, 0.9, 0.999, 1e-7, 0, 0}};
}

/* ---- the same bits ---- */

static void assert_same_bits(const struct record *a, const struct record *b) {
    const struct train_result *x = &a->result, *y = &b->result;
    size_t n_params = x->net.n_params;
    assert_int_equal(a->n_reports, b->n_reports);
    for (int i = 0; i < a->n_reports; i++)
        assert_memory_equal(&a->reports[i], &b->reports[i], sizeof a->reports[i]);
    assert_memory_equal(x->best, y->best, n_params * sizeof(real));
    assert_memory_equal(x->last, y->last, n_params * sizeof(real));
    assert_memory_equal(&x->terms, &y->terms, sizeof x->terms);
    assert_memory_equal(&x->measures, &y->measures, sizeof x->measures);
    assert_int_equal(x->best_epoch, y->best_epoch);
    assert_memory_equal(&x->accuracy, &y->accuracy, sizeof x->accuracy);
    assert_int_equal(x->probed, y->probed);
    if (!x->probed)
        return;
    size_t n_probe = (x->net.config.units[0] + 1) * x->probe.width;
    assert_memory_equal(x->probe.weights, y->probe.weights, n_probe * sizeof(real));
    assert_memory_equal(&x->probe.loss_best, &y->probe.loss_best, sizeof(double));
    assert_memory_equal(&x->probe.accuracy_best, &y->probe.accuracy_best, sizeof(double));
}

static void check_teams(const struct train_config *config) {
    struct sphere sphere = new_sphere(205, 150);
    struct record *first = run(config, &sphere.train, &sphere.test, TEAM_SIZES[0]);
    for (size_t i = 1; i < COUNT(TEAM_SIZES); i++) {
        struct record *other = run(config, &sphere.train, &sphere.test, TEAM_SIZES[i]);
        assert_same_bits(first, other);
        record_free(other);
    }
    record_free(first);
    sphere_release(&sphere);
}

static void encoder_bits_do_not_depend_on_team(void **state) {
    (void)state;
    struct train_config config = encoder_config();
    add_probe(&config);
    check_teams(&config);
    config.ovr.form = OVR_RAW;
    config.ovr.lambda = 1e-8;
    config.data.protocol = PROTOCOL_CLEAN;
    config.data.preprocess[0].kind = PREPROCESS_STANDARDIZE;
    config.data.preprocess[1] = (struct preprocess_step){PREPROCESS_PCA, .components = 2};
    config.data.n_preprocess = 2;
    check_teams(&config);
}

static void mlp_bits_do_not_depend_on_team(void **state) {
    (void)state;
    struct train_config config = mlp_config();
    check_teams(&config);
    config.data.protocol = PROTOCOL_CLEAN;
    config.optimizer = encoder_config().optimizer;
    config.ovr.per_pair = 1;
    check_teams(&config);
}

static void seed_decides_everything(void **state) {
    (void)state;
    struct sphere sphere = new_sphere(100, 50);
    struct train_config config = encoder_config();
    struct record *a = run(&config, &sphere.train, &sphere.test, 1);
    struct record *again = run(&config, &sphere.train, &sphere.test, 1);
    assert_same_bits(a, again);
    config.seed++;
    struct record *b = run(&config, &sphere.train, &sphere.test, 1);
    assert_memory_not_equal(a->result.last, b->result.last, 300 * 3 * sizeof(real));
    record_free(a);
    record_free(again);
    record_free(b);
    sphere_release(&sphere);
}

/* ---- an independent trainer: float64, one weight after the other, OVR over all pairs ---- */

enum { NAIVE_D = 6, NAIVE_K = 150, NAIVE_C = 3, NAIVE_N = 90, NAIVE_BATCH = 32 };
enum { NAIVE_W = 0, NAIVE_B = NAIVE_K * NAIVE_D, NAIVE_V = NAIVE_B + NAIVE_K };
enum { NAIVE_HEAD_B = NAIVE_V + NAIVE_K * NAIVE_C, NAIVE_PARAMS = NAIVE_HEAD_B + NAIVE_C };

struct naive {
    const struct train_config *config;
    double p[NAIVE_PARAMS], start[NAIVE_PARAMS], m[NAIVE_PARAMS], v[NAIVE_PARAMS];
    double g[NAIVE_PARAMS];
    double h[NAIVE_BATCH][NAIVE_K], dh[NAIVE_BATCH][NAIVE_K];
    int t;
};

static double naive_draw(struct rng *rng, const struct train_config *config, int in, int out) {
    if (config->init == INIT_GLOROT)
        return (2 * rng_uniform(rng) - 1) * sqrt(6.0 / (in + out));
    return rng_normal(rng) * config->init_scale;
}

static void naive_start(struct naive *net) {
    for (uint32_t k = 0; k < NAIVE_K; k++) {
        struct rng rng;
        rng_init(&rng, net->config->seed, RNG_INIT, 0, k);
        for (int j = 0; j < NAIVE_D; j++)
            net->p[NAIVE_W + k * NAIVE_D + (unsigned)j] =
                naive_draw(&rng, net->config, NAIVE_D, NAIVE_K);
        rng_init(&rng, net->config->seed, RNG_HEAD_INIT, 0, k);
        for (int c = 0; net->config->kind == MODEL_MLP && c < NAIVE_C; c++)
            net->p[NAIVE_V + k * NAIVE_C + (unsigned)c] =
                naive_draw(&rng, net->config, NAIVE_K, NAIVE_C);
    }
    memcpy(net->start, net->p, sizeof net->p);
}

/* dh += λ ∂OVR/∂h, cosine form, pair by pair: the derivative of 2 λ Σ_{j≠i} cos(h_i, h_j). */
static void naive_ovr(struct naive *net, size_t n) {
    double norm[NAIVE_BATCH], lambda = net->config->ovr.lambda;
    for (size_t i = 0; i < n; i++) {
        norm[i] = 0;
        for (size_t k = 0; k < NAIVE_K; k++)
            norm[i] += net->h[i][k] * net->h[i][k];
        norm[i] = sqrt(norm[i]);
    }
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++) {
            double cosine = 0;
            if (i == j)
                continue;
            for (size_t k = 0; k < NAIVE_K; k++)
                cosine += net->h[i][k] * net->h[j][k] / (norm[i] * norm[j]);
            for (size_t k = 0; k < NAIVE_K; k++)
                net->dh[i][k] += 2 * lambda / norm[i] *
                                 (net->h[j][k] / norm[j] - cosine * net->h[i][k] / norm[i]);
        }
}

static void naive_activity(struct naive *net, size_t n) {
    double sum = 0, count = (double)n * NAIVE_K;
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < NAIVE_K; k++)
            sum += net->h[i][k];
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < NAIVE_K; k++)
            net->dh[i][k] += (sum / count > net->config->activity_target ? 1 : -1) / count;
}

static void naive_classifier(struct naive *net, size_t i, size_t n, size_t label) {
    double z[NAIVE_C], sum = 0;
    for (size_t c = 0; c < NAIVE_C; c++) {
        z[c] = net->p[NAIVE_HEAD_B + c];
        for (size_t k = 0; k < NAIVE_K; k++)
            z[c] += net->h[i][k] * net->p[NAIVE_V + k * NAIVE_C + c];
        sum += exp(z[c]);
    }
    for (size_t c = 0; c < NAIVE_C; c++) {
        double delta = (exp(z[c]) / sum - (c == label)) / (double)n;
        net->g[NAIVE_HEAD_B + c] += delta;
        for (size_t k = 0; k < NAIVE_K; k++) {
            net->g[NAIVE_V + k * NAIVE_C + c] += delta * net->h[i][k];
            net->dh[i][k] += delta * net->p[NAIVE_V + k * NAIVE_C + c];
        }
    }
}

static void naive_update(struct naive *net) {
    const struct optimizer_config *o = &net->config->optimizer;
    net->t++;
    for (size_t i = 0; i < NAIVE_PARAMS; i++) {
        double g = net->g[i];
        if (o->name == OPT_SGD) {
            net->p[i] -= o->learning_rate * g;
            continue;
        }
        net->m[i] = o->beta1 * net->m[i] + (1 - o->beta1) * g;
        net->v[i] = o->beta2 * net->v[i] + (1 - o->beta2) * g * g;
        double m = net->m[i] / (1 - pow(o->beta1, net->t));
        double v = net->v[i] / (1 - pow(o->beta2, net->t));
        net->p[i] -= o->learning_rate * m / (sqrt(v) + o->epsilon);
    }
}

static void naive_step(struct naive *net, const struct samples *train, const uint32_t *order,
                       size_t n) {
    memset(net->g, 0, sizeof net->g);
    memset(net->dh, 0, sizeof net->dh);
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < NAIVE_K; k++) {
            double a = net->p[NAIVE_B + k];
            for (size_t j = 0; j < NAIVE_D; j++)
                a += net->p[NAIVE_W + k * NAIVE_D + j] * train->values[order[i] * NAIVE_D + j];
            net->h[i][k] = a > 0 ? a : 0;
        }
    naive_ovr(net, n);
    if (net->config->activity)
        naive_activity(net, n);
    for (size_t i = 0; net->config->kind == MODEL_MLP && i < n; i++)
        naive_classifier(net, i, n, train->labels[order[i]]);
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < NAIVE_K; k++) {
            double da = net->h[i][k] > 0 ? net->dh[i][k] : 0;
            net->g[NAIVE_B + k] += da;
            for (size_t j = 0; j < NAIVE_D; j++)
                net->g[NAIVE_W + k * NAIVE_D + j] += da * train->values[order[i] * NAIVE_D + j];
        }
    naive_update(net);
}

static void naive_train(struct naive *net, const struct samples *train) {
    uint32_t order[NAIVE_N];
    naive_start(net);
    for (int epoch = 1; epoch <= net->config->epochs; epoch++) {
        struct rng rng;
        rng_init(&rng, net->config->seed, RNG_SHUFFLE, (uint32_t)epoch, 0);
        rng_permutation(&rng, order, NAIVE_N);
        for (size_t first = 0; first < NAIVE_N; first += NAIVE_BATCH)
            naive_step(net, train, order + first, min_size(NAIVE_BATCH, NAIVE_N - first));
    }
}

/* How far our last weights are from the naive ones, in terms of how far training moved them. */
static void check_against_naive(struct train_config config) {
    struct samples train = new_samples(NAIVE_N, NAIVE_D, NAIVE_C, 30);
    struct samples test = new_samples(20, NAIVE_D, NAIVE_C, 40);
    struct naive *naive = calloc(1, sizeof *naive);
    config.hidden[0] = NAIVE_K;
    config.batch_size = NAIVE_BATCH;
    config.epochs = 2;
    naive->config = &config;
    naive_train(naive, &train);
    struct record *record = run(&config, &train, &test, 2);
    const real *ours = record->result.last;
    size_t n_shared = NAIVE_V; /* W and b lie alike in both */
    assert_true(distance(n_shared, ours, naive->p, naive->start) < 1e-3);
    real head[NAIVE_PARAMS - NAIVE_V];
    size_t width = record->result.net.width;
    for (size_t k = 0; width && k <= NAIVE_K; k++) /* row K is the bias */
        for (size_t c = 0; c < NAIVE_C; c++)
            head[k * NAIVE_C + c] = ours[NAIVE_V + k * width + c];
    if (width)
        assert_true(distance(COUNT(head), head, naive->p + NAIVE_V, naive->start + NAIVE_V) < 1e-3);
    record_free(record);
    free(naive);
    samples_release(&train);
    samples_release(&test);
}

static void encoder_agrees_with_naive_trainer(void **state) {
    (void)state;
    struct train_config config = encoder_config();
    config.ovr.lambda = 1e-2;
    check_against_naive(config);
}

static void mlp_agrees_with_naive_trainer(void **state) {
    (void)state;
    struct train_config config = mlp_config();
    config.optimizer.learning_rate = 0.1;
    check_against_naive(config);
}

/* ---- what is learned and reported ---- */

static void mlp_learns_the_sphere(void **state) {
    (void)state;
    struct sphere sphere = new_sphere(2000, 500);
    struct train_config config = mlp_config();
    config.hidden[0] = 200;
    config.ovr.lambda = 0;
    config.optimizer = (struct optimizer_config){OPT_ADAM, 1e-2, 0.9, 0.999, 1e-7, 0, 0};
    config.epochs = 20;
    struct record *record = run(&config, &sphere.train, &sphere.test, 2);
    assert_true(record->result.accuracy > 0.9);
    record_free(record);
    sphere_release(&sphere);
}

static void reports_add_up(void **state) {
    (void)state;
    struct sphere sphere = new_sphere(205, 150);
    struct train_config config = mlp_config();
    config.activity = 1;
    struct record *record = run(&config, &sphere.train, &sphere.test, 2);
    int best = 0;
    assert_int_equal(record->n_reports, config.epochs);
    for (int i = 0; i < record->n_reports; i++) {
        const struct epoch_report *report = &record->reports[i];
        const struct terms *terms = &report->watched;
        assert_int_equal(report->epoch, i + 1);
        assert_near(terms->loss,
                    terms->value[TERM_OVR] + terms->value[TERM_ACTIVITY] +
                        terms->value[TERM_CROSS_ENTROPY],
                    1e-12);
        assert_true(terms->samples == 150 && report->train.samples == 205);
        assert_true(report->measures.histogram.total == 150 * config.hidden[0]);
        assert_true(report->learning_rate == config.optimizer.learning_rate);
        best = terms->loss < record->reports[best].watched.loss ? i : best;
    }
    assert_int_equal(record->result.best_epoch, best + 1);
    assert_memory_equal(&record->result.terms, &record->reports[best].watched,
                        sizeof(struct terms));
    assert_true(record->progress.step == 3 * 7 && record->progress.steps == 3 * 7);
    assert_true(record->progress.samples == 3 * 205);
    assert_true(record->progress.memory_bytes == 0); /* no probe: as estimated */
    record_free(record);
    sphere_release(&sphere);
}

/* ---- protocols ---- */

static void clean_protocol_holds_out_a_share(void **state) {
    (void)state;
    struct sphere sphere = new_sphere(205, 150);
    struct train_config config = encoder_config();
    config.data.protocol = PROTOCOL_CLEAN;
    const struct { double share, held_out; } cases[] = {{0.2, 41}, {1e-9, 1}, {0.5, 103}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        config.data.validation = cases[i].share;
        struct record *record = run(&config, &sphere.train, &sphere.test, 1);
        assert_near(record->reports[0].watched.samples, cases[i].held_out, 0);
        assert_near(record->reports[0].train.samples, 205 - cases[i].held_out, 0);
        assert_near(record->result.terms.samples, 150, 0); /* the test split, at the end */
        record_free(record);
    }
    sphere_release(&sphere);
}

static void nothing_left_to_train_on_is_refused(void **state) {
    (void)state;
    struct sphere sphere = new_sphere(1, 5);
    struct train_config config = encoder_config();
    config.data.protocol = PROTOCOL_CLEAN;
    struct record *record = new_record();
    run_into(record, &config, &sphere.train, &sphere.test, 1);
    assert_failed(record->rc, OVR_INVALID, &record->err, "no training sample is left");
    assert_string_equal(record->err.field, "/training/validation");
    record_free(record);
    sphere_release(&sphere);
}

static void clean_protocol_reads_test_only_at_the_end(void **state) {
    (void)state;
    struct sphere sphere = new_sphere(205, 150);
    struct train_config config = mlp_config();
    config.data.protocol = PROTOCOL_CLEAN;
    add_probe(&config);
    struct record *before = run(&config, &sphere.train, &sphere.test, 2);
    for (size_t i = 0; i < sphere.test.n; i++) {
        sphere.test.labels[i] = (uint16_t)((sphere.test.labels[i] + 1) % 4);
        sphere.test.values[3 * i] = 9;
    }
    struct record *after = run(&config, &sphere.train, &sphere.test, 2);
    size_t n = 300 * (3 + 1 + 8) + 8;
    for (int i = 0; i < before->n_reports; i++)
        assert_memory_equal(&before->reports[i], &after->reports[i], sizeof before->reports[i]);
    assert_memory_equal(before->result.best, after->result.best, n * sizeof(real));
    assert_int_equal(before->result.best_epoch, after->result.best_epoch);
    assert_memory_equal(before->result.probe.weights, after->result.probe.weights,
                        301 * 8 * sizeof(real));
    assert_true(before->result.accuracy != after->result.accuracy);
    assert_true(before->result.probe.accuracy_test != after->result.probe.accuracy_test);
    record_free(before);
    record_free(after);
    sphere_release(&sphere);
}

/* The test split and the probe get the weights of the best epoch: a run that ended there says the
 * same. */
static void best_epoch_is_what_counts(void **state) {
    (void)state;
    /* Labels at random: the classifier learns them by heart, and the watched loss soon rises. */
    struct samples train = new_samples(150, 6, 3, 70), test = new_samples(60, 6, 3, 80);
    struct train_config config = mlp_config();
    config.data.protocol = PROTOCOL_CLEAN;
    config.epochs = 12;
    add_probe(&config);
    struct record *longer = run(&config, &train, &test, 2);
    assert_true(longer->result.best_epoch < 12);
    config.epochs = longer->result.best_epoch;
    struct record *shorter = run(&config, &train, &test, 2);
    size_t n_params = 300 * (6 + 1 + 8) + 8;
    assert_memory_equal(longer->result.best, shorter->result.last, n_params * sizeof(real));
    assert_memory_equal(&longer->result.terms, &shorter->result.terms, sizeof(struct terms));
    assert_memory_equal(&longer->result.measures, &shorter->result.measures,
                        sizeof(struct measures));
    assert_memory_equal(longer->result.probe.weights, shorter->result.probe.weights,
                        301 * 8 * sizeof(real));
    record_free(longer);
    record_free(shorter);
    samples_release(&train);
    samples_release(&test);
}

static void published_protocol_watches_test(void **state) {
    (void)state;
    struct sphere sphere = new_sphere(205, 150);
    struct train_config config = mlp_config();
    struct record *record = run(&config, &sphere.train, &sphere.test, 1);
    double best = 0;
    for (int i = 0; i < record->n_reports; i++)
        best = fmax(best, (double)record->reports[i].watched.correct / 150);
    assert_near(record->result.accuracy, best, 0);
    assert_near(record->result.accuracy_last, (double)record->reports[2].watched.correct / 150, 0);
    record_free(record);
    sphere_release(&sphere);
}

/* ---- how runs end ---- */

static void early_stopping(void **state) {
    (void)state;
    struct sphere sphere = new_sphere(205, 150);
    struct train_config config = mlp_config();
    config.epochs = 30;
    config.patience = 4;
    config.patience_delta = 1e9; /* after the first, no epoch is so much better */
    struct record *record = run(&config, &sphere.train, &sphere.test, 2);
    assert_int_equal(record->n_reports, 1 + 4);
    assert_int_equal(record->result.epochs, 1 + 4);
    record_free(record);

    config.patience = 0; /* never */
    config.epochs = 10;
    record = run(&config, &sphere.train, &sphere.test, 2);
    assert_int_equal(record->n_reports, 10);
    record_free(record);
    sphere_release(&sphere);
}

static void divergence_names_the_step(void **state) {
    (void)state;
    struct sphere sphere = new_sphere(205, 150);
    struct train_config config = mlp_config();
    config.optimizer.learning_rate = 1e30;
    struct record *record = new_record();
    run_into(record, &config, &sphere.train, &sphere.test, 2);
    assert_failed(record->rc, OVR_DIVERGED, &record->err, "at step 2 (epoch 1)");
    assert_string_equal(record->err.field, "/optimizer/learning_rate");
    record_free(record);
    sphere_release(&sphere);
}

/* A single step an epoch, so that the evaluation after it is the first to see the broken net. */
static void divergence_is_seen_in_the_evaluation(void **state) {
    (void)state;
    struct sphere sphere = new_sphere(32, 150);
    struct train_config config = mlp_config();
    config.optimizer.learning_rate = 1e38;
    struct record *record = new_record();
    run_into(record, &config, &sphere.train, &sphere.test, 2);
    assert_failed(record->rc, OVR_DIVERGED, &record->err, "at step 1 (epoch 1)");
    record_free(record);
    sphere_release(&sphere);
}

static double seconds_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void stop_flag_is_obeyed(void **state) {
    (void)state;
    struct sphere sphere = new_sphere(2000, 150);
    struct train_config config = encoder_config();
    config.epochs = 1000000;
    struct record *record = new_record();
    record->stop_after = 2;
    double started = seconds_now();
    run_into(record, &config, &sphere.train, &sphere.test, 3);
    assert_failed(record->rc, OVR_STOPPED, &record->err, "stopped");
    assert_int_equal(record->n_reports, 2);
    assert_true(seconds_now() - started < 10);
    record_free(record);

    record = new_record();
    record->stop = 1; /* before it begins */
    run_into(record, &config, &sphere.train, &sphere.test, 2);
    assert_failed(record->rc, OVR_STOPPED, &record->err, "stopped");
    assert_int_equal(record->n_reports, 0);
    record_free(record);
    sphere_release(&sphere);
}

static int refuse_report(void *context, const struct epoch_report *report, struct ovr_err *err) {
    (void)context;
    (void)report;
    return ovr_fail(err, OVR_IO, NULL, "the disk is full");
}

static void failing_hook_ends_the_run(void **state) {
    (void)state;
    struct sphere sphere = new_sphere(64, 10);
    struct train_config config = encoder_config();
    struct train_progress progress = {0};
    struct train_hooks hooks = {NULL, NULL, &progress, refuse_report};
    struct train_result result;
    struct ovr_err err = {0};
    struct team *team = new_team(2);
    int rc = prepare_and_train(&config, &sphere.train, &sphere.test, team, &hooks, &result, &err);
    assert_failed(rc, OVR_IO, &err, "the disk is full");
    train_result_release(&result);
    team_free(team);
    sphere_release(&sphere);
}

/* ---- the estimate ---- */

#if !defined __SANITIZE_ADDRESS__ && !defined __SANITIZE_THREAD__
/* A line of /proc/self/status, in bytes. */
static size_t memory_status(const char *name) {
    char line[256];
    unsigned long kib = 0;
    FILE *file = fopen("/proc/self/status", "r");
    assert_non_null(file);
    while (fgets(line, sizeof line, file))
        if (strncmp(line, name, strlen(name)) == 0)
            assert_int_equal(sscanf(line + strlen(name), ": %lu", &kib), 1);
    fclose(file);
    return kib * 1024;
}

static void forget_peak(void) {
    FILE *file = fopen("/proc/self/clear_refs", "w");
    assert_non_null(file);
    assert_true(fputs("5", file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static int ignore_report(void *context, const struct epoch_report *report, struct ovr_err *err) {
    (void)context;
    (void)report;
    (void)err;
    return 0;
}

/* The samples are there before, so that they count as data of no bytes. */
static void check_estimate(const struct train_config *config, size_t d) {
    struct samples train = new_samples(6000, d, 10, 50), test = new_samples(2000, d, 10, 60);
    struct train_progress progress = {0};
    struct train_hooks hooks = {NULL, NULL, &progress, ignore_report};
    struct train_result result;
    struct ovr_err err = {0};
    const struct train_data data = {train.n, test.n, d, 10, 0};
    struct train_estimate estimate = train_estimate(config, &data, 2);
    forget_peak();
    size_t before = memory_status("VmRSS");
    struct team *team = new_team(2);
    assert_ok(prepare_and_train(config, &train, &test, team, &hooks, &result, &err), &err);
    double ratio = (double)estimate.memory_bytes / (double)(memory_status("VmHWM") - before);
    if (ratio < 1 / 1.2 || ratio > 1.2) {
        print_error("estimated memory is %.2f of the peak, %.1f MB\n", ratio,
                    (double)estimate.memory_bytes / 1e6);
        fail();
    }
    assert_int_equal(estimate.parameters, config->hidden[0] * (result.net.config.n_inputs + 1 +
                                                               result.net.config.n_classes) +
                                              result.net.config.n_classes);
    train_result_release(&result);
    team_free(team);
    samples_release(&train);
    samples_release(&test);
}

static void memory_estimate_is_near_the_truth(void **state) {
    (void)state;
    struct train_config config = encoder_config();
    config.epochs = 1;
    config.hidden[0] = 2000;
    check_estimate(&config, 400);
    config.data.preprocess[0] = (struct preprocess_step){PREPROCESS_PCA, .components = 100};
    config.data.n_preprocess = 1;
    check_estimate(&config, 1000);
    config = mlp_config();
    config.epochs = 1;
    config.batch_size = 100;
    check_estimate(&config, 1500);
    config.hidden[0] = 10000;
    check_estimate(&config, 300);
}
#endif

static void estimate_counts_products(void **state) {
    (void)state;
    struct train_config config = encoder_config();
    config.hidden[0] = 8192;
    config.epochs = 10;
    const struct train_data data = {50000, 10000, 781, 10, 0};
    struct train_estimate e = train_estimate(&config, &data, 1);
    assert_int_equal(e.parameters, 8192 * 782);
    /* forward and weight gradient of the training split, forward of the watched one */
    assert_relative(e.flops_per_epoch, 2. * 781 * 8192 * (2 * 50000. + 10000), 1e-9);
    assert_relative(e.flops_total, 10 * e.flops_per_epoch, 1e-9);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(encoder_bits_do_not_depend_on_team),
        cmocka_unit_test(mlp_bits_do_not_depend_on_team),
        cmocka_unit_test(seed_decides_everything),
        cmocka_unit_test(encoder_agrees_with_naive_trainer),
        cmocka_unit_test(mlp_agrees_with_naive_trainer),
        cmocka_unit_test(mlp_learns_the_sphere),
        cmocka_unit_test(reports_add_up),
        cmocka_unit_test(clean_protocol_holds_out_a_share),
        cmocka_unit_test(nothing_left_to_train_on_is_refused),
        cmocka_unit_test(clean_protocol_reads_test_only_at_the_end),
        cmocka_unit_test(best_epoch_is_what_counts),
        cmocka_unit_test(published_protocol_watches_test),
        cmocka_unit_test(early_stopping),
        cmocka_unit_test(divergence_names_the_step),
        cmocka_unit_test(divergence_is_seen_in_the_evaluation),
        cmocka_unit_test(stop_flag_is_obeyed),
        cmocka_unit_test(failing_hook_ends_the_run),
#if !defined __SANITIZE_ADDRESS__ && !defined __SANITIZE_THREAD__
        cmocka_unit_test(memory_estimate_is_near_the_truth),
#endif
        cmocka_unit_test(estimate_counts_products),
    };
    return cmocka_run_group_tests_name("core/train", tests, start_blas, NULL);
}
