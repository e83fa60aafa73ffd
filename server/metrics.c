#include "server/metrics.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

const double timer_bounds[TIMER_BUCKETS] = {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1,  0.5, 1,
                                            5,      30,    120,    600,   3600, 21600, 86400};

static _Atomic uint64_t counters[N_COUNTERS];
static struct stopwatch timers[N_TIMERS];

void metrics_add(enum counter counter, uint64_t n) {
    atomic_fetch_add_explicit(&counters[counter], n, memory_order_relaxed);
}

uint64_t metrics_counter(enum counter counter) {
    return counters[counter];
}

void stopwatch_note(struct stopwatch *stopwatch, double seconds) {
    double positive = seconds > 0 ? seconds : 0; /* clocks may be set back */
    int bucket = 0;
    while (bucket < TIMER_BUCKETS && positive > timer_bounds[bucket])
        bucket++;
    if (bucket < TIMER_BUCKETS)
        atomic_fetch_add(&stopwatch->within[bucket], 1);
    atomic_fetch_add(&stopwatch->microseconds, (uint64_t)(positive * 1e6));
    atomic_fetch_add(&stopwatch->count, 1);
}

struct timing stopwatch_read(const struct stopwatch *stopwatch) {
    /* The count first: buckets then hold at least as many, never fewer than it says. */
    struct timing timing = {.count = stopwatch->count,
                            .seconds = (double)stopwatch->microseconds / 1e6};
    for (int i = 0; i < TIMER_BUCKETS; i++)
        timing.within[i] = stopwatch->within[i];
    return timing;
}

void metrics_time(enum timer timer, double seconds) {
    stopwatch_note(&timers[timer], seconds);
}

struct timing metrics_timing(enum timer timer) {
    return stopwatch_read(&timers[timer]);
}

/* Owners */

static struct {
    pthread_mutex_t lock;
    int n;
    struct owner_use list[METRICS_OWNERS + 1];
} owners = {.lock = PTHREAD_MUTEX_INITIALIZER};

void metrics_use(const char *owner, double core_seconds) {
    pthread_mutex_lock(&owners.lock);
    int i = 0;
    while (i < owners.n && strcmp(owners.list[i].owner, owner) != 0)
        i++;
    if (i >= METRICS_OWNERS) {
        i = METRICS_OWNERS;
        owner = METRICS_OTHERS;
    }
    if (i >= owners.n) {
        snprintf(owners.list[i].owner, sizeof owners.list[i].owner, "%s", owner);
        owners.n = i + 1;
    }
    owners.list[i].core_seconds += core_seconds;
    pthread_mutex_unlock(&owners.lock);
}

int metrics_owners(struct owner_use list[METRICS_OWNERS + 1]) {
    pthread_mutex_lock(&owners.lock);
    int n = owners.n;
    memcpy(list, owners.list, sizeof owners.list);
    pthread_mutex_unlock(&owners.lock);
    return n;
}
