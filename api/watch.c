#include "api/watch.h"

#include "api/api.h"
#include "server/log.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    KEPT_CHUNKS = 32, /* texts of an experiment that are kept for all its watchers */
    KEPT_BYTES = 256 << 10,
    BATCH = 16, /* events read at once */
    HEARTBEAT_MS = 15000,
    PROGRESS_MS = 1000,
    /* A piece that is not taken off our hands in this time is the last: the client hardly reads. */
    SLOWEST_MS = 60000,
};

/* An experiment that somebody watches. */
struct topic {
    struct topic *next;
    int64_t seq;
    char id[ID_SIZE];
    int users; /* watchers, and the thread while it works on it */
    int due;   /* there may be new events */
    int progress_due;
    /* Texts of the events above `covered`, up to `newest`. */
    int64_t covered, newest;
    struct chunk *kept[KEPT_CHUNKS];
    size_t n_kept, bytes;
    struct chunk *progress;
    int64_t progress_number;
};

struct watcher {
    struct watcher *before, *after;
    struct watch *watch;
    struct waiter *waiter;
    int64_t seq;     /* 0: any change */
    int64_t wake_at; /* deadline, or the next heartbeat */
    int due;
    /* Of a stream: */
    struct topic *topic;
    int64_t number; /* of the last event sent */
    struct chunk *sending;
    size_t sent;
    int64_t handed_at; /* when it last took something; 0: it has slept since */
    int64_t progress_number;
    int ended;
    uint64_t people;    /* when it was let in: once that has changed it has to come anew */
    int64_t expires_at; /* of its token; 0: never */
};

struct watch {
    struct api *api;
    int max_watchers;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t work;
    int stopping, due;
    int64_t progress_at;
    struct topic *topics;
    struct watcher *watchers;
    _Atomic int n_watchers;
};

int watch_count(const struct watch *watch) {
    return watch->n_watchers;
}

int64_t watch_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* ---- Texts and topics, all with the lock held ---- */

static void drop(struct chunk *chunk) {
    if (chunk && --chunk->users == 0)
        free(chunk);
}

/* Takes the chunk over. */
static void keep(struct topic *topic, struct chunk *chunk) {
    size_t n_old = 0;
    while (n_old < topic->n_kept &&
           (topic->n_kept - n_old == KEPT_CHUNKS || topic->bytes + chunk->size > KEPT_BYTES)) {
        struct chunk *old = topic->kept[n_old++];
        topic->covered = old->number;
        topic->bytes -= old->size;
        drop(old);
    }
    topic->n_kept -= n_old;
    memmove(topic->kept, topic->kept + n_old, topic->n_kept * sizeof *topic->kept);
    topic->kept[topic->n_kept++] = chunk;
    topic->bytes += chunk->size;
    topic->newest = chunk->number;
}

static struct topic *find_topic(const struct watch *watch, int64_t seq) {
    struct topic *topic = watch->topics;
    while (topic && topic->seq != seq)
        topic = topic->next;
    return topic;
}

static void leave_topic(struct watch *watch, struct topic *topic) {
    if (--topic->users)
        return;
    struct topic **at = &watch->topics;
    while (*at != topic)
        at = &(*at)->next;
    *at = topic->next;
    for (size_t i = 0; i < topic->n_kept; i++)
        drop(topic->kept[i]);
    drop(topic->progress);
    free(topic);
}

/* ---- The thread ---- */

/* The store calls this with its writer taken. */
static void on_change(void *context, const int64_t *seqs, size_t n) {
    struct watch *watch = context;
    if (!watch->n_watchers)
        return;
    pthread_mutex_lock(&watch->lock);
    for (struct watcher *w = watch->watchers; w; w = w->after) {
        int concerned = n == 0 || w->seq == 0;
        for (size_t i = 0; i < n && !concerned; i++)
            concerned = seqs[i] == w->seq;
        if (!concerned)
            continue;
        w->due = 1;
        if (w->topic)
            w->topic->due = 1;
        watch->due = 1;
    }
    if (watch->due)
        pthread_cond_signal(&watch->work);
    pthread_mutex_unlock(&watch->lock);
}

static void wake_watchers(struct watch *watch, const struct topic *topic) {
    for (struct watcher *w = watch->watchers; w; w = w->after)
        if (w->topic == topic)
            waiter_wake(w->waiter);
}

/* Gives the lock away while it reads the store. After a fault the next change or the next second
 * brings another try. */
static void read_new_events(struct watch *watch, struct topic *topic) {
    struct chunk *chunks[BATCH];
    size_t n;
    do {
        int64_t newest = topic->newest;
        pthread_mutex_unlock(&watch->lock);
        if (make_chunks(watch->api, topic->id, topic->seq, newest, chunks, BATCH, &n, NULL))
            n = 0;
        pthread_mutex_lock(&watch->lock);
        for (size_t i = 0; i < n; i++)
            keep(topic, chunks[i]);
    } while (n == BATCH);
}

static void read_progress(struct watch *watch, struct topic *topic) {
    pthread_mutex_unlock(&watch->lock);
    struct chunk *progress = make_progress(watch->api, topic->id);
    pthread_mutex_lock(&watch->lock);
    int same = progress && topic->progress && topic->progress->size == progress->size &&
               memcmp(topic->progress->text, progress->text, progress->size) == 0;
    if (!progress || same) {
        drop(progress);
        return;
    }
    drop(topic->progress);
    topic->progress = progress;
    topic->progress_number++;
}

static struct topic *find_due(const struct watch *watch) {
    struct topic *topic = watch->topics;
    while (topic && !topic->due && !topic->progress_due)
        topic = topic->next;
    return topic;
}

static void serve_topics(struct watch *watch) {
    struct topic *topic;
    while (!watch->stopping && (topic = find_due(watch))) {
        int progress_due = topic->progress_due;
        topic->due = topic->progress_due = 0;
        topic->users++;
        read_new_events(watch, topic);
        if (progress_due)
            read_progress(watch, topic);
        wake_watchers(watch, topic);
        leave_topic(watch, topic);
    }
}

/* Returns when it has to be called next; later if something changes. */
static int64_t serve(struct watch *watch) {
    int64_t now = watch_now(), next = INT64_MAX;
    watch->due = 0;
    if (now >= watch->progress_at) {
        watch->progress_at = now + PROGRESS_MS;
        for (struct topic *t = watch->topics; t; t = t->next)
            t->progress_due = 1;
    }
    serve_topics(watch);
    now = watch_now();
    for (struct watcher *w = watch->watchers; w; w = w->after) {
        int late = now >= w->wake_at;
        if (late || (w->due && !w->topic))
            waiter_wake(w->waiter);
        w->due = 0;
        if (late) /* until it has come to it */
            w->wake_at = now + PROGRESS_MS;
        next = w->wake_at < next ? w->wake_at : next;
    }
    return watch->topics && watch->progress_at < next ? watch->progress_at : next;
}

static void *run(void *context) {
    struct watch *watch = context;
    pthread_mutex_lock(&watch->lock);
    while (!watch->stopping) {
        int64_t next = serve(watch);
        struct timespec until = {.tv_sec = next / 1000, .tv_nsec = next % 1000 * 1000000};
        while (!watch->stopping && !watch->due && watch_now() < next)
            if (next == INT64_MAX)
                pthread_cond_wait(&watch->work, &watch->lock);
            else
                pthread_cond_timedwait(&watch->work, &watch->lock, &until);
    }
    pthread_mutex_unlock(&watch->lock);
    return NULL;
}

int watch_start(struct watch **out, struct api *api, int max_watchers, struct ovr_err *err) {
    struct watch *watch = calloc(1, sizeof *watch);
    if (!watch)
        return ovr_nomem(err, "the watchers");
    *watch = (struct watch){.api = api, .max_watchers = max_watchers};
    pthread_condattr_t clock;
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&watch->work, &clock);
    pthread_condattr_destroy(&clock);
    pthread_mutex_init(&watch->lock, NULL);
    if (pthread_create(&watch->thread, NULL, run, watch)) {
        pthread_cond_destroy(&watch->work);
        pthread_mutex_destroy(&watch->lock);
        free(watch);
        return ovr_fail(err, OVR_NOMEM, NULL, "the thread for watchers could not be started");
    }
    store_listen(api->store, on_change, watch);
    *out = watch;
    return 0;
}

void watch_stop(struct watch *watch) {
    if (!watch)
        return;
    store_listen(watch->api->store, NULL, NULL);
    pthread_mutex_lock(&watch->lock);
    watch->stopping = 1;
    pthread_cond_signal(&watch->work);
    pthread_mutex_unlock(&watch->lock);
    pthread_join(watch->thread, NULL);
    pthread_cond_destroy(&watch->work);
    pthread_mutex_destroy(&watch->lock);
    free(watch);
}

/* ---- Watchers ---- */

static struct watcher *new_watcher(struct watch *watch, int64_t seq, struct waiter *waiter,
                                   int64_t wake_at) {
    struct watcher *watcher = NULL;
    if (atomic_fetch_add(&watch->n_watchers, 1) < watch->max_watchers)
        watcher = calloc(1, sizeof *watcher);
    if (!watcher) {
        atomic_fetch_sub(&watch->n_watchers, 1);
        return NULL;
    }
    *watcher = (struct watcher){.watch = watch, .waiter = waiter, .seq = seq, .wake_at = wake_at};
    return watcher;
}

/* With the lock held. */
static void enter(struct watch *watch, struct watcher *watcher) {
    watcher->after = watch->watchers;
    if (watch->watchers)
        watch->watchers->before = watcher;
    watch->watchers = watcher;
    watch->due = 1; /* for its wake_at */
    pthread_cond_signal(&watch->work);
}

struct watcher *watch_join(struct watch *watch, int64_t seq, struct waiter *waiter,
                           int64_t deadline) {
    struct watcher *watcher = new_watcher(watch, seq, waiter, deadline);
    if (!watcher)
        return NULL;
    pthread_mutex_lock(&watch->lock);
    enter(watch, watcher);
    pthread_mutex_unlock(&watch->lock);
    return watcher;
}

void watch_leave(void *state) {
    struct watcher *watcher = state;
    struct watch *watch = watcher->watch;
    pthread_mutex_lock(&watch->lock);
    if (watcher->before)
        watcher->before->after = watcher->after;
    else
        watch->watchers = watcher->after;
    if (watcher->after)
        watcher->after->before = watcher->before;
    drop(watcher->sending);
    if (watcher->topic)
        leave_topic(watch, watcher->topic);
    pthread_mutex_unlock(&watch->lock);
    free(watcher);
    atomic_fetch_sub(&watch->n_watchers, 1);
}

/* The topic gets to know of what was stored since `newest` was read, since it is due from the
 * start. */
static struct topic *enter_topic(struct watch *watch, const struct experiment *e, int64_t newest) {
    struct topic *topic = find_topic(watch, e->seq);
    if (!topic) {
        topic = calloc(1, sizeof *topic);
        if (!topic)
            return NULL;
        *topic = (struct topic){.next = watch->topics,
                                .seq = e->seq,
                                .due = 1,
                                .progress_due = 1,
                                .covered = newest,
                                .newest = newest};
        memcpy(topic->id, e->id, sizeof topic->id);
        watch->topics = topic;
    }
    topic->users++;
    return topic;
}

struct watcher *watch_events(struct watch *watch, const struct experiment *e, int64_t after,
                             const struct request *request, struct ovr_err *err) {
    int64_t newest;
    if (store_last_event(watch->api->store, e->seq, &newest, err))
        return NULL;
    struct watcher *watcher =
        new_watcher(watch, e->seq, request_waiter(request), watch_now() + HEARTBEAT_MS);
    if (!watcher)
        return NULL;
    static const char hello[] = "retry: 1000\n\n";
    watcher->sending = make_chunk(hello, sizeof hello - 1);
    watcher->number = after < newest ? after : newest;
    watcher->people = request->asker.people;
    watcher->expires_at = request->asker.expires_at;
    pthread_mutex_lock(&watch->lock);
    watcher->topic = watcher->sending ? enter_topic(watch, e, newest) : NULL;
    enter(watch, watcher);
    pthread_mutex_unlock(&watch->lock);
    if (watcher->topic)
        return watcher;
    watch_leave(watcher);
    ovr_nomem(err, "a watcher");
    return NULL;
}

/* With the lock held: a text that is kept and has not been sent to it yet, or NULL. */
static struct chunk *next_kept(struct watcher *w) {
    const struct topic *topic = w->topic;
    size_t i = 0;
    while (i < topic->n_kept && topic->kept[i]->number <= w->number)
        i++;
    if (i < topic->n_kept)
        return topic->kept[i];
    int fresh = topic->progress_number != w->progress_number;
    w->progress_number = topic->progress_number;
    return fresh ? topic->progress : NULL;
}

/* What the kept texts don't cover, in one piece. Returns a negative code, or 0 and maybe NULL. */
static int read_old_events(const struct watcher *w, struct chunk **out) {
    struct chunk *chunks[BATCH];
    size_t n, size = 0;
    struct api *api = w->watch->api;
    int rc = make_chunks(api, w->topic->id, w->topic->seq, w->number, chunks, BATCH, &n, NULL);
    *out = NULL;
    if (rc || !n)
        return rc;
    for (size_t i = 0; i < n; i++)
        size += chunks[i]->size;
    struct chunk *all = malloc(sizeof *all + size);
    if (all)
        *all = (struct chunk){.users = 1, .number = chunks[n - 1]->number};
    for (size_t i = 0; i < n; i++) {
        if (all) {
            memcpy(all->text + all->size, chunks[i]->text, chunks[i]->size);
            all->size += chunks[i]->size;
            all->last |= chunks[i]->last;
        }
        free(chunks[i]);
    }
    *out = all;
    return all ? 0 : OVR_NOMEM;
}

/* Fills `sending`. Returns 0, STREAM_WAITS or a negative code. */
static int64_t find_next(struct watcher *w) {
    static const char beat[] = ":\n\n";
    struct watch *watch = w->watch;
    int rc = 0;
    pthread_mutex_lock(&watch->lock);
    int behind = w->number < w->topic->covered;
    if (!behind && (w->sending = next_kept(w)))
        w->sending->users++;
    int late = watch_now() >= w->wake_at - PROGRESS_MS;
    pthread_mutex_unlock(&watch->lock);
    if (behind)
        rc = read_old_events(w, &w->sending);
    if (!rc && !w->sending && late)
        w->sending = make_chunk(beat, sizeof beat - 1);
    w->sent = 0;
    return rc ? rc : w->sending ? 0 : STREAM_WAITS;
}

/* The piece has left. */
static void finish(struct watcher *w) {
    struct watch *watch = w->watch;
    struct chunk *chunk = w->sending;
    if (chunk->number)
        w->number = chunk->number;
    w->ended = chunk->last;
    pthread_mutex_lock(&watch->lock);
    drop(chunk);
    w->wake_at = watch_now() + HEARTBEAT_MS;
    pthread_mutex_unlock(&watch->lock);
    w->sending = NULL;
}

/* As much of the piece at hand as there is room for. */
static size_t hand_out(struct watcher *w, char *out, size_t room) {
    size_t n = w->sending->size - w->sent;
    n = n < room ? n : room;
    memcpy(out, w->sending->text + w->sent, n);
    w->sent += n;
    if (w->sent == w->sending->size)
        finish(w);
    return n;
}

static int must_come_anew(const struct watcher *w) {
    return store_people_version(w->watch->api->store) != w->people ||
           (w->expires_at && now_ms() >= w->expires_at);
}

/* All that there is goes out together: what a watcher costs is the sending. */
int64_t watcher_read(void *state, uint64_t position, char *out, size_t room) {
    struct watcher *w = state;
    (void)position;
    int64_t now = watch_now();
    if (w->handed_at && now - w->handed_at > SLOWEST_MS)
        return OVR_STOPPED;
    if (!w->sending && must_come_anew(w))
        w->ended = 1; /* by itself, with what it has seen, if it still may */
    size_t n = 0;
    int64_t rc = 0;
    while (!rc && n < room && !w->ended) {
        rc = w->sending ? 0 : find_next(w);
        if (!rc)
            n += hand_out(w, out + n, room - n);
    }
    w->handed_at = n ? now : 0;
    return n ? (int64_t)n : rc;
}
