#include "core/units.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const char *const unit_figure_names[UNIT_FIGURES] = {
    "firing_rate",     "mean",  "maximum",      "bias", "weight_norm", "classes",
    "strongest_class", "hoyer", "treves_rolls", "gini", "cells",
};

/* What one member works with. */
struct column_work {
    real *values, *scratch; /* n_samples, with LIST_ROOM more */
    double *sums;           /* of |v| by class or by cell */
};

struct columns {
    struct units *units;
    const struct split *split;
    size_t first_shard, end_shard; /* this rank's */
    size_t group_shards, n_groups; /* shards in a group; all ranks go through as many groups */
    real *h;                       /* unit k of the group at h + k·n_samples */
    uint32_t *class_samples, *cell_samples;
    struct column_work *work; /* one for each member */
    struct arena arena;       /* holds the arrays above */
};

static size_t group_shards(const struct units_shape *shape) {
    size_t shard_bytes = shape->n_samples * SHARD_UNITS * sizeof(real);
    size_t fit = shard_bytes ? shape->columns_bytes / shard_bytes : 1;
    return min_size(fit ? fit : 1, count_shards(shape->n_units));
}

static struct units empty_table(const struct units_shape *shape) {
    size_t most_cells = min_size(UNIT_CELLS_MAX / shape->n_units, CELLS_MAX);
    return (struct units){.n_units = shape->n_units,
                          .n_classes = shape->n_classes,
                          .n_cells = shape->n_cells <= most_cells ? shape->n_cells : 0};
}

static void place_units(struct units *u, struct arena *arena) {
    u->table = arena_take(arena, u->n_units * UNIT_FIGURES, sizeof *u->table);
    u->class_means = arena_take(arena, u->n_units * u->n_classes, sizeof *u->class_means);
    u->cell_means = arena_take(arena, u->n_units * u->n_cells, sizeof *u->cell_means);
    u->cell_samples = arena_take(arena, u->n_cells, sizeof *u->cell_samples);
}

static void place_columns(struct columns *c, const struct units_shape *shape, const struct units *u,
                          int members, struct arena *arena) {
    size_t n = shape->n_samples;
    c->group_shards = group_shards(shape);
    size_t units = min_size(c->group_shards * SHARD_UNITS, u->n_units);
    size_t sums = u->n_classes > u->n_cells ? u->n_classes : u->n_cells;
    c->h = arena_take(arena, units * n, sizeof *c->h);
    c->class_samples = arena_take(arena, u->n_classes, sizeof *c->class_samples);
    c->cell_samples = arena_take(arena, u->n_cells, sizeof *c->cell_samples);
    c->work = arena_take(arena, (size_t)members, sizeof *c->work);
    for (int i = 0; i < members; i++) {
        struct column_work work = {.values = arena_take(arena, n + LIST_ROOM, sizeof(real)),
                                   .scratch = arena_take(arena, n, sizeof(real)),
                                   .sums = arena_take(arena, sums, sizeof(double))};
        if (c->work)
            c->work[i] = work;
    }
}

size_t units_bytes(const struct units_shape *shape) {
    struct units units = empty_table(shape);
    struct arena counting = {0};
    place_units(&units, &counting);
    return counting.used;
}

size_t units_work_bytes(const struct units_shape *shape, int members) {
    const struct units units = empty_table(shape);
    struct columns columns = {0};
    struct arena counting = {0};
    place_columns(&columns, shape, &units, members, &counting);
    return counting.used;
}

/* The largest share of a rank says how many groups there are. */
static void share_shards(struct columns *c, const struct team *team) {
    size_t n_shards = count_shards(c->units->n_units), ranks = (size_t)team_n_ranks(team);
    size_t blocks = (n_shards + BY_SHARD - 1) / BY_SHARD;
    size_t most = ranks == 1 ? n_shards : (blocks + ranks - 1) / ranks * BY_SHARD;
    team_held(team, BY_SHARD, n_shards, &c->first_shard, &c->end_shard);
    c->n_groups = (most + c->group_shards - 1) / c->group_shards;
}

int units_open(struct units *u, struct columns **out, const struct units_shape *shape,
               const struct split *split, const struct team *team, struct ovr_err *err) {
    const int members = team_size(team);
    *u = empty_table(shape);
    struct columns *c = *out = calloc(1, sizeof *c);
    if (!c)
        return ovr_nomem(err, "the columns of units");
    int rc = arena_open(&u->arena, units_bytes(shape), err);
    if (!rc)
        rc = arena_open(&c->arena, units_work_bytes(shape, members), err);
    if (rc)
        return rc;
    place_units(u, &u->arena);
    place_columns(c, shape, u, members, &c->arena);
    c->units = u;
    c->split = split;
    share_shards(c, team);
    for (size_t i = 0; i < split->n; i++) {
        c->class_samples[split->labels[i]]++;
        if (u->n_cells)
            c->cell_samples[split->cells[i]]++;
    }
    for (size_t cell = 0; cell < u->n_cells; cell++)
        u->cell_samples[cell] = (real)c->cell_samples[cell];
    return 0;
}

void units_release(struct units *units) {
    arena_close(&units->arena);
    *units = (struct units){0};
}

void columns_free(struct columns *columns) {
    if (columns)
        arena_close(&columns->arena);
    free(columns);
}

size_t columns_n_groups(const struct columns *c) {
    return c->n_groups;
}

/* Shards *from .. *stop - 1; none where this rank has fewer groups than others. */
static void find_group(const struct columns *c, size_t group, size_t *from, size_t *stop) {
    *from = min_size(c->first_shard + group * c->group_shards, c->end_shard);
    *stop = min_size(*from + c->group_shards, c->end_shard);
}

/* The shards of a group are a member's in the same way as those of the layer, so that it mostly
 * reads what it has just written. */
void columns_add(struct member *member, struct columns *c, size_t group,
                 const struct activations *a, size_t first, size_t n) {
    size_t samples = c->split->n, from, stop, begin, end;
    find_group(c, group, &from, &stop);
    team_barrier(member); /* the shards of all are there */
    team_share(member, stop - from, &begin, &end);
    for (size_t s = from + begin; s < from + end; s++) {
        struct shard shard = activations_shard(a, s);
        const real *h = activations_of(a, &shard);
        real *column = c->h + (s - from) * SHARD_UNITS * samples + first;
        for (size_t k = 0; k < shard.units; k++, column += samples)
            for (size_t i = 0; i < n; i++)
                column[i] = h[i * shard.units + k];
    }
    team_barrier(member); /* before the next batch overwrites them */
}

/* Σ|v| by group of samples becomes means; returns exp of the entropy of their shares, NaN where all
 * are 0. */
static double effective_number(const double *sums, const uint32_t *samples, size_t n, real *means,
                               size_t *strongest) {
    double total = 0, entropy = 0;
    size_t most = 0;
    for (size_t c = 0; c < n; c++) {
        means[c] = samples[c] ? (real)(sums[c] / samples[c]) : 0;
        total += samples[c] ? sums[c] / samples[c] : 0;
        most = means[c] > means[most] ? c : most;
    }
    if (!(total > 0))
        return NAN;
    for (size_t c = 0; c < n; c++) {
        double p = samples[c] ? sums[c] / samples[c] / total : 0;
        entropy -= p > 0 ? p * log(p) : 0;
    }
    if (strongest)
        *strongest = most;
    return exp(entropy);
}

static void measure_groups(struct columns *c, const struct column_work *work, const real *column,
                           size_t unit, real *row) {
    struct units *u = c->units;
    const struct split *split = c->split;
    size_t strongest = 0;
    memset(work->sums, 0, u->n_classes * sizeof *work->sums);
    for (size_t i = 0; i < split->n; i++)
        work->sums[split->labels[i]] += fabs((double)column[i]);
    row[UNIT_CLASSES] = (real)effective_number(work->sums, c->class_samples, u->n_classes,
                                               u->class_means + unit * u->n_classes, &strongest);
    row[UNIT_STRONGEST_CLASS] = row[UNIT_MAXIMUM] > 0 ? (real)strongest : (real)NAN;
    row[UNIT_CELLS] = (real)NAN;
    if (!u->n_cells)
        return;
    memset(work->sums, 0, u->n_cells * sizeof *work->sums);
    for (size_t i = 0; i < split->n; i++)
        work->sums[split->cells[i]] += fabs((double)column[i]);
    row[UNIT_CELLS] = (real)effective_number(work->sums, c->cell_samples, u->n_cells,
                                             u->cell_means + unit * u->n_cells, NULL);
}

static void measure_column(struct columns *c, const struct column_work *work, const real *column,
                           size_t unit) {
    size_t n = c->split->n, active = 0;
    real *row = c->units->table + unit * UNIT_FIGURES, maximum = 0;
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        real magnitude = column[i] < 0 ? -column[i] : column[i];
        work->values[active] = magnitude; /* no branch: written in any case */
        active += magnitude != 0;
        sum += (double)magnitude;
        maximum = magnitude > maximum ? magnitude : maximum;
    }
    row[UNIT_FIRING_RATE] = (real)((double)active / (double)n);
    row[UNIT_MEAN] = (real)(sum / (double)n);
    row[UNIT_MAXIMUM] = maximum;
    measure_groups(c, work, column, unit, row);
    struct sparsity sparsity = sparsity_of(work->values, work->scratch, active, n);
    row[UNIT_HOYER] = (real)sparsity.hoyer;
    row[UNIT_TREVES_ROLLS] = (real)sparsity.treves_rolls;
    row[UNIT_GINI] = (real)sparsity.gini;
}

void columns_finish(struct member *member, struct columns *c, size_t group) {
    const struct column_work *work = &c->work[member->rank];
    size_t from, stop, first, end;
    find_group(c, group, &from, &stop);
    size_t base = min_size(from * SHARD_UNITS, c->units->n_units);
    size_t units = min_size(stop * SHARD_UNITS, c->units->n_units) - base;
    team_share(member, units, &first, &end);
    for (size_t k = first; k < end; k++)
        measure_column(c, work, c->h + k * c->split->n, base + k);
    team_barrier(member); /* before the next group overwrites the columns */
}

static double mean_of(const struct units *u, enum unit_figure figure) {
    double sum = 0;
    size_t n = 0;
    for (size_t k = 0; k < u->n_units; k++) {
        double value = (double)u->table[k * UNIT_FIGURES + figure];
        sum += isnan(value) ? 0 : value;
        n += isnan(value) ? 0 : 1;
    }
    return n ? sum / (double)n : NAN;
}

void units_finish(struct member *member, struct units *u, const real *weight, size_t n_inputs,
                  const real *bias) {
    size_t first, end, n = u->n_units;
    team_own(member, BY_UNIT, n, &first, &end);
    for (size_t k = first; k < end; k++) {
        real *row = u->table + k * UNIT_FIGURES;
        double squares = 0;
        for (size_t d = 0; weight && d < n_inputs; d++)
            squares += (double)weight[k * n_inputs + d] * (double)weight[k * n_inputs + d];
        row[UNIT_WEIGHT_NORM] = weight ? (real)sqrt(squares) : (real)NAN;
        row[UNIT_BIAS] = bias ? bias[k] : (real)NAN;
    }
    team_gather(member, BY_UNIT, u->table, n, UNIT_FIGURES * sizeof(real));
    team_gather(member, BY_UNIT, u->class_means, n, u->n_classes * sizeof(real));
    team_gather(member, BY_UNIT, u->cell_means, n, u->n_cells * sizeof(real));
    if (member->rank)
        return;
    u->means = (struct unit_means){
        .over_units = {mean_of(u, UNIT_HOYER), mean_of(u, UNIT_TREVES_ROLLS),
                       mean_of(u, UNIT_GINI)},
        .classes = mean_of(u, UNIT_CLASSES),
        .cells = mean_of(u, UNIT_CELLS),
    };
}
