/* Experiments: edit, delete one or what ended long ago, run again. */
#include "api/api.h"
#include "server/backup.h"
#include "server/leftovers.h"
#include "server/log.h"
#include "server/prune.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct reply *read_if_match(const struct request *request, const char *what, int64_t *revision) {
    const char *text = request_header(request, "If-Match");
    *revision = -1;
    if (!text)
        return problem(428, "precondition-required",
                       "send If-Match with the ETag of the %s as you know it, so that nobody's "
                       "change gets lost",
                       what);
    if (strcmp(text, "*") == 0)
        return NULL;
    char *end;
    long long number =
        *text == '"' && text[1] >= '0' && text[1] <= '9' ? strtoll(text + 1, &end, 10) : -1;
    if (number < 0 || (*end != '"' && *end != '-'))
        return problem(422, "invalid-request", "If-Match is not an ETag of this %s, as \"17\" is",
                       what);
    *revision = number;
    return NULL;
}

/* The members of a patch that may be there. */
static json_t *take_edit(json_t *patch, json_t *faults) {
    static const char *const known[] = {"name", "tags", "notes", "priority", "private"};
    json_t *spec = json_pack("{s:{s:s}, s:{s:s}}", "dataset", "generator", "sphere", "model",
                             "kind", "identity");
    const char *name;
    json_t *value;
    json_object_foreach(patch, name, value) {
        int found = 0;
        for (size_t i = 0; i < sizeof known / sizeof *known; i++)
            found |= strcmp(name, known[i]) == 0;
        if (found)
            json_object_set(spec, name, value);
        else {
            json_t *pointer = json_sprintf("/%s", name);
            spec_fault(faults, json_string_value(pointer) ? json_string_value(pointer) : "/",
                       "can't be changed: only name, tags, notes, priority and private can; for "
                       "another spec "
                       "run it again with a patch");
            json_decref(pointer);
        }
    }
    return spec;
}

static struct reply *edit(struct request *request, json_t *patch, int64_t revision,
                          struct spec *spec) {
    struct api *api = request->context;
    struct ovr_err err = {0};
    json_t *faults = json_array(), *document = take_edit(patch, faults);
    int rc = document ? spec_read(document, spec, faults, &err) : ovr_nomem(&err, "a change");
    admit_priority(spec, faults);
    if (!rc && spec_has_faults(faults))
        rc = ovr_fail(&err, OVR_INVALID, "", "the change has faults");
    struct edit change = {
        .name = json_object_get(patch, "name") ? spec->name : NULL,
        .tags = json_object_get(patch, "tags") ? spec->tags : NULL,
        .notes = json_string_value(json_object_get(patch, "notes")),
        .priority = json_object_get(patch, "priority") ? &spec->priority : NULL,
        .private = json_object_get(patch, "private") ? &spec->private : NULL,
    };
    const char *id = request->segments[0];
    struct reply *reply = NULL;
    if (rc)
        reply = reply_refused(rc, "the change was not accepted; each entry of errors says why",
                              faults, &err);
    else if (store_edit_experiment(api->store, id, revision, &change, &err))
        reply = strcmp(err.field, STALE_FIELD) == 0 ? problem(412, "stale", "%s", err.text)
                                                    : problem_from(&err);
    json_decref(faults);
    json_decref(document);
    if (reply)
        return reply;
    log_line(LOG_INFO, "experiment=%s edited", id);
    if (change.priority)
        executors_submit(&api->executors);
    return reply_experiment(api, 200, id, NULL);
}

/* null has no meaning for these members but their default. */
static json_t *without_nulls(json_t *patch, int private) {
    const char *const standard[][2] = {{"name", "\"untitled\""},
                                       {"notes", "\"\""},
                                       {"tags", "[]"},
                                       {"priority", "0"},
                                       {"private", private ? "true" : "false"}};
    for (size_t i = 0; i < sizeof standard / sizeof *standard; i++)
        if (json_is_null(json_object_get(patch, standard[i][0])))
            json_object_set_new(patch, standard[i][0],
                                json_loads(standard[i][1], JSON_DECODE_ANY, NULL));
    return patch;
}

struct reply *handle_edit(struct request *request) {
    const struct api *api = request->context;
    int64_t revision = -1;
    struct reply *reply = NULL;
    json_t *patch = body_json(request, &reply);
    struct spec *spec = patch ? malloc(sizeof *spec) : NULL;
    struct experiment e = {0};
    struct ovr_err err = {0};
    if (patch && !json_is_object(patch))
        reply =
            problem(422, "invalid-request", "a change is an object, such as {\"name\": \"new\"}");
    /* Only what is there, and would be taken, is held against a revision: RFC 9110, 13.2.1. */
    else if (patch && !request_header(request, "If-Match") &&
             store_get_experiment(api->store, request->segments[0], &e, &err))
        reply = problem_from(&err);
    else if (patch && (reply = read_if_match(request, "experiment", &revision)))
        ;
    else if (patch && !spec && ovr_nomem(&err, "a change"))
        reply = problem_from(&err);
    else if (patch)
        reply =
            edit(request, without_nulls(patch, api->admission.private_by_default), revision, spec);
    experiment_release(&e);
    free(spec);
    json_decref(patch);
    return reply;
}

struct reply *handle_delete(struct request *request) {
    struct api *api = request->context;
    const struct prune_site site = {api->store, api->catalog, api->data_dir};
    const char *id = request->segments[0];
    struct ovr_err err = {0};
    int64_t bytes;
    if (prune_one(&site, id, &bytes, &err))
        return problem_from(&err);
    log_line(LOG_INFO, "experiment=%s deleted", id);
    return reply_static(204, NULL, "", 0);
}

/* What a request to prune has answered so far. */
struct pruning {
    json_t *gone, *kept;
    int64_t bytes;
};

static int note_pruned(void *context, const struct pruned *p) {
    struct pruning *pruning = context;
    const struct experiment *e = p->experiment;
    if (p->kept)
        return json_array_append_new(pruning->kept, json_pack("{s:s, s:s, s:s}", "id", e->id,
                                                              "name", e->name, "detail", p->kept))
                   ? OVR_NOMEM
                   : 0;
    pruning->bytes += p->bytes;
    return json_array_append_new(
               pruning->gone,
               json_pack("{s:s, s:s, s:o, s:s, s:o, s:I}", "id", e->id, "name", e->name, "owner",
                         json_owner(e->owner), "state", state_names[e->state], "finished_at",
                         json_time(e->finished_at), "bytes", (json_int_t)p->bytes))
               ? OVR_NOMEM
               : 0;
}

/* "<end>_<seq>", as in lists by end. */
static struct reply *read_place(const struct request *request, struct prune_place *place) {
    const char *text = request_query(request, "cursor");
    int used = 0;
    if (!text)
        return NULL;
    if (strspn(text, "0123456789_") == strlen(text) &&
        sscanf(text, "%18" SCNd64 "_%18" SCNd64 "%n", &place->ended, &place->seq, &used) == 2 &&
        !text[used])
        return NULL;
    return problem(422, "invalid-query",
                   "cursor must be one that came in a Link of an answer like this, got \"%.60s\"",
                   text);
}

static struct reply *read_rules(const struct request *request, struct prune_rules *rules,
                                struct prune_place *place, int64_t *most) {
    const char *state = rules->state = request_query(request, "state");
    rules->tag = request_query(request, "tag");
    /* Who is no admin can only delete what is hers. */
    if (*request->asker.name && request->asker.level < LEVEL_ADMIN)
        rules->owner = request->asker.name;
    if (!request_query(request, "ended_before"))
        return problem(422, "invalid-query",
                       "ended_before is required: a time such as 2026-11-24T09:30:00Z, before "
                       "which what is to be deleted has ended");
    struct reply *reply = query_time(request, "ended_before", &rules->ended_before);
    if (!reply)
        reply = query_bool(request, "dry_run", &rules->dry);
    if (!reply)
        reply = query_int(request, "limit", 1, 500, most);
    if (!reply)
        reply = read_place(request, place);
    if (!reply && state && strcmp(state, state_names[STATE_SUCCEEDED]) &&
        strcmp(state, state_names[STATE_FAILED]) && strcmp(state, state_names[STATE_CANCELLED]))
        reply = problem(422, "invalid-query",
                        "state must be succeeded, failed or cancelled, got \"%.40s\"", state);
    return reply;
}

static struct reply *link_rest(const struct request *request, struct reply *reply,
                               const struct prune_place *place, int64_t most) {
    static const char *const names[] = {"ended_before", "state", "tag", "dry_run"};
    char query[2048];
    snprintf(query, sizeof query, "cursor=%lld_%lld&limit=%lld", (long long)place->ended,
             (long long)place->seq, (long long)most);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        append_query(query, sizeof query, names[i], request_query(request, names[i]));
    return reply_header(reply, "Link", "</v1/prune?%s>; rel=\"next\"", query);
}

struct reply *handle_prune(struct request *request) {
    struct api *api = request->context;
    const struct prune_site site = {api->store, api->catalog, api->data_dir};
    struct prune_rules rules = {.stop = request->stop};
    struct prune_place place = {0};
    struct pruning pruning = {json_array(), json_array(), 0};
    struct ovr_err err = {0};
    int64_t most = 50;
    int more = 0;
    struct reply *reply = read_rules(request, &rules, &place, &most);
    int failed =
        !reply && prune_page(&site, &rules, (int)most, &place, &more, note_pruned, &pruning, &err);
    if (!rules.dry && json_array_size(pruning.gone))
        log_line(LOG_INFO, "pruned %zu experiments, freed %.1f MB", json_array_size(pruning.gone),
                 (double)pruning.bytes / 1e6);
    if (failed) {
        reply = problem_from(&err);
    } else if (!reply) {
        reply = reply_json(200, json_pack("{s:O, s:O, s:I, s:b}", "experiments", pruning.gone,
                                          "kept", pruning.kept, "bytes", (json_int_t)pruning.bytes,
                                          "dry_run", rules.dry));
        reply = more ? link_rest(request, reply, &place, most) : reply;
    }
    json_decref(pruning.gone);
    json_decref(pruning.kept);
    return reply;
}

/* The spec as it was stored, as private as it is now, and for a rerun with the names that people
 * have given it since. An admin may have put it before others; who isn't one runs it in line. */
static json_t *stored_spec(const struct request *request, const struct experiment *e, int replays) {
    json_t *document = json_loads(e->spec, 0, NULL);
    int failed = !document || json_object_set_new(document, "private", json_boolean(e->private)) ||
                 (!replays && (json_object_set_new(document, "name", json_string(e->name)) ||
                               json_object_set_new(document, "tags", json_tags(e->tags)) ||
                               json_object_set_new(document, "notes", json_string(e->notes))));
    if (!failed && request->asker.level < LEVEL_ADMIN &&
        json_integer_value(json_object_get(document, "priority")) > 0)
        failed = json_object_set_new(document, "priority", json_integer(0));
    if (!failed)
        return document;
    json_decref(document);
    return NULL;
}

static struct reply *run_again(struct request *request, const struct experiment *e, json_t *patch,
                               int replays) {
    struct ovr_err err = {0};
    json_t *document = stored_spec(request, e, replays);
    struct spec *spec = malloc(sizeof *spec);
    struct reply *reply;
    if (!document || !spec || (patch && spec_patch(document, patch, &err))) {
        ovr_nomem(&err, "a spec");
        reply = problem_from(&err);
    } else {
        reply = submit_spec(request, document, spec, &(struct origin){e->id, replays});
    }
    free(spec);
    json_decref(document);
    return reply;
}

static struct reply *again(struct request *request, json_t *patch, int replays) {
    struct api *api = request->context;
    struct ovr_err err = {0};
    struct experiment e = {0};
    struct reply *reply;
    if (store_get_experiment(api->store, request->segments[0], &e, &err))
        return problem_from(&err);
    if (replays && e.state != STATE_SUCCEEDED)
        reply = problem(409, "conflict",
                        "the experiment is %s; only one that has succeeded can be replayed",
                        state_names[e.state]);
    else
        reply = run_again(request, &e, patch, replays);
    experiment_release(&e);
    return reply;
}

struct reply *handle_rerun(struct request *request) {
    struct reply *reply = check_key(request);
    json_t *patch = NULL;
    if (!reply && request->body_size && !(patch = body_json(request, &reply)))
        return reply;
    if (!reply && patch && !json_is_object(patch))
        reply = problem(422, "invalid-request",
                        "a patch is an object, such as {\"training\": {\"epochs\": 50}}");
    if (!reply)
        reply = again(request, patch, 0);
    json_decref(patch);
    return reply;
}

struct reply *handle_replay(struct request *request) {
    struct reply *reply = check_key(request);
    return reply ? reply : again(request, NULL, 1);
}

struct reply *handle_backup(struct request *request) {
    struct api *api = request->context;
    const struct backup_job job = {api->store, api->data_dir, api->keep_backups, request->stop};
    struct backup_outcome outcome;
    struct ovr_err err = {0};
    int rc = backup_make(&job, &outcome, &err);
    if (rc != OVR_CONFLICT) { /* what was deleted meanwhile */
        leftovers_sweep(api->store, api->data_dir);
        catalog_sweep(api->catalog);
    }
    if (rc && request->stop && *request->stop)
        return reply_header(problem(503, "shutting-down",
                                    "the backup was given up: the server "
                                    "is shutting down"),
                            "Retry-After", "5");
    if (rc)
        return problem_from(&err);
    log_line(LOG_INFO, "backup=%s older_removed=%d", outcome.name, outcome.removed);
    if (store_audit(api->store, "backup.make", outcome.name, NULL, &err))
        return problem_from(&err);
    return reply_json(
        201, json_pack("{s:s, s:s+}", "name", outcome.name, "directory", "backups/", outcome.name));
}
