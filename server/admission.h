/* Admission: is a spec that reads well one that this daemon can run, and what will it take?
 *
 * Looks up the data set and pins its version, checks what depends on the data (limits, components,
 * held-out samples), chooses where it runs and in how many ranks, and refuses what can never fit
 * there into memory.
 */
#ifndef SERVER_ADMISSION_H
#define SERVER_ADMISSION_H

#include "core/train.h"
#include "server/catalog.h"
#include "server/spec.h"
#include "server/store.h"

/* The cluster that the daemon may send experiments to. */
struct cluster_rules {
    int there;               /* 0: there is none */
    int cores;               /* of a rank, where the spec leaves it open */
    int64_t rank_bytes;      /* memory that a rank may have; 0: any */
    int64_t above_bytes;     /* what needs more here goes there; 0: what does not fit here */
    double above_core_hours; /* what computes longer goes there; 0: nothing does */
};

struct admission {
    struct store *store;
    int64_t memory_bytes;
    int cores;
    double flops_per_second; /* of one core */
    const struct catalog *catalog;
    int private_by_default; /* what people post */
    struct cluster_rules cluster;
};

struct cost {
    enum executor_kind executor;
    int ranks;
    struct train_estimate train;  /* memory: of a rank; the rest: of all together */
    double core_seconds, seconds; /* with as many cores as it can use */
};

/* Priorities above 0 are for admins: else everybody would take them. */
void admit_priority(const struct spec *spec, json_t *faults);

/* After spec_read() without faults. `follows`: it will start from the weights of one that is not
 * there yet. Completes spec and document; appends to `faults`, and to
 * `warnings` what is allowed but will probably disappoint. Returns 0, OVR_INVALID when there are
 * faults, or another error. */
int admit(const struct admission *admission, struct spec *spec, json_t *document, int follows,
          json_t *faults, json_t *warnings, struct cost *cost, struct ovr_err *err);

#endif
