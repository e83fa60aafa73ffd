/* Files that a worker reads, mapped: such as the daemon's directory has, where it is shared, or
 * such as the daemon sends, in a temporary file without a name (below TMPDIR, else /tmp). */
#ifndef WORKER_FETCH_H
#define WORKER_FETCH_H

#include "worker/client.h"

struct fetched {
    char *bytes; /* NULL: none */
    size_t n;
    char path[32]; /* to open it by once more */
    int fd;
};

/* OVR_NOT_FOUND when it is not there or has another size; bytes 0: any. */
int fetch_file(struct fetched *fetched, const char *path, uint64_t bytes, struct ovr_err *err);

/* What the daemon has at a path, of at most so many bytes; errors as of client_call(). */
int fetch(struct fetched *fetched, struct client *client, const struct call *call,
          struct ovr_err *err);

void fetched_release(struct fetched *fetched); /* also after a failure; {0} is fine */

/* Where temporary files go. */
const char *temporary_directory(void);

#endif
