/* How sparse a vector is, by three definitions (Hurley & Rickard 2009 compare them). v has m
 * elements, ℓ1 = Σ|v|, ℓ2 = √Σv²:
 *
 *   Hoyer          (√m − ℓ1/ℓ2)/(√m − 1)
 *   Treves–Rolls   (1 − A)/(1 − 1/m), A = ℓ1²/(m·ℓ2²)
 *   Gini           1 − 2 Σ_k (|v|_(k)/ℓ1)·(m − k + ½)/m, with |v| ascending, k = 1 … m
 *
 * All are 0 for equal elements and do not depend on the scale. Where only one element is not zero
 * the first two are 1 and Gini is 1 − 1/m.
 */
#ifndef OVR_SPARSITY_H
#define OVR_SPARSITY_H

#include "core/real.h"

struct sparsity {
    double hoyer, treves_rolls, gini;
};

/* Of a vector of m elements, of which `values` holds the n that are not zero, of either sign, in
 * any order; they come out as magnitudes and ascending. `scratch` has room for n. NaN for m = 1,
 * and for the zero vector (n = 0). */
struct sparsity sparsity_of(real *values, real *scratch, size_t n, size_t m);

/* Adds up what sparsity_of() gave, NaNs left out, for a mean over vectors. */
struct sparsity_sums {
    struct sparsity sum;
    size_t n;
};

void sparsity_sum(struct sparsity_sums *sums, const struct sparsity *one);
struct sparsity sparsity_mean(const struct sparsity_sums *sums); /* NaN of nothing */

#endif
