/* What workers on a cluster fetch and bring (docs/worker.md): parts of checkpoints, files of a
 * result, and the reports by which these begin to count.
 *
 *   DATA_DIR/checkpoints/<id>.work-<number>.<rank>            one rank's part of a checkpoint
 *   DATA_DIR/experiments/<id>.work-<attempt>/{best,last,units}/<name>    a result on its way
 *
 * Each file is written under another name, synced, and renamed. A result's directory gets the name
 * that an experiment's has (server/weights.h) right before the report of its end is stored; when
 * the daemon ends in between, the same report finds it there.
 */
#ifndef SERVER_WORK_H
#define SERVER_WORK_H

#include "server/attempts.h"
#include "server/disk.h"

struct work {
    struct store *store;
    const char *data_dir;
    struct disk *disk; /* that it is on; NULL: nothing is known of it */
};

/* Bytes on their way in. sha256: what the sender says they are; "": nothing. */
struct work_upload;

/* OVR_CONFLICT: this checkpoint counts already. OVR_INVALID: it is far ahead of those that do. */
int work_put_checkpoint(struct work_upload **upload, const struct work *work,
                        const struct attempt *attempt, int64_t number, int rank, const char *sha256,
                        struct ovr_err *err);

/* directory: best, last or units; name: as in server/weights.h, with .npy. OVR_TOO_LARGE: there are
 * as many files as a result may have. */
int work_put_file(struct work_upload **upload, const struct work *work,
                  const struct attempt *attempt, const char *directory, const char *name,
                  const char *sha256, struct ovr_err *err);

/* After a failure the upload takes no more bytes, and work_finish() reports the same error. */
int work_write(struct work_upload *upload, const char *bytes, size_t n);
/* It has its name when this returns, unless the attempt is over: OVR_CONFLICT. Frees the upload. */
int work_finish(struct work_upload *upload, struct ovr_err *err);
void work_abort(struct work_upload *upload); /* frees it; NULL is fine */

/* A part of a checkpoint to read: its descriptor, or a negative code. */
int work_open_checkpoint(const struct work *work, const struct attempt *attempt, int64_t number,
                         int rank, struct ovr_err *err);

/* store_take_report(), with what belongs to it on disk: all parts of a checkpoint have to be there,
 * and of a result all files that it lists and no others (OVR_INVALID); the verdict of a replay is
 * added; what is needed no more is removed. e is the attempt's. */
int work_take_report(const struct work *work, struct attempt *attempt, const struct experiment *e,
                     const struct report *report, int *repeated, struct ovr_err *err);

/* For an experiment whose attempt is over: removes the files of results that were on their way and,
 * where the experiment has ended, its checkpoints and a result that was named but not stored. */
void work_forget(const struct work *work, const char *id);

#endif
