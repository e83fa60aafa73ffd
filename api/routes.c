#include "api/api.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

static const char *const submit_query[] = {"dry_run", NULL};
static const char *const list_query[] = {"state", "tag", "name", "limit", "cursor", NULL};
static const char *const metrics_query[] = {"from_epoch", "max_points", NULL};
static const char *const histogram_query[] = {"epoch", "split", "layer", "bins", NULL};
static const char *const weights_query[] = {"epoch", NULL};
static const char *const tensor_query[] = {"epoch", "format", "rows", NULL};
static const char *const upload_query[] = {"format", "label", "header", NULL};
static const char *const part_query[] = {"format", NULL};
static const char *const dataset_query[] = {"features", NULL};
static const char *const preview_query[] = {"split", "rows", "features", "format", NULL};

/* clang-format off */
const struct route api_routes[] = {
    {"POST", "/v1/experiments", handle_submit, "Post an experiment", submit_query, NULL},
    {"GET", "/v1/experiments", handle_list, "List experiments, newest first", list_query, NULL},
    {"GET", "/v1/experiments/{id}", handle_show, "One experiment", NULL, NULL},
    {"POST", "/v1/experiments/{id}/cancel", handle_cancel, "Cancel an experiment", NULL, NULL},
    {"GET", "/v1/experiments/{id}/metrics", handle_metrics, "Figures of every epoch", metrics_query, NULL},
    {"GET", "/v1/experiments/{id}/histogram", handle_histogram, "Histogram of the activations", histogram_query, NULL},
    {"GET", "/v1/experiments/{id}/weights", handle_weights, "List the tensors", weights_query, NULL},
    {"GET", "/v1/experiments/{id}/weights/{tensor}", handle_tensor, "One tensor", tensor_query, NULL},
    {"GET", "/v1/datasets", handle_datasets, "List data sets", NULL, NULL},
    {"GET", "/v1/datasets/{name}", handle_dataset, "One data set", dataset_query, NULL},
    {"DELETE", "/v1/datasets/{name}", handle_remove_dataset, "Remove a data set", NULL, NULL},
    {"GET", "/v1/datasets/{name}/preview", handle_preview, "Samples as numbers or a picture", preview_query, NULL},
    {"PUT", "/v1/datasets/{name}/{split}", handle_upload, "Upload a split", upload_query, &upload_sink},
    {"PUT", "/v1/datasets/{name}/{split}/features", handle_upload, "Upload the values of a split", part_query, &features_sink},
    {"PUT", "/v1/datasets/{name}/{split}/labels", handle_upload, "Upload the labels of a split", part_query, &labels_sink},
    {"GET", "/healthz", handle_healthz, "Is the daemon alive?", NULL, NULL},
    {"GET", "/version", handle_version, "Program, BLAS and processor", NULL, NULL},
    {"GET", "/openapi.json", handle_openapi, "This contract", NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL, NULL},
};
/* clang-format on */

struct reply *query_int(const struct request *request, const char *name, int64_t min, int64_t max,
                        int64_t *value) {
    const char *text = request_query(request, name);
    char *end;
    if (!text)
        return NULL;
    errno = 0;
    long long number = strtoll(text, &end, 10);
    if (end == text || *end || errno || number < min || number > max)
        return problem(422, "invalid-query", "%s must be an integer %lld..%lld, got \"%.40s\"",
                       name, (long long)min, (long long)max, text);
    *value = number;
    return NULL;
}

struct reply *query_range(const struct request *request, const char *name, size_t n, size_t most,
                          size_t *first, size_t *end) {
    const char *text = request_query(request, name);
    unsigned long long from, to;
    int used = 0;
    if (!text)
        return NULL;
    if (sscanf(text, "%19llu:%19llu%n", &from, &to, &used) != 2 || text[used] || text[0] < '0' ||
        text[0] > '9' || from >= to || to > n || to - from > most)
        return problem(422, "invalid-query",
                       "%s must be first:end with 0 <= first < end <= %zu, at most %zu of them, "
                       "such as 0:%zu, got \"%.40s\"",
                       name, n, most, n < 10 ? n : 10, text);
    *first = (size_t)from;
    *end = (size_t)to;
    return NULL;
}
