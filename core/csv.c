#include "core/intake.h"
#include "core/utf8.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum {
    RECORD_MAX = 32 << 20, /* bytes of a line */
    HASH_SIZE = 2 * CLASSES_MAX,
    NAMES_MAX = 1 << 20, /* bytes of all column names; more are not kept */
};

struct csv {
    struct rowfile_writer *writer;
    char label[NAME_MAX_BYTES + 1];
    int header;
    char *record; /* the line that is arriving */
    size_t used, room;
    int quoted, after_cr;
    uint64_t line, record_line; /* from 1: where we are, where the record began */
    char separator;             /* 0: the first line has not come yet */
    char **fields;              /* of the record, in it */
    size_t n_fields, fields_room, n_columns, label_column, n_rows;
    float *row;
    char *names; /* of the features */
    size_t names_bytes;
    char *classes[CLASSES_MAX]; /* label texts in the order in which they came */
    size_t n_classes;
    uint16_t hash[HASH_SIZE]; /* number of a class + 1, or 0 */
    uint16_t numbers[CLASSES_MAX];
    char *class_names;
    size_t class_bytes;
};

int csv_new(struct csv **out, const struct intake_config *config, struct rowfile_writer *writer,
            struct ovr_err *err) {
    size_t n = config->label ? strlen(config->label) : 0;
    if (n == 0 || n > NAME_MAX_BYTES)
        return ovr_fail(err, OVR_INVALID, "label",
                        "csv needs label=: the name of the column with the labels, its number "
                        "(from 0), or last");
    struct csv *csv = calloc(1, sizeof *csv);
    if (!csv)
        return ovr_nomem(err, "a table");
    csv->writer = writer;
    csv->header = config->header;
    csv->line = csv->record_line = 1;
    memcpy(csv->label, config->label, n + 1);
    *out = csv;
    return 0;
}

void csv_free(struct csv *csv) {
    if (!csv)
        return;
    for (size_t i = 0; i < csv->n_classes; i++)
        free(csv->classes[i]);
    free(csv->record);
    free(csv->fields);
    free(csv->row);
    free(csv->names);
    free(csv->class_names);
    free(csv);
}

static int fail_line(const struct csv *csv, struct ovr_err *err, const char *what) {
    return ovr_fail(err, OVR_INVALID, "", "line %llu %s", (unsigned long long)csv->record_line,
                    what);
}

/* ---- Fields ---- */

/* The separator that is most often outside of quotes. */
static char find_separator(const char *record) {
    static const char candidates[] = ",;\t";
    size_t count[3] = {0}, best = 0;
    int quoted = 0;
    for (; *record; record++) {
        const char *at = strchr(candidates, *record);
        quoted ^= *record == '"';
        if (at && !quoted)
            count[at - candidates]++;
    }
    for (size_t i = 1; i < 3; i++)
        best = count[i] > count[best] ? i : best;
    return candidates[best];
}

/* Ends the field at *at with a NUL and moves *at behind its separator, or to NULL after the last
 * one. Quotes are taken away. */
static char *cut_field(const struct csv *csv, char **at, struct ovr_err *err) {
    char *from = *at + strspn(*at, " "), *to = from, *end;
    if (*from != '"') {
        end = from + strcspn(from, (char[]){csv->separator, '"', '\0'});
        if (*end == '"') {
            fail_line(csv, err,
                      "has a quote inside a field; put the whole field into quotes and "
                      "double those in it");
            return NULL;
        }
        for (to = end; to > from && to[-1] == ' ';)
            to--;
    } else {
        for (end = ++from, to = from; *end && (*end != '"' || end[1] == '"'); end++) {
            end += *end == '"';
            *to++ = *end;
        }
        end += *end == '"'; /* the record ended outside of quotes, so this one is there */
        end += strspn(end, " ");
        if (*end && *end != csv->separator) {
            fail_line(csv, err, "has something behind a closing quote");
            return NULL;
        }
    }
    *at = *end ? end + 1 : NULL;
    *to = '\0';
    return from;
}

static int split(struct csv *csv, struct ovr_err *err) {
    char *at = csv->record;
    csv->n_fields = 0;
    while (at) {
        if (csv->n_fields > VALUES_MAX)
            return ovr_fail(err, OVR_INVALID, "", "line %llu has more than %d columns",
                            (unsigned long long)csv->record_line, VALUES_MAX + 1);
        if (csv->n_fields == csv->fields_room) {
            size_t room = csv->fields_room ? 2 * csv->fields_room : 64;
            char **more = realloc(csv->fields, room * sizeof *more);
            if (!more)
                return ovr_nomem(err, "a line of a table");
            csv->fields = more;
            csv->fields_room = room;
        }
        char *field = cut_field(csv, &at, err);
        if (!field)
            return OVR_INVALID;
        csv->fields[csv->n_fields++] = field;
    }
    return 0;
}

static int is_number(const char *text, double *value) {
    char *end;
    if (!*text || text[strspn(text, "+-.0123456789eE")])
        return 0;
    *value = strtod(text, &end);
    return *end == '\0';
}

/* ---- The first line ---- */

/* "3" → 3; n_columns for what is not such a number or too large. */
static size_t column_number(const struct csv *csv) {
    if (csv->label[strspn(csv->label, "0123456789")] || strlen(csv->label) > 9)
        return csv->n_columns;
    return min_size(strtoul(csv->label, NULL, 10), csv->n_columns);
}

static int find_label_column(struct csv *csv, struct ovr_err *err) {
    size_t found = 0;
    if (strcmp(csv->label, "last") == 0) {
        csv->label_column = csv->n_columns - 1;
        return 0;
    }
    for (size_t i = 0; csv->header && i < csv->n_columns; i++)
        if (strcmp(csv->fields[i], csv->label) == 0 && found++ == 0)
            csv->label_column = i;
    if (found > 1)
        return ovr_fail(err, OVR_INVALID, "label",
                        "%zu columns are called \"%.60s\"; name the label's by its number", found,
                        csv->label);
    if (!found)
        csv->label_column = column_number(csv);
    if (csv->label_column < csv->n_columns)
        return 0;
    return ovr_fail(
        err, OVR_INVALID, "label",
        "there is no column \"%.60s\" for the labels; give %s, a number 0..%zu, or last",
        csv->label, csv->header ? "a name from the first line" : "header=true with a name",
        csv->n_columns - 1);
}

/* How tables write a value that is not there. */
static int is_missing(const char *text) {
    static const char *const words[] = {"",  "nan",      "na",  "n/a",  "null",
                                        "?", "infinity", "inf", "-inf", "none"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcasecmp(text, words[i]) == 0)
            return 1;
    return 0;
}

/* Most fields of a line of names are words. A row with a few is a row with faults, and is told so.
 */
static int looks_like_header(const struct csv *csv) {
    size_t label = strcmp(csv->label, "last") ? column_number(csv) : csv->n_columns - 1, words = 0;
    double value;
    if (label == csv->n_columns)
        return 1; /* the label's column has a name */
    for (size_t i = 0; i < csv->n_columns; i++)
        words += i != label && !is_number(csv->fields[i], &value) && !is_missing(csv->fields[i]);
    return 2 * words > csv->n_columns - 1;
}

static int keep_names(struct csv *csv, struct ovr_err *err) {
    size_t bytes = 0;
    for (size_t i = 0; i < csv->n_columns; i++) {
        if (!utf8_is_valid(csv->fields[i]))
            return fail_line(csv, err, "has a name that is not UTF-8");
        bytes += strlen(csv->fields[i]) + 1;
    }
    if (bytes > NAMES_MAX)
        return 0;
    csv->names = malloc(bytes);
    if (!csv->names)
        return ovr_nomem(err, "names of columns");
    for (size_t i = 0; i < csv->n_columns; i++) {
        size_t n = strlen(csv->fields[i]) + 1;
        if (i == csv->label_column)
            continue;
        memcpy(csv->names + csv->names_bytes, csv->fields[i], n);
        csv->names_bytes += n;
    }
    return 0;
}

static int read_first(struct csv *csv, struct ovr_err *err) {
    csv->n_columns = csv->n_fields;
    if (csv->n_columns < 2)
        return fail_line(csv, err,
                         "has one column; a table needs a label and at least one value, with "
                         "commas, semicolons or tabs between them");
    if (csv->header < 0)
        csv->header = looks_like_header(csv);
    csv->row = ovr_malloc(csv->n_columns, sizeof *csv->row);
    if (!csv->row)
        return ovr_nomem(err, "a line of a table");
    int rc = find_label_column(csv, err);
    return rc || !csv->header ? rc : keep_names(csv, err);
}

/* ---- Rows ---- */

static uint32_t hash_of(const char *text) {
    uint32_t hash = 2166136261u; /* FNV-1a */
    for (; *text; text++)
        hash = (hash ^ (unsigned char)*text) * 16777619u;
    return hash;
}

static int read_label(struct csv *csv, const char *text, struct ovr_err *err) {
    uint32_t at = hash_of(text) % HASH_SIZE;
    for (; csv->hash[at]; at = (at + 1) % HASH_SIZE)
        if (strcmp(csv->classes[csv->hash[at] - 1], text) == 0)
            return rowfile_put_label(csv->writer, (uint16_t)(csv->hash[at] - 1), err);
    if (!*text)
        return fail_line(csv, err, "has no label");
    if (strlen(text) > NAME_MAX_BYTES || !utf8_is_valid(text))
        return fail_line(csv, err, "has a label that is longer than 255 bytes or not UTF-8");
    if (csv->n_classes == CLASSES_MAX)
        return ovr_fail(err, OVR_INVALID, "label",
                        "line %llu has label number %d; are the labels in column \"%.60s\"? At "
                        "most %d classes are taken",
                        (unsigned long long)csv->record_line, CLASSES_MAX + 1, csv->label,
                        CLASSES_MAX);
    char *copy = strdup(text);
    if (!copy)
        return ovr_nomem(err, "names of classes");
    csv->classes[csv->n_classes++] = copy;
    csv->hash[at] = (uint16_t)csv->n_classes;
    return rowfile_put_label(csv->writer, (uint16_t)(csv->n_classes - 1), err);
}

static const char *name_of(const struct csv *csv, size_t column) {
    const char *name = csv->names;
    if (!name)
        return "";
    for (size_t i = 0; i < column; i++)
        if (i != csv->label_column)
            name += strlen(name) + 1;
    return name;
}

static int fail_value(const struct csv *csv, size_t column, struct ovr_err *err) {
    const char *text = csv->fields[column], *name = name_of(csv, column);
    double value;
    int number = is_number(text, &value);
    return ovr_fail(err, OVR_INVALID, "", "line %llu, column %zu%s%.60s%s: %s%.40s%s %s",
                    (unsigned long long)csv->record_line, column + 1, *name ? " (" : "", name,
                    *name ? ")" : "", *text ? "\"" : "", *text ? text : "an empty field",
                    *text ? "\"" : "",
                    number ? "is too large for a 32-bit number" : "is not a finite number");
}

static int read_row(struct csv *csv, struct ovr_err *err) {
    size_t n = 0;
    double value;
    if (csv->n_fields != csv->n_columns)
        return ovr_fail(err, OVR_INVALID, "", "line %llu has %zu columns, the first line has %zu",
                        (unsigned long long)csv->record_line, csv->n_fields, csv->n_columns);
    for (size_t i = 0; i < csv->n_columns; i++) {
        if (i == csv->label_column)
            continue;
        if (!is_number(csv->fields[i], &value) || !isfinite((float)value))
            return fail_value(csv, i, err);
        csv->row[n++] = (float)value;
    }
    if (csv->n_rows == UINT32_MAX)
        return ovr_fail(err, OVR_TOO_LARGE, "", "more than %u lines", UINT32_MAX);
    csv->n_rows++;
    int rc = rowfile_put_floats(csv->writer, csv->row, n, err);
    return rc ? rc : read_label(csv, csv->fields[csv->label_column], err);
}

static int end_record(struct csv *csv, struct ovr_err *err) {
    int first = !csv->separator, rc = 0;
    if (csv->used == 0)
        return 0;
    csv->record[csv->used] = '\0';
    if (first) {
        if (strncmp(csv->record, "\xef\xbb\xbf", 3) == 0) /* a byte order mark */
            memmove(csv->record, csv->record + 3, csv->used - 2);
        csv->separator = find_separator(csv->record);
    }
    rc = split(csv, err);
    if (!rc && first)
        rc = read_first(csv, err);
    if (!rc && !(first && csv->header))
        rc = read_row(csv, err);
    csv->used = 0;
    return rc;
}

static int append(struct csv *csv, char c, struct ovr_err *err) {
    if (c == '\0')
        return fail_line(csv, err, "has a byte 0: this is not a table of text");
    if (csv->used == 0)
        csv->record_line = csv->line;
    if (csv->used + 1 >= csv->room) {
        if (csv->room >= RECORD_MAX)
            return fail_line(csv, err,
                             "is longer than 32 MiB; is a quote opened there and never closed?");
        size_t room = csv->room ? 2 * csv->room : 4096;
        char *more = realloc(csv->record, room);
        if (!more)
            return ovr_nomem(err, "a line of a table");
        csv->record = more;
        csv->room = room;
    }
    csv->record[csv->used++] = c;
    csv->quoted ^= c == '"';
    return 0;
}

int csv_write(struct csv *csv, const char *bytes, size_t n, struct ovr_err *err) {
    int rc = 0;
    for (size_t i = 0; !rc && i < n; i++) {
        char c = bytes[i];
        int ends = c == '\n' || c == '\r';
        rc = ends && !csv->quoted ? end_record(csv, err) : append(csv, c, err);
        csv->line += ends && !(c == '\n' && csv->after_cr);
        csv->after_cr = c == '\r';
    }
    return rc;
}

/* ---- The end ---- */

static int by_name(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Labels that are all numbers of classes stay. */
static int take_numbers(struct csv *csv, size_t *n_classes) {
    size_t most = 0;
    double value;
    for (size_t i = 0; i < csv->n_classes; i++) {
        if (!is_number(csv->classes[i], &value) || value < 0 || value >= CLASSES_MAX ||
            value != floor(value))
            return 0;
        csv->numbers[i] = (uint16_t)value;
        most = value > (double)most ? (size_t)value : most;
    }
    *n_classes = most + 1;
    return 1;
}

/* Numbers for the classes by the order of their names. */
static int sort_names(struct csv *csv, struct ovr_err *err) {
    size_t n = csv->n_classes, bytes = 0;
    char **sorted = malloc(n * sizeof *sorted);
    for (size_t i = 0; i < n; i++)
        bytes += strlen(csv->classes[i]) + 1;
    csv->class_names = malloc(bytes);
    if (!sorted || !csv->class_names) {
        free(sorted);
        return ovr_nomem(err, "names of classes");
    }
    memcpy(sorted, csv->classes, n * sizeof *sorted);
    qsort(sorted, n, sizeof *sorted, by_name);
    for (size_t i = 0; i < n; i++) {
        char **at = bsearch(&csv->classes[i], sorted, n, sizeof *sorted, by_name);
        csv->numbers[i] = (uint16_t)(at - sorted);
    }
    for (size_t i = 0; i < n; i++) {
        size_t length = strlen(sorted[i]) + 1;
        memcpy(csv->class_names + csv->class_bytes, sorted[i], length);
        csv->class_bytes += length;
    }
    free(sorted);
    return 0;
}

int csv_finish(struct csv *csv, struct rowfile_end *end, struct ovr_err *err) {
    if (csv->quoted)
        return fail_line(csv, err, "opens a quote that is never closed");
    int rc = end_record(csv, err);
    if (rc)
        return rc;
    if (!csv->n_rows)
        return ovr_fail(err, OVR_INVALID, "", "the table has no rows%s",
                        csv->separator ? " beside its line of names" : "");
    size_t n_classes = csv->n_classes;
    if (!take_numbers(csv, &n_classes))
        rc = sort_names(csv, err);
    *end = (struct rowfile_end){.n = csv->n_rows,
                                .d = csv->n_columns - 1,
                                .n_classes = n_classes,
                                .numbers = csv->numbers,
                                .class_names = csv->class_names,
                                .class_bytes = csv->class_bytes,
                                .feature_names = csv->names,
                                .feature_bytes = csv->names_bytes};
    return rc;
}
