/* Where a running experiment is, wherever it runs. */
#ifndef SERVER_PROGRESS_H
#define SERVER_PROGRESS_H

#include <stdint.h>

/* Why one is asked to stop; the value of its stop flag. */
enum stop { STOP_NO, STOP_CANCEL, STOP_PAUSE, STOP_SHUTDOWN, STOP_TIME_LIMIT };

struct progress {
    int phase, epoch, epochs, threads; /* threads: of all ranks together */
    uint64_t step, steps;
    double eta_seconds;        /* of this phase; NaN: not known yet */
    double samples_per_second; /* NaN: not known yet */
};

/* How fast it goes and how long it will, from what it has done in the seconds since its phase
 * began. */
void progress_rate(struct progress *progress, uint64_t samples, double seconds);

#endif
