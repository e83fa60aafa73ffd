/* What a person reads about an experiment; shared by the commands that show one. */
#ifndef CLI_JOBS_H
#define CLI_JOBS_H

#include "clients/cli/cli.h"

#include <jansson.h>

bool state_is_final(const char *state);

/* Why it is not running, or what went wrong with it: a sentence, or "". */
const char *experiment_reason(const json_t *experiment);

/* Accuracy, best epoch and sparsity of the result; the error of a failed one. To stdout. */
void print_outcome(const json_t *experiment);

/* "near_zero 0.512   zero 0.46   overlap 0.03   …", under a label. Nothing where there is none. */
void print_sparsity(const json_t *sparsity);

/* Follows an experiment to its end. */
int watch_experiment(struct cli *cli, const char *id);

#endif
