/* JSON pointers (RFC 6901) on jansson's values. */
#ifndef SERVER_POINTER_H
#define SERVER_POINTER_H

#include "core/err.h"

#include <jansson.h>

enum { POINTER_TOKEN_SIZE = 128 }; /* longest name of a member, with the NUL */

/* Whether the text is a pointer, to something inside, whose names all fit. */
int pointer_valid(const char *pointer);

/* Whether `inner` is `outer` or points into what it points to. Returns what is left of it, or NULL.
 */
const char *pointer_below(const char *outer, const char *inner);

/* Appends the name, escaped, after a '/': at most size bytes with the NUL. */
void pointer_extend(char *pointer, size_t size, const char *name);

/* Borrowed; NULL where nothing stands. */
json_t *pointer_get(const json_t *document, const char *pointer);

/* Puts a copy of `value` there. Objects, and arrays where the next name is 0, are made on the way
 * where nothing or null stands; in an array an element must be there, or be the next. Returns 0,
 * OVR_INVALID where the way leads through something else, or OVR_NOMEM. */
int pointer_set(json_t *document, const char *pointer, const json_t *value, struct ovr_err *err);

/* Calls leaf() for every value in `value` that is not a filled object (or is nested too deep for a
 * spec), with its pointer, which begins with `prefix`. leaf returns 0 or a negative code, which
 * ends it. */
int pointer_leaves(const json_t *value, const char *prefix,
                   int (*leaf)(void *context, const char *pointer, json_t *value), void *context);

#endif
