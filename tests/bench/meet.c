/* What a meeting of ranks costs: our own calls (worker/mpi.c), and the all-reduce of gradients that
 * a data-parallel trainer would need instead.
 *
 *   mpirun -n RANKS meet swap|agree|allreduce BYTES...
 *
 * swap: each two ranks have so many bytes for each other; agree: the first one has them for all;
 * allreduce: floats, so many bytes of them. Rank 0 prints a line of JSON for each size. */
#include "worker/mpi.h"

#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { BLOCKS = 7, MOST_CALLS = 400, FEWEST_CALLS = 2 };
static const double BYTES_A_BLOCK = 16e6;

struct buffers {
    char *bytes;   /* 2×n */
    float *floats; /* n/4: the sum */
    size_t n;
};

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static void swap(struct ranks *ranks, const struct buffers *buffers) {
    const size_t own = (size_t)ranks->rank % 2 * buffers->n;
    const struct span send = {own, buffers->n}, receive = {buffers->n - own, buffers->n};
    ranks->swap(ranks->context, ranks->rank ^ 1, buffers->bytes, 1, &send, 1, &receive, 1);
}

static void agree(struct ranks *ranks, const struct buffers *buffers) {
    struct span spans[RANKS_MAX] = {{0, buffers->n}};
    ranks->gather(ranks->context, buffers->bytes, 1, spans);
}

static void meet(struct ranks *ranks, const struct buffers *buffers, const char *what) {
    if (strcmp(what, "allreduce") == 0)
        MPI_Allreduce(buffers->bytes, buffers->floats, (int)(buffers->n / sizeof(float)), MPI_FLOAT,
                      MPI_SUM, MPI_COMM_WORLD);
    else if (strcmp(what, "agree") == 0)
        agree(ranks, buffers);
    else
        swap(ranks, buffers);
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Seconds of one: the median over the blocks. The number of calls follows from the size alone, so
 * that all ranks make the same. */
static double time_of(struct ranks *ranks, const struct buffers *buffers, const char *what) {
    double calls = BYTES_A_BLOCK / (double)(buffers->n + 1), seconds[BLOCKS];
    int n = calls > MOST_CALLS ? MOST_CALLS : calls < FEWEST_CALLS ? FEWEST_CALLS : (int)calls;
    meet(ranks, buffers, what);
    for (int i = 0; i < BLOCKS; i++) {
        MPI_Barrier(MPI_COMM_WORLD);
        double started = now();
        for (int call = 0; call < n; call++)
            meet(ranks, buffers, what);
        seconds[i] = (now() - started) / n;
    }
    qsort(seconds, BLOCKS, sizeof *seconds, by_size);
    return seconds[BLOCKS / 2];
}

static void measure(struct ranks *ranks, const char *what, size_t n) {
    struct buffers buffers = {.n = n};
    buffers.bytes = calloc(2, n);
    buffers.floats = malloc(n);
    if (!buffers.bytes || !buffers.floats) {
        fprintf(stderr, "meet: no memory for %zu bytes\n", n);
        mpi_abort(1);
    }
    double seconds = time_of(ranks, &buffers, what);
    if (ranks->rank == 0)
        printf("{\"what\": \"%s\", \"ranks\": %d, \"bytes\": %zu, \"us\": %.3f}\n", what,
               ranks->size, n, 1e6 * seconds);
    free(buffers.bytes);
    free(buffers.floats);
}

int main(int argc, char **argv) {
    static const char *const known[] = {"swap", "agree", "allreduce"};
    struct ranks ranks;
    struct ovr_err err = {0};
    int is_known = 0;
    for (size_t i = 0; argc > 2 && i < sizeof known / sizeof *known; i++)
        is_known |= strcmp(argv[1], known[i]) == 0;
    for (int i = 2; i < argc; i++)
        is_known &= strtoul(argv[i], NULL, 10) > 0;
    if (!is_known) {
        fputs("usage: mpirun -n RANKS meet swap|agree|allreduce BYTES...\n", stderr);
        return 2;
    }
    if (mpi_start(&ranks, &err)) {
        fprintf(stderr, "meet: %s\n", err.text);
        return 1;
    }
    if (ranks.size % 2 && strcmp(argv[1], "swap") == 0) {
        fprintf(stderr, "meet: swap needs an even number of ranks, got %d\n", ranks.size);
        mpi_abort(2);
    }
    for (int i = 2; i < argc; i++)
        measure(&ranks, argv[1], strtoul(argv[i], NULL, 10));
    mpi_end();
    return 0;
}
