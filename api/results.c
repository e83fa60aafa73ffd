/* What an experiment measured: metrics by epoch, histograms. */
#include "api/api.h"

#include <string.h>

enum { EPOCHS_PER_REPLY = 5000 };

struct series {
    json_t *list;
    json_t *last; /* the epoch being filled; borrowed */
    int epoch;
};

static int put_in_series(void *context, int epoch, const struct figure *figure) {
    struct series *series = context;
    if (!series->last || series->epoch != epoch) {
        series->last = json_pack("{s:i}", "epoch", epoch);
        series->epoch = epoch;
        if (json_array_append_new(series->list, series->last))
            return OVR_NOMEM;
    }
    return json_put_figure(series->last, figure);
}

/* At most `points` of the list, evenly spread, the first and the last among them. */
static json_t *thin_out(json_t *list, size_t points) {
    size_t n = json_array_size(list);
    if (n <= points)
        return list;
    json_t *few = json_array();
    for (size_t i = 0; i < points; i++)
        json_array_append(few,
                          json_array_get(list, points == 1 ? n - 1 : i * (n - 1) / (points - 1)));
    json_decref(list);
    return few;
}

struct reply *handle_metrics(struct request *request) {
    struct api *api = request->context;
    struct experiment e;
    struct ovr_err err = {0};
    int64_t from = 1, points = EPOCHS_PER_REPLY;
    struct reply *reply = query_int(request, "from_epoch", 1, 1000000, &from);
    if (!reply)
        reply = query_int(request, "max_points", 1, EPOCHS_PER_REPLY, &points);
    if (reply)
        return reply;
    if (store_get_experiment(api->store, request->segments[0], &e, &err))
        return problem_from(&err);
    struct series series = {.list = json_array()};
    int to = (int)from + EPOCHS_PER_REPLY - 1;
    if (store_read_figures(api->store, e.seq, (int)from, to, put_in_series, &series, &err)) {
        json_decref(series.list);
        reply = problem_from(&err);
    } else {
        int full = json_array_size(series.list) == EPOCHS_PER_REPLY;
        reply =
            reply_json(200, json_pack("{s:o}", "series", thin_out(series.list, (size_t)points)));
        reply = reply_etag(reply, "%lld", (long long)e.revision);
        if (full)
            reply = reply_header(reply, "Link",
                                 "</v1/experiments/%s/metrics?from_epoch=%d>; rel=\"next\"", e.id,
                                 to + 1);
    }
    experiment_release(&e);
    return reply;
}

/* Bins as they go out: adjacent ones merged until there are at most `bins`; the edge at 0.1 is
 * kept. */
struct bins {
    double edges[HISTOGRAM_BINS + 1];
    uint64_t counts[HISTOGRAM_BINS];
    size_t n;
};

static void read_bins(const struct histogram *h, struct bins *bins) {
    bins->n = HISTOGRAM_BINS - (h->counts[HISTOGRAM_BINS - 1] == 0); /* the open bin, if used */
    for (size_t i = 0; i < bins->n; i++) {
        bins->edges[i] = histogram_edges[i];
        bins->counts[i] = h->counts[i];
    }
    bins->edges[bins->n] = bins->n < HISTOGRAM_BINS ? histogram_edges[bins->n] : h->maximum;
}

/* Merges runs of `by` bins, counted from the edge at 0.1 to both sides. */
static void merge_bins(const struct bins *from, size_t by, struct bins *to) {
    size_t pivot = 0, first;
    while (from->edges[pivot] < 0.1)
        pivot++;
    first = pivot % by; /* a short run at the low end */
    to->n = 0;
    for (size_t i = 0; i < from->n; i++) {
        if (i == 0 || i % by == first) {
            to->edges[to->n] = from->edges[i];
            to->counts[to->n++] = 0;
        }
        to->counts[to->n - 1] += from->counts[i];
    }
    to->edges[to->n] = from->edges[from->n];
}

static json_t *json_histogram(const struct experiment *e, int epoch, const char *split,
                              const struct histogram *h, size_t most) {
    struct bins all, bins;
    json_t *edges = json_array(), *counts = json_array();
    uint64_t near = h->zero_count;
    size_t by = 1;
    read_bins(h, &all);
    bins = all;
    while (bins.n > most)
        merge_bins(&all, ++by, &bins);
    for (size_t i = 0; i < bins.n; i++) {
        json_array_append_new(edges, json_real(bins.edges[i]));
        json_array_append_new(counts, json_integer((json_int_t)bins.counts[i]));
    }
    json_array_append_new(edges, json_real(bins.edges[bins.n]));
    for (size_t i = 0; histogram_edges[i] < 0.1; i++)
        near += h->counts[i];
    double total = (double)h->total;
    return json_pack("{s:s, s:o, s:s, s:s, s:o, s:o, s:I, s:I, s:f, s:{s:f, s:f}}", "experiment",
                     e->id, "epoch", epoch ? json_integer(epoch) : json_string("best"), "split",
                     split, "layer", "hidden.0", "edges", edges, "counts", counts, "zero_count",
                     (json_int_t)h->zero_count, "total", (json_int_t)h->total, "maximum",
                     h->maximum, "sparsity", "near_zero", (double)near / total, "zero",
                     (double)h->zero_count / total);
}

static struct reply *read_histogram_query(const struct request *request, int64_t *epoch,
                                          int64_t *bins, char split[16]) {
    const char *wanted = request_query(request, "epoch");
    const char *layer = request_query(request, "layer");
    const char *on = request_query(request, "split");
    struct reply *reply = query_int(request, "bins", 2, HISTOGRAM_BINS, bins);
    if (!reply && wanted && strcmp(wanted, "best"))
        reply = query_int(request, "epoch", 1, 1000000, epoch);
    if (!reply && layer && strcmp(layer, "hidden.0") && strcmp(layer, "0"))
        reply = problem(422, "invalid-query", "layer must be hidden.0, the only hidden layer");
    if (!reply && on && strcmp(on, "test") && strcmp(on, "validation"))
        reply =
            problem(422, "invalid-query", "split must be validation or test, got \"%.40s\"", on);
    snprintf(split, 16, "%s", on ? on : "");
    return reply;
}

static int find_best_epoch(void *context, int epoch, const struct figure *figure) {
    (void)epoch;
    if (strcmp(figure->name, "best_epoch") == 0)
        *(int *)context = (int)figure->count;
    return 0;
}

/* "best" on the validation split: the result's own histogram is of the test split. */
static int best_epoch_of(struct api *api, const struct experiment *e, const char *split, int *epoch,
                         struct ovr_err *err) {
    if (*epoch || strcmp(split, "validation") || e->state != STATE_SUCCEEDED)
        return 0;
    return store_read_figures(api->store, e->seq, 0, 0, find_best_epoch, epoch, err);
}

struct reply *handle_histogram(struct request *request) {
    struct api *api = request->context;
    struct experiment e;
    struct histogram histogram;
    struct ovr_err err = {0};
    char split[16];
    int64_t epoch = 0, bins = HISTOGRAM_BINS;
    struct reply *reply = read_histogram_query(request, &epoch, &bins, split);
    if (reply)
        return reply;
    if (store_get_experiment(api->store, request->segments[0], &e, &err))
        return problem_from(&err);
    int found = (int)epoch;
    if (best_epoch_of(api, &e, split, &found, &err) ||
        store_read_histogram(api->store, e.seq, 0, &found, split, &histogram, &err)) {
        if (err.code == OVR_NOT_FOUND && epoch == 0)
            reply = problem(404, "not-found",
                            "experiment %s is %s and has no histogram yet; the first comes with "
                            "its first epoch",
                            e.id, state_names[e.state]);
        else
            reply = problem_from(&err);
    } else {
        reply = reply_json(200, json_histogram(&e, found, split, &histogram, (size_t)bins));
        reply = reply_etag(reply, "%lld", (long long)e.revision);
    }
    experiment_release(&e);
    return reply;
}
