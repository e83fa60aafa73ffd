#include "core/optimizer.h"

#include <math.h>

size_t optimizer_moments(const struct optimizer_config *config) {
    if (config->name == OPT_ADAM)
        return 2;
    return config->momentum > 0 ? 1 : 0;
}

struct update optimizer_update(const struct optimizer_config *config, double learning_rate,
                               uint64_t t) {
    if (config->name == OPT_SGD)
        return (struct update){.rule = UPDATE_SGD,
                               .rate = (real)learning_rate,
                               .momentum = (real)config->momentum,
                               .nesterov = config->nesterov};
    /* The betas that the kernel works with: its 1 − 0.999 in float32 is off by 1e-5, and the
     * corrections below have to be off alike to cancel it. */
    const real beta1 = (real)config->beta1, beta2 = (real)config->beta2;
    return (struct update){
        .rule = UPDATE_ADAM,
        .rate = (real)(learning_rate / (1 - pow(beta1, (double)t))),
        .beta1 = beta1,
        .beta2 = beta2,
        .root_correction = (real)(1 / sqrt(1 - pow(beta2, (double)t))),
        .epsilon = (real)config->epsilon,
    };
}

void schedule_start(struct schedule_state *state, double learning_rate) {
    *state = (struct schedule_state){.learning_rate = learning_rate, .best = INFINITY};
}

void schedule_step(const struct schedule_config *config, struct schedule_state *state,
                   double loss) {
    if (config->name != SCHEDULE_PLATEAU)
        return;
    if (loss < state->best - config->min_delta) {
        state->best = loss;
        state->wait = 0;
        return;
    }
    if (++state->wait < config->patience)
        return;
    state->wait = 0;
    if (state->learning_rate > config->min)
        state->learning_rate = fmax(state->learning_rate * config->factor, config->min);
}
