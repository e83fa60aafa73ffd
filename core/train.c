#include "core/train.h"

#include "core/code.h"
#include "core/kmeans.h"
#include "core/rng.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Where a run is, beside its weights. Its bytes are kept over restarts: whole when it is made. */
struct position {
    int epoch;         /* in hand, from 1 */
    int trained;       /* 1: all epochs are over */
    size_t step;       /* of this epoch, the next one */
    uint64_t steps;    /* optimiser steps so far */
    struct terms sums; /* of this epoch's steps so far */
    struct gradients gradients;
    double seconds; /* that this epoch took before the run was interrupted */
    uint64_t samples;
    struct schedule_state schedule;
    double best, best_for_patience;
    int waited;
    int best_epoch, epochs; /* and the next, as in struct train_result */
    struct terms terms;
    struct measures measures, below[LAYERS_MAX - 1];
    double accuracy, accuracy_last;
};

struct run {
    const struct train_config *config;
    const struct train_hooks *hooks;
    const struct kernels *kernels;
    struct team *team;
    struct train_result *result;
    const struct prepared *data;
    struct net net;
    struct kmeans kmeans; /* of its kinds only */
    struct measure *measure[LAYERS_MAX];
    size_t group, block; /* evaluation: rows of a mini-batch, and rows at once */
    uint32_t *order;     /* the training samples that are used, in this epoch's order */
    uint32_t *sorting;   /* room to sort them */
    size_t n_used;
    uint32_t *batch_first; /* of each batch, its place in `order`; one more at the end */
    uint32_t *batch_order; /* in which the batches come */
    size_t n_batches;
    real *batch_x[2]; /* steps take turns, so a step's batch is gathered while the last one is in
                         use */
    real *batch_clean[2]; /* before corruption; NULL without */
    uint16_t *batch_labels[2];
    struct position at;
    int interrupted;               /* epoch_work() left for save() */
    const struct split *evaluated; /* by evaluate_work() */
    struct code *code;             /* filled by encode_work() */
    const struct split *encoded;
    struct columns *columns; /* filled by column_work() */
    size_t column_layer, shard_group;
    struct terms sums; /* of the last evaluation, written by member 0 */
    struct measures measures[LAYERS_MAX];
    uint64_t failed_step; /* where the loss was not finite, else 0 */
    _Atomic int stopped, out_of_memory;
};

static double now_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void enter_phase(const struct run *run, enum train_phase phase, int epochs) {
    struct train_progress *progress = run->hooks->progress;
    progress->epoch = 0;
    progress->epochs = epochs;
    progress->phase_started_ms = (uint64_t)(now_seconds() * 1000);
    progress->phase = phase;
}

struct net_config train_net_shape(const struct train_config *config, size_t n_inputs,
                                  size_t n_classes) {
    struct net_config shape = {
        .n_inputs = n_inputs,
        .n_layers = config->n_hidden,
        .frozen = config->freeze,
        .f = config->f,
        .top_k = config->top_k,
        .n_classes = config->kind == MODEL_MLP ? n_classes : 0,
        .decoder = config->kind == MODEL_AUTOENCODER,
        .tied = config->tied,
        .init = config->init,
        .init_scale = config->init_scale,
        .seed = config->seed,
        .ovr = config->ovr,
        .ovr_layers = config->ovr_layers,
        .activity = config->activity,
        .activity_target = config->activity_target,
        .l1 = config->l1,
        .l2 = config->l2,
        .contractive = config->contractive,
        .kl = config->kl,
        .kl_target = config->kl_target,
    };
    memcpy(shape.units, config->hidden, sizeof shape.units);
    memcpy(shape.dropout, config->dropout, sizeof shape.dropout);
    if (config->kind == MODEL_IDENTITY) {
        shape.copies = 1;
        shape.n_layers = 1;
        shape.units[0] = n_inputs;
    }
    return shape;
}

size_t train_code_units(const struct train_config *config, size_t n_inputs) {
    return config->kind == MODEL_IDENTITY ? n_inputs : config->hidden[config->n_hidden - 1];
}

unsigned train_terms(const struct train_config *config) {
    const struct net_config shape = train_net_shape(config, 1, 1);
    switch (config->kind) {
    case MODEL_KMEANS:
    case MODEL_ONLINE_KMEANS:
        return 1u << TERM_DISTORTION;
    case MODEL_PCA:
    case MODEL_RANDOM_PROJECTION:
    case MODEL_IDENTITY:
        return 0;
    default:
        return net_terms(&shape) | 1u << TERM_OVR | 1u << TERM_ACTIVITY;
    }
}

/* Whether the weights come from epochs of training at all. */
static int has_epochs(const struct train_config *config) {
    return config->kind != MODEL_PCA && config->kind != MODEL_RANDOM_PROJECTION &&
           config->kind != MODEL_IDENTITY;
}

static int is_kmeans(const struct train_config *config) {
    return config->kind == MODEL_KMEANS || config->kind == MODEL_ONLINE_KMEANS;
}

static size_t count_moments(const struct train_config *config) {
    return has_epochs(config) && !is_kmeans(config) ? optimizer_moments(&config->optimizer) : 0;
}

/* Share of the activations that will be active in the codes of a probe. Half of them are at first;
 * OVR thins them out with every step. Fitted to the OVR-Encoder on CIFAR-10 (K = 1024 and 8192,
 * λ = 1e-5 … 5e-4, 1 to 35 epochs of Adam 5e-4 at batch size 128), within a tenth there. Only an
 * activity term that asks for more than that makes more than half of them active. */
static double expected_active(const struct train_config *config, size_t n_train) {
    const double n = (double)config->batch_size, steps = config->epochs * ceil((double)n_train / n);
    size_t k = config->hidden[config->n_hidden ? config->n_hidden - 1 : 0];
    switch (config->f.kind) {
    case ACT_RELU:
        break;
    case ACT_TRIANGLE:
    case ACT_THRESHOLDED:
        return 0.5;
    case ACT_HARD:
        return 1. / (double)k;
    case ACT_TOP_K:
        return (double)min_size(config->top_k, k) / (double)k;
    default:
        return 1;
    }
    if (config->activity && config->activity_target > 1)
        return 1;
    if (config->ovr.form != OVR_COSINE || config->optimizer.name != OPT_ADAM)
        return 0.49;
    double per_pair = ovr_lambda(&config->ovr, config->batch_size) * n * (n - 1);
    double pressure = per_pair / (128 * 127) * steps * config->optimizer.learning_rate / 5e-4;
    return 0.49 / (1 + 0.78 * pow(pressure, 0.62));
}

/* Rows that an evaluation puts through the layer at once: whole mini-batches, about CODE_BLOCK
 * rows. */
static size_t evaluation_block(size_t batch_size) {
    return batch_size >= CODE_BLOCK ? batch_size : CODE_BLOCK - CODE_BLOCK % batch_size;
}

static size_t most_rows(size_t batch_size) {
    return batch_size > CODE_BLOCK ? batch_size : CODE_BLOCK;
}

/* What a run's arena has to hold. */
struct plan {
    const struct train_config *config;
    size_t n_train, n_inputs, n_classes;
    struct crew crew;
};

static void place_kmeans(struct run *run, const struct plan *plan, struct arena *arena) {
    const struct train_config *config = plan->config;
    const struct kmeans_config kmeans = {
        .online = config->kind == MODEL_ONLINE_KMEANS,
        .init = config->init == INIT_KMEANS_PLUS_PLUS ? KMEANS_PLUS_PLUS : KMEANS_SAMPLES,
        .seed = config->seed,
    };
    size_t k = config->hidden[0];
    kmeans_place(&run->kmeans, &kmeans, run->kernels, k, plan->n_inputs, plan->n_train, arena);
    run->result->best_counts = arena_take(arena, k, sizeof(real));
    run->result->last_counts = arena_take(arena, k, sizeof(real));
    if (!arena->base)
        return;
    run->kmeans.centroids = net_weight(&run->net, 0);
    run->kmeans.bias = net_bias(&run->net, 0);
    run->kmeans.used = run->order;
}

/* The arrays of a run. With a counting arena only the sizes in run->net mean anything. */
static void place(struct run *run, const struct plan *plan, struct arena *arena) {
    const struct train_config *config = plan->config;
    size_t batch = config->batch_size, d = plan->n_inputs;
    struct net_config shape = train_net_shape(config, d, plan->n_classes);
    net_place(&run->net, &shape, run->kernels, count_moments(config), most_rows(batch), &plan->crew,
              arena);
    for (size_t l = 0; l < shape.n_layers; l++) {
        const struct activations activations = net_layer_activations(&run->net, l);
        run->measure[l] = measure_place(&activations, &plan->crew, arena);
    }
    size_t most_batches = plan->n_train / batch + plan->n_classes + 1;
    run->order = arena_take(arena, plan->n_train, sizeof *run->order);
    run->sorting = arena_take(arena, plan->n_train, sizeof *run->sorting);
    run->batch_first = arena_take(arena, most_batches + 1, sizeof *run->batch_first);
    run->batch_order = arena_take(arena, most_batches, sizeof *run->batch_order);
    for (int i = 0; i < 2; i++) {
        run->batch_x[i] = arena_take(arena, batch * d, sizeof(real));
        if (config->corruption)
            run->batch_clean[i] = arena_take(arena, batch * d, sizeof(real));
        run->batch_labels[i] = arena_take(arena, batch, sizeof(uint16_t));
    }
    run->result->best = arena_take(arena, run->net.n_params, sizeof(real));
    run->result->last = arena_take(arena, run->net.n_params, sizeof(real));
    if (is_kmeans(config))
        place_kmeans(run, plan, arena);
}

static struct arena count_arena(const struct plan *plan, const struct kernels *kernels) {
    struct arena counting = {0};
    struct train_result result;
    struct run run = {.kernels = kernels, .result = &result};
    place(&run, plan, &counting);
    if (plan->config->probe)
        probe_plan(&plan->config->probe_config, train_code_units(plan->config, plan->n_inputs),
                   plan->n_classes, plan->n_train, plan->crew.members, &counting);
    return counting;
}

static int build(struct run *run, struct ovr_err *err) {
    struct train_result *result = run->result;
    const struct train_config *config = run->config;
    const struct plan plan = {config,
                              run->data->train.n,
                              run->data->n_inputs,
                              run->data->n_classes,
                              {team_most(run->team), team_n_ranks(run->team)}};
    size_t bytes = count_arena(&plan, run->kernels).used;
    int rc = plan.crew.ranks > 1 ? arena_reserve(&result->arena, bytes, err)
                                 : arena_open(&result->arena, bytes, err);
    if (rc)
        return rc;
    place(run, &plan, &result->arena);
    run->group = config->batch_size;
    run->block = evaluation_block(config->batch_size);
    result->data_classes = plan.n_classes;
    return 0;
}

static int is_used(const struct train_config *config, uint16_t label) {
    for (size_t i = 0; i < config->only.n; i++)
        if (config->only.list[i] == label)
            return 1;
    return config->only.n == 0;
}

static int count_used(struct run *run, struct ovr_err *err) {
    const struct split *train = &run->data->train;
    for (size_t i = 0; i < train->n; i++)
        run->n_used += (size_t)is_used(run->config, train->labels[i]);
    return run->n_used ? 0
                       : ovr_fail(err, OVR_INVALID, "/training/only_classes",
                                  "no training sample is of these classes");
}

size_t train_parts(const struct train_config *config, size_t n_inputs, size_t n_classes,
                   struct net_part parts[PARTS_MAX]) {
    const struct net_config shape = train_net_shape(config, n_inputs, n_classes);
    struct arena counting = {0};
    struct net net;
    net_place(&net, &shape, kernels_get(ISA_BASELINE), 0, 1, &(struct crew){1, 1}, &counting);
    return net_parts(&net, parts);
}

int initial_fits(const struct net_part *from, const struct net_part *to) {
    return to->part == from->part && to->layer == from->layer && to->rows == from->rows &&
           to->cols == from->cols;
}

size_t initial_load(const struct net *net, const struct initial *initial) {
    struct net_part parts[PARTS_MAX];
    size_t n = net_parts(net, parts), loaded = 0;
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < initial->n; j++) {
            const struct net_part *to = &parts[i];
            if (!initial_fits(&initial->parts[j], to))
                continue;
            for (size_t row = 0; row < to->rows; row++)
                memcpy(net->params + to->at + row * to->stride,
                       initial->weights[j] + row * to->cols, to->cols * sizeof(real));
            loaded++;
        }
    return loaded;
}

/* Weights of an earlier net, where they fit. */
static int load_initial(struct run *run, struct ovr_err *err) {
    const struct initial *initial = run->config->initial;
    if (!initial || initial_load(&run->net, initial))
        return 0;
    return ovr_fail(err, OVR_INVALID, "/model/init/experiment",
                    "has no weights of the shapes that this model needs");
}

static void init_work(struct member *member, void *arg) {
    struct run *run = arg;
    if (!is_kmeans(run->config))
        net_init_weights(member, &run->net);
    else if (kmeans_init(member, &run->kmeans, run->data->train.x, run->hooks->stop))
        run->stopped = 1;
}

static void continue_work(struct member *member, void *arg) {
    struct run *run = arg;
    const struct initial *initial = run->config->initial;
    const real *counts = NULL;
    for (size_t i = 0; i < initial->n; i++)
        if (initial->parts[i].part == PART_COUNTS && initial->parts[i].rows == run->kmeans.n_units)
            counts = initial->weights[i];
    kmeans_continue(member, &run->kmeans, counts);
}

/* The leading principal axes of the prepared training samples become the weights, and what takes
 * their mean to 0 the biases. */
static int fit_pca(struct run *run, struct ovr_err *err) {
    const struct split *train = &run->data->train;
    size_t d = run->data->n_inputs, k = run->config->hidden[0];
    const struct samples samples = {.n = train->n, .d = d, .values = (real *)train->x};
    const struct preprocess_step step = {PREPROCESS_PCA, .components = k};
    /* Each rank fits by itself, and none may leave the others behind. */
    const _Atomic int *stop = team_n_ranks(run->team) == 1 ? run->hooks->stop : NULL;
    struct preprocess fitted;
    if (k > min_size(d, train->n))
        return ovr_fail(err, OVR_INVALID, "/model/hidden/0",
                        "must be 1..%zu (%zu values a prepared sample, %zu samples to fit on), "
                        "got %zu",
                        min_size(d, train->n), d, train->n, k);
    int rc = preprocess_fit(&fitted, run->team, run->kernels, &samples, NULL, train->n, &step, 1,
                            stop, err);
    size_t first, end;
    team_held(run->team, BY_UNIT, k, &first, &end);
    if (!rc)
        memcpy(net_weight(&run->net, 0) + first * d, fitted.steps[0].components + first * d,
               (end - first) * d * sizeof(real));
    for (size_t unit = first; !rc && unit < end; unit++) {
        const real *axis = fitted.steps[0].components + unit * d;
        double at_mean = 0;
        for (size_t j = 0; j < d; j++)
            at_mean += (double)axis[j] * fitted.steps[0].mean[j];
        net_bias(&run->net, 0)[unit] = (real)-at_mean;
    }
    preprocess_release(&fitted);
    return rc;
}

/* The weights before the first epoch. */
static int start_weights(struct run *run, struct ovr_err *err) {
    const struct train_config *config = run->config;
    if (is_kmeans(config) && config->hidden[0] > run->n_used)
        return ovr_fail(err, OVR_INVALID, "/model/hidden/0",
                        "must be 1..%zu, as many centroids as there are samples to train on, "
                        "got %zu",
                        run->n_used, config->hidden[0]);
    run->kmeans.n_used = run->n_used;
    team_run(run->team, init_work, run);
    if (run->stopped)
        return ovr_fail(err, OVR_STOPPED, NULL, "stopped while the first centroids were chosen");
    int rc = load_initial(run, err);
    if (!rc && is_kmeans(config) && config->initial)
        team_run(run->team, continue_work, run);
    return !rc && config->kind == MODEL_PCA ? fit_pca(run, err) : rc;
}

/* One sample's inputs as a denoising net sees them. */
static void corrupt(const struct run *run, real *x, size_t place) {
    const struct train_config *config = run->config;
    uint32_t limit = (uint32_t)(config->corruption_amount * 0x1p32);
    struct rng rng;
    rng_init(&rng, config->seed, RNG_CORRUPTION, (uint32_t)run->at.epoch, (uint32_t)place);
    for (size_t j = 0; j < run->net.config.n_inputs; j++)
        if (config->corruption == CORRUPTION_GAUSSIAN)
            x[j] += (real)(config->corruption_amount * rng_normal(&rng));
        else
            x[j] = rng_u32(&rng) < limit ? 0 : x[j];
}

/* This member's part of step number `step` of the epoch. */
static struct batch gather(struct member *member, struct run *run, size_t step) {
    const uint32_t *bounds = run->batch_first + run->batch_order[step];
    size_t d = run->net.config.n_inputs, first = bounds[0], n = bounds[1] - first, from, end;
    real *x = run->batch_x[step % 2], *clean = run->batch_clean[step % 2];
    uint16_t *labels = run->batch_labels[step % 2];
    team_share(member, n, &from, &end);
    for (size_t i = from; i < end; i++) {
        size_t sample = run->order[first + i];
        memcpy(x + i * d, run->data->train.x + sample * d, d * sizeof *x);
        labels[i] = run->data->train.labels[sample];
        if (!clean)
            continue;
        memcpy(clean + i * d, x + i * d, d * sizeof *x);
        corrupt(run, x + i * d, first + i);
    }
    return (struct batch){.x = x,
                          .target = clean,
                          .labels = labels,
                          .n = n,
                          .group = n,
                          .training = 1,
                          .epoch = (uint32_t)run->at.epoch,
                          .first = (uint32_t)first};
}

/* Cuts places first .. end - 1 of the order into batches. */
static void cut_batches(struct run *run, size_t first, size_t end) {
    for (size_t at = first; at < end; at += run->group)
        run->batch_first[run->n_batches++] = (uint32_t)at;
    run->batch_first[run->n_batches] = (uint32_t)end;
}

/* The shuffled samples sorted by class, and each class cut into batches of its own. */
static void sort_by_class(struct run *run) {
    const uint16_t *labels = run->data->train.labels;
    size_t at = 0;
    memcpy(run->sorting, run->order, run->n_used * sizeof *run->order);
    for (size_t label = 0; label < run->data->n_classes; label++) {
        size_t first = at;
        for (size_t i = 0; i < run->n_used; i++)
            if (labels[run->sorting[i]] == label)
                run->order[at++] = run->sorting[i];
        cut_batches(run, first, at);
    }
}

/* This epoch's order of samples and batches. */
static void shuffle(struct run *run) {
    const struct split *train = &run->data->train;
    struct rng rng;
    size_t used = 0;
    rng_init(&rng, run->config->seed, RNG_SHUFFLE, (uint32_t)run->at.epoch, 0);
    rng_permutation(&rng, run->order, (uint32_t)train->n);
    for (size_t i = 0; i < train->n; i++)
        if (is_used(run->config, train->labels[run->order[i]]))
            run->order[used++] = run->order[i];
    run->n_batches = 0;
    if (run->config->batching == BATCHING_RANDOM) {
        cut_batches(run, 0, used);
        for (size_t i = 0; i < run->n_batches; i++)
            run->batch_order[i] = (uint32_t)i;
        return;
    }
    sort_by_class(run);
    rng_init(&rng, run->config->seed, RNG_CLASS_ORDER, (uint32_t)run->at.epoch, 0);
    rng_permutation(&rng, run->batch_order, (uint32_t)run->n_batches);
}

/* Number t of all, `index` in its epoch; net_forward() of the batch is done. */
static void take_step(struct member *member, struct run *run, const struct batch *batch,
                      size_t index, uint64_t t) {
    if (is_kmeans(run->config)) {
        const struct layer *layer = &run->net.layers[0];
        kmeans_add(member, &run->kmeans, batch->x, run->order + batch->first, layer->row_unit,
                   layer->row_square, batch->n);
        return;
    }
    if (index == 0) {
        struct gradients gradients;
        net_gradients(member, &run->net, batch, &gradients);
        if (member->rank == 0)
            run->at.gradients = gradients;
    }
    struct update update =
        optimizer_update(&run->config->optimizer, run->at.schedule.learning_rate, t);
    net_backward(member, &run->net, batch, &update);
}

/* What is left of an epoch's steps, or some of it when somebody wants to save() or stop. Every
 * member sees the same terms, so all leave at the same step. */
static void epoch_work(struct member *member, void *arg) {
    struct run *run = arg;
    struct train_progress *progress = run->hooks->progress;
    const size_t first = run->at.step;
    if (first == run->n_batches)
        return; /* stopped while this epoch was evaluated */
    uint64_t t = run->at.steps;
    struct terms sums = run->at.sums;
    if (is_kmeans(run->config) && first == 0)
        kmeans_start(member, &run->kmeans);
    for (size_t i = first; i < run->n_batches; i++) {
        int asked = team_agree_both(member, run->hooks->stop, run->hooks->save_due);
        int stopped = asked & 1;
        if (stopped || (i > first && asked)) {
            if (member->rank == 0) {
                run->at.step = i;
                run->at.steps = t;
                run->at.sums = sums;
                run->stopped = stopped;
                run->interrupted = 1;
            }
            return;
        }
        struct batch batch = gather(member, run, i);
        struct terms terms = net_forward(member, &run->net, &batch);
        terms_add(&sums, &terms);
        t++;
        if (!isfinite(terms.loss)) {
            if (member->rank == 0)
                run->failed_step = t;
            return;
        }
        take_step(member, run, &batch, i, t);
        if (member->rank == 0) {
            progress->step = t;
            run->at.samples += batch.n;
            progress->samples = run->at.samples;
        }
    }
    if (is_kmeans(run->config))
        kmeans_finish(member, &run->kmeans, run->data->train.x);
    if (member->rank == 0) {
        run->at.step = run->n_batches;
        run->at.sums = sums;
        run->at.steps = t;
        if (is_kmeans(run->config))
            run->at.gradients = (struct gradients){.direction = kmeans_direction(&run->kmeans)};
    }
}

/* Puts a split through the net, so many rows at once, each `group` of them a mini-batch, and calls
 * `each` after every forward pass with the rows first .. first + n - 1 and their terms; not 0 ends
 * it. Every member goes the same way. Returns 1 where it did not come to the end. */
static int go_through(struct member *member, struct run *run, const struct split *split,
                      size_t rows, size_t group,
                      int (*each)(struct member *member, struct run *run, const struct terms *terms,
                                  size_t first, size_t n, void *context),
                      void *context) {
    size_t d = run->net.config.n_inputs;
    for (size_t first = 0; first < split->n; first += rows) {
        size_t n = min_size(rows, split->n - first);
        struct batch batch = {
            .x = split->x + first * d, .labels = split->labels + first, .n = n, .group = group};
        if (team_agree(member, run->hooks->stop)) {
            run->stopped = 1;
            return 1;
        }
        struct terms terms = net_forward(member, &run->net, &batch);
        if (each(member, run, &terms, first, n, context))
            return 1;
    }
    return 0;
}

static int measure_block(struct member *member, struct run *run, const struct terms *terms,
                         size_t first, size_t n, void *context) {
    (void)first;
    terms_add(context, terms);
    for (size_t l = 0; l < run->net.config.n_layers; l++) {
        const struct activations activations = net_layer_activations(&run->net, l);
        measure_add(member, run->measure[l], &activations, n);
    }
    return 0;
}

static void evaluate_work(struct member *member, void *arg) {
    struct run *run = arg;
    struct terms sums = {0};
    size_t n_layers = run->net.config.n_layers;
    for (size_t l = 0; l < n_layers; l++)
        measure_reset(member, run->measure[l]);
    if (go_through(member, run, run->evaluated, run->block, run->group, measure_block, &sums))
        return;
    for (size_t l = 0; l < n_layers; l++) {
        struct measures measures;
        measure_finish(member, run->measure[l], net_find_part(&run->net, PART_BIAS, l), &measures);
        if (member->rank == 0)
            run->measures[l] = measures;
    }
    if (member->rank == 0)
        run->sums = sums;
}

static int encode_block(struct member *member, struct run *run, const struct terms *terms,
                        size_t first, size_t n, void *context) {
    (void)terms;
    (void)context;
    const struct activations activations = net_activations(&run->net);
    if (!code_add(member, run->code, &activations, first, n))
        return 0;
    run->out_of_memory = 1;
    return 1;
}

static void encode_work(struct member *member, void *arg) {
    struct run *run = arg;
    go_through(member, run, run->encoded, CODE_BLOCK, CODE_BLOCK, encode_block, NULL);
}

static int collect_columns(struct member *member, struct run *run, const struct terms *terms,
                           size_t first, size_t n, void *context) {
    (void)terms;
    (void)context;
    const struct activations activations = net_layer_activations(&run->net, run->column_layer);
    columns_add(member, run->columns, run->shard_group, &activations, first, n);
    return 0;
}

static void column_work(struct member *member, void *arg) {
    struct run *run = arg;
    if (!go_through(member, run, run->encoded, CODE_BLOCK, CODE_BLOCK, collect_columns, NULL))
        columns_finish(member, run->columns, run->shard_group);
}

static struct terms mean_terms(const struct terms *sums) {
    struct terms mean = *sums;
    mean.loss /= sums->samples;
    for (int t = 0; t < N_TERMS; t++)
        mean.value[t] /= sums->samples;
    return mean;
}

/* Names what the model has to be changed, nothing else. */
static int fail_diverged(const struct run *run, struct ovr_err *err) {
    const struct train_config *config = run->config;
    int clusters = is_kmeans(config);
    return ovr_fail(err, OVR_DIVERGED, clusters ? "/preprocess" : "/optimizer/learning_rate",
                    "the loss was no longer a finite number at step %llu (epoch %d); %s%s"
                    "standardize the data",
                    (unsigned long long)run->failed_step, run->at.epoch,
                    clusters ? "" : "lower /optimizer/learning_rate or ",
                    !clusters && config->ovr.lambda > 0 ? "/loss/ovr/lambda, or " : "");
}

static int check_run(const struct run *run, const char *phase, struct ovr_err *err) {
    if (run->stopped)
        return ovr_fail(err, OVR_STOPPED, NULL, "stopped while %s", phase);
    if (run->out_of_memory)
        return ovr_nomem(err, "the sparse codes");
    return run->failed_step ? fail_diverged(run, err) : 0;
}

static int evaluate(struct run *run, const struct split *split, struct terms *terms,
                    struct ovr_err *err) {
    run->evaluated = split;
    team_run(run->team, evaluate_work, run);
    *terms = mean_terms(&run->sums);
    if (!run->stopped && !isfinite(terms->loss))
        run->failed_step = run->at.steps;
    return check_run(run, "the code was evaluated", err);
}

static void copy_measures(const struct run *run, struct measures *code, struct measures *below) {
    size_t last = run->net.config.n_layers - 1;
    *code = run->measures[last];
    memcpy(below, run->measures, last * sizeof *below);
}

struct piece_list {
    struct train_piece *pieces;
    size_t n;
};

static void add_piece(struct piece_list *list, void *bytes, size_t size) {
    if (bytes && size)
        list->pieces[list->n++] = (struct train_piece){bytes, size};
}

/* This rank's part of `size` bytes for each unit. */
static void add_units(struct piece_list *list, const struct run *run, void *units, size_t size) {
    size_t first, end;
    team_held(run->team, BY_UNIT, run->kmeans.n_units, &first, &end);
    add_piece(list, units ? (char *)units + first * size : NULL, (end - first) * size);
}

/* This rank's numbers of a part in the flat buffer, from *at on; returns how many. */
static size_t held_numbers(const struct run *run, const struct net_part *part, size_t *at) {
    size_t first, end;
    team_held(run->team, net_part_pieces(part), part->rows, &first, &end);
    *at = part->at + first * part->stride;
    return (end - first) * part->stride;
}

/* One rank alone has them in one piece. */
static void add_weights(struct piece_list *list, const struct run *run, real *params) {
    struct net_part parts[PARTS_MAX];
    size_t n = net_parts(&run->net, parts), at;
    if (team_n_ranks(run->team) == 1) {
        add_piece(list, params, run->net.n_params * sizeof *params);
        return;
    }
    for (size_t i = 0; params && i < n; i++) {
        size_t numbers = held_numbers(run, &parts[i], &at);
        add_piece(list, params + at, numbers * sizeof *params);
    }
}

/* The order of samples and batches follows from the epoch. After the last epoch the net holds the
 * best weights, and what it ended with is in result->last. */
static size_t list_pieces(struct run *run, struct train_piece pieces[TRAIN_PIECES_MAX]) {
    struct net *net = &run->net;
    struct kmeans *k = &run->kmeans;
    struct train_result *result = run->result;
    struct piece_list list = {pieces, 0};
    add_piece(&list, &run->at, sizeof run->at);
    add_weights(&list, run, run->at.trained ? result->last : net->params);
    for (size_t i = 0; i < 2; i++)
        add_weights(&list, run, net->moment[i]);
    add_weights(&list, run, result->best);
    if (!is_kmeans(run->config))
        return list.n;
    add_units(&list, run, result->best_counts, sizeof *result->best_counts);
    add_units(&list, run, k->sums, k->n_inputs * sizeof *k->sums);
    add_units(&list, run, k->counts, sizeof *k->counts);
    add_units(&list, run, k->moved_at, sizeof *k->moved_at);
    add_units(&list, run, k->direction, sizeof *k->direction);
    add_piece(&list, k->unit, k->n_samples * sizeof *k->unit);
    add_piece(&list, k->square, k->n_samples * sizeof *k->square);
    add_piece(&list, &k->changed, sizeof k->changed);
    return list.n;
}

static int save(struct run *run, struct ovr_err *err) {
    const struct train_hooks *hooks = run->hooks;
    struct train_piece pieces[TRAIN_PIECES_MAX];
    if (hooks->save_due)
        *hooks->save_due = 0;
    return hooks->save ? hooks->save(hooks->context, pieces, list_pieces(run, pieces), err) : 0;
}

static void note_result(struct run *run) {
    struct train_result *result = run->result;
    const struct position *at = &run->at;
    result->best_epoch = at->best_epoch;
    result->epochs = at->epochs;
    result->terms = at->terms;
    result->measures = at->measures;
    memcpy(result->below, at->below, sizeof result->below);
    result->accuracy = at->accuracy;
    result->accuracy_last = at->accuracy_last;
}

/* The steps of an epoch, in one go or with pauses to save(). */
static int take_steps(struct run *run, double started, struct ovr_err *err) {
    double before = run->at.seconds;
    do {
        run->interrupted = 0;
        team_run(run->team, epoch_work, run);
        run->at.seconds = before + now_seconds() - started;
        int rc = check_run(run, "the network was trained", err);
        if (!rc && run->interrupted)
            rc = save(run, err);
        if (rc)
            return rc;
    } while (run->interrupted);
    return 0;
}

static int train_epoch(struct run *run, struct epoch_report *report, struct ovr_err *err) {
    double started = now_seconds(), before = run->at.seconds;
    *report = (struct epoch_report){
        .epoch = run->at.epoch, .learning_rate = run->at.schedule.learning_rate, .net = &run->net};
    run->hooks->progress->epoch = run->at.epoch;
    shuffle(run);
    int rc = take_steps(run, started, err);
    if (rc)
        return rc;
    report->train = mean_terms(&run->at.sums);
    report->gradients = run->at.gradients;
    rc = evaluate(run, &run->data->watched, &report->watched, err);
    copy_measures(run, &report->measures, report->below);
    report->seconds = before + now_seconds() - started;
    return rc;
}

/* This rank's part of all weights. */
static void copy_weights(const struct run *run, real *to, const real *from) {
    struct net_part parts[PARTS_MAX];
    size_t n = net_parts(&run->net, parts), at;
    for (size_t i = 0; i < n; i++) {
        size_t numbers = held_numbers(run, &parts[i], &at);
        memcpy(to + at, from + at, numbers * sizeof *to);
    }
}

static void keep_weights(const struct run *run, real *params, real *counts) {
    copy_weights(run, params, run->net.params);
    for (size_t unit = 0; counts && unit < run->kmeans.n_units; unit++)
        counts[unit] = (real)run->kmeans.counts[unit];
}

/* The best epoch so far is kept, by the watched split. */
static void keep_best(struct run *run, const struct epoch_report *report) {
    struct position *at = &run->at;
    keep_weights(run, run->result->best, run->result->best_counts);
    at->best_epoch = report->epoch;
    at->terms = report->watched;
    at->measures = report->measures;
    memcpy(at->below, report->below, sizeof at->below);
}

/* What is not trained is only looked at. */
static int keep_untrained(struct run *run, struct ovr_err *err) {
    struct epoch_report report = {.epoch = 0};
    int rc = evaluate(run, &run->data->watched, &report.watched, err);
    copy_measures(run, &report.measures, report.below);
    keep_best(run, &report);
    keep_weights(run, run->result->last, NULL);
    return rc;
}

/* What follows from an epoch's report. Returns 1 when it was the last one. */
static int judge_epoch(struct run *run, const struct epoch_report *report) {
    const struct train_config *config = run->config;
    struct position *at = &run->at;
    double loss = report->watched.loss;
    double accuracy = (double)report->watched.correct / report->watched.samples;
    at->epochs = at->epoch;
    if (config->kind == MODEL_MLP) {
        at->accuracy_last = accuracy;
        at->accuracy = fmax(at->accuracy, accuracy);
    }
    if (loss < at->best) {
        at->best = loss;
        keep_best(run, report);
    }
    schedule_step(&config->schedule, &at->schedule, loss);
    at->waited++;
    if (loss < at->best_for_patience - config->patience_delta) {
        at->best_for_patience = loss;
        at->waited = 0;
    }
    int settled = config->kind == MODEL_KMEANS && run->kmeans.changed == 0;
    return settled || (config->patience && at->waited >= config->patience) ||
           at->epoch == config->epochs;
}

/* Between epochs: as many members as its owner now wants, which changes no bit. */
static void resize_team(const struct run *run) {
    const struct train_hooks *hooks = run->hooks;
    int wanted = hooks->members ? *hooks->members : 0;
    hooks->progress->members = wanted ? team_resize(run->team, wanted) : team_size(run->team);
}

/* From run->at on. */
static int train_epochs(struct run *run, struct ovr_err *err) {
    struct position *at = &run->at;
    enter_phase(run, PHASE_TRAINING, run->config->epochs);
    while (!at->trained) {
        struct epoch_report report;
        resize_team(run);
        int rc = train_epoch(run, &report, err);
        if (!rc)
            rc = run->hooks->epoch(run->hooks->context, &report, err);
        if (rc)
            return rc;
        at->trained = judge_epoch(run, &report);
        at->epoch++;
        at->step = 0;
        at->seconds = 0;
        at->sums = (struct terms){0};
    }
    keep_weights(run, run->result->last, run->result->last_counts);
    copy_weights(run, run->net.params, run->result->best);
    return 0;
}

static void begin(struct run *run) {
    const struct train_config *config = run->config;
    memset(&run->at, 0, sizeof run->at);
    run->at.epoch = 1;
    run->at.best = run->at.best_for_patience = INFINITY;
    run->at.accuracy = run->at.accuracy_last = NAN;
    schedule_start(&config->schedule, &run->at.schedule, config->optimizer.learning_rate);
}

/* Some ranks have put something back, but not all of them the same. */
static int begin_anew(struct run *run, const struct train_piece *pieces, size_t n,
                      struct ovr_err *err) {
    for (size_t i = 0; i < n; i++)
        memset(pieces[i].bytes, 0, pieces[i].n);
    begin(run);
    return start_weights(run, err);
}

static int is_alike(struct team *team, int value) {
    return team_least(team, value) == -team_least(team, -value);
}

/* The newest that all ranks have. *from: there is one. */
static int restore(struct run *run, int *from, struct ovr_err *err) {
    const struct train_hooks *hooks = run->hooks;
    struct train_piece pieces[TRAIN_PIECES_MAX];
    size_t n = list_pieces(run, pieces);
    int touched = 0;
    *from = 0;
    for (int back = 0; back <= 1 && !*from; back++) {
        int found = 0, rc = hooks->restore(hooks->context, pieces, n, back, &found, err);
        if (rc)
            return rc;
        touched |= found;
        *from = team_least(run->team, found) && is_alike(run->team, (int)(run->at.steps % INT_MAX));
    }
    touched = -team_least(run->team, -touched); /* of any */
    return touched && !*from ? begin_anew(run, pieces, n, err) : 0;
}

/* What a rank reads from end to end at each step. */
static void use_large_pages(const struct run *run) {
    struct train_piece pieces[TRAIN_PIECES_MAX];
    struct piece_list list = {pieces, 0};
    add_weights(&list, run, run->net.params);
    for (size_t i = 0; i < 2; i++)
        add_weights(&list, run, run->net.moment[i]);
    if (is_kmeans(run->config))
        add_units(&list, run, run->kmeans.sums, run->kmeans.n_inputs * sizeof(double));
    for (size_t i = 0; i < list.n; i++)
        arena_use_large_pages(pieces[i].bytes, pieces[i].n);
}

/* At the beginning, or where an earlier run was saved. */
static int find_position(struct run *run, struct ovr_err *err) {
    const struct train_hooks *hooks = run->hooks;
    int from;
    begin(run);
    if (!hooks->restore || !has_epochs(run->config))
        return 0;
    int rc = restore(run, &from, err);
    hooks->progress->step = run->at.steps;
    hooks->progress->samples = run->at.samples;
    if (rc || !hooks->restored)
        return rc;
    return hooks->restored(hooks->context, from ? run->at.epoch : 0, err);
}

/* Clean protocol: the one look at the test split. */
static int report_test(struct run *run, struct ovr_err *err) {
    struct train_result *result = run->result;
    if (run->config->data.protocol != PROTOCOL_CLEAN)
        return 0;
    int rc = evaluate(run, &run->data->test, &result->terms, err);
    if (rc)
        return rc;
    copy_measures(run, &result->measures, result->below);
    if (run->config->kind == MODEL_MLP) {
        result->accuracy = (double)result->terms.correct / result->terms.samples;
        result->accuracy_last = NAN;
    }
    return 0;
}

static struct units_shape units_shape(size_t n_units, size_t n_samples, size_t n_classes,
                                      size_t n_cells) {
    return (struct units_shape){n_units, n_samples, n_classes, n_cells, COLUMNS_BYTES};
}

static void finish_units_work(struct member *member, void *arg) {
    struct run *run = arg;
    size_t l = run->column_layer;
    units_finish(member, &run->result->units[l], net_find_part(&run->net, PART_WEIGHT, l),
                 run->net.layers[l].config.n_inputs, net_find_part(&run->net, PART_BIAS, l));
}

/* The table of a layer's units. */
static int report_layer(struct run *run, size_t layer, struct ovr_err *err) {
    const struct prepared *data = run->data;
    const struct layer_config *config = &run->net.layers[layer].config;
    struct units *units = &run->result->units[layer];
    const struct units_shape shape =
        units_shape(config->n_units, run->encoded->n, data->n_classes, data->n_cells);
    run->column_layer = layer;
    int rc = units_open(units, &run->columns, &shape, run->encoded, run->team, err);
    for (run->shard_group = 0; !rc && run->shard_group < columns_n_groups(run->columns);
         run->shard_group++) {
        team_run(run->team, column_work, run);
        rc = check_run(run, "its units were measured", err);
    }
    if (!rc)
        team_run(run->team, finish_units_work, run);
    columns_free(run->columns);
    return rc;
}

/* On the reported split, with the weights that the run ends with. */
static int report_units(struct run *run, struct ovr_err *err) {
    int rc = 0;
    run->encoded = run->data->test.n ? &run->data->test : &run->data->watched;
    for (size_t l = 0; !rc && l < run->net.config.n_layers; l++)
        rc = report_layer(run, l, err);
    return rc;
}

static int encode(struct run *run, const struct split *split, struct code **code,
                  struct ovr_err *err) {
    size_t n_units = train_code_units(run->config, run->net.config.n_inputs);
    int rc = code_new(code, split->n, n_units, split->labels, err);
    if (rc)
        return rc;
    run->code = *code;
    run->encoded = split;
    team_run(run->team, encode_work, run);
    return check_run(run, "the samples were encoded", err);
}

/* Resident bytes, now that it is known how many activations are not zero. */
static uint64_t probing_memory(const struct run *run) {
    const struct prepared *data = run->data;
    uint64_t tables = 0;
    for (size_t l = 0; l < run->net.config.n_layers; l++)
        tables += run->result->units[l].arena.size;
    return data->bytes + run->result->arena.size + tables +
           code_bytes(data->train.n + data->watched.n + data->test.n,
                      train_code_units(run->config, data->n_inputs),
                      1 - run->result->measures.zero);
}

static void probe_epoch(void *context, int epoch) {
    const struct run *run = context;
    run->hooks->progress->epoch = epoch;
    resize_team(run);
}

static int probe(struct run *run, struct ovr_err *err) {
    struct train_result *result = run->result;
    struct probe_config config = run->config->probe_config;
    struct code *train = NULL, *watched = NULL, *test = NULL;
    int clean = run->config->data.protocol == PROTOCOL_CLEAN;
    config.seed = run->config->seed;
    enter_phase(run, PHASE_PROBING, config.epochs);
    run->hooks->progress->memory_bytes = probing_memory(run);
    int rc = encode(run, &run->data->train, &train, err);
    if (!rc)
        rc = encode(run, &run->data->watched, &watched, err);
    if (!rc && clean)
        rc = encode(run, &run->data->test, &test, err);
    struct probe_progress progress = {run, probe_epoch, run->hooks->stop};
    if (!rc)
        rc = probe_run(run->team, run->kernels, &config, result->data_classes, train, watched, test,
                       &progress, &result->arena, &result->probe, err);
    if (!rc) {
        result->probed = 1;
        if (run->config->kind != MODEL_MLP) {
            result->accuracy = clean ? result->probe.accuracy_test : result->probe.accuracy_best;
            result->accuracy_last = clean ? NAN : result->probe.accuracy_last;
        }
    }
    code_free(train);
    code_free(watched);
    code_free(test);
    return rc;
}

static int most_ranks(const struct train_config *config, size_t n_inputs) {
    return config->n_hidden > 1 ? 1 : team_most_ranks(train_code_units(config, n_inputs));
}

/* What several ranks can't train together. */
static int check_ranks(const struct run *run, struct ovr_err *err) {
    const struct train_config *config = run->config;
    size_t n_units = train_code_units(config, run->data->n_inputs);
    int ranks = team_n_ranks(run->team), most = most_ranks(config, run->data->n_inputs);
    if (ranks <= most)
        return 0;
    if (config->n_hidden > 1)
        return ovr_fail(err, OVR_INVALID, "/training/ranks",
                        "must be 1: several ranks train nets of one hidden layer, this one has %zu",
                        config->n_hidden);
    return ovr_fail(err, OVR_INVALID, "/training/ranks",
                    "%zu units can be shared by 1..%d ranks, got %d", n_units, most, ranks);
}

int train_run(const struct train_config *config, const struct prepared *data, struct team *team,
              const struct kernels *kernels, const struct train_hooks *hooks,
              struct train_result *result, struct ovr_err *err) {
    struct run run = {.config = config,
                      .hooks = hooks,
                      .kernels = kernels,
                      .team = team,
                      .result = result,
                      .data = data};
    *result = (struct train_result){
        .accuracy = NAN, .accuracy_last = NAN, .preprocess = &data->preprocess};
    int rc = check_ranks(&run, err);
    if (!rc)
        rc = build(&run, err);
    if (rc)
        return rc;
    use_large_pages(&run);
    rc = count_used(&run, err);
    if (rc)
        return rc;
    shuffle(&run); /* for the number of batches */
    hooks->progress->steps = has_epochs(config) ? (uint64_t)config->epochs * run.n_batches : 0;
    rc = start_weights(&run, err);
    if (!rc)
        rc = find_position(&run, err);
    if (rc)
        return rc;
    rc = has_epochs(config) ? train_epochs(&run, err) : keep_untrained(&run, err);
    note_result(&run);
    if (!rc)
        rc = report_test(&run, err);
    if (!rc)
        rc = report_units(&run, err);
    if (!rc && config->probe)
        rc = probe(&run, err);
    if (rc == OVR_STOPPED && has_epochs(config) && save(&run, err))
        rc = OVR_STOPPED; /* the next try starts earlier */
    result->net = run.net;
    return rc;
}

void train_result_release(struct train_result *result) {
    for (size_t l = 0; l < LAYERS_MAX; l++)
        units_release(&result->units[l]);
    arena_close(&result->arena);
    *result = (struct train_result){0};
}

/* Units of the code that the largest share of a rank has. */
static size_t largest_share(const struct train_config *config, size_t n_inputs, int ranks) {
    size_t n_units = train_code_units(config, n_inputs), r = (size_t)ranks;
    size_t blocks = (n_units + BY_UNIT - 1) / BY_UNIT;
    return r == 1 ? n_units : min_size((blocks + r - 1) / r * BY_UNIT, n_units);
}

/* The tables of units, and the largest of what it takes to make one, of the probe's codes, and of
 * others' weights on their way through the first rank. */
static uint64_t tables_memory(const struct train_config *config, const struct train_data *data,
                              size_t n_inputs, const struct crew *crew, uint64_t codes) {
    const struct net_config net = train_net_shape(config, n_inputs, data->n_classes);
    const size_t share = largest_share(config, n_inputs, crew->ranks);
    uint64_t tables = 0, work = codes;
    if (crew->ranks > 1) {
        uint64_t block = min_size(STREAM_BYTES, share * n_inputs * sizeof(real));
        work = block > work ? block : work;
    }
    for (size_t l = 0; l < net.n_layers; l++) {
        struct units_shape shape =
            units_shape(net.units[l], data->n_test, data->n_classes, data->n_cells);
        tables += units_bytes(&shape);
        if (crew->ranks > 1)
            shape.n_units = share;
        uint64_t columns = units_work_bytes(&shape, crew->members);
        work = columns > work ? columns : work;
    }
    return tables + work;
}

static size_t measure_bytes(size_t n_units, size_t max_rows, const struct crew *crew) {
    const struct activations a = {
        .n_units = n_units, .n_shards = count_shards(n_units), .max_rows = max_rows};
    struct arena counting = {0};
    measure_place(&a, crew, &counting);
    return counting.used;
}

/* What a run touches of its arena. Of several ranks each has as much as a net of its own units
 * would; besides the measures' arrays of whole rows, and of a reconstruction half of what a partner
 * added up, a quarter and so on, and in the end the sum. */
static uint64_t resident(const struct plan *plan) {
    const struct train_config *config = plan->config;
    const struct kernels *kernels = kernels_get(ISA_AUTO);
    const size_t n_units = train_code_units(config, plan->n_inputs);
    const size_t units = largest_share(config, plan->n_inputs, plan->crew.ranks);
    const size_t rows = most_rows(config->batch_size), ranks = (size_t)plan->crew.ranks;
    if (ranks == 1)
        return count_arena(plan, kernels).used;
    struct train_config share = *config;
    struct plan own = *plan;
    share.hidden[0] = units;
    own.config = &share;
    size_t sums = config->kind == MODEL_AUTOENCODER ? rows * plan->n_inputs * sizeof(real) : 0;
    return count_arena(&own, kernels).used + measure_bytes(n_units, rows, &plan->crew) -
           measure_bytes(units, rows, &plan->crew) + 2 * (ranks - 1) * sums / ranks;
}

/* What a pca's weights are fitted as. */
static struct preprocess_step code_axes(const struct train_config *config, size_t n_inputs) {
    return (struct preprocess_step){PREPROCESS_PCA,
                                    .components = train_code_units(config, n_inputs)};
}

/* Resident bytes while data are prepared and while the network is trained and probed. */
static uint64_t peak_memory(const struct train_config *config, const struct train_data *data,
                            size_t n_inputs, const struct crew *crew) {
    size_t n_train = data->n_train, n = n_train + data->n_test;
    const struct prepare_config *prepare = &config->data;
    const struct plan plan = {config, n_train - prepared_held_out(prepare, n_train), n_inputs,
                              data->n_classes, *crew};
    uint64_t block = prepared_bytes(prepare, n_train, data->n_test, data->n_values, data->n_cells);
    const struct preprocess_memory preparing = preprocess_memory(
        data->n_values, prepare->preprocess, prepare->n_preprocess, n_train, crew->members);
    uint64_t training = resident(&plan), code_fit = 0;
    const struct preprocess_step axes = code_axes(config, n_inputs);
    if (config->kind == MODEL_PCA)
        code_fit =
            training + preprocess_memory(n_inputs, &axes, 1, plan.n_train, crew->members).fit;
    uint64_t codes = config->probe ? code_bytes(n, largest_share(config, n_inputs, crew->ranks),
                                                expected_active(config, plan.n_train))
                                   : 0;
    training += tables_memory(config, data, n_inputs, crew, codes);
    uint64_t fitting = data->bytes + preparing.fit;
    uint64_t applying = data->bytes + preparing.apply + block;
    uint64_t peak = fitting > applying ? fitting : applying;
    training = training > code_fit ? training : code_fit;
    return block + training > peak ? block + training : peak;
}

static size_t count_parameters(const struct net_config *shape) {
    size_t n = 0, d = shape->n_inputs;
    size_t columns = shape->decoder ? shape->n_inputs : shape->n_classes;
    for (size_t l = 0; l < shape->n_layers && !shape->copies; l++) {
        n += shape->units[l] * (d + 1);
        d = shape->units[l];
    }
    return n + columns + (shape->tied ? 0 : d * columns);
}

/* Operations of the matrix products for one sample. The steps need each layer's products once more,
 * and so does the gradient that goes down. */
static void count_flops(const struct net_config *shape, double *forward, double *backward) {
    double d = (double)shape->n_inputs;
    double columns = (double)(shape->decoder ? shape->n_inputs : shape->n_classes);
    for (size_t l = 0; l < shape->n_layers && !shape->copies; l++) {
        double product = 2 * d * (double)shape->units[l];
        *forward += product;
        if (l >= shape->frozen)
            *backward += l > shape->frozen && columns > 0 ? 2 * product : product;
        d = (double)shape->units[l];
    }
    *forward += 2 * d * columns;
    *backward += 4 * d * columns;
}

struct train_estimate train_estimate(const struct train_config *config,
                                     const struct train_data *data, const struct crew *crew) {
    size_t d = data->n_values, n_train = data->n_train;
    double n = (double)n_train + (double)data->n_test;
    double flops = preprocess_flops(config->data.preprocess, config->data.n_preprocess,
                                    (double)n_train, n, &d);
    struct net_config shape = train_net_shape(config, d, data->n_classes);
    size_t held_out = prepared_held_out(&config->data, n_train);
    size_t watched = config->data.protocol == PROTOCOL_CLEAN ? held_out : data->n_test;
    double forward = 0, backward = 0;
    struct train_estimate e = {.parameters = count_parameters(&shape),
                               .memory_bytes = peak_memory(config, data, d, crew)};
    const struct preprocess_step axes = code_axes(config, d);
    count_flops(&shape, &forward, &backward);
    const size_t units = largest_share(config, d, crew->ranks);
    const double share = (double)units / (double)train_code_units(config, d);
    forward *= share;
    backward *= share;
    if (is_kmeans(config)) { /* biases follow from the centroids, which are sums of samples */
        e.parameters -= config->hidden[0];
        backward = 0;
        if (config->init == INIT_KMEANS_PLUS_PLUS) /* reads all samples for each centroid */
            flops += 60. * (double)(n_train - held_out) * (double)d * (double)config->hidden[0];
    }
    e.flops_per_epoch =
        forward * (double)watched +
        (has_epochs(config) ? (forward + backward) * (double)(n_train - held_out) : 0);
    if (config->kind == MODEL_PCA)
        flops += preprocess_flops(&axes, 1, (double)n_train, 0, &(size_t){d});
    if (config->probe)
        flops += config->probe_config.epochs * n * (double)units * (double)data->n_classes * 2.0;
    e.flops_total = flops + e.flops_per_epoch * (has_epochs(config) ? config->epochs : 1);
    return e;
}

int train_ranks_within(const struct train_config *config, const struct train_data *data,
                       int members, uint64_t bytes) {
    size_t d = data->n_values;
    preprocess_flops(config->data.preprocess, config->data.n_preprocess, 0, 0, &d);
    for (int ranks = 1, most = most_ranks(config, d); ranks <= most; ranks *= 2) {
        const struct crew crew = {members, ranks};
        if (train_estimate(config, data, &crew).memory_bytes <= bytes)
            return ranks;
    }
    return 0;
}
