/* Dense linear algebra: the only door to BLAS and LAPACK.
 *
 * Matrices are row-major with a leading dimension (`ld`, elements from one row to the next). BLAS
 * is always called with one thread, from inside a shard; parallelism is the team's. At a fixed
 * kernel and shape the results repeat bit for bit.
 *
 * OpenBLAS chooses its kernel when the library is loaded, which is before main(), and falls back to
 * a very slow one on processors that are newer than itself. So a program calls linalg_start() first
 * thing.
 */
#ifndef OVR_LINALG_H
#define OVR_LINALG_H

#include "core/err.h"
#include "core/real.h"

/* What a thread's large products touch of OpenBLAS's own buffers: 5 to 7 MB with its AVX2 and
 * AVX-512 kernels. */
enum { LINALG_BUFFER_BYTES = 6 << 20 };

/* c (m×n) = a (m×k) · b (k×n) + beta·c, `_nt`: b is stored n×k, `_tn`: a is stored k×m. */
void linalg_gemm(size_t m, size_t n, size_t k, const real *a, size_t lda, const real *b, size_t ldb,
                 real beta, real *c, size_t ldc);
void linalg_gemm_nt(size_t m, size_t n, size_t k, const real *a, size_t lda, const real *b,
                    size_t ldb, real beta, real *c, size_t ldc);
void linalg_gemm_tn(size_t m, size_t n, size_t k, const real *a, size_t lda, const real *b,
                    size_t ldb, real beta, real *c, size_t ldc);

/* The lower triangle of c (n×n) = aᵀ · a, a stored k×n. */
void linalg_syrk(size_t n, size_t k, const real *a, size_t lda, real *c, size_t ldc);

/* Products in float64, in either build: c = alpha·op(a)·op(b) + beta·c. */
void linalg_gemm64(int a_transposed, int b_transposed, size_t m, size_t n, size_t k, double alpha,
                   const double *a, size_t lda, const double *b, size_t ldb, double beta, double *c,
                   size_t ldc);

/* y = alpha·op(a)·x + beta·y with an m×n matrix a, float64. */
void linalg_gemv64(int a_transposed, size_t m, size_t n, double alpha, const double *a, size_t lda,
                   const double *x, double beta, double *y);

/* The solutions x of a·x = b for m right sides, in the rows of b (m×n), which they replace; a (n×n)
 * is symmetric and positive definite, and is used up. OVR_INVALID where it is not. */
int linalg_solve64(size_t n, size_t m, double *a, double *b, struct ovr_err *err);

/* The eigenvalues number first .. first + k - 1, in falling order from number 0 on, of the
 * symmetric tridiagonal n×n matrix with this diagonal and these n - 1 elements beside it, into
 * `values` (k), with unit eigenvectors in the rows of `vectors` (k×n). */
int linalg_tridiagonal(size_t n, size_t first, size_t k, const double *diagonal, const double *off,
                       double *values, double *vectors, struct ovr_err *err);
size_t linalg_tridiagonal_memory(size_t n, size_t k); /* bytes that it needs meanwhile */

/* Chooses the kernel and checks it; call it first thing in main(). When the environment does not
 * name a kernel in OPENBLAS_CORETYPE, or `kernel` is not NULL, the environment is set and the
 * program starts itself again with `argv`; if the kernel then computes a wrong product, once more
 * with the oldest kernel. A kernel that the user names is never changed. Fails with OVR_INTERNAL
 * when the kernel computes wrong on this machine. */
int linalg_start(const char *kernel, char **argv, struct ovr_err *err);

/* That the user named; NULL: it was chosen by the processor. After linalg_start(). */
const char *linalg_named_kernel(void);

/* The part of it that needs no restart: one BLAS thread, and the check. */
int linalg_init(struct ovr_err *err);

/* Floating-point operations a second of one thread's matrix products, measured for a few
 * milliseconds. */
double linalg_speed(void);

const char *linalg_library(void); /* "OpenBLAS 0.3.21" */
const char *linalg_kernel(void);  /* "Haswell" */

#endif
