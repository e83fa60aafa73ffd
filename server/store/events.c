#include "server/store/db.h"

#include "server/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Who is told ---- */

/* The rows of the transaction at hand. A sweep's own row is no experiment's: 0. */
static void note_change(void *context, int what, const char *database, const char *table,
                        sqlite3_int64 row) {
    struct store *store = context;
    (void)what;
    (void)database;
    int64_t seq = strcmp(table, "experiment") == 0 ? row : 0;
    if (!seq && strcmp(table, "sweep") != 0)
        return;
    if (store->n_changed && store->n_changed <= MOST_CHANGED &&
        store->changed[store->n_changed - 1] == seq)
        return;
    if (store->n_changed < MOST_CHANGED)
        store->changed[store->n_changed] = seq;
    if (store->n_changed <= MOST_CHANGED)
        store->n_changed++;
}

int begin_events(struct store *store, struct ovr_err *err) {
    struct connection *c = &store->writer;
    if (sqlite3_exec(c->db, event_triggers, NULL, NULL, NULL))
        return db_fail(c, err);
    sqlite3_update_hook(c->db, note_change, store);
    return 0;
}

void tell_changes(struct store *store, int stored) {
    /* Who watches with a token that may be no more has to look again, so this concerns all. */
    if (store->people_changed)
        store->n_changed = MOST_CHANGED + 1;
    store->people += stored && store->people_changed;
    store->people_changed = 0;
    store->queue_version += stored && store->n_changed;
    if (stored && store->n_changed && store->listener)
        store->listener(store->listener_context, store->changed,
                        store->n_changed > MOST_CHANGED ? 0 : store->n_changed);
    store->n_changed = 0;
}

void store_listen(struct store *store, void (*changed)(void *, const int64_t *, size_t),
                  void *context) {
    pthread_mutex_lock(&store->writer.lock);
    store->listener = changed;
    store->listener_context = context;
    pthread_mutex_unlock(&store->writer.lock);
}

/* ---- Lines of the log ---- */

/* A figure that carries a time and a text, in an epoch of its own. */
void store_log(struct store *store, int64_t seq, const char *format, ...) {
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    const struct figure line = {
        .name = "log", .kind = FIGURE_TEXT, .count = now_ms(), .text = text};
    store_add_epoch(store, seq, LOG_EPOCH, &line, 1, NULL, 0, NULL);
}

int add_line(struct connection *c, int64_t seq, const struct figure *line, struct ovr_err *err) {
    int rc = db_run(c, db_bind(c, ADD_LINE, "iis", seq, line->count, line->text), err);
    return rc ? rc : db_run(c, db_bind(c, TRIM_LINES, "ii", seq, (int64_t)STORE_MOST_LINES), err);
}

/* ---- Reading ---- */

static int read_event(sqlite3_stmt *row, struct event *e) {
    static const char *const kinds[] = {
        [EVENT_STATE] = "state", [EVENT_EPOCH] = "epoch", [EVENT_LOG] = "log"};
    const char *kind = (const char *)sqlite3_column_text(row, 2);
    int failed = !kind;
    *e = (struct event){.number = sqlite3_column_int64(row, 0),
                        .at = sqlite3_column_int64(row, 1),
                        .epoch = sqlite3_column_int(row, 3)};
    while (kind && e->kind < EVENT_LOG && strcmp(kinds[e->kind], kind))
        e->kind++;
    e->text = dup_column(row, 4, &failed);
    e->detail = dup_column(row, 5, &failed);
    if (!failed)
        return 0;
    event_release(e);
    return OVR_NOMEM;
}

void event_release(struct event *event) {
    free(event->text);
    free(event->detail);
    *event = (struct event){0};
}

int store_read_events(struct store *store, int64_t seq, int64_t after, struct event *list,
                      size_t most, size_t *n, struct ovr_err *err) {
    struct connection *c = db_take_reader(store);
    sqlite3_stmt *row = db_bind(c, READ_EVENTS, "iii", seq, after, (int64_t)most);
    int rc = 0, step = SQLITE_DONE;
    *n = 0;
    while (!rc && *n < most && (step = sqlite3_step(row)) == SQLITE_ROW)
        if (read_event(row, &list[*n]))
            rc = ovr_nomem(err, "the events of an experiment");
        else
            ++*n;
    if (!rc && step != SQLITE_DONE && step != SQLITE_ROW)
        rc = db_fail(c, err);
    sqlite3_reset(row);
    db_give_back(c);
    while (rc && *n)
        event_release(&list[--*n]);
    return rc;
}

int store_last_event(struct store *store, int64_t seq, int64_t *number, struct ovr_err *err) {
    return read_last(store, LAST_EVENT, seq, number, err);
}
