/* Submissions that share a commit: what was answered is there after kill -9, also when many clients
 * post at once. */
#include "tests/api/daemon.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CLIENTS = 16, MOST = 4000, KILLS = 3 };

static const char *const options[] = {"--workers", "1", "--memory", "192M", NULL};
static const char body[] = "{\"dataset\":{\"generator\":\"sphere\"},\"model\":{\"kind\":\"mlp\","
                           "\"hidden\":[8]},\"training\":{\"epochs\":100000}}";

struct client {
    pthread_t thread;
    int port;
    char (*ids)[16]; /* of what was answered with 202 */
    size_t n;
    int refused;
};

/* Reads an answer with a body of known length; returns its status, 0 when the connection ends. */
static int read_answer(int fd, char *answer, size_t size) {
    size_t got = 0;
    for (;;) {
        answer[got] = '\0';
        const char *end = strstr(answer, "\r\n\r\n"), *length = strstr(answer, "Content-Length: ");
        if (end && length && got >= (size_t)(end + 4 - answer) + strtoul(length + 16, NULL, 10))
            return atoi(answer + strlen("HTTP/1.1 "));
        ssize_t n = recv(fd, answer + got, size - 1 - got, 0);
        if (n <= 0)
            return 0;
        got += (size_t)n;
    }
}

/* Posts one after the other until the daemon is gone. */
static void *post_on(void *arg) {
    struct client *c = arg;
    char request[512], answer[8192];
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)c->port),
                                  .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int n = snprintf(request, sizeof request,
                     "POST /v1/experiments HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
                     "application/json\r\nContent-Length: %zu\r\n\r\n%s",
                     strlen(body), body);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), status = 1;
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address))
        status = 0;
    while (status && c->n < MOST && send(fd, request, (size_t)n, MSG_NOSIGNAL) == n) {
        status = read_answer(fd, answer, sizeof answer);
        const char *id = strstr(answer, "Location: /v1/experiments/");
        if (status == 202 && id && sscanf(id + 26, "%12[0-9a-z]", c->ids[c->n]) == 1)
            c->n++;
        else
            c->refused += status != 0;
    }
    if (fd >= 0)
        close(fd);
    return NULL;
}

/* Returns how many were answered in the moments before the daemon was killed; all are there. */
static size_t post_and_kill(struct daemon *d, int after_ms) {
    struct client clients[CLIENTS] = {0};
    size_t n = 0;
    for (int i = 0; i < CLIENTS; i++) {
        clients[i].port = d->port;
        clients[i].ids = calloc(MOST, sizeof *clients[i].ids);
        assert_non_null(clients[i].ids);
        assert_int_equal(pthread_create(&clients[i].thread, NULL, post_on, &clients[i]), 0);
    }
    nap(after_ms);
    daemon_kill(d);
    for (int i = 0; i < CLIENTS; i++)
        pthread_join(clients[i].thread, NULL);
    daemon_start(d, options);
    for (int i = 0; i < CLIENTS; i++) {
        assert_int_equal(clients[i].refused, 0);
        for (size_t j = 0; j < clients[i].n; j++)
            assert_status(get(d, "/v1/experiments/%s", clients[i].ids[j]), 200);
        daemon_forget_answers(d);
        n += clients[i].n;
        free(clients[i].ids);
    }
    return n;
}

static void test_what_was_answered_survives_kill_9(void **state) {
    struct daemon *d = daemon_new(options);
    size_t n = 0;
    *state = d;
    for (int i = 0; i < KILLS; i++)
        n += post_and_kill(d, 150 * SLOWNESS + 70 * i);
    assert_true(n > 20);
    daemon_free(d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_was_answered_survives_kill_9),
    };
    return cmocka_run_group_tests_name("api/commits", tests, NULL, NULL);
}
