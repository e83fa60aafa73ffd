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

/* A file that is written block by block, in any order. */
struct npy_file {
    int fd;
    const char *path; /* borrowed */
    size_t item, rows, columns;
};

/* Makes a new file, or empties it. npy_close() has to follow, also after a failure. */
int npy_create(struct npy_file *npy, const char *path, const char *dtype, int dimensions,
               size_t rows, size_t columns, struct ovr_err *err);

/* n rows from number `first` on, without gaps. */
int npy_put_rows(const struct npy_file *npy, size_t first, size_t n, const void *numbers,
                 struct ovr_err *err);

/* Of float32: n columns from number `first` on. numbers: column after column, `stride` from one to
 * the next. */
int npy_put_columns(const struct npy_file *npy, size_t first, size_t n, const float *numbers,
                    size_t stride, struct ovr_err *err);

/* Syncs the file to disk, where nothing failed before (rc), and closes it. Returns rc, or what
 * failed now. */
int npy_close(struct npy_file *npy, int rc, struct ovr_err *err);

/* All of that: the whole array in a new file. */
int npy_write(const char *path, const char *dtype, int dimensions, size_t rows, size_t columns,
              const void *numbers, struct ovr_err *err);

/* A mapped array of float32. */
struct npy_map {
    const float *numbers; /* rows×columns */
    void *map;
    size_t bytes;
};

/* Maps what npy_write() wrote, which must have this shape; what has another size is OVR_IO. */
int npy_map(struct npy_map *npy, const char *path, size_t rows, size_t columns,
            struct ovr_err *err);
void npy_unmap(struct npy_map *npy); /* {0} is fine */

size_t npy_item_size(const char *dtype);

#endif
