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

enum { PATH_SIZE = 700, HEX = DIGEST_SIZE - 1 };

static void make_path(char path[PATH_SIZE], const char *data_dir, const char *id,
                      const char *suffix) {
    snprintf(path, PATH_SIZE, "%s/checkpoints/%s%s", data_dir, id, suffix);
}

int checkpoint_init(const char *data_dir, struct ovr_err *err) {
    char directory[PATH_SIZE];
    return files_open_directory(directory, sizeof directory, data_dir, "checkpoints", "tmp-", err);
}

void checkpoint_key(const char *spec, enum isa isa, int rank, int ranks, char key[DIGEST_SIZE]) {
    struct digest digest;
    char part[40];
    const char *const parts[] = {spec, isa_name(isa), linalg_library(), linalg_kernel()};
    digest_init(&digest);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        digest_add(&digest, parts[i], strlen(parts[i]) + 1);
    snprintf(part, sizeof part, "rank %d of %d", rank, ranks);
    if (ranks > 1)
        digest_add(&digest, part, strlen(part) + 1);
    digest_hex(&digest, key);
}

static struct checkpoint_head make_head(const char *key, const struct train_piece *pieces,
                                        size_t n) {
    struct checkpoint_head head;
    memset(&head, 0, sizeof head);
    memcpy(head.magic, MAGIC, sizeof head.magic);
    head.version = CHECKPOINT_VERSION;
    head.n = n;
    for (size_t i = 0; i < n; i++)
        head.sizes[i < CHECKPOINT_SIZES ? i : CHECKPOINT_SIZES - 1] += pieces[i].n;
    memcpy(head.key, key, HEX);
    return head;
}

void checkpoint_stream_init(struct checkpoint_stream *stream, const char *key,
                            const struct train_piece *pieces, size_t n) {
    *stream = (struct checkpoint_stream){.pieces = pieces, .n = n};
    stream->head = make_head(key, pieces, n);
    digest_init(&stream->digest);
}

uint64_t checkpoint_size(const struct train_piece *pieces, size_t n) {
    uint64_t size = sizeof(struct checkpoint_head) + HEX;
    for (size_t i = 0; i < n; i++)
        size += pieces[i].n;
    return size;
}

/* Part 0 is the head, the pieces follow, and the digest of all that is the last. What is handed out
 * also goes into the digest. */
size_t checkpoint_next(struct checkpoint_stream *stream, const void **bytes) {
    enum { RUN_BYTES = 1 << 20 };
    for (; stream->part <= stream->n; stream->part++, stream->at = 0) {
        const struct train_piece head = {&stream->head, sizeof stream->head};
        const struct train_piece part = stream->part ? stream->pieces[stream->part - 1] : head;
        size_t n = min_size(part.n - stream->at, RUN_BYTES);
        if (!n)
            continue;
        *bytes = (const char *)part.bytes + stream->at;
        stream->at += n;
        digest_add(&stream->digest, *bytes, n);
        return n;
    }
    if (stream->part++ > stream->n + 1)
        return 0;
    digest_hex(&stream->digest, stream->hex);
    *bytes = stream->hex;
    return HEX;
}

static int put(int fd, const void *bytes, size_t n, struct ovr_err *err) {
    const char *at = bytes;
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

static int write_file(int fd, struct checkpoint_stream *stream, struct ovr_err *err) {
    const void *bytes;
    size_t n;
    int rc = 0;
    while (!rc && (n = checkpoint_next(stream, &bytes)) > 0)
        rc = put(fd, bytes, n, err);
    return !rc && fsync(fd) ? files_fail(err, "write a checkpoint") : rc;
}

int checkpoint_write(const char *data_dir, const char *id, const char *key,
                     const struct train_piece *pieces, size_t n, struct ovr_err *err) {
    char tmp[PATH_SIZE], path[PATH_SIZE], old[PATH_SIZE], directory[PATH_SIZE];
    struct checkpoint_stream stream;
    checkpoint_stream_init(&stream, key, pieces, n);
    snprintf(tmp, sizeof tmp, "%s/checkpoints/tmp-%s", data_dir, id);
    make_path(path, data_dir, id, "");
    make_path(old, data_dir, id, ".old");
    snprintf(directory, sizeof directory, "%s/checkpoints", data_dir);
    int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return files_fail(err, "write a checkpoint");
    int rc = write_file(fd, &stream, err);
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

const char *checkpoint_fault(const char *map, size_t bytes, const char *key,
                             const struct train_piece *pieces, size_t n) {
    const struct checkpoint_head expected = make_head(key, pieces, n);
    char hex[DIGEST_SIZE];
    if (bytes < sizeof expected || memcmp(map, expected.magic, sizeof expected.magic))
        return "is no checkpoint";
    const struct checkpoint_head *head = (const void *)map;
    if (head->version != expected.version)
        return "was written by another version of ovrd";
    if (memcmp(head->key, expected.key, HEX))
        return "was made on another processor or BLAS kernel";
    if (memcmp(head, &expected, sizeof expected) || bytes != checkpoint_size(pieces, n))
        return "has not the size that it should have";
    digest_of(map, bytes - HEX, hex);
    return memcmp(hex, map + bytes - HEX, HEX) ? "is damaged" : NULL;
}

void checkpoint_fill(const char *map, const struct train_piece *pieces, size_t n) {
    const char *at = map + sizeof(struct checkpoint_head);
    for (size_t i = 0; i < n; at += pieces[i].n, i++)
        memcpy(pieces[i].bytes, at, pieces[i].n);
}

/* Returns 1 when the pieces were filled from this file, 0 when it is not there or not good. */
static int read_file(const char *path, const char *key, const struct train_piece *pieces, size_t n,
                     const char *id) {
    struct stat stat;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    char *map = MAP_FAILED;
    if (fd >= 0 && fstat(fd, &stat) == 0 && stat.st_size > 0)
        map = mmap(NULL, (size_t)stat.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (fd >= 0)
        close(fd);
    else if (errno == ENOENT)
        return 0;
    const char *fault = map == MAP_FAILED
                            ? "cannot be read"
                            : checkpoint_fault(map, (size_t)stat.st_size, key, pieces, n);
    if (!fault)
        checkpoint_fill(map, pieces, n);
    if (map != MAP_FAILED)
        munmap(map, (size_t)stat.st_size);
    if (fault)
        log_line(LOG_WARN, "experiment=%s its checkpoint %s %s", id, path, fault);
    return !fault;
}

int checkpoint_read(const char *data_dir, const char *id, const char *key, int back,
                    const struct train_piece *pieces, size_t n) {
    char path[PATH_SIZE];
    make_path(path, data_dir, id, back ? ".old" : "");
    return read_file(path, key, pieces, n, id);
}

void checkpoint_remove(const char *data_dir, const char *id) {
    char path[PATH_SIZE];
    make_path(path, data_dir, id, "");
    unlink(path);
    make_path(path, data_dir, id, ".old");
    unlink(path);
}
