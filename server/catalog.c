#include "server/catalog.h"

#include "server/backup.h"
#include "server/digest.h"
#include "server/files.h"
#include "server/gunzip.h"
#include "server/log.h"
#include "server/splits.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Long enough for the directory and a file's name. */
typedef char catalog_path[600];

/* A file that has no name yet, but for a temporary one. */
struct draft {
    catalog_path path;
    int fd;
};

struct upload {
    struct catalog *catalog;
    struct draft draft, labels;
    struct gunzip *gunzip;
    struct intake *intake;
    enum intake_format format;
    enum intake_part part;
    uint64_t unpacked;
    struct digest digest;       /* of the bytes as they come */
    char expected[SHA256_SIZE]; /* what the sender said; "" for nothing */
    char dataset[DATASET_NAME_SIZE], split[6];
    struct ovr_err err; /* the first fault while bytes arrived */
};

/* Held while files get their names and what names them is stored, or files that nothing names are
 * looked for. */
static pthread_mutex_t publishing = PTHREAD_MUTEX_INITIALIZER;

static const char *const part_names[] = {
    [INTAKE_FEATURES] = "features", [INTAKE_LABELS] = "labels"};

static void make_path(const struct catalog *catalog, const char *name, catalog_path path) {
    snprintf(path, sizeof(catalog_path), "%s/%s", catalog->directory, name);
}

/* Removes files that neither a version nor a waiting part names. */
static void remove_unnamed(const struct catalog *catalog) {
    if (!backup_hold_off())
        return;
    DIR *dir = opendir(catalog->directory);
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        int stored = 1;
        if (strlen(entry->d_name) == SHA256_SIZE - 1 &&
            store_has_file(catalog->store, entry->d_name, &stored, NULL) == 0 && !stored) {
            catalog_path summary;
            snprintf(summary, sizeof summary, "%s/%.64s", catalog->summaries, entry->d_name);
            unlinkat(dirfd(dir), entry->d_name, 0);
            unlink(summary);
        }
    }
    if (dir)
        closedir(dir);
    backup_let_go();
}

void catalog_sweep(struct catalog *catalog) {
    pthread_mutex_lock(&publishing);
    remove_unnamed(catalog);
    pthread_mutex_unlock(&publishing);
}

int catalog_init(struct catalog *catalog, const char *data_dir, struct store *store,
                 struct ovr_err *err) {
    *catalog = (struct catalog){.store = store};
    int rc = files_open_directory(catalog->directory, sizeof catalog->directory, data_dir,
                                  "datasets", "upload-", err);
    if (!rc)
        rc = files_open_directory(catalog->summaries, sizeof catalog->summaries, data_dir,
                                  "summaries", "new-", err);
    if (!rc)
        rc = store_forget_versions(store, err);
    if (!rc)
        remove_unnamed(catalog);
    return rc;
}

/* ---- Uploads ---- */

static int draft_open(struct draft *draft, const struct catalog *catalog, struct ovr_err *err) {
    make_path(catalog, "upload-XXXXXX", draft->path);
    draft->fd = mkostemp(draft->path, O_CLOEXEC);
    return draft->fd < 0 ? files_fail(err, "make a file for the upload") : 0;
}

/* Also after the file has got its name; fd -1 is fine. */
static void draft_close(struct draft *draft) {
    if (draft->fd < 0)
        return;
    close(draft->fd);
    unlink(draft->path);
    draft->fd = -1;
}

static int keep(void *context, const char *bytes, size_t n, struct ovr_err *err) {
    struct upload *upload = context;
    uint64_t most = upload->catalog->max_bytes;
    upload->unpacked += n;
    if (most && upload->unpacked > most)
        return ovr_fail(err, OVR_TOO_LARGE, "",
                        "unpacked these are more than %llu bytes, the limit of an upload; send "
                        "less or start ovrd with a larger --max-upload",
                        (unsigned long long)most);
    return intake_write(upload->intake, bytes, n, err);
}

void upload_abort(struct upload *upload) {
    if (!upload)
        return;
    gunzip_free(upload->gunzip);
    intake_free(upload->intake);
    draft_close(&upload->draft);
    draft_close(&upload->labels);
    free(upload);
}

static int check_names(const struct upload_request *request, struct ovr_err *err) {
    if (!spec_dataset_name_is_valid(request->dataset))
        return ovr_fail(err, OVR_INVALID, NULL,
                        "a data set's name is 1..64 letters, digits, dots, dashes or underscores "
                        "and does not start with a dot");
    if (strcmp(request->split, "train") && strcmp(request->split, "test"))
        return ovr_fail(err, OVR_NOT_FOUND, NULL, "there is no split %.40s; upload train or test",
                        request->split);
    if (request->intake.part != INTAKE_WHOLE && request->intake.format < INTAKE_IDX)
        return ovr_fail(err, OVR_INVALID, "format",
                        "%s has features and labels in one file; send it to …/%s itself",
                        intake_names[request->intake.format], request->split);
    return 0;
}

int upload_open(struct upload **out, struct catalog *catalog, const struct upload_request *request,
                struct ovr_err *err) {
    *out = NULL;
    int rc = check_names(request, err);
    if (rc)
        return rc;
    struct upload *upload = calloc(1, sizeof *upload);
    if (!upload)
        return ovr_nomem(err, "an upload");
    upload->catalog = catalog;
    upload->draft.fd = upload->labels.fd = -1;
    upload->format = request->intake.format;
    upload->part = request->intake.part;
    digest_init(&upload->digest);
    snprintf(upload->expected, sizeof upload->expected, "%s", request->sha256);
    snprintf(upload->dataset, sizeof upload->dataset, "%s", request->dataset);
    snprintf(upload->split, sizeof upload->split, "%s", request->split);
    rc = gunzip_open(&upload->gunzip, &(struct gunzip_sink){keep, upload}, err);
    rc = rc ? rc : draft_open(&upload->draft, catalog, err);
    if (!rc && upload->format != INTAKE_CIFAR10)
        rc = draft_open(&upload->labels, catalog, err);
    if (!rc)
        rc = intake_open(&upload->intake, &request->intake, upload->draft.fd, upload->labels.fd,
                         err);
    if (rc)
        upload_abort(upload);
    else
        *out = upload;
    return rc;
}

int upload_write(struct upload *upload, const char *bytes, size_t n) {
    if (upload->err.code)
        return upload->err.code;
    digest_add(&upload->digest, bytes, n);
    return gunzip_write(upload->gunzip, bytes, n, &upload->err);
}

/* ---- The end of an upload ---- */

static int digest_file(int fd, int64_t *bytes, char sha256[SHA256_SIZE], struct ovr_err *err) {
    struct stat stat;
    void *map = MAP_FAILED;
    if (fstat(fd, &stat) == 0)
        map = mmap(NULL, (size_t)stat.st_size, PROT_READ, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        return files_fail(err, "read the upload back");
    digest_of(map, (size_t)stat.st_size, sha256);
    munmap(map, (size_t)stat.st_size);
    *bytes = stat.st_size;
    return 0;
}

/* The file gets its final name; the directory entry is on disk afterwards. */
static int publish(const struct catalog *catalog, const struct draft *draft, const char *sha256,
                   struct ovr_err *err) {
    catalog_path path;
    make_path(catalog, sha256, path);
    if (fchmod(draft->fd, 0444) || fsync(draft->fd) || rename(draft->path, path))
        return files_fail(err, "store the upload");
    return files_sync_directory(catalog->directory, err);
}

static int open_file(const struct catalog *catalog, const char *sha256, struct samples *samples,
                     struct ovr_err *err) {
    catalog_path path;
    make_path(catalog, sha256, path);
    return samples_open(samples, path, err);
}

/* A draft becomes the current version. */
static int store_version(struct upload *upload, const struct draft *draft,
                         struct dataset_split *split, struct upload_outcome *outcome,
                         struct ovr_err *err) {
    struct catalog *catalog = upload->catalog;
    snprintf(split->dataset, sizeof split->dataset, "%s", upload->dataset);
    snprintf(split->split, sizeof split->split, "%s", upload->split);
    split->created_at = now_ms();
    int rc = publish(catalog, draft, split->sha256, err);
    if (!rc)
        rc = store_put_split(catalog->store, split, &outcome->fresh, err);
    if (!rc) /* what is stored, which may be older than this upload */
        rc = store_get_split(catalog->store, split->dataset, split->split, split->sha256,
                             &outcome->split, err);
    return rc;
}

static int store_whole(struct upload *upload, const struct intake_result *result,
                       const char *source, struct upload_outcome *outcome, struct ovr_err *err) {
    struct dataset_split split = {.samples = (int64_t)result->n,
                                  .width = (int64_t)result->d,
                                  .classes = (int64_t)result->n_classes,
                                  .image = result->image};
    struct samples samples = {0};
    snprintf(split.format, sizeof split.format, "%s", intake_names[upload->format]);
    snprintf(split.source_sha256, sizeof split.source_sha256, "%s", source);
    int rc = 0;
    if (upload->format == INTAKE_CIFAR10 && !gunzip_is_compressed(upload->gunzip)) {
        split.bytes = (int64_t)upload->unpacked; /* kept as sent */
        snprintf(split.sha256, sizeof split.sha256, "%s", source);
    } else {
        rc = digest_file(upload->draft.fd, &split.bytes, split.sha256, err);
    }
    if (!rc && upload->format != INTAKE_CIFAR10)
        rc = samples_open(&samples, upload->draft.path, err);
    split.named = samples.class_names != NULL;
    samples_release(&samples);
    return rc ? rc : store_version(upload, &upload->draft, &split, outcome, err);
}

/* The half that is not in this upload: the one that waits, or else the current version's, if any.
 * *waits tells which. OVR_NOT_FOUND: there is neither. */
static int open_other_half(const struct upload *upload, const char *other, struct samples *samples,
                           int *waits, char format[16], struct ovr_err *err) {
    struct store *store = upload->catalog->store;
    struct dataset_part part;
    struct dataset_split split;
    struct ovr_err why = {0};
    int rc = store_get_part(store, upload->dataset, upload->split, other, &part, &why);
    *waits = rc == 0;
    if (rc == 0) {
        snprintf(format, 16, "%s", part.format);
        return open_file(upload->catalog, part.sha256, samples, err);
    }
    if (rc == OVR_NOT_FOUND) {
        why = (struct ovr_err){0};
        rc = store_get_split(store, upload->dataset, upload->split, "", &split, &why);
    }
    if (rc)
        return rc == OVR_NOT_FOUND ? rc : ovr_fail(err, rc, why.field, "%s", why.text);
    snprintf(format, 16, "%s", split.format);
    return open_file(upload->catalog, split.sha256, samples, err);
}

static int store_half(struct upload *upload, const struct intake_result *result, const char *other,
                      struct upload_outcome *outcome, struct ovr_err *err) {
    struct store *store = upload->catalog->store;
    struct dataset_part before, *part = &outcome->part;
    *part = (struct dataset_part){.samples = (int64_t)result->n, .created_at = now_ms()};
    snprintf(part->dataset, sizeof part->dataset, "%s", upload->dataset);
    snprintf(part->split, sizeof part->split, "%s", upload->split);
    snprintf(part->part, sizeof part->part, "%s", part_names[upload->part]);
    snprintf(part->format, sizeof part->format, "%s", intake_names[upload->format]);
    outcome->missing = other;
    int rc = digest_file(upload->draft.fd, &part->bytes, part->sha256, err);
    outcome->fresh = store_get_part(store, part->dataset, part->split, part->part, &before, NULL) ||
                     strcmp(before.sha256, part->sha256) != 0;
    if (!rc)
        rc = publish(upload->catalog, &upload->draft, part->sha256, err);
    return rc ? rc : store_put_part(store, part, err);
}

static int join(struct upload *upload, const struct samples *features, const struct samples *labels,
                const char *format, struct upload_outcome *outcome, struct ovr_err *err) {
    struct dataset_split split = {.samples = (int64_t)features->n,
                                  .width = (int64_t)features->d,
                                  .classes = (int64_t)labels->n_classes,
                                  .image = features->image,
                                  .named = labels->class_names != NULL};
    struct draft draft = {.fd = -1};
    snprintf(split.format, sizeof split.format, "%s", format);
    int rc = draft_open(&draft, upload->catalog, err);
    if (!rc && (ftruncate(upload->labels.fd, 0) || lseek(upload->labels.fd, 0, SEEK_SET)))
        rc = files_fail(err, "store the upload");
    rc = rc ? rc : rowfile_join(draft.fd, upload->labels.fd, features, labels, err);
    rc = rc ? rc : digest_file(draft.fd, &split.bytes, split.sha256, err);
    rc = rc ? rc : store_version(upload, &draft, &split, outcome, err);
    draft_close(&draft);
    return rc;
}

static int store_part(struct upload *upload, const struct intake_result *result,
                      struct upload_outcome *outcome, struct ovr_err *err) {
    int is_features = upload->part == INTAKE_FEATURES, waits;
    const char *other = part_names[is_features ? INTAKE_LABELS : INTAKE_FEATURES];
    struct samples mine = {0}, others = {0};
    char format[16];
    int rc = open_other_half(upload, other, &others, &waits, format, err);
    /* New features with old labels would be a version that nobody meant. */
    if (rc == OVR_NOT_FOUND || (!rc && !waits && is_features)) {
        samples_release(&others);
        return store_half(upload, result, other, outcome, err);
    }
    if (!rc && others.n != result->n)
        rc = ovr_fail(err, OVR_INVALID, "",
                      "these are %s of %zu samples, the %s %s are of %zu; send %s",
                      part_names[upload->part], result->n, other,
                      waits ? "that wait for them" : "of the current version", others.n,
                      waits ? "both with the same number" : "the new features first");
    if (!rc)
        rc = samples_open(&mine, upload->draft.path, err);
    if (!rc)
        rc = join(upload, is_features ? &mine : &others, is_features ? &others : &mine,
                  is_features ? intake_names[upload->format] : format, outcome, err);
    samples_release(&mine);
    samples_release(&others);
    return rc;
}

int upload_finish(struct upload *upload, struct upload_outcome *outcome, struct ovr_err *err) {
    char source[SHA256_SIZE];
    struct intake_result result = {0};
    struct summary summary;
    int rc = upload->err.code;
    *outcome = (struct upload_outcome){.fresh = 0};
    if (rc)
        ovr_fail(err, rc, upload->err.field, "%s", upload->err.text);
    rc = rc ? rc : gunzip_finish(upload->gunzip, err);
    rc = rc ? rc : intake_finish(upload->intake, &result, err);
    digest_hex(&upload->digest, source);
    if (!rc && *upload->expected && strcmp(upload->expected, source))
        rc = ovr_fail(err, OVR_INVALID, "",
                      "the bytes that arrived have SHA-256 %s, Content-Digest says %s; send "
                      "the file again",
                      source, upload->expected);
    if (!rc) {
        pthread_mutex_lock(&publishing);
        rc = upload->part == INTAKE_WHOLE ? store_whole(upload, &result, source, outcome, err)
                                          : store_part(upload, &result, outcome, err);
        remove_unnamed(upload->catalog); /* a half that has been joined or replaced */
        pthread_mutex_unlock(&publishing);
    }
    if (!rc && !outcome->missing && /* made now, so that nobody waits for it later */
        catalog_summary(upload->catalog, &outcome->split, &summary, NULL) == 0)
        summary_release(&summary);
    upload_abort(upload);
    return rc;
}

int catalog_remove(struct catalog *catalog, const char *dataset, struct ovr_err *err) {
    pthread_mutex_lock(&publishing);
    int rc = store_remove_dataset(catalog->store, dataset, err);
    if (!rc)
        remove_unnamed(catalog);
    pthread_mutex_unlock(&publishing);
    return rc;
}

/* ---- Opening ---- */

int catalog_open_split(const struct catalog *catalog, const struct dataset_split *split,
                       struct samples *samples, struct ovr_err *err) {
    struct ovr_err why = {0};
    int rc = open_file(catalog, split->sha256, samples, &why);
    if (!rc)
        return 0;
    if (rc == OVR_NOMEM)
        return ovr_nomem(err, "a data set");
    return ovr_fail(err, OVR_IO, NULL,
                    "the stored %s split of data set %s cannot be read; upload it again",
                    split->split, split->dataset);
}

int catalog_open_file(const struct catalog *catalog, const char *sha256, struct ovr_err *err) {
    catalog_path path;
    make_path(catalog, sha256, path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    return fd < 0 ? files_fail(err, "read a stored split") : fd;
}

/* Opens a version and checks that its bytes are still those that were stored: a result names
 * them. */
static int open_checked(const struct catalog *catalog, const struct spec *spec, const char *name,
                        const char *sha256, int check, struct samples *samples,
                        struct ovr_err *err) {
    struct dataset_split split;
    char found[DIGEST_SIZE];
    snprintf(split.dataset, sizeof split.dataset, "%s", spec->dataset);
    snprintf(split.split, sizeof split.split, "%s", name);
    snprintf(split.sha256, sizeof split.sha256, "%s", sha256);
    int rc = catalog_open_split(catalog, &split, samples, err);
    if (rc || !check)
        return rc;
    digest_of(samples->map, samples->map_bytes, found);
    if (strcmp(found, sha256))
        return ovr_fail(err, OVR_IO, NULL,
                        "the stored %s split of data set %s no longer has the SHA-256 it came "
                        "with; upload it again",
                        name, spec->dataset);
    return 0;
}

static int open_stored(const struct catalog *catalog, const struct spec *spec, int check,
                       struct samples *train, struct samples *test, struct ovr_err *err) {
    int rc = open_checked(catalog, spec, "train", spec->train_sha256, check, train, err);
    return rc ? rc : open_checked(catalog, spec, "test", spec->test_sha256, check, test, err);
}

int catalog_open_samples(const struct catalog *catalog, const struct spec *spec, int check,
                         struct samples *train, struct samples *test, struct ovr_err *err) {
    *train = *test = (struct samples){0};
    int rc;
    if (spec->generated) {
        rc = sphere_generate(train, &spec->sphere, 0, err);
        rc = rc ? rc : sphere_generate(test, &spec->sphere, 1, err);
    } else {
        rc = open_stored(catalog, spec, check, train, test, err);
    }
    return rc ? rc : splits_fit(spec, train, test, err);
}

/* ---- Summaries ---- */

/* Keeps it for the next time, if possible. */
static void save_summary(const struct catalog *catalog, const struct summary *summary,
                         const char *path) {
    struct draft draft;
    snprintf(draft.path, sizeof draft.path, "%s/new-XXXXXX", catalog->summaries);
    draft.fd = mkostemp(draft.path, O_CLOEXEC);
    if (draft.fd >= 0 && summary_write(summary, draft.fd, NULL) == 0 && rename(draft.path, path))
        log_line(LOG_WARN, "a summary cannot be kept: %s", strerror(errno));
    draft_close(&draft);
}

int catalog_summary(const struct catalog *catalog, const struct dataset_split *split,
                    struct summary *summary, struct ovr_err *err) {
    catalog_path path;
    struct samples samples = {0};
    snprintf(path, sizeof path, "%s/%s", catalog->summaries, split->sha256);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    int rc = fd < 0 ? OVR_NOT_FOUND : summary_read(summary, fd, NULL);
    if (fd >= 0)
        close(fd);
    if (rc == 0)
        return 0;
    rc = catalog_open_split(catalog, split, &samples, err);
    if (!rc)
        rc = summary_make(summary, &samples, err);
    samples_release(&samples);
    if (!rc)
        save_summary(catalog, summary, path);
    return rc;
}
