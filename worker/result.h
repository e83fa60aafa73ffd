/* The files of a result, on their way to the daemon. */
#ifndef WORKER_RESULT_H
#define WORKER_RESULT_H

#include "server/weights.h"
#include "worker/client.h"

/* Writes all files below the temporary directory, lists the tensors, and sends each file with its
 * SHA-256. `call` has how long that may be tried, from a file's first try on, and what stops it.
 * Errors as of client_call(). */
int result_send(struct client *client, const struct call *call, enum model_kind kind,
                const struct train_result *result, struct tensor tensors[MAX_TENSORS],
                size_t *n_tensors, struct ovr_err *err);

#endif
