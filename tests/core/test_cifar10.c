/* CIFAR-10's binary format: good files, broken ones, and uploads that arrive in pieces. */
#include "core/samples.h"
#include "tests/core/check.h"

#include <fcntl.h>
#include <unistd.h>

enum { RECORDS = 5, BYTES = RECORDS * CIFAR10_RECORD };

/* Labels 9, 0, 1, 2, 3; pixels that look like bad labels wherever they are taken for labels. */
static uint8_t *new_records(void) {
    uint8_t *bytes = malloc(BYTES);
    assert_non_null(bytes);
    for (size_t i = 0; i < BYTES; i++)
        bytes[i] = (uint8_t)(10 + i % 246);
    for (size_t r = 0; r < RECORDS; r++)
        bytes[r * CIFAR10_RECORD] = (uint8_t)((r + 9) % 10);
    return bytes;
}

static int open_bytes(struct samples *samples, const uint8_t *bytes, size_t n,
                      struct ovr_err *err) {
    char path[] = "/tmp/test_cifar10_XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_true(write(fd, bytes, n) == (ssize_t)n);
    close(fd);
    int rc = cifar10_open(samples, path, err);
    unlink(path); /* the map keeps what was opened */
    return rc;
}

/* A bad file: `samples` must stay as it was. */
static void assert_refused(const uint8_t *bytes, size_t n, const char *part) {
    struct samples samples, before;
    struct ovr_err err = {0};
    memset(&samples, 0x5a, sizeof samples);
    memcpy(&before, &samples, sizeof before);
    assert_failed(open_bytes(&samples, bytes, n, &err), OVR_INVALID, &err, part);
    assert_memory_equal(&samples, &before, sizeof samples);
}

static void good_file(void **state) {
    (void)state;
    struct samples s;
    struct ovr_err err = {0};
    uint8_t *bytes = new_records();
    real row[3072];
    assert_ok(open_bytes(&s, bytes, BYTES, &err), &err);
    assert_true(s.n == RECORDS && s.d == 3072 && s.n_classes == 10);
    for (size_t i = 0; i < RECORDS; i++) {
        assert_int_equal(s.labels[i], (i + 9) % 10);
        samples_row(&s, i, row);
        for (size_t j = 0; j < 3072; j++)
            assert_true(row[j] == bytes[i * CIFAR10_RECORD + 1 + j]);
    }
    samples_release(&s);
    assert_null(s.labels);
    free(bytes);
}

static void truncated_and_empty_files(void **state) {
    (void)state;
    uint8_t *bytes = new_records();
    assert_refused(bytes, BYTES - 1, "4 records of 3073 bytes and 3072 bytes over");
    assert_refused(bytes, 1, "0 records of 3073 bytes and 1 bytes over");
    assert_refused(bytes, 0, "the file is empty");
    free(bytes);
}

static void label_out_of_range(void **state) {
    (void)state;
    uint8_t *bytes = new_records();
    bytes[2 * CIFAR10_RECORD] = 10;
    assert_refused(bytes, BYTES, "record 2 (byte 6146) has label 10");
    free(bytes);
}

static void missing_file(void **state) {
    (void)state;
    struct samples s;
    struct ovr_err err = {0};
    assert_failed(cifar10_open(&s, "/nonexistent/x.bin", &err), OVR_IO, &err, "No such file");
    assert_string_equal(err.field, ""); /* a path of this machine is nobody's JSON pointer */
}

static int check_in_pieces(const uint8_t *bytes, size_t piece, struct ovr_err *err) {
    int rc = 0;
    for (size_t at = 0; !rc && at < BYTES; at += piece)
        rc = cifar10_check(bytes + at, min_size(piece, BYTES - at), at, err);
    return rc;
}

static void pieces_agree_with_the_whole(void **state) {
    (void)state;
    const size_t pieces[] = {1, 7, 1000, 3072, 3073, 3074, 5000, 6146, 10001, BYTES};
    uint8_t *bytes = new_records();
    for (size_t bad = 0; bad <= RECORDS; bad++) { /* RECORDS: none */
        if (bad < RECORDS)
            bytes[bad * CIFAR10_RECORD] = 77;
        struct ovr_err whole = {0};
        int rc = cifar10_check(bytes, BYTES, 0, &whole);
        assert_int_equal(rc, bad < RECORDS ? OVR_INVALID : 0);
        for (size_t i = 0; i < COUNT(pieces); i++) {
            struct ovr_err err = {0};
            assert_int_equal(check_in_pieces(bytes, pieces[i], &err), rc);
            assert_string_equal(err.text, whole.text);
        }
        if (bad < RECORDS)
            bytes[bad * CIFAR10_RECORD] = 0;
    }
    free(bytes);
}

/* Far into a file of more than 4 GiB. */
static void offsets_beyond_32_bits(void **state) {
    (void)state;
    struct ovr_err err = {0};
    const uint8_t bytes[] = {255, 255, 12};
    uint64_t record = 3000000;
    assert_failed(cifar10_check(bytes, 3, record * CIFAR10_RECORD - 2, &err), OVR_INVALID, &err,
                  "record 3000000 (byte 9219000000) has label 12");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_file),
        cmocka_unit_test(truncated_and_empty_files),
        cmocka_unit_test(label_out_of_range),
        cmocka_unit_test(missing_file),
        cmocka_unit_test(pieces_agree_with_the_whole),
        cmocka_unit_test(offsets_beyond_32_bits),
    };
    return cmocka_run_group_tests_name("core/cifar10", tests, NULL, NULL);
}
