/* The arena: counting and taking agree, arrays are apart, aligned and zero. */
#include "core/arena.h"
#include "tests/core/check.h"

#include <unistd.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

struct arrays {
    double *a;
    uint8_t *b;
    real *c;
};

static void place(struct arrays *arrays, struct arena *arena) {
    arrays->a = arena_take(arena, 3, sizeof *arrays->a);
    arrays->b = arena_take(arena, 65, sizeof *arrays->b);
    arrays->c = arena_take(arena, 1000000, sizeof *arrays->c);
}

static void counts_what_it_takes(void **state) {
    (void)state;
    struct ovr_err err = {0};
    struct arena arena = {0};
    struct arrays arrays;
    place(&arrays, &arena);
    assert_null(arrays.a);
    assert_null(arrays.c);
    size_t counted = arena.used;
    assert_in_range(counted, 24 + 65 + 1000000 * sizeof(real),
                    24 + 65 + 1000000 * sizeof(real) + 6 * OVR_ALIGN);
    assert_ok(arena_open(&arena, counted, &err), &err);
    place(&arrays, &arena);
    assert_int_equal(arena.used, counted);
    assert_int_equal((uintptr_t)arrays.b % OVR_ALIGN, 0);
    assert_int_equal((uintptr_t)arrays.c % OVR_ALIGN, 0);
    assert_true((uint8_t *)(arrays.a + 3) <= arrays.b);
    assert_true(arrays.b + 65 <= (uint8_t *)arrays.c);
    for (size_t i = 0; i < 1000000; i++)
        assert_true(arrays.c[i] == 0);
#ifdef __SANITIZE_ADDRESS__
    assert_true(__asan_address_is_poisoned(arrays.a + 3));
    assert_true(__asan_address_is_poisoned(arrays.b + 65));
    assert_false(__asan_address_is_poisoned(arrays.b + 64));
#endif
    arena_close(&arena);
    assert_null(arena.base);
    arena_close(&arena);
}

static void an_empty_one(void **state) {
    (void)state;
    struct ovr_err err = {0};
    struct arena arena;
    assert_ok(arena_open(&arena, 0, &err), &err);
    arena_close(&arena);
}

/* Twice the machine's memory, of which little is touched. */
static void room_that_is_not_touched(void **state) {
    (void)state;
#ifndef __SANITIZE_ADDRESS__ /* whose shadow of it is touched */
    struct ovr_err err = {0};
    struct arena arena;
    size_t page = (size_t)sysconf(_SC_PAGESIZE), size = (size_t)sysconf(_SC_PHYS_PAGES) * page * 2;
    assert_ok(arena_reserve(&arena, size, &err), &err);
    uint8_t *bytes = arena_take(&arena, size, 1);
    bytes[size - 1] = 1;
    assert_int_equal(bytes[size / 2], 0);
    arena_close(&arena);
#endif
}

/* Sizes that overflow don't wrap to something small. */
static void too_much_is_refused(void **state) {
    (void)state;
    struct ovr_err err = {0};
    struct arena arena = {0};
    for (int i = 0; i < 5; i++)
        arena_take(&arena, SIZE_MAX / 2, 4);
    assert_true(arena.used >= PTRDIFF_MAX / 2);
    assert_failed(arena_open(&arena, arena.used, &err), OVR_NOMEM, &err, "not enough memory");
    assert_null(arena.base);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_what_it_takes),
        cmocka_unit_test(an_empty_one),
        cmocka_unit_test(room_that_is_not_touched),
        cmocka_unit_test(too_much_is_refused),
    };
    return cmocka_run_group_tests_name("core/arena", tests, NULL, NULL);
}
