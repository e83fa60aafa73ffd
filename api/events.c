/* Watching: the stream of an experiment's events, its text log, and requests that wait. */
#include "api/api.h"
#include "server/log.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RETRY_S = 5, LONGEST_WAIT_S = 60 };

static int is_final(const char *state) {
    for (int s = STATE_SUCCEEDED; s < N_STATES; s++)
        if (strcmp(state, state_names[s]) == 0)
            return 1;
    return 0;
}

/* ---- Texts ---- */

struct chunk *make_chunk(const char *text, size_t size) {
    struct chunk *chunk = malloc(sizeof *chunk + size);
    if (!chunk)
        return NULL;
    *chunk = (struct chunk){.users = 1, .size = size};
    memcpy(chunk->text, text, size);
    return chunk;
}

/* One event of the stream; takes data over. number 0: without an id, so that the stream is not
 * resumed behind it. */
static struct chunk *chunk_of(int64_t number, const char *name, json_t *data) {
    char *json = data ? json_dumps(data, JSON_COMPACT | JSON_REAL_PRECISION(15)) : NULL;
    char *text = NULL;
    int size = -1;
    if (json && number)
        size = asprintf(&text, "id: %lld\nevent: %s\ndata: %s\n\n", (long long)number, name, json);
    else if (json)
        size = asprintf(&text, "event: %s\ndata: %s\n\n", name, json);
    struct chunk *chunk = size < 0 ? NULL : make_chunk(text, (size_t)size);
    if (chunk)
        chunk->number = number;
    if (size >= 0)
        free(text);
    free(json);
    json_decref(data);
    return chunk;
}

struct chunk *make_progress(struct api *api, const char *id) {
    json_t *progress = json_progress(api, id);
    if (!json_is_null(progress))
        return chunk_of(0, "progress", progress);
    json_decref(progress);
    return NULL;
}

static int put_figure(void *context, int epoch, const struct figure *figure) {
    (void)epoch;
    return json_put_figure(context, figure);
}

/* What is known of an event's epoch. OVR_STOPPED: nothing yet, it is being computed once more;
 * OVR_INVALID: nothing for ever, since its experiment ended before that. */
static int read_epoch(struct api *api, const char *id, int64_t seq, int epoch,
                      int (*row)(void *, int, const struct figure *), void *context,
                      int (*has)(const void *context)) {
    for (int ended = 0;; ended = 1) {
        struct experiment e;
        int rc = store_read_figures(api->store, seq, epoch, epoch, row, context, NULL);
        if (rc || has(context))
            return rc;
        if (ended)
            return OVR_INVALID;
        rc = store_get_experiment(api->store, id, &e, NULL);
        if (rc)
            return rc;
        int final = is_final(state_names[e.state]);
        experiment_release(&e);
        if (!final)
            return OVR_STOPPED;
        /* It may have been written and ended between the two reads. */
    }
}

static int has_figures(const void *context) {
    return json_object_size(context) > 2; /* than the number and the time */
}

/* *chunk NULL with 0: there is nothing to tell. */
static int make_event(struct api *api, const char *id, int64_t seq, const struct event *event,
                      struct chunk **chunk) {
    *chunk = NULL;
    if (event->kind == EVENT_EPOCH) {
        json_t *data = json_pack("{s:i, s:o}", "epoch", event->epoch, "at", json_time(event->at));
        int rc = data ? read_epoch(api, id, seq, event->epoch, put_figure, data, has_figures)
                      : OVR_NOMEM;
        if (!rc)
            *chunk = chunk_of(event->number, "epoch", json_incref(data));
        json_decref(data);
        return rc == OVR_INVALID ? 0 : rc ? rc : *chunk ? 0 : OVR_NOMEM;
    }
    if (event->kind == EVENT_STATE)
        *chunk = chunk_of(event->number, "state",
                          json_pack("{s:s, s:o, s:s?}", "state", event->text, "at",
                                    json_time(event->at), "reason", event->detail));
    else
        *chunk = chunk_of(event->number, "log",
                          json_pack("{s:o, s:s}", "at", json_time(event->at), "line", event->text));
    if (*chunk)
        (*chunk)->last = event->kind == EVENT_STATE && is_final(event->text);
    return *chunk ? 0 : OVR_NOMEM;
}

int make_chunks(struct api *api, const char *id, int64_t seq, int64_t after, struct chunk **chunks,
                size_t most, size_t *n, struct ovr_err *err) {
    enum { BATCH = 16 };
    struct event events[BATCH];
    size_t n_events;
    *n = 0;
    int rc = store_read_events(api->store, seq, after, events, most < BATCH ? most : BATCH,
                               &n_events, err);
    if (rc)
        return rc;
    for (size_t i = 0; i < n_events; i++) {
        if (!rc)
            rc = make_event(api, id, seq, &events[i], &chunks[*n]);
        *n += !rc && chunks[*n];
        event_release(&events[i]);
    }
    if (rc == OVR_STOPPED)
        rc = 0;
    while (rc && *n)
        free(chunks[--*n]);
    return rc;
}

/* ---- The stream ---- */

static struct reply *read_last_id(const struct request *request, int64_t *after) {
    static const int64_t MOST = (INT64_C(1) << 53) - 1; /* any JSON reader holds it exactly */
    const char *text = request_header(request, "Last-Event-ID");
    struct reply *reply = query_int(request, "last_event_id", 0, MOST, after);
    if (!text || reply)
        return reply;
    size_t n = strspn(text, "0123456789");
    if (n == 0 || n > 16 || text[n] || atoll(text) > MOST)
        return problem(422, "invalid-request",
                       "Last-Event-ID must be the id of an event of this stream, got \"%.40s\"",
                       text);
    *after = atoll(text);
    return NULL;
}

/* The stream of one that has ended and whose watcher has seen all of it: 204 tells browsers not to
 * connect again. */
static int has_ended(struct api *api, const struct experiment *e, int64_t after) {
    int64_t newest;
    return is_final(state_names[e->state]) &&
           store_last_event(api->store, e->seq, &newest, NULL) == 0 && after >= newest;
}

struct reply *handle_events(struct request *request) {
    struct api *api = request->context;
    struct experiment e;
    struct ovr_err err = {0};
    int64_t after = 0;
    struct reply *reply = read_last_id(request, &after);
    if (reply)
        return reply;
    if (store_get_experiment(api->store, request->segments[0], &e, &err))
        return problem_from(&err);
    int ended = has_ended(api, &e, after);
    struct watcher *watcher = ended ? NULL : watch_events(api->watch, &e, after, request, &err);
    experiment_release(&e);
    if (ended)
        return reply_static(204, NULL, "", 0);
    if (!watcher && err.code)
        return problem_from(&err);
    if (!watcher)
        return reply_header(problem(503, "watchers",
                                    "as many watchers as --max-watchers allows are connected; try "
                                    "again later, or poll with If-None-Match"),
                            "Retry-After", "%d", RETRY_S);
    request_keep(request, watcher, watch_leave);
    reply = reply_events(request, "text/event-stream", watcher_read);
    reply = reply_header(reply, "Cache-Control", "%s", "no-store");
    return reply_header(reply, "X-Accel-Buffering", "%s", "no"); /* for a proxy in between */
}

/* ---- The log ---- */

struct log_reader {
    struct api *api;
    char id[ID_SIZE];
    int64_t seq, number;
    char *text; /* being sent */
    size_t size, sent;
};

/* What an epoch's line shows, in the order of the figures. */
static int put_in_line(void *context, int epoch, const struct figure *figure) {
    static const char *const shown[] = {
        "train.loss",         "validation.loss", "test.loss",
        "train.accuracy",     "test.accuracy",   "validation.accuracy",
        "sparsity.near_zero", "learning_rate",   "seconds"};
    (void)epoch;
    for (size_t i = 0; i < sizeof shown / sizeof *shown; i++)
        if (strcmp(figure->name, shown[i]) == 0)
            fprintf(context, ", %s %.6g", figure->name, figure->real);
    return 0;
}

static int has_line(const void *context) {
    return ftell((FILE *)(uintptr_t)context) > 0;
}

static void print_text(FILE *out, const char *text) {
    for (; *text; text++)
        fputc((unsigned char)*text < 0x20 ? ' ' : *text, out);
}

/* Returns 0, or OVR_STOPPED before an epoch that is being computed once more. */
static int print_event(FILE *out, const struct log_reader *log, const struct event *event) {
    char time[48], *line = NULL;
    size_t size;
    format_time(event->at, time, sizeof time);
    if (event->kind != EVENT_EPOCH) {
        fprintf(out, "%s %s", time, event->kind == EVENT_STATE ? "state " : "");
        print_text(out, event->text);
        if (event->detail) {
            fputs(": ", out);
            print_text(out, event->detail);
        }
        fputc('\n', out);
        return 0;
    }
    FILE *figures = open_memstream(&line, &size);
    if (!figures)
        return OVR_NOMEM;
    int rc = read_epoch(log->api, log->id, log->seq, event->epoch, put_in_line, figures, has_line);
    if (fclose(figures) && !rc)
        rc = OVR_NOMEM;
    if (!rc)
        fprintf(out, "%s epoch %d%s\n", time, event->epoch, line);
    free(line);
    return rc == OVR_INVALID || rc == OVR_STOPPED ? 0 : rc; /* without what is not there now */
}

/* The next lines. Returns a negative code, or 0 and maybe no text: then that was all. */
static int read_lines(struct log_reader *log) {
    enum { BATCH = 64 };
    struct event events[BATCH];
    size_t n;
    free(log->text);
    log->text = NULL;
    log->size = log->sent = 0;
    int rc = store_read_events(log->api->store, log->seq, log->number, events, BATCH, &n, NULL);
    if (rc || !n)
        return rc;
    FILE *out = open_memstream(&log->text, &log->size);
    for (size_t i = 0; i < n; i++) {
        if (out && !rc)
            rc = print_event(out, log, &events[i]);
        log->number = events[i].number;
        event_release(&events[i]);
    }
    return !out || fclose(out) ? OVR_NOMEM : rc;
}

static int64_t read_log(void *context, uint64_t position, char *out, size_t room) {
    struct log_reader *log = context;
    (void)position;
    while (log->sent == log->size) {
        int rc = read_lines(log);
        if (rc || !log->text)
            return rc;
    }
    size_t n = log->size - log->sent;
    n = n < room ? n : room;
    memcpy(out, log->text + log->sent, n);
    log->sent += n;
    return (int64_t)n;
}

static void release_log(void *context) {
    struct log_reader *log = context;
    free(log->text);
    free(log);
}

struct reply *handle_log(struct request *request) {
    struct api *api = request->context;
    struct experiment e;
    struct ovr_err err = {0};
    int64_t newest = 0;
    if (store_get_experiment(api->store, request->segments[0], &e, &err))
        return problem_from(&err);
    struct log_reader *log = calloc(1, sizeof *log);
    int rc = log ? store_last_event(api->store, e.seq, &newest, &err) : ovr_nomem(&err, "the log");
    if (log)
        *log = (struct log_reader){.api = api, .seq = e.seq};
    if (log)
        memcpy(log->id, e.id, sizeof log->id);
    experiment_release(&e);
    if (rc) {
        free(log);
        return problem_from(&err);
    }
    return reply_etag(
        reply_stream(200, "text/plain; charset=utf-8", -1, read_log, release_log, log), "%lld",
        (long long)newest);
}

/* ---- Requests that wait ---- */

struct wait {
    struct watcher *watcher; /* NULL: it did not come to waiting */
    int64_t seconds, deadline, revision;
};

/* The N of "wait=N" among the preferences, at most 60; -1: there is none. What can't be read is
 * ignored, as the RFC wants. */
static int64_t find_wait(const struct request *request) {
    const char *text = request_header(request, "Prefer");
    while (text && *text) {
        text += strspn(text, " \t,;");
        char *end;
        if (strncasecmp(text, "wait=", 5) == 0 && text[5] >= '0' && text[5] <= '9') {
            long long seconds = strtoll(text + 5, &end, 10);
            if (!*end || strchr(" \t,;", *end))
                return seconds < LONGEST_WAIT_S ? seconds : LONGEST_WAIT_S;
        }
        text += strcspn(text, ",");
    }
    return -1;
}

/* Whether the client knows this revision: a tag of its If-None-Match begins with it, or it has
 * none. */
static int knows_revision(const struct request *request, int64_t revision) {
    const char *list = request_header(request, "If-None-Match");
    char tag[32];
    int n = snprintf(tag, sizeof tag, "\"%lld", (long long)revision);
    if (!list || strchr(list, '*'))
        return 1;
    for (; (list = strstr(list, tag)); list++)
        if (list[n] == '"' || list[n] == '-')
            return 1;
    return 0;
}

static void forget_wait(void *state) {
    struct wait *wait = state;
    if (wait->watcher)
        watch_leave(wait->watcher);
    free(wait);
}

static struct wait *begin_to_wait(struct request *request, int64_t seconds) {
    struct wait *wait = calloc(1, sizeof *wait);
    if (!wait)
        return NULL;
    wait->seconds = seconds;
    wait->deadline = watch_now() + seconds * 1000;
    request_keep(request, wait, forget_wait);
    return wait;
}

struct reply *await_change(struct request *request,
                           int (*read)(struct api *, const char *, int64_t *, int64_t *)) {
    struct api *api = request->context;
    struct wait *wait = request->state;
    int64_t seq = 0, revision = 0, seconds = wait ? wait->seconds : find_wait(request);
    if (seconds < 0 || read(api, request->segments[0], &seq, &revision))
        return NULL;
    if (!wait && !(wait = begin_to_wait(request, seconds)))
        return NULL;
    if (!wait->watcher) {
        wait->revision = revision;
        if (!seconds || !knows_revision(request, revision))
            return NULL;
        wait->watcher = watch_join(api->watch, seq, request_waiter(request), wait->deadline);
        /* What was stored before it joined, nobody will tell it. */
        if (!wait->watcher || read(api, request->segments[0], &seq, &revision))
            return NULL;
    }
    return revision == wait->revision && watch_now() < wait->deadline ? reply_later() : NULL;
}

struct reply *reply_preference(const struct request *request, struct reply *reply) {
    const struct wait *wait = request->state;
    if (!wait)
        return reply;
    return reply_header(reply, "Preference-Applied", "wait=%lld", (long long)wait->seconds);
}
