#include "server/cluster.h"

#include "core/utf8.h"
#include "server/clock.h"
#include "server/log.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Between tries after a refusal: twice as long each time, up to this. */
enum { HOLD_MOST_S = 300 };

/* A worker that has ended its experiment gets so long to end itself. */
enum { LEAVE_MS = 30000 };

/* A job that runs gets so long, and its lease, to have its worker speak to us. */
enum { ARRIVE_MS = 600000 };

/* So many polls pass between two looks for jobs of ours that should not be there. */
enum { ORPHANS_EVERY = 20 };

/* Polls at which a job has to be gone before that counts. */
enum { GONE_POLLS = 2 };

/* What requests tell of an attempt. */
struct news {
    struct attempt attempt; /* by its newest report */
    struct progress progress;
    int reported;     /* there are these two */
    int64_t heard_ms; /* its lease runs from here */
    int cancel;       /* Slurm is to end it now */
};

/* An attempt that Slurm has, or may have. */
struct entry {
    struct attempt attempt;
    struct news news;
    int over; /* not live any more, as of the last look into the store */
    int64_t over_ms;
    char reason[128]; /* that the store has */
    /* As of the last poll: */
    int polled;                 /* in this round */
    int told;                   /* to cancel it, since then */
    int asked;                  /* we have ever asked for that */
    int known;                  /* Slurm has it: then status */
    struct slurm_status status; /* the last that there was */
    int gone_polls;             /* at which it was unknown, or completed */
    int64_t runs_since_ms;      /* 0: not seen to run */
};

/* Signalling rule: `lock` guards the list and the view. The thread sleeps on `work`, at most until
 * the next poll is due, and is woken by what came into the queue or is to be cancelled. It talks to
 * Slurm and to the store unlocked. Requests write nothing but news; all else the thread alone
 * changes, with the lock, so that it may read it without. */
struct cluster {
    struct cluster_config config;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t work;
    struct entry *list;
    size_t n, room;
    _Atomic int stopping;
    int woken;
    struct cluster_view view;
    /* The thread's own: */
    int64_t poll_at_ms, send_at_ms;
    int hold_s;    /* 0: the last try went well */
    int stillborn; /* jobs ended before their worker reached us, and none has since */
    int polls;
};

static void wake(struct cluster *cluster) {
    pthread_mutex_lock(&cluster->lock);
    cluster->woken = 1;
    pthread_cond_signal(&cluster->work);
    pthread_mutex_unlock(&cluster->lock);
}

/* What there is to say of Slurm */

static void say_trouble(struct cluster *cluster, int answers, const char *trouble) {
    pthread_mutex_lock(&cluster->lock);
    int was_well = !*cluster->view.trouble;
    cluster->view.answers = answers;
    snprintf(cluster->view.trouble, sizeof cluster->view.trouble, "%s", trouble);
    utf8_mend(cluster->view.trouble); /* it may have been cut inside a character */
    pthread_mutex_unlock(&cluster->lock);
    if (*trouble && was_well)
        log_line(LOG_WARN, "nothing is sent to the cluster for now: %s", trouble);
    else if (!*trouble && !was_well)
        log_line(LOG_INFO, "the cluster takes experiments again");
}

/* After a call of one of its programs. */
static void note_answer(struct cluster *cluster, int rc, const struct ovr_err *err) {
    if (cluster->stopping)
        return; /* it was we who ended the call */
    if (rc)
        say_trouble(cluster, 0, err->text);
    else if (!cluster->view.answers)
        say_trouble(cluster, 1, "");
}

/* Nothing is sent for a while. */
static void hold(struct cluster *cluster) {
    int least = cluster->config.poll_s;
    cluster->hold_s = cluster->hold_s ? 2 * cluster->hold_s : least;
    if (cluster->hold_s > HOLD_MOST_S)
        cluster->hold_s = HOLD_MOST_S;
    cluster->send_at_ms = monotonic_ms() + cluster->hold_s * INT64_C(1000);
}

/* Slurm took a job. While those before it came to nothing, the next waits whether this one does. */
static void go_on(struct cluster *cluster) {
    if (cluster->stillborn) {
        cluster->send_at_ms = monotonic_ms() + cluster->hold_s * INT64_C(1000);
        return;
    }
    cluster->hold_s = 0;
    cluster->send_at_ms = 0;
    say_trouble(cluster, 1, "");
}

/* The list */

static struct entry *find(struct cluster *cluster, int64_t experiment, int number) {
    for (size_t i = 0; i < cluster->n; i++)
        if (cluster->list[i].attempt.experiment == experiment &&
            cluster->list[i].attempt.number == number)
            return &cluster->list[i];
    return NULL;
}

static struct entry *find_live(struct cluster *cluster, const char *id) {
    for (size_t i = 0; i < cluster->n; i++)
        if (!cluster->list[i].over && strcmp(cluster->list[i].attempt.id, id) == 0)
            return &cluster->list[i];
    return NULL;
}

static struct entry *append(struct cluster *cluster, const struct attempt *attempt,
                            struct ovr_err *err) {
    struct entry *entry = NULL;
    pthread_mutex_lock(&cluster->lock);
    if (cluster->n == cluster->room) {
        size_t room = cluster->room ? 2 * cluster->room : 16;
        struct entry *list = realloc(cluster->list, room * sizeof *list);
        if (list)
            cluster->list = list, cluster->room = room;
    }
    if (cluster->n < cluster->room) {
        entry = &cluster->list[cluster->n++];
        *entry = (struct entry){.attempt = *attempt, .news.heard_ms = monotonic_ms()};
    }
    pthread_mutex_unlock(&cluster->lock);
    if (!entry)
        ovr_nomem(err, "the list of what was sent to the cluster");
    return entry;
}

static void drop(struct cluster *cluster, struct entry *entry) {
    pthread_mutex_lock(&cluster->lock);
    *entry = cluster->list[--cluster->n];
    pthread_mutex_unlock(&cluster->lock);
}

static void set_job(struct cluster *cluster, struct entry *entry, const char *job) {
    pthread_mutex_lock(&cluster->lock);
    snprintf(entry->attempt.job, sizeof entry->attempt.job, "%s", job);
    pthread_mutex_unlock(&cluster->lock);
}

/* What requests told since the last round. */
static void take_news(struct cluster *cluster) {
    int begun = 0;
    pthread_mutex_lock(&cluster->lock);
    for (size_t i = 0; i < cluster->n; i++) {
        struct entry *entry = &cluster->list[i];
        char job[JOB_ID_SIZE];
        if (!entry->news.reported)
            continue;
        begun |= !entry->attempt.begun_at;
        memcpy(job, entry->attempt.job, sizeof job);
        entry->attempt = entry->news.attempt;
        if (*job)
            memcpy(entry->attempt.job, job, sizeof job);
    }
    pthread_mutex_unlock(&cluster->lock);
    if (!begun || !cluster->stillborn)
        return;
    cluster->stillborn = cluster->hold_s = 0;
    cluster->send_at_ms = 0;
    if (cluster->view.answers)
        say_trouble(cluster, 1, "");
}

/* Looks into the store: what is not live there any more is over, whoever ended it. */
static int look_into_store(struct cluster *cluster, struct ovr_err *err) {
    struct attempt *live;
    size_t n;
    int rc = store_list_attempts(cluster->config.store, &live, &n, err);
    if (rc)
        return rc;
    pthread_mutex_lock(&cluster->lock);
    for (size_t i = 0; i < cluster->n; i++) {
        struct entry *entry = &cluster->list[i];
        int there = 0;
        for (size_t k = 0; k < n && !there; k++)
            there = live[k].experiment == entry->attempt.experiment &&
                    live[k].number == entry->attempt.number;
        if (!there && !entry->over)
            entry->over_ms = monotonic_ms();
        entry->over = !there;
    }
    pthread_mutex_unlock(&cluster->lock);
    for (size_t i = 0; !rc && i < n; i++)
        if (!find(cluster, live[i].experiment, live[i].number) && !append(cluster, &live[i], err))
            rc = OVR_NOMEM;
    free(live);
    return rc;
}

/* Asking Slurm */

static void take_status(struct entry *entry, const struct slurm_status *status, int64_t now) {
    entry->polled = 1;
    entry->told = 0;
    entry->known = status != NULL;
    if (status)
        entry->status = *status;
    int gone = !status || status->state == SLURM_DONE;
    entry->gone_polls = gone ? entry->gone_polls + 1 : 0;
    if (status && status->state == SLURM_RUNS && !entry->runs_since_ms)
        entry->runs_since_ms = now;
}

/* For all that were sent, in one call. */
static int poll_slurm(struct cluster *cluster, struct ovr_err *err) {
    struct slurm_status *list;
    size_t n;
    const char **names = calloc(cluster->n, sizeof *names);
    if (!names)
        return ovr_nomem(err, "the names of jobs");
    for (size_t i = 0; i < cluster->n; i++)
        names[i] = cluster->list[i].attempt.job_name;
    int rc = slurm_poll(&cluster->config.slurm, names, cluster->n, &list, &n, err);
    free(names);
    if (rc)
        return rc;
    int64_t now = monotonic_ms();
    for (size_t i = 0; i < cluster->n; i++) {
        const struct slurm_status *status = NULL;
        for (size_t k = 0; k < n && !status; k++)
            if (strcmp(list[k].name, cluster->list[i].attempt.job_name) == 0)
                status = &list[k];
        take_status(&cluster->list[i], status, now);
    }
    free(list);
    return 0;
}

/* Whether a job that bears a name of ours has no business to be there. Of an experiment that we
 * don't know it is another daemon's. */
static int is_orphan(struct cluster *cluster, const struct slurm_status *job) {
    struct experiment e;
    char id[ID_SIZE];
    for (size_t i = 0; i < cluster->n; i++) {
        const struct attempt *attempt = &cluster->list[i].attempt;
        if (strcmp(attempt->job_name, job->name) == 0)
            return *attempt->job && strcmp(attempt->job, job->id) != 0;
    }
    if (sscanf(job->name, JOB_PREFIX "%12[a-z0-9]", id) != 1 ||
        store_get_experiment(cluster->config.store, id, &e, NULL))
        return 0;
    experiment_release(&e);
    return 1;
}

/* Jobs that were sent twice, since nobody knew whether the first try was taken, and those whose
 * experiment was ended while nobody could tell Slurm. */
static int cancel_orphans(struct cluster *cluster, struct ovr_err *err) {
    struct slurm_status *list;
    size_t n;
    int rc = slurm_list(&cluster->config.slurm, JOB_PREFIX, &list, &n, err);
    if (rc)
        return rc;
    for (size_t i = 0; !rc && i < n; i++) {
        const char *id = list[i].id;
        if (!is_orphan(cluster, &list[i]))
            continue;
        log_line(LOG_INFO, "job %s, %s, is cancelled: its attempt is over", id, list[i].name);
        rc = slurm_cancel(&cluster->config.slurm, &id, 1, err);
    }
    free(list);
    return rc;
}

/* Returns whether there is an answer. */
static int ask_slurm(struct cluster *cluster) {
    struct ovr_err err = {0};
    int rc = 0;
    cluster->poll_at_ms = monotonic_ms() + cluster->config.poll_s * INT64_C(1000);
    if (!cluster->view.answers || cluster->polls % ORPHANS_EVERY == 0)
        rc = cancel_orphans(cluster, &err);
    if (!rc && cluster->n)
        rc = poll_slurm(cluster, &err);
    cluster->polls = rc ? 0 : cluster->polls + 1;
    note_answer(cluster, rc, &err);
    return rc == 0;
}

/* What becomes of an attempt */

/* After the store took the end of an attempt, or had it already: Slurm is to forget it. Returns 0
 * if it did not. */
static int settle(struct cluster *cluster, struct entry *entry, int rc, const struct ovr_err *err) {
    if (rc && rc != OVR_CONFLICT) {
        log_line(LOG_ERROR, "experiment=%s the end of its attempt could not be stored: %s",
                 entry->attempt.id, err->text);
        return 0; /* the next round tries again */
    }
    pthread_mutex_lock(&cluster->lock);
    if (!entry->over)
        entry->over_ms = monotonic_ms();
    entry->over = entry->news.cancel = 1;
    pthread_mutex_unlock(&cluster->lock);
    if (cluster->config.ended)
        cluster->config.ended(cluster->config.context, entry->attempt.id);
    return 1;
}

static void lose(struct cluster *cluster, struct entry *entry, const char *reason) {
    struct ovr_err err = {0};
    log_line(LOG_WARN, "experiment=%s job %s was lost: %s", entry->attempt.id, entry->attempt.job,
             reason);
    int rc = store_lose_attempt(cluster->config.store, &entry->attempt, reason, &err);
    if (settle(cluster, entry, rc, &err) &&
        !entry->attempt.begun_at) { /* others would fare alike */
        cluster->stillborn++;
        say_trouble(cluster, 1, reason);
        hold(cluster);
    }
}

static void fail(struct cluster *cluster, struct entry *entry, const char *kind,
                 const char *detail) {
    struct ovr_err err = {0};
    log_line(LOG_WARN, "experiment=%s failed on the cluster: %s", entry->attempt.id, detail);
    int rc = store_fail_attempt(cluster->config.store, &entry->attempt, kind, detail, &err);
    settle(cluster, entry, rc, &err);
}

/* Whoever cancels a job in Slurm does not want to see it come back. */
static void fail_cancelled(struct cluster *cluster, struct entry *entry, const char *job) {
    char text[300];
    snprintf(text, sizeof text,
             "job %s was cancelled in Slurm (scancel, or whoever runs the cluster), not through "
             "this service; POST /v1/experiments/%s/rerun sends it again",
             job, entry->attempt.id);
    fail(cluster, entry, "cluster-cancelled", text);
}

/* Slurm says that the job is over, and there was no last report. */
static void judge_end(struct cluster *cluster, struct entry *entry) {
    const struct slurm_status *s = &entry->status;
    const char *node = *s->node ? s->node : "an unknown node";
    char text[640], output[160];
    if (s->state == SLURM_CANCELLED) {
        fail_cancelled(cluster, entry, s->id);
    } else if (strcmp(s->word, "OUT_OF_MEMORY") == 0) {
        snprintf(text, sizeof text,
                 "job %s took more memory on %s than the estimate gave it, and Slurm ended it",
                 s->id, node);
        fail(cluster, entry, "out-of-memory", text);
    } else if (!entry->attempt.begun_at && s->state != SLURM_LOST) {
        slurm_output(&cluster->config.slurm, s->id, output, sizeof output);
        snprintf(
            text, sizeof text,
            "job %s ended on %s (%s) before its worker reached the daemon. %s, on the first of "
            "its nodes, says why; does %.100s exist there, and does %.100s answer from there?",
            s->id, node, s->word, output, cluster->config.orders.worker,
            cluster->config.orders.url);
        lose(cluster, entry, text);
    } else {
        snprintf(text, sizeof text, "job %s ended on %s without a last report: Slurm says %s",
                 s->id, node, s->word);
        lose(cluster, entry, text);
    }
}

/* Why it waits, when that has changed. */
static void note_reason(struct cluster *cluster, struct entry *entry, const char *reason) {
    if (strcmp(entry->reason, reason) == 0)
        return;
    if (store_note_reason(cluster->config.store, &entry->attempt, reason, NULL) == 0)
        snprintf(entry->reason, sizeof entry->reason, "%s", reason);
}

/* It is on its node, where its worker begins, or fails to. */
static void note_node(struct cluster *cluster, struct entry *entry) {
    char text[100];
    snprintf(text, sizeof text, "Running on %.64s", entry->status.node);
    note_reason(cluster, entry, text);
}

/* It was sent, though the daemon that did it ended before it could note that. */
static void note_found(struct cluster *cluster, struct entry *entry) {
    struct ovr_err err = {0};
    set_job(cluster, entry, entry->status.id);
    if (store_note_job(cluster->config.store, &entry->attempt, entry->attempt.job, &err))
        log_line(LOG_ERROR, "experiment=%s the number of its job could not be stored: %s",
                 entry->attempt.id, err.text);
}

/* A live attempt that Slurm was just asked about. */
static void judge_status(struct cluster *cluster, struct entry *entry, int64_t now) {
    int64_t arrive_ms = ARRIVE_MS + cluster->config.lease_s * INT64_C(1000);
    int begun = entry->attempt.begun_at != 0;
    if (!entry->known) {
        if (*entry->attempt.job && !begun && entry->gone_polls >= GONE_POLLS)
            lose(cluster, entry, "Slurm does not know its job any more, and it never began");
        return; /* one that began has its lease; one that was not sent is sent again */
    }
    if (!*entry->attempt.job)
        note_found(cluster, entry);
    if (entry->status.state == SLURM_WAITS)
        note_reason(cluster, entry, entry->status.reason);
    else if (entry->status.state == SLURM_RUNS)
        note_node(cluster, entry);
    else if (entry->status.state != SLURM_DONE || entry->gone_polls >= GONE_POLLS)
        judge_end(cluster, entry);
    if (!entry->over && !begun && entry->runs_since_ms && now - entry->runs_since_ms > arrive_ms)
        lose(cluster, entry, "its job runs, but its worker never reached the daemon");
}

static void judge_lease(struct cluster *cluster, struct entry *entry, int64_t now) {
    char text[200];
    pthread_mutex_lock(&cluster->lock);
    int64_t silent_ms = entry->attempt.begun_at ? now - entry->news.heard_ms : 0;
    pthread_mutex_unlock(&cluster->lock);
    if (silent_ms <= cluster->config.lease_s * INT64_C(1000))
        return;
    snprintf(text, sizeof text, "its worker on %.64s was not heard of for %lld s",
             entry->attempt.node, (long long)silent_ms / 1000);
    lose(cluster, entry, text);
}

/* What to do with one that is over. */
static enum parting {
    STAYS,
    IS_TO_BE_CANCELLED,
    WAS_CANCELLED,
    IS_GONE
} part(const struct cluster *cluster, const struct entry *entry, int cancel, int64_t now) {
    enum slurm_state state = entry->status.state;
    int ended = entry->known && state != SLURM_WAITS && state != SLURM_RUNS;
    if (ended && state == SLURM_CANCELLED && !entry->asked)
        return WAS_CANCELLED;
    if (ended || (entry->polled && !entry->known))
        return IS_GONE;
    if (!cluster->view.answers || (!*entry->attempt.job && !entry->known))
        return STAYS; /* the next poll finds its job by name, or finds none */
    if (entry->told)
        return STAYS; /* the next poll tells whether that helped */
    if (!cancel && entry->attempt.begun_at && now - entry->over_ms < LEAVE_MS)
        return STAYS; /* its worker may have a moment to end */
    return IS_TO_BE_CANCELLED;
}

static enum parting part_from(struct cluster *cluster, const struct entry *entry, int64_t now) {
    pthread_mutex_lock(&cluster->lock);
    int cancel = entry->news.cancel;
    pthread_mutex_unlock(&cluster->lock);
    return entry->over ? part(cluster, entry, cancel, now) : STAYS;
}

/* Somebody cancelled its job in Slurm, and the worker had the time to put the experiment back into
 * the queue: there it is to be no longer. Returns 0 as long as that is to come, since it can only
 * fail by its next attempt. */
static int undo_return(struct cluster *cluster, const struct entry *entry) {
    struct entry *next = find_live(cluster, entry->attempt.id);
    struct experiment e;
    if (next)
        fail_cancelled(cluster, next, entry->status.id);
    if (next || store_get_experiment(cluster->config.store, entry->attempt.id, &e, NULL))
        return 1;
    enum state state = e.state;
    experiment_release(&e);
    return state != STATE_QUEUED;
}

/* Those that are over leave the list; jobs that would go on without reason are cancelled. */
static void part_from_all(struct cluster *cluster, int64_t now) {
    struct ovr_err err = {0};
    for (size_t i = cluster->n; i-- > 0;) {
        enum parting parting = part_from(cluster, &cluster->list[i], now);
        if (parting == IS_GONE ||
            (parting == WAS_CANCELLED && undo_return(cluster, &cluster->list[i])))
            drop(cluster, &cluster->list[i]);
    }
    const char **ids = calloc(cluster->n + 1, sizeof *ids);
    size_t n = 0;
    for (size_t i = 0; ids && i < cluster->n; i++) {
        struct entry *entry = &cluster->list[i];
        if (part_from(cluster, entry, now) != IS_TO_BE_CANCELLED)
            continue;
        ids[n++] = *entry->attempt.job ? entry->attempt.job : entry->status.id;
        entry->told = entry->asked = 1;
    }
    if (n)
        note_answer(cluster, slurm_cancel(&cluster->config.slurm, ids, n, &err), &err);
    free(ids);
}

static void look_after(struct cluster *cluster, int polled) {
    int64_t now = monotonic_ms();
    for (size_t i = 0; i < cluster->n; i++) {
        struct entry *entry = &cluster->list[i];
        if (!polled)
            entry->polled = 0;
        if (!entry->over)
            judge_lease(cluster, entry, now);
        if (!entry->over && entry->polled)
            judge_status(cluster, entry, now);
    }
    part_from_all(cluster, now);
}

/* Sending */

/* What came of a try. An attempt that Slurm did not take does not count; whether one without an
 * answer was taken is found out by its name. */
static void take_answer(struct cluster *cluster, struct entry *entry, int rc,
                        const struct ovr_err *err) {
    struct store *store = cluster->config.store;
    struct ovr_err fault = {0};
    if (rc == 0) {
        go_on(cluster);
        log_line(LOG_INFO, "experiment=%s sent to the cluster as job %s", entry->attempt.id,
                 entry->attempt.job);
        rc = store_note_job(store, &entry->attempt, entry->attempt.job, &fault);
        if (rc && rc != OVR_CONFLICT)
            log_line(LOG_ERROR, "experiment=%s the number of its job could not be stored: %s",
                     entry->attempt.id, fault.text);
        return;
    }
    if (cluster->stopping)
        return;
    if (rc == OVR_IO) { /* polls will tell when it answers again */
        note_answer(cluster, rc, err);
        note_reason(cluster, entry, err->text);
        return;
    }
    if (rc == OVR_TOO_LARGE) { /* this one; the next may be of any size */
        fail(cluster, entry, "too-large", err->text);
        return;
    }
    hold(cluster);
    say_trouble(cluster, rc != OVR_NOT_FOUND, err->text);
    rc = store_withdraw_attempt(store, &entry->attempt, err->text, &fault);
    if (!rc || rc == OVR_CONFLICT)
        drop(cluster, entry);
    else
        log_line(LOG_ERROR, "experiment=%s could not be taken back: %s", entry->attempt.id,
                 fault.text);
}

static void submit(struct cluster *cluster, struct entry *entry, const char *token,
                   const struct experiment *e) {
    struct spec spec;
    struct slurm_job job;
    struct ovr_err err = {0};
    char script[CLUSTER_SCRIPT_SIZE], id[JOB_ID_SIZE] = "";
    int rc = spec_read_stored(e->spec, &spec, &err);
    if (rc == OVR_INVALID) {
        fail(cluster, entry, "invalid-spec", err.text);
        return;
    }
    if (!rc) {
        cluster_describe(&cluster->config.orders, &entry->attempt, token, e, &spec, script, &job);
        rc = slurm_submit(&cluster->config.slurm, &job, id, &err);
        explicit_bzero(script, sizeof script);
    }
    set_job(cluster, entry, id);
    take_answer(cluster, entry, rc, &err);
}

/* Those that were intended, and Slurm has no job of their name. */
static void send_again(struct cluster *cluster) {
    for (size_t i = cluster->n; i-- > 0 && monotonic_ms() >= cluster->send_at_ms;) {
        struct entry *entry = &cluster->list[i];
        struct experiment e;
        struct ovr_err err = {0};
        char token[WORK_TOKEN_SIZE];
        if (entry->over || *entry->attempt.job || entry->attempt.begun_at || !entry->polled ||
            entry->known)
            continue;
        entry->polled = 0; /* once a poll */
        int rc = store_renew_attempt(cluster->config.store, &entry->attempt, token, &err);
        if (rc == OVR_CONFLICT) /* it was cancelled a moment ago */
            continue;
        if (!rc)
            rc = store_get_experiment(cluster->config.store, entry->attempt.id, &e, &err);
        if (rc) {
            log_line(LOG_ERROR, "experiment=%s could not be sent again: %s", entry->attempt.id,
                     err.text);
            hold(cluster);
            return;
        }
        submit(cluster, entry, token, &e);
        experiment_release(&e);
    }
}

static int count_live(const struct cluster *cluster) {
    int live = 0;
    for (size_t i = 0; i < cluster->n; i++)
        live += !cluster->list[i].over;
    return live;
}

static int may_send(const struct cluster *cluster) {
    return cluster->view.answers && !cluster->stopping && monotonic_ms() >= cluster->send_at_ms &&
           count_live(cluster) < cluster->config.jobs;
}

/* From the queue, while there is room and Slurm takes them; but others are looked after in between,
 * however many there are that Slurm refuses one by one. */
static void send(struct cluster *cluster) {
    int64_t until_ms = monotonic_ms() + cluster->config.poll_s * INT64_C(1000);
    while (may_send(cluster)) {
        if (monotonic_ms() >= until_ms) {
            wake(cluster);
            return;
        }
        struct attempt attempt;
        struct experiment e;
        struct ovr_err err = {0};
        char token[WORK_TOKEN_SIZE];
        int rc = store_begin_attempt(cluster->config.store, &attempt, token, &e, &err);
        if (rc == OVR_NOT_FOUND)
            return;
        struct entry *entry = rc ? NULL : append(cluster, &attempt, &err);
        if (!entry) {
            log_line(LOG_ERROR, "nothing could be sent to the cluster: %s", err.text);
            hold(cluster);
        } else {
            submit(cluster, entry, token, &e);
        }
        if (!rc)
            experiment_release(&e);
    }
}

/* The thread */

/* Slurm is asked before the store: an attempt that is live after Slurm had it as ended got no last
 * report. */
static void go_round(struct cluster *cluster) {
    struct ovr_err err = {0};
    int due = monotonic_ms() >= cluster->poll_at_ms && (cluster->n || !cluster->view.answers);
    int polled = due && ask_slurm(cluster);
    take_news(cluster);
    if (look_into_store(cluster, &err)) {
        log_line(LOG_ERROR, "what was sent to the cluster could not be read: %s", err.text);
        return;
    }
    look_after(cluster, polled);
    send_again(cluster);
    send(cluster);
}

static void *work(void *arg) {
    struct cluster *cluster = arg;
    pthread_setname_np(pthread_self(), "cluster");
    while (!cluster->stopping) {
        go_round(cluster);
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += cluster->config.poll_s;
        pthread_mutex_lock(&cluster->lock);
        while (!cluster->woken && !cluster->stopping &&
               pthread_cond_timedwait(&cluster->work, &cluster->lock, &until) == 0)
            ;
        cluster->woken = 0;
        pthread_mutex_unlock(&cluster->lock);
    }
    return NULL;
}

static void cluster_free(struct cluster *cluster) {
    pthread_cond_destroy(&cluster->work);
    pthread_mutex_destroy(&cluster->lock);
    free(cluster->list);
    free(cluster);
}

int cluster_start(struct cluster **out, const struct cluster_config *config, struct ovr_err *err) {
    *out = NULL;
    struct cluster *cluster = calloc(1, sizeof *cluster);
    if (!cluster)
        return ovr_nomem(err, "the cluster");
    cluster->config = *config;
    cluster->config.slurm.stop = &cluster->stopping;
    pthread_condattr_t clock;
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&cluster->work, &clock);
    pthread_condattr_destroy(&clock);
    pthread_mutex_init(&cluster->lock, NULL);
    int rc = cluster_orders_check(&config->orders, err);
    rc = rc ? rc : look_into_store(cluster, err);
    if (!rc && pthread_create(&cluster->thread, NULL, work, cluster))
        rc = ovr_fail(err, OVR_NOMEM, "--slurm", "could not start the cluster's thread");
    if (rc)
        cluster_free(cluster);
    else
        *out = cluster;
    return rc;
}

void cluster_stop(struct cluster *cluster) {
    if (!cluster)
        return;
    cluster->stopping = 1;
    wake(cluster);
    pthread_join(cluster->thread, NULL);
    cluster_free(cluster);
}

/* What requests tell and ask */

static void executor_submit(void *context) {
    wake(context);
}

static int executor_poll(void *context, const char *id, struct progress *progress) {
    struct cluster *cluster = context;
    pthread_mutex_lock(&cluster->lock);
    const struct entry *entry = find_live(cluster, id);
    int running = entry && entry->news.reported;
    if (running)
        *progress = entry->news.progress;
    pthread_mutex_unlock(&cluster->lock);
    return running;
}

/* One that is to be saved hears it with the answer to its next report. */
static void executor_cancel(void *context, const char *id, enum stop why) {
    struct cluster *cluster = context;
    pthread_mutex_lock(&cluster->lock);
    struct entry *entry = find_live(cluster, id);
    if (entry && why == STOP_CANCEL)
        entry->news.cancel = 1;
    pthread_mutex_unlock(&cluster->lock);
    wake(cluster);
}

struct executor cluster_executor(struct cluster *cluster) {
    return (struct executor){cluster, executor_submit, executor_poll, executor_cancel, NULL};
}

void cluster_heard(struct cluster *cluster, const struct attempt *attempt,
                   const struct progress *progress) {
    pthread_mutex_lock(&cluster->lock);
    struct entry *entry = find(cluster, attempt->experiment, attempt->number);
    if (entry)
        entry->news = (struct news){.attempt = *attempt,
                                    .progress = *progress,
                                    .reported = 1,
                                    .heard_ms = monotonic_ms(),
                                    .cancel = entry->news.cancel};
    pthread_mutex_unlock(&cluster->lock);
    if (!attempt->live)
        wake(cluster); /* there is room for the next */
}

void cluster_view(struct cluster *cluster, struct cluster_view *view) {
    pthread_mutex_lock(&cluster->lock);
    *view = cluster->view;
    for (size_t i = 0; i < cluster->n; i++) {
        const struct entry *entry = &cluster->list[i];
        int running = entry->attempt.begun_at || entry->news.reported;
        view->running += !entry->over && running;
        view->sent += !entry->over && !running;
    }
    pthread_mutex_unlock(&cluster->lock);
}
