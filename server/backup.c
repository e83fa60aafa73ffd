#include "server/backup.h"

#include "server/files.h"

#include <dirent.h>
#include <errno.h>
#include <ftw.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

typedef char backup_path[1400];

static pthread_mutex_t removing = PTHREAD_MUTEX_INITIALIZER;

int backup_hold_off(void) {
    return pthread_mutex_trylock(&removing) == 0;
}

void backup_let_go(void) {
    pthread_mutex_unlock(&removing);
}

/* Links a directory's files below another; what is gone meanwhile was not finished. */
static int link_all(const char *from, const char *to, struct ovr_err *err) {
    int rc = files_make_directory(to, err);
    DIR *dir = rc ? NULL : opendir(from);
    if (!rc && !dir)
        return files_fail(err, "read a directory to back up");
    for (struct dirent *entry; !rc && (entry = readdir(dir));) {
        backup_path source, target;
        struct stat stat;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        snprintf(source, sizeof source, "%.1100s/%.250s", from, entry->d_name);
        snprintf(target, sizeof target, "%.1100s/%.250s", to, entry->d_name);
        if (lstat(source, &stat))
            continue;
        if (S_ISDIR(stat.st_mode))
            rc = link_all(source, target, err);
        else if (link(source, target) && errno != ENOENT)
            rc = files_fail(err, "link a file into a backup");
    }
    if (dir)
        closedir(dir);
    return rc ? rc : files_sync_directory(to, err);
}

static int remove_entry(const char *path, const struct stat *stat, int type, struct FTW *where) {
    (void)stat, (void)type, (void)where;
    return remove(path);
}

static int fill(struct store *store, const char *data_dir, const char *to, struct ovr_err *err) {
    static const char *const parts[] = {"datasets", "experiments", "checkpoints"};
    backup_path from, below;
    int rc = files_make_directory(to, err);
    snprintf(below, sizeof below, "%.1000s/ovrd.sqlite3", to);
    if (!rc)
        rc = store_copy(store, below, err);
    for (size_t i = 0; !rc && i < sizeof parts / sizeof *parts; i++) {
        snprintf(from, sizeof from, "%.500s/%s", data_dir, parts[i]);
        snprintf(below, sizeof below, "%.1000s/%s", to, parts[i]);
        rc = link_all(from, below, err);
    }
    return rc ? rc : files_sync_directory(to, err);
}

int backup_make(struct store *store, const char *data_dir, char name[BACKUP_NAME_SIZE],
                struct ovr_err *err) {
    backup_path all, making, done;
    time_t now = time(NULL);
    struct tm parts;
    if (!backup_hold_off())
        return ovr_fail(err, OVR_CONFLICT, NULL, "a backup is being made; try again later");
    strftime(name, BACKUP_NAME_SIZE, "%Y%m%dT%H%M%SZ", gmtime_r(&now, &parts));
    snprintf(making, sizeof making, "%.500s/backups/making", data_dir);
    snprintf(done, sizeof done, "%.500s/backups/%s", data_dir, name);
    snprintf(all, sizeof all, "%.500s/backups", data_dir);
    int rc = files_make_directory(all, err);
    nftw(making, remove_entry, 8, FTW_DEPTH | FTW_PHYS); /* of a killed daemon */
    if (!rc)
        rc = fill(store, data_dir, making, err);
    if (!rc && rename(making, done))
        rc = errno == ENOTEMPTY || errno == EEXIST
                 ? ovr_fail(err, OVR_CONFLICT, NULL, "there is a backup of this second already")
                 : files_fail(err, "give a backup its name");
    if (!rc)
        rc = files_sync_directory(all, err);
    if (rc)
        nftw(making, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
    backup_let_go();
    return rc;
}
