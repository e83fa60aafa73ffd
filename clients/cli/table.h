/* The tables of options and commands (main.c). Dispatch, help, completion and the manual page all
 * come from them, so that none of these can know less than the others. */
#ifndef CLI_TABLE_H
#define CLI_TABLE_H

#include "clients/cli/cli.h"

#include <stddef.h>
#include <stdint.h>

#define DEFAULT_HOST "http://127.0.0.1:8080"

/* Which options a command takes, a bit each; more than an enum has room for. */
#define OPTION_HOST (UINT64_C(1) << 0)
#define OPTION_COMMON (UINT64_C(1) << 1) /* others that all have */
#define OPTION_WATCH (UINT64_C(1) << 2)
#define OPTION_DRY_RUN (UINT64_C(1) << 3)
#define OPTION_STATE (UINT64_C(1) << 4)
#define OPTION_TAG (UINT64_C(1) << 5)
#define OPTION_NAME (UINT64_C(1) << 6)
#define OPTION_LIMIT (UINT64_C(1) << 7)
#define OPTION_EPOCH (UINT64_C(1) << 8)
#define OPTION_FORMAT (UINT64_C(1) << 9)
#define OPTION_ROWS (UINT64_C(1) << 10)
#define OPTION_OUTPUT (UINT64_C(1) << 11)
#define OPTION_SORT (UINT64_C(1) << 12)
#define OPTION_DEAD (UINT64_C(1) << 13)
#define OPTION_LAYER (UINT64_C(1) << 14)
#define OPTION_SWEEP (UINT64_C(1) << 15)
#define OPTION_CSV (UINT64_C(1) << 16)
#define OPTION_CANCEL (UINT64_C(1) << 17)
#define OPTION_QUICK (UINT64_C(1) << 18)
#define OPTION_OUT (UINT64_C(1) << 19)
#define OPTION_EXAMPLES (UINT64_C(1) << 20)
#define OPTION_AGAIN (UINT64_C(1) << 21)
#define OPTION_LABEL (UINT64_C(1) << 22)
#define OPTION_HEADER (UINT64_C(1) << 23)
#define OPTION_OLDER (UINT64_C(1) << 24)
#define OPTION_OWNER (UINT64_C(1) << 25)
#define OPTION_REMOVE (UINT64_C(1) << 26)
#define OPTION_SINCE (UINT64_C(1) << 27)
#define OPTION_ROLE (UINT64_C(1) << 28)
#define OPTION_SCOPE (UINT64_C(1) << 29)
#define OPTION_EXPIRES (UINT64_C(1) << 30)
#define OPTION_BINS (UINT64_C(1) << 31)
#define OPTION_SPLIT (UINT64_C(1) << 32)
#define OPTION_FROM (UINT64_C(1) << 33)
#define OPTION_POINTS (UINT64_C(1) << 34)
#define OPTIONS_EVERYWHERE (OPTION_HOST | OPTION_COMMON)

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
