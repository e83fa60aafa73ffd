/* What the parts of the store share, and nobody else: connections, statements, transactions. These
 * files are the only ones that know sqlite3.
 *
 *   sql.c           every statement
 *   db.c            opening, migrations, binding, transactions
 *   experiments.c   one and many of them
 *   jobs.c          their way from the queue to their end
 *   results.c       what they left
 *   events.c        what happened to them, and who is told
 *   sweeps.c        points with their experiments
 *   manage.c        edits, deletion, census, backup
 *   datasets.c      versions of splits, and halves that wait
 */
#ifndef SERVER_STORE_DB_H
#define SERVER_STORE_DB_H

#include "server/runs.h"
#include "server/store.h"

#include <pthread.h>
#include <sqlite3.h>

/* All SQL, by name. */
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
    LIST_OLDEST,
    LIST_FINISHED,
    LIST_FINISHED_LAST,
    LIST_LEAST,
    LIST_MOST,
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
    PAUSE,
    PARK,
    PARK_MARKED,
    RESUME,
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
    DATASET_OF,
    PUT_PART,
    GET_PART,
    FORGET_PARTS,
    IS_STORED,
    NOTE_ORIGIN,
    EDIT_EXPERIMENT,
    USER_OF_EXPERIMENT,
    NOTE_LOSS,
    DELETE_EXPERIMENT,
    CENSUS,
    OWNERS,
    TENSOR_BYTES,
    PROBE,
    ADD_LINE,
    TRIM_LINES,
    READ_EVENTS,
    LAST_EVENT,
    N_SQL
};

extern const char *const sql[N_SQL];

/* What the writer runs once when it opens. */
extern const char event_triggers[];

struct connection {
    sqlite3 *db;
    sqlite3_stmt *statement[N_SQL];
    pthread_mutex_t lock;
};

enum { MOST_CHANGED = 64 };

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

/* ---- db.c ---- */

/* The fault that sqlite3 has just had: OVR_FULL or OVR_IO. */
int db_fail(struct connection *c, struct ovr_err *err);

/* Binding: one letter for each value. i int64, I int64 or NULL for 0, s text or NULL, r real (NULL
 * when not finite). Texts are borrowed until the statement has run. */
sqlite3_stmt *db_bind(struct connection *c, enum sql which, const char *types, ...);

/* Runs a bound statement that returns no rows we want. */
int db_run(struct connection *c, sqlite3_stmt *statement, struct ovr_err *err);

/* Takes the writer and begins a transaction; on failure the writer is free. */
int db_begin(struct store *store, struct ovr_err *err);

/* Commits if rc is 0, else rolls back; returns rc or what went wrong with the commit. The writer
 * stays taken. */
int db_commit(struct store *store, int rc, struct ovr_err *err);
void db_release_writer(struct store *store);

/* The usual end of what db_begin() began: both of these. */
int db_end(struct store *store, int rc, struct ovr_err *err);

/* A connection to read with, to be given back. */
struct connection *db_take_reader(struct store *store);
void db_give_back(struct connection *c);

/* A column's text; "" for NULL. */
void copy_column(sqlite3_stmt *row, int column, char *text, size_t size);

/* The same on the heap, NULL for NULL; *failed becomes 1 without memory. */
char *dup_column(sqlite3_stmt *row, int column, int *failed);

/* Room for one more in an array of n that doubles; NULL without memory. */
void *grow(void *array, size_t n, size_t size);

/* ---- experiments.c ---- */

enum state find_state(const char *name);

/* A row of the experiment statements. */
int read_experiment(sqlite3_stmt *row, struct experiment *e, struct ovr_err *err);
/* OVR_NOT_FOUND says which id. The caller releases *e. */
int find_experiment(struct connection *c, const char *id, struct experiment *e,
                    struct ovr_err *err);

/* 0: unknown key. 1: known with this body, *id filled. OVR_CONFLICT: known with another. */
int find_key(struct connection *c, const char *key, const char *body_sha256, int for_sweep,
             char id[ID_SIZE], struct ovr_err *err);
int add_key(struct connection *c, const char *key, const char *body_sha256, int64_t experiment,
            int64_t sweep, struct ovr_err *err);

/* Where in a sweep; all 0: in none. */
struct membership {
    int64_t sweep, point, repeat, waits_for;
};

int insert_experiment(struct connection *c, const struct new_experiment *e,
                      const struct membership *member, char id[ID_SIZE], struct ovr_err *err);

/* ---- jobs.c ---- */

/* The epochs that wait of an experiment that ends in this transaction. */
int write_last_epochs(struct store *store, int64_t seq, struct ovr_err *err);

/* ---- events.c ---- */

/* Makes the writer write the events of states and epochs, and note what it changes. */
int begin_events(struct store *store, struct ovr_err *err);

/* Tells the listener of a transaction that is stored, or forgets one that is not. */
void tell_changes(struct store *store, int stored);

/* The number of an epoch that is a line of the log: one figure. */
enum { LOG_EPOCH = 0 };

/* A line, of the time that is its count, in the transaction at hand. */
int add_line(struct connection *c, int64_t seq, const struct figure *line, struct ovr_err *err);

/* ---- results.c ---- */

/* A row of name and value in columns 1 and 2; texts are borrowed from it. */
struct figure read_figure(sqlite3_stmt *row);

#endif
