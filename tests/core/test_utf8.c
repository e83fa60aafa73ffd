/* UTF-8: which bytes make characters, and what becomes of the others. Valid and invalid ones are
 * those of the Unicode standard's table 3-7. */
#include "tests/core/check.h"

#include "core/utf8.h"

#include <string.h>

static void lengths_of_characters(void **state) {
    static const struct {
        const char *text;
        size_t length;
    } cases[] = {
        {"", 1},
        {"a", 1},
        {"\x7f", 1},
        {"\xc2\x80", 2},
        {"\xdf\xbf", 2},
        {"\xe0\xa0\x80", 3},
        {"\xed\x9f\xbf", 3},
        {"\xef\xbf\xbf", 3},
        {"\xf0\x90\x80\x80", 4},
        {"\xf4\x8f\xbf\xbf", 4},
        {"\x80", 0},             /* in the middle of a character */
        {"\xc1\xbf", 0},         /* longer than it has to be, and so are the next two */
        {"\xe0\x9f\xbf", 0},     /**/
        {"\xf0\x8f\xbf\xbf", 0}, /**/
        {"\xed\xa0\x80", 0},     /* a surrogate */
        {"\xf4\x90\x80\x80", 0}, /* beyond U+10FFFF */
        {"\xf5\x80\x80\x80", 0},
        {"\xe2\x82", 0}, /* cut */
        {"\xe2\x82z", 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(utf8_length(cases[i].text), cases[i].length);
    assert_true(utf8_is_valid("größer ∞ 𝛼"));
    assert_false(utf8_is_valid("gr\xf6\xdf"
                               "er"));
}

static void characters_are_counted(void **state) {
    (void)state;
    assert_int_equal(utf8_count(""), 0);
    assert_int_equal(utf8_count("größer ∞ 𝛼"), 10);
    assert_int_equal(utf8_span("größer", 3), 4);
    assert_int_equal(utf8_span("größer", 6), strlen("größer"));
    assert_int_equal(utf8_span("größer", 100), strlen("größer"));
    assert_int_equal(utf8_span("𝛼𝛼", 1), 4);
    assert_int_equal(utf8_span("𝛼𝛼", 0), 0);
    assert_int_equal(utf8_span("", 5), 0);
}

static void mending_keeps_what_is_right(void **state) {
    static const struct {
        const char *text, *mended;
    } cases[] = {
        {"größer ∞ 𝛼", "größer ∞ 𝛼"},
        {"gr\xf6\xdf"
         "er",
         "gr??er"},
        {"cut \xe2\x82", "cut "},
        {"cut \xf0\x9d\x9b", "cut "},
        {"\xe2\x82 inside", "?? inside"},
        {"\xed\xa0\x80", "???"},
        {"\xff", "?"},
        {"", ""},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[32];
        strcpy(text, cases[i].text);
        utf8_mend(text);
        assert_string_equal(text, cases[i].mended);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lengths_of_characters),
        cmocka_unit_test(characters_are_counted),
        cmocka_unit_test(mending_keeps_what_is_right),
    };
    return cmocka_run_group_tests_name("core/utf8", tests, NULL, NULL);
}
