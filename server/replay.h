/* The verdict of a replay: an experiment with the very spec of an earlier one, compared with it. */
#ifndef SERVER_REPLAY_H
#define SERVER_REPLAY_H

#include "server/store.h"

struct verdict {
    char text[48];         /* "match", or "diverged at epoch 3" */
    char differences[300]; /* of the circumstances: "isa: avx512 then, avx2 now; …"; "": none */
};

/* Compares the digests of every epoch and of the final weights with those of `original`, an id.
 * `facts` are the new one's provenance; its epochs must be written. */
int replay_compare(struct store *store, int64_t seq, const char *original,
                   const struct figure *facts, size_t n_facts, struct verdict *verdict,
                   struct ovr_err *err);

#endif
