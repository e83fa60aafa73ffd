#include "core/npy.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

size_t npy_item_size(const char *dtype) {
    return strcmp(dtype, "float64") == 0 ? 8 : 4;
}

void npy_header(char header[NPY_HEADER], const char *dtype, int dimensions, size_t rows,
                size_t columns) {
    char shape[48];
    if (dimensions == 1)
        snprintf(shape, sizeof shape, "(%zu,)", rows);
    else
        snprintf(shape, sizeof shape, "(%zu, %zu)", rows, columns);
    memset(header, ' ', NPY_HEADER);
    memcpy(header, "\x93NUMPY\x01\x00\x76\x00", 10); /* 0x76 = 118 bytes of text follow */
    int n = snprintf(header + 10, NPY_HEADER - 10,
                     "{'descr': '<f%zu', 'fortran_order': False, 'shape': %s, }",
                     npy_item_size(dtype), shape);
    header[10 + n] = ' ';
    header[NPY_HEADER - 1] = '\n';
}

static int fail_to_write(const struct npy_file *npy, struct ovr_err *err) {
    int why = errno;
    return ovr_fail(err, why == ENOSPC ? OVR_FULL : OVR_IO, NULL, "cannot write %s: %s", npy->path,
                    strerror(why));
}

static int put(const struct npy_file *npy, const void *from, size_t n, size_t at,
               struct ovr_err *err) {
    for (const char *bytes = from; n;) {
        ssize_t written = pwrite(npy->fd, bytes, n, (off_t)at);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return fail_to_write(npy, err);
        bytes += written;
        at += (size_t)written;
        n -= (size_t)written;
    }
    return 0;
}

int npy_create(struct npy_file *npy, const char *path, const char *dtype, int dimensions,
               size_t rows, size_t columns, struct ovr_err *err) {
    char header[NPY_HEADER];
    *npy = (struct npy_file){.fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644),
                             .path = path,
                             .item = npy_item_size(dtype),
                             .rows = rows,
                             .columns = columns};
    if (npy->fd < 0)
        return fail_to_write(npy, err);
    npy_header(header, dtype, dimensions, rows, columns);
    return put(npy, header, sizeof header, 0, err);
}

int npy_put_rows(const struct npy_file *npy, size_t first, size_t n, const void *numbers,
                 struct ovr_err *err) {
    size_t row = npy->columns * npy->item;
    return put(npy, numbers, n * row, NPY_HEADER + first * row, err);
}

int npy_put_columns(const struct npy_file *npy, size_t first, size_t n, const float *numbers,
                    size_t stride, struct ovr_err *err) {
    float row[4096]; /* so much of one at a time */
    const size_t most = sizeof row / sizeof *row;
    int rc = 0;
    for (size_t done = 0; done < n && !rc; done += most) {
        size_t k = n - done < most ? n - done : most;
        for (size_t i = 0; i < npy->rows && !rc; i++) {
            for (size_t j = 0; j < k; j++)
                row[j] = numbers[(done + j) * stride + i];
            rc = put(npy, row, k * sizeof *row,
                     NPY_HEADER + (i * npy->columns + first + done) * sizeof *row, err);
        }
    }
    return rc;
}

int npy_close(struct npy_file *npy, int rc, struct ovr_err *err) {
    if (npy->fd < 0)
        return rc;
    if (!rc && fsync(npy->fd))
        rc = fail_to_write(npy, err);
    if (close(npy->fd) && !rc)
        rc = fail_to_write(npy, err);
    npy->fd = -1;
    return rc;
}

int npy_write(const char *path, const char *dtype, int dimensions, size_t rows, size_t columns,
              const void *numbers, struct ovr_err *err) {
    struct npy_file npy;
    int rc = npy_create(&npy, path, dtype, dimensions, rows, columns, err);
    if (!rc)
        rc = npy_put_rows(&npy, 0, rows, numbers, err);
    return npy_close(&npy, rc, err);
}

int npy_map(struct npy_map *npy, const char *path, size_t rows, size_t columns,
            struct ovr_err *err) {
    struct stat stat;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    size_t bytes = NPY_HEADER + rows * columns * sizeof(float);
    void *map = MAP_FAILED;
    if (fd >= 0 && fstat(fd, &stat) == 0 && (size_t)stat.st_size == bytes)
        map = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
    if (fd >= 0)
        close(fd);
    if (map == MAP_FAILED)
        return ovr_fail(err, OVR_IO, NULL, "the file is damaged or cannot be read");
    *npy =
        (struct npy_map){(const float *)(const void *)((const char *)map + NPY_HEADER), map, bytes};
    return 0;
}

void npy_unmap(struct npy_map *npy) {
    if (npy->map)
        munmap(npy->map, npy->bytes);
    *npy = (struct npy_map){0};
}
