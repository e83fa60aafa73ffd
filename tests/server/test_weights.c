/* Weights on disk: a result made by hand comes back from NPY files, whole or not at all. */
#include "core/npy.h"
#include "server/weights.h"
#include "tests/server/check.h"

#include <signal.h>
#include <sys/resource.h>

enum {
    UNITS = 5,
    INPUTS = 3,
    CLASSES = 3,
    WIDTH = 16,
    PARAMS = UNITS * (INPUTS + 1 + WIDTH) + WIDTH
};

static const char ID[] = "abc";

/* Element i of a buffer: no two are alike. */
static real *new_numbers(size_t n, int mark) {
    real *x = new_reals(n);
    for (size_t i = 0; i < n; i++)
        x[i] = (real)(mark * 1000 + (int)i);
    return x;
}

/* With two steps of preprocessing and a probe; of an mlp's shape, which an encoder's starts with.
 */
static struct train_result new_result(int classifier, struct preprocess *preprocess) {
    struct train_result r = {.data_classes = CLASSES, .best_epoch = 1, .epochs = 2, .probed = 1};
    const struct net_config shape = {
        .n_inputs = INPUTS, .n_layers = 1, .units = {UNITS}, .n_classes = classifier ? CLASSES : 0};
    struct arena counting = {0};
    net_place(&r.net, &shape, kernels_get(ISA_BASELINE), 0, 1, &(struct crew){1, 1}, &counting);
    r.best = new_numbers(PARAMS, 1);
    r.last = new_numbers(PARAMS, 2);
    r.probe.width = WIDTH;
    r.probe.weights = new_numbers((UNITS + 1) * WIDTH, 3);
    *preprocess = (struct preprocess){.n_steps = 2, .n_in = 4};
    r.preprocess = preprocess;
    preprocess->steps[0] = (struct fitted_step){.kind = PREPROCESS_STANDARDIZE,
                                                .n_in = 4,
                                                .n_out = 4,
                                                .mean = new_numbers(4, 4),
                                                .scale = new_numbers(4, 5)};
    preprocess->steps[1] = (struct fitted_step){.kind = PREPROCESS_PCA,
                                                .n_in = 4,
                                                .n_out = INPUTS,
                                                .mean = new_numbers(4, 6),
                                                .components = new_numbers(4 * INPUTS, 7)};
    return r;
}

static void release(struct train_result *r, struct preprocess *preprocess) {
    free(r->best);
    free(r->last);
    free(r->probe.weights);
    preprocess_release(preprocess);
}

static int save_and_list(const char *dir, const char *id, enum model_kind kind,
                         const struct train_result *r, struct tensor list[MAX_TENSORS], size_t *n,
                         struct ovr_err *err) {
    struct saved saved;
    char digest[DIGEST_SIZE];
    int rc = weights_save(dir, id, kind, r, &saved, err);
    *n = saved.n;
    memcpy(list, saved.tensors, saved.n * sizeof *list);
    if (rc)
        return rc;
    digest_of(r->best, r->net.n_params * sizeof(real), digest);
    assert_string_equal(saved.best, digest);
    digest_of(r->last, r->net.n_params * sizeof(real), digest);
    assert_string_equal(saved.last, digest);
    assert_ok(weights_digest(NULL, &r->net, r->best, digest, err), err);
    assert_string_equal(saved.best, digest);
    return 0;
}

/* The numbers of an NPY file (format 1.0), whose header has to be exactly this. */
static float *read_npy(const char *path, size_t rows, size_t columns, int dimensions) {
    size_t n;
    char *bytes = read_whole(path, &n), expected[160], shape[64];
    if (n < 10 || memcmp(bytes, "\x93NUMPY\x01\x00", 8))
        fail_msg("%s is not NPY", path);
    size_t header = 10 + (size_t)(unsigned char)bytes[8] + 256 * (size_t)(unsigned char)bytes[9];
    assert_int_equal(header % 64, 0);
    assert_int_equal(n, header + rows * columns * sizeof(float));
    snprintf(shape, sizeof shape, dimensions == 1 ? "(%zu,)" : "(%zu, %zu)", rows, columns);
    snprintf(expected, sizeof expected, "{'descr': '<f4', 'fortran_order': False, 'shape': %s, }",
             shape);
    assert_int_equal(strncmp(bytes + 10, expected, strlen(expected)), 0);
    for (size_t i = 10 + strlen(expected); i < header; i++)
        assert_int_equal(bytes[i], i + 1 == header ? '\n' : ' ');
    float *numbers = calloc(rows * columns, sizeof *numbers);
    assert_non_null(numbers);
    memcpy(numbers, bytes + header, rows * columns * sizeof *numbers);
    free(bytes);
    return numbers;
}

/* The listed tensor and its file: element (i, j) is first + i·down + j·across. */
static void check_tensor(const char *dir, const struct tensor *list, size_t n, const char *epoch,
                         const char *name, int dimensions, size_t rows, size_t columns, int first,
                         int down, int across) {
    char path[256];
    const struct tensor *t = NULL;
    for (size_t i = 0; i < n; i++)
        if (!strcmp(list[i].epoch, epoch) && !strcmp(list[i].name, name))
            t = &list[i];
    if (!t)
        fail_msg("%s of %s is not listed", name, epoch);
    assert_int_equal(t->dimensions, dimensions);
    assert_int_equal(t->rows, rows);
    assert_int_equal(t->columns, columns);
    assert_string_equal(t->dtype, "float32");
    weights_path(dir, ID, t, path, sizeof path);
    float *numbers = read_npy(path, rows, columns, dimensions);
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < columns; j++)
            assert_true(numbers[i * columns + j] ==
                        (float)(first + (int)i * down + (int)j * across));
    free(numbers);
}

static void check_part(const char *dir, const char *part, int dimensions, size_t rows,
                       size_t columns, int mark) {
    char path[256];
    weights_units_path(dir, ID, 0, part, path, sizeof path);
    float *numbers = read_npy(path, rows, columns, dimensions);
    for (size_t i = 0; i < rows * columns; i++)
        assert_true(numbers[i] == (float)(mark * 1000 + (int)i));
    free(numbers);
}

static void a_table_of_units_comes_back(void **state) {
    const char *dir = ((struct place *)*state)->dir;
    struct preprocess preprocess;
    struct train_result r = new_result(0, &preprocess);
    struct tensor list[MAX_TENSORS];
    size_t n, without;
    struct ovr_err err = {0};
    assert_ok(weights_init(dir, &err), &err);
    assert_ok(save_and_list(dir, ID, MODEL_OVR_ENCODER, &r, list, &without, &err), &err);
    assert_int_equal(count_entries(dir, "/experiments/abc/units"), 0);
    r.units[0] = (struct units){.n_units = UNITS,
                                .n_classes = CLASSES,
                                .table = new_numbers(UNITS * UNIT_FIGURES, 1),
                                .class_means = new_numbers(UNITS * CLASSES, 2),
                                .cell_means = new_numbers(UNITS * 7, 3),
                                .cell_samples = new_numbers(7, 4)};
    for (size_t cells = 0; cells <= 7; cells += 7) {
        r.units[0].n_cells = cells;
        assert_ok(save_and_list(dir, ID, MODEL_OVR_ENCODER, &r, list, &n, &err), &err);
        assert_int_equal(n, without); /* they are no tensors of the model */
        check_part(dir, "table", 2, UNITS, UNIT_FIGURES, 1);
        check_part(dir, "classes", 2, UNITS, CLASSES, 2);
        assert_int_equal(count_entries(dir, "/experiments/abc/units"), cells ? 4 : 2);
    }
    check_part(dir, "cells", 2, UNITS, 7, 3);
    check_part(dir, "cell_samples", 1, 7, 1, 4);
    free(r.units[0].table);
    free(r.units[0].class_means);
    free(r.units[0].cell_means);
    free(r.units[0].cell_samples);
    release(&r, &preprocess);
}

static void prepare(const char *dir) {
    struct ovr_err err = {0};
    assert_ok(weights_init(dir, &err), &err);
}

static void an_mlp_comes_back(void **state) {
    const char *dir = ((struct place *)*state)->dir;
    struct preprocess preprocess;
    struct train_result r = new_result(1, &preprocess);
    struct tensor list[MAX_TENSORS];
    size_t n;
    struct ovr_err err = {0};
    prepare(dir);
    assert_ok(save_and_list(dir, ID, MODEL_MLP, &r, list, &n, &err), &err);
    assert_int_equal(n, 4 + 4 + 2 + 4);
    for (int last = 0; last < 2; last++) {
        const char *epoch = last ? "last" : "best";
        int first = last ? 2000 : 1000, head = first + UNITS * (INPUTS + 1);
        check_tensor(dir, list, n, epoch, "hidden.0.weight", 2, UNITS, INPUTS, first, INPUTS, 1);
        check_tensor(dir, list, n, epoch, "hidden.0.bias", 1, UNITS, 1, first + UNITS * INPUTS, 1,
                     0);
        check_tensor(dir, list, n, epoch, "output.weight", 2, CLASSES, UNITS, head, 1, WIDTH);
        check_tensor(dir, list, n, epoch, "output.bias", 1, CLASSES, 1, head + UNITS * WIDTH, 1, 0);
    }
    check_tensor(dir, list, n, "best", "probe.weight", 2, CLASSES, UNITS, 3000, 1, WIDTH);
    check_tensor(dir, list, n, "best", "probe.bias", 1, CLASSES, 1, 3000 + UNITS * WIDTH, 1, 0);
    check_tensor(dir, list, n, "best", "preprocess.0.mean", 1, 4, 1, 4000, 1, 0);
    check_tensor(dir, list, n, "best", "preprocess.0.scale", 1, 4, 1, 5000, 1, 0);
    check_tensor(dir, list, n, "best", "preprocess.1.mean", 1, 4, 1, 6000, 1, 0);
    check_tensor(dir, list, n, "best", "preprocess.1.components", 2, INPUTS, 4, 7000, 4, 1);
    assert_int_equal(count_entries(dir, "/experiments"), 1);
    assert_int_equal(count_entries(dir, "/experiments/abc"), 3);
    assert_int_equal(count_entries(dir, "/experiments/abc/best"), 10);
    assert_int_equal(count_entries(dir, "/experiments/abc/last"), 4);
    weights_remove(dir, ID);
    weights_remove(dir, ID);
    assert_int_equal(count_entries(dir, "/experiments"), 0);
    release(&r, &preprocess);
}

static void an_encoder_comes_back(void **state) {
    const char *dir = ((struct place *)*state)->dir;
    struct preprocess preprocess;
    struct train_result r = new_result(0, &preprocess);
    struct tensor list[MAX_TENSORS];
    size_t n;
    struct ovr_err err = {0};
    prepare(dir);
    r.probed = 0;
    assert_ok(save_and_list(dir, ID, MODEL_OVR_ENCODER, &r, list, &n, &err), &err);
    assert_int_equal(n, 2 + 2 + 4);
    check_tensor(dir, list, n, "best", "encoder.weight", 2, UNITS, INPUTS, 1000, INPUTS, 1);
    check_tensor(dir, list, n, "last", "encoder.bias", 1, UNITS, 1, 2000 + UNITS * INPUTS, 1, 0);
    assert_int_equal(count_entries(dir, "/experiments/abc/best"), 6);
    release(&r, &preprocess);
}

/* A result of any net; element i of its flat buffer is 1000·mark + i. */
static struct train_result new_net_result(const struct net_config *shape,
                                          struct preprocess *preprocess) {
    struct train_result r = new_result(0, preprocess);
    struct arena counting = {0};
    net_place(&r.net, shape, kernels_get(ISA_BASELINE), 0, 1, &(struct crew){1, 1}, &counting);
    free(r.best);
    free(r.last);
    free(r.probe.weights);
    r.best = new_numbers(r.net.n_params, 1);
    r.last = new_numbers(r.net.n_params, 2);
    r.probe.weights = new_numbers((shape->units[shape->n_layers - 1] + 1) * WIDTH, 3);
    return r;
}

static const struct net_config deep_mlp = {.n_inputs = INPUTS,
                                           .n_layers = LAYERS_MAX,
                                           .units = {5, 4, 3, 2, 3, 4, 5, 6},
                                           .n_classes = CLASSES};
static const struct net_config deep_encoder = {
    .n_inputs = INPUTS, .n_layers = 3, .units = {5, 4, 3}};
static const struct net_config autoencoder = {
    .n_inputs = INPUTS, .n_layers = 1, .units = {UNITS}, .decoder = 1};
static const struct net_config tied = {
    .n_inputs = INPUTS, .n_layers = 1, .units = {UNITS}, .decoder = 1, .tied = 1};

static void the_most_tensors_have_room(void **state) {
    const char *dir = ((struct place *)*state)->dir;
    struct preprocess preprocess;
    struct train_result r = new_net_result(&deep_mlp, &preprocess);
    struct tensor list[MAX_TENSORS];
    size_t n;
    struct ovr_err err = {0};
    prepare(dir);
    for (size_t i = 2; i < PREPROCESS_MAX; i++)
        preprocess.steps[i] = (struct fitted_step){.kind = PREPROCESS_STANDARDIZE,
                                                   .n_in = INPUTS,
                                                   .n_out = INPUTS,
                                                   .mean = new_numbers(INPUTS, 8),
                                                   .scale = new_numbers(INPUTS, 9)};
    preprocess.n_steps = PREPROCESS_MAX;
    assert_ok(save_and_list(dir, ID, MODEL_MLP, &r, list, &n, &err), &err);
    assert_int_equal(n, MAX_TENSORS);
    release(&r, &preprocess);
}

/* The layers of a deep net, one after the other in the flat buffer. Returns where they end. */
static int check_layers(const char *dir, const struct tensor *list, size_t n,
                        const struct net_config *shape, const char *prefix) {
    size_t at = 0, d = INPUTS;
    for (size_t l = 0; l < shape->n_layers; l++) {
        size_t k = shape->units[l];
        char weight[64], bias[64];
        snprintf(weight, sizeof weight, "%s.%zu.weight", prefix, l);
        snprintf(bias, sizeof bias, "%s.%zu.bias", prefix, l);
        check_tensor(dir, list, n, "best", weight, 2, k, d, 1000 + (int)at, (int)d, 1);
        check_tensor(dir, list, n, "last", bias, 1, k, 1, 2000 + (int)(at + k * d), 1, 0);
        at += k * (d + 1);
        d = k;
    }
    return (int)at;
}

static void deep_nets_come_back(void **state) {
    const char *dir = ((struct place *)*state)->dir;
    struct preprocess preprocess;
    struct train_result r = new_net_result(&deep_mlp, &preprocess);
    struct tensor list[MAX_TENSORS];
    size_t n;
    struct ovr_err err = {0};
    prepare(dir);
    assert_ok(save_and_list(dir, ID, MODEL_MLP, &r, list, &n, &err), &err);
    assert_int_equal(n, 2 * PARTS_MAX + 2 + 4);
    int at = check_layers(dir, list, n, &deep_mlp, "hidden");
    check_tensor(dir, list, n, "best", "output.weight", 2, CLASSES, 6, 1000 + at, 1, WIDTH);
    check_tensor(dir, list, n, "last", "output.bias", 1, CLASSES, 1, 2000 + at + 6 * WIDTH, 1, 0);
    check_tensor(dir, list, n, "best", "probe.weight", 2, CLASSES, 6, 3000, 1, WIDTH);
    release(&r, &preprocess);

    r = new_net_result(&deep_encoder, &preprocess);
    assert_ok(save_and_list(dir, ID, MODEL_OVR_ENCODER, &r, list, &n, &err), &err);
    assert_int_equal(n, 2 * 6 + 2 + 4);
    check_layers(dir, list, n, &deep_encoder, "encoder");
    release(&r, &preprocess);
}

static void autoencoders_come_back(void **state) {
    const char *dir = ((struct place *)*state)->dir;
    struct preprocess preprocess;
    struct train_result r = new_net_result(&autoencoder, &preprocess);
    struct tensor list[MAX_TENSORS];
    enum { V = UNITS * (INPUTS + 1), C = V + UNITS * INPUTS };
    size_t n;
    struct ovr_err err = {0};
    prepare(dir);
    assert_ok(save_and_list(dir, ID, MODEL_AUTOENCODER, &r, list, &n, &err), &err);
    assert_int_equal(n, 2 * 4 + 2 + 4);
    check_tensor(dir, list, n, "best", "encoder.weight", 2, UNITS, INPUTS, 1000, INPUTS, 1);
    check_tensor(dir, list, n, "best", "encoder.bias", 1, UNITS, 1, 1000 + UNITS * INPUTS, 1, 0);
    check_tensor(dir, list, n, "last", "decoder.weight", 2, INPUTS, UNITS, 2000 + V, 1, INPUTS);
    check_tensor(dir, list, n, "best", "decoder.bias", 1, INPUTS, 1, 1000 + C, 1, 0);
    release(&r, &preprocess);

    r = new_net_result(&tied, &preprocess);
    assert_ok(save_and_list(dir, ID, MODEL_AUTOENCODER, &r, list, &n, &err), &err);
    assert_int_equal(n, 2 * 3 + 2 + 4);
    check_tensor(dir, list, n, "last", "decoder.bias", 1, INPUTS, 1, 2000 + V, 1, 0);
    release(&r, &preprocess);
}

/* What was saved is what a net of the same shape would start from, part by part. */
static void check_start(const char *dir, enum model_kind kind, const struct net_config *shape) {
    static const char *const epochs[] = {"best", "last"};
    struct preprocess preprocess;
    struct train_result r = new_net_result(shape, &preprocess);
    struct tensor list[MAX_TENSORS];
    struct net_part expected[PARTS_MAX];
    size_t n, n_parts = net_parts(&r.net, expected);
    struct ovr_err err = {0};
    assert_ok(save_and_list(dir, ID, kind, &r, list, &n, &err), &err);
    for (int e = 0; e < 2; e++) {
        struct weights weights;
        const real *saved = e ? r.last : r.best;
        assert_ok(weights_load(dir, ID, list, n, epochs[e], &weights, &err), &err);
        const struct initial *initial = &weights.initial;
        assert_int_equal(initial->n, n_parts);
        for (size_t p = 0; p < n_parts; p++) {
            const struct net_part *part = &expected[p];
            assert_true(initial_fits(&initial->parts[p], part));
            for (size_t i = 0; i < part->rows * part->cols; i++)
                assert_true(initial->weights[p][i] ==
                            saved[part->at + i / part->cols * part->stride + i % part->cols]);
        }
        weights_release(&weights);
        assert_null(weights.numbers);
    }
    release(&r, &preprocess);
}

static void weights_to_start_from(void **state) {
    const char *dir = ((struct place *)*state)->dir;
    const struct net_config encoder = {.n_inputs = INPUTS, .n_layers = 1, .units = {UNITS}};
    prepare(dir);
    check_start(dir, MODEL_OVR_ENCODER, &encoder);
    check_start(dir, MODEL_OVR_ENCODER, &deep_encoder);
    check_start(dir, MODEL_MLP, &deep_mlp);
    check_start(dir, MODEL_AUTOENCODER, &autoencoder);
    check_start(dir, MODEL_AUTOENCODER, &tied);
}

/* Names that are no part of a net, and one epoch's beside the other's. */
static void other_tensors_are_no_parts(void **state) {
    (void)state;
    const struct tensor list[] = {
        {.epoch = "best", .name = "probe.weight", .rows = 2, .columns = 3},
        {.epoch = "best", .name = "preprocess.0.mean", .rows = 2, .columns = 3},
        {.epoch = "best", .name = "encoder.scale", .rows = 2, .columns = 3},
        {.epoch = "best", .name = "encoder.9.weight", .rows = 2, .columns = 3},
        {.epoch = "best", .name = "encoder.", .rows = 2, .columns = 3},
        {.epoch = "last", .name = "encoder.weight", .rows = 2, .columns = 3},
        {.epoch = "best", .name = "hidden.7.bias", .rows = 4, .columns = 1},
        {.epoch = "best", .name = "output.weight", .rows = 2, .columns = 3},
        {.epoch = "best", .name = "output.bia", .rows = 2, .columns = 1},
    };
    struct net_part parts[PARTS_MAX];
    const struct tensor *found[PARTS_MAX];
    assert_int_equal(weights_list_parts(list, COUNT(list), "best", parts, found), 2);
    assert_true(found[0] == &list[6] && found[1] == &list[7]);
    assert_true(parts[0].part == PART_BIAS && parts[0].layer == 7 && parts[0].rows == 4);
    assert_true(parts[1].part == PART_HEAD_WEIGHT && parts[1].rows == 3 && parts[1].cols == 2);
    assert_int_equal(weights_list_parts(list, COUNT(list), "last", parts, found), 1);
    assert_int_equal(parts[0].part, PART_WEIGHT);
}

static void damaged_files_cannot_be_started_from(void **state) {
    const char *dir = ((struct place *)*state)->dir;
    struct preprocess preprocess;
    struct train_result r = new_net_result(&autoencoder, &preprocess);
    struct tensor list[MAX_TENSORS];
    struct weights weights;
    char path[256];
    size_t n;
    struct ovr_err err = {0};
    prepare(dir);
    assert_ok(save_and_list(dir, ID, MODEL_AUTOENCODER, &r, list, &n, &err), &err);
    const off_t sizes[] = {NPY_HEADER + 4 * UNITS * INPUTS - 1, NPY_HEADER, 10, 0};
    for (size_t i = 0; i < COUNT(sizes); i++)
        for (size_t t = 0; t < 3; t += 2) { /* the encoder's weights and the decoder's */
            assert_ok(save_and_list(dir, ID, MODEL_AUTOENCODER, &r, list, &n, &err), &err);
            weights_path(dir, ID, &list[t], path, sizeof path);
            assert_int_equal(truncate(path, sizes[i]), 0);
            err = (struct ovr_err){0};
            assert_failed(weights_load(dir, ID, list, n, "best", &weights, &err), OVR_IO, &err,
                          "of experiment abc cannot be read");
            assert_true(weights.numbers == NULL && weights.initial.n == 0);
            err = (struct ovr_err){0};
            assert_ok(weights_load(dir, ID, list, n, "last", &weights, &err), &err);
            weights_release(&weights);
        }
    assert_int_equal(unlink(path), 0);
    assert_failed(weights_load(dir, ID, list, n, "best", &weights, &err), OVR_IO, &err, "decoder");
    release(&r, &preprocess);
}

/* Of an earlier attempt, killed at any moment. */
static void what_lies_in_the_way_goes(void **state) {
    const char *dir = ((struct place *)*state)->dir;
    static const char *const leftovers[] = {"/experiments/abc.tmp", "/experiments/abc.tmp/best",
                                            "/experiments/abc", "/experiments/abc/old"};
    struct preprocess preprocess;
    struct train_result r = new_result(0, &preprocess);
    struct tensor list[MAX_TENSORS];
    size_t n;
    struct ovr_err err = {0};
    char path[128];
    prepare(dir);
    for (size_t i = 0; i < COUNT(leftovers); i++) {
        snprintf(path, sizeof path, "%s%s", dir, leftovers[i]);
        assert_int_equal(mkdir(path, 0755), 0);
    }
    snprintf(path, sizeof path, "%s/experiments/abc.tmp/best/x", dir);
    write_whole(path, "x", 1);
    assert_ok(save_and_list(dir, ID, MODEL_OVR_ENCODER, &r, list, &n, &err), &err);
    assert_int_equal(count_entries(dir, "/experiments"), 1);
    assert_int_equal(count_entries(dir, "/experiments/abc"), 3);
    prepare(dir); /* the next start keeps it */
    assert_int_equal(count_entries(dir, "/experiments/abc/best"), 8);
    release(&r, &preprocess);
}

static void a_file_instead_of_the_directory(void **state) {
    const char *dir = ((struct place *)*state)->dir;
    struct preprocess preprocess;
    struct train_result r = new_result(0, &preprocess);
    struct tensor list[MAX_TENSORS];
    size_t n = 9;
    struct ovr_err err = {0};
    char path[128];
    snprintf(path, sizeof path, "%s/experiments", dir);
    write_whole(path, "x", 1);
    assert_failed(save_and_list(dir, ID, MODEL_OVR_ENCODER, &r, list, &n, &err), OVR_IO, &err,
                  "cannot make");
    assert_int_equal(n, 0);
    err = (struct ovr_err){0};
    assert_failed(weights_init(dir, &err), OVR_IO, &err, path);
    release(&r, &preprocess);
}

/* Files may have `limit` bytes: from none at all to all but the largest, nothing is left behind. */
static void a_full_disk_leaves_nothing(void **state) {
    const char *dir = ((struct place *)*state)->dir;
    struct preprocess preprocess;
    struct train_result r = new_result(1, &preprocess);
    struct tensor list[MAX_TENSORS];
    struct rlimit before, now;
    prepare(dir);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    static const rlim_t limits[] = {
        0, 100, 128, 130, 128 + 4 * UNITS, 128 + 4 * UNITS * INPUTS - 1};
    for (size_t i = 0; i < COUNT(limits); i++) {
        struct ovr_err err = {0};
        size_t n = 9;
        now = before;
        now.rlim_cur = limits[i];
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &now), 0);
        int rc = save_and_list(dir, ID, MODEL_MLP, &r, list, &n, &err);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
        assert_failed(rc, OVR_IO, &err, "cannot write");
        assert_int_equal(n, 0);
        assert_int_equal(count_entries(dir, "/experiments"), 0);
    }
    release(&r, &preprocess);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        with_place(an_mlp_comes_back),
        with_place(an_encoder_comes_back),
        with_place(the_most_tensors_have_room),
        with_place(deep_nets_come_back),
        with_place(autoencoders_come_back),
        with_place(weights_to_start_from),
        cmocka_unit_test(other_tensors_are_no_parts),
        with_place(damaged_files_cannot_be_started_from),
        with_place(a_table_of_units_comes_back),
        with_place(what_lies_in_the_way_goes),
        with_place(a_file_instead_of_the_directory),
        with_place(a_full_disk_leaves_nothing),
    };
    return cmocka_run_group_tests_name("server/weights", tests, NULL, NULL);
}
