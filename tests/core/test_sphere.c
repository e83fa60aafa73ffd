/* The generated sphere: where its points are, and what decides their class. */
#include "core/samples.h"
#include "tests/core/check.h"

static const struct sphere_config config = {
    .samples = 6000, .test_samples = 2000, .latitudes = 4, .sectors = 6, .classes = 10, .seed = 11};

enum { BANDS = 5, SECTORS = 6, CELLS = BANDS * SECTORS };

static struct samples generate(const struct sphere_config *c, int test) {
    struct samples samples;
    struct ovr_err err = {0};
    assert_ok(sphere_generate(&samples, c, test, &err), &err);
    return samples;
}

static void sizes(void **state) {
    (void)state;
    struct samples train = generate(&config, 0), test = generate(&config, 1);
    assert_true(train.n == 6000 && test.n == 2000);
    assert_true(train.d == 3 && train.n_classes == 10);
    samples_release(&train);
    samples_release(&test);
}

static void points_have_unit_norm(void **state) {
    (void)state;
    struct samples s = generate(&config, 0);
    real row[3];
    for (size_t i = 0; i < s.n; i++) {
        samples_row(&s, i, row);
        assert_near(row[0] * row[0] + row[1] * row[1] + row[2] * row[2], 1, 1e-6);
    }
    samples_release(&s);
}

/* Equal steps of z and of the angle; points within rounding of a border are left out. */
static void cells_are_where_points_are(void **state) {
    (void)state;
    struct samples s = generate(&config, 0);
    for (size_t i = 0; i < s.n; i++) {
        const real *x = s.values + 3 * i;
        double band = (x[2] + 1) / 2. * BANDS, turn = atan2(x[1], x[0]) / (2 * M_PI);
        double sector = (turn < 0 ? turn + 1 : turn) * SECTORS;
        if (fabs(band - round(band)) < 1e-5 || fabs(sector - round(sector)) < 1e-4)
            continue;
        assert_int_equal(s.cells[i], (uint32_t)band * SECTORS + (uint32_t)sector);
    }
    samples_release(&s);
}

static void cells_have_equal_shares(void **state) {
    (void)state;
    struct samples s = generate(&config, 0);
    double counts[CELLS] = {0}, expected = 6000. / CELLS;
    for (size_t i = 0; i < s.n; i++) {
        assert_true(s.cells[i] < CELLS);
        counts[s.cells[i]]++;
    }
    for (size_t cell = 0; cell < CELLS; cell++)
        assert_near(counts[cell], expected, 5 * sqrt(expected));
    samples_release(&s);
}

static void splits_share_the_classes_of_cells(void **state) {
    (void)state;
    struct samples train = generate(&config, 0), test = generate(&config, 1);
    int class_of[CELLS], used[10] = {0}, n_used = 0;
    memset(class_of, -1, sizeof class_of);
    for (size_t i = 0; i < train.n + test.n; i++) {
        const struct samples *s = i < train.n ? &train : &test;
        size_t at = i < train.n ? i : i - train.n;
        int *class = &class_of[s->cells[at]];
        assert_true(s->labels[at] < 10);
        assert_true(*class < 0 || *class == s->labels[at]);
        *class = s->labels[at];
        used[s->labels[at]] = 1;
    }
    for (size_t c = 0; c < 10; c++)
        n_used += used[c];
    assert_true(n_used > 5); /* thirty cells with one of ten classes each */
    assert_memory_not_equal(train.values, test.values, 100 * sizeof *train.values);
    samples_release(&train);
    samples_release(&test);
}

static void seed_decides(void **state) {
    (void)state;
    struct sphere_config other = config;
    other.seed++;
    struct samples a = generate(&config, 0), again = generate(&config, 0), b = generate(&other, 0);
    assert_memory_equal(a.values, again.values, 3 * a.n * sizeof *a.values);
    assert_memory_equal(a.labels, again.labels, a.n * sizeof *a.labels);
    assert_memory_not_equal(a.values, b.values, 3 * a.n * sizeof *a.values);
    samples_release(&a);
    samples_release(&again);
    samples_release(&b);
}

static void one_cell_is_enough(void **state) {
    (void)state;
    const struct sphere_config small = {
        .samples = 5, .test_samples = 1, .sectors = 1, .classes = 1};
    struct samples s = generate(&small, 0);
    for (size_t i = 0; i < 5; i++)
        assert_true(s.cells[i] == 0 && s.labels[i] == 0);
    samples_release(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes),
        cmocka_unit_test(points_have_unit_norm),
        cmocka_unit_test(cells_are_where_points_are),
        cmocka_unit_test(cells_have_equal_shares),
        cmocka_unit_test(splits_share_the_classes_of_cells),
        cmocka_unit_test(seed_decides),
        cmocka_unit_test(one_cell_is_enough),
    };
    return cmocka_run_group_tests_name("core/sphere", tests, NULL, NULL);
}
