#include "core/code.h"

#include <stdlib.h>

int code_new(struct code **out, size_t n, size_t n_units, const uint16_t *labels,
             struct ovr_err *err) {
    *out = NULL;
    struct code *code = calloc(1, sizeof *code);
    if (!code)
        return ovr_nomem(err, "the codes of a split");
    code->n = n;
    code->n_units = n_units;
    code->n_shards = net_n_shards(n_units);
    code->labels = labels;
    code->blocks = calloc((n + CODE_BLOCK - 1) / CODE_BLOCK, sizeof *code->blocks);
    if (!code->blocks) {
        free(code);
        return ovr_nomem(err, "the codes of a split");
    }
    *out = code;
    return 0;
}

void code_free(struct code *code) {
    if (!code)
        return;
    for (size_t i = 0; i < (code->n + CODE_BLOCK - 1) / CODE_BLOCK; i++) {
        free(code->blocks[i].start);
        free(code->blocks[i].unit);
        free(code->blocks[i].value);
    }
    free(code->blocks);
    free(code);
}

size_t code_bytes(const struct code *code) {
    size_t bytes = sizeof *code, row = code->n_shards + 1;
    for (size_t first = 0; first < code->n; first += CODE_BLOCK) {
        size_t n = min_size(CODE_BLOCK, code->n - first);
        const struct code_block *block = &code->blocks[first / CODE_BLOCK];
        bytes += sizeof *block + n * row * sizeof *block->start;
        if (block->start)
            bytes += block->start[n * row - 1] * (sizeof *block->unit + sizeof *block->value);
    }
    return bytes;
}

/* Turns the counts in start[…][shard + 1] into offsets and allocates what they add up to. */
static void place_runs(struct code *code, struct code_block *block, size_t n) {
    size_t row = code->n_shards + 1;
    uint32_t at = 0;
    for (size_t i = 0; i < n; i++) {
        block->start[i * row] = at;
        for (size_t s = 1; s < row; s++)
            at = block->start[i * row + s] += at;
    }
    block->unit = ovr_malloc(at, sizeof *block->unit);
    block->value = ovr_malloc(at, sizeof *block->value);
}

static void count_shard(const struct code *code, struct code_block *block,
                        const struct shard *shard, const real *h, size_t n) {
    for (size_t i = 0; i < n; i++, h += shard->units) {
        uint32_t count = 0;
        for (size_t k = 0; k < shard->units; k++)
            count += h[k] != 0;
        block->start[i * (code->n_shards + 1) + shard->index + 1] = count;
    }
}

static void copy_shard(const struct code *code, struct code_block *block, const struct shard *shard,
                       const real *h, size_t n) {
    for (size_t i = 0; i < n; i++, h += shard->units) {
        uint32_t at = block->start[i * (code->n_shards + 1) + shard->index];
        for (size_t k = 0; k < shard->units; k++)
            if (h[k] != 0) {
                block->unit[at] = (uint8_t)k;
                block->value[at++] = h[k];
            }
    }
}

int code_add(struct member *member, struct code *code, const struct net *net, size_t first,
             size_t n) {
    struct code_block *block = &code->blocks[first / CODE_BLOCK];
    size_t from, end;
    team_share(member, code->n_shards, &from, &end);
    if (member->rank == 0)
        block->start = ovr_malloc(n * (code->n_shards + 1), sizeof *block->start);
    team_barrier(member);
    if (!block->start)
        return OVR_NOMEM;
    for (size_t i = from; i < end; i++) {
        struct shard shard = net_shard(net, i);
        count_shard(code, block, &shard, net_activations(net, &shard), n);
    }
    team_barrier(member);
    if (member->rank == 0)
        place_runs(code, block, n);
    team_barrier(member);
    if (!block->unit || !block->value)
        return OVR_NOMEM;
    for (size_t i = from; i < end; i++) {
        struct shard shard = net_shard(net, i);
        copy_shard(code, block, &shard, net_activations(net, &shard), n);
    }
    return 0;
}
