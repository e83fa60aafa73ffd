#include "worker/mpi.h"

#include <limits.h>
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

/* Some spans of an array as one message. */
struct message {
    char *begin;
    int n;
    MPI_Datatype type;
};

static size_t count_items(const struct span *spans, size_t n) {
    size_t items = 0;
    for (size_t i = 0; i < n; i++)
        items += spans[i].n;
    return items;
}

/* One span is sent from where it is, without a type to be made. */
static struct message message(char *array, size_t size, const struct span *spans, size_t n) {
    int lengths[SPANS_MAX];
    MPI_Aint places[SPANS_MAX];
    MPI_Datatype type, item;
    if (n == 0)
        return (struct message){array, 0, MPI_BYTE};
    if (n == 1 && spans->n <= INT_MAX / size)
        return (struct message){array + spans->first * size, (int)(spans->n * size), MPI_BYTE};
    item = item_type(size);
    for (size_t i = 0; i < n; i++) {
        lengths[i] = (int)spans[i].n;
        places[i] = (MPI_Aint)(spans[i].first * size);
    }
    MPI_Type_create_hindexed((int)n, lengths, places, item, &type);
    MPI_Type_commit(&type);
    MPI_Type_free(&item);
    return (struct message){array, 1, type};
}

static void release(struct message *message) {
    if (message->type != MPI_BYTE)
        MPI_Type_free(&message->type);
}

static void swap(void *context, int partner, void *array, size_t size, const struct span *sends,
                 size_t n_sends, const struct span *receives, size_t n_receives) {
    (void)context;
    const int gives = count_items(sends, n_sends) > 0,
              takes = count_items(receives, n_receives) > 0;
    struct message out = message(array, size, sends, n_sends);
    struct message in = message(array, size, receives, n_receives);
    if (gives && takes)
        MPI_Sendrecv(out.begin, out.n, out.type, partner, 0, in.begin, in.n, in.type, partner, 0,
                     MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    else if (gives)
        MPI_Send(out.begin, out.n, out.type, partner, 0, MPI_COMM_WORLD);
    else if (takes)
        MPI_Recv(in.begin, in.n, in.type, partner, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    release(&out);
    release(&in);
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
    *ranks = (struct ranks){.context = ranks, .gather = gather, .exchange = exchange, .swap = swap};
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
