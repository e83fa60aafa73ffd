/* Users, their tokens, who I am, and the audit. */
#include "server/people.h"
#include "api/api.h"
#include "server/log.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- Reading bodies: what may be in one is a table ---- */

struct body_member {
    const char *name;
    enum { M_NAME, M_LABEL, M_ROLE, M_SCOPE, M_FLAG, M_COUNT, M_TIME, M_QUOTAS } kind;
    void *to; /* text: a pointer to it; else what the kind says */
    int required;
    int given; /* filled: 1 if it was there */
};

static void fault_at(json_t *faults, const char *above, const char *name, const char *is,
                     const char *what) {
    char pointer[128];
    snprintf(pointer, sizeof pointer, "%s/%.80s", above, name);
    spec_fault(faults, pointer, "%s%s", is, what);
}

static void read_members(json_t *object, const char *above, struct body_member *members, size_t n,
                         json_t *faults);

/* What the value has to be; NULL when it is. */
static const char *read_text(const struct body_member *m, const char *text) {
    int64_t at;
    enum level level;
    switch (m->kind) {
    case M_NAME:
        *(const char **)m->to = text;
        return user_name_is_valid(text) ? NULL
                                        : "1..64 of a-z 0-9 . _ -, beginning with a letter or "
                                          "digit, and not me";
    case M_LABEL:
        *(const char **)m->to = text;
        return *text && utf8_count(text) <= LABEL_MOST ? NULL : "a text of 1..64 characters";
    case M_ROLE:
        level = find_level(role_names, text);
        *(enum level *)m->to = level;
        return level ? NULL : "viewer, member or admin";
    case M_SCOPE:
        level = find_level(scope_names, text);
        *(enum level *)m->to = level;
        return level ? NULL : "read, write or admin";
    default:
        if (!parse_time(text, &at) || at <= now_ms())
            return "null or a time to come, such as 2027-11-24T09:30:00Z";
        *(int64_t *)m->to = at;
        return NULL;
    }
}

static const char *read_count(const json_t *value, int64_t *to) {
    double number = json_is_null(value) ? -1 : json_number_value(value);
    int fits = json_is_null(value) || (json_is_number(value) && number >= 0 && number <= 0x1p53 &&
                                       number == floor(number));
    if (json_is_integer(value)) /* a double takes the next one for the same */
        fits = json_integer_value(value) >= 0 && json_integer_value(value) <= INT64_C(1) << 53;
    if (fits)
        *to = (int64_t)number;
    return fits ? NULL : "null (as the daemon's settings say) or an integer 0..2^53 (0: no limit)";
}

static void read_member(struct body_member *m, json_t *value, const char *above, json_t *faults) {
    static const char *const quotas[] = {"running", "queued", "storage_bytes"};
    const char *wanted = NULL;
    m->given = 1;
    if (m->kind == M_QUOTAS) {
        struct quotas *q = m->to;
        struct body_member inner[] = {{quotas[0], M_COUNT, &q->running, 0, 0},
                                      {quotas[1], M_COUNT, &q->queued, 0, 0},
                                      {quotas[2], M_COUNT, &q->storage_bytes, 0, 0}};
        read_members(value, "/quotas", inner, 3, faults);
        return;
    }
    if (m->kind == M_COUNT)
        wanted = read_count(value, m->to);
    else if (m->kind == M_FLAG)
        *(int *)m->to = json_is_true(value),
              wanted = json_is_boolean(value) ? NULL : "true or false";
    else if (m->kind == M_TIME && json_is_null(value))
        *(int64_t *)m->to = 0;
    else
        wanted = read_text(m, json_is_string(value) ? json_string_value(value) : "");
    if (wanted)
        fault_at(faults, above, m->name, "must be ", wanted);
}

static void read_members(json_t *object, const char *above, struct body_member *members, size_t n,
                         json_t *faults) {
    char known[200] = "";
    const char *name;
    json_t *value;
    if (!json_is_object(object)) {
        spec_fault(faults, above, "must be an object");
        return;
    }
    for (size_t i = 0, at = 0; i < n; i++)
        at +=
            (size_t)snprintf(known + at, sizeof known - at, "%s%s", i ? ", " : "", members[i].name);
    json_object_foreach(object, name, value) {
        size_t i = 0;
        while (i < n && strcmp(members[i].name, name) != 0)
            i++;
        if (i < n)
            read_member(&members[i], value, above, faults);
        else
            fault_at(faults, above, name, "is not a member here; known are ", known);
    }
    for (size_t i = 0; i < n; i++)
        if (members[i].required && !members[i].given)
            fault_at(faults, above, members[i].name, "is missing", "");
}

/* The body must be owned by the caller as long as the texts are used. NULL: *refusal. */
static json_t *read_body(const struct request *request, struct body_member *members, size_t n,
                         struct reply **refusal) {
    json_t *body = body_json(request, refusal), *faults = json_array();
    if (body && faults)
        read_members(body, "", members, n, faults);
    if (body && json_array_size(faults)) {
        *refusal = problem_faults("invalid-request", "each entry of errors says what to change",
                                  json_incref(faults));
        json_decref(body);
        body = NULL;
    }
    json_decref(faults);
    return body;
}

/* ---- Users ---- */

static json_t *json_quota(int64_t value) {
    return value < 0 ? json_null() : json_integer(value);
}

static json_t *json_quotas(const struct quotas *q) {
    return json_pack("{s:o, s:o, s:o}", "running", json_quota(q->running), "queued",
                     json_quota(q->queued), "storage_bytes", json_quota(q->storage_bytes));
}

static json_t *json_user(const struct user *u) {
    return json_pack("{s:s, s:s, s:b, s:o, s:o, s:I, s:o}", "name", u->name, "role",
                     role_names[u->role], "disabled", u->disabled, "quotas",
                     json_quotas(&u->quotas), "usage", json_quotas(&u->usage), "revision",
                     (json_int_t)u->revision, "created_at", json_time(u->created_at));
}

static struct reply *reply_user(struct api *api, int status, const char *name, json_t *token) {
    struct user u;
    struct ovr_err err = {0};
    if (store_get_user(api->store, name, &u, &err)) {
        json_decref(token);
        return problem_from(&err);
    }
    json_t *body = json_user(&u);
    if (token && json_object_set_new(body, "token", token)) {
        json_decref(body);
        body = NULL;
    }
    return reply_etag(reply_json(status, body), "%lld-%lld.%lld.%lld", (long long)u.revision,
                      (long long)u.usage.running, (long long)u.usage.queued,
                      (long long)u.usage.storage_bytes);
}

struct reply *handle_user(struct request *request) {
    return reply_user(request->context, 200, request->segments[0], NULL);
}

struct reply *handle_users(struct request *request) {
    struct api *api = request->context;
    const char *after = request_query(request, "cursor");
    struct user *list;
    struct ovr_err err = {0};
    int64_t limit = 50;
    size_t n;
    struct reply *reply = query_int(request, "limit", 1, 500, &limit);
    if (!reply && after && !user_name_is_valid(after))
        reply = problem(422, "invalid-query", "cursor must be one that came in a Link");
    if (reply)
        return reply;
    if (store_list_users(api->store, after ? after : "", (int)limit + 1, &list, &n, &err))
        return problem_from(&err);
    size_t shown = n > (size_t)limit ? n - 1 : n;
    json_t *array = json_array();
    int failed = !array;
    for (size_t i = 0; i < shown; i++)
        failed |= json_array_append_new(array, json_user(&list[i]));
    reply = reply_json(200, failed ? NULL : json_pack("{s:O}", "users", array));
    json_decref(array);
    if (shown < n)
        reply = reply_header(reply, "Link", "</v1/users?cursor=%s&limit=%lld>; rel=\"next\"",
                             list[shown - 1].name, (long long)limit);
    free(list);
    return reply;
}

/* The one time that its text is told; nobody on the way may keep it. */
static json_t *json_new_token(const char *id, const struct new_token *t) {
    return json_pack("{s:s, s:s, s:s, s:o, s:s}", "id", id, "label", t->label, "scope",
                     scope_names[t->scope], "expires_at", json_time(t->expires_at), "token",
                     t->text);
}

static struct reply *keep_secret(struct reply *reply) {
    return reply_header(reply, "Cache-Control", "%s", "no-store");
}

static struct reply *add_user(struct api *api, const char *name, enum level role,
                              const struct quotas *quotas) {
    char text[TOKEN_SIZE], id[ID_SIZE];
    struct ovr_err err = {0};
    struct new_token token = {.label = "first", .text = text, .scope = role};
    if (token_make(text, &err) || store_add_user(api->store, name, role, quotas, &token, id, &err))
        return problem_from(&err);
    log_line(LOG_INFO, "user=%s added, role=%s", name, role_names[role]);
    struct reply *reply = reply_user(api, 201, name, json_new_token(id, &token));
    return keep_secret(reply_header(reply, "Location", "/v1/users/%s", name));
}

struct reply *handle_add_user(struct request *request) {
    const char *name = "";
    enum level role = LEVEL_NONE;
    struct quotas quotas = {-1, -1, -1};
    struct body_member members[] = {{"name", M_NAME, &name, 1, 0},
                                    {"role", M_ROLE, &role, 1, 0},
                                    {"quotas", M_QUOTAS, &quotas, 0, 0}};
    struct reply *reply;
    json_t *body = read_body(request, members, sizeof members / sizeof *members, &reply);
    if (body)
        reply = add_user(request->context, name, role, &quotas);
    json_decref(body);
    return reply;
}

static struct reply *edit_user(struct request *request, int64_t revision,
                               const struct user_edit *edit) {
    struct api *api = request->context;
    struct ovr_err err = {0};
    if (store_edit_user(api->store, request->segments[0], revision, edit, &err))
        return strcmp(err.field, STALE_FIELD) == 0 ? problem(412, "stale", "%s", err.text)
                                                   : problem_from(&err);
    log_line(LOG_INFO, "user=%s %s", request->segments[0], edit->revoke ? "removed" : "edited");
    return edit->revoke ? reply_static(204, NULL, "", 0)
                        : reply_user(api, 200, request->segments[0], NULL);
}

struct reply *handle_edit_user(struct request *request) {
    enum { UNTOUCHED = -2 };
    enum level role = LEVEL_NONE;
    int disabled = 0;
    int64_t revision;
    struct quotas quotas = {UNTOUCHED, UNTOUCHED, UNTOUCHED};
    struct body_member members[] = {{"role", M_ROLE, &role, 0, 0},
                                    {"disabled", M_FLAG, &disabled, 0, 0},
                                    {"quotas", M_QUOTAS, &quotas, 0, 0}};
    struct reply *reply = NULL;
    json_t *body = read_body(request, members, sizeof members / sizeof *members, &reply);
    if (!body)
        return reply;
    const struct api *api = request->context;
    struct user u;
    struct ovr_err err = {0};
    if (store_get_user(api->store, request->segments[0], &u, &err))
        reply = problem_from(&err);
    else
        reply = read_if_match(request, "user", &revision);
    if (reply) {
        json_decref(body);
        return reply;
    }
    const struct user_edit edit = {
        .role = members[0].given ? &role : NULL,
        .disabled = members[1].given ? &disabled : NULL,
        .running = quotas.running != UNTOUCHED ? &quotas.running : NULL,
        .queued = quotas.queued != UNTOUCHED ? &quotas.queued : NULL,
        .storage_bytes = quotas.storage_bytes != UNTOUCHED ? &quotas.storage_bytes : NULL,
    };
    json_decref(body);
    return edit_user(request, revision, &edit);
}

struct reply *handle_remove_user(struct request *request) {
    const int disabled = 1;
    return edit_user(request, -1, &(struct user_edit){.disabled = &disabled, .revoke = 1});
}

/* ---- Tokens ---- */

static json_t *json_token(const struct token *t) {
    return json_pack("{s:s, s:s, s:s, s:o, s:o, s:o, s:o}", "id", t->id, "label", t->label, "scope",
                     scope_names[t->scope], "created_at", json_time(t->created_at), "expires_at",
                     json_time(t->expires_at), "revoked_at", json_time(t->revoked_at), "used_at",
                     json_time(t->used_at));
}

struct reply *handle_tokens(struct request *request) {
    struct api *api = request->context;
    struct token list[STORE_MOST_TOKENS];
    struct ovr_err err = {0};
    size_t n;
    if (store_list_tokens(api->store, request->segments[0], NULL, list, &n, &err))
        return problem_from(&err);
    json_t *array = json_array();
    int failed = !array;
    for (size_t i = 0; i < n; i++)
        failed |= json_array_append_new(array, json_token(&list[i]));
    struct reply *reply = reply_json(200, failed ? NULL : json_pack("{s:O}", "tokens", array));
    json_decref(array);
    return reply;
}

struct reply *handle_token(struct request *request) {
    struct api *api = request->context;
    struct token found[STORE_MOST_TOKENS];
    struct ovr_err err = {0};
    size_t n;
    if (store_list_tokens(api->store, request->segments[0], request->segments[1], found, &n, &err))
        return problem_from(&err);
    return reply_json(200, json_token(&found[0]));
}

/* A token makes none that is for more than itself. scope LEVEL_NONE: as much as the role and the
 * token at hand allow. */
static struct reply *add_token(struct request *request, struct new_token *token) {
    struct api *api = request->context;
    const char *name = request->segments[0];
    char text[TOKEN_SIZE], id[ID_SIZE];
    enum level most = request->asker.level;
    struct ovr_err err = {0};
    struct user u;
    if (store_get_user(api->store, name, &u, &err))
        return problem_from(&err);
    if (token->scope > most)
        return problem(403, "forbidden", "with this token you can make tokens up to scope %s",
                       scope_names[most]);
    if (!token->scope)
        token->scope = u.role < most ? u.role : most;
    token->text = text;
    if (token_make(text, &err) || store_add_token(api->store, name, token, id, &err))
        return problem_from(&err);
    log_line(LOG_INFO, "user=%s token=%s added, scope=%s", name, id, scope_names[token->scope]);
    return keep_secret(reply_header(reply_json(201, json_new_token(id, token)), "Location",
                                    "/v1/users/%s/tokens/%s", name, id));
}

struct reply *handle_add_token(struct request *request) {
    struct new_token token = {0};
    struct body_member members[] = {{"label", M_LABEL, &token.label, 1, 0},
                                    {"scope", M_SCOPE, &token.scope, 0, 0},
                                    {"expires_at", M_TIME, &token.expires_at, 0, 0}};
    struct reply *reply;
    json_t *body = read_body(request, members, sizeof members / sizeof *members, &reply);
    if (body)
        reply = add_token(request, &token);
    json_decref(body);
    return reply;
}

struct reply *handle_revoke_token(struct request *request) {
    struct api *api = request->context;
    struct ovr_err err = {0};
    if (store_revoke_token(api->store, request->segments[0], request->segments[1], &err))
        return problem_from(&err);
    log_line(LOG_INFO, "user=%s token=%s revoked", request->segments[0], request->segments[1]);
    return reply_static(204, NULL, "", 0);
}

/* ---- Me ---- */

struct reply *handle_me(struct request *request) {
    struct api *api = request->context;
    const struct asker *asker = &request->asker;
    struct user u = {.role = LEVEL_ADMIN};
    struct ovr_err err = {0};
    if (*asker->name && store_get_user(api->store, asker->name, &u, &err))
        return problem_from(&err);
    const struct quotas quotas = store_quotas_of(api->store, &u);
    return reply_json(200, json_pack("{s:o, s:s, s:s, s:o, s:b, s:o, s:o}", "name",
                                     json_owner(asker->name), "role", role_names[u.role], "scope",
                                     scope_names[asker->level], "token", json_owner(asker->token),
                                     "users", *asker->name != '\0', "quotas",
                                     *asker->name ? json_quotas(&quotas) : json_null(), "usage",
                                     *asker->name ? json_quotas(&u.usage) : json_null()));
}

/* ---- The audit ---- */

static json_t *json_entry(const struct audit_entry *e) {
    return json_pack("{s:o, s:o, s:o, s:o, s:s, s:s, s:s?}", "at", json_time(e->at), "user",
                     json_owner(e->user), "token", json_owner(e->token), "address",
                     json_owner(e->address), "action", e->action, "object", e->object, "detail",
                     e->detail);
}

static struct reply *link_next(const struct request *request, struct reply *reply,
                               const struct audit_filter *filter, int64_t last) {
    char query[1024];
    snprintf(query, sizeof query, "cursor=%lld&limit=%d", (long long)last, filter->limit - 1);
    append_query(query, sizeof query, "user", filter->user);
    append_query(query, sizeof query, "object", filter->object);
    append_query(query, sizeof query, "since", request_query(request, "since"));
    return reply_header(reply, "Link", "</v1/audit?%s>; rel=\"next\"", query);
}

struct reply *handle_audit(struct request *request) {
    struct api *api = request->context;
    struct audit_filter filter = {.user = request_query(request, "user"),
                                  .object = request_query(request, "object")};
    struct audit_entry *list;
    struct ovr_err err = {0};
    int64_t limit = 50;
    size_t n;
    struct reply *reply = query_int(request, "limit", 1, 500, &limit);
    if (!reply)
        reply = query_int(request, "cursor", 1, INT64_MAX, &filter.before);
    if (!reply)
        reply = query_time(request, "since", &filter.since);
    if (reply)
        return reply;
    filter.limit = (int)limit + 1;
    if (store_list_audit(api->store, &filter, &list, &n, &err))
        return problem_from(&err);
    size_t shown = n > (size_t)limit ? n - 1 : n;
    json_t *array = json_array();
    int failed = !array;
    for (size_t i = 0; i < shown; i++)
        failed |= json_array_append_new(array, json_entry(&list[i]));
    reply = reply_json(200, failed ? NULL : json_pack("{s:O}", "entries", array));
    json_decref(array);
    if (shown < n)
        reply = link_next(request, reply, &filter, list[shown - 1].seq);
    audit_free(list, n);
    return reply;
}
