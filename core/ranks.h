/* How the processes of one team reach each other: what whoever connects them has to offer
 * (worker/mpi.c does, and tests/core/test_ranks.c with threads that play ranks). */
#ifndef OVR_RANKS_H
#define OVR_RANKS_H

#include <stddef.h>
#include <stdint.h>

enum { RANKS_MAX = 1024, SPANS_MAX = 64 };

/* Items first .. first + n - 1. */
struct span {
    size_t first, n;
};

struct ranks {
    int rank, size; /* size: 1..RANKS_MAX */
    void *context;
    /* `array` of items of `size` bytes: the rank has its own span of it and gets those of the
     * others. An error ends the process, and with it all others: their next meeting would never
     * come. */
    void (*gather)(void *context, void *array, size_t size, const struct span *spans);
    /* To each rank its span of `send`, from each the one of `receive`. */
    void (*exchange)(void *context, const void *send, const struct span *sends, void *receive,
                     const struct span *receives, size_t size);
    /* With one partner, who calls it for this rank: the spans of `array`, of items of `size` bytes,
     * that it gets, and those that come from it, which don't overlap them: at most SPANS_MAX each
     * way, or none. */
    void (*swap)(void *context, int partner, void *array, size_t size, const struct span *sends,
                 size_t n_sends, const struct span *receives, size_t n_receives);
    /* Counted by core/team.c: how often this rank met others, and what it sent, once for each other
     * rank that has to get it. */
    uint64_t meetings, bytes;
};

#endif
