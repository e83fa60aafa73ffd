/* What the samples of a split look like at a glance. */
#ifndef OVR_SUMMARY_H
#define OVR_SUMMARY_H

#include "core/samples.h"

struct range_summary {
    double min, max, mean, sd; /* sd divided by n */
};

struct summary {
    size_t d, n_classes;
    uint64_t *class_counts;         /* n_classes; owned */
    struct range_summary *features; /* d; owned */
    struct range_summary all;       /* over all features */
};

/* On failure *summary is empty. */
int summary_make(struct summary *summary, const struct samples *samples, struct ovr_err *err);
void summary_release(struct summary *summary);

/* A summary in a file: written to an empty one, and read back. What is no such file is OVR_IO. */
int summary_write(const struct summary *summary, int fd, struct ovr_err *err);
int summary_read(struct summary *summary, int fd, struct ovr_err *err);

#endif
