#include "api/reports.h"

#include "core/train.h"
#include "server/weights.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* No more of each than a report can need. */
enum {
    MOST_EPOCHS = 64,
    MOST_EPOCH = 1000000,
    MOST_FIGURES = 192,
    MOST_HISTOGRAMS = LAYERS_MAX,
    MOST_LINES = 64,
    MOST_NUMBER = 1000000000, /* epochs, rows, threads, milliseconds of a run / 1000 */
    SHORT = 64,
    TEXT = 256,
    LINE = 500
};

struct block {
    struct block *next;
    _Alignas(16) char bytes[];
};

/* One reading; it ends with its first fault. */
struct reading {
    struct received *into;
    struct ovr_err *err;
};

/* Where: a JSON pointer, composed as printf() does. */
typedef char where[100];

static int refuse(const struct reading *in, const char *at, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static int refuse(const struct reading *in, const char *at, const char *format, ...) {
    char text[300];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return ovr_fail(in->err, OVR_INVALID, *at ? at : "/", "%s %s", *at ? at : "the report", text);
}

static void *take(const struct reading *in, size_t n, size_t size) {
    struct block *block = calloc(1, sizeof *block + n * size);
    if (!block) {
        ovr_nomem(in->err, "a report");
        return NULL;
    }
    block->next = in->into->blocks;
    in->into->blocks = block;
    return block->bytes;
}

void received_release(struct received *received) {
    for (struct block *block = received->blocks, *next; block; block = next) {
        next = block->next;
        free(block);
    }
    received->blocks = NULL;
}

/* Members of an object by their types, as json_unpack() has them; "!" at the end of the format
 * makes any other member a fault. */
static int unpack(const struct reading *in, const char *at, json_t *json, const char *format, ...) {
    json_error_t error;
    va_list args;
    va_start(args, format);
    int failed = json_vunpack_ex(json, &error, 0, format, args);
    va_end(args);
    return failed ? refuse(in, at, "is not as docs/worker.md has it: %s", error.text) : 0;
}

/* Text without control characters; UTF-8 it is by the JSON. */
static int check_text(const struct reading *in, const char *at, const char *text, size_t most) {
    size_t n = strlen(text);
    if (n == 0 || n > most)
        return refuse(in, at, "must have 1 to %zu bytes, not %zu", most, n);
    for (const char *c = text; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            return refuse(in, at, "must be without control characters");
    return 0;
}

static int check_number(const struct reading *in, const char *at, json_int_t number,
                        json_int_t least, json_int_t most) {
    if (number >= least && number <= most)
        return 0;
    return refuse(in, at, "must be %lld to %lld, not %lld", (long long)least, (long long)most,
                  (long long)number);
}

/* The same into an int. */
static int keep_number(const struct reading *in, const char *at, json_int_t number,
                       json_int_t least, json_int_t most, int *to) {
    int rc = check_number(in, at, number, least, most);
    *to = rc ? 0 : (int)number;
    return rc;
}

/* A list that may not be there (NULL): *n, and room for its items. */
static int open_list(const struct reading *in, const char *at, const json_t *json, size_t most,
                     size_t size, size_t *n, void *items) {
    void *room = NULL;
    *n = json_array_size(json);
    if (json && !json_is_array(json))
        return refuse(in, at, "must be an array");
    if (*n > most)
        return refuse(in, at, "has %zu items, %zu is the most", *n, most);
    if (*n && !(room = take(in, *n, size)))
        return OVR_NOMEM;
    memcpy(items, &room, sizeof room);
    return 0;
}

/* ---- Figures ---- */

/* Lower-case words between dots: they nest in the JSON that people get. */
static int is_figure_name(const char *name) {
    size_t n = strlen(name);
    return n >= 1 && n <= SHORT && name[0] != '.' && name[n - 1] != '.' && !strstr(name, "..") &&
           strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_.") == n;
}

/* Names that json_put_figure() and the verdict of a replay need for themselves. */
static int is_taken(const char *name) {
    return strcmp(name, "nonfinite") == 0 || strncmp(name, "replay", 6) == 0;
}

/* Whether they can't both be members: the same, or the one is an object that holds the other. */
static int clash(const char *a, const char *b) {
    size_t n = strlen(a);
    return strncmp(a, b, n) == 0 && (b[n] == '\0' || b[n] == '.');
}

static int read_value(const struct reading *in, const char *at, const json_t *number,
                      const json_t *count, const json_t *text, struct figure *figure) {
    if ((number != NULL) + (count != NULL) + (text != NULL) != 1)
        return refuse(in, at, "must have one of real, count and text");
    figure->real = NAN;
    if (number && !json_is_null(number)) {
        if (!json_is_number(number))
            return refuse(in, at, "has a real that is neither a number nor null");
        figure->real = json_number_value(number);
    } else if (count) {
        figure->kind = FIGURE_COUNT;
        figure->count = json_integer_value(count);
        if (!json_is_integer(count) || figure->count < 0)
            return refuse(in, at, "has a count that is no whole number from 0");
    } else if (text) {
        figure->kind = FIGURE_TEXT;
        figure->text = json_string_value(text);
        if (!figure->text)
            return refuse(in, at, "has a text that is none");
        return check_text(in, at, figure->text, TEXT);
    }
    return 0;
}

static int read_figure(const struct reading *in, const char *at, json_t *json,
                       struct figure *figure) {
    const json_t *number = NULL, *count = NULL, *text = NULL;
    int rc = unpack(in, at, json, "{s:s, s?o, s?o, s?o !}", "name", &figure->name, "real", &number,
                    "count", &count, "text", &text);
    if (rc)
        return rc;
    if (!is_figure_name(figure->name) || is_taken(figure->name))
        return refuse(in, at, "has a name that no figure has: %.80s", figure->name);
    return read_value(in, at, number, count, text, figure);
}

static int read_figures(const struct reading *in, const char *at, const json_t *json,
                        const struct figure **figures, size_t *n) {
    struct figure *list;
    int rc = open_list(in, at, json, MOST_FIGURES, sizeof *list, n, &list);
    *figures = rc ? NULL : list;
    for (size_t i = 0; !rc && i < *n; i++) {
        where here;
        snprintf(here, sizeof here, "%.70s/%zu", at, i);
        rc = read_figure(in, here, json_array_get(json, i), &list[i]);
        for (size_t k = 0; !rc && k < i; k++)
            if (clash(list[k].name, list[i].name) || clash(list[i].name, list[k].name))
                rc = refuse(in, here, "has a name that clashes with %s", list[k].name);
    }
    return rc;
}

/* ---- Histograms ---- */

static int read_counts(const struct reading *in, const char *at, const json_t *json,
                       json_int_t zero_count, json_int_t total, struct histogram *h) {
    uint64_t sum = h->zero_count = (uint64_t)zero_count;
    h->total = (uint64_t)total;
    if (json_array_size(json) != HISTOGRAM_BINS)
        return refuse(in, at, "must have counts of %d bins", HISTOGRAM_BINS);
    for (size_t i = 0; i < HISTOGRAM_BINS; i++) {
        const json_t *count = json_array_get(json, i);
        if (!json_is_integer(count) || json_integer_value(count) < 0)
            return refuse(in, at, "has a count that is no whole number from 0");
        h->counts[i] = (uint64_t)json_integer_value(count);
        if (h->counts[i] > h->total)
            return refuse(in, at, "has a count above its total");
        sum += h->counts[i];
    }
    return sum == h->total ? 0 : refuse(in, at, "has counts that do not add up to its total");
}

static int is_split(const char *name) {
    return strcmp(name, "train") == 0 || strcmp(name, "validation") == 0 ||
           strcmp(name, "test") == 0;
}

static int read_histogram(const struct reading *in, const char *at, json_t *json, int epoch,
                          struct epoch_histogram *eh, struct histogram *h) {
    json_int_t layer, zero_count, total;
    const json_t *counts;
    *eh = (struct epoch_histogram){.epoch = epoch, .histogram = h};
    int rc = unpack(in, at, json, "{s:s, s:I, s:I, s:I, s:F, s:o !}", "split", &eh->split, "layer",
                    &layer, "zero_count", &zero_count, "total", &total, "maximum", &h->maximum,
                    "counts", &counts);
    if (!rc)
        rc = keep_number(in, at, layer, 0, LAYERS_MAX - 1, &eh->layer);
    if (!rc && (!is_split(eh->split) || !(h->maximum >= 0)))
        rc = refuse(in, at, "has a split or a maximum that there is not");
    if (!rc)
        rc = check_number(in, at, total, 0, INT64_MAX / 2);
    if (!rc)
        rc = check_number(in, at, zero_count, 0, total);
    return rc ? rc : read_counts(in, at, counts, zero_count, total, h);
}

static int read_histograms(const struct reading *in, const char *at, const json_t *json, int epoch,
                           const struct epoch_histogram **histograms, size_t *n) {
    struct epoch_histogram *list;
    struct histogram *counts;
    int rc = open_list(in, at, json, MOST_HISTOGRAMS, sizeof *list, n, &list);
    if (!rc)
        rc = open_list(in, at, json, MOST_HISTOGRAMS, sizeof *counts, n, &counts);
    *histograms = rc ? NULL : list;
    for (size_t i = 0; !rc && i < *n; i++) {
        where here;
        snprintf(here, sizeof here, "%.70s/%zu", at, i);
        rc = read_histogram(in, here, json_array_get(json, i), epoch, &list[i], &counts[i]);
    }
    return rc;
}

/* ---- Epochs, lines, progress ---- */

static int read_epoch(const struct reading *in, const char *at, json_t *json,
                      struct report_epoch *epoch) {
    const json_t *figures = NULL, *histograms = NULL;
    json_int_t number;
    where here;
    int rc = unpack(in, at, json, "{s:I, s:o, s?o !}", "epoch", &number, "figures", &figures,
                    "histograms", &histograms);
    if (!rc)
        rc = keep_number(in, at, number, 1, MOST_EPOCH, &epoch->number);
    snprintf(here, sizeof here, "%.60s/figures", at);
    if (!rc)
        rc = read_figures(in, here, figures, &epoch->figures, &epoch->n_figures);
    snprintf(here, sizeof here, "%.60s/histograms", at);
    return rc ? rc
              : read_histograms(in, here, histograms, epoch->number, &epoch->histograms,
                                &epoch->n_histograms);
}

static int read_epochs(const struct reading *in, const json_t *json) {
    struct report *report = &in->into->report;
    struct report_epoch *list;
    int rc = open_list(in, "/epochs", json, MOST_EPOCHS, sizeof *list, &report->n_epochs, &list);
    report->epochs = rc ? NULL : list;
    for (size_t i = 0; !rc && i < report->n_epochs; i++) {
        where here;
        snprintf(here, sizeof here, "/epochs/%zu", i);
        rc = read_epoch(in, here, json_array_get(json, i), &list[i]);
        if (!rc && !list[i].n_figures)
            rc = refuse(in, here, "has no figures");
    }
    return rc;
}

static int read_line(const struct reading *in, const char *at, json_t *json,
                     struct report_line *line) {
    const char *level;
    int rc = unpack(in, at, json, "{s:s, s:s !}", "level", &level, "text", &line->text);
    if (rc)
        return rc;
    line->warning = strcmp(level, "warning") == 0;
    if (!line->warning && strcmp(level, "info") != 0)
        return refuse(in, at, "has a level other than info and warning");
    return check_text(in, at, line->text, LINE);
}

static int read_lines(const struct reading *in, const json_t *json) {
    struct report *report = &in->into->report;
    struct report_line *list;
    int rc = open_list(in, "/log", json, MOST_LINES, sizeof *list, &report->n_lines, &list);
    report->lines = rc ? NULL : list;
    for (size_t i = 0; !rc && i < report->n_lines; i++) {
        where here;
        snprintf(here, sizeof here, "/log/%zu", i);
        rc = read_line(in, here, json_array_get(json, i), &list[i]);
    }
    return rc;
}

static int read_progress(const struct reading *in, json_t *json) {
    static const char at[] = "/progress";
    struct progress *p = &in->into->progress;
    json_int_t phase, epoch, epochs, step, steps, samples, threads, memory_bytes;
    double seconds;
    int rc =
        unpack(in, at, json, "{s:I, s:I, s:I, s:I, s:I, s:I, s:F, s:I, s:I !}", "phase", &phase,
               "epoch", &epoch, "epochs", &epochs, "step", &step, "steps", &steps, "samples",
               &samples, "seconds", &seconds, "threads", &threads, "memory_bytes", &memory_bytes);
    if (!rc)
        rc = keep_number(in, "/progress/phase", phase, PHASE_PREPARING, PHASE_PROBING, &p->phase);
    if (!rc)
        rc = keep_number(in, "/progress/epoch", epoch, 0, MOST_EPOCH, &p->epoch);
    if (!rc)
        rc = keep_number(in, "/progress/epochs", epochs, 0, MOST_EPOCH, &p->epochs);
    if (!rc)
        rc = keep_number(in, "/progress/threads", threads, 0, MOST_EPOCH, &p->threads);
    if (rc)
        return rc;
    if (step < 0 || steps < 0 || samples < 0 || !(seconds >= 0) || memory_bytes < 0)
        return refuse(in, at, "has a negative number");
    p->step = (uint64_t)step;
    p->steps = (uint64_t)steps;
    progress_rate(p, (uint64_t)samples, seconds);
    return 0;
}

/* ---- The beginning, checkpoints ---- */

/* It may become an argument of a program, where it is not to be an option. */
static int is_word(const char *text, size_t most) {
    size_t n = strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-+");
    return n > 0 && n <= most && !text[n] && *text != '-';
}

static int read_begin(const struct reading *in, json_t *json) {
    static const char at[] = "/begin";
    struct report *report = &in->into->report;
    json_int_t cores;
    int rc = unpack(in, at, json, "{s:s, s:I, s?s !}", "node", &report->node, "cores", &cores,
                    "job", &report->job);
    if (!rc)
        rc = keep_number(in, "/begin/cores", cores, 1, 1000000, &report->cores);
    if (!rc && (!is_word(report->node, NODE_NAME_SIZE - 1) ||
                (report->job && !is_word(report->job, JOB_ID_SIZE - 1))))
        rc = refuse(in, at, "has a node or a job that is no name");
    return rc;
}

static int read_checkpoint(const struct reading *in, json_t *json) {
    static const char at[] = "/checkpoint";
    json_int_t number, computed_ms;
    int rc = unpack(in, at, json, "{s:I, s:I !}", "number", &number, "computed_ms", &computed_ms);
    if (!rc)
        rc = check_number(in, at, number, 1, MOST_NUMBER);
    if (!rc)
        rc = check_number(in, at, computed_ms, 0, INT64_C(1000) * MOST_NUMBER);
    in->into->report.checkpoint = rc ? 0 : number;
    in->into->report.computed_ms = rc ? 0 : computed_ms;
    return rc;
}

/* ---- The end ---- */

static int read_tensor(const struct reading *in, const char *at, json_t *json, struct tensor *t) {
    const char *epoch, *name, *dtype;
    json_int_t dimensions, rows, columns;
    int rc =
        unpack(in, at, json, "{s:s, s:s, s:s, s:I, s:I, s:I !}", "epoch", &epoch, "name", &name,
               "dtype", &dtype, "dimensions", &dimensions, "rows", &rows, "columns", &columns);
    if (!rc)
        rc = keep_number(in, at, dimensions, 1, 2, &t->dimensions);
    if (!rc)
        rc = check_number(in, at, rows, 1, MOST_NUMBER);
    if (!rc)
        rc = check_number(in, at, columns, 1, MOST_NUMBER);
    if (rc)
        return rc;
    if ((strcmp(epoch, "best") != 0 && strcmp(epoch, "last") != 0) ||
        strcmp(dtype, "float32") != 0 || !is_figure_name(name) || strlen(name) >= sizeof t->name ||
        t->dimensions < 1 || t->dimensions > 2 || (t->dimensions == 1 && columns != 1))
        return refuse(in, at, "is no tensor of float32 with a name, of best or last");
    snprintf(t->epoch, sizeof t->epoch, "%s", epoch);
    snprintf(t->name, sizeof t->name, "%s", name);
    t->dtype = "float32";
    t->rows = (size_t)rows;
    t->columns = (size_t)columns;
    return 0;
}

static int read_tensors(const struct reading *in, const json_t *json) {
    struct outcome *o = &in->into->outcome;
    struct tensor *list;
    int rc = open_list(in, "/end/tensors", json, MAX_TENSORS, sizeof *list, &o->n_tensors, &list);
    o->tensors = rc ? NULL : list;
    for (size_t i = 0; !rc && i < o->n_tensors; i++) {
        where here;
        snprintf(here, sizeof here, "/end/tensors/%zu", i);
        rc = read_tensor(in, here, json_array_get(json, i), &list[i]);
        for (size_t k = 0; !rc && k < i; k++)
            if (strcmp(list[k].epoch, list[i].epoch) == 0 &&
                strcmp(list[k].name, list[i].name) == 0)
                rc = refuse(in, here, "is there twice");
    }
    return rc || o->n_tensors ? rc : refuse(in, "/end/tensors", "is empty");
}

static int read_unit_table(const struct reading *in, const char *at, json_t *json,
                           struct unit_table *t) {
    const char *split;
    json_int_t layer, units, classes, cells;
    int rc = unpack(in, at, json, "{s:I, s:s, s:I, s:I, s:I !}", "layer", &layer, "split", &split,
                    "units", &units, "classes", &classes, "cells", &cells);
    if (!rc)
        rc = keep_number(in, at, layer, 0, LAYERS_MAX - 1, &t->layer);
    if (!rc)
        rc = check_number(in, at, units, 1, MOST_NUMBER);
    if (!rc)
        rc = check_number(in, at, classes, 0, MOST_NUMBER);
    if (!rc)
        rc = check_number(in, at, cells, 0, MOST_NUMBER);
    if (rc)
        return rc;
    if (!is_split(split))
        return refuse(in, at, "has a split that there is not");
    snprintf(t->split, sizeof t->split, "%s", split);
    t->units = (size_t)units;
    t->classes = (size_t)classes;
    t->cells = (size_t)cells;
    return 0;
}

static int read_unit_tables(const struct reading *in, const json_t *json) {
    struct outcome *o = &in->into->outcome;
    struct unit_table *list;
    int rc =
        open_list(in, "/end/unit_tables", json, LAYERS_MAX, sizeof *list, &o->n_unit_tables, &list);
    o->unit_tables = rc ? NULL : list;
    for (size_t i = 0; !rc && i < o->n_unit_tables; i++) {
        where here;
        snprintf(here, sizeof here, "/end/unit_tables/%zu", i);
        rc = read_unit_table(in, here, json_array_get(json, i), &list[i]);
        for (size_t k = 0; !rc && k < i; k++)
            if (list[k].layer == list[i].layer)
                rc = refuse(in, here, "is of a layer that has one");
    }
    return rc;
}

static int read_success(const struct reading *in, json_t *json) {
    const json_t *result, *provenance, *histograms, *tensors, *unit_tables;
    const char *state;
    struct outcome *o = &in->into->outcome;
    int rc = unpack(in, "/end", json, "{s:s, s:o, s:o, s:o, s:o, s:o !}", "state", &state, "result",
                    &result, "provenance", &provenance, "histograms", &histograms, "tensors",
                    &tensors, "unit_tables", &unit_tables);
    o->state = STATE_SUCCEEDED;
    if (!rc)
        rc = read_figures(in, "/end/result", result, &o->result, &o->n_result);
    if (!rc)
        rc = read_figures(in, "/end/provenance", provenance, &o->provenance, &o->n_provenance);
    if (!rc)
        rc =
            read_histograms(in, "/end/histograms", histograms, 0, &o->histograms, &o->n_histograms);
    if (!rc)
        rc = read_tensors(in, tensors);
    return rc ? rc : read_unit_tables(in, unit_tables);
}

/* With the kinds that a job of the daemon's own can fail with (server/job.c). */
static int read_failure(const struct reading *in, json_t *json) {
    static const char at[] = "/end/problem";
    static const char *const kinds[] = {"diverged", "out-of-memory", "invalid-spec",
                                        "storage",  "time-limit",    "internal"};
    struct outcome *o = &in->into->outcome;
    const json_t *pointer = NULL;
    const char *state;
    int rc = unpack(in, "/end", json, "{s:s, s:{s:s, s?o, s:s !} !}", "state", &state, "problem",
                    "kind", &o->problem_kind, "pointer", &pointer, "detail", &o->problem_detail);
    int known = 0;
    o->state = STATE_FAILED;
    for (size_t i = 0; !rc && i < sizeof kinds / sizeof *kinds; i++)
        known |= strcmp(o->problem_kind, kinds[i]) == 0;
    if (!rc && !known)
        rc = refuse(in, at, "has a kind that no failed experiment has: %.40s", o->problem_kind);
    o->problem_pointer = json_string_value(pointer);
    if (!rc && pointer && !json_is_null(pointer) && !o->problem_pointer)
        rc = refuse(in, at, "has a pointer that is neither text nor null");
    if (!rc && o->problem_pointer)
        rc = check_text(in, at, o->problem_pointer, TEXT);
    return rc ? rc : check_text(in, at, o->problem_detail, 1000);
}

static int read_end(const struct reading *in, json_t *json) {
    struct report *report = &in->into->report;
    const char *state = json_string_value(json_object_get(json, "state"));
    report->outcome = &in->into->outcome;
    report->end = END_OUTCOME;
    if (!state)
        return refuse(in, "/end", "has no state");
    if (strcmp(state, "succeeded") == 0)
        return read_success(in, json);
    if (strcmp(state, "failed") == 0)
        return read_failure(in, json);
    report->end = strcmp(state, "paused") == 0 ? END_PAUSED : END_QUEUED;
    if (report->end == END_PAUSED)
        return unpack(in, "/end", json, "{s:s !}", "state", &state);
    if (strcmp(state, "queued") != 0)
        return refuse(in, "/end", "has a state that no attempt ends in: %.40s", state);
    int rc = unpack(in, "/end", json, "{s:s, s:s !}", "state", &state, "reason", &report->reason);
    return rc ? rc : check_text(in, "/end", report->reason, LINE);
}

/* ---- The whole ---- */

struct members {
    json_t *progress, *begin, *checkpoint, *end;
    const json_t *epochs, *log, *restart_from;
};

static int read_members(const struct reading *in, struct members *m) {
    struct report *report = &in->into->report;
    int rc = check_number(in, "/number", report->number, 1, INT64_MAX - 1);
    if (!rc)
        rc = read_progress(in, m->progress);
    if (!rc && m->begin)
        rc = read_begin(in, m->begin);
    if (!rc && m->restart_from) {
        rc = keep_number(in, "/restart_from", json_integer_value(m->restart_from), 1,
                         MOST_EPOCH + 1, &report->restart_from);
    }
    if (!rc)
        rc = read_epochs(in, m->epochs);
    if (!rc)
        rc = read_lines(in, m->log);
    if (!rc && m->checkpoint)
        rc = read_checkpoint(in, m->checkpoint);
    return rc || !m->end ? rc : read_end(in, m->end);
}

int received_read(struct received *received, json_t *json, struct ovr_err *err) {
    const struct reading in = {received, err};
    struct members m = {0};
    json_int_t number = 0;
    *received = (struct received){0};
    int rc = unpack(&in, "", json, "{s:I, s:o, s?o, s?o, s?o, s?o, s?o, s?o !}", "number", &number,
                    "progress", &m.progress, "begin", &m.begin, "restart_from", &m.restart_from,
                    "epochs", &m.epochs, "log", &m.log, "checkpoint", &m.checkpoint, "end", &m.end);
    received->report.number = number;
    return rc ? rc : read_members(&in, &m);
}
