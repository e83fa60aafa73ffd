/* Whether a page is well formed as XML is: every tag closed by its own, attributes quoted, no bare
 * & or <. Not a parser: entities are &name; or &#n;, and a page has no CDATA and no comments. */
#ifndef TESTS_REPRODUCE_MARKUP_H
#define TESTS_REPRODUCE_MARKUP_H

#include <ctype.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

enum { DEPTH = 64, NAME = 32 };

static inline const char *skip_name(const char *at) {
    while (isalnum((unsigned char)*at) || (*at && strchr("-:_", *at)))
        at++;
    return at;
}

/* Past the attributes, at '>' or "/>". */
static inline const char *skip_attributes(const char *at) {
    for (;;) {
        at += strspn(at, " \n\t");
        if (*at == '>' || *at == '/')
            return at;
        const char *end = skip_name(at);
        if (end == at || strncmp(end, "=\"", 2))
            fail_msg("an attribute is broken: %.60s", at);
        at = end + 2 + strcspn(end + 2, "\"<");
        if (*at++ != '"')
            fail_msg("an attribute is not closed: %.60s", end);
    }
}

static inline void assert_well_formed(const char *text) {
    char open[DEPTH][NAME];
    size_t depth = 0;
    for (const char *at = text; *at;) {
        if (*at == '&') {
            const char *end = at + 1 + (at[1] == '#');
            end = skip_name(end);
            if (*end != ';' || end == at + 1)
                fail_msg("a bare &: %.60s", at);
            at = end;
        } else if (!strncmp(at, "<!DOCTYPE html>", 15)) {
            at += 15;
        } else if (!strncmp(at, "</", 2)) {
            const char *end = skip_name(at + 2);
            size_t n = (size_t)(end - at - 2);
            if (!depth || strncmp(open[depth - 1], at + 2, n) || open[depth - 1][n] || *end != '>')
                fail_msg("closes what is not open: %.60s", at);
            depth--;
            at = end + 1;
        } else if (*at == '<') {
            const char *end = skip_name(at + 1);
            size_t n = (size_t)(end - at - 1);
            if (!n || n >= NAME || depth == DEPTH)
                fail_msg("a bare <: %.60s", at);
            memcpy(open[depth], at + 1, n);
            open[depth++][n] = '\0';
            at = skip_attributes(end);
            if (*at == '/') {
                depth--;
                at++;
            }
            if (*at++ != '>')
                fail_msg("a tag is not closed: %.60s", end);
        } else {
            at++;
        }
    }
    if (depth)
        fail_msg("<%s> is never closed", open[depth - 1]);
}

#endif
