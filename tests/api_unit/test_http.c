/* The transport over a real socket: what http.h and problem.h promise, one test each. Well-formed
 * requests go through libcurl, malformed ones are written byte for byte. */
#include "api/http.h"
#include "api/problem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <curl/curl.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    MAX_BODY = 64 << 10,
    MAX_UPLOAD = 1 << 20,
    MAX_CONNECTIONS = 8,
    STREAM_SIZE = 3 << 20,
};

/* What the handlers and sinks were called for. */
static atomic_int n_handled, n_opened, n_aborted, n_released;
static atomic_bool slow_entered;

/* ---- The server under test ---- */

static struct reply *list_things(struct request *request) {
    atomic_fetch_add(&n_handled, 1);
    const char *limit = request_query(request, "limit");
    const char *agent = request_header(request, "x-agent");
    struct reply *reply =
        reply_json(200, json_pack("{s:s, s:f, s:s?, s:s?}", "zeta", request->method, "alpha", 0.1,
                                  "limit", limit, "agent", agent));
    return reply_etag(reply, "r%d", 7);
}

static struct reply *show_thing(struct request *request) {
    return reply_json(200, json_pack("{s:s}", "id", request->segments[0]));
}

static struct reply *show_special(struct request *request) {
    return reply_header(reply_text(200, "text/plain", request->route->path), "Cache-Control",
                        "max-age=%d", 60);
}

static struct reply *echo(struct request *request) {
    atomic_fetch_add(&n_handled, 1);
    struct reply *refusal;
    json_t *body = body_json(request, &refusal);
    return body ? reply_json(201, body) : refusal;
}

static struct reply *fail_as_told(struct request *request) {
    struct ovr_err err = {.code = -atoi(request->segments[0])};
    const char *field = request_query(request, "field");
    snprintf(err.field, sizeof err.field, "%s", field ? field : "");
    snprintf(err.text, sizeof err.text, "told so");
    return problem_from(&err);
}

static struct reply *run_out_of_memory(struct request *request) {
    (void)request;
    return reply_json(200, NULL);
}

static struct reply *many_faults(struct request *request) {
    (void)request;
    return problem_faults("invalid-spec", "two faults",
                          json_pack("[{s:s, s:s}, {s:s, s:s}]", "pointer", "/a", "detail", "x",
                                    "pointer", "/b", "detail", "y"));
}

static struct reply *cut_text(struct request *request) {
    (void)request;
    return problem(418, "teapot", "cut here (\xc3) and there");
}

static struct reply *go_slow(struct request *request) {
    (void)request;
    atomic_store(&slow_entered, true);
    nanosleep(&(struct timespec){.tv_nsec = 300000000}, NULL);
    return reply_static(200, "text/plain", "slow but sure", 13);
}

/* Of a slow route: until the gate opens or the server closes. */
static atomic_bool gate_open;
static atomic_int n_at_gate;

static struct reply *wait_at_gate(struct request *request) {
    assert_non_null(request->stop);
    atomic_fetch_add(&n_at_gate, 1);
    while (!atomic_load(&gate_open) && !atomic_load(request->stop))
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    atomic_fetch_sub(&n_at_gate, 1);
    const char *limit = request_query(request, "limit"); /* still readable */
    return reply_json(200, json_pack("{s:s, s:b, s:s?}", "how", request->segments[0], "stopped",
                                     atomic_load(request->stop), "limit", limit));
}

/* Of a request that sleeps; asked how often, and woken by the test. */
static atomic_int n_asked, n_forgotten;
static _Atomic(struct waiter *) sleeper;
static atomic_bool answer_ready;

static void forget_sleeper(void *state) {
    assert_ptr_equal(state, &sleeper);
    atomic_fetch_add(&n_forgotten, 1);
}

static struct reply *sleep_for_answer(struct request *request) {
    if (!request->state)
        request_keep(request, &sleeper, forget_sleeper);
    atomic_store(&sleeper, request_waiter(request));
    bool ready = atomic_load(&answer_ready); /* before it is told that it was asked */
    atomic_fetch_add(&n_asked, 1);
    return ready ? reply_json(200, json_pack("{s:s?}", "limit", request_query(request, "limit")))
                 : reply_later();
}

/* The body's byte i is the letter i mod 26; negative size: unknown. context: where it breaks off.
 */
static int64_t read_letters(void *context, uint64_t position, char *out, size_t room) {
    uint64_t end = *(uint64_t *)context;
    if (position >= end)
        return end == STREAM_SIZE ? 0 : -1;
    size_t n = room < end - position ? room : (size_t)(end - position);
    for (size_t i = 0; i < n; i++)
        out[i] = (char)('a' + (position + i) % 26);
    return (int64_t)n;
}

static void release_letters(void *context) {
    atomic_fetch_add(&n_released, 1);
    free(context);
}

static struct reply *stream_letters(struct request *request) {
    const char *how = request->segments[0];
    uint64_t *end = malloc(sizeof *end);
    if (!end)
        return NULL;
    *end = strcmp(how, "broken") == 0 ? STREAM_SIZE / 2 : STREAM_SIZE;
    return reply_stream(200, "text/plain", strcmp(how, "sized") == 0 ? STREAM_SIZE : -1,
                        read_letters, release_letters, end);
}

struct upload {
    size_t n_bytes;
    bool fails, failed;
};

static void *upload_open(const struct request *request, struct reply **refusal) {
    const char *name = request->segments[0];
    if (strcmp(name, "refused") == 0) {
        *refusal = problem(409, "conflict", "not this one");
        return NULL;
    }
    struct upload *upload = calloc(1, sizeof *upload);
    if (!upload)
        return NULL;
    upload->fails = strcmp(name, "failing") == 0;
    atomic_fetch_add(&n_opened, 1);
    return upload;
}

static int upload_write(void *context, const char *bytes, size_t n) {
    (void)bytes;
    struct upload *upload = context;
    assert_false(upload->failed); /* a sink that failed is left alone */
    upload->n_bytes += n;
    upload->failed = upload->fails;
    return upload->failed ? OVR_IO : 0;
}

static void upload_abort(void *context) {
    atomic_fetch_add(&n_aborted, 1);
    free(context);
}

static struct reply *upload_done(struct request *request) {
    atomic_fetch_add(&n_handled, 1);
    struct upload *upload = request->upload;
    struct reply *reply =
        upload->failed ? problem(500, "storage", "the disk is full")
                       : reply_json(201, json_pack("{s:I}", "bytes", (json_int_t)upload->n_bytes));
    free(upload);
    return reply;
}

static const char *const list_query[] = {"limit", "cursor", NULL};
static const char *const fail_query[] = {"field", NULL};
static const struct sink upload_sink = {upload_open, upload_write, upload_abort};

static const struct route routes[] = {
    {"GET", "/things", list_things, "", list_query, NULL},
    {"POST", "/things", echo, "", NULL, NULL},
    {"GET", "/things/first", show_special, "", NULL, NULL},
    {"GET", "/things/{id}", show_thing, "", NULL, NULL},
    {"PATCH", "/things/{id}", echo, "", NULL, NULL},
    {"DELETE", "/things/{id}", echo, "", NULL, NULL},
    {"GET", "/things/special", show_special, "", NULL, NULL},
    {"GET", "/fail/{code}", fail_as_told, "", fail_query, NULL},
    {"GET", "/memory", run_out_of_memory, "", NULL, NULL},
    {"GET", "/faults", many_faults, "", NULL, NULL},
    {"GET", "/cut", cut_text, "", NULL, NULL},
    {"GET", "/slow", go_slow, "", NULL, NULL},
    {"GET", "/streams/{how}", stream_letters, "", NULL, NULL},
    {"PUT", "/uploads/{name}", upload_done, "", NULL, &upload_sink},
    {"GET", "/sleep", sleep_for_answer, "", list_query, NULL},
    {"GET", "/gate/{how}", wait_at_gate, "", list_query, NULL, .slow = 1},
    {"PUT", "/slow-uploads/{name}", upload_done, "", NULL, &upload_sink, .slow = 1},
    {"GET", "/", show_special, "", NULL, NULL},
    {0},
};

static struct {
    pthread_mutex_t lock;
    char text[256 << 10];
    size_t used;
} journal = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void note(void *context, int status, const char *line) {
    (void)status;
    assert_ptr_equal(context, &journal);
    pthread_mutex_lock(&journal.lock);
    size_t room = sizeof journal.text - journal.used;
    int n = snprintf(journal.text + journal.used, room, "%s\n", line);
    journal.used += (size_t)n < room ? (size_t)n : 0;
    pthread_mutex_unlock(&journal.lock);
}

static bool noted(const char *text) {
    pthread_mutex_lock(&journal.lock);
    bool found = strstr(journal.text, text) != NULL;
    pthread_mutex_unlock(&journal.lock);
    return found;
}

static struct http *http;
static const char *url;
static uint16_t port;

static struct http_config config_for(const char *listen_at) {
    return (struct http_config){
        .listen = listen_at,
        .threads = 2,
        .slow_threads = 1,
        .max_waiting = 2,
        .max_connections = MAX_CONNECTIONS,
        .idle_timeout_s = 1,
        .max_body_bytes = MAX_BODY,
        .max_upload_bytes = MAX_UPLOAD,
        .routes = routes,
        .context = &journal,
        .log = note,
    };
}

static int start_server(void **state) {
    (void)state;
    struct http_config config = config_for("127.0.0.1:0");
    struct ovr_err err = {0};
    if (http_start(&http, &config, &url, &err) != 0) {
        fprintf(stderr, "%s\n", err.text);
        return -1;
    }
    port = (uint16_t)atoi(strrchr(url, ':') + 1);
    return 0;
}

static int stop_server(void **state) {
    (void)state;
    http_stop(http);
    http = NULL;
    return 0;
}

/* Waits for what another thread is about to do. */
static bool becomes(atomic_int *counter, int value) {
    for (int i = 0; i < 400 && atomic_load(counter) != value; i++)
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    return atomic_load(counter) == value;
}

static bool becomes_noted(const char *text) {
    for (int i = 0; i < 400 && !noted(text); i++)
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    return noted(text);
}

/* ---- Clients ---- */

struct answer {
    int status;
    char *text; /* everything, from the status line on */
    size_t size, room;
    const char *body;
};

static size_t answer_add(char *bytes, size_t size, size_t n, void *context) {
    struct answer *answer = context;
    n *= size;
    if (answer->size + n + 1 > answer->room) {
        answer->room = 2 * (answer->size + n + 1);
        answer->text = realloc(answer->text, answer->room);
        assert_non_null(answer->text);
    }
    memcpy(answer->text + answer->size, bytes, n);
    answer->size += n;
    answer->text[answer->size] = '\0';
    return n;
}

static void answer_finish(struct answer *answer) {
    if (!answer->text)
        answer_add((char[]){""}, 1, 0, answer);
    answer->status = strncmp(answer->text, "HTTP/1.1 ", 9) == 0 ? atoi(answer->text + 9) : 0;
    char *end = strstr(answer->text, "\r\n\r\n");
    answer->body = end ? end + 4 : "";
}

/* The value of a header, valid until the next call, or NULL. */
static const char *header(const struct answer *answer, const char *name) {
    static char value[512];
    size_t n = strlen(name);
    for (const char *line = strstr(answer->text, "\r\n"); line && line + 2 < answer->body;
         line = strstr(line + 2, "\r\n")) {
        if (strncasecmp(line + 2, name, n) != 0 || line[2 + n] != ':')
            continue;
        const char *start = line + 3 + n + strspn(line + 3 + n, " ");
        snprintf(value, sizeof value, "%.*s", (int)strcspn(start, "\r"), start);
        return value;
    }
    return NULL;
}

static json_t *json_of(const struct answer *answer) {
    json_t *json = json_loads(answer->body, 0, NULL);
    if (!json)
        print_error("not JSON: %s\n", answer->text);
    assert_non_null(json);
    return json;
}

static int dial(void) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){.tv_sec = 5}, sizeof(struct timeval));
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    return fd;
}

static void say(int fd, const char *bytes, size_t n) {
    assert_int_equal(send(fd, bytes, n, MSG_NOSIGNAL), n);
}

/* Up to the end of the connection, which it closes. */
static struct answer hear(int fd) {
    struct answer answer = {0};
    char piece[64 << 10];
    ssize_t n;
    while ((n = recv(fd, piece, sizeof piece, 0)) > 0)
        answer_add(piece, 1, (size_t)n, &answer);
    assert_false(n < 0 && errno == EAGAIN); /* the server has let us wait too long */
    close(fd);
    answer_finish(&answer);
    return answer;
}

/* Sends these bytes, and reads what comes until the server closes. */
static struct answer raw(const char *bytes, size_t n) {
    int fd = dial();
    say(fd, bytes, n);
    return hear(fd);
}

/* "GET /x" with the headers that every request has, and then some ("A: b\r\n"), and a body. */
static struct answer ask(const char *method_and_target, const char *headers, const char *body) {
    char text[8192];
    int n = snprintf(text, sizeof text,
                     "%s HTTP/1.1\r\nHost: localhost:%d\r\nConnection: close\r\n%s\r\n%s",
                     method_and_target, port, headers, body);
    return raw(text, (size_t)n);
}

static void expect(struct answer answer, int status, const char *text) {
    if (answer.status != status || !strstr(answer.text, text))
        print_error("expected %d and '%s', got: %s\n", status, text, answer.text);
    assert_int_equal(answer.status, status);
    assert_non_null(strstr(answer.text, text));
    free(answer.text);
}

/* The same, and that it is a problem of this type with all its members. */
static void expect_problem(struct answer answer, int status, const char *slug, const char *text) {
    assert_non_null(header(&answer, "Content-Type"));
    assert_string_equal(header(&answer, "Content-Type"), "application/problem+json");
    json_t *json = json_of(&answer);
    char type[64];
    snprintf(type, sizeof type, "/problems/%s", slug);
    if (!json_string_value(json_object_get(json, "type")) ||
        strcmp(json_string_value(json_object_get(json, "type")), type) != 0)
        print_error("expected %s, got: %s\n", type, answer.text);
    assert_string_equal(json_string_value(json_object_get(json, "type")), type);
    assert_int_equal(json_integer_value(json_object_get(json, "status")), status);
    assert_true(json_string_length(json_object_get(json, "title")) > 0);
    assert_true(json_string_length(json_object_get(json, "detail")) > 0);
    json_decref(json);
    expect(answer, status, text);
}

/* ---- curl ---- */

struct source {
    size_t left;
    atomic_bool asked;
};

static size_t source_read(char *out, size_t size, size_t n, void *context) {
    struct source *source = context;
    atomic_store(&source->asked, true);
    n *= size;
    if (n > source->left)
        n = source->left;
    memset(out, 'x', n);
    source->left -= n;
    return n;
}

static CURL *curl_for(const char *path, struct answer *answer) {
    char address[256];
    snprintf(address, sizeof address, "%s%s", url, path);
    CURL *curl = curl_easy_init();
    assert_non_null(curl);
    curl_easy_setopt(curl, CURLOPT_URL, address);
    curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, answer_add);
    curl_easy_setopt(curl, CURLOPT_HEADERDATA, answer);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, answer_add);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, answer);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT, 10L);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    return curl;
}

static struct answer curl_finish(CURL *curl, struct answer *answer) {
    CURLcode code = curl_easy_perform(curl);
    if (code != CURLE_OK)
        print_error("curl: %s\n", curl_easy_strerror(code));
    assert_int_equal(code, CURLE_OK);
    curl_easy_cleanup(curl);
    answer_finish(answer);
    return *answer;
}

static struct answer get(const char *path) {
    struct answer answer = {0};
    return curl_finish(curl_for(path, &answer), &answer);
}

/* PUT of n bytes, announced or (chunked) not; expect_header: "Expect: 100-continue", "Expect:". */
static struct answer put(const char *path, size_t n, bool chunked, const char *expect_header,
                         bool *body_wanted) {
    struct answer answer = {0};
    struct source source = {.left = n};
    struct curl_slist *headers = curl_slist_append(NULL, expect_header);
    CURL *curl = curl_for(path, &answer);
    curl_easy_setopt(curl, CURLOPT_UPLOAD, 1L);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(curl, CURLOPT_READFUNCTION, source_read);
    curl_easy_setopt(curl, CURLOPT_READDATA, &source);
    curl_easy_setopt(curl, CURLOPT_INFILESIZE_LARGE, chunked ? (curl_off_t)-1 : (curl_off_t)n);
    curl_easy_setopt(curl, CURLOPT_EXPECT_100_TIMEOUT_MS, 5000L);
    curl_finish(curl, &answer);
    curl_slist_free_all(headers);
    if (body_wanted)
        *body_wanted = atomic_load(&source.asked);
    const char *final = answer.body; /* after a 100 comes the real one */
    if (answer.status == 100) {
        answer.status = atoi(final + 9);
        final = strstr(final, "\r\n\r\n");
        answer.body = final ? final + 4 : "";
    }
    return answer;
}

/* ---- Replies ---- */

static void json_is_compact_ordered_and_ends_its_line(void **state) {
    (void)state;
    struct answer answer = get("/things?limit=3");
    assert_int_equal(answer.status, 200);
    assert_string_equal(answer.body,
                        "{\"zeta\":\"GET\",\"alpha\":0.1,\"limit\":\"3\",\"agent\":null}\n");
    assert_string_equal(header(&answer, "Content-Type"), "application/json");
    assert_string_equal(header(&answer, "ETag"), "\"r7\"");
    free(answer.text);
    expect(ask("GET /things", "X-AGENT: me\r\n", ""), 200, "\"agent\":\"me\"");
}

static void every_reply_has_the_security_headers(void **state) {
    (void)state;
    static const char *const paths[] = {"/things", "/nothing", "/memory", "/streams/sized"};
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        struct answer answer = get(paths[i]);
        assert_string_equal(header(&answer, "X-Content-Type-Options"), "nosniff");
        assert_string_equal(header(&answer, "Cache-Control"), "no-cache");
        free(answer.text);
    }
    struct answer answer = get("/things/special"); /* the handler's own word counts */
    assert_string_equal(header(&answer, "Cache-Control"), "max-age=60");
    assert_null(strstr(answer.text, "no-cache"));
    free(answer.text);
}

static void head_is_get_without_the_body(void **state) {
    (void)state;
    static const char *const paths[] = {"/things", "/things/special", "/streams/sized", "/"};
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        char target[64], length[32];
        snprintf(target, sizeof target, "HEAD %s", paths[i]);
        struct answer whole = get(paths[i]), head = ask(target, "", "");
        snprintf(length, sizeof length, "%zu", strlen(whole.body));
        assert_int_equal(head.status, 200);
        assert_string_equal(head.body, "");
        assert_string_equal(header(&head, "Content-Length"), length);
        assert_string_equal(header(&whole, "Content-Length"), length);
        assert_non_null(header(&head, "Content-Type"));
        free(whole.text);
        free(head.text);
    }
    int released = atomic_load(&n_released);
    expect(ask("HEAD /streams/endless", "", ""), 200, "text/plain");
    assert_true(becomes(&n_released, released + 1));
}

static void a_named_etag_is_not_sent_again(void **state) {
    (void)state;
    static const char *const same[] = {
        "\"r7\"", "*", "W/\"r7\"", "\"a\", \"r7\"", "\"a,b\",W/\"r7\"", "\"\" , \"r7\""};
    for (size_t i = 0; i < sizeof same / sizeof same[0]; i++) {
        char line[64];
        snprintf(line, sizeof line, "If-None-Match: %s\r\n", same[i]);
        struct answer answer = ask("GET /things", line, "");
        assert_int_equal(answer.status, 304);
        assert_string_equal(answer.body, "");
        assert_string_equal(header(&answer, "ETag"), "\"r7\"");
        /* A length other than that of the 200 would spoil caches. */
        const char *length = header(&answer, "Content-Length");
        assert_true(!length || atoi(length) > 0);
        free(answer.text);
        expect(ask("HEAD /things", line, ""), 304, "r7");
    }
    static const char *const other[] = {"\"r8\"", "\"r77\"", "r7", "\"a,\"r7", "", "\"r7", "W/"};
    for (size_t i = 0; i < sizeof other / sizeof other[0]; i++) {
        char line[64];
        snprintf(line, sizeof line, "If-None-Match: %s\r\n", other[i]);
        expect(ask("GET /things", line, ""), 200, "zeta");
    }
    /* Where the handler gave no tag, it is the digest of the reply. */
    expect(ask("GET /things/1", "If-None-Match: \"r7\"\r\n", ""), 200, "id");
    struct answer tagged = ask("GET /things/1", "", "");
    char line[128];
    snprintf(line, sizeof line, "If-None-Match: %s\r\n", header(&tagged, "ETag"));
    free(tagged.text);
    expect(ask("GET /things/1", line, ""), 304, "ETag");
    expect(ask("GET /things/2", line, ""), 200, "id");
}

static void a_forgotten_reply_is_a_500(void **state) {
    (void)state;
    expect_problem(get("/memory"), 500, "out-of-memory", "memory");
}

static void streams_arrive_whole(void **state) {
    (void)state;
    static const char *const paths[] = {"/streams/sized", "/streams/endless"};
    for (size_t i = 0; i < 2; i++) {
        int released = atomic_load(&n_released);
        struct answer answer = get(paths[i]);
        assert_int_equal(answer.status, 200);
        assert_int_equal(strlen(answer.body), STREAM_SIZE);
        for (size_t k = 0; k < STREAM_SIZE; k += 4099)
            assert_int_equal(answer.body[k], 'a' + k % 26);
        assert_true((header(&answer, "Content-Length") != NULL) == (i == 0));
        assert_true(becomes(&n_released, released + 1));
        free(answer.text);
    }
}

static void a_broken_stream_does_not_look_whole(void **state) {
    (void)state;
    struct answer answer = {0};
    CURL *curl = curl_for("/streams/broken", &answer);
    assert_int_not_equal(curl_easy_perform(curl), CURLE_OK);
    curl_easy_cleanup(curl);
    free(answer.text);
}

/* Would end the process by SIGPIPE, or never release. */
static void a_client_that_leaves_a_stream_harms_nobody(void **state) {
    (void)state;
    int released = atomic_load(&n_released);
    for (int i = 0; i < 3; i++) {
        int fd = dial();
        static const char text[] = "GET /streams/endless HTTP/1.1\r\nHost: localhost\r\n\r\n";
        say(fd, text, sizeof text - 1);
        char some[100];
        assert_true(recv(fd, some, sizeof some, 0) > 0);
        close(fd);
    }
    assert_true(becomes(&n_released, released + 3));
    expect(get("/things"), 200, "zeta");
}

static void one_connection_serves_many_requests(void **state) {
    (void)state;
    int fd = dial();
    char text[512];
    int n = snprintf(text, sizeof text,
                     "POST /things HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n[]"
                     "POST /nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n[]"
                     "GET /things HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    say(fd, text, (size_t)n);
    struct answer answer = hear(fd);
    assert_non_null(strstr(answer.text, "HTTP/1.1 201"));
    assert_non_null(strstr(answer.text, "HTTP/1.1 404")); /* a refusal keeps the connection */
    assert_non_null(strstr(answer.text, "HTTP/1.1 200"));
    free(answer.text);
}

/* ---- Routes ---- */

static void segments_are_decoded(void **state) {
    (void)state;
    expect(get("/things/a%20b%25"), 200, "{\"id\":\"a b%\"}");
    expect(get("/things/caf%c3%A9"), 200, "{\"id\":\"caf\xc3\xa9\"}");
    expect(get("/things/..."), 200, "{\"id\":\"...\"}");
    expect(get("/things/a+b"), 200, "{\"id\":\"a+b\"}");
    expect(get("/things/special"), 200, "\r\n\r\n/things/special"); /* not {id} */
    expect(get("/things/first"), 200, "\r\n\r\n/things/first");
    expect(get("/"), 200, "\r\n\r\n/");
}

static void unknown_paths_are_404(void **state) {
    (void)state;
    static const char *const paths[] = {"/nothing", "/things/", "/things/1/2",         "//things",
                                        "/thing",   "/thingss", "/a/b/c/d/e/f/g/h/i/j"};
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++)
        expect_problem(get(paths[i]), 404, "not-found", paths[i]);
    expect_problem(ask("OPTIONS /nothing", "", ""), 404, "not-found", "nothing");
}

static void other_methods_are_405_with_allow(void **state) {
    (void)state;
    struct answer answer = ask("DELETE /things", "", "");
    assert_string_equal(header(&answer, "Allow"), "GET, HEAD, POST, OPTIONS");
    expect_problem(answer, 405, "method-not-allowed", "DELETE");
    answer = ask("HEAD /uploads/x", "", "");
    assert_string_equal(header(&answer, "Allow"), "PUT, OPTIONS");
    expect(answer, 405, "Allow");
    expect_problem(ask("TRACE /things/1", "", ""), 405, "method-not-allowed", "TRACE");
    answer = ask("OPTIONS /things/1", "", "");
    assert_string_equal(header(&answer, "Allow"), "GET, HEAD, PATCH, DELETE, OPTIONS");
    assert_null(header(&answer, "Access-Control-Allow-Origin"));
    expect(answer, 204, "");
    expect(ask("OPTIONS *", "", ""), 204, "Allow: ");
}

static void query_arguments_are_decoded(void **state) {
    (void)state;
    expect(get("/things?limit=a+b%26%2F%3d"), 200, "\"limit\":\"a b&/=\"");
    expect(get("/things?limit"), 200, "\"limit\":\"\"");
    expect(get("/things?&cursor=1&&limit=?"), 200, "\"limit\":\"?\"");
    expect(get("/things?"), 200, "\"limit\":null");
}

static void unknown_query_arguments_are_422(void **state) {
    (void)state;
    struct answer answer = get("/things?limt=3&limit=1&limit=2");
    json_t *json = json_of(&answer), *errors = json_object_get(json, "errors");
    assert_int_equal(json_array_size(errors), 2); /* all at once */
    assert_string_equal(json_string_value(json_object_get(json_array_get(errors, 0), "parameter")),
                        "limt");
    assert_non_null(
        strstr(json_string_value(json_object_get(json_array_get(errors, 1), "detail")), "twice"));
    json_decref(json);
    assert_non_null(strstr(answer.body, "limit, cursor"));
    expect_problem(answer, 422, "invalid-query", "'limt'");
    expect_problem(get("/things/1?x=1"), 422, "invalid-query", "'x'");
    expect_problem(get("/things?limit=1&limit=1"), 422, "invalid-query", "twice");
}

/* ---- Requests that are refused ---- */

static void bad_targets_are_400(void **state) {
    (void)state;
    static const char *const targets[] = {
        "/things/%00",
        "/things/a%00b",
        "/things/%2f",
        "/things/..%2F..%2fetc",
        "/things/..",
        "/things/../things",
        "/./things",
        "/things/%2e%2e",
        "/things/.%2E/",
        "/things/%0a",
        "/things/%7f",
        "/things/%c2%85",
        "/things/%ff",
        "/things/%c0%af",
        "/things/%e0%80%af",
        "/things/%ed%a0%80",
        "/things/%f4%90%80%80",
        "/things/%c3",
        "/things/%",
        "/things/%2",
        "/things/%zz",
        "/things?limit=%00",
        "/things?limit=%0d",
        "/things?%c3=1",
        "/things?limit=%g0",
        "things",
        "*",
        "ftp://localhost/things",
        "http://evil.example/things",
        "/things/a\x01",
        "/things/\xff",
        "/a/b/c/d/e/f/g/h/i/../j",
        "/things/a b",
        "/things/a#b",
        "/things/%f0%80%80%af",
        "http://loc/things",
        "/things/a b",
        "/things/a#b",
    };
    for (size_t i = 0; i < sizeof targets / sizeof targets[0]; i++) {
        char line[128];
        snprintf(line, sizeof line, "GET %s", targets[i]);
        expect_problem(ask(line, "", ""), 400, "bad-request", "");
    }
}

static void the_absolute_form_is_taken_for_this_host(void **state) {
    (void)state;
    char line[128];
    snprintf(line, sizeof line, "GET http://localhost:%d/things?limit=5", port);
    expect(ask(line, "", ""), 200, "\"limit\":\"5\"");
}

static struct answer ask_host(const char *host_lines) {
    char text[512];
    int n = snprintf(text, sizeof text, "GET /things HTTP/1.1\r\n%sConnection: close\r\n\r\n",
                     host_lines);
    return raw(text, (size_t)n);
}

static void exactly_one_host_is_needed(void **state) {
    (void)state;
    expect_problem(ask_host(""), 400, "bad-request", "Host");
    expect_problem(ask_host("Host:\r\n"), 400, "bad-request", "Host");
    expect_problem(ask_host("Host: localhost\r\nHost: localhost\r\n"), 400, "bad-request", "Host");
    expect_problem(ask_host("Host: localhost\r\nhost: evil.example\r\n"), 400, "bad-request", "");
}

static void only_names_of_this_machine_are_served(void **state) {
    (void)state;
    static const char *const ours[] = {"localhost",      "LocalHost:1", "127.0.0.1",
                                       "127.0.0.1:8080", "[::1]",       "[::1]:99999"};
    static const char *const others[] = {"evil.example",
                                         "localhost.evil.example",
                                         "localhost:80:80",
                                         "localhost:x",
                                         "127.0.0.1.nip.io",
                                         "evil.example:80",
                                         "localhost@evil",
                                         "127.0.0.2",
                                         "::1",
                                         "0.0.0.0"};
    char line[128];
    for (size_t i = 0; i < sizeof ours / sizeof ours[0]; i++) {
        snprintf(line, sizeof line, "Host: %s\r\n", ours[i]);
        expect(ask_host(line), 200, "zeta");
    }
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        snprintf(line, sizeof line, "Host: %s\r\n", others[i]);
        expect_problem(ask_host(line), 403, "forbidden-host", "localhost");
    }
}

static void ambiguous_lengths_are_400(void **state) {
    (void)state;
    static const char *const headers[] = {
        "Content-Length: 2\r\nContent-Length: 3\r\n",
        "Content-Length: 2\r\nContent-Length: 2\r\n",
        "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 2\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Content-Length: 2\r\nX Y: 1\r\n",
        "Content-Length: 2\r\nContent-Type: application/json\r\nContent-Type: text/html\r\n",
    };
    int handled = atomic_load(&n_handled);
    for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++)
        expect(ask("POST /things", headers[i], "2\r\n{}\r\n0\r\n\r\n"), 400, "");
    static const char *const lengths[] = {
        "-1", "+2", "2, 2", "0x2", "two", "2 2", "99999999999999999999999"};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        char line[64];
        snprintf(line, sizeof line, "Content-Length: %s\r\n", lengths[i]);
        struct answer answer = ask("POST /things", line, "{}");
        assert_true(answer.status == 400 || answer.status == 413);
        free(answer.text);
    }
    assert_int_equal(atomic_load(&n_handled), handled);
}

/* What follows a request of unclear length is not a request: it would pass whatever proxy is
 * in front as a body. */
static void nothing_is_smuggled_behind_an_ambiguous_length(void **state) {
    (void)state;
    static const char text[] =
        "POST /things HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
        "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        "GET /things/smuggled HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    struct answer answer = raw(text, sizeof text - 1);
    assert_null(strstr(answer.text, "smuggled"));
    assert_string_equal(header(&answer, "Connection"), "close");
    expect_problem(answer, 400, "bad-request", "together");
    static const char hosts[] = "GET /things HTTP/1.1\r\nHost: localhost\r\nHost: b\r\n\r\n"
                                "GET /things/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n";
    answer = raw(hosts, sizeof hosts - 1);
    assert_null(strstr(answer.text, "smuggled"));
    assert_string_equal(header(&answer, "Connection"), "close");
    expect_problem(answer, 400, "bad-request", "Host");
}

static void other_sites_may_not_change_anything(void **state) {
    (void)state;
    char same[64], secure[64];
    snprintf(same, sizeof same, "Origin: http://LOCALHOST:%d\r\n", port);
    snprintf(secure, sizeof secure, "Origin: https://localhost:%d\r\n", port);
    expect(ask("DELETE /things/1", same, ""), 400, "malformed-json"); /* came to the handler */
    expect(ask("DELETE /things/1", secure, ""), 400, "malformed-json");
    static const char *const others[] = {
        "http://evil.example", "null", "http://localhost", "localhost", "file://localhost", ""};
    static const char *const lines[] = {"DELETE /things/1", "POST /things", "PATCH /things/1",
                                        "PUT /uploads/x"};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        for (size_t k = 0; k < sizeof lines / sizeof lines[0]; k++) {
            char line[64];
            snprintf(line, sizeof line, "Origin: %s\r\n", others[i]);
            expect_problem(ask(lines[k], line, ""), 403, "forbidden-origin", "");
        }
    expect(ask("GET /things", "Origin: http://evil.example\r\n", ""), 200, "zeta");
    static const char text[] = "DELETE /things/1 HTTP/1.1\r\nHost: localhost\r\n"
                               "Origin: http://localhost:80\r\nConnection: close\r\n\r\n";
    expect(raw(text, sizeof text - 1), 400, "malformed-json"); /* 80 goes without saying */
}

static void other_media_types_are_415(void **state) {
    (void)state;
    static const char *const good[] = {"Content-Type: application/json\r\n",
                                       "Content-Type: APPLICATION/JSON; charset=utf-8\r\n",
                                       "Content-Type: application/merge-patch+json\r\n", ""};
    static const char *const bad[] = {"application/x-www-form-urlencoded", "text/plain",
                                      "application/jsonp", "application/jso", ""};
    char line[128];
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        snprintf(line, sizeof line, "Content-Length: 2\r\n%s", good[i]);
        expect(ask("POST /things", line, "{}"), 201, "{}");
        expect(ask("PATCH /things/1", line, "{}"), 201, "{}");
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        snprintf(line, sizeof line, "Content-Length: 2\r\nContent-Type: %s\r\n", bad[i]);
        expect_problem(ask("POST /things", line, "{}"), 415, "unsupported-media-type",
                       "-H 'Content-Type: application/json'");
        snprintf(line, sizeof line, "Transfer-Encoding: chunked\r\nContent-Type: %s\r\n", bad[i]);
        expect_problem(ask("POST /things", line, "2\r\n{}\r\n0\r\n\r\n"), 415,
                       "unsupported-media-type", "JSON");
    }
    expect(ask("PUT /uploads/x", "Content-Length: 2\r\nContent-Type: text/csv\r\n", "{}"), 201,
           "\"bytes\":2");
    expect(ask("POST /things", "Content-Type: text/plain\r\n", ""), 400, "empty"); /* no body */
}

/* ---- Bodies ---- */

static void announced_bodies_over_the_limit_are_refused_unread(void **state) {
    (void)state;
    char line[64];
    snprintf(line, sizeof line, "Content-Length: %d\r\n", MAX_BODY + 1);
    expect_problem(ask("POST /things", line, ""), 413, "too-large", "65536"); /* sent none of it */
    snprintf(line, sizeof line, "Content-Length: %d\r\n", MAX_UPLOAD + 1);
    int opened = atomic_load(&n_opened);
    expect_problem(ask("PUT /uploads/x", line, ""), 413, "too-large", "1048576");
    assert_int_equal(atomic_load(&n_opened), opened);
}

static void unannounced_bodies_are_counted(void **state) {
    (void)state;
    int handled = atomic_load(&n_handled), aborted = atomic_load(&n_aborted);
    expect_problem(put("/uploads/x", MAX_UPLOAD + 1, true, "Expect:", NULL), 413, "too-large", "");
    assert_int_equal(atomic_load(&n_aborted), aborted + 1);
    assert_int_equal(atomic_load(&n_handled), handled);
    expect(put("/uploads/x", MAX_UPLOAD, true, "Expect:", NULL), 201, "1048576");
    assert_int_equal(atomic_load(&n_aborted), aborted + 1);
}

/* A JSON body of exactly the limit, in pieces, and one byte more, chunked. */
static void json_bodies_up_to_the_limit_arrive(void **state) {
    (void)state;
    for (int excess = 0; excess < 2; excess++) {
        char *text = malloc(MAX_BODY + 512);
        assert_non_null(text);
        size_t size = (size_t)(MAX_BODY + excess);
        int n = snprintf(text, 512,
                         "POST /things HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                         "Transfer-Encoding: chunked\r\n\r\n%zx\r\n",
                         size);
        int fd = dial();
        say(fd, text, (size_t)n);
        memset(text, ' ', size);
        text[0] = '[';
        text[size - 1] = ']';
        say(fd, text, size / 2);
        say(fd, text + size / 2, size - size / 2);
        say(fd, "\r\n0\r\n\r\n", 7);
        expect(hear(fd), excess ? 413 : 201, excess ? "too-large" : "[]");
        free(text);
    }
}

static void a_refusal_comes_before_the_body_that_waits(void **state) {
    (void)state;
    bool wanted = false;
    static const char expecting[] = "Expect: 100-continue";
    expect(put("/uploads/x", MAX_UPLOAD, false, expecting, &wanted), 201, "1048576");
    assert_true(wanted);
    expect_problem(put("/uploads/x", MAX_UPLOAD + 1, false, expecting, &wanted), 413, "too-large",
                   "");
    assert_false(wanted);
    expect_problem(put("/uploads/refused", 1000, false, expecting, &wanted), 409, "conflict", "");
    assert_false(wanted);
    expect_problem(put("/nothing", 1000, false, expecting, &wanted), 404, "not-found", "");
    assert_false(wanted);
}

static void a_small_refused_body_is_read_first(void **state) {
    (void)state;
    bool wanted = false;
    expect_problem(put("/uploads/refused", 1000, false, "Expect:", &wanted), 409, "conflict", "");
    assert_true(wanted);
    expect_problem(put("/uploads/refused", 1000, true, "Expect:", &wanted), 409, "conflict", "");
}

static void a_failed_sink_is_left_alone_and_the_handler_answers(void **state) {
    (void)state;
    int handled = atomic_load(&n_handled), aborted = atomic_load(&n_aborted);
    expect_problem(put("/uploads/failing", MAX_UPLOAD, false, "Expect:", NULL), 500, "storage",
                   "full");
    assert_int_equal(atomic_load(&n_handled), handled + 1);
    assert_int_equal(atomic_load(&n_aborted), aborted);
}

static void a_body_that_ends_early_is_aborted_once(void **state) {
    (void)state;
    int handled = atomic_load(&n_handled), aborted = atomic_load(&n_aborted);
    static const char *const texts[] = {
        "PUT /uploads/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nhalf",
        "PUT /uploads/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n",
        "PUT /uploads/x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf",
        "PUT /uploads/x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    };
    int n = (int)(sizeof texts / sizeof texts[0]);
    for (int i = 0; i < n; i++) {
        int fd = dial();
        int opened = atomic_load(&n_opened);
        say(fd, texts[i], strlen(texts[i]));
        assert_true(becomes(&n_opened, opened + 1));
        if (i == 1) { /* away with a reset instead of an end */
            setsockopt(fd, SOL_SOCKET, SO_LINGER, &(struct linger){1, 0}, sizeof(struct linger));
            close(fd);
        } else {
            shutdown(fd, SHUT_WR);
            free(hear(fd).text);
        }
        assert_true(becomes(&n_aborted, aborted + i + 1));
    }
    assert_int_equal(atomic_load(&n_handled), handled);
}

static void a_client_that_falls_silent_is_dropped(void **state) {
    (void)state;
    int aborted = atomic_load(&n_aborted);
    static const char text[] =
        "PUT /uploads/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nhalf";
    free(raw(text, sizeof text - 1).text); /* returns when the server closes */
    assert_true(becomes(&n_aborted, aborted + 1));
}

/* ---- Problems ---- */

static void errors_become_statuses(void **state) {
    (void)state;
    static const struct {
        int code, status;
        const char *slug;
        bool retry;
    } cases[] = {
        {OVR_INVALID, 422, "invalid-request", false},
        {OVR_NOT_FOUND, 404, "not-found", false},
        {OVR_CONFLICT, 409, "conflict", false},
        {OVR_TOO_LARGE, 422, "too-large", false},
        {OVR_FULL, 503, "full", true},
        {OVR_NOMEM, 503, "out-of-memory", true},
        {OVR_IO, 500, "storage", false},
        {OVR_INTERNAL, 500, "internal", false},
        {OVR_DIVERGED, 500, "internal", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char path[64];
        snprintf(path, sizeof path, "/fail/%d", -cases[i].code);
        struct answer answer = get(path);
        assert_true((header(&answer, "Retry-After") != NULL) == cases[i].retry);
        assert_null(strstr(answer.body, "errors"));
        expect_problem(answer, cases[i].status, cases[i].slug, "told so");
    }
}

static void pointers_become_errors(void **state) {
    (void)state;
    expect_problem(get("/fail/1?field=/model/hidden/0"), 422, "invalid-request",
                   "\"errors\":[{\"pointer\":\"/model/hidden/0\",\"detail\":\"told so\"}]");
    struct answer answer = get("/fail/1?field=listen");
    assert_null(strstr(answer.body, "errors"));
    free(answer.text);
    answer = get("/faults");
    assert_non_null(strstr(answer.body, "\"detail\":\"two faults\""));
    free(answer.text);
}

static void a_cut_text_does_not_cost_the_reply(void **state) {
    (void)state;
    expect_problem(get("/cut"), 418, "teapot", "cut here (?) and there");
}

static void malformed_json_is_shown_with_its_place(void **state) {
    (void)state;
    static const struct {
        const char *body;
        size_t size;
        int line, column;
        const char *text;
    } cases[] = {
        {"", 0, 1, 1, "--json @file.json"},
        {" \n", 2, 1, 1, "empty"},
        {"{\n \"a\": }", 9, 2, 7, "line 2, column 7"},
        {"{\"a\":1,\"a\":2}", 13, 1, 10, "duplicate"},
        {"[1,\n \0]", 7, 2, 2, "NUL"},
        {"[\"\\u0000\"]", 10, 1, 9, "line 1"},
        {"[1] x", 5, 1, 5, "line 1"},
        {"[1e999]", 7, 1, 6, "line 1"},
        {"[\"\xff\"]", 4, 1, 2, "line 1"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[512];
        int n = snprintf(text, sizeof text,
                         "POST /things HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                         "Content-Length: %zu\r\n\r\n",
                         cases[i].size);
        memcpy(text + n, cases[i].body, cases[i].size);
        struct answer answer = raw(text, (size_t)n + cases[i].size);
        json_t *json = json_of(&answer);
        assert_int_equal(json_integer_value(json_object_get(json, "line")), cases[i].line);
        assert_int_equal(json_integer_value(json_object_get(json, "column")), cases[i].column);
        json_decref(json);
        expect_problem(answer, 400, "malformed-json", cases[i].text);
    }
    char deep[4096], line[64];
    memset(deep, '[', sizeof deep);
    deep[sizeof deep - 1] = '\0';
    snprintf(line, sizeof line, "Content-Length: %zu\r\n", sizeof deep - 1);
    expect_problem(ask("POST /things", line, deep), 400, "malformed-json", "depth");
}

/* ---- The house ---- */

static void a_full_house_says_so(void **state) {
    (void)state;
    int guests[MAX_CONNECTIONS];
    for (int i = 0; i < MAX_CONNECTIONS; i++) {
        guests[i] = dial();
        static const char text[] = "GET /things HTTP/1.1\r\nHost: localhost\r\n\r\n";
        say(guests[i], text, sizeof text - 1);
        char some[1024];
        assert_true(recv(guests[i], some, sizeof some, 0) > 0);
    }
    for (int i = 0; i < 3 * MAX_CONNECTIONS; i++) {
        struct answer answer = get("/things");
        assert_non_null(header(&answer, "Retry-After"));
        assert_string_equal(header(&answer, "Connection"), "close");
        expect_problem(answer, 503, "connections", "8");
    }
    for (int i = 0; i < MAX_CONNECTIONS; i++)
        close(guests[i]);
    struct answer answer = get("/things");
    for (int i = 0; i < 100 && answer.status != 200; i++) {
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
        free(answer.text);
        answer = get("/things");
    }
    expect(answer, 200, "zeta");
}

static void each_request_is_a_line_of_the_log(void **state) {
    (void)state;
    expect(get("/things/logged?x=secret"), 422, "'x'");
    assert_true(becomes_noted(" method=GET path=/things/logged status=422 "));
    assert_false(noted("secret"));
    expect(ask("GET /forged\x01\x80", "", ""), 400, "");
    assert_true(becomes_noted(" method=GET path=/forged\\x01\\x80 status=400 "));
    expect(ask("HEAD /things/special", "", ""), 200, "");
    assert_true(becomes_noted(" method=HEAD path=/things/special status=200 "));
    assert_true(becomes_noted("method=PUT path=/uploads/x status=- bytes=- "));
    assert_true(becomes_noted(" broken off\n"));
    char path[1024] = "/";
    memset(path + 1, 'p', sizeof path - 2);
    expect(get(path), 404, "");
    assert_true(becomes_noted("ppp status=404 "));
    path[201] = '\0';
    assert_false(noted(path)); /* bounded */
}

/* The value of a header in a raw answer. */
static void find_value(const char *answer, const char *name, char *value, size_t room) {
    const char *at = strstr(answer, name);
    assert_non_null(at);
    at += strlen(name);
    snprintf(value, room, "%.*s", (int)strcspn(at, "\r"), at);
}

#define FIFTY "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

static void requests_have_ids(void **state) {
    (void)state;
    static const char name[] = "X-Request-Id: ";
    char first[100], second[100], line[160];
    struct answer answer = ask("GET /things", "X-Request-Id: mine-1.a_B\r\n", "");
    find_value(answer.text, name, first, sizeof first);
    assert_string_equal(first, "mine-1.a_B");
    expect(answer, 200, "");
    assert_true(becomes_noted("request=mine-1.a_B method=GET path=/things status=200 "));
    /* What could forge a line, or is too long, is not taken. */
    static const char *const bad[] = {"X-Request-Id: a b\r\n", "X-Request-Id: x\"=y\r\n",
                                      "X-Request-Id: " FIFTY FIFTY "\r\n", ""};
    first[0] = '\0';
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        answer = ask("GET /nowhere", bad[i], "");
        find_value(answer.text, name, second, sizeof second);
        assert_int_equal(strspn(second, "0123456789abcdef-"), strlen(second));
        assert_string_not_equal(second, first);
        expect(answer, 404, "");
        snprintf(line, sizeof line, "request=%s method=GET path=/nowhere status=404 ", second);
        assert_true(becomes_noted(line));
        memcpy(first, second, sizeof first);
    }
}

/* One connection for all of its requests. */
static void *crowd_member(void *arg) {
    int *good = arg;
    struct answer answer = {0};
    CURL *curl = curl_for("/things", &answer);
    for (int i = 0; i < 50; i++) {
        long status = 0;
        if (curl_easy_perform(curl) == CURLE_OK)
            curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
        *good += status == 200;
    }
    curl_easy_cleanup(curl);
    free(answer.text);
    return NULL;
}

static void many_clients_at_once(void **state) {
    (void)state;
    pthread_t threads[4];
    int good[4] = {0};
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, crowd_member, &good[i]), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < 4; i++)
        assert_int_equal(good[i], 50);
}

/* ---- Start and stop ---- */

static void expect_no_start(const char *listen_at, int code, const char *text) {
    struct http_config config = config_for(listen_at);
    struct http *none = NULL;
    const char *where = NULL;
    struct ovr_err err = {0};
    assert_int_equal(http_start(&none, &config, &where, &err), code);
    if (!strstr(err.text, text))
        print_error("expected '%s' in: %s\n", text, err.text);
    assert_non_null(strstr(err.text, text));
    assert_string_equal(err.field, "listen");
    assert_null(none);
}

static void bad_addresses_are_refused(void **state) {
    (void)state;
    static const char *const malformed[] = {"",
                                            "localhost",
                                            "127.0.0.1",
                                            ":8080",
                                            "127.0.0.1:",
                                            "127.0.0.1:x",
                                            "::1:80",
                                            "a.example:80",
                                            "127.0.0.1:65536",
                                            "[::1]",
                                            "[127.0.0.1:80",
                                            "127.1:80",
                                            "127.0.0.1:-1"};
    for (size_t i = 0; i < sizeof malformed / sizeof malformed[0]; i++)
        expect_no_start(malformed[i], OVR_INVALID, "write 127.0.0.1:8080");
    static const char *const open[] = {"0.0.0.0:0", "192.0.2.1:80", "[::]:0", "[2001:db8::1]:80",
                                       "10.0.0.1:80"};
    for (size_t i = 0; i < sizeof open / sizeof open[0]; i++) {
        expect_no_start(open[i], OVR_INVALID, "ovrd user add NAME --role admin");
        expect_no_start(open[i], OVR_INVALID, "--admin-token-file");
    }
}

static void a_port_in_use_is_told(void **state) {
    (void)state;
    expect_no_start(url + strlen("http://"), OVR_IO, "ovrd runs already");
}

static void other_loopback_addresses_serve(void **state) {
    (void)state;
    static const char *const places[] = {"localhost:0", "[::1]:0", "127.0.0.2:0"};
    static const char *const urls[] = {"http://127.0.0.1:", "http://[::1]:", "http://127.0.0.2:"};
    const char *usual = url;
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        struct http_config config = config_for(places[i]);
        config.threads = i == 0 ? 1 : 2;
        struct http *other;
        struct ovr_err err = {0};
        int rc = http_start(&other, &config, &url, &err);
        if (rc == OVR_IO && i == 1) { /* a machine without IPv6 */
            url = usual;
            continue;
        }
        assert_int_equal(rc, 0);
        assert_int_equal(strncmp(url, urls[i], strlen(urls[i])), 0);
        expect(get("/things"), 200, "zeta");
        http_stop(other);
        url = usual;
    }
    http_stop(NULL);
}

static void *get_slowly(void *arg) {
    *(struct answer *)arg = get("/slow");
    return NULL;
}

struct visit {
    pthread_t thread;
    const char *target;
    struct answer answer;
};

static void *visit_target(void *arg) {
    struct visit *visit = arg;
    visit->answer = get(visit->target);
    return NULL;
}

static void visit_at(struct visit *visit, const char *target) {
    visit->target = target;
    assert_int_equal(pthread_create(&visit->thread, NULL, visit_target, visit), 0);
}

static void visit(struct visit *visit) {
    visit_at(visit, "/gate/mine?limit=5");
}

static void nap_ms(long ms) {
    nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

/* Slow requests wait in line, one is handled, others than slow ones go on all the while. A request
 * may take longer than a connection may be idle. */
static void slow_routes_hold_nobody_up(void **state) {
    (void)state;
    struct visit visits[3];
    atomic_store(&gate_open, false);
    visit(&visits[0]);
    assert_true(becomes(&n_at_gate, 1));
    visit(&visits[1]);
    visit(&visits[2]);
    nap_ms(2500); /* idle_timeout_s is 1 */
    assert_int_equal(atomic_load(&n_at_gate), 1);
    for (int i = 0; i < 20; i++)
        expect(get("/things"), 200, "zeta");
    /* Two wait: the house is full, and a body that was sent is given up. */
    int aborted = atomic_load(&n_aborted), handled = atomic_load(&n_handled);
    struct answer full = get("/gate/full");
    assert_string_equal(header(&full, "Retry-After"), "5");
    expect_problem(full, 503, "full", "wait");
    expect_problem(put("/slow-uploads/x", 1000, false, "Expect:", NULL), 503, "full", "wait");
    assert_int_equal(atomic_load(&n_aborted), aborted + 1);
    assert_int_equal(atomic_load(&n_handled), handled);
    atomic_store(&gate_open, true);
    for (size_t i = 0; i < 3; i++) {
        pthread_join(visits[i].thread, NULL);
        expect(visits[i].answer, 200, "{\"how\":\"mine\",\"stopped\":false,\"limit\":\"5\"}");
    }
    expect(put("/slow-uploads/x", 300000, true, "Expect:", NULL), 201, "300000");
    assert_int_equal(atomic_load(&n_aborted), aborted + 1);
}

/* The one in hand is told and answers, those in line are refused. */
static void stop_ends_slow_requests(void **state) {
    struct visit visits[2];
    atomic_store(&gate_open, false);
    visit(&visits[0]);
    assert_true(becomes(&n_at_gate, 1));
    visit(&visits[1]);
    nap_ms(200);
    stop_server(state);
    pthread_join(visits[0].thread, NULL);
    pthread_join(visits[1].thread, NULL);
    expect(visits[0].answer, 200, "\"stopped\":true");
    expect_problem(visits[1].answer, 503, "shutting-down", "shutting down");
    assert_int_equal(start_server(state), 0);
}

/* Both reasons to suspend a connection at once: who sleeps is woken beside a slow request that goes
 * on, and at the end the one is told to come back later and the other answers. */
static void sleepers_and_slow_requests_live_together(void **state) {
    struct visit slow, sleeping;
    int asked = atomic_load(&n_asked), forgotten = atomic_load(&n_forgotten);
    atomic_store(&gate_open, false);
    atomic_store(&answer_ready, false);
    visit(&slow);
    visit_at(&sleeping, "/sleep?limit=3");
    assert_true(becomes(&n_at_gate, 1));
    assert_true(becomes(&n_asked, asked + 1));
    nap_ms(1500); /* idle_timeout_s is 1 */
    waiter_wake(atomic_load(&sleeper));
    assert_true(becomes(&n_asked, asked + 2)); /* nothing new: it sleeps again */
    atomic_store(&answer_ready, true);
    waiter_wake(atomic_load(&sleeper));
    pthread_join(sleeping.thread, NULL);
    expect(sleeping.answer, 200, "{\"limit\":\"3\"}");
    assert_true(becomes(&n_forgotten, forgotten + 1));
    assert_int_equal(atomic_load(&n_asked), asked + 3);
    assert_int_equal(atomic_load(&n_at_gate), 1);
    atomic_store(&answer_ready, false);
    visit_at(&sleeping, "/sleep");
    assert_true(becomes(&n_asked, asked + 4));
    nap_ms(200);
    stop_server(state);
    pthread_join(slow.thread, NULL);
    pthread_join(sleeping.thread, NULL);
    expect(slow.answer, 200, "\"stopped\":true");
    assert_string_equal(header(&sleeping.answer, "Retry-After"), "5");
    expect_problem(sleeping.answer, 503, "shutting-down", "shutting down");
    assert_int_equal(atomic_load(&n_forgotten), forgotten + 2);
    assert_int_equal(start_server(state), 0);
}

/* A reply under way is finished, an upload without end is cut off, and then the port is free. */
static void stop_lets_replies_end(void **state) {
    (void)state;
    int aborted = atomic_load(&n_aborted), opened = atomic_load(&n_opened);
    int fd = dial();
    static const char text[] =
        "PUT /uploads/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nhalf";
    say(fd, text, sizeof text - 1);
    assert_true(becomes(&n_opened, opened + 1));
    pthread_t thread;
    struct answer answer;
    atomic_store(&slow_entered, false);
    assert_int_equal(pthread_create(&thread, NULL, get_slowly, &answer), 0);
    while (!atomic_load(&slow_entered))
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    struct timespec before, after;
    clock_gettime(CLOCK_MONOTONIC, &before);
    char place[64];
    snprintf(place, sizeof place, "%s", url + strlen("http://"));
    stop_server(NULL);
    clock_gettime(CLOCK_MONOTONIC, &after);
    pthread_join(thread, NULL);
    close(fd);
    expect(answer, 200, "slow but sure");
    assert_int_equal(atomic_load(&n_aborted), aborted + 1);
    assert_true(after.tv_sec - before.tv_sec <= 4);
    struct http_config config = config_for(place);
    assert_int_equal(http_start(&http, &config, &url, NULL), 0);
}

static void *stop_server_thread(void *arg) {
    (void)arg;
    stop_server(NULL);
    return NULL;
}

/* While an upload under way holds the door, a connection from before hears 503. */
static void a_closing_house_says_so(void **state) {
    (void)state;
    static const char simple[] = "GET /things HTTP/1.1\r\nHost: localhost\r\n\r\n";
    static const char half[] =
        "PUT /uploads/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nhalf";
    int guest = dial(), uploader = dial(), opened = atomic_load(&n_opened);
    say(guest, simple, sizeof simple - 1);
    char some[1024];
    assert_true(recv(guest, some, sizeof some, 0) > 0);
    say(uploader, half, sizeof half - 1);
    assert_true(becomes(&n_opened, opened + 1));
    pthread_t stopper;
    assert_int_equal(pthread_create(&stopper, NULL, stop_server_thread, NULL), 0);
    nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
    say(guest, simple, sizeof simple - 1);
    expect_problem(hear(guest), 503, "shutting-down", "Retry-After");
    close(uploader);
    pthread_join(stopper, NULL);
}

int main(void) {
    json_object_seed(0);
    curl_global_init(CURL_GLOBAL_DEFAULT);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_is_compact_ordered_and_ends_its_line),
        cmocka_unit_test(every_reply_has_the_security_headers),
        cmocka_unit_test(head_is_get_without_the_body),
        cmocka_unit_test(a_named_etag_is_not_sent_again),
        cmocka_unit_test(a_forgotten_reply_is_a_500),
        cmocka_unit_test(streams_arrive_whole),
        cmocka_unit_test(a_broken_stream_does_not_look_whole),
        cmocka_unit_test(a_client_that_leaves_a_stream_harms_nobody),
        cmocka_unit_test(one_connection_serves_many_requests),
        cmocka_unit_test(segments_are_decoded),
        cmocka_unit_test(unknown_paths_are_404),
        cmocka_unit_test(other_methods_are_405_with_allow),
        cmocka_unit_test(query_arguments_are_decoded),
        cmocka_unit_test(unknown_query_arguments_are_422),
        cmocka_unit_test(bad_targets_are_400),
        cmocka_unit_test(the_absolute_form_is_taken_for_this_host),
        cmocka_unit_test(exactly_one_host_is_needed),
        cmocka_unit_test(only_names_of_this_machine_are_served),
        cmocka_unit_test(ambiguous_lengths_are_400),
        cmocka_unit_test(nothing_is_smuggled_behind_an_ambiguous_length),
        cmocka_unit_test(other_sites_may_not_change_anything),
        cmocka_unit_test(other_media_types_are_415),
        cmocka_unit_test(announced_bodies_over_the_limit_are_refused_unread),
        cmocka_unit_test(unannounced_bodies_are_counted),
        cmocka_unit_test(json_bodies_up_to_the_limit_arrive),
        cmocka_unit_test(a_refusal_comes_before_the_body_that_waits),
        cmocka_unit_test(a_small_refused_body_is_read_first),
        cmocka_unit_test(a_failed_sink_is_left_alone_and_the_handler_answers),
        cmocka_unit_test(a_body_that_ends_early_is_aborted_once),
        cmocka_unit_test(a_client_that_falls_silent_is_dropped),
        cmocka_unit_test(errors_become_statuses),
        cmocka_unit_test(pointers_become_errors),
        cmocka_unit_test(a_cut_text_does_not_cost_the_reply),
        cmocka_unit_test(malformed_json_is_shown_with_its_place),
        cmocka_unit_test(a_full_house_says_so),
        cmocka_unit_test(each_request_is_a_line_of_the_log),
        cmocka_unit_test(requests_have_ids),
        cmocka_unit_test(many_clients_at_once),
        cmocka_unit_test(bad_addresses_are_refused),
        cmocka_unit_test(a_port_in_use_is_told),
        cmocka_unit_test(other_loopback_addresses_serve),
        cmocka_unit_test(slow_routes_hold_nobody_up),
        cmocka_unit_test(stop_ends_slow_requests),
        cmocka_unit_test(sleepers_and_slow_requests_live_together),
        cmocka_unit_test(stop_lets_replies_end),
        cmocka_unit_test(a_closing_house_says_so),
    };
    int failed = cmocka_run_group_tests(tests, start_server, stop_server);
    curl_global_cleanup();
    return failed;
}
