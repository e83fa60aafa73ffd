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
#define EXP exp
#define TANH tanh
#define FABS fabs
#else
#define SQRT sqrtf
#define EXP expf
#define TANH tanhf
#define FABS fabsf
#endif

/* The vector type is the machine's own: the compiler takes wider ones apart through memory. */
#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#elif defined(__AVX__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif
enum { LANES = VECTOR_BYTES / sizeof(real) };
typedef real lanes __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(real)), may_alias));

#define INLINE static inline __attribute__((always_inline))

/* The block r[i][j] becomes r[j][i]: for widths 1, 2, 4 … the off-diagonal blocks of that width
 * change places. */
INLINE void transpose_lanes(lanes r[LANES]) {
#ifdef OVR_FLOAT64
    typedef int64_t places __attribute__((vector_size(VECTOR_BYTES)));
#else
    typedef int32_t places __attribute__((vector_size(VECTOR_BYTES)));
#endif
#pragma GCC unroll 4
    for (int width = 1; width < (int)LANES; width *= 2) {
        places upper, lower;
#pragma GCC unroll 16
        for (int j = 0; j < (int)LANES; j++) {
            upper[j] = j & width ? (int)LANES + j - width : j;
            lower[j] = j & width ? (int)LANES + j : j + width;
        }
#pragma GCC unroll 16
        for (int i = 0; i < (int)LANES; i++)
            if (!(i & width)) {
                lanes above = r[i], below = r[i + width];
                r[i] = __builtin_shuffle(above, below, upper);
                r[i + width] = __builtin_shuffle(above, below, lower);
            }
    }
}

/* to (cols×rows) = from (rows×cols)ᵀ; neighbouring rows are `from_row` and `to_row` elements apart.
 */
INLINE void transpose(const real *from, size_t from_row, size_t rows, size_t cols, real *to,
                      size_t to_row) {
    size_t whole_rows = rows / LANES * LANES, whole_cols = cols / LANES * LANES;
    for (size_t i = 0; i < whole_rows; i += LANES)
        for (size_t j = 0; j < whole_cols; j += LANES) {
            lanes block[LANES];
#pragma GCC unroll 16
            for (size_t l = 0; l < LANES; l++)
                block[l] = *(const lanes *)(from + (i + l) * from_row + j);
            transpose_lanes(block);
#pragma GCC unroll 16
            for (size_t l = 0; l < LANES; l++)
                *(lanes *)(to + (j + l) * to_row + i) = block[l];
        }
    for (size_t i = 0; i < rows; i++)
        for (size_t j = i < whole_rows ? whole_cols : 0; j < cols; j++)
            to[j * to_row + i] = from[i * from_row + j];
}

/* A tile of the product: TILE units by one strip of rows, in as many registers as there are. */
#if defined(__AVX512F__)
enum { TILE = 8 };
#else
enum { TILE = 6 };
#endif
enum { STRIP_VECTORS = 2, STRIP = STRIP_VECTORS * LANES };

/* Columns that are summed up before the next units' turn: the strip's stay in the first-level cache
 * meanwhile. */
enum { CHUNK = 128 };

static void pack_strips(const real *x, size_t rows, size_t d, size_t first, size_t end,
                        real *strips) {
    for (size_t row = 0; row < rows; row += STRIP, strips += d * STRIP) {
        size_t n = rows - row < STRIP ? rows - row : STRIP;
        transpose(x + row * d + first, d, n, end - first, strips + first * STRIP, STRIP);
        for (size_t j = first; j < end; j++)
            for (size_t i = n; i < STRIP; i++)
                strips[j * STRIP + i] = 0;
    }
}

/* sums (units×STRIP) = [add] sums + w·xᵀ over n columns of one strip. */
INLINE void product_tile(size_t units, const real *w, size_t d, const real *x, size_t n, int add,
                         real *sums) {
    lanes sum[TILE][STRIP_VECTORS];
    for (size_t u = 0; u < units; u++)
        for (size_t v = 0; v < STRIP_VECTORS; v++)
            sum[u][v] = add ? ((const lanes *)(sums + u * STRIP))[v] : (lanes){0};
    for (size_t j = 0; j < n; j++, x += STRIP) {
        lanes column[STRIP_VECTORS];
        for (size_t v = 0; v < STRIP_VECTORS; v++)
            column[v] = ((const lanes *)x)[v];
        for (size_t u = 0; u < units; u++)
            for (size_t v = 0; v < STRIP_VECTORS; v++)
                sum[u][v] += w[u * d + j] * column[v];
    }
    for (size_t u = 0; u < units; u++)
        for (size_t v = 0; v < STRIP_VECTORS; v++)
            ((lanes *)(sums + u * STRIP))[v] = sum[u][v];
}

static void product(const real *strips, const real *w, size_t rows, size_t cols, size_t d,
                    real *h) {
    real sums[SHARD_UNITS * STRIP] __attribute__((aligned(OVR_ALIGN)));
    for (size_t row = 0; row < rows; row += STRIP, strips += d * STRIP) {
        for (size_t j = 0; j < d; j += CHUNK) {
            size_t n = d - j < CHUNK ? d - j : CHUNK, k = 0;
            const real *x = strips + j * STRIP;
            for (; k + TILE <= cols; k += TILE)
                product_tile(TILE, w + k * d + j, d, x, n, j > 0, sums + k * STRIP);
            for (; k + 2 <= cols; k += 2)
                product_tile(2, w + k * d + j, d, x, n, j > 0, sums + k * STRIP);
            if (k < cols)
                product_tile(1, w + k * d + j, d, x, n, j > 0, sums + k * STRIP);
        }
        size_t n = rows - row < STRIP ? rows - row : STRIP;
        transpose(sums, STRIP, cols, n, h + row * cols, cols);
    }
}

INLINE real activation_of(enum activation kind, const struct nonlinearity *f, real a) {
    switch (kind) { /* not a > 0 ? a : 0, which would turn a NaN into a harmless zero */
    case ACT_RELU:
        return a <= 0 ? 0 : a;
    case ACT_LEAKY_RELU:
        return a <= 0 ? f->slope * a : a;
    case ACT_SIGMOID:
        return 1 / (1 + EXP(-a));
    case ACT_TANH:
        return TANH(a);
    case ACT_THRESHOLDED:
        return a <= f->threshold ? 0 : a;
    default:
        return a;
    }
}

/* f'(a), from h = f(a). */
INLINE real slope_of(enum activation kind, const struct nonlinearity *f, real h) {
    switch (kind) {
    case ACT_RELU:
        return h > 0;
    case ACT_LEAKY_RELU:
        return h > 0 ? 1 : f->slope;
    case ACT_SIGMOID:
        return h * (1 - h);
    case ACT_TANH:
        return 1 - h * h;
    case ACT_THRESHOLDED:
    case ACT_TOP_K:
        return h != 0;
    default:
        return 1;
    }
}

/* One loop for each activation: `kind` is a literal. */
INLINE void activate_all(enum activation kind, const struct nonlinearity *f, real *restrict h,
                         const real *restrict bias, size_t rows, size_t cols,
                         double *restrict row_squares, double *sum) {
    double total = 0;
    for (size_t i = 0; i < rows; i++, h += cols) {
        real squares = 0, row = 0;
#pragma omp simd reduction(+ : squares, row)
        for (size_t k = 0; k < cols; k++) {
            real value = activation_of(kind, f, h[k] + bias[k]);
            h[k] = value;
            squares += value * value;
            row += value;
        }
        row_squares[i] = squares;
        total += row;
    }
    *sum = total;
}

INLINE void backward_all(enum activation kind, int fresh, const struct nonlinearity *f,
                         const real *restrict h, real *restrict g, const real *restrict pull,
                         const real *restrict back, const real *restrict s,
                         const real *restrict constant, size_t rows, size_t cols,
                         real *restrict sums) {
    for (size_t k = 0; k < cols; k++)
        sums[k] = 0;
    for (size_t i = 0; i < rows; i++, h += cols, g += cols) {
        real p = pull[i], b = back[i];
#pragma omp simd
        for (size_t k = 0; k < cols; k++) {
            real d = p * s[k] - b * h[k] + constant[k], slope = slope_of(kind, f, h[k]);
            if (!fresh)
                d += g[k];
            g[k] = kind == ACT_RELU ? h[k] > 0 ? d : 0 : slope * d;
            sums[k] += g[k];
        }
    }
}

#define FOR_KIND(kind, ...)                                                                        \
    switch (kind) {                                                                                \
        __VA_ARGS__(ACT_RELU)                                                                      \
        __VA_ARGS__(ACT_LEAKY_RELU)                                                                \
        __VA_ARGS__(ACT_SIGMOID)                                                                   \
        __VA_ARGS__(ACT_TANH)                                                                      \
        __VA_ARGS__(ACT_THRESHOLDED)                                                               \
        __VA_ARGS__(ACT_TOP_K)                                                                     \
        __VA_ARGS__(ACT_LINEAR)                                                                    \
    default:                                                                                       \
        break;                                                                                     \
    }

static void activate(const struct nonlinearity *f, real *h, const real *bias, size_t rows,
                     size_t cols, double *row_squares, double *sum) {
#define ACTIVATE(KIND)                                                                             \
    case KIND:                                                                                     \
        activate_all(KIND, f, h, bias, rows, cols, row_squares, sum);                              \
        break;
    FOR_KIND(f->kind, ACTIVATE)
}

static void activate_backward(const struct nonlinearity *f, const real *h, real *g, int fresh,
                              const real *pull, const real *back, const real *s,
                              const real *constant, size_t rows, size_t cols, real *sums) {
#define BACKWARD(KIND)                                                                             \
    case KIND:                                                                                     \
        if (fresh)                                                                                 \
            backward_all(KIND, 1, f, h, g, pull, back, s, constant, rows, cols, sums);             \
        else                                                                                       \
            backward_all(KIND, 0, f, h, g, pull, back, s, constant, rows, cols, sums);             \
        break;
    FOR_KIND(f->kind, BACKWARD)
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

static void square_distances(const real *restrict x, const real *restrict v, size_t rows,
                             size_t cols, double *restrict squares) {
    for (size_t i = 0; i < rows; i++, x += cols) {
        real square = 0;
#pragma omp simd reduction(+ : square)
        for (size_t k = 0; k < cols; k++)
            square += (x[k] - v[k]) * (x[k] - v[k]);
        squares[i] = square;
    }
}

/* Adam as in Kingma & Ba (2015), algorithm 1, with the corrections of both moments; AdamW's decay
 * is `keep`. */
static void adam(const struct update *u, size_t n, real *restrict w, const real *restrict g,
                 real *restrict m, real *restrict v) {
    const real b1 = u->beta1, b2 = u->beta2, rate = u->rate, root = u->root_correction;
    const real epsilon = u->epsilon, keep = u->keep;
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        real mi = b1 * m[i] + (1 - b1) * g[i];
        real vi = b2 * v[i] + (1 - b2) * g[i] * g[i];
        m[i] = mi;
        v[i] = vi;
        w[i] = keep * w[i] - rate * mi / (SQRT(vi) * root + epsilon);
    }
}

static void rmsprop(const struct update *u, size_t n, real *restrict w, const real *restrict g,
                    real *restrict squares, real *restrict velocity) {
    const real rho = u->beta2, rate = u->rate, momentum = u->momentum, epsilon = u->epsilon;
    if (momentum == 0) {
#pragma omp simd
        for (size_t i = 0; i < n; i++) {
            squares[i] = rho * squares[i] + (1 - rho) * g[i] * g[i];
            w[i] -= rate * g[i] / (SQRT(squares[i]) + epsilon);
        }
        return;
    }
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        squares[i] = rho * squares[i] + (1 - rho) * g[i] * g[i];
        velocity[i] = momentum * velocity[i] + g[i] / (SQRT(squares[i]) + epsilon);
        w[i] -= rate * velocity[i];
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
    else if (u->rule == UPDATE_RMSPROP)
        rmsprop(u, n, w, g, m, v);
    else
        sgd(u, n, w, g, m);
}

/* Both go through the classes sixteen at a time; `width` is a literal for the common width. */
enum { CLASS_VECTORS = 16 / LANES };

/* Several sums a column, since one could not go faster than one addition after the other. */
enum { SUMS_A_COLUMN = CLASS_VECTORS == 1 ? RUN_STEP : 2 };

INLINE void read_classes(const uint8_t *unit, const real *value, size_t n, const real *w,
                         size_t width, real *out) {
    lanes sum[SUMS_A_COLUMN][CLASS_VECTORS];
    for (size_t s = 0; s < SUMS_A_COLUMN; s++)
        for (size_t v = 0; v < CLASS_VECTORS; v++)
            sum[s][v] = (lanes){0};
    for (size_t j = 0; j < n; j += SUMS_A_COLUMN)
        for (size_t s = 0; s < SUMS_A_COLUMN; s++)
            for (size_t v = 0; v < CLASS_VECTORS; v++)
                sum[s][v] += value[j + s] * ((const lanes *)(w + unit[j + s] * width))[v];
    for (size_t v = 0; v < CLASS_VECTORS; v++) {
        lanes total = sum[0][v];
        for (size_t s = 1; s < SUMS_A_COLUMN; s++)
            total += sum[s][v];
        ((lanes *)out)[v] += total;
    }
}

static void sparse_read(const uint8_t *unit, const real *value, size_t n, const real *w,
                        size_t width, real *out) {
    if (width == 16)
        read_classes(unit, value, n, w, 16, out);
    else
        for (size_t c = 0; c < width; c += 16)
            read_classes(unit, value, n, w + c, width, out + c);
}

INLINE void write_classes(const uint8_t *unit, const real *value, size_t n, const real *delta,
                          size_t width, real *g) {
    lanes d[CLASS_VECTORS];
    for (size_t v = 0; v < CLASS_VECTORS; v++)
        d[v] = ((const lanes *)delta)[v];
    for (size_t j = 0; j < n; j += RUN_STEP)
        for (size_t s = 0; s < RUN_STEP; s++)
            for (size_t v = 0; v < CLASS_VECTORS; v++)
                ((lanes *)(g + unit[j + s] * width))[v] += value[j + s] * d[v];
}

static void sparse_write(const uint8_t *unit, const real *value, size_t n, const real *delta,
                         size_t width, real *g) {
    if (width == 16)
        write_classes(unit, value, n, delta, 16, g);
    else
        for (size_t c = 0; c < width; c += 16)
            write_classes(unit, value, n, delta + c, width, g + c);
}

#if defined(__AVX512F__) && !defined(OVR_FLOAT64)
/* The active ones of sixteen values to the end of a list, whose items are numbered from `first`.
 * Writes a whole vector. Returns how many they are. */
INLINE size_t append_active(__m512 v, size_t first, uint8_t *item, real *value) {
    const __m512i lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    __mmask16 active = _mm512_cmp_ps_mask(v, _mm512_setzero_ps(), _CMP_NEQ_UQ);
    /* Counted before anything is called: gcc 12 spills a mask as two bytes and reads back four. */
    size_t count = (size_t)__builtin_popcount(_cvtmask16_u32(active));
    __asm__("" : "+r"(count));
    __m512i items = _mm512_add_epi32(lane, _mm512_set1_epi32((int)first));
    _mm512_storeu_ps(value, _mm512_maskz_compress_ps(active, v));
    _mm_storeu_si128((__m128i *)(void *)item,
                     _mm512_cvtepi32_epi8(_mm512_maskz_compress_epi32(active, items)));
    return count;
}

/* The first n ≤ 16 values; zeros behind them. */
INLINE __m512 load_some(const real *from, size_t n) {
    return n >= 16 ? _mm512_loadu_ps(from)
                   : _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), from);
}

static size_t list_active(const real *g, size_t rows, size_t cols, uint32_t *count, uint8_t *row,
                          real *value) {
    size_t total = 0;
    for (size_t k = 0; k < cols; k++)
        count[k] = 0;
    for (size_t i = 0; i < rows; i += 16)
        for (size_t k = 0; k < cols; k += 16) {
            lanes block[LANES];
#pragma GCC unroll 16
            for (size_t l = 0; l < LANES; l++)
                block[l] = (lanes)(i + l < rows ? load_some(g + (i + l) * cols + k, cols - k)
                                                : _mm512_setzero_ps());
            transpose_lanes(block);
            for (size_t l = 0; l < LANES && k + l < cols; l++) {
                size_t at = (k + l) * (rows + LIST_ROOM) + count[k + l];
                count[k + l] += (uint32_t)append_active((__m512)block[l], i, row + at, value + at);
            }
        }
    for (size_t k = 0; k < cols; k++)
        total += count[k];
    return total;
}

static size_t pack_active(const real *h, size_t n, size_t first, uint8_t *unit, real *value) {
    size_t count = 0;
    for (size_t k = 0; k < n; k += 16)
        count += append_active(load_some(h + k, n - k), first + k, unit + count, value + count);
    return count;
}
#else
static size_t list_active(const real *restrict g, size_t rows, size_t cols,
                          uint32_t *restrict count, uint8_t *restrict row, real *restrict value) {
    size_t total = 0;
    for (size_t k = 0; k < cols; k++)
        count[k] = 0;
    for (size_t i = 0; i < rows; i++, g += cols)
        for (size_t k = 0; k < cols; k++) {
            /* Written in any case and kept only if not zero: a branch would be mispredicted. */
            size_t at = k * (rows + LIST_ROOM) + count[k];
            row[at] = (uint8_t)i;
            value[at] = g[k];
            count[k] += g[k] != 0;
        }
    for (size_t k = 0; k < cols; k++)
        total += count[k];
    return total;
}

static size_t pack_active(const real *restrict h, size_t n, size_t first, uint8_t *restrict unit,
                          real *restrict value) {
    size_t count = 0;
    for (size_t k = 0; k < n; k++) { /* no branch, see list_active() */
        unit[count] = (uint8_t)(first + k);
        value[count] = h[k];
        count += h[k] != 0;
    }
    return count;
}
#endif

static void unit_sums(const real *restrict h, const double *restrict weight, size_t rows,
                      size_t cols, real *restrict max, double *restrict sums) {
    for (size_t i = 0; i < rows; i++, h += cols) {
        double w = weight[i];
#pragma omp simd
        for (size_t k = 0; k < cols; k++) {
            real magnitude = FABS(h[k]);
            max[k] = magnitude > max[k] ? magnitude : max[k];
            sums[k] += w * h[k];
        }
    }
}

static uint32_t count_active(const real *h, size_t n) {
    uint32_t count = 0;
#pragma omp simd reduction(+ : count)
    for (size_t k = 0; k < n; k++)
        count += h[k] != 0;
    return count;
}

/* A pass over a list sums up SPAN columns, AT_ONCE rows side by side: eight sums are enough to hide
 * an addition's latency, and the longest vectors leave registers for it. */
enum {
    SPAN = 8 * LANES < PANEL ? 8 * LANES : PANEL,
    SUMS = SPAN / LANES,
    AT_ONCE = 8 / SUMS,
};

INLINE void sum_active(const uint8_t *row, const real *value, size_t n, const real *x, int add,
                       real *out) {
    lanes sum[AT_ONCE][SUMS];
    for (size_t u = 0; u < SUMS; u++) {
        sum[0][u] = add ? ((const lanes *)out)[u] : (lanes){0};
        for (size_t r = 1; r < AT_ONCE; r++)
            sum[r][u] = (lanes){0};
    }
    size_t a = 0;
    for (; a + AT_ONCE <= n; a += AT_ONCE)
        for (size_t r = 0; r < AT_ONCE; r++)
            for (size_t u = 0; u < SUMS; u++)
                sum[r][u] += value[a + r] * ((const lanes *)(x + (size_t)row[a + r] * PANEL))[u];
    for (; a < n; a++)
        for (size_t u = 0; u < SUMS; u++)
            sum[0][u] += value[a] * ((const lanes *)(x + (size_t)row[a] * PANEL))[u];
    for (size_t u = 0; u < SUMS; u++) {
        for (size_t r = 1; r < AT_ONCE; r++)
            sum[0][u] += sum[r][u];
        ((lanes *)out)[u] = sum[0][u];
    }
}

/* Panel by panel, so that the panel stays in the first-level cache while all units of the shard use
 * it. The last panel's surplus columns go through a buffer. */
static void active_product(const uint32_t *count, const uint8_t *row, const real *value,
                           const real *x, size_t rows, size_t cols, size_t d, int add, real *out) {
    real last[SPAN] = {0};
    for (size_t first = 0; first < d; first += PANEL, x += rows * PANEL)
        for (size_t k = 0; k < cols; k++)
            for (size_t c = 0; c < PANEL && first + c < d; c += SPAN) {
                size_t at = k * (rows + LIST_ROOM), left = d - first - c;
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
    .strip = STRIP,
    .pack_strips = pack_strips,
    .product = product,
    .activate = activate,
    .weighted_sum = weighted_sum,
    .dot_rows = dot_rows,
    .square_distances = square_distances,
    .activate_backward = activate_backward,
    .list_active = list_active,
    .active_product = active_product,
    .unit_sums = unit_sums,
    .count_active = count_active,
    .pack_active = pack_active,
    .update = update,
    .sparse_read = sparse_read,
    .sparse_write = sparse_write,
    .symmetric_product = symmetric_product,
};
