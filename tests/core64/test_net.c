/* The layers' gradients by finite differences, in float64, through the training code itself: a step
 * of plain SGD at rate 1 moves the weights by minus the gradient. */
#include "tests/core/check.h"

/* A smaller step drowns in the rounding of J, a larger one in the curvature: both stay below 7e-7.
 */
static const double STEP = 5e-5, RELATIVE_ERROR = 1e-6;

enum { UNITS = 300, CLASSES = 3 }; /* three shards, the last one ragged */

struct problem {
    struct net_config config;
    size_t n;      /* samples */
    double bias;   /* about where biases are; below 0 a sample of zeros has an empty code */
    size_t step;   /* every which parameter is checked */
    int corrupted; /* a decoder's target is not its input */
};

struct pass {
    struct net *net;
    struct batch batch;
    struct terms terms;
    struct gradients gradients;
    int train, measure;
};

static void pass_work(struct member *member, void *arg) {
    struct pass *pass = arg;
    struct terms terms = net_forward(member, pass->net, &pass->batch);
    const struct update plain = {.rule = UPDATE_SGD, .rate = 1};
    struct gradients gradients = {.direction = 0};
    if (pass->measure)
        net_gradients(member, pass->net, &pass->batch, &gradients);
    if (pass->train)
        net_backward(member, pass->net, &pass->batch, &plain);
    if (member->rank == 0) {
        pass->terms = terms;
        pass->gradients = gradients;
    }
}

static double loss_of(struct team *team, struct pass *pass) {
    pass->train = 0;
    team_run(team, pass_work, pass);
    return pass->terms.loss / pass->terms.samples;
}

static const real *input_of(const struct net *net, const struct batch *batch, size_t layer) {
    return layer ? net->layers[layer - 1].output : batch->x;
}

static double pre_activation(const struct net *net, size_t layer, const real *x, size_t unit) {
    size_t d = net->layers[layer].config.n_inputs;
    double a = net_bias(net, layer)[unit];
    for (size_t j = 0; j < d; j++)
        a += net_weight(net, layer)[unit * d + j] * x[j];
    return a;
}

/* Moves a unit's pre-activations a little. */
static void nudge(struct net *net, size_t layer, size_t unit) {
    size_t d = net->layers[layer].config.n_inputs;
    if (net->config.f.kind != ACT_THRESHOLDED)
        net_bias(net, layer)[unit] -= 3e-3;
    for (size_t j = 0; net->config.f.kind == ACT_THRESHOLDED && j < d; j++)
        net_weight(net, layer)[unit * d + j] *= 1.01;
}

/* The unit that must make way, or -1: of a row's k + 1 largest the last two are too near to each
 * other. */
static long tied_unit(const struct net *net, size_t layer, const real *x) {
    size_t n = net->config.units[layer], last = 0, next = 0;
    double best[64] = {0}, above = INFINITY;
    for (size_t rank = 0; rank <= net->config.top_k; rank++) {
        last = next;
        best[rank] = -INFINITY;
        for (size_t unit = 0; unit < n; unit++) {
            double a = pre_activation(net, layer, x, unit);
            if (a < above && a > best[rank]) {
                best[rank] = a;
                next = unit;
            }
        }
        above = best[rank];
    }
    return best[net->config.top_k - 1] - above < 2e-3 && last != next ? (long)next : -1;
}

/* Moves a layer's units until no pre-activation is so near to a kink of its activation that a
 * finite difference could step over it. */
static void leave_kinks(struct net *net, const struct batch *batch, size_t layer) {
    const struct nonlinearity *f = &net->config.f;
    size_t d = net->layers[layer].config.n_inputs;
    const real *x = input_of(net, batch, layer);
    double kink = f->kind == ACT_THRESHOLDED ? f->threshold : 0;
    int kinked = f->kind == ACT_RELU || f->kind == ACT_LEAKY_RELU || f->kind == ACT_THRESHOLDED;
    for (size_t unit = 0; kinked && unit < net->config.units[layer]; unit++)
        for (size_t i = 0; i < batch->n; i++)
            if (fabs(pre_activation(net, layer, x + i * d, unit) - kink) < 1e-3) {
                nudge(net, layer, unit);
                i = SIZE_MAX; /* all rows again */
            }
    for (size_t i = 0; f->kind == ACT_TOP_K && i < batch->n; i++) {
        long unit = tied_unit(net, layer, x + i * d);
        if (unit >= 0) {
            nudge(net, layer, (size_t)unit);
            i = SIZE_MAX;
        }
    }
}

static void fill_part(struct net *net, const struct net_part *part, const real *random,
                      double bias) {
    int is_bias = part->part == PART_BIAS;
    double spread = part->part == PART_WEIGHT && part->layer ? 1 / sqrt((double)part->cols) : 0.5;
    for (size_t row = 0; row < part->rows; row++)
        for (size_t col = 0; col < part->cols; col++) {
            size_t at = part->at + row * part->stride + col;
            net->params[at] = is_bias ? bias - fabs(random[at]) / 10 : random[at] * spread;
            if (is_bias && net->config.f.kind == ACT_THRESHOLDED)
                net->params[at] = 0;
        }
}

static struct net *new_random_net(const struct problem *problem, const struct batch *batch,
                                  int members) {
    struct net *net = new_net(&problem->config, 0, batch->n, members);
    struct net_part parts[PARTS_MAX];
    struct team *team = new_team(1);
    struct pass pass = {.net = net, .batch = *batch};
    real *random = new_normal(net->n_params, 10);
    size_t n = net_parts(net, parts);
    for (size_t i = 0; i < n; i++)
        fill_part(net, &parts[i], random, problem->bias);
    for (size_t layer = 0; layer < problem->config.n_layers; layer++) {
        loss_of(team, &pass); /* for this layer's input */
        leave_kinks(net, batch, layer);
    }
    team_free(team);
    free(random);
    return net;
}

/* Old minus new weights of one step. */
static real *gradient_by_training(const struct problem *problem, const struct batch *batch,
                                  int members) {
    struct team *team = new_team(members);
    struct pass pass = {
        .net = new_random_net(problem, batch, members), .batch = *batch, .train = 1};
    real *gradient = new_reals(pass.net->n_params);
    memcpy(gradient, pass.net->params, pass.net->n_params * sizeof *gradient);
    team_run(team, pass_work, &pass);
    for (size_t i = 0; i < pass.net->n_params; i++)
        gradient[i] -= pass.net->params[i];
    free_net(pass.net);
    team_free(team);
    return gradient;
}

static double numeric_slope(struct team *team, struct pass *pass, real *parameter) {
    real value = *parameter;
    *parameter = value + STEP;
    double above = loss_of(team, pass);
    *parameter = value - STEP;
    double below = loss_of(team, pass);
    *parameter = value;
    return (above - below) / (2 * STEP);
}

/* Parameters of one part; one is measured against itself and the part's mean. */
static void check_part(struct team *team, struct pass *pass, const real *gradient,
                       const struct net_part *part, size_t step) {
    static const char *const names[] = {"W", "b", "V", "c"};
    size_t n = part->rows * part->cols;
    double mean = 0;
    gradient += part->at;
    for (size_t i = 0; i < n; i++)
        mean += fabs(gradient[i / part->cols * part->stride + i % part->cols]) / (double)n;
    for (size_t i = 0; i < n; i += step) {
        size_t at = i / part->cols * part->stride + i % part->cols;
        double slope = numeric_slope(team, pass, &pass->net->params[part->at + at]);
        if (fabs(gradient[at] - slope) <= RELATIVE_ERROR * (fabs(slope) + mean) + 1e-10)
            continue;
        print_error("gradient of %s[%zu] of layer %zu is %.12g, not %.12g\n", names[part->part], i,
                    part->layer, gradient[at], slope);
        fail();
    }
}

/* Whether the weights of a part never move. */
static int is_fixed(const struct net_config *config, const struct net_part *part) {
    int of_layer = part->part == PART_WEIGHT || part->part == PART_BIAS;
    return (of_layer && part->layer < config->frozen) ||
           (part->part == PART_BIAS && config->f.kind == ACT_THRESHOLDED);
}

/* Without anything on top a layer learns from its own terms alone, its input held as it is. */
static struct net_config own_terms(const struct net_config *config, const struct net_part *part) {
    struct net_config own = *config;
    if (config->n_classes || config->decoder || config->n_layers == 1)
        return own;
    own.ovr_layers = 1u << part->layer;
    if (config->ovr_layers && !(config->ovr_layers & own.ovr_layers))
        own.ovr.lambda = own.activity = 0;
    return own;
}

/* What stands between the columns of the parts never moves. */
static void check_gaps(const struct net *net, const real *gradient) {
    struct net_part parts[PARTS_MAX];
    size_t n = net_parts(net, parts), used = 0, moved = 0, moved_in_parts = 0;
    for (size_t i = 0; i < net->n_params; i++)
        moved += gradient[i] != 0;
    for (size_t p = 0; p < n; p++)
        for (size_t i = 0; i < parts[p].rows * parts[p].cols; i++, used++)
            moved_in_parts +=
                gradient[parts[p].at + i / parts[p].cols * parts[p].stride + i % parts[p].cols] !=
                0;
    assert_true(used <= net->n_params);
    assert_int_equal(moved, moved_in_parts);
}

struct inputs {
    real *x, *target;
    uint16_t *labels;
    struct batch batch;
};

static struct inputs new_inputs(const struct problem *problem) {
    size_t n = problem->n, d = problem->config.n_inputs;
    struct inputs in = {new_normal(n * d, 11),
                        new_normal(n * d, 13),
                        new_labels(n, CLASSES, 12),
                        {.n = n, .group = n, .training = 1, .epoch = 3, .first = 17}};
    if (n > 2)
        memset(in.x + d, 0, d * sizeof *in.x); /* sample 1 */
    in.batch.x = in.x;
    in.batch.target = problem->corrupted ? in.target : NULL;
    in.batch.labels = in.labels;
    return in;
}

static void inputs_release(struct inputs *in) {
    free(in->x);
    free(in->target);
    free(in->labels);
}

/* Whether sample 1 has an empty code. */
static int has_empty_code(const struct problem *problem) {
    enum activation kind = problem->config.f.kind;
    return problem->n > 2 && problem->bias < 0 && (kind == ACT_RELU || kind == ACT_THRESHOLDED);
}

static void check_problem(const struct problem *problem) {
    const struct net_config *config = &problem->config;
    struct inputs in = new_inputs(problem);
    real *gradient = gradient_by_training(problem, &in.batch, 1);
    real *of_three = gradient_by_training(problem, &in.batch, 3);
    struct team *team = new_team(1);
    struct pass pass = {.net = new_random_net(problem, &in.batch, 1), .batch = in.batch};
    struct net_part parts[PARTS_MAX];
    size_t n_parts = net_parts(pass.net, parts);

    assert_memory_equal(gradient, of_three, pass.net->n_params * sizeof *gradient);
    loss_of(team, &pass);
    if (config->n_layers == 1)
        assert_int_equal(pass.terms.zero_codes, has_empty_code(problem));
    check_gaps(pass.net, gradient);
    for (size_t p = 0; p < n_parts; p++) {
        if (is_fixed(config, &parts[p])) {
            for (size_t i = 0; i < parts[p].rows * parts[p].cols; i++)
                assert_true(gradient[parts[p].at + i] == 0);
            continue;
        }
        pass.net->config = own_terms(config, &parts[p]);
        check_part(team, &pass, gradient, &parts[p], problem->step);
    }
    free_net(pass.net);
    team_free(team);
    free(gradient);
    free(of_three);
    inputs_release(&in);
}

/* All parameters, with about half of the activations 0. */
static void check_gradient(const struct net_config *config, size_t n) {
    check_problem(&(struct problem){.config = *config, .n = n, .bias = -0.05, .step = 1});
}

/* Some of them. */
static void check_some(const struct net_config *config) {
    check_problem(&(struct problem){.config = *config, .n = 6, .bias = -0.05, .step = 7});
}

#define ENCODER .n_inputs = 5, .n_layers = 1, .units = {UNITS}
#define MLP ENCODER, .n_classes = CLASSES
#define AUTOENCODER ENCODER, .decoder = 1
#define DEEP .n_inputs = 5, .n_layers = 3, .units = {140, 30, 150}
#define ACTIVITY .activity = 1, .activity_target = 0.5
#define OVR(kind, weight, pair) .ovr = {.form = kind, .lambda = weight, .per_pair = pair}

static const struct nonlinearity activations[] = {
    {.kind = ACT_RELU},    {.kind = ACT_LEAKY_RELU, .slope = 0.2},
    {.kind = ACT_SIGMOID}, {.kind = ACT_TANH},
    {.kind = ACT_LINEAR},  {.kind = ACT_THRESHOLDED, .threshold = 0.5},
    {.kind = ACT_TOP_K},
};

/* A net with each of the activations. */
static void check_activations(struct net_config config) {
    for (size_t i = 0; i < COUNT(activations); i++) {
        config.f = activations[i];
        config.top_k = 20;
        check_some(&config);
    }
}

static void check_sizes(struct net_config config) {
    check_gradient(&config, 6);
    check_gradient(&config, 2);
    check_gradient(&config, 1);
}

static void encoder_raw(void **state) {
    (void)state;
    check_sizes((struct net_config){ENCODER, ACTIVITY, OVR(OVR_RAW, 1e-3, 0)});
}

static void encoder_cosine(void **state) {
    (void)state;
    check_sizes((struct net_config){ENCODER, ACTIVITY, OVR(OVR_COSINE, 0.3, 0)});
}

static void encoder_lambda_per_pair(void **state) {
    (void)state;
    check_sizes((struct net_config){ENCODER, ACTIVITY, OVR(OVR_COSINE, 0.8, 1)});
    check_gradient(&(struct net_config){ENCODER, ACTIVITY, OVR(OVR_RAW, 0.01, 1)}, 6);
}

static void encoder_without_activity(void **state) {
    (void)state;
    check_sizes((struct net_config){ENCODER, OVR(OVR_COSINE, 0.3, 0)});
    check_gradient(&(struct net_config){ENCODER, OVR(OVR_RAW, 1e-3, 0)}, 6);
}

static void mlp_alone(void **state) {
    (void)state;
    check_sizes((struct net_config){MLP});
}

static void mlp_with_ovr(void **state) {
    (void)state;
    check_sizes((struct net_config){MLP, OVR(OVR_COSINE, 0.3, 0)});
    check_gradient(&(struct net_config){MLP, OVR(OVR_RAW, 1e-3, 0)}, 6);
}

static void mlp_with_activity(void **state) {
    (void)state;
    check_gradient(&(struct net_config){MLP, ACTIVITY}, 6);
    check_gradient(&(struct net_config){MLP, ACTIVITY, OVR(OVR_COSINE, 0.8, 1)}, 6);
    check_gradient(&(struct net_config){MLP, ACTIVITY, OVR(OVR_RAW, 1e-3, 0)}, 6);
}

/* More rows than lists of active units are made for at once, and more inputs than a panel has, for
 * codes that are sparse and for codes that are dense. */
static void wide_inputs_and_large_batches(void **state) {
    (void)state;
    const struct net_config cosine = {.n_inputs = 2 * PANEL + 13,
                                      .n_layers = 1,
                                      .units = {UNITS},
                                      OVR(OVR_COSINE, 0.3, 0),
                                      ACTIVITY};
    const struct net_config classifier = {.n_inputs = PANEL - 1,
                                          .n_layers = 1,
                                          .units = {UNITS},
                                          .n_classes = CLASSES,
                                          OVR(OVR_COSINE, 0.3, 0)};
    const double biases[] = {-5, 12};
    for (size_t i = 0; i < COUNT(biases); i++) {
        check_problem(&(struct problem){cosine, ACTIVE_ROWS + 9, biases[i], 499});
        check_problem(&(struct problem){classifier, ACTIVE_ROWS, biases[i], 199});
    }
}

/* ---- all activations ---- */

static void activations_of_an_encoder(void **state) {
    (void)state;
    check_activations((struct net_config){ENCODER, ACTIVITY, OVR(OVR_RAW, 1e-3, 0)});
    check_activations((struct net_config){ENCODER, ACTIVITY, OVR(OVR_COSINE, 0.3, 0)});
}

static void activations_of_an_mlp(void **state) {
    (void)state;
    check_activations((struct net_config){MLP, ACTIVITY, OVR(OVR_COSINE, 0.3, 0)});
    check_activations((struct net_config){MLP, OVR(OVR_RAW, 1e-3, 0)});
}

static void activations_of_an_autoencoder(void **state) {
    (void)state;
    for (int tied = 0; tied < 2; tied++) {
        check_activations((struct net_config){AUTOENCODER, .tied = tied});
        check_activations((struct net_config){AUTOENCODER, .tied = tied, ACTIVITY, .l1 = 0.01,
                                              .l2 = 1e-3, OVR(OVR_COSINE, 0.3, 0)});
        check_activations((struct net_config){AUTOENCODER, .tied = tied, OVR(OVR_RAW, 1e-3, 0)});
    }
}

/* ---- autoencoders ---- */

static void autoencoder_sizes(void **state) {
    (void)state;
    check_sizes((struct net_config){AUTOENCODER, OVR(OVR_COSINE, 0.3, 0)});
    check_sizes((struct net_config){AUTOENCODER, .tied = 1, ACTIVITY});
}

static void autoencoder_denoising(void **state) {
    (void)state;
    for (int tied = 0; tied < 2; tied++)
        check_problem(&(struct problem){{AUTOENCODER, .tied = tied, OVR(OVR_COSINE, 0.3, 0)},
                                        .n = 6,
                                        .bias = -0.05,
                                        .step = 1,
                                        .corrupted = 1});
}

static void autoencoder_contractive(void **state) {
    (void)state;
    for (int tied = 0; tied < 2; tied++) {
        check_activations((struct net_config){AUTOENCODER, .tied = tied, .contractive = 0.01});
        check_activations((struct net_config){AUTOENCODER, .tied = tied, .contractive = 0.01,
                                              .l1 = 0.01, .l2 = 1e-3, ACTIVITY,
                                              OVR(OVR_COSINE, 0.3, 0)});
    }
    check_sizes((struct net_config){AUTOENCODER, .f = {.kind = ACT_SIGMOID}, .contractive = 0.1,
                                    OVR(OVR_RAW, 1e-3, 0)});
}

static void autoencoder_kl(void **state) {
    (void)state;
    const struct nonlinearity sigmoid = {.kind = ACT_SIGMOID};
    check_sizes((struct net_config){AUTOENCODER, .f = sigmoid, .kl = 0.1, .kl_target = 0.05});
    check_some(&(struct net_config){AUTOENCODER, .tied = 1, .f = sigmoid, .kl = 0.1,
                                    .kl_target = 0.6, .l1 = 0.01, .l2 = 1e-3, .contractive = 0.01,
                                    ACTIVITY, OVR(OVR_COSINE, 0.3, 0)});
}

/* ---- several layers ---- */

static void deep_mlp(void **state) {
    (void)state;
    check_activations((struct net_config){DEEP, .n_classes = CLASSES, .l2 = 1e-3});
    check_activations(
        (struct net_config){DEEP, .n_classes = CLASSES, ACTIVITY, OVR(OVR_COSINE, 0.3, 0)});
    check_activations((struct net_config){DEEP, .n_classes = CLASSES, .ovr_layers = 5, ACTIVITY,
                                          OVR(OVR_RAW, 1e-3, 0)});
    check_activations(
        (struct net_config){DEEP, .n_classes = CLASSES, .ovr_layers = 2, OVR(OVR_COSINE, 0.3, 1)});
}

static void deep_mlp_with_frozen_layers(void **state) {
    (void)state;
    for (size_t frozen = 1; frozen <= 3; frozen++)
        check_some(&(struct net_config){DEEP, .n_classes = CLASSES, .frozen = frozen, .l2 = 1e-3,
                                        ACTIVITY, OVR(OVR_COSINE, 0.3, 0)});
    check_some(&(struct net_config){DEEP, .n_classes = CLASSES, .frozen = 1, .ovr_layers = 3,
                                    OVR(OVR_RAW, 1e-3, 0)});
}

static void dropout(void **state) {
    (void)state;
    check_activations((struct net_config){MLP, .dropout = {0.5}, OVR(OVR_COSINE, 0.3, 0)});
    check_activations((struct net_config){DEEP, .n_classes = CLASSES, .dropout = {0.2, 0, 0.5},
                                          ACTIVITY, OVR(OVR_COSINE, 0.3, 0)});
    check_some(
        &(struct net_config){DEEP, .n_classes = CLASSES, .dropout = {0.5, 0.5, 0.5}, .frozen = 1});
    check_some(&(struct net_config){AUTOENCODER, .tied = 1, .dropout = {0.3}});
}

/* Each layer's own terms. */
static void stacked_encoder(void **state) {
    (void)state;
    check_activations((struct net_config){DEEP, ACTIVITY, OVR(OVR_COSINE, 0.3, 0), .l2 = 1e-3});
    check_activations((struct net_config){DEEP, ACTIVITY, OVR(OVR_RAW, 1e-3, 0)});
    check_some(&(struct net_config){DEEP, ACTIVITY, OVR(OVR_COSINE, 0.3, 0), .frozen = 2});
    check_some(&(struct net_config){DEEP, ACTIVITY, OVR(OVR_RAW, 1e-3, 0), .frozen = 1,
                                    .ovr_layers = 4, .l2 = 1e-3});
}

/* ---- shares of the gradient ---- */

static void switch_off(struct net_config *config, enum term term) {
    switch (term) {
    case TERM_OVR:
        config->ovr.lambda = 0;
        break;
    case TERM_ACTIVITY:
        config->activity = 0;
        break;
    case TERM_L1:
        config->l1 = 0;
        break;
    case TERM_KL:
        config->kl = 0;
        break;
    case TERM_CONTRACTIVE:
        config->contractive = 0;
        break;
    case TERM_L2:
        config->l2 = 0;
        break;
    default:
        fail(); /* what stands on top stays */
    }
}

static double norm_of(const real *x, size_t n) {
    double squares = 0;
    for (size_t i = 0; i < n; i++)
        squares += x[i] * x[i];
    return sqrt(squares);
}

static struct gradients measure(const struct problem *problem, const struct batch *batch,
                                int members) {
    struct team *team = new_team(members);
    struct pass pass = {
        .net = new_random_net(problem, batch, members), .batch = *batch, .measure = 1};
    size_t n = pass.net->n_params;
    real *before = new_reals(n);
    memcpy(before, pass.net->params, n * sizeof *before);
    team_run(team, pass_work, &pass);
    assert_memory_equal(before, pass.net->params, n * sizeof *before); /* only looked at */
    free(before);
    free_net(pass.net);
    team_free(team);
    return pass.gradients;
}

/* The gradient of each term is what a step without the term lacks; the rest is that of what stands
 * on top. */
static void check_shares(const struct net_config *config) {
    const struct problem whole = {*config, .n = 6, .bias = -0.05};
    struct inputs in = new_inputs(&whole);
    struct net *net = new_net(config, 0, 6, 1);
    size_t n = net->n_params;
    unsigned terms = net_terms(config);
    struct gradients g = measure(&whole, &in.batch, 1), of_three = measure(&whole, &in.batch, 3);
    real *all = gradient_by_training(&whole, &in.batch, 1), *rest = new_reals(n);
    assert_memory_equal(&g, &of_three, sizeof g);
    memcpy(rest, all, n * sizeof *rest);
    for (enum term t = 0; t < N_TERMS; t++) {
        if (!(terms >> t & 1)) {
            assert_true(g.norm[t] == 0);
            continue;
        }
        if (t == TERM_CROSS_ENTROPY || t == TERM_RECONSTRUCTION)
            continue;
        struct problem without = whole;
        switch_off(&without.config, t);
        real *others = gradient_by_training(&without, &in.batch, 1);
        for (size_t i = 0; i < n; i++) {
            others[i] = all[i] - others[i];
            rest[i] -= others[i];
        }
        assert_true(g.norm[t] > 0);
        assert_relative(g.norm[t], norm_of(others, n), 1e-9);
        free(others);
    }
    double top = config->n_classes ? g.norm[TERM_CROSS_ENTROPY] : g.norm[TERM_RECONSTRUCTION];
    assert_near(norm_of(rest, n), top, 1e-9 * norm_of(all, n));
    free(all);
    free(rest);
    free_net(net);
    inputs_release(&in);
}

static void shares_of_the_gradient(void **state) {
    (void)state;
    const struct nonlinearity sigmoid = {.kind = ACT_SIGMOID};
    check_shares(&(struct net_config){ENCODER, ACTIVITY, OVR(OVR_COSINE, 0.3, 0), .l2 = 1e-3});
    check_shares(&(struct net_config){ENCODER, ACTIVITY, OVR(OVR_RAW, 1e-3, 0)});
    check_shares(&(struct net_config){MLP, ACTIVITY, OVR(OVR_COSINE, 0.3, 0), .dropout = {0.5}});
    check_shares(&(struct net_config){DEEP, .n_classes = CLASSES, ACTIVITY, .ovr_layers = 5,
                                      .frozen = 1, OVR(OVR_COSINE, 0.3, 0), .l2 = 1e-3});
    check_shares(&(struct net_config){DEEP, ACTIVITY, OVR(OVR_COSINE, 0.3, 0), .l2 = 1e-3});
    for (int tied = 0; tied < 2; tied++)
        check_shares(&(struct net_config){AUTOENCODER, .tied = tied, .f = sigmoid, ACTIVITY,
                                          OVR(OVR_COSINE, 0.3, 0), .l1 = 0.01, .l2 = 1e-3,
                                          .kl = 0.1, .kl_target = 0.05, .contractive = 0.01});
}

/* Mean cosine between −∂OVR/∂w_k and the sum of the inputs that unit k is active to. */
static double naive_direction(const struct problem *problem, const struct batch *batch) {
    struct problem ovr_alone = *problem;
    ovr_alone.config.activity = 0;
    real *gradient = gradient_by_training(&ovr_alone, batch, 1);
    struct net *net = new_random_net(problem, batch, 1);
    size_t d = problem->config.n_inputs, counted = 0;
    double sum = 0;
    for (size_t unit = 0; unit < UNITS; unit++) {
        double dot = 0, squares = 0, *active = calloc(d, sizeof *active);
        const real *dw = gradient + unit * d;
        for (size_t i = 0; i < batch->n; i++)
            for (size_t j = 0; j < d; j++)
                if (pre_activation(net, 0, batch->x + i * d, unit) > 0)
                    active[j] += batch->x[i * d + j];
        for (size_t j = 0; j < d; j++) {
            dot -= dw[j] * active[j];
            squares += active[j] * active[j];
        }
        if (squares > 0 && norm_of(dw, d) > 0) {
            sum += dot / sqrt(squares) / norm_of(dw, d);
            counted++;
        }
        free(active);
    }
    assert_in_range(counted, 1, UNITS);
    free_net(net);
    free(gradient);
    return sum / (double)counted;
}

static void direction_of_the_step(void **state) {
    (void)state;
    const struct net_config configs[] = {
        {ENCODER, ACTIVITY, OVR(OVR_RAW, 1e-3, 0)},
        {ENCODER, ACTIVITY, OVR(OVR_COSINE, 0.3, 0)},
    };
    for (size_t i = 0; i < COUNT(configs); i++) {
        const struct problem problem = {configs[i], .n = 40, .bias = -0.05};
        struct inputs in = new_inputs(&problem);
        struct gradients g = measure(&problem, &in.batch, 2);
        assert_near(g.direction, naive_direction(&problem, &in.batch), 1e-9);
        assert_true(g.direction < 0); /* away from the input */
        inputs_release(&in);
    }
    const struct problem without = {{ENCODER, ACTIVITY}, .n = 6, .bias = -0.05};
    struct inputs in = new_inputs(&without);
    assert_true(isnan(measure(&without, &in.batch, 1).direction));
    inputs_release(&in);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(encoder_raw),
        cmocka_unit_test(encoder_cosine),
        cmocka_unit_test(encoder_lambda_per_pair),
        cmocka_unit_test(encoder_without_activity),
        cmocka_unit_test(mlp_alone),
        cmocka_unit_test(mlp_with_ovr),
        cmocka_unit_test(mlp_with_activity),
        cmocka_unit_test(wide_inputs_and_large_batches),
        cmocka_unit_test(activations_of_an_encoder),
        cmocka_unit_test(activations_of_an_mlp),
        cmocka_unit_test(activations_of_an_autoencoder),
        cmocka_unit_test(autoencoder_sizes),
        cmocka_unit_test(autoencoder_denoising),
        cmocka_unit_test(autoencoder_contractive),
        cmocka_unit_test(autoencoder_kl),
        cmocka_unit_test(deep_mlp),
        cmocka_unit_test(deep_mlp_with_frozen_layers),
        cmocka_unit_test(dropout),
        cmocka_unit_test(stacked_encoder),
        cmocka_unit_test(shares_of_the_gradient),
        cmocka_unit_test(direction_of_the_step),
    };
    return cmocka_run_group_tests_name("core64/net", tests, start_blas, NULL);
}
