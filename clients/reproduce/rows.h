/* What was measured, as rows: JSON objects that figures, rules and CSV read by path.
 *
 * Rows of experiments are experiments as the API shows them, with "point" and "repeat" of their
 * sweep (both from 0; 0 for an experiment of its own). Rows of epochs have "id", "point", "repeat",
 * "spec" and the entry of the metrics as "epoch". Rows of histograms have "bin" instead: {"from",
 * "to", "share"}, the share of all activations between the edges; exact zeros are left out.
 *
 * A `where` is an object {path: wanted}: wanted is a scalar that has to be equal (null: nothing
 * stands there, or null), an array of such (one of them has to fit), or {"min": a, "max": b},
 * either of them optional and both included.
 */
#ifndef REPRODUCE_ROWS_H
#define REPRODUCE_ROWS_H

#include <jansson.h>
#include <stdbool.h>

struct buf;

/* where NULL or null: every row. */
bool row_matches(const json_t *row, const json_t *where);

/* A new array of the rows that match; NULL where memory runs out. rows NULL: none. */
json_t *rows_matching(const json_t *rows, const json_t *where);

/* All rows as CSV (RFC 4180): id, point, repeat, state, then every scalar below "result", "epoch"
 * and "bin", and those of "spec" that are not the same in all rows. A missing value is empty. */
void rows_csv(struct buf *csv, const json_t *rows);

#endif
