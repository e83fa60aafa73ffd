#include "core/infer.h"

#include "core/kmeans.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct infer {
    const struct preprocess *preprocess;
    struct net net;
    struct kmeans kmeans; /* of its kinds: what its biases are set by */
    size_t n_classes;
    real *weight, *bias; /* of the read-out, K×C and C: unit by unit */
    real *x;             /* INFER_ROWS×D, prepared */
    real *codes;         /* CODE_BLOCK×K, a row in one piece */
    struct arena arena;
    /* The call in hand: */
    size_t n;
    real *to_codes;
    double *to_probabilities;
    const _Atomic int *stop;
    int stopped;
};

/* The layers as they were trained, and nothing that only training needs. */
static struct net_config net_shape(const struct train_config *model, size_t n_inputs) {
    struct net_config shape = train_net_shape(model, n_inputs, 0);
    shape.decoder = shape.tied = shape.activity = 0;
    shape.ovr.lambda = 0;
    shape.l1 = shape.l2 = shape.contractive = shape.kl = 0;
    shape.frozen = 0;
    memset(shape.dropout, 0, sizeof shape.dropout);
    return shape;
}

static void place(struct infer *infer, const struct infer_config *config, struct arena *arena) {
    size_t d = preprocess_width(config->preprocess);
    const struct net_config shape = net_shape(config->model, d);
    net_place(&infer->net, &shape, config->kernels, 0, CODE_BLOCK,
              &(struct crew){config->members, 1}, arena);
    size_t k = shape.units[shape.n_layers - 1];
    infer->weight = arena_take(arena, k * config->n_classes, sizeof(real));
    infer->bias = arena_take(arena, config->n_classes, sizeof(real));
    infer->x = arena_take(arena, INFER_ROWS * d, sizeof(real));
    infer->codes = arena_take(arena, CODE_BLOCK * k, sizeof(real));
}

int infer_new(struct infer **out, const struct infer_config *config, struct ovr_err *err) {
    *out = NULL;
    struct infer *infer = calloc(1, sizeof *infer);
    struct infer counted;
    struct arena counting = {0};
    if (!infer)
        return ovr_nomem(err, "a model");
    place(&counted, config, &counting);
    int rc = arena_open(&infer->arena, counting.used, err);
    if (rc) {
        free(infer);
        return rc;
    }
    infer->preprocess = config->preprocess;
    infer->n_classes = config->n_classes;
    place(infer, config, &infer->arena);
    enum model_kind kind = config->model->kind;
    if (kind == MODEL_KMEANS || kind == MODEL_ONLINE_KMEANS)
        infer->kmeans = (struct kmeans){.kernels = config->kernels,
                                        .n_units = infer_units(infer),
                                        .n_inputs = infer->net.config.n_inputs,
                                        .centroids = net_weight(&infer->net, 0),
                                        .bias = net_bias(&infer->net, 0)};
    *out = infer;
    return 0;
}

void infer_free(struct infer *infer) {
    if (!infer)
        return;
    arena_close(&infer->arena);
    free(infer);
}

size_t infer_bytes(const struct infer *infer) {
    return sizeof *infer + infer->arena.size;
}

size_t infer_inputs(const struct infer *infer) {
    return infer->preprocess->n_in;
}

size_t infer_units(const struct infer *infer) {
    return infer->net.config.units[infer->net.config.n_layers - 1];
}

static void biases_work(struct member *member, void *arg) {
    kmeans_continue(member, &((struct infer *)arg)->kmeans, NULL);
}

int infer_set_weights(struct infer *infer, const struct initial *initial, struct ovr_err *err) {
    struct net_part parts[PARTS_MAX];
    struct team *alone = NULL;
    size_t wanted = net_parts(&infer->net, parts), loaded = initial_load(&infer->net, initial);
    if (infer->kmeans.n_units) /* whose biases are not kept */
        wanted--;
    if (loaded != wanted)
        return ovr_fail(err, OVR_INVALID, NULL, "%zu of the %zu tensors of the net are not there",
                        wanted - loaded, wanted);
    if (!infer->kmeans.n_units)
        return 0;
    int rc = team_new(&alone, 1, err);
    if (!rc)
        team_run(alone, biases_work, infer);
    team_free(alone);
    return rc;
}

void infer_set_read_out(struct infer *infer, const real *weight, const real *bias) {
    size_t k = infer_units(infer), classes = infer->n_classes;
    for (size_t c = 0; c < classes; c++)
        for (size_t unit = 0; unit < k; unit++)
            infer->weight[unit * classes + c] = weight[c * k + unit];
    memcpy(infer->bias, bias, classes * sizeof *bias);
}

const real *infer_first_weights(const struct infer *infer, size_t *units, size_t *inputs) {
    const struct layer_config *layer = &infer->net.layers[0].config;
    *units = layer->n_units;
    *inputs = layer->n_inputs;
    return layer->copies ? NULL : net_weight(&infer->net, 0);
}

/* Softmax of one row. */
static void read_out(const struct infer *infer, const real *code, double *p) {
    size_t classes = infer->n_classes;
    double most = -INFINITY, sum = 0;
    for (size_t c = 0; c < classes; c++)
        p[c] = infer->bias[c];
    for (size_t unit = 0; unit < infer_units(infer); unit++) {
        const real *weight = infer->weight + unit * classes;
        for (size_t c = 0; code[unit] != 0 && c < classes; c++)
            p[c] += (double)code[unit] * weight[c];
    }
    for (size_t c = 0; c < classes; c++)
        most = fmax(most, p[c]);
    for (size_t c = 0; c < classes; c++)
        sum += p[c] = exp(p[c] - most);
    for (size_t c = 0; c < classes; c++)
        p[c] /= sum;
}

/* One block, already prepared: H into rows, and what is read out of them. */
static void run_block(struct member *member, struct infer *infer, size_t at, size_t n) {
    struct batch batch = {
        .x = infer->x + at * infer->net.config.n_inputs, .n = n, .group = n, .training = 0};
    size_t k = infer_units(infer), first, end;
    real *codes = infer->to_codes ? infer->to_codes + at * k : infer->codes;
    net_forward(member, &infer->net, &batch);
    const struct activations a = net_activations(&infer->net);
    team_own(member, BY_SHARD, a.n_shards, &first, &end);
    for (size_t s = first; s < end; s++) {
        struct shard shard = activations_shard(&a, s);
        const real *h = activations_of(&a, &shard);
        for (size_t i = 0; i < n; i++)
            memcpy(codes + i * k + shard.first, h + i * shard.units, shard.units * sizeof *h);
    }
    if (!infer->to_probabilities)
        return;
    team_barrier(member);
    team_share(member, n, &first, &end);
    for (size_t i = first; i < end; i++)
        read_out(infer, codes + i * k, infer->to_probabilities + (at + i) * infer->n_classes);
}

static void work(struct member *member, void *arg) {
    struct infer *infer = arg;
    for (size_t at = 0; at < infer->n; at += CODE_BLOCK) {
        if (team_agree(member, infer->stop)) {
            if (member->rank == 0)
                infer->stopped = 1;
            return;
        }
        run_block(member, infer, at, min_size(CODE_BLOCK, infer->n - at));
    }
}

int infer_rows(struct infer *infer, struct team *team, const struct samples *samples, size_t first,
               size_t n, real *codes, double *probabilities, const _Atomic int *stop,
               struct ovr_err *err) {
    uint32_t rows[INFER_ROWS];
    for (size_t i = 0; i < n; i++)
        rows[i] = (uint32_t)(first + i);
    int rc = preprocess_apply(infer->preprocess, team, samples, rows, n, infer->x, stop, err);
    if (rc)
        return rc;
    infer->n = n;
    infer->to_codes = codes;
    infer->to_probabilities = probabilities;
    infer->stop = stop;
    infer->stopped = 0;
    team_run(team, work, infer);
    return infer->stopped ? ovr_fail(err, OVR_STOPPED, NULL, "stopped while samples were encoded")
                          : 0;
}
