/* Gradients of the losses by finite differences, in float64. */
#include "tests/core/check.h"

static const double STEP = 1e-5, RELATIVE_ERROR = 1e-6;

static double loss_of(enum ovr_form form, size_t n, size_t k, const real *h) {
    struct ovr_err err = {0};
    double loss;
    assert_ok(ovr_loss(kernels_get(ISA_AUTO), form, n, k, h, &loss, NULL, NULL, &err), &err);
    return loss;
}

static double ovr_slope(enum ovr_form form, size_t n, size_t k, real *h, size_t at) {
    real value = h[at];
    h[at] = value + STEP;
    double above = loss_of(form, n, k, h);
    h[at] = value - STEP;
    double below = loss_of(form, n, k, h);
    h[at] = value;
    return (above - below) / (2 * STEP);
}

/* With zero_row < n that row has no direction: its cosine gradient is 0 by definition. */
static void check_ovr_gradient(enum ovr_form form, size_t n, size_t k, size_t zero_row) {
    struct ovr_err err = {0};
    real *h = new_normal(n * k, 1), *gradient = new_reals(n * k);
    size_t zero_rows;
    double loss;
    if (zero_row < n)
        memset(h + zero_row * k, 0, k * sizeof *h);
    assert_ok(ovr_loss(kernels_get(ISA_AUTO), form, n, k, h, &loss, gradient, &zero_rows, &err),
              &err);
    assert_int_equal(zero_rows, zero_row < n);
    for (size_t i = 0; i < n * k; i++) {
        if (form == OVR_COSINE && i / k == zero_row)
            assert_true(gradient[i] == 0);
        else
            assert_near(gradient[i], ovr_slope(form, n, k, h, i),
                        RELATIVE_ERROR * (fabs(gradient[i]) + 1e-3));
    }
    free(h);
    free(gradient);
}

static void raw_gradient(void **state) {
    (void)state;
    check_ovr_gradient(OVR_RAW, 9, 21, SIZE_MAX);
    check_ovr_gradient(OVR_RAW, 9, 21, 4);
    check_ovr_gradient(OVR_RAW, 2, 5, SIZE_MAX);
    check_ovr_gradient(OVR_RAW, 1, 5, SIZE_MAX);
}

static void cosine_gradient(void **state) {
    (void)state;
    check_ovr_gradient(OVR_COSINE, 9, 21, SIZE_MAX);
    check_ovr_gradient(OVR_COSINE, 9, 21, 4);
    check_ovr_gradient(OVR_COSINE, 2, 5, SIZE_MAX);
    check_ovr_gradient(OVR_COSINE, 2, 5, 0);
    check_ovr_gradient(OVR_COSINE, 1, 5, SIZE_MAX);
}

static void activity_gradient(void **state) {
    (void)state;
    const size_t n = 7, k = 11;
    double slope, unused;
    /* Below, above and at the target 0.5. The slope is that of one activation, so of the sum. */
    const double sums[] = {0.3 * 77, 1.7 * 77};
    for (size_t i = 0; i < COUNT(sums); i++) {
        double value = activity_value(0.5, sums[i], n, k, &slope);
        assert_near(value, fabs(sums[i] / 77 - 0.5), 1e-12);
        double above = activity_value(0.5, sums[i] + STEP, n, k, &unused);
        double below = activity_value(0.5, sums[i] - STEP, n, k, &unused);
        assert_relative(slope, (above - below) / (2 * STEP), RELATIVE_ERROR);
    }
    assert_true(activity_value(0.5, 38.5, n, k, &slope) == 0);
    assert_true(slope == 0);
}

static double cross_entropy_of(size_t n, size_t n_classes, const double *logits,
                               const uint16_t *labels) {
    size_t correct;
    return softmax_cross_entropy(n, n_classes, 8, logits, labels, NULL, &correct);
}

static void cross_entropy_gradient(void **state) {
    (void)state;
    enum { N = 5, CLASSES = 3, WIDTH = 8 };
    double logits[N * CLASSES];
    real *values = new_normal(N * CLASSES, 2), delta[N * WIDTH];
    uint16_t *labels = new_labels(N, CLASSES, 3);
    size_t correct;
    for (size_t i = 0; i < N * CLASSES; i++)
        logits[i] = 3 * values[i];
    softmax_cross_entropy(N, CLASSES, WIDTH, logits, labels, delta, &correct);
    for (size_t i = 0; i < N; i++)
        for (size_t c = 0; c < WIDTH; c++) {
            if (c >= CLASSES) {
                assert_true(delta[i * WIDTH + c] == 0);
                continue;
            }
            double *logit = &logits[i * CLASSES + c], value = *logit;
            *logit = value + STEP;
            double above = cross_entropy_of(N, CLASSES, logits, labels);
            *logit = value - STEP;
            double below = cross_entropy_of(N, CLASSES, logits, labels);
            *logit = value;
            assert_near(delta[i * WIDTH + c], (above - below) / (2 * STEP),
                        RELATIVE_ERROR * (fabs(delta[i * WIDTH + c]) + 1e-3));
        }
    free(values);
    free(labels);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(raw_gradient),
        cmocka_unit_test(cosine_gradient),
        cmocka_unit_test(activity_gradient),
        cmocka_unit_test(cross_entropy_gradient),
    };
    return cmocka_run_group_tests_name("core64/ovr", tests, NULL, NULL);
}
