#include "clients/cli/token.h"

#include "clients/cli/cli.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* What is left when the space around it is taken away has to be one word of what tokens consist of.
 */
static int take(const char *text, const char *from, char token[TOKEN_ROOM]) {
    text += strspn(text, " \t\r\n");
    size_t n = strcspn(text, " \t\r\n");
    if (n >= TOKEN_ROOM || text[n + strspn(text + n, " \t\r\n")])
        return complain(EXIT_USAGE, "%s has no token: it must be one word, such as ovrd_…", from);
    for (size_t i = 0; i < n; i++)
        if (text[i] <= ' ' || text[i] > '~')
            return complain(EXIT_USAGE, "%s has no token, but other characters", from);
    memcpy(token, text, n);
    token[n] = '\0';
    return EXIT_OK;
}

static int read_file(FILE *file, const char *path, char token[TOKEN_ROOM]) {
    char text[TOKEN_ROOM + 64];
    struct stat about;
    if (fstat(fileno(file), &about) == 0 && about.st_mode & 0077)
        return complain(EXIT_USAGE,
                        "others can read %s; chmod 600 it, and if somebody may have, "
                        "revoke the token",
                        path);
    size_t n = fread(text, 1, sizeof text - 1, file);
    text[n] = '\0';
    return take(text, path, token);
}

int token_find(const char *file, char token[TOKEN_ROOM]) {
    char usual[4096] = "";
    const char *home = getenv("HOME"), *config = getenv("XDG_CONFIG_HOME");
    const char *text = getenv("OVRD_TOKEN");
    token[0] = '\0';
    if (!file && text && *text)
        return take(text, "OVRD_TOKEN", token);
    if (config && *config)
        snprintf(usual, sizeof usual, "%s/ovrd/token", config);
    else if (home && *home)
        snprintf(usual, sizeof usual, "%s/.config/ovrd/token", home);
    const char *path = file ? file : usual;
    FILE *opened = *path ? fopen(path, "re") : NULL;
    if (!opened)
        return file ? complain(EXIT_USAGE, "cannot read %s: %s", file, strerror(errno)) : EXIT_OK;
    int code = read_file(opened, path, token);
    fclose(opened);
    return code;
}
