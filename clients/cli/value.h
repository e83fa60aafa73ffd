/* Reading JSON answers: any member may be missing or null, and no string is trusted. */
#ifndef CLI_VALUE_H
#define CLI_VALUE_H

#include <jansson.h>

/* Parses an answer and makes it fit to print: strings are cleaned (text_clean), members whose
 * names would need it are dropped. NULL where it is not JSON. */
json_t *value_parse(const char *text, size_t size);

/* The value at a path of member names and indices, "spec.model.hidden.0"; NULL where there is none.
 */
const json_t *value_at(const json_t *value, const char *path);

double value_number(const json_t *value, const char *path);      /* NaN where there is none */
const char *value_string(const json_t *value, const char *path); /* "" where there is none */

#endif
