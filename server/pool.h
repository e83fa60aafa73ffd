/* The pool: worker threads that claim experiments from the store and run them, one each.
 *
 * Signalling rule: `lock` guards the slots. A worker sleeps on `work` until pool_wake() says that
 * the queue or the room has changed; claiming and taking a slot are one step under the lock, so
 * whoever finds an experiment running in the store finds its slot too. Training runs unlocked.
 */
#ifndef SERVER_POOL_H
#define SERVER_POOL_H

#include "server/job.h"

struct pool;

struct pool_config {
    struct workplace workplace;
    int workers;
    int cores;            /* that teams are cut from */
    int64_t memory_bytes; /* for all running jobs together, by their estimates */
};

int pool_start(struct pool **pool, const struct pool_config *config, struct ovr_err *err);

/* After anything new in the queue. */
void pool_wake(struct pool *pool);

/* Tells the worker that runs it, if any, to stop at the next step. */
void pool_cancel(struct pool *pool, const char *id);

/* Where a running experiment is. Returns 0 if it does not run here. */
struct pool_progress {
    int phase, epoch, epochs, threads;
    uint64_t step, steps;
    double eta_seconds;        /* of this phase; NaN: not known yet */
    double samples_per_second; /* NaN: not known yet */
};
int pool_progress(struct pool *pool, const char *id, struct pool_progress *progress);

/* Stops what is over its time limit; call it a few times a second. */
void pool_tick(struct pool *pool);

/* No new claims, and every job is asked to stop and go back to the queue; returns at once. */
void pool_drain(struct pool *pool);

/* Drains and waits at most `seconds` for the workers. Returns
 * how many still run: then the pool is not freed, and the process has to end with it. */
int pool_stop(struct pool *pool, int seconds);

int pool_running(struct pool *pool);

#endif
