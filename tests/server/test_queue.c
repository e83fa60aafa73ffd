/* The queue of several people: who is next by what the store knows, what is remembered of their
 * use, and what they are told. */
#include "server/people.h"
#include "server/queue.h"
#include "server/store/db.h"
#include "tests/server/past.h"

static struct store *store_of(void **state) {
    return ((struct place *)*state)->store;
}

static int64_t add_user(struct store *store, const char *name, int64_t running) {
    char text[TOKEN_SIZE], id[ID_SIZE];
    struct ovr_err err = {0};
    struct user user;
    assert_ok(token_make(text, &err), &err);
    const struct new_token token = {.label = "", .text = text, .scope = LEVEL_ADMIN};
    assert_ok(store_add_user(store, name, LEVEL_ADMIN, &(struct quotas){running, -1, -1}, &token,
                             id, &err),
              &err);
    assert_ok(store_get_user(store, name, &user, &err), &err);
    return user.seq;
}

static void post(struct store *store, int64_t owner, int n, int64_t memory_bytes) {
    char id[ID_SIZE];
    for (int i = 0; i < n; i++)
        enqueue(store,
                &(struct new_experiment){
                    .owner = owner, .memory_bytes = memory_bytes, .core_seconds = 100},
                id);
}

/* The owner's name of who is claimed, "-" where nothing is; *seq, which may be NULL, is its seq. */
static const char *claim(struct store *store, int64_t free_bytes, int64_t *seq) {
    static char owner[USER_NAME_SIZE];
    struct experiment e;
    struct ovr_err err = {0};
    int waiting, rc = store_claim(store, free_bytes, &e, &waiting, &err);
    if (rc == OVR_NOT_FOUND)
        return "-";
    assert_ok(rc, &err);
    snprintf(owner, sizeof owner, "%s", *e.owner ? e.owner : "nobody");
    if (seq)
        *seq = e.seq;
    experiment_release(&e);
    return owner;
}

static double use_of(struct store *store, const char *name) {
    struct queue_rows rows;
    struct ovr_err err = {0};
    double use = -1;
    assert_ok(store_read_queue(store, &rows, &err), &err);
    for (size_t i = 0; i < rows.n_owners; i++)
        if (strcmp(rows.owners[i].name, name) == 0)
            use = rows.owners[i].use;
    queue_rows_release(&rows);
    return use;
}

/* A sweep that was posted first does not keep others out, nor what was posted before there were
 * users. */
static void who_comes_later_gets_her_share(void **state) {
    struct store *store = store_of(state);
    post(store, 0, 5, 1);
    int64_t alice = add_user(store, "alice", -1), bob = add_user(store, "bob", -1);
    post(store, alice, 5, 1);
    post(store, bob, 3, 1);
    int claimed[3] = {0};
    for (int i = 0; i < 9; i++) { /* in turn: what runs counts */
        const char *whose = claim(store, 100, NULL);
        claimed[*whose == 'a' ? 1 : *whose == 'b' ? 2 : 0]++;
        for (int o = 0; o < 3; o++)
            assert_in_range(claimed[o], i / 3, i / 3 + 1);
    }
    for (int i = 0; i < 4; i++)
        assert_string_not_equal(claim(store, 100, NULL), "bob"); /* who has no more */
    assert_string_equal(claim(store, 100, NULL), "-");
}

/* Nor out of the cluster, where what was sent may wait for hours before it uses anything. */
static void what_was_sent_counts(void **state) {
    struct store *store = store_of(state);
    int64_t alice = add_user(store, "alice", -1), bob = add_user(store, "bob", -1);
    char id[ID_SIZE], token[WORK_TOKEN_SIZE];
    for (int i = 0; i < 8; i++)
        enqueue(store,
                &(struct new_experiment){
                    .owner = i < 5 ? alice : bob, .memory_bytes = 1, .executor = EXECUTOR_SLURM},
                id);
    int sent[2] = {0};
    for (int i = 0; i < 6; i++) {
        struct attempt attempt;
        struct experiment e;
        struct ovr_err err = {0};
        assert_ok(store_begin_attempt(store, &attempt, token, &e, &err), &err);
        sent[*e.owner == 'b']++;
        experiment_release(&e);
        assert_in_range(sent[0] - sent[1], 0, 1);
    }
}

static void nobody_exceeds_her_limit(void **state) {
    struct store *store = store_of(state);
    int64_t alice = add_user(store, "alice", 1), bob = add_user(store, "bob", -1), seq;
    int64_t carol = add_user(store, "carol", 0);
    store_set_quotas(store, &(struct quotas){.running = 2});
    post(store, alice, 9, 1);
    assert_string_equal(claim(store, 100, &seq), "alice");
    assert_string_equal(claim(store, 100, NULL), "-");
    post(store, bob, 9, 1);
    assert_string_equal(claim(store, 100, NULL), "bob");
    assert_string_equal(claim(store, 100, NULL), "bob");
    assert_string_equal(claim(store, 100, NULL), "-"); /* as the settings say */
    post(store, carol, 4, 1);
    for (int i = 0; i < 4; i++)
        assert_string_equal(claim(store, 100, NULL), "carol"); /* 0: as many as she likes */
    assert_int_equal(store_requeue(store, seq, "because", NULL), 0);
    assert_string_equal(claim(store, 100, NULL), "alice");
}

/* What runs is charged as it goes, its end is stored with it, and all is there after a restart. Of
 * 1000 cores for 50 ms, which are 50 core-seconds, a little has faded. */
static void use_is_remembered(void **state) {
    struct store *store = store_of(state);
    int64_t alice = add_user(store, "alice", -1), seq, other;
    post(store, alice, 2, 1);
    claim(store, 100, &seq);
    claim(store, 100, &other);
    store_set_cores(store, other, 0);
    store_set_cores(store, seq, 1000);
    sleep_ms(50);
    double running = use_of(store, "alice");
    assert_true(running >= 49 && running < 5000);
    assert_int_equal(store_note_checkpoint(store, seq, 0, NULL), 0);
    store_set_cores(store, seq, 0);
    double stored = use_of(store, "alice");
    assert_true(stored >= running);
    reopen_store(*state); /* as after kill -9 */
    store = store_of(state);
    double after = use_of(store, "alice");
    assert_true(after >= running * 0.999 &&
                after <= stored); /* what was since the checkpoint is lost */
    int requeued;
    assert_int_equal(store_recover(store, 10, &requeued, NULL), 0);
    assert_int_equal(requeued, 2);
    claim(store, 100, &seq);
    store_set_cores(store, seq, 1000);
    sleep_ms(20);
    const struct outcome outcome = {.state = STATE_SUCCEEDED};
    assert_int_equal(store_finish(store, seq, &outcome, NULL), 0);
    double ended = use_of(store, "alice");
    assert_true(ended >= after + 19);
    sleep_ms(20);
    assert_true(use_of(store, "alice") <= ended); /* nothing runs any more */
    claim(store, 100, &seq);
    store_set_cores(store, seq, 1000);
    sleep_ms(20);
    int was_running;
    char id[ID_SIZE];
    struct experiment e;
    assert_int_equal(store_get_numbered(store, seq, &e, NULL), 0);
    memcpy(id, e.id, sizeof id);
    experiment_release(&e);
    assert_int_equal(store_cancel(store, id, &was_running, NULL), 0);
    assert_true(use_of(store, "alice") >= ended + 19);
}

static void end_by_result(struct store *store, int64_t seq, const char *sweep) {
    (void)sweep;
    assert_int_equal(store_finish(store, seq, &(struct outcome){.state = STATE_SUCCEEDED}, NULL),
                     0);
}

static void end_by_requeue(struct store *store, int64_t seq, const char *sweep) {
    (void)sweep;
    assert_int_equal(store_requeue(store, seq, "because", NULL), 0);
}

static void end_with_sweep(struct store *store, int64_t seq, const char *sweep) {
    char(*running)[ID_SIZE];
    size_t n;
    (void)seq;
    assert_int_equal(store_cancel_sweep(store, sweep, &running, &n, NULL), 0);
    assert_int_equal(n, 1);
    free(running);
}

static void post_sweep(struct store *store, int64_t owner, char id[ID_SIZE]) {
    const struct new_experiment run = {
        .name = "", .tags = "", .spec = "{}", .memory_bytes = 1, .core_seconds = 1};
    const char *values = "{}";
    const struct new_sweep sweep = {.name = "",
                                    .tags = "",
                                    .notes = "",
                                    .request = "{}",
                                    .axes = "[]",
                                    .owner = owner,
                                    .points = {&values, &run, 1, 1, 0}};
    struct ovr_err err = {0};
    int repeated;
    assert_ok(store_add_sweep(store, &sweep, id, &repeated, &err), &err);
}

/* However it ends, and whatever of it waits to be written then. */
static void a_run_is_charged_once(void **state) {
    static void (*const ends[])(struct store *, int64_t,
                                const char *) = {end_by_result, end_by_requeue, end_with_sweep};
    static const char *const names[] = {"alice", "bob", "carol"};
    struct store *store = store_of(state);
    for (size_t i = 0; i < COUNT(ends); i++) {
        char sweep[ID_SIZE];
        int64_t seq;
        post_sweep(store, add_user(store, names[i], -1), sweep);
        assert_string_equal(claim(store, 100, &seq), names[i]);
        store_set_cores(store, seq, 1000);
        sleep_ms(200);
        store_log(store, seq, "a line");
        double running = use_of(store, names[i]);
        ends[i](store, seq, sweep);
        double ended = use_of(store, names[i]);
        assert_true(running >= 199 && ended >= running * 0.999);
        assert_true(ended < running * 1.9);
    }
}

/* It counts against her, and less with time. */
static void who_used_less_goes_first(void **state) {
    struct store *store = store_of(state);
    int64_t alice = add_user(store, "alice", -1), bob = add_user(store, "bob", -1), seq;
    store_set_rules(store, &(struct queue_rules){100, 1000}); /* a half-life of 100 ms */
    post(store, alice, 1, 1);
    claim(store, 100, &seq);
    store_set_cores(store, seq, 100);
    sleep_ms(20);
    assert_int_equal(store_finish(store, seq, &(struct outcome){.state = STATE_SUCCEEDED}, NULL),
                     0);
    double use = use_of(store, "alice");
    assert_true(use > 0.5);
    post(store, alice, 1, 1);
    post(store, bob, 1, 1);
    assert_string_equal(claim(store, 100, NULL), "bob");
    sleep_ms(200);
    assert_true(use_of(store, "alice") < use / 3);
}

/* ---- Two executors ---- */

static int64_t post_to(struct store *store, int64_t owner, enum executor_kind executor,
                       int64_t memory_bytes) {
    char id[ID_SIZE];
    enqueue(store,
            &(struct new_experiment){.owner = owner,
                                     .memory_bytes = memory_bytes,
                                     .core_seconds = 100,
                                     .executor = executor,
                                     .ranks = executor == EXECUTOR_SLURM ? 4 : 0},
            id);
    struct experiment e = look_up(store, id);
    int64_t seq = e.seq;
    assert_int_equal(e.executor, executor);
    assert_int_equal(e.ranks, executor == EXECUTOR_SLURM ? 4 : 1);
    experiment_release(&e);
    return seq;
}

/* The next one of an executor's queue, 0 where there is none. */
static int64_t next_of(struct store *store, enum executor_kind executor, int64_t free_bytes) {
    struct connection *c = db_take_reader(store);
    struct ovr_err err = {0};
    int64_t seq = 0, owner;
    int rc = choose_next(store, c, executor, free_bytes, &seq, &owner, &err);
    db_give_back(c);
    if (rc != OVR_NOT_FOUND)
        assert_ok(rc, &err);
    return rc ? 0 : seq;
}

static void each_executor_has_its_queue(void **state) {
    struct store *store = store_of(state);
    int64_t alice = add_user(store, "alice", -1), seq;
    int64_t far = post_to(store, alice, EXECUTOR_SLURM, 1000);
    int64_t big = post_to(store, 0, EXECUTOR_LOCAL, 1000);
    int64_t here = post_to(store, 0, EXECUTOR_LOCAL, 10);
    assert_int_equal(next_of(store, EXECUTOR_SLURM, INT64_MAX), far);
    assert_int_equal(next_of(store, EXECUTOR_LOCAL, INT64_MAX), big);
    assert_int_equal(next_of(store, EXECUTOR_LOCAL, 100), here);
    /* A look at the cluster's queue forgets nobody who waits for memory here. */
    assert_int_equal(store->n_blocked, 1);
    assert_int_equal(next_of(store, EXECUTOR_SLURM, INT64_MAX), far);
    assert_int_equal(store->n_blocked, 1);
    assert_string_equal(claim(store, 100, &seq), "nobody");
    assert_int_equal(seq, here);
    assert_string_equal(claim(store, 100, NULL), "-");
    assert_string_equal(claim(store, 10000, NULL), "nobody");
    assert_string_equal(claim(store, 10000, NULL), "-"); /* the other one is not ours */
    assert_int_equal(next_of(store, EXECUTOR_LOCAL, INT64_MAX), 0);
    assert_int_equal(next_of(store, EXECUTOR_SLURM, INT64_MAX), far);
}

static struct queue_rows rows_of(struct store *store) {
    struct queue_rows rows;
    struct ovr_err err = {0};
    assert_ok(store_read_queue(store, &rows, &err), &err);
    return rows;
}

/* One that waits there, one that runs, and one that is not sent yet. */
static void what_was_sent_waits_elsewhere(void **state) {
    struct store *store = store_of(state);
    int64_t alice = add_user(store, "alice", -1);
    int64_t waits = post_to(store, alice, EXECUTOR_SLURM, 10);
    int64_t runs = post_to(store, alice, EXECUTOR_SLURM, 20);
    int64_t other = post_to(store, alice, EXECUTOR_SLURM, 30);
    assert_true(waits == 1 && runs == 2);
    write_past(*state,
               "INSERT INTO attempt (experiment, number, token_sha256, job_name, job, reason, "
               "submitted_at) VALUES (1, 1, 'a', 'a', '17', 'Priority', 5); "
               "INSERT INTO attempt (experiment, number, token_sha256, job_name, job, node, "
               "begun_at, submitted_at) VALUES (2, 1, 'b', 'b', '16', 'h1', 9, 4); "
               "UPDATE experiment SET sent = 1 WHERE seq <= 2; "
               "UPDATE experiment SET state = 'running', started_at = 9 WHERE seq = 2");
    assert_int_equal(next_of(store, EXECUTOR_SLURM, INT64_MAX), other);
    struct queue_rows rows = rows_of(store);
    assert_int_equal(rows.n_waiting, 1);
    assert_int_equal(rows.waiting[0].seq, other);
    assert_int_equal(rows.waiting[0].executor, EXECUTOR_SLURM);
    assert_int_equal(rows.n_sent, 2);
    const struct sent *first = &rows.sent[0], *second = &rows.sent[1];
    assert_true(first->seq == runs && first->begun_ms == 9 && first->memory_bytes == 20);
    assert_string_equal(first->node, "h1");
    assert_string_equal(first->reason, "");
    assert_true(second->seq == waits && !second->begun_ms && second->ranks == 4);
    assert_true(second->owner == alice);
    assert_string_equal(second->job, "17");
    assert_string_equal(second->reason, "Priority");
    queue_rows_release(&rows);
    struct experiment e;
    assert_int_equal(store_get_numbered(store, runs, &e, NULL), 0);
    assert_string_equal(e.job, "16");
    assert_string_equal(e.node, "h1");
    experiment_release(&e);
    write_past(*state, "UPDATE experiment SET state = 'cancelled' WHERE seq = 2; "
                       "UPDATE experiment SET state = 'paused' WHERE seq = 1");
    rows = rows_of(store);
    assert_int_equal(rows.n_sent, 0); /* the attempts are over with it */
    queue_rows_release(&rows);
    assert_int_equal(store_get_numbered(store, runs, &e, NULL), 0);
    assert_string_equal(e.job, "");
    experiment_release(&e);
}

/* No statement of the queue reads more than it has to. */
static void the_queue_goes_by_its_indices(void **state) {
    static const struct {
        enum sql which;
        const char *step; /* of its plan */
    } statements[] = {
        {FIRSTS, "SEARCH experiment USING INDEX experiment_queue (executor=? AND owner>?)"},
        {READ_SENT, "SCAN a USING INDEX attempt_live"},
    };
    static const enum sql whole[] = {FIRSTS,    FITTING_OF_OWNER, READ_WAITING,
                                     READ_SENT, COUNT_QUEUE,      CLAIM};
    for (size_t i = 0; i < COUNT(whole); i++) {
        char *plan = plan_of(store_of(state)->writer.db, sql[whole[i]]), *rest;
        for (size_t k = 0; k < COUNT(statements); k++)
            if (statements[k].which == whole[i])
                assert_non_null(strstr(plan, statements[k].step));
        for (char *step = strtok_r(plan, "\n", &rest); step; step = strtok_r(NULL, "\n", &rest)) {
            if (strncmp(step, "SCAN experiment", 15) == 0 && !strstr(step, " USING "))
                fail_msg("%s: %s", sql[whole[i]], step);
            int few = whole[i] == READ_SENT || whole[i] == FITTING_OF_OWNER; /* some fifty rows */
            if (strstr(step, "TEMP B-TREE") && !few)
                fail_msg("%s: %s", sql[whole[i]], step);
        }
        sqlite3_free(plan);
    }
}

/* ---- Many ---- */

/* Queued experiments of many users, written past the store, every other one for the cluster. */
static void fill(struct place *place, int users, int jobs) {
    char *statements = sqlite3_mprintf(
        "BEGIN; WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d) "
        "INSERT INTO user (name, role, created_at) SELECT 'user' || i, 'member', 1 FROM n; "
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d) INSERT INTO "
        "experiment (id, name, tags, priority, state, spec, memory_bytes, created_at, "
        "core_seconds, executor, "
        "owner) SELECT printf('%%012d', i), 'x', '', i %% 3, 'queued', '{\"training\":{}}', 1 + i "
        "%% 7, 1, 60, i / %d %% 2, 1 + (i * 7919) %% %d FROM n; COMMIT",
        users, jobs, users, users);
    write_past(place, statements);
    sqlite3_free(statements);
}

static void a_hundred_thousand_of_a_thousand(void **state) {
    struct store *store = store_of(state);
    enum { USERS = 1000, JOBS = 100000, CLAIMS = 100 };
    fill(*state, USERS, JOBS);
    int64_t started = now_ms();
    for (int i = 0; i < CLAIMS; i++)
        assert_string_not_equal(claim(store, 100, NULL), "-");
    double claim_ms = (double)(now_ms() - started) / CLAIMS;
    started = now_ms();
    for (int i = 0; i < 10; i++)
        assert_string_equal(claim(store, 0, NULL), "-"); /* nothing fits */
    double miss_ms = (double)(now_ms() - started) / 10;
    started = now_ms();
    for (int i = 0; i < 10; i++)
        assert_true(next_of(store, EXECUTOR_SLURM, INT64_MAX) > 0);
    double send_ms = (double)(now_ms() - started) / 10;
    started = now_ms();
    struct queue_rows rows = rows_of(store);
    double read_ms = (double)(now_ms() - started);
    assert_int_equal(rows.n_waiting, JOBS - CLAIMS);
    assert_int_equal(rows.n_owners, USERS + 1);
    queue_rows_release(&rows);
    print_message("of %d users: a claim %.1f ms, in vain %.1f ms; for the cluster %.1f ms; %d that "
                  "wait read in %.0f ms\n",
                  USERS, claim_ms, miss_ms, send_ms, JOBS, read_ms);
    assert_true(claim_ms < 200 && miss_ms < 1000 && send_ms < 200 &&
                read_ms < 5000); /* busy machines, sanitizers */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        with_store(who_comes_later_gets_her_share), with_store(what_was_sent_counts),
        with_store(nobody_exceeds_her_limit),       with_store(use_is_remembered),
        with_store(a_run_is_charged_once),          with_store(who_used_less_goes_first),
        with_store(each_executor_has_its_queue),    with_store(what_was_sent_waits_elsewhere),
        with_store(the_queue_goes_by_its_indices),  with_store(a_hundred_thousand_of_a_thousand),
    };
    return cmocka_run_group_tests_name("server/queue", tests, start_blas, NULL);
}
