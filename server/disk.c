#include "server/disk.h"

#include "server/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum {
    RESERVE = 4 << 20, /* some hundred pages of the database, and the epochs that wait */
    ENOUGH = 16 << 20, /* that have become free: worth another try at once */
    LEAST = 2 << 20,   /* that are free: worth one after a while */
    A_WHILE_MS = 60 * 1000,
};

/* Half a reserve is none: it would be given up for nothing. */
static void make_reserve(const struct disk *disk) {
    int fd = open(disk->reserve, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return;
    if (posix_fallocate(fd, 0, RESERVE))
        unlink(disk->reserve);
    close(fd);
}

void disk_init(struct disk *disk, const char *data_dir) {
    *disk = (struct disk){.full = 0};
    pthread_mutex_init(&disk->lock, NULL);
    snprintf(disk->directory, sizeof disk->directory, "%.511s", data_dir);
    snprintf(disk->reserve, sizeof disk->reserve, "%s/reserve", disk->directory);
    make_reserve(disk);
}

void disk_release(struct disk *disk) {
    pthread_mutex_destroy(&disk->lock);
}

int64_t disk_free(const struct disk *disk) {
    struct statvfs found;
    return statvfs(disk->directory, &found) ? -1
                                            : (int64_t)found.f_bavail * (int64_t)found.f_frsize;
}

void disk_note_full(struct disk *disk) {
    if (!disk)
        return;
    pthread_mutex_lock(&disk->lock);
    if (!disk->full)
        disk->free_then = disk_free(disk);
    disk->since_ms = monotonic_ms();
    disk->full = 1;
    unlink(disk->reserve);
    pthread_mutex_unlock(&disk->lock);
}

int disk_is_full(const struct disk *disk) {
    return disk && disk->full;
}

int disk_look(struct disk *disk) {
    if (!disk_is_full(disk))
        return 0;
    pthread_mutex_lock(&disk->lock);
    int64_t room = disk_free(disk);
    int enough = room - RESERVE >= disk->free_then + ENOUGH ||
                 (room >= LEAST && monotonic_ms() - disk->since_ms > A_WHILE_MS);
    if (enough) {
        disk->full = 0;
        make_reserve(disk);
    }
    pthread_mutex_unlock(&disk->lock);
    return enough;
}
