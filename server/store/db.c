#include "server/store/db.h"

#include "core/utf8.h"
#include "server/metrics.h"
#include "server/migrations.h"

#include <math.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

int db_fail(struct connection *c, struct ovr_err *err) {
    int code = sqlite3_extended_errcode(c->db), full = (code & 0xff) == SQLITE_FULL;
    return ovr_fail(err, full ? OVR_FULL : OVR_IO, NULL, "the database refused: %s",
                    full ? "the disk is full" : sqlite3_errmsg(c->db));
}

sqlite3_stmt *db_bind(struct connection *c, enum sql which, const char *types, ...) {
    sqlite3_stmt *statement = c->statement[which];
    va_list args;
    va_start(args, types);
    sqlite3_reset(statement);
    sqlite3_clear_bindings(statement);
    for (int i = 1; *types; types++, i++) {
        if (*types == 's') {
            sqlite3_bind_text(statement, i, va_arg(args, const char *), -1, SQLITE_STATIC);
        } else if (*types == 'r') {
            double value = va_arg(args, double);
            if (isfinite(value))
                sqlite3_bind_double(statement, i, value);
        } else {
            int64_t value = va_arg(args, int64_t);
            if (*types == 'i' || value)
                sqlite3_bind_int64(statement, i, value);
        }
    }
    va_end(args);
    return statement;
}

int db_run(struct connection *c, sqlite3_stmt *statement, struct ovr_err *err) {
    int rc;
    while ((rc = sqlite3_step(statement)) == SQLITE_ROW)
        ;
    sqlite3_reset(statement);
    return rc == SQLITE_DONE ? 0 : db_fail(c, err);
}

/* ---- Transactions ---- */

int db_begin(struct store *store, struct ovr_err *err) {
    struct connection *c = &store->writer;
    atomic_fetch_add(&store->coming, 1);
    pthread_mutex_lock(&c->lock);
    atomic_fetch_sub(&store->coming, 1);
    store->n_changed_before = store->n_changed;
    int rc = db_run(c, db_bind(c, store->sharers ? SAVEPOINT : BEGIN, ""), err);
    return rc ? db_end(store, rc, err) : 0;
}

static int64_t now_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* The transaction of all who share it has come to its end. */
static void settle(struct store *store, int rc, const char *why) {
    tell_changes(store, !rc);
    if (!store->sharers)
        return;
    pthread_mutex_lock(&store->sharing);
    for (struct sharer *s = store->sharers; s; s = s->next) {
        s->rc = rc ? ovr_fail(s->err, rc, NULL, "%s", why) : 0;
        s->settled = 1;
    }
    store->sharers = NULL;
    pthread_cond_broadcast(&store->settled);
    pthread_mutex_unlock(&store->sharing);
}

/* Ends one's own part of the transaction. After some faults SQLite has taken back all of it; then
 * the others learn of it here. */
static int end_part(struct store *store, int rc, struct ovr_err *err) {
    struct connection *c = &store->writer;
    if (!rc && store->sharers)
        rc = db_run(c, db_bind(c, RELEASE, ""), err);
    if (!rc && sqlite3_get_autocommit(c->db))
        rc = ovr_fail(err, OVR_IO, NULL, "the database has given the transaction up");
    if (!rc)
        return 0;
    store->n_changed = store->n_changed_before;
    if (!sqlite3_get_autocommit(c->db) &&
        (!store->sharers || db_run(c, db_bind(c, ROLLBACK_TO, ""), NULL) ||
         db_run(c, db_bind(c, RELEASE, ""), NULL)))
        db_run(c, db_bind(c, ROLLBACK, ""), NULL);
    if (sqlite3_get_autocommit(c->db))
        settle(store, rc == OVR_FULL ? OVR_FULL : OVR_IO,
               "the database refused the transaction that this was to be stored with");
    return rc;
}

/* Of all parts that are left. */
static int commit(struct store *store, struct ovr_err *err) {
    struct connection *c = &store->writer;
    struct ovr_err why = {0};
    int64_t started = now_us();
    int rc = db_run(c, db_bind(c, COMMIT, ""), &why);
    metrics_time(TIME_STORE, (double)(now_us() - started) / 1e6);
    if (rc && !sqlite3_get_autocommit(c->db))
        db_run(c, db_bind(c, ROLLBACK, ""), NULL);
    settle(store, rc, why.text);
    return rc ? ovr_fail(err, rc, NULL, "%s", why.text) : 0;
}

/* For the others too, where one's own part failed. */
static int commit_rest(struct store *store, int rc, struct ovr_err *err) {
    if (!rc)
        rc = commit(store, err);
    else if (store->sharers)
        commit(store, NULL);
    runs_settle_use(&store->runs, !rc);
    return rc;
}

int db_commit(struct store *store, int rc, struct ovr_err *err) {
    rc = end_part(store, rc, err);
    return commit_rest(store, rc, err);
}

void db_release_writer(struct store *store) {
    pthread_mutex_unlock(&store->writer.lock);
}

/* Leaves the commit to who comes next. */
static int share(struct store *store, struct ovr_err *err) {
    struct sharer me = {.next = store->sharers, .err = err};
    store->sharers = &me;
    db_release_writer(store);
    pthread_mutex_lock(&store->sharing);
    while (!me.settled)
        pthread_cond_wait(&store->settled, &store->sharing);
    pthread_mutex_unlock(&store->sharing);
    return me.rc;
}

int db_end(struct store *store, int rc, struct ovr_err *err) {
    rc = end_part(store, rc, err);
    int others = atomic_load(&store->coming) > 0;
    if (!rc && others)
        return share(store, err);
    if (!others)
        rc = commit_rest(store, rc, err);
    db_release_writer(store);
    return rc;
}

/* ---- Readers ---- */

/* One that is free, so that nobody waits behind a long list; there are enough as a rule. */
struct connection *db_take_reader(struct store *store) {
    struct connection *c = store->readers;
    for (int i = 0; i < store->n_readers; i++) {
        c = &store->readers[store->turn++ % (unsigned)store->n_readers];
        if (pthread_mutex_trylock(&c->lock) == 0)
            return c;
    }
    pthread_mutex_lock(&c->lock);
    return c;
}

void db_give_back(struct connection *c) {
    pthread_mutex_unlock(&c->lock);
}

void copy_column(sqlite3_stmt *row, int column, char *text, size_t size) {
    const unsigned char *value = sqlite3_column_text(row, column);
    int n = snprintf(text, size, "%s", value ? (const char *)value : "");
    if (n >= (int)size)
        utf8_mend(text); /* it may have been cut inside a character */
}

char *dup_column(sqlite3_stmt *row, int column, int *failed) {
    const unsigned char *value = sqlite3_column_text(row, column);
    if (!value)
        return NULL;
    char *copy = strdup((const char *)value);
    *failed |= !copy;
    return copy;
}

double real_column(sqlite3_stmt *row, int column) {
    return sqlite3_column_type(row, column) == SQLITE_NULL ? NAN
                                                           : sqlite3_column_double(row, column);
}

void *grow(void *array, size_t n, size_t size) {
    if (n & (n - 1)) /* room is always a power of two */
        return array;
    return realloc(array, (n ? 2 * n : 1) * size);
}

static int read_row(sqlite3_stmt *row, const struct row_reader *reader, const void *context,
                    struct rows *rows, struct ovr_err *err) {
    char *longer = grow(rows->items, rows->n, reader->size);
    if (!longer)
        return ovr_nomem(err, reader->what);
    rows->items = longer;
    int rc = reader->read(context, row, longer + rows->n * reader->size, err);
    rows->n += !rc;
    return rc;
}

int db_read_list(struct connection *c, sqlite3_stmt *row, const struct row_reader *reader,
                 const void *context, struct rows *rows, struct ovr_err *err) {
    int rc = 0, step = SQLITE_DONE;
    *rows = (struct rows){0};
    while (!rc && (step = sqlite3_step(row)) == SQLITE_ROW)
        rc = read_row(row, reader, context, rows, err);
    if (!rc && step != SQLITE_DONE)
        rc = db_fail(c, err);
    sqlite3_reset(row);
    if (!rc)
        return 0;
    char *items = rows->items;
    for (size_t i = 0; reader->release && i < rows->n; i++)
        reader->release(items + i * reader->size);
    free(items);
    *rows = (struct rows){0};
    return rc;
}

/* ---- Opening ---- */

static int prepare_all(struct connection *c, struct ovr_err *err) {
    for (int i = 0; i < N_SQL; i++)
        if (sqlite3_prepare_v3(c->db, sql[i], -1, SQLITE_PREPARE_PERSISTENT, &c->statement[i],
                               NULL))
            return db_fail(c, err);
    return 0;
}

static int connect(struct connection *c, const char *path, const char *pragmas,
                   struct ovr_err *err) {
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
    if (sqlite3_open_v2(path, &c->db, flags, NULL)) {
        int rc = ovr_fail(err, OVR_IO, path, "cannot open the database %s: %s", path,
                          c->db ? sqlite3_errmsg(c->db) : "not enough memory");
        return rc;
    }
    sqlite3_extended_result_codes(c->db, 1);
    sqlite3_busy_timeout(c->db, 10000);
    if (sqlite3_exec(c->db, pragmas, NULL, NULL, NULL))
        return ovr_fail(err, OVR_IO, path, "cannot open the database %s: %s", path,
                        sqlite3_errmsg(c->db));
    return 0;
}

/* The one number that a query gives, or a negative code. */
static int read_number(struct connection *c, const char *query, struct ovr_err *err) {
    sqlite3_stmt *statement;
    if (sqlite3_prepare_v2(c->db, query, -1, &statement, NULL))
        return db_fail(c, err);
    int number = sqlite3_step(statement) == SQLITE_ROW ? sqlite3_column_int(statement, 0) : -1;
    sqlite3_finalize(statement);
    return number < 0 ? db_fail(c, err) : number;
}

static int migrate(struct connection *c, struct ovr_err *err) {
    int version = read_number(c, "PRAGMA user_version", err), newest = 0;
    int tables = read_number(c, "SELECT count(*) FROM sqlite_master", err);
    if (version < 0 || tables < 0)
        return version < 0 ? version : tables;
    if (version == 0 && tables > 0)
        return ovr_fail(err, OVR_CONFLICT, NULL,
                        "the database in the data directory belongs to another program; choose "
                        "another --data-dir");
    while (migrations[newest])
        newest++;
    if (version > newest)
        return ovr_fail(err, OVR_CONFLICT, NULL,
                        "the database was written by a newer ovrd (schema %d, this program knows "
                        "%d); install that version again",
                        version, newest);
    for (; version < newest; version++) {
        char *step = sqlite3_mprintf("BEGIN IMMEDIATE; %s; PRAGMA user_version = %d; COMMIT;",
                                     migrations[version], version + 1);
        int rc = step ? sqlite3_exec(c->db, step, NULL, NULL, NULL) : SQLITE_NOMEM;
        sqlite3_free(step);
        if (rc) {
            db_fail(c, err);
            sqlite3_exec(c->db, "ROLLBACK", NULL, NULL, NULL);
            return OVR_IO;
        }
    }
    return 0;
}

int store_open(struct store **out, const char *path, int readers, struct ovr_err *err) {
    *out = NULL;
    struct store *store = calloc(1, sizeof *store);
    if (!store)
        return ovr_nomem(err, "the store");
    store->readers = calloc((size_t)readers, sizeof *store->readers);
    if (!store->readers) {
        free(store);
        return ovr_nomem(err, "the store");
    }
    store->n_readers = readers;
    runs_init(&store->runs);
    store->rules = (struct queue_rules){86400000, INT64_MAX};
    pthread_mutex_init(&store->blocked_lock, NULL);
    pthread_mutex_init(&store->writer.lock, NULL);
    pthread_mutex_init(&store->sharing, NULL);
    pthread_cond_init(&store->settled, NULL);
    for (int i = 0; i < readers; i++)
        pthread_mutex_init(&store->readers[i].lock, NULL);
    /* What a part of a transaction may have to take back stays in memory: a file for it would need
     * a directory of its own that can be written. For the whole process, before anything is opened.
     */
    sqlite3_config(SQLITE_CONFIG_STMTJRNL_SPILL, -1);
    int rc =
        connect(&store->writer, path, "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;", err);
    if (!rc)
        rc = migrate(&store->writer, err);
    /* Only now: a migration that makes a table anew drops the old one. */
    if (!rc && sqlite3_exec(store->writer.db, "PRAGMA foreign_keys = ON", NULL, NULL, NULL))
        rc = db_fail(&store->writer, err);
    if (!rc)
        rc = begin_events(store, err);
    if (!rc)
        rc = prepare_all(&store->writer, err);
    for (int i = 0; !rc && i < readers; i++) {
        rc = connect(&store->readers[i], path,
                     "PRAGMA query_only = ON; PRAGMA wal_autocheckpoint = 0; PRAGMA mmap_size = "
                     "1073741824;",
                     err);
        if (!rc)
            rc = prepare_all(&store->readers[i], err);
    }
    if (rc) {
        store_close(store);
        return rc;
    }
    *out = store;
    return 0;
}

static void disconnect(struct connection *c) {
    for (int i = 0; i < N_SQL; i++)
        sqlite3_finalize(c->statement[i]);
    sqlite3_close(c->db);
    pthread_mutex_destroy(&c->lock);
}

void store_close(struct store *store) {
    if (!store)
        return;
    for (int i = 0; i < store->n_readers; i++)
        disconnect(&store->readers[i]);
    disconnect(&store->writer);
    runs_release(&store->runs);
    pthread_mutex_destroy(&store->blocked_lock);
    pthread_mutex_destroy(&store->sharing);
    pthread_cond_destroy(&store->settled);
    free(store->blocked);
    free(store->readers);
    free(store);
}
