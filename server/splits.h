/* What a spec makes of the two splits of its data set, whoever opened them: the daemon's catalogue,
 * or a worker away from it. */
#ifndef SERVER_SPLITS_H
#define SERVER_SPLITS_H

#include "server/spec.h"

/* The test split's labels are numbered as the training split's, only the classes that the spec asks
 * for stay, and both are cut to its limits. OVR_INVALID when the two don't belong together; the
 * caller owns both, also after a failure. */
int splits_fit(const struct spec *spec, struct samples *train, struct samples *test,
               struct ovr_err *err);

#endif
