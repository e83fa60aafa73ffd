#include "api/spool.h"

#include "api/problem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int fail(struct ovr_err *err) {
    return ovr_fail(err, errno == ENOSPC || errno == EDQUOT ? OVR_FULL : OVR_IO, NULL,
                    "the reply cannot be stored until it is sent: %s", strerror(errno));
}

int spool_file(const char *data_dir, struct ovr_err *err) {
    char path[1024];
    snprintf(path, sizeof path, "%s/spool-XXXXXX", data_dir);
    int fd = mkostemp(path, O_CLOEXEC);
    if (fd < 0)
        return fail(err);
    unlink(path);
    return fd;
}

FILE *spool_open(const char *data_dir, struct ovr_err *err) {
    int fd = spool_file(data_dir, err);
    FILE *spool = fd < 0 ? NULL : fdopen(fd, "w+");
    if (fd >= 0 && !spool) {
        fail(err);
        close(fd);
    }
    return spool;
}

int spool_check(FILE *spool, struct ovr_err *err) {
    return fflush(spool) || ferror(spool) ? fail(err) : 0;
}

static int64_t read_spool(void *context, uint64_t position, char *out, size_t room) {
    ssize_t n;
    do
        n = pread(fileno(context), out, room, (off_t)position);
    while (n < 0 && errno == EINTR);
    return n;
}

static void release_spool(void *context) {
    fclose(context);
}

struct reply *spool_reply(FILE *spool, int status, const char *content_type) {
    struct stat stat;
    struct ovr_err err = {0};
    if (spool_check(spool, &err) || (fstat(fileno(spool), &stat) && fail(&err))) {
        fclose(spool);
        return problem_from(&err);
    }
    return reply_stream(status, content_type, stat.st_size, read_spool, release_spool, spool);
}
