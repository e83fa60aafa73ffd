/* Text for people: growing strings, figures, tables, the terminal. */
#ifndef CLI_TEXT_H
#define CLI_TEXT_H

#include <stdbool.h>
#include <stddef.h>

/* A growing string, {0} at first. A failed allocation empties it for good and is remembered, so a
 * series of additions needs one check at its end. */
struct buf {
    char *data; /* NUL-terminated; NULL while nothing was added */
    size_t size, room;
    bool failed;
};

void buf_add(struct buf *buf, const char *text);
void buf_addf(struct buf *buf, const char *format, ...) __attribute__((format(printf, 2, 3)));
void buf_release(struct buf *buf);

/* Appends a path where each "{}" of the pattern stands for one more argument (const char *), which
 * is percent-escaped so that it stays one segment. */
void buf_path(struct buf *buf, const char *pattern, ...);

/* Appends "?name=value", or "&name=value" to a path that has a query. value NULL: nothing. */
void buf_query(struct buf *buf, const char *name, const char *value);

/* Copies text without what could drive a terminal: control characters and those that turn the
 * direction of writing become '?'. out has room for strlen(text) + 1. */
void text_clean(char *out, const char *text);

size_t text_columns(const char *text);             /* code points */
size_t text_cut(const char *text, size_t columns); /* bytes of its first `columns` code points */

/* Figures. NaN, which stands for null, is "-". Each returns `out`. */
enum { FIGURE_ROOM = 32 };
const char *text_fixed(char out[FIGURE_ROOM], double value, int decimals);
const char *text_figure(char out[FIGURE_ROOM], double value);     /* four significant digits */
const char *text_count(char out[FIGURE_ROOM], double value);      /* 12,345,678 */
const char *text_bytes(char out[FIGURE_ROOM], double value);      /* 12.3 MB */
const char *text_duration(char out[FIGURE_ROOM], double seconds); /* 2 min 51 s */
const char *text_clock(char out[FIGURE_ROOM], double seconds);    /* 2:51 */

/* Seconds since the epoch of an RFC 3339 time in UTC; NaN where it is none. */
double text_time(const char *rfc3339);

/* A bar `columns` wide, filled by share (0…1), with `rest` for the empty part ("" for none). */
void buf_bar(struct buf *buf, double share, size_t columns, const char *rest);

bool terminal_is(int fd);
size_t terminal_columns(int fd); /* $COLUMNS where set; 80 where it cannot be known */
bool terminal_utf8(void);

/* A table that is collected cell by cell, row after row, then printed with columns as wide as
 * they need to be. Cells are cleaned. At most one column is elastic: it is cut to fit a terminal;
 * after that the last columns are left out, so they are the least important ones. */
struct column {
    const char *title;
    bool right, elastic;
};
struct table {
    const struct column *columns;
    size_t n_columns;
    char **cells;
    size_t n_cells, room;
    bool failed;
};
void table_cell(struct table *table, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Prints to stdout and releases the table. Returns 0, or -1 where memory ran out. */
int table_print(struct table *table);

bool text_ends_with(const char *text, const char *end);

#endif
