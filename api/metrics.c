/* For those who run the daemon: Prometheus text, and whether it is ready. */
#include "server/metrics.h"
#include "api/api.h"
#include "core/linalg.h"
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

void api_observe(void *context, const struct route *route, int status, double seconds) {
    (void)context;
    ptrdiff_t row = route ? route - api_routes : MAX_ROUTES;
    int class = status / 100;
    atomic_fetch_add(
        &answered[row < MAX_ROUTES ? row : MAX_ROUTES][class > 0 && class < N_CLASSES ? class : 0],
        1);
    metrics_time(TIME_REQUEST, seconds);
}

static void head(FILE *out, const char *name, const char *type, const char *help) {
    fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void value(FILE *out, const char *name, const char *type, const char *help, double number) {
    head(out, name, type, help);
    fprintf(out, "%s %.17g\n", name, number);
}

static void put_requests(FILE *out) {
    static const char *const classes[N_CLASSES] = {"none", "1xx", "2xx", "3xx", "4xx", "5xx"};
    head(out, "ovrd_http_requests_total", "counter",
         "Requests by route and class of the answer's status.");
    size_t n = 0;
    while (api_routes[n].method)
        n++;
    for (size_t r = 0; r <= MAX_ROUTES; r++)
        for (int c = 0; c < N_CLASSES; c++)
            if (answered[r][c] && (r < n || r == MAX_ROUTES))
                fprintf(out,
                        "ovrd_http_requests_total{method=\"%s\",route=\"%s\",status=\"%s\"} %llu\n",
                        r < n ? api_routes[r].method : "none", r < n ? api_routes[r].path : "none",
                        classes[c], (unsigned long long)answered[r][c]);
}

static void put_timing(FILE *out, enum timer timer, const char *name, const char *help) {
    struct timing t = metrics_timing(timer);
    uint64_t below = 0;
    head(out, name, "histogram", help);
    for (int i = 0; i < TIMER_BUCKETS; i++) {
        below += t.within[i];
        fprintf(out, "%s_bucket{le=\"%.12g\"} %llu\n", name, timer_bounds[i],
                (unsigned long long)below);
    }
    uint64_t all = below > t.count ? below : t.count;
    fprintf(out, "%s_bucket{le=\"+Inf\"} %llu\n%s_sum %.17g\n%s_count %llu\n", name,
            (unsigned long long)all, name, t.seconds, name, (unsigned long long)all);
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

static void put_training(FILE *out, struct api *api) {
    value(out, "ovrd_running_jobs", "gauge", "Experiments on the workers now.",
          pool_running(api->pool));
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
    put_timing(out, TIME_WAIT, "ovrd_job_wait_seconds",
               "From posted to started, for the first time.");
    put_timing(out, TIME_JOB, "ovrd_job_duration_seconds",
               "From started to the end, of each attempt.");
    put_timing(out, TIME_STORE, "ovrd_store_commit_seconds", "Commits of the database, on disk.");
    put_timing(out, TIME_REQUEST, "ovrd_http_request_duration_seconds",
               "From the request line to the end of the answer.");
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
    char *text = NULL;
    size_t size = 0;
    if (store_census(api->store, &census, &err))
        return problem_from(&err);
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return NULL;
    head(out, "ovrd_build_info", "gauge", "Always 1; the labels say what runs.");
    fprintf(out, "ovrd_build_info{version=\"%s\",blas_kernel=\"%s\",isa=\"%s\"} 1\n", OVRD_VERSION,
            linalg_kernel(), isa_name(api->kernels->isa));
    put_census(out, &census);
    put_training(out, api);
    put_requests(out);
    value(out, "ovrd_disk_free_bytes", "gauge", "Room on the disk of the data directory.",
          (double)disk_free(api->disk));
    value(out, "ovrd_memory_budget_bytes", "gauge", "Memory for all running experiments together.",
          (double)api->admission.memory_bytes);
    put_process(out);
    int failed = ferror(out);
    if (fclose(out) || failed) {
        free(text);
        return NULL;
    }
    return reply_bytes(200, "text/plain; version=0.0.4; charset=utf-8", text, size);
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
        return reply_json(200, json_pack("{s:s}", "status", "ready"));
    return reply_header(reply, "Retry-After", "%d", RETRY_AFTER_S);
}
