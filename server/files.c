#include "server/files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int files_fail(struct ovr_err *err, const char *what) {
    int why = errno;
    return ovr_fail(err, why == ENOSPC || why == EDQUOT ? OVR_FULL : OVR_IO, NULL, "cannot %s: %s",
                    what, strerror(why));
}

int files_make_directory(const char *path, struct ovr_err *err) {
    struct stat found;
    char what[700];
    if (mkdir(path, 0755) == 0)
        return 0;
    if (errno == EEXIST) {
        if (stat(path, &found) == 0 && S_ISDIR(found.st_mode))
            return 0;
        errno = ENOTDIR;
    }
    snprintf(what, sizeof what, "make %.680s", path);
    return files_fail(err, what);
}

static int remove_entry(const char *path, const struct stat *stat, int type, struct FTW *where) {
    (void)stat, (void)type, (void)where;
    return remove(path);
}

int files_remove_tree(const char *path, struct ovr_err *err) {
    if (access(path, F_OK) == 0 && nftw(path, remove_entry, 8, FTW_DEPTH | FTW_PHYS))
        return ovr_fail(err, OVR_IO, NULL, "cannot remove %s: %s", path, strerror(errno));
    return 0;
}

int files_sweep(const char *data_dir, const char *name, int (*needs)(void *context, const char *id),
                void *context) {
    char path[1024], id[64];
    int n_removed = 0;
    snprintf(path, sizeof path, "%.500s/%s", data_dir, name);
    DIR *dir = opendir(path);
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        size_t n = strcspn(entry->d_name, ".");
        if (n == 0 || n >= sizeof id)
            continue;
        snprintf(id, sizeof id, "%.*s", (int)n, entry->d_name);
        if (needs(context, id))
            continue;
        snprintf(path, sizeof path, "%.500s/%s/%.255s", data_dir, name, entry->d_name);
        n_removed += files_remove_tree(path, NULL) == 0;
    }
    if (dir)
        closedir(dir);
    return n_removed;
}

static void remove_leftovers(const char *directory, const char *prefix) {
    DIR *dir = opendir(directory);
    if (!dir)
        return;
    for (struct dirent *entry; (entry = readdir(dir));)
        if (strncmp(entry->d_name, prefix, strlen(prefix)) == 0)
            unlinkat(dirfd(dir), entry->d_name, 0);
    closedir(dir);
}

int64_t files_bytes(const char *data_dir, const char *name) {
    char path[1024];
    struct stat found;
    int64_t bytes = 0;
    snprintf(path, sizeof path, "%.500s/%s", data_dir, name);
    DIR *dir = opendir(path);
    for (struct dirent *entry; dir && (entry = readdir(dir));)
        if (fstatat(dirfd(dir), entry->d_name, &found, AT_SYMLINK_NOFOLLOW) == 0 &&
            S_ISREG(found.st_mode))
            bytes += found.st_size;
    if (dir)
        closedir(dir);
    return bytes;
}

int64_t files_tree_bytes(const char *path) {
    char *const roots[] = {(char *)(uintptr_t)path, NULL};
    FTS *tree = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
    int64_t bytes = 0;
    for (FTSENT *entry; tree && (entry = fts_read(tree));)
        if (entry->fts_info == FTS_F && entry->fts_statp->st_nlink == 1)
            bytes += entry->fts_statp->st_size;
    if (tree)
        fts_close(tree);
    return bytes;
}

int files_open_directory(char *path, size_t size, const char *data_dir, const char *name,
                         const char *leftover, struct ovr_err *err) {
    int n = snprintf(path, size, "%s/%s", data_dir, name);
    if (n < 0 || (size_t)n >= size)
        return ovr_fail(err, OVR_INVALID, "--data-dir", "the path is too long");
    int rc = files_make_directory(path, err);
    if (!rc)
        remove_leftovers(path, leftover);
    return rc;
}

int files_sync_directory(const char *path, struct ovr_err *err) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = 0;
    if (fd < 0 || fsync(fd))
        rc = files_fail(err, "bring a directory to the disk");
    if (fd >= 0)
        close(fd);
    return rc;
}
