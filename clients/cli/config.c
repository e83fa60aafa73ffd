/* What a person sets once: the environment, then ~/.config/ovrd/config. Only options that every
 * command has, so that no command is surprised. */
#include "clients/cli/table.h"
#include "clients/cli/text.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FILE_MAX = 64 << 10 };

static const char **member_of(struct options *options, const struct option_row *row) {
    return (const char **)((char *)options + row->offset);
}

static void read_environment(struct options *options) {
    for (int i = 0; i < n_options; i++) {
        const struct option_row *row = &option_rows[i];
        const char *text = row->environment ? getenv(row->environment) : NULL;
        if (text && *text && !*member_of(options, row))
            *member_of(options, row) = text;
    }
}

/* "~/x" as the shell would have it. It stays until the process ends, like all values. */
static const char *expand(const char *value) {
    static char *made[8];
    static size_t n;
    const char *home = getenv("HOME");
    if (strncmp(value, "~/", 2) || !home || n == sizeof made / sizeof *made)
        return value;
    return asprintf(&made[n], "%s%s", home, value + 1) < 0 ? value : made[n++];
}

static char *trim(char *text) {
    text += strspn(text, " \t\r");
    for (size_t n = strlen(text); n > 0 && strchr(" \t\r", text[n - 1]); n--)
        text[n - 1] = '\0';
    return text;
}

/* Only what neither the command line nor the environment has said. */
static int read_line(struct options *options, const char *name, int number, char *line) {
    char *equals = strchr(line, '='), option[64];
    line = trim(line);
    if (!*line || *line == '#')
        return EXIT_OK;
    if (!equals || equals == line)
        return complain(EXIT_USAGE, "%s, line %d: must be key = value, got '%s'", name, number,
                        line);
    *equals = '\0';
    const char *key = trim(line), *value = trim(equals + 1);
    snprintf(option, sizeof option, "--%s", key);
    const struct option_row *row = find_option(option, strlen(option));
    if (!row || !(row->bit & OPTIONS_EVERYWHERE) || !row->argument)
        return complain(EXIT_USAGE, "%s, line %d: there is no setting '%s'; see 'ovrctl help'",
                        name, number, key);
    if (!row->accepts(value))
        return complain(EXIT_USAGE, "%s, line %d: %s wants %s", name, number, key, row->wants);
    if (!*member_of(options, row))
        *member_of(options, row) = expand(value);
    return EXIT_OK;
}

/* The texts stay where they are until the process ends. */
static int read_file(struct options *options, const char *name) {
    static char text[FILE_MAX];
    FILE *file = fopen(name, "re");
    if (!file && (errno == ENOENT || errno == ENOTDIR))
        return EXIT_OK;
    size_t n = file ? fread(text, 1, sizeof text - 1, file) : 0;
    bool failed = !file || ferror(file);
    int why = errno;
    if (file)
        fclose(file);
    if (failed)
        return complain(EXIT_USAGE, "cannot read %s: %s", name, strerror(why));
    if (n == sizeof text - 1 || strlen(text) != n)
        return complain(EXIT_USAGE, "%s is not a text of less than 64 KiB", name);
    char *rest = text, *line;
    for (int number = 1, code; (line = strsep(&rest, "\n")); number++)
        if ((code = read_line(options, name, number, line)))
            return code;
    return EXIT_OK;
}

int read_settings(struct options *options) {
    struct buf name = {0};
    const char *config = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
    const char *token = getenv("OVRD_TOKEN");
    bool said = options->token_file;
    int code = EXIT_OK;
    read_environment(options);
    if (config && *config)
        buf_addf(&name, "%s/ovrd/config", config);
    else if (home && *home)
        buf_addf(&name, "%s/.config/ovrd/config", home);
    if (name.failed)
        code = complain(EXIT_USAGE, "not enough memory");
    else if (name.data)
        code = read_file(options, name.data);
    buf_release(&name);
    if (!said && token && *token)
        options->token_file = NULL; /* the token itself wins over where one may be */
    if (!options->host)
        options->host = DEFAULT_HOST;
    return code;
}
