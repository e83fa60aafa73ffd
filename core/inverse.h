/* Back through fitted steps: what a point or a direction behind them is among raw values.
 *
 *   standardize, scale   v/scale; 0 for a feature that the step takes to one value
 *   pca                  Σ_k v_k c_k/‖c_k‖², c_k being the axes, whitened or not: what lies off
 *                        them is lost
 *   zca                  the solution x of components·x = v
 *   contrast             v: what a sample was divided by is not known
 *
 * and for points + mean.
 */
#ifndef OVR_INVERSE_H
#define OVR_INVERSE_H

#include "core/preprocess.h"

/* n rows (n×preprocess_width) into `out` (n×n_in), by one thread. */
int preprocess_invert(const struct preprocess *preprocess, int points, const real *rows, size_t n,
                      real *out, struct ovr_err *err);

#endif
