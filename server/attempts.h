/* Attempts away from the daemon: what the store knows of the workers on a cluster (docs/worker.md).
 *
 *   intent, before it is sent → sent, with the cluster's id → begun, by the first report → over
 *
 * An experiment is queued until its worker's first report, and has at most one live attempt. For
 * its owner's limit of running experiments it counts from when it is sent. The attempt is over as
 * soon as the experiment is in any other state than queued or running, or back in the queue after
 * it ran (a trigger sees to it). What comes from an attempt that is over is refused with
 * OVR_CONFLICT, so that a worker that was cut off can do no harm.
 */
#ifndef SERVER_ATTEMPTS_H
#define SERVER_ATTEMPTS_H

#include "server/progress.h"
#include "server/store.h"

/* Jobs in Slurm begin so. */
#define JOB_PREFIX "ovrd-"
enum { JOB_NAME_SIZE = 40, JOB_ID_SIZE = 32, NODE_NAME_SIZE = 65, WORK_TOKEN_SIZE = 5 + 64 + 1 };

/* Of the tokens of workers, and of no others. */
#define WORK_TOKEN_PREFIX "ovrw_"

struct attempt {
    int64_t experiment; /* seq */
    char id[ID_SIZE];
    int number;
    char job_name[JOB_NAME_SIZE]; /* "ovrd-<id>-<number>" */
    char job[JOB_ID_SIZE];        /* "": only intended, or nobody knows */
    char node[NODE_NAME_SIZE];    /* "": not begun */
    int64_t submitted_at, begun_at;
    int64_t batch;                                      /* of the last report; 0: none */
    int64_t checkpoint, checkpoint_before, computed_ms; /* of the experiment */
    int ranks;
    int pausing; /* it runs and is to be paused */
    int live;
};

/* Takes from the cluster's queue what is next by the scheduler's rules and writes the intent to
 * send it: a new attempt, *token for its worker (of which the store keeps a hash). The experiment
 * stays queued. OVR_NOT_FOUND: nothing waits. The caller releases *e. */
int store_begin_attempt(struct store *store, struct attempt *attempt, char token[WORK_TOKEN_SIZE],
                        struct experiment *e, struct ovr_err *err);

/* A new token for a live attempt that has not begun: the daemon that made the last one ended before
 * it was sent. */
int store_renew_attempt(struct store *store, const struct attempt *attempt,
                        char token[WORK_TOKEN_SIZE], struct ovr_err *err);

/* The cluster has it, by this id. */
int store_note_job(struct store *store, const struct attempt *attempt, const char *job,
                   struct ovr_err *err);

/* Why the cluster lets it wait, in its words; no event. */
int store_note_reason(struct store *store, const struct attempt *attempt, const char *reason,
                      struct ovr_err *err);

/* All that are live, oldest first; the caller frees *list. */
int store_list_attempts(struct store *store, struct attempt **list, size_t *n, struct ovr_err *err);

/* Whose token this is. OVR_NOT_FOUND: nobody's. attempt->live = 0: it is over. The caller releases
 * *e, unless it is NULL. */
int store_find_attempt(struct store *store, const char *token, struct attempt *attempt,
                       struct experiment *e, struct ovr_err *err);

/* The attempt of an experiment that waits or runs on a cluster; OVR_NOT_FOUND: there is no live
 * one. reason may be NULL; else what store_note_reason() stored, "" for none. */
int store_get_attempt(struct store *store, int64_t experiment, struct attempt *attempt,
                      char *reason, size_t reason_size, struct ovr_err *err);

/* It was never taken by the cluster and does not count, and the next attempt has its number: the
 * experiment waits on, `reason` says why. OVR_CONFLICT: it has begun, or is over. */
int store_withdraw_attempt(struct store *store, const struct attempt *attempt, const char *reason,
                           struct ovr_err *err);

/* It was lost (its node failed, its time was over, its lease ran out): back to the queue with the
 * reason, from the last checkpoint; or paused, where somebody has asked for that; or failed as
 * `crashed`, when that happened as often as the store's rules allow without a new checkpoint. As
 * after store_fail_attempt(), files are to go (work_forget()). OVR_CONFLICT when it is over. */
int store_lose_attempt(struct store *store, const struct attempt *attempt, const char *reason,
                       struct ovr_err *err);

/* Ends the experiment as failed, begun or not. OVR_CONFLICT when the attempt is over. */
int store_fail_attempt(struct store *store, const struct attempt *attempt, const char *kind,
                       const char *detail, struct ovr_err *err);

/* A report of a worker, as it was sent; all is borrowed. */
struct report_epoch {
    int number;
    const struct figure *figures;
    size_t n_figures;
    const struct epoch_histogram *histograms;
    size_t n_histograms;
};
struct report_line {
    int warning;
    const char *text;
};
struct report {
    int64_t number;
    const char *node; /* NULL: not the first */
    const char *job;  /* of the first: the cluster's id for it; NULL: it does not know */
    int cores;        /* of the first, of all ranks together */
    int restart_from; /* 0: it did not */
    const struct report_epoch *epochs;
    size_t n_epochs;
    const struct report_line *lines;
    size_t n_lines;
    int64_t checkpoint, computed_ms; /* 0: no new one */
    enum report_end { END_NOT, END_OUTCOME, END_PAUSED, END_QUEUED } end;
    const struct outcome *outcome; /* of END_OUTCOME */
    const char *reason;            /* of END_QUEUED, which counts as a loss like any other */
};

/* All of it in one transaction, on disk when it returns. *attempt becomes what it is then.
 * *repeated: it was taken before, and nothing has changed; so the last report of all may come again
 * though the attempt is over by it. OVR_CONFLICT: the attempt is over (attempt->live = 0), or
 * number is not the next. OVR_INVALID: it does not begin as an attempt does, or its checkpoint is
 * not new.
 */
int store_take_report(struct store *store, struct attempt *attempt, const struct report *report,
                      int *repeated, struct ovr_err *err);

#endif
