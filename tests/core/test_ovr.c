/* The O(N·K) losses against the double loop over all pairs that they stand for. */
#include "core/ovr.h"
#include "tests/core/check.h"

enum { N = 33, K = 130 };

static double fast(enum ovr_form form, size_t n, size_t k, const real *h, size_t *zero_rows) {
    struct ovr_err err = {0};
    double loss;
    assert_ok(ovr_loss(kernels_get(ISA_AUTO), form, n, k, h, &loss, NULL, zero_rows, &err), &err);
    return loss;
}

static double dot(size_t k, const real *a, const real *b) {
    double sum = 0;
    for (size_t j = 0; j < k; j++)
        sum += (double)a[j] * b[j];
    return sum;
}

/* Σ_i Σ_{j≠i} h_i·h_j, or of the rows divided by their norms; rows of zeros count nothing. */
static double naive(enum ovr_form form, size_t n, size_t k, const real *h) {
    double loss = 0;
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++) {
            const real *a = h + i * k, *b = h + j * k;
            double norms = form == OVR_RAW ? 1 : sqrt(dot(k, a, a) * dot(k, b, b));
            if (i != j && norms > 0)
                loss += dot(k, a, b) / norms;
        }
    return loss;
}

static void equals_double_loop(void **state) {
    (void)state;
    real *h = new_activations(N * K, 1);
    assert_relative(fast(OVR_RAW, N, K, h, NULL), naive(OVR_RAW, N, K, h), 1e-5);
    assert_relative(fast(OVR_COSINE, N, K, h, NULL), naive(OVR_COSINE, N, K, h), 1e-5);
    for (size_t n = 1; n <= 3; n++) {
        assert_near(fast(OVR_RAW, n, K, h, NULL), naive(OVR_RAW, n, K, h), 1e-3);
        assert_near(fast(OVR_COSINE, n, K, h, NULL), naive(OVR_COSINE, n, K, h), 1e-5);
    }
    free(h);
}

static void zero_rows_count_nothing(void **state) {
    (void)state;
    real *h = new_activations(N * K, 2);
    size_t zero_rows;
    memset(h, 0, K * sizeof *h);
    memset(h + 7 * K, 0, 2 * K * sizeof *h);
    double without = naive(OVR_COSINE, N, K, h);
    h[7 * K] = (real)1e-13; /* not exactly zero, yet without a direction to speak of */
    assert_relative(fast(OVR_COSINE, N, K, h, &zero_rows), without, 1e-5);
    assert_int_equal(zero_rows, 3);
    h[7 * K] = 0;
    assert_relative(fast(OVR_RAW, N, K, h, &zero_rows), naive(OVR_RAW, N, K, h), 1e-5);
    assert_int_equal(zero_rows, 3);
    memset(h, 0, N * K * sizeof *h);
    assert_true(fast(OVR_COSINE, N, K, h, &zero_rows) == 0);
    assert_int_equal(zero_rows, N);
    free(h);
}

static void cosine_ignores_row_scale(void **state) {
    (void)state;
    real *h = new_activations(N * K, 3);
    double before = fast(OVR_COSINE, N, K, h, NULL);
    for (size_t i = 0; i < N; i++)
        for (size_t k = 0; k < K; k++)
            h[i * K + k] *= (real)pow(10, (double)(i % 7) - 3);
    assert_relative(fast(OVR_COSINE, N, K, h, NULL), before, 1e-5);
    free(h);
}

static void orthogonal_rows_lose_nothing(void **state) {
    (void)state;
    real *h = new_reals(N * K);
    for (size_t i = 0; i < N; i++)
        for (size_t k = 3 * i; k < 3 * i + 3; k++)
            h[i * K + k] = (real)(1 + i);
    assert_near(fast(OVR_RAW, N, K, h, NULL), 0, 1e-3 * N * N);
    assert_near(fast(OVR_COSINE, N, K, h, NULL), 0, 1e-4);
    free(h);
}

static void order_does_not_matter(void **state) {
    (void)state;
    real *h = new_activations(N * K, 4), *shuffled = new_reals(N * K);
    uint32_t samples[N], units[K];
    struct rng rng = test_stream(5);
    rng_permutation(&rng, samples, N);
    rng_permutation(&rng, units, K);
    for (size_t i = 0; i < N; i++)
        for (size_t k = 0; k < K; k++)
            shuffled[i * K + k] = h[samples[i] * K + units[k]];
    for (int form = OVR_COSINE; form <= OVR_RAW; form++) {
        double loss = fast((enum ovr_form)form, N, K, h, NULL);
        assert_relative(fast((enum ovr_form)form, N, K, shuffled, NULL), loss, 1e-5);
    }
    free(h);
    free(shuffled);
}

static void lambda_per_pair(void **state) {
    (void)state;
    struct ovr_config config = {.lambda = 0.8128, .per_pair = 1};
    assert_relative(ovr_lambda(&config, 128), 5e-5, 1e-12); /* the example of science.md */
    assert_relative(ovr_lambda(&config, 2), 0.4064, 1e-12);
    assert_true(ovr_lambda(&config, 1) == 0);
    config.per_pair = 0;
    assert_true(ovr_lambda(&config, 1) == 0.8128);
    assert_true(ovr_lambda(&config, 128) == 0.8128);
}

static void activity_is_distance_of_mean(void **state) {
    (void)state;
    double slope;
    assert_near(activity_value(0.5, 3, 2, 3, &slope), 0, 0);
    assert_true(slope == 0);
    assert_near(activity_value(0.5, 6, 2, 3, &slope), 0.5, 1e-12);
    assert_near(slope, 1. / 6, 1e-12);
    assert_near(activity_value(0.5, 0, 2, 3, &slope), 0.5, 1e-12);
    assert_near(slope, -1. / 6, 1e-12);
}

static void cross_entropy_by_hand(void **state) {
    (void)state;
    /* Two classes of three logits; −ln softmax worked out by hand:
     * ln(e^1 + e^2 + e^3) − 3 = 0.4076059644, and ln 3 for the row of equal logits. */
    const double logits[] = {1, 2, 3, 5, 5, 5};
    const uint16_t labels[] = {2, 1};
    real delta[2 * 8];
    size_t correct;
    memset(delta, 0x7f, sizeof delta);
    double loss = softmax_cross_entropy(2, 3, 8, logits, labels, delta, &correct);
    assert_near(loss, (0.40760596444438 + 1.09861228866811) / 2, 1e-12);
    assert_int_equal(correct, 1); /* of equal logits the first counts, which is not the label */
    const double expected[] = {0.09003057 / 2,
                               0.24472847 / 2,
                               (0.66524096 - 1) / 2,
                               0,
                               0,
                               0,
                               0,
                               0,
                               1. / 6,
                               (1. / 3 - 1) / 2,
                               1. / 6,
                               0,
                               0,
                               0,
                               0,
                               0};
    for (size_t i = 0; i < COUNT(expected); i++)
        assert_near(delta[i], expected[i], 1e-7);
}

static void cross_entropy_does_not_overflow(void **state) {
    (void)state;
    const double logits[] = {1e5, -1e5, 0};
    const uint16_t label = 1;
    size_t correct;
    assert_near(softmax_cross_entropy(1, 3, 8, logits, &label, NULL, &correct), 2e5, 1e-6);
    assert_int_equal(correct, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_double_loop),
        cmocka_unit_test(zero_rows_count_nothing),
        cmocka_unit_test(cosine_ignores_row_scale),
        cmocka_unit_test(orthogonal_rows_lose_nothing),
        cmocka_unit_test(order_does_not_matter),
        cmocka_unit_test(lambda_per_pair),
        cmocka_unit_test(activity_is_distance_of_mean),
        cmocka_unit_test(cross_entropy_by_hand),
        cmocka_unit_test(cross_entropy_does_not_overflow),
    };
    return cmocka_run_group_tests_name("core/ovr", tests, NULL, NULL);
}
