/* What the daemon counts of itself, for GET /metrics. Process-wide, as the log is; from any thread.
 */
#ifndef SERVER_METRICS_H
#define SERVER_METRICS_H

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
enum timer { TIME_WAIT, TIME_JOB, TIME_STORE, TIME_REQUEST, N_TIMERS };

enum { TIMER_BUCKETS = 16 };

/* Upper bounds in seconds, ascending; what is above the last one is in none. */
extern const double timer_bounds[TIMER_BUCKETS];

struct timing {
    uint64_t within[TIMER_BUCKETS]; /* in this bucket alone */
    uint64_t count;
    double seconds;
};

void metrics_add(enum counter counter, uint64_t n);
void metrics_time(enum timer timer, double seconds);
uint64_t metrics_counter(enum counter counter);
struct timing metrics_timing(enum timer timer);

#endif
