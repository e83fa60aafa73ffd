/* Eigenvectors: what defines them (A v = λ v, orthonormal), LAPACK's dsyevr, and spectra that are
 * hard to take apart. */
#include "core/eigen.h"
#include "tests/core/check.h"

#include <lapacke.h>

static double *new_doubles(size_t n) {
    double *x = ovr_calloc(n, sizeof *x);
    assert_non_null(x);
    return x;
}

/* Q diag(spectrum) Qᵀ with a Q of a few random reflections. */
static double *new_matrix(size_t n, const double *spectrum, uint32_t index) {
    double *a = new_doubles(n * n), *v = new_doubles(n), *av = new_doubles(n);
    struct rng rng = test_stream(index);
    for (size_t i = 0; i < n; i++)
        a[i * n + i] = spectrum[i];
    for (int times = 0; times < 3; times++) {
        double squares = 0, vav = 0;
        for (size_t i = 0; i < n; i++) {
            v[i] = rng_normal(&rng);
            squares += v[i] * v[i];
        }
        for (size_t i = 0; i < n; i++) {
            av[i] = 0;
            for (size_t j = 0; j < n; j++)
                av[i] += a[i * n + j] * v[j];
            vav += v[i] * av[i];
        }
        for (size_t i = 0; i < n; i++)
            for (size_t j = 0; j < n; j++)
                a[i * n + j] += -2 / squares * (v[i] * av[j] + av[i] * v[j]) +
                                4 / squares * vav / squares * v[i] * v[j];
    }
    free(v);
    free(av);
    return a;
}

static double *new_random_matrix(size_t n, uint32_t index) {
    double *a = new_doubles(n * n);
    struct rng rng = test_stream(index);
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j <= i; j++)
            a[i * n + j] = a[j * n + i] = rng_normal(&rng);
    return a;
}

static double *copy(const double *x, size_t n) {
    double *y = new_doubles(n);
    memcpy(y, x, n * sizeof *y);
    return y;
}

/* Of a copy whose upper triangle is nonsense. */
static void solve(int members, size_t n, size_t k, const double *a, double *values,
                  double *vectors) {
    struct ovr_err err = {0};
    struct team *team = new_team(members);
    double *spoilt = copy(a, n * n);
    for (size_t i = 0; i < n; i++)
        for (size_t j = i + 1; j < n; j++)
            spoilt[i * n + j] = NAN;
    assert_ok(
        eigen_symmetric(team, kernels_get(ISA_AUTO), n, k, spoilt, values, vectors, NULL, &err),
        &err);
    free(spoilt);
    team_free(team);
}

static void check_vectors(size_t n, size_t k, const double *a, double norm, const double *values,
                          const double *vectors) {
    double tolerance = 1e-14 * (double)(n + 10);
    for (size_t v = 0; v < k; v++) {
        double residual = 0;
        for (size_t i = 0; i < n; i++) {
            double product = -values[v] * vectors[v * n + i];
            for (size_t j = 0; j < n; j++)
                product += a[i * n + j] * vectors[v * n + j];
            residual += product * product;
        }
        assert_near(sqrt(residual), 0, tolerance * norm);
        for (size_t u = 0; u <= v; u++) {
            double dot = 0;
            for (size_t i = 0; i < n; i++)
                dot += vectors[u * n + i] * vectors[v * n + i];
            assert_near(dot, u == v, tolerance);
        }
    }
}

/* Takes `a` over. */
static void check(size_t n, size_t k, double *a) {
    double *values = new_doubles(k), *vectors = new_doubles(k * n), *expected = new_doubles(n);
    solve(2, n, k, a, values, vectors);
    double *spoilt = copy(a, n * n), none;
    lapack_int found, order = (lapack_int)n, support[2];
    assert_int_equal(LAPACKE_dsyevr(LAPACK_ROW_MAJOR, 'N', 'A', 'L', order, spoilt, order, 0, 0, 0,
                                    0, 0, &found, expected, &none, order, support),
                     0);
    double norm = fmax(fabs(expected[0]), fabs(expected[n - 1]));
    for (size_t v = 0; v < k; v++)
        assert_near(values[v], expected[n - 1 - v], 1e-14 * (double)(n + 10) * norm);
    check_vectors(n, k, a, norm, values, vectors);
    free(a);
    free(spoilt);
    free(values);
    free(vectors);
    free(expected);
}

/* Around the sizes of panels, chunks and tiles. */
static void random_matrices(void **state) {
    (void)state;
    const size_t sizes[] = {1, 2, 3, 8, 9, 32, 33, 34, 65, 129, 130, 131, 290};
    for (size_t i = 0; i < COUNT(sizes); i++) {
        check(sizes[i], sizes[i], new_random_matrix(sizes[i], (uint32_t)i));
        check(sizes[i], (sizes[i] + 3) / 4, new_random_matrix(sizes[i], (uint32_t)i));
    }
}

static void by_hand(void **state) {
    (void)state;
    const double one[] = {-3}, two[] = {2, 1, 1, 2};
    double values[2], vectors[4];
    solve(1, 1, 1, one, values, vectors);
    assert_true(values[0] == -3 && fabs(vectors[0]) == 1);
    solve(1, 2, 2, two, values, vectors);
    assert_near(values[0], 3, 1e-15);
    assert_near(values[1], 1, 1e-15);
    assert_near(vectors[0] * vectors[1], 0.5, 1e-15);
    assert_near(vectors[2] * vectors[3], -0.5, 1e-15);
}

enum { N = 150 };

static void clustered_spectra(void **state) {
    (void)state;
    double equal[N], tight[N], apart[N];
    struct rng rng = test_stream(30);
    for (size_t i = 0; i < N; i++) {
        equal[i] = 1 + (double)(i % 3);
        tight[i] = 1 + 1e-13 * rng_normal(&rng);
        apart[i] = pow(10, -(double)i / 5); /* down to 1e-30 */
    }
    check(N, N, new_matrix(N, equal, 31));
    check(N, N / 2, new_matrix(N, equal, 31));
    check(N, N, new_matrix(N, tight, 32));
    check(N, N, new_matrix(N, apart, 33));
    check(N, N / 3, new_matrix(N, apart, 33));
}

static void rank_deficient(void **state) {
    (void)state;
    double spectrum[N] = {5, 4, 3, 2, 1, 1, -2};
    check(N, N, new_matrix(N, spectrum, 34));
    check(N, 9, new_matrix(N, spectrum, 34));
    check(N, N, new_doubles(N * N));
    check(N, 2, new_doubles(N * N));
}

/* Wilkinson's matrices, weakly joined: clusters on which dstemr gives up, for all vectors. */
static void glued_wilkinson_matrices(void **state) {
    (void)state;
    enum { ONE = 21, COPIES = 5, ALL = ONE * COPIES };
    for (size_t k = 0; k < 4; k++) {
        double *a = new_doubles(ALL * ALL), glue = pow(10, -14 + 2 * (double)k);
        for (size_t i = 0; i < ALL; i++) {
            a[i * ALL + i] = fabs((double)(i % ONE) - ONE / 2);
            if (i)
                a[i * ALL + i - 1] = a[(i - 1) * ALL + i] = i % ONE ? 1 : glue;
        }
        check(ALL, k ? ALL / k : ALL, a);
    }
}

/* Rows with nothing to reflect, and blocks that fall apart. */
static void sparse_matrices(void **state) {
    (void)state;
    double *diagonal = new_doubles(N * N), *blocks = new_random_matrix(N, 35);
    double *tridiagonal = new_random_matrix(N, 36);
    for (size_t i = 0; i < N; i++)
        for (size_t j = 0; j < N; j++) {
            diagonal[i * N + j] = i == j ? (double)(i * 7 % 31) : 0;
            blocks[i * N + j] *= i / 40 == j / 40;
            tridiagonal[i * N + j] *= i <= j + 1 && j <= i + 1;
        }
    check(N, N, diagonal);
    check(N, N, blocks);
    check(N, 20, tridiagonal);
}

static void very_large_and_small_elements(void **state) {
    (void)state;
    const double scales[] = {1e-140, 1e140};
    for (size_t s = 0; s < COUNT(scales); s++) {
        double *a = new_random_matrix(70, 37);
        for (size_t i = 0; i < 70 * 70; i++)
            a[i] *= scales[s];
        check(70, 30, a);
    }
}

/* An odd size with several tiles, chunks, panels and slices of vectors, the last ones ragged. */
static void same_bits_for_any_team(void **state) {
    (void)state;
    enum { SIZE = 523, WANTED = 150 };
    double *a = new_random_matrix(SIZE, 38), first_values[WANTED], values[WANTED];
    double *first = new_doubles(WANTED * SIZE), *vectors = new_doubles(WANTED * SIZE);
    solve(TEAM_SIZES[0], SIZE, WANTED, a, first_values, first);
    for (size_t i = 1; i < COUNT(TEAM_SIZES); i++) {
        memset(vectors, 0, WANTED * SIZE * sizeof *vectors);
        solve(TEAM_SIZES[i], SIZE, WANTED, a, values, vectors);
        assert_memory_equal(values, first_values, sizeof values);
        assert_memory_equal(vectors, first, WANTED * SIZE * sizeof *vectors);
    }
    free(a);
    free(first);
    free(vectors);
}

static int fails(double *a, size_t n, const _Atomic int *stop, struct ovr_err *err) {
    struct team *team = new_team(2);
    double *values = new_doubles(n), *vectors = new_doubles(n * n);
    int rc = eigen_symmetric(team, kernels_get(ISA_AUTO), n, n, a, values, vectors, stop, err);
    free(values);
    free(vectors);
    team_free(team);
    return rc;
}

static void not_finite_is_refused(void **state) {
    (void)state;
    const double bad[] = {NAN, INFINITY, -INFINITY};
    const size_t places[][2] = {{0, 0}, {1, 0}, {70, 30}, {99, 99}, {99, 0}, {99, 98}};
    for (size_t b = 0; b < COUNT(bad); b++)
        for (size_t p = 0; p < COUNT(places); p++) {
            struct ovr_err err = {0};
            double *a = new_random_matrix(100, 39);
            a[places[p][0] * 100 + places[p][1]] = bad[b];
            int rc = fails(a, 100, NULL, &err);
            assert_failed(rc, OVR_INVALID, &err, "not finite");
            free(a);
        }
    struct ovr_err err = {0};
    double one = NAN;
    int rc = fails(&one, 1, NULL, &err);
    assert_failed(rc, OVR_INVALID, &err, "not finite");
}

static void stop_flag_is_obeyed(void **state) {
    (void)state;
    const _Atomic int stop = 1;
    struct ovr_err err = {0};
    double *a = new_random_matrix(100, 40);
    int rc = fails(a, 100, &stop, &err);
    assert_failed(rc, OVR_STOPPED, &err, "stopped");
    free(a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_matrices),
        cmocka_unit_test(by_hand),
        cmocka_unit_test(clustered_spectra),
        cmocka_unit_test(rank_deficient),
        cmocka_unit_test(glued_wilkinson_matrices),
        cmocka_unit_test(sparse_matrices),
        cmocka_unit_test(very_large_and_small_elements),
        cmocka_unit_test(same_bits_for_any_team),
        cmocka_unit_test(not_finite_is_refused),
        cmocka_unit_test(stop_flag_is_obeyed),
    };
    return cmocka_run_group_tests_name("core/eigen", tests, start_blas, NULL);
}
