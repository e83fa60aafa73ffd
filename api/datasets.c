/* Data sets: upload a split, list what there is. */
#include "api/api.h"
#include "server/digest.h"
#include "server/log.h"

#include <stdlib.h>
#include <string.h>

/* RFC 9530: Content-Digest: sha-256=:<base64>: — the hexadecimal form, or "" without one. */
static struct reply *read_content_digest(const struct request *request, char hex[DIGEST_SIZE]) {
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

static void *open_upload(const struct request *request, struct reply **refusal) {
    struct api *api = request->context;
    const char *format = request_query(request, "format");
    char digest[DIGEST_SIZE];
    struct ovr_err err = {0};
    struct upload *upload = NULL;
    if (!format || strcmp(format, "cifar10"))
        *refusal = problem(422, "invalid-query", "%s%.40s; this version reads format=cifar10",
                           format ? "there is no format " : "the query must name the format",
                           format ? format : "");
    else if (!(*refusal = read_content_digest(request, digest)) &&
             upload_open(&upload, api->catalog, request->segments[0], request->segments[1], digest,
                         &err))
        *refusal = problem_from(&err);
    return upload;
}

static int write_upload(void *upload, const char *bytes, size_t n) {
    return upload_write(upload, bytes, n);
}

static void abort_upload(void *upload) {
    upload_abort(upload);
}

const struct sink upload_sink = {open_upload, write_upload, abort_upload};

struct reply *handle_upload(struct request *request) {
    struct dataset_split split;
    struct ovr_err err = {0};
    int fresh;
    if (upload_finish(request->upload, &split, &fresh, &err))
        return err.code == OVR_INVALID ? problem(422, "invalid-dataset", "%s", err.text)
                                       : problem_from(&err);
    log_line(LOG_INFO, "dataset=%s split=%s samples=%lld sha256=%s %s", split.dataset, split.split,
             (long long)split.samples, split.sha256, fresh ? "stored" : "unchanged");
    struct reply *reply = reply_json(fresh ? 201 : 200, json_split(&split));
    return reply_header(reply, "Location", "/v1/datasets/%s", split.dataset);
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

struct reply *handle_dataset(struct request *request) {
    struct api *api = request->context;
    struct dataset_split *splits;
    struct ovr_err err = {0};
    size_t n;
    struct reply *reply;
    if (store_list_splits(api->store, request->segments[0], &splits, &n, &err))
        return problem_from(&err);
    if (n) {
        json_t *list = group_splits(splits, n);
        reply = reply_json(200, json_incref(json_array_get(list, 0)));
        json_decref(list);
    } else {
        reply = problem(404, "not-found",
                        "there is no data set %.64s; upload it with PUT "
                        "/v1/datasets/NAME/train?format=cifar10",
                        request->segments[0]);
    }
    free(splits);
    return reply;
}
