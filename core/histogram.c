#include "core/histogram.h"

#include <math.h>

/* 0.1·2^(j/4): four literals an octave, doubled exactly from there. */
#define OCTAVE(x)                                                                                  \
    0.1 * (x), 0.11892071150027210667 * (x), 0.14142135623730950488 * (x),                         \
        0.16817928305074290861 * (x)
const double histogram_edges[HISTOGRAM_BINS] = {
    0,           OCTAVE(0.0625), OCTAVE(0.125), OCTAVE(0.25), OCTAVE(0.5), OCTAVE(1),
    OCTAVE(2),   OCTAVE(4),      OCTAVE(8),     OCTAVE(16),   OCTAVE(32),  OCTAVE(64),
    OCTAVE(128), OCTAVE(256),    OCTAVE(512),   102.4,
};
enum { NEAR_ZERO_BINS = 17 }; /* bins below 0.1 */

void histogram_add(struct histogram *to, const struct histogram *from) {
    to->zero_count += from->zero_count;
    to->total += from->total;
    for (size_t bin = 0; bin < HISTOGRAM_BINS; bin++)
        to->counts[bin] += from->counts[bin];
    to->maximum = fmax(to->maximum, from->maximum);
}

uint64_t histogram_near_zero(const struct histogram *h) {
    uint64_t near = h->zero_count;
    for (size_t bin = 0; bin < NEAR_ZERO_BINS; bin++)
        near += h->counts[bin];
    return near;
}

/* The mean of |d| over a bin where d runs in a straight line from x to y. */
static double mean_gap(double x, double y) {
    double sum = fabs(x) + fabs(y);
    return x * y >= 0 ? sum / 2 : (x * x + y * y) / (2 * sum);
}

struct histogram_distance histogram_compare(const struct histogram *a, const struct histogram *b) {
    if (!a->total || !b->total)
        return (struct histogram_distance){NAN, NAN};
    double n_a = (double)a->total, n_b = (double)b->total;
    double below_a = (double)a->zero_count, below_b = (double)b->zero_count;
    double top = fmax(histogram_edges[HISTOGRAM_BINS - 1], fmax(a->maximum, b->maximum));
    double gap = below_a / n_a - below_b / n_b;
    struct histogram_distance distance = {.ks = fabs(gap)};
    for (size_t bin = 0; bin < HISTOGRAM_BINS; bin++) {
        double end = bin + 1 < HISTOGRAM_BINS ? histogram_edges[bin + 1] : top;
        below_a += (double)a->counts[bin];
        below_b += (double)b->counts[bin];
        double next = below_a / n_a - below_b / n_b;
        distance.wasserstein += (end - histogram_edges[bin]) * mean_gap(gap, next);
        distance.ks = fmax(distance.ks, fabs(next));
        gap = next;
    }
    return distance;
}
