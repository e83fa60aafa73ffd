/* The commands on experiments that ask once: submit, list, show, metrics, cancel. */
#include "clients/cli/jobs.h"

#include "clients/cli/api.h"
#include "clients/cli/value.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

bool state_is_final(const char *state) {
    return !strcmp(state, "succeeded") || !strcmp(state, "failed") || !strcmp(state, "cancelled");
}

const char *experiment_reason(const json_t *experiment) {
    static const char *const places[] = {"error.detail", "error.title", "error", "queue.reason"};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        const char *text = value_string(experiment, places[i]);
        if (*text)
            return text;
    }
    return "";
}

void print_figures(const char *label, const json_t *figures) {
    const char *name, *between = label;
    const json_t *member;
    char figure[FIGURE_ROOM];
    json_object_foreach((json_t *)figures, name, member) {
        if (!json_is_number(member) && !json_is_null(member))
            continue;
        printf("%s%s %s", between, name, text_figure(figure, value_number(member, "")));
        between = "   ";
    }
    if (between != label)
        putchar('\n');
}

void print_sparsity(const json_t *sparsity) {
    const char *name;
    const json_t *member;
    char label[64];
    print_figures("  sparsity    ", sparsity);
    json_object_foreach((json_t *)sparsity, name, member) {
        if (!json_is_object(member))
            continue;
        snprintf(label, sizeof label, "    %.40s: ", name);
        print_figures(label, member);
    }
}

void print_outcome(const json_t *experiment) {
    const json_t *result = value_at(experiment, "result");
    char figure[FIGURE_ROOM];
    double accuracy = value_number(result, "accuracy");
    const char *protocol = value_string(result, "protocol");
    if (!isnan(accuracy))
        printf("  accuracy    %s\n", text_fixed(figure, accuracy, 4));
    if (*protocol)
        printf("  protocol    %s\n", protocol);
    if (!isnan(value_number(result, "best_epoch")))
        printf("  best epoch  %.0f\n", value_number(result, "best_epoch"));
    if (*value_string(result, "replay"))
        printf("  replay      %s %s\n", value_string(result, "replay"),
               value_string(result, "replay_differences"));
    print_sparsity(value_at(result, "sparsity"));
    if (*experiment_reason(experiment))
        printf("  reason      %s\n", experiment_reason(experiment));
}

/* Reads a whole spec, "-" from stdin. Returns 0 or the exit code. */
static int read_spec(const char *name, struct buf *spec) {
    enum { LARGEST = 16 << 20 };
    FILE *file = strcmp(name, "-") ? fopen(name, "re") : stdin;
    if (!file)
        return complain(EXIT_USAGE, "cannot open %s: %s", name, strerror(errno));
    char chunk[4096 + 1];
    size_t n;
    while ((n = fread(chunk, 1, sizeof chunk - 1, file)) > 0 && spec->size < LARGEST) {
        chunk[n] = '\0';
        /* JSON has no NUL: cutting the chunk there would hide one from the server. */
        if (strlen(chunk) != n)
            break;
        buf_add(spec, chunk);
    }
    bool failed = ferror(file) != 0;
    if (file != stdin)
        fclose(file);
    if (failed)
        return complain(EXIT_USAGE, "cannot read %s: %s", name, strerror(errno));
    if (n > 0)
        return complain(EXIT_USAGE, "%s is not a JSON text, or it is larger than 16 MiB", name);
    return spec->failed ? api_complain_memory() : EXIT_OK;
}

/* Where it runs, when that is not the daemon's machine. */
static void print_place(const json_t *experiment) {
    double ranks = value_number(experiment, "ranks");
    const char *job = value_string(experiment, "job"), *node = value_string(experiment, "node");
    if (strcmp(value_string(experiment, "executor"), "slurm"))
        return;
    printf("  runs on     Slurm, %.0f rank%s", ranks, ranks == 1 ? "" : "s");
    if (*job)
        printf(", job %s", job);
    if (*node)
        printf(", node %s", node);
    putchar('\n');
}

static void print_estimate(const json_t *answer) {
    const json_t *estimate = value_at(answer, "estimate");
    char figure[FIGURE_ROOM];
    printf("The spec is valid. Estimated:\n");
    printf("  parameters  %s\n", text_count(figure, value_number(estimate, "parameters")));
    printf("  memory      %s\n", text_bytes(figure, value_number(estimate, "memory_bytes")));
    printf("  an epoch    %s GFLOP\n",
           text_figure(figure, value_number(estimate, "flops_per_epoch") / 1e9));
    printf("  takes       %s\n", text_duration(figure, value_number(estimate, "seconds")));
    print_place(estimate);
}

/* stdout gets the id alone, so that scripts can say id=$(ovrctl submit …). */
static int after_submit(struct cli *cli, const json_t *experiment, bool sweep) {
    const char *id = value_string(experiment, "id");
    if (!*id)
        return api_complain_nonsense(cli);
    if (!cli->options.json) {
        printf("%s\n", id);
        fflush(stdout);
    }
    if (cli->options.watch)
        return sweep ? watch_sweep(cli, id) : watch_experiment(cli, id);
    if (terminal_is(STDOUT_FILENO))
        fprintf(stderr, "follow it with: ovrctl %s %s\n", sweep ? "sweep --watch" : "watch", id);
    return EXIT_OK;
}

int command_submit(struct cli *cli) {
    struct buf spec = {0}, path = {0};
    json_t *answer = NULL;
    if (cli->options.watch && cli->options.dry_run)
        return complain(EXIT_USAGE, "--dry-run starts nothing that --watch could watch");
    int code = read_spec(cli->args[0], &spec);
    if (code)
        goto out;
    bool sweep = document_is_sweep(spec.data, spec.size);
    buf_path(&path, sweep ? "/v1/sweeps" : "/v1/experiments");
    buf_query(&path, "dry_run", cli->options.dry_run ? "true" : NULL);
    struct http_request request = {
        .method = "POST", .body = spec.data ? spec.data : "", .body_size = spec.size};
    /* With --json --watch the one JSON text on stdout is the experiment at its end. */
    bool json = cli->options.json;
    if (cli->options.watch)
        cli->options.json = false;
    code = api_call(cli, request, &path, &answer);
    cli->options.json = json;
    if (code || !answer)
        goto out;
    if (json_array_size(value_at(answer, "warnings")))
        fprintf(stderr, "ovrctl: accepted, but\n");
    api_print_faults(value_at(answer, "warnings"));
    if (!cli->options.dry_run)
        code = after_submit(cli, answer, sweep);
    else if (sweep)
        print_sweep_estimate(answer);
    else
        print_estimate(answer);
out:
    json_decref(answer);
    buf_release(&spec);
    return code;
}

/* How far it is, in a few characters. */
static void progress_cell(struct table *table, const json_t *experiment, const char *state) {
    char figure[FIGURE_ROOM];
    double accuracy = value_number(experiment, "result.accuracy");
    double epoch = value_number(experiment, "progress.epoch");
    double epochs = value_number(experiment, "progress.epochs");
    double position = value_number(experiment, "queue.position");
    if (!isnan(accuracy))
        table_cell(table, "accuracy %s", text_fixed(figure, accuracy, 3));
    else if (!strcmp(state, "queued") && !isnan(position))
        table_cell(table, "position %.0f", position);
    else if (!isnan(epoch) && !isnan(epochs))
        table_cell(table, "epoch %.0f/%.0f", epoch, epochs);
    else
        table_cell(table, "-");
}

static void list_row(struct table *table, const json_t *experiment, double now) {
    char figure[FIGURE_ROOM];
    const char *state = value_string(experiment, "state");
    double age = now - text_time(value_string(experiment, "created_at"));
    table_cell(table, "%s", value_string(experiment, "id"));
    table_cell(table, "%s", state);
    table_cell(table, "%s", value_string(experiment, "name"));
    progress_cell(table, experiment, state);
    table_cell(table, "%s",
               text_fixed(figure, value_number(experiment, "result.sparsity.near_zero"), 3));
    table_cell(table, "%s", text_duration(figure, age < 0 ? 0 : age)); /* clocks differ */
}

static int print_list(struct cli *cli, const json_t *experiments) {
    static const struct column columns[] = {{"id", false, false},       {"state", false, false},
                                            {"name", false, true},      {"progress", false, false},
                                            {"near_zero", true, false}, {"age", true, false}};
    struct table table = {.columns = columns, .n_columns = sizeof columns / sizeof *columns};
    size_t i;
    const json_t *experiment;
    if (!json_is_array(experiments))
        return api_complain_nonsense(cli);
    json_array_foreach(experiments, i, experiment) list_row(&table, experiment, (double)time(NULL));
    return table_print(&table) ? api_complain_memory() : EXIT_OK;
}

int command_list(struct cli *cli) {
    const struct options *options = &cli->options;
    struct buf path = {0};
    json_t *answer;
    char day[32];
    const char *since = options->since;
    if (since && strlen(since) == strlen("2026-11-24")) {
        snprintf(day, sizeof day, "%sT00:00:00Z", since);
        since = day;
    }
    buf_path(&path, "/v1/experiments");
    buf_query(&path, "state", options->state);
    buf_query(&path, "tag", options->tag);
    buf_query(&path, "name", options->name);
    buf_query(&path, "sweep", options->sweep);
    buf_query(&path, "owner", options->owner);
    buf_query(&path, "created_after", since);
    buf_query(&path, "sort", options->sort);
    buf_query(&path, "limit", options->limit);
    int code = api_get(cli, &path, &answer);
    if (!code && answer)
        code = print_list(cli, value_at(answer, "experiments"));
    json_decref(answer);
    return code;
}

static void print_line(const char *label, const char *text) {
    if (*text)
        printf("  %-11s %s\n", label, text);
}

static void print_progress(const json_t *experiment) {
    const json_t *progress = value_at(experiment, "progress");
    char eta[FIGURE_ROOM], speed[FIGURE_ROOM];
    if (!json_is_object(progress) || strcmp(value_string(experiment, "state"), "running"))
        return;
    printf("  progress    %s, epoch %.0f of %.0f, %s samples/s, %s to go\n",
           value_string(progress, "phase"), value_number(progress, "epoch"),
           value_number(progress, "epochs"),
           text_count(speed, value_number(progress, "samples_per_second")),
           text_duration(eta, value_number(progress, "eta_seconds")));
}

static int print_experiment(struct cli *cli, const json_t *experiment) {
    if (!*value_string(experiment, "id"))
        return api_complain_nonsense(cli);
    const char *data = value_string(experiment, "spec.dataset.name");
    printf("%s\n", value_string(experiment, "name"));
    print_line("id", value_string(experiment, "id"));
    print_line("owner", value_string(experiment, "owner"));
    print_line("state", value_string(experiment, "state"));
    print_line("model", value_string(experiment, "spec.model.kind"));
    print_line("data set", *data ? data : value_string(experiment, "spec.dataset.generator"));
    print_line("created", value_string(experiment, "created_at"));
    print_line("started", value_string(experiment, "started_at"));
    print_line("finished", value_string(experiment, "finished_at"));
    print_line("notes", value_string(experiment, "spec.notes"));
    print_place(experiment);
    print_progress(experiment);
    print_outcome(experiment);
    return EXIT_OK;
}

int command_show(struct cli *cli) {
    struct buf path = {0};
    json_t *answer;
    buf_path(&path, "/v1/experiments/{}", cli->args[0]);
    int code = api_get(cli, &path, &answer);
    if (!code && answer)
        code = print_experiment(cli, answer);
    json_decref(answer);
    return code;
}

static const char *const metrics_paths[] = {
    "train.loss",          NULL /* watched loss */, NULL /* its accuracy */,
    "sparsity.near_zero",  "sparsity.zero",         "sparsity.overlap",
    "sparsity.dead_units", "learning_rate",         "seconds"};

enum { N_METRICS = sizeof metrics_paths / sizeof *metrics_paths };

static void metrics_row(struct table *table, const json_t *point, bool clean) {
    char figure[FIGURE_ROOM];
    table_cell(table, "%.0f", value_number(point, "epoch"));
    for (size_t i = 0; i < N_METRICS; i++) {
        const char *path = metrics_paths[i];
        if (i == 1)
            path = clean ? "validation.loss" : "test.loss";
        if (i == 2)
            path = clean ? "validation.accuracy" : "test.accuracy";
        table_cell(table, "%s", text_figure(figure, value_number(point, path)));
    }
}

static int print_metrics(struct cli *cli, const json_t *series) {
    if (!json_is_array(series))
        return api_complain_nonsense(cli);
    /* The clean protocol watches a part of the training split, the published one the test split. */
    bool clean = value_at(json_array_get(series, 0), "validation");
    const struct column columns[] = {{"epoch", true, false},
                                     {"train loss", true, false},
                                     {clean ? "validation loss" : "test loss", true, false},
                                     {"accuracy", true, false},
                                     {"near_zero", true, false},
                                     {"zero", true, false},
                                     {"overlap", true, false},
                                     {"dead", true, false},
                                     {"learning rate", true, false},
                                     {"seconds", true, false}};
    struct table table = {.columns = columns, .n_columns = sizeof columns / sizeof *columns};
    size_t i;
    const json_t *point;
    json_array_foreach(series, i, point) metrics_row(&table, point, clean);
    return table_print(&table) ? api_complain_memory() : EXIT_OK;
}

int command_metrics(struct cli *cli) {
    const char *format = cli->options.format;
    struct buf path = {0};
    json_t *answer;
    if (format && strcmp(format, "csv"))
        return complain(EXIT_USAGE, "--format of metrics is csv, got %s", format);
    buf_path(&path, "/v1/experiments/{}/metrics", cli->args[0]);
    buf_query(&path, "format", format);
    buf_query(&path, "from_epoch", cli->options.from);
    buf_query(&path, "max_points", cli->options.max_points);
    if (format)
        return api_stream(cli, &path, stdout);
    int code = api_get(cli, &path, &answer);
    if (!code && answer)
        code = print_metrics(cli, value_at(answer, "series"));
    json_decref(answer);
    return code;
}

/* A POST that changes the state; `soon` is said of a state that is not yet what it will be. */
static int change_state(struct cli *cli, const char *action, const char *done, const char *soon) {
    struct buf path = {0};
    char template[64];
    json_t *answer;
    snprintf(template, sizeof template, "/v1/experiments/{}/%s", action);
    buf_path(&path, template, cli->args[0]);
    int code = api_call(cli, (struct http_request){.method = "POST"}, &path, &answer);
    if (!code && answer) {
        const char *state = value_string(answer, "state");
        printf("%s %s\n", cli->args[0],
               state_is_final(state) || !strcmp(state, done) ? state : soon);
    }
    json_decref(answer);
    return code;
}

int command_cancel(struct cli *cli) {
    return change_state(cli, "cancel", "cancelled", "will be cancelled at its next step");
}

int command_pause(struct cli *cli) {
    return change_state(cli, "pause", "paused", "will be paused at its next step");
}

int command_resume(struct cli *cli) {
    return change_state(cli, "resume", "queued", "goes on");
}
