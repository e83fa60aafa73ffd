/* k-means: the centroids of a layer (core/layer.h: W is the centroids, b_k = −‖c_k‖²/2), found from
 * the training samples.
 *
 *   lloyd    an epoch gives every sample to its nearest centroid and then moves each centroid to
 *            the mean of its samples (Lloyd 1982). A centroid without samples gets the one that is
 *            farthest from its own (the lowest at ties) and not the last one there; where no sample
 *            is off its centroid it stays.
 *   online   after each batch a centroid is the mean of all samples that it was ever given:
 *            stochastic gradient descent with a rate of 1/count for each centroid (Sculley 2010)
 *
 * The nearest centroids of a batch are found by the layer, by scores that are rounded to `real`:
 * features that are some thousand times as far from 0 as they spread should be standardised first.
 * Each member sums up the samples of its own shards' centroids in float64, in the order of the
 * samples, so that the bits depend on nothing else. An epoch is kmeans_start(), kmeans_add() for
 * each batch, kmeans_finish().
 */
#ifndef OVR_KMEANS_H
#define OVR_KMEANS_H

#include "core/arena.h"
#include "core/kernels.h"
#include "core/team.h"

#include <stdatomic.h>

enum kmeans_init {
    KMEANS_SAMPLES,   /* different training samples */
    KMEANS_PLUS_PLUS, /* each with a probability that goes with its squared distance from the ones
                         before (Arthur & Vassilvitskii 2007) */
};

struct kmeans_config {
    int online;
    enum kmeans_init init;
    uint64_t seed;
};

struct kmeans {
    struct kmeans_config config;
    const struct kernels *kernels;
    size_t n_units, n_inputs, n_samples; /* K, D, N */
    /* Set by the owner, and borrowed: */
    real *centroids, *bias;   /* K×D, K: the layer's */
    const uint32_t *used;     /* numbers of the samples that take part, in any order that stays the
                                 same within an epoch */
    size_t n_used;            /* K..N */
    double *sums;             /* K×D, of the samples that a centroid is the mean of */
    uint64_t *counts;         /* K: how many these are */
    uint64_t *moved_at;       /* K: and were when the centroid was moved last */
    double *direction;        /* K: see kmeans_direction(); NaN: not moved yet in this epoch */
    uint32_t *unit;           /* N: the centroid that a sample went to last */
    double *square;           /* N: its squared distance from it then */
    uint32_t *order;          /* N */
    _Atomic uint64_t changed; /* samples that went to another centroid in this epoch */
};

/* Takes the arrays of *kmeans from `arena`, which has to be zero; one without a block only counts.
 */
void kmeans_place(struct kmeans *kmeans, const struct kmeans_config *config,
                  const struct kernels *kernels, size_t n_units, size_t n_inputs, size_t n_samples,
                  struct arena *arena);

/* The functions below are called by every member of a team. */

/* The first centroids. x: the training samples, N×D. Returns 1 where *stop asked to leave. */
int kmeans_init(struct member *member, struct kmeans *kmeans, const real *x,
                const _Atomic int *stop);

/* After the centroids came from elsewhere: the biases that go with them, and for online's of how
 * many samples each is the mean already (K; NULL: of none, so that the first sample takes it along
 * altogether). */
void kmeans_continue(struct member *member, struct kmeans *kmeans, const real *counts);

void kmeans_start(struct member *member, struct kmeans *kmeans);

/* A batch of n samples: x n×D; what numbers they have among the training samples; their nearest
 * centroids and squared distances, 0 for no other place than the centroid's. All of it stays as it
 * is until a barrier. */
void kmeans_add(struct member *member, struct kmeans *kmeans, const real *x, const uint32_t *sample,
                const uint32_t *unit, const double *square, size_t n);

/* Afterwards `changed` is 0 when Lloyd's algorithm has come to its end. */
void kmeans_finish(struct member *member, struct kmeans *kmeans, const real *x);

/* By one, after an epoch: the mean, over the centroids that moved in it, of the cosine between a
 * centroid's first step and the sum of the samples that it took it for; NaN where none did. */
double kmeans_direction(const struct kmeans *kmeans);

#endif
