/* JSON pointers: the examples of RFC 6901, and setting, which the RFC does not have. */
#include "server/pointer.h"
#include "tests/core/check.h"

/* JSON with ' for ". */
static json_t *parse(const char *text) {
    char *copy = strdup(text);
    assert_non_null(copy);
    for (char *c = copy; *c; c++)
        *c = *c == '\'' ? '"' : *c;
    json_t *json = json_loads(copy, JSON_DECODE_ANY, NULL);
    assert_non_null(json);
    free(copy);
    return json;
}

static void the_examples_of_the_rfc(void **state) {
    (void)state;
    static const struct {
        const char *pointer, *expected;
    } cases[] = {{"/foo", "['bar','baz']"},
                 {"/foo/0", "'bar'"},
                 {"/", "0"},
                 {"/a~1b", "1"},
                 {"/c%d", "2"},
                 {"/e^f", "3"},
                 {"/g|h", "4"},
                 {"/i\\j", "5"},
                 {"/ ", "7"},
                 {"/m~0n", "8"}};
    json_t *document = parse("{'foo':['bar','baz'],'':0,'a/b':1,'c%d':2,'e^f':3,'g|h':4,"
                             "'i\\\\j':5,' ':7,'m~n':8}");
    for (size_t i = 0; i < COUNT(cases); i++) {
        json_t *expected = parse(cases[i].expected);
        assert_true(pointer_valid(cases[i].pointer));
        assert_true(json_equal(pointer_get(document, cases[i].pointer), expected));
        json_decref(expected);
    }
    assert_ptr_equal(pointer_get(document, ""), document);
    static const char *const nowhere[] = {"/nothing", "/foo/2", "/foo/-", "/foo/01",
                                          "/foo/0/x", "/foo/x", "foo"};
    for (size_t i = 0; i < COUNT(nowhere); i++)
        assert_null(pointer_get(document, nowhere[i]));
    json_decref(document);
}

static void what_is_no_pointer(void **state) {
    (void)state;
    char long_name[200] = "/", deep[100] = "";
    static const char *const bad[] = {"", "a", "a/b", "/~", "/~2", "/a~"};
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_false(pointer_valid(bad[i]));
    memset(long_name + 1, 'x', POINTER_TOKEN_SIZE);
    assert_false(pointer_valid(long_name));
    long_name[POINTER_TOKEN_SIZE] = '\0';
    assert_true(pointer_valid(long_name));
    for (int i = 0; i < 20; i++)
        strcat(deep, "/a");
    assert_false(pointer_valid(deep));
}

static void below_and_extend(void **state) {
    (void)state;
    char pointer[32] = "/a";
    assert_string_equal(pointer_below("/a", "/a/b"), "/b");
    assert_string_equal(pointer_below("/a", "/a"), "");
    assert_string_equal(pointer_below("", "/a"), "/a");
    assert_null(pointer_below("/a", "/ab"));
    assert_null(pointer_below("/a/b", "/a"));
    pointer_extend(pointer, sizeof pointer, "b/c~d");
    assert_string_equal(pointer, "/a/b~1c~0d");
    pointer_extend(pointer, 16, "much too long for that"); /* cut, but whole escapes */
    assert_true(strlen(pointer) < 16);
}

static void setting(void **state) {
    (void)state;
    static const struct {
        const char *document, *pointer, *expected; /* NULL: refused */
    } cases[] = {
        {"{}", "/a", "{'a':7}"},
        {"{'a':1}", "/a", "{'a':7}"},
        {"{}", "/a/b/c", "{'a':{'b':{'c':7}}}"},
        {"{'a':{'x':1}}", "/a/b", "{'a':{'x':1,'b':7}}"},
        {"{'a':null}", "/a/b", "{'a':{'b':7}}"},
        {"{}", "/a/0", "{'a':[7]}"},
        {"{'a':[1,2]}", "/a/1", "{'a':[1,7]}"},
        {"{'a':[1,2]}", "/a/2", "{'a':[1,2,7]}"},
        {"{'a':[1,2]}", "/a/-", "{'a':[1,2,7]}"},
        {"{'a':[{'b':1}]}", "/a/0/b", "{'a':[{'b':7}]}"},
        {"{}", "/a~1b", "{'a/b':7}"},
        {"{'a':[1,2]}", "/a/3", NULL},
        {"{'a':[1,2]}", "/a/01", NULL},
        {"{'a':[1,2]}", "/a/b", NULL},
        {"{'a':'text'}", "/a/b", NULL},
        {"{'a':5}", "/a/b/c", NULL},
        {"{}", "a", NULL},
    };
    json_t *seven = json_integer(7);
    for (size_t i = 0; i < COUNT(cases); i++) {
        json_t *document = parse(cases[i].document);
        struct ovr_err err = {0};
        int rc = pointer_set(document, cases[i].pointer, seven, &err);
        if (cases[i].expected) {
            json_t *expected = parse(cases[i].expected);
            assert_ok(rc, &err);
            assert_true(json_equal(document, expected));
            json_decref(expected);
        } else {
            assert_failed(rc, OVR_INVALID, &err, cases[i].pointer);
        }
        json_decref(document);
    }
    json_decref(seven);
}

static int join(void *context, const char *pointer, json_t *value) {
    char *text = context;
    size_t n = strlen(text);
    snprintf(text + n, 400 - n, "%s=%d ", pointer, (int)json_integer_value(value));
    return json_integer_value(value) == 4 ? OVR_TOO_LARGE : 0;
}

static void leaves(void **state) {
    (void)state;
    char text[400] = "";
    json_t *document = parse("{'a':1,'b':{'c/d':2,'e':{'f':3}},'g':{},'h':[5]}");
    assert_int_equal(pointer_leaves(document, "", join, text), 0);
    assert_string_equal(text, "/a=1 /b/c~1d=2 /b/e/f=3 /g=0 /h=0 ");
    json_decref(document);
    document = parse("{'a':4,'b':1}");
    *text = '\0';
    assert_int_equal(pointer_leaves(document, "/x", join, text), OVR_TOO_LARGE);
    assert_string_equal(text, "/x/a=4 ");
    json_decref(document);
    json_t *deep = json_integer(1); /* ends before the stack does */
    for (int i = 0; i < 2000; i++)
        deep = json_pack("{s:o}", "a", deep);
    *text = '\0';
    assert_int_equal(pointer_leaves(deep, "", join, text), 0);
    json_decref(deep);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_examples_of_the_rfc),
        cmocka_unit_test(what_is_no_pointer),
        cmocka_unit_test(below_and_extend),
        cmocka_unit_test(setting),
        cmocka_unit_test(leaves),
    };
    return cmocka_run_group_tests_name("server/pointer", tests, NULL, NULL);
}
