#include "server/pool.h"

#include "server/log.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct slot {
    struct pool *pool;
    pthread_t thread;
    struct job *job; /* NULL: idle */
    int64_t deadline_ms;
    int64_t started_ms;
};

struct pool {
    struct pool_config config;
    pthread_mutex_t lock;
    pthread_cond_t work;  /* workers wait for it */
    pthread_cond_t ended; /* pool_stop() waits for it: a worker has left */
    struct slot *slots;
    int n_slots, n_threads, n_left, stopping;
};

static int64_t monotonic_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* The three below are called with the lock held. */
static int64_t free_memory(const struct pool *pool) {
    int64_t bytes = pool->config.memory_bytes;
    for (int i = 0; i < pool->n_slots; i++)
        if (pool->slots[i].job)
            bytes -= pool->slots[i].job->experiment.memory_bytes;
    return bytes;
}

/* "auto": a job gets the cores that nobody uses, if it is alone with them; with other workers at
 * work it takes one. The weights don't depend on it. */
static int choose_threads(const struct pool *pool, const struct job *job) {
    int busy = 0;
    for (int i = 0; i < pool->n_slots; i++)
        if (pool->slots[i].job)
            busy += pool->slots[i].job->threads;
    if (job->spec.threads)
        return job->spec.threads;
    int left = pool->config.cores - busy;
    return left > 1 ? left : 1;
}

static struct slot *find_slot(struct pool *pool, const char *id) {
    for (int i = 0; i < pool->n_slots; i++)
        if (pool->slots[i].job && strcmp(pool->slots[i].job->experiment.id, id) == 0)
            return &pool->slots[i];
    return NULL;
}

/* Waits until something changes, at most `seconds`. */
static void wait_for_work(struct pool *pool, int seconds) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += seconds;
    pthread_cond_timedwait(&pool->work, &pool->lock, &until);
}

/* The stored spec was checked when it was posted; if it can't be read now, the job fails with the
 * reason. */
static int start_job(struct slot *slot, struct job *job) {
    struct ovr_err err = {0};
    struct store *store = slot->pool->config.workplace.store;
    int rc = spec_read_stored(job->experiment.spec, &job->spec, &err);
    if (rc == OVR_NOMEM) { /* not the job's fault: another try when there is memory */
        store_requeue(store, job->experiment.seq, "memory ran out when it was to start", NULL);
        return rc;
    }
    if (rc == 0) {
        job->threads = choose_threads(slot->pool, job);
        slot->started_ms = monotonic_ms();
        double limit_ms = job->spec.time_limit_seconds * 1000;
        slot->deadline_ms = limit_ms > 0 ? slot->started_ms + (int64_t)limit_ms : INT64_MAX;
        slot->job = job;
        return 0;
    }
    struct outcome outcome = {
        .state = STATE_FAILED, .problem_kind = "invalid-spec", .problem_detail = err.text};
    log_line(LOG_ERROR, "experiment=%s %s", job->experiment.id, err.text);
    store_finish(store, job->experiment.seq, &outcome, NULL);
    return OVR_INVALID;
}

/* Fills the slot from the queue. Returns 0, or a negative code when there is nothing to run now. */
static int claim(struct slot *slot) {
    struct pool *pool = slot->pool;
    struct ovr_err err = {0};
    struct job *job = calloc(1, sizeof *job);
    int rc =
        job ? store_claim(pool->config.workplace.store, free_memory(pool), &job->experiment, &err)
            : ovr_nomem(&err, "a job");
    if (rc && rc != OVR_NOT_FOUND)
        log_line(LOG_ERROR, "the queue could not be read: %s", err.text);
    if (rc == 0 && (rc = start_job(slot, job)) == 0)
        return 0;
    if (job)
        experiment_release(&job->experiment);
    free(job);
    return rc;
}

static void *worker(void *arg) {
    struct slot *slot = arg;
    struct pool *pool = slot->pool;
    pthread_mutex_lock(&pool->lock);
    while (!pool->stopping) {
        int rc = claim(slot);
        if (rc == OVR_INVALID)
            continue;
        if (rc) {
            wait_for_work(pool, rc == OVR_NOT_FOUND ? 3600 : 1);
            continue;
        }
        struct job *job = slot->job;
        pthread_mutex_unlock(&pool->lock);
        job_run(&pool->config.workplace, job);
        pthread_mutex_lock(&pool->lock);
        slot->job = NULL;
        experiment_release(&job->experiment);
        free(job);
        pthread_cond_broadcast(&pool->work); /* there is room again */
    }
    pool->n_left++;
    pthread_cond_broadcast(&pool->ended);
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

static void pool_free(struct pool *pool) {
    pthread_cond_destroy(&pool->work);
    pthread_cond_destroy(&pool->ended);
    pthread_mutex_destroy(&pool->lock);
    free(pool->slots);
    free(pool);
}

int pool_start(struct pool **out, const struct pool_config *config, struct ovr_err *err) {
    *out = NULL;
    struct pool *pool = calloc(1, sizeof *pool);
    struct slot *slots = calloc((size_t)config->workers, sizeof *slots);
    if (!pool || !slots) {
        free(pool);
        free(slots);
        return ovr_nomem(err, "the worker pool");
    }
    pool->config = *config;
    pool->slots = slots;
    pool->n_slots = config->workers;
    pthread_condattr_t clock;
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&pool->work, &clock);
    pthread_cond_init(&pool->ended, &clock);
    pthread_condattr_destroy(&clock);
    pthread_mutex_init(&pool->lock, NULL);
    for (int i = 0; i < pool->n_slots; i++) {
        slots[i].pool = pool;
        if (pthread_create(&slots[i].thread, NULL, worker, &slots[i])) {
            pool_stop(pool, 10);
            return ovr_fail(err, OVR_NOMEM, "--workers", "could not start %d workers",
                            config->workers);
        }
        pool->n_threads++;
    }
    *out = pool;
    return 0;
}

void pool_wake(struct pool *pool) {
    pthread_mutex_lock(&pool->lock);
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->lock);
}

static void ask_to_stop(struct slot *slot, enum stop reason) {
    int no = STOP_NO; /* the first reason stands */
    atomic_compare_exchange_strong(&slot->job->stop, &no, (int)reason);
}

void pool_cancel(struct pool *pool, const char *id) {
    pthread_mutex_lock(&pool->lock);
    struct slot *slot = find_slot(pool, id);
    if (slot)
        ask_to_stop(slot, STOP_CANCEL);
    pthread_mutex_unlock(&pool->lock);
}

static void read_progress(const struct slot *slot, struct pool_progress *out) {
    const struct train_progress *p = &slot->job->progress;
    double seconds = (double)(monotonic_ms() - (int64_t)p->phase_started_ms) / 1000;
    *out = (struct pool_progress){.phase = p->phase,
                                  .epoch = p->epoch,
                                  .epochs = p->epochs,
                                  .threads = slot->job->threads,
                                  .step = p->step,
                                  .steps = p->steps,
                                  .eta_seconds = NAN,
                                  .samples_per_second = NAN};
    double done = 0;
    if (out->phase == PHASE_TRAINING && out->steps)
        done = (double)out->step / (double)out->steps;
    else if (out->phase == PHASE_PROBING && out->epochs)
        done = (double)out->epoch / out->epochs;
    if (done > 0 && seconds > 0)
        out->eta_seconds = seconds * (1 - done) / done;
    if (out->phase == PHASE_TRAINING && p->samples && seconds > 0)
        out->samples_per_second = (double)p->samples / seconds;
}

int pool_progress(struct pool *pool, const char *id, struct pool_progress *progress) {
    pthread_mutex_lock(&pool->lock);
    struct slot *slot = find_slot(pool, id);
    if (slot)
        read_progress(slot, progress);
    pthread_mutex_unlock(&pool->lock);
    return slot != NULL;
}

void pool_tick(struct pool *pool) {
    int64_t now = monotonic_ms();
    pthread_mutex_lock(&pool->lock);
    for (int i = 0; i < pool->n_slots; i++)
        if (pool->slots[i].job && now >= pool->slots[i].deadline_ms)
            ask_to_stop(&pool->slots[i], STOP_TIME_LIMIT);
    pthread_mutex_unlock(&pool->lock);
}

int pool_running(struct pool *pool) {
    int running = 0;
    pthread_mutex_lock(&pool->lock);
    for (int i = 0; i < pool->n_slots; i++)
        running += pool->slots[i].job != NULL;
    pthread_mutex_unlock(&pool->lock);
    return running;
}

void pool_drain(struct pool *pool) {
    pthread_mutex_lock(&pool->lock);
    pool->stopping = 1;
    for (int i = 0; i < pool->n_slots; i++)
        if (pool->slots[i].job)
            ask_to_stop(&pool->slots[i], STOP_SHUTDOWN);
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->lock);
}

int pool_stop(struct pool *pool, int seconds) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += seconds;
    pool_drain(pool);
    pthread_mutex_lock(&pool->lock);
    while (pool->n_left < pool->n_threads &&
           pthread_cond_timedwait(&pool->ended, &pool->lock, &until) != ETIMEDOUT)
        ;
    int left = pool->n_threads - pool->n_left;
    pthread_mutex_unlock(&pool->lock);
    if (left)
        return left;
    for (int i = 0; i < pool->n_threads; i++)
        pthread_join(pool->slots[i].thread, NULL);
    pool_free(pool);
    return 0;
}
