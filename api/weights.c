/* Learned weights: the list of tensors, and one tensor as NPY or JSON, streamed from its file. */
#include "server/weights.h"
#include "api/api.h"
#include "core/npy.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static struct reply *read_epoch(const struct request *request, const char **epoch) {
    *epoch = request_query(request, "epoch");
    if (!*epoch)
        *epoch = "best";
    if (strcmp(*epoch, "best") && strcmp(*epoch, "last"))
        return problem(422, "invalid-query", "epoch must be best or last, got \"%.40s\"", *epoch);
    return NULL;
}

static struct reply *no_weights(const struct experiment *e) {
    return problem(404, "not-found", "experiment %s is %s and has no weights%s", e->id,
                   state_names[e->state],
                   e->state == STATE_QUEUED || e->state == STATE_RUNNING
                       ? " yet; they are there when it has succeeded"
                       : "");
}

/* The experiment's tensors; on failure the reply that says why. The caller frees both. */
static struct reply *find_tensors(const struct request *request, struct experiment *e,
                                  struct tensor **tensors, size_t *n) {
    struct api *api = request->context;
    struct ovr_err err = {0};
    const char *epoch;
    struct reply *reply = read_epoch(request, &epoch);
    if (reply)
        return reply;
    if (store_get_experiment(api->store, request->segments[0], e, &err))
        return problem_from(&err);
    if (store_read_tensors(api->store, e->seq, epoch, tensors, n, &err))
        reply = problem_from(&err);
    else if (*n == 0)
        reply = no_weights(e);
    return reply;
}

static json_t *json_shape(const struct tensor *t) {
    if (t->dimensions == 1)
        return json_pack("[I]", (json_int_t)t->rows);
    return json_pack("[I, I]", (json_int_t)t->rows, (json_int_t)t->columns);
}

struct reply *handle_weights(struct request *request) {
    struct experiment e = {0};
    struct tensor *tensors = NULL;
    size_t n = 0;
    struct reply *reply = find_tensors(request, &e, &tensors, &n);
    if (!reply) {
        json_t *list = json_array();
        for (size_t i = 0; i < n; i++)
            json_array_append_new(list,
                                  json_pack("{s:s, s:o, s:s}", "name", tensors[i].name, "shape",
                                            json_shape(&tensors[i]), "dtype", tensors[i].dtype));
        reply =
            reply_json(200, json_pack("{s:s, s:o}", "epoch", tensors[0].epoch, "tensors", list));
        reply = reply_etag(reply, "%lld", (long long)e.revision);
    }
    experiment_release(&e);
    free(tensors);
    return reply;
}

/* A tensor on its way out. */
struct sending {
    struct tensor tensor;
    size_t first, end; /* rows */
    struct npy_map file;
    char head[512]; /* what goes before the numbers */
    size_t head_bytes;
    size_t row, column; /* JSON: the next number */
    int stage;          /* JSON: head, numbers, tail, end */
};

static void release(void *context) {
    struct sending *s = context;
    npy_unmap(&s->file);
    free(s);
}

static int64_t read_npy(void *context, uint64_t position, char *out, size_t room) {
    const struct sending *s = context;
    size_t row_bytes = s->tensor.columns * sizeof(float);
    uint64_t total = s->head_bytes + (s->end - s->first) * row_bytes;
    if (position >= total)
        return 0;
    const char *from = s->head + position;
    size_t left = s->head_bytes - (size_t)position;
    if (position >= s->head_bytes) {
        from = (const char *)s->file.numbers + s->first * row_bytes + (position - s->head_bytes);
        left = (size_t)(total - position);
    }
    size_t n = left < room ? left : room;
    memcpy(out, from, n);
    return (int64_t)n;
}

/* Nine digits bring a float32 back exactly. */
static size_t print_number(const struct sending *s, char *out, size_t room) {
    float value = s->file.numbers[s->row * s->tensor.columns + s->column];
    const char *before = s->tensor.dimensions == 2 && s->column == 0 ? "[" : "";
    const char *after = s->column + 1 < s->tensor.columns ? ","
                        : s->tensor.dimensions == 1       ? (s->row + 1 < s->end ? "," : "")
                        : s->row + 1 < s->end             ? "],"
                                                          : "]";
    if (!isfinite(value))
        return (size_t)snprintf(out, room, "%snull%s", before, after);
    return (size_t)snprintf(out, room, "%s%.9g%s", before, (double)value, after);
}

static int64_t read_json(void *context, uint64_t position, char *out, size_t room) {
    enum { LONGEST = 32 }; /* of one number with its brackets */
    struct sending *s = context;
    size_t n = 0;
    (void)position;
    if (s->stage == 0 && room >= s->head_bytes) {
        memcpy(out, s->head, s->head_bytes);
        n = s->head_bytes;
        s->stage = 1;
    }
    while (s->stage == 1 && room - n >= LONGEST) {
        n += print_number(s, out + n, room - n);
        if (++s->column < s->tensor.columns)
            continue;
        s->column = 0;
        s->stage = ++s->row < s->end ? 1 : 2;
    }
    if (s->stage == 2 && room - n >= 4) {
        memcpy(out + n, "]}\n", 3);
        n += 3;
        s->stage = 3;
    }
    return (int64_t)n;
}

static struct reply *open_tensor(const struct api *api, const struct experiment *e,
                                 struct sending *s) {
    char path[1024];
    weights_path(api->data_dir, e->id, &s->tensor, path, sizeof path);
    if (npy_map(&s->file, path, s->tensor.rows, s->tensor.columns, NULL))
        return problem(500, "storage", "the file of tensor %s is damaged or cannot be read",
                       s->tensor.name);
    return NULL;
}

static struct reply *read_rows(const struct request *request, struct sending *s) {
    const char *text = request_query(request, "rows");
    unsigned long long first = 0, end = s->tensor.rows;
    int used = 0;
    if (text && (sscanf(text, "%19llu:%19llu%n", &first, &end, &used) != 2 || text[used] ||
                 text[0] < '0' || text[0] > '9' || first >= end || end > s->tensor.rows))
        return problem(422, "invalid-query",
                       "rows must be first:end with 0 <= first < end <= %zu, such as 0:%zu, got "
                       "\"%.40s\"",
                       s->tensor.rows, s->tensor.rows < 64 ? s->tensor.rows : 64, text);
    s->first = s->row = (size_t)first;
    s->end = (size_t)end;
    return NULL;
}

static struct reply *send_npy(struct sending *s) {
    npy_header(s->head, s->tensor.dtype, s->tensor.dimensions, s->end - s->first,
               s->tensor.columns);
    s->head_bytes = NPY_HEADER;
    size_t bytes = NPY_HEADER + (s->end - s->first) * s->tensor.columns * sizeof(float);
    char name[sizeof s->tensor.name];
    memcpy(name, s->tensor.name, sizeof name);
    struct reply *reply =
        reply_stream(200, "application/octet-stream", (int64_t)bytes, read_npy, release, s);
    return reply_header(reply, "Content-Disposition", "attachment; filename=\"%s.npy\"", name);
}

static struct reply *send_json(struct sending *s) {
    char shape[64];
    const struct tensor *t = &s->tensor;
    if (t->dimensions == 1)
        snprintf(shape, sizeof shape, "%zu", t->rows);
    else
        snprintf(shape, sizeof shape, "%zu,%zu", t->rows, t->columns);
    s->head_bytes = (size_t)snprintf(
        s->head, sizeof s->head,
        "{\"name\":\"%s\",\"shape\":[%s],\"dtype\":\"%s\",\"rows\":[%zu,%zu],\"data\":[", t->name,
        shape, t->dtype, s->first, s->end);
    return reply_stream(200, "application/json", -1, read_json, release, s);
}

static struct reply *send_tensor(const struct request *request, const struct experiment *e,
                                 const struct tensor *tensor) {
    const char *format = request_query(request, "format");
    if (format && strcmp(format, "json") && strcmp(format, "npy"))
        return problem(422, "invalid-query", "format must be json or npy, got \"%.40s\"", format);
    struct sending *s = calloc(1, sizeof *s);
    struct ovr_err err = {0};
    if (!s && ovr_nomem(&err, "a tensor"))
        return problem_from(&err);
    s->tensor = *tensor;
    struct reply *reply = read_rows(request, s);
    if (!reply)
        reply = open_tensor(request->context, e, s);
    if (reply) {
        release(s);
        return reply;
    }
    reply = format && strcmp(format, "npy") == 0 ? send_npy(s) : send_json(s);
    return reply_etag(reply, "%lld-%s", (long long)e->revision, tensor->epoch);
}

struct reply *handle_tensor(struct request *request) {
    struct experiment e = {0};
    struct tensor *tensors = NULL;
    size_t n = 0, found = 0;
    struct reply *reply = find_tensors(request, &e, &tensors, &n);
    while (!reply && found < n && strcmp(tensors[found].name, request->segments[1]))
        found++;
    if (!reply && found == n)
        reply = problem(404, "not-found",
                        "experiment %s has no tensor %.60s; /v1/experiments/%s/weights lists them",
                        e.id, request->segments[1], e.id);
    if (!reply)
        reply = send_tensor(request, &e, &tensors[found]);
    experiment_release(&e);
    free(tensors);
    return reply;
}
