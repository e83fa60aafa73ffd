/* Samples as they were given: the rows of one split, before any preprocessing.
 *
 * Values are read row by row as `real`; bytes (images) give 0..255. A file is mapped read-only and
 * shared, so that many jobs on one data set hold one copy.
 */
#ifndef OVR_SAMPLES_H
#define OVR_SAMPLES_H

#include "core/err.h"
#include "core/real.h"

enum { CLASSES_MAX = 1000 };

/* Some classes. */
struct class_list {
    size_t n;
    uint16_t list[CLASSES_MAX];
};

struct samples {
    size_t n, d;          /* rows, values a row */
    size_t n_classes;     /* labels are 0..n_classes-1 */
    uint16_t *labels;     /* n; owned */
    const uint8_t *bytes; /* first value of row 0, or NULL; rows `stride` bytes apart */
    size_t stride;
    real *values;    /* n×d, or NULL; owned */
    uint32_t *cells; /* sphere only: the cell of each point, 0..n_cells-1; owned */
    size_t n_cells;
    void *map; /* mapped file, or NULL */
    size_t map_bytes;
};

void samples_release(struct samples *samples);

/* Row i into out (d values). */
void samples_row(const struct samples *samples, size_t i, real *out);

/* Records of CIFAR-10's binary format: one label byte 0..9, then 3·32·32 pixel bytes (red, green
 * and blue planes, each row by row). */
enum { CIFAR10_RECORD = 3073, CIFAR10_CLASSES = 10 };

/* Checks n bytes that start at `offset` of a file of records; call it with the pieces in order. */
int cifar10_check(const uint8_t *bytes, size_t n, uint64_t offset, struct ovr_err *err);

/* Checks the number of bytes in the whole file. */
int cifar10_check_size(uint64_t bytes, struct ovr_err *err);

/* Maps such a file. On failure *samples is untouched. */
int cifar10_open(struct samples *samples, const char *path, struct ovr_err *err);

/* The paper's generated data: points uniform on the unit sphere, cut by `latitudes` parallels into
 * latitudes + 1 bands of equal area (equal steps of z) and by meridians into `sectors` sectors.
 * Each of the cells (band·sectors + sector) gets one of the classes at random. Both splits share
 * the cells. */
struct sphere_config {
    size_t samples, test_samples, latitudes, sectors, classes;
    uint64_t seed;
};

/* The class of each of the cells, (latitudes + 1)·sectors of them. */
void sphere_classes(const struct sphere_config *config, uint16_t *class_of);

int sphere_generate(struct samples *samples, const struct sphere_config *config, int test,
                    struct ovr_err *err);

#endif
