/* Sweeps: one document becomes many experiments.
 *
 *   base      a spec; what the members below say is put into copies of it
 *   points    specs to merge into it (spec_patch), one for each point
 *   grid      pointer → values; every combination of them
 *   zip       pointer → values; the first of each, the second of each, …
 *   random    so many points whose values are drawn, by seed, point and parameter alone
 *   chain     as points, but each starts from the weights of the one before
 *   target_sparsity   a search for the value (of λ) that makes a code so sparse
 *
 * points, grid, zip and random multiply, in this order, the last one varying fastest; a chain and a
 * search stand alone. Each point runs `repeats` times with seeds training.seed, + 1, ….
 *
 * All points are there from the start but those of a search: it posts its two ends, and each next
 * one when those before have ended. What comes next follows from what is stored alone, so a search
 * goes on after a crash as if there had been none.
 */
#ifndef SERVER_SWEEPS_H
#define SERVER_SWEEPS_H

#include "server/admission.h"

enum { SWEEP_MAX_EXPERIMENTS = 1000, SWEEP_MAX_REPEATS = 20, SWEEP_MAX_SEARCH = 50 };

struct sweep_plan {
    struct new_sweep sweep;         /* ready for the store but for the key; points into the plan */
    size_t n_points, n_experiments; /* at most, where it is a search */
    size_t on_cluster;              /* of the experiments */
    /* Memory, parameters, FLOP an epoch, ranks: of the largest; seconds: of all; executor: Slurm,
     * where any goes there. */
    struct cost cost;
    struct sweep_plan_memory *memory;
};

/* Reads a document and checks every point as if it had been posted alone. Appends to faults and
 * warnings; their pointers lead into the document. Returns 0, OVR_INVALID when there are faults, or
 * another error. The plan is to be released in any case. */
int sweep_plan_read(const json_t *document, const struct admission *admission,
                    struct sweep_plan *plan, json_t *faults, json_t *warnings, struct ovr_err *err);
void sweep_plan_release(struct sweep_plan *plan);

/* Posts the next points of all searches that wait for them, or ends those that have what they
 * wanted. To be called at start and whenever an experiment has ended; does nothing twice, whoever
 * calls it how often. *added: experiments that came into the queue. */
int sweeps_advance(struct store *store, int *added, struct ovr_err *err);

/* The search for a sparsity: server/search.c */

struct sweep_target {
    char pointer[256];
    double near_zero, tolerance, min, max;
    int points; /* at most */
};

/* From what the store keeps as a sweep's `target`. */
int sweep_target_read(const char *text, struct sweep_target *target, struct ovr_err *err);

struct sweep_sample {
    int point;
    double value, near_zero, accuracy; /* means over the repeats; NaN: no result */
};

enum sweep_outcome {
    SWEEP_SEARCHING, /* *next is the value to try */
    SWEEP_REACHED,   /* the nearest is within the tolerance */
    SWEEP_OUTSIDE,   /* between min and max nothing is so sparse, or so dense */
    SWEEP_USED_UP,   /* no points left, or no value between the two that it lies between */
    SWEEP_NO_RESULT, /* no point has succeeded */
};

/* Sorts the samples by value and decides: first the two ends, then between the two neighbours that
 * the wanted sparsity lies between, in turn by secant and by halves of log(value). A point without
 * a result is a bound that the search keeps away from. *nearest: index of the best, n where there
 * is none. */
enum sweep_outcome sweep_target_next(const struct sweep_target *target,
                                     struct sweep_sample *samples, size_t n, size_t *nearest,
                                     double *next);

#endif
