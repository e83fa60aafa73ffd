/* Optimisers and learning-rate schedules: what a training loop asks for at each step and epoch. */
#ifndef OVR_OPTIMIZER_H
#define OVR_OPTIMIZER_H

#include "core/kernels.h"

/* The formulas in full are at struct update in core/kernels.h:
 *
 *   adam      Kingma & Ba 2015
 *   adamw     the same with decoupled weight decay, Loshchilov & Hutter 2019: each step first takes
 *             the share learning_rate·weight_decay off every parameter, biases as well
 *   sgd       with momentum: v = momentum·v + g, and a step by v; nesterov: by g + momentum·v
 *   rmsprop   Tieleman & Hinton 2012: a step by g/(√s + epsilon), s = rho·s + (1 − rho)·g²;
 *             with momentum by v = momentum·v + g/(√s + epsilon)
 */
enum optimizer { OPT_ADAM, OPT_SGD, OPT_ADAMW, OPT_RMSPROP };

struct optimizer_config {
    enum optimizer name;
    double learning_rate;
    double beta1, beta2; /* adam, adamw */
    double epsilon;      /* all but sgd; the published program's is 1e-7 */
    double momentum;     /* sgd, rmsprop */
    int nesterov;        /* sgd */
    double weight_decay; /* adamw */
    double rho;          /* rmsprop */
};

/* How many moments a weight has beside itself: adam and adamw 2, sgd 0, rmsprop 1; one more with
 * momentum. */
size_t optimizer_moments(const struct optimizer_config *config);

/* What the fused kernel needs for step t = 1, 2, … at this learning rate. */
struct update optimizer_update(const struct optimizer_config *config, double learning_rate,
                               uint64_t t);

enum schedule { SCHEDULE_CONSTANT, SCHEDULE_PLATEAU, SCHEDULE_STEP, SCHEDULE_COSINE };

/* The learning rate of each epoch, from the optimiser's rate R:
 *
 *   constant  R
 *   plateau   when the watched loss has not improved by more than min_delta for `patience` epochs
 *             in a row, the rate is multiplied by `factor`, down to `min`, and the wait starts anew
 *   step      R·factor^⌊n/every⌋ with n epochs done
 *   cosine    min + (R − min)·(1 + cos(π·(n − warmup)/(epochs − warmup)))/2  (Loshchilov & Hutter
 *             2017), after `warmup` epochs of R·(n + 1)/(warmup + 1)
 */
struct schedule_config {
    enum schedule name;
    double factor, min, min_delta;
    int patience;
    int every;
    int warmup, epochs;
};

struct schedule_state {
    double learning_rate; /* of the next epoch */
    double start;         /* R */
    double best;
    int wait;
    int epochs; /* done */
};

void schedule_start(const struct schedule_config *config, struct schedule_state *state,
                    double learning_rate);

/* After an epoch whose watched loss was `loss`. */
void schedule_step(const struct schedule_config *config, struct schedule_state *state, double loss);

#endif
