#include "clients/cli/http.h"

#include "clients/cli/token.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { CONNECT_TIMEOUT_S = 5, SILENCE_TIMEOUT_S = 60 };

struct http {
    CURL *curl;
    char *base;          /* without a slash at its end */
    const char *ca_file; /* or NULL */
    const char *token;   /* likewise */
    bool loopback;       /* never through a proxy */
    char curl_error[CURL_ERROR_SIZE];
    char trouble[CURL_ERROR_SIZE + 64]; /* ours, or a copy of libcurl's */
};

/* What the callbacks of one request need. */
struct transfer {
    struct http *http;
    const struct http_request *request;
    struct http_reply *reply;
    int failure; /* an enum http_code other than HTTP_UNREACHABLE that made us break it off */
};

/* Reads what matters from the URL; *trouble is left alone where all is well. */
static void examine(CURLU *parts, const char *url, bool *loopback, const char **trouble) {
    if (curl_url_set(parts, CURLUPART_URL, url, CURLU_GUESS_SCHEME)) {
        *trouble = "this is not a URL like http://127.0.0.1:8080";
        return;
    }
    char *scheme = NULL, *host = NULL, *query = NULL, *fragment = NULL;
    if (curl_url_get(parts, CURLUPART_SCHEME, &scheme, 0) ||
        curl_url_get(parts, CURLUPART_HOST, &host, 0))
        *trouble = "this URL has no host";
    else if (strcmp(scheme, "http") && strcmp(scheme, "https"))
        *trouble = "the URL has to start with http:// or https://";
    else if (!curl_url_get(parts, CURLUPART_QUERY, &query, 0) ||
             !curl_url_get(parts, CURLUPART_FRAGMENT, &fragment, 0))
        *trouble = "the URL has to end with the host, the port or a path";
    else
        *loopback =
            !strcmp(host, "127.0.0.1") || !strcmp(host, "localhost") || !strcmp(host, "[::1]");
    curl_free(scheme);
    curl_free(host);
    curl_free(query);
    curl_free(fragment);
}

int http_open(struct http **out, const char *url, const char *ca_file, const char **trouble) {
    *trouble = NULL;
    if (curl_global_init(CURL_GLOBAL_DEFAULT)) {
        *trouble = "libcurl does not start";
        return -1;
    }
    struct http *http = calloc(1, sizeof *http);
    CURLU *parts = curl_url();
    if (http && parts)
        examine(parts, url, &http->loopback, trouble);
    if (http && !*trouble) {
        http->curl = curl_easy_init();
        http->base = strdup(url);
        http->ca_file = ca_file;
    }
    curl_url_cleanup(parts);
    if (!http || !parts || *trouble || !http->curl || !http->base) {
        if (!*trouble)
            *trouble = "not enough memory";
        http_close(http);
        if (!http)
            curl_global_cleanup();
        return -1;
    }
    for (size_t n = strlen(http->base); n > 0 && http->base[n - 1] == '/'; n--)
        http->base[n - 1] = '\0';
    *out = http;
    return 0;
}

void http_close(struct http *http) {
    if (!http)
        return;
    curl_easy_cleanup(http->curl);
    free(http->base);
    free(http);
    curl_global_cleanup();
}

void http_identify(struct http *http, const char *token) {
    http->token = token;
}

void http_reply_release(struct http_reply *reply) {
    free(reply->body);
    *reply = (struct http_reply){0};
}

bool http_is_passing(int status) {
    return status == 429 || (status >= 502 && status <= 504);
}

const char *http_url(const struct http *http) {
    return http->base;
}

const char *http_trouble(const struct http *http) {
    return http->trouble;
}

static size_t give_up(struct transfer *transfer, int failure, const char *what, const char *why) {
    transfer->failure = failure;
    snprintf(transfer->http->trouble, sizeof transfer->http->trouble, "%s%s", what, why);
    return 0; /* other than the callback was given: libcurl breaks the transfer off */
}

static size_t keep_in_memory(struct transfer *transfer, const char *bytes, size_t n) {
    struct http_reply *reply = transfer->reply;
    if (n > HTTP_MEMORY_MAX - reply->body_size)
        return give_up(transfer, HTTP_TOO_LARGE, "the answer is larger than 64 MiB", "");
    char *body = realloc(reply->body, reply->body_size + n + 1);
    if (!body)
        return give_up(transfer, HTTP_LOCAL, "not enough memory for the answer", "");
    memcpy(body + reply->body_size, bytes, n);
    reply->body = body;
    reply->body_size += n;
    body[reply->body_size] = '\0';
    return n;
}

static size_t on_body(char *bytes, size_t size, size_t count, void *context) {
    struct transfer *transfer = context;
    FILE *sink = transfer->request->sink;
    size_t n = size * count;
    long status = 0;
    curl_easy_getinfo(transfer->http->curl, CURLINFO_RESPONSE_CODE, &status);
    if (transfer->request->consume && status == 200) {
        transfer->request->consume(transfer->request->context, bytes, n);
        return n;
    }
    /* An error's body is for us to read, whatever was to be done with the tensor. */
    if (!sink || status < 200 || status > 299)
        return keep_in_memory(transfer, bytes, n);
    if (!n)
        return 0;
    if (fwrite(bytes, 1, n, sink) != n)
        return give_up(transfer, HTTP_LOCAL, "cannot write the output: ", strerror(errno));
    transfer->reply->last_byte = bytes[n - 1];
    return n;
}

/* Copies the value of the header `name` into out[room], if this line is that header and it fits. */
static bool header_value(const char *line, size_t n, const char *name, char *out, size_t room) {
    size_t skip = strlen(name);
    if (n <= skip || strncasecmp(line, name, skip) || line[skip] != ':')
        return false;
    skip++;
    while (skip < n && (line[skip] == ' ' || line[skip] == '\t'))
        skip++;
    while (n > skip && (unsigned char)line[n - 1] <= ' ')
        n--;
    if (n - skip >= room)
        return false;
    memcpy(out, line + skip, n - skip);
    out[n - skip] = '\0';
    return true;
}

static size_t on_header(char *line, size_t size, size_t count, void *context) {
    const struct transfer *transfer = context;
    struct http_reply *reply = transfer->reply;
    size_t n = size * count;
    char link[1024];
    long status = 0;
    if (transfer->request->consume && n == 2 && line[0] == '\r' &&
        !curl_easy_getinfo(transfer->http->curl, CURLINFO_RESPONSE_CODE, &status) && status == 200)
        transfer->request->consume(transfer->request->context, "", 0);
    header_value(line, n, "ETag", reply->etag, sizeof reply->etag);
    header_value(line, n, "Retry-After", reply->retry_after, sizeof reply->retry_after);
    if (header_value(line, n, "Link", link, sizeof link) && strstr(link, "rel=\"next\"") &&
        link[0] == '<' && link[1] == '/')
        snprintf(reply->next, sizeof reply->next, "%.*s", (int)strcspn(link + 1, ">"), link + 1);
    return n;
}

static size_t on_upload(char *bytes, size_t size, size_t count, void *context) {
    struct transfer *transfer = context;
    size_t n = fread(bytes, size, count, transfer->request->upload);
    if (!n && ferror(transfer->request->upload)) {
        give_up(transfer, HTTP_LOCAL, "cannot read the file: ", strerror(errno));
        return CURL_READFUNC_ABORT;
    }
    return n * size;
}

static int on_progress(void *context, curl_off_t down_size, curl_off_t down, curl_off_t up_size,
                       curl_off_t up) {
    const struct http_request *request = ((struct transfer *)context)->request;
    (void)down_size, (void)down, (void)up_size;
    request->progress(up, request->upload_size);
    return 0;
}

/* curl_easy_setopt() is a macro that fails to compile with our warnings in an || chain; and there
 * is nothing to do about a failure but to stop, so failures are added up. */
#define SET(option, value) (failures += curl_easy_setopt(curl, option, value) != CURLE_OK)

static int set_up(CURL *curl, struct transfer *transfer, const char *url,
                  const struct curl_slist *headers) {
    const struct http_request *request = transfer->request;
    int failures = 0;
    curl_easy_reset(curl);
    SET(CURLOPT_URL, url);
    SET(CURLOPT_PATH_AS_IS, 1L); /* an id of ".." is the server's to refuse */
    SET(CURLOPT_HTTPHEADER, headers);
    SET(CURLOPT_USERAGENT, "ovrctl/" OVRD_VERSION);
    SET(CURLOPT_CONNECTTIMEOUT, (long)CONNECT_TIMEOUT_S);
    SET(CURLOPT_LOW_SPEED_LIMIT, 1L);
    SET(CURLOPT_LOW_SPEED_TIME, (long)SILENCE_TIMEOUT_S);
    SET(CURLOPT_ERRORBUFFER, transfer->http->curl_error);
    SET(CURLOPT_WRITEFUNCTION, on_body);
    SET(CURLOPT_WRITEDATA, transfer);
    SET(CURLOPT_HEADERFUNCTION, on_header);
    SET(CURLOPT_HEADERDATA, transfer);
    if (transfer->http->ca_file)
        SET(CURLOPT_CAINFO, transfer->http->ca_file);
    if (transfer->http->loopback)
        SET(CURLOPT_NOPROXY, "*");
    if (request->upload) {
        SET(CURLOPT_UPLOAD, 1L);
        if (request->method)
            SET(CURLOPT_CUSTOMREQUEST, request->method);
        SET(CURLOPT_READFUNCTION, on_upload);
        SET(CURLOPT_READDATA, transfer);
        SET(CURLOPT_INFILESIZE_LARGE, (curl_off_t)request->upload_size);
    } else if (request->method) {
        SET(CURLOPT_CUSTOMREQUEST, request->method);
        SET(CURLOPT_POSTFIELDS, request->body ? request->body : "");
        SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)request->body_size);
    }
    if (request->progress) {
        SET(CURLOPT_NOPROGRESS, 0L);
        SET(CURLOPT_XFERINFOFUNCTION, on_progress);
        SET(CURLOPT_XFERINFODATA, transfer);
    }
    return failures;
}

/* Appends a line; a failure leaves the list as it was. */
static void add_header(struct curl_slist **headers, bool *failed, const char *line) {
    struct curl_slist *longer = curl_slist_append(*headers, line);
    if (longer)
        *headers = longer;
    else
        *failed = true;
}

static struct curl_slist *make_headers(const struct http *http, const struct http_request *request,
                                       bool *failed) {
    struct curl_slist *headers = NULL;
    if (http->token && *http->token) {
        char line[TOKEN_ROOM + 32];
        snprintf(line, sizeof line, "Authorization: Bearer %s", http->token);
        add_header(&headers, failed, line);
    }
    add_header(&headers, failed, "Accept: application/json, application/problem+json, */*;q=0.5");
    if (request->upload)
        add_header(&headers, failed, "Content-Type: application/octet-stream");
    else if (request->body)
        add_header(&headers, failed, "Content-Type: application/json");
    else if (request->method)
        add_header(&headers, failed, "Content-Type:"); /* none; libcurl would say it is a form */
    if (request->if_none_match && *request->if_none_match) {
        char line[sizeof((struct http_reply *)0)->etag + 24];
        snprintf(line, sizeof line, "If-None-Match: %s", request->if_none_match);
        add_header(&headers, failed, line);
    }
    if (request->last_event_id) {
        char line[48];
        snprintf(line, sizeof line, "Last-Event-ID: %lld", request->last_event_id);
        add_header(&headers, failed, line);
    }
    if (request->wait_s) {
        char line[32];
        snprintf(line, sizeof line, "Prefer: wait=%d", request->wait_s);
        add_header(&headers, failed, line);
    }
    if (request->if_match) {
        char line[64];
        snprintf(line, sizeof line, "If-Match: %s", request->if_match);
        add_header(&headers, failed, line);
    }
    if (request->idempotency_key) {
        char line[IDEMPOTENCY_KEY_MAX + 24];
        snprintf(line, sizeof line, "Idempotency-Key: %s", request->idempotency_key);
        add_header(&headers, failed, line);
    }
    return headers;
}

/* The shortest true words for a failed transfer. */
static void explain(struct http *http, CURLcode result) {
    long os_error = 0;
    const char *why = http->curl_error[0] ? http->curl_error : curl_easy_strerror(result);
    if (result == CURLE_COULDNT_CONNECT &&
        !curl_easy_getinfo(http->curl, CURLINFO_OS_ERRNO, &os_error) && os_error)
        why = strerror((int)os_error);
    snprintf(http->trouble, sizeof http->trouble, "%s", why);
}

int http_send(struct http *http, const struct http_request *request, struct http_reply *reply) {
    struct transfer transfer = {http, request, reply, HTTP_OK};
    *reply = (struct http_reply){0};
    http->curl_error[0] = '\0';
    char *url = NULL;
    bool failed = false;
    struct curl_slist *headers = make_headers(http, request, &failed);
    if (asprintf(&url, "%s%s", http->base, request->path) < 0) {
        url = NULL;
        failed = true;
    }
    CURLcode result = CURLE_OUT_OF_MEMORY;
    if (!failed && !set_up(http->curl, &transfer, url, headers))
        result = curl_easy_perform(http->curl);
    long status = 0;
    curl_easy_getinfo(http->curl, CURLINFO_RESPONSE_CODE, &status);
    reply->status = (int)status;
    curl_slist_free_all(headers);
    free(url);
    if (result == CURLE_OK)
        return HTTP_OK;
    if (transfer.failure)
        return transfer.failure; /* the callback left the reason */
    explain(http, result);
    return result == CURLE_OUT_OF_MEMORY ? HTTP_LOCAL : HTTP_UNREACHABLE;
}
