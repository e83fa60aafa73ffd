/* A real daemon for a test: build/ovrd on a free port and a fresh data directory, requests by
 * libcurl.
 *
 * Every answer is held against the daemon's own contract (GET /openapi.json) as it comes in: the
 * status and media type must be documented for the route, the body must fit its schema, and have no
 * member that the contract does not know. So each test is a contract test too.
 *
 * All functions fail the running test themselves. In JSON given as text without double quotes,
 * single ones stand for them.
 */
#ifndef TESTS_API_DAEMON_H
#define TESTS_API_DAEMON_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#include <cmocka.h>
#include <jansson.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* Sanitizers are slow: what a test waits for may take so many times as long. */
#if defined __SANITIZE_THREAD__ || defined __SANITIZE_ADDRESS__
enum { SLOWNESS = 10 };
#else
enum { SLOWNESS = 1 };
#endif

struct answer {
    int status;
    char *headers; /* lines as received, the status line first */
    char *body;    /* a NUL follows */
    size_t size;
    json_t *json; /* NULL: not JSON */
    double seconds;
    struct answer *before;
};

struct daemon {
    char dir[64]; /* its data directory */
    char log[72]; /* file of its standard error */
    char url[64];
    char token[128];       /* goes along with every request; "": none */
    const char *authority; /* file with the certificate that is trusted; NULL: the system's */
    int port;
    pid_t pid; /* 0: not running */
    int out;
    json_t *contract;
    void *curl;
    struct answer *answers; /* all of them, freed with the daemon */
};

/* Options such as "--workers", "1" end with NULL; they may be NULL. */
struct daemon *daemon_new(const char *const *options);
/* One with a certificate that only this file knows. */
struct daemon *daemon_trusting(const char *const *options, const char *authority);
void daemon_free(
    struct daemon *daemon); /* ends it by SIGTERM, which must work; removes its files */
void daemon_start(struct daemon *daemon, const char *const *options); /* again, same directory */
void daemon_kill(struct daemon *daemon);                              /* kill -9 */
void daemon_reaped(struct daemon *daemon); /* it has ended otherwise, and was waited for */
double daemon_stop(struct daemon *daemon); /* SIGTERM, exit status 0; returns the seconds */
/* Starts another ovrd that is expected to end by itself; returns its exit status, standard error in
 * text. */
int daemon_refuses(const char *const *options, char *text, size_t size);

/* Set-up and tear-down of a test or group whose *state is a daemon without options. */
int with_daemon(void **state);
int without_daemon(void **state);

struct call {
    const char *method, *path; /* the path as it goes out */
    const char *headers[5];    /* "Name: value", up to the first NULL */
    const void *body;          /* NULL: none */
    size_t size;               /* 0: it is a text */
    int chunked;               /* without Content-Length */
    int may_break; /* the daemon may be gone: then the answer has status 0 and nothing else */
};

/* Answers live as long as the daemon's struct, or until daemon_forget_answers(). */
const struct answer *call(struct daemon *daemon, const struct call *call);
void daemon_forget_answers(struct daemon *daemon);
const struct answer *get(struct daemon *daemon, const char *path, ...)
    __attribute__((format(printf, 2, 3)));
/* JSON. spec NULL: no body. */
const struct answer *post(struct daemon *daemon, const char *path, const char *json);
const struct answer *put(struct daemon *daemon, const char *path, const void *bytes, size_t n);

/* Bytes as they are over a connection of their own; returns what comes back until the other side
 * closes, at most a few seconds. With hang_up the connection is closed right after sending. */
const char *raw(struct daemon *daemon, const void *bytes, size_t n, int hang_up);

const char *header(const struct answer *answer, const char *name); /* NULL: none; static buffers */

#define assert_status(answer, expected) check_status((answer), (expected), __FILE__, __LINE__)
void check_status(const struct answer *answer, int expected, const char *file, int line);

/* A problem of this kind whose detail has `part`. */
#define assert_problem(answer, status, slug, part)                                                 \
    check_problem((answer), (status), (slug), (part), __FILE__, __LINE__)
void check_problem(const struct answer *answer, int status, const char *slug, const char *part,
                   const char *file, int line);

/* The detail that `errors` has for this pointer (or query argument); NULL: none. */
const char *fault(const struct answer *answer, const char *pointer);
#define assert_fault(answer, pointer, part)                                                        \
    check_fault((answer), (pointer), (part), __FILE__, __LINE__)
void check_fault(const struct answer *answer, const char *pointer, const char *part,
                 const char *file, int line);

/* What stands at an RFC 6901 pointer. at() is NULL where nothing stands, the others fail. */
json_t *at(const json_t *json, const char *pointer);
double number_at(const json_t *json, const char *pointer);
const char *text_at(const json_t *json, const char *pointer);
/* Whether the value equals this JSON text. */
#define assert_json(json, pointer, text) check_json((json), (pointer), (text), __FILE__, __LINE__)
void check_json(const json_t *json, const char *pointer, const char *text, const char *file,
                int line);
json_t *parse(const char *text); /* with single quotes; the caller frees */

/* Adds a user; returns her token. */
const char *add_user(struct daemon *daemon, const char *name, const char *role);

/* Posts a spec (formatted), which must be accepted. Returns the id, the caller's to free. */
char *submit(struct daemon *daemon, const char *spec, ...) __attribute__((format(printf, 2, 3)));

/* Polls until the experiment is in this state. Fails at once in another final one. */
const struct answer *wait_for(struct daemon *daemon, const char *id, const char *state);
/* Polls until it runs and is in this epoch or a later one. */
void wait_for_epoch(struct daemon *daemon, const char *id, int epoch);

/* n records of CIFAR-10 made of `seed`: images of ten classes that differ in colour and stripes, so
 * there is something to learn. The caller frees them. */
enum { RECORD = 3073 };
uint8_t *make_records(size_t n, uint64_t seed);
/* Uploads n_train and n_test of them under a name. */
void upload_images(struct daemon *daemon, const char *name, size_t n_train, size_t n_test,
                   uint64_t seed);

double now(void); /* seconds, monotonic */
void nap(int milliseconds);

/* What is in a directory below the daemon's, without . and .. */
int count_files(const struct daemon *daemon, const char *below);

/* As `fmt` would print it, in a buffer that lasts for the next 15 calls. */
const char *text(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
