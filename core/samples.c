#include "core/samples.h"

#include "core/rowfile.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

void samples_release(struct samples *samples) {
    if (samples->map)
        munmap(samples->map, samples->map_bytes);
    free(samples->labels);
    free(samples->values);
    free(samples->rows);
    free(samples->cells);
    *samples = (struct samples){0};
}

void samples_row(const struct samples *samples, size_t i, real *out) {
    if (samples->rows)
        i = samples->rows[i];
    if (samples->values) {
        memcpy(out, samples->values + i * samples->d, samples->d * sizeof *out);
        return;
    }
    if (samples->floats) {
        const float *restrict row = samples->floats + i * samples->d;
#pragma omp simd
        for (size_t j = 0; j < samples->d; j++)
            out[j] = row[j];
        return;
    }
    const uint8_t *restrict row = samples->bytes + i * samples->stride;
#pragma omp simd
    for (size_t j = 0; j < samples->d; j++)
        out[j] = row[j];
}

int samples_open(struct samples *samples, const char *path, struct ovr_err *err) {
    int is = rowfile_is(path, err);
    if (is < 0)
        return is;
    return is ? rowfile_open(samples, path, err) : cifar10_open(samples, path, err);
}

int samples_keep_classes(struct samples *samples, const struct class_list *classes,
                         struct ovr_err *err) {
    size_t n = 0;
    uint8_t wanted[CLASSES_MAX] = {0};
    uint32_t *rows = samples->rows ? samples->rows : ovr_malloc(samples->n, sizeof *rows);
    if (!rows)
        return ovr_nomem(err, "a choice of classes");
    for (size_t i = 0; i < classes->n; i++)
        wanted[classes->list[i]] = 1;
    for (size_t i = 0; i < samples->n; i++) {
        uint16_t label = samples->labels[i];
        if (!wanted[label])
            continue;
        rows[n] = samples->rows ? samples->rows[i] : (uint32_t)i;
        samples->labels[n] = label;
        if (samples->cells)
            samples->cells[n] = samples->cells[i];
        n++;
    }
    samples->rows = rows;
    samples->n = n;
    return n ? 0
             : ovr_fail(err, OVR_INVALID, "/dataset/only_classes",
                        "no sample of a split is of one of these classes");
}

const char *samples_class_name(const struct samples *samples, size_t c, char text[16]) {
    const char *name = samples->class_names;
    if (!name) {
        snprintf(text, 16, "%zu", c);
        return text;
    }
    while (c--)
        name += strlen(name) + 1;
    return name;
}

/* The class of this name, or n_classes. */
static size_t find_class(const struct samples *samples, const char *name) {
    char text[16];
    const char *other = samples->class_names;
    size_t c = 0;
    if (!other) {
        c = strtoul(name, NULL, 10);
        snprintf(text, sizeof text, "%zu", c);
        return c < samples->n_classes && strcmp(text, name) == 0 ? c : samples->n_classes;
    }
    for (; c < samples->n_classes && strcmp(other, name); c++)
        other += strlen(other) + 1;
    return c;
}

int samples_adopt_classes(struct samples *samples, const struct samples *from,
                          struct ovr_err *err) {
    if (!samples->class_names && !from->class_names)
        return 0;
    uint16_t numbers[CLASSES_MAX];
    uint8_t used[CLASSES_MAX] = {0};
    for (size_t i = 0; i < samples->n; i++)
        used[samples->labels[i]] = 1;
    for (size_t c = 0; c < samples->n_classes; c++) {
        char text[16];
        const char *name = samples_class_name(samples, c, text);
        size_t found = used[c] ? find_class(from, name) : 0;
        if (used[c] && found == from->n_classes)
            return ovr_fail(err, OVR_INVALID, "/dataset/name",
                            "the test split has samples of class \"%.100s\", which the training "
                            "split does not know",
                            name);
        numbers[c] = (uint16_t)found;
    }
    for (size_t i = 0; i < samples->n; i++)
        samples->labels[i] = numbers[samples->labels[i]];
    samples->n_classes = from->n_classes;
    samples->class_names = NULL; /* those of `from` count, as long as that is open */
    return 0;
}
