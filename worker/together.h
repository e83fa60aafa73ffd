/* What the ranks of one job tell each other besides training. Each call is one that all of them
 * make; with one rank they do nothing. */
#ifndef WORKER_TOGETHER_H
#define WORKER_TOGETHER_H

#include "core/err.h"
#include "core/ranks.h"

/* The first rank's bytes are everybody's afterwards. */
void together_tell(const struct ranks *ranks, void *bytes, size_t n);

/* Whether all have a flag set. */
int together_all(const struct ranks *ranks, int flag);

/* 0 when all of them got on so far; else the code of the first that did not, and its *err, which
 * names it where there are several. */
int together_agree(const struct ranks *ranks, int rc, struct ovr_err *err);

#endif
