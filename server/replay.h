/* The verdict of a replay: an experiment with the very spec of an earlier one, compared with it. */
#ifndef SERVER_REPLAY_H
#define SERVER_REPLAY_H

#include "server/attempts.h"
#include "server/store.h"

struct verdict {
    char text[48];         /* "match", or "diverged at epoch 3" */
    char differences[300]; /* of the circumstances: "isa: avx512 then, avx2 now; …"; "": none */
};

/* A result that is not stored yet. */
struct fresh_result {
    const struct experiment *experiment;
    const struct figure *facts; /* its provenance */
    size_t n_facts;
    const struct report_epoch *epochs; /* those that are not stored yet either */
    size_t n_epochs;
};

enum { REPLAY_FIGURES = 2 };

/* Of a replay: compares the digests of every epoch and of the final weights with those of the
 * experiment whose replay it is. *figures, of which there are *n, are to be added to the result;
 * they point into *verdict. Of any other experiment: *n = 0. */
int replay_judge(struct store *store, const struct fresh_result *fresh, struct verdict *verdict,
                 struct figure figures[REPLAY_FIGURES], size_t *n, struct ovr_err *err);

#endif
