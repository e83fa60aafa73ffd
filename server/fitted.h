/* The fitted preprocessing of finished experiments, read back from their tensors
 * (server/weights.h), for experiments that go on from there. */
#ifndef SERVER_FITTED_H
#define SERVER_FITTED_H

#include "core/preprocess.h"
#include "server/store.h"

/* The steps of experiment `id`, for samples of n_in values; only their shapes where data_dir is
 * NULL. OVR_NOT_FOUND: there is no such experiment. One that has not succeeded or was
 * fitted to other samples is OVR_INVALID. The caller releases *steps, also after a failure. */
int fitted_open(struct store *store, const char *data_dir, const char *id, size_t n_in,
                struct preprocess *steps, struct ovr_err *err);

#endif
