/* What a rank needs in memory is what the estimate says. Ranks are processes here, each a copy of
 * this one, which meet in memory that they share. */
#include "core/ranks.h"
#include "tests/core/check.h"

#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { RANKS = 4, CHUNK = 1 << 14, N_TRAIN = 2000, N_TEST = 600, CLASSES = 10 };

static const struct optimizer_config adam = {
    .name = OPT_ADAM, .learning_rate = 1e-4, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-7};

static struct train_config wide_config(enum model_kind kind, size_t n_units) {
    return (struct train_config){.kind = kind,
                                 .hidden = {n_units},
                                 .n_hidden = 1,
                                 .init = INIT_GLOROT,
                                 .ovr = {.lambda = 1e-5},
                                 .optimizer = adam,
                                 .epochs = 1,
                                 .batch_size = 128,
                                 .seed = 5};
}

#if !defined __SANITIZE_ADDRESS__ && !defined __SANITIZE_THREAD__
/* What the ranks have for each other, a chunk at a time. */
struct hall {
    pthread_barrier_t barrier;
    _Atomic int more[RANKS];
    size_t peak[RANKS];
    char chunk[RANKS][RANKS][CHUNK]; /* from, to */
};

struct seat {
    struct hall *hall;
    struct ranks ranks;
};

/* Bytes at .. of a span that fit into a chunk. */
static size_t chunk_of(const struct span *span, size_t size, size_t at) {
    size_t bytes = span->n * size;
    return bytes > at ? min_size(bytes - at, CHUNK) : 0;
}

static void exchange(void *context, const void *send, const struct span *sends, void *receive,
                     const struct span *receives, size_t size) {
    const struct seat *seat = context;
    struct hall *hall = seat->hall;
    const int own = seat->ranks.rank, n = seat->ranks.size;
    int more = 1;
    for (size_t at = 0; more; at += CHUNK) {
        more = 0;
        hall->more[own] = 0;
        for (int to = 0; to < n; to++) {
            size_t bytes = chunk_of(&sends[to], size, at);
            if (bytes)
                memcpy(hall->chunk[own][to], (const char *)send + sends[to].first * size + at,
                       bytes);
            if (sends[to].n * size > at + CHUNK)
                hall->more[own] = 1;
        }
        pthread_barrier_wait(&hall->barrier);
        for (int from = 0; from < n; from++) {
            more |= hall->more[from];
            size_t bytes = chunk_of(&receives[from], size, at);
            if (bytes)
                memcpy((char *)receive + receives[from].first * size + at, hall->chunk[from][own],
                       bytes);
        }
        pthread_barrier_wait(&hall->barrier);
    }
}

static void gather(void *context, void *array, size_t size, const struct span *spans) {
    const struct seat *seat = context;
    struct span sends[RANKS], receives[RANKS];
    for (int rank = 0; rank < seat->ranks.size; rank++) {
        const int other = rank != seat->ranks.rank;
        sends[rank] = other ? spans[seat->ranks.rank] : (struct span){0, 0};
        receives[rank] = other ? spans[rank] : (struct span){0, 0};
    }
    exchange(context, array, sends, array, receives, size);
}

/* In each round of a sum all have a partner, so they can go through it together. Parts and ranks
 * are such that there is one span each way. */
static void swap(void *context, int partner, void *array, size_t size, const struct span *sends,
                 size_t n_sends, const struct span *receives, size_t n_receives) {
    struct span to[RANKS] = {0}, from[RANKS] = {0};
    if (n_sends != 1 || n_receives != 1)
        abort();
    to[partner] = *sends;
    from[partner] = *receives;
    exchange(context, array, to, array, from, size);
}

static int ignore_report(void *context, const struct epoch_report *report, struct ovr_err *err) {
    (void)context;
    (void)report;
    (void)err;
    return 0;
}

static int ignore_rows(void *context, const struct net_rows *rows) {
    size_t *numbers = context;
    *numbers += rows->n * rows->stride;
    return 0;
}

/* A rank's process; 0 when all went well. */
static int train_rank(struct hall *hall, int rank, int ranks, const struct train_config *config,
                      const struct samples *train, const struct samples *test) {
    struct seat seat = {hall, {rank, ranks, &seat, gather, exchange, swap, 0, 0}};
    struct train_progress progress = {0};
    struct train_hooks hooks = {NULL, NULL, &progress, ignore_report};
    struct train_result result;
    struct ovr_err err = {0};
    size_t numbers = 0;
    forget_peak();
    size_t before = memory_status("VmRSS");
    struct team *team = new_team(1);
    if (ranks > 1)
        team_join(team, &seat.ranks);
    int rc = prepare_and_train(config, train, test, team, &hooks, &result, &err);
    if (!rc)
        rc = net_stream(team, &result.net, result.best, ignore_rows, &numbers, &err);
    hall->peak[rank] = memory_status("VmHWM") - before;
    if (rc)
        print_error("rank %d: %s\n", rank, err.text);
    return rc || numbers != (rank ? 0 : result.net.n_params);
}

static size_t measure_peak(const struct train_config *config, int ranks,
                           const struct samples *train, const struct samples *test) {
    struct hall *hall =
        mmap(NULL, sizeof *hall, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pthread_barrierattr_t shared;
    pid_t pids[RANKS];
    size_t peak = 0;
    assert_true(hall != MAP_FAILED);
    assert_int_equal(pthread_barrierattr_init(&shared), 0);
    assert_int_equal(pthread_barrierattr_setpshared(&shared, PTHREAD_PROCESS_SHARED), 0);
    assert_int_equal(pthread_barrier_init(&hall->barrier, &shared, (unsigned)ranks), 0);
    fflush(NULL);
    for (int rank = 0; rank < ranks; rank++) {
        pids[rank] = fork();
        assert_true(pids[rank] >= 0);
        if (pids[rank] == 0)
            _exit(train_rank(hall, rank, ranks, config, train, test));
    }
    for (int rank = 0; rank < ranks; rank++) {
        int status;
        assert_int_equal(waitpid(pids[rank], &status, 0), pids[rank]);
        assert_int_equal(status, 0);
        peak = hall->peak[rank] > peak ? hall->peak[rank] : peak;
    }
    munmap(hall, sizeof *hall);
    return peak;
}

/* The samples are there before, so that they count as data of no bytes. */
static void check_memory(const struct train_config *config, size_t d) {
    struct samples train = new_samples(N_TRAIN, d, CLASSES, 50);
    struct samples test = new_samples(N_TEST, d, CLASSES, 60);
    const struct train_data data = {N_TRAIN, N_TEST, d, CLASSES, 0, 0};
    malloc_trim(0);
    for (int ranks = 1; ranks <= RANKS; ranks *= 2) {
        const struct crew crew = {1, ranks};
        struct train_estimate estimate = train_estimate(config, &data, &crew);
        size_t peak = measure_peak(config, ranks, &train, &test);
        double ratio = (double)estimate.memory_bytes / (double)peak;
        print_message("# %d ranks: estimated %.1f MB, peak %.1f MB\n", ranks,
                      (double)estimate.memory_bytes / 1e6, (double)peak / 1e6);
        if (ratio < 1 / 1.2 || ratio > 1.2)
            fail_msg("estimated memory of %d ranks is %.2f of the peak", ranks, ratio);
        assert_int_equal(train_ranks_within(config, &data, 1, estimate.memory_bytes), ranks);
        if (ranks > 1)
            assert_true(train_ranks_within(config, &data, 1, estimate.memory_bytes - 1) != ranks);
    }
    assert_int_equal(train_ranks_within(config, &data, 1, 1 << 20), 0);
    samples_release(&train);
    samples_release(&test);
}

static void memory_of_encoders(void **state) {
    (void)state;
    struct train_config config = wide_config(MODEL_OVR_ENCODER, 8192);
    config.probe = 1;
    config.probe_config = (struct probe_config){.epochs = 1, .batch_size = 32, .optimizer = adam};
    check_memory(&config, 800);
}

static void memory_of_what_stands_on_top(void **state) {
    (void)state;
    struct train_config config = wide_config(MODEL_MLP, 8192);
    check_memory(&config, 600);
    config = wide_config(MODEL_AUTOENCODER, 4096);
    check_memory(&config, 800);
}

static void memory_of_centroids(void **state) {
    (void)state;
    struct train_config config = wide_config(MODEL_KMEANS, 1900);
    config.f.kind = ACT_TRIANGLE;
    config.init = INIT_SAMPLES;
    config.ovr.lambda = 0;
    check_memory(&config, 1500);
}
#endif

/* The largest share decides: of five blocks of units two ranks have two and three. */
static void shares_of_the_work(void **state) {
    (void)state;
    const struct train_data data = {1000, 100, 50, CLASSES, 0, 0};
    struct train_config config = wide_config(MODEL_OVR_ENCODER, 2560);
    const struct crew one = {1, 1}, two = {1, 2};
    struct train_estimate whole = train_estimate(&config, &data, &one);
    struct train_estimate share = train_estimate(&config, &data, &two);
    assert_relative(share.flops_per_epoch, 0.6 * whole.flops_per_epoch, 1e-12);
    assert_int_equal(share.parameters, whole.parameters);
    config.n_hidden = 2;
    config.hidden[1] = 2560;
    assert_int_equal(train_ranks_within(&config, &data, 1, UINT64_MAX), 1);
    assert_int_equal(train_ranks_within(&config, &data, 1, 1), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
#if !defined __SANITIZE_ADDRESS__ && !defined __SANITIZE_THREAD__
        cmocka_unit_test(memory_of_encoders),
        cmocka_unit_test(memory_of_what_stands_on_top),
        cmocka_unit_test(memory_of_centroids),
#endif
        cmocka_unit_test(shares_of_the_work),
    };
    return cmocka_run_group_tests_name("core/rank_memory", tests, start_blas, NULL);
}
