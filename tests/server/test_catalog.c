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
    /* The one that was replaced last stays for who has just read it, until the next start. */
    assert_int_equal(count_entries(place->dir, "/datasets"), 2);
    open_catalog(place);
    assert_int_equal(count_entries(place->dir, "/datasets"), 1);
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
        assert_true(spec_dataset_name_is_valid(good[i]));
    for (size_t i = 0; i < COUNT(bad); i++) {
        struct ovr_err err = {0};
        assert_false(spec_dataset_name_is_valid(bad[i]));
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

/* ---- Other formats ---- */

static int send_as(struct catalog *catalog, const char *split, enum intake_format format,
                   enum intake_part part, const void *bytes, size_t n,
                   struct upload_outcome *outcome, struct ovr_err *err) {
    struct upload *upload;
    struct upload_request request = {
        .dataset = "d", .split = split, .intake = {format, part, "last", -1}, .sha256 = ""};
    int rc = upload_open(&upload, catalog, &request, err);
    if (rc)
        return rc;
    for (size_t at = 0; at < n; at += 13)
        upload_write(upload, (const char *)bytes + at, min_size(13, n - at));
    return upload_finish(upload, outcome, err);
}

static struct upload_outcome must_send(struct catalog *catalog, const char *split,
                                       enum intake_format format, enum intake_part part,
                                       const void *bytes, size_t n) {
    struct upload_outcome outcome;
    struct ovr_err err = {0};
    assert_ok(send_as(catalog, split, format, part, bytes, n, &outcome, &err), &err);
    return outcome;
}

/* An IDX file of n bytes, or of n samples of 2×2 bytes; the caller frees it. */
static uint8_t *make_idx(size_t n, int images, uint8_t first, size_t *size) {
    size_t values = images ? 4 * n : n;
    uint8_t *bytes = calloc(1, 16 + values);
    assert_non_null(bytes);
    memcpy(bytes, images ? "\0\0\x8\3" : "\0\0\x8\1", 4);
    bytes[7] = (uint8_t)n;
    bytes[11] = bytes[15] = images ? 2 : 0;
    *size = (images ? 16 : 8) + values;
    for (size_t i = 0; i < values; i++)
        bytes[*size - values + i] = (uint8_t)((first + i) % (images ? 256 : 10));
    return bytes;
}

static struct upload_outcome send_half(struct catalog *catalog, int images, size_t n,
                                       uint8_t first) {
    size_t size;
    uint8_t *bytes = make_idx(n, images, first, &size);
    struct upload_outcome outcome = must_send(
        catalog, "train", INTAKE_IDX, images ? INTAKE_FEATURES : INTAKE_LABELS, bytes, size);
    free(bytes);
    return outcome;
}

static void assert_half_refused(struct catalog *catalog, int images, size_t n, const char *part) {
    size_t size;
    struct upload_outcome outcome;
    struct ovr_err err = {0};
    uint8_t *bytes = make_idx(n, images, 0, &size);
    assert_failed(send_as(catalog, "train", INTAKE_IDX, images ? INTAKE_FEATURES : INTAKE_LABELS,
                          bytes, size, &outcome, &err),
                  OVR_INVALID, &err, part);
    free(bytes);
}

static void halves_become_a_split(void **state) {
    struct place *place = *state;
    struct catalog catalog = open_catalog(place);
    struct dataset_split split;
    struct samples samples;
    struct ovr_err err = {0};
    struct upload_outcome o = send_half(&catalog, 1, 5, 3);
    assert_string_equal(o.missing, "labels");
    assert_int_equal(o.fresh, 1);
    assert_int_equal(o.part.samples, 5);
    assert_int_equal(store_get_split(place->store, "d", "train", "", &split, NULL), OVR_NOT_FOUND);
    assert_int_equal(send_half(&catalog, 1, 5, 3).fresh, 0); /* the same once more */
    assert_half_refused(&catalog, 0, 6, "these are labels of 6 samples, the features that wait");
    o = send_half(&catalog, 0, 5, 7);
    assert_null(o.missing);
    assert_int_equal(o.fresh, 1);
    assert_true(o.split.samples == 5 && o.split.width == 4 && o.split.classes == 10);
    assert_true(o.split.image.channels == 1 && o.split.image.height == 2);
    assert_string_equal(o.split.format, "idx");
    assert_string_equal(o.split.source_sha256, "");
    assert_int_equal(count_entries(place->dir, "/datasets"), 1); /* the half is gone */
    assert_ok(catalog_open_split(&catalog, &o.split, &samples, &err), &err);
    assert_int_equal(samples.bytes[6], 9);
    assert_int_equal(samples.labels[2], 9);
    samples_release(&samples);
}

/* Labels anew go with the current features; features anew wait for labels. */
static void halves_are_replaced(void **state) {
    struct place *place = *state;
    struct catalog catalog = open_catalog(place);
    struct samples samples;
    struct ovr_err err = {0};
    send_half(&catalog, 0, 5, 0); /* labels first */
    assert_half_refused(&catalog, 1, 6, "the labels that wait for them are of 5");
    struct upload_outcome first = send_half(&catalog, 1, 5, 0);
    struct upload_outcome o = send_half(&catalog, 0, 5, 1);
    assert_null(o.missing);
    assert_string_not_equal(o.split.sha256, first.split.sha256);
    assert_int_equal(send_half(&catalog, 0, 5, 1).fresh, 0);
    assert_string_equal(send_half(&catalog, 0, 5, 0).split.sha256, first.split.sha256);
    assert_half_refused(
        &catalog, 0, 7,
        "the features of the current version are of 5; send the new features first");
    o = send_half(&catalog, 1, 5, 4); /* never with the old labels, though they are as many */
    assert_string_equal(o.missing, "labels");
    assert_ok(store_get_split(place->store, "d", "train", "", &o.split, &err), &err);
    assert_string_equal(o.split.sha256, first.split.sha256);
    o = send_half(&catalog, 1, 7, 9);
    assert_string_equal(o.missing, "labels");
    assert_half_refused(&catalog, 0, 5, "the features that wait for them are of 7");
    assert_ok(store_get_split(place->store, "d", "train", "", &o.split, &err), &err);
    assert_string_equal(o.split.sha256, first.split.sha256); /* until then */
    o = send_half(&catalog, 0, 7, 0);
    assert_null(o.missing);
    assert_int_equal(o.split.samples, 7);
    assert_ok(catalog_open_split(&catalog, &o.split, &samples, &err), &err);
    assert_int_equal(samples.bytes[0], 9);
    samples_release(&samples);
}

static const char train_table[] = "size,kind\n1,b\n2,a\n3,c\n4,b\n";
static const char test_table[] = "size,kind\n5,c\n6,b\n";

static void pin(struct spec *spec, const struct upload_outcome *train,
                const struct upload_outcome *test) {
    *spec = (struct spec){.train_limit = 0};
    snprintf(spec->train_sha256, sizeof spec->train_sha256, "%s", train->split.sha256);
    snprintf(spec->test_sha256, sizeof spec->test_sha256, "%s", test->split.sha256);
}

static void names_of_classes_are_matched(void **state) {
    struct place *place = *state;
    struct catalog catalog = open_catalog(place);
    struct samples train, test;
    struct ovr_err err = {0};
    struct spec spec;
    struct upload_outcome a =
        must_send(&catalog, "train", INTAKE_CSV, INTAKE_WHOLE, train_table, strlen(train_table));
    struct upload_outcome b =
        must_send(&catalog, "test", INTAKE_CSV, INTAKE_WHOLE, test_table, strlen(test_table));
    assert_true(a.split.named && a.split.classes == 3 && b.split.classes == 2);
    pin(&spec, &a, &b);
    assert_ok(catalog_open_samples(&catalog, &spec, 1, &train, &test, &err), &err);
    assert_true(train.labels[0] == 1 && train.labels[1] == 0 && train.labels[2] == 2);
    assert_true(test.labels[0] == 2 && test.labels[1] == 1);
    samples_release(&train);
    samples_release(&test);
    spec.only_classes = (struct class_list){.n = 1, .list = {1}};
    spec.train_limit = 1; /* of those that are left */
    assert_ok(catalog_open_samples(&catalog, &spec, 1, &train, &test, &err), &err);
    assert_true(train.n == 1 && train.labels[0] == 1 && test.n == 1);
    samples_release(&train);
    samples_release(&test);
    spec.only_classes.list[0] = 0; /* not in the test split */
    assert_failed(catalog_open_samples(&catalog, &spec, 1, &train, &test, &err), OVR_INVALID, &err,
                  "no sample of a split");
    samples_release(&train);
    samples_release(&test);
    pin(&spec, &b, &a); /* the other way round: "a" is not known */
    err = (struct ovr_err){0};
    assert_failed(catalog_open_samples(&catalog, &spec, 1, &train, &test, &err), OVR_INVALID, &err,
                  "class \"a\"");
    samples_release(&train);
    samples_release(&test);
    static const char other_column[] = "mass,kind\n5,c\n6,b\n";
    b = must_send(&catalog, "test", INTAKE_CSV, INTAKE_WHOLE, other_column, strlen(other_column));
    pin(&spec, &a, &b);
    err = (struct ovr_err){0};
    assert_failed(catalog_open_samples(&catalog, &spec, 1, &train, &test, &err), OVR_INVALID, &err,
                  "called \"size\" in the training split and \"mass\" in the test split");
    samples_release(&train);
    samples_release(&test);
    static const char wide[] = "1,2,0\n";
    b = must_send(&catalog, "test", INTAKE_CSV, INTAKE_WHOLE, wide, strlen(wide));
    pin(&spec, &a, &b);
    err = (struct ovr_err){0};
    assert_failed(catalog_open_samples(&catalog, &spec, 1, &train, &test, &err), OVR_INVALID, &err,
                  "training samples have 1 values, the test samples 2");
    samples_release(&train);
    samples_release(&test);
}

static void unpacked_bytes_are_limited(void **state) {
    struct place *place = *state;
    struct catalog catalog = open_catalog(place);
    static const char rows[] = "1,0\n1,0\n1,0\n1,0\n1,0\n1,0\n1,0\n1,0\n";
    struct upload_outcome outcome;
    struct ovr_err err = {0};
    catalog.max_bytes = 30;
    must_send(&catalog, "train", INTAKE_CSV, INTAKE_WHOLE, rows, 28);
    assert_failed(send_as(&catalog, "train", INTAKE_CSV, INTAKE_WHOLE, rows, 32, &outcome, &err),
                  OVR_TOO_LARGE, &err, "more than 30 bytes");
    assert_int_equal(count_entries(place->dir, "/datasets"), 1);
}

static void removing(void **state) {
    struct place *place = *state;
    struct catalog catalog = open_catalog(place);
    struct dataset_split split;
    struct ovr_err err = {0};
    char id[ID_SIZE], spec[400];
    struct upload_outcome named =
        must_send(&catalog, "train", INTAKE_CSV, INTAKE_WHOLE, train_table, strlen(train_table));
    must_send(&catalog, "test", INTAKE_CSV, INTAKE_WHOLE, test_table, strlen(test_table));
    snprintf(spec, sizeof spec,
             "{\"dataset\":{\"name\":\"d\",\"version\":{\"train\":\"%s\",\"test\":\"x\"}}}",
             named.split.sha256);
    enqueue(place->store, &(struct new_experiment){.spec = spec}, id);
    assert_failed(catalog_remove(&catalog, "d", &err), OVR_CONFLICT, &err, id);
    int running;
    err = (struct ovr_err){0};
    assert_ok(store_cancel(place->store, id, &running, &err), &err);
    assert_int_equal(count_entries(place->dir, "/datasets"), 2);
    assert_int_equal(count_entries(place->dir, "/summaries"), 2);
    assert_ok(catalog_remove(&catalog, "d", &err), &err);
    /* What the experiment names is there, but not current; the rest is gone. */
    assert_int_equal(count_entries(place->dir, "/datasets"), 1);
    assert_int_equal(count_entries(place->dir, "/summaries"), 1);
    assert_int_equal(store_get_split(place->store, "d", "train", "", &split, NULL), OVR_NOT_FOUND);
    assert_ok(store_get_split(place->store, "d", "train", named.split.sha256, &split, &err), &err);
    assert_failed(catalog_remove(&catalog, "d", &err), OVR_NOT_FOUND, &err, "no data set d");
    send_half(&catalog, 1, 5, 3); /* half a split can be removed too */
    err = (struct ovr_err){0};
    assert_ok(catalog_remove(&catalog, "d", &err), &err);
    assert_int_equal(count_entries(place->dir, "/datasets"), 1);
    /* The experiment takes it along. */
    assert_ok(store_delete_experiment(place->store, id, &err), &err);
    catalog_sweep(&catalog);
    assert_int_equal(count_entries(place->dir, "/datasets"), 0);
    assert_int_equal(count_entries(place->dir, "/summaries"), 0);
}

/* An old version is there as long as one experiment names it. */
static void old_versions_stay_as_long_as_needed(void **state) {
    struct place *place = *state;
    struct catalog catalog = open_catalog(place);
    struct ovr_err err = {0};
    char ids[2][ID_SIZE], spec[400];
    int running;
    struct upload_outcome old =
        must_send(&catalog, "train", INTAKE_CSV, INTAKE_WHOLE, train_table, strlen(train_table));
    snprintf(spec, sizeof spec,
             "{\"dataset\":{\"name\":\"d\",\"version\":{\"train\":\"%s\",\"test\":\"x\"}}}",
             old.split.sha256);
    for (int i = 0; i < 2; i++) {
        enqueue(place->store, &(struct new_experiment){.spec = spec}, ids[i]);
        assert_ok(store_cancel(place->store, ids[i], &running, &err), &err);
    }
    must_send(&catalog, "train", INTAKE_CSV, INTAKE_WHOLE, test_table, strlen(test_table));
    catalog = open_catalog(place);
    assert_int_equal(count_entries(place->dir, "/datasets"), 2);
    for (int i = 0; i < 2; i++) {
        assert_ok(store_delete_experiment(place->store, ids[i], &err), &err);
        catalog_sweep(&catalog);
        assert_int_equal(count_entries(place->dir, "/datasets"), 2 - i);
    }
}

static void summaries_are_made_again(void **state) {
    struct place *place = *state;
    struct catalog catalog = open_catalog(place);
    struct upload_outcome o =
        must_send(&catalog, "train", INTAKE_CSV, INTAKE_WHOLE, train_table, strlen(train_table));
    struct summary summary;
    struct ovr_err err = {0};
    char path[200];
    snprintf(path, sizeof path, "%s/summaries/%s", place->dir, o.split.sha256);
    for (int i = 0; i < 3; i++) {
        if (i == 1)
            write_whole(path, "damaged", 7);
        if (i == 2)
            assert_int_equal(unlink(path), 0);
        assert_ok(catalog_summary(&catalog, &o.split, &summary, &err), &err);
        assert_true(summary.class_counts[1] == 2 && summary.features[0].max == 4);
        summary_release(&summary);
        assert_int_equal(count_entries(place->dir, "/summaries"), 1);
    }
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
        with_store(halves_become_a_split),
        with_store(halves_are_replaced),
        with_store(names_of_classes_are_matched),
        with_store(unpacked_bytes_are_limited),
        with_store(removing),
        with_store(old_versions_stay_as_long_as_needed),
        with_store(summaries_are_made_again),
    };
    return cmocka_run_group_tests_name("server/catalog", tests, NULL, NULL);
}
