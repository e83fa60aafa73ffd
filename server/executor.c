#include "server/executor.h"

const char *const executor_names[N_EXECUTORS] = {"local", "slurm"};
