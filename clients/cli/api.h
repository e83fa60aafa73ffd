/* One conversation with the daemon: send, complain in the right words, parse. */
#ifndef CLI_API_H
#define CLI_API_H

#include "clients/cli/cli.h"
#include "clients/cli/http.h"
#include "clients/cli/text.h"

#include <jansson.h>

/* Sends a request whose path is in `path`, which it releases. On EXIT_OK: with --json the answer
 * has been printed and *answer is NULL; without, *answer is the parsed JSON, the caller's to free.
 * Else the trouble has been reported and *answer is NULL. */
int api_call(struct cli *cli, struct http_request request, struct buf *path, json_t **answer);

int api_get(struct cli *cli, struct buf *path, json_t **answer);

/* Streams the answer of a GET to `out` as it is. Releases the path. */
int api_stream(struct cli *cli, struct buf *path, FILE *out);

/* The same of any request. */
int api_stream_request(struct cli *cli, struct http_request request, struct buf *path, FILE *out);

/* The same, into the file of --output, or to standard output; a binary answer not to a terminal. */
int api_fetch(struct cli *cli, struct http_request request, struct buf *path, bool binary);

/* `errors` or `warnings` of an answer: a line each on stderr, "  /model/hidden/0: must be …". */
void api_print_faults(const json_t *faults);

/* The words for what can go wrong; each returns the exit code. */
int api_complain_transport(struct cli *cli, int http_code);
int api_complain_refusal(struct cli *cli, const struct http_reply *reply);
int api_complain_nonsense(struct cli *cli);
int api_complain_memory(void);

#endif
