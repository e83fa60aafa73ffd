/* The layer as a whole: initial weights, groups of an evaluation, J from its definition. Gradients
 * are in tests/core64/test_net.c. */
#include "core/net.h"
#include "tests/core/check.h"

enum { INPUTS = 5, UNITS = 300, CLASSES = 3, ROWS = 50 };

struct pass {
    struct net *net;
    struct batch batch;
    struct terms terms;
};

static void forward_work(struct member *member, void *arg) {
    struct pass *pass = arg;
    struct terms terms = net_forward(member, pass->net, &pass->batch);
    if (member->rank == 0)
        pass->terms = terms;
}

static void init_work(struct member *member, void *arg) {
    net_init_weights(member, arg);
}

static const struct net_config mlp = {.n_inputs = INPUTS,
                                      .n_layers = 1,
                                      .units = {UNITS},
                                      .n_classes = CLASSES,
                                      .init = INIT_GLOROT,
                                      .ovr = {.lambda = 1e-3},
                                      .activity = 1,
                                      .activity_target = 0.5,
                                      .seed = 4};

static struct terms forward(struct team *team, struct net *net, const struct samples *samples,
                            size_t first, size_t n, size_t group) {
    struct pass pass = {.net = net,
                        .batch = {.x = samples->values + first * INPUTS,
                                  .labels = samples->labels + first,
                                  .n = n,
                                  .group = group}};
    team_run(team, forward_work, &pass);
    return pass.terms;
}

/* Activation of one unit for one sample, from the definition. */
static double naive_activation(const struct net *net, const real *x, size_t unit) {
    double a = net_bias(net, 0)[unit];
    for (size_t j = 0; j < INPUTS; j++)
        a += (double)net_weight(net, 0)[unit * INPUTS + j] * x[j];
    return a > 0 ? a : 0;
}

static void activations_norms_and_j(void **state) {
    (void)state;
    struct team *team = new_team(2);
    struct samples samples = new_samples(ROWS, INPUTS, CLASSES, 1);
    struct net *net = new_net(&mlp, 0, ROWS, 2);
    team_run(team, init_work, net);
    for (size_t c = 0; c < CLASSES; c++)
        net_head_bias(net)[c] = (real)c;
    real *h = new_reals(ROWS * UNITS);
    double sum = 0, slope, loss, cross_entropy = 0;
    struct terms terms = forward(team, net, &samples, 0, ROWS, ROWS);
    const struct activations code = net_activations(net);
    for (size_t i = 0; i < ROWS; i++) {
        double squares = 0, z[CLASSES], total = 0;
        for (size_t c = 0; c < CLASSES; c++)
            z[c] = (double)c;
        for (size_t k = 0; k < UNITS; k++) {
            struct shard shard = activations_shard(&code, k / SHARD_UNITS);
            double value = naive_activation(net, samples.values + i * INPUTS, k);
            size_t at = i * shard.units + k - shard.first;
            assert_near(activations_of(&code, &shard)[at], value, 1e-5);
            h[i * UNITS + k] = (real)value;
            squares += value * value;
            sum += value;
            for (size_t c = 0; c < CLASSES; c++)
                z[c] += value * net_head_weight(net)[k * net->width + c];
        }
        assert_relative(code.squares[i], squares, 1e-5);
        for (size_t c = 0; c < CLASSES; c++)
            total += exp(z[c]);
        cross_entropy += log(total) - z[samples.labels[i]];
    }
    struct ovr_err err = {0};
    assert_ok(ovr_loss(net->kernels, OVR_COSINE, ROWS, UNITS, h, &loss, NULL, NULL, &err), &err);
    assert_relative(terms.value[TERM_OVR] / ROWS, 1e-3 * loss, 1e-5);
    assert_near(terms.value[TERM_ACTIVITY] / ROWS, activity_value(0.5, sum, ROWS, UNITS, &slope),
                1e-5);
    assert_relative(terms.value[TERM_CROSS_ENTROPY], cross_entropy, 1e-5);
    assert_near(
        terms.loss,
        terms.value[TERM_OVR] + terms.value[TERM_ACTIVITY] + terms.value[TERM_CROSS_ENTROPY], 1e-9);
    assert_true(terms.samples == ROWS);
    free(h);
    free_net(net);
    samples_release(&samples);
    team_free(team);
}

/* n rows at once in groups are the same as the groups one after the other, with a ragged last one.
 */
static void check_groups(const struct net_config *config) {
    enum { GROUP = 16 };
    struct team *team = new_team(3);
    struct samples samples = new_samples(ROWS, INPUTS, CLASSES, 2);
    memset(samples.values + 20 * INPUTS, 0,
           INPUTS * sizeof(real)); /* an empty code in the second */
    struct net *net = new_net(config, 0, ROWS, 3);
    team_run(team, init_work, net);
    struct terms at_once = forward(team, net, &samples, 0, ROWS, GROUP), sums = {0};
    for (size_t first = 0; first < ROWS; first += GROUP) {
        size_t n = min_size(GROUP, ROWS - first);
        struct terms terms = forward(team, net, &samples, first, n, n);
        terms_add(&sums, &terms);
    }
    assert_near(at_once.samples, ROWS, 0);
    assert_int_equal(at_once.zero_codes, config->f.kind != ACT_SIGMOID);
    assert_int_equal(at_once.zero_codes, sums.zero_codes);
    assert_int_equal(at_once.correct, sums.correct);
    for (enum term t = 0; t < N_TERMS; t++) {
        assert_int_equal(at_once.value[t] != 0, net_terms(config) >> t & 1);
        assert_relative(at_once.value[t], sums.value[t], 1e-5);
    }
    assert_relative(at_once.loss, sums.loss, 1e-5);
    free_net(net);
    samples_release(&samples);
    team_free(team);
}

static void groups_count_one_by_one(void **state) {
    (void)state;
    struct net_config config = mlp;
    check_groups(&config);
    config.ovr.per_pair = 1;
    check_groups(&config);
    config.ovr.form = OVR_RAW;
    check_groups(&config);
    config.n_classes = 0;
    check_groups(&config);

    config = (struct net_config){.n_inputs = INPUTS,
                                 .n_layers = 1,
                                 .units = {UNITS},
                                 .f = {.kind = ACT_SIGMOID},
                                 .decoder = 1,
                                 .init = INIT_GLOROT,
                                 .ovr = {.lambda = 1e-3},
                                 .activity = 1,
                                 .activity_target = 0.25,
                                 .l1 = 0.1,
                                 .l2 = 0.1,
                                 .kl = 0.1,
                                 .kl_target = 0.05,
                                 .contractive = 0.1};
    check_groups(&config);
    config.tied = 1;
    check_groups(&config);

    config = mlp;
    config.n_layers = 3;
    config.units[1] = 40;
    config.units[2] = 130;
    config.ovr_layers = 5;
    check_groups(&config);
    config.n_classes = 0;
    config.f.kind = ACT_TOP_K;
    config.top_k = 20;
    check_groups(&config);
}

static void check_init(enum init init, double scale, double deviation, double head_deviation) {
    struct team *team = new_team(2);
    struct net_config config = {.n_inputs = 40,
                                .n_layers = 1,
                                .units = {500},
                                .n_classes = 10,
                                .init = init,
                                .init_scale = scale,
                                .seed = 3};
    struct net *net = new_net(&config, 0, 1, 2);
    team_run(team, init_work, net);
    double squares = 0, head_squares = 0, mean = 0;
    for (size_t i = 0; i < 40 * 500; i++) {
        mean += net_weight(net, 0)[i] / 20000;
        squares += net_weight(net, 0)[i] * net_weight(net, 0)[i] / 20000;
        if (init == INIT_GLOROT)
            assert_true(fabs((double)net_weight(net, 0)[i]) <= sqrt(6. / 540));
    }
    for (size_t k = 0; k < 500; k++) {
        assert_true(net_bias(net, 0)[k] == 0);
        for (size_t c = 0; c < 16; c++) {
            double v = net_head_weight(net)[k * 16 + c];
            assert_true((c < 10) == (v != 0));
            head_squares += v * v / 5000;
        }
    }
    assert_near(mean, 0, 5 * deviation / sqrt(20000));
    assert_relative(sqrt(squares), deviation, 0.03);
    assert_relative(sqrt(head_squares), head_deviation, 0.06);
    free_net(net);
    team_free(team);
}

static void initial_weights(void **state) {
    (void)state;
    check_init(INIT_NORMAL, 0.05, 0.05, 0.05);
    check_init(INIT_GLOROT, 0, sqrt(2. / 540), sqrt(2. / 510));
    check_init(INIT_HE, 0, sqrt(2. / 40), sqrt(2. / 500));
}

/* Each layer has numbers of its own, spread as its own size says; what lies above changes nothing
 * below. */
static void initial_weights_of_deep_nets(void **state) {
    (void)state;
    struct team *team = new_team(3);
    struct net_config config = mlp;
    struct net *one = new_net(&config, 0, 1, 3);
    config.n_layers = 3;
    config.units[1] = 200;
    config.units[2] = 200;
    struct net *deep = new_net(&config, 0, 1, 3);
    team_run(team, init_work, one);
    team_run(team, init_work, deep);
    assert_memory_equal(net_weight(one, 0), net_weight(deep, 0), UNITS * INPUTS * sizeof(real));
    for (size_t l = 1; l < 3; l++) {
        size_t d = config.units[l - 1], n = 200 * d;
        const real *w = net_weight(deep, l);
        double squares = 0;
        for (size_t i = 0; i < n; i++)
            squares += w[i] * w[i] / (double)n;
        assert_relative(sqrt(squares), sqrt(2. / (double)(d + 200)), 0.02);
        for (size_t k = 0; k < 200; k++)
            assert_true(net_bias(deep, l)[k] == 0);
    }
    assert_memory_not_equal(net_weight(deep, 1), net_weight(deep, 2), 200 * sizeof(real));
    free_net(one);
    free_net(deep);
    team_free(team);
}

static void flat_buffer(void **state) {
    (void)state;
    struct net *net = new_net(&mlp, 2, 4, 1);
    assert_int_equal(net->width, 16);
    assert_int_equal(net->n_params, UNITS * (INPUTS + 1 + 16) + 16);
    assert_ptr_equal(net_weight(net, 0), net->params);
    assert_ptr_equal(net_bias(net, 0), net->params + UNITS * INPUTS);
    assert_ptr_equal(net_head_weight(net), net->params + UNITS * (INPUTS + 1));
    assert_ptr_equal(net_head_bias(net), net->params + UNITS * (INPUTS + 17));
    assert_non_null(net->moment[0]);
    assert_non_null(net->moment[1]);
    const struct activations code = net_activations(net);
    assert_int_equal(activations_shard(&code, 2).first, 256);
    assert_int_equal(activations_shard(&code, 2).units, 44);
    free_net(net);
}

/* Where each part lies, against the picture in core/net.h. */
static void check_parts(const struct net_config *config, size_t n, const struct net_part *expected,
                        size_t n_params) {
    struct net_part parts[PARTS_MAX];
    struct net *net = new_net(config, 0, 4, 1);
    assert_int_equal(net->n_params, n_params);
    assert_int_equal(net_parts(net, parts), n);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(parts[i].part, expected[i].part);
        assert_int_equal(parts[i].layer, expected[i].layer);
        assert_int_equal(parts[i].at, expected[i].at);
        assert_int_equal(parts[i].rows, expected[i].rows);
        assert_int_equal(parts[i].cols, expected[i].cols);
        assert_int_equal(parts[i].stride, expected[i].stride);
    }
    free_net(net);
}

static void parts_of_the_flat_buffer(void **state) {
    (void)state;
    const struct net_part deep[] = {
        {PART_WEIGHT, 0, 0, 7, 5, 5},        {PART_BIAS, 0, 35, 7, 1, 1},
        {PART_WEIGHT, 1, 42, 3, 7, 7},       {PART_BIAS, 1, 63, 3, 1, 1},
        {PART_HEAD_WEIGHT, 0, 66, 3, 4, 16}, {PART_HEAD_BIAS, 0, 114, 4, 1, 1}};
    check_parts(&(struct net_config){.n_inputs = 5, .n_layers = 2, .units = {7, 3}, .n_classes = 4},
                6, deep, 114 + 16);
    check_parts(&(struct net_config){.n_inputs = 5, .n_layers = 2, .units = {7, 3}}, 4, deep, 66);
    const struct net_part decoder[] = {{PART_WEIGHT, 0, 0, 7, 5, 5},
                                       {PART_BIAS, 0, 35, 7, 1, 1},
                                       {PART_HEAD_WEIGHT, 0, 42, 7, 5, 5},
                                       {PART_HEAD_BIAS, 0, 77, 5, 1, 1}};
    check_parts(&(struct net_config){.n_inputs = 5, .n_layers = 1, .units = {7}, .decoder = 1}, 4,
                decoder, 82);
    const struct net_part tied[] = {{PART_WEIGHT, 0, 0, 7, 5, 5},
                                    {PART_BIAS, 0, 35, 7, 1, 1},
                                    {PART_HEAD_BIAS, 0, 42, 5, 1, 1}};
    check_parts(
        &(struct net_config){.n_inputs = 5, .n_layers = 1, .units = {7}, .decoder = 1, .tied = 1},
        3, tied, 47);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(activations_norms_and_j),
        cmocka_unit_test(groups_count_one_by_one),
        cmocka_unit_test(initial_weights),
        cmocka_unit_test(initial_weights_of_deep_nets),
        cmocka_unit_test(flat_buffer),
        cmocka_unit_test(parts_of_the_flat_buffer),
    };
    return cmocka_run_group_tests_name("core/net", tests, start_blas, NULL);
}
