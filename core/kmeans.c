#include "core/kmeans.h"

#include "core/activations.h"
#include "core/rng.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const uint32_t NOWHERE = UINT32_MAX;

void kmeans_place(struct kmeans *kmeans, const struct kmeans_config *config,
                  const struct kernels *kernels, size_t n_units, size_t n_inputs, size_t n_samples,
                  struct arena *arena) {
    *kmeans = (struct kmeans){.config = *config,
                              .kernels = kernels,
                              .n_units = n_units,
                              .n_inputs = n_inputs,
                              .n_samples = n_samples};
    kmeans->sums = arena_take(arena, n_units * n_inputs, sizeof(double));
    kmeans->counts = arena_take(arena, n_units, sizeof *kmeans->counts);
    kmeans->moved_at = arena_take(arena, n_units, sizeof *kmeans->moved_at);
    kmeans->direction = arena_take(arena, n_units, sizeof(double));
    kmeans->unit = arena_take(arena, n_samples, sizeof *kmeans->unit);
    kmeans->square = arena_take(arena, n_samples, sizeof(double));
    kmeans->order = arena_take(arena, n_samples, sizeof *kmeans->order);
}

/* The units of the member's shards: *first .. *end - 1. */
static void own_units(const struct member *member, const struct kmeans *kmeans, size_t *first,
                      size_t *end) {
    team_own(member, BY_SHARD, count_shards(kmeans->n_units), first, end);
    *first *= SHARD_UNITS;
    *end = min_size(*end * SHARD_UNITS, kmeans->n_units);
}

static void set_bias(const struct kmeans *kmeans, size_t unit) {
    const real *centroid = kmeans->centroids + unit * kmeans->n_inputs;
    double square = 0;
    for (size_t j = 0; j < kmeans->n_inputs; j++)
        square += (double)centroid[j] * centroid[j];
    kmeans->bias[unit] = (real)(-square / 2);
}

/* As if the centroid had been given so many samples before. */
static void set_count(struct kmeans *kmeans, size_t unit, real count) {
    size_t d = kmeans->n_inputs;
    uint64_t n = count >= 1 && count < 0x1p53 ? (uint64_t)count : 0;
    kmeans->counts[unit] = kmeans->moved_at[unit] = n;
    for (size_t j = 0; j < d; j++)
        kmeans->sums[unit * d + j] = (double)n * kmeans->centroids[unit * d + j];
}

void kmeans_continue(struct member *member, struct kmeans *kmeans, const real *counts) {
    size_t first, end;
    own_units(member, kmeans, &first, &end);
    for (size_t unit = first; unit < end; unit++) {
        set_bias(kmeans, unit);
        if (counts && kmeans->config.online)
            set_count(kmeans, unit, counts[unit]);
    }
}

/* The samples that it has got since its last move add up to count·mean − count then·mean then. */
static void move_to_mean(struct kmeans *kmeans, size_t unit) {
    size_t d = kmeans->n_inputs;
    real *centroid = kmeans->centroids + unit * d;
    const double *sum = kmeans->sums + unit * d;
    double count = (double)kmeans->counts[unit], before = (double)kmeans->moved_at[unit];
    double dot = 0, steps = 0, inputs = 0;
    for (size_t j = 0; j < d; j++) {
        double mean = sum[j] / count, step = mean - centroid[j],
               input = sum[j] - before * centroid[j];
        centroid[j] = (real)mean;
        dot += step * input;
        steps += step * step;
        inputs += input * input;
    }
    if (isnan(kmeans->direction[unit]) && steps > 0 && inputs > 0)
        kmeans->direction[unit] = dot / sqrt(steps * inputs);
    kmeans->moved_at[unit] = kmeans->counts[unit];
    set_bias(kmeans, unit);
}

double kmeans_direction(const struct kmeans *kmeans) {
    double sum = 0, n = 0;
    for (size_t unit = 0; unit < kmeans->n_units; unit++)
        if (!isnan(kmeans->direction[unit])) {
            sum += kmeans->direction[unit];
            n++;
        }
    return sum / n;
}

/* ---- the first centroids: samples whose numbers are in `order` ---- */

/* Where there are fewer different samples than centroids: the first that is none yet. */
static uint32_t first_unchosen(const struct kmeans *kmeans) {
    size_t i = 0;
    while (kmeans->unit[kmeans->used[i]] != NOWHERE)
        i++;
    return kmeans->used[i];
}

/* A sample with a probability that goes with its squared distance from the chosen ones. */
static uint32_t draw_distant(const struct kmeans *kmeans, struct rng *rng) {
    double total = 0, passed = 0;
    uint32_t chosen = NOWHERE;
    for (size_t i = 0; i < kmeans->n_used; i++)
        total += kmeans->square[kmeans->used[i]];
    double target = rng_uniform(rng) * total;
    for (size_t i = 0; i < kmeans->n_used && (chosen == NOWHERE || passed < target); i++)
        if (kmeans->square[kmeans->used[i]] > 0) {
            chosen = kmeans->used[i];
            passed += kmeans->square[chosen];
        }
    return chosen == NOWHERE ? first_unchosen(kmeans) : chosen;
}

/* This member's share of the samples: their squared distances from the nearest one chosen. */
static void approach(struct member *member, struct kmeans *kmeans, const real *x, size_t number) {
    size_t first, end, d = kmeans->n_inputs;
    team_share(member, kmeans->n_used, &first, &end);
    for (size_t i = first; i < end; i++) {
        uint32_t sample = kmeans->used[i];
        double square;
        kmeans->kernels->square_distances(x + sample * d, x + kmeans->order[number] * d, 1, d,
                                          &square);
        if (number == 0 || square < kmeans->square[sample])
            kmeans->square[sample] = square;
    }
}

static int choose_distant(struct member *member, struct kmeans *kmeans, const real *x,
                          const _Atomic int *stop) {
    for (size_t number = 0; number < kmeans->n_units; number++) {
        if (member->rank == 0) {
            struct rng rng;
            rng_init(&rng, kmeans->config.seed, RNG_CENTROIDS, 0, (uint32_t)number);
            uint32_t chosen = number ? draw_distant(kmeans, &rng)
                                     : kmeans->used[rng_below(&rng, (uint32_t)kmeans->n_used)];
            kmeans->order[number] = chosen;
            kmeans->unit[chosen] = (uint32_t)number;
        }
        if (team_agree(member, stop)) /* and what member 0 chose is there for all */
            return 1;
        approach(member, kmeans, x, number);
        team_barrier(member);
    }
    return 0;
}

int kmeans_init(struct member *member, struct kmeans *kmeans, const real *x,
                const _Atomic int *stop) {
    size_t first, end, d = kmeans->n_inputs;
    team_share(member, kmeans->n_samples, &first, &end);
    for (size_t i = first; i < end; i++)
        kmeans->unit[i] = NOWHERE;
    team_barrier(member);
    if (kmeans->config.init == KMEANS_PLUS_PLUS) {
        if (choose_distant(member, kmeans, x, stop))
            return 1;
    } else if (member->rank == 0) {
        struct rng rng;
        rng_init(&rng, kmeans->config.seed, RNG_CENTROIDS, 0, 0);
        rng_permutation(&rng, kmeans->order, (uint32_t)kmeans->n_used);
        for (size_t i = 0; i < kmeans->n_units; i++)
            kmeans->order[i] = kmeans->used[kmeans->order[i]];
    }
    team_barrier(member);
    for (size_t i = first; i < end; i++)
        kmeans->unit[i] = NOWHERE;
    own_units(member, kmeans, &first, &end);
    for (size_t unit = first; unit < end; unit++)
        memcpy(kmeans->centroids + unit * d, x + kmeans->order[unit] * d, d * sizeof(real));
    kmeans_continue(member, kmeans, NULL);
    team_barrier(member);
    return 0;
}

/* ---- an epoch ---- */

void kmeans_start(struct member *member, struct kmeans *kmeans) {
    size_t first, end, d = kmeans->n_inputs;
    own_units(member, kmeans, &first, &end);
    if (!kmeans->config.online) {
        memset(kmeans->sums + first * d, 0, (end - first) * d * sizeof *kmeans->sums);
        memset(kmeans->counts + first, 0, (end - first) * sizeof *kmeans->counts);
        memset(kmeans->moved_at + first, 0, (end - first) * sizeof *kmeans->moved_at);
    }
    for (size_t unit = first; unit < end; unit++)
        kmeans->direction[unit] = NAN;
    if (member->rank == 0)
        kmeans->changed = 0;
    team_barrier(member);
}

/* Where this member's share of the batch went. */
static void note_changes(struct member *member, struct kmeans *kmeans, const uint32_t *sample,
                         const uint32_t *unit, const double *square, size_t n) {
    size_t first, end;
    uint64_t changed = 0;
    team_share(member, n, &first, &end);
    for (size_t i = first; i < end; i++) {
        changed += kmeans->unit[sample[i]] != unit[i];
        kmeans->unit[sample[i]] = unit[i];
        kmeans->square[sample[i]] = square[i];
    }
    kmeans->changed += changed;
}

void kmeans_add(struct member *member, struct kmeans *kmeans, const real *x, const uint32_t *sample,
                const uint32_t *unit, const double *square, size_t n) {
    size_t first, end, d = kmeans->n_inputs;
    note_changes(member, kmeans, sample, unit, square, n);
    own_units(member, kmeans, &first, &end);
    for (size_t i = 0; i < n; i++) {
        if (unit[i] < first || unit[i] >= end)
            continue;
        double *sum = kmeans->sums + unit[i] * d;
        for (size_t j = 0; j < d; j++)
            sum[j] += x[i * d + j];
        kmeans->counts[unit[i]]++;
    }
    for (size_t i = 0; i < n && kmeans->config.online; i++)
        if (unit[i] >= first && unit[i] < end &&
            kmeans->moved_at[unit[i]] != kmeans->counts[unit[i]])
            move_to_mean(kmeans, unit[i]);
}

/* Farthest first, the lowest at ties. */
static int compare_distance(const void *a, const void *b, void *arg) {
    const double *square = arg;
    uint32_t i = *(const uint32_t *)a, j = *(const uint32_t *)b;
    if (square[i] != square[j])
        return square[i] > square[j] ? -1 : 1;
    return i < j ? -1 : 1;
}

/* Units that this rank has the sums of. */
static int is_held(const struct team *team, const struct kmeans *kmeans, size_t unit) {
    size_t first, end;
    team_held(team, BY_UNIT, kmeans->n_units, &first, &end);
    return unit >= first && unit < end;
}

static void give(const struct team *team, struct kmeans *kmeans, const real *x, uint32_t sample,
                 size_t to) {
    size_t d = kmeans->n_inputs, from = kmeans->unit[sample];
    for (size_t j = 0; j < d && is_held(team, kmeans, from); j++)
        kmeans->sums[from * d + j] -= x[sample * d + j];
    for (size_t j = 0; j < d && is_held(team, kmeans, to); j++)
        kmeans->sums[to * d + j] = x[sample * d + j];
    kmeans->counts[from]--;
    kmeans->counts[to] = 1;
    kmeans->unit[sample] = (uint32_t)to;
}

/* Whether a sample may leave its centroid: it is not the only one there, and not in its place. */
static int may_leave(const struct kmeans *kmeans, uint32_t sample) {
    return kmeans->counts[kmeans->unit[sample]] > 1 && kmeans->square[sample] > 0;
}

/* By one member of each rank, when all know all counts. */
static void fill_empty(const struct team *team, struct kmeans *kmeans, const real *x) {
    size_t n = kmeans->n_used, next = 0;
    int sorted = 0;
    for (size_t unit = 0; unit < kmeans->n_units && next < n; unit++) {
        if (kmeans->counts[unit])
            continue;
        if (!sorted) {
            memcpy(kmeans->order, kmeans->used, n * sizeof *kmeans->order);
            qsort_r(kmeans->order, n, sizeof *kmeans->order, compare_distance, kmeans->square);
            sorted = 1;
        }
        while (next < n && !may_leave(kmeans, kmeans->order[next]))
            next++;
        if (next < n)
            give(team, kmeans, x, kmeans->order[next++], unit);
    }
}

static void move_all(struct member *member, struct kmeans *kmeans, const real *x) {
    size_t first, end;
    team_gather(member, BY_UNIT, kmeans->counts, kmeans->n_units, sizeof *kmeans->counts);
    if (member->rank == 0)
        fill_empty(member->team, kmeans, x);
    team_barrier(member);
    own_units(member, kmeans, &first, &end);
    for (size_t unit = first; unit < end; unit++)
        if (kmeans->counts[unit])
            move_to_mean(kmeans, unit);
}

void kmeans_finish(struct member *member, struct kmeans *kmeans, const real *x) {
    if (!kmeans->config.online)
        move_all(member, kmeans, x);
    team_gather(member, BY_UNIT, kmeans->direction, kmeans->n_units, sizeof *kmeans->direction);
}
