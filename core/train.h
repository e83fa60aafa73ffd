/* Training: from prepared data to learned weights and their figures, one call.
 *
 *   epochs of steps, each epoch followed by an evaluation → best epoch → probe on the frozen code
 *
 * The centroids of k-means come from core/kmeans.h, the weights of pca from the prepared training
 * data at once; random_projection and identity are never trained. Without epochs the weights are
 * evaluated as they are.
 *
 * The best epoch is the one with the lowest loss of the watched split (core/prepared.h says which
 * that is).
 *
 * The bits of all weights and figures depend on configuration, data, instruction-set level and BLAS
 * kernel, and not on the size of the team.
 */
#ifndef OVR_TRAIN_H
#define OVR_TRAIN_H

#include "core/measure.h"
#include "core/net.h"
#include "core/prepared.h"
#include "core/probe.h"
#include "core/units.h"

enum model_kind {
    MODEL_OVR_ENCODER,
    MODEL_MLP,
    MODEL_AUTOENCODER,
    MODEL_KMEANS,
    MODEL_ONLINE_KMEANS,
    MODEL_PCA,
    MODEL_RANDOM_PROJECTION,
    MODEL_IDENTITY,
    N_MODELS
};

enum corruption { CORRUPTION_NONE, CORRUPTION_MASKING, CORRUPTION_GAUSSIAN };

enum batching { BATCHING_RANDOM, BATCHING_SINGLE_CLASS };

/* Weights to start from: those of an earlier net's parts, as net_parts() lists them. What is not
 * there, or has another shape, starts as the configuration says. */
struct initial {
    size_t n;
    struct net_part parts[PARTS_MAX]; /* `at` is not used */
    const real *weights[PARTS_MAX];   /* rows×cols without gaps; V as it lies in the net; of
                                         PART_COUNTS what train_result's best_counts says */
};

struct train_config {
    enum model_kind kind;
    size_t hidden[LAYERS_MAX], n_hidden;
    struct nonlinearity f;
    size_t top_k;
    double dropout[LAYERS_MAX];
    size_t freeze; /* so many layers keep their weights */
    int tied;
    enum corruption corruption; /* of the inputs of each training step; the target stays clean */
    double corruption_amount;   /* masking: share set to 0; gaussian: standard deviation */
    enum init init;
    double init_scale;
    const struct initial *initial; /* borrowed; NULL: none */
    struct ovr_config ovr;
    unsigned ovr_layers; /* see struct net_config */
    int activity;
    double activity_target;
    double l1, l2, contractive, kl, kl_target;
    struct optimizer_config optimizer;
    struct schedule_config schedule;
    int epochs;
    size_t batch_size;
    enum batching batching; /* single_class: all samples of a batch are of one class */
    struct class_list only; /* train on samples of these classes alone; n = 0: of all */
    uint64_t seed;
    struct prepare_config data;
    int patience; /* early stopping after so many epochs without a better watched loss; 0: never */
    double patience_delta;            /* by how much it has to be better */
    int probe;                        /* 1: train a probe on the code of the best epoch */
    struct probe_config probe_config; /* its seed is the one above */
};

enum train_phase { PHASE_PREPARING, PHASE_TRAINING, PHASE_PROBING };

/* Where a run is; written by the run, read by anybody at any time. */
struct train_progress {
    _Atomic int phase, epoch, epochs;  /* epoch in hand, from 1 */
    _Atomic uint64_t step, steps;      /* optimiser steps done and to do, over all epochs */
    _Atomic uint64_t samples;          /* training samples seen */
    _Atomic uint64_t phase_started_ms; /* CLOCK_MONOTONIC */
    _Atomic uint64_t memory_bytes;     /* that the probe takes, once the code is known; 0 before */
    _Atomic int members;               /* of the team, since its last epoch began; 0 before */
};

struct epoch_report {
    int epoch;
    struct terms train, watched; /* means over samples; `correct` and `zero_codes` are counts */
    struct gradients gradients;  /* at the epoch's first step */
    struct measures measures;    /* of the code, the last layer's, on the watched split */
    struct measures below[LAYERS_MAX - 1]; /* of the layers below it */
    double learning_rate;                  /* in this epoch */
    double seconds;                        /* with its evaluation */
    const struct net *net;
};

/* What a run consists of between two steps, in pieces of memory: a run that gets them back goes on
 * as if it had never been interrupted, bit for bit, with a team of any size. They have the same
 * order and sizes for the same configuration and data.
 *
 * Of several ranks each has pieces of its own: of its units, and of what all have. They are valid
 * only together, and for the same number of ranks. */
struct train_piece {
    void *bytes;
    size_t n;
};

enum { TRAIN_PIECES_MAX = 24 };

/* Every rank calls its own hooks at the same points of the run, so that team_least() may be called
 * there. Of `stop` and `save_due` only the first rank's count, for all. A code that only one
 * rank's hook returns ends that rank alone: its process has to end the others. */
struct train_hooks {
    void *context;
    const _Atomic int *stop; /* not 0 asks for OVR_STOPPED at the next step; may be NULL */
    struct train_progress *progress;
    /* After each epoch, on the caller's thread, while the team waits. A negative code ends the
     * run with it. */
    int (*epoch)(void *context, const struct epoch_report *report, struct ovr_err *err);
    /* Not 0 asks for save() at the next step, which also sets it back; may be NULL. */
    _Atomic int *save_due;
    /* Keeps a copy of the pieces, while the team waits; also before a run leaves because of `stop`,
     * once training began. A negative code ends the run with it. NULL: nothing is kept. */
    int (*save)(void *context, const struct train_piece *pieces, size_t n, struct ovr_err *err);
    /* Before the first step: puts back what an earlier save() kept, *from = 1, or leaves all as it
     * is. back = 0: the last save of all ranks; where one can't read that, or they are not at the
     * same step, each is asked for the one before, back = 1; where that fails as well, the run
     * starts anew. NULL: there is nothing. Epochs that were reported before are not reported again.
     */
    int (*restore)(void *context, const struct train_piece *pieces, size_t n, int back, int *from,
                   struct ovr_err *err);
    /* After that: the epoch in hand of what was put back, from which on epochs are reported; 0: it
     * starts anew. May be NULL. */
    int (*restored)(void *context, int epoch, struct ovr_err *err);
    /* How many members the team is to have from the next epoch on, of training or of the probe; 0:
     * as it is. It gets what team_resize() can give. May be NULL. */
    const _Atomic int *members;
};

/* Of several ranks each has its own part of all weights and counts, and all of the figures:
 * net_stream() and team_stream() bring the parts to the first rank. */
struct train_result {
    int best_epoch, epochs;
    struct net net; /* its shape; the weights are those of the best epoch */
    size_t data_classes;
    real *best, *last;                   /* flat buffers as in core/net.h */
    real *best_counts, *last_counts;     /* k-means: of how many samples each centroid is the mean;
                                            else NULL */
    const struct preprocess *preprocess; /* of the prepared data; borrowed */
    struct terms terms;                  /* means on the reported split with the best weights */
    struct measures measures;            /* of the same, of the code */
    struct measures below[LAYERS_MAX - 1]; /* of the layers below */
    struct units units[LAYERS_MAX];        /* of the same, of each layer */
    double accuracy, accuracy_last;        /* of the mlp or else of the probe; NaN without either */
    int probed;
    struct probe_result probe;
    struct arena arena; /* holds the arrays above, and whatever the run worked with */
};

/* Runs on `team`, which may be one of several ranks' where the net has one layer; every rank then
 * calls it with the same configuration and data. The caller releases *result, also after a failure.
 * OVR_DIVERGED names the step.
 */
int train_run(const struct train_config *config, const struct prepared *data, struct team *team,
              const struct kernels *kernels, const struct train_hooks *hooks,
              struct train_result *result, struct ovr_err *err);

void train_result_release(struct train_result *result);

/* What a run will need, worked out before it starts. Of several ranks it is what the one with the
 * largest share needs; the first one needs no more than the others. */
struct train_estimate {
    uint64_t parameters;    /* of all ranks */
    uint64_t memory_bytes;  /* resident at its peak: data and files that are mapped count, the
                               program itself (20 MB, 30 with MPI) does not */
    double flops_per_epoch; /* of the matrix products, evaluation included */
    double flops_total;     /* with preparation and probe */
};

/* What the data of a run look like before they are prepared. */
struct train_data {
    size_t n_train, n_test, n_values, n_classes;
    uint64_t bytes; /* both splits as they are stored */
    size_t n_cells; /* of the sphere; 0 for other data */
};

/* The terms of J that are worth a report, a bit for each: OVR and L for whatever could have them.
 */
unsigned train_terms(const struct train_config *config);

/* The parts of the net that a run would train (core/net.h), for inputs of so many values. Returns
 * how many. */
size_t train_parts(const struct train_config *config, size_t n_inputs, size_t n_classes,
                   struct net_part parts[PARTS_MAX]);

/* The net that a run would train. */
struct net_config train_net_shape(const struct train_config *config, size_t n_inputs,
                                  size_t n_classes);

/* Whether weights could be loaded into a part. */
int initial_fits(const struct net_part *from, const struct net_part *to);

/* Loads the parts that fit; returns how many. */
size_t initial_load(const struct net *net, const struct initial *initial);

/* Units of the code: of the last layer, or as many as there are inputs. */
size_t train_code_units(const struct train_config *config, size_t n_inputs);

struct train_estimate train_estimate(const struct train_config *config,
                                     const struct train_data *data, const struct crew *crew);

/* How many ranks of so many members each: the smallest power of two of which none needs more than
 * `bytes`. 0: not even the most there can be are enough. */
int train_ranks_within(const struct train_config *config, const struct train_data *data,
                       int members, uint64_t bytes);

#endif
