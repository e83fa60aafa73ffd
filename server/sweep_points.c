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

void sweep_name_point(const json_t *spec, const char *sweep, size_t k, char name[201]) {
    const char *own = json_string_value(json_object_get(spec, "name"));
    if (own && strcmp(own, sweep) != 0)
        snprintf(name, 201, "%s", own);
    else
        snprintf(name, 201, "%.180s %zu", sweep, k);
}

int sweep_personalize(json_t *spec, const char *point, int repeat, int repeats, int64_t seed,
                      char name[201], struct ovr_err *err) {
    int n = (int)strlen(point);
    if (n > 190 && repeats > 1)
        for (n = 190; (point[n] & 0xc0) == 0x80;) /* whole characters */
            n--;
    snprintf(name, 201, "%.*s", n, point);
    if (repeats > 1)
        snprintf(name + n, 201 - (size_t)n, ".%d", repeat);
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
