#include "worker/byhand.h"

#include "server/weights.h"
#include "worker/run.h"
#include "worker/together.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SPEC_MAX = 1 << 20 };

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

static int prepare(struct run *run, const struct byhand *options, struct ovr_err *err) {
    char *text = NULL;
    int rc = read_text(options->spec, &text, err);
    if (!rc)
        rc = run_read_spec(run, text, err);
    free(text);
    if (!rc && !run->spec.generated && !options->train)
        rc = ovr_fail(err, OVR_INVALID, "/dataset", "its two splits have to be named, see usage");
    return rc ? rc : run_prepare(run, options->train, options->test, NULL, err);
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

/* By all ranks; the first one writes. */
static int write_result(struct run *run, const char *out, struct ovr_err *err) {
    const struct train_result *result = &run->result;
    struct saved saved;
    int rc = weights_write(run->team, out, run->spec.train.kind, result, &saved, err);
    if (rc || run->ranks->rank)
        return rc;
    if (!isnan(result->accuracy))
        printf("accuracy %.9g\n", result->accuracy);
    printf("best %s\nlast %s\n", saved.best, saved.last);
    return 0;
}

static int train(struct run *run, const struct byhand *options, struct ovr_err *err) {
    const struct train_hooks hooks = {
        .context = run, .progress = &run->progress, .epoch = say_epoch};
    int rc = together_agree(run->ranks, prepare(run, options, err), err);
    if (!rc)
        rc = run_join(run, err);
    if (!rc)
        rc = run_train(run, &hooks, err);
    if (rc)
        return rc;
    printf("rank %d steps %llu meetings %llu bytes %llu\n", run->ranks->rank,
           (unsigned long long)run->progress.step, (unsigned long long)run->ranks->meetings,
           (unsigned long long)run->ranks->bytes);
    return write_result(run, options->out, err);
}

int byhand_run(struct ranks *ranks, const struct byhand *options, struct ovr_err *err) {
    struct run run = {.ranks = ranks};
    int rc = 0;
    if (ranks->rank == 0 && access(options->out, F_OK) == 0)
        rc = ovr_fail(err, OVR_CONFLICT, NULL, "%s is there already", options->out);
    if (!rc)
        rc = run_init(&run, ranks, options->isa, options->threads, err);
    rc = together_agree(ranks, rc, err);
    if (!rc)
        rc = train(&run, options, err);
    run_release(&run);
    return rc;
}
