/* Users, tokens, quotas and the audit; who may see and change what. */
#include "server/people.h"
#include "server/store/db.h"

#include "server/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

const char *const role_names[N_LEVELS] = {"", "viewer", "member", "admin"};
const char *const scope_names[N_LEVELS] = {"", "read", "write", "admin"};

enum level find_level(const char *const names[N_LEVELS], const char *name) {
    for (int i = LEVEL_READ; i < N_LEVELS; i++)
        if (strcmp(names[i], name) == 0)
            return (enum level)i;
    return LEVEL_NONE;
}

/* ---- Who asks ---- */

static _Thread_local const struct asker *who;

void ask_as(const struct asker *asker) {
    who = asker;
}

const struct asker *asking(void) {
    return who;
}

int64_t asking_user(void) {
    return who ? who->user : 0;
}

int64_t visible_to(void) {
    /* Without a user nothing is hers: −1 is nobody's seq. */
    return !who || who->level == LEVEL_ADMIN ? 0 : who->user ? who->user : -1;
}

static int is_hers(const char *owner) {
    return !who || who->level == LEVEL_ADMIN || (*owner && strcmp(who->name, owner) == 0);
}

int sees(const char *owner, int private) {
    return !private || is_hers(owner);
}

int must_own(const char *owner, const char *what, const char *name, struct ovr_err *err) {
    if (is_hers(owner))
        return 0;
    if (*owner)
        return ovr_fail(err, OVR_FORBIDDEN, NULL,
                        "%s %s belongs to %s; only %s or an admin may change it", what, name, owner,
                        owner);
    return ovr_fail(err, OVR_FORBIDDEN, NULL,
                    "%s %s is from when there were no users; only an admin may change it", what,
                    name);
}

int audit(struct connection *c, const char *action, const char *object, const char *detail,
          struct ovr_err *err) {
    if (!who)
        return 0;
    return db_run(c,
                  db_bind(c, ADD_AUDIT, "issssss", now_ms(), *who->name ? who->name : NULL,
                          *who->token ? who->token : NULL, *who->address ? who->address : NULL,
                          action, object, detail),
                  err);
}

int store_audit(struct store *store, const char *action, const char *object, const char *detail,
                struct ovr_err *err) {
    int rc = db_begin(store, err);
    if (rc)
        return rc;
    return db_end(store, audit(&store->writer, action, object, detail, err), err);
}

/* ---- Users ---- */

void store_set_quotas(struct store *store, const struct quotas *quotas) {
    store->quotas = *quotas;
}

struct quotas store_quotas_of(const struct store *store, const struct user *u) {
    return (struct quotas){u->quotas.running < 0 ? store->quotas.running : u->quotas.running,
                           u->quotas.queued < 0 ? store->quotas.queued : u->quotas.queued,
                           u->quotas.storage_bytes < 0 ? store->quotas.storage_bytes
                                                       : u->quotas.storage_bytes};
}

int user_name_is_valid(const char *name) {
    size_t n = strlen(name);
    return n >= 1 && n < USER_NAME_SIZE && strcmp(name, "me") != 0 &&
           name[strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789._-")] == '\0' &&
           !strchr("._-", name[0]);
}

static int64_t number_or(sqlite3_stmt *row, int column, int64_t otherwise) {
    return sqlite3_column_type(row, column) == SQLITE_NULL ? otherwise
                                                           : sqlite3_column_int64(row, column);
}

static void read_user(sqlite3_stmt *row, struct user *u) {
    char role[16];
    copy_column(row, 2, role, sizeof role);
    *u = (struct user){
        .seq = sqlite3_column_int64(row, 0),
        .role = find_level(role_names, role),
        .disabled = sqlite3_column_int(row, 3),
        .quotas = {number_or(row, 4, -1), number_or(row, 5, -1), number_or(row, 6, -1)},
        .usage = {sqlite3_column_int64(row, 10), sqlite3_column_int64(row, 11),
                  sqlite3_column_int64(row, 7)},
        .revision = sqlite3_column_int64(row, 8),
        .created_at = sqlite3_column_int64(row, 9),
    };
    copy_column(row, 1, u->name, sizeof u->name);
}

/* By a bound statement. */
static int find_user(struct connection *c, sqlite3_stmt *row, const char *name, struct user *u,
                     struct ovr_err *err) {
    int step = sqlite3_step(row), rc = 0;
    if (step == SQLITE_ROW)
        read_user(row, u);
    else
        rc = step == SQLITE_DONE
                 ? ovr_fail(err, OVR_NOT_FOUND, NULL, "there is no user %.64s", name)
                 : db_fail(c, err);
    sqlite3_reset(row);
    return rc;
}

int store_get_user(struct store *store, const char *name, struct user *user, struct ovr_err *err) {
    struct connection *c = db_take_reader(store);
    int rc = find_user(c, db_bind(c, GET_USER, "s", name), name, user, err);
    db_give_back(c);
    return rc;
}

static int read_listed(const void *context, sqlite3_stmt *row, void *item, struct ovr_err *err) {
    (void)context;
    (void)err;
    read_user(row, item);
    return 0;
}

static const struct row_reader user_rows = {"a list of users", sizeof(struct user), read_listed,
                                            NULL};

int store_list_users(struct store *store, const char *after, int limit, struct user **list,
                     size_t *n, struct ovr_err *err) {
    struct connection *c = db_take_reader(store);
    struct rows rows;
    int rc = db_read_list(c, db_bind(c, LIST_USERS, "si", after, (int64_t)limit), &user_rows, NULL,
                          &rows, err);
    db_give_back(c);
    *list = rows.items;
    *n = rows.n;
    return rc;
}

static int count_users(struct connection *c, int64_t *users, int64_t *admins, struct ovr_err *err) {
    sqlite3_stmt *row = db_bind(c, COUNT_USERS, "");
    int rc = sqlite3_step(row) == SQLITE_ROW ? 0 : db_fail(c, err);
    *users = rc ? 0 : sqlite3_column_int64(row, 0);
    *admins = rc ? 0 : sqlite3_column_int64(row, 1);
    sqlite3_reset(row);
    return rc;
}

int store_count_users(struct store *store, int64_t *users, int64_t *admins, struct ovr_err *err) {
    struct connection *c = db_take_reader(store);
    int rc = count_users(c, users, admins, err);
    db_give_back(c);
    return rc;
}

uint64_t store_people_version(const struct store *store) {
    return store->people;
}

/* Ends a change of people. */
static int end_people(struct store *store, int rc, struct ovr_err *err) {
    store->people_changed = 1;
    return db_end(store, rc, err);
}

/* NULL for below 0, which db_bind() has no letter for. */
static void bind_quotas(sqlite3_stmt *statement, int first, const struct quotas *q) {
    const int64_t values[] = {q->running, q->queued, q->storage_bytes};
    for (int i = 0; i < 3; i++)
        if (values[i] >= 0)
            sqlite3_bind_int64(statement, first + i, values[i]);
}

/* ---- Tokens ---- */

int make_secret(const char *prefix, char text[TOKEN_SIZE], struct ovr_err *err) {
    static const char digits[] = "0123456789abcdef";
    unsigned char random[32];
    if (getrandom(random, sizeof random, 0) != sizeof random)
        return ovr_fail(err, OVR_IO, NULL, "the system has no random numbers");
    memcpy(text, prefix, 5);
    for (size_t i = 0; i < sizeof random; i++) {
        text[5 + 2 * i] = digits[random[i] >> 4];
        text[6 + 2 * i] = digits[random[i] & 15];
    }
    text[5 + 2 * sizeof random] = '\0';
    return 0;
}

int token_make(char text[TOKEN_SIZE], struct ovr_err *err) {
    return make_secret("ovrd_", text, err);
}

/* Those that died a month ago make room. */
static int make_room(struct connection *c, int64_t user, struct ovr_err *err) {
    enum { MONTH_S = 30 * 24 * 3600 };
    int rc =
        db_run(c, db_bind(c, FORGET_TOKENS, "ii", user, now_ms() - MONTH_S * INT64_C(1000)), err);
    if (rc)
        return rc;
    sqlite3_stmt *row = db_bind(c, COUNT_TOKENS, "i", user);
    rc = sqlite3_step(row) == SQLITE_ROW ? 0 : db_fail(c, err);
    if (!rc && sqlite3_column_int64(row, 0) >= STORE_MOST_TOKENS)
        rc = ovr_fail(err, OVR_CONFLICT, NULL,
                      "a user has at most %d tokens; revoked and expired ones are forgotten after "
                      "a month",
                      STORE_MOST_TOKENS);
    sqlite3_reset(row);
    return rc;
}

static int insert_token(struct connection *c, int64_t user, const struct new_token *t,
                        const char *id, struct ovr_err *err) {
    char sha256[DIGEST_SIZE];
    digest_of(t->text, strlen(t->text), sha256);
    int rc = db_run(c,
                    db_bind(c, ADD_TOKEN, "sisssiI", id, user, t->label, sha256,
                            scope_names[t->scope], now_ms(), t->expires_at),
                    NULL);
    if (rc && sqlite3_extended_errcode(c->db) == SQLITE_CONSTRAINT_UNIQUE)
        return ovr_fail(err, OVR_CONFLICT, NULL,
                        "this token was given before, and revoked; it needs another text");
    return rc ? db_fail(c, err) : 0;
}

static int add_token(struct connection *c, const struct user *u, const struct new_token *t,
                     char id[ID_SIZE], struct ovr_err *err) {
    if (t->scope > u->role)
        return ovr_fail(err, OVR_INVALID, "/scope",
                        "scope %s is more than the role of %s allows: a %s's tokens are at most "
                        "for %s",
                        scope_names[t->scope], u->name, role_names[u->role], scope_names[u->role]);
    int rc = make_room(c, u->seq, err);
    if (!rc)
        rc = store_new_id(id, err);
    if (!rc)
        rc = insert_token(c, u->seq, t, id, err);
    return rc ? rc : audit(c, "token.add", id, u->name, err);
}

int store_add_token(struct store *store, const char *name, const struct new_token *token,
                    char id[ID_SIZE], struct ovr_err *err) {
    struct connection *c = &store->writer;
    struct user u;
    int rc = db_begin(store, err);
    if (rc)
        return rc;
    rc = find_user(c, db_bind(c, GET_USER, "s", name), name, &u, err);
    if (!rc && u.disabled)
        rc = ovr_fail(err, OVR_CONFLICT, NULL, "user %s is disabled; enable her first", name);
    if (!rc)
        rc = add_token(c, &u, token, id, err);
    return end_people(store, rc, err);
}

static void read_token(sqlite3_stmt *row, struct token *t) {
    char scope[16];
    copy_column(row, 2, scope, sizeof scope);
    *t = (struct token){.scope = find_level(scope_names, scope),
                        .created_at = sqlite3_column_int64(row, 3),
                        .expires_at = sqlite3_column_int64(row, 4),
                        .revoked_at = sqlite3_column_int64(row, 5),
                        .used_at = sqlite3_column_int64(row, 6)};
    copy_column(row, 0, t->id, sizeof t->id);
    copy_column(row, 1, t->label, sizeof t->label);
}

static int list_tokens(struct connection *c, const char *name, const char *id, struct token *list,
                       size_t *n, struct ovr_err *err) {
    sqlite3_stmt *row = db_bind(c, LIST_TOKENS, "ssi", name, id, (int64_t)STORE_MOST_TOKENS);
    int step = SQLITE_DONE;
    *n = 0;
    while (*n < STORE_MOST_TOKENS && (step = sqlite3_step(row)) == SQLITE_ROW)
        read_token(row, &list[(*n)++]);
    int rc = step == SQLITE_ROW || step == SQLITE_DONE ? 0 : db_fail(c, err);
    sqlite3_reset(row);
    if (!rc && id && !*n)
        rc = ovr_fail(err, OVR_NOT_FOUND, NULL, "user %s has no token %.40s", name, id);
    return rc;
}

int store_list_tokens(struct store *store, const char *name, const char *id, struct token *list,
                      size_t *n, struct ovr_err *err) {
    struct connection *c = db_take_reader(store);
    struct user u;
    int rc = find_user(c, db_bind(c, GET_USER, "s", name), name, &u, err);
    if (!rc)
        rc = list_tokens(c, name, id, list, n, err);
    db_give_back(c);
    return rc;
}

static int revoke(struct connection *c, int64_t user, const char *id, struct ovr_err *err) {
    return db_run(c, db_bind(c, REVOKE_TOKENS, "isi", user, id, now_ms()), err);
}

int store_revoke_token(struct store *store, const char *name, const char *id, struct ovr_err *err) {
    struct connection *c = &store->writer;
    struct user u;
    struct token found[STORE_MOST_TOKENS];
    size_t n;
    int rc = db_begin(store, err);
    if (rc)
        return rc;
    rc = find_user(c, db_bind(c, GET_USER, "s", name), name, &u, err);
    if (!rc)
        rc = list_tokens(c, name, id, found, &n, err);
    if (!rc && !found[0].revoked_at) {
        rc = revoke(c, u.seq, id, err);
        rc = rc ? rc : audit(c, "token.revoke", id, name, err);
    }
    return end_people(store, rc, err);
}

int store_find_token(struct store *store, const char sha256[DIGEST_SIZE], struct asker *asker,
                     struct ovr_err *err) {
    struct connection *c = db_take_reader(store);
    sqlite3_stmt *row = db_bind(c, FIND_TOKEN, "s", sha256);
    int step = sqlite3_step(row), rc = 0;
    char role[16], scope[16];
    if (step == SQLITE_ROW) {
        asker->user = sqlite3_column_int64(row, 0);
        copy_column(row, 1, asker->name, sizeof asker->name);
        copy_column(row, 2, role, sizeof role);
        copy_column(row, 3, asker->token, sizeof asker->token);
        copy_column(row, 4, scope, sizeof scope);
        asker->expires_at = sqlite3_column_int64(row, 5);
        enum level by_role = find_level(role_names, role), by = find_level(scope_names, scope);
        asker->level = by < by_role ? by : by_role;
    } else {
        rc = step == SQLITE_DONE ? OVR_NOT_FOUND : db_fail(c, err);
    }
    sqlite3_reset(row);
    db_give_back(c);
    return rc;
}

int store_note_token(struct store *store, const char id[ID_SIZE], int64_t at, struct ovr_err *err) {
    int rc = db_begin(store, err);
    if (rc)
        return rc;
    struct connection *c = &store->writer;
    return db_end(store, db_run(c, db_bind(c, NOTE_TOKEN, "si", id, at), err), err);
}

/* ---- Changes of users ---- */

static int add_user(struct connection *c, const char *name, enum level role,
                    const struct quotas *quotas, struct ovr_err *err) {
    int64_t users, admins;
    struct user u;
    int rc = count_users(c, &users, &admins, err);
    if (rc)
        return rc;
    if (!users && role != LEVEL_ADMIN)
        return ovr_fail(err, OVR_CONFLICT, NULL,
                        "the first user must be an admin: from then on everybody needs a token, "
                        "and only an admin can add others");
    rc = find_user(c, db_bind(c, GET_USER, "s", name), name, &u, NULL);
    if (rc == 0)
        return ovr_fail(err, OVR_CONFLICT, NULL, "there is a user %s already%s", name,
                        u.disabled ? ", disabled; enable her instead" : "");
    if (rc != OVR_NOT_FOUND)
        return db_fail(c, err);
    sqlite3_stmt *statement = db_bind(c, ADD_USER, "ss", name, role_names[role]);
    bind_quotas(statement, 3, quotas);
    sqlite3_bind_int64(statement, 6, now_ms());
    return db_run(c, statement, err);
}

int store_add_user(struct store *store, const char *name, enum level role,
                   const struct quotas *quotas, const struct new_token *token, char id[ID_SIZE],
                   struct ovr_err *err) {
    struct connection *c = &store->writer;
    int rc = db_begin(store, err);
    if (rc)
        return rc;
    rc = add_user(c, name, role, quotas, err);
    if (!rc)
        rc = audit(c, "user.add", name, role_names[role], err);
    struct user u;
    if (!rc)
        rc = find_user(c, db_bind(c, GET_USER, "s", name), name, &u, err);
    if (!rc)
        rc = add_token(c, &u, token, id, err);
    return end_people(store, rc, err);
}

/* What it comes to, in words for the audit. */
static void describe_edit(const struct user *u, const struct user_edit *e, char text[256]) {
    snprintf(text, 256, "role %s%s%s, quotas running %lld, queued %lld, storage_bytes %lld",
             role_names[u->role], u->disabled ? ", disabled" : "",
             e->revoke ? ", tokens revoked" : "", (long long)u->quotas.running,
             (long long)u->quotas.queued, (long long)u->quotas.storage_bytes);
}

static int edit_user(struct connection *c, struct user *u, const struct user_edit *e,
                     struct ovr_err *err) {
    int64_t users, admins;
    int was_admin = u->role == LEVEL_ADMIN && !u->disabled;
    char detail[256];
    u->role = e->role ? *e->role : u->role;
    u->disabled = e->disabled ? *e->disabled : u->disabled;
    u->quotas.running = e->running ? *e->running : u->quotas.running;
    u->quotas.queued = e->queued ? *e->queued : u->quotas.queued;
    u->quotas.storage_bytes = e->storage_bytes ? *e->storage_bytes : u->quotas.storage_bytes;
    int rc = count_users(c, &users, &admins, err);
    if (!rc && was_admin && admins < 2 && (u->role != LEVEL_ADMIN || u->disabled))
        rc = ovr_fail(err, OVR_CONFLICT, NULL,
                      "%s is the last admin; make somebody else an admin first", u->name);
    if (rc)
        return rc;
    sqlite3_stmt *statement =
        db_bind(c, EDIT_USER, "isi", u->seq, role_names[u->role], (int64_t)u->disabled);
    bind_quotas(statement, 4, &u->quotas);
    rc = db_run(c, statement, err);
    if (!rc && e->revoke)
        rc = revoke(c, u->seq, NULL, err);
    describe_edit(u, e, detail);
    return rc ? rc : audit(c, e->revoke ? "user.remove" : "user.edit", u->name, detail, err);
}

int store_edit_user(struct store *store, const char *name, int64_t revision,
                    const struct user_edit *edit, struct ovr_err *err) {
    struct connection *c = &store->writer;
    struct user u;
    int rc = db_begin(store, err);
    if (rc)
        return rc;
    rc = find_user(c, db_bind(c, GET_USER, "s", name), name, &u, err);
    if (!rc && revision >= 0 && revision != u.revision)
        rc = ovr_fail(err, OVR_CONFLICT, STALE_FIELD,
                      "user %s is at revision %lld, not %lld any more; get her again", name,
                      (long long)u.revision, (long long)revision);
    if (!rc)
        rc = edit_user(c, &u, edit, err);
    return end_people(store, rc, err);
}

/* ---- Quotas ---- */

static int check_limits(const struct store *store, const struct user *u, int64_t queued,
                        int64_t bytes, struct ovr_err *err) {
    struct quotas most = store_quotas_of(store, u);
    if (queued && most.queued && u->usage.queued + queued > most.queued)
        return ovr_fail(err, OVR_QUOTA, NULL,
                        "%s has %lld of at most %lld experiments waiting, without room for %lld "
                        "more; wait, cancel some, or ask an admin for a larger quota",
                        u->name, (long long)u->usage.queued, (long long)most.queued,
                        (long long)queued);
    /* Who has just reached it may neither upload nor submit: results need room too. */
    if (most.storage_bytes && u->usage.storage_bytes + (bytes ? bytes : 1) > most.storage_bytes)
        return ovr_fail(err, OVR_QUOTA, NULL,
                        "%s owns %.3f GB of uploads and results of at most %.3f GB%s; delete "
                        "experiments or data sets, or ask an admin for a larger quota",
                        u->name, (double)u->usage.storage_bytes / 1e9,
                        (double)most.storage_bytes / 1e9,
                        bytes ? ", and this upload does not fit" : "");
    return 0;
}

int check_quota(struct store *store, int64_t queued, int64_t bytes, struct ovr_err *err) {
    struct connection *c = &store->writer;
    struct user u;
    if (!asking_user())
        return 0;
    int rc = find_user(c, db_bind(c, GET_USER_BY_SEQ, "i", asking_user()), who->name, &u, err);
    return rc ? rc : check_limits(store, &u, queued, bytes, err);
}

static int must_own_dataset(struct connection *c, const char *dataset, struct ovr_err *err) {
    sqlite3_stmt *row = db_bind(c, OWNER_OF_DATASET, "sI", dataset, asking_user());
    char owner[USER_NAME_SIZE];
    int step = sqlite3_step(row), rc = 0;
    if (step == SQLITE_ROW) {
        copy_column(row, 0, owner, sizeof owner);
        rc = must_own(owner, "data set", dataset, err);
    } else if (step != SQLITE_DONE) {
        rc = db_fail(c, err);
    }
    sqlite3_reset(row);
    return rc;
}

int may_change_dataset(struct store *store, const char *dataset, int64_t bytes,
                       struct ovr_err *err) {
    int rc = must_own_dataset(&store->writer, dataset, err);
    return rc || !bytes ? rc : check_quota(store, 0, bytes, err);
}

int store_may_change_dataset(struct store *store, const char *dataset, int64_t bytes,
                             struct ovr_err *err) {
    struct connection *c = db_take_reader(store);
    struct user u;
    int rc = must_own_dataset(c, dataset, err);
    if (!rc && asking_user()) {
        rc = find_user(c, db_bind(c, GET_USER_BY_SEQ, "i", asking_user()), who->name, &u, err);
        rc = rc ? rc : check_limits(store, &u, 0, bytes, err);
    }
    db_give_back(c);
    return rc;
}

/* ---- The audit ---- */

static int read_entry(const void *context, sqlite3_stmt *row, void *item, struct ovr_err *err) {
    (void)context;
    struct audit_entry *e = item;
    int failed = 0;
    *e = (struct audit_entry){.seq = sqlite3_column_int64(row, 0),
                              .at = sqlite3_column_int64(row, 1),
                              .detail = dup_column(row, 7, &failed)};
    copy_column(row, 2, e->user, sizeof e->user);
    copy_column(row, 3, e->token, sizeof e->token);
    copy_column(row, 4, e->address, sizeof e->address);
    copy_column(row, 5, e->action, sizeof e->action);
    copy_column(row, 6, e->object, sizeof e->object);
    return failed ? ovr_nomem(err, "the audit") : 0;
}

static void release_entry(void *item) {
    struct audit_entry *e = item;
    free(e->detail);
}

static const struct row_reader audit_rows = {"the audit", sizeof(struct audit_entry), read_entry,
                                             release_entry};

int store_list_audit(struct store *store, const struct audit_filter *f, struct audit_entry **list,
                     size_t *n, struct ovr_err *err) {
    struct connection *c = db_take_reader(store);
    sqlite3_stmt *row = db_bind(c, LIST_AUDIT, "iissi", f->before ? f->before : INT64_MAX, f->since,
                                f->user, f->object, (int64_t)f->limit);
    struct rows rows;
    int rc = db_read_list(c, row, &audit_rows, NULL, &rows, err);
    db_give_back(c);
    *list = rows.items;
    *n = rows.n;
    return rc;
}

void audit_free(struct audit_entry *list, size_t n) {
    for (size_t i = 0; i < n; i++)
        release_entry(&list[i]);
    free(list);
}
