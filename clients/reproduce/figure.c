#include "clients/reproduce/figure.h"

#include "clients/cli/text.h"
#include "clients/cli/value.h"
#include "clients/reproduce/rows.h"
#include "clients/reproduce/rule.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *figure_number(char out[LABEL_ROOM], double value) {
    bool whole = fabs(value) < 1e7 && !(fabs(value - nearbyint(value)) > 0);
    snprintf(out, LABEL_ROOM, whole ? "%.0f" : "%.4g", value + 0.0);
    char *exponent = strchr(out, 'e'); /* 1e-05 becomes 1e-5 */
    if (exponent && exponent[2] == '0')
        memmove(exponent + 2, exponent + 3, strlen(exponent + 3) + 1);
    return out;
}

/* ---- Grouping ---- */

static double x_of(const json_t *row, const json_t *axis) {
    const json_t *product = json_object_get(axis, "product"), *factor;
    double x = 1;
    size_t i;
    if (!product)
        return value_number(row, value_string(axis, "value"));
    json_array_foreach(product, i, factor) {
        double plus = value_number(factor, "plus");
        x *= value_number(row, value_string(factor, "value")) + (isnan(plus) ? 0 : plus);
    }
    return x;
}

static struct point *point_for(struct series *series, double x) {
    size_t at = 0;
    while (at < series->n && series->points[at].x < x)
        at++;
    if (at < series->n && !(series->points[at].x > x))
        return &series->points[at];
    struct point *points = realloc(series->points, (series->n + 1) * sizeof *points);
    if (!points)
        return NULL;
    series->points = points;
    memmove(points + at + 1, points + at, (series->n - at) * sizeof *points);
    series->n++;
    points[at] = (struct point){.x = x};
    return &points[at];
}

/* Welford: y is the running mean, sd the running sum of squares until finish_series(). */
static int add_row(struct series *series, const json_t *description, const json_t *row,
                   const char *by) {
    double y = value_number(row, value_string(description, "y.value"));
    double x = value_at(description, "x") ? x_of(row, value_at(description, "x")) : 0;
    if (!isfinite(x) || !isfinite(y))
        return 0;
    struct point *point = point_for(series, x);
    if (!point)
        return -1;
    double before = y - point->y, n = (double)++point->n;
    point->y += before / n;
    point->sd += before * (y - point->y);
    point->by += (by ? value_number(row, by) - point->by : NAN) / n;
    return 0;
}

static void finish_series(struct series *series) {
    for (size_t i = 0; i < series->n; i++) {
        struct point *point = &series->points[i];
        point->sd = point->n > 1 ? sqrt(point->sd / (double)(point->n - 1)) : 0;
    }
}

static int add_series(struct figure *figure, const json_t *description, const json_t *rows,
                      const char *label, const json_t *where, const char *by) {
    struct series series = {.label = strdup(label)};
    size_t i;
    const json_t *row;
    struct series *longer = realloc(figure->series, (figure->n + 1) * sizeof *longer);
    int result = longer && series.label ? 0 : -1;
    if (longer)
        figure->series = longer;
    json_array_foreach(rows, i, row) {
        if (!result && row_matches(row, where))
            result = add_row(&series, description, row, by);
    }
    finish_series(&series);
    if (!result && series.n) {
        figure->series[figure->n++] = series;
        return 0;
    }
    free(series.label);
    free(series.points);
    return result;
}

/* One series for each value found at the path. */
static int add_series_by_value(struct figure *figure, const json_t *description, const json_t *rows,
                               const char *by) {
    const char *path = value_string(description, "series.value");
    const char *name = value_string(description, "series.label");
    json_t *seen = json_array();
    size_t i, k;
    const json_t *row;
    int result = seen ? 0 : -1;
    json_array_foreach(rows, i, row) {
        json_t *value = (json_t *)value_at(row, path), *where = json_object();
        bool is_new = value && !json_is_null(value);
        for (k = 0; k < json_array_size(seen) && is_new; k++)
            is_new = !json_equal(json_array_get(seen, k), value);
        char number[LABEL_ROOM];
        struct buf label = {0};
        if (is_new) {
            buf_addf(&label, "%s%s%s", name, *name ? " " : "",
                     json_is_string(value) ? json_string_value(value)
                                           : figure_number(number, value_number(value, "")));
            if (result || !label.data || json_array_append(seen, value) ||
                json_object_set(where, path, value) ||
                add_series(figure, description, rows, label.data, where, by))
                result = -1;
        }
        buf_release(&label);
        json_decref(where);
    }
    json_decref(seen);
    return result;
}

static int add_all_series(struct figure *figure, const json_t *description, const json_t *rows,
                          const char *by) {
    const json_t *list = json_object_get(description, "series"), *one;
    size_t i;
    int result = 0;
    if (!list)
        return add_series(figure, description, rows, "", NULL, by);
    if (json_is_object(list))
        return add_series_by_value(figure, description, rows, by);
    json_array_foreach(list, i, one) {
        if (!result)
            result = add_series(figure, description, rows, value_string(one, "label"),
                                json_object_get(one, "where"), by);
    }
    return result;
}

static struct axis axis_of(const json_t *description, const char *name) {
    const json_t *axis = json_object_get(description, name);
    return (struct axis){value_string(axis, "label"), !strcmp(value_string(axis, "scale"), "log")};
}

int figure_build(struct figure *figure, const json_t *description, const json_t *rows,
                 const char *by) {
    *figure = (struct figure){.x = axis_of(description, "x"), .y = axis_of(description, "y")};
    figure->bars = !strcmp(value_string(description, "plot"), "bars");
    json_t *chosen = rows_matching(rows, json_object_get(description, "where"));
    int result = chosen ? add_all_series(figure, description, chosen, by) : -1;
    json_decref(chosen);
    return result;
}

void figure_release(struct figure *figure) {
    for (size_t i = 0; i < figure->n; i++) {
        free(figure->series[i].label);
        free(figure->series[i].points);
    }
    free(figure->series);
    *figure = (struct figure){0};
}

/* ---- Descriptions ---- */

static bool is_among(const char *text, const char *const *words) {
    for (; *words; words++)
        if (!strcmp(text, *words))
            return true;
    return false;
}

/* Members that nobody reads are misspelt ones. */
static bool knows_members(const json_t *object, const char *what, const char *const *names,
                          struct buf *fault) {
    const char *name;
    const json_t *member;
    json_object_foreach((json_t *)object, name, member) {
        if (is_among(name, names))
            continue;
        buf_addf(fault, "%s has a member '%s' that no figure knows", what, name);
        return false;
    }
    return true;
}

static bool is_valid_axis(const json_t *axis, const char *name, struct buf *fault) {
    static const char *const names[] = {"label", "value", "product", "scale", NULL};
    static const char *const scales[] = {"", "linear", "log", NULL};
    if (!*value_string(axis, "label") ||
        (!*value_string(axis, "value") && !json_array_size(value_at(axis, "product"))) ||
        !is_among(value_string(axis, "scale"), scales)) {
        buf_addf(fault,
                 "its axis %s needs a label, a value, and a scale that is linear or log "
                 "where it has one",
                 name);
        return false;
    }
    return knows_members(axis, name, names, fault);
}

static bool is_valid_series(const json_t *series, struct buf *fault) {
    static const char *const names[] = {"label", "value", "where", NULL};
    size_t i;
    const json_t *one;
    if (json_is_object(series) && !*value_string(series, "value")) {
        buf_add(fault, "its series need the path of a value");
        return false;
    }
    json_array_foreach(series, i, one) {
        if (*value_string(one, "label"))
            continue;
        buf_add(fault, "one of its series has no label");
        return false;
    }
    return !json_is_object(series) || knows_members(series, "series", names, fault);
}

bool figure_is_valid(const json_t *description, struct buf *fault) {
    static const char *const names[] = {"title", "claim", "remark", "rows", "where", "plot",
                                        "x",     "y",     "series", "rule", NULL};
    static const char *const sources[] = {"", "experiments", "epochs", "histogram", NULL};
    static const char *const plots[] = {"", "lines", "bars", "none", NULL};
    bool bars = !strcmp(value_string(description, "plot"), "bars");
    if (!*value_string(description, "title")) {
        buf_add(fault, "it has no title");
        return false;
    }
    if (!is_among(value_string(description, "rows"), sources) ||
        !is_among(value_string(description, "plot"), plots)) {
        buf_add(fault, "rows are experiments, epochs or histogram, plot is lines, bars or none");
        return false;
    }
    return knows_members(description, "it", names, fault) &&
           (bars || is_valid_axis(value_at(description, "x"), "x", fault)) &&
           is_valid_axis(value_at(description, "y"), "y", fault) &&
           is_valid_series(value_at(description, "series"), fault) &&
           (!value_at(description, "rule") || rule_is_valid(value_at(description, "rule"), fault));
}
