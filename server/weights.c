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

/* What one call of weights_save() works on. After a first fault the rest is passed over, but ranks
 * send what they have. */
struct saving {
    struct team *team;
    int is_first;              /* rank: it alone writes */
    char directory[PATH_SIZE]; /* under its temporary name */
    struct saved *saved;
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

/* A tensor whose rows come block by block. */
struct sink {
    struct saving *s;
    struct npy_file file;
    char path[PATH_SIZE + 128];
    size_t rows, columns, stride; /* as they come */
    int transposed;               /* a row is a column of the file */
};

static int sink_open(struct sink *sink, const char *epoch, const char *name, int dimensions) {
    struct saving *s = sink->s;
    const size_t rows = sink->transposed ? sink->columns : sink->rows;
    const size_t columns = sink->transposed ? sink->rows : sink->columns;
    struct tensor *t = &s->saved->tensors[s->saved->n++];
    *t =
        (struct tensor){.dtype = DTYPE, .dimensions = dimensions, .rows = rows, .columns = columns};
    snprintf(t->epoch, sizeof t->epoch, "%s", epoch);
    snprintf(t->name, sizeof t->name, "%s", name);
    snprintf(sink->path, sizeof sink->path, "%s/%s/%s.npy", s->directory, epoch, name);
    return npy_create(&sink->file, sink->path, DTYPE, dimensions, rows, columns, s->err);
}

/* With its last rows, or a fault, the file is closed. */
static int sink_take(void *context, const void *numbers, size_t first, size_t n) {
    struct sink *sink = context;
    struct ovr_err *err = sink->s->err;
    int rc = sink->transposed ? npy_put_columns(&sink->file, first, n, numbers, sink->stride, err)
                              : npy_put_rows(&sink->file, first, n, numbers, err);
    return rc || first + n == sink->rows ? npy_close(&sink->file, rc, err) : 0;
}

/* A tensor of which each rank has its own units' rows, or of `kind` EVERYWHERE all. */
static void save_rows(struct sink *sink, const char *epoch, const char *name, int dimensions,
                      enum pieces kind, const real *numbers) {
    struct saving *s = sink->s;
    if (!s->rc && s->is_first) {
        s->rc = sink_open(sink, epoch, name, dimensions);
        if (s->rc)
            npy_close(&sink->file, s->rc, s->err);
    }
    int rc = team_stream(s->team, kind, numbers, sink->rows, sink->stride * sizeof *numbers,
                         s->rc ? NULL : sink_take, sink, s->err);
    s->rc = s->rc ? s->rc : rc;
}

/* What all ranks have. */
static void save(struct saving *s, const char *epoch, const char *name, int dimensions, size_t rows,
                 size_t columns, const real *numbers) {
    struct sink sink = {.s = s, .rows = rows, .columns = columns, .stride = columns};
    save_rows(&sink, epoch, name, dimensions, EVERYWHERE, numbers);
}

static int is_kmeans(enum model_kind kind) {
    return kind == MODEL_KMEANS || kind == MODEL_ONLINE_KMEANS;
}

/* The name of a part of the net. A bias of k-means follows from its centroid and has no file. */
static void name_part(enum model_kind kind, size_t n_layers, const struct net_part *part,
                      char name[64]) {
    int head = part->part == PART_HEAD_WEIGHT || part->part == PART_HEAD_BIAS;
    const char *what =
        part->part == PART_WEIGHT || part->part == PART_HEAD_WEIGHT ? "weight" : "bias";
    if (is_kmeans(kind))
        snprintf(name, 64, "centroids");
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

/* A flat buffer on its way into files, and into its digest. */
struct net_sink {
    struct sink sink; /* of the part in hand */
    const char *epoch;
    enum model_kind kind;
    size_t n_layers;
    struct digest digest;
};

/* A read-out is kept unit by unit; the file has one row for each output. */
static int open_part(struct net_sink *to, const struct net_part *part) {
    char name[64];
    name_part(to->kind, to->n_layers, part, name);
    to->sink = (struct sink){.s = to->sink.s,
                             .rows = part->rows,
                             .columns = part->cols,
                             .stride = part->stride,
                             .transposed = part->part == PART_HEAD_WEIGHT};
    int matrix = part->part == PART_WEIGHT || part->part == PART_HEAD_WEIGHT;
    int rc = sink_open(&to->sink, to->epoch, name, matrix ? 2 : 1);
    return rc ? npy_close(&to->sink.file, rc, to->sink.s->err) : 0;
}

static int take_rows(void *context, const struct net_rows *rows) {
    struct net_sink *to = context;
    const struct net_part *part = rows->part;
    digest_add(&to->digest, rows->numbers, rows->n * rows->stride * sizeof(real));
    if (!part || (is_kmeans(to->kind) && part->part == PART_BIAS))
        return 0;
    int rc = rows->first ? 0 : open_part(to, part);
    return rc ? rc : sink_take(&to->sink, rows->numbers, rows->first, rows->n);
}

static void save_net(struct saving *s, const char *epoch, enum model_kind kind,
                     const struct net *net, const real *params, const real *counts,
                     char digest[DIGEST_SIZE]) {
    struct net_sink to = {
        .sink = {.s = s}, .epoch = epoch, .kind = kind, .n_layers = net->config.n_layers};
    digest_init(&to.digest);
    int rc = net_stream(s->team, net, params, s->rc ? NULL : take_rows, &to, s->err);
    s->rc = s->rc ? s->rc : rc;
    digest_hex(&to.digest, digest);
    if (!is_kmeans(kind))
        return;
    struct sink sink = {.s = s, .rows = net->config.units[0], .columns = 1, .stride = 1};
    save_rows(&sink, epoch, "counts", 1, BY_UNIT, counts);
}

static void save_probe(struct saving *s, const struct train_result *r) {
    size_t k = r->net.config.units[r->net.config.n_layers - 1];
    struct sink sink = {
        .s = s, .rows = k, .columns = r->data_classes, .stride = r->probe.width, .transposed = 1};
    save_rows(&sink, "best", "probe.weight", 2, BY_UNIT, r->probe.weights);
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
    if (!s->rc && s->is_first && rows && columns)
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
    s->saved->n = 0;
    if (s->is_first)
        s->rc = files_remove_tree(s->directory, s->err);
    if (s->is_first && !s->rc)
        s->rc = weights_make_directories(s->directory, s->err);
    save_net(s, "best", kind, &result->net, result->best, result->best_counts, s->saved->best);
    save_preprocess(s, result->preprocess);
    if (result->probed)
        save_probe(s, result);
    save_net(s, "last", kind, &result->net, result->last, result->last_counts, s->saved->last);
    for (size_t l = 0; l < result->net.config.n_layers; l++)
        save_units(s, (int)l, &result->units[l]);
}

int weights_write(struct team *team, const char *directory, enum model_kind kind,
                  const struct train_result *result, struct saved *saved, struct ovr_err *err) {
    struct saving s = {
        .team = team, .is_first = !team || team_rank(team) == 0, .saved = saved, .err = err};
    snprintf(s.directory, sizeof s.directory, "%s", directory);
    write_all(&s, kind, result);
    return s.rc;
}

int weights_save(const char *data_dir, const char *id, enum model_kind kind,
                 const struct train_result *result, struct saved *saved, struct ovr_err *err) {
    struct saving s = {.is_first = 1, .saved = saved, .err = err};
    snprintf(s.directory, sizeof s.directory, "%s/experiments/%s.tmp", data_dir, id);
    write_all(&s, kind, result);
    if (!s.rc)
        s.rc = weights_publish(s.directory, data_dir, id, err);
    if (s.rc) {
        files_remove_tree(s.directory, NULL);
        saved->n = 0;
    }
    return s.rc;
}

static int add_to_digest(void *context, const struct net_rows *rows) {
    digest_add(context, rows->numbers, rows->n * rows->stride * sizeof(real));
    return 0;
}

int weights_digest(struct team *team, const struct net *net, const real *params,
                   char hex[DIGEST_SIZE], struct ovr_err *err) {
    struct digest digest;
    digest_init(&digest);
    int rc = net_stream(team, net, params, add_to_digest, &digest, err);
    digest_hex(&digest, hex);
    return rc;
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
