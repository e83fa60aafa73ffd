#include "worker/run.h"

#include "core/linalg.h"
#include "server/digest.h"
#include "server/splits.h"
#include "worker/together.h"

#include <stdlib.h>
#include <string.h>

int run_init(struct run *run, struct ranks *ranks, enum isa isa, int threads, struct ovr_err *err) {
    *run = (struct run){.ranks = ranks, .kernels = kernels_get(isa)};
    if (!run->kernels)
        return ovr_fail(err, OVR_INVALID, NULL,
                        "this processor does not have the instructions of %s", isa_name(isa));
    return team_new(&run->team, threads, err);
}

void run_release(struct run *run) {
    train_result_release(&run->result);
    prepared_free(run->data);
    team_free(run->team);
    *run = (struct run){.ranks = NULL};
}

int run_read_spec(struct run *run, const char *text, struct ovr_err *err) {
    int rc = spec_read_stored(text, &run->spec, err);
    const struct prepare_config *prepare = &run->spec.train.data;
    if (rc)
        return rc;
    run->progress.epochs = run->spec.train.epochs;
    if (*run->spec.init_experiment ||
        (prepare->n_preprocess && prepare->preprocess[0].kind == PREPROCESS_FITTED))
        return ovr_fail(err, OVR_INVALID, "/model/init",
                        "what starts from another experiment is trained by its daemon");
    return 0;
}

/* Every rank prepares all of the data, from the same bytes to the same bytes. */
int run_prepare(struct run *run, const char *train_path, const char *test_path,
                const _Atomic int *stop, struct ovr_err *err) {
    const struct spec *spec = &run->spec;
    struct samples train = {0}, test = {0};
    int rc = spec->generated ? sphere_generate(&train, &spec->sphere, 0, err)
                             : samples_open(&train, train_path, err);
    if (!rc)
        rc = spec->generated ? sphere_generate(&test, &spec->sphere, 1, err)
                             : samples_open(&test, test_path, err);
    if (!rc)
        rc = splits_fit(spec, &train, &test, err);
    if (!rc)
        rc = prepared_build(&run->data, &spec->train.data, spec->train.seed, &train, &test,
                            run->team, run->kernels, -1, stop, err);
    samples_release(&train);
    samples_release(&test);
    return rc;
}

/* Bits can only agree where the same instructions work on the same numbers. */
int run_join(struct run *run, struct ovr_err *err) {
    const struct ranks *ranks = run->ranks;
    const struct split *train = &run->data->train;
    const char *const names[] = {OVRD_VERSION, isa_name(run->kernels->isa), linalg_library(),
                                 linalg_kernel()};
    char mine[DIGEST_SIZE], first[DIGEST_SIZE];
    struct digest digest;
    if (ranks->size == 1)
        return 0;
    digest_init(&digest);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        digest_add(&digest, names[i], strlen(names[i]) + 1);
    digest_add(&digest, &run->spec.train.seed, sizeof run->spec.train.seed);
    digest_add(&digest, train->x, train->n * run->data->n_inputs * sizeof *train->x);
    digest_hex(&digest, mine);
    memcpy(first, mine, sizeof first);
    together_tell(ranks, first, sizeof first);
    int rc = strcmp(mine, first) == 0
                 ? 0
                 : ovr_fail(err, OVR_INVALID, NULL,
                            "it prepares other numbers than rank 0: it has another processor, "
                            "BLAS kernel, program or data; take nodes of one kind, or the "
                            "instructions baseline and OPENBLAS_CORETYPE");
    rc = together_agree(ranks, rc, err);
    if (!rc)
        team_join(run->team, run->ranks);
    return rc;
}

int run_train(struct run *run, const struct train_hooks *hooks, struct ovr_err *err) {
    return train_run(&run->spec.train, run->data, run->team, run->kernels, hooks, &run->result,
                     err);
}
