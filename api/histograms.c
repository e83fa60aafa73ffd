/* Histograms of activations: one, the series over epochs, and how far two are apart. */
#include "api/api.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A histogram and where it is from. */
struct source {
    struct experiment experiment; /* to be released */
    int layer, epoch;             /* layer −1: the last one; epoch 0: the result's */
    char split[16];
    struct histogram histogram;
};

static json_t *json_epoch(int epoch) {
    return epoch ? json_integer(epoch) : json_string("best");
}

static json_t *json_layer(int layer) {
    return json_sprintf("hidden.%d", layer);
}

static int find_best_epoch(void *context, int epoch, const struct figure *figure) {
    (void)epoch;
    if (strcmp(figure->name, "best_epoch") == 0)
        *(int *)context = (int)figure->count;
    return 0;
}

/* "best" on the validation split: the result's own histogram is of the test split. */
static int best_epoch_of(const struct api *api, struct source *s, struct ovr_err *err) {
    if (s->epoch || strcmp(s->split, "validation") || s->experiment.state != STATE_SUCCEEDED)
        return 0;
    return store_read_figures(api->store, s->experiment.seq, 0, 0, find_best_epoch, &s->epoch, err);
}

/* Fills in the rest of a source that says layer, epoch and split ("": any). Returns NULL, or the
 * reply that says what is wrong. */
static struct reply *find_source(const struct api *api, const char *id, struct source *s) {
    struct ovr_err err = {0};
    int any = s->epoch == 0;
    if (store_get_experiment(api->store, id, &s->experiment, &err))
        return problem_from(&err);
    const struct experiment *e = &s->experiment;
    if (!best_epoch_of(api, s, &err) &&
        !store_read_histogram(api->store, e->seq, &s->layer, &s->epoch, s->split, &s->histogram,
                              &err))
        return NULL;
    if (err.code == OVR_NOT_FOUND && any && s->layer < 0)
        return problem(404, "not-found",
                       "experiment %s is %s and has no histogram yet; the first comes with its "
                       "first epoch",
                       e->id, state_names[e->state]);
    return problem_from(&err);
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
    bins->edges[bins->n] = bins->n < HISTOGRAM_BINS
                               ? histogram_edges[bins->n]
                               : fmax(h->maximum, histogram_edges[bins->n - 1]);
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

/* Where figures go, and which. */
struct picked {
    json_t *object;
    char prefix[24];
};

/* A figure "sparsity.…" goes into the object under the rest of its name. */
static int put_sparsity(void *context, int epoch, const struct figure *figure) {
    const struct picked *picked = context;
    struct figure inner = *figure;
    size_t n = strlen(picked->prefix);
    (void)epoch;
    if (strncmp(figure->name, picked->prefix, n))
        return 0;
    inner.name += n;
    return json_put_figure(picked->object, &inner);
}

/* The last layer is the code, whose figures are "sparsity.…"; those of the layers below are
 * "layers.0.…" and so on. Of an older experiment the counts say two. */
static json_t *json_sparsity(const struct api *api, const struct source *s, struct ovr_err *err) {
    const struct histogram *h = &s->histogram;
    double total = (double)h->total;
    json_t *object = json_pack("{s:f, s:f}", "near_zero", (double)histogram_near_zero(h) / total,
                               "zero", (double)h->zero_count / total);
    struct picked below = {.object = object}, code = {object, "sparsity."};
    snprintf(below.prefix, sizeof below.prefix, "layers.%d.", s->layer);
    if (!object)
        return NULL;
    size_t known = json_object_size(object);
    int rc = store_read_figures(api->store, s->experiment.seq, s->epoch, s->epoch, put_sparsity,
                                &below, err);
    if (!rc && json_object_size(object) == known)
        rc = store_read_figures(api->store, s->experiment.seq, s->epoch, s->epoch, put_sparsity,
                                &code, err);
    if (rc) {
        json_decref(object);
        return NULL;
    }
    return object;
}

static json_t *json_histogram(const struct api *api, const struct source *s, size_t most,
                              struct ovr_err *err) {
    const struct histogram *h = &s->histogram;
    struct bins all, bins;
    json_t *edges = json_array(), *counts = json_array();
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
    return json_pack("{s:s, s:o, s:s, s:o, s:o, s:o, s:I, s:I, s:f, s:o}", "experiment",
                     s->experiment.id, "epoch", json_epoch(s->epoch), "split", s->split, "layer",
                     json_layer(s->layer), "edges", edges, "counts", counts, "zero_count",
                     (json_int_t)h->zero_count, "total", (json_int_t)h->total, "maximum",
                     h->maximum, "sparsity", json_sparsity(api, s, err));
}

static struct reply *read_histogram_query(const struct request *request, struct source *s,
                                          int64_t *bins) {
    const char *wanted = request_query(request, "epoch");
    const char *on = request_query(request, "split");
    int64_t epoch = 0;
    struct reply *reply = query_int(request, "bins", 2, HISTOGRAM_BINS, bins);
    if (!reply && wanted && strcmp(wanted, "best"))
        reply = query_int(request, "epoch", 1, 1000000, &epoch);
    if (!reply)
        reply = query_layer(request, &s->layer);
    if (!reply && on && strcmp(on, "test") && strcmp(on, "validation"))
        reply =
            problem(422, "invalid-query", "split must be validation or test, got \"%.40s\"", on);
    s->epoch = (int)epoch;
    snprintf(s->split, sizeof s->split, "%s", on ? on : "");
    return reply;
}

struct reply *handle_histogram(struct request *request) {
    struct api *api = request->context;
    struct source source = {.layer = -1};
    struct ovr_err err = {0};
    int64_t bins = HISTOGRAM_BINS;
    struct reply *reply = read_histogram_query(request, &source, &bins);
    if (!reply)
        reply = find_source(api, request->segments[0], &source);
    if (!reply) {
        json_t *body = json_histogram(api, &source, (size_t)bins, &err);
        reply = err.code ? problem_from(&err) : reply_json(200, body);
        reply = reply_etag(reply, "%lld", (long long)source.experiment.revision);
    }
    experiment_release(&source.experiment);
    return reply;
}

/* The series: at most `room` epochs are read, and what the client wants of them goes out. */
struct collected {
    int epoch;
    struct histogram histogram;
};

struct collection {
    struct collected *list;
    size_t n, room;
    char split[16];
    int layer; /* as asked for, then as found */
};

enum { SERIES_READ = 5000, SERIES_POINTS = 500 };

static int collect(void *context, const struct epoch_histogram *eh) {
    struct collection *c = context;
    if (c->n == c->room) {
        size_t room = c->room ? 2 * c->room : 64;
        struct collected *list = realloc(c->list, room * sizeof *list);
        if (!list)
            return OVR_NOMEM;
        c->list = list;
        c->room = room;
    }
    snprintf(c->split, sizeof c->split, "%s", eh->split);
    c->layer = eh->layer;
    c->list[c->n++] = (struct collected){eh->epoch, *eh->histogram};
    return 0;
}

static json_t *json_point(const struct collected *at) {
    const struct histogram *h = &at->histogram;
    json_t *counts = json_array();
    for (size_t bin = 0; bin < HISTOGRAM_BINS; bin++)
        json_array_append_new(counts, json_integer((json_int_t)h->counts[bin]));
    return json_pack("{s:i, s:I, s:I, s:f, s:o}", "epoch", at->epoch, "zero_count",
                     (json_int_t)h->zero_count, "total", (json_int_t)h->total, "maximum",
                     h->maximum, "counts", counts);
}

/* All points have the same edges; the last one covers all maxima. */
static json_t *json_series(const struct experiment *e, const struct collection *c, size_t points) {
    json_t *series = json_array(), *edges = json_array();
    double top = 2 * histogram_edges[HISTOGRAM_BINS - 1];
    points = c->n < points ? c->n : points;
    for (size_t i = 0; i < points; i++) {
        const struct collected *at =
            &c->list[points == 1 ? c->n - 1 : i * (c->n - 1) / (points - 1)];
        json_array_append_new(series, json_point(at));
        top = at->histogram.maximum > top ? at->histogram.maximum : top;
    }
    for (size_t bin = 0; bin < HISTOGRAM_BINS; bin++)
        json_array_append_new(edges, json_real(histogram_edges[bin]));
    json_array_append_new(edges, json_real(top));
    return json_pack("{s:s, s:o, s:s?, s:o, s:o}", "experiment", e->id, "layer",
                     c->layer < 0 ? json_null() : json_layer(c->layer), "split",
                     c->n ? c->split : NULL, "edges", edges, "series", series);
}

struct reply *handle_histograms(struct request *request) {
    struct api *api = request->context;
    struct experiment e;
    struct ovr_err err = {0};
    struct collection c = {.layer = -1};
    int64_t from = 1, points = 100;
    struct reply *reply = query_int(request, "from_epoch", 1, 1000000, &from);
    if (!reply)
        reply = query_int(request, "max_points", 1, SERIES_POINTS, &points);
    if (!reply)
        reply = query_layer(request, &c.layer);
    if (reply)
        return reply;
    if (store_get_experiment(api->store, request->segments[0], &e, &err))
        return problem_from(&err);
    if (store_read_histograms(api->store, e.seq, c.layer, (int)from, SERIES_READ, collect, &c,
                              &err)) {
        reply = problem_from(&err);
    } else {
        reply = reply_json(200, json_series(&e, &c, (size_t)points));
        reply = reply_etag(reply, "%lld", (long long)e.revision);
        if (c.n == SERIES_READ)
            reply = reply_header(reply, "Link",
                                 "</v1/experiments/%s/"
                                 "histograms?from_epoch=%d&layer=%d&max_points=%d>; rel=\"next\"",
                                 e.id, c.list[c.n - 1].epoch + 1, c.layer, (int)points);
    }
    free(c.list);
    experiment_release(&e);
    return reply;
}

/* "ID", "ID:best" or "ID:EPOCH". */
static struct reply *read_side(const struct request *request, const char *name, char id[ID_SIZE],
                               struct source *s) {
    const char *text = request_query(request, name);
    const char *colon = text ? strchr(text, ':') : NULL;
    size_t n = colon ? (size_t)(colon - text) : text ? strlen(text) : 0;
    char *end;
    if (n == 0)
        return problem(422, "invalid-query",
                       "%s must name an experiment, with an epoch or not: ID, ID:best or ID:3",
                       name);
    snprintf(id, ID_SIZE, "%.*s", (int)(n < ID_SIZE ? n : ID_SIZE - 1), text);
    if (n >= ID_SIZE)
        return problem(404, "not-found", "there is no experiment %.*s", n < 40 ? (int)n : 40, text);
    if (!colon || strcmp(colon + 1, "best") == 0)
        return NULL;
    long epoch = strtol(colon + 1, &end, 10);
    if (colon[1] < '0' || colon[1] > '9' || *end || epoch < 1 || epoch > 1000000)
        return problem(422, "invalid-query",
                       "the epoch of %s must be best or an integer 1..1000000, got \"%.40s\"", name,
                       colon + 1);
    s->epoch = (int)epoch;
    return NULL;
}

static json_t *json_side(const struct source *s) {
    return json_pack("{s:s, s:s, s:o, s:o, s:s, s:I, s:I, s:f}", "experiment", s->experiment.id,
                     "name", s->experiment.name, "layer", json_layer(s->layer), "epoch",
                     json_epoch(s->epoch), "split", s->split, "zero_count",
                     (json_int_t)s->histogram.zero_count, "total", (json_int_t)s->histogram.total,
                     "maximum", s->histogram.maximum);
}

struct reply *handle_compare(struct request *request) {
    struct api *api = request->context;
    struct source a = {.layer = -1}, b = {0};
    char id_a[ID_SIZE], id_b[ID_SIZE];
    struct reply *reply = query_layer(request, &a.layer);
    b.layer = a.layer;
    if (!reply)
        reply = read_side(request, "a", id_a, &a);
    if (!reply)
        reply = read_side(request, "b", id_b, &b);
    if (!reply)
        reply = find_source(api, id_a, &a);
    if (!reply)
        reply = find_source(api, id_b, &b);
    if (!reply) {
        struct histogram_distance d = histogram_compare(&a.histogram, &b.histogram);
        reply = reply_json(200, json_pack("{s:o, s:o, s:o, s:o}", "a", json_side(&a), "b",
                                          json_side(&b), "ks", json_real_or_null(d.ks),
                                          "wasserstein", json_real_or_null(d.wasserstein)));
        reply = reply_etag(reply, "%lld-%lld", (long long)a.experiment.revision,
                           (long long)b.experiment.revision);
    }
    experiment_release(&a.experiment);
    experiment_release(&b.experiment);
    return reply;
}
