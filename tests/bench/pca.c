/* Standardising and PCA of images: the fit, and the projection of the same samples. */
#include "core/preprocess.h"
#include "core/rng.h"
#include "tests/bench/bench.h"

enum { PIXELS = CIFAR10_RECORD - 1 };

/* Bytes whose neighbours are alike, as in images: the covariance is neither flat nor singular. */
static void make_samples(struct samples *samples, const struct options *options) {
    size_t n = options->samples;
    uint8_t *bytes = new_array(n * PIXELS, 1);
    struct rng rng;
    rng_init(&rng, 1, RNG_SHUFFLE, 0, 0);
    double level = 128;
    for (size_t i = 0; i < n * PIXELS; i++) {
        level += (128 - level) / 32 + 20 * (rng_uniform(&rng) - 0.5);
        bytes[i] = (uint8_t)(level < 0 ? 0 : level > 255 ? 255 : level);
    }
    hand_over(options, "pixels.u8", bytes, n * PIXELS);
    *samples = (struct samples){.n = n, .d = PIXELS, .bytes = bytes, .stride = PIXELS};
}

json_t *bench_pca(const struct options *options) {
    const struct preprocess_step steps[] = {
        {.kind = PREPROCESS_STANDARDIZE},
        {.kind = PREPROCESS_PCA, .components = options->components}};
    struct samples samples = {0};
    struct preprocess preprocess = {0};
    struct ovr_err err = {0};
    struct team *team = new_team(options->threads);
    if (*options->cifar10)
        check(cifar10_open(&samples, options->cifar10, &err), &err);
    else
        make_samples(&samples, options);
    size_t n = min_size(options->samples, samples.n);
    double started = now();
    check(preprocess_fit(&preprocess, team, chosen_kernels(options), &samples, NULL, n, steps, 2,
                         NULL, &err),
          &err);
    double fitted = now();
    real *out = new_array(n * preprocess_width(&preprocess), sizeof *out);
    check(preprocess_apply(&preprocess, team, &samples, NULL, n, out, NULL, &err), &err);
    double kept = 0;
    for (size_t i = 0; i < options->components; i++)
        kept += preprocess.steps[1].variance[i];
    return json_pack("{s:f, s:f, s:f, s:f}", "seconds", now() - started, "fit_seconds",
                     fitted - started, "first_variance", preprocess.steps[1].variance[0],
                     "kept_variance", kept);
}
