#include "core/linalg.h"

#include "core/cpu.h"

#include <cblas.h>
#include <lapacke.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#ifdef OVR_FLOAT64
#define GEMM cblas_dgemm
#define SYRK cblas_dsyrk
#else
#define GEMM cblas_sgemm
#define SYRK cblas_ssyrk
#endif

static void gemm(CBLAS_TRANSPOSE ta, CBLAS_TRANSPOSE tb, size_t m, size_t n, size_t k,
                 const real *a, size_t lda, const real *b, size_t ldb, real beta, real *c,
                 size_t ldc) {
    GEMM(CblasRowMajor, ta, tb, (blasint)m, (blasint)n, (blasint)k, 1, a, (blasint)lda, b,
         (blasint)ldb, beta, c, (blasint)ldc);
}

void linalg_gemm(size_t m, size_t n, size_t k, const real *a, size_t lda, const real *b, size_t ldb,
                 real beta, real *c, size_t ldc) {
    gemm(CblasNoTrans, CblasNoTrans, m, n, k, a, lda, b, ldb, beta, c, ldc);
}

void linalg_gemm_nt(size_t m, size_t n, size_t k, const real *a, size_t lda, const real *b,
                    size_t ldb, real beta, real *c, size_t ldc) {
    gemm(CblasNoTrans, CblasTrans, m, n, k, a, lda, b, ldb, beta, c, ldc);
}

void linalg_gemm_tn(size_t m, size_t n, size_t k, const real *a, size_t lda, const real *b,
                    size_t ldb, real beta, real *c, size_t ldc) {
    gemm(CblasTrans, CblasNoTrans, m, n, k, a, lda, b, ldb, beta, c, ldc);
}

void linalg_syrk(size_t n, size_t k, const real *a, size_t lda, real *c, size_t ldc) {
    SYRK(CblasRowMajor, CblasLower, CblasTrans, (blasint)n, (blasint)k, 1, a, (blasint)lda, 0, c,
         (blasint)ldc);
}

void linalg_gemm64(int a_transposed, int b_transposed, size_t m, size_t n, size_t k, double alpha,
                   const double *a, size_t lda, const double *b, size_t ldb, double beta, double *c,
                   size_t ldc) {
    cblas_dgemm(CblasRowMajor, a_transposed ? CblasTrans : CblasNoTrans,
                b_transposed ? CblasTrans : CblasNoTrans, (blasint)m, (blasint)n, (blasint)k, alpha,
                a, (blasint)lda, b, (blasint)ldb, beta, c, (blasint)ldc);
}

void linalg_gemv64(int a_transposed, size_t m, size_t n, double alpha, const double *a, size_t lda,
                   const double *x, double beta, double *y) {
    cblas_dgemv(CblasRowMajor, a_transposed ? CblasTrans : CblasNoTrans, (blasint)m, (blasint)n,
                alpha, a, (blasint)lda, x, 1, beta, y, 1);
}

/* The pairs of a 2×2 matrix, which dstemr takes for one another when it is asked for one of them
 * and the larger eigenvalue is not the one of larger size. */
static void turn_pair(const double *diagonal, double off, size_t number, double *value,
                      double *vector) {
    double angle = 0.5 * atan2(2 * off, diagonal[0] - diagonal[1]) + (double)number * acos(0);
    double c = cos(angle), s = sin(angle);
    *value = c * c * diagonal[0] + 2 * c * s * off + s * s * diagonal[1];
    vector[0] = c;
    vector[1] = s;
}

/* -T, whose eigenvalues rise where those of T fall. */
static void negate(size_t n, const double *diagonal, const double *off, double *d, double *e) {
    for (size_t i = 0; i < n; i++) {
        d[i] = -diagonal[i];
        e[i] = i + 1 < n ? -off[i] : 0;
    }
}

static void sort_pairs(size_t n, size_t k, double *values, double *vectors) {
    for (size_t i = 0; i < k; i++) {
        size_t least = i;
        for (size_t j = i + 1; j < k; j++)
            least = values[j] < values[least] ? j : least;
        double value = values[i], *x = vectors + i * n, *y = vectors + least * n;
        values[i] = values[least];
        values[least] = value;
        for (size_t j = 0; least != i && j < n; j++) {
            double swap = x[j];
            x[j] = y[j];
            y[j] = swap;
        }
    }
}

/* Bisection and inverse iteration: slower, and it comes to terms with very tight clusters on which
 * dstemr gives up. `lists` has room for 2·n + k numbers. */
static lapack_int iterate_inverse(size_t n, size_t first, size_t k, const double *d,
                                  const double *e, double *w, double *vectors, lapack_int *lists) {
    lapack_int order = (lapack_int)n, found = 0, n_blocks, *block = lists, *end = lists + n;
    lapack_int info =
        LAPACKE_dstebz('I', 'B', order, 0, 0, (lapack_int)first + 1, (lapack_int)(first + k), 0, d,
                       e, &found, &n_blocks, w, block, end);
    if (!info && found == (lapack_int)k)
        info = LAPACKE_dstein(LAPACK_COL_MAJOR, order, d, e, found, w, block, end, vectors, order,
                              lists + 2 * n);
    if (!info && found == (lapack_int)k)
        sort_pairs(n, k, w, vectors);
    return info ? info : (lapack_int)k - found;
}

int linalg_solve64(size_t n, size_t m, double *a, double *b, struct ovr_err *err) {
    /* Column by column a row of b is a column, and a symmetric matrix is the same. */
    int info = LAPACKE_dposv(LAPACK_COL_MAJOR, 'L', (lapack_int)n, (lapack_int)m, a, (lapack_int)n,
                             b, (lapack_int)n);
    if (info < 0)
        return ovr_fail(err, OVR_NOMEM, NULL, "not enough memory to solve for %zu unknowns", n);
    return info ? ovr_fail(err, OVR_INVALID, NULL, "the matrix is not positive definite") : 0;
}

int linalg_tridiagonal(size_t n, size_t first, size_t k, const double *diagonal, const double *off,
                       double *values, double *vectors, struct ovr_err *err) {
    for (size_t i = 0; n == 2 && i < k; i++)
        turn_pair(diagonal, off[0], first + i, values + i, vectors + 2 * i);
    if (n == 2)
        return 0;
    double *d = ovr_malloc(3 * n, sizeof *d), *e = d + n, *w = e + n;
    lapack_int *lists = ovr_malloc(2 * n + k, sizeof *lists), found = 0, order = (lapack_int)n;
    int rc = d && lists ? 0 : ovr_nomem(err, "the eigenvectors of a tridiagonal matrix");
    if (rc)
        goto out;
    negate(n, diagonal, off, d, e);
    lapack_logical relative = 1;
    lapack_int info = LAPACKE_dstemr(LAPACK_COL_MAJOR, 'V', 'I', order, d, e, 0, 0,
                                     (lapack_int)first + 1, (lapack_int)(first + k), &found, w,
                                     vectors, order, (lapack_int)k, lists, &relative);
    if (info > 0 || (!info && found != (lapack_int)k)) {
        negate(n, diagonal, off, d, e);
        info = iterate_inverse(n, first, k, d, e, w, vectors, lists);
    }
    if (info == LAPACK_WORK_MEMORY_ERROR)
        rc = ovr_nomem(err, "the eigenvectors of a tridiagonal matrix");
    else if (info)
        rc = ovr_fail(err, OVR_INTERNAL, NULL, "LAPACK's eigensolver failed with info %d",
                      (int)info);
    for (size_t i = 0; !rc && i < k; i++)
        values[i] = -w[i];
out:
    free(d);
    free(lists);
    return rc;
}

size_t linalg_tridiagonal_memory(size_t n, size_t k) {
    return (3 + 18) * n * sizeof(double) + (2 * n + k + 10 * n) * sizeof(lapack_int);
}

/* SSE3: every x86-64 processor that OpenBLAS supports. */
static const char OLDEST_KERNEL[] = "Prescott";

/* Name for OPENBLAS_CORETYPE that suits this processor. */
static const char *wanted_kernel(void) {
    switch (isa_best()) {
    case ISA_AVX512:
        return "SkylakeX";
    case ISA_AVX2:
        return "Haswell";
    default:
        return OLDEST_KERNEL;
    }
}

/* Odd sizes, so that the edges of the kernel's tiles are checked too. */
static int product_is_right(void) {
    enum { M = 67, N = 131, K = 203 };
    real *a = ovr_malloc(M * K, sizeof *a), *b = ovr_malloc(N * K, sizeof *b);
    real *c = ovr_calloc(M * N, sizeof *c);
    int right = a && b && c;
    for (int i = 0; right && i < M * K; i++)
        a[i] = (real)((i * 37 % 101) - 50) / 64;
    for (int i = 0; right && i < N * K; i++)
        b[i] = (real)((i * 53 % 97) - 48) / 64;
    if (right)
        linalg_gemm_nt(M, N, K, a, K, b, K, 0, c, N);
    for (int i = 0; right && i < M; i++)
        for (int j = 0; right && j < N; j++) {
            double sum = 0;
            for (int l = 0; l < K; l++)
                sum += (double)a[i * K + l] * b[j * K + l];
            right = fabs(sum - c[i * N + j]) <= 1e-3;
        }
    free(a);
    free(b);
    free(c);
    return right;
}

static char library[32] = "OpenBLAS"; /* "OpenBLAS 0.3.21" once linalg_init() has asked */

int linalg_init(struct ovr_err *err) {
    openblas_set_num_threads(1);
    char name[16], version[16];
    if (sscanf(openblas_get_config(), "%15s %15s", name, version) == 2)
        snprintf(library, sizeof library, "%s %s", name, version);
    if (!product_is_right())
        return ovr_fail(err, OVR_INTERNAL, "blas",
                        "OpenBLAS's kernel %s computes a wrong product on this machine",
                        linalg_kernel());
    return 0;
}

/* OVRD_BLAS_TRIED says which kernel the last start asked for, so that this ends. */
static void restart_with(const char *kernel, char **argv) {
    setenv("OPENBLAS_CORETYPE", kernel, 1);
    setenv("OVRD_BLAS_TRIED", kernel, 1);
    setenv("OPENBLAS_NUM_THREADS", "1", 1);
    setenv("OMP_NUM_THREADS", "1", 1);
    execv("/proc/self/exe", argv); /* where it fails we go on with what was loaded */
}

static const char *named_kernel;

int linalg_start(const char *kernel, char **argv, struct ovr_err *err) {
    const char *tried = getenv("OVRD_BLAS_TRIED");
    named_kernel = kernel || tried ? kernel : getenv("OPENBLAS_CORETYPE");
    if (!tried && (kernel || !getenv("OPENBLAS_CORETYPE")))
        restart_with(kernel ? kernel : wanted_kernel(), argv);
    int rc = linalg_init(err);
    if (rc && !kernel && tried && strcmp(tried, OLDEST_KERNEL))
        restart_with(OLDEST_KERNEL, argv);
    return rc;
}

const char *linalg_named_kernel(void) {
    return named_kernel;
}

double linalg_speed(void) {
    enum { M = 128, N = 512, K = 512, TIMES = 4 };
    real *a = ovr_calloc(M * K, sizeof *a), *b = ovr_calloc(N * K, sizeof *b);
    real *c = ovr_calloc(M * N, sizeof *c);
    double best = 1e9; /* a slow machine, should there be no memory */
    for (int i = 0; a && b && c && i < TIMES; i++) {
        struct timespec from, to;
        clock_gettime(CLOCK_MONOTONIC, &from);
        linalg_gemm_nt(M, N, K, a, K, b, K, 0, c, N);
        clock_gettime(CLOCK_MONOTONIC, &to);
        double seconds =
            (double)(to.tv_sec - from.tv_sec) + 1e-9 * (double)(to.tv_nsec - from.tv_nsec);
        best = fmax(best, 2.0 * M * N * K / fmax(seconds, 1e-9));
    }
    free(a);
    free(b);
    free(c);
    return best;
}

const char *linalg_library(void) {
    return library;
}

const char *linalg_kernel(void) {
    return openblas_get_corename();
}
