#include "server/store/db.h"

#include "server/log.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

const char *const state_names[N_STATES] = {"queued",    "running", "paused",
                                           "succeeded", "failed",  "cancelled"};

enum state find_state(const char *name) {
    for (int i = 0; i < N_STATES; i++)
        if (strcmp(name, state_names[i]) == 0)
            return (enum state)i;
    return STATE_FAILED; /* the table's CHECK allows no other name */
}

int read_experiment(sqlite3_stmt *row, struct experiment *e, struct ovr_err *err) {
    int failed = 0;
    *e = (struct experiment){
        .seq = sqlite3_column_int64(row, 0),
        .name = dup_column(row, 2, &failed),
        .tags = dup_column(row, 3, &failed),
        .spec = dup_column(row, 4, &failed),
        .priority = sqlite3_column_int(row, 5),
        .state = find_state((const char *)sqlite3_column_text(row, 6)),
        .revision = sqlite3_column_int64(row, 7),
        .memory_bytes = sqlite3_column_int64(row, 8),
        .created_at = sqlite3_column_int64(row, 9),
        .started_at = sqlite3_column_int64(row, 10),
        .finished_at = sqlite3_column_int64(row, 11),
        .attempts = sqlite3_column_int(row, 12),
        .queue_reason = dup_column(row, 13, &failed),
        .problem_kind = dup_column(row, 14, &failed),
        .problem_pointer = dup_column(row, 15, &failed),
        .problem_detail = dup_column(row, 16, &failed),
        .point = sqlite3_column_int(row, 18),
        .repeat = sqlite3_column_int(row, 19),
        .replays = sqlite3_column_int(row, 22),
        .notes = dup_column(row, 23, &failed),
        .private = sqlite3_column_int(row, 25),
        .core_seconds = real_column(row, 26),
        .computed_ms = sqlite3_column_int64(row, 27),
        .executor = (enum executor_kind)sqlite3_column_int(row, 28),
        .ranks = sqlite3_column_int(row, 29),
    };
    copy_column(row, 1, e->id, sizeof e->id);
    copy_column(row, 17, e->sweep, sizeof e->sweep);
    copy_column(row, 20, e->waits_for, sizeof e->waits_for);
    copy_column(row, 21, e->rerun_of, sizeof e->rerun_of);
    copy_column(row, 24, e->owner, sizeof e->owner);
    copy_column(row, 30, e->job, sizeof e->job);
    copy_column(row, 31, e->node, sizeof e->node);
    if (!failed)
        return 0;
    experiment_release(e);
    return ovr_nomem(err, "an experiment");
}

void experiment_release(struct experiment *e) {
    free(e->name);
    free(e->tags);
    free(e->spec);
    free(e->queue_reason);
    free(e->notes);
    free(e->problem_kind);
    free(e->problem_pointer);
    free(e->problem_detail);
    *e = (struct experiment){0};
}

/* Twelve characters of 5 random bits: short enough to type, without letters that look alike. */
int store_new_id(char id[ID_SIZE], struct ovr_err *err) {
    static const char alphabet[] = "0123456789abcdefghjkmnpqrstvwxyz";
    unsigned char random[ID_SIZE - 1];
    if (getrandom(random, sizeof random, 0) != sizeof random)
        return ovr_fail(err, OVR_IO, NULL, "the system has no random numbers");
    for (size_t i = 0; i < sizeof random; i++)
        id[i] = alphabet[random[i] % 32];
    id[sizeof random] = '\0';
    return 0;
}

/* 0: unknown key. 1: known with this body, *id filled. OVR_CONFLICT: known with another. */
int find_key(struct connection *c, const char *key, const char *body_sha256, int for_sweep,
             char id[ID_SIZE], struct ovr_err *err) {
    if (!key)
        return 0;
    sqlite3_stmt *row = db_bind(c, FIND_KEY, "is", asking_user(), key);
    int rc = 0;
    if (sqlite3_step(row) == SQLITE_ROW) {
        int of_sweep = sqlite3_column_int(row, 2);
        copy_column(row, 0, id, ID_SIZE);
        if (of_sweep == for_sweep &&
            strcmp((const char *)sqlite3_column_text(row, 1), body_sha256) == 0)
            rc = 1;
        else
            rc =
                ovr_fail(err, OVR_CONFLICT, "Idempotency-Key",
                         "this Idempotency-Key was used with another body, for %s %s; use a new "
                         "key for a new %s",
                         of_sweep ? "sweep" : "experiment", id, for_sweep ? "sweep" : "experiment");
    }
    sqlite3_reset(row);
    return rc;
}

int put_tags(struct connection *c, enum sql how, int64_t seq, const char *tags,
             struct ovr_err *err) {
    int rc = 0;
    while (!rc && *tags) {
        size_t n = strcspn(tags, "\n");
        sqlite3_stmt *statement = db_bind(c, how, "i", seq);
        sqlite3_bind_text(statement, 2, tags, (int)n, SQLITE_STATIC);
        if (n)
            rc = db_run(c, statement, err);
        tags += n + (tags[n] == '\n');
    }
    return rc;
}

int insert_experiment(struct connection *c, const struct new_experiment *e,
                      const struct membership *member, char id[ID_SIZE], struct ovr_err *err) {
    int rc = 0;
    if (e->id)
        memcpy(id, e->id, ID_SIZE);
    else
        rc = store_new_id(id, err);
    if (rc)
        return rc;
    const char *types = member->sweep ? "ssssiiiIiiIIirii" : "ssssiiiIIIIIirii";
    sqlite3_stmt *statement = db_bind(
        c, ADD_EXPERIMENT, types, id, e->name, e->tags, e->spec, (int64_t)e->priority,
        e->memory_bytes, now_ms(), member->sweep, member->point, member->repeat, member->waits_for,
        e->owner, (int64_t)e->private, e->core_seconds > 0 ? e->core_seconds : NAN,
        (int64_t)e->executor, (int64_t)(e->ranks ? e->ranks : 1));
    rc = db_run(c, statement, err);
    return rc ? rc : put_tags(c, ADD_TAG, sqlite3_last_insert_rowid(c->db), e->tags, err);
}

int add_key(struct connection *c, const char *key, const char *body_sha256, int64_t experiment,
            int64_t sweep, struct ovr_err *err) {
    if (!key)
        return 0;
    return db_run(
        c,
        db_bind(c, ADD_KEY, "issIIi", asking_user(), key, body_sha256, experiment, sweep, now_ms()),
        err);
}

int store_add_experiment(struct store *store, const struct new_experiment *e, char id[ID_SIZE],
                         int *repeated, struct ovr_err *err) {
    int rc = db_begin(store, err);
    if (rc)
        return rc;
    struct connection *c = &store->writer;
    rc = find_key(c, e->idempotency_key, e->body_sha256, 0, id, err);
    *repeated = rc == 1;
    if (!rc)
        rc = check_quota(store, 1, 0, err);
    if (!rc)
        rc = insert_experiment(c, e, &(struct membership){0}, id, err);
    int64_t seq = sqlite3_last_insert_rowid(c->db);
    if (!rc && e->rerun_of)
        rc = db_run(c, db_bind(c, NOTE_ORIGIN, "isi", seq, e->rerun_of, (int64_t)e->replays), err);
    if (!rc)
        rc = add_key(c, e->idempotency_key, e->body_sha256, seq, 0, err);
    if (!rc)
        rc = audit(c, "experiment.submit", id, e->rerun_of, err);
    return db_end(store, *repeated ? 0 : rc, err);
}

/* The one row of a statement; `id` says which was meant. */
static int read_one(struct connection *c, sqlite3_stmt *row, const char *id, struct experiment *e,
                    struct ovr_err *err) {
    int step = sqlite3_step(row);
    int rc = step == SQLITE_ROW ? read_experiment(row, e, err)
             : step == SQLITE_DONE
                 ? ovr_fail(err, OVR_NOT_FOUND, NULL, "there is no experiment %.40s", id)
                 : db_fail(c, err);
    sqlite3_reset(row);
    return rc;
}

int find_own_experiment(struct connection *c, const char *id, struct experiment *e,
                        struct ovr_err *err) {
    int rc = find_experiment(c, id, e, err);
    if (!rc && (rc = must_own(e->owner, "experiment", e->id, err)))
        experiment_release(e);
    return rc;
}

int find_experiment(struct connection *c, const char *id, struct experiment *e,
                    struct ovr_err *err) {
    int rc = read_one(c, db_bind(c, GET_EXPERIMENT, "s", id), id, e, err);
    if (!rc && !sees(e->owner, e->private)) {
        experiment_release(e);
        rc = ovr_fail(err, OVR_NOT_FOUND, NULL, "there is no experiment %.40s", id);
    }
    return rc;
}

int may_see(const struct experiment *e) {
    return sees(e->owner, e->private);
}

int store_get_numbered(struct store *store, int64_t seq, struct experiment *e,
                       struct ovr_err *err) {
    struct connection *c = db_take_reader(store);
    int rc = read_one(c, db_bind(c, GET_NUMBERED, "i", seq), "of this number", e, err);
    db_give_back(c);
    return rc;
}

int store_get_experiment(struct store *store, const char *id, struct experiment *e,
                         struct ovr_err *err) {
    struct connection *c = db_take_reader(store);
    int rc = find_experiment(c, id, e, err);
    db_give_back(c);
    return rc;
}

/* By which filter a list finds its experiments, as FOUND_NUMBERS of sql.c counts them. */
enum finder {
    FIND_ALL, /* all in their order, until enough pass the filters */
    FIND_TAGGED,
    FIND_IN_STATE,
    FIND_OWNED,
    FIND_VISIBLE, /* in order of age up to here */
    FIND_NAMED,
    FIND_IN_SWEEP,
    FIND_CREATED,
    N_FINDERS
};

static sqlite3_stmt *bind_found(struct connection *c, enum sql which,
                                const struct experiment_filter *f, enum finder finder,
                                int64_t limit) {
    int64_t seq = f->before ? f->before : f->ascending ? 0 : INT64_MAX;
    double key = f->before ? f->key : f->ascending ? -DBL_MAX : DBL_MAX;
    return db_bind(c, which, "issssiirssii", seq, f->state, f->tag, f->name_prefix, f->sweep, limit,
                   f->created_after, key, f->figure, f->owner, visible_to(), (int64_t)finder);
}

/* How many it finds, at most so many. */
static int64_t count_found(struct connection *c, const struct experiment_filter *f,
                           enum finder finder, int64_t most) {
    sqlite3_stmt *row = bind_found(c, COUNT_FOUND, f, finder, most);
    /* What is wrong with the database the list itself will tell. */
    int64_t n = sqlite3_step(row) == SQLITE_ROW ? sqlite3_column_int64(row, 0) : most;
    sqlite3_reset(row);
    return n;
}

/* The filter that finds the fewest. Where none finds few, it is quicker to go through all in their
 * order than to sort what was found; by age some need no sorting and are never slower. */
static enum finder choose_finder(struct connection *c, const struct experiment_filter *f) {
    /* A result has some thirty figures to look through. */
    static const int64_t few[] = {
        [ORDER_CREATED] = 5000, [ORDER_FINISHED] = 5000, [ORDER_FIGURE] = 500};
    const int given[N_FINDERS] = {
        [FIND_TAGGED] = f->tag != NULL,
        [FIND_IN_STATE] = f->state != NULL,
        [FIND_OWNED] = f->owner != NULL,
        [FIND_VISIBLE] = visible_to() != 0,
        [FIND_NAMED] = f->name_prefix && *f->name_prefix,
        [FIND_IN_SWEEP] = f->sweep != NULL,
        [FIND_CREATED] = f->created_after > 0,
    };
    enum finder best = FIND_ALL;
    int64_t least = few[f->order] + 1;
    int by_age = f->order == ORDER_CREATED;
    for (int i = N_FINDERS - 1; i > FIND_ALL; i--) { /* the rarest first, as a rule */
        if (!given[i])
            continue;
        int64_t n = count_found(c, f, (enum finder)i, least);
        if (n < least || (by_age && i <= FIND_VISIBLE && least > few[f->order]))
            best = (enum finder)i;
        least = n;
    }
    return best;
}

static sqlite3_stmt *bind_list(struct connection *c, const struct experiment_filter *f) {
    static const enum sql statements[][2][2] = {
        [ORDER_CREATED] = {{LIST_EXPERIMENTS, LIST_OLDEST}, {FOUND_EXPERIMENTS, FOUND_OLDEST}},
        [ORDER_FINISHED] = {{LIST_FINISHED_LAST, LIST_FINISHED},
                            {FOUND_FINISHED_LAST, FOUND_FINISHED}},
        [ORDER_FIGURE] = {{LIST_MOST, LIST_LEAST}, {FOUND_MOST, FOUND_LEAST}},
    };
    enum finder finder = choose_finder(c, f);
    enum sql which = statements[f->order][finder != FIND_ALL][f->ascending != 0];
    return bind_found(c, which, f, finder, f->limit);
}

/* With what its list is sorted by, in the last column. */
static int read_listed(const void *context, sqlite3_stmt *row, void *item, struct ovr_err *err) {
    (void)context;
    struct experiment *e = item;
    int rc = read_experiment(row, e, err);
    if (!rc)
        e->key = sqlite3_column_double(row, sqlite3_column_count(row) - 1);
    return rc;
}

static void release_listed(void *item) {
    experiment_release(item);
}

static const struct row_reader experiment_rows = {
    "a list of experiments", sizeof(struct experiment), read_listed, release_listed};

int store_list_experiments(struct store *store, const struct experiment_filter *f,
                           struct experiment **list, size_t *n, struct ovr_err *err) {
    struct connection *c = db_take_reader(store);
    struct rows rows;
    int rc = db_read_list(c, bind_list(c, f), &experiment_rows, NULL, &rows, err);
    db_give_back(c);
    *list = rows.items;
    *n = rows.n;
    return rc;
}

void experiment_list_free(struct experiment *list, size_t n) {
    for (size_t i = 0; i < n; i++)
        experiment_release(&list[i]);
    free(list);
}
