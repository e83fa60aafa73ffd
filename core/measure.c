#include "core/measure.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Of a batch's rows, each written by one member and read by all. */
struct row_figures {
    struct sparsity sparsity;
    size_t active;
    double sum;
};

/* Sums of one member. */
struct member_sums {
    /* Of its own rows: */
    uint64_t counts[HISTOGRAM_BINS];
    uint64_t zero_count, total;
    real maximum;
    /* Of all rows, the same for every member: */
    struct sparsity_sums over_samples;
    double sum;
    uint64_t rows, zero_codes, active, active_squares, active_min, active_max;
    /* What it works with: */
    double *row_weight;     /* max_rows: 1/‖h_i‖, or 0 for a zero row */
    real *values, *scratch; /* of a row: K, with LIST_ROOM more */
    char pad[OVR_ALIGN];
};

enum { CELL_SHIFT = 20, CELLS = 1 << (31 - CELL_SHIFT) };

struct measure {
    size_t n_shards, n_units;
    real edges[HISTOGRAM_BINS + 1]; /* with a NaN at the end, which even +∞ does not reach */
    /* By the upper bits of a positive float, cells as wide as 1/8 of an octave, narrower than any
     * bin: where to look first. */
    uint8_t first_bin[CELLS];
    real *unit_max;           /* K: max_i |h_ik| */
    double *direction;        /* K: Σ_i ĥ_ik */
    double *parts;            /* for each shard: [‖ŝ‖² | dead units] */
    struct row_figures *rows; /* max_rows */
    real *bias;               /* K */
    size_t n_ranks;
    struct histogram *histograms; /* of each rank's rows */
    /* Of several ranks, what they send each other of a batch's rows: */
    uint32_t *counts; /* ranks×n */
    real *send, *receive;
    struct member_sums *members;
};

static void fill_first_bins(struct measure *measure) {
    for (size_t bin = 0; bin < HISTOGRAM_BINS; bin++)
        measure->edges[bin] = (real)(float)histogram_edges[bin];
    measure->edges[HISTOGRAM_BINS] = (real)NAN;
    size_t bin = 0;
    for (uint32_t cell = 0; cell < CELLS; cell++) {
        uint32_t bits = cell << CELL_SHIFT;
        float low;
        memcpy(&low, &bits, sizeof low);
        while (bin + 1 < HISTOGRAM_BINS && low >= measure->edges[bin + 1])
            bin++;
        measure->first_bin[cell] = (uint8_t)bin;
    }
}

/* Room for a rank's part of all rows, and for all of its rows. */
static void place_exchange(struct measure *m, size_t max_rows, int ranks, struct arena *arena) {
    size_t n = (size_t)ranks, blocks = (m->n_units + BY_UNIT - 1) / BY_UNIT;
    m->n_ranks = n;
    m->histograms = arena_take(arena, n, sizeof *m->histograms);
    if (ranks == 1)
        return;
    m->counts = arena_take(arena, n * max_rows, sizeof *m->counts);
    m->send = arena_take(arena, max_rows * ((blocks + n - 1) / n) * BY_UNIT, sizeof *m->send);
    m->receive = arena_take(arena, (max_rows + n - 1) / n * m->n_units, sizeof *m->receive);
}

struct measure *measure_place(const struct activations *a, const struct crew *crew,
                              struct arena *arena) {
    struct measure counted, *placed = arena_take(arena, 1, sizeof *placed);
    struct measure *m = placed ? placed : &counted;
    m->n_shards = a->n_shards;
    m->n_units = a->n_units;
    m->unit_max = arena_take(arena, m->n_units, sizeof *m->unit_max);
    m->direction = arena_take(arena, m->n_units, sizeof *m->direction);
    m->parts = arena_take(arena, m->n_shards * 2, sizeof *m->parts);
    m->rows = arena_take(arena, a->max_rows, sizeof *m->rows);
    m->bias = arena_take(arena, m->n_units, sizeof *m->bias);
    place_exchange(m, a->max_rows, crew->ranks, arena);
    m->members = arena_take(arena, (size_t)crew->members, sizeof *m->members);
    for (int i = 0; i < crew->members; i++) {
        struct member_sums sums = {
            .row_weight = arena_take(arena, a->max_rows, sizeof(double)),
            .values = arena_take(arena, m->n_units + LIST_ROOM, sizeof(real)),
            .scratch = arena_take(arena, m->n_units, sizeof(real)),
        };
        if (placed)
            m->members[i] = sums;
    }
    if (placed)
        fill_first_bins(placed);
    return placed;
}

void measure_reset(struct member *member, struct measure *m) {
    size_t first, end;
    team_own(member, BY_SHARD, m->n_shards, &first, &end);
    size_t unit = first * SHARD_UNITS, units = min_size(end * SHARD_UNITS, m->n_units) - unit;
    memset(m->unit_max + unit, 0, units * sizeof *m->unit_max);
    memset(m->direction + unit, 0, units * sizeof *m->direction);
    struct member_sums *sums = &m->members[member->rank];
    *sums = (struct member_sums){.row_weight = sums->row_weight,
                                 .values = sums->values,
                                 .scratch = sums->scratch,
                                 .active_min = UINT64_MAX};
}

static size_t find_bin(const struct measure *m, real value) {
    real magnitude = value < 0 ? -value : value;
    float narrow = (float)magnitude;
    uint32_t bits;
    memcpy(&bits, &narrow, sizeof bits);
    /* Without the sign, which a NaN may have: a net that diverges is measured before that is
     * noticed. */
    size_t bin = m->first_bin[(bits & INT32_MAX) >> CELL_SHIFT];
    return bin + (magnitude >= m->edges[bin + 1]);
}

/* What is active of shards first .. end - 1 in a row. */
static size_t pack_row(const struct activations *a, size_t first, size_t end, size_t row,
                       real *values) {
    uint8_t unit[SHARD_UNITS + LIST_ROOM];
    size_t n = 0;
    for (size_t i = first; i < end; i++) {
        struct shard shard = activations_shard(a, i);
        const real *h = activations_of(a, &shard) + row * shard.units;
        n += a->kernels->pack_active(h, shard.units, 0, unit, values + n);
    }
    return n;
}

static size_t sum_counts(const uint32_t *counts, size_t n) {
    size_t sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += counts[i];
    return sum;
}

/* What is active in each row goes to the rank whose row it is. */
static void exchange_rows(struct member *member, struct measure *m, const struct member_sums *sums,
                          const struct activations *a, size_t n) {
    uint32_t *counts = m->counts + (size_t)team_rank(member->team) * n;
    size_t first, end, from, to;
    team_held(member->team, BY_SHARD, a->n_shards, &first, &end);
    team_share(member, n, &from, &to);
    for (size_t i = from; i < to; i++) {
        counts[i] = 0;
        for (size_t s = first; s < end; s++) {
            struct shard shard = activations_shard(a, s);
            counts[i] +=
                a->kernels->count_active(activations_of(a, &shard) + i * shard.units, shard.units);
        }
    }
    team_gather(member, BY_ROW, m->counts, m->n_ranks, n * sizeof *counts);
    real *at = m->send + sum_counts(counts, from);
    for (size_t i = from; i < to; i++, at += counts[i - 1]) /* aside: packing writes too much */
        memcpy(at, sums->values, pack_row(a, first, end, i, sums->values) * sizeof *at);
    team_barrier(member);
    if (member->rank == 0)
        team_send_rows(member, m->send, m->receive, m->counts, n);
    team_barrier(member);
}

/* A row as the ranks have sent it, in the order of the units. */
static size_t collect_row(const struct member *member, const struct measure *m, size_t row,
                          size_t n, real *values) {
    size_t first, end, active = 0;
    const real *from = m->receive;
    team_held(member->team, BY_ROW, n, &first, &end);
    for (size_t rank = 0; rank < m->n_ranks; rank++) {
        const uint32_t *counts = m->counts + rank * n;
        size_t before = sum_counts(counts + first, row - first);
        memcpy(values + active, from + before, counts[row] * sizeof *values);
        active += counts[row];
        from += sum_counts(counts + first, end - first);
    }
    return active;
}

static void measure_row(const struct member *member, struct measure *m, struct member_sums *sums,
                        const struct activations *a, size_t row, size_t n) {
    size_t active = m->n_ranks > 1 ? collect_row(member, m, row, n, sums->values)
                                   : pack_row(a, 0, a->n_shards, row, sums->values);
    double sum = 0;
    for (size_t j = 0; j < active; j++) {
        sums->counts[find_bin(m, sums->values[j])]++;
        sum += (double)sums->values[j];
    }
    sums->zero_count += m->n_units - active;
    sums->total += m->n_units;
    /* A zero code by its norm is one here as well. */
    size_t counted = sums->row_weight[row] != 0 ? active : 0;
    m->rows[row] = (struct row_figures){
        sparsity_of(sums->values, sums->scratch, counted, m->n_units), active, sum};
}

static void add_rows(const struct measure *m, struct member_sums *sums, size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint64_t active = m->rows[i].active;
        sparsity_sum(&sums->over_samples, &m->rows[i].sparsity);
        sums->sum += m->rows[i].sum;
        sums->active += active;
        sums->active_squares += active * active;
        sums->active_min = active < sums->active_min ? active : sums->active_min;
        sums->active_max = active > sums->active_max ? active : sums->active_max;
    }
    sums->rows += n;
}

void measure_add(struct member *member, struct measure *m, const struct activations *a, size_t n) {
    size_t first, end;
    struct member_sums *sums = &m->members[member->rank];
    for (size_t i = 0; i < n; i++) {
        double norm = sqrt(a->squares[i]);
        sums->row_weight[i] = norm <= 1e-12 ? 0 : 1 / norm;
        sums->zero_codes += norm <= 1e-12;
    }
    team_own(member, BY_SHARD, m->n_shards, &first, &end);
    for (size_t i = first; i < end; i++) {
        struct shard shard = activations_shard(a, i);
        a->kernels->unit_sums(activations_of(a, &shard), sums->row_weight, n, shard.units,
                              m->unit_max + shard.first, m->direction + shard.first);
    }
    team_barrier(member); /* the shards of all are there, and the last batch's rows were read */
    if (m->n_ranks > 1)
        exchange_rows(member, m, sums, a, n);
    team_own(member, BY_ROW, n, &first, &end);
    for (size_t i = first; i < end; i++)
        measure_row(member, m, sums, a, i, n);
    team_gather(member, BY_ROW, m->rows, n, sizeof *m->rows);
    add_rows(m, sums, n);
}

/* After a barrier: of all members, rank by rank. */
static void read_histogram(struct member *member, const struct measure *m,
                           struct histogram *histogram) {
    struct histogram *own = &m->histograms[team_rank(member->team)];
    if (member->rank == 0)
        memset(own, 0, sizeof *own);
    for (int rank = 0; member->rank == 0 && rank < member->size; rank++) {
        const struct member_sums *sums = &m->members[rank];
        struct histogram one = {
            .zero_count = sums->zero_count, .total = sums->total, .maximum = (double)sums->maximum};
        memcpy(one.counts, sums->counts, sizeof one.counts);
        histogram_add(own, &one);
    }
    team_gather(member, BY_ROW, m->histograms, m->n_ranks, sizeof *own);
    for (size_t rank = 0; rank < m->n_ranks; rank++)
        histogram_add(histogram, &m->histograms[rank]);
}

static int by_value(const void *a, const void *b) {
    real x = *(const real *)a, y = *(const real *)b;
    return (x > y) - (x < y);
}

static void measure_bias(const real *bias, size_t n, real *sorted, struct bias_measures *out) {
    size_t negative = 0;
    memcpy(sorted, bias, n * sizeof *sorted);
    qsort(sorted, n, sizeof *sorted, by_value);
    for (size_t k = 0; k < n; k++)
        negative += sorted[k] < 0;
    out->n = n;
    out->negative = (double)negative / (double)n;
    for (int q = 0; q < BIAS_QUANTILES; q++) {
        double place = (double)q / (BIAS_QUANTILES - 1) * (double)(n - 1);
        size_t below = (size_t)place, above = min_size(below + 1, n - 1);
        double low = (double)sorted[below], high = (double)sorted[above];
        out->quantile[q] = low + (place - (double)below) * (high - low);
    }
}

/* The biases of all units, in m->bias. */
static void gather_bias(struct member *member, const struct measure *m, const real *bias) {
    size_t first, end;
    team_own(member, BY_UNIT, m->n_units, &first, &end);
    memcpy(m->bias + first, bias + first, (end - first) * sizeof *bias);
    team_gather(member, BY_UNIT, m->bias, m->n_units, sizeof *bias);
}

static void read_rows(const struct member_sums *sums, struct measures *out) {
    double n = (double)sums->rows;
    out->over_samples = sparsity_mean(&sums->over_samples);
    out->zero_codes = sums->zero_codes;
    out->active_units.min = sums->active_min;
    out->active_units.max = sums->active_max;
    out->active_units.mean = (double)sums->active / n;
    /* Of exact counts; where all are alike, rounding could leave less than 0. */
    double spread =
        (double)sums->active_squares / n - out->active_units.mean * out->active_units.mean;
    out->active_units.sd = sqrt(fmax(spread, 0));
}

/* Σ over units in a fixed tree of shards: parts[0] = ‖ŝ‖², parts[1] = dead units. */
static void sum_units(struct member *member, struct measure *m) {
    size_t first, end;
    struct member_sums *sums = &m->members[member->rank];
    team_own(member, BY_SHARD, m->n_shards, &first, &end);
    for (size_t i = first; i < end; i++) {
        double *part = m->parts + 2 * i;
        part[0] = part[1] = 0;
        for (size_t k = i * SHARD_UNITS; k < min_size((i + 1) * SHARD_UNITS, m->n_units); k++) {
            part[0] += m->direction[k] * m->direction[k];
            part[1] += m->unit_max[k] == 0;
            sums->maximum = m->unit_max[k] > sums->maximum ? m->unit_max[k] : sums->maximum;
        }
    }
    team_sum(member, BY_SHARD, m->parts, m->n_shards, 2);
}

void measure_finish(struct member *member, struct measure *m, const real *bias,
                    struct measures *out) {
    struct member_sums *sums = &m->members[member->rank];
    sum_units(member, m);
    memset(out, 0, sizeof *out); /* and what pads it: results are compared byte by byte */
    out->dead_units = (size_t)m->parts[1];
    struct histogram *histogram = &out->histogram;
    read_histogram(member, m, histogram);
    read_rows(sums, out);
    if (bias) {
        gather_bias(member, m, bias);
        measure_bias(m->bias, m->n_units, sums->scratch, &out->bias);
    }
    double total = (double)histogram->total;
    out->near_zero = (double)histogram_near_zero(histogram) / total;
    out->zero = (double)histogram->zero_count / total;
    out->mean_activation = sums->sum / total;
    double codes = total / (double)m->n_units - (double)out->zero_codes;
    out->overlap = codes < 2 ? NAN : (m->parts[0] - codes) / (codes * (codes - 1));
    team_barrier(member); /* all have read the sums before anyone starts the next split */
}
