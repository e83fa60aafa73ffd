/* What a worker is to do, as the daemon says it (GET /v1/work, docs/worker.md). */
#ifndef WORKER_WORK_H
#define WORKER_WORK_H

#include "core/cpu.h"
#include "server/digest.h"

#include "core/err.h"

#include <stdint.h>

struct work_split {
    char sha256[DIGEST_SIZE];
    int64_t bytes;
};

struct work {
    void *document;                           /* owned; the texts below lie in it */
    const char *experiment, *spec, *data_dir; /* data_dir NULL: none */
    int attempt, threads, ranks;              /* threads: of each rank */
    enum isa isa;
    int has_data;
    struct work_split train, test;
    int64_t computed_ms, batch, checkpoint, checkpoint_before;
    double checkpoint_seconds; /* 0: only when interrupted */
    int lease_seconds;
};

/* Also those that a daemon of a later version adds members to. The caller releases it, also after a
 * failure. */
int work_read(struct work *work, const char *text, struct ovr_err *err);
void work_release(struct work *work);

#endif
