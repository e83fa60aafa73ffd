/* GET /v1/queue: what runs, what waits, in which order and why; for people who share a machine. */
#include "tests/api/daemon.h"

#include <stdio.h>

#define SPHERE "'dataset':{'generator':'sphere','samples':200,'test_samples':50},"
#define MODEL "'model':{'kind':'ovr_encoder','hidden':[50]},'probe':null,"
#define ENDLESS(more) "{" SPHERE MODEL "'training':{'epochs':100000,'threads':1}" more "}"
#define QUICK(more) "{" SPHERE MODEL "'training':{'epochs':2}" more "}"

static char root[128], alice[128], bob[128]; /* tokens */

static void become(struct daemon *d, const char *token) {
    snprintf(d->token, sizeof d->token, "%s", token);
}

static int one_worker(void **state) {
    struct daemon *d = daemon_new((const char *const[]){"--workers", "1", NULL});
    *state = d;
    snprintf(root, sizeof root, "%s", add_user(d, "root", "admin"));
    become(d, root);
    snprintf(alice, sizeof alice, "%s", add_user(d, "alice", "member"));
    snprintf(bob, sizeof bob, "%s", add_user(d, "bob", "member"));
    return 0;
}

static int close_daemon(void **state) {
    daemon_free(*state);
    return 0;
}

static char *submit_as(struct daemon *d, const char *token, const char *spec) {
    become(d, token);
    return submit(d, "%s", spec);
}

static const json_t *queue(struct daemon *d) {
    const struct answer *a = get(d, "/v1/queue");
    assert_status(a, 200);
    return a->json;
}

static const json_t *waiting(const json_t *queue, int position) {
    const json_t *entry = at(queue, "/waiting");
    entry = json_array_get(entry, (size_t)position - 1);
    assert_non_null(entry);
    assert_int_equal(number_at(entry, "/position"), position);
    return entry;
}

static void test_an_empty_one(void **state) {
    struct daemon *d = *state;
    const json_t *q = queue(d);
    assert_json(q, "/running", "[]");
    assert_json(q, "/waiting", "[]");
    assert_json(q, "/users", "[]");
    assert_json(q, "/waiting_total", "0");
    assert_json(q, "/workers", "{'total':1,'busy':0}");
    assert_json(q, "/fair_share_half_life_seconds", "86400.0");
    assert_json(q, "/cores/threads", "0");
    assert_true(number_at(q, "/memory/total_bytes") == number_at(q, "/memory/free_bytes"));
}

/* Who came first and has the machine is not first in line once somebody else comes. */
static void test_people_take_turns(void **state) {
    struct daemon *d = *state;
    char *ids[4];
    ids[0] = submit_as(d, alice, ENDLESS(""));
    wait_for(d, ids[0], "running");
    ids[1] = submit_as(d, alice, QUICK(",'name':'a1'"));
    ids[2] = submit_as(d, alice, QUICK(",'name':'a2','private':true"));
    ids[3] = submit_as(d, bob, QUICK(",'name':'b1'"));
    const json_t *q = queue(d);
    assert_json(q, "/waiting_total", "3");
    assert_json(q, "/workers", "{'total':1,'busy':1}");
    assert_string_equal(text_at(q, "/running/0/id"), ids[0]);
    assert_string_equal(text_at(q, "/running/0/owner"), "alice");
    assert_json(q, "/running/0/threads", "1");
    const json_t *first = waiting(q, 1), *second = waiting(q, 2), *hidden = waiting(q, 3);
    assert_string_equal(text_at(first, "/id"), ids[3]);
    assert_string_equal(text_at(first, "/reason_code"), "workers");
    assert_non_null(strstr(text_at(first, "/reason"), "1st in line; 1 of 1 worker is busy"));
    assert_string_equal(text_at(second, "/name"), "a1");
    assert_string_equal(text_at(second, "/reason_code"), "fair_share");
    assert_non_null(strstr(text_at(second, "/reason"), "2nd in line; alice used "));
    assert_non_null(strstr(text_at(second, "/reason"), " lately, bob 0 core-minutes: bob's go "
                                                       "first"));
    for (int i = 0; i < 3; i++) /* others' private ones count, and say nothing */
        assert_json(hidden, ((const char *const[]){"/id", "/name", "/owner"})[i], "null");
    assert_json(hidden, "/private", "true");
    assert_null(strstr(get(d, "/v1/queue")->body, ids[2]));
    become(d, alice);
    assert_string_equal(text_at(waiting(queue(d), 3), "/id"), ids[2]);
    const json_t *user = at(q, "/users/0");
    assert_string_equal(text_at(user, "/name"), "alice");
    assert_true(number_at(user, "/recent_core_seconds") > 0);
    assert_json(user, "/running", "1");
    assert_json(user, "/waiting", "2");
    assert_json(user, "/max_running", "null");
    const json_t *own = at(get(d, "/v1/experiments/%s", ids[1])->json, "/queue");
    assert_json(own, "/position", "2"); /* the experiment says the same */
    assert_string_equal(text_at(own, "/reason_code"), "fair_share");
    become(d, root);
    assert_status(post(d, "/v1/experiments", QUICK(",'priority':5")), 202);
    assert_string_equal(text_at(waiting(queue(d), 1), "/owner"), "root"); /* before all shares */
    for (int i = 0; i < 4; i++)
        free(ids[i]);
}

static void test_pages(void **state) {
    struct daemon *d = *state;
    char *ids[6];
    for (int i = 0; i < 6; i++) {
        ids[i] = submit_as(d, alice, i ? QUICK("") : ENDLESS(""));
        if (!i)
            wait_for(d, ids[i], "running");
    }
    char path[100] = "/v1/queue?limit=2";
    int seen = 0;
    for (int page = 0; *path; page++) {
        const struct answer *a = get(d, "%s", path);
        assert_status(a, 200);
        assert_json(a->json, "/waiting_total", "5");
        assert_int_equal(json_array_size(at(a->json, "/running")), 1);
        for (size_t i = 0; i < json_array_size(at(a->json, "/waiting")); i++, seen++)
            assert_string_equal(text_at(json_array_get(at(a->json, "/waiting"), i), "/id"),
                                ids[seen + 1]);
        const char *link = header(a, "Link");
        assert_int_equal(link != NULL, page < 2);
        *path = '\0';
        if (link)
            assert_int_equal(sscanf(link, "<%99[^>]>; rel=\"next\"", path), 1);
    }
    assert_int_equal(seen, 5);
    assert_status(get(d, "/v1/queue?limit=0"), 422);
    assert_status(get(d, "/v1/queue?cursor=x"), 422);
    for (int i = 0; i < 6; i++)
        free(ids[i]);
}

/* A point that starts from the one before it, and a limit of one's own. */
static void test_chains_and_limits(void **state) {
    (void)state;
    struct daemon *d =
        daemon_new((const char *const[]){"--workers", "2", "--user-running", "1", NULL});
    become(d, add_user(d, "root", "admin"));
    char *stranger = strdup(add_user(d, "bob", "member"));
    char *blocker = submit(d, ENDLESS(""));
    wait_for(d, blocker, "running");
    const struct answer *a =
        post(d, "/v1/sweeps",
             "{'base':" QUICK("") ",'private':true,'chain':[{},{'training':{'epochs':3}}]}");
    assert_status(a, 202);
    const json_t *q = queue(d), *first = waiting(q, 1), *second = waiting(q, 2);
    assert_string_equal(text_at(first, "/reason_code"), "user_limit");
    assert_non_null(strstr(text_at(first, "/reason"), "root already runs 1 of 1 allowed"));
    assert_json(q, "/users/0/max_running", "1");
    assert_string_equal(text_at(second, "/reason_code"), "chain");
    char wanted[100];
    snprintf(wanted, sizeof wanted, "waits for experiment %s (point 0 of the chain)",
             text_at(first, "/id"));
    assert_non_null(strstr(text_at(second, "/reason"), wanted));
    char *last = strdup(text_at(second, "/id"));
    snprintf(root, sizeof root, "%s", d->token);
    become(d, stranger);
    second = waiting(queue(d), 2);
    assert_json(second, "/id", "null");
    assert_non_null(strstr(text_at(second, "/reason"), "waits for experiment (private) (point 0"));
    become(d, root);
    assert_status(post(d, text("/v1/experiments/%s/cancel", blocker), NULL), 202);
    wait_for(d, last, "succeeded");
    free(blocker), free(last), free(stranger);
    daemon_free(d);
}

static void test_ovrctl(void **state) {
    struct daemon *d = *state;
    char *blocker = submit_as(d, alice, ENDLESS("")), said[2000] = "";
    wait_for(d, blocker, "running");
    char *private = submit_as(d, alice, QUICK(",'name':'secret','private':true"));
    char *id =
        submit_as(d, bob, QUICK(",'name':'a name that is longer than the table has room for'"));
    const char *build = getenv("OVRD_TEST_BUILD");
    FILE *pipe = popen(text("OVRD_TOKEN='%s' %s/ovrctl queue --host %s 2>&1", d->token,
                            build ? build : "build", d->url),
                       "r");
    assert_non_null(pipe);
    said[fread(said, 1, sizeof said - 1, pipe)] = '\0';
    assert_int_equal(pclose(pipe), 0);
    const char *const parts[] = {"1 of 1 workers busy, 1 threads on ",
                                 blocker,
                                 id,
                                 "a name that is long…",
                                 "1 of 1 worker is busy",
                                 "(private)",
                                 "used lately"};
    for (size_t i = 0; i < COUNT(parts); i++)
        if (!strstr(said, parts[i]))
            fail_msg("\"%s\" is not in\n%s", parts[i], said);
    assert_null(strstr(said, private));
    assert_null(strstr(said, "secret"));
    free(blocker), free(private), free(id);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_an_empty_one, one_worker, close_daemon),
        cmocka_unit_test_setup_teardown(test_people_take_turns, one_worker, close_daemon),
        cmocka_unit_test_setup_teardown(test_pages, one_worker, close_daemon),
        cmocka_unit_test_setup_teardown(test_ovrctl, one_worker, close_daemon),
        cmocka_unit_test(test_chains_and_limits),
    };
    return cmocka_run_group_tests_name("api/queue", tests, NULL, NULL);
}
