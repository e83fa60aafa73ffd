/* Models at work: codes and classes of samples, the whole model, pictures of its filters. */
#include "clients/cli/api.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

/* Samples from a file, or those of the experiment's own data. */
static int send_samples(struct cli *cli, struct buf *path, bool binary) {
    const char *name = cli->args[1];
    struct http_request request = {.method = "POST"};
    if (!strcmp(name, "train") || !strcmp(name, "test")) {
        request.body = !strcmp(name, "train") ? "{\"split\":\"train\"}" : "{\"split\":\"test\"}";
        request.body_size = strlen(request.body);
        return api_fetch(cli, request, path, binary);
    }
    request.upload = strcmp(name, "-") ? fopen(name, "re") : stdin;
    request.upload_size = -1;
    if (!request.upload) {
        buf_release(path);
        return complain(EXIT_USAGE, "cannot read %s: %s", name, strerror(errno));
    }
    int code = api_fetch(cli, request, path, binary);
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
    return api_fetch(cli, (struct http_request){0}, &path, true);
}

int command_filters(struct cli *cli) {
    struct buf path = {0};
    buf_path(&path, "/v1/experiments/{}/filters.png", cli->args[0]);
    buf_query(&path, "units", cli->options.rows);
    return api_fetch(cli, (struct http_request){0}, &path, true);
}
