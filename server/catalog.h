/* The data set catalogue: uploads become files named by their content, and jobs open them again.
 *
 *   DATA_DIR/datasets/<sha256>       a split's bytes as uploaded, never changed
 *   DATA_DIR/datasets/upload-XXXXXX  an upload under way, removed at the next start
 *
 * A new upload of a split is a new version; experiments keep the version they were posted with.
 */
#ifndef SERVER_CATALOG_H
#define SERVER_CATALOG_H

#include "core/samples.h"
#include "server/spec.h"
#include "server/store.h"

struct catalog {
    char directory[512];
    struct store *store; /* borrowed */
};

int catalog_init(struct catalog *catalog, const char *data_dir, struct store *store,
                 struct ovr_err *err);

/* 1 if it is a fit name for a data set: 1..64 of a-z A-Z 0-9 . _ -, not starting with a dot. */
int catalog_name_is_valid(const char *name);

struct upload; /* one split on its way in */

/* `sha256`: what the sender says the bytes are, checked at the end; "" if he says nothing. */
int upload_open(struct upload **upload, struct catalog *catalog, const char *dataset,
                const char *split, const char *sha256, struct ovr_err *err);
/* After a failure the upload takes no more bytes, and upload_finish() reports the same error. */
int upload_write(struct upload *upload, const char *bytes, size_t n);
void upload_abort(struct upload *upload); /* frees it; NULL is fine */
/* Checks the whole, syncs it to disk and makes it the current version. Frees the upload either way.
 * *fresh: 0 if this version was already the current one. */
int upload_finish(struct upload *upload, struct dataset_split *stored, int *fresh,
                  struct ovr_err *err);

/* Both splits that a spec names or generates, cut to its limits. The caller releases both, also
 * after a failure. */
int catalog_open_samples(const struct catalog *catalog, const struct spec *spec,
                         struct samples *train, struct samples *test, struct ovr_err *err);

#endif
