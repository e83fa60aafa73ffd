/* Tags, conditional requests and HEAD on every GET of the contract; pages while rows are added. */
#include "tests/api/daemon.h"

#include <stdio.h>

#define SPEC                                                                                       \
    "{'name':'a','dataset':{'generator':'sphere','samples':200},'model':{'kind':'mlp','hidden':["  \
    "8]},'training':{'epochs':2}}"

/* Where {id} stands for the experiment. */
static const char *const paths[] = {
    "/v1/experiments",
    "/v1/experiments?state=succeeded&sort=-result.accuracy",
    "/v1/experiments/{id}",
    "/v1/experiments/{id}/metrics",
    "/v1/experiments/{id}/metrics?format=csv",
    "/v1/experiments/{id}/histogram",
    "/v1/experiments/{id}/histograms",
    "/v1/experiments/{id}/units",
    "/v1/experiments/{id}/tiling",
    "/v1/experiments/{id}/log",
    "/v1/experiments/{id}/weights",
    "/v1/experiments/{id}/weights/hidden.0.weight",
    "/v1/experiments/{id}/weights/hidden.0.weight?format=npy",
    "/v1/experiments/{id}/model",
    "/v1/compare/histograms?a={id}&b={id}",
    "/v1/schema",
    "/v1/sweeps",
    "/v1/datasets",
    "/v1/datasets/table",
    "/v1/datasets/table/preview",
    "/v1/me",
    "/v1/users",
    "/v1/audit",
    "/version",
    "/openapi.json",
};

static void put_id(const char *path, const char *id, char *out, size_t size) {
    size_t n = 0;
    for (const char *c = path; *c && n + 16 < size; c++)
        if (strncmp(c, "{id}", 4) == 0)
            n += (size_t)snprintf(out + n, size - n, "%s", id), c += 3;
        else
            out[n++] = *c;
    out[n] = '\0';
}

static const struct answer *ask(struct daemon *d, const char *method, const char *path,
                                const char *tag) {
    char match[200];
    snprintf(match, sizeof match, "If-None-Match: %s", tag ? tag : "");
    return call(d, &(struct call){method, path, {tag ? match : NULL}, NULL, 0, 0});
}

static void test_every_get_has_a_tag_that_is_known_again(void **state) {
    struct daemon *d = *state;
    static const char table[] = "a,b,kind\n1,2,x\n3,4,y\n5,6,x\n";
    for (int i = 0; i < 2; i++)
        put(d,
            i ? "/v1/datasets/table/test?format=csv&label=last"
              : "/v1/datasets/table/train?format=csv&label=last",
            table, sizeof table - 1);
    char *id = submit(d, SPEC), path[200], tag[100], length[40];
    wait_for(d, id, "succeeded");
    for (size_t i = 0; i < COUNT(paths); i++) {
        put_id(paths[i], id, path, sizeof path);
        const struct answer *a = get(d, "%s", path);
        assert_status(a, 200);
        if (!header(a, "ETag"))
            fail_msg("no ETag at %s", path);
        snprintf(tag, sizeof tag, "%s", header(a, "ETag"));
        assert_int_equal(tag[0], '"');
        const char *announced = header(a, "Content-Length");
        snprintf(length, sizeof length, "%s", announced ? announced : "");

        a = ask(d, "GET", path, tag);
        if (a->status != 304)
            fail_msg("%d instead of 304 at %s", a->status, path);
        assert_string_equal(header(a, "ETag"), tag);
        assert_int_equal(a->size, 0);
        assert_status(ask(d, "GET", path, "\"another\""), 200);

        a = ask(d, "HEAD", path, NULL);
        assert_status(a, 200);
        assert_int_equal(a->size, 0);
        assert_string_equal(header(a, "ETag"), tag);
        if (*length)
            assert_string_equal(header(a, "Content-Length"), length);
        assert_status(ask(d, "HEAD", path, tag), 304);
    }
    free(id);
}

static void test_a_list_has_another_tag_when_it_changes(void **state) {
    struct daemon *d = *state;
    char tag[100], *id = submit(d, SPEC);
    wait_for(d, id, "succeeded");
    snprintf(tag, sizeof tag, "%s", header(get(d, "/v1/experiments"), "ETag"));
    assert_status(ask(d, "GET", "/v1/experiments", tag), 304);
    char *other = submit(d, SPEC);
    const struct answer *a = ask(d, "GET", "/v1/experiments", tag);
    assert_status(a, 200);
    assert_string_not_equal(header(a, "ETag"), tag);
    free(id);
    free(other);
}

/* Follows the pages, with a new experiment before each. Returns how many of those that were there
 * before came, each once and in order. */
static int walk(struct daemon *d, const char *first, char *const *ids, int n, int from_newest) {
    char path[300];
    int seen = 0;
    snprintf(path, sizeof path, "%s", first);
    while (*path) {
        free(submit(d, "{'name':'late','dataset':{'generator':'sphere'},'model':{'kind':'mlp',"
                       "'hidden':[8]},'training':{'epochs':1}}"));
        const struct answer *a = get(d, "%s", path);
        assert_status(a, 200);
        const json_t *item;
        size_t i;
        json_array_foreach(at(a->json, "/experiments"), i, item) {
            if (strcmp(text_at(item, "/name"), "late") == 0)
                continue;
            assert_true(seen < n);
            assert_string_equal(text_at(item, "/id"), ids[from_newest ? n - 1 - seen : seen]);
            seen++;
        }
        const char *link = header(a, "Link");
        *path = '\0';
        if (link)
            assert_int_equal(sscanf(link, "<%299[^>]>; rel=\"next\"", path), 1);
    }
    return seen;
}

static void test_pages_stay_whole_while_rows_are_added(void **state) {
    struct daemon *d = *state;
    enum { N = 9 };
    char *ids[N];
    for (int i = 0; i < N; i++) {
        ids[i] = submit(d, SPEC);
        wait_for(d, ids[i], "succeeded");
    }
    assert_int_equal(walk(d, "/v1/experiments?limit=4", ids, N, 1), N);
    assert_int_equal(walk(d, "/v1/experiments?limit=2&state=succeeded&name=a", ids, N, 1), N);
    assert_int_equal(walk(d, "/v1/experiments?sort=finished&limit=2&name=a", ids, N, 0), N);
    assert_int_equal(walk(d, "/v1/experiments?sort=-finished&limit=4&name=a", ids, N, 1), N);
    for (int i = 0; i < N; i++)
        free(ids[i]);
}

static void test_a_long_series_comes_whole(void **state) {
    struct daemon *d = *state;
    char *id = submit(d, "{'dataset':{'generator':'sphere','samples':20,'classes':2},'model':{"
                         "'kind':'mlp','hidden':[1]},'training':{'epochs':5100}}");
    wait_for(d, id, "succeeded");
    const struct answer *a = get(d, "/v1/experiments/%s/metrics?max_points=11", id);
    assert_null(header(a, "Link"));
    assert_int_equal(json_array_size(at(a->json, "/series")), 11);
    for (int i = 0; i < 11; i++)
        assert_int_equal(number_at(json_array_get(at(a->json, "/series"), (size_t)i), "/epoch"),
                         1 + i * 5099 / 10);
    a = get(d, "/v1/experiments/%s/metrics", id);
    assert_int_equal(json_array_size(at(a->json, "/series")), 5000);
    assert_non_null(strstr(header(a, "Link"), "from_epoch=5001>; rel=\"next\""));
    a = get(d, "/v1/experiments/%s/metrics?from_epoch=5001", id);
    assert_int_equal(json_array_size(at(a->json, "/series")), 100);
    assert_null(header(a, "Link"));
    free(id);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_every_get_has_a_tag_that_is_known_again, with_daemon,
                                        without_daemon),
        cmocka_unit_test_setup_teardown(test_a_list_has_another_tag_when_it_changes, with_daemon,
                                        without_daemon),
        cmocka_unit_test_setup_teardown(test_a_long_series_comes_whole, with_daemon,
                                        without_daemon),
        cmocka_unit_test_setup_teardown(test_pages_stay_whole_while_rows_are_added, with_daemon,
                                        without_daemon),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
