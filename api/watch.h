/* Who watches experiments and sweeps: streams of events, and requests that wait for a change.
 *
 * One thread for all. The store tells of every change as it is stored; the thread reads the new
 * events of an experiment once, makes their text once, and wakes those that watch it, which send
 * the text from their connections' threads. Who comes late or is slow reads from the store what
 * the few texts that are kept don't cover any more. So a watcher costs the little that is here,
 * however slow it is and however long the experiment.
 *
 * Locks: that of the watch is taken inside of the store's and the pool's, so neither is called with
 * it held.
 */
#ifndef API_WATCH_H
#define API_WATCH_H

#include "api/http.h"
#include "server/store.h"

struct watch;
struct watcher;
struct api;

/* Listens to api->store and asks api->executors for progress. */
int watch_start(struct watch **watch, struct api *api, int max_watchers, struct ovr_err *err);

/* After http_stop(), before the store is closed. NULL is fine. */
void watch_stop(struct watch *watch);

/* Wakes the waiter after each change of the experiment (seq 0: after any change), and at the
 * `deadline` (ms of watch_now()). NULL: there are as many watchers as there may be. */
struct watcher *watch_join(struct watch *watch, int64_t seq, struct waiter *waiter,
                           int64_t deadline);

/* The events of an experiment above number `after` as a stream: the state of a reply_events() with
 * watcher_read(). It ends when it may not be let in any more: with its token, or after a change of
 * people. NULL: too many watchers, or (with err) something failed. */
struct watcher *watch_events(struct watch *watch, const struct experiment *experiment,
                             int64_t after, const struct request *request, struct ovr_err *err);

int64_t watcher_read(void *watcher, uint64_t position, char *out, size_t room);

void watch_leave(void *watcher);

int watch_count(const struct watch *watch); /* who watches or waits now */

int64_t watch_now(void); /* ms, monotonic */

/* A piece of a stream. */
struct chunk {
    int users;      /* under the watch's lock */
    int64_t number; /* of its last event; 0: none */
    int last;       /* the stream ends with it */
    size_t size;
    char text[];
};

/* api/events.c makes the texts. The events above `after`, at most `most` of them, each a chunk;
 * ends before an epoch that is being computed once more. OVR_NOT_FOUND: the experiment is gone. */
int make_chunks(struct api *api, const char *id, int64_t seq, int64_t after, struct chunk **chunks,
                size_t most, size_t *n, struct ovr_err *err);
struct chunk *make_chunk(const char *text, size_t size);      /* NULL: out of memory */
struct chunk *make_progress(struct api *api, const char *id); /* NULL: it doesn't run */

#endif
