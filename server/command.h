/* Runs another program, by argv and without a shell, for at most so long.
 *
 * It gets an environment of its own (of the daemon's only PATH, HOME and what Slurm's programs need
 * to find their cluster; messages in English), a process group of its own, and no open file but the
 * three. When it ends, or its time is over, nothing of its group is left.
 */
#ifndef SERVER_COMMAND_H
#define SERVER_COMMAND_H

#include "core/err.h"

#include <stddef.h>

enum { COMMAND_COMPLAINT_SIZE = 512 };

struct command {
    const char *const *argv; /* NULL at the end; argv[0] with a slash, or looked for in PATH */
    const char *input;       /* for its standard input; NULL: none */
    int timeout_s;
    const _Atomic int *stop; /* not 0: its time is over; may be NULL */
    char *output;            /* becomes what it printed, with a NUL; NULL: that does not matter */
    size_t output_size;
    const char
        *enough; /* it is ended once it has said this on standard error; NULL: it may go on */
    /* Becomes what it said on standard error, its end where that is too long. */
    char complaint[COMMAND_COMPLAINT_SIZE];
};

/* 0: it ended with status 0. OVR_NOT_FOUND: there is no such program, or it can't be run.
 * OVR_INVALID: it ended otherwise, or said enough. OVR_TOO_LARGE: it printed more than there is
 * room for. OVR_IO: its time was over, or the system refused; then what it was to do may be done or
 * not. */
int command_run(struct command *command, struct ovr_err *err);

#endif
