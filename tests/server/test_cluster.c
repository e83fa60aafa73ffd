/* The cluster's thread against programs that play Slurm's (tests/slurm/fake). Workers are played
 * by hand: through the store, as the API would. */
#include "server/cluster.h"
#include "server/work.h"
#include "tests/server/check.h"

#include <limits.h>
#include <stdarg.h>

#define SPEC                                                                                       \
    "{\"dataset\":{\"generator\":\"sphere\",\"samples\":200,\"test_samples\":50},"                 \
    "\"model\":{\"kind\":\"ovr_encoder\",\"hidden\":[300]},\"probe\":null,"                        \
    "\"training\":{\"epochs\":3,\"threads\":2}}"

enum { PATIENCE_MS = 20000 };

struct scene {
    struct place *place;
    struct store *store;
    struct cluster *cluster;
    struct cluster_config config;
    char bin[256];
    char ended[ID_SIZE]; /* the last one; read it after n_ended */
    _Atomic int n_ended;
};

static void format_path(const struct scene *scene, char path[256], const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static void format_path(const struct scene *scene, char path[256], const char *format, ...) {
    int n = snprintf(path, 256, "%s/", scene->place->dir);
    va_list args;
    va_start(args, format);
    vsnprintf(path + n, 256 - (size_t)n, format, args);
    va_end(args);
}

/* As the daemon does. */
static void note_end(void *context, const char *id) {
    struct scene *scene = context;
    work_forget(&(struct work){scene->store, scene->place->dir, NULL}, id);
    snprintf(scene->ended, sizeof scene->ended, "%s", id);
    scene->n_ended++;
}

/* Fake Slurm's directory, and the daemon's side without the thread. */
static void set_scene(struct scene *scene, void **state) {
    static const char *const programs[] = {"sbatch", "squeue", "scancel"};
    char path[256], relative[64], program[PATH_MAX];
    *scene = (struct scene){.place = *state};
    scene->store = scene->place->store;
    store_set_rules(scene->store, &(struct queue_rules){86400000, INT64_MAX, 3});
    static const char *const parts[] = {"bin", "jobs", "scripts", "checkpoints"};
    for (int i = 0; i < 4; i++) {
        format_path(scene, path, "%s", parts[i]);
        assert_int_equal(mkdir(path, 0755), 0);
    }
    for (int i = 0; i < 3; i++) {
        snprintf(relative, sizeof relative, "tests/slurm/fake/%s", programs[i]);
        assert_non_null(realpath(relative, program)); /* tests run at the top of the tree */
        format_path(scene, path, "bin/%s", programs[i]);
        assert_int_equal(symlink(program, path), 0);
    }
    format_path(scene, scene->bin, "bin");

    scene->config =
        (struct cluster_config){.store = scene->store,
                                .slurm = {.directory = scene->bin, .options = "", .timeout_s = 10},
                                .orders = {.url = "http://ovrd.lab:8080",
                                           .worker = "/opt/ovr-worker",
                                           .srun = "srun",
                                           .cores = 4},
                                .jobs = 10,
                                .poll_s = 1,
                                .lease_s = 60,
                                .ended = note_end,
                                .context = scene};
}

static void open_cluster(struct scene *scene) {
    struct ovr_err err = {0};
    assert_ok(cluster_start(&scene->cluster, &scene->config, &err), &err);
}

static void close_cluster(struct scene *scene) {
    cluster_stop(scene->cluster);
    scene->cluster = NULL;
}

static void wake(struct scene *scene) {
    struct executor executor = cluster_executor(scene->cluster);
    executor.submit(executor.context);
}

static void submit(struct scene *scene, char id[ID_SIZE]) {
    enqueue(scene->store,
            &(struct new_experiment){.spec = SPEC,
                                     .memory_bytes = 100 << 20,
                                     .core_seconds = 600,
                                     .executor = EXECUTOR_SLURM},
            id);
    if (scene->cluster)
        wake(scene);
}

static void put_file(const struct scene *scene, const char *name, const char *text) {
    char path[256];
    format_path(scene, path, "%s", name);
    write_whole(path, text, strlen(text));
}

static void remove_file(const struct scene *scene, const char *name) {
    char path[256];
    format_path(scene, path, "%s", name);
    assert_int_equal(unlink(path), 0);
}

/* "" where there is no such file. */
static char *file_text(const struct scene *scene, const char *name) {
    char path[256];
    size_t n;
    format_path(scene, path, "%s", name);
    return access(path, F_OK) == 0 ? read_whole(path, &n) : strdup("");
}

static int has(const struct scene *scene, const char *name, const char *words) {
    char *text = file_text(scene, name);
    int found = strstr(text, words) != NULL;
    free(text);
    return found;
}

static void await_in_file(struct scene *scene, const char *name, const char *words) {
    for (int waited = 0; !has(scene, name, words); waited += 20) {
        if (waited > PATIENCE_MS)
            fail_msg("there is no \"%s\" in %s", words, name);
        sleep_ms(20);
    }
}

static void set_job(const struct scene *scene, int job, const char *id, int attempt,
                    const char *state) {
    char name[32], text[128];
    snprintf(name, sizeof name, "jobs/%d", job);
    snprintf(text, sizeof text, "ovrd-%s-%d|%s\n", id, attempt, state);
    put_file(scene, name, text);
}

static struct attempt attempt_of(struct scene *scene, const char *id, char reason[128]) {
    struct experiment e = look_up(scene->store, id);
    struct attempt attempt;
    struct ovr_err err = {0};
    if (store_get_attempt(scene->store, e.seq, &attempt, reason, 128, &err))
        attempt = (struct attempt){0};
    experiment_release(&e);
    return attempt;
}

/* Until Slurm's number of it is in the store. */
static void await_job(struct scene *scene, const char *id, const char *job) {
    char reason[128];
    for (int waited = 0; strcmp(attempt_of(scene, id, reason).job, job); waited += 20) {
        if (waited > PATIENCE_MS)
            fail_msg("%s is not job %s", id, job);
        sleep_ms(20);
    }
}

static void await_reason(struct scene *scene, const char *id, const char *words) {
    char reason[128];
    do {
        static int waited;
        if ((waited += 20) > PATIENCE_MS)
            fail_msg("%s has no reason \"%s\" but \"%s\"", id, words, reason);
        sleep_ms(20);
        attempt_of(scene, id, reason);
    } while (!strstr(reason, words));
}

/* Until it is in this state, for this reason or with this problem. */
static void await(struct scene *scene, const char *id, enum state wanted, const char *words) {
    for (int waited = 0;; waited += 20) {
        struct experiment e = look_up(scene->store, id);
        const char *why = e.problem_detail ? e.problem_detail : e.queue_reason;
        int done = e.state == wanted && (!*words || (why && strstr(why, words)));
        if (!done && waited > PATIENCE_MS)
            fail_msg("%s is %s: %s", id, state_names[e.state], why ? why : "no reason");
        experiment_release(&e);
        if (done)
            return;
        sleep_ms(20);
    }
}

static struct cluster_view await_trouble(struct scene *scene, const char *words) {
    struct cluster_view view;
    for (int waited = 0;; waited += 20) {
        cluster_view(scene->cluster, &view);
        if (*words ? strstr(view.trouble, words) != NULL : !*view.trouble && view.answers)
            return view;
        if (waited > PATIENCE_MS)
            fail_msg("the trouble is \"%s\", not \"%s\"", view.trouble, words);
        sleep_ms(20);
    }
}

static void token_of(struct scene *scene, int job, char token[WORK_TOKEN_SIZE]) {
    char name[32];
    snprintf(name, sizeof name, "scripts/%d", job);
    await_in_file(scene, name, "token=");
    char *text = file_text(scene, name);
    snprintf(token, WORK_TOKEN_SIZE, "%s", strstr(text, "token=") + 6);
    free(text);
}

/* A report, and the API's word of it to the cluster. */
static int report(struct scene *scene, const char *token, const struct report *report,
                  struct ovr_err *err) {
    struct attempt attempt;
    int repeated, rc = store_find_attempt(scene->store, token, &attempt, NULL, err);
    if (!rc)
        rc = store_take_report(scene->store, &attempt, report, &repeated, err);
    if (!rc && scene->cluster)
        cluster_heard(scene->cluster, &attempt, &(struct progress){.epoch = 2, .threads = 2});
    return rc;
}

/* Job becomes one that runs, and its worker's first report comes. */
static void begin(struct scene *scene, int job, const char *id, int attempt,
                  char token[WORK_TOKEN_SIZE]) {
    struct ovr_err err = {0};
    token_of(scene, job, token);
    set_job(scene, job, id, attempt, "RUNNING|None|h1");
    assert_ok(report(scene, token, &(struct report){.number = 1, .node = "h1", .cores = 2}, &err),
              &err);
    assert_int_equal(state_of(scene->store, id), STATE_RUNNING);
}

static void from_the_queue_to_the_end(void **state) {
    struct scene scene;
    char id[ID_SIZE], token[WORK_TOKEN_SIZE], words[1024];
    struct ovr_err err = {0};
    struct progress progress;
    struct cluster_view view;
    set_scene(&scene, state);
    open_cluster(&scene);
    submit(&scene, id);
    await_job(&scene, id, "1");
    await_reason(&scene, id, "Priority");
    snprintf(words, sizeof words,
             "--job-name=ovrd-%s-1 --ntasks=1 --cpus-per-task=2 --mem-per-cpu=92M --time=30 "
             "--signal=B:TERM@60",
             id);
    await_in_file(&scene, "words",
                  words); /* 120 MiB in two cores; 600 s in two, by 4, and 10 min */
    assert_true(has(&scene, "scripts/1", "url=http://ovrd.lab:8080\ntoken=ovrw_"));
    assert_true(has(&scene, "scripts/1", "\nworker=/opt/ovr-worker\n"));
    struct executor executor = cluster_executor(scene.cluster);
    assert_int_equal(executor.poll(executor.context, id, &progress), 0);
    begin(&scene, 1, id, 1, token);
    assert_int_equal(executor.poll(executor.context, id, &progress), 1);
    assert_int_equal(progress.epoch, 2);
    cluster_view(scene.cluster, &view);
    assert_int_equal(view.running, 1);
    assert_int_equal(view.sent, 0);
    const struct outcome outcome = {.state = STATE_SUCCEEDED};
    const struct report last = {.number = 2, .end = END_OUTCOME, .outcome = &outcome};
    assert_ok(report(&scene, token, &last, &err), &err);
    set_job(&scene, 1, id, 1, "COMPLETED|None|h1");
    sleep_ms(2500);
    cluster_view(scene.cluster, &view);
    assert_int_equal(view.running + view.sent, 0);
    assert_false(has(&scene, "cancelled", "1")); /* it ends by itself */
    close_cluster(&scene);
}

/* No more than so many; the next as soon as one is over. */
static void the_queue_waits_here(void **state) {
    struct scene scene;
    char ids[3][ID_SIZE], token[WORK_TOKEN_SIZE];
    struct ovr_err err = {0};
    set_scene(&scene, state);
    scene.config.jobs = 2;
    open_cluster(&scene);
    for (int i = 0; i < 3; i++)
        submit(&scene, ids[i]);
    await_job(&scene, ids[1], "2");
    sleep_ms(300);
    char *third = file_text(&scene, "jobs/3");
    assert_string_equal(third, "");
    free(third);
    begin(&scene, 1, ids[0], 1, token);
    const struct outcome outcome = {.state = STATE_FAILED, .problem_kind = "diverged"};
    const struct report last = {.number = 2, .end = END_OUTCOME, .outcome = &outcome};
    assert_ok(report(&scene, token, &last, &err), &err);
    await_job(&scene, ids[2], "3");
    close_cluster(&scene);
}

/* Killed between the intent and sbatch: sent once, and what the first token was is worthless. */
static void intent_without_a_job(void **state) {
    struct scene scene;
    char id[ID_SIZE], first[WORK_TOKEN_SIZE], token[WORK_TOKEN_SIZE];
    struct attempt attempt;
    struct experiment e;
    struct ovr_err err = {0};
    set_scene(&scene, state);
    submit(&scene, id);
    assert_ok(store_begin_attempt(scene.store, &attempt, first, &e, &err), &err);
    experiment_release(&e);
    open_cluster(&scene);
    await_job(&scene, id, "1");
    token_of(&scene, 1, token);
    assert_string_not_equal(token, first);
    assert_int_equal(report(&scene, first, &(struct report){.number = 1, .node = "h1"}, &err),
                     OVR_NOT_FOUND);
    begin(&scene, 1, id, 1, token);
    sleep_ms(1500);
    char *second = file_text(&scene, "jobs/2");
    assert_string_equal(second, "");
    free(second);
    close_cluster(&scene);
}

/* Killed after sbatch, before its answer was noted: the job is found by its name. */
static void job_without_a_note(void **state) {
    struct scene scene;
    char id[ID_SIZE], token[WORK_TOKEN_SIZE];
    struct attempt attempt;
    struct experiment e;
    struct ovr_err err = {0};
    set_scene(&scene, state);
    submit(&scene, id);
    assert_ok(store_begin_attempt(scene.store, &attempt, token, &e, &err), &err);
    experiment_release(&e);
    set_job(&scene, 7, id, 1, "RUNNING|None|h2");
    open_cluster(&scene);
    await_job(&scene, id, "7");
    assert_ok(report(&scene, token, &(struct report){.number = 1, .node = "h2"}, &err), &err);
    await(&scene, id, STATE_RUNNING, "");
    close_cluster(&scene);
}

/* sbatch took it but never came back. */
static void no_answer_is_looked_up_by_name(void **state) {
    struct scene scene;
    char id[ID_SIZE];
    set_scene(&scene, state);
    scene.config.slurm.timeout_s = 1;
    scene.config.poll_s = 3; /* it is woken before it may ask */
    put_file(&scene, "mute", "");
    open_cluster(&scene);
    submit(&scene, id);
    for (int i = 0; i < 100; i++, sleep_ms(20))
        wake(&scene); /* whatever else happens meanwhile */
    await_job(&scene, id, "1");
    char *second = file_text(&scene, "jobs/2");
    assert_string_equal(second, "");
    free(second);
    await_trouble(&scene, "");
    close_cluster(&scene);
}

/* It hangs before: nothing was taken, so it is sent again. */
static void a_deaf_program(void **state) {
    struct scene scene;
    char id[ID_SIZE];
    set_scene(&scene, state);
    scene.config.slurm.timeout_s = 1;
    put_file(&scene, "deaf", "");
    open_cluster(&scene);
    submit(&scene, id);
    await_trouble(&scene, "did not end within 1 s");
    remove_file(&scene, "deaf");
    await_job(&scene, id, "1");
    close_cluster(&scene);
}

/* Everything waits, nobody is told ten times, and it goes on by itself. */
static void slurm_is_down(void **state) {
    struct scene scene;
    char id[ID_SIZE];
    set_scene(&scene, state);
    put_file(&scene, "down", "");
    open_cluster(&scene);
    submit(&scene, id);
    struct cluster_view view = await_trouble(&scene, "Unable to contact slurm controller");
    assert_int_equal(view.answers, 0);
    assert_int_equal(state_of(scene.store, id), STATE_QUEUED);
    remove_file(&scene, "down");
    await_job(&scene, id, "1");
    view = await_trouble(&scene, "");
    assert_int_equal(view.sent, 1);
    close_cluster(&scene);
}

static void refusals(void **state) {
    struct scene scene;
    char id[ID_SIZE], too_big[ID_SIZE];
    set_scene(&scene, state);
    put_file(&scene, "refuse", "sbatch: error: QOSMaxSubmitJobPerUserLimit\n");
    open_cluster(&scene);
    submit(&scene, id);
    await(&scene, id, STATE_QUEUED, "QOSMaxSubmitJobPerUserLimit");
    put_file(&scene, "refuse", "sbatch: error: Invalid partition name specified\n");
    await(&scene, id, STATE_QUEUED, "Invalid partition"); /* the next would not be taken either */
    remove_file(&scene, "refuse");
    await_job(&scene, id, "1");
    struct experiment e = look_up(scene.store, id);
    assert_int_equal(e.attempts, 1); /* refusals are none */
    experiment_release(&e);
    await_trouble(&scene, "");
    put_file(&scene, "refuse",
             "sbatch: error: Batch job submission failed: Requested node configuration is not "
             "available\n");
    submit(&scene, too_big);
    await(&scene, too_big, STATE_FAILED, "Requested node configuration is not available");
    for (int waited = 0; !scene.n_ended && waited < PATIENCE_MS; waited += 20)
        sleep_ms(20); /* it is told after the store */
    assert_int_equal(scene.n_ended, 1);
    assert_string_equal(scene.ended, too_big);
    close_cluster(&scene);
}

/* Whoever posts many that can never run must not hold up the others. */
static void too_large_ones_keep_nobody_waiting(void **state) {
    enum { MANY = 8 };
    struct scene scene;
    char ids[MANY][ID_SIZE];
    set_scene(&scene, state);
    put_file(&scene, "refuse", "sbatch: error: Requested node configuration is not available\n");
    for (int i = 0; i < MANY; i++)
        submit(&scene, ids[i]);
    open_cluster(&scene);
    for (int i = 0; i < MANY; i++)
        await(&scene, ids[i], STATE_FAILED, "Requested node configuration");
    remove_file(&scene, "refuse");
    submit(&scene, ids[0]);
    await_job(&scene, ids[0], "1");
    await_trouble(&scene, "");
    close_cluster(&scene);
}

static void cancelled_while_it_waits(void **state) {
    struct scene scene;
    char id[ID_SIZE];
    int was_running;
    struct ovr_err err = {0};
    set_scene(&scene, state);
    open_cluster(&scene);
    submit(&scene, id);
    await_job(&scene, id, "1");
    assert_ok(store_cancel(scene.store, id, &was_running, &err), &err);
    wake(&scene);
    await_in_file(&scene, "cancelled", "1\n");
    sleep_ms(2500);
    char *told = file_text(&scene, "cancelled");
    assert_string_equal(told, "1\n"); /* once */
    free(told);
    close_cluster(&scene);
}

static void paused_while_it_waits(void **state) {
    struct scene scene;
    char id[ID_SIZE];
    int was_running;
    struct ovr_err err = {0};
    set_scene(&scene, state);
    open_cluster(&scene);
    submit(&scene, id);
    await_job(&scene, id, "1");
    assert_ok(store_pause(scene.store, id, &was_running, &err), &err);
    wake(&scene);
    await_in_file(&scene, "cancelled", "1\n");
    assert_ok(store_resume(scene.store, id, &err), &err);
    wake(&scene);
    await_job(&scene, id, "2");
    close_cluster(&scene);
}

static void cancelled_while_it_runs(void **state) {
    struct scene scene;
    char id[ID_SIZE], token[WORK_TOKEN_SIZE];
    int was_running;
    struct ovr_err err = {0};
    set_scene(&scene, state);
    open_cluster(&scene);
    submit(&scene, id);
    await_job(&scene, id, "1");
    begin(&scene, 1, id, 1, token);
    assert_ok(store_cancel(scene.store, id, &was_running, &err), &err);
    assert_int_equal(was_running, 1);
    struct executor executor = cluster_executor(scene.cluster);
    executor.cancel(executor.context, id, STOP_CANCEL);
    await_in_file(&scene, "cancelled", "1\n");
    close_cluster(&scene);
}

/* Its worker is silent: another attempt, and nobody hears the old one. */
static void the_lease_runs_out(void **state) {
    struct scene scene;
    char id[ID_SIZE], token[WORK_TOKEN_SIZE], second[WORK_TOKEN_SIZE];
    struct ovr_err err = {0};
    set_scene(&scene, state);
    scene.config.lease_s = 2;
    open_cluster(&scene);
    submit(&scene, id);
    await_job(&scene, id, "1");
    begin(&scene, 1, id, 1, token);
    await_in_file(&scene, "cancelled", "1\n");
    await_job(&scene, id, "2");
    await_in_file(&scene, "jobs/2", "-2|PENDING");
    assert_int_equal(report(&scene, token, &(struct report){.number = 2}, &err), OVR_CONFLICT);
    begin(&scene, 2, id, 2, second);
    struct experiment e = look_up(scene.store, id);
    assert_int_equal(e.attempts, 2);
    experiment_release(&e);
    close_cluster(&scene);
}

static void nodes_fail(void **state) {
    struct scene scene;
    char id[ID_SIZE], token[WORK_TOKEN_SIZE];
    set_scene(&scene, state);
    open_cluster(&scene);
    submit(&scene, id);
    for (int n = 1; n <= 3; n++) { /* as often as the rules say */
        char job[16];
        snprintf(job, sizeof job, "%d", n);
        await_job(&scene, id, job);
        begin(&scene, n, id, n, token);
        set_job(&scene, n, id, n, "NODE_FAIL|NodeDown|h1");
    }
    await(&scene, id, STATE_FAILED, "Slurm says NODE_FAIL");
    close_cluster(&scene);
}

static void check_end(void **state, int begun, const char *status, enum state wanted,
                      const char *words) {
    struct scene scene;
    char id[ID_SIZE], token[WORK_TOKEN_SIZE], name[64], part[256];
    set_scene(&scene, state);
    open_cluster(&scene);
    submit(&scene, id);
    await_job(&scene, id, "1");
    if (begun)
        begin(&scene, 1, id, 1, token);
    snprintf(name, sizeof name, "checkpoints/%s.work-1.0", id);
    put_file(&scene, name, "a part of a checkpoint");
    format_path(&scene, part, "%s", name);
    set_job(&scene, 1, id, 1, status);
    await(&scene, id, wanted, words);
    close_cluster(&scene);
    assert_int_equal(access(part, F_OK) == 0, wanted == STATE_QUEUED);
}

static void somebody_uses_scancel(void **state) {
    check_end(state, 1, "CANCELLED|None|h1", STATE_FAILED, "job 1 was cancelled in Slurm");
}

/* The worker was quick enough to put it back into the queue; it is not sent for ever. */
static void scancel_is_meant(void **state) {
    struct scene scene;
    char id[ID_SIZE], token[WORK_TOKEN_SIZE];
    struct ovr_err err = {0};
    set_scene(&scene, state);
    open_cluster(&scene);
    submit(&scene, id);
    await_job(&scene, id, "1");
    begin(&scene, 1, id, 1, token);
    const struct report last = {.number = 2, .end = END_QUEUED, .reason = "SIGTERM"};
    assert_ok(report(&scene, token, &last, &err), &err);
    set_job(&scene, 1, id, 1, "CANCELLED|None|h1");
    await(&scene, id, STATE_FAILED, "job 1 was cancelled in Slurm");
    await_in_file(&scene, "cancelled", "2\n");
    close_cluster(&scene);
}

/* Preempted: the same, but it is to go on. */
static void preemption_is_not_meant(void **state) {
    struct scene scene;
    char id[ID_SIZE], token[WORK_TOKEN_SIZE];
    struct ovr_err err = {0};
    set_scene(&scene, state);
    open_cluster(&scene);
    submit(&scene, id);
    await_job(&scene, id, "1");
    begin(&scene, 1, id, 1, token);
    const struct report last = {.number = 2, .end = END_QUEUED, .reason = "SIGTERM"};
    assert_ok(report(&scene, token, &last, &err), &err);
    set_job(&scene, 1, id, 1, "PREEMPTED|None|h1");
    await_job(&scene, id, "2");
    sleep_ms(2500);
    assert_int_equal(state_of(scene.store, id), STATE_QUEUED);
    assert_false(has(&scene, "cancelled", "2"));
    close_cluster(&scene);
}

static void memory_runs_out(void **state) {
    check_end(state, 1, "OUT_OF_MEMORY|OutOfMemory|h1", STATE_FAILED, "more memory on h1 than");
}

static void a_worker_ends_without_a_word(void **state) {
    check_end(state, 1, "COMPLETED|None|h1", STATE_QUEUED, "without a last report");
}

static void a_worker_dies(void **state) {
    check_end(state, 1, "FAILED|NonZeroExitCode|h1", STATE_QUEUED, "Slurm says FAILED");
}

static void a_worker_never_comes(void **state) {
    check_end(state, 0, "FAILED|NonZeroExitCode|h1", STATE_QUEUED,
              "before its worker reached the daemon. /tmp/ovr-worker-1.out, on the first of its "
              "nodes, says why; does /opt/ovr-worker exist there, and does http://ovrd.lab:8080 "
              "answer from there?");
}

/* One that ended after its experiment was gone while no daemon was there, one that was sent twice,
 * and one of another daemon. */
static void orphans(void **state) {
    struct scene scene;
    char id[ID_SIZE], over[ID_SIZE];
    int was_running;
    struct ovr_err err = {0};
    set_scene(&scene, state);
    submit(&scene, over);
    assert_ok(store_cancel(scene.store, over, &was_running, &err), &err);
    set_job(&scene, 1, over, 1, "PENDING|Priority|");
    put_file(&scene, "jobs/2", "ovrd-aaaaaaaaaaaa-1|RUNNING|None|h1\n");
    put_file(&scene, "jobs/3", "somebody-elses|RUNNING|None|h1\n");
    put_file(&scene, "scripts/1", "");
    put_file(&scene, "scripts/2", "");
    put_file(&scene, "scripts/3", "");
    open_cluster(&scene);
    await_in_file(&scene, "cancelled", "1\n");
    submit(&scene, id);
    await_job(&scene, id, "4");
    close_cluster(&scene);
    set_job(&scene, 3, id, 1, "RUNNING|None|h1"); /* the older of two */
    open_cluster(&scene);
    await_in_file(&scene, "cancelled", "3\n");
    sleep_ms(1500);
    char *told = file_text(&scene, "cancelled");
    assert_string_equal(told, "1\n3\n");
    free(told);
    close_cluster(&scene);
}

/* A daemon that starts again finds what runs, and its lease starts anew. */
static void runs_on_without_a_daemon(void **state) {
    struct scene scene;
    char id[ID_SIZE], token[WORK_TOKEN_SIZE];
    struct ovr_err err = {0};
    struct cluster_view view;
    int requeued;
    set_scene(&scene, state);
    open_cluster(&scene);
    submit(&scene, id);
    await_job(&scene, id, "1");
    begin(&scene, 1, id, 1, token);
    close_cluster(&scene);
    reopen_store(scene.place);
    scene.store = scene.config.store = scene.place->store;
    assert_ok(store_recover(scene.store, 3, &requeued, &err), &err);
    assert_int_equal(requeued, 0);
    open_cluster(&scene);
    cluster_view(scene.cluster, &view);
    assert_int_equal(view.running, 1);
    assert_ok(report(&scene, token, &(struct report){.number = 2}, &err), &err);
    sleep_ms(1500);
    assert_int_equal(state_of(scene.store, id), STATE_RUNNING);
    close_cluster(&scene);
}

static void check_orders(const struct cluster_orders *orders, const char *words) {
    struct ovr_err err = {0};
    assert_int_equal(cluster_orders_check(orders, &err), OVR_INVALID);
    if (!strstr(err.text, words))
        fail_msg("%s", err.text);
}

static void nothing_dangerous_in_the_script(void **state) {
    struct cluster_orders good = {
        .url = "http://10.0.0.1:80", .worker = "/opt/ovr-worker", .srun = "srun", .cores = 1};
    struct ovr_err err = {0};
    char long_one[600];
    (void)state;
    assert_ok(cluster_orders_check(&good, &err), &err);
    struct cluster_orders bad = good;
    bad.url = "ftp://x";
    check_orders(&bad, "--worker-url must begin with http://");
    bad.url = "http://x\nEND\nrm";
    check_orders(&bad, "--worker-url may have letters");
    bad = good;
    bad.worker = "ovr-worker; reboot";
    check_orders(&bad, "--slurm-worker may have");
    bad = good;
    bad.ca = "/etc/$(x)";
    check_orders(&bad, "--worker-ca may have");
    memset(long_one, 'a', sizeof long_one - 1);
    long_one[sizeof long_one - 1] = '\0';
    bad.ca = long_one;
    check_orders(&bad, "at most 500");
}

static void ranks_and_limits(void **state) {
    struct cluster_orders orders = {.url = "http://h:1",
                                    .ca = "/etc/lab.pem",
                                    .worker = "ovr-worker",
                                    .srun = "/opt/bin/srun",
                                    .blas_kernel = "Haswell",
                                    .cores = 4,
                                    .max_minutes = 100};
    struct attempt attempt = {.id = "abc", .job_name = "ovrd-abc-2", .number = 2, .ranks = 3};
    struct experiment e = {.memory_bytes = 50 << 20, .core_seconds = 12 * 600};
    struct spec spec = {.threads = 0};
    struct slurm_job job;
    char script[CLUSTER_SCRIPT_SIZE];
    (void)state;
    cluster_describe(&orders, &attempt, "ovrw_x", &e, &spec, script, &job);
    assert_int_equal(job.ranks, 3);
    assert_int_equal(job.cores_per_rank, 4);
    assert_int_equal(job.memory_bytes_per_rank, (60 + 64) << 20);
    assert_int_equal(job.minutes, 50); /* 600 s with all 12 cores, by 4, and 10 minutes */
    assert_string_equal(script, "#!/bin/sh\n# Experiment abc of http://h:1, attempt 2\n"
                                "export OPENBLAS_CORETYPE=Haswell\n"
                                "worker=ovr-worker\ncommand -v $worker >/dev/null || {\n"
                                "    echo \"there is no $worker on $(hostname)\" >&2\n"
                                "    exit 127\n}\numask 077\n"
                                "order=$(mktemp) || exit 1\ntrap 'rm -f \"$order\"' EXIT\n"
                                "cat >\"$order\" <<'END' || exit 1\n"
                                "url=http://h:1\ntoken=ovrw_x\nca=/etc/lab.pem\nEND\n"
                                "/opt/bin/srun --mpi=pmix --export=ALL --kill-on-bad-exit=1 "
                                "--cpus-per-task=4 $worker \"$order\"\n");
    e.core_seconds = NAN;
    cluster_describe(&orders, &attempt, "ovrw_x", &e, &spec, script, &job);
    assert_int_equal(job.minutes, 100);
    orders.max_minutes = 0;
    cluster_describe(&orders, &attempt, "ovrw_x", &e, &spec, script, &job);
    assert_int_equal(job.minutes, 0);
    spec.time_limit_seconds = 3601;
    cluster_describe(&orders, &attempt, "ovrw_x", &e, &spec, script, &job);
    assert_int_equal(job.minutes, 71);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        with_store(nothing_dangerous_in_the_script),
        with_store(ranks_and_limits),
        with_store(from_the_queue_to_the_end),
        with_store(the_queue_waits_here),
        with_store(intent_without_a_job),
        with_store(job_without_a_note),
        with_store(no_answer_is_looked_up_by_name),
        with_store(a_deaf_program),
        with_store(slurm_is_down),
        with_store(refusals),
        with_store(too_large_ones_keep_nobody_waiting),
        with_store(cancelled_while_it_waits),
        with_store(paused_while_it_waits),
        with_store(cancelled_while_it_runs),
        with_store(the_lease_runs_out),
        with_store(nodes_fail),
        with_store(somebody_uses_scancel),
        with_store(scancel_is_meant),
        with_store(preemption_is_not_meant),
        with_store(memory_runs_out),
        with_store(a_worker_ends_without_a_word),
        with_store(a_worker_dies),
        with_store(a_worker_never_comes),
        with_store(orphans),
        with_store(runs_on_without_a_daemon),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
