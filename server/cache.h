/* The cache of prepared data: what jobs on the same data and steps train on is made once and held
 * once.
 *
 *   DATA_DIR/cache/<key>          a block of core/prepared.h, then the SHA-256 of it in hexadecimal
 *   DATA_DIR/cache/build-XXXXXX   one that is being made, removed at the next start
 *
 * The key is the SHA-256 of all that the bytes depend on: versions and limits of the data, protocol
 * and held-out samples, steps, BLAS kernel, instruction set, PREPARED_VERSION. A job maps the file
 * read-only, so that any number of them share its pages; while one makes it the others wait for it.
 * Files are never synced: one that does not match its SHA-256 is made again. When all files
 * together exceed the limit, the ones that were not used for the longest time go. Data that take no
 * time to make (generated ones) and what finds no room on the disk are shared in memory, for as
 * long as a job uses them.
 */
#ifndef SERVER_CACHE_H
#define SERVER_CACHE_H

#include "server/catalog.h"

#include <pthread.h>

struct cache {
    char directory[512], data_dir[512];
    const struct catalog *catalog; /* borrowed */
    const struct kernels *kernels;
    uint64_t limit_bytes;   /* of all files together; 0: no files */
    pthread_mutex_t lock;   /* guards the entries */
    pthread_cond_t changed; /* some data are made, or could not be */
    struct cache_entry *entries;
};

int cache_init(struct cache *cache, const char *data_dir, const struct catalog *catalog,
               const struct kernels *kernels, uint64_t limit_bytes, struct ovr_err *err);
void cache_release(struct cache *cache); /* no data are in use any more */

/* The prepared data of a spec, made on `team` if need be. They stay until cache_put(). *stop asks
 * for OVR_STOPPED. */
int cache_get(struct cache *cache, const struct spec *spec, struct team *team,
              const _Atomic int *stop, const struct prepared **data, struct ovr_err *err);
void cache_put(struct cache *cache, const struct prepared *data); /* NULL is fine */

#endif
