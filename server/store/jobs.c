#include "server/store/db.h"

#include "server/log.h"

#include <stdlib.h>
#include <string.h>

int end_run(struct store *store, int64_t seq, int rc, struct ovr_err *err) {
    rc = db_commit(store, rc, err);
    if (!rc)
        runs_end(&store->runs, seq);
    db_release_writer(store);
    return rc;
}

static int count_queue(struct connection *c, int most, int *n, struct ovr_err *err) {
    sqlite3_stmt *row = db_bind(c, COUNT_QUEUE, "ii", (int64_t)most, (int64_t)EXECUTOR_LOCAL);
    int rc = sqlite3_step(row) == SQLITE_ROW ? 0 : db_fail(c, err);
    *n = rc ? 0 : sqlite3_column_int(row, 0);
    sqlite3_reset(row);
    return rc;
}

int take_returned(struct connection *c, sqlite3_stmt *row, struct experiment *e,
                  struct ovr_err *err) {
    int step = sqlite3_step(row);
    int rc = step == SQLITE_ROW    ? read_experiment(row, e, err)
             : step == SQLITE_DONE ? OVR_NOT_FOUND
                                   : db_fail(c, err);
    while (!rc && sqlite3_step(row) == SQLITE_ROW)
        ;
    sqlite3_reset(row);
    return rc;
}

/* Takes the one that was chosen; *run, which is taken over on success, is the rest of it. */
static int take(struct store *store, struct run *run, struct experiment *e, int *waiting,
                struct ovr_err *err) {
    enum { MOST_WAITING = 1000 };
    struct connection *c = &store->writer;
    int rc = db_begin(store, err);
    if (rc)
        return rc;
    rc = take_returned(c, db_bind(c, CLAIM, "ii", run->seq, now_ms()), e, err);
    if (!rc)
        rc = count_queue(c, MOST_WAITING, waiting, err);
    rc = db_commit(store, rc, err);
    if (!rc) {
        run->memory_bytes = e->memory_bytes;
        run->started_ms = run->charged_ms = run->use.at_ms = e->started_at;
        run->cores = 1;
        runs_add(&store->runs, run);
    }
    db_release_writer(store);
    if (rc)
        experiment_release(e);
    return rc;
}

/* Chosen with a reader: whether a claim is worth the wait for the writer. */
static int choose(struct store *store, int64_t free_bytes, struct run *run, struct ovr_err *err) {
    struct connection *c = db_take_reader(store);
    int rc = choose_next(store, c, EXECUTOR_LOCAL, free_bytes, &run->seq, &run->owner, err);
    db_give_back(c);
    return rc;
}

int store_claim(struct store *store, int64_t memory_bytes, struct experiment *e, int *waiting,
                struct ovr_err *err) {
    *e = (struct experiment){0};
    struct run *run = calloc(1, sizeof *run);
    if (!run)
        return ovr_nomem(err, "a running experiment");
    int rc, chosen;
    do { /* again when it was cancelled or taken in between */
        rc = chosen = choose(store, memory_bytes, run, err);
        if (!rc)
            rc = take(store, run, e, waiting, err);
    } while (!chosen && rc == OVR_NOT_FOUND);
    if (rc)
        free(run);
    return rc;
}

static int add_figures(struct connection *c, int64_t seq, int epoch, const struct figure *figures,
                       size_t n, struct ovr_err *err) {
    int rc = 0;
    for (size_t i = 0; !rc && i < n; i++) {
        const struct figure *f = &figures[i];
        int64_t at = epoch, position = (int64_t)i;
        sqlite3_stmt *statement;
        if (f->kind == FIGURE_TEXT)
            statement = db_bind(c, ADD_FIGURE, "iiiss", seq, at, position, f->name, f->text);
        else if (f->kind == FIGURE_COUNT)
            statement = db_bind(c, ADD_FIGURE, "iiisi", seq, at, position, f->name, f->count);
        else
            statement = db_bind(c, ADD_FIGURE, "iiisr", seq, at, position, f->name, f->real);
        rc = db_run(c, statement, err);
    }
    return rc;
}

static int add_histogram(struct connection *c, int64_t seq, const struct epoch_histogram *eh,
                         struct ovr_err *err) {
    const struct histogram *h = eh->histogram;
    sqlite3_stmt *statement =
        db_bind(c, ADD_HISTOGRAM, "iisiiri", seq, (int64_t)eh->epoch, eh->split,
                (int64_t)h->zero_count, (int64_t)h->total, h->maximum, (int64_t)eh->layer);
    sqlite3_bind_blob(statement, 8, h->counts, sizeof h->counts, SQLITE_STATIC);
    return db_run(c, statement, err);
}

static int add_histograms(struct connection *c, int64_t seq, const struct epoch_histogram *list,
                          size_t n, struct ovr_err *err) {
    int rc = 0;
    for (size_t i = 0; !rc && i < n; i++)
        rc = add_histogram(c, seq, &list[i], err);
    return rc;
}

int must_have_changed(struct connection *c, struct ovr_err *err) {
    if (sqlite3_changes(c->db))
        return 0;
    return ovr_fail(err, OVR_CONFLICT, NULL, "the experiment is not running any more");
}

int add_epoch(struct connection *c, int64_t seq, const struct report_epoch *e,
              struct ovr_err *err) {
    int rc = add_figures(c, seq, e->number, e->figures, e->n_figures, err);
    return rc ? rc : add_histograms(c, seq, e->histograms, e->n_histograms, err);
}

int touch(struct connection *c, int64_t seq, int64_t n_epochs, struct ovr_err *err) {
    return db_run(c, db_bind(c, TOUCH, "ii", seq, n_epochs), err);
}

int store_add_epoch(struct store *store, int64_t seq, int epoch, const struct figure *figures,
                    size_t n_figures, const struct epoch_histogram *histograms, size_t n_histograms,
                    struct ovr_err *err) {
    enum { MOST_WAITING = 200 };
    int n =
        runs_add_epoch(&store->runs, seq, epoch, figures, n_figures, histograms, n_histograms, err);
    if (n < MOST_WAITING)
        return n < 0 ? n : 0;
    return store_write_epochs(store, err); /* nobody else came to it */
}

/* All epochs and lines of a run that wait, in the transaction at hand. */
static int write_epochs(struct store *store, struct run *r, struct ovr_err *err) {
    struct connection *c = &store->writer;
    size_t n = run_take(&store->runs, r);
    int64_t n_epochs = 0;
    const struct epoch *epoch = NULL;
    int rc = 0;
    for (size_t i = 0; !rc && i < n; i++) {
        epoch = epoch ? epoch->next : r->first;
        n_epochs += epoch->number != LOG_EPOCH;
        const struct report_epoch whole = {epoch->number, epoch->figures, epoch->n_figures,
                                           epoch->histograms, epoch->n_histograms};
        rc = epoch->number == LOG_EPOCH ? add_line(c, r->seq, &epoch->figures[0], err)
                                        : add_epoch(c, r->seq, &whole, err);
    }
    return rc || !n ? rc : touch(c, r->seq, n_epochs, err);
}

int write_last_epochs(struct store *store, int64_t seq, struct ovr_err *err) {
    struct run *r = runs_find(&store->runs, seq);
    int rc = r ? write_epochs(store, r, err) : 0;
    return rc || !r ? rc : charge_run(store, r, err);
}

int charge_if_due(struct store *store, struct run *r, struct ovr_err *err) {
    enum { CHARGED_EVERY_MS = 10000 }; /* so that a crash forgets little of it */
    return now_ms() - r->written_ms > CHARGED_EVERY_MS ? charge_run(store, r, err) : 0;
}

int store_write_epochs(struct store *store, struct ovr_err *err) {
    struct ovr_err why = {0};
    if (!runs_have_epochs(&store->runs))
        return 0;
    int rc = db_begin(store, &why);
    if (rc) /* without the writer: the epochs stay, and a job learns of it when many wait */
        return ovr_fail(err, rc, NULL, "%s", why.text);
    for (struct run *r = store->runs.list; !rc && r; r = r->next) {
        rc = write_epochs(store, r, &why);
        rc = rc ? rc : charge_if_due(store, r, &why);
    }
    rc = db_commit(store, rc, &why);
    runs_settle(&store->runs, &why);
    db_release_writer(store);
    return rc ? ovr_fail(err, rc, NULL, "%s", why.text) : 0;
}

static int add_tensors(struct connection *c, int64_t seq, const struct tensor *tensors, size_t n,
                       struct ovr_err *err) {
    int rc = 0;
    for (size_t i = 0; !rc && i < n; i++) {
        const struct tensor *t = &tensors[i];
        rc = db_run(c,
                    db_bind(c, ADD_TENSOR, "isissiii", seq, t->epoch, (int64_t)i, t->name, t->dtype,
                            (int64_t)t->dimensions, (int64_t)t->rows, (int64_t)t->columns),
                    err);
    }
    return rc;
}

static int add_unit_tables(struct connection *c, int64_t seq, const struct unit_table *tables,
                           size_t n, struct ovr_err *err) {
    int rc = 0;
    for (size_t i = 0; !rc && i < n; i++) {
        const struct unit_table *t = &tables[i];
        rc = db_run(c,
                    db_bind(c, ADD_UNIT_TABLE, "iisiii", seq, (int64_t)t->layer, t->split,
                            (int64_t)t->units, (int64_t)t->classes, (int64_t)t->cells),
                    err);
    }
    return rc;
}

/* What an experiment's end means to those that wait for it, in the same transaction. */
static int end_wait(struct connection *c, int64_t seq, enum state state, struct ovr_err *err) {
    return db_run(c,
                  state == STATE_SUCCEEDED ? db_bind(c, RELEASE_NEXT, "i", seq)
                                           : db_bind(c, BREAK_CHAINS, "i", now_ms()),
                  err);
}

int finish(struct connection *c, int64_t seq, const struct outcome *o, struct ovr_err *err) {
    int rc = db_run(c,
                    db_bind(c, FINISH, "isisss", seq, state_names[o->state], now_ms(),
                            o->problem_kind, o->problem_pointer, o->problem_detail),
                    err);
    if (!rc)
        rc = must_have_changed(c, err);
    if (!rc)
        rc = end_wait(c, seq, o->state, err);
    if (!rc)
        rc = add_figures(c, seq, 0, o->result, o->n_result, err);
    if (!rc)
        rc = add_figures(c, seq, -1, o->provenance, o->n_provenance, err);
    if (!rc)
        rc = add_tensors(c, seq, o->tensors, o->n_tensors, err);
    if (!rc)
        rc = add_histograms(c, seq, o->histograms, o->n_histograms, err);
    if (!rc)
        rc = add_unit_tables(c, seq, o->unit_tables, o->n_unit_tables, err);
    return rc;
}

int store_finish(struct store *store, int64_t seq, const struct outcome *o, struct ovr_err *err) {
    int rc = db_begin(store, err);
    if (rc)
        return rc;
    rc = write_last_epochs(store, seq, err);
    if (!rc)
        rc = finish(&store->writer, seq, o, err);
    return end_run(store, seq, rc, err);
}

int requeue(struct connection *c, int64_t seq, const char *reason, struct ovr_err *err) {
    int rc = db_run(c, db_bind(c, REQUEUE, "is", seq, reason), err);
    return rc ? rc : must_have_changed(c, err);
}

int store_requeue(struct store *store, int64_t seq, const char *reason, struct ovr_err *err) {
    int rc = db_begin(store, err);
    if (rc)
        return rc;
    rc = write_last_epochs(store, seq, err);
    if (!rc)
        rc = requeue(&store->writer, seq, reason, err);
    return end_run(store, seq, rc, err);
}

int store_note_checkpoint(struct store *store, int64_t seq, int64_t computed_ms,
                          struct ovr_err *err) {
    struct connection *c = &store->writer;
    int rc = db_begin(store, err);
    if (rc)
        return rc;
    struct run *run = runs_find(&store->runs, seq);
    rc = db_run(c, db_bind(c, NOTE_CHECKPOINT, "ii", seq, computed_ms), err);
    if (!rc && run)
        rc = charge_run(store, run, err);
    rc = db_commit(store, rc, err);
    db_release_writer(store);
    return rc;
}

int forget_epochs(struct connection *c, int64_t seq, int first, struct ovr_err *err) {
    int rc = db_run(c, db_bind(c, DELETE_FIGURES, "ii", seq, (int64_t)first), err);
    return rc ? rc : db_run(c, db_bind(c, DELETE_HISTOGRAMS, "ii", seq, (int64_t)first), err);
}

int store_forget_epochs(struct store *store, int64_t seq, int first, struct ovr_err *err) {
    int rc = db_begin(store, err);
    return rc ? rc : db_end(store, forget_epochs(&store->writer, seq, first, err), err);
}

int store_recover(struct store *store, int max_crashes, int *requeued, struct ovr_err *err) {
    struct connection *c = &store->writer;
    struct run *remote = NULL;
    *requeued = 0;
    int rc = db_begin(store, err);
    if (rc)
        return rc;
    rc = db_run(c, db_bind(c, PARK_MARKED, ""), err);
    if (!rc)
        rc = db_run(c, db_bind(c, COUNT_CRASH, ""), err);
    if (!rc)
        rc = db_run(c, db_bind(c, GIVE_UP, "ii", now_ms(), (int64_t)max_crashes), err);
    if (!rc)
        rc = db_run(c, db_bind(c, BREAK_CHAINS, "i", now_ms()), err);
    while (!rc) {
        sqlite3_stmt *row = db_bind(c, RUNNING, "");
        int step = sqlite3_step(row);
        int64_t seq = step == SQLITE_ROW ? sqlite3_column_int64(row, 0) : 0;
        sqlite3_reset(row);
        if (step == SQLITE_DONE)
            break;
        rc =
            step == SQLITE_ROW
                ? requeue(c, seq,
                          "the daemon ended while it ran; it goes on from its last checkpoint", err)
                : db_fail(c, err);
        *requeued += !rc;
    }
    if (!rc)
        rc = find_remote_runs(c, &remote, err);
    rc = db_commit(store, rc, err);
    if (!rc)
        runs_end_all(&store->runs);
    for (struct run *run = remote, *next; run; run = next) {
        next = run->next;
        if (rc)
            free(run);
        else
            runs_add(&store->runs, run);
    }
    db_release_writer(store);
    return rc;
}

static int cancel(struct store *store, const char *id, int64_t *seq, int *was_running,
                  struct ovr_err *err) {
    struct connection *c = &store->writer;
    struct experiment e;
    int rc = find_own_experiment(c, id, &e, err);
    if (rc)
        return rc;
    *seq = e.seq;
    *was_running = e.state == STATE_RUNNING;
    if (*was_running)
        rc = write_last_epochs(store, e.seq, err);
    if (!rc && e.state <= STATE_PAUSED) {
        rc = db_run(c, db_bind(c, CANCEL, "ii", e.seq, now_ms()), err);
        rc = rc ? rc : end_wait(c, e.seq, STATE_CANCELLED, err);
        rc = rc ? rc : audit(c, "experiment.cancel", id, NULL, err);
    } else if (!rc && e.state != STATE_CANCELLED)
        rc = ovr_fail(
            err, OVR_CONFLICT, NULL,
            "the experiment has already %s; only a queued, running or paused one can be cancelled",
            state_names[e.state]);
    experiment_release(&e);
    return rc;
}

int store_cancel(struct store *store, const char *id, int *was_running, struct ovr_err *err) {
    int64_t seq = 0;
    *was_running = 0;
    int rc = db_begin(store, err);
    if (rc)
        return rc;
    rc = cancel(store, id, &seq, was_running, err);
    return end_run(store, seq, rc, err);
}

/* Runs a statement on an experiment; *before is what it was. */
static int change_by_id(struct store *store, const char *id, enum sql statement, const char *action,
                        struct experiment *before, struct ovr_err *err) {
    struct connection *c = &store->writer;
    int rc = find_own_experiment(c, id, before, err);
    if (!rc)
        rc = db_run(c, db_bind(c, statement, "i", before->seq), err);
    return rc ? rc : audit(c, action, id, NULL, err);
}

int store_pause(struct store *store, const char *id, int *was_running, struct ovr_err *err) {
    struct experiment e = {0};
    *was_running = 0;
    int rc = db_begin(store, err);
    if (rc)
        return rc;
    rc = change_by_id(store, id, PAUSE, "experiment.pause", &e, err);
    if (!rc && e.state > STATE_PAUSED)
        rc = ovr_fail(err, OVR_CONFLICT, NULL,
                      "the experiment has already %s; only a queued or running one can be paused",
                      state_names[e.state]);
    *was_running = !rc && e.state == STATE_RUNNING;
    experiment_release(&e);
    return db_end(store, rc, err);
}

int park(struct connection *c, int64_t seq, struct ovr_err *err) {
    int rc = db_run(c, db_bind(c, PARK, "i", seq), err);
    return rc ? rc : must_have_changed(c, err);
}

int store_park(struct store *store, int64_t seq, struct ovr_err *err) {
    int rc = db_begin(store, err);
    if (rc)
        return rc;
    rc = write_last_epochs(store, seq, err);
    if (!rc)
        rc = park(&store->writer, seq, err);
    return end_run(store, seq, rc, err);
}

int store_resume(struct store *store, const char *id, struct ovr_err *err) {
    struct experiment e = {0};
    int rc = db_begin(store, err);
    if (rc)
        return rc;
    rc = change_by_id(store, id, RESUME, "experiment.resume", &e, err);
    if (!rc && e.state != STATE_PAUSED && e.state != STATE_QUEUED)
        rc = ovr_fail(err, OVR_CONFLICT, NULL,
                      e.state == STATE_RUNNING
                          ? "the experiment still runs; it can go on once it is paused"
                          : "the experiment has already ended; only a paused one can go on");
    experiment_release(&e);
    return db_end(store, rc, err);
}
