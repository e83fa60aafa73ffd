/* How often somebody may do something: a bucket for each key that fills at a steady rate up to a
 * burst (the generic cell rate algorithm, ITU-T I.371). The table has a fixed size; where it is
 * full the key that has kept quiet longest is forgotten. For several threads. */
#ifndef SERVER_LIMITER_H
#define SERVER_LIMITER_H

#include <pthread.h>
#include <stdint.h>

enum { LIMITER_SETS = 1024, LIMITER_WAYS = 4 };

struct limiter {
    pthread_mutex_t lock;
    uint64_t seed;
    int64_t interval_ns, burst_ns; /* interval 0: no limit */
    struct {
        uint64_t key;
        int64_t full_at; /* when its bucket is full again */
    } slots[LIMITER_SETS][LIMITER_WAYS];
};

/* `burst` at once, then so many a second; 0: no limit. */
void limiter_init(struct limiter *limiter, double per_second, double burst);
void limiter_release(struct limiter *limiter);

/* Takes one; 0, or the nanoseconds to wait until there is one, and then none is taken. now: of a
 * clock that never goes back. */
int64_t limiter_take(struct limiter *limiter, const char *key, int64_t now_ns);

/* The same without taking. */
int64_t limiter_look(struct limiter *limiter, const char *key, int64_t now_ns);

#endif
