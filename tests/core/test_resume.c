/* Runs that are interrupted at any step and go on in another team end with the same bits, and
 * report each epoch once. So do runs whose team changes between epochs. */
#include "core/train.h"
#include "tests/core/check.h"

enum { EPOCHS_MAX = 8, N_TRAIN = 205, N_TEST = 90 };

/* What a run left when it was interrupted, and what it reported until then. */
struct history {
    size_t n_pieces;
    struct train_piece pieces[TRAIN_PIECES_MAX];
    int n_reports;
    struct terms watched[EPOCHS_MAX], train[EPOCHS_MAX];
    double learning_rate[EPOCHS_MAX];
    int steps_left; /* saves until the flag is raised */
    int n_saves;
    int n_asked, n_missing; /* of an attempt: how often for something to put back, and how often
                               there is none */
    _Atomic int stop, save_due;
    _Atomic int members; /* of the team from the next epoch on; 0: as it is */
    int sizes[EPOCHS_MAX];
    struct train_progress progress;
    struct train_result result;
};

static void forget(struct history *h) {
    for (size_t i = 0; i < h->n_pieces; i++)
        free(h->pieces[i].bytes);
    h->n_pieces = 0;
}

static int keep_report(void *context, const struct epoch_report *report, struct ovr_err *err) {
    struct history *h = context;
    (void)err;
    assert_int_equal(report->epoch, h->n_reports + 1);
    h->train[h->n_reports] = report->train;
    h->watched[h->n_reports] = report->watched;
    h->sizes[h->n_reports] = h->progress.members;
    h->learning_rate[h->n_reports++] = report->learning_rate;
    if (h->members)
        h->members = h->members % 3 + 1;
    return 0;
}

/* Asked for at every step. */
static int keep_pieces(void *context, const struct train_piece *pieces, size_t n,
                       struct ovr_err *err) {
    struct history *h = context;
    (void)err;
    forget(h);
    assert_in_range(n, 3, TRAIN_PIECES_MAX);
    for (size_t i = 0; i < n; i++) {
        h->pieces[i] = (struct train_piece){malloc(pieces[i].n), pieces[i].n};
        assert_non_null(h->pieces[i].bytes);
        memcpy(h->pieces[i].bytes, pieces[i].bytes, pieces[i].n);
    }
    h->n_pieces = n;
    h->n_saves++;
    assert_int_equal(h->save_due, 0);
    h->save_due = 1;
    if (--h->steps_left == 0)
        h->stop = 1;
    return 0;
}

/* Now and then the newest is not there. */
static int put_back(void *context, const struct train_piece *pieces, size_t n, int back, int *from,
                    struct ovr_err *err) {
    struct history *h = context;
    (void)err;
    assert_int_equal(back, h->n_asked++);
    if (!h->n_pieces || back < h->n_missing)
        return 0;
    assert_int_equal(n, h->n_pieces);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(pieces[i].n, h->pieces[i].n);
        memcpy(pieces[i].bytes, h->pieces[i].bytes, pieces[i].n);
    }
    *from = 1;
    return 0;
}

static int check_epoch(void *context, int epoch, struct ovr_err *err) {
    struct history *h = context;
    (void)err;
    assert_int_equal(epoch, h->n_pieces ? h->n_reports + 1 : 0);
    return 0;
}

/* In one go with steps = 0, else `steps` at a time, each time in a team of another size. With
 * `members` the team has another size in each epoch, from so many on. Returns in how many pieces.
 */
static int run(struct history *h, const struct train_config *config, int steps, int members) {
    static const int sizes[] = {1, 3, 2};
    const struct sphere_config shape = {N_TRAIN, N_TEST, 2, 3, 4, 77};
    struct ovr_err err = {0};
    struct samples train, test;
    int rc = OVR_STOPPED, attempts = 0;
    assert_ok(sphere_generate(&train, &shape, 0, &err), &err);
    assert_ok(sphere_generate(&test, &shape, 1, &err), &err);
    *h = (struct history){.save_due = steps > 0, .members = members};
    struct train_hooks hooks = {.context = h,
                                .stop = &h->stop,
                                .progress = &h->progress,
                                .members = &h->members,
                                .epoch = keep_report,
                                .save_due = &h->save_due,
                                .save = steps ? keep_pieces : NULL,
                                .restore = steps ? put_back : NULL,
                                .restored = steps ? check_epoch : NULL};
    for (; rc == OVR_STOPPED; attempts++) {
        struct team *team;
        err = (struct ovr_err){0};
        assert_ok(team_new_within(&team, sizes[attempts % 3], 3, &err), &err);
        h->stop = 0;
        h->steps_left = steps;
        h->n_asked = 0;
        h->n_missing = attempts % 2;
        train_result_release(&h->result);
        rc = prepare_and_train(config, &train, &test, team, &hooks, &h->result, &err);
        team_free(team);
        assert_in_range(attempts, 0, 2000);
    }
    assert_ok(rc, &err);
    forget(h);
    samples_release(&train);
    samples_release(&test);
    return attempts;
}

static void assert_same(const struct history *a, const struct history *b) {
    const struct train_result *x = &a->result, *y = &b->result;
    size_t bytes = x->net.n_params * sizeof(real);
    assert_int_equal(a->n_reports, b->n_reports);
    assert_memory_equal(a->watched, b->watched, sizeof a->watched);
    assert_memory_equal(a->train, b->train, sizeof a->train);
    assert_memory_equal(a->learning_rate, b->learning_rate, sizeof a->learning_rate);
    assert_memory_equal(x->best, y->best, bytes);
    assert_memory_equal(x->last, y->last, bytes);
    if (x->best_counts) {
        size_t counts = x->net.config.units[0] * sizeof(real);
        assert_memory_equal(x->best_counts, y->best_counts, counts);
        assert_memory_equal(x->last_counts, y->last_counts, counts);
    }
    assert_int_equal(x->best_epoch, y->best_epoch);
    assert_int_equal(x->epochs, y->epochs);
    assert_memory_equal(&x->terms, &y->terms, sizeof x->terms);
    assert_memory_equal(&x->accuracy, &y->accuracy, sizeof x->accuracy);
    assert_int_equal(x->probed, y->probed);
    if (x->probed) {
        size_t units = x->net.config.units[x->net.config.n_layers - 1];
        assert_memory_equal(x->probe.weights, y->probe.weights,
                            (units + 1) * x->probe.width * sizeof(real));
    }
}

static void check_interrupted(const struct train_config *config) {
    static const int every[] = {1, 4, 9};
    struct history *whole = calloc(1, sizeof *whole), *cut = calloc(1, sizeof *cut);
    assert_true(whole && cut);
    assert_int_equal(run(whole, config, 0, 0), 1);
    for (size_t i = 0; i < COUNT(every); i++) {
        assert_in_range(run(cut, config, every[i], 0), 2, 1000);
        assert_same(cut, whole);
        train_result_release(&cut->result);
    }
    for (int first = 1; first <= 3; first++) {
        assert_int_equal(run(cut, config, 0, first), 1);
        for (int epoch = 0; epoch < cut->n_reports; epoch++)
            assert_int_equal(cut->sizes[epoch], (first + epoch - 1) % 3 + 1);
        assert_same(cut, whole);
        train_result_release(&cut->result);
    }
    train_result_release(&whole->result);
    free(whole);
    free(cut);
}

static struct train_config encoder_config(void) {
    return (struct train_config){
        .kind = MODEL_OVR_ENCODER,
        .hidden = {200},
        .n_hidden = 1,
        .init_scale = 0.05,
        .ovr = {.lambda = 1e-3},
        .activity = 1,
        .activity_target = 0.5,
        .optimizer = {.name = OPT_ADAM,
                      .learning_rate = 1e-2,
                      .beta1 = 0.9,
                      .beta2 = 0.999,
                      .epsilon = 1e-7},
        .schedule = {SCHEDULE_PLATEAU, .factor = 0.5, .min_delta = 0.05, .patience = 1},
        .epochs = 5,
        .batch_size = 32,
        .seed = 5,
        .data = {.protocol = PROTOCOL_CLEAN, .validation = 0.2},
        .probe = 1,
        .probe_config = {.epochs = 2,
                         .batch_size = 16,
                         .optimizer = {.name = OPT_ADAM,
                                       .learning_rate = 1e-2,
                                       .beta1 = 0.9,
                                       .beta2 = 0.999,
                                       .epsilon = 1e-7}},
    };
}

static void an_encoder(void **state) {
    (void)state;
    struct train_config config = encoder_config();
    check_interrupted(&config);
    config.patience = 2; /* early stopping counts on */
    config.patience_delta = 0.5;
    config.batching = BATCHING_SINGLE_CLASS;
    check_interrupted(&config);
}

static void a_deep_mlp_with_dropout(void **state) {
    (void)state;
    struct train_config config = encoder_config();
    config.kind = MODEL_MLP;
    config.n_hidden = 2;
    config.hidden[1] = 150;
    config.dropout[0] = config.dropout[1] = 0.3;
    config.init = INIT_GLOROT;
    config.optimizer = (struct optimizer_config){
        .name = OPT_SGD, .learning_rate = 0.1, .momentum = 0.9, .nesterov = 1};
    config.data.protocol = PROTOCOL_PUBLISHED;
    config.probe = 0;
    check_interrupted(&config);
}

static void a_denoising_autoencoder(void **state) {
    (void)state;
    struct train_config config = encoder_config();
    config.kind = MODEL_AUTOENCODER;
    config.corruption = CORRUPTION_GAUSSIAN;
    config.corruption_amount = 0.1;
    config.tied = 1;
    check_interrupted(&config);
}

static void centroids(void **state) {
    (void)state;
    struct train_config config = encoder_config();
    config.kind = MODEL_KMEANS;
    config.hidden[0] = 20;
    config.f.kind = ACT_TRIANGLE;
    config.init = INIT_SAMPLES;
    config.ovr.lambda = 0;
    config.activity = 0;
    config.epochs = EPOCHS_MAX;
    check_interrupted(&config);
    config.kind = MODEL_ONLINE_KMEANS;
    config.f.kind = ACT_HARD;
    check_interrupted(&config);
}

/* A save that fails ends the run with its own error; one while a run is being stopped does not hide
 * the stop. */
static int refuse(void *context, const struct train_piece *pieces, size_t n, struct ovr_err *err) {
    (void)pieces;
    (void)n;
    (void)context;
    return ovr_fail(err, OVR_FULL, NULL, "no room");
}

static void saves_that_fail(void **state) {
    (void)state;
    const struct train_config config = encoder_config();
    struct samples train = new_samples(100, 4, 3, 1), test = new_samples(50, 4, 3, 3);
    struct train_progress progress = {0};
    struct train_result result;
    struct ovr_err err = {0};
    struct team *team = new_team(2);
    _Atomic int due = 1, stop = 0;
    struct train_hooks hooks = {
        .progress = &progress, .epoch = keep_report, .save_due = &due, .save = refuse};
    assert_failed(prepare_and_train(&config, &train, &test, team, &hooks, &result, &err), OVR_FULL,
                  &err, "no room");
    train_result_release(&result);
    stop = 1;
    hooks.stop = &stop;
    struct prepared *data;
    err = (struct ovr_err){0};
    assert_ok(prepared_build(&data, &config.data, 1, &train, &test, team, kernels_get(ISA_AUTO), -1,
                             NULL, &err),
              &err);
    assert_failed(train_run(&config, data, team, kernels_get(ISA_AUTO), &hooks, &result, &err),
                  OVR_STOPPED, &err, "stopped");
    train_result_release(&result);
    prepared_free(data);
    team_free(team);
    samples_release(&train);
    samples_release(&test);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_encoder),
        cmocka_unit_test(a_deep_mlp_with_dropout),
        cmocka_unit_test(a_denoising_autoencoder),
        cmocka_unit_test(centroids),
        cmocka_unit_test(saves_that_fail),
    };
    return cmocka_run_group_tests_name("core/resume", tests, start_blas, NULL);
}
