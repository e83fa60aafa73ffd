/* The files of a result, on their way to the daemon. */
#ifndef WORKER_RESULT_H
#define WORKER_RESULT_H

#include "server/weights.h"
#include "worker/client.h"

/* By all ranks of the team that trained: the first one writes all files below the temporary
 * directory, which it removes again, and sends each with its SHA-256. `call` has how long that may
 * be tried, of each file, and what stops it. The first one has *saved and what went wrong; errors
 * as of client_call(). */
int result_send(struct team *team, struct client *client, const struct call *call,
                enum model_kind kind, const struct train_result *result, struct saved *saved,
                struct ovr_err *err);

#endif
