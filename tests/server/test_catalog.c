/* The data set catalogue: uploads that succeed, uploads that leave nothing, samples read back. */
#include "server/catalog.h"
#include "tests/server/check.h"

#include <fcntl.h>
#include <nettle/sha2.h>
#include <sys/stat.h>

enum { RECORDS = 7, BYTES = RECORDS * CIFAR10_RECORD };

struct records {
    char bytes[BYTES];
    char sha256[SHA256_SIZE]; /* by nettle itself */
};

static void fill_records(struct records *r, uint32_t seed) {
    struct rng rng = test_stream(seed);
    struct sha256_ctx sha;
    uint8_t sum[SHA256_DIGEST_SIZE];
    for (size_t i = 0; i < BYTES; i++)
        r->bytes[i] = (char)rng_below(&rng, i % CIFAR10_RECORD ? 256 : 10);
    sha256_init(&sha);
    sha256_update(&sha, BYTES, (const uint8_t *)r->bytes);
    sha256_digest(&sha, sizeof sum, sum);
    for (size_t i = 0; i < sizeof sum; i++)
        snprintf(r->sha256 + 2 * i, 3, "%02x", sum[i]);
}

static struct catalog open_catalog(struct place *place) {
    struct catalog catalog;
    struct ovr_err err = {0};
    assert_ok(catalog_init(&catalog, place->dir, place->store, &err), &err);
    return catalog;
}

static struct upload *open_upload(struct catalog *catalog, const char *split, const char *sha256) {
    struct upload *upload;
    struct ovr_err err = {0};
    struct upload_request request = {.dataset = "d", .split = split, .sha256 = sha256};
    assert_ok(upload_open(&upload, catalog, &request, &err), &err);
    return upload;
}

/* Uploads n bytes in pieces; returns what upload_finish() says. */
static int send(struct catalog *catalog, const char *split, const char *sha256, const char *bytes,
                size_t n, size_t piece, struct dataset_split *stored, int *fresh,
                struct ovr_err *err) {
    struct upload *upload = open_upload(catalog, split, sha256);
    for (size_t at = 0; at < n; at += piece)
        upload_write(upload, bytes + at, min_size(piece, n - at));
    struct upload_outcome outcome;
    int rc = upload_finish(upload, &outcome, err);
    *stored = outcome.split;
    *fresh = outcome.fresh;
    return rc;
}

static void assert_nothing_stored(struct place *place) {
    struct dataset_split *list;
    size_t n;
    struct ovr_err err = {0};
    assert_ok(store_list_splits(place->store, NULL, &list, &n, &err), &err);
    assert_int_equal(n, 0);
    assert_int_equal(count_entries(place->dir, "/datasets"), 0);
}

static void pieces_of_any_size(void **state) {
    struct place *place = *state;
    static const size_t pieces[] = {BYTES, 1, 7, 1000, 3072, 3073, 3074, 8191, 20000};
    for (size_t i = 0; i < COUNT(pieces); i++) {
        struct catalog catalog = open_catalog(place);
        struct records r;
        struct dataset_split stored;
        struct ovr_err err = {0};
        int fresh = 7;
        char path[160];
        size_t n;
        fill_records(&r, (uint32_t)i);
        int64_t before = now_ms();
        assert_ok(send(&catalog, "train", i % 2 ? r.sha256 : "", r.bytes, BYTES, pieces[i], &stored,
                       &fresh, &err),
                  &err);
        assert_int_equal(fresh, 1);
        assert_string_equal(stored.sha256, r.sha256);
        assert_string_equal(stored.dataset, "d");
        assert_string_equal(stored.split, "train");
        assert_string_equal(stored.format, "cifar10");
        assert_int_equal(stored.bytes, BYTES);
        assert_int_equal(stored.samples, RECORDS);
        assert_int_equal(stored.width, 3072);
        assert_int_equal(stored.classes, 10);
        assert_in_range(stored.created_at, before, now_ms());
        snprintf(path, sizeof path, "%s/datasets/%s", place->dir, r.sha256);
        char *bytes = read_whole(path, &n);
        assert_int_equal(n, BYTES);
        assert_memory_equal(bytes, r.bytes, BYTES);
        free(bytes);
        assert_ok(store_get_split(place->store, "d", "train", "", &stored, &err), &err);
        assert_string_equal(stored.sha256, r.sha256);
    }
    assert_int_equal(count_entries(place->dir, "/datasets"), COUNT(pieces));
}

static void the_same_content_twice(void **state) {
    struct place *place = *state;
    struct catalog catalog = open_catalog(place);
    struct records r;
    struct dataset_split stored;
    struct ovr_err err = {0};
    fill_records(&r, 1);
    for (int i = 0; i < 3; i++) {
        int fresh = 7;
        assert_ok(send(&catalog, "train", "", r.bytes, BYTES, 5000, &stored, &fresh, &err), &err);
        assert_int_equal(fresh, i == 0);
        assert_int_equal(count_entries(place->dir, "/datasets"), 1);
    }
    int fresh = 7; /* the other split: one more version, the same file */
    assert_ok(send(&catalog, "test", "", r.bytes, BYTES, 5000, &stored, &fresh, &err), &err);
    assert_int_equal(fresh, 1);
    assert_int_equal(count_entries(place->dir, "/datasets"), 1);
}

static void aborting(void **state) {
    struct place *place = *state;
    struct catalog catalog = open_catalog(place);
    struct records r;
    fill_records(&r, 1);
    struct upload *upload = open_upload(&catalog, "train", "");
    assert_int_equal(upload_write(upload, r.bytes, BYTES), 0);
    assert_int_equal(count_entries(place->dir, "/datasets"), 1);
    upload_abort(upload);
    upload_abort(NULL);
    assert_nothing_stored(place);
}

static void bad_bytes(void **state) {
    struct place *place = *state;
    struct catalog catalog = open_catalog(place);
    struct dataset_split stored;
    int fresh;
    static const size_t pieces[] = {1, 3073, 4000, BYTES};
    static const size_t sizes[] = {0, 1, 3072, 3074, BYTES - 1};
    static const char *const parts[] = {"empty", "0 records of 3073 bytes and 1 bytes over",
                                        "0 records", "1 records of 3073 bytes and 1 bytes",
                                        "6 records of 3073 bytes and 3072 bytes"};
    struct records r;
    fill_records(&r, 1);
    for (size_t i = 0; i < COUNT(sizes); i++) {
        struct ovr_err err = {0};
        assert_failed(send(&catalog, "train", "", r.bytes, sizes[i], 3000, &stored, &fresh, &err),
                      OVR_INVALID, &err, parts[i]);
        assert_nothing_stored(place);
    }
    r.bytes[4 * CIFAR10_RECORD] = 10; /* a label */
    for (size_t i = 0; i < COUNT(pieces); i++) {
        struct ovr_err err = {0};
        assert_failed(send(&catalog, "train", "", r.bytes, BYTES, pieces[i], &stored, &fresh, &err),
                      OVR_INVALID, &err, "record 4 (byte 12292) has label 10");
        assert_nothing_stored(place);
    }
    struct upload *upload = open_upload(&catalog, "train", ""); /* takes nothing any more */
    assert_int_equal(upload_write(upload, r.bytes, BYTES), OVR_INVALID);
    assert_int_equal(upload_write(upload, "\1", 1), OVR_INVALID);
    upload_abort(upload);
}

static void another_digest_than_announced(void **state) {
    struct place *place = *state;
    struct catalog catalog = open_catalog(place);
    struct records r, other;
    struct dataset_split stored;
    struct ovr_err err = {0};
    int fresh;
    fill_records(&r, 1);
    fill_records(&other, 2);
    assert_failed(send(&catalog, "test", other.sha256, r.bytes, BYTES, 3000, &stored, &fresh, &err),
                  OVR_INVALID, &err, r.sha256);
    assert_non_null(strstr(err.text, other.sha256));
    assert_nothing_stored(place);
}

static void leftovers_are_removed(void **state) {
    struct place *place = *state;
    struct catalog catalog = open_catalog(place);
    struct records r;
    struct dataset_split stored;
    struct ovr_err err = {0};
    int fresh;
    char path[128];
    fill_records(&r, 1);
    assert_ok(send(&catalog, "train", "", r.bytes, BYTES, BYTES, &stored, &fresh, &err), &err);
    snprintf(path, sizeof path, "%s/datasets/upload-abcdef", place->dir);
    write_whole(path, "x", 1);
    assert_int_equal(count_entries(place->dir, "/datasets"), 2);
    open_catalog(place);
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(count_entries(place->dir, "/datasets"), 1); /* the data stay */
}

static void names_and_splits(void **state) {
    struct place *place = *state;
    struct catalog catalog = open_catalog(place);
    static const char *const good[] = {
        "a", "A-Z_0.9", "-", "x..y",
        "0123456789012345678901234567890123456789012345678901234567890123"};
    static const char *const bad[] = {
        "",    ".",   "..",   ".a",
        "a/b", "/",   "a b",  "a\n",
        "é",   "a:b", "a%2f", "01234567890123456789012345678901234567890123456789012345678901234"};
    struct upload *upload;
    for (size_t i = 0; i < COUNT(good); i++)
        assert_true(catalog_name_is_valid(good[i]));
    for (size_t i = 0; i < COUNT(bad); i++) {
        struct ovr_err err = {0};
        assert_false(catalog_name_is_valid(bad[i]));
        struct upload_request request = {.dataset = bad[i], .split = "train", .sha256 = ""};
        assert_failed(upload_open(&upload, &catalog, &request, &err), OVR_INVALID, &err,
                      "1..64 letters");
        assert_null(upload);
    }
    struct ovr_err err = {0};
    struct upload_request request = {.dataset = "d", .split = "valid", .sha256 = ""};
    assert_failed(upload_open(&upload, &catalog, &request, &err), OVR_NOT_FOUND, &err,
                  "there is no split valid");
    assert_nothing_stored(place);
}

static void directories_that_cannot_be(void **state) {
    struct place *place = *state;
    struct catalog catalog;
    struct ovr_err err = {0};
    char path[600];
    snprintf(path, sizeof path, "%s/none", place->dir);
    assert_failed(catalog_init(&catalog, path, place->store, &err), OVR_IO, &err, path);
    memset(path, 'x', sizeof path - 1);
    path[sizeof path - 1] = '\0';
    err = (struct ovr_err){0};
    assert_failed(catalog_init(&catalog, path, place->store, &err), OVR_INVALID, &err, "too long");
}

static void samples_and_limits(void **state) {
    struct place *place = *state;
    struct catalog catalog = open_catalog(place);
    struct records r[2];
    struct dataset_split stored;
    struct ovr_err err = {0};
    struct samples train, test;
    int fresh;
    struct spec spec = {.train_limit = 0, .test_limit = 3};
    for (uint32_t i = 0; i < 2; i++) {
        fill_records(&r[i], i);
        assert_ok(send(&catalog, i ? "test" : "train", "", r[i].bytes, BYTES, BYTES, &stored,
                       &fresh, &err),
                  &err);
    }
    snprintf(spec.train_sha256, sizeof spec.train_sha256, "%s", r[0].sha256);
    snprintf(spec.test_sha256, sizeof spec.test_sha256, "%s", r[1].sha256);
    assert_ok(catalog_open_samples(&catalog, &spec, 1, &train, &test, &err), &err);
    assert_int_equal(train.n, RECORDS);
    assert_int_equal(test.n, 3);
    assert_int_equal(test.d, 3072);
    assert_int_equal(test.n_classes, 10);
    for (size_t i = 0; i < 3; i++) {
        real row[3072];
        const char *record = r[1].bytes + i * CIFAR10_RECORD;
        samples_row(&test, i, row);
        assert_int_equal(test.labels[i], record[0]);
        for (size_t j = 0; j < 3072; j++)
            assert_true(row[j] == (real)(uint8_t)record[j + 1]);
    }
    samples_release(&train);
    samples_release(&test);
    spec.test_limit = 1000; /* more than there are: all */
    assert_ok(catalog_open_samples(&catalog, &spec, 1, &train, &test, &err), &err);
    assert_int_equal(test.n, RECORDS);
    samples_release(&train);
    samples_release(&test);
    spec.test_sha256[0] ^= 1;
    assert_failed(catalog_open_samples(&catalog, &spec, 1, &train, &test, &err), OVR_IO, &err,
                  "cannot be read; upload it again");
    samples_release(&train);
    samples_release(&test);
}

/* A result names the bytes it was trained on, so other bytes under that name are refused. */
static void damaged_files_are_refused(void **state) {
    struct place *place = *state;
    struct catalog catalog = open_catalog(place);
    struct records r;
    struct dataset_split stored;
    struct ovr_err err = {0};
    struct samples train, test;
    struct spec spec = {0};
    char path[700];
    int fresh;
    fill_records(&r, 5);
    assert_ok(send(&catalog, "train", "", r.bytes, BYTES, BYTES, &stored, &fresh, &err), &err);
    snprintf(spec.train_sha256, sizeof spec.train_sha256, "%s", r.sha256);
    snprintf(spec.test_sha256, sizeof spec.test_sha256, "%s", r.sha256);
    snprintf(path, sizeof path, "%s/%s", catalog.directory, r.sha256);
    assert_int_equal(chmod(path, 0644), 0);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    assert_int_equal(pwrite(fd, &(char){r.bytes[1000] ^ 1}, 1, 1000), 1);
    assert_failed(catalog_open_samples(&catalog, &spec, 1, &train, &test, &err), OVR_IO, &err,
                  "no longer has the SHA-256");
    samples_release(&train);
    samples_release(&test);
    err = (struct ovr_err){0};
    assert_int_equal(ftruncate(fd, 3073), 0); /* whole records, but fewer */
    close(fd);
    assert_failed(catalog_open_samples(&catalog, &spec, 1, &train, &test, &err), OVR_IO, &err,
                  "upload it again");
    samples_release(&train);
    samples_release(&test);
}

static void generated_samples(void **state) {
    struct place *place = *state;
    struct catalog catalog = open_catalog(place);
    struct ovr_err err = {0};
    struct samples train, test;
    struct spec spec = {.generated = 1, .sphere = {20, 5, 2, 3, 4, 7}};
    assert_ok(catalog_open_samples(&catalog, &spec, 1, &train, &test, &err), &err);
    assert_int_equal(train.n, 20);
    assert_int_equal(test.n, 5);
    assert_int_equal(train.d, 3);
    assert_int_equal(train.n_classes, 4);
    samples_release(&train);
    samples_release(&test);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        with_store(pieces_of_any_size),
        with_store(the_same_content_twice),
        with_store(aborting),
        with_store(bad_bytes),
        with_store(another_digest_than_announced),
        with_store(leftovers_are_removed),
        with_store(names_and_splits),
        with_store(directories_that_cannot_be),
        with_store(samples_and_limits),
        with_store(damaged_files_are_refused),
        with_store(generated_samples),
    };
    return cmocka_run_group_tests_name("server/catalog", tests, NULL, NULL);
}
