/* The hot loops: one source, compiled once per instruction set, chosen at start.
 *
 * Each works on one shard's block: `rows` samples by `cols` units, row-major and without gaps. The
 * order of every sum is fixed by the source and the instruction set, never by threads, so that a
 * level's bits repeat. Arguments named row_* and col_* have one element a row or a column.
 */
#ifndef OVR_KERNELS_H
#define OVR_KERNELS_H

#include "core/cpu.h"
#include "core/real.h"

/* One step of an optimiser, with what depends on the step number worked out beforehand. Only the
 * fields that a rule names; g is the gradient, w the weight, m and v its moments:
 *
 *   UPDATE_SGD      w -= rate·g
 *   with momentum   m = momentum·m + g,  w -= rate·m, or with nesterov rate·(g + momentum·m)
 *   UPDATE_ADAM     m = beta1·m + (1 − beta1)·g,  v = beta2·v + (1 − beta2)·g²
 *                   w = keep·w − rate·m / (√v·root_correction + epsilon)
 *   UPDATE_RMSPROP  m = beta2·m + (1 − beta2)·g²,  w -= rate·g / (√m + epsilon)
 *   with momentum   the same m,  v = momentum·v + g / (√m + epsilon),  w -= rate·v
 */
struct update {
    enum { UPDATE_SGD, UPDATE_ADAM, UPDATE_RMSPROP } rule;
    real rate; /* Adam: learning_rate / (1 − beta1^t) */
    real keep; /* what decay leaves of a weight; 1 without */
    real beta1, beta2;
    real root_correction; /* 1 / √(1 − beta2^t) */
    real epsilon;
    real momentum;
    int nesterov;
};

/* What a unit makes of its pre-activation a = w·x + b:
 *
 *   relu max(0, a) · leaky_relu a or slope·a below 0 · sigmoid 1/(1 + e^−a) · tanh · linear a
 *   thresholded  a where a > threshold, else 0 (Konda, Memisevic & Krueger 2014)
 *   top_k        a of the k units whose a is largest, else 0 (Makhzani & Frey 2013)
 *   triangle     max(0, mean_j z_j − z), z = √(‖x‖² − 2a) (Coates, Lee & Ng 2011)
 *   hard         1 for the unit whose a is largest, else 0
 *
 * The last three are settled among all units of a layer (core/layer.h): the kernels only see what
 * is left of them, and to them they are linear. */
enum activation {
    ACT_RELU,
    ACT_LEAKY_RELU,
    ACT_SIGMOID,
    ACT_TANH,
    ACT_LINEAR,
    ACT_THRESHOLDED,
    ACT_TOP_K,
    ACT_TRIANGLE,
    ACT_HARD,
};

struct nonlinearity {
    enum activation kind;
    real slope, threshold;
};

/* The most columns of a block: a shard of units. */
enum { SHARD_UNITS = 128 };

/* Lists of a sparse code are filled up with zeros to a multiple of it. */
enum { RUN_STEP = 4 };

/* Rows of a read-out's weights are filled up to whole vectors. */
static inline size_t read_out_width(size_t n_classes) {
    return (n_classes + 15) / 16 * 16;
}

/* A panel of ACTIVE_ROWS rows fits into a first-level cache of 32 KiB. */
enum { PANEL = 64, ACTIVE_ROWS = 128 };

/* Elements that may be written beyond the end of a list: a vector register. */
enum { LIST_ROOM = 16 };

struct kernels {
    enum isa isa;
    size_t strip; /* rows in a strip */

    /* x (rows×d) in strips of `strip` rows, transposed: row i, column j of strip s is at
     * (s·d + j)·strip + i; rows beyond the last are zero. Fills in columns first .. end − 1. */
    void (*pack_strips)(const real *x, size_t rows, size_t d, size_t first, size_t end,
                        real *strips);

    /* h (rows×cols) = x·wᵀ, w cols×d, x in strips. Each element is summed up column by column. */
    void (*product)(const real *strips, const real *w, size_t rows, size_t cols, size_t d, real *h);

    /* h = f(h + bias) in place; row_squares = Σ_k h², *sum = Σ h over the block. */
    void (*activate)(const struct nonlinearity *f, real *h, const real *col_bias, size_t rows,
                     size_t cols, double *row_squares, double *sum);

    /* col_sums = Σ_i row_weight_i · h_i */
    void (*weighted_sum)(const real *h, const real *row_weight, size_t rows, size_t cols,
                         real *col_sums);

    /* row_dots = h_i · col_v */
    void (*dot_rows)(const real *h, const real *col_v, size_t rows, size_t cols, double *row_dots);

    /* row_squares = Σ_k (x_ik − col_v_k)² */
    void (*square_distances)(const real *x, const real *col_v, size_t rows, size_t cols,
                             double *row_squares);

    /* Gradient at the pre-activations, from that at the activations:
     *   g = f'(a) (g + row_pull_i·col_s − row_back_i·h + col_constant),  col_sums = Σ_i g_i
     * g comes in as the gradient from the layers above, or with `fresh` counts as zero. */
    void (*activate_backward)(const struct nonlinearity *f, const real *h, real *g, int fresh,
                              const real *row_pull, const real *row_back, const real *col_s,
                              const real *col_constant, size_t rows, size_t cols, real *col_sums);

    /* The non-zero elements of g, column by column: values, and the rows where they stand, of
     * column k from index k·(rows + LIST_ROOM) on. At most ACTIVE_ROWS rows. Returns how many there
     * are in all. */
    size_t (*list_active)(const real *g, size_t rows, size_t cols, uint32_t *col_count,
                          uint8_t *active_row, real *active_value);

    /* gᵀ·x from those lists: out (cols×d) = [add] out + Σ_i g_ik · x_i. x comes in panels of PANEL
     * columns, each rows×PANEL without gaps, the last one filled up with anything finite. */
    void (*active_product)(const uint32_t *col_count, const uint8_t *active_row,
                           const real *active_value, const real *x_panels, size_t rows, size_t cols,
                           size_t d, int add, real *out);

    /* Over the rows of a block, for each column: the largest |h| so far, and the sum of h weighted
     * by rows, in float64. */
    void (*unit_sums)(const real *h, const double *row_weight, size_t rows, size_t cols,
                      real *col_max, double *col_sums);

    /* How many of n activations are not zero. */
    uint32_t (*count_active)(const real *h, size_t n);

    /* Which, numbered from `first` on (at most 255), and their values. Returns how many. Both
     * arrays have room for n + LIST_ROOM. */
    size_t (*pack_active)(const real *h, size_t n, size_t first, uint8_t *unit, real *value);

    /* One fused pass over n weights, their gradient and their moments; a rule that has one moment
     * finds it in m. */
    void (*update)(const struct update *update, size_t n, real *weight, const real *gradient,
                   real *m, real *v);

    /* Read-out of a sparse code, one sample: out += Σ_j value_j · w[unit_j], n a multiple of
     * RUN_STEP. Rows of w and `out` are `width` long, see read_out_width(). */
    void (*sparse_read)(const uint8_t *unit, const real *value, size_t n, const real *w,
                        size_t width, real *out);

    /* Its gradient: g[unit_j] += value_j · delta. */
    void (*sparse_write)(const uint8_t *unit, const real *value, size_t n, const real *delta,
                         size_t width, real *g);

    /* The part that rows first .. end - 1 of a symmetric matrix's lower triangle have in its
     * product with v, each element read once and used in both of its places: y[0 .. end - 1] += …
     * float64 in either build. */
    void (*symmetric_product)(const double *a, size_t stride, size_t first, size_t end,
                              const double *v, double *y);
};

/* The variant for this level, ISA_AUTO for the best. NULL if this processor cannot run it. */
const struct kernels *kernels_get(enum isa isa);

#endif
