/* Holds answers against the contract: as much of JSON Schema as api/openapi.json uses. A keyword
 * that is not known here is a fault, so that nothing is passed over in silence.
 */
#ifndef TESTS_API_CONTRACT_H
#define TESTS_API_CONTRACT_H

#include <jansson.h>
#include <math.h>
#include <regex.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* Follows "#/a/b"; NULL: dangling. */
static inline json_t *follow(const json_t *contract, const char *reference) {
    json_t *place = (json_t *)(uintptr_t)contract;
    if (strncmp(reference, "#/", 2) != 0)
        return NULL;
    for (const char *name = reference + 2; place && *name;) {
        size_t n = strcspn(name, "/");
        place = json_object_getn(place, name, n);
        name += n + (name[n] == '/');
    }
    return place;
}

/* The object itself, or what its $ref leads to. */
static inline json_t *resolve(const json_t *contract, json_t *object) {
    const char *reference;
    while (object && (reference = json_string_value(json_object_get(object, "$ref"))))
        object = follow(contract, reference);
    return object;
}

struct check {
    const json_t *contract;
    char fault[400]; /* the first; "" for none */
};

static inline int complain(struct check *check, const char *pointer, const char *what,
                           const char *which) {
    if (!*check->fault)
        snprintf(check->fault, sizeof check->fault, "\"%s\" %s%s", pointer, what, which);
    return 0;
}

static inline int fits(struct check *check, json_t *schema, const json_t *value,
                       const char *pointer);

static inline int is_type(const json_t *value, const char *type) {
    if (strcmp(type, "integer") == 0)
        return json_is_integer(value) ||
               (json_is_real(value) && json_real_value(value) == floor(json_real_value(value)));
    return (strcmp(type, "number") == 0 && json_is_number(value)) ||
           (strcmp(type, "string") == 0 && json_is_string(value)) ||
           (strcmp(type, "object") == 0 && json_is_object(value)) ||
           (strcmp(type, "array") == 0 && json_is_array(value)) ||
           (strcmp(type, "boolean") == 0 && json_is_boolean(value)) ||
           (strcmp(type, "null") == 0 && json_is_null(value));
}

static inline int fits_type(const json_t *types, const json_t *value) {
    if (json_is_string(types))
        return is_type(value, json_string_value(types));
    for (size_t i = 0; i < json_array_size(types); i++)
        if (is_type(value, json_string_value(json_array_get(types, i))))
            return 1;
    return 0;
}

/* 1 and 1.0 are the same number in JSON Schema. */
static inline int same(const json_t *a, const json_t *b) {
    if (json_is_number(a) && json_is_number(b))
        return json_number_value(a) == json_number_value(b);
    return json_equal(a, b);
}

static inline int matches(const char *pattern, const char *text) {
    regex_t regex;
    if (regcomp(&regex, pattern, REG_EXTENDED | REG_NOSUB))
        return 0;
    int found = regexec(&regex, text, 0, NULL, 0) == 0;
    regfree(&regex);
    return found;
}

static inline int fits_members(struct check *check, json_t *schema, const json_t *value,
                               const char *pointer) {
    json_t *known = json_object_get(schema, "properties"), *member;
    json_t *others = json_object_get(schema, "additionalProperties");
    const char *name;
    char deeper[200];
    json_object_foreach((json_t *)(uintptr_t)value, name, member) {
        json_t *below = json_object_get(known, name);
        snprintf(deeper, sizeof deeper, "%.120s/%.60s", pointer, name);
        if (below && !fits(check, below, member, deeper))
            return 0;
        /* Stricter than JSON Schema: a member that the contract is silent about is a fault. */
        if (!below && known && !json_is_true(others))
            return complain(check, deeper, "is not documented", "");
    }
    return 1;
}

static inline size_t count_fitting(struct check *check, const json_t *schemas, const json_t *value,
                                   const char *pointer) {
    size_t n = 0;
    for (size_t i = 0; i < json_array_size(schemas); i++) {
        struct check trial = {.contract = check->contract};
        n += (size_t)fits(&trial, json_array_get(schemas, i), value, pointer);
    }
    return n;
}

static inline int fits_keyword(struct check *check, json_t *schema, const char *keyword,
                               const json_t *rule, const json_t *value, const char *pointer) {
    static const char *const silent[] = {
        "description",          "default", "title", "examples", "format", "x-when",
        "additionalProperties", "then",    "else",  "$schema",  "$id"};
    double number = json_number_value(value), bound = json_number_value(rule);
    size_t length = json_is_string(value) ? json_string_length(value) : json_array_size(value);
    for (size_t i = 0; i < sizeof silent / sizeof *silent; i++)
        if (strcmp(keyword, silent[i]) == 0)
            return 1;
    if (strcmp(keyword, "type") == 0)
        return fits_type(rule, value) || complain(check, pointer, "has the wrong type", "");
    if (strcmp(keyword, "const") == 0)
        return same(rule, value) || complain(check, pointer, "is not the constant", "");
    if (strcmp(keyword, "enum") == 0) {
        for (size_t i = 0; i < json_array_size(rule); i++)
            if (same(json_array_get(rule, i), value))
                return 1;
        return complain(check, pointer, "is none of the values", "");
    }
    if (strcmp(keyword, "oneOf") == 0)
        return count_fitting(check, rule, value, pointer) == 1 ||
               complain(check, pointer, "does not fit exactly one of the schemas", "");
    if (strcmp(keyword, "anyOf") == 0)
        return count_fitting(check, rule, value, pointer) > 0 ||
               complain(check, pointer, "fits none of the schemas", "");
    if (strcmp(keyword, "allOf") == 0) {
        for (size_t i = 0; i < json_array_size(rule); i++)
            if (!fits(check, json_array_get(rule, i), value, pointer))
                return 0;
        return 1;
    }
    if (strcmp(keyword, "if") == 0) {
        struct check trial = {.contract = check->contract};
        int holds = fits(&trial, (json_t *)(uintptr_t)rule, value, pointer);
        json_t *then = json_object_get(schema, holds ? "then" : "else");
        return !then || fits(check, then, value, pointer);
    }
    if (strcmp(keyword, "not") == 0) {
        struct check trial = {.contract = check->contract};
        return !fits(&trial, (json_t *)(uintptr_t)rule, value, pointer) ||
               complain(check, pointer, "fits what it must not", "");
    }
    if (strcmp(keyword, "properties") == 0)
        return !json_is_object(value) || fits_members(check, schema, value, pointer);
    if (strcmp(keyword, "propertyNames") == 0) {
        const char *name;
        json_t *member;
        json_object_foreach((json_t *)(uintptr_t)value, name, member) {
            json_t *text = json_string(name);
            int ok = fits(check, (json_t *)(uintptr_t)rule, text, pointer);
            json_decref(text);
            if (!ok)
                return 0;
        }
        return 1;
    }
    if (strcmp(keyword, "required") == 0) {
        for (size_t i = 0; json_is_object(value) && i < json_array_size(rule); i++)
            if (!json_object_get(value, json_string_value(json_array_get(rule, i))))
                return complain(check, pointer, "misses ",
                                json_string_value(json_array_get(rule, i)));
        return 1;
    }
    if (strcmp(keyword, "items") == 0) {
        char deeper[200];
        for (size_t i = 0; json_is_array(value) && i < json_array_size(value); i++) {
            snprintf(deeper, sizeof deeper, "%.160s/%zu", pointer, i);
            if (!fits(check, (json_t *)(uintptr_t)rule, json_array_get(value, i), deeper))
                return 0;
        }
        return 1;
    }
    int ok;
    if (strcmp(keyword, "minimum") == 0)
        ok = !json_is_number(value) || number >= bound;
    else if (strcmp(keyword, "maximum") == 0)
        ok = !json_is_number(value) || number <= bound;
    else if (strcmp(keyword, "exclusiveMinimum") == 0)
        ok = !json_is_number(value) || number > bound;
    else if (strcmp(keyword, "minLength") == 0)
        ok = !json_is_string(value) || (double)length >= bound;
    else if (strcmp(keyword, "maxLength") == 0)
        ok = !json_is_string(value) || (double)length <= bound;
    else if (strcmp(keyword, "minItems") == 0)
        ok = !json_is_array(value) || (double)length >= bound;
    else if (strcmp(keyword, "maxItems") == 0)
        ok = !json_is_array(value) || (double)length <= bound;
    else if (strcmp(keyword, "minProperties") == 0)
        ok = !json_is_object(value) || (double)json_object_size(value) >= bound;
    else if (strcmp(keyword, "maxProperties") == 0)
        ok = !json_is_object(value) || (double)json_object_size(value) <= bound;
    else if (strcmp(keyword, "pattern") == 0)
        ok = !json_is_string(value) || matches(json_string_value(rule), json_string_value(value));
    else
        return complain(check, pointer, "has a schema with an unknown keyword, ", keyword);
    return ok || complain(check, pointer, "breaks ", keyword);
}

static inline int fits(struct check *check, json_t *schema, const json_t *value,
                       const char *pointer) {
    const char *keyword;
    json_t *rule;
    if (json_is_false(schema))
        return complain(check, pointer, "must not be there", "");
    schema = resolve(check->contract, schema);
    if (!schema)
        return complain(check, pointer, "has a schema that is not there", "");
    json_object_foreach(schema, keyword, rule) {
        if (!fits_keyword(check, schema, keyword, rule, value, pointer))
            return 0;
    }
    return 1;
}

/* Whether a path without its query is an instance of a template such as /v1/datasets/{name}. */
static inline int fits_template(const char *template, const char *path) {
    for (; *template; template ++) {
        if (*template == '{') {
            size_t n = strcspn(path, "/?");
            if (n == 0)
                return 0;
            path += n;
            template = strchr(template, '}');
        } else if (*template != *path++) {
            return 0;
        }
    }
    return *path == '\0' || *path == '?';
}

/* The path item of a request, or NULL. */
static inline json_t *find_path_item(const json_t *contract, const char *path) {
    json_t *item;
    const char *template;
    json_object_foreach(json_object_get(contract, "paths"), template, item) {
        if (fits_template(template, path))
            return item;
    }
    return NULL;
}

static inline json_t *find_operation(const json_t *path_item, const char *method) {
    char lower[16] = "";
    for (size_t i = 0; method[i] && i + 1 < sizeof lower; i++)
        lower[i] = (char)(method[i] | 0x20);
    return json_object_get(path_item, strcmp(lower, "head") == 0 ? "get" : lower);
}

/* What the contract says of this answer, resolved; NULL: nothing. Answers of the transport itself,
 * to what is no route, are in components. */
static inline json_t *find_response(const json_t *contract, const char *method, const char *path,
                                    int status) {
    json_t *item = find_path_item(contract, path);
    json_t *operation = item ? find_operation(item, method) : NULL;
    char code[16];
    snprintf(code, sizeof code, "%d", status);
    if (operation)
        return resolve(contract, json_object_get(json_object_get(operation, "responses"), code));
    const char *name = status == 400   ? "BadRequest"
                       : status == 403 ? "Forbidden"
                       : status == 404 ? "NotFound"
                       : status == 405 ? "MethodNotAllowed"
                       : status == 429 ? "TooOften"
                       : status == 503 ? "Unavailable"
                                       : "";
    return json_object_get(json_object_get(json_object_get(contract, "components"), "responses"),
                           name);
}

#endif
