/* Completion for shells: the scripts ask back, `ovrctl complete -- WORDS`, and get a line for each
 * candidate: the word, a tab, what it is. ":files" asks the shell for names of files. */
#include "clients/cli/http.h"
#include "clients/cli/table.h"
#include "clients/cli/text.h"
#include "clients/cli/token.h"
#include "clients/cli/value.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *shell, *script;
} scripts[] = {
    {"bash", "_ovrctl() {\n"
             "    local line\n"
             "    COMPREPLY=()\n"
             "    while IFS= read -r line; do\n"
             "        if [ \"$line\" = :files ]; then\n"
             "            compopt -o default\n"
             "        else\n"
             "            COMPREPLY+=(\"${line%%$'\\t'*}\")\n"
             "        fi\n"
             "    done < <(\"${COMP_WORDS[0]}\" complete -- \"${COMP_WORDS[@]:1:COMP_CWORD}\" "
             "2>/dev/null)\n"
             "}\n"
             "complete -F _ovrctl ovrctl\n"},
    {"zsh", "#compdef ovrctl\n"
            "_ovrctl() {\n"
            "    local line\n"
            "    local -a found\n"
            "    while IFS= read -r line; do\n"
            "        if [[ $line == :files ]]; then\n"
            "            _files\n"
            "            return\n"
            "        fi\n"
            "        found+=(\"${${line%%$'\\t'*}//:/\\\\:}:${line#*$'\\t'}\")\n"
            "    done < <(${words[1]} complete -- \"${(@)words[2,CURRENT]}\" 2>/dev/null)\n"
            "    _describe ovrctl found\n"
            "}\n"
            "if [[ ${funcstack[1]} == _ovrctl ]]; then\n"
            "    _ovrctl \"$@\"\n"
            "else\n"
            "    compdef _ovrctl ovrctl\n"
            "fi\n"},
    {"fish", "function __ovrctl_complete\n"
             "    set -l words (commandline -opc) (commandline -ct)\n"
             "    for line in (ovrctl complete -- $words[2..-1] 2>/dev/null)\n"
             "        if test \"$line\" = :files\n"
             "            __fish_complete_path (commandline -ct)\n"
             "        else\n"
             "            echo $line\n"
             "        end\n"
             "    end\n"
             "end\n"
             "complete -c ovrctl -f -a '(__ovrctl_complete)'\n"},
};

int print_completion(const char *shell) {
    for (size_t i = 0; i < sizeof scripts / sizeof *scripts; i++)
        if (!strcmp(scripts[i].shell, shell)) {
            fputs(scripts[i].script, stdout);
            return EXIT_OK;
        }
    return complain(EXIT_USAGE, "completion is for bash, zsh or fish, got %s", shell);
}

/* What is being completed: the words before, and the start of the one at the cursor. */
struct line {
    const struct command *command;     /* NULL: not yet said */
    const struct option_row *argument; /* the cursor is at this option's argument; or NULL */
    int n_args;                        /* of the command, before the cursor */
    const char *start;
    const char *host; /* said on the line, or NULL */
};

static struct line read_words(char **words) {
    struct line line = {.start = ""};
    for (; *words; words++) {
        line.start = *words;
        if (!words[1])
            break;
        const char *word = *words;
        if (line.argument) {
            line.host = line.argument->bit == OPTION_HOST ? word : line.host;
            line.argument = NULL;
        } else if (*word == '-' && word[1]) {
            const struct option_row *row = find_option(word, strlen(word));
            line.argument = row && row->argument ? row : NULL;
        } else if (line.command) {
            line.n_args++;
        } else {
            for (int i = 0; i < n_commands; i++)
                if (!strcmp(commands[i].name, word))
                    line.command = &commands[i];
        }
    }
    return line;
}

static void offer(const struct line *line, const char *word, size_t n, const char *what) {
    if (strncmp(word, line->start, strlen(line->start)) || strlen(line->start) > n)
        return;
    printf("%.*s\t%.*s\n", (int)n, word, (int)strcspn(what, "\n"), what);
}

/* The lower-case ones of "WORD|word|word". True where there are any. */
static bool offer_choices(const struct line *line, const char *choices) {
    bool any = false;
    for (size_t n; *choices; choices += n + (choices[n] != '\0')) {
        n = strcspn(choices, "| ");
        if (*choices >= 'a' && *choices <= 'z') {
            offer(line, choices, n, "");
            any = true;
        }
    }
    return any;
}

/* Names from the server's newest; silence where there is no server. */
static void offer_stored(const struct line *line, struct options *options, const char *target,
                         const char *list, const char *key, const char *what) {
    const char *trouble;
    struct http *http;
    struct http_reply reply = {0};
    struct http_request request = {.path = target};
    char token[TOKEN_ROOM];
    if (token_find(options->token_file, token) ||
        http_open(&http, line->host ? line->host : options->host, options->ca_file, &trouble))
        return;
    http_identify(http, token);
    if (!http_send(http, &request, &reply) && reply.status == 200) {
        json_t *answer = value_parse(reply.body, reply.body_size), *item;
        size_t i;
        json_array_foreach(value_at(answer, list), i, item) {
            const char *word = value_string(item, key);
            offer(line, word, strlen(word), value_string(item, what));
        }
        json_decref(answer);
    }
    http_reply_release(&reply);
    http_close(http);
}

/* By what an argument is called in the tables, n bytes of it. */
static void offer_argument(const struct line *line, struct options *options, const char *name,
                           size_t n) {
    char token[64];
    snprintf(token, sizeof token, "%.*s", (int)n, name);
    bool of_sweep = line->command && !strcmp(line->command->name, "sweep");
    of_sweep |= line->argument && line->argument->bit == OPTION_SWEEP;
    if (offer_choices(line, token))
        return;
    if (strstr(token, "FILE") || strstr(token, "DIR") || strstr(token, "LABELS"))
        printf(":files\n");
    if (strstr(token, "FILE") && line->n_args == 1) /* encode ID test */
        offer_choices(line, "train|test");
    if (!strcmp(token, "ID") && of_sweep)
        offer_stored(line, options, "/v1/sweeps?limit=50", "sweeps", "id", "name");
    else if (!strcmp(token, "ID") || !strcmp(token, "A") || !strcmp(token, "B"))
        offer_stored(line, options, "/v1/experiments?limit=50", "experiments", "id", "name");
    else if (!strcmp(token, "NAME"))
        offer_stored(line, options, "/v1/datasets", "datasets", "name", "");
    else if (!strcmp(token, "SPLIT"))
        offer_choices(line, "train|test");
    else if (!strcmp(token, "STATE"))
        offer_choices(line, "queued|running|paused|succeeded|failed|cancelled");
    else if (!strcmp(token, "FORMAT"))
        offer_choices(line, "json|npy|csv|cifar10|idx");
}

static void offer_options(const struct line *line) {
    uint64_t options = OPTIONS_EVERYWHERE | (line->command ? line->command->options : 0);
    for (int i = 0; i < n_options; i++)
        if (options & option_rows[i].bit)
            offer(line, option_rows[i].name, strlen(option_rows[i].name), option_rows[i].help);
}

/* The n-th word of a command's arguments, without its brackets; the last one goes on with "...". */
static const char *argument_name(const struct command *command, int n, size_t *size) {
    const char *at = command->arguments;
    for (;; n--) {
        at += strspn(at, " [");
        *size = strcspn(at, " ].");
        if (!n || !*size || !strncmp(at + *size, "...", 3))
            return at;
        at += *size + strspn(at + *size, "].");
    }
}

int complete_words(struct options *options, char **words) {
    struct line line = read_words(words);
    size_t n;
    if (line.argument) {
        offer_argument(&line, options, line.argument->argument, strlen(line.argument->argument));
    } else if (*line.start == '-') {
        offer_options(&line);
    } else if (!line.command) {
        for (int i = 0; i < n_commands; i++)
            offer(&line, commands[i].name, strlen(commands[i].name), commands[i].help);
    } else {
        const char *name = argument_name(line.command, line.n_args, &n);
        offer_argument(&line, options, name, n);
    }
    return EXIT_OK;
}
