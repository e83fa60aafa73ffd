#include "server/command.h"

#include "server/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *const passed_on[] = {"PATH", "HOME", "SLURM_CONF", "SLURM_CONF_SERVER",
                                        "SLURM_JWT"};
enum { N_PASSED_ON = sizeof passed_on / sizeof *passed_on };

struct environment {
    char *list[N_PASSED_ON + 2];
    size_t n;
};

static void environment_release(struct environment *environment) {
    while (environment->n > 0)
        free(environment->list[--environment->n]);
}

static int environment_init(struct environment *environment, struct ovr_err *err) {
    *environment = (struct environment){0};
    for (size_t i = 0; i <= N_PASSED_ON; i++) {
        const char *name = i < N_PASSED_ON ? passed_on[i] : "LC_ALL";
        const char *value = i < N_PASSED_ON ? getenv(name) : "C";
        if (!value)
            continue;
        if (asprintf(&environment->list[environment->n], "%s=%s", name, value) < 0) {
            environment_release(environment);
            return ovr_nomem(err, "the environment of a program");
        }
        environment->list[++environment->n] = NULL;
    }
    return 0;
}

/* A running program, and our ends of its pipes. */
struct child {
    pid_t pid;
    int fd, output, complaint; /* fd: readable once it has ended; −1: not open */
    int64_t deadline_ms;
    size_t n_output, n_complaint;
    int too_much;
};

static void close_fd(int *fd) {
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* A file in memory, so that nobody has to wait until it is read. */
static int open_input(const char *text) {
    if (!text)
        return open("/dev/null", O_RDONLY | O_CLOEXEC);
    int fd = memfd_create("input", MFD_CLOEXEC);
    size_t n = strlen(text);
    if (fd >= 0 && (write(fd, text, n) != (ssize_t)n || lseek(fd, 0, SEEK_SET)))
        close_fd(&fd);
    return fd;
}

static int spawn(const char *const *argv, const int fds[3], char **environment, pid_t *pid) {
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    int rc = posix_spawn_file_actions_init(&actions);
    if (rc)
        return rc;
    if ((rc = posix_spawnattr_init(&attributes))) {
        posix_spawn_file_actions_destroy(&actions);
        return rc;
    }
    for (int i = 0; !rc && i < 3; i++)
        rc = posix_spawn_file_actions_adddup2(&actions, fds[i], i);
    if (!rc)
        rc = posix_spawn_file_actions_addclosefrom_np(&actions, 3);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    posix_spawnattr_setpgroup(&attributes, 0);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
                                              POSIX_SPAWN_SETPGROUP);
    if (!rc)
        rc = posix_spawnp(pid, argv[0], &actions, &attributes, (char *const *)argv, environment);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return rc;
}

/* Returns 0 or an errno. */
static int start(struct child *child, const struct command *command, char **environment) {
    int output[2] = {-1, -1}, complaint[2] = {-1, -1};
    int input = open_input(command->input), rc = 0;
    *child = (struct child){.fd = -1, .output = -1, .complaint = -1};
    child->deadline_ms = monotonic_ms() + command->timeout_s * INT64_C(1000);
    if (input < 0 || pipe2(output, O_CLOEXEC) || pipe2(complaint, O_CLOEXEC))
        rc = errno;
    pid_t pid;
    if (!rc)
        rc = spawn(command->argv, (int[3]){input, output[1], complaint[1]}, environment, &pid);
    if (!rc)
        child->pid = pid;
    close_fd(&input);
    close_fd(&output[1]);
    close_fd(&complaint[1]);
    child->output = output[0];
    child->complaint = complaint[0];
    if (!rc && (child->fd = pidfd_open(child->pid, 0)) < 0)
        rc = errno;
    return rc;
}

/* What has come through a pipe: returns 0 at its end. */
static int take_output(struct child *child, struct command *command) {
    char aside[4096];
    size_t room = command->output ? command->output_size - 1 - child->n_output : 0;
    ssize_t n = read(child->output, room ? command->output + child->n_output : aside,
                     room ? room : sizeof aside);
    if (n <= 0)
        return n < 0 && errno == EINTR;
    if (room)
        child->n_output += (size_t)n;
    else if (command->output)
        child->too_much = 1;
    return 1;
}

static int take_complaint(struct child *child, struct command *command) {
    char piece[COMMAND_COMPLAINT_SIZE / 2];
    ssize_t n = read(child->complaint, piece, sizeof piece);
    if (n <= 0)
        return n < 0 && errno == EINTR;
    size_t size = (size_t)n, room = sizeof command->complaint - 1;
    if (child->n_complaint + size > room) {
        size_t drop = child->n_complaint + size - room;
        memmove(command->complaint, command->complaint + drop, child->n_complaint - drop);
        child->n_complaint -= drop;
    }
    memcpy(command->complaint + child->n_complaint, piece, size);
    child->n_complaint += size;
    command->complaint[child->n_complaint] = '\0';
    return 1;
}

static int has_said_enough(const struct command *command) {
    return command->enough && strstr(command->complaint, command->enough);
}

/* Until it has ended and all that it said is taken. Returns 0 when its time is over before. */
static int listen_to(struct child *child, struct command *command) {
    enum { LOOK_MS = 100 };
    while (!command->stop || !*command->stop) {
        struct pollfd fds[3] = {{.fd = child->fd, .events = POLLIN},
                                {.fd = child->output, .events = POLLIN},
                                {.fd = child->complaint, .events = POLLIN}};
        int64_t left = child->deadline_ms - monotonic_ms();
        if (left <= 0)
            return 0;
        if (poll(fds, 3, left < LOOK_MS ? (int)left : LOOK_MS) < 0 && errno != EINTR)
            return 0;
        if (fds[1].revents && !take_output(child, command))
            close_fd(&child->output);
        if (fds[2].revents && !take_complaint(child, command))
            close_fd(&child->complaint);
        if (has_said_enough(command))
            return 0;
        if (fds[0].revents && !fds[1].revents && !fds[2].revents)
            return 1;
    }
    return 0;
}

/* Its whole group ends. It is no zombie's number that somebody else has by now: it is not waited
 * for yet. Returns its status as waitpid() does. */
static int end(struct child *child) {
    int status = -1;
    kill(-child->pid, SIGKILL);
    while (waitpid(child->pid, &status, 0) < 0 && errno == EINTR)
        ;
    return status;
}

/* Its last words, for a sentence: without the line's end. */
static void trim(char *text) {
    size_t n = strlen(text);
    while (n > 0 && strchr(" \r\n\t", text[n - 1]))
        text[--n] = '\0';
}

static int judge(const struct command *command, const struct child *child, int in_time, int status,
                 struct ovr_err *err) {
    const char *name = command->argv[0];
    const char *said = *command->complaint ? command->complaint : "it said nothing";
    if (!in_time && command->stop && *command->stop)
        return ovr_fail(err, OVR_IO, name, "%s was ended, since the daemon stops", name);
    if (!in_time && has_said_enough(command))
        return ovr_fail(err, OVR_INVALID, name, "%s was ended after it said: %s", name, said);
    if (!in_time)
        return ovr_fail(err, OVR_IO, name, "%s did not end within %d s: %s", name,
                        command->timeout_s, said);
    if (WIFSIGNALED(status))
        return ovr_fail(err, OVR_IO, name, "%s was ended by signal %d: %s", name, WTERMSIG(status),
                        said);
    if (WEXITSTATUS(status))
        return ovr_fail(err, OVR_INVALID, name, "%s failed with status %d: %s", name,
                        WEXITSTATUS(status), said);
    if (child->too_much)
        return ovr_fail(err, OVR_TOO_LARGE, name, "%s printed more than %zu bytes", name,
                        command->output_size - 1);
    return 0;
}

int command_run(struct command *command, struct ovr_err *err) {
    const char *name = command->argv[0];
    struct environment environment;
    struct child child;
    command->complaint[0] = '\0';
    int rc = environment_init(&environment, err);
    if (rc)
        return rc;
    int fault = start(&child, command, environment.list);
    int in_time = !fault && listen_to(&child, command);
    int status = child.pid > 0 ? end(&child) : 0;
    close_fd(&child.fd);
    close_fd(&child.output);
    close_fd(&child.complaint);
    environment_release(&environment);
    if (command->output)
        command->output[child.n_output] = '\0';
    command->complaint[child.n_complaint] = '\0';
    trim(command->complaint);
    if (fault == ENOENT || fault == EACCES || fault == ENOEXEC || fault == ENOTDIR)
        return ovr_fail(err, OVR_NOT_FOUND, name, "%s can't be run: %s", name, strerror(fault));
    if (fault)
        return ovr_fail(err, OVR_IO, name, "%s could not be started: %s", name, strerror(fault));
    return judge(command, &child, in_time, status, err);
}
