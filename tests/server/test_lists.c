/* Lists of experiments: whichever filter finds them, the same ones come, in the same order, and few
 * are found without looking at many. */
#include "server/people.h"
#include "server/store/db.h"
#include "tests/server/past.h"

enum { MANY = 8000 };

static struct store *store_of(void **state) {
    return ((struct place *)*state)->store;
}

/* Some of each kind: filters that find none, few, and more than are worth sorting. Those that end
 * and their figures are in another order than those that were posted. */
static void fill(struct place *place) {
    char *statements = sqlite3_mprintf(
        "BEGIN; INSERT INTO user (seq, name, role, created_at) VALUES (1, 'alice', 'member', 1), "
        "(2, 'bob', 'member', 1), (3, 'carol', 'member', 1); "
        "INSERT INTO sweep (seq, id, name, tags, notes, request, axes, points, repeats, more, "
        "created_at) VALUES (1, 's1', '', '', '', '{}', '[]', 80, 1, 0, 1); "
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d) "
        "INSERT INTO experiment (seq, id, name, tags, priority, state, spec, memory_bytes, "
        "created_at, finished_at, owner, private, sweep, point, repeat) SELECT i, "
        "printf('%%012d', i), CASE WHEN i %% 1000 = 0 THEN 'rare' WHEN i <= 5500 THEN 'old' ELSE "
        "'new' END || i, CASE WHEN i %% 1500 THEN char(10) || 'many' || char(10) ELSE char(10) || "
        "'many' || char(10) || 'few' || char(10) END, 0, CASE WHEN i > 7900 THEN 'queued' WHEN i "
        "%% 50 = 0 THEN 'failed' ELSE 'succeeded' END, '{}', 1, 1000 + i, CASE WHEN i <= 7900 THEN "
        "10000 + (i * 7919) %% 4001 END, CASE WHEN i %% 2000 = 7 THEN 3 ELSE nullif(i %% 3, 0) "
        "END, i %% 4 = 0, CASE WHEN i %% 100 = 1 THEN 1 END, i, 0 FROM n; "
        "INSERT INTO experiment_tag SELECT 'many', seq FROM experiment UNION ALL SELECT 'few', seq "
        "FROM experiment WHERE seq %% 1500 = 0; "
        "INSERT INTO figure (experiment, epoch, position, name, value) SELECT seq, 0, 0, "
        "'accuracy', CASE WHEN seq %% 13 THEN (seq * 31 %% 997) / 100.0 ELSE 'none' END FROM "
        "experiment WHERE state = 'succeeded'; COMMIT",
        MANY);
    write_past(place, statements);
    sqlite3_free(statements);
}

/* A filter, and what it says in plain SQL. */
struct sought {
    struct experiment_filter filter;
    const char *condition;
    int64_t asker;
};

static const struct sought sought[] = {
    {{0}, "1", 0},
    {{.tag = "few"}, "seq % 1500 = 0", 0},
    {{.tag = "many"}, "1", 0},
    {{.tag = "fe"}, "0", 0},
    {{.state = "failed"}, "state = 'failed'", 0},
    {{.state = "succeeded"}, "state = 'succeeded'", 0},
    {{.state = "running"}, "0", 0},
    {{.owner = "carol"}, "owner = 3", 0},
    {{.owner = "alice"}, "owner = 1", 0},
    {{.owner = "nobody"}, "0", 0},
    {{.name_prefix = "rare"}, "name GLOB 'rare*'", 0},
    {{.name_prefix = "old"}, "name GLOB 'old*'", 0}, /* more than few, and the oldest */
    {{.name_prefix = "old4"}, "name GLOB 'old4*'", 0},
    {{.name_prefix = "older"}, "0", 0},
    {{.sweep = "s1"}, "sweep = 1", 0},
    {{.sweep = "s2"}, "0", 0},
    {{.created_after = 8900}, "created_at > 8900", 0},
    {{.created_after = 1100}, "created_at > 1100", 0},
    {{.created_after = 100000}, "0", 0},
    {{.state = "failed", .name_prefix = "old", .tag = "many", .created_after = 1234},
     "state = 'failed' AND name GLOB 'old*' AND created_at > 1234",
     0},
    {{.owner = "alice", .name_prefix = "new", .sweep = "s1"},
     "owner = 1 AND name GLOB 'new*' AND sweep = 1",
     0},
    {{0}, "(NOT private OR owner = 1)", 1},
    {{.owner = "bob"}, "owner = 2 AND NOT private", 1},
    {{.name_prefix = "new7"}, "name GLOB 'new7*' AND (NOT private OR owner = 1)", 1},
    {{.state = "failed"}, "state = 'failed' AND NOT private", -1},
};

static const struct order {
    enum list_order order;
    int ascending;
    const char *in_sql; /* after what has a key */
} orders[] = {
    {ORDER_CREATED, 0, "1 ORDER BY seq DESC"},
    {ORDER_CREATED, 1, "1 ORDER BY seq"},
    {ORDER_FINISHED, 0, "finished_at IS NOT NULL ORDER BY finished_at DESC, seq DESC"},
    {ORDER_FINISHED, 1, "finished_at IS NOT NULL ORDER BY finished_at, seq"},
    {ORDER_FIGURE, 0, "typeof(value) = 'real' ORDER BY value DESC, seq DESC"},
    {ORDER_FIGURE, 1, "typeof(value) = 'real' ORDER BY value, seq"},
};

/* Page after page, as many as `most`; each has to be the next row. */
static void assert_pages(struct store *store, struct experiment_filter f, sqlite3_stmt *row,
                         int most) {
    struct ovr_err err = {0};
    for (size_t n = (size_t)f.limit; n == (size_t)f.limit && most; most--) {
        struct experiment *list;
        assert_ok(store_list_experiments(store, &f, &list, &n, &err), &err);
        for (size_t i = 0; i < n; i++) {
            assert_int_equal(sqlite3_step(row), SQLITE_ROW);
            assert_int_equal(list[i].seq, sqlite3_column_int64(row, 0));
        }
        if (n < (size_t)f.limit)
            assert_int_equal(sqlite3_step(row), SQLITE_DONE);
        f.before = n ? list[n - 1].seq : 0;
        f.key = n ? list[n - 1].key : 0;
        experiment_list_free(list, n);
    }
}

static void every_filter_finds_the_same(void **state) {
    struct store *store = store_of(state);
    fill(*state);
    sqlite3 *db = open_past(*state);
    for (size_t i = 0; i < COUNT(sought) * COUNT(orders); i++) {
        const struct sought *what = &sought[i / COUNT(orders)];
        const struct order *order = &orders[i % COUNT(orders)];
        const struct asker asker = {.user = what->asker, .name = "alice", .level = LEVEL_WRITE};
        struct experiment_filter f = what->filter;
        f.order = order->order;
        f.ascending = order->ascending;
        f.figure = "accuracy";
        char *text = sqlite3_mprintf("SELECT seq FROM experiment LEFT JOIN (SELECT experiment, "
                                     "value FROM figure WHERE epoch = 0) ON experiment = seq WHERE "
                                     "%s AND %s",
                                     what->condition, order->in_sql);
        sqlite3_stmt *row = prepare(db, text);
        ask_as(what->asker ? &asker : NULL);
        f.limit = 500;
        assert_pages(store, f, row, 4);
        sqlite3_reset(row);
        f.limit = 3;
        assert_pages(store, f, row, 4);
        sqlite3_finalize(row);
        sqlite3_free(text);
    }
    ask_as(NULL);
    sqlite3_close(db);
}

/* ---- Names ---- */

static size_t count_named(struct store *store, const char *prefix, enum list_order order) {
    const struct experiment_filter f = {
        .name_prefix = prefix, .order = order, .figure = "accuracy", .limit = 100};
    struct experiment *list;
    struct ovr_err err = {0};
    size_t n;
    assert_ok(store_list_experiments(store, &f, &list, &n, &err), &err);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(strncmp(list[i].name, prefix, strlen(prefix)), 0);
    experiment_list_free(list, n);
    return n;
}

/* U+10FFFF is the last there is, U+D7FF the last before the surrogates; bytes are compared. */
static void names_begin_with_any_character(void **state) {
    static char longest[129];
    memset(longest, 'z', sizeof longest - 1);
    const char *const names[] = {"",
                                 "a",
                                 "A",
                                 "ab",
                                 "a%",
                                 "a_",
                                 "_",
                                 "%",
                                 "%%",
                                 "'",
                                 "\\",
                                 "*",
                                 "a*",
                                 "\x7f",
                                 "é",
                                 "é1",
                                 "É",
                                 "\u00ff",
                                 "\u0100",
                                 "\u07ff",
                                 "\u0800",
                                 "\ud7ff",
                                 "\ue000",
                                 "\uffff",
                                 "😀",
                                 "😀😀",
                                 "😁",
                                 "\U0010ffff",
                                 "\U0010ffff\U0010ffff",
                                 "a\U0010ffff",
                                 "a\U0010ffffb",
                                 "b",
                                 "z",
                                 longest,
                                 longest + 1};
    struct store *store = store_of(state);
    char id[ID_SIZE];
    for (size_t i = 0; i < COUNT(names); i++)
        enqueue(store, &(struct new_experiment){.name = names[i]}, id);
    write_past(*state, "UPDATE experiment SET state = 'succeeded', finished_at = seq; INSERT INTO "
                       "figure (experiment, epoch, position, name, value) SELECT seq, 0, 0, "
                       "'accuracy', 0.5 FROM experiment");
    for (size_t i = 0; i < COUNT(names); i++) {
        size_t n = 0;
        for (size_t k = 0; k < COUNT(names); k++)
            n += strncmp(names[k], names[i], strlen(names[i])) == 0;
        for (int order = ORDER_CREATED; order <= ORDER_FIGURE; order++)
            assert_int_equal(count_named(store, names[i], (enum list_order)order), n);
    }
}

static void a_new_name_is_found(void **state) {
    struct store *store = store_of(state);
    struct ovr_err err = {0};
    char id[ID_SIZE];
    enqueue(store, &(struct new_experiment){.name = "before"}, id);
    const struct edit edit = {.name = "after"};
    assert_ok(store_edit_experiment(store, id, -1, &edit, &err), &err);
    assert_int_equal(count_named(store, "before", ORDER_CREATED), 0);
    assert_int_equal(count_named(store, "af", ORDER_CREATED), 1);
}

/* ---- What it costs ---- */

/* Steps of SQLite's machine since it was last asked, on all connections that read. */
static int steps(struct store *store) {
    int n = 0;
    for (int i = 0; i < store->n_readers; i++)
        for (int k = 0; k < N_SQL; k++)
            n += sqlite3_stmt_status(store->readers[i].statement[k], SQLITE_STMTSTATUS_VM_STEP, 1);
    return n;
}

/* To look at all takes some eight steps for each. */
static void few_are_found_without_looking_at_all(void **state) {
    static const struct sought cheap[] = {
        {{.tag = "few"}, NULL, 0},
        {{.tag = "fe"}, NULL, 0},
        {{.state = "queued"}, NULL, 0},
        {{.state = "failed"}, NULL, 0},
        {{.state = "running"}, NULL, 0},
        {{.owner = "carol"}, NULL, 0},
        {{.owner = "nobody"}, NULL, 0},
        {{.name_prefix = "rare"}, NULL, 0},
        {{.name_prefix = "nobody"}, NULL, 0},
        {{.sweep = "s1"}, NULL, 0},
        {{.sweep = "s2"}, NULL, 0},
        {{.created_after = 8950}, NULL, 0},
        {{.created_after = 100000}, NULL, 0},
        {{.tag = "many", .state = "succeeded", .owner = "alice", .name_prefix = "nobody"}, NULL, 0},
        {{.state = "succeeded", .sweep = "s2"}, NULL, 1},
        {{0}, NULL, -1}, /* whose token is nobody's, and all of the others' is private */
    };
    struct store *store = store_of(state);
    fill(*state);
    write_past(*state, "UPDATE experiment SET private = 1 WHERE seq > 40");
    for (size_t i = 0; i < COUNT(cheap) * COUNT(orders); i++) {
        const struct sought *what = &cheap[i / COUNT(orders)];
        const struct asker asker = {.user = what->asker, .name = "alice", .level = LEVEL_WRITE};
        struct experiment_filter f = what->filter;
        struct experiment *list;
        struct ovr_err err = {0};
        size_t n;
        f.order = orders[i % COUNT(orders)].order;
        f.ascending = orders[i % COUNT(orders)].ascending;
        f.figure = "accuracy";
        f.limit = 51;
        ask_as(what->asker ? &asker : NULL);
        steps(store);
        assert_ok(store_list_experiments(store, &f, &list, &n, &err), &err);
        experiment_list_free(list, n);
        int taken = steps(store);
        if (taken > 3 * MANY)
            fail_msg("filter %zu in order %zu: %d steps", i / COUNT(orders), i % COUNT(orders),
                     taken);
    }
    ask_as(NULL);
}

static int runs_of(struct store *store, enum sql which) {
    int n = 0;
    for (int i = 0; i < store->n_readers; i++)
        n += sqlite3_stmt_status(store->readers[i].statement[which], SQLITE_STMTSTATUS_RUN, 1);
    return n;
}

/* What has its order from its index is never slower than all are, however many; the rest is. */
static void many_are_found_where_they_are_in_order(void **state) {
    static const struct {
        struct experiment_filter filter;
        int found;
    } filters[] = {
        {{.tag = "many", .limit = 9}, 1},
        {{.state = "succeeded", .limit = 9}, 1},
        {{.state = "succeeded", .created_after = 1, .limit = 9}, 1},
        {{.state = "succeeded", .order = ORDER_FINISHED, .limit = 9}, 0},
        {{.name_prefix = "old", .limit = 9}, 0},
        {{.created_after = 1, .limit = 9}, 0},
        {{.limit = 9}, 0},
    };
    struct store *store = store_of(state);
    fill(*state);
    for (size_t i = 0; i < COUNT(filters); i++) {
        struct experiment *list;
        struct ovr_err err = {0};
        size_t n;
        assert_ok(store_list_experiments(store, &filters[i].filter, &list, &n, &err), &err);
        experiment_list_free(list, n);
        int found = runs_of(store, FOUND_EXPERIMENTS) + runs_of(store, FOUND_FINISHED_LAST);
        int all = runs_of(store, LIST_EXPERIMENTS) + runs_of(store, LIST_FINISHED_LAST);
        assert_int_equal(found, filters[i].found);
        assert_int_equal(all, !filters[i].found);
    }
}

/* ---- Plans ---- */

static size_t count_in(const char *text, const char *part) {
    size_t n = 0;
    for (; (text = strstr(text, part)); text++)
        n++;
    return n;
}

/* Each part goes by its index, and by age all but three have the order from it. */
static void each_filter_has_its_index(void **state) {
    static const enum sql by_age[] = {FOUND_EXPERIMENTS, FOUND_OLDEST};
    static const char *const beyond[] = {"<?)", ">?)"}; /* five of them, and a name or a time */
    static const enum sql others[] = {FOUND_FINISHED, FOUND_FINISHED_LAST, FOUND_LEAST, FOUND_MOST,
                                      COUNT_FOUND};
    static const char *const parts[] = {
        "SEARCH experiment_tag USING PRIMARY KEY (tag=?",
        "USING COVERING INDEX experiment_state (state=?",
        "USING COVERING INDEX experiment_owner (owner=?",
        "USING COVERING INDEX experiment_name (name>? AND name<?)",
        "USING COVERING INDEX experiment_sweep (sweep=?)",
        "USING COVERING INDEX experiment_created (created_at>?)",
        "USING INDEX experiment_owner (owner=?", /* of what is private */
        "USING COVERING INDEX experiment_private (private=?",
    };
    sqlite3 *db = store_of(state)->writer.db;
    for (size_t i = 0; i < COUNT(by_age) + COUNT(others); i++) {
        int is_by_age = i < COUNT(by_age);
        enum sql which = is_by_age ? by_age[i] : others[i - COUNT(by_age)];
        char *plan = plan_of(db, sql[which]);
        for (size_t k = 0; k < COUNT(parts); k++)
            if (!strstr(plan, parts[k]))
                fail_msg("no %s:\n%s", parts[k], plan);
        if (is_by_age && (count_in(plan, "TEMP B-TREE") != 4 || count_in(plan, beyond[i]) != 6))
            fail_msg("it sorts:\n%s", plan); /* three, and the page itself */
        assert_null(strstr(plan, "SCAN e\n"));
        sqlite3_free(plan);
    }
}

static void all_are_in_order(void **state) {
    static const struct {
        enum sql which;
        const char *step;
    } lists[] = {
        {LIST_EXPERIMENTS, "SEARCH e USING INTEGER PRIMARY KEY (rowid<?)\n"},
        {LIST_OLDEST, "SEARCH e USING INTEGER PRIMARY KEY (rowid>?)\n"},
        {LIST_FINISHED, "SEARCH e USING INDEX experiment_finished ("},
        {LIST_FINISHED_LAST, "SEARCH e USING INDEX experiment_finished ("},
        {LIST_LEAST, "SEARCH f USING COVERING INDEX figure_result (name=? AND "},
        {LIST_MOST, "SEARCH f USING COVERING INDEX figure_result (name=? AND "},
    };
    for (size_t i = 0; i < COUNT(lists); i++) {
        char *plan = plan_of(store_of(state)->writer.db, sql[lists[i].which]);
        if (!strstr(plan, lists[i].step) || count_in(plan, "TEMP B-TREE") != 1) /* of the page */
            fail_msg("not by %s:\n%s", lists[i].step, plan);
        sqlite3_free(plan);
    }
}

/* ---- Rows ---- */

/* What it has read, and where it fails. */
struct counted {
    int64_t *item;
    int *held;
};

static int read_counted(const void *context, sqlite3_stmt *row, void *item, struct ovr_err *err) {
    const int64_t *fails_at = context;
    struct counted *counted = item;
    static int held;
    counted->held = &held;
    if (sqlite3_column_int64(row, 0) == *fails_at)
        return ovr_fail(err, OVR_INVALID, NULL, "as it was told");
    counted->item = calloc(1, sizeof *counted->item);
    assert_non_null(counted->item);
    *counted->item = sqlite3_column_int64(row, 0);
    held++;
    return 0;
}

static void release_counted(void *item) {
    struct counted *counted = item;
    free(counted->item);
    --*counted->held;
}

/* All of them or, where one cannot be read, none, and those before it are released. */
static void rows_become_items(void **state) {
    static const struct row_reader reader = {"numbers", sizeof(struct counted), read_counted,
                                             release_counted};
    struct store *store = store_of(state);
    char id[ID_SIZE];
    for (int i = 0; i < 9; i++)
        enqueue(store, &(struct new_experiment){.memory_bytes = 1}, id);
    struct connection *c = db_take_reader(store);
    int *held = NULL;
    for (int64_t fails_at = 0; fails_at <= 9; fails_at++) {
        struct rows rows = {&rows, 77};
        struct ovr_err err = {0};
        int rc = db_read_list(c, db_bind(c, READ_WAITING, ""), &reader, &fails_at, &rows, &err);
        assert_int_equal(rc, fails_at ? OVR_INVALID : 0);
        assert_int_equal(rows.n, fails_at ? 0 : 9);
        struct counted *items = rows.items;
        assert_true(!items == !rows.n);
        for (size_t i = 0; i < rows.n; i++) {
            assert_int_equal(*items[i].item, i + 1);
            held = items[i].held;
            release_counted(&items[i]);
        }
        free(items);
        assert_int_equal(*held, 0);
    }
    struct rows rows;
    const int64_t never = 0;
    sqlite3_stmt *row = db_bind(c, LIST_SPLITS, "s", "nobody");
    assert_int_equal(db_read_list(c, row, &reader, &never, &rows, NULL), 0);
    assert_true(!rows.items && !rows.n);
    db_give_back(c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        with_store(every_filter_finds_the_same),
        with_store(names_begin_with_any_character),
        with_store(a_new_name_is_found),
        with_store(few_are_found_without_looking_at_all),
        with_store(many_are_found_where_they_are_in_order),
        with_store(each_filter_has_its_index),
        with_store(all_are_in_order),
        with_store(rows_become_items),
    };
    return cmocka_run_group_tests_name("server/lists", tests, start_blas, NULL);
}
