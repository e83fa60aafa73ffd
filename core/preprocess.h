/* Preprocessing: steps fitted on the training samples alone and then applied to every split.
 *
 *   standardize   (x − μ_j)/σ_j for each feature; σ is the population's; 1 for a constant feature
 *   pca           onto the leading principal axes of the covariance (divided by n − 1), centred;
 *                 each axis' largest coefficient is positive
 *     whitened    and divided by the root of its variance
 *   zca           U diag(1/√(λ_k + ε)) Uᵀ (x − μ) with the covariance's axes U and variances λ:
 *                 whitened and turned back, so that values keep their places
 *   scale         times a number; or linear, so that the training samples' smallest and largest
 *                 value (over all features, or of each one) become min and max; a constant becomes
 *                 min
 *   contrast      each sample by itself: (x − mean x)/√(var x + ε), var divided by its length
 *                 (Coates et al., "An analysis of single-layer networks", 2011)
 *   fitted        steps that were fitted before, taken over as they are
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

/* Stored results depend on these numbers: append, never renumber. */
enum preprocess_kind {
    PREPROCESS_STANDARDIZE,
    PREPROCESS_PCA,
    PREPROCESS_SCALE,
    PREPROCESS_CONTRAST,
    PREPROCESS_ZCA,
    PREPROCESS_FITTED,
};

struct preprocess;

struct preprocess_step {
    enum preprocess_kind kind;
    /* pca: how many, or 0 to go by `variance`. fitted: values a row at their end, or 0 for as many
     * as at their start; for estimates without `fitted`. */
    size_t components;
    double variance;     /* pca: the fewest components that keep this share of the variance */
    int whiten;          /* pca */
    double factor;       /* scale: not 0: times this number; 0: to the range */
    double min, max;     /* scale: the range, min < max */
    int per_feature;     /* scale: each feature fills the range */
    double epsilon;      /* contrast, zca */
    char experiment[13]; /* fitted: where the steps are from, for the caller's use */
    const struct preprocess *fitted; /* fitted: the steps; borrowed */
};

enum { PREPROCESS_MAX = 8 };

/* A fitted step maps n_in values to n_out. Arrays are owned; which of them there are follows from
 * the kind: what standardize and scale do is (x − mean)·scale, what pca and zca do is
 * components·(x − mean). */
struct fitted_step {
    enum preprocess_kind kind; /* not fitted */
    size_t n_in, n_out;
    real *mean;       /* all but contrast: n_in */
    real *scale;      /* standardize, scale: n_in */
    real *components; /* pca, zca: n_out×n_in */
    double *variance; /* pca, zca: n_out, along each axis, before whitening; 0 where not known */
    real epsilon;     /* contrast */
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

/* Whether a step of this kind multiplies by a matrix. */
int preprocess_projects(enum preprocess_kind kind);

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

/* Operations of fitting on n_fit and applying to n rows of *d values; *d becomes the width at the
 * end. A share of variance counts as all components. */
double preprocess_flops(const struct preprocess_step *steps, size_t n_steps, double n_fit, double n,
                        size_t *d);

#endif
