/* Ranks that are processes of an MPI job: worker/mpi.c is the one owner of MPI, and worker/alone.c
 * stands in its place where it is not there. Without mpirun or srun there is one rank. An error of
 * MPI ends all of them. */
#ifndef WORKER_MPI_H
#define WORKER_MPI_H

#include "core/err.h"
#include "core/ranks.h"

/* Whether there could be more than one rank. */
int mpi_is_there(void);

/* First of all, by the only thread there is, and by the same one all of ranks' calls. */
int mpi_start(struct ranks *ranks, struct ovr_err *err);

/* The last call of a rank whose others come here as well. */
void mpi_end(void);

/* Ends all ranks: one that can't go on would be waited for for ever. */
void mpi_abort(int status) __attribute__((noreturn));

#endif
