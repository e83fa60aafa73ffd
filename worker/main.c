/* ovr-worker: trains one experiment away from the daemon, as one process or as the ranks of an MPI
 * job, with the very same core: the weights are those that the daemon would have got.
 *
 *   ovr-worker ORDER                                         for a daemon (docs/worker.md)
 *   ovr-worker [-t THREADS] [-i ISA] SPEC OUT [TRAIN TEST]   by hand (docs/ranks.md)
 *   ovr-worker --help, --manual, --version */
#include "core/linalg.h"
#include "core/team.h"
#include "worker/attempt.h"
#include "worker/byhand.h"
#include "worker/mpi.h"
#include "worker/usage.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int read_threads(const char *text, int *threads) {
    char *end;
    long n = strtol(text, &end, 10);
    *threads = n >= 1 && n <= TEAM_MAX ? (int)n : 0;
    return *threads && !*end;
}

/* *order is NULL where it is to be done by hand. Returns 0 where they make no sense. */
static int read_options(int argc, char **argv, const char **order, struct byhand *options) {
    int option;
    *options = (struct byhand){.threads = 1, .isa = ISA_AUTO};
    while ((option = getopt(argc, argv, "t:i:")) != -1)
        if (option == 't' ? !read_threads(optarg, &options->threads)
                          : option != 'i' || !isa_read(optarg, &options->isa))
            return 0;
    int n = argc - optind;
    *order = n == 1 && argc == 2 ? argv[1] : NULL;
    if (n == 2 || n == 4) {
        options->spec = argv[optind];
        options->out = argv[optind + 1];
    }
    if (n == 4) {
        options->train = argv[optind + 2];
        options->test = argv[optind + 3];
    }
    return *order || options->spec;
}

static int run_by_hand(struct ranks *ranks, const struct byhand *options) {
    struct ovr_err err = {0};
    int rc = byhand_run(ranks, options, &err);
    if (!rc)
        return 0;
    fprintf(stderr, "ovr-worker: rank %d: %s%s%s\n", ranks->rank, err.field, *err.field ? ": " : "",
            err.text);
    if (ranks->size > 1)
        mpi_abort(EXIT_TROUBLE);
    return EXIT_TROUBLE;
}

/* Whether all that was wanted is a text about the program. */
static int tell_about_it(int argc, char **argv) {
    static const struct {
        const char *option;
        void (*tell)(FILE *out);
    } texts[] = {{"--help", usage_help}, {"--manual", usage_manual}, {"--version", usage_version}};
    for (size_t i = 0; argc == 2 && i < sizeof texts / sizeof *texts; i++)
        if (strcmp(argv[1], texts[i].option) == 0) {
            texts[i].tell(stdout);
            return 1;
        }
    return 0;
}

int main(int argc, char **argv) {
    struct byhand options;
    struct ranks ranks = {.size = 1};
    struct ovr_err err = {0};
    const char *order;
    int rc = linalg_start(NULL, argv, &err); /* starts the program once more */
    if (!rc && tell_about_it(argc, argv))
        return EXIT_ENDED;
    if (!rc && !read_options(argc, argv, &order, &options)) {
        usage_help(stderr);
        return EXIT_USAGE;
    }
    signal(SIGPIPE, SIG_IGN);
    if (!rc)
        rc = mpi_start(&ranks, &err);
    if (rc) {
        fprintf(stderr, "ovr-worker: %s\n", err.text);
        return EXIT_TROUBLE;
    }
    int status = order ? attempt_run(&ranks, order) : run_by_hand(&ranks, &options);
    mpi_end();
    return status;
}
