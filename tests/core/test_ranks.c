/* Several ranks train the same network, bit for bit, as one process does. Ranks are threads here,
 * each with a team, prepared data and arrays of its own: what one of them does not get from the
 * others by a call of core/team.h is 0 for it. */
#include "core/ranks.h"
#include "tests/core/check.h"

#include <pthread.h>
#include <time.h>

enum { RANKS = 16, EPOCHS = 3, N_TRAIN = 205, MANY = 2500, N_TEST = 90 };

/* ---- ranks that are threads ---- */

/* Where all of them meet: what each one has to show. */
struct hall {
    pthread_barrier_t barrier;
    const char *shown[RANKS];
    const struct span *spans[RANKS];
    pthread_mutex_t lock; /* of the offers */
    pthread_cond_t changed;
    struct offer {
        int partner; /* -1: it makes none */
        int is_taken;
        const char *array;
        const struct span *spans;
        size_t n;
    } offers[RANKS];
};

struct seat {
    struct hall *hall;
    struct ranks ranks;
    uint64_t swaps, swapped; /* swapped: bytes that it offered */
};

static void copy_gathered(void *context, void *array, size_t size, const struct span *spans) {
    struct seat *seat = context;
    struct hall *hall = seat->hall;
    hall->shown[seat->ranks.rank] = array;
    pthread_barrier_wait(&hall->barrier);
    for (int rank = 0; rank < seat->ranks.size; rank++)
        if (rank != seat->ranks.rank)
            memcpy((char *)array + spans[rank].first * size,
                   hall->shown[rank] + spans[rank].first * size, spans[rank].n * size);
    pthread_barrier_wait(&hall->barrier);
}

static void copy_exchanged(void *context, const void *send, const struct span *sends, void *receive,
                           const struct span *receives, size_t size) {
    struct seat *seat = context;
    struct hall *hall = seat->hall;
    hall->shown[seat->ranks.rank] = send;
    hall->spans[seat->ranks.rank] = sends;
    pthread_barrier_wait(&hall->barrier);
    for (int rank = 0; rank < seat->ranks.size; rank++) {
        const struct span *sent = &hall->spans[rank][seat->ranks.rank];
        if (sent->n) /* else there may be no room for it */
            memcpy((char *)receive + receives[rank].first * size,
                   hall->shown[rank] + sent->first * size, sent->n * size);
    }
    pthread_barrier_wait(&hall->barrier);
}

/* What the offer has comes into these spans, in their order. */
static void copy_offer(const struct offer *offer, char *array, size_t size,
                       const struct span *receives, size_t n) {
    assert_int_equal(offer->n, n);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(offer->spans[i].n, receives[i].n);
        memcpy(array + receives[i].first * size, offer->array + offer->spans[i].first * size,
               receives[i].n * size);
    }
}

/* Each copies what the other one offers, and leaves when its own is copied. */
static void copy_swapped(void *context, int partner, void *array, size_t size,
                         const struct span *sends, size_t n_sends, const struct span *receives,
                         size_t n_receives) {
    struct seat *seat = context;
    struct hall *hall = seat->hall;
    struct offer *own = &hall->offers[seat->ranks.rank], *other = &hall->offers[partner];
    seat->swaps++;
    for (size_t i = 0; i < n_sends; i++)
        seat->swapped += sends[i].n * size;
    pthread_mutex_lock(&hall->lock);
    *own = (struct offer){partner, 0, array, sends, n_sends};
    pthread_cond_broadcast(&hall->changed);
    while (other->partner != seat->ranks.rank || other->is_taken)
        pthread_cond_wait(&hall->changed, &hall->lock);
    copy_offer(other, array, size, receives, n_receives);
    other->is_taken = 1;
    pthread_cond_broadcast(&hall->changed);
    while (!own->is_taken)
        pthread_cond_wait(&hall->changed, &hall->lock);
    own->partner = -1;
    pthread_mutex_unlock(&hall->lock);
}

static void take_seat(struct seat *seat, struct hall *hall, int rank, int size) {
    *seat = (struct seat){
        .hall = hall,
        .ranks = {rank, size, seat, copy_gathered, copy_exchanged, copy_swapped, 0, 0}};
}

static void open_hall(struct hall *hall, int n) {
    *hall = (struct hall){.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    for (int i = 0; i < n; i++)
        hall->offers[i].partner = -1;
    assert_int_equal(pthread_barrier_init(&hall->barrier, NULL, (unsigned)n), 0);
}

static void close_hall(struct hall *hall) {
    pthread_barrier_destroy(&hall->barrier);
    pthread_mutex_destroy(&hall->lock);
    pthread_cond_destroy(&hall->changed);
}

/* ---- sums ---- */

struct addition {
    struct seat *seat;
    int threads;
    enum pieces kind;
    size_t n, length, size; /* of an element: a double's or a real's */
    const char *values;     /* n×length */
    char *parts;
};

static void add_work(struct member *member, void *arg) {
    struct addition *a = arg;
    const size_t bytes = a->length * a->size;
    size_t first, end;
    team_own(member, a->kind, a->n, &first, &end);
    memcpy(a->parts + first * bytes, a->values + first * bytes, (end - first) * bytes);
    if (a->size == sizeof(double))
        team_sum(member, a->kind, (void *)a->parts, a->n, a->length);
    else
        team_sum_reals(member, a->kind, (void *)a->parts, a->n, a->length);
}

static void *add_rank(void *arg) {
    struct addition *a = arg;
    struct team *team = new_team(a->threads);
    if (a->seat)
        team_join(team, &a->seat->ranks);
    team_run(team, add_work, a);
    team_free(team);
    return NULL;
}

/* What none of them has is not a number. */
static char *new_parts(size_t n, size_t size) {
    char *parts = malloc(n * size);
    assert_non_null(parts);
    memset(parts, 0xff, n * size);
    return parts;
}

/* Order matters. */
static void draw_values(char *values, size_t n, size_t size) {
    struct rng rng = test_stream(3);
    for (size_t i = 0; i < n; i++) {
        double value = rng_normal(&rng) * exp2(20 * rng_uniform(&rng));
        if (size == sizeof value)
            memcpy(values + i * size, &value, size);
        else
            memcpy(values + i * size, &(real){(real)value}, size);
    }
}

/* As many ranks as there are seats, and one alone without any. */
static void check_sum(const struct addition *addition, int ranks, struct seat *seats) {
    const size_t n = addition->n * addition->length, size = addition->size;
    struct hall hall;
    struct addition a[RANKS + 1];
    pthread_t threads[RANKS];
    char *values = new_parts(n, size);
    draw_values(values, n, size);
    open_hall(&hall, ranks);
    for (int i = 0; i <= ranks; i++) {
        a[i] = *addition;
        a[i].threads = i % 2 + 1;
        a[i].values = values;
        a[i].parts = new_parts(n, size);
        if (i == ranks)
            continue;
        take_seat(&seats[i], &hall, i, ranks);
        a[i].seat = &seats[i];
    }
    for (int i = 0; i < ranks; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, add_rank, &a[i]), 0);
    for (int i = 0; i < ranks; i++)
        pthread_join(threads[i], NULL);
    add_rank(&a[ranks]);
    for (int i = 0; i < ranks; i++) {
        assert_memory_equal(a[i].parts, a[ranks].parts, addition->length * size);
        assert_int_equal(seats[i].ranks.bytes, seats[i].swapped);
        assert_int_equal(seats[i].ranks.meetings, seats[i].swaps);
    }
    for (int i = 0; i <= ranks; i++)
        free(a[i].parts);
    close_hall(&hall);
    free(values);
}

/* Long vectors come with every number of parts that is left over by 8. */
static void sums_are_the_same_tree(void **state) {
    (void)state;
    static const size_t sizes[] = {sizeof(double), sizeof(real)};
    static const enum pieces kinds[] = {BY_GROUP, BY_SHARD};
    struct seat seats[RANKS];
    for (int ranks = 1; ranks <= RANKS; ranks++)
        for (size_t n = 1; n <= 45; n++)
            for (size_t i = 0; i < 4; i++) {
                const size_t size = sizes[i % 2];
                const int is_long = n % 8 == (size_t)ranks % 8 && (ranks < 9 || n > 30);
                const struct addition addition = {
                    .kind = kinds[i / 2],
                    .n = n,
                    .length = is_long ? (1 << 16) / size + n : n % 10 + 1,
                    .size = size,
                };
                check_sum(&addition, ranks, seats);
            }
}

/* Numbers of parts and ranks that are powers of two: log2(ranks) vectors where they are short, else
 * twice what is not the rank's own part. */
static void bytes_of_sums(void **state) {
    (void)state;
    struct seat seats[RANKS];
    for (int ranks = 1, rounds = 0; ranks <= RANKS; ranks *= 2, rounds++)
        for (size_t n = 64; n <= 128; n *= 2) {
            const struct addition few = {.kind = BY_SHARD, .n = n, .length = 100, .size = 8};
            const struct addition many = {.kind = BY_SHARD, .n = n, .length = 1 << 14, .size = 4};
            check_sum(&few, ranks, seats);
            for (int i = 0; i < ranks; i++) {
                assert_int_equal(seats[i].swaps, rounds);
                assert_int_equal(seats[i].swapped, 800 * rounds);
            }
            check_sum(&many, ranks, seats);
            for (int i = 0; i < ranks; i++) {
                assert_int_equal(seats[i].swaps, 2 * rounds);
                assert_int_equal(seats[i].swapped, 2 * (1 << 16) / ranks * (ranks - 1));
            }
        }
}

/* ---- what one tells all, and what all send to the first ---- */

enum { PIECES = 1500, PIECE = 40000 }; /* so that a rank's are more than come at once */

struct stream {
    struct seat seat;
    size_t next;           /* at the first rank, the piece that has to come */
    int left, least, most; /* left: calls until the first rank fails; 0: it does not */
    int rc;
};

static int take_pieces(void *context, const void *pieces, size_t first, size_t n) {
    struct stream *s = context;
    const unsigned char *bytes = pieces;
    assert_int_equal(first, s->next);
    assert_in_range(n, 1, STREAM_BYTES / PIECE);
    for (size_t i = 0; i < n * PIECE; i++)
        if (bytes[i] != (unsigned char)((first + i / PIECE) % 251 + 1))
            fail_msg("piece %zu is not what its rank has", first + i / PIECE);
    s->next += n;
    assert_true(s->left >= 0);
    return s->left && --s->left == 0 ? (s->left = -1, OVR_FULL) : 0;
}

static void *stream_rank(void *arg) {
    struct stream *s = arg;
    struct team *team = new_team(1);
    struct ovr_err err = {0};
    unsigned char *array = calloc(PIECES, PIECE);
    size_t first, end;
    assert_non_null(array);
    team_join(team, &s->seat.ranks);
    team_held(team, BY_UNIT, PIECES, &first, &end);
    for (size_t i = first; i < end; i++)
        memset(array + i * PIECE, (int)(i % 251 + 1), PIECE);
    s->rc = team_stream(team, BY_UNIT, array, PIECES, PIECE, take_pieces, s, &err);
    s->least = team_least(team, 5 + (team_rank(team) + 1) % team_n_ranks(team));
    s->most = -team_least(team, -team_rank(team));
    free(array);
    team_free(team);
    return NULL;
}

static void check_stream(int ranks, int calls) {
    struct hall hall;
    struct stream s[RANKS] = {0};
    pthread_t threads[RANKS];
    open_hall(&hall, ranks);
    for (int i = 0; i < ranks; i++) {
        take_seat(&s[i].seat, &hall, i, ranks);
        s[i].left = calls;
        assert_int_equal(pthread_create(&threads[i], NULL, stream_rank, &s[i]), 0);
    }
    for (int i = 0; i < ranks; i++)
        pthread_join(threads[i], NULL);
    close_hall(&hall);
    for (int i = 0; i < ranks; i++) {
        assert_int_equal(s[i].rc, i == 0 && calls ? OVR_FULL : 0);
        assert_int_equal(s[i].least, 5);
        assert_int_equal(s[i].most, ranks - 1);
        if (i || !calls)
            assert_int_equal(s[i].next, i ? 0 : PIECES);
    }
}

static void streams_come_in_order(void **state) {
    (void)state;
    for (int ranks = 2; ranks <= 3; ranks++)
        for (int calls = 0; calls <= 4; calls++)
            check_stream(ranks, calls);
    assert_int_equal(team_least(NULL, 7), 7);
}

/* ---- training ---- */

/* What a rank kept of one save(). */
struct kept {
    uint64_t step;
    size_t n;
    struct train_piece pieces[TRAIN_PIECES_MAX];
};

struct history {
    struct seat seat; /* without a hall: one alone */
    const struct train_config *config;
    int threads, rc, n_reports;
    struct epoch_report reports[EPOCHS];
    struct train_progress progress;
    struct train_result result;
    real *best; /* at the first rank: what came of all */
    size_t n_best;
    struct team *team;
    struct ovr_err err;
    /* With saves: */
    int saves, n_saves;
    int steps_left;      /* of the first rank, saves until it is to stop */
    int lost;            /* so many of the last saves can't be read */
    int late;            /* instead of the last save comes the one before */
    int started;         /* what restored() said */
    struct kept kept[2]; /* the last, and the one before */
    _Atomic int stop, save_due;
};

static void forget(struct kept *kept) {
    for (size_t i = 0; i < kept->n; i++)
        free(kept->pieces[i].bytes);
    kept->n = 0;
}

static int keep_pieces(void *context, const struct train_piece *pieces, size_t n,
                       struct ovr_err *err) {
    struct history *h = context;
    (void)err;
    struct kept *kept = &h->kept[0];
    int again = kept->n && kept->step == h->progress.step; /* now because of the stop */
    forget(&h->kept[again ? 0 : 1]);
    if (!again)
        h->kept[1] = *kept;
    kept->step = h->progress.step;
    for (size_t i = 0; i < n; i++) {
        kept->pieces[i] = (struct train_piece){malloc(pieces[i].n), pieces[i].n};
        assert_non_null(kept->pieces[i].bytes);
        memcpy(kept->pieces[i].bytes, pieces[i].bytes, pieces[i].n);
    }
    kept->n = n;
    h->n_saves++;
    h->save_due = 1;
    if (team_rank(h->team) == 0 && --h->steps_left == 0)
        h->stop = 1;
    return 0;
}

static int put_back(void *context, const struct train_piece *pieces, size_t n, int back, int *from,
                    struct ovr_err *err) {
    const struct history *h = context;
    const struct kept *kept = &h->kept[h->late ? 1 : back];
    (void)err;
    if (back < h->lost || !kept->n)
        return 0;
    assert_int_equal(n, kept->n);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(pieces[i].n, kept->pieces[i].n);
        memcpy(pieces[i].bytes, kept->pieces[i].bytes, pieces[i].n);
    }
    *from = 1;
    return 0;
}

static int note_start(void *context, int epoch, struct ovr_err *err) {
    struct history *h = context;
    (void)err;
    h->started = epoch;
    h->n_reports = epoch ? epoch - 1 : 0;
    return 0;
}

static int keep_best(void *context, const struct net_rows *rows) {
    struct history *h = context;
    size_t n = rows->n * rows->stride;
    assert_in_range(h->n_best + n, 0, h->result.net.n_params);
    if (rows->part)
        assert_int_equal(rows->part->at + rows->first * rows->stride, h->n_best);
    memcpy(h->best + h->n_best, rows->numbers, n * sizeof(real));
    h->n_best += n;
    return 0;
}

static void collect_best(struct history *h) {
    h->best = new_reals(h->result.net.n_params);
    h->n_best = 0;
    h->rc = net_stream(h->team, &h->result.net, h->result.best, keep_best, h, &h->err);
}

static int keep_report(void *context, const struct epoch_report *report, struct ovr_err *err) {
    struct history *h = context;
    (void)err;
    assert_int_equal(report->epoch, h->n_reports + 1);
    h->reports[h->n_reports++] = *report;
    return 0;
}

static void *train_rank(void *arg) {
    struct history *h = arg;
    const int clusters = h->config->kind == MODEL_KMEANS || h->config->kind == MODEL_ONLINE_KMEANS;
    const int many = clusters || h->config->batch_size > N_TRAIN;
    const struct sphere_config shape = {many ? MANY : N_TRAIN, N_TEST, 2, 3, 4, 77};
    struct train_hooks hooks = {.context = h,
                                .stop = &h->stop,
                                .progress = &h->progress,
                                .epoch = keep_report,
                                .save_due = &h->save_due,
                                .save = h->saves ? keep_pieces : NULL,
                                .restore = h->saves ? put_back : NULL,
                                .restored = h->saves ? note_start : NULL};
    struct samples train = {0}, test = {0};
    struct prepared *data = NULL;
    h->rc = sphere_generate(&train, &shape, 0, &h->err) |
            sphere_generate(&test, &shape, 1, &h->err) | team_new(&h->team, h->threads, &h->err);
    if (!h->rc)
        h->rc = prepared_build(&data, &h->config->data, h->config->seed, &train, &test, h->team,
                               kernels_get(ISA_AUTO), -1, NULL, &h->err);
    if (!h->rc && h->seat.hall)
        team_join(h->team, &h->seat.ranks);
    if (!h->rc)
        h->rc =
            train_run(h->config, data, h->team, kernels_get(ISA_AUTO), &hooks, &h->result, &h->err);
    if (!h->rc)
        collect_best(h);
    h->result.preprocess = NULL;
    prepared_free(data);
    samples_release(&train);
    samples_release(&test);
    return NULL;
}

static void release(struct history *h) {
    train_result_release(&h->result);
    team_free(h->team);
    free(h->best);
    h->best = NULL;
    h->team = NULL;
}

/* The rank's part of a net's weights is the one of `whole`; c is whole. */
static void assert_same_weights(const struct history *h, const struct net *net, const real *own,
                                const real *whole) {
    struct net_part parts[PARTS_MAX];
    size_t n = net_parts(net, parts), first, end;
    for (size_t i = 0; i < n; i++) {
        const struct net_part *p = &parts[i];
        team_held(h->team, p->part == PART_HEAD_BIAS ? EVERYWHERE : BY_UNIT, p->rows, &first, &end);
        assert_true(end > first);
        size_t at = p->at + first * p->stride;
        assert_memory_equal(own + at, whole + at, (end - first) * p->stride * sizeof *own);
    }
}

static void assert_same_units(const struct units *a, const struct units *b) {
    assert_memory_equal(a->table, b->table, a->n_units * UNIT_FIGURES * sizeof *a->table);
    assert_memory_equal(a->class_means, b->class_means,
                        a->n_units * a->n_classes * sizeof *a->class_means);
    assert_memory_equal(a->cell_means, b->cell_means,
                        a->n_units * a->n_cells * sizeof *a->cell_means);
    assert_memory_equal(&a->means, &b->means, sizeof a->means);
}

static void assert_same_probe(const struct history *h, const struct train_result *x,
                              const struct train_result *y) {
    size_t n_units = x->net.config.units[0], width = x->probe.width, first, end;
    assert_int_equal(x->probed, y->probed);
    if (!x->probed)
        return;
    assert_memory_equal(&x->probe.loss_best, &y->probe.loss_best, sizeof x->probe.loss_best);
    team_held(h->team, BY_UNIT, n_units, &first, &end);
    assert_memory_equal(x->probe.weights + first * width, y->probe.weights + first * width,
                        (end - first) * width * sizeof(real));
    if (team_rank(h->team) == 0)
        assert_memory_equal(x->probe.weights + n_units * width, y->probe.weights + n_units * width,
                            width * sizeof(real));
}

static void assert_same(const struct history *h, const struct history *alone) {
    const struct train_result *x = &h->result, *y = &alone->result;
    assert_ok(h->rc, &h->err);
    assert_int_equal(h->n_reports, alone->n_reports);
    for (int i = 0; i < h->n_reports; i++) {
        const struct epoch_report *a = &h->reports[i], *b = &alone->reports[i];
        assert_memory_equal(&a->train, &b->train, sizeof a->train);
        assert_memory_equal(&a->watched, &b->watched, sizeof a->watched);
        assert_memory_equal(&a->gradients, &b->gradients, sizeof a->gradients);
        assert_memory_equal(&a->measures, &b->measures, sizeof a->measures);
    }
    assert_same_weights(h, &x->net, x->best, y->best);
    assert_same_weights(h, &x->net, x->last, y->last);
    if (team_rank(h->team) == 0) {
        assert_int_equal(h->n_best, y->net.n_params);
        assert_memory_equal(h->best, y->best, y->net.n_params * sizeof *y->best);
    } else
        assert_int_equal(h->n_best, 0);
    if (x->best_counts) {
        size_t first, end;
        team_held(h->team, BY_UNIT, x->net.config.units[0], &first, &end);
        assert_memory_equal(x->best_counts + first, y->best_counts + first,
                            (end - first) * sizeof(real));
    }
    assert_int_equal(x->best_epoch, y->best_epoch);
    assert_memory_equal(&x->terms, &y->terms, sizeof x->terms);
    assert_memory_equal(&x->measures, &y->measures, sizeof x->measures);
    assert_memory_equal(&x->accuracy, &y->accuracy, sizeof x->accuracy);
    assert_same_units(&x->units[0], &y->units[0]);
    assert_same_probe(h, x, y);
}

static void run_ranks(struct history *h, int ranks) {
    struct hall hall;
    pthread_t running[RANKS];
    open_hall(&hall, ranks);
    for (int i = 0; i < ranks; i++) {
        take_seat(&h[i].seat, &hall, i, ranks);
        h[i].err = (struct ovr_err){0};
        assert_int_equal(pthread_create(&running[i], NULL, train_rank, &h[i]), 0);
    }
    for (int i = 0; i < ranks; i++)
        pthread_join(running[i], NULL);
    close_hall(&hall);
}

static void train_ranks(const struct train_config *config, int ranks, int threads,
                        struct history *h) {
    for (int i = 0; i < ranks; i++)
        h[i] = (struct history){.config = config, .threads = threads};
    run_ranks(h, ranks);
}

static void check_team(const struct train_config *config, int ranks, int threads, struct history *h,
                       const struct history *alone) {
    train_ranks(config, ranks, threads, h);
    for (int i = 0; i < ranks; i++) {
        assert_same(&h[i], alone);
        release(&h[i]);
    }
}

/* One alone and then so many as there are of numbers of ranks, each with one and with two threads.
 */
static void check_ranks_of(const struct train_config *config, const int *numbers, size_t n) {
    struct history *h = calloc(RANKS + 1, sizeof *h), *alone = &h[RANKS];
    assert_non_null(h);
    *alone = (struct history){.config = config, .threads = 2};
    train_rank(alone);
    assert_ok(alone->rc, &alone->err);
    for (size_t i = 0; i < n; i++)
        for (int threads = 1; threads <= 2; threads++)
            check_team(config, numbers[i], threads, h, alone);
    release(alone);
    free(h);
}

static void check_ranks(const struct train_config *config) {
    static const int numbers[] = {2, 3, 4, 5};
    const int most = team_most_ranks(train_code_units(config, 3));
    check_ranks_of(config, numbers, most > 5 ? 4 : (size_t)most - 1);
}

/* What becomes of the saves before an attempt: of the last rank so many are lost, or the last one
 * of rank 1 is. Where the run then goes on: at the last save, at the one before, or at the start.
 */
static const struct trouble {
    int lost, late, start;
} troubles[] = {{0, 0, 1}, {0, 0, 0}, {1, 0, 0}, {2, 0, 1}, {0, 1, 0}, {0, 0, 0}};

/* Saved at each step and stopped after some, by the first rank alone: what the others' flags say
 * does not count. */
static void interrupt(const struct train_config *config, struct history *h, int ranks, int threads,
                      const struct history *alone) {
    int attempt = 0;
    for (int i = 0; i < ranks; i++)
        h[i] = (struct history){.config = config, .threads = threads, .saves = 1, .save_due = 1};
    do {
        const struct trouble *trouble = &troubles[attempt < 5 ? attempt : 5];
        for (int i = 0; i < ranks; i++) {
            if (attempt)
                release(&h[i]);
            h[i].stop = i > 0;
            h[i].steps_left = 5;
            h[i].lost = i == ranks - 1 ? trouble->lost : 0;
            h[i].late = i == 1 && trouble->late;
        }
        run_ranks(h, ranks);
        for (int i = 0; i < ranks; i++) {
            assert_int_equal(h[i].rc, h[0].rc);
            assert_int_equal(h[i].n_saves, h[0].n_saves);
            assert_int_equal(h[i].started, h[0].started);
            assert_int_equal(h[i].started == 0, trouble->start);
        }
        assert_in_range(++attempt, 1, 40);
    } while (h[0].rc == OVR_STOPPED);
    assert_in_range(attempt, (int)COUNT(troubles), 40);
    for (int i = 0; i < ranks; i++) {
        assert_same(&h[i], alone);
        forget(&h[i].kept[0]);
        forget(&h[i].kept[1]);
        release(&h[i]);
    }
}

static void check_interrupted(const struct train_config *config) {
    struct history *h = calloc(RANKS + 1, sizeof *h), *alone = &h[RANKS];
    assert_non_null(h);
    *alone = (struct history){.config = config, .threads = 2};
    train_rank(alone);
    assert_ok(alone->rc, &alone->err);
    for (int ranks = 2; ranks <= 3; ranks++)
        for (int threads = 1; threads <= 2; threads++)
            interrupt(config, h, ranks, threads, alone);
    release(alone);
    free(h);
}

/* Asks the first rank to stop in the middle of the probe. */
static void *stop_probe(void *arg) {
    const struct timespec pause = {.tv_nsec = 1000000};
    struct history *h = arg;
    while (h->progress.phase != PHASE_PROBING || h->progress.epoch < 1)
        nanosleep(&pause, NULL);
    h->stop = 1;
    return NULL;
}

static void check_stopped_probe(const struct train_config *config, int ranks) {
    struct history *h = calloc(RANKS + 1, sizeof *h), *alone = &h[RANKS];
    pthread_t watcher;
    assert_non_null(h);
    *alone = (struct history){.config = config, .threads = 2};
    train_rank(alone);
    for (int i = 0; i < ranks; i++)
        h[i] = (struct history){
            .config = config, .threads = 1, .saves = 1, .stop = i > 0, .save_due = i > 0};
    assert_int_equal(pthread_create(&watcher, NULL, stop_probe, &h[0]), 0);
    run_ranks(h, ranks);
    pthread_join(watcher, NULL);
    for (int i = 0; i < ranks; i++) {
        assert_failed(h[i].rc, OVR_STOPPED, &h[i].err, "the probe was trained");
        assert_int_equal(h[i].n_saves, 1);
        release(&h[i]);
        h[i].stop = i > 0;
    }
    run_ranks(h, ranks);
    for (int i = 0; i < ranks; i++) {
        assert_int_equal(h[i].started, EPOCHS + 1);
        assert_same(&h[i], alone);
        forget(&h[i].kept[0]);
        release(&h[i]);
    }
    release(alone);
    free(h);
}

static const struct optimizer_config adam = {
    .name = OPT_ADAM, .learning_rate = 1e-2, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-7};

static struct train_config encoder_config(size_t n_units) {
    return (struct train_config){
        .kind = MODEL_OVR_ENCODER,
        .hidden = {n_units},
        .n_hidden = 1,
        .init_scale = 0.05,
        .ovr = {.lambda = 1e-3},
        .activity = 1,
        .activity_target = 0.5,
        .optimizer = adam,
        .schedule = {SCHEDULE_PLATEAU, .factor = 0.5, .min_delta = 0.05, .patience = 1},
        .epochs = EPOCHS,
        .batch_size = 32,
        .seed = 5,
        .data = {.protocol = PROTOCOL_CLEAN, .validation = 0.2},
        .probe = 1,
        .probe_config = {.epochs = 2, .batch_size = 16, .optimizer = adam},
    };
}

static void encoders(void **state) {
    (void)state;
    static const size_t sizes[] = {1000, 1601, 2048, 2500};
    for (size_t i = 0; i < COUNT(sizes); i++) {
        struct train_config config = encoder_config(sizes[i]);
        check_ranks(&config);
        config.ovr.form = OVR_RAW;
        config.l2 = 1e-4;
        config.probe = 0;
        check_ranks(&config);
    }
}

static void classifiers(void **state) {
    (void)state;
    struct train_config config = encoder_config(1700);
    config.kind = MODEL_MLP;
    config.dropout[0] = 0.3;
    config.init = INIT_GLOROT;
    config.data.protocol = PROTOCOL_PUBLISHED;
    config.optimizer = (struct optimizer_config){
        .name = OPT_SGD, .learning_rate = 0.1, .momentum = 0.9, .nesterov = 1};
    check_ranks(&config);
    config.freeze = 1;
    config.probe = 0;
    check_ranks(&config);
}

static void autoencoders(void **state) {
    (void)state;
    struct train_config config = encoder_config(1300);
    config.kind = MODEL_AUTOENCODER;
    config.corruption = CORRUPTION_MASKING;
    config.corruption_amount = 0.2;
    check_ranks(&config);
    config.tied = 1;
    config.f.kind = ACT_SIGMOID;
    config.kl = 0.1;
    config.kl_target = 0.05;
    config.contractive = 0.1;
    config.l1 = 1e-3;
    check_ranks(&config);
}

static void only_the_largest(void **state) {
    (void)state;
    static const size_t most[] = {1, 7, 600, 1500};
    for (size_t i = 0; i < COUNT(most); i++) {
        struct train_config config = encoder_config(1700);
        config.kind = MODEL_AUTOENCODER;
        config.f.kind = ACT_TOP_K;
        config.top_k = most[i];
        config.probe = i == 1;
        check_ranks(&config);
    }
}

/* With weights of -1, 0 and 1 many units of each rank are alike. */
static void ties(void **state) {
    (void)state;
    enum { K = 1700, D = 3 };
    static const size_t most[] = {1, 3, 60, 200, 700, 1699};
    real *weights = new_reals(K * D);
    struct rng rng = test_stream(6);
    for (size_t i = 0; i < K * D; i++)
        weights[i] = (real)rng_below(&rng, 3) - 1;
    const struct initial initial = {
        .n = 1,
        .parts = {{.part = PART_WEIGHT, .rows = K, .cols = D, .stride = D}},
        .weights = {weights},
    };
    for (size_t i = 0; i < COUNT(most); i++) {
        struct train_config config = encoder_config(K);
        config.kind = MODEL_RANDOM_PROJECTION;
        config.ovr.lambda = 0;
        config.activity = config.probe = 0;
        config.initial = &initial;
        config.f.kind = ACT_TOP_K;
        config.top_k = most[i];
        check_ranks(&config);
        config.f.kind = i % 2 ? ACT_HARD : ACT_TRIANGLE;
        check_ranks(&config);
    }
    free(weights);
}

/* More centroids than most batches fill, so that there are empty ones. */
static void centroids(void **state) {
    (void)state;
    static const enum activation codes[] = {ACT_TRIANGLE, ACT_HARD};
    for (size_t i = 0; i < 4; i++) {
        struct train_config config = encoder_config(1100);
        config.kind = i < 2 ? MODEL_KMEANS : MODEL_ONLINE_KMEANS;
        config.f.kind = codes[i % 2];
        config.init = i % 2 ? INIT_SAMPLES : INIT_KMEANS_PLUS_PLUS;
        config.ovr.lambda = 0;
        config.activity = 0;
        check_ranks(&config);
    }
}

static void untrained_models(void **state) {
    (void)state;
    struct train_config config = encoder_config(1100);
    config.kind = MODEL_RANDOM_PROJECTION;
    config.ovr.lambda = 0;
    config.activity = 0;
    check_ranks(&config);
}

static void interrupted_encoders(void **state) {
    (void)state;
    struct train_config config = encoder_config(1601);
    check_interrupted(&config);
}

static void interrupted_classifiers(void **state) {
    (void)state;
    struct train_config config = encoder_config(1700);
    config.kind = MODEL_MLP;
    config.dropout[0] = 0.3;
    config.init = INIT_GLOROT;
    config.probe = 0;
    check_interrupted(&config);
}

static void interrupted_autoencoders(void **state) {
    (void)state;
    struct train_config config = encoder_config(1300);
    config.kind = MODEL_AUTOENCODER;
    config.probe = 0;
    config.optimizer = (struct optimizer_config){
        .name = OPT_SGD, .learning_rate = 0.1, .momentum = 0.9, .nesterov = 1};
    check_interrupted(&config);
}

static void interrupted_centroids(void **state) {
    (void)state;
    for (int online = 0; online <= 1; online++) {
        struct train_config config = encoder_config(1100);
        config.kind = online ? MODEL_ONLINE_KMEANS : MODEL_KMEANS;
        config.f.kind = online ? ACT_HARD : ACT_TRIANGLE;
        config.init = online ? INIT_KMEANS_PLUS_PLUS : INIT_SAMPLES;
        config.ovr.lambda = 0;
        config.activity = config.probe = 0;
        config.batch_size = 150;
        check_interrupted(&config);
    }
}

static void a_probe_that_is_stopped(void **state) {
    (void)state;
    struct train_config config = encoder_config(1601);
    config.probe_config.epochs = 100;
    check_stopped_probe(&config, 2);
    check_stopped_probe(&config, 3);
}

/* The tree from end to end, with sums that are short and, with many rows a batch, long. */
static void powers_of_two(void **state) {
    (void)state;
    static const int numbers[] = {1, 2, 4, 8, 16};
    struct train_config config = encoder_config(8192);
    check_ranks_of(&config, numbers, COUNT(numbers));
    config.kind = MODEL_MLP;
    config.probe = 0;
    config.batch_size = 1800;
    assert_in_range(config.batch_size * 5 * sizeof(double), 1 << 16, 1 << 20);
    check_ranks_of(&config, numbers, COUNT(numbers));
    config.kind = MODEL_AUTOENCODER;
    config.batch_size = 32;
    check_ranks_of(&config, numbers, COUNT(numbers));
}

static void refused(const struct train_config *config, int ranks, const char *field) {
    struct history *h = calloc(RANKS, sizeof *h);
    assert_non_null(h);
    train_ranks(config, ranks, 1, h);
    for (int i = 0; i < ranks; i++) {
        assert_int_equal(h[i].rc, OVR_INVALID);
        assert_string_equal(h[i].err.field, field);
        release(&h[i]);
    }
    free(h);
}

static void what_ranks_cannot_do(void **state) {
    (void)state;
    struct train_config config = encoder_config(1000);
    refused(&config, 3, "/training/ranks");
    config.kind = MODEL_MLP;
    config.n_hidden = 2;
    config.hidden[1] = 1000;
    refused(&config, 2, "/training/ranks");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_are_the_same_tree),
        cmocka_unit_test(bytes_of_sums),
        cmocka_unit_test(streams_come_in_order),
        cmocka_unit_test(encoders),
        cmocka_unit_test(classifiers),
        cmocka_unit_test(autoencoders),
        cmocka_unit_test(only_the_largest),
        cmocka_unit_test(ties),
        cmocka_unit_test(centroids),
        cmocka_unit_test(untrained_models),
        cmocka_unit_test(interrupted_encoders),
        cmocka_unit_test(interrupted_classifiers),
        cmocka_unit_test(interrupted_autoencoders),
        cmocka_unit_test(interrupted_centroids),
        cmocka_unit_test(a_probe_that_is_stopped),
        cmocka_unit_test(powers_of_two),
        cmocka_unit_test(what_ranks_cannot_do),
    };
    return cmocka_run_group_tests_name("core/ranks", tests, start_blas, NULL);
}
