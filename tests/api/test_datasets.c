/* PUT /v1/datasets/{name}/{split}: what is stored is what was sent, whole, and under its version.
 */
#include "tests/api/daemon.h"

#include <stdio.h>
#include <unistd.h>

#define TRAIN(name) "/v1/datasets/" name "/train?format=cifar10"
#define TEST(name) "/v1/datasets/" name "/test?format=cifar10"

static const struct answer *put_with(struct daemon *d, const char *path, const void *bytes,
                                     size_t n, const char *line, int chunked) {
    return call(d, &(struct call){.method = "PUT",
                                  .path = path,
                                  .headers = {line},
                                  .body = bytes,
                                  .size = n,
                                  .chunked = chunked});
}

static void test_a_new_split_is_201_and_the_same_again_200(void **state) {
    struct daemon *d = *state;
    uint8_t *records = make_records(7, 1);
    assert_problem(get(d, "/v1/datasets/pictures"), 404, "not-found", "pictures");
    const struct answer *a = put(d, TRAIN("pictures"), records, 7 * RECORD);
    assert_status(a, 201);
    assert_string_equal(header(a, "Location"), "/v1/datasets/pictures");
    assert_int_equal(number_at(a->json, "/samples"), 7);
    assert_int_equal(number_at(a->json, "/bytes"), 7 * RECORD);
    assert_int_equal(number_at(a->json, "/values_per_sample"), 3072);
    assert_int_equal(number_at(a->json, "/classes"), 10);
    assert_string_equal(text_at(a->json, "/split"), "train");
    const struct answer *again = put(d, TRAIN("pictures"), records, 7 * RECORD);
    assert_status(again, 200);
    assert_true(json_equal(at(again->json, "/sha256"), at(a->json, "/sha256")));
    const struct answer *shown = get(d, "/v1/datasets/pictures");
    assert_status(shown, 200);
    assert_true(json_equal(at(shown->json, "/splits/train"), a->json));
    assert_null(at(shown->json, "/splits/test"));
    assert_status(put(d, TEST("pictures"), records, 2 * RECORD), 201);
    shown = get(d, "/v1/datasets");
    assert_json(shown->json, "/datasets/0/name", "'pictures'");
    assert_int_equal(number_at(shown->json, "/datasets/0/splits/test/samples"), 2);
    free(records);
}

static const char *weights_of(struct daemon *d, const char *id) {
    return text_at(wait_for(d, id, "succeeded")->json, "/provenance/weights/best_sha256");
}

/* A new upload leaves experiments their own version: one that was queued before, and one that names
 * it. */
static void test_versions(void **state) {
    (void)state;
    struct daemon *d = daemon_new((const char *const[]){"--workers", "1", NULL});
    static const char spec[] =
        "{'dataset':{'name':'v'%s},'model':{'kind':'mlp','hidden':[8]},'preprocess':['standardize'"
        "],'training':{'epochs':2,'batch_size':16}}";
    upload_images(d, "v", 60, 20, 1);
    char *plain = submit(d, spec, "");
    const char *weights = weights_of(d, plain);
    char *blocker =
        submit(d, "{'dataset':{'generator':'sphere'},'model':{'kind':'mlp','hidden':[64]},"
                  "'training':{'epochs':100000}}");
    wait_for(d, blocker, "running");
    char *before = submit(d, spec, "");
    upload_images(d, "v", 60, 20, 77);
    char *after = submit(d, spec, "");
    assert_status(post(d, text("/v1/experiments/%s/cancel", blocker), NULL), 202);
    assert_string_equal(weights_of(d, before), weights);
    assert_string_not_equal(weights_of(d, after), weights);
    const json_t *old = wait_for(d, before, "succeeded")->json;
    const json_t *new = wait_for(d, after, "succeeded")->json;
    assert_string_not_equal(text_at(old, "/spec/dataset/version/train"),
                            text_at(new, "/spec/dataset/version/train"));
    assert_string_equal(text_at(old, "/provenance/data/train_sha256"),
                        text_at(old, "/spec/dataset/version/train"));
    /* By version, as the stored spec names it. */
    char *named = submit(d, spec,
                         text(",'version':{'train':'%s','test':'%s'}",
                              text_at(old, "/spec/dataset/version/train"),
                              text_at(old, "/spec/dataset/version/test")));
    assert_string_equal(weights_of(d, named), weights);
    /* The old bytes again: the old version is the current one again. */
    upload_images(d, "v", 60, 20, 1);
    assert_string_equal(text_at(get(d, "/v1/datasets/v")->json, "/splits/train/sha256"),
                        text_at(old, "/spec/dataset/version/train"));
    assert_int_equal(count_files(d, "/datasets"), 4);
    free(plain), free(blocker), free(before), free(after), free(named);
    daemon_free(d);
}

/* An answer may be there before its upload's file is gone. */
static int files_after_a_while(struct daemon *d, int expected) {
    for (int i = 0; i < 600 * SLOWNESS && count_files(d, "/datasets") != expected; i++)
        nap(10);
    return count_files(d, "/datasets");
}

/* Waits until the daemon has given up so many uploads: each was begun, and its client is gone. On a
 * busy machine it comes to a connection long after its client has left. */
static void await_given_up(struct daemon *d, int expected) {
    static const char line[] =
        "ovrd_http_requests_total{method=\"PUT\",route=\"/v1/datasets/{name}/"
        "{split}\",status=\"none\"} ";
    int n = 0;
    for (double until = now() + 30 * SLOWNESS; n != expected; nap(50)) {
        const char *at = strstr(get(d, "/metrics")->body, line);
        n = at ? atoi(at + sizeof line - 1) : 0;
        if (now() > until)
            fail_msg("%d uploads were given up, not %d", n, expected);
    }
}

/* libmicrohttpd overlooks an end that comes together with the last bytes, until the connection has
 * been idle too long. */
static void test_a_cut_off_upload_leaves_nothing(void **state) {
    (void)state;
    struct daemon *d = daemon_new((const char *const[]){"--idle-timeout", "1", NULL});
    uint8_t *records = make_records(8, 3);
    /* Cut both in the middle of a record and between two. */
    const size_t sent[] = {4 * RECORD + 17, 4 * RECORD, 0};
    for (size_t i = 0; i < COUNT(sent); i++) {
        char *bytes = malloc(9 * RECORD);
        size_t n = (size_t)sprintf(bytes,
                                   "PUT " TRAIN("cut") " HTTP/1.1\r\nHost: localhost\r\n"
                                                       "Content-Length: %d\r\n\r\n",
                                   8 * RECORD);
        memcpy(bytes + n, records, sent[i]);
        raw(d, bytes, n + sent[i], 1);
        n = (size_t)sprintf(bytes,
                            "PUT " TRAIN("cut") " HTTP/1.1\r\nHost: localhost\r\n"
                                                "Transfer-Encoding: chunked\r\n\r\n"
                                                "%x\r\n",
                            8 * RECORD);
        memcpy(bytes + n, records, sent[i]);
        raw(d, bytes, n + sent[i], 1);
        free(bytes);
    }
    await_given_up(d, 2 * COUNT(sent));
    assert_int_equal(count_files(d, "/datasets"), 0);
    assert_status(get(d, "/v1/datasets/cut"), 404);
    assert_status(put(d, TRAIN("cut"), records, 8 * RECORD), 201);
    assert_int_equal(count_files(d, "/datasets"), 1);
    free(records);
    daemon_free(d);
}

/* An upload that a killed daemon left half done is gone after the next start. */
static void test_leftovers_are_removed_at_start(void **state) {
    (void)state;
    struct daemon *d = daemon_new(NULL);
    uint8_t *records = make_records(2, 4);
    assert_status(put(d, TRAIN("kept"), records, 2 * RECORD), 201);
    daemon_kill(d);
    FILE *file = fopen(text("%s/datasets/upload-abc123", d->dir), "w");
    assert_non_null(file);
    fclose(file);
    daemon_start(d, NULL);
    assert_int_equal(count_files(d, "/datasets"), 1);
    assert_status(put(d, TRAIN("kept"), records, 2 * RECORD), 200);
    free(records);
    daemon_free(d);
}

static void test_bad_contents(void **state) {
    struct daemon *d = *state;
    int before = count_files(d, "/datasets");
    uint8_t *records = make_records(40, 5);
    const char *path = TRAIN("bad");
    assert_problem(put(d, path, records, 2 * RECORD + 1), 422, "invalid-dataset",
                   "2 records of 3073 bytes and 1 bytes over");
    assert_problem(put(d, path, records, RECORD - 1), 422, "invalid-dataset",
                   "0 records of 3073 bytes and 3072 bytes over");
    assert_problem(put(d, path, NULL, 0), 422, "invalid-dataset", "empty");
    assert_problem(put_with(d, path, "", 0, NULL, 1), 422, "invalid-dataset", "empty");
    records[31 * RECORD] = 10;
    assert_problem(put(d, path, records, 40 * RECORD), 422, "invalid-dataset",
                   "record 31 (byte 95263) has label 10");
    records[3 * RECORD] = 255;
    assert_problem(put_with(d, path, records, 40 * RECORD, NULL, 1), 422, "invalid-dataset",
                   "record 3 (byte 9219) has label 255");
    records[0] = 10;
    assert_problem(put(d, path, records, 40 * RECORD), 422, "invalid-dataset", "record 0");
    assert_status(get(d, "/v1/datasets/bad"), 404);
    assert_int_equal(count_files(d, "/datasets"), before);
    free(records);
}

static void test_formats_and_splits(void **state) {
    struct daemon *d = *state;
    uint8_t *records = make_records(1, 6);
    assert_problem(put(d, "/v1/datasets/f/train", records, RECORD), 422, "invalid-query",
                   "name the format");
    assert_problem(put(d, "/v1/datasets/f/train?format=csv", records, RECORD), 422, "invalid-query",
                   "csv");
    assert_problem(put(d, "/v1/datasets/f/valid?format=cifar10", records, RECORD), 404, "not-found",
                   "valid");
    assert_problem(put(d, "/v1/datasets/f?format=cifar10", records, RECORD), 405,
                   "method-not-allowed", "PUT");
    assert_status(get(d, "/v1/datasets/f"), 404);
    free(records);
}

static void test_names(void **state) {
    struct daemon *d = *state;
    uint8_t *records = make_records(1, 7);
    static const char *const bad[] = {".hidden", "a%20b", "%C3%A4", "a:b", "a%0a", "a%5cb"};
    char name[80];
    for (size_t i = 0; i < COUNT(bad); i++) {
        const struct answer *a =
            put(d, text("/v1/datasets/%s/train?format=cifar10", bad[i]), records, RECORD);
        if (a->status == 400)
            assert_problem(a, 400, "bad-request", "control character");
        else
            assert_problem(a, 422, "invalid-request", "1..64");
    }
    memset(name, 'n', 65);
    name[65] = '\0';
    assert_problem(put(d, text("/v1/datasets/%s/train?format=cifar10", name), records, RECORD), 422,
                   "invalid-request", "1..64");
    assert_status(put(d, text("/v1/datasets/%s/train?format=cifar10", name + 1), records, RECORD),
                  201);
    assert_status(put(d, TRAIN("A-z_0.9"), records, RECORD), 201);
    assert_status(get(d, "/v1/datasets/A-z_0.9"), 200);
    free(records);
}

static void test_paths_that_try_to_escape(void **state) {
    struct daemon *d = *state;
    static const char *const paths[] = {
        "/v1/datasets/..%2f..%2fevil/train?format=cifar10",
        "/v1/datasets/../evil/train?format=cifar10",
        "/v1/datasets/%2e%2e/train?format=cifar10",
        "/v1/datasets/evil%00/train?format=cifar10",
        "/v1/datasets/./train?format=cifar10",
        "/v1/datasets/%c0%ae%c0%ae/train?format=cifar10",
        "/v1/datasets/evil/%2e%2e?format=cifar10",
    };
    uint8_t *records = make_records(1, 8);
    int files = count_files(d, ""), datasets = count_files(d, "/datasets");
    for (size_t i = 0; i < COUNT(paths); i++)
        assert_problem(put(d, paths[i], records, RECORD), 400, "bad-request", "bad path");
    assert_problem(put(d, "/v1/datasets//train?format=cifar10", records, RECORD), 404, "not-found",
                   "");
    assert_int_equal(count_files(d, ""), files);
    assert_int_equal(count_files(d, "/datasets"), datasets);
    assert_int_not_equal(access("/tmp/evil", F_OK), 0);
    free(records);
}

static void test_content_digest(void **state) {
    struct daemon *d = *state;
    /* 3073 bytes, label 3 and zeros; digests by openssl dgst -sha256 -binary | base64. */
    uint8_t record[RECORD] = {3};
    static const char right[] =
        "Content-Digest: sha-256=:9wFfoDVG7S2daOMSdrflH9hzAvze8F77Zp5/Nr+e1lM=:";
    static const char wrong[] =
        "Content-Digest: sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:";
    int before = count_files(d, "/datasets");
    assert_problem(put_with(d, TRAIN("digest"), record, RECORD, wrong, 0), 422, "invalid-dataset",
                   "send the file again");
    assert_problem(put_with(d, TRAIN("digest"), record, RECORD, "Content-Digest: sha-256=:abc:", 0),
                   422, "invalid-request", "RFC 9530");
    assert_problem(put_with(d, TRAIN("digest"), record, RECORD, "Content-Digest: md5=:abc:", 0),
                   422, "invalid-request", "sha-256");
    assert_int_equal(count_files(d, "/datasets"), before);
    assert_status(get(d, "/v1/datasets/digest"), 404);
    assert_status(put_with(d, TRAIN("digest"), record, RECORD, right, 0), 201);
}

static void test_chunked_uploads(void **state) {
    struct daemon *d = *state;
    uint8_t *records = make_records(33, 10);
    const struct answer *a = put_with(d, TRAIN("chunked"), records, 33 * RECORD, NULL, 1);
    assert_status(a, 201);
    assert_int_equal(number_at(a->json, "/samples"), 33);
    /* The same bytes with their length announced. */
    assert_status(put(d, TRAIN("chunked"), records, 33 * RECORD), 200);
    free(records);
}

static void test_any_content_type(void **state) {
    struct daemon *d = *state;
    uint8_t *records = make_records(1, 11);
    static const char *const types[] = {"Content-Type: text/plain",
                                        "Content-Type:", "Content-Type: application/octet-stream"};
    for (size_t i = 0; i < COUNT(types); i++)
        assert_status(put_with(d, TRAIN("types"), records, RECORD, types[i], 0), i ? 200 : 201);
    free(records);
}

static void test_uploads_over_the_limit(void **state) {
    (void)state;
    struct daemon *d = daemon_new((const char *const[]){"--max-upload", "10000", NULL});
    uint8_t *records = make_records(4, 12);
    assert_problem(put(d, TRAIN("big"), records, 4 * RECORD), 413, "too-large", "10000");
    assert_problem(put_with(d, TRAIN("big"), records, 4 * RECORD, NULL, 1), 413, "too-large",
                   "10000");
    assert_int_equal(files_after_a_while(d, 0), 0);
    assert_status(put(d, TRAIN("big"), records, 3 * RECORD), 201);
    /* A client that asks first is told at once, before it sends anything. */
    static const char ask[] =
        "PUT " TRAIN("big") " HTTP/1.1\r\nHost: localhost\r\n"
                            "Content-Length: 99999999\r\nExpect: 100-continue\r\n\r\n";
    const char *reply = raw(d, ask, sizeof ask - 1, 0);
    assert_non_null(strstr(reply, "HTTP/1.1 413 "));
    assert_null(strstr(reply, "100 Continue"));
    free(records);
    daemon_free(d);
}

static void test_etag_of_data_sets(void **state) {
    struct daemon *d = *state;
    static const char *const paths[] = {"/v1/datasets", "/v1/datasets/tagged"};
    for (size_t i = 0; i < COUNT(paths); i++) {
        char tag[64];
        upload_images(d, "tagged", 30, 10, 1);
        snprintf(tag, sizeof tag, "If-None-Match: %s", header(get(d, "%s", paths[i]), "ETag"));
        const struct call again = {.method = "GET", .path = paths[i], .headers = {tag}};
        assert_status(call(d, &again), 304);
        upload_images(d, "tagged", 31, 10, 2);
        assert_status(call(d, &again), 200);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_new_split_is_201_and_the_same_again_200),
        cmocka_unit_test(test_versions),
        cmocka_unit_test(test_a_cut_off_upload_leaves_nothing),
        cmocka_unit_test(test_leftovers_are_removed_at_start),
        cmocka_unit_test(test_bad_contents),
        cmocka_unit_test(test_formats_and_splits),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_paths_that_try_to_escape),
        cmocka_unit_test(test_content_digest),
        cmocka_unit_test(test_chunked_uploads),
        cmocka_unit_test(test_any_content_type),
        cmocka_unit_test(test_uploads_over_the_limit),
        cmocka_unit_test_setup_teardown(test_etag_of_data_sets, with_daemon, without_daemon),
    };
    return cmocka_run_group_tests_name("datasets", tests, with_daemon, without_daemon);
}
