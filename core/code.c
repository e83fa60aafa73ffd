#include "core/code.h"

#include <stdlib.h>
#include <string.h>

static size_t count_blocks(size_t n) {
    return (n + CODE_BLOCK - 1) / CODE_BLOCK;
}

size_t code_n_runs(size_t n_units) {
    return (n_units + RUN_UNITS - 1) / RUN_UNITS;
}

int code_new(struct code **out, size_t n, size_t n_units, const uint16_t *labels,
             struct ovr_err *err) {
    *out = NULL;
    struct code *code = calloc(1, sizeof *code);
    if (!code)
        return ovr_nomem(err, "the codes of a split");
    code->n = n;
    code->n_units = n_units;
    code->n_runs = code_n_runs(n_units);
    code->labels = labels;
    code->blocks = calloc(count_blocks(n), sizeof *code->blocks);
    code->start = ovr_malloc(n * (code->n_runs + 1), sizeof *code->start);
    code->place = ovr_malloc(CODE_BLOCK * count_shards(n_units), sizeof *code->place);
    if (!code->blocks || !code->start || !code->place) {
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
    free(code->place);
    free(code);
}

size_t code_bytes(size_t n, size_t n_units, double active) {
    const double filled = (RUN_STEP - 1) / 2.; /* places a run, on average */
    double runs = (double)n * (double)code_n_runs(n_units);
    double values = active * (double)n * (double)n_units + (active > 0 ? filled * runs : 0);
    return n * (code_n_runs(n_units) + 1) * sizeof(uint32_t) +
           (size_t)(values * (sizeof(real) + sizeof(uint8_t)));
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

static uint32_t fill_up(uint32_t n) {
    return (n + RUN_STEP - 1) / RUN_STEP * RUN_STEP;
}

/* Turns the counts in code->place into places, and sets where the runs of n samples begin. Runs of
 * other ranks are empty here. Returns how much room all of them take. */
static size_t place_runs(const struct team *team, struct code *code, size_t first, size_t n) {
    size_t n_shards = count_shards(code->n_units), from, end;
    team_held(team, BY_SHARD, n_shards, &from, &end);
    uint32_t at = 0, *place = code->place, *start = code->start + first * (code->n_runs + 1);
    for (size_t i = 0; i < n; i++, place += n_shards) {
        for (size_t s = 0; s < n_shards; s++) {
            uint32_t count = s >= from && s < end ? place[s] : 0;
            if (s % RUN_SHARDS == 0) {
                at = fill_up(at);
                *start++ = at;
            }
            place[s] = at;
            at += count;
        }
        at = fill_up(at);
        *start++ = at;
    }
    return at;
}

/* The active units of one shard, each sample's packed aside first: packing writes more than it
 * keeps. The last shard of a run also fills it up. */
static void copy_shard(const struct code *code, const struct activations *a,
                       const struct shard *shard, size_t first, size_t n) {
    const struct code_block *block = &code->blocks[first / CODE_BLOCK];
    const real *h = activations_of(a, shard);
    size_t run = shard->index / RUN_SHARDS, last = (run + 1) * RUN_SHARDS - 1;
    uint8_t unit[SHARD_UNITS + LIST_ROOM];
    real value[SHARD_UNITS + LIST_ROOM];
    for (size_t i = 0; i < n; i++, h += shard->units) {
        size_t at = code->place[i * a->n_shards + shard->index];
        size_t active =
            a->kernels->pack_active(h, shard->units, shard->first % RUN_UNITS, unit, value);
        memcpy(block->unit + at, unit, active * sizeof *unit);
        memcpy(block->value + at, value, active * sizeof *value);
        if (shard->index != last && shard->index + 1 != a->n_shards)
            continue;
        for (at += active; at < code->start[(first + i) * (code->n_runs + 1) + run + 1]; at++) {
            block->unit[at] = 0;
            block->value[at] = 0;
        }
    }
}

int code_add(struct member *member, struct code *code, const struct activations *a, size_t first,
             size_t n) {
    struct code_block *block = &code->blocks[first / CODE_BLOCK];
    size_t from, end;
    team_own(member, BY_SHARD, a->n_shards, &from, &end);
    for (size_t s = from; s < end; s++) {
        struct shard shard = activations_shard(a, s);
        const real *h = activations_of(a, &shard);
        for (size_t i = 0; i < n; i++, h += shard.units)
            code->place[i * a->n_shards + s] = a->kernels->count_active(h, shard.units);
    }
    team_barrier(member);
    if (member->rank == 0)
        take_block(code, block, place_runs(member->team, code, first, n));
    team_barrier(member);
    if (!block->value)
        return OVR_NOMEM;
    for (size_t s = from; s < end; s++) {
        struct shard shard = activations_shard(a, s);
        copy_shard(code, a, &shard, first, n);
    }
    return 0;
}
