/* A batch's rows x (n×d) as the kernels want them, and the two products that a layer makes of them:
 *
 *   forward    h = x·wᵀ     w units×d, h n×units
 *   gradient   gᵀ·x         units×d; only the elements of g that are not zero take time
 *
 * The inputs of a hidden layer are packed, and so is the gradient at a decoder's output.
 */
#ifndef OVR_PACKED_H
#define OVR_PACKED_H

#include "core/arena.h"
#include "core/kernels.h"
#include "core/team.h"

struct packed {
    const struct kernels *kernels;
    size_t d, n_panels, n;
    const real *x; /* borrowed; as it was given */
    real *strips, *panels;
};

/* Where one member lists the active elements of a g of up to SHARD_UNITS columns. */
struct active_lists {
    uint32_t *count;
    uint8_t *row;
    real *value;
};

void packed_place(struct packed *packed, const struct kernels *kernels, size_t d, size_t max_rows,
                  struct arena *arena);
void active_lists_place(struct active_lists *lists, struct arena *arena);

/* By every member, each its share of the columns; a barrier has to follow. x stays as it is for as
 * long as the products are asked for. */
void pack_rows(struct member *member, struct packed *packed, const real *x, size_t n);

void packed_product(const struct packed *packed, const real *w, size_t units, real *h);

/* out = [add] out + gᵀ·x */
void packed_gradient(const struct packed *packed, const struct active_lists *lists, const real *g,
                     size_t units, int add, real *out);

#endif
