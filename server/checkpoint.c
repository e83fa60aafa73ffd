#include "server/checkpoint.h"

#include "core/linalg.h"
#include "server/files.h"
#include "server/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static const char MAGIC[8] = "ovrdckp";

enum { PATH_SIZE = 700, HEX = DIGEST_SIZE - 1, HEAD_SIZES = 16 };

struct head {
    char magic[8];
    uint64_t version, n, sizes[HEAD_SIZES];
    char key[HEX];
};

static void make_path(char path[PATH_SIZE], const char *data_dir, const char *id,
                      const char *suffix) {
    snprintf(path, PATH_SIZE, "%s/checkpoints/%s%s", data_dir, id, suffix);
}

int checkpoint_init(const char *data_dir, struct ovr_err *err) {
    char directory[PATH_SIZE];
    return files_open_directory(directory, sizeof directory, data_dir, "checkpoints", "tmp-", err);
}

void checkpoint_key(const char *spec, enum isa isa, char key[DIGEST_SIZE]) {
    struct digest digest;
    const char *const parts[] = {spec, isa_name(isa), linalg_library(), linalg_kernel()};
    digest_init(&digest);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        digest_add(&digest, parts[i], strlen(parts[i]) + 1);
    digest_hex(&digest, key);
}

static struct head make_head(const char *key, const struct train_piece *pieces, size_t n) {
    struct head head;
    memset(&head, 0, sizeof head);
    memcpy(head.magic, MAGIC, sizeof head.magic);
    head.version = CHECKPOINT_VERSION;
    head.n = n;
    for (size_t i = 0; i < n; i++)
        head.sizes[i < HEAD_SIZES ? i : HEAD_SIZES - 1] += pieces[i].n;
    memcpy(head.key, key, HEX);
    return head;
}

/* What is written also goes into the digest. */
static int put(int fd, struct digest *digest, const void *bytes, size_t n, struct ovr_err *err) {
    const char *at = bytes;
    if (digest)
        digest_add(digest, bytes, n);
    while (n) {
        ssize_t written = write(fd, at, n);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return files_fail(err, "write a checkpoint");
        at += written;
        n -= (size_t)written;
    }
    return 0;
}

static int write_file(int fd, const struct head *head, const struct train_piece *pieces,
                      struct ovr_err *err) {
    struct digest digest;
    char hex[DIGEST_SIZE];
    digest_init(&digest);
    int rc = put(fd, &digest, head, sizeof *head, err);
    for (size_t i = 0; !rc && i < head->n; i++)
        rc = put(fd, &digest, pieces[i].bytes, pieces[i].n, err);
    digest_hex(&digest, hex);
    if (!rc)
        rc = put(fd, NULL, hex, HEX, err);
    return !rc && fsync(fd) ? files_fail(err, "write a checkpoint") : rc;
}

int checkpoint_write(const char *data_dir, const char *id, const char *key,
                     const struct train_piece *pieces, size_t n, struct ovr_err *err) {
    char tmp[PATH_SIZE], path[PATH_SIZE], old[PATH_SIZE], directory[PATH_SIZE];
    const struct head head = make_head(key, pieces, n);
    snprintf(tmp, sizeof tmp, "%s/checkpoints/tmp-%s", data_dir, id);
    make_path(path, data_dir, id, "");
    make_path(old, data_dir, id, ".old");
    snprintf(directory, sizeof directory, "%s/checkpoints", data_dir);
    int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return files_fail(err, "write a checkpoint");
    int rc = write_file(fd, &head, pieces, err);
    if (close(fd) && !rc)
        rc = files_fail(err, "write a checkpoint");
    if (!rc && rename(path, old) && errno != ENOENT)
        rc = files_fail(err, "keep the checkpoint before");
    if (!rc && rename(tmp, path))
        rc = files_fail(err, "give a checkpoint its name");
    if (rc)
        unlink(tmp);
    return rc ? rc : files_sync_directory(directory, err);
}

/* NULL when the mapped file is a whole checkpoint of this key and these sizes, else what is wrong
 * with it. */
static const char *fault_of(const char *map, size_t bytes, const struct head *expected) {
    size_t size = sizeof *expected + HEX;
    char hex[DIGEST_SIZE];
    for (size_t i = 0; i < HEAD_SIZES; i++)
        size += expected->sizes[i];
    if (bytes < sizeof *expected || memcmp(map, expected->magic, sizeof expected->magic))
        return "is no checkpoint";
    const struct head *head = (const struct head *)(const void *)map;
    if (head->version != expected->version)
        return "was written by another version of ovrd";
    if (memcmp(head->key, expected->key, HEX))
        return "was made on another processor or BLAS kernel";
    if (memcmp(head, expected, sizeof *head) || bytes != size)
        return "has not the size that it should have";
    digest_of(map, bytes - HEX, hex);
    return memcmp(hex, map + bytes - HEX, HEX) ? "is damaged" : NULL;
}

/* Returns 1 when the pieces were filled from this file, 0 when it is not there or not good. */
static int read_file(const char *path, const struct head *expected,
                     const struct train_piece *pieces, const char *id) {
    struct stat stat;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    char *map = MAP_FAILED;
    if (fd >= 0 && fstat(fd, &stat) == 0 && stat.st_size > 0)
        map = mmap(NULL, (size_t)stat.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (fd >= 0)
        close(fd);
    else if (errno == ENOENT)
        return 0;
    const char *fault =
        map == MAP_FAILED ? "cannot be read" : fault_of(map, (size_t)stat.st_size, expected);
    const char *at = fault ? NULL : map + sizeof *expected;
    for (size_t i = 0; !fault && i < expected->n; at += pieces[i].n, i++)
        memcpy(pieces[i].bytes, at, pieces[i].n);
    if (map != MAP_FAILED)
        munmap(map, (size_t)stat.st_size);
    if (fault)
        log_line(LOG_WARN, "experiment=%s its checkpoint %s %s", id, path, fault);
    return !fault;
}

int checkpoint_read(const char *data_dir, const char *id, const char *key, int back,
                    const struct train_piece *pieces, size_t n) {
    const struct head expected = make_head(key, pieces, n);
    char path[PATH_SIZE];
    make_path(path, data_dir, id, back ? ".old" : "");
    return read_file(path, &expected, pieces, id);
}

void checkpoint_remove(const char *data_dir, const char *id) {
    char path[PATH_SIZE];
    make_path(path, data_dir, id, "");
    unlink(path);
    make_path(path, data_dir, id, ".old");
    unlink(path);
}
