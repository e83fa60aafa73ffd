/* The store: everything the daemon remembers, in SQLite. The only file that knows sqlite3 is
 * store.c.
 *
 * One connection writes, behind a mutex; readers have connections of their own and never wait for
 * a writer. A change of an experiment's state and what goes with it are one transaction, on disk
 * (FULL) before the call returns. Only the epochs of a running experiment may come a little later,
 * many in one transaction; a final state has all of them. States only change along
 *
 *   queued → running → succeeded | failed | cancelled,   queued → cancelled,   running → queued
 *
 * and every change adds 1 to the revision. Big arrays are files beside the database
 * (server/weights.h, server/cache.h).
 */
#ifndef SERVER_STORE_H
#define SERVER_STORE_H

#include "core/err.h"
#include "core/measure.h"
#include "core/samples.h"

#include <stdint.h>

enum { ID_SIZE = 13, SHA256_SIZE = 65, DATASET_NAME_SIZE = 65 }; /* with the final NUL */

enum state {
    STATE_QUEUED,
    STATE_RUNNING,
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
    char *queue_reason, *problem_kind, *problem_pointer, *problem_detail; /* NULL: none */
    int64_t position; /* in the queue, from 1; 0 if not queued */
};

void experiment_release(struct experiment *experiment);

struct new_experiment {
    const char *name, *tags, *spec;
    int priority;
    int64_t memory_bytes;
    const char *idempotency_key, *body_sha256; /* NULL: none */
};

/* Queues it. With an idempotency key that is known, *id is the experiment it made and *repeated is
 * 1; a known key with another body is OVR_CONFLICT. */
int store_add_experiment(struct store *store, const struct new_experiment *experiment,
                         char id[ID_SIZE], int *repeated, struct ovr_err *err);

/* OVR_NOT_FOUND says which id. The caller releases *experiment. */
int store_get_experiment(struct store *store, const char *id, struct experiment *experiment,
                         struct ovr_err *err);

struct experiment_filter {
    const char *state, *tag, *name_prefix; /* NULL: any */
    int64_t before;                        /* seq of the last one seen; 0: from the newest */
    int limit;
};

/* Newest first. *list is an array of *n; the caller frees it with experiment_list_free(). */
int store_list_experiments(struct store *store, const struct experiment_filter *filter,
                           struct experiment **list, size_t *n, struct ovr_err *err);
void experiment_list_free(struct experiment *list, size_t n);

/* The job's life */

/* Takes the first in the queue if its memory estimate is at most `memory_bytes`; *waiting is how
 * many are left in the queue (1000 stands for more too). OVR_NOT_FOUND: nothing that fits now. */
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
};

/* Takes a copy and returns at once; it is in the database with the next store_write_epochs(), or
 * with the experiment's final state. OVR_CONFLICT when the experiment does not run any more; a
 * fault of the last attempt to write its epochs comes back here too. */
int store_add_epoch(struct store *store, int64_t seq, int epoch, const struct figure *figures,
                    size_t n_figures, const struct epoch_histogram *histogram, struct ovr_err *err);

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

struct outcome {
    enum state state; /* succeeded, failed or cancelled */
    const char *problem_kind, *problem_pointer, *problem_detail; /* failed only */
    const struct figure *result, *provenance;
    size_t n_result, n_provenance;
    const struct tensor *tensors;
    size_t n_tensors;
    const struct epoch_histogram
        *histogram; /* of the result's split; NULL: none beside the epochs' */
};

/* Ends a running experiment. OVR_CONFLICT when it does not run any more (it was cancelled
 * meanwhile). */
int store_finish(struct store *store, int64_t seq, const struct outcome *outcome,
                 struct ovr_err *err);

/* Back to the queue with a reason; what its epochs wrote is removed, since it starts anew. */
int store_requeue(struct store *store, int64_t seq, const char *reason, struct ovr_err *err);

/* At start: everything that ran when the last process ended goes back to the queue, or fails when
 * that happened to it `max_crashes` times. */
int store_recover(struct store *store, int max_crashes, int *requeued, struct ovr_err *err);

/* queued or running → cancelled, at once. *was_running tells whether a worker has to be told.
 * OVR_CONFLICT in a final state, except that cancelling twice is fine. */
int store_cancel(struct store *store, const char *id, int *was_running, struct ovr_err *err);

/* What an experiment left */

/* Calls row() for each figure of epochs from..to in order. row() copies what it keeps. */
int store_read_figures(struct store *store, int64_t seq, int from, int to,
                       int (*row)(void *context, int epoch, const struct figure *figure),
                       void *context, struct ovr_err *err);

/* *epoch 0: that of the result, or of the newest epoch while there is no result. *split "": any.
 * Both are filled with what was found. */
int store_read_histogram(struct store *store, int64_t seq, int *epoch, char split[16],
                         struct histogram *histogram, struct ovr_err *err);

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
    int named; /* the classes have names */
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
    int64_t samples, created_at;
};

int store_put_part(struct store *store, const struct dataset_part *part, struct ovr_err *err);
int store_get_part(struct store *store, const char *dataset, const char *split, const char *part,
                   struct dataset_part *found, struct ovr_err *err);

/* No split of it is current any more, and no part waits. Versions that a stored experiment names
 * stay, so that it can be run again. OVR_CONFLICT while an experiment that has not ended uses it.
 */
int store_remove_dataset(struct store *store, const char *dataset, struct ovr_err *err);

/* Whether a version or a waiting part is the file of this name. */
int store_has_file(struct store *store, const char *sha256, int *stored, struct ovr_err *err);

#endif
