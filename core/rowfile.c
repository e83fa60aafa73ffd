#include "core/rowfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "row files are mapped as they lie");

enum { HEAD = 64, PART = 8, CHUNK = 1 << 16 };

static const char MAGIC[9] = "ovrdrows";

static int io_fail(struct ovr_err *err, const char *what) {
    return ovr_fail(err, errno == ENOSPC ? OVR_FULL : OVR_IO, NULL, "cannot %s the samples: %s",
                    what, strerror(errno));
}

static int put(int fd, const void *bytes, size_t n, struct ovr_err *err) {
    for (const char *at = bytes; n;) {
        ssize_t written = write(fd, at, n);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return io_fail(err, "store");
        at += written;
        n -= (size_t)written;
    }
    return 0;
}

/* All n bytes at this place; a file that ends before is a fault. */
static int get(int fd, void *bytes, size_t n, uint64_t offset, struct ovr_err *err) {
    for (char *at = bytes; n;) {
        ssize_t got = pread(fd, at, n, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return got ? io_fail(err, "read back")
                       : ovr_fail(err, OVR_IO, NULL, "the stored samples are cut off");
        at += got;
        offset += (uint64_t)got;
        n -= (size_t)got;
    }
    return 0;
}

int rowfile_begin(struct rowfile_writer *w, int fd, int labels_fd, struct ovr_err *err) {
    char head[HEAD] = {0};
    memset(w, 0, sizeof *w);
    w->fd = fd;
    w->labels_fd = labels_fd;
    w->whole = 1;
    memcpy(head, MAGIC, sizeof MAGIC);
    return put(fd, head, sizeof head, err);
}

static int flush_values(struct rowfile_writer *w, struct ovr_err *err) {
    int rc = put(w->fd, w->buffer, w->used, err);
    w->used = 0;
    return rc;
}

static int flush_labels(struct rowfile_writer *w, struct ovr_err *err) {
    int rc = put(w->labels_fd, w->labels, w->labels_used, err);
    w->labels_used = 0;
    return rc;
}

static int put_values(struct rowfile_writer *w, const void *values, size_t n, size_t size,
                      struct ovr_err *err) {
    const char *from = values;
    size_t bytes = n * size, part;
    w->value_bytes = size;
    w->n_values += n;
    for (; bytes; from += part, bytes -= part) {
        part = min_size(bytes, sizeof w->buffer - w->used);
        memcpy(w->buffer + w->used, from, part);
        w->used += part;
        int rc = w->used == sizeof w->buffer ? flush_values(w, err) : 0;
        if (rc)
            return rc;
    }
    return 0;
}

int rowfile_put_floats(struct rowfile_writer *w, const float *values, size_t n,
                       struct ovr_err *err) {
    for (size_t i = 0; w->whole && i < n; i++)
        w->whole = values[i] >= 0 && values[i] <= 255 && values[i] == (float)(uint8_t)values[i];
    return put_values(w, values, n, sizeof *values, err);
}

int rowfile_put_bytes(struct rowfile_writer *w, const uint8_t *values, size_t n,
                      struct ovr_err *err) {
    return put_values(w, values, n, 1, err);
}

int rowfile_put_label(struct rowfile_writer *w, uint16_t label, struct ovr_err *err) {
    w->labels[w->labels_used / sizeof label] = label;
    w->labels_used += sizeof label;
    w->n_labels++;
    if (label > w->largest)
        w->largest = label;
    return w->labels_used == sizeof w->labels ? flush_labels(w, err) : 0;
}

/* float32 that are all whole become bytes, in place: a byte is written where a number was read
 * before. */
static int narrow(struct rowfile_writer *w, struct ovr_err *err) {
    float numbers[CHUNK / sizeof(float)];
    uint8_t bytes[CHUNK / sizeof(float)];
    size_t n;
    if (lseek(w->fd, HEAD, SEEK_SET) < 0)
        return io_fail(err, "store");
    for (uint64_t done = 0; done < w->n_values; done += n) {
        n = min_size(sizeof bytes, w->n_values - done);
        int rc = get(w->fd, numbers, n * sizeof *numbers, HEAD + done * sizeof *numbers, err);
        if (rc)
            return rc;
        for (size_t i = 0; i < n; i++)
            bytes[i] = (uint8_t)numbers[i];
        rc = put(w->fd, bytes, n, err);
        if (rc)
            return rc;
    }
    w->value_bytes = 1;
    return ftruncate(w->fd, (off_t)(HEAD + w->n_values)) ? io_fail(err, "store") : 0;
}

static uint64_t padding(uint64_t bytes) {
    return (PART - bytes % PART) % PART;
}

static int pad(int fd, uint64_t bytes, struct ovr_err *err) {
    static const char zeros[PART];
    return put(fd, zeros, padding(bytes), err);
}

static int copy_labels(struct rowfile_writer *w, const uint16_t *numbers, struct ovr_err *err) {
    size_t n;
    for (uint64_t done = 0; done < w->n_labels; done += n) {
        n = min_size(sizeof w->labels / sizeof *w->labels, w->n_labels - done);
        int rc = get(w->labels_fd, w->labels, n * sizeof *w->labels, done * sizeof *w->labels, err);
        for (size_t i = 0; numbers && !rc && i < n; i++)
            w->labels[i] = numbers[w->labels[i]];
        rc = rc ? rc : put(w->fd, w->labels, n * sizeof *w->labels, err);
        if (rc)
            return rc;
    }
    return pad(w->fd, w->n_labels * sizeof *w->labels, err);
}

int rowfile_finish(struct rowfile_writer *w, const struct rowfile_end *end, struct ovr_err *err) {
    int rc = flush_values(w, err);
    rc = rc ? rc : flush_labels(w, err);
    if (!rc && w->whole && w->value_bytes == sizeof(float))
        rc = narrow(w, err);
    rc = rc ? rc : pad(w->fd, w->n_values * w->value_bytes, err);
    rc = rc ? rc : copy_labels(w, end->numbers, err);
    rc = rc ? rc : put(w->fd, end->class_names, end->class_bytes, err);
    rc = rc ? rc : pad(w->fd, end->class_bytes, err);
    rc = rc ? rc : put(w->fd, end->feature_names, end->feature_bytes, err);
    rc = rc ? rc : pad(w->fd, end->feature_bytes, err);
    struct rowfile_tail tail = {.n = end->n,
                                .d = end->d,
                                .value_bytes = w->value_bytes,
                                .n_classes = end->n_classes,
                                .has_labels = w->n_labels > 0,
                                .channels = end->image.channels,
                                .height = end->image.height,
                                .width = end->image.width,
                                .interleaved = (uint64_t)end->image.interleaved,
                                .class_bytes = end->class_bytes,
                                .feature_bytes = end->feature_bytes};
    memcpy(tail.magic, MAGIC, sizeof tail.magic);
    return rc ? rc : put(w->fd, &tail, sizeof tail, err);
}

static size_t names_bytes(const char *names, size_t n) {
    const char *end = names;
    for (size_t i = 0; names && i < n; i++)
        end += strlen(end) + 1;
    return (size_t)(end - names);
}

static int put_row(struct rowfile_writer *w, const struct samples *samples, size_t i,
                   struct ovr_err *err) {
    if (samples->bytes)
        return rowfile_put_bytes(w, samples->bytes + i * samples->stride, samples->d, err);
    return rowfile_put_floats(w, samples->floats + i * samples->d, samples->d, err);
}

int rowfile_join(int fd, int labels_fd, const struct samples *values, const struct samples *labels,
                 struct ovr_err *err) {
    struct rowfile_writer *w = malloc(sizeof *w);
    if (!w)
        return ovr_nomem(err, "the samples");
    struct rowfile_end end = {
        .n = values->n,
        .d = values->d,
        .n_classes = labels->n_classes,
        .image = values->image,
        .class_names = labels->class_names,
        .feature_names = values->feature_names,
        .class_bytes = names_bytes(labels->class_names, labels->n_classes),
        .feature_bytes = names_bytes(values->feature_names, values->d),
    };
    int rc = rowfile_begin(w, fd, labels_fd, err);
    for (size_t i = 0; !rc && i < values->n; i++) {
        rc = put_row(w, values, i, err);
        rc = rc ? rc : rowfile_put_label(w, labels->labels[i], err);
    }
    rc = rc ? rc : rowfile_finish(w, &end, err);
    free(w);
    return rc;
}

int rowfile_is(const char *path, struct ovr_err *err) {
    char magic[sizeof MAGIC - 1];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : pread(fd, magic, sizeof magic, 0);
    if (n < 0)
        ovr_fail(err, OVR_IO, NULL, "cannot read the data set's file: %s", strerror(errno));
    if (fd >= 0)
        close(fd);
    return n < 0 ? OVR_IO : n == sizeof magic && memcmp(magic, MAGIC, sizeof magic) == 0;
}

/* Where the parts of a file begin. */
struct parts {
    uint64_t labels, class_names, feature_names, tail, end;
};

/* Returns 0 when a file of so many bytes has such parts. */
static int lay_out(const struct rowfile_tail *t, uint64_t bytes, struct parts *p) {
    uint64_t values;
    if (memcmp(t->magic, MAGIC, sizeof t->magic) || t->n > UINT32_MAX || t->d > VALUES_MAX ||
        (t->value_bytes > 1 && t->value_bytes != sizeof(float)) || (t->d && !t->value_bytes) ||
        t->n_classes > CLASSES_MAX || t->has_labels > 1 || t->class_bytes > bytes ||
        t->feature_bytes > bytes || t->channels > VALUES_MAX || t->height > VALUES_MAX ||
        t->width > VALUES_MAX || t->interleaved > 1)
        return OVR_IO;
    if (t->channels &&
        (t->channels * t->height > VALUES_MAX || t->channels * t->height * t->width != t->d))
        return OVR_IO;
    values = t->n * t->d * t->value_bytes;
    p->labels = HEAD + values + padding(values);
    p->class_names = p->labels + (t->has_labels ? t->n * 2 + padding(t->n * 2) : 0);
    p->feature_names = p->class_names + t->class_bytes + padding(t->class_bytes);
    p->tail = p->feature_names + t->feature_bytes + padding(t->feature_bytes);
    p->end = p->tail + sizeof *t;
    return p->end == bytes ? 0 : OVR_IO;
}

/* n texts, each with its NUL, in so many bytes. */
static int are_names(const char *names, uint64_t bytes, uint64_t n) {
    uint64_t count = 0;
    for (uint64_t i = 0; i < bytes; i++)
        count += names[i] == '\0';
    return count == n && (!bytes || names[bytes - 1] == '\0');
}

/* What a mapped file holds, checked; labels are copied. */
static int expose(struct samples *s, struct ovr_err *err) {
    struct rowfile_tail t;
    struct parts p;
    const char *base = s->map;
    int damaged = s->map_bytes < HEAD + sizeof t;
    if (!damaged) {
        memcpy(&t, base + s->map_bytes - sizeof t, sizeof t);
        damaged = lay_out(&t, s->map_bytes, &p) != 0;
    }
    if (!damaged)
        damaged = (t.class_bytes && !are_names(base + p.class_names, t.class_bytes, t.n_classes)) ||
                  (t.feature_bytes && !are_names(base + p.feature_names, t.feature_bytes, t.d));
    if (damaged)
        return ovr_fail(err, OVR_IO, NULL, "the data set's file is damaged");
    s->n = t.n;
    s->d = s->stride = t.d;
    s->n_classes = t.n_classes;
    s->image = (struct image_shape){t.channels, t.height, t.width, (int)t.interleaved};
    if (t.value_bytes == 1)
        s->bytes = (const uint8_t *)base + HEAD;
    else if (t.value_bytes)
        s->floats = (const float *)(const void *)(base + HEAD);
    s->class_names = t.class_bytes ? base + p.class_names : NULL;
    s->feature_names = t.feature_bytes ? base + p.feature_names : NULL;
    if (!t.has_labels)
        return 0;
    s->labels = ovr_malloc(s->n, sizeof *s->labels);
    if (!s->labels)
        return ovr_nomem(err, "the labels");
    memcpy(s->labels, base + p.labels, s->n * sizeof *s->labels);
    for (size_t i = 0; i < s->n; i++)
        damaged |= s->labels[i] >= s->n_classes;
    return damaged ? ovr_fail(err, OVR_IO, NULL, "the data set's file is damaged") : 0;
}

int rowfile_open(struct samples *out, const char *path, struct ovr_err *err) {
    struct samples s = {0};
    struct stat stat;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &stat)) {
        ovr_fail(err, OVR_IO, NULL, "cannot read the data set's file: %s", strerror(errno));
        if (fd >= 0)
            close(fd);
        return OVR_IO;
    }
    s.map_bytes = (size_t)stat.st_size;
    s.map = s.map_bytes ? mmap(NULL, s.map_bytes, PROT_READ, MAP_SHARED, fd, 0) : MAP_FAILED;
    close(fd);
    if (s.map == MAP_FAILED)
        return ovr_fail(err, OVR_IO, NULL, "cannot map the data set's file");
    int rc = expose(&s, err);
    if (rc)
        samples_release(&s);
    else
        *out = s;
    return rc;
}
