/* What workers away from the daemon tell of their attempts, and what becomes of those. */
#include "server/attempts.h"

#include "core/utf8.h"
#include "server/log.h"
#include "server/store/db.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Rows ---- */

static void read_attempt(sqlite3_stmt *row, struct attempt *a) {
    *a = (struct attempt){.experiment = sqlite3_column_int64(row, 0),
                          .number = sqlite3_column_int(row, 2),
                          .submitted_at = sqlite3_column_int64(row, 6),
                          .begun_at = sqlite3_column_int64(row, 7),
                          .batch = sqlite3_column_int64(row, 8),
                          .checkpoint = sqlite3_column_int64(row, 9),
                          .checkpoint_before = sqlite3_column_int64(row, 10),
                          .computed_ms = sqlite3_column_int64(row, 11),
                          .ranks = sqlite3_column_int(row, 12),
                          .pausing = sqlite3_column_int(row, 13),
                          .live = sqlite3_column_int(row, 14)};
    copy_column(row, 1, a->id, sizeof a->id);
    copy_column(row, 3, a->job_name, sizeof a->job_name);
    copy_column(row, 4, a->job, sizeof a->job);
    copy_column(row, 5, a->node, sizeof a->node);
}

/* The one row of a bound statement. OVR_NOT_FOUND, without a text: there is none. */
static int read_one(struct connection *c, sqlite3_stmt *row, struct attempt *a,
                    struct ovr_err *err) {
    int step = sqlite3_step(row);
    if (step == SQLITE_ROW)
        read_attempt(row, a);
    sqlite3_reset(row);
    return step == SQLITE_ROW ? 0 : step == SQLITE_DONE ? OVR_NOT_FOUND : db_fail(c, err);
}

static int is_over(struct attempt *attempt, struct ovr_err *err) {
    attempt->live = 0;
    return ovr_fail(err, OVR_CONFLICT, NULL,
                    "attempt %d of experiment %s is over: it was cancelled, paused or deleted, or "
                    "another worker has it now",
                    attempt->number, attempt->id);
}

/* What the attempt is now, in the transaction at hand. OVR_CONFLICT: it is over, or gone with its
 * experiment. */
static int look_again(struct connection *c, struct attempt *attempt, struct ovr_err *err) {
    sqlite3_stmt *row =
        db_bind(c, GET_ATTEMPT, "ii", attempt->experiment, (int64_t)attempt->number);
    int rc = read_one(c, row, attempt, err);
    return rc == OVR_NOT_FOUND || (!rc && !attempt->live) ? is_over(attempt, err) : rc;
}

/* ---- Sending ---- */

/* And what the store keeps of it. */
static int make_token(char token[WORK_TOKEN_SIZE], char sha256[DIGEST_SIZE], struct ovr_err *err) {
    _Static_assert((int)WORK_TOKEN_SIZE == (int)TOKEN_SIZE, "a token of either kind");
    int rc = make_secret(WORK_TOKEN_PREFIX, token, err);
    if (!rc)
        digest_of(token, strlen(token), sha256);
    return rc;
}

static int add_attempt(struct connection *c, const struct experiment *e, struct attempt *attempt,
                       const char *sha256, struct ovr_err *err) {
    *attempt = (struct attempt){.experiment = e->seq, .number = e->attempts};
    snprintf(attempt->job_name, sizeof attempt->job_name, JOB_PREFIX "%s-%d", e->id, e->attempts);
    int rc = db_run(c,
                    db_bind(c, ADD_ATTEMPT, "iissi", e->seq, (int64_t)e->attempts, sha256,
                            attempt->job_name, now_ms()),
                    err);
    return rc ? rc : look_again(c, attempt, err);
}

static int begin_attempt(struct store *store, int64_t seq, struct attempt *attempt,
                         const char *sha256, struct experiment *e, struct ovr_err *err) {
    struct connection *c = &store->writer;
    int rc = db_begin(store, err);
    if (rc)
        return rc;
    rc = take_returned(c, db_bind(c, SEND, "i", seq), e, err);
    if (!rc)
        rc = add_attempt(c, e, attempt, sha256, err);
    rc = db_end(store, rc, err);
    if (rc)
        experiment_release(e);
    return rc;
}

int store_begin_attempt(struct store *store, struct attempt *attempt, char token[WORK_TOKEN_SIZE],
                        struct experiment *e, struct ovr_err *err) {
    char sha256[DIGEST_SIZE];
    int64_t seq, owner;
    *e = (struct experiment){0};
    int chosen, rc = make_token(token, sha256, err);
    if (rc)
        return rc;
    do { /* again when it was cancelled in between */
        struct connection *c = db_take_reader(store);
        rc = chosen = choose_next(store, c, EXECUTOR_SLURM, INT64_MAX, &seq, &owner, err);
        db_give_back(c);
        if (!rc)
            rc = begin_attempt(store, seq, attempt, sha256, e, err);
    } while (!chosen && rc == OVR_NOT_FOUND);
    return rc;
}

/* Runs a bound change of a live attempt, in a transaction of its own. */
static int change(struct store *store, const struct attempt *attempt, enum sql which,
                  const char *text, struct ovr_err *err) {
    struct connection *c = &store->writer;
    struct attempt now = *attempt;
    int rc = db_begin(store, err);
    if (rc)
        return rc;
    rc = db_run(c, db_bind(c, which, "iis", attempt->experiment, (int64_t)attempt->number, text),
                err);
    if (!rc && !sqlite3_changes(c->db))
        rc = is_over(&now, err);
    return db_end(store, rc, err);
}

int store_renew_attempt(struct store *store, const struct attempt *attempt,
                        char token[WORK_TOKEN_SIZE], struct ovr_err *err) {
    char sha256[DIGEST_SIZE];
    int rc = make_token(token, sha256, err);
    return rc ? rc : change(store, attempt, RENEW_ATTEMPT, sha256, err);
}

int store_note_job(struct store *store, const struct attempt *attempt, const char *job,
                   struct ovr_err *err) {
    return change(store, attempt, NOTE_JOB, job, err);
}

int store_note_reason(struct store *store, const struct attempt *attempt, const char *reason,
                      struct ovr_err *err) {
    return change(store, attempt, NOTE_REASON, reason, err);
}

/* ---- Looking ---- */

static int read_listed(const void *context, sqlite3_stmt *row, void *item, struct ovr_err *err) {
    (void)context;
    (void)err;
    read_attempt(row, item);
    return 0;
}

static const struct row_reader attempt_rows = {"the attempts on the cluster",
                                               sizeof(struct attempt), read_listed, NULL};

int store_list_attempts(struct store *store, struct attempt **list, size_t *n,
                        struct ovr_err *err) {
    struct connection *c = db_take_reader(store);
    struct rows rows;
    int rc = db_read_list(c, db_bind(c, LIST_ATTEMPTS, ""), &attempt_rows, NULL, &rows, err);
    db_give_back(c);
    *list = rows.items;
    *n = rows.n;
    return rc;
}

int store_find_attempt(struct store *store, const char *token, struct attempt *attempt,
                       struct experiment *e, struct ovr_err *err) {
    char sha256[DIGEST_SIZE];
    digest_of(token, strlen(token), sha256);
    struct connection *c = db_take_reader(store);
    int rc = read_one(c, db_bind(c, FIND_ATTEMPT, "s", sha256), attempt, err);
    db_give_back(c);
    if (rc == OVR_NOT_FOUND)
        return ovr_fail(err, rc, NULL, "the token is no worker's");
    return rc || !e ? rc : store_get_numbered(store, attempt->experiment, e, err);
}

int store_get_attempt(struct store *store, int64_t experiment, struct attempt *attempt,
                      char *reason, size_t reason_size, struct ovr_err *err) {
    struct connection *c = db_take_reader(store);
    sqlite3_stmt *row = db_bind(c, REASON_OF_ATTEMPT, "i", experiment);
    int step = sqlite3_step(row), number = 0;
    if (step == SQLITE_ROW) {
        number = sqlite3_column_int(row, 0);
        if (reason)
            copy_column(row, 1, reason, reason_size);
    }
    sqlite3_reset(row);
    int rc = step == SQLITE_ROW || step == SQLITE_DONE ? 0 : db_fail(c, err);
    if (!rc)
        rc = number ? read_one(c, db_bind(c, GET_ATTEMPT, "ii", experiment, (int64_t)number),
                               attempt, err)
                    : OVR_NOT_FOUND;
    db_give_back(c);
    return rc == OVR_NOT_FOUND ? ovr_fail(err, rc, NULL, "the cluster does not have it") : rc;
}

/* ---- The end that others bring ---- */

int store_withdraw_attempt(struct store *store, const struct attempt *attempt, const char *reason,
                           struct ovr_err *err) {
    struct connection *c = &store->writer;
    struct attempt now = *attempt;
    int rc = db_begin(store, err);
    if (rc)
        return rc;
    rc = look_again(c, &now, err);
    if (!rc)
        rc = db_run(c, db_bind(c, WITHDRAW, "is", now.experiment, reason), err);
    if (!rc && !sqlite3_changes(c->db))
        rc = ovr_fail(err, OVR_CONFLICT, NULL, "the attempt has begun");
    if (!rc)
        rc = db_run(c, db_bind(c, DELETE_ATTEMPT, "ii", now.experiment, (int64_t)now.number), err);
    return db_end(store, rc, err);
}

/* How often it was lost since its last checkpoint, this time too. */
static int count_loss(struct connection *c, int64_t seq, int *losses, struct ovr_err *err) {
    sqlite3_stmt *row = db_bind(c, COUNT_LOSS, "i", seq);
    int rc = sqlite3_step(row) == SQLITE_ROW ? 0 : db_fail(c, err);
    *losses = rc ? 0 : sqlite3_column_int(row, 0);
    while (!rc && sqlite3_step(row) == SQLITE_ROW)
        ;
    sqlite3_reset(row);
    return rc;
}

static int fail_attempt(struct store *store, const struct attempt *now, const char *kind,
                        const char *detail, struct ovr_err *err) {
    const struct outcome outcome = {
        .state = STATE_FAILED, .problem_kind = kind, .problem_detail = detail};
    int rc = write_last_epochs(store, now->experiment, err);
    return rc ? rc : finish(&store->writer, now->experiment, &outcome, err);
}

/* Its state stays, so there is no event but this line. */
static int take_back(struct connection *c, const struct attempt *now, const char *reason,
                     struct ovr_err *err) {
    char text[512];
    snprintf(text, sizeof text, "warning: attempt %d ended before it began: %s", now->number,
             reason);
    utf8_mend(text);
    const struct figure line = {.kind = FIGURE_TEXT, .count = now_ms(), .text = text};
    int rc = db_run(c, db_bind(c, END_ATTEMPT, "ii", now->experiment, (int64_t)now->number), err);
    if (!rc)
        rc = db_run(c, db_bind(c, TAKE_BACK, "is", now->experiment, reason), err);
    return rc ? rc : add_line(c, now->experiment, &line, err);
}

/* Back to where it came from, or paused where somebody has asked for that. */
static int put_back(struct store *store, const struct attempt *now, const char *reason,
                    struct ovr_err *err) {
    struct connection *c = &store->writer;
    if (!now->begun_at)
        return take_back(c, now, reason, err);
    int rc = write_last_epochs(store, now->experiment, err);
    if (rc)
        return rc;
    return now->pausing ? park(c, now->experiment, err) : requeue(c, now->experiment, reason, err);
}

/* With or without a word of its worker. */
static int lose(struct store *store, const struct attempt *now, const char *reason,
                struct ovr_err *err) {
    char detail[512];
    int losses, most = store->rules.max_losses,
                rc = count_loss(&store->writer, now->experiment, &losses, err);
    if (rc)
        return rc;
    if (!most || losses < most)
        return put_back(store, now, reason, err);
    snprintf(detail, sizeof detail,
             "the cluster lost it %d times without a new checkpoint, the last time because: %s; "
             "post it again once the cause is found",
             losses, reason);
    utf8_mend(detail); /* it may have been cut inside a character */
    return fail_attempt(store, now, "crashed", detail, err);
}

int store_lose_attempt(struct store *store, const struct attempt *attempt, const char *reason,
                       struct ovr_err *err) {
    struct attempt now = *attempt;
    int rc = db_begin(store, err);
    if (rc)
        return rc;
    rc = look_again(&store->writer, &now, err);
    if (!rc)
        rc = lose(store, &now, reason, err);
    return end_run(store, now.experiment, rc, err);
}

int store_fail_attempt(struct store *store, const struct attempt *attempt, const char *kind,
                       const char *detail, struct ovr_err *err) {
    struct attempt now = *attempt;
    int rc = db_begin(store, err);
    if (rc)
        return rc;
    rc = look_again(&store->writer, &now, err);
    if (!rc)
        rc = fail_attempt(store, &now, kind, detail, err);
    return end_run(store, now.experiment, rc, err);
}

/* ---- Reports ---- */

static struct run *make_run(int64_t seq, int64_t owner, int cores, int64_t started_ms) {
    struct run *run = calloc(1, sizeof *run);
    int64_t now = now_ms();
    if (run)
        *run = (struct run){.seq = seq,
                            .owner = owner,
                            .executor = EXECUTOR_SLURM,
                            .cores = cores,
                            .started_ms = started_ms,
                            .charged_ms = now,
                            .use.at_ms = now};
    return run;
}

int find_remote_runs(struct connection *c, struct run **runs, struct ovr_err *err) {
    sqlite3_stmt *row = db_bind(c, REMOTE_RUNS, "");
    int step, rc = 0;
    while ((step = sqlite3_step(row)) == SQLITE_ROW) {
        struct run *run = make_run(sqlite3_column_int64(row, 0), sqlite3_column_int64(row, 1),
                                   sqlite3_column_int(row, 3), sqlite3_column_int64(row, 2));
        if (!run) {
            rc = ovr_nomem(err, "what runs on the cluster");
            break;
        }
        run->next = *runs;
        *runs = run;
    }
    if (!rc && step != SQLITE_DONE)
        rc = db_fail(c, err);
    sqlite3_reset(row);
    return rc;
}

/* The worker is at work: the experiment runs. */
static int begin(struct connection *c, const struct attempt *now, const struct report *report,
                 struct run **run, struct ovr_err *err) {
    int64_t at = now_ms(), owner = 0;
    if (now->begun_at)
        return ovr_fail(err, OVR_INVALID, "/begin", "the attempt has begun before");
    sqlite3_stmt *row = db_bind(c, BEGIN_RUN, "ii", now->experiment, at);
    int step = sqlite3_step(row);
    if (step == SQLITE_ROW)
        owner = sqlite3_column_int64(row, 0);
    while (step == SQLITE_ROW)
        step = sqlite3_step(row);
    sqlite3_reset(row);
    int rc = step == SQLITE_DONE ? must_have_changed(c, err) : db_fail(c, err);
    if (!rc)
        rc = db_run(c,
                    db_bind(c, BEGIN_ATTEMPT, "iiisis", now->experiment, (int64_t)now->number, at,
                            report->node, (int64_t)report->cores, report->job),
                    err);
    if (!rc && !(*run = make_run(now->experiment, owner, report->cores, at)))
        rc = ovr_nomem(err, "a running experiment");
    return rc;
}

static int add_lines(struct connection *c, int64_t seq, const struct report *report,
                     struct ovr_err *err) {
    int rc = 0;
    for (size_t i = 0; !rc && i < report->n_lines; i++) {
        char text[512];
        snprintf(text, sizeof text, "%s%s", report->lines[i].warning ? "warning: " : "",
                 report->lines[i].text);
        const struct figure line = {.kind = FIGURE_TEXT, .count = now_ms(), .text = text};
        rc = add_line(c, seq, &line, err);
    }
    return rc;
}

static int add_epochs(struct connection *c, int64_t seq, const struct report *report,
                      struct ovr_err *err) {
    int rc = report->restart_from ? forget_epochs(c, seq, report->restart_from, err) : 0;
    for (size_t i = 0; !rc && i < report->n_epochs; i++)
        rc = add_epoch(c, seq, &report->epochs[i], err);
    if (!rc && (report->n_epochs || report->n_lines))
        rc = touch(c, seq, (int64_t)report->n_epochs, err);
    return rc;
}

static int note_checkpoint(struct connection *c, const struct attempt *now,
                           const struct report *report, struct ovr_err *err) {
    int rc =
        db_run(c, db_bind(c, NOTE_WORK_CHECKPOINT, "ii", now->experiment, report->checkpoint), err);
    if (!rc && !sqlite3_changes(c->db))
        rc = ovr_fail(err, OVR_INVALID, "/checkpoint/number",
                      "checkpoint %lld is not newer than the newest one, %lld",
                      (long long)report->checkpoint, (long long)now->checkpoint);
    return rc ? rc
              : db_run(c, db_bind(c, NOTE_CHECKPOINT, "ii", now->experiment, report->computed_ms),
                       err);
}

static int end(struct store *store, const struct attempt *now, const struct report *report,
               struct ovr_err *err) {
    struct connection *c = &store->writer;
    struct attempt begun = *now;
    int rc = look_again(c, &begun, err);
    if (!rc && report->end == END_QUEUED)
        return lose(store, &begun, report->reason, err);
    if (!rc)
        rc = write_last_epochs(store, now->experiment, err);
    if (rc)
        return rc;
    return report->end == END_OUTCOME ? finish(c, now->experiment, report->outcome, err)
                                      : park(c, now->experiment, err);
}

/* What it changes; *run is new where it begins. */
static int take(struct store *store, const struct attempt *now, const struct report *report,
                struct run **run, struct ovr_err *err) {
    struct connection *c = &store->writer;
    struct run *running = runs_find(&store->runs, now->experiment);
    int rc = 0;
    if (report->node)
        rc = begin(c, now, report, run, err);
    else if (!now->begun_at)
        rc = ovr_fail(err, OVR_INVALID, "/begin", "the first report of an attempt begins it");
    if (!rc)
        rc = add_lines(c, now->experiment, report, err);
    if (!rc)
        rc = add_epochs(c, now->experiment, report, err);
    if (!rc && report->checkpoint)
        rc = note_checkpoint(c, now, report, err);
    if (!rc)
        rc = db_run(
            c, db_bind(c, NOTE_BATCH, "iii", now->experiment, (int64_t)now->number, report->number),
            err);
    if (!rc && report->end)
        rc = end(store, now, report, err);
    else if (!rc && running)
        rc = charge_if_due(store, running, err);
    return rc;
}

/* Whether it is the next one. The last report of all may be sent again though the attempt is over
 * by it. */
static int is_next(struct connection *c, struct attempt *attempt, const struct report *report,
                   int *repeated, struct ovr_err *err) {
    struct ovr_err why = {0};
    int rc = look_again(c, attempt, &why);
    *repeated = attempt->batch && report->number == attempt->batch &&
                (rc == 0 || (rc == OVR_CONFLICT && report->end));
    if (*repeated)
        return 0;
    if (rc)
        return ovr_fail(err, rc, NULL, "%s", why.text);
    if (report->number != attempt->batch + 1)
        return ovr_fail(err, OVR_CONFLICT, NULL, "the next report is number %lld, this is %lld",
                        (long long)attempt->batch + 1, (long long)report->number);
    return 0;
}

int store_take_report(struct store *store, struct attempt *attempt, const struct report *report,
                      int *repeated, struct ovr_err *err) {
    struct connection *c = &store->writer;
    struct run *run = NULL;
    *repeated = 0;
    int rc = db_begin(store, err);
    if (rc)
        return rc;
    rc = is_next(c, attempt, report, repeated, err);
    int taken = !rc && !*repeated;
    if (taken)
        rc = take(store, attempt, report, &run, err);
    if (taken && !rc && look_again(c, attempt, NULL) && attempt->live)
        rc = db_fail(c, err);
    rc = db_commit(store, rc, err);
    if (run && !rc)
        runs_add(&store->runs, run);
    else
        free(run);
    if (taken && !rc && report->end)
        runs_end(&store->runs, attempt->experiment);
    db_release_writer(store);
    return rc;
}
