/* The gate: who sends a request, by its token, and whether she asks too often.
 *
 * Tokens that were found once are remembered, in a table of fixed size, until anything about people
 * changes; so most requests need no look into the database. As long as there are no users the gate
 * is open: everybody is an admin without a name, and nothing is limited. */
#ifndef SERVER_GATE_H
#define SERVER_GATE_H

#include "server/people.h"

struct gate;

struct gate_config {
    struct store *store;
    double requests_per_second; /* of a user, or of an address without one; 0: any */
    double failures_per_minute; /* wrong tokens from an address; 0: any */
};

int gate_new(struct gate **gate, const struct gate_config *config, struct ovr_err *err);
void gate_free(struct gate *gate); /* NULL is fine */

enum verdict {
    GATE_OPEN,     /* there are no users */
    GATE_KNOWN,    /* asker is filled */
    GATE_NO_TOKEN, /* and there are users */
    GATE_WRONG,    /* unknown, expired or revoked, or its user is disabled */
    GATE_TOO_OFTEN,
    GATE_TROUBLE, /* the store's, in err */
};

/* asker->address is what the caller knows; the rest is filled. token NULL: none was sent. After
 * GATE_TOO_OFTEN *wait_s is when to come again. An address that has tried too many wrong tokens
 * gets no more of them looked up; those that are remembered still work. */
enum verdict gate_enter(struct gate *gate, const char *token, struct asker *asker, int *wait_s,
                        struct ovr_err *err);

/* The same for a worker's token (server/attempts.h), which there may be without any user:
 * GATE_KNOWN says that it is one, perhaps of an attempt that is over. A wrong one counts like any
 * other; asker stays nobody, and nothing else is limited. */
enum verdict gate_enter_worker(struct gate *gate, const char *token, struct asker *asker,
                               int *wait_s, struct ovr_err *err);

/* Writes down which tokens were used; to be called about once a second, by one thread. */
void gate_tick(struct gate *gate);

#endif
