/* Every allocation of a whole run fails in turn: always a clear error, never a crash or a leak (the
 * latter under AddressSanitizer). */
#include "core/train.h"
#include "tests/core/check.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* This program's own aligned_alloc(), calloc() and mmap(), which all of core/ allocates with: they
 * fail when the countdown is over. Only in the thread that tests, which allocates for its whole
 * team. */
static _Thread_local long countdown = -1; /* allocations until one fails; negative: none fails */

static int fails(void) {
    if (countdown < 0 || countdown-- > 0)
        return 0;
    errno = ENOMEM;
    return 1;
}

void *aligned_alloc(size_t alignment, size_t size) {
    void *p;
    return fails() || posix_memalign(&p, alignment, size) ? NULL : p;
}

/* Not under ThreadSanitizer, which calls these where it or a thread begins and needs its own. */
#ifndef __SANITIZE_THREAD__
void *calloc(size_t n, size_t size) {
    size_t bytes;
    if (__builtin_mul_overflow(n, size, &bytes) || fails())
        return NULL;
    volatile char *p = malloc(bytes); /* volatile: or the compiler makes this a call of calloc() */
    for (size_t i = 0; p && i < bytes; i++)
        p[i] = 0;
    return (void *)p;
}
void *mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset) {
    return fails() ? MAP_FAILED
                   : (void *)syscall(SYS_mmap, at, bytes, protection, flags, fd, offset);
}
#endif

static int ignore_report(void *context, const struct epoch_report *report, struct ovr_err *err) {
    (void)context;
    (void)report;
    (void)err;
    return 0;
}

/* A run whose n-th allocation fails, the team's own counted. */
static int run(const struct train_config *config, const struct samples *train,
               const struct samples *test, long n, struct ovr_err *err) {
    struct train_progress progress = {0};
    const struct train_hooks hooks = {.progress = &progress, .epoch = ignore_report};
    struct train_result result = {0};
    struct team *team;
    countdown = n;
    int rc = team_new(&team, 3, err);
    if (!rc)
        rc = prepare_and_train(config, train, test, team, &hooks, &result, err);
    countdown = -1;
    train_result_release(&result);
    team_free(team);
    return rc;
}

/* pthread_create() allocates as well. */
static int is_about_threads(const struct ovr_err *err) {
    return !strcmp(err->field, "threads");
}

static void check_run(const struct train_config *config) {
    struct samples train = new_samples(60, 6, 3, 1), test = new_samples(20, 6, 3, 3);
    int rc = OVR_NOMEM;
    long failures = 0;
    for (long n = 0; rc; n++) {
        struct ovr_err err = {0};
        rc = run(config, &train, &test, n, &err);
        if (!rc)
            break;
        assert_failed(rc, OVR_NOMEM, &err,
                      is_about_threads(&err) ? "could not start" : "not enough memory");
        failures++;
    }
    assert_in_range(failures, 15, 500); /* as many as a run allocates */
    samples_release(&train);
    samples_release(&test);
}

static struct train_config small_config(enum model_kind kind, enum protocol protocol) {
    const struct optimizer_config adam = {OPT_ADAM, 1e-3, 0.9, 0.999, 1e-7, 0, 0};
    return (struct train_config){
        .kind = kind,
        .hidden = {140},
        .n_hidden = 1,
        .init_scale = 0.05,
        .ovr = {.lambda = 1e-3},
        .optimizer = adam,
        .epochs = 1,
        .batch_size = 16,
        .data = {.protocol = protocol,
                 .validation = 0.2,
                 .preprocess = {{.kind = PREPROCESS_STANDARDIZE},
                                {PREPROCESS_PCA, .components = 4}},
                 .n_preprocess = 2},
        .probe = 1,
        .probe_config = {.epochs = 1, .batch_size = 16, .optimizer = adam}};
}

static void every_allocation_of_an_encoder(void **state) {
    (void)state;
    struct train_config config = small_config(MODEL_OVR_ENCODER, PROTOCOL_CLEAN);
    check_run(&config);
}

static void every_allocation_of_an_mlp(void **state) {
    (void)state;
    struct train_config config = small_config(MODEL_MLP, PROTOCOL_PUBLISHED);
    check_run(&config);
}

static void every_allocation_of_an_autoencoder(void **state) {
    (void)state;
    struct train_config config = small_config(MODEL_AUTOENCODER, PROTOCOL_CLEAN);
    config.corruption = CORRUPTION_MASKING;
    config.corruption_amount = 0.5;
    config.f.kind = ACT_TOP_K;
    config.top_k = 7;
    check_run(&config);
    config.tied = 1;
    config.f.kind = ACT_SIGMOID;
    config.kl = config.contractive = 0.1;
    config.kl_target = 0.1;
    check_run(&config);
}

static void every_allocation_of_deep_nets(void **state) {
    (void)state;
    struct train_config config = small_config(MODEL_MLP, PROTOCOL_PUBLISHED);
    config.n_hidden = 3;
    config.hidden[1] = 10;
    config.hidden[2] = 130;
    config.dropout[0] = config.dropout[1] = 0.5;
    check_run(&config);
    config = small_config(MODEL_OVR_ENCODER, PROTOCOL_CLEAN);
    config.n_hidden = 2;
    config.hidden[1] = 10;
    config.batching = BATCHING_SINGLE_CLASS;
    check_run(&config);
}

static void every_allocation_of_the_loss(void **state) {
    (void)state;
    real *h = new_activations(3 * 5, 1), gradient[3 * 5];
    int rc = OVR_NOMEM;
    for (long n = 0; rc; n++) {
        struct ovr_err err = {0};
        double loss;
        countdown = n;
        rc = ovr_loss(kernels_get(ISA_AUTO), OVR_COSINE, 3, 5, h, &loss, gradient, NULL, &err);
        countdown = -1;
        assert_int_equal(rc, n < 4 ? OVR_NOMEM : 0);
    }
    free(h);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_allocation_of_an_encoder),
        cmocka_unit_test(every_allocation_of_an_mlp),
        cmocka_unit_test(every_allocation_of_an_autoencoder),
        cmocka_unit_test(every_allocation_of_deep_nets),
        cmocka_unit_test(every_allocation_of_the_loss),
    };
    return cmocka_run_group_tests_name("core/chaos", tests, start_blas, NULL);
}
