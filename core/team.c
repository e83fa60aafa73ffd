#include "core/team.h"

#include "core/ranks.h"
#include "core/real.h"

#include <immintrin.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
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
    struct ranks *ranks; /* NULL: there is but this one */
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

/* ---- what is whose rank's ---- */

void team_join(struct team *team, struct ranks *ranks) {
    team->ranks = ranks;
}

int team_n_ranks(const struct team *team) {
    return team->ranks ? team->ranks->size : 1;
}

int team_most_ranks(size_t n_units) {
    size_t most = (n_units + BY_UNIT - 1) / BY_UNIT;
    return most < RANKS_MAX ? (int)most : RANKS_MAX;
}

int team_rank(const struct team *team) {
    return team->ranks ? team->ranks->rank : 0;
}

/* n things that stay together by `whole`, of one rank among so many. */
static struct span cut(size_t n, size_t whole, int rank, int size) {
    size_t blocks = (n + whole - 1) / whole, r = (size_t)rank, of = (size_t)size;
    size_t first = min_size(blocks * r / of * whole, n);
    return (struct span){first, min_size(blocks * (r + 1) / of * whole, n) - first};
}

static struct span held(const struct team *team, enum pieces kind, size_t n, int rank) {
    return kind == EVERYWHERE ? (struct span){0, n} : cut(n, kind, rank, team_n_ranks(team));
}

void team_held(const struct team *team, enum pieces kind, size_t n, size_t *first, size_t *end) {
    struct span span = held(team, kind, n, team_rank(team));
    *first = span.first;
    *end = span.first + span.n;
}

void team_own(const struct member *member, enum pieces kind, size_t n, size_t *first, size_t *end) {
    struct span span = held(member->team, kind, n, team_rank(member->team));
    team_share(member, span.n, first, end);
    *first += span.first;
    *end += span.first;
}

/* ---- meetings of ranks ---- */

static void gather(struct ranks *ranks, void *array, size_t size, const struct span *spans) {
    ranks->meetings++;
    ranks->bytes += spans[ranks->rank].n * size * (size_t)(ranks->size - 1);
    ranks->gather(ranks->context, array, size, spans);
}

int team_agree_both(struct member *member, const _Atomic int *flag, const _Atomic int *other) {
    struct team *team = member->team;
    if (member->rank == 0) {
        const _Atomic int *const flags[] = {flag, other};
        team->agreed = 0;
        for (int i = 0; i < 2; i++)
            if (flags[i] && atomic_load_explicit(flags[i], memory_order_relaxed))
                team->agreed |= 1 << i;
        if (team->ranks) {
            struct span spans[RANKS_MAX] = {{0, 1}};
            gather(team->ranks, &team->agreed, sizeof team->agreed, spans);
        }
    }
    team_barrier(member);
    int agreed = team->agreed;
    team_barrier(member);
    return agreed;
}

int team_agree(struct member *member, const _Atomic int *flag) {
    return team_agree_both(member, flag, NULL);
}

void team_gather(struct member *member, enum pieces kind, void *array, size_t n, size_t size) {
    struct ranks *ranks = member->team->ranks;
    team_barrier(member);
    if (!ranks)
        return;
    if (member->rank == 0) {
        struct span spans[RANKS_MAX];
        for (int rank = 0; rank < ranks->size; rank++)
            spans[rank] = held(member->team, kind, n, rank);
        gather(ranks, array, size, spans);
    }
    team_barrier(member);
}

static void exchange(struct ranks *ranks, const void *send, const struct span *sends, void *receive,
                     const struct span *receives, size_t size) {
    ranks->meetings++;
    for (int rank = 0; rank < ranks->size; rank++)
        ranks->bytes += rank == ranks->rank ? 0 : sends[rank].n * size;
    ranks->exchange(ranks->context, send, sends, receive, receives, size);
}

int team_least(struct team *team, int value) {
    if (!team || !team->ranks)
        return value;
    struct ranks *ranks = team->ranks;
    struct span spans[RANKS_MAX];
    int all[RANKS_MAX];
    for (int rank = 0; rank < ranks->size; rank++)
        spans[rank] = (struct span){(size_t)rank, 1};
    all[ranks->rank] = value;
    gather(ranks, all, sizeof *all, spans);
    for (int rank = 0; rank < ranks->size; rank++)
        value = all[rank] < value ? all[rank] : value;
    return value;
}

/* Another rank's pieces come into the first one's room. */
static void send_to_first(struct ranks *ranks, int from, const void *array, struct span span,
                          size_t size, void *room) {
    struct span sends[RANKS_MAX] = {0}, receives[RANKS_MAX] = {0};
    if (ranks->rank == from)
        sends[0] = span;
    if (ranks->rank == 0)
        receives[from] = (struct span){0, span.n};
    exchange(ranks, array, sends, room, receives, size);
}

int team_stream(struct team *team, enum pieces kind, const void *array, size_t n, size_t size,
                int (*take)(void *context, const void *pieces, size_t first, size_t n),
                void *context, struct ovr_err *err) {
    struct ranks *ranks = team && kind != EVERYWHERE ? team->ranks : NULL;
    const int n_ranks = ranks ? ranks->size : 1, is_first = !team || team_rank(team) == 0;
    const size_t most = size && size < STREAM_BYTES ? STREAM_BYTES / size : 1;
    char *room = n_ranks > 1 && is_first ? ovr_malloc(min_size(most, n), size) : NULL;
    int rc = 0;
    if (n_ranks > 1 && is_first && !room)
        return ovr_nomem(err, "weights on their way to the first rank");
    for (int rank = 0; rank < n_ranks; rank++) {
        const struct span own = ranks ? held(team, kind, n, rank) : (struct span){0, n};
        for (size_t done = 0; done < own.n; done += most) {
            const struct span block = {own.first + done, min_size(most, own.n - done)};
            if (rank)
                send_to_first(ranks, rank, array, block, size, room);
            if (is_first && take && !rc)
                rc = take(context, rank ? room : (const char *)array + block.first * size,
                          block.first, block.n);
        }
    }
    free(room);
    return rc;
}

/* Of rows first .. first + n - 1. */
static size_t sum_counts(const uint32_t *counts, struct span rows) {
    size_t sum = 0;
    for (size_t i = rows.first; i < rows.first + rows.n; i++)
        sum += counts[i];
    return sum;
}

void team_send_rows(const struct member *member, const real *send, real *receive,
                    const uint32_t *counts, size_t n) {
    const struct team *team = member->team;
    struct ranks *ranks = team->ranks;
    struct span sends[RANKS_MAX], receives[RANKS_MAX];
    const struct span own = held(team, BY_ROW, n, ranks->rank);
    size_t sent = 0, received = 0;
    for (int rank = 0; rank < ranks->size; rank++) {
        size_t to = sum_counts(counts + (size_t)ranks->rank * n, held(team, BY_ROW, n, rank));
        size_t from = sum_counts(counts + (size_t)rank * n, own);
        sends[rank] = (struct span){sent, to};
        receives[rank] = (struct span){received, from};
        sent += to;
        received += from;
    }
    exchange(ranks, send, sends, receive, receives, sizeof *send);
}

/* ---- sums ---- */

/* The node of the tree that begins with part j, has `size` leaves where the parts go on so far, and
 * is whole within the span. */
static int is_within(struct span span, size_t n_parts, size_t j, size_t size) {
    return j >= span.first && min_size(j + size, n_parts) <= span.first + span.n;
}

/* Elements first .. end - 1 of all parts, in a binary tree over the part index: the pairs for which
 * `wanted` holds. */
#define FOLD(parts, n_parts, length, first, end, wanted)                                           \
    for (size_t stride = 1; stride < n_parts; stride *= 2)                                         \
        for (size_t j = 0; j + stride < n_parts; j += 2 * stride)                                  \
            if (wanted)                                                                            \
                for (size_t i = first; i < end; i++)                                               \
    (parts)[j * length + i] += (parts)[(j + stride) * length + i]

/* Between the barriers each member folds some whole cache lines of the vectors. */
static void share_lines(struct member *member, size_t length, size_t size, size_t *first,
                        size_t *end) {
    const size_t line = OVR_ALIGN / size;
    team_share(member, (length + line - 1) / line, first, end);
    *first *= line;
    *end = min_size(*end * line, length);
}

/* The largest node that begins with part `at` and is whole within the span, which it does not leave
 * before it has to. */
static size_t node_size(struct span span, size_t n_parts, size_t at) {
    size_t size = 1;
    while (at % (2 * size) == 0 && size < n_parts && is_within(span, n_parts, at, 2 * size))
        size *= 2;
    return min_size(size, span.first + span.n - at);
}

static size_t count_nodes(struct span span, size_t n_parts) {
    size_t n = 0;
    for (size_t at = span.first; at < span.first + span.n; n++)
        at += node_size(span, n_parts, at);
    return n;
}

/* Node number i of a span's has its place at part `at`, and travels as the i-th part of the span.
 */
static void pack_nodes(char *parts, size_t bytes, struct span span, size_t n_parts) {
    size_t to = span.first;
    for (size_t at = span.first; at < span.first + span.n; at += node_size(span, n_parts, at))
        memmove(parts + to++ * bytes, parts + at * bytes, bytes);
}

/* The last ones first: places lie behind. */
static void unpack_nodes(char *parts, size_t bytes, struct span span, size_t n_parts, size_t at,
                         size_t from) {
    if (at == span.first + span.n)
        return;
    unpack_nodes(parts, bytes, span, n_parts, at + node_size(span, n_parts, at), from + 1);
    memmove(parts + at * bytes, parts + from * bytes, bytes);
}

/* What each rank added up becomes known to all: vectors of so many bytes. */
static void share_nodes(struct team *team, enum pieces kind, void *parts, size_t n_parts,
                        size_t bytes) {
    struct ranks *ranks = team->ranks;
    struct span spans[RANKS_MAX], nodes[RANKS_MAX];
    for (int rank = 0; rank < ranks->size; rank++) {
        spans[rank] = held(team, kind, n_parts, rank);
        nodes[rank] = (struct span){spans[rank].first, count_nodes(spans[rank], n_parts)};
    }
    pack_nodes(parts, bytes, spans[ranks->rank], n_parts);
    gather(ranks, parts, bytes, nodes);
    for (int rank = 0; rank < ranks->size; rank++)
        unpack_nodes(parts, bytes, spans[rank], n_parts, spans[rank].first, spans[rank].first);
}

/* Whether the node is whole with one rank, which has added it up. */
static int is_done(const struct team *team, enum pieces kind, size_t n_parts, size_t j,
                   size_t size) {
    size_t ranks = (size_t)team_n_ranks(team), blocks = (n_parts + kind - 1) / kind;
    size_t rank = (ranks * (j / kind + 1) - 1) / blocks;
    return is_within(held(team, kind, n_parts, (int)rank), n_parts, j, size);
}

#define SUM(member, kind, parts, n_parts, length)                                                  \
    size_t first, end;                                                                             \
    struct team *team = (member)->team;                                                            \
    team_barrier(member);                                                                          \
    share_lines(member, length, sizeof *(parts), &first, &end);                                    \
    if ((kind) == EVERYWHERE || !team->ranks) {                                                    \
        FOLD(parts, n_parts, length, first, end, 1);                                               \
        team_barrier(member);                                                                      \
        return;                                                                                    \
    }                                                                                              \
    const struct span own = held(team, kind, n_parts, team_rank(team));                            \
    FOLD(parts, n_parts, length, first, end, is_within(own, n_parts, j, 2 * stride));              \
    team_barrier(member);                                                                          \
    if ((member)->rank == 0)                                                                       \
        share_nodes(team, kind, parts, n_parts, (length) * sizeof *(parts));                       \
    team_barrier(member);                                                                          \
    FOLD(parts, n_parts, length, first, end, !is_done(team, kind, n_parts, j, 2 * stride));        \
    team_barrier(member)

void team_sum(struct member *member, enum pieces kind, double *parts, size_t n_parts,
              size_t length) {
    SUM(member, kind, parts, n_parts, length);
}

void team_sum_reals(struct member *member, enum pieces kind, real *parts, size_t n_parts,
                    size_t length) {
    SUM(member, kind, parts, n_parts, length);
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
