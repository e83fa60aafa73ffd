/* Attempts of workers: what is sent, what they report, each report once, and what becomes of those
 * that are lost. */
#include "server/attempts.h"

#include "server/people.h"
#include "tests/server/past.h"

#include <pthread.h>

static struct store *store_of(void **state) {
    return ((struct place *)*state)->store;
}

/* Queues one for the cluster. */
static int64_t queue_for_cluster(void **state, char id[ID_SIZE]) {
    struct place *place = *state;
    char text[200];
    enqueue(place->store, &(struct new_experiment){.memory_bytes = 1}, id);
    snprintf(text, sizeof text, "UPDATE experiment SET executor = 1, ranks = 2 WHERE id = '%s'",
             id);
    write_past(place, text);
    struct experiment e = look_up(place->store, id);
    int64_t seq = e.seq;
    experiment_release(&e);
    return seq;
}

static struct attempt send(struct store *store, char token[WORK_TOKEN_SIZE]) {
    struct attempt attempt;
    struct experiment e;
    struct ovr_err err = {0};
    assert_ok(store_begin_attempt(store, &attempt, token, &e, &err), &err);
    assert_string_equal(e.id, attempt.id);
    assert_int_equal(e.state, STATE_QUEUED);
    assert_true(attempt.live && !attempt.begun_at && !attempt.batch);
    experiment_release(&e);
    return attempt;
}

static int report(struct store *store, struct attempt *attempt, const struct report *report,
                  struct ovr_err *err) {
    int repeated;
    int rc = store_take_report(store, attempt, report, &repeated, err);
    return rc ? rc : repeated;
}

static void begin(struct store *store, struct attempt *attempt) {
    struct ovr_err err = {0};
    const struct report first = {.number = 1, .node = "h1", .job = "77", .cores = 4};
    assert_ok(report(store, attempt, &first, &err), &err);
}

/* A whole life: sent, begun. */
static struct attempt start(void **state, char id[ID_SIZE], char token[WORK_TOKEN_SIZE]) {
    queue_for_cluster(state, id);
    struct attempt attempt = send(store_of(state), token);
    begin(store_of(state), &attempt);
    return attempt;
}

struct count {
    int n;
    double sum;
};

static int add(void *context, int epoch, const struct figure *figure) {
    struct count *count = context;
    (void)epoch;
    count->n++;
    count->sum += figure->real;
    return 0;
}

static struct count figures_of(struct store *store, int64_t seq, int from, int to) {
    struct count count = {0};
    struct ovr_err err = {0};
    assert_ok(store_read_figures(store, seq, from, to, add, &count, &err), &err);
    return count;
}

/* The last event's text and detail. */
static void assert_last_event(struct store *store, int64_t seq, const char *text,
                              const char *detail) {
    struct event list[64];
    struct ovr_err err = {0};
    size_t n;
    assert_ok(store_read_events(store, seq, 0, list, 64, &n, &err), &err);
    assert_true(n > 0);
    assert_string_equal(list[n - 1].text, text);
    if (detail)
        assert_non_null(strstr(list[n - 1].detail ? list[n - 1].detail : "", detail));
    for (size_t i = 0; i < n; i++)
        event_release(&list[i]);
}

/* ---- Sending ---- */

static void each_executor_takes_its_own(void **state) {
    struct store *store = store_of(state);
    char remote[ID_SIZE], local[ID_SIZE], token[WORK_TOKEN_SIZE];
    struct ovr_err err = {0};
    struct experiment e;
    struct attempt attempt;
    int waiting;
    queue_for_cluster(state, remote);
    enqueue(store, &(struct new_experiment){.memory_bytes = 1}, local);
    assert_ok(store_claim(store, INT64_MAX, &e, &waiting, &err), &err);
    assert_string_equal(e.id, local);
    assert_int_equal(waiting, 0);
    experiment_release(&e);
    assert_int_equal(store_claim(store, INT64_MAX, &e, &waiting, &err), OVR_NOT_FOUND);
    attempt = send(store, token);
    assert_string_equal(attempt.id, remote);
    assert_int_equal(attempt.number, 1);
    assert_int_equal(attempt.ranks, 2);
    assert_int_equal(strspn(token + 5, "0123456789abcdef"), 64);
    assert_int_equal(strncmp(token, WORK_TOKEN_PREFIX, 5), 0);
    assert_non_null(strstr(attempt.job_name, remote));
    /* What was sent is in nobody's queue. */
    assert_int_equal(store_begin_attempt(store, &attempt, token, &e, &err), OVR_NOT_FOUND);
    assert_int_equal(store_claim(store, INT64_MAX, &e, &waiting, &err), OVR_NOT_FOUND);
    assert_int_equal(state_of(store, remote), STATE_QUEUED);
}

static void tokens_find_their_attempt(void **state) {
    struct store *store = store_of(state);
    char id[ID_SIZE], token[WORK_TOKEN_SIZE], newer[WORK_TOKEN_SIZE];
    struct ovr_err err = {0};
    struct attempt found;
    struct experiment e;
    queue_for_cluster(state, id);
    struct attempt attempt = send(store, token);
    assert_ok(store_find_attempt(store, token, &found, &e, &err), &err);
    assert_string_equal(found.id, id);
    assert_string_equal(e.spec, "{}");
    experiment_release(&e);
    assert_int_equal(store_find_attempt(store, "ovrw_", &found, NULL, &err), OVR_NOT_FOUND);
    assert_int_equal(store_find_attempt(store, "", &found, NULL, &err), OVR_NOT_FOUND);
    err = (struct ovr_err){0};
    assert_ok(store_renew_attempt(store, &attempt, newer, &err), &err);
    assert_int_equal(store_find_attempt(store, token, &found, NULL, &err), OVR_NOT_FOUND);
    err = (struct ovr_err){0};
    assert_ok(store_find_attempt(store, newer, &found, NULL, &err), &err);
    begin(store, &attempt);
    assert_int_equal(store_renew_attempt(store, &attempt, token, &err), OVR_CONFLICT);
}

static void what_slurm_says_is_kept(void **state) {
    struct store *store = store_of(state);
    char id[ID_SIZE], token[WORK_TOKEN_SIZE], reason[64] = "?";
    struct ovr_err err = {0};
    struct attempt *list, found;
    size_t n;
    int64_t seq = queue_for_cluster(state, id);
    assert_int_equal(store_get_attempt(store, seq, &found, NULL, 0, &err), OVR_NOT_FOUND);
    err = (struct ovr_err){0};
    struct attempt attempt = send(store, token);
    assert_ok(store_note_job(store, &attempt, "42", &err), &err);
    assert_ok(store_note_reason(store, &attempt, "(Resources)", &err), &err);
    reopen_store(*state);
    store = store_of(state);
    assert_ok(store_list_attempts(store, &list, &n, &err), &err);
    assert_int_equal(n, 1);
    assert_string_equal(list[0].job, "42");
    assert_string_equal(list[0].job_name, attempt.job_name);
    free(list);
    assert_ok(store_get_attempt(store, seq, &found, reason, sizeof reason, &err), &err);
    assert_string_equal(reason, "(Resources)");
    assert_ok(store_note_reason(store, &attempt, "", &err), &err);
    assert_ok(store_get_attempt(store, seq, &found, reason, sizeof reason, &err), &err);
    assert_string_equal(reason, "");
    begin(store, &attempt); /* and says another number: the first is known to be right */
    assert_ok(store_get_attempt(store, seq, &found, reason, sizeof reason, &err), &err);
    assert_string_equal(found.job, "42");
    assert_string_equal(found.node, "h1");
}

static void withdrawn_is_as_if_never_sent(void **state) {
    struct store *store = store_of(state);
    char id[ID_SIZE], token[WORK_TOKEN_SIZE], old[WORK_TOKEN_SIZE];
    struct ovr_err err = {0};
    struct attempt found;
    queue_for_cluster(state, id);
    struct attempt attempt = send(store, old);
    assert_ok(store_withdraw_attempt(store, &attempt, "Slurm does not answer", &err), &err);
    struct experiment e = look_up(store, id);
    assert_int_equal(e.attempts, 0);
    assert_string_equal(e.queue_reason, "Slurm does not answer");
    experiment_release(&e);
    assert_int_equal(store_find_attempt(store, old, &found, NULL, &err), OVR_NOT_FOUND);
    err = (struct ovr_err){0};
    attempt = send(store, token);
    assert_int_equal(attempt.number, 1);
    begin(store, &attempt);
    assert_failed(store_withdraw_attempt(store, &attempt, "late", &err), OVR_CONFLICT, &err,
                  "has begun");
    assert_int_equal(state_of(store, id), STATE_RUNNING);
}

/* One that may run two has two sent at most, though none runs yet. */
static void limits_count_what_was_sent(void **state) {
    struct store *store = store_of(state);
    char id[ID_SIZE], token[WORK_TOKEN_SIZE];
    struct ovr_err err = {0};
    struct attempt attempt;
    struct experiment e;
    int waiting;
    store_set_quotas(store, &(struct quotas){.running = 2});
    for (int i = 0; i < 3; i++)
        queue_for_cluster(state, id);
    attempt = send(store, token);
    begin(store, &attempt);
    send(store, token);
    assert_int_equal(store_begin_attempt(store, &attempt, token, &e, &err), OVR_NOT_FOUND);
    enqueue(store, &(struct new_experiment){.memory_bytes = 1}, id);
    assert_int_equal(store_claim(store, INT64_MAX, &e, &waiting, &err), OVR_NOT_FOUND);
    struct queue_rows rows;
    assert_ok(store_read_queue(store, &rows, &err), &err);
    assert_int_equal(rows.owners[0].running, 2);
    assert_int_equal(rows.n_waiting, 2);
    assert_true(rows.owners[0].cores == 4); /* those of the one that has begun */
    queue_rows_release(&rows);
    store_set_quotas(store, &(struct quotas){.running = 3});
    send(store, token);
}

/* ---- Reports ---- */

static void a_run_by_reports(void **state) {
    struct store *store = store_of(state);
    char id[ID_SIZE], token[WORK_TOKEN_SIZE];
    struct ovr_err err = {0};
    struct attempt attempt = start(state, id, token);
    int64_t seq = attempt.experiment;
    assert_last_event(store, seq, "running", NULL);
    assert_string_equal(attempt.node, "h1");
    assert_string_equal(attempt.job, "77");
    const struct figure figures[] = {{.name = "train.loss", .real = 0.5}};
    const struct histogram histogram = {.total = 1, .zero_count = 1};
    const struct epoch_histogram histograms[] = {{1, "test", &histogram, 0}};
    const struct report_epoch epochs[] = {{1, figures, 1, histograms, 1}, {2, figures, 1, NULL, 0}};
    const struct report_line lines[] = {{1, "slow"}};
    struct report second = {.number = 2,
                            .epochs = epochs,
                            .n_epochs = 2,
                            .lines = lines,
                            .n_lines = 1,
                            .checkpoint = 1,
                            .computed_ms = 500};
    assert_ok(report(store, &attempt, &second, &err), &err);
    assert_int_equal(attempt.batch, 2);
    assert_int_equal(attempt.checkpoint, 1);
    assert_int_equal(attempt.computed_ms, 500);
    assert_int_equal(figures_of(store, seq, 1, 9).n, 2);
    /* The same again changes nothing, whatever it says now. */
    second.n_epochs = 0;
    second.checkpoint = 9;
    int64_t newest, before;
    assert_ok(store_last_event(store, seq, &before, &err), &err);
    assert_int_equal(report(store, &attempt, &second, &err), 1);
    assert_ok(store_last_event(store, seq, &newest, &err), &err);
    assert_true(before == newest);
    assert_int_equal(attempt.checkpoint, 1);
    assert_failed(report(store, &attempt, &(struct report){.number = 4}, &err), OVR_CONFLICT, &err,
                  "number 3");
    assert_true(attempt.live);
    err = (struct ovr_err){0};
    assert_int_equal(report(store, &attempt, &(struct report){.number = 1}, &err), OVR_CONFLICT);
    /* It begins again at 2, and a checkpoint is newer than the last one. */
    err = (struct ovr_err){0};
    struct report third = {.number = 3, .restart_from = 2, .checkpoint = 1};
    assert_failed(report(store, &attempt, &third, &err), OVR_INVALID, &err, "not newer");
    assert_int_equal(figures_of(store, seq, 1, 9).n, 2);
    err = (struct ovr_err){0};
    third.checkpoint = 3;
    assert_ok(report(store, &attempt, &third, &err), &err);
    assert_int_equal(figures_of(store, seq, 1, 9).n, 1);
    assert_int_equal(attempt.checkpoint, 3);
    assert_int_equal(attempt.checkpoint_before, 1);
}

static void it_begins_once_and_first(void **state) {
    struct store *store = store_of(state);
    char id[ID_SIZE], token[WORK_TOKEN_SIZE];
    struct ovr_err err = {0};
    queue_for_cluster(state, id);
    struct attempt attempt = send(store, token);
    assert_failed(report(store, &attempt, &(struct report){.number = 1}, &err), OVR_INVALID, &err,
                  "first report");
    assert_int_equal(state_of(store, id), STATE_QUEUED);
    begin(store, &attempt);
    err = (struct ovr_err){0};
    const struct report again = {.number = 2, .node = "h2", .cores = 1};
    assert_failed(report(store, &attempt, &again, &err), OVR_INVALID, &err, "begun before");
    assert_string_equal(attempt.node, "h1");
}

static void ends(void **state) {
    struct store *store = store_of(state);
    char id[ID_SIZE], token[WORK_TOKEN_SIZE];
    static const struct {
        enum report_end end;
        enum state outcome, state;
    } cases[] = {{END_OUTCOME, STATE_SUCCEEDED, STATE_SUCCEEDED},
                 {END_OUTCOME, STATE_FAILED, STATE_FAILED},
                 {END_PAUSED, 0, STATE_PAUSED},
                 {END_QUEUED, 0, STATE_QUEUED}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct ovr_err err = {0};
        struct attempt attempt = start(state, id, token);
        const struct figure figures[] = {{.name = "accuracy", .real = 0.5}};
        const struct outcome outcome = {.state = cases[i].outcome,
                                        .problem_kind = "diverged",
                                        .problem_detail = "too fast",
                                        .result = figures,
                                        .n_result = 1};
        const struct report last = {
            .number = 2, .end = cases[i].end, .outcome = &outcome, .reason = "the node shuts down"};
        assert_ok(report(store, &attempt, &last, &err), &err);
        assert_false(attempt.live);
        assert_int_equal(state_of(store, id), cases[i].state);
        if (cases[i].end == END_QUEUED)
            assert_last_event(store, attempt.experiment, "queued", "the node shuts down");
        /* Its answer was lost: it comes again, and nothing else does. */
        assert_int_equal(report(store, &attempt, &last, &err), 1);
        assert_int_equal(report(store, &attempt, &(struct report){.number = 2}, &err),
                         OVR_CONFLICT);
        assert_int_equal(report(store, &attempt, &(struct report){.number = 3}, &err),
                         OVR_CONFLICT);
        assert_false(attempt.live);
        if (cases[i].end == END_QUEUED) /* so that it is in nobody's way below */
            assert_int_equal(store_cancel(store, id, &(int){0}, NULL), 0);
    }
}

/* However it leaves: the worker hears that it is over, and can change nothing. */
static void fencing(void **state) {
    struct store *store = store_of(state);
    char id[ID_SIZE], token[WORK_TOKEN_SIZE];
    int was_running;
    const struct report second = {.number = 2};
    struct ovr_err err = {0};
    struct attempt attempt = start(state, id, token), found;
    assert_ok(store_cancel(store, id, &was_running, &err), &err);
    assert_true(was_running);
    assert_failed(report(store, &attempt, &second, &err), OVR_CONFLICT, &err, "is over");
    assert_false(attempt.live);
    err = (struct ovr_err){0};
    assert_ok(store_find_attempt(store, token, &found, NULL, &err), &err);
    assert_false(found.live);
    assert_ok(store_delete_experiment(store, id, &err), &err);
    assert_int_equal(store_find_attempt(store, token, &found, NULL, &err), OVR_NOT_FOUND);
    assert_int_equal(report(store, &attempt, &second, &err), OVR_CONFLICT);

    /* Paused while it waits there. */
    err = (struct ovr_err){0};
    queue_for_cluster(state, id);
    attempt = send(store, token);
    assert_ok(store_pause(store, id, &was_running, &err), &err);
    assert_false(was_running);
    assert_int_equal(state_of(store, id), STATE_PAUSED);
    const struct report first = {.number = 1, .node = "h1", .cores = 1};
    assert_int_equal(report(store, &attempt, &first, &err), OVR_CONFLICT);
    err = (struct ovr_err){0};
    assert_ok(store_resume(store, id, &err), &err);
    struct attempt other = send(store, token);
    assert_int_equal(other.number, 2);
    assert_int_equal(report(store, &attempt, &first, &err), OVR_CONFLICT);
    begin(store, &other);

    /* Paused while it runs: it is asked to. */
    err = (struct ovr_err){0};
    assert_ok(store_pause(store, id, &was_running, &err), &err);
    assert_true(was_running);
    assert_ok(report(store, &other, &second, &err), &err);
    assert_true(other.pausing);
    const struct report last = {.number = 3, .end = END_QUEUED, .reason = "no matter"};
    assert_ok(report(store, &other, &last, &err), &err);
    assert_int_equal(state_of(store, id), STATE_PAUSED);
}

static void *post_ten(void *arg) {
    struct store *store = ((void **)arg)[0];
    struct attempt attempt = *(struct attempt *)((void **)arg)[1];
    for (int64_t i = 2; i <= 11;) {
        const struct figure figures[] = {{.name = "train.loss", .real = 1}};
        const struct report_epoch epoch = {(int)i, figures, 1, NULL, 0};
        const struct report next = {.number = i, .epochs = &epoch, .n_epochs = 1};
        int rc = report(store, &attempt, &next, NULL);
        assert_true(rc >= 0 || rc == OVR_CONFLICT);
        i = rc >= 0 ? i + 1 : attempt.batch + 1;
    }
    return NULL;
}

/* Four times at once, each is taken once. */
static void each_once(void **state) {
    char id[ID_SIZE], token[WORK_TOKEN_SIZE];
    struct attempt attempt = start(state, id, token);
    struct store *store = store_of(state);
    void *arg[] = {store, &attempt};
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, post_ten, arg), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(figures_of(store, attempt.experiment, 1, 99).n, 10);
    struct experiment e = look_up(store, id);
    assert_int_equal(e.revision, 1 + 1 + 10);
    experiment_release(&e);
}

/* ---- Losing them ---- */

static void lost_ones(void **state) {
    struct store *store = store_of(state);
    store_set_rules(store, &(struct queue_rules){86400000, INT64_MAX, 3});
    char id[ID_SIZE], token[WORK_TOKEN_SIZE];
    struct ovr_err err = {0};
    int64_t seq = queue_for_cluster(state, id);
    /* Before it began: it waits on, and only the log says so. */
    struct attempt attempt = send(store, token);
    assert_ok(store_lose_attempt(store, &attempt, "its node failed", &err), &err);
    assert_int_equal(state_of(store, id), STATE_QUEUED);
    assert_last_event(store, seq, "warning: attempt 1 ended before it began: its node failed",
                      NULL);
    assert_int_equal(store_lose_attempt(store, &attempt, "again", &err), OVR_CONFLICT);
    /* While it ran. */
    err = (struct ovr_err){0};
    attempt = send(store, token);
    assert_int_equal(attempt.number, 2);
    begin(store, &attempt);
    assert_ok(store_lose_attempt(store, &attempt, "NODE_FAIL on h1", &err), &err);
    assert_last_event(store, seq, "queued", "NODE_FAIL on h1");
    /* A checkpoint wipes that out. */
    attempt = send(store, token);
    begin(store, &attempt);
    const struct report second = {.number = 2, .checkpoint = 1, .computed_ms = 1};
    assert_ok(report(store, &attempt, &second, &err), &err);
    for (int i = 1; i <= 3; i++) {
        assert_int_equal(state_of(store, id), i == 1 ? STATE_RUNNING : STATE_QUEUED);
        if (i > 1) {
            attempt = send(store, token);
            assert_int_equal(attempt.checkpoint, 1);
            begin(store, &attempt);
        }
        assert_ok(store_lose_attempt(store, &attempt, "TIMEOUT", &err), &err);
    }
    struct experiment e = look_up(store, id);
    assert_int_equal(e.state, STATE_FAILED);
    assert_string_equal(e.problem_kind, "crashed");
    assert_non_null(strstr(e.problem_detail, "lost it 3 times"));
    assert_non_null(strstr(e.problem_detail, "TIMEOUT"));
    experiment_release(&e);
}

/* Its worker says so itself, each time before it got anywhere: that does not go on for ever. */
static void given_back_again_and_again(void **state) {
    struct store *store = store_of(state);
    char id[ID_SIZE], token[WORK_TOKEN_SIZE], reason[501] = "";
    struct attempt attempt;
    store_set_rules(store, &(struct queue_rules){86400000, INT64_MAX, 3});
    queue_for_cluster(state, id);
    for (size_t i = 0; i + 1 < sizeof reason; i += 2)
        memcpy(reason + i, "\u00fc", 2);
    for (int i = 0; i < 4; i++) {
        struct ovr_err err = {0};
        assert_int_equal(state_of(store, id), STATE_QUEUED);
        attempt = send(store, token);
        const struct report whole = {.number = 1,
                                     .node = "h1",
                                     .cores = 1,
                                     .checkpoint = i == 1, /* but this once */
                                     .end = END_QUEUED,
                                     .reason = reason};
        assert_ok(report(store, &attempt, &whole, &err), &err);
    }
    struct experiment e = look_up(store, id);
    assert_int_equal(e.state, STATE_FAILED);
    assert_string_equal(e.problem_kind, "crashed");
    assert_non_null(strstr(e.problem_detail, "lost it 3 times"));
    assert_true(utf8_is_valid(e.problem_detail));
    experiment_release(&e);
}

static void lost_while_it_was_to_pause(void **state) {
    struct store *store = store_of(state);
    char id[ID_SIZE], token[WORK_TOKEN_SIZE];
    struct ovr_err err = {0};
    int was_running;
    struct attempt attempt = start(state, id, token);
    assert_ok(store_pause(store, id, &was_running, &err), &err);
    assert_ok(store_lose_attempt(store, &attempt, "scancel", &err), &err);
    assert_int_equal(state_of(store, id), STATE_PAUSED);
}

static void failed_by_others(void **state) {
    struct store *store = store_of(state);
    char id[ID_SIZE], token[WORK_TOKEN_SIZE];
    for (int begun = 0; begun < 2; begun++) {
        struct ovr_err err = {0};
        queue_for_cluster(state, id);
        struct attempt attempt = send(store, token);
        if (begun)
            begin(store, &attempt);
        assert_ok(store_fail_attempt(store, &attempt, "too-large", "no node has it", &err), &err);
        struct experiment e = look_up(store, id);
        assert_int_equal(e.state, STATE_FAILED);
        assert_string_equal(e.problem_kind, "too-large");
        assert_true(e.finished_at > 0);
        experiment_release(&e);
        assert_last_event(store, attempt.experiment, "failed", "no node has it");
        assert_int_equal(store_fail_attempt(store, &attempt, "x", "y", &err), OVR_CONFLICT);
    }
}

/* ---- The daemon starts anew ---- */

static void workers_outlive_the_daemon(void **state) {
    char runs[ID_SIZE], waits[ID_SIZE], local[ID_SIZE], token[WORK_TOKEN_SIZE];
    struct ovr_err err = {0};
    struct experiment e;
    int requeued, waiting, was_running;
    struct attempt attempt = start(state, runs, token);
    assert_ok(store_pause(store_of(state), runs, &was_running, &err), &err);
    queue_for_cluster(state, waits);
    struct attempt sent = send(store_of(state), token);
    enqueue(store_of(state), &(struct new_experiment){.memory_bytes = 1}, local);
    assert_ok(store_claim(store_of(state), INT64_MAX, &e, &waiting, &err), &err);
    experiment_release(&e);
    for (int i = 0; i < 5; i++) {
        reopen_store(*state);
        assert_ok(store_recover(store_of(state), 3, &requeued, &err), &err);
        assert_int_equal(requeued, i == 0);
        assert_int_equal(state_of(store_of(state), runs), STATE_RUNNING);
        assert_int_equal(state_of(store_of(state), waits), STATE_QUEUED);
    }
    struct store *store = store_of(state);
    struct queue_rows rows;
    assert_ok(store_read_queue(store, &rows, &err), &err);
    assert_true(rows.owners[0].cores == 4);
    assert_int_equal(rows.owners[0].running, 2);
    queue_rows_release(&rows);
    assert_ok(report(store, &attempt, &(struct report){.number = 2}, &err), &err);
    assert_true(attempt.pausing);
    const struct report last = {.number = 3, .end = END_PAUSED};
    assert_ok(report(store, &attempt, &last, &err), &err);
    begin(store, &sent);
    assert_int_equal(state_of(store, waits), STATE_RUNNING);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        with_store(each_executor_takes_its_own),
        with_store(tokens_find_their_attempt),
        with_store(what_slurm_says_is_kept),
        with_store(withdrawn_is_as_if_never_sent),
        with_store(limits_count_what_was_sent),
        with_store(a_run_by_reports),
        with_store(it_begins_once_and_first),
        with_store(ends),
        with_store(fencing),
        with_store(each_once),
        with_store(lost_ones),
        with_store(given_back_again_and_again),
        with_store(lost_while_it_was_to_pause),
        with_store(failed_by_others),
        with_store(workers_outlive_the_daemon),
    };
    return cmocka_run_group_tests_name("server/attempts", tests, NULL, NULL);
}
