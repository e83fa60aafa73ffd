#include "server/sweep_points.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* json_dumps() would leave names out where it lacks memory for them. */
char *sweep_dump(const json_t *value) {
    size_t flags = JSON_COMPACT | JSON_REAL_PRECISION(15), n = json_dumpb(value, NULL, 0, flags);
    char *text = n ? calloc(1, n + 1) : NULL;
    if (text && json_dumpb(value, text, n, flags) == n)
        return text;
    free(text);
    return NULL;
}

double sweep_round(double value) {
    char text[32];
    snprintf(text, sizeof text, "%.6g", value);
    return strtod(text, NULL);
}

void sweep_name_point(const json_t *spec, const char *sweep, size_t k, char name[NAME_SIZE]) {
    const char *own = json_string_value(json_object_get(spec, "name"));
    if (own && strcmp(own, sweep) != 0)
        snprintf(name, NAME_SIZE, "%s", own);
    else
        snprintf(name, NAME_SIZE, "%.*s %zu", (int)utf8_span(sweep, SWEEP_NAME_MOST), sweep, k);
}

int sweep_personalize(json_t *spec, const char *point, int repeat, int repeats, int64_t seed,
                      char name[NAME_SIZE], struct ovr_err *err) {
    enum { ROOM = 10 }; /* for the repeat's number */
    size_t n = utf8_span(point, repeats > 1 ? NAME_MOST - ROOM : NAME_MOST);
    snprintf(name, NAME_SIZE, "%.*s", (int)n, point);
    if (repeats > 1)
        snprintf(name + n, NAME_SIZE - n, ".%d", repeat);
    if (json_object_set_new(spec, "name", json_string(name)) ||
        json_object_set_new(json_object_get(spec, "training"), "seed", json_integer(seed + repeat)))
        return ovr_nomem(err, "a point of the sweep");
    return 0;
}

void sweep_join_tags(const json_t *tags, char *out, size_t size) {
    size_t i, n = 0;
    json_t *tag;
    *out = '\0';
    json_array_foreach((json_t *)(uintptr_t)tags, i, tag) {
        const char *text = json_string_value(tag);
        if (text && n + strlen(text) + 3 < size)
            n += (size_t)snprintf(out + n, size - n, "%s%s\n", n ? "" : "\n", text);
    }
}
