/* What the core's tests share: near-equality, random numbers, teams, samples and codes made by
 * hand.
 *
 * Included by the tests of both builds, so everything is `static inline` and in terms of `real`.
 */
#ifndef TESTS_CORE_CHECK_H
#define TESTS_CORE_CHECK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/code.h"
#include "core/linalg.h"
#include "core/net.h"
#include "core/rng.h"
#include "core/samples.h"
#include "core/train.h"

#include <math.h>
#include <stdio.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* The teams that must all give the same bits. */
static const int TEAM_SIZES[] = {1, 2, 3, 7};

/* |actual − expected| ≤ tolerance. NaN is never near anything. */
#define assert_near(actual, expected, tolerance)                                                   \
    check_near((actual), (expected), (tolerance), #actual, __FILE__, __LINE__)

static inline void check_near(double actual, double expected, double tolerance, const char *what,
                              const char *file, int line) {
    if (fabs(actual - expected) <= tolerance || actual == expected)
        return;
    print_error("%s is %.17g, not %.17g ± %g\n", what, actual, expected, tolerance);
    _fail(file, line);
}

/* The same with a tolerance relative to what is expected. */
#define assert_relative(actual, expected, tolerance)                                               \
    check_near((actual), (expected), (tolerance)*fabs(expected), #actual, __FILE__, __LINE__)

/* Whether a call succeeded; prints its error where it did not. */
#define assert_ok(rc, err) check_ok((rc), (err), #rc, __FILE__, __LINE__)

static inline void check_ok(int rc, const struct ovr_err *err, const char *what, const char *file,
                            int line) {
    if (!rc && !err->code)
        return;
    print_error("%s: %d %s: %s\n", what, rc, err->field, err->text);
    _fail(file, line);
}

/* Whether a call failed with `code`, left it in `err` as well, and says `part` in its text. */
#define assert_failed(rc, expected, err, part)                                                     \
    check_failed((rc), (expected), (err), (part), #rc, __FILE__, __LINE__)

static inline void check_failed(int rc, int code, const struct ovr_err *err, const char *part,
                                const char *what, const char *file, int line) {
    if (rc == code && err->code == code && strstr(err->text, part))
        return;
    print_error("%s: %d (not %d), the text \"%s\" should have \"%s\"\n", what, rc, code, err->text,
                part);
    _fail(file, line);
}

/* ‖a − b‖ / ‖b − origin‖: how far two ways to the same place are apart, in terms of the way.
 * `origin` NULL: 0. */
static inline double distance(size_t n, const real *a, const double *b, const double *origin) {
    double apart = 0, way = 0;
    for (size_t i = 0; i < n; i++) {
        apart += (a[i] - b[i]) * (a[i] - b[i]);
        way += origin ? (b[i] - origin[i]) * (b[i] - origin[i]) : b[i] * b[i];
    }
    return sqrt(apart / way);
}

/* A test's own streams: the purposes of rng.h are all below 1000. */
static inline struct rng test_stream(uint32_t index) {
    struct rng rng;
    rng_init(&rng, 20190308, (enum rng_purpose)1000, 0, index);
    return rng;
}

static inline real *new_reals(size_t n) {
    real *x = ovr_calloc(n, sizeof *x);
    assert_non_null(x);
    return x;
}

static inline real *new_normal(size_t n, uint32_t index) {
    struct rng rng = test_stream(index);
    real *x = new_reals(n);
    for (size_t i = 0; i < n; i++)
        x[i] = (real)rng_normal(&rng);
    return x;
}

/* Like activations: half of them exactly 0, the others positive. */
static inline real *new_activations(size_t n, uint32_t index) {
    real *h = new_normal(n, index);
    for (size_t i = 0; i < n; i++)
        h[i] = h[i] > 0 ? h[i] : 0;
    return h;
}

static inline uint16_t *new_labels(size_t n, size_t n_classes, uint32_t index) {
    struct rng rng = test_stream(index);
    uint16_t *labels = malloc((n ? n : 1) * sizeof *labels);
    assert_non_null(labels);
    for (size_t i = 0; i < n; i++)
        labels[i] = (uint16_t)rng_below(&rng, (uint32_t)n_classes);
    return labels;
}

/* n×d normal values, with labels where n_classes > 0. Released by samples_release(). */
static inline struct samples new_samples(size_t n, size_t d, size_t n_classes, uint32_t index) {
    return (struct samples){.n = n,
                            .d = d,
                            .n_classes = n_classes,
                            .values = new_normal(n * d, index),
                            .labels = n_classes ? new_labels(n, n_classes, index + 1) : NULL};
}

static inline struct team *new_team(int size) {
    struct ovr_err err = {0};
    struct team *team;
    assert_ok(team_new(&team, size, &err), &err);
    return team;
}

/* A net with an arena of its own. */
struct test_net {
    struct net net; /* first, so that a pointer to it is one to the whole */
    struct arena arena;
};

static inline struct net *new_net(const struct net_config *config, size_t moments, size_t max_rows,
                                  int members) {
    struct ovr_err err = {0};
    struct arena counting = {0};
    struct test_net *test = calloc(1, sizeof *test);
    const struct kernels *kernels = kernels_get(ISA_AUTO);
    assert_non_null(test);
    net_place(&test->net, config, kernels, moments, max_rows, &(struct crew){members, 1},
              &counting);
    assert_ok(arena_open(&test->arena, counting.used, &err), &err);
    net_place(&test->net, config, kernels, moments, max_rows, &(struct crew){members, 1},
              &test->arena);
    assert_int_equal(test->arena.used, counting.used);
    return &test->net;
}

static inline void free_net(struct net *net) {
    struct test_net *test = (struct test_net *)net;
    arena_close(&test->arena);
    free(test);
}

/* A net whose activations are what it is given, if that is not negative: W is the identity. */
static inline struct net *new_mirror(size_t n_units, size_t max_rows, int members) {
    struct net_config config = {.n_inputs = n_units, .n_layers = 1, .units = {n_units}};
    struct net *net = new_net(&config, 0, max_rows, members);
    for (size_t k = 0; k < n_units; k++)
        net_weight(net, 0)[k * n_units + k] = 1;
    return net;
}

/* What one member does in new_code(). */
struct encoding {
    struct net *net;
    struct code *code;
    const real *h;
    _Atomic int rc;
};

static inline void encode_blocks(struct member *member, void *arg) {
    struct encoding *e = arg;
    for (size_t first = 0; first < e->code->n; first += CODE_BLOCK) {
        size_t n = min_size(CODE_BLOCK, e->code->n - first);
        struct batch batch = {.x = e->h + first * e->code->n_units, .n = n, .group = n};
        net_forward(member, e->net, &batch);
        struct activations activations = net_activations(e->net);
        int rc = code_add(member, e->code, &activations, first, n);
        if (rc)
            e->rc = rc;
    }
}

/* The code of n samples whose activations are h (n×n_units, not negative). `labels` stay the
 * caller's. */
static inline struct code *new_code(struct team *team, const real *h, size_t n, size_t n_units,
                                    const uint16_t *labels) {
    struct ovr_err err = {0};
    struct encoding e = {.net = new_mirror(n_units, CODE_BLOCK, team_size(team)), .h = h};
    assert_ok(code_new(&e.code, n, n_units, labels, &err), &err);
    team_run(team, encode_blocks, &e);
    assert_int_equal(e.rc, 0);
    free_net(e.net);
    return e.code;
}

/* Prepares the data in memory and trains on them. */
/* A line of /proc/self/status, in bytes. */
static inline size_t memory_status(const char *name) {
    char line[256];
    unsigned long kib = 0;
    FILE *file = fopen("/proc/self/status", "r");
    assert_non_null(file);
    while (fgets(line, sizeof line, file))
        if (strncmp(line, name, strlen(name)) == 0)
            assert_int_equal(sscanf(line + strlen(name), ": %lu", &kib), 1);
    fclose(file);
    return kib * 1024;
}

/* From now on the peak counts anew. */
static inline void forget_peak(void) {
    FILE *file = fopen("/proc/self/clear_refs", "w");
    assert_non_null(file);
    assert_true(fputs("5", file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static inline int prepare_and_train(const struct train_config *config, const struct samples *train,
                                    const struct samples *test, struct team *team,
                                    const struct train_hooks *hooks, struct train_result *result,
                                    struct ovr_err *err) {
    struct prepared *data;
    int rc = prepared_build(&data, &config->data, config->seed, train, test, team,
                            kernels_get(ISA_AUTO), -1, hooks->stop, err);
    *result = (struct train_result){0};
    if (!rc)
        rc = train_run(config, data, team, kernels_get(ISA_AUTO), hooks, result, err);
    result->preprocess = NULL; /* was borrowed */
    prepared_free(data);
    return rc;
}

/* Group set-up for whatever multiplies matrices: BLAS with one thread, as in the daemon. */
static inline int start_blas(void **state) {
    (void)state;
    struct ovr_err err = {0};
    assert_ok(linalg_init(&err), &err);
    return 0;
}

#endif
