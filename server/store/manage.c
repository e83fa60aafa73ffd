/* Edits and deletion of experiments, what an operator asks the store, backup. */
#include "server/store/db.h"

#include "server/files.h"
#include "server/log.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static int may_edit(const struct experiment *e, int64_t revision, const struct edit *edit,
                    struct ovr_err *err) {
    if (revision >= 0 && revision != e->revision)
        return ovr_fail(err, OVR_CONFLICT, STALE_FIELD,
                        "the experiment is at revision %lld, not %lld any more; get it again and "
                        "look whether the change still makes sense",
                        (long long)e->revision, (long long)revision);
    if (edit->priority && e->state != STATE_QUEUED)
        return ovr_fail(err, OVR_CONFLICT, NULL,
                        "the experiment is %s; only a queued one has a priority to change",
                        state_names[e->state]);
    return 0;
}

static sqlite3_stmt *bind_edit(struct connection *c, int64_t seq, const struct edit *edit) {
    sqlite3_stmt *statement =
        db_bind(c, EDIT_EXPERIMENT, "isss", seq, edit->name, edit->tags, edit->notes);
    if (edit->priority)
        sqlite3_bind_int(statement, 5, *edit->priority);
    if (edit->private)
        sqlite3_bind_int(statement, 6, *edit->private);
    return statement;
}

int store_edit_experiment(struct store *store, const char *id, int64_t revision,
                          const struct edit *edit, struct ovr_err *err) {
    struct connection *c = &store->writer;
    struct experiment e = {0};
    int rc = db_begin(store, err);
    if (rc)
        return rc;
    rc = find_own_experiment(c, id, &e, err);
    if (!rc)
        rc = may_edit(&e, revision, edit, err);
    if (!rc)
        rc = db_run(c, bind_edit(c, e.seq, edit), err);
    if (!rc && edit->tags)
        rc = put_tags(c, REMOVE_TAG, e.seq, e.tags, err);
    if (!rc && edit->tags)
        rc = put_tags(c, ADD_TAG, e.seq, edit->tags, err);
    if (!rc)
        rc = audit(c, "experiment.edit", id, NULL, err);
    if (edit->private && *edit->private && !e.private) /* who watches it has to look again */
        store->people_changed = 1;
    experiment_release(&e);
    return db_end(store, rc, err);
}

/* OVR_CONFLICT when something that has not ended needs it. */
static int must_be_unneeded(struct connection *c, const char *id, struct ovr_err *err) {
    sqlite3_stmt *row = db_bind(c, USER_OF_EXPERIMENT, "si", id, visible_to());
    char what[16], user[ID_SIZE];
    int rc = 0, step = sqlite3_step(row);
    if (step == SQLITE_ROW) {
        copy_column(row, 0, what, sizeof what);
        copy_column(row, 1, user, sizeof user);
        rc = ovr_fail(err, OVR_CONFLICT, NULL,
                      "%s %s needs it and has not ended; cancel that one or wait", what, user);
    } else if (step != SQLITE_DONE) {
        rc = db_fail(c, err);
    }
    sqlite3_reset(row);
    return rc;
}

/* Old versions of its data set that only it named go with it. */
static int delete_experiment(struct connection *c, int64_t seq, struct ovr_err *err) {
    char dataset[DATASET_NAME_SIZE] = "";
    sqlite3_stmt *row = db_bind(c, DATASET_OF, "i", seq);
    int step = sqlite3_step(row);
    if (step == SQLITE_ROW)
        copy_column(row, 0, dataset, sizeof dataset);
    int rc = step == SQLITE_ROW || step == SQLITE_DONE ? 0 : db_fail(c, err);
    sqlite3_reset(row);
    if (!rc)
        rc = db_run(c, db_bind(c, DELETE_EXPERIMENT, "i", seq), err);
    return rc || !*dataset ? rc : db_run(c, db_bind(c, FORGET_VERSIONS, "s", dataset), err);
}

/* Whether it may go, and who it is; the caller releases *e. */
static int find_deletable(struct connection *c, const char *id, struct experiment *e,
                          struct ovr_err *err) {
    int rc = find_own_experiment(c, id, e, err);
    if (!rc && e->state != STATE_SUCCEEDED && e->state != STATE_FAILED &&
        e->state != STATE_CANCELLED)
        rc =
            ovr_fail(err, OVR_CONFLICT, NULL,
                     "the experiment is %s; cancel it before it is deleted", state_names[e->state]);
    return rc ? rc : must_be_unneeded(c, id, err);
}

/* The figures of its newest epochs, in a transaction of their own. *n: rows that went. */
static int delete_newest(struct store *store, const char *id, int *n, struct ovr_err *err) {
    struct connection *c = &store->writer;
    struct experiment e = {0};
    int rc = db_begin(store, err);
    if (rc)
        return rc;
    rc = find_deletable(c, id, &e, err);
    if (!rc)
        rc = db_run(c, db_bind(c, DELETE_NEWEST, "i", e.seq), err);
    *n = rc ? 0 : sqlite3_changes(c->db);
    experiment_release(&e);
    return db_end(store, rc, err);
}

/* What a hundred thousand epochs left takes seconds to delete, in which nobody else could write. So
 * it goes bit by bit, and the experiment itself last: when the daemon ends in between it is still
 * there, to be deleted again. */
int store_delete_experiment(struct store *store, const char *id, struct ovr_err *err) {
    enum { FEW = 2000 };
    const struct timespec turn = {.tv_nsec = 1000000}; /* for those who wait for the writer */
    struct connection *c = &store->writer;
    struct experiment e = {0};
    int n = 0, rc;
    while (!(rc = delete_newest(store, id, &n, err)) && n > FEW)
        nanosleep(&turn, NULL);
    if (!rc)
        rc = db_begin(store, err);
    if (rc)
        return rc;
    rc = find_deletable(c, id, &e, err);
    if (!rc)
        rc = db_run(c, db_bind(c, NOTE_LOSS, "ii", e.seq, e.revision), err);
    if (!rc)
        rc = put_tags(c, REMOVE_TAG, e.seq, e.tags, err);
    if (!rc)
        rc = delete_experiment(c, e.seq, err);
    if (!rc)
        rc = audit(c, "experiment.delete", id, e.name, err);
    experiment_release(&e);
    return db_end(store, rc, err);
}

int store_may_delete(struct store *store, const char *id, struct ovr_err *err) {
    struct connection *c = db_take_reader(store);
    struct experiment e = {0};
    int rc = find_deletable(c, id, &e, err);
    experiment_release(&e);
    db_give_back(c);
    return rc;
}

int store_census(struct store *store, struct census *census, struct ovr_err *err) {
    struct connection *c = db_take_reader(store);
    sqlite3_stmt *row = db_bind(c, CENSUS, "");
    char name[16];
    int step;
    *census = (struct census){0};
    while ((step = sqlite3_step(row)) == SQLITE_ROW) {
        copy_column(row, 0, name, sizeof name);
        enum state state = find_state(name);
        census->count[state] = sqlite3_column_int64(row, 1);
        census->oldest_at[state] = sqlite3_column_int64(row, 2);
    }
    int rc = step == SQLITE_DONE ? 0 : db_fail(c, err);
    sqlite3_reset(row);
    db_give_back(c);
    return rc;
}

int store_read_owners(struct store *store,
                      void (*give)(void *context, const char *owner, enum state state, int64_t n),
                      void *context, struct ovr_err *err) {
    struct connection *c = db_take_reader(store);
    sqlite3_stmt *row = db_bind(c, OWNERS, "");
    char owner[USER_NAME_SIZE], state[16];
    int step;
    while ((step = sqlite3_step(row)) == SQLITE_ROW) {
        copy_column(row, 0, owner, sizeof owner);
        copy_column(row, 1, state, sizeof state);
        give(context, owner, find_state(state), sqlite3_column_int64(row, 2));
    }
    int rc = step == SQLITE_DONE ? 0 : db_fail(c, err);
    sqlite3_reset(row);
    db_give_back(c);
    return rc;
}

int store_tensor_bytes(struct store *store, int64_t *bytes, struct ovr_err *err) {
    struct connection *c = db_take_reader(store);
    sqlite3_stmt *row = db_bind(c, TENSOR_BYTES, "");
    int rc = sqlite3_step(row) == SQLITE_ROW ? 0 : db_fail(c, err);
    *bytes = rc ? 0 : sqlite3_column_int64(row, 0);
    sqlite3_reset(row);
    db_give_back(c);
    return rc;
}

int store_probe(struct store *store, struct ovr_err *err) {
    struct connection *c = &store->writer;
    int rc = db_begin(store, err);
    if (rc)
        return rc;
    return db_end(store, db_run(c, db_bind(c, PROBE, "i", now_ms()), err), err);
}

static int sync_file(const char *path, struct ovr_err *err) {
    int fd = open(path, O_RDONLY | O_CLOEXEC), rc = 0;
    if (fd < 0 || fsync(fd))
        rc = files_fail(err, "bring a copy of the database to the disk");
    if (fd >= 0)
        close(fd);
    return rc;
}

static int is_stopped(void *stop) {
    return *(const _Atomic int *)stop;
}

/* On a connection of its own, so that nobody waits for it: it reads the state of one moment. */
int store_copy(struct store *store, const char *path, const _Atomic int *stop,
               struct ovr_err *err) {
    enum { OPERATIONS = 10000 }; /* between looks at `stop` */
    struct connection c = {0};
    sqlite3_stmt *copy = NULL;
    int rc = 0;
    if (sqlite3_open_v2(sqlite3_db_filename(store->writer.db, "main"), &c.db,
                        SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL) ||
        sqlite3_extended_result_codes(c.db, 1) || sqlite3_busy_timeout(c.db, 10000) ||
        sqlite3_exec(c.db, "PRAGMA wal_autocheckpoint = 0", NULL, NULL, NULL) ||
        sqlite3_prepare_v2(c.db, "VACUUM INTO ?1", -1, &copy, NULL) ||
        sqlite3_bind_text(copy, 1, path, -1, SQLITE_STATIC))
        rc = c.db ? db_fail(&c, err) : ovr_nomem(err, "a copy of the database");
    if (!rc && stop)
        sqlite3_progress_handler(c.db, OPERATIONS, is_stopped, (void *)(uintptr_t)stop);
    if (!rc)
        rc = db_run(&c, copy, err);
    sqlite3_finalize(copy);
    sqlite3_close(c.db);
    return rc ? rc : sync_file(path, err);
}
