/* A copy of everything while the daemon works: DATA_DIR/backups/<time> is a data directory of its
 * own, with the database of one moment and hard links to the files, which never change. */
#ifndef SERVER_BACKUP_H
#define SERVER_BACKUP_H

#include "server/store.h"

struct backup_job {
    struct store *store;
    const char *data_dir;
    int keep;                /* so many newest backups stay; 0: all */
    const _Atomic int *stop; /* not 0: give up soon; may be NULL */
};

struct backup_outcome {
    char name[24]; /* of its directory */
    int removed;   /* older ones */
};

/* Makes one, whole on disk or not at all. OVR_CONFLICT while another is being made, or when
 * there is one of this second: then nothing was held off. */
int backup_make(const struct backup_job *job, struct backup_outcome *outcome, struct ovr_err *err);

/* Around the removal of files that a backup may be about to link. 0 while one is being made: then
 * they stay, and whoever made it removes what nothing names any more afterwards. */
int backup_hold_off(void);
void backup_let_go(void);

#endif
