/* The store: what goes in comes out, states change along legal ways only, and many threads may ask.
 */
#include "server/migrations.h"
#include "tests/server/past.h"

#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>

static struct store *store_of(void **state) {
    return ((struct place *)*state)->store;
}

static void queue_one(struct store *store, char id[ID_SIZE]) {
    enqueue(store, &(struct new_experiment){.memory_bytes = 1}, id);
}

/* Claims the first in the queue, which has to be there. The caller releases it. */
static struct experiment claim(struct store *store) {
    struct experiment e = {0};
    struct ovr_err err = {0};
    int waiting;
    assert_ok(store_claim(store, INT64_MAX, &e, &waiting, &err), &err);
    return e;
}

static int64_t start_one(struct store *store, char id[ID_SIZE]) {
    queue_one(store, id);
    struct experiment e = claim(store);
    int64_t seq = e.seq;
    assert_string_equal(e.id, id);
    experiment_release(&e);
    return seq;
}

static void finish(struct store *store, int64_t seq, enum state how) {
    struct ovr_err err = {0};
    struct outcome outcome = {.state = how};
    assert_ok(store_finish(store, seq, &outcome, &err), &err);
}

/* Experiments */

static void what_goes_in_comes_out(void **state) {
    struct store *store = store_of(state);
    char id[ID_SIZE];
    int64_t before = now_ms();
    enqueue(store,
            &(struct new_experiment){.name = "né \"1\"",
                                     .tags = "\na\nb\n",
                                     .spec = "{\"x\":1}",
                                     .priority = -3,
                                     .memory_bytes = 5000000000},
            id);
    assert_int_equal(strlen(id), ID_SIZE - 1);
    assert_int_equal(strspn(id, "0123456789abcdefghjkmnpqrstvwxyz"), ID_SIZE - 1);
    reopen_store(*state); /* it is on disk */
    struct experiment e = look_up(store_of(state), id);
    assert_string_equal(e.id, id);
    assert_string_equal(e.name, "né \"1\"");
    assert_string_equal(e.tags, "\na\nb\n");
    assert_string_equal(e.spec, "{\"x\":1}");
    assert_int_equal(e.priority, -3);
    assert_int_equal(e.state, STATE_QUEUED);
    assert_true(e.memory_bytes == 5000000000);
    assert_in_range(e.created_at, before, now_ms());
    assert_true(!e.started_at && !e.finished_at && !e.attempts);
    assert_true(!e.queue_reason && !e.problem_kind && !e.problem_pointer && !e.problem_detail);
    assert_int_equal(e.revision, 1);
    experiment_release(&e);
}

static void unknown_ids(void **state) {
    struct experiment e;
    static const char *const ids[] = {"", "nothere00000", "' OR 1=1 --", "%"};
    for (size_t i = 0; i < COUNT(ids); i++) {
        struct ovr_err err = {0};
        int running;
        assert_failed(store_get_experiment(store_of(state), ids[i], &e, &err), OVR_NOT_FOUND, &err,
                      "there is no experiment");
        assert_non_null(strstr(err.text, ids[i]));
        err = (struct ovr_err){0};
        assert_failed(store_cancel(store_of(state), ids[i], &running, &err), OVR_NOT_FOUND, &err,
                      "there is no experiment");
    }
}

/* Names in the list, joined. */
static void assert_list(struct store *store, const struct experiment_filter *filter,
                        const char *expected) {
    struct experiment *list;
    size_t n;
    struct ovr_err err = {0};
    char names[256] = "";
    struct experiment_filter f = *filter;
    f.limit = f.limit ? f.limit : 100;
    assert_ok(store_list_experiments(store, &f, &list, &n, &err), &err);
    for (size_t i = 0, at = 0; i < n; i++)
        at += (size_t)snprintf(names + at, sizeof names - at, "%s%s", i ? " " : "", list[i].name);
    assert_string_equal(names, expected);
    experiment_list_free(list, n);
}

static void lists_and_filters(void **state) {
    struct store *store = store_of(state);
    static const struct {
        const char *name, *tags;
    } them[] = {{"a1", "\npaper\n"},
                {"a2", ""},
                {"b1", "\npaper\nlong tag\n"},
                {"A%", "\npaperback\n"},
                {"a_", "\nb\nc\n"}};
    char id[ID_SIZE];
    assert_list(store, &(struct experiment_filter){0}, "");
    for (size_t i = 0; i < COUNT(them); i++)
        enqueue(store, &(struct new_experiment){.name = them[i].name, .tags = them[i].tags}, id);
    struct experiment e = claim(store);
    experiment_release(&e);
#define LIST(expected, ...) assert_list(store, &(struct experiment_filter){__VA_ARGS__}, expected)
    LIST("a_ A% b1 a2 a1", 0);
    LIST("a_ A%", .limit = 2);
    LIST("b1 a2", .limit = 2, .before = 4);
    LIST("a1", .limit = 2, .before = 2);
    LIST("", .before = 1);
    LIST("a_ A% b1 a2", .state = "queued");
    LIST("a1", .state = "running");
    LIST("", .state = "failed");
    LIST("", .state = "nonsense");
    LIST("b1 a1", .tag = "paper");
    LIST("b1", .tag = "long tag");
    LIST("", .tag = "pap");
    LIST("", .tag = "tag");
    LIST("a_", .tag = "c");
    LIST("a_ a2 a1", .name_prefix = "a");
    LIST("a_", .name_prefix = "a_");
    LIST("", .name_prefix = "%");
    LIST("A%", .name_prefix = "A");
    LIST("a_ A% b1 a2 a1", .name_prefix = "");
    LIST("a1", .name_prefix = "a", .tag = "paper", .state = "running");
    LIST("", .name_prefix = "a", .tag = "paper", .state = "queued");
}

/* Finishes the one that is next, with an accuracy. */
static void finish_with(struct store *store, double accuracy) {
    struct experiment e = claim(store);
    struct ovr_err err = {0};
    const struct figure result = {.name = "accuracy", .kind = FIGURE_REAL, .real = accuracy};
    struct outcome outcome = {.state = STATE_SUCCEEDED, .result = &result, .n_result = 1};
    assert_ok(store_finish(store, e.seq, &outcome, &err), &err);
    experiment_release(&e);
}

/* How many have a tag by the table that lists go by. */
static int count_tagged(const struct place *place, const char *tag) {
    sqlite3 *db = open_past(place);
    sqlite3_stmt *row = prepare(db, "SELECT count(*) FROM experiment_tag WHERE tag = ?1");
    sqlite3_bind_text(row, 1, tag, -1, SQLITE_STATIC);
    assert_int_equal(sqlite3_step(row), SQLITE_ROW);
    int n = sqlite3_column_int(row, 0);
    sqlite3_finalize(row);
    sqlite3_close(db);
    return n;
}

/* Those with a tag are looked at one by one where they are few, else all are in order: the same
 * comes out. */
static void lists_by_tag_in_every_order(void **state) {
    enum { MANY = 600 };
    struct store *store = store_of(state);
    char id[ID_SIZE], other[ID_SIZE];
    for (int i = 0; i < MANY; i++) {
        char name[16];
        snprintf(name, sizeof name, "n%d", i);
        enqueue(store,
                &(struct new_experiment){.name = name,
                                         .tags = i % 200 ? "\nmany\n" : "\nmany\nfew\n",
                                         .memory_bytes = 1},
                i == 200 ? id : other);
        finish_with(store, i % 7 + i / 1000.0);
    }
    LIST("n400 n200 n0", .tag = "few");
    LIST("n0 n200 n400", .tag = "few", .ascending = 1);
    LIST("n0 n200", .tag = "few", .order = ORDER_FINISHED, .ascending = 1, .limit = 2);
    LIST("n400 n200 n0", .tag = "few", .order = ORDER_FINISHED);
    LIST("n200 n400 n0", .tag = "few", .order = ORDER_FIGURE, .figure = "accuracy");
    LIST("n0 n400 n200", .tag = "few", .order = ORDER_FIGURE, .figure = "accuracy", .ascending = 1);
    LIST("n400 n0", .tag = "few", .order = ORDER_FIGURE, .figure = "accuracy", .key = 4.2,
         .before = 201);
    LIST("n587 n580", .tag = "many", .order = ORDER_FIGURE, .figure = "accuracy", .limit = 2,
         .key = 6.59, .before = 1000);
    LIST("n599 n598", .tag = "many", .order = ORDER_FINISHED, .limit = 2);
    LIST("n599 n598", .tag = "many", .limit = 2);
    LIST("", .tag = "fe", .order = ORDER_FINISHED);
    struct ovr_err err = {0};
    assert_ok(store_edit_experiment(store, id, -1, &(struct edit){.tags = "\nnew\n"}, &err), &err);
    LIST("n400 n0", .tag = "few");
    LIST("n200", .tag = "new", .order = ORDER_FINISHED);
    assert_int_equal(count_tagged(*state, "few"), 2);
    assert_int_equal(count_tagged(*state, "many"), MANY - 1);
    assert_ok(store_delete_experiment(store, id, &err), &err);
    LIST("", .tag = "new");
    assert_int_equal(count_tagged(*state, "new"), 0);
}

static void many_pages(void **state) {
    struct store *store = store_of(state);
    char id[ID_SIZE];
    for (int i = 0; i < 23; i++)
        queue_one(store, id);
    int64_t before = 0;
    int seen = 0;
    for (;;) {
        struct experiment *list;
        size_t n;
        struct ovr_err err = {0};
        const struct experiment_filter filter = {.before = before, .limit = 5};
        assert_ok(store_list_experiments(store, &filter, &list, &n, &err), &err);
        for (size_t i = 0; i < n; i++, seen++)
            assert_int_equal(list[i].seq, 23 - seen);
        before = n ? list[n - 1].seq : 0;
        experiment_list_free(list, n);
        if (!n)
            break;
    }
    assert_int_equal(seen, 23);
}

static void idempotency_keys(void **state) {
    struct store *store = store_of(state);
    struct new_experiment new = {
        .name = "x", .tags = "", .spec = "{}", .idempotency_key = "k", .body_sha256 = "one"};
    char first[ID_SIZE], again[ID_SIZE] = "", other[ID_SIZE];
    struct ovr_err err = {0};
    int repeated;
    enqueue(store, &new, first);
    assert_ok(store_add_experiment(store, &new, again, &repeated, &err), &err);
    assert_true(repeated);
    assert_string_equal(again, first);
    new.body_sha256 = "two";
    assert_failed(store_add_experiment(store, &new, again, &repeated, &err), OVR_CONFLICT, &err,
                  first);
    assert_string_equal(err.field, "Idempotency-Key");
    assert_false(repeated);
    new.idempotency_key = "K";
    enqueue(store, &new, other);
    assert_string_not_equal(other, first);
    new.idempotency_key = NULL; /* without a key every post is one more */
    enqueue(store, &new, other);
    enqueue(store, &new, other);
    struct census census;
    assert_int_equal(store_census(store, &census, NULL), 0);
    assert_int_equal(census.count[STATE_QUEUED], 4);
}

/* The queue */

static void priority_then_age(void **state) {
    struct store *store = store_of(state);
    static const int priorities[] = {0, 5, -100, 5, 0, 100};
    static const int order[] = {5, 1, 3, 0, 4, 2};
    char ids[COUNT(priorities)][ID_SIZE];
    for (size_t i = 0; i < COUNT(priorities); i++)
        enqueue(store, &(struct new_experiment){.priority = priorities[i]}, ids[i]);
    for (size_t i = 0; i < COUNT(order); i++) {
        struct experiment e = claim(store);
        assert_string_equal(e.id, ids[order[i]]);
        assert_int_equal(e.state, STATE_RUNNING);
        assert_int_equal(e.attempts, 1);
        assert_int_equal(e.revision, 2);
        assert_true(e.started_at >= e.created_at);
        experiment_release(&e);
    }
    struct experiment none;
    int waiting;
    assert_int_equal(store_claim(store, INT64_MAX, &none, &waiting, NULL), OVR_NOT_FOUND);
}

/* What does not fit waits, and what fits behind it goes first. */
static void memory_holds_a_claim_back(void **state) {
    struct store *store = store_of(state);
    char big[ID_SIZE], bigger[ID_SIZE], small[ID_SIZE];
    struct experiment e;
    int waiting;
    enqueue(store, &(struct new_experiment){.memory_bytes = 100}, big);
    enqueue(store, &(struct new_experiment){.memory_bytes = 101}, bigger);
    enqueue(store, &(struct new_experiment){.memory_bytes = 2}, small);
    assert_int_equal(store_claim(store, 1, &e, &waiting, NULL), OVR_NOT_FOUND);
    assert_int_equal(store_claim(store, 99, &e, &waiting, NULL), 0);
    assert_string_equal(e.id, small);
    experiment_release(&e);
    assert_int_equal(state_of(store, big), STATE_QUEUED);
    assert_int_equal(store_claim(store, 99, &e, &waiting, NULL), OVR_NOT_FOUND);
    assert_int_equal(store_claim(store, 100, &e, &waiting, NULL), 0);
    assert_string_equal(e.id, big);
    assert_int_equal(waiting, 1);
    experiment_release(&e);
}

enum { CLAIMERS = 8, JOBS = 120 };

struct claimers {
    struct store *store;
    _Atomic int claims[JOBS + 1], wrong; /* by seq */
};

static void *claim_all(void *arg) {
    struct claimers *c = arg;
    struct experiment e;
    int rc, waiting;
    while (!(rc = store_claim(c->store, INT64_MAX, &e, &waiting, NULL))) {
        if (e.seq >= 1 && e.seq <= JOBS)
            c->claims[e.seq]++;
        experiment_release(&e);
    }
    c->wrong += rc != OVR_NOT_FOUND;
    return NULL;
}

static void each_job_is_claimed_once(void **state) {
    struct claimers c = {.store = store_of(state)};
    pthread_t threads[CLAIMERS];
    char id[ID_SIZE];
    for (int i = 0; i < JOBS; i++)
        queue_one(c.store, id);
    for (int i = 0; i < CLAIMERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, claim_all, &c), 0);
    for (int i = 0; i < CLAIMERS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(c.wrong, 0);
    for (int i = 1; i <= JOBS; i++)
        assert_int_equal(c.claims[i], 1);
}

/* States */

static void only_what_runs_can_end(void **state) {
    struct store *store = store_of(state);
    for (enum state how = STATE_SUCCEEDED; how <= STATE_CANCELLED; how++) {
        char id[ID_SIZE];
        struct ovr_err err = {0};
        struct outcome outcome = {.state = how};
        queue_one(store, id);
        struct experiment e = look_up(store, id);
        int64_t seq = e.seq;
        experiment_release(&e);
        assert_failed(store_finish(store, seq, &outcome, &err), OVR_CONFLICT, &err, "not running");
        err = (struct ovr_err){0};
        assert_failed(store_requeue(store, seq, "r", &err), OVR_CONFLICT, &err, "not running");
        e = claim(store);
        experiment_release(&e);
        finish(store, seq, how);
        assert_int_equal(state_of(store, id), how);
        for (enum state next = STATE_SUCCEEDED; next <= STATE_CANCELLED; next++) {
            outcome.state = next;
            assert_int_equal(store_finish(store, seq, &outcome, NULL), OVR_CONFLICT);
        }
        assert_int_equal(store_requeue(store, seq, "r", NULL), OVR_CONFLICT);
        assert_int_equal(state_of(store, id), how);
        e = look_up(store, id);
        assert_true(e.finished_at >= e.started_at);
        assert_int_equal(e.revision, 3);
        experiment_release(&e);
    }
    assert_int_equal(store_finish(store, 999, &(struct outcome){.state = STATE_FAILED}, NULL),
                     OVR_CONFLICT);
}

static void a_failure_has_its_problem(void **state) {
    struct store *store = store_of(state);
    char id[ID_SIZE];
    struct ovr_err err = {0};
    int64_t seq = start_one(store, id);
    struct outcome outcome = {.state = STATE_FAILED,
                              .problem_kind = "diverged",
                              .problem_pointer = "/optimizer/learning_rate",
                              .problem_detail = "at step 7"};
    assert_ok(store_finish(store, seq, &outcome, &err), &err);
    struct experiment e = look_up(store, id);
    assert_string_equal(e.problem_kind, "diverged");
    assert_string_equal(e.problem_pointer, "/optimizer/learning_rate");
    assert_string_equal(e.problem_detail, "at step 7");
    experiment_release(&e);
}

static void cancelling(void **state) {
    struct store *store = store_of(state);
    char id[ID_SIZE];
    int running = 7;
    struct ovr_err err = {0};
    queue_one(store, id); /* queued */
    assert_ok(store_cancel(store, id, &running, &err), &err);
    assert_false(running);
    assert_int_equal(state_of(store, id), STATE_CANCELLED);
    assert_ok(store_cancel(store, id, &running, &err), &err); /* cancelled: fine, no change */
    assert_false(running);
    struct experiment e = look_up(store, id);
    assert_int_equal(e.revision, 2);
    assert_true(e.finished_at > 0);
    experiment_release(&e);
    int64_t seq = start_one(store, id); /* running */
    assert_ok(store_cancel(store, id, &running, &err), &err);
    assert_true(running);
    assert_int_equal(state_of(store, id), STATE_CANCELLED);
    assert_int_equal(store_finish(store, seq, &(struct outcome){.state = STATE_SUCCEEDED}, NULL),
                     OVR_CONFLICT);
    assert_int_equal(state_of(store, id), STATE_CANCELLED);
    for (enum state how = STATE_SUCCEEDED; how <= STATE_FAILED; how++) {
        seq = start_one(store, id);
        finish(store, seq, how);
        err = (struct ovr_err){0};
        assert_failed(store_cancel(store, id, &running, &err), OVR_CONFLICT, &err,
                      state_names[how]);
        assert_int_equal(state_of(store, id), how);
    }
}

/* Figures */

struct seen {
    int n, epochs[64], kinds[64];
    char names[64][32], texts[64][32];
    double reals[64];
    int64_t counts[64];
};

static int see(void *context, int epoch, const struct figure *f) {
    struct seen *s = context;
    s->epochs[s->n] = epoch;
    s->kinds[s->n] = (int)f->kind;
    s->reals[s->n] = f->real;
    s->counts[s->n] = f->count;
    snprintf(s->names[s->n], sizeof s->names[0], "%s", f->name);
    snprintf(s->texts[s->n], sizeof s->texts[0], "%s", f->text ? f->text : "");
    s->n++;
    return 0;
}

static int count_one(void *context, int epoch, const struct figure *figure) {
    (void)epoch, (void)figure;
    ++*(int *)context;
    return 0;
}

static int count_figures(struct store *store, int64_t seq) {
    int n = 0;
    struct ovr_err err = {0};
    assert_ok(store_read_figures(store, seq, 1, 1000000, count_one, &n, &err), &err);
    return n;
}

static struct seen figures_of(struct store *store, int64_t seq, int from, int to) {
    struct seen s = {0};
    struct ovr_err err = {0};
    assert_ok(store_read_figures(store, seq, from, to, see, &s, &err), &err);
    return s;
}

static struct histogram new_histogram(uint64_t mark) {
    struct histogram h = {.zero_count = mark, .total = 2 * mark, .maximum = (double)mark / 8};
    for (size_t i = 0; i < HISTOGRAM_BINS; i++)
        h.counts[i] = mark * 1000003 + i;
    return h;
}

static void add_epoch(struct store *store, int64_t seq, int epoch, const char *split) {
    struct ovr_err err = {0};
    struct histogram h = new_histogram((uint64_t)epoch);
    struct epoch_histogram eh = {epoch, split, &h, 0};
    struct figure loss = {.name = "train.loss", .real = epoch / 2.0};
    assert_ok(store_add_epoch(store, seq, epoch, &loss, 1, &eh, 1, &err), &err);
}

static void write_epochs(struct store *store) {
    struct ovr_err err = {0};
    assert_ok(store_write_epochs(store, &err), &err);
}

/* Thousands of epochs go in several transactions, and only those of the one that is deleted. */
static void long_ones_are_deleted(void **state) {
    struct store *store = store_of(state);
    char id[ID_SIZE], other_id[ID_SIZE];
    int64_t seq = start_one(store, id), other = start_one(store, other_id);
    const struct figure figures[] = {{.name = "a"}, {.name = "b"}, {.name = "c"},
                                     {.name = "d"}, {.name = "e"}, {.name = "f"}};
    struct ovr_err err = {0};
    int was_running;
    for (int epoch = 1; epoch <= 2600; epoch++) {
        assert_ok(store_add_epoch(store, seq, epoch, figures, COUNT(figures), NULL, 0, &err), &err);
        assert_ok(store_add_epoch(store, other, epoch, figures, 1, NULL, 0, &err), &err);
    }
    write_epochs(store);
    assert_ok(store_cancel(store, id, &was_running, &err), &err);
    assert_ok(store_delete_experiment(store, id, &err), &err);
    assert_failed(store_delete_experiment(store, id, &err), OVR_NOT_FOUND, &err, id);
    err = (struct ovr_err){0};
    assert_int_equal(count_figures(store, seq), 0);
    assert_int_equal(count_figures(store, other), 2600);
}

static void figures_of_all_kinds(void **state) {
    struct store *store = store_of(state);
    char id[ID_SIZE];
    int64_t seq = start_one(store, id);
    const struct figure figures[] = {
        {.name = "z", .real = 0.1},
        {.name = "whole", .real = 3},
        {.name = "tiny", .real = 5e-324},
        {.name = "nan", .real = NAN},
        {.name = "inf", .real = INFINITY},
        {.name = "-inf", .real = -INFINITY},
        {.name = "count", .kind = FIGURE_COUNT, .count = INT64_MAX},
        {.name = "zero", .kind = FIGURE_COUNT, .count = 0},
        {.name = "text", .kind = FIGURE_TEXT, .text = "é 1"},
        {.name = "number", .kind = FIGURE_TEXT, .text = "123"},
    };
    struct histogram h = new_histogram(1);
    struct epoch_histogram eh = {1, "test", &h, 0};
    struct ovr_err err = {0};
    assert_ok(store_add_epoch(store, seq, 1, figures, COUNT(figures), &eh, 1, &err), &err);
    write_epochs(store);
    struct seen s = figures_of(store, seq, 1, 1);
    assert_int_equal(s.n, COUNT(figures));
    for (int i = 0; i < s.n; i++) {
        assert_string_equal(s.names[i], figures[i].name); /* in order */
        assert_int_equal(s.kinds[i], figures[i].kind);
        assert_int_equal(s.epochs[i], 1);
        if (figures[i].kind == FIGURE_REAL)
            assert_true(isfinite(figures[i].real) ? s.reals[i] == figures[i].real
                                                  : isnan(s.reals[i]));
        assert_true(s.counts[i] == figures[i].count);
        assert_string_equal(s.texts[i], figures[i].text ? figures[i].text : "");
    }
    struct experiment e = look_up(store, id);
    assert_int_equal(e.revision, 3); /* added, claimed, an epoch */
    experiment_release(&e);
}

static int stop_at_second(void *context, int epoch, const struct figure *f) {
    (void)epoch;
    (void)f;
    return ++*(int *)context == 2 ? OVR_STOPPED : 0;
}

static void figures_of_some_epochs(void **state) {
    struct store *store = store_of(state);
    char id[ID_SIZE], other[ID_SIZE];
    int64_t seq = start_one(store, id), second = start_one(store, other);
    for (int epoch = 1; epoch <= 5; epoch++)
        add_epoch(store, seq, epoch, "test");
    add_epoch(store, second, 1, "test");
    write_epochs(store);
    struct seen s = figures_of(store, seq, 2, 4);
    assert_int_equal(s.n, 3);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(s.epochs[i], i + 2);
        assert_true(s.reals[i] == (i + 2) / 2.0);
    }
    assert_int_equal(figures_of(store, seq, 6, 100).n, 0);
    assert_int_equal(figures_of(store, 99, 0, 100).n, 0);
    add_epoch(store, seq, 5, "test"); /* written again: replaced */
    write_epochs(store);
    assert_int_equal(figures_of(store, seq, 1, 100).n, 5);
    int calls = 0;
    assert_int_equal(store_read_figures(store, seq, 1, 9, stop_at_second, &calls, NULL),
                     OVR_STOPPED);
    assert_int_equal(calls, 2);
}

static void an_epoch_needs_a_running_experiment(void **state) {
    struct store *store = store_of(state);
    char id[ID_SIZE];
    int running;
    struct histogram h = new_histogram(1);
    struct epoch_histogram eh = {1, "test", &h, 0};
    struct figure f = {.name = "x"};
    int64_t seq = start_one(store, id);
    store_cancel(store, id, &running, NULL);
    struct ovr_err err = {0};
    assert_failed(store_add_epoch(store, seq, 1, &f, 1, &eh, 1, &err), OVR_CONFLICT, &err,
                  "not running");
    assert_int_equal(figures_of(store, seq, 0, 9).n, 0);
}

/* Epochs that wait */

static int64_t revision_of(struct store *store, const char *id) {
    struct experiment e = look_up(store, id);
    int64_t revision = e.revision;
    experiment_release(&e);
    return revision;
}

static void epochs_are_written_together(void **state) {
    struct store *store = store_of(state);
    char ids[2][ID_SIZE];
    int64_t seq = start_one(store, ids[0]), other = start_one(store, ids[1]);
    for (int epoch = 1; epoch <= 3; epoch++)
        add_epoch(store, seq, epoch, "test");
    add_epoch(store, other, 1, "test");
    assert_int_equal(figures_of(store, seq, 1, 9).n, 0);
    write_epochs(store);
    assert_int_equal(figures_of(store, seq, 1, 9).n, 3);
    assert_int_equal(figures_of(store, other, 1, 9).n, 1);
    assert_int_equal(revision_of(store, ids[0]), 2 + 3); /* each epoch counts */
    assert_int_equal(revision_of(store, ids[1]), 2 + 1);
    write_epochs(store); /* nothing is left */
    assert_int_equal(revision_of(store, ids[0]), 2 + 3);
    add_epoch(store, seq, 4, "test");
    write_epochs(store);
    assert_int_equal(figures_of(store, seq, 1, 9).n, 4);
}

/* A final state and all epochs become visible as one. */
static void a_final_state_has_all_epochs(void **state) {
    struct store *store = store_of(state);
    for (enum state how = STATE_SUCCEEDED; how <= STATE_CANCELLED; how++) {
        char id[ID_SIZE];
        int was_running;
        int64_t seq = start_one(store, id);
        add_epoch(store, seq, 1, "test");
        write_epochs(store);
        add_epoch(store, seq, 2, "test");
        add_epoch(store, seq, 3, "test");
        if (how == STATE_CANCELLED)
            assert_int_equal(store_cancel(store, id, &was_running, NULL), 0);
        else
            finish(store, seq, how);
        reopen_store(*state);
        store = store_of(state);
        assert_int_equal(state_of(store, id), how);
        assert_int_equal(figures_of(store, seq, 1, 9).n, 3);
        assert_int_equal(revision_of(store, id), 2 + 3 + 1);
    }
}

/* Epochs that nobody comes to write are not kept in memory without end. */
static void a_thousand_epochs_write_themselves(void **state) {
    struct store *store = store_of(state);
    char id[ID_SIZE];
    int epoch = 0;
    char any[16] = "";
    struct histogram h;
    int64_t seq = start_one(store, id);
    for (int i = 1; i <= 1000; i++)
        add_epoch(store, seq, i, "test");
    assert_int_equal(store_read_histogram(store, seq, &(int){0}, &epoch, any, &h, NULL), 0);
    assert_in_range(epoch, 800, 1000);
}

/* A job learns that its epochs could not be written when it adds the next one. */
static void a_fault_comes_back_to_the_job(void **state) {
    struct store *store = store_of(state);
    char ids[2][ID_SIZE];
    struct ovr_err err = {0};
    struct histogram h = new_histogram(1);
    struct epoch_histogram eh = {2, "test", &h, 0};
    struct figure f = {.name = "x"};
    int64_t seq = start_one(store, ids[0]), idle = start_one(store, ids[1]);
    add_epoch(store, seq, 1, "test");
    struct rlimit before, now;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    now = before;
    now.rlim_cur = 1;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &now), 0);
    int rc = store_write_epochs(store, NULL);
    int full = store_add_epoch(store, seq, 2, &f, 1, &eh, 1, &err);
    int of_idle = store_add_epoch(store, idle, 2, &f, 1, &eh, 1, NULL);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(rc, OVR_IO);
    assert_failed(full, OVR_IO, &err, "the database refused");
    assert_int_equal(of_idle, 0); /* it had nothing to write */
    write_epochs(store);          /* there is room again before its next epoch */
    add_epoch(store, seq, 3, "test");
    finish(store, seq, STATE_SUCCEEDED);
    assert_int_equal(figures_of(store, seq, 1, 9).n, 2); /* 2 was refused */
}

/* Histograms */

static void assert_histogram(struct store *store, int64_t seq, int epoch, const char *split,
                             int found_epoch, const char *found_split, uint64_t mark) {
    struct histogram h, expected = new_histogram(mark);
    struct ovr_err err = {0};
    char text[16];
    snprintf(text, sizeof text, "%s", split);
    memset(&h, 0xff, sizeof h);
    assert_ok(store_read_histogram(store, seq, &(int){0}, &epoch, text, &h, &err), &err);
    assert_int_equal(epoch, found_epoch);
    assert_string_equal(text, found_split);
    assert_memory_equal(&h, &expected, sizeof h);
}

static void choosing_a_histogram(void **state) {
    struct store *store = store_of(state);
    char id[ID_SIZE], any[16] = "", train[16] = "train";
    int64_t seq = start_one(store, id);
    int epoch = 0;
    struct histogram h;
    struct ovr_err err = {0};
    assert_failed(store_read_histogram(store, seq, &(int){0}, &epoch, any, &h, &err), OVR_NOT_FOUND,
                  &err, "there is no histogram");
    for (int i = 1; i <= 3; i++)
        add_epoch(store, seq, i, "validation");
    write_epochs(store);
    assert_histogram(store, seq, 0, "", 3, "validation", 3); /* the latest */
    assert_histogram(store, seq, 2, "", 2, "validation", 2);
    assert_histogram(store, seq, 1, "validation", 1, "validation", 1);
    struct histogram last = new_histogram(77);
    struct epoch_histogram of_result = {0, "test", &last, 0};
    struct outcome outcome = {
        .state = STATE_SUCCEEDED, .histograms = &of_result, .n_histograms = 1};
    assert_ok(store_finish(store, seq, &outcome, &(struct ovr_err){0}), &(struct ovr_err){0});
    assert_histogram(store, seq, 0, "", 0, "test", 77); /* that of the result */
    assert_histogram(store, seq, 0, "validation", 3, "validation", 3);
    assert_histogram(store, seq, 3, "", 3, "validation", 3);
    epoch = 4;
    assert_int_equal(store_read_histogram(store, seq, &(int){0}, &epoch, any, &h, NULL),
                     OVR_NOT_FOUND);
    epoch = 1;
    err = (struct ovr_err){0};
    assert_failed(store_read_histogram(store, seq, &(int){0}, &epoch, train, &h, &err),
                  OVR_NOT_FOUND, &err, "of epoch 1 on split train");
}

static int count_and_check(void *context, const struct epoch_histogram *eh) {
    int *epoch = context;
    struct histogram expected = new_histogram((uint64_t)(100 * eh->layer + eh->epoch));
    assert_int_equal(eh->epoch, ++*epoch);
    assert_string_equal(eh->split, "validation");
    assert_memory_equal(eh->histogram, &expected, sizeof expected);
    return 0;
}

static int refuse(void *context, const struct epoch_histogram *eh) {
    (void)context;
    (void)eh;
    return OVR_NOMEM;
}

/* Each hidden layer has its own series; the result's histogram is none of it. */
static void series_of_several_layers(void **state) {
    struct store *store = store_of(state);
    char id[ID_SIZE], any[16] = "";
    int64_t seq = start_one(store, id);
    struct ovr_err err = {0};
    for (int i = 1; i <= 5; i++) {
        struct histogram h[2] = {new_histogram((uint64_t)i), new_histogram((uint64_t)(100 + i))};
        struct epoch_histogram both[] = {{i, "validation", &h[0], 0}, {i, "validation", &h[1], 1}};
        assert_ok(store_add_epoch(store, seq, i, NULL, 0, both, 2, &err), &err);
    }
    write_epochs(store);
    struct histogram last[2] = {new_histogram(77), new_histogram(78)}, h;
    struct epoch_histogram of_result[] = {{0, "test", &last[0], 0}, {0, "test", &last[1], 1}};
    const struct unit_table tables[] = {{0, "test", 5, 10, 0}, {1, "test", 7, 10, 25}};
    struct outcome outcome = {.state = STATE_SUCCEEDED,
                              .histograms = of_result,
                              .n_histograms = 2,
                              .unit_tables = tables,
                              .n_unit_tables = 2};
    assert_ok(store_finish(store, seq, &outcome, &err), &err);
    for (int layer = 0; layer < 2; layer++) {
        int epoch = 0;
        assert_ok(store_read_histograms(store, seq, layer, 0, 100, count_and_check, &epoch, &err),
                  &err);
        assert_int_equal(epoch, 5);
        epoch = 2;
        assert_ok(store_read_histograms(store, seq, layer, 3, 2, count_and_check, &epoch, &err),
                  &err);
        assert_int_equal(epoch, 4);
        epoch = 0;
        *any = '\0';
        assert_ok(store_read_histogram(store, seq, &(int){layer}, &epoch, any, &h, &err), &err);
        assert_memory_equal(&h, &last[layer], sizeof h);
        struct unit_table table;
        assert_ok(store_read_unit_table(store, seq, layer, &table, &err), &err);
        assert_int_equal(table.layer, layer);
        assert_string_equal(table.split, "test");
        assert_true(table.units == tables[layer].units && table.classes == 10 &&
                    table.cells == tables[layer].cells);
    }
    int epoch = 0, last_layer = -1;
    struct unit_table table;
    *any = '\0';
    assert_ok(store_read_histogram(store, seq, &last_layer, &epoch, any, &h, &err), &err);
    assert_int_equal(last_layer, 1);
    assert_memory_equal(&h, &last[1], sizeof h);
    assert_ok(store_read_unit_table(store, seq, -1, &table, &err), &err);
    assert_int_equal(table.layer, 1);
    assert_int_equal(store_read_histograms(store, seq, 0, 1, 9, refuse, NULL, NULL), OVR_NOMEM);
    assert_ok(store_read_histograms(store, seq, 2, 1, 9, refuse, NULL, &err), &err); /* none */
    assert_int_equal(store_read_histogram(store, seq, &(int){2}, &epoch, any, &h, NULL),
                     OVR_NOT_FOUND);
    assert_failed(store_read_unit_table(store, seq, 2, &table, &err), OVR_NOT_FOUND, &err,
                  "hidden.2");
}

/* Outcomes */

static void results_and_tensors(void **state) {
    struct store *store = store_of(state);
    char id[ID_SIZE];
    int64_t seq = start_one(store, id);
    add_epoch(store, seq, 1, "test");
    const struct figure result[] = {{.name = "accuracy", .real = 0.5}};
    const struct figure facts[] = {{.name = "isa", .kind = FIGURE_TEXT, .text = "avx2"},
                                   {.name = "seed", .kind = FIGURE_COUNT, .count = 9}};
    const struct tensor tensors[] = {{"best", "w", "float32", 2, 3, 5000000000},
                                     {"best", "b", "float64", 1, 3, 1},
                                     {"last", "w", "float32", 2, 3, 4}};
    struct outcome outcome = {.state = STATE_SUCCEEDED,
                              .result = result,
                              .n_result = 1,
                              .provenance = facts,
                              .n_provenance = 2,
                              .tensors = tensors,
                              .n_tensors = 3};
    struct ovr_err err = {0};
    struct tensor *list;
    size_t n;
    assert_ok(store_finish(store, seq, &outcome, &err), &err);
    struct seen s = figures_of(store, seq, 0, 0);
    assert_int_equal(s.n, 1);
    assert_true(s.reals[0] == 0.5);
    s = figures_of(store, seq, -1, -1);
    assert_int_equal(s.n, 2);
    assert_string_equal(s.texts[0], "avx2");
    assert_int_equal(s.counts[1], 9);
    assert_int_equal(figures_of(store, seq, 1, 9).n, 1);
    assert_ok(store_read_tensors(store, seq, "best", &list, &n, &err), &err);
    assert_int_equal(n, 2);
    for (size_t i = 0; i < n; i++) {
        assert_string_equal(list[i].epoch, "best");
        assert_string_equal(list[i].name, tensors[i].name);
        assert_string_equal(list[i].dtype, tensors[i].dtype);
        assert_int_equal(list[i].dimensions, tensors[i].dimensions);
        assert_true(list[i].rows == tensors[i].rows && list[i].columns == tensors[i].columns);
    }
    free(list);
    assert_ok(store_read_tensors(store, seq, "last", &list, &n, &err), &err);
    assert_int_equal(n, 1);
    free(list);
    assert_ok(store_read_tensors(store, seq, "first", &list, &n, &err), &err);
    assert_true(n == 0 && !list);
}

/* A part that the database refuses takes all the rest back. */
static void an_outcome_is_whole_or_not_there(void **state) {
    struct store *store = store_of(state);
    char id[ID_SIZE];
    int64_t seq = start_one(store, id);
    const struct figure result[] = {{.name = "accuracy", .real = 0.5}};
    const struct tensor bad = {"best", "cube", "float32", 3, 1, 1};
    struct outcome outcome = {
        .state = STATE_SUCCEEDED, .result = result, .n_result = 1, .tensors = &bad, .n_tensors = 1};
    struct ovr_err err = {0};
    assert_failed(store_finish(store, seq, &outcome, &err), OVR_IO, &err, "the database refused");
    assert_int_equal(state_of(store, id), STATE_RUNNING);
    assert_int_equal(figures_of(store, seq, -1, 9).n, 0);
    finish(store, seq, STATE_FAILED); /* no transaction was left open */
}

/* Back to the queue */

static void requeueing_keeps_epochs(void **state) {
    struct store *store = store_of(state);
    char id[ID_SIZE], kept_id[ID_SIZE], any[16] = "";
    int epoch = 0;
    struct histogram h;
    struct ovr_err err = {0};
    int64_t kept = start_one(store, kept_id), seq = start_one(store, id);
    add_epoch(store, kept, 1, "test");
    add_epoch(store, seq, 1, "test");
    write_epochs(store);
    add_epoch(store, seq, 2, "test"); /* on its way to the database */
    assert_ok(store_requeue(store, seq, "because", &err), &err);
    struct experiment e = look_up(store, id);
    assert_int_equal(e.state, STATE_QUEUED);
    assert_string_equal(e.queue_reason, "because");
    assert_int_equal(e.started_at, 0);
    assert_int_equal(e.attempts, 1);
    experiment_release(&e);
    assert_int_equal(figures_of(store, seq, -1, 99).n, 2);
    e = claim(store);
    assert_ok(store_forget_epochs(store, seq, 2, &err), &err);
    assert_int_equal(figures_of(store, seq, -1, 99).n, 1);
    epoch = 1;
    assert_ok(store_read_histogram(store, seq, &(int){0}, &epoch, any, &h, &err), &err);
    assert_ok(store_forget_epochs(store, seq, 1, &err), &err);
    assert_int_equal(figures_of(store, seq, -1, 99).n, 0);
    assert_int_equal(store_read_histogram(store, seq, &(int){0}, &epoch, any, &h, NULL),
                     OVR_NOT_FOUND);
    assert_int_equal(figures_of(store, kept, -1, 99).n, 1); /* nobody else's */
    assert_string_equal(e.id, id);
    assert_int_equal(e.attempts, 2);
    assert_null(e.queue_reason);
    experiment_release(&e);
}

static void pausing(void **state) {
    struct store *store = store_of(state);
    char first[ID_SIZE], second[ID_SIZE];
    int was_running, requeued;
    struct ovr_err err = {0};
    queue_one(store, first);
    queue_one(store, second);
    assert_ok(store_pause(store, first, &was_running, &err), &err);
    assert_false(was_running);
    assert_ok(store_pause(store, first, &was_running, &err), &err); /* twice is fine */
    assert_int_equal(state_of(store, first), STATE_PAUSED);
    struct experiment e = claim(store); /* a paused one is passed over */
    assert_string_equal(e.id, second);
    int64_t seq = e.seq;
    experiment_release(&e);
    assert_ok(store_pause(store, second, &was_running, &err), &err);
    assert_true(was_running);
    assert_int_equal(state_of(store, second), STATE_RUNNING); /* until it is saved */
    assert_failed(store_resume(store, second, &err), OVR_CONFLICT, &err, "still runs");
    err = (struct ovr_err){0};
    add_epoch(store, seq, 1, "test");
    assert_ok(store_park(store, seq, &err), &err);
    assert_int_equal(state_of(store, second), STATE_PAUSED);
    assert_int_equal(figures_of(store, seq, 1, 9).n, 1);
    assert_failed(store_park(store, seq, &err), OVR_CONFLICT, &err, "");
    err = (struct ovr_err){0};
    assert_ok(store_resume(store, second, &err), &err);
    assert_ok(store_resume(store, first, &err), &err);
    assert_ok(store_resume(store, first, &err), &err);
    e = claim(store); /* in their old order */
    assert_string_equal(e.id, first);
    experiment_release(&e);
    /* Asked to pause when the process ends: paused afterwards, and no crash. */
    assert_ok(store_pause(store, first, &was_running, &err), &err);
    reopen_store(*state);
    store = store_of(state);
    assert_ok(store_recover(store, 1, &requeued, &err), &err);
    assert_int_equal(requeued, 0);
    assert_int_equal(state_of(store, first), STATE_PAUSED);
    assert_ok(store_cancel(store, first, &was_running, &err), &err);
    assert_int_equal(state_of(store, first), STATE_CANCELLED);
    assert_failed(store_pause(store, first, &was_running, &err), OVR_CONFLICT, &err,
                  "already cancelled");
    err = (struct ovr_err){0};
    assert_failed(store_resume(store, first, &err), OVR_CONFLICT, &err, "already ended");
    err = (struct ovr_err){0};
    assert_failed(store_pause(store, "no such", &was_running, &err), OVR_NOT_FOUND, &err,
                  "no such");
}

static void recovering(void **state) {
    struct store *store = store_of(state);
    char queued[ID_SIZE], ran[ID_SIZE], done[ID_SIZE];
    struct ovr_err err = {0};
    int requeued;
    int64_t seq = start_one(store, done);
    finish(store, seq, STATE_SUCCEEDED);
    seq = start_one(store, ran);
    queue_one(store, queued);
    for (int attempt = 1; attempt <= 3; attempt++) {
        add_epoch(store, seq, attempt, "test");
        write_epochs(store);
        reopen_store(*state);
        store = store_of(state);
        assert_ok(store_recover(store, 3, &requeued, &err), &err);
        assert_int_equal(requeued, attempt < 3);
        assert_int_equal(state_of(store, done), STATE_SUCCEEDED);
        assert_int_equal(state_of(store, queued), STATE_QUEUED);
        if (attempt == 3)
            break;
        assert_int_equal(figures_of(store, seq, 1, 9).n, attempt);
        struct experiment e = claim(store);
        assert_string_equal(e.id, ran); /* older than the other */
        assert_int_equal(e.attempts, attempt + 1);
        experiment_release(&e);
    }
    struct experiment e = look_up(store, ran);
    assert_int_equal(e.state, STATE_FAILED);
    assert_string_equal(e.problem_kind, "crashed");
    assert_non_null(strstr(e.problem_detail, "ended 3 times"));
    assert_true(e.finished_at > 0);
    experiment_release(&e);
    assert_ok(store_recover(store, 3, &requeued, &err), &err); /* nothing to do */
    assert_int_equal(requeued, 0);
}

/* A daemon that is stopped in order puts its jobs back itself; only crashes count. */
static void shutdowns_are_not_crashes(void **state) {
    struct store *store = store_of(state);
    char id[ID_SIZE];
    struct ovr_err err = {0};
    int requeued;
    int64_t seq = start_one(store, id);
    for (int i = 0; i < 5; i++) {
        assert_ok(store_requeue(store, seq, "shut down", &err), &err);
        struct experiment e = claim(store);
        experiment_release(&e);
    }
    assert_ok(store_recover(store, 2, &requeued, &err), &err);
    assert_int_equal(requeued, 1);
    assert_int_equal(state_of(store, id), STATE_QUEUED);
}

/* Data sets */

static int put_split(struct store *store, const char *name, const char *split, const char *sha256,
                     int64_t samples) {
    struct dataset_split s = {.bytes = samples * 3073,
                              .samples = samples,
                              .width = 3072,
                              .classes = 10,
                              .created_at = now_ms()};
    struct ovr_err err = {0};
    int fresh = 7;
    snprintf(s.dataset, sizeof s.dataset, "%s", name);
    snprintf(s.split, sizeof s.split, "%s", split);
    snprintf(s.sha256, sizeof s.sha256, "%s", sha256);
    snprintf(s.format, sizeof s.format, "cifar10");
    assert_ok(store_put_split(store, &s, &fresh, &err), &err);
    return fresh;
}

static void assert_split(struct store *store, const char *sha256, int64_t samples) {
    struct dataset_split s;
    struct ovr_err err = {0};
    assert_ok(store_get_split(store, "d", "train", sha256, &s, &err), &err);
    assert_int_equal(s.samples, samples);
    assert_string_equal(s.dataset, "d");
    assert_string_equal(s.split, "train");
    assert_string_equal(s.format, "cifar10");
    assert_true(s.bytes == samples * 3073 && s.width == 3072 && s.classes == 10 && s.created_at);
}

static void versions_of_a_data_set(void **state) {
    struct store *store = store_of(state);
    struct dataset_split s, *list;
    struct ovr_err err = {0};
    size_t n;
    assert_failed(store_get_split(store, "d", "train", "", &s, &err), OVR_NOT_FOUND, &err,
                  "data set d has no train split");
    assert_int_equal(put_split(store, "d", "train", "aa", 1), 1);
    assert_int_equal(put_split(store, "d", "train", "aa", 1), 0);
    assert_split(store, "", 1);
    assert_int_equal(put_split(store, "d", "train", "bb", 2), 1);
    assert_split(store, "", 2);
    assert_split(store, "aa", 1); /* old versions stay */
    assert_split(store, "bb", 2);
    assert_int_equal(put_split(store, "d", "train", "aa", 1), 1); /* current again */
    assert_split(store, "", 1);
    assert_split(store, "bb", 2);
    err = (struct ovr_err){0};
    assert_failed(store_get_split(store, "d", "train", "cc", &s, &err), OVR_NOT_FOUND, &err,
                  "of version cc");
    put_split(store, "d", "test", "aa", 3);
    put_split(store, "c", "test", "dd", 4);
    assert_ok(store_list_splits(store, NULL, &list, &n, (err = (struct ovr_err){0}, &err)), &err);
    assert_int_equal(n, 3);
    assert_string_equal(list[0].dataset, "c");
    assert_string_equal(list[1].split, "train");
    assert_string_equal(list[1].sha256, "aa");
    assert_string_equal(list[2].split, "test");
    free(list);
    assert_ok(store_list_splits(store, "c", &list, &n, &err), &err);
    assert_int_equal(n, 1);
    free(list);
    assert_ok(store_list_splits(store, "e", &list, &n, &err), &err);
    assert_true(n == 0 && !list);
}

/* Files */

static int count_migrations(void) {
    int n = 0;
    while (migrations[n])
        n++;
    return n;
}

static void opening_twice_changes_nothing(void **state) {
    struct place *place = *state;
    char id[ID_SIZE];
    queue_one(place->store, id);
    store_close(place->store);
    place->store = NULL;
    size_t n, m;
    char *before = read_whole(place->database, &n);
    reopen_store(place);
    assert_int_equal(state_of(place->store, id), STATE_QUEUED);
    store_close(place->store);
    place->store = NULL;
    char *after = read_whole(place->database, &m);
    assert_int_equal(n, m);
    assert_memory_equal(after, before, n);
    assert_int_equal(before[63], count_migrations()); /* user_version, at 60, big-endian */
    free(before);
    free(after);
}

/* What the first version of the schema held is there afterwards. */
static void an_old_database_is_migrated(void **state) {
    struct place *place = *state;
    sqlite3 *db;
    store_close(place->store);
    place->store = NULL;
    char path[128];
    snprintf(path, sizeof path, "%s/old.sqlite", place->dir);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, migrations[0], NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(
        sqlite3_exec(db,
                     "PRAGMA user_version = 1; INSERT INTO experiment (id, name, tags, state, "
                     "priority, spec, memory_bytes, created_at) VALUES ('old', 'old', "
                     "char(10) || 'a' || char(10) || 'b c' || char(10), 'succeeded', "
                     "0, '{}', 0, 1); INSERT INTO histogram VALUES (1, 3, 'test', 3, 6, 0.375, "
                     "zeroblob(464))",
                     NULL, NULL, NULL),
        SQLITE_OK);
    sqlite3_close(db);
    struct ovr_err err = {0};
    struct store *store;
    struct histogram h;
    char split[16] = "";
    int epoch = 0;
    assert_ok(store_open(&store, path, 1, &err), &err);
    assert_ok(store_read_histogram(store, 1, &(int){0}, &epoch, split, &h, &err), &err);
    assert_list(store, &(struct experiment_filter){.tag = "a"}, "old");
    assert_list(store, &(struct experiment_filter){.tag = "b c"}, "old");
    assert_int_equal(epoch, 3);
    assert_string_equal(split, "test");
    assert_true(h.zero_count == 3 && h.total == 6 && h.maximum == 0.375 && h.counts[57] == 0);
    store_close(store);
}

/* A data directory of the first schema: what was uploaded then is described as if it came now. */
static void an_old_database_is_brought_up(void **state) {
    struct place *place = *state;
    struct dataset_split split;
    struct ovr_err err = {0};
    char sha256[SHA256_SIZE];
    sqlite3 *old;
    memset(sha256, 'a', sizeof sha256 - 1);
    sha256[sizeof sha256 - 1] = '\0';
    store_close(place->store);
    place->store = NULL;
    assert_int_equal(unlink(place->database), 0);
    assert_int_equal(sqlite3_open(place->database, &old), SQLITE_OK);
    assert_int_equal(sqlite3_exec(old, migrations[0], NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(
        sqlite3_exec(old,
                     "PRAGMA user_version = 1; INSERT INTO dataset_split (dataset, split, sha256, "
                     "format, bytes, samples, width, classes, current, created_at) VALUES ('d', "
                     "'train', replace(hex(zeroblob(32)), '0', 'a'), 'cifar10', 3073, 1, 3072, 10, "
                     "1, 77)",
                     NULL, NULL, NULL),
        SQLITE_OK);
    assert_int_equal(sqlite3_close(old), SQLITE_OK);
    reopen_store(place);
    assert_ok(store_get_split(place->store, "d", "train", "", &split, &err), &err);
    assert_string_equal(split.sha256, sha256);
    assert_string_equal(split.source_sha256, sha256);
    assert_true(split.samples == 1 && split.created_at == 77 && !split.named);
    assert_true(split.image.channels == 3 && split.image.height == 32 && split.image.width == 32);
}

static void a_newer_database_is_refused(void **state) {
    char expected[100];
    struct place *place = *state;
    struct ovr_err err = {0};
    struct store *store;
    size_t n;
    store_close(place->store);
    place->store = NULL;
    char *bytes = read_whole(place->database, &n);
    bytes[62] = 3; /* version 768 + its own */
    snprintf(expected, sizeof expected,
             "written by a newer ovrd (schema %d, this program knows %d)", 768 + count_migrations(),
             count_migrations());
    write_whole(place->database, bytes, n);
    assert_failed(store_open(&store, place->database, 1, &err), OVR_CONFLICT, &err, expected);
    assert_null(store);
    free(bytes);
}

static void a_foreign_file_is_left_alone(void **state) {
    struct place *place = *state;
    struct ovr_err err = {0};
    struct store *store;
    char text[5000];
    size_t n;
    memset(text, 'x', sizeof text);
    write_whole(place->database, text, sizeof text);
    assert_failed(store_open(&store, place->database, 2, &err), OVR_IO, &err, "not a database");
    assert_non_null(strstr(err.text, place->database));
    char *after = read_whole(place->database, &n);
    assert_int_equal(n, sizeof text);
    assert_memory_equal(after, text, n);
    free(after);
    assert_int_equal(count_entries(place->dir, ""), 1);
}

static void places_where_no_file_can_be(void **state) {
    struct place *place = *state;
    struct ovr_err err = {0};
    struct store *store;
    char path[128];
    assert_failed(store_open(&store, place->dir, 1, &err), OVR_IO, &err, place->dir);
    snprintf(path, sizeof path, "%s/none/db", place->dir);
    err = (struct ovr_err){0};
    assert_failed(store_open(&store, path, 1, &err), OVR_IO, &err, path);
    assert_null(store);
    store_close(NULL);
}

/* Threads */

enum { READERS = 4, EPOCHS = 60 };

struct reading {
    struct store *store;
    int64_t seq;
    char id[ID_SIZE];
    _Atomic int done, wrong, reads;
};

/* Epochs appear whole and in order: the newest histogram is of the newest figures, or newer. */
static void *read_on(void *arg) {
    struct reading *r = arg;
    int last = 0;
    while (!r->done) {
        struct seen *s = calloc(1, sizeof *s);
        struct experiment e;
        struct histogram h;
        char split[16] = "";
        int epoch = 0;
        int rc = !s || store_read_figures(r->store, r->seq, 1, EPOCHS, see, s, NULL);
        r->wrong += rc || s->n < last;
        last = s ? s->n : 0;
        if (last && store_read_histogram(r->store, r->seq, &(int){0}, &epoch, split, &h, NULL))
            r->wrong++;
        r->wrong += epoch < last || (last && h.zero_count != (uint64_t)epoch);
        if (store_get_experiment(r->store, r->id, &e, NULL) == 0) {
            r->wrong += e.revision < 2 + last;
            experiment_release(&e);
        } else {
            r->wrong++;
        }
        free(s);
        r->reads++;
    }
    return NULL;
}

static void readers_beside_a_writer(void **state) {
    struct reading r = {.store = store_of(state)};
    pthread_t threads[READERS];
    r.seq = start_one(r.store, r.id);
    for (int i = 0; i < READERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, read_on, &r), 0);
    for (int epoch = 1; epoch <= EPOCHS; epoch++)
        add_epoch(r.store, r.seq, epoch, "test"), write_epochs(r.store);
    while (r.reads < READERS)
        sleep_ms(1);
    r.done = 1;
    for (int i = 0; i < READERS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(r.wrong, 0);
    assert_int_equal(figures_of(r.store, r.seq, 1, EPOCHS).n, EPOCHS);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        with_store(what_goes_in_comes_out),
        with_store(unknown_ids),
        with_store(lists_and_filters),
        with_store(lists_by_tag_in_every_order),
        with_store(many_pages),
        with_store(idempotency_keys),
        with_store(priority_then_age),
        with_store(memory_holds_a_claim_back),
        with_store(each_job_is_claimed_once),
        with_store(only_what_runs_can_end),
        with_store(a_failure_has_its_problem),
        with_store(cancelling),
        with_store(long_ones_are_deleted),
        with_store(figures_of_all_kinds),
        with_store(figures_of_some_epochs),
        with_store(an_epoch_needs_a_running_experiment),
        with_store(epochs_are_written_together),
        with_store(a_final_state_has_all_epochs),
        with_store(a_thousand_epochs_write_themselves),
        with_store(a_fault_comes_back_to_the_job),
        with_store(choosing_a_histogram),
        with_store(series_of_several_layers),
        with_store(results_and_tensors),
        with_store(an_outcome_is_whole_or_not_there),
        with_store(requeueing_keeps_epochs),
        with_store(pausing),
        with_store(recovering),
        with_store(shutdowns_are_not_crashes),
        with_store(versions_of_a_data_set),
        with_store(opening_twice_changes_nothing),
        with_store(an_old_database_is_migrated),
        with_store(an_old_database_is_brought_up),
        with_store(a_newer_database_is_refused),
        with_place(a_foreign_file_is_left_alone),
        with_place(places_where_no_file_can_be),
        with_store(readers_beside_a_writer),
    };
    return cmocka_run_group_tests_name("server/store", tests, NULL, NULL);
}
