/* Events of experiments: one for each change, with numbers that only grow. */
#include "tests/server/check.h"

static struct store *store_of(void **state) {
    return ((struct place *)*state)->store;
}

static int64_t start_one(struct store *store, char id[ID_SIZE]) {
    struct experiment e = {0};
    struct ovr_err err = {0};
    int waiting;
    enqueue(store, &(struct new_experiment){.memory_bytes = 1}, id);
    assert_ok(store_claim(store, INT64_MAX, &e, &waiting, &err), &err);
    int64_t seq = e.seq;
    experiment_release(&e);
    return seq;
}

static void add_epoch(struct store *store, int64_t seq, int epoch) {
    struct ovr_err err = {0};
    const struct figure figures[] = {{.name = "train.loss", .real = epoch},
                                     {.name = "seconds", .real = 1}};
    assert_ok(store_add_epoch(store, seq, epoch, figures, 2, NULL, 0, &err), &err);
}

/* All of them in one text: "1 queued, 2 running, 3 #1, …". */
static const char *events_of(struct store *store, int64_t seq) {
    static char text[1024];
    struct event list[32];
    struct ovr_err err = {0};
    size_t n, used = 0;
    assert_ok(store_read_events(store, seq, 0, list, 32, &n, &err), &err);
    text[0] = '\0';
    for (size_t i = 0; i < n; i++) {
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%lld ", i ? ", " : "",
                                 (long long)list[i].number);
        if (list[i].kind == EVENT_EPOCH)
            used += (size_t)snprintf(text + used, sizeof text - used, "#%d", list[i].epoch);
        else
            used +=
                (size_t)snprintf(text + used, sizeof text - used, "%s%s%s", list[i].text,
                                 list[i].detail ? ": " : "", list[i].detail ? list[i].detail : "");
        assert_in_range(list[i].at, now_ms() - 60000, now_ms() + 1);
        event_release(&list[i]);
    }
    return text;
}

static void every_change_is_one(void **state) {
    struct store *store = store_of(state);
    char id[ID_SIZE];
    struct ovr_err err = {0};
    int64_t seq = start_one(store, id), newest;
    store_log(store, seq, "a line of %d", 1);
    add_epoch(store, seq, 1);
    add_epoch(store, seq, 2);
    assert_ok(store_requeue(store, seq, "why not", &err), &err);
    assert_string_equal(events_of(store, seq),
                        "1 queued, 2 running, 3 a line of 1, 4 #1, 5 #2, 6 queued: why not");
    int was_running;
    assert_ok(store_cancel(store, id, &was_running, &err), &err);
    assert_ok(store_cancel(store, id, &was_running, &err), &err);
    store_log(store, seq, "too late");
    assert_ok(store_write_epochs(store, &err), &err);
    assert_ok(store_last_event(store, seq, &newest, &err), &err);
    assert_int_equal(newest, 7);
    reopen_store(*state);
    assert_non_null(strstr(events_of(store_of(state), seq), "queued: why not, 7 cancelled"));
}

/* Of one that runs, paused is told when it is; why it was queued is no reason to be paused. */
static void pausing_is_told(void **state) {
    struct store *store = store_of(state);
    char id[ID_SIZE];
    struct ovr_err err = {0};
    struct experiment e = {0};
    int was_running, waiting, requeued;
    int64_t seq = start_one(store, id);
    add_epoch(store, seq, 1);
    assert_ok(store_pause(store, id, &was_running, &err), &err);
    assert_ok(store_write_epochs(store, &err), &err);
    assert_string_equal(events_of(store, seq), "1 queued, 2 running, 3 #1");
    add_epoch(store, seq, 2);
    assert_ok(store_park(store, seq, &err), &err);
    assert_ok(store_resume(store, id, &err), &err);
    assert_ok(store_pause(store, id, &was_running, &err), &err);
    assert_ok(store_pause(store, id, &was_running, &err), &err);
    assert_string_equal(events_of(store, seq), "1 queued, 2 running, 3 #1, 4 #2, 5 paused, 6 "
                                               "queued: it was paused, 7 paused");
    assert_ok(store_resume(store, id, &err), &err);
    assert_ok(store_claim(store, INT64_MAX, &e, &waiting, &err), &err);
    experiment_release(&e);
    assert_ok(store_pause(store, id, &was_running, &err), &err);
    reopen_store(*state);
    store = store_of(state);
    assert_ok(store_recover(store, 3, &requeued, &err), &err);
    assert_non_null(
        strstr(events_of(store, seq), "7 paused, 8 queued: it was paused, 9 running, 10 paused"));
}

/* After a crash epochs are computed once more: they keep the events they have. */
static void an_epoch_is_one_event(void **state) {
    struct store *store = store_of(state);
    char id[ID_SIZE];
    struct ovr_err err = {0};
    struct experiment e = {0};
    int requeued, waiting;
    int64_t seq = start_one(store, id);
    for (int epoch = 1; epoch <= 3; epoch++)
        add_epoch(store, seq, epoch);
    assert_ok(store_write_epochs(store, &err), &err);
    reopen_store(*state);
    store = store_of(state);
    assert_ok(store_recover(store, 3, &requeued, &err), &err);
    assert_ok(store_claim(store, INT64_MAX, &e, &waiting, &err), &err);
    experiment_release(&e);
    assert_ok(store_forget_epochs(store, seq, 2, &err), &err);
    for (int epoch = 2; epoch <= 4; epoch++)
        add_epoch(store, seq, epoch);
    const struct outcome outcome = {
        .state = STATE_FAILED, .problem_kind = "diverged", .problem_detail = "at step 9"};
    assert_ok(store_finish(store, seq, &outcome, &err), &err);
    assert_string_equal(events_of(store, seq),
                        "1 queued, 2 running, 3 #1, 4 #2, 5 #3, 6 queued: the daemon ended while "
                        "it ran; it goes on from its last checkpoint, 7 running, 8 #4, 9 failed: "
                        "at step 9");
}

static void old_lines_go(void **state) {
    struct store *store = store_of(state);
    char id[ID_SIZE];
    struct ovr_err err = {0};
    struct event first[3];
    size_t n;
    int64_t seq = start_one(store, id), newest;
    for (int i = 0; i < STORE_MOST_LINES + 10; i++)
        store_log(store, seq, "line %d", i);
    assert_ok(store_write_epochs(store, &err), &err);
    assert_ok(store_last_event(store, seq, &newest, &err), &err);
    assert_int_equal(newest, 2 + STORE_MOST_LINES + 10);
    assert_ok(store_read_events(store, seq, 0, first, 3, &n, &err), &err);
    assert_int_equal(n, 3);
    assert_string_equal(first[1].text, "running");
    assert_string_equal(first[2].text, "line 10");
    for (size_t i = 0; i < n; i++)
        event_release(&first[i]);
}

struct heard {
    int calls;
    int64_t seq;
    size_t n;
};

static void hear(void *context, const int64_t *seqs, size_t n) {
    struct heard *heard = context;
    heard->calls++;
    heard->n = n;
    heard->seq = n ? seqs[n - 1] : -1;
}

static void who_listens_hears_what_is_stored(void **state) {
    struct store *store = store_of(state);
    char id[ID_SIZE], other[ID_SIZE];
    struct ovr_err err = {0};
    struct heard heard = {0};
    int64_t seq = start_one(store, id);
    store_listen(store, hear, &heard);
    enqueue(store, &(struct new_experiment){.memory_bytes = 1}, other);
    assert_int_equal(heard.calls, 1);
    assert_int_equal(heard.seq, seq + 1);
    add_epoch(store, seq, 1);
    assert_int_equal(heard.calls, 1); /* not stored yet */
    assert_ok(store_write_epochs(store, &err), &err);
    assert_int_equal(heard.calls, 2);
    assert_int_equal(heard.seq, seq);
    store_log(store, seq, "a line");
    assert_ok(store_write_epochs(store, &err), &err);
    assert_int_equal(heard.calls, 3);
    int was_running;
    assert_int_equal(store_cancel(store, "nothere00000", &was_running, NULL), OVR_NOT_FOUND);
    assert_int_equal(heard.calls, 3);
    assert_ok(store_cancel(store, id, &was_running, &err), &err);
    assert_int_equal(heard.calls, 4);
    store_listen(store, NULL, NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        with_store(every_change_is_one),
        with_store(pausing_is_told),
        with_store(an_epoch_is_one_event),
        with_store(old_lines_go),
        with_store(who_listens_hears_what_is_stored),
    };
    return cmocka_run_group_tests_name("events", tests, NULL, NULL);
}
