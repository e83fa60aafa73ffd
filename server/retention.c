#include "server/retention.h"

#include "server/log.h"
#include "server/people.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { LOOK_EVERY_S = 3600, PAGE = 100 };

/* One pass over those in a state. */
struct pass {
    const char *state; /* NULL: any */
    int64_t days;
    struct retention_outcome *outcome;
};

static int note(void *context, const struct pruned *pruned) {
    const struct pass *pass = context;
    const struct experiment *e = pruned->experiment;
    if (pruned->kept) {
        pass->outcome->kept++;
        log_line(LOG_DEBUG, "experiment=%s stays: %s", e->id, pruned->kept);
        return 0;
    }
    pass->outcome->deleted++;
    pass->outcome->bytes += pruned->bytes;
    log_line(LOG_INFO, "experiment=%s deleted by retention: it %s more than %lld days ago", e->id,
             e->state == STATE_SUCCEEDED ? "succeeded"
             : e->state == STATE_FAILED  ? "failed"
                                         : "was cancelled",
             (long long)pass->days);
    return 0;
}

static int run_pass(const struct prune_site *site, struct pass *pass, int64_t now,
                    const _Atomic int *stop, struct ovr_err *err) {
    const int64_t day_ms = 86400000;
    const struct prune_rules rules = {
        .ended_before = now - pass->days * day_ms, .state = pass->state, .stop = stop};
    struct prune_place place = {0};
    int more = pass->days > 0, rc = 0;
    while (more && !rc && !(stop && *stop))
        rc = prune_page(site, &rules, PAGE, &place, &more, note, pass, err);
    return rc;
}

int retention_run(const struct prune_site *site, const struct retention_rules *rules,
                  int64_t now_ms, const _Atomic int *stop, struct retention_outcome *outcome,
                  struct ovr_err *err) {
    /* Somebody asks, so that it is in the audit; but nobody with a name. */
    const struct asker daemon = {.level = LEVEL_ADMIN}, *before = asking();
    struct pass passes[] = {{state_names[STATE_FAILED], rules->failed_days, outcome},
                            {state_names[STATE_CANCELLED], rules->failed_days, outcome},
                            {NULL, rules->days, outcome}};
    int rc = 0;
    *outcome = (struct retention_outcome){0};
    ask_as(&daemon);
    for (size_t i = 0; i < sizeof passes / sizeof *passes && !rc; i++)
        rc = run_pass(site, &passes[i], now_ms, stop, err);
    ask_as(before);
    return rc;
}

struct retention {
    struct prune_site site;
    struct retention_rules rules;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake; /* signalled when `stop` has been set */
    _Atomic int stop;
};

static void look(struct retention *r) {
    struct retention_outcome outcome;
    struct ovr_err err = {0};
    if (retention_run(&r->site, &r->rules, now_ms(), &r->stop, &outcome, &err))
        log_line(LOG_WARN, "retention: %s; it goes on in an hour", err.text);
    if (outcome.deleted)
        log_line(LOG_INFO,
                 "retention: deleted %lld experiments, freed %.1f MB; the tag " KEEP_TAG
                 " saves what is to stay",
                 (long long)outcome.deleted, (double)outcome.bytes / 1e6);
}

static void *keep_looking(void *context) {
    struct retention *r = context;
    pthread_mutex_lock(&r->lock);
    while (!r->stop) {
        struct timespec until;
        pthread_mutex_unlock(&r->lock);
        look(r);
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += LOOK_EVERY_S;
        pthread_mutex_lock(&r->lock);
        while (!r->stop && pthread_cond_timedwait(&r->wake, &r->lock, &until) == 0)
            ;
    }
    pthread_mutex_unlock(&r->lock);
    return NULL;
}

static void retention_free(struct retention *r) {
    pthread_cond_destroy(&r->wake);
    pthread_mutex_destroy(&r->lock);
    free(r);
}

int retention_start(struct retention **out, const struct prune_site *site,
                    const struct retention_rules *rules, struct ovr_err *err) {
    pthread_condattr_t clock;
    *out = NULL;
    if (rules->days <= 0 && rules->failed_days <= 0)
        return 0;
    struct retention *r = calloc(1, sizeof *r);
    if (!r)
        return ovr_nomem(err, "retention");
    r->site = *site;
    r->rules = *rules;
    pthread_mutex_init(&r->lock, NULL);
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&r->wake, &clock);
    pthread_condattr_destroy(&clock);
    if (pthread_create(&r->thread, NULL, keep_looking, r)) {
        retention_free(r);
        return ovr_nomem(err, "the thread of retention");
    }
    *out = r;
    return 0;
}

void retention_stop(struct retention *r) {
    if (!r)
        return;
    pthread_mutex_lock(&r->lock);
    r->stop = 1;
    pthread_cond_signal(&r->wake);
    pthread_mutex_unlock(&r->lock);
    pthread_join(r->thread, NULL);
    retention_free(r);
}
