#include "server/runs.h"

#include <stdlib.h>
#include <string.h>

void runs_init(struct runs *runs) {
    *runs = (struct runs){0};
    pthread_mutex_init(&runs->lock, NULL);
}

static void free_epochs(struct epoch *epoch) {
    while (epoch) {
        struct epoch *next = epoch->next;
        free(epoch);
        epoch = next;
    }
}

void runs_release(struct runs *runs) {
    runs_end_all(runs);
    pthread_mutex_destroy(&runs->lock);
}

void runs_add(struct runs *runs, struct run *run) {
    pthread_mutex_lock(&runs->lock);
    run->next = runs->list;
    runs->list = run;
    pthread_mutex_unlock(&runs->lock);
}

void runs_end(struct runs *runs, int64_t seq) {
    pthread_mutex_lock(&runs->lock);
    struct run **at = &runs->list, *run;
    while (*at && (*at)->seq != seq)
        at = &(*at)->next;
    run = *at;
    if (run)
        *at = run->next;
    pthread_mutex_unlock(&runs->lock);
    if (run)
        free_epochs(run->first);
    free(run);
}

void runs_end_all(struct runs *runs) {
    while (runs->list)
        runs_end(runs, runs->list->seq);
}

struct run *runs_find(const struct runs *runs, int64_t seq) {
    struct run *run = runs->list;
    while (run && run->seq != seq)
        run = run->next;
    return run;
}

int runs_have_epochs(struct runs *runs) {
    pthread_mutex_lock(&runs->lock);
    struct run *run = runs->list;
    while (run && !run->n_epochs)
        run = run->next;
    pthread_mutex_unlock(&runs->lock);
    return run != NULL;
}

size_t run_take(struct runs *runs, struct run *run) {
    pthread_mutex_lock(&runs->lock);
    size_t n = run->n_taken = run->n_epochs;
    pthread_mutex_unlock(&runs->lock);
    return n;
}

static void drop(struct run *run) {
    run->n_epochs -= run->n_taken;
    for (; run->n_taken; run->n_taken--) {
        struct epoch *epoch = run->first;
        run->first = epoch->next;
        free(epoch);
    }
    if (!run->first)
        run->last = NULL;
}

void runs_settle(struct runs *runs, const struct ovr_err *fault) {
    pthread_mutex_lock(&runs->lock);
    for (struct run *run = runs->list; run; run = run->next) {
        if (!fault->code)
            drop(run);
        if (!fault->code || run->n_epochs)
            run->fault = *fault;
    }
    pthread_mutex_unlock(&runs->lock);
}

/* With the lock held. */
static void use_until(struct run *run, int64_t now_ms, double half_life_ms) {
    use_add(&run->use, run->cores, run->charged_ms, now_ms, half_life_ms);
    run->charged_ms = now_ms;
}

double run_take_use(struct runs *runs, struct run *run, int64_t now_ms, double half_life_ms) {
    pthread_mutex_lock(&runs->lock);
    use_until(run, now_ms, half_life_ms);
    run->written_ms = now_ms;
    double use = run->writing = run->use.core_seconds;
    pthread_mutex_unlock(&runs->lock);
    return use;
}

void runs_settle_use(struct runs *runs, int stored) {
    pthread_mutex_lock(&runs->lock);
    for (struct run *run = runs->list; run; run = run->next) {
        if (stored)
            run->use.core_seconds -= run->writing;
        run->writing = 0;
    }
    pthread_mutex_unlock(&runs->lock);
}

void runs_set_cores(struct runs *runs, int64_t seq, int cores, int64_t now_ms,
                    double half_life_ms) {
    pthread_mutex_lock(&runs->lock);
    struct run *run = runs_find(runs, seq);
    if (run) {
        use_until(run, now_ms, half_life_ms);
        run->cores = cores;
    }
    pthread_mutex_unlock(&runs->lock);
}

/* Copies a text to *room and moves on behind it. */
static const char *keep(char **room, const char *text) {
    size_t size = strlen(text) + 1;
    char *copy = memcpy(*room, text, size);
    *room += size;
    return copy;
}

static size_t texts_size(const struct epoch *e, const struct figure *figures,
                         const struct epoch_histogram *histograms) {
    size_t size = 0;
    for (size_t i = 0; i < e->n_figures; i++)
        size += strlen(figures[i].name) + 1 +
                (figures[i].kind == FIGURE_TEXT ? strlen(figures[i].text) + 1 : 0);
    for (size_t i = 0; i < e->n_histograms; i++)
        size += strlen(histograms[i].split) + 1;
    return size;
}

/* One block: the epoch and its figures, histograms and what they are of, then all texts. */
static struct epoch *copy_epoch(const struct epoch *e, const struct figure *figures,
                                const struct epoch_histogram *histograms) {
    size_t head = sizeof *e + e->n_figures * sizeof *figures;
    size_t body = e->n_histograms * (sizeof *histograms + sizeof(struct histogram));
    struct epoch *epoch = malloc(head + body + texts_size(e, figures, histograms));
    if (!epoch)
        return NULL;
    *epoch = *e;
    epoch->histograms = (struct epoch_histogram *)(void *)((char *)epoch + head);
    struct histogram *counts = (struct histogram *)(void *)(epoch->histograms + e->n_histograms);
    char *room = (char *)(counts + e->n_histograms);
    for (size_t i = 0; i < e->n_figures; i++) {
        epoch->figures[i] = figures[i];
        epoch->figures[i].name = keep(&room, figures[i].name);
        if (figures[i].kind == FIGURE_TEXT)
            epoch->figures[i].text = keep(&room, figures[i].text);
    }
    for (size_t i = 0; i < e->n_histograms; i++) {
        counts[i] = *histograms[i].histogram;
        epoch->histograms[i] = histograms[i];
        epoch->histograms[i].histogram = &counts[i];
        epoch->histograms[i].split = keep(&room, histograms[i].split);
    }
    return epoch;
}

static void append(struct run *run, struct epoch *epoch) {
    if (run->last)
        run->last->next = epoch;
    else
        run->first = epoch;
    run->last = epoch;
    run->n_epochs++;
}

int runs_add_epoch(struct runs *runs, int64_t seq, int number, const struct figure *figures,
                   size_t n_figures, const struct epoch_histogram *histograms, size_t n_histograms,
                   struct ovr_err *err) {
    const struct epoch shape = {
        .number = number, .n_histograms = n_histograms, .n_figures = n_figures};
    struct epoch *epoch = copy_epoch(&shape, figures, histograms);
    if (!epoch)
        return ovr_nomem(err, "the figures of an epoch");
    pthread_mutex_lock(&runs->lock);
    struct run *run = runs_find(runs, seq);
    int rc;
    if (!run)
        rc = ovr_fail(err, OVR_CONFLICT, NULL, "the experiment is not running any more");
    else if (run->fault.code)
        rc = ovr_fail(err, run->fault.code, NULL, "%s", run->fault.text);
    else {
        append(run, epoch);
        rc = (int)run->n_epochs;
    }
    pthread_mutex_unlock(&runs->lock);
    if (rc < 0)
        free(epoch);
    return rc;
}
