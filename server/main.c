/* ovrd: puts the parts together and waits for signals. The one file that sees everything. */
#include "api/api.h"
#include "core/linalg.h"
#include "server/checkpoint.h"
#include "server/leftovers.h"
#include "server/log.h"
#include "server/retention.h"
#include "server/settings.h"
#include "server/user_command.h"
#include "server/weights.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { SLOW_WAITING = 32 };  /* encode requests and the like; more get 503 */
enum { SLURM_SECONDS = 30 }; /* that a call of one of Slurm's programs may take */
enum { DRAIN_SECONDS = 6 };  /* of the 10 s within which SIGTERM ends the process */
/* /readyz says that the workers are stuck when serve() has not come round for so long. */
enum { STUCK_MS = 30000 };

/* What a control group may take; 0: no limit, or no such group. */
static int64_t cgroup_limit(const char *group) {
    char name[1024];
    long long limit = 0;
    if (snprintf(name, sizeof name, "/sys/fs/cgroup%s/memory.max", group) >= (int)sizeof name)
        return 0;
    FILE *file = fopen(name, "re");
    if (file && fscanf(file, "%lld", &limit) != 1) /* "max" */
        limit = 0;
    if (file)
        fclose(file);
    return limit > 0 ? limit : 0;
}

/* Memory of the machine, or what its container or service may take where that is less. */
static int64_t memory_budget(const struct settings *settings) {
    if (settings->memory_bytes)
        return settings->memory_bytes;
    int64_t bytes = (int64_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE);
    char group[900] = "";
    FILE *file = fopen("/proc/self/cgroup", "re");
    if (file && fscanf(file, "0::%899[^\n]", group) != 1)
        group[0] = '\0';
    if (file)
        fclose(file);
    /* Each group above counts too; a container sees its own as the root. */
    for (char *slash = group + strlen(group); slash; slash = strrchr(group, '/')) {
        *slash = '\0';
        int64_t limit = cgroup_limit(group);
        bytes = limit && limit < bytes ? limit : bytes;
    }
    return bytes / 10 * 8;
}

/* The data directory, made if missing, and held: two daemons on one directory would run every job
 * twice. */
static int take_data_dir(const char *path, int *lock, struct ovr_err *err) {
    char name[1024];
    if (mkdir(path, 0755) && errno != EEXIST)
        return ovr_fail(err, OVR_IO, "--data-dir", "cannot make the data directory %s: %s", path,
                        strerror(errno));
    if (snprintf(name, sizeof name, "%s/lock", path) >= 480)
        return ovr_fail(err, OVR_INVALID, "--data-dir", "the path is longer than 470 characters");
    *lock = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (*lock < 0)
        return ovr_fail(err, OVR_IO, "--data-dir", "cannot write into %s: %s", path,
                        strerror(errno));
    if (flock(*lock, LOCK_EX | LOCK_NB))
        return ovr_fail(err, OVR_CONFLICT, "--data-dir",
                        "another ovrd works on %s; stop it or choose another --data-dir", path);
    return 0;
}

struct daemon {
    int lock;
    struct store *store;
    struct catalog catalog;
    struct cache cache;
    struct disk disk;
    struct api api;
    char srun[512];
    char *shared_dir; /* the data directory, as nodes see it; NULL: they don't */
    struct http *http;
    struct gate *gate;
    struct retention *retention;
};

/* That encode, predict and draw, beside the jobs. */
static int slow_threads(void) {
    return cpu_count() > 1 ? 2 : 1;
}

/* A file that a setting may name; "none" is none. */
static const char *path_of(const char *setting) {
    return strcmp(setting, "none") ? setting : NULL;
}

static int open_data(struct daemon *d, const struct settings *settings,
                     const struct kernels *kernels, struct ovr_err *err) {
    char path[512];
    int requeued = 0;
    int rc = take_data_dir(settings->data_dir, &d->lock, err);
    if (rc)
        return rc;
    disk_init(&d->disk, settings->data_dir);
    snprintf(path, sizeof path, "%s/ovrd.sqlite3", settings->data_dir);
    rc = store_open(&d->store, path, (int)settings->http_threads + slow_threads() + 2, err);
    if (!rc)
        store_set_quotas(d->store, &(struct quotas){settings->user_running, settings->user_queued,
                                                    settings->user_storage_bytes});
    if (!rc && path_of(settings->admin_token_file))
        rc = admin_from_file(d->store, settings->admin_token_file, err);
    if (!rc)
        rc = catalog_init(&d->catalog, settings->data_dir, d->store, err);
    d->catalog.max_bytes = (uint64_t)settings->max_upload_bytes;
    if (!rc)
        rc = cache_init(&d->cache, settings->data_dir, &d->catalog, kernels,
                        (uint64_t)settings->cache_bytes, err);
    if (!rc)
        rc = weights_init(settings->data_dir, err);
    if (!rc)
        rc = checkpoint_init(settings->data_dir, err);
    if (!rc)
        rc = store_recover(d->store, (int)settings->max_crashes, &requeued, err);
    if (!rc && requeued)
        log_line(LOG_INFO, "%d experiment%s ran when the daemon ended and %s back in the queue",
                 requeued, requeued == 1 ? "" : "s", requeued == 1 ? "is" : "are");
    int leftovers = rc ? 0 : leftovers_sweep_all(d->store, settings->data_dir);
    if (leftovers)
        log_line(LOG_INFO, "removed files or directories that no experiment needs: %d", leftovers);
    return rc;
}

/* Faults of ours are worth a look; a server that is full or closing says so by 503. */
static void log_request(void *context, int status, const char *line) {
    (void)context;
    log_line(status >= 500 && status != 503 ? LOG_WARN : LOG_DEBUG, "%s", line);
}

static void log_trouble(void *context, const char *line) {
    (void)context;
    log_line(LOG_WARN, "%s", line);
}

/* How people come in. */
static int open_gate(struct daemon *d, const struct settings *settings, struct http_config *http,
                     struct ovr_err *err) {
    const struct gate_config gate = {
        .store = d->store,
        .requests_per_second = (double)settings->requests_per_second,
        .failures_per_minute = (double)settings->failures_per_minute,
    };
    int64_t users, admins;
    int rc = gate_new(&d->gate, &gate, err);
    if (!rc)
        rc = store_count_users(d->store, &users, &admins, err);
    if (rc)
        return rc;
    d->api.gate = d->gate;
    http->everywhere = admins > 0;
    http->host_names = path_of(settings->host_names);
    http->max_per_address = (int)settings->connections_per_address;
    http->least_body_rate = (uint64_t)settings->least_body_rate;
    http->tls_cert = path_of(settings->tls_cert);
    http->tls_key = path_of(settings->tls_key);
    if (!http->tls_cert != !http->tls_key)
        return ovr_fail(err, OVR_INVALID, "--tls-cert",
                        "--tls-cert and --tls-key go together: give both or none");
    return 0;
}

static int find_kernels(const struct settings *settings, const struct kernels **kernels,
                        struct ovr_err *err) {
    enum isa isa = ISA_AUTO;
    for (enum isa level = ISA_BASELINE; level <= ISA_AVX512; level++)
        if (strcmp(settings->isa, isa_name(level)) == 0)
            isa = level;
    *kernels = kernels_get(isa);
    return *kernels ? 0
                    : ovr_fail(err, OVR_INVALID, "--isa",
                               "this processor does not run %s; use --isa auto", settings->isa);
}

static struct cluster_rules cluster_rules(const struct settings *settings) {
    return (struct cluster_rules){.there = strcmp(settings->slurm, "on") == 0,
                                  .cores = (int)settings->slurm_cores,
                                  .rank_bytes = settings->slurm_node_bytes,
                                  .above_bytes = settings->slurm_above_bytes,
                                  .above_core_hours = (double)settings->slurm_above_hours};
}

static int open_pool(struct daemon *d, const struct settings *settings, struct ovr_err *err) {
    const struct admission *admission = &d->api.admission;
    int workers = settings->workers ? (int)settings->workers : admission->cores;
    const struct queue_rules rules = {.half_life_ms = settings->half_life_s * 1000,
                                      .memory_bytes = admission->memory_bytes,
                                      .max_losses = (int)settings->max_crashes};
    const struct pool_config pool = {
        .workplace = {.store = d->store,
                      .cache = &d->cache,
                      .kernels = d->api.kernels,
                      .data_dir = settings->data_dir,
                      .disk = &d->disk,
                      .checkpoint_seconds = (int)settings->checkpoint_s},
        .workers = workers,
        .cores = admission->cores,
        .memory_bytes = admission->memory_bytes,
        .stuck_ms = STUCK_MS,
    };
    log_line(LOG_INFO, "ovrd %s, %s kernel %s, isa %s, %d cores, %d workers, %.1f GiB for jobs",
             OVRD_VERSION, linalg_library(), linalg_kernel(), isa_name(d->api.kernels->isa),
             pool.cores, workers, (double)pool.memory_bytes / (1 << 30));
    store_set_rules(d->store, &rules);
    return pool_start(&d->api.pool, &pool, err);
}

/* A node would look for the daemon on itself. */
static int is_loopback(const char *url) {
    static const char *const hosts[] = {"://127.", "://localhost", "://[::1]"};
    for (int i = 0; i < 3; i++)
        if (strstr(url, hosts[i]))
            return 1;
    return 0;
}

/* A search or a chain may have waited for it. */
static void cluster_ended(void *context, const char *id) {
    const struct daemon *d = context;
    work_forget(&d->api.work, id);
    pool_wake(d->api.pool);
}

static int open_cluster(struct daemon *d, const struct settings *settings, struct ovr_err *err) {
    const char *directory = path_of(settings->slurm_directory);
    const char *options = path_of(settings->slurm_options);
    snprintf(d->srun, sizeof d->srun, "%s%ssrun", directory ? directory : "", directory ? "/" : "");
    const struct cluster_config config = {
        .store = d->store,
        .slurm = {.directory = directory ? directory : "",
                  .options = options ? options : "",
                  .timeout_s = SLURM_SECONDS},
        .orders = {.url = settings->worker_url,
                   .ca = path_of(settings->worker_ca),
                   .worker = settings->slurm_worker,
                   .srun = d->srun,
                   .blas_kernel = linalg_named_kernel(),
                   .cores = (int)settings->slurm_cores,
                   .max_minutes = (int)settings->slurm_max_minutes},
        .jobs = (int)settings->slurm_jobs,
        .poll_s = (int)settings->slurm_poll_s,
        .lease_s = (int)settings->slurm_lease_s,
        .ended = cluster_ended,
        .context = d,
    };
    if (!path_of(settings->worker_url))
        return ovr_fail(err, OVR_INVALID, "--worker-url",
                        "--slurm on needs --worker-url: where the nodes of the cluster reach this "
                        "daemon, such as http://ovrd.lab.org:8080");
    if (is_loopback(settings->worker_url))
        log_line(LOG_WARN,
                 "--worker-url %s is this machine alone: workers on other nodes will not reach it",
                 settings->worker_url);
    int rc = slurm_check(&config.slurm, err);
    return rc ? rc : cluster_start(&d->api.cluster, &config, err);
}

/* What a daemon with --slurm on has sent, and this one will not look after. */
static int warn_of_attempts(struct store *store, struct ovr_err *err) {
    struct attempt *list;
    size_t n;
    int rc = store_list_attempts(store, &list, &n, err);
    if (!rc && n)
        log_line(LOG_WARN,
                 "%zu experiment%s on the cluster, and this daemon was started without --slurm on: "
                 "what workers report is taken, but nobody notices when one is lost; cancel such "
                 "experiments, or start with --slurm on",
                 n, n == 1 ? " is" : "s are");
    free(list);
    return rc;
}

/* Who runs experiments, and what tells why they wait. */
static int open_executors(struct daemon *d, const struct settings *settings, struct ovr_err *err) {
    struct executors *executors = &d->api.executors;
    int rc = open_pool(d, settings, err);
    if (rc)
        return rc;
    executors->list[executors->n++] = pool_executor(d->api.pool);
    int there = d->api.admission.cluster.there;
    rc = there ? open_cluster(d, settings, err) : warn_of_attempts(d->store, err);
    if (rc)
        return rc;
    if (there)
        executors->list[executors->n++] = cluster_executor(d->api.cluster);
    const struct queue_config queue = {
        .store = d->store,
        .pool = d->api.pool,
        .half_life_ms = settings->half_life_s * 1000,
        .cluster_jobs = d->api.cluster ? (int)settings->slurm_jobs : 0,
        .cluster = d->api.cluster,
    };
    return queue_new(&d->api.queue, &queue, err);
}

/* What requests work with. */
static int open_api(struct daemon *d, const struct settings *settings, struct ovr_err *err) {
    const struct admission *admission = &d->api.admission;
    const struct models_config models = {
        .store = d->store,
        .catalog = &d->catalog,
        .kernels = d->api.kernels,
        .data_dir = settings->data_dir,
        .limit_bytes = (uint64_t)settings->model_cache_bytes,
        .use_bytes = (uint64_t)admission->memory_bytes / 8,
        .cores = admission->cores,
    };
    int rc = models_new(&d->api.models, &models, err);
    rc = rc ? rc : outcomes_new(&d->api.outcomes, d->store, err);
    return rc ? rc : watch_start(&d->api.watch, &d->api, (int)settings->max_watchers, err);
}

static int open_http(struct daemon *d, const struct settings *settings, const char **url,
                     struct ovr_err *err) {
    struct http_config http = {
        .listen = settings->listen,
        .threads = (int)settings->http_threads,
        .slow_threads = slow_threads(),
        .max_waiting = SLOW_WAITING,
        .max_connections = (int)settings->max_connections,
        .idle_timeout_s = (int)settings->idle_timeout_s,
        .max_body_bytes = (size_t)settings->max_body_bytes,
        .max_upload_bytes = (uint64_t)settings->max_upload_bytes,
        .routes = api_routes,
        .context = &d->api,
        .admit = api_admit,
        .act = api_act,
        .log = log_request,
        .trouble = log_trouble,
        .observe = api_observe,
    };
    int rc = open_gate(d, settings, &http, err);
    return rc ? rc : http_start(&d->http, &http, url, err);
}

static int start(struct daemon *d, const struct settings *settings, const char **url,
                 struct ovr_err *err) {
    const struct kernels *kernels;
    int rc = find_kernels(settings, &kernels, err);
    rc = rc ? rc : open_data(d, settings, kernels, err);
    if (rc)
        return rc;
    if (strcmp(settings->slurm_shared_data, "yes") == 0 &&
        !(d->shared_dir = realpath(settings->data_dir, NULL)))
        return ovr_fail(err, OVR_IO, "--data-dir", "the path of %s can't be found out: %s",
                        settings->data_dir, strerror(errno));
    d->api = (struct api){
        .store = d->store,
        .catalog = &d->catalog,
        .admission = {d->store, memory_budget(settings), cpu_count(), linalg_speed(), &d->catalog,
                      strcmp(settings->visibility, "private") == 0, cluster_rules(settings)},
        .data_dir = settings->data_dir,
        .disk = &d->disk,
        .keep_backups = (int)settings->keep_backups,
        .kernels = kernels,
        .work = {d->store, settings->data_dir, &d->disk},
        .terms = {.isa = settings->isa,
                  .shared_dir = d->shared_dir,
                  .threads = (int)settings->slurm_cores,
                  .checkpoint_seconds = (int)settings->checkpoint_s,
                  .lease_seconds = (int)settings->slurm_lease_s},
    };
    rc = open_executors(d, settings, err);
    rc = rc ? rc : open_api(d, settings, err);
    rc = rc ? rc : open_http(d, settings, url, err);
    const struct prune_site site = {d->store, &d->catalog, settings->data_dir};
    const struct retention_rules rules = {settings->retention_days,
                                          settings->retention_failed_days};
    return rc ? rc : retention_start(&d->retention, &site, &rules, err);
}

static pthread_t main_thread;

static void hand_on(int signal) {
    pthread_kill(main_thread, signal);
}

/* Every thread from here on inherits the mask, so that only serve() sees the signals. One that a
 * library started before main(), as OpenBLAS does, has no mask: the kernel gives them to it
 * whenever serve() is not waiting just then, and without a handler it would end the process. */
static void take_signals(sigset_t *signals) {
    static const int ours[] = {SIGTERM, SIGINT, SIGHUP};
    struct sigaction action = {.sa_handler = hand_on, .sa_flags = SA_RESTART};
    main_thread = pthread_self();
    sigemptyset(signals);
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
        sigaddset(signals, ours[i]);
    pthread_sigmask(SIG_BLOCK, signals, NULL);
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
        sigaction(ours[i], &action, NULL);
}

/* Until SIGTERM or SIGINT; SIGHUP takes the certificate anew. */
static void serve(struct daemon *d, const sigset_t *signals) {
    const struct timespec tick = {.tv_nsec = 100 * 1000 * 1000};
    for (;;) {
        int signal = sigtimedwait(signals, NULL, &tick);
        executors_reap(&d->api.executors);
        http_tick(d->http);
        gate_tick(d->gate);
        if (signal == SIGHUP)
            http_reload(d->http);
        if (signal == SIGTERM || signal == SIGINT) {
            log_line(LOG_INFO, "%s: draining", signal == SIGTERM ? "SIGTERM" : "SIGINT");
            return;
        }
    }
}

static void stop(struct daemon *d) {
    if (d->api.pool)
        pool_drain(d->api.pool); /* jobs end while the last replies go out */
    retention_stop(d->retention);
    http_stop(d->http);
    cluster_stop(d->api.cluster);
    if (d->api.pool && pool_stop(d->api.pool, DRAIN_SECONDS)) {
        /* A worker sits in a computation that can't be interrupted. Its experiment is still running
         * in the store and goes back to the queue at the next start. */
        log_line(LOG_WARN, "a job did not stop in time; it goes on with the daemon");
        fflush(NULL);
        _exit(0);
    }
    watch_stop(d->api.watch);
    queue_free(d->api.queue);
    outcomes_free(d->api.outcomes);
    models_free(d->api.models);
    gate_free(d->gate);
    cache_release(&d->cache);
    store_close(d->store);
    disk_release(&d->disk);
    free(d->shared_dir);
    if (d->lock > 0)
        close(d->lock);
}

static int print_version(const struct settings *settings) {
    char cpu[128];
    (void)settings;
    cpu_model(cpu, sizeof cpu);
    printf("ovrd %s\n%s, kernel %s\n%s, %d cores, %s\n", OVRD_VERSION, linalg_library(),
           linalg_kernel(), cpu, cpu_count(), isa_name(isa_best()));
    return fflush(stdout) ? 1 : 0;
}

static int complain(const struct ovr_err *err) {
    fprintf(stderr, "ovrd: %s\n", err->text);
    return err->code == OVR_INVALID ? 2 : 1;
}

/* On the data directory itself, which no daemon may have at the same time. */
static int run_user_command(const struct user_command *command, const struct settings *settings) {
    struct ovr_err err = {0};
    struct store *store = NULL;
    char path[512];
    int lock = -1, rc = take_data_dir(settings->data_dir, &lock, &err);
    if (rc == OVR_CONFLICT) {
        fprintf(stderr, "ovrd: a daemon works on %s; ask it instead: ovrctl user, ovrctl token\n",
                settings->data_dir);
        return 1;
    }
    snprintf(path, sizeof path, "%s/ovrd.sqlite3", settings->data_dir);
    if (!rc)
        rc = store_open(&store, path, 1, &err);
    if (!rc)
        rc = user_command_run(command, store, stdout, &err);
    store_close(store);
    if (lock >= 0)
        close(lock);
    return rc ? complain(&err) : 0;
}

int main(int argc, char **argv) {
    struct settings settings = {0};
    enum settings_action action;
    struct ovr_err err = {0};
    umask(umask(0) | S_IRWXO);                  /* what is private is in the files too */
    pthread_setname_np(pthread_self(), "ovrd"); /* linalg_start() may have made it "exe" */
    struct user_command command = {0};
    if (user_command_read(&command, &argc, argv, &err) ||
        settings_read(&settings, &action, argc, argv, &err))
        return complain(&err);
    if (command.verb && action == SETTINGS_RUN)
        return run_user_command(&command, &settings);
    if (action == SETTINGS_HELP || action == SETTINGS_MANUAL) {
        (action == SETTINGS_HELP ? settings_help : settings_manual)(stdout);
        return fflush(stdout) ? 1 : 0;
    }
    static const char *const levels[] = {"debug", "info", "warn", "error"};
    for (int i = 0; i < 4; i++)
        if (strcmp(settings.log_level, levels[i]) == 0)
            log_set_level((enum log_level)i);
    const char *kernel = strcmp(settings.blas_kernel, "auto") ? settings.blas_kernel : NULL;
    if (linalg_start(kernel, argv, &err))
        return complain(&err);
    if (action == SETTINGS_VERSION)
        return print_version(&settings);

    /* What a job frees goes back to the system; by default this threshold rises to 32 MiB. */
    mallopt(M_MMAP_THRESHOLD, 128 << 10);

    sigset_t signals;
    take_signals(&signals);
    signal(SIGPIPE, SIG_IGN);
    json_object_seed(0);

    struct daemon daemon = {0};
    const char *url;
    int rc = start(&daemon, &settings, &url, &err);
    if (!rc) {
        printf("listening on %s\n", url);
        fflush(stdout);
        serve(&daemon, &signals);
    }
    stop(&daemon);
    if (rc)
        return complain(&err);
    log_line(LOG_INFO, "stopped");
    return 0;
}
