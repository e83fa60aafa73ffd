#include "tests/api/daemon.h"

#include "tests/api/contract.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    START_SECONDS = 20 * SLOWNESS,
    STOP_SECONDS = 15 * SLOWNESS,
    WAIT_SECONDS = 60 * SLOWNESS,
    POLL_MS = 10,
    MAX_OPTIONS = 24,
};

double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

void nap(int milliseconds) {
    nanosleep(&(struct timespec){milliseconds / 1000, milliseconds % 1000 * 1000000L}, NULL);
}

const char *text(const char *format, ...) {
    static char buffers[16][8192];
    static unsigned turn;
    char *buffer = buffers[turn++ % 16];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(buffer, sizeof buffers[0], format, args);
    va_end(args);
    assert_true(n >= 0 && (size_t)n < sizeof buffers[0]);
    return buffer;
}

/* ---- The process ---- */

static const char *binary(void) {
    const char *build = getenv("OVRD_TEST_BUILD");
    return text("%s/ovrd", build ? build : "build");
}

/* In the child: becomes ovrd. It dies with the test. */
static void become(const char *path, const char *dir, const char *const *options, int out,
                   int err) {
    const char *argv[MAX_OPTIONS] = {"ovrd"};
    size_t n = 1;
    if (dir) {
        const char *const usual[] = {"--listen", "127.0.0.1:0", "--data-dir", dir};
        memcpy(argv + n, usual, sizeof usual);
        n += COUNT(usual);
    }
    while (options && *options && n + 1 < MAX_OPTIONS)
        argv[n++] = *options++;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    dup2(out, STDOUT_FILENO);
    dup2(err, STDERR_FILENO);
    execv(path, (char *const *)(uintptr_t)argv);
    _exit(127);
}

/* dir NULL: with these options only. */
static pid_t spawn(const char *dir, const char *const *options, int out, int err) {
    const char *path = binary();
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        become(path, dir, options, out, err);
    return pid;
}

static char *read_file(const char *path, size_t *size) {
    FILE *file = fopen(path, "r");
    char *bytes = NULL;
    size_t n;
    FILE *out = open_memstream(&bytes, size);
    char block[4096];
    while (file && (n = fread(block, 1, sizeof block, file)) > 0)
        fwrite(block, 1, n, out);
    if (file)
        fclose(file);
    fclose(out);
    return bytes;
}

static void print_log(const struct daemon *d) {
    size_t n;
    char *log = read_file(d->log, &n);
    print_error("the daemon's log:\n%s\n", n > 6000 ? log + n - 6000 : log);
    free(log);
}

/* A sanitizer's report fails the test, wherever it comes. */
static void check_log(const struct daemon *d) {
    size_t n;
    char *log = read_file(d->log, &n);
    int reported = strstr(log, "Sanitizer") || strstr(log, "runtime error:");
    free(log);
    if (reported) {
        print_log(d);
        fail_msg("a sanitizer complains");
    }
}

static void read_url(struct daemon *d) {
    static const char before[] = "listening on ";
    char line[128];
    size_t n = 0;
    double until = now() + START_SECONDS;
    while (n + 1 < sizeof line && (n == 0 || line[n - 1] != '\n')) {
        struct pollfd waiting = {.fd = d->out, .events = POLLIN};
        int left = (int)((until - now()) * 1000);
        if (left <= 0 || poll(&waiting, 1, left) <= 0 || read(d->out, line + n, 1) != 1) {
            print_log(d);
            fail_msg("the daemon does not say where it listens");
        }
        n++;
    }
    line[n - 1] = '\0';
    assert_int_equal(strncmp(line, before, strlen(before)), 0);
    snprintf(d->url, sizeof d->url, "%.60s", line + strlen(before));
    d->port = atoi(strrchr(d->url, ':') + 1);
}

void daemon_start(struct daemon *d, const char *const *options) {
    int out[2], log = open(d->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    assert_true(log >= 0);
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    assert_int_equal(d->pid, 0);
    d->pid = spawn(d->dir, options, out[1], log);
    close(out[1]);
    close(log);
    d->out = out[0];
    read_url(d);
    if (!d->contract) {
        d->contract = json_incref(get(d, "/openapi.json")->json);
        assert_non_null(d->contract);
    }
}

struct daemon *daemon_new(const char *const *options) {
    return daemon_trusting(options, NULL);
}

struct daemon *daemon_trusting(const char *const *options, const char *authority) {
    for (char **variable = environ; *variable;) {
        char name[64];
        size_t n = strcspn(*variable, "=");
        if (n < sizeof name && strncmp(*variable, "OVRD_", 5) == 0 &&
            strncmp(*variable, "OVRD_TEST_", 10) != 0) {
            snprintf(name, sizeof name, "%.*s", (int)n, *variable);
            unsetenv(name);
        } else {
            variable++;
        }
    }
    struct daemon *d = calloc(1, sizeof *d);
    assert_non_null(d);
    snprintf(d->dir, sizeof d->dir, "/tmp/ovrd-test-XXXXXX");
    assert_non_null(mkdtemp(d->dir));
    snprintf(d->log, sizeof d->log, "%s.log", d->dir);
    d->authority = authority;
    d->curl = curl_easy_init();
    assert_non_null(d->curl);
    daemon_start(d, options);
    return d;
}

static int remove_one(const char *path, const struct stat *stat, int type, struct FTW *where) {
    (void)stat;
    (void)type;
    (void)where;
    return remove(path);
}

void daemon_reaped(struct daemon *d) {
    close(d->out);
    d->pid = 0;
    check_log(d);
}

void daemon_kill(struct daemon *d) {
    assert_true(d->pid > 0);
    kill(d->pid, SIGKILL);
    waitpid(d->pid, NULL, 0);
    daemon_reaped(d);
}

double daemon_stop(struct daemon *d) {
    double started = now();
    int status = 0;
    assert_true(d->pid > 0);
    kill(d->pid, SIGTERM);
    while (waitpid(d->pid, &status, WNOHANG) == 0) {
        if (now() - started > STOP_SECONDS) {
            kill(d->pid, SIGKILL);
            waitpid(d->pid, NULL, 0);
            d->pid = 0;
            print_log(d);
            fail_msg("SIGTERM does not end the daemon");
        }
        nap(POLL_MS);
    }
    double seconds = now() - started;
    close(d->out);
    d->pid = 0;
    check_log(d);
    if (status != 0) {
        print_log(d);
        fail_msg("the daemon ended with %s %d", WIFSIGNALED(status) ? "signal" : "status",
                 WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    }
    return seconds;
}

void daemon_forget_answers(struct daemon *d) {
    for (struct answer *a = d->answers, *before; a; a = before) {
        before = a->before;
        free(a->headers);
        free(a->body);
        json_decref(a->json);
        free(a);
    }
    d->answers = NULL;
}

void daemon_free(struct daemon *d) {
    if (!d)
        return;
    if (d->pid)
        daemon_stop(d);
    nftw(d->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    unlink(d->log);
    curl_easy_cleanup(d->curl);
    json_decref(d->contract);
    daemon_forget_answers(d);
    free(d);
}

int daemon_refuses(const char *const *options, char *said, size_t size) {
    int err[2], status;
    size_t n = 0;
    ssize_t got;
    assert_int_equal(pipe2(err, O_CLOEXEC), 0);
    pid_t pid = spawn(NULL, options, err[1], err[1]);
    close(err[1]);
    double until = now() + START_SECONDS;
    struct pollfd waiting = {.fd = err[0], .events = POLLIN};
    while (n + 1 < size && now() < until && poll(&waiting, 1, 1000 * START_SECONDS) > 0 &&
           (got = read(err[0], said + n, size - 1 - n)) > 0)
        n += (size_t)got;
    said[n] = '\0';
    close(err[0]);
    while (waitpid(pid, &status, WNOHANG) == 0) {
        if (now() > until)
            kill(pid, SIGKILL);
        nap(POLL_MS);
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

int with_daemon(void **state) {
    *state = daemon_new(NULL);
    return 0;
}

int without_daemon(void **state) {
    daemon_free(*state);
    return 0;
}

/* ---- Requests ---- */

static size_t keep(char *bytes, size_t size, size_t n, void *stream) {
    return fwrite(bytes, size, n, stream);
}

struct sending {
    const char *bytes;
    size_t left;
};

static size_t send_some(char *out, size_t size, size_t n, void *context) {
    struct sending *sending = context;
    size_t room = size * n;
    if (room > 1000) /* many chunks, that do not end where records end */
        room = 1000;
    if (room > sending->left)
        room = sending->left;
    memcpy(out, sending->bytes, room);
    sending->bytes += room;
    sending->left -= room;
    return room;
}

const char *header(const struct answer *answer, const char *name) {
    static char values[4][1024];
    static unsigned turn;
    size_t n = strlen(name);
    for (const char *line = answer->headers; *line;) {
        size_t length = strcspn(line, "\r\n");
        if (strncasecmp(line, name, n) == 0 && line[n] == ':') {
            char *value = values[turn++ % 4];
            const char *from = line + n + 1 + strspn(line + n + 1, " ");
            snprintf(value, sizeof values[0], "%.*s", (int)(length - (size_t)(from - line)), from);
            return value;
        }
        line += length + strspn(line + length, "\r\n");
    }
    return NULL;
}

static void print_answer(const struct answer *a) {
    print_error("%s\n%.2000s\n", a->headers, a->body);
}

/* A header of the answer that the contract does not tell; NULL: none. A 304 has those of the 200 it
 * stands for. */
static const char *find_silence(const json_t *response, const struct answer *a) {
    static const char *const told[] = {
        "Allow",       "Content-Disposition", "ETag",        "Link",
        "Location",    "Preference-Applied",  "Retry-After", "WWW-Authenticate",
        "X-Request-Id"};
    for (size_t i = 0; a->status != 304 && i < sizeof told / sizeof *told; i++)
        if (header(a, told[i]) && !json_object_get(json_object_get(response, "headers"), told[i]))
            return told[i];
    return NULL;
}

/* Documented, and as documented. */
static void hold_against_contract(const struct daemon *d, const struct call *c,
                                  const struct answer *a) {
    if (!d->contract || (strcmp(c->method, "OPTIONS") == 0 && a->status == 204))
        return;
    json_t *response = find_response(d->contract, c->method, c->path, a->status);
    json_t *content = json_object_get(response, "content");
    const char *type = header(a, "Content-Type");
    json_t *media = type ? json_object_get(content, type) : NULL;
    struct check check = {.contract = d->contract};
    if (!response)
        snprintf(check.fault, sizeof check.fault, "the status is not documented");
    else if (find_silence(response, a))
        snprintf(check.fault, sizeof check.fault, "the header %s is not documented",
                 find_silence(response, a));
    else if (!header(a, "X-Request-Id"))
        snprintf(check.fault, sizeof check.fault, "there is no X-Request-Id");
    else if (content && !media && a->status != 304)
        snprintf(check.fault, sizeof check.fault, "the media type %s is not documented",
                 type ? type : "(none)");
    else if (a->json && media)
        fits(&check, json_object_get(media, "schema"), a->json, "");
    else if (type && strstr(type, "json") && a->size == 0 && a->status != 304 &&
             strcmp(c->method, "HEAD"))
        snprintf(check.fault, sizeof check.fault, "there is no body");
    if (*check.fault) {
        print_answer(a);
        fail_msg("%s %s, %d: not as in the contract: %s", c->method, c->path, a->status,
                 check.fault);
    }
}

const struct answer *call(struct daemon *d, const struct call *c) {
    struct answer *a = calloc(1, sizeof *a);
    size_t header_size;
    assert_non_null(a);
    a->before = d->answers;
    d->answers = a;
    FILE *headers = open_memstream(&a->headers, &header_size);
    FILE *body = open_memstream(&a->body, &a->size);
    struct curl_slist *list = NULL;
    for (size_t i = 0; i < COUNT(c->headers) && c->headers[i]; i++)
        list = curl_slist_append(list, c->headers[i]);
    if (c->chunked)
        list = curl_slist_append(list, "Transfer-Encoding: chunked");
    list = curl_slist_append(list, "Expect:");
    if (*d->token)
        list = curl_slist_append(list, text("Authorization: Bearer %s", d->token));
    size_t size = c->body && !c->size ? strlen(c->body) : c->size;
    struct sending sending = {c->body, size};
    CURL *curl = d->curl;
    curl_easy_reset(curl);
    curl_easy_setopt(curl, CURLOPT_URL, text("%s%s", d->url, c->path));
    curl_easy_setopt(curl, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(curl, CURLOPT_NOPROXY, "*");
    if (d->authority)
        curl_easy_setopt(curl, CURLOPT_CAINFO, d->authority);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT, (long)WAIT_SECONDS);
    curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, keep);
    curl_easy_setopt(curl, CURLOPT_HEADERDATA, headers);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, keep);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, body);
    if (c->chunked) {
        curl_easy_setopt(curl, CURLOPT_UPLOAD, 1L);
        curl_easy_setopt(curl, CURLOPT_READFUNCTION, send_some);
        curl_easy_setopt(curl, CURLOPT_READDATA, &sending);
    } else if (c->body || strcmp(c->method, "POST") == 0 || strcmp(c->method, "PUT") == 0) {
        curl_easy_setopt(curl, CURLOPT_POSTFIELDS, c->body ? c->body : "");
        curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)size);
    }
    if (strcmp(c->method, "HEAD") == 0)
        curl_easy_setopt(curl, CURLOPT_NOBODY, 1L);
    curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, c->method);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, list);
    a->seconds = now();
    CURLcode rc = curl_easy_perform(curl);
    a->seconds = now() - a->seconds;
    fclose(headers);
    fclose(body);
    curl_slist_free_all(list);
    long status = 0;
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    a->status = (int)status;
    const char *type = header(a, "Content-Type");
    if (type && strstr(type, "json") && a->size)
        a->json = json_loadb(a->body, a->size, JSON_REJECT_DUPLICATES, NULL);
    if (c->may_break && rc != CURLE_OK) {
        a->status = 0;
        return a;
    }
    if (rc != CURLE_OK || !status || (type && strstr(type, "json") && a->size && !a->json)) {
        print_answer(a);
        print_log(d);
        fail_msg("%s %s: %s", c->method, c->path,
                 rc == CURLE_OK ? "the body is not JSON" : curl_easy_strerror(rc));
    }
    hold_against_contract(d, c, a);
    return a;
}

const struct answer *get(struct daemon *d, const char *path, ...) {
    char whole[2048];
    va_list args;
    va_start(args, path);
    vsnprintf(whole, sizeof whole, path, args);
    va_end(args);
    return call(d, &(struct call){.method = "GET", .path = whole});
}

/* Single quotes become double ones unless there are double ones; the caller frees. */
static char *quoted(const char *json) {
    char *copy = strdup(json);
    assert_non_null(copy);
    for (char *c = strchr(copy, '"') ? copy + strlen(copy) : copy; *c; c++)
        if (*c == '\'')
            *c = '"';
    return copy;
}

const struct answer *post(struct daemon *d, const char *path, const char *json) {
    char *body = json ? quoted(json) : NULL;
    const struct answer *a =
        call(d, &(struct call){.method = "POST",
                               .path = path,
                               .headers = {body ? "Content-Type: application/json" : NULL},
                               .body = body});
    free(body);
    return a;
}

const struct answer *put(struct daemon *d, const char *path, const void *bytes, size_t n) {
    return call(d, &(struct call){.method = "PUT", .path = path, .body = bytes, .size = n});
}

const char *raw(struct daemon *d, const void *bytes, size_t n, int hang_up) {
    static char reply[8192];
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)d->port),
                                  .sin_addr = {htonl(INADDR_LOOPBACK)}};
    struct timeval patience = {.tv_sec = 2 * SLOWNESS};
    size_t got = 0;
    ssize_t some;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    for (const char *from = bytes; n; from += some, n -= (size_t)some) {
        some = send(fd, from, n, MSG_NOSIGNAL);
        if (some <= 0)
            break;
    }
    while (!hang_up && got + 1 < sizeof reply &&
           (some = recv(fd, reply + got, sizeof reply - 1 - got, 0)) > 0)
        got += (size_t)some;
    reply[got] = '\0';
    close(fd);
    return reply;
}

/* ---- Assertions ---- */

void check_status(const struct answer *a, int expected, const char *file, int line) {
    if (a->status == expected)
        return;
    print_answer(a);
    print_error("status %d, not %d\n", a->status, expected);
    _fail(file, line);
}

void check_problem(const struct answer *a, int status, const char *slug, const char *part,
                   const char *file, int line) {
    check_status(a, status, file, line);
    const char *type = json_string_value(json_object_get(a->json, "type"));
    const char *detail = json_string_value(json_object_get(a->json, "detail"));
    const char *media = header(a, "Content-Type");
    if (media && strcmp(media, "application/problem+json") == 0 && type &&
        strcmp(type, text("/problems/%s", slug)) == 0 && detail && strstr(detail, part) &&
        json_integer_value(json_object_get(a->json, "status")) == status)
        return;
    print_answer(a);
    print_error("this is not the problem %s with \"%s\"\n", slug, part);
    _fail(file, line);
}

const char *fault(const struct answer *a, const char *pointer) {
    size_t i;
    json_t *error;
    json_array_foreach(json_object_get(a->json, "errors"), i, error) {
        const char *there = json_string_value(json_object_get(error, "pointer"));
        if (!there)
            there = json_string_value(json_object_get(error, "parameter"));
        if (there && strcmp(there, pointer) == 0)
            return json_string_value(json_object_get(error, "detail"));
    }
    return NULL;
}

void check_fault(const struct answer *a, const char *pointer, const char *part, const char *file,
                 int line) {
    const char *detail = fault(a, pointer);
    if (detail && strstr(detail, part))
        return;
    print_answer(a);
    print_error("no fault at \"%s\" with \"%s\"\n", pointer, part);
    _fail(file, line);
}

json_t *at(const json_t *json, const char *pointer) {
    json_t *place = (json_t *)(uintptr_t)json;
    while (place && *pointer == '/') {
        char name[128];
        size_t n = 0;
        for (pointer++; *pointer && *pointer != '/' && n + 1 < sizeof name; pointer++) {
            name[n] = *pointer;
            if (*pointer == '~')
                name[n] = *++pointer == '1' ? '/' : '~';
            n++;
        }
        name[n] = '\0';
        place = json_is_array(place) ? json_array_get(place, (size_t)atoi(name))
                                     : json_object_get(place, name);
    }
    return place;
}

static void print_json(const json_t *json) {
    char *dump = json_dumps(json, JSON_ENCODE_ANY | JSON_COMPACT);
    print_error("%.3000s\n", dump ? dump : "(nothing)");
    free(dump);
}

double number_at(const json_t *json, const char *pointer) {
    const json_t *value = at(json, pointer);
    if (!json_is_number(value)) {
        print_json(json);
        fail_msg("there is no number at %s", pointer);
    }
    return json_number_value(value);
}

const char *text_at(const json_t *json, const char *pointer) {
    const json_t *value = at(json, pointer);
    if (!json_is_string(value)) {
        print_json(json);
        fail_msg("there is no string at %s", pointer);
    }
    return json_string_value(value);
}

json_t *parse(const char *json) {
    json_error_t why;
    char *copy = quoted(json);
    json_t *parsed = json_loads(copy, JSON_DECODE_ANY, &why);
    free(copy);
    if (!parsed)
        fail_msg("the test's own JSON is wrong: %s in %.200s", why.text, json);
    return parsed;
}

void check_json(const json_t *json, const char *pointer, const char *expected, const char *file,
                int line) {
    json_t *wanted = parse(expected), *value = at(json, pointer);
    int equal = json_equal(value, wanted);
    json_decref(wanted);
    if (equal)
        return;
    print_json(value);
    print_error("stands at \"%s\", not %s\n", pointer, expected);
    _fail(file, line);
}

/* ---- Experiments ---- */

const char *add_user(struct daemon *d, const char *name, const char *role) {
    const struct answer *a = post(d, "/v1/users", text("{'name':'%s','role':'%s'}", name, role));
    assert_status(a, 201);
    return text_at(a->json, "/token/token");
}

char *submit(struct daemon *d, const char *spec, ...) {
    char whole[4096];
    va_list args;
    va_start(args, spec);
    int n = vsnprintf(whole, sizeof whole, spec, args);
    va_end(args);
    assert_true(n > 0 && (size_t)n < sizeof whole);
    const struct answer *a = post(d, "/v1/experiments", whole);
    assert_status(a, 202);
    return strdup(text_at(a->json, "/id"));
}

/* Polls do not stay: there may be thousands of them. */
static void forget_last(struct daemon *d) {
    struct answer *a = d->answers;
    d->answers = a->before;
    free(a->headers);
    free(a->body);
    json_decref(a->json);
    free(a);
}

static int is_final(const char *state) {
    return strcmp(state, "queued") != 0 && strcmp(state, "running") != 0;
}

const struct answer *wait_for(struct daemon *d, const char *id, const char *state) {
    double until = now() + WAIT_SECONDS;
    for (;;) {
        const struct answer *a = get(d, "/v1/experiments/%s", id);
        assert_status(a, 200);
        const char *is = text_at(a->json, "/state");
        if (strcmp(is, state) == 0)
            return a;
        if (is_final(is) || now() > until) {
            print_answer(a);
            print_log(d);
            fail_msg("experiment %s is %s, not %s", id, is, state);
        }
        forget_last(d);
        nap(POLL_MS);
    }
}

void wait_for_epoch(struct daemon *d, const char *id, int epoch) {
    double until = now() + WAIT_SECONDS;
    for (int there = 0; !there; nap(POLL_MS)) {
        const struct answer *a = get(d, "/v1/experiments/%s", id);
        const json_t *in = at(a->json, "/progress/epoch");
        there = in && json_integer_value(in) >= epoch &&
                strcmp(text_at(a->json, "/progress/phase"), "training") == 0;
        if (!there && (is_final(text_at(a->json, "/state")) || now() > until)) {
            print_answer(a);
            print_log(d);
            fail_msg("experiment %s does not reach epoch %d", id, epoch);
        }
        forget_last(d);
    }
}

static uint32_t next_random(uint64_t *state) {
    *state = *state * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(*state >> 33);
}

uint8_t *make_records(size_t n, uint64_t seed) {
    uint8_t *records = malloc(n * RECORD);
    assert_non_null(records);
    for (size_t i = 0; i < n; i++) {
        uint8_t *record = records + i * RECORD;
        unsigned label = next_random(&seed) % 10, shift = next_random(&seed) % 4;
        record[0] = (uint8_t)label;
        for (unsigned p = 0; p < 3072; p++) {
            unsigned colour = p / 1024, x = p % 32, y = p / 32 % 32;
            unsigned stripe = ((label % 2 ? x : y) + shift) / (2 + label / 4) % 2;
            unsigned value = (label % 3 == colour ? 100 : 40) + 80 * stripe;
            record[1 + p] = (uint8_t)(value + next_random(&seed) % 48);
        }
    }
    return records;
}

void upload_images(struct daemon *d, const char *name, size_t n_train, size_t n_test,
                   uint64_t seed) {
    const size_t sizes[] = {n_train, n_test};
    const char *const splits[] = {"train", "test"};
    for (size_t i = 0; i < 2; i++) {
        uint8_t *records = make_records(sizes[i], seed + i);
        const struct answer *a = put(d, text("/v1/datasets/%s/%s?format=cifar10", name, splits[i]),
                                     records, sizes[i] * RECORD);
        free(records);
        assert_true(a->status == 201 || a->status == 200);
        assert_int_equal(number_at(a->json, "/samples"), sizes[i]);
    }
}

int count_files(const struct daemon *d, const char *below) {
    int n = 0;
    DIR *handle = opendir(text("%s%s", d->dir, below));
    assert_non_null(handle);
    for (struct dirent *entry; (entry = readdir(handle));)
        n += strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..");
    closedir(handle);
    return n;
}
