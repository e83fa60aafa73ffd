/* Whether a claim holds: a rule that was written down before looking, applied to a figure.
 *
 *   {"kind": "rises", "correlation": 0.8, "change": 0.02, "where": {…}}
 *       In each series y goes up with x: Spearman's rank correlation is at least `correlation` and
 *       the last point lies more than `change` above the first: holds. The last not above the
 *       first, or a correlation not above 0: does not hold. Anything between: not decided.
 *   {"kind": "falls", …}  the same downwards.
 *   {"kind": "peak", "margin": 0.015, "where": {…}}
 *       In each series the highest y lies at neither end: more than `margin` above both ends:
 *       holds; less: not decided; at an end: does not hold.
 *   {"kind": "above" | "below", "bound": number, "at": "every" (default) | "last", "where": {…}}
 *       Every point of every series (or its last one) lies on that side of the bound.
 *   {"kind": "greater", "of": CHOICE, "than": CHOICE, "margin": 0.015}
 *       The one is more than `margin` above the other: holds; more than that below: does not hold;
 *       within: not decided.
 *   {"kind": "at_least", "of": CHOICE, "than": CHOICE, "margin": 0.015}
 *       The one is not more than `margin` below the other: holds, else does not hold.
 *   CHOICE: {"label", "where": {…}, "best_by": {"label", "value": path}, "best": "max" (default) |
 * "min"}: the best point of those that match, by y unless another value is named. "judged" says in
 * words what a rule's "where" leaves. A rule on series judges each of them: all hold: holds; one
 * does not: does not hold; else not decided. What a rule needs and nobody measured: not decided.
 */
#ifndef REPRODUCE_RULE_H
#define REPRODUCE_RULE_H

#include "clients/cli/text.h"

#include <jansson.h>
#include <stdbool.h>

enum verdict { REPORTED, HOLDS, DOES_NOT_HOLD, NOT_DECIDED };

struct judgement {
    enum verdict verdict;
    struct buf rule;    /* in words */
    struct buf finding; /* the figures it was judged by */
};

/* REPORTED where the description has no rule. Returns 0, or -1 where memory ran out. Release it in
 * any case. */
int rule_judge(struct judgement *judgement, const json_t *description, const json_t *rows);
void judgement_release(struct judgement *judgement);

const char *verdict_text(enum verdict verdict); /* "does not hold" */

/* As figure_is_valid(). */
bool rule_is_valid(const json_t *rule, struct buf *fault);

/* Spearman's rank correlation of x and y over n points; ties get their mean rank. NaN for n < 2 or
 * where one of them is constant. */
struct point;
double spearman(const struct point *points, size_t n);

#endif
