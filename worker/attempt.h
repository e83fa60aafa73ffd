/* One attempt at one experiment, for a daemon: from the order to the last report (docs/worker.md).
 */
#ifndef WORKER_ATTEMPT_H
#define WORKER_ATTEMPT_H

#include "core/ranks.h"

/* What the program ends with; docs/worker.md tells its users. */
enum {
    EXIT_ENDED = 0, /* the daemon knows how it ended, whichever way that was */
    EXIT_TROUBLE = 1,
    EXIT_USAGE = 2,
    EXIT_OVER = 3, /* somebody else has the experiment, or nobody */
    EXIT_LEASE = 4 /* the daemon was away for longer than the lease lasts */
};

/* By all ranks; the first reads the order. Returns what to end with, after it has said why. */
int attempt_run(struct ranks *ranks, const char *order_path);

#endif
