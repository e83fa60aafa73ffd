#include "core/layer.h"

#include "core/rng.h"

#include <math.h>
#include <string.h>

size_t layer_n_params(const struct layer_config *config) {
    return (config->copies ? 0 : config->n_units * config->n_inputs) + config->n_units;
}

int layer_measures_distances(const struct layer *layer) {
    enum activation kind = layer->config.f.kind;
    return kind == ACT_TRIANGLE || kind == ACT_HARD;
}

int layer_competes(const struct layer *layer) {
    return layer->config.f.kind == ACT_TOP_K || layer_measures_distances(layer);
}

static void place_competition(struct layer *layer, int members, struct arena *arena) {
    size_t k = layer->config.n_units, rows = layer->max_rows, ranks = layer->n_ranks;
    layer->row_mean = arena_take(arena, rows, sizeof(real));
    layer->row_limit = arena_take(arena, rows, sizeof(real));
    layer->row_square = arena_take(arena, rows, sizeof(double));
    layer->row_unit = arena_take(arena, rows, sizeof *layer->row_unit);
    if (layer_measures_distances(layer)) {
        layer->nearest = arena_take(arena, ranks * rows, sizeof *layer->nearest);
        layer->distance_parts = arena_take(arena, layer->n_shards * rows, sizeof(double));
        return;
    }
    size_t blocks = (k + BY_UNIT - 1) / BY_UNIT, most = (blocks + ranks - 1) / ranks * BY_UNIT;
    layer->n_listed = min_size(layer->config.top_k, min_size(most, k));
    layer->row_room = k > ranks * layer->n_listed ? k : ranks * layer->n_listed;
    layer->largest = arena_take(arena, ranks * rows * layer->n_listed, sizeof(real));
    layer->scratch = arena_take(arena, (size_t)members * layer->row_room, sizeof(real));
}

void layer_place(struct layer *layer, const struct layer_config *config,
                 const struct kernels *kernels, size_t max_rows, const struct crew *crew,
                 int has_next, int passes_gradient, struct arena *arena) {
    size_t k = config->n_units, all = max_rows * k;
    *layer = (struct layer){.config = *config,
                            .kernels = kernels,
                            .n_shards = count_shards(k),
                            .max_rows = max_rows,
                            .n_ranks = (size_t)crew->ranks};
    packed_place(&layer->input, kernels, config->n_inputs, max_rows, arena);
    layer->h = arena_take(arena, all, sizeof(real));
    layer->s = arena_take(arena, k, sizeof(real));
    layer->overlap_parts = arena_take(arena, layer->n_shards * max_rows, sizeof(double));
    if (config->dropout > 0)
        layer->keep = arena_take(arena, all, sizeof(real));
    if (has_next)
        layer->output = arena_take(arena, all, sizeof(real));
    if (passes_gradient) {
        layer->g = arena_take(arena, all, sizeof(real));
        layer->passed = arena_take(arena, all, sizeof(real));
    }
    if (layer_competes(layer))
        place_competition(layer, crew->members, arena);
}

static void copy_inputs(const struct layer *layer, const struct shard *shard) {
    real *h = layer_h(layer, shard);
    for (size_t i = 0; i < layer->input.n; i++)
        memcpy(h + i * shard->units, layer->input.x + i * layer->config.n_inputs + shard->first,
               shard->units * sizeof *h);
}

void layer_product(const struct layer *layer, const real *params, const struct shard *shard) {
    if (layer->config.copies)
        copy_inputs(layer, shard);
    else
        packed_product(&layer->input, params + layer_weight_at(layer, shard), shard->units,
                       layer_h(layer, shard));
}

static const uint32_t NOT_FOUND = UINT32_MAX;

/* This rank's shards. */
struct own {
    size_t first, end; /* shards */
    size_t first_unit, units;
    size_t rank;
};

static struct own find_own(const struct member *member, const struct layer *layer) {
    struct own own = {.rank = (size_t)team_rank(member->team)};
    size_t n_units = layer->config.n_units;
    team_held(member->team, BY_SHARD, layer->n_shards, &own.first, &own.end);
    own.first_unit = own.first * SHARD_UNITS;
    own.units = min_size(own.end * SHARD_UNITS, n_units) - own.first_unit;
    return own;
}

/* This rank's part of row i of H in one piece. */
static void collect_row(const struct layer *layer, const struct own *own, size_t i, real *row) {
    for (size_t s = own->first; s < own->end; s++) {
        struct shard shard = layer_shard(layer, s);
        memcpy(row + shard.first - own->first_unit, layer_h(layer, &shard) + i * shard.units,
               shard.units * sizeof *row);
    }
}

/* ---- top_k: each rank lists its k largest of a row, and all know then which is the k-th ---- */

/* Makes place `at` and what is below it a heap, smallest on top; what is below is one already. */
static void sift_down(real *heap, size_t at, size_t n) {
    for (size_t child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && heap[child + 1] < heap[child])
            child++;
        if (heap[at] <= heap[child])
            return;
        real smaller = heap[child];
        heap[child] = heap[at];
        heap[at] = smaller;
    }
}

/* The k largest of n numbers come to the first places, the smallest of them to the very first. */
static void find_largest(real *row, size_t n, size_t k) {
    for (size_t at = k / 2; at-- > 0;)
        sift_down(row, at, k);
    for (size_t j = k; j < n; j++)
        if (row[j] > row[0]) {
            row[0] = row[j];
            sift_down(row, 0, k);
        }
}

/* `row` is used up. */
static void list_largest(struct layer *layer, const struct own *own, size_t i, real *row) {
    size_t n = layer->n_listed, k = min_size(n, own->units);
    real *list = layer->largest + (own->rank * layer->input.n + i) * n;
    find_largest(row, own->units, k);
    memcpy(list, row, k * sizeof *row);
    for (size_t j = k; j < n; j++)
        list[j] = (real)-INFINITY;
}

static size_t count_equal(const real *list, size_t n, real value) {
    size_t equal = 0;
    for (size_t j = 0; j < n; j++)
        equal += list[j] == value;
    return equal;
}

/* The k-th largest activation, and which of those of this rank that equal it stay: the lowest
 * units, after those of lower ranks. A list that has not all that equal it has enough. */
static void settle_top_k(struct layer *layer, const struct own *own, size_t i, real *row) {
    size_t n = layer->n_listed, k = min_size(layer->config.top_k, layer->config.n_units);
    const real *lists = layer->largest + i * n;
    const size_t apart = layer->input.n * n; /* a row's lists */
    for (size_t rank = 0; rank < layer->n_ranks; rank++)
        memcpy(row + rank * n, lists + rank * apart, n * sizeof *row);
    find_largest(row, layer->n_ranks * n, k);
    real limit = row[0];
    size_t equal = count_equal(row, k, limit);
    for (size_t rank = 0; rank < own->rank; rank++)
        equal -= min_size(equal, count_equal(lists + rank * apart, n, limit));
    layer->row_limit[i] = limit;
    layer->row_unit[i] = 0; /* with none left, below all of this rank's */
    if (equal)
        collect_row(layer, own, i, row);
    for (size_t j = 0; j < own->units && equal; j++)
        if (row[j] == limit) {
            layer->row_unit[i] = (uint32_t)(own->first_unit + j);
            equal--;
        }
}

/* ---- distances: each rank finds its nearest centroid ---- */

static double distance_to(double row_square, real score) {
    double square = row_square - 2 * (double)score;
    return square <= 0 ? 0 : sqrt(square);
}

static double square_of(const real *x, size_t d) {
    double square = 0;
    for (size_t j = 0; j < d; j++)
        square += (double)x[j] * x[j];
    return square;
}

/* This rank's nearest centroid (the largest score, the lowest unit at ties), and each shard's sum
 * of distances. H of the row becomes distances. What is off by rounding where all samples are far
 * from 0 is not good enough for the nearest distance, which is the loss of k-means. */
static void find_nearest(struct layer *layer, const real *params, const struct own *own, size_t i) {
    size_t d = layer->config.n_inputs, n = layer->input.n;
    const real *x = layer->input.x + i * d;
    double square = square_of(x, d);
    struct nearest best = {.unit = NOT_FOUND};
    for (size_t s = own->first; s < own->end; s++) {
        struct shard shard = layer_shard(layer, s);
        real *h = layer_h(layer, &shard) + i * shard.units;
        double sum = 0;
        for (size_t j = 0; j < shard.units; j++) {
            if (best.unit == NOT_FOUND || h[j] > best.score) {
                best.unit = (uint32_t)(shard.first + j);
                best.score = h[j];
            }
            double distance = distance_to(square, h[j]);
            sum += distance;
            h[j] = (real)distance;
        }
        layer->distance_parts[s * n + i] = sum;
    }
    layer->kernels->square_distances(x, params + layer->at + best.unit * d, 1, d, &best.square);
    layer->nearest[own->rank * n + i] = best;
}

static void settle_distances(struct layer *layer, size_t i) {
    size_t n = layer->input.n;
    const struct nearest *best = &layer->nearest[i];
    for (size_t rank = 1; rank < layer->n_ranks; rank++)
        if (layer->nearest[rank * n + i].score > best->score)
            best = &layer->nearest[rank * n + i];
    layer->row_unit[i] = best->unit;
    layer->row_square[i] = best->square;
    if (layer->config.f.kind == ACT_TRIANGLE)
        layer->row_mean[i] = (real)(layer->distance_parts[i] / (double)layer->config.n_units);
}

/* What the competition leaves of one shard's row. */
static void apply(const struct layer *layer, const struct shard *shard, size_t i) {
    real *h = layer_h(layer, shard) + i * shard->units;
    real limit = layer->row_limit[i], mean = layer->row_mean[i];
    size_t unit = layer->row_unit[i];
    for (size_t j = 0; j < shard->units; j++)
        switch (layer->config.f.kind) {
        case ACT_TOP_K:
            if (h[j] < limit || (h[j] == limit && shard->first + j > unit))
                h[j] = 0;
            break;
        case ACT_TRIANGLE:
            h[j] = mean <= h[j] ? 0 : mean - h[j];
            break;
        default:
            h[j] = shard->first + j == unit;
        }
}

static void add_biases(const struct layer *layer, const real *params, const struct shard *shard) {
    const real *bias = params + layer_bias_at(layer, shard);
    real *h = layer_h(layer, shard);
    for (size_t i = 0; i < layer->input.n; i++)
        for (size_t j = 0; j < shard->units; j++)
            h[i * shard->units + j] += bias[j];
}

void layer_compete(struct member *member, struct layer *layer, const real *params) {
    size_t first, end, from, to, n = layer->input.n;
    const struct own own = find_own(member, layer);
    int measures = layer_measures_distances(layer);
    real *row = layer->scratch + (size_t)member->rank * layer->row_room;
    team_own(member, BY_SHARD, layer->n_shards, &first, &end);
    team_share(member, n, &from, &to);
    for (size_t s = first; s < end; s++) {
        struct shard shard = layer_shard(layer, s);
        add_biases(layer, params, &shard);
    }
    team_barrier(member);
    for (size_t i = from; i < to; i++) {
        if (measures) {
            find_nearest(layer, params, &own, i);
            continue;
        }
        collect_row(layer, &own, i, row);
        list_largest(layer, &own, i, row);
    }
    if (measures) {
        team_gather(member, BY_ROW, layer->nearest, layer->n_ranks, n * sizeof *layer->nearest);
        if (layer->config.f.kind == ACT_TRIANGLE)
            team_sum(member, BY_SHARD, layer->distance_parts, layer->n_shards, n);
    } else {
        team_gather(member, BY_ROW, layer->largest, layer->n_ranks,
                    n * layer->n_listed * sizeof *row);
    }
    for (size_t i = from; i < to; i++)
        if (measures)
            settle_distances(layer, i);
        else
            settle_top_k(layer, &own, i, row);
    team_barrier(member);
    for (size_t s = first; s < end; s++) {
        struct shard shard = layer_shard(layer, s);
        for (size_t i = 0; i < n; i++)
            apply(layer, &shard, i);
    }
}

void layer_draw_mask(struct layer *layer, uint64_t seed, size_t index, uint32_t epoch,
                     uint32_t first, const struct shard *shard) {
    double p = layer->config.dropout;
    uint32_t limit = (uint32_t)(p * 0x1p32);
    real scale = (real)(1 / (1 - p)), *keep = layer->keep + layer->max_rows * shard->first;
    for (size_t i = 0; i < layer->input.n; i++) {
        struct rng rng;
        rng_init(&rng, seed, (enum rng_purpose)(RNG_DROPOUT + index), epoch, first + (uint32_t)i);
        rng_skip(&rng, shard->first);
        for (size_t j = 0; j < shard->units; j++)
            keep[i * shard->units + j] = rng_u32(&rng) < limit ? 0 : scale;
    }
}

void layer_pass_on(struct layer *layer, int masked, const struct shard *shard) {
    const real *h = layer_h(layer, shard);
    const real *keep = masked ? layer->keep + layer->max_rows * shard->first : NULL;
    for (size_t i = 0; i < layer->input.n; i++) {
        real *to = layer->output + i * layer->config.n_units + shard->first;
        for (size_t j = 0; j < shard->units; j++)
            to[j] = h[i * shard->units + j] * (keep ? keep[i * shard->units + j] : 1);
    }
}
