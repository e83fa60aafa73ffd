#include "clients/cli/value.h"

#include "clients/cli/text.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Returns 0, or -1 where memory ran out. */
static int clean_string(json_t *string) {
    const char *text = json_string_value(string);
    char *clean = malloc(strlen(text) + 1);
    if (!clean)
        return -1;
    text_clean(clean, text);
    int result = strcmp(clean, text) ? json_string_set(string, clean) : 0;
    free(clean);
    return result;
}

static bool is_clean(const char *text, char *scratch) {
    text_clean(scratch, text);
    return !strcmp(scratch, text);
}

static int clean(json_t *value);

static int clean_object(json_t *object) {
    const char *name;
    void *next;
    json_t *member;
    json_object_foreach_safe(object, next, name, member) {
        char *scratch = malloc(strlen(name) + 1);
        if (!scratch)
            return -1;
        bool fit = is_clean(name, scratch);
        free(scratch);
        if (fit ? clean(member) : json_object_del(object, name))
            return -1;
    }
    return 0;
}

/* Recursion ends: the parser refuses more than 2048 levels. */
static int clean(json_t *value) {
    if (json_is_string(value))
        return clean_string(value);
    if (json_is_object(value))
        return clean_object(value);
    size_t i;
    json_t *item;
    json_array_foreach(value, i, item) {
        if (clean(item))
            return -1;
    }
    return 0;
}

json_t *value_parse(const char *text, size_t size) {
    json_t *value = text ? json_loadb(text, size, JSON_REJECT_DUPLICATES, NULL) : NULL;
    if (value && clean(value)) {
        json_decref(value);
        return NULL;
    }
    return value;
}

/* Beyond every array where the name is no number. */
static size_t index_of(const char *name) {
    bool digits = *name && !name[strspn(name, "0123456789")] && strlen(name) < 9;
    return digits ? (size_t)atoi(name) : SIZE_MAX;
}

const json_t *value_at(const json_t *value, const char *path) {
    while (value && *path) {
        size_t n = strcspn(path, ".");
        char name[64];
        if (n >= sizeof name)
            return NULL;
        memcpy(name, path, n);
        name[n] = '\0';
        value = json_is_array(value) ? json_array_get(value, index_of(name))
                                     : json_object_get(value, name);
        path += n + (path[n] == '.');
    }
    return value;
}

double value_number(const json_t *value, const char *path) {
    const json_t *at = value_at(value, path);
    return json_is_number(at) ? json_number_value(at) : NAN;
}

const char *value_string(const json_t *value, const char *path) {
    const char *text = json_string_value(value_at(value, path));
    return text ? text : "";
}
