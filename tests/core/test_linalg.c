/* The door to BLAS and LAPACK: shapes, leading dimensions, beta, and tridiagonal matrices. */
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

static void products_with_itself(void **state) {
    (void)state;
    real *a = new_normal(K * (N + SLACK), 5), *c = new_normal(N * (N + SLACK), 6);
    real *before = new_normal(N * (N + SLACK), 6);
    linalg_syrk(N, K, a, N + SLACK, c, N + SLACK);
    for (size_t i = 0; i < N; i++)
        for (size_t j = 0; j < N + SLACK; j++) {
            double expected = j <= i ? 0 : before[i * (N + SLACK) + j];
            for (size_t l = 0; j <= i && l < K; l++)
                expected += (double)a[l * (N + SLACK) + i] * a[l * (N + SLACK) + j];
            assert_near(c[i * (N + SLACK) + j], expected, j <= i ? 1e-5 : 0);
        }
    free(a);
    free(c);
    free(before);
}

/* op(a) · op(b) element by element; with n = 1 it is what linalg_gemv64() gives. */
static void check_product64(int a_transposed, int b_transposed) {
    double a[K * K], b[K * K], c[M * K], y[K], x[K];
    struct rng rng = test_stream(7);
    for (size_t i = 0; i < K * K; i++) {
        a[i] = rng_normal(&rng);
        b[i] = rng_normal(&rng);
    }
    for (size_t i = 0; i < M * K; i++)
        c[i] = 1;
    linalg_gemm64(a_transposed, b_transposed, M, N, 11, -2, a, K, b, K, 3, c, K);
    for (size_t i = 0; i < M; i++)
        for (size_t j = 0; j < K; j++) {
            double expected = j < N ? 3 : 1;
            for (size_t l = 0; j < N && l < 11; l++)
                expected -= 2 * a[a_transposed ? l * K + i : i * K + l] *
                            b[b_transposed ? j * K + l : l * K + j];
            assert_near(c[i * K + j], expected, 1e-13);
        }
    for (size_t i = 0; i < K; i++)
        x[i] = y[i] = b[i];
    linalg_gemv64(a_transposed, M, N, -2, a, K, x, 3, y);
    for (size_t i = 0; i < (a_transposed ? N : M); i++) {
        double expected = 3 * b[i];
        for (size_t j = 0; j < (a_transposed ? M : N); j++)
            expected -= 2 * a[a_transposed ? j * K + i : i * K + j] * x[j];
        assert_near(y[i], expected, 1e-13);
    }
}

static void products_in_float64(void **state) {
    (void)state;
    for (int transposed = 0; transposed < 4; transposed++)
        check_product64(transposed & 1, transposed >> 1);
}

/* Worked out by hand: 2 - 2 cos(jπ/(n + 1)) for -1, 2, -1 along the diagonals. */
static void tridiagonal(void **state) {
    (void)state;
    enum { SIZE = 30 };
    double diagonal[SIZE], off[SIZE], values[SIZE], vectors[SIZE * SIZE], pi = acos(-1);
    struct ovr_err err = {0};
    for (size_t i = 0; i < SIZE; i++) {
        diagonal[i] = 2;
        off[i] = -1;
    }
    for (size_t n = 1; n <= SIZE; n++)
        for (size_t first = 0; first < n; first += 1 + n / 4) {
            size_t k = min_size(3, n - first);
            assert_ok(linalg_tridiagonal(n, first, k, diagonal, off, values, vectors, &err), &err);
            for (size_t v = 0; v < k; v++) {
                double phase = (double)(n - first - v) * pi / (double)(n + 1);
                double factor = vectors[v * n] / sin(phase);
                assert_near(values[v], 2 - 2 * cos(phase), 1e-14);
                assert_near(fabs(factor), sqrt(2 / (double)(n + 1)), 1e-12);
                for (size_t i = 0; i < n; i++)
                    assert_near(vectors[v * n + i], factor * sin((double)(i + 1) * phase), 1e-11);
            }
        }
}

/* Where the larger eigenvalue is not the one of larger size. */
static void two_by_two(void **state) {
    (void)state;
    const double diagonal[] = {-3, 1}, off = 0;
    double value, vector[2];
    struct ovr_err err = {0};
    assert_ok(linalg_tridiagonal(2, 0, 1, diagonal, &off, &value, vector, &err), &err);
    assert_near(value, 1, 1e-15);
    assert_near(fabs(vector[1]), 1, 1e-15);
    assert_ok(linalg_tridiagonal(2, 1, 1, diagonal, &off, &value, vector, &err), &err);
    assert_near(value, -3, 1e-15);
    assert_near(fabs(vector[0]), 1, 1e-15);
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
        cmocka_unit_test(products_with_itself),
        cmocka_unit_test(products_in_float64),
        cmocka_unit_test(tridiagonal),
        cmocka_unit_test(two_by_two),
        cmocka_unit_test(names),
        cmocka_unit_test(speed_is_that_of_a_computer),
    };
    return cmocka_run_group_tests_name("core/linalg", tests, start_blas, NULL);
}
