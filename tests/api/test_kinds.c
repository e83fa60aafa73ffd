/* Models that no optimiser trains, from spec to weights: k-means, PCA, random projection, identity.
 * What they compute is held against numpy in tests/science. */
#include "tests/api/daemon.h"

#include <math.h>

#define SPHERE "'dataset':{'generator':'sphere','samples':600,'test_samples':150,'seed':3}"
#define PROBE "'probe':{'epochs':20,'learning_rate':0.02}"

static char *run(struct daemon *d, const char *model, const char *training) {
    char *id = submit(d, "{" SPHERE ",'model':%s,'training':%s," PROBE "}", model, training);
    wait_for(d, id, "succeeded");
    return id;
}

static const json_t *experiment(struct daemon *d, const char *id) {
    return get(d, "/v1/experiments/%s", id)->json;
}

static size_t count_epochs(struct daemon *d, const char *id) {
    return json_array_size(at(get(d, "/v1/experiments/%s/metrics", id)->json, "/series"));
}

/* The shape of a tensor among the best epoch's; fails where it is not there. */
static void assert_tensor(struct daemon *d, const char *id, const char *name, const char *shape) {
    const json_t *list = get(d, "/v1/experiments/%s/weights", id)->json;
    for (size_t i = 0; i < json_array_size(at(list, "/tensors")); i++)
        if (strcmp(text_at(list, text("/tensors/%zu/name", i)), name) == 0) {
            assert_json(list, text("/tensors/%zu/shape", i), shape);
            return;
        }
    fail_msg("there is no tensor %s", name);
}

/* Better than guessing among ten classes. */
static void assert_probed(struct daemon *d, const char *id) {
    const json_t *e = experiment(d, id);
    assert_true(number_at(e, "/result/accuracy") > 0.15);
    assert_true(number_at(e, "/result/probe/accuracy") == number_at(e, "/result/accuracy"));
    assert_status(get(d, "/v1/experiments/%s/histogram", id), 200);
}

static void test_kmeans(void **state) {
    struct daemon *d = *state;
    char *id = run(d, "{'kind':'kmeans','hidden':[40]}", "{'epochs':200}");
    const json_t *e = experiment(d, id);
    assert_json(e, "/spec/model",
                "{'kind':'kmeans','hidden':[40],'code':'triangle','init':'samples'}");
    assert_null(at(e, "/spec/optimizer"));
    assert_null(at(e, "/spec/loss"));
    assert_true(number_at(e, "/result/epochs") < 200);
    assert_int_equal(count_epochs(d, id), number_at(e, "/result/epochs"));
    assert_true(number_at(e, "/result/test/distortion") < 0.1);
    assert_tensor(d, id, "centroids", "[40,3]");
    assert_tensor(d, id, "counts", "[40]");
    assert_probed(d, id);
    const json_t *metrics = get(d, "/v1/experiments/%s/metrics", id)->json;
    assert_null(at(metrics, "/series/0/learning_rate"));
    assert_true(number_at(metrics, "/series/1/train/distortion") <
                number_at(metrics, "/series/0/train/distortion"));
    free(id);
}

static void test_hard_code(void **state) {
    struct daemon *d = *state;
    char *id = run(d, "{'kind':'online_kmeans','hidden':[40],'code':'hard','init':'kmeans++'}",
                   "{'epochs':3,'batch_size':16,'protocol':'published'}");
    const json_t *e = experiment(d, id);
    assert_true(fabs(number_at(e, "/result/sparsity/zero") - 39. / 40) < 1e-12);
    assert_int_equal(count_epochs(d, id), 3);
    assert_probed(d, id);
    free(id);
}

/* Goes on where an earlier one stopped. */
static void test_centroids_of_an_experiment(void **state) {
    struct daemon *d = *state;
    char *whole = run(d, "{'kind':'kmeans','hidden':[40]}", "{'epochs':4}");
    char *half = run(d, "{'kind':'kmeans','hidden':[40]}", "{'epochs':2}");
    char *more = run(d,
                     text("{'kind':'kmeans','hidden':[40],'init':{'experiment':'%s','epoch':"
                          "'last'}}",
                          half),
                     "{'epochs':2}");
    double expected =
        number_at(get(d, "/v1/experiments/%s/metrics", whole)->json, "/series/3/train/distortion");
    double found =
        number_at(get(d, "/v1/experiments/%s/metrics", more)->json, "/series/1/train/distortion");
    assert_true(fabs(found - expected) < 1e-5 * expected);
    free(whole), free(half), free(more);
}

static double sum_of_counts(struct daemon *d, const char *id) {
    const json_t *counts = at(get(d, "/v1/experiments/%s/weights/counts", id)->json, "/data");
    double sum = 0;
    for (size_t i = 0; i < json_array_size(counts); i++)
        sum += json_number_value(json_array_get(counts, i));
    return sum;
}

/* Online, what a centroid was given before counts on: the mean of all that it ever got. */
static void test_counts_of_an_experiment(void **state) {
    struct daemon *d = *state;
    const char *best = "{'epochs':1}";
    char *half = run(d, "{'kind':'online_kmeans','hidden':[40]}", best);
    char *more = run(
        d, text("{'kind':'online_kmeans','hidden':[40],'init':{'experiment':'%s'}}", half), best);
    assert_true(sum_of_counts(d, half) == 540);
    assert_true(sum_of_counts(d, more) == 2 * 540);
    free(half), free(more);
}

static void check_untrained(struct daemon *d, const char *id) {
    const json_t *e = experiment(d, id);
    assert_json(e, "/result/epochs", "0");
    assert_json(e, "/result/best_epoch", "0");
    assert_null(at(e, "/result/test"));
    assert_null(at(e, "/spec/training/epochs"));
    assert_null(at(e, "/spec/optimizer"));
    assert_int_equal(count_epochs(d, id), 0);
    assert_probed(d, id);
}

static void test_untrained(void **state) {
    struct daemon *d = *state;
    char *pca = run(d, "{'kind':'pca','hidden':[2]}", "{'epochs':7}");
    check_untrained(d, pca);
    assert_tensor(d, pca, "encoder.weight", "[2,3]");
    assert_tensor(d, pca, "encoder.bias", "[2]");
    char *projection = run(d, "{'kind':'random_projection','hidden':[60],'init':'he'}", "{}");
    check_untrained(d, projection);
    assert_tensor(d, projection, "encoder.weight", "[60,3]");
    const struct answer *dry = post(d, "/v1/experiments?dry_run=true",
                                    "{'dataset':{'generator':'sphere'},'model':{'kind':'identity'},"
                                    "'probe':null}");
    assert_status(dry, 200);
    assert_int_equal(number_at(dry->json, "/estimate/parameters"), 0); /* it has nothing to learn */
    char *identity = run(d, "{'kind':'identity'}", "{'protocol':'published'}");
    check_untrained(d, identity);
    assert_tensor(d, identity, "probe.weight", "[10,3]");
    free(pca), free(projection), free(identity);
}

static const struct answer *refused(struct daemon *d, const char *members) {
    const struct answer *a = post(d, "/v1/experiments", text("{" SPHERE ",%s}", members));
    assert_problem(a, 422, "invalid-spec", "");
    return a;
}

static void test_refused(void **state) {
    struct daemon *d = *state;
    assert_fault(refused(d, "'model':{'kind':'kmeans','hidden':[541]}"), "/model/hidden/0",
                 "must be 1..540, as many centroids as there are samples to train on, got 541");
    assert_fault(refused(d, "'model':{'kind':'pca','hidden':[4]}"), "/model/hidden/0",
                 "must be 1..3");
    assert_fault(refused(d, "'model':{'kind':'kmeans','hidden':[4,4]}"), "/model/hidden",
                 "must be an array of 1 number");
    assert_fault(refused(d, "'model':{'kind':'identity','hidden':[4]}"), "/model/hidden",
                 "this kind of model does not use it");
    assert_fault(refused(d, "'model':{'kind':'kmeans','hidden':[4],'code':'soft'}"), "/model/code",
                 "\"triangle\", \"hard\"");
    assert_fault(refused(d, "'model':{'kind':'kmeans','hidden':[4],'init':'glorot'}"),
                 "/model/init", "\"samples\", \"kmeans++\", \"experiment\"");
    assert_fault(refused(d, "'model':{'kind':'kmeans','hidden':[4]},'loss':{'ovr':{}}"), "/loss",
                 "this kind of model does not use it");
}

/* The classes that are trained on are fewer than the centroids: only the run can tell. */
static void test_too_few_of_a_class(void **state) {
    struct daemon *d = *state;
    char *id = submit(d, "{" SPHERE ",'model':{'kind':'kmeans','hidden':[500]},'training':{"
                         "'only_classes':[1]}}");
    const json_t *e = wait_for(d, id, "failed")->json;
    assert_non_null(strstr(text_at(e, "/error/detail"), "as many centroids as there are samples"));
    free(id);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kmeans),
        cmocka_unit_test(test_hard_code),
        cmocka_unit_test(test_centroids_of_an_experiment),
        cmocka_unit_test(test_counts_of_an_experiment),
        cmocka_unit_test(test_untrained),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_too_few_of_a_class),
    };
    return cmocka_run_group_tests_name("kinds", tests, with_daemon, without_daemon);
}
