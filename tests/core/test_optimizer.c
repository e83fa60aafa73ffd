/* Optimisers and schedules against golden numbers of tests/golden/optimizer.py, which PyTorch's
 * optimisers give as well. */
#include "core/optimizer.h"
#include "tests/core/check.h"

enum { STEPS = 5 };

static const double gradients[STEPS] = {0.5, -0.25, 0.125, 2.0, 0.0};

/* All elements of a run of weights take the same steps, in the vectors and in the ragged end. */
static void check_level(const struct kernels *kernels, const struct optimizer_config *config,
                        const double *expected) {
    enum { N = 37 };
    real weight[N], gradient[N], moment[2][N] = {{0}};
    size_t moments = optimizer_moments(config);
    for (size_t i = 0; i < N; i++)
        weight[i] = 1;
    for (uint64_t t = 1; t <= STEPS; t++) {
        struct update update = optimizer_update(config, config->learning_rate, t);
        for (size_t i = 0; i < N; i++)
            gradient[i] = (real)gradients[t - 1];
        kernels->update(&update, N, weight, gradient, moments > 0 ? moment[0] : NULL,
                        moments > 1 ? moment[1] : NULL);
        for (size_t i = 0; i < N; i++)
            assert_near(weight[i], expected[t - 1], 1e-6);
    }
}

static void check_steps(const struct optimizer_config *config, const double *expected) {
    const enum isa levels[] = {ISA_BASELINE, ISA_AVX2, ISA_AVX512};
    for (size_t i = 0; i < COUNT(levels); i++)
        if (kernels_get(levels[i]))
            check_level(kernels_get(levels[i]), config, expected);
}

static void adam_steps(void **state) {
    (void)state;
    struct optimizer_config config = {OPT_ADAM, 0.1, 0.9, 0.999, 1e-7, 0, 0};
    check_steps(&config, (double[]){0.90000002, 0.873366322773, 0.839323418249, 0.775782611973,
                                    0.72207614222});
    config.epsilon = 0.5; /* added to the corrected root, not inside it */
    check_steps(&config,
                (double[]){0.95, 0.938241714303, 0.924691747252, 0.881769275992, 0.846831325477});
}

static void adamw_steps(void **state) {
    (void)state;
    const struct optimizer_config config = {OPT_ADAMW, 0.1, 0.9, 0.999, 1e-7, .weight_decay = 0.5};
    check_steps(&config, (double[]){0.85000002, 0.780866321773, 0.707780101161, 0.608850289827,
                                    0.524701305582});
}

static void adam_knows_no_decay(void **state) {
    (void)state;
    const struct optimizer_config config = {.name = OPT_ADAM, .weight_decay = 0.5};
    assert_true(optimizer_update(&config, 0.1, 1).keep == 1);
}

static void decay_goes_with_the_rate(void **state) {
    (void)state;
    const struct optimizer_config config = {.name = OPT_ADAMW, .weight_decay = 0.5};
    assert_near(optimizer_update(&config, 0.1, 1).keep, 0.95, 1e-7);
    assert_near(optimizer_update(&config, 0.01, 7).keep, 0.995, 1e-7);
}

static void rmsprop_steps(void **state) {
    (void)state;
    struct optimizer_config config = {OPT_RMSPROP, 0.1, .epsilon = 1e-7, .rho = 0.9};
    check_steps(&config, (double[]){0.683772433983, 0.831214303181, 0.75575070968, 0.448854168272,
                                    0.448854168272});
    config.momentum = 0.9;
    check_steps(&config, (double[]){0.683772433983, 0.546609493766, 0.34769925407, -0.138216503065,
                                    -0.575540684486});
    config = (struct optimizer_config){OPT_RMSPROP, 0.1, .epsilon = 0.5, .rho = 0.5};
    check_steps(&config, (double[]){0.941421356237, 0.972431561382, 0.955398190929, 0.851439885875,
                                    0.851439885875});
}

static void sgd_steps(void **state) {
    (void)state;
    const struct optimizer_config config = {.name = OPT_SGD, .learning_rate = 0.1};
    check_steps(&config, (double[]){0.95, 0.975, 0.9625, 0.7625, 0.7625});
}

static void momentum_steps(void **state) {
    (void)state;
    struct optimizer_config config = {.name = OPT_SGD, .learning_rate = 0.1, .momentum = 0.9};
    check_steps(&config, (double[]){0.95, 0.93, 0.8995, 0.67205, 0.467345});
    config.nesterov = 1;
    check_steps(&config, (double[]){0.905, 0.912, 0.87205, 0.467345, 0.2831105});
}

static void rate_is_the_schedules(void **state) {
    (void)state;
    const struct optimizer_config config = {.name = OPT_SGD, .learning_rate = 0.1};
    assert_near(optimizer_update(&config, 0.01, 3).rate, 0.01, 1e-9);
}

static void moments(void **state) {
    (void)state;
    const struct {
        enum optimizer name;
        double momentum;
        size_t moments;
    } cases[] = {{OPT_ADAM, 0, 2},  {OPT_ADAMW, 0, 2},   {OPT_SGD, 0, 0},
                 {OPT_SGD, 0.9, 1}, {OPT_RMSPROP, 0, 1}, {OPT_RMSPROP, 0.9, 2}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct optimizer_config config = {.name = cases[i].name, .momentum = cases[i].momentum};
        assert_int_equal(optimizer_moments(&config), cases[i].moments);
    }
}

static const struct schedule_config published = {SCHEDULE_PLATEAU, 0.1, 1e-6, 1e-4, 5};

/* The rate after each of the losses. */
static void check_schedule(const struct schedule_config *config, double rate, size_t n,
                           const double *losses, const double *rates) {
    struct schedule_state state;
    schedule_start(config, &state, rate);
    for (size_t i = 0; i < n; i++) {
        schedule_step(config, &state, losses[i]);
        assert_relative(state.learning_rate, rates[i], 1e-9);
    }
}

/* The rate in each epoch of a schedule that looks at no loss. */
static void check_rates(const struct schedule_config *config, double rate, size_t n,
                        const double *rates) {
    struct schedule_state state;
    schedule_start(config, &state, rate);
    for (size_t i = 0; i < n; i++) {
        assert_relative(state.learning_rate, rates[i], 1e-9);
        schedule_step(config, &state, i % 2 ? 1 : NAN);
    }
}

static void plateau_cuts_after_patience(void **state) {
    (void)state;
    /* The first loss is an improvement; the fifth epoch in a row without one cuts. The wait starts
     * anew, and what is no better than the best of before the cut is no improvement. */
    const double losses[] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0.5};
    const double rates[] = {1, 1, 1, 1, 1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01};
    check_schedule(&published, 1, COUNT(losses), losses, rates);
}

static void plateau_needs_more_than_min_delta(void **state) {
    (void)state;
    /* Small gains do not count, nor does their sum until it exceeds min_delta: it is measured from
     * the best. */
    const double slow[] = {1, 0.99996, 0.99994, 0.99993, 0.99992, 0.99991};
    const double slow_rates[] = {1, 1, 1, 1, 1, 0.1};
    check_schedule(&published, 1, COUNT(slow), slow, slow_rates);
    const double enough[] = {1, 0.99996, 0.99994, 0.99993, 0.99989, 0.9998, 0.9998, 0.9998, 0.9998};
    const double enough_rates[] = {1, 1, 1, 1, 1, 1, 1, 1, 1};
    check_schedule(&published, 1, COUNT(enough), enough, enough_rates);
}

static void plateau_stops_at_the_floor(void **state) {
    (void)state;
    const struct schedule_config config = {SCHEDULE_PLATEAU, 0.1, 1e-3, 0, 1};
    const double losses[] = {1, 1, 1, 1, 1, 1};
    const double rates[] = {0.25, 0.025, 0.0025, 0.001, 0.001, 0.001};
    check_schedule(&config, 0.25, COUNT(losses), losses, rates);
    /* A rate that began below the floor is not raised to it. */
    const double low[] = {1e-4, 1e-4, 1e-4, 1e-4, 1e-4, 1e-4};
    check_schedule(&config, 1e-4, COUNT(losses), losses, low);
}

static void constant_never_changes(void **state) {
    (void)state;
    const struct schedule_config config = {.name = SCHEDULE_CONSTANT};
    const double losses[] = {1, 2, 3, 4, 5, 6, 7};
    const double rates[] = {3, 3, 3, 3, 3, 3, 3};
    check_schedule(&config, 3, COUNT(losses), losses, rates);
}

static void step_cuts_every_so_many_epochs(void **state) {
    (void)state;
    const struct schedule_config config = {.name = SCHEDULE_STEP, .factor = 0.5, .every = 2};
    const double rates[] = {1, 1, 0.5, 0.5, 0.25, 0.25, 0.125};
    check_rates(&config, 1, COUNT(rates), rates);
}

static void cosine_falls_to_its_end(void **state) {
    (void)state;
    struct schedule_config config = {.name = SCHEDULE_COSINE, .min = 0.1, .epochs = 6};
    const double rates[] = {1, 0.939711431703, 0.775, 0.55, 0.325, 0.160288568297, 0.1};
    check_rates(&config, 1, COUNT(rates), rates);
    config.warmup = 2;
    const double warm[] = {1 / 3.0, 2 / 3.0, 1, 0.868198051534, 0.55, 0.231801948466, 0.1};
    check_rates(&config, 1, COUNT(warm), warm);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(adam_steps),
        cmocka_unit_test(adamw_steps),
        cmocka_unit_test(adam_knows_no_decay),
        cmocka_unit_test(decay_goes_with_the_rate),
        cmocka_unit_test(rmsprop_steps),
        cmocka_unit_test(sgd_steps),
        cmocka_unit_test(momentum_steps),
        cmocka_unit_test(rate_is_the_schedules),
        cmocka_unit_test(moments),
        cmocka_unit_test(plateau_cuts_after_patience),
        cmocka_unit_test(plateau_needs_more_than_min_delta),
        cmocka_unit_test(plateau_stops_at_the_floor),
        cmocka_unit_test(constant_never_changes),
        cmocka_unit_test(step_cuts_every_so_many_epochs),
        cmocka_unit_test(cosine_falls_to_its_end),
    };
    return cmocka_run_group_tests_name("core/optimizer", tests, NULL, NULL);
}
