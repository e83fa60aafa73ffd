/* Slurm's own programs, each run by argv, without a shell, and for at most a few seconds: sbatch,
 * squeue, scancel. (Its library changes with every release, its REST service is often not there.)
 *
 * Nothing here knows of experiments or of the store.
 */
#ifndef SERVER_SLURM_H
#define SERVER_SLURM_H

#include "core/err.h"

#include <stddef.h>

struct slurm {
    const char *directory; /* of the programs; "": by PATH */
    const char *options;   /* more arguments of sbatch, between blanks; "": none */
    int timeout_s;
    const _Atomic int *stop; /* not 0 ends a call early, without an answer; may be NULL */
};

/* Whether its programs are there. OVR_NOT_FOUND: *err says which is not. */
int slurm_check(const struct slurm *slurm, struct ovr_err *err);

struct slurm_job {
    const char *name;
    const char *script; /* the whole text, with what is secret in it: it goes to stdin */
    int ranks, cores_per_rank;
    long long memory_bytes_per_rank;
    int minutes; /* 0: as the partition has it */
};

/* *id, of 32 bytes, becomes its number. It gets SIGTERM a minute before its time is over, ten
 * seconds for each minute where it has less than six: the process that the script becomes or, of
 * several ranks, each of those. OVR_IO: no answer, so it may have been taken: look by name before
 * another try. OVR_FULL: Slurm takes no more now. OVR_TOO_LARGE: this job wants more than the
 * cluster has. OVR_INVALID: Slurm refuses it for another reason, and would any other.
 * OVR_NOT_FOUND: there is no sbatch. *err has Slurm's words.
 */
int slurm_submit(const struct slurm *slurm, const struct slurm_job *job, char id[32],
                 struct ovr_err *err);

/* The file that a job's output goes to, on its node. */
void slurm_output(const struct slurm *slurm, const char *id, char *path, size_t size);

enum slurm_state {
    SLURM_WAITS,  /* PENDING, CONFIGURING, REQUEUED... */
    SLURM_RUNS,   /* RUNNING, COMPLETING, SUSPENDED... */
    SLURM_DONE,   /* COMPLETED */
    SLURM_FAILED, /* FAILED, OUT_OF_MEMORY, ... */
    SLURM_CANCELLED,
    SLURM_LOST, /* TIMEOUT, NODE_FAIL, PREEMPTED, BOOT_FAIL, DEADLINE */
};

struct slurm_status {
    char name[40], id[32], node[65];
    enum slurm_state state;
    char word[24];    /* Slurm's own for it */
    char reason[128]; /* Slurm's, "" for none */
};

/* Those of these names that Slurm still knows, a hundred in a call; the newest of a name. OVR_IO:
 * no answer. The caller frees *list. */
int slurm_poll(const struct slurm *slurm, const char *const *names, size_t n,
               struct slurm_status **list, size_t *n_found, struct ovr_err *err);

/* All of this user's that wait or run, and whose names begin so. The caller frees *list. */
int slurm_list(const struct slurm *slurm, const char *prefix, struct slurm_status **list,
               size_t *n_found, struct ovr_err *err);

/* Fine when it is not there any more. */
int slurm_cancel(const struct slurm *slurm, const char *const *ids, size_t n, struct ovr_err *err);

#endif
