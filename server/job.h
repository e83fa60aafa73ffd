/* One experiment from claimed to finished: data, training, weights on disk, the final state in the
 * store. */
#ifndef SERVER_JOB_H
#define SERVER_JOB_H

#include "core/train.h"
#include "server/cache.h"
#include "server/disk.h"
#include "server/progress.h"
#include "server/store.h"

/* What all jobs of a daemon share. */
struct workplace {
    struct store *store;
    struct cache *cache; /* of prepared data */
    const struct kernels *kernels;
    const char *data_dir;
    struct disk *disk;      /* that it is on; NULL: nothing is known of it */
    int checkpoint_seconds; /* between checkpoints of a run; 0: only when it is interrupted */
};

struct job {
    struct experiment experiment; /* as claimed */
    struct spec spec;
    int threads, most_threads; /* to begin with; that it may get in time */
    _Atomic int members;       /* that its team is to have from the next epoch on; 0: as it is */
    _Atomic int stop;          /* enum stop */
    _Atomic int save_due;      /* asks for a checkpoint at the next step */
    struct train_progress progress;
    /* Between job_train() and job_end(): */
    int64_t started_ms;
    const struct prepared *data; /* of the cache; the result points to it */
    struct train_result result;
    int rc; /* 0: trained to the end */
    struct ovr_err err;
};

/* About how many floating-point operations an optimiser step has: what a team shares between two
 * meetings. 0 when the data are not there. */
double job_flops_per_step(const struct workplace *workplace, const struct spec *spec);

/* What needs cores: data, training, probe. */
void job_train(const struct workplace *workplace, struct job *job);

/* What is left to do waits for the disk mostly: brings it to its final state with all its weights
 * and figures, or back to the queue. */
void job_end(const struct workplace *workplace, struct job *job);

#endif
