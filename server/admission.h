/* Admission: is a spec that reads well one that this daemon can run, and what will it take?
 *
 * Looks up the data set and pins its version, checks what depends on the data (limits, components,
 * held-out samples) and refuses what can never fit into the memory budget.
 */
#ifndef SERVER_ADMISSION_H
#define SERVER_ADMISSION_H

#include "core/train.h"
#include "server/catalog.h"
#include "server/spec.h"
#include "server/store.h"

struct admission {
    struct store *store;
    int64_t memory_bytes;
    int cores;
    double flops_per_second; /* of one core */
    const struct catalog *catalog;
    int private_by_default; /* what people post */
};

struct cost {
    struct train_estimate train;
    double core_seconds, seconds; /* with as many cores as it can use */
};

/* Priorities above 0 are for admins: else everybody would take them. */
void admit_priority(const struct spec *spec, json_t *faults);

/* After spec_read() without faults. Completes spec and document; appends to `faults`, and to
 * `warnings` what is allowed but will probably disappoint. Returns 0, OVR_INVALID when there are
 * faults, or another error. */
int admit(const struct admission *admission, struct spec *spec, json_t *document, json_t *faults,
          json_t *warnings, struct cost *cost, struct ovr_err *err);

#endif
