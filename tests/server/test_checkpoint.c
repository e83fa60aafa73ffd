/* Checkpoints on disk: whole or not at all, and the one before when the newest is spoilt. */
#include "server/checkpoint.h"
#include "tests/server/check.h"

#include <signal.h>
#include <sys/resource.h>

static const char ID[] = "abcdefgh2345";

struct state_of_run {
    int position[3];
    real weights[1000];
};

static struct state_of_run numbered(int mark) {
    struct state_of_run s;
    for (int i = 0; i < 3; i++)
        s.position[i] = mark * 10 + i;
    for (int i = 0; i < 1000; i++)
        s.weights[i] = (real)(mark * 1000 + i);
    return s;
}

static size_t list(struct state_of_run *s, struct train_piece pieces[2]) {
    pieces[0] = (struct train_piece){s->position, sizeof s->position};
    pieces[1] = (struct train_piece){s->weights, sizeof s->weights};
    return 2;
}

static int write_marked(const char *dir, const char *key, int mark, struct ovr_err *err) {
    struct state_of_run s = numbered(mark);
    struct train_piece pieces[2];
    return checkpoint_write(dir, ID, key, pieces, list(&s, pieces), err);
}

/* The mark of what is read of the newest that is good, 0 when nothing was. */
static int read_mark(const char *dir, const char *key) {
    struct state_of_run s = numbered(0);
    const struct state_of_run untouched = s;
    struct train_piece pieces[2];
    int back = 0;
    while (back < 2 && !checkpoint_read(dir, ID, key, back, pieces, list(&s, pieces))) {
        assert_memory_equal(&s, &untouched, sizeof s);
        back++;
    }
    if (back == 2)
        return 0;
    struct state_of_run expected = numbered(s.position[0] / 10);
    assert_memory_equal(&s, &expected, sizeof s);
    return s.position[0] / 10;
}

static void start(const char *dir, char key[DIGEST_SIZE]) {
    struct ovr_err err = {0};
    assert_ok(checkpoint_init(dir, &err), &err);
    checkpoint_key("{\"a\":1}", ISA_BASELINE, 0, 1, key);
}

static void change_byte(const char *dir, const char *name, long at) {
    char path[256];
    size_t n;
    snprintf(path, sizeof path, "%s/checkpoints/%s", dir, name);
    char *bytes = read_whole(path, &n);
    bytes[at < 0 ? (long)n + at : at] ^= 1;
    write_whole(path, bytes, n);
    free(bytes);
}

static void the_newest_comes_back(void **state) {
    const char *dir = ((struct place *)*state)->dir;
    struct ovr_err err = {0};
    char key[DIGEST_SIZE];
    start(dir, key);
    assert_int_equal(read_mark(dir, key), 0);
    for (int mark = 1; mark <= 3; mark++) {
        assert_ok(write_marked(dir, key, mark, &err), &err);
        assert_int_equal(read_mark(dir, key), mark);
    }
    assert_int_equal(count_entries(dir, "/checkpoints"), 2);
    checkpoint_remove(dir, ID);
    checkpoint_remove(dir, ID);
    assert_int_equal(count_entries(dir, "/checkpoints"), 0);
    assert_int_equal(read_mark(dir, key), 0);
}

/* Every part of the file matters: magic, version, sizes, key, pieces, checksum, length. */
static void a_spoilt_one_gives_way_to_the_one_before(void **state) {
    const char *dir = ((struct place *)*state)->dir;
    struct ovr_err err = {0};
    char key[DIGEST_SIZE], path[256];
    static const long places[] = {0, 8, 16, 24, 160, 300, -65, -1};
    start(dir, key);
    for (size_t i = 0; i < COUNT(places); i++) {
        assert_ok(write_marked(dir, key, 1, &err), &err);
        assert_ok(write_marked(dir, key, 2, &err), &err);
        change_byte(dir, ID, places[i]);
        assert_int_equal(read_mark(dir, key), 1);
    }
    snprintf(path, sizeof path, "%s/checkpoints/%s", dir, ID);
    assert_ok(write_marked(dir, key, 3, &err), &err);
    assert_int_equal(truncate(path, 500), 0);
    change_byte(dir, "abcdefgh2345.old", 300);
    assert_int_equal(read_mark(dir, key), 0);
    assert_ok(write_marked(dir, key, 4, &err), &err);
    assert_int_equal(truncate(path, 0), 0);
    assert_int_equal(read_mark(dir, key), 0);
}

/* More pieces than the head has sizes. */
static void many_pieces_come_back(void **state) {
    const char *dir = ((struct place *)*state)->dir;
    struct ovr_err err = {0};
    char key[DIGEST_SIZE], kept[TRAIN_PIECES_MAX][40], read[TRAIN_PIECES_MAX][40];
    struct train_piece from[TRAIN_PIECES_MAX], to[TRAIN_PIECES_MAX];
    start(dir, key);
    memset(read, 0, sizeof read);
    for (size_t i = 0; i < TRAIN_PIECES_MAX; i++) {
        memset(kept[i], 'a' + (int)i, sizeof kept[i]);
        from[i] = (struct train_piece){kept[i], 10 + i};
        to[i] = (struct train_piece){read[i], 10 + i};
    }
    for (size_t n = 15; n <= TRAIN_PIECES_MAX; n++) {
        assert_ok(checkpoint_write(dir, ID, key, from, n, &err), &err);
        assert_int_equal(checkpoint_read(dir, ID, key, 0, to, n), 1);
        for (size_t i = 0; i < n; i++) {
            assert_memory_equal(read[i], kept[i], 10 + i);
            memset(read[i], 0, sizeof read[i]);
        }
        assert_int_equal(checkpoint_read(dir, ID, key, 0, to, n - 1), 0);
        to[n - 1].n++;
        assert_int_equal(checkpoint_read(dir, ID, key, 0, to, n), 0);
        to[n - 1].n--;
    }
}

static void another_run_is_not_taken_up(void **state) {
    const char *dir = ((struct place *)*state)->dir;
    struct ovr_err err = {0};
    char key[DIGEST_SIZE], other[DIGEST_SIZE];
    start(dir, key);
    assert_ok(write_marked(dir, key, 1, &err), &err);
    checkpoint_key("{\"a\":2}", ISA_BASELINE, 0, 1, other);
    assert_string_not_equal(key, other);
    assert_int_equal(read_mark(dir, other), 0);
    checkpoint_key("{\"a\":1}", ISA_AVX2, 0, 1, other);
    assert_string_not_equal(key, other);
    assert_int_equal(read_mark(dir, other), 0);
    checkpoint_key("{\"a\":1}", ISA_BASELINE, 0, 2, other); /* of one rank's part alone */
    assert_string_not_equal(key, other);
    assert_int_equal(read_mark(dir, other), 0);
    struct state_of_run s = numbered(0);
    struct train_piece pieces[2];
    list(&s, pieces);
    pieces[1].n -= sizeof(real); /* of another shape */
    assert_int_equal(checkpoint_read(dir, ID, key, 0, pieces, 2), 0);
    assert_int_equal(checkpoint_read(dir, ID, key, 0, pieces, 1), 0);
    assert_int_equal(read_mark(dir, key), 1);
}

static void a_full_disk_keeps_the_one_before(void **state) {
    const char *dir = ((struct place *)*state)->dir;
    struct ovr_err err = {0};
    char key[DIGEST_SIZE];
    struct rlimit before, now;
    static const rlim_t limits[] = {0, 100, 1000, 4290};
    start(dir, key);
    assert_ok(write_marked(dir, key, 1, &err), &err);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    for (size_t i = 0; i < COUNT(limits); i++) {
        now = before;
        now.rlim_cur = limits[i];
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &now), 0);
        err = (struct ovr_err){0};
        int rc = write_marked(dir, key, 2, &err);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
        assert_failed(rc, OVR_IO, &err, "cannot write a checkpoint");
        assert_int_equal(count_entries(dir, "/checkpoints"), 1);
        assert_int_equal(read_mark(dir, key), 1);
    }
}

static void what_was_left_half_written_goes(void **state) {
    const char *dir = ((struct place *)*state)->dir;
    struct ovr_err err = {0};
    char key[DIGEST_SIZE], path[256];
    start(dir, key);
    assert_ok(write_marked(dir, key, 1, &err), &err);
    snprintf(path, sizeof path, "%s/checkpoints/tmp-%s", dir, ID);
    write_whole(path, "half", 4);
    assert_ok(checkpoint_init(dir, &err), &err);
    assert_int_equal(count_entries(dir, "/checkpoints"), 1);
    assert_int_equal(read_mark(dir, key), 1);
}

/* What goes over the network, in runs of a megabyte, is what lies in a file. */
static void a_stream_has_the_bytes_of_a_file(void **state) {
    enum { LONG = (2 << 20) + 5 };
    (void)state;
    char key[DIGEST_SIZE], *numbers = malloc(LONG), *copy = malloc(LONG), none = 0;
    memset(numbers, 'x', LONG);
    memset(copy, 0, LONG);
    struct train_piece pieces[] = {{numbers, LONG}, {&none, 0}, {numbers, 3}};
    size_t size = checkpoint_size(pieces, 3), at = 0, n;
    char *bytes = malloc(size);
    const void *run;
    struct checkpoint_stream stream;
    checkpoint_key("{}", ISA_BASELINE, 0, 1, key);
    checkpoint_stream_init(&stream, key, pieces, 3);
    while ((n = checkpoint_next(&stream, &run)) > 0) {
        assert_in_range(n, 1, 1 << 20);
        assert_in_range(at + n, 1, size);
        memcpy(bytes + at, run, n);
        at += n;
    }
    assert_int_equal(at, size);
    assert_int_equal(checkpoint_next(&stream, &run), 0);
    assert_null(checkpoint_fault(bytes, size, key, pieces, 3));
    pieces[0].bytes = copy;
    checkpoint_fill(bytes, pieces, 3);
    assert_memory_equal(copy, numbers, LONG);
    bytes[size / 2] ^= 1;
    assert_string_equal(checkpoint_fault(bytes, size, key, pieces, 3), "is damaged");
    free(bytes);
    free(copy);
    free(numbers);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        with_place(the_newest_comes_back),
        with_place(a_spoilt_one_gives_way_to_the_one_before),
        with_place(many_pieces_come_back),
        with_place(another_run_is_not_taken_up),
        with_place(a_full_disk_keeps_the_one_before),
        with_place(what_was_left_half_written_goes),
        cmocka_unit_test(a_stream_has_the_bytes_of_a_file),
    };
    return cmocka_run_group_tests_name("server/checkpoint", tests, NULL, NULL);
}
