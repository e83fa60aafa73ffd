#include "server/job.h"

#include "core/linalg.h"
#include "server/checkpoint.h"
#include "server/digest.h"
#include "server/log.h"
#include "server/metrics.h"
#include "server/replay.h"
#include "server/weights.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_FIGURES = 192 };

/* Figures on their way to the store. Names and texts are literals or outlive the list. */
struct figures {
    struct figure list[MAX_FIGURES];
    size_t n;
};

static struct figure *add(struct figures *figures, const char *name) {
    struct figure *figure = &figures->list[figures->n++];
    *figure = (struct figure){.name = name};
    return figure;
}

static void add_real(struct figures *figures, const char *name, double value) {
    add(figures, name)->real = value;
}

static void add_count(struct figures *figures, const char *name, uint64_t value) {
    struct figure *figure = add(figures, name);
    figure->kind = FIGURE_COUNT;
    figure->count = (int64_t)value;
}

static void add_text(struct figures *figures, const char *name, const char *text) {
    struct figure *figure = add(figures, name);
    figure->kind = FIGURE_TEXT;
    figure->text = text;
}

/* Names of the terms of J under one heading. */
struct term_names {
    const char *loss, *accuracy, *term[N_TERMS];
};

#define TERMS(heading)                                                                             \
    {                                                                                              \
        [TERM_OVR] = heading ".ovr", [TERM_ACTIVITY] = heading ".activity",                        \
        [TERM_CROSS_ENTROPY] = heading ".cross_entropy",                                           \
        [TERM_RECONSTRUCTION] = heading ".reconstruction", [TERM_L1] = heading ".l1",              \
        [TERM_KL] = heading ".kl", [TERM_CONTRACTIVE] = heading ".contractive",                    \
        [TERM_L2] = heading ".l2", [TERM_DISTORTION] = heading ".distortion"                       \
    }
#define TERM_NAMES(split)                                                                          \
    { split ".loss", split ".accuracy", TERMS(split) }
static const struct term_names train_names = TERM_NAMES("train");
static const struct term_names validation_names = TERM_NAMES("validation");
static const struct term_names test_names = TERM_NAMES("test");
static const char *const gradient_names[N_TERMS] = TERMS("gradient");

static void add_terms(struct figures *figures, const struct term_names *names,
                      const struct terms *terms, const struct train_config *config) {
    unsigned reported = train_terms(config);
    if (reported)
        add_real(figures, names->loss, terms->loss);
    for (int t = 0; t < N_TERMS; t++)
        if (reported >> t & 1)
            add_real(figures, names->term[t], terms->value[t]);
    if (config->kind == MODEL_MLP)
        add_real(figures, names->accuracy, (double)terms->correct / terms->samples);
}

/* Each term's share of the gradient, by norms, and where OVR's points. */
static void add_gradients(struct figures *figures, const struct gradients *gradients) {
    double sum = 0;
    for (int t = 0; t < N_TERMS; t++)
        sum += gradients->norm[t];
    for (int t = 0; t < N_TERMS && sum > 0; t++)
        if (gradients->norm[t] != 0)
            add_real(figures, gradient_names[t], gradients->norm[t] / sum);
    if (!isnan(gradients->direction))
        add_real(figures, "direction.cosine", gradients->direction);
}

static void add_bias(struct figures *figures, const struct bias_measures *bias) {
    static const char *const names[BIAS_QUANTILES] = {"bias.min", "bias.quartile_1", "bias.median",
                                                      "bias.quartile_3", "bias.max"};
    if (!bias->n)
        return;
    add_real(figures, "bias.negative", bias->negative);
    for (int q = 0; q < BIAS_QUANTILES; q++)
        add_real(figures, names[q], bias->quantile[q]);
}

static void add_measures(struct figures *figures, const struct measures *m) {
    add_real(figures, "sparsity.near_zero", m->near_zero);
    add_real(figures, "sparsity.zero", m->zero);
    add_real(figures, "sparsity.mean_activation", m->mean_activation);
    add_real(figures, "sparsity.overlap", m->overlap);
    add_count(figures, "sparsity.dead_units", m->dead_units);
    add_count(figures, "sparsity.zero_codes", m->zero_codes);
    add_real(figures, "sparsity.over_samples.hoyer", m->over_samples.hoyer);
    add_real(figures, "sparsity.over_samples.treves_rolls", m->over_samples.treves_rolls);
    add_real(figures, "sparsity.over_samples.gini", m->over_samples.gini);
    add_real(figures, "sparsity.active_units.mean", m->active_units.mean);
    add_real(figures, "sparsity.active_units.sd", m->active_units.sd);
    add_count(figures, "sparsity.active_units.min", m->active_units.min);
    add_count(figures, "sparsity.active_units.max", m->active_units.max);
    add_bias(figures, &m->bias);
}

/* Of the layers below the code, the names of their figures. */
#define BELOW(l)                                                                                   \
    {                                                                                              \
        "layers." #l ".near_zero", "layers." #l ".zero", "layers." #l ".overlap",                  \
            "layers." #l ".dead_units", "layers." #l ".zero_codes",                                \
            "layers." #l ".over_samples.hoyer", "layers." #l ".over_samples.treves_rolls",         \
            "layers." #l ".over_samples.gini"                                                      \
    }
static const struct below_names {
    const char *near_zero, *zero, *overlap, *dead_units, *zero_codes, *hoyer, *treves_rolls, *gini;
} below_names[LAYERS_MAX - 1] = {BELOW(0), BELOW(1), BELOW(2), BELOW(3),
                                 BELOW(4), BELOW(5), BELOW(6)};

static void add_below(struct figures *figures, const struct measures *below, size_t n) {
    for (size_t l = 0; l < n; l++) {
        const struct below_names *names = &below_names[l];
        add_real(figures, names->near_zero, below[l].near_zero);
        add_real(figures, names->zero, below[l].zero);
        add_real(figures, names->overlap, below[l].overlap);
        add_count(figures, names->dead_units, below[l].dead_units);
        add_count(figures, names->zero_codes, below[l].zero_codes);
        add_real(figures, names->hoyer, below[l].over_samples.hoyer);
        add_real(figures, names->treves_rolls, below[l].over_samples.treves_rolls);
        add_real(figures, names->gini, below[l].over_samples.gini);
    }
}

/* The histograms of all layers; returns how many. */
static size_t list_histograms(struct epoch_histogram list[LAYERS_MAX], const struct net *net,
                              int epoch, const char *split, const struct measures *code,
                              const struct measures *below) {
    size_t n = net->config.n_layers;
    for (size_t l = 0; l < n; l++)
        list[l] = (struct epoch_histogram){
            epoch, split, l + 1 < n ? &below[l].histogram : &code->histogram, (int)l};
    return n;
}

/* What only the table of units has. */
static void add_unit_means(struct figures *figures, const struct units *units) {
    const struct unit_means *means = &units->means;
    add_real(figures, "sparsity.over_units.hoyer", means->over_units.hoyer);
    add_real(figures, "sparsity.over_units.treves_rolls", means->over_units.treves_rolls);
    add_real(figures, "sparsity.over_units.gini", means->over_units.gini);
    add_real(figures, "sparsity.classes_per_unit", means->classes);
    if (units->n_cells)
        add_real(figures, "sparsity.cells_per_unit", means->cells);
}

/* A job while it runs. */
struct running {
    const struct workplace *workplace;
    struct job *job;
    char key[DIGEST_SIZE];   /* of its checkpoints */
    uint64_t steps, samples; /* counted so far */
};

/* Over all attempts, as far as their work was kept. */
static int64_t computed_ms(const struct job *job) {
    return job->experiment.computed_ms + now_ms() - job->started_ms;
}

static void count_epoch(struct running *running) {
    const struct train_progress *p = &running->job->progress;
    uint64_t steps = p->step, samples = p->samples;
    metrics_add(COUNT_EPOCHS, 1);
    metrics_add(COUNT_STEPS, steps - running->steps);
    metrics_add(COUNT_SAMPLES, samples - running->samples);
    running->steps = steps;
    running->samples = samples;
}

/* For the operator and for who watches the experiment. */
static void note(const struct running *running, enum log_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void note(const struct running *running, enum log_level level, const char *format, ...) {
    const struct experiment *experiment = &running->job->experiment;
    char text[400];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    log_line(level, "experiment=%s %s", experiment->id, text);
    store_log(running->workplace->store, experiment->seq, "%s%s",
              level >= LOG_WARN ? "warning: " : "", text);
}

static int save_epoch(void *context, const struct epoch_report *report, struct ovr_err *err) {
    struct running *running = context;
    const struct train_config *config = &running->job->spec.train;
    int clean = config->data.protocol == PROTOCOL_CLEAN;
    count_epoch(running);
    char digest[DIGEST_SIZE];
    struct figures figures = {.n = 0};
    digest_of(report->net->params, report->net->n_params * sizeof(real), digest);
    add_terms(&figures, &train_names, &report->train, config);
    add_terms(&figures, clean ? &validation_names : &test_names, &report->watched, config);
    add_measures(&figures, &report->measures);
    add_gradients(&figures, &report->gradients);
    if (report->learning_rate > 0) /* k-means has none */
        add_real(&figures, "learning_rate", report->learning_rate);
    add_real(&figures, "seconds", report->seconds);
    add_text(&figures, "digest", digest);
    add_below(&figures, report->below, report->net->config.n_layers - 1);
    struct epoch_histogram histograms[LAYERS_MAX];
    size_t n = list_histograms(histograms, report->net, report->epoch,
                               clean ? "validation" : "test", &report->measures, report->below);
    return store_add_epoch(running->workplace->store, running->job->experiment.seq, report->epoch,
                           figures.list, figures.n, histograms, n, err);
}

static void add_result(struct figures *figures, const struct running *running,
                       const struct train_result *r) {
    const struct train_config *config = &running->job->spec.train;
    double pairs = (double)config->batch_size * (double)(config->batch_size - 1);
    if (!isnan(r->accuracy))
        add_real(figures, "accuracy", r->accuracy);
    if (!isnan(r->accuracy_last))
        add_real(figures, "accuracy_last", r->accuracy_last);
    add_text(figures, "protocol", config->data.protocol == PROTOCOL_CLEAN ? "clean" : "published");
    add_measures(figures, &r->measures);
    add_unit_means(figures, &r->units[r->net.config.n_layers - 1]);
    add_below(figures, r->below, r->net.config.n_layers - 1);
    add_count(figures, "best_epoch", (uint64_t)r->best_epoch);
    add_count(figures, "epochs", (uint64_t)r->epochs);
    add_terms(figures, &test_names, &r->terms, config);
    if (r->probed) {
        add_count(figures, "probe.best_epoch", (uint64_t)r->probe.epoch_best);
        add_real(figures, "probe.loss", r->probe.loss_best);
        add_real(figures, "probe.accuracy",
                 config->data.protocol == PROTOCOL_CLEAN ? r->probe.accuracy_test
                                                         : r->probe.accuracy_best);
    }
    if (train_terms(config) >> TERM_OVR & 1)
        add_real(figures, "lambda_per_pair",
                 config->ovr.per_pair ? config->ovr.lambda : config->ovr.lambda * pairs);
    add_real(figures, "seconds", (double)computed_ms(running->job) / 1000);
}

/* Texts that provenance points to. */
struct provenance {
    char spec[DIGEST_SIZE], best[DIGEST_SIZE], last[DIGEST_SIZE], cpu[128];
};

static void add_provenance(struct figures *figures, struct provenance *texts,
                           const struct running *running, const struct train_result *r) {
    const struct job *job = running->job;
    size_t n_params = r->net.n_params;
    digest_of(job->experiment.spec, strlen(job->experiment.spec), texts->spec);
    digest_of(r->best, n_params * sizeof(real), texts->best);
    digest_of(r->last, n_params * sizeof(real), texts->last);
    cpu_model(texts->cpu, sizeof texts->cpu);
    add_text(figures, "spec_sha256", texts->spec);
    if (!job->spec.generated) {
        add_text(figures, "data.train_sha256", job->spec.train_sha256);
        add_text(figures, "data.test_sha256", job->spec.test_sha256);
    }
    add_count(figures, "seed", job->spec.train.seed);
    add_text(figures, "program", "ovrd " OVRD_VERSION);
    add_text(figures, "blas.library", linalg_library());
    add_text(figures, "blas.kernel", linalg_kernel());
    add_text(figures, "isa", isa_name(running->workplace->kernels->isa));
    add_text(figures, "cpu", texts->cpu);
    add_count(figures, "threads", (uint64_t)job->threads);
    add_text(figures, "weights.best_sha256", texts->best);
    add_text(figures, "weights.last_sha256", texts->last);
}

/* What became of a replay; the original stays as long as it needs. */
static int judge(const struct running *running, const struct figures *facts,
                 struct verdict *verdict, struct figures *figures, struct ovr_err *err) {
    const struct experiment *e = &running->job->experiment;
    struct store *store = running->workplace->store;
    if (!e->replays)
        return 0;
    int rc = store_write_epochs(store, err);
    if (!rc)
        rc = replay_compare(store, e->seq, e->rerun_of, facts->list, facts->n, verdict, err);
    if (rc)
        return rc;
    add_text(figures, "replay", verdict->text);
    if (*verdict->differences)
        add_text(figures, "replay_differences", verdict->differences);
    return 0;
}

static int save_result(const struct running *running, const struct train_result *result,
                       struct ovr_err *err) {
    const struct workplace *workplace = running->workplace;
    const struct job *job = running->job;
    struct tensor tensors[MAX_TENSORS];
    struct figures figures = {.n = 0}, facts = {.n = 0};
    struct provenance texts;
    struct epoch_histogram histograms[LAYERS_MAX];
    struct unit_table unit_tables[LAYERS_MAX];
    size_t n_layers = result->net.config.n_layers;
    list_histograms(histograms, &result->net, 0, "test", &result->measures, result->below);
    for (size_t l = 0; l < n_layers; l++) {
        const struct units *units = &result->units[l];
        unit_tables[l] =
            (struct unit_table){(int)l, "test", units->n_units, units->n_classes, units->n_cells};
    }
    struct outcome outcome = {
        .state = STATE_SUCCEEDED,
        .tensors = tensors,
        .histograms = histograms,
        .n_histograms = n_layers,
        .unit_tables = unit_tables,
        .n_unit_tables = n_layers,
    };
    int rc = weights_save(workplace->data_dir, job->experiment.id, job->spec.train.kind, result,
                          tensors, &outcome.n_tensors, err);
    if (rc)
        return rc;
    add_result(&figures, running, result);
    add_provenance(&facts, &texts, running, result);
    struct verdict verdict;
    rc = judge(running, &facts, &verdict, &figures, err);
    if (rc)
        return rc;
    outcome.result = figures.list;
    outcome.n_result = figures.n;
    outcome.provenance = facts.list;
    outcome.n_provenance = facts.n;
    rc = store_finish(workplace->store, job->experiment.seq, &outcome, err);
    if (rc == OVR_CONFLICT) /* cancelled while the weights were written */
        weights_remove(workplace->data_dir, job->experiment.id);
    return rc;
}

/* Epochs first: what a checkpoint counts as reported has to be in the store. A disk that has no
 * room costs time when the run is interrupted, and nothing else. */
static int save_checkpoint(void *context, const struct train_piece *pieces, size_t n,
                           struct ovr_err *err) {
    const struct running *running = context;
    const struct workplace *workplace = running->workplace;
    const struct experiment *experiment = &running->job->experiment;
    struct ovr_err why = {0};
    (void)err;
    if (running->job->stop == STOP_CANCEL || running->job->stop == STOP_TIME_LIMIT)
        return 0; /* nobody goes on from there */
    int rc = store_write_epochs(workplace->store, &why);
    if (!rc)
        rc = checkpoint_write(workplace->data_dir, experiment->id, running->key, pieces, n, &why);
    if (!rc)
        rc = store_note_checkpoint(workplace->store, experiment->seq, computed_ms(running->job),
                                   &why);
    if (rc)
        note(running, LOG_WARN, "no checkpoint: %s", why.text);
    else
        note(running, LOG_DEBUG, "checkpoint");
    return 0;
}

/* Epochs that come after the checkpoint will be reported once more. */
static int restore_checkpoint(void *context, const struct train_piece *pieces, size_t n, int *from,
                              struct ovr_err *err) {
    const struct running *running = context;
    const struct workplace *workplace = running->workplace;
    const struct experiment *experiment = &running->job->experiment;
    int first = 1;
    if (experiment->attempts > 1)
        *from = checkpoint_read(workplace->data_dir, experiment->id, running->key, pieces, n);
    if (*from) {
        first = train_restored_epoch(&pieces[0]);
        note(running, LOG_INFO, "goes on in epoch %d", first);
    }
    return experiment->attempts > 1
               ? store_forget_epochs(workplace->store, experiment->seq, first, err)
               : 0;
}

/* The weights that the spec wants to start from. */
static int load_initial(const struct workplace *workplace, const struct spec *spec,
                        struct weights *weights, struct ovr_err *err) {
    const char *epoch = spec->init_last ? "last" : "best";
    struct experiment from = {0};
    struct tensor *tensors = NULL;
    size_t n = 0;
    struct ovr_err why = {0};
    int rc = store_get_experiment(workplace->store, spec->init_experiment, &from, &why);
    if (rc)
        return ovr_fail(err, rc, rc == OVR_NOT_FOUND ? "/model/init/experiment" : why.field, "%s",
                        why.text);
    rc = store_read_tensors(workplace->store, from.seq, epoch, &tensors, &n, err);
    if (!rc)
        rc = weights_load(workplace->data_dir, from.id, tensors, n, epoch, weights, err);
    free(tensors);
    experiment_release(&from);
    return rc;
}

/* The team's size is settled only here, so that a job that was refused memory for threads fails as
 * itself. */
static int train(struct running *running, struct ovr_err *err) {
    struct job *job = running->job;
    const struct workplace *workplace = running->workplace;
    struct team *team = NULL;
    struct weights weights = {0};
    struct train_hooks hooks = {.context = running,
                                .stop = &job->stop,
                                .progress = &job->progress,
                                .members = &job->members,
                                .epoch = save_epoch,
                                .save_due = &job->save_due,
                                .save = save_checkpoint,
                                .restore = restore_checkpoint};
    checkpoint_key(job->experiment.spec, workplace->kernels->isa, running->key);
    job->progress.epochs = job->spec.train.epochs;
    int rc = team_new_within(&team, job->threads, job->most_threads, err);
    if (!rc)
        rc = cache_get(workplace->cache, &job->spec, team, &job->stop, &job->data, err);
    if (!rc && *job->spec.init_experiment) {
        rc = load_initial(workplace, &job->spec, &weights, err);
        job->spec.train.initial = &weights.initial;
    }
    if (!rc)
        rc = train_run(&job->spec.train, job->data, team, workplace->kernels, &hooks, &job->result,
                       err);
    job->spec.train.initial = NULL;
    weights_release(&weights);
    team_free(team);
    return rc;
}

/* The slug of a failed job's problem; api/problem.c has a title for each. */
static const char *problem_kind(int code) {
    switch (code) {
    case OVR_DIVERGED:
        return "diverged";
    case OVR_NOMEM:
        return "out-of-memory";
    case OVR_INVALID:
        return "invalid-spec";
    case OVR_NOT_FOUND: /* it was there when the experiment was posted */
        return "source-gone";
    case OVR_IO:
    case OVR_FULL:
        return "storage";
    case OVR_STOPPED:
        return "time-limit";
    default:
        return "internal";
    }
}

/* The end of a job has to reach the store: `outcome`, or where that is NULL back to the queue
 * for `reason`, or paused where there is none. While the disk refuses it is tried again every
 * second; at shutdown that ends, since the next start finds the job running and puts it back
 * itself. */
static int settle(const struct running *running, const struct outcome *outcome,
                  const char *reason) {
    const struct timespec pause = {.tv_sec = 1};
    const struct job *job = running->job;
    struct store *store = running->workplace->store;
    for (int tries = 0;; tries++) {
        struct ovr_err err = {0};
        int rc = outcome  ? store_finish(store, job->experiment.seq, outcome, &err)
                 : reason ? store_requeue(store, job->experiment.seq, reason, &err)
                          : store_park(store, job->experiment.seq, &err);
        if (rc == 0 || rc == OVR_CONFLICT)
            return rc;
        if (tries == 0)
            log_line(LOG_ERROR, "experiment=%s its end can't be stored yet: %s", job->experiment.id,
                     err.text);
        if (rc == OVR_FULL)
            disk_note_full(running->workplace->disk);
        if (job->stop == STOP_SHUTDOWN)
            return rc;
        nanosleep(&pause, NULL);
    }
}

static void forget_checkpoint(const struct running *running) {
    checkpoint_remove(running->workplace->data_dir, running->job->experiment.id);
}

static void fail(const struct running *running, const struct ovr_err *why) {
    const struct job *job = running->job;
    int of_spec =
        why->field[0] == '/' && why->code != OVR_IO && why->code != OVR_FULL; /* no path */
    struct outcome outcome = {
        .state = STATE_FAILED,
        .problem_kind = problem_kind(why->code),
        .problem_pointer = of_spec ? why->field : NULL,
        .problem_detail = why->text,
    };
    log_line(LOG_WARN, "experiment=%s failed: %s", job->experiment.id, why->text);
    settle(running, &outcome, NULL);
    forget_checkpoint(running);
}

/* For a reason, or else paused. */
static void put_back(const struct running *running, const char *reason) {
    const char *id = running->job->experiment.id;
    int rc = settle(running, NULL, reason);
    if (rc == OVR_CONFLICT) {
        forget_checkpoint(running);
        log_line(LOG_INFO, "experiment=%s cancelled", id);
    } else if (rc == 0)
        log_line(LOG_INFO, "experiment=%s %s%s", id, reason ? "back in the queue: " : "paused",
                 reason ? reason : "");
}

/* Nothing starts before there is room again. */
static void requeue_for_lack_of_disk(const struct running *running) {
    disk_note_full(running->workplace->disk);
    put_back(running, "the disk was full; it goes on from its last checkpoint when there is room");
}

static void end_stopped(const struct running *running, struct ovr_err *why) {
    const struct job *job = running->job;
    switch (job->stop) {
    case STOP_SHUTDOWN:
        put_back(running, "the daemon was shut down while it ran; it goes on where it was");
        break;
    case STOP_PAUSE:
        put_back(running, NULL);
        break;
    case STOP_TIME_LIMIT:
        snprintf(why->field, sizeof why->field, "/training/time_limit_seconds");
        snprintf(why->text, sizeof why->text,
                 "the time limit of %g s is over; raise /training/time_limit_seconds or train for "
                 "fewer epochs",
                 job->spec.time_limit_seconds);
        fail(running, why);
        break;
    default: /* the store has it as cancelled already */
        forget_checkpoint(running);
        log_line(LOG_INFO, "experiment=%s cancelled", job->experiment.id);
    }
}

double job_flops_per_step(const struct workplace *workplace, const struct spec *spec) {
    /* Passes over the activations take as long as so many operations of the products (1.5 ns). */
    static const double FLOPS_PER_ACTIVATION = 128;
    struct dataset_split train = {.samples = (int64_t)spec->sphere.samples,
                                  .width = 3,
                                  .classes = (int64_t)spec->sphere.classes};
    if (!spec->generated &&
        store_get_split(workplace->store, spec->dataset, "train", spec->train_sha256, &train, NULL))
        return 0;
    size_t n = (size_t)train.samples;
    if (spec->train_limit && (size_t)spec->train_limit < n)
        n = (size_t)spec->train_limit;
    const struct train_data data = {
        .n_train = n, .n_values = (size_t)train.width, .n_classes = (size_t)train.classes};
    struct train_estimate estimate = train_estimate(&spec->train, &data, 1);
    double products = estimate.flops_per_epoch / (double)n;
    double passes = 0;
    for (size_t l = 0; l < spec->train.n_hidden; l++)
        passes += FLOPS_PER_ACTIVATION * (double)spec->train.hidden[l];
    return (products + passes) * (double)min_size(spec->train.batch_size, n);
}

void job_train(const struct workplace *workplace, struct job *job) {
    struct running running = {.workplace = workplace, .job = job};
    job->started_ms = now_ms();
    if (job->experiment.attempts == 1)
        metrics_time(TIME_WAIT, (double)(job->started_ms - job->experiment.created_at) / 1000);
    note(&running, LOG_INFO, "started, %d thread%s, attempt %d", job->threads,
         job->threads == 1 ? "" : "s", job->experiment.attempts);
    job->rc = train(&running, &job->err);
}

void job_end(const struct workplace *workplace, struct job *job) {
    struct running running = {.workplace = workplace, .job = job};
    struct ovr_err *err = &job->err;
    int rc = job->rc;
    if (!rc)
        rc = save_result(&running, &job->result, err);
    cache_put(workplace->cache, job->data); /* whose steps the result has named */
    job->data = NULL;
    if (!rc || rc == OVR_CONFLICT)
        forget_checkpoint(&running);
    if (!rc)
        log_line(LOG_INFO, "experiment=%s succeeded after %.1f s", job->experiment.id,
                 (double)(now_ms() - job->started_ms) / 1000);
    else if (job->stop && (rc == OVR_STOPPED || rc == OVR_CONFLICT))
        end_stopped(&running, err);
    else if (rc == OVR_CONFLICT)
        log_line(LOG_INFO, "experiment=%s cancelled", job->experiment.id);
    else if (rc == OVR_FULL)
        requeue_for_lack_of_disk(&running);
    else
        fail(&running, err);
    metrics_time(TIME_JOB, (double)(now_ms() - job->started_ms) / 1000);
    train_result_release(&job->result);
}
