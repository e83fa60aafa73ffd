/* The pool: worker threads that claim experiments from the store and run them, one each.
 *
 * Cores are what is scarce: a job counts as computing until it is trained. While it then waits for
 * the disk, the next one has its cores, on another thread. Jobs that compute share the cores
 * equally, as far as they can use them: when one comes or goes, the others' teams are resized at
 * their next epoch.
 *
 * Signalling rule: `lock` guards the slots. An idle worker sleeps on `work`. One signal wakes one
 * worker, for one job: at a new experiment, when a job has freed its cores, and by a worker that
 * has just claimed a job while there are more jobs and more room. A worker that has ended its job
 * looks into the queue before it sleeps, so memory that becomes free needs no signal. Claiming and
 * taking a slot are one step under the lock, so whoever finds an experiment running in the store
 * finds its slot too. Training and the disk run unlocked.
 */
#ifndef SERVER_POOL_H
#define SERVER_POOL_H

#include "server/executor.h"
#include "server/job.h"

struct pool;

struct pool_config {
    struct workplace workplace;
    int workers;
    int cores;            /* that teams are cut from */
    int64_t memory_bytes; /* for all running jobs together, by their estimates */
    int stuck_ms;         /* after so long without pool_tick() it is not alive */
};

int pool_start(struct pool **pool, const struct pool_config *config, struct ovr_err *err);

/* After each experiment that came into the queue or left it otherwise than by a claim. */
void pool_wake(struct pool *pool);

/* Tells the worker that runs it, if any, to stop at the next step. */
void pool_cancel(struct pool *pool, const char *id, enum stop why);

/* Where a running experiment is. Returns 0 if it does not run here. */
int pool_progress(struct pool *pool, const char *id, struct progress *progress);

/* Stops what is over its time limit, has checkpoints made of what is due for one, starts what now
 * fits into memory, writes the epochs that jobs finished meanwhile, and lets sweeps go on that did
 * not by the end of a job; call it some ten times a second. */
void pool_tick(struct pool *pool);

/* These four, for the list of executors. */
struct executor pool_executor(struct pool *pool);

/* No new claims, and every job is asked to stop and go back to the queue; returns at once. */
void pool_drain(struct pool *pool);

/* Drains and waits at most `seconds` for the workers. Returns
 * how many still run: then the pool is not freed, and the process has to end with it. */
int pool_stop(struct pool *pool, int seconds);

int pool_running(struct pool *pool);

/* What runs, for those who want to know why others wait. */
struct pool_job {
    int64_t seq, started_ms, memory_bytes;
    char id[ID_SIZE], owner[USER_NAME_SIZE];
    int computing, threads; /* 0: it only waits for the disk now */
    double seconds_left;    /* NaN: unknown */
};
struct pool_view {
    int workers, cores, stopping, disk_full;
    int busy, threads; /* workers that compute, and their threads */
    int64_t memory_bytes, free_bytes;
    /* Core-seconds that jobs really take for each one estimated, by those that ended lately or,
     * before any has, by those that run. */
    double pace;
    struct pool_job *jobs; /* the caller frees it */
    size_t n_jobs;
};
int pool_view(struct pool *pool, struct pool_view *view, struct ovr_err *err);

/* It takes experiments: its threads are there, it is not stopping, and pool_tick() is called. */
int pool_alive(struct pool *pool);

/* The size of a team that is left to the pool: an equal share of the idle cores for the job and for
 * those that wait and could start now, never more members than its layer has shards or than have
 * enough to do, at least 1. */
int team_size_for(int idle_cores, int waiting, size_t n_shards, double flops_per_step);

/* Shares `cores` among n teams: one for each, then one more for the smallest that can use it, until
 * there are no more. most[i] is what team i can use; size[i] becomes what it gets. */
void share_cores(int cores, const int *most, int *size, size_t n);

#endif
