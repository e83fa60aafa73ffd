/* Executors: what runs experiments. The daemon has its own pool (server/pool.h) and, where the lab
 * has one, a Slurm cluster (server/cluster.h); whoever posts, cancels or looks at an experiment
 * does not have to know which.
 *
 * Each takes what is its own from the queue in the store. An experiment belongs to one executor
 * from its admission on.
 */
#ifndef SERVER_EXECUTOR_H
#define SERVER_EXECUTOR_H

#include "server/progress.h"

#include <stddef.h>

enum executor_kind { EXECUTOR_LOCAL, EXECUTOR_SLURM, N_EXECUTORS };

extern const char *const executor_names[N_EXECUTORS];

struct executor {
    void *context;
    /* Something has come into the queue, or has left it otherwise than to be run. */
    void (*submit)(void *context);
    /* Where a running experiment is. Returns 0 if it does not run here. */
    int (*poll)(void *context, const char *id, struct progress *progress);
    /* Tells who runs or holds it, if anybody does, to stop: for good, or saved. The store has the
     * new state already. */
    void (*cancel)(void *context, const char *id, enum stop why);
    /* Some ten times a second: what is over is brought to its end. NULL: it does so by itself. */
    void (*reap)(void *context);
};

/* Those that there are, the pool first. */
struct executors {
    struct executor list[N_EXECUTORS];
    size_t n;
};

void executors_submit(const struct executors *executors);
int executors_poll(const struct executors *executors, const char *id, struct progress *progress);
void executors_cancel(const struct executors *executors, const char *id, enum stop why);
void executors_reap(const struct executors *executors);

#endif
