/* Sweeps on a real daemon: posted, run to their end, cancelled, taken up after a crash; and what
 * ovrctl makes of them. */
#include "tests/api/daemon.h"

#include <math.h>
#include <stdio.h>
#include <sys/wait.h>

#define SPHERE "'dataset':{'generator':'sphere','samples':500}"
#define MLP "'model':{'kind':'mlp','hidden':[20]}"
#define BASE "'base':{" SPHERE "," MLP ",'training':{'epochs':2}}"

static const char *post_sweep(struct daemon *d, const char *document) {
    const struct answer *a = post(d, "/v1/sweeps", document);
    assert_status(a, 202);
    assert_string_equal(header(a, "Location"), text_at(a->json, "/links/self"));
    return text_at(a->json, "/id");
}

/* Polls until it is no longer running. */
static const struct answer *wait_for_sweep(struct daemon *d, const char *id, const char *state) {
    double until = now() + 60 * SLOWNESS;
    for (;;) {
        const struct answer *a = get(d, "/v1/sweeps/%s", id);
        assert_status(a, 200);
        if (strcmp(text_at(a->json, "/state"), "running") != 0) {
            if (strcmp(text_at(a->json, "/state"), state) != 0)
                fail_msg("it %s: %s", text_at(a->json, "/state"), a->body);
            return a;
        }
        assert_true(now() < until);
        nap(20);
    }
}

static size_t count_runs(struct daemon *d) {
    return json_array_size(at(get(d, "/v1/experiments?limit=500")->json, "/experiments"));
}

static void test_a_grid_from_post_to_table(void **state) {
    struct daemon *d = *state;
    const char *id = post_sweep(d, "{'name':'grid','tags':['t1','t2'],'notes':'why'," BASE
                                   ",'grid':{'/model/hidden/0':[8,16],'/loss/ovr/lambda':[0,1e-4]},"
                                   "'repeats':2}");
    const struct answer *a = wait_for_sweep(d, id, "succeeded");
    assert_string_equal(text_at(a->json, "/name"), "grid");
    assert_json(a->json, "/tags", "['t1','t2']");
    assert_string_equal(text_at(a->json, "/notes"), "why");
    assert_json(a->json, "/counts",
                "{'queued':0,'running':0,'paused':0,'succeeded':8,'failed':0,'cancelled':0}");
    assert_json(a->json, "/axes", "['/model/hidden/0','/loss/ovr/lambda']");
    assert_json(a->json, "/target", "null");
    assert_json(a->json, "/request/grid/~1model~1hidden~10", "[8,16]");
    assert_true(json_is_string(at(a->json, "/finished_at")));
    assert_int_equal(json_array_size(at(a->json, "/points")), 4);
    assert_json(a->json, "/points/2/values", "{'/model/hidden/0':16,'/loss/ovr/lambda':0}");
    for (int p = 0; p < 4; p++) {
        double values[2], near[2];
        for (int r = 0; r < 2; r++) {
            const char *run = text_at(a->json, text("/points/%d/experiments/%d/id", p, r));
            const struct answer *e = get(d, "/v1/experiments/%s", run);
            assert_string_equal(text_at(e->json, "/sweep"), id);
            assert_json(e->json, "/point", text("%d", p));
            assert_json(e->json, "/repeat", text("%d", r));
            assert_string_equal(text_at(e->json, "/name"), text("grid %d.%d", p, r));
            assert_json(e->json, "/spec/training/seed", text("%d", 1 + r));
            assert_json(e->json, "/spec/model/hidden/0", p < 2 ? "8" : "16");
            assert_json(e->json, "/tags", "['t1','t2']");
            values[r] = number_at(e->json, "/result/accuracy");
            near[r] = number_at(e->json, "/result/sparsity/near_zero");
        }
        const json_t *row = at(a->json, text("/points/%d", p));
        assert_true(fabs(number_at(row, "/result/accuracy") - (values[0] + values[1]) / 2) < 1e-12);
        assert_true(fabs(number_at(row, "/sd/accuracy") - fabs(values[0] - values[1]) / sqrt(2)) <
                    1e-12);
        assert_true(fabs(number_at(row, "/result/sparsity/near_zero") - (near[0] + near[1]) / 2) <
                    1e-12);
        assert_string_equal(text_at(row, "/result/protocol"), "clean");
        assert_json(row, "/error", "null");
    }
    const struct answer *list = get(d, "/v1/experiments?sweep=%s&limit=3", id);
    assert_int_equal(json_array_size(at(list->json, "/experiments")), 3);
    assert_non_null(strstr(header(list, "Link"), text("sweep=%s", id)));
    list = get(d, "/v1/experiments?sweep=nothing");
    assert_json(list->json, "/experiments", "[]");
    list = get(d, "/v1/sweeps?limit=1");
    assert_string_equal(text_at(list->json, "/sweeps/0/id"), id);
}

static void test_etags_and_lists(void **state) {
    struct daemon *d = *state;
    const char *id = post_sweep(d, "{" BASE ",'points':[{}]}");
    const struct answer *a = wait_for_sweep(d, id, "succeeded");
    const char *tag = text("If-None-Match: %s", header(a, "ETag"));
    const struct answer *b = call(
        d, &(struct call){.method = "GET", .path = text("/v1/sweeps/%s", id), .headers = {tag}});
    assert_status(b, 304);
    post_sweep(d, "{" BASE ",'points':[{}]}");
    const struct answer *first = get(d, "/v1/sweeps?limit=1");
    const char *link = header(first, "Link");
    const struct answer *second = get(d, "%.*s", (int)strcspn(link + 1, ">"), link + 1);
    assert_status(second, 200);
    assert_string_equal(text_at(second->json, "/sweeps/0/id"), id);
    assert_problem(get(d, "/v1/sweeps/nobody"), 404, "not-found", "no sweep nobody");
    assert_problem(get(d, "/v1/sweeps/%s?format=xml", id), 422, "invalid-query", "json or csv");
}

static void test_csv(void **state) {
    struct daemon *d = *state;
    const char *id = post_sweep(
        d,
        "{" BASE ",'points':[{'name':'a, \\u0022b\\u0022'},{'training':{'schedule':'constant'}}]}");
    const struct answer *table = wait_for_sweep(d, id, "succeeded");
    const struct answer *a = get(d, "/v1/sweeps/%s?format=csv", id);
    assert_status(a, 200);
    assert_string_equal(header(a, "Content-Type"), "text/csv; charset=utf-8");
    const char *start = "point,repeat,experiment,state,/name,/training/schedule,accuracy,protocol,";
    assert_memory_equal(a->body, start, strlen(start));
    int lines = 0;
    for (const char *c = a->body; (c = strchr(c, '\n')); c++, lines++)
        assert_int_equal(c[-1], '\r');
    assert_int_equal(lines, 3);
    const char *first = text("\r\n0,0,%s,succeeded,\"a, \"\"b\"\"\",,%.15g,clean,",
                             text_at(table->json, "/points/0/experiments/0/id"),
                             number_at(table->json, "/points/0/result/accuracy"));
    if (!strstr(a->body, first))
        fail_msg("no \"%s\" in %s", first, a->body);
    assert_non_null(strstr(a->body, ",succeeded,,constant,"));
}

static void test_what_is_refused(void **state) {
    struct daemon *d = *state;
    size_t before = count_runs(d);
    const struct answer *a =
        post(d, "/v1/sweeps",
             "{" BASE ",'points':[{},{},{},{'model':{'kind':'mlp','hidden':[-1]}},"
             "{'training':{'epochs':0}}]}");
    assert_problem(a, 422, "invalid-spec", "the sweep was not accepted");
    assert_fault(a, "/points/3/model/hidden/0", "got -1");
    assert_fault(a, "/points/4/training/epochs", "got 0");
    assert_int_equal(json_array_size(at(a->json, "/errors")), 2);
    assert_problem(post(d, "/v1/sweeps", "[]"), 422, "invalid-spec", "not accepted");
    assert_problem(post(d, "/v1/sweeps", "{"), 400, "malformed-json", "line 1");
    assert_problem(post(d, "/v1/sweeps?dry_run=1", "{}"), 422, "invalid-query", "dry_run");
    a = post(d, "/v1/sweeps?dry_run=true",
             "{" BASE ",'grid':{'/training/seed':[1,2,3]},'repeats':4}");
    assert_status(a, 200);
    assert_json(a->json, "/valid", "true");
    assert_json(a->json, "/points", "3");
    assert_json(a->json, "/experiments", "12");
    assert_true(number_at(a->json, "/estimate/seconds") > 0);
    assert_int_equal(count_runs(d), before); /* one bad point refuses all */
}

static const struct answer *post_with_key(struct daemon *d, const char *path, const char *body) {
    return call(d, &(struct call){
                       .method = "POST",
                       .path = path,
                       .headers = {"Content-Type: application/json", "Idempotency-Key: sweep-key"},
                       .body = body});
}

static void test_idempotency(void **state) {
    struct daemon *d = *state;
    static const char body[] =
        "{\"base\":{\"dataset\":{\"generator\":\"sphere\",\"samples\":100},\"model\":{\"kind\":"
        "\"mlp\",\"hidden\":[4]},\"training\":{\"epochs\":1}},\"points\":[{},{}]}";
    const struct answer *a = post_with_key(d, "/v1/sweeps", body);
    assert_status(a, 202);
    size_t n = count_runs(d);
    const struct answer *b = post_with_key(d, "/v1/sweeps", body);
    assert_status(b, 202);
    assert_string_equal(text_at(a->json, "/id"), text_at(b->json, "/id"));
    assert_int_equal(count_runs(d), n);
    assert_problem(post_with_key(d, "/v1/sweeps",
                                 "{\"base\":{\"dataset\":{\"generator\":\"sphere\""
                                 "},\"model\":{\"kind\":\"mlp\",\"hidden\":[4]}},"
                                 "\"points\":[{}]}"),
                   422, "idempotency", "another body, for sweep");
    assert_problem(post_with_key(d, "/v1/experiments",
                                 "{\"dataset\":{\"generator\":\"sphere\"},\"model\":{\"kind\":"
                                 "\"mlp\",\"hidden\":[4]}}"),
                   422, "idempotency", "for sweep");
}

static void test_random_points_are_reproducible(void **state) {
    struct daemon *d = *state;
    static const char document[] =
        "{" BASE ",'random':{'points':4,'seed':7,'parameters':{'/loss/ovr/lambda':{'log_uniform':["
        "1e-6,1e-3]},'/model/hidden/0':{'integer':[4,9]}}}}";
    const struct answer *a = wait_for_sweep(d, post_sweep(d, document), "succeeded");
    const struct answer *b = wait_for_sweep(d, post_sweep(d, document), "succeeded");
    for (int p = 0; p < 4; p++) {
        const char *values = text("/points/%d/values", p);
        const char *near = text("/points/%d/result/sparsity", p);
        assert_true(json_equal(at(a->json, values), at(b->json, values)));
        assert_true(json_equal(at(a->json, near), at(b->json, near)));
    }
    assert_false(json_equal(at(a->json, "/points/0/values"), at(a->json, "/points/1/values")));
}

static void test_a_failed_point_does_not_stop_the_rest(void **state) {
    struct daemon *d = *state;
    const char *id = post_sweep(d, "{'base':{" SPHERE "," MLP ",'optimizer':{'name':'sgd'},"
                                   "'training':{'epochs':2}},'grid':{'/optimizer/learning_rate':["
                                   "0.01,1e30,0.02]}}");
    const struct answer *a = wait_for_sweep(d, id, "succeeded");
    assert_json(a->json, "/counts",
                "{'queued':0,'running':0,'paused':0,'succeeded':2,'failed':1,'cancelled':0}");
    assert_string_equal(text_at(a->json, "/points/1/error/type"), "/problems/diverged");
    assert_json(a->json, "/points/1/result", "null");
    assert_true(number_at(a->json, "/points/2/result/accuracy") >= 0);
    a = get(d, "/v1/sweeps/%s?format=csv", id);
    assert_non_null(strstr(a->body, ",failed,1e30,,,"));
}

/* Each point trains on, on the weights of the one before: three times one epoch come further than
 * one epoch. */
static void test_a_chain_trains_on(void **state) {
    struct daemon *d = *state;
    const char *id = post_sweep(
        d, "{'base':{'dataset':{'generator':'sphere','samples':2000}," MLP ",'optimizer':{"
           "'learning_rate':0.01},'training':{'epochs':2}},'chain':[{},{},{'training':{'epochs':"
           "6}}]}");
    const struct answer *a = wait_for_sweep(d, id, "succeeded");
    double first = number_at(a->json, "/points/0/result/test/loss");
    double second = number_at(a->json, "/points/1/result/test/loss");
    double third = number_at(a->json, "/points/2/result/test/loss");
    assert_true(second < first);
    assert_true(third < second);
    const struct answer *e =
        get(d, "/v1/experiments/%s", text_at(a->json, "/points/1/experiments/0/id"));
    assert_string_equal(text_at(e->json, "/spec/model/init/experiment"),
                        text_at(a->json, "/points/0/experiments/0/id"));
    assert_json(e->json, "/spec/training/epochs", "2");
}

static void test_a_chain_that_breaks(void **state) {
    struct daemon *d = *state;
    const char *id =
        post_sweep(d, "{'base':{" SPHERE "," MLP ",'optimizer':{'name':'sgd'},'training':{'epochs':"
                      "2}},'chain':[{},{'optimizer':{'name':'sgd','learning_rate':1e30}},{},{}]}");
    const struct answer *a = wait_for_sweep(d, id, "succeeded");
    const char *broken = text_at(a->json, "/points/1/experiments/0/id");
    assert_json(a->json, "/counts",
                "{'queued':0,'running':0,'paused':0,'succeeded':1,'failed':3,'cancelled':0}");
    assert_string_equal(text_at(a->json, "/points/1/error/type"), "/problems/diverged");
    for (int p = 2; p < 4; p++) {
        const json_t *error = at(a->json, text("/points/%d/error", p));
        assert_string_equal(text_at(error, "/type"), "/problems/chain-broken");
        assert_non_null(strstr(text_at(error, "/detail"), broken));
        assert_non_null(strstr(text_at(error, "/detail"), "(point 1)"));
    }
}

#define SEARCH                                                                                     \
    "{'name':'search','base':{'dataset':{'generator':'sphere','samples':2000},'model':{'kind':"    \
    "'mlp','hidden':[100]},'optimizer':{'learning_rate':0.01},'training':{'epochs':5}},"           \
    "'target_sparsity':{'near_zero':0.75,'tolerance':0.02,'points':12}}"

static void check_search(const json_t *sweep) {
    const json_t *target = at(sweep, "/target");
    json_t *frontier = at(target, "/frontier");
    size_t n = json_array_size(frontier);
    assert_string_equal(text_at(target, "/outcome"), "reached");
    assert_true(n >= 3 && n <= 12);
    assert_json(sweep, "/size", text("%zu", n));
    const char *nearest = text("/points/%.0f", number_at(target, "/nearest"));
    double near_zero = number_at(sweep, text("%s/result/sparsity/near_zero", nearest));
    assert_true(fabs(near_zero - 0.75) <= 0.02);
    for (size_t i = 0; i < n; i++) {
        const json_t *entry = json_array_get(frontier, i);
        const char *row = text("/points/%.0f", number_at(entry, "/point"));
        assert_true(i == 0 || number_at(json_array_get(frontier, i - 1), "/value") <
                                  number_at(entry, "/value"));
        assert_true(number_at(entry, "/near_zero") ==
                    number_at(sweep, text("%s/result/sparsity/near_zero", row)));
        assert_true(number_at(entry, "/accuracy") ==
                    number_at(sweep, text("%s/result/accuracy", row)));
        assert_true(number_at(entry, "/value") ==
                    number_at(sweep, text("%s/values/~1loss~1ovr~1lambda", row)));
    }
}

static void test_a_search_finds_lambda(void **state) {
    struct daemon *d = *state;
    const struct answer *a = wait_for_sweep(d, post_sweep(d, SEARCH), "succeeded");
    check_search(a->json);
    a = wait_for_sweep(
        d,
        post_sweep(d, "{" BASE ",'target_sparsity':{'near_zero':1,'tolerance':1e-6,'max':1e-5}}"),
        "succeeded");
    assert_string_equal(text_at(a->json, "/target/outcome"), "outside");
    assert_json(a->json, "/size", "2");
}

/* Whenever the daemon dies, the search goes on where it was, and finds what it would have found. */
static void test_a_search_survives_crashes(void **state) {
    struct daemon *d = *state;
    const struct answer *a = wait_for_sweep(d, post_sweep(d, SEARCH), "succeeded");
    const char *id = post_sweep(d, SEARCH);
    for (int i = 0; i < 4; i++) {
        nap(15 + 20 * i);
        daemon_kill(d);
        daemon_start(d, NULL);
    }
    const struct answer *b = wait_for_sweep(d, id, "succeeded");
    check_search(b->json);
    assert_true(json_equal(at(a->json, "/target/frontier"), at(b->json, "/target/frontier")));
}

static void test_cancelling(void **state) {
    struct daemon *d = *state;
    const char *id = post_sweep(d, "{'base':{" SPHERE "," MLP ",'training':{'epochs':100000}},"
                                   "'grid':{'/training/seed':[1,2,3,4,5,6,7,8]}}");
    const char *other = post_sweep(d, "{" BASE ",'points':[{}]}");
    const struct answer *a = get(d, "/v1/sweeps/%s", id);
    wait_for(d, text_at(a->json, "/points/0/experiments/0/id"), "running");
    a = post(d, text("/v1/sweeps/%s/cancel", id), NULL);
    assert_status(a, 202);
    assert_string_equal(text_at(a->json, "/state"), "cancelled");
    assert_json(a->json, "/counts/cancelled", "8");
    assert_status(post(d, text("/v1/sweeps/%s/cancel", id), NULL), 202);
    wait_for_sweep(d, other, "succeeded"); /* the workers are free again */
    assert_problem(post(d, text("/v1/sweeps/%s/cancel", other), NULL), 409, "conflict",
                   "already succeeded");
    assert_problem(post(d, "/v1/sweeps/nobody/cancel", NULL), 404, "not-found", "no sweep");
    id = post_sweep(d, "{'base':{" SPHERE "," MLP ",'training':{'epochs':100000}},"
                       "'target_sparsity':{'near_zero':0.5}}");
    a = post(d, text("/v1/sweeps/%s/cancel", id), NULL);
    assert_string_equal(text_at(a->json, "/target/outcome"), "cancelled");
}

/* Cancelling the experiments of a search one by one leaves it without a result, not hanging. */
static void test_a_search_whose_points_are_cancelled(void **state) {
    struct daemon *d = *state;
    const char *id = post_sweep(d, "{'base':{" SPHERE "," MLP ",'training':{'epochs':100000}},"
                                   "'target_sparsity':{'near_zero':0.5}}");
    const struct answer *a = get(d, "/v1/sweeps/%s", id);
    for (int p = 1; p >= 0; p--)
        assert_status(post(d,
                           text("/v1/experiments/%s/cancel",
                                text_at(a->json, text("/points/%d/experiments/0/id", p))),
                           NULL),
                      202);
    a = wait_for_sweep(d, id, "failed");
    assert_string_equal(text_at(a->json, "/target/outcome"), "no_result");
}

static void test_two_hundred_points_are_one_request(void **state) {
    struct daemon *d = *state;
    json_t *seeds = json_array();
    for (int i = 0; i < 200; i++)
        json_array_append_new(seeds, json_integer(i));
    json_t *document =
        parse("{'name':'many','base':{'dataset':{'generator':'sphere','samples':100},"
              "'model':{'kind':'mlp','hidden':[4]},'training':{'epochs':1}},'grid':"
              "{}}");
    json_object_set_new(json_object_get(document, "grid"), "/training/seed", seeds);
    char *body = json_dumps(document, JSON_COMPACT);
    const struct answer *a = post(d, "/v1/sweeps", body);
    free(body);
    json_decref(document);
    assert_status(a, 202);
    assert_true(a->seconds < 2 * SLOWNESS);
    const struct answer *b = wait_for_sweep(d, text_at(a->json, "/id"), "succeeded");
    assert_json(b->json, "/counts/succeeded", "200");
    assert_true(b->seconds < 1 * SLOWNESS);
    assert_int_equal(json_array_size(at(b->json, "/points")), 200);
}

/* ---- ovrctl ---- */

/* Runs it with these words; returns its standard output and standard error, which live as long as
 * the test. */
static const char *ovrctl(struct daemon *d, int expected, const char *words) {
    static char output[20000];
    const char *build = getenv("OVRD_TEST_BUILD");
    FILE *pipe =
        popen(text("OVRD_URL=%s %s/ovrctl %s 2>&1", d->url, build ? build : "build", words), "r");
    assert_non_null(pipe);
    size_t n = fread(output, 1, sizeof output - 1, pipe);
    output[n] = '\0';
    int status = pclose(pipe);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != expected)
        fail_msg("ovrctl %s: status %d, %s", words, status, output);
    return output;
}

static void write_file(const struct daemon *d, const char *name, const char *json) {
    FILE *file = fopen(text("%s/%s", d->dir, name), "w");
    assert_non_null(file);
    for (; *json; json++)
        fputc(*json == '\'' ? '"' : *json, file);
    fclose(file);
}

static void test_ovrctl(void **state) {
    struct daemon *d = *state;
    write_file(d, "sweep.json",
               "{'name':'by hand'," BASE ",'grid':{'/model/hidden/0':[8,16]},'repeats':2}");
    const char *out = ovrctl(d, 0, text("submit --dry-run %s/sweep.json", d->dir));
    assert_non_null(strstr(out, "2 points, 4 experiments"));
    char id[13];
    snprintf(id, sizeof id, "%s", ovrctl(d, 0, text("submit %s/sweep.json", d->dir)));
    assert_int_equal(strlen(id), 12);
    out = ovrctl(d, 0, text("sweep --watch %s", id));
    assert_non_null(strstr(out, "by hand"));
    assert_non_null(strstr(out, "succeeded"));
    out = ovrctl(d, 0, text("sweep %s", id));
    assert_non_null(strstr(out, "hidden/0"));
    assert_true(strstr(out, "±") || strstr(out, "+-"));
    out = ovrctl(d, 0, text("sweep --csv %s", id));
    assert_memory_equal(out, "point,repeat,experiment,state,/model/hidden/0,", 46);
    out = ovrctl(d, 0, "sweeps");
    assert_non_null(strstr(out, id));
    assert_non_null(strstr(out, "4/4"));
    out = ovrctl(d, 0, text("list --sweep %s", id));
    assert_non_null(strstr(out, "by hand 1.1"));
    write_file(d, "bad.json", "{" BASE ",'points':[{},{'training':{'epochs':0}}]}");
    out = ovrctl(d, 3, text("submit %s/bad.json", d->dir));
    assert_non_null(strstr(out, "/points/1/training/epochs"));
    write_file(d, "long.json",
               "{'base':{" SPHERE "," MLP ",'training':{'epochs':100000}},"
               "'points':[{},{}]}");
    snprintf(id, sizeof id, "%s", ovrctl(d, 0, text("submit %s/long.json", d->dir)));
    out = ovrctl(d, 0, text("sweep --cancel %s", id));
    assert_non_null(strstr(out, "cancelled"));
    ovrctl(d, 1, text("sweep --watch %s", id));
    ovrctl(d, 3, "sweep nobody");
}

/* Years as names of columns look like values; only the user can tell. */
static void test_ovrctl_uploads_with_a_header(void **state) {
    struct daemon *d = *state;
    write_file(d, "years.csv", "2019,2020,kind\n1,2,a\n3,4,b\n");
    ovrctl(d, 0, text("upload years train %s/years.csv --label last", d->dir));
    assert_json(get(d, "/v1/datasets/years")->json, "/splits/train/samples", "3");
    ovrctl(d, 0, text("upload years train %s/years.csv --label last --header true", d->dir));
    const struct answer *a = get(d, "/v1/datasets/years");
    assert_json(a->json, "/splits/train/samples", "2");
    assert_json(a->json, "/summary/train/features/1/name", "'2020'");
    ovrctl(d, 3, text("upload years train %s/years.csv --label last --header yes", d->dir));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_grid_from_post_to_table),
        cmocka_unit_test(test_etags_and_lists),
        cmocka_unit_test(test_csv),
        cmocka_unit_test(test_what_is_refused),
        cmocka_unit_test(test_idempotency),
        cmocka_unit_test(test_random_points_are_reproducible),
        cmocka_unit_test(test_a_failed_point_does_not_stop_the_rest),
        cmocka_unit_test(test_a_chain_trains_on),
        cmocka_unit_test(test_a_chain_that_breaks),
        cmocka_unit_test(test_a_search_finds_lambda),
        cmocka_unit_test(test_a_search_survives_crashes),
        cmocka_unit_test(test_cancelling),
        cmocka_unit_test(test_a_search_whose_points_are_cancelled),
        cmocka_unit_test(test_two_hundred_points_are_one_request),
        cmocka_unit_test(test_ovrctl),
        cmocka_unit_test(test_ovrctl_uploads_with_a_header),
    };
    return cmocka_run_group_tests_name("api/sweeps", tests, with_daemon, without_daemon);
}
