#include "server/scheduler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* An hour of a day. */
static const double RUNNING_SHARE = 1. / 24;

double use_at(const struct use *use, int64_t now_ms, double half_life_ms) {
    return use->core_seconds * exp2(-(double)(now_ms - use->at_ms) / half_life_ms);
}

/* Each moment's use has faded since: the integral of cores × 2^−(now − t)/half-life. */
void use_add(struct use *use, double cores, int64_t from_ms, int64_t now_ms, double half_life_ms) {
    double lasted = now_ms > from_ms ? (double)(now_ms - from_ms) : 0;
    double seconds = half_life_ms / 1000 / M_LN2 * -expm1(-M_LN2 * lasted / half_life_ms);
    use->core_seconds = use_at(use, now_ms, half_life_ms) + cores * seconds;
    use->at_ms = now_ms;
}

double share_weight(const struct share *share, double half_life_ms) {
    return share->use + share->cores * RUNNING_SHARE * half_life_ms / 1000;
}

/* Negative: a goes before b. */
static int compare(int priority_a, double weight_a, int64_t seq_a, int priority_b, double weight_b,
                   int64_t seq_b) {
    if (priority_a != priority_b)
        return priority_a > priority_b ? -1 : 1;
    if (weight_a != weight_b)
        return weight_a < weight_b ? -1 : 1;
    return seq_a < seq_b ? -1 : seq_a > seq_b;
}

static int goes_before(const struct share *shares, const struct candidate *a,
                       const struct candidate *b, double half_life_ms) {
    return !b || compare(a->priority, share_weight(&shares[a->share], half_life_ms), a->seq,
                         b->priority, share_weight(&shares[b->share], half_life_ms), b->seq) < 0;
}

static int may_run(const struct share *share) {
    return share->running < share->limit;
}

/* What lets a candidate take part; `holder`, where there is one, is who holds the reservation. */
struct terms_of_entry {
    const struct room *room;
    const struct candidate *holder;
    int64_t beside; /* what is left beside the holder for those that start from now on */
};

static int fits(const struct candidate *c, const struct terms_of_entry *terms) {
    const struct candidate *holder = terms->holder;
    if (c->memory_bytes > terms->room->free_bytes)
        return 0;
    return !holder || c == holder || c->priority > holder->priority ||
           c->memory_bytes <= terms->beside;
}

static int is_passed(const struct candidate *c, const struct terms_of_entry *terms) {
    return c->blocked_ms && terms->room->now_ms - c->blocked_ms >= SCHEDULER_PATIENCE_MS;
}

static int is_there(const struct candidate *c, const struct terms_of_entry *terms) {
    (void)c;
    (void)terms;
    return 1;
}

/* The first in the order of those that may run and are `eligible`; NULL: none. */
static struct candidate *find_first(const struct share *shares, struct candidate *candidates,
                                    size_t n, const struct terms_of_entry *terms,
                                    int (*eligible)(const struct candidate *c,
                                                    const struct terms_of_entry *terms)) {
    struct candidate *first = NULL;
    for (size_t i = 0; i < n; i++) {
        struct candidate *c = &candidates[i];
        if (may_run(&shares[c->share]) && eligible(c, terms) &&
            goes_before(shares, c, first, terms->room->half_life_ms))
            first = c;
    }
    return first;
}

static int64_t beside(const struct candidate *holder, const struct room *room) {
    int64_t bytes = room->total_bytes - holder->memory_bytes;
    for (size_t i = 0; i < room->n_placed; i++)
        if (room->placed[i].started_ms >= holder->blocked_ms + SCHEDULER_PATIENCE_MS)
            bytes -= room->placed[i].memory_bytes;
    return bytes;
}

ptrdiff_t scheduler_pick(const struct share *shares, struct candidate *candidates, size_t n,
                         const struct room *room) {
    struct terms_of_entry terms = {.room = room};
    struct candidate *turn = find_first(shares, candidates, n, &terms, is_there);
    if (turn && turn->memory_bytes > room->free_bytes && !turn->blocked_ms)
        turn->blocked_ms = room->now_ms;
    terms.holder = find_first(shares, candidates, n, &terms, is_passed);
    terms.beside = terms.holder ? beside(terms.holder, room) : 0;
    const struct candidate *best = find_first(shares, candidates, n, &terms, fits);
    if (best && terms.holder && best->priority <= terms.holder->priority &&
        terms.holder->memory_bytes <= room->free_bytes)
        best = terms.holder;
    return best ? best - candidates : NO_CANDIDATE;
}

/* Looking ahead */

/* One that runs, or will have. */
struct run_ahead {
    int64_t seq;
    size_t share;
    int64_t memory_bytes;
    double cores, end_s; /* INFINITY: unknown */
};

/* A heap of an owner's jobs that could start, the first one on top. */
struct heap {
    size_t *jobs, n;
};

struct ahead {
    const struct machine *machine;
    struct share *shares;
    size_t n_shares;
    struct plan_job *jobs;
    size_t n_jobs, n_ready, n_planned;
    struct heap *heaps; /* for each share */
    size_t *places;     /* that the heaps are cut from */
    size_t *chained;    /* jobs that wait for another one, by that one's seq */
    size_t n_chained;
    struct run_ahead *runs;
    size_t n_runs;
    int64_t free_bytes;
    double now_s; /* NaN from where it is unknown */
};

static int job_before(const struct plan_job *a, const struct plan_job *b) {
    return compare(a->priority, 0, a->seq, b->priority, 0, b->seq) < 0;
}

static void push(const struct plan_job *jobs, struct heap *heap, size_t job) {
    size_t at = heap->n++;
    for (; at && job_before(&jobs[job], &jobs[heap->jobs[(at - 1) / 2]]); at = (at - 1) / 2)
        heap->jobs[at] = heap->jobs[(at - 1) / 2];
    heap->jobs[at] = job;
}

static size_t pop(const struct plan_job *jobs, struct heap *heap) {
    size_t top = heap->jobs[0], last = heap->jobs[--heap->n], at = 0, child;
    while ((child = 2 * at + 1) < heap->n) {
        if (child + 1 < heap->n &&
            job_before(&jobs[heap->jobs[child + 1]], &jobs[heap->jobs[child]]))
            child++;
        if (!job_before(&jobs[heap->jobs[child]], &jobs[last]))
            break;
        heap->jobs[at] = heap->jobs[child];
        at = child;
    }
    heap->jobs[at] = last;
    return top;
}

static int by_after(const void *a, const void *b, void *context) {
    const struct plan_job *jobs = context;
    int64_t x = jobs[*(const size_t *)a].after, y = jobs[*(const size_t *)b].after;
    return (x > y) - (x < y);
}

/* What needs more than there is would block the others for ever. */
static void make_ready(struct ahead *a, size_t job) {
    if (a->jobs[job].memory_bytes > a->machine->memory_bytes)
        return;
    push(a->jobs, &a->heaps[a->jobs[job].share], job);
    a->n_ready++;
}

/* Those that waited for it can start. */
static void release(struct ahead *a, int64_t seq) {
    size_t low = 0, high = a->n_chained;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (a->jobs[a->chained[middle]].after < seq)
            low = middle + 1;
        else
            high = middle;
    }
    for (; low < a->n_chained && a->jobs[a->chained[low]].after == seq; low++) {
        size_t job = a->chained[low];
        make_ready(a, job);
    }
}

static void start_run(struct ahead *a, const struct run_ahead *run) {
    struct share *share = &a->shares[run->share];
    a->runs[a->n_runs++] = *run;
    a->free_bytes -= run->memory_bytes;
    share->running++;
    share->cores += run->cores;
}

/* Until the next one ends. Returns 0 when none will. */
static int pass_time(struct ahead *a) {
    size_t first = 0;
    if (!a->n_runs)
        return 0;
    for (size_t i = 1; i < a->n_runs; i++)
        if (a->runs[i].end_s < a->runs[first].end_s)
            first = i;
    struct run_ahead run = a->runs[first];
    a->runs[first] = a->runs[--a->n_runs];
    if (isinf(run.end_s))
        a->now_s = NAN;
    else if (a->now_s < run.end_s) /* stays NaN */
        a->now_s = run.end_s;
    a->free_bytes += run.memory_bytes;
    a->shares[run.share].running--;
    a->shares[run.share].cores -= run.cores;
    release(a, run.seq);
    return 1;
}

/* Whose first job is next, wherever it fits; n_shares: nobody's. */
static size_t next_share(const struct ahead *a) {
    size_t best = a->n_shares;
    for (size_t s = 0; s < a->n_shares; s++) {
        const struct heap *heap = &a->heaps[s];
        if (!heap->n || !may_run(&a->shares[s]))
            continue;
        const struct plan_job *job = &a->jobs[heap->jobs[0]];
        if (best == a->n_shares) {
            best = s;
            continue;
        }
        const struct plan_job *other = &a->jobs[a->heaps[best].jobs[0]];
        if (compare(job->priority, share_weight(&a->shares[s], a->machine->half_life_ms), job->seq,
                    other->priority, share_weight(&a->shares[best], a->machine->half_life_ms),
                    other->seq) < 0)
            best = s;
    }
    return best;
}

/* Those that run side by side have equal parts of the cores. What the job will use counts at once:
 * looking ahead, use does not fade. */
static void start_next(struct ahead *a, size_t s) {
    size_t index = pop(a->jobs, &a->heaps[s]);
    struct plan_job *job = &a->jobs[index];
    int side_by_side = (int)a->n_runs + (int)(a->n_ready < 1000 ? a->n_ready : 1000);
    if (side_by_side > a->machine->workers)
        side_by_side = a->machine->workers;
    int cores = a->machine->cores / (side_by_side > 0 ? side_by_side : 1);
    cores = cores > 1 ? cores : 1;
    double end = a->now_s + job->core_seconds / cores;
    a->n_ready--;
    job->position = (int64_t)++a->n_planned;
    job->start_s = a->now_s;
    start_run(
        a, &(struct run_ahead){job->seq, s, job->memory_bytes, cores, isnan(end) ? INFINITY : end});
    if (!isnan(job->core_seconds))
        a->shares[s].use += job->core_seconds;
}

static void play(struct ahead *a) {
    static const double MOST_STEPS = 1e8; /* some tenths of a second */
    double steps = 0;
    while (a->n_planned < a->n_jobs && steps < MOST_STEPS) {
        size_t s = next_share(a);
        steps += (double)(a->n_shares + a->n_runs);
        int64_t needed = s < a->n_shares ? a->jobs[a->heaps[s].jobs[0]].memory_bytes : 0;
        if (s < a->n_shares && a->n_runs < (size_t)a->machine->workers && needed <= a->free_bytes) {
            start_next(a, s);
        } else if (!pass_time(a)) {
            return;
        }
    }
}

/* Jobs of which nothing is known go behind the others. */
static int by_position(const void *x, const void *y) {
    const struct plan_job *a = x, *b = y;
    if (a->position && b->position)
        return (a->position > b->position) - (a->position < b->position);
    if (a->position || b->position)
        return a->position ? -1 : 1;
    return job_before(a, b) ? -1 : 1;
}

/* Cuts the heaps to size and fills them. */
static void fill_heaps(struct ahead *a) {
    size_t at = 0;
    for (size_t i = 0; i < a->n_jobs; i++)
        a->heaps[a->jobs[i].share].n++;
    for (size_t s = 0; s < a->n_shares; s++) {
        a->heaps[s].jobs = a->places + at;
        at += a->heaps[s].n;
        a->heaps[s].n = 0;
    }
    for (size_t i = 0; i < a->n_jobs; i++) {
        a->jobs[i].position = 0;
        a->jobs[i].start_s = NAN;
        if (a->jobs[i].after) {
            a->chained[a->n_chained++] = i;
        } else {
            make_ready(a, i);
        }
    }
    qsort_r(a->chained, a->n_chained, sizeof *a->chained, by_after, a->jobs);
}

static void put_running(struct ahead *a, const struct plan_running *running, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const struct plan_running *r = &running[i];
        start_run(a, &(struct run_ahead){r->seq, r->share, r->memory_bytes, r->cores,
                                         isnan(r->seconds_left) ? INFINITY : r->seconds_left});
    }
}

int scheduler_plan(const struct machine *machine, struct share *shares, size_t n_shares,
                   const struct plan_running *running, size_t n_running, struct plan_job *jobs,
                   size_t n_jobs, struct ovr_err *err) {
    struct ahead a = {
        .machine = machine,
        .shares = shares,
        .n_shares = n_shares,
        .jobs = jobs,
        .n_jobs = n_jobs,
        .heaps = calloc(n_shares + 1, sizeof *a.heaps),
        .places = calloc(n_jobs + 1, sizeof *a.places),
        .chained = calloc(n_jobs + 1, sizeof *a.chained),
        .runs = calloc(n_running + (size_t)machine->workers + 1, sizeof *a.runs),
        .free_bytes = machine->memory_bytes,
    };
    int rc = 0;
    for (size_t s = 0; s < n_shares; s++)
        shares[s].cores = shares[s].running = 0;
    if (!a.heaps || !a.places || !a.chained || !a.runs) {
        rc = ovr_nomem(err, "the order of the queue");
    } else {
        fill_heaps(&a);
        put_running(&a, running, n_running);
        play(&a);
        qsort(jobs, n_jobs, sizeof *jobs, by_position);
        for (size_t i = a.n_planned; i < n_jobs; i++)
            jobs[i].position = (int64_t)i + 1;
    }
    free(a.heaps);
    free(a.places);
    free(a.chained);
    free(a.runs);
    return rc;
}
