/* What it takes to decide who is next, by itself, with many that wait.
 *
 *   decide DIRECTORY WAITING OWNERS
 *
 * Makes a database in the directory, half of it for this machine, half for a cluster, and lets some
 * start: local ones as the pool claims them, the others as they are sent. Prints one line of JSON;
 * times are in ms. `choice` is the decision, on a connection that reads, `claim` and `send` are all
 * of it: the decision, the change, and the commit. */
#include "server/attempts.h"
#include "server/store/db.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROUNDS = 200, SPEC_BYTES = 1200 };

static _Noreturn void give_up(const char *why) {
    fprintf(stderr, "decide: %s\n", why);
    exit(1);
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return 1e3 * (double)time.tv_sec + 1e-6 * (double)time.tv_nsec;
}

/* Past the store: through it, this would take minutes. */
static void fill(const char *path, int waiting, int owners) {
    char *statements = sqlite3_mprintf(
        "BEGIN; WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d) "
        "INSERT INTO user (name, role, created_at) SELECT 'user' || i, 'member', 1 FROM n; "
        "INSERT INTO usage (owner, core_seconds, at) SELECT seq, 1 + seq * 7919 %% 10007, 1 FROM "
        "user; WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d) INSERT "
        "INTO experiment (id, name, tags, priority, state, spec, memory_bytes, created_at, "
        "core_seconds, executor, owner) SELECT printf('%%012d', i), 'x', '', 0, 'queued', "
        "printf('%%.*c', %d, 'x'), 1, 1, 60, i / %d %% 2, 1 + (i * 7919) %% %d FROM n; COMMIT",
        owners, waiting, SPEC_BYTES, owners, owners);
    sqlite3 *db;
    if (!statements || sqlite3_open(path, &db) || sqlite3_exec(db, statements, NULL, NULL, NULL))
        give_up("the database could not be filled");
    sqlite3_free(statements);
    sqlite3_close(db);
}

static struct store *open_store(const char *path) {
    struct ovr_err err = {0};
    struct store *store;
    if (store_open(&store, path, 1, &err))
        give_up(err.text);
    return store;
}

/* Each by itself; returns ms. */

static double choose(struct store *store, enum executor_kind executor) {
    struct ovr_err err = {0};
    int64_t seq, owner;
    double started = now();
    struct connection *c = db_take_reader(store);
    int rc = choose_next(store, c, executor, INT64_MAX, &seq, &owner, &err);
    db_give_back(c);
    double ended = now();
    if (rc)
        give_up(*err.text ? err.text : "nothing waits");
    return ended - started;
}

static double choose_local(struct store *store) {
    return choose(store, EXECUTOR_LOCAL);
}

static double choose_remote(struct store *store) {
    return choose(store, EXECUTOR_SLURM);
}

/* What is claimed ends at once: what runs is little on a real machine too. */
static double claim(struct store *store) {
    const struct outcome outcome = {.state = STATE_SUCCEEDED};
    struct ovr_err err = {0};
    struct experiment e;
    int waiting;
    double started = now();
    int rc = store_claim(store, INT64_MAX, &e, &waiting, &err);
    double ended = now();
    if (rc || store_finish(store, e.seq, &outcome, &err))
        give_up(*err.text ? err.text : "nothing waits");
    experiment_release(&e);
    return ended - started;
}

static double send(struct store *store) {
    struct ovr_err err = {0};
    struct attempt attempt;
    char token[WORK_TOKEN_SIZE];
    struct experiment e;
    double started = now();
    int rc = store_begin_attempt(store, &attempt, token, &e, &err);
    double ended = now();
    if (rc)
        give_up(*err.text ? err.text : "nothing waits");
    experiment_release(&e);
    return ended - started;
}

static const struct {
    const char *name;
    double (*run)(struct store *store);
} measured[] = {
    {"choice", choose_local}, {"claim", claim}, {"choice_remote", choose_remote}, {"send", send}};

enum { N_MEASURED = sizeof measured / sizeof *measured };

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* In turns: each decision finds the queue changed by the one before. */
static void measure(struct store *store) {
    static double times[N_MEASURED][ROUNDS];
    for (int round = 0; round < ROUNDS; round++)
        for (int i = 0; i < N_MEASURED; i++)
            times[i][round] = measured[i].run(store);
    for (int i = 0; i < N_MEASURED; i++) {
        qsort(times[i], ROUNDS, sizeof *times[i], by_size);
        printf("%s\"%s\": {\"p50\": %.4f, \"p99\": %.4f}", i ? ", " : "{", measured[i].name,
               times[i][ROUNDS / 2], times[i][ROUNDS * 99 / 100]);
    }
    puts("}");
}

int main(int argc, char **argv) {
    char path[4096];
    int waiting = argc == 4 ? atoi(argv[2]) : 0, owners = argc == 4 ? atoi(argv[3]) : 0;
    if (owners < 1 || waiting < 4 * ROUNDS || waiting < 2 * owners) {
        fprintf(stderr,
                "usage: decide DIRECTORY WAITING OWNERS: at least %d that wait, and two for each "
                "owner\n",
                4 * ROUNDS);
        return 2;
    }
    snprintf(path, sizeof path, "%s/decide-%d-%d.sqlite3", argv[1], waiting, owners);
    store_close(open_store(path)); /* its tables */
    fill(path, waiting, owners);
    struct store *store = open_store(path);
    measure(store);
    store_close(store);
    return 0;
}
