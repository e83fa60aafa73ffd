#include "worker/result.h"

#include "server/clock.h"
#include "server/digest.h"
#include "server/files.h"
#include "server/log.h"
#include "worker/fetch.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What goes with each of the files. */
struct sending {
    struct client *client;
    const struct call *call;
    int64_t patience_ms; /* for each */
    const char *directory;
};

struct file {
    struct fetched bytes;
    size_t at;
};

static int rewind_file(void *context) {
    ((struct file *)context)->at = 0;
    return 0;
}

static size_t read_file(void *context, char *bytes, size_t n) {
    struct file *file = context;
    size_t taken = min_size(n, file->bytes.n - file->at);
    memcpy(bytes, file->bytes.bytes + file->at, taken);
    file->at += taken;
    return taken;
}

static int send_file(const struct sending *s, const char *kind, const char *name,
                     struct ovr_err *err) {
    char path[1000], digest[DIGEST_SIZE];
    struct file file = {.at = 0};
    snprintf(path, sizeof path, "%s/%s/%s", s->directory, kind, name);
    int rc = fetch_file(&file.bytes, path, 0, err);
    if (!rc) {
        struct call call = *s->call;
        const struct source source = {&file, file.bytes.n, digest, rewind_file, read_file};
        digest_of(file.bytes.bytes, file.bytes.n, digest);
        snprintf(path, sizeof path, "/v1/work/files/%s/%s", kind, name);
        call.path = path;
        call.source = &source;
        call.deadline_ms = monotonic_ms() + s->patience_ms;
        rc = client_call(s->client, &call, NULL, err);
    }
    fetched_release(&file.bytes);
    return rc;
}

static int send_directory(const struct sending *s, const char *kind, struct ovr_err *err) {
    char path[700];
    snprintf(path, sizeof path, "%s/%s", s->directory, kind);
    DIR *list = opendir(path);
    int rc = list ? 0 : files_fail(err, "read a directory of the result");
    for (const struct dirent *entry; !rc && (entry = readdir(list));)
        if (*entry->d_name != '.')
            rc = send_file(s, kind, entry->d_name, err);
    if (list)
        closedir(list);
    return rc;
}

static int send_all(const struct sending *sending, struct ovr_err *err) {
    static const char *const kinds[] = {"best", "last", "units"};
    int rc = 0;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds && !rc; i++)
        rc = send_directory(sending, kinds[i], err);
    return rc;
}

int result_send(struct team *team, struct client *client, const struct call *call,
                enum model_kind kind, const struct train_result *result, struct saved *saved,
                struct ovr_err *err) {
    char directory[600] = "";
    const struct sending sending = {client, call, call->deadline_ms - monotonic_ms(), directory};
    int first = team_rank(team) == 0, rc = 0;
    snprintf(directory, sizeof directory, "%s/ovr-worker-XXXXXX", temporary_directory());
    if (first && !mkdtemp(directory))
        rc = files_fail(err, "make a temporary directory (TMPDIR says where)");
    if (team_least(team, !rc)) /* all of them, or none */
        rc = weights_write(team, directory, kind, result, saved, err);
    if (first && !rc)
        rc = send_all(&sending, err);
    if (first)
        files_remove_tree(directory, NULL);
    return rc;
}
