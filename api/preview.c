/* The first samples of a split, as numbers or as a picture. */
#include "api/api.h"
#include "api/tiles.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    ROWS = 10,             /* by default */
    ROWS_MAX = 100,        /* of one answer */
    NUMBERS_MAX = 1 << 19, /* of one answer */
    FEATURES = 3072,       /* by default at most */
};

/* What a request asks to see. */
struct view {
    struct dataset_split split;
    struct samples samples;
    size_t first, end;                 /* rows */
    size_t first_feature, end_feature; /* values of each */
};

static json_t *json_names(const char *names, size_t first, size_t end) {
    if (!names)
        return json_null();
    json_t *list = json_array();
    for (size_t i = 0; i < end; i++, names += strlen(names) + 1)
        if (i >= first)
            json_array_append_new(list, json_string(names));
    return list;
}

static json_t *json_values(const struct view *v, const real *row) {
    json_t *list = json_array();
    for (size_t j = v->first_feature; j < v->end_feature; j++)
        json_array_append_new(list, v->samples.bytes ? json_integer((json_int_t)row[j])
                                                     : json_real((double)row[j]));
    return list;
}

static struct reply *show_numbers(const struct view *v) {
    const struct samples *s = &v->samples;
    json_t *labels = json_array(), *values = json_array();
    json_t *names = s->class_names ? json_array() : json_null();
    real *row = ovr_malloc(s->d, sizeof *row);
    for (size_t i = v->first; row && i < v->end; i++) {
        char text[16];
        samples_row(s, i, row);
        json_array_append_new(labels, json_integer(s->labels[i]));
        json_array_append_new(values, json_values(v, row));
        if (s->class_names)
            json_array_append_new(names, json_string(samples_class_name(s, s->labels[i], text)));
    }
    json_t *body = json_pack(
        "{s:s, s:s, s:s, s:[I,I], s:[I,I], s:o, s:o, s:o, s:o}", "dataset", v->split.dataset,
        "split", v->split.split, "sha256", v->split.sha256, "rows", (json_int_t)v->first,
        (json_int_t)v->end, "features", (json_int_t)v->first_feature, (json_int_t)v->end_feature,
        "feature_names", json_names(s->feature_names, v->first_feature, v->end_feature), "labels",
        labels, "label_names", names, "values", values);
    if (!row) {
        json_decref(body);
        body = NULL;
    }
    free(row);
    return reply_json(200, body);
}

/* The least and the largest of the values shown: black and white. Bytes are what they are. */
static void find_range(const struct view *v, real *row, double *low, double *high) {
    *low = 0;
    *high = 255;
    if (v->samples.bytes)
        return;
    *low = INFINITY;
    *high = -INFINITY;
    for (size_t i = v->first; i < v->end; i++) {
        samples_row(&v->samples, i, row);
        for (size_t j = 0; j < v->samples.d; j++) {
            *low = fmin(*low, row[j]);
            *high = fmax(*high, row[j]);
        }
    }
}

static struct reply *show_picture(const struct view *v) {
    size_t n = v->end - v->first;
    struct ovr_err err = {0};
    struct tiles tiles;
    double low, high;
    struct reply *reply = tiles_open(&tiles, &v->split.image, n, "rows");
    if (reply)
        return reply;
    real *row = ovr_malloc(v->samples.d, sizeof *row);
    if (!row) {
        tiles_close(&tiles);
        ovr_nomem(&err, "a picture");
        return problem_from(&err);
    }
    find_range(v, row, &low, &high);
    for (size_t i = 0; i < n; i++) {
        samples_row(&v->samples, v->first + i, row);
        tiles_draw(&tiles, i, row, low, high);
    }
    free(row);
    return tiles_reply(&tiles);
}

static struct reply *read_view(const struct request *request, struct view *v, int picture) {
    size_t n = v->samples.n, d = v->samples.d;
    struct reply *reply;
    v->end = min_size(n, picture ? ROWS_MAX : ROWS);
    v->end_feature = min_size(d, FEATURES);
    if ((reply = query_range(request, "rows", n, ROWS_MAX, &v->first, &v->end)) ||
        (reply =
             query_range(request, "features", d, NUMBERS_MAX, &v->first_feature, &v->end_feature)))
        return reply;
    if (!picture && (v->end - v->first) * (v->end_feature - v->first_feature) > NUMBERS_MAX)
        return problem(422, "invalid-query",
                       "rows and features together are more than %d numbers; ask for fewer",
                       NUMBERS_MAX);
    if (picture && !v->split.image.channels)
        return problem(422, "invalid-query",
                       "format=png is for images, and the samples of data set %s have no image "
                       "shape",
                       v->split.dataset);
    return NULL;
}

struct reply *handle_preview(struct request *request) {
    struct api *api = request->context;
    const char *split = request_query(request, "split"), *format = request_query(request, "format");
    struct view v = {.first = 0};
    struct ovr_err err = {0};
    int picture = format && strcmp(format, "png") == 0;
    if (split && strcmp(split, "train") && strcmp(split, "test"))
        return problem(422, "invalid-query", "split must be train or test, got \"%.40s\"", split);
    if (format && !picture && strcmp(format, "json"))
        return problem(422, "invalid-query", "format must be json or png, got \"%.40s\"", format);
    if (store_get_split(api->store, request->segments[0], split ? split : "train", "", &v.split,
                        &err) ||
        catalog_open_split(api->catalog, &v.split, &v.samples, &err))
        return problem_from(&err);
    struct reply *reply = read_view(request, &v, picture);
    if (!reply)
        reply = picture ? show_picture(&v) : show_numbers(&v);
    samples_release(&v.samples);
    return reply;
}
