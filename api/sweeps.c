/* Sweeps: submit, list, cancel, and the table of points as JSON or CSV. */
#include "server/sweeps.h"
#include "api/api.h"
#include "server/digest.h"
#include "server/leftovers.h"
#include "server/log.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static json_t *json_counts(const struct sweep *s) {
    json_t *counts = json_object();
    for (int i = 0; i < N_STATES; i++)
        json_object_set_new(counts, state_names[i], json_integer(s->counts[i]));
    return counts;
}

/* Without its points. */
static json_t *json_sweep(const struct sweep *s) {
    return json_pack("{s:s, s:s, s:o, s:b, s:s, s:I, s:o, s:s, s:o, s:o, s:i, s:i, s:o, "
                     "s:{s:s+, s:s++}}",
                     "id", s->id, "name", s->name, "owner", json_owner(s->owner), "private",
                     s->private, "state", state_names[sweep_state(s)], "revision",
                     (json_int_t)s->revision, "tags", json_tags(s->tags), "notes", s->notes,
                     "created_at", json_time(s->created_at), "finished_at",
                     json_time(s->finished_at), "size", s->points, "repeats", s->repeats, "counts",
                     json_counts(s), "links", "self", "/v1/sweeps/", s->id, "cancel", "/v1/sweeps/",
                     s->id, "/cancel");
}

/* The table as JSON */

/* A figure of a point over its repeats: mean and sum of squared differences (Welford). */
struct mean {
    char name[64];
    int n, is_count;
    double mean, squares;
    int64_t count;
    json_t *text; /* that all of them have; NULL: a number */
};

struct table {
    struct sweep sweep;
    json_t *points;
    int point; /* whose figures are being collected; -1: none yet */
    struct mean *means;
    size_t n_means, room, at; /* at: where the next figure is expected */
};

static int add_point(void *context, int point, const char *values) {
    struct table *table = context;
    json_t *row = json_pack("{s:i, s:o, s:[], s:n, s:n, s:n}", "point", point, "values",
                            json_loads(values, 0, NULL), "experiments", "result", "sd", "error");
    return json_array_append_new(table->points, row) ? OVR_NOMEM : 0;
}

static int add_run(void *context, const struct sweep_run *run) {
    struct table *table = context;
    json_t *row = json_array_get(table->points, (size_t)run->point);
    json_t *entry = json_pack("{s:s, s:s}", "id", run->id, "state", state_names[run->state]);
    int failed = json_array_append_new(json_object_get(row, "experiments"), entry);
    if (run->problem_kind && json_is_null(json_object_get(row, "error")))
        failed |= json_object_set_new(row, "error",
                                      json_problem(run->problem_kind, NULL, run->problem_detail));
    return failed ? OVR_NOMEM : 0;
}

/* The figures of a point come run by run, in the same order as a rule. */
static struct mean *find_mean(struct table *table, const char *name) {
    for (size_t i = 0; i < table->n_means; i++) {
        struct mean *mean = &table->means[(table->at + i) % table->n_means];
        if (strcmp(mean->name, name) != 0)
            continue;
        table->at = (table->at + i + 1) % table->n_means;
        return mean;
    }
    if (table->n_means == table->room) {
        size_t room = 2 * table->room + 32;
        struct mean *longer = realloc(table->means, room * sizeof *longer);
        if (!longer)
            return NULL;
        table->means = longer;
        table->room = room;
    }
    struct mean *mean = &table->means[table->n_means++];
    *mean = (struct mean){.n = 0};
    snprintf(mean->name, sizeof mean->name, "%s", name);
    table->at = 0;
    return mean;
}

static int put_mean(json_t *result, json_t *sd, const struct mean *mean) {
    struct figure figure = {.name = mean->name, .real = mean->mean};
    if (mean->text && json_is_null(mean->text))
        return 0; /* the repeats don't agree, and texts have no mean */
    if (mean->text) {
        figure.kind = FIGURE_TEXT;
        figure.text = json_string_value(mean->text);
    } else if (mean->is_count && mean->n == 1) {
        figure.kind = FIGURE_COUNT;
        figure.count = mean->count;
    }
    int rc = json_put_figure(result, &figure);
    if (rc || mean->text || mean->n < 2)
        return rc;
    figure.kind = FIGURE_REAL;
    figure.real = sqrt(mean->squares / (mean->n - 1));
    return json_put_figure(sd, &figure);
}

/* Ends the point whose figures were collected. */
static int put_result(struct table *table) {
    json_t *row = json_array_get(table->points, (size_t)table->point);
    json_t *result = json_object(), *sd = json_object();
    int rc = 0;
    if (table->point < 0)
        return json_decref(result), json_decref(sd), 0;
    for (size_t i = 0; i < table->n_means; i++) {
        rc = rc ? rc : put_mean(result, sd, &table->means[i]);
        json_decref(table->means[i].text);
    }
    table->n_means = table->at = 0;
    table->point = -1;
    if (json_object_size(sd) ? json_object_set(row, "sd", sd) : 0)
        rc = OVR_NOMEM;
    json_decref(sd);
    return json_object_set_new(row, "result", result) ? OVR_NOMEM : rc;
}

static int add_figure(void *context, int point, int repeat, const struct figure *figure) {
    struct table *table = context;
    (void)repeat;
    int rc = point == table->point ? 0 : put_result(table);
    table->point = point;
    struct mean *mean = rc ? NULL : find_mean(table, figure->name);
    if (!mean)
        return rc ? rc : OVR_NOMEM;
    mean->n++;
    if (figure->kind == FIGURE_TEXT) {
        const char *before = json_string_value(mean->text);
        if (mean->n == 1)
            mean->text = json_string(figure->text);
        else if (!before || strcmp(before, figure->text) != 0)
            json_decref(mean->text), mean->text = json_null();
        return mean->text ? 0 : OVR_NOMEM;
    }
    double value = figure->kind == FIGURE_COUNT ? (double)figure->count : figure->real;
    double difference = value - mean->mean;
    mean->is_count = figure->kind == FIGURE_COUNT;
    mean->count = figure->count;
    mean->mean += difference / mean->n;
    mean->squares += difference * (value - mean->mean);
    return 0;
}

static void table_release(struct table *table) {
    for (size_t i = 0; i < table->n_means; i++)
        json_decref(table->means[i].text);
    free(table->means);
    json_decref(table->points);
    sweep_release(&table->sweep);
}

/* The search of a table */

static double number_or_nan(const json_t *value) {
    return json_is_number(value) ? json_number_value(value) : NAN;
}

static size_t take_samples(const json_t *points, const char *pointer,
                           struct sweep_sample samples[SWEEP_MAX_SEARCH]) {
    size_t i, n = 0;
    json_t *row;
    json_array_foreach((json_t *)(uintptr_t)points, i, row) {
        const json_t *result = json_object_get(row, "result");
        if (n == SWEEP_MAX_SEARCH)
            break;
        samples[n++] = (struct sweep_sample){
            (int)i, number_or_nan(json_object_get(json_object_get(row, "values"), pointer)),
            number_or_nan(json_object_get(json_object_get(result, "sparsity"), "near_zero")),
            number_or_nan(json_object_get(result, "accuracy"))};
    }
    return n;
}

static const char *describe_outcome(const struct sweep *s, enum sweep_outcome outcome,
                                    const char **detail) {
    static const struct {
        const char *name, *detail;
    } words[] = {
        [SWEEP_SEARCHING] = {"searching", "the search goes on"},
        [SWEEP_REACHED] = {"reached", "the nearest point is within the tolerance"},
        [SWEEP_OUTSIDE] = {"outside",
                           "no value between min and max gives this sparsity: all points "
                           "lie on one side of it; widen min and max"},
        [SWEEP_USED_UP] = {"points_used_up", "the nearest point is not within the tolerance; allow "
                                             "more points or a larger tolerance"},
        [SWEEP_NO_RESULT] = {"no_result", "no point succeeded"},
    };
    if (s->cancelled) {
        *detail = "the sweep was cancelled";
        return "cancelled";
    }
    if (s->more)
        outcome = SWEEP_SEARCHING;
    *detail = words[outcome].detail;
    return words[outcome].name;
}

/* What was wanted, how it went, and the points by value: the frontier between sparsity and
 * accuracy.
 */
static json_t *json_target(const struct table *table) {
    struct sweep_target t;
    struct sweep_sample samples[SWEEP_MAX_SEARCH];
    size_t nearest;
    double next;
    const char *detail;
    if (!table->sweep.target)
        return json_null();
    if (sweep_target_read(table->sweep.target, &t, NULL))
        return NULL;
    size_t n = take_samples(table->points, t.pointer, samples);
    enum sweep_outcome outcome = sweep_target_next(&t, samples, n, &nearest, &next);
    const char *name = describe_outcome(&table->sweep, outcome, &detail);
    json_t *frontier = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(frontier,
                              json_pack("{s:i, s:f, s:o, s:o}", "point", samples[i].point, "value",
                                        samples[i].value, "near_zero",
                                        json_real_or_null(samples[i].near_zero), "accuracy",
                                        json_real_or_null(samples[i].accuracy)));
    return json_pack("{s:s, s:f, s:f, s:f, s:f, s:i, s:s, s:s, s:o, s:o}", "pointer", t.pointer,
                     "near_zero", t.near_zero, "tolerance", t.tolerance, "min", t.min, "max", t.max,
                     "points", t.points, "outcome", name, "detail", detail, "nearest",
                     nearest < n ? json_integer(samples[nearest].point) : json_null(), "frontier",
                     frontier);
}

static json_t *json_table(struct table *table, json_t *warnings) {
    json_t *body = json_sweep(&table->sweep), *target = json_target(table);
    int failed = !body || !target;
    if (body) {
        failed |= json_object_set_new(body, "axes", json_loads(table->sweep.axes, 0, NULL));
        failed |= json_object_set(body, "points", table->points);
        failed |= json_object_set(body, "target", target);
        failed |= json_object_set_new(body, "request", json_loads(table->sweep.request, 0, NULL));
        if (json_array_size(warnings))
            failed |= json_object_set(body, "warnings", warnings);
    }
    json_decref(target);
    if (!failed)
        return body;
    json_decref(body);
    return NULL;
}

static struct reply *reply_sweep(struct api *api, int status, const char *id, json_t *warnings) {
    struct table table = {.points = json_array(), .point = -1};
    struct sweep_reader reader = {&table, add_point, add_run, add_figure};
    struct ovr_err err = {0};
    struct reply *reply;
    int rc = store_read_sweep(api->store, id, &table.sweep, &reader, &err);
    if (!rc)
        rc = put_result(&table);
    if (rc && !err.code)
        ovr_nomem(&err, "the table of a sweep");
    if (rc)
        reply = problem_from(&err);
    else
        reply = reply_json(status, json_table(&table, warnings));
    if (!rc && status == 200)
        reply = reply_etag(reply, "%lld", (long long)table.sweep.revision);
    table_release(&table);
    return reply;
}

/* The table as CSV (RFC 4180): a row for each experiment. */

struct csv {
    struct sweep sweep;
    json_t *values;  /* of each point */
    json_t *rows;    /* of each experiment: point, repeat, id, state, and its figures by name */
    json_t *figures; /* the names of all figures, as members */
    size_t at;       /* row that the next figure belongs to, or one before it */
};

static int add_values(void *context, int point, const char *values) {
    struct csv *csv = context;
    (void)point;
    return json_array_append_new(csv->values, json_loads(values, 0, NULL)) ? OVR_NOMEM : 0;
}

static int add_row(void *context, const struct sweep_run *run) {
    struct csv *csv = context;
    return json_array_append_new(csv->rows,
                                 json_pack("{s:i, s:i, s:s, s:s, s:{}}", "point", run->point,
                                           "repeat", run->repeat, "id", run->id, "state",
                                           state_names[run->state], "figures"))
               ? OVR_NOMEM
               : 0;
}

static int is_row_of(const json_t *row, int point, int repeat) {
    return json_integer_value(json_object_get(row, "point")) == point &&
           json_integer_value(json_object_get(row, "repeat")) == repeat;
}

static int add_cell(void *context, int point, int repeat, const struct figure *figure) {
    struct csv *csv = context;
    while (csv->at < json_array_size(csv->rows) &&
           !is_row_of(json_array_get(csv->rows, csv->at), point, repeat))
        csv->at++;
    json_t *cells = json_object_get(json_array_get(csv->rows, csv->at), "figures");
    json_t *value = figure->kind == FIGURE_TEXT    ? json_string(figure->text)
                    : figure->kind == FIGURE_COUNT ? json_integer(figure->count)
                                                   : json_real_or_null(figure->real);
    if (!json_object_get(csv->figures, figure->name) &&
        json_object_set_new(csv->figures, figure->name, json_true()))
        return json_decref(value), OVR_NOMEM;
    return json_object_set_new(cells, figure->name, value) ? OVR_NOMEM : 0;
}

static void write_text(FILE *out, const char *text) {
    if (!text[strcspn(text, ",\"\r\n")]) {
        fputs(text, out);
        return;
    }
    fputc('"', out);
    for (; *text; text++) {
        if (*text == '"')
            fputc('"', out);
        fputc(*text, out);
    }
    fputc('"', out);
}

/* Empty for what is not there or was not finite. */
static void write_value(FILE *out, const json_t *value) {
    fputc(',', out);
    if (!value || json_is_null(value))
        return;
    if (json_is_string(value)) {
        write_text(out, json_string_value(value));
        return;
    }
    char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(15));
    write_text(out, text ? text : "");
    free(text);
}

static void write_csv(FILE *out, const struct csv *csv, const json_t *axes) {
    size_t i, k;
    json_t *row, *axis, *value;
    const char *name;
    fputs("point,repeat,experiment,state", out);
    json_array_foreach((json_t *)(uintptr_t)axes, k, axis) write_value(out, axis);
    json_object_foreach(csv->figures, name, value) {
        fputc(',', out);
        write_text(out, name);
    }
    fputs("\r\n", out);
    json_array_foreach(csv->rows, i, row) {
        json_int_t point = json_integer_value(json_object_get(row, "point"));
        const json_t *values = json_array_get(csv->values, (size_t)point);
        const json_t *figures = json_object_get(row, "figures");
        fprintf(out, "%lld,%lld,%s,%s", (long long)point,
                (long long)json_integer_value(json_object_get(row, "repeat")),
                json_string_value(json_object_get(row, "id")),
                json_string_value(json_object_get(row, "state")));
        json_array_foreach((json_t *)(uintptr_t)axes, k, axis)
            write_value(out, json_object_get(values, json_string_value(axis)));
        json_object_foreach(csv->figures, name, value)
            write_value(out, json_object_get(figures, name));
        fputs("\r\n", out);
    }
}

static struct reply *make_csv(const struct csv *csv) {
    char *text = NULL;
    size_t size = 0;
    json_t *axes = json_loads(csv->sweep.axes, 0, NULL);
    FILE *out = axes ? open_memstream(&text, &size) : NULL;
    if (out)
        write_csv(out, csv, axes);
    int failed = !out || ferror(out);
    if (out && fclose(out))
        failed = 1;
    struct reply *reply = failed ? NULL : reply_text(200, "text/csv; charset=utf-8", text);
    free(text);
    json_decref(axes);
    return reply_etag(reply, "%lld-csv", (long long)csv->sweep.revision);
}

static struct reply *reply_csv(struct api *api, const char *id) {
    struct csv csv = {.values = json_array(), .rows = json_array(), .figures = json_object()};
    struct sweep_reader reader = {&csv, add_values, add_row, add_cell};
    struct ovr_err err = {0};
    int rc = store_read_sweep(api->store, id, &csv.sweep, &reader, &err);
    if (rc && !err.code)
        ovr_nomem(&err, "the table of a sweep");
    struct reply *reply = rc ? problem_from(&err) : make_csv(&csv);
    json_decref(csv.values);
    json_decref(csv.rows);
    json_decref(csv.figures);
    sweep_release(&csv.sweep);
    return reply;
}

/* Handlers */

static struct reply *reply_plan(const struct sweep_plan *plan, json_t *warnings) {
    return reply_json(200, json_pack("{s:b, s:I, s:I, s:I, s:o, s:O}", "valid", 1, "points",
                                     (json_int_t)plan->n_points, "experiments",
                                     (json_int_t)plan->n_experiments, "on_cluster",
                                     (json_int_t)plan->on_cluster, "estimate",
                                     json_estimate(&plan->cost), "warnings", warnings));
}

static struct reply *enqueue(const struct request *request, struct sweep_plan *plan,
                             json_t *warnings) {
    struct api *api = request->context;
    char id[ID_SIZE], body_sha256[DIGEST_SIZE];
    struct ovr_err err = {0};
    int repeated = 0;
    digest_of(request->body, request->body_size, body_sha256);
    plan->sweep.idempotency_key = request_header(request, "Idempotency-Key");
    plan->sweep.body_sha256 = body_sha256;
    plan->sweep.owner = request->asker.user;
    int rc = store_add_sweep(api->store, &plan->sweep, id, &repeated, &err);
    if (rc)
        return rc == OVR_CONFLICT ? problem(422, "idempotency", "%s", err.text)
                                  : problem_from(&err);
    if (!repeated) {
        log_line(LOG_INFO, "sweep=%s queued, %zu points, name=\"%s\"", id,
                 plan->sweep.points.n_points, plan->sweep.name);
        executors_submit(&api->executors);
    }
    return reply_header(reply_sweep(api, 202, id, warnings), "Location", "/v1/sweeps/%s", id);
}

static struct reply *submit(struct request *request, const json_t *document, int dry) {
    struct api *api = request->context;
    struct ovr_err err = {0};
    struct sweep_plan plan = {0};
    json_t *faults = json_array(), *warnings = json_array();
    int rc = faults && warnings
                 ? sweep_plan_read(document, &api->admission, &plan, faults, warnings, &err)
                 : ovr_nomem(&err, "a sweep");
    struct reply *reply;
    if (rc)
        reply = reply_refused(
            rc, "the sweep was not accepted; each entry of errors says what to change", faults,
            &err);
    else
        reply = dry ? reply_plan(&plan, warnings) : enqueue(request, &plan, warnings);
    sweep_plan_release(&plan);
    json_decref(faults);
    json_decref(warnings);
    return reply;
}

struct reply *handle_submit_sweep(struct request *request) {
    int dry;
    struct reply *reply;
    json_t *document = read_posted(request, &dry, &reply);
    if (!document)
        return reply;
    reply = submit(request, document, dry);
    json_decref(document);
    return reply;
}

struct reply *handle_list_sweeps(struct request *request) {
    struct api *api = request->context;
    struct ovr_err err = {0};
    struct sweep *list;
    int64_t limit = 50, before = 0;
    size_t n;
    const char *owner = query_owner(request);
    struct reply *reply = query_int(request, "limit", 1, 500, &limit);
    if (!reply)
        reply = query_int(request, "cursor", 1, INT64_MAX, &before);
    if (reply)
        return reply;
    if (store_list_sweeps(api->store, owner, before, (int)limit + 1, &list, &n, &err))
        return problem_from(&err);
    size_t shown = n > (size_t)limit ? n - 1 : n;
    json_t *array = json_array();
    int failed = !array;
    for (size_t i = 0; i < shown; i++)
        failed |= json_array_append_new(array, json_sweep(&list[i]));
    reply = reply_json(200, failed ? NULL : json_pack("{s:O}", "sweeps", array));
    json_decref(array);
    char query[512];
    snprintf(query, sizeof query, "cursor=%lld&limit=%lld",
             shown < n ? (long long)list[shown - 1].seq : 0, (long long)limit);
    append_query(query, sizeof query, "owner", owner);
    if (shown < n)
        reply = reply_header(reply, "Link", "</v1/sweeps?%s>; rel=\"next\"", query);
    sweep_list_free(list, n);
    return reply;
}

static int read_revision(struct api *api, const char *id, int64_t *seq, int64_t *revision) {
    const struct sweep_reader nothing = {0};
    struct sweep sweep;
    int rc = store_read_sweep(api->store, id, &sweep, &nothing, NULL);
    if (rc)
        return rc;
    *seq = 0;
    *revision = sweep.revision;
    sweep_release(&sweep);
    return 0;
}

struct reply *handle_show_sweep(struct request *request) {
    const char *format = request_query(request, "format");
    if (format && strcmp(format, "json") && strcmp(format, "csv"))
        return problem(422, "invalid-query", "format must be json or csv, got \"%.40s\"", format);
    struct reply *reply = await_change(request, read_revision);
    if (reply)
        return reply;
    if (format && strcmp(format, "csv") == 0)
        reply = reply_csv(request->context, request->segments[0]);
    else
        reply = reply_sweep(request->context, 200, request->segments[0], NULL);
    return reply_preference(request, reply);
}

struct reply *handle_cancel_sweep(struct request *request) {
    struct api *api = request->context;
    struct ovr_err err = {0};
    char(*running)[ID_SIZE];
    size_t n;
    if (store_cancel_sweep(api->store, request->segments[0], &running, &n, &err))
        return problem_from(&err);
    for (size_t i = 0; i < n; i++) {
        executors_cancel(&api->executors, running[i], STOP_CANCEL);
        work_forget(&api->work, running[i]);
    }
    free(running);
    executors_submit(&api->executors); /* the next in the queue may be one that fits */
    leftovers_sweep_checkpoints(api->store, api->data_dir);
    return reply_sweep(api, 202, request->segments[0], NULL);
}
