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

/* n_parts vectors of `length` elements, of `size` bytes each. */
struct sum {
    void *parts;
    size_t n_parts, length, size;
};

/* Of the elements in the range: part `from` to part `to`. */
static void add(const struct sum *sum, size_t to, size_t from, struct span range) {
    const size_t x = to * sum->length + range.first, y = from * sum->length + range.first;
    if (sum->size == sizeof(double)) {
        double *restrict into = (double *)sum->parts + x;
        const double *restrict added = (const double *)sum->parts + y;
#pragma omp simd
        for (size_t i = 0; i < range.n; i++)
            into[i] += added[i];
    } else {
        real *restrict into = (real *)sum->parts + x;
        const real *restrict added = (const real *)sum->parts + y;
#pragma omp simd
        for (size_t i = 0; i < range.n; i++)
            into[i] += added[i];
    }
}

/* The node of the tree that begins with part j, has `size` leaves where the parts go on so far, and
 * is whole within the span. */
static int is_within(struct span span, size_t n_parts, size_t j, size_t size) {
    return j >= span.first && min_size(j + size, n_parts) <= span.first + span.n;
}

/* Two spans side by side, the second from part `at` on, have each added up what is theirs alone:
 * here the nodes follow that are whole within both together. On each level of the tree that is one
 * at most. */
static void fold_across(const struct sum *sum, struct span both, size_t at, struct span range) {
    for (size_t stride = 1; stride < sum->n_parts; stride *= 2) {
        size_t j = at & ~(2 * stride - 1);
        if (j < at && j + stride < sum->n_parts && is_within(both, sum->n_parts, j, 2 * stride))
            add(sum, j, j + stride, range);
    }
}

/* All nodes that are whole within the span: it grows part by part, so that what is to be added is
 * what was last written. */
static void fold(const struct sum *sum, struct span span, struct span range) {
    for (size_t n = 1; n < span.n; n++)
        fold_across(sum, (struct span){span.first, n + 1}, span.first + n, range);
}

/* Between the barriers each member folds some whole cache lines of the vectors. */
static struct span share_lines(const struct member *member, const struct sum *sum,
                               struct span range) {
    const size_t line = OVR_ALIGN / sum->size;
    size_t first, end;
    team_share(member, (range.n + line - 1) / line, &first, &end);
    first *= line;
    return (struct span){range.first + first, min_size(end * line, range.n) - first};
}

/* The largest node that begins with part `at` and is whole within the span, which it does not leave
 * before it has to. */
static size_t node_size(struct span span, size_t n_parts, size_t at) {
    size_t size = 1;
    while (at % (2 * size) == 0 && size < n_parts && is_within(span, n_parts, at, 2 * size))
        size *= 2;
    return min_size(size, span.first + span.n - at);
}

/* ---- sums of several ranks ----
 *
 * What a rank has added up are nodes of the tree: one where its parts are a whole subtree, else a
 * few. Neighbours in rank are neighbours in the tree, so they make groups, always a power of two of
 * them. In a round each trades its group's nodes for those of the group beside it, and both fold
 * what lies across, from the same numbers in the same order; so the groups double until all is
 * added up.
 *
 * Where the ranks are no power of two, the first groups start as pairs: the second rank of a pair
 * tells the first what it has, and hears the sum in the end.
 *
 * A short vector takes part as a whole, log2(ranks) times its bytes, by the first member alone:
 * waiting for the others would take longer. Of a long one a rank keeps in each round only half of
 * the elements that it has left, and gives the partner the other half; when all is added up, they
 * give each other their halves of the sum: at most twice its bytes, in twice as many rounds.
 */

/* Bytes of a vector from which on halves cost less than rounds do. */
enum { LONG_SUM = 64 << 10 };

struct meeting {
    struct member *member;
    enum pieces kind;
    const struct sum *sum;
    int groups, pairs; /* at first; the first ones are of two ranks */
    int is_long;
};

/* The one that speaks for a group; `groups` gives the number of ranks. */
static int speaker(const struct meeting *m, int group) {
    return group + (group < m->pairs ? group : m->pairs);
}

/* Parts of n groups. */
static struct span parts_of(const struct meeting *m, int first, int n) {
    const struct team *team = m->member->team;
    const size_t n_parts = m->sum->n_parts;
    size_t begin = held(team, m->kind, n_parts, speaker(m, first)).first;
    return (struct span){begin, held(team, m->kind, n_parts, speaker(m, first + n)).first - begin};
}

/* Where the nodes of the span are among all elements: these elements of each. Returns how many: two
 * of each size at most. */
static size_t list_nodes(const struct sum *sum, struct span parts, struct span range,
                         struct span *list) {
    const size_t end = parts.first + parts.n;
    size_t n = 0;
    for (size_t at = parts.first; at < end; at += node_size(parts, sum->n_parts, at))
        list[n++] = (struct span){at * sum->length + range.first, range.n};
    return n;
}

/* Tells a rank nodes of the span `given`, and hears from it those of `taken`: of these elements. */
static void trade(const struct meeting *m, int partner, struct span given, struct span give,
                  struct span taken, struct span take) {
    const struct sum *sum = m->sum;
    struct ranks *ranks = m->member->team->ranks;
    struct span sends[SPANS_MAX], receives[SPANS_MAX];
    if (m->member->rank)
        return;
    size_t n_sends = list_nodes(sum, given, give, sends);
    size_t n_receives = list_nodes(sum, taken, take, receives);
    ranks->meetings++;
    ranks->bytes += n_sends * give.n * sum->size;
    ranks->swap(ranks->context, partner, sum->parts, sum->size, sends, n_sends, receives,
                n_receives);
}

static void fold_groups(const struct meeting *m, struct span low, struct span high,
                        struct span range) {
    const struct span both = {low.first, low.n + high.n};
    if (!m->is_long) {
        fold_across(m->sum, both, high.first, range);
        return;
    }
    team_barrier(m->member);
    fold_across(m->sum, both, high.first, share_lines(m->member, m->sum, range));
    team_barrier(m->member);
}

/* Groups that are `size` of the first ones each have added up theirs, of a range of elements:
 * afterwards this range of the sum is there. */
static void double_groups(const struct meeting *m, int group, int size, struct span range) {
    if (size == m->groups)
        return;
    const struct span all = {0, m->sum->n_parts};
    const int first = group & ~(2 * size - 1);
    const struct span low = parts_of(m, first, size), high = parts_of(m, first + size, size);
    const struct span halves[] = {{range.first, range.n / 2},
                                  {range.first + range.n / 2, range.n - range.n / 2}};
    const int is_high = (group & size) != 0, partner = speaker(m, group ^ size);
    const struct span keep = m->is_long ? halves[is_high] : range;
    const struct span give = m->is_long ? halves[!is_high] : range;
    trade(m, partner, is_high ? high : low, give, is_high ? low : high, keep);
    fold_groups(m, low, high, keep);
    double_groups(m, group, 2 * size, keep);
    if (m->is_long)
        trade(m, partner, all, keep, all, give);
}

static void sum_ranks(const struct meeting *m) {
    const int rank = team_rank(m->member->team);
    const int group = rank < 2 * m->pairs ? rank / 2 : rank - m->pairs;
    const struct span none = {0, 0}, all = {0, m->sum->n_parts}, whole = {0, m->sum->length};
    const struct span first = held(m->member->team, m->kind, all.n, speaker(m, group));
    const struct span second = {first.first + first.n, parts_of(m, group, 1).n - first.n};
    if (rank != speaker(m, group)) {
        trade(m, rank - 1, second, whole, none, whole);
        trade(m, rank - 1, none, whole, all, whole);
        return;
    }
    if (group < m->pairs) {
        trade(m, rank + 1, none, whole, second, whole);
        fold_groups(m, first, second, whole);
    }
    double_groups(m, group, 1, whole);
    if (group < m->pairs)
        trade(m, rank + 1, all, whole, none, whole);
}

static struct meeting plan_meeting(struct member *member, enum pieces kind, const struct sum *sum) {
    const int ranks = team_n_ranks(member->team);
    int groups = 1;
    while (2 * groups <= ranks)
        groups *= 2;
    return (struct meeting){member, kind,           sum,
                            groups, ranks - groups, sum->length * sum->size >= LONG_SUM};
}

static void sum_parts(struct member *member, enum pieces kind, const struct sum *sum) {
    const struct team *team = member->team;
    const struct span whole = {0, sum->length};
    team_barrier(member);
    fold(sum, held(team, kind, sum->n_parts, team_rank(team)), share_lines(member, sum, whole));
    team_barrier(member);
    if (kind == EVERYWHERE || !team->ranks)
        return;
    const struct meeting meeting = plan_meeting(member, kind, sum);
    if (meeting.is_long || member->rank == 0)
        sum_ranks(&meeting);
    team_barrier(member);
}

void team_sum(struct member *member, enum pieces kind, double *parts, size_t n_parts,
              size_t length) {
    sum_parts(member, kind, &(struct sum){parts, n_parts, length, sizeof *parts});
}

void team_sum_reals(struct member *member, enum pieces kind, real *parts, size_t n_parts,
                    size_t length) {
    sum_parts(member, kind, &(struct sum){parts, n_parts, length, sizeof *parts});
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
