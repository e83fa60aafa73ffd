#include "core/net.h"

#include "core/linalg.h"
#include "core/rng.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static struct shard net_shard(const struct net *net, size_t index) {
    size_t first = index * SHARD_UNITS;
    return (struct shard){index, first, min_size(SHARD_UNITS, net->config.n_units - first)};
}

/* Offsets into the flat buffer. */
static size_t at_bias(const struct net *net) {
    return net->config.n_units * net->config.n_inputs;
}

static size_t at_head_weight(const struct net *net) {
    return at_bias(net) + net->config.n_units;
}

static size_t at_head_bias(const struct net *net) {
    return at_head_weight(net) + net->config.n_units * net->width;
}

real *net_weight(const struct net *net) {
    return net->params;
}

real *net_bias(const struct net *net) {
    return net->params + at_bias(net);
}

real *net_head_weight(const struct net *net) {
    return net->params + at_head_weight(net);
}

real *net_head_bias(const struct net *net) {
    return net->params + at_head_bias(net);
}

static real *shard_h(const struct net *net, const struct shard *shard) {
    return net->h + net->max_rows * shard->first;
}

struct activations net_activations(const struct net *net) {
    return (struct activations){net->kernels, net->config.n_units, net->n_shards, net->max_rows,
                                net->h,       net->parts};
}

/* What one shard adds to the first sum: [‖h_i‖² | ΣH | ‖s‖² | logits], the middle two for each
 * group. */
static size_t part_length(size_t n, size_t n_groups, size_t n_classes) {
    return n + 2 * n_groups + n * n_classes;
}

static size_t count_groups(const struct batch *batch) {
    return (batch->n + batch->group - 1) / batch->group;
}

enum { ACTIVE_LIST = SHARD_UNITS * (ACTIVE_ROWS + LIST_ROOM) };

/* One member's: copies of what is known of the batch's rows, and room for the shard in hand. */
struct workspace {
    real *row_scale, *pull, *back; /* max_rows */
    real *delta;                   /* max_rows×width */
    real *dw;                      /* units×D */
    real *g;                       /* n×units: gradient at the pre-activations */
    real *dv;                      /* units×width */
    real *z;                       /* n×width: this shard's part of the logits */
    real *db;                      /* units */
    real *dc;                      /* width */
    uint32_t *active_count;        /* units; the lists of kernels.h */
    uint8_t *active_row;
    real *active_value;
};

static void workspace_place(struct workspace *work, const struct net *net, struct arena *arena) {
    const size_t units = SHARD_UNITS, rows = net->max_rows, width = net->width;
    work->row_scale = arena_take(arena, rows, sizeof(real));
    work->pull = arena_take(arena, rows, sizeof(real));
    work->back = arena_take(arena, rows, sizeof(real));
    work->delta = arena_take(arena, rows * width, sizeof(real));
    work->dw = arena_take(arena, units * net->config.n_inputs, sizeof(real));
    work->g = arena_take(arena, rows * units, sizeof(real));
    work->dv = arena_take(arena, units * width, sizeof(real));
    work->z = arena_take(arena, rows * width, sizeof(real));
    work->db = arena_take(arena, units, sizeof(real));
    work->dc = arena_take(arena, width, sizeof(real));
    work->active_count = arena_take(arena, units, sizeof(uint32_t));
    work->active_row = arena_take(arena, ACTIVE_LIST, sizeof(uint8_t));
    work->active_value = arena_take(arena, ACTIVE_LIST, sizeof(real));
}

static size_t count_panels(const struct net_config *config) {
    return (config->n_inputs + PANEL - 1) / PANEL;
}

void net_place(struct net *net, const struct net_config *config, const struct kernels *kernels,
               size_t moments, size_t max_rows, int members, struct arena *arena) {
    size_t width = read_out_width(config->n_classes), k = config->n_units,
           n_shards = count_shards(k);
    *net = (struct net){.config = *config,
                        .kernels = kernels,
                        .n_shards = n_shards,
                        .width = width,
                        .max_rows = max_rows,
                        .n_params = k * (config->n_inputs + 1 + width) + width};
    net->params = arena_take(arena, net->n_params, sizeof(real));
    for (size_t i = 0; i < moments; i++)
        net->moment[i] = arena_take(arena, net->n_params, sizeof(real));
    net->h = arena_take(arena, max_rows * k, sizeof(real));
    net->s = arena_take(arena, k, sizeof(real));
    net->parts = arena_take(arena, n_shards * part_length(max_rows, max_rows, config->n_classes),
                            sizeof(double));
    net->overlap_parts = arena_take(arena, n_shards * max_rows, sizeof(double));
    size_t strips = (max_rows + kernels->strip - 1) / kernels->strip;
    net->strips = arena_take(arena, strips * kernels->strip * config->n_inputs, sizeof(real));
    net->panels = arena_take(arena, max_rows * count_panels(config) * PANEL, sizeof(real));
    net->work = arena_take(arena, (size_t)members, sizeof *net->work);
    for (int i = 0; i < members; i++) {
        struct workspace counted;
        workspace_place(net->work ? &net->work[i] : &counted, net, arena);
    }
}

static double draw_weight(struct rng *rng, const struct net_config *config, size_t in, size_t out) {
    switch (config->init) {
    case INIT_GLOROT:
        return (2 * rng_uniform(rng) - 1) * sqrt(6.0 / (double)(in + out));
    case INIT_HE:
        return rng_normal(rng) * sqrt(2.0 / (double)in);
    default:
        return rng_normal(rng) * config->init_scale;
    }
}

void net_init_weights(struct member *member, struct net *net) {
    const struct net_config *config = &net->config;
    size_t first, end, d = config->n_inputs, c = config->n_classes, k = config->n_units;
    team_share(member, k, &first, &end);
    for (size_t unit = first; unit < end; unit++) {
        struct rng rng;
        rng_init(&rng, config->seed, RNG_INIT, 0, (uint32_t)unit);
        for (size_t j = 0; j < d; j++)
            net_weight(net)[unit * d + j] = (real)draw_weight(&rng, config, d, k);
        rng_init(&rng, config->seed, RNG_HEAD_INIT, 0, (uint32_t)unit);
        for (size_t j = 0; j < c; j++)
            net_head_weight(net)[unit * net->width + j] = (real)draw_weight(&rng, config, k, c);
    }
    team_barrier(member);
}

/* This shard's part of the logits, with the bias in shard 0's part. */
static void read_out(const struct net *net, const struct workspace *work, const struct shard *shard,
                     size_t n, const real *h, double *logits) {
    size_t classes = net->config.n_classes, width = net->width;
    linalg_gemm(n, width, shard->units, h, shard->units,
                net_head_weight(net) + shard->first * width, width, 0, work->z, width);
    for (size_t i = 0; i < n; i++)
        for (size_t c = 0; c < classes; c++)
            logits[i * classes + c] =
                work->z[i * width + c] + (shard->index ? 0 : net_head_bias(net)[c]);
}

static void forward_shard(struct net *net, const struct workspace *work, const struct shard *shard,
                          const struct batch *batch, const real *ones) {
    size_t d = net->config.n_inputs, units = shard->units, n_groups = count_groups(batch);
    size_t length = part_length(batch->n, n_groups, net->config.n_classes);
    double *squares = net->parts + shard->index * length, *sums = squares + batch->n;
    double *overlaps = sums + n_groups, *logits = overlaps + n_groups;
    real *h = shard_h(net, shard);
    net->kernels->product(net->strips, net_weight(net) + shard->first * d, batch->n, units, d, h);
    for (size_t g = 0; g < n_groups; g++) {
        size_t row = g * batch->group, rows = min_size(batch->group, batch->n - row);
        real *s = net->s + shard->first;
        net->kernels->relu(h + row * units, net_bias(net) + shard->first, rows, units,
                           squares + row, sums + g);
        overlaps[g] = 0;
        if (net->config.ovr.form == OVR_COSINE || net->config.ovr.lambda == 0)
            continue;
        net->kernels->weighted_sum(h + row * units, ones, rows, units, s);
        for (size_t k = 0; k < units; k++)
            overlaps[g] += (double)s[k] * s[k];
    }
    if (net->config.n_classes)
        read_out(net, work, shard, batch->n, h, logits);
}

/* Cosine form, after the norms are known: ŝ of the shard's units and its part of ŝ·h_i. */
static void overlap_shard(struct net *net, const struct shard *shard, const struct batch *batch,
                          const real *row_scale) {
    const real *h = shard_h(net, shard);
    double *dots = net->overlap_parts + shard->index * batch->n;
    real *s = net->s + shard->first;
    for (size_t row = 0; row < batch->n; row += batch->group) {
        size_t rows = min_size(batch->group, batch->n - row);
        const real *block = h + row * shard->units;
        net->kernels->weighted_sum(block, row_scale + row, rows, shard->units, s);
        net->kernels->dot_rows(block, s, rows, shard->units, dots + row);
    }
}

/* J of one group of the batch: rows row .. row + n - 1. `sums` and `overlaps` are the group's own.
 */
static struct terms group_terms(struct net *net, size_t row, size_t n, const real *row_scale,
                                double sum, double overlap) {
    const struct net_config *config = &net->config;
    const double *squares = net->parts + row;
    struct terms terms = {.samples = (double)n};
    for (size_t i = 0; i < n; i++)
        terms.zero_codes += sqrt(squares[i]) <= 1e-12;
    double lambda = ovr_lambda(&config->ovr, n), slope;
    if (lambda != 0) {
        if (config->ovr.form == OVR_COSINE)
            for (size_t i = 0; i < n; i++)
                overlap += row_scale[row + i] * net->overlap_parts[row + i];
        terms.ovr = lambda * ovr_value(config->ovr.form, n, squares, overlap, terms.zero_codes);
    }
    if (config->activity)
        terms.activity = activity_value(config->activity_target, sum, n, config->n_units, &slope);
    terms.ovr *= (double)n;
    terms.activity *= (double)n;
    return terms;
}

/* This member's share of the batch, as the kernels want it. */
static void arrange(struct member *member, struct net *net, const struct batch *batch) {
    size_t first, end, d = net->config.n_inputs, n_panels = count_panels(&net->config);
    team_share(member, n_panels, &first, &end);
    net->kernels->pack_strips(batch->x, batch->n, d, first * PANEL, min_size(end * PANEL, d),
                              net->strips);
    for (size_t row = 0; row < batch->n; row += ACTIVE_ROWS) {
        size_t rows = min_size(ACTIVE_ROWS, batch->n - row);
        for (size_t panel = first; panel < end; panel++) {
            size_t column = panel * PANEL, columns = min_size(PANEL, d - column);
            real *to = net->panels + (row * n_panels + rows * panel) * PANEL;
            for (size_t i = 0; i < rows; i++)
                memcpy(to + i * PANEL, batch->x + (row + i) * d + column, columns * sizeof *to);
        }
    }
}

struct terms net_forward(struct member *member, struct net *net, const struct batch *batch) {
    const struct net_config *config = &net->config;
    size_t first, end, n = batch->n, n_groups = count_groups(batch);
    const struct workspace *work = &net->work[member->rank];
    real *row_scale = work->row_scale;
    team_share(member, net->n_shards, &first, &end);

    team_barrier(member); /* x is complete, and nobody still reads the last batch's sums */
    for (size_t i = 0; i < n; i++)
        row_scale[i] = 1;
    arrange(member, net, batch);
    team_barrier(member);
    for (size_t i = first; i < end; i++) {
        struct shard shard = net_shard(net, i);
        forward_shard(net, work, &shard, batch, row_scale);
    }
    team_sum(member, net->parts, net->n_shards, part_length(n, n_groups, config->n_classes));

    ovr_row_scale(config->ovr.form, n, net->parts, row_scale);
    if (config->ovr.form == OVR_COSINE && config->ovr.lambda != 0) {
        for (size_t i = first; i < end; i++) {
            struct shard shard = net_shard(net, i);
            overlap_shard(net, &shard, batch, row_scale);
        }
        team_sum(member, net->overlap_parts, net->n_shards, n);
    }

    struct terms terms = {0};
    const double *sums = net->parts + n, *overlaps = sums + n_groups;
    for (size_t g = 0; g < n_groups; g++) {
        size_t row = g * batch->group, rows = min_size(batch->group, n - row);
        struct terms group = group_terms(net, row, rows, row_scale, sums[g], overlaps[g]);
        terms_add(&terms, &group);
    }
    if (config->n_classes)
        terms.cross_entropy =
            (double)n * softmax_cross_entropy(n, config->n_classes, net->width, overlaps + n_groups,
                                              batch->labels, work->delta, &terms.correct);
    terms.loss = terms.ovr + terms.activity + terms.cross_entropy;
    return terms;
}

void terms_add(struct terms *to, const struct terms *from) {
    to->samples += from->samples;
    to->loss += from->loss;
    to->ovr += from->ovr;
    to->activity += from->activity;
    to->cross_entropy += from->cross_entropy;
    to->correct += from->correct;
    to->zero_codes += from->zero_codes;
}

static void update_slice(struct net *net, const struct update *update, size_t offset, size_t n,
                         const real *gradient) {
    net->kernels->update(update, n, net->params + offset, gradient,
                         net->moment[0] ? net->moment[0] + offset : NULL,
                         net->moment[1] ? net->moment[1] + offset : NULL);
}

/* The classifier's part: g becomes its gradient at H, and its weights of this shard are updated. */
static void head_backward(struct net *net, const struct workspace *work, const struct shard *shard,
                          const struct batch *batch, const struct update *update) {
    size_t width = net->width, units = shard->units;
    const real *delta = work->delta;
    size_t at = at_head_weight(net) + shard->first * width;
    linalg_gemm_nt(batch->n, units, width, delta, width, net->params + at, width, 0, work->g,
                   units);
    linalg_gemm_tn(units, width, batch->n, shard_h(net, shard), units, delta, width, 0, work->dv,
                   width);
    update_slice(net, update, at, units * width, work->dv);
    if (shard->index)
        return;
    memset(work->dc, 0, width * sizeof *work->dc);
    for (size_t i = 0; i < batch->n; i++)
        for (size_t c = 0; c < width; c++)
            work->dc[c] += delta[i * width + c];
    update_slice(net, update, at_head_bias(net), width, work->dc);
}

/* A shard's rows with at most this share of active units are multiplied by the active ones alone.
 * Found by measuring both ways; a constant, so that bits never depend on a clock. */
static const double MOST_ACTIVE = 0.7;

/* dW of a shard from the gradient g (n×units) at its pre-activations. */
static void weight_gradient(struct net *net, const struct workspace *work,
                            const struct shard *shard, const struct batch *batch) {
    const struct kernels *kernels = net->kernels;
    size_t d = net->config.n_inputs, units = shard->units, n_panels = count_panels(&net->config);
    uint32_t *count = work->active_count;
    uint8_t *active = work->active_row;
    real *value = work->active_value;
    for (size_t row = 0; row < batch->n; row += ACTIVE_ROWS) {
        size_t rows = min_size(ACTIVE_ROWS, batch->n - row);
        const real *g = work->g + row * units;
        size_t total = kernels->list_active(g, rows, units, count, active, value);
        if ((double)total <= MOST_ACTIVE * (double)(rows * units))
            kernels->active_product(count, active, value, net->panels + row * n_panels * PANEL,
                                    rows, units, d, row > 0, work->dw);
        else
            linalg_gemm_tn(units, d, rows, g, units, batch->x + row * d, d, row > 0, work->dw, d);
    }
}

void net_backward(struct member *member, struct net *net, const struct batch *batch,
                  const struct update *update) {
    const struct net_config *config = &net->config;
    size_t first, end, n = batch->n, d = config->n_inputs;
    const struct workspace *work = &net->work[member->rank];
    double slope = 0;

    ovr_gradient(config->ovr.form, ovr_lambda(&config->ovr, n), n, work->row_scale,
                 net->overlap_parts, work->pull, work->back);
    if (config->activity)
        activity_value(config->activity_target, net->parts[n], n, config->n_units, &slope);

    team_share(member, net->n_shards, &first, &end);
    for (size_t i = first; i < end; i++) {
        struct shard shard = net_shard(net, i);
        const real *h = shard_h(net, &shard);
        if (config->n_classes)
            head_backward(net, work, &shard, batch, update);
        net->kernels->relu_backward(h, work->g, !config->n_classes, work->pull, work->back,
                                    net->s + shard.first, (real)slope, n, shard.units, work->db);
        weight_gradient(net, work, &shard, batch);
        update_slice(net, update, shard.first * d, shard.units * d, work->dw);
        update_slice(net, update, at_bias(net) + shard.first, shard.units, work->db);
    }
}
