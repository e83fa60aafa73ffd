/* Reports to the daemon (docs/worker.md), sent by a thread of its own, so that training does not
 * wait for the network: only when very much has not been sent yet.
 *
 * What is handed over is copied, and goes out in the order in which it came, in numbered reports of
 * which the daemon takes each exactly once: one that was not answered is sent again, the same
 * bytes. Without anything to tell there is a report every second or two, so that the lease goes on
 * and whoever watches sees how far it is.
 */
#ifndef WORKER_REPORTER_H
#define WORKER_REPORTER_H

#include "server/progress.h"
#include "worker/client.h"
#include "worker/encode.h"

struct reporter;

struct reporter_config {
    struct client *client; /* the reporter's from now on, until it is freed */
    int64_t batch;         /* number of the last report of earlier attempts */
    int lease_ms;
    int64_t leased_ms; /* monotonic: since when there is a lease */
    const struct train_progress *progress;
    int threads;       /* of all ranks together */
    _Atomic int *stop; /* set to STOP_PAUSE when the daemon says so, STOP_CANCEL when it is over */
    /* Some ten times a second while it has nothing to do, on its thread; may be NULL. */
    void (*tick)(void *context);
    void *context;
};

/* Sends the first report, which says where it runs, and waits until the daemon has it; errors as of
 * reporter_end(). job: Slurm's number for it; NULL: none. The caller frees the reporter, also after
 * a failure. */
int reporter_start(struct reporter **reporter, const struct reporter_config *config,
                   const char *node, int cores, const char *job, struct ovr_err *err);

/* Epochs from this one on will be told again. */
void reporter_restart(struct reporter *reporter, int epoch);

int reporter_epoch(struct reporter *reporter, int epoch, const struct epoch_facts *facts,
                   struct ovr_err *err);

/* A line for who watches the experiment; also to the worker's own log. */
void reporter_log(struct reporter *reporter, int warning, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* All ranks' parts of it are there. */
void reporter_checkpoint(struct reporter *reporter, int64_t number, int64_t computed_ms);

/* The last report: takes over `end` (NULL: no memory for it), and waits until the daemon has it.
 *   OVR_CONFLICT  the attempt is over: somebody else has the experiment, or nobody
 *   OVR_IO        no answer as long as the lease lasted
 *   OVR_INVALID   the daemon refuses a report */
int reporter_end(struct reporter *reporter, json_t *end, struct ovr_err *err);

/* 0 as long as reports are taken, else as above. */
int reporter_state(struct reporter *reporter, struct ovr_err *err);

/* Not 0 when no report will be taken any more: for calls that have no sense then. */
const _Atomic int *reporter_over(const struct reporter *reporter);

/* Sends nothing more. NULL is fine. */
void reporter_free(struct reporter *reporter);

#endif
