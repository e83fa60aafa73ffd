/* What a code looks like on a whole split: sparsity, histogram, dead units, overlap.
 *
 *   near_zero   share of |h| < 0.1                     zero   share exactly 0
 *   overlap     (‖ŝ‖² − n₊)/(n₊(n₊ − 1)), the mean cosine of two different samples' codes; n₊ codes
 *               are not zero
 *   dead unit   max_i |h_ik| = 0
 *
 * The histogram has an atom at 0 (exact zeros are counted apart) and fixed edges that all
 * experiments share, so histograms add up and compare: 0, then 0.1·2^(j/4) for j = −16 … 40, and a
 * last bin without an upper edge. 0.1 is an edge, so near_zero follows from the counts.
 */
#ifndef OVR_MEASURE_H
#define OVR_MEASURE_H

#include "core/activations.h"
#include "core/arena.h"
#include "core/team.h"

enum { HISTOGRAM_BINS = 58 };

/* Lower edges of the bins; the last bin is open above. edges[0] = 0. */
extern const double histogram_edges[HISTOGRAM_BINS];

struct histogram {
    uint64_t zero_count, total;
    uint64_t counts[HISTOGRAM_BINS];
    double maximum; /* the top edge, where it is above the last lower edge */
};

struct measures {
    double near_zero, zero, overlap; /* overlap: NaN with fewer than two non-zero codes */
    size_t dead_units, zero_codes;
    struct histogram histogram;
};

struct measure; /* running sums over the batches of a split */

/* Takes it from `arena`, which has to be zero. NULL when the arena only counts. */
struct measure *measure_place(const struct activations *activations, int members,
                              struct arena *arena);

/* By every member, in this order: reset, add after each forward pass, finish. */
void measure_reset(struct member *member, struct measure *measure);
void measure_add(struct member *member, struct measure *measure,
                 const struct activations *activations, size_t n);
void measure_finish(struct member *member, struct measure *measure, struct measures *measures);

#endif
