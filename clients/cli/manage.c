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

/* RFC 3339 texts in UTC sort as the times do. */
static void time_before(double age, char text[32]) {
    time_t at = time(NULL) - (time_t)age;
    struct tm parts;
    strftime(text, 32, "%Y-%m-%dT%H:%M:%S", gmtime_r(&at, &parts));
}

/* Deletes those of one page that ended before `until`; *n counts, *kept what could not be. Returns
 * whether the page holds one that ended later, so that no older one follows. */
static bool prune_page(struct cli *cli, const json_t *list, const char *until, int *n, int *kept) {
    const json_t *experiment;
    size_t i;
    json_array_foreach(list, i, experiment) {
        const char *id = value_string(experiment, "id"), *state = value_string(experiment, "state");
        if (strcmp(value_string(experiment, "finished_at"), until) >= 0)
            return true;
        if (!cli->options.dry_run && delete_one(cli, id)) {
            ++*kept;
            continue;
        }
        printf("%s %s %s\n", id, state, value_string(experiment, "name"));
        ++*n;
    }
    return false;
}

/* Pages are cut behind an experiment, so the next one is right also when this one's are gone. */
static int prune_pages(struct cli *cli, const char *until, int *n, int *kept) {
    struct buf path = {0};
    buf_path(&path, "/v1/experiments");
    buf_query(&path, "sort", "finished");
    buf_query(&path, "limit", "500");
    buf_query(&path, "state", cli->options.state);
    buf_query(&path, "tag", cli->options.tag);
    if (path.failed)
        return api_complain_memory();
    int code = EXIT_OK;
    bool over = false;
    while (!code && !over) {
        struct http_reply reply = {0};
        int http_code = http_send(cli->http, &(struct http_request){.path = path.data}, &reply);
        json_t *answer = http_code ? NULL : value_parse(reply.body, reply.body_size);
        if (http_code)
            code = api_complain_transport(cli, http_code);
        else if (reply.status != 200)
            code = api_complain_refusal(cli, &reply);
        else
            over = prune_page(cli, value_at(answer, "experiments"), until, n, kept) || !*reply.next;
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

int command_prune(struct cli *cli) {
    double age = cli->options.older_than ? parse_age(cli->options.older_than) : -1;
    char until[32];
    int n = 0, kept = 0;
    if (age < 0)
        return complain(EXIT_USAGE, "--older-than wants an age like 30d, 12h or 90m");
    time_before(age, until);
    cli->options.json = false;
    if (!is_sure(cli, until))
        return EXIT_OK;
    int code = prune_pages(cli, until, &n, &kept);
    if (!code)
        printf("%d %s\n", n, cli->options.dry_run ? "would be deleted" : "deleted");
    return code ? code : kept ? EXIT_REFUSED : EXIT_OK;
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
