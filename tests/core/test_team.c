/* Teams: the fixed tree of team_sum, shares, agreement, and barriers under stress. */
#include "core/team.h"
#include "tests/core/check.h"

#include <sched.h>
#include <time.h>

enum { MAX_PARTS = 9 };

struct addition {
    double *parts;
    size_t n_parts, length;
    double *sum;
};

static void add(struct member *member, void *arg) {
    struct addition *a = arg;
    team_sum(member, BY_SHARD, a->parts, a->n_parts, a->length);
    if (member->rank == member->size - 1) /* complete for all, not just for member 0 */
        memcpy(a->sum, a->parts, a->length * sizeof *a->sum);
}

/* The tree written down as recursion: the largest power of two below n on the left. */
static double tree(const double *parts, size_t length, size_t n) {
    if (n == 1)
        return parts[0];
    size_t left = 1;
    while (2 * left < n)
        left *= 2;
    return tree(parts, length, left) + tree(parts + left * length, length, n - left);
}

static void check_sum(size_t n_parts, size_t length) {
    double *values = malloc(n_parts * length * sizeof *values);
    struct addition a = {.n_parts = n_parts, .length = length};
    struct rng rng = test_stream(1);
    a.parts = malloc(n_parts * length * sizeof *a.parts);
    a.sum = malloc(length * sizeof *a.sum);
    for (size_t i = 0; i < n_parts * length; i++)
        values[i] = rng_normal(&rng) * exp2(20 * rng_uniform(&rng)); /* order matters */
    for (size_t i = 0; i < COUNT(TEAM_SIZES); i++) {
        struct team *team = new_team(TEAM_SIZES[i]);
        memcpy(a.parts, values, n_parts * length * sizeof *values);
        team_run(team, add, &a);
        for (size_t j = 0; j < length; j++) {
            double expected = tree(values + j, length, n_parts);
            assert_memory_equal(&a.sum[j], &expected, sizeof expected);
        }
        team_free(team);
    }
    free(values);
    free(a.parts);
    free(a.sum);
}

static void sum_is_a_fixed_tree(void **state) {
    (void)state;
    const size_t lengths[] = {1, 7, 8, 9, 100};
    for (size_t n = 1; n <= MAX_PARTS; n++)
        for (size_t i = 0; i < COUNT(lengths); i++)
            check_sum(n, lengths[i]);
}

struct real_addition {
    real *parts, *sum;
    size_t n_parts, length;
};

static void add_reals(struct member *member, void *arg) {
    struct real_addition *a = arg;
    team_sum_reals(member, BY_SHARD, a->parts, a->n_parts, a->length);
    if (member->rank == member->size - 1)
        memcpy(a->sum, a->parts, a->length * sizeof *a->sum);
}

static real real_tree(const real *parts, size_t length, size_t n) {
    if (n == 1)
        return parts[0];
    size_t left = 1;
    while (2 * left < n)
        left *= 2;
    return real_tree(parts, length, left) + real_tree(parts + left * length, length, n - left);
}

static void sum_of_reals_is_the_same_tree(void **state) {
    (void)state;
    const size_t lengths[] = {1, 15, 16, 17, 200};
    for (size_t n_parts = 1; n_parts <= MAX_PARTS; n_parts++)
        for (size_t l = 0; l < COUNT(lengths); l++)
            for (size_t t = 0; t < COUNT(TEAM_SIZES); t++) {
                size_t length = lengths[l];
                real *values = new_normal(n_parts * length, 2);
                struct real_addition a = {new_normal(n_parts * length, 2), new_reals(length),
                                          n_parts, length};
                struct team *team = new_team(TEAM_SIZES[t]);
                team_run(team, add_reals, &a);
                for (size_t j = 0; j < length; j++)
                    assert_true(a.sum[j] == real_tree(values + j, length, n_parts));
                team_free(team);
                free(values);
                free(a.parts);
                free(a.sum);
            }
}

static void shares_cover_all_once(void **state) {
    (void)state;
    for (int size = 1; size <= 9; size++)
        for (size_t n = 0; n < 20; n++) {
            size_t next = 0, first, end;
            for (int rank = 0; rank < size; rank++) {
                struct member member = {.rank = rank, .size = size};
                team_share(&member, n, &first, &end);
                assert_int_equal(first, next);
                assert_in_range(end - first, n / (size_t)size, n / (size_t)size + 1);
                next = end;
            }
            assert_int_equal(next, n);
        }
}

struct agreement {
    _Atomic int flag;
    int answers[TEAM_MAX];
    const _Atomic int *asked;
};

static void agree(struct member *member, void *arg) {
    struct agreement *a = arg;
    a->answers[member->rank] = team_agree(member, a->asked);
}

static void all_agree(void **state) {
    (void)state;
    struct team *team = new_team(3);
    struct agreement a = {.asked = NULL};
    for (int flag = -1; flag <= 1; flag++) { /* -1: no flag at all */
        a.asked = flag < 0 ? NULL : &a.flag;
        a.flag = flag;
        team_run(team, agree, &a);
        for (int rank = 0; rank < 3; rank++)
            assert_int_equal(a.answers[rank], flag > 0);
    }
    team_free(team);
}

struct flipping {
    _Atomic int flag;
    _Atomic int done; /* steps of the first member that left */
    int steps[4];
};

/* One member raises the flag at any time; all must leave at the same step. */
static void leave_together(struct member *member, void *arg) {
    struct flipping *f = arg;
    for (int step = 0;; step++) {
        if (member->rank == 2 && step == 100)
            f->flag = 1;
        if (team_agree(member, &f->flag)) {
            f->steps[member->rank] = step;
            return;
        }
    }
}

static void all_leave_at_the_same_step(void **state) {
    (void)state;
    struct team *team = new_team(4);
    for (int round = 0; round < 50; round++) {
        struct flipping f = {.flag = 0};
        team_run(team, leave_together, &f);
        assert_in_range(f.steps[0], 100, 101);
        for (int rank = 1; rank < 4; rank++)
            assert_int_equal(f.steps[rank], f.steps[0]);
    }
    team_free(team);
}

enum { BARRIERS = 100000, STRESS_TEAM = 4 };

struct stress {
    int at[STRESS_TEAM][16]; /* plain ints, a line each: only the barrier orders them */
    int wrong[STRESS_TEAM];
};

static void pass_barriers(struct member *member, void *arg) {
    struct stress *stress = arg;
    for (int i = 1; i <= BARRIERS / 2; i++) {
        stress->at[member->rank][0] = i;
        team_barrier(member);
        for (int other = 0; other < member->size; other++)
            stress->wrong[member->rank] += stress->at[other][0] != i;
        team_barrier(member);
    }
}

static double pass_barriers_timed(void) {
    struct timespec start, end;
    struct team *team = new_team(STRESS_TEAM);
    struct stress stress = {0};
    clock_gettime(CLOCK_MONOTONIC, &start);
    team_run(team, pass_barriers, &stress);
    clock_gettime(CLOCK_MONOTONIC, &end);
    team_free(team);
    for (int rank = 0; rank < STRESS_TEAM; rank++)
        assert_int_equal(stress.wrong[rank], 0);
    return (double)(end.tv_sec - start.tv_sec) + 1e-9 * (double)(end.tv_nsec - start.tv_nsec);
}

static void many_barriers(void **state) {
    (void)state;
    assert_true(pass_barriers_timed() < 5);
}

/* All four members on one processor: whoever waits must let the others run. */
static void many_barriers_on_one_processor(void **state) {
    (void)state;
    cpu_set_t before, one;
    CPU_ZERO(&one);
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    for (size_t cpu = 0; cpu < CPU_SETSIZE && !CPU_COUNT(&one); cpu++)
        if (CPU_ISSET(cpu, &before))
            CPU_SET(cpu, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    double seconds = pass_barriers_timed();
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
    assert_true(seconds < 10);
}

static void count_member(struct member *member, void *arg) {
    (void)member;
    ++*(_Atomic int *)arg;
}

static void every_member_runs_once(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(TEAM_SIZES); i++) {
        struct team *team = new_team(TEAM_SIZES[i]);
        _Atomic int calls = 0;
        for (int round = 1; round <= 20; round++) {
            team_run(team, count_member, &calls);
            assert_int_equal(calls, round * TEAM_SIZES[i]);
        }
        assert_int_equal(team_size(team), TEAM_SIZES[i]);
        team_free(team);
    }
}

static void make_denormal(struct member *member, void *arg) {
    volatile float smallest_normal = 0x1p-126f, quarter = 0.25f, denormal = 0x1p-140f;
    int *kept = arg;
    kept[member->rank] = smallest_normal * quarter != 0 || denormal * 4096.f != 0;
}

/* In all members and only while they work: the caller's arithmetic is its own. */
static void denormals_are_flushed(void **state) {
    (void)state;
    int kept[3];
    volatile float smallest_normal = 0x1p-126f, quarter = 0.25f;
    struct team *team = new_team(3);
    team_run(team, make_denormal, kept);
    team_free(team);
    for (int rank = 0; rank < 3; rank++)
        assert_int_equal(kept[rank], 0);
    assert_true(smallest_normal * quarter != 0);
}

static void senseless_sizes_are_refused(void **state) {
    (void)state;
    const int sizes[] = {0, -1, TEAM_MAX + 1, 300};
    for (size_t i = 0; i < COUNT(sizes); i++) {
        struct ovr_err err = {0};
        struct team *team = (void *)&err; /* must not stay */
        assert_failed(team_new(&team, sizes[i], &err), OVR_INVALID, &err, "must be 1..256");
        assert_string_equal(err.field, "threads");
        assert_null(team);
    }
    team_free(NULL);
}

/* As many as were asked for within its bounds, each with a rank of its own, and the same sums. */
static void a_team_is_resized(void **state) {
    (void)state;
    static const int wanted[] = {1, 4, 2, 2, 3, 9, 0, 1, 4}, got[] = {1, 4, 2, 2, 3, 4, 1, 1, 4};
    struct team *team;
    struct ovr_err err = {0};
    assert_ok(team_new_within(&team, 2, 4, &err), &err);
    assert_int_equal(team_size(team), 2);
    assert_int_equal(team_most(team), 4);
    for (size_t i = 0; i < COUNT(wanted); i++) {
        struct agreement a = {.flag = 1};
        a.asked = &a.flag;
        assert_int_equal(team_resize(team, wanted[i]), got[i]);
        assert_int_equal(team_size(team), got[i]);
        team_run(team, agree, &a);
        for (int rank = 0; rank < 5; rank++)
            assert_int_equal(a.answers[rank], rank < got[i]);
    }
    team_free(team);
    assert_failed(team_new_within(&team, 3, 2, &err), OVR_INVALID, &err, "must be 1..2, got 3");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sum_is_a_fixed_tree),
        cmocka_unit_test(sum_of_reals_is_the_same_tree),
        cmocka_unit_test(shares_cover_all_once),
        cmocka_unit_test(all_agree),
        cmocka_unit_test(all_leave_at_the_same_step),
        cmocka_unit_test(many_barriers),
        cmocka_unit_test(many_barriers_on_one_processor),
        cmocka_unit_test(every_member_runs_once),
        cmocka_unit_test(denormals_are_flushed),
        cmocka_unit_test(a_team_is_resized),
        cmocka_unit_test(senseless_sizes_are_refused),
    };
    return cmocka_run_group_tests_name("core/team", tests, NULL, NULL);
}
