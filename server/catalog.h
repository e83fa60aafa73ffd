/* The data set catalogue: uploads become files named by their content, and jobs open them again.
 *
 *   DATA_DIR/datasets/<sha256>        a split, never changed: CIFAR-10's records as they are, all
 *                                     else as a row file (core/rowfile.h); or half a split, waiting
 *   DATA_DIR/datasets/upload-XXXXXX   an upload under way, removed at the next start
 *   DATA_DIR/summaries/<sha256>       what such a file looks like at a glance; made again if
 * missing
 *
 * A version's SHA-256 is that of the file that is kept: for CIFAR-10 that of the records (as sent,
 * or unpacked from gzip), else that of the row file, so that the same samples in another format are
 * the same version. A new upload of a split is a new version; experiments keep the version they
 * were posted with, also when the data set is removed.
 */
#ifndef SERVER_CATALOG_H
#define SERVER_CATALOG_H

#include "core/intake.h"
#include "core/summary.h"
#include "server/spec.h"
#include "server/store.h"

struct catalog {
    char directory[512], summaries[512];
    struct store *store; /* borrowed */
    uint64_t max_bytes;  /* of what an upload is unpacked to; 0: any */
};

/* Removes what a killed daemon left: uploads under way, and files that nothing names. */
int catalog_init(struct catalog *catalog, const char *data_dir, struct store *store,
                 struct ovr_err *err);

struct upload; /* one split, or half of one, on its way in; gzip is unpacked */

struct upload_request {
    const char *dataset, *split;
    struct intake_config intake;
    const char *sha256; /* what the sender says the bytes are, checked at the end; "": nothing */
};

int upload_open(struct upload **upload, struct catalog *catalog,
                const struct upload_request *request, struct ovr_err *err);
/* After a failure the upload takes no more bytes, and upload_finish() reports the same error. */
int upload_write(struct upload *upload, const char *bytes, size_t n);
void upload_abort(struct upload *upload); /* frees it; NULL is fine */

struct upload_outcome {
    struct dataset_split split; /* the version that is current now, unless something is missing */
    const char *missing;        /* "features" or "labels": what arrived waits for them; else NULL */
    struct dataset_part part;   /* what waits */
    int fresh;                  /* 0: that was so already */
};

/* Checks the whole, syncs it to disk and makes it the current version, or joins it with the other
 * half. Features wait for labels that come after them; labels belong to the features that wait,
 * else to the current version's. Frees the upload either way. */
int upload_finish(struct upload *upload, struct upload_outcome *outcome, struct ovr_err *err);

/* No split of it is current any more. OVR_CONFLICT while an experiment that has not ended uses it;
 * what a stored experiment names stays on disk. */
int catalog_remove(struct catalog *catalog, const char *dataset, struct ovr_err *err);

/* Removes the files that nothing names any more, unless a backup is being made. */
void catalog_sweep(struct catalog *catalog);

/* Both splits that a spec names or generates: the test split's labels numbered as the training
 * split's, only the classes asked for, cut to its limits. `check` compares the files with their
 * SHA-256. The caller releases both, also after a failure. */
int catalog_open_samples(const struct catalog *catalog, const struct spec *spec, int check,
                         struct samples *train, struct samples *test, struct ovr_err *err);

/* A version as it lies, unchecked; the caller releases it. */
int catalog_open_split(const struct catalog *catalog, const struct dataset_split *split,
                       struct samples *samples, struct ovr_err *err);

/* The file of a version, to read: its descriptor, or a negative code. */
int catalog_open_file(const struct catalog *catalog, const char *sha256, struct ovr_err *err);

/* The caller releases it. */
int catalog_summary(const struct catalog *catalog, const struct dataset_split *split,
                    struct summary *summary, struct ovr_err *err);

#endif
