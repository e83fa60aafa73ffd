#include "core/preprocess.h"

#include "core/eigen.h"
#include "core/linalg.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum {
    APPLY_ROWS = 512,  /* rows that one member projects at once */
    BLOCK_ROWS = 1024, /* rows whose products are added up in `real`, the blocks in float64 */
    SLICE_ROWS = 32,   /* rows of a fit that one member transforms at once */
    SUM_BLOCKS = 64,   /* partial sums of a fit, whatever the number of rows */
    TILE = 384,        /* columns and rows of the covariance that one member works on at once */
};

void preprocess_release(struct preprocess *preprocess) {
    for (size_t i = 0; i < PREPROCESS_MAX; i++) {
        struct fitted_step *step = &preprocess->steps[i];
        free(step->mean);
        free(step->scale);
        free(step->components);
        free(step->variance);
    }
    *preprocess = (struct preprocess){0};
}

int preprocess_projects(enum preprocess_kind kind) {
    return kind == PREPROCESS_PCA || kind == PREPROCESS_ZCA;
}

size_t preprocess_width(const struct preprocess *preprocess) {
    size_t n = preprocess->n_steps;
    return n ? preprocess->steps[n - 1].n_out : preprocess->n_in;
}

/* The widest row on the way through the steps. */
static size_t widest(const struct preprocess *preprocess) {
    size_t width = preprocess->n_in;
    for (size_t i = 0; i < preprocess->n_steps; i++)
        width = width > preprocess->steps[i].n_out ? width : preprocess->steps[i].n_out;
    return width;
}

static void normalize_contrast(real *restrict x, size_t n, double epsilon) {
    double sum = 0, squares = 0;
    for (size_t j = 0; j < n; j++)
        sum += x[j];
    double mean = sum / (double)n;
    for (size_t j = 0; j < n; j++)
        squares += (x[j] - mean) * (x[j] - mean);
    double divisor = sqrt(squares / (double)n + epsilon);
    for (size_t j = 0; j < n; j++)
        x[j] = (real)(divisor > 0 ? (x[j] - mean) / divisor : 0);
}

/* One row through the steps from number s on, up to a projection, for which it is centred. Returns
 * the number of that step, or n_steps. */
static size_t shift_row(const struct preprocess *preprocess, size_t s, real *restrict x) {
    for (; s < preprocess->n_steps; s++) {
        const struct fitted_step *step = &preprocess->steps[s];
        const real *restrict mean = step->mean, *restrict scale = step->scale;
        if (step->kind == PREPROCESS_CONTRAST) {
            normalize_contrast(x, step->n_in, step->epsilon);
            continue;
        }
        if (preprocess_projects(step->kind)) {
#pragma omp simd
            for (size_t j = 0; j < step->n_in; j++)
                x[j] -= mean[j];
            break;
        }
#pragma omp simd
        for (size_t j = 0; j < step->n_in; j++)
            x[j] = (x[j] - mean[j]) * scale[j];
    }
    return s;
}

/* Rows first .. first + n - 1 of the list through all fitted steps. a and b hold n rows of the
 * widest step; returns whichever of them has the result. */
static real *transform_rows(const struct preprocess *preprocess, const struct samples *samples,
                            const uint32_t *rows, size_t first, size_t n, real *a, real *b) {
    size_t width = samples->d, done = 0;
    for (size_t i = 0; i < n; i++) {
        samples_row(samples, rows ? rows[first + i] : first + i, a + i * width);
        done = shift_row(preprocess, 0, a + i * width);
    }
    while (done < preprocess->n_steps) {
        const struct fitted_step *step = &preprocess->steps[done++];
        linalg_gemm_nt(n, step->n_out, width, a, width, step->components, width, 0, b, step->n_out);
        real *swap = a;
        a = b;
        b = swap;
        width = step->n_out;
        size_t from = done;
        for (size_t i = 0; i < n; i++)
            done = shift_row(preprocess, from, a + i * width);
    }
    return a;
}

struct fit {
    const struct kernels *kernels;
    const struct preprocess *preprocess; /* the steps fitted so far */
    const struct samples *samples;
    const uint32_t *rows;
    size_t n_rows, width;  /* values a row after those steps */
    const double *mean;    /* sums of (x − mean)² instead of sums of x; may be NULL */
    double *parts;         /* SUM_BLOCKS×width */
    real *rows_a, *rows_b; /* for each member: the widest step's rows */
    size_t room;           /* elements of one member's rows_a */
    real *block;           /* covariance: BLOCK_ROWS centred rows, shared */
    real *products;        /* covariance: for each member TILE×TILE */
    double *covariance;    /* width×width, lower triangle */
    _Atomic size_t tile;   /* the next one that nobody works on */
    const _Atomic int *stop;
    _Atomic int stopped;
    real *out; /* apply */
};

static void sum_rows(const struct fit *fit, const real *restrict x, size_t n,
                     double *restrict sums) {
    size_t width = fit->width;
    const double *restrict mean = fit->mean;
    for (size_t i = 0; i < n; i++, x += width) {
        if (mean) {
#pragma omp simd
            for (size_t j = 0; j < width; j++)
                sums[j] += (x[j] - mean[j]) * (x[j] - mean[j]);
        } else {
#pragma omp simd
            for (size_t j = 0; j < width; j++)
                sums[j] += x[j];
        }
    }
}

/* Sums over the rows of each feature into parts[0..width-1]. */
static void sum_features(struct member *member, void *arg) {
    struct fit *fit = arg;
    size_t first, end, rank = (size_t)member->rank;
    team_share(member, SUM_BLOCKS, &first, &end);
    for (size_t block = first; block < end; block++) {
        double *sums = fit->parts + block * fit->width;
        size_t row = fit->n_rows * block / SUM_BLOCKS;
        size_t last = fit->n_rows * (block + 1) / SUM_BLOCKS, n;
        memset(sums, 0, fit->width * sizeof *sums);
        for (; row < last; row += n) {
            n = min_size(SLICE_ROWS, last - row);
            if (fit->stop && atomic_load(fit->stop))
                fit->stopped = 1;
            if (fit->stopped)
                break;
            sum_rows(fit,
                     transform_rows(fit->preprocess, fit->samples, fit->rows, row, n,
                                    fit->rows_a + rank * fit->room, fit->rows_b + rank * fit->room),
                     n, sums);
        }
    }
    team_sum(member, EVERYWHERE, fit->parts, SUM_BLOCKS, fit->width);
}

/* Tile number t of the lower triangle of `across` rows of tiles: those off the diagonal come first,
 * since those on it take half the time and so let the members end together. Returns 0 after the
 * last one. */
static int find_tile(size_t t, size_t across, size_t *row, size_t *column) {
    for (*row = 1; *row < across; ++*row) {
        if (t < *row) {
            *column = t;
            return 1;
        }
        t -= *row;
    }
    *row = *column = t;
    return t < across;
}

/* Adds a tile's product to the covariance, or starts with it. */
static void add_tile(struct fit *fit, size_t row, size_t column, const real *product, int start) {
    size_t rows = min_size(TILE, fit->width - row), columns = min_size(TILE, fit->width - column);
    for (size_t i = 0; i < rows; i++, product += TILE) {
        double *restrict sums = fit->covariance + (row + i) * fit->width + column;
        const real *restrict add = product;
        size_t n = row == column ? i + 1 : columns;
        if (start)
            memset(sums, 0, n * sizeof *sums);
#pragma omp simd
        for (size_t j = 0; j < n; j++)
            sums[j] += add[j];
    }
}

/* The block's part of Xᵀ X, tile by tile, by whoever comes first. */
static void multiply_block(struct member *member, struct fit *fit, size_t n, int start) {
    size_t width = fit->width, i, j;
    real *product = fit->products + (size_t)member->rank * TILE * TILE;
    while (find_tile(fit->tile++, (width + TILE - 1) / TILE, &i, &j)) {
        const real *x = fit->block + i * TILE, *y = fit->block + j * TILE;
        size_t rows = min_size(TILE, width - i * TILE);
        if (i == j)
            linalg_syrk(rows, n, x, width, product, TILE);
        else
            linalg_gemm_tn(rows, TILE, n, x, width, y, width, 0, product, TILE);
        add_tile(fit, i * TILE, j * TILE, product, start);
    }
}

/* Rows first .. first + n − 1, a slice of the block, transformed and centred. Slices have a fixed
 * size: what BLAS computes may depend on the shape, which must not depend on the number of threads.
 */
static void centre_slice(struct fit *fit, size_t rank, size_t first, size_t n, real *out) {
    size_t width = fit->width;
    const real *x = transform_rows(fit->preprocess, fit->samples, fit->rows, first, n,
                                   fit->rows_a + rank * fit->room, fit->rows_b + rank * fit->room);
    const double *restrict mean = fit->mean;
    for (size_t i = 0; i < n; i++)
#pragma omp simd
        for (size_t j = 0; j < width; j++)
            out[i * width + j] = (real)(x[i * width + j] - mean[j]);
}

static void sum_covariance(struct member *member, void *arg) {
    struct fit *fit = arg;
    size_t from, to, n;
    for (size_t row = 0; row < fit->n_rows; row += n) {
        n = min_size(BLOCK_ROWS, fit->n_rows - row);
        if (team_agree(member, fit->stop)) {
            fit->stopped = 1;
            return;
        }
        if (member->rank == 0)
            fit->tile = 0;
        team_share(member, (n + SLICE_ROWS - 1) / SLICE_ROWS, &from, &to);
        for (size_t i = from * SLICE_ROWS; i < min_size(to * SLICE_ROWS, n); i += SLICE_ROWS)
            centre_slice(fit, (size_t)member->rank, row + i, min_size(SLICE_ROWS, n - i),
                         fit->block + i * fit->width);
        team_barrier(member);
        multiply_block(member, fit, n, row == 0);
    }
}

static int stopped(const struct fit *fit, struct ovr_err *err) {
    return fit->stopped ? ovr_fail(err, OVR_STOPPED, NULL, "stopped while data was prepared") : 0;
}

/* Means of the features, in float64 (the caller's to free) and in the step. */
static int fit_mean(struct fit *fit, struct team *team, struct fitted_step *step, double **mean,
                    struct ovr_err *err) {
    *mean = ovr_malloc(fit->width, sizeof **mean);
    step->mean = ovr_malloc(fit->width, sizeof *step->mean);
    if (!*mean || !step->mean)
        return ovr_nomem(err, "the means of the features");
    team_run(team, sum_features, fit);
    for (size_t j = 0; j < fit->width; j++) {
        (*mean)[j] = fit->parts[j] / (double)fit->n_rows;
        step->mean[j] = (real)(*mean)[j];
    }
    return stopped(fit, err);
}

static int fit_standardize(struct fit *fit, struct team *team, struct fitted_step *step,
                           const double *mean, struct ovr_err *err) {
    fit->mean = mean;
    team_run(team, sum_features, fit);
    fit->mean = NULL;
    step->scale = ovr_malloc(fit->width, sizeof *step->scale);
    if (!step->scale)
        return ovr_nomem(err, "standardisation");
    for (size_t j = 0; j < fit->width; j++) {
        double deviation = sqrt(fit->parts[j] / (double)fit->n_rows);
        step->scale[j] = (real)(deviation > 0 ? 1 / deviation : 1);
    }
    step->n_out = fit->width;
    return stopped(fit, err);
}

/* How many of the falling variances are asked for. */
static size_t count_components(const struct preprocess_step *step, const double *variances,
                               size_t n, double total) {
    if (step->components)
        return step->components;
    double sum = 0;
    for (size_t k = 0; k < n; k++) {
        sum += variances[k];
        if (sum >= step->variance * total)
            return k + 1;
    }
    return n;
}

/* Axes into the step, each with its largest coefficient positive. */
static void take_axes(struct fitted_step *step, const double *axes, int whiten) {
    for (size_t k = 0; k < step->n_out; k++) {
        const double *axis = axes + k * step->n_in;
        size_t largest = 0;
        for (size_t j = 1; j < step->n_in; j++)
            if (fabs(axis[j]) > fabs(axis[largest]))
                largest = j;
        double factor = axis[largest] < 0 ? -1 : 1;
        if (whiten && step->variance[0] >
                          0) /* beyond the data's rank there is only rounding noise: not blown up */
            factor /= sqrt(fmax(step->variance[k], 1e-12 * step->variance[0]));
        for (size_t j = 0; j < step->n_in; j++)
            step->components[k * step->n_in + j] = (real)(factor * axis[j]);
    }
}

static int fit_pca(struct fit *fit, struct team *team, const struct preprocess_step *config,
                   struct fitted_step *step, const double *mean, struct ovr_err *err) {
    size_t width = fit->width, most = min_size(width, fit->n_rows);
    size_t wanted = config->components ? config->components : most;
    if (wanted > most)
        return ovr_fail(err, OVR_INVALID, "/preprocess",
                        "pca asks for %zu components of data with %zu values in %zu training "
                        "samples; ask for at most %zu",
                        wanted, width, fit->n_rows, most);
    double *axes = ovr_malloc(wanted * width, sizeof *axes);
    step->variance = ovr_malloc(wanted, sizeof *step->variance);
    fit->covariance = ovr_malloc(width * width, sizeof *fit->covariance);
    fit->block = ovr_malloc(BLOCK_ROWS * width, sizeof *fit->block);
    fit->products = ovr_malloc((size_t)team_size(team) * TILE * TILE, sizeof *fit->products);
    int rc = 0;
    if (!axes || !step->variance || !fit->covariance || !fit->block || !fit->products) {
        rc = ovr_nomem(err, "a covariance matrix");
        goto out;
    }
    fit->mean = mean;
    team_run(team, sum_covariance, fit);
    rc = stopped(fit, err);
    if (rc)
        goto out;
    double total = 0, divisor = fit->n_rows > 1 ? (double)(fit->n_rows - 1) : 1;
    for (size_t j = 0; j < width; j++)
        total += fit->covariance[j * width + j] / divisor;
    if (!isfinite(total)) {
        rc = ovr_fail(err, OVR_INVALID, "/preprocess",
                      "pca cannot use values that are not finite or too large to be squared");
        goto out;
    }
    rc = eigen_symmetric(team, fit->kernels, width, wanted, fit->covariance, step->variance, axes,
                         fit->stop, err);
    if (rc)
        goto out;
    for (size_t k = 0; k < wanted; k++)
        step->variance[k] /= divisor;
    step->n_out = count_components(config, step->variance, wanted, total);
    step->components = ovr_malloc(step->n_out * width, sizeof *step->components);
    if (!step->components)
        rc = ovr_nomem(err, "principal components");
    else
        take_axes(step, axes, config->whiten);
out:
    fit->mean = NULL;
    free(axes);
    free(fit->covariance);
    free(fit->block);
    free(fit->products);
    fit->covariance = NULL;
    fit->block = fit->products = NULL;
    return rc;
}

/* The smallest and largest value of each feature among a part's rows. */
static void find_range(struct member *member, void *arg) {
    struct fit *fit = arg;
    size_t first, end, rank = (size_t)member->rank, width = fit->width;
    team_share(member, SUM_BLOCKS, &first, &end);
    for (size_t block = first; block < end; block++) {
        double *low = fit->parts + block * 2 * width, *high = low + width;
        size_t row = fit->n_rows * block / SUM_BLOCKS;
        size_t last = fit->n_rows * (block + 1) / SUM_BLOCKS, n;
        for (size_t j = 0; j < width; j++) {
            low[j] = INFINITY;
            high[j] = -INFINITY;
        }
        for (; row < last && !fit->stopped; row += n) {
            n = min_size(SLICE_ROWS, last - row);
            if (fit->stop && atomic_load(fit->stop))
                fit->stopped = 1;
            const real *x =
                transform_rows(fit->preprocess, fit->samples, fit->rows, row, n,
                               fit->rows_a + rank * fit->room, fit->rows_b + rank * fit->room);
            for (size_t i = 0; i < n; i++, x += width)
                for (size_t j = 0; j < width; j++) {
                    low[j] = x[j] < low[j] ? x[j] : low[j];
                    high[j] = x[j] > high[j] ? x[j] : high[j];
                }
        }
    }
}

/* All parts, and without per_feature all features, into the first of each. */
static void join_ranges(double *parts, size_t width, int per_feature) {
    double *low = parts, *high = parts + width;
    for (size_t i = width; i < SUM_BLOCKS * width; i++) {
        const double *part = parts + i / width * 2 * width + i % width;
        low[i % width] = fmin(low[i % width], part[0]);
        high[i % width] = fmax(high[i % width], part[width]);
    }
    for (size_t j = 1; !per_feature && j < width; j++) {
        low[0] = fmin(low[0], low[j]);
        high[0] = fmax(high[0], high[j]);
    }
    for (size_t j = 1; !per_feature && j < width; j++) {
        low[j] = low[0];
        high[j] = high[0];
    }
}

static int fit_scale(struct fit *fit, struct team *team, const struct preprocess_step *config,
                     struct fitted_step *step, struct ovr_err *err) {
    size_t width = fit->width;
    step->mean = ovr_calloc(width, sizeof *step->mean);
    step->scale = ovr_malloc(width, sizeof *step->scale);
    if (!step->mean || !step->scale)
        return ovr_nomem(err, "scaling");
    step->n_out = width;
    if (config->factor != 0) {
        for (size_t j = 0; j < width; j++)
            step->scale[j] = (real)config->factor;
        return 0;
    }
    team_run(team, find_range, fit);
    join_ranges(fit->parts, width, config->per_feature);
    for (size_t j = 0; j < width; j++) {
        double low = fit->parts[j], high = fit->parts[width + j];
        double scale = high > low ? (config->max - config->min) / (high - low) : 1;
        step->scale[j] = (real)scale;
        step->mean[j] = (real)(low - config->min / scale);
    }
    return stopped(fit, err);
}

/* The axes become the rows of U diag(1/√(λ + ε)) Uᵀ. */
static int turn_back(struct fitted_step *step, double epsilon, struct ovr_err *err) {
    size_t width = step->n_in, n = step->n_out;
    real *scaled = ovr_malloc(n * width, sizeof *scaled);
    real *whole = ovr_malloc(width * width, sizeof *whole);
    if (!scaled || !whole) {
        free(scaled);
        free(whole);
        return ovr_nomem(err, "zca");
    }
    for (size_t k = 0; k < n; k++) {
        double factor = 1 / sqrt(fmax(step->variance[k], 0) + epsilon);
        for (size_t j = 0; j < width; j++)
            scaled[k * width + j] = (real)(factor * step->components[k * width + j]);
    }
    linalg_gemm_tn(width, width, n, step->components, width, scaled, width, 0, whole, width);
    free(scaled);
    free(step->components);
    step->components = whole;
    step->n_out = width;
    return 0;
}

static int fit_zca(struct fit *fit, struct team *team, const struct preprocess_step *config,
                   struct fitted_step *step, const double *mean, struct ovr_err *err) {
    if (fit->n_rows < fit->width)
        return ovr_fail(err, OVR_INVALID, "/preprocess",
                        "zca needs at least as many training samples as values a sample, %zu, and "
                        "has %zu; reduce the values by pca, or use pca with whiten",
                        fit->width, fit->n_rows);
    const struct preprocess_step all = {.kind = PREPROCESS_PCA, .components = fit->width};
    int rc = fit_pca(fit, team, &all, step, mean, err);
    return rc ? rc : turn_back(step, config->epsilon, err);
}

static real *copy_reals(const real *from, size_t n, int *failed) {
    real *to = from ? ovr_malloc(n, sizeof *to) : NULL;
    if (to)
        memcpy(to, from, n * sizeof *to);
    *failed |= from && !to;
    return to;
}

static int too_many(struct ovr_err *err) {
    return ovr_fail(err, OVR_INVALID, "/preprocess", "there are more than %d steps together",
                    PREPROCESS_MAX);
}

/* Copies steps that were fitted before. */
static int take_over(struct preprocess *preprocess, const struct preprocess *fitted,
                     struct ovr_err *err) {
    size_t width = preprocess_width(preprocess);
    if (fitted->n_steps > PREPROCESS_MAX - preprocess->n_steps)
        return too_many(err);
    if (fitted->n_steps && fitted->n_in != width)
        return ovr_fail(err, OVR_INVALID, "/preprocess",
                        "the steps taken over were fitted to %zu values a sample, these data have "
                        "%zu",
                        fitted->n_in, width);
    for (size_t i = 0; i < fitted->n_steps; i++) {
        const struct fitted_step *from = &fitted->steps[i];
        struct fitted_step *to = &preprocess->steps[preprocess->n_steps++];
        int failed = 0;
        *to = (struct fitted_step){from->kind, from->n_in, from->n_out, .epsilon = from->epsilon};
        to->mean = copy_reals(from->mean, from->n_in, &failed);
        to->scale = copy_reals(from->scale, from->n_in, &failed);
        to->components = copy_reals(from->components, from->n_in * from->n_out, &failed);
        if (preprocess_projects(from->kind)) {
            to->variance = ovr_calloc(from->n_out, sizeof *to->variance);
            failed |= !to->variance;
            if (to->variance && from->variance)
                memcpy(to->variance, from->variance, from->n_out * sizeof *to->variance);
        }
        if (failed)
            return ovr_nomem(err, "steps taken over");
    }
    return 0;
}

static int fit_step(struct fit *fit, struct preprocess *preprocess, struct team *team,
                    const struct preprocess_step *config, struct ovr_err *err) {
    if (config->kind == PREPROCESS_FITTED)
        return take_over(preprocess, config->fitted, err);
    if (preprocess->n_steps == PREPROCESS_MAX)
        return too_many(err);
    struct fitted_step *step = &preprocess->steps[preprocess->n_steps];
    fit->width = preprocess_width(preprocess);
    *step = (struct fitted_step){.kind = config->kind, .n_in = fit->width, .n_out = fit->width};
    double *mean = NULL;
    int rc = 0;
    if (config->kind == PREPROCESS_CONTRAST)
        step->epsilon = (real)config->epsilon;
    else if (config->kind == PREPROCESS_SCALE)
        rc = fit_scale(fit, team, config, step, err);
    else
        rc = fit_mean(fit, team, step, &mean, err);
    if (!rc && config->kind == PREPROCESS_STANDARDIZE)
        rc = fit_standardize(fit, team, step, mean, err);
    else if (!rc && config->kind == PREPROCESS_PCA)
        rc = fit_pca(fit, team, config, step, mean, err);
    else if (!rc && config->kind == PREPROCESS_ZCA)
        rc = fit_zca(fit, team, config, step, mean, err);
    if (!rc)
        preprocess->n_steps++;
    free(mean);
    return rc;
}

static int rows_new(struct fit *fit, size_t room, int members, struct ovr_err *err) {
    fit->room = room;
    fit->rows_a = ovr_malloc((size_t)members * fit->room, sizeof(real));
    fit->rows_b = ovr_malloc((size_t)members * fit->room, sizeof(real));
    return fit->rows_a && fit->rows_b ? 0 : ovr_nomem(err, "rows on their way through the steps");
}

int preprocess_fit(struct preprocess *preprocess, struct team *team, const struct kernels *kernels,
                   const struct samples *samples, const uint32_t *rows, size_t n_rows,
                   const struct preprocess_step *steps, size_t n_steps, const _Atomic int *stop,
                   struct ovr_err *err) {
    *preprocess = (struct preprocess){.n_in = samples->d};
    struct fit fit = {.preprocess = preprocess,
                      .kernels = kernels,
                      .samples = samples,
                      .rows = rows,
                      .n_rows = n_rows,
                      .stop = stop};
    /* No step widens a row. */
    int rc = rows_new(&fit, SLICE_ROWS * samples->d, team_size(team), err);
    fit.parts = ovr_malloc(SUM_BLOCKS * 2 * samples->d, sizeof *fit.parts);
    if (!rc && !fit.parts)
        rc = ovr_nomem(err, "the sums of the features");
    for (size_t i = 0; !rc && i < n_steps; i++)
        rc = fit_step(&fit, preprocess, team, &steps[i], err);
    free(fit.rows_a);
    free(fit.rows_b);
    free(fit.parts);
    return rc;
}

static void apply_blocks(struct member *member, void *arg) {
    struct fit *fit = arg;
    size_t rank = (size_t)member->rank, first, end, n;
    size_t n_blocks = (fit->n_rows + APPLY_ROWS - 1) / APPLY_ROWS;
    team_share(member, n_blocks, &first, &end);
    for (size_t block = first; block < end; block++) {
        size_t row = block * APPLY_ROWS;
        n = min_size(APPLY_ROWS, fit->n_rows - row);
        if (fit->stop && atomic_load(fit->stop)) {
            fit->stopped = 1;
            return;
        }
        const real *x =
            transform_rows(fit->preprocess, fit->samples, fit->rows, row, n,
                           fit->rows_a + rank * fit->room, fit->rows_b + rank * fit->room);
        memcpy(fit->out + row * fit->width, x, n * fit->width * sizeof *x);
    }
}

int preprocess_apply(const struct preprocess *preprocess, struct team *team,
                     const struct samples *samples, const uint32_t *rows, size_t n_rows, real *out,
                     const _Atomic int *stop, struct ovr_err *err) {
    struct fit fit = {.preprocess = preprocess,
                      .samples = samples,
                      .rows = rows,
                      .n_rows = n_rows,
                      .width = preprocess_width(preprocess),
                      .out = out,
                      .stop = stop};
    int rc = rows_new(&fit, APPLY_ROWS * widest(preprocess), team_size(team), err);
    if (!rc) {
        team_run(team, apply_blocks, &fit);
        rc = stopped(&fit, err);
    }
    free(fit.rows_a);
    free(fit.rows_b);
    return rc;
}

struct preprocess_memory preprocess_memory(size_t d, const struct preprocess_step *steps,
                                           size_t n_steps, size_t n, int members) {
    enum { PAGE_DOUBLES = 4096 / sizeof(double) };
    size_t m = (size_t)members, apply = 2 * m * APPLY_ROWS * d * sizeof(real), most = 0, fitted = 0;
    size_t blas = 0;
    size_t fit = 2 * m * SLICE_ROWS * d * sizeof(real) + (SUM_BLOCKS + 1) * d * sizeof(double);
    for (size_t i = 0; i < n_steps; i++) {
        enum preprocess_kind kind = steps[i].kind;
        size_t k = kind == PREPROCESS_ZCA || !steps[i].components ? d : steps[i].components;
        if (kind == PREPROCESS_SCALE && steps[i].factor == 0) /* least and most, not sums alone */
            fit += SUM_BLOCKS * d * sizeof(double);
        if (kind != PREPROCESS_CONTRAST)
            fitted += 2 * d * sizeof(real);
        if (kind == PREPROCESS_FITTED && steps[i].components) {
            fitted += 2 * k * d * sizeof(real); /* as they came and as they are taken over */
            blas = m * LINALG_BUFFER_BYTES;
            d = k;
        }
        if (!preprocess_projects(kind))
            continue;
        fitted += k * (d * sizeof(real) + sizeof(double));
        /* of the covariance the lower triangle alone is touched, which ends within a page */
        size_t pca = (d * (d + PAGE_DOUBLES) / 2 + k * d) * sizeof(double) +
                     eigen_memory(d, k, members) +
                     (min_size(BLOCK_ROWS, n) * d + m * TILE * TILE) * sizeof(real);
        size_t zca = kind == PREPROCESS_ZCA ? 2 * d * d * sizeof(real) : 0;
        most = most > pca ? most : pca;
        most = most > zca ? most : zca;
        blas = m * LINALG_BUFFER_BYTES;
        d = k;
    }
    return (struct preprocess_memory){.fit = fitted + blas + fit + most,
                                      .apply = fitted + blas + apply};
}

double preprocess_flops(const struct preprocess_step *steps, size_t n_steps, double n_fit, double n,
                        size_t *d) {
    double flops = 0;
    for (size_t i = 0; i < n_steps; i++) {
        int fitted = steps[i].kind == PREPROCESS_FITTED;
        if (!preprocess_projects(steps[i].kind) && !(fitted && steps[i].components))
            continue;
        double width = (double)*d;
        if (steps[i].kind != PREPROCESS_ZCA && steps[i].components)
            *d = steps[i].components;
        /* the projection; half a symmetric product, the eigenvectors at a tenth of its speed */
        flops += 2 * n * width * (double)*d;
        if (!fitted)
            flops += n_fit * width * width + 30 * pow(width, 3);
    }
    return flops;
}
