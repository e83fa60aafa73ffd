#include "core/ovr.h"

#include <math.h>
#include <stdlib.h>

static const double ZERO_NORM = 1e-12;

double ovr_lambda(const struct ovr_config *config, size_t n) {
    if (!config->per_pair)
        return config->lambda;
    return n < 2 ? 0 : config->lambda / ((double)n * (double)(n - 1));
}

size_t ovr_row_scale(enum ovr_form form, size_t n, const double *row_squares, real *row_scale) {
    size_t zero = 0;
    for (size_t i = 0; i < n; i++) {
        double norm = sqrt(row_squares[i]);
        zero += norm <= ZERO_NORM;
        if (form == OVR_RAW)
            row_scale[i] = 1;
        else
            row_scale[i] = norm <= ZERO_NORM ? 0 : (real)(1 / norm);
    }
    return zero;
}

double ovr_value(enum ovr_form form, size_t n, const double *row_squares, double overlap,
                 size_t zero_rows) {
    if (form == OVR_COSINE)
        return overlap - (double)(n - zero_rows);
    double diagonal = 0;
    for (size_t i = 0; i < n; i++)
        diagonal += row_squares[i];
    return overlap - diagonal;
}

void ovr_gradient(enum ovr_form form, double lambda, size_t n, const real *row_scale,
                  const double *row_dots, real *pull, real *back) {
    for (size_t i = 0; i < n; i++) {
        double scale = row_scale[i];
        pull[i] = (real)(2 * lambda * scale);
        if (form == OVR_RAW)
            back[i] = (real)(2 * lambda);
        else
            back[i] = (real)(2 * lambda * scale * scale * (scale * row_dots[i]));
    }
}

int ovr_loss(const struct kernels *kernels, enum ovr_form form, size_t n, size_t k, const real *h,
             double *loss, real *gradient, size_t *zero_rows, struct ovr_err *err) {
    double *squares = ovr_calloc(n, sizeof *squares), *dots = ovr_calloc(n, sizeof *dots);
    real *scale = ovr_calloc(3 * n, sizeof *scale), *s = ovr_calloc(k, sizeof *s);
    int rc = squares && dots && scale && s ? 0 : ovr_nomem(err, "the OVR loss");
    if (rc)
        goto out;
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < k; j++)
            squares[i] += (double)h[i * k + j] * h[i * k + j];
    size_t zero = ovr_row_scale(form, n, squares, scale);
    kernels->weighted_sum(h, scale, n, k, s);
    kernels->dot_rows(h, s, n, k, dots);
    double overlap = 0;
    for (size_t i = 0; i < n; i++)
        overlap += scale[i] * dots[i];
    *loss = ovr_value(form, n, squares, overlap, zero);
    if (zero_rows)
        *zero_rows = zero;
    if (gradient) {
        real *pull = scale + n, *back = scale + 2 * n;
        ovr_gradient(form, 1, n, scale, dots, pull, back);
        for (size_t i = 0; i < n; i++)
            for (size_t j = 0; j < k; j++)
                gradient[i * k + j] = pull[i] * s[j] - back[i] * h[i * k + j];
    }
out:
    free(squares);
    free(dots);
    free(scale);
    free(s);
    return rc;
}

double activity_value(double target, double sum, size_t n, size_t k, double *slope) {
    double count = (double)n * (double)k, off = sum / count - target;
    *slope = off == 0 ? 0 : copysign(1 / count, off);
    return fabs(off);
}

double softmax_cross_entropy(size_t n, size_t n_classes, size_t width, const double *logits,
                             const uint16_t *labels, real *delta, size_t *correct) {
    double loss = 0;
    *correct = 0;
    for (size_t i = 0; i < n; i++, logits += n_classes) {
        size_t best = 0;
        double sum = 0;
        for (size_t c = 1; c < n_classes; c++)
            if (logits[c] > logits[best])
                best = c;
        for (size_t c = 0; c < n_classes; c++)
            sum += exp(logits[c] - logits[best]);
        loss += log(sum) + logits[best] - logits[labels[i]];
        *correct += best == labels[i];
        for (size_t c = 0; delta && c < width; c++) {
            double p = c < n_classes ? exp(logits[c] - logits[best]) / sum : 0;
            delta[i * width + c] = (real)((p - (c == labels[i])) / (double)n);
        }
    }
    return loss / (double)n;
}
