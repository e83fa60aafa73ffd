#include "api/outcomes.h"

#include "api/api.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* So many are kept, each in the place that its number gives it, if it is not longer: 64 MiB at the
 * very most, about a fourth as a rule. */
enum { KEPT = 16384, LONGEST = 4096 };

struct outcome_text {
    int64_t seq;
    char *text; /* the result and, after a NUL, the provenance; a NUL */
};

struct outcomes {
    struct store *store;
    pthread_mutex_t lock; /* guards the places */
    struct outcome_text kept[KEPT];
};

int outcomes_new(struct outcomes **out, struct store *store, struct ovr_err *err) {
    struct outcomes *outcomes = calloc(1, sizeof *outcomes);
    if (!outcomes)
        return ovr_nomem(err, "results");
    outcomes->store = store;
    pthread_mutex_init(&outcomes->lock, NULL);
    *out = outcomes;
    return 0;
}

void outcomes_free(struct outcomes *outcomes) {
    if (!outcomes)
        return;
    for (size_t i = 0; i < KEPT; i++)
        free(outcomes->kept[i].text);
    pthread_mutex_destroy(&outcomes->lock);
    free(outcomes);
}

/* Epochs of the store that are none. */
enum { PROVENANCE = -1, RESULT = 0 };

static int put_row(void *context, int epoch, const struct figure *figure) {
    json_t **objects = context;
    return json_put_figure(objects[epoch == PROVENANCE], figure);
}

static int make_text(struct store *store, int64_t seq, struct text *text, struct ovr_err *err) {
    json_t *objects[] = {json_object(), json_object()};
    int rc = 0;
    if (objects[0] && objects[1])
        rc = store_read_figures(store, seq, PROVENANCE, RESULT, put_row, objects, err);
    if (!rc && (text_add_json(text, objects[0]) || text_add(text, "", 1) ||
                text_add_json(text, objects[1]) || text_add(text, "", 1)))
        rc = ovr_nomem(err, "a result as JSON");
    json_decref(objects[0]);
    json_decref(objects[1]);
    return rc;
}

static int add_members(struct text *to, const char *text, int whole, struct ovr_err *err) {
    int failed = text_add_member(to, "result", text);
    if (whole && !failed)
        failed = text_add_member(to, "provenance", text + strlen(text) + 1);
    return failed ? ovr_nomem(err, "a result as JSON") : 0;
}

/* Takes the text over; what was in its place goes. */
static void keep(struct outcomes *outcomes, int64_t seq, struct text *text) {
    char *old = text->bytes;
    if (text->n <= LONGEST) {
        struct outcome_text *place = &outcomes->kept[seq % KEPT];
        pthread_mutex_lock(&outcomes->lock);
        old = place->text;
        *place = (struct outcome_text){seq, text->bytes};
        pthread_mutex_unlock(&outcomes->lock);
    }
    free(old);
}

int outcomes_add(struct outcomes *outcomes, int64_t seq, int whole, struct text *to,
                 struct ovr_err *err) {
    const struct outcome_text *place = &outcomes->kept[seq % KEPT];
    pthread_mutex_lock(&outcomes->lock);
    int known = place->seq == seq;
    int rc = known ? add_members(to, place->text, whole, err) : 0;
    pthread_mutex_unlock(&outcomes->lock);
    if (known)
        return rc;
    struct text text = {0};
    rc = make_text(outcomes->store, seq, &text, err);
    if (!rc)
        rc = add_members(to, text.bytes, whole, err);
    if (rc)
        free(text.bytes);
    else
        keep(outcomes, seq, &text);
    return rc;
}
