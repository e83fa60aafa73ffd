#include "core/arena.h"

#include <assert.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
enum { GAP = OVR_ALIGN };
#else
#define ASAN_POISON_MEMORY_REGION(at, bytes) ((void)(at), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(at, bytes) ((void)(at), (void)(bytes))
enum { GAP = 0 };
#endif

void arena_use_large_pages(void *array, size_t bytes) {
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), from = (uintptr_t)array;
    const uintptr_t first = (from + page - 1) / page * page, end = (from + bytes) / page * page;
    /* Weights and moments are read from end to end at each step: fewer, larger pages. Where the
     * system has none it goes without. */
    if (first < end)
        madvise((char *)array + (first - from), end - first, MADV_HUGEPAGE);
}

static int map(struct arena *arena, size_t size, int flags, struct ovr_err *err) {
    *arena = (struct arena){0};
    void *base = mmap(NULL, size ? size : 1, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
    if (base == MAP_FAILED)
        return ovr_nomem(err, "the arrays of a job");
    ASAN_POISON_MEMORY_REGION(base, size);
    *arena = (struct arena){.base = base, .size = size};
    return 0;
}

int arena_open(struct arena *arena, size_t size, struct ovr_err *err) {
    int rc = map(arena, size, 0, err);
    if (!rc)
        arena_use_large_pages(arena->base, size);
    return rc;
}

int arena_reserve(struct arena *arena, size_t size, struct ovr_err *err) {
    return map(arena, size, MAP_NORESERVE, err);
}

void arena_close(struct arena *arena) {
    if (arena->base) {
        ASAN_UNPOISON_MEMORY_REGION(arena->base, arena->size);
        munmap(arena->base, arena->size ? arena->size : 1);
    }
    *arena = (struct arena){0};
}

void *arena_take(struct arena *arena, size_t n, size_t size) {
    size_t bytes;
    /* A size that does not fit into a size_t makes arena_open() fail. */
    if (__builtin_mul_overflow(n, size, &bytes) || bytes > PTRDIFF_MAX / 2)
        bytes = PTRDIFF_MAX / 2;
    size_t room = (bytes + GAP + OVR_ALIGN - 1) / OVR_ALIGN * OVR_ALIGN;
    void *taken = arena->base ? arena->base + arena->used : NULL;
    if (__builtin_add_overflow(arena->used, room, &arena->used))
        arena->used = PTRDIFF_MAX;
    assert(!taken || arena->used <= arena->size);
    if (taken)
        ASAN_UNPOISON_MEMORY_REGION(taken, bytes);
    return taken;
}
