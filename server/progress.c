#include "server/progress.h"

#include "core/train.h"

#include <math.h>

void progress_rate(struct progress *p, uint64_t samples, double seconds) {
    double done = 0;
    p->eta_seconds = p->samples_per_second = NAN;
    if (p->phase == PHASE_TRAINING && p->steps)
        done = (double)p->step / (double)p->steps;
    else if (p->phase == PHASE_PROBING && p->epochs)
        done = (double)p->epoch / p->epochs;
    if (done > 0 && seconds > 0)
        p->eta_seconds = seconds * (1 - done) / done;
    if (p->phase == PHASE_TRAINING && samples && seconds > 0)
        p->samples_per_second = (double)samples / seconds;
}
