/* The table of units against a naive recomputation from the columns. */
#include "core/units.h"
#include "tests/core/check.h"

enum { UNITS = 300, SAMPLES = 150, BLOCK = 64, CLASSES = 5, CELLS = 7, INPUTS = 11 };

struct pass {
    struct activations layer;
    real *shards; /* what layer.h points to */
    const real *h;
    size_t n;
    struct units units;
    struct columns *columns;
};

/* Every member shows the rows of its own shards, as a net does. */
static void show_rows(struct member *member, struct pass *pass, size_t first, size_t n) {
    size_t begin, end;
    team_share(member, pass->layer.n_shards, &begin, &end);
    for (size_t s = begin; s < end; s++) {
        struct shard shard = activations_shard(&pass->layer, s);
        real *to = pass->shards + pass->layer.max_rows * shard.first;
        for (size_t i = 0; i < n; i++)
            memcpy(to + i * shard.units, pass->h + (first + i) * UNITS + shard.first,
                   shard.units * sizeof *to);
    }
}

static void collect(struct member *member, void *arg) {
    struct pass *pass = arg;
    for (size_t group = 0; group < columns_n_groups(pass->columns); group++) {
        for (size_t first = 0; first < pass->n; first += BLOCK) {
            size_t n = min_size(BLOCK, pass->n - first);
            show_rows(member, pass, first, n);
            columns_add(member, pass->columns, group, &pass->layer, first, n);
        }
        columns_finish(member, pass->columns, group);
    }
}

struct sample_groups {
    uint16_t labels[SAMPLES];
    uint32_t cells[SAMPLES];
};

/* Class 3 and cell 2 have no samples. */
static void group_samples(struct sample_groups *g) {
    struct rng rng = test_stream(77);
    for (size_t i = 0; i < SAMPLES; i++) {
        g->labels[i] = (uint16_t)rng_below(&rng, CLASSES);
        g->labels[i] = g->labels[i] == 3 ? 0 : g->labels[i];
        g->cells[i] = rng_below(&rng, CELLS);
        g->cells[i] = g->cells[i] == 2 ? 6 : g->cells[i];
    }
}

/* What is not of H, in a team of two. */
struct finishing {
    struct units *units;
    const real *weight, *bias;
};

static void finish_work(struct member *member, void *arg) {
    const struct finishing *f = arg;
    units_finish(member, f->units, f->weight, INPUTS, f->bias);
}

static void finish(struct units *units, const real *weight, const real *bias) {
    struct team *team = new_team(2);
    struct finishing finishing = {units, weight, bias};
    team_run(team, finish_work, &finishing);
    team_free(team);
}

/* The caller releases the units. shards_at_once: how many shards' columns are in memory. */
static struct units measure(const real *h, const struct sample_groups *g, size_t n, int threads,
                            size_t shards_at_once, size_t n_cells) {
    struct ovr_err err = {0};
    struct team *team = new_team(threads);
    real *shards = new_reals(BLOCK * UNITS);
    const struct split split = {.labels = g->labels, .n = n, .cells = n_cells ? g->cells : NULL};
    const struct units_shape shape = {UNITS, n, CLASSES, n_cells,
                                      shards_at_once * SHARD_UNITS * n * sizeof(real)};
    struct pass pass = {.layer = {kernels_get(ISA_AUTO), UNITS, count_shards(UNITS), BLOCK, shards},
                        .shards = shards,
                        .h = h,
                        .n = n};
    assert_ok(units_open(&pass.units, &pass.columns, &shape, &split, team, &err), &err);
    assert_int_equal(columns_n_groups(pass.columns),
                     (3 + shards_at_once - 1) / (shards_at_once ? shards_at_once : 1));
    assert_int_equal(pass.units.arena.size, units_bytes(&shape));
    assert_int_equal(pass.units.arena.used, units_bytes(&shape));
    team_run(team, collect, &pass);
    columns_free(pass.columns);
    team_free(team);
    free(shards);
    return pass.units;
}

/* science.md's formula; means: Σ|v|/n of each group. */
static double naive_number(const double *means, size_t n) {
    double total = 0, entropy = 0;
    for (size_t c = 0; c < n; c++)
        total += means[c];
    for (size_t c = 0; c < n; c++)
        if (means[c] > 0)
            entropy -= means[c] / total * log(means[c] / total);
    return exp(entropy);
}

static void check_unit(const struct units *u, const real *h, const struct sample_groups *g,
                       size_t unit) {
    const real *row = u->table + unit * UNIT_FIGURES;
    double by_class[CLASSES] = {0}, in_class[CLASSES] = {0}, by_cell[CELLS] = {0},
           in_cell[CELLS] = {0}, sum = 0, maximum = 0;
    real values[SAMPLES], scratch[SAMPLES];
    size_t active = 0, strongest = 0;
    for (size_t i = 0; i < SAMPLES; i++) {
        double v = fabs((double)h[i * UNITS + unit]);
        by_class[g->labels[i]] += v;
        in_class[g->labels[i]]++;
        by_cell[g->cells[i]] += v;
        in_cell[g->cells[i]]++;
        sum += v;
        maximum = fmax(maximum, v);
        if (v > 0)
            values[active++] = h[i * UNITS + unit];
    }
    for (size_t c = 0; c < CLASSES; c++) {
        by_class[c] /= fmax(in_class[c], 1);
        strongest = by_class[c] > by_class[strongest] ? c : strongest;
        assert_near(u->class_means[unit * CLASSES + c], by_class[c], 1e-6 * maximum);
    }
    for (size_t c = 0; c < CELLS; c++) {
        by_cell[c] /= fmax(in_cell[c], 1);
        assert_near(u->cell_means[unit * CELLS + c], by_cell[c], 1e-6 * maximum);
        assert_near(u->cell_samples[c], in_cell[c], 0);
    }
    assert_near(row[UNIT_FIRING_RATE], (double)active / SAMPLES, 1e-7);
    assert_near(row[UNIT_MEAN], sum / SAMPLES, 1e-6 * maximum);
    assert_near(row[UNIT_MAXIMUM], maximum, 0);
    static const enum unit_figure of_the_living[] = {
        UNIT_CLASSES, UNIT_STRONGEST_CLASS, UNIT_HOYER, UNIT_TREVES_ROLLS, UNIT_GINI, UNIT_CELLS};
    for (size_t f = 0; f < COUNT(of_the_living) && !active; f++)
        assert_true(isnan(row[of_the_living[f]]));
    if (!active)
        return;
    struct sparsity sparsity = sparsity_of(values, scratch, active, SAMPLES);
    assert_near(row[UNIT_HOYER], sparsity.hoyer, 1e-6);
    assert_near(row[UNIT_TREVES_ROLLS], sparsity.treves_rolls, 1e-6);
    assert_near(row[UNIT_GINI], sparsity.gini, 1e-6);
    assert_near(row[UNIT_CLASSES], naive_number(by_class, CLASSES), 1e-5);
    assert_near(row[UNIT_CELLS], naive_number(by_cell, CELLS), 1e-5);
    assert_near(row[UNIT_STRONGEST_CLASS], (double)strongest, 0);
}

/* Every 50th unit is dead; some values are negative. */
static real *new_columns(void) {
    real *h = new_activations(SAMPLES * UNITS, 4);
    for (size_t i = 0; i < SAMPLES * UNITS; i++)
        h[i] *= i % UNITS % 50 == 49 ? 0 : i % 5 ? 1 : -1;
    return h;
}

static void equals_naive_recomputation(void **state) {
    (void)state;
    struct sample_groups groups;
    real *h = new_columns();
    group_samples(&groups);
    struct units first = measure(h, &groups, SAMPLES, 1, 3, CELLS);
    for (size_t unit = 0; unit < UNITS; unit++)
        check_unit(&first, h, &groups, unit);
    for (size_t i = 0; i < COUNT(TEAM_SIZES); i++)
        for (size_t at_once = 1; at_once <= 3; at_once++) {
            struct units same = measure(h, &groups, SAMPLES, TEAM_SIZES[i], at_once, CELLS);
            assert_int_equal(same.arena.size, first.arena.size);
            assert_memory_equal(same.table, first.table, UNITS * UNIT_FIGURES * sizeof(real));
            assert_memory_equal(same.class_means, first.class_means,
                                UNITS * CLASSES * sizeof(real));
            assert_memory_equal(same.cell_means, first.cell_means, UNITS * CELLS * sizeof(real));
            units_release(&same);
        }
    units_release(&first);
    free(h);
}

static void weights_biases_and_means(void **state) {
    (void)state;
    struct sample_groups groups;
    real *h = new_columns(), *weight = new_normal(UNITS * INPUTS, 9), *bias = new_normal(UNITS, 10);
    double sums[UNIT_FIGURES] = {0}, living = 0;
    group_samples(&groups);
    struct units u = measure(h, &groups, SAMPLES, 2, 2, CELLS);
    finish(&u, weight, bias);
    for (size_t k = 0; k < UNITS; k++) {
        const real *row = u.table + k * UNIT_FIGURES;
        double squares = 0;
        for (size_t d = 0; d < INPUTS; d++)
            squares += pow((double)weight[k * INPUTS + d], 2);
        assert_relative(row[UNIT_WEIGHT_NORM], sqrt(squares), 1e-6);
        assert_near(row[UNIT_BIAS], bias[k], 0);
        living += row[UNIT_MAXIMUM] > 0;
        for (size_t f = 0; f < UNIT_FIGURES && row[UNIT_MAXIMUM] > 0; f++)
            sums[f] += (double)row[f];
    }
    assert_near(living, UNITS - 6, 0);
    assert_near(u.means.over_units.hoyer, sums[UNIT_HOYER] / living, 1e-9);
    assert_near(u.means.over_units.treves_rolls, sums[UNIT_TREVES_ROLLS] / living, 1e-9);
    assert_near(u.means.over_units.gini, sums[UNIT_GINI] / living, 1e-9);
    assert_near(u.means.classes, sums[UNIT_CLASSES] / living, 1e-9);
    assert_near(u.means.cells, sums[UNIT_CELLS] / living, 1e-9);
    finish(&u, NULL, NULL);
    assert_true(isnan(u.table[UNIT_BIAS]) && isnan(u.table[UNIT_WEIGHT_NORM]));
    units_release(&u);
    free(h);
    free(weight);
    free(bias);
}

/* One class, all classes alike, one sample, all units dead. */
static void extremes(void **state) {
    (void)state;
    struct sample_groups groups;
    real *h = new_reals(SAMPLES * UNITS);
    group_samples(&groups);
    for (size_t i = 0; i < SAMPLES; i++) {
        h[i * UNITS] = groups.labels[i] == 4 ? (real)0.25 : 0;
        h[i * UNITS + 1] = (real)-0.5;
    }
    struct units u = measure(h, &groups, SAMPLES, 2, 3, 0);
    finish(&u, NULL, NULL);
    assert_near(u.table[UNIT_CLASSES], 1, 1e-6);
    assert_near(u.table[UNIT_STRONGEST_CLASS], 4, 0);
    assert_near(u.table[UNIT_FIGURES + UNIT_CLASSES], CLASSES - 1, 1e-5); /* one has no samples */
    assert_near(u.table[UNIT_FIGURES + UNIT_STRONGEST_CLASS], 0, 0);
    assert_near(u.table[UNIT_FIGURES + UNIT_GINI], 0, 1e-6);
    assert_near(u.table[UNIT_FIGURES + UNIT_FIRING_RATE], 1, 0);
    assert_int_equal(u.n_cells, 0);
    assert_true(isnan(u.table[UNIT_CELLS]) && isnan(u.means.cells));
    units_release(&u);
    u = measure(h, &groups, 1, 2, 3, 0);
    finish(&u, NULL, NULL);
    assert_near(u.table[UNIT_FIGURES + UNIT_CLASSES], 1, 1e-6);
    assert_true(isnan(u.table[UNIT_FIGURES + UNIT_HOYER]) && isnan(u.means.over_units.gini));
    units_release(&u);
    memset(h, 0, SAMPLES * UNITS * sizeof *h);
    u = measure(h, &groups, SAMPLES, 1, 3, 0);
    finish(&u, NULL, NULL);
    assert_true(isnan(u.means.classes) && isnan(u.means.over_units.hoyer));
    units_release(&u);
    free(h);
}

/* More cells than are worth their memory are left out, and say so. */
static void too_many_cells(void **state) {
    (void)state;
    const struct units_shape none = {UNITS, SAMPLES, CLASSES, 0, 1};
    const size_t wide = 2 * UNIT_CELLS_MAX / CELLS_MAX;
    struct {
        size_t units, most_cells;
    } cases[] = {{UNITS, CELLS_MAX}, {wide, UNIT_CELLS_MAX / wide}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct units_shape shape = none, most = none, more = none;
        shape.n_units = most.n_units = more.n_units = cases[i].units;
        most.n_cells = cases[i].most_cells;
        more.n_cells = cases[i].most_cells + 1;
        assert_int_equal(units_bytes(&more), units_bytes(&shape));
        assert_int_equal(units_work_bytes(&more, 2), units_work_bytes(&shape, 2));
        assert_true(units_bytes(&most) >=
                    units_bytes(&shape) + cases[i].units * cases[i].most_cells * sizeof(real));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_naive_recomputation),
        cmocka_unit_test(weights_biases_and_means),
        cmocka_unit_test(extremes),
        cmocka_unit_test(too_many_cells),
    };
    return cmocka_run_group_tests_name("core/units", tests, NULL, NULL);
}
