/* Where experiments run and in how many ranks, by what they need and what the cluster gives. */
#include "server/placement.h"
#include "tests/server/check.h"

#include <jansson.h>

static const int64_t GIB = 1ll << 30;

/* A machine of 4 GiB and a cluster of as much for each rank. */
static struct admission lab(void) {
    return (struct admission){
        .memory_bytes = 4 * GIB,
        .cores = 4,
        .flops_per_second = 1e10,
        .cluster = {.there = 1, .cores = 8, .rank_bytes = 4 * GIB},
    };
}

static struct spec encoder(size_t n_units) {
    struct spec spec = {.generated = 1, .executor = EXECUTOR_AUTO};
    spec.train = (struct train_config){
        .kind = MODEL_OVR_ENCODER,
        .n_hidden = 1,
        .hidden = {n_units},
        .f = {.kind = ACT_RELU},
        .epochs = 10,
        .batch_size = 128,
        .optimizer = {.name = OPT_ADAM, .learning_rate = 0.001},
        .data = {.protocol = PROTOCOL_PUBLISHED},
    };
    return spec;
}

/* Of so many values. */
static struct train_data data_of(size_t n_values) {
    return (struct train_data){.n_train = 2000,
                               .n_test = 500,
                               .n_values = n_values,
                               .n_classes = 10,
                               .bytes = 2500 * n_values * sizeof(real)};
}

enum { VALUES = 1000 };

/* "local 1", "slurm 4", or the pointer and text of what is wrong. */
static const char *placed(const struct admission *a, const struct spec *spec, int bound) {
    static char said[500];
    struct cost cost = {0};
    const struct train_data data = data_of(VALUES);
    json_t *faults = json_array();
    place(a, spec, &data, VALUES, bound, faults, &cost);
    const json_t *fault = json_array_get(faults, 0);
    assert_true(json_array_size(faults) <= 1);
    if (fault)
        snprintf(said, sizeof said, "%s %s", json_string_value(json_object_get(fault, "pointer")),
                 json_string_value(json_object_get(fault, "detail")));
    else
        snprintf(said, sizeof said, "%s %d", executor_names[cost.executor], cost.ranks);
    json_decref(faults);
    return said;
}

static void assert_refused(const struct admission *a, const struct spec *spec, int bound,
                           const char *pointer, const char *words) {
    const char *said = placed(a, spec, bound);
    if (strncmp(said, pointer, strlen(pointer)) || said[strlen(pointer)] != ' ' ||
        !strstr(said, words))
        fail_msg("\"%s\" is not about %s, or does not say \"%s\"", said, pointer, words);
}

static void a_small_one_stays(void **state) {
    (void)state;
    struct admission a = lab();
    struct spec spec = encoder(1024);
    assert_string_equal(placed(&a, &spec, 0), "local 1");
    spec.ranks = 1;
    assert_string_equal(placed(&a, &spec, 0), "local 1");
    spec.executor = EXECUTOR_SLURM;
    assert_string_equal(placed(&a, &spec, 0), "slurm 1");
    spec.ranks = 0;
    assert_string_equal(placed(&a, &spec, 0), "slurm 1");
    spec.executor = EXECUTOR_LOCAL;
    assert_string_equal(placed(&a, &spec, 0), "local 1");
}

/* 5 weights' worth of 60,000 units are 1.2 GB. */
static void a_big_one_goes(void **state) {
    (void)state;
    struct admission a = lab();
    struct spec spec = encoder(60000);
    assert_string_equal(placed(&a, &spec, 0), "local 1");
    a.memory_bytes = GIB;
    assert_string_equal(placed(&a, &spec, 0), "slurm 1");
    spec.executor = EXECUTOR_LOCAL;
    assert_refused(&a, &spec, 0, "", "this daemon may use 1.00 GiB");
    spec.executor = EXECUTOR_AUTO;
    a.cluster.rank_bytes = 0; /* as much as it likes */
    assert_string_equal(placed(&a, &spec, 0), "slurm 1");
    a.cluster.there = 0;
    assert_refused(&a, &spec, 0, "", "larger --memory");
    a.cluster.there = 1;
    assert_refused(&a, &spec, 1, "", "larger --memory"); /* it can't go */
}

static void the_rules_of_the_lab(void **state) {
    (void)state;
    struct admission a = lab();
    struct spec spec = encoder(60000);
    a.cluster.above_bytes = GIB / 2;
    assert_string_equal(placed(&a, &spec, 0), "slurm 1");
    assert_string_equal(placed(&a, &spec, 1), "local 1");
    spec.executor = EXECUTOR_LOCAL;
    assert_string_equal(placed(&a, &spec, 0), "local 1");
    spec.executor = EXECUTOR_AUTO;
    a.cluster.above_bytes = 0;
    /* 10 epochs of 2000 samples, 6 · 6e7 operations each, and 500 of a third: 760 s at 1e10. */
    a.cluster.above_core_hours = 0.1;
    assert_string_equal(placed(&a, &spec, 0), "slurm 1");
    a.cluster.above_core_hours = 1;
    assert_string_equal(placed(&a, &spec, 0), "local 1");
}

/* By what each asks for: more than its estimate. */
static int fewest_ranks_asking(const struct spec *spec, const struct train_data *data, int members,
                               uint64_t bytes) {
    int ranks = 1;
    for (uint64_t asked = bytes + 1; asked > bytes; ranks *= 2) {
        const struct crew crew = {members, ranks};
        uint64_t estimate = train_estimate(&spec->train, data, &crew).memory_bytes;
        asked = memory_asked(estimate);
        assert_int_equal(asked, estimate * 6 / 5 + (64 << 20));
    }
    return ranks / 2;
}

/* 60,000 units in pieces of 0.5 GiB at most: four ranks' share of 1.2 GB, and what all have. */
static void ranks_that_have_room(void **state) {
    (void)state;
    struct admission a = lab();
    struct spec spec = encoder(60000);
    const struct train_data data = data_of(VALUES);
    a.memory_bytes = GIB;
    a.cluster.rank_bytes = GIB / 2;
    int members = a.cluster.cores;
    int ranks = fewest_ranks_asking(&spec, &data, members, GIB / 2);
    assert_in_range(ranks, 2, 8);
    char expected[20];
    snprintf(expected, sizeof expected, "slurm %d", ranks);
    assert_string_equal(placed(&a, &spec, 0), expected);
    a.cluster.rank_bytes = GIB / 1024; /* less than the data alone */
    assert_refused(&a, &spec, 0, "", "larger --memory");
    spec.executor = EXECUTOR_SLURM;
    assert_refused(&a, &spec, 0, "", "of memory in each of 118 ranks, a rank on the cluster may");
    spec.ranks = 2;
    assert_refused(&a, &spec, 0, "", "raise /training/ranks");
}

/* A node that is too small is no reason to leave a machine where there is room. */
static void what_fits_nowhere_else_stays(void **state) {
    (void)state;
    struct admission a = lab();
    struct spec spec = encoder(60000);
    spec.train.n_hidden = 2; /* so that ranks can't help */
    spec.train.hidden[1] = 10;
    a.cluster.above_bytes = GIB / 2;
    a.cluster.rank_bytes = GIB / 4;
    assert_string_equal(placed(&a, &spec, 0), "local 1");
    spec.executor = EXECUTOR_SLURM;
    assert_refused(&a, &spec, 0, "", "in each of 1 rank, a rank on the cluster may have 0.25 GiB");
    spec.ranks = 2;
    assert_refused(&a, &spec, 0, "/training/ranks", "several ranks train one hidden layer, not 2");
}

static void ranks_that_are_asked_for(void **state) {
    (void)state;
    struct admission a = lab();
    struct spec spec = encoder(2048);
    spec.ranks = 3; /* no power of two */
    assert_string_equal(placed(&a, &spec, 0), "slurm 3");
    assert_refused(&a, &spec, 1, "/training/ranks", "another experiment's weights");
    spec.ranks = 5;
    assert_refused(&a, &spec, 0, "/training/ranks", "must be 1..4");
    spec.ranks = 2;
    spec.executor = EXECUTOR_LOCAL;
    assert_refused(&a, &spec, 0, "/training/ranks", "set /training/executor to \"slurm\"");
    a.cluster.there = 0;
    spec.executor = EXECUTOR_AUTO;
    assert_refused(&a, &spec, 0, "/training/ranks", "this daemon has none");
    spec.executor = EXECUTOR_SLURM;
    assert_refused(&a, &spec, 0, "/training/executor", "start ovrd with --slurm on");
}

static void what_starts_from_another(void **state) {
    (void)state;
    struct admission a = lab();
    struct spec spec = encoder(2048);
    assert_string_equal(placed(&a, &spec, 1), "local 1");
    spec.executor = EXECUTOR_SLURM;
    assert_refused(&a, &spec, 1, "/training/executor", "another experiment's weights or steps");
}

/* All but the little that each job has to do by itself. */
static void assert_shared(const struct cost *cost, int cores) {
    double shared = cost->core_seconds / cores;
    assert_true(cost->seconds >= shared && cost->seconds < 1.01 * shared);
}

/* Work that is cut is done once, wherever; what each rank does for itself is little. */
static void what_it_costs(void **state) {
    (void)state;
    struct admission a = lab();
    const struct train_data data = data_of(VALUES);
    struct spec spec = encoder(8192);
    struct cost here = {0}, there = {0};
    json_t *faults = json_array();
    place(&a, &spec, &data, VALUES, 0, faults, &here);
    spec.executor = EXECUTOR_SLURM;
    spec.ranks = 4;
    place(&a, &spec, &data, VALUES, 0, faults, &there);
    assert_int_equal(json_array_size(faults), 0);
    assert_true(there.core_seconds > 0.99 * here.core_seconds);
    assert_true(there.core_seconds < 1.1 * here.core_seconds);
    assert_true(there.train.flops_per_epoch > 0.99 * here.train.flops_per_epoch);
    assert_true(there.train.memory_bytes < here.train.memory_bytes);
    assert_shared(&here, 4);
    assert_shared(&there, 32);
    spec.threads = 2; /* of each rank */
    place(&a, &spec, &data, VALUES, 0, faults, &there);
    assert_shared(&there, 8);
    json_decref(faults);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_small_one_stays),
        cmocka_unit_test(a_big_one_goes),
        cmocka_unit_test(the_rules_of_the_lab),
        cmocka_unit_test(what_fits_nowhere_else_stays),
        cmocka_unit_test(ranks_that_are_asked_for),
        cmocka_unit_test(what_starts_from_another),
        cmocka_unit_test(what_it_costs),
        cmocka_unit_test(ranks_that_have_room),
    };
    return cmocka_run_group_tests_name("server/placement", tests, start_blas, NULL);
}
