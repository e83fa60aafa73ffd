/* The REST API: handlers between HTTP and the server. Data flows one way: a request is read into
 * structs, the server does the work, structs are written as JSON. api/routes.c lists every route.
 */
#ifndef API_API_H
#define API_API_H

#include "api/http.h"
#include "api/problem.h"
#include "api/watch.h"
#include "server/admission.h"
#include "server/catalog.h"
#include "server/model.h"
#include "server/pool.h"
#include "server/store.h"

/* What handlers work on; the context of every request. */
struct api {
    struct store *store;
    struct catalog *catalog;
    struct pool *pool;
    struct models *models; /* of finished experiments, to be applied */
    struct admission admission;
    const char *data_dir;
    const struct kernels *kernels;
    struct watch *watch;
};

/* All routes, for http_start(). */
extern const struct route api_routes[];

/* Counts an answer; for http_config.observe. */
void api_observe(void *context, const struct route *route, int status, double seconds);

/* JSON of the server's structs (api/json.c). All return NULL when memory runs out. */
json_t *json_experiment(struct api *api, const struct experiment *experiment, int with_spec,
                        struct ovr_err *err);
json_t *json_split(const struct dataset_split *split);
json_t *json_progress(struct api *api, const char *id); /* null: it does not run */
json_t *json_time(int64_t ms);                          /* null for 0 */
json_t *json_real_or_null(double value);

/* Puts a figure into an object; dots in its name nest. A value that was not finite becomes null and
 * its name goes to "nonfinite". Returns 0 or OVR_NOMEM. */
int json_put_figure(json_t *object, const struct figure *figure);

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
struct reply *handle_rerun(struct request *request);
struct reply *handle_replay(struct request *request);
struct reply *handle_submit_sweep(struct request *request); /* sweeps.c */
struct reply *handle_list_sweeps(struct request *request);
struct reply *handle_show_sweep(struct request *request);
struct reply *handle_cancel_sweep(struct request *request);
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
struct reply *handle_openapi(struct request *request);
struct reply *handle_dashboard(struct request *request); /* web.c */
struct reply *handle_asset(struct request *request);

extern const struct sink upload_sink, features_sink, labels_sink; /* datasets.c */
extern const struct sink samples_sink;                            /* apply.c */

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

/* A time of RFC 3339 in UTC, as milliseconds since 1970. */
struct reply *query_time(const struct request *request, const char *name, int64_t *ms);

/* The hidden layer that the query's `layer` names, "hidden.1" or "1". */
struct reply *query_layer(const struct request *request, int *layer);

/* "true" or "false"; *value stays as it is when the argument is absent. */
struct reply *query_bool(const struct request *request, const char *name, int *value);
/* A range first:end from the query, within 0..n and of at most `most`: both stay as they are when
 * the argument is absent. On failure returns the problem. */
struct reply *query_range(const struct request *request, const char *name, size_t n, size_t most,
                          size_t *first, size_t *end);

#endif
