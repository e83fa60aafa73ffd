/* ovrctl: what all its files share. The order to read them in: main.c (commands and options),
 * api.c (one conversation with the daemon), jobs.c, queue.c, sweeps.c, watch.c, histogram.c,
 * units.c, manage.c, people.c, data.c, model.c, reproduce.c, raw.c (the commands); config.c,
 * help.c, complete.c, man.c (what surrounds them); http.c, token.c, sse.c, file.c, text.c and
 * value.c are what they stand on. */
#ifndef CLI_H
#define CLI_H

#include <stdbool.h>

/* Exit codes; documented in help.c, relied on by scripts. */
enum exit_code {
    EXIT_OK = 0,
    EXIT_FAILED = 1,      /* the experiment or the sweep failed or was cancelled */
    EXIT_USAGE = 2,       /* bad arguments, or a local file that cannot be read or written */
    EXIT_REFUSED = 3,     /* the server refused, or its answer made no sense */
    EXIT_UNREACHABLE = 4, /* no connection, or it broke */
};

struct options {
    const char *host; /* never NULL when a command runs */
    bool json, watch, dry_run, dead, csv, cancel, quick, again, remove;
    const char *state, *tag, *name, *sweep, *limit; /* NULL where not given, like all below */
    const char *epoch, *format, *rows, *output, *sort, *layer, *label, *header, *out, *examples;
    const char *bins, *split, *from, *max_points;
    const char *older_than, *since, *ca_file, *token_file, *owner, *role, *scope, *expires;
};

struct cli {
    struct options options;
    char **args; /* of the command: those the command table promises are there, the others NULL */
    struct http *http;
};

/* The commands. Each prints its result or its trouble and returns an enum exit_code. */
int command_submit(struct cli *cli);
int command_list(struct cli *cli);
int command_show(struct cli *cli);
int command_queue(struct cli *cli);
int command_watch(struct cli *cli);
int command_metrics(struct cli *cli);
int command_histogram(struct cli *cli);
int command_units(struct cli *cli);
int command_compare(struct cli *cli);
int command_weights(struct cli *cli);
int command_pause(struct cli *cli);
int command_resume(struct cli *cli);
int command_encode(struct cli *cli);
int command_predict(struct cli *cli);
int command_model(struct cli *cli);
int command_filters(struct cli *cli);
int command_cancel(struct cli *cli);
int command_backup(struct cli *cli);
int command_edit(struct cli *cli);
int command_delete(struct cli *cli);
int command_rerun(struct cli *cli);
int command_replay(struct cli *cli);
int command_prune(struct cli *cli);
int command_sweeps(struct cli *cli);
int command_sweep(struct cli *cli);
int command_upload(struct cli *cli);
int command_reproduce(struct cli *cli);
int command_datasets(struct cli *cli);
int command_whoami(struct cli *cli);
int command_user(struct cli *cli);
int command_token(struct cli *cli);
int command_audit(struct cli *cli);
int command_dataset(struct cli *cli);
int command_preview(struct cli *cli);
int command_log(struct cli *cli);
int command_events(struct cli *cli);
int command_histograms(struct cli *cli);
int command_tiling(struct cli *cli);
int command_schema(struct cli *cli);
int command_get(struct cli *cli);
int command_version(struct cli *cli);
int command_completion(struct cli *cli);
int command_manual(struct cli *cli);

/* Says on stderr what is wrong, after "ovrctl: ". Returns `code`. */
int complain(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
