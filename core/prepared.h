/* Prepared data: the splits of a run, every row ready for the first layer, and the fitted steps
 * that led there.
 *
 * Protocols, always named with a result:
 *   published  the test split is watched: it picks the best epoch and gives the accuracy, as the
 *              paper's own program did
 *   clean      a share of the training samples, drawn by seed, is held out and watched; the test
 *              split is read once, with the best epoch's weights
 *
 * All of it lies in one read-only block, in anonymous memory or in a file that is mapped shared, so
 * that any number of jobs on the same data and steps hold one copy.
 */
#ifndef OVR_PREPARED_H
#define OVR_PREPARED_H

#include "core/preprocess.h"
#include "core/samples.h"
#include "core/team.h"

/* To be raised with every change of the code that changes the bytes of a block for the same input:
 * blocks outlive the program. */
enum { PREPARED_VERSION = 3 };

enum protocol { PROTOCOL_CLEAN, PROTOCOL_PUBLISHED };

struct prepare_config {
    enum protocol protocol;
    double validation; /* clean: the share of the training samples held out, at least one */
    struct preprocess_step preprocess[PREPROCESS_MAX];
    size_t n_preprocess;
};

struct split {
    const real *x;          /* n × preprocess_width() */
    const uint16_t *labels; /* n */
    size_t n;
    const uint32_t *cells; /* n: of the sphere, 0..n_cells-1; NULL for other data */
};

struct prepared {
    struct preprocess preprocess;      /* its arrays lie in the block: never released alone */
    struct split train, watched, test; /* test: clean protocol only, else n = 0 */
    size_t n_inputs;                   /* values a prepared row */
    size_t n_classes;
    size_t n_cells; /* 0: not the sphere */
    void *block;    /* mapped */
    size_t bytes;
    int in_file;
};

/* How many of n training samples the protocol holds out. */
size_t prepared_held_out(const struct prepare_config *config, size_t n);

/* Fits the steps on the training samples that are not held out and applies them to all splits, on
 * `team`. `fd`: an empty file to hold the block, or -1 for memory; when the file can't take it the
 * block is in memory after all (in_file = 0). *stop (may be NULL) asks for OVR_STOPPED. */
int prepared_build(struct prepared **prepared, const struct prepare_config *config, uint64_t seed,
                   const struct samples *train, const struct samples *test, struct team *team,
                   const struct kernels *kernels, int fd, const _Atomic int *stop,
                   struct ovr_err *err);

/* Maps what prepared_build() left in the first `bytes` of a file. The bytes have to be those
 * (compare a checksum first); what is no block of this program's is OVR_IO. */
int prepared_map(struct prepared **prepared, int fd, size_t bytes, struct ovr_err *err);

void prepared_free(struct prepared *prepared); /* NULL is fine */

/* Bytes of the block for rows of `d` values. A share of variance counts as all components. */
size_t prepared_bytes(const struct prepare_config *config, size_t n_train, size_t n_test, size_t d,
                      size_t n_cells);

#endif
