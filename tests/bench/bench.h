/* What the measurements share: options, time, medians, and giving up.
 *
 * A measurement is one function that prints one JSON object on a line. It sets up its own team and
 * data from the options and leaves releasing them to the end of the process.
 */
#ifndef TESTS_BENCH_BENCH_H
#define TESTS_BENCH_BENCH_H

#include "core/cpu.h"
#include "core/net.h"

#include <jansson.h>

/* Given as name=value; bench.c has the defaults. */
struct options {
    size_t d, k, n;      /* inputs, units, rows of a batch */
    size_t threads;      /* members of a team */
    size_t jobs;         /* teams at once */
    size_t rounds;       /* how often what is compared takes turns */
    size_t steps;        /* optimiser steps a round */
    size_t samples;      /* probe, pca */
    size_t epochs;       /* probe */
    size_t components;   /* pca */
    double share;        /* of activations that are not zero */
    double rate;         /* learning rate of a step */
    const char *isa;     /* auto, baseline, avx2, avx512 */
    const char *data;    /* where the other side finds what this one starts from; "" for nowhere */
    const char *cifar10; /* pca: a file of CIFAR-10's records; "" to make bytes up */
};

double now(void);                        /* seconds */
double median(double *values, size_t n); /* sorts them */

/* Ends the process with a message where rc is not 0 or memory is not there. */
void check(int rc, const struct ovr_err *err);
void *new_array(size_t n, size_t size); /* zeroed */
struct team *new_team(size_t size);
const struct kernels *chosen_kernels(const struct options *options);
struct net *new_net(const struct options *options, const struct net_config *config, size_t moments,
                    size_t max_rows);

/* Writes n bytes into the file `name` in options->data; does nothing where that is "". */
void hand_over(const struct options *options, const char *name, const void *bytes, size_t n);

/* The measurements. Each returns a new reference. */
json_t *bench_machine(const struct options *options);
json_t *bench_step(const struct options *options);
json_t *bench_jobs(const struct options *options);
json_t *bench_gradient(const struct options *options);
json_t *bench_barrier(const struct options *options);
json_t *bench_optimizer(const struct options *options);
json_t *bench_probe(const struct options *options);
json_t *bench_pca(const struct options *options);

#endif
