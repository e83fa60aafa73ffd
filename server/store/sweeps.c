#include "server/store/db.h"

#include "server/log.h"

#include <stdlib.h>
#include <string.h>

void sweep_release(struct sweep *s) {
    free(s->name);
    free(s->tags);
    free(s->notes);
    free(s->request);
    free(s->axes);
    free(s->target);
    *s = (struct sweep){0};
}

enum state sweep_state(const struct sweep *s) {
    if (s->cancelled)
        return STATE_CANCELLED;
    if (s->more || s->counts[STATE_QUEUED] || s->counts[STATE_RUNNING] || s->counts[STATE_PAUSED])
        return STATE_RUNNING;
    return s->counts[STATE_SUCCEEDED] ? STATE_SUCCEEDED : STATE_FAILED;
}

static int read_sweep(sqlite3_stmt *row, struct sweep *s, struct ovr_err *err) {
    int failed = 0;
    *s = (struct sweep){
        .seq = sqlite3_column_int64(row, 0),
        .name = dup_column(row, 2, &failed),
        .tags = dup_column(row, 3, &failed),
        .notes = dup_column(row, 4, &failed),
        .request = dup_column(row, 5, &failed),
        .axes = dup_column(row, 6, &failed),
        .target = dup_column(row, 7, &failed),
        .points = sqlite3_column_int(row, 8),
        .repeats = sqlite3_column_int(row, 9),
        .more = sqlite3_column_int(row, 10),
        .cancelled = sqlite3_column_int(row, 11),
        .created_at = sqlite3_column_int64(row, 12),
        .revision = sqlite3_column_int64(row, 14),
        .private = sqlite3_column_int(row, 22),
    };
    copy_column(row, 1, s->id, sizeof s->id);
    copy_column(row, 21, s->owner, sizeof s->owner);
    for (int i = 0; i < N_STATES; i++)
        s->counts[i] = sqlite3_column_int64(row, 15 + i);
    if (sweep_state(s) != STATE_RUNNING)
        s->finished_at = sqlite3_column_int64(row, 13);
    if (!failed)
        return 0;
    sweep_release(s);
    return ovr_nomem(err, "a sweep");
}

static int add_points(struct connection *c, int64_t sweep, int first,
                      const struct new_points *points, struct ovr_err *err) {
    int rc = 0;
    size_t repeats = (size_t)points->repeats, n = points->n_points * repeats;
    int64_t *seqs = calloc(n + 1, sizeof *seqs);
    if (!seqs)
        return ovr_nomem(err, "the points of a sweep");
    for (size_t i = 0; !rc && i < n; i++) {
        struct membership member = {.sweep = sweep,
                                    .point = first + (int64_t)(i / repeats),
                                    .repeat = (int64_t)(i % repeats)};
        char id[ID_SIZE];
        if (points->chained && i >= repeats)
            member.waits_for = seqs[i - repeats];
        if (i % repeats == 0)
            rc = db_run(
                c, db_bind(c, ADD_POINT, "iis", sweep, member.point, points->values[i / repeats]),
                err);
        if (!rc)
            rc = insert_experiment(c, &points->experiments[i], &member, id, err);
        seqs[i] = sqlite3_last_insert_rowid(c->db);
    }
    free(seqs);
    return rc;
}

static int add_sweep(struct connection *c, const struct new_sweep *s, char id[ID_SIZE],
                     struct ovr_err *err) {
    int rc = store_new_id(id, err);
    if (!rc)
        rc = db_run(c,
                    db_bind(c, ADD_SWEEP, "sssssssiiiiIi", id, s->name, s->tags, s->notes,
                            s->request, s->axes, s->target, (int64_t)s->points.n_points,
                            (int64_t)s->points.repeats, (int64_t)s->more, now_ms(), s->owner,
                            (int64_t)s->private),
                    err);
    int64_t seq = sqlite3_last_insert_rowid(c->db);
    if (!rc)
        rc = add_points(c, seq, 0, &s->points, err);
    if (!rc)
        rc = add_key(c, s->idempotency_key, s->body_sha256, 0, seq, err);
    return rc ? rc : audit(c, "sweep.submit", id, s->name, err);
}

int store_add_sweep(struct store *store, const struct new_sweep *s, char id[ID_SIZE], int *repeated,
                    struct ovr_err *err) {
    struct connection *c = &store->writer;
    int rc = db_begin(store, err);
    if (rc)
        return rc;
    rc = find_key(c, s->idempotency_key, s->body_sha256, 1, id, err);
    *repeated = rc == 1;
    if (!rc)
        rc = check_quota(store, (int64_t)s->points.n_points * s->points.repeats, 0, err);
    if (!rc)
        rc = add_sweep(c, s, id, err);
    return db_end(store, *repeated ? 0 : rc, err);
}

int store_extend_sweep(struct store *store, int64_t seq, int points_so_far,
                       const struct new_points *points, struct ovr_err *err) {
    struct connection *c = &store->writer;
    int64_t n = (int64_t)points->n_points;
    int rc = db_begin(store, err);
    if (rc)
        return rc;
    rc = db_run(
        c, db_bind(c, n ? EXTEND_SWEEP : CLOSE_SWEEP, "iii", seq, (int64_t)points_so_far, n), err);
    if (!rc && !sqlite3_changes(c->db))
        rc = ovr_fail(err, OVR_CONFLICT, NULL, "the sweep has gone on meanwhile");
    if (!rc)
        rc = add_points(c, seq, points_so_far, points, err);
    return db_end(store, rc, err);
}

int store_due_sweep(struct store *store, char id[ID_SIZE], struct ovr_err *err) {
    struct connection *c = db_take_reader(store);
    sqlite3_stmt *row = db_bind(c, DUE_SWEEP, "");
    int step = sqlite3_step(row);
    if (step == SQLITE_ROW)
        copy_column(row, 0, id, ID_SIZE);
    int rc = step == SQLITE_ROW ? 0 : step == SQLITE_DONE ? OVR_NOT_FOUND : db_fail(c, err);
    sqlite3_reset(row);
    db_give_back(c);
    return rc;
}

static int find_sweep(struct connection *c, const char *id, struct sweep *s, struct ovr_err *err) {
    sqlite3_stmt *row = db_bind(c, GET_SWEEP, "s", id);
    int step = sqlite3_step(row);
    int rc = step == SQLITE_ROW ? read_sweep(row, s, err)
             : step == SQLITE_DONE
                 ? ovr_fail(err, OVR_NOT_FOUND, NULL, "there is no sweep %.40s", id)
                 : db_fail(c, err);
    sqlite3_reset(row);
    if (!rc && !sees(s->owner, s->private)) {
        sweep_release(s);
        rc = ovr_fail(err, OVR_NOT_FOUND, NULL, "there is no sweep %.40s", id);
    }
    return rc;
}

static int visit_point(const struct sweep_reader *reader, sqlite3_stmt *row, struct ovr_err *err) {
    const char *values = (const char *)sqlite3_column_text(row, 1);
    return values ? reader->point(reader->context, sqlite3_column_int(row, 0), values)
                  : ovr_nomem(err, "a sweep");
}

static int visit_run(const struct sweep_reader *reader, sqlite3_stmt *row, struct ovr_err *err) {
    struct sweep_run run = {
        .point = sqlite3_column_int(row, 0),
        .repeat = sqlite3_column_int(row, 1),
        .id = (const char *)sqlite3_column_text(row, 2),
        .state = find_state((const char *)sqlite3_column_text(row, 3)),
        .problem_kind = (const char *)sqlite3_column_text(row, 4),
        .problem_detail = (const char *)sqlite3_column_text(row, 5),
    };
    return run.id ? reader->run(reader->context, &run) : ovr_nomem(err, "a sweep");
}

static int visit_figure(const struct sweep_reader *reader, sqlite3_stmt *row, struct ovr_err *err) {
    struct figure figure = read_figure(row);
    if (!figure.name || (figure.kind == FIGURE_TEXT && !figure.text))
        return ovr_nomem(err, "a sweep");
    return reader->figure(reader->context, sqlite3_column_int(row, 0), sqlite3_column_int(row, 3),
                          &figure);
}

/* Every row of a statement on the sweep's seq to one of the visitors above. */
static int visit(struct connection *c, enum sql which, int64_t seq,
                 const struct sweep_reader *reader,
                 int (*visitor)(const struct sweep_reader *, sqlite3_stmt *, struct ovr_err *),
                 struct ovr_err *err) {
    sqlite3_stmt *row = which == SWEEP_POINTS ? db_bind(c, which, "i", seq)
                                              : db_bind(c, which, "ii", seq, visible_to());
    int rc = 0, step = SQLITE_DONE;
    while (!rc && (step = sqlite3_step(row)) == SQLITE_ROW)
        rc = visitor(reader, row, err);
    if (!rc && step != SQLITE_DONE)
        rc = db_fail(c, err);
    sqlite3_reset(row);
    return rc;
}

int store_read_sweep(struct store *store, const char *id, struct sweep *s,
                     const struct sweep_reader *reader, struct ovr_err *err) {
    struct connection *c = db_take_reader(store);
    *s = (struct sweep){0};
    int rc = db_run(c, db_bind(c, BEGIN_READING, ""), err);
    if (!rc) {
        rc = find_sweep(c, id, s, err);
        if (!rc && reader->point)
            rc = visit(c, SWEEP_POINTS, s->seq, reader, visit_point, err);
        if (!rc && reader->run)
            rc = visit(c, SWEEP_RUNS, s->seq, reader, visit_run, err);
        if (!rc && reader->figure)
            rc = visit(c, SWEEP_FIGURES, s->seq, reader, visit_figure, err);
        db_run(c, db_bind(c, COMMIT, ""), NULL);
    }
    db_give_back(c);
    if (rc)
        sweep_release(s);
    return rc;
}

static int read_listed(const void *context, sqlite3_stmt *row, void *item, struct ovr_err *err) {
    (void)context;
    return read_sweep(row, item, err);
}

static void release_listed(void *item) {
    sweep_release(item);
}

static const struct row_reader sweep_rows = {"a list of sweeps", sizeof(struct sweep), read_listed,
                                             release_listed};

int store_list_sweeps(struct store *store, const char *owner, int64_t before, int limit,
                      struct sweep **list, size_t *n, struct ovr_err *err) {
    struct connection *c = db_take_reader(store);
    sqlite3_stmt *row = db_bind(c, LIST_SWEEPS, "iisi", before ? before : INT64_MAX, (int64_t)limit,
                                owner, visible_to());
    struct rows rows;
    int rc = db_read_list(c, row, &sweep_rows, NULL, &rows, err);
    db_give_back(c);
    *list = rows.items;
    *n = rows.n;
    return rc;
}

void sweep_list_free(struct sweep *list, size_t n) {
    for (size_t i = 0; i < n; i++)
        sweep_release(&list[i]);
    free(list);
}

/* Those of a sweep that run, in an array with a 0 behind the last. */
struct stopped {
    int64_t *seqs;
    char (*ids)[ID_SIZE];
    size_t n;
};

static int find_running(struct connection *c, int64_t sweep, size_t most, struct stopped *stopped,
                        struct ovr_err *err) {
    stopped->seqs = calloc(most + 1, sizeof *stopped->seqs);
    stopped->ids = calloc(most + 1, sizeof *stopped->ids);
    if (!stopped->seqs || !stopped->ids)
        return ovr_nomem(err, "the running experiments of a sweep");
    sqlite3_stmt *row = db_bind(c, SWEEP_RUNNING, "i", sweep);
    int step;
    while ((step = sqlite3_step(row)) == SQLITE_ROW && stopped->n < most) {
        stopped->seqs[stopped->n] = sqlite3_column_int64(row, 0);
        copy_column(row, 1, stopped->ids[stopped->n++], ID_SIZE);
    }
    sqlite3_reset(row);
    return step == SQLITE_DONE ? 0 : db_fail(c, err);
}

static int cancel_sweep(struct store *store, const char *id, struct stopped *stopped,
                        struct ovr_err *err) {
    struct connection *c = &store->writer;
    struct sweep s;
    int rc = find_sweep(c, id, &s, err);
    if (rc)
        return rc;
    enum state state = sweep_state(&s);
    size_t n_running = (size_t)s.counts[STATE_RUNNING];
    int64_t seq = s.seq;
    rc = must_own(s.owner, "sweep", s.id, err);
    sweep_release(&s);
    if (rc)
        return rc;
    if (state == STATE_CANCELLED)
        return 0;
    if (state != STATE_RUNNING)
        return ovr_fail(err, OVR_CONFLICT, NULL,
                        "the sweep has already %s; only a running one can be cancelled",
                        state_names[state]);
    rc = find_running(c, seq, n_running, stopped, err);
    for (size_t i = 0; !rc && i < stopped->n; i++)
        rc = write_last_epochs(store, stopped->seqs[i], err);
    if (!rc)
        rc = db_run(c, db_bind(c, CANCEL_RUNS, "ii", seq, now_ms()), err);
    if (!rc)
        rc = db_run(c, db_bind(c, CANCEL_SWEEP, "i", seq), err);
    return rc ? rc : audit(c, "sweep.cancel", id, NULL, err);
}

int store_cancel_sweep(struct store *store, const char *id, char (**running)[ID_SIZE],
                       size_t *n_running, struct ovr_err *err) {
    struct stopped stopped = {0};
    *running = NULL;
    *n_running = 0;
    int rc = db_begin(store, err);
    if (rc)
        return rc;
    rc = db_commit(store, cancel_sweep(store, id, &stopped, err), err);
    for (size_t i = 0; !rc && i < stopped.n; i++)
        runs_end(&store->runs, stopped.seqs[i]);
    db_release_writer(store);
    free(stopped.seqs);
    if (rc) {
        free(stopped.ids);
        return rc;
    }
    *running = stopped.ids;
    *n_running = stopped.n;
    return 0;
}
