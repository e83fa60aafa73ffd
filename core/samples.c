#include "core/samples.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

void samples_release(struct samples *samples) {
    if (samples->map)
        munmap(samples->map, samples->map_bytes);
    free(samples->labels);
    free(samples->values);
    free(samples->cells);
    *samples = (struct samples){0};
}

void samples_row(const struct samples *samples, size_t i, real *out) {
    if (samples->values) {
        memcpy(out, samples->values + i * samples->d, samples->d * sizeof *out);
        return;
    }
    const uint8_t *restrict row = samples->bytes + i * samples->stride;
#pragma omp simd
    for (size_t j = 0; j < samples->d; j++)
        out[j] = row[j];
}
