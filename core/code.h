/* The sparse code of a whole split: what a probe trains on.
 *
 * Only non-zero activations are stored, five bytes each, sample by sample and within a sample shard
 * by shard, so that a member reads its part of a sample's code in one run.
 */
#ifndef OVR_CODE_H
#define OVR_CODE_H

#include "core/net.h"

enum { CODE_BLOCK = 128 };

/* The active units of up to CODE_BLOCK consecutive samples. */
struct code_block {
    real *value;
    uint8_t *unit; /* within its shard */
};

struct code {
    size_t n, n_units, n_shards;
    /* [sample·(n_shards + 1) + shard]: where in its block a shard's run begins; last: its end */
    uint32_t *start;
    struct code_block *blocks;
    const uint16_t *labels; /* n; borrowed */
    struct arena *rooms;    /* n_rooms; the blocks lie in these, the last one takes the next */
    size_t n_rooms;
};

int code_new(struct code **code, size_t n, size_t n_units, const uint16_t *labels,
             struct ovr_err *err);
void code_free(struct code *code);

/* What it takes in memory when a share `active` of the activations is not zero. */
size_t code_bytes(size_t n, size_t n_units, double active);

/* By every member, after net_forward() of samples first .. first + n − 1, a whole block. Returns
 * OVR_NOMEM for all members alike. */
int code_add(struct member *member, struct code *code, const struct net *net, size_t first,
             size_t n);

static inline const struct code_block *code_block(const struct code *code, size_t sample) {
    return &code->blocks[sample / CODE_BLOCK];
}

/* Where a sample's runs begin in its block, one for each shard, and where the last one ends. */
static inline const uint32_t *code_starts(const struct code *code, size_t sample) {
    return code->start + sample * (code->n_shards + 1);
}

/* The non-zero values of one sample in one shard: their number, units and values. */
static inline size_t code_run(const struct code *code, size_t sample, size_t shard,
                              const uint8_t **unit, const real **value) {
    const struct code_block *block = code_block(code, sample);
    const uint32_t *start = code_starts(code, sample) + shard;
    *unit = block->unit + start[0];
    *value = block->value + start[0];
    return start[1] - start[0];
}

#endif
