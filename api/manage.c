/* Experiments: edit, delete, run again. */
#include "api/api.h"
#include "server/backup.h"
#include "server/checkpoint.h"
#include "server/leftovers.h"
#include "server/log.h"
#include "server/weights.h"

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
    struct ovr_err err = {0};
    if (patch && !json_is_object(patch))
        reply =
            problem(422, "invalid-request", "a change is an object, such as {\"name\": \"new\"}");
    else if (patch && (reply = read_if_match(request, "experiment", &revision)))
        ; /* only what would be taken is held against a revision: RFC 9110, 13.2.1 */
    else if (patch && !spec && ovr_nomem(&err, "a change"))
        reply = problem_from(&err);
    else if (patch)
        reply =
            edit(request, without_nulls(patch, api->admission.private_by_default), revision, spec);
    free(spec);
    json_decref(patch);
    return reply;
}

struct reply *handle_delete(struct request *request) {
    struct api *api = request->context;
    const char *id = request->segments[0];
    struct ovr_err err = {0};
    if (store_delete_experiment(api->store, id, &err))
        return problem_from(&err);
    if (backup_hold_off()) {
        weights_remove(api->data_dir, id);
        checkpoint_remove(api->data_dir, id);
        backup_let_go();
    }
    catalog_sweep(api->catalog); /* a version that only this one needed */
    log_line(LOG_INFO, "experiment=%s deleted", id);
    return reply_static(204, NULL, "", 0);
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
