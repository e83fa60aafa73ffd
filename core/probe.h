/* The probe: multinomial logistic regression on a frozen code. Its accuracy says what the code is
 * worth.
 *
 * Weights start at zero. The published settings are Adam 5e-5 (epsilon 1e-7), batch 32, 100 epochs,
 * plateau schedule on the loss of the watched split.
 */
#ifndef OVR_PROBE_H
#define OVR_PROBE_H

#include "core/code.h"
#include "core/optimizer.h"

#include <stdatomic.h>

struct probe_config {
    int epochs;
    size_t batch_size;
    struct optimizer_config optimizer;
    struct schedule_config schedule;
    uint64_t seed;
};

struct probe_result {
    double accuracy_best; /* of the watched split, over all epochs */
    double accuracy_last;
    double loss_best;     /* lowest loss of the watched split */
    int epoch_best;       /* the epoch of loss_best, from 1 */
    double accuracy_test; /* of `test` with the weights of epoch_best; NaN without it */
    size_t width;         /* read_out_width(n_classes) */
    real *weights;        /* of epoch_best: n_units×width, then the bias (width); in the arena */
};

struct probe_progress {
    void *context;
    /* After each epoch, while the team is at rest and may be resized; may be NULL. */
    void (*epoch)(void *context, int epoch);
    const _Atomic int *stop; /* asks for OVR_STOPPED at the next step when not 0; may be NULL */
};

/* Trains on `train`, watches `watch` after every epoch, and reads `test` (may be NULL) once at the
 * end. `progress` is not NULL, its members may be. All memory is taken from `arena`, which has to
 * be zero there and have room for what probe_plan() counts. */
int probe_run(struct team *team, const struct kernels *kernels, const struct probe_config *config,
              size_t n_classes, const struct code *train, const struct code *watch,
              const struct code *test, const struct probe_progress *progress, struct arena *arena,
              struct probe_result *result, struct ovr_err *err);

/* Counts what a run takes: for n_train samples of codes of n_units. */
void probe_plan(const struct probe_config *config, size_t n_units, size_t n_classes, size_t n_train,
                int members, struct arena *counting);

#endif
