#include "core/packed.h"

#include "core/linalg.h"

#include <string.h>

void packed_place(struct packed *packed, const struct kernels *kernels, size_t d, size_t max_rows,
                  struct arena *arena) {
    size_t n_panels = (d + PANEL - 1) / PANEL;
    size_t n_strips = (max_rows + kernels->strip - 1) / kernels->strip;
    *packed = (struct packed){.kernels = kernels, .d = d, .n_panels = n_panels};
    packed->strips = arena_take(arena, n_strips * kernels->strip * d, sizeof(real));
    packed->panels = arena_take(arena, max_rows * n_panels * PANEL, sizeof(real));
}

enum { ACTIVE_LIST = SHARD_UNITS * (ACTIVE_ROWS + LIST_ROOM) };

void active_lists_place(struct active_lists *lists, struct arena *arena) {
    lists->count = arena_take(arena, SHARD_UNITS, sizeof *lists->count);
    lists->row = arena_take(arena, ACTIVE_LIST, sizeof *lists->row);
    lists->value = arena_take(arena, ACTIVE_LIST, sizeof *lists->value);
}

void pack_rows(struct member *member, struct packed *packed, const real *x, size_t n) {
    size_t first, end, d = packed->d, n_panels = packed->n_panels;
    team_share(member, n_panels, &first, &end);
    if (member->rank == 0) {
        packed->x = x;
        packed->n = n;
    }
    packed->kernels->pack_strips(x, n, d, first * PANEL, min_size(end * PANEL, d), packed->strips);
    for (size_t row = 0; row < n; row += ACTIVE_ROWS) {
        size_t rows = min_size(ACTIVE_ROWS, n - row);
        for (size_t panel = first; panel < end; panel++) {
            size_t column = panel * PANEL, columns = min_size(PANEL, d - column);
            real *to = packed->panels + (row * n_panels + rows * panel) * PANEL;
            for (size_t i = 0; i < rows; i++)
                memcpy(to + i * PANEL, x + (row + i) * d + column, columns * sizeof *to);
        }
    }
}

void packed_product(const struct packed *packed, const real *w, size_t units, real *h) {
    packed->kernels->product(packed->strips, w, packed->n, units, packed->d, h);
}

/* Rows with at most this share of active elements are multiplied by the active ones alone. Found by
 * measuring both ways; a constant, so that bits never depend on a clock. */
static const double MOST_ACTIVE = 0.7;

void packed_gradient(const struct packed *packed, const struct active_lists *lists, const real *g,
                     size_t units, int add, real *out) {
    const struct kernels *kernels = packed->kernels;
    size_t d = packed->d;
    for (size_t row = 0; row < packed->n; row += ACTIVE_ROWS) {
        size_t rows = min_size(ACTIVE_ROWS, packed->n - row);
        const real *block = g + row * units;
        size_t total =
            kernels->list_active(block, rows, units, lists->count, lists->row, lists->value);
        if ((double)total <= MOST_ACTIVE * (double)(rows * units))
            kernels->active_product(lists->count, lists->row, lists->value,
                                    packed->panels + row * packed->n_panels * PANEL, rows, units, d,
                                    add || row > 0, out);
        else
            linalg_gemm_tn(units, d, rows, block, units, packed->x + row * d, d, add || row > 0,
                           out, d);
    }
}
