/* Running experiments, and what they measured that is not in the database yet: an epoch is taken
 * here in no time and written a little later, with others in one transaction.
 *
 * A run is there from the claim of its experiment to the end, so it also says whether an experiment
 * still runs. Runs come and go, and epochs leave, only by whoever holds the store's writer; epochs
 * are added by anybody at any time.
 */
#ifndef SERVER_RUNS_H
#define SERVER_RUNS_H

#include "server/executor.h"
#include "server/scheduler.h"
#include "server/store.h"

#include <pthread.h>

struct epoch {
    struct epoch *next;
    int number;
    struct epoch_histogram *histograms; /* these and what they point to are in the same block */
    size_t n_histograms, n_figures;
    struct figure figures[];
};

struct run {
    struct run *next;
    int64_t seq;
    struct epoch *first, *last;
    size_t n_epochs, n_taken;
    struct ovr_err fault; /* of the last attempt to write them; code 0: none */
    /* Its cores and what they used that is not in the database yet. */
    int64_t owner, memory_bytes, started_ms, charged_ms, written_ms; /* memory: of this machine */
    int cores;
    enum executor_kind executor;
    struct use use;
    double writing; /* of the use, in the transaction at hand */
};

struct runs {
    pthread_mutex_t lock;
    struct run *list;
};

void runs_init(struct runs *runs);
void runs_release(struct runs *runs);

/* For the holder of the writer */

void runs_add(struct runs *runs, struct run *run); /* takes over what calloc() made */
void runs_end(struct runs *runs, int64_t seq);     /* drops its epochs */
void runs_end_all(struct runs *runs);
/* NULL: it does not run. Also for the holder of the lock alone, as long as he holds it. */
struct run *runs_find(const struct runs *runs, int64_t seq);
int runs_have_epochs(struct runs *runs);

/* How many epochs there are to write, from run->first on. */
size_t run_take(struct runs *runs, struct run *run);
/* After an attempt to write what was taken from all runs. Without a fault it is dropped. */
void runs_settle(struct runs *runs, const struct ovr_err *fault);

/* What its cores have used, as of now; it counts as written when the transaction at hand is
 * stored. */
double run_take_use(struct runs *runs, struct run *run, int64_t now_ms, double half_life_ms);
void runs_settle_use(struct runs *runs, int stored);

/* For everybody */

/* From now on it has so many cores. Nothing happens when it does not run. */
void runs_set_cores(struct runs *runs, int64_t seq, int cores, int64_t now_ms, double half_life_ms);

/* Adds a copy. Returns how many epochs now wait, OVR_CONFLICT when the experiment does not run, or
 * the fault of the run. */
int runs_add_epoch(struct runs *runs, int64_t seq, int number, const struct figure *figures,
                   size_t n_figures, const struct epoch_histogram *histograms, size_t n_histograms,
                   struct ovr_err *err);

#endif
