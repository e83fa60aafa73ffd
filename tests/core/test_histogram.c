/* Histograms: sums, and distances against golden numbers of tests/golden/sparsity.py (scipy's
 * integral over the gap of two polygons) and against what every distance has. */
#include "core/histogram.h"
#include "tests/core/check.h"

static struct histogram of(uint64_t zero, const uint64_t pairs[][2], size_t n) {
    struct histogram h = {.zero_count = zero, .total = zero};
    for (size_t i = 0; i < n; i++) {
        h.counts[pairs[i][0]] += pairs[i][1];
        h.total += pairs[i][1];
    }
    return h;
}
#define HISTOGRAM(zero, ...)                                                                       \
    of(zero, (const uint64_t[][2]){__VA_ARGS__}, COUNT(((const uint64_t[][2]){__VA_ARGS__})))

static void check_distance(const struct histogram *a, const struct histogram *b, double ks,
                           double wasserstein) {
    struct histogram_distance there = histogram_compare(a, b), back = histogram_compare(b, a);
    assert_near(there.ks, ks, 1e-11);
    assert_relative(there.wasserstein, wasserstein, 1e-10);
    assert_near(back.ks, there.ks, 0);
    assert_relative(back.wasserstein, there.wasserstein, 1e-14);
}

static void golden_distances(void **state) {
    (void)state;
    struct histogram a = HISTOGRAM(50, {3, 10}, {17, 20}, {20, 20});
    struct histogram b = HISTOGRAM(30, {3, 40}, {18, 10}, {19, 20});
    check_distance(&a, &b, 0.2, 0.0187849428242);
    a = HISTOGRAM(100, {0, 0});
    b = HISTOGRAM(60, {30, 40});
    check_distance(&a, &b, 0.4, 0.41654730838);
    a = HISTOGRAM(10, {57, 10});
    b = HISTOGRAM(10, {40, 5}, {57, 5});
    a.maximum = 300;
    b.maximum = 110;
    check_distance(&a, &b, 0.25, 48.8272828678);
}

/* Random counts, the last bin left empty so that all have one top edge. */
static struct histogram random_histogram(uint32_t index) {
    struct rng rng = test_stream(index);
    struct histogram h = {.zero_count = rng_below(&rng, 3) ? rng_below(&rng, 1000) : 0};
    h.total = h.zero_count;
    for (size_t bin = 0; bin + 1 < HISTOGRAM_BINS; bin++) {
        h.counts[bin] = rng_below(&rng, 2) ? rng_below(&rng, 1 + 20 * index) : 0;
        h.total += h.counts[bin];
        if (h.counts[bin])
            h.maximum = histogram_edges[bin];
    }
    return h;
}

static void is_a_metric(void **state) {
    (void)state;
    for (uint32_t i = 1; i < 300; i += 3) {
        struct histogram a = random_histogram(i), b = random_histogram(i + 1),
                         c = random_histogram(i + 2);
        struct histogram_distance ab = histogram_compare(&a, &b), bc = histogram_compare(&b, &c),
                                  ac = histogram_compare(&a, &c), aa = histogram_compare(&a, &a);
        assert_near(aa.ks, 0, 0);
        assert_near(aa.wasserstein, 0, 0);
        assert_true(ab.ks > 0 && ab.ks <= 1 && ab.wasserstein > 0);
        assert_true(ac.ks <= ab.ks + bc.ks + 1e-14);
        assert_true(ac.wasserstein <= (ab.wasserstein + bc.wasserstein) * (1 + 1e-12));
        assert_near(histogram_compare(&b, &a).ks, ab.ks, 0);
    }
}

/* Numbers of samples do not matter, only shares. */
static void twice_the_counts(void **state) {
    (void)state;
    struct histogram a = random_histogram(7), twice = a, b = random_histogram(8);
    histogram_add(&twice, &a);
    assert_true(twice.total == 2 * a.total && twice.maximum == a.maximum);
    assert_near(histogram_compare(&a, &twice).ks, 0, 1e-15);
    assert_near(histogram_compare(&a, &twice).wasserstein, 0, 1e-13);
    assert_relative(histogram_compare(&twice, &b).wasserstein,
                    histogram_compare(&a, &b).wasserstein, 1e-12);
}

/* All mass in the atom against all mass evenly in one bin: W1 is the bin's middle. */
static void atom_against_a_bin(void **state) {
    (void)state;
    struct histogram atom = HISTOGRAM(5, {0, 0});
    for (uint64_t bin = 0; bin + 1 < HISTOGRAM_BINS; bin++) {
        struct histogram one = HISTOGRAM(0, {bin, 3});
        double middle = (histogram_edges[bin] + histogram_edges[bin + 1]) / 2;
        check_distance(&atom, &one, 1, middle);
    }
}

static void sums_and_near_zero(void **state) {
    (void)state;
    struct histogram a = HISTOGRAM(4, {0, 1}, {16, 2}, {17, 30}, {57, 1}), sum = {0};
    a.maximum = 200;
    assert_true(histogram_near_zero(&a) == 7);
    histogram_add(&sum, &a);
    assert_memory_equal(&sum, &a, sizeof a);
    struct histogram b = HISTOGRAM(1, {16, 3});
    b.maximum = 0.09;
    histogram_add(&sum, &b);
    assert_true(sum.total == a.total + b.total && sum.counts[16] == 5 && sum.zero_count == 5);
    assert_true(sum.maximum == 200 && histogram_near_zero(&sum) == 11);
}

static void empty_ones_have_no_distance(void **state) {
    (void)state;
    struct histogram none = {0}, some = HISTOGRAM(1, {3, 1});
    assert_true(isnan(histogram_compare(&none, &some).ks));
    assert_true(isnan(histogram_compare(&some, &none).wasserstein));
}

static void edges_are_quarter_octaves(void **state) {
    (void)state;
    assert_true(histogram_edges[0] == 0);
    assert_true(histogram_edges[17] == 0.1);
    for (int j = -16; j <= 40; j++)
        assert_relative(histogram_edges[j + 17], 0.1 * exp2(j / 4.0), 1e-14);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_distances),          cmocka_unit_test(is_a_metric),
        cmocka_unit_test(twice_the_counts),          cmocka_unit_test(atom_against_a_bin),
        cmocka_unit_test(sums_and_near_zero),        cmocka_unit_test(empty_ones_have_no_distance),
        cmocka_unit_test(edges_are_quarter_octaves),
    };
    return cmocka_run_group_tests_name("core/histogram", tests, NULL, NULL);
}
