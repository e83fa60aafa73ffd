/* An arena: one block of memory from which a job takes all its arrays, sized before it starts.
 *
 * The same function that takes the arrays also sizes the block: called with an arena that has no
 * block it only counts (every array is NULL), so an estimate can't differ from what is allocated.
 *
 *     struct arena arena = {0};
 *     place(&thing, &arena);                       counts
 *     rc = arena_open(&arena, arena.used, err);
 *     place(&thing, &arena);                       takes
 *
 * Arrays start on OVR_ALIGN. The block is zero, and each page lies near the processor that touches
 * it first. Under AddressSanitizer the gaps between arrays are poisoned.
 */
#ifndef OVR_ARENA_H
#define OVR_ARENA_H

#include "core/err.h"
#include "core/real.h"

struct arena {
    unsigned char *base; /* NULL: takes are only counted */
    size_t size, used;   /* bytes; used ≤ size unless it only counts */
};

/* A block of `size` bytes, nothing taken. On failure the arena is empty. The block is the arena's:
 * arena_close() gives it back, and all its arrays with it. */
int arena_open(struct arena *arena, size_t size, struct ovr_err *err);
/* The same for a block of which only a part is ever touched: it may be larger than the memory, and
 * has large pages only where arena_use_large_pages() says so, since each takes memory as a whole.
 */
int arena_reserve(struct arena *arena, size_t size, struct ovr_err *err);

/* Of an array, or a part of one, that will be touched as a whole. */
void arena_use_large_pages(void *array, size_t bytes);

void arena_close(struct arena *arena); /* also of an arena that was never opened */

/* At most what an array of so many bytes takes. */
#define ARENA_ROOM(bytes) ((bytes) + 2 * OVR_ALIGN)

/* n elements of `size` bytes. To run over the size is a programming error. */
void *arena_take(struct arena *arena, size_t n, size_t size);

#endif
