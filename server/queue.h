/* The queue as people see it: who runs, who waits, in which order, since when one may expect to
 * start, and why not now.
 *
 * The order is worked out for all that wait at once, and shared by those who ask: anew when
 * something has changed or a second has gone, but never for more than a twentieth of the time.
 * (100,000 that wait: some 0.1 s.) Who came after that counts as last until then.
 */
#ifndef SERVER_QUEUE_H
#define SERVER_QUEUE_H

#include "server/cluster.h"
#include "server/pool.h"
#include "server/scheduler.h"

struct queue;

struct queue_config {
    struct store *store;
    struct pool *pool;
    int64_t half_life_ms;
    int cluster_jobs;        /* that may be on the cluster at once; 0: there is none */
    struct cluster *cluster; /* tells how it is; NULL: nobody can */
};

int queue_new(struct queue **queue, const struct queue_config *config, struct ovr_err *err);
void queue_free(struct queue *queue); /* NULL is fine */

/* The queue at one moment; it does not change any more. */
struct queue_snapshot {
    int64_t made_ms;
    struct pool_view pool;
    /* All that wait, by position: first those for this machine; behind them, with positions of
     * their own, those that the cluster has, by age, and then those that are still to be sent. */
    struct plan_job *jobs;
    size_t n_jobs, n_here, n_there; /* n_there: of those that the cluster has */
    struct sent *sent;              /* those, and then what runs there */
    size_t n_sent;
    struct cluster_view cluster;
    int cluster_jobs;     /* at most so many are sent; 0: there is no cluster */
    struct owner *owners; /* by seq; the share of jobs[i] is owners[jobs[i].share]; 0: nobody */
    size_t n_owners;
    double half_life_ms;
    /* For the functions below: */
    int users; /* who looks at it */
    uint64_t version;
    uint32_t *by_seq; /* indices of the jobs */
    int64_t newest;   /* seq of who was ever seen to wait or run; 0: nobody yet */
    struct {          /* whose turn it is here, and with what; share n_owners: nobody's */
        size_t share;
        int priority;
        int64_t seq;
    } next;
    int64_t blocked_bytes; /* what the first in line needs that does not fit now; 0: all fit */
};

/* As new as can be, until queue_put(). */
int queue_look(struct queue *queue, struct queue_snapshot **snapshot, struct ovr_err *err);
void queue_put(struct queue *queue, struct queue_snapshot *snapshot);

enum { QUEUE_REASON_SIZE = 640 };

struct queue_place {
    int64_t position;               /* from 1 */
    int64_t starts_at;              /* ms since 1970, as far as one can tell; 0: unknown */
    const char *reason_code;        /* stopping, disk, chain, user_limit, memory, fair_share,
                                       workers, slurm, next */
    char reason[QUEUE_REASON_SIZE]; /* a sentence with its figures */
};

/* Where a queued experiment stands, and why it does not run. */
void queue_place(const struct queue_snapshot *snapshot, const struct experiment *experiment,
                 struct queue_place *place);

/* Both at once. */
int queue_find(struct queue *queue, const struct experiment *experiment, struct queue_place *place,
               struct ovr_err *err);

#endif
