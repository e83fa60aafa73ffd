/* The steps beside standardisation and PCA: scaling, contrast, ZCA, and steps taken over. */
#include "core/prepared.h"
#include "tests/core/check.h"

enum { D = 7, ROWS = 401, FIT = 300 };

/* Features of different place and spread, each made of two normal numbers. */
static struct samples mixed_samples(size_t n) {
    struct samples samples = new_samples(n, D, 3, 40);
    for (size_t i = 0; i < n; i++) {
        real *row = samples.values + i * D;
        for (size_t j = 0; j < D; j++)
            row[j] = (real)(2 * (double)j - 3) + row[j] * (real)(1 + j % 3) +
                     (real)0.5 * row[(j + 1) % D];
    }
    return samples;
}

static int try_fit(struct preprocess *p, struct team *team, const struct samples *samples, size_t n,
                   const struct preprocess_step *steps, size_t n_steps, struct ovr_err *err) {
    return preprocess_fit(p, team, kernels_get(ISA_AUTO), samples, NULL, n, steps, n_steps, NULL,
                          err);
}

/* Fits on the first FIT rows and applies to all. */
static real *fit_and_apply(struct preprocess *p, const struct samples *samples, int members,
                           const struct preprocess_step *steps, size_t n_steps) {
    struct ovr_err err = {0};
    struct team *team = new_team(members);
    assert_ok(try_fit(p, team, samples, FIT, steps, n_steps, &err), &err);
    real *out = new_reals(samples->n * preprocess_width(p));
    assert_ok(preprocess_apply(p, team, samples, NULL, samples->n, out, NULL, &err), &err);
    team_free(team);
    return out;
}

static void range_of(const struct samples *s, size_t j, double *low, double *high) {
    *low = INFINITY;
    *high = -INFINITY;
    for (size_t i = 0; i < FIT; i++) {
        *low = fmin(*low, s->values[i * D + j]);
        *high = fmax(*high, s->values[i * D + j]);
    }
}

static void a_factor_multiplies(void **state) {
    (void)state;
    struct samples samples = mixed_samples(ROWS);
    const struct preprocess_step scale = {PREPROCESS_SCALE, .factor = -0.25};
    struct preprocess p;
    real *out = fit_and_apply(&p, &samples, 2, &scale, 1);
    for (size_t i = 0; i < ROWS * D; i++)
        assert_true(out[i] == samples.values[i] * (real)-0.25);
    free(out);
    preprocess_release(&p);
    samples_release(&samples);
}

static void ranges_are_filled(void **state) {
    (void)state;
    struct samples samples = mixed_samples(ROWS);
    for (int per_feature = 0; per_feature < 2; per_feature++) {
        const struct preprocess_step scale = {PREPROCESS_SCALE, .min = -2, .max = 3,
                                              .per_feature = per_feature};
        struct preprocess p;
        double low = INFINITY, high = -INFINITY, least, most;
        real *out = fit_and_apply(&p, &samples, 3, &scale, 1);
        for (size_t j = 0; j < D; j++) {
            range_of(&samples, j, &least, &most);
            low = fmin(low, least);
            high = fmax(high, most);
        }
        for (size_t j = 0; j < D; j++) {
            if (per_feature)
                range_of(&samples, j, &low, &high);
            for (size_t i = 0; i < ROWS; i++)
                assert_near(out[i * D + j],
                            -2 + 5 * (samples.values[i * D + j] - low) / (high - low), 2e-6);
        }
        free(out);
        preprocess_release(&p);
    }
    samples_release(&samples);
}

static void a_constant_becomes_the_minimum(void **state) {
    (void)state;
    struct samples samples = mixed_samples(ROWS);
    for (size_t i = 0; i < ROWS; i++)
        samples.values[i * D + 2] = 9;
    const struct preprocess_step scale = {PREPROCESS_SCALE, .min = -1, .max = 1, .per_feature = 1};
    struct preprocess p;
    real *out = fit_and_apply(&p, &samples, 1, &scale, 1);
    for (size_t i = 0; i < ROWS; i++)
        assert_true(out[i * D + 2] == -1);
    free(out);
    preprocess_release(&p);
    samples_release(&samples);
}

static void contrast_is_per_sample(void **state) {
    (void)state;
    struct samples samples = mixed_samples(ROWS);
    for (size_t j = 0; j < D; j++)
        samples.values[5 * D + j] = 4; /* a flat one */
    for (int k = 0; k < 2; k++) {
        const struct preprocess_step contrast = {PREPROCESS_CONTRAST, .epsilon = k ? 10 : 0};
        struct preprocess p;
        real *out = fit_and_apply(&p, &samples, 2, &contrast, 1);
        for (size_t i = 0; i < ROWS; i++) {
            const real *x = samples.values + i * D;
            double mean = 0, variance = 0;
            for (size_t j = 0; j < D; j++)
                mean += x[j] / (double)D;
            for (size_t j = 0; j < D; j++)
                variance += (x[j] - mean) * (x[j] - mean) / D;
            for (size_t j = 0; j < D; j++)
                assert_near(out[i * D + j],
                            i == 5 ? 0 : (x[j] - mean) / sqrt(variance + contrast.epsilon), 1e-5);
        }
        free(out);
        preprocess_release(&p);
    }
    samples_release(&samples);
}

/* What makes W the matrix of ZCA: it is symmetric and W (C + εI) W = I. */
static void zca_whitens_and_turns_back(void **state) {
    (void)state;
    struct samples samples = mixed_samples(ROWS);
    const struct preprocess_step zca = {PREPROCESS_ZCA, .epsilon = 0.1};
    struct preprocess p;
    real *out = fit_and_apply(&p, &samples, 2, &zca, 1);
    const real *w = p.steps[0].components;
    double mean[D] = {0}, c[D][D], wc[D][D];
    assert_int_equal(preprocess_width(&p), D);
    for (size_t i = 0; i < FIT; i++)
        for (size_t j = 0; j < D; j++)
            mean[j] += samples.values[i * D + j] / (double)FIT;
    for (size_t j = 0; j < D; j++)
        for (size_t k = 0; k < D; k++) {
            c[j][k] = j == k ? 0.1 : 0;
            for (size_t i = 0; i < FIT; i++)
                c[j][k] += (samples.values[i * D + j] - mean[j]) *
                           (samples.values[i * D + k] - mean[k]) / (FIT - 1);
        }
    for (size_t j = 0; j < D; j++)
        for (size_t k = 0; k < D; k++) {
            wc[j][k] = 0;
            for (size_t l = 0; l < D; l++)
                wc[j][k] += w[j * D + l] * c[l][k];
        }
    for (size_t j = 0; j < D; j++)
        for (size_t k = 0; k < D; k++) {
            double identity = 0;
            for (size_t l = 0; l < D; l++)
                identity += wc[j][l] * w[l * D + k];
            assert_near(identity, j == k, 1e-4);
            assert_near(w[j * D + k], w[k * D + j], 1e-6);
        }
    for (size_t i = 0; i < ROWS; i += 17)
        for (size_t j = 0; j < D; j++) {
            double expected = 0;
            for (size_t k = 0; k < D; k++)
                expected += w[j * D + k] * (samples.values[i * D + k] - mean[k]);
            assert_near(out[i * D + j], expected, 1e-4);
        }
    free(out);
    preprocess_release(&p);
    samples_release(&samples);
}

static void zca_needs_enough_samples(void **state) {
    (void)state;
    struct samples samples = mixed_samples(D - 1);
    const struct preprocess_step zca = {PREPROCESS_ZCA, .epsilon = 0.1};
    struct team *team = new_team(1);
    struct preprocess p;
    struct ovr_err err = {0};
    assert_failed(try_fit(&p, team, &samples, D - 1, &zca, 1, &err), OVR_INVALID, &err,
                  "at least as many training samples");
    preprocess_release(&p);
    team_free(team);
    samples_release(&samples);
}

static const struct preprocess_step all[] = {{PREPROCESS_SCALE, .min = 0, .max = 1},
                                             {PREPROCESS_CONTRAST, .epsilon = 0.01},
                                             {PREPROCESS_ZCA, .epsilon = 0.1},
                                             {PREPROCESS_STANDARDIZE},
                                             {PREPROCESS_PCA, .components = 4, .whiten = 1}};

static void same_bits_for_any_team(void **state) {
    (void)state;
    struct samples samples = mixed_samples(ROWS);
    struct preprocess p;
    real *first = fit_and_apply(&p, &samples, 1, all, COUNT(all));
    preprocess_release(&p);
    for (size_t i = 0; i < COUNT(TEAM_SIZES); i++) {
        real *out = fit_and_apply(&p, &samples, TEAM_SIZES[i], all, COUNT(all));
        assert_memory_equal(out, first, ROWS * 4 * sizeof *out);
        free(out);
        preprocess_release(&p);
    }
    free(first);
    samples_release(&samples);
}

/* Fitted on other data, taken over: the same rows come out as with the steps themselves, whatever
 * the new data are like. */
static void steps_are_taken_over(void **state) {
    (void)state;
    struct samples samples = mixed_samples(ROWS), other = new_samples(ROWS, D, 3, 50);
    struct preprocess fitted, p;
    free(fit_and_apply(&fitted, &samples, 1, all, COUNT(all)));
    struct team *team = new_team(2);
    struct ovr_err err = {0};
    real *wanted = new_reals(ROWS * 4);
    assert_ok(preprocess_apply(&fitted, team, &other, NULL, ROWS, wanted, NULL, &err), &err);
    const struct preprocess_step steps[] = {{PREPROCESS_FITTED, .fitted = &fitted},
                                            {PREPROCESS_SCALE, .factor = 2}};
    real *out = fit_and_apply(&p, &other, 2, steps, 2);
    assert_int_equal(p.n_steps, COUNT(all) + 1);
    for (size_t i = 0; i < ROWS * 4; i++)
        assert_true(out[i] == 2 * wanted[i]);
    preprocess_release(&p);
    struct samples narrow = new_samples(ROWS, D - 1, 3, 50);
    assert_failed(try_fit(&p, team, &narrow, ROWS, steps, 1, &err), OVR_INVALID, &err,
                  "fitted to 7 values");
    preprocess_release(&p);
    const struct preprocess_step twice[] = {steps[0], {PREPROCESS_FITTED, .fitted = &p}};
    struct samples four = new_samples(ROWS, 4, 3, 51);
    struct preprocess many;
    err = (struct ovr_err){0};
    const struct preprocess_step five[] = {[0 ... 4] = {PREPROCESS_SCALE, .factor = 1}};
    free(fit_and_apply(&p, &four, 1, five, COUNT(five)));
    assert_failed(try_fit(&many, team, &other, ROWS, twice, 2, &err), OVR_INVALID, &err,
                  "more than 8 steps");
    preprocess_release(&many);
    preprocess_release(&p);
    preprocess_release(&fitted);
    free(out);
    free(wanted);
    team_free(team);
    samples_release(&samples);
    samples_release(&other);
    samples_release(&narrow);
    samples_release(&four);
}

/* A block of prepared data holds these steps too, as large as was announced. */
static void blocks_hold_them(void **state) {
    (void)state;
    struct samples samples = mixed_samples(ROWS);
    struct preprocess fitted;
    free(fit_and_apply(&fitted, &samples, 1, all, COUNT(all)));
    struct prepare_config config = {
        .protocol = PROTOCOL_PUBLISHED,
        .preprocess = {{PREPROCESS_FITTED, .fitted = &fitted}, {PREPROCESS_CONTRAST, .epsilon = 1}},
        .n_preprocess = 2};
    struct team *team = new_team(1);
    struct prepared *p;
    struct ovr_err err = {0};
    assert_ok(prepared_build(&p, &config, 1, &samples, &samples, team, kernels_get(ISA_AUTO), -1,
                             NULL, &err),
              &err);
    assert_int_equal(p->bytes, prepared_bytes(&config, ROWS, ROWS, D, 0));
    assert_int_equal(p->n_inputs, 4);
    real *again = new_reals(ROWS * 4);
    assert_ok(preprocess_apply(&p->preprocess, team, &samples, NULL, ROWS, again, NULL, &err),
              &err);
    assert_memory_equal(again, p->train.x, ROWS * 4 * sizeof *again);
    free(again);
    prepared_free(p);
    team_free(team);
    preprocess_release(&fitted);
    samples_release(&samples);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_factor_multiplies),
        cmocka_unit_test(ranges_are_filled),
        cmocka_unit_test(a_constant_becomes_the_minimum),
        cmocka_unit_test(contrast_is_per_sample),
        cmocka_unit_test(zca_whitens_and_turns_back),
        cmocka_unit_test(zca_needs_enough_samples),
        cmocka_unit_test(same_bits_for_any_team),
        cmocka_unit_test(steps_are_taken_over),
        cmocka_unit_test(blocks_hold_them),
    };
    return cmocka_run_group_tests_name("core/steps", tests, start_blas, NULL);
}
