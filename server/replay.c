#include "server/replay.h"

#include "server/digest.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The digests of one experiment's epochs: digests[i] is epoch i + 1's. */
struct trail {
    char (*digests)[DIGEST_SIZE];
    int n, room;
};

static int note_digest(void *context, int epoch, const struct figure *figure) {
    struct trail *trail = context;
    if (strcmp(figure->name, "digest") || figure->kind != FIGURE_TEXT)
        return 0;
    if (epoch > trail->room) {
        int room = epoch > 2 * trail->room ? epoch : 2 * trail->room;
        void *longer = realloc(trail->digests, (size_t)room * sizeof *trail->digests);
        if (!longer)
            return OVR_NOMEM;
        trail->digests = longer;
        memset(trail->digests + trail->room, 0, (size_t)(room - trail->room) * DIGEST_SIZE);
        trail->room = room;
    }
    snprintf(trail->digests[epoch - 1], DIGEST_SIZE, "%s", figure->text);
    trail->n = epoch > trail->n ? epoch : trail->n;
    return 0;
}

/* The first epoch that is not the same in both, one of them may end before it; 0: none. */
static int first_difference(const struct trail *a, const struct trail *b) {
    int both = a->n < b->n ? a->n : b->n;
    for (int i = 0; i < both; i++)
        if (strcmp(a->digests[i], b->digests[i]) != 0)
            return i + 1;
    return a->n == b->n ? 0 : both + 1;
}

struct comparison {
    const struct figure *facts;
    size_t n_facts;
    struct verdict *verdict;
    int weights_differ;
};

/* One fact of the original's provenance against the new one's. */
static int compare_fact(void *context, int epoch, const struct figure *then) {
    static const char *const circumstances[] = {"program", "blas.library", "blas.kernel", "isa",
                                                "cpu"};
    struct comparison *c = context;
    const struct figure *now = NULL;
    (void)epoch;
    for (size_t i = 0; i < c->n_facts; i++)
        if (strcmp(c->facts[i].name, then->name) == 0)
            now = &c->facts[i];
    if (then->kind != FIGURE_TEXT || !now || now->kind != FIGURE_TEXT ||
        strcmp(now->text, then->text) == 0)
        return 0;
    if (strncmp(then->name, "weights.", 8) == 0)
        c->weights_differ = 1;
    char *list = c->verdict->differences;
    size_t n = strlen(list), room = sizeof c->verdict->differences;
    for (size_t i = 0; i < sizeof circumstances / sizeof *circumstances; i++)
        if (strcmp(then->name, circumstances[i]) == 0)
            snprintf(list + n, room - n, "%s%s: %.100s then, %.100s now", n ? "; " : "", then->name,
                     then->text, now->text);
    return 0;
}

/* The digests of all its epochs, stored or not. */
static int follow(struct store *store, const struct fresh_result *fresh, struct trail *trail,
                  struct ovr_err *err) {
    int rc = store_read_figures(store, fresh->experiment->seq, 1, INT_MAX, note_digest, trail, err);
    for (size_t i = 0; !rc && i < fresh->n_epochs; i++)
        for (size_t k = 0; !rc && k < fresh->epochs[i].n_figures; k++)
            rc = note_digest(trail, fresh->epochs[i].number, &fresh->epochs[i].figures[k]);
    return rc;
}

static int compare(struct store *store, const struct fresh_result *fresh, struct verdict *verdict,
                   struct ovr_err *err) {
    struct trail then = {0}, now = {0};
    struct experiment e = {0};
    struct comparison comparison = {fresh->facts, fresh->n_facts, verdict, 0};
    int rc = store_get_experiment(store, fresh->experiment->rerun_of, &e, err);
    if (!rc)
        rc = store_read_figures(store, e.seq, 1, INT_MAX, note_digest, &then, err);
    if (!rc)
        rc = follow(store, fresh, &now, err);
    if (!rc)
        rc = store_read_figures(store, e.seq, -1, -1, compare_fact, &comparison, err);
    int epoch = rc ? 0 : first_difference(&then, &now);
    if (!epoch && comparison.weights_differ)
        epoch = now.n;
    if (epoch || comparison.weights_differ)
        snprintf(verdict->text, sizeof verdict->text, "diverged at epoch %d", epoch);
    else
        snprintf(verdict->text, sizeof verdict->text, "match");
    free(then.digests);
    free(now.digests);
    experiment_release(&e);
    return rc == OVR_NOMEM ? ovr_nomem(err, "the comparison with another experiment") : rc;
}

int replay_judge(struct store *store, const struct fresh_result *fresh, struct verdict *verdict,
                 struct figure figures[REPLAY_FIGURES], size_t *n, struct ovr_err *err) {
    *n = 0;
    *verdict = (struct verdict){0};
    int rc = fresh->experiment->replays ? compare(store, fresh, verdict, err) : 0;
    if (rc || !fresh->experiment->replays)
        return rc;
    figures[(*n)++] = (struct figure){.name = "replay", .kind = FIGURE_TEXT, .text = verdict->text};
    if (*verdict->differences)
        figures[(*n)++] = (struct figure){
            .name = "replay_differences", .kind = FIGURE_TEXT, .text = verdict->differences};
    return 0;
}
