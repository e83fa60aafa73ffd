#include "server/admission.h"

#include "server/fitted.h"
#include "server/people.h"
#include "server/placement.h"
#include "server/weights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int find_split(const struct admission *a, const struct spec *spec, const char *split,
                      char sha256[65], struct dataset_split *found, json_t *faults,
                      struct ovr_err *err) {
    struct ovr_err why = {0};
    int rc = store_get_split(a->store, spec->dataset, split, sha256, found, &why);
    if (rc == OVR_NOT_FOUND) {
        spec_fault(faults, *sha256 ? "/dataset/version" : "/dataset/name",
                   "%s; upload it with PUT /v1/datasets/%s/%s?format=…, or see GET /v1/datasets",
                   why.text, spec->dataset, split);
        return 0;
    }
    if (rc)
        return ovr_fail(err, rc, why.field, "%s", why.text);
    snprintf(sha256, 65, "%s", found->sha256);
    return 0;
}

static size_t limited(size_t samples, int64_t limit, const char *pointer, json_t *faults) {
    if (samples && limit > (int64_t)samples)
        spec_fault(faults, pointer, "is %lld, but the split has only %zu samples", (long long)limit,
                   samples);
    return limit ? min_size((size_t)limit, samples) : samples;
}

static struct train_data sphere_data(const struct sphere_config *sphere) {
    size_t n = sphere->samples + sphere->test_samples;
    return (struct train_data){.n_train = sphere->samples,
                               .n_test = sphere->test_samples,
                               .n_values = 3,
                               .n_classes = sphere->classes,
                               .n_cells = (sphere->latitudes + 1) * sphere->sectors,
                               .bytes =
                                   n * (3 * sizeof(real) + sizeof(uint16_t) + sizeof(uint32_t))};
}

/* Counts the samples that are left of a choice of classes, and looks whether the splits' names of
 * classes and columns agree: what only the data themselves can tell. */
static int look_into_data(const struct admission *a, const struct spec *spec,
                          struct train_data *data, json_t *faults, struct ovr_err *err) {
    struct samples train, test;
    struct spec all = *spec;
    struct ovr_err why = {0};
    all.train_limit = all.test_limit = 0;
    int rc = catalog_open_samples(a->catalog, &all, 0, &train, &test, &why);
    data->n_train = train.n;
    data->n_test = test.n;
    samples_release(&train);
    samples_release(&test);
    if (rc == OVR_INVALID) {
        spec_fault(faults, why.field, "%s", why.text);
        return 0;
    }
    return rc ? ovr_fail(err, rc, why.field, "%s", why.text) : 0;
}

static int find_data(const struct admission *a, struct spec *spec, json_t *document,
                     struct train_data *data, json_t *faults, struct ovr_err *err) {
    enum { LOOKED_INTO = 50000 }; /* samples; a sweep's points are admitted in one request */
    if (spec->generated) {
        *data = sphere_data(&spec->sphere);
        if (spec->only_classes.n && data->n_train + data->n_test <= LOOKED_INTO)
            return look_into_data(a, spec, data, faults, err);
        return 0;
    }
    struct dataset_split train = {0}, test = {0};
    int rc = find_split(a, spec, "train", spec->train_sha256, &train, faults, err);
    if (!rc)
        rc = find_split(a, spec, "test", spec->test_sha256, &test, faults, err);
    if (rc || !train.samples || !test.samples)
        return rc;
    *data = (struct train_data){
        .n_train = (size_t)train.samples,
        .n_test = (size_t)test.samples,
        .n_values = (size_t)train.width,
        .n_classes = (size_t)(train.classes > test.classes ? train.classes : test.classes),
        .bytes = (uint64_t)(train.bytes + test.bytes)};
    if (train.width != test.width)
        spec_fault(faults, "/dataset/name",
                   "its training samples have %lld values, its test samples %lld",
                   (long long)train.width, (long long)test.width);
    else if (train.named || test.named || spec->only_classes.n || strcmp(train.format, "csv") == 0)
        rc = look_into_data(a, spec, data, faults, err);
    if (train.named) /* the test split has no others, or there is a fault */
        data->n_classes = (size_t)train.classes;
    data->n_train = limited(data->n_train, spec->train_limit, "/dataset/train_limit", faults);
    data->n_test = limited(data->n_test, spec->test_limit, "/dataset/test_limit", faults);
    return rc ? rc : spec_pin_version(document, spec, err);
}

static int have_common(const struct class_list *a, const struct class_list *b) {
    for (size_t i = 0; i < a->n; i++)
        for (size_t j = 0; j < b->n; j++)
            if (a->list[i] == b->list[j])
                return 1;
    return 0;
}

static void check_classes(const struct spec *spec, size_t n_classes, json_t *faults) {
    const struct class_list *only = &spec->train.only, *there = &spec->only_classes;
    if (only->n && there->n && !have_common(only, there))
        spec_fault(
            faults, "/training/only_classes",
            "names none of the classes that /dataset/only_classes leaves; give some of both");
    for (size_t i = 0; i < only->n; i++) {
        char pointer[64];
        snprintf(pointer, sizeof pointer, "/training/only_classes/%zu", i);
        if (only->list[i] >= n_classes)
            spec_fault(faults, pointer, "is %d, but the data set has only %zu classes, from 0 on",
                       only->list[i], n_classes);
    }
}

/* The steps of another experiment: are they there, and do they fit? *width becomes that behind
 * them. */
static int check_fitted(const struct admission *a, struct preprocess_step *step, size_t *width,
                        size_t n_steps, json_t *faults, struct ovr_err *err) {
    struct preprocess steps;
    struct ovr_err why = {0};
    int rc = fitted_open(a->store, NULL, step->experiment, *width, &steps, &why);
    if (rc == OVR_INVALID || rc == OVR_NOT_FOUND)
        spec_fault(faults, why.field, "%s", why.text);
    else if (rc)
        return ovr_fail(err, rc, why.field, "%s", why.text);
    else if (steps.n_steps + n_steps - 1 > PREPROCESS_MAX)
        spec_fault(faults, "/preprocess",
                   "experiment %s brings %zu steps, with the others there are more than %d",
                   step->experiment, steps.n_steps, PREPROCESS_MAX);
    if (!rc)
        *width = step->components = preprocess_width(&steps);
    preprocess_release(&steps);
    return 0;
}

/* *prepared: the values of a prepared row; 0 where only the data will tell. */
static int check_data(const struct admission *a, struct spec *spec, const struct train_data *data,
                      size_t *prepared, json_t *faults, struct ovr_err *err) {
    int known = 1;
    struct train_config *train = &spec->train;
    size_t held_out = prepared_held_out(&train->data, data->n_train), width = data->n_values;
    size_t n = data->n_train - held_out;
    if (held_out >= data->n_train) {
        spec_fault(faults, "/training/validation",
                   "holds out %zu of %zu training samples, so none is left to train on", held_out,
                   data->n_train);
        return 0;
    }
    for (size_t i = 0; i < train->data.n_preprocess; i++) {
        struct preprocess_step *step = &train->data.preprocess[i];
        size_t most = min_size(width, n);
        char pointer[64];
        snprintf(pointer, sizeof pointer, "/preprocess/%zu/pca/components", i);
        if (step->kind == PREPROCESS_FITTED) {
            int rc = check_fitted(a, step, &width, train->data.n_preprocess, faults, err);
            if (rc)
                return rc;
        }
        if (step->kind == PREPROCESS_ZCA && n < width)
            spec_fault(faults, "/preprocess",
                       "zca needs at least as many samples to fit on as values a sample, %zu, and "
                       "has %zu",
                       width, n);
        if (step->kind != PREPROCESS_PCA)
            continue;
        if (step->components > most)
            spec_fault(faults, pointer,
                       "must be 1..%zu (%zu values a sample, %zu samples to fit on), got %zu", most,
                       width, n, step->components);
        known &= step->components > 0;
        width = step->components ? step->components : width;
    }
    if (train->kind == MODEL_PCA && known && train->hidden[0] > min_size(width, n))
        spec_fault(faults, "/model/hidden/0",
                   "must be 1..%zu (%zu values a prepared sample, %zu samples to fit on), got %zu",
                   min_size(width, n), width, n, train->hidden[0]);
    if ((train->kind == MODEL_KMEANS || train->kind == MODEL_ONLINE_KMEANS) && train->hidden[0] > n)
        spec_fault(faults, "/model/hidden/0",
                   "must be 1..%zu, as many centroids as there are samples to train on, got %zu", n,
                   train->hidden[0]);
    *prepared = known ? width : 0;
    return 0;
}

/* Where the weights are to come from: an experiment that is done, and has some that fit. `width`:
 * of the prepared rows, 0 where that is not known yet. */
static int check_initial(const struct admission *a, const struct spec *spec, size_t width,
                         size_t n_classes, json_t *faults, struct ovr_err *err) {
    static const char POINTER[] = "/model/init/experiment";
    struct experiment from = {0};
    struct tensor *tensors = NULL;
    size_t n_tensors = 0, fitting = 0;
    struct ovr_err why = {0};
    if (!*spec->init_experiment)
        return 0;
    int rc = store_get_experiment(a->store, spec->init_experiment, &from, &why);
    if (rc == OVR_NOT_FOUND) {
        spec_fault(faults, POINTER, "%s", why.text);
        return 0;
    }
    const char *epoch = spec->init_last ? "last" : "best";
    if (!rc && from.state != STATE_SUCCEEDED)
        spec_fault(faults, POINTER, "experiment %s is %s; its weights are there once it succeeded",
                   from.id, state_names[from.state]);
    else if (!rc)
        rc = store_read_tensors(a->store, from.seq, epoch, &tensors, &n_tensors, &why);
    if (!rc && from.state == STATE_SUCCEEDED && width) {
        struct net_part have[PARTS_MAX], want[PARTS_MAX];
        const struct tensor *found[PARTS_MAX];
        size_t n_have = weights_list_parts(tensors, n_tensors, epoch, have, found);
        size_t n_want = train_parts(&spec->train, width, n_classes, want);
        for (size_t i = 0; i < n_have; i++)
            for (size_t j = 0; j < n_want; j++)
                fitting += (size_t)initial_fits(&have[i], &want[j]);
        if (!fitting)
            spec_fault(faults, POINTER,
                       "experiment %s has no weights of the shapes that this model needs", from.id);
    }
    free(tensors);
    experiment_release(&from);
    return rc ? ovr_fail(err, rc, NULL, "%s", why.text) : 0;
}

/* science: L's slope is bounded, so above this λ the raw form pulls every activation to zero. */
static void warn_collapse(const struct spec *spec, json_t *warnings) {
    const struct train_config *train = &spec->train;
    double n = (double)train->batch_size, k = (double)train->hidden[0], a = train->activity_target;
    double lambda = ovr_lambda(&train->ovr, train->batch_size);
    double bound = 1 / (2 * a * n * (n - 1) * k);
    if (train->kind == MODEL_OVR_ENCODER && train->activity && train->ovr.form == OVR_RAW &&
        n > 1 && lambda > bound)
        spec_fault(warnings, "/loss/ovr/lambda",
                   "in raw form the code collapses to zero above about %.2g at this batch size "
                   "and width; published values belong to the cosine form",
                   bound);
}

void admit_priority(const struct spec *spec, json_t *faults) {
    const struct asker *asker = asking();
    if (asker && asker->level < LEVEL_ADMIN && spec->priority > 0)
        spec_fault(faults, "/priority",
                   "above 0 is for admins, got %d; use -100..0, where lower runs later",
                   spec->priority);
}

/* What another experiment left: its weights, or its fitted steps. */
static int needs_another(const struct spec *spec) {
    const struct prepare_config *data = &spec->train.data;
    return *spec->init_experiment ||
           (data->n_preprocess && data->preprocess[0].kind == PREPROCESS_FITTED);
}

/* Where the spec leaves it open. */
static int complete_private(const struct admission *a, struct spec *spec, json_t *document,
                            struct ovr_err *err) {
    if (json_is_null(json_object_get(document, "private")))
        spec->private = a->private_by_default;
    return json_object_set_new(document, "private", json_boolean(spec->private))
               ? ovr_nomem(err, "the spec")
               : 0;
}

int admit(const struct admission *a, struct spec *spec, json_t *document, int follows,
          json_t *faults, json_t *warnings, struct cost *cost, struct ovr_err *err) {
    struct train_data data = {0};
    int rc = find_data(a, spec, document, &data, faults, err);
    if (!rc)
        rc = complete_private(a, spec, document, err);
    if (rc)
        return rc;
    admit_priority(spec, faults);
    size_t width = 0;
    if (data.n_train) {
        check_classes(spec, data.n_classes, faults);
        rc = check_data(a, spec, &data, &width, faults, err);
    }
    rc = rc ? rc : check_initial(a, spec, width, data.n_classes, faults, err);
    if (rc)
        return rc;
    if (spec_has_faults(faults))
        return ovr_fail(err, OVR_INVALID, "", "the spec does not fit the data");
    place(a, spec, &data, width, follows || needs_another(spec), faults, cost);
    if (spec_has_faults(faults))
        return ovr_fail(err, OVR_INVALID, "", "the experiment cannot run like this");
    warn_collapse(spec, warnings);
    return 0;
}
