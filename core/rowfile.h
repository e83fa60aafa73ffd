/* Row files: samples of any origin in the one form in which they are kept and mapped.
 *
 *   64 bytes      "ovrdrows", then zeros
 *   values        n×d, row by row: bytes where all values are whole numbers 0..255, else float32
 *   labels        n of 16 bits                      (each part begins at a multiple of 8,
 *   class names   each with a NUL, or nothing        zeros before it)
 *   feature names the same
 *   tail          struct rowfile_tail, the file's last bytes
 *
 * Numbers are little-endian. The same samples give the same bytes, wherever they came from, so a
 * file's SHA-256 names its content. A file may hold values alone (no labels) or labels alone (d =
 * 0): the halves of a split that come one by one.
 *
 * A writer takes a file's values while they arrive and needs no more memory than a buffer; labels
 * go to a second file until the end.
 */
#ifndef OVR_ROWFILE_H
#define OVR_ROWFILE_H

#include "core/samples.h"

struct rowfile_tail {
    uint64_t n, d, value_bytes, n_classes, has_labels;
    uint64_t channels, height, width, interleaved;
    uint64_t class_bytes, feature_bytes; /* of the names */
    char magic[8];
};

struct rowfile_writer {
    int fd, labels_fd;
    size_t value_bytes; /* 1 or 4, from the first values on */
    uint64_t n_values, n_labels;
    int whole;                /* all values so far are whole numbers 0..255 */
    uint16_t largest;         /* label so far */
    size_t used, labels_used; /* bytes in the buffers */
    unsigned char buffer[1 << 16];
    uint16_t labels[1 << 13];
};

/* Both files are empty, and stay the caller's. */
int rowfile_begin(struct rowfile_writer *writer, int fd, int labels_fd, struct ovr_err *err);

/* The next values; one file has either kind. */
int rowfile_put_floats(struct rowfile_writer *writer, const float *values, size_t n,
                       struct ovr_err *err);
int rowfile_put_bytes(struct rowfile_writer *writer, const uint8_t *values, size_t n,
                      struct ovr_err *err);
int rowfile_put_label(struct rowfile_writer *writer, uint16_t label, struct ovr_err *err);

struct rowfile_end {
    size_t n, d, n_classes;
    struct image_shape image;
    const uint16_t *numbers;                 /* what becomes of each label; NULL: it stays */
    const char *class_names, *feature_names; /* a NUL after each; NULL: none */
    size_t class_bytes, feature_bytes;
};

/* Writes the rest. n labels (or none) and n·d values must have come. */
int rowfile_finish(struct rowfile_writer *writer, const struct rowfile_end *end,
                   struct ovr_err *err);

/* The values of one and the labels of the other. */
int rowfile_join(int fd, int labels_fd, const struct samples *values, const struct samples *labels,
                 struct ovr_err *err);

/* 1: it begins like a row file; 0; or OVR_IO. */
int rowfile_is(const char *path, struct ovr_err *err);

/* Maps it. On failure *samples is untouched. Without labels `labels` is NULL and n_classes 0. */
int rowfile_open(struct samples *samples, const char *path, struct ovr_err *err);

#endif
