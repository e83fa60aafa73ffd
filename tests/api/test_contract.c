/* GET /openapi.json says what the daemon does: routes, arguments, ranges and defaults of the spec,
 * examples. That every answer fits its schema is checked by each request of all API tests. */
#include "tests/api/contract.h"
#include "tests/api/daemon.h"

#include <stdio.h>

static const char *const methods[] = {"GET", "POST", "PUT", "PATCH", "DELETE"};

/* A finished experiment and a data set with which every route can answer. */
static char *finished, *finished_sweep, *of_images, *a_token;

static int set_up(void **state) {
    struct daemon *d = daemon_new(NULL);
    *state = d;
    const struct answer *added =
        post(d, "/v1/users", "{'name':'anna','role':'admin','quotas':{'queued':100000}}");
    assert_status(added, 201);
    a_token = strdup(text_at(added->json, "/token/id"));
    snprintf(d->token, sizeof d->token, "%s", text_at(added->json, "/token/token"));
    upload_images(d, "cifar10", 900, 20, 1);
    finished = submit(d, "{'dataset':{'generator':'sphere','samples':200},'model':{'kind':"
                         "'ovr_encoder','hidden':[8]},'training':{'epochs':2},'probe':null}");
    of_images = submit(d, "{'dataset':{'name':'cifar10'},'model':{'kind':'mlp','hidden':[8]},"
                          "'training':{'epochs':1}}");
    wait_for(d, finished, "succeeded");
    wait_for(d, of_images, "succeeded");
    const struct answer *a =
        post(d, "/v1/sweeps",
             "{'base':{'dataset':{'generator':'sphere','samples':200},'model':{"
             "'kind':'mlp','hidden':[8]}},'grid':{'/training/epochs':[1]}}");
    assert_status(a, 202);
    finished_sweep = strdup(text_at(a->json, "/id"));
    wait_for(d, text_at(a->json, "/points/0/experiments/0/id"), "succeeded");
    return 0;
}

static int tear_down(void **state) {
    free(finished);
    free(finished_sweep);
    free(of_images);
    free(a_token);
    return without_daemon(state);
}

/* A path that exists, from its template, with the query that it can't do without. */
static const char *instance(const char *template) {
    static char path[256];
    size_t n = 0;
    if (strcmp(template, "/v1/compare/histograms") == 0) {
        snprintf(path, sizeof path, "%s?a=%s&b=%s:1", template, finished, finished);
        return path;
    }
    int of_people = strncmp(template, "/v1/users/", 10) == 0;
    const char *id = of_people                                   ? a_token
                     : strncmp(template, "/v1/sweeps/", 11) == 0 ? finished_sweep
                     : strstr(template, "/filters.png")          ? of_images
                                                                 : finished;
    for (const char *c = template; *c; c++) {
        if (*c != '{') {
            path[n++] = *c;
            continue;
        }
        const char *value = strncmp(c, "{id}", 4) == 0              ? id
                            : strncmp(c, "{tensor}", 8) == 0        ? "encoder.bias"
                            : strncmp(template, "/assets/", 8) == 0 ? "main.js"
                            : strncmp(c, "{name}", 6) == 0          ? of_people ? "anna" : "cifar10"
                            : strncmp(c, "{kind}", 6) == 0          ? "stale"
                                                                    : "train";
        n += (size_t)snprintf(path + n, sizeof path - n, "%s", value);
        c = strchr(c, '}');
    }
    path[n] = '\0';
    return path;
}

/* The same with one more argument. */
static const char *with_argument(const char *template, const char *name, const char *value) {
    const char *path = instance(template);
    return text("%s%c%s=%s", path, strchr(path, '?') ? '&' : '?', name, value);
}

#define each_path(d, template, item)                                                               \
    json_object_foreach(json_object_get((d)->contract, "paths"), template, item)

static const struct answer *send(struct daemon *d, const char *method, const char *path) {
    return call(d, &(struct call){.method = method, .path = path});
}

/* Those are not let in with the token of a person; tests/api/test_work.py has one of theirs. */
static int is_for_workers(const json_t *operation) {
    return json_object_get(json_array_get(json_object_get(operation, "security"), 0), "worker") !=
           NULL;
}

static void test_every_documented_route_is_there(void **state) {
    struct daemon *d = *state;
    const char *template;
    json_t *item;
    each_path(d, template, item) {
        for (size_t i = 0; i < COUNT(methods); i++) {
            if (!find_operation(item, methods[i]))
                continue;
            /* What would remove something is asked in a way that is refused. */
            const char *refused = strcmp(methods[i], "DELETE") ? "" : "?no_such=1";
            const struct answer *a = send(d, methods[i], text("%s%s", instance(template), refused));
            assert_int_not_equal(a->status, 404);
            assert_int_not_equal(a->status, 405);
            if (is_for_workers(find_operation(item, methods[i])))
                assert_problem(a, 401, "unauthorized", "workers");
            else if (strcmp(methods[i], "GET") == 0)
                assert_status(a, 200);
        }
    }
}

/* Allow names what the contract has, no more and no less; the rest is 405. */
static void test_every_method_is_documented(void **state) {
    struct daemon *d = *state;
    const char *template;
    json_t *item;
    each_path(d, template, item) {
        char allow[64] = "";
        for (size_t i = 0; i < COUNT(methods); i++)
            if (find_operation(item, methods[i]))
                strcat(strcat(allow, i ? methods[i] : "GET, HEAD"), ", ");
        strcat(allow, "OPTIONS");
        const struct answer *a = send(d, "OPTIONS", instance(template));
        assert_status(a, 204);
        assert_string_equal(header(a, "Allow"), allow);
        for (size_t i = 0; i <= COUNT(methods); i++) {
            const char *method = i < COUNT(methods) ? methods[i] : "BREW";
            if (find_operation(item, method))
                continue;
            a = send(d, method, instance(template));
            assert_problem(a, 405, "method-not-allowed", method);
            assert_string_equal(header(a, "Allow"), allow);
        }
    }
}

/* api/routes.c is the daemon's list of routes: each line {"METHOD", "/path", … is in the contract.
 */
static void test_every_route_is_documented(void **state) {
    struct daemon *d = *state;
    FILE *file = fopen("api/routes.c", "r");
    char line[512], method[16], path[128];
    size_t n = 0, documented = 0;
    const char *template;
    json_t *item;
    if (!file)
        skip();
    while (fgets(line, sizeof line, file)) {
        if (sscanf(line, " {\"%15[A-Z]\", \"%127[^\"]\"", method, path) != 2)
            continue;
        n++;
        item = json_object_get(json_object_get(d->contract, "paths"), path);
        if (!item || !find_operation(item, method))
            fail_msg("%s %s is not in the contract", method, path);
        const char *summary = text_at(find_operation(item, method), "/summary");
        if (!strstr(line, text("\"%s\"", summary)))
            fail_msg("%s %s has another summary than \"%s\"", method, path, summary);
    }
    fclose(file);
    each_path(d, template, item) {
        for (size_t i = 0; i < COUNT(methods); i++)
            documented += find_operation(item, methods[i]) != NULL;
    }
    assert_true(n > 10);
    assert_int_equal(n, documented);
}

static json_t *find_parameter(const struct daemon *d, const json_t *list, const char *in,
                              const char *name) {
    size_t i;
    json_t *parameter;
    json_array_foreach(list, i, parameter) {
        parameter = resolve(d->contract, parameter);
        if (strcmp(text_at(parameter, "/in"), in) == 0 &&
            (!name || strcmp(text_at(parameter, "/name"), name) == 0))
            return parameter;
    }
    return NULL;
}

/* Which query arguments a route knows, it says itself when it gets another. */
static void test_query_arguments_are_documented(void **state) {
    struct daemon *d = *state;
    const char *template;
    json_t *item;
    each_path(d, template, item) {
        for (size_t m = 0; m < COUNT(methods); m++) {
            json_t *operation = find_operation(item, methods[m]);
            const json_t *lists[] = {json_object_get(item, "parameters"),
                                     json_object_get(operation, "parameters")};
            if (!operation || is_for_workers(operation))
                continue;
            const struct answer *a = send(d, methods[m], with_argument(template, "no_such", "1"));
            assert_problem(a, 422, "invalid-query", "no_such");
            char known[512];
            const char *names = strstr(fault(a, "no_such"), "known are: ");
            snprintf(known, sizeof known, ", %s, ", names ? names + 11 : "");
            size_t n_known = 0, n_documented = 0;
            for (const char *c = known + 2; *c; c++)
                n_known += *c == ',' && c[-1] != ' ';
            for (size_t l = 0; l < COUNT(lists); l++) {
                size_t i;
                json_t *parameter;
                json_array_foreach(lists[l], i, parameter) {
                    parameter = resolve(d->contract, parameter);
                    if (strcmp(text_at(parameter, "/in"), "query") != 0)
                        continue;
                    n_documented++;
                    if (!strstr(known, text(", %s, ", text_at(parameter, "/name"))))
                        fail_msg("%s %s does not know %s", methods[m], template,
                                 text_at(parameter, "/name"));
                }
            }
            assert_int_equal(n_known, n_documented);
        }
    }
}

static int refuses_query(struct daemon *d, const char *template, const char *name,
                         const char *value) {
    const struct answer *a = send(d, "GET", with_argument(template, name, value));
    if (a->status == 422)
        assert_problem(a, 422, "invalid-query", name);
    return a->status == 422;
}

/* Ranges and choices of the query arguments of GET. */
static void test_query_ranges(void **state) {
    struct daemon *d = *state;
    const char *template;
    json_t *item;
    size_t ranges = 0, choices = 0;
    each_path(d, template, item) {
        json_t *lists[] = {json_object_get(item, "parameters"),
                           json_object_get(find_operation(item, "GET"), "parameters")};
        for (size_t l = 0; find_operation(item, "GET") && l < COUNT(lists); l++) {
            size_t i, k;
            json_t *parameter, *choice;
            json_array_foreach(lists[l], i, parameter) {
                parameter = resolve(d->contract, parameter);
                const json_t *schema = json_object_get(parameter, "schema");
                const char *name = text_at(parameter, "/name");
                if (strcmp(text_at(parameter, "/in"), "query") != 0)
                    continue;
                if (json_object_get(schema, "maximum")) {
                    double min = number_at(schema, "/minimum"), max = number_at(schema, "/maximum");
                    ranges++;
                    assert_false(refuses_query(d, template, name, text("%.0f", min)));
                    assert_false(refuses_query(d, template, name, text("%.0f", max)));
                    assert_true(refuses_query(d, template, name, text("%.0f", min - 1)));
                    assert_true(refuses_query(d, template, name, text("%.0f", max + 1)));
                    assert_true(refuses_query(d, template, name, "1.5"));
                    assert_true(refuses_query(d, template, name, "many"));
                    assert_true(refuses_query(d, template, name, ""));
                }
                json_array_foreach(json_object_get(schema, "enum"), k, choice) {
                    choices++;
                    assert_false(refuses_query(d, template, name, json_string_value(choice)));
                    assert_true(
                        refuses_query(d, template, name, text("%s!", json_string_value(choice))));
                }
            }
        }
    }
    assert_true(ranges >= 4);
    assert_true(choices >= 10);
}

static void test_head_is_get_without_body(void **state) {
    struct daemon *d = *state;
    static const char *const same[] = {"Content-Type", "Content-Length", "ETag", "Cache-Control",
                                       "Link"};
    const char *template;
    json_t *item;
    each_path(d, template, item) {
        if (!find_operation(item, "GET"))
            continue;
        const struct answer *full = send(d, "GET", instance(template));
        const struct answer *head = send(d, "HEAD", instance(template));
        assert_status(head, full->status);
        assert_int_equal(head->size, 0);
        for (size_t i = 0; i < COUNT(same); i++) {
            const char *a = header(full, same[i]), *b = header(head, same[i]);
            if (i == 1 && strcmp(template, "/metrics") == 0)
                continue; /* the answer before is in it */
            if ((a == NULL) != (b == NULL) || (a && strcmp(a, b) != 0))
                fail_msg("%s of %s: \"%s\" with GET, \"%s\" with HEAD", same[i], template,
                         a ? a : "none", b ? b : "none");
        }
    }
    const struct answer *a = send(d, "HEAD", "/v1/experiments/nobody");
    assert_status(a, 404);
    assert_string_equal(header(a, "Content-Type"), "application/problem+json");
}

static void test_problems_have_one_shape(void **state) {
    struct daemon *d = *state;
    assert_problem(get(d, "/nowhere"), 404, "not-found", "/openapi.json");
    assert_problem(get(d, "/v1/experiments/"), 404, "not-found", "nothing at");
    assert_problem(get(d, "/v1/experiments/nobody"), 404, "not-found", "nobody");
    assert_problem(get(d, "/v1/experiments/%s/weights/nothing", finished), 404, "not-found",
                   "nothing");
    assert_problem(get(d, "/v1/datasets/nothing"), 404, "not-found", "upload it");
    assert_problem(get(d, "/v1/experiments/%%zz"), 400, "bad-request", "%");
    assert_problem(get(d, "/v1/experiments/a%%00b"), 400, "bad-request", "NUL");
    assert_problem(get(d, "/v1/experiments/a%%2fb"), 400, "bad-request", "slash");
    assert_problem(get(d, "/v1/../etc/passwd"), 400, "bad-request", "dot segment");
    assert_problem(get(d, "/v1/experiments?limit=1&limit=2"), 422, "invalid-query", "twice");
    assert_problem(call(d, &(struct call){.method = "GET",
                                          .path = "/healthz",
                                          .headers = {"Host: rebound.example"}}),
                   403, "forbidden-host", "rebound.example");
    assert_problem(call(d, &(struct call){.method = "POST",
                                          .path = "/v1/experiments",
                                          .headers = {"Origin: http://elsewhere.example",
                                                      "Content-Type: application/json"},
                                          .body = "{}"}),
                   403, "forbidden-origin", "elsewhere.example");
    assert_problem(post(d, text("/v1/experiments/%s/cancel", finished), NULL), 409, "conflict",
                   "succeeded");
}

static void test_a_request_without_host_is_refused(void **state) {
    static const char without[] = "GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n";
    static const char twice[] = "POST /v1/experiments HTTP/1.1\r\nHost: localhost\r\n"
                                "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n"
                                "Connection: close\r\n\r\n0\r\n\r\n";
    assert_non_null(strstr(raw(*state, without, sizeof without - 1, 0), " 400 "));
    assert_non_null(strstr(raw(*state, twice, sizeof twice - 1, 0), " 400 "));
}

/* ---- The schema of the spec against the validator ---- */

/* Sets document/pointer, making the sections on the way. Takes value over. */
static void set_at(json_t *document, const char *pointer, json_t *value) {
    char name[64];
    size_t n = strcspn(pointer + 1, "/");
    const char *rest = pointer + 1 + n;
    snprintf(name, sizeof name, "%.*s", (int)n, pointer + 1);
    json_t *below =
        json_is_array(document) ? json_array_get(document, 0) : json_object_get(document, name);
    if (*rest && (!below || json_is_string(below) || json_is_null(below))) {
        below = strncmp(rest, "/0", 2) == 0 ? json_array() : json_object();
        if (json_is_array(document))
            json_array_append_new(document, below);
        else
            json_object_set_new(document, name, below);
    }
    if (*rest)
        set_at(below, rest, value);
    else if (json_is_array(document))
        json_array_clear(document), json_array_append_new(document, value);
    else
        json_object_set_new(document, name, value);
}

static int with_stored_data; /* which of the two kinds of data set is being walked */

/* Who uses what: the model that a place is tried in, the first whose beginning fits. */
static const struct {
    const char *place, *model;
} models[] = {
    {"/model/code", "{'kind':'kmeans','hidden':[4]}"},
    {"/model/init/samples", "{'kind':'kmeans','hidden':[4]}"},
    {"/model/init/kmeans++", "{'kind':'kmeans','hidden':[4]}"},
    {"/model/init/epoch", "{'kind':'mlp','hidden':[4],'init':{'experiment':'aaaaaaaaaaaa'}}"},
    {"/model/tied", "{'kind':'autoencoder','hidden':[4]}"},
    {"/model/corruption", "{'kind':'autoencoder','hidden':[4]}"},
    {"/loss/l1", "{'kind':'autoencoder','hidden':[4]}"},
    {"/loss/contractive", "{'kind':'autoencoder','hidden':[4]}"},
    {"/loss/kl", "{'kind':'autoencoder','hidden':[4],'activation':'sigmoid'}"},
    {"/model/freeze", "{'kind':'mlp','hidden':[4,4,4,4,4,4,4,4]}"},
    {"/loss/ovr/layers", "{'kind':'mlp','hidden':[4,4,4,4,4,4,4,4]}"},
    {"", "{'kind':'mlp','hidden':[4]}"},
};

static const char *model_for(const char *pointer, const json_t *value) {
    const char *choice = json_string_value(value);
    size_t i = 0;
    char place[128];
    snprintf(place, sizeof place, "%s%s%s", pointer, choice ? "/" : "", choice ? choice : "");
    while (strncmp(place, models[i].place, strlen(models[i].place)) != 0)
        i++;
    return models[i].model;
}

/* A spec that has this value at this place. Takes value over. */
static const struct answer *try_value(struct daemon *d, const char *pointer, json_t *value) {
    json_t *spec = parse(text("{'dataset':%s,'model':%s}",
                              with_stored_data ? "{'name':'cifar10'}" : "{'generator':'sphere'}",
                              model_for(pointer, value)));
    if (strstr(pointer, "nesterov") || strstr(pointer, "momentum"))
        set_at(spec, "/optimizer/name", json_string("sgd"));
    if (strstr(pointer, "weight_decay"))
        set_at(spec, "/optimizer/name", json_string("adamw"));
    if (strstr(pointer, "rho"))
        set_at(spec, "/optimizer/name", json_string("rmsprop"));
    if (strstr(pointer, "cosine")) { /* its ends follow from these two */
        set_at(spec, "/training/epochs", json_integer(100000));
        set_at(spec, "/optimizer/learning_rate", json_real(1e30));
    }
    if (value && strcmp(pointer, "/model/activation") == 0 && json_is_string(value) &&
        strcmp(json_string_value(value), "top_k") == 0)
        set_at(spec, "/model/top_k", json_integer(2)); /* which it needs */
    set_at(spec, pointer, value);
    char *body = json_dumps(spec, JSON_COMPACT);
    const struct answer *a = post(d, "/v1/experiments?dry_run=true", body);
    free(body);
    json_decref(spec);
    return a;
}

#define assert_refused(d, pointer, value) check_refused(d, pointer, value, 1, __LINE__)
#define assert_accepted(d, pointer, value) check_refused(d, pointer, value, 0, __LINE__)

/* Whether the validator (not the data: "must be 1..3 (…)", nor the lab) finds the value at fault.
 * Takes value over. */
static int refused(struct daemon *d, const char *pointer, json_t *value) {
    const struct answer *a = try_value(d, pointer, value);
    const char *detail = fault(a, pointer);
    if (!detail && strcmp(pointer, "/tags/0") == 0) /* the list as a whole is at fault */
        detail = fault(a, "/tags");
    return detail && strncmp(detail, "must be 1..", 11) != 0 && !strstr(detail, "has only") &&
           !strstr(detail, "has no cluster");
}

static void check_refused(struct daemon *d, const char *pointer, json_t *value, int expected,
                          int line) {
    char *shown = json_dumps(value, JSON_ENCODE_ANY);
    int is = refused(d, pointer, value);
    if (is != expected) {
        print_error("%s: %.80s is %s\n", pointer, shown,
                    is ? "refused" : "accepted, against the contract");
        _fail(__FILE__, line);
    }
    free(shown);
}

static size_t n_ranges;

static void walk_number(struct daemon *d, const json_t *schema, const char *pointer, int whole) {
    json_t *low = json_object_get(schema, "minimum");
    json_t *above = json_object_get(schema, "exclusiveMinimum");
    double min = json_number_value(above ? above : low), max = number_at(schema, "/maximum");
    if ((!low && !above) || max <= min)
        fail_msg("%s has no range in the contract", pointer);
    n_ranges++;
    json_t *(*make)(double) = json_real;
    if (!whole) {
        check_refused(d, pointer, json_real(min), above != NULL, __LINE__);
        assert_refused(d, pointer, make(min - 1e-9));
        assert_refused(d, pointer, make(max * (1 + 1e-9)));
        assert_accepted(d, pointer, make(max));
        assert_accepted(d, pointer, make(min + (max < 1 ? max : 1) * 1e-3));
    } else {
        assert_accepted(d, pointer, json_integer((json_int_t)min));
        assert_accepted(d, pointer, json_integer((json_int_t)max));
        assert_refused(d, pointer, json_integer((json_int_t)min - 1));
        assert_refused(d, pointer, json_integer((json_int_t)max + 1));
        assert_refused(d, pointer, json_real(min + 0.5));
    }
    assert_refused(d, pointer, json_string("1"));
    assert_refused(d, pointer, json_true());
    assert_refused(d, pointer, json_array());
}

static json_t *repeat(char c, size_t n) {
    char *many = malloc(n + 1);
    memset(many, c, n);
    many[n] = '\0';
    json_t *string = json_string(many);
    free(many);
    return string;
}

static void walk_string(struct daemon *d, const json_t *schema, const char *pointer) {
    const char *pattern = json_string_value(json_object_get(schema, "pattern"));
    if (pattern && strstr(pattern, "{0,63}")) { /* of a data set, which nobody may have */
        const struct answer *a = try_value(d, pointer, repeat('a', 64));
        assert_non_null(strstr(fault(a, pointer), "has no"));
        assert_refused(d, pointer, repeat('a', 65));
        assert_refused(d, pointer, repeat('.', 1));
        assert_refused(d, pointer, json_string("a/b"));
        return;
    }
    if (pattern) { /* a SHA-256, or an id, which nobody may have */
        size_t n = (size_t)atoi(strchr(pattern, '{') + 1);
        const struct answer *a = try_value(d, pointer, repeat('a', n));
        const char *detail = fault(a, pointer);
        assert_true(!detail || strstr(detail, "there is no"));
        assert_refused(d, pointer, repeat('a', n - 1));
        assert_refused(d, pointer, repeat('a', n + 1));
        assert_refused(d, pointer, repeat('A', n));
        return;
    }
    size_t min = (size_t)json_integer_value(json_object_get(schema, "minLength"));
    size_t max = (size_t)number_at(schema, "/maxLength");
    assert_false(refused(d, pointer, repeat('x', max)));
    assert_refused(d, pointer, repeat('x', max + 1));
    check_refused(d, pointer, repeat('x', 0), min > 0, __LINE__);
    assert_refused(d, pointer, json_integer(1));
}

static void walk(struct daemon *d, json_t *schema, const char *pointer);

static void walk_object(struct daemon *d, const json_t *schema, const char *pointer) {
    json_t *members = json_object_get(schema, "properties"), *member;
    const char *name;
    assert_true(json_is_false(json_object_get(schema, "additionalProperties")));
    if (strcmp(pointer, "/dataset") == 0)
        with_stored_data = json_object_get(members, "version") != NULL;
    json_object_foreach(members, name, member) {
        char deeper[128];
        snprintf(deeper, sizeof deeper, "%s/%s", pointer, name);
        walk(d, member, deeper);
    }
    if (!*pointer)
        return;
    assert_refused(d, pointer, json_string("no such"));
    assert_refused(d, pointer, json_array());
    char unknown[128];
    snprintf(unknown, sizeof unknown, "%s/no such", pointer);
    const struct answer *a = try_value(d, unknown, json_true());
    const char *detail = fault(a, unknown);
    const char *names = detail ? strstr(detail, "it knows ") : NULL;
    if (!names) { /* {"pca": …}: what must have one member says so itself */
        assert_non_null(fault(a, pointer));
        return;
    }
    char known[400];
    snprintf(known, sizeof known, "%s", names + 9);
    for (char *save, *word = strtok_r(known, ", ", &save); word; word = strtok_r(NULL, ", ", &save))
        if (!json_object_get(members, word))
            fail_msg("%s/%s is not in the contract", pointer, word);
}

/* Names of a variant that stand alone: what is beside them is told at the variant. */
static int takes_no_settings(const char *pointer) {
    static const char *const names[] = {"/glorot", "/he", "/samples", "/kmeans++", "/none"};
    const char *last = strrchr(pointer, '/');
    for (size_t i = 0; i < COUNT(names); i++)
        if (strcmp(last, names[i]) == 0 && strcmp(pointer, "/dataset/samples") != 0)
            return 1;
    return 0;
}

static void walk_items(struct daemon *d, const json_t *schema, const char *pointer) {
    char deeper[128];
    snprintf(deeper, sizeof deeper, "%s/0", pointer);
    walk(d, json_object_get(schema, "items"), deeper);
}

/* Every place of the spec: what the contract allows is allowed, what it does not is a fault.
 * `nullable`: null stands beside this schema. */
static void walk_choice(struct daemon *d, json_t *schema, const char *pointer, int nullable) {
    size_t i;
    json_t *choice;
    schema = resolve(d->contract, schema);
    json_t *type = json_object_get(schema, "type");
    nullable |= fits_type(type, json_null());
    json_array_foreach(json_object_get(schema, "oneOf"), i, choice) {
        nullable |= fits_type(json_object_get(choice, "type"), json_null());
    }
    json_array_foreach(json_object_get(schema, "oneOf"), i, choice) {
        if (!json_object_get(choice, "required"))
            walk_choice(d, choice, pointer, nullable);
        else if (json_object_get(choice, "properties") || json_object_get(choice, "$ref"))
            walk_object(d, choice, pointer);
    }
    if (json_object_get(schema, "oneOf") && !json_object_get(schema, "properties"))
        return;
    if (type && !nullable && *pointer && !takes_no_settings(pointer))
        assert_refused(d, pointer, json_null());
    if (nullable)
        assert_accepted(d, pointer, json_null());
    json_array_foreach(json_object_get(schema, "enum"), i, choice) {
        assert_accepted(d, pointer, json_incref(choice));
        assert_refused(d, pointer, json_sprintf("%s?", json_string_value(choice)));
    }
    if ((choice = json_object_get(schema, "const")))
        assert_accepted(d, pointer, json_incref(choice));
    if (!type)
        return;
    if (fits_type(type, json_true())) {
        assert_accepted(d, pointer, json_true());
        assert_accepted(d, pointer, json_false());
        assert_refused(d, pointer, json_integer(1));
        assert_refused(d, pointer, json_string("true"));
    }
    json_t *empty = json_string(""), *half = json_real(0.5), *one = json_integer(1);
    json_t *array = json_array();
    if (fits_type(type, empty))
        walk_string(d, schema, pointer);
    else if (fits_type(type, one))
        walk_number(d, schema, pointer, !fits_type(type, half));
    else if (fits_type(type, array))
        walk_items(d, schema, pointer);
    else if (json_object_get(schema, "properties") &&
             json_object_size(json_object_get(schema, "properties"))) {
        walk_object(d, schema, pointer);
    }
    json_decref(empty);
    json_decref(half);
    json_decref(one);
    json_decref(array);
}

static void walk(struct daemon *d, json_t *schema, const char *pointer) {
    walk_choice(d, schema, pointer, 0);
}

static void test_ranges_of_the_spec(void **state) {
    struct daemon *d = *state;
    n_ranges = 0;
    with_stored_data = 0;
    walk(d, follow(d->contract, "#/components/schemas/Spec"), "");
    assert_true(n_ranges > 50);
}

/* Which members go together: the contract allows of a kind what the validator does, and no more. */
static void test_members_of_the_kinds(void **state) {
    struct daemon *d = *state;
    static const char *const kinds[] = {"ovr_encoder",   "mlp", "autoencoder",       "kmeans",
                                        "online_kmeans", "pca", "random_projection", "identity"};
    static const char *const members[] = {
        "'model':{'hidden':[2]}",
        "'model':{'hidden':[2,2]}",
        "'model':{'hidden':[2],'activation':'tanh'}",
        "'model':{'hidden':[2],'slope':0.1}",
        "'model':{'hidden':[2],'threshold':1}",
        "'model':{'hidden':[2],'top_k':2}",
        "'model':{'hidden':[2],'activation':'relu','slope':0.1}",
        "'model':{'hidden':[2],'activation':'top_k'}",
        "'model':{'hidden':[2],'activation':'thresholded','top_k':2}",
        "'model':{'hidden':[2],'code':'hard'}",
        "'model':{'hidden':[2],'tied':true}",
        "'model':{'hidden':[2],'corruption':0.1}",
        "'model':{'hidden':[2],'dropout':0.1}",
        "'model':{'hidden':[2,2],'freeze':1}",
        "'model':{}",
        "'model':{'activation':'tanh'}",
        "'model':{'hidden':[2]},'loss':{}",
        "'model':{'hidden':[2]},'loss':{'l1':1}",
        "'model':{'hidden':[2]},'loss':{'l2':1}",
        "'model':{'hidden':[2]},'loss':{'contractive':1}",
        "'model':{'hidden':[2],'activation':'sigmoid'},'loss':{'kl':{}}",
        "'model':{'hidden':[2]},'loss':{'ovr':{'layers':[0]}}",
    };
    json_t *schema = follow(d->contract, "#/components/schemas/Spec");
    size_t n_allowed = 0;
    for (size_t k = 0; k < COUNT(kinds); k++)
        for (size_t m = 0; m < COUNT(members); m++) {
            json_t *spec =
                parse(text("{'dataset':{'generator':'sphere','samples':200},%s}", members[m]));
            json_object_set_new(json_object_get(spec, "model"), "kind", json_string(kinds[k]));
            char *body = json_dumps(spec, JSON_COMPACT);
            struct check check = {.contract = d->contract};
            int allowed = fits(&check, schema, spec, "");
            int status = post(d, "/v1/experiments?dry_run=true", body)->status;
            if (status != (allowed ? 200 : 422))
                fail_msg("%s: %d, but by the contract %s", body, status,
                         allowed ? "it is right" : check.fault);
            n_allowed += (size_t)allowed;
            free(body);
            json_decref(spec);
        }
    assert_true(n_allowed > 20 && n_allowed < COUNT(kinds) * COUNT(members) / 2);
}

/* Compares every default of the schema with what the daemon filled in where nothing was given.
 * Returns how many it saw. */
static size_t compare_defaults(const struct daemon *d, json_t *schema, const json_t *spec,
                               const json_t *given, const char *where) {
    size_t n = 0, i;
    json_t *member, *choice;
    const char *name;
    schema = resolve(d->contract, schema);
    json_object_foreach(json_object_get(schema, "properties"), name, member) {
        json_t *value = json_object_get(spec, name), *own = json_object_get(given, name);
        json_t *wanted = json_object_get(resolve(d->contract, member), "default");
        char deeper[128];
        snprintf(deeper, sizeof deeper, "%s/%s", where, name);
        if (!value)
            continue;
        n += compare_defaults(d, member, value, own, deeper);
        /* The daemon knows better than null which version and how many. */
        int known = strcmp(name, "version") == 0 || strcmp(name, "test_samples") == 0 ||
                    strcmp(name, "private") == 0;
        if (!wanted || own || known || json_is_object(wanted))
            continue;
        n++;
        const char *bare = json_string_value(wanted); /* {"plateau": {…}} for "plateau" */
        if (!same(wanted, value) && !(bare && json_object_get(value, bare)))
            fail_msg("%s has another default than in the contract", deeper);
    }
    json_array_foreach(json_object_get(schema, "oneOf"), i, choice) {
        n += json_is_object(spec) ? compare_defaults(d, choice, spec, given, where) : 0;
    }
    return n;
}

static void test_defaults_of_the_spec(void **state) {
    struct daemon *d = *state;
    static const char *const specs[] = {
        "{'dataset':{'generator':'sphere','samples':5000},'model':{'kind':'ovr_encoder','hidden':["
        "4]},"
        "'preprocess':[{'pca':{'components':2}}],"
        "'optimizer':{'name':'sgd'},'training':{'early_stopping':{}}}",
        "{'dataset':{'generator':'sphere'},'model':{'kind':'mlp','hidden':[4]},'loss':{'ovr':{},"
        "'activity':{}},'probe':{}}",
        "{'dataset':{'name':'cifar10'},'model':{'kind':'mlp','hidden':[4]},'optimizer':{'name':"
        "'adamw'},'training':{'schedule':{'step':{}}}}",
        "{'dataset':{'name':'cifar10'},'model':{'kind':'mlp','hidden':[4]},'optimizer':{'name':"
        "'rmsprop'},'training':{'schedule':{'cosine':{}}}}",
        "{'dataset':{'name':'cifar10'},'model':{'kind':'mlp','hidden':[4]}}",
        "{'dataset':{'generator':'sphere'},'model':{'kind':'autoencoder','hidden':[4],"
        "'activation':'sigmoid'},'loss':{'kl':{}}}",
        "{'dataset':{'generator':'sphere'},'model':{'kind':'ovr_encoder','hidden':[4],"
        "'activation':'leaky_relu'}}",
        "{'dataset':{'generator':'sphere'},'model':{'kind':'ovr_encoder','hidden':[4],"
        "'activation':'thresholded'}}",
    };
    size_t n = 0;
    for (size_t i = 0; i < COUNT(specs); i++) {
        const struct answer *a = post(d, "/v1/experiments", specs[i]);
        assert_status(a, 202);
        const json_t *spec = at(a->json, "/spec");
        json_t *given = parse(specs[i]);
        size_t seen =
            compare_defaults(d, follow(d->contract, "#/components/schemas/Spec"), spec, given, "");
        json_decref(given);
        assert_true(seen > 20);
        n += seen;
        const char *cancel = text_at(a->json, "/links/cancel");
        assert_status(post(d, cancel, NULL), 202);
    }
    assert_true(n > 80);
    /* Those that differ between the kinds are told in words. */
    const struct answer *a = post(d, "/v1/experiments", specs[2]);
    assert_json(a->json, "/spec/loss", "{'ovr':null,'activity':null,'l2':0}");
    assert_json(a->json, "/spec/probe", "null");
    assert_json(a->json, "/spec/model/init", "'glorot'");
    assert_json(a->json, "/spec/training/early_stopping", "null");
    post(d, text_at(a->json, "/links/cancel"), NULL);
}

/* ---- The document itself ---- */

/* All references lead somewhere, every example beside a schema fits it. Returns the examples. */
static size_t check_document(const struct daemon *d, const json_t *place) {
    size_t n = 0, i;
    const char *name;
    json_t *below, *example = json_object_get(place, "example");
    const char *reference = json_string_value(json_object_get(place, "$ref"));
    if (reference && !follow(d->contract, reference))
        fail_msg("%s leads nowhere", reference);
    if (example && json_object_get(place, "schema")) {
        struct check check = {.contract = d->contract};
        n++;
        if (!fits(&check, json_object_get(place, "schema"), example, ""))
            fail_msg("an example does not fit: %s", check.fault);
    }
    json_object_foreach((json_t *)(uintptr_t)place, name, below) {
        n += check_document(d, below);
    }
    json_array_foreach(place, i, below) {
        n += check_document(d, below);
    }
    return n;
}

static void test_references_and_examples(void **state) {
    struct daemon *d = *state;
    assert_true(check_document(d, d->contract) > 15);
    /* Every component is used. */
    char *whole = json_dumps(d->contract, JSON_COMPACT);
    const char *kind, *name;
    json_t *list, *component;
    json_object_foreach(json_object_get(d->contract, "components"), kind, list) {
        json_object_foreach(list, name, component) {
            if (!strstr(whole, text("\"#/components/%s/%s\"", kind, name)) &&
                strcmp(name, "MethodNotAllowed") != 0 && strcmp(kind, "securitySchemes") != 0)
                fail_msg("nothing uses %s/%s", kind, name);
        }
    }
    free(whole);
}

/* What the contract shows as a body to post can be posted, and fits its own schema. */
static size_t post_examples(struct daemon *d, const char *path, const char *in_contract) {
    json_t *media =
        at(d->contract, text("/paths/%s/post/requestBody/content/application~1json", in_contract));
    const char *name;
    json_t *example;
    size_t n = 0;
    json_object_foreach(json_object_get(media, "examples"), name, example) {
        struct check check = {.contract = d->contract};
        json_t *value = json_object_get(example, "value");
        if (!fits(&check, json_object_get(media, "schema"), value, ""))
            fail_msg("the example %s does not fit: %s", name, check.fault);
        char *body = json_dumps(value, JSON_COMPACT);
        const struct answer *a = post(d, text("%s?dry_run=true", path), body);
        free(body);
        assert_status(a, 200);
        n++;
    }
    return n;
}

static void test_examples_can_be_posted(void **state) {
    struct daemon *d = *state;
    json_t *example;
    size_t i;
    assert_int_equal(post_examples(d, "/v1/experiments", "~1v1~1experiments"), 3);
    assert_int_equal(post_examples(d, "/v1/sweeps", "~1v1~1sweeps"), 5);
    json_array_foreach(at(d->contract, "/components/schemas/Spec/examples"), i, example) {
        char *body = json_dumps(example, JSON_COMPACT);
        assert_status(post(d, "/v1/experiments?dry_run=true", body), 200);
        free(body);
    }
}

/* The files of examples/ are specs that this daemon takes. */
static void test_example_files_can_be_posted(void **state) {
    struct daemon *d = *state;
    static const char *const files[] = {"demo", "demo-encoder-sphere", "reference"};
    upload_images(d, "cifar10", 900, 20, 1);
    for (size_t i = 0; i < COUNT(files); i++) {
        json_t *spec = json_load_file(text("examples/%s.json", files[i]), 0, NULL);
        if (!spec)
            skip();
        struct check check = {.contract = d->contract};
        if (!fits(&check, follow(d->contract, "#/components/schemas/Spec"), spec, ""))
            fail_msg("examples/%s.json does not fit the contract: %s", files[i], check.fault);
        char *body = json_dumps(spec, JSON_COMPACT);
        const struct answer *a = post(d, "/v1/experiments?dry_run=true", body);
        free(body);
        json_decref(spec);
        assert_status(a, 200);
    }
}

static void test_parameters_of_paths(void **state) {
    struct daemon *d = *state;
    const char *template;
    json_t *item;
    each_path(d, template, item) {
        for (const char *c = template; (c = strchr(c, '{')); c++) {
            const char *name = text("%.*s", (int)strcspn(c + 1, "}"), c + 1);
            if (!find_parameter(d, json_object_get(item, "parameters"), "path", name))
                fail_msg("%s does not describe %s", template, name);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_documented_route_is_there),
        cmocka_unit_test(test_every_method_is_documented),
        cmocka_unit_test(test_every_route_is_documented),
        cmocka_unit_test(test_query_arguments_are_documented),
        cmocka_unit_test(test_query_ranges),
        cmocka_unit_test(test_head_is_get_without_body),
        cmocka_unit_test(test_problems_have_one_shape),
        cmocka_unit_test(test_a_request_without_host_is_refused),
        cmocka_unit_test(test_parameters_of_paths),
        cmocka_unit_test(test_references_and_examples),
        cmocka_unit_test(test_examples_can_be_posted),
        cmocka_unit_test(test_example_files_can_be_posted),
        cmocka_unit_test(test_ranges_of_the_spec),
        cmocka_unit_test(test_members_of_the_kinds),
        cmocka_unit_test(test_defaults_of_the_spec),
    };
    return cmocka_run_group_tests_name("contract", tests, set_up, tear_down);
}
