#include "core/intake.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *const intake_names[N_INTAKE + 1] = {"cifar10", "csv", "idx", "npy", NULL};

struct intake {
    enum intake_format format;
    int fd;
    uint64_t bytes; /* cifar10 */
    struct csv *csv;
    struct array *array;
    struct rowfile_writer writer;
};

int intake_open(struct intake **out, const struct intake_config *config, int fd, int labels_fd,
                struct ovr_err *err) {
    *out = NULL;
    struct intake *intake = calloc(1, sizeof *intake);
    if (!intake)
        return ovr_nomem(err, "an upload");
    intake->format = config->format;
    intake->fd = fd;
    int rc = 0;
    if (config->format != INTAKE_CIFAR10)
        rc = rowfile_begin(&intake->writer, fd, labels_fd, err);
    if (!rc && config->format == INTAKE_CSV)
        rc = csv_new(&intake->csv, config, &intake->writer, err);
    else if (!rc && config->format != INTAKE_CIFAR10)
        rc = array_new(&intake->array, config, &intake->writer, err);
    if (rc)
        intake_free(intake);
    else
        *out = intake;
    return rc;
}

void intake_free(struct intake *intake) {
    if (!intake)
        return;
    csv_free(intake->csv);
    array_free(intake->array);
    free(intake);
}

static int write_records(struct intake *intake, const char *bytes, size_t n, struct ovr_err *err) {
    int rc = cifar10_check((const uint8_t *)bytes, n, intake->bytes, err);
    intake->bytes += n;
    while (!rc && n) {
        ssize_t written = write(intake->fd, bytes, n);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return ovr_fail(err, errno == ENOSPC ? OVR_FULL : OVR_IO, NULL,
                            "cannot store the samples: %s", strerror(errno));
        bytes += written;
        n -= (size_t)written;
    }
    return rc;
}

int intake_write(struct intake *intake, const char *bytes, size_t n, struct ovr_err *err) {
    if (intake->csv)
        return csv_write(intake->csv, bytes, n, err);
    if (intake->array)
        return array_write(intake->array, bytes, n, err);
    return write_records(intake, bytes, n, err);
}

int intake_finish(struct intake *intake, struct intake_result *result, struct ovr_err *err) {
    if (intake->format == INTAKE_CIFAR10) {
        int rc = cifar10_check_size(intake->bytes, err);
        if (!rc)
            *result = (struct intake_result){(size_t)(intake->bytes / CIFAR10_RECORD),
                                             CIFAR10_RECORD - 1,
                                             CIFAR10_CLASSES,
                                             {3, 32, 32, 0}};
        return rc;
    }
    struct rowfile_end end = {0};
    int rc =
        intake->csv ? csv_finish(intake->csv, &end, err) : array_finish(intake->array, &end, err);
    if (!rc)
        rc = rowfile_finish(&intake->writer, &end, err);
    if (!rc)
        *result = (struct intake_result){end.n, end.d, end.n_classes, end.image};
    return rc;
}
