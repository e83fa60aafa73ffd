#include "server/spec.h"

#include "core/utf8.h"
#include "server/spec_fields.h"

#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What the document says about who uses which field; all bits where it says nothing sensible. */
struct reading {
    json_t *faults;
    int kind, data, optimizer, activation; /* bits */
    int out_of_memory;
};

/* Where a value belongs: the table's path (with * for an index), the document's pointer, the
 * struct. */
struct place {
    const char *path, *pointer;
    char *base;
};

enum { POINTER_SIZE = 256 };

void spec_fault(json_t *faults, const char *pointer, const char *format, ...) {
    char detail[512];
    va_list args;
    va_start(args, format);
    vsnprintf(detail, sizeof detail, format, args);
    va_end(args);
    utf8_mend(detail);
    if (json_array_append_new(faults,
                              json_pack("{s:s, s:s}", "pointer", pointer, "detail", detail)))
        json_array_append_new(faults, json_null()); /* takes no memory in an array so short */
}

static const char *type_name(const json_t *value) {
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
    case JSON_REAL:
        return "a number";
    case JSON_NULL:
        return "null";
    default:
        return "true or false";
    }
}

/* A scalar as the sender wrote it, shortened. */
static void quote(const json_t *value, char text[64]) {
    if (json_is_string(value)) {
        snprintf(text, 60, "\"%s\"", json_string_value(value)); /* spec_fault() mends it */
    } else if (json_is_integer(value)) {
        snprintf(text, 64, "%lld", (long long)json_integer_value(value));
    } else if (json_is_real(value)) {
        snprintf(text, 64, "%.12g", json_real_value(value));
    } else {
        snprintf(text, 64, "%s", type_name(value));
    }
}

static const struct field *find_field(const char *parent, const char *name) {
    size_t n = strlen(parent);
    for (int i = 0; i < n_spec_fields; i++)
        if (strncmp(spec_fields[i].path, parent, n) == 0 && spec_fields[i].path[n] == '/' &&
            strcmp(spec_fields[i].path + n + 1, name) == 0)
            return &spec_fields[i];
    return NULL;
}

static int is_used(const struct reading *r, const struct field *f);

/* The row of a path that is used here: some have one for each kind of model. Else any. */
static const struct field *find_used(const struct reading *r, const char *parent,
                                     const char *name) {
    const struct field *first = find_field(parent, name);
    if (!first || is_used(r, first))
        return first;
    for (int i = 0; i < n_spec_fields; i++)
        if (strcmp(spec_fields[i].path, first->path) == 0 && is_used(r, &spec_fields[i]))
            return &spec_fields[i];
    return first;
}

static int is_child(const struct field *field, const char *parent) {
    size_t n = strlen(parent);
    return strncmp(field->path, parent, n) == 0 && field->path[n] == '/' &&
           !strchr(field->path + n + 1, '/') && field->path[n + 1] != '*';
}

static const char *last_name(const struct field *field) {
    return strrchr(field->path, '/') + 1;
}

/* RFC 6901: "~" is ~0, "/" is ~1. */
static void extend_pointer(char out[POINTER_SIZE], const char *pointer, const char *name) {
    size_t n = (size_t)snprintf(out, POINTER_SIZE, "%.180s/", pointer);
    for (; *name && n + 3 < POINTER_SIZE; name++) {
        if (*name == '~' || *name == '/') {
            out[n++] = '~';
            out[n++] = *name == '~' ? '0' : '1';
        } else {
            out[n++] = *name;
        }
    }
    out[n] = '\0';
    utf8_mend(out);
}

static void fault_range(struct reading *r, const struct field *f, const char *pointer,
                        const json_t *value) {
    char got[64];
    quote(value, got);
    const char *whole = f->type == T_REAL || f->type == T_SCALE ? "a number " : "an integer ";
    if (f->flags & ABOVE)
        spec_fault(r->faults, pointer, "must be %sabove %g and at most %g, got %s", whole, f->min,
                   f->max, got);
    else
        spec_fault(r->faults, pointer, "must be %s%.16g..%.16g, got %s", whole, f->min, f->max,
                   got);
}

static void list_choices(const char *const *choices, char text[160]) {
    size_t n = 0;
    text[0] = '\0';
    for (int i = 0; choices[i]; i++)
        n += (size_t)snprintf(text + n, 160 - n, "%s\"%s\"", i ? ", " : "", choices[i]);
}

static int find_choice(const char *const *choices, const char *name) {
    for (int i = 0; choices[i]; i++)
        if (strcmp(choices[i], name) == 0)
            return i;
    return -1;
}

/* Passes a new value on and keeps in mind that there was no memory for it. */
static json_t *made(struct reading *r, json_t *value) {
    r->out_of_memory |= !value;
    return value;
}

/* Each reader returns the value as it is to be stored (a new reference), or NULL after a fault
 * or without memory. */
static json_t *read_value(struct reading *r, const struct field *f, json_t *value,
                          const struct place *at);
static json_t *read_section(struct reading *r, json_t *object, const struct place *at);

static json_t *read_number(struct reading *r, const struct field *f, json_t *value,
                           const struct place *at) {
    int whole = f->type != T_REAL && f->type != T_SCALE;
    double number = json_number_value(value);
    if (!json_is_number(value) || (whole && number != floor(number)) || number > f->max ||
        number < f->min || (f->flags & ABOVE && number <= f->min)) {
        fault_range(r, f, at->pointer, value);
        return NULL;
    }
    void *to = at->base + f->offset;
    if (f->flags & NOWHERE)
        return json_incref(value);
    if (!whole)
        *(double *)to = number;
    else if (f->type == T_COUNT)
        *(int64_t *)to = (int64_t)number;
    else
        *(int *)to = (int)number;
    return whole && json_is_real(value) ? made(r, json_integer((json_int_t)number))
                                        : json_incref(value);
}

static json_t *read_choice(struct reading *r, const struct field *f, json_t *value,
                           const struct place *at) {
    int found = json_is_string(value) ? find_choice(f->choices, json_string_value(value)) : -1;
    if (found < 0) {
        char got[64], known[160];
        quote(value, got);
        list_choices(f->choices, known);
        spec_fault(r->faults, at->pointer, "must be one of %s, got %s", known, got);
        return NULL;
    }
    if (!(f->flags & NOWHERE))
        *(int *)(void *)(at->base + f->offset) = found;
    return json_incref(value);
}

/* `inner` is what stands beside the chosen name, NULL for a bare name; `bare`: it stands alone. */
static json_t *read_chosen(struct reading *r, const struct field *f, int chosen, json_t *inner,
                           int bare, const struct place *at) {
    const char *name = f->choices[chosen];
    const struct field *below = find_field(f->path, name);
    char pointer[POINTER_SIZE];
    extend_pointer(pointer, at->pointer, name);
    *(int *)(void *)(at->base + f->offset) = chosen;
    if (!below) {
        if (!inner || json_is_true(inner) || (json_is_object(inner) && !json_object_size(inner)))
            return made(r, json_string(name));
        spec_fault(r->faults, pointer, "takes no settings; write \"%s\" alone", name);
        return NULL;
    }
    json_t *implied = NULL;
    if (!inner && (below->type == T_SECTION || below->type == T_SCALE))
        inner = implied = made(r, json_object());
    if (!inner && below->type == T_FLAG)
        inner = implied = json_true();
    if (!inner) {
        spec_fault(r->faults, at->pointer, "\"%s\" needs a value; write {\"%s\": …}", name, name);
        return NULL;
    }
    struct place deeper = {below->path, bare ? at->pointer : pointer, at->base};
    json_t *read = read_value(r, below, inner, &deeper);
    json_decref(implied);
    return read ? made(r, json_pack("{s:o}", name, read)) : NULL;
}

/* The first choice that is one number. */
static const char *number_choice(const struct field *f) {
    for (int i = 0; f->choices[i]; i++) {
        const struct field *below = find_field(f->path, f->choices[i]);
        if (below && below->type == T_REAL)
            return f->choices[i];
    }
    return NULL;
}

/* Whether a member stands in a variant's object beside the one that is chosen. */
static int is_beside(const struct field *f, const char *name, const char *chosen) {
    const struct field *member = strchr(name, '/') ? NULL : find_field(f->path, name);
    return member && member->beside && (!chosen || strcmp(member->beside, chosen) == 0);
}

/* The chosen member of a variant's object, or NULL: all others stand beside it. */
static const char *chosen_member(const struct field *f, json_t *object) {
    const char *name, *chosen = NULL;
    json_t *value;
    json_object_foreach(object, name, value) if (!is_beside(f, name, NULL)) chosen =
        chosen ? "" : name;
    json_object_foreach(object, name, value) if (chosen && name != chosen &&
                                                 !is_beside(f, name, chosen)) return NULL;
    return chosen;
}

static void read_member(struct reading *r, const struct field *f, json_t *object, json_t *done,
                        const struct place *at);

/* What stands beside the chosen member, with its defaults, into `read`. */
static void read_beside(struct reading *r, const struct field *f, const char *chosen, json_t *value,
                        json_t *read, const struct place *at) {
    for (int i = 0; i < n_spec_fields; i++)
        if (is_child(&spec_fields[i], f->path) && spec_fields[i].beside &&
            strcmp(spec_fields[i].beside, chosen) == 0)
            read_member(r, &spec_fields[i], value, read, at);
}

static json_t *read_variant(struct reading *r, const struct field *f, json_t *value,
                            const struct place *at) {
    const char *name = json_is_number(value) ? number_choice(f) : json_string_value(value);
    json_t *inner = json_is_number(value) ? value : NULL;
    if (json_is_object(value) && (name = chosen_member(f, value)))
        inner = json_object_get(value, name);
    int chosen = name ? find_choice(f->choices, name) : -1;
    if (chosen >= 0) {
        json_t *read = read_chosen(r, f, chosen, inner, json_is_number(value), at);
        if (json_is_object(read))
            read_beside(r, f, name, value, read, at);
        return read;
    }
    char known[160];
    list_choices(f->choices, known);
    spec_fault(r->faults, at->pointer,
               "must name one of %s, as a string or as an object with that one member", known);
    return NULL;
}

/* What a step's fields can't say one by one. */
static void check_step(struct reading *r, const struct preprocess_step *step, size_t index,
                       const json_t *item, const char *pointer) {
    char inner[POINTER_SIZE];
    const json_t *pca = json_object_get(item, "pca");
    if (step->kind == PREPROCESS_PCA && !json_object_get(pca, "components") &&
        !json_object_get(pca, "variance"))
        spec_fault(r->faults, pointer, "pca needs components or variance");
    extend_pointer(inner, pointer, "scale");
    if (step->kind == PREPROCESS_SCALE && step->factor == 0 && !(step->min < step->max))
        spec_fault(r->faults, inner, "min must be below max, got %g and %g", step->min, step->max);
    extend_pointer(inner, pointer, "experiment");
    if (step->kind == PREPROCESS_FITTED && index > 0)
        spec_fault(r->faults, inner, "must be the first step");
}

static json_t *read_steps(struct reading *r, const struct field *f, json_t *value,
                          const struct place *at) {
    struct spec *spec = (struct spec *)(void *)at->base;
    char path[64], pointer[POINTER_SIZE], index[24];
    if (!json_is_array(value) || json_array_size(value) > (size_t)f->max) {
        spec_fault(r->faults, at->pointer, "must be an array of at most %g steps", f->max);
        return NULL;
    }
    snprintf(path, sizeof path, "%s/*", f->path);
    json_t *list = made(r, json_array());
    for (size_t i = 0; i < json_array_size(value); i++) {
        snprintf(index, sizeof index, "%zu", i);
        extend_pointer(pointer, at->pointer, index);
        struct place deeper = {path, pointer, (char *)&spec->train.data.preprocess[i]};
        json_t *item = json_array_get(value, i);
        size_t faults = json_array_size(r->faults);
        json_t *step = read_variant(r, find_field(f->path, "*"), item, &deeper);
        if (step && json_array_append_new(list, step))
            r->out_of_memory = 1;
        if (step && json_array_size(r->faults) == faults)
            check_step(r, &spec->train.data.preprocess[i], i, item, pointer);
    }
    spec->train.data.n_preprocess = json_array_size(value);
    return list;
}

int spec_dataset_name_is_valid(const char *name) {
    size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");
    return n > 0 && n < sizeof((struct spec *)0)->dataset && name[n] == '\0' && name[0] != '.';
}

/* What a text of a fixed form has to be; NULL when it is. */
static const char *fault_of_form(enum type type, const char *text) {
    size_t n = strlen(text);
    if (type == T_SHA256)
        return n == 64 && strspn(text, "0123456789abcdef") == 64
                   ? NULL
                   : "must be a SHA-256 in 64 lower-case hex digits";
    if (type == T_DATASET)
        return spec_dataset_name_is_valid(text)
                   ? NULL
                   : "must be a data set's name: 1..64 letters, digits, dots, dashes or "
                     "underscores, no dot first";
    return n == 12 && strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789") == 12
               ? NULL
               : "must be the id of an experiment";
}

static void check_text(struct reading *r, const struct field *f, json_t *value,
                       const struct place *at) {
    const char *text = json_string_value(value), *fault;
    char got[32];
    if (f->type != T_TEXT) {
        if ((fault = fault_of_form(f->type, text ? text : "")))
            spec_fault(r->faults, at->pointer, "%s", fault);
        return;
    }
    size_t n = text ? utf8_count(text) : 0;
    int whole = text && strlen(text) == json_string_length(value);
    if (whole && (double)n >= f->min && (double)n <= f->max)
        return;
    if (text)
        snprintf(got, sizeof got, "%zu characters", n);
    else
        snprintf(got, sizeof got, "%s", type_name(value));
    spec_fault(r->faults, at->pointer, "must be a string of %g..%g characters without NUL, got %s",
               f->min, f->max, got);
}

static json_t *read_text(struct reading *r, const struct field *f, json_t *value,
                         const struct place *at) {
    size_t before = json_array_size(r->faults);
    const char *text = json_string_value(value);
    check_text(r, f, value, at);
    if (json_array_size(r->faults) != before)
        return NULL;
    if (!(f->flags & NOWHERE))
        memcpy(at->base + f->offset, text, strlen(text) + 1);
    return json_incref(value);
}

static json_t *read_tags(struct reading *r, const struct field *f, json_t *value,
                         const struct place *at) {
    char *out = at->base + f->offset;
    size_t i, n = 0, bad = !json_is_array(value) || json_array_size(value) > (size_t)f->max;
    json_t *tag;
    *out = '\0';
    json_array_foreach(value, i, tag) {
        const char *text = json_string_value(tag);
        bad |= bad || !text || !*text || utf8_count(text) > TAG_MOST ||
               strlen(text) != json_string_length(tag) || strchr(text, '\n');
        if (!bad)
            n += (size_t)sprintf(out + n, "%s%s\n", n ? "" : "\n", text);
    }
    if (!bad)
        return json_incref(value);
    spec_fault(r->faults, at->pointer, "must be an array of at most %g strings of 1..64 characters",
               f->max);
    return NULL;
}

/* The items of an array of `least` to `most` numbers, each read as `type` into items[i]. Returns
 * the list as it is to be stored. */
static json_t *read_list(struct reading *r, const struct field *f, json_t *value,
                         const struct place *at, enum type type, size_t least, size_t most,
                         const char *explanation, double items[]) {
    if (!json_is_array(value) || json_array_size(value) < least || json_array_size(value) > most) {
        char count[48];
        snprintf(count, sizeof count, least == most ? "%zu" : "%zu..%zu", least, most);
        spec_fault(r->faults, at->pointer, "must be an array of %s number%s, %s", count,
                   most == 1 ? "" : "s", explanation);
        return NULL;
    }
    json_t *list = made(r, json_array());
    for (size_t i = 0; list && i < json_array_size(value); i++) {
        union {
            double real;
            int64_t whole;
        } item = {0};
        const struct field one = {.type = type, .min = f->min, .max = f->max};
        char pointer[POINTER_SIZE], index[24];
        snprintf(index, sizeof index, "%zu", i);
        extend_pointer(pointer, at->pointer, index);
        struct place deeper = {f->path, pointer, (char *)&item};
        json_t *read = read_number(r, &one, json_array_get(value, i), &deeper);
        items[i] = type == T_REAL ? item.real : (double)item.whole;
        if (read && json_array_append_new(list, read))
            r->out_of_memory = 1;
    }
    return list;
}

static json_t *read_hidden(struct reading *r, const struct field *f, json_t *value,
                           const struct place *at) {
    struct train_config *train = &((struct spec *)(void *)at->base)->train;
    double sizes[LAYERS_MAX];
    size_t most = r->kind & (ENCODER | MLP) ? LAYERS_MAX : 1;
    json_t *list = read_list(r, f, value, at, T_COUNT, 1, most,
                             most > 1 ? "such as [1000, 500]" : "such as [1000]", sizes);
    for (size_t i = 0; i < json_array_size(list); i++)
        train->hidden[i] = (size_t)sizes[i];
    train->n_hidden = json_array_size(list);
    return list;
}

/* One share for all layers, or one for each. */
static json_t *read_dropout(struct reading *r, const struct field *f, json_t *value,
                            const struct place *at) {
    struct train_config *train = &((struct spec *)(void *)at->base)->train;
    if (!train->n_hidden)
        return json_incref(value); /* the fault is theirs */
    if (json_is_number(value)) {
        struct field one = *f;
        double share = 0;
        struct place here = {f->path, at->pointer, (char *)&share};
        one.type = T_REAL;
        one.offset = 0;
        json_t *read = read_number(r, &one, value, &here);
        for (size_t i = 0; read && i < train->n_hidden; i++)
            train->dropout[i] = share;
        return read;
    }
    return read_list(r, f, value, at, T_REAL, train->n_hidden, train->n_hidden,
                     "one for each hidden layer", train->dropout);
}

static json_t *read_layers(struct reading *r, const struct field *f, json_t *value,
                           const struct place *at) {
    struct train_config *train = &((struct spec *)(void *)at->base)->train;
    double layers[LAYERS_MAX];
    if (!train->n_hidden)
        return json_incref(value); /* the fault is theirs */
    json_t *list = read_list(r, f, value, at, T_COUNT, 1, LAYERS_MAX, "such as [0]", layers);
    for (size_t i = 0; i < json_array_size(list); i++) {
        if (layers[i] >= (double)train->n_hidden)
            spec_fault(r->faults, at->pointer, "there is no hidden layer %g; the last one is %zu",
                       layers[i], train->n_hidden - 1);
        train->ovr_layers |= 1u << (unsigned)layers[i];
    }
    return list;
}

static json_t *read_classes(struct reading *r, const struct field *f, json_t *value,
                            const struct place *at) {
    struct class_list *classes = (struct class_list *)(void *)(at->base + f->offset);
    double *items = calloc(CLASSES_MAX, sizeof *items);
    r->out_of_memory |= !items;
    json_t *list =
        items ? read_list(r, f, value, at, T_COUNT, 1, CLASSES_MAX, "such as [0, 1]", items) : NULL;
    for (size_t i = 0; i < json_array_size(list); i++)
        classes->list[i] = (uint16_t)items[i];
    classes->n = json_array_size(list);
    free(items);
    return list;
}

static json_t *read_flag(struct reading *r, const struct field *f, json_t *value,
                         const struct place *at) {
    int wrong = !json_is_boolean(value) || (f->min > 0 && !json_is_true(value));
    if (wrong) {
        spec_fault(r->faults, at->pointer, "must be %s, got %s",
                   f->min > 0 ? "true" : "true or false",
                   json_is_false(value) ? "false" : type_name(value));
        return NULL;
    }
    if (!(f->flags & NOWHERE))
        *(int *)(void *)(at->base + f->offset) = json_is_true(value);
    return json_incref(value);
}

static json_t *read_auto(struct reading *r, const struct field *f, json_t *value,
                         const struct place *at) {
    if (json_is_string(value) && strcmp(json_string_value(value), "auto") == 0)
        return json_incref(value); /* the struct starts as 0 */
    if (json_is_string(value)) {
        char got[64];
        quote(value, got);
        spec_fault(r->faults, at->pointer, "must be \"auto\" or an integer %g..%g, got %s", f->min,
                   f->max, got);
        return NULL;
    }
    return read_number(r, f, value, at);
}

static json_t *read_value(struct reading *r, const struct field *f, json_t *value,
                          const struct place *at) {
    if (json_is_null(value) && f->flags & NULLABLE)
        return json_incref(value);
    switch (f->type) {
    case T_SECTION:
        if (!json_is_object(value)) {
            spec_fault(r->faults, at->pointer, "must be an object%s, got %s",
                       f->flags & NULLABLE ? " or null" : "", type_name(value));
            return NULL;
        }
        if (!(f->flags & NOWHERE))
            *(int *)(void *)(at->base + f->offset) = 1;
        return read_section(r, value, at);
    case T_VARIANT:
        return read_variant(r, f, value, at);
    case T_STEPS:
        return read_steps(r, f, value, at);
    case T_TEXT:
    case T_DATASET:
    case T_ID:
    case T_SHA256:
        return read_text(r, f, value, at);
    case T_CHOICE:
        return read_choice(r, f, value, at);
    case T_FLAG:
        return read_flag(r, f, value, at);
    case T_AUTO:
        return read_auto(r, f, value, at);
    case T_TAGS:
        return read_tags(r, f, value, at);
    case T_HIDDEN:
        return read_hidden(r, f, value, at);
    case T_DROPOUT:
        return read_dropout(r, f, value, at);
    case T_LAYERS:
        return read_layers(r, f, value, at);
    case T_CLASSES:
        return read_classes(r, f, value, at);
    case T_SCALE:
        if (json_is_object(value))
            return read_section(r, value, at);
        /* fall through */
    default:
        return read_number(r, f, value, at);
    }
}

static int is_used(const struct reading *r, const struct field *f) {
    return (!f->kinds || f->kinds & r->kind) && (!f->data || f->data & r->data) &&
           (!f->optimizers || f->optimizers & r->optimizer) &&
           (!f->activations || f->activations & r->activation);
}

static void fault_unknown(struct reading *r, const char *path, const char *pointer) {
    char known[300];
    size_t n = 0;
    known[0] = '\0';
    for (int i = 0; i < n_spec_fields; i++)
        if (is_child(&spec_fields[i], path) && is_used(r, &spec_fields[i]) && n < sizeof known)
            n += (size_t)snprintf(known + n, sizeof known - n, "%s%s", n ? ", " : "",
                                  last_name(&spec_fields[i]));
    spec_fault(r->faults, pointer, "is not a member of this section; it knows %s", known);
}

/* Numbers and flags that are dropped must be right too. */
static void check_dropped(struct reading *r, const struct field *f, json_t *value,
                          const struct place *at) {
    struct field nowhere = *f;
    nowhere.flags |= NOWHERE;
    if (f->type >= T_FLAG && f->type <= T_REAL)
        json_decref(read_value(r, &nowhere, value, at));
}

/* Members that do not belong here. */
static void check_members(struct reading *r, json_t *object, const struct place *at) {
    const char *name;
    json_t *value;
    json_object_foreach(object, name, value) {
        char pointer[POINTER_SIZE];
        const struct field *f =
            strchr(name, '/') || *name == '*' ? NULL : find_used(r, at->path, name);
        extend_pointer(pointer, at->pointer, name);
        if (!f)
            fault_unknown(r, at->path, pointer);
        else if (!is_used(r, f) && f->flags & LIBERAL)
            check_dropped(r, f, value, &(struct place){f->path, pointer, at->base});
        else if (!is_used(r, f))
            spec_fault(r->faults, pointer, "%s; remove it",
                       f->activations && !(f->activations & r->activation)
                           ? "belongs to another activation"
                       : f->data ? (f->data == STORED
                                        ? "goes with a stored data set, not a generated one"
                                        : "goes with a generated data set, not a stored one")
                                 : "this kind of model does not use it");
    }
}

/* The default of a field, a new reference, or NULL. */
static json_t *default_of(struct reading *r, const struct field *f, const json_t *object) {
    const char *text = f->others & r->kind && r->kind != ~0 ? f->standard_other : f->standard;
    if (!text || (f->instead_of && json_object_get(object, f->instead_of)))
        return NULL;
    if (*text == '"') /* jansson's parser may cut a long string short when memory fails */
        return made(r, json_stringn(text + 1, strlen(text) - 2));
    return made(r, json_loads(text, JSON_DECODE_ANY, NULL));
}

static void read_member(struct reading *r, const struct field *f, json_t *object, json_t *done,
                        const struct place *at) {
    const char *name = last_name(f);
    char pointer[POINTER_SIZE];
    extend_pointer(pointer, at->pointer, name);
    json_t *value = json_incref(json_object_get(object, name));
    if (value && f->instead_of && json_object_get(object, f->instead_of))
        spec_fault(r->faults, pointer, "give either %s or %s, not both", name, f->instead_of);
    if (!value)
        value = default_of(r, f, object);
    if (!value) {
        int settled = !f->activations || r->activation != ~0; /* else that is the fault */
        if (f->flags & REQUIRED && settled)
            spec_fault(r->faults, pointer, "is required%s%s", f->help ? ": " : "",
                       f->help ? f->help : "");
        return;
    }
    struct place deeper = {f->path, pointer, at->base};
    json_t *read = read_value(r, f, value, &deeper);
    if (read && json_object_set_new(done, name, read))
        r->out_of_memory = 1;
    json_decref(value);
}

static json_t *read_section(struct reading *r, json_t *object, const struct place *at) {
    json_t *done = made(r, json_object()); /* in the table's order */
    check_members(r, object, at);
    for (int i = 0; done && i < n_spec_fields; i++)
        if (is_child(&spec_fields[i], at->path) && is_used(r, &spec_fields[i]))
            read_member(r, &spec_fields[i], object, done, at);
    return done;
}

/* A member that only one activation has implies that one. */
static void imply_activation(struct reading *r, json_t *model) {
    const char *implied = json_object_get(model, "top_k")       ? "top_k"
                          : json_object_get(model, "threshold") ? "thresholded"
                          : json_object_get(model, "slope")     ? "leaky_relu"
                                                                : NULL;
    if (implied && json_is_object(model) && !json_object_get(model, "activation") &&
        json_object_set_new(model, "activation", json_string(implied)))
        r->out_of_memory = 1;
}

/* Bit of the choice that stands at object/name; `otherwise` where nothing stands there, all bits
 * for nonsense. */
static int peek(const json_t *object, const char *name, const char *const *choices, int otherwise) {
    const json_t *value = json_object_get(object, name);
    if (!value)
        return otherwise;
    int found = json_is_string(value) ? find_choice(choices, json_string_value(value)) : -1;
    return found < 0 ? ~0 : 1 << found;
}

/* The cosine runs over the epochs after its warm-up, from the optimiser's rate down. */
static void settle_schedule(struct reading *r, struct train_config *train) {
    struct schedule_config *schedule = &train->schedule;
    if (schedule->name != SCHEDULE_COSINE)
        return;
    schedule->epochs = train->epochs;
    if (train->epochs && schedule->warmup >= train->epochs)
        spec_fault(r->faults, "/training/schedule/cosine/warmup",
                   "must be less than the %d epochs of /training/epochs, got %d", train->epochs,
                   schedule->warmup);
    if (train->optimizer.learning_rate > 0 && schedule->min > train->optimizer.learning_rate)
        spec_fault(r->faults, "/training/schedule/cosine/min",
                   "must not be above the %g of /optimizer/learning_rate, got %g",
                   train->optimizer.learning_rate, schedule->min);
}

/* What the table can't say of a model. */
static void settle_model(struct reading *r, struct spec *spec) {
    struct train_config *train = &spec->train;
    train->f.slope = (real)spec->slope;
    train->f.threshold = (real)spec->threshold;
    if ((int)train->init == FROM_EXPERIMENT) { /* what does not fit starts as it would without */
        train->init = r->kind & (MLP | AUTOENCODER) ? INIT_GLOROT : INIT_NORMAL;
        train->init_scale = 0.05;
    }
    if (train->kind == MODEL_KMEANS || train->kind == MODEL_ONLINE_KMEANS) {
        train->f.kind = spec->hard_code ? ACT_HARD : ACT_TRIANGLE;
        train->init = spec->seeding == 1 ? INIT_KMEANS_PLUS_PLUS : INIT_SAMPLES;
    }
    if (r->kind == PCA || train->kind == MODEL_IDENTITY)
        train->f.kind = ACT_LINEAR;
    if (train->n_hidden && train->freeze > train->n_hidden)
        spec_fault(r->faults, "/model/freeze", "must be at most %zu, the number of hidden layers",
                   train->n_hidden);
    else if (train->n_hidden && r->kind == ENCODER && train->freeze == train->n_hidden)
        spec_fault(r->faults, "/model/freeze",
                   "leaves no layer to train; the last one is layer %zu", train->n_hidden - 1);
    if (train->kl != 0 && r->activation != ~0 && train->f.kind != ACT_SIGMOID)
        spec_fault(r->faults, "/loss/kl",
                   "takes activations between 0 and 1: set "
                   "/model/activation to \"sigmoid\"");
    if (!train->batch_size)
        train->batch_size = 128; /* of the mini-batches that OVR would be evaluated on */
}

/* What the table can't say, and what follows from other fields. */
static void settle(struct reading *r, struct spec *spec, json_t *document) {
    struct train_config *train = &spec->train;
    settle_model(r, spec);
    json_t *ovr = json_object_get(json_object_get(document, "loss"), "ovr");
    train->ovr.per_pair = json_object_get(ovr, "lambda_per_pair") != NULL;
    train->probe_config.optimizer.name = OPT_ADAM;
    train->probe_config.optimizer.beta1 = 0.9;
    train->probe_config.optimizer.beta2 = 0.999;
    train->probe_config.optimizer.epsilon = 1e-7;
    train->probe_config.schedule = (struct schedule_config){SCHEDULE_PLATEAU, 0.1, 1e-6, 1e-4, 5};
    settle_schedule(r, train);
    spec->generated = r->data == GENERATED;
    if (spec->generated && !spec->sphere.test_samples) {
        spec->sphere.test_samples = spec->sphere.samples < 5 ? 1 : spec->sphere.samples / 5;
        json_t *n = json_integer((json_int_t)spec->sphere.test_samples);
        if (json_object_set_new(json_object_get(document, "dataset"), "test_samples", n))
            r->out_of_memory = 1;
    }
}

int spec_read(json_t *document, struct spec *spec, json_t *faults, struct ovr_err *err) {
    *spec = (struct spec){0};
    if (!json_is_object(document)) {
        spec_fault(faults, "", "a spec is an object, got %s", type_name(document));
        return ovr_fail(err, OVR_INVALID, "", "the spec is not an object");
    }
    const json_t *dataset = json_object_get(document, "dataset");
    struct reading reading = {
        .faults = faults,
        .kind = peek(json_object_get(document, "model"), "kind", spec_kinds, ~0),
        .optimizer = peek(json_object_get(document, "optimizer"), "name", spec_optimizers, ADAM),
        .data = json_object_get(dataset, "generator") ? GENERATED : STORED,
    };
    imply_activation(&reading, json_object_get(document, "model"));
    reading.activation =
        peek(json_object_get(document, "model"), "activation", spec_activations, 1 << ACT_RELU);
    struct place root = {"", "", (char *)spec};
    json_t *done = read_section(&reading, document, &root);
    if (done) {
        json_object_clear(document);
        if (json_object_update(document, done))
            reading.out_of_memory = 1;
        settle(&reading, spec, document);
    }
    json_decref(done);
    for (size_t i = 0; i < json_array_size(faults); i++)
        if (json_is_null(json_array_get(faults, i)))
            reading.out_of_memory = 1;
    if (reading.out_of_memory)
        return ovr_nomem(err, "the spec");
    if (json_array_size(faults))
        return ovr_fail(err, OVR_INVALID, "", "the spec has %zu faults", json_array_size(faults));
    return 0;
}

static int names_itself(const json_t *section) {
    return json_object_get(section, "kind") || json_object_get(section, "name") ||
           json_object_get(section, "generator");
}

static int patch_section(json_t *object, const json_t *patch, const char *path) {
    const char *name;
    json_t *value;
    int failed = 0;
    json_object_foreach((json_t *)(uintptr_t)patch, name, value) {
        const struct field *f = strchr(name, '/') || *name == '*' ? NULL : find_field(path, name);
        json_t *old = json_object_get(object, name);
        if (f && f->instead_of && !json_object_get(patch, f->instead_of))
            json_object_del(object, f->instead_of);
        if (json_is_null(value) && !(f && f->flags & NULLABLE))
            json_object_del(object, name);
        else if (f && f->type == T_SECTION && json_is_object(value) && json_is_object(old) &&
                 !names_itself(value))
            failed |= patch_section(old, value, f->path);
        else
            failed |= json_object_set_new(object, name, json_deep_copy(value));
    }
    return failed;
}

int spec_patch(json_t *document, const json_t *patch, struct ovr_err *err) {
    return patch_section(document, patch, "") ? ovr_nomem(err, "the spec") : 0;
}

int spec_read_stored(const char *text, struct spec *spec, struct ovr_err *err) {
    json_error_t why;
    json_t *document = json_loads(text, JSON_REJECT_DUPLICATES, &why), *faults = json_array();
    enum json_error_code code = document ? json_error_unknown : json_error_code(&why);
    int rc;
    if (code != json_error_unknown && code != json_error_out_of_memory)
        rc = ovr_fail(err, OVR_INVALID, "", "the stored spec is not JSON: %s, line %d, column %d",
                      why.text, why.line, why.column);
    else
        rc = document && faults ? spec_read(document, spec, faults, err)
                                : ovr_nomem(err, "a stored spec");
    if (document && rc == OVR_INVALID && err) {
        json_t *first = json_array_get(faults, 0);
        snprintf(err->text, sizeof err->text, "the stored spec is not valid: %s %s",
                 json_string_value(json_object_get(first, "pointer")),
                 json_string_value(json_object_get(first, "detail")));
    }
    json_decref(document);
    json_decref(faults);
    return rc;
}

int spec_pin_version(json_t *document, const struct spec *spec, struct ovr_err *err) {
    json_t *version =
        json_pack("{s:s, s:s}", "train", spec->train_sha256, "test", spec->test_sha256);
    if (json_object_set_new(json_object_get(document, "dataset"), "version", version))
        return ovr_nomem(err, "the spec");
    return 0;
}

int spec_has_faults(const json_t *faults) {
    return json_array_size(faults) > 0;
}
