/* Back through fitted steps: what went through them comes back. */
#include "core/inverse.h"
#include "core/rng.h"
#include "tests/core/check.h"

#include <math.h>
#include <stdlib.h>

enum { N = 60, D = 7, SHOWN = 5 };

static struct samples make_samples(void) {
    struct samples samples = {.n = N, .d = D, .values = ovr_malloc(N * D, sizeof(real))};
    struct rng rng;
    rng_init(&rng, 3, RNG_INIT, 0, 0);
    for (size_t i = 0; i < N * D; i++)
        samples.values[i] =
            (real)(rng_normal(&rng) * (1 + (double)(i % D)) + 10. * (double)(i % D));
    for (size_t i = 0; i < N; i++)
        samples.values[i * D + 1] += samples.values[i * D]; /* some correlation */
    return samples;
}

/* The largest difference between points and what comes back, relative to `scale`. */
static double round_trip(const struct preprocess_step *steps, size_t n_steps) {
    struct samples samples = make_samples();
    struct preprocess fitted;
    struct team *team;
    struct ovr_err err = {0};
    real there[N * D], back[N * D];
    double worst = 0;
    assert_int_equal(team_new(&team, 1, &err), 0);
    assert_int_equal(preprocess_fit(&fitted, team, kernels_get(ISA_AUTO), &samples, NULL, N, steps,
                                    n_steps, NULL, &err),
                     0);
    assert_int_equal(preprocess_apply(&fitted, team, &samples, NULL, SHOWN, there, NULL, &err), 0);
    assert_int_equal(preprocess_invert(&fitted, 1, there, SHOWN, back, &err), 0);
    for (size_t i = 0; i < SHOWN * D; i++)
        worst = fmax(worst, fabs((double)back[i] - (double)samples.values[i]));
    /* A direction is the difference of two points. */
    real a[D], difference[D], direction[D];
    size_t width = preprocess_width(&fitted);
    for (size_t j = 0; j < width; j++)
        difference[j] = there[j] - there[width + j];
    assert_int_equal(preprocess_invert(&fitted, 0, difference, 1, direction, &err), 0);
    for (size_t j = 0; j < D; j++) {
        a[j] = back[j] - back[D + j];
        worst = fmax(worst, fabs((double)a[j] - (double)direction[j]));
    }
    preprocess_release(&fitted);
    team_free(team);
    samples_release(&samples);
    return worst;
}

static void test_steps_come_back(void **state) {
    (void)state;
    const struct preprocess_step standardize = {.kind = PREPROCESS_STANDARDIZE};
    const struct preprocess_step scale = {
        .kind = PREPROCESS_SCALE, .min = -1, .max = 2, .per_feature = 1};
    const struct preprocess_step pca = {.kind = PREPROCESS_PCA, .components = D};
    const struct preprocess_step white = {.kind = PREPROCESS_PCA, .components = D, .whiten = 1};
    const struct preprocess_step zca = {.kind = PREPROCESS_ZCA, .epsilon = 0.1};
    const struct preprocess_step chains[][3] = {
        {standardize},     {scale}, {pca}, {white}, {zca}, {scale, zca, standardize},
        {standardize, pca}};
    const size_t lengths[] = {1, 1, 1, 1, 1, 3, 2};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++)
        assert_true(round_trip(chains[i], lengths[i]) < 1e-3);
    assert_true(round_trip(NULL, 0) == 0);
    /* What lies off the axes is lost. */
    const struct preprocess_step few = {.kind = PREPROCESS_PCA, .components = 2};
    double lost = round_trip(&few, 1);
    assert_true(lost > 0.5 && lost < 40);
}

static void test_what_has_no_inverse(void **state) {
    (void)state;
    real mean[2] = {5, 6}, scale[2] = {0, 4}, row[2] = {3, 8}, back[2];
    struct ovr_err err = {0};
    struct preprocess steps = {
        .n_steps = 2,
        .n_in = 2,
        .steps = {{.kind = PREPROCESS_SCALE, .n_in = 2, .n_out = 2, .mean = mean, .scale = scale},
                  {.kind = PREPROCESS_CONTRAST, .n_in = 2, .n_out = 2, .epsilon = 1}}};
    assert_int_equal(preprocess_invert(&steps, 0, row, 1, back, &err), 0);
    assert_true(back[0] == 0 && back[1] == 2);
    assert_int_equal(preprocess_invert(&steps, 1, row, 1, back, &err), 0);
    assert_true(back[0] == 5 && back[1] == 8);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_steps_come_back),
        cmocka_unit_test(test_what_has_no_inverse),
    };
    return cmocka_run_group_tests_name("inverse", tests, NULL, NULL);
}
