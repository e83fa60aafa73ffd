#include "core/real.h"

#include <stdlib.h>
#include <string.h>

void *ovr_malloc(size_t n, size_t size) {
    size_t bytes;
    if (__builtin_mul_overflow(n, size, &bytes) || bytes > PTRDIFF_MAX - OVR_ALIGN)
        return NULL;
    bytes = (bytes + OVR_ALIGN - 1) / OVR_ALIGN * OVR_ALIGN;
    return aligned_alloc(OVR_ALIGN, bytes ? bytes : OVR_ALIGN);
}

void *ovr_calloc(size_t n, size_t size) {
    void *p = ovr_malloc(n, size);
    if (p)
        memset(p, 0, n * size);
    return p;
}
