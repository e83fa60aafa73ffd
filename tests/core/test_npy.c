/* NPY files that come block by block are those that are written at once. */
#include "core/npy.h"
#include "tests/core/check.h"

#include <stdio.h>
#include <unistd.h>

enum { ROWS = 3, COLUMNS = 10007, STRIDE = 5 };

static float element(size_t row, size_t column) {
    return (float)(row * COLUMNS + column);
}

static void new_path(char path[32]) {
    snprintf(path, 32, "/tmp/ovrd-test-XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
}

static void check_file(const char *path) {
    struct npy_map map;
    struct ovr_err err = {0};
    assert_ok(npy_map(&map, path, ROWS, COLUMNS, &err), &err);
    for (size_t i = 0; i < ROWS; i++)
        for (size_t j = 0; j < COLUMNS; j++)
            if (map.numbers[i * COLUMNS + j] != element(i, j))
                fail_msg("element %zu, %zu is %g", i, j, (double)map.numbers[i * COLUMNS + j]);
    npy_unmap(&map);
    unlink(path);
}

static void rows_in_any_order(void **state) {
    (void)state;
    float *row = calloc(COLUMNS, sizeof *row);
    char path[32];
    struct npy_file npy;
    struct ovr_err err = {0};
    assert_non_null(row);
    new_path(path);
    assert_ok(npy_create(&npy, path, "float32", 2, ROWS, COLUMNS, &err), &err);
    for (size_t i = ROWS; i-- > 0;) {
        for (size_t j = 0; j < COLUMNS; j++)
            row[j] = element(i, j);
        assert_ok(npy_put_rows(&npy, i, 1, row, &err), &err);
    }
    assert_ok(npy_close(&npy, 0, &err), &err);
    check_file(path);
    free(row);
}

/* Numbers that belong to no column lie between them. */
static void columns_in_blocks(void **state) {
    (void)state;
    float *numbers = calloc((size_t)COLUMNS * STRIDE, sizeof *numbers);
    char path[32];
    struct npy_file npy;
    struct ovr_err err = {0};
    assert_non_null(numbers);
    for (size_t j = 0; j < COLUMNS; j++)
        for (size_t i = 0; i < STRIDE; i++)
            numbers[j * STRIDE + i] = i < ROWS ? element(i, j) : -1;
    new_path(path);
    assert_ok(npy_create(&npy, path, "float32", 2, ROWS, COLUMNS, &err), &err);
    assert_ok(
        npy_put_columns(&npy, 9000, COLUMNS - 9000, numbers + (size_t)9000 * STRIDE, STRIDE, &err),
        &err);
    assert_ok(npy_put_columns(&npy, 0, 9000, numbers, STRIDE, &err), &err);
    assert_ok(npy_close(&npy, 0, &err), &err);
    check_file(path);
    free(numbers);
}

/* /dev/full is a disk without room. */
static void faults_are_told(void **state) {
    (void)state;
    const float numbers[ROWS] = {0};
    struct npy_file npy;
    struct ovr_err err = {0};
    int rc = npy_create(&npy, "/nowhere/x.npy", "float32", 1, ROWS, 1, &err);
    assert_failed(npy_close(&npy, rc, &err), OVR_IO, &err, "/nowhere/x.npy");
    err = (struct ovr_err){0};
    rc = npy_write("/dev/full", "float32", 1, ROWS, 1, numbers, &err);
    assert_failed(rc, OVR_FULL, &err, "/dev/full");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_in_any_order),
        cmocka_unit_test(columns_in_blocks),
        cmocka_unit_test(faults_are_told),
    };
    return cmocka_run_group_tests_name("core/npy", tests, NULL, NULL);
}
