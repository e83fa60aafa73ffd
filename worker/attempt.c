#include "worker/attempt.h"

#include "core/cpu.h"
#include "server/checkpoint.h"
#include "server/clock.h"
#include "server/log.h"
#include "server/weights.h"
#include "worker/fetch.h"
#include "worker/mpi.h"
#include "worker/order.h"
#include "worker/reporter.h"
#include "worker/result.h"
#include "worker/run.h"
#include "worker/together.h"
#include "worker/work.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    START_PATIENCE_MS = 20000,     /* a daemon that starts again while the job does */
    CHECKPOINT_PATIENCE_MS = 5000, /* training waits so long for one on the way */
};

struct attempt {
    struct ranks *ranks;
    struct order order;
    struct work work;
    char *text;                /* of the work, as it came */
    struct client *client;     /* each rank's, for data, checkpoints and the result */
    struct client *sender;     /* of the first rank, for reports */
    struct reporter *reporter; /* likewise; NULL at the others */
    struct run run;
    _Atomic int stop, save_due;         /* of the first rank */
    char key[DIGEST_SIZE];              /* of this rank's checkpoints */
    int64_t started_ms;                 /* monotonic */
    _Atomic int64_t saved_ms, limit_ms; /* likewise; limit 0: none. The reporter's tick() looks */
    int64_t checkpoint;                 /* the newest that there is */
    struct fetched train, test;
};

/* Slurm's way to say that the node is needed. What the first rank hears counts for all. */
static _Atomic int *stopped_by_signal;

static void on_signal(int number) {
    int no = STOP_NO;
    (void)number;
    atomic_compare_exchange_strong(stopped_by_signal, &no, STOP_SHUTDOWN);
}

static int is_first(const struct attempt *a) {
    return a->ranks->rank == 0;
}

/* Over all attempts, as far as their work was kept. */
static int64_t computed_ms(const struct attempt *a) {
    return a->work.computed_ms + monotonic_ms() - a->started_ms;
}

static int64_t lease_from_now(const struct attempt *a) {
    return monotonic_ms() + (int64_t)a->work.lease_seconds * 1000;
}

static const _Atomic int *over(const struct attempt *a) {
    return a->reporter ? reporter_over(a->reporter) : NULL;
}

/* ---- What is to be done ---- */

static int ask_for_work(struct attempt *a, struct ovr_err *err) {
    const struct call call = {.path = "/v1/work",
                              .deadline_ms = monotonic_ms() + START_PATIENCE_MS};
    return client_call(a->client, &call, &a->text, err);
}

/* The first rank asks, so that all have the same answer. */
static int learn_work(struct attempt *a, struct ovr_err *err) {
    int rc = together_agree(a->ranks, is_first(a) ? ask_for_work(a, err) : 0, err);
    size_t n = !rc && is_first(a) ? strlen(a->text) + 1 : 0;
    if (rc)
        return rc;
    together_tell(a->ranks, &n, sizeof n);
    if (!is_first(a))
        a->text = malloc(n);
    rc = together_agree(a->ranks, a->text ? 0 : ovr_nomem(err, "the spec"), err);
    if (rc)
        return rc;
    together_tell(a->ranks, a->text, n);
    return work_read(&a->work, a->text, err);
}

static int reach(struct attempt *a, const char *order_path, struct ovr_err *err) {
    int rc = is_first(a) ? order_read(order_path, &a->order, err) : 0;
    rc = together_agree(a->ranks, rc, err);
    if (rc)
        return rc;
    together_tell(a->ranks, &a->order, sizeof a->order);
    rc = client_new(&a->client, a->order.url, a->order.token, a->order.ca, err);
    if (!rc && is_first(a))
        rc = client_new(&a->sender, a->order.url, a->order.token, a->order.ca, err);
    return together_agree(a->ranks, rc, err);
}

/* ---- Its time ---- */

static void tick(void *context) {
    struct attempt *a = context;
    int64_t now = monotonic_ms();
    int no = STOP_NO;
    if (a->limit_ms && now >= a->limit_ms)
        atomic_compare_exchange_strong(&a->stop, &no, STOP_TIME_LIMIT);
    double save_ms = a->work.checkpoint_seconds * 1000;
    if (save_ms > 0 && (double)(now - a->saved_ms) >= save_ms) {
        a->saved_ms = now;
        a->save_due = 1;
    }
}

/* From here on the daemon is told, also when it goes wrong. */
static int begin(struct attempt *a, struct ovr_err *err) {
    char node[65] = "";
    const char *job = getenv("SLURM_JOB_ID");
    struct sigaction action = {.sa_handler = is_first(a) ? on_signal : SIG_IGN};
    const struct work *work = &a->work;
    const struct reporter_config config = {
        .client = a->sender,
        .batch = work->batch,
        .lease_ms = work->lease_seconds * 1000,
        .leased_ms = monotonic_ms(),
        .progress = &a->run.progress,
        .threads = work->threads * work->ranks,
        .stop = &a->stop,
        .tick = tick,
        .context = a,
    };
    a->started_ms = a->saved_ms = monotonic_ms();
    a->checkpoint = work->checkpoint;
    stopped_by_signal = &a->stop;
    sigaction(SIGTERM, &action, NULL);
    if (gethostname(node, sizeof node - 1) || !*node)
        snprintf(node, sizeof node, "unknown");
    if (!is_first(a))
        return 0;
    return reporter_start(&a->reporter, &config, node, config.threads, job, err);
}

/* ---- Data ---- */

static int matches(const struct fetched *file, const struct work_split *split) {
    char found[DIGEST_SIZE];
    digest_of(file->bytes, file->n, found);
    return file->n == (size_t)split->bytes && strcmp(found, split->sha256) == 0;
}

/* From the shared directory where it has these very bytes, else from the daemon. */
static int get_split(struct attempt *a, const char *name, const struct work_split *split,
                     struct fetched *file, struct ovr_err *err) {
    enum { TRIES = 3 }; /* bytes may be damaged on their way */
    char path[1024];
    if (a->work.data_dir) {
        snprintf(path, sizeof path, "%s/datasets/%s", a->work.data_dir, split->sha256);
        if (!fetch_file(file, path, (uint64_t)split->bytes, NULL) && matches(file, split))
            return 0;
        fetched_release(file);
    }
    snprintf(path, sizeof path, "/v1/work/data/%s", name);
    for (int i = 0; i < TRIES; i++) {
        const struct call call = {.path = path,
                                  .most = (uint64_t)split->bytes,
                                  .deadline_ms = lease_from_now(a),
                                  .stop = is_first(a) ? &a->stop : NULL};
        int rc = fetch(file, a->client, &call, err);
        if (rc || matches(file, split))
            return rc;
        fetched_release(file);
    }
    return ovr_fail(err, OVR_IO, NULL,
                    "the %s split that came from the daemon has not the SHA-256 that it should "
                    "have, %d times over; look at the daemon's disk and at the network",
                    name, TRIES);
}

static int get_data(struct attempt *a, struct ovr_err *err) {
    if (a->run.spec.generated)
        return 0;
    if (!a->work.has_data)
        return ovr_fail(err, OVR_INVALID, "/dataset", "the daemon does not say which data");
    int rc = get_split(a, "train", &a->work.train, &a->train, err);
    return rc ? rc : get_split(a, "test", &a->work.test, &a->test, err);
}

static int check_ranks(const struct attempt *a, struct ovr_err *err) {
    return a->work.ranks == a->ranks->size
               ? 0
               : ovr_fail(err, OVR_INVALID, "/training/ranks",
                          "the experiment wants %d ranks, and %d were started%s", a->work.ranks,
                          a->ranks->size, mpi_is_there() ? "" : "; this ovr-worker has no MPI");
}

static int prepare(struct attempt *a, struct ovr_err *err) {
    int rc = run_read_spec(&a->run, a->work.spec, err);
    double limit = a->run.spec.time_limit_seconds;
    if (!rc && limit > 0)
        a->limit_ms = a->started_ms + (int64_t)(limit * 1000) - a->work.computed_ms;
    if (!rc)
        rc = check_ranks(a, err);
    if (!rc)
        rc = get_data(a, err);
    if (!rc)
        rc = run_prepare(&a->run, a->train.path, a->test.path, &a->stop, err);
    fetched_release(&a->train);
    fetched_release(&a->test);
    return rc;
}

/* ---- Checkpoints ---- */

static void checkpoint_path(const struct attempt *a, int64_t number, char path[80]) {
    snprintf(path, 80, "/v1/work/checkpoints/%lld/%d", (long long)number, a->ranks->rank);
}

/* A stream of bytes that libcurl takes as much of as it wants. */
struct feed {
    struct checkpoint_stream stream;
    const char *key;
    const struct train_piece *pieces;
    size_t n;
    const char *run; /* handed out by the stream, and not yet taken */
    size_t left;
};

static int rewind_feed(void *context) {
    struct feed *feed = context;
    checkpoint_stream_init(&feed->stream, feed->key, feed->pieces, feed->n);
    feed->left = 0;
    return 0;
}

static size_t read_feed(void *context, char *bytes, size_t n) {
    struct feed *feed = context;
    const void *run = NULL;
    if (!feed->left) {
        feed->left = checkpoint_next(&feed->stream, &run);
        feed->run = run;
    }
    size_t taken = min_size(n, feed->left);
    if (taken)
        memcpy(bytes, feed->run, taken);
    feed->run += taken;
    feed->left -= taken;
    return taken;
}

/* One on the way may fail: training goes on. The last one before it stops is worth the wait. */
static int send_checkpoint(struct attempt *a, int64_t number, int is_last,
                           const struct train_piece *pieces, size_t n, struct ovr_err *err) {
    char path[80];
    struct feed feed = {.key = a->key, .pieces = pieces, .n = n};
    const struct source source = {&feed, checkpoint_size(pieces, n), NULL, rewind_feed, read_feed};
    const struct call call = {
        .path = path,
        .source = &source,
        .deadline_ms = is_last ? lease_from_now(a) : monotonic_ms() + CHECKPOINT_PATIENCE_MS,
        .stop = over(a),
    };
    checkpoint_path(a, number, path);
    return client_call(a->client, &call, NULL, err);
}

/* The first rank says whether; then each sends its own part, and it counts when all are there. */
static int save(void *context, const struct train_piece *pieces, size_t n, struct ovr_err *err) {
    struct attempt *a = context;
    struct ovr_err why = {0};
    struct {
        int64_t number;
        int stop;
    } plan = {a->checkpoint + 1, a->stop};
    (void)err;
    together_tell(a->ranks, &plan, sizeof plan);
    if (plan.stop == STOP_CANCEL || plan.stop == STOP_TIME_LIMIT)
        return 0; /* nobody goes on from there */
    int rc = send_checkpoint(a, plan.number, plan.stop != STOP_NO, pieces, n, &why);
    rc = together_agree(a->ranks, rc, &why);
    if (!rc)
        a->checkpoint = plan.number;
    a->saved_ms = monotonic_ms();
    if (is_first(a) && !rc)
        reporter_checkpoint(a->reporter, plan.number, computed_ms(a));
    else if (is_first(a))
        reporter_log(a->reporter, 1, "no checkpoint: %s", why.text);
    return 0;
}

/* This rank's part. Returns 1 when it is there and whole. */
static int get_part(struct attempt *a, int64_t number, const struct train_piece *pieces, size_t n,
                    struct fetched *part, struct ovr_err *err) {
    char path[80];
    const struct call call = {.path = path,
                              .most = checkpoint_size(pieces, n),
                              .deadline_ms = lease_from_now(a),
                              .stop = over(a)};
    checkpoint_path(a, number, path);
    if (fetch(part, a->client, &call, err))
        return 0;
    const char *fault = checkpoint_fault(part->bytes, part->n, a->key, pieces, n);
    if (fault)
        ovr_fail(err, OVR_IO, NULL, "it %s", fault);
    return !fault;
}

/* The ranks agree whether it is to be taken, or they are asked for the one before. */
static int restore(void *context, const struct train_piece *pieces, size_t n, int back, int *from,
                   struct ovr_err *err) {
    struct attempt *a = context;
    int64_t number = back ? a->work.checkpoint_before : a->work.checkpoint;
    struct fetched part = {0};
    struct ovr_err why = {0};
    (void)err;
    int whole = number && get_part(a, number, pieces, n, &part, &why);
    int rc = together_agree(a->ranks, whole || !number ? 0 : OVR_IO, &why);
    *from = whole && !rc;
    if (*from)
        checkpoint_fill(part.bytes, pieces, n);
    if (rc && is_first(a))
        reporter_log(a->reporter, 1, "checkpoint %lld is of no use: %s", (long long)number,
                     why.text);
    fetched_release(&part);
    return 0;
}

/* Epochs that come after the checkpoint will be told once more. */
static int restored(void *context, int epoch, struct ovr_err *err) {
    const struct attempt *a = context;
    (void)err;
    if (!is_first(a) || a->work.attempt == 1)
        return 0;
    reporter_restart(a->reporter, epoch ? epoch : 1);
    if (epoch)
        reporter_log(a->reporter, 0, "goes on in epoch %d", epoch);
    return 0;
}

/* ---- Training ---- */

static int tell_epoch(void *context, const struct epoch_report *report, struct ovr_err *err) {
    struct attempt *a = context;
    struct epoch_facts facts;
    char digest[DIGEST_SIZE];
    int rc = weights_digest(a->run.team, report->net, report->net->params, digest, err);
    if (rc || !is_first(a))
        return rc;
    report_epoch(&a->run.spec.train, report, digest, &facts);
    return reporter_epoch(a->reporter, report->epoch, &facts, err);
}

static int train(struct attempt *a, struct ovr_err *err) {
    const struct train_hooks hooks = {.context = a,
                                      .stop = &a->stop,
                                      .progress = &a->run.progress,
                                      .epoch = tell_epoch,
                                      .save_due = &a->save_due,
                                      .save = save,
                                      .restore = restore,
                                      .restored = restored};
    const struct work *work = &a->work;
    int rc = run_init(&a->run, a->ranks, work->isa, work->threads, err);
    if (!rc)
        rc = prepare(a, err);
    rc = together_agree(a->ranks, rc, err);
    if (!rc)
        rc = run_join(&a->run, err);
    if (rc)
        return rc;
    checkpoint_key(work->spec, a->run.kernels->isa, a->ranks->rank, a->ranks->size, a->key);
    return run_train(&a->run, &hooks, err);
}

/* ---- The result ---- */

/* By all ranks. Files first: the last report says that they are there. */
static int send_result(struct attempt *a, struct ovr_err *err) {
    const struct train_result *result = &a->run.result;
    const struct call call = {.deadline_ms = lease_from_now(a), .stop = over(a)};
    struct saved saved;
    struct run_facts facts;
    struct circumstances circumstances = {.spec_text = a->work.spec,
                                          .spec = &a->run.spec,
                                          .isa = a->run.kernels->isa,
                                          .threads = a->work.threads * a->work.ranks,
                                          .ranks = a->work.ranks};
    int rc =
        result_send(a->run.team, a->client, &call, a->run.spec.train.kind, result, &saved, err);
    if (rc || !is_first(a))
        return rc;
    circumstances.computed_ms = computed_ms(a);
    report_result(&circumstances, result, &saved, &facts);
    const struct outcome outcome = report_success(&facts, &saved);
    rc = reporter_end(a->reporter, encode_outcome(&outcome), err);
    if (!rc)
        log_line(LOG_INFO, "succeeded after %.1f s", (double)computed_ms(a) / 1000);
    return rc;
}

/* ---- The end ---- */

static int end_failed(struct attempt *a, const struct ovr_err *why, struct ovr_err *err) {
    const struct outcome outcome = report_failure(why);
    log_line(LOG_WARN, "failed: %s", why->text);
    return reporter_end(a->reporter, encode_outcome(&outcome), err);
}

static int end_stopped(struct attempt *a, struct ovr_err *why, struct ovr_err *err) {
    switch (a->stop) {
    case STOP_PAUSE:
        log_line(LOG_INFO, "paused");
        return reporter_end(a->reporter, json_pack("{s:s}", "state", "paused"), err);
    case STOP_SHUTDOWN:
        log_line(LOG_INFO, "its node was given to others");
        return reporter_end(a->reporter,
                            json_pack("{s:s, s:s}", "state", "queued", "reason",
                                      "its node was given to others; it goes on from its last "
                                      "checkpoint"),
                            err);
    case STOP_TIME_LIMIT:
        report_time_limit(&a->run.spec, why);
        return end_failed(a, why, err);
    default: /* reports are not taken any more */
        return reporter_state(a->reporter, err);
    }
}

/* For what the reporter says. */
static int exit_status(int rc) {
    return rc == OVR_CONFLICT ? EXIT_OVER
           : rc == OVR_IO     ? EXIT_LEASE
           : rc               ? EXIT_TROUBLE
                              : EXIT_ENDED;
}

/* By the first rank: tells the daemon how it ended. Returns what to end the program with. */
static int conclude(struct attempt *a, int rc, struct ovr_err *why) {
    struct ovr_err err = {0};
    if (rc == OVR_STOPPED)
        rc = end_stopped(a, why, &err);
    else if (rc && !reporter_state(a->reporter, &err))
        rc = end_failed(a, why, &err);
    rc = reporter_state(a->reporter, &err);
    if (rc)
        log_line(LOG_WARN, "ends without a result: %s", err.text);
    return exit_status(rc);
}

static int run_attempt(struct attempt *a, const char *order_path, struct ovr_err *err) {
    int rc = reach(a, order_path, err);
    if (!rc)
        rc = learn_work(a, err);
    int leased = !rc;
    if (!rc)
        rc = together_agree(a->ranks, begin(a, err), err);
    if (rc) {
        if (is_first(a))
            log_line(LOG_ERROR, "cannot begin: %s", err->text);
        return leased || rc == OVR_CONFLICT ? exit_status(rc) : EXIT_TROUBLE;
    }
    log_line(LOG_INFO, "experiment=%s attempt %d, rank %d of %d, %d thread%s", a->work.experiment,
             a->work.attempt, a->ranks->rank, a->ranks->size, a->work.threads,
             a->work.threads == 1 ? "" : "s");
    rc = train(a, err);
    if (!rc)
        rc = send_result(a, err);
    int status = is_first(a) ? conclude(a, rc, err) : EXIT_ENDED;
    if (rc == OVR_NOMEM && a->ranks->size > 1) { /* others may have got it, and would wait */
        log_line(LOG_ERROR, "rank %d: %s", a->ranks->rank, err->text);
        mpi_abort(EXIT_TROUBLE);
    }
    return status;
}

int attempt_run(struct ranks *ranks, const char *order_path) {
    static struct attempt attempt; /* a signal may come to the very end */
    struct ovr_err err = {0};
    struct attempt *a = &attempt;
    a->ranks = ranks;
    int status = run_attempt(a, order_path, &err);
    reporter_free(a->reporter);
    run_release(&a->run);
    fetched_release(&a->train);
    fetched_release(&a->test);
    client_free(a->client);
    client_free(a->sender);
    work_release(&a->work);
    free(a->text);
    explicit_bzero(&a->order, sizeof a->order);
    return status;
}
