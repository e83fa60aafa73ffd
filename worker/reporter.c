#include "worker/reporter.h"

#include "core/utf8.h"
#include "server/clock.h"
#include "server/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    EPOCHS_A_REPORT = 32, /* so that it never has a megabyte */
    LINES_A_REPORT = 64,
    EPOCHS_MOST = 512,     /* that wait; then training waits too */
    EVERY_MS = 2000,       /* without anything to tell, or a third of the lease */
    EPOCHS_EVERY_MS = 300, /* with epochs to tell */
    TICK_MS = 100,
};

struct reporter {
    struct reporter_config config;
    pthread_t thread;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t changed;
    json_t *begin, *epochs, *lines, *checkpoint, *end;
    int restart_from;
    int started, begun, ended,
        closing; /* the first, the last was taken; nothing more is to be sent */
    int rc;      /* why no report is taken any more */
    struct ovr_err err;
    _Atomic int over;
    /* Of the thread alone: */
    int64_t number, sent_ms, deadline_ms;
};

/* The first reason stands, but for this one. */
static void give_up(struct reporter *r, int rc, const struct ovr_err *why) {
    r->rc = rc;
    r->err = *why;
    r->over = 1;
    *r->config.stop = STOP_CANCEL;
}

/* ---- One report ---- */

/* Moves up to n items from the front of a list to a new one. */
static json_t *take(json_t *list, size_t n) {
    json_t *taken = json_array();
    while (taken && n-- && json_array_size(list))
        if (json_array_append(taken, json_array_get(list, 0)) || json_array_remove(list, 0)) {
            json_decref(taken);
            return NULL;
        }
    return taken;
}

/* Puts a member into the report, which takes it over; what was not there is no fault. */
static int put(json_t *report, const char *name, json_t **member) {
    json_t *value = *member;
    *member = NULL;
    return value ? json_object_set_new(report, name, value) : 0;
}

/* A list's first n items, where it has any. */
static int put_some(json_t *report, const char *name, json_t *list, size_t n) {
    return json_array_size(list) ? json_object_set_new(report, name, take(list, n)) : 0;
}

/* A checkpoint, and the end, speak of all epochs before them. Returns NULL without memory. */
static char *compose(struct reporter *r) {
    json_t *progress = encode_progress(r->config.progress, r->config.threads);
    json_t *report = json_pack("{s:I, s:o}", "number", (json_int_t)r->number, "progress", progress);
    json_t *restart = r->restart_from ? json_integer(r->restart_from) : NULL;
    int failed = !report || put(report, "begin", &r->begin) ||
                 put(report, "restart_from", &restart) ||
                 put_some(report, "epochs", r->epochs, EPOCHS_A_REPORT) ||
                 put_some(report, "log", r->lines, LINES_A_REPORT);
    r->restart_from = 0;
    if (!failed && !json_array_size(r->epochs))
        failed = put(report, "checkpoint", &r->checkpoint);
    if (!failed && !json_array_size(r->epochs) && !json_array_size(r->lines))
        failed = put(report, "end", &r->end);
    char *text = failed ? NULL : json_dumps(report, JSON_COMPACT | JSON_REAL_PRECISION(17));
    json_decref(report);
    return text;
}

/* Answered: the lease goes on from when it was sent. */
static int read_answer(struct reporter *r, const char *answer, struct ovr_err *err) {
    json_int_t number = -1;
    const char *stop = "";
    json_t *document = json_loads(answer, 0, NULL);
    int rc = json_unpack(document, "{s:I, s:s}", "number", &number, "stop", &stop);
    int pause = !rc && strcmp(stop, "pause") == 0;
    json_decref(document);
    if (rc || number != r->number)
        return ovr_fail(err, OVR_INVALID, NULL,
                        "the daemon does not answer report %lld as a daemon does",
                        (long long)r->number);
    int no = STOP_NO;
    if (pause)
        atomic_compare_exchange_strong(r->config.stop, &no, STOP_PAUSE);
    return 0;
}

/* Every try may take as long as the lease lasts, and each is of the same bytes. */
static int send_report(struct reporter *r, const char *text, struct ovr_err *err) {
    char *answer = NULL;
    const struct call call = {
        .path = "/v1/work/reports", .json = text, .deadline_ms = r->deadline_ms, .stop = &r->over};
    int64_t sent_ms = monotonic_ms();
    struct ovr_err why = {0};
    int rc = client_call(r->config.client, &call, &answer, &why);
    if (rc)
        ovr_fail(err, rc, NULL, "%s%s",
                 rc == OVR_IO ? "the lease ran out without an answer; the last try: " : "",
                 why.text);
    else
        rc = read_answer(r, answer, err);
    free(answer);
    r->sent_ms = monotonic_ms();
    if (!rc)
        r->deadline_ms = sent_ms + r->config.lease_ms;
    return rc;
}

/* ---- The thread ---- */

/* Holding the lock. */
static int is_due(const struct reporter *r) {
    int every = r->config.lease_ms / 3 < EVERY_MS ? r->config.lease_ms / 3 : EVERY_MS;
    int64_t since = monotonic_ms() - r->sent_ms;
    if (r->begin || r->end || r->checkpoint || json_array_size(r->epochs) >= EPOCHS_A_REPORT)
        return 1;
    return since >= every ||
           (since >= EPOCHS_EVERY_MS && (json_array_size(r->epochs) || json_array_size(r->lines)));
}

static void wait_a_tick(struct reporter *r) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += TICK_MS * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    pthread_cond_timedwait(&r->changed, &r->lock, &until);
    if (r->config.tick)
        r->config.tick(r->config.context);
}

static void *report(void *arg) {
    struct reporter *r = arg;
    pthread_mutex_lock(&r->lock);
    while (!r->closing && !r->ended && !r->rc) {
        if (!is_due(r)) {
            wait_a_tick(r);
            continue;
        }
        struct ovr_err why = {0};
        int last, rc;
        r->number++;
        last = r->end != NULL;
        char *text = compose(r);
        last = last && !r->end; /* it is in this one */
        pthread_mutex_unlock(&r->lock);
        rc = text ? send_report(r, text, &why) : ovr_nomem(&why, "a report");
        free(text);
        pthread_mutex_lock(&r->lock);
        if (rc)
            give_up(r, rc, &why);
        r->begun |= !rc;
        r->ended = !rc && last;
        pthread_cond_broadcast(&r->changed);
    }
    pthread_mutex_unlock(&r->lock);
    return NULL;
}

/* ---- What others call ---- */

int reporter_start(struct reporter **out, const struct reporter_config *config, const char *node,
                   int cores, const char *job, struct ovr_err *err) {
    pthread_condattr_t clock;
    struct reporter *r = calloc(1, sizeof *r);
    *out = NULL;
    if (!r)
        return ovr_nomem(err, "the reports");
    r->config = *config;
    r->number = config->batch;
    r->deadline_ms = config->leased_ms + config->lease_ms;
    r->begin = json_pack("{s:s, s:i, s:s*}", "node", node, "cores", cores, "job", job);
    r->epochs = json_array();
    r->lines = json_array();
    pthread_mutex_init(&r->lock, NULL);
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&r->changed, &clock);
    pthread_condattr_destroy(&clock);
    r->started = r->begin && r->epochs && r->lines && !pthread_create(&r->thread, NULL, report, r);
    if (!r->started) {
        reporter_free(r);
        return ovr_nomem(err, "the reports");
    }
    *out = r;
    pthread_mutex_lock(&r->lock);
    while (!r->begun && !r->rc)
        pthread_cond_wait(&r->changed, &r->lock);
    pthread_mutex_unlock(&r->lock);
    return reporter_state(r, err);
}

void reporter_free(struct reporter *r) {
    if (!r)
        return;
    pthread_mutex_lock(&r->lock);
    r->closing = r->over = 1;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
    if (r->started)
        pthread_join(r->thread, NULL);
    json_decref(r->begin);
    json_decref(r->epochs);
    json_decref(r->lines);
    json_decref(r->checkpoint);
    json_decref(r->end);
    pthread_cond_destroy(&r->changed);
    pthread_mutex_destroy(&r->lock);
    free(r);
}

void reporter_restart(struct reporter *r, int epoch) {
    pthread_mutex_lock(&r->lock);
    r->restart_from = epoch;
    pthread_mutex_unlock(&r->lock);
}

int reporter_epoch(struct reporter *r, int epoch, const struct epoch_facts *facts,
                   struct ovr_err *err) {
    json_t *encoded = encode_epoch(epoch, facts);
    pthread_mutex_lock(&r->lock);
    while (!r->rc && json_array_size(r->epochs) >= EPOCHS_MOST)
        pthread_cond_wait(&r->changed, &r->lock);
    int failed = json_array_append_new(r->epochs, encoded);
    pthread_mutex_unlock(&r->lock);
    return failed ? ovr_nomem(err, "an epoch's figures") : 0;
}

void reporter_log(struct reporter *r, int warning, const char *format, ...) {
    char text[400];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    for (char *c = text; *c; c++) /* one line, whatever a library says */
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            *c = ' ';
    utf8_mend(text); /* it may have been cut inside a character */
    log_line(warning ? LOG_WARN : LOG_INFO, "%s", text);
    pthread_mutex_lock(&r->lock); /* a line that finds no memory is in the worker's log alone */
    json_array_append_new(
        r->lines, json_pack("{s:s, s:s}", "level", warning ? "warning" : "info", "text", text));
    pthread_mutex_unlock(&r->lock);
}

void reporter_checkpoint(struct reporter *r, int64_t number, int64_t computed_ms) {
    json_t *checkpoint = json_pack("{s:I, s:I}", "number", (json_int_t)number, "computed_ms",
                                   (json_int_t)computed_ms);
    pthread_mutex_lock(&r->lock);
    json_decref(r->checkpoint); /* one that was not told yet: the newer one counts */
    r->checkpoint = checkpoint;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
}

int reporter_end(struct reporter *r, json_t *end, struct ovr_err *err) {
    if (!end)
        return ovr_nomem(err, "the last report");
    pthread_mutex_lock(&r->lock);
    r->end = end;
    pthread_cond_broadcast(&r->changed);
    while (!r->ended && !r->rc)
        pthread_cond_wait(&r->changed, &r->lock);
    pthread_mutex_unlock(&r->lock);
    return reporter_state(r, err);
}

int reporter_state(struct reporter *r, struct ovr_err *err) {
    pthread_mutex_lock(&r->lock);
    int rc = r->rc;
    if (rc)
        ovr_fail(err, rc, NULL, "%s", r->err.text);
    pthread_mutex_unlock(&r->lock);
    return rc;
}

const _Atomic int *reporter_over(const struct reporter *r) {
    return &r->over;
}
