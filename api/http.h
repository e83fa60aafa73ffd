/* HTTP transport: the only file that knows libmicrohttpd is http.c.
 *
 * A handler gets a whole request and must return a reply; there is no way to forget the answer.
 * Handlers run on the transport's threads, several at once, and never block on training: they read
 * and write the store and the catalogue. Those of slow routes run beside them, on a few threads
 * that serve no connections; theirs are suspended meanwhile.
 *
 * The transport itself refuses what no handler should see:
 *
 *   400        a Host or Authorization that is doubled, no Host, two Content-Lengths or one beside
 *              Transfer-Encoding, a path or a query with a bad escape, an encoded slash or NUL, a
 *              dot segment, a control character or broken UTF-8
 *
 *   401, 403   what config.admit refuses, before a body is read
 *
 *   403        a Host that is not this machine's (a page that rebinds its name to 127.0.0.1 sends
 *              one), and another site's Origin on a method that changes something
 *
 *   404, 405   a path that no route has; with Allow: a method that no route of the path has
 *
 *   413, 415   a body over the route's limit, before it is read where its length is announced; one
 *              that says it is not JSON where the route takes JSON
 *
 *   422        query arguments that the route doesn't know, or twice the same
 *
 *   429, 503   with Retry-After: too many connections from an address; a full house, or one that
 *              closes
 *
 * A client that dawdles is cut off: one that takes longer than the idle timeout and 10 s for the
 * headers of its next request, or sends a body more slowly than it must.
 *
 * Each answer has an X-Request-Id: the client's, where it is 1..64 letters, digits, dots, dashes or
 * underscores, else one of our own.
 *
 * HEAD is answered wherever GET is, OPTIONS everywhere. A reply to GET that is in memory and has no
 * ETag gets a digest of its bytes as one; what the request's If-None-Match names becomes 304. A
 * refusal that comes before a large body closes the connection.
 */
#ifndef API_HTTP_H
#define API_HTTP_H

#include "api/text.h"
#include "core/err.h"
#include "server/people.h"

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct http;
struct reply;

enum { HTTP_MAX_SEGMENTS = 4, HTTP_SLOW_THREADS = 16 };

struct request {
    void *context; /* what http_start() was given */
    const struct route *route;
    struct asker asker; /* the address of the client; the rest is config.admit's to fill */
    const char *method; /* "GET" also for HEAD */
    /* What stands for each {name} of the route's path, in order: never empty, valid UTF-8 without
     * '/' or control characters. */
    const char *segments[HTTP_MAX_SEGMENTS];
    const char *body; /* "" without one; a NUL follows its body_size bytes */
    size_t body_size;
    void *upload;     /* routes with a sink: what sink.open returned */
    void *state;      /* what request_keep() was given */
    void *connection; /* for the two functions below */
    const char *id;   /* of the request, in the log and in X-Request-Id */
    /* Slow routes: not 0 once the server closes, and then an answer is wanted soon. Else NULL. */
    const _Atomic int *stop;
};

/* A query argument (decoded: valid UTF-8 without control characters) or a header of the request, or
 * NULL. Valid as long as the request. */
const char *request_query(const struct request *request, const char *name);
const char *request_header(const struct request *request, const char *name);

/* Bodies that are too big to hold go to a sink, piece by piece, as they arrive.
 *
 * open may refuse by returning NULL and a reply in *refusal (NULL and NULL: out of memory). write
 * returns 0 or a negative code; after that it is not called again, but the handler is, and answers.
 * The handler takes `upload` over. abort is called instead of the handler, once, when the client
 * goes away, sends less than it announced, or more than the limit. */
struct sink {
    void *(*open)(const struct request *request, struct reply **refusal);
    int (*write)(void *upload, const char *bytes, size_t n);
    void (*abort)(void *upload);
};

/* What a route wants of who asks; each needs what those before it need too. */
enum need {
    NEED_USUAL, /* GET: NEED_READ, else NEED_WRITE */
    NEED_NOTHING,
    NEED_READ,
    NEED_WRITE,
    NEED_SELF, /* NEED_ADMIN, unless it is about herself: then the usual for the method */
    NEED_ADMIN,
    NEED_WORKER, /* apart from all these: the token of a worker on a cluster, which opens nothing
                    else */
};

/* Where several routes fit a path, those with the fewest {names} are taken, and another method is
 * 405. */
struct route {
    const char *method; /* "GET", "POST", "PUT", "DELETE", "PATCH" */
    const char *path;   /* "/v1/experiments/{id}/metrics" */
    struct reply *(*handle)(struct request *request);
    const char *summary; /* a line for the contract and for people */
    /* Names of the query arguments it knows, ends with NULL; any other is 422. NULL: none. */
    const char *const *query;
    /* Bodies are streamed to it, limit max_upload_bytes. NULL: JSON, limit max_body_bytes. */
    const struct sink *sink;
    /* 1: it computes for long, so it is handled on a thread of its own kind while the connection
     * waits and others are served. Where too many wait already the answer is 503. */
    int slow;
    enum need need;
};

/* Replies. All take over what they are given, also when they fail; each returns NULL when memory
 * runs out (the transport then answers 500). A reply that is not returned must be given to
 * reply_free. */

/* Compact, members in order, a newline at the end, reals with 15 digits. body NULL: out of memory
 * somewhere in building it. */
struct reply *reply_json(int status, json_t *body);

/* The same with another media type of the JSON family. */
struct reply *reply_json_as(int status, const char *content_type, json_t *body);

/* What was put together piece by piece, and a newline. The text's bytes are taken over. failed: out
 * of memory somewhere in putting it together. */
struct reply *reply_made(int status, const char *content_type, struct text *text, int failed);

/* Copies text. */
struct reply *reply_text(int status, const char *content_type, const char *text);

/* Takes bytes over, from malloc(). */
struct reply *reply_bytes(int status, const char *content_type, void *bytes, size_t n);

/* The bytes outlive everything. */
struct reply *reply_static(int status, const char *content_type, const void *bytes, size_t n);

/* A body that is made while it is sent. read fills at most `room` bytes and returns how many, 0 at
 * the end, negative to break the connection off. size is the exact length, or -1 where unknown
 * (chunked). release is always called once. */
struct reply *reply_stream(int status, const char *content_type, int64_t size,
                           int64_t (*read)(void *context, uint64_t position, char *out,
                                           size_t room),
                           void (*release)(void *context), void *context);

/* Waiting: a request that has nothing to say yet sleeps without a thread until somebody wakes it. A
 * wake that comes while it is awake is not lost: it won't sleep the next time. At shutdown all are
 * woken; streams end, and requests without a reply get 503.
 *
 * What the waker needs to know goes to request_keep(); forget() is called once, before the request
 * goes, whatever becomes of it: from then on it must not be woken. */
struct waiter;

void request_keep(struct request *request, void *state, void (*forget)(void *state));
struct waiter *request_waiter(const struct request *request);
void waiter_wake(struct waiter *waiter); /* from any thread */

/* Instead of a reply, not of a slow route: the handler is called again, with the same request,
 * after the next wake. */
struct reply *reply_later(void);

/* A body without end, made by read() from the request's state as in reply_stream(); STREAM_WAITS
 * means nothing for now, and read() is called again after the next wake. */
#define STREAM_WAITS INT64_MIN
struct reply *reply_events(const struct request *request, const char *content_type,
                           int64_t (*read)(void *state, uint64_t position, char *out, size_t room));

/* Adds a header (value formatted, without line breaks). A NULL reply is passed through. Returns the
 * reply, or NULL when memory ran out, and then the reply is freed. */
struct reply *reply_header(struct reply *reply, const char *name, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The same for a strong ETag, given without the quotes. */
struct reply *reply_etag(struct reply *reply, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

void reply_free(struct reply *reply);

struct http_config {
    const char *listen; /* "127.0.0.1:8080", "[::1]:0", "localhost:80"; port 0 takes any free one */
    int threads;
    int slow_threads; /* that handle slow routes, at most HTTP_SLOW_THREADS; 0: no route is slow */
    int max_waiting;  /* requests of slow routes that wait for one of them; more get 503 */
    int max_connections; /* those above are answered with 503 */
    int idle_timeout_s;
    size_t max_body_bytes;
    uint64_t max_upload_bytes;
    const struct route *routes; /* ends with a route whose method is NULL */
    void *context;
    int everywhere;           /* may listen beyond loopback: somebody looks who asks */
    const char *host_names;   /* "a,b": by which others call this machine; NULL: its own name */
    int max_per_address;      /* connections open at once from one other than loopback; 0: any */
    uint64_t least_body_rate; /* bytes a second, after the idle timeout; 0: any */
    const char *tls_cert, *tls_key; /* PEM files; NULL: plain HTTP */
    /* Asked once the route is known and before anything of the body is read: 1 lets the request in,
     * with request->asker filled; 0: it is refused by *refusal (NULL: out of memory). May be NULL.
     */
    int (*admit)(struct request *request, struct reply **refusal);
    /* The handler or the sink's open is about to be called for this request, and then, with NULL,
     * was called; on the thread that calls it. May be NULL. */
    void (*act)(const struct request *request);
    /* A line per request, "request=… method=… path=… status=… bytes=… ms=…", without a line break;
     * status 0: it got no answer, or it is about trouble with a connection. Called from several
     * threads at once. May be NULL. */
    void (*log)(void *context, int status, const char *line);
    /* The same for what the operator should know. May be NULL. */
    void (*trouble)(void *context, const char *line);
    /* After each request; route NULL: none fits. status 0: it got no answer. May be NULL. */
    void (*observe)(void *context, const struct route *route, int status, double seconds);
};

/* Starts listening. The config is copied; what it points to must live until http_stop(). On success
 * *url is "http://127.0.0.1:43211", valid until http_stop(). Refuses an address that is not
 * loopback (OVR_INVALID, with what to do instead) unless config->everywhere. */
int http_start(struct http **http, const struct http_config *config, const char **url,
               struct ovr_err *err);

/* To be called a few times a second: cuts dawdlers off, takes a new certificate. */
void http_tick(struct http *http);

/* Takes the certificate's files anew, changed or not; says in the log how it went. */
void http_reload(struct http *http);

/* Closes the door, gives the replies under way two seconds to end, then cuts them off. NULL is
 * fine. */
void http_stop(struct http *http);

#endif
