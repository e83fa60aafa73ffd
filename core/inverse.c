#include "core/inverse.h"

#include "core/linalg.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The components of zca are symmetric, up to rounding; axes of pca are not. */
static int is_symmetric(const struct fitted_step *step) {
    size_t n = step->n_out;
    const real *c = step->components;
    double most = 0, off = 0;
    if (n != step->n_in)
        return 0;
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j <= i; j++) {
            most = fmax(most, fabs((double)c[i * n + j]));
            off = fmax(off, fabs((double)c[i * n + j] - (double)c[j * n + i]));
        }
    return off <= 1e-3 * most;
}

/* n rows of n_out values become rows of n_in, in place. */
static int solve(const struct fitted_step *step, double *rows, size_t n, struct ovr_err *err) {
    size_t d = step->n_in;
    double *matrix = ovr_malloc(d * d, sizeof *matrix);
    if (!matrix)
        return ovr_nomem(err, "the inverse of zca");
    for (size_t i = 0; i < d * d; i++)
        matrix[i] = (double)step->components[i];
    int rc = linalg_solve64(d, n, matrix, rows, err);
    free(matrix);
    return rc;
}

static int project_back(const struct fitted_step *step, double *rows, size_t n,
                        struct ovr_err *err) {
    size_t d = step->n_in, k = step->n_out;
    double *axes = ovr_malloc(k * d, sizeof *axes), *back = ovr_malloc(n * d, sizeof *back);
    int rc = axes && back ? 0 : ovr_nomem(err, "the inverse of pca");
    for (size_t i = 0; !rc && i < k; i++) {
        const real *c = step->components + i * d;
        double square = 0;
        for (size_t j = 0; j < d; j++)
            square += (double)c[j] * c[j];
        for (size_t j = 0; j < d; j++)
            axes[i * d + j] = square > 0 ? (double)c[j] / square : 0;
    }
    if (!rc) {
        linalg_gemm64(0, 0, n, d, k, 1, rows, k, axes, d, 0, back, d);
        memcpy(rows, back, n * d * sizeof *rows);
    }
    free(axes);
    free(back);
    return rc;
}

static int undo(const struct fitted_step *step, int points, double *rows, size_t n,
                struct ovr_err *err) {
    size_t d = step->n_in;
    if (step->kind == PREPROCESS_CONTRAST)
        return 0;
    if (preprocess_projects(step->kind)) {
        int rc = is_symmetric(step) ? solve(step, rows, n, err) : project_back(step, rows, n, err);
        if (rc)
            return rc;
    }
    for (size_t i = 0; i < n * d; i++) {
        double scale = step->scale ? (double)step->scale[i % d] : 1;
        rows[i] = scale == 0 ? 0 : rows[i] / scale;
        if (points)
            rows[i] += (double)step->mean[i % d];
    }
    return 0;
}

int preprocess_invert(const struct preprocess *preprocess, int points, const real *rows, size_t n,
                      real *out, struct ovr_err *err) {
    size_t width = preprocess_width(preprocess), most = width;
    for (size_t i = 0; i < preprocess->n_steps; i++)
        most = preprocess->steps[i].n_in > most ? preprocess->steps[i].n_in : most;
    double *work = ovr_malloc(n * most, sizeof *work);
    int rc = work ? 0 : ovr_nomem(err, "rows on their way back through the steps");
    for (size_t i = 0; !rc && i < n * width; i++)
        work[i] = (double)rows[i];
    for (size_t i = preprocess->n_steps; !rc && i-- > 0;)
        rc = undo(&preprocess->steps[i], points, work, n, err);
    for (size_t i = 0; !rc && i < n * preprocess->n_in; i++)
        out[i] = (real)work[i];
    free(work);
    return rc;
}
