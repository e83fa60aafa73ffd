/* One run of the core, alone or as a rank of several: from a spec and the files of its data to a
 * result. Every rank makes every call. */
#ifndef WORKER_RUN_H
#define WORKER_RUN_H

#include "core/ranks.h"
#include "core/train.h"
#include "server/spec.h"

struct run {
    struct ranks *ranks;           /* borrowed */
    const struct kernels *kernels; /* likewise */
    struct team *team;
    struct spec spec;
    struct prepared *data;
    struct train_progress progress;
    struct train_result result;
};

/* OVR_INVALID where this processor does not have the instructions. */
int run_init(struct run *run, struct ranks *ranks, enum isa isa, int threads, struct ovr_err *err);
void run_release(struct run *run);

/* Refuses what starts from another experiment, whose weights are the daemon's. */
int run_read_spec(struct run *run, const char *text, struct ovr_err *err);

/* Prepares all of the data; the paths are not used where the spec generates it. Not together yet:
 * *stop (may be NULL) asks for OVR_STOPPED. */
int run_prepare(struct run *run, const char *train, const char *test, const _Atomic int *stop,
                struct ovr_err *err);

/* Makes the ranks one team. They have to have prepared the same bytes: else OVR_INVALID. */
int run_join(struct run *run, struct ovr_err *err);

/* Trains. */
int run_train(struct run *run, const struct train_hooks *hooks, struct ovr_err *err);

#endif
