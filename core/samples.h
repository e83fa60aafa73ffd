/* Samples as they were given: the rows of one split, before any preprocessing.
 *
 * Values are read row by row as `real`; bytes (images) give 0..255. A file is mapped read-only and
 * shared, so that many jobs on one data set hold one copy.
 */
#ifndef OVR_SAMPLES_H
#define OVR_SAMPLES_H

#include "core/err.h"
#include "core/real.h"

/* Bounds on what comes from outside. */
enum { CLASSES_MAX = 1000, VALUES_MAX = 1 << 20, NAME_MAX_BYTES = 255 };

/* Some classes. */
struct class_list {
    size_t n;
    uint16_t list[CLASSES_MAX];
};

/* How the values of a row make an image; all 0 where they don't or nobody knows. */
struct image_shape {
    size_t channels, height, width;
    int interleaved; /* the channels of a pixel lie side by side, instead of plane after plane */
};

struct samples {
    size_t n, d;          /* rows, values a row */
    size_t n_classes;     /* labels are 0..n_classes-1 */
    uint16_t *labels;     /* n; owned */
    const uint8_t *bytes; /* first value of row 0, or NULL; rows `stride` bytes apart */
    size_t stride;
    const float *floats; /* n×d, or NULL */
    real *values;        /* n×d, or NULL; owned. One of bytes, floats and values is there */
    uint32_t *rows;      /* n: where row i really is; NULL: at i. Owned */
    uint32_t *cells;     /* sphere only: the cell of each point, 0..n_cells-1; owned */
    size_t n_cells;
    struct image_shape image;
    const char *class_names;   /* n_classes texts, a NUL after each; NULL: classes are numbers */
    const char *feature_names; /* d texts, a NUL after each; NULL: none */
    void *map;                 /* mapped file, or NULL */
    size_t map_bytes;
};

void samples_release(struct samples *samples);

/* Row i into out (d values). */
void samples_row(const struct samples *samples, size_t i, real *out);

/* Keeps the samples of these classes, in their order; labels keep their numbers. OVR_INVALID when
 * none is left. */
int samples_keep_classes(struct samples *samples, const struct class_list *classes,
                         struct ovr_err *err);

/* Gives the labels of `samples` the numbers that the classes of the same name have in `from`. A
 * class that is a number is named by it. OVR_INVALID names one that `from` does not have. When both
 * have numbers nothing changes. */
int samples_adopt_classes(struct samples *samples, const struct samples *from, struct ovr_err *err);

/* The name of class c, or its number in `text` (16 bytes). */
const char *samples_class_name(const struct samples *samples, size_t c, char text[16]);

/* Records of CIFAR-10's binary format: one label byte 0..9, then 3·32·32 pixel bytes (red, green
 * and blue planes, each row by row). */
enum { CIFAR10_RECORD = 3073, CIFAR10_CLASSES = 10 };

/* Checks n bytes that start at `offset` of a file of records; call it with the pieces in order. */
int cifar10_check(const uint8_t *bytes, size_t n, uint64_t offset, struct ovr_err *err);

/* Checks the number of bytes in the whole file. */
int cifar10_check_size(uint64_t bytes, struct ovr_err *err);

/* Maps such a file. On failure *samples is untouched. */
int cifar10_open(struct samples *samples, const char *path, struct ovr_err *err);

/* Maps a file of this kind or one of core/rowfile.h: what the catalogue keeps. On failure *samples
 * is untouched. */
int samples_open(struct samples *samples, const char *path, struct ovr_err *err);

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
