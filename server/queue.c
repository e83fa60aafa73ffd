#include "server/queue.h"

#include "server/log.h"

#include <math.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* A twentieth of the time, of which a second's worth can be saved up. */
static const double BUDGET_SHARE = 0.05, MOST_BUDGET_S = 0.05;

struct queue {
    struct queue_config config;
    pthread_mutex_t lock; /* guards the rest */
    struct queue_snapshot *snapshot;
    int being_made;
    double budget_s; /* time to spend on it; grows by a twentieth of the time that passes */
    double filled_s; /* when */
};

static double seconds_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void snapshot_free(struct queue_snapshot *s) {
    if (!s)
        return;
    free(s->pool.jobs);
    free(s->owners);
    free(s->sent);
    free(s->jobs);
    free(s->by_seq);
    free(s);
}

static void put(struct queue_snapshot *s) {
    if (s && --s->users == 0)
        snapshot_free(s);
}

int queue_new(struct queue **out, const struct queue_config *config, struct ovr_err *err) {
    struct queue *queue = *out = calloc(1, sizeof *queue);
    if (!queue)
        return ovr_nomem(err, "the queue");
    queue->config = *config;
    queue->budget_s = MOST_BUDGET_S;
    queue->filled_s = seconds_now();
    pthread_mutex_init(&queue->lock, NULL);
    return 0;
}

void queue_free(struct queue *queue) {
    if (!queue)
        return;
    put(queue->snapshot);
    pthread_mutex_destroy(&queue->lock);
    free(queue);
}

/* ---- Making a snapshot ---- */

static size_t share_of(const struct queue_snapshot *s, int64_t owner) {
    size_t low = 0, high = s->n_owners;
    while (low + 1 < high) {
        size_t middle = low + (high - low) / 2;
        if (s->owners[middle].seq <= owner)
            low = middle;
        else
            high = middle;
    }
    return low; /* the first one is nobody, who is always there */
}

static size_t share_named(const struct queue_snapshot *s, const char *name) {
    for (size_t i = 0; i < s->n_owners; i++)
        if (strcmp(s->owners[i].name, name) == 0)
            return i;
    return 0;
}

static void see(struct queue_snapshot *s, int64_t seq) {
    s->newest = seq > s->newest ? seq : s->newest;
}

static void add_waiting(struct queue_snapshot *s, const struct queue_rows *rows,
                        enum executor_kind executor) {
    for (size_t i = 0; i < rows->n_waiting; i++) {
        const struct waiting *w = &rows->waiting[i];
        if (w->executor != executor)
            continue;
        struct plan_job *job = &s->jobs[s->n_jobs++];
        *job = (struct plan_job){.seq = w->seq,
                                 .after = w->waits_for,
                                 .share = share_of(s, w->owner),
                                 .priority = w->priority,
                                 .memory_bytes = w->memory_bytes,
                                 .core_seconds = w->core_seconds * s->pool.pace};
        s->owners[job->share].waiting++;
        see(s, w->seq);
    }
}

/* Whose order is Slurm's affair. */
static void add_sent(struct queue_snapshot *s) {
    for (size_t i = 0; i < s->n_sent; i++) {
        const struct sent *sent = &s->sent[i];
        see(s, sent->seq);
        if (sent->begun_ms)
            continue;
        struct plan_job *job = &s->jobs[s->n_jobs++];
        *job = (struct plan_job){.seq = sent->seq,
                                 .share = share_of(s, sent->owner),
                                 .memory_bytes = sent->memory_bytes,
                                 .core_seconds = NAN,
                                 .position = (int64_t)++s->n_there,
                                 .start_s = NAN};
        s->owners[job->share].waiting++;
    }
}

/* Takes over what of the rows stays as it is. */
static int fill_jobs(struct queue_snapshot *s, struct queue_rows *rows, struct ovr_err *err) {
    size_t most = rows->n_waiting + rows->n_sent;
    s->jobs = calloc(most + 1, sizeof *s->jobs);
    s->by_seq = calloc(most + 1, sizeof *s->by_seq);
    if (!s->jobs || !s->by_seq)
        return ovr_nomem(err, "the queue");
    s->owners = rows->owners;
    s->n_owners = rows->n_owners;
    s->sent = rows->sent;
    s->n_sent = rows->n_sent;
    rows->owners = NULL;
    rows->sent = NULL;
    add_waiting(s, rows, EXECUTOR_LOCAL);
    s->n_here = s->n_jobs;
    add_sent(s);
    add_waiting(s, rows, EXECUTOR_SLURM);
    for (size_t i = 0; i < s->pool.n_jobs; i++)
        see(s, s->pool.jobs[i].seq);
    return 0;
}

/* Whose turn it is, as the scheduler would have it on an empty machine. */
static int find_turn(struct queue_snapshot *s, const struct share *shares, struct ovr_err *err) {
    struct candidate *heads = calloc(s->n_owners, sizeof *heads);
    if (!heads)
        return ovr_nomem(err, "the queue");
    for (size_t i = 0; i < s->n_here; i++) {
        const struct plan_job *job = &s->jobs[i];
        struct candidate *head = &heads[job->share];
        if (!job->after && (!head->seq || job->priority > head->priority ||
                            (job->priority == head->priority && job->seq < head->seq)))
            *head =
                (struct candidate){.seq = job->seq, .share = job->share, .priority = job->priority};
    }
    size_t n = 0;
    for (size_t i = 0; i < s->n_owners; i++)
        if (heads[i].seq)
            heads[n++] = heads[i];
    const struct room room = {.half_life_ms = s->half_life_ms};
    ptrdiff_t first = scheduler_pick(shares, heads, n, &room);
    s->next.share = first == NO_CANDIDATE ? s->n_owners : heads[first].share;
    s->next.priority = first == NO_CANDIDATE ? 0 : heads[first].priority;
    s->next.seq = first == NO_CANDIDATE ? 0 : heads[first].seq;
    free(heads);
    return 0;
}

static struct share *list_shares(const struct queue_snapshot *s) {
    struct share *shares = calloc(s->n_owners, sizeof *shares);
    for (size_t i = 0; shares && i < s->n_owners; i++)
        shares[i] = (struct share){.owner = s->owners[i].seq,
                                   .use = s->owners[i].use,
                                   .cores = s->owners[i].cores,
                                   .running = s->owners[i].running,
                                   .limit = s->owners[i].max_running};
    return shares;
}

static struct plan_running *list_running(const struct queue_snapshot *s) {
    struct plan_running *running = calloc(s->pool.n_jobs + 1, sizeof *running);
    for (size_t i = 0; running && i < s->pool.n_jobs; i++) {
        const struct pool_job *job = &s->pool.jobs[i];
        running[i] = (struct plan_running){job->seq, share_named(s, job->owner), job->memory_bytes,
                                           job->threads, job->seconds_left};
    }
    return running;
}

/* Puts the jobs for this machine into the order in which they will start. */
static int plan_here(struct queue_snapshot *s, struct ovr_err *err) {
    const struct machine machine = {s->pool.workers, s->pool.cores, s->pool.memory_bytes,
                                    s->half_life_ms};
    struct share *shares = list_shares(s);
    struct plan_running *running = list_running(s);
    int rc = shares && running ? find_turn(s, shares, err) : ovr_nomem(err, "the queue");
    for (size_t i = 0; !rc && i < s->n_sent; i++)
        shares[share_of(s, s->sent[i].owner)].limit--;
    if (!rc)
        rc = scheduler_plan(&machine, shares, s->n_owners, running, s->pool.n_jobs, s->jobs,
                            s->n_here, err);
    free(shares);
    free(running);
    return rc;
}

/* And those that are still to be sent to the cluster, by the same rules: its places are what is
 * short. Nobody knows when one becomes free. */
static int plan_there(struct queue_snapshot *s, struct ovr_err *err) {
    const struct machine machine = {s->cluster_jobs, s->cluster_jobs, INT64_MAX, s->half_life_ms};
    struct plan_job *jobs = s->jobs + s->n_here + s->n_there;
    size_t n = s->n_jobs - s->n_here - s->n_there;
    struct share *shares = list_shares(s);
    struct plan_running *sent = calloc(s->n_sent + 1, sizeof *sent);
    int rc = shares && sent ? 0 : ovr_nomem(err, "the cluster's queue");
    for (size_t i = 0; !rc && i < s->n_sent; i++)
        sent[i] = (struct plan_running){.seq = s->sent[i].seq,
                                        .share = share_of(s, s->sent[i].owner),
                                        .cores = 1,
                                        .seconds_left = NAN};
    for (size_t i = 0; !rc && i < s->pool.n_jobs; i++)
        shares[share_named(s, s->pool.jobs[i].owner)].limit--;
    if (!rc)
        rc = scheduler_plan(&machine, shares, s->n_owners, sent, s->n_sent, jobs, n, err);
    for (size_t i = 0; !rc && i < n; i++) {
        jobs[i].position += (int64_t)s->n_there;
        jobs[i].start_s = NAN;
    }
    free(shares);
    free(sent);
    return rc;
}

static int compare_seqs(const void *a, const void *b, void *jobs) {
    int64_t x = ((const struct plan_job *)jobs)[*(const uint32_t *)a].seq;
    int64_t y = ((const struct plan_job *)jobs)[*(const uint32_t *)b].seq;
    return (x > y) - (x < y);
}

static void index_jobs(struct queue_snapshot *s) {
    for (size_t i = 0; i < s->n_jobs; i++)
        s->by_seq[i] = (uint32_t)i;
    qsort_r(s->by_seq, s->n_jobs, sizeof *s->by_seq, compare_seqs, s->jobs);
    for (size_t i = 0; i < s->n_here && !s->blocked_bytes; i++)
        if (s->jobs[i].memory_bytes > s->pool.free_bytes && !s->jobs[i].after)
            s->blocked_bytes = s->jobs[i].memory_bytes;
}

/* The pool is looked at first: what it has claimed meanwhile is not in the queue any more. */
static int make_snapshot(const struct queue *queue, struct queue_snapshot **out,
                         struct ovr_err *err) {
    const struct queue_config *config = &queue->config;
    struct queue_snapshot *s = calloc(1, sizeof *s);
    struct queue_rows rows = {0};
    if (!s)
        return ovr_nomem(err, "the queue");
    s->made_ms = now_ms();
    s->half_life_ms = (double)config->half_life_ms;
    s->cluster_jobs = config->cluster_jobs;
    s->cluster.answers = 1;
    if (config->cluster)
        cluster_view(config->cluster, &s->cluster);
    s->newest = queue->snapshot ? queue->snapshot->newest : 0;
    s->version = store_queue_version(config->store);
    int rc = pool_view(config->pool, &s->pool, err);
    rc = rc ? rc : store_read_queue(config->store, &rows, err);
    rc = rc ? rc : fill_jobs(s, &rows, err);
    rc = rc ? rc : plan_here(s, err);
    rc = rc ? rc : plan_there(s, err);
    if (!rc)
        index_jobs(s);
    queue_rows_release(&rows);
    if (rc)
        snapshot_free(s);
    else
        *out = s;
    return rc;
}

/* ---- Keeping one ---- */

/* With the lock held. */
static int is_stale(struct queue *queue) {
    enum { MOST_AGE_MS = 1000 };
    const struct queue_snapshot *s = queue->snapshot;
    if (!s)
        return 1;
    double now = seconds_now();
    queue->budget_s = fmin(MOST_BUDGET_S, queue->budget_s + BUDGET_SHARE * (now - queue->filled_s));
    queue->filled_s = now;
    return !queue->being_made && queue->budget_s > 0 &&
           (s->version != store_queue_version(queue->config.store) ||
            now_ms() - s->made_ms > MOST_AGE_MS);
}

void queue_put(struct queue *queue, struct queue_snapshot *snapshot) {
    pthread_mutex_lock(&queue->lock);
    put(snapshot);
    pthread_mutex_unlock(&queue->lock);
}

/* Called with the lock held, which it leaves in between: while one thread makes a new one the
 * others go on with the old one. */
static int renew(struct queue *queue, struct ovr_err *err) {
    struct queue_snapshot *made = NULL;
    queue->being_made = 1;
    pthread_mutex_unlock(&queue->lock);
    double started = seconds_now();
    int rc = make_snapshot(queue, &made, err);
    pthread_mutex_lock(&queue->lock);
    queue->being_made = 0;
    queue->budget_s -= seconds_now() - started;
    if (rc)
        return rc;
    put(queue->snapshot);
    queue->snapshot = made;
    made->users = 1;
    return 0;
}

int queue_look(struct queue *queue, struct queue_snapshot **snapshot, struct ovr_err *err) {
    pthread_mutex_lock(&queue->lock);
    int rc = is_stale(queue) ? renew(queue, err) : 0;
    if (!rc) {
        *snapshot = queue->snapshot;
        queue->snapshot->users++;
    }
    pthread_mutex_unlock(&queue->lock);
    return rc;
}

/* ---- Reasons ---- */

/* A text that grows to QUEUE_REASON_SIZE. */
static void say(struct queue_place *place, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void say(struct queue_place *place, const char *format, ...) {
    size_t n = strlen(place->reason);
    va_list args;
    va_start(args, format);
    vsnprintf(place->reason + n, sizeof place->reason - n, format, args);
    va_end(args);
}

static const char *ordinal_end(int64_t n) {
    if (n % 100 >= 11 && n % 100 <= 13)
        return "th";
    return n % 10 == 1 ? "st" : n % 10 == 2 ? "nd" : n % 10 == 3 ? "rd" : "th";
}

static double gib(int64_t bytes) {
    return (double)bytes / (1 << 30);
}

/* Core time in the unit that suits it. */
static void say_use(struct queue_place *place, double core_seconds) {
    if (core_seconds >= 3600)
        say(place, "%.3g core-hours", core_seconds / 3600);
    else
        say(place, "%.3g core-minutes", core_seconds / 60);
}

static const char *owner_name(const struct owner *owner) {
    return *owner->name ? owner->name : "nobody";
}

static void say_memory(struct queue_place *place, const struct queue_snapshot *s, int64_t needed) {
    place->reason_code = "memory";
    if (needed > s->pool.memory_bytes)
        say(place, "needs %.1f GiB of memory, and this daemon may use %.1f GiB", gib(needed),
            gib(s->pool.memory_bytes));
    else
        say(place, "needs %.1f GiB of memory, %.1f GiB is free now", gib(needed),
            gib(s->pool.free_bytes));
}

/* Whether somebody goes first who has used less, and came later. */
static int say_share(struct queue_place *place, const struct queue_snapshot *s,
                     const struct plan_job *job) {
    if (s->next.share == s->n_owners || s->next.share == job->share ||
        s->next.priority != job->priority || s->next.seq < job->seq)
        return 0;
    const struct owner *mine = &s->owners[job->share], *first = &s->owners[s->next.share];
    place->reason_code = "fair_share";
    say(place, "%s used ", owner_name(mine));
    say_use(place, mine->use);
    say(place, " lately, %s ", owner_name(first));
    say_use(place, first->use);
    say(place, ": %s's go first", owner_name(first));
    return 1;
}

static void say_limit(struct queue_place *place, const struct owner *owner) {
    place->reason_code = "user_limit";
    say(place, "%s already runs %d of %d allowed", owner_name(owner), owner->running,
        owner->max_running);
}

static void say_why(struct queue_place *place, const struct queue_snapshot *s,
                    const struct plan_job *job, const struct experiment *e) {
    const struct owner *owner = &s->owners[job->share];
    const struct pool_view *pool = &s->pool;
    if (pool->stopping) {
        place->reason_code = "stopping";
        say(place, "the daemon is stopping and starts nothing more");
    } else if (pool->disk_full) {
        place->reason_code = "disk";
        say(place, "the disk is full, and nothing starts before there is room");
    } else if (*e->waits_for) {
        place->reason_code = "chain";
        say(place, "waits for experiment %s", may_see(e) ? e->waits_for : "(private)");
        if (*e->sweep && e->point > 0)
            say(place, " (point %d of the chain)", e->point - 1);
        say(place, ", whose weights it starts from");
    } else if (owner->running >= owner->max_running) {
        say_limit(place, owner);
    } else if (job->memory_bytes > pool->memory_bytes ||
               (job->memory_bytes > pool->free_bytes && pool->busy < pool->workers)) {
        say_memory(place, s, job->memory_bytes);
    } else if (pool->busy >= pool->workers) {
        if (say_share(place, s, job))
            return;
        place->reason_code = "workers";
        say(place, "%d of %d worker%s %s busy", pool->busy, pool->workers,
            pool->workers == 1 ? "" : "s", pool->workers == 1 ? "is" : "are");
    } else if (s->blocked_bytes) {
        place->reason_code = "memory";
        say(place,
            "memory is kept for an experiment before it that needs %.1f GiB, %.1f GiB is "
            "free now",
            gib(s->blocked_bytes), gib(pool->free_bytes));
    } else {
        place->reason_code = "next";
        say(place, "a worker is about to take %s",
            place->position > 1 ? "the one before it" : "it");
    }
}

/* What Slurm's words mean for who does not know them; by how they begin. */
static const char *meaning_of(const char *reason) {
    static const char *const meanings[][2] = {
        {"Resources", "the nodes that it needs are busy"},
        {"Priority", "others go first there"},
        {"ReqNodeNotAvail", "nodes that it needs are down or reserved"},
        {"Nodes required for job are DOWN", "nodes that it needs are down or reserved"},
        {"PartitionNodeLimit", "the partition never gives so much: see --slurm-options"},
        {"PartitionTimeLimit", "the partition never gives so much time: see --slurm-max-minutes"},
        {"PartitionConfig", "the partition has no node like that: see --slurm-options"},
        {"Partition", "the partition is closed"},
        {"BadConstraints", "no node has what it asks for: see --slurm-options"},
        {"Running on ", "its worker starts there, and has not reached this daemon yet"},
        {"JobHeld", "somebody holds it: scontrol release lets it go"},
        {"QOS", "a limit that the lab set is reached"},
        {"Assoc", "a limit that the lab set is reached"},
    };
    for (size_t i = 0; i < sizeof meanings / sizeof *meanings; i++)
        if (strncmp(reason, meanings[i][0], strlen(meanings[i][0])) == 0)
            return meanings[i][1];
    return NULL;
}

static const struct sent *find_sent(const struct queue_snapshot *s, int64_t seq) {
    for (size_t i = 0; i < s->n_sent; i++)
        if (s->sent[i].seq == seq)
            return &s->sent[i];
    return NULL;
}

static void say_sent(struct queue_place *place, const struct sent *sent, int may_see) {
    const char *reason = sent->reason, *meaning = meaning_of(reason);
    const char *job = may_see ? sent->job : "(private)";
    if (!*sent->job)
        say(place, "it is being sent to Slurm");
    else if (!*reason)
        say(place, "Slurm has it as job %s: it has just come in", job);
    else if (meaning)
        say(place, "Slurm has it as job %s (%s): %s", job, reason, meaning);
    else
        say(place, "Slurm has it as job %s: %s", job, reason);
}

/* Of one that is for the cluster. */
static void say_cluster(struct queue_place *place, const struct queue_snapshot *s,
                        const struct plan_job *job, const struct experiment *e) {
    const struct sent *sent = find_sent(s, e->seq);
    const struct owner *owner = &s->owners[job->share];
    place->reason_code = "slurm";
    if (sent) {
        say_sent(place, sent, may_see(e));
        return;
    }
    say(place, "%lld%s in line for Slurm; ", (long long)job->position, ordinal_end(job->position));
    if (!s->cluster_jobs)
        say(place, "this daemon was started without --slurm on");
    else if (s->pool.stopping)
        say(place, "the daemon is stopping and sends nothing more");
    else if (owner->running >= owner->max_running)
        say_limit(place, owner);
    else if (*s->cluster.trouble)
        say(place, "%s", s->cluster.trouble);
    else if (s->n_sent >= (size_t)s->cluster_jobs)
        say(place, "Slurm has %zu of at most %d experiments", s->n_sent, s->cluster_jobs);
    else
        say(place, "it is sent as soon as its turn comes");
}

/* No finer than to an eighth of the wait, so that it stays for a while. */
static int64_t starts_at(const struct queue_snapshot *s, const struct plan_job *job) {
    if (isnan(job->start_s))
        return 0;
    int64_t ms = s->made_ms + (int64_t)(job->start_s * 1000);
    int64_t grain = 10000;
    while ((double)grain < job->start_s * 1000 / 16)
        grain *= 2;
    return (ms + grain - 1) / grain * grain;
}

static void say_when(struct queue_place *place, int64_t now) {
    double seconds = (double)(place->starts_at - now) / 1000;
    if (!place->starts_at || strcmp(place->reason_code, "next") == 0)
        return;
    if (seconds < 60)
        say(place, "; starts within a minute");
    else if (seconds < 90 * 60)
        say(place, "; starts in about %.0f min", seconds / 60);
    else if (seconds < 36 * 3600)
        say(place, "; starts in about %.0f h", seconds / 3600);
    else
        say(place, "; starts in about %.0f days", seconds / 86400);
}

static const struct plan_job *find_job(const struct queue_snapshot *s, int64_t seq) {
    size_t low = 0, high = s->n_jobs;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (s->jobs[s->by_seq[middle]].seq < seq)
            low = middle + 1;
        else
            high = middle;
    }
    const struct plan_job *job = low < s->n_jobs ? &s->jobs[s->by_seq[low]] : NULL;
    return job && job->seq == seq ? job : NULL;
}

/* One that came after the snapshot was made: behind all that are in it. Or it was claimed between
 * the look at it and at the queue. */
static struct plan_job newcomer(const struct queue_snapshot *s, const struct experiment *e) {
    int64_t behind = s->newest && e->seq > s->newest ? e->seq - s->newest : 1;
    return (struct plan_job){
        .seq = e->seq,
        .share = share_named(s, e->owner),
        .priority = e->priority,
        .memory_bytes = e->memory_bytes,
        .position =
            (int64_t)(e->executor == EXECUTOR_LOCAL ? s->n_here : s->n_jobs - s->n_here) + behind,
        .start_s = NAN};
}

void queue_place(const struct queue_snapshot *s, const struct experiment *e,
                 struct queue_place *place) {
    const struct plan_job *known = find_job(s, e->seq);
    struct plan_job job = known ? *known : newcomer(s, e);
    *place = (struct queue_place){.position = job.position, .starts_at = starts_at(s, &job)};
    if (e->executor != EXECUTOR_LOCAL) {
        say_cluster(place, s, &job, e);
        return;
    }
    say(place, "%lld%s in line; ", (long long)job.position, ordinal_end(job.position));
    say_why(place, s, &job, e);
    say_when(place, s->made_ms);
}

int queue_find(struct queue *queue, const struct experiment *e, struct queue_place *place,
               struct ovr_err *err) {
    struct queue_snapshot *s;
    int rc = queue_look(queue, &s, err);
    if (rc)
        return rc;
    queue_place(s, e, place);
    queue_put(queue, s);
    return 0;
}
