#include "server/job.h"

#include "server/checkpoint.h"
#include "server/digest.h"
#include "server/log.h"
#include "server/metrics.h"
#include "server/replay.h"
#include "server/report.h"
#include "server/weights.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

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
    struct epoch_facts facts;
    char digest[DIGEST_SIZE];
    int rc = weights_digest(NULL, report->net, report->net->params, digest, err);
    count_epoch(running);
    if (rc)
        return rc;
    report_epoch(&running->job->spec.train, report, digest, &facts);
    return store_add_epoch(running->workplace->store, running->job->experiment.seq, report->epoch,
                           facts.figures.list, facts.figures.n, facts.histograms,
                           facts.n_histograms, err);
}

/* What became of a replay; the original stays as long as it needs. */
static int judge(const struct running *running, struct run_facts *facts, struct verdict *verdict,
                 struct ovr_err *err) {
    const struct fresh_result fresh = {.experiment = &running->job->experiment,
                                       .facts = facts->provenance.list,
                                       .n_facts = facts->provenance.n};
    struct figures *figures = &facts->result;
    struct store *store = running->workplace->store;
    size_t n = 0;
    int rc = fresh.experiment->replays ? store_write_epochs(store, err) : 0;
    if (!rc)
        rc = replay_judge(store, &fresh, verdict, figures->list + figures->n, &n, err);
    figures->n += n;
    return rc;
}

static int save_result(const struct running *running, const struct train_result *result,
                       struct ovr_err *err) {
    const struct workplace *workplace = running->workplace;
    const struct job *job = running->job;
    struct saved saved;
    struct run_facts facts;
    struct verdict verdict;
    struct circumstances circumstances = {.spec_text = job->experiment.spec,
                                          .spec = &job->spec,
                                          .isa = workplace->kernels->isa,
                                          .threads = job->threads,
                                          .ranks = 1};
    int rc = weights_save(workplace->data_dir, job->experiment.id, job->spec.train.kind, result,
                          &saved, err);
    if (rc)
        return rc;
    circumstances.computed_ms = computed_ms(job);
    report_result(&circumstances, result, &saved, &facts);
    rc = judge(running, &facts, &verdict, err);
    if (rc)
        return rc;
    const struct outcome outcome = report_success(&facts, &saved);
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

static int restore_checkpoint(void *context, const struct train_piece *pieces, size_t n, int back,
                              int *from, struct ovr_err *err) {
    const struct running *running = context;
    const struct experiment *experiment = &running->job->experiment;
    (void)err;
    if (experiment->attempts > 1)
        *from = checkpoint_read(running->workplace->data_dir, experiment->id, running->key, back,
                                pieces, n);
    return 0;
}

/* Epochs that come after the checkpoint will be reported once more. */
static int forget_epochs(void *context, int epoch, struct ovr_err *err) {
    const struct running *running = context;
    const struct experiment *experiment = &running->job->experiment;
    if (epoch)
        note(running, LOG_INFO, "goes on in epoch %d", epoch);
    return experiment->attempts > 1 ? store_forget_epochs(running->workplace->store,
                                                          experiment->seq, epoch ? epoch : 1, err)
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
                                .restore = restore_checkpoint,
                                .restored = forget_epochs};
    checkpoint_key(job->experiment.spec, workplace->kernels->isa, 0, 1, running->key);
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
    const struct outcome outcome = report_failure(why);
    log_line(LOG_WARN, "experiment=%s failed: %s", running->job->experiment.id, why->text);
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
        report_time_limit(&job->spec, why);
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
    struct train_estimate estimate = train_estimate(&spec->train, &data, &(struct crew){1, 1});
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
