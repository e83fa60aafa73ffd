#include "core/kernels.h"

extern const struct kernels kernels_baseline, kernels_avx2, kernels_avx512;

const struct kernels *kernels_get(enum isa isa) {
    if (isa == ISA_AUTO)
        isa = isa_best();
    if (!isa_runs(isa))
        return NULL;
    switch (isa) {
    case ISA_AVX512:
        return &kernels_avx512;
    case ISA_AVX2:
        return &kernels_avx2;
    default:
        return &kernels_baseline;
    }
}
