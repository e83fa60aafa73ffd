/* Tensors as they are downloaded. */
#ifndef TESTS_API_TENSORS_H
#define TESTS_API_TENSORS_H

#include "tests/api/daemon.h"

#include <stdio.h>

struct tensor {
    size_t rows, columns; /* of one dimension: 1 column */
    float *numbers;       /* the caller's to free */
};

/* Reads an NPY of version 1.0 as NumPy documents it. */
static inline struct tensor read_npy(const struct answer *a, int dimensions) {
    struct tensor t = {.columns = 1};
    const unsigned char *bytes = (const unsigned char *)a->body;
    assert_true(a->size > 10 && memcmp(bytes, "\x93NUMPY\x01\x00", 8) == 0);
    size_t head = 10 + bytes[8] + 256u * bytes[9];
    const char *dict = a->body + 10, *shape = strstr(dict, "'shape':");
    assert_int_equal(head % 64, 0);
    assert_non_null(strstr(dict, "'descr': '<f4'"));
    assert_non_null(strstr(dict, "'fortran_order': False"));
    assert_non_null(shape);
    int found = sscanf(shape, "'shape': (%zu, %zu)", &t.rows, &t.columns);
    assert_int_equal(found, dimensions);
    assert_int_equal(a->size - head, t.rows * t.columns * sizeof(float));
    t.numbers = malloc(a->size - head);
    memcpy(t.numbers, a->body + head, a->size - head);
    return t;
}

static inline struct tensor fetch(struct daemon *d, const char *id, const char *name,
                                  int dimensions, const char *more) {
    const struct answer *a = get(d, "/v1/experiments/%s/weights/%s?format=npy%s", id, name, more);
    assert_status(a, 200);
    assert_string_equal(header(a, "Content-Type"), "application/octet-stream");
    assert_non_null(strstr(header(a, "Content-Disposition"), text("%s.npy", name)));
    return read_npy(a, dimensions);
}

#endif
