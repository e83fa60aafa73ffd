/* The layers' gradients by finite differences, in float64, through the training code itself: a step
 * of plain SGD at rate 1 moves the weights by minus the gradient. */
#include "tests/core/check.h"

/* A smaller step drowns in the rounding of J, a larger one in the curvature: both stay below 3e-7.
 */
static const double STEP = 1e-4, RELATIVE_ERROR = 1e-6;

enum { UNITS = 300, CLASSES = 3 }; /* three shards, the last one ragged */

struct problem {
    struct net_config config;
    size_t n;    /* samples */
    double bias; /* about where biases are; below 0 a sample of zeros has an empty code */
    size_t step; /* every which parameter is checked */
};

struct pass {
    struct net *net;
    struct batch batch;
    struct terms terms;
    int train;
};

static void pass_work(struct member *member, void *arg) {
    struct pass *pass = arg;
    struct terms terms = net_forward(member, pass->net, &pass->batch);
    const struct update plain = {.rule = UPDATE_SGD, .rate = 1};
    if (pass->train)
        net_backward(member, pass->net, &pass->batch, &plain);
    if (member->rank == 0)
        pass->terms = terms;
}

static double loss_of(struct team *team, struct pass *pass) {
    pass->train = 0;
    team_run(team, pass_work, pass);
    return pass->terms.loss / pass->terms.samples;
}

static double pre_activation(const struct net *net, const real *x, size_t unit) {
    size_t d = net->config.n_inputs;
    double a = net_bias(net, 0)[unit];
    for (size_t j = 0; j < d; j++)
        a += net_weight(net, 0)[unit * d + j] * x[j];
    return a;
}

/* Lowers biases until no pre-activation is so near to the kink of relu that a finite difference
 * could step over it. */
static void leave_kinks(struct net *net, const struct batch *batch) {
    for (size_t unit = 0; unit < UNITS; unit++)
        for (size_t i = 0; i < batch->n; i++)
            if (fabs(pre_activation(net, batch->x + i * net->config.n_inputs, unit)) < 1e-3) {
                net_bias(net, 0)[unit] -= 3e-3;
                i = SIZE_MAX; /* all rows again */
            }
}

static struct net *new_random_net(const struct problem *problem, const struct batch *batch,
                                  int members) {
    struct net *net = new_net(&problem->config, 0, batch->n, members);
    real *random = new_normal(net->n_params, 10);
    for (size_t i = 0; i < net->n_params; i++)
        net->params[i] = random[i] / 2;
    for (size_t unit = 0; unit < UNITS; unit++)
        net_bias(net, 0)[unit] = problem->bias - fabs(random[unit]) / 10;
    leave_kinks(net, batch);
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

/* Parameters of one part (W, b, V or c); one is measured against itself and the part's mean. */
static void check_part(struct team *team, struct pass *pass, const real *gradient, const char *name,
                       size_t first, size_t n, size_t step) {
    double mean = 0;
    for (size_t i = first; i < first + n; i++)
        mean += fabs(gradient[i]) / (double)n;
    for (size_t i = first; i < first + n; i += step) {
        double slope = numeric_slope(team, pass, &pass->net->params[i]);
        if (fabs(gradient[i] - slope) <= RELATIVE_ERROR * (fabs(slope) + mean) + 1e-10)
            continue;
        print_error("gradient of %s[%zu] is %.12g, not %.12g\n", name, i - first, gradient[i],
                    slope);
        fail();
    }
}

static void check_problem(const struct problem *problem) {
    size_t n = problem->n, d = problem->config.n_inputs, step = problem->step;
    real *x = new_normal(n * d, 11);
    uint16_t *labels = new_labels(n, CLASSES, 12);
    if (n > 2)
        memset(x + d, 0, d * sizeof *x); /* sample 1 */
    struct batch batch = {.x = x, .labels = labels, .n = n, .group = n};
    real *gradient = gradient_by_training(problem, &batch, 1);
    real *of_three = gradient_by_training(problem, &batch, 3);
    struct team *team = new_team(1);
    struct pass pass = {.net = new_random_net(problem, &batch, 1), .batch = batch};
    size_t n_head = pass.net->width * UNITS;

    assert_memory_equal(gradient, of_three, pass.net->n_params * sizeof *gradient);
    loss_of(team, &pass);
    assert_int_equal(pass.terms.zero_codes, n > 2 && problem->bias < 0);
    check_part(team, &pass, gradient, "W", 0, UNITS * d, step);
    check_part(team, &pass, gradient, "b", UNITS * d, UNITS, step);
    check_part(team, &pass, gradient, "V", UNITS * (d + 1), n_head, step);
    check_part(team, &pass, gradient, "c", UNITS * (d + 1) + n_head, pass.net->width, 1);

    free_net(pass.net);
    team_free(team);
    free(gradient);
    free(of_three);
    free(x);
    free(labels);
}

/* All parameters, with about half of the activations 0. */
static void check_gradient(const struct net_config *config, size_t n) {
    check_problem(&(struct problem){.config = *config, .n = n, .bias = -0.05, .step = 1});
}

#define ENCODER .n_inputs = 5, .n_layers = 1, .units = {UNITS}
#define MLP ENCODER, .n_classes = CLASSES
#define ACTIVITY .activity = 1, .activity_target = 0.5
#define OVR(kind, weight, pair) .ovr = {.form = kind, .lambda = weight, .per_pair = pair}

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
    };
    return cmocka_run_group_tests_name("core64/net", tests, start_blas, NULL);
}
