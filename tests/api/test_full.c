/* A disk without room: running experiments go back to the queue and say why, the API answers, and
 * all goes on once there is room. The disk is a small tmpfs of a mount namespace of our own; where
 * that can't be had the test is skipped. */
#include "tests/api/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>
#include <unistd.h>

static const char *const options[] = {"--workers", "1", "--checkpoint", "1", NULL};

static void write_text(const char *path, const char *bytes) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    if (write(fd, bytes, strlen(bytes)) < 0)
        print_message("%s: %s\n", path, strerror(errno));
    close(fd);
}

/* A mount namespace, of a user namespace for who is not root. */
static int make_namespace(void) {
    char map[64];
    unsigned uid = getuid(), gid = getgid();
    if (unshare(CLONE_NEWNS) == 0)
        return 0;
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS))
        return -1;
    snprintf(map, sizeof map, "0 %u 1", uid);
    write_text("/proc/self/uid_map", map);
    write_text("/proc/self/setgroups", "deny");
    snprintf(map, sizeof map, "0 %u 1", gid);
    write_text("/proc/self/gid_map", map);
    return 0;
}

/* A daemon whose data directory is a disk of this size. */
static struct daemon *daemon_on_small_disk(const char *size) {
    struct daemon *d = daemon_new(options);
    daemon_stop(d);
    if (make_namespace() || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
        mount("tmpfs", d->dir, "tmpfs", 0, text("size=%s", size))) {
        print_message("no disk of our own: %s\n", strerror(errno));
        daemon_free(d);
        return NULL;
    }
    daemon_start(d, options);
    return d;
}

/* Fills the disk but for `left` bytes. */
static void fill(struct daemon *d, size_t left) {
    static const char block[4096];
    int fd = open(text("%s/filler", d->dir), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    off_t size = 0;
    assert_true(fd >= 0);
    while (write(fd, block, sizeof block) == (ssize_t)sizeof block)
        size += (off_t)sizeof block;
    assert_int_equal(errno, ENOSPC);
    if (left)
        assert_int_equal(ftruncate(fd, size > (off_t)left ? size - (off_t)left : 0), 0);
    close(fd);
}

static void make_room(struct daemon *d) {
    assert_int_equal(unlink(text("%s/filler", d->dir)), 0);
}

#define LONG_RUN                                                                                   \
    "{'dataset':{'generator':'sphere','samples':4000},'model':{'kind':'mlp','hidden':[300,200],"   \
    "'dropout':0.2},'training':{'epochs':60},'probe':null}"

static void test_a_full_disk(void **state) {
    (void)state;
    struct daemon *d = daemon_on_small_disk("40M");
    if (!d)
        skip();
    char *alone = submit(d, LONG_RUN);
    char *digest =
        strdup(text_at(wait_for(d, alone, "succeeded")->json, "/provenance/weights/last_sha256"));
    char *id = submit(d, LONG_RUN);
    wait_for_epoch(d, id, 3);
    fill(d, 0);
    double until = now() + 40 * SLOWNESS;
    for (;;) {
        const struct answer *a = get(d, "/v1/experiments/%s", id);
        assert_status(a, 200);
        if (strcmp(text_at(a->json, "/state"), "queued") == 0) {
            assert_non_null(strstr(text_at(a->json, "/queue/requeued_because"), "disk was full"));
            break;
        }
        assert_string_equal(text_at(a->json, "/state"), "running");
        assert_true(now() < until);
        nap(20);
    }
    assert_problem(get(d, "/readyz"), 503, "not-ready", "");
    enum { N = 3000 };
    uint8_t *records = make_records(N, 1);
    const struct answer *refused =
        put(d, "/v1/datasets/images/train?format=cifar10", records, N * RECORD);
    assert_problem(refused, 503, "full", "No space left");
    assert_non_null(header(refused, "Retry-After"));
    assert_int_equal(count_files(d, "/datasets"), 0);
    assert_status(get(d, "/v1/experiments"), 200);
    assert_status(get(d, "/v1/experiments/%s/metrics", alone), 200);
    assert_status(get(d, "/metrics"), 200);
    make_room(d);
    const struct answer *a = wait_for(d, id, "succeeded");
    assert_non_null(strstr(get(d, "/v1/experiments/%s/log", id)->body, "queued: the disk was"));
    assert_string_equal(text_at(a->json, "/provenance/weights/last_sha256"), digest);
    assert_status(get(d, "/readyz"), 200);
    assert_status(put(d, "/v1/datasets/images/train?format=cifar10", records, N * RECORD), 201);
    fill(d, 8 << 20); /* it is known before it is too late */
    nap(1100);        /* an answer stands for a second */
    assert_problem(get(d, "/readyz"), 503, "not-ready", "bytes left");
    free(records);
    free(alone), free(id), free(digest);
    daemon_free(d);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_a_full_disk)};
    return cmocka_run_group_tests_name("a full disk", tests, NULL, NULL);
}
