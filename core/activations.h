/* The activations of one hidden layer for a batch, cut into shards of units: what a net leaves
 * after its forward pass, and what measures, histograms and probes read. */
#ifndef OVR_ACTIVATIONS_H
#define OVR_ACTIVATIONS_H

#include "core/kernels.h"
#include "core/team.h"

struct shard {
    size_t index, first, units; /* units first .. first + units - 1 */
};

_Static_assert(BY_UNIT == BY_SHARD * SHARD_UNITS, "a rank has whole shards");

static inline size_t count_shards(size_t n_units) {
    return (n_units + SHARD_UNITS - 1) / SHARD_UNITS;
}

struct activations {
    const struct kernels *kernels;
    size_t n_units, n_shards;
    size_t max_rows; /* of any batch */
    const real *h;   /* shard k0 at h + max_rows·k0: n×(units of the shard); may be negative */
    const double *squares; /* ‖h_i‖², n */
};

static inline struct shard activations_shard(const struct activations *a, size_t index) {
    size_t first = index * SHARD_UNITS;
    return (struct shard){index, first, min_size(SHARD_UNITS, a->n_units - first)};
}

/* n×shard->units */
static inline const real *activations_of(const struct activations *a, const struct shard *shard) {
    return a->h + a->max_rows * shard->first;
}

#endif
