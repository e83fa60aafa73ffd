/* --help: what the tables say, for a person at a terminal. */
#include "clients/cli/table.h"

#include <stdio.h>
#include <string.h>

const char *const exit_codes[] = {
    "done",
    "the experiment or sweep failed or was cancelled (watch, --watch), or not all\n"
    "could be run (reproduce)",
    "bad usage, or a local file could not be read or written",
    "the server refused, or its answer made no sense",
    "the server could not be reached",
};
const int n_exit_codes = sizeof exit_codes / sizeof *exit_codes;

/* A text may go over several lines; the later ones are set below the first. */
static void print_item(int width, const char *left, const char *text) {
    for (;;) {
        int n = (int)strcspn(text, "\n");
        printf("  %-*s %.*s\n", width, left, n, text);
        if (!text[n])
            return;
        text += n + 1;
        left = "";
    }
}

static void print_option(const struct option_row *row) {
    char left[40];
    snprintf(left, sizeof left, "%s%s%s%s%s", row->shorthand ? row->shorthand : "",
             row->shorthand ? ", " : "", row->name, row->argument ? " " : "",
             row->argument ? row->argument : "");
    print_item(19, left, row->help);
    if (row->environment)
        printf("  %-19s environment %s\n", "", row->environment);
}

static void print_command_usage(const struct command *command) {
    printf("  ovrctl %s%s%s", command->name, *command->arguments ? " " : "", command->arguments);
    for (int i = 0; i < n_options; i++) {
        const struct option_row *row = &option_rows[i];
        if (command->options & row->bit)
            printf(" [%s%s%s]", row->shorthand ? row->shorthand : row->name,
                   row->argument ? " " : "", row->argument ? row->argument : "");
    }
    printf("\n      %s\n", command->help);
}

void print_help(const struct command *only) {
    printf("usage: ovrctl COMMAND [ARGUMENTS] [OPTIONS]\n\n");
    for (int i = 0; i < n_commands; i++)
        if (!only || only == &commands[i])
            print_command_usage(&commands[i]);
    if (!only)
        printf("  ovrctl help [COMMAND]\n      this, or what concerns one command\n");
    printf("\noptions:\n");
    for (int i = 0; i < n_options; i++)
        if (!only || ((only->options | OPTIONS_EVERYWHERE) & option_rows[i].bit))
            print_option(&option_rows[i]);
    if (!only)
        printf("\nWhat is not given comes from the environment, then from ~/.config/ovrd/config, "
               "lines\n"
               "of `key = value`, the keys being the options for every command, without dashes.\n");
    printf("\nexit codes:\n");
    for (int i = 0; i < n_exit_codes; i++)
        print_item(2, (char[]){(char)('0' + i), '\0'}, exit_codes[i]);
}
