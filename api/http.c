/* One `struct exchange` per request, from its first line to the end of its reply. libmicrohttpd
 * calls us, always on the thread that owns the connection:
 *
 *   on_target      the request line is there: the exchange is made
 *   on_request     1. the headers are there: the checks, in the order of examine()
 *                  2. for each piece of the body: receive()
 *                  3. the request is whole: finish(), which calls the handler
 *   on_completed   whatever happened: the exchange is freed
 *
 * A check that fails settles the answer, and the handler is never called. So exchanges need no
 * lock; shared between threads are the two counters and the draining flag of `struct http`.
 *
 * Of a slow route finish() hands the exchange to the desk and suspends its connection. One of the
 * desk's threads calls the handler, settles its answer and resumes the connection; then
 * libmicrohttpd calls finish() once more, on its own thread. Meanwhile nobody else touches it.
 *
 * A handler or a stream that has nothing to say yet sleeps: its connection is suspended, and the
 * exchange is among the sleepers until somebody wakes it; then it is asked again, as before.
 */
#include "api/http.h"

#include "api/problem.h"
#include "api/tls.h"
#include "server/digest.h"

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <microhttpd.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    CONNECTION_MEMORY = 64 << 10, /* request line, headers and one piece of body */
    STREAM_BLOCK = 64 << 10,
    LISTEN_BACKLOG = 512,
    RETRY_AFTER_S = 5,
    STOP_WAIT_MS = 2000,
    STOP_POLL_MS = 10,
    HEADROOM = 64, /* connections above the limit that can still be told so, at least */
    REQUEST_ID_SIZE = 65,
    MAX_PATH_DEPTH = 8, /* segments; no route has that many */
    HEADERS_MS = 10000, /* beside the idle timeout, for the headers of the next request */
    TICK_MS = 1000,
    MAX_SHOWN = 200, /* bytes of a path in a log line or a detail */
    /* So much is still read of a body of unknown length that is already refused: libmicrohttpd can
     * not answer in the middle of one. After that the connection is cut. */
    MAX_REFUSED_BYTES = 64 << 20,
};

/* Where requests of slow routes wait, in the order they came in. */
struct desk {
    pthread_mutex_t lock; /* guards the list and `closed` */
    pthread_cond_t changed;
    struct exchange *first, *last;
    int n_waiting;
    bool closed;
    atomic_int stop; /* for handlers: the same, to be read without the lock */
    pthread_t threads[HTTP_SLOW_THREADS];
    int n_threads;
};

/* A connection. Its thread says what it waits for; http_tick() looks. */
struct peer {
    struct peer *before, *after; /* guarded by http.peers_lock */
    struct http *http;
    int fd;
    char address[INET6_ADDRSTRLEN];
    bool late, crowd;                /* the house was full, or full of its like, when it came */
    _Atomic int64_t headers_from_ms; /* since when the headers of a request are due; 0: not */
    _Atomic int64_t body_from_ms;    /* the same of a body */
    _Atomic uint64_t body_bytes;     /* of which so much has come */
};

struct http {
    struct http_config config;
    pthread_mutex_t peers_lock;
    struct peer *peers;
    int64_t ticked_at_ms;
    char own_name[256];                 /* of the machine; "": loopback only */
    char address[INET6_ADDRSTRLEN + 2]; /* as in a URL: "127.0.0.1", "[::1]" */
    char url[INET6_ADDRSTRLEN + 20];
    struct MHD_Daemon *daemon;
    struct MHD_Response *out_of_memory; /* made in time */
    atomic_int connections;
    atomic_int exchanges;
    unsigned start_id; /* tells the requests of one process from those of another */
    _Atomic uint64_t n_requests;
    atomic_bool draining;
    struct desk desk;
    pthread_mutex_t waiting; /* guards the list, and the flags of sleep_until_woken() */
    struct exchange *sleepers;
};

struct argument {
    const char *name;
    const char *value;
};

struct exchange {
    struct http *http;
    struct MHD_Connection *connection;
    struct peer *peer; /* NULL: there was no memory for it */
    struct timespec started;
    bool begun;       /* the checks were made */
    const char *verb; /* what the client wrote: HEAD is not GET here; set once begun */
    char *target;     /* the second word of the request line, as received */
    char *decoded;    /* a copy of it, cut into what the following point to */
    const char *path[MAX_PATH_DEPTH];
    size_t depth;     /* segments of the path; above MAX_PATH_DEPTH only the first are kept */
    char *query_text; /* NULL: no '?' */
    struct argument *query;
    size_t n_query;
    const char *host;
    uint64_t announced; /* Content-Length */
    bool chunked;
    bool unframed; /* the headers contradict each other on where the body ends */
    struct request request;
    uint64_t limit; /* of the body */
    uint64_t received;
    char *body;
    size_t body_room;
    bool upload_open; /* the sink waits for write or abort */
    bool upload_failed;
    bool settled; /* the answer is known, and is `answer` (NULL: out of memory) */
    struct reply *answer;
    char id[REQUEST_ID_SIZE];
    int status; /* what was answered, for the log; 0: nothing yet */
    int64_t size;
    struct exchange *next; /* at the desk */
    void (*forget)(void *state);
    bool sleeps, woken;
    struct exchange *before, *after; /* of those that sleep */
};

struct reply {
    int status;
    int64_t size;      /* -1: unknown */
    const void *bytes; /* all of the body; NULL: it is made while it is sent */
    struct MHD_Response *response;
};

/* ---- Replies ---- */

static struct reply later; /* stands for none yet */

struct reply *reply_later(void) {
    return &later;
}

/* Takes response over, which may be NULL. */
static struct reply *reply_new(int status, const char *content_type, int64_t size,
                               struct MHD_Response *response) {
    struct reply *reply = response ? malloc(sizeof *reply) : NULL;
    if (!reply) {
        if (response)
            MHD_destroy_response(response);
        return NULL;
    }
    *reply = (struct reply){.status = status, .size = size, .response = response};
    return content_type ? reply_header(reply, "Content-Type", "%s", content_type) : reply;
}

void reply_free(struct reply *reply) {
    if (!reply)
        return;
    MHD_destroy_response(reply->response);
    free(reply);
}

static struct reply *with_bytes(struct reply *reply, const void *bytes) {
    if (reply)
        reply->bytes = bytes;
    return reply;
}

struct reply *reply_bytes(int status, const char *content_type, void *bytes, size_t n) {
    struct MHD_Response *response =
        MHD_create_response_from_buffer(n, bytes, MHD_RESPMEM_MUST_FREE);
    if (!response)
        free(bytes);
    return with_bytes(reply_new(status, content_type, (int64_t)n, response), bytes);
}

struct reply *reply_json(int status, json_t *body) {
    return reply_json_as(status, "application/json", body);
}

struct reply *reply_json_as(int status, const char *content_type, json_t *body) {
    struct text text = {0};
    int failed = text_add_json(&text, body);
    json_decref(body);
    return reply_made(status, content_type, &text, failed);
}

struct reply *reply_made(int status, const char *content_type, struct text *text, int failed) {
    if (!failed && text_add(text, "\n", 1) == 0)
        return reply_bytes(status, content_type, text->bytes, text->n);
    free(text->bytes);
    return NULL;
}

struct reply *reply_text(int status, const char *content_type, const char *text) {
    char *copy = strdup(text);
    return copy ? reply_bytes(status, content_type, copy, strlen(text)) : NULL;
}

struct reply *reply_static(int status, const char *content_type, const void *bytes, size_t n) {
    /* libmicrohttpd only reads what is persistent, whatever its prototype says. */
    struct MHD_Response *response =
        MHD_create_response_from_buffer(n, (void *)(uintptr_t)bytes, MHD_RESPMEM_PERSISTENT);
    return with_bytes(reply_new(status, content_type, (int64_t)n, response), bytes);
}

struct stream {
    int64_t (*read)(void *context, uint64_t position, char *out, size_t room);
    void (*release)(void *context); /* NULL: nothing to release */
    void *context;
    struct exchange *exchange; /* of one that may wait, else NULL */
};

static bool sleep_until_woken(struct exchange *exchange);

static ssize_t stream_read(void *cls, uint64_t position, char *out, size_t room) {
    struct stream *stream = cls;
    struct exchange *exchange = stream->exchange;
    int64_t n;
    do {
        if (exchange && atomic_load(&exchange->http->draining))
            return MHD_CONTENT_READER_END_OF_STREAM;
        n = stream->read(stream->context, position, out, room);
        if (n == STREAM_WAITS && exchange && sleep_until_woken(exchange))
            return 0;
    } while (n == STREAM_WAITS && exchange);
    if (n == 0)
        return MHD_CONTENT_READER_END_OF_STREAM;
    return n > 0 ? (ssize_t)n : MHD_CONTENT_READER_END_WITH_ERROR;
}

static void stream_free(void *cls) {
    struct stream *stream = cls;
    if (stream->release)
        stream->release(stream->context);
    free(stream);
}

static struct reply *new_stream(int status, const char *content_type, int64_t size,
                                const struct stream *shape) {
    struct stream *stream = malloc(sizeof *stream);
    if (!stream) {
        if (shape->release)
            shape->release(shape->context);
        return NULL;
    }
    *stream = *shape;
    struct MHD_Response *response =
        MHD_create_response_from_callback(size < 0 ? MHD_SIZE_UNKNOWN : (uint64_t)size,
                                          STREAM_BLOCK, stream_read, stream, stream_free);
    if (!response)
        stream_free(stream);
    return reply_new(status, content_type, size, response);
}

struct reply *reply_stream(int status, const char *content_type, int64_t size,
                           int64_t (*read)(void *context, uint64_t position, char *out,
                                           size_t room),
                           void (*release)(void *context), void *context) {
    const struct stream shape = {.read = read, .release = release, .context = context};
    return new_stream(status, content_type, size, &shape);
}

struct reply *reply_events(const struct request *request, const char *content_type,
                           int64_t (*read)(void *state, uint64_t position, char *out,
                                           size_t room)) {
    const struct stream shape = {
        .read = read, .context = request->state, .exchange = request->connection};
    return new_stream(200, content_type, -1, &shape);
}

struct reply *reply_header(struct reply *reply, const char *name, const char *format, ...) {
    if (!reply)
        return NULL;
    char *value;
    va_list args;
    va_start(args, format);
    int n = vasprintf(&value, format, args);
    va_end(args);
    bool added = n >= 0 && MHD_add_response_header(reply->response, name, value) == MHD_YES;
    if (n >= 0)
        free(value);
    if (added)
        return reply;
    reply_free(reply);
    return NULL;
}

struct reply *reply_etag(struct reply *reply, const char *format, ...) {
    char *tag;
    va_list args;
    va_start(args, format);
    int n = vasprintf(&tag, format, args);
    va_end(args);
    if (n < 0) {
        reply_free(reply);
        return NULL;
    }
    reply = reply_header(reply, "ETag", "\"%s\"", tag);
    free(tag);
    return reply;
}

/* ---- Waiting ---- */

/* On the thread of the exchange; it is called again once it is woken. Returns false if that has
 * happened already, and then it is not suspended. */
static bool sleep_until_woken(struct exchange *exchange) {
    struct http *http = exchange->http;
    pthread_mutex_lock(&http->waiting);
    exchange->sleeps = !exchange->woken && !atomic_load(&http->draining);
    exchange->woken = false;
    if (exchange->sleeps) {
        exchange->before = NULL;
        exchange->after = http->sleepers;
        if (http->sleepers)
            http->sleepers->before = exchange;
        http->sleepers = exchange;
        MHD_suspend_connection(exchange->connection);
    }
    bool sleeps = exchange->sleeps;
    pthread_mutex_unlock(&http->waiting);
    return sleeps;
}

/* With the lock held. */
static void wake(struct exchange *exchange) {
    exchange->woken = !exchange->sleeps;
    if (!exchange->sleeps)
        return;
    exchange->sleeps = false;
    if (exchange->before)
        exchange->before->after = exchange->after;
    else
        exchange->http->sleepers = exchange->after;
    if (exchange->after)
        exchange->after->before = exchange->before;
    MHD_resume_connection(exchange->connection);
}

void waiter_wake(struct waiter *waiter) {
    struct exchange *exchange = (struct exchange *)waiter;
    struct http *http = exchange->http;
    pthread_mutex_lock(&http->waiting);
    wake(exchange);
    pthread_mutex_unlock(&http->waiting);
}

/* Once draining is set nobody falls asleep any more. */
static void wake_all(struct http *http) {
    pthread_mutex_lock(&http->waiting);
    while (http->sleepers)
        wake(http->sleepers);
    pthread_mutex_unlock(&http->waiting);
}

struct waiter *request_waiter(const struct request *request) {
    return request->connection;
}

void request_keep(struct request *request, void *state, void (*forget)(void *state)) {
    struct exchange *exchange = request->connection;
    request->state = state;
    exchange->forget = forget;
}

/* ---- Answering ---- */

const char *request_header(const struct request *request, const char *name) {
    const struct exchange *exchange = request->connection;
    return MHD_lookup_connection_value(exchange->connection, MHD_HEADER_KIND, name);
}

const char *request_query(const struct request *request, const char *name) {
    const struct exchange *exchange = request->connection;
    for (size_t i = 0; i < exchange->n_query; i++)
        if (strcmp(exchange->query[i].name, name) == 0)
            return exchange->query[i].value;
    return NULL;
}

/* Whether an If-None-Match names the tag: RFC 9110, 13.1.2, by weak comparison. */
static bool names_etag(const char *list, const char *etag) {
    size_t n = strlen(etag);
    while (*list) {
        list += strspn(list, ", \t");
        if (*list == '*')
            return true;
        if (strncmp(list, "W/", 2) == 0)
            list += 2;
        if (strncmp(list, etag, n) == 0 && (list[n] == '\0' || strchr(", \t", list[n])))
            return true;
        /* To the next one, over commas inside of quotes. */
        const char *quote = *list == '"' ? strchr(list + 1, '"') : NULL;
        list = quote ? quote + 1 : list + strcspn(list, ",");
    }
    return false;
}

static bool is_get(const struct exchange *exchange) { /* or HEAD */
    return exchange->request.method && strcmp(exchange->request.method, "GET") == 0;
}

/* libmicrohttpd sends the headers of a 304 as those of the 200 it stands for, without the body. */
static void answer_not_modified(const struct exchange *exchange, struct reply *reply) {
    const char *etag = MHD_get_response_header(reply->response, "ETag");
    const char *list = request_header(&exchange->request, "If-None-Match");
    if (reply->status == 200 && etag && list && is_get(exchange) && names_etag(list, etag))
        reply->status = 304;
}

/* libmicrohttpd 0.9.75 sends the last chunk of a body of unknown size even where no body goes out,
 * and so would spoil the next reply on this connection. Without chunks it closes the connection. */
static void avoid_chunks_without_body(const struct exchange *exchange, const struct reply *reply) {
    bool bodiless = reply->status == 304 || (exchange->verb && strcmp(exchange->verb, "HEAD") == 0);
    if (bodiless && reply->size < 0)
        MHD_set_response_options(reply->response, MHD_RF_HTTP_1_0_COMPATIBLE_STRICT, MHD_RO_END);
}

/* What has no revision has a digest of its bytes. */
static struct reply *with_etag(const struct exchange *exchange, struct reply *reply) {
    char digest[DIGEST_SIZE];
    if (!reply || reply->status != 200 || !reply->bytes || !is_get(exchange) ||
        MHD_get_response_header(reply->response, "ETag") ||
        MHD_get_response_header(reply->response, "Cache-Control")) /* never to be had again */
        return reply;
    digest_of(reply->bytes, (size_t)reply->size, digest);
    return reply_etag(reply, "%.32s", digest);
}

static struct reply *with_default_headers(const struct exchange *exchange, struct reply *reply) {
    reply = with_etag(exchange, reply);
    reply = reply_header(reply, "X-Content-Type-Options", "%s", "nosniff");
    if (*exchange->id)
        reply = reply_header(reply, "X-Request-Id", "%s", exchange->id);
    if (reply && !MHD_get_response_header(reply->response, "Cache-Control"))
        reply = reply_header(reply, "Cache-Control", "%s", "no-cache");
    if (reply && atomic_load(&exchange->http->draining) &&
        !MHD_get_response_header(reply->response, "Connection"))
        reply = reply_header(reply, "Connection", "%s", "close");
    return reply;
}

/* Takes reply over; NULL is what is left of a reply when memory ran out. */
static enum MHD_Result send_reply(struct exchange *exchange, struct reply *reply) {
    reply = with_default_headers(exchange, reply);
    if (!reply) {
        exchange->status = 500;
        return MHD_queue_response(exchange->connection, 500, exchange->http->out_of_memory);
    }
    answer_not_modified(exchange, reply);
    avoid_chunks_without_body(exchange, reply);
    exchange->status = reply->status;
    exchange->size = reply->status == 304 ? 0 : reply->size;
    enum MHD_Result result =
        MHD_queue_response(exchange->connection, (unsigned)reply->status, reply->response);
    reply_free(reply);
    return result;
}

/* The answer is `reply`, and the handler won't be called. Returns false, so that a check can end
 * with it. */
static bool settle(struct exchange *exchange, struct reply *reply) {
    exchange->settled = true;
    exchange->answer = reply;
    return false;
}

/* ---- Checks of the headers ---- */

static struct reply *shutting_down(void) {
    return problem(503, "shutting-down", "the server is shutting down; try again later");
}

static struct reply *retry_later(struct reply *reply) {
    return reply_header(reply, "Retry-After", "%d", RETRY_AFTER_S);
}

/* A house that is full or closing answers, and wants to be rid of the connection. */
static bool check_room(struct exchange *exchange) {
    struct http *http = exchange->http;
    const struct peer *peer = exchange->peer;
    bool late = !peer || peer->late; /* see on_connection() */
    struct reply *reply;
    if (atomic_load(&http->draining))
        reply = shutting_down();
    else if (peer && peer->crowd)
        reply = problem(429, "connections",
                        "there are %d connections from %s already; use fewer at once, or let the "
                        "operator raise --address-connections",
                        http->config.max_per_address, peer->address);
    else if (late && atomic_load(&http->connections) > http->config.max_connections)
        reply = problem(503, "connections", "all %d connections are in use; try again later",
                        http->config.max_connections);
    else
        return true;
    reply = retry_later(reply);
    return settle(exchange, reply_header(reply, "Connection", "%s", "close"));
}

/* Headers that mean something else to every reader when there are two of them. */
static const char *const single_headers[] = {"Host",         "Content-Length", "Transfer-Encoding",
                                             "Content-Type", "Origin",         "Authorization"};
enum { HOST, CONTENT_LENGTH, TRANSFER_ENCODING, CONTENT_TYPE, ORIGIN, AUTHORIZATION, N_SINGLE };
_Static_assert(N_SINGLE == sizeof single_headers / sizeof single_headers[0], "one name each");

struct headers {
    const char *single[N_SINGLE];
    const char *doubled; /* a name */
    bool malformed;
};

static enum MHD_Result on_header(void *cls, enum MHD_ValueKind kind, const char *name,
                                 size_t name_size, const char *value, size_t value_size) {
    (void)kind;
    struct headers *headers = cls;
    if (!value || strlen(name) != name_size || strlen(value) != value_size ||
        strpbrk(name, " \t\r\n"))
        headers->malformed = true;
    for (size_t i = 0; i < N_SINGLE; i++) {
        if (strcasecmp(name, single_headers[i]) != 0)
            continue;
        if (headers->single[i])
            headers->doubled = single_headers[i];
        headers->single[i] = value ? value : "";
    }
    return MHD_YES;
}

/* Who knows where such a request ends: its body is not waited for, nor taken for the next request.
 */
static bool settle_unframed(struct exchange *exchange, struct reply *reply) {
    exchange->unframed = true;
    return settle(exchange, reply_header(reply, "Connection", "%s", "close"));
}

static bool check_length(struct exchange *exchange, const struct headers *headers) {
    const char *length = headers->single[CONTENT_LENGTH];
    const char *encoding = headers->single[TRANSFER_ENCODING];
    if (length && encoding)
        return settle_unframed(
            exchange, problem(400, "bad-request", "Content-Length and Transfer-Encoding together"));
    if (encoding && strcasecmp(encoding, "chunked") != 0)
        return settle_unframed(
            exchange,
            problem(400, "bad-request", "the only Transfer-Encoding known here is chunked"));
    exchange->chunked = encoding != NULL;
    if (!length)
        return true;
    errno = 0;
    exchange->announced = strtoull(length, NULL, 10);
    if (!*length || length[strspn(length, "0123456789")] || errno)
        return settle_unframed(exchange,
                               problem(400, "bad-request", "Content-Length is not a number"));
    return true;
}

/* What decides where the request ends and whom it is for must be there once. */
static bool check_framing(struct exchange *exchange) {
    struct headers headers = {0};
    MHD_get_connection_values_n(exchange->connection, MHD_HEADER_KIND, on_header, &headers);
    if (headers.malformed)
        return settle_unframed(exchange, problem(400, "bad-request", "a header line is malformed"));
    if (headers.doubled)
        return settle_unframed(
            exchange, problem(400, "bad-request", "there are two %s headers", headers.doubled));
    if (!headers.single[HOST] || !*headers.single[HOST])
        return settle_unframed(exchange, problem(400, "bad-request", "the Host header is missing"));
    exchange->host = headers.single[HOST];
    return check_length(exchange, &headers);
}

/* Whether a Host is this name of n bytes, with or without a port. */
static bool is_host(const char *host, const char *name, size_t n) {
    const char *port = host + n;
    return n && strncasecmp(host, name, n) == 0 &&
           (!*port || (*port == ':' && !port[1 + strspn(port + 1, "0123456789")]));
}

/* A numeric address: nobody can point that at another machine. */
static bool is_numeric(const char *host) {
    char text[INET6_ADDRSTRLEN];
    unsigned char address[sizeof(struct in6_addr)];
    bool v6 = *host == '[';
    size_t n = v6 ? strcspn(host, "]") : strcspn(host, ":");
    if (n >= sizeof text || (v6 && host[n] != ']'))
        return false;
    memcpy(text, host + v6, n - v6);
    text[n - v6] = '\0';
    return inet_pton(v6 ? AF_INET6 : AF_INET, text, address) == 1 && is_host(host, host, n + v6);
}

/* A page from elsewhere can point its own name at this machine and then is of the same origin as
 * this server for the browser. Its requests still carry that name in Host. */
static bool check_host(struct exchange *exchange) {
    const struct http *http = exchange->http;
    const char *const ours[] = {"localhost", "127.0.0.1", "[::1]", http->address, http->own_name};
    const char *host = exchange->host, *names = http->config.host_names;
    for (size_t i = 0; i < sizeof ours / sizeof ours[0]; i++)
        if (is_host(host, ours[i], strlen(ours[i])))
            return true;
    for (size_t n; names && *names; names += n + (names[n] == ',')) {
        n = strcspn(names, ",");
        if (is_host(host, names, n))
            return true;
    }
    if (*http->own_name && is_numeric(host))
        return true;
    return settle(exchange, problem(403, "forbidden-host",
                                    "the Host '%.*s' is not known as this machine: this server "
                                    "answers to localhost, 127.0.0.1, [::1], its own address, and "
                                    "the names that it was started with (--host-names)",
                                    MAX_SHOWN, host));
}

/* ---- The target: path and query ---- */

/* One character of UTF-8 that is not a control character: its length, else 0. */
static size_t character_length(const unsigned char *s) {
    if (s[0] < 0x80)
        return s[0] >= 0x20 && s[0] != 0x7f;
    size_t n = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
    if (s[0] < 0xc2 || s[0] > 0xf4)
        return 0;
    for (size_t i = 1; i < n; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    bool control = s[0] == 0xc2 && s[1] < 0xa0;
    bool overlong = (s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xf0 && s[1] < 0x90);
    bool surrogate = s[0] == 0xed && s[1] > 0x9f;
    bool too_big = s[0] == 0xf4 && s[1] > 0x8f;
    return control || overlong || surrogate || too_big ? 0 : n;
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Percent-decodes text in place; in a query '+' is a space. Returns NULL, or what is wrong. */
static const char *percent_decode(char *text, bool query) {
    char *out = text;
    for (const char *in = text; *in; in++) {
        if (*in != '%') {
            *out++ = query && *in == '+' ? ' ' : *in;
            continue;
        }
        int high = hex_digit(in[1]);
        int low = high < 0 ? -1 : hex_digit(in[2]);
        if (low < 0)
            return "a % is not followed by two hexadecimal digits";
        char c = (char)(high * 16 + low);
        if (c == '\0')
            return "there is an encoded NUL";
        if (c == '/' && !query)
            return "there is an encoded slash";
        *out++ = c;
        in += 2;
    }
    *out = '\0';
    for (const char *s = text; *s;) {
        size_t n = character_length((const unsigned char *)s);
        if (n == 0)
            return "there is a control character, or something that is not UTF-8";
        s += n;
    }
    return NULL;
}

/* Cuts the path (after its first slash) into segments. Returns NULL, or what is wrong. */
static const char *split_path(struct exchange *exchange, char *path) {
    exchange->depth = 0;
    if (!*path)
        return NULL;
    for (char *segment = path, *next; segment; segment = next) {
        next = strchr(segment, '/');
        if (next)
            *next++ = '\0';
        const char *fault = percent_decode(segment, false);
        if (fault)
            return fault;
        if (strcmp(segment, ".") == 0 || strcmp(segment, "..") == 0)
            return "there is a dot segment";
        if (exchange->depth < MAX_PATH_DEPTH)
            exchange->path[exchange->depth] = segment;
        exchange->depth++;
    }
    return NULL;
}

/* The place of the path's first slash in the target, or NULL. The form with scheme and host
 * (RFC 9112, 3.2.2) is taken where the host is the one of the header. */
static char *find_path(struct exchange *exchange) {
    char *target = exchange->decoded;
    if (*target == '/')
        return target;
    const char *scheme = exchange->http->config.tls_cert ? "https://" : "http://";
    size_t skip = strlen(scheme);
    if (strncasecmp(target, scheme, skip) != 0)
        return NULL;
    char *slash = strchr(target + skip, '/');
    size_t n = slash ? (size_t)(slash - target) - skip : 0;
    bool same = n == strlen(exchange->host) && strncasecmp(target + skip, exchange->host, n) == 0;
    return same ? slash : NULL;
}

static bool split_target(struct exchange *exchange) {
    exchange->decoded = strdup(exchange->target);
    if (!exchange->decoded)
        return settle(exchange, NULL);
    char *path = find_path(exchange);
    if (!path && strcmp(exchange->decoded, "*") == 0 && strcmp(exchange->verb, "OPTIONS") == 0)
        return settle(exchange, reply_header(reply_static(204, NULL, "", 0), "Allow", "%s",
                                             "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
    if (!path)
        return settle(exchange, problem(400, "bad-request", "the path must begin with a slash"));
    if (strpbrk(path, " #"))
        return settle(exchange, problem(400, "bad-request", "there is a space or a # in the path"));
    exchange->query_text = strchr(path, '?');
    if (exchange->query_text)
        *exchange->query_text++ = '\0';
    const char *fault = split_path(exchange, path + 1);
    if (fault)
        return settle(exchange, problem(400, "bad-request", "bad path: %s", fault));
    return true;
}

/* Length of the path in the target as received. */
static int shown_length(const char *target) {
    size_t n = strcspn(target, "?");
    return n < MAX_SHOWN ? (int)n : MAX_SHOWN;
}

/* ---- Routes ---- */

/* The number of {names} in the route's path if it fits the request's, else -1. */
static int match_path(const struct exchange *exchange, const struct route *route,
                      const char *captures[HTTP_MAX_SEGMENTS]) {
    const char *pattern = route->path + 1;
    int n_captures = 0;
    for (size_t i = 0; i < exchange->depth; i++) {
        if (i == MAX_PATH_DEPTH || !*pattern)
            return -1;
        size_t n = strcspn(pattern, "/");
        const char *segment = exchange->path[i];
        if (*pattern == '{') {
            if (!*segment || n_captures == HTTP_MAX_SEGMENTS)
                return -1;
            captures[n_captures++] = segment;
        } else if (strlen(segment) != n || memcmp(segment, pattern, n) != 0) {
            return -1;
        }
        pattern += pattern[n] == '/' ? n + 1 : n;
    }
    return *pattern ? -1 : n_captures;
}

/* {names} of the route that fits the path best, whatever its method. */
static int fewest_names(const struct exchange *exchange) {
    int fewest = INT_MAX;
    for (const struct route *route = exchange->http->config.routes; route->method; route++) {
        const char *captures[HTTP_MAX_SEGMENTS];
        int n = match_path(exchange, route, captures);
        if (n >= 0 && n < fewest)
            fewest = n;
    }
    return fewest;
}

/* Fills route and segments of the request; false: no route has this method and path. */
static bool match_route(struct exchange *exchange, const char *method) {
    int fewest = fewest_names(exchange);
    for (const struct route *route = exchange->http->config.routes; route->method; route++) {
        const char *captures[HTTP_MAX_SEGMENTS] = {0};
        if (strcmp(route->method, method) != 0 || match_path(exchange, route, captures) != fewest)
            continue;
        exchange->request.route = route;
        memcpy(exchange->request.segments, captures, sizeof captures);
        return true;
    }
    return false;
}

/* "GET, HEAD, OPTIONS": what the path can do; "" where there is no such path. */
static void list_methods(struct exchange *exchange, char *allow, size_t room) {
    static const char *const methods[] = {"GET", "POST", "PUT", "PATCH", "DELETE"};
    size_t used = 0;
    allow[0] = '\0';
    for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++)
        if (match_route(exchange, methods[i]))
            used += (size_t)snprintf(allow + used, room - used, "%s, ",
                                     i == 0 ? "GET, HEAD" : methods[i]);
    if (used)
        snprintf(allow + used, room - used, "OPTIONS");
}

static bool find_route(struct exchange *exchange) {
    const char *verb = exchange->verb;
    exchange->request.method = strcmp(verb, "HEAD") == 0 ? "GET" : verb;
    if (match_route(exchange, exchange->request.method)) {
        exchange->request.method = exchange->request.route->method;
        return true;
    }
    const char *shown = exchange->target;
    int length = shown_length(shown);
    char allow[64];
    list_methods(exchange, allow, sizeof allow);
    if (!*allow)
        return settle(exchange, problem(404, "not-found",
                                        "there is nothing at %.*s; GET /openapi.json lists what "
                                        "there is",
                                        length, shown));
    struct reply *reply;
    if (strcmp(verb, "OPTIONS") == 0)
        reply = reply_static(204, NULL, "", 0);
    else
        reply = problem(405, "method-not-allowed", "%.*s is not possible on %.*s; possible: %s",
                        MAX_SHOWN, verb, length, shown, allow);
    return settle(exchange, reply_header(reply, "Allow", "%s", allow));
}

/* Whether two hosts with or without port are the same, where `port` need not be written. */
static bool same_authority(const char *a, const char *b, const char *port) {
    size_t na = strlen(a), nb = strlen(b), n = strlen(port);
    if (na > n && strcmp(a + na - n, port) == 0)
        na -= n;
    if (nb > n && strcmp(b + nb - n, port) == 0)
        nb -= n;
    return na == nb && strncasecmp(a, b, na) == 0;
}

/* Browsers let any page send a form or a plain POST to any server, and say where it came from. With
 * TLS a page of this host that came without it is anybody's on the way; without, a proxy may have
 * it. */
static bool check_origin(struct exchange *exchange) {
    const char *origin = request_header(&exchange->request, "Origin");
    if (!origin || strcmp(exchange->request.method, "GET") == 0)
        return true;
    if (!exchange->http->config.tls_cert && strncasecmp(origin, "http://", 7) == 0 &&
        same_authority(origin + 7, exchange->host, ":80"))
        return true;
    if (strncasecmp(origin, "https://", 8) == 0 &&
        same_authority(origin + 8, exchange->host, ":443"))
        return true;
    return settle(exchange,
                  problem(403, "forbidden-origin", "a page of %.*s may not change anything here",
                          MAX_SHOWN, origin));
}

/* Who asks, and may she? */
static bool check_asker(struct exchange *exchange) {
    struct request *request = &exchange->request;
    if (exchange->peer)
        memcpy(request->asker.address, exchange->peer->address, sizeof request->asker.address);
    struct reply *refusal = NULL;
    if (!exchange->http->config.admit || exchange->http->config.admit(request, &refusal))
        return true;
    return settle(exchange, refusal);
}

/* Around what is called for a request. */
static void act(const struct exchange *exchange, const struct request *request) {
    if (exchange->http->config.act)
        exchange->http->config.act(request);
}

/* ---- Query arguments ---- */

/* Cuts "a=1&b=2" into arguments. Returns NULL, or what is wrong. */
static const char *split_query(struct exchange *exchange) {
    for (char *text = exchange->query_text, *next; text; text = next) {
        next = strchr(text, '&');
        if (next)
            *next++ = '\0';
        if (!*text)
            continue;
        char *equals = strchr(text, '=');
        if (equals)
            *equals++ = '\0';
        const char *fault = percent_decode(text, true);
        if (!fault && equals)
            fault = percent_decode(equals, true);
        if (fault)
            return fault;
        exchange->query[exchange->n_query++] =
            (struct argument){.name = text, .value = equals ? equals : ""};
    }
    return NULL;
}

static bool read_query(struct exchange *exchange) {
    if (!exchange->query_text)
        return true;
    size_t n = 1;
    for (const char *c = exchange->query_text; *c; c++)
        n += *c == '&';
    exchange->query = calloc(n, sizeof *exchange->query);
    if (!exchange->query)
        return settle(exchange, NULL);
    const char *fault = split_query(exchange);
    if (fault)
        return settle(exchange, problem(400, "bad-request", "bad query: %s", fault));
    return true;
}

/* "limit, cursor", as much as there is room for. */
static void list_names(const char *const *names, char *out, size_t room) {
    size_t used = 0;
    out[0] = '\0';
    for (; names && *names && used < room; names++)
        used += (size_t)snprintf(out + used, room - used, "%s%s", used ? ", " : "", *names);
}

static bool knows(const struct route *route, const char *name) {
    for (const char *const *known = route->query; known && *known; known++)
        if (strcmp(*known, name) == 0)
            return true;
    return false;
}

/* What is wrong with query argument i, as a new JSON string; *fault says whether anything is. */
static json_t *query_fault(const struct exchange *exchange, size_t i, bool *fault) {
    const struct route *route = exchange->request.route;
    const char *name = exchange->query[i].name;
    *fault = true;
    if (!knows(route, name)) {
        char known[512];
        list_names(route->query, known, sizeof known);
        return *known ? json_sprintf("there is no query argument '%s' here; known are: %s", name,
                                     known)
                      : json_sprintf("there is no query argument '%s' here, nor any other", name);
    }
    for (size_t k = 0; k < i; k++)
        if (strcmp(exchange->query[k].name, name) == 0)
            return json_sprintf("the query argument '%s' is there twice", name);
    *fault = false;
    return NULL;
}

/* All faults at once, as for a body; but the pointer of a query argument is its name. */
static bool check_query(struct exchange *exchange) {
    if (!read_query(exchange))
        return false;
    json_t *errors = NULL;
    for (size_t i = 0; i < exchange->n_query; i++) {
        bool fault;
        json_t *detail = query_fault(exchange, i, &fault);
        if (!fault)
            continue;
        json_t *error =
            json_pack("{s:s, s:o}", "parameter", exchange->query[i].name, "detail", detail);
        if (!errors)
            errors = json_array();
        if (json_array_append_new(errors, error) != 0) {
            json_decref(errors);
            return settle(exchange, NULL);
        }
    }
    if (!errors)
        return true;
    json_t *first = json_incref(json_object_get(json_array_get(errors, 0), "detail"));
    settle(exchange, problem_faults("invalid-query", json_string_value(first), errors));
    json_decref(first);
    return false;
}

/* ---- The body ---- */

static bool is_json(const char *content_type) {
    static const char *const types[] = {"application/json", "application/merge-patch+json"};
    size_t n = strcspn(content_type, "; \t");
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (strlen(types[i]) == n && strncasecmp(content_type, types[i], n) == 0)
            return true;
    return false;
}

static struct reply *too_large(const struct exchange *exchange) {
    const struct route *route = exchange->request.route;
    return problem(413, "too-large", "%s %s takes a body of at most %llu bytes", route->method,
                   route->path, (unsigned long long)exchange->limit);
}

static bool check_body(struct exchange *exchange) {
    const struct http_config *config = &exchange->http->config;
    bool sink = exchange->request.route->sink;
    exchange->limit = sink ? config->max_upload_bytes : config->max_body_bytes;
    if (exchange->announced > exchange->limit)
        return settle(exchange, too_large(exchange));
    const char *type = request_header(&exchange->request, "Content-Type");
    if (!sink && (exchange->announced || exchange->chunked) && type && !is_json(type))
        return settle(exchange, problem(415, "unsupported-media-type",
                                        "the body is said to be '%.*s', but this takes JSON; with "
                                        "curl add -H 'Content-Type: application/json'",
                                        MAX_SHOWN, type));
    return true;
}

static bool open_sink(struct exchange *exchange) {
    const struct sink *sink = exchange->request.route->sink;
    if (!sink)
        return true;
    struct reply *refusal = NULL;
    act(exchange, &exchange->request);
    exchange->request.upload = sink->open(&exchange->request, &refusal);
    act(exchange, NULL);
    if (!exchange->request.upload)
        return settle(exchange, refusal);
    exchange->upload_open = true;
    return true;
}

static void abort_upload(struct exchange *exchange) {
    if (exchange->upload_open)
        exchange->request.route->sink->abort(exchange->request.upload);
    exchange->upload_open = false;
}

/* Makes room for n more bytes and a NUL. */
static bool body_reserve(struct exchange *exchange, size_t n) {
    size_t used = (size_t)exchange->received, needed = used + n + 1;
    if (needed <= exchange->body_room)
        return true;
    size_t room = exchange->body_room * 2;
    if (exchange->announced) /* at most the limit: check_body() */
        room = (size_t)exchange->announced + 1;
    if (room < needed)
        room = needed;
    char *body = realloc(exchange->body, room);
    if (!body)
        return false;
    exchange->body = body;
    exchange->body_room = room;
    return true;
}

static void keep(struct exchange *exchange, const char *bytes, size_t n) {
    if (exchange->request.route->sink) {
        if (!exchange->upload_failed &&
            exchange->request.route->sink->write(exchange->request.upload, bytes, n) < 0)
            exchange->upload_failed = true;
    } else if (body_reserve(exchange, n)) {
        memcpy(exchange->body + exchange->received, bytes, n);
        exchange->body[exchange->received + n] = '\0';
    } else {
        settle(exchange, NULL);
    }
}

/* A piece of the body. Also what is not wanted any more is read, to the end: only then can the
 * answer be sent. */
static enum MHD_Result receive(struct exchange *exchange, const char *bytes, size_t n) {
    if (!exchange->settled && n > exchange->limit - exchange->received) {
        abort_upload(exchange);
        settle(exchange, too_large(exchange));
    }
    if (!exchange->settled)
        keep(exchange, bytes, n);
    exchange->received += n;
    if (exchange->peer)
        exchange->peer->body_bytes = exchange->received;
    bool endless = exchange->settled && exchange->received > exchange->limit &&
                   exchange->received - exchange->limit > MAX_REFUSED_BYTES;
    return endless ? MHD_NO : MHD_YES;
}

/* ---- Those who dawdle ---- */

static int64_t clock_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void expect_headers(struct peer *peer) {
    if (!peer)
        return;
    peer->body_from_ms = 0;
    peer->headers_from_ms = clock_ms();
}

static void expect_body(struct peer *peer) {
    if (!peer)
        return;
    peer->headers_from_ms = 0;
    peer->body_bytes = 0;
    peer->body_from_ms = clock_ms();
}

static bool dawdles(const struct http *http, const struct peer *peer, int64_t now) {
    int64_t idle_ms = (int64_t)http->config.idle_timeout_s * 1000;
    int64_t headers = peer->headers_from_ms, body = peer->body_from_ms;
    if (headers && now - headers > idle_ms + HEADERS_MS)
        return true;
    return body && now - body > idle_ms &&
           peer->body_bytes < (uint64_t)(now - body) / 1000 * http->config.least_body_rate;
}

/* libmicrohttpd closes what has come to its end, on the thread that owns it. */
static void cut_dawdlers(struct http *http, int64_t now) {
    pthread_mutex_lock(&http->peers_lock);
    for (const struct peer *peer = http->peers; peer; peer = peer->after)
        if (dawdles(http, peer, now))
            shutdown(peer->fd, SHUT_RDWR);
    pthread_mutex_unlock(&http->peers_lock);
}

static void say(const struct http *http, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void say(const struct http *http, const char *format, ...) {
    char line[512];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (http->config.trouble)
        http->config.trouble(http->config.context, line);
}

void http_reload(struct http *http) {
    struct ovr_err err = {0};
    if (!http->config.tls_cert)
        return;
    if (tls_reload(&err))
        say(http, "the certificate stays as it was: %s", err.text);
    else
        say(http, "the certificate was read anew");
}

void http_tick(struct http *http) {
    int64_t now = clock_ms();
    if (now - http->ticked_at_ms < TICK_MS)
        return;
    http->ticked_at_ms = now;
    cut_dawdlers(http, now);
    if (tls_changed())
        http_reload(http);
}

/* ---- The course of an exchange ---- */

static bool examine(struct exchange *exchange) {
    return check_framing(exchange) && check_room(exchange) && check_host(exchange) &&
           split_target(exchange) && find_route(exchange) && check_origin(exchange) &&
           check_asker(exchange) && check_query(exchange) && check_body(exchange) &&
           open_sink(exchange);
}

/* A refusal is sent before the body where that saves reading much, or where the client waits for
 * it. Otherwise it waits for the body: sent earlier it costs the connection, and a client that is
 * still sending may see only that it broke. */
static bool answers_before_body(const struct exchange *exchange) {
    return exchange->unframed || request_header(&exchange->request, "Expect") ||
           exchange->announced > exchange->http->config.max_body_bytes;
}

/* The client's id, or one that no other request of this process has. */
static void name_request(struct exchange *exchange) {
    static const char allowed[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    const char *theirs = request_header(&exchange->request, "X-Request-Id");
    size_t n = theirs ? strlen(theirs) : 0;
    if (n && n < sizeof exchange->id && strspn(theirs, allowed) == n)
        memcpy(exchange->id, theirs, n + 1);
    else
        snprintf(exchange->id, sizeof exchange->id, "%08x-%llx", exchange->http->start_id,
                 (unsigned long long)atomic_fetch_add(&exchange->http->n_requests, 1));
    exchange->request.id = exchange->id;
}

static enum MHD_Result begin(struct exchange *exchange, const char *verb) {
    exchange->begun = true;
    exchange->verb = verb;
    name_request(exchange);
    expect_body(exchange->peer);
    if (examine(exchange) || !answers_before_body(exchange))
        return MHD_YES;
    struct reply *reply = exchange->answer;
    exchange->answer = NULL;
    return send_reply(exchange, reply);
}

static bool refuse_slow(struct exchange *exchange, struct reply *reply) {
    abort_upload(exchange);
    return !settle(exchange, retry_later(reply));
}

/* Puts the exchange to the desk and its connection to sleep; only when it sleeps can it be woken.
 * It is not among the sleepers, since it must not come back before its handler is done with it:
 * close_desk() sees to that. Returns false when it sleeps; true: the refusal is settled. */
static bool hand_over(struct exchange *exchange) {
    struct http *http = exchange->http;
    struct desk *desk = &http->desk;
    bool closed, full;
    pthread_mutex_lock(&desk->lock);
    closed = desk->closed;
    full = desk->n_waiting >= http->config.max_waiting;
    if (!closed && !full) {
        MHD_suspend_connection(exchange->connection);
        exchange->next = NULL;
        *(desk->first ? &desk->last->next : &desk->first) = exchange;
        desk->last = exchange;
        desk->n_waiting++;
        pthread_cond_signal(&desk->changed);
    }
    pthread_mutex_unlock(&desk->lock);
    if (closed)
        return refuse_slow(exchange, shutting_down());
    if (full)
        return refuse_slow(exchange, problem(503, "full",
                                             "too many requests wait to be computed; "
                                             "try again later"));
    return false;
}

/* The next exchange; NULL when the desk is closed and empty. */
static struct exchange *take_exchange(struct desk *desk) {
    pthread_mutex_lock(&desk->lock);
    while (!desk->first && !desk->closed)
        pthread_cond_wait(&desk->changed, &desk->lock);
    struct exchange *exchange = desk->first;
    if (exchange) {
        desk->first = exchange->next;
        desk->n_waiting--;
    }
    pthread_mutex_unlock(&desk->lock);
    return exchange;
}

static struct reply *call_handler(struct exchange *exchange) {
    exchange->upload_open = false;
    act(exchange, &exchange->request);
    struct reply *reply = exchange->request.route->handle(&exchange->request);
    act(exchange, NULL);
    return reply;
}

/* A slow thread. What comes back to its connection is settled. */
static void *desk_main(void *arg) {
    struct http *http = arg;
    struct desk *desk = &http->desk;
    struct exchange *exchange;
    while ((exchange = take_exchange(desk))) {
        exchange->request.stop = &desk->stop;
        if (atomic_load(&desk->stop))
            refuse_slow(exchange, shutting_down());
        else
            settle(exchange, call_handler(exchange));
        MHD_resume_connection(exchange->connection);
    }
    return NULL;
}

/* Returns false when the request sleeps; then it comes here once more. */
static bool ask_handler(struct exchange *exchange) {
    struct reply *reply;
    while ((reply = call_handler(exchange)) == &later) {
        if (sleep_until_woken(exchange))
            return false;
        if (atomic_load(&exchange->http->draining)) {
            reply = retry_later(shutting_down());
            break;
        }
    }
    settle(exchange, reply);
    return true;
}

static enum MHD_Result finish(struct exchange *exchange) {
    struct request *request = &exchange->request;
    if (exchange->peer)
        exchange->peer->body_from_ms = 0;
    if (!exchange->settled) {
        if (!request->route->sink && exchange->body) {
            request->body = exchange->body;
            request->body_size = (size_t)exchange->received;
        }
        bool slow = request->route->slow && exchange->http->config.slow_threads;
        if (slow ? !hand_over(exchange) : !ask_handler(exchange))
            return MHD_YES; /* and comes here again */
    }
    struct reply *reply = exchange->answer;
    exchange->answer = NULL;
    return send_reply(exchange, reply);
}

/* ---- Callbacks of libmicrohttpd ---- */

static void *on_target(void *cls, const char *target, struct MHD_Connection *connection) {
    struct http *http = cls;
    struct exchange *exchange = calloc(1, sizeof *exchange);
    if (!exchange)
        return NULL;
    exchange->http = http;
    exchange->connection = connection;
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    exchange->peer = info ? info->socket_context : NULL;
    exchange->size = -1;
    exchange->request =
        (struct request){.context = http->config.context, .body = "", .connection = exchange};
    clock_gettime(CLOCK_MONOTONIC, &exchange->started);
    exchange->target = strdup(target);
    if (!exchange->target) {
        free(exchange);
        return NULL;
    }
    atomic_fetch_add(&http->exchanges, 1);
    return exchange;
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *connection, const char *url,
                                  const char *method, const char *version, const char *upload_data,
                                  size_t *upload_data_size, void **con_cls) {
    (void)url; /* decoded, so not to be trusted */
    (void)version;
    struct http *http = cls;
    struct exchange *exchange = *con_cls;
    if (!exchange)
        return MHD_queue_response(connection, 500, http->out_of_memory);
    if (!exchange->begun)
        return begin(exchange, method);
    size_t n = *upload_data_size;
    *upload_data_size = 0;
    return n ? receive(exchange, upload_data, n) : finish(exchange);
}

/* The bytes that are not plain ASCII become \xHH, so that no one can forge a line of the log. */
static void escape(char *out, size_t room, const char *text, int n) {
    size_t used = 0;
    for (int i = 0; i < n && text[i] && used + 5 < room; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c > 0x20 && c < 0x7f && c != '\\')
            out[used++] = (char)c;
        else
            used += (size_t)snprintf(out + used, room - used, "\\x%02x", c);
    }
    out[used] = '\0';
}

static void log_exchange(const struct exchange *exchange, bool whole) {
    const struct http_config *config = &exchange->http->config;
    if (!config->log)
        return;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    double ms = (double)(now.tv_sec - exchange->started.tv_sec) * 1e3 +
                (double)(now.tv_nsec - exchange->started.tv_nsec) * 1e-6;
    char verb[4 * 16 + 5], path[4 * MAX_SHOWN + 5], status[16] = "-", size[32] = "-", line[1400];
    escape(verb, sizeof verb, exchange->verb ? exchange->verb : "-", 16);
    escape(path, sizeof path, exchange->target, shown_length(exchange->target));
    if (exchange->status)
        snprintf(status, sizeof status, "%d", exchange->status);
    if (exchange->size >= 0)
        snprintf(size, sizeof size, "%lld", (long long)exchange->size);
    snprintf(line, sizeof line, "request=%s method=%s path=%s status=%s bytes=%s ms=%.1f%s",
             *exchange->id ? exchange->id : "-", verb, path, status, size, ms,
             whole ? "" : " broken off");
    config->log(config->context, exchange->status, line);
}

static void observe(const struct exchange *exchange) {
    const struct http_config *config = &exchange->http->config;
    struct timespec now;
    if (!config->observe)
        return;
    clock_gettime(CLOCK_MONOTONIC, &now);
    config->observe(config->context, exchange->request.route, exchange->status,
                    (double)(now.tv_sec - exchange->started.tv_sec) +
                        (double)(now.tv_nsec - exchange->started.tv_nsec) * 1e-9);
}

static void on_completed(void *cls, struct MHD_Connection *connection, void **con_cls,
                         enum MHD_RequestTerminationCode why) {
    (void)connection;
    struct http *http = cls;
    struct exchange *exchange = *con_cls;
    if (!exchange)
        return;
    *con_cls = NULL;
    expect_headers(exchange->peer);
    abort_upload(exchange);
    observe(exchange);
    if (exchange->forget)
        exchange->forget(exchange->request.state);
    log_exchange(exchange, why == MHD_REQUEST_TERMINATED_COMPLETED_OK);
    reply_free(exchange->answer);
    free(exchange->body);
    free(exchange->query);
    free(exchange->decoded);
    free(exchange->target);
    free(exchange);
    atomic_fetch_sub(&http->exchanges, 1);
}

static void read_address(struct MHD_Connection *connection, char address[INET6_ADDRSTRLEN]) {
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    const struct sockaddr *from = info ? info->client_addr : NULL;
    const void *bytes = NULL;
    if (from && from->sa_family == AF_INET)
        bytes = &((const struct sockaddr_in *)(const void *)from)->sin_addr;
    else if (from && from->sa_family == AF_INET6)
        bytes = &((const struct sockaddr_in6 *)(const void *)from)->sin6_addr;
    address[0] = '\0';
    if (!bytes || !inet_ntop(from->sa_family, bytes, address, INET6_ADDRSTRLEN))
        return;
    if (strncmp(address, "::ffff:", 7) == 0 && strchr(address, '.')) /* IPv4 on an IPv6 socket */
        memmove(address, address + 7, strlen(address + 7) + 1);
}

static void join(struct http *http, struct peer *peer) {
    int like = 0;
    bool loopback = strncmp(peer->address, "127.", 4) == 0 || strcmp(peer->address, "::1") == 0;
    pthread_mutex_lock(&http->peers_lock);
    for (const struct peer *p = http->peers; p && http->config.max_per_address; p = p->after)
        like += strcmp(p->address, peer->address) == 0;
    peer->crowd = !loopback && http->config.max_per_address && like >= http->config.max_per_address;
    peer->after = http->peers;
    if (http->peers)
        http->peers->before = peer;
    http->peers = peer;
    pthread_mutex_unlock(&http->peers_lock);
}

/* Before its socket is closed. */
static void leave(struct http *http, struct peer *peer) {
    pthread_mutex_lock(&http->peers_lock);
    *(peer->before ? &peer->before->after : &http->peers) = peer->after;
    if (peer->after)
        peer->after->before = peer->before;
    pthread_mutex_unlock(&http->peers_lock);
    free(peer);
}

/* Counts, and marks those that came when the house was full. */
static void on_connection(void *cls, struct MHD_Connection *connection, void **socket_context,
                          enum MHD_ConnectionNotificationCode what) {
    struct http *http = cls;
    if (what == MHD_CONNECTION_NOTIFY_CLOSED) {
        atomic_fetch_sub(&http->connections, 1);
        if (*socket_context)
            leave(http, *socket_context);
        return;
    }
    bool late = atomic_fetch_add(&http->connections, 1) >= http->config.max_connections;
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    struct peer *peer = calloc(1, sizeof *peer);
    *socket_context = peer;
    if (!peer)
        return;
    *peer = (struct peer){.http = http, .fd = info ? info->connect_fd : -1, .late = late};
    read_address(connection, peer->address);
    expect_headers(peer);
    join(http, peer);
}

static void on_trouble(void *cls, const char *format, va_list args)
    __attribute__((format(printf, 2, 0)));

static void on_trouble(void *cls, const char *format, va_list args) {
    const struct http *http = cls;
    if (!http->config.log)
        return;
    char line[512];
    int n = snprintf(line, sizeof line, "libmicrohttpd: ");
    vsnprintf(line + n, sizeof line - (size_t)n, format, args);
    line[strcspn(line, "\r\n")] = '\0';
    http->config.log(http->config.context, 0, line);
}

/* ---- Start and stop ---- */

struct address {
    struct sockaddr_storage socket;
    socklen_t size;
    char host[INET6_ADDRSTRLEN];
};

/* "127.0.0.1:80" to host and port; false where it is not of that form. */
static bool split_address(const char *text, char *host, size_t room, int *port) {
    const char *colon = strrchr(text, ':');
    if (!colon || !colon[1] || strlen(colon + 1) > 5 || colon[1 + strspn(colon + 1, "0123456789")])
        return false;
    *port = atoi(colon + 1);
    size_t n = (size_t)(colon - text);
    bool bracketed = n > 1 && text[0] == '[' && text[n - 1] == ']';
    if (bracketed)
        text++, n -= 2;
    if (n == 0 || n >= room || *port > 65535 || (!bracketed && memchr(text, ':', n)))
        return false;
    memcpy(host, text, n);
    host[n] = '\0';
    if (strcmp(host, "localhost") == 0)
        snprintf(host, room, "127.0.0.1");
    return true;
}

static bool parse_address(const char *text, struct address *address) {
    int port;
    if (!split_address(text, address->host, sizeof address->host, &port))
        return false;
    memset(&address->socket, 0, sizeof address->socket);
    struct sockaddr_in *v4 = (struct sockaddr_in *)&address->socket;
    if (inet_pton(AF_INET, address->host, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons((uint16_t)port);
        address->size = sizeof *v4;
        return true;
    }
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&address->socket;
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons((uint16_t)port);
    address->size = sizeof *v6;
    return inet_pton(AF_INET6, address->host, &v6->sin6_addr) == 1;
}

static bool is_loopback(const struct address *address) {
    if (address->socket.ss_family == AF_INET6)
        return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)&address->socket)->sin6_addr);
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)&address->socket;
    return ntohl(v4->sin_addr.s_addr) >> 24 == 127;
}

/* A socket of our own, since libmicrohttpd doesn't say why it could not make one. Returns it, or a
 * negative code; the port that was taken is then in *address. */
static int open_listener(const char *listen_at, struct address *address, struct ovr_err *err) {
    int fd = socket(address->socket.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int on = 1;
    if (fd < 0)
        return ovr_fail(err, OVR_IO, "listen", "no socket: %s", strerror(errno));
    /* Else a restarted server finds its port taken by the connections of the one before. */
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
        bind(fd, (struct sockaddr *)&address->socket, address->size) == 0 &&
        listen(fd, LISTEN_BACKLOG) == 0 &&
        getsockname(fd, (struct sockaddr *)&address->socket, &address->size) == 0)
        return fd;
    int fault = errno;
    close(fd);
    if (fault == EADDRINUSE)
        return ovr_fail(err, OVR_IO, "listen",
                        "%s is in use: perhaps ovrd runs already; choose another port, or 0 for "
                        "any free one",
                        listen_at);
    return ovr_fail(err, OVR_IO, "listen", "cannot listen on %s: %s", listen_at, strerror(fault));
}

static int listen_on(struct http *http, struct ovr_err *err) {
    const char *text = http->config.listen;
    struct address address;
    if (!parse_address(text, &address))
        return ovr_fail(err, OVR_INVALID, "listen",
                        "'%.100s' is no address and port; write 127.0.0.1:8080 or [::1]:8080 (port "
                        "0: any free one)",
                        text);
    if (!is_loopback(&address) && !http->config.everywhere)
        return ovr_fail(err, OVR_INVALID, "listen",
                        "%s can be reached from other machines, but there is no admin yet, so "
                        "everybody could do everything: run 'ovrd user add NAME --role admin' with "
                        "this --data-dir first, or give --admin-token-file FILE, or listen on "
                        "127.0.0.1",
                        text);
    if (!is_loopback(&address) && gethostname(http->own_name, sizeof http->own_name - 1))
        http->own_name[0] = '\0';
    int fd = open_listener(text, &address, err);
    if (fd < 0)
        return fd;
    bool v6 = address.socket.ss_family == AF_INET6;
    in_port_t port = v6 ? ((struct sockaddr_in6 *)&address.socket)->sin6_port
                        : ((struct sockaddr_in *)&address.socket)->sin_port;
    snprintf(http->address, sizeof http->address, v6 ? "[%s]" : "%s", address.host);
    snprintf(http->url, sizeof http->url, "%s://%s:%u", http->config.tls_cert ? "https" : "http",
             http->address, ntohs(port));
    return fd;
}

/* The only reply that can be sent when nothing can be allocated. */
static struct MHD_Response *make_out_of_memory(void) {
    static char body[] = "{\"type\":\"/problems/out-of-memory\",\"title\":\"Out of memory\","
                         "\"status\":500,\"detail\":\"not enough memory for the reply\"}\n";
    struct MHD_Response *response =
        MHD_create_response_from_buffer(sizeof body - 1, body, MHD_RESPMEM_PERSISTENT);
    if (response &&
        MHD_add_response_header(response, "Content-Type", "application/problem+json") == MHD_YES &&
        MHD_add_response_header(response, "X-Content-Type-Options", "nosniff") == MHD_YES &&
        MHD_add_response_header(response, "Cache-Control", "no-cache") == MHD_YES)
        return response;
    if (response)
        MHD_destroy_response(response);
    return NULL;
}

/* Takes the socket over. */
static struct MHD_Daemon *start_daemon(struct http *http, int fd) {
    const struct http_config *config = &http->config;
    unsigned n_connections = (unsigned)config->max_connections;
    unsigned headroom = n_connections > HEADROOM ? n_connections : HEADROOM;
    unsigned threads = config->threads > 1 ? (unsigned)config->threads : 0; /* 0: no pool, one */
    /* poll, not epoll: with its edge-triggered epoll libmicrohttpd 0.9.75 misses that a client went
     * away when its last bytes and the end arrive together, and keeps what it uploaded until the
     * idle timeout. The logger comes first, so that it hears of faults in the options after it. */
    static char priorities[] = TLS_PRIORITIES;
    struct MHD_OptionItem tls[] = {{MHD_OPTION_HTTPS_CERT_CALLBACK, 0, tls_callback()},
                                   {MHD_OPTION_HTTPS_PRIORITIES, 0, priorities},
                                   {MHD_OPTION_END, 0, NULL}};
    if (!config->tls_cert)
        tls[0].option = MHD_OPTION_END;
    struct MHD_Daemon *daemon = MHD_start_daemon(
        MHD_USE_POLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG |
            (config->tls_cert ? MHD_USE_TLS : 0),
        0, NULL, NULL, on_request, http, MHD_OPTION_EXTERNAL_LOGGER, on_trouble, http,
        MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_THREAD_POOL_SIZE, threads,
        MHD_OPTION_CONNECTION_LIMIT, n_connections + headroom, MHD_OPTION_CONNECTION_TIMEOUT,
        (unsigned)config->idle_timeout_s, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        (size_t)CONNECTION_MEMORY, MHD_OPTION_URI_LOG_CALLBACK, on_target, http,
        MHD_OPTION_NOTIFY_COMPLETED, on_completed, http, MHD_OPTION_NOTIFY_CONNECTION,
        on_connection, http, MHD_OPTION_ARRAY, tls, MHD_OPTION_END);
    return daemon;
}

static void close_desk(struct desk *desk) {
    atomic_store(&desk->stop, 1);
    pthread_mutex_lock(&desk->lock);
    desk->closed = true;
    pthread_cond_broadcast(&desk->changed);
    pthread_mutex_unlock(&desk->lock);
    for (int i = 0; i < desk->n_threads; i++)
        pthread_join(desk->threads[i], NULL);
    desk->n_threads = 0;
}

/* As many of its threads as can be had, at least one where there shall be any. */
static int open_desk(struct http *http, struct ovr_err *err) {
    struct desk *desk = &http->desk;
    for (int i = 0; i < http->config.slow_threads && i < HTTP_SLOW_THREADS; i++)
        if (pthread_create(&desk->threads[desk->n_threads], NULL, desk_main, http) == 0)
            desk->n_threads++;
    return desk->n_threads || !http->config.slow_threads
               ? 0
               : ovr_fail(err, OVR_IO, NULL, "the HTTP server's threads could not be started");
}

static void http_free(struct http *http) {
    pthread_mutex_destroy(&http->desk.lock);
    pthread_cond_destroy(&http->desk.changed);
    if (http->out_of_memory)
        MHD_destroy_response(http->out_of_memory);
    pthread_mutex_destroy(&http->waiting);
    pthread_mutex_destroy(&http->peers_lock);
    tls_close();
    free(http);
}

int http_start(struct http **http, const struct http_config *config, const char **url,
               struct ovr_err *err) {
    struct http *made = calloc(1, sizeof *made);
    if (!made)
        return ovr_nomem(err, "the HTTP server");
    made->config = *config;
    if (getrandom(&made->start_id, sizeof made->start_id, GRND_NONBLOCK) < 0)
        made->start_id = (unsigned)time(NULL);
    pthread_mutex_init(&made->desk.lock, NULL);
    pthread_cond_init(&made->desk.changed, NULL);
    pthread_mutex_init(&made->waiting, NULL);
    pthread_mutex_init(&made->peers_lock, NULL);
    made->out_of_memory = make_out_of_memory();
    int fd = made->out_of_memory ? 0 : ovr_nomem(err, "the HTTP server");
    if (!fd && config->tls_cert)
        fd = tls_open(config->tls_cert, config->tls_key, err);
    if (!fd)
        fd = listen_on(made, err);
    if (fd < 0) {
        http_free(made);
        return fd;
    }
    int rc = open_desk(made, err);
    made->daemon = rc ? NULL : start_daemon(made, fd);
    if (!made->daemon) {
        close_desk(&made->desk);
        http_free(made);
        return ovr_fail(err, OVR_IO, NULL, "the threads of the HTTP server could not be started");
    }
    if (*made->own_name && !config->tls_cert)
        say(made,
            "%s has no TLS: tokens go over the network as they are, unless it is a proxy with TLS "
            "that asks; see --tls-cert",
            made->url);
    *http = made;
    *url = made->url;
    return 0;
}

void http_stop(struct http *http) {
    if (!http)
        return;
    atomic_store(&http->draining, true);
    wake_all(http);
    MHD_socket listener = MHD_quiesce_daemon(http->daemon);
    close_desk(&http->desk); /* a connection that sleeps must not see the daemon's end */
    for (int ms = 0; ms < STOP_WAIT_MS && atomic_load(&http->exchanges) > 0; ms += STOP_POLL_MS)
        nanosleep(&(struct timespec){.tv_nsec = STOP_POLL_MS * 1000000L}, NULL);
    MHD_stop_daemon(http->daemon);
    if (listener != MHD_INVALID_SOCKET)
        close(listener);
    http_free(http);
}
