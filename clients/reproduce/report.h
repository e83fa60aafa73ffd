/* The report: one HTML page that needs nothing else, with a section for every study. */
#ifndef REPRODUCE_REPORT_H
#define REPRODUCE_REPORT_H

#include "clients/reproduce/rule.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

/* An example that ran, or was to run. Everything is borrowed; rows as in rows.h. */
struct report_study {
    const char *id;
    const json_t *document;    /* as it was posted */
    const json_t *reductions;  /* the merge patch that made it quick; NULL: none */
    const json_t *description; /* of its figures (figure.h) */
    bool sweep;
    const char *handle;  /* the server's id; "" where it was not posted */
    const char *trouble; /* why there are no results; "" where there are */
    const json_t *experiments, *epochs, *bins;
    struct judgement *judgements; /* one for each figure */
};

struct report {
    const char *url, *date;
    const json_t *version; /* of the server */
    bool quick;
    const struct report_study *studies;
    size_t n;
};

void report_html(struct buf *html, const struct report *report);

/* The rows that a figure shows. */
const json_t *report_rows(const struct report_study *study, const json_t *figure);

/* How many of the experiments have not succeeded. */
size_t report_failures(const struct report_study *study);

#endif
