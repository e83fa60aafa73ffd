/* What the tests of the report share. In JSON given as text single quotes stand for double ones. */
#ifndef TESTS_REPRODUCE_CHECK_H
#define TESTS_REPRODUCE_CHECK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

static inline json_t *parse(const char *text) {
    char *copy = strdup(text);
    for (char *c = copy; *c; c++)
        *c = *c == '\'' ? '"' : *c;
    json_t *json = json_loads(copy, 0, NULL);
    if (!json)
        fail_msg("not JSON: %s", text);
    free(copy);
    return json;
}

#endif
