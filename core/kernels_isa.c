/* Compiled once per instruction set, with ISA=baseline, avx2 or avx512 and matching flags. The
 * loops are plain C that the compiler vectorises; `omp simd` lets it reorder a reduction in the one
 * way that the instruction set's vector length gives. */
#include "core/kernels.h"

#include <math.h>
#include <string.h>

#define PASTE2(a, b) a##b
#define PASTE(a, b) PASTE2(a, b)

#ifdef OVR_FLOAT64
#define SQRT sqrt
#else
#define SQRT sqrtf
#endif

static void relu(real *restrict h, const real *restrict bias, size_t rows, size_t cols,
                 double *restrict row_squares, double *sum) {
    double total = 0;
    for (size_t i = 0; i < rows; i++, h += cols) {
        real squares = 0, row = 0;
#pragma omp simd reduction(+ : squares, row)
        for (size_t k = 0; k < cols; k++) {
            real a = h[k] + bias[k];
            /* Not a > 0 ? a : 0, which would turn a NaN into a harmless zero. */
            real value = a <= 0 ? 0 : a;
            h[k] = value;
            squares += value * value;
            row += value;
        }
        row_squares[i] = squares;
        total += row;
    }
    *sum = total;
}

static void weighted_sum(const real *restrict h, const real *restrict weight, size_t rows,
                         size_t cols, real *restrict sums) {
    for (size_t k = 0; k < cols; k++)
        sums[k] = 0;
    for (size_t i = 0; i < rows; i++, h += cols) {
        real w = weight[i];
#pragma omp simd
        for (size_t k = 0; k < cols; k++)
            sums[k] += w * h[k];
    }
}

static void dot_rows(const real *restrict h, const real *restrict v, size_t rows, size_t cols,
                     double *restrict dots) {
    for (size_t i = 0; i < rows; i++, h += cols) {
        real dot = 0;
#pragma omp simd reduction(+ : dot)
        for (size_t k = 0; k < cols; k++)
            dot += h[k] * v[k];
        dots[i] = dot;
    }
}

static void relu_backward(const real *restrict h, real *restrict g, int fresh,
                          const real *restrict pull, const real *restrict back,
                          const real *restrict s, real constant, size_t rows, size_t cols,
                          real *restrict sums) {
    for (size_t k = 0; k < cols; k++)
        sums[k] = 0;
    for (size_t i = 0; i < rows; i++, h += cols, g += cols) {
        real p = pull[i], b = back[i];
        if (fresh) {
#pragma omp simd
            for (size_t k = 0; k < cols; k++) {
                real d = p * s[k] - b * h[k] + constant;
                g[k] = h[k] > 0 ? d : 0;
                sums[k] += g[k];
            }
        } else {
#pragma omp simd
            for (size_t k = 0; k < cols; k++) {
                real d = g[k] + p * s[k] - b * h[k] + constant;
                g[k] = h[k] > 0 ? d : 0;
                sums[k] += g[k];
            }
        }
    }
}

/* Adam as in Kingma & Ba (2015), algorithm 1, with the corrections of both moments. */
static void adam(const struct update *u, size_t n, real *restrict w, const real *restrict g,
                 real *restrict m, real *restrict v) {
    const real b1 = u->beta1, b2 = u->beta2, rate = u->rate, root = u->root_correction;
    const real epsilon = u->epsilon;
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        real mi = b1 * m[i] + (1 - b1) * g[i];
        real vi = b2 * v[i] + (1 - b2) * g[i] * g[i];
        m[i] = mi;
        v[i] = vi;
        w[i] -= rate * mi / (SQRT(vi) * root + epsilon);
    }
}

static void sgd(const struct update *u, size_t n, real *restrict w, const real *restrict g,
                real *restrict m) {
    const real rate = u->rate, momentum = u->momentum;
    if (momentum == 0) {
#pragma omp simd
        for (size_t i = 0; i < n; i++)
            w[i] -= rate * g[i];
        return;
    }
    const real old = u->nesterov ? momentum : 1, fresh = u->nesterov ? 1 : 0;
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        m[i] = momentum * m[i] + g[i];
        w[i] -= rate * (old * m[i] + fresh * g[i]);
    }
}

static void update(const struct update *u, size_t n, real *w, const real *g, real *m, real *v) {
    if (u->rule == UPDATE_ADAM)
        adam(u, n, w, g, m, v);
    else
        sgd(u, n, w, g, m);
}

/* The vector type is the machine's own: the compiler takes wider ones apart through memory. */
#ifdef __AVX__
enum { LANES = 32 / sizeof(real) };
#else
enum { LANES = 16 / sizeof(real) };
#endif
typedef real lanes
    __attribute__((vector_size(LANES * sizeof(real)), aligned(sizeof(real)), may_alias));

/* `vectors` times LANES columns, a literal in the calls below so that the sums stay in registers;
 * two sums a column, since one could not go faster than one addition after the other. */
static inline __attribute__((always_inline)) void read_columns(size_t vectors, const uint8_t *unit,
                                                               const real *value, size_t n,
                                                               const real *w, size_t width,
                                                               real *out) {
    lanes even[16 / LANES], odd[16 / LANES];
    for (size_t v = 0; v < vectors; v++)
        even[v] = odd[v] = (lanes){0};
    size_t j = 0;
    for (; j + 2 <= n; j += 2) {
        const lanes *a = (const lanes *)(w + unit[j] * width);
        const lanes *b = (const lanes *)(w + unit[j + 1] * width);
        for (size_t v = 0; v < vectors; v++) {
            even[v] += value[j] * a[v];
            odd[v] += value[j + 1] * b[v];
        }
    }
    for (size_t v = 0; v < vectors; v++) {
        if (j < n)
            even[v] += value[j] * ((const lanes *)(w + unit[j] * width))[v];
        ((lanes *)out)[v] += even[v] + odd[v];
    }
}

static inline __attribute__((always_inline)) void write_columns(size_t vectors, const uint8_t *unit,
                                                                const real *value, size_t n,
                                                                const real *delta, size_t width,
                                                                real *g) {
    lanes d[16 / LANES];
    for (size_t v = 0; v < vectors; v++)
        d[v] = ((const lanes *)delta)[v];
    for (size_t j = 0; j < n; j++) {
        lanes *row = (lanes *)(g + unit[j] * width);
        for (size_t v = 0; v < vectors; v++)
            row[v] += value[j] * d[v];
    }
}

static void sparse_read(const uint8_t *unit, const real *value, size_t n, const real *w,
                        size_t width, real *out) {
    size_t c = 0;
    for (; c + 16 <= width; c += 16)
        read_columns(16 / LANES, unit, value, n, w + c, width, out + c);
    if (c < width)
        read_columns(8 / LANES, unit, value, n, w + c, width, out + c);
}

static void sparse_write(const uint8_t *unit, const real *value, size_t n, const real *delta,
                         size_t width, real *g) {
    size_t c = 0;
    for (; c + 16 <= width; c += 16)
        write_columns(16 / LANES, unit, value, n, delta + c, width, g + c);
    if (c < width)
        write_columns(8 / LANES, unit, value, n, delta + c, width, g + c);
}

static size_t list_active(const real *restrict g, size_t rows, size_t cols,
                          uint32_t *restrict count, uint8_t *restrict row, real *restrict value) {
    size_t total = 0;
    for (size_t k = 0; k < cols; k++)
        count[k] = 0;
    for (size_t i = 0; i < rows; i++, g += cols)
        for (size_t k = 0; k < cols; k++) {
            /* Written in any case and kept only if not zero: a branch would be mispredicted. */
            size_t at = k * (rows + 1) + count[k];
            row[at] = (uint8_t)i;
            value[at] = g[k];
            count[k] += g[k] != 0;
        }
    for (size_t k = 0; k < cols; k++)
        total += count[k];
    return total;
}

/* Columns that one pass over a list sums up, as many as there are registers for. */
enum { SUMS = 8, SPAN = SUMS * LANES };

static inline __attribute__((always_inline)) void
sum_active(const uint8_t *row, const real *value, size_t n, const real *x, int add, real *out) {
    lanes sum[SUMS];
    for (size_t u = 0; u < SUMS; u++)
        sum[u] = add ? ((const lanes *)out)[u] : (lanes){0};
    for (size_t a = 0; a < n; a++) {
        const lanes *from = (const lanes *)(x + (size_t)row[a] * PANEL);
        for (size_t u = 0; u < SUMS; u++)
            sum[u] += value[a] * from[u];
    }
    for (size_t u = 0; u < SUMS; u++)
        ((lanes *)out)[u] = sum[u];
}

/* Panel by panel, so that the panel stays in the first-level cache while all units of the shard use
 * it. The last panel's surplus columns go through a buffer. */
static void active_product(const uint32_t *count, const uint8_t *row, const real *value,
                           const real *x, size_t rows, size_t cols, size_t d, int add, real *out) {
    real last[SPAN] = {0};
    for (size_t first = 0; first < d; first += PANEL, x += rows * PANEL)
        for (size_t k = 0; k < cols; k++)
            for (size_t c = 0; c < PANEL && first + c < d; c += SPAN) {
                size_t at = k * (rows + 1), left = d - first - c;
                real *to = out + k * d + first + c;
                if (left >= SPAN) {
                    sum_active(row + at, value + at, count[k], x + c, add, to);
                    continue;
                }
                memcpy(last, to, left * sizeof *to);
                sum_active(row + at, value + at, count[k], x + c, add, last);
                memcpy(to, last, left * sizeof *to);
            }
}

/* Eight rows at once: enough streams from memory, and y is read and written once for all of them.
 */
enum { TOGETHER = 8 };

static void eight_rows(const double *restrict a, size_t stride, size_t n, const double *restrict v,
                       const double *restrict w, double *restrict y, double *restrict dots) {
    const double *restrict a0 = a, *restrict a1 = a0 + stride, *restrict a2 = a1 + stride;
    const double *restrict a3 = a2 + stride, *restrict a4 = a3 + stride, *restrict a5 = a4 + stride;
    const double *restrict a6 = a5 + stride, *restrict a7 = a6 + stride;
    double s0 = 0, s1 = 0, s2 = 0, s3 = 0, s4 = 0, s5 = 0, s6 = 0, s7 = 0;
#pragma omp simd reduction(+ : s0, s1, s2, s3, s4, s5, s6, s7)
    for (size_t j = 0; j < n; j++) {
        s0 += a0[j] * v[j], s1 += a1[j] * v[j], s2 += a2[j] * v[j], s3 += a3[j] * v[j];
        s4 += a4[j] * v[j], s5 += a5[j] * v[j], s6 += a6[j] * v[j], s7 += a7[j] * v[j];
        y[j] += w[0] * a0[j] + w[1] * a1[j] + w[2] * a2[j] + w[3] * a3[j] + w[4] * a4[j] +
                w[5] * a5[j] + w[6] * a6[j] + w[7] * a7[j];
    }
    dots[0] = s0, dots[1] = s1, dots[2] = s2, dots[3] = s3;
    dots[4] = s4, dots[5] = s5, dots[6] = s6, dots[7] = s7;
}

/* Row `first` and the n - 1 after it: the columns before `first`, then the triangle. */
static void some_rows(const double *restrict a, size_t stride, size_t first, size_t n,
                      const double *restrict v, double *restrict y) {
    double dots[TOGETHER] = {0};
    size_t from = 0;
    if (n == TOGETHER) {
        eight_rows(a + first * stride, stride, first, v, v + first, y, dots);
        from = first;
    }
    for (size_t i = first; i < first + n; i++) {
        const double *row = a + i * stride;
        double dot = dots[i - first];
#pragma omp simd reduction(+ : dot)
        for (size_t j = from; j < i; j++) {
            y[j] += v[i] * row[j];
            dot += row[j] * v[j];
        }
        y[i] += dot + row[i] * v[i];
    }
}

static void symmetric_product(const double *a, size_t stride, size_t first, size_t end,
                              const double *v, double *y) {
    for (size_t row = first; row < end; row += TOGETHER)
        some_rows(a, stride, row, end - row < TOGETHER ? end - row : TOGETHER, v, y);
}

extern const struct kernels PASTE(kernels_, ISA);

const struct kernels PASTE(kernels_, ISA) = {
    .isa = ISA_LEVEL,
    .relu = relu,
    .weighted_sum = weighted_sum,
    .dot_rows = dot_rows,
    .relu_backward = relu_backward,
    .list_active = list_active,
    .active_product = active_product,
    .update = update,
    .sparse_read = sparse_read,
    .sparse_write = sparse_write,
    .symmetric_product = symmetric_product,
};
