/* Files below DATA_DIR/experiments and checkpoints that no experiment needs: a killed daemon, a
 * backup under way, or a database that is older than its files left them. */
#ifndef SERVER_LEFTOVERS_H
#define SERVER_LEFTOVERS_H

#include "server/store.h"

/* While nothing runs here, at start: keeps the results of what has succeeded and the checkpoints of
 * what will go on. Returns how many files and directories went. */
int leftovers_sweep_all(struct store *store, const char *data_dir);

/* At any time: what belongs to no experiment of the store, and checkpoints of what has ended. */
int leftovers_sweep(struct store *store, const char *data_dir);

/* Of these only the checkpoints: somebody cancelled what was paused, or waited to go on. */
int leftovers_sweep_checkpoints(struct store *store, const char *data_dir);

#endif
