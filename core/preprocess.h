/* Preprocessing: steps fitted on the training samples alone and then applied to every split.
 *
 *   standardize   (x − μ_j)/σ_j for each feature; σ is the population's; 1 for a constant feature
 *   pca           onto the leading principal axes of the covariance (divided by n − 1), centred;
 *                 each axis' largest coefficient is positive
 *     whitened    and divided by the root of its variance
 *
 * Sums run over fixed blocks of rows in float64 and are folded in a fixed tree, so a fit does not
 * depend on the number of threads. A covariance's products are added up in `real` over 1024 rows
 * and then in float64, which puts it off by some 1e-7 of its two features' deviations.
 */
#ifndef OVR_PREPROCESS_H
#define OVR_PREPROCESS_H

#include "core/kernels.h"
#include "core/samples.h"
#include "core/team.h"

enum preprocess_kind { PREPROCESS_STANDARDIZE, PREPROCESS_PCA };

struct preprocess_step {
    enum preprocess_kind kind;
    size_t components; /* pca: how many, or 0 to go by `variance` */
    double variance;   /* pca: the fewest components that keep this share of the variance */
    int whiten;        /* pca */
};

enum { PREPROCESS_MAX = 8 };

/* A fitted step maps n_in values to n_out. Arrays are owned. */
struct fitted_step {
    enum preprocess_kind kind;
    size_t n_in, n_out;
    real *mean;       /* n_in */
    real *scale;      /* standardize: n_in, 1/σ */
    real *components; /* pca: n_out×n_in */
    double *variance; /* pca: n_out, along each axis, before whitening */
};

struct preprocess {
    size_t n_steps, n_in;
    struct fitted_step steps[PREPROCESS_MAX];
};

/* Fits all steps on the samples that `rows` lists (NULL: the first n_rows). *stop asks for
 * OVR_STOPPED. The caller releases *preprocess, also after a failure. */
int preprocess_fit(struct preprocess *preprocess, struct team *team, const struct kernels *kernels,
                   const struct samples *samples, const uint32_t *rows, size_t n_rows,
                   const struct preprocess_step *steps, size_t n_steps, const _Atomic int *stop,
                   struct ovr_err *err);
void preprocess_release(struct preprocess *preprocess);

size_t preprocess_width(const struct preprocess *preprocess); /* values a row at the end */

/* The listed rows (as above), transformed, into out (n_rows×preprocess_width). */
int preprocess_apply(const struct preprocess *preprocess, struct team *team,
                     const struct samples *samples, const uint32_t *rows, size_t n_rows, real *out,
                     const _Atomic int *stop, struct ovr_err *err);

/* Resident bytes that fitting and applying need beside their results, for n rows of `d` values;
 * both with the fitted steps themselves. */
struct preprocess_memory {
    size_t fit, apply;
};

struct preprocess_memory preprocess_memory(size_t d, const struct preprocess_step *steps,
                                           size_t n_steps, size_t n, int members);

#endif
