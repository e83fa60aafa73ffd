/* People: who I am, users, tokens, the audit. */
#include "clients/cli/api.h"
#include "clients/cli/value.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* With a body that is made of JSON, which it releases; NULL: none. */
static int send(struct cli *cli, const char *method, struct buf *path, json_t *body,
                const char *if_match, json_t **answer) {
    char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
    int failed = body && !text;
    json_decref(body);
    *answer = NULL;
    if (failed) {
        buf_release(path);
        return api_complain_memory();
    }
    int code = api_call(cli,
                        (struct http_request){.method = method,
                                              .body = text,
                                              .body_size = text ? strlen(text) : 0,
                                              .if_match = if_match},
                        path, answer);
    free(text);
    return code;
}

/* "3 of 200", "3" without a limit. */
static void print_usage(const char *label, const json_t *usage, const json_t *quotas,
                        const char *name, int bytes) {
    char used[FIGURE_ROOM], most[FIGURE_ROOM];
    double limit = value_number(quotas, name), n = value_number(usage, name);
    if (bytes)
        text_bytes(used, n), text_bytes(most, limit);
    else
        text_count(used, n), text_count(most, limit);
    if (limit > 0)
        printf("  %-9s %s of %s\n", label, used, most);
    else
        printf("  %-9s %s\n", label, used);
}

int command_whoami(struct cli *cli) {
    struct buf path = {0};
    json_t *answer;
    buf_path(&path, "/v1/me");
    int code = api_get(cli, &path, &answer);
    if (!code && answer && !json_is_true(value_at(answer, "users")))
        printf("nobody: the server has no users, so everybody may do everything\n");
    else if (!code && answer) {
        const json_t *usage = value_at(answer, "usage"), *quotas = value_at(answer, "quotas");
        printf("%s, %s, this token is for %s\n", value_string(answer, "name"),
               value_string(answer, "role"), value_string(answer, "scope"));
        print_usage("running", usage, quotas, "running", 0);
        print_usage("waiting", usage, quotas, "queued", 0);
        print_usage("storage", usage, quotas, "storage_bytes", 1);
    }
    json_decref(answer);
    return code;
}

/* ---- Users ---- */

static int print_users(const json_t *list) {
    static const struct column columns[] = {{"name", false, true},    {"role", false, false},
                                            {"running", true, false}, {"waiting", true, false},
                                            {"storage", true, false}, {"", false, false}};
    struct table table = {.columns = columns, .n_columns = sizeof columns / sizeof *columns};
    const json_t *user;
    char bytes[FIGURE_ROOM];
    size_t i;
    json_array_foreach(list, i, user) {
        table_cell(&table, "%s", value_string(user, "name"));
        table_cell(&table, "%s", value_string(user, "role"));
        table_cell(&table, "%.0f", value_number(user, "usage.running"));
        table_cell(&table, "%.0f", value_number(user, "usage.queued"));
        table_cell(&table, "%s", text_bytes(bytes, value_number(user, "usage.storage_bytes")));
        table_cell(&table, "%s", json_is_true(value_at(user, "disabled")) ? "disabled" : "");
    }
    return table_print(&table) ? api_complain_memory() : EXIT_OK;
}

static int list_users(struct cli *cli) {
    struct buf path = {0};
    json_t *answer;
    buf_path(&path, "/v1/users");
    buf_query(&path, "limit", "500");
    int code = api_get(cli, &path, &answer);
    if (!code && answer)
        code = print_users(value_at(answer, "users"));
    json_decref(answer);
    return code;
}

static int add_user(struct cli *cli, const char *name) {
    struct buf path = {0};
    json_t *answer;
    if (!cli->options.role)
        return complain(EXIT_USAGE, "user add %s wants --role viewer, member or admin", name);
    buf_path(&path, "/v1/users");
    int code =
        send(cli, "POST", &path, json_pack("{s:s, s:s}", "name", name, "role", cli->options.role),
             NULL, &answer);
    if (!code && answer)
        printf("%s\n", value_string(answer, "token.token"));
    json_decref(answer);
    return code;
}

static int edit_user(struct cli *cli, const char *name, const char *change) {
    struct buf path = {0};
    json_t *answer, *body = json_loads(change, 0, NULL);
    if (!body)
        return complain(EXIT_USAGE, "the change is not JSON; write '{\"role\": \"viewer\"}'");
    buf_path(&path, "/v1/users/{}", name);
    int code = send(cli, "PATCH", &path, body, "*", &answer);
    if (!code && answer)
        printf("%s changed\n", name);
    json_decref(answer);
    return code;
}

static int remove_user(struct cli *cli, const char *name) {
    struct buf path = {0};
    json_t *answer;
    buf_path(&path, "/v1/users/{}", name);
    int code = send(cli, "DELETE", &path, NULL, NULL, &answer);
    if (!code && !cli->options.json)
        printf("%s disabled, her tokens revoked; what she owns stays\n", name);
    json_decref(answer);
    return code;
}

int command_user(struct cli *cli) {
    const char *verb = cli->args[0], *name = cli->args[1], *change = name ? cli->args[2] : NULL;
    if (!strcmp(verb, "list") && !name)
        return list_users(cli);
    if (!strcmp(verb, "add") && name && !change)
        return add_user(cli, name);
    if (!strcmp(verb, "edit") && change)
        return edit_user(cli, name, change);
    if (!strcmp(verb, "remove") && name && !change)
        return remove_user(cli, name);
    return complain(EXIT_USAGE, "write user list, user add NAME --role ROLE, user edit NAME JSON, "
                                "or user remove NAME");
}

/* ---- Tokens ---- */

static const char *state_of(const json_t *token) {
    return *value_string(token, "revoked_at") ? "revoked" : "";
}

static int list_tokens(struct cli *cli, const char *name) {
    static const struct column columns[] = {{"id", false, false},    {"label", false, true},
                                            {"scope", false, false}, {"expires", false, false},
                                            {"used", false, false},  {"", false, false}};
    struct table table = {.columns = columns, .n_columns = sizeof columns / sizeof *columns};
    struct buf path = {0};
    json_t *answer;
    const json_t *token;
    size_t i;
    buf_path(&path, "/v1/users/{}/tokens", name);
    int code = api_get(cli, &path, &answer);
    if (!code && answer) {
        json_array_foreach(value_at(answer, "tokens"), i, token) {
            table_cell(&table, "%s", value_string(token, "id"));
            table_cell(&table, "%s", value_string(token, "label"));
            table_cell(&table, "%s", value_string(token, "scope"));
            table_cell(&table, "%.19s", value_string(token, "expires_at"));
            table_cell(&table, "%.19s", value_string(token, "used_at"));
            table_cell(&table, "%s", state_of(token));
        }
        code = table_print(&table) ? api_complain_memory() : EXIT_OK;
    }
    json_decref(answer);
    return code;
}

static int add_token(struct cli *cli, const char *name) {
    const struct options *o = &cli->options;
    struct buf path = {0};
    json_t *answer, *body = json_pack("{s:s}", "label", o->label ? o->label : "ovrctl");
    if (o->scope)
        json_object_set_new(body, "scope", json_string(o->scope));
    if (o->expires)
        json_object_set_new(body, "expires_at", json_string(o->expires));
    buf_path(&path, "/v1/users/{}/tokens", name);
    int code = send(cli, "POST", &path, body, NULL, &answer);
    if (!code && answer)
        printf("%s\n", value_string(answer, "token"));
    json_decref(answer);
    return code;
}

static int revoke_token(struct cli *cli, const char *name, const char *id) {
    struct buf path = {0};
    json_t *answer;
    buf_path(&path, "/v1/users/{}/tokens/{}", name, id);
    int code = send(cli, "DELETE", &path, NULL, NULL, &answer);
    if (!code && !cli->options.json)
        printf("%s revoked\n", id);
    json_decref(answer);
    return code;
}

int command_token(struct cli *cli) {
    const char *verb = cli->args[0], *name = cli->args[1], *id = cli->args[2];
    if (!strcmp(verb, "list") && !id)
        return list_tokens(cli, name);
    if (!strcmp(verb, "add") && !id)
        return add_token(cli, name);
    if (!strcmp(verb, "revoke") && id)
        return revoke_token(cli, name, id);
    return complain(EXIT_USAGE, "write token list NAME, token add NAME, or token revoke NAME ID");
}

/* ---- The audit ---- */

int command_audit(struct cli *cli) {
    static const struct column columns[] = {{"at", false, false},      {"user", false, false},
                                            {"address", false, false}, {"action", false, false},
                                            {"object", false, false},  {"", false, true}};
    struct table table = {.columns = columns, .n_columns = sizeof columns / sizeof *columns};
    struct buf path = {0};
    json_t *answer;
    const json_t *entry;
    size_t i;
    buf_path(&path, "/v1/audit");
    buf_query(&path, "object", cli->args[0]);
    buf_query(&path, "limit", cli->options.limit);
    int code = api_get(cli, &path, &answer);
    if (!code && answer) {
        json_array_foreach(value_at(answer, "entries"), i, entry) {
            table_cell(&table, "%.19s", value_string(entry, "at"));
            table_cell(&table, "%s", value_string(entry, "user"));
            table_cell(&table, "%s", value_string(entry, "address"));
            table_cell(&table, "%s", value_string(entry, "action"));
            table_cell(&table, "%s", value_string(entry, "object"));
            table_cell(&table, "%s", value_string(entry, "detail"));
        }
        code = table_print(&table) ? api_complain_memory() : EXIT_OK;
    }
    json_decref(answer);
    return code;
}
