/* A team: the members that work on one job, and the few things they do together.
 *
 * A hidden layer is cut into shards of units. Each member owns a contiguous range of shards and
 * meets the others only to add up short vectors. The sum is a fixed binary tree over the shard
 * index, so its bits depend on the number of shards (fixed by the model) and not on the number of
 * members or on who comes first.
 *
 * Members are threads of one process. Several processes, ranks, can make one team together
 * (core/ranks.h): each rank has all of the data and all arrays in full, but fills of what is cut
 * into shards only its own part, and never looks at another rank's. Pages that nobody touches take
 * no memory. What is to be known of the others' parts comes by team_sum(), team_gather() and the
 * two calls for rows. Everything that is not cut, such as a batch's rows or the loss, each rank
 * works out for itself, from the same numbers in the same order.
 *
 * Life cycle: team_new() starts size - 1 threads that sleep until team_run(); the caller of
 * team_run() is member 0. team_resize() sends them home and starts others; team_free() joins them.
 * Training threads flush denormals (FTZ and DAZ):
 * dead units leave denormal moments in Adam, which cost three times the run time.
 */
#ifndef OVR_TEAM_H
#define OVR_TEAM_H

#include "core/err.h"

#include "core/real.h"

#include <stddef.h>
#include <stdint.h>

#define TEAM_MAX 256

struct team;
struct ranks;

/* A thread of its process. */
struct member {
    struct team *team;
    int rank; /* 0..size-1 */
    int size;
};

/* What pieces of work are and who has them. The value: so many of them, from a multiple of it on,
 * always belong to one rank. Those are the shards of a group in which a probe sums its logits up
 * (core/probe.c); and a rank whose share starts at such a place has whole subtrees to add up. */
enum pieces {
    EVERYWHERE = 0, /* every rank does all of them; its threads share them */
    BY_ROW = 1,
    BY_GROUP = 1,
    BY_SHARD = 4,
    BY_UNIT = 512
};

/* For how many members of how many ranks there has to be room. */
struct crew {
    int members, ranks;
};

int team_new(struct team **team, int size, struct ovr_err *err);
void team_free(struct team *team); /* NULL is fine */
int team_size(const struct team *team);

/* One that may be resized to up to `most` members. What is to serve it whatever its size has to
 * have room for team_most(). */
int team_new_within(struct team **team, int size, int most, struct ovr_err *err);
int team_most(const struct team *team);

/* Between two runs: to the next size within 1..most. Returns the size it then has: where threads
 * can't be started, fewer. Costs some 50 µs for each member that comes. */
int team_resize(struct team *team, int size);

/* Calls work(member, arg) once on every member and returns when all have returned. */
void team_run(struct team *team, void (*work)(struct member *, void *), void *arg);

/* Waits until every member is here. What was written before is seen by all afterwards. */
void team_barrier(struct member *member);

/* Which of n pieces, numbered 0..n-1, are this member's: *first .. *end - 1. team_share() is for
 * what is done EVERYWHERE, team_own() for the others. */
void team_share(const struct member *member, size_t n, size_t *first, size_t *end);
void team_own(const struct member *member, enum pieces kind, size_t n, size_t *first, size_t *end);

/* Which of them are this rank's, of all its members together. */
void team_held(const struct team *team, enum pieces kind, size_t n, size_t *first, size_t *end);

/* Makes the team one rank's part of a team of several; every rank makes one, of any number of
 * threads. Borrowed. */
void team_join(struct team *team, struct ranks *ranks);
int team_rank(const struct team *team);    /* 0..team_n_ranks() - 1 */
int team_n_ranks(const struct team *team); /* 1 where it never joined any */

/* The next two are called by every rank's own thread, between two runs. `team` may be NULL: there
 * is but this process. */

/* The smallest of the ranks' values: whether all say yes, or what one alone has to say. */
int team_least(struct team *team, int value);

/* At most so many bytes, or one piece, come to the first rank at once. */
enum { STREAM_BYTES = 8 << 20 };

/* An array of n pieces, `size` bytes each, of which every rank has its own: the first rank's take()
 * gets all of them in their order, `n` at a time from number `first` on, and the others' need no
 * more room there than that. A code that take() returns ends its calls and is returned; the pieces
 * are still sent, so that the other ranks, who get 0, come to the end. NULL: the first rank has no
 * use for them. */
int team_stream(struct team *team, enum pieces kind, const void *array, size_t n, size_t size,
                int (*take)(void *context, const void *pieces, size_t first, size_t n),
                void *context, struct ovr_err *err);

/* So that several ranks can have something to do each. */
int team_most_ranks(size_t n_units);

/* Whether *flag, which anybody may set at any time, was set when the first member of all looked:
 * the same answer for every member, so that all leave a loop together. NULL counts as not set. */
int team_agree(struct member *member, const _Atomic int *flag);

/* The same of two flags with one question: bit 0 and bit 1. */
int team_agree_both(struct member *member, const _Atomic int *flag, const _Atomic int *other);

/* Adds n_parts vectors of `length` doubles, stored one after the other in `parts`, in a fixed
 * binary tree over the part index; parts[0..length-1] then holds the sum and the other parts are
 * spoilt. Every member calls it with the same arguments after filling its own parts; on return the
 * sum is complete for all. The caller must not refill `parts` before the next barrier.
 *
 * Ranks fold along the same tree, in groups that double: log2(ranks) times a vector's bytes, or
 * twice them where it is long. Where the parts or the ranks are no power of two a few times more:
 * then a group has several subtrees that are all its own. */
void team_sum(struct member *member, enum pieces kind, double *parts, size_t n_parts,
              size_t length);

/* The same for vectors of `real`, where they are long. */
void team_sum_reals(struct member *member, enum pieces kind, real *parts, size_t n_parts,
                    size_t length);

/* An array with `size` bytes for each of n pieces, of which every member has filled its own: on
 * return all of it is there for all. */
void team_gather(struct member *member, enum pieces kind, void *array, size_t n, size_t size);

/* Of a batch's rows, where each has to be seen in one piece: what every rank has of them goes to
 * the rank whose BY_ROW they are. By one member, while the others wait at a barrier. send: this
 * rank's part of n rows, row after row, row i counts[rank·n + i] of them. receive: for its own
 * rows, rank after rank, row after row. counts: ranks×n, known of all. */
void team_send_rows(const struct member *member, const real *send, real *receive,
                    const uint32_t *counts, size_t n);

#endif
