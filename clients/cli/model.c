/* Models at work: codes and classes of samples, the whole model, pictures of its filters. */
#include "clients/cli/api.h"
#include "clients/cli/file.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

/* Sends the request; what comes goes to -o FILE, or to standard output. */
static int fetch(struct cli *cli, struct http_request request, struct buf *path, bool binary) {
    struct whole_file whole;
    const char *output = cli->options.output;
    int code = EXIT_OK;
    if (!output && binary && terminal_is(STDOUT_FILENO))
        code = complain(EXIT_USAGE, "the answer is binary and this is a terminal; add -o FILE");
    else if (output)
        code = whole_file_open(&whole, output);
    if (code) {
        buf_release(path);
        return code;
    }
    code = api_stream_request(cli, request, path, output ? whole.file : stdout);
    return output ? whole_file_close(&whole, code) : code;
}

/* Samples from a file, or those of the experiment's own data. */
static int send_samples(struct cli *cli, struct buf *path, bool binary) {
    const char *name = cli->args[1];
    struct http_request request = {.method = "POST"};
    if (!strcmp(name, "train") || !strcmp(name, "test")) {
        request.body = !strcmp(name, "train") ? "{\"split\":\"train\"}" : "{\"split\":\"test\"}";
        request.body_size = strlen(request.body);
        return fetch(cli, request, path, binary);
    }
    request.upload = strcmp(name, "-") ? fopen(name, "re") : stdin;
    request.upload_size = -1;
    if (!request.upload) {
        buf_release(path);
        return complain(EXIT_USAGE, "cannot read %s: %s", name, strerror(errno));
    }
    int code = fetch(cli, request, path, binary);
    if (request.upload != stdin)
        fclose(request.upload);
    return code;
}

static int apply(struct cli *cli, const char *what) {
    const char *format = cli->options.format, *output = cli->options.output;
    struct buf path = {0};
    if (!format)
        format = output && text_ends_with(output, ".npy") && !cli->options.json ? "npy" : "json";
    if (strcmp(format, "json") && strcmp(format, "npy"))
        return complain(EXIT_USAGE, "--format of %s is json or npy, got %s", what, format);
    if (!strcmp(format, "npy") && cli->options.json)
        return complain(EXIT_USAGE, "--json and --format npy exclude each other");
    buf_path(&path, "/v1/experiments/{}/{}", cli->args[0], what);
    buf_query(&path, "format", format);
    return send_samples(cli, &path, !strcmp(format, "npy"));
}

int command_encode(struct cli *cli) {
    return apply(cli, "encode");
}

int command_predict(struct cli *cli) {
    return apply(cli, "predict");
}

int command_model(struct cli *cli) {
    struct buf path = {0};
    buf_path(&path, "/v1/experiments/{}/model", cli->args[0]);
    buf_query(&path, "format", "safetensors");
    return fetch(cli, (struct http_request){0}, &path, true);
}

int command_filters(struct cli *cli) {
    struct buf path = {0};
    buf_path(&path, "/v1/experiments/{}/filters.png", cli->args[0]);
    buf_query(&path, "units", cli->options.rows);
    return fetch(cli, (struct http_request){0}, &path, true);
}
