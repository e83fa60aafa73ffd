/* Deleting experiments with all that belongs to them: one, or what ended long ago.
 *
 * What has the tag `keep` is passed over unless it is asked for by that tag. What something needs
 * that has not ended stays as well, and is reported as kept.
 *
 * Bytes are those of the files below experiments/ that nothing else holds: what a
 * backup holds too becomes free with the backup. Rows of the database leave room that the database
 * uses again, and are not counted.
 */
#ifndef SERVER_PRUNE_H
#define SERVER_PRUNE_H

#include "server/catalog.h"
#include "server/store.h"

#define KEEP_TAG "keep"

/* Where experiments are; all borrowed. */
struct prune_site {
    struct store *store;
    struct catalog *catalog; /* versions of data sets that only they needed go too */
    const char *data_dir;
};

/* OVR_CONFLICT unless it has ended and nothing needs it; *bytes is what became free. */
int prune_one(const struct prune_site *site, const char *id, int64_t *bytes, struct ovr_err *err);

struct prune_rules {
    int64_t ended_before;            /* ms */
    const char *state, *tag, *owner; /* NULL: any */
    int dry;                         /* 1: say what would go, delete nothing */
    const _Atomic int *stop;         /* not 0: no further one; may be NULL */
};

/* What became of one. */
struct pruned {
    const struct experiment *experiment;
    int64_t bytes;
    const char *kept; /* why it could not be deleted; NULL: it is gone, or would go */
};

/* The last one looked at: by the time of its end, then seq; {0}: none yet. */
struct prune_place {
    int64_t ended, seq;
};

/* Looks at the next `most` by the time of their end, from behind *place on, which it moves. give()
 * is told of each that went or was kept, copies what it wants, and returns 0 or a negative code,
 * which ends it. *more: 0 when there are no others that ended before the rules' time. */
int prune_page(const struct prune_site *site, const struct prune_rules *rules, int most,
               struct prune_place *place, int *more,
               int (*give)(void *context, const struct pruned *pruned), void *context,
               struct ovr_err *err);

#endif
