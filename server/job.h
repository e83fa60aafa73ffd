/* One experiment from claimed to finished: data, training, weights on disk, the final state in the
 * store. */
#ifndef SERVER_JOB_H
#define SERVER_JOB_H

#include "core/train.h"
#include "server/cache.h"
#include "server/store.h"

/* What all jobs of a daemon share. */
struct workplace {
    struct store *store;
    struct cache *cache; /* of prepared data */
    const struct kernels *kernels;
    const char *data_dir;
};

/* Why a job is asked to stop; the value of its stop flag. */
enum stop { STOP_NO, STOP_CANCEL, STOP_SHUTDOWN, STOP_TIME_LIMIT };

struct job {
    struct experiment experiment; /* as claimed */
    struct spec spec;
    int threads;
    _Atomic int stop; /* enum stop */
    struct train_progress progress;
};

/* Runs it and brings it to its final state, or back to the queue at shutdown. Nothing is left to do
 * for the caller. */
void job_run(const struct workplace *workplace, struct job *job);

#endif
