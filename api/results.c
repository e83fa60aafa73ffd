/* What an experiment measured, epoch by epoch: as JSON, or as CSV with a column for each figure. */
#include "api/api.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EPOCHS_PER_REPLY = 5000 };

struct series {
    json_t *list;
    json_t *last; /* the epoch being filled; borrowed */
    int epoch;
    int thinned; /* it goes to the end, with gaps */
};

static int put_in_series(void *context, int epoch, const struct figure *figure) {
    struct series *series = context;
    if (!series->last || series->epoch != epoch) {
        series->last = json_pack("{s:i}", "epoch", epoch);
        series->epoch = epoch;
        if (json_array_append_new(series->list, series->last))
            return OVR_NOMEM;
    }
    return json_put_figure(series->last, figure);
}

/* From epoch `from` on: the first that fit into a reply, or where there are more than `points` (0:
 * any number) so many of them, evenly spread, the first and the last of all among them. */
static int read_series(struct api *api, int64_t seq, int64_t from, int64_t points,
                       struct series *series, struct ovr_err *err) {
    int64_t last = 0;
    int rc = points ? store_last_epoch(api->store, seq, &last, err) : 0;
    int64_t n = last - from + 1;
    if (rc || n <= points)
        return rc ? rc
                  : store_read_figures(api->store, seq, (int)from, (int)from + EPOCHS_PER_REPLY - 1,
                                       put_in_series, series, err);
    for (int64_t i = 0; !rc && i < points; i++) {
        int epoch = (int)(from + (points == 1 ? n - 1 : i * (n - 1) / (points - 1)));
        rc = store_read_figures(api->store, seq, epoch, epoch, put_in_series, series, err);
    }
    series->thinned = 1;
    return rc;
}

/* CSV (RFC 4180). Names and texts of figures have no commas or quotes; a value that was not finite
 * is an empty field, and so is one that an epoch does not have. */

/* Names of the leaves below `value`, "train.loss", in the order in which they first come. */
static void name_columns(json_t *columns, const char *prefix, const json_t *value) {
    const char *name;
    json_t *member;
    json_object_foreach((json_t *)(uintptr_t)value, name, member) {
        char path[160];
        snprintf(path, sizeof path, "%s%s%s", prefix, *prefix ? "." : "", name);
        if (json_is_object(member))
            name_columns(columns, path, member);
        else if (!json_is_array(member) && !json_object_get(columns, path))
            json_object_set_new(columns, path, json_true());
    }
}

static const json_t *find_leaf(const json_t *value, const char *path) {
    while (value && *path) {
        size_t n = strcspn(path, ".");
        value = json_object_getn(value, path, n);
        path += n + (path[n] == '.');
    }
    return value;
}

static void print_field(FILE *out, const json_t *value) {
    if (json_is_integer(value))
        fprintf(out, "%lld", (long long)json_integer_value(value));
    else if (json_is_real(value))
        fprintf(out, "%.15g", json_real_value(value));
    else if (json_is_string(value))
        fputs(json_string_value(value), out);
}

static void print_csv(FILE *out, const json_t *list, const json_t *columns) {
    const char *name, *between = "";
    json_t *member;
    size_t i;
    const json_t *point;
    json_object_foreach((json_t *)(uintptr_t)columns, name, member) {
        fprintf(out, "%s%s", between, name);
        between = ",";
    }
    fputs("\r\n", out);
    json_array_foreach(list, i, point) {
        between = "";
        json_object_foreach((json_t *)(uintptr_t)columns, name, member) {
            fputs(between, out);
            print_field(out, find_leaf(point, name));
            between = ",";
        }
        fputs("\r\n", out);
    }
}

/* Takes the list over. */
static struct reply *reply_csv(json_t *list) {
    char *text = NULL;
    size_t size, i;
    json_t *columns = json_pack("{s:b}", "epoch", 1), *point;
    json_array_foreach(list, i, point) name_columns(columns, "", point);
    FILE *out = columns ? open_memstream(&text, &size) : NULL;
    if (out)
        print_csv(out, list, columns);
    int failed = !out || ferror(out);
    if (out && fclose(out))
        failed = 1;
    struct reply *reply = failed ? NULL : reply_text(200, "text/csv; charset=utf-8", text);
    free(text);
    json_decref(columns);
    json_decref(list);
    return reply;
}

struct reply *handle_metrics(struct request *request) {
    struct api *api = request->context;
    struct experiment e;
    struct ovr_err err = {0};
    int64_t from = 1, points = 0;
    struct reply *reply = query_int(request, "from_epoch", 1, 1000000, &from);
    if (!reply)
        reply = query_int(request, "max_points", 1, EPOCHS_PER_REPLY, &points);
    const char *format = request_query(request, "format");
    if (!reply && format && strcmp(format, "json") && strcmp(format, "csv"))
        reply = problem(422, "invalid-query", "format must be json or csv, got \"%.40s\"", format);
    if (reply)
        return reply;
    int csv = format && strcmp(format, "csv") == 0;
    if (store_get_experiment(api->store, request->segments[0], &e, &err))
        return problem_from(&err);
    struct series series = {.list = json_array()};
    if (read_series(api, e.seq, from, points, &series, &err)) {
        json_decref(series.list);
        reply = problem_from(&err);
    } else {
        int more = !series.thinned && json_array_size(series.list) == EPOCHS_PER_REPLY;
        reply = csv ? reply_csv(series.list)
                    : reply_json(200, json_pack("{s:o}", "series", series.list));
        reply = reply_etag(reply, "%lld%s", (long long)e.revision, csv ? "-csv" : "");
        if (more)
            reply = reply_header(
                reply, "Link", "</v1/experiments/%s/metrics?from_epoch=%lld%s>; rel=\"next\"", e.id,
                (long long)from + EPOCHS_PER_REPLY, csv ? "&format=csv" : "");
    }
    experiment_release(&e);
    return reply;
}
