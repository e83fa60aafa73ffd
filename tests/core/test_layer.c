/* One layer: activations in which units compete, dropout, the products of packed rows; all against
 * plain loops, and the same bits for any team. Gradients are in tests/core64/test_net.c. */
#include "tests/core/check.h"

enum { INPUTS = 300, ROWS = 37, UNITS = 300 }; /* three shards, the last one ragged */

struct pass {
    struct net *net;
    struct batch batch;
    struct terms terms;
};

static void forward_work(struct member *member, void *arg) {
    struct pass *pass = arg;
    struct terms terms = net_forward(member, pass->net, &pass->batch);
    if (member->rank == 0)
        pass->terms = terms;
}

static void forward(struct net *net, int members, const struct batch *batch) {
    struct team *team = new_team(members);
    struct pass pass = {.net = net, .batch = *batch};
    team_run(team, forward_work, &pass);
    team_free(team);
}

/* H of a layer in rows. */
static real *new_rows(const struct layer *layer, size_t n) {
    size_t k = layer->config.n_units;
    real *rows = new_reals(n * k);
    for (size_t s = 0; s < layer->n_shards; s++) {
        struct shard shard = layer_shard(layer, s);
        for (size_t i = 0; i < n; i++)
            memcpy(rows + i * k + shard.first, layer_h(layer, &shard) + i * shard.units,
                   shard.units * sizeof *rows);
    }
    return rows;
}

/* What a layer makes of x when its weights are those given, or the identity; checked to be the same
 * for every team. The caller frees it. */
static real *activate(struct nonlinearity f, size_t top_k, const real *x, size_t n, const real *w,
                      const real *bias) {
    const struct net_config config = {
        .n_inputs = INPUTS, .n_layers = 1, .units = {UNITS}, .f = f, .top_k = top_k};
    const struct batch batch = {.x = x, .n = n, .group = n};
    real *first = NULL;
    for (size_t t = 0; t < COUNT(TEAM_SIZES); t++) {
        struct net *net = new_net(&config, 0, n, TEAM_SIZES[t]);
        for (size_t k = 0; k < UNITS; k++) {
            for (size_t j = 0; w && j < INPUTS; j++)
                net_weight(net, 0)[k * INPUTS + j] = w[k * INPUTS + j];
            if (!w)
                net_weight(net, 0)[k * INPUTS + k] = 1;
            net_bias(net, 0)[k] = bias ? bias[k] : 0;
        }
        forward(net, TEAM_SIZES[t], &batch);
        real *h = new_rows(&net->layers[0], n);
        if (first)
            assert_memory_equal(h, first, n * UNITS * sizeof *h);
        if (first)
            free(h);
        else
            first = h;
        free_net(net);
    }
    return first;
}

/* ---- top_k ---- */

/* Whether a unit is among the k of its row with the largest values, the lower one at ties. */
static int stays(const real *row, size_t unit, size_t k) {
    size_t before = 0;
    for (size_t j = 0; j < UNITS; j++)
        before += row[j] > row[unit] || (row[j] == row[unit] && j < unit);
    return before < k;
}

static void check_top_k(const real *x, size_t k) {
    real *h = activate((struct nonlinearity){.kind = ACT_TOP_K}, k, x, ROWS, NULL, NULL);
    for (size_t i = 0; i < ROWS; i++)
        for (size_t j = 0; j < UNITS; j++) {
            const real *row = x + i * UNITS;
            if (h[i * UNITS + j] != (stays(row, j, k) ? row[j] : 0))
                fail_msg("row %zu, unit %zu of the %zu largest", i, j, k);
        }
    free(h);
}

static void top_k_keeps_the_largest(void **state) {
    (void)state;
    static const size_t ks[] = {1, 2, 17, 128, 129, 299, 300, 301, 65536};
    real *x = new_normal(ROWS * UNITS, 1), *ties = new_normal(ROWS * UNITS, 2);
    for (size_t i = 0; i < ROWS * UNITS; i++)
        ties[i] = (real)((int)(3 * ties[i]) + (i % UNITS == 5)); /* few values, many equal */
    memset(ties, 0, UNITS * sizeof *ties);                       /* all equal */
    for (size_t i = 0; i < COUNT(ks); i++) {
        check_top_k(x, ks[i]);
        check_top_k(ties, ks[i]);
    }
    free(x);
    free(ties);
}

/* The bias counts, and is part of what stays. */
static void top_k_adds_biases_first(void **state) {
    (void)state;
    real *x = new_normal(ROWS * UNITS, 3), *bias = new_normal(UNITS, 4), row[UNITS];
    real *h = activate((struct nonlinearity){.kind = ACT_TOP_K}, 20, x, ROWS, NULL, bias);
    for (size_t i = 0; i < ROWS; i++) {
        for (size_t j = 0; j < UNITS; j++)
            row[j] = x[i * UNITS + j] + bias[j];
        for (size_t j = 0; j < UNITS; j++)
            assert_true(h[i * UNITS + j] == (stays(row, j, 20) ? row[j] : 0));
    }
    free(x);
    free(bias);
    free(h);
}

/* A NaN is not lost among numbers that are larger or smaller: training has to see it. */
static void what_is_not_a_number_is_seen(void **state) {
    (void)state;
    static const size_t places[] = {0, 5, 150, 299};
    static const enum activation kinds[] = {ACT_TOP_K, ACT_TRIANGLE};
    for (size_t p = 0; p < COUNT(places); p++)
        for (size_t k = 0; k < COUNT(kinds); k++) {
            real *x = new_normal(UNITS, 5), bias[UNITS] = {0};
            size_t seen = 0;
            bias[places[p]] = (real)NAN;
            real *h = activate((struct nonlinearity){.kind = kinds[k]}, 10, x, 1, NULL, bias);
            for (size_t j = 0; j < UNITS; j++)
                seen += h[j] != h[j];
            assert_true(seen > 0);
            free(x);
            free(h);
        }
}

/* ---- distances to centroids ---- */

struct centroids {
    real *w, *bias; /* −‖w‖²/2 */
};

static struct centroids new_centroids(void) {
    struct centroids c = {new_normal(UNITS * INPUTS, 6), new_reals(UNITS)};
    for (size_t k = 0; k < UNITS; k++) {
        double square = 0;
        for (size_t j = 0; j < INPUTS; j++)
            square += (double)c.w[k * INPUTS + j] * c.w[k * INPUTS + j];
        c.bias[k] = (real)(-square / 2);
    }
    return c;
}

static double distance_between(const real *a, const real *b) {
    double square = 0;
    for (size_t j = 0; j < INPUTS; j++)
        square += ((double)a[j] - b[j]) * ((double)a[j] - b[j]);
    return sqrt(square);
}

static void triangle_and_hard_codes(void **state) {
    (void)state;
    struct centroids c = new_centroids();
    real *x = new_normal(ROWS * INPUTS, 7);
    memcpy(x, c.w + 140 * INPUTS, INPUTS * sizeof *x); /* sample 0 is a centroid */
    real *triangle = activate((struct nonlinearity){.kind = ACT_TRIANGLE}, 0, x, ROWS, c.w, c.bias);
    real *hard = activate((struct nonlinearity){.kind = ACT_HARD}, 0, x, ROWS, c.w, c.bias);
    for (size_t i = 0; i < ROWS; i++) {
        double z[UNITS], mean = 0;
        size_t nearest = 0;
        for (size_t k = 0; k < UNITS; k++) {
            z[k] = distance_between(x + i * INPUTS, c.w + k * INPUTS);
            mean += z[k] / UNITS;
            nearest = z[k] < z[nearest] ? k : nearest;
        }
        for (size_t k = 0; k < UNITS; k++) {
            double tolerance = z[k] < 1 ? 0.05 : 1e-4; /* near 0 squares cancel in float32 */
            assert_near(triangle[i * UNITS + k], fmax(0, mean - z[k]), tolerance);
            assert_true(triangle[i * UNITS + k] >= 0);
            assert_true(hard[i * UNITS + k] == (k == nearest));
        }
    }
    assert_true(hard[140] == 1);
    free(c.w);
    free(c.bias);
    free(x);
    free(triangle);
    free(hard);
}

static void the_nearest_centroid_at_ties(void **state) {
    (void)state;
    real x[2 * UNITS] = {0};
    x[UNITS + 200] = x[UNITS + 130] = 1; /* sample 0: all alike; sample 1: these two */
    real *h = activate((struct nonlinearity){.kind = ACT_HARD}, 0, x, 2, NULL, NULL);
    for (size_t k = 0; k < UNITS; k++) {
        assert_true(h[k] == (k == 0));
        assert_true(h[UNITS + k] == (k == 130));
    }
    free(h);
}

static void distances_are_kept(void **state) {
    (void)state;
    const struct net_config config = {
        .n_inputs = INPUTS, .n_layers = 1, .units = {UNITS}, .f = {.kind = ACT_HARD}};
    struct centroids c = new_centroids();
    real *x = new_normal(ROWS * INPUTS, 8);
    struct net *net = new_net(&config, 0, ROWS, 2);
    memcpy(net_weight(net, 0), c.w, UNITS * INPUTS * sizeof *c.w);
    memcpy(net_bias(net, 0), c.bias, UNITS * sizeof *c.bias);
    forward(net, 2, &(struct batch){.x = x, .n = ROWS, .group = ROWS});
    for (size_t i = 0; i < ROWS; i++) {
        double nearest = INFINITY;
        for (size_t k = 0; k < UNITS; k++)
            nearest = fmin(nearest, distance_between(x + i * INPUTS, c.w + k * INPUTS));
        assert_relative(net->layers[0].row_square[i], nearest * nearest, 1e-5);
    }
    free_net(net);
    free(c.w);
    free(c.bias);
    free(x);
}

/* ---- a layer without weights ---- */

static void copies_are_the_inputs(void **state) {
    (void)state;
    const struct net_config config = {.n_inputs = INPUTS,
                                      .n_layers = 1,
                                      .units = {INPUTS},
                                      .copies = 1,
                                      .f = {.kind = ACT_LINEAR}};
    real *x = new_normal(ROWS * INPUTS, 9);
    struct net *net = new_net(&config, 0, ROWS, 3);
    forward(net, 3, &(struct batch){.x = x, .n = ROWS, .group = ROWS});
    real *h = new_rows(&net->layers[0], ROWS);
    assert_memory_equal(h, x, ROWS * INPUTS * sizeof *x);
    struct net_part parts[PARTS_MAX];
    assert_int_equal(net_parts(net, parts), 0);
    free(h);
    free(x);
    free_net(net);
}

/* ---- dropout ---- */

static struct net *new_dropping_net(double share, uint64_t seed, int members) {
    const struct net_config config = {.n_inputs = 3,
                                      .n_layers = 2,
                                      .units = {UNITS, 4},
                                      .dropout = {share},
                                      .f = {.kind = ACT_SIGMOID},
                                      .seed = seed};
    return new_net(&config, 0, ROWS, members);
}

/* What each sample of a step keeps, in rows, and whether the next layer gets just that. */
static real *new_mask(double share, uint64_t seed, uint32_t epoch, uint32_t first, int members) {
    struct net *net = new_dropping_net(share, seed, members);
    struct layer *layer = &net->layers[0];
    real *x = new_normal(ROWS * 3, 10), *mask = new_reals(ROWS * UNITS);
    forward(net, members,
            &(struct batch){
                .x = x, .n = ROWS, .group = ROWS, .training = 1, .epoch = epoch, .first = first});
    for (size_t s = 0; s < layer->n_shards; s++) {
        struct shard shard = layer_shard(layer, s);
        const real *keep = layer->keep + layer->max_rows * shard.first;
        for (size_t i = 0; i < ROWS; i++)
            memcpy(mask + i * UNITS + shard.first, keep + i * shard.units,
                   shard.units * sizeof *mask);
    }
    for (size_t i = 0; i < ROWS * UNITS; i++) /* all weights are 0, so all h are ½ */
        assert_true(layer->output[i] == mask[i] / 2);
    free(x);
    free_net(net);
    return mask;
}

static void dropout_share(void **state) {
    (void)state;
    static const double shares[] = {0.1, 0.5, 0.9, 0.999};
    for (size_t s = 0; s < COUNT(shares); s++) {
        double p = shares[s], n = ROWS * UNITS, dropped = 0;
        real *mask = new_mask(p, 1, 1, 0, 1);
        for (size_t i = 0; i < ROWS * UNITS; i++) {
            assert_true(mask[i] == 0 || fabs(mask[i] * (1 - p) - 1) < 1e-4);
            dropped += mask[i] == 0;
        }
        assert_near(dropped / n, p, 5 * sqrt(p * (1 - p) / n));
        free(mask);
    }
}

static void dropout_is_named_by_seed_epoch_and_sample(void **state) {
    (void)state;
    real *mask = new_mask(0.5, 7, 3, 100, 1);
    for (size_t t = 1; t < COUNT(TEAM_SIZES); t++) {
        real *other = new_mask(0.5, 7, 3, 100, TEAM_SIZES[t]);
        assert_memory_equal(other, mask, ROWS * UNITS * sizeof *mask);
        free(other);
    }
    for (uint32_t i = 0; i < ROWS; i++) { /* a sample's stream, unit after unit */
        struct rng rng;
        rng_init(&rng, 7, RNG_DROPOUT, 3, 100 + i);
        for (size_t k = 0; k < UNITS; k++)
            assert_true((mask[i * UNITS + k] == 0) == (rng_u32(&rng) < 1u << 31));
    }
    real *later = new_mask(0.5, 7, 3, 102, 2); /* two samples on */
    assert_memory_equal(later, mask + 2 * UNITS, (ROWS - 2) * UNITS * sizeof *mask);
    real *epoch = new_mask(0.5, 7, 4, 100, 1), *seed = new_mask(0.5, 8, 3, 100, 1);
    assert_memory_not_equal(epoch, mask, ROWS * UNITS * sizeof *mask);
    assert_memory_not_equal(seed, mask, ROWS * UNITS * sizeof *mask);
    assert_memory_not_equal(mask, mask + UNITS, UNITS * sizeof *mask);
    free(mask);
    free(later);
    free(epoch);
    free(seed);
}

static void nothing_is_dropped_outside_of_training(void **state) {
    (void)state;
    struct net *net = new_dropping_net(0.5, 1, 2);
    real *x = new_normal(ROWS * 3, 10);
    forward(net, 2, &(struct batch){.x = x, .n = ROWS, .group = ROWS});
    for (size_t i = 0; i < ROWS * UNITS; i++)
        assert_true(net->layers[0].output[i] == 0.5F);
    free(x);
    free_net(net);
}

/* ---- products of packed rows ---- */

struct products {
    struct packed packed;
    struct active_lists lists;
    const real *x, *w, *g;
    size_t n, units;
    real *h, *out;
    int add;
};

static void products_work(struct member *member, void *arg) {
    struct products *p = arg;
    pack_rows(member, &p->packed, p->x, p->n);
    team_barrier(member);
    if (member->rank)
        return;
    packed_product(&p->packed, p->w, p->units, p->h);
    packed_gradient(&p->packed, &p->lists, p->g, p->units, p->add, p->out);
}

static double dot(const real *a, size_t step_a, const real *b, size_t step_b, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)a[i * step_a] * b[i * step_b];
    return sum;
}

static void check_products(size_t n, size_t d, size_t units, double active, int add, int members) {
    struct arena counting = {0}, arena;
    struct ovr_err err = {0};
    struct products p = {.n = n, .units = units, .add = add};
    struct team *team = new_team(members);
    real *x = new_normal(n * d, 20), *w = new_normal(units * d, 21), *g = new_normal(n * units, 22);
    struct rng rng = test_stream(23);
    for (size_t i = 0; i < n * units; i++)
        g[i] = rng_uniform(&rng) < active ? g[i] : 0;
    for (int counted = 0; counted < 2; counted++) {
        struct arena *from = counted ? &arena : &counting;
        if (counted)
            assert_ok(arena_open(&arena, counting.used, &err), &err);
        packed_place(&p.packed, kernels_get(ISA_AUTO), d, n, from);
        active_lists_place(&p.lists, from);
    }
    p.x = x;
    p.w = w;
    p.g = g;
    p.h = new_reals(n * units);
    p.out = new_reals(units * d);
    for (size_t i = 0; i < units * d; i++)
        p.out[i] = 3;
    team_run(team, products_work, &p);
    double scale = sqrt((double)d), down = sqrt((double)n);
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < units; k++)
            assert_near(p.h[i * units + k], dot(x + i * d, 1, w + k * d, 1, d), 1e-5 * scale);
    for (size_t k = 0; k < units; k++)
        for (size_t j = 0; j < d; j++)
            assert_near(p.out[k * d + j], (add ? 3 : 0) + dot(g + k, units, x + j, d, n),
                        1e-5 * down);
    arena_close(&arena);
    team_free(team);
    free(x);
    free(w);
    free(g);
    free(p.h);
    free(p.out);
}

static void packed_products(void **state) {
    (void)state;
    static const size_t sizes[][3] = {{1, 1, 1},
                                      {5, PANEL - 1, 3},
                                      {ACTIVE_ROWS, PANEL, SHARD_UNITS},
                                      {7, PANEL + 1, 44},
                                      {2 * ACTIVE_ROWS + 9, 2 * PANEL + 13, 19}};
    static const double active[] = {0, 0.1, 0.69, 0.71, 1}; /* by lists, and as dense matrices */
    for (size_t s = 0; s < COUNT(sizes); s++)
        for (size_t a = 0; a < COUNT(active); a++)
            for (int add = 0; add < 2; add++)
                check_products(sizes[s][0], sizes[s][1], sizes[s][2], active[a], add, add ? 3 : 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(top_k_keeps_the_largest),
        cmocka_unit_test(top_k_adds_biases_first),
        cmocka_unit_test(what_is_not_a_number_is_seen),
        cmocka_unit_test(triangle_and_hard_codes),
        cmocka_unit_test(the_nearest_centroid_at_ties),
        cmocka_unit_test(distances_are_kept),
        cmocka_unit_test(copies_are_the_inputs),
        cmocka_unit_test(dropout_share),
        cmocka_unit_test(dropout_is_named_by_seed_epoch_and_sample),
        cmocka_unit_test(nothing_is_dropped_outside_of_training),
        cmocka_unit_test(packed_products),
    };
    return cmocka_run_group_tests_name("core/layer", tests, start_blas, NULL);
}
