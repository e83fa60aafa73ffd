/* A net: hidden layers in shards of units (core/layer.h), and what stands on top of them.
 *
 *   H_0 = f(X W_0ᵀ + b_0),  H_l = f(H'_{l−1} W_lᵀ + b_l)     H' is H, in training after dropout
 *   classifier   logits = H' V + c (V is K×C)             + CE(logits, labels), mean over samples
 *   decoder      X̂ = H' V + c (V is K×D; tied: V = W_0)    + mean over N·D of (X̂ − X)²
 *
 *   J = λ·Σ_l OVR(H_l) + Σ_l |mean H_l − a|        of the chosen layers; dropout comes after them
 *     + classifier's or decoder's term
 *     + l1 · mean_i Σ_k |h_ik|                      of the last layer, and so are the next two:
 *     + kl · Σ_k KL(ρ ‖ mean_i h_ik)                 sigmoid
 *     + contractive · mean_i Σ_k f'(a_ik)² ‖w_k‖²    (Rifai et al. 2011) one hidden layer
 *     + l2 · Σ w²                                    of all weights, biases left out
 *
 * Without anything on top each layer learns for itself: nothing is propagated from one to the next.
 * Otherwise gradients go down to the first layer that is not frozen. A frozen layer has no term in
 * J; what stands on top learns even where all layers are frozen.
 *
 * A step is written so that each member of a team works through its own shards and meets the others
 * only in sums: for each layer ‖h_i‖², ΣH, ‖s‖², penalties and logits together, then s·h_i (cosine
 * form), for a decoder the parts of X̂; between layers the activations, and their gradient on the
 * way back. The optimiser's update of a shard follows its gradient at once, in cache.
 *
 * All parameters are in one flat buffer, and so are each of the optimiser's moments:
 *
 *   W_0 (K·D) | b_0 (K) | W_1 | b_1 | … | V (K·width) | c (width)
 *
 * width: read_out_width(C) for a classifier, D for a decoder (tied: no V), 0 without either. A
 * shard's slices are contiguous in each part. c is every rank's.
 *
 * A net of one layer may be a team's of several ranks (core/team.h).
 */
#ifndef OVR_NET_H
#define OVR_NET_H

#include "core/layer.h"
#include "core/optimizer.h"
#include "core/ovr.h"

/* The last two are k-means' own: core/kmeans.h. */
enum init { INIT_NORMAL, INIT_GLOROT, INIT_HE, INIT_SAMPLES, INIT_KMEANS_PLUS_PLUS };

enum { LAYERS_MAX = 8 };

struct net_config {
    size_t n_inputs;            /* D */
    size_t n_layers;            /* 1..LAYERS_MAX */
    size_t units[LAYERS_MAX];   /* K of each */
    double dropout[LAYERS_MAX]; /* of each layer's H; 0: none */
    size_t frozen;              /* so many layers, from the first, keep their weights */
    struct nonlinearity f;      /* of all layers; thresholded layers keep their biases at 0 */
    size_t top_k;               /* ACT_TOP_K */
    int copies;                 /* one layer that copies its inputs */
    size_t n_classes;           /* C, 0 without a classifier */
    int decoder, tied;
    enum init
        init; /* normal(0, init_scale) · glorot: uniform ±√(6/(in+out)) · he: normal(0, √(2/in)) */
    double init_scale;
    uint64_t seed;
    struct ovr_config ovr;
    int activity; /* 1: L is part of J */
    double activity_target;
    unsigned ovr_layers; /* bit l: OVR and L are taken of layer l; 0: of all */
    double l1, l2, contractive;
    double kl, kl_target; /* weight and ρ */
};

/* Samples that go through the net at once. OVR, L and KL are defined on a mini-batch: with n >
 * group (evaluation only) each run of `group` rows counts as one. */
struct batch {
    const real *x;          /* n×D */
    const real *target;     /* n×D: what a decoder should give; NULL: x */
    const uint16_t *labels; /* n; NULL without a classifier */
    size_t n, group;
    int training; /* 1: with dropout, of which `epoch` and `first` name the random numbers */
    uint32_t epoch, first;
};

/* The terms of J. */
enum term {
    TERM_OVR,
    TERM_ACTIVITY,
    TERM_CROSS_ENTROPY,
    TERM_RECONSTRUCTION,
    TERM_L1,
    TERM_KL,
    TERM_CONTRACTIVE,
    TERM_L2,
    TERM_DISTORTION, /* k-means: mean squared distance to the nearest centroid; J of its own */
    N_TERMS
};

/* J and its terms as they enter J, each the sum over the batch's groups of value · samples. */
struct terms {
    double samples, loss;
    double value[N_TERMS];
    size_t correct;
    size_t zero_codes; /* rows of the last layer with ‖h_i‖ ≤ 1e-12 */
};

void terms_add(struct terms *to, const struct terms *from);

struct net {
    struct net_config config;
    const struct kernels *kernels;
    size_t width, max_rows;
    size_t n_params;
    struct layer layers[LAYERS_MAX];
    /* All arrays are taken from the job's arena by net_place(). */
    real *params;      /* the flat buffer */
    real *moment[2];   /* NULL where the optimiser has fewer */
    real *decoded;     /* decoder: shards×n×D, parts of X̂ */
    real *error;       /* decoder: n×D, gradient at X̂ */
    double *row_error; /* decoder: n, ‖x̂_i − x_i‖² */
    struct packed packed_error;
    real *ones;             /* max_rows */
    double *norms;          /* what net_gradients() adds up, for each shard of all layers */
    struct workspace *work; /* one for each member */
};

/* Takes the arrays of a net from `arena`, which has to be zero: so are the weights until
 * net_init_weights(). With an arena that only counts, *net can be asked for its sizes and no more.
 * `max_rows`: the largest batch. */
void net_place(struct net *net, const struct net_config *config, const struct kernels *kernels,
               size_t moments, size_t max_rows, const struct crew *crew, struct arena *arena);

/* H of the last batch: of a layer, and of the last layer, which is the code. */
struct activations net_layer_activations(const struct net *net, size_t layer);
struct activations net_activations(const struct net *net);

/* Which terms J has, a bit for each. */
unsigned net_terms(const struct net_config *config);

/* One part of the flat buffer. PART_COUNTS is none: k-means' counts, which are kept with a layer's
 * weights. */
enum part { PART_WEIGHT, PART_BIAS, PART_HEAD_WEIGHT, PART_HEAD_BIAS, PART_COUNTS };

struct net_part {
    enum part part;
    size_t layer;          /* of PART_WEIGHT and PART_BIAS */
    size_t at, rows, cols; /* biases: one column */
    size_t stride;         /* elements from row to row */
};

enum { PARTS_MAX = 2 * LAYERS_MAX + 2 };

/* The parts that the net has, in order; returns how many. */
size_t net_parts(const struct net *net, struct net_part parts[PARTS_MAX]);

/* How the rows of a part are shared by ranks. */
enum pieces net_part_pieces(const struct net_part *part);

/* Numbers of a flat buffer: rows first .. first + n - 1 of a part, `stride` numbers each. */
struct net_rows {
    const struct net_part *part; /* NULL: what belongs to none, 0 */
    size_t first, n, stride;
    const real *numbers;
};

/* `params`, of which every rank has its part, to the first rank's take(): all that there is in a
 * flat buffer, in its order and without gaps. By all ranks as team_stream() is, and so is what
 * take() returns. */
int net_stream(struct team *team, const struct net *net, const real *params,
               int (*take)(void *context, const struct net_rows *rows), void *context,
               struct ovr_err *err);

/* W or b of a layer; NULL where it has none. */
const real *net_find_part(const struct net *net, enum part part, size_t layer);

real *net_weight(const struct net *net, size_t layer);
real *net_bias(const struct net *net, size_t layer);
real *net_head_weight(const struct net *net); /* V; tied: W_0 */
real *net_head_bias(const struct net *net);

/* The functions below are called by every member of a team with the same arguments. */
void net_init_weights(struct member *member, struct net *net);

/* Activations, sums and J of a batch. Afterwards net_activations() holds H of the member's own
 * shards and ‖h_i‖², until its next call. All members get the same terms. batch->x may be written
 * by all members before the call; it must stay as it is until the call after next. */
struct terms net_forward(struct member *member, struct net *net, const struct batch *batch);

/* Gradient of J and one optimiser step. After net_forward() of the same batch, one group. */
void net_backward(struct member *member, struct net *net, const struct batch *batch,
                  const struct update *update);

/* How much of the gradient comes from where, without a step. */
struct gradients {
    double norm[N_TERMS]; /* of each term's gradient over all parameters; 0 for what J lacks */
    /* Mean over the units of the first layer, as far as they have both, of the cosine between the
     * step down OVR's gradient and the sum of the inputs to which the unit is active; NaN without.
     */
    double direction;
};

/* After net_forward() of the same batch, one group. All members get the same. */
void net_gradients(struct member *member, struct net *net, const struct batch *batch,
                   struct gradients *gradients);

#endif
