/* What the units of the first layer look for, as pictures: their weights mapped back through the
 * preprocessing (core/inverse.h) to the values that an image of the data set has. */
#include "api/api.h"
#include "api/tiles.h"
#include "core/inverse.h"

#include <math.h>
#include <stdlib.h>

enum { UNITS = 100, UNITS_MAX = 1000 }; /* by default, and at most */

struct view {
    struct experiment experiment;
    struct model *model;
    const struct model_facts *facts;
    const real *weights; /* units×inputs */
    size_t units, inputs, first, end;
};

static struct reply *open_view(struct request *request, struct view *v) {
    struct api *api = request->context;
    struct ovr_err err = {0};
    if (store_get_experiment(api->store, request->segments[0], &v->experiment, &err))
        return problem_from(&err);
    if (v->experiment.state != STATE_SUCCEEDED)
        return problem(404, "not-found", "experiment %s is %s and has no weights", v->experiment.id,
                       state_names[v->experiment.state]);
    if (models_open(api->models, &v->experiment, &v->model, &err))
        return problem_from(&err);
    v->facts = model_facts(v->model);
    v->weights = model_first_weights(v->model, &v->units, &v->inputs);
    if (!v->weights)
        return problem(422, "no-images",
                       "the model of experiment %s is its data themselves and "
                       "has no weights",
                       v->experiment.id);
    if (!v->facts->image.channels)
        return problem(422, "no-images",
                       "filters are pictures, and the samples of experiment %s have no image shape",
                       v->experiment.id);
    v->end = min_size(v->units, UNITS);
    return query_range(request, "units", v->units, UNITS_MAX, &v->first, &v->end);
}

/* Weights say a direction: no change is gray. Centroids are points among the samples: from the
 * least of their values to the largest. */
static void draw(struct tiles *tiles, const struct view *v, const real *rows, int points) {
    size_t d = v->facts->n_inputs;
    for (size_t i = 0; i < v->end - v->first; i++) {
        double low = INFINITY, high = -INFINITY;
        for (size_t j = 0; j < d; j++) {
            low = fmin(low, (double)rows[i * d + j]);
            high = fmax(high, (double)rows[i * d + j]);
        }
        double most = fmax(fabs(low), fabs(high));
        tiles_draw(tiles, i, rows + i * d, points ? low : -most, points ? high : most);
    }
}

static struct reply *show(const struct view *v) {
    int points = v->facts->kind == MODEL_KMEANS || v->facts->kind == MODEL_ONLINE_KMEANS;
    size_t n = v->end - v->first;
    struct ovr_err err = {0};
    struct tiles tiles;
    struct reply *reply = tiles_open(&tiles, &v->facts->image, n, "units");
    if (reply)
        return reply;
    real *rows = ovr_malloc(n * v->facts->n_inputs, sizeof *rows);
    int rc = rows ? preprocess_invert(v->facts->preprocess, points,
                                      v->weights + v->first * v->inputs, n, rows, &err)
                  : ovr_nomem(&err, "filters");
    if (!rc)
        draw(&tiles, v, rows, points);
    free(rows);
    if (!rc)
        return tiles_reply(&tiles);
    tiles_close(&tiles);
    return problem_from(&err);
}

struct reply *handle_filters(struct request *request) {
    struct api *api = request->context;
    struct view view = {.model = NULL};
    struct reply *reply = open_view(request, &view);
    if (!reply)
        reply = reply_etag(show(&view), "%lld", (long long)view.experiment.revision);
    models_close(api->models, view.model);
    experiment_release(&view.experiment);
    return reply;
}
