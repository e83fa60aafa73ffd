/* Models of experiments that have succeeded, ready to be applied: read once from their files
 * (server/weights.h) and kept in memory for the next request, up to so many bytes together; when
 * they exceed that the ones that were not used for the longest time go.
 *
 * A model that somebody has open stays whole until it is closed, whatever becomes of the cache or
 * of the experiment's files. Any number of threads may use one at a time: they take turns, block of
 * rows by block.
 */
#ifndef SERVER_MODEL_H
#define SERVER_MODEL_H

#include "core/infer.h"
#include "server/catalog.h"
#include "server/store.h"

struct models;

struct models_config {
    struct store *store;           /* borrowed, like the next three */
    const struct catalog *catalog; /* for the names of classes */
    const struct kernels *kernels;
    const char *data_dir;
    uint64_t limit_bytes; /* of models that nobody uses; 0: none is kept */
    uint64_t use_bytes;   /* of those in use, and of what models_reserve() gives, together */
    int cores;            /* that a big request may use */
};

int models_new(struct models **models, const struct models_config *config, struct ovr_err *err);
void models_free(struct models *models); /* no model is open any more; NULL is fine */

/* Bytes that are held, and by how many models. */
void models_count(struct models *models, uint64_t *bytes, size_t *n);

enum read_out { READ_OUT_NONE, READ_OUT_CLASSIFIER, READ_OUT_PROBE };

/* What is known of a model. */
struct model_facts {
    enum model_kind kind;
    enum read_out read_out;
    size_t n_inputs, n_units, n_classes; /* raw values, K, C (0 without a read-out) */
    struct image_shape image;            /* of the data it was trained on */
    const char *class_names;             /* C texts, a NUL after each; NULL: numbers */
    const struct preprocess *preprocess;
};

struct model;

/* Memory that a request takes beside the model, for its samples and results: to be counted before
 * it is taken, and given back when it is free. OVR_FULL: others have it now. OVR_TOO_LARGE: it is
 * more than there ever is. */
int models_reserve(struct models *models, uint64_t bytes, struct ovr_err *err);
void models_give_back(struct models *models, uint64_t bytes);

/* OVR_CONFLICT for an experiment that has not succeeded; OVR_FULL and OVR_TOO_LARGE as above. Waits
 * while another thread opens it. */
int models_open(struct models *models, const struct experiment *experiment, struct model **model,
                struct ovr_err *err);
void models_close(struct models *models, struct model *model); /* NULL is fine */

const struct model_facts *model_facts(const struct model *model);

/* W of the first layer, as in core/infer.h. */
const real *model_first_weights(const struct model *model, size_t *units, size_t *inputs);

/* What is done with the results. */
struct model_sink {
    void *context;
    int wants_codes, wants_probabilities;
    /* Rows first .. first + n - 1, in order; what is not wanted is NULL. A negative code ends it.
     */
    int (*rows)(void *context, size_t first, size_t n, const real *codes,
                const double *probabilities, struct ovr_err *err);
};

/* Applies it to all samples, which have n_inputs values a row. Probabilities need a read-out. */
int model_apply(struct model *model, const struct samples *samples, const struct model_sink *sink,
                const _Atomic int *stop, struct ovr_err *err);

#endif
