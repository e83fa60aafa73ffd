/* Prepared data: the splits of both protocols, and the same block from memory and from a file. */
#include "core/prepared.h"
#include "tests/core/check.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

enum { TRAIN = 203, TEST = 40, WIDTH = 6, CLASSES = 3 };

struct data {
    struct samples train, test;
    struct team *team;
};

static struct data new_data(void) {
    return (struct data){new_samples(TRAIN, WIDTH, CLASSES, 1),
                         new_samples(TEST, WIDTH, CLASSES, 3), new_team(2)};
}

static void data_release(struct data *data) {
    samples_release(&data->train);
    samples_release(&data->test);
    team_free(data->team);
}

static struct prepare_config two_steps(enum protocol protocol) {
    return (struct prepare_config){
        .protocol = protocol,
        .validation = 0.25,
        .preprocess = {{.kind = PREPROCESS_STANDARDIZE}, {PREPROCESS_PCA, .components = 4}},
        .n_preprocess = 2};
}

static struct prepared *build(const struct data *data, const struct prepare_config *config,
                              uint64_t seed, int fd) {
    struct prepared *p;
    struct ovr_err err = {0};
    assert_ok(prepared_build(&p, config, seed, &data->train, &data->test, data->team,
                             kernels_get(ISA_AUTO), fd, NULL, &err),
              &err);
    return p;
}

/* A nameless file. */
static int new_fd(void) {
    int fd = memfd_create("prepared", MFD_CLOEXEC);
    assert_true(fd >= 0);
    return fd;
}

/* Without steps every prepared row is a raw one: which? */
static size_t find_row(const struct samples *samples, const real *row) {
    for (size_t i = 0; i < samples->n; i++)
        if (memcmp(samples->values + i * WIDTH, row, WIDTH * sizeof *row) == 0)
            return i;
    fail_msg("a row that was never given");
    return 0;
}

static void clean_splits(void **state) {
    (void)state;
    struct data data = new_data();
    struct prepare_config config = {.protocol = PROTOCOL_CLEAN, .validation = 0.25};
    struct prepared *p = build(&data, &config, 5, -1), *other = build(&data, &config, 6, -1);
    const struct split *parts[] = {&p->train, &p->watched};
    int seen[TRAIN] = {0};
    assert_int_equal(p->watched.n, 51);
    assert_int_equal(p->train.n, TRAIN - 51);
    assert_int_equal(p->n_inputs, WIDTH);
    assert_int_equal(p->n_classes, CLASSES);
    for (int part = 0; part < 2; part++)
        for (size_t i = 0, last = 0; i < parts[part]->n; i++) {
            size_t row = find_row(&data.train, parts[part]->x + i * WIDTH);
            assert_true(i == 0 || row > last); /* memory order */
            assert_int_equal(parts[part]->labels[i], data.train.labels[row]);
            assert_int_equal(seen[row]++, 0);
            last = row;
        }
    assert_int_equal(p->test.n, TEST);
    assert_memory_equal(p->test.x, data.test.values, TEST * WIDTH * sizeof(real));
    assert_memory_equal(p->test.labels, data.test.labels, TEST * sizeof(uint16_t));
    assert_memory_not_equal(p->watched.x, other->watched.x, 51 * WIDTH * sizeof(real));
    prepared_free(p);
    prepared_free(other);
    data_release(&data);
}

static void published_splits(void **state) {
    (void)state;
    struct data data = new_data();
    struct prepare_config config = {.protocol = PROTOCOL_PUBLISHED};
    struct prepared *p = build(&data, &config, 5, -1);
    assert_int_equal(p->train.n, TRAIN);
    assert_memory_equal(p->train.x, data.train.values, TRAIN * WIDTH * sizeof(real));
    assert_int_equal(p->watched.n, TEST);
    assert_memory_equal(p->watched.x, data.test.values, TEST * WIDTH * sizeof(real));
    assert_int_equal(p->test.n, 0);
    prepared_free(p);
    data_release(&data);
}

static void assert_same(const struct prepared *a, const struct prepared *b) {
    assert_int_equal(a->bytes, b->bytes);
    assert_memory_equal(a->block, b->block, a->bytes);
    assert_int_equal(a->n_inputs, b->n_inputs);
    assert_int_equal(a->n_classes, b->n_classes);
    assert_int_equal(a->preprocess.n_steps, b->preprocess.n_steps);
    const struct fitted_step *x = &a->preprocess.steps[1], *y = &b->preprocess.steps[1];
    assert_int_equal(x->n_out, y->n_out);
    assert_memory_equal(x->components, y->components, x->n_out * x->n_in * sizeof(real));
    assert_int_equal(a->watched.n, b->watched.n);
    assert_memory_equal(a->watched.x, b->watched.x, a->watched.n * a->n_inputs * sizeof(real));
}

static void a_file_holds_the_same(void **state) {
    (void)state;
    struct data data = new_data();
    struct ovr_err err = {0};
    struct prepare_config config = two_steps(PROTOCOL_CLEAN);
    int fd = new_fd();
    struct prepared *memory = build(&data, &config, 5, -1), *file = build(&data, &config, 5, fd);
    struct prepared *mapped;
    assert_int_equal(memory->in_file, 0);
    assert_int_equal(file->in_file, 1);
    assert_int_equal(file->bytes, prepared_bytes(&config, TRAIN, TEST, WIDTH, 0));
    assert_same(memory, file);
    size_t bytes = file->bytes;
    prepared_free(file);
    assert_ok(prepared_map(&mapped, fd, bytes, &err), &err);
    assert_same(memory, mapped);
    prepared_free(mapped);
    prepared_free(memory);
    close(fd);
    data_release(&data);
}

static void other_files_are_refused(void **state) {
    (void)state;
    struct data data = new_data();
    struct prepare_config config = two_steps(PROTOCOL_PUBLISHED);
    int fd = new_fd();
    struct prepared *p = build(&data, &config, 5, fd);
    size_t bytes = p->bytes;
    prepared_free(p);
    for (int i = 0; i < 4; i++) {
        struct ovr_err err = {0};
        size_t n = i == 0 ? 0 : i == 1 ? 100 : i == 2 ? bytes - 64 : bytes;
        if (i == 3)
            assert_int_equal(pwrite(fd, "another", 8, 0), 8);
        assert_failed(prepared_map(&p, fd, n, &err), OVR_IO, &err, "no prepared data");
        assert_null(p);
    }
    close(fd);
    data_release(&data);
}

/* A file that can't hold the block (here: opened for reading) leaves it in memory. */
static void goes_without_the_file(void **state) {
    (void)state;
    struct data data = new_data();
    struct prepare_config config = two_steps(PROTOCOL_CLEAN);
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    struct prepared *memory = build(&data, &config, 5, -1), *p = build(&data, &config, 5, fd);
    assert_int_equal(p->in_file, 0);
    assert_same(memory, p);
    prepared_free(p);
    prepared_free(memory);
    close(fd);
    data_release(&data);
}

static void stop_flag_is_obeyed(void **state) {
    (void)state;
    struct data data = new_data();
    struct prepare_config config = two_steps(PROTOCOL_CLEAN);
    const _Atomic int stop = 1;
    struct ovr_err err = {0};
    struct prepared *p;
    int rc = prepared_build(&p, &config, 5, &data.train, &data.test, data.team,
                            kernels_get(ISA_AUTO), -1, &stop, &err);
    assert_failed(rc, OVR_STOPPED, &err, "stopped");
    assert_null(p);
    data_release(&data);
}

/* Each sample of the sphere keeps its cell, held out or not, and a block that is mapped again has
 * them as well. */
static void cells_stay_with_their_samples(void **state) {
    (void)state;
    const struct sphere_config sphere = {
        .samples = 90, .test_samples = 30, .latitudes = 2, .sectors = 3, .classes = 4, .seed = 6};
    struct ovr_err err = {0};
    struct data data = {.team = new_team(2)};
    assert_ok(sphere_generate(&data.train, &sphere, 0, &err), &err);
    assert_ok(sphere_generate(&data.test, &sphere, 1, &err), &err);
    const struct prepare_config config = {.protocol = PROTOCOL_CLEAN, .validation = 0.2};
    char path[] = "/tmp/ovr-prepared-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    unlink(path);
    struct prepared *built = build(&data, &config, 5, fd), *mapped;
    assert_ok(prepared_map(&mapped, fd, built->bytes, &err), &err);
    assert_int_equal(built->bytes, prepared_bytes(&config, 90, 30, 3, 9));
    uint16_t classes[9];
    sphere_classes(&sphere, classes);
    const struct split *splits[] = {&built->train,  &built->watched,  &built->test,
                                    &mapped->train, &mapped->watched, &mapped->test};
    for (size_t s = 0; s < COUNT(splits); s++)
        for (size_t i = 0; i < splits[s]->n; i++) {
            const real *x = splits[s]->x + 3 * i;
            uint32_t cell = splits[s]->cells[i];
            double turn = atan2((double)x[1], (double)x[0]) / (2 * M_PI);
            turn += turn < 0 ? 1 : 0;
            assert_int_equal(cell / 3, (size_t)(((double)x[2] + 1) / 2 * 3));
            assert_int_equal(cell % 3, (size_t)(turn * 3));
            assert_int_equal(splits[s]->labels[i], classes[cell]);
        }
    assert_int_equal(mapped->n_cells, 9);
    close(fd);
    prepared_free(mapped);
    prepared_free(built);
    data_release(&data);
    data = new_data();
    built = build(&data, &config, 5, -1);
    assert_true(built->n_cells == 0 && !built->train.cells && !built->test.cells);
    prepared_free(built);
    data_release(&data);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cells_stay_with_their_samples),
        cmocka_unit_test(clean_splits),
        cmocka_unit_test(published_splits),
        cmocka_unit_test(a_file_holds_the_same),
        cmocka_unit_test(other_files_are_refused),
        cmocka_unit_test(goes_without_the_file),
        cmocka_unit_test(stop_flag_is_obeyed),
    };
    return cmocka_run_group_tests_name("core/prepared", tests, start_blas, NULL);
}
