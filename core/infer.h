/* What was learned, put to use: fitted steps, a net with weights that are given, and perhaps a
 * read-out on top of its code, applied to rows of raw values.
 *
 *   code           H of the last layer, n×K: the same steps and kernels on blocks of as many rows
 * as in training, so that a split has the same bits here as it had there probabilities
 * softmax(code·Vᵀ + c), n×C, summed up in float64; V is C×K, of the mlp's own classifier or of a
 * probe
 *
 * One caller at a time.
 */
#ifndef OVR_INFER_H
#define OVR_INFER_H

#include "core/preprocess.h"
#include "core/train.h"

enum { INFER_ROWS = 512 }; /* at most at once */

struct infer_config {
    const struct train_config *model;    /* that was trained; only read by infer_new() */
    const struct preprocess *preprocess; /* borrowed for as long as the struct lives */
    const struct kernels *kernels;
    size_t n_classes; /* of the read-out; 0: none */
    int members;      /* of the largest team */
};

struct infer;

/* All weights are 0 until they are set. */
int infer_new(struct infer **infer, const struct infer_config *config, struct ovr_err *err);
void infer_free(struct infer *infer); /* NULL is fine */

size_t infer_bytes(const struct infer *infer);  /* that it holds */
size_t infer_inputs(const struct infer *infer); /* raw values a row */
size_t infer_units(const struct infer *infer);  /* K */

/* The parts of the net that `initial` has; OVR_INVALID where one is missing. The biases of k-means
 * follow from its centroids. */
int infer_set_weights(struct infer *infer, const struct initial *initial, struct ovr_err *err);
void infer_set_read_out(struct infer *infer, const real *weight, const real *bias); /* C×K, C */

/* W of the first layer, K×D; NULL: it has none. */
const real *infer_first_weights(const struct infer *infer, size_t *units, size_t *inputs);

/* Rows first .. first + n - 1 of the samples, n at most INFER_ROWS, into codes (n×K) and
 * probabilities (n×C); either may be NULL. Blocks that start at multiples of INFER_ROWS give the
 * bits of training. *stop (may be NULL) asks for OVR_STOPPED. */
int infer_rows(struct infer *infer, struct team *team, const struct samples *samples, size_t first,
               size_t n, real *codes, double *probabilities, const _Atomic int *stop,
               struct ovr_err *err);

#endif
