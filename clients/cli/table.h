/* The tables of options and commands (main.c). Dispatch, help, completion and the manual page all
 * come from them, so that none of these can know less than the others. */
#ifndef CLI_TABLE_H
#define CLI_TABLE_H

#include "clients/cli/cli.h"

#include <stddef.h>
#include <stdint.h>

#define DEFAULT_HOST "http://127.0.0.1:8080"

enum option_bit {
    OPTION_HOST = 1 << 0,
    OPTION_COMMON = 1 << 1, /* others that all have */
    OPTION_WATCH = 1 << 2,
    OPTION_DRY_RUN = 1 << 3,
    OPTION_STATE = 1 << 4,
    OPTION_TAG = 1 << 5,
    OPTION_NAME = 1 << 6,
    OPTION_LIMIT = 1 << 7,
    OPTION_EPOCH = 1 << 8,
    OPTION_FORMAT = 1 << 9,
    OPTION_ROWS = 1 << 10,
    OPTION_OUTPUT = 1 << 11,
    OPTION_SORT = 1 << 12,
    OPTION_DEAD = 1 << 13,
    OPTION_LAYER = 1 << 14,
    OPTION_SWEEP = 1 << 15,
    OPTION_CSV = 1 << 16,
    OPTION_CANCEL = 1 << 17,
    OPTION_QUICK = 1 << 18,
    OPTION_OUT = 1 << 19,
    OPTION_EXAMPLES = 1 << 20,
    OPTION_AGAIN = 1 << 21,
    OPTION_LABEL = 1 << 22,
    OPTION_HEADER = 1 << 23,
    OPTION_OLDER = 1 << 24,
    OPTION_OWNER = 1 << 25,
    OPTION_REMOVE = 1 << 26,
    OPTION_SINCE = 1 << 27,
    OPTION_ROLE = 1 << 28,
    OPTION_SCOPE = 1 << 29,
    OPTION_EXPIRES = 1 << 30,
    OPTIONS_EVERYWHERE = OPTION_HOST | OPTION_COMMON,
};

/* An option fills one member of struct options: a flag where it has no argument, else a text. */
struct option_row {
    uint64_t bit;
    const char *name;      /* with its dashes */
    const char *shorthand; /* another spelling, or NULL */
    const char *argument;  /* NULL: a flag */
    size_t offset;
    bool (*accepts)(const char *text);
    const char *wants; /* what `accepts` accepts */
    const char *help;
    const char *environment; /* the variable that it comes from where it is not given; or NULL */
};

struct command {
    const char *name, *arguments, *help;
    int min_args, max_args;
    uint64_t options; /* besides those that all have */
    int (*run)(struct cli *cli);
};

extern const struct option_row option_rows[];
extern const int n_options;
extern const struct command commands[];
extern const int n_commands;

/* The option of that name, n bytes long; NULL where there is none. */
const struct option_row *find_option(const char *text, size_t n);

extern const char *const exit_codes[]; /* what each means (help.c) */
extern const int n_exit_codes;

/* help.c: the whole help, or one command's with the options it takes. */
void print_help(const struct command *only);

/* complete.c: the script for a shell, and the candidates for the last of the words, which may be
 * empty. Both return an exit code. */
int print_completion(const char *shell);
int complete_words(struct options *options, char **words);

void print_manual(void); /* man.c */

/* config.c: fills what ~/.config/ovrd/config and the environment say. Returns an exit code. */
int read_settings(struct options *options);

#endif
