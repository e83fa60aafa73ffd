/* The hot loops of every instruction set that this machine runs, against plain float64 loops. */
#include "core/kernels.h"
#include "tests/core/check.h"

static const struct {
    size_t rows, cols;
} SIZES[] = {{1, 1}, {3, 7}, {5, 16}, {2, 17}, {17, 44}, {33, 128}, {1, 127}};

static const double TOLERANCE = 2e-5;
static const struct nonlinearity relu_f = {.kind = ACT_RELU};

/* The kernels under test; skips where this processor cannot run them. */
static const struct kernels *kernels_under_test(void **state) {
    enum isa isa = *(const enum isa *)*state;
    const struct kernels *kernels = kernels_get(isa);
    if (!kernels) {
        print_message("this processor cannot run %s\n", isa_name(isa));
        skip();
    }
    assert_int_equal(kernels->isa, isa);
    return kernels;
}

static void check_relu(const struct kernels *kernels, size_t rows, size_t cols) {
    real *a = new_normal(rows * cols, 1), *h = new_reals(rows * cols), *bias = new_normal(cols, 2);
    double *squares = calloc(rows, sizeof *squares), sum, expected_sum = 0;
    memcpy(h, a, rows * cols * sizeof *h);
    kernels->activate(&relu_f, h, bias, rows, cols, squares, &sum);
    for (size_t i = 0; i < rows; i++) {
        double expected_squares = 0;
        for (size_t k = 0; k < cols; k++) {
            double value = fmax(0, (double)(a[i * cols + k] + bias[k]));
            assert_near(h[i * cols + k], value, 0);
            expected_squares += value * value;
            expected_sum += value;
        }
        assert_near(squares[i], expected_squares, TOLERANCE * (1 + expected_squares));
    }
    assert_near(sum, expected_sum, TOLERANCE * (1 + expected_sum));
    free(a);
    free(h);
    free(bias);
    free(squares);
}

static void relu(void **state) {
    const struct kernels *kernels = kernels_under_test(state);
    for (size_t i = 0; i < COUNT(SIZES); i++)
        check_relu(kernels, SIZES[i].rows, SIZES[i].cols);
}

/* Divergence must stay visible, in the vectors and in the ragged end. */
static void relu_keeps_nan(void **state) {
    const struct kernels *kernels = kernels_under_test(state);
    enum { COLS = 45 };
    for (size_t at = 0; at < COLS; at++) {
        real h[COLS] = {0}, bias[COLS] = {0};
        double squares, sum;
        h[at] = (real)NAN;
        kernels->activate(&relu_f, h, bias, 1, COLS, &squares, &sum);
        assert_true(isnan(h[at]) && isnan(squares) && isnan(sum));
        memset(h, 0, sizeof h);
        bias[at] = -(real)NAN;
        kernels->activate(&relu_f, h, bias, 1, COLS, &squares, &sum);
        assert_true(isnan(h[at]) && isnan(squares) && isnan(sum));
    }
}

static void check_sums(const struct kernels *kernels, size_t rows, size_t cols) {
    real *h = new_normal(rows * cols, 3), *weight = new_normal(rows, 4), *v = new_normal(cols, 5);
    real *sums = new_normal(cols, 6);
    double *dots = calloc(rows, sizeof *dots);
    kernels->weighted_sum(h, weight, rows, cols, sums);
    for (size_t k = 0; k < cols; k++) {
        double expected = 0;
        for (size_t i = 0; i < rows; i++)
            expected += (double)weight[i] * h[i * cols + k];
        assert_near(sums[k], expected, TOLERANCE * (1 + fabs(expected)));
    }
    kernels->dot_rows(h, v, rows, cols, dots);
    for (size_t i = 0; i < rows; i++) {
        double expected = 0;
        for (size_t k = 0; k < cols; k++)
            expected += (double)h[i * cols + k] * v[k];
        assert_near(dots[i], expected, TOLERANCE * (10 + fabs(expected)));
    }
    free(h);
    free(weight);
    free(v);
    free(sums);
    free(dots);
}

static void weighted_sum_and_dot_rows(void **state) {
    const struct kernels *kernels = kernels_under_test(state);
    for (size_t i = 0; i < COUNT(SIZES); i++)
        check_sums(kernels, SIZES[i].rows, SIZES[i].cols);
}

/* A row that is the vector itself is at distance 0 exactly: k-means++ relies on it. */
static void square_distances(void **state) {
    const struct kernels *kernels = kernels_under_test(state);
    for (size_t i = 0; i < COUNT(SIZES); i++) {
        size_t rows = SIZES[i].rows, cols = SIZES[i].cols;
        real *x = new_normal(rows * cols, 3), *v = new_normal(cols, 4);
        double squares[64];
        memcpy(x + (rows - 1) * cols, v, cols * sizeof *v);
        kernels->square_distances(x, v, rows, cols, squares);
        for (size_t row = 0; row < rows; row++) {
            double expected = 0;
            for (size_t k = 0; k < cols; k++)
                expected += pow((double)x[row * cols + k] - v[k], 2);
            assert_near(squares[row], expected, TOLERANCE * expected);
        }
        free(x);
        free(v);
    }
}

static void check_backward(const struct kernels *kernels, int fresh, size_t rows, size_t cols) {
    real *h = new_activations(rows * cols, 7), *above = new_normal(rows * cols, 8);
    real *g = new_reals(rows * cols), *s = new_normal(cols, 9), *sums = new_normal(cols, 10);
    real *pull = new_normal(rows, 11), *back = new_normal(rows, 12), *constant = new_reals(cols);
    double *expected_sums = calloc(cols, sizeof *expected_sums);
    for (size_t k = 0; k < cols; k++)
        constant[k] = (real)0.25 + (real)k;
    for (size_t i = 0; i < rows * cols; i++)
        g[i] = fresh ? (real)NAN : above[i]; /* with `fresh` what was there counts for nothing */
    kernels->activate_backward(&relu_f, h, g, fresh, pull, back, s, constant, rows, cols, sums);
    for (size_t i = 0; i < rows; i++)
        for (size_t k = 0; k < cols; k++) {
            double value = h[i * cols + k], expected = 0;
            if (value > 0)
                expected = (fresh ? 0 : (double)above[i * cols + k]) + (double)pull[i] * s[k] -
                           back[i] * value + 0.25 + (double)k;
            assert_near(g[i * cols + k], expected, TOLERANCE * (1 + fabs(expected)));
            expected_sums[k] += expected;
        }
    for (size_t k = 0; k < cols; k++)
        assert_near(sums[k], expected_sums[k], TOLERANCE * (1 + (double)rows * (1 + (double)k)));
    free(h);
    free(above);
    free(g);
    free(s);
    free(sums);
    free(pull);
    free(back);
    free(constant);
    free(expected_sums);
}

static void relu_backward(void **state) {
    const struct kernels *kernels = kernels_under_test(state);
    for (size_t i = 0; i < COUNT(SIZES); i++) {
        check_backward(kernels, 0, SIZES[i].rows, SIZES[i].cols);
        check_backward(kernels, 1, SIZES[i].rows, SIZES[i].cols);
    }
}

/* Every fifth element of g is active, column 2 not at all; x in panels, its surplus columns filled
 * with what must not come through. */
static void check_active(const struct kernels *kernels, size_t rows, size_t cols, size_t d,
                         int add) {
    size_t n_panels = (d + PANEL - 1) / PANEL, active = 0;
    real *g = new_normal(rows * cols, 20), *x = new_normal(rows * d, 21);
    real *panels = new_reals(n_panels * rows * PANEL),
         *value = new_reals(cols * (rows + LIST_ROOM));
    real *out = new_normal(cols * d, 22), *before = new_normal(cols * d, 22);
    uint8_t *row = calloc(cols * (rows + LIST_ROOM), 1);
    uint32_t *count = calloc(cols, sizeof *count);
    for (size_t i = 0; i < rows * cols; i++) {
        if (i % 5 || i % cols == 2)
            g[i] = 0;
        active += g[i] != 0;
    }
    for (size_t p = 0; p < n_panels; p++)
        for (size_t i = 0; i < rows; i++)
            for (size_t c = 0; c < PANEL; c++)
                panels[(p * rows + i) * PANEL + c] =
                    p * PANEL + c < d ? x[i * d + p * PANEL + c] : (real)1e10;
    assert_int_equal(kernels->list_active(g, rows, cols, count, row, value), active);
    kernels->active_product(count, row, value, panels, rows, cols, d, add, out);
    for (size_t k = 0; k < cols; k++) {
        size_t listed = 0;
        for (size_t i = 0; i < rows; i++)
            if (g[i * cols + k] != 0) {
                assert_int_equal(row[k * (rows + LIST_ROOM) + listed], i);
                assert_near(value[k * (rows + LIST_ROOM) + listed++], g[i * cols + k], 0);
            }
        assert_int_equal(count[k], listed);
        for (size_t j = 0; j < d; j++) {
            double expected = add ? before[k * d + j] : 0;
            for (size_t i = 0; i < rows; i++)
                expected += (double)g[i * cols + k] * x[i * d + j];
            assert_near(out[k * d + j], expected, TOLERANCE * 10);
        }
    }
    free(g);
    free(x);
    free(panels);
    free(value);
    free(out);
    free(before);
    free(row);
    free(count);
}

static void product_of_active_units(void **state) {
    const struct kernels *kernels = kernels_under_test(state);
    const size_t widths[] = {1, 7, PANEL - 1, PANEL, PANEL + 1, 2 * PANEL + 33};
    for (size_t i = 0; i < COUNT(widths); i++)
        for (int add = 0; add <= 1; add++) {
            check_active(kernels, 1, 3, widths[i], add);
            check_active(kernels, 33, 44, widths[i], add);
            check_active(kernels, ACTIVE_ROWS, 5, widths[i], add);
        }
}

/* Strips hold the transposed rows, and zeros behind the last one, whoever fills which columns. */
static void check_product(const struct kernels *kernels, size_t rows, size_t cols, size_t d) {
    size_t strip = kernels->strip, n_strips = (rows + strip - 1) / strip;
    real *x = new_normal(rows * d, 23), *w = new_normal(cols * d, 24);
    real *strips = new_reals(n_strips * strip * d), *h = new_reals(rows * cols + 1);
    for (size_t i = 0; i < n_strips * strip * d; i++)
        strips[i] = (real)NAN;
    kernels->pack_strips(x, rows, d, 0, d / 3, strips);
    kernels->pack_strips(x, rows, d, d / 3, d, strips);
    for (size_t i = 0; i < n_strips * strip; i++)
        for (size_t j = 0; j < d; j++)
            assert_near(strips[(i / strip * d + j) * strip + i % strip],
                        i < rows ? x[i * d + j] : 0, 0);
    h[rows * cols] = 77;
    kernels->product(strips, w, rows, cols, d, h);
    for (size_t i = 0; i < rows; i++)
        for (size_t k = 0; k < cols; k++) {
            double expected = 0;
            for (size_t j = 0; j < d; j++)
                expected += (double)x[i * d + j] * w[k * d + j];
            assert_near(h[i * cols + k], expected, TOLERANCE * (1 + sqrt((double)d)));
        }
    assert_near(h[rows * cols], 77, 0);
    free(x);
    free(w);
    free(strips);
    free(h);
}

static void product(void **state) {
    const struct kernels *kernels = kernels_under_test(state);
    const size_t widths[] = {1, 3, 16, 45, 127, 128, 129, 300};
    for (size_t i = 0; i < COUNT(SIZES); i++)
        for (size_t j = 0; j < COUNT(widths); j++)
            check_product(kernels, SIZES[i].rows, SIZES[i].cols, widths[j]);
    check_product(kernels, 128, 128, 200);
    check_product(kernels, 65, 110, 17);
}

static void unit_sums(void **state) {
    const struct kernels *kernels = kernels_under_test(state);
    enum { ROWS = 9, COLS = 45 };
    real *h = new_normal(ROWS * COLS, 25), *max = new_normal(COLS, 26), *was = new_normal(COLS, 26);
    double weight[ROWS], sums[COLS];
    for (size_t i = 0; i < ROWS; i++)
        weight[i] = 1. / (double)(i + 1);
    for (size_t k = 0; k < COLS; k++)
        sums[k] = (double)k;
    kernels->unit_sums(h, weight, ROWS, COLS, max, sums);
    for (size_t k = 0; k < COLS; k++) {
        double expected = (double)k, largest = was[k];
        for (size_t i = 0; i < ROWS; i++) {
            expected += weight[i] * h[i * COLS + k];
            largest = fmax(largest, fabs((double)h[i * COLS + k]));
        }
        assert_near(sums[k], expected, 1e-13 * (double)COLS);
        assert_near(max[k], largest, 0);
    }
    free(h);
    free(max);
    free(was);
}

static void count_and_pack(void **state) {
    const struct kernels *kernels = kernels_under_test(state);
    for (size_t n = 0; n <= 130; n++) {
        real *h = new_activations(n + 1, (uint32_t)n), value[130 + LIST_ROOM];
        uint8_t unit[130 + LIST_ROOM];
        size_t active = 0;
        h[n] = 1; /* not asked for */
        size_t packed = kernels->pack_active(h, n, 100, unit, value);
        for (size_t k = 0; k < n; k++)
            if (h[k] != 0) {
                assert_int_equal(unit[active], 100 + k);
                assert_near(value[active++], h[k], 0);
            }
        assert_int_equal(packed, active);
        assert_int_equal(kernels->count_active(h, n), active);
        free(h);
    }
}

/* A NaN is an activation: it must not be lost on the way. */
static void nan_counts_as_active(void **state) {
    const struct kernels *kernels = kernels_under_test(state);
    real h[20] = {0}, value[20 * (1 + LIST_ROOM)];
    uint8_t index[20 * (1 + LIST_ROOM)];
    uint32_t count[20];
    h[17] = (real)NAN;
    assert_int_equal(kernels->count_active(h, 20), 1);
    assert_int_equal(kernels->pack_active(h, 20, 0, index, value), 1);
    assert_int_equal(index[0], 17);
    assert_int_equal(kernels->list_active(h, 1, 20, count, index, value), 1);
    assert_int_equal(count[17], 1);
}

/* What one element should become, in float64. */
struct element {
    double w, m, v;
};

static struct element naive_update(const struct update *u, struct element e, double g) {
    if (u->rule == UPDATE_ADAM) {
        e.m = u->beta1 * e.m + (1 - u->beta1) * g;
        e.v = u->beta2 * e.v + (1 - u->beta2) * g * g;
        e.w = u->keep * e.w - u->rate * e.m / (sqrt(e.v) * u->root_correction + u->epsilon);
    } else if (u->rule == UPDATE_RMSPROP) {
        e.m = u->beta2 * e.m + (1 - u->beta2) * g * g;
        e.v = u->momentum * e.v + g / (sqrt(e.m) + u->epsilon);
        e.w -= u->rate * e.v;
    } else {
        e.m = u->momentum * e.m + g;
        e.w -= u->rate * (u->nesterov ? g + u->momentum * e.m : e.m);
    }
    return e;
}

static void check_update(const struct kernels *kernels, const struct update *update, size_t n) {
    real *w = new_normal(n, 13), *g = new_normal(n, 14), *m = new_activations(n, 15);
    real *v = new_activations(n, 16),
         *start[3] = {new_normal(n, 13), new_activations(n, 15), new_activations(n, 16)};
    int has_m = update->rule != UPDATE_SGD || update->momentum > 0;
    int has_v =
        update->rule == UPDATE_ADAM || (update->rule == UPDATE_RMSPROP && update->momentum > 0);
    kernels->update(update, n, w, g, has_m ? m : NULL, has_v ? v : NULL);
    for (size_t i = 0; i < n; i++) {
        struct element e = {start[0][i], has_m ? start[1][i] : 0, has_v ? start[2][i] : 0};
        e = naive_update(update, e, g[i]);
        assert_near(w[i], e.w, TOLERANCE * (1 + fabs(e.w)));
        if (has_m)
            assert_near(m[i], e.m, TOLERANCE);
        if (has_v)
            assert_near(v[i], e.v, TOLERANCE * (1 + fabs(e.v)));
    }
    free(w);
    free(g);
    free(m);
    free(v);
    for (size_t i = 0; i < 3; i++)
        free(start[i]);
}

static void update(void **state) {
    const struct kernels *kernels = kernels_under_test(state);
    const struct update updates[] = {
        {.rule = UPDATE_ADAM,
         .rate = (real)0.1,
         .keep = 1,
         .beta1 = (real)0.9,
         .beta2 = (real)0.99,
         .root_correction = 3,
         .epsilon = (real)0.01},
        {.rule = UPDATE_ADAM,
         .rate = (real)0.1,
         .keep = (real)0.75,
         .beta1 = (real)0.9,
         .beta2 = (real)0.99,
         .root_correction = 3,
         .epsilon = (real)0.01},
        {.rule = UPDATE_RMSPROP, .rate = (real)0.1, .beta2 = (real)0.9, .epsilon = (real)0.1},
        {.rule = UPDATE_RMSPROP,
         .rate = (real)0.1,
         .beta2 = (real)0.9,
         .epsilon = (real)0.1,
         .momentum = (real)0.5},
        {.rule = UPDATE_SGD, .rate = (real)0.1},
        {.rule = UPDATE_SGD, .rate = (real)0.1, .momentum = (real)0.9},
        {.rule = UPDATE_SGD, .rate = (real)0.1, .momentum = (real)0.9, .nesterov = 1},
    };
    const size_t sizes[] = {1, 7, 16, 33, 1000};
    for (size_t u = 0; u < COUNT(updates); u++)
        for (size_t i = 0; i < COUNT(sizes); i++)
            check_update(kernels, &updates[u], sizes[i]);
}

/* Units and values of a code of n runs; the last two are the highest units of a shard of 256. */
static void fill_code(size_t n, uint8_t *unit, real *value) {
    struct rng rng = test_stream(17);
    for (size_t j = 0; j < n; j++) {
        unit[j] = (uint8_t)(n - j <= 2 ? 256 - (n - j) : j);
        value[j] = (real)rng_uniform(&rng);
    }
}

static void check_sparse(const struct kernels *kernels, size_t width, size_t n) {
    enum { UNITS = 256 };
    uint8_t unit[UNITS];
    real value[UNITS];
    real *w = new_normal(UNITS * width, 18), *out = new_normal(width, 19);
    real *delta = new_normal(width, 19), *g = new_normal(UNITS * width, 18);
    fill_code(n, unit, value);
    kernels->sparse_read(unit, value, n, w, width, out);
    for (size_t c = 0; c < width; c++) {
        double expected = delta[c]; /* what `out` began with */
        for (size_t j = 0; j < n; j++)
            expected += (double)value[j] * w[unit[j] * width + c];
        assert_near(out[c], expected, TOLERANCE * (1 + (double)n / 8));
    }
    kernels->sparse_write(unit, value, n, delta, width, g);
    for (size_t j = 0; j < n; j++)
        for (size_t c = 0; c < width; c++) {
            real *was = &w[unit[j] * width + c];
            *was += value[j] * delta[c];
        }
    for (size_t i = 0; i < UNITS * width; i++) /* and the rows of other units are as they were */
        assert_near(g[i], w[i], TOLERANCE);
    free(w);
    free(out);
    free(delta);
    free(g);
}

static void sparse_read_and_write(void **state) {
    const struct kernels *kernels = kernels_under_test(state);
    const size_t widths[] = {16, 32, 48}, counts[] = {0, 4, 8, 12, 36, 100};
    for (size_t i = 0; i < COUNT(widths); i++)
        for (size_t j = 0; j < COUNT(counts); j++)
            check_sparse(kernels, widths[i], counts[j]);
}

/* Rows first .. end - 1 of an n×n lower triangle, with nonsense above it. */
static void check_symmetric(const struct kernels *kernels, size_t n, size_t first, size_t end) {
    size_t stride = n + 3;
    double *a = calloc(n * stride, sizeof *a), *v = calloc(n, sizeof *v);
    double *y = calloc(n, sizeof *y), *expected = calloc(n, sizeof *expected);
    struct rng rng = test_stream(60);
    for (size_t i = 0; i < n; i++) {
        v[i] = rng_normal(&rng);
        y[i] = expected[i] = rng_normal(&rng);
        for (size_t j = 0; j < stride; j++)
            a[i * stride + j] = j <= i ? rng_normal(&rng) : NAN;
    }
    for (size_t i = first; i < end; i++)
        for (size_t j = 0; j <= i; j++) {
            expected[i] += a[i * stride + j] * v[j];
            expected[j] += i != j ? a[i * stride + j] * v[i] : 0;
        }
    kernels->symmetric_product(a, stride, first, end, v, y);
    for (size_t i = 0; i < n; i++)
        assert_near(y[i], expected[i], i < end ? 1e-13 * (double)n : 0);
    free(a);
    free(v);
    free(y);
    free(expected);
}

static void symmetric_product(void **state) {
    const struct kernels *kernels = kernels_under_test(state);
    const size_t places[][3] = {{1, 0, 1},    {7, 0, 7},      {8, 0, 8},    {9, 0, 9},
                                {40, 8, 32},  {77, 0, 77},    {77, 16, 69}, {77, 5, 76},
                                {30, 30, 30}, {101, 100, 101}};
    for (size_t i = 0; i < COUNT(places); i++)
        check_symmetric(kernels, places[i][0], places[i][1], places[i][2]);
}

static void auto_is_the_best(void **state) {
    (void)state;
    assert_ptr_equal(kernels_get(ISA_AUTO), kernels_get(isa_best()));
    assert_non_null(kernels_get(ISA_BASELINE));
    for (enum isa isa = ISA_BASELINE; isa <= ISA_AVX512; isa++)
        assert_int_equal(kernels_get(isa) != NULL, isa_runs(isa));
}

static enum isa isas[] = {ISA_BASELINE, ISA_AVX2, ISA_AVX512};

#define FOR_ISA(test, name, i)                                                                     \
    { #test " " name, test, NULL, NULL, &isas[i] }
#define FOR_ALL(test)                                                                              \
    FOR_ISA(test, "baseline", 0), FOR_ISA(test, "avx2", 1), FOR_ISA(test, "avx512", 2)

int main(void) {
    const struct CMUnitTest tests[] = {
        FOR_ALL(relu),
        FOR_ALL(relu_keeps_nan),
        FOR_ALL(weighted_sum_and_dot_rows),
        FOR_ALL(square_distances),
        FOR_ALL(relu_backward),
        FOR_ALL(product),
        FOR_ALL(product_of_active_units),
        FOR_ALL(unit_sums),
        FOR_ALL(count_and_pack),
        FOR_ALL(nan_counts_as_active),
        FOR_ALL(update),
        FOR_ALL(sparse_read_and_write),
        FOR_ALL(symmetric_product),
        cmocka_unit_test(auto_is_the_best),
    };
    return cmocka_run_group_tests_name("core/kernels", tests, NULL, NULL);
}
