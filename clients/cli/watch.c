/* Following an experiment or a sweep to its end. An experiment tells by its stream of events what
 * happens to it, so a line comes as soon as there is something to tell; a sweep is asked for again
 * as soon as it has changed. On a terminal one line is drawn over and over; elsewhere every state
 * and every epoch get a line of their own. A daemon that restarts is waited for, and the stream
 * goes on where it broke. */
#include "clients/cli/api.h"
#include "clients/cli/clock.h"
#include "clients/cli/jobs.h"
#include "clients/cli/sse.h"
#include "clients/cli/value.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { POLL_MS = 250, WAIT_S = 20, SWEEP_MS = 300, RETRY_MS = 500, PATIENCE_S = 30 };

struct watch {
    struct cli *cli;
    const char *id;
    bool sweep; /* `experiment` below is one, and has no metrics */
    char etag[sizeof((struct http_reply *)0)->etag];
    json_t *experiment;     /* as last seen; NULL before the first answer */
    char *text;             /* its JSON as it came */
    bool changed;           /* by the last poll */
    struct sse *sse;        /* of an experiment */
    bool ended;             /* its last event has come */
    double epoch;           /* the last one seen */
    double loss, near_zero; /* of that epoch */
    double lost_at;         /* when the connection went, seconds; 0 while it is there */
    bool live;              /* one line on a terminal */
    char status[96];        /* the last line about the state, so that none is said twice */
};

static void erase_line(const struct watch *watch) {
    if (!watch->live)
        return;
    fputs("\r\033[K", stdout);
    fflush(stdout);
}

/* Called when there was no answer. EXIT_OK means: try again; time has passed already. */
static int wait_for_daemon(struct watch *watch, int http_code, const struct http_reply *reply) {
    bool closed = http_code == HTTP_OK && reply->status == 200; /* a stream that was cut short */
    struct cli *cli = watch->cli;
    bool refused = http_code == HTTP_OK;
    /* Before the first answer the address is more likely to be wrong than the daemon restarting. */
    bool hopeless = http_code == HTTP_TOO_LARGE || http_code == HTTP_LOCAL ||
                    !(watch->experiment || watch->lost_at > 0);
    if (watch->lost_at > 0 && now() - watch->lost_at > PATIENCE_S)
        hopeless = true;
    if (hopeless) {
        erase_line(watch);
        return refused ? api_complain_refusal(cli, reply) : api_complain_transport(cli, http_code);
    }
    if (!(watch->lost_at > 0)) {
        watch->lost_at = now();
        erase_line(watch);
        if (closed)
            complain(0, "%s ended the stream; trying again for %d s", http_url(cli->http),
                     PATIENCE_S);
        else if (refused)
            complain(0, "%s is busy (HTTP %d); trying again for %d s", http_url(cli->http),
                     reply->status, PATIENCE_S);
        else
            complain(0, "lost %s (%s); trying again for %d s", http_url(cli->http),
                     http_trouble(cli->http), PATIENCE_S);
    }
    pause_ms(RETRY_MS);
    return EXIT_OK;
}

static void found_daemon(struct watch *watch) {
    if (watch->lost_at > 0)
        complain(0, "connected again after %.0f s", now() - watch->lost_at);
    watch->lost_at = 0;
}

/* Takes over the reply's body as the experiment's present form. */
static int take_experiment(struct watch *watch, struct http_reply *reply) {
    json_t *experiment = value_parse(reply->body, reply->body_size);
    if (!*value_string(experiment, "state")) {
        json_decref(experiment);
        return api_complain_nonsense(watch->cli);
    }
    json_decref(watch->experiment);
    free(watch->text);
    watch->experiment = experiment;
    watch->text = reply->body;
    reply->body = NULL;
    snprintf(watch->etag, sizeof watch->etag, "%s", reply->etag);
    watch->changed = true;
    return EXIT_OK;
}

/* wait_s: at most so long, if nothing has changed. */
static int poll_experiment(struct watch *watch, int wait_s) {
    struct buf path = {0};
    struct http_reply reply = {0};
    watch->changed = false;
    buf_path(&path, watch->sweep ? "/v1/sweeps/{}" : "/v1/experiments/{}", watch->id);
    if (path.failed)
        return api_complain_memory();
    struct http_request request = {
        .path = path.data, .if_none_match = watch->etag, .wait_s = wait_s};
    int http_code = http_send(watch->cli->http, &request, &reply), code = EXIT_OK;
    if (http_code || http_is_passing(reply.status)) {
        code = wait_for_daemon(watch, http_code, &reply);
    } else {
        found_daemon(watch);
        if (reply.status == 200)
            code = take_experiment(watch, &reply);
        else if (reply.status != 304) {
            erase_line(watch);
            code = api_complain_refusal(watch->cli, &reply);
        }
    }
    http_reply_release(&reply);
    buf_release(&path);
    return code;
}

static void print_epoch(const struct watch *watch, const json_t *point) {
    const json_t *progress = value_at(watch->experiment, "progress");
    const char *split = value_at(point, "validation.loss") ? "validation.loss" : "test.loss";
    /* In the other phases the progress speaks of other epochs than these. */
    bool training = !strcmp(value_string(progress, "phase"), "training");
    double speed = training ? value_number(progress, "samples_per_second") : NAN;
    double eta = training ? value_number(progress, "eta_seconds") : NAN;
    char figure[FIGURE_ROOM];
    printf("epoch %3.0f/%s", watch->epoch,
           text_fixed(figure, value_number(watch->experiment, "spec.training.epochs"), 0));
    printf("  loss %-9s", text_figure(figure, watch->loss));
    printf("  %.*s loss %-9s", (int)strcspn(split, "."), split,
           text_figure(figure, value_number(point, split)));
    printf("  near_zero %s", text_fixed(figure, watch->near_zero, 3));
    if (!isnan(speed))
        printf("  %s samples/s", text_count(figure, speed));
    if (!isnan(eta))
        printf("  ETA %s", text_clock(figure, eta));
    putchar('\n');
}

/* What it does just now: its phase while it runs, its state otherwise. */
static const char *present_status(const json_t *experiment) {
    const char *state = value_string(experiment, "state");
    const char *phase = value_string(experiment, "progress.phase");
    return !strcmp(state, "running") && *phase ? phase : state;
}

static double done_share(const json_t *experiment) {
    struct sweep_counts runs = sweep_counts(experiment);
    double step = value_number(experiment, "progress.step");
    double steps = value_number(experiment, "progress.steps");
    return runs.all > 0 ? runs.done / runs.all : steps > 0 ? step / steps : 0;
}

/* "training 12/30" while it runs, "queued: why" else. */
static void add_head(struct buf *head, const json_t *experiment) {
    struct sweep_counts runs = sweep_counts(experiment);
    if (!isnan(runs.all)) {
        buf_addf(head, "%s, %.0f of %.0f done", value_string(experiment, "state"), runs.done,
                 runs.all);
        return;
    }
    double epochs = value_number(experiment, "progress.epochs");
    const char *reason = experiment_reason(experiment);
    buf_add(head, present_status(experiment));
    bool counts = strcmp(value_string(experiment, "progress.phase"), "preparing") != 0;
    if (strcmp(value_string(experiment, "state"), "running"))
        buf_addf(head, "%s%s", *reason ? ": " : "", reason);
    else if (!isnan(epochs) && counts)
        buf_addf(head, " %.0f/%.0f", value_number(experiment, "progress.epoch"), epochs);
}

/* The figures to the right of the bar. */
static void add_figures(struct buf *tail, const struct watch *watch, bool wide) {
    const json_t *progress = value_at(watch->experiment, "progress");
    char figure[FIGURE_ROOM];
    double speed = value_number(progress, "samples_per_second");
    double eta = value_number(progress, "eta_seconds");
    struct sweep_counts runs = sweep_counts(watch->experiment);
    if (!isnan(runs.all))
        buf_addf(tail, "  %.0f running  %.0f failed", runs.running, runs.failed);
    if (!isnan(watch->loss))
        buf_addf(tail, "  loss %s", text_figure(figure, watch->loss));
    if (!isnan(watch->near_zero))
        buf_addf(tail, "  near_zero %s", text_fixed(figure, watch->near_zero, 3));
    if (!isnan(speed))
        buf_addf(tail, "  %s%s", text_count(figure, speed), wide ? " samples/s" : "/s");
    if (!isnan(eta))
        buf_addf(tail, "  ETA %s", text_clock(figure, eta));
}

/* Joins name, head, bar and figures in `width` columns. The name gives way first, then the bar. */
static void compose_line(struct buf *line, const struct watch *watch, const char *head,
                         const char *tail, size_t width) {
    enum { NAME_MAX = 24, NAME_MIN = 6, BAR_MAX = 30, BAR_MIN = 6, GAP = 2 };
    const char *name = value_string(watch->experiment, "name");
    bool running = !strcmp(value_string(watch->experiment, "state"), "running");
    size_t fixed = text_columns(head) + text_columns(tail), cut = text_columns(name);
    size_t spare = width > fixed ? width - fixed : 0, bar = running ? GAP + BAR_MIN : 0;
    if (cut > NAME_MAX)
        cut = NAME_MAX;
    if (spare < cut + GAP + bar)
        cut = spare > NAME_MIN + GAP + bar ? spare - GAP - bar : NAME_MIN;
    if (spare >= cut + GAP) {
        buf_addf(line, "%.*s  ", (int)text_cut(name, cut), name);
        spare -= cut + GAP;
    }
    buf_add(line, head);
    if (running && spare >= bar) {
        buf_add(line, "  ");
        buf_bar(line, done_share(watch->experiment), spare - GAP < BAR_MAX ? spare - GAP : BAR_MAX,
                terminal_utf8() ? "░" : ".");
    }
    buf_add(line, tail);
}

/* name  training 12/30  [bar]  loss 0.2421  near_zero 0.590  9,120 samples/s  ETA 2:51
 * It never wraps, since \r could not undo that. */
static int draw_line(const struct watch *watch) {
    enum { WIDE = 110 };
    size_t width = terminal_columns(STDOUT_FILENO) - 1;
    struct buf head = {0}, tail = {0}, line = {0};
    add_head(&head, watch->experiment);
    buf_add(&tail, "");
    if (!strcmp(value_string(watch->experiment, "state"), "running"))
        add_figures(&tail, watch, width >= WIDE);
    if (!head.failed && !tail.failed)
        compose_line(&line, watch, head.data, tail.data, width);
    bool failed = line.failed || !line.data;
    if (!failed)
        printf("\r%.*s\033[K", (int)text_cut(line.data, width), line.data);
    fflush(stdout);
    buf_release(&head);
    buf_release(&tail);
    buf_release(&line);
    return failed ? api_complain_memory() : EXIT_OK;
}

/* Without a terminal: a line for every change of state or phase. */
static void print_status(struct watch *watch) {
    const char *status = present_status(watch->experiment);
    struct sweep_counts runs = sweep_counts(watch->experiment);
    const char *reason = experiment_reason(watch->experiment);
    char line[sizeof watch->status];
    if (state_is_final(status)) /* the summary says it */
        return;
    bool queued = !strcmp(status, "queued") && *reason;
    if (!isnan(runs.all))
        snprintf(line, sizeof line, "%s, %.0f of %.0f done", status, runs.done, runs.all);
    else
        snprintf(line, sizeof line, "%s%s%s", status, queued ? ": " : "", queued ? reason : "");
    if (!strcmp(line, watch->status))
        return;
    memcpy(watch->status, line, sizeof line);
    printf("%s\n", line);
}

static int show(struct watch *watch) {
    if (watch->cli->options.json)
        return EXIT_OK;
    if (watch->live)
        return draw_line(watch);
    print_status(watch);
    fflush(stdout);
    return EXIT_OK;
}

static int conclude(struct watch *watch) {
    const char *state = value_string(watch->experiment, "state");
    if (watch->cli->options.json) {
        printf("%s\n", watch->text);
    } else if (watch->sweep) {
        erase_line(watch);
        print_sweep(watch->experiment);
    } else {
        double took = text_time(value_string(watch->experiment, "finished_at")) -
                      text_time(value_string(watch->experiment, "started_at"));
        char duration[FIGURE_ROOM];
        erase_line(watch);
        printf("%s %s", value_string(watch->experiment, "name"), state);
        if (took >= 0)
            printf(" after %s", text_duration(duration, took));
        putchar('\n');
        print_outcome(watch->experiment);
    }
    return strcmp(state, "succeeded") ? EXIT_FAILED : EXIT_OK;
}

static void set_phase(struct watch *watch, const char *phase) {
    json_t *progress = json_object_get(watch->experiment, "progress");
    if (json_is_object(progress))
        json_object_set_new(progress, "phase", json_string(phase));
    else
        json_object_set_new(watch->experiment, "progress", json_pack("{s:s}", "phase", phase));
}

/* An epoch comes once more where the daemon went back to a checkpoint: it is no news. */
static void take_epoch(struct watch *watch, const json_t *point) {
    double epoch = value_number(point, "epoch");
    if (!(epoch > watch->epoch))
        return;
    watch->epoch = epoch;
    watch->loss = value_number(point, "train.loss");
    watch->near_zero = value_number(point, "sparsity.near_zero");
    if (watch->live || watch->cli->options.json)
        return;
    /* "training" stands above the first of them, also when no progress was told before. */
    if (!strcmp(value_string(watch->experiment, "state"), "running"))
        set_phase(watch, "training");
    print_status(watch);
    print_epoch(watch, point);
}

static void take_state(struct watch *watch, const json_t *data) {
    json_t *experiment = watch->experiment;
    const char *state = value_string(data, "state"), *reason = value_string(data, "reason");
    json_object_set_new(experiment, "state", json_string(state));
    json_object_set_new(experiment, "progress", json_null());
    json_object_set_new(experiment, "queue",
                        *reason ? json_pack("{s:s}", "reason", reason) : json_null());
    watch->ended = state_is_final(state);
}

static void on_event(void *context, const char *name, const char *text) {
    struct watch *watch = context;
    json_t *data = value_parse(text, strlen(text));
    if (data && !strcmp(name, "epoch"))
        take_epoch(watch, data);
    else if (data && !strcmp(name, "state"))
        take_state(watch, data);
    else if (data && !strcmp(name, "progress"))
        json_object_set(watch->experiment, "progress", data);
    json_decref(data);
    if (!watch->ended)
        show(watch);
}

static void on_bytes(void *context, const char *bytes, size_t n) {
    struct watch *watch = context;
    found_daemon(watch);
    sse_take(watch->sse, bytes, n);
}

/* Until the last event, or the stream breaks: then it returns EXIT_OK as well, to be called again.
 */
static int follow_stream(struct watch *watch) {
    struct buf path = {0};
    struct http_reply reply = {0};
    int code = EXIT_OK;
    buf_path(&path, "/v1/experiments/{}/events", watch->id);
    if (path.failed)
        return api_complain_memory();
    sse_begin(watch->sse);
    struct http_request request = {.path = path.data,
                                   .consume = on_bytes,
                                   .context = watch,
                                   .last_event_id = watch->sse->number};
    int http_code = http_send(watch->cli->http, &request, &reply);
    watch->ended |= !http_code && reply.status == 204; /* nothing came after the last one seen */
    if (watch->ended)
        found_daemon(watch);
    else if (http_code || reply.status == 200 || http_is_passing(reply.status))
        code = wait_for_daemon(watch, http_code, &reply);
    else {
        erase_line(watch);
        code = api_complain_refusal(watch->cli, &reply);
    }
    http_reply_release(&reply);
    buf_release(&path);
    return code;
}

/* The place in the queue changes without an event; on a terminal it is shown all the same. */
static bool shows_place(const struct watch *watch) {
    const char *state = value_string(watch->experiment, "state");
    return watch->live && (!strcmp(state, "queued") || !strcmp(state, "paused"));
}

static int follow_experiment(struct watch *watch) {
    int code = EXIT_OK;
    while (!code && !watch->experiment)
        code = poll_experiment(watch, 0);
    while (!code && !watch->ended) {
        if (!shows_place(watch)) {
            code = follow_stream(watch);
            continue;
        }
        code = show(watch);
        pause_ms(POLL_MS);
        code = code ? code : poll_experiment(watch, 0);
    }
    /* With its result. */
    watch->changed = false;
    watch->etag[0] = '\0';
    while (!code && !watch->changed)
        code = poll_experiment(watch, 0);
    return code;
}

static int follow_sweep(struct watch *watch) {
    int code = EXIT_OK;
    do {
        if (watch->experiment)
            pause_ms(SWEEP_MS); /* of many experiments there is always one with news */
        code = poll_experiment(watch, watch->experiment ? WAIT_S : 0);
        if (!code && watch->changed)
            code = show(watch);
    } while (!code && !(watch->experiment && !(watch->lost_at > 0) &&
                        state_is_final(value_string(watch->experiment, "state"))));
    return code;
}

static int watch_one(struct cli *cli, const char *id, bool sweep) {
    struct watch watch = {.cli = cli, .id = id, .sweep = sweep, .loss = NAN, .near_zero = NAN};
    watch.live = terminal_is(STDOUT_FILENO) && !cli->options.json;
    watch.sse = calloc(1, sizeof *watch.sse);
    if (!watch.sse)
        return api_complain_memory();
    watch.sse->event = on_event;
    watch.sse->context = &watch;
    int code = sweep ? follow_sweep(&watch) : follow_experiment(&watch);
    if (!code)
        code = conclude(&watch);
    json_decref(watch.experiment);
    free(watch.text);
    free(watch.sse);
    return code;
}

int watch_experiment(struct cli *cli, const char *id) {
    return watch_one(cli, id, false);
}

int watch_sweep(struct cli *cli, const char *id) {
    return watch_one(cli, id, true);
}

int command_watch(struct cli *cli) {
    return watch_experiment(cli, cli->args[0]);
}
