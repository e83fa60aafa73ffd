#include "server/weights.h"

#include "core/npy.h"
#include "server/files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

void weights_units_path(const char *data_dir, const char *id, int layer, const char *part,
                        char *path, size_t size) {
    snprintf(path, size, "%s/experiments/%s/units/%d.%s.npy", data_dir, id, layer, part);
}

int weights_init(const char *data_dir, struct ovr_err *err) {
    char path[PATH_SIZE];
    snprintf(path, sizeof path, "%s/experiments", data_dir);
    return files_make_directory(path, err);
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

static int is_kmeans(enum model_kind kind) {
    return kind == MODEL_KMEANS || kind == MODEL_ONLINE_KMEANS;
}

/* The name of a part of the net. A bias of k-means follows from its centroid; the counts stand in
 * its place. */
static void name_part(enum model_kind kind, size_t n_layers, const struct net_part *part,
                      char name[64]) {
    int head = part->part == PART_HEAD_WEIGHT || part->part == PART_HEAD_BIAS;
    const char *what =
        part->part == PART_WEIGHT || part->part == PART_HEAD_WEIGHT ? "weight" : "bias";
    if (is_kmeans(kind))
        snprintf(name, 64, "%s", part->part == PART_WEIGHT ? "centroids" : "counts");
    else if (head)
        snprintf(name, 64, "%s.%s", kind == MODEL_MLP ? "output" : "decoder", what);
    else if (kind == MODEL_MLP)
        snprintf(name, 64, "hidden.%zu.%s", part->layer, what);
    else if (n_layers > 1)
        snprintf(name, 64, "encoder.%zu.%s", part->layer, what);
    else
        snprintf(name, 64, "encoder.%s", what);
}

/* The rows of a matrix, `stride` elements apart, as the columns of another one without gaps. */
static void transpose(const real *from, size_t rows, size_t columns, size_t stride, real *to) {
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < columns; j++)
            to[j * rows + i] = from[i * stride + j];
}

/* A read-out is kept unit by unit; the file has one row for each output. */
static void save_transposed(struct saving *s, const char *epoch, const char *name, size_t units,
                            size_t outputs, size_t stride, const real *numbers) {
    real *rows = s->rc ? NULL : ovr_malloc(outputs * units, sizeof *rows);
    if (s->rc)
        return;
    if (!rows) {
        s->rc = ovr_nomem(s->err, "a copy of the read-out");
        return;
    }
    transpose(numbers, units, outputs, stride, rows);
    save(s, epoch, name, 2, outputs, units, rows);
    free(rows);
}

static void save_net(struct saving *s, const char *epoch, enum model_kind kind,
                     const struct net *net, const real *params, const real *counts) {
    struct net_part parts[PARTS_MAX];
    size_t n = net_parts(net, parts);
    for (size_t i = 0; i < n; i++) {
        const struct net_part *p = &parts[i];
        char name[64];
        name_part(kind, net->config.n_layers, p, name);
        if (p->part == PART_HEAD_WEIGHT)
            save_transposed(s, epoch, name, p->rows, p->cols, p->stride, params + p->at);
        else
            save(s, epoch, name, p->part == PART_WEIGHT ? 2 : 1, p->rows, p->cols,
                 is_kmeans(kind) && p->part == PART_BIAS ? counts : params + p->at);
    }
}

static void save_probe(struct saving *s, const struct train_result *r) {
    size_t k = r->net.config.units[r->net.config.n_layers - 1];
    save_transposed(s, "best", "probe.weight", k, r->data_classes, r->probe.width,
                    r->probe.weights);
    save(s, "best", "probe.bias", 1, r->data_classes, 1, r->probe.weights + k * r->probe.width);
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

static void save_part(struct saving *s, int layer, const char *part, int dimensions, size_t rows,
                      size_t columns, const real *numbers) {
    char path[PATH_SIZE + 128];
    snprintf(path, sizeof path, "%s/units/%d.%s.npy", s->directory, layer, part);
    if (!s->rc && rows && columns)
        s->rc = npy_write(path, DTYPE, dimensions, rows, columns, numbers, s->err);
}

static void save_units(struct saving *s, int layer, const struct units *u) {
    save_part(s, layer, "table", 2, u->n_units, UNIT_FIGURES, u->table);
    save_part(s, layer, "classes", 2, u->n_units, u->n_classes, u->class_means);
    save_part(s, layer, "cells", 2, u->n_units, u->n_cells, u->cell_means);
    save_part(s, layer, "cell_samples", 1, u->n_cells, 1, u->cell_samples);
}

int weights_make_directories(const char *directory, struct ovr_err *err) {
    char path[PATH_SIZE + 16];
    const char *const names[] = {"", "/best", "/last", "/units"};
    int rc = 0;
    for (size_t i = 0; !rc && i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s%s", directory, names[i]);
        rc = files_make_directory(path, err);
    }
    return rc;
}

/* All files are on disk; now their directories, and then the final name. */
int weights_publish(const char *directory, const char *data_dir, const char *id,
                    struct ovr_err *err) {
    char path[PATH_SIZE + 16], final[PATH_SIZE];
    int rc = 0;
    const char *const names[] = {"/best", "/last", "/units", ""};
    for (size_t i = 0; !rc && i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s%s", directory, names[i]);
        rc = files_sync_directory(path, err);
    }
    snprintf(final, sizeof final, "%s/experiments/%s", data_dir, id);
    rc = rc ? rc : files_remove_tree(final, err); /* of an attempt that was killed right after */
    if (!rc && rename(directory, final))
        rc = files_fail(err, "give the weights their name");
    snprintf(path, sizeof path, "%s/experiments", data_dir);
    return rc ? rc : files_sync_directory(path, err);
}

static void write_all(struct saving *s, enum model_kind kind, const struct train_result *result) {
    s->rc = files_remove_tree(s->directory, s->err);
    s->rc = s->rc ? s->rc : weights_make_directories(s->directory, s->err);
    save_net(s, "best", kind, &result->net, result->best, result->best_counts);
    save_preprocess(s, result->preprocess);
    if (result->probed)
        save_probe(s, result);
    save_net(s, "last", kind, &result->net, result->last, result->last_counts);
    for (size_t l = 0; l < result->net.config.n_layers; l++)
        save_units(s, (int)l, &result->units[l]);
}

int weights_write(const char *directory, enum model_kind kind, const struct train_result *result,
                  struct ovr_err *err) {
    struct tensor tensors[MAX_TENSORS];
    struct saving s = {.tensors = tensors, .err = err};
    snprintf(s.directory, sizeof s.directory, "%s", directory);
    write_all(&s, kind, result);
    return s.rc;
}

int weights_save(const char *data_dir, const char *id, enum model_kind kind,
                 const struct train_result *result, struct tensor tensors[MAX_TENSORS],
                 size_t *n_tensors, struct ovr_err *err) {
    struct saving s = {.tensors = tensors, .err = err};
    snprintf(s.directory, sizeof s.directory, "%s/experiments/%s.tmp", data_dir, id);
    write_all(&s, kind, result);
    if (!s.rc)
        s.rc = weights_publish(s.directory, data_dir, id, err);
    if (s.rc)
        files_remove_tree(s.directory, NULL);
    *n_tensors = s.rc ? 0 : s.n;
    return s.rc;
}

void weights_remove(const char *data_dir, const char *id) {
    char path[PATH_SIZE];
    snprintf(path, sizeof path, "%s/experiments/%s", data_dir, id);
    files_remove_tree(path, NULL);
}

/* The part of a net that a tensor's name stands for; in the file a head's rows are its outputs. */
static int find_part(const struct tensor *tensor, struct net_part *part) {
    static const char *const layers[] = {"hidden.", "encoder."};
    const char *what = NULL;
    *part = (struct net_part){.rows = tensor->rows, .cols = tensor->columns};
    if (strcmp(tensor->name, "centroids") == 0) {
        part->part = PART_WEIGHT;
        return 1;
    }
    if (strcmp(tensor->name, "counts") == 0) {
        part->part = PART_COUNTS;
        return 1;
    }
    for (int i = 0; i < 2 && !what; i++) {
        size_t n = strlen(layers[i]);
        if (strncmp(tensor->name, layers[i], n))
            continue;
        what = tensor->name + n;
        if (*what >= '0' && *what < '0' + LAYERS_MAX && what[1] == '.') {
            part->layer = (size_t)(*what - '0');
            what += 2;
        }
        part->part = strcmp(what, "weight") == 0 ? PART_WEIGHT : PART_BIAS;
    }
    if (!what &&
        (strncmp(tensor->name, "output.", 7) == 0 || strncmp(tensor->name, "decoder.", 8) == 0)) {
        what = strchr(tensor->name, '.') + 1;
        part->part = strcmp(what, "weight") == 0 ? PART_HEAD_WEIGHT : PART_HEAD_BIAS;
    }
    if (part->part == PART_HEAD_WEIGHT) {
        part->rows = tensor->columns;
        part->cols = tensor->rows;
    }
    return what && (strcmp(what, "weight") == 0 || strcmp(what, "bias") == 0);
}

size_t weights_list_parts(const struct tensor *tensors, size_t n_tensors, const char *epoch,
                          struct net_part parts[PARTS_MAX], const struct tensor *found[PARTS_MAX]) {
    size_t n = 0;
    for (size_t i = 0; i < n_tensors && n < PARTS_MAX; i++)
        if (strcmp(tensors[i].epoch, epoch) == 0 && find_part(&tensors[i], &parts[n]))
            found[n++] = &tensors[i];
    return n;
}

int weights_read(const char *data_dir, const char *id, const struct tensor *tensor, float *numbers,
                 struct ovr_err *err) {
    char path[PATH_SIZE + 128];
    size_t left = tensor->rows * tensor->columns * sizeof *numbers;
    off_t at = NPY_HEADER;
    weights_path(data_dir, id, tensor, path, sizeof path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    for (char *to = (char *)numbers; fd >= 0 && left;) {
        ssize_t n = pread(fd, to, left, at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        to += n;
        at += n;
        left -= (size_t)n;
    }
    if (fd >= 0)
        close(fd);
    return left ? ovr_fail(err, OVR_IO, NULL, "tensor %s of experiment %s cannot be read",
                           tensor->name, id)
                : 0;
}

int weights_load(const char *data_dir, const char *id, const struct tensor *tensors,
                 size_t n_tensors, const char *epoch, struct weights *weights,
                 struct ovr_err *err) {
    const struct tensor *found[PARTS_MAX];
    size_t total = 0, largest = 0, at = 0;
    *weights = (struct weights){0};
    struct initial *initial = &weights->initial;
    initial->n = weights_list_parts(tensors, n_tensors, epoch, initial->parts, found);
    for (size_t i = 0; i < initial->n; i++) {
        size_t n = found[i]->rows * found[i]->columns;
        total += n;
        largest = n > largest ? n : largest;
    }
    weights->numbers = ovr_malloc(total, sizeof *weights->numbers);
    float *rows = ovr_malloc(largest, sizeof *rows);
    int rc = weights->numbers && rows ? 0 : ovr_nomem(err, "the weights to start from");
    for (size_t i = 0; !rc && i < initial->n; i++) {
        float *to = weights->numbers + at;
        int head = initial->parts[i].part == PART_HEAD_WEIGHT;
        rc = weights_read(data_dir, id, found[i], head ? rows : to, err);
        if (!rc && head)
            transpose(rows, found[i]->rows, found[i]->columns, found[i]->columns, to);
        initial->weights[i] = to;
        at += found[i]->rows * found[i]->columns;
    }
    free(rows);
    if (rc)
        weights_release(weights);
    return rc;
}

void weights_release(struct weights *weights) {
    free(weights->numbers);
    *weights = (struct weights){0};
}
