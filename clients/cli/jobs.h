/* What a person reads about an experiment or a sweep; shared by the commands that show one. */
#ifndef CLI_JOBS_H
#define CLI_JOBS_H

#include "clients/cli/cli.h"

#include <jansson.h>

bool state_is_final(const char *state);

/* Why it is not running, or what went wrong with it: a sentence, or "". */
const char *experiment_reason(const json_t *experiment);

/* The numbers of an object in a line, under a label. */
void print_figures(const char *label, const json_t *figures);

/* Accuracy, best epoch and sparsity of the result; the error of a failed one. To stdout. */
void print_outcome(const json_t *experiment);

/* "near_zero 0.512   zero 0.46   overlap 0.03   …", under a label. Nothing where there is none. */
void print_sparsity(const json_t *sparsity);

/* Follows one to its end. */
int watch_experiment(struct cli *cli, const char *id);
int watch_sweep(struct cli *cli, const char *id);

/* Sweeps (sweeps.c). A document to submit is one if it has a base. */
bool document_is_sweep(const char *text, size_t size);
void print_sweep_estimate(const json_t *answer);
void print_sweep_head(const json_t *sweep); /* without the table */
int print_sweep(const json_t *sweep);

struct sweep_counts {
    double done, all, running, failed; /* experiments; the failed ones are done */
};
struct sweep_counts sweep_counts(const json_t *sweep);

#endif
