/* Files of workers: what they are called, when they count, and that none stays of what is
 * cancelled. tests/api/test_work.py goes through all of it over HTTP. */
#include "server/work.h"

#include "core/npy.h"
#include "tests/server/past.h"

#include <pthread.h>

static struct work work_of(void **state) {
    struct place *place = *state;
    static const char *const below[] = {"experiments", "checkpoints"};
    for (size_t i = 0; i < COUNT(below); i++) {
        char path[128];
        snprintf(path, sizeof path, "%s/%s", place->dir, below[i]);
        mkdir(path, 0755);
    }
    return (struct work){place->store, place->dir, NULL};
}

/* A worker has it, and has begun. The caller releases *e. */
static struct attempt start(void **state, struct experiment *e) {
    struct place *place = *state;
    char id[ID_SIZE], token[WORK_TOKEN_SIZE];
    struct ovr_err err = {0};
    struct attempt attempt;
    int repeated;
    enqueue(place->store, &(struct new_experiment){.memory_bytes = 1}, id);
    write_past(place, "UPDATE experiment SET executor = 1 WHERE attempts = 0");
    assert_ok(store_begin_attempt(place->store, &attempt, token, e, &err), &err);
    assert_string_equal(attempt.id, id);
    const struct report first = {.number = 1, .node = "h1", .cores = 1};
    assert_ok(store_take_report(place->store, &attempt, &first, &repeated, &err), &err);
    return attempt;
}

/* One tensor of 2×3. */
static void put_tensor(const struct work *work, const struct attempt *attempt) {
    char bytes[NPY_HEADER + 6 * sizeof(float)] = "";
    struct work_upload *upload;
    struct ovr_err err = {0};
    npy_header(bytes, "float32", 2, 2, 3);
    assert_ok(work_put_file(&upload, work, attempt, "best", "a.npy", "", &err), &err);
    assert_int_equal(work_write(upload, bytes, sizeof bytes), 0);
    assert_ok(work_finish(upload, &err), &err);
}

static const struct tensor tensor = {"best", "a", "float32", 2, 2, 3};
static const struct outcome success = {
    .state = STATE_SUCCEEDED, .tensors = &tensor, .n_tensors = 1};
static const struct report last = {.number = 2, .end = END_OUTCOME, .outcome = &success};

static void names_of_files(void **state) {
    static const char *const bad[][2] = {
        {"best", "a"},       {"best", ""},       {"best", ".npy"},     {"best", ".a.npy"},
        {"best", "a/b.npy"}, {"best", "a..npy"}, {"best", "../a.npy"}, {"best", "A.npy"},
        {"..", "a.npy"},     {"", "a.npy"},      {"mid", "a.npy"}};
    struct work work = work_of(state);
    struct experiment e;
    struct attempt attempt = start(state, &e);
    struct work_upload *upload;
    for (size_t i = 0; i < COUNT(bad); i++) {
        struct ovr_err err = {0};
        assert_failed(work_put_file(&upload, &work, &attempt, bad[i][0], bad[i][1], "", &err),
                      OVR_NOT_FOUND, &err, "a result has files such as");
        assert_null(upload);
    }
    struct ovr_err err = {0};
    assert_ok(work_put_file(&upload, &work, &attempt, "units", "0.cell_samples.npy", "", &err),
              &err);
    work_abort(upload);
    assert_int_equal(work_put_checkpoint(&upload, &work, &attempt, 1, 1, "", &err), OVR_NOT_FOUND);
    assert_int_equal(work_put_checkpoint(&upload, &work, &attempt, 1, -1, "", &err), OVR_NOT_FOUND);
    assert_int_equal(count_entries(work.data_dir, "/checkpoints"), 0);
    experiment_release(&e);
}

static void a_result_counts_by_its_report(void **state) {
    struct work work = work_of(state);
    struct experiment e;
    struct ovr_err err = {0};
    struct attempt attempt = start(state, &e);
    int repeated;
    assert_failed(work_take_report(&work, &attempt, &e, &last, &repeated, &err), OVR_INVALID, &err,
                  "best/a.npy is not here");
    put_tensor(&work, &attempt);
    err = (struct ovr_err){0};
    assert_ok(work_take_report(&work, &attempt, &e, &last, &repeated, &err), &err);
    assert_int_equal(repeated, 0);
    assert_int_equal(state_of(work.store, e.id), STATE_SUCCEEDED);
    char path[128];
    snprintf(path, sizeof path, "%s/experiments/%s/best/a.npy", work.data_dir, e.id);
    assert_int_equal(access(path, F_OK), 0);
    assert_int_equal(count_entries(work.data_dir, "/experiments"), 1);
    assert_ok(work_take_report(&work, &attempt, &e, &last, &repeated, &err), &err);
    assert_int_equal(repeated, 1);
    experiment_release(&e);
}

struct cancelling {
    struct store *store;
    const char *id;
    int after_us;
};

static void *cancel(void *arg) {
    const struct cancelling *c = arg;
    const struct timespec pause = {.tv_nsec = c->after_us * 1000L};
    int was_running;
    nanosleep(&pause, NULL);
    store_cancel(c->store, c->id, &was_running, NULL); /* may have ended */
    return NULL;
}

/* Somewhere between the first look and the commit: either it has ended with its files, or without
 * any. */
static void cancelled_at_its_end(void **state) {
    struct work work = work_of(state);
    int n_cancelled = 0;
    for (int i = 0; i < 60; i++) {
        struct experiment e;
        struct ovr_err err = {0};
        struct attempt attempt = start(state, &e);
        struct cancelling cancelling = {work.store, e.id, 40 * i};
        pthread_t thread;
        int repeated;
        put_tensor(&work, &attempt);
        assert_int_equal(pthread_create(&thread, NULL, cancel, &cancelling), 0);
        int rc = work_take_report(&work, &attempt, &e, &last, &repeated, &err);
        pthread_join(thread, NULL);
        enum state now = state_of(work.store, e.id);
        assert_int_equal(rc, now == STATE_SUCCEEDED ? 0 : OVR_CONFLICT);
        char path[128];
        snprintf(path, sizeof path, "%s/experiments/%s", work.data_dir, e.id);
        assert_int_equal(access(path, F_OK) == 0, now == STATE_SUCCEEDED);
        assert_int_equal(attempt.live, 0);
        n_cancelled += now == STATE_CANCELLED;
        work_forget(&work, e.id); /* as who cancels does */
        experiment_release(&e);
    }
    assert_int_equal(count_entries(work.data_dir, "/experiments"), 60 - n_cancelled);
}

static void put_part(const struct work *work, const struct attempt *attempt) {
    struct work_upload *upload;
    struct ovr_err err = {0};
    assert_ok(work_put_checkpoint(&upload, work, attempt, 1, 0, "", &err), &err);
    assert_ok(work_finish(upload, &err), &err);
}

/* A result that was on its way is nothing to a later attempt, but the checkpoint is, until there is
 * to be none. */
static void lost_and_failed(void **state) {
    struct work work = work_of(state);
    struct experiment e;
    struct ovr_err err = {0};
    struct attempt attempt = start(state, &e);
    char token[WORK_TOKEN_SIZE];
    put_tensor(&work, &attempt);
    put_part(&work, &attempt);
    assert_ok(store_lose_attempt(work.store, &attempt, "test", &err), &err);
    work_forget(&work, e.id);
    assert_int_equal(count_entries(work.data_dir, "/experiments"), 0);
    assert_int_equal(count_entries(work.data_dir, "/checkpoints"), 1);
    experiment_release(&e);
    assert_ok(store_begin_attempt(work.store, &attempt, token, &e, &err), &err);
    assert_ok(store_fail_attempt(work.store, &attempt, "crashed", "test", &err), &err);
    work_forget(&work, e.id);
    assert_int_equal(count_entries(work.data_dir, "/checkpoints"), 0);
    experiment_release(&e);
}

/* Its request came while it had the experiment; now another one has, or nobody. */
static void files_of_who_is_late(void **state) {
    struct work work = work_of(state);
    struct work_upload *upload, *part;
    for (int deleted = 0; deleted < 2; deleted++) {
        struct experiment e;
        struct attempt attempt = start(state, &e);
        struct ovr_err err = {0};
        int was_running;
        assert_ok(work_put_checkpoint(&part, &work, &attempt, 1, 0, "", &err), &err);
        assert_ok(store_cancel(work.store, e.id, &was_running, &err), &err);
        if (deleted)
            assert_ok(store_delete_experiment(work.store, e.id, &err), &err);
        assert_failed(work_put_file(&upload, &work, &attempt, "best", "a.npy", "", &err),
                      OVR_CONFLICT, &err, "is over");
        assert_null(upload);
        assert_int_equal(work_finish(part, NULL), OVR_CONFLICT);
        assert_int_equal(count_entries(work.data_dir, "/experiments"), 0);
        assert_int_equal(count_entries(work.data_dir, "/checkpoints"), 0);
        experiment_release(&e);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        with_store(names_of_files), with_store(a_result_counts_by_its_report),
        with_store(cancelled_at_its_end), with_store(lost_and_failed),
        with_store(files_of_who_is_late)};
    return cmocka_run_group_tests_name("server/work", tests, NULL, NULL);
}
