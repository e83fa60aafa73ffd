#include "server/files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int files_fail(struct ovr_err *err, const char *what) {
    int why = errno;
    return ovr_fail(err, why == ENOSPC ? OVR_FULL : OVR_IO, NULL, "cannot %s: %s", what,
                    strerror(why));
}

int files_make_directory(const char *path, struct ovr_err *err) {
    if (mkdir(path, 0755) && errno != EEXIST)
        return ovr_fail(err, errno == ENOSPC ? OVR_FULL : OVR_IO, NULL, "cannot make %s: %s", path,
                        strerror(errno));
    return 0;
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
