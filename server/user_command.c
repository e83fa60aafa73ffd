#include "server/user_command.h"

#include "server/files.h"
#include "server/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char USAGE[] = "write ovrd user add NAME --role admin|member|viewer, ovrd user token "
                            "NAME, or ovrd user list; --data-dir DIR may follow";

static int check(const struct user_command *c, int role_given, struct ovr_err *err) {
    int add = strcmp(c->verb, "add") == 0, token = strcmp(c->verb, "token") == 0;
    if ((!add && !token && strcmp(c->verb, "list")) || ((add || token) != (c->name != NULL)) ||
        add != role_given)
        return ovr_fail(err, OVR_INVALID, "user", "%s", USAGE);
    if (add && !c->role)
        return ovr_fail(err, OVR_INVALID, "--role", "--role must be viewer, member or admin");
    if (add && !user_name_is_valid(c->name))
        return ovr_fail(err, OVR_INVALID, "user",
                        "a user's name has 1..64 of a-z 0-9 . _ - and begins with a letter or "
                        "digit, got '%.64s'",
                        c->name);
    return 0;
}

int user_command_read(struct user_command *c, int *argc, char **argv, struct ovr_err *err) {
    int n = 1, role_given = 0;
    *c = (struct user_command){0};
    if (*argc < 2 || strcmp(argv[1], "user") != 0)
        return 0;
    c->verb = *argc > 2 ? argv[2] : "";
    for (int i = 3; i < *argc; i++) {
        if (strcmp(argv[i], "--role") == 0 && i + 1 < *argc)
            c->role = find_level(role_names, argv[++i]), role_given = 1;
        else if (strncmp(argv[i], "--role=", 7) == 0)
            c->role = find_level(role_names, argv[i] + 7), role_given = 1;
        else if (argv[i][0] != '-' && !c->name && n == 1)
            c->name = argv[i];
        else
            argv[n++] = argv[i];
    }
    *argc = n;
    return check(c, role_given, err);
}

static int list(struct store *store, FILE *out, struct ovr_err *err) {
    struct user *users;
    char after[USER_NAME_SIZE] = "";
    size_t n;
    do {
        int rc = store_list_users(store, after, 100, &users, &n, err);
        if (rc)
            return rc;
        for (size_t i = 0; i < n; i++)
            fprintf(out, "%-24s %s%s\n", users[i].name, role_names[users[i].role],
                    users[i].disabled ? ", disabled" : "");
        if (n)
            memcpy(after, users[n - 1].name, sizeof after);
        free(users);
    } while (n == 100);
    return 0;
}

static int add(struct store *store, const char *name, enum level role, const char *text,
               const char *label, struct ovr_err *err) {
    char id[ID_SIZE];
    const struct new_token token = {.label = label, .text = text, .scope = role};
    return store_add_user(store, name, role, &(struct quotas){-1, -1, -1}, &token, id, err);
}

static int one_more(struct store *store, const char *name, const char *text, const char *label,
                    struct ovr_err *err) {
    char id[ID_SIZE];
    struct user u;
    int rc = store_get_user(store, name, &u, err);
    const struct new_token token = {.label = label, .text = text, .scope = u.role};
    return rc ? rc : store_add_token(store, name, &token, id, err);
}

int user_command_run(const struct user_command *c, struct store *store, FILE *out,
                     struct ovr_err *err) {
    const struct asker operator= {.level = LEVEL_ADMIN, .address = "ovrd user"};
    char text[TOKEN_SIZE];
    ask_as(&operator);
    int rc = token_make(text, err), told = strcmp(c->verb, "list") != 0;
    if (!rc && !told)
        rc = list(store, out, err);
    else if (!rc && strcmp(c->verb, "add") == 0)
        rc = add(store, c->name, c->role, text, "first", err);
    else if (!rc)
        rc = one_more(store, c->name, text, "ovrd user token", err);
    ask_as(NULL);
    if (!rc && told)
        fprintf(out, "%s\n", text);
    if (!rc && (fflush(out) || ferror(out)))
        rc = ovr_fail(err, OVR_IO, NULL, "cannot write the token; make another one");
    return rc;
}

/* ---- The file with the admin's token ---- */

/* A token of somebody's own making may be any; but it must be long enough not to be guessed. */
static int read_token_file(int fd, const char *path, char text[128], struct ovr_err *err) {
    ssize_t n = read(fd, text, 127);
    if (n < 0)
        return files_fail(err, "read the admin's token");
    text[n] = '\0';
    text[strcspn(text, " \t\r\n")] = '\0';
    if (strlen(text) < 32 || strlen(text) > 120)
        return ovr_fail(err, OVR_INVALID, "--admin-token-file",
                        "the token in %s must have 32..120 characters, such as those of openssl "
                        "rand -hex 32; remove the file, and a new one is made",
                        path);
    return 0;
}

static int write_token_file(const char *path, char text[128], struct ovr_err *err) {
    int rc = token_make(text, err);
    if (rc)
        return rc;
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    ssize_t n = (ssize_t)strlen(text);
    if (fd < 0 || write(fd, text, (size_t)n) != n || write(fd, "\n", 1) != 1 || fsync(fd))
        rc = files_fail(err, "write the admin's token");
    if (fd >= 0 && close(fd) && !rc)
        rc = files_fail(err, "write the admin's token");
    return rc;
}

static int get_token(const char *path, char text[128], struct ovr_err *err) {
    struct stat about;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT)
        return write_token_file(path, text, err);
    if (fd < 0)
        return files_fail(err, "open the file with the admin's token");
    if (fstat(fd, &about) == 0 && about.st_mode & 0077)
        log_line(LOG_WARN, "%s can be read by others than its owner; chmod 600 it", path);
    int rc = read_token_file(fd, path, text, err);
    close(fd);
    return rc;
}

/* As somebody's who asked for it. */
static int give_admin(struct store *store, const char *text, struct ovr_err *err) {
    struct user u;
    if (store_get_user(store, "admin", &u, NULL) == 0)
        return one_more(store, "admin", text, "admin-token-file", err);
    return add(store, "admin", LEVEL_ADMIN, text, "admin-token-file", err);
}

int admin_from_file(struct store *store, const char *path, struct ovr_err *err) {
    const struct asker operator= {.level = LEVEL_ADMIN, .address = "--admin-token-file"};
    char text[128], sha256[DIGEST_SIZE];
    struct asker found;
    struct ovr_err why = {0};
    int rc = get_token(path, text, err);
    if (rc)
        return rc;
    digest_of(text, strlen(text), sha256);
    if (store_find_token(store, sha256, &found, NULL) == 0)
        return 0;
    ask_as(&operator);
    rc = give_admin(store, text, &why);
    ask_as(NULL);
    if (rc != OVR_CONFLICT)
        return rc ? ovr_fail(err, rc, why.field, "%s", why.text) : 0;
    /* An admin has shut it out, and a restart is no reason to let it in again. */
    log_line(LOG_WARN, "the token in %s is not taken: %s", path, why.text);
    return 0;
}
