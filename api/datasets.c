/* Data sets: upload a split or half of one, list and describe what there is, remove. */
#include "api/api.h"
#include "server/digest.h"
#include "server/log.h"
#include "server/metrics.h"

#include <stdlib.h>
#include <string.h>

struct reply *read_content_digest(const struct request *request, char hex[DIGEST_SIZE]) {
    const char *header = request_header(request, "Content-Digest");
    hex[0] = '\0';
    if (!header)
        return NULL;
    const char *at = strstr(header, "sha-256=:");
    if (!at || digest_from_base64(at + strlen("sha-256=:"), ':', hex))
        return problem(422, "invalid-request",
                       "Content-Digest must be sha-256=:<base64 of the SHA-256>: as in RFC 9530");
    return NULL;
}

/* The query of an upload. */
static struct reply *read_upload_query(const struct request *request,
                                       struct intake_config *config) {
    const char *format = request_query(request, "format"), *known = NULL;
    const char *header = request_query(request, "header");
    int csv = format && strcmp(format, intake_names[INTAKE_CSV]) == 0;
    for (int i = 0; format && i < N_INTAKE; i++)
        if (strcmp(format, intake_names[i]) == 0) {
            config->format = (enum intake_format)i;
            known = intake_names[i];
        }
    if (!known)
        return problem(422, "invalid-query",
                       "%s%.40s; format is cifar10, csv, or for …/features and …/labels idx or npy",
                       format ? "there is no format " : "the query must name the format",
                       format ? format : "");
    config->label = request_query(request, "label");
    if (!csv && (config->label || header))
        return problem(422, "invalid-query", "label and header are for format=csv, not for %s",
                       known);
    if (header && strcmp(header, "true") && strcmp(header, "false"))
        return problem(422, "invalid-query", "header must be true or false, got \"%.40s\"", header);
    config->header = header ? strcmp(header, "true") == 0 : -1;
    return NULL;
}

static void *open_part(const struct request *request, enum intake_part part,
                       struct reply **refusal) {
    struct api *api = request->context;
    char digest[DIGEST_SIZE];
    struct ovr_err err = {0};
    struct upload *upload = NULL;
    struct upload_request wanted = {.dataset = request->segments[0],
                                    .split = request->segments[1],
                                    .intake = {.part = part},
                                    .sha256 = digest};
    const char *length = request_header(request, "Content-Length");
    if ((*refusal = read_upload_query(request, &wanted.intake)) ||
        (*refusal = read_content_digest(request, digest)))
        return NULL;
    /* Before the bytes come; once they are here the store looks again. */
    if (store_may_change_dataset(api->store, request->segments[0],
                                 length ? strtoll(length, NULL, 10) : 0, &err)) {
        *refusal = problem_from(&err);
        return NULL;
    }
    if (upload_open(&upload, api->catalog, &wanted, &err))
        *refusal = err.code == OVR_INVALID && *err.field
                       ? problem(422, "invalid-query", "%s", err.text)
                       : problem_from(&err);
    return upload;
}

static void *open_upload(const struct request *request, struct reply **refusal) {
    return open_part(request, INTAKE_WHOLE, refusal);
}

static void *open_features(const struct request *request, struct reply **refusal) {
    return open_part(request, INTAKE_FEATURES, refusal);
}

static void *open_labels(const struct request *request, struct reply **refusal) {
    return open_part(request, INTAKE_LABELS, refusal);
}

static int write_upload(void *upload, const char *bytes, size_t n) {
    metrics_add(COUNT_UPLOAD_BYTES, n);
    return upload_write(upload, bytes, n);
}

static void abort_upload(void *upload) {
    upload_abort(upload);
}

const struct sink upload_sink = {open_upload, write_upload, abort_upload};
const struct sink features_sink = {open_features, write_upload, abort_upload};
const struct sink labels_sink = {open_labels, write_upload, abort_upload};

static json_t *json_part(const struct dataset_part *part, const char *missing) {
    char hint[160];
    snprintf(hint, sizeof hint, "%s of %lld samples wait; send as many %s to /v1/datasets/%s/%s/%s",
             part->part, (long long)part->samples, missing, part->dataset, part->split, missing);
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:s, s:s, s:o}", "dataset", part->dataset,
                     "split", part->split, "part", part->part, "sha256", part->sha256, "format",
                     part->format, "samples", (json_int_t)part->samples, "missing", missing,
                     "detail", hint, "created_at", json_time(part->created_at));
}

struct reply *handle_upload(struct request *request) {
    struct upload_outcome outcome;
    struct ovr_err err = {0};
    if (upload_finish(request->upload, &outcome, &err))
        return err.code == OVR_INVALID     ? problem(422, "invalid-dataset", "%s", err.text)
               : err.code == OVR_TOO_LARGE ? problem(413, "too-large", "%s", err.text)
                                           : problem_from(&err);
    const struct dataset_split *split = &outcome.split;
    int status = outcome.fresh ? 201 : 200;
    struct reply *reply;
    if (outcome.missing) {
        log_line(LOG_INFO, "dataset=%s split=%s %s=%lld waiting for %s", outcome.part.dataset,
                 outcome.part.split, outcome.part.part, (long long)outcome.part.samples,
                 outcome.missing);
        reply = reply_json(status, json_part(&outcome.part, outcome.missing));
    } else {
        log_line(LOG_INFO, "dataset=%s split=%s samples=%lld sha256=%s %s", split->dataset,
                 split->split, (long long)split->samples, split->sha256,
                 outcome.fresh ? "stored" : "unchanged");
        reply = reply_json(status, json_split(split));
    }
    return reply_header(reply, "Location", "/v1/datasets/%s", request->segments[0]);
}

/* Splits come sorted by data set; each data set becomes one object. */
static json_t *group_splits(const struct dataset_split *splits, size_t n) {
    json_t *list = json_array(), *inner = NULL;
    for (size_t i = 0; i < n; i++) {
        if (i == 0 || strcmp(splits[i].dataset, splits[i - 1].dataset)) {
            inner = json_object();
            json_array_append_new(
                list, json_pack("{s:s, s:o}", "name", splits[i].dataset, "splits", inner));
        }
        json_object_set_new(inner, splits[i].split, json_split(&splits[i]));
    }
    return list;
}

struct reply *handle_datasets(struct request *request) {
    struct api *api = request->context;
    struct dataset_split *splits;
    struct ovr_err err = {0};
    size_t n;
    if (store_list_splits(api->store, NULL, &splits, &n, &err))
        return problem_from(&err);
    struct reply *reply = reply_json(200, json_pack("{s:o}", "datasets", group_splits(splits, n)));
    free(splits);
    return reply;
}

/* One feature's or all features' range; `index` below 0: all. */
static json_t *json_range(const struct range_summary *range, int64_t index, const char *name) {
    json_t *object = json_object();
    if (index >= 0) {
        json_object_set_new(object, "index", json_integer(index));
        json_object_set_new(object, "name", name ? json_string(name) : json_null());
    }
    json_object_set_new(object, "min", json_real(range->min));
    json_object_set_new(object, "max", json_real(range->max));
    json_object_set_new(object, "mean", json_real(range->mean));
    json_object_set_new(object, "sd", json_real(range->sd));
    return object;
}

static json_t *json_classes(const struct samples *samples, const struct summary *summary) {
    json_t *list = json_array();
    const char *name = samples->class_names;
    for (size_t c = 0; c < summary->n_classes; c++) {
        char text[16];
        json_array_append_new(list, json_pack("{s:s, s:I}", "name",
                                              name ? name : samples_class_name(samples, c, text),
                                              "samples", (json_int_t)summary->class_counts[c]));
        if (name)
            name += strlen(name) + 1;
    }
    return list;
}

static json_t *json_features(const struct samples *samples, const struct summary *summary,
                             size_t first, size_t end) {
    json_t *list = json_array();
    const char *name = samples->feature_names;
    for (size_t j = 0; j < end; j++) {
        if (j >= first)
            json_array_append_new(list, json_range(&summary->features[j], (int64_t)j, name));
        if (name)
            name += strlen(name) + 1;
    }
    return list;
}

/* What a split's samples look like; NULL and `refusal` where that can't be told. */
static json_t *describe(const struct request *request, const struct dataset_split *split,
                        struct reply **refusal) {
    enum { FEATURES = 100, FEATURES_MAX = 1000 };
    const struct api *api = request->context;
    struct samples samples = {0};
    struct summary summary = {0};
    struct ovr_err err = {0};
    size_t first = 0, end = min_size(FEATURES, (size_t)split->width);
    json_t *object = NULL;
    *refusal = query_range(request, "features", (size_t)split->width, FEATURES_MAX, &first, &end);
    if (*refusal)
        return NULL;
    if (catalog_open_split(api->catalog, split, &samples, &err) ||
        catalog_summary(api->catalog, split, &summary, &err))
        *refusal = problem_from(&err);
    else
        object = json_pack("{s:o, s:o, s:o}", "classes", json_classes(&samples, &summary), "values",
                           json_range(&summary.all, -1, NULL), "features",
                           json_features(&samples, &summary, first, end));
    summary_release(&summary);
    samples_release(&samples);
    return object;
}

/* Halves of splits that wait for the other one. */
static json_t *json_waiting(const struct api *api, const char *dataset, struct ovr_err *err) {
    static const char *const splits[] = {"train", "test"}, *const parts[] = {"features", "labels"};
    json_t *list = json_array();
    for (int i = 0; i < 4; i++) {
        struct dataset_part part;
        struct ovr_err why = {0};
        int rc = store_get_part(api->store, dataset, splits[i / 2], parts[i % 2], &part, &why);
        if (rc == 0)
            json_array_append_new(list, json_part(&part, parts[1 - i % 2]));
        else if (rc != OVR_NOT_FOUND)
            ovr_fail(err, rc, why.field, "%s", why.text);
    }
    return list;
}

static struct reply *show_dataset(const struct request *request, const struct dataset_split *splits,
                                  size_t n, json_t *waiting) {
    json_t *inner = json_object(), *summaries = json_object();
    struct reply *refusal = NULL;
    for (size_t i = 0; !refusal && i < n; i++) {
        json_object_set_new(inner, splits[i].split, json_split(&splits[i]));
        json_object_set_new(summaries, splits[i].split, describe(request, &splits[i], &refusal));
    }
    json_t *body = json_pack("{s:s, s:o, s:o, s:O}", "name", request->segments[0], "splits", inner,
                             "summary", summaries, "waiting", waiting);
    if (!refusal)
        return reply_json(200, body);
    json_decref(body);
    return refusal;
}

struct reply *handle_dataset(struct request *request) {
    struct api *api = request->context;
    struct dataset_split *splits = NULL;
    struct ovr_err err = {0};
    size_t n = 0;
    struct reply *reply;
    json_t *waiting = json_waiting(api, request->segments[0], &err);
    if (err.code || store_list_splits(api->store, request->segments[0], &splits, &n, &err))
        reply = problem_from(&err);
    else if (n || json_array_size(waiting))
        reply = show_dataset(request, splits, n, waiting);
    else
        reply = problem(404, "not-found",
                        "there is no data set %.64s; upload it with PUT "
                        "/v1/datasets/NAME/train?format=…",
                        request->segments[0]);
    json_decref(waiting);
    free(splits);
    return reply;
}

struct reply *handle_remove_dataset(struct request *request) {
    struct api *api = request->context;
    struct ovr_err err = {0};
    if (catalog_remove(api->catalog, request->segments[0], &err))
        return problem_from(&err);
    log_line(LOG_INFO, "dataset=%s removed", request->segments[0]);
    return reply_text(204, NULL, "");
}
