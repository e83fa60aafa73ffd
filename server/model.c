#include "server/model.h"

#include "server/fitted.h"
#include "server/spec.h"
#include "server/weights.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct model {
    struct model *next;
    char id[ID_SIZE];
    int opening; /* by the thread that put it into the list */
    int users;
    uint64_t used_at, bytes;
    const struct models_config *config;
    struct model_facts facts;
    struct preprocess preprocess;
    struct infer *infer;
    char *class_names;
    pthread_mutex_t turn; /* held by whoever uses `infer` */
};

struct models {
    struct models_config config;
    pthread_mutex_t lock; /* guards the list and what its members say of the cache */
    pthread_cond_t changed;
    struct model *list;
    uint64_t clock; /* counts uses */
    uint64_t reserved;
};

int models_new(struct models **out, const struct models_config *config, struct ovr_err *err) {
    struct models *models = calloc(1, sizeof *models);
    *out = models;
    if (!models)
        return ovr_nomem(err, "the models");
    models->config = *config;
    pthread_mutex_init(&models->lock, NULL);
    pthread_cond_init(&models->changed, NULL);
    return 0;
}

static void model_free(struct model *model) {
    infer_free(model->infer);
    preprocess_release(&model->preprocess);
    free(model->class_names);
    pthread_mutex_destroy(&model->turn);
    free(model);
}

void models_free(struct models *models) {
    if (!models)
        return;
    for (struct model *model = models->list, *next; model; model = next) {
        next = model->next;
        model_free(model);
    }
    pthread_mutex_destroy(&models->lock);
    pthread_cond_destroy(&models->changed);
    free(models);
}

void models_count(struct models *models, uint64_t *bytes, size_t *n) {
    *bytes = *n = 0;
    pthread_mutex_lock(&models->lock);
    for (const struct model *model = models->list; model; model = model->next) {
        *bytes += model->bytes;
        ++*n;
    }
    pthread_mutex_unlock(&models->lock);
}

/* ---- Memory ---- */

/* With the lock held: whether so much more may be taken now. Models that nobody uses don't count,
 * for they go when others come. */
static int check_room(const struct models *models, uint64_t bytes, struct ovr_err *err) {
    uint64_t all = models->config.use_bytes, used = models->reserved;
    for (const struct model *model = models->list; model; model = model->next)
        used += model->users ? model->bytes : 0;
    if (bytes > all)
        return ovr_fail(err, OVR_TOO_LARGE, NULL,
                        "this takes %.1f MiB of memory, and all requests that use models have %.1f "
                        "MiB together, an eighth of --memory; send fewer samples a request, or as "
                        "NPY, or let the operator raise --memory",
                        (double)bytes / (1 << 20), (double)all / (1 << 20));
    if (used > all || bytes > all - used)
        return ovr_fail(err, OVR_FULL, NULL,
                        "other requests use the memory for models (%.1f MiB) now; try again later",
                        (double)all / (1 << 20));
    return 0;
}

int models_reserve(struct models *models, uint64_t bytes, struct ovr_err *err) {
    pthread_mutex_lock(&models->lock);
    int rc = check_room(models, bytes, err);
    if (!rc)
        models->reserved += bytes;
    pthread_mutex_unlock(&models->lock);
    return rc;
}

void models_give_back(struct models *models, uint64_t bytes) {
    pthread_mutex_lock(&models->lock);
    models->reserved -= bytes;
    pthread_mutex_unlock(&models->lock);
}

/* While it is read its numbers are there twice: from the files, and as they are multiplied with. */
static int reserve_model(struct models *models, struct model *model, const struct tensor *tensors,
                         size_t n, struct ovr_err *err) {
    uint64_t bytes = 0;
    for (size_t i = 0; i < n; i++)
        bytes += (uint64_t)tensors[i].rows * tensors[i].columns * 2 * sizeof(real);
    pthread_mutex_lock(&models->lock);
    int rc = check_room(models, bytes, err);
    if (!rc)
        model->bytes = bytes;
    pthread_mutex_unlock(&models->lock);
    return rc;
}

/* ---- Reading a model ---- */

/* What is at hand while one is read. */
struct reading {
    struct models *models;
    const struct models_config *config;
    const struct experiment *experiment;
    struct spec *spec;
    struct dataset_split split; /* that it was trained on; of generated data only the width */
    struct tensor *tensors;
    size_t n_tensors;
};

static const struct tensor *find(const struct reading *reading, const char *name) {
    for (size_t i = 0; i < reading->n_tensors; i++)
        if (strcmp(reading->tensors[i].name, name) == 0)
            return &reading->tensors[i];
    return NULL;
}

static int read_facts(struct reading *reading, struct model *model, struct ovr_err *err) {
    const struct models_config *config = reading->config;
    const struct experiment *e = reading->experiment;
    const struct spec *spec = reading->spec;
    int rc = spec_read_stored(e->spec, reading->spec, err);
    if (!rc && spec->generated)
        reading->split.width = 3;
    else if (!rc)
        rc = store_get_split(config->store, spec->dataset, "train", spec->train_sha256,
                             &reading->split, err);
    if (!rc)
        rc = store_read_tensors(config->store, e->seq, "best", &reading->tensors,
                                &reading->n_tensors, err);
    if (!rc)
        rc = reserve_model(reading->models, model, reading->tensors, reading->n_tensors, err);
    if (!rc)
        rc = fitted_open(config->store, config->data_dir, e->id, (size_t)reading->split.width,
                         &model->preprocess, err);
    if (rc)
        return rc;
    const struct tensor *output = find(reading, "output.weight");
    const struct tensor *probe = find(reading, "probe.weight");
    model->facts = (struct model_facts){
        .kind = spec->train.kind,
        .read_out = output  ? READ_OUT_CLASSIFIER
                    : probe ? READ_OUT_PROBE
                            : READ_OUT_NONE,
        .n_inputs = (size_t)reading->split.width,
        .n_classes = output  ? output->rows
                     : probe ? probe->rows
                             : 0,
        .image = reading->split.image,
        .preprocess = &model->preprocess,
    };
    return 0;
}

static int read_class_names(const struct reading *reading, struct model *model,
                            struct ovr_err *err) {
    struct samples samples = {0};
    size_t n = model->facts.n_classes, bytes = 0;
    if (reading->spec->generated || !reading->split.named || !n)
        return 0;
    int rc = catalog_open_split(reading->config->catalog, &reading->split, &samples, err);
    if (!rc && samples.class_names && samples.n_classes == n) {
        for (size_t i = 0; i < n; i++)
            bytes += strlen(samples.class_names + bytes) + 1;
        model->class_names = malloc(bytes);
        rc = model->class_names ? 0 : ovr_nomem(err, "the names of classes");
        if (!rc)
            memcpy(model->class_names, samples.class_names, bytes);
    }
    model->facts.class_names = model->class_names;
    samples_release(&samples);
    return rc;
}

static int read_net(const struct reading *reading, struct model *model, struct ovr_err *err) {
    const struct models_config *config = reading->config;
    struct weights weights = {0};
    const struct infer_config shape = {.model = &reading->spec->train,
                                       .preprocess = &model->preprocess,
                                       .kernels = config->kernels,
                                       .n_classes = model->facts.n_classes,
                                       .members = config->cores};
    int rc = infer_new(&model->infer, &shape, err);
    if (!rc)
        rc = weights_load(config->data_dir, reading->experiment->id, reading->tensors,
                          reading->n_tensors, "best", &weights, err);
    if (!rc)
        rc = infer_set_weights(model->infer, &weights.initial, err);
    weights_release(&weights);
    if (!rc)
        model->facts.n_units = infer_units(model->infer);
    return rc;
}

static int read_read_out(const struct reading *reading, const struct model *model,
                         struct ovr_err *err) {
    int own = model->facts.read_out == READ_OUT_CLASSIFIER;
    const struct tensor *weight = find(reading, own ? "output.weight" : "probe.weight");
    const struct tensor *bias = find(reading, own ? "output.bias" : "probe.bias");
    const char *data_dir = reading->config->data_dir, *id = reading->experiment->id;
    if (!model->facts.n_classes)
        return 0;
    if (!bias || bias->rows != weight->rows || bias->columns != 1 ||
        weight->columns != model->facts.n_units)
        return ovr_fail(err, OVR_IO, NULL, "the read-out of experiment %s does not fit its code",
                        id);
    real *w = ovr_malloc(weight->rows * weight->columns, sizeof *w);
    real *b = ovr_malloc(bias->rows, sizeof *b);
    int rc = w && b ? 0 : ovr_nomem(err, "a read-out");
    if (!rc)
        rc = weights_read(data_dir, id, weight, w, err);
    if (!rc)
        rc = weights_read(data_dir, id, bias, b, err);
    if (!rc)
        infer_set_read_out(model->infer, w, b);
    free(w);
    free(b);
    return rc;
}

static uint64_t preprocess_bytes(const struct preprocess *preprocess) {
    uint64_t bytes = 0;
    for (size_t i = 0; i < preprocess->n_steps; i++) {
        const struct fitted_step *step = &preprocess->steps[i];
        bytes += (step->components ? step->n_in * step->n_out : 0) * sizeof(real) +
                 2 * step->n_in * sizeof(real);
    }
    return bytes;
}

static int model_read(struct models *models, struct model *model,
                      const struct experiment *experiment, struct ovr_err *err) {
    struct reading reading = {.models = models, .config = model->config, .experiment = experiment};
    reading.spec = malloc(sizeof *reading.spec);
    int rc = reading.spec ? 0 : ovr_nomem(err, "a spec");
    if (!rc)
        rc = read_facts(&reading, model, err);
    if (!rc)
        rc = read_class_names(&reading, model, err);
    if (!rc)
        rc = read_net(&reading, model, err);
    if (!rc)
        rc = read_read_out(&reading, model, err);
    free(reading.tensors);
    free(reading.spec);
    return rc;
}

/* ---- The cache; the caller holds the lock ---- */

static struct model *find_model(const struct models *models, const char *id) {
    struct model *model = models->list;
    while (model && strcmp(model->id, id))
        model = model->next;
    return model;
}

static void take_out(struct models *models, struct model *model) {
    struct model **at = &models->list;
    while (*at != model)
        at = &(*at)->next;
    *at = model->next;
    model_free(model);
}

/* Lets go what nobody uses, the longest unused first, until the rest is within the limit. */
static void trim(struct models *models) {
    for (;;) {
        struct model *oldest = NULL;
        uint64_t bytes = 0;
        for (struct model *model = models->list; model; model = model->next) {
            bytes += model->bytes;
            if (!model->users && (!oldest || model->used_at < oldest->used_at))
                oldest = model;
        }
        if (!oldest || bytes <= models->config.limit_bytes)
            return;
        take_out(models, oldest);
    }
}

/* One that is not open yet, in the list, for the caller to fill. */
static struct model *add_model(struct models *models, const char *id) {
    struct model *model = calloc(1, sizeof *model);
    if (!model)
        return NULL;
    snprintf(model->id, sizeof model->id, "%s", id);
    model->config = &models->config;
    model->opening = model->users = 1;
    pthread_mutex_init(&model->turn, NULL);
    model->next = models->list;
    models->list = model;
    return model;
}

int models_open(struct models *models, const struct experiment *experiment, struct model **out,
                struct ovr_err *err) {
    struct model *model;
    *out = NULL;
    if (experiment->state != STATE_SUCCEEDED)
        return ovr_fail(err, OVR_CONFLICT, NULL,
                        "experiment %s is %s; only one that has succeeded has a model",
                        experiment->id, state_names[experiment->state]);
    pthread_mutex_lock(&models->lock);
    while ((model = find_model(models, experiment->id)) && model->opening)
        pthread_cond_wait(&models->changed, &models->lock);
    if (model) {
        model->users++;
        model->used_at = ++models->clock;
        pthread_mutex_unlock(&models->lock);
        *out = model;
        return 0;
    }
    model = add_model(models, experiment->id);
    pthread_mutex_unlock(&models->lock);
    if (!model)
        return ovr_nomem(err, "a model");
    struct ovr_err why = {0};
    int rc = model_read(models, model, experiment, &why);
    pthread_mutex_lock(&models->lock);
    model->opening = 0;
    model->used_at = ++models->clock;
    if (!rc)
        model->bytes = infer_bytes(model->infer) + preprocess_bytes(&model->preprocess);
    if (rc)
        take_out(models, model);
    else
        trim(models);
    pthread_cond_broadcast(&models->changed);
    pthread_mutex_unlock(&models->lock);
    if (rc) /* what is wrong is in the files, whatever reading them calls it */
        return ovr_fail(err, rc == OVR_INVALID ? OVR_IO : rc, NULL, "%s", why.text);
    *out = model;
    return 0;
}

void models_close(struct models *models, struct model *model) {
    if (!model)
        return;
    pthread_mutex_lock(&models->lock);
    model->users--;
    trim(models);
    pthread_mutex_unlock(&models->lock);
}

/* ---- Use ---- */

const struct model_facts *model_facts(const struct model *model) {
    return &model->facts;
}

const real *model_first_weights(const struct model *model, size_t *units, size_t *inputs) {
    return infer_first_weights(model->infer, units, inputs);
}

/* Small requests are not worth the threads, and leave the cores to training. */
static int team_for(const struct model *model, size_t rows) {
    static const double WORTH = 4e9; /* operations: some 50 ms of one core */
    double flops = 2. * (double)rows * (double)infer_bytes(model->infer) / sizeof(real);
    return flops < WORTH ? 1 : model->config->cores;
}

struct results {
    real *codes;
    double *probabilities;
};

static int apply_all(struct model *model, struct team *team, const struct samples *samples,
                     const struct results *results, const struct model_sink *sink,
                     const _Atomic int *stop, struct ovr_err *err) {
    int rc = 0;
    for (size_t first = 0; !rc && first < samples->n; first += INFER_ROWS) {
        size_t n = min_size(INFER_ROWS, samples->n - first);
        pthread_mutex_lock(&model->turn);
        rc = infer_rows(model->infer, team, samples, first, n, results->codes,
                        results->probabilities, stop, err);
        pthread_mutex_unlock(&model->turn);
        if (!rc)
            rc = sink->rows(sink->context, first, n, results->codes, results->probabilities, err);
    }
    return rc;
}

int model_apply(struct model *model, const struct samples *samples, const struct model_sink *sink,
                const _Atomic int *stop, struct ovr_err *err) {
    size_t rows = min_size(INFER_ROWS, samples->n);
    struct results results = {0};
    struct team *team = NULL;
    int rc = team_new(&team, team_for(model, samples->n), err);
    if (!rc && sink->wants_codes) {
        results.codes = ovr_malloc(rows * model->facts.n_units, sizeof *results.codes);
        rc = results.codes ? 0 : ovr_nomem(err, "codes");
    }
    if (!rc && sink->wants_probabilities) {
        results.probabilities =
            ovr_malloc(rows * model->facts.n_classes, sizeof *results.probabilities);
        rc = results.probabilities ? 0 : ovr_nomem(err, "probabilities");
    }
    if (!rc)
        rc = apply_all(model, team, samples, &results, sink, stop, err);
    team_free(team);
    free(results.codes);
    free(results.probabilities);
    return rc;
}
