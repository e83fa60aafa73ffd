#include "core/samples.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int cifar10_check(const uint8_t *bytes, size_t n, uint64_t offset, struct ovr_err *err) {
    uint64_t behind = offset % CIFAR10_RECORD;
    size_t first = behind ? (size_t)(CIFAR10_RECORD - behind) : 0;
    for (size_t i = first; i < n; i += CIFAR10_RECORD)
        if (bytes[i] >= CIFAR10_CLASSES)
            return ovr_fail(err, OVR_INVALID, "",
                            "record %llu (byte %llu) has label %u; CIFAR-10 labels are 0..9. Is "
                            "each record one label byte and 3072 pixel bytes?",
                            (unsigned long long)((offset + i) / CIFAR10_RECORD),
                            (unsigned long long)(offset + i), bytes[i]);
    return 0;
}

int cifar10_check_size(uint64_t bytes, struct ovr_err *err) {
    if (bytes == 0)
        return ovr_fail(err, OVR_INVALID, "", "the file is empty; send records of 3073 bytes");
    if (bytes % CIFAR10_RECORD)
        return ovr_fail(err, OVR_INVALID, "",
                        "%llu bytes are %llu records of 3073 bytes and %llu bytes over; the file "
                        "is cut off or not in CIFAR-10's binary format",
                        (unsigned long long)bytes, (unsigned long long)(bytes / CIFAR10_RECORD),
                        (unsigned long long)(bytes % CIFAR10_RECORD));
    if (bytes / CIFAR10_RECORD > UINT32_MAX)
        return ovr_fail(err, OVR_TOO_LARGE, "", "more than %u records", UINT32_MAX);
    return 0;
}

int cifar10_open(struct samples *out, const char *path, struct ovr_err *err) {
    struct samples s = {.d = CIFAR10_RECORD - 1,
                        .stride = CIFAR10_RECORD,
                        .n_classes = CIFAR10_CLASSES,
                        .image = {3, 32, 32, 0},
                        .map = MAP_FAILED};
    struct stat stat;
    int rc, fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &stat)) {
        rc = ovr_fail(err, OVR_IO, NULL, "cannot read the data set's file: %s", strerror(errno));
        goto out;
    }
    rc = cifar10_check_size((uint64_t)stat.st_size, err);
    if (rc)
        goto out;
    s.map_bytes = (size_t)stat.st_size;
    s.n = s.map_bytes / CIFAR10_RECORD;
    s.map = mmap(NULL, s.map_bytes, PROT_READ, MAP_SHARED, fd, 0);
    if (s.map == MAP_FAILED) {
        rc = ovr_fail(err, OVR_IO, NULL, "cannot map the data set's file: %s", strerror(errno));
        goto out;
    }
    rc = cifar10_check(s.map, s.map_bytes, 0, err);
    if (rc)
        goto out;
    s.bytes = (const uint8_t *)s.map + 1;
    s.labels = ovr_malloc(s.n, sizeof *s.labels);
    if (!s.labels) {
        rc = ovr_nomem(err, "the labels");
        goto out;
    }
    for (size_t i = 0; i < s.n; i++)
        s.labels[i] = s.bytes[i * CIFAR10_RECORD - 1];
    *out = s;
    s.map = MAP_FAILED;
out:
    if (s.map != MAP_FAILED)
        munmap(s.map, s.map_bytes);
    if (fd >= 0)
        close(fd);
    return rc;
}
