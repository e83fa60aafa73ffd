#include "core/prepared.h"

#include "core/arena.h"
#include "core/rng.h"

#include <fcntl.h>
#include <malloc.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* What the block begins with. Everything else follows from it by place(). */
struct head {
    char magic[8];
    uint64_t version, n_train, n_watched, n_test, n_values, n_classes, n_cells, n_steps;
    struct {
        uint64_t kind, n_in, n_out;
    } steps[PREPROCESS_MAX];
};

static const char MAGIC[8] = "ovrprep";

/* The arrays of a block, while they are written. */
struct layout {
    struct head *head;
    struct preprocess preprocess;
    real *x[3]; /* train, watched, test */
    uint16_t *labels[3];
    uint32_t *cells[3]; /* NULL without any */
};

static void split_sizes(const struct head *head, size_t n[3]) {
    n[0] = head->n_train;
    n[1] = head->n_watched;
    n[2] = head->n_test;
}

static size_t width(const struct head *head) {
    return head->n_steps ? head->steps[head->n_steps - 1].n_out : head->n_values;
}

static void place(struct layout *layout, const struct head *head, struct arena *arena) {
    size_t n[3];
    split_sizes(head, n);
    *layout = (struct layout){.preprocess = {.n_steps = head->n_steps, .n_in = head->n_values}};
    layout->head = arena_take(arena, 1, sizeof *head);
    for (size_t i = 0; i < head->n_steps; i++) {
        struct fitted_step *step = &layout->preprocess.steps[i];
        *step = (struct fitted_step){.kind = (enum preprocess_kind)head->steps[i].kind,
                                     .n_in = head->steps[i].n_in,
                                     .n_out = head->steps[i].n_out};
        step->mean = arena_take(arena, step->n_in, sizeof *step->mean);
        if (step->kind == PREPROCESS_PCA) {
            step->components = arena_take(arena, step->n_out * step->n_in, sizeof(real));
            step->variance = arena_take(arena, step->n_out, sizeof(double));
        } else {
            step->scale = arena_take(arena, step->n_in, sizeof(real));
        }
    }
    for (int i = 0; i < 3; i++) {
        layout->x[i] = arena_take(arena, n[i] * width(head), sizeof(real));
        layout->labels[i] = arena_take(arena, n[i], sizeof(uint16_t));
        layout->cells[i] = head->n_cells ? arena_take(arena, n[i], sizeof(uint32_t)) : NULL;
    }
}

static size_t block_bytes(const struct head *head) {
    struct arena counting = {0};
    struct layout layout;
    place(&layout, head, &counting);
    return counting.used;
}

/* Wraps a mapped block whose arrays were placed. */
static void expose(struct prepared *p, const struct layout *layout, const struct head *head) {
    size_t n[3];
    struct split *splits[3] = {&p->train, &p->watched, &p->test};
    split_sizes(head, n);
    p->preprocess = layout->preprocess;
    p->n_inputs = width(head);
    p->n_classes = head->n_classes;
    p->n_cells = head->n_cells;
    for (int i = 0; i < 3; i++)
        *splits[i] = (struct split){layout->x[i], layout->labels[i], n[i], layout->cells[i]};
}

/* Zeroed memory for the block: in the file, or else anonymous. */
static int map_block(struct prepared *p, size_t bytes, int fd, struct ovr_err *err) {
    p->bytes = bytes;
    p->in_file = fd >= 0 && posix_fallocate(fd, 0, (off_t)bytes) == 0;
    p->block = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                    p->in_file ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS, p->in_file ? fd : -1, 0);
    if (p->block != MAP_FAILED)
        return 0;
    p->block = NULL;
    return ovr_nomem(err, "the prepared samples");
}

size_t prepared_held_out(const struct prepare_config *config, size_t n) {
    if (config->protocol == PROTOCOL_PUBLISHED)
        return 0;
    size_t held_out = (size_t)lround(config->validation * (double)n);
    return held_out ? held_out : 1;
}

static struct head shape(const struct prepare_config *config, size_t n_train, size_t n_test,
                         size_t n_values) {
    struct head head = {.version = PREPARED_VERSION, .n_values = n_values};
    size_t held_out = prepared_held_out(config, n_train);
    memcpy(head.magic, MAGIC, sizeof head.magic);
    head.n_train = n_train - held_out;
    head.n_watched = config->protocol == PROTOCOL_PUBLISHED ? n_test : held_out;
    head.n_test = config->protocol == PROTOCOL_PUBLISHED ? 0 : n_test;
    return head;
}

size_t prepared_bytes(const struct prepare_config *config, size_t n_train, size_t n_test, size_t d,
                      size_t n_cells) {
    struct head head = shape(config, n_train, n_test, d);
    head.n_cells = n_cells;
    for (size_t i = 0; i < config->n_preprocess; i++) {
        const struct preprocess_step *step = &config->preprocess[i];
        head.steps[i].kind = step->kind;
        head.steps[i].n_in = d;
        if (step->kind == PREPROCESS_PCA && step->components)
            d = step->components;
        head.steps[i].n_out = d;
    }
    head.n_steps = config->n_preprocess;
    return block_bytes(&head);
}

static int by_number(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* A permutation of the training samples: those to train on, then those held out, each part in
 * memory order. */
static uint32_t *draw_split(uint64_t seed, size_t n_train, size_t held_out) {
    uint32_t *rows = ovr_malloc(n_train + held_out, sizeof *rows);
    if (!rows)
        return NULL;
    struct rng rng;
    rng_init(&rng, seed, RNG_SPLIT, 0, 0);
    rng_permutation(&rng, rows, (uint32_t)(n_train + held_out));
    qsort(rows, n_train, sizeof *rows, by_number);
    qsort(rows + n_train, held_out, sizeof *rows, by_number);
    return rows;
}

/* What a build works with. */
struct build {
    const struct samples *train, *test;
    const uint32_t *rows;
    struct team *team;
    const _Atomic int *stop;
};

static int fill_split(const struct build *build, const struct layout *layout, int which,
                      const struct samples *samples, const uint32_t *rows, size_t n,
                      struct ovr_err *err) {
    for (size_t i = 0; i < n; i++)
        layout->labels[which][i] = samples->labels[rows ? rows[i] : i];
    for (size_t i = 0; layout->cells[which] && i < n; i++)
        layout->cells[which][i] = samples->cells[rows ? rows[i] : i];
    return preprocess_apply(&layout->preprocess, build->team, samples, rows, n, layout->x[which],
                            build->stop, err);
}

static void copy_steps(const struct layout *layout, const struct preprocess *fitted) {
    for (size_t i = 0; i < fitted->n_steps; i++) {
        const struct fitted_step *from = &fitted->steps[i], *to = &layout->preprocess.steps[i];
        memcpy(to->mean, from->mean, from->n_in * sizeof(real));
        if (from->kind == PREPROCESS_PCA) {
            memcpy(to->components, from->components, from->n_out * from->n_in * sizeof(real));
            memcpy(to->variance, from->variance, from->n_out * sizeof(double));
        } else {
            memcpy(to->scale, from->scale, from->n_in * sizeof(real));
        }
    }
}

/* The block from the fitted steps. */
static int fill(struct prepared *p, struct head *head, const struct preprocess *fitted,
                const struct build *build, int fd, struct ovr_err *err) {
    head->n_steps = fitted->n_steps;
    for (size_t i = 0; i < fitted->n_steps; i++) {
        head->steps[i].kind = fitted->steps[i].kind;
        head->steps[i].n_in = fitted->steps[i].n_in;
        head->steps[i].n_out = fitted->steps[i].n_out;
    }
    int rc = map_block(p, block_bytes(head), fd, err);
    if (rc)
        return rc;
    struct layout layout;
    struct arena arena = {p->block, p->bytes, 0};
    place(&layout, head, &arena);
    *layout.head = *head;
    copy_steps(&layout, fitted);
    const uint32_t *held_out = build->rows + head->n_train;
    rc = fill_split(build, &layout, 0, build->train, build->rows, head->n_train, err);
    if (!rc)
        rc = head->n_test
                 ? fill_split(build, &layout, 1, build->train, held_out, head->n_watched, err)
                 : fill_split(build, &layout, 1, build->test, NULL, head->n_watched, err);
    if (!rc && head->n_test)
        rc = fill_split(build, &layout, 2, build->test, NULL, head->n_test, err);
    if (rc)
        return rc;
    mprotect(p->block, p->bytes, PROT_READ);
    expose(p, &layout, head);
    return 0;
}

int prepared_build(struct prepared **out, const struct prepare_config *config, uint64_t seed,
                   const struct samples *train, const struct samples *test, struct team *team,
                   const struct kernels *kernels, int fd, const _Atomic int *stop,
                   struct ovr_err *err) {
    *out = NULL;
    size_t held_out = prepared_held_out(config, train->n);
    if (held_out >= train->n)
        return ovr_fail(err, OVR_INVALID, "/training/validation",
                        "no training sample is left after holding out %zu of %zu", held_out,
                        train->n);
    struct head head = shape(config, train->n, test->n, train->d);
    head.n_classes = train->n_classes > test->n_classes ? train->n_classes : test->n_classes;
    head.n_cells = train->n_cells;
    struct prepared *p = calloc(1, sizeof *p);
    uint32_t *rows = draw_split(seed, head.n_train, held_out);
    struct preprocess fitted = {0};
    struct build build = {train, test, rows, team, stop};
    int rc = p && rows ? 0 : ovr_nomem(err, "the split");
    if (!rc)
        rc = preprocess_fit(&fitted, team, kernels, train, rows, head.n_train, config->preprocess,
                            config->n_preprocess, stop, err);
    if (!rc)
        rc = fill(p, &head, &fitted, &build, fd, err);
    preprocess_release(&fitted);
    malloc_trim(0); /* big arrays freed: else they stay resident beside what training takes */
    free(rows);
    if (rc) {
        prepared_free(p);
        return rc;
    }
    *out = p;
    return 0;
}

int prepared_map(struct prepared **out, int fd, size_t bytes, struct ovr_err *err) {
    *out = NULL;
    struct prepared *p = calloc(1, sizeof *p);
    if (!p)
        return ovr_nomem(err, "the prepared samples");
    p->bytes = bytes;
    p->in_file = 1;
    p->block = mmap(NULL, bytes ? bytes : 1, PROT_READ, MAP_SHARED, fd, 0);
    if (p->block == MAP_FAILED) {
        p->block = NULL;
        prepared_free(p);
        return ovr_nomem(err, "the prepared samples");
    }
    const struct head *head = p->block;
    if (bytes < sizeof *head || memcmp(head->magic, MAGIC, sizeof MAGIC) ||
        head->version != PREPARED_VERSION || head->n_steps > PREPROCESS_MAX ||
        block_bytes(head) != bytes) {
        prepared_free(p);
        return ovr_fail(err, OVR_IO, NULL, "the file holds no prepared data");
    }
    struct layout layout;
    struct arena arena = {p->block, p->bytes, 0};
    place(&layout, head, &arena);
    expose(p, &layout, head);
    *out = p;
    return 0;
}

void prepared_free(struct prepared *p) {
    if (!p)
        return;
    if (p->block)
        munmap(p->block, p->bytes);
    free(p);
}
