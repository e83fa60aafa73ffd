/* Calls of a worker to its daemon, over HTTP: the one owner of libcurl here.
 *
 * Certificates are verified, redirects are not followed, and no proxy is asked: daemon and nodes
 * are of one network. What may pass is tried again, slower and slower (with the daemon's
 * Retry-After, where it is longer): faults of the connection, 5xx, 429. What is answered is
 * bounded. A client is used by one thread at a time.
 */
#ifndef WORKER_CLIENT_H
#define WORKER_CLIENT_H

#include "core/err.h"

#include <stddef.h>
#include <stdint.h>

struct client;

/* ca: a file with the authority's certificate; "": the system's. */
int client_new(struct client **client, const char *url, const char *token, const char *ca,
               struct ovr_err *err);
void client_free(struct client *client); /* NULL is fine */

/* Where the bytes of a PUT come from; rewind() before each try. */
struct source {
    void *context;
    uint64_t size;
    const char *sha256; /* of all of them, for Content-Digest; NULL: not said */
    int (*rewind)(void *context);
    size_t (*read)(void *context, char *bytes, size_t n); /* 0: there are no more */
};

/* One call. POST: `json`, a text. PUT: `source`. GET: the answer's bytes go to the file `sink`,
 * of which there may be `most`, or where that is 0 to *answer. */
struct call {
    const char *path; /* below the URL, with its first slash */
    const char *json;
    const struct source *source;
    int sink;
    uint64_t most;
    int64_t deadline_ms;     /* CLOCK_MONOTONIC: no try begins later, nor takes a report longer */
    const _Atomic int *stop; /* not 0: it is broken off with OVR_STOPPED; NULL: never */
};

/* *answer is a text (small answers only) that the caller frees; NULL: it is not wanted.
 *   OVR_CONFLICT   the attempt is over, or its token is none (409, 401)
 *   OVR_NOT_FOUND  there is no such thing
 *   OVR_INVALID    the daemon refuses it, in its words; or it is not the one that was meant (TLS)
 *   OVR_IO         no answer until the deadline
 * and OVR_STOPPED, OVR_NOMEM. */
int client_call(struct client *client, const struct call *call, char **answer, struct ovr_err *err);

#endif
