#include "clients/reproduce/rows.h"

#include "clients/cli/text.h"
#include "clients/cli/value.h"

#include <string.h>

static bool is_within(const json_t *value, const json_t *range) {
    double number = json_number_value(value);
    const json_t *min = json_object_get(range, "min"), *max = json_object_get(range, "max");
    return json_is_number(value) && (!min || number >= json_number_value(min)) &&
           (!max || number <= json_number_value(max));
}

static bool value_fits(const json_t *value, const json_t *wanted) {
    size_t i;
    const json_t *one;
    if (json_is_object(wanted))
        return is_within(value, wanted);
    json_array_foreach(wanted, i, one) {
        if (value_fits(value, one))
            return true;
    }
    if (json_is_array(wanted))
        return false;
    if (!value || json_is_null(value) || json_is_null(wanted))
        return (!value || json_is_null(value)) && json_is_null(wanted);
    if (json_is_number(value) && json_is_number(wanted)) /* 1 and 1.0 */
        return !(json_number_value(value) < json_number_value(wanted)) &&
               !(json_number_value(value) > json_number_value(wanted));
    return json_equal(value, wanted);
}

bool row_matches(const json_t *row, const json_t *where) {
    const char *path;
    const json_t *wanted;
    json_object_foreach((json_t *)where, path, wanted) {
        if (!value_fits(value_at(row, path), wanted))
            return false;
    }
    return true;
}

json_t *rows_matching(const json_t *rows, const json_t *where) {
    json_t *found = json_array(), *row;
    size_t i;
    json_array_foreach(rows, i, row) {
        if (row_matches(row, where) && json_array_append(found, row)) {
            json_decref(found);
            return NULL;
        }
    }
    return found;
}

/* ---- CSV ---- */

/* Adds every scalar below `value` to `flat` under its path. Values stand three or four levels deep;
 * the parser of the answer has bounded the depth. */
static void flatten(json_t *flat, const char *path, json_t *value) {
    const char *name;
    json_t *member;
    size_t i;
    struct buf below = {0};
    json_object_foreach(value, name, member) {
        buf_release(&below);
        buf_addf(&below, "%s%s%s", path, *path ? "." : "", name);
        if (below.data)
            flatten(flat, below.data, member);
    }
    json_array_foreach(value, i, member) {
        buf_release(&below);
        buf_addf(&below, "%s.%zu", path, i);
        if (below.data)
            flatten(flat, below.data, member);
    }
    if (!json_is_object(value) && !json_is_array(value) && !json_is_null(value))
        json_object_set(flat, path, value);
    buf_release(&below);
}

static json_t *flat_row(json_t *row) {
    static const char *const parts[] = {"id",    "point",  "repeat", "state",
                                        "error", "result", "epoch",  "bin"};
    json_t *flat = json_object(), *spec = json_object_get(row, "spec");
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (json_object_get(row, parts[i]))
            flatten(flat, parts[i], json_object_get(row, parts[i]));
    if (spec)
        flatten(flat, "spec", spec);
    return flat;
}

/* Whether all rows have the same, or none has any. */
static bool is_same(const json_t *flats, const char *path) {
    size_t i;
    const json_t *flat, *first = json_object_get(json_array_get(flats, 0), path);
    json_array_foreach(flats, i, flat) {
        const json_t *value = json_object_get(flat, path);
        if ((value || first) && !(value && first && json_equal(value, first)))
            return false;
    }
    return true;
}

/* The paths that become columns, in the order in which rows first have them. */
static json_t *columns_of(const json_t *flats) {
    json_t *columns = json_object(), *flat, *value;
    const char *path;
    size_t i;
    json_array_foreach(flats, i, flat) {
        json_object_foreach(flat, path, value) {
            if (!json_object_get(columns, path) &&
                (strncmp(path, "spec.", 5) || !is_same(flats, path)))
                json_object_set_new(columns, path, json_true());
        }
    }
    return columns;
}

static void add_text_field(struct buf *csv, const char *text) {
    if (!strpbrk(text, ",\"\r\n")) {
        buf_add(csv, text);
        return;
    }
    buf_add(csv, "\"");
    for (; *text; text++)
        buf_addf(csv, "%s%c", *text == '"' ? "\"" : "", *text);
    buf_add(csv, "\"");
}

static void add_field(struct buf *csv, const json_t *value) {
    if (json_is_string(value))
        add_text_field(csv, json_string_value(value));
    else if (json_is_integer(value))
        buf_addf(csv, "%lld", (long long)json_integer_value(value));
    else if (json_is_real(value))
        buf_addf(csv, "%.9g", json_real_value(value));
    else if (json_is_boolean(value))
        buf_add(csv, json_is_true(value) ? "true" : "false");
}

void rows_csv(struct buf *csv, const json_t *rows) {
    json_t *flats = json_array(), *row, *unused;
    const char *path, *comma = "";
    size_t i;
    json_array_foreach(rows, i, row) json_array_append_new(flats, flat_row(row));
    json_t *columns = columns_of(flats);
    json_object_foreach(columns, path, unused) {
        buf_add(csv, comma);
        add_text_field(csv, path);
        comma = ",";
    }
    buf_add(csv, "\r\n");
    json_array_foreach(flats, i, row) {
        comma = "";
        json_object_foreach(columns, path, unused) {
            buf_add(csv, comma);
            add_field(csv, json_object_get(row, path));
            comma = ",";
        }
        buf_add(csv, "\r\n");
    }
    json_decref(columns);
    json_decref(flats);
}
