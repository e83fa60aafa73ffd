/* The manual page, ovrctl(1), from the tables. */
#include "clients/cli/table.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

/* As it is, for troff; white space, which the help uses to break lines, becomes single blanks. */
static void put(const char *text) {
    bool blank = false;
    for (; *text; text++) {
        if (isspace((unsigned char)*text)) {
            blank = true;
            continue;
        }
        if (blank)
            putchar(' ');
        blank = false;
        if (*text == '\\')
            fputs("\\e", stdout);
        else if (*text == '-')
            fputs("\\-", stdout);
        else if (*text == '\'')
            fputs("\\(aq", stdout);
        else
            putchar(*text);
    }
}

static void put_bold(const char *text) {
    fputs("\\fB", stdout);
    put(text);
    fputs("\\fR", stdout);
}

static void put_option(const struct option_row *row) {
    if (row->shorthand) {
        put_bold(row->shorthand);
        fputs(", ", stdout);
    }
    put_bold(row->name);
    if (row->argument) {
        fputs(" \\fI", stdout);
        put(row->argument);
        fputs("\\fR", stdout);
    }
}

static void put_commands(void) {
    printf(".SH COMMANDS\n");
    for (int i = 0; i < n_commands; i++) {
        const struct command *command = &commands[i];
        printf(".TP\n");
        put_bold(command->name);
        fputs(" \\fI", stdout);
        put(command->arguments);
        fputs("\\fR", stdout);
        for (int o = 0; o < n_options; o++) {
            if (!(command->options & option_rows[o].bit))
                continue;
            fputs(" [", stdout);
            put_option(&option_rows[o]);
            putchar(']');
        }
        putchar('\n');
        put(command->help);
        printf(".\n");
    }
}

static void put_options(void) {
    printf(".SH OPTIONS\n");
    for (int i = 0; i < n_options; i++) {
        printf(".TP\n");
        put_option(&option_rows[i]);
        putchar('\n');
        put(option_rows[i].help);
        printf(".\n");
    }
}

static void put_surroundings(void) {
    printf(".SH ENVIRONMENT\nWhat is not given as an option.\n");
    for (int i = 0; i < n_options; i++)
        if (option_rows[i].environment)
            printf(".TP\n.B %s\n%s.\n", option_rows[i].environment, option_rows[i].name);
    printf(".SH FILES\n.TP\n.I ~/.config/ovrd/config\n"
           "What neither options nor environment say: lines of \\fIkey\\fR = \\fIvalue\\fR; # "
           "begins a "
           "comment. The keys are\n");
    for (int i = 0; i < n_options; i++)
        if ((option_rows[i].bit & OPTIONS_EVERYWHERE) && option_rows[i].argument)
            printf("\\fB%s\\fR\n", option_rows[i].name + 2);
    printf(".\n$XDG_CONFIG_HOME replaces ~/.config.\n.SH EXIT STATUS\n");
    for (int i = 0; i < n_exit_codes; i++) {
        printf(".TP\n.B %d\n", i);
        put(exit_codes[i]);
        printf(".\n");
    }
}

void print_manual(void) {
    printf(".TH OVRCTL 1 \"\" \"ovrd %s\" \"User Commands\"\n.SH NAME\n"
           "ovrctl \\- submit, watch and read experiments of an ovrd\n.SH SYNOPSIS\n"
           ".B ovrctl\n.I COMMAND\n[\\fIARGUMENTS\\fR] [\\fIOPTIONS\\fR]\n.SH DESCRIPTION\n"
           "Speaks to an\n.BR ovrd (8),\na network training service for sparse representation "
           "learning, over HTTP. Results go to standard output, trouble to standard error.\n",
           OVRD_VERSION);
    put_commands();
    put_options();
    put_surroundings();
    printf(".SH EXAMPLES\n.nf\nid=$(ovrctl submit spec.json)\novrctl watch $id\n"
           "ovrctl weights $id encoder.weight \\-o w.npy\n.fi\n.SH SEE ALSO\n.BR ovrd (8)\n");
}
