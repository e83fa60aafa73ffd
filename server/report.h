/* What a run has to tell, from the core's reports and results to what the store keeps: figures by
 * name, histograms, tables of units, the end. The same for a run of the daemon's own and for one of
 * a worker elsewhere: nothing here knows where it goes.
 *
 * Names and texts are literals, or lie in the structs below, which point into themselves: they are
 * filled where they stay. Histograms point into the core's reports.
 */
#ifndef SERVER_REPORT_H
#define SERVER_REPORT_H

#include "core/train.h"
#include "server/spec.h"
#include "server/weights.h"

enum { MAX_FIGURES = 192 };

struct figures {
    struct figure list[MAX_FIGURES];
    size_t n;
};

void figures_add_text(struct figures *figures, const char *name, const char *text);

struct epoch_facts {
    struct figures figures;
    struct epoch_histogram histograms[LAYERS_MAX];
    size_t n_histograms;
};

/* `digest`, of its weights (server/weights.h), is borrowed. */
void report_epoch(const struct train_config *config, const struct epoch_report *report,
                  const char *digest, struct epoch_facts *facts);

/* What a result does not say of itself. */
struct circumstances {
    const char *spec_text; /* as it is stored */
    const struct spec *spec;
    enum isa isa;
    int threads, ranks; /* threads: of all ranks together */
    int64_t computed_ms;
};

struct run_facts {
    struct figures result, provenance;
    struct epoch_histogram histograms[LAYERS_MAX];
    struct unit_table unit_tables[LAYERS_MAX];
    size_t n_layers;
    char spec_sha256[DIGEST_SIZE], cpu[128];
};

/* All are borrowed as long as the facts are used. `saved` is what was written of the result. */
void report_result(const struct circumstances *circumstances, const struct train_result *result,
                   const struct saved *saved, struct run_facts *facts);

/* Its end as succeeded. */
struct outcome report_success(const struct run_facts *facts, const struct saved *saved);

/* Its end as failed, for a person. */
struct outcome report_failure(const struct ovr_err *why);

/* What is wrong when it was stopped because its time was over. */
void report_time_limit(const struct spec *spec, struct ovr_err *err);

#endif
