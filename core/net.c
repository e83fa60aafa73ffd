#include "core/net.h"

#include "core/linalg.h"
#include "core/rng.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What one group of rows adds to a layer's sums. */
enum { SUM_H, SUM_OVERLAP, SUM_L1, SUM_KL, SUM_CONTRACTIVE, GROUP_SUMS };

/* A shard's part of a layer's first sum: [‖h_i‖² | GROUP_SUMS for each group | Σ w² | logits]. */
static size_t at_groups(size_t n) {
    return n;
}

static size_t at_l2(size_t n, size_t n_groups) {
    return at_groups(n) + n_groups * GROUP_SUMS;
}

static size_t at_logits(size_t n, size_t n_groups) {
    return at_l2(n, n_groups) + 1;
}

static size_t part_length(size_t n, size_t n_groups, size_t n_classes) {
    return at_logits(n, n_groups) + n * n_classes;
}

static size_t count_groups(const struct batch *batch) {
    return (batch->n + batch->group - 1) / batch->group;
}

/* What a backward pass without an update adds up over the shards. */
enum { NORM_SQUARES, NORM_COSINES, NORM_UNITS, N_NORMS };

/* The bias of what has one already. */
static const real zeros[SHARD_UNITS];

/* One member's: copies of what is known of the batch's rows, and room for the shard in hand. */
struct workspace {
    real *row_scale;       /* layers×max_rows */
    real *pull, *back;     /* max_rows */
    real *delta;           /* max_rows×width: gradient at the logits */
    real *dw, *dv;         /* units×D, units×width */
    real *g;               /* n×units: gradient at the pre-activations */
    real *dropped;         /* n×units: H after dropout */
    real *z;               /* n×width: this shard's part of the logits */
    real *db, *dc;         /* units, width */
    real *constant, *mean; /* units */
    struct active_lists lists;
};

/* What a backward pass is for. */
struct pass {
    const struct update *update; /* NULL: only norms */
    unsigned terms;              /* whose gradient */
    size_t first_shard;          /* of this rank: with it goes c, which every rank keeps */
};

static const struct layer *last_layer(const struct net *net) {
    return &net->layers[net->config.n_layers - 1];
}

static int is_last(const struct net *net, const struct layer *layer) {
    return layer == last_layer(net);
}

/* Whether a layer's gradient also comes from the layer above. */
static int propagates(const struct net_config *config) {
    return config->n_classes || config->decoder;
}

static int takes_ovr(const struct net_config *config, size_t layer) {
    return layer >= config->frozen && (!config->ovr_layers || config->ovr_layers >> layer & 1);
}

size_t net_parts(const struct net *net, struct net_part parts[PARTS_MAX]) {
    const struct net_config *config = &net->config;
    size_t n = 0, k = 0, at = 0;
    for (size_t l = 0; l < config->n_layers; l++) {
        const struct layer_config *layer = &net->layers[l].config;
        size_t d = layer->n_inputs;
        k = layer->n_units;
        at = net->layers[l].at;
        if (!layer->copies) {
            parts[n++] = (struct net_part){PART_WEIGHT, l, at, k, d, d};
            at += k * d;
            parts[n++] = (struct net_part){PART_BIAS, l, at, k, 1, 1};
        }
        at += k;
    }
    size_t columns = config->decoder ? config->n_inputs : config->n_classes;
    if (columns && !(config->decoder && config->tied)) {
        parts[n++] = (struct net_part){PART_HEAD_WEIGHT, 0, at, k, columns, net->width};
        at += k * net->width;
    }
    if (columns)
        parts[n++] = (struct net_part){PART_HEAD_BIAS, 0, at, columns, 1, 1};
    return n;
}

enum pieces net_part_pieces(const struct net_part *part) {
    return part->part == PART_HEAD_BIAS ? EVERYWHERE : BY_UNIT;
}

/* What of the buffer is on its way. */
struct streaming {
    int (*take)(void *context, const struct net_rows *rows);
    void *context;
    struct net_rows rows;
};

static int take_rows(void *context, const void *pieces, size_t first, size_t n) {
    struct streaming *s = context;
    s->rows.first = first;
    s->rows.n = n;
    s->rows.numbers = pieces;
    return s->take(s->context, &s->rows);
}

/* After a fault the first rank takes no more, but lets the others send. */
static int stream_rows(struct team *team, struct streaming *s, enum pieces kind, const real *from,
                       size_t rows, int rc, struct ovr_err *err) {
    int failed = team_stream(team, kind, from, rows, s->rows.stride * sizeof *from,
                             rc || !s->take ? NULL : take_rows, s, err);
    return rc ? rc : failed;
}

int net_stream(struct team *team, const struct net *net, const real *params,
               int (*take)(void *context, const struct net_rows *rows), void *context,
               struct ovr_err *err) {
    struct net_part parts[PARTS_MAX];
    size_t n = net_parts(net, parts), at = 0;
    int rc = 0;
    for (size_t i = 0; i <= n; i++) {
        const struct net_part *p = i < n ? &parts[i] : NULL;
        const size_t next = p ? p->at : net->n_params;
        struct streaming s = {take, context, {.stride = 1}};
        rc = stream_rows(team, &s, EVERYWHERE, params + at, next - at, rc, err);
        if (!p)
            break;
        s.rows = (struct net_rows){.part = p, .stride = p->stride};
        rc = stream_rows(team, &s, net_part_pieces(p), params + p->at, p->rows, rc, err);
        at = p->at + p->rows * p->stride;
    }
    return rc;
}

static size_t at_head_weight(const struct net *net) {
    return net->config.tied ? 0 : last_layer(net)->at + layer_n_params(&last_layer(net)->config);
}

static size_t at_head_bias(const struct net *net) {
    return net->n_params - net->width;
}

const real *net_find_part(const struct net *net, enum part part, size_t layer) {
    struct net_part parts[PARTS_MAX];
    size_t n = net_parts(net, parts);
    for (size_t i = 0; i < n; i++)
        if (parts[i].part == part && parts[i].layer == layer)
            return net->params + parts[i].at;
    return NULL;
}

real *net_weight(const struct net *net, size_t layer) {
    return net->params + net->layers[layer].at;
}

real *net_bias(const struct net *net, size_t layer) {
    const struct shard first = {0, 0, 0};
    return net->params + layer_bias_at(&net->layers[layer], &first);
}

real *net_head_weight(const struct net *net) {
    return net->params + at_head_weight(net);
}

real *net_head_bias(const struct net *net) {
    return net->params + at_head_bias(net);
}

struct activations net_layer_activations(const struct net *net, size_t index) {
    const struct layer *layer = &net->layers[index];
    return (struct activations){net->kernels,    layer->config.n_units,
                                layer->n_shards, layer->max_rows,
                                layer->h,        layer->parts};
}

struct activations net_activations(const struct net *net) {
    return net_layer_activations(net, net->config.n_layers - 1);
}

unsigned net_terms(const struct net_config *config) {
    return (unsigned)(config->ovr.lambda != 0) << TERM_OVR |
           (unsigned)(config->activity != 0) << TERM_ACTIVITY |
           (unsigned)(config->n_classes != 0) << TERM_CROSS_ENTROPY |
           (unsigned)(config->decoder != 0) << TERM_RECONSTRUCTION |
           (unsigned)(config->l1 != 0) << TERM_L1 | (unsigned)(config->kl != 0) << TERM_KL |
           (unsigned)(config->contractive != 0) << TERM_CONTRACTIVE |
           (unsigned)(config->l2 != 0) << TERM_L2;
}

static int has_term(unsigned terms, enum term term) {
    return terms >> term & 1;
}

static void workspace_place(struct workspace *work, const struct net *net, size_t widest,
                            struct arena *arena) {
    const struct net_config *config = &net->config;
    size_t units = SHARD_UNITS, rows = net->max_rows, width = net->width;
    work->row_scale = arena_take(arena, config->n_layers * rows, sizeof(real));
    work->pull = arena_take(arena, rows, sizeof(real));
    work->back = arena_take(arena, rows, sizeof(real));
    work->delta = arena_take(arena, config->n_classes ? rows * width : 0, sizeof(real));
    work->dw = arena_take(arena, units * widest, sizeof(real));
    work->dv = arena_take(arena, units * (width > widest ? width : widest), sizeof(real));
    work->g = arena_take(arena, rows * units, sizeof(real));
    work->dropped = arena_take(arena, rows * units, sizeof(real));
    work->z = arena_take(arena, config->n_classes ? rows * width : 0, sizeof(real));
    work->db = arena_take(arena, units, sizeof(real));
    work->dc = arena_take(arena, width, sizeof(real));
    work->constant = arena_take(arena, units, sizeof(real));
    work->mean = arena_take(arena, units, sizeof(real));
    active_lists_place(&work->lists, arena);
}

static void place_layers(struct net *net, const struct crew *crew, struct arena *arena) {
    const struct net_config *config = &net->config;
    size_t d = config->n_inputs, at = 0;
    for (size_t l = 0; l < config->n_layers; l++) {
        struct layer *layer = &net->layers[l];
        const struct layer_config shape = {.n_inputs = d,
                                           .n_units = config->units[l],
                                           .f = config->f,
                                           .top_k = config->top_k,
                                           .copies = config->copies,
                                           .dropout = config->dropout[l]};
        int has_next = l + 1 < config->n_layers;
        layer_place(layer, &shape, net->kernels, net->max_rows, crew, has_next,
                    propagates(config) && l > config->frozen, arena);
        layer->parts = arena_take(arena,
                                  layer->n_shards * part_length(net->max_rows, net->max_rows,
                                                                has_next ? 0 : config->n_classes),
                                  sizeof(double));
        layer->at = at;
        at += layer_n_params(&shape);
        d = shape.n_units;
    }
    net->n_params = at + (config->tied ? 0 : d * net->width) + net->width;
}

static size_t head_width(const struct net_config *config) {
    return config->decoder ? config->n_inputs : read_out_width(config->n_classes);
}

void net_place(struct net *net, const struct net_config *config, const struct kernels *kernels,
               size_t moments, size_t max_rows, const struct crew *crew, struct arena *arena) {
    size_t widest = config->n_inputs, n_shards = 0, d = config->n_inputs;
    *net = (struct net){
        .config = *config, .kernels = kernels, .width = head_width(config), .max_rows = max_rows};
    place_layers(net, crew, arena);
    for (size_t l = 0; l < config->n_layers; l++) {
        widest = net->layers[l].config.n_inputs > widest ? net->layers[l].config.n_inputs : widest;
        n_shards += net->layers[l].n_shards;
    }
    net->params = arena_take(arena, net->n_params, sizeof(real));
    for (size_t i = 0; i < moments; i++)
        net->moment[i] = arena_take(arena, net->n_params, sizeof(real));
    if (config->decoder) {
        net->decoded = arena_take(arena, last_layer(net)->n_shards * max_rows * d, sizeof(real));
        net->error = arena_take(arena, max_rows * d, sizeof(real));
        net->row_error = arena_take(arena, max_rows, sizeof(double));
        packed_place(&net->packed_error, kernels, d, max_rows, arena);
    }
    net->ones = arena_take(arena, max_rows, sizeof(real));
    for (size_t i = 0; net->ones && i < max_rows; i++)
        net->ones[i] = 1;
    net->norms = arena_take(arena, n_shards * N_NORMS, sizeof(double));
    net->work = arena_take(arena, (size_t)crew->members, sizeof *net->work);
    for (int i = 0; i < crew->members; i++) {
        struct workspace counted;
        workspace_place(net->work ? &net->work[i] : &counted, net, widest, arena);
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

/* A stream for each unit, so that the first layer's weights are the same whatever lies above. */
static void init_rows(struct member *member, const struct net *net, unsigned purpose, real *weight,
                      size_t rows, size_t cols, size_t stride, size_t in, size_t out) {
    size_t first, end;
    team_own(member, BY_UNIT, rows, &first, &end);
    for (size_t unit = first; unit < end; unit++) {
        struct rng rng;
        rng_init(&rng, net->config.seed, (enum rng_purpose)purpose, 0, (uint32_t)unit);
        for (size_t j = 0; j < cols; j++)
            weight[unit * stride + j] = (real)draw_weight(&rng, &net->config, in, out);
    }
}

void net_init_weights(struct member *member, struct net *net) {
    struct net_part parts[PARTS_MAX];
    size_t n = net_parts(net, parts);
    for (size_t i = 0; i < n; i++) {
        const struct net_part *p = &parts[i];
        real *weight = net->params + p->at;
        if (p->part == PART_WEIGHT)
            init_rows(member, net, p->layer ? RNG_LAYER_INIT + (unsigned)p->layer : RNG_INIT,
                      weight, p->rows, p->cols, p->stride, p->cols, p->rows);
        else if (p->part == PART_HEAD_WEIGHT)
            init_rows(member, net, RNG_HEAD_INIT, weight, p->rows, p->cols, p->stride, p->rows,
                      p->cols);
    }
    team_barrier(member);
}

/* H of the shard as the read-out and the next layer see it. */
static const real *seen_h(const struct layer *layer, const struct workspace *work,
                          const struct batch *batch, const struct shard *shard) {
    const real *h = layer_h(layer, shard);
    if (!batch->training || !layer->keep)
        return h;
    const real *keep = layer->keep + layer->max_rows * shard->first;
    for (size_t i = 0; i < batch->n * shard->units; i++)
        work->dropped[i] = h[i] * keep[i];
    return work->dropped;
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

static double sum_of_squares(const real *x, size_t n) {
    double squares = 0;
    for (size_t i = 0; i < n; i++)
        squares += (double)x[i] * x[i];
    return squares;
}

/* f'(a)² and f'(a)·f''(a), from h = f(a). */
static double slope_squared(const struct nonlinearity *f, double h, double *with_curvature) {
    double slope = 1, curvature = 0;
    switch (f->kind) {
    case ACT_SIGMOID:
        slope = h * (1 - h);
        curvature = slope * (1 - 2 * h);
        break;
    case ACT_TANH:
        slope = 1 - h * h;
        curvature = -2 * h * slope;
        break;
    case ACT_LEAKY_RELU:
        slope = h > 0 ? 1 : f->slope;
        break;
    case ACT_LINEAR:
        break;
    default:
        slope = h != 0;
    }
    *with_curvature = slope * curvature;
    return slope * slope;
}

/* ρ̂ away from 0 and 1, where KL has no value. */
static double bounded_share(double share) {
    return fmin(fmax(share, 1e-7), 1 - 1e-7);
}

static double kl_of(double target, double share) {
    double q = bounded_share(share);
    return (target > 0 ? target * log(target / q) : 0) +
           (target < 1 ? (1 - target) * log((1 - target) / (1 - q)) : 0);
}

/* Σ_i h_ik/n of a shard's rows. */
static void column_means(const struct net *net, const struct workspace *work, const real *h,
                         size_t rows, size_t units) {
    net->kernels->weighted_sum(h, net->ones, rows, units, work->mean);
    for (size_t k = 0; k < units; k++)
        work->mean[k] /= (real)rows;
}

/* The penalties' sums over `rows` rows of a shard; those of samples not yet divided by n. */
static void add_penalties(const struct net *net, const struct layer *layer,
                          const struct workspace *work, const struct shard *shard, const real *h,
                          size_t rows, double *sums) {
    const struct net_config *config = &net->config;
    size_t units = shard->units, d = layer->config.n_inputs;
    double unused;
    if (config->l1 != 0)
        for (size_t i = 0; i < rows * units; i++)
            sums[SUM_L1] += fabs((double)h[i]);
    if (config->kl != 0) {
        column_means(net, work, h, rows, units);
        for (size_t k = 0; k < units; k++)
            sums[SUM_KL] += kl_of(config->kl_target, work->mean[k]);
    }
    if (config->contractive == 0)
        return;
    const real *w = net->params + layer_weight_at(layer, shard);
    for (size_t k = 0; k < units; k++) {
        double slopes = 0;
        for (size_t i = 0; i < rows; i++)
            slopes += slope_squared(&config->f, h[i * units + k], &unused);
        sums[SUM_CONTRACTIVE] += slopes * sum_of_squares(w + k * d, d);
    }
}

static double squared_weights(const struct net *net, const struct layer *layer,
                              const struct shard *shard) {
    size_t l = (size_t)(layer - net->layers);
    double squares = 0;
    if (l >= net->config.frozen)
        squares += sum_of_squares(net->params + layer_weight_at(layer, shard),
                                  shard->units * layer->config.n_inputs);
    if (is_last(net, layer) && !net->config.tied)
        squares += sum_of_squares(net_head_weight(net) + shard->first * net->width,
                                  shard->units * net->width);
    return squares;
}

/* Everything of a shard that follows from its pre-activations, or from what competition left. */
static void finish_shard(struct net *net, struct layer *layer, const struct workspace *work,
                         const struct shard *shard, const struct batch *batch) {
    const struct net_config *config = &net->config;
    size_t units = shard->units, n_groups = count_groups(batch), l = (size_t)(layer - net->layers);
    size_t classes = is_last(net, layer) ? config->n_classes : 0;
    double *part = layer->parts + shard->index * part_length(batch->n, n_groups, classes);
    const struct nonlinearity linear = {.kind = ACT_LINEAR};
    const struct nonlinearity *f = layer_competes(layer) ? &linear : &config->f;
    const real *bias = layer_competes(layer) ? zeros : net->params + layer_bias_at(layer, shard);
    real *h = layer_h(layer, shard), *s = layer->s + shard->first;
    int wants_overlap = config->ovr.form == OVR_RAW && config->ovr.lambda != 0;
    for (size_t g = 0; g < n_groups; g++) {
        size_t row = g * batch->group, rows = min_size(batch->group, batch->n - row);
        double *sums = part + at_groups(batch->n) + g * GROUP_SUMS;
        memset(sums, 0, GROUP_SUMS * sizeof *sums);
        net->kernels->activate(f, h + row * units, bias, rows, units, part + row, sums + SUM_H);
        if (is_last(net, layer))
            add_penalties(net, layer, work, shard, h + row * units, rows, sums);
        if (!wants_overlap || !takes_ovr(config, l))
            continue;
        net->kernels->weighted_sum(h + row * units, net->ones, rows, units, s);
        for (size_t k = 0; k < units; k++)
            sums[SUM_OVERLAP] += (double)s[k] * s[k];
    }
    double *squares = part + at_l2(batch->n, n_groups);
    *squares = config->l2 != 0 ? squared_weights(net, layer, shard) : 0;
    if (batch->training && layer->keep)
        layer_draw_mask(layer, config->seed, l, batch->epoch, batch->first, shard);
    if (classes)
        read_out(net, work, shard, batch->n, seen_h(layer, work, batch, shard),
                 part + at_logits(batch->n, n_groups));
    if (layer->output)
        layer_pass_on(layer, batch->training && layer->keep, shard);
}

/* Cosine form, after the norms are known: ŝ of the shard's units and its part of ŝ·h_i. */
static void overlap_shard(const struct layer *layer, const struct shard *shard,
                          const struct batch *batch, const real *row_scale) {
    const real *h = layer_h(layer, shard);
    double *dots = layer->overlap_parts + shard->index * batch->n;
    real *s = layer->s + shard->first;
    for (size_t row = 0; row < batch->n; row += batch->group) {
        size_t rows = min_size(batch->group, batch->n - row);
        const real *block = h + row * shard->units;
        layer->kernels->weighted_sum(block, row_scale + row, rows, shard->units, s);
        layer->kernels->dot_rows(block, s, rows, shard->units, dots + row);
    }
}

/* H of a layer, and what its shards add up to. */
static void layer_forward(struct member *member, struct net *net, struct layer *layer,
                          const struct batch *batch, const real *x) {
    const struct net_config *config = &net->config;
    const struct workspace *work = &net->work[member->rank];
    size_t first, end, n = batch->n, l = (size_t)(layer - net->layers);
    real *row_scale = work->row_scale + l * net->max_rows;
    team_own(member, BY_SHARD, layer->n_shards, &first, &end);

    team_barrier(member); /* x is complete, and nobody still reads the last batch's sums */
    pack_rows(member, &layer->input, x, n);
    team_barrier(member);
    for (size_t i = first; i < end; i++) {
        struct shard shard = layer_shard(layer, i);
        layer_product(layer, net->params, &shard);
        if (!layer_competes(layer))
            finish_shard(net, layer, work, &shard, batch);
    }
    if (layer_competes(layer)) {
        layer_compete(member, layer, net->params);
        for (size_t i = first; i < end; i++) {
            struct shard shard = layer_shard(layer, i);
            finish_shard(net, layer, work, &shard, batch);
        }
    }
    team_sum(member, BY_SHARD, layer->parts, layer->n_shards,
             part_length(n, count_groups(batch), is_last(net, layer) ? config->n_classes : 0));

    ovr_row_scale(config->ovr.form, n, layer->parts, row_scale);
    if (config->ovr.form != OVR_COSINE || config->ovr.lambda == 0 || !takes_ovr(config, l))
        return;
    for (size_t i = first; i < end; i++) {
        struct shard shard = layer_shard(layer, i);
        overlap_shard(layer, &shard, batch, row_scale);
    }
    team_sum(member, BY_SHARD, layer->overlap_parts, layer->n_shards, n);
}

/* The terms that one layer has in J, of one group of the batch: rows row .. row + n - 1, whose sums
 * are `sums`. */
static struct terms group_terms(const struct net *net, const struct layer *layer, size_t row,
                                size_t n, const real *row_scale, const double *sums) {
    const struct net_config *config = &net->config;
    const double *squares = layer->parts + row;
    size_t zero_codes = 0, l = (size_t)(layer - net->layers);
    struct terms terms = {.samples = 0};
    double lambda = ovr_lambda(&config->ovr, n), slope, overlap = sums[SUM_OVERLAP];
    for (size_t i = 0; i < n; i++)
        zero_codes += sqrt(squares[i]) <= 1e-12;
    if (lambda != 0 && takes_ovr(config, l)) {
        if (config->ovr.form == OVR_COSINE)
            for (size_t i = 0; i < n; i++)
                overlap += row_scale[row + i] * layer->overlap_parts[row + i];
        terms.value[TERM_OVR] =
            (double)n * lambda * ovr_value(config->ovr.form, n, squares, overlap, zero_codes);
    }
    if (config->activity && takes_ovr(config, l))
        terms.value[TERM_ACTIVITY] =
            (double)n *
            activity_value(config->activity_target, sums[SUM_H], n, layer->config.n_units, &slope);
    if (!is_last(net, layer))
        return terms;
    terms.samples = (double)n;
    terms.zero_codes = zero_codes;
    terms.value[TERM_L1] = config->l1 * sums[SUM_L1];
    terms.value[TERM_KL] = config->kl * (double)n * sums[SUM_KL];
    terms.value[TERM_CONTRACTIVE] = config->contractive * sums[SUM_CONTRACTIVE];
    return terms;
}

/* The parts that all layers have in J. */
static struct terms sum_terms(const struct net *net, const struct workspace *work,
                              const struct batch *batch) {
    struct terms terms = {0};
    size_t n_groups = count_groups(batch);
    for (size_t l = 0; l < net->config.n_layers; l++) {
        const struct layer *layer = &net->layers[l];
        const double *sums = layer->parts + at_groups(batch->n);
        for (size_t g = 0; g < n_groups; g++) {
            size_t row = g * batch->group, rows = min_size(batch->group, batch->n - row);
            struct terms group = group_terms(
                net, layer, row, rows, work->row_scale + l * net->max_rows, sums + g * GROUP_SUMS);
            terms_add(&terms, &group);
        }
        terms.value[TERM_L2] +=
            net->config.l2 * (double)batch->n * layer->parts[at_l2(batch->n, n_groups)];
    }
    return terms;
}

/* X̂, its error and the error's gradient. Returns Σ_i of the mean squared error of a row. */
static double decode(struct member *member, struct net *net, const struct batch *batch) {
    const struct layer *layer = last_layer(net);
    const struct workspace *work = &net->work[member->rank];
    const real *target = batch->target ? batch->target : batch->x, *c = net_head_bias(net);
    size_t first, end, d = net->config.n_inputs, n = batch->n;
    team_own(member, BY_SHARD, layer->n_shards, &first, &end);
    for (size_t i = first; i < end; i++) {
        struct shard shard = layer_shard(layer, i);
        linalg_gemm(n, d, shard.units, seen_h(layer, work, batch, &shard), shard.units,
                    net_head_weight(net) + shard.first * d, d, 0, net->decoded + i * n * d, d);
    }
    team_sum_reals(member, BY_SHARD, net->decoded, layer->n_shards, n * d);
    team_share(member, n, &first, &end);
    for (size_t i = first; i < end; i++) {
        double squares = 0;
        for (size_t j = 0; j < d; j++) {
            real error = net->decoded[i * d + j] + c[j] - target[i * d + j];
            net->error[i * d + j] = error * (real)(2 / ((double)n * (double)d));
            squares += (double)error * error;
        }
        net->row_error[i] = squares;
    }
    team_barrier(member);
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += net->row_error[i];
    return sum / (double)d;
}

struct terms net_forward(struct member *member, struct net *net, const struct batch *batch) {
    const struct net_config *config = &net->config;
    const struct workspace *work = &net->work[member->rank];
    const real *x = batch->x;
    for (size_t l = 0; l < config->n_layers; l++) {
        layer_forward(member, net, &net->layers[l], batch, x);
        x = net->layers[l].output;
    }
    struct terms terms = sum_terms(net, work, batch);
    if (config->n_classes)
        terms.value[TERM_CROSS_ENTROPY] =
            (double)batch->n *
            softmax_cross_entropy(batch->n, config->n_classes, net->width,
                                  last_layer(net)->parts + at_logits(batch->n, count_groups(batch)),
                                  batch->labels, work->delta, &terms.correct);
    if (config->decoder)
        terms.value[TERM_RECONSTRUCTION] = decode(member, net, batch);
    if (layer_measures_distances(last_layer(net)))
        for (size_t i = 0; i < batch->n; i++)
            terms.value[TERM_DISTORTION] += last_layer(net)->row_square[i];
    for (int t = 0; t < N_TERMS; t++)
        terms.loss += terms.value[t];
    return terms;
}

void terms_add(struct terms *to, const struct terms *from) {
    to->samples += from->samples;
    to->loss += from->loss;
    for (int t = 0; t < N_TERMS; t++)
        to->value[t] += from->value[t];
    to->correct += from->correct;
    to->zero_codes += from->zero_codes;
}

/* One step of the optimiser on part of the flat buffer, or the gradient's norm. */
static void use_gradient(struct net *net, const struct pass *pass, double *norms, size_t at,
                         size_t n, const real *gradient) {
    if (!pass->update) {
        norms[NORM_SQUARES] += sum_of_squares(gradient, n);
        return;
    }
    net->kernels->update(pass->update, n, net->params + at, gradient,
                         net->moment[0] ? net->moment[0] + at : NULL,
                         net->moment[1] ? net->moment[1] + at : NULL);
}

/* d(l2·Σw²)/dw */
static void add_weight_decay(const struct net *net, const struct pass *pass, size_t at, size_t n,
                             real *gradient) {
    real twice = (real)(2 * net->config.l2);
    if (net->config.l2 == 0 || !has_term(pass->terms, TERM_L2))
        return;
    for (size_t i = 0; i < n; i++)
        gradient[i] += twice * net->params[at + i];
}

/* Column sums of a matrix, n×width. */
static void column_sums(const real *x, size_t n, size_t width, real *sums) {
    memset(sums, 0, width * sizeof *sums);
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < width; j++)
            sums[j] += x[i * width + j];
}

/* The shard's share of V and, by the first one, c. Only shard 0 counts its norm. */
static void head_step(struct net *net, const struct pass *pass, const struct workspace *work,
                      const struct batch *batch, const struct shard *shard, double *norms) {
    const struct net_config *config = &net->config;
    enum term term = config->decoder ? TERM_RECONSTRUCTION : TERM_CROSS_ENTROPY;
    const struct layer *layer = last_layer(net);
    size_t width = net->width, units = shard->units,
           at = at_head_weight(net) + shard->first * width;
    const real *delta = config->decoder ? net->error : work->delta;
    if (!config->tied) {
        if (!has_term(pass->terms, term))
            memset(work->dv, 0, units * width * sizeof *work->dv);
        else if (config->decoder)
            packed_gradient(&net->packed_error, &work->lists, seen_h(layer, work, batch, shard),
                            units, 0, work->dv);
        else
            linalg_gemm_tn(units, width, batch->n, seen_h(layer, work, batch, shard), units, delta,
                           width, 0, work->dv, width);
        add_weight_decay(net, pass, at, units * width, work->dv);
        use_gradient(net, pass, norms, at, units * width, work->dv);
    }
    double counted_already[N_NORMS] = {0};
    if (shard->index != pass->first_shard || !has_term(pass->terms, term))
        return;
    column_sums(delta, batch->n, width, work->dc);
    use_gradient(net, pass, shard->index ? counted_already : norms, at_head_bias(net), width,
                 work->dc);
}

/* g = gradient at H' that comes from above. Returns 0 where nothing does. */
static int gradient_from_above(struct net *net, const struct pass *pass, const struct layer *layer,
                               const struct workspace *work, const struct batch *batch,
                               const struct shard *shard, real *g) {
    const struct net_config *config = &net->config;
    size_t n = batch->n, units = shard->units, width = net->width;
    const real *v = net_head_weight(net) + shard->first * width;
    if (!propagates(config))
        return 0;
    if (!is_last(net, layer)) {
        const struct layer *above = layer + 1;
        size_t k = above->config.n_units, d = above->config.n_inputs;
        linalg_gemm(n, units, k, above->passed, k, net->params + above->at + shard->first, d, 0, g,
                    units);
    } else if (config->n_classes && has_term(pass->terms, TERM_CROSS_ENTROPY)) {
        linalg_gemm_nt(n, units, width, work->delta, width, v, width, 0, g, units);
    } else if (config->decoder && has_term(pass->terms, TERM_RECONSTRUCTION)) {
        packed_product(&net->packed_error, v, units, g);
    } else {
        return 0;
    }
    if (!layer->keep)
        return 1;
    const real *keep = layer->keep + layer->max_rows * shard->first;
    for (size_t i = 0; i < n * units; i++)
        g[i] *= keep[i];
    return 1;
}

/* L's and KL's gradient at H, the same for all rows of a unit; L1's is added to g, which counts
 * from then on. */
static int penalty_gradient(const struct net *net, const struct pass *pass,
                            const struct workspace *work, const struct batch *batch,
                            const struct shard *shard, const real *h, int counts, real *g) {
    const struct net_config *config = &net->config;
    size_t n = batch->n, units = shard->units;
    if (config->kl != 0 && has_term(pass->terms, TERM_KL)) {
        column_means(net, work, h, n, units);
        for (size_t k = 0; k < units; k++) {
            double q = bounded_share(work->mean[k]), p = config->kl_target;
            work->constant[k] += (real)(config->kl * ((1 - p) / (1 - q) - p / q) / (double)n);
        }
    }
    if (config->l1 == 0 || !has_term(pass->terms, TERM_L1))
        return counts;
    real each = (real)(config->l1 / (double)n);
    for (size_t i = 0; i < n * units; i++)
        g[i] = (counts ? g[i] : 0) + (h[i] > 0 ? each : h[i] < 0 ? -each : 0);
    return 1;
}

/* The contractive penalty acts on the pre-activations, through f'², and on W. */
static void contractive_gradient(const struct net *net, const struct layer *layer,
                                 const struct workspace *work, const struct batch *batch,
                                 const struct shard *shard, real *g) {
    size_t n = batch->n, units = shard->units, d = layer->config.n_inputs;
    const real *h = layer_h(layer, shard), *w = net->params + layer_weight_at(layer, shard);
    double twice = 2 * net->config.contractive / (double)n, curvature;
    for (size_t k = 0; k < units; k++) {
        double norm = sum_of_squares(w + k * d, d), slopes = 0;
        for (size_t i = 0; i < n; i++) {
            slopes += slope_squared(&net->config.f, h[i * units + k], &curvature);
            real change = (real)(twice * norm * curvature);
            g[i * units + k] += change;
            work->db[k] += change;
        }
        work->mean[k] = (real)(twice * slopes); /* ∂/∂w_k is this times w_k */
    }
}

/* g = gradient at the pre-activations of the shard, work->db = Σ_i g_i. */
static void shard_gradient(struct net *net, const struct pass *pass, const struct layer *layer,
                           const struct workspace *work, const struct batch *batch,
                           const struct shard *shard, double slope, real *g) {
    const struct net_config *config = &net->config;
    const real *h = layer_h(layer, shard);
    int counts = gradient_from_above(net, pass, layer, work, batch, shard, g);
    for (size_t k = 0; k < shard->units; k++)
        work->constant[k] = (real)slope;
    if (is_last(net, layer))
        counts = penalty_gradient(net, pass, work, batch, shard, h, counts, g);
    net->kernels->activate_backward(&config->f, h, g, !counts, work->pull, work->back,
                                    layer->s + shard->first, work->constant, batch->n, shard->units,
                                    work->db);
    if (config->contractive != 0 && has_term(pass->terms, TERM_CONTRACTIVE))
        contractive_gradient(net, layer, work, batch, shard, g);
}

/* Adds up, over the shard's units, the cosine between −dw_k and the sum of the inputs to which unit
 * k is active. */
static void add_directions(const struct layer *layer, const struct workspace *work,
                           const struct shard *shard, double *norms) {
    size_t d = layer->config.n_inputs, units = shard->units;
    const real *h = layer_h(layer, shard);
    for (size_t i = 0; i < layer->input.n * units; i++)
        work->dropped[i] = h[i] != 0;
    packed_gradient(&layer->input, &work->lists, work->dropped, units, 0, work->dv);
    for (size_t k = 0; k < units; k++) {
        const real *step = work->dw + k * d, *input = work->dv + k * d;
        double dot = 0, both = sqrt(sum_of_squares(step, d)) * sqrt(sum_of_squares(input, d));
        for (size_t j = 0; j < d; j++)
            dot -= (double)step[j] * input[j];
        if (both > 0) {
            norms[NORM_COSINES] += dot / both;
            norms[NORM_UNITS]++;
        }
    }
}

/* The gradient of the shard's W and b from that at its pre-activations, and the step. */
static void shard_step(struct net *net, const struct pass *pass, const struct layer *layer,
                       const struct workspace *work, const struct batch *batch,
                       const struct shard *shard, const real *g, double *norms) {
    const struct net_config *config = &net->config;
    size_t d = layer->config.n_inputs, units = shard->units, at = layer_weight_at(layer, shard);
    packed_gradient(&layer->input, &work->lists, g, units, 0, work->dw);
    if (config->contractive != 0 && has_term(pass->terms, TERM_CONTRACTIVE))
        for (size_t k = 0; k < units; k++)
            for (size_t j = 0; j < d; j++)
                work->dw[k * d + j] += work->mean[k] * net->params[at + k * d + j];
    if (config->tied && has_term(pass->terms, TERM_RECONSTRUCTION))
        packed_gradient(&net->packed_error, &work->lists, seen_h(layer, work, batch, shard), units,
                        1, work->dw);
    add_weight_decay(net, pass, at, units * d, work->dw);
    if (!pass->update && pass->terms == 1u << TERM_OVR && layer == net->layers)
        add_directions(layer, work, shard, norms);
    use_gradient(net, pass, norms, at, units * d, work->dw);
    if (config->f.kind != ACT_THRESHOLDED)
        use_gradient(net, pass, norms, layer_bias_at(layer, shard), units, work->db);
}

/* What the rows' part in OVR's gradient is, and L's slope. */
static double prepare_rows(const struct net *net, const struct pass *pass,
                           const struct layer *layer, const struct workspace *work,
                           const struct batch *batch) {
    const struct net_config *config = &net->config;
    size_t n = batch->n, l = (size_t)(layer - net->layers);
    double slope = 0;
    int takes = takes_ovr(config, l);
    ovr_gradient(config->ovr.form,
                 takes && has_term(pass->terms, TERM_OVR) ? ovr_lambda(&config->ovr, n) : 0, n,
                 work->row_scale + l * net->max_rows, layer->overlap_parts, work->pull, work->back);
    if (config->activity && takes && has_term(pass->terms, TERM_ACTIVITY))
        activity_value(config->activity_target, layer->parts[at_groups(n) + SUM_H], n,
                       layer->config.n_units, &slope);
    return slope;
}

static double *norms_of(const struct net *net, const struct layer *layer, size_t shard) {
    for (size_t l = 0; &net->layers[l] != layer; l++)
        shard += net->layers[l].n_shards;
    return net->norms + shard * N_NORMS;
}

/* A layer whose gradient goes further down: g of its shards, kept and passed on. */
static void pass_gradient(struct member *member, struct net *net, const struct pass *pass,
                          struct layer *layer, const struct batch *batch) {
    const struct workspace *work = &net->work[member->rank];
    size_t first, end, k = layer->config.n_units;
    double slope = prepare_rows(net, pass, layer, work, batch);
    team_own(member, BY_SHARD, layer->n_shards, &first, &end);
    for (size_t i = first; i < end; i++) {
        struct shard shard = layer_shard(layer, i);
        real *g = layer->g + layer->max_rows * shard.first;
        shard_gradient(net, pass, layer, work, batch, &shard, slope, g);
        for (size_t row = 0; row < batch->n; row++)
            memcpy(layer->passed + row * k + shard.first, g + row * shard.units,
                   shard.units * sizeof *g);
    }
    team_barrier(member);
}

/* The steps of a layer's shards. Where pass_gradient() kept g it is taken from there. */
static void step_layer(struct member *member, struct net *net, const struct pass *pass,
                       struct layer *layer, const struct batch *batch) {
    const struct workspace *work = &net->work[member->rank];
    size_t first, end;
    double slope = prepare_rows(net, pass, layer, work, batch);
    team_own(member, BY_SHARD, layer->n_shards, &first, &end);
    for (size_t i = first; i < end; i++) {
        struct shard shard = layer_shard(layer, i);
        double *norms = norms_of(net, layer, i);
        real *g = layer->g ? layer->g + layer->max_rows * shard.first : work->g;
        if (layer->g)
            column_sums(g, batch->n, shard.units, work->db);
        else
            shard_gradient(net, pass, layer, work, batch, &shard, slope, g);
        if (is_last(net, layer) && propagates(&net->config))
            head_step(net, pass, work, batch, &shard, norms);
        shard_step(net, pass, layer, work, batch, &shard, g, norms);
    }
}

/* The head's steps alone, where all layers are frozen. */
static void step_heads(struct member *member, struct net *net, const struct pass *pass,
                       const struct batch *batch) {
    const struct layer *layer = last_layer(net);
    size_t first, end;
    team_own(member, BY_SHARD, layer->n_shards, &first, &end);
    for (size_t i = first; i < end; i++) {
        struct shard shard = layer_shard(layer, i);
        head_step(net, pass, &net->work[member->rank], batch, &shard, norms_of(net, layer, i));
    }
}

/* Gradients come down layer by layer; then the steps go up, since a layer's weights are still read
 * while the one below takes its gradient. */
static void backward(struct member *member, struct net *net, const struct batch *batch,
                     const struct pass *pass) {
    const struct net_config *config = &net->config;
    if (config->decoder) {
        pack_rows(member, &net->packed_error, net->error, batch->n);
        team_barrier(member);
    }
    for (size_t l = config->n_layers; l-- > config->frozen;)
        if (net->layers[l].g)
            pass_gradient(member, net, pass, &net->layers[l], batch);
    for (size_t l = config->frozen; l < config->n_layers; l++) {
        step_layer(member, net, pass, &net->layers[l], batch);
        if (l == config->frozen && l + 1 < config->n_layers && propagates(config))
            team_barrier(member); /* nobody reads the upper layers' weights any more */
    }
    if (config->frozen == config->n_layers)
        step_heads(member, net, pass, batch);
}

static struct pass make_pass(const struct member *member, const struct net *net,
                             const struct update *update, unsigned terms) {
    struct pass pass = {update, terms, 0};
    size_t end;
    team_held(member->team, BY_SHARD, last_layer(net)->n_shards, &pass.first_shard, &end);
    return pass;
}

void net_backward(struct member *member, struct net *net, const struct batch *batch,
                  const struct update *update) {
    const struct pass pass = make_pass(member, net, update, ~0u);
    backward(member, net, batch, &pass);
}

static size_t count_all_shards(const struct net *net) {
    size_t n = 0;
    for (size_t l = 0; l < net->config.n_layers; l++)
        n += net->layers[l].n_shards;
    return n;
}

void net_gradients(struct member *member, struct net *net, const struct batch *batch,
                   struct gradients *gradients) {
    unsigned terms = net_terms(&net->config);
    size_t n_shards = count_all_shards(net), first, end;
    *gradients = (struct gradients){.direction = NAN};
    for (enum term t = 0; t < N_TERMS; t++) {
        if (!has_term(terms, t))
            continue;
        team_barrier(member); /* all have read the last term's sums */
        team_share(member, n_shards * N_NORMS, &first, &end);
        for (size_t i = first; i < end; i++)
            net->norms[i] = 0;
        team_barrier(member);
        const struct pass pass = make_pass(member, net, NULL, 1u << t);
        backward(member, net, batch, &pass);
        team_sum(member, BY_SHARD, net->norms, n_shards, N_NORMS);
        gradients->norm[t] = sqrt(net->norms[NORM_SQUARES]);
        if (t == TERM_OVR && net->norms[NORM_UNITS] > 0)
            gradients->direction = net->norms[NORM_COSINES] / net->norms[NORM_UNITS];
    }
}
