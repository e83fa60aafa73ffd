/* Models in the cache: kept, let go by bytes and age, whole for whoever has them open. */
#include "server/model.h"
#include "server/pool.h"
#include "server/weights.h"
#include "tests/server/check.h"

#define SPEC(hidden)                                                                               \
    "{\"dataset\":{\"generator\":\"sphere\",\"samples\":60,\"test_samples\":20},\"model\":"        \
    "{\"kind\":\"ovr_encoder\",\"hidden\":[" hidden                                                \
    "]},\"probe\":null,\"training\":{\"epochs\":1}}"

enum { N = 3 };

static char ids[N][ID_SIZE];

/* Three experiments that have succeeded, in a place of their own. */
static int train_models(void **state) {
    if (make_store(state))
        return -1;
    struct place *place = *state;
    struct catalog catalog;
    struct cache cache;
    struct pool *pool;
    struct ovr_err err = {0};
    assert_ok(catalog_init(&catalog, place->dir, place->store, &err), &err);
    assert_ok(cache_init(&cache, place->dir, &catalog, kernels_get(ISA_AUTO), 0, &err), &err);
    assert_ok(weights_init(place->dir, &err), &err);
    struct pool_config config = {.workplace = {.store = place->store,
                                               .cache = &cache,
                                               .kernels = kernels_get(ISA_AUTO),
                                               .data_dir = place->dir},
                                 .workers = 1,
                                 .cores = 1,
                                 .memory_bytes = 1 << 30};
    assert_ok(pool_start(&pool, &config, &err), &err);
    for (int i = 0; i < N; i++) {
        enqueue(place->store, &(struct new_experiment){.spec = SPEC("50")}, ids[i]);
        pool_wake(pool);
    }
    for (int i = 0; i < N; i++)
        for (int ms = 0; state_of(place->store, ids[i]) != STATE_SUCCEEDED; ms += 5) {
            assert_true(ms < 60000);
            pool_tick(pool);
            sleep_ms(5);
        }
    assert_int_equal(pool_stop(pool, 20), 0);
    cache_release(&cache);
    return 0;
}

static struct models *new_models(const struct place *place, const struct catalog *catalog,
                                 uint64_t limit, uint64_t use) {
    struct models *models;
    struct ovr_err err = {0};
    const struct models_config config = {.store = place->store,
                                         .catalog = catalog,
                                         .kernels = kernels_get(ISA_AUTO),
                                         .data_dir = place->dir,
                                         .limit_bytes = limit,
                                         .use_bytes = use,
                                         .cores = 2};
    assert_ok(models_new(&models, &config, &err), &err);
    return models;
}

static struct model *open_model(struct models *models, const struct place *place, int i) {
    struct experiment e = look_up(place->store, ids[i]);
    struct model *model;
    struct ovr_err err = {0};
    assert_ok(models_open(models, &e, &model, &err), &err);
    experiment_release(&e);
    return model;
}

static int add_up(void *context, size_t first, size_t n, const real *codes,
                  const double *probabilities, struct ovr_err *err) {
    (void)first, (void)err;
    assert_null(probabilities);
    for (size_t i = 0; i < n * 50; i++)
        *(double *)context += (double)codes[i];
    return 0;
}

static double use(struct model *model) {
    double sum = 0;
    real points[] = {0, 0, 1, 0, 1, 0, 1, 0, 0};
    const struct samples samples = {.n = 3, .d = 3, .values = points};
    const struct model_sink sink = {.context = &sum, .wants_codes = 1, .rows = add_up};
    struct ovr_err err = {0};
    assert_ok(model_apply(model, &samples, &sink, NULL, &err), &err);
    return sum;
}

static size_t count(struct models *models, uint64_t *bytes) {
    size_t n;
    models_count(models, bytes, &n);
    return n;
}

static void test_kept_and_let_go(void **state) {
    struct place *place = *state;
    struct catalog catalog;
    struct ovr_err err = {0};
    uint64_t one, bytes;
    assert_ok(catalog_init(&catalog, place->dir, place->store, &err), &err);
    struct models *models = new_models(place, &catalog, UINT64_MAX, UINT64_MAX);
    models_close(models, open_model(models, place, 0));
    assert_int_equal(count(models, &one), 1);
    assert_true(one > 0);
    struct model *again = open_model(models, place, 0);
    assert_int_equal(count(models, &bytes), 1); /* the same one */
    models_close(models, again);
    models_free(models);

    /* Room for two: the one that was not used for the longest time goes. */
    models = new_models(place, &catalog, 2 * one, UINT64_MAX);
    struct model *first = open_model(models, place, 0);
    struct model *second = open_model(models, place, 1);
    models_close(models, first);
    models_close(models, second);
    assert_ptr_equal(open_model(models, place, 0), first); /* now the younger one */
    models_close(models, first);
    struct model *third = open_model(models, place, 2);
    models_close(models, third);
    assert_int_equal(count(models, &bytes), 2);
    assert_true(bytes == 2 * one);
    assert_ptr_equal(open_model(models, place, 0), first);
    models_close(models, first);
    models_free(models);

    /* No room at all: open ones stay, and nothing after that. */
    models = new_models(place, &catalog, 0, UINT64_MAX);
    first = open_model(models, place, 0);
    second = open_model(models, place, 1);
    assert_int_equal(count(models, &bytes), 2);
    double before = use(first);
    models_close(models, second);
    assert_int_equal(count(models, &bytes), 1);
    assert_true(use(first) == before && before != 0);
    models_close(models, first);
    assert_int_equal(count(models, &bytes), 0);
    models_free(models);
}

/* Its files may go while it is open; then nobody opens it any more, and that is told. */
static void test_files_that_go(void **state) {
    struct place *place = *state;
    struct catalog catalog;
    struct ovr_err err = {0};
    struct model *none;
    uint64_t bytes;
    assert_ok(catalog_init(&catalog, place->dir, place->store, &err), &err);
    struct models *models = new_models(place, &catalog, 0, UINT64_MAX);
    struct model *model = open_model(models, place, 2);
    double before = use(model);
    weights_remove(place->dir, ids[2]);
    assert_true(use(model) == before);
    models_close(models, model);
    struct experiment e = look_up(place->store, ids[2]);
    assert_int_equal(models_open(models, &e, &none, &err), OVR_IO);
    assert_non_null(strstr(err.text, ids[2]));
    assert_int_equal(count(models, &bytes), 0);
    e.state = STATE_FAILED;
    err = (struct ovr_err){0};
    assert_int_equal(models_open(models, &e, &none, &err), OVR_CONFLICT);
    assert_null(none);
    experiment_release(&e);
    models_free(models);
}

static int try_open(struct models *models, const struct place *place, int i, struct ovr_err *err) {
    struct experiment e = look_up(place->store, ids[i]);
    struct model *none;
    *err = (struct ovr_err){0};
    int rc = models_open(models, &e, &none, err);
    assert_null(none);
    experiment_release(&e);
    return rc;
}

/* What is in use has a limit; what nobody uses does not count. */
static void test_bounded_together(void **state) {
    struct place *place = *state;
    struct catalog catalog;
    struct ovr_err err = {0};
    uint64_t one;
    assert_ok(catalog_init(&catalog, place->dir, place->store, &err), &err);
    struct models *models = new_models(place, &catalog, UINT64_MAX, 1);
    assert_int_equal(try_open(models, place, 0, &err), OVR_TOO_LARGE);
    assert_non_null(strstr(err.text, "--memory"));
    assert_int_equal(count(models, &one), 0);
    models_free(models);
    err = (struct ovr_err){0};

    models = new_models(place, &catalog, UINT64_MAX, UINT64_MAX);
    models_close(models, open_model(models, place, 0));
    count(models, &one);
    models_free(models);

    models = new_models(place, &catalog, UINT64_MAX, one + 4000);
    struct model *first = open_model(models, place, 0);
    assert_ok(models_reserve(models, 4000, &err), &err);
    assert_int_equal(models_reserve(models, 1, &err), OVR_FULL);
    assert_int_equal(try_open(models, place, 1, &err), OVR_FULL);
    assert_non_null(strstr(err.text, "try again"));
    models_give_back(models, 4000);
    struct model *second = open_model(models, place, 1);
    models_close(models, first);
    models_close(models, second);
    err = (struct ovr_err){0};
    assert_ok(models_reserve(models, one + 4000, &err), &err);
    assert_int_equal(models_reserve(models, one + 4001, &err), OVR_TOO_LARGE);
    models_give_back(models, one + 4000);
    models_free(models);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kept_and_let_go),
        cmocka_unit_test(test_bounded_together),
        cmocka_unit_test(test_files_that_go),
    };
    return cmocka_run_group_tests_name("model", tests, train_models, remove_place);
}
