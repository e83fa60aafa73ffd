#include "worker/mpi.h"

#include <stdlib.h>

int mpi_is_there(void) {
    return 0;
}

int mpi_start(struct ranks *ranks, struct ovr_err *err) {
    (void)err;
    *ranks = (struct ranks){.size = 1};
    return 0;
}

void mpi_end(void) {
}

void mpi_abort(int status) {
    exit(status);
}
