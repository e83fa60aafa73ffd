/* The number type of all arrays: float32 in the product.
 *
 * The whole core is one source that also compiles with -DOVR_FLOAT64, where `real` is double. The
 * gradient checks link that build, so that what they check by finite differences is the training
 * code itself and not a copy of it.
 */
#ifndef OVR_REAL_H
#define OVR_REAL_H

#include <stddef.h>
#include <stdint.h>

#ifdef OVR_FLOAT64
typedef double real;
#define REAL_MAX __DBL_MAX__
#else
typedef float real;
#define REAL_MAX __FLT_MAX__
#endif

/* Arrays start on a cache line, which is also the widest vector register. */
#define OVR_ALIGN 64

/* calloc() on an OVR_ALIGN boundary, with the multiplication checked. Free with free(). */
void *ovr_calloc(size_t n, size_t size);

/* The same without clearing: for arrays that are written whole before they are read. */
void *ovr_malloc(size_t n, size_t size);

static inline size_t min_size(size_t a, size_t b) {
    return a < b ? a : b;
}

#endif
