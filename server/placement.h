/* Placement: where an experiment runs, and in how many ranks.
 *
 * As its spec says; where that says "auto", on the daemon's own machine, unless it does not fit
 * there or the cluster's rules want it. What starts from another experiment's weights or steps runs
 * here, where those are. The ranks that it has there are the fewest, by powers of two, with which
 * each has room.
 */
#ifndef SERVER_PLACEMENT_H
#define SERVER_PLACEMENT_H

#include "server/admission.h"

/* Fills *cost. `width`: values of a prepared row; 0: not known before it is prepared. `bound`: it
 * needs what another experiment left. Appends to `faults` what is impossible. */
void place(const struct admission *admission, const struct spec *spec,
           const struct train_data *data, size_t width, int bound, json_t *faults,
           struct cost *cost);

/* What the cluster is asked for, so that a rank has room for an estimate of so many bytes: a fifth
 * more, and the program with its libraries, which no estimate has. */
uint64_t memory_asked(uint64_t estimate);

#endif
