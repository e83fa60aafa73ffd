/* TLS: everything goes through it as it does without, and the certificate may change meanwhile. */
#include "tests/api/daemon.h"

#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>

#define SPEC                                                                                       \
    "{'dataset':{'generator':'sphere','samples':200},'model':{'kind':'mlp','hidden':[8]},"         \
    "'training':{'epochs':1}}"

static char dir[64];

/* A certificate for this machine that is its own authority, with its key, under a name. */
static void make_certificate(const char *name, const char *subject) {
    char command[600];
    snprintf(command, sizeof command,
             "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "
             "/CN=%s -addext subjectAltName=IP:127.0.0.1,DNS:localhost -keyout %s/%s.key -out "
             "%s/%s.pem 2>/dev/null",
             subject, dir, name, dir, name);
    assert_int_equal(system(command), 0);
}

static const char *file(const char *name) {
    return text("%s/%s", dir, name);
}

/* In one step, as certbot does. */
static void copy_file(const char *from, const char *to) {
    char command[300];
    snprintf(command, sizeof command, "cp %s/%s %s/new && mv %s/new %s/%s", dir, from, dir, dir,
             dir, to);
    assert_int_equal(system(command), 0);
}

static int set_up(void **state) {
    snprintf(dir, sizeof dir, "/tmp/ovrd-test-tls-XXXXXX");
    assert_non_null(mkdtemp(dir));
    make_certificate("one", "first");
    make_certificate("two", "second");
    copy_file("one.pem", "cert.pem");
    copy_file("one.key", "cert.key");
    (void)state;
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    char command[100];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command);
}

static struct daemon *start(void) {
    char cert[100], key[100];
    snprintf(cert, sizeof cert, "%s", file("cert.pem"));
    snprintf(key, sizeof key, "%s", file("cert.key"));
    const char *const options[] = {"--tls-cert", cert, "--tls-key", key, NULL};
    static char authority[100];
    snprintf(authority, sizeof authority, "%s/one.pem", dir);
    return daemon_trusting(options, authority);
}

static void test_everything_goes_through(void **state) {
    (void)state;
    struct daemon *d = start();
    assert_int_equal(strncmp(d->url, "https://127.0.0.1:", 18), 0);
    assert_status(get(d, "/healthz"), 200);
    /* A long body in, chunked too; a slow route; a wait; a stream that ends. */
    upload_images(d, "images", 3000, 20, 1);
    uint8_t *records = make_records(2000, 9);
    const struct call chunked = {.method = "PUT",
                                 .path = "/v1/datasets/other/train?format=cifar10",
                                 .body = records,
                                 .size = 2000 * RECORD,
                                 .chunked = 1};
    assert_status(call(d, &chunked), 201);
    free(records);
    char *id = submit(d, SPEC);
    const struct call wait = {.method = "GET",
                              .path = text("/v1/experiments/%s", id),
                              .headers = {"Prefer: wait=5", "If-None-Match: \"1\""}};
    assert_true(call(d, &wait)->status == 200);
    wait_for(d, id, "succeeded");
    const struct answer *a =
        post(d, text("/v1/experiments/%s/encode", id), "{'samples':[[1,2,3]]}");
    assert_status(a, 200);
    a = get(d, "/v1/experiments/%s/events", id);
    assert_status(a, 200);
    assert_non_null(strstr(a->body, "succeeded"));
    a = get(d, "/v1/experiments/%s/model", id);
    assert_status(a, 200);
    /* A page of this very server may change things, one that came without TLS may not. */
    struct call ours = {
        .method = "POST",
        .path = "/v1/experiments?dry_run=true",
        .headers = {text("Origin: %s", d->url), "Content-Type: application/json"},
        .body =
            "{\"dataset\":{\"generator\":\"sphere\"},\"model\":{\"kind\":\"mlp\",\"hidden\":[8]}}"};
    assert_status(call(d, &ours), 200);
    ours.headers[0] = text("Origin: http%s", d->url + strlen("https"));
    assert_problem(call(d, &ours), 403, "forbidden-origin", "http://");
    free(id);
    daemon_free(d);
}

/* SIGTERM while a stream waits and a client has not shaken hands. */
static void test_it_stops(void **state) {
    (void)state;
    struct daemon *d = start();
    char *id = submit(d, "{'dataset':{'generator':'sphere','samples':100000},'model':{'kind':'mlp',"
                         "'hidden':[512]},'training':{'epochs':10000}}");
    char command[400];
    snprintf(command, sizeof command,
             "curl -sN --cacert %s %s/v1/experiments/%s/events >/dev/null & sleep 0.5",
             d->authority, d->url, id);
    assert_int_equal(system(command), 0);
    raw(d, "not a handshake", 15, 1);
    free(id);
    assert_true(daemon_stop(d) < 10 * SLOWNESS);
    daemon_free(d);
}

static int sees(struct daemon *d, const char *subject) {
    char command[300];
    snprintf(command, sizeof command,
             "openssl s_client -connect 127.0.0.1:%d </dev/null 2>/dev/null | openssl x509 -noout "
             "-subject | grep -q %s",
             d->port, subject);
    return system(command) == 0;
}

static int soon(struct daemon *d, const char *subject) {
    for (double until = now() + 10 * SLOWNESS; now() < until; nap(100))
        if (sees(d, subject))
            return 1;
    return 0;
}

static void log_has(struct daemon *d, const char *what) {
    for (double until = now() + 10 * SLOWNESS; now() < until; nap(100)) {
        char command[300];
        snprintf(command, sizeof command, "grep -q '%s' %s", what, d->log);
        if (system(command) == 0)
            return;
    }
    fail_msg("the log lacks %s", what);
}

static void test_a_new_certificate_is_taken(void **state) {
    (void)state;
    struct daemon *d = start();
    assert_true(sees(d, "first"));
    copy_file("two.pem", "cert.pem"); /* its key is still the old one */
    log_has(d, "is not that of the certificate");
    assert_true(sees(d, "first"));
    copy_file("two.key", "cert.key");
    assert_true(soon(d, "second"));
    /* Nonsense stays out, and says so on SIGHUP too. */
    FILE *bad = fopen(file("cert.pem"), "w");
    fputs("nonsense", bad);
    fclose(bad);
    log_has(d, "the certificate stays as it was: the certificate");
    kill(d->pid, SIGHUP);
    nap(500);
    assert_true(sees(d, "second"));
    copy_file("one.pem", "cert.pem");
    copy_file("one.key", "cert.key");
    kill(d->pid, SIGHUP);
    assert_true(soon(d, "first"));
    assert_status(get(d, "/healthz"), 200);
    daemon_free(d);
}

static void test_old_versions_are_refused(void **state) {
    (void)state;
    static const struct {
        const char *option;
        int taken;
    } versions[] = {{"-tls1_1 -cipher ALL:@SECLEVEL=0", 0}, {"-tls1_2", 1}, {"-tls1_3", 1}};
    struct daemon *d = start();
    for (size_t i = 0; i < COUNT(versions); i++) {
        char command[300];
        snprintf(command, sizeof command,
                 "openssl s_client -connect 127.0.0.1:%d %s </dev/null >/dev/null 2>&1", d->port,
                 versions[i].option);
        assert_int_equal(system(command) == 0, versions[i].taken);
    }
    daemon_free(d);
}

static void test_bad_files_are_told(void **state) {
    (void)state;
    static const struct {
        const char *cert, *key, *says;
    } cases[] = {{"one.pem", "two.key", "is not that of the certificate"},
                 {"missing.pem", "one.key", "No such file"},
                 {"one.key", "one.key", "cannot be used"},
                 {"one.pem", "one.pem", "cannot be used"},
                 {"one.pem", NULL, "go together"}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        char said[2000], cert[100], key[100] = "none";
        snprintf(cert, sizeof cert, "%s", file(cases[i].cert));
        if (cases[i].key)
            snprintf(key, sizeof key, "%s", file(cases[i].key));
        const char *const options[] = {"--data-dir",  file("data"), "--listen",
                                       "127.0.0.1:0", "--tls-cert", cert,
                                       "--tls-key",   key,          NULL};
        assert_int_not_equal(daemon_refuses(options, said, sizeof said), 0);
        if (!strstr(said, cases[i].says))
            fail_msg("%s lacks %s", said, cases[i].says);
    }
}

static void test_ovrctl_trusts_a_file(void **state) {
    (void)state;
    struct daemon *d = start();
    const char *build = getenv("OVRD_TEST_BUILD");
    char command[400];
    snprintf(command, sizeof command, "%s/ovrctl list --host %s --ca-file %s >/dev/null",
             build ? build : "build", d->url, d->authority);
    assert_int_equal(system(command), 0);
    snprintf(command, sizeof command, "%s/ovrctl list --host %s >/dev/null 2>&1",
             build ? build : "build", d->url);
    assert_int_not_equal(system(command), 0);
    daemon_free(d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_everything_goes_through),
        cmocka_unit_test(test_it_stops),
        cmocka_unit_test(test_a_new_certificate_is_taken),
        cmocka_unit_test(test_old_versions_are_refused),
        cmocka_unit_test(test_bad_files_are_told),
        cmocka_unit_test(test_ovrctl_trusts_a_file),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
