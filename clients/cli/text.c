#include "clients/cli/text.h"

#include <langinfo.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

/* Makes room for n more bytes and the NUL. */
static bool buf_grow(struct buf *buf, size_t n) {
    if (buf->failed)
        return false;
    if (n < buf->room - buf->size)
        return true;
    size_t room = 2 * (buf->size + n + 1);
    char *data = realloc(buf->data, room);
    if (!data) {
        buf_release(buf);
        buf->failed = true;
        return false;
    }
    buf->data = data;
    buf->room = room;
    return true;
}

static void buf_add_n(struct buf *buf, const char *bytes, size_t n) {
    if (!buf_grow(buf, n))
        return;
    memcpy(buf->data + buf->size, bytes, n);
    buf->size += n;
    buf->data[buf->size] = '\0';
}

void buf_add(struct buf *buf, const char *text) {
    buf_add_n(buf, text, strlen(text));
}

void buf_addf(struct buf *buf, const char *format, ...) {
    char *text = NULL;
    va_list args;
    va_start(args, format);
    int n = vasprintf(&text, format, args);
    va_end(args);
    if (n < 0) {
        buf_release(buf);
        buf->failed = true;
        return;
    }
    buf_add_n(buf, text, (size_t)n);
    free(text);
}

void buf_release(struct buf *buf) {
    free(buf->data);
    *buf = (struct buf){0};
}

static void buf_escape(struct buf *buf, const char *text) {
    for (; *text; text++) {
        unsigned char byte = (unsigned char)*text;
        bool plain = (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') ||
                     (byte >= '0' && byte <= '9') || strchr("-._~:", byte);
        if (plain)
            buf_add_n(buf, text, 1);
        else
            buf_addf(buf, "%%%02X", byte);
    }
}

void buf_path(struct buf *buf, const char *pattern, ...) {
    va_list args;
    va_start(args, pattern);
    const char *hole;
    while ((hole = strstr(pattern, "{}"))) {
        buf_add_n(buf, pattern, (size_t)(hole - pattern));
        buf_escape(buf, va_arg(args, const char *));
        pattern = hole + 2;
    }
    buf_add(buf, pattern);
    va_end(args);
}

void buf_query(struct buf *buf, const char *name, const char *value) {
    if (!value)
        return;
    buf_add(buf, buf->data && strchr(buf->data, '?') ? "&" : "?");
    buf_add(buf, name);
    buf_add(buf, "=");
    buf_escape(buf, value);
}

/* The length of the UTF-8 sequence that text starts with, judged by its first byte and cut short
 * where it is broken off. */
static size_t sequence_length(const char *text) {
    unsigned char first = (unsigned char)*text;
    size_t n = first < 0xc0 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    for (size_t i = 1; i < n; i++)
        if (((unsigned char)text[i] & 0xc0) != 0x80)
            return i;
    return n;
}

static bool drives_terminal(const char *text, size_t n) {
    const unsigned char *byte = (const unsigned char *)text;
    if (n == 1)
        return byte[0] < 0x20 || byte[0] >= 0x7f; /* a lone byte ≥ 0x80 is no UTF-8 */
    if (n == 2)
        return byte[0] == 0xc2 && byte[1] < 0xa0; /* C1 */
    if (n == 3 && byte[0] == 0xe2 && byte[1] == 0x80)
        return byte[2] >= 0xa8 && byte[2] <= 0xae; /* line separators, U+202A…202E */
    return n == 3 && byte[0] == 0xe2 && byte[1] == 0x81 && byte[2] >= 0xa6 && byte[2] <= 0xa9;
}

void text_clean(char *out, const char *text) {
    while (*text) {
        size_t n = sequence_length(text);
        if (drives_terminal(text, n)) {
            *out++ = '?';
        } else {
            memmove(out, text, n); /* out may be text itself */
            out += n;
        }
        text += n;
    }
    *out = '\0';
}

size_t text_columns(const char *text) {
    size_t columns = 0;
    for (; *text; text++)
        columns += ((unsigned char)*text & 0xc0) != 0x80;
    return columns;
}

size_t text_cut(const char *text, size_t columns) {
    size_t n = 0;
    for (; columns > 0 && text[n]; columns--)
        n += sequence_length(text + n);
    return n;
}

const char *text_fixed(char out[FIGURE_ROOM], double value, int decimals) {
    if (isfinite(value) && fabs(value) < 1e15)
        snprintf(out, FIGURE_ROOM, "%.*f", decimals, value);
    else
        text_figure(out, value);
    return out;
}

const char *text_figure(char out[FIGURE_ROOM], double value) {
    if (isnan(value))
        snprintf(out, FIGURE_ROOM, "-");
    else
        snprintf(out, FIGURE_ROOM, "%.4g", value);
    return out;
}

const char *text_count(char out[FIGURE_ROOM], double value) {
    char digits[FIGURE_ROOM];
    if (!(value >= 0 && value < 1e15))
        return text_figure(out, value);
    int n = snprintf(digits, sizeof digits, "%.0f", value), at = 0;
    for (int i = 0; i < n; i++) {
        if (i > 0 && (n - i) % 3 == 0)
            out[at++] = ',';
        out[at++] = digits[i];
    }
    out[at] = '\0';
    return out;
}

const char *text_bytes(char out[FIGURE_ROOM], double value) {
    static const char *const units[] = {"bytes", "kB", "MB", "GB", "TB"};
    size_t unit = 0;
    if (!isfinite(value))
        return text_figure(out, value);
    for (; value >= 1000 && unit + 1 < sizeof units / sizeof *units; unit++)
        value /= 1000;
    snprintf(out, FIGURE_ROOM, "%.*f %s", unit && value < 100 ? 1 : 0, value, units[unit]);
    return out;
}

const char *text_duration(char out[FIGURE_ROOM], double seconds) {
    if (!isfinite(seconds) || seconds < 0 || seconds > 1e12)
        return text_figure(out, NAN);
    long s = (long)seconds;
    if (s < 10)
        snprintf(out, FIGURE_ROOM, "%.1f s", seconds);
    else if (s < 60)
        snprintf(out, FIGURE_ROOM, "%ld s", s);
    else if (s < 3600)
        snprintf(out, FIGURE_ROOM, "%ld min %ld s", s / 60, s % 60);
    else if (s < 86400)
        snprintf(out, FIGURE_ROOM, "%ld h %ld min", s / 3600, s / 60 % 60);
    else
        snprintf(out, FIGURE_ROOM, "%ld d %ld h", s / 86400, s / 3600 % 24);
    return out;
}

const char *text_clock(char out[FIGURE_ROOM], double seconds) {
    if (!isfinite(seconds) || seconds < 0 || seconds > 1e9)
        return text_figure(out, NAN);
    long s = (long)ceil(seconds);
    if (s < 3600)
        snprintf(out, FIGURE_ROOM, "%ld:%02ld", s / 60, s % 60);
    else
        snprintf(out, FIGURE_ROOM, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
    return out;
}

double text_time(const char *rfc3339) {
    struct tm tm = {0};
    const char *rest = strptime(rfc3339, "%Y-%m-%dT%H:%M:%S", &tm);
    if (!rest)
        return NAN;
    double fraction = *rest == '.' ? strtod(rest, NULL) : 0;
    return (double)timegm(&tm) + fraction;
}

void buf_bar(struct buf *buf, double share, size_t columns, const char *rest) {
    static const char *const eighths[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
    bool utf8 = terminal_utf8();
    if (!(share > 0))
        share = 0;
    if (share > 1)
        share = 1;
    /* Plain bars are rounded to whole characters, fine ones to eighths; what is not nothing
     * leaves a mark. */
    size_t parts = utf8 ? 8 : 1, fill = (size_t)lround(share * (double)(columns * parts));
    if (!fill && share > 0)
        fill = 1;
    for (size_t i = 0; i < fill / parts; i++)
        buf_add(buf, utf8 ? "█" : "#");
    size_t used = fill / parts;
    if (fill % parts) {
        buf_add(buf, eighths[fill % parts]);
        used++;
    }
    for (; *rest && used < columns; used++)
        buf_add(buf, rest);
}

bool terminal_is(int fd) {
    return isatty(fd);
}

size_t terminal_columns(int fd) {
    struct winsize size;
    const char *said = getenv("COLUMNS");
    int columns = said ? atoi(said) : 0;
    if (columns > 0)
        return (size_t)columns;
    if (!ioctl(fd, TIOCGWINSZ, &size) && size.ws_col > 0)
        return size.ws_col;
    return 80;
}

bool terminal_utf8(void) {
    return !strcmp(nl_langinfo(CODESET), "UTF-8");
}

void table_cell(struct table *table, const char *format, ...) {
    if (table->n_cells == table->room) {
        size_t room = 2 * table->room + 64;
        char **cells = realloc(table->cells, room * sizeof *cells);
        if (!cells) {
            table->failed = true;
            return;
        }
        table->cells = cells;
        table->room = room;
    }
    char *cell = NULL;
    va_list args;
    va_start(args, format);
    int n = vasprintf(&cell, format, args);
    va_end(args);
    if (n < 0) {
        table->failed = true;
        return;
    }
    text_clean(cell, cell);
    table->cells[table->n_cells++] = cell;
}

/* The width of column c: its widest cell. */
static size_t column_width(const struct table *table, size_t c) {
    size_t width = text_columns(table->columns[c].title);
    for (size_t i = c; i < table->n_cells; i += table->n_columns) {
        size_t cell = text_columns(table->cells[i]);
        width = cell > width ? cell : width;
    }
    return width;
}

/* On a terminal, takes from the elastic column what the row has too much. Where that is not enough
 * the last columns are left out; *shown is how many there are. */
static void fit_to_terminal(const struct table *table, size_t *widths, size_t *shown) {
    enum { NARROWEST = 8 };
    size_t total = 0, room = terminal_columns(STDOUT_FILENO), elastic = table->n_columns;
    *shown = table->n_columns;
    if (!terminal_is(STDOUT_FILENO))
        return;
    for (size_t c = 0; c < table->n_columns; c++) {
        total += widths[c] + (c ? 2 : 0);
        if (table->columns[c].elastic)
            elastic = c;
    }
    if (elastic < table->n_columns && total > room) {
        size_t width = widths[elastic], excess = total - room;
        size_t least = width < NARROWEST ? width : NARROWEST;
        widths[elastic] = width > excess + least ? width - excess : least;
        total -= width - widths[elastic];
    }
    while (total > room && *shown > 1)
        total -= widths[--*shown] + 2;
}

static void print_cell(const char *text, size_t width, const struct column *column, bool last) {
    size_t columns = text_columns(text), bytes = strlen(text);
    const char *ellipsis = "";
    if (columns > width) {
        ellipsis = terminal_utf8() ? "…" : "~";
        bytes = text_cut(text, width - 1);
        columns = width;
    }
    int padding = (int)(width - columns);
    if (column->right)
        printf("%*s", padding, "");
    printf("%.*s%s", (int)bytes, text, ellipsis);
    if (!column->right && !last)
        printf("%*s", padding, "");
    fputs(last ? "\n" : "  ", stdout);
}

static void print_rows(const struct table *table, const size_t *widths, size_t shown) {
    size_t n = table->n_columns;
    for (size_t c = 0; c < shown; c++)
        print_cell(table->columns[c].title, widths[c], &table->columns[c], c + 1 == shown);
    for (size_t i = 0; i + n <= table->n_cells; i += n)
        for (size_t c = 0; c < shown; c++)
            print_cell(table->cells[i + c], widths[c], &table->columns[c], c + 1 == shown);
    if (shown < n)
        fprintf(stderr, "(too narrow for");
    for (size_t c = shown; c < n; c++)
        fprintf(stderr, "%s %s%s", c > shown ? "," : "", table->columns[c].title,
                c + 1 == n ? ")\n" : "");
}

int table_print(struct table *table) {
    size_t *widths = calloc(table->n_columns, sizeof *widths), shown;
    int result = widths && !table->failed ? 0 : -1;
    if (!result) {
        for (size_t c = 0; c < table->n_columns; c++)
            widths[c] = column_width(table, c);
        fit_to_terminal(table, widths, &shown);
        print_rows(table, widths, shown);
    }
    for (size_t i = 0; i < table->n_cells; i++)
        free(table->cells[i]);
    free(table->cells);
    free(widths);
    *table = (struct table){0};
    return result;
}

bool text_ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && !strcmp(text + n - m, end);
}
