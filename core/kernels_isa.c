/* Compiled once per instruction set, with ISA=baseline, avx2 or avx512 and matching flags. The
 * loops are plain C that the compiler vectorises; `omp simd` lets it reorder a reduction in the one
 * way that the instruction set's vector length gives. */
#include "core/kernels.h"

#include <immintrin.h>
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

static uint32_t count_active(const real *h, size_t n) {
    uint32_t count = 0;
#pragma omp simd reduction(+ : count)
    for (size_t k = 0; k < n; k++)
        count += h[k] != 0;
    return count;
}

#if defined(__AVX512F__) && !defined(OVR_FLOAT64)
static size_t pack_active(const real *h, size_t n, uint8_t *unit, real *value) {
    const __m512i lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    size_t count = 0;
    for (size_t k = 0; k < n; k += 16) {
        __mmask16 inside = n - k >= 16 ? 0xffff : (__mmask16)((1u << (n - k)) - 1);
        __m512 v = _mm512_maskz_loadu_ps(inside, h + k);
        __mmask16 active = _mm512_cmp_ps_mask(v, _mm512_setzero_ps(), _CMP_NEQ_UQ);
        __m512i units = _mm512_add_epi32(lane, _mm512_set1_epi32((int)k));
        _mm512_storeu_ps(value + count, _mm512_maskz_compress_ps(active, v));
        _mm_storeu_si128((__m128i *)(void *)(unit + count),
                         _mm512_cvtepi32_epi8(_mm512_maskz_compress_epi32(active, units)));
        count += (size_t)__builtin_popcount(active);
    }
    return count;
}
#else
static size_t pack_active(const real *restrict h, size_t n, uint8_t *restrict unit,
                          real *restrict value) {
    size_t count = 0;
    for (size_t k = 0; k < n; k++) { /* no branch, see list_active() */
        unit[count] = (uint8_t)k;
        value[count] = h[k];
        count += h[k] != 0;
    }
    return count;
}
#endif

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

extern const struct kernels PASTE(kernels_, ISA);

const struct kernels PASTE(kernels_, ISA) = {
    .isa = ISA_LEVEL,
    .relu = relu,
    .weighted_sum = weighted_sum,
    .dot_rows = dot_rows,
    .relu_backward = relu_backward,
    .list_active = list_active,
    .active_product = active_product,
    .count_active = count_active,
    .pack_active = pack_active,
    .update = update,
    .sparse_read = sparse_read,
    .sparse_write = sparse_write,
};
