/* An experiment of the paper as `ovrctl reproduce` handles it: the document that is posted, what is
 * to be shown of it, and what came back. Documents are data, in a directory of examples:
 *   <id>.json          a spec or a sweep, posted as it is
 *   quick/<id>.json    a merge patch (RFC 7396) that makes it small
 *   figures/<id>.json  claims, figures and rules (clients/reproduce/figure.h); "order" is its place
 */
#ifndef CLI_STUDY_H
#define CLI_STUDY_H

#include "clients/cli/http.h"
#include "clients/cli/text.h"

#include <jansson.h>
#include <stdbool.h>

struct study {
    char *id;
    json_t *document, *reductions, *description; /* reductions NULL: none */
    bool sweep;
    struct buf trouble;                  /* why it does not run; data NULL where it does */
    double seconds;                      /* as estimated; NaN where it could not be */
    char handle[64];                     /* the server's id */
    char state[24];                      /* as last seen */
    size_t done, total;                  /* experiments */
    bool finished;                       /* all that could run has run */
    json_t *experiments, *epochs, *bins; /* rows (clients/reproduce/rows.h) */
    struct judgement *judgements;        /* one for each figure */
};

struct studies {
    struct study *list;
    size_t n;
};

/* Reads the studies named (NULL-terminated), or all. Says what is wrong; returns an exit code.
 * Release them in any case. */
int studies_load(struct studies *studies, const char *directory, char **ids, bool quick);
void studies_release(struct studies *studies);

/* The names of all stored data sets it needs, as an object with these members. */
json_t *study_datasets(const struct study *study);

/* The same for the same document, data and program; `data` is whatever tells their versions. */
void study_key(char key[IDEMPOTENCY_KEY_MAX + 1], const struct study *study, const char *data);

/* Whether a figure of it reads these rows, "epochs" or "histogram". */
bool study_shows(const struct study *study, const char *rows);

#endif
