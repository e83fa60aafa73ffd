/* Optimisers and learning-rate schedules: what a training loop asks for at each step and epoch. */
#ifndef OVR_OPTIMIZER_H
#define OVR_OPTIMIZER_H

#include "core/kernels.h"

enum optimizer { OPT_ADAM, OPT_SGD };

struct optimizer_config {
    enum optimizer name;
    double learning_rate;
    double beta1, beta2,
        epsilon;     /* adam: Kingma & Ba 2015; the published program's epsilon is 1e-7 */
    double momentum; /* sgd: v = momentum·v + g */
    int nesterov;    /* sgd: step by g + momentum·v instead of v */
};

/* How many moments a weight has beside itself: adam 2, sgd 1 with momentum, else 0. */
size_t optimizer_moments(const struct optimizer_config *config);

/* What the fused kernel needs for step t = 1, 2, … at this learning rate. */
struct update optimizer_update(const struct optimizer_config *config, double learning_rate,
                               uint64_t t);

enum schedule { SCHEDULE_CONSTANT, SCHEDULE_PLATEAU };

/* plateau: when the watched loss has not improved by more than min_delta for `patience` epochs in a
 * row, the rate is multiplied by `factor`, down to `min`, and the wait starts anew. */
struct schedule_config {
    enum schedule name;
    double factor, min, min_delta;
    int patience;
};

struct schedule_state {
    double learning_rate;
    double best;
    int wait;
};

void schedule_start(struct schedule_state *state, double learning_rate);

/* After an epoch whose watched loss was `loss`. */
void schedule_step(const struct schedule_config *config, struct schedule_state *state, double loss);

#endif
