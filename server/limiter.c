#include "server/limiter.h"

#include <string.h>
#include <sys/random.h>

void limiter_init(struct limiter *l, double per_second, double burst) {
    memset(l, 0, sizeof *l);
    pthread_mutex_init(&l->lock, NULL);
    if (per_second > 0) {
        l->interval_ns = (int64_t)(1e9 / per_second);
        l->burst_ns = (int64_t)(1e9 * burst / per_second);
    }
    if (getrandom(&l->seed, sizeof l->seed, GRND_NONBLOCK) != sizeof l->seed)
        l->seed = 0; /* the keys then fall into sets that can be foreseen, no more */
}

void limiter_release(struct limiter *l) {
    pthread_mutex_destroy(&l->lock);
}

/* FNV-1a, then mixed so that every bit counts. */
static uint64_t hash(uint64_t seed, const char *key) {
    uint64_t h = seed ^ UINT64_C(0xcbf29ce484222325);
    for (; *key; key++)
        h = (h ^ (unsigned char)*key) * UINT64_C(0x100000001b3);
    h = (h ^ h >> 32) * UINT64_C(0xd6e8feb86659fd93);
    return h ^ h >> 32;
}

static int64_t ask(struct limiter *l, const char *key, int64_t now, int take) {
    uint64_t h = hash(l->seed, key);
    int64_t wait = 0;
    size_t set = h % LIMITER_SETS, at = 0;
    if (!l->interval_ns)
        return 0;
    pthread_mutex_lock(&l->lock);
    for (size_t i = 0; i < LIMITER_WAYS; i++) {
        if (l->slots[set][i].key == h) {
            at = i;
            break;
        }
        if (l->slots[set][i].full_at < l->slots[set][at].full_at)
            at = i;
    }
    int64_t full_at = l->slots[set][at].key == h ? l->slots[set][at].full_at : 0;
    full_at = full_at > now ? full_at : now;
    if (full_at + l->interval_ns - now > l->burst_ns) {
        wait = full_at + l->interval_ns - now - l->burst_ns;
    } else if (take) {
        l->slots[set][at].key = h;
        l->slots[set][at].full_at = full_at + l->interval_ns;
    }
    pthread_mutex_unlock(&l->lock);
    return wait;
}

int64_t limiter_take(struct limiter *limiter, const char *key, int64_t now_ns) {
    return ask(limiter, key, now_ns, 1);
}

int64_t limiter_look(struct limiter *limiter, const char *key, int64_t now_ns) {
    return ask(limiter, key, now_ns, 0);
}
