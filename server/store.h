/* The store: everything the daemon remembers, in SQLite. Only the files of server/store/ know
 * sqlite3.
 *
 * One connection writes, behind a mutex; readers have connections of their own and never wait for
 * a writer. A change of an experiment's state and what goes with it are one transaction, on disk
 * (FULL) before the call returns. Only the epochs of a running experiment may come a little later,
 * many in one transaction; a final state has all of them. States only change along
 *
 *   queued → running → succeeded | failed | cancelled,   queued → cancelled,   running → queued
 *   queued, running → paused → queued,   paused → cancelled
 *
 * and every change adds 1 to the revision. An experiment of a chain is not taken from the queue
 * before the one that it waits for has succeeded, and fails when that one does not. Big arrays are
 * files beside the database (server/weights.h, server/cache.h).
 */
#ifndef SERVER_STORE_H
#define SERVER_STORE_H

#include "core/err.h"
#include "core/measure.h"
#include "core/samples.h"
#include "server/executor.h"

#include <stddef.h>
#include <stdint.h>

/* With the final NUL. */
enum { ID_SIZE = 13, SHA256_SIZE = 65, DATASET_NAME_SIZE = 65, USER_NAME_SIZE = 65 };

enum state {
    STATE_QUEUED,
    STATE_RUNNING,
    STATE_PAUSED,
    STATE_SUCCEEDED,
    STATE_FAILED,
    STATE_CANCELLED,
    N_STATES
};

extern const char *const state_names[N_STATES];

struct store;

int store_open(struct store **store, const char *path, int readers, struct ovr_err *err);
void store_close(struct store *store);

/* Experiments */

struct experiment {
    int64_t seq;
    char id[ID_SIZE];
    char *name, *tags, *spec; /* tags: each between newlines */
    int priority;
    enum state state;
    int64_t revision, memory_bytes;
    int64_t created_at, started_at, finished_at; /* 0: not yet */
    int attempts;
    int64_t computed_ms; /* what its newest checkpoint took, over all attempts */
    char *queue_reason, *problem_kind, *problem_pointer, *problem_detail; /* NULL: none */
    double core_seconds; /* estimate; NaN: unknown */
    char sweep[ID_SIZE]; /* "": none, and what follows means nothing */
    int point, repeat;
    char waits_for[ID_SIZE]; /* "": none, or it has succeeded */
    char rerun_of[ID_SIZE];  /* whose spec it has, perhaps changed, whether or not that one is still
                                there; "": none */
    int replays;             /* its result is compared with that one's */
    char *notes;             /* those of the spec unless they were edited; NULL in lists */
    char owner[USER_NAME_SIZE]; /* "": nobody, there were no users */
    int private;                /* seen by its owner and admins only */
    enum executor_kind executor;
    int ranks;
    char job[32], node[65]; /* where a cluster has it now; "": nowhere, or not known yet */
    double key;             /* in a list by end or figure: what it is sorted by */
};

void experiment_release(struct experiment *experiment);

struct new_experiment {
    const char *id; /* of store_new_id(); NULL: the store makes one */
    const char *name, *tags, *spec;
    int priority;
    int64_t memory_bytes;                      /* of a rank */
    double core_seconds;                       /* of all; estimates; 0: unknown */
    const char *idempotency_key, *body_sha256; /* NULL: none */
    const char *rerun_of;                      /* NULL: none */
    int replays;
    int64_t owner; /* seq of a user; 0: nobody */
    int private;
    enum executor_kind executor;
    int ranks; /* 0 stands for 1 */
};

int store_new_id(char id[ID_SIZE], struct ovr_err *err);

/* Queues it. With an idempotency key that is known, *id is the experiment it made and *repeated is
 * 1; a known key with another body is OVR_CONFLICT. */
int store_add_experiment(struct store *store, const struct new_experiment *experiment,
                         char id[ID_SIZE], int *repeated, struct ovr_err *err);

/* OVR_NOT_FOUND says which id. The caller releases *experiment. */
int store_get_experiment(struct store *store, const char *id, struct experiment *experiment,
                         struct ovr_err *err);

struct experiment_filter {
    const char *state, *tag, *name_prefix, *sweep, *owner; /* NULL: any */
    int64_t created_after;                                 /* ms; 0: any */
    /* By their end, those that have ended; by a figure of the result, those that have it. */
    enum list_order { ORDER_CREATED, ORDER_FINISHED, ORDER_FIGURE } order;
    int ascending;
    const char *figure;
    int64_t before; /* seq of the last one seen; 0: from the start */
    double key;     /* of the last one seen; for the two other orders */
    int limit;
};

/* Newest first unless the filter says otherwise. *list is an array of *n; the caller frees it with
 * experiment_list_free(). */
int store_list_experiments(struct store *store, const struct experiment_filter *filter,
                           struct experiment **list, size_t *n, struct ovr_err *err);
void experiment_list_free(struct experiment *list, size_t n);

/* Managing them (server/store/manage.c) */

struct edit { /* NULL: stays */
    const char *name, *tags, *notes;
    const int *priority, *private;
};

/* The field of the error when the revision is another one. */
#define STALE_FIELD "If-Match"

/* What people gave it and may change; its spec stays, which says what ran. revision −1: any. A
 * priority is OVR_CONFLICT unless it is queued. */
int store_edit_experiment(struct store *store, const char *id, int64_t revision,
                          const struct edit *edit, struct ovr_err *err);

/* With all that the database has of it; its files are the caller's to remove, after. OVR_CONFLICT
 * unless it has ended, and while something that has not ended needs it: an experiment that starts
 * from its weights or steps or replays it, its sweep. */
int store_delete_experiment(struct store *store, const char *id, struct ovr_err *err);

/* Whether it could be deleted now: the same refusals, nothing done. */
int store_may_delete(struct store *store, const char *id, struct ovr_err *err);

struct census {
    int64_t count[N_STATES], oldest_at[N_STATES]; /* created, ms; 0: none */
};
int store_census(struct store *store, struct census *census, struct ovr_err *err);

/* What has not ended, by owner ("": nobody) and state. row() copies what it keeps. */
int store_read_owners(struct store *store,
                      void (*row)(void *context, const char *owner, enum state state, int64_t n),
                      void *context, struct ovr_err *err);

/* Of all tensors of all results. */
int store_tensor_bytes(struct store *store, int64_t *bytes, struct ovr_err *err);

/* Whether a transaction reaches the disk: it makes one. */
int store_probe(struct store *store, struct ovr_err *err);

/* A copy of the whole at one moment in a new file, on disk when it returns, while others read and
 * write. *stop not 0 (it may be NULL) ends it with OVR_IO. */
int store_copy(struct store *store, const char *path, const _Atomic int *stop, struct ovr_err *err);

/* The job's life */

/* Rules of the queue that the daemon's settings give. */
struct queue_rules {
    int64_t half_life_ms; /* of use */
    int64_t memory_bytes; /* for all that run together */
    int max_losses;       /* so often may a cluster lose one before a new checkpoint; 0: any */
};
enum { NO_LIMIT = 1 << 30 };

/* Before others use the store. Without it: a day, all the memory there is. How many experiments of
 * one owner may run is among her quotas (server/people.h). */
void store_set_rules(struct store *store, const struct queue_rules *rules);

/* Takes from the daemon's own queue what is next by the scheduler's rules (server/scheduler.h),
 * when `memory_bytes` are free; *waiting is how many are left in it (1000 stands for more too).
 * OVR_NOT_FOUND: nothing that may start now. */
int store_claim(struct store *store, int64_t memory_bytes, struct experiment *experiment,
                int *waiting, struct ovr_err *err);

/* A named value. Text is borrowed. */
struct figure {
    const char *name;
    enum { FIGURE_REAL, FIGURE_COUNT, FIGURE_TEXT } kind;
    double real; /* not finite: stored as NULL */
    int64_t count;
    const char *text;
};

struct epoch_histogram {
    int epoch;
    const char *split;
    const struct histogram *histogram;
    int layer; /* hidden layer, from 0 */
};

/* Takes a copy and returns at once; it is in the database with the next store_write_epochs(), or
 * with the experiment's final state. OVR_CONFLICT when the experiment does not run any more; a
 * fault of the last attempt to write its epochs comes back here too. */
int store_add_epoch(struct store *store, int64_t seq, int epoch, const struct figure *figures,
                    size_t n_figures, const struct epoch_histogram *histograms, size_t n_histograms,
                    struct ovr_err *err);

/* Writes all epochs that wait, in one transaction. To be called a few times a second, so that
 * watchers see them soon. After a fault they wait on. */
int store_write_epochs(struct store *store, struct ovr_err *err);

struct tensor {
    char epoch[5]; /* "best" or "last" */
    char name[64];
    const char *dtype; /* "float32" */
    int dimensions;    /* 1 or 2 */
    size_t rows, columns;
};

/* The table of a layer's units (core/units.h), which is in files. */
struct unit_table {
    int layer;
    char split[16]; /* where it was measured */
    size_t units, classes, cells;
};

struct outcome {
    enum state state; /* succeeded, failed or cancelled */
    const char *problem_kind, *problem_pointer, *problem_detail; /* failed only */
    const struct figure *result, *provenance;
    size_t n_result, n_provenance;
    const struct tensor *tensors;
    size_t n_tensors;
    const struct epoch_histogram *histograms; /* of the result's split, beside the epochs' */
    size_t n_histograms;
    const struct unit_table *unit_tables;
    size_t n_unit_tables;
};

/* Ends a running experiment. OVR_CONFLICT when it does not run any more (it was cancelled
 * meanwhile). */
int store_finish(struct store *store, int64_t seq, const struct outcome *outcome,
                 struct ovr_err *err);

/* How many cores a running experiment has; 1 from the claim on. What they use is charged to its
 * owner, in the transactions that write epochs or note checkpoints, and with the end at the latest.
 */
void store_set_cores(struct store *store, int64_t seq, int cores);

/* Back to the queue with a reason; its epochs stay, see store_forget_epochs(). */
int store_requeue(struct store *store, int64_t seq, const char *reason, struct ovr_err *err);

/* A running experiment wrote a checkpoint, which took so long to compute over all attempts: earlier
 * crashes count no more. */
int store_note_checkpoint(struct store *store, int64_t seq, int64_t computed_ms,
                          struct ovr_err *err);

/* Removes what its epochs from `first` on wrote: they will be written again. */
int store_forget_epochs(struct store *store, int64_t seq, int first, struct ovr_err *err);

/* At start: everything that ran here when the last process ended goes back to the queue, or fails
 * when that happened to it `max_crashes` times. What workers have on a cluster runs on. */
int store_recover(struct store *store, int max_crashes, int *requeued, struct ovr_err *err);

/* queued or running → cancelled, at once. *was_running tells whether a worker has to be told.
 * OVR_CONFLICT in a final state, except that cancelling twice is fine. */
int store_cancel(struct store *store, const char *id, int *was_running, struct ovr_err *err);

/* The queue */

struct waiting {
    int64_t seq, owner, waits_for; /* 0: nobody, nothing */
    enum executor_kind executor;
    int priority;
    int64_t memory_bytes;
    double core_seconds; /* NaN: unknown */
};

/* What the cluster has: it waits there, or it runs. */
struct sent {
    int64_t seq, owner, memory_bytes; /* of a rank */
    int64_t begun_ms;                 /* 0: it waits */
    int ranks, cores;                 /* of all ranks; 0 while it waits */
    char job[32], node[65];           /* "": not known yet */
    char reason[128];                 /* why it waits, in the cluster's words */
};

struct owner {
    int64_t seq;               /* 0: nobody */
    char name[USER_NAME_SIZE]; /* "": nobody */
    int max_running;           /* NO_LIMIT: none */
    double use;                /* core-seconds lately, with what is running */
    int running;
    double cores;
    int64_t waiting;
};

struct queue_rows {
    struct waiting *waiting; /* all that could start or be sent, or waits for another one */
    struct sent *sent;       /* oldest first */
    struct owner *owners;    /* all that there are, by seq, with what they used */
    size_t n_waiting, n_sent, n_owners;
};

/* All of one moment. */
int store_read_queue(struct store *store, struct queue_rows *rows, struct ovr_err *err);
void queue_rows_release(struct queue_rows *rows);

/* Grows with every change that may alter the order of the queue. */
uint64_t store_queue_version(const struct store *store);

/* Also one that who asks must not know of: then may_see() is 0. */
int may_see(const struct experiment *experiment);
int store_get_numbered(struct store *store, int64_t seq, struct experiment *experiment,
                       struct ovr_err *err);

/* Sweeps */

struct sweep {
    int64_t seq;
    char id[ID_SIZE];
    char *name, *tags, *notes, *request; /* the request is JSON as posted */
    char *axes;                          /* JSON array of pointers */
    char *target;                        /* JSON; NULL: no search */
    int points, repeats;                 /* points so far, experiments of each */
    int more;                            /* 1: points may still be added */
    int cancelled;
    char owner[USER_NAME_SIZE]; /* "": nobody, there were no users */
    int private;
    int64_t created_at, finished_at; /* 0: not yet */
    int64_t revision;                /* grows with every change of it or of its experiments */
    int64_t counts[N_STATES];        /* of its experiments */
};

void sweep_release(struct sweep *sweep);

/* running; then cancelled if it was, failed if none of its experiments succeeded, or succeeded. */
enum state sweep_state(const struct sweep *sweep);

/* Points with their experiments: experiment i is repeat i % repeats of point i / repeats. */
struct new_points {
    const char *const *values; /* a JSON object for each point */
    const struct new_experiment *experiments;
    size_t n_points;
    int repeats;
    int chained; /* each experiment waits for the same repeat of the point before */
};

struct new_sweep {
    const char *name, *tags, *notes, *request, *axes, *target;
    int more;
    struct new_points points;
    int64_t owner; /* seq of a user, who owns the experiments too; 0: nobody */
    int private;
    const char *idempotency_key, *body_sha256; /* NULL: none */
};

/* All of it or nothing, in one transaction. Keys work as in store_add_experiment(). */
int store_add_sweep(struct store *store, const struct new_sweep *sweep, char id[ID_SIZE],
                    int *repeated, struct ovr_err *err);

/* Adds points to one that has `points_so_far`; without any it is closed: no more will follow.
 * OVR_CONFLICT when somebody else has done either meanwhile. */
int store_extend_sweep(struct store *store, int64_t seq, int points_so_far,
                       const struct new_points *points, struct ovr_err *err);

/* One to which points may follow and whose experiments have all ended. OVR_NOT_FOUND: none. */
int store_due_sweep(struct store *store, char id[ID_SIZE], struct ovr_err *err);

struct sweep_run { /* texts are borrowed */
    int point, repeat;
    const char *id;
    enum state state;
    const char *problem_kind, *problem_detail; /* NULL: none */
};

/* What store_read_sweep() calls: for every point, then for every experiment, then for every figure
 * of a result, each by (point, repeat). What is NULL is not called. Each returns 0 or a negative
 * code, which ends the reading. */
struct sweep_reader {
    void *context;
    int (*point)(void *context, int point, const char *values);
    int (*run)(void *context, const struct sweep_run *run);
    int (*figure)(void *context, int point, int repeat, const struct figure *figure);
};

/* Everything at one moment. *sweep is filled before the first call; on success the caller releases
 * it. */
int store_read_sweep(struct store *store, const char *id, struct sweep *sweep,
                     const struct sweep_reader *reader, struct ovr_err *err);

/* Newest first, those older than `before` (seq; 0: from the newest), of one owner unless NULL. The
 * caller frees *list with sweep_list_free(). */
int store_list_sweeps(struct store *store, const char *owner, int64_t before, int limit,
                      struct sweep **list, size_t *n, struct ovr_err *err);
void sweep_list_free(struct sweep *list, size_t n);

/* Cancels what has not ended, and no more points will follow. *running, which the caller frees, are
 * the ids whose workers have to be told. OVR_CONFLICT when it has ended, except that cancelling
 * twice is fine. */
int store_cancel_sweep(struct store *store, const char *id, char (**running)[ID_SIZE],
                       size_t *n_running, struct ovr_err *err);

/* queued → paused at once. A running one is marked, *was_running = 1, until its worker has saved it
 * and calls store_park(); a daemon that ends before finds it paused as well. Twice is fine.
 * OVR_CONFLICT in a final state. */
int store_pause(struct store *store, const char *id, int *was_running, struct ovr_err *err);

/* running → paused. OVR_CONFLICT when it does not run any more. */
int store_park(struct store *store, int64_t seq, struct ovr_err *err);

/* paused → queued, at the place that its age gives it; queued is fine. OVR_CONFLICT otherwise. */
int store_resume(struct store *store, const char *id, struct ovr_err *err);

/* What an experiment left */

/* Calls row() for each figure of epochs from..to in order. row() copies what it keeps. */
int store_read_figures(struct store *store, int64_t seq, int from, int to,
                       int (*row)(void *context, int epoch, const struct figure *figure),
                       void *context, struct ovr_err *err);

/* The last epoch with figures; 0 or less: there is none. */
int store_last_epoch(struct store *store, int64_t seq, int64_t *epoch, struct ovr_err *err);

/* *layer −1: the last layer, the code. *epoch 0: that of the result, or of the newest epoch while
 * there is no result. *split "": any. All are filled with what was found. */
int store_read_histogram(struct store *store, int64_t seq, int *layer, int *epoch, char split[16],
                         struct histogram *histogram, struct ovr_err *err);

/* Calls row() for the histograms of epochs from `from` on, at most `limit`, in order (layer −1: of
 * the last layer); the result's is none of them. row() copies what it keeps and returns 0 or a
 * negative code. */
int store_read_histograms(struct store *store, int64_t seq, int layer, int from, int limit,
                          int (*row)(void *context, const struct epoch_histogram *histogram),
                          void *context, struct ovr_err *err);

/* layer −1: of the last layer. OVR_NOT_FOUND: the experiment has no such table. */
int store_read_unit_table(struct store *store, int64_t seq, int layer, struct unit_table *table,
                          struct ovr_err *err);

/* All tensors of "best" or "last"; the caller frees *tensors. */
int store_read_tensors(struct store *store, int64_t seq, const char *epoch, struct tensor **tensors,
                       size_t *n, struct ovr_err *err);

/* Data sets */

struct dataset_split {
    char dataset[DATASET_NAME_SIZE], split[6], format[16];
    char sha256[SHA256_SIZE];        /* of the file that is kept: the version */
    char source_sha256[SHA256_SIZE]; /* of the bytes as they were sent; "": two files */
    int64_t bytes, samples, width, classes, created_at; /* bytes of the file that is kept */
    struct image_shape image;
    int named;                  /* the classes have names */
    char owner[USER_NAME_SIZE]; /* who uploaded it, when it is read; "": nobody */
};

/* Makes this version the current one; no parts wait for it any more. *fresh: 0 when it was
 * already. */
int store_put_split(struct store *store, const struct dataset_split *split, int *fresh,
                    struct ovr_err *err);

/* The current version, or with sha256 not empty that one. */
int store_get_split(struct store *store, const char *dataset, const char *split, const char *sha256,
                    struct dataset_split *found, struct ovr_err *err);

/* Current splits of all data sets (of one, unless name is NULL), by name; the caller frees *list.
 */
int store_list_splits(struct store *store, const char *name, struct dataset_split **list, size_t *n,
                      struct ovr_err *err);

/* Features or labels that wait for the other half of their split; at most one of each. */
struct dataset_part {
    char dataset[DATASET_NAME_SIZE], split[6], part[9], format[16], sha256[SHA256_SIZE];
    int64_t bytes, samples, created_at; /* bytes: of the file; store_get_part() leaves them 0 */
};

int store_put_part(struct store *store, const struct dataset_part *part, struct ovr_err *err);
int store_get_part(struct store *store, const char *dataset, const char *split, const char *part,
                   struct dataset_part *found, struct ovr_err *err);

/* No split of it is current any more, and no part waits. Versions that a stored experiment names
 * stay, so that it can be run again. OVR_CONFLICT while an experiment that has not ended uses it.
 */
int store_remove_dataset(struct store *store, const char *dataset, struct ovr_err *err);

/* Old versions that no experiment names any more are not known from then on. Also done, data set by
 * data set, when a new version comes, a data set is removed, or an experiment that named one. */
int store_forget_versions(struct store *store, struct ovr_err *err);

/* Whether a version or a waiting part is the file of this name. */
int store_has_file(struct store *store, const char *sha256, int *stored, struct ovr_err *err);

/* Events: what happened to an experiment, in order. Every change of its state is one, every epoch,
 * and every line of its log; they are stored in the same transaction as what they tell. Numbers
 * grow from 1 within an experiment, and are never given twice. An epoch that is computed again
 * after a crash is no new event; until then its figures may be missing. The last event of one that
 * has ended is that of its final state. */

enum { STORE_MOST_LINES = 1000 }; /* of a log; older ones are forgotten */

struct event {
    int64_t number, at;
    enum { EVENT_STATE, EVENT_EPOCH, EVENT_LOG } kind;
    int epoch;    /* of an epoch */
    char *text;   /* the state; the line */
    char *detail; /* why it is in that state; NULL: no reason */
};

void event_release(struct event *event);

/* At most `most` events with numbers above `after`; the caller releases each of the *n. */
int store_read_events(struct store *store, int64_t seq, int64_t after, struct event *list,
                      size_t most, size_t *n, struct ovr_err *err);

/* The newest number; 0: there is none. */
int store_last_event(struct store *store, int64_t seq, int64_t *number, struct ovr_err *err);

/* A line of a running experiment's log. It is in the database as soon as an epoch would be; one of
 * an experiment that does not run any more is dropped. */
void store_log(struct store *store, int64_t seq, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* changed() is told of every change of experiments and sweeps, once it is stored: the experiments'
 * seqs, among them 0 for a sweep's own row; n = 0: many. It is called with the writer taken, so it
 * must be quick and not call the store. */
void store_listen(struct store *store,
                  void (*changed)(void *context, const int64_t *seqs, size_t n), void *context);

#endif
