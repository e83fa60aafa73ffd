#include "server/pool.h"

#include "server/clock.h"
#include "server/log.h"
#include "server/metrics.h"
#include "server/sweeps.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* A thread with its job. */
struct slot {
    struct pool *pool;
    pthread_t thread;
    struct job *job; /* NULL: idle */
    int computing;   /* it has the job's threads at work; 0: they are free again */
    int cores;       /* that its owner is charged for */
    int64_t deadline_ms, checkpoint_ms; /* when it is to stop, and to be saved next */
};

/* So many threads for each job that may compute, since the others wait for the disk. (Jobs of 10 ms
 * on a disk of 3 ms a sync and two cores: 40 a second with 2, 57 with 4.) */
enum { SLOTS_PER_WORKER = 4 };

/* Between two times that epochs are written: each is a commit, and a message to every watcher. */
enum { WRITE_MS = 250 };

struct pool {
    struct pool_config config;
    pthread_mutex_t lock;
    pthread_cond_t work;  /* workers wait for it */
    pthread_cond_t ended; /* pool_stop() waits for it: a worker has left */
    struct slot *slots;
    int n_slots, n_threads, n_left, stopping;
    int64_t free_memory; /* at the last tick */
    double log_pace;     /* see struct pool_view; mean of logarithms */
    int n_paced;         /* jobs that it is made of, up to PACED_JOBS */
    int64_t looked_ms;   /* when a tick last had somebody look into the queue */
    int64_t ticked_ms;
    int64_t written_ms; /* pool_tick() alone knows it */
    /* An experiment has ended that no worker brought to its end: a search may wait for that. */
    _Atomic int look_for_points;
    _Atomic int sweeps_stuck; /* the last attempt failed */
};

/* The functions from here to worker() are called with the lock held. */
static int64_t memory_of(const struct job *job) {
    int64_t known = (int64_t)job->progress.memory_bytes;
    return known ? known : job->experiment.memory_bytes;
}

static int64_t free_memory(const struct pool *pool) {
    int64_t bytes = pool->config.memory_bytes;
    for (int i = 0; i < pool->n_slots; i++)
        if (pool->slots[i].job)
            bytes -= memory_of(pool->slots[i].job);
    return bytes;
}

/* Of its team, as it is now. */
static int threads_of(const struct job *job) {
    int members = job->progress.members;
    return members ? members : job->threads;
}

struct load {
    int jobs, threads; /* that compute */
};

static struct load find_load(const struct pool *pool) {
    struct load load = {0};
    for (int i = 0; i < pool->n_slots; i++) {
        const struct slot *slot = &pool->slots[i];
        if (!slot->job || !slot->computing)
            continue;
        load.jobs++;
        load.threads += threads_of(slot->job);
    }
    return load;
}

/* As many jobs compute as there are workers: who comes while a big job has all cores shares them
 * with it, rather than wait for its end. */
static int has_room(const struct pool *pool) {
    return find_load(pool).jobs < pool->config.workers;
}

/* A member has to have 0.1 ms of work between two meetings, or it costs more than it gives.
 * Measured with `tests/bench/bench step` on two cores of an AMD EPYC with AVX-512, one member
 * against two: in long runs two were faster from 4 million on (58 against 38 µs a step; at 2
 * million 25 against 38), in runs of four steps, as a small job's epoch is, from 20 to 40 million
 * on (110 against 80, 200 against 280, 370 against 240 µs). */
static const double FLOPS_PER_MEMBER = 1e7;

int team_size_for(int idle_cores, int waiting, size_t n_shards, double flops_per_step) {
    double most = flops_per_step / FLOPS_PER_MEMBER;
    most = fmin(most, fmin((double)n_shards, TEAM_MAX));
    int share = idle_cores / (1 + waiting);
    int size = most < share ? (int)most : share;
    return size > 1 ? size : 1;
}

/* What the members of a team can share: the shards of the widest layer. */
static size_t most_shards(const struct spec *spec) {
    size_t widest = 0;
    for (size_t l = 0; l < spec->train.n_hidden; l++)
        widest = spec->train.hidden[l] > widest ? spec->train.hidden[l] : widest;
    return widest ? count_shards(widest) : TEAM_MAX;
}

static int64_t checkpoint_interval(const struct pool *pool) {
    int seconds = pool->config.workplace.checkpoint_seconds;
    return seconds ? seconds * INT64_C(1000) : INT64_MAX / 2;
}

static void choose_threads(const struct pool *pool, struct job *job, int waiting) {
    const struct spec *spec = &job->spec;
    job->threads = job->most_threads = spec->threads;
    if (spec->threads)
        return;
    struct load load = find_load(pool);
    int others = pool->config.workers - load.jobs - 1; /* that could start beside it */
    size_t n_shards = most_shards(spec);
    double flops = job_flops_per_step(&pool->config.workplace, spec);
    job->threads = team_size_for(pool->config.cores - load.threads,
                                 waiting < others ? waiting : others, n_shards, flops);
    job->most_threads = team_size_for(pool->config.cores, 0, n_shards, flops);
}

void share_cores(int cores, const int *most, int *size, size_t n) {
    for (size_t i = 0; i < n; i++) {
        size[i] = 1;
        cores--;
    }
    while (cores-- > 0) {
        size_t smallest = n;
        for (size_t i = 0; i < n; i++)
            if (size[i] < most[i] && (smallest == n || size[i] < size[smallest]))
                smallest = i;
        if (smallest == n)
            return;
        size[smallest]++;
    }
}

/* After a job has come or gone: who leaves his threads to the pool gets his share of the cores that
 * the others leave. */
static void rebalance(struct pool *pool) {
    struct job *jobs[pool->n_slots];
    int most[pool->n_slots], size[pool->n_slots], cores = pool->config.cores;
    size_t n = 0;
    memset(most, 0, sizeof most);
    for (int i = 0; i < pool->n_slots; i++) {
        struct job *job = pool->slots[i].computing ? pool->slots[i].job : NULL;
        if (job && job->spec.threads)
            cores -= job->spec.threads;
        else if (job)
            jobs[n] = job, most[n++] = job->most_threads;
    }
    share_cores(cores, most, size, n);
    for (size_t i = 0; i < n; i++)
        jobs[i]->members = size[i];
}

/* Owners are charged for the cores that their jobs have. */
static void note_cores(struct slot *slot) {
    int cores = slot->job && slot->computing ? threads_of(slot->job) : 0;
    if (slot->job && cores != slot->cores)
        store_set_cores(slot->pool->config.workplace.store, slot->job->experiment.seq, cores);
    slot->cores = cores;
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
static int start_job(struct slot *slot, struct job *job, int waiting) {
    struct ovr_err err = {0};
    struct store *store = slot->pool->config.workplace.store;
    int rc = spec_read_stored(job->experiment.spec, &job->spec, &err);
    if (rc == OVR_NOMEM) { /* not the job's fault: another try when there is memory */
        store_requeue(store, job->experiment.seq, "memory ran out when it was to start", NULL);
        return rc;
    }
    if (rc == 0) {
        double limit_ms = job->spec.time_limit_seconds * 1000;
        choose_threads(slot->pool, job, waiting);
        slot->deadline_ms = limit_ms > 0
                                ? monotonic_ms() + (int64_t)limit_ms - job->experiment.computed_ms
                                : INT64_MAX;
        slot->checkpoint_ms = monotonic_ms() + checkpoint_interval(slot->pool);
        slot->job = job;
        slot->computing = 1;
        note_cores(slot);
        rebalance(slot->pool);
        return 0;
    }
    struct outcome outcome = {
        .state = STATE_FAILED, .problem_kind = "invalid-spec", .problem_detail = err.text};
    log_line(LOG_ERROR, "experiment=%s %s", job->experiment.id, err.text);
    slot->pool->look_for_points = 1;
    store_finish(store, job->experiment.seq, &outcome, NULL);
    return OVR_INVALID;
}

/* Fills the slot from the queue. Returns 0, or a negative code when there is nothing to run now. */
static int claim(struct slot *slot) {
    struct pool *pool = slot->pool;
    struct ovr_err err = {0};
    int waiting = 0;
    if (!has_room(pool) || disk_is_full(pool->config.workplace.disk))
        return OVR_NOT_FOUND;
    struct job *job = calloc(1, sizeof *job);
    int rc = job ? store_claim(pool->config.workplace.store, free_memory(pool), &job->experiment,
                               &waiting, &err)
                 : ovr_nomem(&err, "a job");
    if (rc && rc != OVR_NOT_FOUND)
        log_line(LOG_ERROR, "the queue could not be read: %s", err.text);
    if (rc == 0 && (rc = start_job(slot, job, waiting)) == 0) {
        if (waiting && has_room(pool))
            pthread_cond_signal(&pool->work);
        return 0;
    }
    if (job)
        experiment_release(&job->experiment);
    free(job);
    return rc;
}

/* A search may have waited for the end of an experiment. Called without the lock. Returns how many
 * experiments it has put into the queue. When it can't go on now, the next tick tries again. */
static int advance_sweeps(struct pool *pool) {
    struct ovr_err err = {0};
    int added;
    int failed = sweeps_advance(pool->config.workplace.store, &added, &err) != 0;
    if (failed && !atomic_exchange(&pool->sweeps_stuck, 1))
        log_line(LOG_ERROR, "a sweep can't go on yet: %s", err.text);
    if (failed)
        pool->look_for_points = 1;
    else
        pool->sweeps_stuck = 0;
    return added;
}

/* What a job took for each core-second estimated; NaN: unknown. Its team's size is taken as it is
 * now, which is near enough. */
static double pace_of(const struct job *job, double seconds_left) {
    double seconds = (double)(now_ms() - job->experiment.started_at) / 1000 + seconds_left;
    double pace = seconds * threads_of(job) / job->experiment.core_seconds;
    return job->experiment.attempts == 1 && isfinite(pace) && pace > 0 ? pace : NAN;
}

/* The newest jobs count most. */
static void learn_pace(struct pool *pool, const struct job *job) {
    enum { PACED_JOBS = 8 };
    double pace = pace_of(job, 0);
    if (job->rc || isnan(pace))
        return;
    pool->n_paced += pool->n_paced < PACED_JOBS;
    pool->log_pace += (log(pace) - pool->log_pace) / pool->n_paced;
}

/* Takes the lock again only to say that the cores are free, and to leave the slot. */
static void work_off(struct slot *slot) {
    struct pool *pool = slot->pool;
    struct job *job = slot->job;
    pthread_mutex_unlock(&pool->lock);
    job_train(&pool->config.workplace, job);
    pthread_mutex_lock(&pool->lock);
    learn_pace(pool, job);
    slot->computing = 0;
    note_cores(slot);
    rebalance(pool);
    pthread_cond_signal(&pool->work);
    pthread_mutex_unlock(&pool->lock);
    job_end(&pool->config.workplace, job);
    advance_sweeps(pool);
    pthread_mutex_lock(&pool->lock);
    slot->job = NULL;
    experiment_release(&job->experiment);
    free(job);
}

static void *worker(void *arg) {
    struct slot *slot = arg;
    struct pool *pool = slot->pool;
    pthread_mutex_lock(&pool->lock);
    while (!pool->stopping) {
        int rc = claim(slot);
        if (rc == 0)
            work_off(slot);
        else if (rc != OVR_INVALID)
            wait_for_work(pool, rc == OVR_NOT_FOUND ? 3600 : 1);
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
    int n_slots = config->workers * SLOTS_PER_WORKER;
    struct slot *slots = calloc((size_t)n_slots, sizeof *slots);
    if (!pool || !slots) {
        free(pool);
        free(slots);
        return ovr_nomem(err, "the worker pool");
    }
    pool->config = *config;
    pool->slots = slots;
    pool->n_slots = n_slots;
    pool->ticked_ms = monotonic_ms();
    pool->look_for_points = 1; /* when the daemon ended it may not have come to that */
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
    pool->look_for_points = 1;
    pthread_mutex_lock(&pool->lock);
    if (has_room(pool))
        pthread_cond_signal(&pool->work);
    pthread_mutex_unlock(&pool->lock);
}

static void ask_to_stop(struct slot *slot, enum stop reason) {
    int no = STOP_NO; /* the first reason stands */
    atomic_compare_exchange_strong(&slot->job->stop, &no, (int)reason);
}

void pool_cancel(struct pool *pool, const char *id, enum stop why) {
    pthread_mutex_lock(&pool->lock);
    struct slot *slot = find_slot(pool, id);
    if (slot)
        ask_to_stop(slot, why);
    pthread_mutex_unlock(&pool->lock);
}

static void read_progress(const struct slot *slot, struct progress *out) {
    const struct train_progress *p = &slot->job->progress;
    double seconds = (double)(monotonic_ms() - (int64_t)p->phase_started_ms) / 1000;
    *out = (struct progress){.phase = p->phase,
                             .epoch = p->epoch,
                             .epochs = p->epochs,
                             .threads = threads_of(slot->job),
                             .step = p->step,
                             .steps = p->steps};
    progress_rate(out, p->samples, seconds);
}

int pool_progress(struct pool *pool, const char *id, struct progress *progress) {
    pthread_mutex_lock(&pool->lock);
    struct slot *slot = find_slot(pool, id);
    if (slot)
        read_progress(slot, progress);
    pthread_mutex_unlock(&pool->lock);
    return slot != NULL;
}

void pool_tick(struct pool *pool) {
    enum { LOOK_EVERY_MS = 1000 };
    int64_t now = monotonic_ms();
    pthread_mutex_lock(&pool->lock);
    double seconds = (double)(now - pool->ticked_ms) / 1000;
    pool->ticked_ms = now;
    for (int i = 0; i < pool->n_slots; i++) {
        struct slot *slot = &pool->slots[i];
        note_cores(slot);
        if (slot->job && slot->computing)
            metrics_use(slot->job->experiment.owner, seconds * threads_of(slot->job));
        if (slot->job && now >= slot->deadline_ms)
            ask_to_stop(slot, STOP_TIME_LIMIT);
        if (slot->job && now >= slot->checkpoint_ms) {
            slot->job->save_due = 1;
            slot->checkpoint_ms = now + checkpoint_interval(pool);
        }
    }
    int64_t free_now =
        free_memory(pool); /* a probe may turn out to need less than was kept for it */
    int due = now - pool->looked_ms >= LOOK_EVERY_MS; /* limits change, and patience ends */
    if ((due || free_now > pool->free_memory) && has_room(pool)) {
        pool->looked_ms = now;
        pthread_cond_signal(&pool->work);
    }
    pool->free_memory = free_now;
    pthread_mutex_unlock(&pool->lock);
    if (disk_look(pool->config.workplace.disk)) {
        log_line(LOG_INFO, "there is room on the disk again");
        pool_wake(pool); /* who starts a job wakes the next */
    }
    if (atomic_exchange(&pool->look_for_points, 0) && advance_sweeps(pool))
        pool_wake(pool);
    if (now - pool->written_ms < WRITE_MS)
        return;
    pool->written_ms = now;
    store_write_epochs(pool->config.workplace.store, NULL); /* a fault comes back to the jobs */
}

static void executor_submit(void *context) {
    pool_wake(context);
}

static int executor_poll(void *context, const char *id, struct progress *progress) {
    return pool_progress(context, id, progress);
}

static void executor_cancel(void *context, const char *id, enum stop why) {
    pool_cancel(context, id, why);
}

static void executor_reap(void *context) {
    pool_tick(context);
}

struct executor pool_executor(struct pool *pool) {
    return (struct executor){pool, executor_submit, executor_poll, executor_cancel, executor_reap};
}

static double find_pace(const struct pool *pool) {
    double sum = 0;
    int n = 0;
    if (pool->n_paced)
        return exp(pool->log_pace);
    for (int i = 0; i < pool->n_slots; i++) {
        const struct slot *slot = &pool->slots[i];
        struct progress p;
        if (!slot->job || !slot->computing)
            continue;
        read_progress(slot, &p);
        double pace = pace_of(slot->job, p.eta_seconds);
        if (!isnan(pace))
            sum += log(pace), n++;
    }
    return n ? exp(sum / n) : 1;
}

/* By its pace, or else by what it was estimated to take. */
static double seconds_left(const struct slot *slot) {
    const struct job *job = slot->job;
    struct progress p;
    if (!slot->computing)
        return 0;
    read_progress(slot, &p);
    if (isfinite(p.eta_seconds))
        return p.eta_seconds;
    double gone = (double)(now_ms() - job->experiment.started_at) / 1000;
    double left = find_pace(slot->pool) * job->experiment.core_seconds / p.threads - gone;
    return left < 0 ? 0 : left;
}

int pool_view(struct pool *pool, struct pool_view *view, struct ovr_err *err) {
    struct pool_job *jobs = calloc((size_t)pool->n_slots, sizeof *jobs);
    if (!jobs)
        return ovr_nomem(err, "what runs");
    pthread_mutex_lock(&pool->lock);
    struct load load = find_load(pool);
    *view = (struct pool_view){.workers = pool->config.workers,
                               .cores = pool->config.cores,
                               .stopping = pool->stopping,
                               .disk_full = disk_is_full(pool->config.workplace.disk),
                               .busy = load.jobs,
                               .threads = load.threads,
                               .memory_bytes = pool->config.memory_bytes,
                               .free_bytes = free_memory(pool),
                               .pace = find_pace(pool),
                               .jobs = jobs};
    for (int i = 0; i < pool->n_slots; i++) {
        const struct slot *slot = &pool->slots[i];
        if (!slot->job)
            continue;
        const struct experiment *e = &slot->job->experiment;
        struct pool_job *job = &jobs[view->n_jobs++];
        *job = (struct pool_job){.seq = e->seq,
                                 .started_ms = e->started_at,
                                 .memory_bytes = memory_of(slot->job),
                                 .computing = slot->computing,
                                 .threads = slot->computing ? threads_of(slot->job) : 0,
                                 .seconds_left = seconds_left(slot)};
        memcpy(job->id, e->id, sizeof job->id);
        memcpy(job->owner, e->owner, sizeof job->owner);
    }
    pthread_mutex_unlock(&pool->lock);
    return 0;
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

int pool_alive(struct pool *pool) {
    pthread_mutex_lock(&pool->lock);
    int alive = !pool->stopping && pool->n_left == 0 &&
                monotonic_ms() - pool->ticked_ms < pool->config.stuck_ms;
    pthread_mutex_unlock(&pool->lock);
    return alive;
}
