#include "core/measure.h"

#include <math.h>
#include <string.h>

/* 0.1·2^(j/4): four literals an octave, doubled exactly from there. */
#define OCTAVE(x)                                                                                  \
    0.1 * (x), 0.11892071150027210667 * (x), 0.14142135623730950488 * (x),                         \
        0.16817928305074290861 * (x)
const double histogram_edges[HISTOGRAM_BINS] = {
    0,           OCTAVE(0.0625), OCTAVE(0.125), OCTAVE(0.25), OCTAVE(0.5), OCTAVE(1),
    OCTAVE(2),   OCTAVE(4),      OCTAVE(8),     OCTAVE(16),   OCTAVE(32),  OCTAVE(64),
    OCTAVE(128), OCTAVE(256),    OCTAVE(512),   102.4,
};
enum { NEAR_ZERO_BINS = 17 }; /* bins below 0.1 */

/* Sums of one member; cells of the table below are as wide as 1/8 of an octave, narrower than any
 * bin. */
struct member_sums {
    uint64_t counts[HISTOGRAM_BINS];
    uint64_t zero_count, total;
    uint64_t zero_codes; /* of all units: the same for every member */
    real maximum;
    double *row_weight; /* max_rows: 1/‖h_i‖, or 0 for a zero row */
    char pad[OVR_ALIGN];
};

enum { CELL_SHIFT = 20, CELLS = 1 << (31 - CELL_SHIFT) };

struct measure {
    size_t n_shards, n_units;
    real edges[HISTOGRAM_BINS + 1]; /* with a NaN at the end, which even +∞ does not reach */
    uint8_t first_bin[CELLS];       /* by the upper bits of a positive float: where to look first */
    real *unit_max;                 /* K */
    double *direction;              /* K: Σ_i ĥ_ik */
    double *parts;                  /* for each shard: [‖ŝ‖² | dead units] */
    struct member_sums *members;
    int n_members;
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

struct measure *measure_place(const struct activations *a, int members, struct arena *arena) {
    struct measure counted, *placed = arena_take(arena, 1, sizeof *placed);
    struct measure *m = placed ? placed : &counted;
    m->n_shards = a->n_shards;
    m->n_units = a->n_units;
    m->n_members = members;
    m->unit_max = arena_take(arena, m->n_units, sizeof *m->unit_max);
    m->direction = arena_take(arena, m->n_units, sizeof *m->direction);
    m->parts = arena_take(arena, m->n_shards * 2, sizeof *m->parts);
    m->members = arena_take(arena, (size_t)members, sizeof *m->members);
    for (int i = 0; i < members; i++) {
        double *weights = arena_take(arena, a->max_rows, sizeof *weights);
        if (placed)
            m->members[i].row_weight = weights;
    }
    if (placed)
        fill_first_bins(placed);
    return placed;
}

void measure_reset(struct member *member, struct measure *m) {
    size_t first, end;
    team_share(member, m->n_shards, &first, &end);
    size_t unit = first * SHARD_UNITS, units = min_size(end * SHARD_UNITS, m->n_units) - unit;
    memset(m->unit_max + unit, 0, units * sizeof *m->unit_max);
    memset(m->direction + unit, 0, units * sizeof *m->direction);
    struct member_sums *sums = &m->members[member->rank];
    *sums = (struct member_sums){.row_weight = sums->row_weight};
}

static size_t find_bin(const struct measure *m, real value) {
    float narrow = (float)value;
    uint32_t bits;
    memcpy(&bits, &narrow, sizeof bits);
    /* Without the sign, which a NaN may have: a net that diverges is measured before that is
     * noticed. */
    size_t bin = m->first_bin[(bits & INT32_MAX) >> CELL_SHIFT];
    return bin + (value >= m->edges[bin + 1]);
}

static void add_values(const struct measure *m, struct member_sums *sums, const real *value,
                       size_t n) {
    for (size_t j = 0; j < n; j++)
        sums->counts[find_bin(m, value[j])]++;
}

static void add_shard(struct measure *m, struct member_sums *sums, const struct activations *a,
                      const struct shard *shard, size_t n) {
    const struct kernels *kernels = a->kernels;
    const real *h = activations_of(a, shard);
    uint8_t unit[SHARD_UNITS + LIST_ROOM];
    real value[SHARD_UNITS + LIST_ROOM];
    kernels->unit_sums(h, sums->row_weight, n, shard->units, m->unit_max + shard->first,
                       m->direction + shard->first);
    for (size_t i = 0; i < n; i++, h += shard->units) {
        size_t active = kernels->pack_active(h, shard->units, 0, unit, value);
        add_values(m, sums, value, active);
        sums->zero_count += shard->units - active;
    }
    sums->total += n * shard->units;
}

void measure_add(struct member *member, struct measure *m, const struct activations *a, size_t n) {
    size_t first, end;
    struct member_sums *sums = &m->members[member->rank];
    const double *squares = a->squares;
    for (size_t i = 0; i < n; i++) {
        double norm = sqrt(squares[i]);
        sums->row_weight[i] = norm <= 1e-12 ? 0 : 1 / norm;
        sums->zero_codes += norm <= 1e-12;
    }
    team_share(member, m->n_shards, &first, &end);
    for (size_t i = first; i < end; i++) {
        struct shard shard = activations_shard(a, i);
        add_shard(m, sums, a, &shard, n);
    }
}

static void add_histogram(struct histogram *to, const struct member_sums *from) {
    to->zero_count += from->zero_count;
    to->total += from->total;
    for (size_t bin = 0; bin < HISTOGRAM_BINS; bin++)
        to->counts[bin] += from->counts[bin];
    to->maximum = fmax(to->maximum, from->maximum);
}

void measure_finish(struct member *member, struct measure *m, struct measures *out) {
    size_t first, end;
    struct member_sums *sums = &m->members[member->rank];
    team_share(member, m->n_shards, &first, &end);
    for (size_t i = first; i < end; i++) {
        double *part = m->parts + 2 * i;
        part[0] = part[1] = 0;
        for (size_t k = i * SHARD_UNITS; k < min_size((i + 1) * SHARD_UNITS, m->n_units); k++) {
            part[0] += m->direction[k] * m->direction[k];
            part[1] += m->unit_max[k] == 0;
            sums->maximum = m->unit_max[k] > sums->maximum ? m->unit_max[k] : sums->maximum;
        }
    }
    team_sum(member, m->parts, m->n_shards, 2);

    *out = (struct measures){.dead_units = (size_t)m->parts[1]};
    struct histogram *histogram = &out->histogram;
    for (int rank = 0; rank < m->n_members; rank++)
        add_histogram(histogram, &m->members[rank]);
    out->zero_codes = m->members[0].zero_codes;
    uint64_t near = histogram->zero_count;
    for (size_t bin = 0; bin < NEAR_ZERO_BINS; bin++)
        near += histogram->counts[bin];
    double total = (double)histogram->total;
    out->near_zero = (double)near / total;
    out->zero = (double)histogram->zero_count / total;
    double codes = total / (double)m->n_units - (double)out->zero_codes;
    out->overlap = codes < 2 ? NAN : (m->parts[0] - codes) / (codes * (codes - 1));
    team_barrier(member); /* all have read the sums before anyone starts the next split */
}
