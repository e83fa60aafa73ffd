#include "worker/client.h"

#include "server/clock.h"
#include "server/digest.h"
#include "server/log.h"

#include <curl/curl.h>
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <unistd.h>

enum {
    ANSWER_MAX = 4 << 20,
    CONNECT_TIMEOUT_MS = 5000,
    SMALL_TIMEOUT_MS = 30000, /* of a whole report */
    SILENCE_TIMEOUT_S = 30,   /* of big bodies, which may take long */
    BACKOFF_FIRST_MS = 200,
    BACKOFF_MOST_MS = 15000,
    RETRY_AFTER_MOST_S = 60,
};

struct client {
    CURL *curl;
    char *url, *ca;
    struct curl_slist *token; /* the header */
    char curl_error[CURL_ERROR_SIZE];
};

/* One try. */
struct transfer {
    struct client *client;
    const struct call *call;
    char *body; /* an answer that is small */
    size_t n;
    uint64_t sunk;
    int retry_after_s;
    const char *fault; /* why we broke it off; NULL: we didn't */
};

int client_new(struct client **out, const char *url, const char *token, const char *ca,
               struct ovr_err *err) {
    struct client *client = calloc(1, sizeof *client);
    char header[300];
    *out = client;
    if (!client || curl_global_init(CURL_GLOBAL_DEFAULT))
        return ovr_nomem(err, "the connection to the daemon");
    snprintf(header, sizeof header, "Authorization: Bearer %s", token);
    client->curl = curl_easy_init();
    client->url = strdup(url);
    client->ca = strdup(ca);
    client->token = curl_slist_append(NULL, header);
    if (!client->curl || !client->url || !client->ca || !client->token)
        return ovr_nomem(err, "the connection to the daemon");
    for (size_t n = strlen(url); n && client->url[n - 1] == '/'; n--)
        client->url[n - 1] = '\0';
    return 0;
}

void client_free(struct client *client) {
    if (!client)
        return;
    curl_easy_cleanup(client->curl);
    curl_slist_free_all(client->token);
    free(client->url);
    free(client->ca);
    free(client);
}

/* ---- What libcurl calls ---- */

static int write_all(int fd, const char *bytes, size_t n) {
    while (n) {
        ssize_t written = write(fd, bytes, n);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return -1;
        bytes += written;
        n -= (size_t)written;
    }
    return 0;
}

static size_t keep(struct transfer *t, const char *bytes, size_t n) {
    char *longer = n > ANSWER_MAX - t->n ? NULL : realloc(t->body, t->n + n + 1);
    if (!longer) {
        t->fault = "its answer is too long";
        return 0;
    }
    t->body = longer;
    memcpy(t->body + t->n, bytes, n);
    t->n += n;
    t->body[t->n] = '\0';
    return n;
}

/* An error's text is for us to read, whatever was asked for. */
static size_t on_body(char *bytes, size_t size, size_t count, void *context) {
    struct transfer *t = context;
    size_t n = size * count;
    long status = 0;
    curl_easy_getinfo(t->client->curl, CURLINFO_RESPONSE_CODE, &status);
    if (!t->call->most || status != 200)
        return keep(t, bytes, n);
    if (n > t->call->most - t->sunk)
        t->fault = "it sends more than it said";
    else if (write_all(t->call->sink, bytes, n))
        t->fault = "a temporary file cannot be written (TMPDIR says where)";
    t->sunk += n;
    return t->fault ? 0 : n;
}

/* Seconds; the other form of it, a date, counts as none. */
static size_t on_header(char *line, size_t size, size_t count, void *context) {
    static const char NAME[] = "Retry-After:";
    struct transfer *t = context;
    size_t n = size * count, at = sizeof NAME - 1;
    if (n < at || strncasecmp(line, NAME, at))
        return n;
    int seconds = 0;
    while (at < n && line[at] == ' ')
        at++;
    for (; at < n && line[at] >= '0' && line[at] <= '9' && seconds < RETRY_AFTER_MOST_S; at++)
        seconds = 10 * seconds + line[at] - '0';
    t->retry_after_s = seconds < RETRY_AFTER_MOST_S ? seconds : RETRY_AFTER_MOST_S;
    return n;
}

static size_t on_upload(char *bytes, size_t size, size_t count, void *context) {
    const struct source *source = ((struct transfer *)context)->call->source;
    return source->read(source->context, bytes, size * count);
}

static int on_progress(void *context, curl_off_t down_size, curl_off_t down, curl_off_t up_size,
                       curl_off_t up) {
    const struct call *call = ((struct transfer *)context)->call;
    (void)down_size, (void)down, (void)up_size, (void)up;
    return call->stop && *call->stop;
}

/* ---- One try ---- */

/* curl_easy_setopt() is a macro that can't stand in a condition under our warnings; failures add
 * up. */
#define SET(option, value) (failures += curl_easy_setopt(curl, option, value) != CURLE_OK)

static int set_common(struct transfer *t, const char *url, const struct curl_slist *headers) {
    struct client *client = t->client;
    CURL *curl = client->curl;
    int failures = 0;
    curl_easy_reset(curl);
    SET(CURLOPT_URL, url);
    SET(CURLOPT_HTTPHEADER, headers);
    SET(CURLOPT_USERAGENT, "ovr-worker/" OVRD_VERSION);
    SET(CURLOPT_PROXY, "");
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_TIMEOUT_MS);
    SET(CURLOPT_LOW_SPEED_LIMIT, 1L);
    SET(CURLOPT_LOW_SPEED_TIME, (long)SILENCE_TIMEOUT_S);
    SET(CURLOPT_ERRORBUFFER, client->curl_error);
    SET(CURLOPT_WRITEFUNCTION, on_body);
    SET(CURLOPT_WRITEDATA, t);
    SET(CURLOPT_HEADERFUNCTION, on_header);
    SET(CURLOPT_HEADERDATA, t);
    SET(CURLOPT_NOPROGRESS, 0L);
    SET(CURLOPT_XFERINFOFUNCTION, on_progress);
    SET(CURLOPT_XFERINFODATA, t);
    if (*client->ca)
        SET(CURLOPT_CAINFO, client->ca);
    return failures;
}

static int set_body(struct transfer *t) {
    const struct call *call = t->call;
    CURL *curl = t->client->curl;
    int failures = 0;
    if (call->source) {
        SET(CURLOPT_UPLOAD, 1L);
        SET(CURLOPT_READFUNCTION, on_upload);
        SET(CURLOPT_READDATA, t);
        SET(CURLOPT_INFILESIZE_LARGE, (curl_off_t)call->source->size);
    } else if (!call->most) {
        int64_t left = call->deadline_ms - monotonic_ms();
        long timeout = left < 1 ? 1 : left < SMALL_TIMEOUT_MS ? (long)left : SMALL_TIMEOUT_MS;
        SET(CURLOPT_TIMEOUT_MS, timeout);
    }
    if (call->json) {
        SET(CURLOPT_POSTFIELDS, call->json);
        SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)strlen(call->json));
    }
    return failures;
}

/* NULL without memory; the caller frees it. The token's line comes first, and stays the client's.
 */
static struct curl_slist *make_headers(const struct client *client, const struct call *call) {
    char digest[100], base64[DIGEST_BASE64_SIZE];
    const char *lines[] = {client->token->data,
                           call->json ? "Content-Type: application/json"
                                      : "Content-Type: application/octet-stream",
                           "Accept: application/json, application/problem+json, */*;q=0.5", NULL};
    struct curl_slist *headers = NULL;
    if (call->source && call->source->sha256) {
        digest_to_base64(call->source->sha256, base64);
        snprintf(digest, sizeof digest, "Content-Digest: sha-256=:%s:", base64);
        lines[3] = digest;
    }
    for (size_t i = 0; i < sizeof lines / sizeof *lines && lines[i]; i++) {
        struct curl_slist *longer = curl_slist_append(headers, lines[i]);
        if (!longer) {
            curl_slist_free_all(headers);
            return NULL;
        }
        headers = longer;
    }
    return headers;
}

/* Returns libcurl's code, and the status where there was an answer. */
static CURLcode try_once(struct transfer *t, long *status) {
    char url[700];
    struct client *client = t->client;
    const struct call *call = t->call;
    struct curl_slist *headers = make_headers(client, call);
    *client->curl_error = '\0';
    snprintf(url, sizeof url, "%s%s", client->url, call->path);
    CURLcode code = CURLE_OUT_OF_MEMORY;
    if (headers && !set_common(t, url, headers) && !set_body(t))
        code = CURLE_OK;
    if (!code && call->source && call->source->rewind(call->source->context))
        t->fault = "what is to be sent cannot be read";
    if (!code && call->most && (ftruncate(call->sink, 0) || lseek(call->sink, 0, SEEK_SET)))
        t->fault = "a temporary file cannot be written (TMPDIR says where)";
    if (!code && !t->fault)
        code = curl_easy_perform(client->curl);
    *status = 0;
    curl_easy_getinfo(client->curl, CURLINFO_RESPONSE_CODE, status);
    curl_slist_free_all(headers);
    return code;
}

/* ---- Until there is an answer ---- */

/* What the daemon says, or what happened to the connection. */
static void describe(const struct transfer *t, CURLcode code, long status, char *text,
                     size_t size) {
    const char *error = *t->client->curl_error ? t->client->curl_error : curl_easy_strerror(code);
    json_t *problem = t->body ? json_loads(t->body, 0, NULL) : NULL;
    const char *detail = json_string_value(json_object_get(problem, "detail"));
    if (t->fault)
        snprintf(text, size, "%s", t->fault);
    else if (status >= 300)
        snprintf(text, size, "it answers %ld%s%s", status, detail ? ": " : "",
                 detail ? detail : "");
    else
        snprintf(text, size, "%s", error);
    json_decref(problem);
}

/* 0: the call was answered; 1: another try may help; else what the end of it is. */
static int judge(const struct transfer *t, CURLcode code, long status) {
    if (code == CURLE_OUT_OF_MEMORY)
        return OVR_NOMEM;
    if (code == CURLE_ABORTED_BY_CALLBACK)
        return OVR_STOPPED;
    if (code == CURLE_PEER_FAILED_VERIFICATION || code == CURLE_SSL_CACERT_BADFILE ||
        code == CURLE_URL_MALFORMAT || code == CURLE_UNSUPPORTED_PROTOCOL)
        return OVR_INVALID;
    if (t->fault)
        return OVR_IO;
    /* A refusal may come before all of the body was sent, which breaks the connection. */
    if (status == 409 || status == 401)
        return OVR_CONFLICT;
    if (status == 404)
        return OVR_NOT_FOUND;
    if (status >= 300 && status < 500 && status != 429 && status != 408)
        return OVR_INVALID;
    return code || status < 200 || status >= 300;
}

/* Longer from try to try, and never the same for two workers; shorter again towards the deadline,
 * or a daemon that is back would be asked too late. Returns 0 when the deadline comes first, or one
 * is asked to stop. */
static int wait_for_next(const struct call *call, int tries, int retry_after_s) {
    uint32_t random = 0;
    if (getrandom(&random, sizeof random, GRND_NONBLOCK) < 0)
        random = (uint32_t)monotonic_ms() * 2654435761u;
    int64_t most = (int64_t)BACKOFF_FIRST_MS << (tries < 8 ? tries : 8);
    most = most < BACKOFF_MOST_MS ? most : BACKOFF_MOST_MS;
    int64_t third = (call->deadline_ms - monotonic_ms()) / 3;
    most = most < third ? most : third > BACKOFF_FIRST_MS ? third : BACKOFF_FIRST_MS;
    int64_t wait = most / 2 + (int64_t)(random % (uint32_t)(most / 2 + 1));
    wait = wait > retry_after_s * 1000 ? wait : retry_after_s * 1000;
    for (int64_t end = monotonic_ms() + wait, now; (now = monotonic_ms()) < end;) {
        const struct timespec nap = {.tv_nsec = 20000000};
        if (now >= call->deadline_ms || (call->stop && *call->stop))
            return 0;
        nanosleep(&nap, NULL);
    }
    return monotonic_ms() < call->deadline_ms;
}

int client_call(struct client *client, const struct call *call, char **answer,
                struct ovr_err *err) {
    char why[300];
    if (answer)
        *answer = NULL;
    for (int tries = 0;; tries++) {
        struct transfer t = {.client = client, .call = call};
        long status;
        CURLcode code = try_once(&t, &status);
        int rc = judge(&t, code, status);
        if (rc)
            describe(&t, code, status, why, sizeof why);
        if (!rc && answer) {
            *answer = t.body ? t.body : strdup("");
            return *answer ? 0 : ovr_nomem(err, "an answer");
        }
        free(t.body);
        if (!rc)
            return 0;
        if (rc == 1 && wait_for_next(call, tries, t.retry_after_s))
            continue;
        if (call->stop && *call->stop && (rc == 1 || rc == OVR_STOPPED))
            return ovr_fail(err, OVR_STOPPED, NULL, "stopped while it spoke to the daemon");
        return ovr_fail(err, rc == 1 ? OVR_IO : rc, NULL, "%s of the daemon at %s: %s", call->path,
                        client->url, why);
    }
}
