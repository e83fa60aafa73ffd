/* What is done to experiments that are there: edit, delete, run again, prune. */
#include "clients/cli/api.h"
#include "clients/cli/jobs.h"
#include "clients/cli/value.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int run_again(struct cli *cli, const char *how, const char *patch) {
    struct buf path = {0};
    json_t *answer;
    buf_path(&path, "/v1/experiments/{}/", cli->args[0]);
    buf_add(&path, how);
    bool json = cli->options.json;
    if (cli->options.watch)
        cli->options.json = false;
    int code =
        api_call(cli,
                 (struct http_request){
                     .method = "POST", .body = patch, .body_size = patch ? strlen(patch) : 0},
                 &path, &answer);
    cli->options.json = json;
    if (!code && answer) {
        if (!json)
            printf("%s\n", value_string(answer, "id"));
        fflush(stdout);
        if (cli->options.watch)
            code = watch_experiment(cli, value_string(answer, "id"));
    }
    json_decref(answer);
    return code;
}

int command_rerun(struct cli *cli) {
    return run_again(cli, "rerun", cli->args[1]);
}

int command_replay(struct cli *cli) {
    return run_again(cli, "replay", NULL);
}

int command_edit(struct cli *cli) {
    struct buf path = {0}, change = {0};
    json_t *answer;
    char revision[40];
    bool json = cli->options.json;
    buf_path(&path, "/v1/experiments/{}", cli->args[0]);
    cli->options.json = false;
    int code = api_get(cli, &path, &answer);
    cli->options.json = json;
    if (code)
        return code;
    snprintf(revision, sizeof revision, "\"%.0f\"", value_number(answer, "revision"));
    json_decref(answer);
    buf_path(&change, "/v1/experiments/{}", cli->args[0]);
    code = api_call(cli,
                    (struct http_request){.method = "PATCH",
                                          .body = cli->args[1],
                                          .body_size = strlen(cli->args[1]),
                                          .if_match = revision},
                    &change, &answer);
    if (!code && answer)
        printf("%s changed\n", cli->args[0]);
    json_decref(answer);
    return code;
}

static int delete_one(struct cli *cli, const char *id) {
    struct buf path = {0};
    json_t *answer;
    buf_path(&path, "/v1/experiments/{}", id);
    int code = api_call(cli, (struct http_request){.method = "DELETE"}, &path, &answer);
    json_decref(answer);
    return code;
}

int command_delete(struct cli *cli) {
    int code = delete_one(cli, cli->args[0]);
    if (!code && !cli->options.json)
        printf("%s deleted\n", cli->args[0]);
    return code;
}

/* "30d", "12h" in seconds; −1 for nonsense. */
static double parse_age(const char *text) {
    char *end;
    double n = strtod(text, &end);
    double unit = *end == 'd' ? 86400 : *end == 'h' ? 3600 : *end == 'm' ? 60 : 0;
    return end > text && unit > 0 && !end[1] && n >= 0 && n < 1e6 ? n * unit : -1;
}

static void time_before(double age, char text[32]) {
    time_t at = time(NULL) - (time_t)age;
    struct tm parts;
    strftime(text, 32, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&at, &parts));
}

struct pruning {
    json_t *gone; /* {id, state, name, bytes} of each; NULL: they are printed as they go */
    int n, kept;  /* gone; could not be deleted */
    double bytes; /* of their files */
};

static void has_gone(struct pruning *pruning, const json_t *experiment) {
    const char *id = value_string(experiment, "id"), *state = value_string(experiment, "state");
    const char *name = value_string(experiment, "name");
    double bytes = value_number(experiment, "bytes");
    char figure[FIGURE_ROOM];
    pruning->n++;
    pruning->bytes += bytes;
    if (pruning->gone)
        json_array_append_new(pruning->gone,
                              json_pack("{s:s, s:s, s:s, s:I}", "id", id, "state", state, "name",
                                        name, "bytes", (json_int_t)bytes));
    else
        printf("%s %s %s %s\n", id, state, text_bytes(figure, bytes), name);
}

static void read_page(const json_t *answer, struct pruning *pruning) {
    const json_t *experiment;
    size_t i;
    json_array_foreach(value_at(answer, "experiments"), i, experiment) {
        has_gone(pruning, experiment);
    }
    json_array_foreach(value_at(answer, "kept"), i, experiment) {
        pruning->kept++;
        complain(EXIT_REFUSED, "%s stays: %s", value_string(experiment, "id"),
                 value_string(experiment, "detail"));
    }
}

/* The server deletes a page at a time, and says how the next one begins. */
static int prune_pages(struct cli *cli, const char *until, struct pruning *pruning) {
    struct buf path = {0};
    buf_path(&path, "/v1/prune");
    buf_query(&path, "ended_before", until);
    buf_query(&path, "limit", "500");
    buf_query(&path, "state", cli->options.state);
    buf_query(&path, "tag", cli->options.tag);
    buf_query(&path, "dry_run", cli->options.dry_run ? "true" : NULL);
    if (path.failed)
        return api_complain_memory();
    int code = EXIT_OK;
    bool over = false;
    while (!code && !over) {
        struct http_reply reply = {0};
        int http_code = http_send(
            cli->http, &(struct http_request){.method = "POST", .path = path.data}, &reply);
        json_t *answer = http_code ? NULL : value_parse(reply.body, reply.body_size);
        if (http_code)
            code = api_complain_transport(cli, http_code);
        else if (reply.status != 200)
            code = api_complain_refusal(cli, &reply);
        else
            read_page(answer, pruning);
        over = !*reply.next;
        buf_release(&path);
        path = (struct buf){0};
        buf_add(&path, reply.next);
        json_decref(answer);
        http_reply_release(&reply);
        if (!code && !over && path.failed)
            code = api_complain_memory();
    }
    buf_release(&path);
    return code;
}

/* Nobody is asked in a script. */
static bool is_sure(const struct cli *cli, const char *until) {
    char answer[8];
    if (cli->options.dry_run || !terminal_is(STDIN_FILENO) || !terminal_is(STDOUT_FILENO))
        return true;
    printf("Delete all %s%s%s%sexperiments that ended before %s? [y/N] ",
           cli->options.state ? cli->options.state : "", cli->options.state ? " " : "",
           cli->options.tag ? cli->options.tag : "", cli->options.tag ? " " : "", until);
    fflush(stdout);
    return fgets(answer, sizeof answer, stdin) && (*answer == 'y' || *answer == 'Y');
}

/* The whole as one JSON text. */
static int print_pruned(const struct pruning *pruning) {
    json_t *answer = json_pack("{s:O, s:i, s:I}", "deleted", pruning->gone, "kept", pruning->kept,
                               "bytes", (json_int_t)pruning->bytes);
    int failed = !answer || json_dumpf(answer, stdout, JSON_COMPACT);
    json_decref(answer);
    return failed ? api_complain_memory() : (putchar('\n'), EXIT_OK);
}

int command_prune(struct cli *cli) {
    double age = cli->options.older_than ? parse_age(cli->options.older_than) : -1;
    char until[32], figure[FIGURE_ROOM];
    struct pruning pruning = {0};
    if (age < 0)
        return complain(EXIT_USAGE, "--older-than wants an age like 30d, 12h or 90m");
    time_before(age, until);
    if (cli->options.json)
        pruning.gone = json_array();
    else if (!is_sure(cli, until))
        return EXIT_OK;
    int code = prune_pages(cli, until, &pruning);
    if (!code && pruning.gone)
        code = print_pruned(&pruning);
    else if (!code)
        printf("%d %s, %s %s\n", pruning.n, cli->options.dry_run ? "would be deleted" : "deleted",
               text_bytes(figure, pruning.bytes), cli->options.dry_run ? "to be freed" : "freed");
    json_decref(pruning.gone);
    return code ? code : pruning.kept ? EXIT_REFUSED : EXIT_OK;
}

int command_backup(struct cli *cli) {
    struct buf path = {0};
    json_t *answer;
    buf_path(&path, "/v1/admin/backup");
    int code = api_call(cli, (struct http_request){.method = "POST"}, &path, &answer);
    if (!code && answer)
        printf("%s in the server's data directory\n", value_string(answer, "directory"));
    json_decref(answer);
    return code;
}
