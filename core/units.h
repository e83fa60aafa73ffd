/* The table of units: what each unit of a layer does on a whole split, made once, with the weights
 * that a run ends with.
 *
 * A unit's figures are of its column of H (one value a sample, v below), of its bias and its
 * weights:
 *
 *   firing_rate          share of samples with v ≠ 0
 *   mean, maximum        of |v|
 *   bias, weight_norm    b_k and ‖w_k‖; NaN where the model has none
 *   classes              exp(−Σ_c p_c ln p_c), the effective number of classes it answers to, with
 *                        p_c in proportion to the mean of |v| over the samples of class c
 *   strongest_class      the one with the largest such mean, the lowest where two are alike
 *   cells                like `classes`, over the cells of the sphere
 *   hoyer, treves_rolls, gini    of v, m = samples (core/sparsity.h)
 *
 * A dead unit (maximum = 0) has NaN for classes, strongest_class, cells and the last three.
 *
 * Gini needs a column sorted, so columns are collected for a group of shards at a time, and the
 * split is encoded once for each group: exact, and in bounded memory.
 */
#ifndef OVR_UNITS_H
#define OVR_UNITS_H

#include "core/activations.h"
#include "core/arena.h"
#include "core/prepared.h"
#include "core/sparsity.h"
#include "core/team.h"

enum unit_figure {
    UNIT_FIRING_RATE,
    UNIT_MEAN,
    UNIT_MAXIMUM,
    UNIT_BIAS,
    UNIT_WEIGHT_NORM,
    UNIT_CLASSES,
    UNIT_STRONGEST_CLASS,
    UNIT_HOYER,
    UNIT_TREVES_ROLLS,
    UNIT_GINI,
    UNIT_CELLS,
    UNIT_FIGURES
};

/* As above, "firing_rate" and so on. */
extern const char *const unit_figure_names[UNIT_FIGURES];

/* Means over the units that are not dead. */
struct unit_means {
    struct sparsity over_units;
    double classes, cells; /* NaN where there are none */
};

struct units {
    size_t n_units, n_classes, n_cells; /* n_cells 0: no cells, or too many to keep */
    real *table;                        /* K×UNIT_FIGURES */
    real *class_means;  /* K×C: mean of |v| over the samples of a class; 0 of none */
    real *cell_means;   /* K×cells, likewise */
    real *cell_samples; /* cells: how many samples there are */
    struct unit_means means;
    struct arena arena; /* holds the arrays above */
};

/* More cells than the first, or K×cells beyond the second, are not kept. */
enum { CELLS_MAX = 10000, UNIT_CELLS_MAX = 1 << 24 };

/* Enough for thousands of units at a time on ten thousand samples. */
enum { COLUMNS_BYTES = 64 << 20 };

struct units_shape {
    size_t n_units, n_samples, n_classes, n_cells;
    size_t columns_bytes; /* for columns, unless those of one shard take more */
};

/* Bytes of the table, and of what it takes to make it. */
size_t units_bytes(const struct units_shape *shape);
size_t units_work_bytes(const struct units_shape *shape, int members);

struct columns; /* of the units of one group of shards, while they are collected */

/* Opens the table of a layer on a split (shape->n_samples of them) and what it takes to make it.
 * The caller releases both, also after a failure. */
int units_open(struct units *units, struct columns **columns, const struct units_shape *shape,
               const struct split *split, const struct team *team, struct ovr_err *err);
void units_release(struct units *units);
void columns_free(struct columns *columns); /* NULL is fine */

size_t columns_n_groups(const struct columns *columns);

/* By every member, for each group in order: add for all samples of the split (`first` is the number
 * of the first one in the batch), then finish. */
void columns_add(struct member *member, struct columns *columns, size_t group,
                 const struct activations *activations, size_t first, size_t n);
void columns_finish(struct member *member, struct columns *columns, size_t group);

/* By every member, after the last group: what is not of H, all ranks' units, and the means.
 * `weight` is K×n_inputs, `bias` K; either may be NULL. */
void units_finish(struct member *member, struct units *units, const real *weight, size_t n_inputs,
                  const real *bias);

#endif
