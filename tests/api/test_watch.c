/* Watching: streams of events that resume where they were, clients that don't read, requests that
 * wait, the text log. */
#include "tests/api/daemon.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#if defined __SANITIZE_THREAD__ || defined __SANITIZE_ADDRESS__
enum { MANY_EPOCHS = 60 };
#else
enum { MANY_EPOCHS = 400 };
#endif

#define SPEC(epochs)                                                                               \
    "{'dataset':{'generator':'sphere'},'model':{'kind':'mlp','hidden':[64]},'training':{"          \
    "'epochs':%d,'threads':1}}",                                                                   \
        epochs
enum { ENDLESS = 100000 };

static int with_one_worker(void **state) {
    static const char *const options[] = {"--workers", "1", "--checkpoint", "1", NULL};
    *state = daemon_new(options);
    return 0;
}

#define with(set_up, test) cmocka_unit_test_setup_teardown(test, set_up, without_daemon)

static const struct answer *cancel(struct daemon *d, const char *id) {
    return post(d, text("/v1/experiments/%s/cancel", id), NULL);
}

/* ---- A client that reads a stream as it comes ---- */

struct stream {
    int fd;
    char line[16384]; /* being read */
    size_t n;
    int in_body, status;
    int64_t id; /* of the last event with one; -1: none yet */
    int events, beats, epochs, ended;
    char name[16], state[16];
};

static int connect_to(const struct daemon *d, int receive_bytes) {
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)d->port),
                                  .sin_addr = {htonl(INADDR_LOOPBACK)}};
    struct timeval patience = {.tv_sec = 30 * SLOWNESS};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    if (receive_bytes)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof receive_bytes);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

static void ask(int fd, const char *path, const char *headers) {
    /* Without chunks: the end of the connection is the end of the body. */
    const char *request = text("GET %s HTTP/1.0\r\nHost: localhost\r\n%s\r\n", path, headers);
    assert_int_equal(send(fd, request, strlen(request), MSG_NOSIGNAL), strlen(request));
}

static void open_stream(struct daemon *d, struct stream *s, const char *id, int64_t after) {
    *s = (struct stream){.fd = connect_to(d, 0), .id = after};
    ask(s->fd, text("/v1/experiments/%s/events", id),
        after < 0 ? "" : text("Last-Event-ID: %lld\r\n", (long long)after));
}

static void take_data(struct stream *s, const char *data) {
    json_t *json = json_loads(data, 0, NULL);
    assert_non_null(json);
    if (strcmp(s->name, "epoch") == 0)
        assert_int_equal((int)number_at(json, "/epoch"), ++s->epochs); /* each, once, in order */
    if (strcmp(s->name, "epoch") == 0)
        assert_non_null(at(json, "/train/loss"));
    if (strcmp(s->name, "state") == 0)
        snprintf(s->state, sizeof s->state, "%s", text_at(json, "/state"));
    json_decref(json);
}

static void take_line(struct stream *s) {
    long long id;
    s->line[s->n] = '\0';
    if (!s->in_body) {
        if (!s->status)
            assert_int_equal(sscanf(s->line, "HTTP/1.%*d %d", &s->status), 1);
        s->in_body = strcmp(s->line, "\r") == 0;
    } else if (sscanf(s->line, "id: %lld", &id) == 1) {
        assert_int_equal(id, s->id < 0 ? 1 : s->id + 1); /* none lost, none twice */
        s->id = id;
    } else if (strncmp(s->line, "event: ", 7) == 0) {
        snprintf(s->name, sizeof s->name, "%.15s", s->line + 7);
    } else if (strncmp(s->line, "data: ", 6) == 0) {
        take_data(s, s->line + 6);
        s->events++;
    } else if (s->line[0] == ':') {
        s->beats++;
    }
    s->n = 0;
}

/* Reads until there were so many more events; 0: until the end. A connection that breaks is the end
 * too. Leaves between two events, so that id is what was seen. */
static void read_stream(struct stream *s, int events) {
    int until = s->events + events;
    char c;
    while (!events || s->events < until) {
        if (recv(s->fd, &c, 1, 0) != 1) {
            s->ended = 1;
            return;
        }
        if (c == '\n')
            take_line(s);
        else if (s->n + 1 < sizeof s->line)
            s->line[s->n++] = c;
    }
}

static void close_stream(struct stream *s) {
    close(s->fd);
    s->n = 0;
}

static void resume(struct daemon *d, struct stream *s, const char *id) {
    close_stream(s);
    s->fd = connect_to(d, 0);
    s->in_body = s->status = s->ended = 0;
    ask(s->fd, text("/v1/experiments/%s/events", id),
        s->id < 0 ? "" : text("Last-Event-ID: %lld\r\n", (long long)s->id));
}

/* ---- Tests ---- */

static void test_a_whole_stream(void **state) {
    struct daemon *d = *state;
    struct stream s;
    char *id = submit(d, SPEC(20));
    open_stream(d, &s, id, -1);
    read_stream(&s, 0);
    assert_int_equal(s.status, 200);
    assert_int_equal(s.epochs, 20);
    assert_string_equal(s.state, "succeeded");
    /* Once more from the start, and from the middle. */
    int64_t newest = s.id;
    close_stream(&s);
    open_stream(d, &s, id, -1);
    read_stream(&s, 0);
    assert_int_equal(s.epochs, 20);
    assert_int_equal(s.id, newest);
    close_stream(&s);
    open_stream(d, &s, id, newest - 1);
    read_stream(&s, 0);
    assert_int_equal(s.events, 1);
    assert_string_equal(s.state, "succeeded");
    close_stream(&s);
    open_stream(d, &s, id, newest);
    read_stream(&s, 0);
    assert_int_equal(s.status, 204);
    close_stream(&s);
    const struct answer *a =
        get(d, "/v1/experiments/%s/events?last_event_id=%lld", id, (long long)newest - 1);
    assert_status(a, 200);
    assert_string_equal(header(a, "Content-Type"), "text/event-stream");
    assert_non_null(strstr(a->body, text("id: %lld\nevent: state\n", (long long)newest)));
    assert_null(strstr(a->body, "event: epoch"));
    assert_status(get(d, "/v1/experiments/%s/events?last_event_id=x", id), 422);
    assert_status(call(d, &(struct call){.method = "GET",
                                         .path = text("/v1/experiments/%s/events", id),
                                         .headers = {"Last-Event-ID: -1"}}),
                  422);
    assert_status(get(d, "/v1/experiments/nothere00000/events"), 404);
    free(id);
}

/* Connections that break at any place, and in the middle kill -9 and SIGTERM. */
static void test_nothing_lost_and_nothing_twice(void **state) {
    static const char *const options[] = {"--workers", "1", "--checkpoint", "1", NULL};
    struct daemon *d = *state;
    struct stream s;
    char *id = submit(d, SPEC(MANY_EPOCHS));
    unsigned seed = 1;
    int kills = 0, stops = 0;
    open_stream(d, &s, id, -1);
    while (strcmp(s.state, "succeeded") != 0) {
        seed = seed * 1103515245 + 12345;
        read_stream(&s, 1 + (int)(seed >> 16) % 20);
        if (kills < 2 && s.epochs > MANY_EPOCHS * (kills + 1) / 4) {
            daemon_kill(d);
            daemon_start(d, options);
            kills++;
        } else if (stops < 1 && s.epochs > MANY_EPOCHS * 3 / 4) {
            daemon_stop(d);
            daemon_start(d, options);
            stops++;
        }
        resume(d, &s, id);
    }
    assert_int_equal(s.epochs, MANY_EPOCHS);
    assert_true(kills == 2 && stops == 1);
    close_stream(&s);
    free(id);
}

static void test_200_watchers(void **state) {
    struct daemon *d = *state;
    static struct stream streams[200];
    char *blocker = submit(d, SPEC(ENDLESS)), *id = submit(d, SPEC(30));
    for (size_t i = 0; i < COUNT(streams); i++)
        open_stream(d, &streams[i], id, -1);
    for (size_t i = 0; i < COUNT(streams); i++)
        read_stream(&streams[i], 1);
    assert_status(cancel(d, blocker), 202);
    for (size_t i = 0; i < COUNT(streams); i++) {
        read_stream(&streams[i], 0);
        assert_int_equal(streams[i].epochs, 30);
        assert_string_equal(streams[i].state, "succeeded");
        close_stream(&streams[i]);
    }
    free(blocker), free(id);
}

/* It is cut off, and its place is free again. */
static void test_one_that_never_reads(void **state) {
    (void)state;
    static const char *const options[] = {"--workers", "1", "--max-watchers", "1", "--idle-timeout",
                                          "1",         NULL};
    struct daemon *d = daemon_new(options);
    char *id = submit(d, SPEC(ENDLESS));
    int fd = connect_to(d, 4096);
    ask(fd, text("/v1/experiments/%s/events", id), "");
    nap(300);
    const struct answer *a = get(d, "/v1/experiments/%s/events", id);
    assert_problem(a, 503, "watchers", "--max-watchers");
    assert_non_null(header(a, "Retry-After"));
    struct stream s;
    double until = now() + 60 * SLOWNESS;
    for (int status = 503; status == 503; close_stream(&s)) {
        assert_true(now() < until);
        nap(100);
        open_stream(d, &s, id, -1);
        do
            read_stream(&s, 1);
        while (!s.ended && !s.events);
        status = s.status;
    }
    close(fd);
    free(id);
    daemon_free(d);
}

/* Where nothing happens a comment tells that the connection is alive. And one that is asleep does
 * not keep the daemon from stopping. */
static void test_heartbeat_and_shutdown(void **state) {
    struct daemon *d = *state;
    struct stream s;
    char *blocker = submit(d, SPEC(ENDLESS)), *id = submit(d, SPEC(1));
    open_stream(d, &s, id, -1);
    double since = now();
    read_stream(&s, 1);
    char c;
    while (!s.beats) {
        assert_int_equal(recv(s.fd, &c, 1, 0), 1);
        if (c == '\n')
            take_line(&s);
        else
            s.line[s.n++] = c;
    }
    assert_true(now() - since > 12 && now() - since < 17 * SLOWNESS);
    int fd = connect_to(d, 0);
    ask(fd, text("/v1/experiments/%s", id), "Prefer: wait=60\r\n");
    nap(200);
    assert_true(daemon_stop(d) < 5 * SLOWNESS);
    char reply[64] = "";
    assert_true(recv(fd, reply, sizeof reply - 1, 0) > 0);
    assert_non_null(strstr(reply, " 503 "));
    read_stream(&s, 0);
    close_stream(&s);
    close(fd);
    daemon_start(d, NULL);
    free(blocker), free(id);
}

static const struct answer *wait_with(struct daemon *d, const char *path, const char *prefer,
                                      const char *tag) {
    return call(d, &(struct call){.method = "GET",
                                  .path = path,
                                  .headers = {text("Prefer: %s", prefer),
                                              tag ? text("If-None-Match: %s", tag) : NULL}});
}

static void test_prefer_wait(void **state) {
    struct daemon *d = *state;
    char *blocker = submit(d, SPEC(ENDLESS)), *id = submit(d, SPEC(1));
    wait_for(d, blocker, "running");
    char path[64], tag[64];
    snprintf(path, sizeof path, "/v1/experiments/%s", id);
    /* In the queue its estimated start would drift, and its tag with it. */
    assert_status(post(d, text("%s/pause", path), ""), 202);
    snprintf(tag, sizeof tag, "%s", header(get(d, "%s", path), "ETag"));
    const struct answer *a = wait_with(d, path, "wait=1", tag);
    assert_status(a, 304);
    assert_string_equal(header(a, "Preference-Applied"), "wait=1");
    assert_true(a->seconds >= 0.99 && a->seconds < 1.5 * SLOWNESS);
    a = wait_with(d, path, "respond-async, Wait=1", NULL);
    assert_status(a, 200);
    assert_true(a->seconds >= 0.99);
    a = wait_with(d, path, "wait=600", "\"9999-0\"");
    assert_status(a, 200);
    assert_string_equal(header(a, "Preference-Applied"), "wait=60");
    assert_true(a->seconds < 0.5 * SLOWNESS);
    static const char *const nonsense[] = {"wait=-1", "wait=x", "wait", "await=5", "wait=5x", ""};
    for (size_t i = 0; i < COUNT(nonsense); i++) {
        a = wait_with(d, path, nonsense[i], tag);
        assert_status(a, 304);
        assert_null(header(a, "Preference-Applied"));
    }
    assert_status(wait_with(d, "/v1/experiments/nothere00000", "wait=5", NULL), 404);

    /* The change comes while it waits. */
    int fd = connect_to(d, 0);
    ask(fd, path, text("Prefer: wait=30\r\nIf-None-Match: %s\r\n", tag));
    nap(200);
    double since = now();
    assert_status(cancel(d, id), 202);
    char reply[8192] = "";
    size_t n = 0;
    for (ssize_t got;
         n + 1 < sizeof reply && (got = recv(fd, reply + n, sizeof reply - 1 - n, 0)) > 0;)
        n += (size_t)got;
    assert_true(now() - since < 1 * SLOWNESS);
    assert_non_null(strstr(reply, " 200 "));
    assert_non_null(strstr(reply, "\"cancelled\""));
    close(fd);
    free(blocker), free(id);
}

static void test_prefer_wait_on_a_sweep(void **state) {
    struct daemon *d = *state;
    const struct answer *a =
        post(d, "/v1/sweeps",
             "{'base':{'dataset':{'generator':'sphere'},'model':{'kind':'mlp','hidden':[64]},"
             "'training':{'epochs':100}},'grid':{'/training/seed':[1,2]}}");
    assert_status(a, 202);
    char path[64], tag[64] = "\"0\"";
    snprintf(path, sizeof path, "/v1/sweeps/%s", text_at(a->json, "/id"));
    double revision = 0, until = now() + 60 * SLOWNESS;
    do {
        a = wait_with(d, path, "wait=20", tag);
        assert_status(a, 200);
        assert_true(number_at(a->json, "/revision") > revision);
        revision = number_at(a->json, "/revision");
        snprintf(tag, sizeof tag, "%s", header(a, "ETag"));
        assert_true(now() < until);
    } while (strcmp(text_at(a->json, "/state"), "running") == 0);
    assert_status(wait_with(d, path, "wait=1", tag), 304);
}

static void test_log(void **state) {
    struct daemon *d = *state;
    char *id = submit(d, SPEC(3));
    wait_for(d, id, "succeeded");
    const struct answer *a = get(d, "/v1/experiments/%s/log", id);
    assert_status(a, 200);
    static const char *const lines[] = {
        " state queued\n", " state running\n",      " started, 1 thread, attempt 1\n",
        " epoch 1, ",      " epoch 3, train.loss ", " state succeeded\n"};
    const char *from = a->body;
    for (size_t i = 0; i < COUNT(lines); i++) {
        from = strstr(from, lines[i]);
        assert_non_null(from);
    }
    assert_string_equal(from, " state succeeded\n");
    assert_status(get(d, "/v1/experiments/nothere00000/log"), 404);
    free(id);
}

/* ---- ovrctl ---- */

/* Each epoch once and in order, though the daemon is killed, stopped and started again meanwhile.
 */
static void test_ovrctl_across_restarts(void **state) {
    struct daemon *d = *state;
    const char *build = getenv("OVRD_TEST_BUILD");
    char address[40], line[512];
    snprintf(address, sizeof address, "127.0.0.1:%d", d->port);
    const char *const same_port[] = {"--workers", "1", "--checkpoint", "1", "--listen",
                                     address,     NULL};
    /* Slow enough to run still when the line that its end waits for is read here. */
    const char *spec = text("{'dataset':{'generator':'sphere','samples':20000},'model':{'kind':"
                            "'mlp','hidden':[256]},'training':{'epochs':%d,'threads':1}}",
                            MANY_EPOCHS);
    const char *id = text_at(post(d, "/v1/experiments", spec)->json, "/id");
    FILE *out = popen(
        text("%s/ovrctl watch %s --host http://%s 2>&1", build ? build : "build", id, address),
        "r");
    assert_non_null(out);
    int epoch = 0, seen, lost = 0, found = 0, ends = 0;
    while (fgets(line, sizeof line, out)) {
        lost += strncmp(line, "ovrctl: lost", 12) == 0 || strstr(line, "ended the stream") != NULL;
        found += strstr(line, "connected again") != NULL;
        ends += strstr(line, "succeeded after") != NULL;
        if (sscanf(line, "epoch %d/", &seen) != 1)
            continue;
        assert_int_equal(seen, ++epoch);
        if (epoch != 10 && epoch != MANY_EPOCHS / 2)
            continue;
        if (epoch == 10)
            daemon_kill(d);
        else
            daemon_stop(d);
        nap(200);
        daemon_start(d, same_port);
    }
    assert_int_equal(pclose(out), 0);
    assert_int_equal(epoch, MANY_EPOCHS);
    assert_int_equal(lost, 2);
    assert_int_equal(found, 2);
    assert_int_equal(ends, 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        with(with_one_worker, test_a_whole_stream),
        with(with_one_worker, test_nothing_lost_and_nothing_twice),
        with(with_one_worker, test_200_watchers),
        cmocka_unit_test(test_one_that_never_reads),
        with(with_one_worker, test_heartbeat_and_shutdown),
        with(with_one_worker, test_prefer_wait),
        with(with_one_worker, test_prefer_wait_on_a_sweep),
        with(with_one_worker, test_log),
        with(with_one_worker, test_ovrctl_across_restarts),
    };
    return cmocka_run_group_tests_name("watching", tests, NULL, NULL);
}
