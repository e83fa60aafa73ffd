/* What the parts of the store share, and nobody else: connections, statements, transactions. These
 * files are the only ones that know sqlite3.
 *
 *   sql.c           every statement
 *   db.c            opening, migrations, binding, transactions
 *   experiments.c   one and many of them
 *   queue.c         who is next, and who used what
 *   jobs.c          their way from the queue to their end
 *   attempts.c      the same way by a worker on a cluster
 *   results.c       what they left
 *   events.c        what happened to them, and who is told
 *   sweeps.c        points with their experiments
 *   manage.c        edits, deletion, census, backup
 *   datasets.c      versions of splits, and halves that wait
 *   people.c        users, tokens, quotas, the audit; who may see and change what
 */
#ifndef SERVER_STORE_DB_H
#define SERVER_STORE_DB_H

#include "server/attempts.h"
#include "server/people.h"
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
    SAVEPOINT,
    RELEASE,
    ROLLBACK_TO,
    ADD_EXPERIMENT,
    ADD_KEY,
    FIND_KEY,
    GET_EXPERIMENT,
    GET_NUMBERED,
    LIST_EXPERIMENTS,
    LIST_OLDEST,
    LIST_FINISHED,
    LIST_FINISHED_LAST,
    LIST_LEAST,
    LIST_MOST,
    FOUND_EXPERIMENTS,
    FOUND_OLDEST,
    FOUND_FINISHED,
    FOUND_FINISHED_LAST,
    FOUND_LEAST,
    FOUND_MOST,
    COUNT_FOUND,
    ADD_TAG,
    REMOVE_TAG,
    FIRSTS,
    FITTING_OF_OWNER,
    READ_WAITING,
    READ_SENT,
    READ_OWNERS,
    READ_USE,
    WRITE_USE,
    COUNT_QUEUE,
    CLAIM,
    SEND,
    ADD_ATTEMPT,
    RENEW_ATTEMPT,
    NOTE_JOB,
    NOTE_REASON,
    LIST_ATTEMPTS,
    FIND_ATTEMPT,
    GET_ATTEMPT,
    REASON_OF_ATTEMPT,
    BEGIN_RUN,
    BEGIN_ATTEMPT,
    NOTE_BATCH,
    NOTE_WORK_CHECKPOINT,
    WITHDRAW,
    DELETE_ATTEMPT,
    END_ATTEMPT,
    TAKE_BACK,
    COUNT_LOSS,
    REMOTE_RUNS,
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
    DELETE_NEWEST,
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
    LAST_EPOCH,
    LAST_EVENT,
    ADD_USER,
    GET_USER,
    GET_USER_BY_SEQ,
    LIST_USERS,
    EDIT_USER,
    COUNT_USERS,
    ADD_TOKEN,
    LIST_TOKENS,
    COUNT_TOKENS,
    FORGET_TOKENS,
    REVOKE_TOKENS,
    FIND_TOKEN,
    NOTE_TOKEN,
    ADD_AUDIT,
    LIST_AUDIT,
    OWNER_OF_DATASET,
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

/* Who has ended a transaction that others go on with, and waits for its commit: on her stack. */
struct sharer {
    struct sharer *next;
    int settled, rc;
    struct ovr_err *err;
};

/* Since when one whose turn it was waits for memory. */
struct blocked {
    int64_t seq, since_ms;
};

struct store {
    struct connection writer;
    _Atomic int coming;      /* who waits for the writer, to begin a transaction */
    struct sharer *sharers;  /* of the transaction that is open */
    pthread_mutex_t sharing; /* guards what is in them; taken inside of the writer's lock */
    pthread_cond_t settled;
    struct connection *readers;
    int n_readers;
    _Atomic unsigned turn;
    struct runs runs;
    /* Experiments that the transaction at hand changes, for who listens. */
    int64_t changed[MOST_CHANGED];
    size_t n_changed;        /* more than there is room for: who knows which */
    size_t n_changed_before; /* by the sharers */
    void (*listener)(void *context, const int64_t *seqs, size_t n);
    void *listener_context;
    struct queue_rules rules;
    _Atomic uint64_t queue_version;
    pthread_mutex_t blocked_lock;
    struct blocked *blocked;
    size_t n_blocked;
    struct quotas quotas;    /* of who has none of her own */
    int people_changed;      /* in the transaction at hand */
    _Atomic uint64_t people; /* see store_people_version() */
};

/* ---- db.c ---- */

/* The fault that sqlite3 has just had: OVR_FULL or OVR_IO. */
int db_fail(struct connection *c, struct ovr_err *err);

/* Binding: one letter for each value. i int64, I int64 or NULL for 0, s text or NULL, r real (NULL
 * when not finite). Texts are borrowed until the statement has run. */
sqlite3_stmt *db_bind(struct connection *c, enum sql which, const char *types, ...);

/* Runs a bound statement that returns no rows we want. */
int db_run(struct connection *c, sqlite3_stmt *statement, struct ovr_err *err);

/* Transactions, each seen by itself: it is stored whole or, with rc not 0, taken back whole. Those
 * that many threads want at once share a commit, since what costs is that it is on the disk: who is
 * done while another waits for the writer leaves the commit to that one, and waits for it. So there
 * are as many in a commit as came during the one before, and one alone commits as ever. Where the
 * commit fails, it fails for all that share it.
 */

/* Takes the writer and begins a transaction; on failure the writer is free. */
int db_begin(struct store *store, struct ovr_err *err);

/* The usual end: returns rc, or what went wrong with the commit, once it is stored. The writer is
 * free. Not for what charges a run, or does more under the writer once it is stored. */
int db_end(struct store *store, int rc, struct ovr_err *err);

/* The other end, for these: commits now, and the writer stays taken. */
int db_commit(struct store *store, int rc, struct ovr_err *err);
void db_release_writer(struct store *store);

/* A connection to read with, to be given back. */
struct connection *db_take_reader(struct store *store);
void db_give_back(struct connection *c);

/* A column's text; "" for NULL. */
void copy_column(sqlite3_stmt *row, int column, char *text, size_t size);

/* The same on the heap, NULL for NULL; *failed becomes 1 without memory. */
char *dup_column(sqlite3_stmt *row, int column, int *failed);

/* A column's number; NaN for NULL. */
double real_column(sqlite3_stmt *row, int column);

/* Room for one more in an array of n that doubles; NULL without memory. */
void *grow(void *array, size_t n, size_t size);

/* What makes items of the rows of a statement. */
struct row_reader {
    const char *what; /* that they are, for who has no memory left: "a list of users" */
    size_t size;      /* of an item */
    /* Fills *item, or leaves nothing in it that would have to be released. */
    int (*read)(const void *context, sqlite3_stmt *row, void *item, struct ovr_err *err);
    void (*release)(void *item); /* NULL: there is nothing to release in one */
};

struct rows {
    void *items; /* on the heap, the caller's; NULL where there are none */
    size_t n;
};

/* Reads all rows of a bound statement. On failure *rows is empty. */
int db_read_list(struct connection *c, sqlite3_stmt *row, const struct row_reader *reader,
                 const void *context, struct rows *rows, struct ovr_err *err);

/* ---- experiments.c ---- */

enum state find_state(const char *name);

/* A row of the experiment statements. */
int read_experiment(sqlite3_stmt *row, struct experiment *e, struct ovr_err *err);
/* OVR_NOT_FOUND says which id, also where who asks must not know of it. The caller releases *e. */
int find_experiment(struct connection *c, const char *id, struct experiment *e,
                    struct ovr_err *err);

/* The same for who wants to change it: OVR_FORBIDDEN where it is not hers. */
int find_own_experiment(struct connection *c, const char *id, struct experiment *e,
                        struct ovr_err *err);

/* Of who asks. 0: unknown key. 1: known with this body, *id filled. OVR_CONFLICT: known with
 * another. */
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

/* With ADD_TAG or REMOVE_TAG: makes it one of those with these tags, or not any more. What edits
 * experiment.tags does this too. */
int put_tags(struct connection *c, enum sql how, int64_t seq, const char *tags,
             struct ovr_err *err);

/* ---- queue.c ---- */

/* Which of an executor's queue is next, and whose it is; free_bytes: INT64_MAX where memory is not
 * ours to give. OVR_NOT_FOUND: none. */
int choose_next(struct store *store, struct connection *c, enum executor_kind executor,
                int64_t free_bytes, int64_t *seq, int64_t *owner, struct ovr_err *err);

/* Adds what a run has used to its owner's use, in the transaction at hand. */
int charge_run(struct store *store, struct run *run, struct ovr_err *err);

/* ---- jobs.c ---- */

/* The experiment that a bound UPDATE … RETURNING took from its queue; OVR_NOT_FOUND: it is there no
 * more. */
int take_returned(struct connection *c, sqlite3_stmt *row, struct experiment *e,
                  struct ovr_err *err);

/* Of an experiment whose run ends in this transaction: the epochs that wait, and what it has used.
 */
int write_last_epochs(struct store *store, int64_t seq, struct ovr_err *err);

/* Charges its owner for what a run has used, if that was not done lately. */
int charge_if_due(struct store *store, struct run *run, struct ovr_err *err);

/* db_end() for a transaction that ends a run; its cores are free now. */
int end_run(struct store *store, int64_t seq, int rc, struct ovr_err *err);

/* Parts of transactions. What an epoch measured: */
int add_epoch(struct connection *c, int64_t seq, const struct report_epoch *epoch,
              struct ovr_err *err);
int forget_epochs(struct connection *c, int64_t seq, int first, struct ovr_err *err);
/* It is at another revision by so many epochs. */
int touch(struct connection *c, int64_t seq, int64_t n_epochs, struct ovr_err *err);
/* OVR_CONFLICT unless the statement that has just run changed a row. */
int must_have_changed(struct connection *c, struct ovr_err *err);
/* running → a final state, the queue, paused; behind write_last_epochs(). */
int finish(struct connection *c, int64_t seq, const struct outcome *outcome, struct ovr_err *err);
int requeue(struct connection *c, int64_t seq, const char *reason, struct ovr_err *err);
int park(struct connection *c, int64_t seq, struct ovr_err *err);

/* ---- attempts.c ---- */

/* At start, in the transaction at hand: *runs becomes those of the workers that are still away, a
 * list that the caller takes over. */
int find_remote_runs(struct connection *c, struct run **runs, struct ovr_err *err);

/* ---- events.c ---- */

/* Makes the writer write the events of states and epochs, and note what it changes. */
int begin_events(struct store *store, struct ovr_err *err);

/* Tells the listener of a transaction that is stored, or forgets one that is not. */
void tell_changes(struct store *store, int stored);

/* The number of an epoch that is a line of the log: one figure. */
enum { LOG_EPOCH = 0 };

/* A line, of the time that is its count, in the transaction at hand. */
int add_line(struct connection *c, int64_t seq, const struct figure *line, struct ovr_err *err);

/* ---- people.c ---- */

/* A token: the prefix, of 5 characters, and 256 random bits in hexadecimal. */
int make_secret(const char *prefix, char text[TOKEN_SIZE], struct ovr_err *err);

/* The seq of who asks; 0: nobody's. */
int64_t asking_user(void);

/* What VISIBLE of sql.c wants to know of who asks. */
int64_t visible_to(void);

/* Whether who asks may know of it at all. */
int sees(const char *owner, int private);

/* OVR_FORBIDDEN unless who asks may change it. what: "experiment" and the like. */
int must_own(const char *owner, const char *what, const char *name, struct ovr_err *err);

/* OVR_QUOTA when the owner of the transaction at hand would have more than she may: `queued` more
 * experiments or `bytes` more of storage. */
int check_quota(struct store *store, int64_t queued, int64_t bytes, struct ovr_err *err);

/* OVR_FORBIDDEN unless the data set belongs to who asks or to nobody yet; bytes as above. */
int may_change_dataset(struct store *store, const char *dataset, int64_t bytes,
                       struct ovr_err *err);

/* A line of the audit, in the transaction at hand, unless it is the daemon itself that acts. detail
 * may be NULL. */
int audit(struct connection *c, const char *action, const char *object, const char *detail,
          struct ovr_err *err);

/* ---- results.c ---- */

/* The number that a statement gives for an experiment, 0 for none. */
int read_last(struct store *store, enum sql which, int64_t seq, int64_t *number,
              struct ovr_err *err);

/* A row of name and value in columns 1 and 2; texts are borrowed from it. */
struct figure read_figure(sqlite3_stmt *row);

#endif
