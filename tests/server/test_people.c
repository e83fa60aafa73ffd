/* People in the store: who may see and change what, quotas, tokens at the gate, the audit. */
#include "server/gate.h"
#include "server/limiter.h"
#include "server/people.h"
#include "server/user_command.h"
#include "tests/server/check.h"

static const struct quotas standard = {-1, -1, -1};

static struct store *store_of(void **state) {
    return ((struct place *)*state)->store;
}

static int back_to_nobody(void **state) {
    ask_as(NULL);
    return remove_place(state);
}

static int add(struct store *store, const char *name, enum level role, char text[TOKEN_SIZE],
               struct ovr_err *err) {
    char id[ID_SIZE];
    assert_int_equal(token_make(text, err), 0);
    const struct new_token token = {.label = "first", .text = text, .scope = role};
    return store_add_user(store, name, role, &standard, &token, id, err);
}

/* Three users, and for each who she is. */
struct team {
    struct asker admin, anna, bob, eve; /* eve is a viewer */
};

static struct asker one(struct store *store, const char *name, enum level role) {
    char text[TOKEN_SIZE], sha256[DIGEST_SIZE];
    struct ovr_err err = {0};
    struct asker asker = {.address = "192.0.2.1"};
    assert_ok(add(store, name, role, text, &err), &err);
    digest_of(text, strlen(text), sha256);
    assert_ok(store_find_token(store, sha256, &asker, &err), &err);
    return asker;
}

static struct team make_team(struct store *store) {
    return (struct team){one(store, "root", LEVEL_ADMIN), one(store, "anna", LEVEL_WRITE),
                         one(store, "bob", LEVEL_WRITE), one(store, "eve", LEVEL_READ)};
}

static int post(struct store *store, const struct asker *who, int private, char id[ID_SIZE],
                struct ovr_err *err) {
    int repeated;
    ask_as(who);
    const struct new_experiment new = {.name = "x",
                                       .tags = "",
                                       .spec = "{}",
                                       .memory_bytes = 1,
                                       .owner = who->user,
                                       .private = private};
    return store_add_experiment(store, &new, id, &repeated, err);
}

static int sees_it(struct store *store, const struct asker *who, const char *id) {
    struct experiment e = {0};
    ask_as(who);
    int rc = store_get_experiment(store, id, &e, NULL);
    experiment_release(&e);
    assert_true(rc == 0 || rc == OVR_NOT_FOUND);
    return rc == 0;
}

static size_t count_list(struct store *store, const struct asker *who, const char *owner) {
    struct experiment *list;
    struct ovr_err err = {0};
    size_t n;
    const struct experiment_filter filter = {.owner = owner, .limit = 100};
    ask_as(who);
    assert_ok(store_list_experiments(store, &filter, &list, &n, &err), &err);
    experiment_list_free(list, n);
    return n;
}

/* ---- Users ---- */

static void the_first_user_is_an_admin(void **state) {
    struct store *store = store_of(state);
    char text[TOKEN_SIZE];
    struct ovr_err err = {0};
    assert_int_equal(add(store, "anna", LEVEL_WRITE, text, &err), OVR_CONFLICT);
    assert_non_null(strstr(err.text, "first user must be an admin"));
    err = (struct ovr_err){0};
    assert_ok(add(store, "anna", LEVEL_ADMIN, text, &err), &err);
    assert_ok(add(store, "bob", LEVEL_READ, text, &err), &err);
    assert_int_equal(add(store, "bob", LEVEL_READ, text, &err), OVR_CONFLICT);
}

static void an_admin_stays(void **state) {
    struct store *store = store_of(state);
    char text[TOKEN_SIZE];
    struct ovr_err err = {0};
    const enum level lower = LEVEL_WRITE;
    const int yes = 1;
    const struct user_edit demote = {.role = &lower}, disable = {.disabled = &yes};
    assert_ok(add(store, "anna", LEVEL_ADMIN, text, &err), &err);
    assert_int_equal(store_edit_user(store, "anna", -1, &demote, NULL), OVR_CONFLICT);
    assert_int_equal(store_edit_user(store, "anna", -1, &disable, &err), OVR_CONFLICT);
    assert_non_null(strstr(err.text, "last admin"));
    err = (struct ovr_err){0};
    assert_ok(add(store, "bob", LEVEL_ADMIN, text, &err), &err);
    assert_ok(store_edit_user(store, "anna", -1, &demote, &err), &err);
    assert_int_equal(store_edit_user(store, "bob", -1, &disable, NULL), OVR_CONFLICT);
}

static void edits_are_of_a_revision(void **state) {
    struct store *store = store_of(state);
    struct ovr_err err = {0};
    struct user u;
    const int64_t two = 2, any = -1;
    char text[TOKEN_SIZE];
    assert_ok(add(store, "anna", LEVEL_ADMIN, text, &err), &err);
    assert_ok(store_edit_user(store, "anna", 1, &(struct user_edit){.queued = &two}, &err), &err);
    assert_ok(store_get_user(store, "anna", &u, &err), &err);
    assert_int_equal(u.revision, 2);
    assert_int_equal(u.quotas.queued, 2);
    assert_int_equal(u.quotas.running, -1);
    assert_int_equal(store_edit_user(store, "anna", 1, &(struct user_edit){.queued = &any}, &err),
                     OVR_CONFLICT);
    assert_string_equal(err.field, STALE_FIELD);
    err = (struct ovr_err){0};
    assert_ok(store_edit_user(store, "anna", 2, &(struct user_edit){.queued = &any}, NULL), &err);
    assert_int_equal(store_get_user(store, "nobody", &u, NULL), OVR_NOT_FOUND);
}

static void names(void **state) {
    (void)state;
    static const char *const good[] = {"a", "anna", "a.b-c_d", "0", "mei"};
    static const char *const bad[] = {"", "me", "Anna", ".a", "-a", "a b", "a/b", "ä", "a\n"};
    char long_one[USER_NAME_SIZE + 1];
    for (size_t i = 0; i < COUNT(good); i++)
        assert_true(user_name_is_valid(good[i]));
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_false(user_name_is_valid(bad[i]));
    memset(long_one, 'a', sizeof long_one - 1);
    long_one[USER_NAME_SIZE] = '\0';
    assert_false(user_name_is_valid(long_one));
    long_one[USER_NAME_SIZE - 1] = '\0';
    assert_true(user_name_is_valid(long_one));
}

/* ---- What people see and may do ---- */

static void private_things_are_not_there_for_others(void **state) {
    struct store *store = store_of(state);
    struct team team = make_team(store);
    char open[ID_SIZE], hidden[ID_SIZE];
    struct ovr_err err = {0};
    assert_ok(post(store, &team.anna, 0, open, &err), &err);
    assert_ok(post(store, &team.anna, 1, hidden, &err), &err);
    assert_true(sees_it(store, &team.eve, open) && sees_it(store, &team.bob, open));
    assert_true(sees_it(store, &team.anna, hidden) && sees_it(store, &team.admin, hidden));
    assert_false(sees_it(store, &team.bob, hidden) || sees_it(store, &team.eve, hidden));
    assert_int_equal(count_list(store, &team.anna, NULL), 2);
    assert_int_equal(count_list(store, &team.admin, "anna"), 2);
    assert_int_equal(count_list(store, &team.bob, NULL), 1);
    assert_int_equal(count_list(store, &team.bob, "anna"), 1);
    assert_int_equal(count_list(store, &team.anna, "bob"), 0);
    assert_int_equal(count_list(store, &team.anna, "nobody"), 0);
    /* The admin's token for less sees no more than a member. */
    struct asker lesser = team.admin;
    lesser.level = LEVEL_WRITE;
    assert_false(sees_it(store, &lesser, hidden));
    /* The daemon itself, and everybody while there are no users. */
    ask_as(NULL);
    struct experiment e;
    assert_ok(store_get_experiment(store, hidden, &e, &err), &err);
    assert_string_equal(e.owner, "anna");
    experiment_release(&e);
}

static int cancel_as(struct store *store, const struct asker *who, const char *id,
                     struct ovr_err *err) {
    int was_running;
    ask_as(who);
    return store_cancel(store, id, &was_running, err);
}

static void only_what_is_hers_can_be_changed(void **state) {
    struct store *store = store_of(state);
    struct team team = make_team(store);
    char open[ID_SIZE], hidden[ID_SIZE], before[ID_SIZE];
    struct ovr_err err = {0};
    const struct asker nobody = {.level = LEVEL_ADMIN};
    int was_running;
    assert_ok(post(store, &team.anna, 0, open, &err), &err);
    assert_ok(post(store, &team.anna, 1, hidden, &err), &err);
    assert_ok(post(store, &nobody, 0, before, &err), &err);
    assert_int_equal(cancel_as(store, &team.bob, open, &err), OVR_FORBIDDEN);
    assert_string_equal(err.text + strlen("experiment ") + strlen(open),
                        " belongs to anna; only anna or an admin may change it");
    assert_int_equal(cancel_as(store, &team.bob, hidden, NULL), OVR_NOT_FOUND);
    err = (struct ovr_err){0};
    assert_int_equal(cancel_as(store, &team.anna, before, &err), OVR_FORBIDDEN);
    assert_non_null(strstr(err.text, "there were no users"));
    err = (struct ovr_err){0};
    ask_as(&team.bob);
    assert_int_equal(store_pause(store, open, &was_running, NULL), OVR_FORBIDDEN);
    assert_int_equal(store_resume(store, open, NULL), OVR_FORBIDDEN);
    assert_int_equal(store_delete_experiment(store, open, NULL), OVR_FORBIDDEN);
    assert_int_equal(store_edit_experiment(store, open, -1, &(struct edit){.name = "y"}, NULL),
                     OVR_FORBIDDEN);
    assert_ok(cancel_as(store, &team.anna, open, &err), &err);
    assert_ok(cancel_as(store, &team.admin, hidden, &err), &err);
    assert_ok(cancel_as(store, &team.admin, before, &err), &err);
}

static void sweeps_are_hers_with_all_their_points(void **state) {
    struct store *store = store_of(state);
    struct team team = make_team(store);
    char id[ID_SIZE], (*running)[ID_SIZE];
    const char *const values[] = {"{}"};
    const struct new_experiment points[] = {{.name = "p", .tags = "", .spec = "{}", .private = 1}};
    const struct new_sweep new = {.name = "s",
                                  .tags = "",
                                  .notes = "",
                                  .request = "{}",
                                  .axes = "[]",
                                  .more = 1,
                                  .points = {values, points, 1, 1, 0},
                                  .owner = team.anna.user,
                                  .private = 1};
    struct sweep sweep, *list;
    struct ovr_err err = {0};
    int repeated;
    size_t n;
    ask_as(&team.anna);
    assert_ok(store_add_sweep(store, &new, id, &repeated, &err), &err);
    assert_ok(store_read_sweep(store, id, &sweep, &(struct sweep_reader){0}, &err), &err);
    assert_string_equal(sweep.owner, "anna");
    int64_t seq = sweep.seq;
    sweep_release(&sweep);
    /* A search goes on without anybody asking: its points are anna's all the same. */
    ask_as(NULL);
    assert_ok(store_extend_sweep(store, seq, 1, &new.points, &err), &err);
    assert_int_equal(count_list(store, &team.anna, "anna"), 2);
    assert_int_equal(count_list(store, &team.bob, NULL), 0);
    assert_int_equal(store_read_sweep(store, id, &sweep, &(struct sweep_reader){0}, NULL),
                     OVR_NOT_FOUND);
    assert_int_equal(store_cancel_sweep(store, id, &running, &n, NULL), OVR_NOT_FOUND);
    assert_ok(store_list_sweeps(store, NULL, 0, 10, &list, &n, &err), &err);
    sweep_list_free(list, n);
    assert_int_equal(n, 0);
    ask_as(&team.admin);
    assert_ok(store_list_sweeps(store, "anna", 0, 10, &list, &n, &err), &err);
    sweep_list_free(list, n);
    assert_int_equal(n, 1);
    assert_ok(store_cancel_sweep(store, id, &running, &n, &err), &err);
    free(running);
}

static void keys_belong_to_who_sent_them(void **state) {
    struct store *store = store_of(state);
    struct team team = make_team(store);
    struct new_experiment new = {
        .name = "x", .tags = "", .spec = "{}", .idempotency_key = "k", .body_sha256 = "one"};
    char first[ID_SIZE], second[ID_SIZE];
    struct ovr_err err = {0};
    int repeated;
    ask_as(&team.anna);
    assert_ok(store_add_experiment(store, &new, first, &repeated, &err), &err);
    ask_as(&team.bob);
    new.body_sha256 = "another";
    assert_ok(store_add_experiment(store, &new, second, &repeated, &err), &err);
    assert_false(repeated);
    assert_string_not_equal(first, second);
    ask_as(&team.anna);
    new.body_sha256 = "one";
    assert_ok(store_add_experiment(store, &new, second, &repeated, &err), &err);
    assert_true(repeated);
    assert_string_equal(first, second);
}

/* ---- Data sets and quotas ---- */

static int put(struct store *store, const struct asker *who, const char *name, const char *sha256,
               int64_t bytes, struct ovr_err *err) {
    struct dataset_split split = {.split = "train", .format = "npy", .bytes = bytes, .samples = 1};
    int fresh;
    snprintf(split.dataset, sizeof split.dataset, "%s", name);
    snprintf(split.sha256, sizeof split.sha256, "%s", sha256);
    ask_as(who);
    return store_put_split(store, &split, &fresh, err);
}

static int64_t storage_of(struct store *store, const char *name) {
    struct user u;
    struct ovr_err err = {0};
    assert_ok(store_get_user(store, name, &u, &err), &err);
    return u.usage.storage_bytes;
}

static void data_sets_have_an_owner(void **state) {
    struct store *store = store_of(state);
    struct team team = make_team(store);
    struct ovr_err err = {0};
    assert_ok(put(store, &team.anna, "d", "1", 100, &err), &err);
    assert_int_equal(put(store, &team.bob, "d", "2", 100, &err), OVR_FORBIDDEN);
    assert_non_null(strstr(err.text, "belongs to anna"));
    err = (struct ovr_err){0};
    assert_int_equal(store_may_change_dataset(store, "d", 1, NULL), OVR_FORBIDDEN);
    assert_ok(store_may_change_dataset(store, "e", 1, &err), &err);
    assert_int_equal(store_remove_dataset(store, "d", NULL), OVR_FORBIDDEN);
    assert_int_equal(storage_of(store, "anna"), 100);
    assert_ok(put(store, &team.anna, "d", "2", 50, &err), &err);
    assert_int_equal(storage_of(store, "anna"), 150);
    /* An admin may, and it is hers then. */
    assert_ok(put(store, &team.admin, "d", "3", 7, &err), &err);
    assert_int_equal(storage_of(store, "root"), 7);
    assert_int_equal(put(store, &team.anna, "d", "1", 100, NULL), OVR_FORBIDDEN);
    assert_ok(store_may_change_dataset(store, "e", 1, &err), &err);
    ask_as(&team.admin);
    assert_ok(store_remove_dataset(store, "d", &err), &err);
    assert_int_equal(storage_of(store, "anna"), 0);
    assert_int_equal(storage_of(store, "root"), 0);
    assert_ok(put(store, &team.bob, "d", "1", 10, &err), &err);
}

static void so_many_may_wait(void **state) {
    struct store *store = store_of(state);
    struct team team = make_team(store);
    struct ovr_err err = {0};
    char ids[3][ID_SIZE];
    const int64_t three = 3;
    store_set_quotas(store, &(struct quotas){.queued = 2});
    assert_ok(post(store, &team.anna, 0, ids[0], &err), &err);
    assert_ok(post(store, &team.anna, 0, ids[1], &err), &err);
    assert_int_equal(post(store, &team.anna, 0, ids[2], &err), OVR_QUOTA);
    assert_non_null(strstr(err.text, "anna has 2 of at most 2 experiments waiting"));
    err = (struct ovr_err){0};
    assert_ok(post(store, &team.bob, 0, ids[2], &err), &err);
    ask_as(&team.admin);
    assert_ok(store_edit_user(store, "anna", -1, &(struct user_edit){.queued = &three}, &err),
              &err);
    assert_ok(post(store, &team.anna, 0, ids[2], &err), &err);
    assert_int_equal(post(store, &team.anna, 0, ids[2], NULL), OVR_QUOTA);
    assert_ok(cancel_as(store, &team.anna, ids[0], &err), &err);
    assert_ok(post(store, &team.anna, 0, ids[2], &err), &err);
}

static int put_part(struct store *store, const struct asker *who, const char *name, int64_t bytes,
                    struct ovr_err *err) {
    struct dataset_part part = {
        .split = "train", .part = "features", .format = "npy", .bytes = bytes, .samples = 1};
    snprintf(part.dataset, sizeof part.dataset, "%s", name);
    snprintf(part.sha256, sizeof part.sha256, "%s", name);
    ask_as(who);
    return store_put_part(store, &part, err);
}

/* Or one could keep any amount of data there, under names without labels. */
static void halves_that_wait_are_counted(void **state) {
    struct store *store = store_of(state);
    struct team team = make_team(store);
    struct ovr_err err = {0};
    store_set_quotas(store, &(struct quotas){.storage_bytes = 1000});
    assert_ok(put_part(store, &team.anna, "d", 700, &err), &err);
    assert_int_equal(put_part(store, &team.anna, "e", 400, NULL), OVR_QUOTA);
    assert_int_equal(put_part(store, &team.bob, "d", 1, NULL), OVR_FORBIDDEN);
    assert_ok(put_part(store, &team.anna, "d", 300, &err), &err);
    assert_int_equal(storage_of(store, "anna"), 300);
    /* Joined it takes the place of its half; another's attempt leaves all as it is. */
    assert_int_equal(put(store, &team.bob, "d", "1", 1, NULL), OVR_FORBIDDEN);
    assert_int_equal(storage_of(store, "anna"), 300);
    assert_ok(put(store, &team.anna, "d", "1", 900, &err), &err);
    assert_int_equal(storage_of(store, "anna"), 900);
    ask_as(&team.anna);
    assert_ok(store_remove_dataset(store, "d", &err), &err);
    assert_int_equal(storage_of(store, "anna"), 0);
}

static void storage_is_counted(void **state) {
    struct store *store = store_of(state);
    struct team team = make_team(store);
    struct ovr_err err = {0};
    struct experiment e;
    char id[ID_SIZE];
    int waiting;
    store_set_quotas(store, &(struct quotas){.storage_bytes = 1000});
    assert_int_equal(put(store, &team.anna, "d", "1", 1001, NULL), OVR_QUOTA);
    assert_ok(put(store, &team.anna, "d", "1", 599, &err), &err);
    assert_ok(post(store, &team.anna, 0, id, &err), &err);
    ask_as(NULL);
    assert_ok(store_claim(store, INT64_MAX, &e, &waiting, &err), &err);
    const struct tensor tensors[] = {{"best", "encoder.weight", "float32", 2, 10, 10},
                                     {"best", "encoder.bias", "float32", 1, 1, 1}};
    const struct outcome outcome = {
        .state = STATE_SUCCEEDED, .tensors = tensors, .n_tensors = COUNT(tensors)};
    assert_ok(store_finish(store, e.seq, &outcome, &err), &err);
    experiment_release(&e);
    assert_int_equal(storage_of(store, "anna"), 599 + 404);
    assert_int_equal(post(store, &team.anna, 0, id, &err), OVR_QUOTA);
    assert_non_null(strstr(err.text, "uploads and results"));
    err = (struct ovr_err){0};
    struct experiment *list;
    size_t n;
    assert_ok(
        store_list_experiments(store, &(struct experiment_filter){.limit = 9}, &list, &n, &err),
        &err);
    assert_ok(store_delete_experiment(store, list[0].id, &err), &err);
    experiment_list_free(list, n);
    assert_int_equal(storage_of(store, "anna"), 599);
    assert_ok(post(store, &team.anna, 0, id, &err), &err);
}

/* ---- Tokens at the gate ---- */

static enum verdict enter(struct gate *gate, const char *token, struct asker *asker) {
    struct ovr_err err = {0};
    int wait_s = 0;
    *asker = (struct asker){.address = "192.0.2.7"};
    enum verdict verdict = gate_enter(gate, token, asker, &wait_s, &err);
    assert_ok(err.code, &err);
    assert_int_equal(verdict == GATE_TOO_OFTEN, wait_s > 0);
    return verdict;
}

static struct gate *new_gate(struct store *store, double rate, double failures) {
    struct gate *gate;
    struct ovr_err err = {0};
    assert_ok(gate_new(&gate, &(struct gate_config){store, rate, failures}, &err), &err);
    return gate;
}

static void the_gate_is_open_without_users(void **state) {
    struct store *store = store_of(state);
    struct gate *gate = new_gate(store, 1, 1);
    struct asker asker;
    char text[TOKEN_SIZE];
    struct ovr_err err = {0};
    for (int i = 0; i < 100; i++) {
        assert_int_equal(enter(gate, i % 2 ? "x" : NULL, &asker), GATE_OPEN);
        assert_int_equal(asker.level, LEVEL_ADMIN);
    }
    assert_ok(add(store, "anna", LEVEL_ADMIN, text, &err), &err);
    assert_int_equal(enter(gate, NULL, &asker), GATE_NO_TOKEN);
    assert_int_equal(asker.level, LEVEL_NONE);
    assert_int_equal(enter(gate, text, &asker), GATE_KNOWN);
    assert_string_equal(asker.name, "anna");
    assert_string_equal(asker.address, "192.0.2.7");
    gate_free(gate);
}

static void a_token_ends(void **state) {
    struct store *store = store_of(state);
    struct gate *gate = new_gate(store, 0, 0);
    struct asker asker;
    char root[TOKEN_SIZE], first[TOKEN_SIZE], text[TOKEN_SIZE], id[ID_SIZE];
    struct ovr_err err = {0};
    const int yes = 1, no = 0;
    assert_ok(add(store, "root", LEVEL_ADMIN, root, &err), &err);
    assert_ok(add(store, "anna", LEVEL_WRITE, first, &err), &err);
    assert_ok(token_make(text, &err), &err);
    struct new_token new = {.label = "t", .text = text, .scope = LEVEL_READ};
    assert_ok(store_add_token(store, "anna", &new, id, &err), &err);
    assert_int_equal(enter(gate, text, &asker), GATE_KNOWN);
    assert_int_equal(asker.level, LEVEL_READ);
    assert_string_equal(asker.token, id);
    text[10] = text[10] == '0' ? '1' : '0';
    assert_int_equal(enter(gate, text, &asker), GATE_WRONG);
    assert_int_equal(enter(gate, "", &asker), GATE_WRONG);
    text[10] = '\0';
    assert_int_equal(enter(gate, text, &asker), GATE_WRONG);
    /* What was remembered is no more. */
    assert_ok(store_revoke_token(store, "anna", id, &err), &err);
    assert_ok(store_revoke_token(store, "anna", id, &err), &err);
    assert_int_equal(enter(gate, new.text, &asker), GATE_WRONG);
    assert_int_equal(enter(gate, first, &asker), GATE_KNOWN);
    assert_ok(store_edit_user(store, "anna", -1, &(struct user_edit){.disabled = &yes}, &err),
              &err);
    assert_int_equal(enter(gate, first, &asker), GATE_WRONG);
    assert_ok(store_edit_user(store, "anna", -1, &(struct user_edit){.disabled = &no}, &err), &err);
    assert_int_equal(enter(gate, first, &asker), GATE_KNOWN);
    assert_ok(store_edit_user(store, "anna", -1, &(struct user_edit){.disabled = &yes, .revoke = 1},
                              &err),
              &err);
    assert_ok(store_edit_user(store, "anna", -1, &(struct user_edit){.disabled = &no}, &err), &err);
    assert_int_equal(enter(gate, first, &asker), GATE_WRONG);
    gate_free(gate);
}

static void a_token_expires(void **state) {
    struct store *store = store_of(state);
    struct gate *gate = new_gate(store, 0, 0);
    struct asker asker;
    char root[TOKEN_SIZE], text[TOKEN_SIZE], id[ID_SIZE];
    struct ovr_err err = {0};
    assert_ok(add(store, "root", LEVEL_ADMIN, root, &err), &err);
    assert_ok(token_make(text, &err), &err);
    const struct new_token new = {"t", text, LEVEL_ADMIN, now_ms() + 300};
    assert_ok(store_add_token(store, "root", &new, id, &err), &err);
    assert_int_equal(enter(gate, text, &asker), GATE_KNOWN);
    nanosleep(&(struct timespec){.tv_nsec = 350 * 1000000}, NULL);
    assert_int_equal(enter(gate, text, &asker), GATE_WRONG);
    assert_int_equal(enter(gate, root, &asker), GATE_KNOWN);
    gate_free(gate);
}

static void the_role_bounds_the_scope(void **state) {
    struct store *store = store_of(state);
    struct team team = make_team(store);
    char id[ID_SIZE];
    struct ovr_err err = {0};
    const enum level viewer = LEVEL_READ;
    struct asker found = {0};
    char sha256[DIGEST_SIZE];
    assert_int_equal(team.anna.level, LEVEL_WRITE);
    const struct new_token more = {"t", "a", LEVEL_ADMIN, 0}, fine = {"t", "b", LEVEL_WRITE, 0};
    assert_int_equal(store_add_token(store, "anna", &more, id, &err), OVR_INVALID);
    assert_string_equal(err.field, "/scope");
    err = (struct ovr_err){0};
    assert_ok(store_add_token(store, "anna", &fine, id, &err), &err);
    assert_ok(store_edit_user(store, "anna", -1, &(struct user_edit){.role = &viewer}, &err), &err);
    digest_of("b", 1, sha256);
    assert_ok(store_find_token(store, sha256, &found, &err), &err);
    assert_int_equal(found.level, LEVEL_READ);
}

static void wrong_tokens_are_counted(void **state) {
    struct store *store = store_of(state);
    struct gate *gate = new_gate(store, 0, 5);
    struct asker asker, elsewhere = {.address = "192.0.2.8"};
    char root[TOKEN_SIZE], later[TOKEN_SIZE], id[ID_SIZE];
    struct ovr_err err = {0};
    int wait_s;
    assert_ok(add(store, "root", LEVEL_ADMIN, root, &err), &err);
    assert_int_equal(enter(gate, root, &asker), GATE_KNOWN);
    for (int i = 0; i < 5; i++)
        assert_int_equal(enter(gate, "ovrd_wrong", &asker), GATE_WRONG);
    assert_int_equal(enter(gate, "ovrd_wrong", &asker), GATE_TOO_OFTEN);
    /* Who was in goes on; who has not been known waits, elsewhere she doesn't. */
    assert_int_equal(enter(gate, root, &asker), GATE_KNOWN);
    assert_ok(token_make(later, &err), &err);
    assert_ok(
        store_add_token(store, "root", &(struct new_token){"t", later, LEVEL_ADMIN, 0}, id, &err),
        &err);
    assert_int_equal(enter(gate, later, &asker), GATE_TOO_OFTEN);
    assert_int_equal(enter(gate, root, &asker), GATE_KNOWN);
    assert_int_equal(gate_enter(gate, later, &elsewhere, &wait_s, &err), GATE_KNOWN);
    /* One that was good once is a guess from its first refusal on. */
    assert_ok(store_revoke_token(store, "root", id, &err), &err);
    assert_int_equal(enter(gate, later, &asker), GATE_WRONG);
    assert_int_equal(enter(gate, later, &asker), GATE_TOO_OFTEN);
    gate_free(gate);
}

static void a_user_and_an_address_of_one_name_are_two(void **state) {
    struct store *store = store_of(state);
    struct gate *gate = new_gate(store, 0.2, 0); /* two requests at once */
    struct asker asker;
    char text[TOKEN_SIZE];
    struct ovr_err err = {0};
    assert_ok(add(store, "192.0.2.7", LEVEL_ADMIN, text, &err), &err);
    assert_int_equal(enter(gate, NULL, &asker), GATE_NO_TOKEN);
    assert_int_equal(enter(gate, NULL, &asker), GATE_NO_TOKEN);
    assert_int_equal(enter(gate, NULL, &asker), GATE_TOO_OFTEN);
    assert_int_equal(enter(gate, text, &asker), GATE_KNOWN);
    assert_int_equal(enter(gate, text, &asker), GATE_KNOWN);
    assert_int_equal(enter(gate, text, &asker), GATE_TOO_OFTEN);
    gate_free(gate);
}

static void uses_are_noted(void **state) {
    struct store *store = store_of(state);
    struct gate *gate = new_gate(store, 0, 0);
    struct asker asker;
    char root[TOKEN_SIZE];
    struct token list[STORE_MOST_TOKENS];
    struct ovr_err err = {0};
    size_t n;
    assert_ok(add(store, "root", LEVEL_ADMIN, root, &err), &err);
    enter(gate, root, &asker);
    assert_ok(store_list_tokens(store, "root", NULL, list, &n, &err), &err);
    assert_int_equal(list[0].used_at, 0);
    gate_tick(gate);
    assert_ok(store_list_tokens(store, "root", NULL, list, &n, &err), &err);
    assert_int_equal(n, 1);
    int64_t noted = list[0].used_at;
    assert_in_range(noted, now_ms() - 5000, now_ms());
    nanosleep(&(struct timespec){.tv_nsec = 5 * 1000000}, NULL);
    enter(gate, root, &asker);
    gate_tick(gate); /* not again within a minute */
    assert_ok(store_list_tokens(store, "root", NULL, list, &n, &err), &err);
    assert_int_equal(list[0].used_at, noted);
    gate_free(gate);
}

static void the_database_has_no_tokens(void **state) {
    struct place *place = *state;
    char root[TOKEN_SIZE];
    struct ovr_err err = {0};
    assert_ok(add(place->store, "root", LEVEL_ADMIN, root, &err), &err);
    assert_int_equal(strlen(root), TOKEN_SIZE - 1);
    store_close(place->store);
    place->store = NULL;
    FILE *file = fopen(place->database, "rb");
    char *bytes = malloc(1 << 20);
    assert_true(file && bytes);
    size_t n = fread(bytes, 1, 1 << 20, file);
    assert_null(memmem(bytes, n, root + 5, 16));
    assert_non_null(memmem(bytes, n, "root", 4));
    free(bytes);
    fclose(file);
}

/* ---- Limits ---- */

static void a_bucket_fills_again(void **state) {
    (void)state;
    static struct limiter l;
    const int64_t second = 1000000000;
    limiter_init(&l, 10, 20);
    for (int i = 0; i < 20; i++)
        assert_int_equal(limiter_take(&l, "a", second), 0);
    assert_int_equal(limiter_take(&l, "a", second), second / 10);
    assert_int_equal(limiter_look(&l, "a", second), second / 10);
    assert_int_equal(limiter_take(&l, "b", second), 0);
    assert_int_equal(limiter_take(&l, "a", second + second / 10), 0);
    assert_int_not_equal(limiter_take(&l, "a", second + second / 10), 0);
    for (int i = 0; i < 20; i++)
        assert_int_equal(limiter_take(&l, "a", 10 * second), 0);
    assert_int_not_equal(limiter_take(&l, "a", 10 * second), 0);
    /* Any number of others neither fills the table nor makes room for who asks all the time. */
    for (int i = 0; i < 100000; i++) {
        char key[16];
        snprintf(key, sizeof key, "%d", i);
        assert_int_equal(limiter_take(&l, key, 10 * second), 0);
    }
    limiter_release(&l);
    limiter_init(&l, 0, 0);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(limiter_take(&l, "a", 0), 0);
    limiter_release(&l);
}

/* ---- The audit ---- */

static const char *audit_of(struct store *store, const struct audit_filter *filter) {
    static char text[2048];
    struct audit_entry *list;
    struct ovr_err err = {0};
    size_t n, used = 0;
    assert_ok(store_list_audit(store, filter, &list, &n, &err), &err);
    text[0] = '\0';
    for (size_t i = n; i-- > 0;)
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%s:%s", used ? " " : "",
                                 list[i].user, list[i].action);
    audit_free(list, n);
    return text;
}

static void changes_are_written_down(void **state) {
    struct store *store = store_of(state);
    struct team team = make_team(store);
    char id[ID_SIZE];
    struct ovr_err err = {0};
    int was_running;
    assert_ok(post(store, &team.anna, 0, id, &err), &err);
    assert_ok(store_edit_experiment(store, id, -1, &(struct edit){.name = "y"}, &err), &err);
    assert_ok(store_pause(store, id, &was_running, &err), &err);
    assert_ok(store_resume(store, id, &err), &err);
    cancel_as(store, &team.bob, id, NULL); /* in vain */
    assert_ok(cancel_as(store, &team.anna, id, &err), &err);
    ask_as(&team.admin);
    assert_ok(store_delete_experiment(store, id, &err), &err);
    struct audit_filter filter = {.object = id, .limit = 100};
    assert_string_equal(audit_of(store, &filter),
                        "anna:experiment.submit anna:experiment.edit anna:experiment.pause "
                        "anna:experiment.resume anna:experiment.cancel root:experiment.delete");
    filter.user = "root";
    assert_string_equal(audit_of(store, &filter), "root:experiment.delete");
    filter.since = now_ms() + 1000;
    assert_string_equal(audit_of(store, &filter), "");
    filter = (struct audit_filter){.limit = 2};
    assert_string_equal(audit_of(store, &filter), "anna:experiment.cancel root:experiment.delete");
    /* What nobody asked for is not written down, the daemon's own work. */
    ask_as(NULL);
    assert_ok(store_audit(store, "x.y", "z", NULL, &err), &err);
    assert_string_equal(audit_of(store, &filter), "anna:experiment.cancel root:experiment.delete");
}

/* ---- ovrd user, --admin-token-file ---- */

static int read_words(const char *words, struct user_command *command, struct ovr_err *err) {
    static char copy[200];
    char *argv[12];
    int argc = 0;
    snprintf(copy, sizeof copy, "%s", words);
    for (char *word = strtok(copy, " "); word && argc < 12; word = strtok(NULL, " "))
        argv[argc++] = word;
    int rc = user_command_read(command, &argc, argv, err);
    assert_true(rc || argc == 1 || strcmp(argv[1], "--data-dir") == 0);
    return rc;
}

static void words_of_the_command(void **state) {
    (void)state;
    struct user_command c;
    static const char *const bad[] = {"ovrd user",
                                      "ovrd user add",
                                      "ovrd user add anna",
                                      "ovrd user add Anna --role admin",
                                      "ovrd user add anna --role boss",
                                      "ovrd user list anna",
                                      "ovrd user token",
                                      "ovrd user remove anna",
                                      "ovrd user list --role admin"};
    struct ovr_err err = {0};
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_int_equal(read_words(bad[i], &c, NULL), OVR_INVALID);
    assert_ok(read_words("ovrd user add anna --role admin --data-dir x", &c, &err), &err);
    assert_int_equal(c.role, LEVEL_ADMIN);
    assert_ok(read_words("ovrd user add --role=member anna", &c, &err), &err);
    assert_string_equal(c.name, "anna");
    assert_ok(read_words("ovrd --data-dir x", &c, &err), &err);
    assert_null(c.verb);
}

static void the_first_token_is_told_once(void **state) {
    struct store *store = store_of(state);
    struct gate *gate = new_gate(store, 0, 0);
    const struct user_command add_anna = {"add", "anna", LEVEL_ADMIN}, list = {"list", NULL, 0};
    char *text = NULL;
    size_t size;
    struct ovr_err err = {0};
    struct asker asker;
    FILE *out = open_memstream(&text, &size);
    assert_ok(user_command_run(&add_anna, store, out, &err), &err);
    text[strcspn(text, "\n")] = '\0';
    assert_int_equal(enter(gate, text, &asker), GATE_KNOWN);
    assert_string_equal(asker.name, "anna");
    rewind(out);
    assert_ok(user_command_run(&list, store, out, &err), &err);
    assert_non_null(strstr(text, "anna"));
    assert_non_null(strstr(text, "admin"));
    fclose(out);
    free(text);
    gate_free(gate);
}

static void the_admins_token_is_in_a_file(void **state) {
    struct place *place = *state;
    struct gate *gate = new_gate(place->store, 0, 0);
    char path[100], text[200] = "";
    struct stat about;
    struct ovr_err err = {0};
    struct asker asker;
    snprintf(path, sizeof path, "%s/token", place->dir);
    assert_ok(admin_from_file(place->store, path, &err), &err);
    assert_int_equal(stat(path, &about), 0);
    assert_int_equal(about.st_mode & 0777, 0600);
    FILE *file = fopen(path, "r");
    assert_non_null(fgets(text, sizeof text, file));
    fclose(file);
    text[strcspn(text, "\n")] = '\0';
    assert_int_equal(enter(gate, text, &asker), GATE_KNOWN);
    assert_string_equal(asker.name, "admin");
    assert_int_equal(asker.level, LEVEL_ADMIN);
    char first[ID_SIZE];
    memcpy(first, asker.token, sizeof first);
    /* Again: the same. Another one: that too. Too short: not. */
    assert_ok(admin_from_file(place->store, path, &err), &err);
    file = fopen(path, "w");
    fprintf(file, "%s\n", "0123456789abcdef0123456789abcdef");
    fclose(file);
    assert_ok(admin_from_file(place->store, path, &err), &err);
    assert_int_equal(enter(gate, "0123456789abcdef0123456789abcdef", &asker), GATE_KNOWN);
    file = fopen(path, "w");
    fprintf(file, "short\n");
    fclose(file);
    assert_int_equal(admin_from_file(place->store, path, &err), OVR_INVALID);
    /* Revoked: it stays so, and the daemon starts all the same. */
    file = fopen(path, "w");
    fprintf(file, "%s\n", text);
    fclose(file);
    err = (struct ovr_err){0};
    assert_ok(store_revoke_token(place->store, "admin", first, &err), &err);
    assert_ok(admin_from_file(place->store, path, &err), &err);
    assert_int_equal(enter(gate, text, &asker), GATE_WRONG);
    gate_free(gate);
}

#define with_people(test) cmocka_unit_test_setup_teardown(test, make_store, back_to_nobody)

int main(void) {
    const struct CMUnitTest tests[] = {
        with_people(the_first_user_is_an_admin),
        with_people(an_admin_stays),
        with_people(edits_are_of_a_revision),
        cmocka_unit_test(names),
        with_people(private_things_are_not_there_for_others),
        with_people(only_what_is_hers_can_be_changed),
        with_people(sweeps_are_hers_with_all_their_points),
        with_people(keys_belong_to_who_sent_them),
        with_people(data_sets_have_an_owner),
        with_people(so_many_may_wait),
        with_people(storage_is_counted),
        with_people(halves_that_wait_are_counted),
        with_people(the_gate_is_open_without_users),
        with_people(a_token_ends),
        with_people(a_token_expires),
        with_people(the_role_bounds_the_scope),
        with_people(wrong_tokens_are_counted),
        with_people(a_user_and_an_address_of_one_name_are_two),
        with_people(uses_are_noted),
        with_people(the_database_has_no_tokens),
        cmocka_unit_test(a_bucket_fills_again),
        with_people(changes_are_written_down),
        cmocka_unit_test(words_of_the_command),
        with_people(the_first_token_is_told_once),
        with_people(the_admins_token_is_in_a_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
