/* Errors: the first one wins, long texts are cut, NULL is fine. */
#include "core/err.h"
#include "core/real.h"
#include "tests/core/check.h"

static void first_error_wins(void **state) {
    (void)state;
    struct ovr_err err = {0};
    assert_int_equal(ovr_fail(&err, OVR_INVALID, "/a", "%d is %s", 3, "odd"), OVR_INVALID);
    assert_int_equal(ovr_fail(&err, OVR_IO, "/b", "later"), OVR_IO);
    assert_int_equal(err.code, OVR_INVALID);
    assert_string_equal(err.field, "/a");
    assert_string_equal(err.text, "3 is odd");
}

static void nobody_listens(void **state) {
    (void)state;
    assert_int_equal(ovr_fail(NULL, OVR_IO, NULL, "x"), OVR_IO);
    assert_int_equal(ovr_nomem(NULL, "x"), OVR_NOMEM);
}

static void long_texts_are_cut(void **state) {
    (void)state;
    struct ovr_err err = {0};
    char text[1000] = {0};
    memset(text, 'x', sizeof text - 1);
    ovr_fail(&err, OVR_IO, text, "%s", text);
    assert_int_equal(strlen(err.field), sizeof err.field - 1);
    assert_int_equal(strlen(err.text), sizeof err.text - 1);
}

/* A name that was cut inside a character, wherever that is in the text. */
static void texts_are_utf8(void **state) {
    (void)state;
    struct ovr_err err = {0};
    ovr_fail(&err, OVR_INVALID, "/gr\xc3", "\"%.3s\" is not one of \xff", "größer");
    assert_string_equal(err.field, "/gr");
    assert_string_equal(err.text, "\"gr?\" is not one of ?");
}

static void out_of_memory(void **state) {
    (void)state;
    struct ovr_err err = {0};
    ovr_nomem(&err, "the weights");
    assert_int_equal(err.code, OVR_NOMEM);
    assert_string_equal(err.field, "");
    assert_string_equal(err.text, "not enough memory for the weights");
}

static void allocations_are_checked_and_aligned(void **state) {
    (void)state;
    const volatile size_t half = SIZE_MAX / 2 + 1;
    assert_null(ovr_malloc(half, 2)); /* the product would be 0 */
    assert_null(ovr_calloc(half, 3));
    assert_null(ovr_malloc(SIZE_MAX, 1));
    for (size_t n = 0; n < 200; n += 13) {
        char *bytes = ovr_calloc(n, 1);
        assert_non_null(bytes);
        assert_int_equal((uintptr_t)bytes % OVR_ALIGN, 0);
        for (size_t i = 0; i < n; i++)
            assert_int_equal(bytes[i], 0);
        free(bytes);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_error_wins),   cmocka_unit_test(nobody_listens),
        cmocka_unit_test(long_texts_are_cut), cmocka_unit_test(texts_are_utf8),
        cmocka_unit_test(out_of_memory),      cmocka_unit_test(allocations_are_checked_and_aligned),
    };
    return cmocka_run_group_tests_name("core/err", tests, NULL, NULL);
}
