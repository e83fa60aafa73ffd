#include "server/backup.h"

#include "server/files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

typedef char backup_path[1400];

/* Held by those who remove files that a backup may be about to link, and against them by the one
 * that is being made. */
static pthread_rwlock_t removing = PTHREAD_RWLOCK_INITIALIZER;
static pthread_mutex_t making = PTHREAD_MUTEX_INITIALIZER;

int backup_hold_off(void) {
    return pthread_rwlock_tryrdlock(&removing) == 0;
}

void backup_let_go(void) {
    pthread_rwlock_unlock(&removing);
}

static int is_stopped(const struct backup_job *job) {
    return job->stop && *job->stop;
}

static int stopped(struct ovr_err *err) {
    return ovr_fail(err, OVR_STOPPED, NULL, "the backup was given up, since the daemon stops");
}

static int is_backup(const struct dirent *entry) {
    return entry->d_name[0] >= '0' && entry->d_name[0] <= '9';
}

/* Links a directory's files below another; what is gone meanwhile was not finished. */
static int link_all(const struct backup_job *job, const char *from, const char *to,
                    struct ovr_err *err) {
    int rc = files_make_directory(to, err);
    DIR *dir = rc ? NULL : opendir(from);
    if (!rc && !dir)
        return errno == ENOENT ? 0 : files_fail(err, "read a directory to back up");
    for (struct dirent *entry; !rc && (entry = readdir(dir));) {
        backup_path source, target;
        if (is_stopped(job))
            rc = stopped(err);
        struct stat stat;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        snprintf(source, sizeof source, "%.1100s/%.250s", from, entry->d_name);
        snprintf(target, sizeof target, "%.1100s/%.250s", to, entry->d_name);
        if (rc || lstat(source, &stat))
            continue;
        if (S_ISDIR(stat.st_mode))
            rc = link_all(job, source, target, err);
        else if (link(source, target) && errno != ENOENT)
            rc = files_fail(err, "link a file into a backup");
    }
    if (dir)
        closedir(dir);
    return rc;
}

/* All of it at once: a sync of each of its directories, of which there are as many as experiments,
 * takes a hundred times as long. */
static int sync_all(const char *to, struct ovr_err *err) {
    int fd = open(to, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = fd >= 0 && syncfs(fd) == 0 ? 0 : files_fail(err, "save a backup");
    if (fd >= 0)
        close(fd);
    return rc;
}

static int link_part(const struct backup_job *job, const char *to, const char *part,
                     struct ovr_err *err) {
    backup_path from, below;
    snprintf(from, sizeof from, "%.500s/%s", job->data_dir, part);
    snprintf(below, sizeof below, "%.1000s/%s", to, part);
    return link_all(job, from, below, err);
}

/* Checkpoints before the database: what one counts as reported has to be in it, or those epochs
 * would be missing for good. What the database names has been there before it: that comes after. */
static int fill(const struct backup_job *job, const char *to, struct ovr_err *err) {
    backup_path below;
    snprintf(below, sizeof below, "%.1000s/ovrd.sqlite3", to);
    int rc = files_make_directory(to, err);
    rc = rc ? rc : link_part(job, to, "checkpoints", err);
    rc = rc ? rc : store_copy(job->store, below, job->stop, err);
    rc = rc ? rc : link_part(job, to, "datasets", err);
    rc = rc ? rc : link_part(job, to, "experiments", err);
    return rc ? rc : sync_all(to, err);
}

/* The newest `keep` stay; names sort as the times do. */
static int remove_old(const char *all, int keep) {
    struct dirent **entries = NULL;
    int n = scandir(all, &entries, is_backup, alphasort), removed = 0;
    for (int i = 0; i < n; i++) {
        backup_path path;
        snprintf(path, sizeof path, "%.1100s/%.250s", all, entries[i]->d_name);
        if (i < n - keep && files_remove_tree(path, NULL) == 0)
            removed++;
        free(entries[i]);
    }
    free(entries);
    return removed;
}

static int make(const struct backup_job *job, const char *all, const char *name,
                struct ovr_err *err) {
    backup_path unfinished, done;
    snprintf(unfinished, sizeof unfinished, "%.1000s/making", all);
    snprintf(done, sizeof done, "%.1000s/%s", all, name);
    int rc = files_make_directory(all, err);
    if (!rc)
        rc = files_remove_tree(unfinished, err); /* of a killed daemon */
    if (!rc)
        rc = fill(job, unfinished, err);
    if (!rc && rename(unfinished, done))
        rc = files_fail(err, "give a backup its name");
    if (!rc)
        rc = files_sync_directory(all, err);
    if (rc)
        files_remove_tree(unfinished, NULL);
    return rc;
}

/* Looked at before others are held off from removing files: after a conflict nobody removes these
 * for them. */
static int must_be_new(const char *all, const char *name, struct ovr_err *err) {
    backup_path done;
    snprintf(done, sizeof done, "%.1000s/%s", all, name);
    return access(done, F_OK)
               ? 0
               : ovr_fail(err, OVR_CONFLICT, NULL, "there is a backup of this second already");
}

int backup_make(const struct backup_job *job, struct backup_outcome *outcome, struct ovr_err *err) {
    backup_path all;
    time_t now = time(NULL);
    struct tm parts;
    *outcome = (struct backup_outcome){.removed = 0};
    if (pthread_mutex_trylock(&making))
        return ovr_fail(err, OVR_CONFLICT, NULL, "a backup is being made; try again later");
    strftime(outcome->name, sizeof outcome->name, "%Y%m%dT%H%M%SZ", gmtime_r(&now, &parts));
    snprintf(all, sizeof all, "%.500s/backups", job->data_dir);
    int rc = must_be_new(all, outcome->name, err);
    if (!rc) {
        pthread_rwlock_wrlock(&removing);
        rc = make(job, all, outcome->name, err);
        pthread_rwlock_unlock(&removing);
    }
    if (!rc && job->keep)
        outcome->removed = remove_old(all, job->keep);
    pthread_mutex_unlock(&making);
    return rc;
}
