#include "server/executor.h"

const char *const executor_names[N_EXECUTORS] = {"local", "slurm"};

void executors_submit(const struct executors *executors) {
    for (size_t i = 0; i < executors->n; i++)
        executors->list[i].submit(executors->list[i].context);
}

int executors_poll(const struct executors *executors, const char *id, struct progress *progress) {
    for (size_t i = 0; i < executors->n; i++)
        if (executors->list[i].poll(executors->list[i].context, id, progress))
            return 1;
    return 0;
}

void executors_cancel(const struct executors *executors, const char *id, enum stop why) {
    for (size_t i = 0; i < executors->n; i++)
        executors->list[i].cancel(executors->list[i].context, id, why);
}

void executors_reap(const struct executors *executors) {
    for (size_t i = 0; i < executors->n; i++)
        if (executors->list[i].reap)
            executors->list[i].reap(executors->list[i].context);
}
