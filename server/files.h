/* What everything that keeps files in the data directory needs. */
#ifndef SERVER_FILES_H
#define SERVER_FILES_H

#include "core/err.h"

/* Fails with errno's reason: OVR_FULL when the disk has no room, else OVR_IO. `what` completes
 * "cannot …". */
int files_fail(struct ovr_err *err, const char *what);

/* Makes a directory unless it is there. */
int files_make_directory(const char *path, struct ovr_err *err);

/* Removes the files whose names begin with `prefix`: what a killed daemon left half written. */
void files_remove_leftovers(const char *directory, const char *prefix);

/* The directory's entries are on disk afterwards. */
int files_sync_directory(const char *path, struct ovr_err *err);

#endif
