#include "worker/together.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void together_tell(const struct ranks *ranks, void *bytes, size_t n) {
    struct span spans[RANKS_MAX] = {{0, n}};
    if (ranks->size > 1 && n)
        ranks->gather(ranks->context, bytes, 1, spans);
}

/* An item of each rank. */
static void share(const struct ranks *ranks, void *items, size_t size) {
    struct span spans[RANKS_MAX];
    for (int rank = 0; rank < ranks->size; rank++)
        spans[rank] = (struct span){(size_t)rank, 1};
    if (ranks->size > 1)
        ranks->gather(ranks->context, items, size, spans);
}

int together_all(const struct ranks *ranks, int flag) {
    int flags[RANKS_MAX], all = 1;
    flags[ranks->rank] = flag;
    share(ranks, flags, sizeof *flags);
    for (int rank = 0; rank < ranks->size; rank++)
        all &= flags[rank] != 0;
    return all;
}

int together_agree(const struct ranks *ranks, int rc, struct ovr_err *err) {
    int codes[RANKS_MAX], failed = 0;
    struct ovr_err why = {0};
    codes[ranks->rank] = rc;
    share(ranks, codes, sizeof *codes);
    while (failed < ranks->size && !codes[failed])
        failed++;
    if (ranks->size == 1 || failed == ranks->size)
        return rc;
    struct span spans[RANKS_MAX] = {0};
    spans[failed].n = 1;
    if (ranks->rank == failed)
        why = *err;
    ranks->gather(ranks->context, &why, sizeof why, spans);
    *err = (struct ovr_err){0};
    return ovr_fail(err, codes[failed], *why.field ? why.field : NULL, "rank %d: %s", failed,
                    why.text);
}
