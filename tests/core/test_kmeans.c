/* k-means against scikit-learn (tests/golden/kmeans.py), its first centroids, and the same bits for
 * any team. The nearest centroids, which a layer finds in a run, are found in float64 here. */
#include "core/kmeans.h"
#include "tests/core/check.h"
#include "tests/golden/kmeans.h"

struct task {
    struct kmeans kmeans;
    struct arena arena;
    size_t batch, epochs;
    const real *x;
    uint32_t *sample, *unit; /* 0 … N − 1, and the nearest centroid of each */
    double *square;
    uint64_t *changed; /* epochs */
    double distortion; /* before the last epoch moved the centroids */
    _Atomic int stop;
    _Atomic int stopped;
};

static void open_task(struct task *task, const struct kmeans_config *config, const real *x,
                      size_t n, size_t d, size_t k) {
    struct ovr_err err = {0};
    struct arena counting = {0};
    struct kmeans counted;
    kmeans_place(&counted, config, kernels_get(ISA_AUTO), k, d, n, &counting);
    *task = (struct task){.batch = n, .epochs = 1, .x = x};
    assert_ok(arena_open(&task->arena, counting.used, &err), &err);
    kmeans_place(&task->kmeans, config, kernels_get(ISA_AUTO), k, d, n, &task->arena);
    assert_int_equal(task->arena.used, counting.used);
    task->kmeans.centroids = new_reals(k * d);
    task->kmeans.bias = new_reals(k);
    task->sample = calloc(n, sizeof *task->sample);
    task->unit = calloc(n, sizeof *task->unit);
    task->square = calloc(n, sizeof *task->square);
    task->changed = calloc(64, sizeof *task->changed);
    assert_true(task->sample && task->unit && task->square && task->changed);
    for (size_t i = 0; i < n; i++)
        task->sample[i] = (uint32_t)i;
    task->kmeans.used = task->sample;
    task->kmeans.n_used = n;
}

static void close_task(struct task *task) {
    arena_close(&task->arena);
    free(task->kmeans.centroids);
    free(task->kmeans.bias);
    free(task->sample);
    free(task->unit);
    free(task->square);
    free(task->changed);
}

static void find_nearest(struct task *task, size_t i) {
    const struct kmeans *kmeans = &task->kmeans;
    double best = INFINITY;
    for (size_t k = 0; k < kmeans->n_units; k++) {
        double square = 0;
        for (size_t j = 0; j < kmeans->n_inputs; j++)
            square += pow((double)task->x[i * kmeans->n_inputs + j] -
                              kmeans->centroids[k * kmeans->n_inputs + j],
                          2);
        if (square >= best)
            continue;
        best = square;
        task->unit[i] = (uint32_t)k;
    }
    task->square[i] = best;
}

static void init_work(struct member *member, void *arg) {
    struct task *task = arg;
    if (kmeans_init(member, &task->kmeans, task->x, &task->stop))
        task->stopped = 1;
}

static void epochs_work(struct member *member, void *arg) {
    struct task *task = arg;
    size_t n = task->kmeans.n_samples, d = task->kmeans.n_inputs, first, end;
    for (size_t epoch = 0; epoch < task->epochs; epoch++) {
        kmeans_start(member, &task->kmeans);
        for (size_t at = 0; at < n; at += task->batch) {
            size_t rows = min_size(task->batch, n - at);
            team_barrier(member);
            team_share(member, rows, &first, &end);
            for (size_t i = first; i < end; i++)
                find_nearest(task, at + i);
            team_barrier(member);
            kmeans_add(member, &task->kmeans, task->x + at * d, task->sample + at, task->unit + at,
                       task->square + at, rows);
        }
        kmeans_finish(member, &task->kmeans, task->x);
        team_barrier(member);
        if (member->rank == 0)
            task->changed[epoch] = task->kmeans.changed;
        team_barrier(member);
    }
    if (member->rank)
        return;
    task->distortion = 0;
    for (size_t i = 0; i < n; i++)
        task->distortion += task->square[i] / (double)n;
}

static void run(struct task *task, int threads) {
    struct team *team = new_team(threads);
    team_run(team, epochs_work, task);
    team_free(team);
}

static void init(struct task *task, int threads) {
    struct team *team = new_team(threads);
    team_run(team, init_work, task);
    team_free(team);
}

/* ---- scikit-learn ---- */

enum { N = 60, D = 3, K = 5 };

/* The data and first centroids of kmeans.py. */
static real *golden_data(void) {
    real *x = new_reals(N * D);
    for (int i = 0; i < N; i++)
        for (int j = 0; j < D; j++)
            x[i * D + j] =
                (real)((i * 37 + j * 101 + i * i * (7 + j)) % 199) / 16 + (i % 4 == j ? 8 : 0);
    return x;
}

static void open_golden(struct task *task, int online, const real *x) {
    const struct kmeans_config config = {.online = online};
    const size_t start[K] = {3, 17, 22, 41, 58};
    open_task(task, &config, x, N, D, K);
    for (size_t i = 0; i < N; i++)
        task->kmeans.unit[i] = UINT32_MAX; /* nowhere, as kmeans_init() leaves it */
    for (size_t k = 0; k < K; k++)
        memcpy(task->kmeans.centroids + k * D, x + start[k] * D, D * sizeof *x);
}

static void check_centroids(const struct task *task, const double *expected) {
    for (size_t k = 0; k < K; k++) {
        double square = 0;
        for (size_t j = 0; j < D; j++) {
            assert_near(task->kmeans.centroids[k * D + j], expected[k * D + j], 1e-5);
            square += expected[k * D + j] * expected[k * D + j];
        }
        assert_relative(task->kmeans.bias[k], -square / 2, 1e-6);
    }
}

static void lloyd_equals_sklearn(void **state) {
    (void)state;
    real *x = golden_data();
    struct task task;
    open_golden(&task, 0, x);
    task.batch = 7; /* changes nothing */
    for (size_t n = 0; n < 3; n++) {
        run(&task, 2);
        check_centroids(&task, golden_lloyd + n * K * D);
        double distortion = 0;
        for (size_t i = 0; i < N; i++) {
            find_nearest(&task, i);
            assert_int_equal(task.unit[i], golden_labels[n * N + i]);
            distortion += task.square[i] / N;
        }
        assert_relative(distortion, golden_distortion[n], 1e-6);
    }
    close_task(&task);
    free(x);
}

static void lloyd_ends_where_nothing_changes(void **state) {
    (void)state;
    real *x = golden_data();
    struct task task;
    open_golden(&task, 0, x);
    task.epochs = GOLDEN_EPOCHS + 1;
    run(&task, 1);
    assert_int_equal(task.changed[0], N);
    for (size_t epoch = 0; epoch < GOLDEN_EPOCHS - 1; epoch++)
        assert_true(task.changed[epoch] > 0);
    assert_int_equal(task.changed[GOLDEN_EPOCHS - 1], 0);
    assert_int_equal(task.changed[GOLDEN_EPOCHS], 0);
    check_centroids(&task, golden_end);
    close_task(&task);
    free(x);
}

/* The farthest sample leaves its centroid for the one that has none. */
static void empty_cluster_is_refilled(void **state) {
    (void)state;
    real *x = golden_data();
    struct task task;
    open_golden(&task, 0, x);
    for (size_t j = 0; j < D; j++)
        task.kmeans.centroids[2 * D + j] = 100;
    run(&task, 2);
    check_centroids(&task, golden_refilled);
    assert_int_equal(task.kmeans.counts[2], 1);
    uint64_t total = 0;
    for (size_t k = 0; k < K; k++)
        total += task.kmeans.counts[k];
    assert_int_equal(total, N);
    close_task(&task);
    free(x);
}

static void online_equals_sklearn(void **state) {
    (void)state;
    real *x = golden_data();
    struct task task;
    open_golden(&task, 1, x);
    task.batch = 10;
    for (size_t epoch = 0; epoch < 2; epoch++) {
        run(&task, 2);
        check_centroids(&task, golden_online + epoch * K * D);
    }
    close_task(&task);
    free(x);
}

/* ---- by hand ---- */

static const struct kmeans_config lloyd = {.online = 0};

/* Two empty ones: the farthest sample goes to the lower of them, of equals the lowest; the last
 * sample of a centroid stays. */
static void farthest_sample_first(void **state) {
    (void)state;
    const real x[] = {0, 4, 8, 100, 4};
    struct task task;
    open_task(&task, &lloyd, x, 5, 1, 4);
    const real start[] = {4, 1000, 90, -1000};
    memcpy(task.kmeans.centroids, start, sizeof start);
    for (size_t i = 0; i < 5; i++)
        task.kmeans.unit[i] = UINT32_MAX;
    run(&task, 2);
    /* 100 is the farthest from its centroid, but alone there. */
    const real expected[] = {4, 0, 100, 8};
    for (size_t k = 0; k < 4; k++)
        assert_near(task.kmeans.centroids[k], expected[k], 0);
    assert_int_equal(task.kmeans.counts[0], 2);
    close_task(&task);
}

/* Where no sample is off its centroid, one without samples stays where it is, and that is the end.
 */
static void more_centroids_than_places(void **state) {
    (void)state;
    const real x[] = {1, 1, 2, 2};
    struct task task;
    open_task(&task, &lloyd, x, 4, 1, 4);
    task.epochs = 2;
    init(&task, 2);
    real before[4];
    memcpy(before, task.kmeans.centroids, sizeof before);
    run(&task, 2);
    assert_memory_equal(before, task.kmeans.centroids, sizeof before);
    assert_int_equal(task.changed[1], 0);
    close_task(&task);
}

/* Each sample moves its centroid by 1/count of the way; the first one takes it along altogether. */
static void online_rate_is_one_by_count(void **state) {
    (void)state;
    enum { ROWS = 30, UNITS = 3 };
    const struct kmeans_config online = {.online = 1};
    real *x = new_normal(ROWS * 2, 1);
    struct task task;
    open_task(&task, &online, x, ROWS, 2, UNITS);
    task.batch = 1;
    double naive[UNITS][2] = {{0, 1}, {1, 0}, {-1, 0}};
    int count[UNITS] = {0};
    for (size_t k = 0; k < UNITS; k++)
        for (size_t j = 0; j < 2; j++)
            task.kmeans.centroids[k * 2 + j] = (real)naive[k][j];
    run(&task, 1);
    for (size_t i = 0; i < ROWS; i++) {
        size_t best = 0;
        double square[UNITS];
        for (size_t k = 0; k < UNITS; k++) {
            square[k] = pow(x[2 * i] - naive[k][0], 2) + pow(x[2 * i + 1] - naive[k][1], 2);
            best = square[k] < square[best] ? k : best;
        }
        double rate = 1.0 / ++count[best];
        for (size_t j = 0; j < 2; j++)
            naive[best][j] = (1 - rate) * naive[best][j] + rate * x[2 * i + j];
    }
    for (size_t k = 0; k < UNITS; k++)
        for (size_t j = 0; j < 2; j++)
            assert_near(task.kmeans.centroids[k * 2 + j], naive[k][j], 1e-6);
    close_task(&task);
    free(x);
}

/* Two halves of the samples, the second with a task of its own, end as all of them do; without the
 * counts the second half alone decides. */
static void online_goes_on_from_counts(void **state) {
    (void)state;
    enum { ROWS = 40, UNITS = 3, HALF = ROWS / 2 };
    const struct kmeans_config online = {.online = 1};
    real *x = new_normal(ROWS * 2, 4);
    struct task whole, parts[2];
    open_task(&whole, &online, x, ROWS, 2, UNITS);
    memcpy(whole.kmeans.centroids, x, UNITS * 2 * sizeof *x);
    whole.batch = 1;
    run(&whole, 2);
    for (int i = 0; i < 2; i++) {
        open_task(&parts[i], &online, x + i * HALF * 2, HALF, 2, UNITS);
        parts[i].batch = 1;
        memcpy(parts[i].kmeans.centroids, i ? parts[0].kmeans.centroids : x, UNITS * 2 * sizeof *x);
        if (i) {
            struct team *team = new_team(1);
            struct member alone = {team, 0, 1};
            real counts[UNITS];
            for (size_t k = 0; k < UNITS; k++)
                counts[k] = (real)parts[0].kmeans.counts[k];
            kmeans_continue(&alone, &parts[1].kmeans, counts);
            team_free(team);
        }
        run(&parts[i], 2);
    }
    for (size_t k = 0; k < UNITS; k++) {
        assert_int_equal(parts[1].kmeans.counts[k], whole.kmeans.counts[k]);
        for (size_t j = 0; j < 2; j++)
            assert_near(parts[1].kmeans.centroids[k * 2 + j], whole.kmeans.centroids[k * 2 + j],
                        1e-5);
    }
    close_task(&whole);
    close_task(&parts[0]);
    close_task(&parts[1]);
    free(x);
}

/* Steps of 2 along and of 3 across the sum of the samples, and one that stands still. */
static void direction_of_steps(void **state) {
    (void)state;
    const real x[] = {3, 0, 5, 0, 100, 3, 100, -3, 0, 900};
    const real start[] = {2, 0, 100, 1, 0, 900};
    for (int online = 0; online <= 1; online++) {
        const struct kmeans_config config = {.online = online};
        struct task task;
        open_task(&task, &config, x, 5, 2, 3);
        memcpy(task.kmeans.centroids, start, sizeof start);
        run(&task, 2);
        assert_near(task.kmeans.direction[0], 1, 1e-12);
        assert_near(task.kmeans.direction[1], 0, 1e-12);
        assert_true(isnan(task.kmeans.direction[2]));
        assert_near(kmeans_direction(&task.kmeans), 0.5, 1e-12);
        close_task(&task);
    }
}

/* An online step after the first epoch: what the new samples add up to, not all there were. */
static void direction_of_new_samples(void **state) {
    (void)state;
    real x[] = {4, 0};
    const struct kmeans_config config = {.online = 1};
    struct task task;
    open_task(&task, &config, x, 1, 2, 1);
    run(&task, 1);
    x[0] = 0, x[1] = 2;
    run(&task, 1); /* from (4, 0) to (2, 1) for (0, 2) */
    assert_near(kmeans_direction(&task.kmeans), 1 / sqrt(5), 1e-12);
    assert_near(task.kmeans.centroids[0], 2, 0);
    close_task(&task);
}

/* ---- the first centroids ---- */

enum { POINTS = 400, CENTRES = 150, WIDTH = 5 };

/* Which sample each centroid is; all of them different. */
static void check_are_samples(const struct task *task, size_t n, size_t k, size_t d) {
    int *taken = calloc(n, sizeof *taken);
    for (size_t unit = 0; unit < k; unit++) {
        size_t i = 0;
        while (i < n && (taken[i] || memcmp(task->x + i * d, task->kmeans.centroids + unit * d,
                                            d * sizeof *task->x)))
            i++;
        assert_true(i < n);
        taken[i] = 1;
    }
    free(taken);
}

static void first_centroids_are_different_samples(void **state) {
    (void)state;
    real *x = new_normal(POINTS * WIDTH, 1);
    real *first = NULL;
    for (uint64_t seed = 1; seed <= 2; seed++)
        for (int way = KMEANS_SAMPLES; way <= KMEANS_PLUS_PLUS; way++) {
            const struct kmeans_config config = {.init = (enum kmeans_init)way, .seed = seed};
            struct task task;
            open_task(&task, &config, x, POINTS, WIDTH, CENTRES);
            init(&task, 2);
            check_are_samples(&task, POINTS, CENTRES, WIDTH);
            if (first)
                assert_memory_not_equal(first, task.kmeans.centroids, WIDTH * sizeof *first);
            free(first);
            first = new_reals(WIDTH);
            memcpy(first, task.kmeans.centroids, WIDTH * sizeof *first);
            close_task(&task);
        }
    free(first);
    free(x);
}

/* As many places as centroids, all samples of a place the same: each place gets one, though most of
 * the samples are in one place. */
static void plus_plus_leaves_no_place_out(void **state) {
    (void)state;
    enum { PLACES = 20 };
    real x[POINTS] = {0};
    for (int i = 0; i < PLACES; i++)
        x[POINTS - 1 - i] = (real)i;
    for (uint64_t seed = 0; seed < 5; seed++) {
        const struct kmeans_config config = {.init = KMEANS_PLUS_PLUS, .seed = seed};
        struct task task;
        open_task(&task, &config, x, POINTS, 1, PLACES);
        init(&task, 2);
        unsigned places = 0;
        for (size_t k = 0; k < PLACES; k++)
            places |= 1u << (unsigned)task.kmeans.centroids[k];
        assert_int_equal(places, (1u << PLACES) - 1);
        close_task(&task);
    }
}

/* The second centroid is drawn with the square of the distance: of places at 1 and at 3 from the
 * first, the far one nine times as often. */
static void plus_plus_goes_by_squares(void **state) {
    (void)state;
    const real x[] = {0, 1, -3, 0, 0, 0, 0, 0};
    int near = 0, far = 0;
    for (uint64_t seed = 0; seed < 2000; seed++) {
        const struct kmeans_config config = {.init = KMEANS_PLUS_PLUS, .seed = seed};
        struct task task;
        open_task(&task, &config, x, COUNT(x), 1, 2);
        init(&task, 1);
        if (task.kmeans.centroids[0] == 0) {
            near += task.kmeans.centroids[1] == 1;
            far += task.kmeans.centroids[1] == -3;
        }
        close_task(&task);
    }
    double share = (double)far / (near + far);
    assert_true(near + far > 1300);
    assert_near(share, 0.9, 4 * sqrt(0.9 * 0.1 / 1300));
}

static void fewer_places_than_centroids(void **state) {
    (void)state;
    const real x[] = {7, 7, 7, 7, 7, 7};
    const struct kmeans_config config = {.init = KMEANS_PLUS_PLUS, .seed = 1};
    struct task task;
    open_task(&task, &config, x, COUNT(x), 1, 6);
    init(&task, 2);
    for (size_t k = 0; k < 6; k++)
        assert_near(task.kmeans.centroids[k], 7, 0);
    close_task(&task);
}

/* Samples that take no part are no centroids, and none of them refills one. */
static void others_take_no_part(void **state) {
    (void)state;
    real *x = new_normal(POINTS * WIDTH, 1), *half = new_reals(POINTS * WIDTH);
    const size_t n = POINTS / 2;
    for (size_t i = 0; i < n; i++)
        memcpy(half + i * WIDTH, x + 2 * i * WIDTH, WIDTH * sizeof *x);
    for (int way = 0; way < 10; way++) {
        const struct kmeans_config config = {.init = way % 2 ? KMEANS_PLUS_PLUS : KMEANS_SAMPLES,
                                             .seed = (uint64_t)way};
        struct task all, alone;
        open_task(&all, &config, x, POINTS, WIDTH, CENTRES);
        open_task(&alone, &config, half, n, WIDTH, CENTRES);
        for (size_t i = 0; i < n; i++)
            all.sample[i] = (uint32_t)(2 * i);
        all.kmeans.n_used = n;
        init(&all, 2);
        init(&alone, 2);
        assert_memory_equal(all.kmeans.centroids, alone.kmeans.centroids,
                            CENTRES * WIDTH * sizeof *x);
        close_task(&all);
        close_task(&alone);
    }
    free(x);
    free(half);
}

static void stop_flag_is_obeyed(void **state) {
    (void)state;
    real *x = new_normal(POINTS * WIDTH, 1);
    const struct kmeans_config config = {.init = KMEANS_PLUS_PLUS};
    struct task task;
    open_task(&task, &config, x, POINTS, WIDTH, CENTRES);
    task.stop = 1;
    init(&task, 3);
    assert_true(task.stopped);
    close_task(&task);
    free(x);
}

/* ---- teams ---- */

static void same_bits_for_any_team(void **state) {
    (void)state;
    real *x = new_normal(POINTS * WIDTH, 1);
    for (int online = 0; online <= 1; online++) {
        const struct kmeans_config config = {online, KMEANS_PLUS_PLUS, 3};
        struct task first;
        for (size_t i = 0; i < COUNT(TEAM_SIZES); i++) {
            struct task task;
            open_task(&task, &config, x, POINTS, WIDTH, CENTRES);
            task.epochs = 4;
            task.batch = online ? 32 : 100;
            init(&task, TEAM_SIZES[i]);
            run(&task, TEAM_SIZES[i]);
            if (i == 0) {
                first = task;
                continue;
            }
            assert_memory_equal(task.kmeans.centroids, first.kmeans.centroids,
                                CENTRES * WIDTH * sizeof(real));
            assert_memory_equal(task.kmeans.bias, first.kmeans.bias, CENTRES * sizeof(real));
            assert_memory_equal(task.kmeans.counts, first.kmeans.counts,
                                CENTRES * sizeof(uint64_t));
            assert_memory_equal(task.changed, first.changed, 4 * sizeof *task.changed);
            close_task(&task);
        }
        close_task(&first);
    }
    free(x);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lloyd_equals_sklearn),
        cmocka_unit_test(lloyd_ends_where_nothing_changes),
        cmocka_unit_test(empty_cluster_is_refilled),
        cmocka_unit_test(online_equals_sklearn),
        cmocka_unit_test(farthest_sample_first),
        cmocka_unit_test(more_centroids_than_places),
        cmocka_unit_test(online_rate_is_one_by_count),
        cmocka_unit_test(online_goes_on_from_counts),
        cmocka_unit_test(direction_of_steps),
        cmocka_unit_test(direction_of_new_samples),
        cmocka_unit_test(first_centroids_are_different_samples),
        cmocka_unit_test(plus_plus_leaves_no_place_out),
        cmocka_unit_test(plus_plus_goes_by_squares),
        cmocka_unit_test(fewer_places_than_centroids),
        cmocka_unit_test(others_take_no_part),
        cmocka_unit_test(stop_flag_is_obeyed),
        cmocka_unit_test(same_bits_for_any_team),
    };
    return cmocka_run_group_tests_name("core/kmeans", tests, NULL, NULL);
}
