/* Models at work: encode and predict. Samples come as JSON, as NPY, or are a stored split; results
 * go out as JSON or NPY. Both ways big bodies pass through files without a name (api/spool.h), so
 * that memory is bounded. The handlers are slow ones: they run beside the connections' threads. */
#include "api/api.h"
#include "api/spool.h"
#include "core/npy.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    TEXT_MAX = 8 << 20,    /* bytes of JSON */
    PARSED = 16,           /* so many times as much it takes in memory */
    ARRAY_MAX = 256 << 20, /* bytes of NPY */
    NUMBERS_MAX = 1 << 30, /* of one reply: 4 GiB of NPY */
};

/* ---- The body, as it comes in ---- */

struct body {
    struct api *api;
    char *text; /* JSON; a NUL follows */
    size_t size, room;
    struct intake *intake; /* NPY */
    int fd;                /* of its row file; −1: none */
    uint64_t bytes;
    int over_limit;
    uint64_t reserved;  /* memory of the models' share */
    struct ovr_err err; /* what was wrong with it */
};

static int reserve(struct body *body, uint64_t bytes, struct ovr_err *err) {
    int rc = models_reserve(body->api->models, bytes, err);
    if (!rc)
        body->reserved += bytes;
    return rc;
}

static struct reply *too_large(void) {
    return problem(413, "too-large",
                   "samples are at most %d MiB of JSON or %d MiB of NPY a request; send them in "
                   "several, as NPY, or upload a data set and name it",
                   TEXT_MAX >> 20, ARRAY_MAX >> 20);
}

static void body_free(void *upload) {
    struct body *body = upload;
    intake_free(body->intake);
    if (body->fd >= 0)
        close(body->fd);
    free(body->text);
    models_give_back(body->api->models, body->reserved);
    free(body);
}

static void *body_open(const struct request *request, struct reply **refusal) {
    const char *length = request_header(request, "Content-Length");
    if (length && strtoull(length, NULL, 10) > ARRAY_MAX) {
        *refusal = too_large();
        return NULL;
    }
    struct body *body = calloc(1, sizeof *body);
    if (!body)
        return NULL;
    body->api = request->context;
    body->fd = -1;
    return body;
}

static int begin_array(struct body *body) {
    const struct intake_config config = {.format = INTAKE_NPY, .part = INTAKE_FEATURES};
    body->fd = spool_file(body->api->data_dir, &body->err);
    return body->fd < 0 ? body->fd : intake_open(&body->intake, &config, body->fd, -1, &body->err);
}

static int keep_text(struct body *body, const char *bytes, size_t n) {
    if (body->size + n + 1 > body->room) {
        size_t room = 2 * (body->size + n + 1);
        int rc = reserve(body, room - body->room, &body->err);
        if (rc)
            return rc;
        char *text = realloc(body->text, room);
        if (!text)
            return ovr_nomem(&body->err, "the samples");
        body->text = text;
        body->room = room;
    }
    memcpy(body->text + body->size, bytes, n);
    body->size += n;
    body->text[body->size] = '\0';
    return 0;
}

/* NPY begins with a byte that no JSON has. */
static int body_write(void *upload, const char *bytes, size_t n) {
    struct body *body = upload;
    int rc = 0;
    if (n && !body->bytes && bytes[0] == '\x93')
        rc = begin_array(body);
    body->bytes += n;
    if (!rc && body->bytes > (body->intake ? (uint64_t)ARRAY_MAX : (uint64_t)TEXT_MAX)) {
        body->over_limit = 1;
        rc = OVR_TOO_LARGE;
    }
    if (!rc)
        rc = body->intake ? intake_write(body->intake, bytes, n, &body->err)
                          : keep_text(body, bytes, n);
    return rc;
}

const struct sink samples_sink = {body_open, body_write, body_free};

/* ---- The samples ---- */

/* What one request works with. */
struct task {
    struct request *request;
    struct api *api;
    struct body *body;
    struct experiment experiment;
    struct model *model;
    const struct model_facts *facts;
    struct samples samples;
    int own; /* its own data's: the labels are of its classes */
    int stored;
    int npy; /* the reply's format */
    FILE *spool;
    size_t columns;
    uint16_t *classes; /* predicted, of each sample */
};

static int unfit(struct ovr_err *err, const char *pointer, size_t got, const struct task *task) {
    return ovr_fail(err, OVR_INVALID, pointer,
                    "a sample of experiment %s has %zu values, as its data set has them before any "
                    "preprocessing; here are %zu",
                    task->experiment.id, task->facts->n_inputs, got);
}

static int read_row(const json_t *row, size_t i, const struct task *task, struct ovr_err *err) {
    size_t d = task->facts->n_inputs, j;
    const json_t *value;
    char pointer[64];
    snprintf(pointer, sizeof pointer, "/samples/%zu", i);
    if (!json_is_array(row))
        return ovr_fail(err, OVR_INVALID, pointer, "must be an array of %zu numbers", d);
    if (json_array_size(row) != d)
        return unfit(err, pointer, json_array_size(row), task);
    json_array_foreach(row, j, value) {
        real number = json_is_number(value) ? (real)json_number_value(value) : (real)NAN;
        if (!isfinite(number)) {
            snprintf(pointer, sizeof pointer, "/samples/%zu/%zu", i, j);
            return ovr_fail(err, OVR_INVALID, pointer,
                            "must be a number that is finite as float32");
        }
        task->samples.values[i * d + j] = number;
    }
    return 0;
}

static int read_rows(struct task *task, const json_t *rows, struct ovr_err *err) {
    struct samples *samples = &task->samples;
    size_t i, n = json_array_size(rows), d = task->facts->n_inputs;
    const json_t *row;
    if (!json_is_array(rows) || !n)
        return ovr_fail(err, OVR_INVALID, "/samples",
                        "must be an array of samples, at least one, each an array of %zu numbers",
                        d);
    if (json_is_array(json_array_get(rows, 0)) && json_array_size(json_array_get(rows, 0)) != d)
        return unfit(err, "/samples/0", json_array_size(json_array_get(rows, 0)), task);
    *samples = (struct samples){.n = n, .d = d};
    samples->values = ovr_malloc(n * d, sizeof *samples->values);
    if (!samples->values)
        return ovr_nomem(err, "the samples");
    int rc = 0;
    json_array_foreach(rows, i, row) rc = rc ? rc : read_row(row, i, task, err);
    return rc;
}

/* The data that the experiment itself used: their versions, limits and classes. */
static int open_own(struct task *task, int test, struct ovr_err *err) {
    struct spec *spec = malloc(sizeof *spec);
    struct samples train = {0}, other = {0};
    int rc = spec ? spec_read_stored(task->experiment.spec, spec, err) : ovr_nomem(err, "a spec");
    if (!rc)
        rc = catalog_open_samples(task->api->catalog, spec, 0, &train, &other, err);
    task->samples = test ? other : train;
    task->own = 1;
    samples_release(test ? &train : &other);
    free(spec);
    return rc;
}

static int open_stored(struct task *task, const char *name, const char *split,
                       struct ovr_err *err) {
    struct dataset_split found;
    struct ovr_err why = {0};
    int rc = store_get_split(task->api->store, name, split, "", &found, &why);
    if (rc == OVR_NOT_FOUND)
        return ovr_fail(err, OVR_INVALID, "/dataset/name", "%s", why.text);
    if (rc)
        return ovr_fail(err, rc, NULL, "%s", why.text);
    if ((size_t)found.width != task->facts->n_inputs)
        return unfit(err, "/dataset/name", (size_t)found.width, task);
    return catalog_open_split(task->api->catalog, &found, &task->samples, err);
}

static int read_split(struct task *task, const json_t *document, struct ovr_err *err) {
    const json_t *dataset = json_object_get(document, "dataset");
    const char *name = json_string_value(json_object_get(dataset, "name"));
    const char *split = json_string_value(json_object_get(document, "split"));
    task->stored = 1;
    if (!split || (strcmp(split, "train") && strcmp(split, "test")))
        return ovr_fail(err, OVR_INVALID, "/split", "must be \"train\" or \"test\"");
    if (dataset && (!name || json_object_size(dataset) != 1))
        return ovr_fail(
            err, OVR_INVALID, "/dataset",
            "must be {\"name\": \"…\"}; without it the experiment's own data are meant");
    return dataset ? open_stored(task, name, split, err)
                   : open_own(task, strcmp(split, "test") == 0, err);
}

static int read_document(struct task *task, json_t *document, struct ovr_err *err) {
    const json_t *samples = json_object_get(document, "samples");
    const char *name;
    json_t *value;
    if (!json_is_object(document))
        return ovr_fail(err, OVR_INVALID, "/",
                        "must be an object with samples, or with split and perhaps dataset");
    json_object_foreach(document, name, value) if (strcmp(name, "samples") &&
                                                   (samples || (strcmp(name, "dataset") &&
                                                                strcmp(name, "split")))) {
        char pointer[80];
        snprintf(pointer, sizeof pointer, "/%.60s", name);
        return ovr_fail(err, OVR_INVALID, pointer,
                        "is not known here; send samples, or split and perhaps dataset");
    }
    return samples ? read_rows(task, samples, err) : read_split(task, document, err);
}

/* A row file is read like any other of its kind, by a name that only this process has for it. */
static int read_array(struct task *task, struct ovr_err *err) {
    struct intake_result result;
    char path[64];
    int rc = intake_finish(task->body->intake, &result, err);
    if (rc)
        return rc;
    if (result.d != task->facts->n_inputs)
        return unfit(err, NULL, result.d, task);
    snprintf(path, sizeof path, "/proc/self/fd/%d", task->body->fd);
    return rowfile_open(&task->samples, path, err);
}

/* Most say nothing of it: curl calls every file a form. */
static int says_npy(const struct request *request) {
    const char *type = request_header(request, "Content-Type");
    return type && (strncmp(type, "application/octet-stream", 24) == 0 ||
                    strncmp(type, "application/x-npy", 17) == 0);
}

static struct reply *read_samples(struct task *task) {
    struct body *body = task->body;
    struct reply *refusal = NULL;
    if (body->over_limit)
        return too_large();
    if (body->err.code)
        return problem_from(&body->err);
    if (body->intake)
        return read_array(task, &body->err) ? problem_from(&body->err) : NULL;
    task->request->body = body->text ? body->text : "";
    task->request->body_size = body->size;
    if (reserve(body, (uint64_t)body->size * PARSED, &body->err))
        return problem_from(&body->err);
    json_t *document = body_json(task->request, &refusal);
    if (!document && refusal && says_npy(task->request)) {
        reply_free(refusal);
        return problem(422, "invalid-request",
                       "the body is no NPY file, which its Content-Type says: it has to begin with "
                       "\\x93NUMPY, as numpy.save writes it");
    }
    if (!document)
        return refusal ? refusal : problem_from(&(struct ovr_err){OVR_NOMEM, "", "no memory"});
    int rc = read_document(task, document, &body->err);
    json_decref(document);
    return rc ? problem_from(&body->err) : NULL;
}

/* ---- The results ---- */

/* Accept may list several; a format that numbers are packed in counts only where JSON is not
 * named. */
static struct reply *read_format(struct task *task, int stored_is_npy) {
    const char *format = request_query(task->request, "format");
    const char *accept = request_header(task->request, "Accept");
    if (format && strcmp(format, "json") && strcmp(format, "npy"))
        return problem(422, "invalid-query", "format must be json or npy, got \"%.40s\"", format);
    if (format)
        task->npy = strcmp(format, "npy") == 0;
    else if (accept && strstr(accept, "application/json"))
        task->npy = 0;
    else if (accept &&
             (strstr(accept, "application/octet-stream") || strstr(accept, "application/x-npy")))
        task->npy = 1;
    else
        task->npy = stored_is_npy && task->stored;
    return NULL;
}

static void write_head(const struct task *task) {
    char head[NPY_HEADER];
    npy_header(head, "float32", 2, task->samples.n, task->columns);
    fwrite(head, sizeof head, 1, task->spool);
}

/* Rows of a JSON array of arrays; nine digits bring a float32 back exactly. */
static void print_row(const struct task *task, size_t i, const real *codes, const double *p) {
    fputs(i ? ",[" : "[", task->spool);
    for (size_t j = 0; j < task->columns; j++) {
        double number = (double)(codes ? codes[j] : (real)p[j]);
        if (isfinite(number))
            fprintf(task->spool, "%s%.9g", j ? "," : "", number);
        else
            fprintf(task->spool, "%snull", j ? "," : "");
    }
    fputc(']', task->spool);
}

static int check_written(const struct task *task, struct ovr_err *err) {
    return ferror(task->spool) ? spool_check(task->spool, err) : 0;
}

static int write_codes(void *context, size_t first, size_t n, const real *codes,
                       const double *probabilities, struct ovr_err *err) {
    const struct task *task = context;
    (void)probabilities;
    if (task->npy)
        fwrite(codes, task->columns * sizeof *codes, n, task->spool);
    for (size_t i = 0; !task->npy && i < n; i++)
        print_row(task, first + i, codes + i * task->columns, NULL);
    return check_written(task, err);
}

static int write_probabilities(void *context, size_t first, size_t n, const real *codes,
                               const double *probabilities, struct ovr_err *err) {
    const struct task *task = context;
    (void)codes;
    for (size_t i = 0; i < n; i++) {
        const double *p = probabilities + i * task->columns;
        size_t best = 0;
        for (size_t c = 0; c < task->columns; c++) {
            real number = (real)p[c];
            best = p[c] > p[best] ? c : best;
            if (task->npy)
                fwrite(&number, sizeof number, 1, task->spool);
        }
        task->classes[first + i] = (uint16_t)best;
        if (!task->npy)
            print_row(task, first + i, NULL, p);
    }
    return check_written(task, err);
}

static struct reply *check_size(const struct task *task) {
    if (task->samples.n <= NUMBERS_MAX / task->columns)
        return NULL;
    return problem(422, "too-large",
                   "%zu samples times %zu are more than %d numbers; send fewer samples a request",
                   task->samples.n, task->columns, NUMBERS_MAX);
}

/* A block of rows at a time, and the class of each sample. */
static uint64_t result_bytes(const struct task *task) {
    return (uint64_t)INFER_ROWS * task->columns * sizeof(double) +
           (uint64_t)task->samples.n * sizeof *task->classes;
}

/* Everything up to the samples. NULL, or the refusal. */
static struct reply *open_task(struct task *task, int stored_is_npy, int needs_classes) {
    struct request *request = task->request;
    struct ovr_err err = {0};
    if (store_get_experiment(task->api->store, request->segments[0], &task->experiment, &err) ||
        models_open(task->api->models, &task->experiment, &task->model, &err))
        return problem_from(&err);
    task->facts = model_facts(task->model);
    if (needs_classes && !task->facts->n_classes)
        return problem(422, "no-classifier",
                       "experiment %s predicts no classes: its model is no mlp, and it has no "
                       "probe; post it with a probe, or use /v1/experiments/%s/encode",
                       task->experiment.id, task->experiment.id);
    struct reply *reply = read_samples(task);
    if (!reply)
        reply = read_format(task, stored_is_npy);
    task->columns = needs_classes ? task->facts->n_classes : task->facts->n_units;
    if (!reply)
        reply = check_size(task);
    if (!reply && reserve(task->body, result_bytes(task), &err))
        reply = problem_from(&err);
    if (!reply && !(task->spool = spool_open(task->api->data_dir, &err)))
        reply = problem_from(&err);
    return reply;
}

static void close_task(struct task *task) {
    samples_release(&task->samples);
    models_close(task->api->models, task->model);
    experiment_release(&task->experiment);
    if (task->spool)
        fclose(task->spool);
    free(task->classes);
    body_free(task->body);
}

static struct reply *run(struct task *task, const struct model_sink *sink) {
    struct ovr_err err = {0};
    int rc = model_apply(task->model, &task->samples, sink, task->request->stop, &err);
    if (rc == OVR_STOPPED)
        return reply_header(
            problem(503, "shutting-down", "the server is shutting down; try again later"),
            "Retry-After", "5");
    return rc ? problem_from(&err) : NULL;
}

static struct reply *send(struct task *task, const char *what) {
    FILE *spool = task->spool;
    task->spool = NULL;
    if (!task->npy)
        return spool_reply(spool, 200, "application/json");
    return reply_header(spool_reply(spool, 200, "application/octet-stream"), "Content-Disposition",
                        "attachment; filename=\"%s.%s.npy\"", task->experiment.id, what);
}

struct reply *handle_encode(struct request *request) {
    struct task task = {.request = request, .api = request->context, .body = request->upload};
    const struct model_sink sink = {.context = &task, .wants_codes = 1, .rows = write_codes};
    struct reply *reply = open_task(&task, 1, 0);
    if (!reply) {
        if (task.npy)
            write_head(&task);
        else
            fprintf(task.spool, "{\"experiment\":\"%s\",\"units\":%zu,\"codes\":[",
                    task.experiment.id, task.columns);
        reply = run(&task, &sink);
    }
    if (!reply) {
        fputs(task.npy ? "" : "]}\n", task.spool);
        reply = send(&task, "codes");
    }
    close_task(&task);
    return reply;
}

static json_t *json_class_names(const struct model_facts *facts) {
    const char *name = facts->class_names;
    json_t *names = name ? json_array() : json_null();
    for (size_t c = 0; name && c < facts->n_classes; c++, name += strlen(name) + 1)
        json_array_append_new(names, json_string(name));
    return names;
}

/* What comes after the probabilities. */
static void print_classes(const struct task *task) {
    json_t *names = json_class_names(task->facts);
    size_t right = 0;
    fprintf(task->spool, "],\"classes\":[");
    for (size_t i = 0; i < task->samples.n; i++)
        fprintf(task->spool, "%s%u", i ? "," : "", task->classes[i]);
    fprintf(task->spool, "],\"class_names\":");
    json_dumpf(names, task->spool, JSON_COMPACT | JSON_ENCODE_ANY);
    for (size_t i = 0; task->own && i < task->samples.n; i++)
        right += task->classes[i] == task->samples.labels[i];
    if (task->own)
        fprintf(task->spool, ",\"accuracy\":%.15g", (double)right / (double)task->samples.n);
    else
        fputs(",\"accuracy\":null", task->spool);
    fputs("}\n", task->spool);
    json_decref(names);
}

struct reply *handle_predict(struct request *request) {
    struct task task = {.request = request, .api = request->context, .body = request->upload};
    const struct model_sink sink = {
        .context = &task, .wants_probabilities = 1, .rows = write_probabilities};
    struct ovr_err err = {0};
    struct reply *reply = open_task(&task, 0, 1);
    if (!reply && !(task.classes = ovr_calloc(task.samples.n, sizeof *task.classes))) {
        ovr_nomem(&err, "the classes");
        reply = problem_from(&err);
    }
    if (!reply) {
        if (task.npy)
            write_head(&task);
        else
            fprintf(task.spool, "{\"experiment\":\"%s\",\"source\":\"%s\",\"probabilities\":[",
                    task.experiment.id,
                    task.facts->read_out == READ_OUT_PROBE ? "probe" : "classifier");
        reply = run(&task, &sink);
    }
    if (!reply) {
        if (!task.npy)
            print_classes(&task);
        reply = send(&task, "probabilities");
    }
    close_task(&task);
    return reply;
}
