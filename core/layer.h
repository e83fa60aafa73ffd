/* One hidden layer, cut into shards of SHARD_UNITS units: H = f(X Wᵀ + b).
 *
 *   X n×D · W K×D · b K · H n×K, stored shard by shard (core/activations.h)
 *
 * Each member of a team works through its own shards. Activations in which the units of a layer
 * compete (top_k, triangle, hard) take one more meeting, where each member settles some rows. A
 * layer can also copy its inputs (K = D, no W): the code that is the data themselves.
 *
 * W and b lie in the flat buffer of the net that the layer belongs to, b right behind W.
 */
#ifndef OVR_LAYER_H
#define OVR_LAYER_H

#include "core/activations.h"
#include "core/packed.h"

struct layer_config {
    size_t n_inputs, n_units; /* D, K */
    struct nonlinearity f;
    size_t top_k; /* how many units of a row stay active under ACT_TOP_K */
    int copies;
    double dropout; /* share of H that a training step drops on the way to the next layer */
};

/* A rank's nearest centroid of a row. */
struct nearest {
    double square; /* distance */
    real score;
    uint32_t unit;
};

struct layer {
    struct layer_config config;
    const struct kernels *kernels;
    size_t n_shards, max_rows, n_ranks;
    size_t at; /* of W in the net's flat buffer */
    struct packed input;
    real *h, *s;                   /* H; and K: Σ_i h_i or ŝ of the batch */
    double *parts, *overlap_parts; /* what the shards add up to: core/net.c */
    real *keep;     /* as h: 0 for what is dropped, else 1/(1 − dropout); NULL without dropout */
    real *g;        /* as h: gradient at the pre-activations; layers that a lower one needs it of */
    real *output;   /* n×K: H after dropout, the next layer's input; NULL for the last one */
    real *passed;   /* n×K: g once more, in rows; NULL where no layer below needs it */
    real *row_mean; /* n: of triangle, the mean distance */
    double *row_square; /* n: of triangle and hard, the squared distance to the nearest centroid */
    /* n: and its unit; of top_k, the last unit that ties are broken in favour of */
    uint32_t *row_unit;
    real *row_limit; /* n: of top_k, the smallest activation that stays */
    /* What ranks tell each other of a batch: */
    struct nearest *nearest; /* ranks×n */
    double *distance_parts;  /* shards×n: sums of distances */
    size_t n_listed;         /* of top_k: how long a rank's list of a row is */
    real *largest;           /* ranks×n×n_listed */
    size_t row_room;
    real *scratch; /* members×row_room: a row in one piece */
};

/* Takes its arrays. `has_next`: there is a layer above; `passes_gradient`: and its gradient goes
 * further down than this layer. */
void layer_place(struct layer *layer, const struct layer_config *config,
                 const struct kernels *kernels, size_t max_rows, const struct crew *crew,
                 int has_next, int passes_gradient, struct arena *arena);

size_t layer_n_params(const struct layer_config *config);
int layer_competes(const struct layer *layer);
int layer_measures_distances(const struct layer *layer); /* triangle and hard */

static inline struct shard layer_shard(const struct layer *layer, size_t index) {
    size_t first = index * SHARD_UNITS;
    return (struct shard){index, first, min_size(SHARD_UNITS, layer->config.n_units - first)};
}

static inline real *layer_h(const struct layer *layer, const struct shard *shard) {
    return layer->h + layer->max_rows * shard->first;
}

/* Where the shard's weights (units×D) and biases begin in the flat buffer. */
static inline size_t layer_weight_at(const struct layer *layer, const struct shard *shard) {
    return layer->at + shard->first * layer->config.n_inputs;
}

static inline size_t layer_bias_at(const struct layer *layer, const struct shard *shard) {
    size_t weights = layer->config.copies ? 0 : layer->config.n_units * layer->config.n_inputs;
    return layer->at + weights + shard->first;
}

/* The shard's pre-activations without b, into H. The inputs are packed. */
void layer_product(const struct layer *layer, const real *params, const struct shard *shard);

/* By every member, after layer_product() of all its shards, where the units compete: H becomes what
 * the competition leaves of it. */
void layer_compete(struct member *member, struct layer *layer, const real *params);

/* The dropout mask of the shard: a stream of random numbers for each sample. `epoch` and `first`
 * (the samples' place in it) name the streams. */
void layer_draw_mask(struct layer *layer, uint64_t seed, size_t index, uint32_t epoch,
                     uint32_t first, const struct shard *shard);

/* The shard's H as the next layer gets it (after dropout, when there is a mask to be used) into its
 * columns of `output`. */
void layer_pass_on(struct layer *layer, int masked, const struct shard *shard);

#endif
