#include "server/catalog.h"

#include "server/digest.h"
#include "server/files.h"
#include "server/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct upload {
    struct catalog *catalog;
    char path[600];
    int fd;
    uint64_t bytes;
    struct digest digest;
    char expected[SHA256_SIZE]; /* what the sender said; "" for nothing */
    struct dataset_split split;
    struct ovr_err err; /* the first fault while bytes arrived */
};

int catalog_name_is_valid(const char *name) {
    size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");
    return n > 0 && n < DATASET_NAME_SIZE && name[n] == '\0' && name[0] != '.';
}

int catalog_init(struct catalog *catalog, const char *data_dir, struct store *store,
                 struct ovr_err *err) {
    catalog->store = store;
    return files_open_directory(catalog->directory, sizeof catalog->directory, data_dir, "datasets",
                                "upload-", err);
}

int upload_open(struct upload **out, struct catalog *catalog, const char *dataset,
                const char *split, const char *sha256, struct ovr_err *err) {
    *out = NULL;
    if (!catalog_name_is_valid(dataset))
        return ovr_fail(err, OVR_INVALID, NULL,
                        "a data set's name is 1..64 letters, digits, dots, dashes or underscores "
                        "and does not start with a dot");
    if (strcmp(split, "train") && strcmp(split, "test"))
        return ovr_fail(err, OVR_NOT_FOUND, NULL, "there is no split %.40s; upload train or test",
                        split);
    struct upload *upload = calloc(1, sizeof *upload);
    if (!upload)
        return ovr_nomem(err, "an upload");
    upload->catalog = catalog;
    snprintf(upload->path, sizeof upload->path, "%s/upload-XXXXXX", catalog->directory);
    upload->fd = mkostemp(upload->path, O_CLOEXEC);
    if (upload->fd < 0) {
        free(upload);
        return files_fail(err, "make a file for the upload");
    }
    digest_init(&upload->digest);
    snprintf(upload->expected, sizeof upload->expected, "%s", sha256);
    snprintf(upload->split.dataset, sizeof upload->split.dataset, "%s", dataset);
    snprintf(upload->split.split, sizeof upload->split.split, "%s", split);
    snprintf(upload->split.format, sizeof upload->split.format, "cifar10");
    *out = upload;
    return 0;
}

int upload_write(struct upload *upload, const char *bytes, size_t n) {
    if (upload->err.code)
        return upload->err.code;
    int rc = cifar10_check((const uint8_t *)bytes, n, upload->bytes, &upload->err);
    if (rc)
        return rc;
    digest_add(&upload->digest, bytes, n);
    upload->bytes += n;
    while (n) {
        ssize_t written = write(upload->fd, bytes, n);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return files_fail(&upload->err, "store the upload");
        bytes += written;
        n -= (size_t)written;
    }
    return 0;
}

void upload_abort(struct upload *upload) {
    if (!upload)
        return;
    close(upload->fd);
    unlink(upload->path);
    free(upload);
}

/* The file gets its final name; the directory entry is on disk afterwards. */
static int publish(struct upload *upload, struct ovr_err *err) {
    char path[700];
    snprintf(path, sizeof path, "%s/%s", upload->catalog->directory, upload->split.sha256);
    if (fchmod(upload->fd, 0444) || fsync(upload->fd) || rename(upload->path, path))
        return files_fail(err, "store the upload");
    return files_sync_directory(upload->catalog->directory, err);
}

int upload_finish(struct upload *upload, struct dataset_split *stored, int *fresh,
                  struct ovr_err *err) {
    struct dataset_split *split = &upload->split;
    int rc = upload->err.code;
    if (rc)
        ovr_fail(err, rc, NULL, "%s", upload->err.text);
    else
        rc = cifar10_check_size(upload->bytes, err);
    if (!rc) {
        digest_hex(&upload->digest, split->sha256);
        if (*upload->expected && strcmp(upload->expected, split->sha256))
            rc = ovr_fail(err, OVR_INVALID, "",
                          "the bytes that arrived have SHA-256 %s, Content-Digest says %s; send "
                          "the file again",
                          split->sha256, upload->expected);
    }
    if (!rc) {
        split->bytes = (int64_t)upload->bytes;
        split->samples = split->bytes / CIFAR10_RECORD;
        split->width = CIFAR10_RECORD - 1;
        split->classes = CIFAR10_CLASSES;
        split->created_at = now_ms();
        rc = publish(upload, err);
    }
    if (!rc)
        rc = store_put_split(upload->catalog->store, split, fresh, err);
    if (!rc) /* what is stored, which may be older than this upload */
        rc = store_get_split(upload->catalog->store, split->dataset, split->split, split->sha256,
                             stored, err);
    upload_abort(upload); /* after publish() the temporary name is gone already */
    return rc;
}

/* Opens a version and checks that its bytes are still those that were uploaded: a result names
 * them. */
static int open_split(const struct catalog *catalog, const struct spec *spec, const char *split,
                      const char *sha256, int64_t limit, struct samples *samples,
                      struct ovr_err *err) {
    char path[700], found[DIGEST_SIZE] = "";
    struct ovr_err why = {0};
    snprintf(path, sizeof path, "%s/%s", catalog->directory, sha256);
    int rc = cifar10_open(samples, path, &why);
    if (!rc)
        digest_of(samples->map, samples->map_bytes, found);
    if (rc == OVR_NOMEM)
        return ovr_nomem(err, "a data set");
    if (rc || strcmp(found, sha256))
        return ovr_fail(err, OVR_IO, NULL, "the stored %s split of data set %s %s; upload it again",
                        split, spec->dataset,
                        rc == OVR_IO ? "cannot be read" : "no longer has the SHA-256 it came with");
    if (limit > 0)
        samples->n = min_size(samples->n, (size_t)limit);
    return 0;
}

int catalog_open_samples(const struct catalog *catalog, const struct spec *spec,
                         struct samples *train, struct samples *test, struct ovr_err *err) {
    *train = *test = (struct samples){0};
    int rc;
    if (spec->generated) {
        rc = sphere_generate(train, &spec->sphere, 0, err);
        return rc ? rc : sphere_generate(test, &spec->sphere, 1, err);
    }
    rc = open_split(catalog, spec, "train", spec->train_sha256, spec->train_limit, train, err);
    return rc ? rc
              : open_split(catalog, spec, "test", spec->test_sha256, spec->test_limit, test, err);
}
