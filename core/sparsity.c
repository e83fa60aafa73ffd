#include "core/sparsity.h"

#include <math.h>
#include <string.h>

#ifdef OVR_FLOAT64
typedef uint64_t word;
#else
typedef uint32_t word;
#endif

enum { DIGIT_BITS = 8, DIGITS = 1 << DIGIT_BITS, PASSES = sizeof(word) };

/* Makes magnitudes and counts how often each byte of them has each value: the bits of floats that
 * are not negative are in the order of their values. */
static void count_digits(real *values, size_t n, uint32_t counts[PASSES][DIGITS]) {
    memset(counts, 0, sizeof(uint32_t[PASSES][DIGITS]));
    for (size_t i = 0; i < n; i++) {
        word bits;
        memcpy(&bits, &values[i], sizeof bits);
        bits = (word)(bits << 1) >> 1;
        memcpy(&values[i], &bits, sizeof bits);
        for (int pass = 0; pass < PASSES; pass++)
            counts[pass][(bits >> (pass * DIGIT_BITS)) % DIGITS]++;
    }
}

static void scatter(const real *from, real *to, size_t n, int shift, uint32_t place[DIGITS]) {
    for (size_t i = 0; i < n; i++) {
        word bits;
        memcpy(&bits, &from[i], sizeof bits);
        to[place[(bits >> shift) % DIGITS]++] = from[i];
    }
}

/* Radix sort, byte by byte from the lowest: activations come by the million, and this takes a few
 * nanoseconds each whatever their distribution. */
static void sort_magnitudes(real *values, real *scratch, size_t n) {
    uint32_t counts[PASSES][DIGITS];
    real *from = values, *to = scratch;
    count_digits(values, n, counts);
    for (int pass = 0; pass < PASSES; pass++) {
        uint32_t start = 0, most = 0;
        for (int digit = 0; digit < DIGITS; digit++) {
            uint32_t count = counts[pass][digit];
            most = count > most ? count : most;
            counts[pass][digit] = start;
            start += count;
        }
        if (most == n) /* all alike in this byte */
            continue;
        scatter(from, to, n, pass * DIGIT_BITS, counts[pass]);
        real *swap = from;
        from = to;
        to = swap;
    }
    if (from != values)
        memcpy(values, from, n * sizeof *values);
}

struct sparsity sparsity_of(real *values, real *scratch, size_t n, size_t m) {
    if (m < 2 || n == 0)
        return (struct sparsity){NAN, NAN, NAN};
    sort_magnitudes(values, scratch, n);
    /* The m − n zeros come first and add nothing: element j of the others is number k = m − n + j +
     * 1, so m − k + ½ = n − j − ½. */
    double size = (double)m, sum = 0, squares = 0, weighted = 0;
    for (size_t j = 0; j < n; j++) {
        double v = (double)values[j];
        sum += v;
        squares += v * v;
        weighted += v * ((double)(n - j) - 0.5);
    }
    return (struct sparsity){
        .hoyer = (sqrt(size) - sum / sqrt(squares)) / (sqrt(size) - 1),
        .treves_rolls = (1 - sum * sum / (size * squares)) / (1 - 1 / size),
        .gini = 1 - 2 * weighted / (sum * size),
    };
}

void sparsity_sum(struct sparsity_sums *sums, const struct sparsity *one) {
    if (isnan(one->gini))
        return;
    sums->sum.hoyer += one->hoyer;
    sums->sum.treves_rolls += one->treves_rolls;
    sums->sum.gini += one->gini;
    sums->n++;
}

struct sparsity sparsity_mean(const struct sparsity_sums *sums) {
    double n = sums->n ? (double)sums->n : NAN;
    return (struct sparsity){sums->sum.hoyer / n, sums->sum.treves_rolls / n, sums->sum.gini / n};
}
