#include "server/store/db.h"

#include "server/log.h"

#include <stdlib.h>

void store_set_rules(struct store *store, const struct queue_rules *rules) {
    store->rules = *rules;
}

uint64_t store_queue_version(const struct store *store) {
    return store->queue_version;
}

void store_set_cores(struct store *store, int64_t seq, int cores) {
    runs_set_cores(&store->runs, seq, cores, now_ms(), (double)store->rules.half_life_ms);
}

/* ---- Use ---- */

/* What rows are read with. */
struct reading {
    const struct store *store;
    int64_t now;
};

/* From a row's columns core_seconds and at, which may be NULL. */
static double read_use(const struct store *store, sqlite3_stmt *row, int column, int64_t now) {
    const struct use use = {sqlite3_column_double(row, column),
                            sqlite3_column_int64(row, column + 1)};
    return use.at_ms ? use_at(&use, now, (double)store->rules.half_life_ms) : 0;
}

int charge_run(struct store *store, struct run *run, struct ovr_err *err) {
    struct connection *c = &store->writer;
    int64_t now = now_ms();
    double use = run_take_use(&store->runs, run, now, (double)store->rules.half_life_ms);
    sqlite3_stmt *row = db_bind(c, READ_USE, "i", run->owner);
    int step = sqlite3_step(row);
    if (step == SQLITE_ROW)
        use += read_use(store, row, 0, now);
    sqlite3_reset(row);
    if (step != SQLITE_ROW && step != SQLITE_DONE)
        return db_fail(c, err);
    return db_run(c, db_bind(c, WRITE_USE, "iri", run->owner, use, now), err);
}

/* What runs of hers is not in the database yet. With the lock of the runs held. */
static void add_runs(const struct store *store, int64_t now, struct share *share) {
    for (const struct run *run = store->runs.list; run; run = run->next) {
        if (run->owner != share->owner)
            continue;
        struct use use = run->use;
        use_add(&use, run->cores, run->charged_ms, now, (double)store->rules.half_life_ms);
        share->use += use.core_seconds - run->writing;
        share->cores += run->cores;
        share->running++;
    }
}

/* ---- Who is next ---- */

/* What there is to choose from: a share for each owner of whom something waits, and of each her
 * first and, where that does not fit, the first that does. */
struct choice {
    struct share *shares;
    struct candidate *candidates;
    size_t n_shares, n_candidates;
    struct placed *placed;
    struct room room;
    enum executor_kind executor;
};

/* An owner's share, and what is first of hers. */
struct first {
    struct share share;
    struct candidate candidate;
};

static int limit_column(const struct store *store, sqlite3_stmt *row, int column) {
    int64_t limit = sqlite3_column_type(row, column) == SQLITE_NULL
                        ? store->quotas.running
                        : sqlite3_column_int64(row, column);
    return limit > 0 && limit < NO_LIMIT ? (int)limit : NO_LIMIT;
}

/* Columns seq, priority, memory_bytes. */
static struct candidate read_candidate(sqlite3_stmt *row, int column) {
    return (struct candidate){.seq = sqlite3_column_int64(row, column),
                              .priority = sqlite3_column_int(row, column + 1),
                              .memory_bytes = sqlite3_column_int64(row, column + 2)};
}

static int read_first(const void *context, sqlite3_stmt *row, void *item, struct ovr_err *err) {
    (void)err;
    const struct reading *reading = context;
    struct first *first = item;
    first->share = (struct share){.owner = sqlite3_column_int64(row, 0),
                                  .limit = limit_column(reading->store, row, 4),
                                  .use = read_use(reading->store, row, 5, reading->now),
                                  .running = sqlite3_column_int(row, 7)};
    first->candidate = read_candidate(row, 1);
    return 0;
}

static const struct row_reader first_rows = {"the queue", sizeof(struct first), read_first, NULL};

/* With the lock of `blocked` held. */
static int64_t blocked_since(const struct store *store, int64_t seq) {
    for (size_t i = 0; i < store->n_blocked; i++)
        if (store->blocked[i].seq == seq)
            return store->blocked[i].since_ms;
    return 0;
}

/* The first of hers that fits, behind one that does not. */
static int add_fitting(struct choice *choice, struct connection *c, size_t share,
                       struct ovr_err *err) {
    sqlite3_stmt *row = db_bind(c, FITTING_OF_OWNER, "Iii", choice->shares[share].owner,
                                (int64_t)choice->executor, choice->room.free_bytes);
    int step = sqlite3_step(row);
    if (step == SQLITE_ROW) {
        choice->candidates[choice->n_candidates] = read_candidate(row, 0);
        choice->candidates[choice->n_candidates++].share = share;
    }
    sqlite3_reset(row);
    return step == SQLITE_ROW || step == SQLITE_DONE ? 0 : db_fail(c, err);
}

static int add_first(struct store *store, struct connection *c, struct choice *choice,
                     const struct first *first, struct ovr_err *err) {
    struct candidate *candidate = &choice->candidates[choice->n_candidates++];
    *candidate = first->candidate;
    candidate->share = choice->n_shares;
    candidate->blocked_ms = blocked_since(store, candidate->seq);
    struct share *share = &choice->shares[choice->n_shares++];
    *share = first->share;
    if (choice->executor == EXECUTOR_SLURM) /* one core each, until they say how many */
        share->cores = share->running;
    return candidate->memory_bytes > choice->room.free_bytes
               ? add_fitting(choice, c, candidate->share, err)
               : 0;
}

/* Shares of what runs, and the runs. */
static int read_runs(struct store *store, struct choice *choice, struct ovr_err *err) {
    struct runs *runs = &store->runs;
    size_t n = 0;
    pthread_mutex_lock(&runs->lock);
    for (const struct run *run = runs->list; run; run = run->next)
        n++;
    choice->placed = calloc(n + 1, sizeof *choice->placed);
    for (const struct run *run = runs->list; choice->placed && run; run = run->next)
        if (run->executor == EXECUTOR_LOCAL)
            choice->placed[choice->room.n_placed++] =
                (struct placed){run->memory_bytes, run->started_ms};
    for (size_t i = 0; i < choice->n_shares; i++)
        add_runs(store, choice->room.now_ms, &choice->shares[i]);
    pthread_mutex_unlock(&runs->lock);
    choice->room.placed = choice->placed;
    return choice->placed ? 0 : ovr_nomem(err, "the queue");
}

/* Those that wait for memory of ours are remembered, until they are in the queue no more. */
static int note_blocked(struct store *store, const struct choice *choice, struct ovr_err *err) {
    if (choice->executor != EXECUTOR_LOCAL)
        return 0;
    store->n_blocked = 0;
    for (size_t i = 0; i < choice->n_candidates; i++) {
        const struct candidate *candidate = &choice->candidates[i];
        if (!candidate->blocked_ms)
            continue;
        struct blocked *longer = grow(store->blocked, store->n_blocked, sizeof *longer);
        if (!longer)
            return ovr_nomem(err, "the queue");
        store->blocked = longer;
        longer[store->n_blocked++] = (struct blocked){candidate->seq, candidate->blocked_ms};
    }
    return 0;
}

static int read_choice(struct store *store, struct connection *c, struct choice *choice,
                       struct ovr_err *err) {
    const struct reading reading = {store, choice->room.now_ms};
    struct rows rows;
    int rc = db_read_list(c, db_bind(c, FIRSTS, "i", (int64_t)choice->executor), &first_rows,
                          &reading, &rows, err);
    const struct first *firsts = rows.items;
    choice->shares = calloc(rows.n + 1, sizeof *choice->shares);
    choice->candidates = calloc(2 * rows.n + 1, sizeof *choice->candidates);
    if (!rc && (!choice->shares || !choice->candidates))
        rc = ovr_nomem(err, "the queue");
    for (size_t i = 0; !rc && i < rows.n; i++)
        rc = add_first(store, c, choice, &firsts[i], err);
    free(rows.items);
    return rc ? rc : read_runs(store, choice, err);
}

int choose_next(struct store *store, struct connection *c, enum executor_kind executor,
                int64_t free_bytes, int64_t *seq, int64_t *owner, struct ovr_err *err) {
    struct choice choice = {.executor = executor,
                            .room = {.free_bytes = free_bytes,
                                     .total_bytes = store->rules.memory_bytes,
                                     .now_ms = now_ms(),
                                     .half_life_ms = (double)store->rules.half_life_ms}};
    ptrdiff_t next = NO_CANDIDATE;
    pthread_mutex_lock(&store->blocked_lock);
    int rc = read_choice(store, c, &choice, err);
    if (!rc) {
        next = scheduler_pick(choice.shares, choice.candidates, choice.n_candidates, &choice.room);
        rc = note_blocked(store, &choice, err);
    }
    pthread_mutex_unlock(&store->blocked_lock);
    if (!rc) {
        if (next == NO_CANDIDATE) {
            rc = OVR_NOT_FOUND;
        } else {
            *seq = choice.candidates[next].seq;
            *owner = choice.shares[choice.candidates[next].share].owner;
        }
    }
    free(choice.shares);
    free(choice.candidates);
    free(choice.placed);
    return rc;
}

/* ---- Looking at it ---- */

static int read_waiting(const void *context, sqlite3_stmt *row, void *item, struct ovr_err *err) {
    (void)context;
    (void)err;
    struct waiting *waiting = item;
    *waiting = (struct waiting){.seq = sqlite3_column_int64(row, 0),
                                .owner = sqlite3_column_int64(row, 1),
                                .waits_for = sqlite3_column_int64(row, 5),
                                .executor = (enum executor_kind)sqlite3_column_int(row, 6),
                                .priority = sqlite3_column_int(row, 2),
                                .memory_bytes = sqlite3_column_int64(row, 3),
                                .core_seconds = real_column(row, 4)};
    return 0;
}

static int read_sent(const void *context, sqlite3_stmt *row, void *item, struct ovr_err *err) {
    (void)context;
    (void)err;
    struct sent *sent = item;
    *sent = (struct sent){.seq = sqlite3_column_int64(row, 0),
                          .owner = sqlite3_column_int64(row, 1),
                          .memory_bytes = sqlite3_column_int64(row, 2),
                          .ranks = sqlite3_column_int(row, 3),
                          .cores = sqlite3_column_int(row, 8),
                          .begun_ms = sqlite3_column_int64(row, 7)};
    copy_column(row, 4, sent->job, sizeof sent->job);
    copy_column(row, 5, sent->node, sizeof sent->node);
    copy_column(row, 6, sent->reason, sizeof sent->reason);
    return 0;
}

/* What runs is added afterwards. */
static int read_owner(const void *context, sqlite3_stmt *row, void *item, struct ovr_err *err) {
    (void)err;
    const struct reading *reading = context;
    struct owner *owner = item;
    *owner = (struct owner){.seq = sqlite3_column_int64(row, 0),
                            .max_running = limit_column(reading->store, row, 2),
                            .use = read_use(reading->store, row, 3, reading->now),
                            .running = sqlite3_column_int(row, 5)};
    copy_column(row, 1, owner->name, sizeof owner->name);
    return 0;
}

static void add_runs_of(struct store *store, int64_t now, struct owner *owners, size_t n) {
    pthread_mutex_lock(&store->runs.lock);
    for (struct owner *owner = owners; owner < owners + n; owner++) {
        struct share share = {.owner = owner->seq, .use = owner->use, .running = owner->running};
        add_runs(store, now, &share);
        owner->use = share.use;
        owner->running = share.running;
        owner->cores = share.cores;
    }
    pthread_mutex_unlock(&store->runs.lock);
}

static const struct row_reader waiting_rows = {"the queue", sizeof(struct waiting), read_waiting,
                                               NULL};
static const struct row_reader sent_rows = {"the cluster's queue", sizeof(struct sent), read_sent,
                                            NULL};
static const struct row_reader owner_rows = {"the owners", sizeof(struct owner), read_owner, NULL};

/* In the transaction at hand. */
static int read_queue(struct store *store, struct connection *c, struct queue_rows *queue,
                      struct ovr_err *err) {
    const struct reading reading = {store, now_ms()};
    struct rows rows;
    int rc = db_read_list(c, db_bind(c, READ_WAITING, ""), &waiting_rows, NULL, &rows, err);
    queue->waiting = rows.items;
    queue->n_waiting = rows.n;
    if (rc)
        return rc;
    rc = db_read_list(c, db_bind(c, READ_SENT, ""), &sent_rows, NULL, &rows, err);
    queue->sent = rows.items;
    queue->n_sent = rows.n;
    if (rc)
        return rc;
    rc = db_read_list(c, db_bind(c, READ_OWNERS, ""), &owner_rows, &reading, &rows, err);
    queue->owners = rows.items;
    queue->n_owners = rows.n;
    if (!rc)
        add_runs_of(store, reading.now, queue->owners, queue->n_owners);
    return rc;
}

int store_read_queue(struct store *store, struct queue_rows *rows, struct ovr_err *err) {
    struct connection *c = db_take_reader(store);
    *rows = (struct queue_rows){0};
    int rc = db_run(c, db_bind(c, BEGIN_READING, ""), err);
    if (!rc) {
        rc = read_queue(store, c, rows, err);
        db_run(c, db_bind(c, COMMIT, ""), NULL);
    }
    db_give_back(c);
    if (rc)
        queue_rows_release(rows);
    return rc;
}

void queue_rows_release(struct queue_rows *rows) {
    free(rows->waiting);
    free(rows->sent);
    free(rows->owners);
    *rows = (struct queue_rows){0};
}
