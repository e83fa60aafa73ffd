/* The parts of a report as JSON (docs/worker.md). What is not finite becomes null, reals have 17
 * digits when they are dumped. NULL without memory; the caller owns what is returned. */
#ifndef WORKER_ENCODE_H
#define WORKER_ENCODE_H

#include "server/report.h"

#include <jansson.h>

json_t *encode_epoch(int epoch, const struct epoch_facts *facts);

/* Of `threads` in all ranks together. */
json_t *encode_progress(const struct train_progress *progress, int threads);

/* succeeded or failed. */
json_t *encode_outcome(const struct outcome *outcome);

#endif
