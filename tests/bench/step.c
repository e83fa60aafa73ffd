/* Time of one training step of the OVR-Encoder against the time of its two bare matrix products.
 *
 * usage: step [D K N [threads]]          default 781 8192 128, all cores
 *
 * Both are measured in turns in one run, since the machine's speed drifts; medians and their ratio
 * are printed. A step is forward, loss, gradient and Adam's update of all weights. The bare
 * products are X·Wᵀ and dHᵀ·X in single precision, each thread computing an equal share of the
 * units in one call. */
#include "core/linalg.h"
#include "core/net.h"
#include "core/rng.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { ROUNDS = 9, STEPS = 4 };

struct bench {
    struct net *net;
    struct batch batch;
    real *dw; /* K×D, of the bare products */
    uint64_t t;
};

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static void init_work(struct member *member, void *arg) {
    net_init_weights(member, ((struct bench *)arg)->net);
}

static void step_work(struct member *member, void *arg) {
    const struct bench *bench = arg;
    const struct optimizer_config adam = {OPT_ADAM, 5e-4, 0.9, 0.999, 1e-7, 0, 0};
    for (uint64_t i = 1; i <= STEPS; i++) {
        struct update update = optimizer_update(&adam, adam.learning_rate, bench->t + i);
        net_forward(member, bench->net, &bench->batch);
        net_backward(member, bench->net, &bench->batch, &update);
    }
}

static void product_work(struct member *member, void *arg) {
    const struct bench *bench = arg;
    size_t d = bench->net->config.n_inputs, n = bench->batch.n, first, end;
    team_share(member, bench->net->config.n_units, &first, &end);
    size_t units = end - first;
    real *h = bench->net->h + first * bench->net->max_rows;
    for (int i = 0; i < STEPS; i++) {
        team_barrier(member);
        linalg_gemm_nt(n, units, d, bench->batch.x, d, net_weight(bench->net) + first * d, d, 0, h,
                       units);
        team_barrier(member);
        linalg_gemm_tn(units, d, n, h, units, bench->batch.x, d, 0, bench->dw + first * d, d);
    }
}

static double time_of(struct team *team, void (*work)(struct member *, void *),
                      struct bench *bench) {
    double started = now();
    team_run(team, work, bench);
    return (now() - started) / STEPS;
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values) {
    qsort(values, ROUNDS, sizeof *values, by_size);
    return values[ROUNDS / 2];
}

static void measure(struct team *team, struct bench *bench) {
    double step[ROUNDS], product[ROUNDS], ratio[ROUNDS];
    time_of(team, step_work, bench);
    time_of(team, product_work, bench);
    for (int i = 0; i < ROUNDS; i++) {
        step[i] = time_of(team, step_work, bench);
        bench->t += STEPS;
        product[i] = time_of(team, product_work, bench);
        ratio[i] = step[i] / product[i];
    }
    printf("step                  %7.2f ms\n", 1e3 * median(step));
    printf("two bare products     %7.2f ms\n", 1e3 * median(product));
    printf("step / products       %7.2f\n", median(ratio));
}

int main(int argc, char **argv) {
    size_t size[3] = {781, 8192, 128};
    for (int i = 0; i < 3 && i + 1 < argc; i++)
        size[i] = strtoul(argv[i + 1], NULL, 10);
    int threads = argc > 4 ? atoi(argv[4]) : cpu_count();
    struct net_config config = {.n_inputs = size[0],
                                .n_units = size[1],
                                .init_scale = 0.05,
                                .seed = 1,
                                .ovr = {.lambda = 5e-5},
                                .activity = 1,
                                .activity_target = 0.5};
    struct bench bench = {.batch = {.n = size[2], .group = size[2]}};
    struct team *team = NULL;
    struct ovr_err err = {0};
    struct arena arena = {0};
    struct net net;
    bench.net = &net;
    net_place(&net, &config, kernels_get(ISA_AUTO), 2, size[2], threads, &arena);
    if (linalg_start(NULL, argv, &err) || team_new(&team, threads, &err) ||
        arena_open(&arena, arena.used, &err)) {
        fprintf(stderr, "step: %s\n", err.text);
        return 1;
    }
    net_place(&net, &config, kernels_get(ISA_AUTO), 2, size[2], threads, &arena);
    real *x = ovr_calloc(size[2] * size[0], sizeof *x);
    bench.dw = ovr_calloc(size[1] * size[0], sizeof *bench.dw);
    if (!x || !bench.dw)
        return 1;
    struct rng rng;
    rng_init(&rng, 1, RNG_SHUFFLE, 0, 0);
    for (size_t i = 0; i < size[2] * size[0]; i++)
        x[i] = (real)rng_normal(&rng);
    bench.batch.x = x;
    char cpu[128];
    cpu_model(cpu, sizeof cpu);
    printf("OVR-Encoder, D %zu, K %zu, N %zu, %d threads, %s kernel %s, %s, %s\n", size[0], size[1],
           size[2], threads, linalg_library(), linalg_kernel(), isa_name(bench.net->kernels->isa),
           cpu);
    team_run(team, init_work, &bench);
    measure(team, &bench);
    arena_close(&arena);
    team_free(team);
    free(bench.dw);
    free(x);
    return 0;
}
