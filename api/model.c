/* A whole model in one file: safetensors, which is
 *
 *   n, 8 bytes little-endian | n bytes of JSON, filled up with spaces | the tensors one by one
 *
 * with all tensors of the best epoch (server/weights.h), preprocessing and probe among them, and
 * what else is needed to use them as texts in "__metadata__". Streamed from the tensors' files. */
#include "api/api.h"
#include "core/npy.h"
#include "server/weights.h"

#include <stdlib.h>
#include <string.h>

struct export {
    struct experiment experiment;
    struct tensor *tensors;
    size_t n;
    struct npy_map *maps; /* n: stay readable when the files are removed meanwhile */
    char *head;           /* with its length before it */
    size_t head_bytes;
};

static void release(void *context) {
    struct export *e = context;
    for (size_t i = 0; e->maps && i < e->n; i++)
        npy_unmap(&e->maps[i]);
    experiment_release(&e->experiment);
    free(e->maps);
    free(e->tensors);
    free(e->head);
    free(e);
}

static size_t tensor_bytes(const struct tensor *t) {
    return t->rows * t->columns * sizeof(float);
}

static int64_t read_export(void *context, uint64_t position, char *out, size_t room) {
    const struct export *e = context;
    const char *from = e->head;
    uint64_t bytes = e->head_bytes;
    for (size_t i = 0; position >= bytes; i++) {
        position -= bytes;
        if (i == e->n)
            return 0;
        from = (const char *)e->maps[i].numbers;
        bytes = tensor_bytes(&e->tensors[i]);
    }
    size_t n = bytes - position < room ? (size_t)(bytes - position) : room;
    memcpy(out, from + position, n);
    return (int64_t)n;
}

static json_t *json_tensor(const struct tensor *t, uint64_t at) {
    json_t *shape = t->dimensions == 1
                        ? json_pack("[I]", (json_int_t)t->rows)
                        : json_pack("[I, I]", (json_int_t)t->rows, (json_int_t)t->columns);
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", "F32", "shape", shape, "data_offsets",
                     (json_int_t)at, (json_int_t)(at + tensor_bytes(t)));
}

/* A part of the spec as text; nothing where the spec has no such part. */
static void add_part(json_t *metadata, const char *name, const json_t *part) {
    char *text = part && !json_is_string(part) ? json_dumps(part, JSON_COMPACT) : NULL;
    const char *plain = json_is_string(part) ? json_string_value(part) : text;
    if (plain)
        json_object_set_new(metadata, name, json_string(plain));
    free(text);
}

static json_t *json_names(const char *names, size_t n) {
    json_t *list = json_array();
    for (size_t c = 0; c < n; c++, names += strlen(names) + 1)
        json_array_append_new(list, json_string(names));
    return list;
}

/* The names of classes, where the data have any. */
static void add_class_names(const struct api *api, json_t *metadata, const json_t *dataset) {
    struct dataset_split split = {0};
    struct samples samples = {0};
    const char *name = json_string_value(json_object_get(dataset, "name"));
    const char *sha256 = json_string_value(json_object_get(dataset, "train_sha256"));
    if (!name || store_get_split(api->store, name, "train", sha256 ? sha256 : "", &split, NULL) ||
        !split.named || catalog_open_split(api->catalog, &split, &samples, NULL))
        return;
    if (samples.class_names) {
        json_t *names = json_names(samples.class_names, samples.n_classes);
        add_part(metadata, "class_names", names);
        json_decref(names);
    }
    samples_release(&samples);
}

/* All values are texts: the format wants it so. */
static json_t *json_metadata(const struct api *api, const struct experiment *e) {
    json_t *spec = json_loads(e->spec, 0, NULL);
    json_t *metadata = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s}", "format", "ovrd", "program",
                                 "ovrd " OVRD_VERSION, "experiment", e->id, "name",
                                 e->name ? e->name : "", "epoch", "best", "spec", e->spec);
    if (spec && metadata) {
        const json_t *dataset = json_object_get(spec, "dataset");
        add_part(metadata, "kind", json_object_get(json_object_get(spec, "model"), "kind"));
        add_part(metadata, "preprocess", json_object_get(spec, "preprocess"));
        add_part(metadata, "dataset", dataset);
        add_class_names(api, metadata, dataset);
    }
    json_decref(spec);
    return metadata;
}

static int make_head(const struct api *api, struct export *e, struct ovr_err *err) {
    json_t *head = json_object();
    uint64_t at = 0;
    json_object_set_new(head, "__metadata__", json_metadata(api, &e->experiment));
    for (size_t i = 0; i < e->n; i++) {
        json_object_set_new(head, e->tensors[i].name, json_tensor(&e->tensors[i], at));
        at += tensor_bytes(&e->tensors[i]);
    }
    int whole = json_object_size(head) == e->n + 1;
    char *text = whole ? json_dumps(head, JSON_COMPACT) : NULL;
    json_decref(head);
    size_t n = text ? strlen(text) : 0, padded = (n + 7) / 8 * 8;
    e->head = text ? malloc(8 + padded) : NULL;
    if (e->head) {
        for (int i = 0; i < 8; i++)
            e->head[i] = (char)(padded >> 8 * i & 0xff);
        memset(e->head + 8, ' ', padded);
        memcpy(e->head + 8, text, n);
        e->head_bytes = 8 + padded;
    }
    free(text);
    return e->head ? 0 : ovr_nomem(err, "a model's header");
}

static struct reply *map_files(const struct api *api, struct export *e) {
    e->maps = calloc(e->n, sizeof *e->maps);
    for (size_t i = 0; e->maps && i < e->n; i++) {
        char path[1024];
        weights_path(api->data_dir, e->experiment.id, &e->tensors[i], path, sizeof path);
        if (npy_map(&e->maps[i], path, e->tensors[i].rows, e->tensors[i].columns, NULL))
            return problem(500, "storage", "the file of tensor %s is damaged or cannot be read",
                           e->tensors[i].name);
    }
    return e->maps ? NULL : problem_from(&(struct ovr_err){OVR_NOMEM, "", "not enough memory"});
}

static struct reply *open_export(const struct request *request, struct export *e) {
    struct api *api = request->context;
    const char *format = request_query(request, "format");
    struct ovr_err err = {0};
    if (format && strcmp(format, "safetensors"))
        return problem(422, "invalid-query", "format must be safetensors, got \"%.40s\"", format);
    if (store_get_experiment(api->store, request->segments[0], &e->experiment, &err) ||
        store_read_tensors(api->store, e->experiment.seq, "best", &e->tensors, &e->n, &err))
        return problem_from(&err);
    if (e->experiment.state != STATE_SUCCEEDED)
        return problem(404, "not-found", "experiment %s is %s and has no model", e->experiment.id,
                       state_names[e->experiment.state]);
    struct reply *reply = map_files(api, e);
    return !reply && make_head(api, e, &err) ? problem_from(&err) : reply;
}

struct reply *handle_model(struct request *request) {
    struct export *e = calloc(1, sizeof *e);
    if (!e)
        return NULL;
    struct reply *reply = open_export(request, e);
    if (reply) {
        release(e);
        return reply;
    }
    uint64_t bytes = e->head_bytes;
    for (size_t i = 0; i < e->n; i++)
        bytes += tensor_bytes(&e->tensors[i]);
    char id[ID_SIZE];
    memcpy(id, e->experiment.id, sizeof id);
    long long revision = (long long)e->experiment.revision;
    reply = reply_stream(200, "application/octet-stream", (int64_t)bytes, read_export, release, e);
    reply =
        reply_header(reply, "Content-Disposition", "attachment; filename=\"%s.safetensors\"", id);
    return reply_etag(reply, "%lld", revision);
}
