#include "worker/fetch.h"

#include "server/files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

const char *temporary_directory(void) {
    const char *directory = getenv("TMPDIR");
    return directory && *directory ? directory : "/tmp";
}

static int map(struct fetched *fetched, struct ovr_err *err) {
    struct stat stat;
    if (fstat(fetched->fd, &stat))
        return files_fail(err, "read a file");
    if (!S_ISREG(stat.st_mode) || stat.st_size <= 0)
        return ovr_fail(err, OVR_NOT_FOUND, NULL, "a file is empty");
    fetched->n = (size_t)stat.st_size;
    void *bytes = mmap(NULL, fetched->n, PROT_READ, MAP_PRIVATE, fetched->fd, 0);
    if (bytes == MAP_FAILED)
        return files_fail(err, "map a file");
    fetched->bytes = bytes;
    snprintf(fetched->path, sizeof fetched->path, "/proc/self/fd/%d", fetched->fd);
    return 0;
}

int fetch_file(struct fetched *fetched, const char *path, uint64_t bytes, struct ovr_err *err) {
    *fetched = (struct fetched){.fd = open(path, O_RDONLY | O_CLOEXEC)};
    if (fetched->fd < 0)
        return ovr_fail(err, OVR_NOT_FOUND, NULL, "cannot open %s: %s", path, strerror(errno));
    int rc = map(fetched, err);
    return !rc && bytes && fetched->n != bytes
               ? ovr_fail(err, OVR_NOT_FOUND, NULL, "%s has not %llu bytes", path,
                          (unsigned long long)bytes)
               : rc;
}

static int open_temporary(struct ovr_err *err) {
    char path[600];
    snprintf(path, sizeof path, "%s/ovr-worker-XXXXXX", temporary_directory());
    int fd = mkostemp(path, O_CLOEXEC);
    if (fd < 0)
        return files_fail(err, "make a temporary file (TMPDIR says where)");
    unlink(path);
    return fd;
}

int fetch(struct fetched *fetched, struct client *client, const struct call *call,
          struct ovr_err *err) {
    struct call get = *call;
    *fetched = (struct fetched){.fd = open_temporary(err)};
    if (fetched->fd < 0)
        return fetched->fd;
    get.sink = fetched->fd;
    int rc = client_call(client, &get, NULL, err);
    return rc ? rc : map(fetched, err);
}

void fetched_release(struct fetched *fetched) {
    if (fetched->bytes)
        munmap(fetched->bytes, fetched->n);
    if (fetched->fd > 0)
        close(fetched->fd);
    *fetched = (struct fetched){0};
}
