/* Programs that end, fail, hang, flood and fork: what comes back, and that nothing stays behind. */
#include "server/command.h"
#include "tests/server/check.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>

static const char *const copy[] = {"cat", NULL};

#define SHELL(script)                                                                              \
    (const char *const[]) {                                                                        \
        "sh", "-c", script, NULL                                                                   \
    }

/* Milliseconds that it took. */
static int64_t run(struct command *command, int code, struct ovr_err *err) {
    int64_t before = now_ms();
    *err = (struct ovr_err){0};
    int rc = command_run(command, err);
    if (rc != code)
        fail_msg("%d, not %d: %s", rc, code, err->text);
    return now_ms() - before;
}

static void its_input_comes_back_whole(void **state) {
    enum { SIZE = 1 << 20 };
    char *text = malloc(SIZE + 1), *output = malloc(SIZE + 2);
    struct ovr_err err;
    (void)state;
    for (int i = 0; i < SIZE; i++)
        text[i] = (char)('a' + i % 23);
    text[SIZE] = '\0';
    struct command command = {copy, text, 20, NULL, output, SIZE + 2};
    run(&command, 0, &err);
    assert_string_equal(output, text);
    assert_string_equal(command.complaint, "");
    command.output_size = SIZE; /* no room for the last byte */
    run(&command, OVR_TOO_LARGE, &err);
    assert_int_equal(strlen(output), SIZE - 1);
    free(text);
    free(output);
}

/* More than a pipe holds, while the program reads none of it. */
static void who_does_not_read_is_no_harm(void **state) {
    enum { SIZE = 1 << 20 };
    char *text = calloc(1, SIZE + 1), output[8];
    struct ovr_err err;
    (void)state;
    memset(text, 'x', SIZE);
    struct command command = {SHELL("echo done"), text, 20, NULL, output, sizeof output};
    run(&command, 0, &err);
    assert_string_equal(output, "done\n");
    free(text);
}

static void what_fails_says_why(void **state) {
    struct ovr_err err;
    (void)state;
    struct command command = {
        SHELL("echo good; echo a bad one >&2; exit 3"), NULL, 20, NULL, NULL, 0};
    run(&command, OVR_INVALID, &err);
    assert_string_equal(command.complaint, "a bad one");
    assert_string_equal(err.text, "sh failed with status 3: a bad one");
    command.argv = (const char *const[]){"/nowhere/sbatch", NULL};
    run(&command, OVR_NOT_FOUND, &err);
    assert_string_equal(err.text, "/nowhere/sbatch can't be run: No such file or directory");
    command.argv = (const char *const[]){"/etc/passwd", NULL};
    run(&command, OVR_NOT_FOUND, &err);
    command.argv = SHELL("kill -9 $$");
    run(&command, OVR_IO, &err);
    assert_non_null(strstr(err.text, "ended by signal 9"));
}

static void of_a_long_complaint_the_end_counts(void **state) {
    struct ovr_err err;
    (void)state;
    struct command command = {
        SHELL("i=0; while [ $i -lt 300 ]; do echo line $i >&2; i=$((i+1)); done; exit 1"),
        NULL,
        20,
        NULL,
        NULL,
        0};
    run(&command, OVR_INVALID, &err);
    assert_int_equal(strlen(command.complaint), COMMAND_COMPLAINT_SIZE - 2); /* but the newline */
    assert_non_null(strstr(command.complaint, "line 298\nline 299"));
}

static int is_alive(const char *number) {
    return kill((pid_t)atol(number), 0) == 0;
}

/* A shell that waits for a child that ignores SIGTERM: both are gone after it. */
static void time_is_short(void **state) {
    char output[64];
    struct ovr_err err;
    (void)state;
    struct command command = {SHELL("trap '' TERM; sleep 1000 & echo $!; echo busy >&2; wait"),
                              NULL,
                              1,
                              NULL,
                              output,
                              sizeof output};
    int64_t took = run(&command, OVR_IO, &err);
    assert_in_range(took, 950, 5000);
    assert_string_equal(err.text, "sh did not end within 1 s: busy");
    for (int i = 0; i < 200 && is_alive(output); i++)
        sleep_ms(10);
    assert_false(is_alive(output));
}

static void *raise_flag(void *flag) {
    sleep_ms(200);
    *(_Atomic int *)flag = 1;
    return NULL;
}

static void the_daemon_stops(void **state) {
    _Atomic int stop = 0;
    pthread_t thread;
    struct ovr_err err;
    (void)state;
    struct command command = {SHELL("sleep 1000"), NULL, 100, &stop, NULL, 0};
    assert_int_equal(pthread_create(&thread, NULL, raise_flag, &stop), 0);
    assert_in_range(run(&command, OVR_IO, &err), 150, 5000);
    assert_string_equal(err.text, "sh was ended, since the daemon stops");
    pthread_join(thread, NULL);
}

/* What it leaves behind holds its pipes open; that is not waited for, and does not live on. */
static void nothing_stays_behind(void **state) {
    char output[64];
    struct ovr_err err;
    (void)state;
    struct command command = {SHELL("sleep 1000 & echo $!"), NULL, 20, NULL, output, sizeof output};
    assert_in_range(run(&command, 0, &err), 0, 5000);
    for (int i = 0; i < 200 && is_alive(output); i++)
        sleep_ms(10);
    assert_false(is_alive(output));
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* no zombie either */
    assert_int_equal(errno, ECHILD);
}

/* It sees three files and a small environment, and gets its signals although we block them. */
static void it_inherits_little(void **state) {
    char output[4096];
    struct ovr_err err;
    sigset_t mask, old;
    (void)state;
    int leak = open("/dev/null", O_RDONLY), before = count_entries("/proc/self", "/fd");
    sigfillset(&mask);
    sigprocmask(SIG_BLOCK, &mask, &old);
    setenv("OVRD_SECRET", "x", 1);
    setenv("SLURM_CONF", "/etc/slurm.conf", 1);
    struct command command = {
        SHELL("ls /proc/$$/fd; env; grep SigBlk /proc/self/status; exec 9>&-"),
        NULL,
        20,
        NULL,
        output,
        sizeof output};
    run(&command, 0, &err);
    sigprocmask(SIG_SETMASK, &old, NULL);
    assert_int_equal(strncmp(output, "0\n1\n2\n", 6), 0);
    assert_null(strstr(output, "\n3\n"));
    assert_null(strstr(output, "OVRD_SECRET"));
    assert_non_null(strstr(output, "SLURM_CONF=/etc/slurm.conf\n"));
    assert_non_null(strstr(output, "LC_ALL=C\n"));
    assert_non_null(strstr(output, "SigBlk:\t0000000000000000\n"));
    assert_int_equal(count_entries("/proc/self", "/fd"), before);
    close(leak);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        with_place(its_input_comes_back_whole),
        with_place(who_does_not_read_is_no_harm),
        with_place(what_fails_says_why),
        with_place(of_a_long_complaint_the_end_counts),
        with_place(time_is_short),
        with_place(nothing_stays_behind),
        with_place(it_inherits_little),
        with_place(the_daemon_stops),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
