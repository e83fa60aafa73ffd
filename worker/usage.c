#include "worker/usage.h"

#include "core/linalg.h"
#include "worker/attempt.h"
#include "worker/mpi.h"

/* Of the command line and of what it ends with: name and help, as docs/worker.md has them. */
struct row {
    const char *name, *help;
};

static const struct row arguments[] = {
    {"ORDER", "a file of mode 600 with lines url=, token= and ca=; it is removed once it is read"},
    {"SPEC", "an experiment as it is posted to ovrd, in JSON"},
    {"OUT", "a directory that is not there yet, for the weights"},
    {"TRAIN TEST", "the splits as ovrd keeps them, DATA_DIR/datasets/SHA256; not needed where the "
                   "spec generates its data"},
    {"-t THREADS", "of each rank, 1 by default"},
    {"-i ISA", "auto, baseline, avx2 or avx512; ranks on different processors need the same"},
    {"--help", "this text"},
    {"--manual", "the same as a manual page: man -l <(ovr-worker --manual)"},
    {"--version", "program, BLAS and MPI"},
};

static const struct {
    int status;
    const char *help;
} ends[] = {
    {EXIT_ENDED, "the daemon knows how the experiment ended or why it stopped; by hand: it ended"},
    {EXIT_TROUBLE, "it could not begin, or the daemon refused what it said"},
    {EXIT_USAGE, "arguments that make no sense"},
    {EXIT_OVER, "the attempt is over: nothing more was sent"},
    {EXIT_LEASE, "the daemon did not answer for as long as the lease lasts"},
};

enum { N_ARGUMENTS = sizeof arguments / sizeof *arguments, N_ENDS = sizeof ends / sizeof *ends };

void usage_help(FILE *out) {
    fprintf(out,
            "ovr-worker %s: trains one experiment of an ovrd away from it\n\n"
            "usage: ovr-worker ORDER                                         for a daemon\n"
            "       ovr-worker [-t THREADS] [-i ISA] SPEC OUT [TRAIN TEST]   by hand\n\n",
            OVRD_VERSION);
    for (int i = 0; i < N_ARGUMENTS; i++)
        fprintf(out, "  %-12s %s\n", arguments[i].name, arguments[i].help);
    fprintf(out, "\nIt ends with\n");
    for (int i = 0; i < N_ENDS; i++)
        fprintf(out, "  %-12d %s\n", ends[i].status, ends[i].help);
}

void usage_version(FILE *out) {
    fprintf(out, "ovr-worker %s, %s, kernel %s, %s\n", OVRD_VERSION, linalg_library(),
            linalg_kernel(), mpi_is_there() ? "with MPI" : "without MPI: always one rank");
}

static void put_text(FILE *out, const char *text) {
    for (; *text; text++)
        fprintf(out, *text == '-' ? "\\-" : "%c", *text);
}

void usage_manual(FILE *out) {
    fprintf(out,
            ".TH OVR\\-WORKER 1 \"\" \"ovrd %s\" \"User Commands\"\n.SH NAME\n"
            "ovr\\-worker \\- trains one experiment of an ovrd away from it\n.SH SYNOPSIS\n"
            ".B ovr\\-worker\n.I ORDER\n.br\n"
            ".B ovr\\-worker\n[\\fB\\-t\\fR \\fITHREADS\\fR] [\\fB\\-i\\fR \\fIISA\\fR] "
            "\\fISPEC OUT\\fR [\\fITRAIN TEST\\fR]\n.SH DESCRIPTION\n"
            "With one argument it works for a daemon: it asks it over HTTP what is to be done, and "
            "reports metrics, checkpoints and weights there.\n.BR ovrd (8)\nstarts it so on the "
            "nodes of a Slurm cluster; nobody has to call it. SIGTERM makes a checkpoint, from "
            "which the next attempt goes on.\n.PP\n"
            "With two or four it trains from files to files, without a daemon.\n.PP\n"
            "Started by mpirun or srun \\-\\-mpi=pmix, its processes share one hidden layer; the "
            "weights are those of one process, bit for bit.\n.SH OPTIONS\n",
            OVRD_VERSION);
    for (int i = 0; i < N_ARGUMENTS; i++) {
        fprintf(out, ".TP\n.B ");
        put_text(out, arguments[i].name);
        fprintf(out, "\n");
        put_text(out, arguments[i].help);
        fprintf(out, "\n");
    }
    fprintf(out, ".SH ENVIRONMENT\n.TP\n.B TMPDIR\nwhere data and results lie while it runs "
                 "(/tmp)\n.TP\n.B OPENBLAS_CORETYPE\nthe kernel of OpenBLAS, where it is not to "
                 "choose itself\n.SH EXIT STATUS\n");
    for (int i = 0; i < N_ENDS; i++)
        fprintf(out, ".TP\n.B %d\n%s\n", ends[i].status, ends[i].help);
    fprintf(out, ".SH EXAMPLES\n.nf\n"
                 "mpirun \\-\\-bind\\-to none \\-n 2 ovr\\-worker \\-t 4 spec.json out\n.fi\n"
                 ".SH SEE ALSO\n.BR ovrd (8),\n.BR ovrctl (1)\n");
}
