/* The commands that move data: weights out, data sets in; and the server's version. */
#include "clients/cli/api.h"
#include "clients/cli/file.h"
#include "clients/cli/jobs.h"
#include "clients/cli/value.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void add_shape(struct buf *text, const json_t *shape) {
    size_t i;
    const json_t *size;
    json_array_foreach(shape, i, size)
        buf_addf(text, "%s%.0f", i ? " x " : "", value_number(size, ""));
}

static int print_tensors(struct cli *cli, const json_t *tensors) {
    static const struct column columns[] = {
        {"tensor", false, true}, {"shape", false, false}, {"dtype", false, false}};
    struct table table = {.columns = columns, .n_columns = sizeof columns / sizeof *columns};
    size_t i;
    const json_t *tensor;
    if (!json_is_array(tensors))
        return api_complain_nonsense(cli);
    json_array_foreach(tensors, i, tensor) {
        struct buf shape = {0};
        add_shape(&shape, value_at(tensor, "shape"));
        table_cell(&table, "%s", value_string(tensor, "name"));
        table_cell(&table, "%s", shape.data ? shape.data : "-");
        table_cell(&table, "%s", value_string(tensor, "dtype"));
        buf_release(&shape);
    }
    return table_print(&table) ? api_complain_memory() : EXIT_OK;
}

static int list_tensors(struct cli *cli) {
    struct buf path = {0};
    json_t *answer;
    if (cli->options.format || cli->options.rows || cli->options.output)
        return complain(EXIT_USAGE, "--format, --rows and -o need the name of a TENSOR");
    buf_path(&path, "/v1/experiments/{}/weights", cli->args[0]);
    buf_query(&path, "epoch", cli->options.epoch);
    int code = api_get(cli, &path, &answer);
    if (!code && answer)
        code = print_tensors(cli, value_at(answer, "tensors"));
    json_decref(answer);
    return code;
}

/* Streams the tensor to `out`. */
static int fetch_tensor(struct cli *cli, const char *format, FILE *out) {
    struct buf path = {0};
    buf_path(&path, "/v1/experiments/{}/weights/{}", cli->args[0], cli->args[1]);
    buf_query(&path, "format", format);
    buf_query(&path, "rows", cli->options.rows);
    buf_query(&path, "epoch", cli->options.epoch);
    return api_stream(cli, &path, out);
}

int command_weights(struct cli *cli) {
    const char *format = cli->options.format, *output = cli->options.output;
    if (!cli->args[1])
        return list_tensors(cli);
    if (!format)
        format = output && text_ends_with(output, ".npy") && !cli->options.json ? "npy" : "json";
    if (strcmp(format, "json") && strcmp(format, "npy"))
        return complain(EXIT_USAGE, "--format of a tensor is json or npy, got %s", format);
    if (!strcmp(format, "npy") && cli->options.json)
        return complain(EXIT_USAGE, "--json and --format npy exclude each other");
    if (!output) {
        if (!strcmp(format, "npy") && terminal_is(STDOUT_FILENO))
            return complain(EXIT_USAGE, "npy is binary and this is a terminal; add -o FILE");
        return fetch_tensor(cli, format, stdout);
    }
    struct whole_file whole;
    int code = whole_file_open(&whole, output);
    return code ? code : whole_file_close(&whole, fetch_tensor(cli, format, whole.file));
}

/* On a terminal, a line on stderr that is drawn over and over. */
static void draw_upload(int64_t sent, int64_t size) {
    char now[FIGURE_ROOM], all[FIGURE_ROOM];
    fprintf(stderr, "\r%s", text_bytes(now, (double)sent));
    if (size > 0)
        fprintf(stderr, " of %s, %.0f %%", text_bytes(all, (double)size),
                100 * (double)sent / (double)size);
    fputs("\033[K", stderr);
}

static void print_uploaded(struct cli *cli, const json_t *answer, int64_t size) {
    char bytes[FIGURE_ROOM];
    const char *sha256 = value_string(answer, "sha256"), *part = value_string(answer, "part");
    if (*value_string(answer, "missing")) {
        printf("%s/%s %s are there, the %s are missing", cli->args[0], cli->args[1], part,
               value_string(answer, "missing"));
    } else {
        printf("%s/%s is there", cli->args[0], cli->args[1]);
        if (size >= 0)
            printf(": %s", text_bytes(bytes, (double)size));
    }
    if (*sha256)
        printf(", sha256 %.12s", sha256);
    putchar('\n');
}

/* One file to send. */
struct sending {
    const char *name; /* "-": standard input */
    const char *part; /* "features", "labels", or NULL for all in one */
    const char *format;
};

static int send_opened(struct cli *cli, const struct sending *sending, FILE *file) {
    struct buf path = {0};
    struct stat info;
    json_t *answer;
    if (fstat(fileno(file), &info))
        return complain(EXIT_USAGE, "cannot read %s: %s", sending->name, strerror(errno));
    if (S_ISDIR(info.st_mode))
        return complain(EXIT_USAGE, "%s is a directory", sending->name);
    /* A pipe's length is unknown; it is sent in chunks. */
    int64_t size = S_ISREG(info.st_mode) ? (int64_t)info.st_size : -1;
    bool draws = terminal_is(STDERR_FILENO);
    if (sending->part)
        buf_path(&path, "/v1/datasets/{}/{}/{}", cli->args[0], cli->args[1], sending->part);
    else
        buf_path(&path, "/v1/datasets/{}/{}", cli->args[0], cli->args[1]);
    buf_query(&path, "format", sending->format);
    buf_query(&path, "label", cli->options.label);
    buf_query(&path, "header", cli->options.header);
    struct http_request request = {.method = "PUT", .upload = file, .upload_size = size};
    request.progress = draws ? draw_upload : NULL;
    int code = api_call(cli, request, &path, &answer);
    if (draws)
        fputs("\r\033[K", stderr);
    if (!code && answer)
        print_uploaded(cli, answer, size);
    json_decref(answer);
    return code;
}

static int send_file(struct cli *cli, const struct sending *sending) {
    FILE *file = strcmp(sending->name, "-") ? fopen(sending->name, "re") : stdin;
    if (!file)
        return complain(EXIT_USAGE, "cannot open %s: %s", sending->name, strerror(errno));
    int code = send_opened(cli, sending, file);
    if (file != stdin)
        fclose(file);
    return code;
}

/* By the end of the name, before .gz. */
static const char *guess_format(const char *name) {
    static const struct {
        const char *end, *format;
    } known[] = {{".csv", "csv"},        {".tsv", "csv"},        {".npy", "npy"},
                 {".idx", "idx"},        {"-idx1-ubyte", "idx"}, {"-idx3-ubyte", "idx"},
                 {".idx1-ubyte", "idx"}, {".idx3-ubyte", "idx"}, {".ubyte", "idx"}};
    size_t n = strlen(name) - (text_ends_with(name, ".gz") ? 3 : 0);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        size_t m = strlen(known[i].end);
        if (n >= m && !strncmp(name + n - m, known[i].end, m))
            return known[i].format;
    }
    return "cifar10";
}

int command_upload(struct cli *cli) {
    const char *split = cli->args[1], *labels = cli->args[3];
    struct sending sending = {.name = cli->args[2], .format = cli->options.format};
    if (strcmp(split, "train") && strcmp(split, "test"))
        return complain(EXIT_USAGE, "SPLIT is train or test, got %s", split);
    if (!sending.format)
        sending.format = guess_format(sending.name);
    bool halves = !strcmp(sending.format, "idx") || !strcmp(sending.format, "npy");
    if (halves && !labels)
        return complain(EXIT_USAGE, "%s has the labels in a second file; name it after FILE",
                        sending.format);
    if (!halves && labels)
        return complain(EXIT_USAGE, "%s has the labels in the same file; leave %s away",
                        sending.format, labels);
    if (!halves)
        return send_file(cli, &sending);
    sending.part = "features";
    int code = send_file(cli, &sending);
    sending.name = labels;
    sending.part = "labels";
    if (!cli->options.format) /* the two need not agree */
        sending.format = guess_format(labels);
    return code ? code : send_file(cli, &sending);
}

static void dataset_row(struct table *table, const json_t *set) {
    static const char *const paths[] = {"splits.train.samples", "splits.test.samples",
                                        "splits.train.values_per_sample", "splits.train.classes"};
    char figure[FIGURE_ROOM];
    table_cell(table, "%s", value_string(set, "name"));
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        table_cell(table, "%s", text_count(figure, value_number(set, paths[i])));
}

static int print_datasets(struct cli *cli, const json_t *sets) {
    static const struct column columns[] = {{"data set", false, true},
                                            {"train", true, false},
                                            {"test", true, false},
                                            {"values", true, false},
                                            {"classes", true, false}};
    struct table table = {.columns = columns, .n_columns = sizeof columns / sizeof *columns};
    size_t i;
    const json_t *set;
    if (!json_is_array(sets))
        return api_complain_nonsense(cli);
    json_array_foreach(sets, i, set) dataset_row(&table, set);
    return table_print(&table) ? api_complain_memory() : EXIT_OK;
}

int command_datasets(struct cli *cli) {
    struct buf path = {0};
    json_t *answer;
    buf_path(&path, "/v1/datasets");
    int code = api_get(cli, &path, &answer);
    if (!code && answer)
        code = print_datasets(cli, value_at(answer, "datasets"));
    json_decref(answer);
    return code;
}

/* "10 classes: cat 5000, dog 5000, …", as many as a line of a terminal takes. */
static void print_classes(const json_t *classes) {
    enum { SHOWN = 8 };
    char figure[FIGURE_ROOM];
    size_t i, n = json_array_size(classes);
    const json_t *item;
    printf("    classes   %zu%s", n, n ? ": " : "");
    json_array_foreach(classes, i, item) {
        if (i == SHOWN && n > SHOWN) {
            printf(", ...");
            break;
        }
        printf("%s%s %s", i ? ", " : "", value_string(item, "name"),
               text_count(figure, value_number(item, "samples")));
    }
    putchar('\n');
}

static void print_split(const json_t *set, const char *split) {
    const json_t *facts = value_at(value_at(set, "splits"), split);
    const json_t *summary = value_at(value_at(set, "summary"), split);
    char figure[FIGURE_ROOM];
    struct buf shape = {0};
    if (!facts)
        return;
    add_shape(&shape, value_at(facts, "shape"));
    printf("  %-9s   %s samples of %s values, as %s, %s\n", split,
           text_count(figure, value_number(facts, "samples")), shape.data ? shape.data : "-",
           value_string(facts, "format"), value_string(facts, "created_at"));
    buf_release(&shape);
    printf("    version   %s\n", value_string(facts, "sha256"));
    print_classes(value_at(summary, "classes"));
    print_figures("    values    ", value_at(summary, "values"));
}

static int remove_dataset(struct cli *cli) {
    struct buf path = {0};
    json_t *answer;
    buf_path(&path, "/v1/datasets/{}", cli->args[0]);
    int code = api_call(cli, (struct http_request){.method = "DELETE"}, &path, &answer);
    if (!code && !cli->options.json)
        printf("%s removed\n", cli->args[0]);
    json_decref(answer);
    return code;
}

int command_dataset(struct cli *cli) {
    struct buf path = {0};
    json_t *answer;
    if (cli->options.remove)
        return remove_dataset(cli);
    buf_path(&path, "/v1/datasets/{}", cli->args[0]);
    int code = api_get(cli, &path, &answer);
    if (!code && answer) {
        size_t i;
        const json_t *part;
        printf("%s\n", value_string(answer, "name"));
        print_split(answer, "train");
        print_split(answer, "test");
        json_array_foreach(value_at(answer, "waiting"), i, part)
            printf("  waiting     %s\n", value_string(part, "detail"));
    }
    json_decref(answer);
    return code;
}

/* A row for each sample, with as many of its values as the terminal is wide. */
static int print_preview(struct cli *cli, const json_t *answer) {
    enum { FEATURES_MAX = 16, COLUMN = 11, LEFT = 24 };
    const json_t *values = value_at(answer, "values"), *names = value_at(answer, "feature_names");
    const json_t *row;
    size_t n = json_array_size(json_array_get(values, 0)), i,
           width = terminal_columns(STDOUT_FILENO);
    struct column columns[FEATURES_MAX + 2] = {{"row", true, false}, {"class", false, true}};
    char titles[FEATURES_MAX][FIGURE_ROOM], figure[FIGURE_ROOM];
    if (!json_is_array(values))
        return api_complain_nonsense(cli);
    size_t room = width > LEFT + COLUMN ? (width - LEFT) / COLUMN : 1;
    room = room > FEATURES_MAX ? FEATURES_MAX : room;
    size_t shown = n > room ? room : n;
    double from = value_number(answer, "rows.0"), feature = value_number(answer, "features.0");
    for (size_t c = 0; c < shown; c++) {
        const char *name = json_string_value(json_array_get(names, c));
        if (name)
            snprintf(titles[c], sizeof titles[c], "%.*s", (int)text_cut(name, COLUMN - 2), name);
        else
            snprintf(titles[c], sizeof titles[c], "value %.0f", feature + (double)c);
        columns[c + 2] = (struct column){titles[c], true, false};
    }
    struct table table = {.columns = columns, .n_columns = shown + 2};
    json_array_foreach(values, i, row) {
        const json_t *label = json_array_get(value_at(answer, "labels"), i);
        const char *class = json_string_value(
            json_array_get(value_at(answer, "label_names"), (size_t)json_integer_value(label)));
        table_cell(&table, "%.0f", from + (double)i);
        table_cell(&table, "%s", class ? class : text_fixed(figure, json_number_value(label), 0));
        for (size_t c = 0; c < shown; c++)
            table_cell(&table, "%s",
                       text_figure(figure, json_number_value(json_array_get(row, c))));
    }
    return table_print(&table) ? api_complain_memory() : EXIT_OK;
}

int command_preview(struct cli *cli) {
    const char *output = cli->options.output, *split = cli->args[1];
    struct buf path = {0};
    json_t *answer;
    buf_path(&path, "/v1/datasets/{}/preview", cli->args[0]);
    buf_query(&path, "split", split);
    buf_query(&path, "rows", cli->options.rows);
    if (output) {
        buf_query(&path, "format", text_ends_with(output, ".png") ? "png" : "json");
        return api_fetch(cli, (struct http_request){0}, &path, true);
    }
    int code = api_get(cli, &path, &answer);
    if (!code && answer)
        code = print_preview(cli, answer);
    json_decref(answer);
    return code;
}

/* Every scalar of the answer; those of an inner object under its name. */
static void print_facts(const json_t *facts, const char *group) {
    const char *name;
    const json_t *value;
    char figure[FIGURE_ROOM];
    json_object_foreach((json_t *)facts, name, value) {
        if (json_is_object(value) && !*group) {
            print_facts(value, name);
            continue;
        }
        const char *text = json_is_string(value)    ? json_string_value(value)
                           : json_is_number(value)  ? text_count(figure, json_number_value(value))
                           : json_is_boolean(value) ? (json_is_true(value) ? "yes" : "no")
                                                    : "-";
        int width = 14 - (int)strlen(group) - (*group ? 1 : 0);
        printf("  %s%s%-*s  %s\n", group, *group ? " " : "", width > 0 ? width : 0, name, text);
    }
}

int command_version(struct cli *cli) {
    struct buf path = {0};
    json_t *answer;
    if (!cli->options.json) {
        printf("ovrctl %s\n", OVRD_VERSION);
        fflush(stdout);
    }
    buf_path(&path, "/version");
    int code = api_get(cli, &path, &answer);
    if (!code && answer) {
        printf("server %s\n", http_url(cli->http));
        print_facts(answer, "");
    }
    json_decref(answer);
    return code;
}
