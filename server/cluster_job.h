/* An attempt as a job of Slurm: its script and what it may take. */
#ifndef SERVER_CLUSTER_JOB_H
#define SERVER_CLUSTER_JOB_H

#include "server/attempts.h"
#include "server/slurm.h"
#include "server/spec.h"

/* What the jobs of a daemon have in common. */
struct cluster_orders {
    const char *url;         /* where workers find the daemon */
    const char *ca;          /* file on the nodes; NULL: the system's */
    const char *worker;      /* path of ovr-worker on the nodes */
    const char *srun;        /* starts several ranks */
    const char *blas_kernel; /* that nodes are to have too; NULL: what suits their processor */
    int cores;               /* of a rank, where the spec leaves it open */
    int max_minutes;         /* of a job; 0: any */
};

/* Goes into a shell's script, so that there are only characters that mean nothing there.
 * OVR_INVALID says which setting to change. */
int cluster_orders_check(const struct cluster_orders *orders, struct ovr_err *err);

/* Threads of each rank. */
int cluster_threads(const struct cluster_orders *orders, const struct spec *spec);

enum { CLUSTER_SCRIPT_SIZE = 4096 };

/* `job` borrows from the attempt and the script, which has the token. Limits are the estimates with
 * room: memory as memory_asked() says, time by a factor of four and ten minutes, for a node may be
 * slower and has to fetch the data; what is not known is left to the partition. */
void cluster_describe(const struct cluster_orders *orders, const struct attempt *attempt,
                      const char *token, const struct experiment *e, const struct spec *spec,
                      char script[CLUSTER_SCRIPT_SIZE], struct slurm_job *job);

#endif
