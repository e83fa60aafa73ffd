/* `ovrctl reproduce` against a real daemon: a directory of small examples, and the project's own.
 */
#include "tests/api/daemon.h"
#include "tests/reproduce/markup.h"

#include <dirent.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

/* A directory of examples, and one for reports, below the daemon's own. */
static char examples[96], reports[96];

static const char *at_path(const char *directory, const char *name) {
    return text("%s/%s", directory, name);
}

static char *slurp(const char *path) {
    size_t n = 0, got;
    char *bytes = calloc(1, 1 << 20);
    FILE *file = fopen(path, "r");
    if (!file)
        fail_msg("there is no %s", path);
    while ((got = fread(bytes + n, 1, (1 << 20) - 1 - n, file)) > 0)
        n += got;
    fclose(file);
    return bytes;
}

static void write_example(const char *name, const char *json) {
    json_t *parsed = parse(json);
    assert_int_equal(json_dump_file(parsed, at_path(examples, name), JSON_INDENT(2)), 0);
    json_decref(parsed);
}

/* Runs ovrctl reproduce; what it says on both streams is in `said`, with --json on standard output
 * alone. Returns its exit code. */
static int reproduce(struct daemon *d, const char *arguments, char **said) {
    static char output[1 << 16];
    const char *build = getenv("OVRD_TEST_BUILD");
    FILE *pipe = popen(text("%s/ovrctl reproduce --host %s --examples %s --out %s %s %s",
                            build ? build : "build", d->url, examples, reports, arguments,
                            strstr(arguments, "--json") ? "2>/dev/null" : "2>&1"),
                       "r");
    assert_non_null(pipe);
    size_t n = fread(output, 1, sizeof output - 1, pipe);
    output[n] = '\0';
    *said = output;
    int status = pclose(pipe);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void expect(const char *text_, const char *part) {
    if (!strstr(text_, part))
        fail_msg("'%s' is not in: %s", part, text_);
}

#define SPHERE "'dataset': {'generator': 'sphere', 'samples': 200, 'test_samples': 50}"
#define SWEEP(more)                                                                                \
    "{'name': 'shape', 'notes': '<b>bold</b> &amp;', 'base': {'name': 's', " SPHERE                \
    ", 'model': {'kind': 'mlp', 'hidden': [8]}, 'training': {'epochs': 2}}," more                  \
    "'grid': {'/model/hidden/0': [4, 8, 16, 32]}}"
#define AXES                                                                                       \
    "'x': {'label': 'units', 'scale': 'log', 'value': 'spec.model.hidden.0'},"                     \
    "'y': {'label': 'zero <x> &', 'value': 'result.sparsity.zero'}"

static int set_up(void **state) {
    struct daemon *d = daemon_new(NULL);
    *state = d;
    snprintf(examples, sizeof examples, "%s/examples", d->dir);
    snprintf(reports, sizeof reports, "%s/reports", d->dir);
    assert_int_equal(mkdir(examples, 0700), 0);
    assert_int_equal(mkdir(at_path(examples, "figures"), 0700), 0);
    assert_int_equal(mkdir(at_path(examples, "quick"), 0700), 0);
    write_example("shape.json", SWEEP(""));
    write_example("quick/shape.json", "{'grid': {'/model/hidden/0': [4, 8]}}");
    write_example("figures/shape.json",
                  "{'order': 1, 'title': 'Shape <i>', 'figures': ["
                  "{'title': 'A share', 'claim': '“a < b”', " AXES
                  ", 'rule': {'kind': 'above', 'bound': -0.5}},"
                  "{'title': 'No share', " AXES ", 'rule': {'kind': 'above', 'bound': 2}},"
                  "{'title': 'Needs a third', " AXES
                  ", 'where': {'spec.model.hidden.0': {'max': 8}}, 'rule': {'kind': 'peak'}},"
                  "{'title': 'Only shown', " AXES "}]}");
    write_example("alone.json", "{" SPHERE ", 'model': {'kind': 'mlp', 'hidden': [8]},"
                                "'training': {'epochs': 3}, 'name': 'alone'}");
    write_example("figures/alone.json",
                  "{'order': 2, 'title': 'Alone', 'figures': [{'title': 'Loss', 'rows': 'epochs',"
                  "'x': {'label': 'epoch', 'value': 'epoch.epoch'},"
                  "'y': {'label': 'loss', 'value': 'epoch.train.loss'}},"
                  "{'title': 'Bins', 'rows': 'histogram', 'x': {'label': 'h', 'value': 'bin.from'},"
                  "'y': {'label': 'share', 'value': 'bin.share'}}]}");
    return 0;
}

static size_t count_experiments(struct daemon *d) {
    return json_array_size(at(get(d, "/v1/experiments?limit=500")->json, "/experiments"));
}

static void test_a_report_of_all(void **state) {
    struct daemon *d = *state;
    char *said;
    assert_int_equal(reproduce(d, "", &said), 0);
    expect(said, "report.html");
    expect(said, "shape succeeded, 4 of 4");
    assert_int_equal(count_experiments(d), 5);
    char *html = slurp(at_path(reports, "report.html"));
    assert_well_formed(html);
    assert_null(strstr(html, "<script"));
    assert_null(strstr(html, "<b>"));
    expect(html, "&lt;b&gt;bold&lt;/b&gt; &amp;amp;");
    expect(html, "zero &lt;x&gt; &amp;");
    expect(html, ">holds</span>");
    expect(html, ">does not hold</span>");
    expect(html, ">not decided</span>");
    assert_true(strstr(html, "id=\"shape\"") < strstr(html, "id=\"alone\""));
    free(html);
}

static void test_the_verdicts_as_json(void **state) {
    char *said;
    assert_int_equal(reproduce(*state, "--json shape", &said), 0);
    json_t *list = json_loads(said, 0, NULL);
    assert_non_null(list);
    assert_int_equal(json_array_size(list), 4);
    assert_string_equal(text_at(list, "/0/verdict"), "holds");
    assert_string_equal(text_at(list, "/1/verdict"), "does not hold");
    assert_string_equal(text_at(list, "/2/verdict"), "not decided");
    assert_string_equal(text_at(list, "/3/verdict"), "reported");
    assert_string_equal(text_at(list, "/0/id"), "shape");
    expect(text_at(list, "/1/measured"), "lowest 0.");
    json_decref(list);
}

/* The tables have what the API says, experiment for experiment. */
static void test_the_tables(void **state) {
    struct daemon *d = *state;
    char *said;
    assert_int_equal(reproduce(d, "", &said), 0);
    char *csv = slurp(at_path(reports, "shape.csv"));
    size_t lines = 0;
    expect(csv, "result.sparsity.zero");
    expect(csv, "spec.model.hidden.0");
    for (const char *line = strstr(csv, "\r\n") + 2; *line; line = strstr(line, "\r\n") + 2) {
        char id[32];
        assert_int_equal(sscanf(line, "%31[a-z0-9],", id), 1);
        const json_t *e = get(d, "/v1/experiments/%s", id)->json;
        expect(line, text(",succeeded,%.9g,", number_at(e, "/result/accuracy")));
        lines++;
    }
    assert_int_equal(lines, 4);
    free(csv);
    csv = slurp(at_path(reports, "alone-epochs.csv"));
    expect(csv, "epoch.train.loss");
    free(csv);
    csv = slurp(at_path(reports, "alone-histograms.csv"));
    expect(csv, "bin.share");
    free(csv);
}

static void test_a_second_call_finds_what_ran(void **state) {
    struct daemon *d = *state;
    char *said;
    size_t before;
    assert_int_equal(reproduce(d, "", &said), 0);
    before = count_experiments(d);
    assert_int_equal(reproduce(d, "shape alone", &said), 0);
    assert_int_equal(count_experiments(d), before);
    assert_int_equal(reproduce(d, "--again alone", &said), 0);
    assert_int_equal(count_experiments(d), before + 1);
}

static void test_quick_is_a_merge_patch(void **state) {
    char *said;
    assert_int_equal(reproduce(*state, "--quick shape", &said), 0);
    expect(said, "shape succeeded, 2 of 2");
    char *html = slurp(at_path(reports, "report.html"));
    expect(html, "What was reduced for the quick run");
    free(html);
}

static void test_a_dry_run_stores_nothing(void **state) {
    struct daemon *d = *state;
    char *said;
    size_t before = count_experiments(d);
    assert_int_equal(reproduce(d, "--dry-run --again", &said), 0);
    expect(said, "shape");
    expect(said, "Together about");
    assert_int_equal(count_experiments(d), before);
}

static void test_what_cannot_run_is_named(void **state) {
    struct daemon *d = *state;
    char *said;
    write_example("wants.json", "{'dataset': {'name': 'absent'}, 'model': {'kind': 'mlp', 'hidden':"
                                "[8]}}");
    write_example("wrong.json", "{" SPHERE ", 'model': {'kind': 'mlp', 'hidden': [-8]}}");
    write_example("figures/wants.json", "{'title': 'Wants', 'figures': []}");
    write_example("figures/wrong.json", "{'title': 'Wrong', 'figures': []}");
    assert_int_equal(reproduce(d, "wants alone wrong", &said), 1);
    expect(said, "ovrctl upload absent train");
    expect(said, "/model/hidden/0");
    expect(said, "alone succeeded");
    char *html = slurp(at_path(reports, "report.html"));
    assert_well_formed(html);
    expect(html, "did not run");
    free(html);
}

/* One point diverges; the others are shown and judged, and the exit code says that not all ran. */
static void test_a_failed_point_is_listed(void **state) {
    char *said;
    write_example("burst.json", "{'name': 'burst', 'base': {'name': 'burst', " SPHERE
                                ", 'model': {'kind': 'mlp', 'hidden': [8]}, 'training':"
                                "{'epochs': 2}, 'optimizer': {'name': 'sgd'}}, 'grid':"
                                "{'/optimizer/learning_rate': [0.001, 1e30]}}");
    write_example("figures/burst.json",
                  "{'title': 'Burst', 'figures': [{'title': 'A share', 'x': {'label': 'rate',"
                  "'value': 'spec.optimizer.learning_rate'}, 'y': {'label': 'zero', 'value':"
                  "'result.sparsity.zero'}, 'rule': {'kind': 'above', 'bound': -1}}]}");
    assert_int_equal(reproduce(*state, "burst", &said), 1);
    char *html = slurp(at_path(reports, "report.html"));
    assert_well_formed(html);
    expect(html, "1 of 2 experiments have no result");
    expect(html, "failed: ");
    expect(html, ">holds</span>");
    free(html);
}

static void test_bad_examples_are_refused(void **state) {
    struct daemon *d = *state;
    char *said;
    assert_int_equal(reproduce(d, "nobody", &said), 2);
    expect(said, "there is no experiment nobody in");
    assert_int_equal(reproduce(d, "../shape", &said), 2);
    write_example("figures/odd.json",
                  "{'title': 'Odd', 'figures': [{'title': 'F', 'plot': 'pie'}]}");
    write_example("odd.json", "{}");
    assert_int_equal(reproduce(d, "odd", &said), 2);
    expect(said, "figures/odd.json, figure 1");
    assert_int_equal(reproduce(d, "--examples /nowhere", &said), 2);
    expect(said, "/nowhere");
}

/* ---- The project's own examples ---- */

static void assert_passes_dry_run(struct daemon *d, const char *name, const json_t *document) {
    char *body = json_dumps(document, JSON_COMPACT);
    const char *path = json_object_get(document, "base") ? "/v1/sweeps?dry_run=true"
                                                         : "/v1/experiments?dry_run=true";
    const struct answer *a = call(d, &(struct call){.method = "POST",
                                                    .path = path,
                                                    .headers = {"Content-Type: application/json"},
                                                    .body = body});
    if (a->status != 200)
        fail_msg("%s: %s", name, a->body);
    assert_true(number_at(a->json, "/estimate/seconds") > 0);
    free(body);
}

static void test_every_example_is_valid(void **state) {
    struct daemon *d = *state;
    size_t n = 0, figures = 0;
    char *said;
    upload_images(d, "cifar10", 10000, 5000, 5); /* what --quick limits itself to */
    DIR *dir = opendir("examples");
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir));) {
        if (!strstr(entry->d_name, ".json"))
            continue;
        json_t *document =
            json_load_file(text("examples/%s", entry->d_name), JSON_REJECT_DUPLICATES, NULL);
        if (!document)
            fail_msg("%s is not JSON", entry->d_name);
        assert_true(strlen(json_string_value(json_object_get(document, "notes"))) > 50);
        assert_passes_dry_run(d, entry->d_name, document);
        figures += access(text("examples/figures/%s", entry->d_name), R_OK) == 0;
        json_decref(document);
        n++;
    }
    closedir(dir);
    assert_true(n >= 15);
    assert_int_equal(figures, 11);
    assert_int_equal(reproduce(d, "--examples examples --dry-run", &said), 0);
    assert_int_equal(reproduce(d, "--examples examples --dry-run --quick", &said), 0);
    expect(said, "continual");
    assert_null(strstr(said, "refused"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_report_of_all),
        cmocka_unit_test(test_the_verdicts_as_json),
        cmocka_unit_test(test_the_tables),
        cmocka_unit_test(test_a_second_call_finds_what_ran),
        cmocka_unit_test(test_quick_is_a_merge_patch),
        cmocka_unit_test(test_a_dry_run_stores_nothing),
        cmocka_unit_test(test_what_cannot_run_is_named),
        cmocka_unit_test(test_a_failed_point_is_listed),
        cmocka_unit_test(test_bad_examples_are_refused),
        cmocka_unit_test(test_every_example_is_valid),
    };
    return cmocka_run_group_tests(tests, set_up, without_daemon);
}
