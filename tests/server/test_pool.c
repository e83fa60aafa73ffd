/* The pool and its jobs: small experiments from the queue to their end, with a real store. */
#include "server/checkpoint.h"
#include "server/pool.h"
#include "server/sweeps.h"
#include "server/weights.h"
#include "tests/server/check.h"

#define SPHERE "\"dataset\":{\"generator\":\"sphere\",\"samples\":200,\"test_samples\":50},"
#define ENCODER "\"model\":{\"kind\":\"ovr_encoder\",\"hidden\":[300]},"

/* A second or less. */
#define SHORT(threads)                                                                             \
    "{" SPHERE ENCODER "\"probe\":{\"epochs\":3},\"training\":{\"epochs\":3,\"batch_size\":32,"    \
    "\"threads\":" threads "}}"
/* Ends only when it is told to. */
#define ENDLESS(more)                                                                              \
    "{" SPHERE ENCODER "\"probe\":null,\"training\":{\"epochs\":100000,\"threads\":1" more "}}"

enum { PATIENCE_MS = 30000 };

struct shop {
    struct place *place;
    struct catalog catalog;
    struct cache cache;
    struct pool *pool;
};

/* What `how` leaves open is as in most tests. */
static void open_shop_that(struct shop *shop, void **state, struct pool_config how) {
    struct place *place = *state;
    struct ovr_err err = {0};
    *shop = (struct shop){.place = place};
    assert_ok(catalog_init(&shop->catalog, place->dir, place->store, &err), &err);
    assert_ok(
        cache_init(&shop->cache, place->dir, &shop->catalog, kernels_get(ISA_AUTO), 1 << 20, &err),
        &err);
    assert_ok(weights_init(place->dir, &err), &err);
    assert_ok(checkpoint_init(place->dir, &err), &err);
    how.workplace = (struct workplace){.store = place->store,
                                       .cache = &shop->cache,
                                       .kernels = kernels_get(ISA_AUTO),
                                       .data_dir = place->dir};
    how.cores = 2;
    how.stuck_ms = how.stuck_ms ? how.stuck_ms : PATIENCE_MS;
    assert_ok(pool_start(&shop->pool, &how, &err), &err);
}

static void open_shop(struct shop *shop, void **state, int workers, int64_t memory_bytes) {
    open_shop_that(shop, state,
                   (struct pool_config){.workers = workers, .memory_bytes = memory_bytes});
}

static void close_shop(struct shop *shop) {
    assert_int_equal(pool_stop(shop->pool, 20), 0);
    cache_release(&shop->cache);
}

static void submit(struct shop *shop, const char *spec, int64_t memory_bytes, char id[ID_SIZE]) {
    enqueue(shop->place->store,
            &(struct new_experiment){.spec = spec, .memory_bytes = memory_bytes}, id);
    pool_wake(shop->pool);
}

static void await(struct shop *shop, const char *id, enum state wanted) {
    for (int waited = 0;; waited += 5) {
        struct experiment e = look_up(shop->place->store, id);
        enum state now = e.state;
        if (now != wanted && (now > STATE_RUNNING || waited > PATIENCE_MS))
            fail_msg("%s is %s, not %s: %s", id, state_names[now], state_names[wanted],
                     e.problem_detail ? e.problem_detail : "");
        experiment_release(&e);
        if (now == wanted)
            return;
        pool_tick(shop->pool);
        sleep_ms(5);
    }
}

/* Until so many jobs are with workers. */
static void await_running(struct shop *shop, int running) {
    for (int waited = 0; pool_running(shop->pool) != running; waited += 5) {
        if (waited > PATIENCE_MS)
            fail_msg("%d jobs run, not %d", pool_running(shop->pool), running);
        sleep_ms(5);
    }
}

/* Digests and named figures of an experiment. */
struct findings {
    char digests[8][65], best[65], last[65], threads[24];
    int n_digests, n_result, n_epoch_figures;
    double accuracy, loss, lambda_per_pair;
    int64_t best_epoch, epochs;
};

static int find(void *context, int epoch, const struct figure *f) {
    struct findings *found = context;
    if (epoch > 0 && strcmp(f->name, "digest") == 0 &&
        found->n_digests < (int)COUNT(found->digests))
        snprintf(found->digests[found->n_digests++], 65, "%s", f->text);
    found->n_epoch_figures += epoch > 0;
    found->n_result += epoch == 0;
    if (strcmp(f->name, "weights.best_sha256") == 0)
        snprintf(found->best, 65, "%s", f->text);
    if (strcmp(f->name, "weights.last_sha256") == 0)
        snprintf(found->last, 65, "%s", f->text);
    if (epoch == 0 && strcmp(f->name, "accuracy") == 0)
        found->accuracy = f->real;
    if (epoch == 0 && strcmp(f->name, "test.loss") == 0)
        found->loss = f->real;
    if (epoch == 0 && strcmp(f->name, "best_epoch") == 0)
        found->best_epoch = f->count;
    if (epoch == 0 && strcmp(f->name, "epochs") == 0)
        found->epochs = f->count;
    if (epoch == 0 && strcmp(f->name, "lambda_per_pair") == 0)
        found->lambda_per_pair = f->real;
    return 0;
}

static struct findings look_into(struct store *store, const char *id) {
    struct findings found = {.accuracy = NAN, .loss = NAN};
    struct ovr_err err = {0};
    struct experiment e = look_up(store, id);
    assert_ok(store_read_figures(store, e.seq, -1, 100, find, &found, &err), &err);
    experiment_release(&e);
    return found;
}

static void a_job_succeeds(void **state) {
    struct shop shop;
    char id[ID_SIZE], split[16] = "", path[256];
    int epoch = 0;
    size_t n;
    struct histogram h;
    struct tensor *tensors;
    struct ovr_err err = {0};
    open_shop(&shop, state, 1, 100);
    struct store *store = shop.place->store;
    submit(&shop, SHORT("1"), 1, id);
    await(&shop, id, STATE_SUCCEEDED);
    struct findings found = look_into(store, id);
    assert_int_equal(found.n_digests, 3);
    assert_int_equal(found.epochs, 3);
    assert_in_range(found.best_epoch, 1, 3);
    assert_true(found.accuracy >= 0 && found.accuracy <= 1);
    assert_true(isfinite(found.loss));
    assert_relative(found.lambda_per_pair, 5e-5 * 32 * 31, 1e-12);
    assert_string_equal(found.last, found.digests[2]);
    assert_string_equal(found.best, found.digests[found.best_epoch - 1]);
    struct experiment e = look_up(store, id);
    assert_true(e.started_at >= e.created_at && e.finished_at >= e.started_at);
    assert_int_equal(e.revision, 1 + 1 + 3 + 1); /* posted, claimed, epochs, finished */
    assert_ok(store_read_histogram(store, e.seq, &(int){0}, &epoch, split, &h, &err), &err);
    assert_int_equal(h.total, 50 * 300);
    assert_string_equal(split, "test");
    epoch = 1;
    *split = '\0';
    assert_ok(store_read_histogram(store, e.seq, &(int){0}, &epoch, split, &h, &err), &err);
    assert_string_equal(split, "validation");
    assert_ok(store_read_tensors(store, e.seq, "best", &tensors, &n, &err), &err);
    assert_int_equal(n, 4);
    for (size_t i = 0; i < n; i++) {
        weights_path(shop.place->dir, id, &tensors[i], path, sizeof path);
        assert_int_equal(access(path, R_OK), 0);
    }
    free(tensors);
    experiment_release(&e);
    close_shop(&shop);
}

static void an_mlp_succeeds(void **state) {
    struct shop shop;
    char id[ID_SIZE];
    open_shop(&shop, state, 1, 100);
    submit(&shop,
           "{" SPHERE
           "\"model\":{\"kind\":\"mlp\",\"hidden\":[20]},\"preprocess\":[\"standardize\","
           "{\"pca\":{\"components\":2}}],\"training\":{\"epochs\":2,\"protocol\":\"published\"}}",
           1, id);
    await(&shop, id, STATE_SUCCEEDED);
    struct findings found = look_into(shop.place->store, id);
    assert_true(found.accuracy >= 0 && found.accuracy <= 1);
    assert_int_equal(found.n_digests, 2);
    close_shop(&shop);
}

static void the_same_bits_for_any_number_of_threads(void **state) {
    struct shop shop;
    static const char *const specs[] = {SHORT("1"), SHORT("2"), SHORT("3"), SHORT("\"auto\"")};
    struct findings found[COUNT(specs)];
    open_shop(&shop, state, 1, 100);
    for (size_t i = 0; i < COUNT(specs); i++) {
        char id[ID_SIZE];
        submit(&shop, specs[i], 1, id);
        await(&shop, id, STATE_SUCCEEDED);
        found[i] = look_into(shop.place->store, id);
        assert_int_equal(found[i].n_digests, 3);
        for (int epoch = 0; epoch < 3; epoch++)
            assert_string_equal(found[i].digests[epoch], found[0].digests[epoch]);
        assert_string_equal(found[i].best, found[0].best);
        assert_string_equal(found[i].last, found[0].last);
        assert_true(found[i].accuracy == found[0].accuracy && found[i].loss == found[0].loss);
    }
    assert_string_not_equal(found[0].digests[0], found[0].digests[1]);
    close_shop(&shop);
}

static void progress_and_cancel(void **state) {
    struct shop shop;
    char id[ID_SIZE];
    struct progress p = {0};
    int was_running;
    struct ovr_err err = {0};
    open_shop(&shop, state, 1, 100);
    assert_int_equal(pool_progress(shop.pool, "nothere", &p), 0);
    submit(&shop, ENDLESS(""), 1, id);
    await(&shop, id, STATE_RUNNING);
    for (int waited = 0; p.epoch < 3 && waited < PATIENCE_MS; waited += 5) {
        assert_int_equal(pool_progress(shop.pool, id, &p), 1);
        sleep_ms(5);
    }
    assert_int_equal(p.phase, PHASE_TRAINING);
    assert_in_range(p.epoch, 3, 100000);
    assert_int_equal(p.epochs, 100000);
    assert_int_equal(p.threads, 1);
    assert_true(p.step >= 4 && p.steps == 200000); /* 180 samples in two batches an epoch */
    assert_true(p.samples_per_second > 0 && p.eta_seconds > 0);
    pool_cancel(shop.pool, "nothere", STOP_CANCEL);
    assert_ok(store_cancel(shop.place->store, id, &was_running, &err), &err);
    assert_true(was_running);
    pool_cancel(shop.pool, id, STOP_CANCEL);
    await_running(&shop, 0);
    assert_int_equal(state_of(shop.place->store, id), STATE_CANCELLED);
    assert_int_equal(pool_progress(shop.pool, id, &p), 0);
    assert_int_equal(count_entries(shop.place->dir, "/experiments"), 0);
    submit(&shop, SHORT("1"), 1, id); /* the worker lives on */
    await(&shop, id, STATE_SUCCEEDED);
    close_shop(&shop);
}

/* Without pool_cancel() the job finds out at its next epoch. */
static void cancelled_in_the_store_alone(void **state) {
    struct shop shop;
    char id[ID_SIZE];
    int was_running;
    open_shop(&shop, state, 1, 100);
    submit(&shop, ENDLESS(""), 1, id);
    await(&shop, id, STATE_RUNNING);
    assert_int_equal(store_cancel(shop.place->store, id, &was_running, NULL), 0);
    await_running(&shop, 0);
    assert_int_equal(state_of(shop.place->store, id), STATE_CANCELLED);
    close_shop(&shop);
}

static void a_time_limit(void **state) {
    struct shop shop;
    char id[ID_SIZE];
    open_shop(&shop, state, 1, 100);
    submit(&shop, ENDLESS(",\"time_limit_seconds\":0.2"), 1, id);
    await(&shop, id, STATE_FAILED);
    struct experiment e = look_up(shop.place->store, id);
    assert_string_equal(e.problem_kind, "time-limit");
    assert_string_equal(e.problem_pointer, "/training/time_limit_seconds");
    assert_non_null(strstr(e.problem_detail, "the time limit of 0.2 s is over"));
    assert_in_range(e.finished_at - e.started_at, 150, PATIENCE_MS);
    experiment_release(&e);
    close_shop(&shop);
}

static void failures_have_a_reason(void **state) {
    struct shop shop;
    char id[ID_SIZE];
    static const struct {
        const char *spec, *kind, *pointer, *part;
    } bad[] = {
        {"{}", "invalid-spec", NULL, "the stored spec is not valid: /dataset is required"},
        {"garbage", "invalid-spec", NULL, "the stored spec is not JSON"},
        {"{\"dataset\":{\"name\":\"x\",\"version\":{"
         "\"train\":\"0000000000000000000000000000000000000000000000000000000000000000\","
         "\"test\":\"0000000000000000000000000000000000000000000000000000000000000000\"}},"
         "\"model\":{\"kind\":\"mlp\",\"hidden\":[1]}}",
         "storage", NULL, "cannot be read; upload it again"},
        {"{" SPHERE "\"model\":{\"kind\":\"mlp\",\"hidden\":[20]},"
         "\"optimizer\":{\"name\":\"sgd\",\"learning_rate\":1e30}}",
         "diverged", "/optimizer/learning_rate", "learning"},
        {"{" SPHERE "\"model\":{\"kind\":\"mlp\",\"hidden\":[20],"
         "\"init\":{\"experiment\":\"gone00000000\"}}}",
         "source-gone", "/model/init/experiment", "no experiment gone00000000"},
        {"{" SPHERE "\"model\":{\"kind\":\"mlp\",\"hidden\":[20]},"
         "\"preprocess\":[{\"experiment\":\"gone00000000\"}]}",
         "source-gone", "/preprocess/0/experiment", "no experiment gone00000000"},
    };
    open_shop(&shop, state, 2, 100);
    for (size_t i = 0; i < COUNT(bad); i++) {
        submit(&shop, bad[i].spec, 1, id);
        await(&shop, id, STATE_FAILED);
        struct experiment e = look_up(shop.place->store, id);
        assert_string_equal(e.problem_kind, bad[i].kind);
        if (bad[i].pointer)
            assert_string_equal(e.problem_pointer, bad[i].pointer);
        else
            assert_null(e.problem_pointer);
        if (!strstr(e.problem_detail, bad[i].part))
            fail_msg("\"%s\" should have \"%s\"", e.problem_detail, bad[i].part);
        experiment_release(&e);
    }
    close_shop(&shop);
}

/* Its threads work on, but nobody looks after them: no time limits, no checkpoints. */
static void a_pool_that_nobody_ticks_is_stuck(void **state) {
    enum { STUCK_MS = 2000 }; /* far above what a busy machine keeps a thread waiting */
    struct shop shop;
    open_shop_that(&shop, state, (struct pool_config){.workers = 1, .stuck_ms = STUCK_MS});
    pool_tick(shop.pool);
    assert_true(pool_alive(shop.pool));
    sleep_ms(STUCK_MS + 50);
    assert_false(pool_alive(shop.pool));
    pool_tick(shop.pool);
    assert_true(pool_alive(shop.pool));
    pool_drain(shop.pool);
    assert_false(pool_alive(shop.pool));
    close_shop(&shop);
}

/* Weights that cannot be written fail the job and leave nothing. */
static void a_place_that_cannot_be_written(void **state) {
    struct shop shop;
    char id[ID_SIZE], path[160];
    open_shop(&shop, state, 1, 100);
    snprintf(path, sizeof path, "%s/experiments", shop.place->dir);
    assert_int_equal(rmdir(path), 0);
    write_whole(path, "x", 1);
    submit(&shop, SHORT("1"), 1, id);
    await(&shop, id, STATE_FAILED);
    struct experiment e = look_up(shop.place->store, id);
    assert_string_equal(e.problem_kind, "storage");
    assert_non_null(strstr(e.problem_detail, "cannot make"));
    experiment_release(&e);
    assert_int_equal(look_into(shop.place->store, id).n_result, 0);
    close_shop(&shop);
}

static void shutdown_puts_jobs_back(void **state) {
    struct shop shop;
    char running[ID_SIZE], waiting[ID_SIZE];
    open_shop(&shop, state, 1, 100);
    submit(&shop, ENDLESS(""), 1, running);
    submit(&shop, SHORT("1"), 1, waiting);
    await(&shop, running, STATE_RUNNING);
    while (look_into(shop.place->store, running).n_epoch_figures == 0) {
        pool_tick(shop.pool);
        sleep_ms(5);
    }
    close_shop(&shop);
    struct store *store = shop.place->store;
    struct experiment e = look_up(store, running);
    assert_int_equal(e.state, STATE_QUEUED);
    assert_string_equal(e.queue_reason,
                        "the daemon was shut down while it ran; it goes on where it was");
    experiment_release(&e);
    assert_int_equal(state_of(store, waiting), STATE_QUEUED);
    assert_true(look_into(store, running).n_epoch_figures > 0); /* what it did is kept */
    assert_true(count_entries(shop.place->dir, "/checkpoints") > 0);
    assert_int_equal(count_entries(shop.place->dir, "/experiments"), 0);

    int was_running;
    open_shop(&shop, state, 1, 100); /* it goes on at the next start */
    await(&shop, running, STATE_RUNNING);
    assert_int_equal(store_cancel(store, running, &was_running, NULL), 0);
    pool_cancel(shop.pool, running, STOP_CANCEL);
    await(&shop, waiting, STATE_SUCCEEDED);
    close_shop(&shop);
    assert_int_equal(count_entries(shop.place->dir, "/checkpoints"), 0);
}

static void memory_for_one_at_a_time(void **state) {
    struct shop shop;
    char first[ID_SIZE], second[ID_SIZE], small[ID_SIZE];
    int was_running;
    open_shop(&shop, state, 3, 100);
    struct store *store = shop.place->store;
    submit(&shop, ENDLESS(""), 60, first);
    await(&shop, first, STATE_RUNNING);
    submit(&shop, SHORT("1"), 60, second);
    submit(&shop, SHORT("1"), 1, small); /* fits beside it, and does not wait */
    await(&shop, small, STATE_SUCCEEDED);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(state_of(store, second), STATE_QUEUED);
        assert_int_equal(pool_running(shop.pool), 1);
        sleep_ms(10);
        pool_wake(shop.pool);
    }
    assert_int_equal(store_cancel(store, first, &was_running, NULL), 0);
    pool_cancel(shop.pool, first, STOP_CANCEL);
    await(&shop, second, STATE_SUCCEEDED);
    close_shop(&shop);
}

/* The end of one wakes as many as now fit. */
static void three_fit_side_by_side(void **state) {
    struct shop shop;
    char big[ID_SIZE], ids[3][ID_SIZE];
    int was_running;
    open_shop(&shop, state, 3, 100);
    submit(&shop, ENDLESS(""), 100, big);
    await(&shop, big, STATE_RUNNING);
    for (int i = 0; i < 3; i++)
        submit(&shop, ENDLESS(""), 33, ids[i]);
    sleep_ms(50);
    assert_int_equal(pool_running(shop.pool), 1);
    assert_int_equal(store_cancel(shop.place->store, big, &was_running, NULL), 0);
    pool_cancel(shop.pool, big, STOP_CANCEL);
    await_running(&shop, 3);
    for (int i = 0; i < 3; i++) {
        await(&shop, ids[i], STATE_RUNNING);
        assert_int_equal(store_cancel(shop.place->store, ids[i], &was_running, NULL), 0);
        pool_cancel(shop.pool, ids[i], STOP_CANCEL);
    }
    await_running(&shop, 0);
    close_shop(&shop);
}

static void the_size_of_a_team(void **state) {
    (void)state;
    const double plenty = 1e12;
    assert_int_equal(team_size_for(8, 0, 64, plenty), 8); /* alone: all idle cores */
    assert_int_equal(team_size_for(5, 0, 64, plenty), 5);
    assert_int_equal(team_size_for(8, 1, 64, plenty), 4); /* in equal shares with those that wait */
    assert_int_equal(team_size_for(8, 2, 64, plenty), 2);
    assert_int_equal(team_size_for(8, 7, 64, plenty), 1);
    assert_int_equal(team_size_for(8, 1000, 64, plenty), 1);
    assert_int_equal(team_size_for(8, 0, 3, plenty), 3); /* no more than shards */
    assert_int_equal(team_size_for(8, 0, 1, plenty), 1);
    assert_int_equal(team_size_for(TEAM_MAX + 1, 0, 1000, plenty), TEAM_MAX);
    assert_int_equal(team_size_for(8, 0, 64, 4e7), 4); /* no more than have enough to do */
    assert_int_equal(team_size_for(8, 0, 64, 1.9e7), 1);
    assert_int_equal(team_size_for(8, 0, 64, 0), 1);
    assert_int_equal(team_size_for(0, 0, 64, plenty), 1); /* no less than one */
    assert_int_equal(team_size_for(-3, 0, 64, plenty), 1);
}

/* Leaves its threads to the pool, and ends only when it is told to. */
#define AUTO(hidden)                                                                               \
    "{" SPHERE "\"model\":{\"kind\":\"mlp\",\"hidden\":[" hidden                                   \
    "]},\"training\":{\"epochs\":100000}}"
#define SMALL AUTO("100")
#define BIG AUTO("8192")

/* Until its team has so many members. */
static void await_threads(struct shop *shop, const char *id, int wanted) {
    struct progress p;
    await(shop, id, STATE_RUNNING);
    for (int waited = 0;; waited += 5) {
        assert_int_equal(pool_progress(shop->pool, id, &p), 1);
        if (p.threads == wanted && p.epoch >= 1)
            return;
        if (waited > PATIENCE_MS)
            fail_msg("%d threads, not %d", p.threads, wanted);
        sleep_ms(5);
    }
}

static void cancel(struct shop *shop, const char *id) {
    int was_running;
    assert_int_equal(store_cancel(shop->place->store, id, &was_running, NULL), 0);
    pool_cancel(shop->pool, id, STOP_CANCEL);
}

/* A lone big job gets all cores, and who comes later does not wait for its end: cores are handed
 * back, and taken again when he has gone. */
static void a_big_job_takes_all_cores(void **state) {
    struct shop shop;
    char big[ID_SIZE], next[ID_SIZE];
    open_shop(&shop, state, 2, 100);
    submit(&shop, BIG, 1, big);
    await_threads(&shop, big, 2);
    submit(&shop, BIG, 1, next);
    await_threads(&shop, next, 1);
    await_threads(&shop, big, 1);
    cancel(&shop, big);
    await_threads(&shop, next, 2);
    cancel(&shop, next);
    close_shop(&shop);
}

static void two_small_jobs_have_a_core_each(void **state) {
    struct shop shop;
    char ids[2][ID_SIZE];
    open_shop(&shop, state, 2, 100);
    for (int i = 0; i < 2; i++) {
        submit(&shop, SMALL, 1, ids[i]);
        await_threads(&shop, ids[i], 1);
    }
    for (int i = 0; i < 2; i++)
        cancel(&shop, ids[i]);
    close_shop(&shop);
}

static void big_jobs_that_wait_share(void **state) {
    struct shop shop;
    char ids[2][ID_SIZE];
    for (int i = 0; i < 2; i++)
        enqueue(((struct place *)*state)->store,
                &(struct new_experiment){.spec = BIG, .memory_bytes = 1}, ids[i]);
    open_shop(&shop, state, 2, 100);
    for (int i = 0; i < 2; i++)
        await_threads(&shop, ids[i], 1);
    for (int i = 0; i < 2; i++)
        cancel(&shop, ids[i]);
    close_shop(&shop);
}

static void cores_are_shared_equally(void **state) {
    (void)state;
    static const struct {
        int cores, n, most[4], size[4];
    } cases[] = {
        {8, 1, {8}, {8}},
        {8, 2, {8, 8}, {4, 4}},
        {8, 3, {8, 8, 8}, {3, 3, 2}},
        {8, 3, {1, 8, 2}, {1, 5, 2}}, /* what one can't use goes to the others */
        {2, 4, {8, 8, 8, 8}, {1, 1, 1, 1}},
        {64, 2, {3, 1}, {3, 1}},
        {-3, 1, {4}, {1}},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        int size[4] = {0};
        share_cores(cases[i].cores, cases[i].most, size, (size_t)cases[i].n);
        assert_memory_equal(size, cases[i].size, sizeof size);
    }
}

/* Threads that a spec asks for are as many as it says, whoever else is at work. */
static void threads_of_the_spec_stand(void **state) {
    struct shop shop;
    char ids[2][ID_SIZE];
    open_shop(&shop, state, 2, 100);
    for (int i = 0; i < 2; i++) {
        submit(&shop,
               "{" SPHERE ENCODER "\"probe\":null,\"training\":{\"epochs\":100000,\"threads\":3}}",
               1, ids[i]);
        await_threads(&shop, ids[i], 3);
    }
    for (int i = 0; i < 2; i++)
        cancel(&shop, ids[i]);
    close_shop(&shop);
}

/* Epochs of a job that runs come with the ticks, those of its end without. */
static void epochs_are_seen_soon(void **state) {
    struct shop shop;
    char endless[ID_SIZE], ends[ID_SIZE];
    struct progress p = {0};
    open_shop(&shop, state, 2, 100);
    submit(&shop, ENDLESS(""), 1, endless);
    await(&shop, endless, STATE_RUNNING);
    while (p.epoch < 2) {
        assert_int_equal(pool_progress(shop.pool, endless, &p), 1);
        sleep_ms(1);
    }
    for (int waited = 0; look_into(shop.place->store, endless).n_digests == 0; waited += 10) {
        assert_true(waited < 1000);
        pool_tick(shop.pool);
        sleep_ms(10);
    }
    submit(&shop, SHORT("1"), 1, ends);
    while (state_of(shop.place->store, ends) != STATE_SUCCEEDED)
        sleep_ms(1);
    assert_int_equal(look_into(shop.place->store, ends).n_digests, 3);
    cancel(&shop, endless);
    close_shop(&shop);
}

/* While a job's weights are written, the next one computes, though there is one worker. */
static void the_disk_keeps_no_core(void **state) {
    struct shop shop;
    char first[ID_SIZE], second[ID_SIZE];
    struct store *store = ((struct place *)*state)->store;
    struct new_experiment heavy = {.spec =
                                       "{" SPHERE "\"model\":{\"kind\":\"mlp\",\"hidden\":[65536]},"
                                       "\"training\":{\"epochs\":1,\"threads\":1}}",
                                   .memory_bytes = 1};
    enqueue(store, &heavy, first);
    enqueue(store, &(struct new_experiment){.spec = SHORT("1"), .memory_bytes = 1}, second);
    open_shop(&shop, state, 1, 100);
    await(&shop, first, STATE_SUCCEEDED);
    await(&shop, second, STATE_SUCCEEDED);
    struct experiment a = look_up(store, first), b = look_up(store, second);
    assert_true(b.started_at > a.started_at && b.started_at < a.finished_at);
    experiment_release(&a);
    experiment_release(&b);
    close_shop(&shop);
}

static void jobs_wait_before_the_pool_starts(void **state) {
    struct shop shop;
    char ids[4][ID_SIZE];
    for (size_t i = 0; i < COUNT(ids); i++)
        enqueue(((struct place *)*state)->store,
                &(struct new_experiment){.spec = SHORT("1"), .memory_bytes = 1}, ids[i]);
    open_shop(&shop, state, 3, 100);
    for (size_t i = 0; i < COUNT(ids); i++)
        await(&shop, ids[i], STATE_SUCCEEDED);
    assert_int_equal(count_entries(shop.place->dir, "/experiments"), COUNT(ids));
    close_shop(&shop);
}

/* Ends both ends of a search behind the pool's back, as a daemon does that dies right then. */
static void post_search(struct store *store, char id[ID_SIZE]) {
    struct admission admission = {store, 1 << 30, 2, 1e10};
    struct sweep_plan plan;
    struct ovr_err err = {0};
    json_t *faults = json_array(), *warnings = json_array();
    json_t *document = json_loads("{\"base\":" SHORT("1") ",\"target_sparsity\":{\"near_zero\":0.7,"
                                                          "\"points\":3}}",
                                  0, NULL);
    int repeated, waiting;
    assert_ok(sweep_plan_read(document, &admission, &plan, faults, warnings, &err), &err);
    assert_ok(store_add_sweep(store, &plan.sweep, id, &repeated, &err), &err);
    sweep_plan_release(&plan);
    json_decref(document);
    json_decref(faults);
    json_decref(warnings);
    for (int i = 0; i < 2; i++) {
        struct experiment e;
        struct figure figure = {.name = "sparsity.near_zero", .real = i ? 0.9 : 0.3};
        struct outcome outcome = {.state = STATE_SUCCEEDED, .result = &figure, .n_result = 1};
        assert_ok(store_claim(store, INT64_MAX, &e, &waiting, &err), &err);
        assert_ok(store_finish(store, e.seq, &outcome, &err), &err);
        experiment_release(&e);
    }
}

static void a_search_is_taken_up_at_start(void **state) {
    struct shop shop;
    struct sweep sweep;
    char id[ID_SIZE];
    struct ovr_err err = {0};
    post_search(((struct place *)*state)->store, id);
    open_shop(&shop, state, 1, 1 << 30);
    for (int waited = 0;; waited += 5) {
        assert_ok(store_read_sweep(shop.place->store, id, &sweep, &(struct sweep_reader){0}, &err),
                  &err);
        enum state now = sweep_state(&sweep);
        int points = sweep.points;
        sweep_release(&sweep);
        if (now == STATE_SUCCEEDED && points == 3)
            break;
        assert_int_equal(now, STATE_RUNNING);
        assert_true(waited < PATIENCE_MS);
        pool_tick(shop.pool);
        sleep_ms(5);
    }
    close_shop(&shop);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        with_store(a_job_succeeds),
        with_store(an_mlp_succeeds),
        with_store(the_same_bits_for_any_number_of_threads),
        with_store(progress_and_cancel),
        with_store(cancelled_in_the_store_alone),
        with_store(a_time_limit),
        with_store(failures_have_a_reason),
        with_store(a_pool_that_nobody_ticks_is_stuck),
        with_store(a_place_that_cannot_be_written),
        with_store(shutdown_puts_jobs_back),
        with_store(memory_for_one_at_a_time),
        with_store(three_fit_side_by_side),
        cmocka_unit_test(the_size_of_a_team),
        with_store(a_big_job_takes_all_cores),
        with_store(two_small_jobs_have_a_core_each),
        with_store(big_jobs_that_wait_share),
        cmocka_unit_test(cores_are_shared_equally),
        with_store(threads_of_the_spec_stand),
        with_store(epochs_are_seen_soon),
        with_store(the_disk_keeps_no_core),
        with_store(jobs_wait_before_the_pool_starts),
        with_store(a_search_is_taken_up_at_start),
    };
    return cmocka_run_group_tests_name("server/pool", tests, start_blas, NULL);
}
