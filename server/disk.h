/* The disk of the data directory when it has no room.
 *
 * What runs then goes back to the queue, which has to be written too: so a few MiB are kept in a
 * file of no other use, DATA_DIR/reserve, and given up when the disk is full. Until there is room
 * again nothing new is started. From any thread.
 */
#ifndef SERVER_DISK_H
#define SERVER_DISK_H

#include <pthread.h>
#include <stdint.h>

struct disk {
    char directory[512], reserve[528];
    pthread_mutex_t lock;
    _Atomic int full;
    int64_t free_then, since_ms; /* when it became so */
};

void disk_init(struct disk *disk, const char *data_dir);
void disk_release(struct disk *disk);

/* Bytes that are free for us; −1: not known. */
int64_t disk_free(const struct disk *disk);

/* Somebody could not write for lack of room. disk NULL: nothing is known of it. */
void disk_note_full(struct disk *disk);
int disk_is_full(const struct disk *disk);

/* To be called now and then: whether there is room once more. Returns 1 when that is so since this
 * call. */
int disk_look(struct disk *disk);

#endif
