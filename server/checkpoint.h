/* Checkpoints: what a run consists of between two steps (core/train.h), on disk, so that an
 * experiment goes on where it was after a pause, a shutdown or a crash. A worker's go to the daemon
 * over the network instead, each rank's part by itself (docs/worker.md): the same bytes.
 *
 *   DATA_DIR/checkpoints/<id>        the newest
 *   DATA_DIR/checkpoints/<id>.old    the one before
 *   DATA_DIR/checkpoints/tmp-<id>    one on its way; removed at the next start
 *
 *   magic (8) | version | number of pieces | sizes of 16 (uint64 little-endian; the last has those
 *   of all from there on)
 *   key (64 hexadecimal digits) | the pieces | SHA-256 of all that, in hexadecimal (64)
 *
 * A checkpoint is written to its own file, synced, and renamed: at any moment there is a whole one.
 * One that is damaged, or was made with another key, counts as not there; then the one before is
 * taken, and without any the run starts anew. The key names all that the bytes of a run depend on.
 */
#ifndef SERVER_CHECKPOINT_H
#define SERVER_CHECKPOINT_H

#include "core/train.h"
#include "server/digest.h"

/* To be raised when the pieces of a run change their meaning: files outlive the program. */
enum { CHECKPOINT_VERSION = 1 };

/* Makes the directory and removes what was left half written. */
int checkpoint_init(const char *data_dir, struct ovr_err *err);

/* The key of a spec, as it is stored, on this instruction set and BLAS kernel; of one rank's part,
 * where there are several. */
void checkpoint_key(const char *spec, enum isa isa, int rank, int ranks, char key[DIGEST_SIZE]);

int checkpoint_write(const char *data_dir, const char *id, const char *key,
                     const struct train_piece *pieces, size_t n, struct ovr_err *err);

/* Fills the pieces from the newest, or with back = 1 from the one before, and returns 1; where that
 * is not good they are as they were, and it returns 0 (what was wrong with it is in the log). */
int checkpoint_read(const char *data_dir, const char *id, const char *key, int back,
                    const struct train_piece *pieces, size_t n);

/* Both files of an experiment that needs them no more. */
void checkpoint_remove(const char *data_dir, const char *id);

/* The bytes of a checkpoint, one after the other, wherever they go. */

enum { CHECKPOINT_SIZES = 16 };

struct checkpoint_head {
    char magic[8];
    uint64_t version, n, sizes[CHECKPOINT_SIZES];
    char key[DIGEST_SIZE - 1];
};

struct checkpoint_stream {
    struct checkpoint_head head;
    const struct train_piece *pieces; /* borrowed */
    size_t n, part, at;               /* part in hand, and how far it is handed out */
    struct digest digest;
    char hex[DIGEST_SIZE];
};

void checkpoint_stream_init(struct checkpoint_stream *stream, const char *key,
                            const struct train_piece *pieces, size_t n);

/* The next ones, at most a megabyte, which stay where they are until the next call. Returns how
 * many; 0: that was all. */
size_t checkpoint_next(struct checkpoint_stream *stream, const void **bytes);

/* How many there are. */
uint64_t checkpoint_size(const struct train_piece *pieces, size_t n);

/* NULL when these bytes are a whole checkpoint of this key and these sizes, else what is wrong with
 * it, to be said after its name. `map` is aligned as a page is. */
const char *checkpoint_fault(const char *map, size_t bytes, const char *key,
                             const struct train_piece *pieces, size_t n);

/* Copies the pieces out of what has no fault. */
void checkpoint_fill(const char *map, const struct train_piece *pieces, size_t n);

#endif
