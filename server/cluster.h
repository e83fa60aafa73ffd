/* The executor for a Slurm cluster: sends experiments there as jobs of ovr-worker, and looks after
 * them. Slurm places, starts and kills; what a worker reports is the truth about its experiment;
 * Slurm only tells when one will report no more.
 *
 * One thread of its own talks to Slurm, since its programs may take seconds. What requests tell
 * (submit, cancel, heard) only notes it and wakes the thread.
 *
 * Slurm is asked every poll_s seconds, in one call, while there is something to ask. When it does
 * not answer, or refuses what any job has, everything waits: another try comes later and later, and
 * what is wrong is said in the log once, in the view, and to those who wait.
 *
 * Leases: each report renews its attempt's. One that ran out, or whose job Slurm says is gone, is
 * lost: its token is worthless from then on, the job is cancelled, and the experiment goes on in
 * another attempt from its last checkpoint.
 */
#ifndef SERVER_CLUSTER_H
#define SERVER_CLUSTER_H

#include "server/attempts.h"
#include "server/cluster_job.h"
#include "server/executor.h"

struct cluster;

struct cluster_config {
    struct store *store;
    struct slurm slurm; /* without `stop` */
    struct cluster_orders orders;
    int jobs; /* at most so many at once in Slurm's queue and running */
    int poll_s, lease_s;
    /* An attempt is over though its worker has not said so: its files are to go, and others may
     * have waited for the end of the experiment, where that is its end. Called without a lock; may
     * be NULL. */
    void (*ended)(void *context, const char *id);
    void *context;
};

/* Takes up the attempts that a daemon before left. */
int cluster_start(struct cluster **cluster, const struct cluster_config *config,
                  struct ovr_err *err);
void cluster_stop(struct cluster *cluster); /* NULL is fine; the workers run on */

/* For the list of executors. */
struct executor cluster_executor(struct cluster *cluster);

/* A report came: renews the lease and keeps the progress. */
void cluster_heard(struct cluster *cluster, const struct attempt *attempt,
                   const struct progress *progress);

/* For metrics and readiness. */
struct cluster_view {
    int sent, running; /* attempts in Slurm's queue, and begun */
    int answers;       /* the last call of Slurm had an answer */
    char trouble[500]; /* what was wrong with it; "": nothing */
};
void cluster_view(struct cluster *cluster, struct cluster_view *view);

#endif
