#include "server/metrics.h"

#include <stdatomic.h>

const double timer_bounds[TIMER_BUCKETS] = {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1,  0.5, 1,
                                            5,      30,    120,    600,   3600, 21600, 86400};

static _Atomic uint64_t counters[N_COUNTERS];
static struct { _Atomic uint64_t within[TIMER_BUCKETS], count, microseconds; } timers[N_TIMERS];

void metrics_add(enum counter counter, uint64_t n) {
    atomic_fetch_add_explicit(&counters[counter], n, memory_order_relaxed);
}

void metrics_time(enum timer timer, double seconds) {
    double positive = seconds > 0 ? seconds : 0; /* clocks may be set back */
    int bucket = 0;
    while (bucket < TIMER_BUCKETS && positive > timer_bounds[bucket])
        bucket++;
    if (bucket < TIMER_BUCKETS)
        atomic_fetch_add(&timers[timer].within[bucket], 1);
    atomic_fetch_add(&timers[timer].microseconds, (uint64_t)(positive * 1e6));
    atomic_fetch_add(&timers[timer].count, 1);
}

uint64_t metrics_counter(enum counter counter) {
    return counters[counter];
}

struct timing metrics_timing(enum timer timer) {
    /* The count first: buckets then hold at least as many, never fewer than it says. */
    struct timing timing = {.count = timers[timer].count,
                            .seconds = (double)timers[timer].microseconds / 1e6};
    for (int i = 0; i < TIMER_BUCKETS; i++)
        timing.within[i] = timers[timer].within[i];
    return timing;
}
