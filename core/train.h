/* Training: from raw samples to learned weights and their figures, one call.
 *
 *   split → preprocess (fitted on the training samples) → epochs of steps, each epoch followed by
 * an evaluation → best epoch → probe on the frozen code
 *
 * Protocols, always named with a result:
 *   published  the test split is watched: it picks the best epoch and gives the accuracy, as the
 * paper's own program did clean      a share of the training samples, drawn by seed, is held out
 * and watched; the test split is read once, with the best epoch's weights The best epoch is the one
 * with the lowest watched loss.
 *
 * The bits of all weights and figures depend on configuration, data, instruction-set level and BLAS
 * kernel, and not on the size of the team.
 */
#ifndef OVR_TRAIN_H
#define OVR_TRAIN_H

#include "core/measure.h"
#include "core/net.h"
#include "core/preprocess.h"
#include "core/probe.h"
#include "core/samples.h"

enum model_kind { MODEL_OVR_ENCODER, MODEL_MLP };
enum protocol { PROTOCOL_CLEAN, PROTOCOL_PUBLISHED };

struct train_config {
    enum model_kind kind;
    size_t hidden;
    enum init init;
    double init_scale;
    struct ovr_config ovr;
    int activity;
    double activity_target;
    struct optimizer_config optimizer;
    struct schedule_config schedule;
    int epochs;
    size_t batch_size;
    uint64_t seed;
    enum protocol protocol;
    double validation; /* clean: the share held out, at least one sample */
    int patience; /* early stopping after so many epochs without a better watched loss; 0: never */
    double patience_delta;            /* by how much it has to be better */
    int probe;                        /* 1: train a probe on the code of the best epoch */
    struct probe_config probe_config; /* its seed is the one above */
    struct preprocess_step preprocess[PREPROCESS_MAX];
    size_t n_preprocess;
};

enum train_phase { PHASE_PREPARING, PHASE_TRAINING, PHASE_PROBING };

/* Where a run is; written by the run, read by anybody at any time. */
struct train_progress {
    _Atomic int phase, epoch, epochs;  /* epoch in hand, from 1 */
    _Atomic uint64_t step, steps;      /* optimiser steps done and to do, over all epochs */
    _Atomic uint64_t samples;          /* training samples seen */
    _Atomic uint64_t phase_started_ms; /* CLOCK_MONOTONIC */
};

struct epoch_report {
    int epoch;
    struct terms train, watched; /* means over samples; `correct` and `zero_codes` are counts */
    struct measures measures;    /* of the watched split */
    double learning_rate;        /* in this epoch */
    double seconds;              /* with its evaluation */
    const struct net *net;
};

struct train_hooks {
    void *context;
    const _Atomic int *stop; /* not 0 asks for OVR_STOPPED at the next step; may be NULL */
    struct train_progress *progress;
    /* After each epoch, on the caller's thread, while the team waits. A negative code ends the
     * run with it. */
    int (*epoch)(void *context, const struct epoch_report *report, struct ovr_err *err);
};

struct train_result {
    int best_epoch, epochs;
    size_t n_inputs, n_units, n_classes,
        width; /* shape of the net; n_classes 0 without a classifier */
    size_t data_classes;
    real *best, *last; /* flat buffers as in core/net.h */
    struct preprocess preprocess;
    struct terms terms;             /* means on the reported split with the best weights */
    struct measures measures;       /* of the same */
    double accuracy, accuracy_last; /* of the mlp or else of the probe; NaN without either */
    int probed;
    struct probe_result probe;
};

/* Runs on `team`. The caller releases *result, also after a failure. OVR_DIVERGED names the step.
 */
int train_run(const struct train_config *config, const struct samples *train,
              const struct samples *test, struct team *team, const struct kernels *kernels,
              const struct train_hooks *hooks, struct train_result *result, struct ovr_err *err);

void train_result_release(struct train_result *result);

/* What a run will need, worked out before it starts. */
struct train_estimate {
    uint64_t parameters;
    uint64_t memory_bytes;  /* at its peak, mapped files not counted */
    double flops_per_epoch; /* of the matrix products, evaluation included */
    double flops_total;     /* with preparation and probe */
};

/* How many of n training samples the protocol holds out. */
size_t train_held_out(const struct train_config *config, size_t n);

struct train_estimate train_estimate(const struct train_config *config, size_t n_train,
                                     size_t n_test, size_t n_values, size_t n_classes, int members);

#endif
