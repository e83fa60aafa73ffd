/* A figure of a report: which rows it shows, and what they say once they are grouped.
 *
 * Its description is data, examples/figures/<id>.json:
 *   {"title": text, "figures": [FIGURE, …]}
 *   FIGURE: {"title", "claim": as the paper has it, "remark": what else to know,
 *            "rows": "experiments" (default) | "epochs" | "histogram", "where": {…} (rows.h),
 *            "plot": "lines" (default) | "bars", one for each series | "none", the claim alone,
 *            "x": {"label", "value": path, "product": [{"value": path, "plus": number}, …] instead
 *                  of value, "scale": "linear" (default) | "log"}, not for bars,
 *            "y": {"label", "value": path, "scale"},
 *            "series": [{"label", "where"}, …] or {"label", "value": path}: one for each value,
 *            "rule": {…} (rule.h)}
 * Rows with the same series and the same x are one point: the mean of y and its standard
 * deviation. Rows without a number at x or y are left out.
 */
#ifndef REPRODUCE_FIGURE_H
#define REPRODUCE_FIGURE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

struct buf;

struct point {
    double x, y; /* x: 0 for bars */
    double sd;   /* of y, with n − 1 below the sum; 0 for n = 1 */
    double by;   /* mean of what figure_build() was asked for besides; NaN without */
    size_t n;    /* rows */
};

struct series {
    char *label;
    struct point *points; /* by rising x */
    size_t n;
};

struct axis {
    const char *label;
    bool log;
};

struct figure {
    struct axis x, y; /* borrowed from the description */
    bool bars;
    struct series *series; /* those that have a point, in the description's order */
    size_t n;
};

/* `by` is a path or NULL. Returns 0, or -1 where memory ran out. Release it in any case. */
int figure_build(struct figure *figure, const json_t *description, const json_t *rows,
                 const char *by);
void figure_release(struct figure *figure);

/* What is wrong with a description, as a sentence in `fault`; true where nothing is. */
bool figure_is_valid(const json_t *description, struct buf *fault);

/* A number as people write it: 0.0005, 1e-5, 12. */
enum { LABEL_ROOM = 32 };
const char *figure_number(char out[LABEL_ROOM], double value);

#endif
