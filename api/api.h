/* The REST API: handlers between HTTP and the server. Data flows one way: a request is read into
 * structs, the server does the work, structs are written as JSON. api/routes.c lists every route.
 */
#ifndef API_API_H
#define API_API_H

#include "api/http.h"
#include "api/outcomes.h"
#include "api/problem.h"
#include "api/watch.h"
#include "server/admission.h"
#include "server/catalog.h"
#include "server/cluster.h"
#include "server/gate.h"
#include "server/model.h"
#include "server/pool.h"
#include "server/queue.h"
#include "server/store.h"
#include "server/work.h"

/* What workers on a cluster are told. */
struct work_terms {
    const char *isa;        /* as the daemon's setting */
    const char *shared_dir; /* the data directory where nodes see it too; NULL: they don't */
    int threads;            /* of a rank, where the spec leaves it open */
    int checkpoint_seconds, lease_seconds;
};

/* What handlers work on; the context of every request. */
struct api {
    struct store *store;
    struct catalog *catalog;
    struct executors executors;
    struct pool *pool;       /* the first of them */
    struct cluster *cluster; /* the second; NULL: there is none */
    struct queue *queue;
    struct models *models; /* of finished experiments, to be applied */
    struct admission admission;
    const char *data_dir;
    struct disk *disk; /* that it is on */
    int keep_backups;  /* 0: all */
    const struct kernels *kernels;
    struct watch *watch;
    struct gate *gate;
    struct outcomes *outcomes;
    struct work work; /* of workers */
    struct work_terms terms;
};

/* All routes, for http_start(). */
extern const struct route api_routes[];

/* Counts an answer; for http_config.observe. */
void api_observe(void *context, const struct route *route, int status, double seconds);

/* Whether a request may come in, and whose it is; for http_config.admit and .act (api/auth.c). */
int api_admit(struct request *request, struct reply **refusal);
void api_act(const struct request *request);

/* "" for what is no token at all, which is as good as a wrong one. NULL: none was sent. */
const char *read_token(const struct request *request);

/* RFC 9530: Content-Digest: sha-256=:<base64>: — the hexadecimal form, or "" without one. On
 * failure returns the problem. */
struct reply *read_content_digest(const struct request *request, char hex[DIGEST_SIZE]);

/* JSON of the server's structs (api/json.c). Those that return JSON return NULL when memory runs
 * out. */
json_t *json_split(const struct dataset_split *split);
json_t *json_progress(struct api *api, const char *id); /* null: it does not run */
json_t *json_time(int64_t ms);                          /* null for 0 */
json_t *json_real_or_null(double value);
json_t *json_owner(const char *name); /* null for "" */

/* Where an experiment runs, or is to: executor, ranks, and the cluster's job and node. Returns 0 or
 * OVR_NOMEM. */
int json_put_place(json_t *object, const struct experiment *experiment);

/* Adds an experiment, of its whole or as in a list. `warnings`, which may be NULL, become a member
 * where there are any. */
int text_add_experiment(struct text *text, struct api *api, const struct experiment *experiment,
                        int whole, json_t *warnings, struct ovr_err *err);

/* Puts a figure into an object; dots in its name nest. A value that was not finite becomes null and
 * its name goes to "nonfinite". Returns 0 or OVR_NOMEM. */
int json_put_figure(json_t *object, const struct figure *figure);

/* The revision that If-Match asks for: *revision -1 for "*". what: "experiment" and the like. An
 * ETag begins with the revision; what follows is progress, which no edit depends on. */
struct reply *read_if_match(const struct request *request, const char *what, int64_t *revision);

/* What experiments and sweeps have in common, posted and listed. The posted document, whose
 * idempotency key and query are fine; else NULL and *refusal (NULL there too without memory). */
json_t *read_posted(struct request *request, int *dry_run, struct reply **refusal);
struct reply *reply_refused(int code, const char *detail, json_t *faults,
                            const struct ovr_err *err); /* a spec that could not be taken */
/* The experiment as an answer; `warnings`, which may be NULL, is taken over. */
struct reply *reply_experiment(struct api *api, int status, const char *id, json_t *warnings);

/* Whose spec is run again; id NULL: nobody's. */
struct origin {
    const char *id;
    int replays;
};
/* Reads the document into *spec, completes it, admits it and puts it into the queue. */
struct reply *submit_spec(struct request *request, json_t *document, struct spec *spec,
                          const struct origin *origin);
struct reply *check_key(const struct request *request); /* of idempotency; NULL: fine */
json_t *json_estimate(const struct cost *cost);
json_t *json_tags(const char *tags);
json_t *json_problem(const char *kind, const char *pointer, const char *detail); /* null: none */

/* Handlers, by file. */
struct reply *handle_submit(struct request *request); /* experiments.c */
struct reply *handle_list(struct request *request);
struct reply *handle_show(struct request *request);
struct reply *handle_cancel(struct request *request);
struct reply *handle_pause(struct request *request);
struct reply *handle_resume(struct request *request);
struct reply *handle_edit(struct request *request); /* manage.c */
struct reply *handle_backup(struct request *request);
struct reply *handle_delete(struct request *request);
struct reply *handle_prune(struct request *request);
struct reply *handle_rerun(struct request *request);
struct reply *handle_replay(struct request *request);
struct reply *handle_submit_sweep(struct request *request); /* sweeps.c */
struct reply *handle_list_sweeps(struct request *request);
struct reply *handle_show_sweep(struct request *request);
struct reply *handle_cancel_sweep(struct request *request);
struct reply *handle_queue(struct request *request);  /* queue.c */
struct reply *handle_events(struct request *request); /* events.c */
struct reply *handle_log(struct request *request);
struct reply *handle_metrics(struct request *request);   /* results.c */
struct reply *handle_histogram(struct request *request); /* histograms.c */
struct reply *handle_histograms(struct request *request);
struct reply *handle_compare(struct request *request);
struct reply *handle_units(struct request *request); /* units.c */
struct reply *handle_tiling(struct request *request);
struct reply *handle_weights(struct request *request); /* weights.c */
struct reply *handle_tensor(struct request *request);
struct reply *handle_model(struct request *request);   /* model.c */
struct reply *handle_filters(struct request *request); /* filters.c */
struct reply *handle_encode(struct request *request);  /* apply.c */
struct reply *handle_predict(struct request *request);
struct reply *handle_upload(struct request *request); /* datasets.c */
struct reply *handle_datasets(struct request *request);
struct reply *handle_dataset(struct request *request);
struct reply *handle_remove_dataset(struct request *request);
struct reply *handle_preview(struct request *request);    /* preview.c */
struct reply *handle_healthz(struct request *request);    /* system.c */
struct reply *handle_prometheus(struct request *request); /* metrics.c */
struct reply *handle_schema(struct request *request);     /* system.c */
struct reply *handle_readyz(struct request *request);
struct reply *handle_version(struct request *request);
struct reply *handle_problem(struct request *request);
struct reply *handle_openapi(struct request *request);
struct reply *handle_dashboard(struct request *request); /* web.c */
struct reply *handle_asset(struct request *request);
struct reply *handle_me(struct request *request); /* people.c */
struct reply *handle_users(struct request *request);
struct reply *handle_add_user(struct request *request);
struct reply *handle_user(struct request *request);
struct reply *handle_edit_user(struct request *request);
struct reply *handle_remove_user(struct request *request);
struct reply *handle_tokens(struct request *request);
struct reply *handle_add_token(struct request *request);
struct reply *handle_token(struct request *request);
struct reply *handle_revoke_token(struct request *request);
struct reply *handle_audit(struct request *request);
struct reply *handle_work(struct request *request); /* work.c */
struct reply *handle_work_data(struct request *request);
struct reply *handle_work_checkpoint(struct request *request);
struct reply *handle_work_upload(struct request *request);
struct reply *handle_report(struct request *request);

extern const struct sink upload_sink, features_sink, labels_sink; /* datasets.c */
extern const struct sink samples_sink;                            /* apply.c */
extern const struct sink checkpoint_sink, result_sink;            /* work.c */

/* Prefer: wait=N (RFC 7240). revision() reads what the request is about: *revision, and *seq of an
 * experiment, 0 for a sweep. Returns reply_later() while there is nothing new to answer with, else
 * NULL; the reply then goes through reply_preference(), which says so. */
struct reply *await_change(struct request *request,
                           int (*revision)(struct api *api, const char *id, int64_t *seq,
                                           int64_t *revision));
struct reply *reply_preference(const struct request *request, struct reply *reply);

/* A whole number from the query: *value stays as it is when the argument is absent. On failure
 * returns the problem. */
struct reply *query_int(const struct request *request, const char *name, int64_t min, int64_t max,
                        int64_t *value);

/* A time of RFC 3339, as milliseconds since 1970. */
struct reply *query_time(const struct request *request, const char *name, int64_t *ms);

/* The same of any text: 1 if it is one. */
int parse_time(const char *text, int64_t *ms);

/* Whose things a list is to show, from the query's `owner`, where "me" is who asks; NULL:
 * anybody's. */
const char *query_owner(const struct request *request);

/* Adds &name=value, escaped, to a query string; nothing for NULL, or where there is no room. */
void append_query(char *text, size_t size, const char *name, const char *value);

/* The hidden layer that the query's `layer` names, "hidden.1" or "1". */
struct reply *query_layer(const struct request *request, int *layer);

/* "true" or "false"; *value stays as it is when the argument is absent. */
struct reply *query_bool(const struct request *request, const char *name, int *value);
/* A range first:end from the query, within 0..n and of at most `most`: both stay as they are when
 * the argument is absent. On failure returns the problem. */
struct reply *query_range(const struct request *request, const char *name, size_t n, size_t most,
                          size_t *first, size_t *end);

#endif
