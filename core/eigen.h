/* Eigenvectors of a dense symmetric matrix on a team: the leading k of them, as PCA needs them.
 *
 *   A = Q T Qᵀ   Householder's reduction to tridiagonal form, in panels of columns (Dongarra,
 *                Sorensen & Hammarling 1989)
 *   T y = λ y    relatively robust representations (Dhillon & Parlett 2004), LAPACK's dstemr
 *   x = Q y      the reflectors once more, a panel at a time (Schreiber & Van Loan 1989)
 *
 * float64. All sums run over fixed pieces in a fixed order and BLAS is called with shapes that
 * depend on n and k alone, so the bits do not depend on the number of members.
 */
#ifndef OVR_EIGEN_H
#define OVR_EIGEN_H

#include "core/kernels.h"
#include "core/team.h"

/* The `k` largest eigenvalues of the symmetric n×n matrix `a` (lower triangle; all of it is
 * spoilt), in falling order, into `values` (k), with unit eigenvectors in the rows of `vectors`
 * (k×n). 1 <= k <= n < 2^31; elements are 0 or of a size between 1e-140 and 1e140. *stop (or NULL)
 * asks for OVR_STOPPED; it is looked at between panels and slices, but T y = λ y, half a second
 * for n = 3072 and k = 781, ends first. OVR_INVALID where an element is not finite. */
int eigen_symmetric(struct team *team, const struct kernels *kernels, size_t n, size_t k, double *a,
                    double *values, double *vectors, const _Atomic int *stop, struct ovr_err *err);

/* Bytes that it needs beside its arguments. */
size_t eigen_memory(size_t n, size_t k, int members);

#endif
