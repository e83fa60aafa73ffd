#include "core/optimizer.h"

#include <math.h>

size_t optimizer_moments(const struct optimizer_config *config) {
    if (config->name == OPT_ADAM || config->name == OPT_ADAMW)
        return 2;
    size_t squares = config->name == OPT_RMSPROP;
    return squares + (config->momentum > 0);
}

static struct update adam_update(const struct optimizer_config *config, double learning_rate,
                                 uint64_t t) {
    /* The betas that the kernel works with: its 1 − 0.999 in float32 is off by 1e-5, and the
     * corrections below have to be off alike to cancel it. */
    const real beta1 = (real)config->beta1, beta2 = (real)config->beta2;
    const double decay = config->name == OPT_ADAMW ? config->weight_decay : 0;
    return (struct update){
        .rule = UPDATE_ADAM,
        .rate = (real)(learning_rate / (1 - pow(beta1, (double)t))),
        .keep = (real)(1 - learning_rate * decay),
        .beta1 = beta1,
        .beta2 = beta2,
        .root_correction = (real)(1 / sqrt(1 - pow(beta2, (double)t))),
        .epsilon = (real)config->epsilon,
    };
}

struct update optimizer_update(const struct optimizer_config *config, double learning_rate,
                               uint64_t t) {
    if (config->name == OPT_ADAM || config->name == OPT_ADAMW)
        return adam_update(config, learning_rate, t);
    return (struct update){.rule = config->name == OPT_SGD ? UPDATE_SGD : UPDATE_RMSPROP,
                           .rate = (real)learning_rate,
                           .beta2 = (real)config->rho,
                           .epsilon = (real)config->epsilon,
                           .momentum = (real)config->momentum,
                           .nesterov = config->nesterov};
}

static double cosine(const struct schedule_config *config, double start, int done) {
    if (done < config->warmup)
        return start * (done + 1) / (config->warmup + 1);
    double way = (double)(done - config->warmup) / (config->epochs - config->warmup);
    return config->min + (start - config->min) * (1 + cos(M_PI * way)) / 2;
}

static void plateau(const struct schedule_config *config, struct schedule_state *state,
                    double loss) {
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

/* What the number of epochs alone decides. */
static void set_rate(const struct schedule_config *config, struct schedule_state *state) {
    if (config->name == SCHEDULE_STEP)
        state->learning_rate = state->start * pow(config->factor, state->epochs / config->every);
    else if (config->name == SCHEDULE_COSINE)
        state->learning_rate = cosine(config, state->start, state->epochs);
}

void schedule_start(const struct schedule_config *config, struct schedule_state *state,
                    double learning_rate) {
    *state = (struct schedule_state){
        .learning_rate = learning_rate, .start = learning_rate, .best = INFINITY};
    set_rate(config, state);
}

void schedule_step(const struct schedule_config *config, struct schedule_state *state,
                   double loss) {
    state->epochs++;
    if (config->name == SCHEDULE_PLATEAU)
        plateau(config, state, loss);
    set_rate(config, state);
}
