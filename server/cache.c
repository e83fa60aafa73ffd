#include "server/cache.h"

#include "core/linalg.h"
#include "server/digest.h"
#include "server/files.h"
#include "server/fitted.h"
#include "server/log.h"
#include "server/metrics.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

enum { IDLE_MAX = 8 }; /* files that stay mapped when no job uses them */

struct cache_entry {
    struct cache_entry *next;
    char key[DIGEST_SIZE];
    struct prepared *data; /* NULL: a job is making it */
    int users;
    int64_t used_at;
};

/* Long enough for every path below: the directory and a key. */
typedef char cache_path[640];

int cache_init(struct cache *cache, const char *data_dir, const struct catalog *catalog,
               const struct kernels *kernels, uint64_t limit_bytes, struct ovr_err *err) {
    *cache = (struct cache){.catalog = catalog, .kernels = kernels, .limit_bytes = limit_bytes};
    snprintf(cache->data_dir, sizeof cache->data_dir, "%s", data_dir);
    pthread_mutex_init(&cache->lock, NULL);
    pthread_condattr_t clock;
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&cache->changed, &clock);
    pthread_condattr_destroy(&clock);
    return files_open_directory(cache->directory, sizeof cache->directory, data_dir, "cache",
                                "build-", err);
}

static void unlink_entry(struct cache *cache, struct cache_entry *entry) {
    struct cache_entry **at = &cache->entries;
    while (*at != entry)
        at = &(*at)->next;
    *at = entry->next;
    prepared_free(entry->data);
    free(entry);
}

void cache_release(struct cache *cache) {
    if (!*cache->directory) /* never set up */
        return;
    while (cache->entries)
        unlink_entry(cache, cache->entries);
    pthread_cond_destroy(&cache->changed);
    pthread_mutex_destroy(&cache->lock);
}

/* All that the bytes of prepared data depend on, as one text; its SHA-256 is the key. */
static void make_key(const struct cache *cache, const struct spec *spec, char key[DIGEST_SIZE]) {
    const struct prepare_config *data = &spec->train.data;
    const struct sphere_config *sphere = &spec->sphere;
    int clean = data->protocol == PROTOCOL_CLEAN;
    char text[4096];
    size_t n = 0, size = sizeof text;
    n += (size_t)snprintf(text, size, "version %d, %s %s, %s\n", PREPARED_VERSION, linalg_library(),
                          linalg_kernel(), isa_name(cache->kernels->isa));
    if (spec->generated)
        n += (size_t)snprintf(text + n, size - n, "sphere %zu %zu %zu %zu %zu %llu\n",
                              sphere->samples, sphere->test_samples, sphere->latitudes,
                              sphere->sectors, sphere->classes, (unsigned long long)sphere->seed);
    else
        n += (size_t)snprintf(text + n, size - n, "train %s %lld\ntest %s %lld\n",
                              spec->train_sha256, (long long)spec->train_limit, spec->test_sha256,
                              (long long)spec->test_limit);
    if (spec->only_classes.n) {
        char classes[DIGEST_SIZE];
        digest_of(spec->only_classes.list, spec->only_classes.n * sizeof *spec->only_classes.list,
                  classes);
        n += (size_t)snprintf(text + n, size - n, "only classes %s\n", classes);
    }
    if (clean)
        n += (size_t)snprintf(text + n, size - n, "held out %.17g, seed %llu\n", data->validation,
                              (unsigned long long)spec->train.seed);
    for (size_t i = 0; i < data->n_preprocess; i++) {
        const struct preprocess_step *step = &data->preprocess[i];
        int fitted = step->kind == PREPROCESS_FITTED; /* its width is the experiment's own */
        n += (size_t)snprintf(
            text + n, size - n, "step %d %zu %.17g %d %.17g %.17g %.17g %d %.17g %s\n",
            (int)step->kind, fitted ? 0 : step->components, step->variance, step->whiten,
            step->factor, step->min, step->max, step->per_feature, step->epsilon, step->experiment);
    }
    digest_of(text, n, key);
}

static void make_path(const struct cache *cache, const char *name, cache_path path) {
    snprintf(path, sizeof(cache_path), "%s/%s", cache->directory, name);
}

/* The file of a key, mapped, or NULL where there is none or no memory for it. A damaged one goes.
 */
static struct prepared *load(const struct cache *cache, const char *key) {
    cache_path path;
    char stored[DIGEST_SIZE] = "", found[DIGEST_SIZE];
    const size_t tail = DIGEST_SIZE - 1;
    struct prepared *data = NULL;
    struct stat stat;
    make_path(cache, key, path);
    int fd = open(path, O_RDONLY | O_CLOEXEC), rc = OVR_IO;
    if (fd < 0)
        return NULL;
    if (fstat(fd, &stat) == 0 && (size_t)stat.st_size >= tail &&
        pread(fd, stored, tail, stat.st_size - (off_t)tail) == (ssize_t)tail)
        rc = prepared_map(&data, fd, (size_t)stat.st_size - tail, NULL);
    close(fd);
    if (!rc) {
        digest_of(data->block, data->bytes, found);
        rc = strcmp(found, stored) ? OVR_IO : 0;
    }
    if (rc == OVR_IO) {
        log_line(LOG_WARN, "prepared data in %s are damaged; they are made again", path);
        unlink(path);
        prepared_free(data);
        data = NULL;
    }
    return data;
}

/* One file of the cache. */
struct cache_file {
    char name[DIGEST_SIZE];
    struct timespec used;
    uint64_t bytes;
};

static int by_use(const void *a, const void *b) {
    const struct timespec *x = &((const struct cache_file *)a)->used;
    const struct timespec *y = &((const struct cache_file *)b)->used;
    if (x->tv_sec != y->tv_sec)
        return (x->tv_sec > y->tv_sec) - (x->tv_sec < y->tv_sec);
    return (x->tv_nsec > y->tv_nsec) - (x->tv_nsec < y->tv_nsec);
}

/* All files, the one that was not used for longest first. Returns their number; the caller frees
 * *list. Without memory there is none. */
static size_t list_files(const struct cache *cache, struct cache_file **list, uint64_t *total) {
    DIR *dir = opendir(cache->directory);
    size_t n = 0, room = 0;
    *list = NULL;
    *total = 0;
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        struct stat stat;
        if (strlen(entry->d_name) != DIGEST_SIZE - 1 ||
            fstatat(dirfd(dir), entry->d_name, &stat, AT_SYMLINK_NOFOLLOW))
            continue;
        if (n == room) {
            room = room ? 2 * room : 64;
            struct cache_file *more = realloc(*list, room * sizeof *more);
            if (!more)
                break;
            *list = more;
        }
        struct cache_file *file = &(*list)[n++];
        snprintf(file->name, sizeof file->name, "%.64s", entry->d_name);
        file->used = stat.st_mtim;
        file->bytes = (uint64_t)stat.st_size;
        *total += file->bytes;
    }
    if (dir)
        closedir(dir);
    if (n)
        qsort(*list, n, sizeof **list, by_use);
    return n;
}

static struct cache_entry *find(const struct cache *cache, const char *key) {
    struct cache_entry *entry = cache->entries;
    while (entry && strcmp(entry->key, key))
        entry = entry->next;
    return entry;
}

/* Unmaps a file that was removed, unless a job uses it: only then its room is free. */
static void forget(struct cache *cache, const char *key) {
    pthread_mutex_lock(&cache->lock);
    struct cache_entry *entry = find(cache, key);
    if (entry && entry->data && !entry->users)
        unlink_entry(cache, entry);
    pthread_mutex_unlock(&cache->lock);
}

/* Removes files until the rest and `more` bytes are within the limit. Jobs that have one mapped
 * keep it. */
static void make_room(struct cache *cache, uint64_t more) {
    struct cache_file *list;
    uint64_t total;
    size_t n = list_files(cache, &list, &total);
    for (size_t i = 0; i < n && total + more > cache->limit_bytes; i++) {
        cache_path path;
        make_path(cache, list[i].name, path);
        if (unlink(path))
            continue;
        total -= list[i].bytes;
        forget(cache, list[i].name);
    }
    free(list);
}

/* Whether the disk has room for so many bytes and as much again, for the results of jobs: these are
 * lost without, prepared data are not. */
static int disk_has_room(const struct cache *cache, uint64_t bytes) {
    struct statvfs disk;
    return statvfs(cache->directory, &disk) == 0 &&
           (uint64_t)disk.f_bavail * disk.f_frsize / 2 >= bytes;
}

/* A new file for prepared data, or -1 when they shall not or can't be kept. */
static int new_file(struct cache *cache, int generated, const struct prepare_config *config,
                    const struct samples *train, const struct samples *test, cache_path path) {
    uint64_t bytes =
        prepared_bytes(config, train->n, test->n, train->d, train->n_cells) + DIGEST_SIZE;
    if (generated || bytes > cache->limit_bytes)
        return -1;
    make_room(cache, bytes);
    if (!disk_has_room(cache, bytes)) {
        log_line(LOG_WARN, "prepared data are not kept: the disk has hardly any room");
        return -1;
    }
    make_path(cache, "build-XXXXXX", path);
    int fd = mkostemp(path, O_CLOEXEC);
    if (fd < 0)
        log_line(LOG_WARN, "prepared data are not kept: cannot make a file in %s: %s",
                 cache->directory, strerror(errno));
    return fd;
}

/* The file gets its SHA-256 and its name, or goes. */
static void publish(struct cache *cache, const struct prepared *data, int fd, const char *path,
                    const char *key) {
    char digest[DIGEST_SIZE];
    cache_path final;
    make_path(cache, key, final);
    if (data && data->in_file) {
        digest_of(data->block, data->bytes, digest);
        if (pwrite(fd, digest, DIGEST_SIZE - 1, (off_t)data->bytes) == DIGEST_SIZE - 1 &&
            fchmod(fd, 0444) == 0 && rename(path, final) == 0) {
            make_room(cache, 0); /* what others have made meanwhile counts too */
            return;
        }
    }
    if (data)
        log_line(LOG_WARN, "prepared data are not kept: there is no room for %zu bytes in %s",
                 data->bytes, cache->directory);
    unlink(path);
}

static int build(struct cache *cache, const struct spec *spec, struct team *team, const char *key,
                 const _Atomic int *stop, struct prepared **data, struct ovr_err *err) {
    struct samples train = {0}, test = {0};
    struct preprocess fitted = {0};
    struct prepare_config config = spec->train.data;
    struct preprocess_step *first = &config.preprocess[0];
    int rc = catalog_open_samples(cache->catalog, spec, 1, &train, &test, err);
    if (!rc && config.n_preprocess && first->kind == PREPROCESS_FITTED) {
        rc = fitted_open(cache->catalog->store, cache->data_dir, first->experiment, train.d,
                         &fitted, err);
        first->fitted = &fitted;
    }
    if (!rc) {
        cache_path path;
        int fd = new_file(cache, spec->generated, &config, &train, &test, path);
        rc = prepared_build(data, &config, spec->train.seed, &train, &test, team, cache->kernels,
                            fd, stop, err);
        if (fd >= 0) {
            publish(cache, *data, fd, path, key);
            close(fd);
        }
    }
    preprocess_release(&fitted);
    samples_release(&train);
    samples_release(&test);
    return rc;
}

/* The functions below are called with the lock held. */

/* Unmaps the file that was idle for longest when there are too many. */
static void drop_idle(struct cache *cache) {
    struct cache_entry *oldest = NULL;
    int idle = 0;
    for (struct cache_entry *e = cache->entries; e; e = e->next) {
        if (!e->data || e->users)
            continue;
        idle++;
        if (!oldest || e->used_at < oldest->used_at)
            oldest = e;
    }
    if (idle > IDLE_MAX)
        unlink_entry(cache, oldest);
}

static int wait_for_change(struct cache *cache, const _Atomic int *stop, struct ovr_err *err) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += 100 * 1000 * 1000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_cond_timedwait(&cache->changed, &cache->lock, &until);
    return stop && *stop ? ovr_fail(err, OVR_STOPPED, NULL, "stopped while data were prepared") : 0;
}

/* A new entry, filled without the lock. */
static int fill(struct cache *cache, const char *key, const struct spec *spec, struct team *team,
                const _Atomic int *stop, struct cache_entry **out, struct ovr_err *err) {
    struct cache_entry *entry = calloc(1, sizeof *entry);
    if (!entry)
        return ovr_nomem(err, "prepared data");
    snprintf(entry->key, sizeof entry->key, "%s", key);
    entry->next = cache->entries;
    cache->entries = entry;
    pthread_mutex_unlock(&cache->lock);
    int rc = 0;
    struct prepared *data = load(cache, key);
    if (!data)
        rc = build(cache, spec, team, key, stop, &data, err);
    pthread_mutex_lock(&cache->lock);
    entry->data = data;
    pthread_cond_broadcast(&cache->changed);
    if (rc)
        unlink_entry(cache, entry);
    else
        *out = entry;
    return rc;
}

/* The file's time says when it was used last. */
static void touch(const struct cache *cache, const struct cache_entry *entry) {
    cache_path path;
    make_path(cache, entry->key, path);
    if (entry->data->in_file)
        utimensat(AT_FDCWD, path, NULL, 0);
}

int cache_get(struct cache *cache, const struct spec *spec, struct team *team,
              const _Atomic int *stop, const struct prepared **data, struct ovr_err *err) {
    char key[DIGEST_SIZE];
    struct cache_entry *entry;
    int rc = 0;
    *data = NULL;
    make_key(cache, spec, key);
    pthread_mutex_lock(&cache->lock);
    while (!rc && (entry = find(cache, key)) && !entry->data)
        rc = wait_for_change(cache, stop, err);
    metrics_add(!rc && entry ? COUNT_CACHE_HITS : COUNT_CACHE_MISSES, !rc);
    if (!rc && !entry)
        rc = fill(cache, key, spec, team, stop, &entry, err);
    if (!rc) {
        entry->users++;
        *data = entry->data;
        touch(cache, entry);
    }
    pthread_mutex_unlock(&cache->lock);
    return rc;
}

void cache_put(struct cache *cache, const struct prepared *data) {
    if (!data)
        return;
    pthread_mutex_lock(&cache->lock);
    struct cache_entry *entry = cache->entries;
    while (entry->data != data)
        entry = entry->next;
    entry->used_at = now_ms();
    if (--entry->users == 0) {
        if (data->in_file)
            drop_idle(cache);
        else
            unlink_entry(cache, entry);
    }
    pthread_mutex_unlock(&cache->lock);
}
