/* The commands whose answer is printed as it comes. */
#include "clients/cli/api.h"
#include "clients/cli/table.h"

#include <string.h>

int command_log(struct cli *cli) {
    struct buf path = {0};
    buf_path(&path, "/v1/experiments/{}/log", cli->args[0]);
    return api_stream(cli, &path, stdout);
}

int command_events(struct cli *cli) {
    struct buf path = {0};
    buf_path(&path, "/v1/experiments/{}/events", cli->args[0]);
    setvbuf(stdout, NULL, _IOLBF, 0); /* so that a pipe sees each as it comes */
    return api_stream(cli, &path, stdout);
}

int command_schema(struct cli *cli) {
    struct buf path = {0};
    buf_path(&path, "/v1/schema");
    return api_fetch(cli, (struct http_request){0}, &path, false);
}

int command_get(struct cli *cli) {
    struct buf path = {0};
    if (cli->args[0][0] != '/')
        return complain(EXIT_USAGE, "PATH starts with a slash, as in /v1/experiments; got %s",
                        cli->args[0]);
    buf_add(&path, cli->args[0]);
    return api_fetch(cli, (struct http_request){0}, &path, false);
}

int command_completion(struct cli *cli) {
    return print_completion(cli->args[0]);
}

int command_manual(struct cli *cli) {
    (void)cli;
    print_manual();
    return EXIT_OK;
}
