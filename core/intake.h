/* Intake: files of samples in the formats that people have, read as their bytes arrive and written
 * in the form that is kept: CIFAR-10's records as they are, everything else as a row file.
 *
 *   cifar10   records of 3073 bytes (core/samples.h)
 *   csv       RFC 4180; the separator (comma, semicolon or tab) is found in the first line; one
 *             column has the labels, the others numbers. Labels that are all whole numbers
 *             0..CLASSES_MAX-1 are the classes' numbers, others become classes sorted by name
 *   idx       the MNIST family's; features or labels alone
 *   npy       numpy's, versions 1 to 3, C order; features or labels alone
 *
 * Arrays have 1..4 dimensions, rows first; h×w, c×h×w and h×w×c with 1 or 3 channels make images.
 * Memory is bounded whatever arrives. Faults say where: line and column, sample and value.
 */
#ifndef OVR_INTAKE_H
#define OVR_INTAKE_H

#include "core/rowfile.h"

enum intake_format { INTAKE_CIFAR10, INTAKE_CSV, INTAKE_IDX, INTAKE_NPY, N_INTAKE };
enum intake_part { INTAKE_WHOLE, INTAKE_FEATURES, INTAKE_LABELS };

extern const char *const intake_names[N_INTAKE + 1]; /* ends with NULL */

struct intake_config {
    enum intake_format format;
    enum intake_part part; /* cifar10, csv: whole; idx, npy: one of the others */
    const char *label;     /* csv: a column's name, its number from 0, or "last" */
    int header;            /* csv: 1 there is a line of names, 0 there is none, -1 look */
};

/* What was read. Labels alone: d is 0; features alone: n_classes is 0. */
struct intake_result {
    size_t n, d, n_classes;
    struct image_shape image;
};

struct intake;

/* fd and labels_fd are empty files, and stay the caller's; what is kept is in fd at the end. The
 * config is copied. */
int intake_open(struct intake **intake, const struct intake_config *config, int fd, int labels_fd,
                struct ovr_err *err);
int intake_write(struct intake *intake, const char *bytes, size_t n, struct ovr_err *err);
int intake_finish(struct intake *intake, struct intake_result *result, struct ovr_err *err);
void intake_free(struct intake *intake); /* NULL is fine */

/* The formats' readers. `writer` stays the caller's. finish fills what rowfile_finish() needs,
 * which lives as long as the reader. */
struct csv;
int csv_new(struct csv **csv, const struct intake_config *config, struct rowfile_writer *writer,
            struct ovr_err *err);
int csv_write(struct csv *csv, const char *bytes, size_t n, struct ovr_err *err);
int csv_finish(struct csv *csv, struct rowfile_end *end, struct ovr_err *err);
void csv_free(struct csv *csv);

struct array;
int array_new(struct array **array, const struct intake_config *config,
              struct rowfile_writer *writer, struct ovr_err *err);
int array_write(struct array *array, const char *bytes, size_t n, struct ovr_err *err);
int array_finish(struct array *array, struct rowfile_end *end, struct ovr_err *err);
void array_free(struct array *array);

#endif
