/* Standardisation and PCA against a cyclic Jacobi eigen-solver in plain float64 loops. */
#include "core/preprocess.h"
#include "tests/core/check.h"

enum { D = 12, ROWS = 700 }; /* more than one block of rows, the last one ragged */

/* Correlated features of very different spread and place, so that the axes are far from degenerate.
 */
static struct samples correlated_samples(size_t n, size_t d) {
    struct samples samples = new_samples(n, d, 0, 20);
    real *mix = new_normal(d * d, 21), *raw = new_reals(d);
    for (size_t i = 0; i < n; i++) {
        real *row = samples.values + i * d;
        memcpy(raw, row, d * sizeof *raw);
        for (size_t j = 0; j < d; j++) {
            row[j] = (real)(3 * (double)j - 5);
            for (size_t k = 0; k < d; k++)
                row[j] += mix[j * d + k] * raw[k] * (real)pow(1.6, (double)(d - k)) / 8;
        }
    }
    free(mix);
    free(raw);
    return samples;
}

/* Every third row, from the last one down: the rows that the fits below may look at. */
static size_t every_third(size_t n, uint32_t *rows) {
    size_t count = 0;
    for (size_t i = n; i-- > 0;)
        if (i % 3 == 1)
            rows[count++] = (uint32_t)i;
    return count;
}

static double naive_mean(const struct samples *s, const uint32_t *rows, size_t n, size_t j) {
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += s->values[rows[i] * s->d + j];
    return sum / (double)n;
}

/* Σ (x_j − μ_j)(x_k − μ_k) over the listed rows */
static double naive_product(const struct samples *s, const uint32_t *rows, size_t n, size_t j,
                            size_t k) {
    double sum = 0, mean_j = naive_mean(s, rows, n, j), mean_k = naive_mean(s, rows, n, k);
    for (size_t i = 0; i < n; i++) {
        const real *row = s->values + rows[i] * s->d;
        sum += (row[j] - mean_j) * (row[k] - mean_k);
    }
    return sum;
}

static void rotate(double *a, size_t n, size_t p, size_t q, double c, double s, int rows) {
    size_t step = rows ? 1 : n, across = rows ? n : 1;
    for (size_t i = 0; i < n; i++) {
        double x = a[p * across + i * step], y = a[q * across + i * step];
        a[p * across + i * step] = c * x - s * y;
        a[q * across + i * step] = s * x + c * y;
    }
}

/* Cyclic Jacobi: `a` becomes diagonal, the rows of `vectors` its eigenvectors, both in falling
 * order. */
static void jacobi(double *a, size_t n, double *values, double *vectors) {
    for (size_t i = 0; i < n * n; i++)
        vectors[i] = i % (n + 1) == 0;
    for (int sweep = 0; sweep < 60; sweep++)
        for (size_t p = 0; p < n; p++)
            for (size_t q = p + 1; q < n; q++) {
                double angle = 0.5 * atan2(2 * a[p * n + q], a[q * n + q] - a[p * n + p]);
                rotate(a, n, p, q, cos(angle), sin(angle), 1);
                rotate(a, n, p, q, cos(angle), sin(angle), 0);
                rotate(vectors, n, p, q, cos(angle), sin(angle), 1);
            }
    for (size_t i = 0; i < n; i++) {
        size_t largest = i;
        for (size_t j = i; j < n; j++)
            if (a[j * n + j] > a[largest * n + largest])
                largest = j;
        values[i] = a[largest * n + largest];
        a[largest * n + largest] = a[i * n + i];
        for (size_t k = 0; k < n; k++) {
            double swap = vectors[i * n + k];
            vectors[i * n + k] = vectors[largest * n + k];
            vectors[largest * n + k] = swap;
        }
    }
}

/* Principal axes of the listed rows; each axis' largest coefficient is positive. */
static void naive_pca(const struct samples *s, const uint32_t *rows, size_t n, double *values,
                      double *axes) {
    size_t d = s->d;
    double *covariance = malloc(d * d * sizeof *covariance);
    for (size_t j = 0; j < d; j++)
        for (size_t k = 0; k < d; k++)
            covariance[j * d + k] = naive_product(s, rows, n, j, k) / (double)(n - 1);
    jacobi(covariance, d, values, axes);
    free(covariance);
    for (size_t k = 0; k < d; k++) {
        double *axis = axes + k * d, largest = 0;
        for (size_t j = 0; j < d; j++)
            largest = fabs(axis[j]) > fabs(largest) ? axis[j] : largest;
        for (size_t j = 0; largest < 0 && j < d; j++)
            axis[j] = -axis[j];
    }
}

static struct preprocess fit(struct team *team, const struct samples *samples, const uint32_t *rows,
                             size_t n, const struct preprocess_step *steps, size_t n_steps) {
    struct ovr_err err = {0};
    struct preprocess preprocess;
    assert_ok(preprocess_fit(&preprocess, team, kernels_get(ISA_AUTO), samples, rows, n, steps,
                             n_steps, NULL, &err),
              &err);
    return preprocess;
}

static real *apply(const struct preprocess *preprocess, struct team *team,
                   const struct samples *samples, const uint32_t *rows, size_t n) {
    struct ovr_err err = {0};
    real *out = new_reals(n * preprocess_width(preprocess));
    assert_ok(preprocess_apply(preprocess, team, samples, rows, n, out, NULL, &err), &err);
    return out;
}

static const struct preprocess_step standardize = {.kind = PREPROCESS_STANDARDIZE};

static void standardize_listed_rows(void **state) {
    (void)state;
    struct team *team = new_team(2);
    struct samples samples = correlated_samples(ROWS, D);
    uint32_t rows[ROWS];
    size_t n = every_third(ROWS, rows);
    struct preprocess p = fit(team, &samples, rows, n, &standardize, 1);
    real *out = apply(&p, team, &samples, NULL, ROWS);
    assert_int_equal(preprocess_width(&p), D);
    for (size_t j = 0; j < D; j++) {
        double mean = naive_mean(&samples, rows, n, j);
        double deviation = sqrt(naive_product(&samples, rows, n, j, j) / (double)n);
        for (size_t i = 0; i < ROWS; i++)
            assert_near(out[i * D + j], (samples.values[i * D + j] - mean) / deviation, 1e-4);
    }
    free(out);
    preprocess_release(&p);
    samples_release(&samples);
    team_free(team);
}

static void constant_feature_stays_finite(void **state) {
    (void)state;
    struct team *team = new_team(1);
    struct samples samples = new_samples(601, 2, 0, 22);
    for (size_t i = 0; i < samples.n; i++)
        samples.values[2 * i] = (real)0.1f;
    struct preprocess p = fit(team, &samples, NULL, 600, &standardize, 1);
    samples.values[2 * 600] = 3; /* not among the rows of the fit */
    real *out = apply(&p, team, &samples, NULL, 601);
    assert_true(p.steps[0].scale[0] == 1);
    for (size_t i = 0; i < 600; i++)
        assert_true(out[2 * i] == 0);
    assert_near(out[2 * 600], 2.9, 1e-6);
    free(out);
    preprocess_release(&p);
    samples_release(&samples);
    team_free(team);
}

static void check_pca(int whiten) {
    enum { K = 7 };
    struct team *team = new_team(2);
    struct samples samples = correlated_samples(ROWS, D);
    uint32_t rows[ROWS];
    double values[D], axes[D * D];
    size_t n = every_third(ROWS, rows);
    const struct preprocess_step pca = {PREPROCESS_PCA, .components = K, .whiten = whiten};
    struct preprocess p = fit(team, &samples, rows, n, &pca, 1);
    real *out = apply(&p, team, &samples, NULL, ROWS);
    naive_pca(&samples, rows, n, values, axes);
    assert_int_equal(preprocess_width(&p), K);
    for (size_t k = 0; k < K; k++) {
        double divisor = whiten ? sqrt(values[k]) : 1;
        assert_relative(p.steps[0].variance[k], values[k], 1e-4);
        for (size_t j = 0; j < D; j++)
            assert_near(p.steps[0].components[k * D + j], axes[k * D + j] / divisor,
                        1e-3 / divisor);
    }
    for (size_t i = 0; i < ROWS; i += 37) /* the rows of the fit and others */
        for (size_t k = 0; k < K; k++) {
            double expected = 0;
            for (size_t j = 0; j < D; j++)
                expected += axes[k * D + j] *
                            (samples.values[i * D + j] - naive_mean(&samples, rows, n, j));
            expected /= whiten ? sqrt(values[k]) : 1;
            assert_near(out[i * K + k], expected, whiten ? 1e-3 : 1e-3 * sqrt(values[0]));
        }
    free(out);
    preprocess_release(&p);
    samples_release(&samples);
    team_free(team);
}

static void pca_equals_jacobi(void **state) {
    (void)state;
    check_pca(0);
}

static void whitened_pca_equals_jacobi(void **state) {
    (void)state;
    check_pca(1);
}

static void whitened_codes_have_unit_covariance(void **state) {
    (void)state;
    struct team *team = new_team(1);
    struct samples samples = correlated_samples(ROWS, D);
    uint32_t all[ROWS];
    for (uint32_t i = 0; i < ROWS; i++)
        all[i] = i;
    const struct preprocess_step pca = {PREPROCESS_PCA, .components = 5, .whiten = 1};
    struct preprocess p = fit(team, &samples, NULL, ROWS, &pca, 1);
    struct samples code = {.n = ROWS, .d = 5, .values = apply(&p, team, &samples, NULL, ROWS)};
    for (size_t j = 0; j < 5; j++)
        for (size_t k = 0; k < 5; k++)
            assert_near(naive_product(&code, all, ROWS, j, k) / (ROWS - 1), j == k, 1e-3);
    preprocess_release(&p);
    samples_release(&code);
    samples_release(&samples);
    team_free(team);
}

static void other_rows_do_not_matter(void **state) {
    (void)state;
    const struct preprocess_step steps[] = {standardize, {PREPROCESS_PCA, .components = 4}};
    struct team *team = new_team(2);
    struct samples samples = correlated_samples(ROWS, D);
    uint32_t rows[ROWS];
    size_t n = every_third(ROWS, rows);
    struct preprocess before = fit(team, &samples, rows, n, steps, 2);
    for (size_t i = 0; i < ROWS; i++)
        for (size_t j = 0; i % 3 != 1 && j < D; j++)
            samples.values[i * D + j] = (real)NAN;
    struct preprocess after = fit(team, &samples, rows, n, steps, 2);
    assert_memory_equal(before.steps[0].mean, after.steps[0].mean, D * sizeof(real));
    assert_memory_equal(before.steps[0].scale, after.steps[0].scale, D * sizeof(real));
    assert_memory_equal(before.steps[1].components, after.steps[1].components,
                        4 * D * sizeof(real));
    preprocess_release(&before);
    preprocess_release(&after);
    samples_release(&samples);
    team_free(team);
}

static void variance_share_picks_fewest_components(void **state) {
    (void)state;
    struct team *team = new_team(1);
    struct samples samples = correlated_samples(ROWS, D);
    uint32_t all[ROWS];
    double values[D], axes[D * D], total = 0;
    for (uint32_t i = 0; i < ROWS; i++)
        all[i] = i;
    naive_pca(&samples, all, ROWS, values, axes);
    for (size_t k = 0; k < D; k++)
        total += values[k];
    double kept = 0;
    for (size_t k = 1; k < D; k++) {
        kept += values[k - 1];
        /* Just below this share k components are enough, just above it takes one more. */
        const double shares[] = {kept / total - 1e-4, kept / total + 1e-4};
        for (size_t i = 0; i < 2 && shares[i] < 1; i++) {
            const struct preprocess_step pca = {PREPROCESS_PCA, .variance = shares[i]};
            struct preprocess p = fit(team, &samples, NULL, ROWS, &pca, 1);
            assert_int_equal(preprocess_width(&p), k + i);
            preprocess_release(&p);
        }
        if (values[k] / total < 1e-3)
            break;
    }
    samples_release(&samples);
    team_free(team);
}

static void variance_share_of_fewer_samples_than_features(void **state) {
    (void)state;
    struct team *team = new_team(1);
    struct samples samples = correlated_samples(6, D);
    const struct preprocess_step pca = {PREPROCESS_PCA, .variance = 0.9999};
    struct preprocess p = fit(team, &samples, NULL, 6, &pca, 1);
    assert_in_range(preprocess_width(&p), 1, 5); /* six points span five dimensions */
    preprocess_release(&p);
    samples_release(&samples);
    team_free(team);
}

static void too_many_components_are_refused(void **state) {
    (void)state;
    struct team *team = new_team(1);
    struct samples samples = correlated_samples(ROWS, D);
    struct preprocess p;
    struct ovr_err err = {0};
    struct preprocess_step pca = {PREPROCESS_PCA, .components = D + 1};
    int rc =
        preprocess_fit(&p, team, kernels_get(ISA_AUTO), &samples, NULL, ROWS, &pca, 1, NULL, &err);
    assert_failed(rc, OVR_INVALID, &err, "at most 12");
    preprocess_release(&p);

    err = (struct ovr_err){0};
    pca.components = 6;
    rc = preprocess_fit(&p, team, kernels_get(ISA_AUTO), &samples, NULL, 5, &pca, 1, NULL, &err);
    assert_failed(rc, OVR_INVALID, &err, "at most 5");
    preprocess_release(&p);
    samples_release(&samples);
    team_free(team);
}

/* Two tiles of the covariance and a ragged third, several blocks of rows. */
static void same_bits_for_any_team(void **state) {
    (void)state;
    enum { WIDE = 781, K = 40, FITTED = 2100, ALL = 2222 };
    const struct preprocess_step steps[] = {standardize,
                                            {PREPROCESS_PCA, .components = K, .whiten = 1}};
    struct samples samples = new_samples(ALL, WIDE, 0, 23);
    real *first = NULL;
    for (size_t i = 0; i < COUNT(TEAM_SIZES); i++) {
        struct team *team = new_team(TEAM_SIZES[i]);
        struct preprocess p = fit(team, &samples, NULL, FITTED, steps, 2);
        real *out = apply(&p, team, &samples, NULL, ALL);
        if (first) {
            assert_memory_equal(out, first, ALL * K * sizeof *out);
            free(out);
        } else {
            first = out;
        }
        preprocess_release(&p);
        team_free(team);
    }
    free(first);
    samples_release(&samples);
}

/* With tiles and blocks of rows in play: the axes' variances are those of the projected rows, which
 * are uncorrelated. */
static void wide_axes_have_their_variances(void **state) {
    (void)state;
    enum { WIDE = 781, K = 30, FITTED = 2100 };
    const struct preprocess_step pca = {PREPROCESS_PCA, .components = K};
    struct team *team = new_team(2);
    struct samples samples = new_samples(FITTED, WIDE, 0, 25);
    uint32_t all[FITTED];
    for (uint32_t i = 0; i < FITTED; i++)
        all[i] = i;
    struct preprocess p = fit(team, &samples, NULL, FITTED, &pca, 1);
    struct samples code = {.n = FITTED, .d = K, .values = apply(&p, team, &samples, NULL, FITTED)};
    for (size_t j = 0; j < K; j += 7)
        for (size_t k = 0; k < K; k++)
            assert_near(naive_product(&code, all, FITTED, j, k) / (FITTED - 1),
                        j == k ? p.steps[0].variance[k] : 0, 1e-5);
    preprocess_release(&p);
    samples_release(&code);
    samples_release(&samples);
    team_free(team);
}

/* After a projection too: several steps in a row, each fitted on what the ones before leave. */
static void steps_follow_each_other(void **state) {
    (void)state;
    const struct preprocess_step steps[] = {standardize,
                                            {PREPROCESS_PCA, .components = 6},
                                            {PREPROCESS_PCA, .components = 3},
                                            standardize};
    struct team *team = new_team(2);
    struct samples samples = correlated_samples(ROWS, D);
    for (size_t n = 0; n <= COUNT(steps); n++) {
        struct preprocess before = fit(team, &samples, NULL, ROWS, steps, n);
        struct samples code = {.n = ROWS,
                               .d = preprocess_width(&before),
                               .values = apply(&before, team, &samples, NULL, ROWS)};
        if (n < COUNT(steps)) {
            struct preprocess together = fit(team, &samples, NULL, ROWS, steps, n + 1);
            struct preprocess last = fit(team, &code, NULL, ROWS, &steps[n], 1);
            real *x = apply(&together, team, &samples, NULL, ROWS);
            real *y = apply(&last, team, &code, NULL, ROWS);
            for (size_t i = 0; i < ROWS * preprocess_width(&last); i++)
                assert_near(x[i], y[i], 1e-4 * (1 + fabs((double)y[i])));
            free(x);
            free(y);
            preprocess_release(&together);
            preprocess_release(&last);
        }
        preprocess_release(&before);
        samples_release(&code);
    }
    samples_release(&samples);
    team_free(team);
}

/* Those of an experiment and those beside them: what is there once they are together is bounded. */
static void too_many_steps_together(void **state) {
    (void)state;
    enum { OLD = PREPROCESS_MAX - 1 };
    struct preprocess_step steps[PREPROCESS_MAX];
    for (size_t i = 0; i < PREPROCESS_MAX; i++)
        steps[i] = standardize;
    struct team *team = new_team(1);
    struct samples samples = correlated_samples(ROWS, D);
    struct preprocess old = fit(team, &samples, NULL, ROWS, steps, OLD), p;
    steps[0] = (struct preprocess_step){PREPROCESS_FITTED, .fitted = &old};
    p = fit(team, &samples, NULL, ROWS, steps, 2);
    assert_int_equal(p.n_steps, PREPROCESS_MAX);
    preprocess_release(&p);
    for (int last = 0; last < 2; last++) { /* one step of its own, or as many as before */
        struct ovr_err err = {0};
        if (last)
            steps[2] = steps[0];
        int rc = preprocess_fit(&p, team, kernels_get(ISA_AUTO), &samples, NULL, ROWS, steps, 3,
                                NULL, &err);
        assert_failed(rc, OVR_INVALID, &err, "more than 8 steps together");
        preprocess_release(&p);
    }
    preprocess_release(&old);
    samples_release(&samples);
    team_free(team);
}

static void bytes_count_as_numbers(void **state) {
    (void)state;
    const struct preprocess_step steps[] = {standardize, {PREPROCESS_PCA, .components = 5}};
    enum { WIDE = 37, FITTED = 300 };
    uint8_t bytes[FITTED * (WIDE + 1)];
    struct team *team = new_team(2);
    struct samples numbers = new_samples(FITTED, WIDE, 0, 26);
    struct samples images = {.n = FITTED, .d = WIDE, .bytes = bytes, .stride = WIDE + 1};
    struct rng rng = test_stream(27);
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)rng_below(&rng, 256);
    for (size_t i = 0; i < FITTED; i++)
        for (size_t j = 0; j < WIDE; j++)
            numbers.values[i * WIDE + j] = bytes[i * (WIDE + 1) + j];
    struct preprocess p = fit(team, &numbers, NULL, FITTED, steps, 2);
    struct preprocess q = fit(team, &images, NULL, FITTED, steps, 2);
    real *x = apply(&p, team, &numbers, NULL, FITTED), *y = apply(&q, team, &images, NULL, FITTED);
    assert_memory_equal(x, y, FITTED * 5 * sizeof *x);
    free(x);
    free(y);
    preprocess_release(&p);
    preprocess_release(&q);
    samples_release(&numbers);
    team_free(team);
}

static void values_that_are_not_finite_are_refused(void **state) {
    (void)state;
    const struct preprocess_step pca = {PREPROCESS_PCA, .components = 2};
    const real bad[] = {(real)NAN, (real)INFINITY, REAL_MAX};
    struct team *team = new_team(2);
    for (size_t i = 0; i < COUNT(bad); i++) {
        struct samples samples = correlated_samples(ROWS, D);
        struct preprocess p;
        struct ovr_err err = {0};
        samples.values[17 * D + 5] = bad[i];
        int rc = preprocess_fit(&p, team, kernels_get(ISA_AUTO), &samples, NULL, ROWS, &pca, 1,
                                NULL, &err);
        assert_failed(rc, OVR_INVALID, &err, "pca cannot");
        preprocess_release(&p);
        samples_release(&samples);
    }
    team_free(team);
}

static void nothing_to_do_copies_rows(void **state) {
    (void)state;
    struct team *team = new_team(2);
    struct samples samples = new_samples(10, 3, 0, 24);
    const uint32_t rows[] = {7, 0, 7};
    struct preprocess p = fit(team, &samples, rows, 3, NULL, 0);
    real *out = apply(&p, team, &samples, rows, 3);
    for (size_t i = 0; i < 3; i++)
        assert_memory_equal(out + 3 * i, samples.values + 3 * rows[i], 3 * sizeof *out);
    free(out);
    preprocess_release(&p);
    samples_release(&samples);
    team_free(team);
}

static void stop_flag_is_obeyed(void **state) {
    (void)state;
    const struct preprocess_step pca = {PREPROCESS_PCA, .components = 2};
    const _Atomic int stop = 1;
    struct team *team = new_team(3);
    struct samples samples = correlated_samples(ROWS, D);
    struct preprocess p;
    struct ovr_err err = {0};
    int rc =
        preprocess_fit(&p, team, kernels_get(ISA_AUTO), &samples, NULL, ROWS, &pca, 1, &stop, &err);
    assert_failed(rc, OVR_STOPPED, &err, "stopped");
    preprocess_release(&p);

    err = (struct ovr_err){0};
    real *out = new_reals(ROWS * D);
    p = fit(team, &samples, NULL, ROWS, &pca, 1);
    rc = preprocess_apply(&p, team, &samples, NULL, ROWS, out, &stop, &err);
    assert_failed(rc, OVR_STOPPED, &err, "stopped");
    free(out);
    preprocess_release(&p);
    samples_release(&samples);
    team_free(team);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(standardize_listed_rows),
        cmocka_unit_test(constant_feature_stays_finite),
        cmocka_unit_test(pca_equals_jacobi),
        cmocka_unit_test(whitened_pca_equals_jacobi),
        cmocka_unit_test(whitened_codes_have_unit_covariance),
        cmocka_unit_test(other_rows_do_not_matter),
        cmocka_unit_test(variance_share_picks_fewest_components),
        cmocka_unit_test(variance_share_of_fewer_samples_than_features),
        cmocka_unit_test(too_many_components_are_refused),
        cmocka_unit_test(same_bits_for_any_team),
        cmocka_unit_test(wide_axes_have_their_variances),
        cmocka_unit_test(steps_follow_each_other),
        cmocka_unit_test(too_many_steps_together),
        cmocka_unit_test(bytes_count_as_numbers),
        cmocka_unit_test(values_that_are_not_finite_are_refused),
        cmocka_unit_test(nothing_to_do_copies_rows),
        cmocka_unit_test(stop_flag_is_obeyed),
    };
    return cmocka_run_group_tests_name("core/preprocess", tests, start_blas, NULL);
}
