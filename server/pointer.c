#include "server/pointer.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Takes the next name off a pointer that stands at a '/'. Returns what follows it, or NULL where it
 * is malformed or too long. */
static const char *next_token(const char *pointer, char token[POINTER_TOKEN_SIZE]) {
    size_t n = 0;
    if (*pointer != '/')
        return NULL;
    for (pointer++; *pointer && *pointer != '/'; pointer++) {
        char c = *pointer;
        if (c == '~') {
            pointer++;
            if (*pointer != '0' && *pointer != '1')
                return NULL;
            c = *pointer == '0' ? '~' : '/';
        }
        if (n + 1 == POINTER_TOKEN_SIZE)
            return NULL;
        token[n++] = c;
    }
    token[n] = '\0';
    return pointer;
}

int pointer_valid(const char *pointer) {
    char token[POINTER_TOKEN_SIZE];
    const char *at = pointer;
    int depth = 0;
    while (at && *at && depth++ < 16)
        at = next_token(at, token);
    return at && !*at && depth;
}

const char *pointer_below(const char *outer, const char *inner) {
    size_t n = strlen(outer);
    if (strncmp(outer, inner, n) != 0 || (inner[n] && inner[n] != '/'))
        return NULL;
    return inner + n;
}

void pointer_extend(char *pointer, size_t size, const char *name) {
    size_t n = strlen(pointer);
    if (n + 1 < size)
        pointer[n++] = '/';
    for (; *name && n + 2 < size; name++) {
        if (*name == '~' || *name == '/') {
            pointer[n++] = '~';
            pointer[n++] = *name == '~' ? '0' : '1';
        } else {
            pointer[n++] = *name;
        }
    }
    pointer[n] = '\0';
}

/* The index that a token is for an array of n, n itself for the next, or -1. */
static int array_index(const char *token, size_t n) {
    char *end;
    if (strcmp(token, "-") == 0)
        return (int)n;
    if (*token < '0' || *token > '9' || (*token == '0' && token[1]) || strlen(token) > 6)
        return -1;
    long index = strtol(token, &end, 10);
    return *end || (size_t)index > n ? -1 : (int)index;
}

static json_t *step(const json_t *value, const char *token) {
    if (json_is_object(value))
        return json_object_get(value, token);
    int index = json_is_array(value) ? array_index(token, json_array_size(value)) : -1;
    return index < 0 ? NULL : json_array_get(value, (size_t)index);
}

json_t *pointer_get(const json_t *document, const char *pointer) {
    char token[POINTER_TOKEN_SIZE];
    const json_t *at = document;
    while (at && *pointer) {
        pointer = next_token(pointer, token);
        if (!pointer)
            return NULL;
        at = step(at, token);
    }
    return (json_t *)(uintptr_t)at;
}

/* Takes value over. */
static int set_member(json_t *in, const char *token, json_t *value, const char *pointer,
                      struct ovr_err *err) {
    int rc;
    if (!value)
        return ovr_nomem(err, "a value");
    if (json_is_object(in)) {
        rc = json_object_set_new(in, token, value);
    } else {
        size_t n = json_array_size(in);
        int index = array_index(token, n);
        if (index < 0) {
            json_decref(value);
            return ovr_fail(err, OVR_INVALID, "",
                            "%.200s leads to no place in the base: its array has %zu element%s",
                            pointer, n, n == 1 ? "" : "s");
        }
        rc = (size_t)index == n ? json_array_append_new(in, value)
                                : json_array_set_new(in, (size_t)index, value);
    }
    return rc ? ovr_nomem(err, "a value") : 0;
}

int pointer_set(json_t *document, const char *pointer, const json_t *value, struct ovr_err *err) {
    char token[POINTER_TOKEN_SIZE];
    json_t *at = document;
    const char *rest = pointer;
    for (;;) {
        rest = next_token(rest, token);
        if (!rest)
            return ovr_fail(err, OVR_INVALID, "", "%.200s is not a JSON pointer", pointer);
        if (!json_is_object(at) && !json_is_array(at))
            return ovr_fail(err, OVR_INVALID, "",
                            "%.200s leads through a value of the base that has no members",
                            pointer);
        if (!*rest)
            return set_member(at, token, json_deep_copy(value), pointer, err);
        json_t *below = step(at, token);
        if (!below || json_is_null(below)) {
            int list = strcmp(rest, "/0") == 0 || strncmp(rest, "/0/", 3) == 0;
            int rc = set_member(at, token, list ? json_array() : json_object(), pointer, err);
            if (rc)
                return rc;
            below = step(at, token);
        }
        at = below;
    }
}

int pointer_leaves(const json_t *value, const char *prefix,
                   int (*leaf)(void *context, const char *pointer, json_t *value), void *context) {
    enum { LONGEST = 512, DEEP = 300 };
    const char *name;
    json_t *member;
    int rc = 0;
    if (!json_is_object(value) || !json_object_size(value) || strlen(prefix) > DEEP)
        return leaf(context, prefix, (json_t *)(uintptr_t)value);
    json_object_foreach((json_t *)(uintptr_t)value, name, member) {
        char deeper[LONGEST];
        snprintf(deeper, sizeof deeper, "%s", prefix);
        pointer_extend(deeper, sizeof deeper, name);
        rc = pointer_leaves(member, deeper, leaf, context);
        if (rc)
            break;
    }
    return rc;
}
