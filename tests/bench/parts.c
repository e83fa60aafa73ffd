/* The parts of a step by themselves: the two ways to the weight gradient, a barrier, the optimiser.
 */
#include "core/linalg.h"
#include "core/net.h"
#include "core/rng.h"
#include "tests/bench/bench.h"

/* One member's scratch, as in core/net.c: the block of the result stays in cache. */
struct scratch {
    real *dw; /* SHARD_UNITS×d */
    uint32_t *count;
    uint8_t *row;
    real *value;
};

struct gradient {
    const struct options *options;
    const struct kernels *kernels;
    real *x, *panels;        /* n×d, and the same in panels of PANEL columns */
    real *g;                 /* one shard's: n×SHARD_UNITS */
    struct scratch *scratch; /* for each member */
    int dense;
};

static void allocate_work(struct member *member, void *arg) {
    const struct gradient *p = arg;
    p->scratch[member->rank] =
        (struct scratch){.dw = new_array(SHARD_UNITS * p->options->d, sizeof(real)),
                         .count = new_array(SHARD_UNITS, sizeof(uint32_t)),
                         .row = new_array(SHARD_UNITS * (ACTIVE_ROWS + LIST_ROOM), sizeof(uint8_t)),
                         .value = new_array(SHARD_UNITS * (ACTIVE_ROWS + LIST_ROOM), sizeof(real))};
}

/* All shards of the layer, each member its part. */
static void gradient_work(struct member *member, void *arg) {
    const struct gradient *p = arg;
    const struct scratch *s = &p->scratch[member->rank];
    size_t d = p->options->d, n = p->options->n, first, end;
    team_share(member, count_shards(p->options->k), &first, &end);
    for (size_t shard = first; shard < end; shard++) {
        if (p->dense) {
            linalg_gemm_tn(SHARD_UNITS, d, n, p->g, SHARD_UNITS, p->x, d, 0, s->dw, d);
            continue;
        }
        p->kernels->list_active(p->g, n, SHARD_UNITS, s->count, s->row, s->value);
        p->kernels->active_product(s->count, s->row, s->value, p->panels, n, SHARD_UNITS, d, 0,
                                   s->dw);
    }
}

static double time_of_gradient(struct team *team, struct gradient *p, int dense) {
    double started = now();
    p->dense = dense;
    for (size_t i = 0; i < p->options->steps; i++)
        team_run(team, gradient_work, p);
    return 1e3 * (now() - started) / (double)p->options->steps;
}

static void fill_gradient(struct gradient *p) {
    size_t d = p->options->d, n = p->options->n;
    struct rng rng;
    rng_init(&rng, 1, RNG_SHUFFLE, 0, 0);
    for (size_t i = 0; i < n * d; i++) {
        size_t panel = i % d / PANEL;
        p->x[i] = (real)rng_normal(&rng);
        p->panels[(panel * n + i / d) * PANEL + i % d % PANEL] = p->x[i];
    }
    for (size_t i = 0; i < n * SHARD_UNITS; i++)
        p->g[i] = rng_uniform(&rng) < p->options->share ? (real)rng_normal(&rng) : 0;
}

json_t *bench_gradient(const struct options *options) {
    size_t n = min_size(options->n, ACTIVE_ROWS), panels = (options->d + PANEL - 1) / PANEL;
    struct options shape = *options;
    shape.n = n;
    struct gradient p = {.options = &shape,
                         .kernels = chosen_kernels(options),
                         .x = new_array(n * options->d, sizeof(real)),
                         .panels = new_array(n * panels * PANEL, sizeof(real)),
                         .g = new_array(n * SHARD_UNITS, sizeof(real)),
                         .scratch = new_array(options->threads, sizeof(struct scratch))};
    struct team *team = new_team(options->threads);
    team_run(team, allocate_work, &p);
    fill_gradient(&p);
    double active[options->rounds], dense[options->rounds], ratio[options->rounds];
    time_of_gradient(team, &p, 0);
    time_of_gradient(team, &p, 1);
    for (size_t i = 0; i < options->rounds; i++) {
        active[i] = time_of_gradient(team, &p, 0);
        dense[i] = time_of_gradient(team, &p, 1);
        ratio[i] = active[i] / dense[i];
    }
    return json_pack("{s:f, s:f, s:f, s:f}", "share", options->share, "active_ms",
                     median(active, options->rounds), "dense_ms", median(dense, options->rounds),
                     "ratio", median(ratio, options->rounds));
}

enum { BARRIERS = 20000 };

static void barrier_work(struct member *member, void *arg) {
    (void)arg;
    for (int i = 0; i < BARRIERS; i++)
        team_barrier(member);
}

json_t *bench_barrier(const struct options *options) {
    struct team *team = new_team(options->threads);
    double us[options->rounds];
    for (size_t i = 0; i < options->rounds; i++) {
        double started = now();
        team_run(team, barrier_work, NULL);
        us[i] = 1e6 * (now() - started) / BARRIERS;
    }
    return json_pack("{s:i, s:f}", "members", (int)options->threads, "us",
                     median(us, options->rounds));
}

struct weights {
    size_t n;
    const struct kernels *kernels;
    struct update update;
    real *w, *g, *m, *v;
};

static void update_work(struct member *member, void *arg) {
    const struct weights *p = arg;
    size_t first, end, line = OVR_ALIGN / sizeof(real);
    team_share(member, p->n / line, &first, &end);
    first *= line;
    end *= line;
    p->kernels->update(&p->update, end - first, p->w + first, p->g + first, p->m + first,
                       p->v + first);
}

json_t *bench_optimizer(const struct options *options) {
    const struct optimizer_config adam = {OPT_ADAM, options->rate, 0.9, 0.999, 1e-7, 0, 0};
    size_t n = options->k * options->d;
    struct weights p = {.n = n, .kernels = chosen_kernels(options)};
    real **arrays[] = {&p.w, &p.g, &p.m, &p.v};
    for (size_t i = 0; i < 4; i++)
        *arrays[i] = new_array(n, sizeof(real));
    for (size_t i = 0; i < n; i++)
        p.g[i] = (real)(i % 31) - 15;
    struct team *team = new_team(options->threads);
    double ms[options->rounds];
    for (size_t t = 0; t < options->rounds + 1; t++) { /* the first touches the memory */
        p.update = optimizer_update(&adam, options->rate, t + 1);
        double started = now();
        team_run(team, update_work, &p);
        ms[t ? t - 1 : 0] = 1e3 * (now() - started);
    }
    double middle = median(ms, options->rounds);
    /* Reads weight, gradient and both moments; writes all but the gradient. */
    double bytes = 7.0 * sizeof(real) * (double)n;
    return json_pack("{s:f, s:f}", "ms", middle, "gb_per_second", bytes / middle * 1e-6);
}
