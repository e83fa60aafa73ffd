/* Reports of workers as JSON (docs/worker.md), read strictly: what is not known there, has another
 * type, or is more than it may be, is refused. */
#ifndef API_REPORTS_H
#define API_REPORTS_H

#include "core/err.h"
#include "server/attempts.h"

#include <jansson.h>

struct block;

struct received {
    struct report report;
    struct progress progress;
    struct outcome outcome; /* that the report may point to */
    struct block *blocks;   /* what it owns; texts are the JSON's */
};

/* OVR_INVALID with a JSON pointer, or OVR_NOMEM. The caller releases *received, also after a
 * failure, and keeps the JSON until then. */
int received_read(struct received *received, json_t *json, struct ovr_err *err);
void received_release(struct received *received);

#endif
