/* A run by hand, without a daemon: from files to files (docs/ranks.md). */
#ifndef WORKER_BYHAND_H
#define WORKER_BYHAND_H

#include "core/cpu.h"
#include "core/err.h"
#include "core/ranks.h"

struct byhand {
    int threads; /* of each rank */
    enum isa isa;
    const char *spec, *out, *train, *test; /* paths; train and test NULL: the spec generates them */
};

/* By all ranks. Standard output has a line for each epoch and at last the digests. */
int byhand_run(struct ranks *ranks, const struct byhand *options, struct ovr_err *err);

#endif
