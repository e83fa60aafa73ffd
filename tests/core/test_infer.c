/* Codes and probabilities of given weights: a reckoning by hand, and the same bits for any team. */
#include "core/infer.h"
#include "core/rng.h"
#include "tests/core/check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { D = 5, K = 300, C = 3, N = 700 };

static real w[K * D], b[K], v[C * K], c[C], x[N * D];
static const struct preprocess none = {.n_in = D};
static const struct train_config model = {.kind = MODEL_OVR_ENCODER,
                                          .hidden = {K},
                                          .n_hidden = 1,
                                          .f = {.kind = ACT_RELU},
                                          .dropout = {0.5},
                                          .ovr = {.lambda = 1},
                                          .batch_size = 10};

static void draw(real *numbers, size_t n, uint32_t stream) {
    struct rng rng;
    rng_init(&rng, 9, RNG_INIT, 0, stream);
    for (size_t i = 0; i < n; i++)
        numbers[i] = (real)rng_normal(&rng);
}

static int draw_all(void **state) {
    (void)state;
    draw(w, K * D, 0), draw(b, K, 1), draw(v, C * K, 2), draw(c, C, 3), draw(x, N * D, 4);
    return 0;
}

static struct infer *make(int members) {
    const struct infer_config config = {.model = &model,
                                        .preprocess = &none,
                                        .kernels = kernels_get(ISA_AUTO),
                                        .n_classes = C,
                                        .members = members};
    const struct initial initial = {
        .n = 2,
        .parts = {{PART_BIAS, 0, 0, K, 1, 1}, {PART_WEIGHT, 0, 0, K, D, D}},
        .weights = {b, w}};
    struct infer *infer;
    struct ovr_err err = {0};
    assert_int_equal(infer_new(&infer, &config, &err), 0);
    assert_int_equal(infer_set_weights(infer, &initial, &err), 0);
    infer_set_read_out(infer, v, c);
    assert_true(infer_units(infer) == K && infer_inputs(infer) == D);
    return infer;
}

static int run(struct infer *infer, int members, size_t first, size_t n, real *codes, double *p,
               const _Atomic int *stop) {
    const struct samples samples = {.n = N, .d = D, .values = x};
    struct team *team;
    struct ovr_err err = {0};
    assert_int_equal(team_new(&team, members, &err), 0);
    int rc = infer_rows(infer, team, &samples, first, n, codes, p, stop, &err);
    team_free(team);
    return rc;
}

static void test_by_hand(void **state) {
    (void)state;
    static real codes[N * K];
    static double p[N * C];
    struct infer *infer = make(2);
    assert_int_equal(run(infer, 2, 100, 300, codes, p, NULL), 0);
    for (size_t i = 0; i < 300; i++) {
        double z[C], sum = 0;
        for (size_t j = 0; j < C; j++)
            z[j] = (double)c[j];
        for (size_t k = 0; k < K; k++) {
            double a = (double)b[k];
            for (size_t j = 0; j < D; j++)
                a += (double)w[k * D + j] * (double)x[(100 + i) * D + j];
            assert_true(fabs((double)codes[i * K + k] - fmax(a, 0)) < 1e-5);
            for (size_t j = 0; j < C; j++)
                z[j] += fmax(a, 0) * (double)v[j * K + k];
        }
        for (size_t j = 0; j < C; j++)
            sum += exp(z[j] - z[0]);
        for (size_t j = 0; j < C; j++)
            assert_true(fabs(p[i * C + j] - exp(z[j] - z[0]) / sum) < 1e-3);
    }
    infer_free(infer);
}

static void test_the_same_bits(void **state) {
    (void)state;
    static real codes[INFER_ROWS * K], others[INFER_ROWS * K];
    static double p[INFER_ROWS * C], q[INFER_ROWS * C];
    struct infer *one = make(1), *three = make(3);
    assert_int_equal(run(one, 1, 0, INFER_ROWS, codes, p, NULL), 0);
    assert_int_equal(run(three, 3, 0, INFER_ROWS, others, q, NULL), 0);
    assert_memory_equal(codes, others, sizeof codes);
    assert_memory_equal(p, q, sizeof p);
    /* Without codes, one by one, and in a smaller team than there is room for. */
    assert_int_equal(run(three, 2, 0, INFER_ROWS, NULL, q, NULL), 0);
    assert_memory_equal(p, q, sizeof p);
    for (size_t i = 0; i < 300; i += 7) {
        assert_int_equal(run(three, 1, i, 1, others, q, NULL), 0);
        assert_memory_equal(others, codes + i * K, K * sizeof *codes);
    }
    infer_free(one);
    infer_free(three);
}

static void test_refusals(void **state) {
    (void)state;
    struct infer *infer = make(1);
    const struct initial bias_only = {
        .n = 1, .parts = {{PART_BIAS, 0, 0, K, 1, 1}}, .weights = {b}};
    struct ovr_err err = {0};
    static real codes[K];
    const _Atomic int stop = 1;
    assert_int_equal(infer_set_weights(infer, &bias_only, &err), OVR_INVALID);
    assert_non_null(strstr(err.text, "1 of the 2"));
    assert_int_equal(run(infer, 1, 0, 1, codes, NULL, &stop), OVR_STOPPED);
    infer_free(infer);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_by_hand),
        cmocka_unit_test(test_the_same_bits),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests_name("infer", tests, draw_all, NULL);
}
