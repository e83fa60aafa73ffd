/* The paper again, in one command: checks every example and says how long it will take, posts them
 * all, waits, and writes the report. The daemon does the work, so a call that was broken off finds
 * by its idempotency keys what it left there. */
#include "clients/cli/api.h"
#include "clients/cli/clock.h"
#include "clients/cli/file.h"
#include "clients/cli/jobs.h"
#include "clients/cli/study.h"
#include "clients/cli/value.h"
#include "clients/reproduce/report.h"
#include "clients/reproduce/rows.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { POLL_MS = 500, RETRY_MS = 1000, PATIENCE_S = 60 };

struct reproduction {
    struct cli *cli;
    struct studies studies;
    json_t *datasets; /* on the daemon: name → versions as a text */
    double started;
    bool live; /* a progress line on a terminal */
};

/* GET that waits so long for a daemon that restarts. Releases the path. */
static int get(struct cli *cli, struct buf *path, double patience_s, json_t **answer) {
    *answer = NULL;
    if (path->failed)
        return api_complain_memory();
    double until = now() + patience_s;
    for (;;) {
        struct http_reply reply = {0};
        int code = EXIT_OK;
        int http_code = http_send(cli->http, &(struct http_request){.path = path->data}, &reply);
        bool passing =
            http_code == HTTP_UNREACHABLE || (!http_code && http_is_passing(reply.status));
        bool again = passing && now() < until;
        if (!again && http_code)
            code = api_complain_transport(cli, http_code);
        else if (!again && reply.status != 200)
            code = api_complain_refusal(cli, &reply);
        else if (!again && !(*answer = value_parse(reply.body, reply.body_size)))
            code = api_complain_nonsense(cli);
        http_reply_release(&reply);
        if (!again) {
            buf_release(path);
            return code;
        }
        pause_ms(RETRY_MS);
    }
}

static int get_patiently(struct cli *cli, struct buf *path, json_t **answer) {
    return get(cli, path, PATIENCE_S, answer);
}

/* ---- Before it starts ---- */

/* Where the examples are: beside build/, or installed. NULL: nowhere, which has been said. */
static char *examples_directory(const char *given) {
    static const char *const places[] = {"../examples", "../share/ovrd/examples"};
    char self[4096], *found = NULL;
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (given)
        return strdup(given);
    self[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(self, '/');
    if (slash)
        *slash = '\0';
    for (size_t i = 0; slash && i < sizeof places / sizeof *places; i++) {
        char *path = NULL;
        if (asprintf(&path, "%s/%s", self, places[i]) < 0)
            break;
        if (!access(path, R_OK)) {
            found = realpath(path, NULL);
            free(path);
            return found;
        }
        free(path);
    }
    complain(EXIT_USAGE, "the examples are not beside ovrctl; name their directory by --examples");
    return NULL;
}

/* What the daemon has: each data set's name with the SHA-256 of its splits. */
static int fetch_datasets(struct reproduction *r) {
    struct buf path = {0};
    json_t *answer;
    const json_t *set;
    size_t i;
    buf_path(&path, "/v1/datasets");
    int code = get(r->cli, &path, 0, &answer);
    r->datasets = json_object();
    json_array_foreach(value_at(answer, "datasets"), i, set) {
        struct buf versions = {0};
        const char *train = value_string(set, "splits.train.sha256");
        const char *test = value_string(set, "splits.test.sha256");
        buf_addf(&versions, "%s %s", train, test);
        if (*train && *test && versions.data)
            json_object_set_new(r->datasets, value_string(set, "name"), json_string(versions.data));
        buf_release(&versions);
    }
    json_decref(answer);
    return code;
}

/* Leaves `versions` of all data sets that the study needs; or the study's trouble. */
static void look_for_data(struct reproduction *r, struct study *study, struct buf *versions) {
    json_t *needed = study_datasets(study), *unused;
    const char *name;
    json_object_foreach(needed, name, unused) {
        const json_t *there = json_object_get(r->datasets, name);
        buf_addf(versions, "%s ", there ? json_string_value(there) : "");
        if (!there && !study->trouble.data)
            buf_addf(&study->trouble,
                     "needs the data set %s, which is not on the daemon; ovrctl upload %s train "
                     "FILE and ovrctl upload %s test FILE send it",
                     name, name, name);
    }
    json_decref(needed);
}

/* Posts the document. A refusal becomes the study's trouble; *answer is NULL then. Returns an exit
 * code where going on makes no sense. */
static int post(struct reproduction *r, struct study *study, const char *key, json_t **answer) {
    struct buf path = {0};
    struct http_reply reply = {0};
    int code = EXIT_OK;
    char *body = json_dumps(study->document, JSON_COMPACT);
    buf_path(&path, study->sweep ? "/v1/sweeps" : "/v1/experiments");
    buf_query(&path, "dry_run", key ? NULL : "true");
    *answer = NULL;
    if (!body || path.failed) {
        code = api_complain_memory();
        goto out;
    }
    struct http_request request = {.method = "POST",
                                   .path = path.data,
                                   .body = body,
                                   .body_size = strlen(body),
                                   .idempotency_key = key};
    int http_code = http_send(r->cli->http, &request, &reply);
    json_t *json = http_code ? NULL : value_parse(reply.body, reply.body_size);
    if (http_code) {
        code = api_complain_transport(r->cli, http_code);
    } else if (reply.status >= 200 && reply.status <= 299 && json) {
        *answer = json_incref(json);
    } else {
        const json_t *fault = json_array_get(value_at(json, "errors"), 0);
        const char *detail = value_string(json, "detail");
        complain(0, "%s was refused:", study->id);
        api_complain_refusal(r->cli, &reply);
        buf_addf(&study->trouble, "the daemon refused it (HTTP %d): %s %s", reply.status,
                 fault ? value_string(fault, "pointer") : "",
                 fault ? value_string(fault, "detail") : detail);
    }
    json_decref(json);
out:
    http_reply_release(&reply);
    buf_release(&path);
    free(body);
    return code;
}

static int estimate(struct reproduction *r, struct study *study) {
    json_t *answer;
    int code = post(r, study, NULL, &answer);
    double points = value_number(answer, "experiments");
    if (isnan(points))
        points = value_number(answer, "points");
    study->seconds = value_number(answer, "estimate.seconds");
    study->total = points >= 1 ? (size_t)points : 1;
    json_decref(answer);
    return code;
}

static void print_plan(const struct reproduction *r) {
    static const struct column columns[] = {{"experiment", false, false},
                                            {"runs", true, false},
                                            {"estimated", true, false},
                                            {"", false, true}};
    struct table table = {.columns = columns, .n_columns = sizeof columns / sizeof *columns};
    char figure[FIGURE_ROOM];
    double seconds = 0;
    for (size_t i = 0; i < r->studies.n; i++) {
        const struct study *study = &r->studies.list[i];
        bool runs = !study->trouble.data;
        table_cell(&table, "%s", study->id);
        table_cell(&table, runs ? "%zu" : "-", study->total);
        table_cell(&table, "%s", text_duration(figure, runs ? study->seconds : NAN));
        table_cell(&table, "%s",
                   runs ? value_string(study->description, "title") : study->trouble.data);
        seconds += runs && !isnan(study->seconds) ? study->seconds : 0;
    }
    if (table_print(&table))
        api_complain_memory();
    printf("Together about %s if one runs after the other and nothing else does.\n",
           text_duration(figure, seconds));
    fflush(stdout);
}

static int plan(struct reproduction *r) {
    int code = fetch_datasets(r);
    for (size_t i = 0; i < r->studies.n && !code; i++) {
        struct study *study = &r->studies.list[i];
        struct buf versions = {0};
        look_for_data(r, study, &versions);
        buf_release(&versions);
        if (!study->trouble.data)
            code = estimate(r, study);
    }
    if (!code && !r->cli->options.json)
        print_plan(r);
    return code;
}

/* ---- While it runs ---- */

static int start(struct reproduction *r, struct study *study) {
    char key[IDEMPOTENCY_KEY_MAX + 1];
    struct buf versions = {0};
    json_t *answer;
    look_for_data(r, study, &versions);
    if (r->cli->options.again)
        buf_addf(&versions, " again %.9f", (double)time(NULL) + now());
    study_key(key, study, versions.data ? versions.data : "");
    buf_release(&versions);
    int code = post(r, study, key, &answer);
    if (answer)
        snprintf(study->handle, sizeof study->handle, "%s", value_string(answer, "id"));
    if (answer && !*study->handle)
        code = api_complain_nonsense(r->cli);
    json_decref(answer);
    return code;
}

static void take_counts(struct study *study, const json_t *sweep) {
    static const char *const open[] = {"queued", "running", "paused"};
    static const char *const final[] = {"succeeded", "failed", "cancelled"};
    const json_t *counts = value_at(sweep, "counts");
    double done = 0, total = 0;
    for (size_t i = 0; i < 3; i++) {
        double n = value_number(counts, final[i]), m = value_number(counts, open[i]);
        done += isnan(n) ? 0 : n;
        total += (isnan(n) ? 0 : n) + (isnan(m) ? 0 : m);
    }
    study->done = (size_t)done;
    if (total > (double)study->total) /* chains and searches grow */
        study->total = (size_t)total;
}

static int poll_study(struct reproduction *r, struct study *study) {
    struct buf path = {0};
    json_t *answer;
    buf_path(&path, study->sweep ? "/v1/sweeps/{}" : "/v1/experiments/{}", study->handle);
    int code = get_patiently(r->cli, &path, &answer);
    const char *state = value_string(answer, "state");
    snprintf(study->state, sizeof study->state, "%s", state);
    if (study->sweep)
        take_counts(study, answer);
    if (state_is_final(state)) {
        study->finished = true;
        if (!study->sweep)
            study->done = 1;
    }
    json_decref(answer);
    return code;
}

static void show_progress(const struct reproduction *r, const struct study *latest) {
    double done = 0, all = 0, elapsed = now() - r->started;
    size_t n_done = 0, n = 0;
    struct buf line = {0};
    char figure[FIGURE_ROOM];
    for (size_t i = 0; i < r->studies.n; i++) {
        const struct study *study = &r->studies.list[i];
        if (study->trouble.data)
            continue;
        double seconds = isnan(study->seconds) ? 1 : study->seconds;
        all += seconds;
        done += seconds * (double)study->done / (double)study->total;
        n_done += study->done;
        n += study->total;
    }
    buf_addf(&line, "%zu of %zu experiments done", n_done, n);
    if (latest)
        buf_addf(&line, ", %s %zu/%zu", latest->id, latest->done, latest->total);
    buf_addf(&line, ", %s gone", text_duration(figure, elapsed));
    if (done > 0.02 * all)
        buf_addf(&line, ", about %s to go", text_duration(figure, elapsed * (all - done) / done));
    if (line.data && r->live) {
        size_t width = terminal_columns(STDERR_FILENO) - 1;
        fprintf(stderr, "\r%.*s\033[K", (int)text_cut(line.data, width), line.data);
    }
    buf_release(&line);
}

static void report_finished(const struct reproduction *r, const struct study *study) {
    char figure[FIGURE_ROOM];
    if (r->live)
        fputs("\r\033[K", stderr);
    fprintf(stderr, "%s %s, %zu of %zu done after %s\n", study->id, study->state, study->done,
            study->total, text_duration(figure, now() - r->started));
}

static int run_all(struct reproduction *r) {
    int code = EXIT_OK;
    r->started = now();
    for (size_t i = 0; i < r->studies.n && !code; i++)
        if (!r->studies.list[i].trouble.data)
            code = start(r, &r->studies.list[i]);
    for (bool waiting = true; waiting && !code;) {
        const struct study *latest = NULL;
        waiting = false;
        for (size_t i = 0; i < r->studies.n && !code; i++) {
            struct study *study = &r->studies.list[i];
            if (study->trouble.data || study->finished)
                continue;
            code = poll_study(r, study);
            if (!code && study->finished)
                report_finished(r, study);
            else if (!latest)
                latest = study;
            waiting = waiting || !study->finished;
        }
        show_progress(r, latest);
        if (waiting && !code)
            pause_ms(POLL_MS);
    }
    if (r->live)
        fputs("\r\033[K", stderr);
    return code;
}

/* ---- What came back ---- */

/* A row with what the experiment's rows of every kind have in common, and `name`: value besides.
 * Takes over the value. */
static json_t *row_of(const json_t *experiment, const char *name, json_t *value) {
    static const char *const shared[] = {"id", "point", "repeat", "spec"};
    json_t *row = json_object();
    for (size_t i = 0; i < sizeof shared / sizeof *shared; i++)
        if (json_object_get(experiment, shared[i]))
            json_object_set(row, shared[i], json_object_get(experiment, shared[i]));
    json_object_set_new(row, name, value);
    return row;
}

static int collect_epochs(struct reproduction *r, struct study *study, const json_t *experiment) {
    struct buf path = {0};
    json_t *answer, *epoch;
    size_t i;
    buf_path(&path, "/v1/experiments/{}/metrics", value_string(experiment, "id"));
    int code = get_patiently(r->cli, &path, &answer);
    json_array_foreach(value_at(answer, "series"), i, epoch) {
        json_array_append_new(study->epochs, row_of(experiment, "epoch", json_incref(epoch)));
    }
    json_decref(answer);
    return code;
}

static int collect_bins(struct reproduction *r, struct study *study, const json_t *experiment) {
    struct buf path = {0};
    json_t *answer;
    size_t i;
    const json_t *count;
    buf_path(&path, "/v1/experiments/{}/histogram", value_string(experiment, "id"));
    int code = get_patiently(r->cli, &path, &answer);
    const json_t *edges = value_at(answer, "edges");
    double total = value_number(answer, "total");
    json_array_foreach(value_at(answer, "counts"), i, count) {
        json_t *bin = json_object();
        json_object_set(bin, "from", json_array_get(edges, i));
        json_object_set(bin, "to", json_array_get(edges, i + 1));
        json_object_set_new(bin, "share", json_real(json_number_value(count) / total));
        json_array_append_new(study->bins, row_of(experiment, "bin", bin));
    }
    json_decref(answer);
    return code;
}

/* `point` and `repeat` are where it stands in its sweep. */
static int collect_experiment(struct reproduction *r, struct study *study, const char *id,
                              size_t point, size_t repeat) {
    struct buf path = {0};
    json_t *experiment;
    buf_path(&path, "/v1/experiments/{}", id);
    int code = get_patiently(r->cli, &path, &experiment);
    if (code)
        return code;
    json_object_set_new(experiment, "point", json_integer((json_int_t)point));
    json_object_set_new(experiment, "repeat", json_integer((json_int_t)repeat));
    if (json_array_append(study->experiments, experiment))
        code = api_complain_memory();
    bool succeeded = !strcmp(value_string(experiment, "state"), "succeeded");
    if (!code && succeeded && study_shows(study, "epochs"))
        code = collect_epochs(r, study, experiment);
    if (!code && succeeded && study_shows(study, "histogram"))
        code = collect_bins(r, study, experiment);
    json_decref(experiment);
    return code;
}

static int collect_sweep(struct reproduction *r, struct study *study) {
    struct buf path = {0};
    json_t *sweep;
    size_t i, k;
    const json_t *point, *experiment;
    buf_path(&path, "/v1/sweeps/{}", study->handle);
    int code = get_patiently(r->cli, &path, &sweep);
    json_array_foreach(value_at(sweep, "points"), i, point) {
        const json_t *experiments = value_at(point, "experiments");
        json_array_foreach(experiments, k, experiment) {
            if (!code)
                code = collect_experiment(r, study, value_string(experiment, "id"), i, k);
        }
    }
    json_decref(sweep);
    return code;
}

static int collect(struct reproduction *r, struct study *study) {
    int code =
        study->sweep ? collect_sweep(r, study) : collect_experiment(r, study, study->handle, 0, 0);
    study->total = json_array_size(study->experiments);
    return code;
}

/* ---- The report ---- */

static int write_file(const char *directory, const char *id, const char *ending,
                      const struct buf *text) {
    char *path = NULL;
    struct whole_file whole;
    if (text->failed || asprintf(&path, "%s/%s%s", directory, id, ending) < 0)
        return api_complain_memory();
    int code = whole_file_open(&whole, path);
    if (!code) {
        fwrite(text->data ? text->data : "", 1, text->size, whole.file);
        code = whole_file_close(
            &whole, ferror(whole.file) ? complain(EXIT_USAGE, "cannot write %s", path) : code);
    }
    free(path);
    return code;
}

static int write_csv(const char *directory, const char *id, const char *ending,
                     const json_t *rows) {
    struct buf csv = {0};
    if (!json_array_size(rows))
        return EXIT_OK;
    rows_csv(&csv, rows);
    int code = write_file(directory, id, ending, &csv);
    buf_release(&csv);
    return code;
}

static struct report_study as_reported(const struct study *study) {
    return (struct report_study){
        .id = study->id,
        .document = study->document,
        .reductions = study->reductions,
        .description = study->description,
        .sweep = study->sweep,
        .handle = study->handle,
        .trouble = study->trouble.data ? study->trouble.data : "",
        .experiments = study->experiments,
        .epochs = study->epochs,
        .bins = study->bins,
        .judgements = study->judgements,
    };
}

static int judge(const struct report_study *study) {
    size_t i;
    const json_t *figure;
    json_array_foreach(json_object_get(study->description, "figures"), i, figure) {
        if (!*study->trouble &&
            rule_judge(&study->judgements[i], figure, report_rows(study, figure)))
            return api_complain_memory();
    }
    return EXIT_OK;
}

static int write_report(struct reproduction *r, const char *directory,
                        const struct report_study *studies) {
    struct buf html = {0}, path = {0};
    char date[40];
    time_t seconds = time(NULL);
    struct tm tm;
    json_t *version;
    buf_path(&path, "/version");
    int code = get_patiently(r->cli, &path, &version);
    strftime(date, sizeof date, "%Y-%m-%d %H:%M UTC", gmtime_r(&seconds, &tm));
    struct report report = {.url = http_url(r->cli->http),
                            .date = date,
                            .version = version,
                            .quick = r->cli->options.quick,
                            .studies = studies,
                            .n = r->studies.n};
    if (!code) {
        report_html(&html, &report);
        code = write_file(directory, "report", ".html", &html);
    }
    json_decref(version);
    buf_release(&html);
    return code;
}

/* With --json: an object for every claim. */
static void print_verdicts_json(const struct report_study *studies, size_t n) {
    json_t *list = json_array(), *figure;
    for (size_t s = 0; s < n; s++) {
        size_t i;
        json_array_foreach(json_object_get(studies[s].description, "figures"), i, figure) {
            const struct judgement *judgement = &studies[s].judgements[i];
            const char *finding = judgement->finding.data ? judgement->finding.data : "";
            const char *verdict =
                *studies[s].trouble ? "did not run" : verdict_text(judgement->verdict);
            json_array_append_new(
                list, json_pack("{s:s, s:s, s:s, s:s}", "id", studies[s].id, "claim",
                                value_string(figure, "title"), "verdict", verdict, "measured",
                                *studies[s].trouble ? studies[s].trouble : finding));
        }
    }
    json_dumpf(list, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(list);
}

static void verdict_row(struct table *table, const struct report_study *study, const char *claim,
                        enum verdict verdict, const char *finding) {
    table_cell(table, "%s", study->id);
    table_cell(table, "%s", claim);
    table_cell(table, "%s", *study->trouble ? "did not run" : verdict_text(verdict));
    table_cell(table, "%s", finding);
}

/* One row for each claim that is judged; a study without one has a row all the same. */
static void print_verdicts(const struct report_study *studies, size_t n) {
    static const struct column columns[] = {{"experiment", false, false},
                                            {"claim", false, false},
                                            {"verdict", false, false},
                                            {"measured", false, true}};
    struct table table = {.columns = columns, .n_columns = sizeof columns / sizeof *columns};
    for (size_t s = 0; s < n; s++) {
        const struct report_study *study = &studies[s];
        size_t i, judged = 0;
        const json_t *figure;
        json_array_foreach(json_object_get(study->description, "figures"), i, figure) {
            const struct judgement *judgement = &study->judgements[i];
            if (*study->trouble || judgement->verdict == REPORTED)
                continue;
            verdict_row(&table, study, value_string(figure, "title"), judgement->verdict,
                        judgement->finding.data ? judgement->finding.data : "");
            judged++;
        }
        if (!judged)
            verdict_row(&table, study, value_string(study->description, "title"), REPORTED,
                        study->trouble);
    }
    if (table_print(&table))
        api_complain_memory();
}

/* Tables, page and verdicts of whatever ran. */
static int conclude(struct reproduction *r, const char *directory) {
    struct report_study *studies = calloc(r->studies.n + 1, sizeof *studies);
    int code = studies ? EXIT_OK : api_complain_memory();
    bool all_ran = true;
    for (size_t i = 0; i < r->studies.n && !code; i++) {
        const struct study *study = &r->studies.list[i];
        studies[i] = as_reported(study);
        code = judge(&studies[i]);
        if (!code)
            code = write_csv(directory, study->id, ".csv", study->experiments);
        if (!code)
            code = write_csv(directory, study->id, "-epochs.csv", study->epochs);
        if (!code)
            code = write_csv(directory, study->id, "-histograms.csv", study->bins);
        all_ran = all_ran && !*studies[i].trouble && !report_failures(&studies[i]);
    }
    if (!code)
        code = write_report(r, directory, studies);
    if (!code && r->cli->options.json)
        print_verdicts_json(studies, r->studies.n);
    else if (!code)
        print_verdicts(studies, r->studies.n);
    free(studies);
    if (code)
        return code;
    fprintf(stderr, "the report is %s/report.html%s\n", directory,
            all_ran ? "" : "; it lists what did not run");
    return all_ran ? EXIT_OK : EXIT_FAILED;
}

static int make_directory(const char *directory) {
    struct stat info;
    if (mkdir(directory, 0777) && errno != EEXIST)
        return complain(EXIT_USAGE, "cannot make the directory %s: %s", directory, strerror(errno));
    if (stat(directory, &info) || !S_ISDIR(info.st_mode) || access(directory, W_OK | X_OK))
        return complain(EXIT_USAGE, "%s is no directory to write to", directory);
    return EXIT_OK;
}

static int reproduce(struct reproduction *r) {
    const char *directory = r->cli->options.out ? r->cli->options.out : "ovrd-report";
    int code = r->cli->options.dry_run ? EXIT_OK : make_directory(directory);
    if (!code)
        code = plan(r);
    if (code || r->cli->options.dry_run)
        return code;
    code = run_all(r);
    for (size_t i = 0; i < r->studies.n && !code; i++)
        if (!r->studies.list[i].trouble.data)
            code = collect(r, &r->studies.list[i]);
    return code ? code : conclude(r, directory);
}

int command_reproduce(struct cli *cli) {
    struct reproduction r = {.cli = cli, .live = terminal_is(STDERR_FILENO)};
    char *directory = examples_directory(cli->options.examples);
    int code =
        directory ? studies_load(&r.studies, directory, cli->args, cli->options.quick) : EXIT_USAGE;
    if (!code)
        code = reproduce(&r);
    json_decref(r.datasets);
    studies_release(&r.studies);
    free(directory);
    return code;
}
