#include "server/weights.h"

#include "core/npy.h"
#include "server/files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATH_SIZE = 1024 };
static const char DTYPE[] = "float32";

/* What one call of weights_save() works on. */
struct saving {
    char directory[PATH_SIZE]; /* under its temporary name */
    struct tensor *tensors;
    size_t n;
    int rc;
    struct ovr_err *err;
};

void weights_path(const char *data_dir, const char *id, const struct tensor *tensor, char *path,
                  size_t size) {
    snprintf(path, size, "%s/experiments/%s/%s/%s.npy", data_dir, id, tensor->epoch, tensor->name);
}

static int remove_entry(const char *path, const struct stat *stat, int type, struct FTW *where) {
    (void)stat;
    (void)type;
    (void)where;
    return remove(path);
}

static int remove_tree(const char *path, struct ovr_err *err) {
    if (access(path, F_OK) == 0 && nftw(path, remove_entry, 8, FTW_DEPTH | FTW_PHYS))
        return ovr_fail(err, OVR_IO, NULL, "cannot remove %s: %s", path, strerror(errno));
    return 0;
}

int weights_init(const char *data_dir, struct ovr_err *err) {
    char path[PATH_SIZE], entry_path[PATH_SIZE];
    snprintf(path, sizeof path, "%s/experiments", data_dir);
    int rc = files_make_directory(path, err);
    if (rc)
        return rc;
    DIR *dir = opendir(path);
    if (!dir)
        return ovr_fail(err, OVR_IO, NULL, "cannot read %s: %s", path, strerror(errno));
    for (struct dirent *entry; (entry = readdir(dir));)
        if (strstr(entry->d_name, ".tmp") &&
            snprintf(entry_path, sizeof entry_path, "%s/%s", path, entry->d_name) > 0)
            remove_tree(entry_path, NULL);
    closedir(dir);
    return 0;
}

/* After a first fault the rest is passed over. */
static void save(struct saving *s, const char *epoch, const char *name, int dimensions, size_t rows,
                 size_t columns, const real *numbers) {
    char path[PATH_SIZE + 128];
    struct tensor *t = &s->tensors[s->n];
    if (s->rc)
        return;
    *t =
        (struct tensor){.dtype = DTYPE, .dimensions = dimensions, .rows = rows, .columns = columns};
    snprintf(t->epoch, sizeof t->epoch, "%s", epoch);
    snprintf(t->name, sizeof t->name, "%s", name);
    snprintf(path, sizeof path, "%s/%s/%s.npy", s->directory, epoch, name);
    s->rc = npy_write(path, DTYPE, dimensions, rows, columns, numbers, s->err);
    s->n++;
}

/* A read-out is kept unit by unit (K×width); the file has one row for each class. */
static void save_readout(struct saving *s, const char *epoch, const char *prefix, size_t units,
                         size_t classes, size_t width, const real *numbers) {
    char name[64];
    real *rows = s->rc ? NULL : ovr_malloc(classes * units, sizeof *rows);
    if (s->rc)
        return;
    if (!rows) {
        s->rc = ovr_nomem(s->err, "a copy of the read-out");
        return;
    }
    for (size_t k = 0; k < units; k++)
        for (size_t c = 0; c < classes; c++)
            rows[c * units + k] = numbers[k * width + c];
    snprintf(name, sizeof name, "%s.weight", prefix);
    save(s, epoch, name, 2, classes, units, rows);
    snprintf(name, sizeof name, "%s.bias", prefix);
    save(s, epoch, name, 1, classes, 1, numbers + units * width);
    free(rows);
}

static void save_net(struct saving *s, const char *epoch, enum model_kind kind,
                     const struct train_result *r, const real *params) {
    size_t k = r->n_units, d = r->n_inputs;
    int mlp = kind == MODEL_MLP;
    save(s, epoch, mlp ? "hidden.0.weight" : "encoder.weight", 2, k, d, params);
    save(s, epoch, mlp ? "hidden.0.bias" : "encoder.bias", 1, k, 1, params + k * d);
    if (mlp)
        save_readout(s, epoch, "output", k, r->n_classes, r->width, params + k * (d + 1));
}

static void save_preprocess(struct saving *s, const struct preprocess *preprocess) {
    for (size_t i = 0; i < preprocess->n_steps; i++) {
        const struct fitted_step *step = &preprocess->steps[i];
        int projects = preprocess_projects(step->kind);
        char name[64];
        if (step->kind == PREPROCESS_CONTRAST) {
            snprintf(name, sizeof name, "preprocess.%zu.epsilon", i);
            save(s, "best", name, 1, 1, 1, &step->epsilon);
            continue;
        }
        snprintf(name, sizeof name, "preprocess.%zu.mean", i);
        save(s, "best", name, 1, step->n_in, 1, step->mean);
        snprintf(name, sizeof name, "preprocess.%zu.%s", i, projects ? "components" : "scale");
        if (projects)
            save(s, "best", name, 2, step->n_out, step->n_in, step->components);
        else
            save(s, "best", name, 1, step->n_in, 1, step->scale);
    }
}

static int make_directories(struct saving *s) {
    char path[PATH_SIZE + 16];
    const char *const names[] = {"", "/best", "/last"};
    int rc = remove_tree(s->directory, s->err);
    for (size_t i = 0; !rc && i < 3; i++) {
        snprintf(path, sizeof path, "%s%s", s->directory, names[i]);
        rc = files_make_directory(path, s->err);
    }
    return rc;
}

/* All files are on disk; now their directories, and then the final name. */
static int publish(struct saving *s, const char *data_dir, const char *id) {
    char path[PATH_SIZE + 16], final[PATH_SIZE];
    int rc = 0;
    snprintf(path, sizeof path, "%s/best", s->directory);
    rc = files_sync_directory(path, s->err);
    snprintf(path, sizeof path, "%s/last", s->directory);
    rc = rc ? rc : files_sync_directory(path, s->err);
    rc = rc ? rc : files_sync_directory(s->directory, s->err);
    snprintf(final, sizeof final, "%s/experiments/%s", data_dir, id);
    rc = rc ? rc : remove_tree(final, s->err); /* of an attempt that was killed right after this */
    if (!rc && rename(s->directory, final))
        rc = files_fail(s->err, "give the weights their name");
    snprintf(path, sizeof path, "%s/experiments", data_dir);
    return rc ? rc : files_sync_directory(path, s->err);
}

int weights_save(const char *data_dir, const char *id, enum model_kind kind,
                 const struct train_result *result, struct tensor tensors[MAX_TENSORS],
                 size_t *n_tensors, struct ovr_err *err) {
    struct saving s = {.tensors = tensors, .err = err};
    snprintf(s.directory, sizeof s.directory, "%s/experiments/%s.tmp", data_dir, id);
    s.rc = make_directories(&s);
    save_net(&s, "best", kind, result, result->best);
    save_preprocess(&s, result->preprocess);
    if (result->probed)
        save_readout(&s, "best", "probe", result->n_units, result->data_classes,
                     result->probe.width, result->probe.weights);
    save_net(&s, "last", kind, result, result->last);
    if (!s.rc)
        s.rc = publish(&s, data_dir, id);
    if (s.rc)
        remove_tree(s.directory, NULL);
    *n_tensors = s.rc ? 0 : s.n;
    return s.rc;
}

void weights_remove(const char *data_dir, const char *id) {
    char path[PATH_SIZE];
    snprintf(path, sizeof path, "%s/experiments/%s", data_dir, id);
    remove_tree(path, NULL);
}
