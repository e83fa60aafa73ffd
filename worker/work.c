#include "worker/work.h"

#include "core/ranks.h"
#include "core/team.h"

#include <jansson.h>
#include <string.h>

static int read_split(json_t *data, const char *name, struct work_split *split) {
    const char *sha256;
    json_int_t bytes;
    if (json_unpack(data, "{s:{s:s, s:I}}", name, "sha256", &sha256, "bytes", &bytes) ||
        strlen(sha256) != DIGEST_SIZE - 1 || bytes <= 0 ||
        strspn(sha256, "0123456789abcdef") != DIGEST_SIZE - 1)
        return OVR_INVALID;
    memcpy(split->sha256, sha256, DIGEST_SIZE);
    split->bytes = bytes;
    return 0;
}

static int read_data(struct work *work, json_t *data) {
    work->has_data = !json_is_null(data);
    if (!work->has_data)
        return 0;
    int rc = read_split(data, "train", &work->train);
    return rc ? rc : read_split(data, "test", &work->test);
}

static int is_sound(const struct work *work) {
    return work->threads >= 1 && work->threads <= TEAM_MAX && work->ranks >= 1 &&
           work->ranks <= RANKS_MAX && work->attempt >= 1 && work->batch >= 0 &&
           work->checkpoint >= 0 && work->checkpoint_before >= 0 && work->computed_ms >= 0 &&
           work->checkpoint_seconds >= 0 && work->lease_seconds >= 1;
}

int work_read(struct work *work, const char *text, struct ovr_err *err) {
    json_error_t why;
    json_t *data = NULL, *data_dir = NULL,
           *document = json_loads(text, JSON_REJECT_DUPLICATES, &why);
    json_int_t computed_ms, batch, checkpoint, before;
    const char *isa;
    *work = (struct work){.document = document};
    if (!document)
        return ovr_fail(err, OVR_INVALID, NULL, "what is to be done is no JSON: %s", why.text);
    int rc = json_unpack_ex(
        document, &why, 0, "{s:s, s:i, s:s, s:i, s:i, s:s, s:o, s:o, s:I, s:I, s:I, s:I, s:F, s:i}",
        "experiment", &work->experiment, "attempt", &work->attempt, "spec", &work->spec, "threads",
        &work->threads, "ranks", &work->ranks, "isa", &isa, "data", &data, "data_dir", &data_dir,
        "computed_ms", &computed_ms, "batch", &batch, "checkpoint", &checkpoint,
        "checkpoint_before", &before, "checkpoint_seconds", &work->checkpoint_seconds,
        "lease_seconds", &work->lease_seconds);
    if (rc)
        return ovr_fail(err, OVR_INVALID, NULL, "what is to be done can't be read: %s", why.text);
    work->computed_ms = computed_ms;
    work->batch = batch;
    work->checkpoint = checkpoint;
    work->checkpoint_before = before;
    work->data_dir = json_string_value(data_dir);
    if (read_data(work, data) || !isa_read(isa, &work->isa) || !is_sound(work))
        return ovr_fail(err, OVR_INVALID, NULL,
                        "what is to be done makes no sense; worker and daemon have to be of the "
                        "same version");
    return 0;
}

void work_release(struct work *work) {
    json_decref(work->document);
    *work = (struct work){.document = NULL};
}
