/* Pages and pictures are well formed, whatever the texts and numbers in them. */
#include "clients/reproduce/figure.h"
#include "clients/reproduce/html.h"
#include "clients/reproduce/plot.h"
#include "clients/reproduce/report.h"
#include "tests/reproduce/check.h"
#include "tests/reproduce/markup.h"

#include <math.h>

/* A figure with one series; the label is the caller's to choose. */
static void draw(struct buf *svg, const struct point *points, size_t n, const char *label, bool log,
                 bool bars) {
    struct series series = {(char *)(uintptr_t)label, (struct point *)(uintptr_t)points, n};
    struct figure figure = {
        .x = {"x < y & \"z\"", log}, .y = {"y", log}, .bars = bars, .series = &series, .n = 1};
    plot_svg(svg, &figure, "<title>");
    assert_false(svg->failed);
    assert_well_formed(svg->data);
    assert_null(strstr(svg->data, "nan"));
    assert_null(strstr(svg->data, "inf"));
}

static void test_names_are_escaped(void **state) {
    (void)state;
    struct buf svg = {0};
    draw(&svg, (const struct point[]){{1, 2, 0, NAN, 1}, {2, 3, 0, NAN, 1}}, 2,
         "<script>alert('1')</script> & \"co\"", false, false);
    assert_null(strstr(svg.data, "<script"));
    assert_non_null(strstr(svg.data, "&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt; &amp; "
                                     "&quot;co&quot;"));
    assert_non_null(strstr(svg.data, "<title>&lt;title&gt;</title>"));
    buf_release(&svg);
}

static void test_any_numbers_can_be_drawn(void **state) {
    (void)state;
    static const struct point cases[][3] = {
        {{0, 0, 0, NAN, 1}, {0, 0, 0, NAN, 1}, {0, 0, 0, NAN, 1}},
        {{1, 1, 0, NAN, 1}, {1, 1, 0, NAN, 1}, {1, 1, 0, NAN, 1}},
        {{0, -5, 2, NAN, 3}, {1e-9, 7, 1, NAN, 3}, {1e9, 1e12, 1, NAN, 2}},
        {{-3, -1e-30, 0, NAN, 1}, {0, 0, 0, NAN, 1}, {1e-300, 1e300, 0, NAN, 1}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int kind = 0; kind < 4; kind++)
            for (size_t n = 1; n <= 3; n++) {
                struct buf svg = {0};
                draw(&svg, cases[i], n, "s", kind & 1, kind & 2);
                buf_release(&svg);
            }
}

static void test_an_empty_figure_says_so(void **state) {
    (void)state;
    struct buf svg = {0};
    plot_svg(&svg, &(struct figure){0}, "t");
    assert_non_null(strstr(svg.data, "Nothing was measured"));
    buf_release(&svg);
}

/* λ = 0 has a place on a logarithmic axis, left of all others. */
static void test_zero_on_a_logarithmic_axis(void **state) {
    (void)state;
    struct buf svg = {0};
    draw(&svg,
         (const struct point[]){{0, 1, 0, NAN, 1}, {1e-5, 2, 0, NAN, 1}, {1e-3, 3, 0, NAN, 1}}, 3,
         "", true, false);
    const char *line = strstr(svg.data, "line\" d=\"M");
    double x[3], y[3];
    assert_non_null(line);
    assert_int_equal(sscanf(line, "line\" d=\"M%lf %lfL%lf %lfL%lf %lf", &x[0], &y[0], &x[1], &y[1],
                            &x[2], &y[2]),
                     6);
    assert_true(x[0] < x[1] - 20 && x[1] < x[2]);
    assert_non_null(strstr(svg.data, ">1e-5</text>"));
    assert_non_null(strstr(svg.data, ">0</text>"));
    buf_release(&svg);
}

/* A page with a study that failed in part, one that did not run, and texts that want to break it.
 */
static void test_a_page(void **state) {
    (void)state;
    json_t *description = parse(
        "{'title': 'A <b>', 'figures': [{'title': 'F & <i>', 'claim': '<u>', 'remark': '</p>',"
        "'x': {'label': 'x', 'value': 'spec.x'}, 'y': {'label': 'y', 'value': 'result.y'},"
        "'rule': {'kind': 'rises'}}]}");
    json_t *document = parse("{'notes': 'a > b <script>', 'x': '</pre>'}");
    json_t *experiments = parse(
        "[{'id': 'a', 'state': 'succeeded', 'spec': {'x': 1}, 'result': {'y': 3, 'protocol':"
        "'clean'}}, {'id': 'b', 'state': 'failed', 'name': '<b>', 'error': {'detail': 'a < b'}}]");
    json_t *version = parse("{'version': '<9>'}");
    struct judgement judgement;
    assert_int_equal(rule_judge(&judgement,
                                json_array_get(json_object_get(description, "figures"), 0),
                                experiments),
                     0);
    const struct report_study studies[] = {
        {.id = "one",
         .document = document,
         .reductions = document,
         .description = description,
         .sweep = true,
         .handle = "h",
         .trouble = "",
         .experiments = experiments,
         .judgements = &judgement},
        {.id = "two",
         .document = document,
         .description = description,
         .handle = "",
         .trouble = "no <data>",
         .judgements = &judgement},
    };
    struct buf html = {0};
    report_html(&html, &(struct report){.url = "http://a/\"b",
                                        .date = "today",
                                        .version = version,
                                        .quick = true,
                                        .studies = studies,
                                        .n = 2});
    assert_false(html.failed);
    assert_well_formed(html.data);
    assert_null(strstr(html.data, "<script"));
    assert_non_null(strstr(html.data, "1 of 2 experiments have no result"));
    assert_non_null(strstr(html.data, "a &lt; b"));
    assert_non_null(strstr(html.data, "not decided"));
    assert_non_null(strstr(html.data, "no &lt;data&gt;"));
    assert_non_null(strstr(html.data, "Protocol: clean."));
    buf_release(&html);
    judgement_release(&judgement);
    json_decref(version);
    json_decref(experiments);
    json_decref(document);
    json_decref(description);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names_are_escaped),
        cmocka_unit_test(test_any_numbers_can_be_drawn),
        cmocka_unit_test(test_an_empty_figure_says_so),
        cmocka_unit_test(test_zero_on_a_logarithmic_axis),
        cmocka_unit_test(test_a_page),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
