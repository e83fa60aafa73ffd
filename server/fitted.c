#include "server/fitted.h"

#include "server/weights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char POINTER[] = "/preprocess/0/experiment";

/* What is known of an experiment while its steps are read. */
struct source {
    const char *data_dir, *id;
    struct tensor *tensors;
    size_t n_tensors;
};

static const struct tensor *find(const struct source *source, size_t step, const char *what) {
    char name[64];
    snprintf(name, sizeof name, "preprocess.%zu.%s", step, what);
    for (size_t i = 0; i < source->n_tensors; i++)
        if (strcmp(source->tensors[i].name, name) == 0)
            return &source->tensors[i];
    return NULL;
}

/* A tensor's numbers, or nothing without a data directory. */
static int load(const struct source *source, const struct tensor *tensor, real **numbers,
                struct ovr_err *err) {
    if (!source->data_dir)
        return 0;
    *numbers = ovr_malloc(tensor->rows * tensor->columns, sizeof **numbers);
    if (!*numbers)
        return ovr_nomem(err, "fitted steps");
    return weights_read(source->data_dir, source->id, tensor, *numbers, err);
}

static int load_epsilon(const struct source *source, const struct tensor *tensor, real *epsilon,
                        struct ovr_err *err) {
    real *number = NULL;
    int rc = load(source, tensor, &number, err);
    if (!rc && number)
        *epsilon = number[0];
    free(number);
    return rc;
}

/* Step i, or *n_steps stays as it is when there is none. */
static int read_step(const struct source *source, struct preprocess *steps, struct ovr_err *err) {
    size_t i = steps->n_steps, n_in = preprocess_width(steps);
    const struct tensor *components = find(source, i, "components");
    const struct tensor *mean = find(source, i, "mean"), *scale = find(source, i, "scale");
    const struct tensor *epsilon = find(source, i, "epsilon");
    if (!mean && !epsilon)
        return 0;
    struct fitted_step *step = &steps->steps[steps->n_steps++];
    *step = (struct fitted_step){.n_in = n_in, .n_out = n_in};
    if (epsilon) {
        step->kind = PREPROCESS_CONTRAST;
        return load_epsilon(source, epsilon, &step->epsilon, err);
    }
    const struct tensor *second = components ? components : scale;
    if (mean->rows != n_in || !second || (components ? components->columns : scale->rows) != n_in)
        return ovr_fail(err, OVR_INVALID, POINTER,
                        "step %zu of experiment %s is for %zu values a sample, here come %zu", i,
                        source->id, mean->rows, n_in);
    step->kind = components ? PREPROCESS_PCA : PREPROCESS_STANDARDIZE;
    step->n_out = components ? components->rows : n_in;
    int rc = load(source, mean, &step->mean, err);
    return rc ? rc : load(source, second, components ? &step->components : &step->scale, err);
}

/* An experiment that has succeeded, and its tensors. */
static int find_source(struct store *store, struct source *source, struct ovr_err *err) {
    struct experiment e;
    struct ovr_err why = {0};
    int rc = store_get_experiment(store, source->id, &e, &why);
    if (rc == OVR_NOT_FOUND)
        return ovr_fail(err, OVR_NOT_FOUND, POINTER, "there is no experiment %s", source->id);
    if (rc)
        return ovr_fail(err, rc, why.field, "%s", why.text);
    if (e.state != STATE_SUCCEEDED)
        rc = ovr_fail(err, OVR_INVALID, POINTER,
                      "experiment %s is %s; only one that has succeeded has fitted steps",
                      source->id, state_names[e.state]);
    if (!rc)
        rc = store_read_tensors(store, e.seq, "best", &source->tensors, &source->n_tensors, err);
    experiment_release(&e);
    return rc;
}

int fitted_open(struct store *store, const char *data_dir, const char *id, size_t n_in,
                struct preprocess *steps, struct ovr_err *err) {
    struct source source = {.data_dir = data_dir, .id = id};
    *steps = (struct preprocess){.n_in = n_in};
    int rc = find_source(store, &source, err);
    for (size_t before = PREPROCESS_MAX;
         !rc && steps->n_steps != before && steps->n_steps < PREPROCESS_MAX;) {
        before = steps->n_steps;
        rc = read_step(&source, steps, err);
    }
    free(source.tensors);
    return rc;
}
