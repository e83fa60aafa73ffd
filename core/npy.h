/* NPY files, format version 1.0 (numpy.lib.format): one array, a header that numpy reads, the
 * numbers in C order. */
#ifndef OVR_NPY_H
#define OVR_NPY_H

#include "core/err.h"

#include <stddef.h>
#include <stdint.h>

enum { NPY_HEADER = 128 }; /* bytes before the numbers in the files that we write */

/* dtype "float32" or "float64"; dimensions 1 (rows) or 2 (rows×columns). */
void npy_header(char header[NPY_HEADER], const char *dtype, int dimensions, size_t rows,
                size_t columns);

/* Writes the array to a new file and syncs it to disk. */
int npy_write(const char *path, const char *dtype, int dimensions, size_t rows, size_t columns,
              const void *numbers, struct ovr_err *err);

size_t npy_item_size(const char *dtype);

#endif
