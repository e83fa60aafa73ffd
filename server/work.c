#include "server/work.h"

#include "core/npy.h"
#include "core/units.h"
#include "server/digest.h"
#include "server/files.h"
#include "server/log.h"
#include "server/metrics.h"
#include "server/replay.h"
#include "server/weights.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* MOST_AHEAD: so many checkpoints may lie here that were not reported yet, or never are. */
enum { PATH_SIZE = 1024, MOST_FILES = 200, MOST_AHEAD = 50 };

static const char *const directories[] = {"best", "last", "units"};
enum { N_DIRECTORIES = 3 };

/* Held while a result gets its name and is stored. */
static pthread_mutex_t settling = PTHREAD_MUTEX_INITIALIZER;

/* ---- Names ---- */

static void checkpoint_path(char path[PATH_SIZE], const struct work *work, const char *id,
                            int64_t number, int rank) {
    snprintf(path, PATH_SIZE, "%s/checkpoints/%s.work-%lld.%d", work->data_dir, id,
             (long long)number, rank);
}

/* What weights.h takes for an id, of the result of an attempt on its way. */
static void name_result(char name[ID_SIZE + 24], const char *id, int attempt) {
    snprintf(name, ID_SIZE + 24, "%s.work-%d", id, attempt);
}

static void result_path(char path[PATH_SIZE], const char *data_dir, const char *id, int attempt) {
    char name[ID_SIZE + 24];
    name_result(name, id, attempt);
    snprintf(path, PATH_SIZE, "%s/experiments/%s", data_dir, name);
}

/* Lower-case words between dots, the last one npy: no path, nothing hidden. */
static int is_file_name(const char *name) {
    size_t n = strlen(name);
    if (n < 5 || n > 80 || strcmp(name + n - 4, ".npy") != 0 || *name == '.' || strstr(name, ".."))
        return 0;
    return strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_.") == n;
}

/* ---- Removing ---- */

/* Parts of the checkpoints of an experiment that are older than `newest`, but for one of them. */
static void remove_checkpoints(const char *data_dir, const char *id, int64_t newest, int64_t but) {
    char path[PATH_SIZE], prefix[ID_SIZE + 8];
    snprintf(prefix, sizeof prefix, "%s.work-", id);
    snprintf(path, sizeof path, "%s/checkpoints", data_dir);
    DIR *dir = opendir(path);
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        if (strncmp(entry->d_name, prefix, strlen(prefix)) != 0)
            continue;
        int64_t number = strtoll(entry->d_name + strlen(prefix), NULL, 10);
        if (number < newest && number != but)
            unlinkat(dirfd(dir), entry->d_name, 0);
    }
    if (dir)
        closedir(dir);
}

static void remove_results(const char *data_dir, const char *id, int attempts) {
    char path[PATH_SIZE];
    for (int attempt = 1; attempt <= attempts; attempt++) {
        result_path(path, data_dir, id, attempt);
        files_remove_tree(path, NULL);
    }
}

void work_forget(const struct work *work, const char *id) {
    struct experiment e = {.state = STATE_CANCELLED}; /* as good as that: deleted */
    int rc = store_get_experiment(work->store, id, &e, NULL);
    if (rc && rc != OVR_NOT_FOUND)
        return;
    if (e.state > STATE_PAUSED)
        remove_checkpoints(work->data_dir, id, INT64_MAX, 0);
    if (e.state > STATE_SUCCEEDED)
        weights_remove(work->data_dir, id);
    if (e.state != STATE_RUNNING)
        remove_results(work->data_dir, id, e.attempts);
    experiment_release(&e);
}

/* ---- Who is current ---- */

/* What the attempt is at this moment. OVR_NOT_FOUND: it is over, for good. */
static int look_again(const struct work *work, const struct attempt *attempt, struct attempt *now,
                      struct ovr_err *err) {
    struct ovr_err why = {0};
    int rc = store_get_attempt(work->store, attempt->experiment, now, NULL, 0, &why);
    if (rc && rc != OVR_NOT_FOUND)
        return ovr_fail(err, rc, NULL, "%s", why.text);
    return rc || now->number != attempt->number ? OVR_NOT_FOUND : 0;
}

/* Before a file gets its name, so that an attempt that was cut off does not write over what another
 * one put; and once something is there, since who ended the attempt may have removed its files just
 * before. */
static int must_be_current(const struct work *work, const struct attempt *attempt,
                           struct ovr_err *err) {
    struct attempt now;
    char result[PATH_SIZE];
    int rc = look_again(work, attempt, &now, err);
    if (rc != OVR_NOT_FOUND)
        return rc;
    result_path(result, work->data_dir, attempt->id, attempt->number);
    files_remove_tree(result, NULL);
    work_forget(work, attempt->id);
    return ovr_fail(err, OVR_CONFLICT, NULL, "attempt %d of experiment %s is over", attempt->number,
                    attempt->id);
}

/* ---- Uploads ---- */

struct work_upload {
    const struct work *work;
    struct attempt attempt;
    char draft[PATH_SIZE], path[PATH_SIZE], directory[PATH_SIZE];
    int fd;
    struct digest digest;
    char expected[DIGEST_SIZE];
    struct ovr_err err; /* the first fault while bytes arrived */
};

static struct work_upload *upload_new(const struct work *work, const struct attempt *attempt,
                                      const char *sha256, struct ovr_err *err) {
    struct work_upload *upload = calloc(1, sizeof *upload);
    if (!upload) {
        ovr_nomem(err, "an upload");
        return NULL;
    }
    upload->work = work;
    upload->attempt = *attempt;
    upload->fd = -1;
    digest_init(&upload->digest);
    snprintf(upload->expected, sizeof upload->expected, "%s", sha256);
    return upload;
}

void work_abort(struct work_upload *upload) {
    if (!upload)
        return;
    if (upload->fd >= 0) {
        close(upload->fd);
        unlink(upload->draft); /* gone where it has got its name */
    }
    free(upload);
}

/* upload->draft is a template for its name. */
static int open_draft(struct work_upload *upload, struct work_upload **out, struct ovr_err *err) {
    upload->fd = mkostemp(upload->draft, O_CLOEXEC);
    if (upload->fd >= 0) {
        *out = upload;
        return 0;
    }
    int rc = files_fail(err, "make a file for the upload");
    work_abort(upload);
    return rc;
}

static int has_ranks(const struct attempt *attempt, int rank, struct ovr_err *err) {
    if (rank >= 0 && rank < attempt->ranks)
        return 1;
    ovr_fail(err, OVR_NOT_FOUND, NULL, "experiment %s has no rank %d, but 0 to %d", attempt->id,
             rank, attempt->ranks - 1);
    return 0;
}

int work_put_checkpoint(struct work_upload **out, const struct work *work,
                        const struct attempt *attempt, int64_t number, int rank, const char *sha256,
                        struct ovr_err *err) {
    *out = NULL;
    if (!has_ranks(attempt, rank, err))
        return OVR_NOT_FOUND;
    if (number <= attempt->checkpoint)
        return ovr_fail(err, OVR_CONFLICT, NULL,
                        "checkpoint %lld was reported already; the next is number %lld",
                        (long long)attempt->checkpoint, (long long)attempt->checkpoint + 1);
    if (number - attempt->checkpoint > MOST_AHEAD)
        return ovr_fail(
            err, OVR_INVALID, NULL,
            "checkpoint %lld is more than %d ahead of the newest that was reported, %lld",
            (long long)number, MOST_AHEAD, (long long)attempt->checkpoint);
    struct work_upload *upload = upload_new(work, attempt, sha256, err);
    if (!upload)
        return OVR_NOMEM;
    snprintf(upload->directory, PATH_SIZE, "%s/checkpoints", work->data_dir);
    snprintf(upload->draft, PATH_SIZE, "%s/checkpoints/tmp-work-XXXXXX", work->data_dir);
    checkpoint_path(upload->path, work, attempt->id, number, rank);
    return open_draft(upload, out, err);
}

/* Of the three directories of a result. */
static size_t count_files(const char *result) {
    size_t n = 0;
    for (int i = 0; i < N_DIRECTORIES; i++) {
        char path[PATH_SIZE + 16];
        snprintf(path, sizeof path, "%s/%s", result, directories[i]);
        DIR *dir = opendir(path);
        for (struct dirent *entry; dir && (entry = readdir(dir));)
            n += strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..");
        if (dir)
            closedir(dir);
    }
    return n;
}

static int check_names(const struct attempt *attempt, const char *directory, const char *name,
                       struct ovr_err *err) {
    int known = 0;
    for (int i = 0; i < N_DIRECTORIES; i++)
        known |= strcmp(directory, directories[i]) == 0;
    if (!known || !is_file_name(name))
        return ovr_fail(err, OVR_NOT_FOUND, NULL,
                        "a result has files such as best/encoder.weight.npy, in best, last and "
                        "units, and not %.40s/%.80s",
                        directory, name);
    return attempt->begun_at
               ? 0
               : ovr_fail(err, OVR_CONFLICT, NULL, "files of a result come after the first report");
}

int work_put_file(struct work_upload **out, const struct work *work, const struct attempt *attempt,
                  const char *directory, const char *name, const char *sha256,
                  struct ovr_err *err) {
    char result[PATH_SIZE];
    *out = NULL;
    int rc = check_names(attempt, directory, name, err);
    if (rc)
        return rc;
    result_path(result, work->data_dir, attempt->id, attempt->number);
    rc = weights_make_directories(result, err);
    rc = rc ? rc : must_be_current(work, attempt, err);
    if (!rc && count_files(result) >= MOST_FILES)
        rc = ovr_fail(err, OVR_TOO_LARGE, NULL, "a result has at most %d files", MOST_FILES);
    if (rc)
        return rc;
    struct work_upload *upload = upload_new(work, attempt, sha256, err);
    if (!upload)
        return OVR_NOMEM;
    snprintf(upload->directory, PATH_SIZE, "%.900s/%.8s", result, directory);
    snprintf(upload->draft, PATH_SIZE, "%.900s/put-XXXXXX", result);
    snprintf(upload->path, PATH_SIZE, "%.900s/%.8s/%.80s", result, directory, name);
    return open_draft(upload, out, err);
}

int work_write(struct work_upload *upload, const char *bytes, size_t n) {
    if (upload->err.code)
        return upload->err.code;
    digest_add(&upload->digest, bytes, n);
    while (n) {
        ssize_t written = write(upload->fd, bytes, n);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            break;
        bytes += written;
        n -= (size_t)written;
    }
    int rc = n ? files_fail(&upload->err, "store the upload") : 0;
    if (rc == OVR_FULL)
        disk_note_full(upload->work->disk);
    return rc;
}

int work_finish(struct work_upload *upload, struct ovr_err *err) {
    char sha256[DIGEST_SIZE];
    int rc = upload->err.code;
    if (rc)
        ovr_fail(err, rc, NULL, "%s", upload->err.text);
    digest_hex(&upload->digest, sha256);
    if (!rc && *upload->expected && strcmp(upload->expected, sha256))
        rc = ovr_fail(err, OVR_INVALID, NULL,
                      "the bytes that arrived have SHA-256 %s, Content-Digest says %s; send them "
                      "again",
                      sha256, upload->expected);
    if (!rc && fsync(upload->fd))
        rc = files_fail(err, "store the upload");
    rc = rc ? rc : must_be_current(upload->work, &upload->attempt, err);
    if (!rc && rename(upload->draft, upload->path))
        rc = files_fail(err, "give the upload its name");
    rc = rc ? rc : files_sync_directory(upload->directory, err);
    rc = rc ? rc : must_be_current(upload->work, &upload->attempt, err);
    work_abort(upload);
    return rc;
}

int work_open_checkpoint(const struct work *work, const struct attempt *attempt, int64_t number,
                         int rank, struct ovr_err *err) {
    char path[PATH_SIZE];
    if (!has_ranks(attempt, rank, err))
        return OVR_NOT_FOUND;
    checkpoint_path(path, work, attempt->id, number, rank);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0)
        return fd;
    return errno == ENOENT
               ? ovr_fail(err, OVR_NOT_FOUND, NULL, "rank %d's part of checkpoint %lld is not here",
                          rank, (long long)number)
               : files_fail(err, "read a checkpoint");
}

/* ---- Results ---- */

static int must_have_parts(const struct work *work, const struct attempt *attempt, int64_t number,
                           struct ovr_err *err) {
    char path[PATH_SIZE];
    for (int rank = 0; rank < attempt->ranks; rank++) {
        checkpoint_path(path, work, attempt->id, number, rank);
        if (access(path, F_OK))
            return ovr_fail(err, OVR_INVALID, "/checkpoint/number",
                            "rank %d's part of checkpoint %lld is not here; all parts have to be "
                            "put before it is reported",
                            rank, (long long)number);
    }
    return 0;
}

/* What is looked at, and how many files were as they should be. */
struct inspection {
    const char *data_dir;
    char name[ID_SIZE + 24]; /* of its directory */
    size_t n;
};

/* An array of float32 of this shape, as numpy and we read it. */
static int check_file(struct inspection *i, const char *path, int dimensions, size_t rows,
                      size_t columns, struct ovr_err *err) {
    char expected[NPY_HEADER], found[NPY_HEADER];
    struct stat stat;
    if (!rows || !columns)
        return 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    npy_header(expected, "float32", dimensions, rows, columns);
    int good = fd >= 0 && fstat(fd, &stat) == 0 &&
               (uint64_t)stat.st_size == NPY_HEADER + rows * columns * sizeof(float) &&
               pread(fd, found, sizeof found, 0) == (ssize_t)sizeof found &&
               memcmp(expected, found, sizeof found) == 0;
    if (fd >= 0)
        close(fd);
    i->n++;
    const char *shown = strstr(path, i->name);
    shown = shown ? shown + strlen(i->name) + 1 : path;
    return good ? 0
                : ovr_fail(err, OVR_INVALID, "/end",
                           "%s is not here as an array of %zu×%zu float32; put it, then report the "
                           "end again",
                           shown, rows, columns);
}

static int check_units(struct inspection *i, const struct unit_table *t, struct ovr_err *err) {
    const struct {
        const char *part;
        int dimensions;
        size_t rows, columns;
    } parts[] = {{"table", 2, t->units, UNIT_FIGURES},
                 {"classes", 2, t->units, t->classes},
                 {"cells", 2, t->units, t->cells},
                 {"cell_samples", 1, t->cells, 1}};
    int rc = 0;
    for (size_t k = 0; !rc && k < sizeof parts / sizeof *parts; k++) {
        char path[PATH_SIZE];
        weights_units_path(i->data_dir, i->name, t->layer, parts[k].part, path, sizeof path);
        rc = check_file(i, path, parts[k].dimensions, parts[k].rows, parts[k].columns, err);
    }
    return rc;
}

/* All that is listed and nothing else. */
static int check_result(struct inspection *i, const struct outcome *o, struct ovr_err *err) {
    char path[PATH_SIZE];
    int rc = 0;
    for (size_t k = 0; !rc && k < o->n_tensors; k++) {
        const struct tensor *t = &o->tensors[k];
        weights_path(i->data_dir, i->name, t, path, sizeof path);
        rc = check_file(i, path, t->dimensions, t->rows, t->columns, err);
    }
    for (size_t k = 0; !rc && k < o->n_unit_tables; k++)
        rc = check_units(i, &o->unit_tables[k], err);
    snprintf(path, sizeof path, "%s/experiments/%s", i->data_dir, i->name);
    size_t there = rc ? 0 : count_files(path);
    if (!rc && there != i->n)
        rc = ovr_fail(err, OVR_INVALID, "/end",
                      "the end lists %zu files and %zu were put; they have to be the same", i->n,
                      there);
    return rc;
}

/* What a killed daemon left. */
static int remove_drafts(const struct work *work, const struct inspection *i, struct ovr_err *err) {
    char path[PATH_SIZE], below[sizeof i->name + 16];
    snprintf(below, sizeof below, "experiments/%s", i->name);
    return files_open_directory(path, sizeof path, work->data_dir, below, "put-", err);
}

/* The files get their final name, which they have already where the daemon ended right after. */
static int publish(const struct work *work, const struct attempt *attempt, const struct outcome *o,
                   struct ovr_err *err) {
    struct inspection inspection = {.data_dir = work->data_dir};
    char result[PATH_SIZE], final[PATH_SIZE];
    result_path(result, work->data_dir, attempt->id, attempt->number);
    snprintf(final, sizeof final, "%s/experiments/%s", work->data_dir, attempt->id);
    int named = access(result, F_OK) != 0 && access(final, F_OK) == 0, rc = 0;
    if (!attempt->begun_at)
        return ovr_fail(err, OVR_INVALID, "/end", "a result comes after the first report");
    name_result(inspection.name, attempt->id, attempt->number);
    if (named)
        snprintf(inspection.name, sizeof inspection.name, "%s", attempt->id);
    else
        rc = remove_drafts(work, &inspection, err);
    if (!rc)
        rc = check_result(&inspection, o, err);
    return rc || named ? rc : weights_publish(result, work->data_dir, attempt->id, err);
}

/* The report with the figures of a replay, if it is one. */
static int store_result(const struct work *work, struct attempt *attempt,
                        const struct experiment *e, const struct report *report, int *repeated,
                        struct ovr_err *err) {
    const struct outcome *o = report->outcome;
    const struct fresh_result fresh = {e, o->provenance, o->n_provenance, report->epochs,
                                       report->n_epochs};
    struct verdict verdict;
    struct figure added[REPLAY_FIGURES];
    size_t n_added;
    int rc = replay_judge(work->store, &fresh, &verdict, added, &n_added, err);
    if (rc)
        return rc;
    struct figure *figures = calloc(o->n_result + REPLAY_FIGURES, sizeof *figures);
    if (!figures)
        return ovr_nomem(err, "a result");
    if (o->n_result)
        memcpy(figures, o->result, o->n_result * sizeof *figures);
    memcpy(figures + o->n_result, added, n_added * sizeof *figures);
    struct outcome whole = *o;
    whole.result = figures;
    whole.n_result += n_added;
    struct report with = *report;
    with.outcome = &whole;
    rc = store_take_report(work->store, attempt, &with, repeated, err);
    free(figures);
    return rc;
}

static int settle(const struct work *work, struct attempt *attempt, const struct experiment *e,
                  const struct report *report, int *repeated, struct ovr_err *err) {
    struct attempt now;
    int rc = look_again(work, attempt, &now, err);
    if (rc && rc != OVR_NOT_FOUND)
        return rc;
    if (rc || report->number <= now.batch) /* refused, or taken before */
        return store_take_report(work->store, attempt, report, repeated, err);
    if (report->number > now.batch + 1)
        return ovr_fail(err, OVR_CONFLICT, NULL, "the next report is number %lld, this is %lld",
                        (long long)now.batch + 1, (long long)report->number);
    rc = publish(work, &now, report->outcome, err);
    if (rc)
        return rc;
    rc = store_result(work, attempt, e, report, repeated, err);
    if (rc == OVR_CONFLICT) /* cancelled meanwhile */
        weights_remove(work->data_dir, attempt->id);
    return rc;
}

/* The same report may come twice at once. */
static int take_result(const struct work *work, struct attempt *attempt, const struct experiment *e,
                       const struct report *report, int *repeated, struct ovr_err *err) {
    pthread_mutex_lock(&settling);
    int rc = settle(work, attempt, e, report, repeated, err);
    pthread_mutex_unlock(&settling);
    return rc;
}

/* Right after it has been stored. What was there before it began is of attempts that were lost. */
static void tidy(const struct work *work, const struct attempt *attempt,
                 const struct report *report) {
    if (report->node) {
        remove_results(work->data_dir, attempt->id, attempt->number);
        weights_remove(work->data_dir, attempt->id);
    }
    if (report->end)
        work_forget(work, attempt->id);
    else if (report->checkpoint)
        remove_checkpoints(work->data_dir, attempt->id, attempt->checkpoint,
                           attempt->checkpoint_before);
}

static int take(const struct work *work, struct attempt *attempt, const struct experiment *e,
                const struct report *report, int *repeated, struct ovr_err *err) {
    int rc = 0;
    if (report->checkpoint && attempt->live && report->number > attempt->batch)
        rc = must_have_parts(work, attempt, report->checkpoint, err);
    if (rc)
        return rc;
    return report->end == END_OUTCOME && report->outcome->state == STATE_SUCCEEDED
               ? take_result(work, attempt, e, report, repeated, err)
               : store_take_report(work->store, attempt, report, repeated, err);
}

int work_take_report(const struct work *work, struct attempt *attempt, const struct experiment *e,
                     const struct report *report, int *repeated, struct ovr_err *err) {
    struct ovr_err why = {0};
    struct attempt now;
    *repeated = 0;
    int rc = take(work, attempt, e, report, repeated, &why);
    /* Its files may be missing because it was cancelled meanwhile. */
    if (rc == OVR_INVALID && look_again(work, attempt, &now, NULL) == OVR_NOT_FOUND) {
        rc = OVR_CONFLICT;
        attempt->live = 0;
    }
    if (rc == OVR_FULL)
        disk_note_full(work->disk);
    if (rc)
        return ovr_fail(err, rc, why.field, "%s", why.text);
    if (*repeated)
        return 0;
    metrics_add(COUNT_EPOCHS, report->n_epochs);
    tidy(work, attempt, report);
    return 0;
}
