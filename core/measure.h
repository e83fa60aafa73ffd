/* What a code looks like on a whole split: sparsity, histogram, dead units, overlap. Everything is
 * of magnitudes |h|: activations may be negative.
 *
 *   near_zero   share of |h| < 0.1                     zero   share exactly 0
 *   mean_activation   Σ h/(n·K), with its sign, as the activity term of J has it
 *   overlap     (‖ŝ‖² − n₊)/(n₊(n₊ − 1)), the mean cosine of two different samples' codes; n₊ codes
 *               are not zero
 *   dead unit   max_i |h_ik| = 0
 *   over_samples   core/sparsity.h's three of each row, m = K: means over codes that are not zero
 *   active units   of a sample: those with h ≠ 0
 *
 * Gini needs each row sorted: seven nanoseconds for each activation that is not zero, 2 % of an
 * epoch of the reference experiment. The same three over units (each column, m = samples) need the
 * whole split at once and are part of the final table of units (core/units.h).
 */
#ifndef OVR_MEASURE_H
#define OVR_MEASURE_H

#include "core/activations.h"
#include "core/arena.h"
#include "core/histogram.h"
#include "core/sparsity.h"
#include "core/team.h"

/* The quantiles that are reported of a layer's biases: 0, ¼, ½, ¾, 1. */
enum { BIAS_QUANTILES = 5 };

struct bias_measures {
    size_t n;                        /* 0: the layer has none */
    double negative;                 /* share below 0 */
    double quantile[BIAS_QUANTILES]; /* linear between neighbours, as numpy's default */
};

struct measures {
    double near_zero, zero, mean_activation;
    double overlap;               /* NaN with fewer than two non-zero codes */
    struct sparsity over_samples; /* NaN without a non-zero code */
    struct {
        double mean, sd; /* sd: of these samples, divided by their number */
        size_t min, max;
    } active_units;
    size_t dead_units, zero_codes; /* ‖h_i‖ ≤ 1e-12 */
    struct bias_measures bias;
    struct histogram histogram;
};

struct measure; /* running sums over the batches of a split */

/* Takes it from `arena`, which has to be zero. NULL when the arena only counts. */
struct measure *measure_place(const struct activations *activations, const struct crew *crew,
                              struct arena *arena);

/* By every member, in this order: reset, add after each forward pass, finish. Each row is looked at
 * as a whole, by one member, so add meets the others; ranks send each other what is active. `bias`
 * (K) may be NULL. */
void measure_reset(struct member *member, struct measure *measure);
void measure_add(struct member *member, struct measure *measure,
                 const struct activations *activations, size_t n);
void measure_finish(struct member *member, struct measure *measure, const real *bias,
                    struct measures *measures);

#endif
