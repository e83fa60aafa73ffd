/* Transactions that share a commit: each is stored or taken back by itself, and none is answered
 * before it is stored. */
#include "server/store/db.h"
#include "tests/server/check.h"

#include <stdatomic.h>

enum { POSTERS = 6 };

/* What the test makes of the store's commits. */
struct commits {
    int n, refuse;
};

static int on_commit(void *context) {
    struct commits *commits = context;
    commits->n++;
    return commits->refuse; /* not 0: SQLite takes the transaction back */
}

struct poster {
    struct store *store;
    pthread_t thread;
    struct new_experiment what;
    char id[ID_SIZE];
    int rc, repeated;
    struct ovr_err err;
};

static void *post(void *arg) {
    struct poster *p = arg;
    p->rc = store_add_experiment(p->store, &p->what, p->id, &p->repeated, &p->err);
    return NULL;
}

/* Posts all of them behind a transaction that is held until they wait, so that they are in one
 * commit with it; returns how that one ended. */
static int post_together(struct store *store, struct poster *posters, struct commits *commits) {
    struct ovr_err err = {0};
    assert_ok(db_begin(store, &err), &err);
    for (int i = 0; i < POSTERS; i++) {
        posters[i].store = store;
        posters[i].what.name = "together";
        posters[i].what.tags = "";
        posters[i].what.spec = posters[i].what.spec ? posters[i].what.spec : "{}";
        assert_int_equal(pthread_create(&posters[i].thread, NULL, post, &posters[i]), 0);
    }
    while (atomic_load(&store->coming) < POSTERS)
        sleep_ms(1);
    sqlite3_commit_hook(store->writer.db, on_commit, commits);
    int rc = db_end(store, audit(&store->writer, "test", "-", NULL, &err), &err);
    for (int i = 0; i < POSTERS; i++)
        pthread_join(posters[i].thread, NULL);
    sqlite3_commit_hook(store->writer.db, NULL, NULL);
    return rc;
}

static int64_t count_queued(struct store *store) {
    struct census census;
    assert_int_equal(store_census(store, &census, NULL), 0);
    return census.count[STATE_QUEUED];
}

static void one_commit_for_all(void **state) {
    struct place *place = *state;
    struct poster posters[POSTERS] = {0};
    struct commits commits = {0};
    assert_int_equal(post_together(place->store, posters, &commits), 0);
    assert_int_equal(commits.n, 1);
    reopen_store(place);
    for (int i = 0; i < POSTERS; i++) {
        assert_ok(posters[i].rc, &posters[i].err);
        assert_int_equal(state_of(place->store, posters[i].id), STATE_QUEUED);
    }
    assert_int_equal(count_queued(place->store), POSTERS);
}

/* Two have one key with another body each, so that one of them fails; whichever comes first. One
 * fails where its row goes in, and is alone in that too. */
static void a_failure_is_its_own(void **state) {
    struct place *place = *state;
    struct poster posters[POSTERS] = {0};
    struct commits commits = {0};
    char taken[ID_SIZE];
    enqueue(place->store, &(struct new_experiment){0}, taken);
    for (int i = 0; i < 2; i++)
        posters[i].what.idempotency_key = "key", posters[i].what.body_sha256 = i ? "one" : "other";
    posters[2].what.id = taken;
    assert_int_equal(post_together(place->store, posters, &commits), 0);
    assert_int_equal(commits.n, 1);
    int first = posters[0].rc != 0;
    assert_ok(posters[first].rc, &posters[first].err);
    assert_failed(posters[!first].rc, OVR_CONFLICT, &posters[!first].err, posters[first].id);
    assert_failed(posters[2].rc, OVR_IO, &posters[2].err, "UNIQUE");
    for (int i = 3; i < POSTERS; i++)
        assert_int_equal(state_of(place->store, posters[i].id), STATE_QUEUED);
    assert_int_equal(count_queued(place->store), 1 + POSTERS - 2);
}

/* The same key and body twice in one commit are one experiment. */
static void keys_hold_within_a_commit(void **state) {
    struct place *place = *state;
    struct poster posters[POSTERS] = {0};
    struct commits commits = {0};
    int repeated = 0;
    for (int i = 0; i < POSTERS; i++)
        posters[i].what.idempotency_key = "key", posters[i].what.body_sha256 = "one";
    assert_int_equal(post_together(place->store, posters, &commits), 0);
    for (int i = 0; i < POSTERS; i++) {
        assert_ok(posters[i].rc, &posters[i].err);
        assert_string_equal(posters[i].id, posters[0].id);
        repeated += posters[i].repeated;
    }
    assert_int_equal(repeated, POSTERS - 1);
    assert_int_equal(count_queued(place->store), 1);
}

static void all_learn_of_a_failed_commit(void **state) {
    struct place *place = *state;
    struct poster posters[POSTERS] = {0};
    struct commits commits = {.refuse = 1};
    assert_int_equal(post_together(place->store, posters, &commits), OVR_IO);
    assert_int_equal(commits.n, 1);
    for (int i = 0; i < POSTERS; i++)
        assert_failed(posters[i].rc, OVR_IO, &posters[i].err, "the database refused");
    assert_int_equal(count_queued(place->store), 0);
    commits.refuse = 0; /* and the next ones are stored */
    memset(posters, 0, sizeof posters);
    assert_int_equal(post_together(place->store, posters, &commits), 0);
    assert_int_equal(count_queued(place->store), POSTERS);
}

/* Some faults make SQLite take back the whole transaction, also what others did in it. */
static void all_learn_of_a_lost_transaction(void **state) {
    struct place *place = *state;
    struct poster posters[POSTERS] = {0};
    struct commits commits = {0};
    int n_lost = 0;
    assert_int_equal(sqlite3_exec(place->store->writer.db,
                                  "CREATE TEMP TRIGGER lose BEFORE INSERT ON main.experiment WHEN "
                                  "new.spec = 'lose' BEGIN SELECT RAISE(ROLLBACK, 'lost'); END",
                                  NULL, NULL, NULL),
                     SQLITE_OK);
    posters[3].what.spec = "lose";
    assert_int_equal(post_together(place->store, posters, &commits), OVR_IO);
    assert_failed(posters[3].rc, OVR_IO, &posters[3].err, "lost");
    for (int i = 0; i < POSTERS; i++)
        n_lost += posters[i].rc != 0;
    assert_int_equal(count_queued(place->store), POSTERS - n_lost);
    for (int i = 0; i < POSTERS; i++)
        if (!posters[i].rc)
            assert_int_equal(state_of(place->store, posters[i].id), STATE_QUEUED);
}

/* Who listens hears of all that are stored, once they are. */
static void heard(void *context, const int64_t *seqs, size_t n) {
    (void)seqs;
    *(size_t *)context += n;
}

static void listeners_hear_of_what_is_stored(void **state) {
    struct place *place = *state;
    struct poster posters[POSTERS] = {0};
    struct commits commits = {0};
    char taken[ID_SIZE];
    size_t n = 0;
    enqueue(place->store, &(struct new_experiment){0}, taken);
    posters[0].what.id = taken; /* that one is not stored */
    store_listen(place->store, heard, &n);
    assert_int_equal(post_together(place->store, posters, &commits), 0);
    assert_int_equal(n, POSTERS - 1);
    store_listen(place->store, NULL, NULL);
}

enum { CROWD = 12, EACH = 40 };

struct crowd {
    struct store *store;
    _Atomic int wrong;
};

/* Each sees what it posted as soon as it is answered; every third one cancels it again. */
static void *post_many(void *arg) {
    struct crowd *crowd = arg;
    for (int i = 0; i < EACH; i++) {
        struct new_experiment new = {.name = "many", .tags = "", .spec = "{}"};
        char id[ID_SIZE];
        int repeated, running;
        struct experiment e = {0};
        if (store_add_experiment(crowd->store, &new, id, &repeated, NULL) ||
            store_get_experiment(crowd->store, id, &e, NULL) ||
            (i % 3 == 0 && store_cancel(crowd->store, id, &running, NULL)))
            crowd->wrong++;
        experiment_release(&e);
    }
    return NULL;
}

static void a_crowd(void **state) {
    struct place *place = *state;
    struct crowd crowd = {.store = place->store};
    struct commits commits = {0};
    pthread_t threads[CROWD];
    sqlite3_commit_hook(place->store->writer.db, on_commit, &commits);
    for (int i = 0; i < CROWD; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, post_many, &crowd), 0);
    for (int i = 0; i < CROWD; i++)
        pthread_join(threads[i], NULL);
    sqlite3_commit_hook(place->store->writer.db, NULL, NULL);
    assert_int_equal(crowd.wrong, 0);
    assert_int_equal(count_queued(place->store), CROWD * (EACH - (EACH + 2) / 3));
    assert_true(commits.n < CROWD * (EACH + (EACH + 2) / 3));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        with_store(one_commit_for_all),
        with_store(a_failure_is_its_own),
        with_store(keys_hold_within_a_commit),
        with_store(all_learn_of_a_failed_commit),
        with_store(all_learn_of_a_lost_transaction),
        with_store(listeners_hear_of_what_is_stored),
        with_store(a_crowd),
    };
    return cmocka_run_group_tests_name("server/commits", tests, NULL, NULL);
}
