/* The network: one hidden layer of relu units, with or without a classifier on top.
 *
 *   H = relu(X Wᵀ + b)                     X is N×D, W is K×D, b is K
 *   logits = H V + c                       V is K×C, c is C (no classifier: C = 0)
 *   J = [C > 0] CE(logits, labels) + λ·OVR(H) + [activity] |mean H − a|
 *
 * Without a classifier this is the OVR-Encoder, with one the multi-layer perceptron of one hidden
 * layer with OVR as its regulariser.
 *
 * The layer is cut into shards of SHARD_UNITS units. A step is written so that each member of a
 * team works through its own shards and meets the others only in sums of short vectors:
 *
 *   forward     a shard's activations; sums: ‖h_i‖² (N), ΣH (1), ‖s‖² (1), logits (N·C)
 *   overlap     cosine form only; sum: s·h_i (N)
 *   backward    a shard's gradient and the optimiser's update of its weights, in cache; no sum
 *
 * All parameters are in one flat buffer, and so are each of the optimiser's moments:
 *
 *   W (K·D) | b (K) | V (K·width) | c (width)     width: read_out_width(C), 0 without a classifier
 *
 * A shard's slices are contiguous in each part. c belongs to shard 0.
 */
#ifndef OVR_NET_H
#define OVR_NET_H

#include "core/activations.h"
#include "core/arena.h"
#include "core/optimizer.h"
#include "core/ovr.h"
#include "core/team.h"

enum init { INIT_NORMAL, INIT_GLOROT, INIT_HE };

struct net_config {
    size_t n_inputs;  /* D */
    size_t n_units;   /* K */
    size_t n_classes; /* C, 0 without a classifier */
    enum init
        init; /* normal(0, init_scale) · glorot: uniform ±√(6/(in+out)) · he: normal(0, √(2/in)) */
    double init_scale;
    uint64_t seed;
    struct ovr_config ovr;
    int activity; /* 1: L is part of J */
    double activity_target;
};

/* Samples that go through the layer at once. OVR and L are defined on a mini-batch: with n > group
 * (evaluation only) each run of `group` rows counts as one. */
struct batch {
    const real *x;          /* n×D */
    const uint16_t *labels; /* n; NULL without a classifier */
    size_t n, group;
};

/* J and its terms as they enter J, each the sum over the batch's groups of value · samples. */
struct terms {
    double samples, loss, ovr, activity, cross_entropy;
    size_t correct;
    size_t zero_codes; /* rows with ‖h_i‖ ≤ 1e-12 */
};

void terms_add(struct terms *to, const struct terms *from);

struct net {
    struct net_config config;
    const struct kernels *kernels;
    size_t n_shards, width, max_rows;
    size_t n_params;
    /* All arrays are taken from the job's arena by net_place(). */
    real *params;    /* the flat buffer */
    real *moment[2]; /* NULL where the optimiser has fewer */
    real *h;         /* shard k0 at h + max_rows·k0: n×(units of the shard) */
    real *s;         /* K */
    double *parts, *overlap_parts;
    real *strips;           /* the batch's x in strips (kernels.h) */
    real *panels;           /* and ACTIVE_ROWS rows after the other in panels */
    struct workspace *work; /* one for each member */
};

/* Takes the arrays of a net from `arena`, which has to be zero: so are the weights until
 * net_init_weights(). With an arena that only counts, *net can be asked for its sizes and no more.
 * `max_rows`: the largest batch. */
void net_place(struct net *net, const struct net_config *config, const struct kernels *kernels,
               size_t moments, size_t max_rows, int members, struct arena *arena);

/* H of the last batch. */
struct activations net_activations(const struct net *net);

real *net_weight(const struct net *net); /* W, and the other parts of the flat buffer */
real *net_bias(const struct net *net);
real *net_head_weight(const struct net *net);
real *net_head_bias(const struct net *net);

/* The four below are called by every member of a team with the same arguments. */
void net_init_weights(struct member *member, struct net *net);

/* Activations, sums and J of a batch. Afterwards net_activations() holds H of the member's own
 * shards and ‖h_i‖², until its next call. All members get the same terms. batch->x may be
 * written by all members before the call; it must stay as it is until the call after next. */
struct terms net_forward(struct member *member, struct net *net, const struct batch *batch);

/* Gradient of J and one optimiser step. After net_forward() of the same batch, one group. */
void net_backward(struct member *member, struct net *net, const struct batch *batch,
                  const struct update *update);

#endif
