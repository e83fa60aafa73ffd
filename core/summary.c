#include "core/summary.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct head {
    char magic[8];
    uint64_t d, n_classes;
    struct range_summary all;
};

static const char MAGIC[9] = "ovrdsum1";

void summary_release(struct summary *summary) {
    free(summary->class_counts);
    free(summary->features);
    *summary = (struct summary){0};
}

static int allocate(struct summary *summary, size_t d, size_t n_classes, struct ovr_err *err) {
    *summary = (struct summary){.d = d, .n_classes = n_classes};
    summary->class_counts = ovr_calloc(n_classes, sizeof *summary->class_counts);
    summary->features = ovr_calloc(d, sizeof *summary->features);
    if (summary->class_counts && summary->features)
        return 0;
    summary_release(summary);
    return ovr_nomem(err, "a summary");
}

/* Adds a row: mean holds Σ(x − x₀) and sd Σ(x − x₀)² until the end. */
static void add_row(struct range_summary *restrict f, const real *restrict x,
                    const real *restrict first, size_t d) {
    for (size_t j = 0; j < d; j++) {
        double value = x[j], off = value - first[j];
        f[j].min = value < f[j].min ? value : f[j].min;
        f[j].max = value > f[j].max ? value : f[j].max;
        f[j].mean += off;
        f[j].sd += off * off;
    }
}

static void settle(struct summary *s, const real *first, double n) {
    s->all = (struct range_summary){INFINITY, -INFINITY, 0, 0};
    for (size_t j = 0; j < s->d; j++) {
        struct range_summary *f = &s->features[j];
        double variance = (f->sd - f->mean * f->mean / n) / n;
        f->mean = first[j] + f->mean / n;
        f->sd = sqrt(fmax(variance, 0));
        s->all.min = fmin(s->all.min, f->min);
        s->all.max = fmax(s->all.max, f->max);
        s->all.mean += f->mean / (double)s->d;
    }
    double variance = 0;
    for (size_t j = 0; j < s->d; j++) {
        const struct range_summary *f = &s->features[j];
        variance += f->sd * f->sd + (f->mean - s->all.mean) * (f->mean - s->all.mean);
    }
    s->all.sd = sqrt(variance / (double)s->d);
}

int summary_make(struct summary *summary, const struct samples *samples, struct ovr_err *err) {
    int rc = allocate(summary, samples->d, samples->n_classes, err);
    if (rc)
        return rc;
    real *row = ovr_malloc(samples->d, sizeof *row), *first = ovr_malloc(samples->d, sizeof *first);
    if (!row || !first) {
        free(row);
        free(first);
        summary_release(summary);
        return ovr_nomem(err, "a summary");
    }
    samples_row(samples, 0, first);
    for (size_t j = 0; j < samples->d; j++)
        summary->features[j] = (struct range_summary){INFINITY, -INFINITY, 0, 0};
    for (size_t i = 0; i < samples->n; i++) {
        samples_row(samples, i, row);
        add_row(summary->features, row, first, samples->d);
        summary->class_counts[samples->labels[i]]++;
    }
    settle(summary, first, (double)samples->n);
    free(row);
    free(first);
    return 0;
}

static int put(int fd, const void *bytes, size_t n) {
    return write(fd, bytes, n) != (ssize_t)n;
}

static int get(int fd, void *bytes, size_t n) {
    return read(fd, bytes, n) != (ssize_t)n;
}

int summary_write(const struct summary *s, int fd, struct ovr_err *err) {
    struct head head = {.d = s->d, .n_classes = s->n_classes, .all = s->all};
    memcpy(head.magic, MAGIC, sizeof head.magic);
    if (put(fd, &head, sizeof head) ||
        put(fd, s->class_counts, s->n_classes * sizeof *s->class_counts) ||
        put(fd, s->features, s->d * sizeof *s->features))
        return ovr_fail(err, OVR_IO, NULL, "cannot store a summary");
    return 0;
}

int summary_read(struct summary *s, int fd, struct ovr_err *err) {
    struct head head;
    struct stat stat;
    *s = (struct summary){0};
    if (get(fd, &head, sizeof head) || memcmp(head.magic, MAGIC, sizeof head.magic) ||
        head.d > VALUES_MAX || head.n_classes > CLASSES_MAX || fstat(fd, &stat) ||
        (uint64_t)stat.st_size !=
            sizeof head + head.n_classes * sizeof *s->class_counts + head.d * sizeof *s->features)
        return ovr_fail(err, OVR_IO, NULL, "the file holds no summary");
    int rc = allocate(s, head.d, head.n_classes, err);
    if (rc)
        return rc;
    s->all = head.all;
    if (!get(fd, s->class_counts, head.n_classes * sizeof *s->class_counts) &&
        !get(fd, s->features, head.d * sizeof *s->features))
        return 0;
    summary_release(s);
    return ovr_fail(err, OVR_IO, NULL, "the file holds no summary");
}
