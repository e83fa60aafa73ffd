#include "server/store.h"

#include "core/real.h"
#include "server/log.h"
#include "server/migrations.h"
#include "server/runs.h"

#include <math.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

const char *const state_names[N_STATES] = {"queued", "running", "succeeded", "failed", "cancelled"};

/* The number of the epoch that is a line of the log. */
enum { LOG_EPOCH = 0 };

/* All SQL, by name. Every connection prepares all of it when it opens, so a slip shows at start. */
#define EXPERIMENT_COLUMNS                                                                         \
    "seq, id, name, tags, spec, priority, state, revision, memory_bytes, created_at, started_at, " \
    "finished_at, attempts, queue_reason, problem_kind, problem_pointer, problem_detail, "         \
    "(SELECT s.id FROM sweep AS s WHERE s.seq = sweep), point, repeat"
/* What only a queued one has. */
#define QUEUE_COLUMNS                                                                              \
    ", (SELECT p.id FROM experiment AS p WHERE p.seq = e.waits_for), CASE state WHEN 'queued' "    \
    "THEN (SELECT count(*) FROM experiment AS q WHERE q.state = 'queued' AND (q.priority > "       \
    "e.priority OR (q.priority = e.priority AND q.seq <= e.seq))) END"
#define SWEEP_COLUMNS                                                                              \
    "s.seq, s.id, s.name, s.tags, s.notes, s.request, s.axes, s.target, s.points, s.repeats, "     \
    "s.more, s.cancelled, s.created_at, max(e.finished_at), s.revision + total(e.revision), "      \
    "total(e.state = 'queued'), total(e.state = 'running'), total(e.state = 'succeeded'), "        \
    "total(e.state = 'failed'), total(e.state = 'cancelled')"
#define SPLIT_COLUMNS                                                                              \
    "dataset, split, sha256, format, bytes, samples, width, classes, created_at, source_sha256, "  \
    "channels, height, image_width, interleaved, named"

/* A layer's number: that of the last one where it is negative. */
#define LAYER(number, table)                                                                       \
    "CASE WHEN " number " < 0 THEN (SELECT max(layer) FROM " table                                 \
    " WHERE experiment = ?1) ELSE " number " END"

enum sql {
    BEGIN,
    BEGIN_READING,
    COMMIT,
    ROLLBACK,
    ADD_EXPERIMENT,
    ADD_KEY,
    FIND_KEY,
    GET_EXPERIMENT,
    LIST_EXPERIMENTS,
    FIRST_IN_QUEUE,
    COUNT_QUEUE,
    CLAIM,
    ADD_FIGURE,
    TOUCH,
    ADD_HISTOGRAM,
    ADD_TENSOR,
    ADD_UNIT_TABLE,
    FINISH,
    REQUEUE,
    COUNT_CRASH,
    GIVE_UP,
    RUNNING,
    DELETE_FIGURES,
    DELETE_HISTOGRAMS,
    NOTE_CHECKPOINT,
    CANCEL,
    RELEASE_NEXT,
    BREAK_CHAINS,
    ADD_SWEEP,
    ADD_POINT,
    EXTEND_SWEEP,
    CLOSE_SWEEP,
    GET_SWEEP,
    LIST_SWEEPS,
    DUE_SWEEP,
    SWEEP_POINTS,
    SWEEP_RUNS,
    SWEEP_FIGURES,
    SWEEP_RUNNING,
    CANCEL_SWEEP,
    CANCEL_RUNS,
    READ_FIGURES,
    READ_HISTOGRAM,
    READ_HISTOGRAMS,
    READ_UNIT_TABLE,
    READ_TENSORS,
    HAVE_SPLIT,
    RETIRE_SPLITS,
    PUT_SPLIT,
    GET_SPLIT,
    LIST_SPLITS,
    USER_OF_DATASET,
    RETIRE_DATASET,
    FORGET_VERSIONS,
    PUT_PART,
    GET_PART,
    FORGET_PARTS,
    IS_STORED,
    ADD_LINE,
    TRIM_LINES,
    READ_EVENTS,
    LAST_EVENT,
    N_SQL
};

static const char *const sql[N_SQL] = {
    [BEGIN] = "BEGIN IMMEDIATE",
    [BEGIN_READING] = "BEGIN",
    [COMMIT] = "COMMIT",
    [ROLLBACK] = "ROLLBACK",
    [ADD_EXPERIMENT] = "INSERT INTO experiment (id, name, tags, spec, priority, memory_bytes, "
                       "created_at, sweep, point, repeat, waits_for, state) VALUES "
                       "(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, 'queued')",
    [ADD_KEY] = "INSERT INTO idempotency (key, body_sha256, experiment, sweep, created_at) "
                "VALUES (?1, ?2, ?3, ?4, ?5)",
    [FIND_KEY] = "SELECT coalesce(e.id, s.id), i.body_sha256, i.sweep IS NOT NULL "
                 "FROM idempotency AS i LEFT JOIN experiment AS e ON e.seq = i.experiment "
                 "LEFT JOIN sweep AS s ON s.seq = i.sweep WHERE i.key = ?1",
    [GET_EXPERIMENT] =
        "SELECT " EXPERIMENT_COLUMNS QUEUE_COLUMNS " FROM experiment AS e WHERE id = ?1",
    [LIST_EXPERIMENTS] =
        "SELECT " EXPERIMENT_COLUMNS QUEUE_COLUMNS
        " FROM experiment AS e WHERE seq < ?1 AND (?2 IS NULL OR "
        "state = ?2) AND (?3 IS NULL OR instr(tags, char(10) || ?3 || char(10))) AND (?4 IS NULL "
        "OR substr(name, 1, length(?4)) = ?4) AND (?5 IS NULL OR sweep = (SELECT s.seq FROM sweep "
        "AS s WHERE s.id = ?5)) ORDER BY seq DESC LIMIT ?6",
    [FIRST_IN_QUEUE] = "SELECT seq, memory_bytes FROM experiment WHERE state = 'queued' "
                       "AND waits_for IS NULL ORDER BY priority DESC, seq LIMIT 1",
    [COUNT_QUEUE] = "SELECT count(*) FROM (SELECT 1 FROM experiment WHERE state = 'queued' "
                    "AND waits_for IS NULL LIMIT ?1)",
    [CLAIM] =
        "UPDATE experiment SET state = 'running', revision = revision + 1, started_at = "
        "?2, attempts = attempts + 1, queue_reason = NULL WHERE seq = ?1 AND state = 'queued' "
        "RETURNING " EXPERIMENT_COLUMNS ", NULL, NULL",
    [ADD_FIGURE] = "INSERT OR REPLACE INTO figure (experiment, epoch, position, name, value) "
                   "VALUES (?1, ?2, ?3, ?4, ?5)",
    [TOUCH] = "UPDATE experiment SET revision = revision + ?2 WHERE seq = ?1 AND state = 'running'",
    [ADD_HISTOGRAM] = "INSERT OR REPLACE INTO histogram (experiment, epoch, split, zero_count, "
                      "total, maximum, layer, counts) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    [ADD_TENSOR] = "INSERT OR REPLACE INTO tensor (experiment, epoch, position, name, dtype, "
                   "dimensions, rows, columns) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    [ADD_UNIT_TABLE] =
        "INSERT OR REPLACE INTO unit_table (experiment, layer, split, units, classes, "
        "cells) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    [FINISH] = "UPDATE experiment SET state = ?2, revision = revision + 1, finished_at = ?3, "
               "problem_kind = ?4, problem_pointer = ?5, problem_detail = ?6 "
               "WHERE seq = ?1 AND state = 'running'",
    [REQUEUE] = "UPDATE experiment SET state = 'queued', revision = revision + 1, started_at = "
                "NULL, queue_reason = ?2 WHERE seq = ?1 AND state = 'running'",
    [COUNT_CRASH] = "UPDATE experiment SET crashes = crashes + 1 WHERE state = 'running'",
    [GIVE_UP] = "UPDATE experiment SET state = 'failed', revision = revision + 1, finished_at = "
                "?1, problem_kind = 'crashed', problem_detail = 'the daemon ended ' || crashes || "
                "' times while this experiment ran; it may need more memory than the machine has. "
                "Post it again once the cause is found' "
                "WHERE state = 'running' AND crashes >= ?2",
    [RUNNING] = "SELECT seq FROM experiment WHERE state = 'running'",
    [DELETE_FIGURES] = "DELETE FROM figure WHERE experiment = ?1 AND epoch >= ?2",
    [DELETE_HISTOGRAMS] = "DELETE FROM histogram WHERE experiment = ?1 AND epoch >= ?2",
    [NOTE_CHECKPOINT] = "UPDATE experiment SET crashes = 0 WHERE seq = ?1 AND crashes > 0",
    [CANCEL] = "UPDATE experiment SET state = 'cancelled', revision = revision + 1, finished_at = "
               "?2, queue_reason = NULL, waits_for = NULL WHERE seq = ?1 AND state IN ('queued', "
               "'running')",
    [RELEASE_NEXT] = "UPDATE experiment SET waits_for = NULL, revision = revision + 1 "
                     "WHERE waits_for = ?1",
    [BREAK_CHAINS] =
        "WITH RECURSIVE broken (seq, why) AS (SELECT e.seq, 'experiment ' || p.id || CASE WHEN "
        "p.point IS NULL THEN '' ELSE ' (point ' || p.point || ')' END || ', whose weights it was "
        "to start from, ' || CASE p.state WHEN 'failed' THEN 'failed' ELSE 'was cancelled' END "
        "FROM experiment AS e JOIN experiment AS p ON p.seq = e.waits_for WHERE e.waits_for IS NOT "
        "NULL AND e.state = 'queued' AND p.state IN ('failed', 'cancelled') UNION ALL SELECT "
        "e.seq, b.why FROM broken AS b JOIN experiment AS e ON e.waits_for = b.seq WHERE e.state = "
        "'queued') UPDATE experiment SET state = 'failed', revision = revision + 1, finished_at = "
        "?1, problem_kind = 'chain-broken', problem_detail = broken.why, waits_for = NULL "
        "FROM broken WHERE experiment.seq = broken.seq",
    [ADD_SWEEP] = "INSERT INTO sweep (id, name, tags, notes, request, axes, target, points, "
                  "repeats, more, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, "
                  "?11)",
    [ADD_POINT] = "INSERT INTO sweep_point (sweep, point, axis_values) VALUES (?1, ?2, ?3)",
    [EXTEND_SWEEP] = "UPDATE sweep SET points = points + ?3, revision = revision + 1 WHERE seq = "
                     "?1 AND points = ?2 AND more",
    [CLOSE_SWEEP] = "UPDATE sweep SET more = 0, revision = revision + 1 WHERE seq = ?1 AND points "
                    "= ?2 AND more",
    [GET_SWEEP] = "SELECT " SWEEP_COLUMNS " FROM sweep AS s LEFT JOIN experiment AS e ON e.sweep = "
                  "s.seq WHERE s.id = ?1 GROUP BY s.seq",
    [LIST_SWEEPS] = "SELECT " SWEEP_COLUMNS " FROM (SELECT * FROM sweep WHERE seq < ?1 ORDER BY "
                    "seq DESC LIMIT ?2) AS s LEFT JOIN experiment AS e ON e.sweep = s.seq GROUP BY "
                    "s.seq ORDER BY s.seq DESC",
    [DUE_SWEEP] = "SELECT id FROM sweep WHERE more AND NOT EXISTS (SELECT 1 FROM experiment AS e "
                  "WHERE e.sweep = sweep.seq AND e.state IN ('queued', 'running')) LIMIT 1",
    [SWEEP_POINTS] = "SELECT point, axis_values FROM sweep_point WHERE sweep = ?1 ORDER BY point",
    [SWEEP_RUNS] = "SELECT point, repeat, id, state, problem_kind, problem_detail FROM experiment "
                   "WHERE sweep = ?1 ORDER BY point, repeat",
    [SWEEP_FIGURES] =
        "SELECT e.point, f.name, f.value, e.repeat FROM experiment AS e CROSS JOIN figure AS f ON "
        "f.experiment = e.seq AND f.epoch = 0 WHERE e.sweep = ?1 ORDER BY e.point, e.repeat, "
        "f.position",
    [SWEEP_RUNNING] = "SELECT seq, id FROM experiment WHERE sweep = ?1 AND state = 'running'",
    [CANCEL_SWEEP] = "UPDATE sweep SET cancelled = 1, more = 0, revision = revision + 1 "
                     "WHERE seq = ?1",
    [CANCEL_RUNS] = "UPDATE experiment SET state = 'cancelled', revision = revision + 1, "
                    "finished_at = ?2, queue_reason = NULL, waits_for = NULL "
                    "WHERE sweep = ?1 AND state IN ('queued', 'running')",
    [READ_FIGURES] = "SELECT epoch, name, value FROM figure WHERE experiment = ?1 AND epoch "
                     "BETWEEN ?2 AND ?3 ORDER BY epoch, position",
    [READ_HISTOGRAM] =
        "SELECT split, zero_count, total, maximum, counts, epoch, layer FROM histogram WHERE "
        "experiment = ?1 AND (?2 = 0 OR epoch = ?2) AND (?3 = '' OR split = ?3) AND layer = " LAYER(
            "?4", "histogram") " "
                               "ORDER BY epoch = 0 DESC, epoch DESC, split LIMIT 1",
    [READ_HISTOGRAMS] =
        "SELECT split, zero_count, total, maximum, counts, epoch, layer FROM histogram WHERE "
        "experiment = ?1 AND layer = " LAYER(
            "?2", "histogram") " AND epoch >= ?3 ORDER BY epoch, split LIMIT ?4",
    [READ_UNIT_TABLE] =
        "SELECT split, units, classes, cells, layer FROM unit_table WHERE experiment = "
        "?1 AND layer = " LAYER("?2", "unit_table"),
    [READ_TENSORS] = "SELECT name, dtype, dimensions, rows, columns FROM tensor WHERE experiment = "
                     "?1 AND epoch = ?2 ORDER BY position",
    [HAVE_SPLIT] = "SELECT 1 FROM dataset_split WHERE dataset = ?1 AND split = ?2 AND sha256 = ?3 "
                   "AND current",
    [RETIRE_SPLITS] = "UPDATE dataset_split SET current = 0 WHERE dataset = ?1 AND split = ?2",
    [PUT_SPLIT] =
        "INSERT INTO dataset_split (" SPLIT_COLUMNS ", current) VALUES (?1, ?2, ?3, ?4, ?5, ?6, "
        "?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, 1) ON CONFLICT (dataset, split, sha256) DO "
        "UPDATE SET current = 1",
    [GET_SPLIT] = "SELECT " SPLIT_COLUMNS " FROM dataset_split WHERE dataset = ?1 AND split = ?2 "
                  "AND CASE ?3 WHEN '' THEN current ELSE sha256 = ?3 END",
    [LIST_SPLITS] = "SELECT " SPLIT_COLUMNS " FROM dataset_split WHERE current AND (?1 IS NULL OR "
                    "dataset = ?1) ORDER BY dataset, split DESC",
    [USER_OF_DATASET] =
        "SELECT id FROM experiment WHERE state NOT IN ('succeeded', 'failed', 'cancelled') AND "
        "json_extract(spec, '$.dataset.name') = ?1 LIMIT 1",
    [RETIRE_DATASET] = "UPDATE dataset_split SET current = 0 WHERE dataset = ?1 AND current",
    [FORGET_VERSIONS] =
        "DELETE FROM dataset_split WHERE dataset = ?1 AND sha256 NOT IN (SELECT "
        "coalesce(json_extract(spec, '$.dataset.version.' || split), '') FROM experiment WHERE "
        "json_extract(spec, '$.dataset.name') = ?1)",
    [PUT_PART] =
        "INSERT INTO dataset_part (dataset, split, part, sha256, format, samples, created_at) "
        "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (dataset, split, part) DO UPDATE SET "
        "sha256 = ?4, format = ?5, samples = ?6, created_at = ?7",
    [GET_PART] = "SELECT sha256, format, samples, created_at FROM dataset_part WHERE dataset = ?1 "
                 "AND split = ?2 AND part = ?3",
    [FORGET_PARTS] = "DELETE FROM dataset_part WHERE dataset = ?1 AND (?2 IS NULL OR split = ?2)",
    [IS_STORED] = "SELECT 1 FROM dataset_split WHERE sha256 = ?1 UNION ALL SELECT 1 FROM "
                  "dataset_part WHERE sha256 = ?1",
    [ADD_LINE] = "INSERT INTO event (experiment, number, at, kind, text) SELECT ?1, "
                 "coalesce(max(number), 0) + 1, ?2, 'log', ?3 FROM event WHERE experiment = ?1",
    [TRIM_LINES] =
        "DELETE FROM event WHERE experiment = ?1 AND kind = 'log' AND number <= (SELECT number "
        "FROM "
        "event WHERE experiment = ?1 AND kind = 'log' ORDER BY number DESC LIMIT 1 OFFSET ?2)",
    [READ_EVENTS] = "SELECT number, at, kind, epoch, text, detail FROM event WHERE experiment = ?1 "
                    "AND number > ?2 ORDER BY number LIMIT ?3",
    [LAST_EVENT] = "SELECT max(number) FROM event WHERE experiment = ?1",
};

/* Events of states and epochs, by triggers: so no change of a state goes without its event, whoever
 * makes it. Temporary ones of the connection that writes. */
#define NEXT_EVENT(seq, columns, values)                                                           \
    "INSERT INTO event (experiment, number, at, kind, " columns ") SELECT " seq                    \
    ", coalesce(max(number), 0) + 1, CAST(round((julianday('now') - 2440587.5) * 86400000) AS "    \
    "INTEGER), " values " FROM event WHERE experiment = " seq "; END; "
static const char event_triggers[] =
    "CREATE TEMP TRIGGER event_added AFTER INSERT ON main.experiment BEGIN " NEXT_EVENT(
        "new.seq", "text, detail", "'state', new.state, new.queue_reason") //
    "CREATE TEMP TRIGGER event_state AFTER UPDATE OF state ON main.experiment WHEN old.state <> "
    "new.state BEGIN " NEXT_EVENT("new.seq", "text, detail",
                                  "'state', new.state, coalesce(new.problem_detail, "
                                  "new.queue_reason)") //
    "CREATE TEMP TRIGGER event_epoch AFTER INSERT ON main.figure WHEN new.position = 0 AND "
    "new.epoch >= 1 AND NOT EXISTS (SELECT 1 FROM event WHERE experiment = new.experiment AND "
    "epoch = new.epoch) BEGIN " NEXT_EVENT("new.experiment", "epoch", "'epoch', new.epoch");

enum { MOST_CHANGED = 64 };

struct connection {
    sqlite3 *db;
    sqlite3_stmt *statement[N_SQL];
    pthread_mutex_t lock;
};

struct store {
    struct connection writer;
    struct connection *readers;
    int n_readers;
    _Atomic unsigned turn;
    struct runs runs;
    /* Experiments that the transaction at hand changes, for who listens. */
    int64_t changed[MOST_CHANGED];
    size_t n_changed; /* more than there is room for: who knows which */
    void (*listener)(void *context, const int64_t *seqs, size_t n);
    void *listener_context;
};

static int db_fail(struct connection *c, struct ovr_err *err) {
    int code = sqlite3_extended_errcode(c->db), full = (code & 0xff) == SQLITE_FULL;
    return ovr_fail(err, full ? OVR_FULL : OVR_IO, NULL, "the database refused: %s",
                    full ? "the disk is full" : sqlite3_errmsg(c->db));
}

/* Binding: one letter for each value. i int64, I int64 or NULL for 0, s text or NULL, r real (NULL
 * when not finite). */
static sqlite3_stmt *bind(struct connection *c, enum sql which, const char *types, ...) {
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

/* Runs a bound statement that returns no rows we want. */
static int run(struct connection *c, sqlite3_stmt *statement, struct ovr_err *err) {
    int rc;
    while ((rc = sqlite3_step(statement)) == SQLITE_ROW)
        ;
    sqlite3_reset(statement);
    return rc == SQLITE_DONE ? 0 : db_fail(c, err);
}

static int begin(struct store *store, struct ovr_err *err) {
    pthread_mutex_lock(&store->writer.lock);
    int rc = run(&store->writer, bind(&store->writer, BEGIN, ""), err);
    if (rc)
        pthread_mutex_unlock(&store->writer.lock);
    return rc;
}

/* Commits if rc is 0, else rolls back; returns rc or what went wrong with the commit. The writer
 * stays taken. */
static int commit(struct store *store, int rc, struct ovr_err *err) {
    struct connection *c = &store->writer;
    if (!rc)
        rc = run(c, bind(c, COMMIT, ""), err);
    if (rc && !sqlite3_get_autocommit(c->db))
        run(c, bind(c, ROLLBACK, ""), NULL);
    if (!rc && store->n_changed && store->listener)
        store->listener(store->listener_context, store->changed,
                        store->n_changed > MOST_CHANGED ? 0 : store->n_changed);
    store->n_changed = 0;
    return rc;
}

static void release_writer(struct store *store) {
    pthread_mutex_unlock(&store->writer.lock);
}

/* The usual end of what begin() began. */
static int end(struct store *store, int rc, struct ovr_err *err) {
    rc = commit(store, rc, err);
    release_writer(store);
    return rc;
}

/* The same for a transaction that ends a run. */
static int end_run(struct store *store, int64_t seq, int rc, struct ovr_err *err) {
    rc = commit(store, rc, err);
    if (!rc)
        runs_end(&store->runs, seq);
    release_writer(store);
    return rc;
}

/* One that is free, so that nobody waits behind a long list; there are enough as a rule. */
static struct connection *take_reader(struct store *store) {
    struct connection *c = store->readers;
    for (int i = 0; i < store->n_readers; i++) {
        c = &store->readers[store->turn++ % (unsigned)store->n_readers];
        if (pthread_mutex_trylock(&c->lock) == 0)
            return c;
    }
    pthread_mutex_lock(&c->lock);
    return c;
}

static void give_back(struct connection *c) {
    pthread_mutex_unlock(&c->lock);
}

/* Opening */

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

/* The rows of the transaction at hand. A sweep's own row is no experiment's: 0. */
static void note_change(void *context, int what, const char *database, const char *table,
                        sqlite3_int64 row) {
    struct store *store = context;
    (void)what;
    (void)database;
    int64_t seq = strcmp(table, "experiment") == 0 ? row : 0;
    if (!seq && strcmp(table, "sweep") != 0)
        return;
    if (store->n_changed && store->n_changed <= MOST_CHANGED &&
        store->changed[store->n_changed - 1] == seq)
        return;
    if (store->n_changed < MOST_CHANGED)
        store->changed[store->n_changed] = seq;
    if (store->n_changed <= MOST_CHANGED)
        store->n_changed++;
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
    pthread_mutex_init(&store->writer.lock, NULL);
    for (int i = 0; i < readers; i++)
        pthread_mutex_init(&store->readers[i].lock, NULL);
    int rc = connect(&store->writer, path,
                     "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; "
                     "PRAGMA foreign_keys = ON;",
                     err);
    if (!rc)
        rc = migrate(&store->writer, err);
    if (!rc && sqlite3_exec(store->writer.db, event_triggers, NULL, NULL, NULL))
        rc = db_fail(&store->writer, err);
    if (!rc)
        sqlite3_update_hook(store->writer.db, note_change, store);
    if (!rc)
        rc = prepare_all(&store->writer, err);
    for (int i = 0; !rc && i < readers; i++) {
        rc = connect(&store->readers[i], path,
                     "PRAGMA query_only = ON; PRAGMA wal_autocheckpoint = 0;", err);
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
    free(store->readers);
    free(store);
}

/* Experiments */

static void copy_column(sqlite3_stmt *row, int column, char *text, size_t size) {
    const unsigned char *value = sqlite3_column_text(row, column);
    snprintf(text, size, "%s", value ? (const char *)value : "");
}

static char *dup_column(sqlite3_stmt *row, int column, int *failed) {
    const unsigned char *value = sqlite3_column_text(row, column);
    if (!value)
        return NULL;
    char *copy = strdup((const char *)value);
    *failed |= !copy;
    return copy;
}

static enum state find_state(const char *name) {
    for (int i = 0; i < N_STATES; i++)
        if (strcmp(name, state_names[i]) == 0)
            return (enum state)i;
    return STATE_FAILED; /* the table's CHECK allows no other name */
}

static int read_experiment(sqlite3_stmt *row, struct experiment *e, struct ovr_err *err) {
    int failed = 0;
    *e = (struct experiment){
        .seq = sqlite3_column_int64(row, 0),
        .name = dup_column(row, 2, &failed),
        .tags = dup_column(row, 3, &failed),
        .spec = dup_column(row, 4, &failed),
        .priority = sqlite3_column_int(row, 5),
        .state = find_state((const char *)sqlite3_column_text(row, 6)),
        .revision = sqlite3_column_int64(row, 7),
        .memory_bytes = sqlite3_column_int64(row, 8),
        .created_at = sqlite3_column_int64(row, 9),
        .started_at = sqlite3_column_int64(row, 10),
        .finished_at = sqlite3_column_int64(row, 11),
        .attempts = sqlite3_column_int(row, 12),
        .queue_reason = dup_column(row, 13, &failed),
        .problem_kind = dup_column(row, 14, &failed),
        .problem_pointer = dup_column(row, 15, &failed),
        .problem_detail = dup_column(row, 16, &failed),
        .point = sqlite3_column_int(row, 18),
        .repeat = sqlite3_column_int(row, 19),
        .position = sqlite3_column_int64(row, 21),
    };
    copy_column(row, 1, e->id, sizeof e->id);
    copy_column(row, 17, e->sweep, sizeof e->sweep);
    copy_column(row, 20, e->waits_for, sizeof e->waits_for);
    if (!failed)
        return 0;
    experiment_release(e);
    return ovr_nomem(err, "an experiment");
}

void experiment_release(struct experiment *e) {
    free(e->name);
    free(e->tags);
    free(e->spec);
    free(e->queue_reason);
    free(e->problem_kind);
    free(e->problem_pointer);
    free(e->problem_detail);
    *e = (struct experiment){0};
}

/* Twelve characters of 5 random bits: short enough to type, without letters that look alike. */
int store_new_id(char id[ID_SIZE], struct ovr_err *err) {
    static const char alphabet[] = "0123456789abcdefghjkmnpqrstvwxyz";
    unsigned char random[ID_SIZE - 1];
    if (getrandom(random, sizeof random, 0) != sizeof random)
        return ovr_fail(err, OVR_IO, NULL, "the system has no random numbers");
    for (size_t i = 0; i < sizeof random; i++)
        id[i] = alphabet[random[i] % 32];
    id[sizeof random] = '\0';
    return 0;
}

/* 0: unknown key. 1: known with this body, *id filled. OVR_CONFLICT: known with another. */
static int find_key(struct connection *c, const char *key, const char *body_sha256, int for_sweep,
                    char id[ID_SIZE], struct ovr_err *err) {
    if (!key)
        return 0;
    sqlite3_stmt *row = bind(c, FIND_KEY, "s", key);
    int rc = 0;
    if (sqlite3_step(row) == SQLITE_ROW) {
        int of_sweep = sqlite3_column_int(row, 2);
        copy_column(row, 0, id, ID_SIZE);
        if (of_sweep == for_sweep &&
            strcmp((const char *)sqlite3_column_text(row, 1), body_sha256) == 0)
            rc = 1;
        else
            rc =
                ovr_fail(err, OVR_CONFLICT, "Idempotency-Key",
                         "this Idempotency-Key was used with another body, for %s %s; use a new "
                         "key for a new %s",
                         of_sweep ? "sweep" : "experiment", id, for_sweep ? "sweep" : "experiment");
    }
    sqlite3_reset(row);
    return rc;
}

/* Where in a sweep; all 0: in none. */
struct membership {
    int64_t sweep, point, repeat, waits_for;
};

static int insert_experiment(struct connection *c, const struct new_experiment *e,
                             const struct membership *member, char id[ID_SIZE],
                             struct ovr_err *err) {
    int rc = 0;
    if (e->id)
        memcpy(id, e->id, ID_SIZE);
    else
        rc = store_new_id(id, err);
    if (rc)
        return rc;
    sqlite3_stmt *statement =
        bind(c, ADD_EXPERIMENT, member->sweep ? "ssssiiiIiiI" : "ssssiii", id, e->name, e->tags,
             e->spec, (int64_t)e->priority, e->memory_bytes, now_ms(), member->sweep, member->point,
             member->repeat, member->waits_for);
    return run(c, statement, err);
}

static int add_key(struct connection *c, const char *key, const char *body_sha256,
                   int64_t experiment, int64_t sweep, struct ovr_err *err) {
    if (!key)
        return 0;
    return run(c, bind(c, ADD_KEY, "ssIIi", key, body_sha256, experiment, sweep, now_ms()), err);
}

int store_add_experiment(struct store *store, const struct new_experiment *e, char id[ID_SIZE],
                         int *repeated, struct ovr_err *err) {
    int rc = begin(store, err);
    if (rc)
        return rc;
    struct connection *c = &store->writer;
    rc = find_key(c, e->idempotency_key, e->body_sha256, 0, id, err);
    *repeated = rc == 1;
    if (!rc)
        rc = insert_experiment(c, e, &(struct membership){0}, id, err);
    if (!rc)
        rc = add_key(c, e->idempotency_key, e->body_sha256, sqlite3_last_insert_rowid(c->db), 0,
                     err);
    return end(store, *repeated ? 0 : rc, err);
}

int store_get_experiment(struct store *store, const char *id, struct experiment *e,
                         struct ovr_err *err) {
    struct connection *c = take_reader(store);
    sqlite3_stmt *row = bind(c, GET_EXPERIMENT, "s", id);
    int rc, step = sqlite3_step(row);
    if (step == SQLITE_ROW)
        rc = read_experiment(row, e, err);
    else if (step == SQLITE_DONE)
        rc = ovr_fail(err, OVR_NOT_FOUND, NULL, "there is no experiment %.40s", id);
    else
        rc = db_fail(c, err);
    sqlite3_reset(row);
    give_back(c);
    return rc;
}

/* Room for one more in an array that doubles. */
static void *grow(void *array, size_t n, size_t size) {
    if (n & (n - 1)) /* room is always a power of two */
        return array;
    return realloc(array, (n ? 2 * n : 1) * size);
}

int store_list_experiments(struct store *store, const struct experiment_filter *f,
                           struct experiment **list, size_t *n, struct ovr_err *err) {
    struct connection *c = take_reader(store);
    sqlite3_stmt *row = bind(c, LIST_EXPERIMENTS, "issssi", f->before ? f->before : INT64_MAX,
                             f->state, f->tag, f->name_prefix, f->sweep, (int64_t)f->limit);
    int rc = 0, step;
    *list = NULL;
    *n = 0;
    while (!rc && (step = sqlite3_step(row)) == SQLITE_ROW) {
        struct experiment *longer = grow(*list, *n, sizeof **list);
        if (!longer) {
            rc = ovr_nomem(err, "a list of experiments");
            break;
        }
        *list = longer;
        rc = read_experiment(row, *list + *n, err);
        *n += !rc;
    }
    if (!rc && step != SQLITE_DONE)
        rc = db_fail(c, err);
    sqlite3_reset(row);
    give_back(c);
    if (rc) {
        experiment_list_free(*list, *n);
        *list = NULL;
        *n = 0;
    }
    return rc;
}

void experiment_list_free(struct experiment *list, size_t n) {
    for (size_t i = 0; i < n; i++)
        experiment_release(&list[i]);
    free(list);
}

/* The job's life */

static int first_in_queue(struct connection *c, int64_t memory_bytes, int64_t *seq,
                          struct ovr_err *err) {
    sqlite3_stmt *row = bind(c, FIRST_IN_QUEUE, "");
    int step = sqlite3_step(row), rc = 0;
    if (step == SQLITE_ROW) {
        *seq = sqlite3_column_int64(row, 0);
        if (sqlite3_column_int64(row, 1) > memory_bytes)
            rc = OVR_NOT_FOUND;
    } else {
        rc = step == SQLITE_DONE ? OVR_NOT_FOUND : db_fail(c, err);
    }
    sqlite3_reset(row);
    return rc;
}

/* Whether a claim is worth the wait for the writer. */
static int has_claimable(struct store *store, int64_t memory_bytes, struct ovr_err *err) {
    struct connection *c = take_reader(store);
    int64_t seq;
    int rc = first_in_queue(c, memory_bytes, &seq, err);
    give_back(c);
    return rc;
}

static int count_queue(struct connection *c, int most, int *n, struct ovr_err *err) {
    sqlite3_stmt *row = bind(c, COUNT_QUEUE, "i", (int64_t)most);
    int rc = sqlite3_step(row) == SQLITE_ROW ? 0 : db_fail(c, err);
    *n = rc ? 0 : sqlite3_column_int(row, 0);
    sqlite3_reset(row);
    return rc;
}

static int claim(struct connection *c, int64_t memory_bytes, struct experiment *e,
                 struct ovr_err *err) {
    int64_t seq = 0;
    int rc = first_in_queue(c, memory_bytes, &seq, err);
    if (rc)
        return rc;
    sqlite3_stmt *row = bind(c, CLAIM, "ii", seq, now_ms());
    rc = sqlite3_step(row) == SQLITE_ROW ? read_experiment(row, e, err) : db_fail(c, err);
    while (!rc && sqlite3_step(row) == SQLITE_ROW)
        ;
    sqlite3_reset(row);
    return rc;
}

int store_claim(struct store *store, int64_t memory_bytes, struct experiment *e, int *waiting,
                struct ovr_err *err) {
    enum { MOST_WAITING = 1000 };
    struct connection *c = &store->writer;
    *e = (struct experiment){0};
    int rc = has_claimable(store, memory_bytes, err);
    if (rc)
        return rc;
    struct run *run = calloc(1, sizeof *run);
    if (!run)
        return ovr_nomem(err, "a running experiment");
    rc = begin(store, err);
    if (rc) {
        free(run);
        return rc;
    }
    rc = claim(c, memory_bytes, e, err);
    if (!rc)
        rc = count_queue(c, MOST_WAITING, waiting, err);
    rc = commit(store, rc, err);
    run->seq = e->seq;
    if (rc)
        free(run);
    else
        runs_add(&store->runs, run);
    release_writer(store);
    if (rc)
        experiment_release(e);
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
            statement = bind(c, ADD_FIGURE, "iiiss", seq, at, position, f->name, f->text);
        else if (f->kind == FIGURE_COUNT)
            statement = bind(c, ADD_FIGURE, "iiisi", seq, at, position, f->name, f->count);
        else
            statement = bind(c, ADD_FIGURE, "iiisr", seq, at, position, f->name, f->real);
        rc = run(c, statement, err);
    }
    return rc;
}

static int add_histogram(struct connection *c, int64_t seq, const struct epoch_histogram *eh,
                         struct ovr_err *err) {
    const struct histogram *h = eh->histogram;
    sqlite3_stmt *statement =
        bind(c, ADD_HISTOGRAM, "iisiiri", seq, (int64_t)eh->epoch, eh->split,
             (int64_t)h->zero_count, (int64_t)h->total, h->maximum, (int64_t)eh->layer);
    sqlite3_bind_blob(statement, 8, h->counts, sizeof h->counts, SQLITE_STATIC);
    return run(c, statement, err);
}

static int add_histograms(struct connection *c, int64_t seq, const struct epoch_histogram *list,
                          size_t n, struct ovr_err *err) {
    int rc = 0;
    for (size_t i = 0; !rc && i < n; i++)
        rc = add_histogram(c, seq, &list[i], err);
    return rc;
}

static int must_have_changed(struct connection *c, struct ovr_err *err) {
    if (sqlite3_changes(c->db))
        return 0;
    return ovr_fail(err, OVR_CONFLICT, NULL, "the experiment is not running any more");
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

static int add_line(struct connection *c, int64_t seq, const struct figure *line,
                    struct ovr_err *err) {
    int rc = run(c, bind(c, ADD_LINE, "iis", seq, line->count, line->text), err);
    return rc ? rc : run(c, bind(c, TRIM_LINES, "ii", seq, (int64_t)STORE_MOST_LINES), err);
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
        if (epoch->number == LOG_EPOCH)
            rc = add_line(c, r->seq, &epoch->figures[0], err);
        else
            rc = add_figures(c, r->seq, epoch->number, epoch->figures, epoch->n_figures, err);
        if (!rc)
            rc = add_histograms(c, r->seq, epoch->histograms, epoch->n_histograms, err);
    }
    if (!rc && n)
        rc = run(c, bind(c, TOUCH, "ii", r->seq, n_epochs), err);
    return rc;
}

/* Of an experiment that ends in this transaction. */
static int write_last_epochs(struct store *store, int64_t seq, struct ovr_err *err) {
    struct run *r = runs_find(&store->runs, seq);
    return r ? write_epochs(store, r, err) : 0;
}

int store_write_epochs(struct store *store, struct ovr_err *err) {
    struct ovr_err why = {0};
    if (!runs_have_epochs(&store->runs))
        return 0;
    int rc = begin(store, &why);
    if (rc) /* without the writer: the epochs stay, and a job learns of it when many wait */
        return ovr_fail(err, rc, NULL, "%s", why.text);
    for (struct run *r = store->runs.list; !rc && r; r = r->next)
        rc = write_epochs(store, r, &why);
    rc = commit(store, rc, &why);
    runs_settle(&store->runs, &why);
    release_writer(store);
    return rc ? ovr_fail(err, rc, NULL, "%s", why.text) : 0;
}

static int add_tensors(struct connection *c, int64_t seq, const struct tensor *tensors, size_t n,
                       struct ovr_err *err) {
    int rc = 0;
    for (size_t i = 0; !rc && i < n; i++) {
        const struct tensor *t = &tensors[i];
        rc = run(c,
                 bind(c, ADD_TENSOR, "isissiii", seq, t->epoch, (int64_t)i, t->name, t->dtype,
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
        rc = run(c,
                 bind(c, ADD_UNIT_TABLE, "iisiii", seq, (int64_t)t->layer, t->split,
                      (int64_t)t->units, (int64_t)t->classes, (int64_t)t->cells),
                 err);
    }
    return rc;
}

/* What an experiment's end means to those that wait for it, in the same transaction. */
static int end_wait(struct connection *c, int64_t seq, enum state state, struct ovr_err *err) {
    return run(c,
               state == STATE_SUCCEEDED ? bind(c, RELEASE_NEXT, "i", seq)
                                        : bind(c, BREAK_CHAINS, "i", now_ms()),
               err);
}

int store_finish(struct store *store, int64_t seq, const struct outcome *o, struct ovr_err *err) {
    struct connection *c = &store->writer;
    int rc = begin(store, err);
    if (rc)
        return rc;
    rc = write_last_epochs(store, seq, err);
    if (!rc)
        rc = run(c,
                 bind(c, FINISH, "isisss", seq, state_names[o->state], now_ms(), o->problem_kind,
                      o->problem_pointer, o->problem_detail),
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
    return end_run(store, seq, rc, err);
}

static int requeue(struct connection *c, int64_t seq, const char *reason, struct ovr_err *err) {
    int rc = run(c, bind(c, REQUEUE, "is", seq, reason), err);
    return rc ? rc : must_have_changed(c, err);
}

int store_requeue(struct store *store, int64_t seq, const char *reason, struct ovr_err *err) {
    int rc = begin(store, err);
    if (rc)
        return rc;
    rc = write_last_epochs(store, seq, err);
    if (!rc)
        rc = requeue(&store->writer, seq, reason, err);
    return end_run(store, seq, rc, err);
}

int store_note_checkpoint(struct store *store, int64_t seq, struct ovr_err *err) {
    struct connection *c = &store->writer;
    int rc = begin(store, err);
    if (rc)
        return rc;
    rc = commit(store, run(c, bind(c, NOTE_CHECKPOINT, "i", seq), err), err);
    release_writer(store);
    return rc;
}

int store_forget_epochs(struct store *store, int64_t seq, int first, struct ovr_err *err) {
    struct connection *c = &store->writer;
    int rc = begin(store, err);
    if (rc)
        return rc;
    rc = run(c, bind(c, DELETE_FIGURES, "ii", seq, (int64_t)first), err);
    if (!rc)
        rc = run(c, bind(c, DELETE_HISTOGRAMS, "ii", seq, (int64_t)first), err);
    rc = commit(store, rc, err);
    release_writer(store);
    return rc;
}

int store_recover(struct store *store, int max_crashes, int *requeued, struct ovr_err *err) {
    struct connection *c = &store->writer;
    *requeued = 0;
    int rc = begin(store, err);
    if (rc)
        return rc;
    rc = run(c, bind(c, COUNT_CRASH, ""), err);
    if (!rc)
        rc = run(c, bind(c, GIVE_UP, "ii", now_ms(), (int64_t)max_crashes), err);
    if (!rc)
        rc = run(c, bind(c, BREAK_CHAINS, "i", now_ms()), err);
    while (!rc) {
        sqlite3_stmt *row = bind(c, RUNNING, "");
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
    rc = commit(store, rc, err);
    if (!rc)
        runs_end_all(&store->runs);
    release_writer(store);
    return rc;
}

static int cancel(struct store *store, const char *id, int64_t *seq, int *was_running,
                  struct ovr_err *err) {
    struct connection *c = &store->writer;
    struct experiment e;
    sqlite3_stmt *row = bind(c, GET_EXPERIMENT, "s", id);
    int step = sqlite3_step(row);
    int rc = step == SQLITE_ROW ? read_experiment(row, &e, err)
             : step == SQLITE_DONE
                 ? ovr_fail(err, OVR_NOT_FOUND, NULL, "there is no experiment %.40s", id)
                 : db_fail(c, err);
    sqlite3_reset(row);
    if (rc)
        return rc;
    *seq = e.seq;
    *was_running = e.state == STATE_RUNNING;
    if (*was_running)
        rc = write_last_epochs(store, e.seq, err);
    if (!rc && (e.state == STATE_QUEUED || e.state == STATE_RUNNING)) {
        rc = run(c, bind(c, CANCEL, "ii", e.seq, now_ms()), err);
        rc = rc ? rc : end_wait(c, e.seq, STATE_CANCELLED, err);
    } else if (!rc && e.state != STATE_CANCELLED)
        rc =
            ovr_fail(err, OVR_CONFLICT, NULL,
                     "the experiment has already %s; only a queued or running one can be cancelled",
                     state_names[e.state]);
    experiment_release(&e);
    return rc;
}

int store_cancel(struct store *store, const char *id, int *was_running, struct ovr_err *err) {
    int64_t seq = 0;
    *was_running = 0;
    int rc = begin(store, err);
    if (rc)
        return rc;
    rc = cancel(store, id, &seq, was_running, err);
    return end_run(store, seq, rc, err);
}

/* What an experiment left */

static struct figure read_figure(sqlite3_stmt *row) {
    struct figure f = {.name = (const char *)sqlite3_column_text(row, 1), .real = NAN};
    switch (sqlite3_column_type(row, 2)) {
    case SQLITE_INTEGER:
        f.kind = FIGURE_COUNT;
        f.count = sqlite3_column_int64(row, 2);
        break;
    case SQLITE_TEXT:
        f.kind = FIGURE_TEXT;
        f.text = (const char *)sqlite3_column_text(row, 2);
        break;
    case SQLITE_FLOAT:
        f.real = sqlite3_column_double(row, 2);
        break;
    default: /* NULL: was not finite */
        break;
    }
    return f;
}

int store_read_figures(struct store *store, int64_t seq, int from, int to,
                       int (*row)(void *, int, const struct figure *), void *context,
                       struct ovr_err *err) {
    struct connection *c = take_reader(store);
    sqlite3_stmt *statement = bind(c, READ_FIGURES, "iii", seq, (int64_t)from, (int64_t)to);
    int rc = 0, step = SQLITE_DONE;
    while (!rc && (step = sqlite3_step(statement)) == SQLITE_ROW) {
        struct figure figure = read_figure(statement);
        if (!figure.name || (figure.kind == FIGURE_TEXT && !figure.text))
            rc = ovr_nomem(err, "the figures of an experiment");
        else
            rc = row(context, sqlite3_column_int(statement, 0), &figure);
    }
    if (!rc && step != SQLITE_DONE)
        rc = db_fail(c, err);
    sqlite3_reset(statement);
    give_back(c);
    return rc;
}

/* Copies a row's counts; not 0 where they are of other bins. */
static int read_histogram(sqlite3_stmt *row, struct histogram *h) {
    if (sqlite3_column_bytes(row, 4) != sizeof h->counts)
        return -1;
    h->zero_count = (uint64_t)sqlite3_column_int64(row, 1);
    h->total = (uint64_t)sqlite3_column_int64(row, 2);
    h->maximum = sqlite3_column_double(row, 3);
    memcpy(h->counts, sqlite3_column_blob(row, 4), sizeof h->counts);
    return 0;
}

int store_read_histogram(struct store *store, int64_t seq, int *layer, int *epoch, char split[16],
                         struct histogram *h, struct ovr_err *err) {
    struct connection *c = take_reader(store);
    sqlite3_stmt *row =
        bind(c, READ_HISTOGRAM, "iisi", seq, (int64_t)*epoch, split, (int64_t)*layer);
    int rc = 0, step = sqlite3_step(row);
    if (step == SQLITE_ROW && read_histogram(row, h) == 0) {
        char found[16];
        copy_column(row, 0, found, sizeof found);
        memcpy(split, found, sizeof found);
        *epoch = sqlite3_column_int(row, 5);
        *layer = sqlite3_column_int(row, 6);
    } else if (step == SQLITE_DONE || step == SQLITE_ROW) {
        char of_layer[40] = "", of_epoch[40] = "";
        if (*layer >= 0)
            snprintf(of_layer, sizeof of_layer, " of layer hidden.%d", *layer);
        if (*epoch)
            snprintf(of_epoch, sizeof of_epoch, " of epoch %d", *epoch);
        rc = ovr_fail(err, OVR_NOT_FOUND, NULL, "there is no histogram%s%s%s%s", of_layer, of_epoch,
                      *split ? " on split " : "", split);
    } else {
        rc = db_fail(c, err);
    }
    sqlite3_reset(row);
    give_back(c);
    return rc;
}

int store_read_histograms(struct store *store, int64_t seq, int layer, int from, int limit,
                          int (*row)(void *, const struct epoch_histogram *), void *context,
                          struct ovr_err *err) {
    struct connection *c = take_reader(store);
    sqlite3_stmt *statement = bind(c, READ_HISTOGRAMS, "iiii", seq, (int64_t)layer,
                                   (int64_t)(from > 1 ? from : 1), (int64_t)limit);
    int rc = 0, step = SQLITE_DONE;
    while (!rc && (step = sqlite3_step(statement)) == SQLITE_ROW) {
        struct histogram histogram;
        char split[16];
        copy_column(statement, 0, split, sizeof split);
        struct epoch_histogram one = {sqlite3_column_int(statement, 5), split, &histogram,
                                      sqlite3_column_int(statement, 6)};
        if (read_histogram(statement, &histogram) == 0)
            rc = row(context, &one);
    }
    if (!rc && step != SQLITE_DONE)
        rc = db_fail(c, err);
    sqlite3_reset(statement);
    give_back(c);
    return rc;
}

int store_read_unit_table(struct store *store, int64_t seq, int layer, struct unit_table *table,
                          struct ovr_err *err) {
    struct connection *c = take_reader(store);
    sqlite3_stmt *row = bind(c, READ_UNIT_TABLE, "ii", seq, (int64_t)layer);
    int rc = 0, step = sqlite3_step(row);
    if (step == SQLITE_ROW) {
        *table = (struct unit_table){.layer = sqlite3_column_int(row, 4),
                                     .units = (size_t)sqlite3_column_int64(row, 1),
                                     .classes = (size_t)sqlite3_column_int64(row, 2),
                                     .cells = (size_t)sqlite3_column_int64(row, 3)};
        copy_column(row, 0, table->split, sizeof table->split);
    } else {
        rc = step == SQLITE_DONE ? ovr_fail(err, OVR_NOT_FOUND, NULL,
                                            "there is no table of units of layer hidden.%d", layer)
                                 : db_fail(c, err);
    }
    sqlite3_reset(row);
    give_back(c);
    return rc;
}

static void read_tensor(sqlite3_stmt *row, const char *epoch, struct tensor *t) {
    *t = (struct tensor){.dtype = "float32",
                         .dimensions = sqlite3_column_int(row, 2),
                         .rows = (size_t)sqlite3_column_int64(row, 3),
                         .columns = (size_t)sqlite3_column_int64(row, 4)};
    snprintf(t->epoch, sizeof t->epoch, "%.4s", epoch);
    copy_column(row, 0, t->name, sizeof t->name);
    if (sqlite3_column_text(row, 1) &&
        strcmp((const char *)sqlite3_column_text(row, 1), "float64") == 0)
        t->dtype = "float64";
}

int store_read_tensors(struct store *store, int64_t seq, const char *epoch, struct tensor **tensors,
                       size_t *n, struct ovr_err *err) {
    struct connection *c = take_reader(store);
    sqlite3_stmt *row = bind(c, READ_TENSORS, "is", seq, epoch);
    int rc = 0, step = SQLITE_DONE;
    *tensors = NULL;
    *n = 0;
    while (!rc && (step = sqlite3_step(row)) == SQLITE_ROW) {
        struct tensor *longer = grow(*tensors, *n, sizeof **tensors);
        if (!longer) {
            rc = ovr_nomem(err, "a list of tensors");
            break;
        }
        *tensors = longer;
        read_tensor(row, epoch, *tensors + (*n)++);
    }
    if (!rc && step != SQLITE_DONE)
        rc = db_fail(c, err);
    sqlite3_reset(row);
    give_back(c);
    if (rc) {
        free(*tensors);
        *tensors = NULL;
        *n = 0;
    }
    return rc;
}

/* Sweeps */

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
    if (s->more || s->counts[STATE_QUEUED] || s->counts[STATE_RUNNING])
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
    };
    copy_column(row, 1, s->id, sizeof s->id);
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
            rc = run(c, bind(c, ADD_POINT, "iis", sweep, member.point, points->values[i / repeats]),
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
        rc = run(c,
                 bind(c, ADD_SWEEP, "sssssssiiii", id, s->name, s->tags, s->notes, s->request,
                      s->axes, s->target, (int64_t)s->points.n_points, (int64_t)s->points.repeats,
                      (int64_t)s->more, now_ms()),
                 err);
    int64_t seq = sqlite3_last_insert_rowid(c->db);
    if (!rc)
        rc = add_points(c, seq, 0, &s->points, err);
    return rc ? rc : add_key(c, s->idempotency_key, s->body_sha256, 0, seq, err);
}

int store_add_sweep(struct store *store, const struct new_sweep *s, char id[ID_SIZE], int *repeated,
                    struct ovr_err *err) {
    struct connection *c = &store->writer;
    int rc = begin(store, err);
    if (rc)
        return rc;
    rc = find_key(c, s->idempotency_key, s->body_sha256, 1, id, err);
    *repeated = rc == 1;
    if (!rc)
        rc = add_sweep(c, s, id, err);
    return end(store, *repeated ? 0 : rc, err);
}

int store_extend_sweep(struct store *store, int64_t seq, int points_so_far,
                       const struct new_points *points, struct ovr_err *err) {
    struct connection *c = &store->writer;
    int64_t n = (int64_t)points->n_points;
    int rc = begin(store, err);
    if (rc)
        return rc;
    rc =
        run(c, bind(c, n ? EXTEND_SWEEP : CLOSE_SWEEP, "iii", seq, (int64_t)points_so_far, n), err);
    if (!rc && !sqlite3_changes(c->db))
        rc = ovr_fail(err, OVR_CONFLICT, NULL, "the sweep has gone on meanwhile");
    if (!rc)
        rc = add_points(c, seq, points_so_far, points, err);
    return end(store, rc, err);
}

int store_due_sweep(struct store *store, char id[ID_SIZE], struct ovr_err *err) {
    struct connection *c = take_reader(store);
    sqlite3_stmt *row = bind(c, DUE_SWEEP, "");
    int step = sqlite3_step(row);
    if (step == SQLITE_ROW)
        copy_column(row, 0, id, ID_SIZE);
    int rc = step == SQLITE_ROW ? 0 : step == SQLITE_DONE ? OVR_NOT_FOUND : db_fail(c, err);
    sqlite3_reset(row);
    give_back(c);
    return rc;
}

static int find_sweep(struct connection *c, const char *id, struct sweep *s, struct ovr_err *err) {
    sqlite3_stmt *row = bind(c, GET_SWEEP, "s", id);
    int step = sqlite3_step(row);
    int rc = step == SQLITE_ROW ? read_sweep(row, s, err)
             : step == SQLITE_DONE
                 ? ovr_fail(err, OVR_NOT_FOUND, NULL, "there is no sweep %.40s", id)
                 : db_fail(c, err);
    sqlite3_reset(row);
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
    sqlite3_stmt *row = bind(c, which, "i", seq);
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
    struct connection *c = take_reader(store);
    *s = (struct sweep){0};
    int rc = run(c, bind(c, BEGIN_READING, ""), err);
    if (!rc) {
        rc = find_sweep(c, id, s, err);
        if (!rc && reader->point)
            rc = visit(c, SWEEP_POINTS, s->seq, reader, visit_point, err);
        if (!rc && reader->run)
            rc = visit(c, SWEEP_RUNS, s->seq, reader, visit_run, err);
        if (!rc && reader->figure)
            rc = visit(c, SWEEP_FIGURES, s->seq, reader, visit_figure, err);
        run(c, bind(c, COMMIT, ""), NULL);
    }
    give_back(c);
    if (rc)
        sweep_release(s);
    return rc;
}

int store_list_sweeps(struct store *store, int64_t before, int limit, struct sweep **list,
                      size_t *n, struct ovr_err *err) {
    struct connection *c = take_reader(store);
    sqlite3_stmt *row = bind(c, LIST_SWEEPS, "ii", before ? before : INT64_MAX, (int64_t)limit);
    int rc = 0, step = SQLITE_DONE;
    *list = NULL;
    *n = 0;
    while (!rc && (step = sqlite3_step(row)) == SQLITE_ROW) {
        struct sweep *longer = grow(*list, *n, sizeof **list);
        if (!longer) {
            rc = ovr_nomem(err, "a list of sweeps");
            break;
        }
        *list = longer;
        rc = read_sweep(row, *list + *n, err);
        *n += !rc;
    }
    if (!rc && step != SQLITE_DONE)
        rc = db_fail(c, err);
    sqlite3_reset(row);
    give_back(c);
    if (rc) {
        sweep_list_free(*list, *n);
        *list = NULL;
        *n = 0;
    }
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
    sqlite3_stmt *row = bind(c, SWEEP_RUNNING, "i", sweep);
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
    sweep_release(&s);
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
        rc = run(c, bind(c, CANCEL_RUNS, "ii", seq, now_ms()), err);
    return rc ? rc : run(c, bind(c, CANCEL_SWEEP, "i", seq), err);
}

int store_cancel_sweep(struct store *store, const char *id, char (**running)[ID_SIZE],
                       size_t *n_running, struct ovr_err *err) {
    struct stopped stopped = {0};
    *running = NULL;
    *n_running = 0;
    int rc = begin(store, err);
    if (rc)
        return rc;
    rc = commit(store, cancel_sweep(store, id, &stopped, err), err);
    for (size_t i = 0; !rc && i < stopped.n; i++)
        runs_end(&store->runs, stopped.seqs[i]);
    release_writer(store);
    free(stopped.seqs);
    if (rc) {
        free(stopped.ids);
        return rc;
    }
    *running = stopped.ids;
    *n_running = stopped.n;
    return 0;
}

/* Data sets */

static void read_split(sqlite3_stmt *row, struct dataset_split *s) {
    copy_column(row, 0, s->dataset, sizeof s->dataset);
    copy_column(row, 1, s->split, sizeof s->split);
    copy_column(row, 2, s->sha256, sizeof s->sha256);
    copy_column(row, 3, s->format, sizeof s->format);
    s->bytes = sqlite3_column_int64(row, 4);
    s->samples = sqlite3_column_int64(row, 5);
    s->width = sqlite3_column_int64(row, 6);
    s->classes = sqlite3_column_int64(row, 7);
    s->created_at = sqlite3_column_int64(row, 8);
    copy_column(row, 9, s->source_sha256, sizeof s->source_sha256);
    s->image = (struct image_shape){
        (size_t)sqlite3_column_int64(row, 10), (size_t)sqlite3_column_int64(row, 11),
        (size_t)sqlite3_column_int64(row, 12), sqlite3_column_int(row, 13)};
    s->named = sqlite3_column_int(row, 14);
}

int store_put_split(struct store *store, const struct dataset_split *s, int *fresh,
                    struct ovr_err *err) {
    struct connection *c = &store->writer;
    int rc = begin(store, err);
    if (rc)
        return rc;
    sqlite3_stmt *row = bind(c, HAVE_SPLIT, "sss", s->dataset, s->split, s->sha256);
    int step = sqlite3_step(row);
    sqlite3_reset(row);
    *fresh = step != SQLITE_ROW;
    if (step != SQLITE_ROW && step != SQLITE_DONE)
        rc = db_fail(c, err);
    if (!rc && *fresh)
        rc = run(c, bind(c, RETIRE_SPLITS, "ss", s->dataset, s->split), err);
    if (!rc && *fresh)
        rc = run(c,
                 bind(c, PUT_SPLIT, "ssssiiiiisiiiii", s->dataset, s->split, s->sha256, s->format,
                      s->bytes, s->samples, s->width, s->classes, s->created_at, s->source_sha256,
                      (int64_t)s->image.channels, (int64_t)s->image.height, (int64_t)s->image.width,
                      (int64_t)s->image.interleaved, (int64_t)s->named),
                 err);
    if (!rc)
        rc = run(c, bind(c, FORGET_PARTS, "ss", s->dataset, s->split), err);
    return end(store, rc, err);
}

int store_get_split(struct store *store, const char *dataset, const char *split, const char *sha256,
                    struct dataset_split *found, struct ovr_err *err) {
    struct connection *c = take_reader(store);
    sqlite3_stmt *row = bind(c, GET_SPLIT, "sss", dataset, split, sha256);
    int rc = 0, step = sqlite3_step(row);
    if (step == SQLITE_ROW)
        read_split(row, found);
    else if (step == SQLITE_DONE)
        rc = ovr_fail(err, OVR_NOT_FOUND, NULL, "data set %s has no %s split%s%s", dataset, split,
                      *sha256 ? " of version " : "", sha256);
    else
        rc = db_fail(c, err);
    sqlite3_reset(row);
    give_back(c);
    return rc;
}

int store_list_splits(struct store *store, const char *name, struct dataset_split **list, size_t *n,
                      struct ovr_err *err) {
    struct connection *c = take_reader(store);
    sqlite3_stmt *row = bind(c, LIST_SPLITS, "s", name);
    int rc = 0, step = SQLITE_DONE;
    *list = NULL;
    *n = 0;
    while (!rc && (step = sqlite3_step(row)) == SQLITE_ROW) {
        struct dataset_split *longer = grow(*list, *n, sizeof **list);
        if (!longer) {
            rc = ovr_nomem(err, "a list of data sets");
            break;
        }
        *list = longer;
        read_split(row, *list + (*n)++);
    }
    if (!rc && step != SQLITE_DONE)
        rc = db_fail(c, err);
    sqlite3_reset(row);
    give_back(c);
    if (rc) {
        free(*list);
        *list = NULL;
        *n = 0;
    }
    return rc;
}

int store_put_part(struct store *store, const struct dataset_part *p, struct ovr_err *err) {
    struct connection *c = &store->writer;
    int rc = begin(store, err);
    if (rc)
        return rc;
    rc = run(c,
             bind(c, PUT_PART, "sssssii", p->dataset, p->split, p->part, p->sha256, p->format,
                  p->samples, p->created_at),
             err);
    return end(store, rc, err);
}

int store_get_part(struct store *store, const char *dataset, const char *split, const char *part,
                   struct dataset_part *found, struct ovr_err *err) {
    struct connection *c = take_reader(store);
    sqlite3_stmt *row = bind(c, GET_PART, "sss", dataset, split, part);
    int rc = 0, step = sqlite3_step(row);
    if (step == SQLITE_ROW) {
        snprintf(found->dataset, sizeof found->dataset, "%s", dataset);
        snprintf(found->split, sizeof found->split, "%s", split);
        snprintf(found->part, sizeof found->part, "%s", part);
        copy_column(row, 0, found->sha256, sizeof found->sha256);
        copy_column(row, 1, found->format, sizeof found->format);
        found->samples = sqlite3_column_int64(row, 2);
        found->created_at = sqlite3_column_int64(row, 3);
    } else if (step == SQLITE_DONE) {
        rc = ovr_fail(err, OVR_NOT_FOUND, NULL, "no %s wait for split %s of data set %s", part,
                      split, dataset);
    } else {
        rc = db_fail(c, err);
    }
    sqlite3_reset(row);
    give_back(c);
    return rc;
}

/* OVR_CONFLICT when an experiment that has not ended uses the data set. */
static int must_be_unused(struct connection *c, const char *dataset, struct ovr_err *err) {
    sqlite3_stmt *row = bind(c, USER_OF_DATASET, "s", dataset);
    char id[ID_SIZE];
    int rc = 0, step = sqlite3_step(row);
    if (step == SQLITE_ROW) {
        copy_column(row, 0, id, sizeof id);
        rc = ovr_fail(err, OVR_CONFLICT, NULL,
                      "experiment %s uses data set %s and has not ended; cancel it or wait", id,
                      dataset);
    } else if (step != SQLITE_DONE) {
        rc = db_fail(c, err);
    }
    sqlite3_reset(row);
    return rc;
}

int store_remove_dataset(struct store *store, const char *dataset, struct ovr_err *err) {
    struct connection *c = &store->writer;
    int rc = begin(store, err), changed = 0;
    if (rc)
        return rc;
    rc = must_be_unused(c, dataset, err);
    if (!rc)
        rc = run(c, bind(c, RETIRE_DATASET, "s", dataset), err);
    changed = rc ? 0 : sqlite3_changes(c->db);
    if (!rc)
        rc = run(c, bind(c, FORGET_PARTS, "ss", dataset, NULL), err);
    changed += rc ? 0 : sqlite3_changes(c->db);
    if (!rc && !changed)
        rc = ovr_fail(err, OVR_NOT_FOUND, NULL, "there is no data set %s", dataset);
    if (!rc)
        rc = run(c, bind(c, FORGET_VERSIONS, "s", dataset), err);
    return end(store, rc, err);
}

int store_has_file(struct store *store, const char *sha256, int *stored, struct ovr_err *err) {
    struct connection *c = take_reader(store);
    sqlite3_stmt *row = bind(c, IS_STORED, "s", sha256);
    int step = sqlite3_step(row);
    *stored = step == SQLITE_ROW;
    int rc = step == SQLITE_ROW || step == SQLITE_DONE ? 0 : db_fail(c, err);
    sqlite3_reset(row);
    give_back(c);
    return rc;
}

/* Events */

void store_listen(struct store *store, void (*changed)(void *, const int64_t *, size_t),
                  void *context) {
    pthread_mutex_lock(&store->writer.lock);
    store->listener = changed;
    store->listener_context = context;
    pthread_mutex_unlock(&store->writer.lock);
}

/* A figure that carries a time and a text, in an epoch of its own. */
void store_log(struct store *store, int64_t seq, const char *format, ...) {
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    const struct figure line = {
        .name = "log", .kind = FIGURE_TEXT, .count = now_ms(), .text = text};
    store_add_epoch(store, seq, LOG_EPOCH, &line, 1, NULL, 0, NULL);
}

static int read_event(sqlite3_stmt *row, struct event *e) {
    static const char *const kinds[] = {
        [EVENT_STATE] = "state", [EVENT_EPOCH] = "epoch", [EVENT_LOG] = "log"};
    const char *kind = (const char *)sqlite3_column_text(row, 2);
    int failed = !kind;
    *e = (struct event){.number = sqlite3_column_int64(row, 0),
                        .at = sqlite3_column_int64(row, 1),
                        .epoch = sqlite3_column_int(row, 3)};
    while (kind && e->kind < EVENT_LOG && strcmp(kinds[e->kind], kind))
        e->kind++;
    e->text = dup_column(row, 4, &failed);
    e->detail = dup_column(row, 5, &failed);
    if (!failed)
        return 0;
    event_release(e);
    return OVR_NOMEM;
}

void event_release(struct event *event) {
    free(event->text);
    free(event->detail);
    *event = (struct event){0};
}

int store_read_events(struct store *store, int64_t seq, int64_t after, struct event *list,
                      size_t most, size_t *n, struct ovr_err *err) {
    struct connection *c = take_reader(store);
    sqlite3_stmt *row = bind(c, READ_EVENTS, "iii", seq, after, (int64_t)most);
    int rc = 0, step = SQLITE_DONE;
    *n = 0;
    while (!rc && *n < most && (step = sqlite3_step(row)) == SQLITE_ROW)
        if (read_event(row, &list[*n]))
            rc = ovr_nomem(err, "the events of an experiment");
        else
            ++*n;
    if (!rc && step != SQLITE_DONE && step != SQLITE_ROW)
        rc = db_fail(c, err);
    sqlite3_reset(row);
    give_back(c);
    while (rc && *n)
        event_release(&list[--*n]);
    return rc;
}

int store_last_event(struct store *store, int64_t seq, int64_t *number, struct ovr_err *err) {
    struct connection *c = take_reader(store);
    sqlite3_stmt *row = bind(c, LAST_EVENT, "i", seq);
    int rc = sqlite3_step(row) == SQLITE_ROW ? 0 : db_fail(c, err);
    *number = rc ? 0 : sqlite3_column_int64(row, 0);
    sqlite3_reset(row);
    give_back(c);
    return rc;
}
