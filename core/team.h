/* A team: the members that work on one job, and the few things they do together.
 *
 * A hidden layer is cut into shards of units. Each member owns a contiguous range of shards and
 * meets the others only to add up short vectors. The sum is a fixed binary tree over the shard
 * index, so its bits depend on the number of shards (fixed by the model) and not on the number of
 * members or on who comes first. This implementation has threads as members; whatever else can
 * implement the same calls can train the same models.
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

#define TEAM_MAX 256

struct team;

struct member {
    struct team *team;
    int rank; /* 0..size-1 */
    int size;
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

/* Which of n pieces, numbered 0..n-1, are this member's: *first .. *end - 1. */
void team_share(const struct member *member, size_t n, size_t *first, size_t *end);

/* Whether *flag, which anybody may set at any time, was set when member 0 looked: the same answer
 * for every member, so that all leave a loop together. NULL counts as not set. */
int team_agree(struct member *member, const _Atomic int *flag);

/* Adds n_parts vectors of `length` doubles, stored one after the other in `parts`, in a fixed
 * binary tree over the part index; parts[0..length-1] then holds the sum and the other parts are
 * spoilt. Every member calls it with the same arguments after filling the parts of its own shards;
 * on return the sum is complete for all. The caller must not refill `parts` before the next
 * barrier. */
void team_sum(struct member *member, double *parts, size_t n_parts, size_t length);

/* The same for vectors of `real`, where they are long. */
void team_sum_reals(struct member *member, real *parts, size_t n_parts, size_t length);

#endif
