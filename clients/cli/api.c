#include "clients/cli/api.h"

#include "clients/cli/file.h"
#include "clients/cli/value.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int api_complain_memory(void) {
    return complain(EXIT_USAGE, "not enough memory");
}

int api_complain_nonsense(struct cli *cli) {
    return complain(EXIT_REFUSED, "the answer is not what an ovrd sends; is %s the right address?",
                    http_url(cli->http));
}

int api_complain_transport(struct cli *cli, int http_code) {
    const char *trouble = http_trouble(cli->http);
    if (http_code == HTTP_UNREACHABLE)
        return complain(EXIT_UNREACHABLE, "no answer from %s: %s", http_url(cli->http), trouble);
    if (http_code == HTTP_TOO_LARGE)
        return complain(EXIT_REFUSED, "%s; --json prints it without keeping it", trouble);
    return complain(EXIT_USAGE, "%s", trouble);
}

void api_print_faults(const json_t *faults) {
    size_t i;
    const json_t *fault;
    json_array_foreach(faults, i, fault) {
        const char *pointer = value_string(fault, "pointer");
        fprintf(stderr, "  %s: %s\n", *pointer ? pointer : "(the whole)",
                value_string(fault, "detail"));
    }
}

/* A problem (RFC 9457), for a person: what happened, then every fault on a line of its own. */
static void print_problem(const json_t *problem, const struct http_reply *reply) {
    const char *title = value_string(problem, "title"), *detail = value_string(problem, "detail");
    fprintf(stderr, "ovrctl: %s", *title ? title : "the server refused");
    fprintf(stderr, " (HTTP %d)\n", reply->status);
    if (*detail)
        fprintf(stderr, "  %s\n", detail);
    api_print_faults(value_at(problem, "errors"));
    /* Seconds, or a date, which is of no use here. */
    if (reply->retry_after[0] && !reply->retry_after[strspn(reply->retry_after, "0123456789")])
        fprintf(stderr, "  try again in %s s\n", reply->retry_after);
}

int api_complain_refusal(struct cli *cli, const struct http_reply *reply) {
    if (cli->options.json && reply->body) {
        fprintf(stderr, "%s\n", reply->body);
        return EXIT_REFUSED;
    }
    json_t *problem = value_parse(reply->body, reply->body_size);
    print_problem(problem, reply);
    json_decref(problem);
    if (reply->status == 401)
        fputs("  ovrctl takes it from $OVRD_TOKEN, --token-file or ~/.config/ovrd/token\n", stderr);
    return EXIT_REFUSED;
}

int api_call(struct cli *cli, struct http_request request, struct buf *path, json_t **answer) {
    struct http_reply reply = {0};
    *answer = NULL;
    if (path->failed || !path->data)
        return api_complain_memory();
    request.path = path->data;
    request.sink = cli->options.json ? stdout : NULL;
    int http_code = http_send(cli->http, &request, &reply), code = EXIT_OK;
    if (http_code)
        code = api_complain_transport(cli, http_code);
    else if (reply.status < 200 || reply.status > 299)
        code = api_complain_refusal(cli, &reply);
    else if (reply.status == 204)
        code = EXIT_OK; /* there is nothing to say */
    else if (cli->options.json)
        fputs(reply.last_byte == '\n' ? "" : "\n", stdout);
    else if (!(*answer = value_parse(reply.body, reply.body_size)))
        code = api_complain_nonsense(cli);
    http_reply_release(&reply);
    buf_release(path);
    return code;
}

int api_get(struct cli *cli, struct buf *path, json_t **answer) {
    return api_call(cli, (struct http_request){0}, path, answer);
}

int api_stream(struct cli *cli, struct buf *path, FILE *out) {
    return api_stream_request(cli, (struct http_request){0}, path, out);
}

int api_stream_request(struct cli *cli, struct http_request request, struct buf *path, FILE *out) {
    struct http_reply reply = {0};
    if (path->failed || !path->data)
        return api_complain_memory();
    request.path = path->data;
    request.sink = out;
    int http_code = http_send(cli->http, &request, &reply), code = EXIT_OK;
    if (http_code)
        code = api_complain_transport(cli, http_code);
    else if (reply.status < 200 || reply.status > 299)
        code = api_complain_refusal(cli, &reply);
    http_reply_release(&reply);
    buf_release(path);
    return code;
}

int api_fetch(struct cli *cli, struct http_request request, struct buf *path, bool binary) {
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
