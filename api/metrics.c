/* For those who run the daemon: Prometheus text, and whether it is ready. */
#include "server/metrics.h"
#include "api/api.h"
#include "core/linalg.h"
#include "server/files.h"
#include "server/log.h"

#include <dirent.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { MAX_ROUTES = 128, N_CLASSES = 6 };

/* By route and class of status; the last row is what fits no route. */
static _Atomic uint64_t answered[MAX_ROUTES + 1][N_CLASSES];
static struct stopwatch latency[MAX_ROUTES + 1];

void api_observe(void *context, const struct route *route, int status, double seconds) {
    (void)context;
    ptrdiff_t row = route ? route - api_routes : MAX_ROUTES;
    int class = status / 100;
    row = row < MAX_ROUTES ? row : MAX_ROUTES;
    atomic_fetch_add(&answered[row][class > 0 && class < N_CLASSES ? class : 0], 1);
    stopwatch_note(&latency[row], seconds);
}

static void head(FILE *out, const char *name, const char *type, const char *help) {
    fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void value(FILE *out, const char *name, const char *type, const char *help, double number) {
    head(out, name, type, help);
    fprintf(out, "%s %.17g\n", name, number);
}

/* A label's value, whatever is in it. */
static void put_label(FILE *out, const char *text) {
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            fputc('\\', out);
        fputc(*text == '\n' ? ' ' : *text, out);
    }
}

/* The samples of one histogram; labels is "" or ends with a comma. */
static void put_timing(FILE *out, const char *name, const char *labels, struct timing t) {
    uint64_t below = 0;
    int n = (int)strlen(labels);
    for (int i = 0; i < TIMER_BUCKETS; i++) {
        below += t.within[i];
        fprintf(out, "%s_bucket{%sle=\"%.12g\"} %llu\n", name, labels, timer_bounds[i],
                (unsigned long long)below);
    }
    uint64_t all = below > t.count ? below : t.count;
    fprintf(out, "%s_bucket{%sle=\"+Inf\"} %llu\n", name, labels, (unsigned long long)all);
    const char *open = n ? "{" : "", *close = n ? "}" : "";
    n -= n > 0; /* without the comma */
    fprintf(out, "%s_sum%s%.*s%s %.17g\n", name, open, n, labels, close, t.seconds);
    fprintf(out, "%s_count%s%.*s%s %llu\n", name, open, n, labels, close, (unsigned long long)all);
}

static void put_timer(FILE *out, enum timer timer, const char *name, const char *help) {
    head(out, name, "histogram", help);
    put_timing(out, name, "", metrics_timing(timer));
}

static void put_requests(FILE *out) {
    static const char *const classes[N_CLASSES] = {"none", "1xx", "2xx", "3xx", "4xx", "5xx"};
    static const char total[] = "ovrd_http_requests_total",
                      seconds[] = "ovrd_http_request_duration_seconds";
    char labels[MAX_ROUTES + 1][160];
    size_t n = 0;
    while (api_routes[n].method)
        n++;
    for (size_t r = 0; r <= MAX_ROUTES; r++)
        snprintf(labels[r], sizeof labels[r], "method=\"%s\",route=\"%.120s\",",
                 r < n ? api_routes[r].method : "none", r < n ? api_routes[r].path : "none");
    head(out, total, "counter", "Requests by route and class of the answer's status.");
    for (size_t r = 0; r <= MAX_ROUTES; r++)
        for (int c = 0; c < N_CLASSES; c++)
            if (answered[r][c])
                fprintf(out, "%s{%sstatus=\"%s\"} %llu\n", total, labels[r], classes[c],
                        (unsigned long long)answered[r][c]);
    head(out, seconds, "histogram", "From the request line to the end of the answer.");
    for (size_t r = 0; r <= MAX_ROUTES; r++)
        if (latency[r].count)
            put_timing(out, seconds, labels[r], stopwatch_read(&latency[r]));
}

static void put_census(FILE *out, const struct census *census) {
    head(out, "ovrd_experiments", "gauge", "Stored experiments by state.");
    for (int s = 0; s < N_STATES; s++)
        fprintf(out, "ovrd_experiments{state=\"%s\"} %lld\n", state_names[s],
                (long long)census->count[s]);
    head(out, "ovrd_oldest_experiment_age_seconds", "gauge",
         "Since the oldest one that waits or runs was posted; 0 without any.");
    for (int s = 0; s <= STATE_RUNNING; s++)
        fprintf(out, "ovrd_oldest_experiment_age_seconds{state=\"%s\"} %.3f\n", state_names[s],
                census->oldest_at[s] ? (double)(now_ms() - census->oldest_at[s]) / 1000 : 0);
}

static void put_load(FILE *out, const struct pool_view *view) {
    value(out, "ovrd_running_jobs", "gauge", "Experiments on the workers now.",
          (double)view->n_jobs);
    value(out, "ovrd_training_threads", "gauge", "Threads of those that compute.", view->threads);
    value(out, "ovrd_cores", "gauge", "Cores that teams of threads are cut from.", view->cores);
    value(out, "ovrd_memory_used_bytes", "gauge",
          "Memory of the running experiments, by their estimates.",
          (double)(view->memory_bytes - view->free_bytes));
    value(out, "ovrd_memory_budget_bytes", "gauge", "Memory for all running experiments together.",
          (double)view->memory_bytes);
    value(out, "ovrd_disk_full", "gauge", "1: no experiment is started for lack of room.",
          view->disk_full);
}

static void put_cluster(FILE *out, struct api *api) {
    struct cluster_view view;
    if (!api->cluster)
        return;
    cluster_view(api->cluster, &view);
    value(out, "ovrd_cluster_waiting_jobs", "gauge",
          "Experiments sent to the cluster whose worker has not begun.", view.sent);
    value(out, "ovrd_cluster_running_jobs", "gauge", "Experiments that workers there have begun.",
          view.running);
    value(out, "ovrd_cluster_up", "gauge", "1: Slurm answered the last call.", view.answers);
    value(out, "ovrd_cluster_blocked", "gauge",
          "1: nothing is sent to the cluster for now; the log and /readyz say why.",
          *view.trouble != '\0');
}

static void put_training(FILE *out, struct api *api) {
    value(out, "ovrd_watchers", "gauge", "Streams of events and requests that wait.",
          watch_count(api->watch));
    value(out, "ovrd_training_epochs_total", "counter", "Epochs trained.",
          (double)metrics_counter(COUNT_EPOCHS));
    value(out, "ovrd_training_steps_total", "counter", "Optimiser steps of the epochs trained.",
          (double)metrics_counter(COUNT_STEPS));
    value(out, "ovrd_training_samples_total", "counter",
          "Training samples seen in them; its rate is the speed of training.",
          (double)metrics_counter(COUNT_SAMPLES));
    value(out, "ovrd_upload_bytes_total", "counter", "Bytes of data sets received.",
          (double)metrics_counter(COUNT_UPLOAD_BYTES));
    value(out, "ovrd_cache_hits_total", "counter",
          "Jobs that found their prepared data in memory or on disk.",
          (double)metrics_counter(COUNT_CACHE_HITS));
    value(out, "ovrd_cache_misses_total", "counter", "Jobs that had to prepare their data.",
          (double)metrics_counter(COUNT_CACHE_MISSES));
    put_timer(out, TIME_WAIT, "ovrd_job_wait_seconds",
              "From posted to started, for the first time.");
    put_timer(out, TIME_JOB, "ovrd_job_duration_seconds",
              "From started to the end, of each attempt.");
    put_timer(out, TIME_STORE, "ovrd_store_commit_seconds", "Commits of the database, on disk.");
}

/* Rows of owners come in order; those beyond what is shown are added up. */
struct owners {
    FILE *out;
    char last[USER_NAME_SIZE];
    int n;
    int64_t others[N_STATES];
};

static void put_owner(void *context, const char *owner, enum state state, int64_t n) {
    struct owners *owners = context;
    if (!owners->n || strcmp(owners->last, owner) != 0) {
        owners->n++;
        snprintf(owners->last, sizeof owners->last, "%s", owner);
    }
    if (owners->n > METRICS_OWNERS) {
        owners->others[state] += n;
        return;
    }
    fputs("ovrd_owner_experiments{owner=\"", owners->out);
    put_label(owners->out, owner);
    fprintf(owners->out, "\",state=\"%s\"} %lld\n", state_names[state], (long long)n);
}

static int put_owners(FILE *out, struct api *api, struct ovr_err *err) {
    struct owners owners = {.out = out};
    struct owner_use used[METRICS_OWNERS + 1];
    head(out, "ovrd_owner_experiments", "gauge",
         "Experiments that have not ended, by owner (\"\": nobody) and state.");
    int rc = store_read_owners(api->store, put_owner, &owners, err);
    for (int s = 0; s < N_STATES; s++)
        if (owners.others[s])
            fprintf(out, "ovrd_owner_experiments{owner=\"%s\",state=\"%s\"} %lld\n", METRICS_OTHERS,
                    state_names[s], (long long)owners.others[s]);
    head(out, "ovrd_core_seconds_total", "counter",
         "Threads of training jobs times seconds, by owner.");
    int n = metrics_owners(used);
    for (int i = 0; i < n; i++) {
        fputs("ovrd_core_seconds_total{owner=\"", out);
        put_label(out, used[i].owner);
        fprintf(out, "\"} %.3f\n", used[i].core_seconds);
    }
    return rc;
}

/* What the files take, looked up once a minute: there may be many. */
enum { N_KINDS = 5, LOOK_MS = 60 * 1000 };
static struct {
    pthread_mutex_t lock;
    int64_t asked_at, bytes[N_KINDS];
} storage = {.lock = PTHREAD_MUTEX_INITIALIZER};
static const char *const storage_kinds[N_KINDS] = {"datasets", "checkpoints", "cache", "results",
                                                   "database"};

static void look_at_storage(const struct api *api) {
    struct ovr_err err = {0};
    for (int k = 0; k < 3; k++)
        storage.bytes[k] = files_bytes(api->data_dir, storage_kinds[k]);
    if (store_tensor_bytes(api->store, &storage.bytes[3], &err))
        log_line(LOG_WARN, "the results could not be measured: %s", err.text);
    storage.bytes[4] = files_bytes(api->data_dir, "."); /* and a reserve of a few MiB */
    storage.asked_at = watch_now();
}

static void put_storage(FILE *out, const struct api *api) {
    pthread_mutex_lock(&storage.lock);
    if (!storage.asked_at || watch_now() - storage.asked_at > LOOK_MS)
        look_at_storage(api);
    head(out, "ovrd_storage_bytes", "gauge",
         "Size of what is kept, by kind, as of within the last minute.");
    for (int k = 0; k < N_KINDS; k++)
        fprintf(out, "ovrd_storage_bytes{kind=\"%s\"} %lld\n", storage_kinds[k],
                (long long)storage.bytes[k]);
    pthread_mutex_unlock(&storage.lock);
    value(out, "ovrd_disk_free_bytes", "gauge", "Room on the disk of the data directory.",
          (double)disk_free(api->disk));
}

/* As the kernel has it: ticks after the boot, field 22 of /proc/self/stat, and the time of that. */
static double process_started(void) {
    char line[1024] = "", *end;
    unsigned long long ticks = 0, boot = 0;
    FILE *file = fopen("/proc/self/stat", "re");
    if (file && fgets(line, sizeof line, file) && (end = strrchr(line, ')')))
        sscanf(end + 1,
               " %*c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %llu",
               &ticks);
    if (file)
        fclose(file);
    file = fopen("/proc/stat", "re");
    while (file && fgets(line, sizeof line, file) && sscanf(line, "btime %llu", &boot) != 1)
        ;
    if (file)
        fclose(file);
    return (double)boot + (double)ticks / (double)sysconf(_SC_CLK_TCK);
}

static void put_process(FILE *out) {
    struct rusage usage = {0};
    struct rlimit files = {0};
    long long size = 0, resident = 0;
    int open = -3; /* ., .. and the directory itself */
    DIR *dir = opendir("/proc/self/fd");
    while (dir && readdir(dir))
        open++;
    if (dir)
        closedir(dir);
    FILE *statm = fopen("/proc/self/statm", "re");
    if (statm && fscanf(statm, "%lld %lld", &size, &resident) != 2)
        size = resident = 0;
    if (statm)
        fclose(statm);
    getrusage(RUSAGE_SELF, &usage);
    getrlimit(RLIMIT_NOFILE, &files);
    long page = sysconf(_SC_PAGESIZE);
    value(out, "process_start_time_seconds", "gauge", "Since 1970, when the process started.",
          process_started());
    value(out, "process_cpu_seconds_total", "counter", "Processor time used.",
          (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
              (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6);
    value(out, "process_resident_memory_bytes", "gauge", "Memory in use.",
          (double)(resident * page));
    value(out, "process_virtual_memory_bytes", "gauge", "Address space in use.",
          (double)(size * page));
    value(out, "process_open_fds", "gauge", "Open files.", open);
    value(out, "process_max_fds", "gauge", "Limit of open files.", (double)files.rlim_cur);
}

struct reply *handle_prometheus(struct request *request) {
    struct api *api = request->context;
    struct ovr_err err = {0};
    struct census census;
    struct pool_view view;
    char *text = NULL;
    size_t size = 0;
    if (store_census(api->store, &census, &err) || pool_view(api->pool, &view, &err))
        return problem_from(&err);
    free(view.jobs);
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return NULL;
    head(out, "ovrd_build_info", "gauge", "Always 1; the labels say what runs.");
    fprintf(out, "ovrd_build_info{version=\"%s\",blas_kernel=\"%s\",isa=\"%s\"} 1\n", OVRD_VERSION,
            linalg_kernel(), isa_name(api->kernels->isa));
    put_census(out, &census);
    put_load(out, &view);
    put_cluster(out, api);
    put_training(out, api);
    put_requests(out);
    int rc = put_owners(out, api, &err);
    put_storage(out, api);
    put_process(out);
    int failed = ferror(out) || rc;
    if (fclose(out) || failed) {
        free(text);
        return rc ? problem_from(&err) : NULL;
    }
    struct reply *reply = reply_bytes(200, "text/plain; version=0.0.4; charset=utf-8", text, size);
    return reply_header(reply, "Cache-Control", "%s", "no-store");
}

/* Readiness */

/* The last answer of the disk, for a second: who asks often must not cost the disk much. */
static struct {
    pthread_mutex_t lock;
    int64_t asked_at;
    struct ovr_err err;
} probe = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void probe_store(struct api *api, struct ovr_err *err) {
    pthread_mutex_lock(&probe.lock);
    int64_t now = now_ms();
    if (now - probe.asked_at > 1000 || now < probe.asked_at) {
        probe.asked_at = now;
        probe.err = (struct ovr_err){0};
        store_probe(api->store, &probe.err);
    }
    *err = probe.err;
    pthread_mutex_unlock(&probe.lock);
}

/* Without it the daemon's own machine works on, so that it is ready all the same. NULL: there is
 * none. */
static json_t *json_cluster(struct api *api) {
    struct cluster_view view;
    if (!api->cluster)
        return NULL;
    cluster_view(api->cluster, &view);
    return json_pack("{s:b, s:s*}", "answers", view.answers, "trouble",
                     *view.trouble ? view.trouble : NULL);
}

struct reply *handle_readyz(struct request *request) {
    enum { LEAST_FREE = 16 << 20, RETRY_AFTER_S = 5 };
    struct api *api = request->context;
    struct ovr_err err = {0};
    struct reply *reply;
    int64_t room = disk_free(api->disk);
    probe_store(api, &err);
    if (err.code)
        reply = problem(503, "not-ready", "%s", err.text);
    else if (disk_is_full(api->disk))
        reply = problem(503, "not-ready",
                        "the disk of the data directory was full and has %lld bytes left; make "
                        "room, until then no experiment is started",
                        (long long)room);
    else if (room >= 0 && room < LEAST_FREE)
        reply = problem(503, "not-ready", "the disk of the data directory has only %lld bytes left",
                        (long long)room);
    else if (!pool_alive(api->pool))
        reply = problem(503, "not-ready",
                        "the workers take no experiments: the daemon is stopping or stuck");
    else
        return reply_json(
            200, json_pack("{s:s, s:o*}", "status", "ready", "cluster", json_cluster(api)));
    return reply_header(reply, "Retry-After", "%d", RETRY_AFTER_S);
}
