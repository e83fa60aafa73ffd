#include "core/team.h"

#include "core/real.h"

#include <immintrin.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Waiting rule: a waiter spins for about as long as a step's members are usually apart, then gives
 * its core away a few times, then sleeps in the kernel. So a barrier costs a microsecond on a free
 * machine, and no core is burnt when the machine is shared and a member has lost its core. How long
 * spinning pays is learnt: spins that were in vain halve the next ones, others lengthen them again.
 * (Four members on two cores: 15 µs a barrier, 145 with the spins always at their most; on one core
 * 8 and 367.) */
enum { MOST_SPINS = 4000, FEWEST_SPINS = 16, MORE_SPINS = 250, YIELDS = 20 };

struct team {
    _Atomic int size;
    int most;
    pthread_t *threads;
    void (*work)(struct member *, void *);
    void *arg;
    _Alignas(OVR_ALIGN) _Atomic int arrived;    /* members at the current barrier */
    _Alignas(OVR_ALIGN) _Atomic unsigned phase; /* counts barriers passed; the futex word */
    _Alignas(OVR_ALIGN) _Atomic int sleepers;
    _Atomic int spins; /* how many to try; grows and shrinks with success */
    int agreed;        /* written by member 0 between two barriers */
};

static int has_changed(const struct team *team, unsigned phase) {
    return atomic_load_explicit(&team->phase, memory_order_acquire) != phase;
}

static void wait_for_change(struct team *team, unsigned phase) {
    int spins = atomic_load_explicit(&team->spins, memory_order_relaxed);
    for (int i = 0; i < spins; i++) {
        if (has_changed(team, phase)) {
            if (spins < MOST_SPINS)
                atomic_store_explicit(&team->spins, spins + MORE_SPINS, memory_order_relaxed);
            return;
        }
        _mm_pause();
    }
    if (spins > FEWEST_SPINS)
        atomic_store_explicit(&team->spins, spins / 2, memory_order_relaxed);
    for (int i = 0; i < YIELDS; i++) {
        if (has_changed(team, phase))
            return;
        sched_yield();
    }
    atomic_fetch_add(&team->sleepers, 1);
    while (atomic_load(&team->phase) == phase)
        syscall(SYS_futex, &team->phase, FUTEX_WAIT_PRIVATE, phase, NULL, NULL, 0);
    atomic_fetch_sub(&team->sleepers, 1);
}

void team_barrier(struct member *member) {
    struct team *team = member->team;
    if (team->size == 1)
        return;
    unsigned phase = atomic_load(&team->phase);
    int arrived = atomic_fetch_add(&team->arrived, 1) + 1;
    if (arrived < atomic_load(&team->size)) { /* read after: see start_members() */
        wait_for_change(team, phase);
        return;
    }
    atomic_store(&team->arrived, 0);
    atomic_fetch_add(&team->phase, 1);
    if (atomic_load(&team->sleepers) > 0)
        syscall(SYS_futex, &team->phase, FUTEX_WAKE_PRIVATE, team->size, NULL, NULL, 0);
}

void team_share(const struct member *member, size_t n, size_t *first, size_t *end) {
    size_t rank = (size_t)member->rank, size = (size_t)member->size;
    *first = n * rank / size;
    *end = n * (rank + 1) / size;
}

int team_agree(struct member *member, const _Atomic int *flag) {
    if (member->rank == 0)
        member->team->agreed = flag && atomic_load_explicit(flag, memory_order_relaxed);
    team_barrier(member);
    int agreed = member->team->agreed;
    team_barrier(member);
    return agreed;
}

/* Elements first .. end - 1 of all parts, in a binary tree over the part index. */
#define FOLD(parts, n_parts, length, first, end)                                                   \
    for (size_t stride = 1; stride < n_parts; stride *= 2)                                         \
        for (size_t j = 0; j + stride < n_parts; j += 2 * stride)                                  \
            for (size_t i = first; i < end; i++)                                                   \
    (parts)[j * length + i] += (parts)[(j + stride) * length + i]

/* Between the barriers each member folds some whole cache lines of the vectors. */
static void share_lines(struct member *member, size_t length, size_t size, size_t *first,
                        size_t *end) {
    const size_t line = OVR_ALIGN / size;
    team_share(member, (length + line - 1) / line, first, end);
    *first *= line;
    *end = min_size(*end * line, length);
}

void team_sum(struct member *member, double *parts, size_t n_parts, size_t length) {
    size_t first, end;
    team_barrier(member);
    share_lines(member, length, sizeof *parts, &first, &end);
    FOLD(parts, n_parts, length, first, end);
    team_barrier(member);
}

void team_sum_reals(struct member *member, real *parts, size_t n_parts, size_t length) {
    size_t first, end;
    team_barrier(member);
    share_lines(member, length, sizeof *parts, &first, &end);
    FOLD(parts, n_parts, length, first, end);
    team_barrier(member);
}

static void flush_denormals(void) {
    _MM_SET_FLUSH_ZERO_MODE(_MM_FLUSH_ZERO_ON);
    _mm_setcsr(_mm_getcsr() | 0x0040); /* DAZ: denormal operands count as zero too */
}

struct start {
    struct team *team;
    int rank;
};

/* A team's thread between runs waits at a barrier that member 0 enters in team_run(). */
static void *member_main(void *arg) {
    struct start start = *(struct start *)arg;
    struct member member = {start.team, start.rank, start.team->size};
    free(arg);
    flush_denormals();
    for (;;) {
        team_barrier(&member);
        if (!member.team->work)
            return NULL;
        member.team->work(&member, member.team->arg);
        team_barrier(&member);
    }
}

/* Members 1 .. size - 1. Without all of the threads the team has the size it got to: they read the
 * size only after their first barrier, which needs all of them. */
static void start_members(struct team *team, int size) {
    team->size = size;
    for (int rank = 1; rank < size; rank++) {
        struct start *start = malloc(sizeof *start);
        if (start)
            *start = (struct start){team, rank};
        if (!start || pthread_create(&team->threads[rank], NULL, member_main, start)) {
            free(start);
            team->size = rank;
            return;
        }
    }
}

static void send_members_home(struct team *team) {
    team->work = NULL;
    struct member first = {team, 0, team->size};
    team_barrier(&first);
    for (int rank = 1; rank < team->size; rank++)
        pthread_join(team->threads[rank], NULL);
}

int team_new_within(struct team **out, int size, int most, struct ovr_err *err) {
    *out = NULL;
    int bound = most < TEAM_MAX ? most : TEAM_MAX;
    if (size < 1 || size > bound)
        return ovr_fail(err, OVR_INVALID, "threads", "must be 1..%d, got %d", bound, size);
    struct team *team = ovr_calloc(1, sizeof *team);
    if (!team)
        return ovr_nomem(err, "a team of threads");
    team->most = bound;
    team->threads = calloc((size_t)bound, sizeof *team->threads);
    if (!team->threads) {
        free(team);
        return ovr_nomem(err, "a team of threads");
    }
    start_members(team, size);
    if (team->size < size) {
        team_free(team);
        return ovr_fail(err, OVR_NOMEM, "threads", "could not start %d threads", size);
    }
    *out = team;
    return 0;
}

int team_new(struct team **out, int size, struct ovr_err *err) {
    return team_new_within(out, size, size < 1 ? TEAM_MAX : size, err);
}

int team_resize(struct team *team, int size) {
    size = size < 1 ? 1 : size > team->most ? team->most : size;
    if (size != team->size) {
        send_members_home(team);
        start_members(team, size);
    }
    return team->size;
}

void team_free(struct team *team) {
    if (!team)
        return;
    send_members_home(team);
    free(team->threads);
    free(team);
}

int team_size(const struct team *team) {
    return team->size;
}

int team_most(const struct team *team) {
    return team->most;
}

void team_run(struct team *team, void (*work)(struct member *, void *), void *arg) {
    struct member first = {team, 0, team->size};
    unsigned saved = _mm_getcsr();
    flush_denormals();
    team->work = work;
    team->arg = arg;
    team->spins = MOST_SPINS; /* whatever was learnt by waiting for this run */
    team_barrier(&first);
    work(&first, arg);
    team_barrier(&first);
    _mm_setcsr(saved); /* the caller's thread gets its own arithmetic back */
}
