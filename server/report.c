#include "server/report.h"

#include "core/cpu.h"
#include "core/linalg.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static struct figure *add(struct figures *figures, const char *name) {
    struct figure *figure = &figures->list[figures->n++];
    *figure = (struct figure){.name = name};
    return figure;
}

static void add_real(struct figures *figures, const char *name, double value) {
    add(figures, name)->real = value;
}

static void add_count(struct figures *figures, const char *name, uint64_t value) {
    struct figure *figure = add(figures, name);
    figure->kind = FIGURE_COUNT;
    figure->count = (int64_t)value;
}

void figures_add_text(struct figures *figures, const char *name, const char *text) {
    struct figure *figure = add(figures, name);
    figure->kind = FIGURE_TEXT;
    figure->text = text;
}

/* Names of the terms of J under one heading. */
struct term_names {
    const char *loss, *accuracy, *term[N_TERMS];
};

#define TERMS(heading)                                                                             \
    {                                                                                              \
        [TERM_OVR] = heading ".ovr", [TERM_ACTIVITY] = heading ".activity",                        \
        [TERM_CROSS_ENTROPY] = heading ".cross_entropy",                                           \
        [TERM_RECONSTRUCTION] = heading ".reconstruction", [TERM_L1] = heading ".l1",              \
        [TERM_KL] = heading ".kl", [TERM_CONTRACTIVE] = heading ".contractive",                    \
        [TERM_L2] = heading ".l2", [TERM_DISTORTION] = heading ".distortion"                       \
    }
#define TERM_NAMES(split)                                                                          \
    { split ".loss", split ".accuracy", TERMS(split) }
static const struct term_names train_names = TERM_NAMES("train");
static const struct term_names validation_names = TERM_NAMES("validation");
static const struct term_names test_names = TERM_NAMES("test");
static const char *const gradient_names[N_TERMS] = TERMS("gradient");

static void add_terms(struct figures *figures, const struct term_names *names,
                      const struct terms *terms, const struct train_config *config) {
    unsigned reported = train_terms(config);
    if (reported)
        add_real(figures, names->loss, terms->loss);
    for (int t = 0; t < N_TERMS; t++)
        if (reported >> t & 1)
            add_real(figures, names->term[t], terms->value[t]);
    if (config->kind == MODEL_MLP)
        add_real(figures, names->accuracy, (double)terms->correct / terms->samples);
}

/* Each term's share of the gradient, by norms, and where OVR's points. */
static void add_gradients(struct figures *figures, const struct gradients *gradients) {
    double sum = 0;
    for (int t = 0; t < N_TERMS; t++)
        sum += gradients->norm[t];
    for (int t = 0; t < N_TERMS && sum > 0; t++)
        if (gradients->norm[t] != 0)
            add_real(figures, gradient_names[t], gradients->norm[t] / sum);
    if (!isnan(gradients->direction))
        add_real(figures, "direction.cosine", gradients->direction);
}

static void add_bias(struct figures *figures, const struct bias_measures *bias) {
    static const char *const names[BIAS_QUANTILES] = {"bias.min", "bias.quartile_1", "bias.median",
                                                      "bias.quartile_3", "bias.max"};
    if (!bias->n)
        return;
    add_real(figures, "bias.negative", bias->negative);
    for (int q = 0; q < BIAS_QUANTILES; q++)
        add_real(figures, names[q], bias->quantile[q]);
}

static void add_measures(struct figures *figures, const struct measures *m) {
    add_real(figures, "sparsity.near_zero", m->near_zero);
    add_real(figures, "sparsity.zero", m->zero);
    add_real(figures, "sparsity.mean_activation", m->mean_activation);
    add_real(figures, "sparsity.overlap", m->overlap);
    add_count(figures, "sparsity.dead_units", m->dead_units);
    add_count(figures, "sparsity.zero_codes", m->zero_codes);
    add_real(figures, "sparsity.over_samples.hoyer", m->over_samples.hoyer);
    add_real(figures, "sparsity.over_samples.treves_rolls", m->over_samples.treves_rolls);
    add_real(figures, "sparsity.over_samples.gini", m->over_samples.gini);
    add_real(figures, "sparsity.active_units.mean", m->active_units.mean);
    add_real(figures, "sparsity.active_units.sd", m->active_units.sd);
    add_count(figures, "sparsity.active_units.min", m->active_units.min);
    add_count(figures, "sparsity.active_units.max", m->active_units.max);
    add_bias(figures, &m->bias);
}

/* Of the layers below the code, the names of their figures. */
#define BELOW(l)                                                                                   \
    {                                                                                              \
        "layers." #l ".near_zero", "layers." #l ".zero", "layers." #l ".overlap",                  \
            "layers." #l ".dead_units", "layers." #l ".zero_codes",                                \
            "layers." #l ".over_samples.hoyer", "layers." #l ".over_samples.treves_rolls",         \
            "layers." #l ".over_samples.gini"                                                      \
    }
static const struct below_names {
    const char *near_zero, *zero, *overlap, *dead_units, *zero_codes, *hoyer, *treves_rolls, *gini;
} below_names[LAYERS_MAX - 1] = {BELOW(0), BELOW(1), BELOW(2), BELOW(3),
                                 BELOW(4), BELOW(5), BELOW(6)};

static void add_below(struct figures *figures, const struct measures *below, size_t n) {
    for (size_t l = 0; l < n; l++) {
        const struct below_names *names = &below_names[l];
        add_real(figures, names->near_zero, below[l].near_zero);
        add_real(figures, names->zero, below[l].zero);
        add_real(figures, names->overlap, below[l].overlap);
        add_count(figures, names->dead_units, below[l].dead_units);
        add_count(figures, names->zero_codes, below[l].zero_codes);
        add_real(figures, names->hoyer, below[l].over_samples.hoyer);
        add_real(figures, names->treves_rolls, below[l].over_samples.treves_rolls);
        add_real(figures, names->gini, below[l].over_samples.gini);
    }
}

/* The histograms of all layers; returns how many. */
static size_t list_histograms(struct epoch_histogram list[LAYERS_MAX], const struct net *net,
                              int epoch, const char *split, const struct measures *code,
                              const struct measures *below) {
    size_t n = net->config.n_layers;
    for (size_t l = 0; l < n; l++)
        list[l] = (struct epoch_histogram){
            epoch, split, l + 1 < n ? &below[l].histogram : &code->histogram, (int)l};
    return n;
}

/* What only the table of units has. */
static void add_unit_means(struct figures *figures, const struct units *units) {
    const struct unit_means *means = &units->means;
    add_real(figures, "sparsity.over_units.hoyer", means->over_units.hoyer);
    add_real(figures, "sparsity.over_units.treves_rolls", means->over_units.treves_rolls);
    add_real(figures, "sparsity.over_units.gini", means->over_units.gini);
    add_real(figures, "sparsity.classes_per_unit", means->classes);
    if (units->n_cells)
        add_real(figures, "sparsity.cells_per_unit", means->cells);
}

void report_epoch(const struct train_config *config, const struct epoch_report *report,
                  const char *digest, struct epoch_facts *facts) {
    struct figures *figures = &facts->figures;
    int clean = config->data.protocol == PROTOCOL_CLEAN;
    figures->n = 0;
    add_terms(figures, &train_names, &report->train, config);
    add_terms(figures, clean ? &validation_names : &test_names, &report->watched, config);
    add_measures(figures, &report->measures);
    add_gradients(figures, &report->gradients);
    if (report->learning_rate > 0) /* k-means has none */
        add_real(figures, "learning_rate", report->learning_rate);
    add_real(figures, "seconds", report->seconds);
    figures_add_text(figures, "digest", digest);
    add_below(figures, report->below, report->net->config.n_layers - 1);
    facts->n_histograms =
        list_histograms(facts->histograms, report->net, report->epoch,
                        clean ? "validation" : "test", &report->measures, report->below);
}

static void add_result(struct figures *figures, const struct circumstances *c,
                       const struct train_result *r) {
    const struct train_config *config = &c->spec->train;
    double pairs = (double)config->batch_size * (double)(config->batch_size - 1);
    if (!isnan(r->accuracy))
        add_real(figures, "accuracy", r->accuracy);
    if (!isnan(r->accuracy_last))
        add_real(figures, "accuracy_last", r->accuracy_last);
    figures_add_text(figures, "protocol",
                     config->data.protocol == PROTOCOL_CLEAN ? "clean" : "published");
    add_measures(figures, &r->measures);
    add_unit_means(figures, &r->units[r->net.config.n_layers - 1]);
    add_below(figures, r->below, r->net.config.n_layers - 1);
    add_count(figures, "best_epoch", (uint64_t)r->best_epoch);
    add_count(figures, "epochs", (uint64_t)r->epochs);
    add_terms(figures, &test_names, &r->terms, config);
    if (r->probed) {
        add_count(figures, "probe.best_epoch", (uint64_t)r->probe.epoch_best);
        add_real(figures, "probe.loss", r->probe.loss_best);
        add_real(figures, "probe.accuracy",
                 config->data.protocol == PROTOCOL_CLEAN ? r->probe.accuracy_test
                                                         : r->probe.accuracy_best);
    }
    if (train_terms(config) >> TERM_OVR & 1)
        add_real(figures, "lambda_per_pair",
                 config->ovr.per_pair ? config->ovr.lambda : config->ovr.lambda * pairs);
    add_real(figures, "seconds", (double)c->computed_ms / 1000);
}

static void add_provenance(struct figures *figures, const struct circumstances *c,
                           const struct saved *saved, struct run_facts *facts) {
    const struct spec *spec = c->spec;
    digest_of(c->spec_text, strlen(c->spec_text), facts->spec_sha256);
    cpu_model(facts->cpu, sizeof facts->cpu);
    figures_add_text(figures, "spec_sha256", facts->spec_sha256);
    if (!spec->generated) {
        figures_add_text(figures, "data.train_sha256", spec->train_sha256);
        figures_add_text(figures, "data.test_sha256", spec->test_sha256);
    }
    add_count(figures, "seed", spec->train.seed);
    figures_add_text(figures, "program", "ovrd " OVRD_VERSION);
    figures_add_text(figures, "blas.library", linalg_library());
    figures_add_text(figures, "blas.kernel", linalg_kernel());
    figures_add_text(figures, "isa", isa_name(c->isa));
    figures_add_text(figures, "cpu", facts->cpu);
    add_count(figures, "threads", (uint64_t)c->threads);
    if (c->ranks > 1)
        add_count(figures, "ranks", (uint64_t)c->ranks);
    figures_add_text(figures, "weights.best_sha256", saved->best);
    figures_add_text(figures, "weights.last_sha256", saved->last);
}

void report_result(const struct circumstances *circumstances, const struct train_result *result,
                   const struct saved *saved, struct run_facts *facts) {
    facts->result.n = facts->provenance.n = 0;
    add_result(&facts->result, circumstances, result);
    add_provenance(&facts->provenance, circumstances, saved, facts);
    facts->n_layers = list_histograms(facts->histograms, &result->net, 0, "test", &result->measures,
                                      result->below);
    for (size_t l = 0; l < facts->n_layers; l++) {
        const struct units *units = &result->units[l];
        facts->unit_tables[l] =
            (struct unit_table){(int)l, "test", units->n_units, units->n_classes, units->n_cells};
    }
}

struct outcome report_success(const struct run_facts *facts, const struct saved *saved) {
    return (struct outcome){
        .state = STATE_SUCCEEDED,
        .result = facts->result.list,
        .n_result = facts->result.n,
        .provenance = facts->provenance.list,
        .n_provenance = facts->provenance.n,
        .tensors = saved->tensors,
        .n_tensors = saved->n,
        .histograms = facts->histograms,
        .n_histograms = facts->n_layers,
        .unit_tables = facts->unit_tables,
        .n_unit_tables = facts->n_layers,
    };
}

/* The slug of a failed job's problem; api/problem.c has a title for each. */
static const char *problem_kind(int code) {
    switch (code) {
    case OVR_DIVERGED:
        return "diverged";
    case OVR_NOMEM:
        return "out-of-memory";
    case OVR_INVALID:
        return "invalid-spec";
    case OVR_NOT_FOUND: /* it was there when the experiment was posted */
        return "source-gone";
    case OVR_IO:
    case OVR_FULL:
        return "storage";
    case OVR_STOPPED:
        return "time-limit";
    default:
        return "internal";
    }
}

struct outcome report_failure(const struct ovr_err *why) {
    int of_spec =
        why->field[0] == '/' && why->code != OVR_IO && why->code != OVR_FULL; /* no path */
    return (struct outcome){
        .state = STATE_FAILED,
        .problem_kind = problem_kind(why->code),
        .problem_pointer = of_spec ? why->field : NULL,
        .problem_detail = why->text,
    };
}

void report_time_limit(const struct spec *spec, struct ovr_err *err) {
    snprintf(err->field, sizeof err->field, "/training/time_limit_seconds");
    snprintf(err->text, sizeof err->text,
             "the time limit of %g s is over; raise /training/time_limit_seconds or train for "
             "fewer epochs",
             spec->time_limit_seconds);
}
