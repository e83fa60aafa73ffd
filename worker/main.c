/* ovr-worker: trains one experiment away from the daemon, as one process or as the ranks of an MPI
 * job, with the very same core: the weights are those that the daemon would have got.
 *
 *   ovr-worker [-t THREADS] [-i ISA] SPEC OUT [TRAIN TEST]
 *
 * SPEC is a JSON file; TRAIN and TEST are the splits of its data set as the daemon keeps them
 * (DATA_DIR/datasets/<sha256>), not needed where it generates them. OUT is made: tensors as in
 * server/weights.h. Standard output has a line for each epoch and at last the digests. */
#include "core/linalg.h"
#include "core/train.h"
#include "server/catalog.h"
#include "server/digest.h"
#include "server/weights.h"
#include "worker/mpi.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SPEC_MAX = 1 << 20 };

struct options {
    int threads;
    enum isa isa;
    const char *spec, *out, *train, *test;
};

/* One run, from the spec to the files. */
struct run {
    const struct options *options;
    struct ranks *ranks;
    const struct kernels *kernels;
    struct team *team;
    struct spec spec;
    struct prepared *data;
    struct train_progress progress;
    struct train_result result;
};

/* Returns 0 for a level that there is not. */
static int read_isa(const char *text, enum isa *isa) {
    static const enum isa all[] = {ISA_AUTO, ISA_BASELINE, ISA_AVX2, ISA_AVX512};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (strcmp(text, isa_name(all[i])) == 0) {
            *isa = all[i];
            return 1;
        }
    return 0;
}

static int read_threads(const char *text, int *threads) {
    char *end;
    long n = strtol(text, &end, 10);
    *threads = n >= 1 && n <= TEAM_MAX ? (int)n : 0;
    return *threads && !*end;
}

/* Returns 0 where they make no sense. */
static int read_options(int argc, char **argv, struct options *options) {
    int option;
    *options = (struct options){.threads = 1, .isa = ISA_AUTO};
    while ((option = getopt(argc, argv, "t:i:")) != -1)
        if (option == 't' ? !read_threads(optarg, &options->threads)
                          : option != 'i' || !read_isa(optarg, &options->isa))
            return 0;
    int n = argc - optind;
    if (n != 2 && n != 4)
        return 0;
    options->spec = argv[optind];
    options->out = argv[optind + 1];
    if (n == 4) {
        options->train = argv[optind + 2];
        options->test = argv[optind + 3];
    }
    return 1;
}

/* The whole file, with a NUL behind it; the caller frees it. */
static int read_text(const char *path, char **text, struct ovr_err *err) {
    FILE *file = fopen(path, "re");
    if (!file)
        return ovr_fail(err, OVR_IO, NULL, "cannot open %s: %s", path, strerror(errno));
    char *buffer = calloc(1, SPEC_MAX + 1);
    size_t n = buffer ? fread(buffer, 1, SPEC_MAX, file) : 0;
    int cut = !feof(file);
    fclose(file);
    *text = buffer;
    if (!buffer)
        return ovr_nomem(err, "the spec");
    return n && !cut ? 0
                     : ovr_fail(err, OVR_IO, NULL, "%s is empty or has more than %d bytes", path,
                                SPEC_MAX);
}

static int read_spec(struct run *run, struct ovr_err *err) {
    char *text = NULL;
    int rc = read_text(run->options->spec, &text, err);
    if (!rc)
        rc = spec_read_stored(text, &run->spec, err);
    free(text);
    if (rc)
        return rc;
    const struct prepare_config *prepare = &run->spec.train.data;
    if (*run->spec.init_experiment ||
        (prepare->n_preprocess && prepare->preprocess[0].kind == PREPROCESS_FITTED))
        return ovr_fail(err, OVR_INVALID, "/model/init",
                        "what starts from another experiment is trained by its daemon");
    return !run->spec.generated && !run->options->train
               ? ovr_fail(err, OVR_INVALID, "/dataset",
                          "its two splits have to be named, see usage")
               : 0;
}

/* Every rank prepares all of the data, from the same bytes to the same bytes. */
static int prepare(struct run *run, struct ovr_err *err) {
    const struct spec *spec = &run->spec;
    struct samples train = {0}, test = {0};
    int rc = spec->generated ? sphere_generate(&train, &spec->sphere, 0, err)
                             : samples_open(&train, run->options->train, err);
    if (!rc)
        rc = spec->generated ? sphere_generate(&test, &spec->sphere, 1, err)
                             : samples_open(&test, run->options->test, err);
    if (!rc)
        rc = catalog_fit_samples(spec, &train, &test, err);
    if (!rc)
        rc = prepared_build(&run->data, &spec->train.data, spec->train.seed, &train, &test,
                            run->team, run->kernels, -1, NULL, err);
    samples_release(&train);
    samples_release(&test);
    return rc;
}

/* Bits can only agree where the same instructions work on the same numbers. */
static int compare_ranks(const struct run *run, struct ovr_err *err) {
    const struct ranks *ranks = run->ranks;
    struct digest digest;
    char(*all)[DIGEST_SIZE] = calloc((size_t)ranks->size, sizeof *all);
    struct span spans[RANKS_MAX];
    const struct split *train = &run->data->train;
    const char *const names[] = {OVRD_VERSION, isa_name(run->kernels->isa), linalg_library(),
                                 linalg_kernel()};
    if (!all)
        return ovr_nomem(err, "what the ranks have to agree on");
    digest_init(&digest);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        digest_add(&digest, names[i], strlen(names[i]) + 1);
    digest_add(&digest, &run->spec.train.seed, sizeof run->spec.train.seed);
    digest_add(&digest, train->x, train->n * run->data->n_inputs * sizeof *train->x);
    digest_hex(&digest, all[ranks->rank]);
    for (int rank = 0; rank < ranks->size; rank++)
        spans[rank] = (struct span){(size_t)rank, 1};
    ranks->gather(ranks->context, all, sizeof *all, spans);
    int other = 0;
    for (int rank = ranks->size - 1; rank > 0; rank--)
        other = strcmp(all[rank], all[0]) ? rank : other;
    free(all);
    return other ? ovr_fail(err, OVR_INVALID, NULL,
                            "rank %d prepares other numbers than rank 0: it has another processor, "
                            "BLAS kernel, program or data; take nodes of one kind, or -i baseline "
                            "and OPENBLAS_CORETYPE",
                            other)
                 : 0;
}

static int say_epoch(void *context, const struct epoch_report *report, struct ovr_err *err) {
    const struct run *run = context;
    (void)err;
    if (run->ranks->rank == 0)
        printf("epoch %d loss %.9g watched %.9g zero %.6g seconds %.3f\n", report->epoch,
               report->train.loss, report->watched.loss, report->measures.zero, report->seconds);
    fflush(stdout);
    return 0;
}

static int write_result(struct run *run, struct ovr_err *err) {
    const struct train_result *result = &run->result;
    struct saved saved;
    int rc = weights_write(run->team, run->options->out, run->spec.train.kind, result, &saved, err);
    if (rc || run->ranks->rank)
        return rc;
    if (!isnan(result->accuracy))
        printf("accuracy %.9g\n", result->accuracy);
    printf("best %s\nlast %s\n", saved.best, saved.last);
    return 0;
}

static int train(struct run *run, struct ovr_err *err) {
    const struct train_hooks hooks = {
        .context = run, .progress = &run->progress, .epoch = say_epoch};
    int rc = team_new(&run->team, run->options->threads, err);
    if (!rc)
        rc = read_spec(run, err);
    if (!rc)
        rc = prepare(run, err);
    if (!rc)
        rc = compare_ranks(run, err);
    if (rc)
        return rc;
    if (run->ranks->size > 1)
        team_join(run->team, run->ranks);
    rc = train_run(&run->spec.train, run->data, run->team, run->kernels, &hooks, &run->result, err);
    if (rc)
        return rc;
    printf("rank %d steps %llu meetings %llu bytes %llu\n", run->ranks->rank,
           (unsigned long long)run->progress.step, (unsigned long long)run->ranks->meetings,
           (unsigned long long)run->ranks->bytes);
    return write_result(run, err);
}

int main(int argc, char **argv) {
    struct options options;
    struct ranks ranks = {.size = 1};
    struct ovr_err err = {0};
    if (!read_options(argc, argv, &options)) {
        fputs(
            "usage: ovr-worker [-t THREADS] [-i auto|baseline|avx2|avx512] SPEC OUT [TRAIN TEST]\n",
            stderr);
        return 2;
    }
    int rc = linalg_start(NULL, argv, &err); /* starts the program once more */
    if (rc) {
        fprintf(stderr, "ovr-worker: %s\n", err.text);
        return 1;
    }
    rc = mpi_start(&ranks, &err);
    struct run run = {.options = &options, .ranks = &ranks, .kernels = kernels_get(options.isa)};
    if (!rc && !run.kernels)
        rc = ovr_fail(&err, OVR_INVALID, NULL, "this processor does not have these instructions");
    if (!rc && ranks.rank == 0 && access(options.out, F_OK) == 0)
        rc = ovr_fail(&err, OVR_CONFLICT, NULL, "%s is there already", options.out);
    if (!rc)
        rc = train(&run, &err);
    train_result_release(&run.result);
    prepared_free(run.data);
    team_free(run.team);
    if (rc) {
        fprintf(stderr, "ovr-worker: rank %d: %s%s%s\n", ranks.rank, err.field,
                *err.field ? ": " : "", err.text);
        if (ranks.size > 1)
            mpi_abort(1);
    }
    mpi_end();
    return rc != 0;
}
