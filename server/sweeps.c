#include "server/sweeps.h"

#include "core/rng.h"
#include "server/pointer.h"
#include "server/sweep_points.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_FACTORS = 20,
    MAX_FAULTS = 100, /* of one kind or another; those of the points come many at a time */
    MAX_WARNINGS = 20,
};

static const double MAX_SEED = 9007199254740991; /* as in the spec */

/* One thing that varies. A point takes one row of each. */
struct factor {
    const char *member; /* of the document: "grid", … */
    json_t *rows;       /* array of objects pointer → value: what tells the points apart */
    json_t *patches;    /* array of specs to merge, borrowed; NULL: the rows are set as they are */
};

struct sweep_plan_memory {
    char name[SWEEP_NAME_MOST * UTF8_MOST + 1], tags[TAGS_SIZE];
    char *notes, *request, *axes, *target;
    int private;
    char **values;
    struct planned *planned;
    struct new_experiment *experiments;
    size_t n_values, n_experiments; /* filled */
};

struct builder {
    const json_t *document;
    const struct admission *admission;
    json_t *base;              /* with what the document says of all */
    json_t *faults, *warnings; /* the caller's */
    json_t *seen;              /* faults that have been reported, as members */
    struct factor factors[MAX_FACTORS];
    size_t n_factors, n_points;
    int repeats, chained;
    struct sweep_target target;
    int searches;
    int misplaced; /* a value has found no place in a point's spec: the others have no place either
                    */
    struct sweep_plan *plan;
    struct spec *spec; /* of the point at hand */
};

static const char *const members[] = {
    "name", "tags",   "notes", "priority", "private",         "base",   "grid",
    "zip",  "points", "chain", "random",   "target_sparsity", "repeats"};

/* Those that are put into the base. */
static const char *const common[] = {"name", "tags", "notes", "priority", "private"};
enum { N_COMMON = sizeof common / sizeof *common };

/* Reading the document. What is wrong goes to the faults; only lack of memory is returned. */

static void check_members(const json_t *object, const char *pointer, const char *const *known,
                          size_t n_known, json_t *faults) {
    const char *name;
    json_t *value;
    char place[512], list[200] = "";
    for (size_t i = 0, at = 0; i < n_known; i++)
        at += (size_t)snprintf(list + at, sizeof list - at, "%s%s", i ? ", " : "", known[i]);
    json_object_foreach((json_t *)(uintptr_t)object, name, value) {
        size_t i = 0;
        while (i < n_known && strcmp(name, known[i]) != 0)
            i++;
        snprintf(place, sizeof place, "%s", pointer);
        pointer_extend(place, sizeof place, name);
        if (i == n_known)
            spec_fault(faults, place, "is not known here; known are %s", list);
    }
}

/* The number at object[name] where it lies in [min, max] and, for `whole`, is an integer; a fault
 * and `otherwise` where it does not, `otherwise` where nothing is there. */
static double read_number(const json_t *object, const char *name, int whole, double min, double max,
                          double otherwise, const char *pointer, json_t *faults) {
    const json_t *value = json_object_get(object, name);
    double number = json_number_value(value);
    char place[300];
    if (!value)
        return otherwise;
    if (json_is_number(value) && (!whole || number == floor(number)) && number >= min &&
        number <= max)
        return number;
    snprintf(place, sizeof place, "%s/%s", pointer, name);
    spec_fault(faults, place, "must be %s %.16g..%.16g", whole ? "an integer" : "a number", min,
               max);
    return otherwise;
}

static double read_real(const json_t *object, const char *name, double min, double max,
                        double otherwise, const char *pointer, json_t *faults) {
    return read_number(object, name, 0, min, max, otherwise, pointer, faults);
}

static double read_whole(const json_t *object, const char *name, double min, double max,
                         double otherwise, const char *pointer, json_t *faults) {
    return read_number(object, name, 1, min, max, otherwise, pointer, faults);
}

/* Takes rows over. */
static int add_factor(struct builder *b, const char *member, json_t *rows, json_t *patches) {
    if (!rows || b->n_factors == MAX_FACTORS) {
        json_decref(rows);
        if (rows)
            spec_fault(b->faults, "/grid", "has too many axes; at most %d are possible",
                       MAX_FACTORS - 3);
        return rows ? 0 : OVR_NOMEM;
    }
    b->factors[b->n_factors++] = (struct factor){member, rows, patches};
    return 0;
}

/* "/grid/~1loss~1ovr~1lambda" */
static void axis_place(char place[512], const char *parent, const char *axis) {
    snprintf(place, 512, "%s", parent);
    pointer_extend(place, 512, axis);
}

/* An object of axes: pointer → array, none of which another factor has. */
static int good_axis(struct builder *b, const char *parent, const char *axis) {
    char place[512];
    axis_place(place, parent, axis);
    if (!pointer_valid(axis)) {
        spec_fault(b->faults, place,
                   "must be a JSON pointer into the spec, such as /loss/ovr/lambda");
        return 0;
    }
    for (size_t f = 0; f < b->n_factors; f++) {
        if (b->factors[f].patches || !json_object_get(json_array_get(b->factors[f].rows, 0), axis))
            continue;
        spec_fault(b->faults, place, "varies in %s already", b->factors[f].member);
        return 0;
    }
    return 1;
}

static int good_values(struct builder *b, const char *parent, const char *axis,
                       const json_t *values) {
    char place[512];
    axis_place(place, parent, axis);
    if (json_array_size(values))
        return good_axis(b, parent, axis);
    spec_fault(b->faults, place, "must be an array with at least one value");
    return 0;
}

/* The member if it is an object with something in it; else a fault. */
static const json_t *filled_object(struct builder *b, const char *name) {
    const json_t *object = json_object_get(b->document, name);
    char place[64];
    if (!object || json_object_size(object))
        return object;
    snprintf(place, sizeof place, "/%s", name);
    spec_fault(b->faults, place, "must be an object of JSON pointers with their values");
    return NULL;
}

static int read_grid(struct builder *b) {
    const json_t *grid = filled_object(b, "grid");
    const char *axis;
    json_t *values, *value;
    size_t i;
    json_object_foreach((json_t *)(uintptr_t)grid, axis, values) {
        if (!good_values(b, "/grid", axis, values))
            continue;
        json_t *rows = json_array();
        json_array_foreach(values, i, value) {
            if (json_array_append_new(rows, json_pack("{s:O}", axis, value)))
                return json_decref(rows), OVR_NOMEM;
        }
        if (add_factor(b, "grid", rows, NULL))
            return OVR_NOMEM;
    }
    return 0;
}

static int read_zip(struct builder *b) {
    const json_t *zip = filled_object(b, "zip");
    const char *axis;
    json_t *values;
    size_t n = 0, good = 0;
    json_object_foreach((json_t *)(uintptr_t)zip, axis, values) {
        char place[512];
        if (!good_values(b, "/zip", axis, values))
            continue;
        axis_place(place, "/zip", axis);
        n = n ? n : json_array_size(values);
        good += json_array_size(values) == n;
        if (json_array_size(values) != n)
            spec_fault(b->faults, place,
                       "has %zu values, the first axis has %zu; they move together",
                       json_array_size(values), n);
    }
    if (!zip || good < json_object_size(zip))
        return 0;
    json_t *rows = json_array();
    for (size_t i = 0; i < n; i++) {
        json_t *row = json_object();
        json_object_foreach((json_t *)(uintptr_t)zip, axis, values) {
            if (json_object_set(row, axis, json_array_get(values, i)))
                return json_decref(row), json_decref(rows), OVR_NOMEM;
        }
        if (json_array_append_new(rows, row))
            return json_decref(rows), OVR_NOMEM;
    }
    return add_factor(b, "zip", rows, NULL);
}

static int put_leaf(void *context, const char *pointer, json_t *value) {
    return json_object_set(context, pointer, value) ? OVR_NOMEM : 0;
}

/* Drops the pointers that have the same value in all rows: they don't tell points apart. */
static void drop_common(json_t *rows) {
    const char *pointer;
    json_t *first = json_array_get(rows, 0), *value;
    void *next;
    size_t n = json_array_size(rows);
    json_object_foreach_safe(first, next, pointer, value) {
        size_t same = 1;
        while (same < n && json_equal(value, json_object_get(json_array_get(rows, same), pointer)))
            same++;
        for (size_t i = n; n > 1 && same == n && i-- > 0;)
            json_object_del(json_array_get(rows, i), pointer);
    }
}

static int read_patches(struct builder *b, const char *member) {
    json_t *patches = json_object_get(b->document, member), *patch;
    char place[64];
    size_t i, bad = 0;
    if (!patches)
        return 0;
    snprintf(place, sizeof place, "/%s", member);
    if (!json_array_size(patches)) {
        spec_fault(b->faults, place, "must be an array with at least one point");
        return 0;
    }
    json_t *rows = json_array();
    json_array_foreach(patches, i, patch) {
        json_t *row = json_object();
        snprintf(place, sizeof place, "/%s/%zu", member, i);
        bad += !json_is_object(patch);
        if (!json_is_object(patch))
            spec_fault(b->faults, place, "must be an object to merge into the base");
        else if (json_object_size(patch) && pointer_leaves(patch, "", put_leaf, row))
            return json_decref(row), json_decref(rows), OVR_NOMEM;
        if (json_array_append_new(rows, row))
            return json_decref(rows), OVR_NOMEM;
    }
    if (bad)
        return json_decref(rows), 0;
    drop_common(rows);
    return add_factor(b, member, rows, patches);
}

/* One parameter of random points. */
struct draw {
    const json_t *choice;
    int logarithmic, whole;
    double from, to;
};

static int read_draw(const json_t *how, struct draw *draw) {
    static const char *const kinds[] = {"log_uniform", "uniform", "integer", "choice"};
    const json_t *bounds = NULL;
    size_t kind = 0;
    for (size_t i = 0; i < 4; i++)
        if (json_object_get(how, kinds[i])) {
            bounds = json_object_get(how, kinds[i]);
            kind = i;
        }
    const json_t *from = json_array_get(bounds, 0), *to = json_array_get(bounds, 1);
    *draw = (struct draw){.logarithmic = kind == 0,
                          .whole = kind == 2,
                          .choice = kind == 3 ? bounds : NULL,
                          .from = json_number_value(from),
                          .to = json_number_value(to)};
    if (json_object_size(how) != 1)
        return 0;
    if (kind == 3)
        return json_array_size(bounds) > 0;
    return json_array_size(bounds) == 2 && json_is_number(from) && json_is_number(to) &&
           draw->from < draw->to && isfinite(draw->to - draw->from) &&
           (kind != 0 || draw->from > 0) &&
           (kind != 2 || (json_is_integer(from) && json_is_integer(to) &&
                          draw->to - draw->from < 4e9 && fabs(draw->from) < MAX_SEED));
}

static json_t *draw_value(const struct draw *draw, uint64_t seed, size_t parameter, size_t point) {
    struct rng rng;
    rng_init(&rng, seed, RNG_SWEEP, (uint32_t)parameter, (uint32_t)point);
    if (draw->choice)
        return json_incref(
            json_array_get(draw->choice, rng_below(&rng, (uint32_t)json_array_size(draw->choice))));
    if (draw->whole)
        return json_integer((json_int_t)draw->from +
                            rng_below(&rng, (uint32_t)(draw->to - draw->from) + 1));
    double u = rng_uniform(&rng);
    if (draw->logarithmic)
        return json_real(sweep_round(exp(log(draw->from) + u * (log(draw->to) - log(draw->from)))));
    return json_real(sweep_round(draw->from + u * (draw->to - draw->from)));
}

static json_t *draw_rows(const json_t *parameters, size_t n, uint64_t seed) {
    json_t *rows = json_array(), *how;
    const char *axis;
    for (size_t point = 0; point < n; point++) {
        json_t *row = json_object();
        size_t parameter = 0;
        json_object_foreach((json_t *)(uintptr_t)parameters, axis, how) {
            struct draw draw;
            read_draw(how, &draw);
            if (json_object_set_new(row, axis, draw_value(&draw, seed, parameter++, point)))
                return json_decref(row), json_decref(rows), NULL;
        }
        if (json_array_append_new(rows, row))
            return json_decref(rows), NULL;
    }
    return rows;
}

static int read_random(struct builder *b) {
    static const char *const known[] = {"points", "seed", "parameters"};
    const json_t *random = json_object_get(b->document, "random"), *parameters;
    size_t before = json_array_size(b->faults);
    const char *axis;
    json_t *how;
    if (!random)
        return 0;
    parameters = json_object_get(random, "parameters");
    if (!json_object_get(random, "points") || !json_object_size(parameters))
        spec_fault(b->faults, "/random",
                   "needs points, how many, and parameters: JSON pointers with what to draw");
    check_members(random, "/random", known, 3, b->faults);
    size_t n =
        (size_t)read_whole(random, "points", 1, SWEEP_MAX_EXPERIMENTS, 1, "/random", b->faults);
    uint64_t seed = (uint64_t)read_whole(random, "seed", 0, MAX_SEED, 1, "/random", b->faults);
    json_object_foreach((json_t *)(uintptr_t)parameters, axis, how) {
        struct draw draw;
        char place[512];
        axis_place(place, "/random/parameters", axis);
        if (good_axis(b, "/random/parameters", axis) && !read_draw(how, &draw))
            spec_fault(b->faults, place,
                       "must be {\"log_uniform\": [a, b]} with 0 < a < b, {\"uniform\": [a, b]}, "
                       "{\"integer\": [a, b]} or {\"choice\": [values]}");
    }
    if (json_array_size(b->faults) > before)
        return 0;
    return add_factor(b, "random", draw_rows(parameters, n, seed), NULL);
}

static int read_target(struct builder *b) {
    static const char *const known[] = {"near_zero", "tolerance", "min",
                                        "max",       "points",    "pointer"};
    static const char at[] = "/target_sparsity";
    const json_t *target = json_object_get(b->document, "target_sparsity");
    struct sweep_target *t = &b->target;
    if (!target)
        return 0;
    b->searches = 1;
    if (!json_object_get(target, "near_zero"))
        spec_fault(b->faults, at, "must be an object with near_zero, the share that is wanted");
    check_members(target, at, known, 6, b->faults);
    t->near_zero = read_real(target, "near_zero", 0, 1, 0.5, at, b->faults);
    t->tolerance = read_real(target, "tolerance", 1e-6, 0.5, 0.01, at, b->faults);
    t->min = read_real(target, "min", 1e-30, 1e30, 1e-6, at, b->faults);
    t->max = read_real(target, "max", 1e-30, 1e30, 1e-2, at, b->faults);
    t->points = (int)read_whole(target, "points", 3, SWEEP_MAX_SEARCH, 8, at, b->faults);
    const json_t *pointer = json_object_get(target, "pointer");
    const char *text = pointer ? json_string_value(pointer) : "/loss/ovr/lambda";
    if (!text || !pointer_valid(text) || strlen(text) >= sizeof t->pointer)
        spec_fault(b->faults, "/target_sparsity/pointer",
                   "must be a JSON pointer to a number of the spec, such as /loss/ovr/lambda");
    else
        snprintf(t->pointer, sizeof t->pointer, "%s", text);
    if (!(t->min < t->max))
        spec_fault(b->faults, "/target_sparsity/min", "must be below max");
    return add_factor(b, "target_sparsity",
                      json_pack("[{s:f}, {s:f}]", t->pointer, t->min, t->pointer, t->max), NULL);
}

static void check_combination(struct builder *b) {
    static const char *const kinds[] = {"points", "grid",  "zip",
                                        "random", "chain", "target_sparsity"};
    int n = 0;
    for (size_t i = 0; i < 6; i++)
        n += json_object_get(b->document, kinds[i]) != NULL;
    if (!n)
        spec_fault(b->faults, "",
                   "a sweep needs one of grid, zip, points, chain, random and target_sparsity");
    for (size_t i = 4; n > 1 && i < 6; i++) {
        char place[32];
        snprintf(place, sizeof place, "/%s", kinds[i]);
        if (json_object_get(b->document, kinds[i]))
            spec_fault(b->faults, place, "stands alone: it goes with none of the others");
    }
}

/* The base with what the document says of all experiments. */
static int read_base(struct builder *b) {
    const json_t *base = json_object_get(b->document, "base");
    if (!json_is_object(base))
        spec_fault(b->faults, "/base", "must be a spec, which the points vary");
    b->base = json_is_object(base) ? json_deep_copy(base) : json_object();
    if (!b->base)
        return OVR_NOMEM;
    for (size_t i = 0; i < N_COMMON; i++) {
        json_t *value = json_object_get(b->document, common[i]);
        if (value && json_object_set(b->base, common[i], value))
            return OVR_NOMEM;
    }
    const json_t *name = json_object_get(b->document, "name");
    if (name && !json_is_string(name)) /* points may have others, and then no spec shows it */
        spec_fault(b->faults, "/name", "must be a string");
    const char *used = json_string_value(json_object_get(b->base, "name"));
    if (used && utf8_count(used) > SWEEP_NAME_MOST)
        spec_fault(b->faults, json_object_get(b->document, "name") ? "/name" : "/base/name",
                   "must have at most %d characters, since points add their number",
                   SWEEP_NAME_MOST);
    return 0;
}

static void count_points(struct builder *b) {
    double n = 1;
    for (size_t i = 0; i < b->n_factors; i++)
        n *= (double)json_array_size(b->factors[i].rows);
    double experiments = n * b->repeats;
    if (b->searches)
        experiments = (double)b->target.points * b->repeats;
    if (experiments > SWEEP_MAX_EXPERIMENTS)
        spec_fault(b->faults, "", "has %.0f experiments, at most %d are possible", experiments,
                   SWEEP_MAX_EXPERIMENTS);
    else
        b->n_points = (size_t)n;
}

static int read_document(struct builder *b, struct ovr_err *err) {
    if (!json_is_object(b->document)) {
        spec_fault(b->faults, "", "a sweep is an object");
        return 0;
    }
    check_members(b->document, "", members, sizeof members / sizeof *members, b->faults);
    check_combination(b);
    b->repeats = (int)read_whole(b->document, "repeats", 1, SWEEP_MAX_REPEATS, 1, "", b->faults);
    b->chained = json_object_get(b->document, "chain") != NULL;
    int rc = read_base(b);
    if (!rc)
        rc = read_patches(b, "points");
    if (!rc)
        rc = read_grid(b);
    if (!rc)
        rc = read_zip(b);
    if (!rc)
        rc = read_random(b);
    if (!rc)
        rc = read_patches(b, "chain");
    if (!rc)
        rc = read_target(b);
    if (!rc && !spec_has_faults(b->faults))
        count_points(b);
    return rc ? ovr_nomem(err, "a sweep") : 0;
}

/* Building the points */

/* Which row of each factor makes point k. */
static void find_rows(const struct builder *b, size_t k, size_t rows[MAX_FACTORS]) {
    for (size_t f = b->n_factors; f-- > 0;) {
        size_t n = json_array_size(b->factors[f].rows);
        rows[f] = k % n;
        k /= n;
    }
}

static int is_search(const struct factor *factor) {
    return strcmp(factor->member, "target_sparsity") == 0;
}

/* Where an axis stands in the document; with a row, which of its values. */
static void factor_place(const struct factor *factor, const char *axis, const size_t *row,
                         char place[512]) {
    int random = strcmp(factor->member, "random") == 0;
    snprintf(place, 512, "/%s%s", factor->member, random ? "/parameters" : "");
    if (is_search(factor)) {
        pointer_extend(place, 512, !row ? "pointer" : *row == 0 ? "min" : "max");
        return;
    }
    pointer_extend(place, 512, axis);
    size_t n = strlen(place);
    if (row && !random)
        snprintf(place + n, 512 - n, "/%zu", *row);
}

/* Whether a fault of a point's spec comes from this row of a factor; then *place is where. section:
 * the pointer's first name. */
static int comes_from(const struct factor *factor, size_t i, const char *pointer,
                      const char *section, char place[512]) {
    const json_t *row = json_array_get(factor->rows, i);
    const json_t *patch = json_array_get(factor->patches, i);
    const char *axis;
    json_t *value;
    if (patch) {
        snprintf(place, 512, "/%s/%zu%.300s", factor->member, i, pointer);
        return !*pointer || json_object_get(patch, section);
    }
    json_object_foreach((json_t *)(uintptr_t)row, axis, value) {
        if (!*pointer || (!pointer_below(axis, pointer) && !pointer_below(pointer, axis)))
            continue;
        int above = strcmp(axis, pointer) && pointer_below(pointer, axis);
        factor_place(factor, axis, above && is_search(factor) ? NULL : &i, place);
        return 1;
    }
    return 0;
}

/* The place in the document that a fault of point k's spec comes from; *shared: it is the base, the
 * same for all points. */
static void find_place(const struct builder *b, size_t k, const char *pointer, char place[512],
                       int *shared) {
    size_t rows[MAX_FACTORS];
    char section[POINTER_TOKEN_SIZE];
    find_rows(b, k, rows);
    *shared = 0;
    snprintf(section, sizeof section, "%.*s", *pointer ? (int)strcspn(pointer + 1, "/") : 0,
             *pointer ? pointer + 1 : "");
    for (size_t f = b->n_factors; f-- > 0;)
        if (comes_from(&b->factors[f], rows[f], pointer, section, place))
            return;
    int of_document = !*pointer;
    for (size_t i = 0; i < N_COMMON; i++)
        of_document |= !strcmp(section, common[i]) && json_object_get(b->document, section);
    *shared = *pointer != '\0';
    snprintf(place, 512, "%s%.300s", of_document ? "" : "/base", pointer);
}

/* Passes faults of a point's spec on, those that many points have only once. */
static int pass_on(struct builder *b, size_t k, const json_t *found, const json_t *values,
                   json_t *to, size_t most) {
    size_t i;
    json_t *fault;
    char *words = sweep_dump(values);
    if (!words)
        return OVR_NOMEM;
    json_array_foreach((json_t *)(uintptr_t)found, i, fault) {
        const char *pointer = json_string_value(json_object_get(fault, "pointer"));
        const char *detail = json_string_value(json_object_get(fault, "detail"));
        char place[512], key[1100];
        int shared;
        find_place(b, k, pointer ? pointer : "", place, &shared);
        snprintf(key, sizeof key, "%s %s %s", to == b->faults ? "fault" : "warning", place,
                 detail ? detail : "");
        if (json_object_get(b->seen, key) || json_array_size(to) > most)
            continue;
        json_object_set_new(b->seen, key, json_true());
        if (json_array_size(to) == most)
            spec_fault(to, "", "there are more like these");
        else if (shared || json_object_size(values) < 2)
            spec_fault(to, place, "%s", detail ? detail : "");
        else
            spec_fault(to, place, "%s (point %zu: %.300s)", detail ? detail : "", k, words);
    }
    free(words);
    return 0;
}

/* The spec of point k before it is read, and what tells it apart. A value that finds no place is a
 * fault. */
static int build_point(struct builder *b, size_t k, json_t **spec, json_t **values,
                       struct ovr_err *err) {
    size_t rows[MAX_FACTORS];
    const char *axis;
    json_t *value;
    int rc = 0;
    *spec = json_deep_copy(b->base);
    *values = json_object();
    if (!*spec || !*values)
        return ovr_nomem(err, "a point of the sweep");
    find_rows(b, k, rows);
    for (size_t f = 0; !rc && f < b->n_factors; f++) {
        const struct factor *factor = &b->factors[f];
        json_t *row = json_array_get(factor->rows, rows[f]);
        if (factor->patches)
            rc = spec_patch(*spec, json_array_get(factor->patches, rows[f]), err);
        if (json_object_update(*values, row))
            rc = ovr_nomem(err, "a point of the sweep");
        json_object_foreach(factor->patches ? NULL : row, axis, value) {
            struct ovr_err why = {0};
            int code = rc ? 0 : pointer_set(*spec, axis, value, &why);
            char place[512];
            if (code == OVR_NOMEM)
                rc = ovr_nomem(err, "a point of the sweep");
            if (code != OVR_INVALID)
                continue;
            factor_place(factor, axis, NULL, place);
            spec_fault(b->faults, place, "%s", why.text);
            b->misplaced = 1;
        }
    }
    return rc;
}

static void add_cost(struct cost *sum, const struct cost *one, int repeats) {
    sum->train.parameters = one->train.parameters > sum->train.parameters ? one->train.parameters
                                                                          : sum->train.parameters;
    sum->train.memory_bytes = one->train.memory_bytes > sum->train.memory_bytes
                                  ? one->train.memory_bytes
                                  : sum->train.memory_bytes;
    sum->train.flops_per_epoch = fmax(sum->train.flops_per_epoch, one->train.flops_per_epoch);
    sum->seconds += one->seconds * repeats;
    sum->ranks = one->ranks > sum->ranks ? one->ranks : sum->ranks;
}

/* A point of a chain starts from the weights of an experiment, and with the steps that were fitted
 * for it. Its spec has been read. */
static int start_from(json_t *spec, const char *id, struct ovr_err *err) {
    int rc = json_object_set_new(json_object_get(spec, "model"), "init",
                                 json_pack("{s:s, s:s}", "experiment", id, "epoch", "best"));
    if (!rc && json_array_size(json_object_get(spec, "preprocess")))
        rc = json_object_set_new(spec, "preprocess", json_pack("[{s:s}]", "experiment", id));
    return rc ? ovr_nomem(err, "a point of the chain") : 0;
}

/* One experiment of point k, whose completed spec is changed on the way. */
static int plan_experiment(struct builder *b, size_t k, int repeat, const char *name, json_t *spec,
                           const struct cost *cost, struct ovr_err *err) {
    struct sweep_plan_memory *m = b->plan->memory;
    size_t i = m->n_experiments++;
    struct planned *p = &m->planned[i];
    int rc = store_new_id(p->id, err);
    if (!rc && b->chained && k > 0)
        rc = start_from(spec, m->planned[i - (size_t)b->repeats].id, err);
    if (!rc)
        rc = sweep_personalize(spec, name, repeat, b->repeats, (int64_t)b->spec->train.seed,
                               p->name, err);
    if (rc)
        return rc;
    p->spec = sweep_dump(spec);
    if (!p->spec)
        return ovr_nomem(err, "a point of the sweep");
    snprintf(p->tags, sizeof p->tags, "%s", b->spec->tags);
    m->experiments[i] = (struct new_experiment){.id = p->id,
                                                .name = p->name,
                                                .tags = p->tags,
                                                .spec = p->spec,
                                                .priority = b->spec->priority,
                                                .private = b->spec->private,
                                                .memory_bytes = (int64_t)cost->train.memory_bytes,
                                                .core_seconds = cost->core_seconds,
                                                .executor = cost->executor,
                                                .ranks = cost->ranks};
    return 0;
}

/* What a search has to remember, with the spec that it varies. */
static char *describe_target(const struct sweep_target *t, const json_t *spec,
                             const struct cost *cost) {
    json_t *target = json_pack(
        "{s:s, s:f, s:f, s:f, s:f, s:i, s:I, s:f, s:i, s:i, s:O}", "pointer", t->pointer,
        "near_zero", t->near_zero, "tolerance", t->tolerance, "min", t->min, "max", t->max,
        "points", t->points, "memory_bytes", (json_int_t)cost->train.memory_bytes, "core_seconds",
        cost->core_seconds, "executor", (int)cost->executor, "ranks", cost->ranks, "spec", spec);
    char *text = target ? sweep_dump(target) : NULL;
    json_decref(target);
    return text;
}

static int plan_point(struct builder *b, size_t k, json_t *spec, const struct cost *cost,
                      const json_t *values, struct ovr_err *err) {
    struct sweep_plan_memory *m = b->plan->memory;
    add_cost(&b->plan->cost, cost, b->repeats);
    if (cost->executor == EXECUTOR_SLURM) {
        b->plan->cost.executor = EXECUTOR_SLURM;
        b->plan->on_cluster += (size_t)b->repeats;
    }
    m->values[m->n_values] = sweep_dump(values);
    if (!m->values[m->n_values++])
        return ovr_nomem(err, "a point of the sweep");
    if (b->searches && k == 0 && !(m->target = describe_target(&b->target, spec, cost)))
        return ovr_nomem(err, "the search");
    int rc = 0;
    char name[NAME_SIZE];
    sweep_name_point(spec, m->name, k, name);
    for (int r = 0; !rc && r < b->repeats; r++)
        rc = plan_experiment(b, k, r, name, spec, cost, err);
    return rc;
}

/* What only a point of a sweep can have wrong. */
static void check_point(const struct builder *b, size_t k, const json_t *spec, json_t *found) {
    if (b->chained && k > 0 && !json_object_get(json_object_get(spec, "model"), "init"))
        spec_fault(found, "/model/kind",
                   "has no weights that it could take over from the point before");
    if ((double)b->spec->train.seed > MAX_SEED - (b->repeats - 1))
        spec_fault(found, "/training/seed", "is too high for %d repeats", b->repeats);
    if (b->searches && !json_is_real(pointer_get(spec, b->target.pointer)))
        spec_fault(found, b->target.pointer,
                   "takes no number with a fraction here, and a search tries such between min and "
                   "max");
}

/* Point k from its rows to its experiments; faults go on to the caller's. */
static int read_point(struct builder *b, size_t k, struct ovr_err *err) {
    json_t *spec = NULL, *values = NULL, *found = json_array(), *warned = json_array();
    struct cost cost = {0};
    struct ovr_err why = {0};
    int rc = found && warned ? build_point(b, k, &spec, &values, err) : ovr_nomem(err, "a sweep");
    if (rc || b->misplaced)
        goto out;
    rc = spec_read(spec, b->spec, found, &why);
    if (!rc)
        check_point(b, k, spec, found);
    if (!rc && !spec_has_faults(found))
        rc = admit(b->admission, b->spec, spec, b->chained && k > 0, found, warned, &cost, &why);
    if (rc && rc != OVR_INVALID)
        ovr_fail(err, rc, why.field, "%s", why.text);
    else
        rc = pass_on(b, k, found, values, b->faults, MAX_FAULTS) ||
                     pass_on(b, k, warned, values, b->warnings, MAX_WARNINGS)
                 ? ovr_nomem(err, "a sweep")
                 : 0;
    if (!rc && !spec_has_faults(b->faults))
        rc = plan_point(b, k, spec, &cost, values, err);
out:
    json_decref(spec);
    json_decref(values);
    json_decref(found);
    json_decref(warned);
    return rc;
}

/* The pointers that tell points apart, in the order of the factors. */
static char *list_axes(const struct builder *b) {
    json_t *known = json_object(), *list = json_array(), *row, *value;
    const char *axis;
    size_t i;
    int failed = !known || !list;
    for (size_t f = 0; f < b->n_factors; f++) {
        json_array_foreach(b->factors[f].rows, i, row) {
            json_object_foreach(row, axis, value) {
                if (failed || json_object_get(known, axis))
                    continue;
                failed = json_object_set_new(known, axis, json_true()) ||
                         json_array_append_new(list, json_string(axis));
            }
        }
    }
    char *text = failed ? NULL : sweep_dump(list);
    json_decref(known);
    json_decref(list);
    return text;
}

static int prepare_memory(struct builder *b, struct ovr_err *err) {
    struct sweep_plan_memory *m = b->plan->memory;
    size_t n = b->n_points * (size_t)b->repeats;
    const char *name = json_string_value(json_object_get(b->base, "name"));
    const char *notes = json_string_value(json_object_get(b->base, "notes"));
    snprintf(m->name, sizeof m->name, "%s", name ? name : "untitled");
    sweep_join_tags(json_object_get(b->base, "tags"), m->tags, sizeof m->tags);
    json_t *private = json_object_get(b->base, "private");
    m->notes = strdup(notes ? notes : "");
    m->private =
        json_is_boolean(private) ? json_is_true(private) : b->admission->private_by_default;
    m->request = sweep_dump(b->document);
    m->axes = list_axes(b);
    m->values = calloc(b->n_points, sizeof *m->values);
    m->planned = calloc(n, sizeof *m->planned);
    m->experiments = calloc(n, sizeof *m->experiments);
    if (!m->notes || !m->request || !m->axes || !m->values || !m->planned || !m->experiments)
        return ovr_nomem(err, "a sweep");
    if (!json_object_get(b->base, "name") &&
        json_object_set_new(b->base, "name", json_string(m->name)))
        return ovr_nomem(err, "a sweep");
    return 0;
}

static void complete(struct builder *b) {
    struct sweep_plan *plan = b->plan;
    struct sweep_plan_memory *m = plan->memory;
    plan->n_points = b->n_points;
    if (b->searches) {
        plan->cost.seconds *= (double)b->target.points / (double)b->n_points;
        plan->on_cluster = plan->on_cluster * (size_t)b->target.points / b->n_points;
        plan->n_points = (size_t)b->target.points;
    }
    plan->n_experiments = plan->n_points * (size_t)b->repeats;
    plan->sweep = (struct new_sweep){.name = m->name,
                                     .tags = m->tags,
                                     .notes = m->notes,
                                     .request = m->request,
                                     .axes = m->axes,
                                     .target = m->target,
                                     .more = b->searches,
                                     .private = m->private,
                                     .points = {.values = (const char *const *)m->values,
                                                .experiments = m->experiments,
                                                .n_points = b->n_points,
                                                .repeats = b->repeats,
                                                .chained = b->chained}};
}

static int read_points(struct builder *b, struct ovr_err *err) {
    int rc = prepare_memory(b, err);
    for (size_t k = 0; !rc && !b->misplaced && k < b->n_points; k++)
        rc = read_point(b, k, err);
    return rc;
}

int sweep_plan_read(const json_t *document, const struct admission *admission,
                    struct sweep_plan *plan, json_t *faults, json_t *warnings,
                    struct ovr_err *err) {
    *plan = (struct sweep_plan){.memory = calloc(1, sizeof *plan->memory)};
    struct builder *b = calloc(1, sizeof *b);
    struct spec *spec = calloc(1, sizeof *spec);
    json_t *seen = json_object();
    int rc = plan->memory && b && spec && seen ? 0 : ovr_nomem(err, "a sweep");
    if (!rc) {
        *b = (struct builder){.document = document,
                              .admission = admission,
                              .faults = faults,
                              .warnings = warnings,
                              .seen = seen,
                              .plan = plan,
                              .spec = spec};
        rc = read_document(b, err);
    }
    if (!rc && !spec_has_faults(faults))
        rc = read_points(b, err);
    if (!rc && spec_has_faults(faults))
        rc = ovr_fail(err, OVR_INVALID, "", "the sweep was not accepted");
    if (!rc)
        complete(b);
    for (size_t f = 0; b && f < b->n_factors; f++)
        json_decref(b->factors[f].rows);
    json_decref(b ? b->base : NULL);
    json_decref(seen);
    free(spec);
    free(b);
    return rc;
}

void sweep_plan_release(struct sweep_plan *plan) {
    struct sweep_plan_memory *m = plan->memory;
    for (size_t i = 0; m && i < m->n_values; i++)
        free(m->values[i]);
    for (size_t i = 0; m && i < m->n_experiments; i++)
        free(m->planned[i].spec);
    if (m) {
        free(m->notes);
        free(m->request);
        free(m->axes);
        free(m->target);
        free(m->values);
        free(m->planned);
        free(m->experiments);
    }
    free(m);
    *plan = (struct sweep_plan){0};
}
