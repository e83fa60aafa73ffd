/* What the server's tests share: a directory of its own for each test, a store in it, experiments
 * made by hand. Everything is `static inline`, as in tests/core/check.h. */
#ifndef TESTS_SERVER_CHECK_H
#define TESTS_SERVER_CHECK_H

#include "server/log.h"
#include "server/store.h"
#include "tests/core/check.h"

#include <dirent.h>
#include <ftw.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct place {
    char dir[64];      /* fresh and empty */
    char database[80]; /* in it */
    struct store *store;
};

static inline int remove_one(const char *path, const struct stat *stat, int type,
                             struct FTW *where) {
    (void)stat;
    (void)type;
    (void)where;
    return remove(path);
}

/* Test set-up and tear-down: *state is a struct place. */
static inline int make_place(void **state) {
    struct place *place = calloc(1, sizeof *place);
    assert_non_null(place);
    snprintf(place->dir, sizeof place->dir, "/tmp/ovrd-test-XXXXXX");
    assert_non_null(mkdtemp(place->dir));
    snprintf(place->database, sizeof place->database, "%s/db", place->dir);
    log_set_level((enum log_level)(LOG_ERROR + 1)); /* what is logged was asked for by the test */
    *state = place;
    return 0;
}

static inline void reopen_store(struct place *place) {
    struct ovr_err err = {0};
    store_close(place->store);
    assert_ok(store_open(&place->store, place->database, 3, &err), &err);
}

static inline int make_store(void **state) {
    make_place(state);
    reopen_store(*state);
    return 0;
}

static inline int remove_place(void **state) {
    struct place *place = *state;
    store_close(place->store);
    nftw(place->dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    free(place);
    return 0;
}

#define with_place(test) cmocka_unit_test_setup_teardown(test, make_place, remove_place)
#define with_store(test) cmocka_unit_test_setup_teardown(test, make_store, remove_place)

/* Entries of a directory, without . and .. */
static inline int count_entries(const char *dir, const char *below) {
    char path[256];
    int n = 0;
    snprintf(path, sizeof path, "%s%s", dir, below);
    DIR *handle = opendir(path);
    assert_non_null(handle);
    for (struct dirent *entry; (entry = readdir(handle));)
        n += strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..");
    closedir(handle);
    return n;
}

/* A file's bytes and a NUL; the caller frees them. */
static inline char *read_whole(const char *path, size_t *n) {
    FILE *file = fopen(path, "rb");
    struct stat stat;
    if (!file || fstat(fileno(file), &stat)) {
        print_error("cannot read %s\n", path);
        fail();
    }
    char *bytes = calloc(1, (size_t)stat.st_size + 1);
    assert_non_null(bytes);
    *n = fread(bytes, 1, (size_t)stat.st_size, file);
    fclose(file);
    assert_int_equal(*n, stat.st_size);
    return bytes;
}

static inline void write_whole(const char *path, const void *bytes, size_t n) {
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, n, file), n);
    assert_int_equal(fclose(file), 0);
}

/* Queues an experiment and gives its id. */
static inline void enqueue(struct store *store, const struct new_experiment *what,
                           char id[ID_SIZE]) {
    struct new_experiment new = *what;
    struct ovr_err err = {0};
    int repeated = 1;
    new.name = new.name ? new.name : "untitled";
    new.tags = new.tags ? new.tags : "";
    new.spec = new.spec ? new.spec : "{}";
    assert_ok(store_add_experiment(store, &new, id, &repeated, &err), &err);
    assert_int_equal(repeated, 0);
}

/* The caller releases it. */
static inline struct experiment look_up(struct store *store, const char *id) {
    struct experiment e;
    struct ovr_err err = {0};
    assert_ok(store_get_experiment(store, id, &e, &err), &err);
    return e;
}

static inline enum state state_of(struct store *store, const char *id) {
    struct experiment e = look_up(store, id);
    enum state state = e.state;
    experiment_release(&e);
    return state;
}

static inline void sleep_ms(int ms) {
    struct timespec time = {ms / 1000, ms % 1000 * 1000000L};
    nanosleep(&time, NULL);
}

#endif
