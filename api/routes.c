#include "api/api.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char *const submit_query[] = {"dry_run", NULL};
static const char *const list_query[] = {"state", "tag",  "name",  "sweep",  "created_after",
                                         "owner", "sort", "limit", "cursor", NULL};
static const char *const prune_query[] = {"ended_before", "state",  "tag", "dry_run",
                                          "limit",        "cursor", NULL};
static const char *const queue_query[] = {"limit", "cursor", NULL};
static const char *const sweeps_query[] = {"owner", "limit", "cursor", NULL};
static const char *const users_query[] = {"limit", "cursor", NULL};
static const char *const audit_query[] = {"user", "object", "since", "limit", "cursor", NULL};
static const char *const sweep_query[] = {"format", NULL};
static const char *const events_query[] = {"last_event_id", NULL};
static const char *const metrics_query[] = {"from_epoch", "max_points", "format", NULL};
static const char *const histogram_query[] = {"epoch", "split", "layer", "bins", NULL};
static const char *const histograms_query[] = {"from_epoch", "max_points", "layer", NULL};
static const char *const compare_query[] = {"a", "b", "layer", NULL};
static const char *const units_query[] = {"sort",  "dead",   "class_means", "layer",
                                          "limit", "cursor", NULL};
static const char *const tiling_query[] = {"units", "layer", NULL};
static const char *const weights_query[] = {"epoch", NULL};
static const char *const tensor_query[] = {"epoch", "format", "rows", NULL};
static const char *const model_query[] = {"format", NULL};
static const char *const filters_query[] = {"units", NULL};
static const char *const upload_query[] = {"format", "label", "header", NULL};
static const char *const part_query[] = {"format", NULL};
static const char *const dataset_query[] = {"features", NULL};
static const char *const preview_query[] = {"split", "rows", "features", "format", NULL};

/* clang-format off */
const struct route api_routes[] = {
    {"POST", "/v1/experiments", handle_submit, "Post an experiment", submit_query, NULL},
    {"GET", "/v1/experiments", handle_list, "List experiments, newest first", list_query, NULL},
    {"GET", "/v1/experiments/{id}", handle_show, "One experiment", NULL, NULL},
    {"PATCH", "/v1/experiments/{id}", handle_edit, "Change name, tags, notes, priority or privacy", NULL, NULL},
    {"DELETE", "/v1/experiments/{id}", handle_delete, "Delete an experiment and its files", NULL, NULL, .slow = 1},
    {"POST", "/v1/prune", handle_prune, "Delete experiments that ended long ago", prune_query, NULL, .slow = 1},
    {"POST", "/v1/experiments/{id}/rerun", handle_rerun, "Run it again, perhaps changed", NULL, NULL},
    {"POST", "/v1/experiments/{id}/replay", handle_replay, "Run it again and compare", NULL, NULL},
    {"POST", "/v1/experiments/{id}/cancel", handle_cancel, "Cancel an experiment", NULL, NULL},
    {"POST", "/v1/experiments/{id}/pause", handle_pause, "Pause an experiment", NULL, NULL},
    {"POST", "/v1/experiments/{id}/resume", handle_resume, "Let a paused experiment go on", NULL, NULL},
    {"GET", "/v1/queue", handle_queue, "What runs, what waits, in which order and why", queue_query, NULL},
    {"GET", "/v1/experiments/{id}/events", handle_events, "Watch it: a stream of events", events_query, NULL},
    {"GET", "/v1/experiments/{id}/log", handle_log, "What happened to it, as text", NULL, NULL},
    {"GET", "/v1/experiments/{id}/metrics", handle_metrics, "Figures of every epoch", metrics_query, NULL},
    {"GET", "/v1/experiments/{id}/histogram", handle_histogram, "Histogram of the activations", histogram_query, NULL},
    {"GET", "/v1/experiments/{id}/histograms", handle_histograms, "Histograms of every epoch", histograms_query, NULL},
    {"GET", "/v1/experiments/{id}/units", handle_units, "What each unit does", units_query, NULL},
    {"GET", "/v1/experiments/{id}/tiling", handle_tiling, "Which cells of the sphere each unit answers to", tiling_query, NULL},
    {"GET", "/v1/compare/histograms", handle_compare, "How far two histograms are apart", compare_query, NULL},
    {"GET", "/v1/experiments/{id}/weights", handle_weights, "List the tensors", weights_query, NULL},
    {"GET", "/v1/experiments/{id}/weights/{tensor}", handle_tensor, "One tensor", tensor_query, NULL},
    {"GET", "/v1/experiments/{id}/model", handle_model, "The whole model in one file", model_query, NULL},
    {"GET", "/v1/experiments/{id}/filters.png", handle_filters, "What units look for, as pictures", filters_query, NULL, .slow = 1},
    {"POST", "/v1/experiments/{id}/encode", handle_encode, "Codes of samples", model_query, &samples_sink, .slow = 1, .need = NEED_READ},
    {"POST", "/v1/experiments/{id}/predict", handle_predict, "Classes of samples", model_query, &samples_sink, .slow = 1, .need = NEED_READ},
    {"GET", "/v1/schema", handle_schema, "JSON Schema of a spec", NULL, NULL},
    {"POST", "/v1/sweeps", handle_submit_sweep, "Post a sweep", submit_query, NULL},
    {"GET", "/v1/sweeps", handle_list_sweeps, "List sweeps, newest first", sweeps_query, NULL},
    {"GET", "/v1/sweeps/{id}", handle_show_sweep, "One sweep: the table of its points", sweep_query, NULL},
    {"POST", "/v1/sweeps/{id}/cancel", handle_cancel_sweep, "Cancel a sweep", NULL, NULL},
    {"GET", "/v1/datasets", handle_datasets, "List data sets", NULL, NULL},
    {"GET", "/v1/datasets/{name}", handle_dataset, "One data set", dataset_query, NULL},
    {"DELETE", "/v1/datasets/{name}", handle_remove_dataset, "Remove a data set", NULL, NULL},
    {"GET", "/v1/datasets/{name}/preview", handle_preview, "Samples as numbers or a picture", preview_query, NULL},
    {"PUT", "/v1/datasets/{name}/{split}", handle_upload, "Upload a split", upload_query, &upload_sink, .slow = 1},
    {"PUT", "/v1/datasets/{name}/{split}/features", handle_upload, "Upload the values of a split", part_query, &features_sink, .slow = 1},
    {"PUT", "/v1/datasets/{name}/{split}/labels", handle_upload, "Upload the labels of a split", part_query, &labels_sink, .slow = 1},
    {"POST", "/v1/admin/backup", handle_backup, "Make a backup on the server", NULL, NULL, .slow = 1, .need = NEED_ADMIN},
    {"GET", "/v1/me", handle_me, "Who am I, and what may I do?", NULL, NULL},
    {"GET", "/v1/users", handle_users, "List users", users_query, NULL, .need = NEED_ADMIN},
    {"POST", "/v1/users", handle_add_user, "Add a user with her first token", NULL, NULL, .need = NEED_ADMIN},
    {"GET", "/v1/users/{name}", handle_user, "One user", NULL, NULL, .need = NEED_SELF},
    {"PATCH", "/v1/users/{name}", handle_edit_user, "Change role and quotas, disable or enable", NULL, NULL, .need = NEED_ADMIN},
    {"DELETE", "/v1/users/{name}", handle_remove_user, "Disable a user and revoke her tokens", NULL, NULL, .need = NEED_ADMIN},
    {"GET", "/v1/users/{name}/tokens", handle_tokens, "List a user's tokens", NULL, NULL, .need = NEED_SELF},
    {"POST", "/v1/users/{name}/tokens", handle_add_token, "Make a token", NULL, NULL, .need = NEED_SELF},
    {"GET", "/v1/users/{name}/tokens/{id}", handle_token, "One token, without its text", NULL, NULL, .need = NEED_SELF},
    {"DELETE", "/v1/users/{name}/tokens/{id}", handle_revoke_token, "Revoke a token", NULL, NULL, .need = NEED_SELF},
    {"GET", "/v1/audit", handle_audit, "Who changed what, newest first", audit_query, NULL, .need = NEED_ADMIN},
    {"GET", "/v1/work", handle_work, "What a worker is to do", NULL, NULL, .need = NEED_WORKER},
    {"GET", "/v1/work/data/{split}", handle_work_data, "The bytes of a split", NULL, NULL, .need = NEED_WORKER},
    {"GET", "/v1/work/checkpoints/{number}/{rank}", handle_work_checkpoint, "A rank's part of a checkpoint", NULL, NULL, .need = NEED_WORKER},
    {"PUT", "/v1/work/checkpoints/{number}/{rank}", handle_work_upload, "Put a rank's part of a checkpoint", NULL, &checkpoint_sink, .slow = 1, .need = NEED_WORKER},
    {"PUT", "/v1/work/files/{directory}/{name}", handle_work_upload, "Put a file of the result", NULL, &result_sink, .slow = 1, .need = NEED_WORKER},
    {"POST", "/v1/work/reports", handle_report, "Report what happened", NULL, NULL, .need = NEED_WORKER},
    {"GET", "/healthz", handle_healthz, "Is the daemon alive?", NULL, NULL, .need = NEED_NOTHING},
    {"GET", "/readyz", handle_readyz, "Does it take experiments?", NULL, NULL, .need = NEED_NOTHING},
    {"GET", "/metrics", handle_prometheus, "Figures of the daemon for Prometheus", NULL, NULL},
    {"GET", "/version", handle_version, "Program, BLAS and processor", NULL, NULL, .need = NEED_NOTHING},
    {"GET", "/problems/{kind}", handle_problem, "What a kind of problem means", NULL, NULL, .need = NEED_NOTHING},
    {"GET", "/openapi.json", handle_openapi, "This contract", NULL, NULL, .need = NEED_NOTHING},
    {"GET", "/", handle_dashboard, "The dashboard", NULL, NULL, .need = NEED_NOTHING},
    {"GET", "/assets/{name}", handle_asset, "A file of the dashboard", NULL, NULL, .need = NEED_NOTHING},
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

/* How the text begins: 0 stands for any digit, T for t as well, all else for itself. */
static int has_form(const char *text, const char *form) {
    for (; *form; form++, text++)
        if (*form == '0'   ? *text < '0' || *text > '9'
            : *form == 'T' ? *text != 'T' && *text != 't'
                           : *text != *form)
            return 0;
    return 1;
}

/* "Z", "+02:00": minutes east of Greenwich. */
static int parse_offset(const char *text, int *minutes) {
    int west = *text == '-', hours, rest;
    *minutes = 0;
    if (strcmp(text, "Z") == 0 || strcmp(text, "z") == 0)
        return 1;
    if ((!west && *text != '+') || !has_form(text + 1, "00:00") || text[6])
        return 0;
    sscanf(text + 1, "%2d:%2d", &hours, &rest);
    *minutes = (west ? -1 : 1) * (hours * 60 + rest);
    return hours < 24 && rest < 60;
}

int parse_time(const char *text, int64_t *ms) {
    static const char form[] = "0000-00-00T00:00:00";
    struct tm at = {0};
    int fraction = 0, offset;
    if (!has_form(text, form))
        return 0;
    sscanf(text, "%4d-%2d-%2d", &at.tm_year, &at.tm_mon, &at.tm_mday);
    sscanf(text + 11, "%2d:%2d:%2d", &at.tm_hour, &at.tm_min, &at.tm_sec);
    const char *rest = text + sizeof form - 1;
    if (has_form(rest, ".0")) {
        size_t digits = strspn(rest + 1, "0123456789");
        for (size_t i = 0; i < 3; i++)
            fraction = fraction * 10 + (i < digits ? rest[1 + i] - '0' : 0);
        rest += digits + 1;
    }
    at.tm_year -= 1900;
    at.tm_mon -= 1;
    struct tm same = at;
    int64_t seconds = timegm(&same); /* makes 1 March of 29 February, where there is none */
    if (!parse_offset(rest, &offset) || same.tm_mon != at.tm_mon || same.tm_mday != at.tm_mday ||
        same.tm_hour != at.tm_hour || same.tm_min != at.tm_min || same.tm_sec != at.tm_sec)
        return 0;
    *ms = (seconds - offset * INT64_C(60)) * 1000 + fraction;
    return 1;
}

struct reply *query_time(const struct request *request, const char *name, int64_t *ms) {
    const char *text = request_query(request, name);
    if (!text || parse_time(text, ms))
        return NULL;
    return problem(422, "invalid-query",
                   "%s must be a time such as 2026-11-24T09:30:00Z, got \"%.40s\"", name, text);
}

const char *query_owner(const struct request *request) {
    const char *text = request_query(request, "owner");
    if (!text || strcmp(text, "me") != 0)
        return text;
    return *request->asker.name ? request->asker.name : NULL;
}

struct reply *query_layer(const struct request *request, int *layer) {
    const char *text = request_query(request, "layer"), *digits = text;
    if (!text)
        return NULL;
    if (strncmp(digits, "hidden.", 7) == 0)
        digits += 7;
    size_t n = strspn(digits, "0123456789");
    if (n == 0 || n > 2 || digits[n])
        return problem(422, "invalid-query",
                       "layer must be hidden.0, hidden.1 and so on, got \"%.40s\"", text);
    *layer = atoi(digits);
    return NULL;
}

struct reply *query_bool(const struct request *request, const char *name, int *value) {
    const char *text = request_query(request, name);
    if (!text)
        return NULL;
    *value = strcmp(text, "true") == 0;
    if (!*value && strcmp(text, "false"))
        return problem(422, "invalid-query", "%s must be true or false, got \"%.40s\"", name, text);
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
