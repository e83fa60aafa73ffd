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

static int write_all(int fd, const char *bytes, size_t n) {
    while (n) {
        ssize_t written = write(fd, bytes, n);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return -1;
        bytes += written;
        n -= (size_t)written;
    }
    return 0;
}

int npy_write(const char *path, const char *dtype, int dimensions, size_t rows, size_t columns,
              const void *numbers, struct ovr_err *err) {
    char header[NPY_HEADER];
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    npy_header(header, dtype, dimensions, rows, columns);
    int failed = fd < 0 || write_all(fd, header, sizeof header) ||
                 write_all(fd, numbers, rows * columns * npy_item_size(dtype)) || fsync(fd);
    int why = errno;
    if (fd >= 0 && close(fd) && !failed) {
        failed = 1;
        why = errno;
    }
    if (!failed)
        return 0;
    return ovr_fail(err, why == ENOSPC ? OVR_FULL : OVR_IO, NULL, "cannot write %s: %s", path,
                    strerror(why));
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
