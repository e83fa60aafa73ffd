/* A training step against its two bare matrix products, in turns in one process; and the steps of
 * several networks at once.
 *
 * A step is what core/train.c does for each batch: its rows are gathered from the prepared samples,
 * then forward, loss, gradient and Adam's update of all weights. The bare products are X·Wᵀ and
 * dHᵀ·X in single precision, each thread computing an equal share of the units in one call.
 *
 * Samples and weights are normal, so the pre-activations of a unit are too, with the standard
 * deviation ‖w‖: a bias of −‖w‖·z makes the wanted share of them active. */
#include "core/linalg.h"
#include "core/net.h"
#include "core/rng.h"
#include "tests/bench/bench.h"

#include <math.h>
#include <string.h>

enum { ROWS = 4096 }; /* prepared samples; a power of two, see gather() */

struct problem {
    const struct options *options;
    struct team *team;
    struct net *net;
    const real *samples; /* ROWS×d */
    real *batch_x[2];    /* in turns, as in core/train.c */
    real *dw;            /* k×d, of the bare products */
    uint64_t t;          /* steps so far */
    double loss;         /* of the last step */
};

static void init_work(struct member *member, void *arg) {
    net_init_weights(member, ((struct problem *)arg)->net);
}

/* Where a normal variable is exceeded with probability `share`. */
static double normal_quantile(double share) {
    double low = -40, high = 40;
    for (int i = 0; i < 100; i++) {
        double middle = (low + high) / 2;
        if (erfc(middle / sqrt(2)) / 2 > share)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static void set_share(struct problem *layer, double share) {
    size_t d = layer->net->config.n_inputs;
    double z = normal_quantile(share);
    for (size_t k = 0; k < layer->net->config.units[0]; k++) {
        const real *w = net_weight(layer->net, 0) + k * d;
        double squares = 0;
        for (size_t j = 0; j < d; j++)
            squares += (double)w[j] * w[j];
        net_bias(layer->net, 0)[k] = (real)(-z * sqrt(squares));
    }
}

static const real *new_samples(size_t n) {
    real *x = new_array(n, sizeof *x);
    struct rng rng;
    rng_init(&rng, 1, RNG_SHUFFLE, 0, 0);
    for (size_t i = 0; i < n; i++)
        x[i] = (real)rng_normal(&rng);
    return x;
}

static void layer_start(struct problem *layer, const struct options *options, const real *samples) {
    struct net_config config = {.n_inputs = options->d,
                                .n_layers = 1,
                                .units = {options->k},
                                .init_scale = 0.05,
                                .seed = 1,
                                .ovr = {.lambda = 5e-5},
                                .activity = 1,
                                .activity_target = 0.5};
    *layer = (struct problem){.options = options, .samples = samples};
    layer->team = new_team(options->threads);
    layer->net = new_net(options, &config, 2, options->n);
    for (int i = 0; i < 2; i++)
        layer->batch_x[i] = new_array(options->n * options->d, sizeof(real));
    layer->dw = new_array(options->k * options->d, sizeof(real));
    team_run(layer->team, init_work, layer);
    set_share(layer, options->share);
}

/* This member's rows of batch t. An odd stride meets each of ROWS rows before it repeats one. */
static struct batch gather(struct member *member, struct problem *layer, uint64_t t) {
    size_t d = layer->options->d, n = layer->options->n, from, end;
    real *x = layer->batch_x[t % 2];
    team_share(member, n, &from, &end);
    for (size_t i = from; i < end; i++)
        memcpy(x + i * d, layer->samples + (t * n + i) * 1237 % ROWS * d, d * sizeof *x);
    return (struct batch){.x = x, .n = n, .group = n};
}

static void step_work(struct member *member, void *arg) {
    struct problem *layer = arg;
    const struct optimizer_config adam = {OPT_ADAM, layer->options->rate, 0.9, 0.999, 1e-7, 0, 0};
    uint64_t t = layer->t;
    for (size_t i = 0; i < layer->options->steps; i++, t++) {
        struct batch batch = gather(member, layer, t);
        struct update update = optimizer_update(&adam, adam.learning_rate, t + 1);
        struct terms terms = net_forward(member, layer->net, &batch);
        net_backward(member, layer->net, &batch, &update);
        if (member->rank == 0)
            layer->loss = terms.loss / terms.samples;
    }
    team_barrier(member); /* the others have read t */
    if (member->rank == 0)
        layer->t = t;
}

static void product_work(struct member *member, void *arg) {
    const struct problem *layer = arg;
    size_t d = layer->options->d, n = layer->options->n, first, end;
    team_share(member, layer->options->k, &first, &end);
    size_t units = end - first;
    real *h = layer->net->layers[0].h + first * n;
    for (size_t i = 0; i < layer->options->steps; i++) {
        team_barrier(member);
        linalg_gemm_nt(n, units, d, layer->batch_x[0], d, net_weight(layer->net, 0) + first * d, d,
                       0, h, units);
        team_barrier(member);
        linalg_gemm_tn(units, d, n, h, units, layer->batch_x[0], d, 0, layer->dw + first * d, d);
    }
}

static double time_of(struct problem *layer, void (*work)(struct member *, void *)) {
    double started = now();
    team_run(layer->team, work, layer);
    return 1e3 * (now() - started) / (double)layer->options->steps;
}

/* Share of the last batch's activations that are not zero. */
static double active_share(const struct problem *layer) {
    size_t active = 0, n = layer->options->n, k = layer->options->k;
    for (size_t i = 0; i < n * k; i++)
        active += layer->net->layers[0].h[i] > 0;
    return (double)active / (double)(n * k);
}

static void hand_over_start(const struct problem *layer) {
    const struct options *o = layer->options;
    hand_over(o, "samples.f32", layer->samples, ROWS * o->d * sizeof(real));
    hand_over(o, "weight.f32", net_weight(layer->net, 0), o->k * o->d * sizeof(real));
    hand_over(o, "bias.f32", net_bias(layer->net, 0), o->k * sizeof(real));
}

json_t *bench_step(const struct options *options) {
    struct problem layer;
    layer_start(&layer, options, new_samples(ROWS * options->d));
    hand_over_start(&layer);
    double step[options->rounds], products[options->rounds], ratio[options->rounds];
    time_of(&layer, step_work);
    for (size_t i = 0; i < options->rounds; i++) {
        /* The products leave their result in h, so they come first: active_share() reads a step's.
         */
        products[i] = time_of(&layer, product_work);
        step[i] = time_of(&layer, step_work);
        ratio[i] = step[i] / products[i];
    }
    double flops = 4.0 * (double)options->d * (double)options->k * (double)options->n;
    double floor_ms = median(products, options->rounds);
    return json_pack("{s:f, s:f, s:f, s:f, s:f, s:f, s:I}", "step_ms",
                     median(step, options->rounds), "products_ms", floor_ms, "ratio",
                     median(ratio, options->rounds), "gflops", flops / floor_ms * 1e-6, "active",
                     active_share(&layer), "loss", layer.loss, "steps", (json_int_t)layer.t);
}

/* The outer team's members are the jobs; each steps a layer with a team of its own. */
static void job_work(struct member *member, void *arg) {
    struct problem *layer = (struct problem *)arg + member->rank;
    for (size_t i = 0; i < layer->options->rounds; i++)
        team_run(layer->team, step_work, layer);
}

json_t *bench_jobs(const struct options *options) {
    struct problem *layers = new_array(options->jobs, sizeof *layers);
    const real *samples = new_samples(ROWS * options->d);
    struct team *jobs = new_team(options->jobs);
    for (size_t i = 0; i < options->jobs; i++)
        layer_start(&layers[i], options, samples);
    team_run(jobs, job_work, layers);
    double started = now();
    team_run(jobs, job_work, layers);
    double steps = (double)(options->jobs * options->rounds * options->steps);
    return json_pack("{s:f}", "steps_per_second", steps / (now() - started));
}
