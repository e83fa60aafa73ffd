/* The sparse code of a whole split: what a probe trains on. A rank has its own units' part of it.
 *
 * Only non-zero activations are stored, five bytes each, sample by sample and within a sample in
 * runs of RUN_UNITS units, so that a member reads its part of a sample's code in one go. A run is
 * filled up with zeros to a multiple of RUN_STEP.
 */
#ifndef OVR_CODE_H
#define OVR_CODE_H

#include "core/activations.h"
#include "core/arena.h"
#include "core/team.h"

enum { CODE_BLOCK = 128 };

/* A byte numbers the units of a run. */
enum { RUN_SHARDS = 2, RUN_UNITS = RUN_SHARDS * SHARD_UNITS };

/* The active units of up to CODE_BLOCK consecutive samples. */
struct code_block {
    real *value;
    uint8_t *unit; /* within its run */
};

struct code {
    size_t n, n_units, n_runs;
    uint32_t
        *start; /* [sample·(n_runs + 1) + run]: where in its block a run begins; last: the end */
    struct code_block *blocks;
    const uint16_t *labels; /* n; borrowed */
    /* While it is filled: */
    uint32_t *place;     /* CODE_BLOCK×shards: where a shard's active units go */
    struct arena *rooms; /* n_rooms; the blocks lie in these, the last one takes the next */
    size_t n_rooms;
};

size_t code_n_runs(size_t n_units);

int code_new(struct code **code, size_t n, size_t n_units, const uint16_t *labels,
             struct ovr_err *err);
void code_free(struct code *code);

/* What it takes in memory when a share `active` of the activations is not zero. */
size_t code_bytes(size_t n, size_t n_units, double active);

/* By every member, after the forward pass of samples first .. first + n − 1, a whole block. Returns
 * OVR_NOMEM for all members alike. */
int code_add(struct member *member, struct code *code, const struct activations *activations,
             size_t first, size_t n);

/* One sample's active units. Run r is at start[r] .. start[r + 1] − 1 of both arrays. */
struct code_sample {
    const uint8_t *unit;
    const real *value;
    const uint32_t *start; /* n_runs + 1 */
};

static inline struct code_sample code_sample(const struct code *code, size_t sample) {
    const struct code_block *block = &code->blocks[sample / CODE_BLOCK];
    return (struct code_sample){block->unit, block->value,
                                code->start + sample * (code->n_runs + 1)};
}

#endif
