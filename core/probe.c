#include "core/probe.h"

#include "core/ovr.h"
#include "core/rng.h"

#include <math.h>
#include <string.h>

enum { EVALUATE_ROWS = 64 };

struct probe {
    const struct kernels *kernels;
    const struct probe_config *config;
    const struct code *train, *watch, *test;
    const struct probe_progress *progress;
    struct probe_result *result;
    size_t n_classes, width, n_params, max_rows;
    real *params, *m, *v, *best; /* n_units×width, then the bias */
    double *parts;               /* for each group of runs: rows×classes */
    real *delta, *gradient;      /* for each member: max_rows×width and RUN_UNITS×width */
    uint32_t *order;
    uint16_t *labels; /* for each member: max_rows */
    struct schedule_state schedule;
    double best_loss;
    uint64_t steps; /* so far */
    int epoch;      /* in hand, from 1 */
    _Atomic int stopped;
};

/* The logits are summed up in groups of runs, of which each member has its own. */
enum { GROUP_RUNS = 2 };

_Static_assert(GROUP_RUNS *RUN_SHARDS == BY_SHARD, "a rank has whole groups");

static size_t count_groups(size_t n_runs) {
    return (n_runs + GROUP_RUNS - 1) / GROUP_RUNS;
}

/* Which runs are this member's. */
static void share_runs(const struct member *member, const struct code *code, size_t *from,
                       size_t *end) {
    team_own(member, BY_GROUP, count_groups(code->n_runs), from, end);
    *from = min_size(*from * GROUP_RUNS, code->n_runs);
    *end = min_size(*end * GROUP_RUNS, code->n_runs);
}

/* Fetches a sample's runs from .. end − 1 ahead: no hardware can tell where a shuffled sample's
 * lie.
 */
static void prefetch(const struct code_sample *s, size_t from, size_t end) {
    for (size_t j = s->start[from]; j < s->start[end]; j += OVR_ALIGN / sizeof(real))
        __builtin_prefetch(s->value + j);
    for (size_t j = s->start[from]; j < s->start[end]; j += OVR_ALIGN)
        __builtin_prefetch(s->unit + j);
}

enum { AHEAD = 2 }; /* samples */

/* One sample's logits in the groups from .. end − 1, each to its place among `rows`. A later
 * sample's runs are fetched meanwhile, group by group: all at once would wait for one another. */
static void read_sample(const struct probe *p, const struct code *code, size_t sample, size_t later,
                        size_t from, size_t end, double *parts, size_t rows) {
    const size_t width = p->width;
    const struct code_sample s = code_sample(code, sample), ahead = code_sample(code, later);
    const real *bias = p->params + code->n_units * width;
    real z[width] __attribute__((aligned(OVR_ALIGN)));
    for (size_t group = from; group < end; group++) {
        double *part = parts + group * rows * p->n_classes;
        size_t last = min_size((group + 1) * GROUP_RUNS, code->n_runs);
        prefetch(&ahead, group * GROUP_RUNS, last);
        for (size_t c = 0; c < width; c++)
            z[c] = group ? 0 : bias[c];
        for (size_t run = group * GROUP_RUNS; run < last; run++)
            p->kernels->sparse_read(s.unit + s.start[run], s.value + s.start[run],
                                    s.start[run + 1] - s.start[run],
                                    p->params + run * RUN_UNITS * width, width, z);
        for (size_t c = 0; c < p->n_classes; c++)
            part[c] = z[c];
    }
}

/* Logits of the listed samples, summed over the groups into probe->parts; the codes of those behind
 * them, up to samples[n-1], are fetched meanwhile. */
static void read_out(struct member *member, struct probe *p, const struct code *code,
                     const uint32_t *samples, size_t rows, size_t n) {
    size_t from, end, n_groups = count_groups(code->n_runs);
    uint16_t *labels = p->labels + (size_t)member->rank * p->max_rows;
    team_own(member, BY_GROUP, n_groups, &from, &end);
    team_barrier(member); /* nobody still reads the last batch's logits */
    for (size_t i = 0; i < rows; i++) {
        labels[i] = code->labels[samples[i]];
        read_sample(p, code, samples[i], samples[min_size(i + AHEAD, n - 1)], from, end,
                    p->parts + i * p->n_classes, rows);
    }
    team_sum(member, BY_GROUP, p->parts, n_groups, rows * p->n_classes);
}

/* The gradient of one run's weights from the whole batch, and the optimiser's step. */
static void step_run(struct probe *p, size_t run, const uint32_t *order, size_t rows,
                     const real *delta, real *g, const struct update *update) {
    const struct code *code = p->train;
    size_t width = p->width, at = run * RUN_UNITS * width;
    size_t n = min_size(RUN_UNITS, code->n_units - run * RUN_UNITS) * width;
    memset(g, 0, n * sizeof *g);
    for (size_t i = 0; i < rows; i++) {
        struct code_sample s = code_sample(code, order[i]);
        p->kernels->sparse_write(s.unit + s.start[run], s.value + s.start[run],
                                 s.start[run + 1] - s.start[run], delta + i * width, width, g);
    }
    p->kernels->update(update, n, p->params + at, g, p->m + at, p->v + at);
}

/* One step on the samples order[0..rows-1], with n - rows more to come. */
static void step(struct member *member, struct probe *p, const uint32_t *order, size_t rows,
                 size_t n, const struct update *update) {
    const struct code *code = p->train;
    size_t rank = (size_t)member->rank, from, end, width = p->width, correct;
    real *delta = p->delta + rank * p->max_rows * width;
    real *g = p->gradient + rank * RUN_UNITS * width;
    read_out(member, p, code, order, rows, n);
    softmax_cross_entropy(rows, p->n_classes, width, p->parts, p->labels + rank * p->max_rows,
                          delta, &correct);
    share_runs(member, code, &from, &end);
    for (size_t run = from; run < end; run++)
        step_run(p, run, order, rows, delta, g, update);
    if (from == 0 && end > 0) { /* the bias belongs to the first group */
        size_t at = code->n_units * width;
        memset(g, 0, width * sizeof *g);
        for (size_t i = 0; i < rows; i++)
            for (size_t c = 0; c < width; c++)
                g[c] += delta[i * width + c];
        p->kernels->update(update, width, p->params + at, g, p->m + at, p->v + at);
    }
}

static double evaluate(struct member *member, struct probe *p, const struct code *code,
                       double *accuracy) {
    double loss = 0;
    size_t right = 0;
    const uint16_t *labels = p->labels + (size_t)member->rank * p->max_rows;
    for (size_t first = 0; first < code->n; first += EVALUATE_ROWS) {
        size_t rows = min_size(EVALUATE_ROWS, code->n - first), correct;
        size_t n = min_size(2 * EVALUATE_ROWS, code->n - first);
        uint32_t samples[2 * EVALUATE_ROWS];
        for (size_t i = 0; i < n; i++)
            samples[i] = (uint32_t)(first + i);
        read_out(member, p, code, samples, rows, n);
        loss += (double)rows * softmax_cross_entropy(rows, p->n_classes, p->width, p->parts, labels,
                                                     NULL, &correct);
        right += correct;
    }
    *accuracy = (double)right / (double)code->n;
    return loss / (double)code->n;
}

enum { STEPS_BETWEEN_STOPS = 64 };

/* Returns 0 or, for all members alike, 1 when the owner asked to stop. */
static int train_epoch(struct member *member, struct probe *p, uint32_t epoch, double rate,
                       uint64_t *t) {
    size_t n = p->train->n, batch = p->config->batch_size;
    if (member->rank == 0) {
        struct rng rng;
        rng_init(&rng, p->config->seed, RNG_PROBE_SHUFFLE, epoch, 0);
        rng_permutation(&rng, p->order, (uint32_t)n);
    }
    team_barrier(member);
    for (size_t first = 0; first < n; first += batch) {
        if (*t % STEPS_BETWEEN_STOPS == 0 && team_agree(member, p->progress->stop))
            return 1;
        struct update update = optimizer_update(&p->config->optimizer, rate, ++*t);
        step(member, p, p->order + first, min_size(batch, n - first), n - first, &update);
    }
    return 0;
}

/* One epoch; member 0 keeps what comes of it. */
static void work(struct member *member, void *arg) {
    struct probe *p = arg;
    struct probe_result *result = p->result;
    uint64_t t = p->steps;
    if (train_epoch(member, p, (uint32_t)p->epoch, p->schedule.learning_rate, &t)) {
        p->stopped = 1;
        return;
    }
    double accuracy, loss = evaluate(member, p, p->watch, &accuracy);
    if (member->rank)
        return;
    p->steps = t;
    schedule_step(&p->config->schedule, &p->schedule, loss);
    result->accuracy_last = accuracy;
    result->accuracy_best = fmax(result->accuracy_best, accuracy);
    if (loss < p->best_loss) {
        p->best_loss = result->loss_best = loss;
        result->epoch_best = p->epoch;
        memcpy(p->best, p->params, p->n_params * sizeof *p->best);
    }
}

static void test_work(struct member *member, void *arg) {
    struct probe *p = arg;
    double accuracy;
    if (member->rank == 0)
        memcpy(p->params, p->best, p->n_params * sizeof *p->best);
    team_barrier(member);
    evaluate(member, p, p->test, &accuracy);
    if (member->rank == 0)
        p->result->accuracy_test = accuracy;
}

/* Sizes and arrays, from what is set already. */
static void place(struct probe *p, size_t n_units, size_t n_train, int members,
                  struct arena *arena) {
    size_t batch = p->config->batch_size;
    p->width = read_out_width(p->n_classes);
    p->max_rows = batch > EVALUATE_ROWS ? batch : EVALUATE_ROWS;
    p->n_params = (n_units + 1) * p->width;
    p->params = arena_take(arena, p->n_params, sizeof(real));
    p->m = arena_take(arena, p->n_params, sizeof(real));
    p->v = arena_take(arena, p->n_params, sizeof(real));
    p->best = arena_take(arena, p->n_params, sizeof(real));
    p->parts = arena_take(arena, count_groups(code_n_runs(n_units)) * p->max_rows * p->n_classes,
                          sizeof(double));
    p->delta = arena_take(arena, (size_t)members * p->max_rows * p->width, sizeof(real));
    p->gradient = arena_take(arena, (size_t)members * RUN_UNITS * p->width, sizeof(real));
    p->order = arena_take(arena, n_train, sizeof(uint32_t));
    p->labels = arena_take(arena, (size_t)members * p->max_rows, sizeof(uint16_t));
}

void probe_plan(const struct probe_config *config, size_t n_units, size_t n_classes, size_t n_train,
                int members, struct arena *counting) {
    struct probe p = {.config = config, .n_classes = n_classes};
    place(&p, n_units, n_train, members, counting);
}

int probe_run(struct team *team, const struct kernels *kernels, const struct probe_config *config,
              size_t n_classes, const struct code *train, const struct code *watch,
              const struct code *test, const struct probe_progress *progress, struct arena *arena,
              struct probe_result *result, struct ovr_err *err) {
    struct probe p = {
        .kernels = kernels,
        .config = config,
        .train = train,
        .watch = watch,
        .test = test,
        .progress = progress,
        .result = result,
        .n_classes = n_classes,
        .best_loss = INFINITY,
    };
    place(&p, train->n_units, train->n, team_most(team), arena);
    *result = (struct probe_result){.accuracy_test = NAN, .width = p.width};
    schedule_start(&config->schedule, &p.schedule, config->optimizer.learning_rate);
    for (p.epoch = 1; p.epoch <= config->epochs && !p.stopped; p.epoch++) {
        team_run(team, work, &p);
        if (progress->epoch && !p.stopped)
            progress->epoch(progress->context, p.epoch);
    }
    if (test && !p.stopped)
        team_run(team, test_work, &p);
    if (p.stopped)
        return ovr_fail(err, OVR_STOPPED, NULL, "stopped while the probe was trained");
    if (!isfinite(result->loss_best) || !result->epoch_best)
        return ovr_fail(err, OVR_DIVERGED, "/probe/learning_rate",
                        "the probe's loss is not finite; lower its learning rate");
    result->weights = p.best;
    return 0;
}
