/* GET /v1/queue: what runs, what waits, in which order and why. */
#include "api/api.h"

#include <math.h>
#include <stdlib.h>

/* Others' private experiments count, and show nothing of what they are. */
static int put_identity(json_t *entry, const struct experiment *e) {
    if (json_put_place(entry, e))
        return OVR_NOMEM;
    if (!may_see(e))
        return json_object_update_new(entry,
                                      json_pack("{s:n, s:n, s:n, s:n, s:n, s:b}", "id", "name",
                                                "owner", "sweep", "job", "private", 1));
    return json_object_update_new(entry,
                                  json_pack("{s:s, s:s, s:s?, s:s?, s:b}", "id", e->id, "name",
                                            e->name, "owner", *e->owner ? e->owner : NULL, "sweep",
                                            *e->sweep ? e->sweep : NULL, "private", e->private));
}

static json_t *json_running(const struct queue_snapshot *s, const struct pool_job *job,
                            const struct experiment *e) {
    int64_t ends_at =
        isnan(job->seconds_left) ? 0 : s->made_ms + (int64_t)(job->seconds_left * 1000);
    json_t *entry =
        json_pack("{s:i, s:i, s:I, s:o, s:o}", "priority", e->priority, "threads", job->threads,
                  "memory_bytes", (json_int_t)job->memory_bytes, "started_at",
                  json_time(job->started_ms), "estimated_end", json_time(ends_at));
    if (entry && put_identity(entry, e)) {
        json_decref(entry);
        return NULL;
    }
    return entry;
}

static json_t *json_waiting(const struct queue_snapshot *s, const struct plan_job *job,
                            const struct experiment *e) {
    struct queue_place place;
    queue_place(s, e, &place);
    json_t *entry = json_pack(
        "{s:I, s:i, s:I, s:o, s:o, s:s, s:s, s:o, s:s?}", "position", (json_int_t)place.position,
        "priority", e->priority, "memory_bytes", (json_int_t)job->memory_bytes, "core_seconds",
        json_real_or_null(job->core_seconds), "created_at", json_time(e->created_at), "reason",
        place.reason, "reason_code", place.reason_code, "estimated_start",
        json_time(place.starts_at), "requeued_because", e->queue_reason);
    if (entry && put_identity(entry, e)) {
        json_decref(entry);
        return NULL;
    }
    return entry;
}

/* The experiment of an entry. Returns 1 when it is there and in this state still. */
static int look_up(struct api *api, int64_t seq, enum state state, struct experiment *e) {
    if (store_get_numbered(api->store, seq, e, NULL))
        return 0;
    if (e->state == state)
        return 1;
    experiment_release(e);
    return 0;
}

static int add_running(json_t *list, const struct request *request, const struct queue_snapshot *s,
                       const struct pool_job *job) {
    struct experiment e;
    if (!look_up(request->context, job->seq, STATE_RUNNING, &e))
        return 0;
    int failed = json_array_append_new(list, json_running(s, job, &e));
    experiment_release(&e);
    return failed;
}

/* Here, and then on the cluster. */
static json_t *list_running(const struct request *request, const struct queue_snapshot *s) {
    json_t *list = json_array();
    int failed = !list;
    for (size_t i = 0; !failed && i < s->pool.n_jobs; i++)
        failed = add_running(list, request, s, &s->pool.jobs[i]);
    for (size_t i = 0; !failed && i < s->n_sent; i++) {
        const struct sent *sent = &s->sent[i];
        const struct pool_job job = {.seq = sent->seq,
                                     .started_ms = sent->begun_ms,
                                     .memory_bytes = sent->memory_bytes,
                                     .threads = sent->cores,
                                     .seconds_left = NAN};
        failed = sent->begun_ms && add_running(list, request, s, &job);
    }
    if (!failed)
        return list;
    json_decref(list);
    return NULL;
}

static json_t *list_waiting(const struct request *request, const struct queue_snapshot *s,
                            size_t first, size_t n) {
    json_t *list = json_array();
    struct experiment e;
    int failed = !list;
    for (size_t i = first; !failed && i < first + n; i++) {
        if (!look_up(request->context, s->jobs[i].seq, STATE_QUEUED, &e))
            continue;
        failed = json_array_append_new(list, json_waiting(s, &s->jobs[i], &e));
        experiment_release(&e);
    }
    if (!failed)
        return list;
    json_decref(list);
    return NULL;
}

/* Those of whom there is something to say. */
static json_t *list_users(const struct queue_snapshot *s) {
    json_t *list = json_array();
    int failed = !list;
    for (size_t i = 0; !failed && i < s->n_owners; i++) {
        const struct owner *o = &s->owners[i];
        if (!o->running && !o->waiting && o->use < 1)
            continue;
        json_t *limit = o->max_running < NO_LIMIT ? json_integer(o->max_running) : json_null();
        failed = json_array_append_new(
            list, json_pack("{s:s?, s:f, s:f, s:i, s:I, s:o}", "name", *o->name ? o->name : NULL,
                            "recent_core_seconds", o->use, "cores", o->cores, "running", o->running,
                            "waiting", (json_int_t)o->waiting, "max_running", limit));
    }
    if (!failed)
        return list;
    json_decref(list);
    return NULL;
}

static json_t *json_cluster(const struct queue_snapshot *s) {
    if (!s->cluster_jobs)
        return json_null();
    return json_pack("{s:i, s:I, s:I, s:s?}", "most", s->cluster_jobs, "sent",
                     (json_int_t)s->n_there, "running", (json_int_t)(s->n_sent - s->n_there),
                     "trouble", *s->cluster.trouble ? s->cluster.trouble : NULL);
}

static json_t *json_view(const struct request *request, const struct queue_snapshot *s,
                         size_t first, size_t n) {
    const struct pool_view *pool = &s->pool;
    return json_pack(
        "{s:o, s:o, s:I, s:o, s:{s:i, s:i}, s:{s:i, s:i}, s:{s:I, s:I}, s:o, s:f, s:o}", "running",
        list_running(request, s), "waiting", list_waiting(request, s, first, n), "waiting_total",
        (json_int_t)s->n_jobs, "users", list_users(s), "workers", "total", pool->workers, "busy",
        pool->busy, "cores", "total", pool->cores, "threads", pool->threads, "memory",
        "total_bytes", (json_int_t)pool->memory_bytes, "free_bytes", (json_int_t)pool->free_bytes,
        "cluster", json_cluster(s), "fair_share_half_life_seconds", s->half_life_ms / 1000, "at",
        json_time(s->made_ms));
}

struct reply *handle_queue(struct request *request) {
    struct api *api = request->context;
    struct queue_snapshot *s;
    struct ovr_err err = {0};
    int64_t limit = 50, after = 0;
    struct reply *reply = query_int(request, "limit", 1, 500, &limit);
    if (!reply)
        reply = query_int(request, "cursor", 1, INT64_MAX, &after);
    if (reply)
        return reply;
    if (queue_look(api->queue, &s, &err))
        return problem_from(&err);
    size_t first = min_size((size_t)after, s->n_jobs);
    size_t n = min_size((size_t)limit, s->n_jobs - first);
    reply = reply_json(200, json_view(request, s, first, n));
    if (first + n < s->n_jobs)
        reply = reply_header(reply, "Link", "</v1/queue?cursor=%zu&limit=%lld>; rel=\"next\"",
                             first + n, (long long)limit);
    queue_put(api->queue, s);
    return reply;
}
