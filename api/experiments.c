/* Experiments: submit, list, show, cancel. */
#include "api/api.h"
#include "server/digest.h"
#include "server/leftovers.h"
#include "server/log.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* FNV-1a. */
static uint32_t hash_text(const struct text *text) {
    uint32_t hash = 2166136261;
    for (size_t i = 0; i < text->n; i++)
        hash = (hash ^ (unsigned char)text->bytes[i]) * 16777619;
    return hash;
}

struct reply *reply_experiment(struct api *api, int status, const char *id, json_t *warnings) {
    struct experiment e;
    struct ovr_err err = {0};
    if (store_get_experiment(api->store, id, &e, &err)) {
        json_decref(warnings);
        return problem_from(&err);
    }
    struct progress p = {0};
    executors_poll(&api->executors, id, &p);
    struct text text = {0};
    int rc = text_add_experiment(&text, api, &e, 1, warnings, &err);
    json_decref(warnings);
    /* What is said of its place in the queue changes without its revision. */
    uint32_t place = !rc && e.state == STATE_QUEUED ? hash_text(&text) : 0;
    struct reply *reply = reply_made(status, "application/json", &text, rc);
    if (rc)
        reply = problem_from(&err);
    else if (status == 200)
        reply = reply_etag(reply, "%lld-%08x-%d.%d.%llu", (long long)e.revision, (unsigned)place,
                           p.phase, p.epoch, (unsigned long long)p.step);
    experiment_release(&e);
    return reply;
}

json_t *json_estimate(const struct cost *cost) {
    return json_pack("{s:I, s:I, s:f, s:f, s:s, s:i}", "parameters",
                     (json_int_t)cost->train.parameters, "memory_bytes",
                     (json_int_t)cost->train.memory_bytes, "flops_per_epoch",
                     cost->train.flops_per_epoch, "seconds", cost->seconds, "executor",
                     executor_names[cost->executor], "ranks", cost->ranks);
}

static struct reply *reply_estimate(const struct cost *cost, json_t *warnings) {
    return reply_json(200, json_pack("{s:b, s:o, s:o}", "valid", 1, "estimate", json_estimate(cost),
                                     "warnings", warnings));
}

/* What an Idempotency-Key stands for: the body, and for another run whose run it is. */
static void digest_request(const struct request *request, const struct origin *origin,
                           char sha256[DIGEST_SIZE]) {
    struct digest digest;
    digest_init(&digest);
    if (origin->id) {
        digest_add(&digest, request->route->path, strlen(request->route->path) + 1);
        digest_add(&digest, origin->id, strlen(origin->id) + 1);
    }
    digest_add(&digest, request->body, request->body_size);
    digest_hex(&digest, sha256);
}

/* Stores what was admitted. */
static struct reply *enqueue(const struct request *request, const struct spec *spec,
                             const json_t *document, const struct cost *cost,
                             const struct origin *origin, json_t *warnings) {
    struct api *api = request->context;
    char id[ID_SIZE], body_sha256[DIGEST_SIZE];
    struct ovr_err err = {0};
    int repeated = 0;
    char *text = json_dumps(document, JSON_COMPACT | JSON_REAL_PRECISION(15));
    digest_request(request, origin, body_sha256);
    struct new_experiment new = {
        .name = spec->name,
        .tags = spec->tags,
        .spec = text,
        .priority = spec->priority,
        .memory_bytes = (int64_t)cost->train.memory_bytes,
        .core_seconds = cost->core_seconds,
        .idempotency_key = request_header(request, "Idempotency-Key"),
        .body_sha256 = body_sha256,
        .rerun_of = origin->id,
        .replays = origin->replays,
        .owner = request->asker.user,
        .private = spec->private,
        .executor = cost->executor,
        .ranks = cost->ranks,
    };
    int rc = text ? store_add_experiment(api->store, &new, id, &repeated, &err)
                  : ovr_nomem(&err, "the spec");
    free(text);
    if (rc) {
        json_decref(warnings);
        return rc == OVR_CONFLICT ? problem(422, "idempotency", "%s", err.text)
                                  : problem_from(&err);
    }
    if (!repeated) {
        log_line(LOG_INFO, "experiment=%s queued, name=\"%s\"", id, spec->name);
        executors_submit(&api->executors);
    }
    return reply_header(reply_experiment(api, 202, id, warnings), "Location", "/v1/experiments/%s",
                        id);
}

struct reply *check_key(const struct request *request) {
    const char *key = request_header(request, "Idempotency-Key");
    size_t n = key ? strlen(key) : 1;
    if (n >= 1 && n <= 255)
        return NULL;
    return problem(422, "invalid-request", "Idempotency-Key must have 1..255 characters");
}

struct reply *reply_refused(int code, const char *detail, json_t *faults,
                            const struct ovr_err *err) {
    if (code == OVR_INVALID && json_array_size(faults))
        return problem_faults("invalid-spec", detail, json_incref(faults));
    return problem_from(err);
}

static struct reply *submit(struct request *request, json_t *document, struct spec *spec,
                            const struct origin *origin, int dry) {
    struct api *api = request->context;
    struct ovr_err err = {0};
    struct cost cost;
    json_t *faults = json_array(), *warnings = json_array();
    int rc =
        faults && warnings ? spec_read(document, spec, faults, &err) : ovr_nomem(&err, "the spec");
    if (!rc)
        rc = admit(&api->admission, spec, document, 0, faults, warnings, &cost, &err);
    struct reply *reply = NULL;
    if (rc)
        reply =
            reply_refused(rc, "the spec was not accepted; each entry of errors says what to change",
                          faults, &err);
    else if (dry)
        reply = reply_estimate(&cost, json_incref(warnings));
    else
        reply = enqueue(request, spec, document, &cost, origin, json_incref(warnings));
    json_decref(faults);
    json_decref(warnings);
    return reply;
}

struct reply *submit_spec(struct request *request, json_t *document, struct spec *spec,
                          const struct origin *origin) {
    return submit(request, document, spec, origin, 0);
}

json_t *read_posted(struct request *request, int *dry, struct reply **refusal) {
    *dry = 0;
    *refusal = check_key(request);
    if (!*refusal)
        *refusal = query_bool(request, "dry_run", dry);
    return *refusal ? NULL : body_json(request, refusal);
}

struct reply *handle_submit(struct request *request) {
    int dry;
    struct reply *reply;
    json_t *document = read_posted(request, &dry, &reply);
    if (!document)
        return reply;
    struct spec *spec = malloc(sizeof *spec);
    struct ovr_err err = {0};
    if (!spec && ovr_nomem(&err, "the spec"))
        reply = problem_from(&err);
    else
        reply = submit(request, document, spec, &(struct origin){0}, dry);
    free(spec);
    json_decref(document);
    return reply;
}

/* "created", "finished" or "result.<figure>", with a minus from the largest down. */
static struct reply *read_sort(const struct request *request, struct experiment_filter *filter) {
    const char *text = request_query(request, "sort"), *name = text;
    if (!text)
        return NULL;
    filter->ascending = *name != '-';
    name += !filter->ascending;
    if (strcmp(name, "finished") == 0)
        filter->order = ORDER_FINISHED;
    else if (strncmp(name, "result.", 7) == 0 && name[7])
        filter->order = ORDER_FIGURE, filter->figure = name + 7;
    else if (strcmp(name, "created") != 0)
        return problem(422, "invalid-query",
                       "sort must be created, finished or a figure such as result.accuracy, with a "
                       "minus before it for the largest first, got \"%.40s\"",
                       text);
    return NULL;
}

/* The seq of the last row, and before it, where it is sorted by something else, its key. */
static struct reply *read_cursor(const struct request *request, struct experiment_filter *filter) {
    const char *text = request_query(request, "cursor"), *seq = text;
    char *end = NULL;
    if (!text)
        return NULL;
    if (filter->order != ORDER_CREATED) {
        filter->key = strtod(text, &end);
        seq = *end == '_' ? end + 1 : "";
    }
    filter->before = *seq >= '0' && *seq <= '9' ? strtoll(seq, &end, 10) : 0;
    if (filter->before > 0 && filter->before < INT64_MAX && !*end && isfinite(filter->key))
        return NULL;
    return problem(422, "invalid-query",
                   "cursor must be one that came in a Link of a list with the same sort, got "
                   "\"%.60s\"",
                   text);
}

static struct reply *read_filter(const struct request *request, struct experiment_filter *filter) {
    int64_t limit = 50;
    struct reply *reply = query_int(request, "limit", 1, 500, &limit);
    if (!reply)
        reply = read_sort(request, filter);
    if (!reply)
        reply = read_cursor(request, filter);
    if (!reply)
        reply = query_time(request, "created_after", &filter->created_after);
    filter->limit = (int)limit + 1; /* one more tells whether there is a next page */
    filter->state = request_query(request, "state");
    filter->tag = request_query(request, "tag");
    filter->name_prefix = request_query(request, "name");
    filter->sweep = request_query(request, "sweep");
    filter->owner = query_owner(request);
    int known = !filter->state;
    for (int i = 0; filter->state && i < N_STATES; i++)
        known |= strcmp(filter->state, state_names[i]) == 0;
    if (!reply && !known)
        reply =
            problem(422, "invalid-query",
                    "state must be queued, running, paused, succeeded, failed or cancelled, got "
                    "\"%.40s\"",
                    filter->state);
    return reply;
}

void append_query(char *text, size_t size, const char *name, const char *value) {
    size_t n = strlen(text);
    if (!value || n + strlen(name) + 3 * strlen(value) + 3 >= size)
        return;
    n += (size_t)sprintf(text + n, "&%s=", name);
    for (; *value; value++)
        n += (size_t)sprintf(text + n, strchr("&=#%+<>\" ", *value) || *value < 0 ? "%%%02X" : "%c",
                             (unsigned char)*value);
}

static struct reply *link_next(const struct request *request, struct reply *reply,
                               const struct experiment_filter *filter,
                               const struct experiment *last) {
    char query[2048], key[40] = "";
    if (filter->order != ORDER_CREATED)
        snprintf(key, sizeof key, "%.17g_", last->key);
    snprintf(query, sizeof query, "cursor=%s%lld&limit=%d", key, (long long)last->seq,
             filter->limit - 1);
    append_query(query, sizeof query, "sort", request_query(request, "sort"));
    append_query(query, sizeof query, "created_after", request_query(request, "created_after"));
    append_query(query, sizeof query, "state", filter->state);
    append_query(query, sizeof query, "tag", filter->tag);
    append_query(query, sizeof query, "name", filter->name_prefix);
    append_query(query, sizeof query, "sweep", filter->sweep);
    append_query(query, sizeof query, "owner", filter->owner);
    return reply_header(reply, "Link", "</v1/experiments?%s>; rel=\"next\"", query);
}

struct reply *handle_list(struct request *request) {
    struct api *api = request->context;
    struct experiment_filter filter = {0};
    struct experiment *list;
    struct ovr_err err = {0};
    size_t n;
    struct reply *reply = read_filter(request, &filter);
    if (reply)
        return reply;
    if (store_list_experiments(api->store, &filter, &list, &n, &err))
        return problem_from(&err);
    size_t shown = n < (size_t)filter.limit ? n : n - 1;
    struct text text = {0};
    int failed = text_add_string(&text, "{\"experiments\":[");
    for (size_t i = 0; i < shown && !failed; i++)
        failed = (i && text_add(&text, ",", 1)) ||
                 text_add_experiment(&text, api, &list[i], 0, NULL, &err);
    reply = reply_made(200, "application/json", &text, failed || text_add(&text, "]}", 2));
    if (err.code)
        reply = problem_from(&err);
    else if (shown < n)
        reply = link_next(request, reply, &filter, &list[shown - 1]);
    experiment_list_free(list, n);
    return reply;
}

static int read_revision(struct api *api, const char *id, int64_t *seq, int64_t *revision) {
    struct experiment e;
    int rc = store_get_experiment(api->store, id, &e, NULL);
    if (rc)
        return rc;
    *seq = e.seq;
    *revision = e.revision;
    experiment_release(&e);
    return 0;
}

struct reply *handle_show(struct request *request) {
    struct reply *later = await_change(request, read_revision);
    if (later)
        return later;
    return reply_preference(request,
                            reply_experiment(request->context, 200, request->segments[0], NULL));
}

struct reply *handle_pause(struct request *request) {
    struct api *api = request->context;
    struct ovr_err err = {0};
    int was_running;
    if (store_pause(api->store, request->segments[0], &was_running, &err))
        return problem_from(&err);
    if (was_running)
        executors_cancel(&api->executors, request->segments[0], STOP_PAUSE);
    else
        executors_submit(&api->executors);
    return reply_experiment(api, 202, request->segments[0], NULL);
}

struct reply *handle_resume(struct request *request) {
    struct api *api = request->context;
    struct ovr_err err = {0};
    if (store_resume(api->store, request->segments[0], &err))
        return problem_from(&err);
    executors_submit(&api->executors);
    return reply_experiment(api, 202, request->segments[0], NULL);
}

struct reply *handle_cancel(struct request *request) {
    struct api *api = request->context;
    struct ovr_err err = {0};
    int was_running;
    if (store_cancel(api->store, request->segments[0], &was_running, &err))
        return problem_from(&err);
    if (was_running) {
        executors_cancel(&api->executors, request->segments[0], STOP_CANCEL);
    } else {
        executors_submit(&api->executors); /* the next in the queue may be one that fits */
        leftovers_sweep_checkpoints(api->store, api->data_dir);
    }
    work_forget(&api->work, request->segments[0]);
    return reply_experiment(api, 202, request->segments[0], NULL);
}
