#include "core/code.h"

#include <stdlib.h>
#include <string.h>

static size_t count_blocks(size_t n) {
    return (n + CODE_BLOCK - 1) / CODE_BLOCK;
}

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
    code->blocks = calloc(count_blocks(n), sizeof *code->blocks);
    code->start = ovr_malloc(n * (code->n_shards + 1), sizeof *code->start);
    if (!code->blocks || !code->start) {
        code_free(code);
        return ovr_nomem(err, "the codes of a split");
    }
    *out = code;
    return 0;
}

void code_free(struct code *code) {
    if (!code)
        return;
    for (size_t i = 0; i < code->n_rooms; i++)
        arena_close(&code->rooms[i]);
    free(code->rooms);
    free(code->blocks);
    free(code->start);
    free(code);
}

size_t code_bytes(size_t n, size_t n_units, double active) {
    return n * (net_n_shards(n_units) + 1) * sizeof(uint32_t) +
           (size_t)(active * (double)n * (double)n_units * (sizeof(real) + sizeof(uint8_t)));
}

/* Blocks are small and read at random: in rooms of this size they lie on large pages. */
enum { ROOM_BYTES = 32 << 20 };

/* Room for n active units. On failure block->value stays NULL. */
static void take_block(struct code *code, struct code_block *block, size_t n) {
    size_t bytes = ARENA_ROOM(n * sizeof *block->value) + ARENA_ROOM(n * sizeof *block->unit);
    struct arena *room = code->n_rooms ? &code->rooms[code->n_rooms - 1] : NULL;
    if (!room || room->size - room->used < bytes) {
        struct arena *rooms = realloc(code->rooms, (code->n_rooms + 1) * sizeof *rooms);
        if (!rooms)
            return;
        code->rooms = rooms;
        room = &rooms[code->n_rooms];
        if (arena_open(room, bytes > ROOM_BYTES ? bytes : ROOM_BYTES, NULL))
            return;
        code->n_rooms++;
    }
    block->unit = arena_take(room, n, sizeof *block->unit);
    block->value = arena_take(room, n, sizeof *block->value);
}

/* Turns the counts in start[…][shard + 1] of n samples into offsets; returns what they add up to.
 */
static size_t place_runs(uint32_t *start, size_t row, size_t n) {
    uint32_t at = 0;
    for (size_t i = 0; i < n; i++) {
        start[i * row] = at;
        for (size_t s = 1; s < row; s++)
            at = start[i * row + s] += at;
    }
    return at;
}

/* The runs of one shard, each packed aside first: packing writes more than it keeps. */
static void copy_shard(const struct kernels *kernels, const struct code_block *block,
                       const uint32_t *start, size_t row, const struct shard *shard, const real *h,
                       size_t n) {
    uint8_t unit[SHARD_UNITS + LIST_ROOM];
    real value[SHARD_UNITS + LIST_ROOM];
    for (size_t i = 0; i < n; i++, h += shard->units) {
        size_t at = start[i * row + shard->index];
        size_t active = kernels->pack_active(h, shard->units, unit, value);
        memcpy(block->unit + at, unit, active * sizeof *unit);
        memcpy(block->value + at, value, active * sizeof *value);
    }
}

int code_add(struct member *member, struct code *code, const struct net *net, size_t first,
             size_t n) {
    struct code_block *block = &code->blocks[first / CODE_BLOCK];
    size_t from, end, row = code->n_shards + 1;
    uint32_t *start = code->start + first * row;
    team_share(member, code->n_shards, &from, &end);
    for (size_t s = from; s < end; s++) {
        struct shard shard = net_shard(net, s);
        const real *h = net_activations(net, &shard);
        for (size_t i = 0; i < n; i++, h += shard.units)
            start[i * row + s + 1] = net->kernels->count_active(h, shard.units);
    }
    team_barrier(member);
    if (member->rank == 0)
        take_block(code, block, place_runs(start, row, n));
    team_barrier(member);
    if (!block->value)
        return OVR_NOMEM;
    for (size_t s = from; s < end; s++) {
        struct shard shard = net_shard(net, s);
        copy_shard(net->kernels, block, start, row, &shard, net_activations(net, &shard), n);
    }
    return 0;
}
