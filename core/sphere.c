#include "core/rng.h"
#include "core/samples.h"

#include <math.h>
#include <stdlib.h>

static void place_point(struct rng *rng, const struct sphere_config *config, real *point,
                        uint32_t *cell) {
    /* z uniform on [-1, 1] and the angle uniform give a uniform point (Archimedes). */
    double height = rng_uniform(rng), turn = rng_uniform(rng);
    double z = 2 * height - 1, radius = sqrt(1 - z * z), angle = 2 * M_PI * turn;
    point[0] = (real)(radius * cos(angle));
    point[1] = (real)(radius * sin(angle));
    point[2] = (real)z;
    size_t band = (size_t)(height * (double)(config->latitudes + 1));
    size_t sector = (size_t)(turn * (double)config->sectors);
    *cell = (uint32_t)(band * config->sectors + sector);
}

void sphere_classes(const struct sphere_config *config, uint16_t *class_of) {
    struct rng rng;
    rng_init(&rng, config->seed, RNG_SPHERE_CELL, 0, 0);
    for (size_t i = 0; i < (config->latitudes + 1) * config->sectors; i++)
        class_of[i] = (uint16_t)rng_below(&rng, (uint32_t)config->classes);
}

int sphere_generate(struct samples *out, const struct sphere_config *config, int test,
                    struct ovr_err *err) {
    size_t n = test ? config->test_samples : config->samples;
    size_t n_cells = (config->latitudes + 1) * config->sectors;
    struct samples s = {.n = n, .d = 3, .n_classes = config->classes, .n_cells = n_cells};
    s.values = ovr_malloc(n * s.d, sizeof *s.values);
    s.labels = ovr_malloc(n, sizeof *s.labels);
    s.cells = ovr_malloc(n, sizeof *s.cells);
    uint16_t *class_of = ovr_malloc(n_cells, sizeof *class_of);
    if (!s.values || !s.labels || !s.cells || !class_of) {
        samples_release(&s);
        free(class_of);
        return ovr_nomem(err, "the points of the sphere");
    }
    struct rng rng;
    sphere_classes(config, class_of);
    rng_init(&rng, config->seed, test ? RNG_SPHERE_TEST : RNG_SPHERE_TRAIN, 0, 0);
    for (size_t i = 0; i < n; i++) {
        place_point(&rng, config, s.values + i * s.d, &s.cells[i]);
        s.labels[i] = class_of[s.cells[i]];
    }
    free(class_of);
    *out = s;
    return 0;
}
