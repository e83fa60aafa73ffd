/* Rules give all three verdicts, each where it belongs; figures group rows as described. */
#include "clients/reproduce/rule.h"

#include "clients/reproduce/figure.h"
#include "clients/reproduce/rows.h"
#include "tests/reproduce/check.h"

#include <math.h>

#define DESCRIPTION(rule)                                                                          \
    "{'title': 't', 'x': {'label': 'x', 'value': 'x'}, 'y': {'label': 'y', 'value': 'y'},"         \
    "'series': {'label': '', 'value': 's'}, 'rule': " rule "}"

/* Rows {x, y, s} of one series. */
static json_t *rows_of(const double *y, size_t n, const char *series) {
    json_t *rows = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(rows,
                              json_pack("{s:f, s:f, s:s}", "x", (double)i, "y", y[i], "s", series));
    return rows;
}

static enum verdict verdict_of(const char *description, json_t *rows, const char *says) {
    json_t *parsed = parse(description);
    struct judgement judgement;
    assert_int_equal(rule_judge(&judgement, parsed, rows), 0);
    enum verdict verdict = judgement.verdict;
    if (says && !strstr(judgement.finding.data, says))
        fail_msg("'%s' is not in '%s'", says, judgement.finding.data);
    judgement_release(&judgement);
    json_decref(parsed);
    return verdict;
}

/* Takes over the rows. */
#define assert_verdict(rule, rows, expected, says)                                                 \
    do {                                                                                           \
        json_t *rows_ = (rows);                                                                    \
        assert_string_equal(verdict_text(verdict_of(DESCRIPTION(rule), rows_, says)),              \
                            verdict_text(expected));                                               \
        json_decref(rows_);                                                                        \
    } while (0)

#define ROWS(...)                                                                                  \
    rows_of((const double[]){__VA_ARGS__}, sizeof((const double[]){__VA_ARGS__}) / sizeof(double), \
            "a")

static void test_trends(void **state) {
    (void)state;
#define RISES "{'kind': 'rises', 'correlation': 0.8, 'change': 0.05}"
#define FALLS "{'kind': 'falls', 'correlation': 0.8, 'change': 0.05}"
    assert_verdict(RISES, ROWS(0.1, 0.2, 0.3, 0.4), HOLDS, "0.1 → 0.4, ρ = 1.00");
    assert_verdict(RISES, ROWS(0.1, 0.3, 0.2, 0.4), HOLDS, "ρ = 0.80");
    assert_verdict(RISES, ROWS(0.4, 0.3, 0.2, 0.1), DOES_NOT_HOLD, "ρ = -1.00");
    assert_verdict(RISES, ROWS(0.2, 0.9, 0.5, 0.1), DOES_NOT_HOLD, NULL);
    assert_verdict(RISES, ROWS(0.1, 0.11, 0.12, 0.13), NOT_DECIDED, NULL); /* hardly */
    assert_verdict(RISES, ROWS(0.1, 0.4, 0.3, 0.2), NOT_DECIDED, NULL);    /* not in order */
    assert_verdict(RISES, ROWS(0.2, 0.2, 0.2), DOES_NOT_HOLD, "constant");
    assert_verdict(RISES, ROWS(0.1, 0.4), NOT_DECIDED, "only 2 points");
    assert_verdict(FALLS, ROWS(0.4, 0.3, 0.2, 0.1), HOLDS, NULL);
    assert_verdict(FALLS, ROWS(0.1, 0.2, 0.3, 0.4), DOES_NOT_HOLD, NULL);
    assert_verdict(RISES, json_array(), NOT_DECIDED, "nothing was measured");
}

static void test_peaks(void **state) {
    (void)state;
#define PEAK "{'kind': 'peak', 'margin': 0.015}"
    assert_verdict(PEAK, ROWS(0.40, 0.50, 0.55, 0.20), HOLDS, "highest 0.55 at x = 2");
    assert_verdict(PEAK, ROWS(0.40, 0.41, 0.30), NOT_DECIDED, NULL); /* within the margin */
    assert_verdict(PEAK, ROWS(0.40, 0.50, 0.60), DOES_NOT_HOLD, NULL);
    assert_verdict(PEAK, ROWS(0.60, 0.50, 0.40), DOES_NOT_HOLD, NULL);
}

static void test_bounds(void **state) {
    (void)state;
    assert_verdict("{'kind': 'below', 'bound': 0}", ROWS(-1, -0.5), HOLDS, "highest -0.5");
    assert_verdict("{'kind': 'below', 'bound': 0}", ROWS(-1, 0.5, -1), DOES_NOT_HOLD, NULL);
    assert_verdict("{'kind': 'below', 'bound': 0.1, 'at': 'last'}", ROWS(1, 0.01), HOLDS, NULL);
    assert_verdict("{'kind': 'below', 'bound': 0.1, 'at': 'last'}", ROWS(0.01, 1), DOES_NOT_HOLD,
                   NULL);
    assert_verdict("{'kind': 'above', 'bound': 0.1}", ROWS(0.2, 0.3), HOLDS, "lowest 0.2");
    assert_verdict("{'kind': 'above', 'bound': 0.1}", ROWS(0.2, 0.05, 0.3), DOES_NOT_HOLD, NULL);
}

#define PAIR(kind)                                                                                 \
    "{'kind': '" kind "', 'margin': 0.015, 'of': {'label': 'ours', 'where': {'s': 'a'}},"          \
    "'than': {'label': 'theirs', 'where': {'s': 'b'}}}"

static json_t *two(double a, double b) {
    json_t *rows = rows_of(&a, 1, "a"), *other = rows_of(&b, 1, "b");
    json_array_extend(rows, other);
    json_decref(other);
    return rows;
}

static void test_comparisons(void **state) {
    (void)state;
    assert_verdict(PAIR("greater"), two(0.50, 0.40), HOLDS, "ours: 0.5; theirs: 0.4");
    assert_verdict(PAIR("greater"), two(0.41, 0.40), NOT_DECIDED, NULL);
    assert_verdict(PAIR("greater"), two(0.40, 0.50), DOES_NOT_HOLD, "difference -0.1");
    assert_verdict(PAIR("at_least"), two(0.39, 0.40), HOLDS, NULL);
    assert_verdict(PAIR("at_least"), two(0.38, 0.40), DOES_NOT_HOLD, NULL);
    assert_verdict(PAIR("at_least"), ROWS(0.5), NOT_DECIDED, "theirs was not measured");
}

/* The better of two points by a value other than y, as λ is chosen by the validation loss. */
static void test_choice_by_another_value(void **state) {
    (void)state;
    json_t *rows = parse("[{'x': 1, 'y': 0.9, 's': 'a', 'loss': 2}, {'x': 2, 'y': 0.5, 's': 'a',"
                         "'loss': 1}, {'x': 0, 'y': 0.6, 's': 'b'}]");
    assert_verdict("{'kind': 'greater', 'margin': 0.015, 'of': {'label': 'ours', 'where':"
                   "{'s': 'a'}, 'best_by': {'label': 'loss', 'value': 'loss'}, 'best': 'min'}, "
                   "'than': {'label': 'theirs',"
                   "'where': {'s': 'b'}}}",
                   rows, DOES_NOT_HOLD, "ours (x 2): 0.5");
}

static void test_every_series_is_judged(void **state) {
    (void)state;
    json_t *rows = ROWS(0.1, 0.2, 0.3);
    json_t *falling = rows_of((const double[]){0.3, 0.2, 0.1}, 3, "b");
    json_array_extend(rows, falling);
    json_decref(falling);
    assert_verdict(RISES, json_incref(rows), DOES_NOT_HOLD, "a: 0.1 → 0.3, ρ = 1.00 (holds); b: ");
    assert_verdict("{'kind': 'rises', 'where': {'s': 'a'}}", rows, HOLDS, NULL);
}

static void test_spearman(void **state) {
    (void)state;
    /* With ties; by hand: ranks of y 1, 2.5, 2.5, 5, 4, so 8.5/sqrt(10*9.5). */
    const struct point points[] = {
        {.x = 1, .y = 1}, {.x = 2, .y = 2}, {.x = 3, .y = 2}, {.x = 4, .y = 5}, {.x = 5, .y = 3}};
    assert_true(fabs(spearman(points, 5) - 8.5 / sqrt(95)) < 1e-12);
    assert_true(isnan(spearman(points, 1)));
}

static void test_repeats_become_mean_and_deviation(void **state) {
    (void)state;
    json_t *rows = parse("[{'x': 1, 'y': 1}, {'x': 1, 'y': 3}, {'x': 0, 'y': 7}, {'x': 0},"
                         "{'y': 1}, {'x': 1, 'y': null}]");
    json_t *description = parse("{'title': 't', 'x': {'label': 'x', 'product': [{'value': 'x',"
                                "'plus': 1}, {'value': 'x'}]}, 'y': {'label': 'y', 'value': 'y'}}");
    struct figure figure;
    assert_int_equal(figure_build(&figure, description, rows, NULL), 0);
    assert_int_equal(figure.n, 1);
    assert_int_equal(figure.series[0].n, 2);
    assert_true(fabs(figure.series[0].points[0].y - 7) < 1e-12);
    assert_true(fabs(figure.series[0].points[1].x - 2) < 1e-12); /* (1 + 1)·1 */
    assert_true(fabs(figure.series[0].points[1].y - 2) < 1e-12);
    assert_true(fabs(figure.series[0].points[1].sd - sqrt(2)) < 1e-12);
    assert_int_equal(figure.series[0].points[1].n, 2);
    figure_release(&figure);
    json_decref(description);
    json_decref(rows);
}

static void test_where(void **state) {
    (void)state;
    static const struct {
        const char *where;
        int fits;
    } cases[] = {
        {"{}", 1},
        {"{'a.b.1': 5}", 1},
        {"{'a.b.1': 5.0}", 1},
        {"{'a.b.1': 6}", 0},
        {"{'a.b.2': 5}", 0},
        {"{'a.b.1': [4, 5]}", 1},
        {"{'a.b.1': [4, 6]}", 0},
        {"{'a.b.1': {'min': 5, 'max': 5}}", 1},
        {"{'a.b.1': {'min': 5.1}}", 0},
        {"{'a.b.1': {'max': 4}}", 0},
        {"{'s': {'min': 0}}", 0},
        {"{'none': {'min': 0}}", 0},
        {"{'s': 'text', 'a.b.0': 4}", 1},
        {"{'s': 'text', 'a.b.0': 5}", 0},
        {"{'s': null}", 0},
        {"{'null': null, 'missing': null}", 1},
        {"{'null': 0}", 0},
    };
    json_t *row = parse("{'a': {'b': [4, 5]}, 's': 'text', 'null': null}");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *where = parse(cases[i].where);
        if (row_matches(row, where) != cases[i].fits)
            fail_msg("%s", cases[i].where);
        json_decref(where);
    }
    json_decref(row);
}

static void test_descriptions_are_checked(void **state) {
    (void)state;
    static const char *const wrong[] = {
        "{'title': 't', 'y': {'label': 'y', 'value': 'y'}}",
        "{'title': 't', 'plot': 'bars', 'y': {'label': 'y'}}",
        "{'title': 't', 'plot': 'pie', 'y': {'label': 'y', 'value': 'y'}}",
        "{'title': 't', 'plot': 'bars', 'y': {'label': 'y', 'value': 'y', 'scale': 'cubic'}}",
        "{'title': 't', 'plot': 'bars', 'y': {'label': 'y', 'value': 'y'}, 'rul': {}}",
        "{'plot': 'bars', 'y': {'label': 'y', 'value': 'y'}}",
        "{'title': 't', 'plot': 'bars', 'y': {'label': 'y', 'value': 'y'}, 'series': [{}]}",
        DESCRIPTION("{'kind': 'soars'}"),
        DESCRIPTION("{'kind': 'above'}"),
        DESCRIPTION("{'kind': 'greater', 'of': {'label': 'a'}}"),
        DESCRIPTION("{'kind': 'rises', 'marginn': 3}"),
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        json_t *description = parse(wrong[i]);
        struct buf fault = {0};
        if (figure_is_valid(description, &fault) || !fault.data)
            fail_msg("%s is taken", wrong[i]);
        buf_release(&fault);
        json_decref(description);
    }
    json_t *right = parse(DESCRIPTION(RISES));
    struct buf fault = {0};
    assert_true(figure_is_valid(right, &fault));
    json_decref(right);
}

static void test_csv(void **state) {
    (void)state;
    json_t *rows = parse("[{'id': 'a', 'state': 'succeeded', 'spec': {'x': 1, 'same': 2, 'list':"
                         "[1]}, 'result': {'y': 0.5, 'deep': {'z': 1}}},"
                         "{'id': 'b', 'state': 'failed', 'spec': {'x': 2, 'same': 2, 'list': [1]},"
                         "'result': null, 'error': {'detail': 'said \\\"no\\\", then\\nleft'}}]");
    struct buf csv = {0};
    rows_csv(&csv, rows);
    assert_string_equal(csv.data, "id,state,result.y,result.deep.z,spec.x,error.detail\r\n"
                                  "a,succeeded,0.5,1,1,\r\n"
                                  "b,failed,,,2,\"said \"\"no\"\", then\nleft\"\r\n");
    buf_release(&csv);
    json_decref(rows);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_trends),
        cmocka_unit_test(test_peaks),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_comparisons),
        cmocka_unit_test(test_choice_by_another_value),
        cmocka_unit_test(test_every_series_is_judged),
        cmocka_unit_test(test_spearman),
        cmocka_unit_test(test_repeats_become_mean_and_deviation),
        cmocka_unit_test(test_where),
        cmocka_unit_test(test_descriptions_are_checked),
        cmocka_unit_test(test_csv),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
