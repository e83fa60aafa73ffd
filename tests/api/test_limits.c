/* What keeps one client from being a burden to the others: rates, wrong tokens, connections, slow
 * ones. And where the daemon listens, and by which names. */
#include "tests/api/daemon.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

static void with_token(struct daemon *d, const char *token) {
    snprintf(d->token, sizeof d->token, "%.100s", token);
}

static void test_rates_are_of_a_user(void **state) {
    (void)state;
    static const char *const options[] = {"--rate", "5", NULL};
    struct daemon *d = daemon_new(options);
    for (int i = 0; i < 100; i++) /* no users, no limits */
        assert_status(get(d, "/v1/experiments"), 200);
    char root[128], anna[128];
    snprintf(root, sizeof root, "%s", add_user(d, "root", "admin"));
    with_token(d, root);
    snprintf(anna, sizeof anna, "%s", add_user(d, "anna", "member"));
    with_token(d, anna);
    int refused = 0;
    const struct answer *a;
    for (int i = 0; i < 80 && !refused; i++) {
        a = get(d, "/v1/experiments");
        refused = a->status == 429;
        assert_true(refused || i < 79);
        assert_true(!refused || i >= 50);
    }
    assert_problem(a, 429, "rate-limited", "come again in 1 s");
    assert_string_equal(header(a, "Retry-After"), "1");
    with_token(d, root);
    assert_status(get(d, "/v1/experiments"), 200);
    /* Without a token the address counts; it has a share of its own. */
    with_token(d, "");
    refused = 0;
    for (int i = 0; i < 80; i++)
        refused += get(d, "/healthz")->status == 429;
    assert_in_range(refused, 5, 30);
    with_token(d, anna);
    nap(1200);
    assert_status(get(d, "/v1/experiments"), 200);
    daemon_free(d);
}

static void test_wrong_tokens_are_few(void **state) {
    (void)state;
    static const char *const options[] = {"--wrong-tokens", "10", NULL};
    struct daemon *d = daemon_new(options);
    char root[128];
    snprintf(root, sizeof root, "%s", add_user(d, "root", "admin"));
    with_token(d, root);
    assert_status(get(d, "/v1/me"), 200);
    with_token(d, "ovrd_wrong");
    for (int i = 0; i < 10; i++)
        assert_status(get(d, "/v1/me"), 401);
    const struct answer *a = get(d, "/v1/me");
    assert_problem(a, 429, "rate-limited", "wrong tokens");
    assert_non_null(header(a, "Retry-After"));
    with_token(d, root);
    assert_status(get(d, "/v1/me"), 200);
    daemon_free(d);
}

/* ---- Connections of one's own ---- */

static int dial(int port, const char *address) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    inet_pton(AF_INET, address, &to.sin_addr);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    return fd;
}

/* Whether the other side has closed it, within so many seconds; bytes that come are dropped. */
static int closed_within(int fd, double seconds) {
    char bytes[512];
    for (double until = now() + seconds; now() < until;) {
        struct pollfd waiting = {.fd = fd, .events = POLLIN};
        if (poll(&waiting, 1, 50) > 0 && recv(fd, bytes, sizeof bytes, MSG_DONTWAIT) <= 0)
            return 1;
    }
    return 0;
}

/* One that sends a byte now and then is never idle, and yet has its time. */
static void test_dawdlers_are_cut_off(void **state) {
    (void)state;
    static const char *const options[] = {"--idle-timeout", "1", "--body-rate", "1000", NULL};
    static const char head[] = "POST /v1/experiments HTTP/1.1\r\nHost: localhost\r\n"
                               "Content-Type: application/json\r\nContent-Length: 100000\r\n\r\n";
    struct daemon *d = daemon_new(options);
    int headers = dial(d->port, "127.0.0.1"), body = dial(d->port, "127.0.0.1");
    int steady = dial(d->port, "127.0.0.1");
    char block[500];
    memset(block, ' ', sizeof block);
    assert_true(write(headers, "GET / HTTP/1.1\r\nX: ", 19) == 19);
    assert_true(write(body, head, strlen(head)) > 0 && write(steady, head, strlen(head)) > 0);
    double started = now(), headers_cut = 0, body_cut = 0;
    while (now() - started < 30 && (!headers_cut || !body_cut)) {
        /* The daemon cuts off by the second; 2000 bytes a second are enough. */
        assert_false(closed_within(steady, 0.2));
        assert_true(send(steady, block, 400, MSG_NOSIGNAL) == 400);
        if (!headers_cut && (send(headers, "x", 1, MSG_NOSIGNAL) < 0 || closed_within(headers, 0)))
            headers_cut = now() - started;
        if (!body_cut && (send(body, "x", 1, MSG_NOSIGNAL) < 0 || closed_within(body, 0)))
            body_cut = now() - started;
    }
    assert_true(body_cut > 1 && body_cut < 6);
    assert_true(headers_cut > 10 && headers_cut < 18);
    close(headers);
    close(body);
    close(steady);
    daemon_free(d);
}

/* One request on a connection that stays open; what came of the answer in one piece. */
static const char *ask_ready(int fd) {
    static const char request[] = "GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    static char text[4096];
    assert_true(send(fd, request, sizeof request - 1, MSG_NOSIGNAL) == sizeof request - 1);
    ssize_t n = recv(fd, text, sizeof text - 1, 0);
    assert_true(n > 0);
    text[n] = '\0';
    return text;
}

/* While the last request still comes in, who has a connection already hears that it is over. */
static void test_a_closing_daemon_is_not_ready(void **state) {
    (void)state;
    static const char half[] = "PUT /v1/datasets/d/train?format=csv HTTP/1.1\r\nHost: localhost\r\n"
                               "Content-Length: 100\r\n\r\na,b,c\n";
    struct daemon *d = daemon_new(NULL);
    int guest = dial(d->port, "127.0.0.1"), uploader = dial(d->port, "127.0.0.1");
    assert_non_null(strstr(ask_ready(guest), " 200 "));
    assert_true(write(uploader, half, sizeof half - 1) == sizeof half - 1);
    poll(NULL, 0, 200); /* until the upload is seen */
    assert_int_equal(kill(d->pid, SIGTERM), 0);
    const char *answer;
    for (double until = now() + 5; strstr(answer = ask_ready(guest), " 200 ") && now() < until;)
        poll(NULL, 0, 20);
    assert_non_null(strstr(answer, " 503 "));
    assert_non_null(strstr(answer, "Retry-After: "));
    assert_non_null(strstr(answer, "application/problem+json"));
    close(uploader);
    close(guest);
    daemon_free(d);
}

/* An address of this machine that is not loopback; skips where there is none. */
static const char *outer_address(void) {
    static char text[INET_ADDRSTRLEN];
    struct ifaddrs *list;
    text[0] = '\0';
    assert_int_equal(getifaddrs(&list), 0);
    for (struct ifaddrs *i = list; i && !*text; i = i->ifa_next) {
        const struct sockaddr_in *in = (const void *)i->ifa_addr;
        if (in && in->sin_family == AF_INET && ntohl(in->sin_addr.s_addr) >> 24 != 127)
            inet_ntop(AF_INET, &in->sin_addr, text, sizeof text);
    }
    freeifaddrs(list);
    if (!*text)
        skip();
    return text;
}

/* The status that a request of one's own gets over this connection; 0: none. */
static int ask(int fd, const char *host) {
    char bytes[600];
    int n = snprintf(bytes, sizeof bytes, "GET /healthz HTTP/1.1\r\nHost: %s\r\n\r\n", host);
    if (send(fd, bytes, (size_t)n, MSG_NOSIGNAL) != n)
        return 0;
    struct pollfd waiting = {.fd = fd, .events = POLLIN};
    ssize_t got = poll(&waiting, 1, 5000) > 0 ? recv(fd, bytes, sizeof bytes - 1, 0) : 0;
    bytes[got > 0 ? got : 0] = '\0';
    int status = 0;
    sscanf(bytes, "HTTP/1.1 %d", &status);
    return status;
}

static void test_a_crowd_from_one_address(void **state) {
    (void)state;
    char here[INET_ADDRSTRLEN], token[90];
    snprintf(here, sizeof here, "%s", outer_address());
    struct daemon *d = daemon_new(NULL);
    snprintf(token, sizeof token, "%s/token", d->dir);
    const char *const options[] = {
        "--listen", "0.0.0.0:0", "--address-connections", "3", "--admin-token-file", token, NULL};
    daemon_stop(d);
    daemon_start(d, options);
    int fds[4];
    for (int i = 0; i < 4; i++) {
        fds[i] = dial(d->port, here);
        assert_int_equal(ask(fds[i], here), i < 3 ? 200 : 429);
    }
    int own = dial(d->port, "127.0.0.1"); /* this machine's own are not counted */
    assert_int_equal(ask(own, "localhost"), 200);
    close(own);
    close(fds[0]);
    close(fds[3]);
    nap(300);
    fds[0] = dial(d->port, here);
    assert_int_equal(ask(fds[0], here), 200);
    for (int i = 0; i < 3; i++)
        close(fds[i]);
    daemon_free(d);
}

/* ---- Where it listens, and by which names ---- */

static void test_names(void **state) {
    (void)state;
    char machine[256];
    gethostname(machine, sizeof machine);
    struct daemon *d = daemon_new(NULL);
    const struct {
        const char *host;
        int loopback, everywhere;
    } hosts[] = {
        {"localhost", 200, 200},
        {"127.0.0.1:80", 200, 200},
        {"ovrd.lab.org", 403, 200},
        {"OVRD.lab.org:8", 403, 200},
        {"b", 403, 200},
        {"lab.org", 403, 403},
        {"ovrd.lab.org.evil", 403, 403},
        {"192.0.2.1", 403, 200},
        {"192.0.2.1.evil", 403, 403},
        {"[2001:db8::1]:80", 403, 200},
        {"[::1]x", 403, 403},
        {machine, 0, 200},
    };
    for (size_t i = 0; i < COUNT(hosts); i++) {
        int fd = dial(d->port, "127.0.0.1");
        if (hosts[i].loopback && ask(fd, hosts[i].host) != hosts[i].loopback)
            fail_msg("%s on loopback", hosts[i].host);
        close(fd);
    }
    daemon_stop(d);
    char token[90];
    snprintf(token, sizeof token, "%s/token", d->dir);
    const char *const options[] = {
        "--listen", "0.0.0.0:0", "--host-names", "ovrd.lab.org,b", "--admin-token-file",
        token,      NULL};
    daemon_start(d, options);
    for (size_t i = 0; i < COUNT(hosts); i++) {
        int fd = dial(d->port, "127.0.0.1");
        if (ask(fd, hosts[i].host) != hosts[i].everywhere)
            fail_msg("%s everywhere", hosts[i].host);
        close(fd);
    }
    daemon_free(d);
}

static void test_loopback_until_there_is_an_admin(void **state) {
    (void)state;
    char said[2000];
    struct daemon *d = daemon_new(NULL);
    daemon_stop(d);
    const char *const options[] = {"--data-dir", d->dir, "--listen", "0.0.0.0:0", NULL};
    assert_int_equal(daemon_refuses(options, said, sizeof said), 2);
    assert_non_null(strstr(said, "ovrd user add NAME --role admin"));
    const char *const add[] = {"user",  "add",        "anna", "--role",
                               "admin", "--data-dir", d->dir, NULL};
    assert_int_equal(daemon_refuses(add, said, sizeof said), 0);
    assert_int_equal(strncmp(said, "ovrd_", 5), 0);
    said[strcspn(said, "\n")] = '\0';
    const char *const everywhere[] = {"--listen", "0.0.0.0:0", NULL};
    daemon_start(d, everywhere);
    assert_status(get(d, "/v1/me"), 401);
    with_token(d, said);
    assert_string_equal(text_at(get(d, "/v1/me")->json, "/name"), "anna");
    /* Beside a daemon the directory is its own. */
    assert_int_equal(daemon_refuses(add, said, sizeof said), 1);
    assert_non_null(strstr(said, "ovrctl user"));
    daemon_free(d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rates_are_of_a_user),
        cmocka_unit_test(test_wrong_tokens_are_few),
        cmocka_unit_test(test_dawdlers_are_cut_off),
        cmocka_unit_test(test_a_closing_daemon_is_not_ready),
        cmocka_unit_test(test_a_crowd_from_one_address),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_loopback_until_there_is_an_admin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
