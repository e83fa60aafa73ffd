/* The door to BLAS and LAPACK: shapes, leading dimensions, beta, and eigenvectors. */
#include "core/linalg.h"
#include "tests/core/check.h"

enum { M = 5, N = 9, K = 13, SLACK = 3 }; /* rows are SLACK elements longer than they need be */

typedef void multiply_fn(size_t m, size_t n, size_t k, const real *a, size_t lda, const real *b,
                         size_t ldb, real beta, real *c, size_t ldc);

static void check_product(multiply_fn *multiply, int a_transposed, int b_transposed, real beta) {
    size_t lda = (a_transposed ? M : K) + SLACK, ldb = (b_transposed ? K : N) + SLACK;
    size_t ldc = N + SLACK;
    real *a = new_normal((a_transposed ? K : M) * lda, 1);
    real *b = new_normal((b_transposed ? N : K) * ldb, 2);
    real *c = new_normal(M * ldc, 3), *before = new_normal(M * ldc, 3);
    multiply(M, N, K, a, lda, b, ldb, beta, c, ldc);
    for (size_t i = 0; i < M; i++)
        for (size_t j = 0; j < ldc; j++) {
            double expected = before[i * ldc + j] * (j < N ? beta : 1);
            for (size_t l = 0; j < N && l < K; l++)
                expected += (double)a[a_transposed ? l * lda + i : i * lda + l] *
                            b[b_transposed ? j * ldb + l : l * ldb + j];
            assert_near(c[i * ldc + j], expected, 1e-5);
        }
    free(a);
    free(b);
    free(c);
    free(before);
}

static void products(void **state) {
    (void)state;
    for (int beta = 0; beta <= 2; beta++) {
        check_product(linalg_gemm, 0, 0, (real)beta);
        check_product(linalg_gemm_nt, 0, 1, (real)beta);
        check_product(linalg_gemm_tn, 1, 0, (real)beta);
    }
}

/* A v = λ v, unit length, falling order, and only the lower triangle is read. */
static void eigenvectors(void **state) {
    (void)state;
    enum { SIZE = 11, WANTED = 4 };
    double a[SIZE][SIZE], spoilt[SIZE][SIZE], values[WANTED], vectors[WANTED][SIZE];
    struct ovr_err err = {0};
    struct rng rng = test_stream(4);
    for (size_t i = 0; i < SIZE; i++)
        for (size_t j = 0; j <= i; j++) {
            a[i][j] = a[j][i] = spoilt[i][j] = rng_normal(&rng);
            if (i != j)
                spoilt[j][i] = 1e9;
        }
    assert_ok(linalg_eigh(SIZE, WANTED, spoilt[0], values, vectors[0], &err), &err);
    for (size_t v = 0; v < WANTED; v++) {
        double squares = 0;
        for (size_t i = 0; i < SIZE; i++) {
            double product = 0;
            for (size_t j = 0; j < SIZE; j++)
                product += a[i][j] * vectors[v][j];
            assert_near(product, values[v] * vectors[v][i], 1e-10);
            squares += vectors[v][i] * vectors[v][i];
        }
        assert_near(squares, 1, 1e-12);
        assert_true(v == 0 || values[v] < values[v - 1]);
    }
}

/* Worked out by hand, lower triangle only. */
static void all_eigenvalues(void **state) {
    (void)state;
    double a[] = {2, 0, 0, 1, 2, 0, 0, 0, -5}, values[3], vectors[9];
    struct ovr_err err = {0};
    assert_ok(linalg_eigh(3, 3, a, values, vectors, &err), &err);
    assert_near(values[0], 3, 1e-12);
    assert_near(values[1], 1, 1e-12);
    assert_near(values[2], -5, 1e-12);
}

static void names(void **state) {
    (void)state;
    assert_non_null(strstr(linalg_library(), "OpenBLAS"));
    assert_true(strlen(linalg_kernel()) > 0);
}

static void speed_is_that_of_a_computer(void **state) {
    (void)state;
    double speed = linalg_speed();
    assert_true(speed > 1e7 && speed < 1e13);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products),
        cmocka_unit_test(eigenvectors),
        cmocka_unit_test(all_eigenvalues),
        cmocka_unit_test(names),
        cmocka_unit_test(speed_is_that_of_a_computer),
    };
    return cmocka_run_group_tests_name("core/linalg", tests, start_blas, NULL);
}
