/* The command line: one table of options, one table of commands; dispatch and help both come from
 * them. */
#include "clients/cli/http.h"
#include "clients/cli/table.h"
#include "clients/cli/text.h"
#include "clients/cli/token.h"

#include <errno.h>
#include <locale.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_number(const char *text) {
    size_t n = strspn(text, "0123456789");
    return n > 0 && n <= 9 && !text[n];
}

static bool is_epoch(const char *text) {
    return is_number(text) || !strcmp(text, "best") || !strcmp(text, "last");
}

static bool is_limit(const char *text) {
    return is_number(text) && atoi(text) >= 1 && atoi(text) <= 500;
}

static bool is_row_range(const char *text) {
    size_t n = strspn(text, "0123456789");
    return n > 0 && text[n] == ':' && is_number(text + n + 1);
}

static bool is_not_empty(const char *text) {
    return *text != '\0';
}

const struct option_row option_rows[] = {
    {OPTION_HOST, "--host", NULL, "URL", offsetof(struct options, host), is_not_empty, "a URL",
     "the daemon (default: " DEFAULT_HOST ")", "OVRD_URL"},
    {OPTION_COMMON, "--ca-file", NULL, "FILE", offsetof(struct options, ca_file), is_not_empty,
     "a file name", "certificates to trust for https (default: the system's)", "OVRD_CA_FILE"},
    {OPTION_COMMON, "--token-file", NULL, "FILE", offsetof(struct options, token_file),
     is_not_empty, "a file name",
     "your token (default: $OVRD_TOKEN, else the file ~/.config/ovrd/token); chmod 600 it",
     "OVRD_TOKEN_FILE"},
    {OPTION_COMMON, "--json", NULL, NULL, offsetof(struct options, json), NULL, NULL,
     "print the server's JSON as it is; errors go to stderr; watch prints the end only"},
    {OPTION_WATCH, "--watch", NULL, NULL, offsetof(struct options, watch), NULL, NULL,
     "stay and watch it to its end"},
    {OPTION_DRY_RUN, "--dry-run", NULL, NULL, offsetof(struct options, dry_run), NULL, NULL,
     "check and estimate the cost; store nothing"},
    {OPTION_STATE, "--state", NULL, "STATE", offsetof(struct options, state), is_not_empty,
     "a state", "queued, running, succeeded, failed or cancelled"},
    {OPTION_TAG, "--tag", NULL, "TAG", offsetof(struct options, tag), is_not_empty, "a tag",
     "only with this tag"},
    {OPTION_NAME, "--name", NULL, "PREFIX", offsetof(struct options, name), is_not_empty,
     "the start of a name", "only names that start like this"},
    {OPTION_SWEEP, "--sweep", NULL, "ID", offsetof(struct options, sweep), is_not_empty, "an id",
     "only those of this sweep"},
    {OPTION_CSV, "--csv", NULL, NULL, offsetof(struct options, csv), NULL, NULL,
     "the whole table as CSV, a line for each experiment"},
    {OPTION_SINCE, "--since", NULL, "TIME", offsetof(struct options, since), is_not_empty, "a time",
     "only those created after this, such as 2026-11-24 or 2026-11-24T09:30:00Z"},
    {OPTION_REMOVE, "--remove", NULL, NULL, offsetof(struct options, remove), NULL, NULL,
     "remove it"},
    {OPTION_CANCEL, "--cancel", NULL, NULL, offsetof(struct options, cancel), NULL, NULL,
     "cancel what has not ended"},
    {OPTION_LIMIT, "--limit", NULL, "N", offsetof(struct options, limit), is_limit,
     "a number from 1 to 500", "at most so many (default 50, at most 500)"},
    {OPTION_EPOCH, "--epoch", NULL, "N", offsetof(struct options, epoch), is_epoch,
     "a number, best or last",
     "after this epoch; of weights: best or last (default: the best one)"},
    {OPTION_FORMAT, "--format", NULL, "FORMAT", offsetof(struct options, format), is_not_empty,
     "a format",
     "of a tensor, codes or classes: json or npy (default: npy where FILE ends in .npy, else\n"
     "json);\n"
     "of an upload: cifar10, csv, idx or npy (default: by the name of FILE, else cifar10);\n"
     "of metrics: csv, with every figure"},
    {OPTION_LABEL, "--label", NULL, "COLUMN", offsetof(struct options, label), is_not_empty,
     "a column",
     "of a csv upload: where the labels are; a name, a number from 0, or last;\n"
     "of a token: what it is for"},
    {OPTION_HEADER, "--header", NULL, "true|false", offsetof(struct options, header), is_not_empty,
     "true or false",
     "of a csv upload: is the first line one of names? (default: found out by its values)"},
    {OPTION_ROWS, "--rows", NULL, "A:B", offsetof(struct options, rows), is_row_range,
     "two numbers like 0:64", "rows A to B-1 of the tensor, or units of the filters, only"},
    {OPTION_OUTPUT, "--output", "-o", "FILE", offsetof(struct options, output), is_not_empty,
     "a file name", "write the answer there, whole or not at all"},
    {OPTION_SORT, "--sort", NULL, "FIGURE", offsetof(struct options, sort), is_not_empty,
     "a figure such as firing_rate, or -firing_rate",
     "by this column, smallest first; with a minus (--sort=-mean) largest first;\n"
     "of a list: created, finished or a figure such as result.accuracy"},
    {OPTION_DEAD, "--dead", NULL, NULL, offsetof(struct options, dead), NULL, NULL,
     "only units that answer to no sample"},
    {OPTION_LAYER, "--layer", NULL, "N", offsetof(struct options, layer), is_number, "a number",
     "of this hidden layer, from 0 on (default: the last)"},
    {OPTION_BINS, "--bins", NULL, "N", offsetof(struct options, bins), is_number, "a number",
     "at most so many bins, merged (default: all 58); 0.1 stays an edge"},
    {OPTION_SPLIT, "--split", NULL, "SPLIT", offsetof(struct options, split), is_not_empty,
     "a split", "of this split: validation or test (default: the one that was measured)"},
    {OPTION_FROM, "--from", NULL, "N", offsetof(struct options, from), is_number, "a number",
     "from this epoch on"},
    {OPTION_POINTS, "--max-points", NULL, "N", offsetof(struct options, max_points), is_number,
     "a number", "at most so many epochs; others are left out, evenly"},
    {OPTION_QUICK, "--quick", NULL, NULL, offsetof(struct options, quick), NULL, NULL,
     "fewer points, samples, units and epochs: minutes on two cores"},
    {OPTION_OUT, "--out", NULL, "DIR", offsetof(struct options, out), is_not_empty, "a directory",
     "where the report goes (default: ovrd-report)"},
    {OPTION_EXAMPLES, "--examples", NULL, "DIR", offsetof(struct options, examples), is_not_empty,
     "a directory", "where the examples are (default: those ovrctl came with)"},
    {OPTION_OLDER, "--older-than", NULL, "AGE", offsetof(struct options, older_than), is_not_empty,
     "an age like 30d", "that ended longer ago than this: 30d, 12h, 90m"},
    {OPTION_OWNER, "--owner", NULL, "NAME", offsetof(struct options, owner), is_not_empty,
     "a user's name", "only what this user owns; me: what is yours"},
    {OPTION_ROLE, "--role", NULL, "ROLE", offsetof(struct options, role), is_not_empty, "a role",
     "viewer (reads), member (and changes what is hers) or admin"},
    {OPTION_SCOPE, "--scope", NULL, "SCOPE", offsetof(struct options, scope), is_not_empty,
     "a scope", "of a token: read, write or admin (default: as the role)"},
    {OPTION_EXPIRES, "--expires", NULL, "TIME", offsetof(struct options, expires), is_not_empty,
     "a time", "when the token ends, such as 2027-11-24T00:00:00Z (default: never)"},
    {OPTION_AGAIN, "--again", NULL, NULL, offsetof(struct options, again), NULL, NULL,
     "run anew what the daemon has run already"},
};

const struct command commands[] = {
    {"submit", "FILE|-", "queue an experiment, or a sweep (it has a base); prints the id", 1, 1,
     OPTION_WATCH | OPTION_DRY_RUN, command_submit},
    {"list", "", "experiments, newest first", 0, 0,
     OPTION_STATE | OPTION_TAG | OPTION_NAME | OPTION_SWEEP | OPTION_OWNER | OPTION_SINCE |
         OPTION_SORT | OPTION_LIMIT,
     command_list},
    {"show", "ID", "one experiment", 1, 1, 0, command_show},
    {"queue", "", "what runs, what waits, in which order and why", 0, 0, OPTION_LIMIT,
     command_queue},
    {"watch", "ID", "its progress, live, until it ends", 1, 1, 0, command_watch},
    {"log", "ID", "what happened to it, line by line", 1, 1, 0, command_log},
    {"events", "ID", "its events as they come, as Server-Sent Events", 1, 1, 0, command_events},
    {"metrics", "ID", "its figures, epoch by epoch", 1, 1,
     OPTION_FORMAT | OPTION_FROM | OPTION_POINTS, command_metrics},
    {"histogram", "ID", "its activations as a histogram", 1, 1,
     OPTION_EPOCH | OPTION_LAYER | OPTION_SPLIT | OPTION_BINS, command_histogram},
    {"histograms", "ID", "the same after every epoch, in short", 1, 1,
     OPTION_LAYER | OPTION_FROM | OPTION_POINTS, command_histograms},
    {"compare", "A B",
     "how far the activations of two are apart; ID:3 means after epoch 3, ID alone the best", 2, 2,
     OPTION_LAYER, command_compare},
    {"units", "ID", "what each hidden unit does", 1, 1,
     OPTION_SORT | OPTION_DEAD | OPTION_LAYER | OPTION_LIMIT, command_units},
    {"tiling", "ID", "on the sphere: which unit answers in which cell", 1, 1, OPTION_LAYER,
     command_tiling},
    {"weights", "ID [TENSOR]", "its tensors, or the values of one", 1, 2,
     OPTION_EPOCH | OPTION_FORMAT | OPTION_ROWS | OPTION_OUTPUT, command_weights},
    {"encode", "ID FILE|-",
     "the codes of samples: JSON or npy as the server takes it, or the experiment's own split,\n"
     "      train or test",
     2, 2, OPTION_FORMAT | OPTION_OUTPUT, command_encode},
    {"predict", "ID FILE|-", "their classes, likewise", 2, 2, OPTION_FORMAT | OPTION_OUTPUT,
     command_predict},
    {"model", "ID", "the whole model as safetensors", 1, 1, OPTION_OUTPUT, command_model},
    {"filters", "ID", "what its units look for, as a PNG", 1, 1, OPTION_ROWS | OPTION_OUTPUT,
     command_filters},
    {"pause", "ID", "stop it at its next step; it goes on from there", 1, 1, 0, command_pause},
    {"resume", "ID", "let a paused one go on", 1, 1, 0, command_resume},
    {"cancel", "ID", "stop it at its next step, for good", 1, 1, 0, command_cancel},
    {"edit", "ID JSON",
     "change name, tags, notes, priority or private: edit ID '{\"name\": \"better\"}'", 2, 2, 0,
     command_edit},
    {"delete", "ID", "delete it and its files; it must have ended", 1, 1, 0, command_delete},
    {"rerun", "ID [JSON]", "run its spec again, changed by a patch; prints the new id", 1, 2,
     OPTION_WATCH, command_rerun},
    {"replay", "ID", "run it again and compare bit for bit; prints the new id", 1, 1, OPTION_WATCH,
     command_replay},
    {"prune", "",
     "delete those that ended long ago, and say what that frees; the tag keep saves one", 0, 0,
     OPTION_OLDER | OPTION_STATE | OPTION_TAG | OPTION_DRY_RUN, command_prune},
    {"sweeps", "", "sweeps, newest first", 0, 0, OPTION_OWNER | OPTION_LIMIT, command_sweeps},
    {"sweep", "ID", "the table of its points", 1, 1, OPTION_CSV | OPTION_WATCH | OPTION_CANCEL,
     command_sweep},
    {"upload", "NAME SPLIT FILE|- [LABELS]",
     "send a data set's split, train or test; idx and npy have their labels in a second file", 3, 4,
     OPTION_FORMAT | OPTION_LABEL | OPTION_HEADER, command_upload},
    {"reproduce", "[ID...]",
     "run the paper's experiments, or those named, and write a report: what the paper claims,\n"
     "      what was measured, whether it holds",
     0, 64, OPTION_QUICK | OPTION_OUT | OPTION_EXAMPLES | OPTION_AGAIN | OPTION_DRY_RUN,
     command_reproduce},
    {"backup", "", "a copy of everything into the server's data directory", 0, 0, 0,
     command_backup},
    {"datasets", "", "the data sets on the server", 0, 0, 0, command_datasets},
    {"whoami", "", "whose token this is, and what it may do", 0, 0, 0, command_whoami},
    {"user", "list|add|edit|remove [NAME] [JSON]",
     "people, for admins: add NAME --role ROLE prints her first token; edit NAME JSON changes\n"
     "      role, quotas and disabled: edit anna '{\"quotas\": {\"queued\": 200}}'",
     1, 3, OPTION_ROLE, command_user},
    {"token", "list|add|revoke NAME [ID]", "a user's tokens; add prints the new one, once", 2, 3,
     OPTION_LABEL | OPTION_SCOPE | OPTION_EXPIRES, command_token},
    {"audit", "[OBJECT]", "who changed what, newest first; of one experiment, sweep, user, …", 0, 1,
     OPTION_LIMIT, command_audit},
    {"dataset", "NAME", "one of them: its splits, classes and values", 1, 1, OPTION_REMOVE,
     command_dataset},
    {"preview", "NAME [SPLIT]", "its first samples; into a FILE.png as pictures", 1, 2,
     OPTION_ROWS | OPTION_OUTPUT, command_preview},
    {"schema", "", "JSON Schema of a spec", 0, 0, OPTION_OUTPUT, command_schema},
    {"get", "PATH", "what the server answers to a GET, as it is: get /metrics", 1, 1, OPTION_OUTPUT,
     command_get},
    {"version", "", "of ovrctl and of the server", 0, 0, 0, command_version},
    {"completion", "bash|zsh|fish", "a script for the shell: source <(ovrctl completion bash)", 1,
     1, 0, command_completion},
    {"manual", "", "the manual page: man -l <(ovrctl manual)", 0, 0, 0, command_manual},
};

const int n_options = sizeof option_rows / sizeof *option_rows;
const int n_commands = sizeof commands / sizeof *commands;

int complain(int code, const char *format, ...) {
    va_list args;
    va_start(args, format);
    fputs("ovrctl: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    return code;
}

static const struct command *find_command(const char *name) {
    for (int i = 0; i < n_commands; i++)
        if (!strcmp(commands[i].name, name))
            return &commands[i];
    complain(EXIT_USAGE, "there is no command '%s'; 'ovrctl help' lists them", name);
    return NULL;
}

const struct option_row *find_option(const char *text, size_t n) {
    for (int i = 0; i < n_options; i++) {
        const struct option_row *row = &option_rows[i];
        if ((strlen(row->name) == n && !strncmp(row->name, text, n)) ||
            (row->shorthand && strlen(row->shorthand) == n && !strncmp(row->shorthand, text, n)))
            return row;
    }
    return NULL;
}

/* Takes the option at argv[*at], and its argument: "--limit 3" or "--limit=3". Moves *at to the
 * last word used. Adds the option's bit to *used. */
static int take_option(char **argv, int *at, struct options *options, uint64_t *used) {
    const char *text = argv[*at], *value = strchr(text, '=');
    size_t n = value ? (size_t)(value - text) : strlen(text);
    const struct option_row *row = find_option(text, n);
    if (!row)
        return complain(EXIT_USAGE, "there is no option '%.*s'; 'ovrctl help' lists them", (int)n,
                        text);
    char *member = (char *)options + row->offset;
    *used |= row->bit;
    if (!row->argument) {
        if (value)
            return complain(EXIT_USAGE, "%s takes no argument", row->name);
        *(bool *)member = true;
        return EXIT_OK;
    }
    value = value ? value + 1 : argv[++*at];
    if (!value || !row->accepts(value))
        return complain(EXIT_USAGE, "%s wants %s%s%s", row->name, row->wants, value ? ", got " : "",
                        value ? value : "");
    *(const char **)member = value;
    return EXIT_OK;
}

/* Sorts the words of the command line into options and the rest, which it moves to the front of
 * `argv`. After "--" everything is rest; "-" alone is a file. */
static int sort_words(char **argv, struct options *options, uint64_t *used, int *n_rest) {
    bool options_over = false;
    *n_rest = 0;
    for (int i = 0; argv[i]; i++) {
        if (!options_over && !strcmp(argv[i], "--")) {
            options_over = true;
        } else if (!options_over && (!strcmp(argv[i], "-h") || !strcmp(argv[i], "--help"))) {
            static char help[] = "help";
            argv[0] = help; /* whatever else there is */
            *n_rest = 1;
            break;
        } else if (!options_over && argv[i][0] == '-' && argv[i][1]) {
            int code = take_option(argv, &i, options, used);
            if (code)
                return code;
        } else {
            argv[(*n_rest)++] = argv[i];
        }
    }
    argv[*n_rest] = NULL;
    return EXIT_OK;
}

/* Everything about the words after the command that can be wrong without asking the server. */
static int check_usage(const struct command *command, char **args, int n_args, uint64_t used) {
    uint64_t alien = used & ~(command->options | OPTIONS_EVERYWHERE);
    for (int i = 0; i < n_options; i++)
        if (alien & option_rows[i].bit)
            return complain(EXIT_USAGE, "'%s' has no option %s; see 'ovrctl help %s'",
                            command->name, option_rows[i].name, command->name);
    if (n_args < command->min_args || n_args > command->max_args)
        return complain(EXIT_USAGE, "usage: ovrctl %s %s; see 'ovrctl help %s'", command->name,
                        command->arguments, command->name);
    /* An empty id would turn one experiment's address into the list's. */
    for (int i = 0; i < n_args; i++)
        if (!*args[i])
            return complain(EXIT_USAGE, "argument %d of '%s' is empty", i + 1, command->name);
    return EXIT_OK;
}

static int run_command(const struct command *command, struct cli *cli) {
    const char *trouble;
    char token[TOKEN_ROOM];
    int code = token_find(cli->options.token_file, token);
    if (code)
        return code;
    if (http_open(&cli->http, cli->options.host, cli->options.ca_file, &trouble))
        return complain(EXIT_USAGE, "%s: %s", cli->options.host, trouble);
    http_identify(cli->http, token);
    code = command->run(cli);
    http_close(cli->http);
    return code;
}

static int run(char **argv) {
    struct options options = {0};
    uint64_t used = 0;
    int n_rest;
    int code = sort_words(argv, &options, &used, &n_rest);
    if (code)
        return code;
    if (!n_rest) {
        print_help(NULL);
        return EXIT_USAGE;
    }
    if (!strcmp(argv[0], "help")) {
        const struct command *only = n_rest > 1 ? find_command(argv[1]) : NULL;
        if (n_rest > 1 && !only)
            return EXIT_USAGE;
        print_help(only);
        return EXIT_OK;
    }
    bool completes = !strcmp(argv[0], "complete");
    const struct command *command = completes ? NULL : find_command(argv[0]);
    if (!command && !completes)
        return EXIT_USAGE;
    if (command)
        code = check_usage(command, argv + 1, n_rest - 1, used);
    if (code)
        return code;
    if (!code)
        code = read_settings(&options);
    if (code)
        return code;
    if (completes)
        return complete_words(&options, argv + 1);
    struct cli cli = {.options = options, .args = argv + 1};
    return run_command(command, &cli);
}

int main(int argc, char **argv) {
    /* For the character set of the terminal only: the numbers in JSON need the C locale. */
    setlocale(LC_CTYPE, "");
    int code = argc > 0 ? run(argv + 1) : EXIT_USAGE;
    if ((fflush(stdout) || ferror(stdout)) && !code)
        return complain(EXIT_USAGE, "cannot write the output: %s", strerror(errno));
    return code;
}
