/* Sparsity of a vector against golden numbers of tests/golden/sparsity.py and a naive formula, and
 * what holds for every vector. */
#include "core/sparsity.h"
#include "tests/core/check.h"

static struct sparsity measure(const real *v, size_t m) {
    real *values = new_reals(m), *scratch = new_reals(m);
    size_t n = 0;
    for (size_t k = 0; k < m; k++)
        if (v[k] != 0)
            values[n++] = v[k];
    struct sparsity sparsity = sparsity_of(values, scratch, n, m);
    for (size_t j = 1; m > 1 && j < n; j++)
        assert_true(values[j - 1] <= values[j]);
    free(values);
    free(scratch);
    return sparsity;
}

static void assert_sparsity(struct sparsity s, double hoyer, double treves_rolls, double gini) {
    assert_near(s.hoyer, hoyer, 1e-7);
    assert_near(s.treves_rolls, treves_rolls, 1e-7);
    assert_near(s.gini, gini, 1e-7);
}

static void golden_numbers(void **state) {
    (void)state;
    const real ramp[] = {8, 7, 6, 5, 4, 3, 2, 1};
    const real mixed[] = {0, -3, (real)0.5, 0, 0, 2, (real)-0.25, 0, 0, 7};
    const real wide[] = {(real)1e-6, (real)1e-3, 1, (real)1e3, 0, 0};
    assert_sparsity(measure(ramp, 8), 0.168408666294817, 0.235294117647059, 0.291666666666667);
    assert_sparsity(measure(mixed, 10), 0.715491577634894, 0.821241502284632, 0.750980392156863);
    assert_sparsity(measure(wide, 6), 0.999309756757952, 0.9995995996, 0.832999666334333);
}

/* One element: the most that each can be. All alike: 0. */
static void extremes(void **state) {
    (void)state;
    for (size_t m = 2; m < 400; m += 7) {
        real *v = new_reals(m);
        v[m / 2] = (real)-0.3;
        assert_sparsity(measure(v, m), 1, 1, 1 - 1 / (double)m);
        for (size_t k = 0; k < m; k++)
            v[k] = k % 2 ? (real)-2.5 : (real)2.5;
        assert_sparsity(measure(v, m), 0, 0, 0);
        free(v);
    }
}

static void nothing_to_measure(void **state) {
    (void)state;
    real one = 3, none[5] = {0};
    assert_true(isnan(measure(&one, 1).hoyer) && isnan(measure(&one, 1).treves_rolls) &&
                isnan(measure(&one, 1).gini));
    assert_true(isnan(measure(none, 5).hoyer) && isnan(measure(none, 5).treves_rolls) &&
                isnan(measure(none, 5).gini));
}

static int by_magnitude(const void *a, const void *b) {
    double x = fabs((double)*(const real *)a), y = fabs((double)*(const real *)b);
    return (x > y) - (x < y);
}

/* science.md's formulas word by word, over the zeros too. Spoils v. */
static void check_naively(real *v, size_t m) {
    struct sparsity s = measure(v, m);
    double l1 = 0, squares = 0, sum = 0, size = (double)m;
    qsort(v, m, sizeof *v, by_magnitude);
    for (size_t k = 0; k < m; k++) {
        l1 += fabs((double)v[k]);
        squares += (double)v[k] * (double)v[k];
    }
    for (size_t k = 1; k <= m; k++)
        sum += fabs((double)v[k - 1]) / l1 * (size - (double)k + 0.5) / size;
    double a = l1 * l1 / (size * squares);
    assert_near(s.hoyer, (sqrt(size) - l1 / sqrt(squares)) / (sqrt(size) - 1), 1e-12);
    assert_near(s.treves_rolls, (1 - a) / (1 - 1 / size), 1e-12);
    assert_near(s.gini, 1 - 2 * sum, 1e-12);
}

static void equals_the_formulas(void **state) {
    (void)state;
    for (uint32_t i = 0; i < 60; i++) {
        size_t m = 2 + i * i;
        real *v = i % 2 ? new_activations(m, i) : new_normal(m, i);
        v[m - 1] = 1; /* never the zero vector */
        for (size_t k = 0; k < m && i % 3 == 0; k++)
            v[k] *= (real)exp2(20 * sin((double)k));
        check_naively(v, m);
        free(v);
    }
}

/* Neither the order of the elements nor their scale or signs matter. */
static void order_scale_and_sign(void **state) {
    (void)state;
    enum { M = 501 };
    real *v = new_activations(M, 3), other[M];
    struct sparsity s = measure(v, M);
    for (size_t k = 0; k < M; k++)
        other[k] = v[k * 100 % M] * (k % 3 ? (real)1024 : (real)-1024);
    struct sparsity same = measure(other, M);
    assert_near(same.hoyer, s.hoyer, 0);
    assert_near(same.treves_rolls, s.treves_rolls, 0);
    assert_near(same.gini, s.gini, 0);
    free(v);
}

/* Each measure grows when a small element gives to a large one (Dalton's law). */
static void robbing_the_poor(void **state) {
    (void)state;
    enum { M = 100 };
    real *v = new_reals(M);
    for (size_t k = 0; k < M; k++)
        v[k] = (real)(1 + k);
    struct sparsity before = measure(v, M);
    v[10] -= 5;
    v[90] += 5;
    struct sparsity after = measure(v, M);
    assert_true(after.hoyer > before.hoyer && after.treves_rolls > before.treves_rolls &&
                after.gini > before.gini);
    free(v);
}

static void means_leave_out_what_is_none(void **state) {
    (void)state;
    struct sparsity_sums sums = {0};
    assert_true(isnan(sparsity_mean(&sums).gini));
    sparsity_sum(&sums, &(struct sparsity){0.1, 0.2, 0.3});
    sparsity_sum(&sums, &(struct sparsity){NAN, NAN, NAN});
    sparsity_sum(&sums, &(struct sparsity){0.3, 0.4, 0.5});
    assert_int_equal(sums.n, 2);
    assert_sparsity(sparsity_mean(&sums), 0.2, 0.3, 0.4);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_numbers),
        cmocka_unit_test(extremes),
        cmocka_unit_test(nothing_to_measure),
        cmocka_unit_test(equals_the_formulas),
        cmocka_unit_test(order_scale_and_sign),
        cmocka_unit_test(robbing_the_poor),
        cmocka_unit_test(means_leave_out_what_is_none),
    };
    return cmocka_run_group_tests_name("core/sparsity", tests, NULL, NULL);
}
