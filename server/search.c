#include "server/log.h"
#include "server/pointer.h"
#include "server/sweep_points.h"
#include "server/sweeps.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int sweep_target_read(const char *text, struct sweep_target *t, struct ovr_err *err) {
    json_t *target = text ? json_loads(text, 0, NULL) : NULL;
    const char *pointer = json_string_value(json_object_get(target, "pointer"));
    *t = (struct sweep_target){0};
    if (!pointer) {
        json_decref(target);
        return ovr_nomem(err, "the target of a sweep");
    }
    snprintf(t->pointer, sizeof t->pointer, "%s", pointer);
    t->near_zero = json_number_value(json_object_get(target, "near_zero"));
    t->tolerance = json_number_value(json_object_get(target, "tolerance"));
    t->min = json_number_value(json_object_get(target, "min"));
    t->max = json_number_value(json_object_get(target, "max"));
    t->points = (int)json_integer_value(json_object_get(target, "points"));
    json_decref(target);
    return 0;
}

static int by_value(const void *a, const void *b) {
    const struct sweep_sample *x = a, *y = b;
    return (x->value > y->value) - (x->value < y->value);
}

static double distance(const struct sweep_target *t, const struct sweep_sample *s) {
    return isnan(s->near_zero) ? INFINITY : fabs(s->near_zero - t->near_zero);
}

static int is_between(const struct sweep_target *t, const struct sweep_sample *a,
                      const struct sweep_sample *b) {
    return (a->near_zero - t->near_zero) * (b->near_zero - t->near_zero) < 0;
}

/* Index of the next sample with a result after i, n where there is none. */
static size_t next_result(const struct sweep_sample *s, size_t n, size_t i) {
    do
        i++;
    while (i < n && isnan(s[i].near_zero));
    return i;
}

/* The two samples to go between, by index: neighbours with results on both sides of what is wanted,
 * the closest of such; else the outermost result and the failed point beyond it. Returns 0 where
 * there is no such place. */
static int find_bracket(const struct sweep_target *t, const struct sweep_sample *s, size_t n,
                        size_t *from, size_t *to) {
    double best = INFINITY;
    size_t first = isnan(s[0].near_zero) ? next_result(s, n, 0) : 0, last = first;
    *from = *to = 0;
    for (size_t i = first; i < n;) {
        size_t j = next_result(s, n, i);
        last = i;
        if (j < n && is_between(t, &s[i], &s[j]) &&
            fmin(distance(t, &s[i]), distance(t, &s[j])) < best) {
            best = fmin(distance(t, &s[i]), distance(t, &s[j]));
            *from = i;
            *to = j;
        }
        i = j;
    }
    if (best < INFINITY)
        return 1;
    if (last + 1 < n) {
        *from = last;
        *to = last + 1;
        return 1;
    }
    *from = first > 0 ? first - 1 : 0;
    *to = first;
    return first > 0;
}

/* The value to try between two samples: where there are failed points between them, in the middle
 * of the widest gap that they leave. */
static double choose_between(const struct sweep_target *t, const struct sweep_sample *s, size_t n,
                             size_t from, size_t to) {
    double share = 0.5;
    if (to == from + 1 && n % 2 == 0 && is_between(t, &s[from], &s[to])) {
        share = (t->near_zero - s[from].near_zero) / (s[to].near_zero - s[from].near_zero);
        share = fmin(fmax(share, 0.1), 0.9);
    }
    size_t widest = from;
    for (size_t i = from; i < to; i++)
        if (s[i + 1].value / s[i].value > s[widest + 1].value / s[widest].value)
            widest = i;
    double a = log(s[widest].value), b = log(s[widest + 1].value);
    return sweep_round(exp(a + share * (b - a)));
}

enum sweep_outcome sweep_target_next(const struct sweep_target *t, struct sweep_sample *s, size_t n,
                                     size_t *nearest, double *next) {
    size_t from, to;
    qsort(s, n, sizeof *s, by_value);
    *nearest = n;
    for (size_t i = 0; i < n; i++)
        if (distance(t, &s[i]) < (*nearest < n ? distance(t, &s[*nearest]) : INFINITY))
            *nearest = i;
    if (*nearest == n)
        return SWEEP_NO_RESULT;
    if (distance(t, &s[*nearest]) <= t->tolerance)
        return SWEEP_REACHED;
    if (!find_bracket(t, s, n, &from, &to))
        return SWEEP_OUTSIDE;
    if (n >= (size_t)t->points)
        return SWEEP_USED_UP;
    *next = choose_between(t, s, n, from, to);
    return *next > s[from].value && *next < s[to].value ? SWEEP_SEARCHING : SWEEP_USED_UP;
}

/* A search as it stands: its samples, filled by the store's reader. */
struct search {
    struct sweep sweep;
    struct sweep_sample samples[SWEEP_MAX_SEARCH];
    int results[SWEEP_MAX_SEARCH]; /* repeats that succeeded */
    int unended;
};

static int take_point(void *context, int point, const char *values) {
    struct search *search = context;
    json_t *object = point < SWEEP_MAX_SEARCH ? json_loads(values, 0, NULL) : NULL;
    if (!object)
        return OVR_NOMEM;
    json_t *value = json_object_iter_value(json_object_iter(object));
    search->samples[point] = (struct sweep_sample){point, json_number_value(value), NAN, NAN};
    json_decref(object);
    return 0;
}

static int take_run(void *context, const struct sweep_run *run) {
    struct search *search = context;
    search->unended |= run->state <= STATE_PAUSED;
    return 0;
}

static int take_figure(void *context, int point, int repeat, const struct figure *figure) {
    struct search *search = context;
    struct sweep_sample *sample = &search->samples[point];
    (void)repeat;
    if (strcmp(figure->name, "sparsity.near_zero") != 0)
        return 0;
    double n = ++search->results[point];
    double before = n > 1 ? sample->near_zero : 0;
    sample->near_zero = before + (figure->real - before) / n;
    return 0;
}

/* The experiments of the next point, which `target` describes. */
static int extend(struct store *store, const struct search *search, const json_t *target,
                  const struct sweep_target *t, double value, struct ovr_err *err) {
    const struct sweep *sweep = &search->sweep;
    struct planned *planned = calloc(SWEEP_MAX_REPEATS, sizeof *planned);
    struct new_experiment experiments[SWEEP_MAX_REPEATS];
    json_t *spec = json_deep_copy(json_object_get(target, "spec"));
    json_t *number = json_real(value), *values = json_pack("{s:O}", t->pointer, number);
    char *text = values ? sweep_dump(values) : NULL, name[NAME_SIZE];
    const char *texts[] = {text};
    int64_t seed = json_integer_value(json_object_get(json_object_get(spec, "training"), "seed"));
    int64_t memory = json_integer_value(json_object_get(target, "memory_bytes"));
    double core_seconds = json_number_value(json_object_get(target, "core_seconds"));
    int executor = (int)json_integer_value(json_object_get(target, "executor"));
    int ranks = (int)json_integer_value(json_object_get(target, "ranks"));
    int priority = (int)json_integer_value(json_object_get(spec, "priority"));
    int rc = planned && spec && text ? pointer_set(spec, t->pointer, number, err)
                                     : ovr_nomem(err, "the next point of a sweep");
    sweep_name_point(spec, sweep->name, (size_t)sweep->points, name);
    for (int r = 0; !rc && r < sweep->repeats; r++) {
        struct planned *p = &planned[r];
        rc = sweep_personalize(spec, name, r, sweep->repeats, seed, p->name, err);
        p->spec = rc ? NULL : sweep_dump(spec);
        if (!rc && !p->spec)
            rc = ovr_nomem(err, "the next point of a sweep");
        sweep_join_tags(json_object_get(spec, "tags"), p->tags, sizeof p->tags);
        experiments[r] = (struct new_experiment){.name = p->name,
                                                 .tags = p->tags,
                                                 .spec = p->spec,
                                                 .priority = priority,
                                                 .private = sweep->private,
                                                 .memory_bytes = memory,
                                                 .core_seconds = core_seconds,
                                                 .executor = (enum executor_kind)executor,
                                                 .ranks = ranks};
    }
    struct new_points points = {texts, experiments, 1, sweep->repeats, 0};
    if (!rc)
        rc = store_extend_sweep(store, sweep->seq, sweep->points, &points, err);
    for (int r = 0; planned && r < sweep->repeats; r++)
        free(planned[r].spec);
    free(planned);
    free(text);
    json_decref(spec);
    json_decref(values);
    json_decref(number);
    return rc;
}

static int advance(struct store *store, struct search *search, int *added, struct ovr_err *err) {
    const struct sweep *sweep = &search->sweep;
    struct sweep_target t;
    size_t nearest;
    double next;
    int rc = sweep_target_read(sweep->target, &t, err);
    if (rc)
        return rc;
    enum sweep_outcome outcome =
        sweep_target_next(&t, search->samples, (size_t)sweep->points, &nearest, &next);
    if (outcome != SWEEP_SEARCHING) {
        log_line(LOG_INFO, "sweep=%s its search has ended", sweep->id);
        return store_extend_sweep(store, sweep->seq, sweep->points, &(struct new_points){0}, err);
    }
    json_t *target = json_loads(sweep->target, 0, NULL);
    rc = target ? extend(store, search, target, &t, next, err)
                : ovr_nomem(err, "the next point of a sweep");
    json_decref(target);
    if (!rc) {
        *added += sweep->repeats;
        log_line(LOG_INFO, "sweep=%s goes on with %s = %g", sweep->id, t.pointer, next);
    }
    return rc;
}

int sweeps_advance(struct store *store, int *added, struct ovr_err *err) {
    char id[ID_SIZE];
    int rc;
    *added = 0;
    while ((rc = store_due_sweep(store, id, err)) == 0) {
        struct search *search = calloc(1, sizeof *search);
        struct sweep_reader reader = {search, take_point, take_run, take_figure};
        struct ovr_err why = {0};
        rc = search ? store_read_sweep(store, id, &search->sweep, &reader, &why)
                    : ovr_nomem(&why, "a search");
        if (!rc && !search->unended)
            rc = advance(store, search, added, &why);
        if (search)
            sweep_release(&search->sweep);
        free(search);
        if (rc && rc != OVR_CONFLICT) /* which means that somebody else has done it */
            return ovr_fail(err, rc, why.field, "%s", why.text);
    }
    return rc == OVR_NOT_FOUND ? 0 : rc;
}
