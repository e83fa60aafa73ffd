/* The commands on sweeps: their list, one's table, its CSV, cancelling it. */
#include "clients/cli/api.h"
#include "clients/cli/jobs.h"
#include "clients/cli/value.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

bool document_is_sweep(const char *text, size_t size) {
    json_t *document = text ? json_loadb(text, size, 0, NULL) : NULL;
    bool sweep = json_object_get(document, "base") != NULL;
    json_decref(document);
    return sweep;
}

void print_sweep_estimate(const json_t *answer) {
    const json_t *estimate = value_at(answer, "estimate");
    char figure[FIGURE_ROOM];
    printf("The sweep is valid: %.0f points, %.0f experiments. Estimated:\n",
           value_number(answer, "points"), value_number(answer, "experiments"));
    printf("  memory      %s for the largest\n",
           text_bytes(figure, value_number(estimate, "memory_bytes")));
    printf("  takes       %s, one after the other\n",
           text_duration(figure, value_number(estimate, "seconds")));
    if (value_number(answer, "on_cluster") > 0)
        printf("  runs on     Slurm: %.0f of the experiments\n",
               value_number(answer, "on_cluster"));
}

struct sweep_counts sweep_counts(const json_t *sweep) {
    const json_t *counts = value_at(sweep, "counts");
    struct sweep_counts c = {.failed = value_number(counts, "failed"),
                             .running = value_number(counts, "running")};
    c.done = c.failed + value_number(counts, "succeeded") + value_number(counts, "cancelled");
    c.all = c.done + c.running + value_number(counts, "queued");
    return c;
}

static void sweep_row(struct table *table, const json_t *sweep, double now) {
    struct sweep_counts counts = sweep_counts(sweep);
    char figure[FIGURE_ROOM];
    double age = now - text_time(value_string(sweep, "created_at"));
    table_cell(table, "%s", value_string(sweep, "id"));
    table_cell(table, "%s", value_string(sweep, "state"));
    table_cell(table, "%s", value_string(sweep, "name"));
    table_cell(table, "%.0f", value_number(sweep, "size"));
    table_cell(table, "%.0f/%.0f", counts.done, counts.all);
    table_cell(table, "%.0f", counts.failed);
    table_cell(table, "%s", text_duration(figure, age < 0 ? 0 : age)); /* clocks differ */
}

int command_sweeps(struct cli *cli) {
    static const struct column columns[] = {{"id", false, false},  {"state", false, false},
                                            {"name", false, true}, {"points", true, false},
                                            {"done", true, false}, {"failed", true, false},
                                            {"age", true, false}};
    struct table table = {.columns = columns, .n_columns = sizeof columns / sizeof *columns};
    struct buf path = {0};
    json_t *answer;
    size_t i;
    const json_t *sweep;
    buf_path(&path, "/v1/sweeps");
    buf_query(&path, "owner", cli->options.owner);
    buf_query(&path, "limit", cli->options.limit);
    int code = api_get(cli, &path, &answer);
    const json_t *list = value_at(answer, "sweeps");
    if (!code && answer && !json_is_array(list))
        code = api_complain_nonsense(cli);
    if (!code && answer) {
        json_array_foreach(list, i, sweep) sweep_row(&table, sweep, (double)time(NULL));
        code = table_print(&table) ? api_complain_memory() : EXIT_OK;
    }
    json_decref(answer);
    return code;
}

/* The table of one */

/* What is shown of each point, besides its axes. */
static const struct shown {
    const char *title, *path;
    int decimals;
} shown[] = {{"accuracy", "accuracy", 4},
             {"near_zero", "sparsity.near_zero", 3},
             {"zero", "sparsity.zero", 3},
             {"dead", "sparsity.dead_units", 0}};

enum { MOST_AXES = 5, WIDEST_VALUE = 24, N_SHOWN = sizeof shown / sizeof *shown };

/* The end of a pointer that people know it by: "lambda", "hidden/0". */
static const char *axis_title(const json_t *axes, size_t at) {
    const char *pointer = json_string_value(json_array_get(axes, at));
    const char *title = pointer ? strrchr(pointer, '/') : NULL;
    size_t i, same = 0;
    const json_t *other;
    if (!title || title == pointer)
        return pointer ? pointer + (*pointer == '/') : "";
    if (title[1 + strspn(title + 1, "0123456789")] == '\0')
        do
            title--;
        while (title > pointer && *title != '/');
    json_array_foreach(axes, i, other) {
        const char *text = json_string_value(other);
        size_t n = text ? strlen(text) : 0, m = strlen(title);
        same += n >= m && !strcmp(text + n - m, title);
    }
    return (same > 1 ? pointer : title) + 1;
}

static void value_cell(struct table *table, const json_t *value) {
    char figure[FIGURE_ROOM];
    if (json_is_string(value)) {
        const char *text = json_string_value(value);
        table_cell(table, "%.*s", (int)text_cut(text, WIDEST_VALUE), text);
    } else if (json_is_number(value)) {
        table_cell(table, "%s", text_figure(figure, json_number_value(value)));
    } else if (!value) {
        table_cell(table, "-");
    } else {
        char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(6));
        table_cell(table, "%.*s", text ? (int)text_cut(text, WIDEST_VALUE) : 0, text ? text : "");
        free(text);
    }
}

static void result_cell(struct table *table, const json_t *point, const struct shown *what) {
    char mean[FIGURE_ROOM], sd[FIGURE_ROOM];
    double deviation = value_number(value_at(point, "sd"), what->path);
    text_fixed(mean, value_number(value_at(point, "result"), what->path), what->decimals);
    if (isnan(deviation))
        table_cell(table, "%s", mean);
    else
        table_cell(table, "%s %s%s", mean, terminal_utf8() ? "±" : "+-",
                   text_fixed(sd, deviation, what->decimals));
}

/* "succeeded", or how many of its repeats have ended. */
static void state_cell(struct table *table, const json_t *point) {
    const json_t *runs = value_at(point, "experiments"), *run;
    const char *first = value_string(json_array_get(runs, 0), "state");
    size_t i, done = 0, same = 0;
    json_array_foreach(runs, i, run) {
        done += state_is_final(value_string(run, "state"));
        same += !strcmp(value_string(run, "state"), first);
    }
    if (same == json_array_size(runs))
        table_cell(table, "%s", first);
    else
        table_cell(table, "%zu of %zu done", done, json_array_size(runs));
}

static bool has_errors(const json_t *points) {
    size_t i;
    const json_t *point;
    json_array_foreach(points, i, point) {
        if (*value_string(point, "error.detail"))
            return true;
    }
    return false;
}

/* The i-th point to show: those of a search by value, which makes them its frontier. */
static const json_t *point_at(const json_t *sweep, size_t i) {
    const json_t *points = value_at(sweep, "points");
    const json_t *entry = json_array_get(value_at(sweep, "target.frontier"), i);
    double point = value_number(entry, "point");
    bool known = point >= 0 && point < (double)json_array_size(points);
    return json_array_get(points, known ? (size_t)point : i);
}

static int print_points(const json_t *sweep) {
    const json_t *axes = value_at(sweep, "axes"), *points = value_at(sweep, "points");
    bool errors = has_errors(points);
    size_t n_axes = json_array_size(axes), i;
    struct column columns[MOST_AXES + N_SHOWN + 3];
    struct table table = {.columns = columns};
    n_axes = n_axes > MOST_AXES ? MOST_AXES : n_axes;
    columns[table.n_columns++] = (struct column){"point", true, false};
    for (i = 0; i < n_axes; i++)
        columns[table.n_columns++] = (struct column){axis_title(axes, i), true, false};
    for (i = 0; i < N_SHOWN; i++)
        columns[table.n_columns++] = (struct column){shown[i].title, true, false};
    columns[table.n_columns++] = (struct column){"state", false, false};
    if (errors)
        columns[table.n_columns++] = (struct column){"error", false, true};
    for (i = 0; i < json_array_size(points); i++) {
        const json_t *point = point_at(sweep, i);
        table_cell(&table, "%.0f", value_number(point, "point"));
        for (size_t a = 0; a < n_axes; a++)
            value_cell(&table, json_object_get(value_at(point, "values"),
                                               json_string_value(json_array_get(axes, a))));
        for (size_t s = 0; s < N_SHOWN; s++)
            result_cell(&table, point, &shown[s]);
        state_cell(&table, point);
        if (errors)
            table_cell(&table, "%s", value_string(point, "error.detail"));
    }
    if (json_array_size(axes) > n_axes)
        printf("  (%zu more axes: --csv has them)\n", json_array_size(axes) - n_axes);
    return table_print(&table) ? api_complain_memory() : EXIT_OK;
}

static void print_target(const json_t *target) {
    char wanted[FIGURE_ROOM], value[FIGURE_ROOM], got[FIGURE_ROOM];
    size_t i;
    const json_t *entry;
    if (!json_is_object(target))
        return;
    printf("  wanted      near_zero %s by %s: %s\n",
           text_figure(wanted, value_number(target, "near_zero")), value_string(target, "pointer"),
           value_string(target, "detail"));
    json_array_foreach(value_at(target, "frontier"), i, entry) {
        if (value_number(entry, "point") == value_number(target, "nearest"))
            printf("  nearest     point %.0f: %s gives %s\n", value_number(entry, "point"),
                   text_figure(value, value_number(entry, "value")),
                   text_fixed(got, value_number(entry, "near_zero"), 4));
    }
}

void print_sweep_head(const json_t *sweep) {
    struct sweep_counts counts = sweep_counts(sweep);
    printf("%s\n  id          %s\n  state       %s, %.0f of %.0f experiments done",
           value_string(sweep, "name"), value_string(sweep, "id"), value_string(sweep, "state"),
           counts.done, counts.all);
    if (counts.failed > 0)
        printf(", %.0f failed", counts.failed);
    putchar('\n');
    if (*value_string(sweep, "notes"))
        printf("  notes       %s\n", value_string(sweep, "notes"));
    print_target(value_at(sweep, "target"));
}

int print_sweep(const json_t *sweep) {
    print_sweep_head(sweep);
    return print_points(sweep);
}

static int cancel_sweep(struct cli *cli) {
    struct buf path = {0};
    json_t *answer;
    buf_path(&path, "/v1/sweeps/{}/cancel", cli->args[0]);
    int code = api_call(cli, (struct http_request){.method = "POST"}, &path, &answer);
    if (!code && answer)
        printf("%s %s\n", cli->args[0], value_string(answer, "state"));
    json_decref(answer);
    return code;
}

/* CSV goes out as it comes, like JSON with --json. */
static int print_csv(struct cli *cli) {
    struct buf path = {0};
    json_t *answer;
    buf_path(&path, "/v1/sweeps/{}", cli->args[0]);
    buf_query(&path, "format", "csv");
    cli->options.json = true;
    return api_get(cli, &path, &answer);
}

int command_sweep(struct cli *cli) {
    struct buf path = {0};
    json_t *answer;
    const struct options *options = &cli->options;
    if (options->csv + options->watch + options->cancel > 1)
        return complain(EXIT_USAGE, "take one of --csv, --watch and --cancel");
    if (options->watch)
        return watch_sweep(cli, cli->args[0]);
    if (options->cancel)
        return cancel_sweep(cli);
    if (options->csv)
        return print_csv(cli);
    buf_path(&path, "/v1/sweeps/{}", cli->args[0]);
    int code = api_get(cli, &path, &answer);
    if (!code && answer)
        code = *value_string(answer, "id") ? print_sweep(answer) : api_complain_nonsense(cli);
    json_decref(answer);
    return code;
}
