/* Measures of a code against a naive recomputation from the activations. */
#include "core/measure.h"
#include "tests/core/check.h"

enum { UNITS = 300, SAMPLES = 150, BLOCK = 64, GROUP = 16 }; /* ragged shard, batch and group */

struct pass {
    struct net *net;
    struct measure *measure;
    const real *h;
    size_t n;
    struct measures out;
};

static void measure_split(struct member *member, void *arg) {
    struct pass *pass = arg;
    struct measures out;
    measure_reset(member, pass->measure);
    for (size_t first = 0; first < pass->n; first += BLOCK) {
        size_t n = min_size(BLOCK, pass->n - first);
        struct batch batch = {.x = pass->h + first * UNITS, .n = n, .group = GROUP};
        net_forward(member, pass->net, &batch);
        struct activations activations = net_activations(pass->net);
        measure_add(member, pass->measure, &activations, n);
    }
    measure_finish(member, pass->measure, &out);
    if (member->rank == 0)
        pass->out = out;
}

static struct measure *new_measure(const struct net *net, int members, struct arena *arena) {
    struct ovr_err err = {0};
    struct arena counting = {0};
    struct activations activations = net_activations(net);
    assert_null(measure_place(&activations, members, &counting));
    assert_ok(arena_open(arena, counting.used, &err), &err);
    struct measure *measure = measure_place(&activations, members, arena);
    assert_int_equal(arena->used, counting.used);
    return measure;
}

/* Measures h (n×UNITS), after another split whose every unit is far more active: sums have to start
 * anew. */
static struct measures measure(const real *h, size_t n, int threads) {
    struct arena arena;
    struct team *team = new_team(threads);
    real *bright = new_reals(BLOCK * UNITS);
    for (size_t i = 0; i < BLOCK * UNITS; i++)
        bright[i] = (real)1e10;
    struct pass pass = {.net = new_mirror(UNITS, BLOCK, threads), .h = bright, .n = BLOCK};
    pass.measure = new_measure(pass.net, threads, &arena);
    team_run(team, measure_split, &pass);
    pass.h = h;
    pass.n = n;
    team_run(team, measure_split, &pass);
    arena_close(&arena);
    free_net(pass.net);
    team_free(team);
    free(bright);
    return pass.out;
}

static double row_norm(const real *row) {
    double squares = 0;
    for (size_t k = 0; k < UNITS; k++)
        squares += (double)row[k] * row[k];
    return sqrt(squares);
}

/* The mean cosine over all pairs of codes that are not zero. */
static double naive_overlap(const real *h, size_t n) {
    double sum = 0;
    size_t pairs = 0;
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++) {
            double norms = row_norm(h + i * UNITS) * row_norm(h + j * UNITS), dot = 0;
            if (i == j || norms == 0)
                continue;
            for (size_t k = 0; k < UNITS; k++)
                dot += (double)h[i * UNITS + k] * h[j * UNITS + k];
            sum += dot / norms;
            pairs++;
        }
    return sum / (double)pairs;
}

static size_t naive_dead_units(const real *h, size_t n) {
    size_t dead = 0;
    for (size_t k = 0; k < UNITS; k++) {
        int alive = 0;
        for (size_t i = 0; i < n; i++)
            alive |= h[i * UNITS + k] != 0;
        dead += !alive;
    }
    return dead;
}

static void check_histogram(const struct histogram *histogram, const real *h, size_t n) {
    uint64_t counts[HISTOGRAM_BINS] = {0}, zero = 0, sum = 0;
    double maximum = 0;
    for (size_t i = 0; i < n * UNITS; i++) {
        size_t bin = 0;
        while (bin + 1 < HISTOGRAM_BINS && h[i] >= (float)histogram_edges[bin + 1])
            bin++;
        if (h[i] == 0)
            zero++;
        else
            counts[bin]++;
        maximum = fmax(maximum, h[i]);
    }
    assert_true(histogram->zero_count == zero);
    for (size_t bin = 0; bin < HISTOGRAM_BINS; bin++) {
        assert_int_equal(histogram->counts[bin], counts[bin]);
        sum += histogram->counts[bin];
    }
    assert_true(histogram->total == n * UNITS);
    assert_true(sum + histogram->zero_count == histogram->total);
    assert_true(histogram->maximum == maximum);
}

static void check_measures(const real *h, size_t n, const struct measures *measures) {
    size_t near = 0, zero = 0, zero_codes = 0;
    for (size_t i = 0; i < n * UNITS; i++) {
        near += (double)h[i] < 0.1;
        zero += h[i] == 0;
    }
    for (size_t i = 0; i < n; i++)
        zero_codes += row_norm(h + i * UNITS) == 0;
    assert_near(measures->near_zero, (double)near / (double)(n * UNITS), 1e-12);
    assert_near(measures->zero, (double)zero / (double)(n * UNITS), 1e-12);
    assert_near(measures->overlap, naive_overlap(h, n), 1e-6);
    assert_int_equal(measures->dead_units, naive_dead_units(h, n));
    assert_int_equal(measures->zero_codes, zero_codes);
    check_histogram(&measures->histogram, h, n);
}

/* Over many octaves, with codes of zeros and units that are never active. */
static real *new_wide_activations(size_t n) {
    real *h = new_activations(n * UNITS, 1), *octave = new_normal(n * UNITS, 2);
    for (size_t i = 0; i < n * UNITS; i++)
        if (i / UNITS % 50 == 7 || i % UNITS % 100 == 99)
            h[i] = 0;
        else
            h[i] *= (real)exp2(3 * octave[i]);
    free(octave);
    return h;
}

static void equals_naive_recomputation(void **state) {
    (void)state;
    real *h = new_wide_activations(SAMPLES);
    for (size_t i = 0; i < COUNT(TEAM_SIZES); i++) {
        struct measures measures = measure(h, SAMPLES, TEAM_SIZES[i]);
        assert_int_equal(measures.zero_codes, 3);
        assert_int_equal(measures.dead_units, 3);
        check_measures(h, SAMPLES, &measures);
    }
    free(h);
}

static void edges_are_quarter_octaves(void **state) {
    (void)state;
    assert_true(histogram_edges[0] == 0);
    assert_true(histogram_edges[17] == 0.1);
    for (int j = -16; j <= 40; j++)
        assert_relative(histogram_edges[j + 17], 0.1 * exp2(j / 4.0), 1e-14);
}

/* A value on an edge belongs to the bin above it, the one just below to the bin below. */
static void values_on_edges(void **state) {
    (void)state;
    real *h = new_reals(UNITS);
    for (size_t bin = 1; bin < HISTOGRAM_BINS; bin++) {
        float edge = (float)histogram_edges[bin];
        memset(h, 0, UNITS * sizeof *h);
        h[0] = edge;
        h[1] = nextafterf(edge, 0);
        h[2] = nextafterf(edge, INFINITY);
        struct measures measures = measure(h, 1, 1);
        assert_int_equal(measures.histogram.counts[bin], 2);
        assert_int_equal(measures.histogram.counts[bin - 1], 1);
        check_histogram(&measures.histogram, h, 1);
    }
    /* |h| < 0.1 is near zero and 0.1 is not. */
    memset(h, 0, UNITS * sizeof *h);
    h[0] = 0.1f;
    assert_near(measure(h, 1, 1).near_zero, 299. / 300, 1e-12);
    h[0] = nextafterf(0.1f, 0);
    assert_near(measure(h, 1, 1).near_zero, 1, 0);
    free(h);
}

static void values_above_the_last_edge(void **state) {
    (void)state;
    real *h = new_reals(UNITS);
    h[0] = 103;
    h[1] = (real)1e18;
    h[2] = (real)1e-30;
    struct measures measures = measure(h, 1, 1);
    assert_int_equal(measures.histogram.counts[HISTOGRAM_BINS - 1], 2);
    assert_int_equal(measures.histogram.counts[0], 1);
    assert_near(measures.histogram.maximum, 1e18, 1e11);
    assert_int_equal(measures.histogram.zero_count, UNITS - 3);
    free(h);
}

static void overlap_needs_two_codes(void **state) {
    (void)state;
    real *h = new_reals(3 * UNITS);
    assert_true(isnan(measure(h, 3, 1).overlap));
    assert_int_equal(measure(h, 3, 1).zero_codes, 3);
    assert_int_equal(measure(h, 3, 1).dead_units, UNITS);
    h[0] = 1;
    assert_true(isnan(measure(h, 3, 1).overlap));
    h[UNITS] = 2;
    assert_near(measure(h, 3, 1).overlap, 1, 1e-6);
    h[UNITS] = 0;
    h[UNITS + 1] = 2;
    assert_near(measure(h, 3, 1).overlap, 0, 1e-6);
    free(h);
}

/* A net that diverges is measured before that is noticed: nothing may be written out of bounds. */
static void infinities_and_nans_stay_in_bounds(void **state) {
    (void)state;
    real *h = new_reals(UNITS);
    const real broken[] = {(real)INFINITY, (real)NAN, -(real)NAN};
    for (size_t i = 0; i < COUNT(broken); i++) {
        struct arena arena;
        struct team *team = new_team(1);
        struct pass pass = {.net = new_mirror(UNITS, BLOCK, 1), .h = h, .n = 1};
        pass.measure = new_measure(pass.net, 1, &arena);
        for (size_t k = 0; k < UNITS; k++)
            net_bias(pass.net, 0)[k] = broken[i];
        team_run(team, measure_split, &pass);
        assert_int_equal(pass.out.histogram.zero_count, 0);
        assert_int_equal(pass.out.histogram.counts[HISTOGRAM_BINS - 1], UNITS);
        arena_close(&arena);
        free_net(pass.net);
        team_free(team);
    }
    free(h);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_naive_recomputation),
        cmocka_unit_test(edges_are_quarter_octaves),
        cmocka_unit_test(values_on_edges),
        cmocka_unit_test(values_above_the_last_edge),
        cmocka_unit_test(overlap_needs_two_codes),
        cmocka_unit_test(infinities_and_nans_stay_in_bounds),
    };
    return cmocka_run_group_tests_name("core/measure", tests, start_blas, NULL);
}
