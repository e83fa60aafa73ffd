#include "worker/mpi.h"

#include <mpi.h>
#include <stdlib.h>

/* Spans of items as MPI wants them. */
struct counts {
    int n[RANKS_MAX], first[RANKS_MAX];
};

static void fill(struct counts *counts, const struct span *spans, int size) {
    for (int rank = 0; rank < size; rank++) {
        counts->n[rank] = (int)spans[rank].n;
        counts->first[rank] = (int)spans[rank].first;
    }
}

/* One item, so that what is counted stays below 2³¹ where bytes don't. */
static MPI_Datatype item_type(size_t size) {
    MPI_Datatype item;
    MPI_Type_contiguous((int)size, MPI_BYTE, &item);
    MPI_Type_commit(&item);
    return item;
}

/* The rank that alone has something, or -1. */
static int only_sender(const struct span *spans, int size) {
    int found = -1;
    for (int rank = 0; rank < size; rank++)
        if (spans[rank].n) {
            if (found >= 0)
                return -1;
            found = rank;
        }
    return found;
}

static void gather(void *context, void *array, size_t size, const struct span *spans) {
    const struct ranks *ranks = context;
    struct counts counts;
    MPI_Datatype item = item_type(size);
    int sender = only_sender(spans, ranks->size);
    if (sender >= 0) {
        MPI_Bcast((char *)array + spans[sender].first * size, (int)spans[sender].n, item, sender,
                  MPI_COMM_WORLD);
    } else {
        fill(&counts, spans, ranks->size);
        MPI_Allgatherv(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, array, counts.n, counts.first, item,
                       MPI_COMM_WORLD);
    }
    MPI_Type_free(&item);
}

static void exchange(void *context, const void *send, const struct span *sends, void *receive,
                     const struct span *receives, size_t size) {
    const struct ranks *ranks = context;
    struct counts to, from;
    MPI_Datatype item = item_type(size);
    fill(&to, sends, ranks->size);
    fill(&from, receives, ranks->size);
    MPI_Alltoallv(send, to.n, to.first, item, receive, from.n, from.first, item, MPI_COMM_WORLD);
    MPI_Type_free(&item);
}

int mpi_is_there(void) {
    return 1;
}

/* mpirun and srun tell a process that it has others. One that is alone needs no MPI, which would
 * start a daemon of its own, and fail where that is not installed. */
static int is_one_of_several(void) {
    return getenv("PMIX_RANK") || getenv("PMI_RANK");
}

int mpi_start(struct ranks *ranks, struct ovr_err *err) {
    int support = 0;
    *ranks = (struct ranks){.size = 1};
    if (!is_one_of_several())
        return 0;
    if (MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &support) != MPI_SUCCESS)
        return ovr_fail(err, OVR_IO, NULL, "MPI does not start");
    *ranks = (struct ranks){.context = ranks, .gather = gather, .exchange = exchange};
    MPI_Comm_rank(MPI_COMM_WORLD, &ranks->rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks->size);
    if (support < MPI_THREAD_FUNNELED)
        return ovr_fail(err, OVR_INVALID, NULL,
                        "this MPI does not allow a process to have threads");
    if (ranks->size > RANKS_MAX)
        return ovr_fail(err, OVR_INVALID, NULL, "there are %d ranks; start at most %d", ranks->size,
                        RANKS_MAX);
    return 0;
}

void mpi_end(void) {
    int began = 0;
    MPI_Initialized(&began);
    if (began)
        MPI_Finalize();
}

void mpi_abort(int status) {
    MPI_Abort(MPI_COMM_WORLD, status);
    exit(status);
}
