/* Measures of a code against a naive recomputation from the activations. */
#include "core/measure.h"
#include "tests/core/check.h"

enum { UNITS = 300, SAMPLES = 150, BLOCK = 64 }; /* ragged shard and batch */

/* A layer whose activations are what it is given, negative ones as well. */
struct pass {
    struct activations layer;
    real *shards; /* what layer.h points to */
    double *squares;
    struct measure *measure;
    const real *h, *bias;
    size_t n;
    struct measures out;
};

/* By one member: rows first .. first + n − 1 as the net would leave them. */
static void show_rows(struct pass *pass, size_t first, size_t n) {
    for (size_t s = 0; s < pass->layer.n_shards; s++) {
        struct shard shard = activations_shard(&pass->layer, s);
        real *to = pass->shards + pass->layer.max_rows * shard.first;
        for (size_t i = 0; i < n; i++)
            memcpy(to + i * shard.units, pass->h + (first + i) * UNITS + shard.first,
                   shard.units * sizeof *to);
    }
    for (size_t i = 0; i < n; i++) {
        pass->squares[i] = 0;
        for (size_t k = 0; k < UNITS; k++)
            pass->squares[i] += pow((double)pass->h[(first + i) * UNITS + k], 2);
    }
}

static void measure_split(struct member *member, void *arg) {
    struct pass *pass = arg;
    struct measures out;
    measure_reset(member, pass->measure);
    for (size_t first = 0; first < pass->n; first += BLOCK) {
        size_t n = min_size(BLOCK, pass->n - first);
        if (member->rank == 0)
            show_rows(pass, first, n);
        team_barrier(member);
        measure_add(member, pass->measure, &pass->layer, n);
    }
    measure_finish(member, pass->measure, pass->bias, &out);
    if (member->rank == 0)
        pass->out = out;
}

/* Measures h (n×UNITS), after another split whose every unit is far more active: sums have to start
 * anew. */
static struct measures measure_with_bias(const real *h, size_t n, int threads, const real *bias) {
    struct ovr_err err = {0};
    struct arena arena, counting = {0};
    struct team *team = new_team(threads);
    real *bright = new_reals(BLOCK * UNITS), *shards = new_reals(BLOCK * UNITS);
    double squares[BLOCK];
    for (size_t i = 0; i < BLOCK * UNITS; i++)
        bright[i] = (real)1e10;
    struct pass pass = {
        .layer = {kernels_get(ISA_AUTO), UNITS, count_shards(UNITS), BLOCK, shards, squares},
        .shards = shards,
        .squares = squares,
        .h = bright,
        .n = BLOCK,
        .bias = bias};
    assert_null(measure_place(&pass.layer, &(struct crew){threads, 1}, &counting));
    assert_ok(arena_open(&arena, counting.used, &err), &err);
    pass.measure = measure_place(&pass.layer, &(struct crew){threads, 1}, &arena);
    assert_int_equal(arena.used, counting.used);
    team_run(team, measure_split, &pass);
    pass.h = h;
    pass.n = n;
    team_run(team, measure_split, &pass);
    arena_close(&arena);
    team_free(team);
    free(bright);
    free(shards);
    return pass.out;
}

static struct measures measure(const real *h, size_t n, int threads) {
    return measure_with_bias(h, n, threads, NULL);
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
        double magnitude = fabs((double)h[i]);
        while (bin + 1 < HISTOGRAM_BINS && magnitude >= (float)histogram_edges[bin + 1])
            bin++;
        if (h[i] == 0)
            zero++;
        else
            counts[bin]++;
        maximum = fmax(maximum, magnitude);
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

/* What is of each row, with the sparsity that has its own test. */
static void check_rows(const real *h, size_t n, const struct measures *measures) {
    struct sparsity_sums sums = {0};
    double active = 0, squares = 0, least = INFINITY, most = 0;
    for (size_t i = 0; i < n; i++) {
        real values[UNITS], scratch[UNITS];
        size_t count = 0;
        for (size_t k = 0; k < UNITS; k++)
            if (h[i * UNITS + k] != 0)
                values[count++] = h[i * UNITS + k];
        struct sparsity one = sparsity_of(values, scratch, count, UNITS);
        sparsity_sum(&sums, &one);
        active += (double)count / (double)n;
        squares += (double)(count * count) / (double)n;
        least = fmin(least, (double)count);
        most = fmax(most, (double)count);
    }
    struct sparsity mean = sparsity_mean(&sums);
    assert_near(measures->over_samples.hoyer, mean.hoyer, 1e-12);
    assert_near(measures->over_samples.treves_rolls, mean.treves_rolls, 1e-12);
    assert_near(measures->over_samples.gini, mean.gini, 1e-12);
    assert_near(measures->active_units.mean, active, 1e-9);
    assert_near(measures->active_units.sd, sqrt(fmax(squares - active * active, 0)), 1e-6);
    assert_true((double)measures->active_units.min == least);
    assert_true((double)measures->active_units.max == most);
}

static void check_measures(const real *h, size_t n, const struct measures *measures) {
    size_t near = 0, zero = 0, zero_codes = 0;
    double sum = 0, magnitudes = 0;
    for (size_t i = 0; i < n * UNITS; i++) {
        sum += (double)h[i];
        magnitudes += fabs((double)h[i]);
        near += fabs((double)h[i]) < 0.1;
        zero += h[i] == 0;
    }
    for (size_t i = 0; i < n; i++)
        zero_codes += row_norm(h + i * UNITS) == 0;
    assert_near(measures->near_zero, (double)near / (double)(n * UNITS), 1e-12);
    assert_near(measures->zero, (double)zero / (double)(n * UNITS), 1e-12);
    assert_near(measures->mean_activation * (double)(n * UNITS), sum, 1e-12 * magnitudes);
    assert_near(measures->overlap, naive_overlap(h, n), 1e-6);
    assert_int_equal(measures->dead_units, naive_dead_units(h, n));
    assert_int_equal(measures->zero_codes, zero_codes);
    check_histogram(&measures->histogram, h, n);
    check_rows(h, n, measures);
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
    for (int sign = 0; sign < 2; sign++) {
        struct measures first = measure(h, SAMPLES, 1);
        for (size_t i = 0; i < COUNT(TEAM_SIZES); i++) {
            struct measures measures = measure(h, SAMPLES, TEAM_SIZES[i]);
            assert_int_equal(measures.zero_codes, 3);
            assert_int_equal(measures.dead_units, 3);
            check_measures(h, SAMPLES, &measures);
            assert_memory_equal(&measures, &first, sizeof first);
        }
        for (size_t i = 0; i < SAMPLES * UNITS; i += 3) /* as a tanh would have it */
            h[i] = -h[i];
    }
    free(h);
}

static void assert_same_measures(const struct measures *a, const struct measures *b) {
    assert_near(a->overlap, b->overlap, 1e-12);
    assert_near(a->over_samples.hoyer, b->over_samples.hoyer, 1e-12);
    assert_near(a->over_samples.treves_rolls, b->over_samples.treves_rolls, 1e-12);
    assert_near(a->over_samples.gini, b->over_samples.gini, 1e-12);
    assert_memory_equal(&a->active_units, &b->active_units, sizeof a->active_units);
    assert_memory_equal(&a->histogram, &b->histogram, sizeof a->histogram);
    assert_int_equal(a->dead_units, b->dead_units);
}

/* Neither the order of the samples nor that of the units matters. */
static void order_does_not_matter(void **state) {
    (void)state;
    real *h = new_wide_activations(SAMPLES), *other = new_reals(SAMPLES * UNITS);
    struct measures measures = measure(h, SAMPLES, 2), moved;
    for (size_t i = 0; i < SAMPLES; i++)
        memcpy(other + i * UNITS, h + i * 7 % SAMPLES * UNITS, UNITS * sizeof *h);
    moved = measure(other, SAMPLES, 2);
    assert_same_measures(&measures, &moved);
    for (size_t i = 0; i < SAMPLES; i++)
        for (size_t k = 0; k < UNITS; k++)
            other[i * UNITS + k] = h[i * UNITS + k * 7 % UNITS];
    moved = measure(other, SAMPLES, 2);
    assert_same_measures(&measures, &moved);
    free(h);
    free(other);
}

static void halves_add_up(void **state) {
    (void)state;
    real *h = new_wide_activations(SAMPLES);
    struct measures whole = measure(h, SAMPLES, 2), one = measure(h, 70, 2),
                    other = measure(h + 70 * UNITS, SAMPLES - 70, 2);
    histogram_add(&one.histogram, &other.histogram);
    assert_memory_equal(&one.histogram, &whole.histogram, sizeof whole.histogram);
    free(h);
}

static void biases(void **state) {
    (void)state;
    real *h = new_wide_activations(2), bias[UNITS];
    for (size_t k = 0; k < UNITS; k++) /* −100 … 199, shuffled */
        bias[k * 7 % UNITS] = (real)k - 100;
    struct bias_measures measured = measure_with_bias(h, 2, 2, bias).bias;
    assert_int_equal(measured.n, UNITS);
    assert_near(measured.negative, 1. / 3, 1e-15);
    /* numpy.quantile(range(-100, 200), [0, .25, .5, .75, 1]) */
    const double expected[BIAS_QUANTILES] = {-100, -25.25, 49.5, 124.25, 199};
    for (size_t q = 0; q < BIAS_QUANTILES; q++)
        assert_near(measured.quantile[q], expected[q], 1e-12);
    assert_int_equal(measure(h, 2, 1).bias.n, 0);
    free(h);
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
    const real broken[] = {(real)INFINITY, (real)NAN, -(real)NAN, -(real)INFINITY};
    for (size_t i = 0; i < COUNT(broken); i++) {
        for (size_t k = 0; k < UNITS; k++)
            h[k] = broken[i];
        struct measures measures = measure(h, 1, 1);
        assert_int_equal(measures.histogram.zero_count, 0);
        assert_int_equal(measures.histogram.counts[HISTOGRAM_BINS - 1], UNITS);
        assert_int_equal(measures.active_units.min, UNITS);
    }
    free(h);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_naive_recomputation),
        cmocka_unit_test(order_does_not_matter),
        cmocka_unit_test(halves_add_up),
        cmocka_unit_test(biases),
        cmocka_unit_test(values_on_edges),
        cmocka_unit_test(values_above_the_last_edge),
        cmocka_unit_test(overlap_needs_two_codes),
        cmocka_unit_test(infinities_and_nans_stay_in_bounds),
    };
    return cmocka_run_group_tests_name("core/measure", tests, start_blas, NULL);
}
