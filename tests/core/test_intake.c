/* Intake: every format in pieces of every size, broken files of every kind, files that were changed
 * at random, and the row files that they become. */
#include "core/intake.h"
#include "core/summary.h"
#include "tests/core/check.h"
#include "tests/core/golden_arrays.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

/* One file taken in, and what came of it. */
struct taken {
    char path[40];
    int fd, labels_fd;
    struct intake_result result;
    struct ovr_err err;
};

static void taken_release(struct taken *taken) {
    unlink(taken->path);
    close(taken->fd);
    close(taken->labels_fd);
}

static const struct intake_config csv_last = {INTAKE_CSV, INTAKE_WHOLE, "last", -1};
static const struct intake_config npy_features = {INTAKE_NPY, INTAKE_FEATURES, NULL, -1};
static const struct intake_config npy_labels = {INTAKE_NPY, INTAKE_LABELS, NULL, -1};
static const struct intake_config idx_features = {INTAKE_IDX, INTAKE_FEATURES, NULL, -1};
static const struct intake_config idx_labels = {INTAKE_IDX, INTAKE_LABELS, NULL, -1};

/* In pieces of so many bytes; each piece is a block of its own, so that a read behind it is found.
 */
static int take(struct taken *taken, const struct intake_config *config, const void *bytes,
                size_t n, size_t piece) {
    struct intake *intake = NULL;
    *taken = (struct taken){.labels_fd = memfd_create("labels", MFD_CLOEXEC)};
    snprintf(taken->path, sizeof taken->path, "/tmp/test_intake_XXXXXX");
    taken->fd = mkstemp(taken->path);
    assert_true(taken->fd >= 0 && taken->labels_fd >= 0);
    int rc = intake_open(&intake, config, taken->fd, taken->labels_fd, &taken->err);
    for (size_t at = 0; !rc && at < n; at += piece) {
        size_t part = min_size(piece, n - at);
        char *copy = malloc(part);
        assert_non_null(copy);
        memcpy(copy, (const char *)bytes + at, part);
        rc = intake_write(intake, copy, part, &taken->err);
        free(copy);
    }
    if (!rc)
        rc = intake_finish(intake, &taken->result, &taken->err);
    intake_free(intake);
    return rc;
}

static struct samples open_taken(const struct taken *taken) {
    struct samples samples;
    struct ovr_err err = {0};
    assert_ok(samples_open(&samples, taken->path, &err), &err);
    return samples;
}

static struct samples read_in(const struct intake_config *config, const void *bytes, size_t n,
                              size_t piece) {
    struct taken taken;
    assert_ok(take(&taken, config, bytes, n, piece), &taken.err);
    struct samples samples = open_taken(&taken);
    taken_release(&taken);
    return samples;
}

#define assert_refused(config, bytes, n, part)                                                     \
    check_refused((config), (bytes), (n), (part), __FILE__, __LINE__)

static void check_refused(const struct intake_config *config, const void *bytes, size_t n,
                          const char *part, const char *file, int line) {
    for (size_t piece = 1; piece <= n + 7; piece += piece < 8 ? 1 : n) {
        struct taken taken;
        int rc = take(&taken, config, bytes, n, piece);
        check_failed(rc, OVR_INVALID, &taken.err, part, "take()", file, line);
        taken_release(&taken);
    }
}

#define assert_table_refused(text, part) assert_refused(&csv_last, text, strlen(text), part)

/* ---- CSV ---- */

static const char flowers[] = "\xef\xbb\xbf"
                              "length; width ;\"the \"\"kind\"\"\r\nor so\";depth\r\n"
                              "1.5;2;rose;-3e-1\r\n"
                              "\r\n"
                              " 0 ; .25;\"a; daisy\";+4\n"
                              "\"7\";8;rose;9";

static void check_flowers(const struct samples *s) {
    static const real expected[3][3] = {{1.5, 2, (real)-0.3f}, {0, 0.25, 4}, {7, 8, 9}};
    real row[3];
    assert_int_equal(s->n, 3);
    assert_int_equal(s->d, 3);
    assert_int_equal(s->n_classes, 2);
    for (size_t i = 0; i < 3; i++) {
        samples_row(s, i, row);
        assert_memory_equal(row, expected[i], sizeof row);
    }
    assert_true(s->labels[0] == 1 && s->labels[1] == 0 && s->labels[2] == 1);
    char text[16];
    assert_string_equal(samples_class_name(s, 0, text), "a; daisy");
    assert_string_equal(samples_class_name(s, 1, text), "rose");
    assert_memory_equal(s->feature_names, "length\0width\0depth", 19);
    assert_int_equal(s->image.channels, 0);
}

static void tables_in_pieces(void **state) {
    (void)state;
    static const char *const labels[] = {"the \"kind\"\r\nor so", "2"};
    for (size_t piece = 1; piece <= sizeof flowers; piece++)
        for (size_t k = 0; k < 2; k++)
            for (int header = -1; header <= 1; header += 2) {
                const struct intake_config config = {INTAKE_CSV, INTAKE_WHOLE, labels[k], header};
                struct samples s = read_in(&config, flowers, sizeof flowers - 1, piece);
                check_flowers(&s);
                samples_release(&s);
            }
}

static struct samples read_table(const char *label, int header, const char *text) {
    const struct intake_config config = {INTAKE_CSV, INTAKE_WHOLE, label, header};
    return read_in(&config, text, strlen(text), 5);
}

static void labels_that_are_numbers_stay(void **state) {
    (void)state;
    struct samples s = read_table("0", -1, "3,1,2\n0,3,4\n3.0,5,6\n");
    assert_int_equal(s.n_classes, 4);
    assert_null(s.class_names);
    assert_null(s.feature_names);
    assert_true(s.labels[0] == 3 && s.labels[1] == 0 && s.labels[2] == 3);
    assert_non_null(s.bytes); /* whole values 0..255 */
    assert_int_equal(s.bytes[2 * s.stride + 1], 6);
    samples_release(&s);
    s = read_table("last", -1, "1\t-1\n2\t1\n"); /* no numbers of classes */
    assert_int_equal(s.n_classes, 2);
    assert_memory_equal(s.class_names, "-1\0001", 5);
    assert_true(s.labels[0] == 0 && s.labels[1] == 1);
    samples_release(&s);
    s = read_table("last", -1, "1,1000\n2,999\n"); /* one too many for a number */
    assert_memory_equal(s.class_names, "1000\000999", 9);
    samples_release(&s);
    s = read_table("last", -1, "1,1\n2,01\n"); /* two classes, not one */
    assert_int_equal(s.n_classes, 2);
    assert_memory_equal(s.class_names, "01\0001", 5);
    assert_true(s.labels[0] == 1 && s.labels[1] == 0);
    samples_release(&s);
}

static void headers(void **state) {
    (void)state;
    static const char numbers[] = "1,2,0\n3,4,1\n", words[] = "a,b,c\n3,4,1\n";
    struct samples s = read_table("last", -1, numbers);
    assert_int_equal(s.n, 2);
    samples_release(&s);
    s = read_table("last", 1, numbers); /* names of digits */
    assert_int_equal(s.n, 1);
    assert_memory_equal(s.feature_names, "1\0002", 4);
    samples_release(&s);
    s = read_table("last", -1, words);
    assert_int_equal(s.n, 1);
    samples_release(&s);
    s = read_table("2", 1, "5,6,2\n3,4,1\n"); /* a name, not a number */
    assert_int_equal(s.labels[0], 1);
    samples_release(&s);
    const struct intake_config none = {INTAKE_CSV, INTAKE_WHOLE, "last", 0};
    assert_refused(&none, words, strlen(words), "line 1, column 1: \"a\" is not a finite number");
}

static void bad_tables(void **state) {
    (void)state;
    assert_table_refused("", "no rows");
    assert_table_refused("\r\n\n", "no rows");
    assert_table_refused("a,b,c\n", "no rows beside its line of names");
    assert_table_refused("1\n2\n", "line 1 has one column");
    assert_table_refused("1,2,0\n1,x,0\n", "line 2, column 2: \"x\" is not a finite number");
    assert_table_refused("a,b,c\n1,2,0\n1,,0\n", "line 3, column 2 (b): an empty field is not");
    assert_table_refused("1,2,0\nnan,2,0\n", "line 2, column 1: \"nan\" is not a finite");
    assert_table_refused("nan,2,0\n", "line 1, column 1: \"nan\" is not a finite");
    assert_table_refused("1,-inf,0\n", "line 1, column 2: \"-inf\" is not a finite");
    assert_table_refused("1,2,0\n1,1e39,0\n", "line 2, column 2: \"1e39\" is too large for a 32");
    assert_table_refused("1,2,0\n1,1e999,0\n", "column 2: \"1e999\" is too large");
    assert_table_refused("1,2,0\n1,0x10,0\n", "\"0x10\" is not a finite number");
    assert_table_refused("1,2,0\n1,1e,0\n", "\"1e\" is not a finite number");
    assert_table_refused("1,2,0\n1,2\n", "line 2 has 2 columns, the first line has 3");
    assert_table_refused("1,2,0\n\n\n1,2,0,0\n", "line 4 has 4 columns, the first line has 3");
    assert_table_refused("1,2,0\n1,2,\n", "line 2 has no label");
    assert_table_refused("1,2,0\n1,2\",0\n", "line 2 opens a quote that is never closed");
    assert_table_refused("1,2,0\n1,2\"3\",0\n", "line 2 has a quote inside a field");
    assert_table_refused("1,2,0\n1,\"2\"3,0\n", "line 2 has something behind a closing quote");
    assert_table_refused("1,2,0\n\"1\n2\n,3", "line 2 opens a quote that is never closed");
    assert_table_refused("1,2,0\n1,2,\xff\n", "line 2 has a label that is longer than 255 bytes");
    assert_table_refused("1,2,0\n1,2,\xed\xa0\x80\n", "not UTF-8"); /* half a surrogate pair */
    assert_table_refused("a,\xc3,c\n1,2,0\n", "line 1 has a name that is not UTF-8");
    assert_refused(&csv_last, "1,2,0\n1,\0,0\n", 13, "line 2 has a byte 0");
    static const char named[] = "a,b,b\n1,2,3\n";
    struct intake_config config = {INTAKE_CSV, INTAKE_WHOLE, "z", -1};
    assert_refused(&config, named, strlen(named), "there is no column \"z\"");
    config.label = "b";
    assert_refused(&config, named, strlen(named), "2 columns are called \"b\"");
    config.label = "3";
    assert_refused(&config, named, strlen(named), "a number 0..2");
    config.label = NULL;
    assert_refused(&config, named, strlen(named), "csv needs label=");
}

static void too_many_classes(void **state) {
    (void)state;
    char *text = malloc(CLASSES_MAX * 16 + 64);
    size_t n = 0;
    assert_non_null(text);
    for (int i = 0; i < CLASSES_MAX; i++)
        n += (size_t)sprintf(text + n, "1,2,c%04d\n", i);
    struct samples s = read_table("last", -1, text);
    assert_int_equal(s.n_classes, CLASSES_MAX);
    for (size_t i = 0; i < CLASSES_MAX; i++)
        assert_int_equal(s.labels[i], i);
    samples_release(&s);
    n += (size_t)sprintf(text + n, "1,2,one more\n");
    struct taken taken;
    assert_failed(take(&taken, &csv_last, text, n, n), OVR_INVALID, &taken.err,
                  "line 1001 has label number 1001");
    taken_release(&taken);
    free(text);
}

/* More than fits into the writer's buffers. */
static void long_tables(void **state) {
    (void)state;
    enum { ROWS = 20000 };
    for (int whole = 0; whole < 2; whole++) {
        char *text = malloc(ROWS * 32);
        size_t n = 0;
        assert_non_null(text);
        for (int i = 0; i < ROWS; i++)
            n +=
                (size_t)sprintf(text + n, "%d%s,%d,%d\n", i % 200, whole ? "" : ".5", i % 7, i % 3);
        struct samples s = read_in(&csv_last, text, n, 60000);
        assert_int_equal(s.n, ROWS);
        assert_int_equal(s.bytes != NULL, whole);
        for (size_t i = 0; i < ROWS; i++) {
            real row[2];
            samples_row(&s, i, row);
            assert_true(row[0] == (real)(i % 200) + (whole ? 0 : (real)0.5));
            assert_true(row[1] == (real)(i % 7) && s.labels[i] == i % 3);
        }
        samples_release(&s);
        free(text);
    }
}

static void wide_tables(void **state) {
    (void)state;
    char *text = malloc(2 * VALUES_MAX + 64);
    assert_non_null(text);
    for (size_t i = 0; i <= VALUES_MAX; i++)
        memcpy(text + 2 * i, "1,", 2);
    struct taken taken;
    memcpy(text + 2 * VALUES_MAX, "0\n", 3);
    assert_ok(take(&taken, &csv_last, text, 2 * VALUES_MAX + 2, 1 << 16), &taken.err);
    assert_int_equal(taken.result.d, VALUES_MAX);
    taken_release(&taken);
    memcpy(text + 2 * VALUES_MAX, "0,0\n", 5);
    assert_failed(take(&taken, &csv_last, text, 2 * VALUES_MAX + 4, 1 << 16), OVR_INVALID,
                  &taken.err, "line 1 has more than 1048577 columns");
    taken_release(&taken);
    free(text);
}

/* ---- Arrays ---- */

static const double golden_values[4][3] = {
    {0, 1.5, -2.25}, {1e-3, 255, 7}, {3, -0.5, 1e6}, {42, 0.125, -1}};

static void check_values(const struct intake_config *config, const void *bytes, size_t n) {
    for (size_t piece = 1; piece <= n; piece += piece < 20 ? 1 : n - 20) {
        struct samples s = read_in(config, bytes, n, piece);
        assert_true(s.n == 4 && s.d == 3 && s.image.channels == 0 && s.labels == NULL);
        for (size_t i = 0; i < 4; i++) {
            real row[3];
            samples_row(&s, i, row);
            for (size_t j = 0; j < 3; j++)
                assert_true(row[j] == (real)(float)golden_values[i][j]);
        }
        samples_release(&s);
    }
}

static void check_images(const struct intake_config *config, const void *bytes, size_t n) {
    for (size_t piece = 1; piece <= n; piece += piece < 20 ? 1 : n - 20) {
        struct samples s = read_in(config, bytes, n, piece);
        assert_true(s.n == 4 && s.d == 6 && s.bytes);
        assert_true(s.image.channels == 1 && s.image.height == 2 && s.image.width == 3);
        for (size_t i = 0; i < 24; i++)
            assert_int_equal(s.bytes[i], 10 * i);
        samples_release(&s);
    }
}

static void check_labels(const struct intake_config *config, const void *bytes, size_t n) {
    static const uint16_t expected[] = {2, 0, 1, 2};
    for (size_t piece = 1; piece <= n; piece += piece < 20 ? 1 : n - 20) {
        struct samples s = read_in(config, bytes, n, piece);
        assert_true(s.n == 4 && s.d == 0 && s.n_classes == 3);
        assert_memory_equal(s.labels, expected, sizeof expected);
        samples_release(&s);
    }
}

static void arrays_of_numpy(void **state) {
    (void)state;
    check_values(&npy_features, npy_f8, sizeof npy_f8);
    check_values(&npy_features, npy_f4, sizeof npy_f4);
    check_values(&npy_features, npy_f8_big, sizeof npy_f8_big);
    check_images(&npy_features, npy_images_u1, sizeof npy_images_u1);
    check_images(&npy_features, npy_images_i8, sizeof npy_images_i8);
    check_labels(&npy_labels, npy_labels_i8, sizeof npy_labels_i8);
    check_labels(&npy_labels, npy_labels_i4, sizeof npy_labels_i4);
    struct samples s = read_in(&npy_features, npy_negative_i2, sizeof npy_negative_i2, 3);
    real value;
    samples_row(&s, 0, &value);
    assert_true(s.d == 1 && value == -300);
    samples_release(&s);
    s = read_in(&npy_features, npy_colour, sizeof npy_colour, 50);
    assert_true(s.image.channels == 3 && s.image.height == 2 && s.image.width == 2);
    assert_true(s.image.interleaved);
    samples_release(&s);
}

static void arrays_of_idx(void **state) {
    (void)state;
    check_values(&idx_features, idx_f4, sizeof idx_f4);
    check_values(&idx_features, idx_f8, sizeof idx_f8);
    check_images(&idx_features, idx_images_u1, sizeof idx_images_u1);
    check_images(&idx_features, idx_images_i2, sizeof idx_images_i2);
    check_labels(&idx_labels, idx_label_bytes, sizeof idx_label_bytes);
    struct samples s = read_in(&idx_features, idx_i4, sizeof idx_i4, 7);
    real row[2];
    samples_row(&s, 0, row);
    assert_true(row[0] == -70000 && row[1] == 70000);
    samples_release(&s);
    s = read_in(&idx_features, idx_i1, sizeof idx_i1, 1);
    samples_row(&s, 0, row);
    assert_true(row[0] == -128);
    samples_release(&s);
}

static void bad_numpy_arrays(void **state) {
    (void)state;
    unsigned char bytes[sizeof npy_f8 + 8];
    assert_refused(&npy_features, npy_fortran, sizeof npy_fortran, "ascontiguousarray");
    assert_refused(&npy_features, npy_objects, sizeof npy_objects, "the array's type '|O'");
    assert_refused(&npy_features, npy_text, sizeof npy_text, "the array's type '<U1'");
    assert_refused(&npy_features, npy_half, sizeof npy_half, "the array's type '<f2' is not");
    assert_refused(&npy_features, npy_nan, sizeof npy_nan,
                   "value 2 of sample 1 (both from 0) is nan; only finite");
    assert_refused(&npy_features, npy_huge, sizeof npy_huge,
                   "value 0 of sample 1 (both from 0) is 1e+39, too large");
    assert_refused(&npy_features, npy_scalar, sizeof npy_scalar, "no shape of 1 to 4");
    assert_refused(&npy_features, npy_empty, sizeof npy_empty, "the array is empty");
    assert_refused(&npy_features, "", 0, "the file is empty");
    assert_refused(&npy_features, npy_f8, 70, "ends within its header");
    assert_refused(&npy_features, npy_f8, sizeof npy_f8 - 1, "is cut off: its header says 4");
    assert_refused(&npy_features, npy_f8, sizeof npy_f8 - 8, "11 values came");
    assert_refused(&npy_features, idx_f4, sizeof idx_f4, "is not an NPY file");
    assert_refused(&npy_labels, npy_f8, sizeof npy_f8, "this array has 3; of one-hot rows");
    assert_refused(&npy_labels, npy_negative_i2, sizeof npy_negative_i2,
                   "the label of sample 0 (from 0) is -300; labels are whole numbers 0..999");
    assert_refused(&npy_labels, npy_huge, sizeof npy_huge,
                   "the label of sample 1 (from 0) is 1e+39");
    memcpy(bytes, npy_f8, sizeof npy_f8);
    memset(bytes + sizeof npy_f8, 0, 8);
    assert_refused(&npy_features, bytes, sizeof npy_f8 + 8, "more bytes than the header's 4");
    assert_refused(&npy_features, bytes, sizeof npy_f8 + 1, "behind the last value");
    bytes[6] = 4;
    assert_refused(&npy_features, bytes, sizeof npy_f8, "version 4");
    const struct intake_config whole = {INTAKE_NPY, INTAKE_WHOLE, NULL, -1};
    assert_refused(&whole, npy_f8, sizeof npy_f8, "send two");
}

static void bad_idx_arrays(void **state) {
    (void)state;
    static const unsigned char type[] = {0, 0, 7, 1, 0, 0, 0, 1, 0};
    static const unsigned char many[] = {0, 0, 8, 5, 0, 0, 0, 1, 0};
    static const unsigned char none[] = {0, 0, 8, 1, 0, 0, 0, 0};
    static const unsigned char wide[] = {0, 0, 8, 2, 0, 0, 0, 1, 0, 16, 0, 1, 0};
    static const unsigned char wider[] = {0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 64, 0, 0, 0, 64, 1, 0};
    assert_refused(&idx_features, type, sizeof type, "type 0x07");
    assert_refused(&idx_features, many, sizeof many, "5 dimensions");
    assert_refused(&idx_features, none, sizeof none, "empty");
    assert_refused(&idx_features, wide, sizeof wide, "more than 1048576 values");
    assert_refused(&idx_features, wider, sizeof wider, "more than 1048576 values");
    assert_refused(&idx_features, npy_f8, sizeof npy_f8, "not an IDX file");
    assert_refused(&idx_features, idx_f4, 11, "ends within its header");
    assert_refused(&idx_features, idx_f4, sizeof idx_f4 - 3, "is cut off");
    assert_refused(&idx_labels, idx_images_u1, sizeof idx_images_u1, "this array has 6");
}

/* ---- What becomes of it ---- */

static char *bytes_of(const struct taken *taken, size_t *n) {
    off_t size = lseek(taken->fd, 0, SEEK_END);
    char *bytes = malloc((size_t)size);
    assert_non_null(bytes);
    assert_int_equal(pread(taken->fd, bytes, (size_t)size, 0), size);
    *n = (size_t)size;
    return bytes;
}

/* The same samples from a table and from two arrays. */
static void the_same_file_from_any_format(void **state) {
    (void)state;
    static const char text[] = "0,1.5,-2.25,2\n1e-3,255,7,0\n3,-0.5,1e6,1\n42,0.125,-1,2\n";
    struct taken table, values, labels, joined;
    struct ovr_err err = {0};
    size_t n, m;
    assert_ok(take(&table, &csv_last, text, strlen(text), 9), &table.err);
    assert_ok(take(&values, &npy_features, npy_f8, sizeof npy_f8, 9), &values.err);
    assert_ok(take(&labels, &idx_labels, idx_label_bytes, sizeof idx_label_bytes, 9), &labels.err);
    struct samples v = open_taken(&values), l = open_taken(&labels);
    joined = (struct taken){.labels_fd = memfd_create("labels", MFD_CLOEXEC)};
    snprintf(joined.path, sizeof joined.path, "/tmp/test_intake_XXXXXX");
    joined.fd = mkstemp(joined.path);
    assert_ok(rowfile_join(joined.fd, joined.labels_fd, &v, &l, &err), &err);
    char *a = bytes_of(&table, &n), *b = bytes_of(&joined, &m);
    assert_int_equal(n, m);
    assert_memory_equal(a, b, n);
    free(a);
    free(b);
    samples_release(&v);
    samples_release(&l);
    taken_release(&table);
    taken_release(&values);
    taken_release(&labels);
    taken_release(&joined);
}

/* Opens n bytes as a row file of which each byte was changed: never a crash, and what opens can be
 * read. */
static void damaged_row_files(void **state) {
    (void)state;
    struct taken taken;
    struct samples s;
    size_t n, opened = 0;
    const struct intake_config config = {INTAKE_CSV, INTAKE_WHOLE, "2", -1};
    assert_ok(take(&taken, &config, flowers, sizeof flowers - 1, 100), &taken.err);
    char *bytes = bytes_of(&taken, &n);
    for (size_t i = 0; i < n; i++)
        for (int change = 1; change < 256; change += 127) {
            char changed = (char)(bytes[i] ^ change);
            assert_int_equal(pwrite(taken.fd, &changed, 1, (off_t)i), 1);
            if (samples_open(&s, taken.path, NULL) == 0) {
                real row[3072];
                assert_true(s.d <= 3072);
                for (size_t k = 0; k < s.n; k++) {
                    samples_row(&s, k, row);
                    assert_true(!s.labels || s.labels[k] < s.n_classes);
                }
                samples_release(&s);
                opened++;
            }
            assert_int_equal(pwrite(taken.fd, bytes + i, 1, (off_t)i), 1);
        }
    assert_in_range(opened, 1, 3 * n - 100);
    for (size_t size = 0; size < n; size++) {
        struct ovr_err err = {0};
        int fd = open(taken.path, O_RDWR | O_CLOEXEC);
        assert_int_equal(ftruncate(fd, (off_t)(n - 1 - size)), 0);
        close(fd);
        int rc = samples_open(&s, taken.path, &err);
        assert_true(rc == OVR_IO || rc == OVR_INVALID); /* as records of CIFAR-10, at the end */
    }
    free(bytes);
    taken_release(&taken);
}

/* Whatever arrives is taken or refused. */
static void changed_at_random(void **state) {
    (void)state;
    static const struct intake_config third = {INTAKE_CSV, INTAKE_WHOLE, "2", -1};
    static const struct {
        const struct intake_config *config;
        const void *bytes;
        size_t n;
    } files[] = {{&third, flowers, sizeof flowers - 1},
                 {&npy_features, npy_f8, sizeof npy_f8},
                 {&npy_features, npy_images_u1, sizeof npy_images_u1},
                 {&npy_labels, npy_labels_i4, sizeof npy_labels_i4},
                 {&idx_features, idx_f4, sizeof idx_f4},
                 {&idx_labels, idx_label_bytes, sizeof idx_label_bytes}};
    size_t taken_in = 0;
    for (uint32_t round = 0; round < 1500; round++) {
        size_t which = round % COUNT(files), n = files[which].n;
        struct rng rng = test_stream(round);
        unsigned char bytes[600];
        assert_true(n < sizeof bytes);
        memcpy(bytes, files[which].bytes, n);
        for (uint32_t i = rng_below(&rng, 4) + 1; i; i--) {
            size_t at = rng_below(&rng, (uint32_t)n);
            if (rng_below(&rng, 3) == 0) /* a piece to another place */
                memmove(bytes + at, bytes + rng_below(&rng, (uint32_t)n / 2),
                        min_size(n - at, n / 2));
            else
                bytes[at] = (unsigned char)rng_below(&rng, 256);
        }
        struct taken taken;
        size_t cut = rng_below(&rng, 4) ? n : rng_below(&rng, (uint32_t)n + 1);
        int rc = take(&taken, files[which].config, bytes, cut, rng_below(&rng, 40) + 1);
        if (rc == 0) {
            struct samples s = open_taken(&taken);
            assert_true(s.n == taken.result.n && s.d == taken.result.d);
            assert_true(s.n_classes == taken.result.n_classes);
            samples_release(&s);
            taken_in++;
        } else {
            assert_int_equal(rc, OVR_INVALID);
            assert_true(*taken.err.text);
        }
        taken_release(&taken);
    }
    assert_in_range(taken_in, 50, 1400);
}

static void summaries(void **state) {
    (void)state;
    struct samples s = read_table("last", -1, "1,10,0\n2,20,1\n6,-30,1\n");
    struct summary summary, again;
    struct ovr_err err = {0};
    assert_ok(summary_make(&summary, &s, &err), &err);
    assert_true(summary.class_counts[0] == 1 && summary.class_counts[1] == 2);
    assert_true(summary.features[0].min == 1 && summary.features[0].max == 6);
    assert_near(summary.features[0].mean, 3, 1e-12);
    assert_near(summary.features[0].sd, sqrt(14.0 / 3), 1e-12);
    assert_near(summary.features[1].mean, 0, 1e-12);
    assert_near(summary.features[1].sd, sqrt(1400.0 / 3), 1e-12);
    assert_true(summary.all.min == -30 && summary.all.max == 20);
    assert_near(summary.all.mean, 1.5, 1e-12);
    assert_near(summary.all.sd, sqrt((1 + 4 + 36 + 100 + 400 + 900) / 6.0 - 2.25), 1e-12);
    int fd = memfd_create("summary", MFD_CLOEXEC);
    assert_ok(summary_write(&summary, fd, &err), &err);
    assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
    assert_ok(summary_read(&again, fd, &err), &err);
    assert_memory_equal(again.features, summary.features, 2 * sizeof *again.features);
    assert_memory_equal(again.class_counts, summary.class_counts, 2 * sizeof(uint64_t));
    assert_int_equal(ftruncate(fd, 100), 0);
    assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
    summary_release(&again);
    assert_failed(summary_read(&again, fd, &err), OVR_IO, &err, "no summary");
    close(fd);
    summary_release(&summary);
    samples_release(&s);
}

/* ---- Classes ---- */

static void choosing_classes(void **state) {
    (void)state;
    struct samples s = read_table("last", -1, "0,1.5,2\n1,1.5,0\n2,1.5,1\n3,1.5,2\n4,1.5,0\n");
    struct class_list list = {.n = 2, .list = {2, 0}};
    struct ovr_err err = {0};
    real row[2];
    assert_ok(samples_keep_classes(&s, &list, &err), &err);
    assert_int_equal(s.n, 4);
    assert_int_equal(s.n_classes, 3);
    static const uint16_t labels[] = {2, 0, 2, 0};
    static const real first[] = {0, 1, 3, 4};
    for (size_t i = 0; i < 4; i++) {
        samples_row(&s, i, row);
        assert_true(row[0] == first[i] && s.labels[i] == labels[i]);
    }
    list = (struct class_list){.n = 1, .list = {0}}; /* once more, of what is left */
    assert_ok(samples_keep_classes(&s, &list, &err), &err);
    samples_row(&s, 1, row);
    assert_true(s.n == 2 && row[0] == 4);
    list.list[0] = 1;
    assert_failed(samples_keep_classes(&s, &list, &err), OVR_INVALID, &err, "no sample");
    samples_release(&s);
}

static void classes_by_name(void **state) {
    (void)state;
    struct samples train = read_table("last", -1, "1,2,b\n1,2,a\n1,2,7\n");
    struct samples test = read_table("last", -1, "1,2,b\n1,2,7\n1,2,b\n");
    struct ovr_err err = {0};
    assert_ok(samples_adopt_classes(&test, &train, &err), &err);
    assert_true(test.labels[0] == 2 && test.labels[1] == 0 && test.labels[2] == 2);
    assert_int_equal(test.n_classes, 3);
    samples_release(&test);
    test = read_table("last", -1, "1,2,7\n1,2,7\n"); /* numbers for classes with names */
    assert_ok(samples_adopt_classes(&test, &train, &err), &err);
    assert_true(test.labels[0] == 0 && test.labels[1] == 0);
    samples_release(&test);
    test = read_table("last", -1, "1,2,a\n1,2,c\n");
    assert_failed(samples_adopt_classes(&test, &train, &err), OVR_INVALID, &err,
                  "of class \"c\", which the training split does not know");
    samples_release(&test);
    samples_release(&train);
    train = read_table("last", -1, "1,2,0\n1,2,1\n");
    test = read_table("last", -1, "1,2,x\n");
    err = (struct ovr_err){0};
    assert_failed(samples_adopt_classes(&test, &train, &err), OVR_INVALID, &err, "class \"x\"");
    samples_release(&test);
    test = read_table("last", -1, "1,2,3\n"); /* numbers both: as they are */
    err = (struct ovr_err){0};
    assert_ok(samples_adopt_classes(&test, &train, &err), &err);
    assert_int_equal(test.labels[0], 3);
    samples_release(&test);
    samples_release(&train);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tables_in_pieces),  cmocka_unit_test(labels_that_are_numbers_stay),
        cmocka_unit_test(headers),           cmocka_unit_test(bad_tables),
        cmocka_unit_test(too_many_classes),  cmocka_unit_test(long_tables),
        cmocka_unit_test(wide_tables),       cmocka_unit_test(arrays_of_numpy),
        cmocka_unit_test(arrays_of_idx),     cmocka_unit_test(bad_numpy_arrays),
        cmocka_unit_test(bad_idx_arrays),    cmocka_unit_test(the_same_file_from_any_format),
        cmocka_unit_test(damaged_row_files), cmocka_unit_test(changed_at_random),
        cmocka_unit_test(summaries),         cmocka_unit_test(choosing_classes),
        cmocka_unit_test(classes_by_name),
    };
    return cmocka_run_group_tests_name("core/intake", tests, NULL, NULL);
}
