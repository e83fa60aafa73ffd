#include "server/leftovers.h"

#include "server/files.h"
#include "server/people.h"

#include <string.h>

/* The state of an experiment, N_STATES when there is none; a database that does not answer counts
 * as any state, so that nothing is removed. */
static int read_state(struct store *store, const char *id, enum state *state) {
    struct experiment e = {0};
    int rc = store_get_experiment(store, id, &e, NULL);
    *state = rc == 0 ? e.state : N_STATES;
    experiment_release(&e);
    return rc == 0 || rc == OVR_NOT_FOUND;
}

static int is_known(void *context, const char *id) {
    enum state state;
    return !read_state(context, id, &state) || state != N_STATES;
}

/* Or may soon have one, of which a worker has brought some files: what runs at this moment runs on
 * a cluster. */
static int has_result(void *context, const char *id) {
    enum state state;
    return !read_state(context, id, &state) || state == STATE_SUCCEEDED || state == STATE_RUNNING;
}

/* A checkpoint on its way is somebody's too. */
static int goes_on(void *context, const char *id) {
    enum state state;
    return strncmp(id, "tmp-", 4) == 0 || !read_state(context, id, &state) || state <= STATE_PAUSED;
}

/* As the daemon itself, whoever's request it is: what she may not see is not gone. */
static int sweep(struct store *store, const char *data_dir, const char *name,
                 int (*needs)(void *context, const char *id)) {
    const struct asker *asker = asking();
    ask_as(NULL);
    int n_removed = files_sweep(data_dir, name, needs, store);
    ask_as(asker);
    return n_removed;
}

int leftovers_sweep_checkpoints(struct store *store, const char *data_dir) {
    return sweep(store, data_dir, "checkpoints", goes_on);
}

int leftovers_sweep_all(struct store *store, const char *data_dir) {
    return sweep(store, data_dir, "experiments", has_result) +
           leftovers_sweep_checkpoints(store, data_dir);
}

int leftovers_sweep(struct store *store, const char *data_dir) {
    return sweep(store, data_dir, "experiments", is_known) +
           leftovers_sweep_checkpoints(store, data_dir);
}
