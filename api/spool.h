/* Replies that are made before they are sent and are too big for memory: written to a file that has
 * no name, and sent from there. */
#ifndef API_SPOOL_H
#define API_SPOOL_H

#include "api/http.h"

/* A new file in the data directory that is gone once it is closed: its descriptor, or a negative
 * code. */
int spool_file(const char *data_dir, struct ovr_err *err);

/* The same as a stream. NULL: *err says why. */
FILE *spool_open(const char *data_dir, struct ovr_err *err);

/* Whether all that was written is there: OVR_FULL or OVR_IO. */
int spool_check(FILE *spool, struct ovr_err *err);

/* What was written as the body of a reply. Takes the stream over. */
struct reply *spool_reply(FILE *spool, int status, const char *content_type);

#endif
