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
    copy->gradients = report->gradients;
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

static struct train_config autoencoder_config(void) {
    struct train_config config = encoder_config();
    config.kind = MODEL_AUTOENCODER;
    config.init = INIT_GLOROT;
    config.ovr.lambda = 0;
    config.activity = 0;
    return config;
}

/* Three hidden layers. */
static struct train_config deep_config(enum model_kind kind) {
    struct train_config config = kind == MODEL_MLP ? mlp_config() : encoder_config();
    config.hidden[0] = 150;
    config.hidden[1] = 40;
    config.hidden[2] = 140;
    config.n_hidden = 3;
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
    const struct net_config *shape = &x->net.config;
    size_t n_probe = (shape->units[shape->n_layers - 1] + 1) * x->probe.width;
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

static void autoencoder_bits_do_not_depend_on_team(void **state) {
    (void)state;
    struct train_config config = autoencoder_config();
    check_teams(&config);
    config.tied = 1;
    config.f.kind = ACT_SIGMOID;
    config.corruption = CORRUPTION_MASKING;
    config.corruption_amount = 0.3;
    config.contractive = 0.01;
    config.l1 = config.l2 = 1e-3;
    config.kl = 0.1;
    config.kl_target = 0.05;
    config.ovr.lambda = 1e-3;
    config.activity = 1;
    add_probe(&config);
    check_teams(&config);

    config = autoencoder_config();
    config.f.kind = ACT_TOP_K;
    config.top_k = 20;
    config.corruption = CORRUPTION_GAUSSIAN;
    config.corruption_amount = 0.5;
    config.data.protocol = PROTOCOL_CLEAN;
    check_teams(&config);
}

static void deep_bits_do_not_depend_on_team(void **state) {
    (void)state;
    struct train_config config = deep_config(MODEL_MLP);
    config.dropout[0] = 0.5;
    config.dropout[2] = 0.2;
    add_probe(&config);
    check_teams(&config);
    config.f.kind = ACT_TOP_K;
    config.top_k = 30;
    config.freeze = 1;
    config.batching = BATCHING_SINGLE_CLASS;
    check_teams(&config);
    config.freeze = 3;
    check_teams(&config);

    config = deep_config(MODEL_OVR_ENCODER);
    add_probe(&config);
    check_teams(&config);
    config.ovr.form = OVR_RAW;
    config.ovr.lambda = 1e-8;
    config.ovr_layers = 5;
    config.only = (struct class_list){2, {0, 3}};
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

/* Reconstruction error of the watched split, before and after. */
static void check_learns(const struct train_config *config, double share) {
    struct sphere sphere = new_sphere(500, 100);
    struct record *record = run(config, &sphere.train, &sphere.test, 2);
    double first = record->reports[0].watched.value[TERM_RECONSTRUCTION];
    double best = record->result.terms.value[TERM_RECONSTRUCTION];
    if (!(best < share * first)) {
        print_error("the error fell from %g to %g\n", first, best);
        fail();
    }
    record_free(record);
    sphere_release(&sphere);
}

static void autoencoders_learn_the_sphere(void **state) {
    (void)state;
    struct train_config config = autoencoder_config();
    config.hidden[0] = 60;
    config.epochs = 20;
    check_learns(&config, 0.1);
    config.tied = 1;
    check_learns(&config, 0.1);
    config.f.kind = ACT_TANH;
    check_learns(&config, 0.1);
    config.f.kind = ACT_TOP_K;
    config.top_k = 10;
    check_learns(&config, 0.1);
    config.f = (struct nonlinearity){.kind = ACT_THRESHOLDED, .threshold = (real)0.1};
    check_learns(&config, 0.1);
}

/* The more of the input is missing, the worse what is made of it; what is wanted stays whole. */
static void denoising_is_harder(void **state) {
    (void)state;
    struct sphere sphere = new_sphere(500, 100);
    struct train_config config = autoencoder_config();
    double last = 0;
    config.hidden[0] = 60;
    config.epochs = 5;
    static const double amounts[] = {0, 0.1, 0.3, 0.6};
    for (size_t i = 0; i < COUNT(amounts); i++) {
        config.corruption = amounts[i] > 0 ? CORRUPTION_MASKING : CORRUPTION_NONE;
        config.corruption_amount = amounts[i];
        struct record *record = run(&config, &sphere.train, &sphere.test, 2);
        double error = record->reports[4].train.value[TERM_RECONSTRUCTION];
        assert_true(error > last);
        assert_true(error < 1. / 3); /* of what makes nothing of its input */
        last = error;
        record_free(record);
    }
    sphere_release(&sphere);
}

static void deep_nets_learn_the_sphere(void **state) {
    (void)state;
    struct sphere sphere = new_sphere(2000, 500);
    struct train_config config = deep_config(MODEL_MLP);
    config.ovr.lambda = 0;
    config.optimizer = (struct optimizer_config){OPT_ADAM, 3e-3, 0.9, 0.999, 1e-7, 0, 0};
    config.epochs = 20;
    struct record *record = run(&config, &sphere.train, &sphere.test, 2);
    assert_true(record->result.accuracy > 0.9);
    record_free(record);

    config.freeze = 3; /* a read-out of random units */
    record = run(&config, &sphere.train, &sphere.test, 2);
    assert_true(record->result.accuracy > 0.5 && record->result.accuracy < 0.9);
    record_free(record);
    sphere_release(&sphere);
}

/* ---- what weights a run starts from ---- */

/* All parts of a run's last weights, for another one to start from. */
static struct initial initial_of(const struct record *record) {
    const struct net *net = &record->result.net;
    struct initial initial = {0};
    struct net_part parts[PARTS_MAX];
    size_t n = net_parts(net, parts);
    for (size_t i = 0; i < n; i++) {
        const struct net_part *p = &parts[i];
        real *copy = new_reals(p->rows * p->cols);
        for (size_t row = 0; row < p->rows; row++)
            memcpy(copy + row * p->cols, record->result.last + p->at + row * p->stride,
                   p->cols * sizeof *copy);
        initial.parts[i] = *p;
        initial.weights[i] = copy;
    }
    initial.n = n;
    return initial;
}

static void initial_release(struct initial *initial) {
    for (size_t i = 0; i < initial->n; i++)
        free((void *)(uintptr_t)initial->weights[i]);
}

/* A run that hardly moves its weights shows what it started from. */
static struct record *start(struct train_config config, const struct initial *initial,
                            const struct sphere *sphere) {
    config.initial = initial;
    config.epochs = 1;
    config.optimizer = (struct optimizer_config){.name = OPT_SGD, .learning_rate = 1e-36};
    return run(&config, &sphere->train, &sphere->test, 2);
}

/* How many parts of two nets of the same shape are alike; those numbered in `loaded` have to be. */
static void check_parts_alike(const struct record *a, const real *expected, unsigned loaded) {
    struct net_part parts[PARTS_MAX];
    size_t n = net_parts(&a->result.net, parts);
    for (size_t i = 0; i < n; i++) {
        size_t size = parts[i].rows * parts[i].stride;
        if (loaded >> i & 1)
            for (size_t j = 0; j < size; j++)
                assert_near(a->result.last[parts[i].at + j], expected[parts[i].at + j], 1e-30);
        else
            assert_memory_not_equal(a->result.last + parts[i].at, expected + parts[i].at,
                                    size * sizeof(real));
    }
}

static void check_continued(const struct train_config *config) {
    struct sphere sphere = new_sphere(205, 150);
    struct record *earlier = run(config, &sphere.train, &sphere.test, 2);
    struct initial initial = initial_of(earlier);
    struct record *later = start(*config, &initial, &sphere);
    check_parts_alike(later, earlier->result.last, ~0u);
    /* and so it goes on where the earlier run ended */
    assert_relative(later->reports[0].watched.loss, earlier->reports[2].watched.loss, 1e-6);
    record_free(later);
    initial_release(&initial);
    record_free(earlier);
    sphere_release(&sphere);
}

static void training_is_continued(void **state) {
    (void)state;
    struct train_config config = encoder_config();
    check_continued(&config);
    config = deep_config(MODEL_OVR_ENCODER);
    check_continued(&config);
    config = deep_config(MODEL_MLP);
    check_continued(&config);
    config = autoencoder_config();
    check_continued(&config);
    config.tied = 1;
    check_continued(&config);
}

/* Part numbers: W_0, b_0, W_1, …, V, c. */
static void what_fits_is_loaded(void **state) {
    (void)state;
    struct sphere sphere = new_sphere(205, 150);
    struct train_config one_layer = mlp_config(), deep = deep_config(MODEL_MLP);
    deep.hidden[0] = 300;
    struct record *earlier = run(&one_layer, &sphere.train, &sphere.test, 2);
    struct initial initial = initial_of(earlier);

    struct record *fresh = start(deep, NULL, &sphere), *stacked = start(deep, &initial, &sphere);
    size_t first_layer = 300 * (3 + 1);
    assert_memory_equal(stacked->result.last, earlier->result.last, first_layer * sizeof(real));
    check_parts_alike(stacked, fresh->result.last, 1u << 2 | 1u << 3 | 1u << 4 | 1u << 5 | 1u << 6);
    record_free(fresh);
    record_free(stacked);

    deep.initial = &initial; /* trained on top of frozen weights */
    deep.freeze = 1;
    stacked = run(&deep, &sphere.train, &sphere.test, 2);
    assert_memory_equal(stacked->result.last, earlier->result.last, first_layer * sizeof(real));
    record_free(stacked);

    struct train_config other = autoencoder_config(); /* whose decoder is another one */
    fresh = start(other, NULL, &sphere);
    stacked = start(other, &initial, &sphere);
    assert_memory_equal(stacked->result.last, earlier->result.last, first_layer * sizeof(real));
    check_parts_alike(stacked, fresh->result.last, 1u << 2 | 1u << 3);
    record_free(fresh);
    record_free(stacked);
    initial_release(&initial);
    record_free(earlier);
    sphere_release(&sphere);
}

static void nothing_that_fits_is_refused(void **state) {
    (void)state;
    struct sphere sphere = new_sphere(64, 10);
    struct train_config config = encoder_config();
    struct record *earlier = run(&config, &sphere.train, &sphere.test, 1);
    struct initial initial = initial_of(earlier);
    struct record *record = new_record();
    config.hidden[0] = 299;
    config.initial = &initial;
    run_into(record, &config, &sphere.train, &sphere.test, 2);
    assert_failed(record->rc, OVR_INVALID, &record->err, "no weights of the shapes");
    assert_string_equal(record->err.field, "/model/init/experiment");
    record_free(record);
    record_free(earlier);
    initial_release(&initial);
    sphere_release(&sphere);
}

/* ---- which samples a step gets ---- */

enum { SPIED_N = 203, SPIED_D = 40, SPIED_BATCH = 16, SPIED_STEPS = 128 };

/* The inputs of every step, seen where they are packed for the layer's product. */
static struct {
    const struct kernels *kernels;
    size_t n_steps, rows[SPIED_STEPS];
    real x[SPIED_STEPS][SPIED_BATCH * SPIED_D];
} spy;

static void spying_pack_strips(const real *x, size_t rows, size_t d, size_t first, size_t end,
                               real *strips) {
    if (d == SPIED_D && rows > 1) { /* one row: the watched split */
        assert_true(spy.n_steps < SPIED_STEPS && rows <= SPIED_BATCH);
        spy.rows[spy.n_steps] = rows;
        memcpy(spy.x[spy.n_steps++], x, rows * d * sizeof *x);
    }
    spy.kernels->pack_strips(x, rows, d, first, end, strips);
}

/* Samples that carry their number, their label and ones. */
static struct samples new_numbered(size_t n) {
    struct samples samples = new_samples(n, SPIED_D, 4, 90);
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < SPIED_D; j++)
            samples.values[i * SPIED_D + j] = j == 0   ? (real)(i + 1)
                                              : j == 1 ? (real)(samples.labels[i] + 1)
                                                       : 1;
    return samples;
}

static void spy_on(struct train_config config) {
    struct samples train = new_numbered(SPIED_N), test = new_numbered(1);
    struct ovr_err err = {0};
    struct prepared *data;
    struct train_progress progress = {0};
    struct record *record = new_record();
    const struct train_hooks hooks = {record, NULL, &progress, keep_report};
    struct train_result result;
    struct kernels kernels = *kernels_get(ISA_AUTO);
    struct team *team = new_team(1);
    spy.kernels = kernels_get(ISA_AUTO);
    spy.n_steps = 0;
    kernels.pack_strips = spying_pack_strips;
    config.batch_size = SPIED_BATCH;
    config.epochs = 2;
    config.optimizer.learning_rate = 1e-6;
    assert_ok(
        prepared_build(&data, &config.data, 1, &train, &test, team, spy.kernels, -1, NULL, &err),
        &err);
    assert_ok(train_run(&config, data, team, &kernels, &hooks, &result, &err), &err);
    assert_true(progress.steps == spy.n_steps && progress.step == spy.n_steps);
    assert_int_equal(spy.n_steps % 2, 0);
    train_result_release(&result);
    record_free(record);
    prepared_free(data);
    team_free(team);
    samples_release(&train);
    samples_release(&test);
}

/* Every sample of the classes once an epoch, in another order in each. Returns how often the class
 * changes from one row of an epoch's batches to the next. */
static size_t check_epochs(const struct class_list *classes, int pure) {
    struct samples all = new_numbered(SPIED_N);
    size_t changes = 0, used = 0, half = spy.n_steps / 2;
    int seen[SPIED_N] = {0}, same_order = 1;
    for (size_t i = 0; i < SPIED_N; i++) {
        int wanted = classes->n == 0;
        for (size_t c = 0; c < classes->n; c++)
            wanted |= classes->list[c] == all.labels[i];
        used += (size_t)wanted;
        seen[i] = wanted ? 0 : 2; /* once in each epoch, or never */
    }
    size_t rows = 0;
    for (size_t step = 0; step < spy.n_steps; step++)
        for (size_t i = 0; i < spy.rows[step]; i++, rows++) {
            const real *x = spy.x[step] + i * SPIED_D;
            size_t sample = (size_t)x[0] - 1;
            assert_true(x[1] == (real)(all.labels[sample] + 1));
            assert_int_equal(seen[sample]++, step >= half);
            changes += i > 0 && x[1] != x[1 - SPIED_D];
            same_order &= step >= half || x[0] == spy.x[step + half][i * SPIED_D];
        }
    assert_int_equal(rows, 2 * used);
    assert_false(same_order);
    if (pure)
        assert_int_equal(changes, 0);
    samples_release(&all);
    return changes;
}

/* How many batches the samples of one class fill. */
static size_t count_batches(size_t class) {
    struct samples all = new_numbered(SPIED_N);
    size_t n = 0;
    for (size_t i = 0; i < SPIED_N; i++)
        n += all.labels[i] == class;
    samples_release(&all);
    return (n + SPIED_BATCH - 1) / SPIED_BATCH;
}

static void batches_of_all_classes(void **state) {
    (void)state;
    struct train_config config = encoder_config();
    spy_on(config);
    assert_int_equal(spy.n_steps, 2 * ((SPIED_N + SPIED_BATCH - 1) / SPIED_BATCH));
    assert_true(check_epochs(&config.only, 0) > SPIED_N / 2);
}

static void batches_of_some_classes(void **state) {
    (void)state;
    struct train_config config = encoder_config();
    config.only = (struct class_list){2, {3, 1}};
    spy_on(config);
    assert_true(check_epochs(&config.only, 0) > SPIED_N / 8);
}

static void batches_of_a_single_class(void **state) {
    (void)state;
    struct train_config config = encoder_config();
    config.batching = BATCHING_SINGLE_CLASS;
    spy_on(config);
    assert_int_equal(spy.n_steps, 2 * (count_batches(0) + count_batches(1) + count_batches(2) +
                                       count_batches(3)));
    check_epochs(&config.only, 1);
    size_t runs = 0; /* the classes come mixed, not one after the other */
    for (size_t step = 1; step < spy.n_steps / 2; step++)
        runs += spy.x[step][1] != spy.x[step - 1][1];
    assert_true(runs > 3);

    config.only = (struct class_list){2, {0, 2}};
    spy_on(config);
    assert_int_equal(spy.n_steps, 2 * (count_batches(0) + count_batches(2)));
    check_epochs(&config.only, 1);
}

static void classes_nobody_has_are_refused(void **state) {
    (void)state;
    struct sphere sphere = new_sphere(64, 10);
    struct train_config config = encoder_config();
    struct record *record = new_record();
    config.only = (struct class_list){1, {9}};
    run_into(record, &config, &sphere.train, &sphere.test, 2);
    assert_failed(record->rc, OVR_INVALID, &record->err, "no training sample");
    assert_string_equal(record->err.field, "/training/only_classes");
    record_free(record);
    sphere_release(&sphere);
}

/* Columns from 2 on are 1 where nothing is done to them. */
static void corruption_of_the_inputs(void **state) {
    (void)state;
    struct train_config config = encoder_config(); /* which packs nothing but inputs */
    for (int gaussian = 0; gaussian < 2; gaussian++) {
        double n = 0, zeros = 0, sum = 0, squares = 0;
        config.corruption = gaussian ? CORRUPTION_GAUSSIAN : CORRUPTION_MASKING;
        config.corruption_amount = 0.3;
        spy_on(config);
        for (size_t step = 0; step < spy.n_steps; step++)
            for (size_t i = 0; i < spy.rows[step] * SPIED_D; i++) {
                double change = spy.x[step][i] - 1;
                if (i % SPIED_D < 2)
                    continue;
                n++;
                zeros += change == -1;
                assert_true(gaussian || change == 0 || change == -1);
                sum += change;
                squares += change * change;
            }
        if (gaussian) {
            assert_near(sum / n, 0, 5 * 0.3 / sqrt(n));
            assert_relative(sqrt(squares / n), 0.3, 5 / sqrt(2 * n));
        } else {
            assert_near(zeros / n, 0.3, 5 * sqrt(0.3 * 0.7 / n));
        }
        /* the same places of another epoch have another one */
        assert_memory_not_equal(spy.x[0] + 2, spy.x[spy.n_steps / 2] + 2,
                                (SPIED_D - 2) * sizeof(real));
    }
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
    assert_non_null(strstr(record->err.text, "/loss/ovr/lambda"));
    record_free(record);
    sphere_release(&sphere);
}

/* A single step an epoch, so that the evaluation after it is the first to see the broken net. */
static void divergence_is_seen_in_the_evaluation(void **state) {
    (void)state;
    struct sphere sphere = new_sphere(32, 150);
    struct train_config config = mlp_config();
    config.optimizer.learning_rate = 1e38;
    config.ovr.lambda = 0;
    struct record *record = new_record();
    run_into(record, &config, &sphere.train, &sphere.test, 2);
    assert_failed(record->rc, OVR_DIVERGED, &record->err, "at step 1 (epoch 1)");
    assert_null(strstr(record->err.text, "/loss/ovr/lambda")); /* it is 0 already */
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
    struct train_estimate estimate = train_estimate(config, &data, &(struct crew){2, 1});
    malloc_trim(0); /* preparing does, too: what is freed already must not count as before */
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
    struct net_part parts[PARTS_MAX];
    size_t n_parts = net_parts(&result.net, parts), parameters = 0;
    for (size_t i = 0; i < n_parts; i++)
        parameters += parts[i].rows * parts[i].cols;
    assert_int_equal(estimate.parameters, parameters);
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

static void memory_of_autoencoders_and_deep_nets(void **state) {
    (void)state;
    struct train_config config = autoencoder_config();
    config.epochs = 1;
    config.hidden[0] = 1000;
    check_estimate(&config, 400);
    config.tied = 1;
    config.corruption = CORRUPTION_MASKING;
    config.corruption_amount = 0.2;
    config.f.kind = ACT_SIGMOID;
    check_estimate(&config, 1000);
    config = deep_config(MODEL_MLP);
    config.optimizer = encoder_config().optimizer;
    config.epochs = 1;
    config.hidden[0] = 2000;
    config.hidden[1] = 1000;
    config.hidden[2] = 1500;
    config.dropout[0] = config.dropout[1] = config.dropout[2] = 0.5;
    check_estimate(&config, 300);
    config.kind = MODEL_OVR_ENCODER;
    memset(config.dropout, 0, sizeof config.dropout);
    config.freeze = 1;
    check_estimate(&config, 300);
}
#endif

static const struct crew alone = {1, 1};

static void estimate_counts_products(void **state) {
    (void)state;
    struct train_config config = encoder_config();
    config.hidden[0] = 8192;
    config.epochs = 10;
    const struct train_data data = {50000, 10000, 781, 10, 0};
    struct train_estimate e = train_estimate(&config, &data, &alone);
    assert_int_equal(e.parameters, 8192 * 782);
    /* forward and weight gradient of the training split, forward of the watched one */
    assert_relative(e.flops_per_epoch, 2. * 781 * 8192 * (2 * 50000. + 10000), 1e-9);
    assert_relative(e.flops_total, 10 * e.flops_per_epoch, 1e-9);
}

/* Products of all layers forward, their weights' gradients, and what goes further down. */
static void estimate_counts_products_of_other_nets(void **state) {
    (void)state;
    const struct train_data data = {1000, 100, 50, 10, 0};
    struct train_config config = autoencoder_config();
    config.hidden[0] = 20;
    struct train_estimate e = train_estimate(&config, &data, &alone);
    double product = 2. * 50 * 20;
    assert_int_equal(e.parameters, 2 * 50 * 20 + 20 + 50);
    assert_relative(e.flops_per_epoch, product * ((2 + 3) * 1000. + 2 * 100), 1e-9);
    config.tied = 1;
    e = train_estimate(&config, &data, &alone);
    assert_int_equal(e.parameters, 50 * 20 + 20 + 50);

    config = mlp_config();
    config.hidden[0] = 20;
    config.hidden[1] = 30;
    config.n_hidden = 2;
    e = train_estimate(&config, &data, &alone);
    double first = 2. * 50 * 20, second = 2. * 20 * 30, head = 2. * 30 * 10;
    assert_int_equal(e.parameters, 20 * 51 + 30 * 21 + 10 * 31);
    assert_relative(e.flops_per_epoch,
                    1000 * (2 * first + 3 * second + 3 * head) + 100 * (first + second + head),
                    1e-9);
    config.freeze = 1;
    e = train_estimate(&config, &data, &alone);
    assert_relative(e.flops_per_epoch,
                    1000 * (first + 2 * second + 3 * head) + 100 * (first + second + head), 1e-9);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(encoder_bits_do_not_depend_on_team),
        cmocka_unit_test(mlp_bits_do_not_depend_on_team),
        cmocka_unit_test(autoencoder_bits_do_not_depend_on_team),
        cmocka_unit_test(deep_bits_do_not_depend_on_team),
        cmocka_unit_test(seed_decides_everything),
        cmocka_unit_test(encoder_agrees_with_naive_trainer),
        cmocka_unit_test(mlp_agrees_with_naive_trainer),
        cmocka_unit_test(mlp_learns_the_sphere),
        cmocka_unit_test(autoencoders_learn_the_sphere),
        cmocka_unit_test(denoising_is_harder),
        cmocka_unit_test(deep_nets_learn_the_sphere),
        cmocka_unit_test(training_is_continued),
        cmocka_unit_test(what_fits_is_loaded),
        cmocka_unit_test(nothing_that_fits_is_refused),
        cmocka_unit_test(batches_of_all_classes),
        cmocka_unit_test(batches_of_some_classes),
        cmocka_unit_test(batches_of_a_single_class),
        cmocka_unit_test(classes_nobody_has_are_refused),
        cmocka_unit_test(corruption_of_the_inputs),
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
        cmocka_unit_test(memory_of_autoencoders_and_deep_nets),
#endif
        cmocka_unit_test(estimate_counts_products),
        cmocka_unit_test(estimate_counts_products_of_other_nets),
    };
    return cmocka_run_group_tests_name("core/train", tests, start_blas, NULL);
}
