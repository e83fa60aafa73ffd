/* The table of a spec's fields as JSON Schema (2020-12). */
#include "server/spec_fields.h"

#include <stdio.h>
#include <string.h>

static json_t *schema_of(const struct field *f);

static int is_below(const struct field *f, const char *parent) {
    size_t n = strlen(parent);
    return strncmp(f->path, parent, n) == 0 && f->path[n] == '/' && !strchr(f->path + n + 1, '/') &&
           f->path[n + 1] != '*';
}

static const char *name_of(const struct field *f) {
    return strrchr(f->path, '/') + 1;
}

static const struct field *find_below(const char *parent, const char *name) {
    for (int i = 0; i < n_spec_fields; i++)
        if (is_below(&spec_fields[i], parent) && strcmp(name_of(&spec_fields[i]), name) == 0)
            return &spec_fields[i];
    return NULL;
}

static json_t *range_of(const struct field *f, const char *type) {
    return json_pack("{s:s, s:f, s:f}", "type", type,
                     f->flags & ABOVE ? "exclusiveMinimum" : "minimum", f->min, "maximum", f->max);
}

static json_t *array_of(json_t *items, int least, int most) {
    return json_pack("{s:s, s:o, s:i, s:i}", "type", "array", "items", items, "minItems", least,
                     "maxItems", most);
}

static json_t *either(json_t *a, json_t *b) {
    return json_pack("{s:[o, o]}", "anyOf", a, b);
}

/* Members of one name that several kinds have, each its own, stand side by side. */
static void put_property(json_t *properties, const struct field *f) {
    json_t *old = json_object_get(properties, name_of(f)), *one = schema_of(f);
    json_object_set_new(properties, name_of(f), old ? either(json_incref(old), one) : one);
}

static json_t *section_of(const char *path) {
    json_t *properties = json_object(), *required = json_array(), *section;
    const struct field *either_of = NULL;
    for (int i = 0; i < n_spec_fields; i++) {
        const struct field *f = &spec_fields[i];
        if (!is_below(f, path))
            continue;
        put_property(properties, f);
        if (f->instead_of)
            either_of = f;
        if (f->flags & REQUIRED && !f->kinds && !f->activations &&
            (!f->data || strcmp(path, "/dataset")))
            json_array_append_new(required, json_string(name_of(f)));
    }
    section = json_pack("{s:s, s:o, s:o, s:b}", "type", "object", "properties", properties,
                        "required", required, "additionalProperties", 0);
    if (either_of)
        json_object_set_new(
            section, "not",
            json_pack("{s:[s, s]}", "required", name_of(either_of), either_of->instead_of));
    return section;
}

static json_t *no_settings(void) {
    return either(json_pack("{s:b}", "const", 1),
                  json_pack("{s:s, s:i}", "type", "object", "maxProperties", 0));
}

/* The choice as an object's one member, and what may stand beside it. */
static json_t *chosen(const struct field *f, const char *name, const struct field *below) {
    json_t *properties = json_object();
    json_object_set_new(properties, name, below ? schema_of(below) : no_settings());
    for (int i = 0; i < n_spec_fields; i++)
        if (is_below(&spec_fields[i], f->path) && spec_fields[i].beside &&
            strcmp(spec_fields[i].beside, name) == 0)
            put_property(properties, &spec_fields[i]);
    return json_pack("{s:s, s:o, s:[s], s:b}", "type", "object", "properties", properties,
                     "required", name, "additionalProperties", 0);
}

static json_t *variant_of(const struct field *f) {
    json_t *bare = json_array(), *any = json_array();
    const struct field *number = NULL;
    for (int i = 0; f->choices[i]; i++) {
        const struct field *below = find_below(f->path, f->choices[i]);
        if (!below || below->type == T_SECTION || below->type == T_SCALE || below->type == T_FLAG)
            json_array_append_new(bare, json_string(f->choices[i]));
        if (below && below->type == T_REAL && !number)
            number = below;
        json_array_append_new(any, chosen(f, f->choices[i], below));
    }
    if (number)
        json_array_append_new(any, schema_of(number));
    if (json_array_size(bare))
        json_array_append_new(any, json_pack("{s:O}", "enum", bare));
    json_decref(bare);
    return json_pack("{s:o}", "anyOf", any);
}

static json_t *choice_of(const struct field *f) {
    json_t *names = json_array();
    for (int i = 0; f->choices[i]; i++)
        json_array_append_new(names, json_string(f->choices[i]));
    return json_pack("{s:o}", "enum", names);
}

static json_t *steps_of(const struct field *f) {
    char path[64];
    snprintf(path, sizeof path, "%s/*", f->path);
    for (int i = 0; i < n_spec_fields; i++)
        if (strcmp(spec_fields[i].path, path) == 0)
            return array_of(schema_of(&spec_fields[i]), 0, (int)f->max);
    return NULL;
}

static json_t *plain_schema_of(const struct field *f) {
    switch (f->type) {
    case T_SECTION:
        return section_of(f->path);
    case T_VARIANT:
        return variant_of(f);
    case T_STEPS:
        return steps_of(f);
    case T_TEXT:
        return json_pack("{s:s, s:i, s:i}", "type", "string", "minLength", f->min > 0, "maxLength",
                         (int)f->max);
    case T_DATASET:
        return json_pack("{s:s, s:s}", "type", "string", "pattern",
                         "^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$");
    case T_SHA256:
        return json_pack("{s:s, s:s}", "type", "string", "pattern", "^[0-9a-f]{64}$");
    case T_ID:
        return json_pack("{s:s, s:s}", "type", "string", "pattern", "^[a-z0-9]{12}$");
    case T_CHOICE:
        return choice_of(f);
    case T_FLAG:
        return f->min > 0 ? json_pack("{s:b}", "const", 1) : json_pack("{s:s}", "type", "boolean");
    case T_AUTO:
        return either(json_pack("{s:s}", "const", "auto"), range_of(f, "integer"));
    case T_TAGS:
        return array_of(
            json_pack("{s:s, s:i, s:i}", "type", "string", "minLength", 1, "maxLength", TAG_MOST),
            0, (int)f->max);
    case T_HIDDEN:
        return array_of(range_of(f, "integer"), 1, LAYERS_MAX);
    case T_DROPOUT:
        return either(range_of(f, "number"), array_of(range_of(f, "number"), 1, LAYERS_MAX));
    case T_LAYERS:
        return array_of(range_of(f, "integer"), 1, LAYERS_MAX);
    case T_CLASSES:
        return array_of(range_of(f, "integer"), 1, CLASSES_MAX);
    case T_SCALE:
        return either(range_of(f, "number"), section_of(f->path));
    case T_REAL:
        return range_of(f, "number");
    default:
        return range_of(f, "integer");
    }
}

/* The words whose bits are set. */
static json_t *words_of(const char *const *words, int bits) {
    json_t *list = json_array();
    for (int i = 0; words[i]; i++)
        if (bits & 1 << i)
            json_array_append_new(list, json_string(words[i]));
    return list;
}

/* Who uses the field, for forms and tables: {pointer: the values there with which it counts}, null
 * where nothing is there. NULL: everybody. What is refused or required is for the conditions. */
static json_t *when_of(const struct field *f) {
    json_t *when = json_object();
    if (f->kinds)
        json_object_set_new(when, "/model/kind", words_of(spec_kinds, f->kinds));
    if (f->activations)
        json_object_set_new(when, "/model/activation", words_of(spec_activations, f->activations));
    if (f->optimizers)
        json_object_set_new(when, "/optimizer/name", words_of(spec_optimizers, f->optimizers));
    if (f->data == STORED)
        json_object_set_new(when, "/dataset/generator", json_pack("[n]"));
    else if (f->data == GENERATED)
        json_object_set_new(when, "/dataset/generator", json_pack("[s]", "sphere"));
    if (json_object_size(when) > 0)
        return when;
    json_decref(when);
    return NULL;
}

static json_t *schema_of(const struct field *f) {
    json_t *schema = plain_schema_of(f), *when = when_of(f);
    if (f->flags & NULLABLE)
        schema = either(schema, json_pack("{s:s}", "type", "null"));
    if (when)
        json_object_set_new(schema, "x-when", when);
    if (f->help)
        json_object_set_new(schema, "description", json_string(f->help));
    if (f->standard && !f->standard_other)
        json_object_set_new(schema, "default", json_loads(f->standard, JSON_DECODE_ANY, NULL));
    return schema;
}

/* {"properties": {a: {"properties": {b: inner}}}} for "/a/b"; inner is taken over. */
static json_t *at_path(const char *path, json_t *inner) {
    for (const char *end = path + strlen(path); end > path;) {
        const char *slash = end;
        while (*--slash != '/')
            ;
        json_t *properties = json_object();
        json_object_setn_new(properties, slash + 1, (size_t)(end - slash - 1), inner);
        inner = json_pack("{s:o, s:b}", "properties", properties, "additionalProperties", 1);
        end = slash;
    }
    return inner;
}

static int is_used_elsewhere(const struct field *f, int kind, int data, int activation) {
    for (int i = 0; i < n_spec_fields; i++) {
        const struct field *g = &spec_fields[i];
        if (strcmp(g->path, f->path) == 0 && (!g->kinds || g->kinds & kind) &&
            (!g->data || g->data & data) && (!g->activations || g->activations & activation))
            return 1;
    }
    return 0;
}

/* What must be there and what must not, for those of `kind` (or `data` or `activation`; all bits:
 * not asked). */
static json_t *rules(int kind, int data, int activation) {
    json_t *all = json_array();
    for (int i = 0; i < n_spec_fields; i++) {
        const struct field *f = &spec_fields[i];
        char section[64];
        int n = (int)(strrchr(f->path, '/') - f->path);
        int told = (kind != ~0 && f->kinds) || (data != ~0 && f->data) ||
                   (activation != ~0 && f->activations);
        if (!told || strncmp(f->path, "/preprocess", 11) == 0 ||
            strncmp(f->path, "/dataset/version/", 17) == 0)
            continue;
        snprintf(section, sizeof section, "%.*s", n, f->path);
        if (!is_used_elsewhere(f, kind, data, activation)) {
            if (!(f->flags & LIBERAL))
                json_array_append_new(all, at_path(f->path, json_false()));
        } else if (f->flags & REQUIRED && (!f->activations || activation != ~0)) {
            json_array_append_new(all,
                                  at_path(section, json_pack("{s:[s]}", "required", name_of(f))));
        }
    }
    return json_pack("{s:o}", "allOf", all);
}

static json_t *is(const char *path, const char *section, const char *name, const char *word) {
    json_t *schema = at_path(path, json_pack("{s:s}", "const", word));
    json_t *asked = at_path(section, json_pack("{s:[s]}", "required", name));
    return json_pack("{s:[o, o]}", "allOf", schema, asked);
}

json_t *spec_schema(void) {
    json_t *schema = section_of(""), *conditions = json_array();
    for (int i = 0; spec_kinds[i]; i++)
        json_array_append_new(conditions,
                              json_pack("{s:o, s:o}", "if",
                                        is("/model/kind", "/model", "kind", spec_kinds[i]), "then",
                                        rules(1 << i, ~0, ~0)));
    for (int i = 0; spec_activations[i]; i++)
        json_array_append_new(conditions, json_pack("{s:o, s:o}", "if",
                                                    is("/model/activation", "/model", "activation",
                                                       spec_activations[i]),
                                                    "then", rules(~0, ~0, 1 << i)));
    json_array_append_new(
        conditions, json_pack("{s:o, s:o, s:o}", "if",
                              at_path("/dataset", json_pack("{s:[s]}", "required", "generator")),
                              "then", rules(~0, GENERATED, ~0), "else", rules(~0, STORED, ~0)));
    json_t *head =
        json_pack("{s:s, s:s, s:s}", "$schema", "https://json-schema.org/draft/2020-12/schema",
                  "$id", "/v1/schema", "title", "Experiment spec");
    int failed = !head || !schema || !conditions || json_object_update(head, schema) ||
                 json_object_set(head, "allOf", conditions);
    json_decref(schema);
    json_decref(conditions);
    if (!failed)
        return head;
    json_decref(head);
    return NULL;
}
