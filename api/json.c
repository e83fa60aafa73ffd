#include "api/api.h"
#include "server/log.h"

#include <math.h>
#include <string.h>

json_t *json_time(int64_t ms) {
    char text[48];
    if (!ms)
        return json_null();
    format_time(ms, text, sizeof text);
    return json_string(text);
}

json_t *json_real_or_null(double value) {
    return isfinite(value) ? json_real(value) : json_null();
}

json_t *json_owner(const char *name) {
    return *name ? json_string(name) : json_null();
}

static json_t *figure_value(const struct figure *figure) {
    switch (figure->kind) {
    case FIGURE_TEXT:
        return json_string(figure->text);
    case FIGURE_COUNT:
        return json_integer(figure->count);
    default:
        return json_real_or_null(figure->real);
    }
}

/* The object at object[name], made if it is not there. */
static json_t *descend(json_t *object, const char *name, size_t n) {
    json_t *inner = json_object_getn(object, name, n);
    if (inner)
        return inner;
    inner = json_object();
    return json_object_setn_new(object, name, n, inner) ? NULL : inner;
}

static int note_nonfinite(json_t *object, const char *name) {
    json_t *list = json_object_get(object, "nonfinite");
    if (!list) {
        list = json_array();
        if (json_object_set_new(object, "nonfinite", list))
            return OVR_NOMEM;
    }
    return json_array_append_new(list, json_string(name)) ? OVR_NOMEM : 0;
}

int json_put_figure(json_t *object, const struct figure *figure) {
    json_t *to = object;
    const char *name = figure->name;
    for (const char *dot; to && (dot = strchr(name, '.')); name = dot + 1)
        to = descend(to, name, (size_t)(dot - name));
    if (!to || json_object_set_new(to, name, figure_value(figure)))
        return OVR_NOMEM;
    if (figure->kind == FIGURE_REAL && !isfinite(figure->real))
        return note_nonfinite(object, figure->name);
    return 0;
}

json_t *json_tags(const char *tags) {
    json_t *list = json_array();
    while (*tags) {
        size_t n = strcspn(tags, "\n");
        if (n)
            json_array_append_new(list, json_stringn(tags, n));
        tags += n + (tags[n] == '\n');
    }
    return list;
}

json_t *json_progress(struct api *api, const char *id) {
    static const char *const phases[] = {[PHASE_PREPARING] = "preparing",
                                         [PHASE_TRAINING] = "training",
                                         [PHASE_PROBING] = "probing"};
    struct progress p;
    if (!executors_poll(&api->executors, id, &p))
        return json_null();
    return json_pack("{s:s, s:i, s:i, s:I, s:I, s:o, s:o, s:i}", "phase", phases[p.phase], "epoch",
                     p.epoch, "epochs", p.epochs, "step", (json_int_t)p.step, "steps",
                     (json_int_t)p.steps, "eta_seconds", json_real_or_null(p.eta_seconds),
                     "samples_per_second", json_real_or_null(p.samples_per_second), "threads",
                     p.threads);
}

static json_t *json_queue(const struct experiment *e, const struct queue_place *place) {
    if (e->state != STATE_QUEUED)
        return json_null();
    return json_pack("{s:I, s:s, s:s, s:o, s:s?}", "position", (json_int_t)place->position,
                     "reason", place->reason, "reason_code", place->reason_code, "estimated_start",
                     json_time(place->starts_at), "requeued_because", e->queue_reason);
}

json_t *json_problem(const char *kind, const char *pointer, const char *detail) {
    if (!kind)
        return json_null();
    json_t *error = json_pack("{s:s+, s:s, s:s?}", "type", "/problems/", kind, "title",
                              problem_title(kind), "detail", detail);
    if (error && pointer)
        json_object_set_new(error, "errors",
                            json_pack("[{s:s, s:s?}]", "pointer", pointer, "detail", detail));
    return error;
}

/* Where it stands in its sweep; three nulls where it is in none. */
static int put_sweep(json_t *object, const struct experiment *e) {
    json_t *place = *e->sweep ? json_pack("{s:s, s:i, s:i}", "sweep", e->sweep, "point", e->point,
                                          "repeat", e->repeat)
                              : json_pack("{s:n, s:n, s:n}", "sweep", "point", "repeat");
    int failed = !place || json_object_update(object, place);
    json_decref(place);
    return failed;
}

static int put_origin(json_t *object, const struct experiment *e) {
    json_t *id = *e->rerun_of ? json_string(e->rerun_of) : json_null();
    return json_object_set_new(object, "rerun_of", id) ||
           json_object_set_new(object, "replays", json_boolean(e->replays));
}

static json_t *json_links(const struct experiment *e) {
    static const char *const names[] = {"metrics", "histogram", "histograms", "units",
                                        "weights", "events",    "log",        "cancel"};
    json_t *links = json_pack("{s:s+}", "self", "/v1/experiments/", e->id);
    for (size_t i = 0; links && i < sizeof names / sizeof *names; i++)
        json_object_set_new(links, names[i],
                            json_sprintf("/v1/experiments/%s/%s", e->id, names[i]));
    return links;
}

int json_put_place(json_t *object, const struct experiment *e) {
    json_t *place =
        json_pack("{s:s, s:i, s:s?, s:s?}", "executor", executor_names[e->executor], "ranks",
                  e->ranks, "job", *e->job ? e->job : NULL, "node", *e->node ? e->node : NULL);
    int failed = !place || json_object_update(object, place);
    json_decref(place);
    return failed ? OVR_NOMEM : 0;
}

/* All but the result, the provenance and the spec. */
static json_t *json_head(struct api *api, const struct experiment *e,
                         const struct queue_place *place, int whole, json_t *warnings) {
    json_t *object = json_pack(
        "{s:s, s:s, s:o, s:b, s:s, s:I, s:o, s:i, s:i, s:o, s:o, s:o, s:o, s:o, s:o}", "id", e->id,
        "name", e->name, "owner", json_owner(e->owner), "private", e->private, "state",
        state_names[e->state], "revision", (json_int_t)e->revision, "tags", json_tags(e->tags),
        "priority", e->priority, "attempts", e->attempts, "created_at", json_time(e->created_at),
        "started_at", json_time(e->started_at), "finished_at", json_time(e->finished_at),
        "progress", e->state == STATE_RUNNING ? json_progress(api, e->id) : json_null(), "queue",
        json_queue(e, place), "error",
        json_problem(e->problem_kind, e->problem_pointer, e->problem_detail));
    int failed = !object || put_sweep(object, e) || put_origin(object, e) ||
                 json_put_place(object, e) || json_object_set_new(object, "links", json_links(e)) ||
                 (whole && json_object_set_new(object, "notes", json_string(e->notes))) ||
                 (json_array_size(warnings) && json_object_set(object, "warnings", warnings));
    if (!failed)
        return object;
    json_decref(object);
    return NULL;
}

int text_add_experiment(struct text *text, struct api *api, const struct experiment *e, int whole,
                        json_t *warnings, struct ovr_err *err) {
    struct queue_place place;
    int rc = e->state == STATE_QUEUED ? queue_find(api->queue, e, &place, err) : 0;
    if (rc)
        return rc;
    json_t *head = json_head(api, e, &place, whole, warnings);
    int failed = text_add_json(text, head);
    json_decref(head);
    if (!failed && whole)
        failed = text_add_member(text, "spec", e->spec);
    if (!failed && e->state == STATE_SUCCEEDED)
        rc = outcomes_add(api->outcomes, e->seq, whole, text, err);
    else if (!failed)
        failed = text_add_member(text, "result", "null") ||
                 (whole && text_add_member(text, "provenance", "null"));
    return failed ? ovr_nomem(err, "an experiment as JSON") : rc;
}

/* [d], or that of an image in the order of its values. */
static json_t *json_shape(const struct dataset_split *s) {
    const struct image_shape *image = &s->image;
    json_int_t c = (json_int_t)image->channels, h = (json_int_t)image->height;
    json_int_t w = (json_int_t)image->width;
    if (!c)
        return json_pack("[I]", (json_int_t)s->width);
    return image->interleaved ? json_pack("[I, I, I]", h, w, c) : json_pack("[I, I, I]", c, h, w);
}

static json_t *json_image(const struct image_shape *image) {
    if (!image->channels)
        return json_null();
    return json_pack("{s:I, s:I, s:I}", "channels", (json_int_t)image->channels, "height",
                     (json_int_t)image->height, "width", (json_int_t)image->width);
}

json_t *json_split(const struct dataset_split *s) {
    return json_pack("{s:s, s:s, s:s, s:o, s:s, s:I, s:I, s:I, s:o, s:o, s:I, s:o, s:o}", "dataset",
                     s->dataset, "split", s->split, "sha256", s->sha256, "source_sha256",
                     *s->source_sha256 ? json_string(s->source_sha256) : json_null(), "format",
                     s->format, "bytes", (json_int_t)s->bytes, "samples", (json_int_t)s->samples,
                     "values_per_sample", (json_int_t)s->width, "shape", json_shape(s), "image",
                     json_image(&s->image), "classes", (json_int_t)s->classes, "created_at",
                     json_time(s->created_at), "owner", json_owner(s->owner));
}
