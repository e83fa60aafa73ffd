/* A copy of everything while the daemon works: DATA_DIR/backups/<time> is a data directory of its
 * own, with the database of one moment and hard links to the files, which never change. */
#ifndef SERVER_BACKUP_H
#define SERVER_BACKUP_H

#include "server/store.h"

enum { BACKUP_NAME_SIZE = 24 };

/* Makes one, whole on disk or not at all; *name is its directory's. OVR_CONFLICT while another is
 * being made. */
int backup_make(struct store *store, const char *data_dir, char name[BACKUP_NAME_SIZE],
                struct ovr_err *err);

/* Around the removal of what a backup may be about to link; waits for no backup: 0 while one is
 * being made. */
int backup_hold_off(void);
void backup_let_go(void);

#endif
