#include "worker/encode.h"

#include "server/clock.h"

#include <math.h>

static json_t *encode_figure(const struct figure *figure) {
    switch (figure->kind) {
    case FIGURE_COUNT:
        return json_pack("{s:s, s:I}", "name", figure->name, "count", (json_int_t)figure->count);
    case FIGURE_TEXT:
        return json_pack("{s:s, s:s}", "name", figure->name, "text", figure->text);
    default:
        return json_pack("{s:s, s:o}", "name", figure->name, "real",
                         isfinite(figure->real) ? json_real(figure->real) : json_null());
    }
}

static json_t *encode_histogram(const struct epoch_histogram *h) {
    json_t *counts = json_array();
    int failed = !counts;
    for (size_t i = 0; i < HISTOGRAM_BINS && !failed; i++)
        failed = json_array_append_new(counts, json_integer((json_int_t)h->histogram->counts[i]));
    if (failed) {
        json_decref(counts);
        return NULL;
    }
    double maximum = h->histogram->maximum;
    return json_pack("{s:s, s:i, s:I, s:I, s:o, s:o}", "split", h->split, "layer", h->layer,
                     "zero_count", (json_int_t)h->histogram->zero_count, "total",
                     (json_int_t)h->histogram->total, "maximum",
                     isfinite(maximum) ? json_real(maximum) : json_null(), "counts", counts);
}

static json_t *encode_tensor(const struct tensor *t) {
    return json_pack("{s:s, s:s, s:s, s:i, s:I, s:I}", "epoch", t->epoch, "name", t->name, "dtype",
                     t->dtype, "dimensions", t->dimensions, "rows", (json_int_t)t->rows, "columns",
                     (json_int_t)t->columns);
}

static json_t *encode_unit_table(const struct unit_table *t) {
    return json_pack("{s:i, s:s, s:I, s:I, s:I}", "layer", t->layer, "split", t->split, "units",
                     (json_int_t)t->units, "classes", (json_int_t)t->classes, "cells",
                     (json_int_t)t->cells);
}

/* An array of n things, each encoded by the expression `item`, which has the index i. */
#define LIST(array, n, item)                                                                       \
    json_t *array = json_array();                                                                  \
    for (size_t i = 0; i < (n) && array; i++)                                                      \
        if (json_array_append_new(array, (item))) {                                                \
            json_decref(array);                                                                    \
            array = NULL;                                                                          \
        }

static json_t *encode_figures(const struct figure *figures, size_t n) {
    LIST(list, n, encode_figure(&figures[i]))
    return list;
}

static json_t *encode_histograms(const struct epoch_histogram *histograms, size_t n) {
    LIST(list, n, encode_histogram(&histograms[i]))
    return list;
}

json_t *encode_epoch(int epoch, const struct epoch_facts *facts) {
    return json_pack("{s:i, s:o, s:o}", "epoch", epoch, "figures",
                     encode_figures(facts->figures.list, facts->figures.n), "histograms",
                     encode_histograms(facts->histograms, facts->n_histograms));
}

json_t *encode_progress(const struct train_progress *p, int threads) {
    uint64_t started = p->phase_started_ms;
    double seconds = started ? (double)(monotonic_ms() - (int64_t)started) / 1000 : 0;
    return json_pack("{s:i, s:i, s:i, s:I, s:I, s:I, s:f, s:i, s:I}", "phase", (int)p->phase,
                     "epoch", (int)p->epoch, "epochs", (int)p->epochs, "step", (json_int_t)p->step,
                     "steps", (json_int_t)p->steps, "samples", (json_int_t)p->samples, "seconds",
                     seconds, "threads", threads, "memory_bytes", (json_int_t)p->memory_bytes);
}

json_t *encode_outcome(const struct outcome *o) {
    if (o->state == STATE_FAILED)
        return json_pack("{s:s, s:{s:s, s:s?, s:s}}", "state", "failed", "problem", "kind",
                         o->problem_kind, "pointer", o->problem_pointer, "detail",
                         o->problem_detail);
    LIST(tensors, o->n_tensors, encode_tensor(&o->tensors[i]))
    LIST(tables, o->n_unit_tables, encode_unit_table(&o->unit_tables[i]))
    return json_pack("{s:s, s:o, s:o, s:o, s:o, s:o}", "state", "succeeded", "result",
                     encode_figures(o->result, o->n_result), "provenance",
                     encode_figures(o->provenance, o->n_provenance), "histograms",
                     encode_histograms(o->histograms, o->n_histograms), "tensors", tensors,
                     "unit_tables", tables);
}
