#include "worker/order.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ORDER_MAX = 4096 };

static int check_owner(int fd, const char *path, struct ovr_err *err) {
    struct stat stat;
    if (fstat(fd, &stat))
        return ovr_fail(err, OVR_IO, NULL, "cannot read %s: %s", path, strerror(errno));
    if (!S_ISREG(stat.st_mode))
        return ovr_fail(err, OVR_INVALID, NULL, "%s is no file", path);
    if (stat.st_uid != geteuid())
        return ovr_fail(err, OVR_FORBIDDEN, NULL,
                        "%s is somebody else's; the order has to belong to who runs the worker",
                        path);
    if (stat.st_mode & 077)
        return ovr_fail(err, OVR_FORBIDDEN, NULL,
                        "%s has a secret in it and mode %03o, so that others may read it; make it "
                        "with mode 600 (umask 077)",
                        path, (unsigned)stat.st_mode & 0777);
    return 0;
}

static int is_plain(const char *text) {
    for (; *text; text++)
        if (*text <= ' ' || *text >= 0x7f)
            return 0;
    return 1;
}

static int read_line(const char *line, const char *path, struct order *order, struct ovr_err *err) {
    const struct {
        const char *name;
        char *value;
        size_t size;
    } members[] = {{"url=", order->url, sizeof order->url},
                   {"token=", order->token, sizeof order->token},
                   {"ca=", order->ca, sizeof order->ca}};
    for (size_t i = 0; i < sizeof members / sizeof *members; i++) {
        size_t skip = strlen(members[i].name);
        if (strncmp(line, members[i].name, skip))
            continue;
        if (strlen(line + skip) >= members[i].size || *members[i].value)
            return ovr_fail(err, OVR_INVALID, NULL, "%s: the line %.*s is too long, or there twice",
                            path, (int)skip - 1, line);
        memcpy(members[i].value, line + skip, strlen(line + skip) + 1);
        return 0;
    }
    return ovr_fail(err, OVR_INVALID, NULL, "%s: lines are url=, token= and ca=, nothing else",
                    path);
}

static int read_lines(char *text, const char *path, struct order *order, struct ovr_err *err) {
    int rc = 0;
    for (char *line = text, *end; !rc && *line; line = end) {
        size_t n = strcspn(line, "\n");
        end = line + n + (line[n] == '\n');
        line[n] = '\0';
        if (n)
            rc = read_line(line, path, order, err);
    }
    if (rc)
        return rc;
    if (strncmp(order->url, "http://", 7) && strncmp(order->url, "https://", 8))
        return ovr_fail(err, OVR_INVALID, NULL, "%s: there is no url= of http:// or https://",
                        path);
    if (!*order->token || !is_plain(order->token) || !is_plain(order->url))
        return ovr_fail(err, OVR_INVALID, NULL,
                        "%s: there is no token=, or it or the URL has blanks", path);
    return 0;
}

int order_read(const char *path, struct order *order, struct ovr_err *err) {
    char text[ORDER_MAX + 1];
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    *order = (struct order){.url = ""};
    if (fd < 0)
        return ovr_fail(err, OVR_IO, NULL, "cannot open %s: %s", path, strerror(errno));
    int rc = check_owner(fd, path, err);
    ssize_t n = rc ? 0 : read(fd, text, sizeof text);
    close(fd);
    if (!rc && (n <= 0 || n > ORDER_MAX))
        rc = ovr_fail(err, OVR_INVALID, NULL, "%s is empty or has more than %d bytes", path,
                      ORDER_MAX);
    if (rc)
        return rc;
    text[n] = '\0';
    rc = read_lines(text, path, order, err);
    if (!rc)
        unlink(path);
    explicit_bzero(text, sizeof text);
    return rc;
}
