/* The file that a worker is started with: where its daemon is, and a secret (docs/worker.md). */
#ifndef WORKER_ORDER_H
#define WORKER_ORDER_H

#include "core/err.h"

struct order {
    char url[512], token[128], ca[512]; /* ca "": the system's authorities */
};

/* Reads the file and removes it: nobody needs it any more. One that others could read, or that is
 * not the caller's own, is refused and stays. */
int order_read(const char *path, struct order *order, struct ovr_err *err);

#endif
