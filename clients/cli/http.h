/* HTTP for ovrctl: the only owner of libcurl. One request at a time over a kept connection. */
#ifndef CLI_HTTP_H
#define CLI_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* What is kept in memory of one answer; the rest belongs into a file. */
enum { HTTP_MEMORY_MAX = 64 << 20 };

enum { IDEMPOTENCY_KEY_MAX = 255 };

struct http;

struct http_request {
    const char *method; /* NULL: GET; with an upload: PUT */
    const char *path;   /* escaped, with its query, "/v1/…" */
    const char *body;   /* JSON to send with a POST; NULL: none */
    size_t body_size;
    const char *if_none_match;   /* an ETag; NULL or "": none */
    const char *if_match;        /* NULL: none */
    const char *idempotency_key; /* NULL: none; at most IDEMPOTENCY_KEY_MAX */
    FILE *upload;                /* the body of a PUT or POST, streamed */
    int64_t upload_size;         /* -1 where unknown */
    FILE *sink;                  /* takes the body of a 2xx answer; NULL: memory */
    /* Takes the body of a 200 as it comes; first called with n = 0, when the headers are there. */
    void (*consume)(void *context, const char *bytes, size_t n);
    void *context;
    long long last_event_id;                      /* of a stream to go on with; 0: from its start */
    int wait_s;                                   /* Prefer: wait; 0: answer at once */
    void (*progress)(int64_t sent, int64_t size); /* of an upload; size -1 where unknown */
};

struct http_reply {
    int status;
    char *body; /* NUL-terminated; NULL where nothing came or all went to the sink */
    size_t body_size;
    char etag[128]; /* with its quotes; "" without one, or where it is longer than this */
    char retry_after[16];
    char next[1024]; /* path of the next page, that a Link header announces; "": none */
    char last_byte;  /* of what went to the sink; 0 for nothing */
};

enum http_code {
    HTTP_OK = 0,           /* there is an answer, whatever its status */
    HTTP_UNREACHABLE = -1, /* no connection, or it broke */
    HTTP_TOO_LARGE = -2,   /* over HTTP_MEMORY_MAX */
    HTTP_LOCAL = -3,       /* sink or upload failed, or no memory */
};

/* `url` as a person writes it; http and https only. ca_file: PEM certificates to trust instead of
 * the system's; NULL: those; it must outlive the http. Returns 0 or a negative number with *trouble
 * saying what is wrong with it. */
int http_open(struct http **http, const char *url, const char *ca_file, const char **trouble);
void http_close(struct http *http); /* NULL is fine */

/* Sends the token along ("": none), which is borrowed. */
void http_identify(struct http *http, const char *token);

/* Returns an enum http_code. The caller releases *reply in any case. */
int http_send(struct http *http, const struct http_request *request, struct http_reply *reply);
void http_reply_release(struct http_reply *reply);

/* Statuses of a daemon, or of a proxy before it, that is going down, coming up, or overrun. */
bool http_is_passing(int status);

const char *http_url(const struct http *http);
const char *http_trouble(const struct http *http); /* why the last http_send() failed */

#endif
