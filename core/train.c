#include "core/train.h"

#include "core/rng.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* One prepared split: rows ready for the first layer. */
struct split {
    real *x;
    uint16_t *labels;
    size_t n;
};

struct run {
    const struct train_config *config;
    const struct train_hooks *hooks;
    const struct kernels *kernels;
    struct team *team;
    struct train_result *result;
    uint32_t *rows;                    /* a permutation: training rows, then those held out */
    struct split train, watched, test; /* test: clean protocol only */
    struct net *net;
    struct measure *measure;
    size_t group, block; /* evaluation: rows of a mini-batch, and rows at once */
    uint32_t *order;     /* of the training samples in this epoch */
    real *batch_x[2];    /* steps take turns, so a step's batch is gathered while the last one is in
                            use */
    uint16_t *batch_labels[2];
    struct schedule_state schedule;
    uint64_t steps; /* optimiser steps so far */
    int epoch;
    const struct split *evaluated; /* by evaluate_work() */
    struct code *code;             /* filled by encode_work() */
    const struct split *encoded;
    struct terms sums; /* of the last pass, written by member 0 */
    struct measures measures;
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

static void split_release(struct split *split) {
    free(split->x);
    free(split->labels);
}

/* The listed rows of `samples` (NULL: all), transformed. */
static int split_prepare(struct run *run, struct split *split, const struct samples *samples,
                         const uint32_t *rows, size_t n, struct ovr_err *err) {
    const struct preprocess *preprocess = &run->result->preprocess;
    split->n = n;
    split->x = ovr_malloc(n * preprocess_width(preprocess), sizeof *split->x);
    split->labels = ovr_malloc(n, sizeof *split->labels);
    if (!split->x || !split->labels)
        return ovr_nomem(err, "the prepared samples");
    for (size_t i = 0; i < n; i++)
        split->labels[i] = samples->labels[rows ? rows[i] : i];
    return preprocess_apply(preprocess, run->team, samples, rows, n, split->x, run->hooks->stop,
                            err);
}

size_t train_held_out(const struct train_config *config, size_t n) {
    if (config->protocol == PROTOCOL_PUBLISHED)
        return 0;
    size_t held_out = (size_t)lround(config->validation * (double)n);
    return held_out ? held_out : 1;
}

static int by_number(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static int prepare(struct run *run, const struct samples *train, const struct samples *test,
                   struct ovr_err *err) {
    const struct train_config *config = run->config;
    size_t held_out = train_held_out(config, train->n), n = train->n - held_out;
    if (n == 0)
        return ovr_fail(err, OVR_INVALID, "/training/validation",
                        "no training sample is left after holding out %zu of %zu", held_out,
                        train->n);
    run->rows = ovr_malloc(train->n, sizeof *run->rows);
    if (!run->rows)
        return ovr_nomem(err, "the split");
    struct rng rng;
    rng_init(&rng, config->seed, RNG_SPLIT, 0, 0);
    rng_permutation(&rng, run->rows, (uint32_t)train->n);
    qsort(run->rows, n, sizeof *run->rows, by_number); /* memory order */
    qsort(run->rows + n, held_out, sizeof *run->rows, by_number);
    int rc = preprocess_fit(&run->result->preprocess, run->team, train, run->rows, n,
                            config->preprocess, config->n_preprocess, run->hooks->stop, err);
    if (!rc)
        rc = split_prepare(run, &run->train, train, run->rows, n, err);
    if (rc)
        return rc;
    if (config->protocol == PROTOCOL_PUBLISHED)
        return split_prepare(run, &run->watched, test, NULL, test->n, err);
    rc = split_prepare(run, &run->watched, train, run->rows + n, held_out, err);
    return rc ? rc : split_prepare(run, &run->test, test, NULL, test->n, err);
}

static struct net_config net_shape(const struct train_config *config, size_t n_inputs,
                                   size_t n_classes) {
    return (struct net_config){
        .n_inputs = n_inputs,
        .n_units = config->hidden,
        .n_classes = config->kind == MODEL_MLP ? n_classes : 0,
        .init = config->init,
        .init_scale = config->init_scale,
        .seed = config->seed,
        .ovr = config->ovr,
        .activity = config->activity,
        .activity_target = config->activity_target,
    };
}

/* Rows that an evaluation puts through the layer at once: whole mini-batches, about CODE_BLOCK
 * rows. */
static size_t evaluation_block(size_t batch_size) {
    return batch_size >= CODE_BLOCK ? batch_size : CODE_BLOCK - CODE_BLOCK % batch_size;
}

static size_t most_rows(size_t batch_size) {
    return batch_size > CODE_BLOCK ? batch_size : CODE_BLOCK;
}

static int build(struct run *run, size_t n_classes, struct ovr_err *err) {
    const struct train_config *config = run->config;
    struct train_result *result = run->result;
    size_t d = preprocess_width(&result->preprocess), batch = config->batch_size;
    struct net_config shape = net_shape(config, d, n_classes);
    int rc = net_new(&run->net, &shape, run->kernels, optimizer_moments(&config->optimizer),
                     most_rows(batch), team_size(run->team), err);
    if (!rc)
        rc = measure_new(&run->measure, run->net, team_size(run->team), err);
    if (rc)
        return rc;
    run->order = ovr_malloc(run->train.n, sizeof *run->order);
    for (int i = 0; i < 2; i++) {
        run->batch_x[i] = ovr_malloc(batch * d, sizeof(real));
        run->batch_labels[i] = ovr_malloc(batch, sizeof(uint16_t));
    }
    result->best = ovr_calloc(run->net->n_params, sizeof(real));
    result->last = ovr_calloc(run->net->n_params, sizeof(real));
    if (!run->order || !run->batch_x[0] || !run->batch_x[1] || !run->batch_labels[0] ||
        !run->batch_labels[1] || !result->best || !result->last)
        return ovr_nomem(err, "the training loop");
    run->group = batch;
    run->block = evaluation_block(batch);
    result->n_inputs = d;
    result->n_units = config->hidden;
    result->n_classes = shape.n_classes;
    result->data_classes = n_classes;
    result->width = run->net->width;
    return 0;
}

static void init_work(struct member *member, void *arg) {
    net_init_weights(member, ((struct run *)arg)->net);
}

/* This member's part of batch number `index` of the epoch. */
static struct batch gather(struct member *member, struct run *run, size_t index) {
    size_t d = run->net->config.n_inputs, first = index * run->group, from, end;
    size_t n = min_size(run->group, run->train.n - first);
    real *x = run->batch_x[index % 2];
    uint16_t *labels = run->batch_labels[index % 2];
    team_share(member, n, &from, &end);
    for (size_t i = from; i < end; i++) {
        size_t sample = run->order[first + i];
        memcpy(x + i * d, run->train.x + sample * d, d * sizeof *x);
        labels[i] = run->train.labels[sample];
    }
    return (struct batch){.x = x, .labels = labels, .n = n, .group = n};
}

static void shuffle(struct run *run) {
    struct rng rng;
    rng_init(&rng, run->config->seed, RNG_SHUFFLE, (uint32_t)run->epoch, 0);
    rng_permutation(&rng, run->order, (uint32_t)run->train.n);
}

/* One epoch of training. Every member sees the same terms, so all leave at the same step. */
static void epoch_work(struct member *member, void *arg) {
    struct run *run = arg;
    struct train_progress *progress = run->hooks->progress;
    size_t n_batches = (run->train.n + run->group - 1) / run->group;
    uint64_t t = run->steps;
    struct terms sums = {0};
    for (size_t i = 0; i < n_batches; i++) {
        if (team_agree(member, run->hooks->stop)) {
            run->stopped = 1;
            return;
        }
        struct batch batch = gather(member, run, i);
        struct terms terms = net_forward(member, run->net, &batch);
        struct update update =
            optimizer_update(&run->config->optimizer, run->schedule.learning_rate, ++t);
        terms_add(&sums, &terms);
        if (!isfinite(terms.loss)) {
            if (member->rank == 0)
                run->failed_step = t;
            return;
        }
        net_backward(member, run->net, &batch, &update);
        if (member->rank == 0) {
            progress->step = t;
            progress->samples += batch.n;
        }
    }
    if (member->rank == 0) {
        run->sums = sums;
        run->steps = t;
    }
}

static void evaluate_work(struct member *member, void *arg) {
    struct run *run = arg;
    const struct split *split = run->evaluated;
    size_t d = run->net->config.n_inputs;
    struct terms sums = {0};
    struct measures measures;
    measure_reset(member, run->measure);
    for (size_t first = 0; first < split->n; first += run->block) {
        size_t n = min_size(run->block, split->n - first);
        struct batch batch = {split->x + first * d, split->labels + first, n, run->group};
        if (team_agree(member, run->hooks->stop)) {
            run->stopped = 1;
            return;
        }
        struct terms terms = net_forward(member, run->net, &batch);
        terms_add(&sums, &terms);
        measure_add(member, run->measure, run->net, n);
    }
    measure_finish(member, run->measure, &measures);
    if (member->rank == 0) {
        run->sums = sums;
        run->measures = measures;
    }
}

static void encode_work(struct member *member, void *arg) {
    struct run *run = arg;
    const struct split *split = run->encoded;
    size_t d = run->net->config.n_inputs;
    for (size_t first = 0; first < split->n; first += CODE_BLOCK) {
        size_t n = min_size(CODE_BLOCK, split->n - first);
        struct batch batch = {split->x + first * d, split->labels + first, n, n};
        if (team_agree(member, run->hooks->stop)) {
            run->stopped = 1;
            return;
        }
        net_forward(member, run->net, &batch);
        if (code_add(member, run->code, run->net, first, n)) {
            run->out_of_memory = 1;
            return;
        }
    }
}

static struct terms mean_terms(const struct terms *sums) {
    struct terms mean = *sums;
    mean.loss /= sums->samples;
    mean.ovr /= sums->samples;
    mean.activity /= sums->samples;
    mean.cross_entropy /= sums->samples;
    return mean;
}

static int check_run(const struct run *run, const char *phase, struct ovr_err *err) {
    if (run->stopped)
        return ovr_fail(err, OVR_STOPPED, NULL, "stopped while %s", phase);
    if (run->out_of_memory)
        return ovr_nomem(err, "the sparse codes");
    if (run->failed_step)
        return ovr_fail(err, OVR_DIVERGED, "/optimizer/learning_rate",
                        "the loss was no longer a finite number at step %llu (epoch %d); lower "
                        "/optimizer/learning_rate or /loss/ovr/lambda, or standardize the data",
                        (unsigned long long)run->failed_step, run->epoch);
    return 0;
}

static int evaluate(struct run *run, const struct split *split, struct terms *terms,
                    struct ovr_err *err) {
    run->evaluated = split;
    team_run(run->team, evaluate_work, run);
    *terms = mean_terms(&run->sums);
    if (!run->stopped && !isfinite(terms->loss))
        run->failed_step = run->steps;
    return check_run(run, "the code was evaluated", err);
}

static int train_epoch(struct run *run, struct epoch_report *report, struct ovr_err *err) {
    double started = now_seconds();
    *report = (struct epoch_report){
        .epoch = run->epoch, .learning_rate = run->schedule.learning_rate, .net = run->net};
    run->hooks->progress->epoch = run->epoch;
    shuffle(run);
    team_run(run->team, epoch_work, run);
    int rc = check_run(run, "the network was trained", err);
    if (rc)
        return rc;
    report->train = mean_terms(&run->sums);
    rc = evaluate(run, &run->watched, &report->watched, err);
    report->measures = run->measures;
    report->seconds = now_seconds() - started;
    return rc;
}

/* The best epoch so far is kept in the result, on the watched split. */
static void keep_best(struct run *run, const struct epoch_report *report) {
    struct train_result *result = run->result;
    memcpy(result->best, run->net->params, run->net->n_params * sizeof(real));
    result->best_epoch = report->epoch;
    result->terms = report->watched;
    result->measures = report->measures;
}

static int train_epochs(struct run *run, struct ovr_err *err) {
    const struct train_config *config = run->config;
    struct train_result *result = run->result;
    double best = INFINITY, best_for_patience = INFINITY;
    int waited = 0;
    enter_phase(run, PHASE_TRAINING, config->epochs);
    schedule_start(&run->schedule, config->optimizer.learning_rate);
    for (run->epoch = 1; run->epoch <= config->epochs; run->epoch++) {
        struct epoch_report report;
        int rc = train_epoch(run, &report, err);
        if (!rc)
            rc = run->hooks->epoch(run->hooks->context, &report, err);
        if (rc)
            return rc;
        double loss = report.watched.loss;
        double accuracy = (double)report.watched.correct / report.watched.samples;
        result->epochs = run->epoch;
        if (config->kind == MODEL_MLP) {
            result->accuracy_last = accuracy;
            result->accuracy = fmax(result->accuracy, accuracy);
        }
        if (loss < best) {
            best = loss;
            keep_best(run, &report);
        }
        schedule_step(&config->schedule, &run->schedule, loss);
        waited++;
        if (loss < best_for_patience - config->patience_delta) {
            best_for_patience = loss;
            waited = 0;
        }
        if (config->patience && waited >= config->patience)
            break;
    }
    memcpy(result->last, run->net->params, run->net->n_params * sizeof(real));
    memcpy(run->net->params, result->best, run->net->n_params * sizeof(real));
    return 0;
}

/* Clean protocol: the one look at the test split. */
static int report_test(struct run *run, struct ovr_err *err) {
    struct train_result *result = run->result;
    if (run->config->protocol != PROTOCOL_CLEAN)
        return 0;
    int rc = evaluate(run, &run->test, &result->terms, err);
    if (rc)
        return rc;
    result->measures = run->measures;
    if (run->config->kind == MODEL_MLP) {
        result->accuracy = (double)result->terms.correct / result->terms.samples;
        result->accuracy_last = NAN;
    }
    return 0;
}

static int encode(struct run *run, const struct split *split, struct code **code,
                  struct ovr_err *err) {
    int rc = code_new(code, split->n, run->net->config.n_units, split->labels, err);
    if (rc)
        return rc;
    run->code = *code;
    run->encoded = split;
    team_run(run->team, encode_work, run);
    return check_run(run, "the samples were encoded", err);
}

static void probe_epoch(void *context, int epoch) {
    ((const struct run *)context)->hooks->progress->epoch = epoch;
}

static int probe(struct run *run, struct ovr_err *err) {
    struct train_result *result = run->result;
    struct probe_config config = run->config->probe_config;
    struct code *train = NULL, *watched = NULL, *test = NULL;
    int clean = run->config->protocol == PROTOCOL_CLEAN;
    config.seed = run->config->seed;
    enter_phase(run, PHASE_PROBING, config.epochs);
    int rc = encode(run, &run->train, &train, err);
    if (!rc)
        rc = encode(run, &run->watched, &watched, err);
    if (!rc && clean)
        rc = encode(run, &run->test, &test, err);
    struct probe_progress progress = {run, probe_epoch, run->hooks->stop};
    if (!rc)
        rc = probe_run(run->team, run->kernels, &config, result->data_classes, train, watched, test,
                       &progress, &result->probe, err);
    if (!rc) {
        result->probed = 1;
        if (run->config->kind == MODEL_OVR_ENCODER) {
            result->accuracy = clean ? result->probe.accuracy_test : result->probe.accuracy_best;
            result->accuracy_last = clean ? NAN : result->probe.accuracy_last;
        }
    }
    code_free(train);
    code_free(watched);
    code_free(test);
    return rc;
}

int train_run(const struct train_config *config, const struct samples *train,
              const struct samples *test, struct team *team, const struct kernels *kernels,
              const struct train_hooks *hooks, struct train_result *result, struct ovr_err *err) {
    struct run run = {
        .config = config, .hooks = hooks, .kernels = kernels, .team = team, .result = result};
    *result = (struct train_result){.accuracy = NAN, .accuracy_last = NAN};
    size_t n_classes = train->n_classes > test->n_classes ? train->n_classes : test->n_classes;
    enter_phase(&run, PHASE_PREPARING, config->epochs);
    int rc = prepare(&run, train, test, err);
    if (!rc)
        rc = build(&run, n_classes, err);
    if (rc)
        goto out;
    hooks->progress->steps =
        (uint64_t)config->epochs * ((run.train.n + config->batch_size - 1) / config->batch_size);
    team_run(team, init_work, &run);
    rc = train_epochs(&run, err);
    if (!rc)
        rc = report_test(&run, err);
    if (!rc && config->probe)
        rc = probe(&run, err);
out:
    split_release(&run.train);
    split_release(&run.watched);
    split_release(&run.test);
    net_free(run.net);
    measure_free(run.measure);
    for (int i = 0; i < 2; i++) {
        free(run.batch_x[i]);
        free(run.batch_labels[i]);
    }
    free(run.order);
    free(run.rows);
    return rc;
}

void train_result_release(struct train_result *result) {
    free(result->best);
    free(result->last);
    free(result->probe.weights);
    preprocess_release(&result->preprocess);
    *result = (struct train_result){0};
}

struct train_estimate train_estimate(const struct train_config *config, size_t n_train,
                                     size_t n_test, size_t n_values, size_t n_classes,
                                     int members) {
    size_t d = n_values, k = config->hidden, batch = config->batch_size;
    double n = (double)n_train + (double)n_test, flops = 0;
    for (size_t i = 0; i < config->n_preprocess; i++) {
        const struct preprocess_step *step = &config->preprocess[i];
        if (step->kind != PREPROCESS_PCA)
            continue;
        size_t to = step->components ? step->components : d;
        /* half a symmetric product, the eigenvectors at a tenth of its speed, the projection */
        flops += (double)n_train * (double)d * (double)d + 60.0 * pow((double)d, 3) +
                 2 * n * (double)d * (double)to;
        d = to;
    }
    struct net_config shape = net_shape(config, d, n_classes);
    size_t moments = optimizer_moments(&config->optimizer), width = (shape.n_classes + 7) / 8 * 8;
    size_t params = k * (d + 1 + width) + width;
    size_t held_out = train_held_out(config, n_train);
    size_t watched = config->protocol == PROTOCOL_CLEAN ? held_out : n_test;
    double forward = 2.0 * (double)d * (double)k + 2.0 * (double)k * (double)shape.n_classes;
    struct train_estimate e = {
        .parameters = k * (d + 1) + (k + 1) * shape.n_classes,
        .flops_per_epoch = forward * (2.0 * (double)(n_train - held_out) + (double)watched),
    };
    size_t rows = (n_train + n_test) * (d * sizeof(real) + sizeof(uint16_t));
    size_t training = net_memory(&shape, moments, most_rows(batch), members) +
                      measure_memory(k, members) + 2 * params * sizeof(real) +
                      2 * batch * d * sizeof(real);
    size_t probing = 0;
    if (config->probe) { /* half of the activations taken as active */
        probing = (n_train + n_test) *
                      (k / 2 * (sizeof(real) + 1) + (net_n_shards(k) + 1) * sizeof(uint32_t)) +
                  probe_memory(k, n_classes, config->probe_config.batch_size, members);
        flops += config->probe_config.epochs * n * (double)k * (double)n_classes * 2.0;
    }
    size_t preparing =
        preprocess_memory(n_values, config->preprocess, config->n_preprocess, members);
    e.memory_bytes = rows + (preparing > training + probing ? preparing : training + probing);
    e.flops_total = flops + e.flops_per_epoch * config->epochs;
    return e;
}
