/* What the daemon counts of itself, for GET /metrics. Process-wide, as the log is; from any thread.
 */
#ifndef SERVER_METRICS_H
#define SERVER_METRICS_H

#include "server/store.h"

#include <stdint.h>

enum counter {
    COUNT_EPOCHS,
    COUNT_STEPS,
    COUNT_SAMPLES,
    COUNT_UPLOAD_BYTES,
    COUNT_CACHE_HITS,
    COUNT_CACHE_MISSES,
    N_COUNTERS
};
enum timer { TIME_WAIT, TIME_JOB, TIME_STORE, N_TIMERS };

enum { TIMER_BUCKETS = 16 };

/* Upper bounds in seconds, ascending; what is above the last one is in none. */
extern const double timer_bounds[TIMER_BUCKETS];

/* A histogram of durations; all 0 at first. */
struct stopwatch {
    _Atomic uint64_t within[TIMER_BUCKETS], count, microseconds;
};

struct timing {
    uint64_t within[TIMER_BUCKETS]; /* in this bucket alone */
    uint64_t count;
    double seconds;
};

void stopwatch_note(struct stopwatch *stopwatch, double seconds);
struct timing stopwatch_read(const struct stopwatch *stopwatch);

void metrics_add(enum counter counter, uint64_t n);
void metrics_time(enum timer timer, double seconds);
uint64_t metrics_counter(enum counter counter);
struct timing metrics_timing(enum timer timer);

/* Who used the cores. Of more owners than there is room for the later ones count as one, named
 * METRICS_OTHERS. */
enum { METRICS_OWNERS = 64 };
#define METRICS_OTHERS "(others)"
struct owner_use {
    char owner[USER_NAME_SIZE]; /* "": nobody */
    double core_seconds;
};
void metrics_use(const char *owner, double core_seconds);
/* Returns how many. */
int metrics_owners(struct owner_use list[METRICS_OWNERS + 1]);

#endif
