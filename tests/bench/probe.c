/* An epoch of the probe: training on `samples` codes and evaluating on a fifth as many.
 *
 * The codes come from a formula that torch_bench.py has as well. An activation depends on a hash of
 * its place: its upper bits decide whether it is active, its lowest byte how much; units that agree
 * with the sample's class answer twice as strongly, so that there is something to learn. */
#include "core/probe.h"
#include "core/rng.h"
#include "tests/bench/bench.h"

#include <string.h>

enum { CLASSES = 10, SEED = 1 };

static uint32_t hash(uint32_t x) {
    x ^= x >> 16;
    x *= 0x7feb352d;
    x ^= x >> 15;
    x *= 0x846ca68b;
    return x ^ x >> 16;
}

static uint16_t label_of(size_t sample) {
    return (uint16_t)(hash((uint32_t)sample + 0x80000000u) % CLASSES);
}

static real activation(size_t sample, size_t unit, size_t n_units, uint32_t threshold) {
    uint32_t h = hash((uint32_t)(sample * n_units + unit));
    real value = (real)((h & 255) + 1) / 256;
    if (h >> 8 >= threshold)
        return 0;
    return unit % CLASSES == label_of(sample) ? 2 * value : value;
}

struct encoding {
    const struct options *options;
    struct net *net; /* only its activations are used */
    struct code *code;
    size_t first; /* of the samples */
    _Atomic int rc;
};

static void encode_work(struct member *member, void *arg) {
    struct encoding *e = arg;
    size_t k = e->options->k, from, end;
    uint32_t threshold = (uint32_t)(e->options->share * (1 << 24));
    const struct activations code = net_activations(e->net);
    team_share(member, code.n_shards, &from, &end);
    for (size_t first = 0; first < e->code->n; first += CODE_BLOCK) {
        size_t n = min_size(CODE_BLOCK, e->code->n - first);
        for (size_t s = from; s < end; s++) {
            struct shard shard = activations_shard(&code, s);
            real *h = e->net->layers[0].h + e->net->max_rows * shard.first;
            for (size_t i = 0; i < n * shard.units; i++)
                h[i] = activation(e->first + first + i / shard.units, shard.first + i % shard.units,
                                  k, threshold);
        }
        if (code_add(member, e->code, &code, first, n)) {
            e->rc = OVR_NOMEM;
            return;
        }
    }
}

static struct code *new_code(struct team *team, const struct options *options, size_t first,
                             size_t n) {
    struct net_config config = {.n_inputs = 1, .n_layers = 1, .units = {options->k}};
    struct encoding e = {.options = options, .first = first};
    struct ovr_err err = {0};
    uint16_t *labels = new_array(n, sizeof *labels);
    for (size_t i = 0; i < n; i++)
        labels[i] = label_of(first + i);
    check(code_new(&e.code, n, options->k, labels, &err), &err);
    e.net = new_net(options, &config, 0, CODE_BLOCK);
    team_run(team, encode_work, &e);
    if (e.rc)
        check(ovr_nomem(&err, "the codes"), &err);
    return e.code;
}

/* The order in which the probe goes through the samples, so that the other side can do the same. */
static void hand_over_order(const struct options *options) {
    size_t n = options->samples;
    uint32_t *order = new_array(options->epochs * n, sizeof *order);
    for (size_t epoch = 0; epoch < options->epochs; epoch++) {
        struct rng rng;
        rng_init(&rng, SEED, RNG_PROBE_SHUFFLE, (uint32_t)epoch + 1, 0);
        rng_permutation(&rng, order + epoch * n, (uint32_t)n);
    }
    hand_over(options, "order.u32", order, options->epochs * n * sizeof *order);
    free(order);
}

struct stopwatch {
    double last;
    double *seconds; /* of each epoch */
};

static void epoch_done(void *context, int epoch) {
    struct stopwatch *watch = context;
    double at = now();
    watch->seconds[epoch - 1] = at - watch->last;
    watch->last = at;
}

json_t *bench_probe(const struct options *options) {
    struct team *team = new_team(options->threads);
    struct code *train = new_code(team, options, 0, options->samples);
    struct code *watch = new_code(team, options, options->samples, options->samples / 5);
    struct probe_config config = {.epochs = (int)options->epochs,
                                  .batch_size = 32,
                                  .optimizer = {OPT_ADAM, 5e-5, 0.9, 0.999, 1e-7, 0, 0},
                                  .seed = SEED};
    double seconds[options->epochs];
    struct stopwatch stopwatch = {now(), seconds};
    struct probe_progress progress = {&stopwatch, epoch_done, NULL};
    struct probe_result result;
    struct ovr_err err = {0};
    struct arena arena = {0};
    probe_plan(&config, options->k, CLASSES, options->samples, team_size(team), &arena);
    check(arena_open(&arena, arena.used, &err), &err);
    hand_over_order(options);
    stopwatch.last = now();
    check(probe_run(team, chosen_kernels(options), &config, CLASSES, train, watch, NULL, &progress,
                    &arena, &result, &err),
          &err);
    return json_pack("{s:f, s:f, s:f}", "epoch_seconds", median(seconds, options->epochs), "loss",
                     result.loss_best, "accuracy", result.accuracy_last);
}
