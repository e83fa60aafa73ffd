/* Retention: a thread that deletes by itself what ended long ago, where the settings say so. By
 * default they don't, and there is no thread. It looks at the start, then once an hour, and deletes
 * one experiment after the other as server/prune.h does, so that nobody waits for it. What it did
 * is in the log, and in the audit as done by nobody. */
#ifndef SERVER_RETENTION_H
#define SERVER_RETENTION_H

#include "server/prune.h"

struct retention_rules { /* after so many days since its end an experiment goes; 0: never */
    int64_t days;        /* any */
    int64_t failed_days; /* those that failed or were cancelled */
};

struct retention_outcome {
    int64_t deleted, kept, bytes;
};

/* Once, as if it were `now_ms`. Ends early when *stop, which may be NULL, is not 0. */
int retention_run(const struct prune_site *site, const struct retention_rules *rules,
                  int64_t now_ms, const _Atomic int *stop, struct retention_outcome *outcome,
                  struct ovr_err *err);

struct retention;

/* The site's parts must outlive it. *retention is NULL where the rules delete nothing. */
int retention_start(struct retention **retention, const struct prune_site *site,
                    const struct retention_rules *rules, struct ovr_err *err);

/* After the experiment that it is at. NULL is fine. */
void retention_stop(struct retention *retention);

#endif
