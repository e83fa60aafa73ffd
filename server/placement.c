#include "server/placement.h"

#include "server/pool.h"

#include <math.h>

/* What a job takes beside its products, in seconds of one core. Small jobs consist of nothing else.
 * By the processor time of whole jobs on an AMD EPYC (Zen 4), 100 … 10,000 samples, 8 … 2000 units.
 */
static const double JOB_S = 4e-3;        /* from the claim to the result's files */
static const double EPOCH_S = 1.2e-4;    /* its figures, on their way to the database */
static const double SAMPLE_S = 1.5e-7;   /* each time it is trained on, by net or probe */
static const double ACTIVATION_S = 2e-9; /* passes over it that are no product */

static int count_epochs(const struct train_config *train) {
    int has_none = train->kind == MODEL_PCA || train->kind == MODEL_RANDOM_PROJECTION ||
                   train->kind == MODEL_IDENTITY;
    return has_none ? 1 : train->epochs;
}

/* One epoch's seconds of one core that members of a team can share. */
static double seconds_of_epoch(const struct admission *a, const struct spec *spec,
                               const struct cost *cost, const struct train_data *data) {
    double units = 0;
    for (size_t l = 0; l < spec->train.n_hidden; l++)
        units += (double)spec->train.hidden[l];
    return cost->train.flops_per_epoch / a->flops_per_second +
           (double)data->n_train * (SAMPLE_S + units * ACTIVATION_S);
}

/* Alone, with so many cores, of which it takes as many as are of use (server/pool.h); a job of a
 * cluster has them whether or not they are. */
static void estimate_time(const struct admission *a, const struct spec *spec,
                          const struct train_data *data, int cores, struct cost *cost) {
    const struct train_config *train = &spec->train;
    int epochs = count_epochs(train);
    double n = (double)data->n_train, epoch = seconds_of_epoch(a, spec, cost, data);
    double probed = train->probe ? train->probe_config.epochs * n * SAMPLE_S : 0;
    double fixed = JOB_S + EPOCH_S * epochs;
    double shared =
        epoch * epochs + probed +
        (cost->train.flops_total - cost->train.flops_per_epoch * epochs) / a->flops_per_second;
    double step = epoch * fmin(1, (double)train->batch_size / n);
    int members = team_size_for(cores, 0, TEAM_MAX, step * a->flops_per_second);
    cost->core_seconds = fixed + shared;
    cost->seconds = fixed + shared / members;
}

/* What it takes; the weights that it starts from stay beside those of the run. */
static struct cost cost_of(const struct admission *a, const struct spec *spec,
                           const struct train_data *data, enum executor_kind executor, int ranks) {
    int cores = executor == EXECUTOR_LOCAL ? a->cores : a->cluster.cores;
    int members = spec->threads ? spec->threads : cores;
    const struct crew crew = {members, ranks};
    struct cost cost = {executor, ranks, train_estimate(&spec->train, data, &crew)};
    cost.train.flops_per_epoch *= ranks; /* which were those of one */
    cost.train.flops_total *= ranks;
    if (*spec->init_experiment)
        cost.train.memory_bytes += cost.train.parameters * sizeof(float);
    estimate_time(a, spec, data, (members < cores ? members : cores) * ranks, &cost);
    return cost;
}

static const double ESTIMATES_ERR = 1.2;
static const uint64_t PROGRAM_BYTES = UINT64_C(64) << 20;

uint64_t memory_asked(uint64_t estimate) {
    return (uint64_t)((double)estimate * ESTIMATES_ERR) + PROGRAM_BYTES;
}

/* The largest estimate for which no more than so many bytes are asked. */
static uint64_t largest_estimate(uint64_t bytes) {
    return bytes > PROGRAM_BYTES ? (uint64_t)((double)(bytes - PROGRAM_BYTES) / ESTIMATES_ERR) : 0;
}

static int has_room(const struct admission *a, const struct cost *cost) {
    if (cost->executor == EXECUTOR_LOCAL)
        return cost->train.memory_bytes <= (uint64_t)a->memory_bytes;
    return !a->cluster.rank_bytes ||
           memory_asked(cost->train.memory_bytes) <= (uint64_t)a->cluster.rank_bytes;
}

/* As many ranks as the spec wants on the cluster; else the fewest that have room, or the most that
 * there can be. */
static int ranks_there(const struct admission *a, const struct spec *spec,
                       const struct train_data *data, int most) {
    int members = spec->threads ? spec->threads : a->cluster.cores;
    if (spec->ranks)
        return spec->ranks;
    if (!a->cluster.rank_bytes)
        return 1;
    uint64_t most_bytes = largest_estimate((uint64_t)a->cluster.rank_bytes);
    int ranks = train_ranks_within(&spec->train, data, members, most_bytes);
    return ranks ? ranks : most;
}

static int is_for_cluster(const struct cluster_rules *rules, const struct cost *here) {
    return (rules->above_bytes && here->train.memory_bytes > (uint64_t)rules->above_bytes) ||
           (rules->above_core_hours > 0 && here->core_seconds > rules->above_core_hours * 3600);
}

/* What the spec asks for that can't be. */
static void check(const struct admission *a, const struct spec *spec, int bound, int most,
                  json_t *faults) {
    int wanted = spec->executor;
    if (wanted == EXECUTOR_SLURM && !a->cluster.there)
        spec_fault(faults, "/training/executor",
                   "this daemon has no cluster; use \"auto\" or \"local\", or start ovrd with "
                   "--slurm on");
    else if (wanted == EXECUTOR_SLURM && bound)
        spec_fault(faults, "/training/executor",
                   "must be \"auto\" or \"local\": it starts from another experiment's weights or "
                   "steps, which are on the daemon's machine");
    if (spec->ranks <= 1)
        return;
    if (spec->train.n_hidden > 1)
        spec_fault(faults, "/training/ranks",
                   "several ranks train one hidden layer, not %zu; use 1 or \"auto\"",
                   spec->train.n_hidden);
    else if (spec->ranks > most)
        spec_fault(faults, "/training/ranks",
                   "must be 1..%d for this many units, of which a rank has at least 512, got %d",
                   most, spec->ranks);
    else if (wanted == EXECUTOR_LOCAL)
        spec_fault(
            faults, "/training/ranks",
            "must be 1 or \"auto\" on the daemon's machine, got %d; ranks are for a cluster: "
            "set /training/executor to \"slurm\"",
            spec->ranks);
    else if (wanted == EXECUTOR_AUTO && (bound || !a->cluster.there))
        spec_fault(faults, "/training/ranks",
                   "must be 1 or \"auto\", got %d: ranks are for a cluster, and %s", spec->ranks,
                   bound ? "what starts from another experiment's weights or steps runs on the "
                           "daemon's machine"
                         : "this daemon has none");
}

static double gib(uint64_t bytes) {
    return (double)bytes / (1 << 30);
}

static void refuse_size(const struct admission *a, const struct spec *spec, const struct cost *cost,
                        int most, json_t *faults) {
    static const char LESS[] = "lower /model/hidden, /training/batch_size or";
    const char *samples = spec->generated ? "/dataset/samples" : "/dataset/train_limit";
    if (cost->executor == EXECUTOR_LOCAL)
        spec_fault(faults, "",
                   "needs about %.2f GiB of memory, this daemon may use %.2f GiB; %s %s, or start "
                   "ovrd with a larger --memory",
                   gib(cost->train.memory_bytes), gib((uint64_t)a->memory_bytes), LESS, samples);
    else
        spec_fault(faults, "",
                   "needs about %.2f GiB of memory in each of %d rank%s, a rank on the cluster may "
                   "have %.2f GiB; %s %s%s, or start ovrd with a larger --slurm-node-memory",
                   gib(memory_asked(cost->train.memory_bytes)), cost->ranks,
                   cost->ranks == 1 ? "" : "s", gib((uint64_t)a->cluster.rank_bytes), LESS, samples,
                   cost->ranks < most ? ", raise /training/ranks" : "");
}

void place(const struct admission *a, const struct spec *spec, const struct train_data *data,
           size_t width, int bound, json_t *faults, struct cost *cost) {
    size_t n_units = train_code_units(&spec->train, width ? width : data->n_values);
    int most = spec->train.n_hidden > 1 ? 1 : team_most_ranks(n_units);
    check(a, spec, bound, most, faults);
    if (spec_has_faults(faults))
        return;
    *cost = cost_of(a, spec, data, EXECUTOR_LOCAL, 1);
    int must_go = spec->executor == EXECUTOR_SLURM || spec->ranks > 1;
    int may_go = spec->executor == EXECUTOR_AUTO && a->cluster.there && !bound;
    if (must_go || (may_go && (!has_room(a, cost) || is_for_cluster(&a->cluster, cost)))) {
        int ranks = ranks_there(a, spec, data, most);
        struct cost there = cost_of(a, spec, data, EXECUTOR_SLURM, ranks);
        if (must_go || has_room(a, &there))
            *cost = there;
    }
    if (!has_room(a, cost))
        refuse_size(a, spec, cost, most, faults);
}
