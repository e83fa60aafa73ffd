/* Histograms of activations: how they add up and how far two of them are apart.
 *
 * A histogram is of |h|. It has an atom at 0 (exact zeros are counted apart) and fixed edges that
 * all experiments share: 0, then 0.1·2^(j/4) for j = −16 … 40, and a last bin without an upper
 * edge. 0.1 is an edge, so near_zero follows from the counts.
 *
 * Within a bin the mass counts as spread evenly, so the distribution function F is a polygon that
 * starts at zero_count/total. With d_b = F_a − F_b at edge b, from the first one (after the atom)
 * to a last one that covers both maxima:
 *
 *   Kolmogorov–Smirnov   max_b |d_b|
 *   Wasserstein-1        ∫ |F_a − F_b| = Σ_b width_b·q_b, where
 *                        q_b = (|d_b| + |d_{b+1}|)/2 for equal signs,
 *                        else (d_b² + d_{b+1}²)/(2(|d_b| + |d_{b+1}|))
 */
#ifndef OVR_HISTOGRAM_H
#define OVR_HISTOGRAM_H

#include <stddef.h>
#include <stdint.h>

enum { HISTOGRAM_BINS = 58 };

/* Lower edges of the bins; the last bin is open above. edges[0] = 0. */
extern const double histogram_edges[HISTOGRAM_BINS];

struct histogram {
    uint64_t zero_count, total; /* total = zero_count + Σ counts */
    uint64_t counts[HISTOGRAM_BINS];
    double maximum; /* the top edge, where it is above the last lower edge */
};

/* Adds the counts of `from`: the histogram of both samples together. */
void histogram_add(struct histogram *to, const struct histogram *from);

/* Values below 0.1, zeros included. */
uint64_t histogram_near_zero(const struct histogram *histogram);

struct histogram_distance {
    double ks, wasserstein; /* NaN when either is empty */
};

struct histogram_distance histogram_compare(const struct histogram *a, const struct histogram *b);

#endif
