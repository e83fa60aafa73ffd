/* What the units of a layer do: the table, page by page in any order, and for the sphere the cells
 * that each answers to. Both are read from the files of the finished experiment. */
#include "core/units.h"
#include "api/api.h"
#include "core/npy.h"
#include "server/weights.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A layer's table, opened. */
struct opened {
    struct experiment experiment;
    struct unit_table shape;
    struct npy_map table;
    struct npy_map classes, cells, cell_samples; /* where they were asked for */
};

static void close_table(struct opened *o) {
    experiment_release(&o->experiment);
    npy_unmap(&o->table);
    npy_unmap(&o->classes);
    npy_unmap(&o->cells);
    npy_unmap(&o->cell_samples);
}

static struct reply *no_table(const struct experiment *e, int layer) {
    if (e->state == STATE_SUCCEEDED)
        return problem(404, "not-found", "experiment %s has no table of units of layer hidden.%d",
                       e->id, layer < 0 ? 0 : layer);
    return problem(404, "not-found", "experiment %s is %s and has no table of units%s", e->id,
                   state_names[e->state],
                   e->state == STATE_QUEUED || e->state == STATE_RUNNING
                       ? " yet; it is there when it has succeeded"
                       : "");
}

static int map_part(const struct api *api, const struct opened *o, const char *part, size_t rows,
                    size_t columns, struct npy_map *map) {
    char path[1024];
    weights_units_path(api->data_dir, o->experiment.id, o->shape.layer, part, path, sizeof path);
    return npy_map(map, path, rows, columns, NULL);
}

/* Returns NULL, or the reply that says what is wrong. */
static struct reply *open_table(const struct request *request, int with_cells, struct opened *o) {
    struct api *api = request->context;
    struct ovr_err err = {0};
    int layer = -1;
    struct reply *reply = query_layer(request, &layer);
    if (reply)
        return reply;
    if (store_get_experiment(api->store, request->segments[0], &o->experiment, &err))
        return problem_from(&err);
    if (store_read_unit_table(api->store, o->experiment.seq, layer, &o->shape, &err))
        return err.code == OVR_NOT_FOUND ? no_table(&o->experiment, layer) : problem_from(&err);
    const struct unit_table *shape = &o->shape;
    if (with_cells && !shape->cells)
        return problem(
            404, "not-found",
            "experiment %s has no tiling: its data are not the sphere, or there are more "
            "than %d cells, or units times cells are more than %d",
            o->experiment.id, CELLS_MAX, UNIT_CELLS_MAX);
    if (map_part(api, o, "table", shape->units, UNIT_FIGURES, &o->table) ||
        (with_cells && (map_part(api, o, "cells", shape->units, shape->cells, &o->cells) ||
                        map_part(api, o, "cell_samples", shape->cells, 1, &o->cell_samples))))
        return problem(500, "storage", "the table of units is damaged or cannot be read");
    return NULL;
}

static const float *row_of(const struct opened *o, size_t unit) {
    return o->table.numbers + unit * UNIT_FIGURES;
}

static int is_dead(const float *row) {
    return row[UNIT_MAXIMUM] == 0;
}

static json_t *json_class_means(const struct opened *o, size_t unit) {
    json_t *list = json_array();
    for (size_t c = 0; c < o->shape.classes; c++)
        json_array_append_new(list,
                              json_real((double)o->classes.numbers[unit * o->shape.classes + c]));
    return list;
}

static json_t *json_unit(const struct opened *o, size_t unit) {
    const float *row = row_of(o, unit);
    json_t *object = json_pack("{s:I, s:b}", "unit", (json_int_t)unit, "dead", is_dead(row));
    if (object && o->classes.numbers)
        json_object_set_new(object, "class_means", json_class_means(o, unit));
    for (size_t f = 0; object && f < UNIT_FIGURES; f++) {
        int whole = f == UNIT_STRONGEST_CLASS && !isnan(row[f]);
        if (f == UNIT_CELLS && !o->shape.cells)
            continue;
        json_object_set_new(object, unit_figure_names[f],
                            whole ? json_integer((json_int_t)row[f])
                                  : json_real_or_null((double)row[f]));
    }
    return object;
}

/* The order of a page's units. */
struct order {
    const struct opened *opened;
    int figure;     /* UNIT_FIGURES: by number */
    int descending; /* what has no figure comes last either way, equal ones by number */
};

static int compare(const void *a, const void *b, void *context) {
    const struct order *order = context;
    uint32_t i = *(const uint32_t *)a, j = *(const uint32_t *)b;
    int by_number = (i > j) - (i < j);
    if (order->figure == UNIT_FIGURES)
        return order->descending ? -by_number : by_number;
    float x = row_of(order->opened, i)[order->figure], y = row_of(order->opened, j)[order->figure];
    if (isnan(x) || isnan(y))
        return isnan(x) && isnan(y) ? by_number : isnan(x) ? 1 : -1;
    int by_value = (x > y) - (x < y);
    return by_value == 0 ? by_number : order->descending ? -by_value : by_value;
}

/* Which page of what was asked for. */
struct page {
    struct order order;
    const char *sort;
    int dead; /* 0, 1 or −1: all */
    int class_means;
    int64_t limit, first;
};

static struct reply *read_page(const struct request *request, struct page *page) {
    page->limit = 50;
    page->dead = -1;
    page->sort = request_query(request, "sort");
    page->order.figure = UNIT_FIGURES;
    struct reply *reply = query_int(request, "limit", 1, 500, &page->limit);
    if (!reply)
        reply = query_int(request, "cursor", 1, INT32_MAX, &page->first);
    if (!reply)
        reply = query_bool(request, "dead", &page->dead);
    if (!reply)
        reply = query_bool(request, "class_means", &page->class_means);
    if (reply || !page->sort)
        return reply;
    page->order.descending = page->sort[0] == '-';
    const char *name = page->sort + page->order.descending;
    for (int f = 0; f < UNIT_FIGURES; f++)
        if (strcmp(name, unit_figure_names[f]) == 0)
            page->order.figure = f;
    if (page->order.figure == UNIT_FIGURES && strcmp(name, "unit"))
        return problem(422, "invalid-query",
                       "sort must be unit or a figure of the table, such as firing_rate, or one "
                       "with a minus for the largest first, got \"%.40s\"",
                       page->sort);
    return NULL;
}

/* Numbers of the units that fit, in order; the caller frees them. */
static uint32_t *sort_units(const struct opened *o, struct page *page, size_t *n) {
    uint32_t *units = malloc((o->shape.units + 1) * sizeof *units);
    *n = 0;
    for (uint32_t k = 0; units && k < o->shape.units; k++)
        if (page->dead < 0 || is_dead(row_of(o, k)) == page->dead)
            units[(*n)++] = k;
    page->order.opened = o;
    if (units)
        qsort_r(units, *n, sizeof *units, compare, &page->order);
    return units;
}

static struct reply *link_next(struct reply *reply, const struct opened *o,
                               const struct page *page) {
    return reply_header(reply, "Link",
                        "</v1/experiments/%s/units?cursor=%lld&limit=%lld&layer=%d%s%s%s%s>; "
                        "rel=\"next\"",
                        o->experiment.id, (long long)(page->first + page->limit),
                        (long long)page->limit, o->shape.layer, page->sort ? "&sort=" : "",
                        page->sort ? page->sort : "",
                        page->dead < 0 ? ""
                        : page->dead   ? "&dead=true"
                                       : "&dead=false",
                        page->class_means ? "&class_means=true" : "");
}

enum { NUMBERS_MAX = 100000 }; /* at most so many class means, or shares of a tiling, in a reply */

static struct reply *open_classes(const struct request *request, const struct page *page,
                                  struct opened *o) {
    size_t most = NUMBERS_MAX / o->shape.classes;
    if ((size_t)page->limit > most)
        return problem(422, "invalid-query",
                       "limit must be at most %zu with class_means, there are %zu classes", most,
                       o->shape.classes);
    if (map_part(request->context, o, "classes", o->shape.units, o->shape.classes, &o->classes))
        return problem(500, "storage", "the table of units is damaged or cannot be read");
    return NULL;
}

static struct reply *send_page(const struct opened *o, struct page *page) {
    size_t n, first = (size_t)page->first;
    uint32_t *units = sort_units(o, page, &n);
    struct ovr_err err = {0};
    if (!units && ovr_nomem(&err, "the order of units"))
        return problem_from(&err);
    json_t *list = json_array();
    for (size_t i = first; i < n && i < first + (size_t)page->limit; i++)
        json_array_append_new(list, json_unit(o, units[i]));
    free(units);
    struct reply *reply = reply_json(
        200, json_pack("{s:s, s:o, s:s, s:I, s:I, s:o}", "experiment", o->experiment.id, "layer",
                       json_sprintf("hidden.%d", o->shape.layer), "split", o->shape.split, "total",
                       (json_int_t)o->shape.units, "matching", (json_int_t)n, "units", list));
    reply = reply_etag(reply, "%lld", (long long)o->experiment.revision);
    return first + (size_t)page->limit < n ? link_next(reply, o, page) : reply;
}

struct reply *handle_units(struct request *request) {
    struct opened opened = {0};
    struct page page = {0};
    struct reply *reply = read_page(request, &page);
    if (!reply)
        reply = open_table(request, 0, &opened);
    if (!reply && page.class_means)
        reply = open_classes(request, &page, &opened);
    if (!reply)
        reply = send_page(&opened, &page);
    close_table(&opened);
    return reply;
}

/* The tiling */

/* Which unit answers most to each cell, and how much: one pass over the means. The caller frees
 * *most. */
struct strongest {
    size_t unit;
    float mean; /* 0: none answers */
};

static struct strongest *find_strongest(const struct opened *o) {
    size_t cells = o->shape.cells;
    struct strongest *most = calloc(cells, sizeof *most);
    for (size_t k = 0; most && k < o->shape.units; k++)
        for (size_t c = 0; c < cells; c++) {
            float mean = o->cells.numbers[k * cells + c];
            if (mean > most[c].mean)
                most[c] = (struct strongest){k, mean};
        }
    return most;
}

static json_t *json_cell(const struct opened *o, const struct sphere_config *sphere, uint16_t class,
                         const struct strongest *most, size_t cell) {
    size_t band = cell / sphere->sectors, sector = cell % sphere->sectors;
    double height = 2 / (double)(sphere->latitudes + 1), width = 360 / (double)sphere->sectors;
    return json_pack("{s:I, s:I, s:I, s:i, s:[f, f], s:[f, f], s:I, s:o, s:f}", "cell",
                     (json_int_t)cell, "band", (json_int_t)band, "sector", (json_int_t)sector,
                     "class", (int)class, "z", (double)band * height - 1,
                     (double)(band + 1) * height - 1, "longitude", (double)sector * width,
                     (double)(sector + 1) * width, "samples",
                     (json_int_t)o->cell_samples.numbers[cell], "unit",
                     most->mean > 0 ? json_integer((json_int_t)most->unit) : json_null(), "mean",
                     (double)most->mean);
}

static json_t *json_cells(const struct opened *o, const struct sphere_config *sphere) {
    uint16_t *classes = malloc(o->shape.cells * sizeof *classes);
    struct strongest *most = find_strongest(o);
    json_t *list = classes && most ? json_array() : NULL;
    if (list)
        sphere_classes(sphere, classes);
    for (size_t c = 0; list && c < o->shape.cells; c++)
        json_array_append_new(list, json_cell(o, sphere, classes[c], &most[c], c));
    free(classes);
    free(most);
    return list;
}

/* Shares of the sum of a unit's means, cell by cell; all 0 of a dead one. */
static json_t *json_answers(const struct opened *o, size_t unit) {
    size_t cells = o->shape.cells;
    const float *means = o->cells.numbers + unit * cells;
    json_t *shares = json_array(), *strongest = NULL;
    double sum = 0;
    size_t most = 0;
    for (size_t c = 0; c < cells; c++) {
        sum += (double)means[c];
        most = means[c] > means[most] ? c : most;
    }
    for (size_t c = 0; c < cells; c++)
        json_array_append_new(shares, json_real(sum > 0 ? (double)means[c] / sum : 0));
    strongest = sum > 0 ? json_integer((json_int_t)most) : json_null();
    return json_pack("{s:I, s:b, s:o, s:o, s:o}", "unit", (json_int_t)unit, "dead",
                     is_dead(row_of(o, unit)), "cells",
                     json_real_or_null((double)row_of(o, unit)[UNIT_CELLS]), "strongest_cell",
                     strongest, "shares", shares);
}

/* "first:end" of the units. */
static struct reply *read_units(const struct request *request, const struct opened *o,
                                size_t *first, size_t *end) {
    const char *text = request_query(request, "units");
    size_t most = NUMBERS_MAX / o->shape.cells;
    most = most ? most : 1;
    unsigned long long from = 0, to = most < 64 ? most : 64;
    int used = 0;
    if (to > o->shape.units)
        to = o->shape.units;
    if (text &&
        (sscanf(text, "%19llu:%19llu%n", &from, &to, &used) != 2 || text[used] || text[0] < '0' ||
         text[0] > '9' || from >= to || to > o->shape.units || to - from > most))
        return problem(422, "invalid-query",
                       "units must be first:end with 0 <= first < end <= %zu and at most %zu of "
                       "them at once, got \"%.40s\"",
                       o->shape.units, most, text);
    *first = (size_t)from;
    *end = (size_t)to;
    return NULL;
}

static struct reply *send_tiling(const struct request *request, const struct opened *o,
                                 const struct spec *spec) {
    size_t first = 0, end = 0;
    struct reply *reply = read_units(request, o, &first, &end);
    if (reply)
        return reply;
    json_t *units = json_array();
    for (size_t k = first; k < end; k++)
        json_array_append_new(units, json_answers(o, k));
    reply = reply_json(
        200, json_pack("{s:s, s:o, s:s, s:I, s:I, s:I, s:o, s:o}", "experiment", o->experiment.id,
                       "layer", json_sprintf("hidden.%d", o->shape.layer), "split", o->shape.split,
                       "bands", (json_int_t)(spec->sphere.latitudes + 1), "sectors",
                       (json_int_t)spec->sphere.sectors, "total", (json_int_t)o->shape.units,
                       "cells", json_cells(o, &spec->sphere), "units", units));
    return reply_etag(reply, "%lld", (long long)o->experiment.revision);
}

struct reply *handle_tiling(struct request *request) {
    struct opened opened = {0};
    struct ovr_err err = {0};
    struct reply *reply = open_table(request, 1, &opened);
    struct spec *spec = reply ? NULL : malloc(sizeof *spec);
    if (!reply && !spec)
        ovr_nomem(&err, "a spec");
    if (!reply && (err.code || spec_read_stored(opened.experiment.spec, spec, &err)))
        reply = problem_from(&err);
    if (!reply)
        reply = send_tiling(request, &opened, spec);
    free(spec);
    close_table(&opened);
    return reply;
}
