/* What everything that keeps files in the data directory needs. */
#ifndef SERVER_FILES_H
#define SERVER_FILES_H

#include "core/err.h"

#include <stddef.h>
#include <stdint.h>

/* Fails with errno's reason: OVR_FULL when the disk has no room, else OVR_IO. `what` completes
 * "cannot …". */
int files_fail(struct ovr_err *err, const char *what);

/* Makes a directory unless it is there. */
int files_make_directory(const char *path, struct ovr_err *err);

/* Puts DATA_DIR/<name> into `path` (`size` bytes), makes it, and removes the files in it whose
 * names begin with `leftover`: what a killed daemon left half written. */
int files_open_directory(char *path, size_t size, const char *data_dir, const char *name,
                         const char *leftover, struct ovr_err *err);

/* Removes a file, or a directory with all that is in it; what is not there is fine. */
int files_remove_tree(const char *path, struct ovr_err *err);

/* Removes what is in DATA_DIR/<name> and `needs` says 0 of, by its name up to the first dot.
 * Returns how many entries went. */
int files_sweep(const char *data_dir, const char *name, int (*needs)(void *context, const char *id),
                void *context);

/* Bytes of the files of DATA_DIR/<name>, not of those further below. */
int64_t files_bytes(const char *data_dir, const char *name);

/* Bytes of the files in a directory and below that have no other name, such as in a backup: what
 * becomes free with it. 0 where it is not there. */
int64_t files_tree_bytes(const char *path);

/* The directory's entries are on disk afterwards. */
int files_sync_directory(const char *path, struct ovr_err *err);

#endif
