/* Text that grows, and JSON as text: one place says how reals, blanks and the order of members come
 * out. */
#ifndef API_TEXT_H
#define API_TEXT_H

#include <jansson.h>
#include <stddef.h>

/* All zero: empty. The owner frees `bytes`. */
struct text {
    char *bytes; /* no NUL follows */
    size_t n, room;
};

/* Return 0, or −1 when memory runs out. */
int text_add(struct text *text, const char *bytes, size_t n);
int text_add_string(struct text *text, const char *string);

/* Compact, members in order, reals with 15 digits. A NULL value is an earlier lack of memory. */
int text_add_json(struct text *text, const json_t *value);

/* Another member of the object that the text ends with; the value is JSON already. */
int text_add_member(struct text *text, const char *name, const char *value);

#endif
