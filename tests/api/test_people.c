/* People over HTTP: every route for everybody, users and tokens, what is private, quotas, ovrctl.
 */
#include "tests/api/daemon.h"

#include <stdio.h>
#include <sys/stat.h>
#include <time.h>

#define SPHERE "'dataset':{'generator':'sphere','samples':200}"
#define SPEC "{" SPHERE ",'model':{'kind':'mlp','hidden':[8]},'training':{'epochs':1}}"

/* Who asks. "other" is a member as the owner is one; nothing in the matrix is hers. */
enum who { NONE, BAD, EXPIRED, REVOKED, DISABLED, VIEWER, READER, OTHER, OWNER, ADMIN, N_WHO };
static const char *const who_names[N_WHO] = {"none",   "bad",    "expired", "revoked", "disabled",
                                             "viewer", "reader", "other",   "owner",   "admin"};
static char tokens[N_WHO][128];
static char *hers, *hidden, *hers_sweep, *hidden_sweep, *owner_token;

static void become(struct daemon *d, enum who who) {
    snprintf(d->token, sizeof d->token, "%s", tokens[who]);
}

static void keep(enum who who, const char *token) {
    snprintf(tokens[who], sizeof tokens[who], "%s", token);
}

static const char *make_token(struct daemon *d, const char *user, const char *body) {
    const struct answer *a = post(d, text("/v1/users/%s/tokens", user), body);
    assert_status(a, 201);
    return text_at(a->json, "/token");
}

static const struct answer *send(struct daemon *d, const char *method, const char *path) {
    return call(d, &(struct call){.method = method, .path = path});
}

static char *post_sweep(struct daemon *d, const char *private) {
    const struct answer *a =
        post(d, "/v1/sweeps",
             text("{'base':" SPEC ",'private':%s,'grid':{'/training/epochs':[1]}}", private));
    assert_status(a, 202);
    return strdup(text_at(a->json, "/id"));
}

static int set_up(void **state) {
    static const char *const options[] = {"--wrong-tokens", "100000", NULL};
    struct daemon *d = daemon_new(options);
    *state = d;
    keep(ADMIN, add_user(d, "root", "admin"));
    become(d, ADMIN);
    keep(VIEWER, add_user(d, "eve", "viewer"));
    keep(OTHER, add_user(d, "bob", "member"));
    keep(OWNER, add_user(d, "anna", "member"));
    keep(DISABLED, add_user(d, "gone", "member"));
    keep(BAD, "ovrd_0000000000000000000000000000000000000000000000000000000000000000");
    assert_status(send(d, "DELETE", "/v1/users/gone"), 204);
    become(d, OWNER);
    keep(READER, make_token(d, "anna", "{'label':'r','scope':'read'}"));
    keep(REVOKED, make_token(d, "anna", "{'label':'x'}"));
    const struct answer *list = get(d, "/v1/users/anna/tokens");
    assert_status(
        send(d, "DELETE", text("/v1/users/anna/tokens/%s", text_at(list->json, "/tokens/0/id"))),
        204);
    owner_token = strdup(text_at(list->json, "/tokens/2/id"));
    time_t soon = time(NULL) + 2;
    char at[32];
    strftime(at, sizeof at, "%Y-%m-%dT%H:%M:%SZ", gmtime(&soon));
    keep(EXPIRED, make_token(d, "anna", text("{'label':'e','expires_at':'%s'}", at)));
    upload_images(d, "images", 400, 20, 1);
    hers = submit(d, SPEC);
    hidden = submit(d, "{'private':true," SPHERE ",'model':{'kind':'mlp','hidden':[8]}}");
    hers_sweep = post_sweep(d, "false");
    hidden_sweep = post_sweep(d, "true");
    wait_for(d, hers, "succeeded");
    wait_for(d, hidden, "succeeded");
    while (time(NULL) <= soon)
        nap(50);
    d->token[0] = '\0';
    return 0;
}

static int tear_down(void **state) {
    free(hers);
    free(hidden);
    free(hers_sweep);
    free(hidden_sweep);
    free(owner_token);
    return without_daemon(state);
}

/* ---- Every route for everybody ---- */

struct row {
    char method[16], path[128], need[24];
};

/* The table of routes, as api/routes.c has it. */
static size_t read_table(struct row *rows, size_t most) {
    FILE *file = fopen("api/routes.c", "r");
    char line[512];
    size_t n = 0;
    if (!file)
        skip();
    while (fgets(line, sizeof line, file) && n < most) {
        struct row *row = &rows[n];
        if (sscanf(line, " {\"%15[A-Z]\", \"%127[^\"]\"", row->method, row->path) != 2)
            continue;
        const char *need = strstr(line, ".need = NEED_");
        snprintf(row->need, sizeof row->need, "%.*s", need ? (int)strcspn(need + 13, " ,}") : 5,
                 need ? need + 13 : "USUAL");
        n++;
    }
    fclose(file);
    return n;
}

/* The least of its users that may come in; N_WHO is nobody. 1 viewer, 2 member, 3 admin. */
static int needed(const struct row *row) {
    int usual = strcmp(row->method, "GET") == 0 ? 1 : 2;
    return strcmp(row->need, "NOTHING") == 0 ? 0
           : strcmp(row->need, "READ") == 0  ? 1
           : strcmp(row->need, "USUAL") == 0 ? usual
           : strcmp(row->need, "WRITE") == 0 ? 2
           : strcmp(row->need, "SELF") == 0  ? 4 + usual
                                             : 3;
}

static int level(enum who who) {
    static const int levels[N_WHO] = {
        [VIEWER] = 1, [READER] = 1, [OTHER] = 2, [OWNER] = 2, [ADMIN] = 3};
    return levels[who];
}

/* 401, 403, or 0: it comes in. To what is for workers no person's token opens the door
 * (tests/api/test_work.py). */
static int expected(const struct row *row, enum who who) {
    if (strcmp(row->need, "WORKER") == 0)
        return 401;
    int need = needed(row), self = need > 4 && (who == READER || who == OWNER);
    if (need > 4)
        need = self ? need - 4 : 3;
    return level(who) >= need ? 0 : level(who) ? 403 : 401;
}

/* A path that is anna's, with a query argument that no route knows: who comes in gets 422, and
 * nothing is changed. */
static const char *harmless(const struct row *row) {
    static char path[300];
    size_t n = 0;
    int of_people = strncmp(row->path, "/v1/users", 9) == 0;
    for (const char *c = row->path; *c; c++) {
        if (*c != '{') {
            path[n++] = *c;
            continue;
        }
        const char *value = strncmp(c, "{tensor}", 8) == 0  ? "encoder.bias"
                            : strncmp(c, "{split}", 7) == 0 ? "train"
                            : strncmp(c, "{name}", 6) == 0  ? of_people ? "anna" : "images"
                            : of_people                     ? owner_token
                            : strstr(row->path, "/sweeps/") ? hers_sweep
                                                            : hers;
        n += (size_t)snprintf(path + n, sizeof path - n, "%s", value);
        c = strchr(c, '}');
    }
    snprintf(path + n, sizeof path - n, "?no_such_argument=1");
    return path;
}

static void test_every_route_for_everybody(void **state) {
    struct daemon *d = *state;
    static struct row rows[128];
    size_t n = read_table(rows, COUNT(rows));
    assert_in_range(n, 50, COUNT(rows) - 1);
    for (size_t i = 0; i < n; i++) {
        for (enum who who = NONE; who < N_WHO; who++) {
            become(d, who);
            int status = expected(&rows[i], who);
            const struct answer *a = send(d, rows[i].method, harmless(&rows[i]));
            if (a->status != (status ? status : 422))
                fail_msg("%s %s for %s: %d, not %d", rows[i].method, rows[i].path, who_names[who],
                         a->status, status ? status : 422);
            if (!status)
                continue;
            const char *challenge = header(a, "WWW-Authenticate");
            assert_non_null(challenge);
            assert_int_equal(strncmp(challenge, "Bearer realm=\"ovrd\"", 19), 0);
            assert_int_equal(strstr(challenge, "error=\"invalid_token\"") != NULL,
                             status == 401 && who != NONE);
            assert_int_equal(strstr(challenge, "error=\"insufficient_scope\"") != NULL,
                             status == 403);
        }
    }
    d->token[0] = '\0';
}

/* Nothing tells what was wrong with a token. */
static void test_all_wrong_tokens_get_one_answer(void **state) {
    struct daemon *d = *state;
    become(d, BAD);
    const struct answer *a = get(d, "/v1/me");
    for (enum who who = BAD; who <= DISABLED; who++) {
        become(d, who);
        const struct answer *b = get(d, "/v1/me");
        assert_problem(b, 401, "unauthorized", "unknown, expired or revoked");
        assert_string_equal(b->body, a->body);
    }
    d->token[0] = '\0';
}

static void test_tokens_come_in_the_header_only(void **state) {
    struct daemon *d = *state;
    assert_problem(get(d, "/v1/experiments?access_token=%s", tokens[ADMIN]), 401, "unauthorized",
                   "Authorization: Bearer");
    assert_status(get(d, "/v1/experiments?token=%s", tokens[ADMIN]), 401);
    const char *const bad[] = {text("Authorization: Basic %s", tokens[ADMIN]),
                               text("Authorization: %s", tokens[ADMIN]), "Authorization: Bearer",
                               text("Authorization: Bearer%s", tokens[ADMIN])};
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_status(
            call(d, &(struct call){.method = "GET", .path = "/v1/me", .headers = {bad[i]}}), 401);
    const char *good[] = {text("authorization: bearer %s", tokens[ADMIN]),
                          text("Authorization: Bearer   %s", tokens[ADMIN])};
    for (size_t i = 0; i < COUNT(good); i++)
        assert_status(
            call(d, &(struct call){.method = "GET", .path = "/v1/me", .headers = {good[i]}}), 200);
    const struct call twice = {.method = "GET", .path = "/v1/me", .headers = {good[0], good[1]}};
    assert_problem(call(d, &twice), 400, "bad-request", "two Authorization");
}

/* ---- What is whose ---- */

static void test_others_things_stay_as_they_are(void **state) {
    struct daemon *d = *state;
    static const char *const verbs[] = {"cancel", "pause", "resume"};
    become(d, OTHER);
    for (size_t i = 0; i < COUNT(verbs); i++) {
        assert_problem(post(d, text("/v1/experiments/%s/%s", hers, verbs[i]), NULL), 403,
                       "forbidden", "belongs to anna");
        assert_status(post(d, text("/v1/experiments/%s/%s", hidden, verbs[i]), NULL), 404);
    }
    assert_problem(send(d, "DELETE", text("/v1/experiments/%s", hers)), 403, "forbidden", "anna");
    const struct call edit = {.method = "PATCH",
                              .path = text("/v1/experiments/%s", hers),
                              .headers = {"If-Match: *", "Content-Type: application/json"},
                              .body = "{\"name\":\"mine\"}"};
    assert_problem(call(d, &edit), 403, "forbidden", "anna");
    assert_problem(post(d, text("/v1/sweeps/%s/cancel", hers_sweep), NULL), 403, "forbidden",
                   "anna");
    assert_problem(send(d, "DELETE", "/v1/datasets/images"), 403, "forbidden",
                   "data set images belongs to anna");
    assert_problem(put(d, "/v1/datasets/images/train?format=cifar10", "x", 1), 403, "forbidden",
                   "anna");
    /* To run somebody's spec again is a thing of one's own. */
    const struct answer *a = post(d, text("/v1/experiments/%s/rerun", hers), NULL);
    assert_status(a, 202);
    assert_string_equal(text_at(a->json, "/owner"), "bob");
    char *mine = strdup(text_at(a->json, "/id"));
    wait_for(d, mine, "succeeded");
    become(d, OWNER);
    assert_status(send(d, "DELETE", text("/v1/experiments/%s", mine)), 403);
    become(d, ADMIN);
    assert_status(send(d, "DELETE", text("/v1/experiments/%s", mine)), 204);
    free(mine);
    d->token[0] = '\0';
}

static int mentions(const struct answer *a, const char *id) {
    return strstr(a->body, id) != NULL;
}

static void test_private_things_are_nowhere(void **state) {
    struct daemon *d = *state;
    static const char *const below[] = {
        "",     "/metrics", "/histogram", "/histograms",           "/units", "/weights",
        "/log", "/events",  "/model",     "/weights/encoder.bias", "/tiling"};
    static const enum who strangers[] = {VIEWER, OTHER};
    for (size_t w = 0; w < COUNT(strangers); w++) {
        become(d, strangers[w]);
        for (size_t i = 0; i < COUNT(below); i++)
            assert_problem(get(d, "/v1/experiments/%s%s", hidden, below[i]), 404, "not-found",
                           hidden);
        assert_status(get(d, "/v1/compare/histograms?a=%s&b=%s", hers, hidden), 404);
        assert_status(post(d, text("/v1/experiments/%s/encode", hidden), "{'samples':[[1,2,3]]}"),
                      404);
        assert_status(get(d, "/v1/sweeps/%s", hidden_sweep), 404);
        assert_false(mentions(get(d, "/v1/experiments?limit=500"), hidden));
        assert_false(mentions(get(d, "/v1/experiments?owner=anna"), hidden));
        assert_false(mentions(get(d, "/v1/experiments?sort=-result.accuracy"), hidden));
        assert_false(mentions(get(d, "/v1/experiments?sort=finished"), hidden));
        assert_false(mentions(get(d, "/v1/sweeps"), hidden_sweep));
    }
    assert_problem(
        post(d, "/v1/experiments",
             text("{" SPHERE ",'model':{'kind':'mlp','hidden':[8],'init':{'experiment':'%s'}}}",
                  hidden)),
        422, "invalid-spec", "");
    assert_status(post(d, text("/v1/experiments/%s/rerun", hidden), NULL), 404);
    static const enum who friends[] = {READER, OWNER, ADMIN};
    for (size_t w = 0; w < COUNT(friends); w++) {
        become(d, friends[w]);
        assert_status(get(d, "/v1/experiments/%s/metrics", hidden), 200);
        assert_status(get(d, "/v1/sweeps/%s", hidden_sweep), 200);
        assert_true(mentions(get(d, "/v1/experiments?owner=anna"), hidden));
        assert_true(mentions(get(d, "/v1/sweeps?owner=anna"), hidden_sweep));
    }
    become(d, OWNER);
    assert_true(mentions(get(d, "/v1/experiments?owner=me"), hidden));
    become(d, OTHER);
    assert_false(mentions(get(d, "/v1/experiments?owner=me"), "anna"));
    d->token[0] = '\0';
}

static void test_privacy_can_be_changed(void **state) {
    struct daemon *d = *state;
    become(d, OWNER);
    char *id = submit(d, SPEC);
    struct call edit = {.method = "PATCH",
                        .path = text("/v1/experiments/%s", id),
                        .headers = {"If-Match: *", "Content-Type: application/json"},
                        .body = "{\"private\":true}"};
    const struct answer *a = call(d, &edit);
    assert_status(a, 200);
    assert_json(a->json, "/private", "true");
    become(d, OTHER);
    assert_status(get(d, "/v1/experiments/%s", id), 404);
    become(d, OWNER);
    edit.body = "{\"private\":null}"; /* as --visibility says: open */
    assert_json(call(d, &edit)->json, "/private", "false");
    edit.body = "{\"priority\":1}";
    assert_problem(call(d, &edit), 422, "invalid-spec", "");
    edit.body = "{\"private\":1}";
    assert_status(call(d, &edit), 422);
    become(d, OTHER);
    assert_status(get(d, "/v1/experiments/%s", id), 200);
    free(id);
    d->token[0] = '\0';
}

static void test_priorities_above_0_are_for_admins(void **state) {
    struct daemon *d = *state;
    static const char high[] = "{'priority':1," SPHERE ",'model':{'kind':'mlp','hidden':[8]}}";
    become(d, OTHER);
    assert_fault(post(d, "/v1/experiments", high), "/priority", "above 0 is for admins");
    assert_fault(post(d, "/v1/experiments?dry_run=true", high), "/priority", "for admins");
    become(d, ADMIN);
    assert_status(post(d, "/v1/experiments?dry_run=true", high), 200);
    d->token[0] = '\0';
}

/* It stays as hidden as it is now, and nobody gets before others by it. */
static void test_running_it_again(void **state) {
    static const char *const verbs[] = {"rerun", "replay"};
    struct daemon *d = *state;
    become(d, ADMIN);
    char *first = submit(d, "{'priority':5," SPHERE ",'model':{'kind':'mlp','hidden':[8]}}");
    wait_for(d, first, "succeeded");
    for (size_t i = 0; i < COUNT(verbs); i++) {
        become(d, OTHER);
        const struct answer *a = post(d, text("/v1/experiments/%s/%s", first, verbs[i]), NULL);
        assert_status(a, 202);
        assert_json(a->json, "/spec/priority", "0");
        become(d, ADMIN);
        a = post(d, text("/v1/experiments/%s/%s", first, verbs[i]), NULL);
        assert_json(a->json, "/spec/priority", "5");
    }
    const struct call hide = {.method = "PATCH",
                              .path = text("/v1/experiments/%s", first),
                              .headers = {"If-Match: *", "Content-Type: application/json"},
                              .body = "{\"private\":true}"};
    assert_status(call(d, &hide), 200);
    for (size_t i = 0; i < COUNT(verbs); i++)
        assert_json(post(d, text("/v1/experiments/%s/%s", first, verbs[i]), NULL)->json, "/private",
                    "true");
    free(first);
    d->token[0] = '\0';
}

/* ---- Users and tokens ---- */

static void test_me(void **state) {
    struct daemon *d = *state;
    become(d, READER);
    const struct answer *a = get(d, "/v1/me");
    assert_string_equal(text_at(a->json, "/name"), "anna");
    assert_string_equal(text_at(a->json, "/role"), "member");
    assert_string_equal(text_at(a->json, "/scope"), "read");
    assert_json(a->json, "/users", "true");
    assert_true(number_at(a->json, "/usage/storage_bytes") > 400 * RECORD);
    d->token[0] = '\0';
}

static void test_users(void **state) {
    struct daemon *d = *state;
    become(d, ADMIN);
    assert_problem(post(d, "/v1/users", "{'name':'anna','role':'member'}"), 409, "conflict",
                   "already");
    const struct answer *a =
        post(d, "/v1/users", "{'name':'Anna','quotas':{'queued':-1,'running':0.5},'x':1}");
    assert_fault(a, "/name", "a-z");
    assert_fault(a, "/role", "missing");
    assert_fault(a, "/quotas/queued", "0..2^53");
    assert_fault(a, "/quotas/running", "0..2^53");
    assert_fault(a, "/x", "known are name, role, quotas");
    a = post(d, "/v1/users", "{'name':'zoe','role':'member','quotas':{'queued':9007199254740993}}");
    assert_fault(a, "/quotas/queued", "2^53");
    a = post(d, "/v1/users", "{'name':'zoe','role':'member','quotas':{'queued':1.0}}");
    assert_status(a, 201);
    assert_string_equal(header(a, "Location"), "/v1/users/zoe");
    assert_string_equal(header(a, "Cache-Control"), "no-store");
    a = get(d, "/v1/users/zoe");
    assert_json(a->json, "/quotas", "{'running':null,'queued':1,'storage_bytes':null}");
    struct call edit = {.method = "PATCH",
                        .path = "/v1/users/zoe",
                        .headers = {"Content-Type: application/json"},
                        .body = "{\"role\":\"viewer\",\"quotas\":{\"running\":3}}"};
    assert_problem(call(d, &edit), 428, "precondition-required", "user");
    edit.path = "/v1/users/nobody";
    assert_status(call(d, &edit), 404);
    edit.path = "/v1/users/zoe";
    edit.headers[1] = text("If-Match: %s", header(a, "ETag"));
    a = call(d, &edit);
    assert_status(a, 200);
    assert_json(a->json, "/quotas", "{'running':3,'queued':1,'storage_bytes':null}");
    assert_problem(call(d, &edit), 412, "stale", "revision 2");
    edit.headers[1] = "If-Match: *";
    edit.path = "/v1/users/root";
    assert_problem(call(d, &edit), 409, "conflict", "last admin");
    assert_problem(send(d, "DELETE", "/v1/users/root"), 409, "conflict", "last admin");
    /* Pages. */
    a = get(d, "/v1/users?limit=2");
    assert_int_equal(json_array_size(at(a->json, "/users")), 2);
    assert_string_equal(header(a, "Link"), "</v1/users?cursor=bob&limit=2>; rel=\"next\"");
    assert_string_equal(text_at(get(d, "/v1/users?cursor=bob&limit=2")->json, "/users/0/name"),
                        "eve");
    d->token[0] = '\0';
}

static void test_a_removed_user_stops_at_once(void **state) {
    struct daemon *d = *state;
    become(d, ADMIN);
    char *token = strdup(add_user(d, "short", "member"));
    snprintf(d->token, sizeof d->token, "%s", token);
    char *id = submit(d, SPEC);
    become(d, ADMIN);
    assert_status(send(d, "DELETE", "/v1/users/short"), 204);
    snprintf(d->token, sizeof d->token, "%s", token);
    assert_status(get(d, "/v1/me"), 401);
    become(d, ADMIN);
    assert_string_equal(text_at(get(d, "/v1/experiments/%s", id)->json, "/owner"), "short");
    assert_problem(post(d, "/v1/users/short/tokens", "{'label':'x'}"), 409, "conflict", "disabled");
    free(token);
    free(id);
    d->token[0] = '\0';
}

static void test_tokens(void **state) {
    struct daemon *d = *state;
    become(d, OWNER);
    assert_problem(post(d, "/v1/users/anna/tokens", "{'label':'x','scope':'admin'}"), 403,
                   "forbidden", "up to scope write");
    const struct answer *a =
        post(d, "/v1/users/anna/tokens", "{'scope':'all','expires_at':'2001-01-01T00:00:00Z'}");
    assert_fault(a, "/label", "missing");
    assert_fault(a, "/scope", "read, write or admin");
    assert_fault(a, "/expires_at", "time to come");
    a = post(d, "/v1/users/anna/tokens", "{'label':'laptop','expires_at':'2099-01-01T00:00:00Z'}");
    assert_status(a, 201);
    assert_string_equal(text_at(a->json, "/scope"), "write");
    const struct answer *shown = get(d, "%s", header(a, "Location"));
    assert_status(shown, 200);
    assert_string_equal(text_at(shown->json, "/expires_at"), "2099-01-01T00:00:00.000Z");
    assert_null(at(shown->json, "/token"));
    char label[65 * 2 + 1] = "";
    for (int i = 0; i < 64; i++)
        strcat(label, "é");
    a = post(d, "/v1/users/anna/tokens", text("{'label':'%s'}", label));
    assert_string_equal(text_at(get(d, "%s", header(a, "Location"))->json, "/label"), label);
    strcat(label, "é");
    a = post(d, "/v1/users/anna/tokens", text("{'label':'%s'}", label));
    assert_fault(a, "/label", "1..64 characters");
    assert_status(get(d, "/v1/users/bob/tokens"), 403);
    become(d, ADMIN);
    assert_status(get(d, "/v1/users/anna/tokens/000000000000"), 404);
    assert_status(get(d, "/v1/users/nobody/tokens"), 404);
    assert_problem(post(d, "/v1/users/anna/tokens", "{'label':'x','scope':'admin'}"), 422,
                   "invalid-request", "role of anna");
    d->token[0] = '\0';
}

/* Who is no admin prunes what is hers, as if there were nothing else. */
static void test_prune(void **state) {
    struct daemon *d = *state;
    static const char all[] = "/v1/prune?ended_before=2999-01-01T00:00:00Z&limit=500";
    become(d, OTHER);
    char *his = submit(d, SPEC);
    wait_for(d, his, "succeeded");
    size_t n =
        json_array_size(at(post(d, text("%s&dry_run=true", all), NULL)->json, "/experiments"));
    become(d, ADMIN);
    const struct answer *a = post(d, text("%s&dry_run=true", all), NULL);
    assert_true(json_array_size(at(a->json, "/experiments")) > n);
    become(d, OTHER);
    a = post(d, all, NULL);
    assert_json(a->json, "/kept", "[]");
    assert_int_equal(json_array_size(at(a->json, "/experiments")), n);
    for (size_t i = 0; i < n; i++)
        assert_string_equal(text_at(a->json, text("/experiments/%zu/owner", i)), "bob");
    assert_status(get(d, "/v1/experiments/%s", his), 404);
    assert_status(get(d, "/v1/experiments/%s", hers), 200);
    d->token[0] = '\0';
    free(his);
}

static void test_quotas(void **state) {
    struct daemon *d = *state;
    become(d, ADMIN);
    const struct answer *a =
        post(d, "/v1/users", "{'name':'full','role':'member','quotas':{'storage_bytes':1000}}");
    assert_status(a, 201);
    snprintf(d->token, sizeof d->token, "%s", text_at(a->json, "/token/token"));
    a = put(d, "/v1/datasets/big/train?format=cifar10", "0123456789", 10 * RECORD > 5000 ? 10 : 10);
    assert_status(a, 422); /* little enough, but no record */
    uint8_t *records = make_records(1, 1);
    a = put(d, "/v1/datasets/big/train?format=cifar10", records, RECORD);
    free(records);
    assert_problem(a, 429, "quota-exceeded", "this upload does not fit");
    assert_string_equal(header(a, "Retry-After"), "60");
    char *id = submit(d, SPEC);
    wait_for(d, id, "succeeded");
    a = get(d, "/v1/me");
    assert_true(number_at(a->json, "/usage/storage_bytes") > 0);
    free(id);
    become(d, ADMIN);
    const struct answer *poor =
        post(d, "/v1/users", "{'name':'poor','role':'member','quotas':{'queued':2}}");
    snprintf(d->token, sizeof d->token, "%s", text_at(poor->json, "/token/token"));
    assert_problem(post(d, "/v1/sweeps", "{'base':" SPEC ",'grid':{'/training/seed':[1,2,3]}}"),
                   429, "quota-exceeded", "without room for 3 more");
    d->token[0] = '\0';
}

static void test_the_audit(void **state) {
    struct daemon *d = *state;
    become(d, ADMIN);
    const struct answer *a = get(d, "/v1/audit?object=%s", hers);
    assert_string_equal(text_at(a->json, "/entries/0/action"), "experiment.submit");
    assert_string_equal(text_at(a->json, "/entries/0/user"), "anna");
    assert_string_equal(text_at(a->json, "/entries/0/address"), "127.0.0.1");
    assert_string_equal(text_at(a->json, "/entries/0/token"), owner_token);
    a = get(d, "/v1/audit?limit=2&user=anna");
    assert_int_equal(json_array_size(at(a->json, "/entries")), 2);
    char path[300];
    snprintf(path, sizeof path, "%s", header(a, "Link") + 1);
    *strchr(path, '>') = '\0';
    assert_status(get(d, "%s", path), 200);
    assert_json(get(d, "/v1/audit?since=2099-01-01T00:00:00Z")->json, "/entries", "[]");
    a = get(d, "/v1/audit?object=images");
    assert_string_equal(text_at(a->json, "/entries/0/action"), "dataset.put");
    d->token[0] = '\0';
}

/* A stream that a token opened ends with it, long before the next heartbeat. */
static void test_streams_end_with_their_token(void **state) {
    struct daemon *d = *state;
    char command[600], id[16];
    become(d, OWNER);
    char *long_one = submit(d, "{'dataset':{'generator':'sphere','samples':100000},'model':{'kind':"
                               "'mlp','hidden':[256]},'training':{'epochs':10000}}");
    const struct answer *a = post(d, "/v1/users/anna/tokens", "{'label':'stream'}");
    snprintf(id, sizeof id, "%s", text_at(a->json, "/id"));
    post(d, text("/v1/experiments/%s/pause", long_one), NULL);
    snprintf(command, sizeof command,
             "curl -sN -m 20 -H 'Authorization: Bearer %s' %s/v1/experiments/%s/events",
             text_at(a->json, "/token"), d->url, long_one);
    FILE *stream = popen(command, "r");
    char line[500];
    assert_non_null(fgets(line, sizeof line, stream)); /* it is open */
    nap(500);
    assert_status(send(d, "DELETE", text("/v1/users/anna/tokens/%s", id)), 204);
    double revoked = now();
    while (fgets(line, sizeof line, stream))
        ;
    assert_true(now() - revoked < 3 * SLOWNESS);
    assert_int_equal(pclose(stream), 0); /* in good order */
    assert_status(post(d, text("/v1/experiments/%s/cancel", long_one), NULL), 202);
    free(long_one);
    d->token[0] = '\0';
}

static FILE *open_stream(struct daemon *d, const char *token, const char *id) {
    return popen(text("curl -sN -m 20 -H 'Authorization: Bearer %s' %s/v1/experiments/%s/events",
                      token, d->url, id),
                 "r");
}

/* Seconds until it ends, which it must do in good order. */
static double read_to_end(FILE *stream) {
    char line[500];
    double start = now();
    while (fgets(line, sizeof line, stream))
        ;
    assert_int_equal(pclose(stream), 0);
    return now() - start;
}

/* It also ends when the token's time is over, and when the experiment is hidden. */
static void test_streams_end_when_nothing_may_be_seen(void **state) {
    struct daemon *d = *state;
    char line[500], at[32], token[128];
    time_t soon = time(NULL) + 3;
    become(d, OWNER);
    char *id = submit(d, "{'dataset':{'generator':'sphere','samples':100000},'model':{'kind':"
                         "'mlp','hidden':[256]},'training':{'epochs':10000}}");
    strftime(at, sizeof at, "%Y-%m-%dT%H:%M:%SZ", gmtime(&soon));
    snprintf(token, sizeof token, "%s",
             make_token(d, "anna", text("{'label':'e','expires_at':'%s'}", at)));
    wait_for(d, id, "running");
    FILE *expiring = open_stream(d, token, id);
    assert_non_null(fgets(line, sizeof line, expiring));
    assert_true(read_to_end(expiring) < 6 * SLOWNESS);
    assert_true(time(NULL) >= soon);
    FILE *stranger = open_stream(d, tokens[OTHER], id);
    assert_non_null(fgets(line, sizeof line, stranger));
    nap(500);
    const struct call hide = {.method = "PATCH",
                              .path = text("/v1/experiments/%s", id),
                              .headers = {"If-Match: *", "Content-Type: application/json"},
                              .body = "{\"private\":true}"};
    assert_status(call(d, &hide), 200);
    assert_true(read_to_end(stranger) < 3 * SLOWNESS);
    assert_status(post(d, text("/v1/experiments/%s/cancel", id), NULL), 202);
    free(id);
    d->token[0] = '\0';
}

/* Others who have an account on the machine read no experiments from the files. */
static void test_files_are_not_for_everybody(void **state) {
    static const char *const names[] = {"ovrd.sqlite3", "ovrd.sqlite3-wal", "lock", "datasets",
                                        "experiments"};
    const struct daemon *d = *state;
    for (size_t i = 0; i < COUNT(names); i++) {
        struct stat found;
        assert_int_equal(stat(text("%s/%s", d->dir, names[i]), &found), 0);
        assert_int_equal(found.st_mode & 0007, 0);
    }
}

static void test_a_private_lab(void **state) {
    (void)state;
    static const char *const options[] = {"--visibility", "private", NULL};
    struct daemon *d = daemon_new(options);
    /* From when there were no users: anybody's then, an admin's from now on. */
    char *old = submit(d, SPEC);
    char *open = submit(d, "{'private':false," SPHERE ",'model':{'kind':'mlp','hidden':[8]}}");
    const struct answer *a = get(d, "/v1/experiments/%s", old);
    assert_json(a->json, "/owner", "null");
    assert_json(a->json, "/private", "true");
    a = get(d, "/v1/me");
    assert_json(a->json, "/name", "null");
    assert_json(a->json, "/users", "false");
    assert_string_equal(text_at(a->json, "/role"), "admin");
    assert_problem(post(d, "/v1/users", "{'name':'anna','role':'member'}"), 409, "conflict",
                   "first user must be an admin");
    char *root = strdup(add_user(d, "root", "admin"));
    assert_status(get(d, "/v1/me"), 401);
    snprintf(d->token, sizeof d->token, "%s", root);
    const char *anna = add_user(d, "anna", "member");
    snprintf(d->token, sizeof d->token, "%s", anna);
    assert_status(get(d, "/v1/experiments/%s", old), 404);
    assert_status(get(d, "/v1/experiments/%s", open), 200);
    assert_problem(post(d, text("/v1/experiments/%s/cancel", open), NULL), 403, "forbidden",
                   "there were no users");
    snprintf(d->token, sizeof d->token, "%s", root);
    assert_status(get(d, "/v1/experiments/%s", old), 200);
    free(old);
    free(open);
    free(root);
    daemon_free(d);
}

/* ---- ovrctl ---- */

static const char *ovrctl(struct daemon *d, int status, const char *arguments) {
    static char output[16384];
    const char *build = getenv("OVRD_TEST_BUILD");
    FILE *pipe = popen(text("OVRD_TOKEN='%s' %s/ovrctl %s --host %s 2>&1", d->token,
                            build ? build : "build", arguments, d->url),
                       "r");
    size_t n = fread(output, 1, sizeof output - 1, pipe);
    output[n] = '\0';
    int code = pclose(pipe);
    if (WEXITSTATUS(code) != status)
        fail_msg("ovrctl %s: %d\n%s", arguments, WEXITSTATUS(code), output);
    return output;
}

static void test_ovrctl(void **state) {
    struct daemon *d = *state;
    d->token[0] = '\0';
    assert_non_null(strstr(ovrctl(d, 3, "list"), "OVRD_TOKEN"));
    become(d, ADMIN);
    assert_non_null(strstr(ovrctl(d, 0, "whoami"), "root"));
    const char *said = ovrctl(d, 0, "user add mei --role member");
    char token[128];
    snprintf(token, sizeof token, "%.69s", strstr(said, "ovrd_"));
    assert_non_null(strstr(ovrctl(d, 0, "user list"), "mei"));
    ovrctl(d, 0, "user edit mei '{\"quotas\": {\"queued\": 7}}'");
    snprintf(d->token, sizeof d->token, "%s", token);
    said = ovrctl(d, 0, "whoami");
    assert_non_null(strstr(said, "mei"));
    assert_non_null(strstr(said, "7"));
    assert_non_null(strstr(ovrctl(d, 0, "token add mei --label laptop --scope read"), "ovrd_"));
    said = ovrctl(d, 0, "token list mei");
    assert_non_null(strstr(said, "laptop"));
    char id[16];
    snprintf(id, sizeof id, "%.12s", strstr(said, "laptop") ? said + strcspn(said, "\n") + 1 : "");
    ovrctl(d, 0, text("token revoke mei %s", id));
    assert_non_null(strstr(ovrctl(d, 0, "token list mei"), "revoked"));
    assert_non_null(strstr(ovrctl(d, 3, "user list"), "admin"));
    /* From a file, which others must not be able to read. */
    const char *path = text("%s/a-token", d->dir);
    FILE *file = fopen(path, "w");
    fprintf(file, "%s\n", token);
    fclose(file);
    d->token[0] = '\0';
    chmod(path, 0644);
    assert_non_null(strstr(ovrctl(d, 2, text("whoami --token-file %s", path)), "chmod 600"));
    chmod(path, 0600);
    assert_non_null(strstr(ovrctl(d, 0, text("whoami --token-file %s", path)), "mei"));
    become(d, ADMIN);
    assert_non_null(strstr(ovrctl(d, 0, "audit"), "user.add"));
    ovrctl(d, 0, "user remove mei");
    assert_non_null(strstr(ovrctl(d, 0, "user list"), "disabled"));
    d->token[0] = '\0';
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_route_for_everybody),
        cmocka_unit_test(test_all_wrong_tokens_get_one_answer),
        cmocka_unit_test(test_tokens_come_in_the_header_only),
        cmocka_unit_test(test_me),
        cmocka_unit_test(test_others_things_stay_as_they_are),
        cmocka_unit_test(test_private_things_are_nowhere),
        cmocka_unit_test(test_privacy_can_be_changed),
        cmocka_unit_test(test_priorities_above_0_are_for_admins),
        cmocka_unit_test(test_running_it_again),
        cmocka_unit_test(test_users),
        cmocka_unit_test(test_a_removed_user_stops_at_once),
        cmocka_unit_test(test_tokens),
        cmocka_unit_test(test_prune),
        cmocka_unit_test(test_quotas),
        cmocka_unit_test(test_the_audit),
        cmocka_unit_test(test_streams_end_with_their_token),
        cmocka_unit_test(test_streams_end_when_nothing_may_be_seen),
        cmocka_unit_test(test_files_are_not_for_everybody),
        cmocka_unit_test(test_a_private_lab),
        cmocka_unit_test(test_ovrctl),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
