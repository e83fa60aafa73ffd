/* The OVR (One-Vs-Rest) loss of a mini-batch (Bakaraju & Konda, arXiv 1903.02893), and the activity
 * term L.
 *
 * H is N×K: one row of hidden activations h_i for each sample.
 *
 *   raw      OVR = Σ_i Σ_{j≠i} h_i·h_j = ‖s‖² − Σ_i ‖h_i‖²,  s = Σ_i h_i
 *            ∂OVR/∂h_i = 2 (s − h_i)
 *   cosine   the same on ĥ_i = h_i/‖h_i‖:  OVR = Σ_i t_i − N₊,  t_i = ŝ·ĥ_i,  ŝ = Σ_i ĥ_i
 *            ∂OVR/∂h_i = (2/‖h_i‖) (ŝ − t_i ĥ_i)
 *   L        |mean(H) − a| over all N·K activations;  ∂L/∂h_ik = sign(mean H − a)/(N·K)
 *
 * Both cost O(N·K): no pair of samples is ever formed. A row with ‖h_i‖ ≤ 1e-12 has no direction:
 * it adds nothing to the cosine loss or its gradient and is counted.
 *
 * The pieces below are what a layer cut into shards of units needs; each says which sums run over
 * the shards in between. ovr_loss() puts them together for one whole matrix.
 */
#ifndef OVR_OVR_H
#define OVR_OVR_H

#include "core/err.h"
#include "core/kernels.h"

enum ovr_form { OVR_COSINE, OVR_RAW };

struct ovr_config {
    double lambda; /* weight in J; 0 switches the term off */
    int per_pair;  /* lambda is λ_pair: each batch uses λ_pair/(n(n − 1)), 0 for n < 2 */
    enum ovr_form form;
};

/* λ for a batch of n samples. */
double ovr_lambda(const struct ovr_config *config, size_t n);

/* From the squared row norms, summed over all units: what each row is multiplied by to give the
 * rows that OVR compares (cosine: 1/‖h_i‖, or 0 for a zero row; raw: 1). Returns the number of zero
 * rows. */
size_t ovr_row_scale(enum ovr_form form, size_t n, const double *row_squares, real *row_scale);

/* OVR of a batch. `overlap` is Σ_i t_i = ‖s‖² over all units. */
double ovr_value(enum ovr_form form, size_t n, const double *row_squares, double overlap,
                 size_t zero_rows);

/* The gradient λ·∂OVR/∂h_ik = pull_i·s_k − back_i·h_ik. `row_dots` (cosine only) is s·h_i over all
 * units, of the unscaled row, so t_i = scale_i · row_dots_i. */
void ovr_gradient(enum ovr_form form, double lambda, size_t n, const real *row_scale,
                  const double *row_dots, real *pull, real *back);

/* Loss (OVR, without λ) of a whole n×k matrix and, unless NULL, its gradient (n×k). *zero_rows may
 * be NULL. */
int ovr_loss(const struct kernels *kernels, enum ovr_form form, size_t n, size_t k, const real *h,
             double *loss, real *gradient, size_t *zero_rows, struct ovr_err *err);

/* L for a batch of n samples and k units whose activations add up to `sum`; *slope is its gradient.
 */
double activity_value(double target, double sum, size_t n, size_t k, double *slope);

/* Softmax cross-entropy of n samples: mean −ln p of the right class over the batch. `delta`
 * (n×width, columns beyond n_classes are set to 0; NULL if not wanted) is its gradient at the
 * logits (n×n_classes). *correct counts the samples whose largest logit (the lowest index at ties)
 * is the label. */
double softmax_cross_entropy(size_t n, size_t n_classes, size_t width, const double *logits,
                             const uint16_t *labels, real *delta, size_t *correct);

#endif
