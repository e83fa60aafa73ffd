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

void layer_place(struct layer *layer, const struct layer_config *config,
                 const struct kernels *kernels, size_t max_rows, int members, int has_next,
                 int passes_gradient, struct arena *arena) {
    size_t k = config->n_units, all = max_rows * k;
    *layer = (struct layer){
        .config = *config, .kernels = kernels, .n_shards = count_shards(k), .max_rows = max_rows};
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
    if (!layer_competes(layer))
        return;
    layer->row_mean = arena_take(arena, max_rows, sizeof(real));
    layer->row_limit = arena_take(arena, max_rows, sizeof(real));
    layer->row_square = arena_take(arena, max_rows, sizeof(double));
    layer->row_unit = arena_take(arena, max_rows, sizeof *layer->row_unit);
    layer->scratch = arena_take(arena, (size_t)members * k, sizeof(real));
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

/* Row i of H in one piece. */
static void collect_row(const struct layer *layer, size_t i, real *row) {
    for (size_t s = 0; s < layer->n_shards; s++) {
        struct shard shard = layer_shard(layer, s);
        memcpy(row + shard.first, layer_h(layer, &shard) + i * shard.units,
               shard.units * sizeof *row);
    }
}

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

/* The k-th largest activation, and which of those that equal it stay: the lowest units. `row` is
 * used up. */
static void settle_top_k(struct layer *layer, size_t i, real *row) {
    size_t n = layer->config.n_units, k = min_size(layer->config.top_k, n), equal = 0;
    real *heap = row; /* the k largest so far are in its first k places */
    for (size_t at = k / 2; at-- > 0;)
        sift_down(heap, at, k);
    for (size_t j = k; j < n; j++)
        if (row[j] > heap[0]) {
            heap[0] = row[j];
            sift_down(heap, 0, k);
        }
    real limit = heap[0];
    for (size_t j = 0; j < k; j++)
        equal += heap[j] == limit;
    layer->row_limit[i] = limit;
    collect_row(layer, i, row);
    layer->row_unit[i] = 0;
    for (size_t j = 0; j < n && equal; j++)
        if (row[j] == limit) {
            layer->row_unit[i] = (uint32_t)j;
            equal--;
        }
}

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

/* The nearest centroid (the largest score, the lowest unit at ties) and the mean distance. H of the
 * row becomes distances. What is off by rounding where all samples are far from 0 is not good
 * enough for the nearest distance, which is the loss of k-means. */
static void settle_distances(struct layer *layer, const real *params, size_t i, real *row) {
    size_t k = layer->config.n_units, d = layer->config.n_inputs, best = 0;
    const real *x = layer->input.x + i * d;
    double square = square_of(x, d), sum = 0;
    for (size_t j = 0; j < k; j++) {
        best = row[j] > row[best] ? j : best;
        sum += distance_to(square, row[j]);
    }
    layer->row_unit[i] = (uint32_t)best;
    layer->kernels->square_distances(x, params + layer->at + best * d, 1, d, &layer->row_square[i]);
    layer->row_mean[i] = (real)(sum / (double)k);
    for (size_t s = 0; s < layer->n_shards; s++) {
        struct shard shard = layer_shard(layer, s);
        real *h = layer_h(layer, &shard) + i * shard.units;
        for (size_t j = 0; j < shard.units; j++)
            h[j] = (real)distance_to(square, row[shard.first + j]);
    }
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

void layer_compete(struct member *member, struct layer *layer, const real *params) {
    size_t first, end, from, to, n = layer->input.n;
    real *row = layer->scratch + (size_t)member->rank * layer->config.n_units;
    team_own(member, BY_SHARD, layer->n_shards, &first, &end);
    team_share(member, n, &from, &to);
    for (size_t s = first; s < end; s++) {
        struct shard shard = layer_shard(layer, s);
        const real *bias = params + layer_bias_at(layer, &shard);
        real *h = layer_h(layer, &shard);
        for (size_t i = 0; i < n; i++)
            for (size_t j = 0; j < shard.units; j++)
                h[i * shard.units + j] += bias[j];
    }
    team_barrier(member);
    for (size_t i = from; i < to; i++) {
        collect_row(layer, i, row);
        if (layer->config.f.kind == ACT_TOP_K)
            settle_top_k(layer, i, row);
        else
            settle_distances(layer, params, i, row);
    }
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
