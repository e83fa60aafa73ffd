/* The scheduler: who is next, and what comes after. Numbers in, numbers out: it knows no database,
 * no threads and no clock, so that a week of a lab can be played through in a second.
 *
 * The order: priority, then fair share (whose owner has used least lately), then age. Use is in
 * core-seconds, and half of what it was after each half-life. A running core counts at once as what
 * it will have used after a while (RUNNING_SHARE of the half-life): otherwise who comes first gets
 * all cores before her use shows. Nobody has more jobs running than her limit.
 *
 * Memory: a job whose turn it is and that does not fit is passed over, so that the machine does not
 * idle. Once it has waited for SCHEDULER_PATIENCE_MS since then, it holds a reservation: of what
 * has no higher priority only that starts which fits beside it, and it goes first as soon as it
 * fits. So it starts at the latest when all has ended that ran by then, and who started meanwhile
 * has cost it nothing. One job at a time holds one, the first in the order.
 */
#ifndef SERVER_SCHEDULER_H
#define SERVER_SCHEDULER_H

#include "core/err.h"

#include <stddef.h>
#include <stdint.h>

enum { SCHEDULER_PATIENCE_MS = 15 * 60 * 1000 };

/* Use: what it was at a moment. */
struct use {
    double core_seconds;
    int64_t at_ms;
};

double use_at(const struct use *use, int64_t now_ms, double half_life_ms);

/* Adds what so many cores use from `from_ms` to `now_ms`, and moves it on to now. */
void use_add(struct use *use, double cores, int64_t from_ms, int64_t now_ms, double half_life_ms);

/* An owner. */
struct share {
    int64_t owner;
    double use;   /* core-seconds, as of now */
    double cores; /* that her jobs have now */
    int running, limit;
};

/* By which fair share goes: least first. */
double share_weight(const struct share *share, double half_life_ms);

/* A job that could start, were there room: of each owner her first one, and where that does not fit
 * the first one that does. */
struct candidate {
    int64_t seq; /* age */
    size_t share;
    int priority;
    int64_t memory_bytes;
    int64_t blocked_ms; /* when it was its turn first and it did not fit; 0: it was not yet */
};

/* A job that runs. */
struct placed {
    int64_t memory_bytes, started_ms;
};

struct room {
    int64_t free_bytes, total_bytes;
    int64_t now_ms;
    double half_life_ms;
    const struct placed *placed;
    size_t n_placed;
};

enum { NO_CANDIDATE = -1 };

/* Index of the one to start now, or NO_CANDIDATE. Whose turn it is and who does not fit is marked
 * as blocked from now on; it is the caller's to remember that until the job starts. */
ptrdiff_t scheduler_pick(const struct share *shares, struct candidate *candidates, size_t n,
                         const struct room *room);

/* Looking ahead: in which order jobs will start, and when, as far as one can tell today. */

struct plan_job {
    int64_t seq, after; /* has to succeed first; 0: none */
    size_t share;
    int priority;
    int64_t memory_bytes;
    double core_seconds; /* NaN: unknown */
    /* Filled in: */
    int64_t position; /* from 1 */
    double start_s;   /* from now; NaN: unknown */
};

struct plan_running {
    int64_t seq;
    size_t share;
    int64_t memory_bytes;
    double cores, seconds_left; /* NaN: unknown */
};

struct machine {
    int workers, cores;
    int64_t memory_bytes;
    double half_life_ms;
};

/* Lets jobs start and end by the rules above, without exceptions for memory: who does not fit is
 * waited for. `shares`, of which only use and limit are read, are used up. jobs come back in the
 * order of their positions; those of which nothing can be said (they wait for one that is not
 * there) are last, by priority and age. The work is n_jobs × n_shares steps at most, and bounded:
 * beyond, starts are unknown. */
int scheduler_plan(const struct machine *machine, struct share *shares, size_t n_shares,
                   const struct plan_running *running, size_t n_running, struct plan_job *jobs,
                   size_t n_jobs, struct ovr_err *err);

#endif
