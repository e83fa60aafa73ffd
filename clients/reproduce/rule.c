#include "clients/reproduce/rule.h"

#include "clients/cli/value.h"
#include "clients/reproduce/figure.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum kind { RISES, FALLS, PEAK, ABOVE, BELOW, GREATER, AT_LEAST, N_KINDS };

static const char *const kinds[N_KINDS] = {"rises", "falls",   "peak",    "above",
                                           "below", "greater", "at_least"};

static enum kind kind_of(const json_t *rule) {
    enum kind kind = 0;
    while (kind < N_KINDS && strcmp(value_string(rule, "kind"), kinds[kind]))
        kind++;
    return kind;
}

const char *verdict_text(enum verdict verdict) {
    static const char *const texts[] = {[REPORTED] = "reported",
                                        [HOLDS] = "holds",
                                        [DOES_NOT_HOLD] = "does not hold",
                                        [NOT_DECIDED] = "not decided"};
    return texts[verdict];
}

static double number_or(const json_t *rule, const char *name, double otherwise) {
    double number = value_number(rule, name);
    return isnan(number) ? otherwise : number;
}

/* All of them have to hold. */
static enum verdict both(enum verdict a, enum verdict b) {
    if (a == DOES_NOT_HOLD || b == DOES_NOT_HOLD)
        return DOES_NOT_HOLD;
    return a == HOLDS && b == HOLDS ? HOLDS : NOT_DECIDED;
}

/* ---- Series ---- */

/* The mean rank, from 1, of point i's x or y among those of all. */
static double rank_of(const struct point *points, size_t n, size_t i, bool of_x) {
    double value = of_x ? points[i].x : points[i].y, below = 0, equal = 0;
    for (size_t k = 0; k < n; k++) {
        double other = of_x ? points[k].x : points[k].y;
        below += other < value;
        equal += !(other < value) && !(other > value);
    }
    return below + (equal + 1) / 2;
}

double spearman(const struct point *points, size_t n) {
    double mean = ((double)n + 1) / 2, xy = 0, xx = 0, yy = 0;
    for (size_t i = 0; i < n; i++) {
        double x = rank_of(points, n, i, true) - mean, y = rank_of(points, n, i, false) - mean;
        xy += x * y;
        xx += x * x;
        yy += y * y;
    }
    return xx > 0 && yy > 0 ? xy / sqrt(xx * yy) : NAN;
}

static enum verdict judge_trend(const json_t *rule, const struct series *series,
                                struct buf *finding) {
    double sign = kind_of(rule) == RISES ? 1 : -1;
    if (series->n < 3) {
        buf_addf(finding, "only %zu points", series->n);
        return NOT_DECIDED;
    }
    double first = series->points[0].y, last = series->points[series->n - 1].y;
    double rho = spearman(series->points, series->n), change = sign * (last - first);
    char a[LABEL_ROOM], b[LABEL_ROOM];
    buf_addf(finding, "%s → %s", figure_number(a, first), figure_number(b, last));
    if (isnan(rho)) {
        buf_add(finding, ", constant");
        return DOES_NOT_HOLD;
    }
    buf_addf(finding, ", ρ = %.2f", rho);
    if (change <= 0 || sign * rho <= 0)
        return DOES_NOT_HOLD;
    return sign * rho >= number_or(rule, "correlation", 0.8) &&
                   change > number_or(rule, "change", 0.02)
               ? HOLDS
               : NOT_DECIDED;
}

static size_t highest(const struct series *series) {
    size_t best = 0;
    for (size_t i = 1; i < series->n; i++)
        if (series->points[i].y > series->points[best].y)
            best = i;
    return best;
}

static enum verdict judge_peak(const json_t *rule, const struct series *series, const char *x_label,
                               struct buf *finding) {
    if (series->n < 3) {
        buf_addf(finding, "only %zu points", series->n);
        return NOT_DECIDED;
    }
    size_t best = highest(series), end = series->n - 1;
    double top = series->points[best].y, first = series->points[0].y, last = series->points[end].y;
    char a[LABEL_ROOM], b[LABEL_ROOM], c[LABEL_ROOM], d[LABEL_ROOM];
    buf_addf(finding, "highest %s at %s = %s, ends %s and %s", figure_number(a, top), x_label,
             figure_number(b, series->points[best].x), figure_number(c, first),
             figure_number(d, last));
    if (best == 0 || best == end)
        return DOES_NOT_HOLD;
    return top - fmax(first, last) > number_or(rule, "margin", 0.015) ? HOLDS : NOT_DECIDED;
}

static enum verdict judge_bound(const json_t *rule, const struct series *series,
                                struct buf *finding) {
    double sign = kind_of(rule) == ABOVE ? 1 : -1, bound = value_number(rule, "bound");
    bool last = !strcmp(value_string(rule, "at"), "last");
    const struct point *worst = &series->points[series->n - 1];
    for (size_t i = 0; i < series->n && !last; i++)
        if (sign * series->points[i].y < sign * worst->y)
            worst = &series->points[i];
    char a[LABEL_ROOM];
    buf_addf(finding, "%s %s",
             last       ? "last"
             : sign > 0 ? "lowest"
                        : "highest",
             figure_number(a, worst->y));
    return sign * worst->y > sign * bound ? HOLDS : DOES_NOT_HOLD;
}

static enum verdict judge_one_series(const json_t *rule, const struct figure *figure, size_t i,
                                     struct buf *finding) {
    const struct series *series = &figure->series[i];
    switch (kind_of(rule)) {
    case RISES:
    case FALLS:
        return judge_trend(rule, series, finding);
    case PEAK:
        return judge_peak(rule, series, figure->x.label, finding);
    default:
        return judge_bound(rule, series, finding);
    }
}

/* The description with the rule's own filter besides its own. NULL where memory runs out. */
static json_t *narrowed(const json_t *description, const json_t *where) {
    json_t *copy = json_copy((json_t *)description);
    json_t *filter = json_object();
    if (json_object_get(description, "where"))
        json_object_update(filter, json_object_get(description, "where"));
    if (!copy || !filter || (where && json_object_update(filter, (json_t *)where)) ||
        json_object_set(copy, "where", filter)) {
        json_decref(copy);
        copy = NULL;
    }
    json_decref(filter);
    return copy;
}

static int judge_series(struct judgement *judgement, const json_t *description,
                        const json_t *rows) {
    const json_t *rule = json_object_get(description, "rule");
    struct figure figure = {0};
    json_t *part = narrowed(description, json_object_get(rule, "where"));
    int result = part ? figure_build(&figure, part, rows, NULL) : -1;
    judgement->verdict = figure.n ? HOLDS : NOT_DECIDED;
    if (!figure.n)
        buf_add(&judgement->finding, "nothing was measured");
    for (size_t i = 0; i < figure.n && !result; i++) {
        const char *label = figure.series[i].label;
        buf_addf(&judgement->finding, "%s%s%s", i ? "; " : "", label, *label ? ": " : "");
        enum verdict verdict = judge_one_series(rule, &figure, i, &judgement->finding);
        if (figure.n > 1)
            buf_addf(&judgement->finding, " (%s)", verdict_text(verdict));
        judgement->verdict = both(judgement->verdict, verdict);
    }
    figure_release(&figure);
    json_decref(part);
    return result;
}

/* ---- Comparisons ---- */

struct choice {
    bool found;
    double y;
    struct buf name; /* its label, and which of several points it is */
};

/* The best point of those that a CHOICE lets in. */
static int choose(struct choice *choice, const json_t *rule, const char *name,
                  const json_t *description, const json_t *rows) {
    const json_t *wanted = json_object_get(rule, name);
    const char *by = json_string_value(value_at(wanted, "best_by.value"));
    double sign = !strcmp(value_string(wanted, "best"), "min") ? -1 : 1, best = 0;
    json_t *part = narrowed(description, json_object_get(wanted, "where"));
    struct figure figure = {0};
    int result = part ? figure_build(&figure, part, rows, by) : -1;
    *choice = (struct choice){0};
    const struct series *series = NULL;
    const struct point *chosen = NULL;
    size_t n = 0;
    for (size_t i = 0; i < figure.n; i++)
        for (size_t k = 0; k < figure.series[i].n; k++, n++) {
            const struct point *point = &figure.series[i].points[k];
            double value = sign * (by ? point->by : point->y);
            if (isnan(value) || (chosen && value <= best))
                continue;
            best = value;
            chosen = point;
            series = &figure.series[i];
        }
    buf_add(&choice->name, value_string(wanted, "label"));
    if (chosen) {
        char x[LABEL_ROOM];
        choice->found = true;
        choice->y = chosen->y;
        if (n > 1 && !figure.bars)
            buf_addf(&choice->name, " (%s %s)", figure.x.label, figure_number(x, chosen->x));
        else if (n > 1)
            buf_addf(&choice->name, " (%s)", series->label);
    }
    figure_release(&figure);
    json_decref(part);
    return result;
}

static enum verdict compare(enum kind kind, double of, double than, double margin) {
    if (kind == AT_LEAST)
        return of >= than - margin ? HOLDS : DOES_NOT_HOLD;
    return of > than + margin ? HOLDS : of < than - margin ? DOES_NOT_HOLD : NOT_DECIDED;
}

static int judge_comparison(struct judgement *judgement, const json_t *description,
                            const json_t *rows) {
    const json_t *rule = json_object_get(description, "rule");
    struct choice of, than = {0};
    int result = choose(&of, rule, "of", description, rows);
    if (!result)
        result = choose(&than, rule, "than", description, rows);
    judgement->verdict = NOT_DECIDED;
    if (!result && of.name.data && than.name.data && of.found && than.found) {
        char a[LABEL_ROOM], b[LABEL_ROOM], d[LABEL_ROOM];
        judgement->verdict = compare(kind_of(rule), of.y, than.y, number_or(rule, "margin", 0.015));
        buf_addf(&judgement->finding, "%s: %s; %s: %s; difference %s", of.name.data,
                 figure_number(a, of.y), than.name.data, figure_number(b, than.y),
                 figure_number(d, of.y - than.y));
    } else if (!result) {
        buf_addf(&judgement->finding, "%s was not measured",
                 of.found ? value_string(rule, "than.label") : value_string(rule, "of.label"));
    }
    buf_release(&of.name);
    buf_release(&than.name);
    return result;
}

/* ---- In words ---- */

static void add_choice(struct buf *words, const json_t *choice) {
    buf_add(words, value_string(choice, "label"));
    if (value_at(choice, "best_by"))
        buf_addf(words, " (the one with the %s %s)",
                 strcmp(value_string(choice, "best"), "min") ? "highest" : "lowest",
                 value_string(choice, "best_by.label"));
}

static void describe_trend(struct buf *words, const json_t *rule, const char *x, const char *y) {
    bool rises = kind_of(rule) == RISES;
    buf_addf(words,
             "Holds if in each series judged Spearman's rank correlation of %s with %s is %s %g "
             "and the last point lies more than %g %s the first; does not hold if a correlation "
             "or a change from first to last has the other sign; else not decided.",
             y, x, rises ? "at least" : "at most",
             (rises ? 1 : -1) * number_or(rule, "correlation", 0.8),
             number_or(rule, "change", 0.02), rises ? "above" : "below");
}

static void describe_comparison(struct buf *words, const json_t *rule, const char *y) {
    double margin = number_or(rule, "margin", 0.015);
    buf_addf(words, "Holds if %s of ", y);
    add_choice(words, json_object_get(rule, "of"));
    buf_add(words, kind_of(rule) == GREATER ? " exceeds that of " : " is at least that of ");
    add_choice(words, json_object_get(rule, "than"));
    if (kind_of(rule) == GREATER)
        buf_addf(words,
                 " by more than %g; does not hold if it falls short by more than that; else "
                 "not decided.",
                 margin);
    else
        buf_addf(words, " less %g; else does not hold.", margin);
}

static void describe(struct buf *words, const json_t *description) {
    const json_t *rule = json_object_get(description, "rule");
    const char *x = value_string(description, "x.label"), *y = value_string(description, "y.label");
    switch (kind_of(rule)) {
    case RISES:
    case FALLS:
        describe_trend(words, rule, x, y);
        break;
    case PEAK:
        buf_addf(words,
                 "Holds if in each series judged the highest %s lies at neither end of %s and is "
                 "more than %g above both ends; does not hold if it lies at an end; else not "
                 "decided.",
                 y, x, number_or(rule, "margin", 0.015));
        break;
    case ABOVE:
    case BELOW:
        buf_addf(words, "Holds if %s is %s %g %s in each series judged; else does not hold.", y,
                 value_string(rule, "kind"), value_number(rule, "bound"),
                 strcmp(value_string(rule, "at"), "last") ? "at every point" : "at the last point");
        break;
    default:
        describe_comparison(words, rule, y);
    }
    const char *judged = value_string(rule, "judged");
    if (*judged)
        buf_addf(words, " Judged: %s.", judged);
}

int rule_judge(struct judgement *judgement, const json_t *description, const json_t *rows) {
    const json_t *rule = json_object_get(description, "rule");
    *judgement = (struct judgement){.verdict = REPORTED};
    if (!rule)
        return 0;
    describe(&judgement->rule, description);
    bool compares = kind_of(rule) == GREATER || kind_of(rule) == AT_LEAST;
    int result = compares ? judge_comparison(judgement, description, rows)
                          : judge_series(judgement, description, rows);
    return judgement->rule.failed || judgement->finding.failed ? -1 : result;
}

void judgement_release(struct judgement *judgement) {
    buf_release(&judgement->rule);
    buf_release(&judgement->finding);
}

static bool knows_members(const json_t *rule, struct buf *fault) {
    static const char names[] =
        " kind correlation change margin bound at where judged of than label best_by best ";
    const char *name;
    const json_t *member;
    json_object_foreach((json_t *)rule, name, member) {
        char spaced[40];
        snprintf(spaced, sizeof spaced, " %.36s ", name);
        if (strstr(names, spaced))
            continue;
        buf_addf(fault, "its rule has a member '%s' that no rule knows", name);
        return false;
    }
    return true;
}

bool rule_is_valid(const json_t *rule, struct buf *fault) {
    enum kind kind = kind_of(rule);
    if (kind == N_KINDS) {
        buf_addf(fault, "its rule is of no known kind: '%s'", value_string(rule, "kind"));
        return false;
    }
    if ((kind == ABOVE || kind == BELOW) && isnan(value_number(rule, "bound"))) {
        buf_add(fault, "its rule has no bound");
        return false;
    }
    if ((kind == GREATER || kind == AT_LEAST) &&
        (!*value_string(rule, "of.label") || !*value_string(rule, "than.label"))) {
        buf_add(fault, "its rule has to say what is compared with what, each with a label");
        return false;
    }
    return knows_members(rule, fault) && knows_members(json_object_get(rule, "of"), fault) &&
           knows_members(json_object_get(rule, "than"), fault);
}
