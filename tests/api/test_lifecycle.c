/* From queued to a final state, through cancelling, failing, kill -9 and SIGTERM; and lists, pages
 * and conditional requests along the way. */
#include "tests/api/daemon.h"

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* Runs until somebody stops it. */
#define ENDLESS(more)                                                                              \
    "{'dataset':{'generator':'sphere'},'model':{'kind':'mlp','hidden':[64]},'training':{"          \
    "'epochs':100000,'threads':1" more "}}"
#define QUICK(more)                                                                                \
    "{'dataset':{'generator':'sphere','samples':100},'model':{'kind':'mlp','hidden':[8]},"         \
    "'training':{'epochs':1}" more "}"
/* A second or more, so that it can be caught in the middle. */
#if defined __SANITIZE_THREAD__
enum { LONGER_EPOCHS = 20 };
#elif defined __SANITIZE_ADDRESS__
enum { LONGER_EPOCHS = 60 };
#else
enum { LONGER_EPOCHS = 200 };
#endif
#define LONGER                                                                                     \
    "{'dataset':{'generator':'sphere','samples':3000,'seed':5},'model':{'kind':'mlp','hidden':["   \
    "100]},'loss':{'ovr':{'lambda':1e-4}},'training':{'epochs':%d,'batch_size':64,'threads':2}}",  \
        LONGER_EPOCHS

static const char *const one_worker[] = {"--workers", "1", NULL};

static int with_one_worker(void **state) {
    *state = daemon_new(one_worker);
    return 0;
}

#define with(set_up, test) cmocka_unit_test_setup_teardown(test, set_up, without_daemon)

static const struct answer *act(struct daemon *d, const char *id, const char *action) {
    return post(d, text("/v1/experiments/%s/%s", id, action), NULL);
}

static const struct answer *cancel(struct daemon *d, const char *id) {
    return act(d, id, "cancel");
}

static const json_t *show(struct daemon *d, const char *id) {
    return get(d, "/v1/experiments/%s", id)->json;
}

static void test_cancel_a_queued_one(void **state) {
    struct daemon *d = *state;
    char *blocker = submit(d, ENDLESS("")), *id = submit(d, QUICK(""));
    wait_for(d, blocker, "running");
    assert_string_equal(text_at(show(d, id), "/state"), "queued");
    const struct answer *a = cancel(d, id);
    assert_status(a, 202);
    assert_string_equal(text_at(a->json, "/state"), "cancelled");
    assert_json(a->json, "/started_at", "null");
    assert_json(a->json, "/queue", "null");
    assert_json(a->json, "/attempts", "0");
    assert_true(*text_at(a->json, "/finished_at"));
    assert_status(cancel(d, blocker), 202);
    free(blocker), free(id);
}

/* What waits for memory is passed by what fits, and says what it waits for. */
static void test_memory_holds_back_only_who_needs_it(void **state) {
    (void)state;
    struct daemon *d =
        daemon_new((const char *const[]){"--workers", "2", "--memory", "100M", NULL});
    static const char heavy[] = /* more than half of it */
        "{'dataset':{'generator':'sphere','samples':2000,'test_samples':20},"
        "'model':{'kind':'mlp','hidden':[65536]},'training':{'epochs':100000,'threads':1}}";
    char *running = submit(d, "%s", heavy);
    wait_for(d, running, "running");
    char *waiting = submit(d, "%s", heavy), *small = submit(d, QUICK(""));
    wait_for(d, small, "succeeded");
    const json_t *queue = at(show(d, waiting), "/queue");
    assert_string_equal(text_at(queue, "/reason_code"), "memory");
    assert_non_null(strstr(text_at(queue, "/reason"), "1st in line; needs 0.1 GiB of memory, 0.0 "
                                                      "GiB is free now"));
    assert_status(cancel(d, running), 202);
    wait_for(d, waiting, "running");
    free(running), free(waiting), free(small);
    daemon_free(d);
}

/* Within a second its worker is free for the next, though an epoch takes much longer. */
static void test_cancel_a_running_one(void **state) {
    struct daemon *d = *state;
    char *id =
        submit(d, "{'dataset':{'generator':'sphere','samples':2000000,'test_samples':10},"
                  "'model':{'kind':'mlp','hidden':[64]},'training':{'batch_size':4,'threads':"
                  "1}}");
    char *next = submit(d, ENDLESS(""));
    wait_for_epoch(d, id, 1);
    double started = now();
    const struct answer *a = cancel(d, id);
    assert_status(a, 202);
    assert_string_equal(text_at(a->json, "/state"), "cancelled");
    assert_json(a->json, "/progress", "null");
    assert_json(a->json, "/result", "null");
    wait_for(d, next, "running");
    assert_true(now() - started < 1.0 * SLOWNESS);
    double revision = number_at(show(d, id), "/revision");
    assert_status(cancel(d, id), 202); /* twice is fine, and changes nothing */
    assert_true(number_at(show(d, id), "/revision") == revision);
    /* What it measured until then stays. */
    wait_for_epoch(d, next, 3);
    assert_status(cancel(d, next), 202);
    const json_t *series = at(get(d, "/v1/experiments/%s/metrics", next)->json, "/series");
    assert_true(json_array_size(series) >= 2);
    assert_status(get(d, "/v1/experiments/%s/histogram", next), 200);
    free(id), free(next);
}

/* Also before the first step, while data are prepared: PCA of 3072 values takes seconds. */
static void test_cancel_while_preparing(void **state) {
    struct daemon *d = *state;
    upload_images(d, "images", 400, 10, 1);
    char *id = submit(d, "{'dataset':{'name':'images'},'preprocess':[{'pca':{'components':9}}],"
                         "'model':{'kind':'mlp','hidden':[8]}}");
    wait_for(d, id, "running");
    const struct answer *a = cancel(d, id);
    assert_status(a, 202);
    assert_string_equal(text_at(a->json, "/state"), "cancelled");
    char *next = submit(d, QUICK(""));
    wait_for(d, next, "succeeded");
    assert_string_equal(text_at(show(d, id), "/state"), "cancelled");
    assert_problem(get(d, "/v1/experiments/%s/weights", id), 404, "not-found", "cancelled");
    free(id), free(next);
}

static void test_cancel_what_is_over(void **state) {
    struct daemon *d = *state;
    char *id = submit(d, QUICK(""));
    wait_for(d, id, "succeeded");
    assert_problem(cancel(d, id), 409, "conflict", "succeeded");
    assert_string_equal(text_at(show(d, id), "/state"), "succeeded");
    assert_problem(cancel(d, "0000nothing0"), 404, "not-found", "0000nothing0");
    free(id);
}

static void test_ids_that_are_not_there(void **state) {
    struct daemon *d = *state;
    static const char *const ids[] = {"nobody",       "1",   "'%20OR%201=1--", "%25", "-1",
                                      "000000000000", "a;b", "%F0%9F%98%80"};
    static const char *const below[] = {"", "/metrics", "/histogram", "/weights",
                                        "/weights/encoder.bias"};
    for (size_t i = 0; i < COUNT(ids); i++)
        for (size_t k = 0; k < COUNT(below); k++)
            assert_problem(get(d, "/v1/experiments/%s%s", ids[i], below[k]), 404, "not-found",
                           "there is no experiment");
}

static void test_divergence_fails_and_says_why(void **state) {
    struct daemon *d = *state;
    static const char *const specs[] = {
        "{'dataset':{'generator':'sphere'},'model':{'kind':'mlp','hidden':[64]},'optimizer':{"
        "'learning_rate':1e30}}",
        "{'dataset':{'generator':'sphere'},'model':{'kind':'mlp','hidden':[64]},'optimizer':{"
        "'name':'sgd','learning_rate':1e30}}",
        "{'dataset':{'generator':'sphere'},'model':{'kind':'ovr_encoder','hidden':[64]},'loss':{"
        "'ovr':{'form':'raw','lambda':1e30},'activity':null},'optimizer':{'name':'sgd',"
        "'learning_rate':1e30}}",
    };
    for (size_t i = 0; i < COUNT(specs); i++) {
        char *id = submit(d, "%s", specs[i]);
        const json_t *e = wait_for(d, id, "failed")->json;
        assert_string_equal(text_at(e, "/error/type"), "/problems/diverged");
        assert_non_null(strstr(text_at(e, "/error/detail"), "step"));
        assert_non_null(strstr(text_at(e, "/error/detail"), "learning_rate"));
        assert_json(e, "/result", "null");
        assert_json(e, "/provenance", "null");
        assert_true(*text_at(e, "/finished_at"));
        assert_status(get(d, "/v1/experiments/%s/metrics", id), 200);
        assert_problem(get(d, "/v1/experiments/%s/weights", id), 404, "not-found", "is failed");
        assert_problem(cancel(d, id), 409, "conflict", "failed");
        free(id);
    }
    char *id = submit(d, QUICK(""));
    wait_for(d, id, "succeeded"); /* the daemon is fine */
    free(id);
}

static void test_time_limit(void **state) {
    struct daemon *d = *state;
    char *id = submit(d, ENDLESS(",'time_limit_seconds':0.3"));
    double started = now();
    const json_t *e = wait_for(d, id, "failed")->json;
    assert_true(now() - started > 0.25);
    assert_true(now() - started < 3.0 * SLOWNESS);
    assert_string_equal(text_at(e, "/error/type"), "/problems/time-limit");
    assert_string_equal(text_at(e, "/error/errors/0/pointer"), "/training/time_limit_seconds");
    assert_non_null(strstr(text_at(e, "/error/detail"), "0.3 s"));
    free(id);
}

/* Being paused or stopped makes no new limit, and the result counts all of it. */
static void test_time_of_all_attempts(void **state) {
    struct daemon *d = *state;
    char *id = submit(d, ENDLESS(",'time_limit_seconds':2"));
    wait_for_epoch(d, id, 2);
    nap(1200);
    assert_true(daemon_stop(d) < 10);
    daemon_start(d, one_worker);
    double started = now();
    assert_string_equal(text_at(wait_for(d, id, "failed")->json, "/error/type"),
                        "/problems/time-limit");
    assert_true(now() - started < 1.8 * SLOWNESS);
    char *longer = submit(d, LONGER);
    wait_for_epoch(d, longer, 2);
    nap(300);
    assert_true(daemon_stop(d) < 10);
    daemon_start(d, one_worker);
    const json_t *e = wait_for(d, longer, "succeeded")->json;
    double seconds = number_at(e, "/result/seconds");
    json_t *epochs = at(get(d, "/v1/experiments/%s/metrics", longer)->json, "/series");
    double sum = 0;
    for (size_t i = 0; i < json_array_size(epochs); i++)
        sum += number_at(json_array_get(epochs, i), "/seconds");
    assert_true(seconds > sum); /* which is that of both attempts */
    free(id), free(longer);
}

static void test_progress(void **state) {
    struct daemon *d = *state;
    char *id = submit(d, ENDLESS(""));
    wait_for_epoch(d, id, 3);
    const json_t *e = show(d, id);
    assert_string_equal(text_at(e, "/state"), "running");
    assert_string_equal(text_at(e, "/progress/phase"), "training");
    assert_true(number_at(e, "/progress/epoch") >= 3);
    assert_int_equal(number_at(e, "/progress/epochs"), 100000);
    assert_int_equal(number_at(e, "/progress/steps"), 100000 * 36); /* 4500 in 128s */
    assert_true(number_at(e, "/progress/step") >= 2 * 36);
    assert_true(number_at(e, "/progress/eta_seconds") > 1);
    assert_true(number_at(e, "/progress/samples_per_second") > 1);
    assert_int_equal(number_at(e, "/progress/threads"), 1);
    assert_json(e, "/queue", "null");
    assert_json(e, "/result", "null");
    assert_status(cancel(d, id), 202);
    free(id);
}

static void test_priority_then_age(void **state) {
    struct daemon *d = *state;
    char *blocker = submit(d, ENDLESS(""));
    wait_for(d, blocker, "running");
    static const int priorities[] = {0, 5, 0, -5, 5};
    static const int order[] = {1, 4, 0, 2, 3};
    char *ids[5];
    for (int i = 0; i < 5; i++)
        ids[i] = submit(d, QUICK(",'priority':%d"), priorities[i]);
    for (int i = 0; i < 5; i++)
        assert_int_equal(number_at(show(d, ids[order[i]]), "/queue/position"), i + 1);
    assert_status(cancel(d, blocker), 202);
    for (int i = 0; i < 5; i++)
        wait_for(d, ids[i], "succeeded");
    for (int i = 1; i < 5; i++) {
        const json_t *earlier = show(d, ids[order[i - 1]]), *later = show(d, ids[order[i]]);
        assert_true(strcmp(text_at(earlier, "/started_at"), text_at(later, "/started_at")) <= 0);
    }
    for (int i = 0; i < 5; i++)
        free(ids[i]);
    free(blocker);
}

/* ---- Ends of the daemon ---- */

static const char *weights_of(struct daemon *d, const char *id) {
    return text_at(wait_for(d, id, "succeeded")->json, "/provenance/weights/last_sha256");
}

static void check_continued(struct daemon *d, const char *id, const char *undisturbed) {
    assert_string_equal(weights_of(d, id), undisturbed);
    const json_t *e = show(d, id), *epoch;
    assert_json(e, "/attempts", "2");
    assert_json(e, "/error", "null");
    /* Each epoch once, also those of the first attempt. */
    const json_t *series = at(get(d, "/v1/experiments/%s/metrics", id)->json, "/series");
    size_t i;
    assert_int_equal(json_array_size(series), LONGER_EPOCHS);
    json_array_foreach(series, i, epoch) {
        assert_int_equal(number_at(epoch, "/epoch"), i + 1);
    }
    assert_status(get(d, "/v1/experiments/%s/weights/hidden.0.weight", id), 200);
}

static void test_kill_9_in_mid_training(void **state) {
    struct daemon *d = *state;
    char *first = submit(d, LONGER);
    const char *undisturbed = weights_of(d, first);
    char *id = submit(d, LONGER), *behind = submit(d, QUICK(""));
    wait_for_epoch(d, id, 5);
    daemon_kill(d);
    daemon_start(d, one_worker);
    check_continued(d, id, undisturbed);
    wait_for(d, behind, "succeeded");
    assert_json(show(d, behind), "/attempts", "1");
    assert_string_equal(weights_of(d, first), undisturbed);
    free(first), free(id), free(behind);
}

static size_t count_epochs(struct daemon *d, const char *id) {
    return json_array_size(at(get(d, "/v1/experiments/%s/metrics", id)->json, "/series"));
}

/* What has a final state is whole, however soon after it the daemon dies. */
static void test_kill_9_right_after_the_end(void **state) {
    struct daemon *d = *state;
    char *done = submit(d, "{'dataset':{'generator':'sphere','samples':100},'model':{'kind':'mlp',"
                           "'hidden':[8]},'training':{'epochs':50}}");
    wait_for(d, done, "succeeded");
    daemon_kill(d);
    daemon_start(d, one_worker);
    assert_string_equal(text_at(show(d, done), "/state"), "succeeded");
    assert_int_equal(count_epochs(d, done), 50);
    assert_status(get(d, "/v1/experiments/%s/weights/hidden.0.weight", done), 200);

    char *stopped = submit(d, ENDLESS(""));
    wait_for_epoch(d, stopped, 20);
    assert_status(cancel(d, stopped), 202);
    daemon_kill(d);
    daemon_start(d, one_worker);
    assert_string_equal(text_at(show(d, stopped), "/state"), "cancelled");
    assert_true(count_epochs(d, stopped) >= 19);
    free(done), free(stopped);
}

/* With a kernel of the user's choice OpenBLAS starts threads before main() does anything; that they
 * don't block signals must not make SIGTERM the end of all. */
static void test_sigterm_beside_threads_of_a_library(void **state) {
    (void)state;
    const char *before = getenv("OPENBLAS_CORETYPE");
    char *kept = before ? strdup(before) : NULL;
    setenv("OPENBLAS_CORETYPE", "Prescott", 1);
    struct daemon *d = daemon_new(one_worker);
    for (int i = 0; i < 12; i++) {
        daemon_stop(d);
        daemon_start(d, one_worker);
    }
    daemon_free(d);
    if (kept)
        setenv("OPENBLAS_CORETYPE", kept, 1);
    else
        unsetenv("OPENBLAS_CORETYPE");
    free(kept);
}

static void test_sigterm_in_mid_training(void **state) {
    struct daemon *d = *state;
    char *first = submit(d, LONGER);
    const char *undisturbed = weights_of(d, first);
    char *blocker = submit(d, ENDLESS(""));
    wait_for_epoch(d, blocker, 2);
    char *id = submit(d, LONGER);
    assert_status(cancel(d, blocker), 202);
    wait_for_epoch(d, id, 5);
    assert_true(daemon_stop(d) < 10); /* checks exit status 0 */
    daemon_start(d, one_worker);
    check_continued(d, id, undisturbed);
    free(first), free(blocker), free(id);
}

/* While it waits again, it says why. */
/* A thread that does not block SIGTERM, other than the main one, which waits for it; 0: none. */
static pid_t find_stray_thread(pid_t pid) {
    char line[128];
    pid_t stray = 0;
    DIR *tasks = opendir(text("/proc/%d/task", (int)pid));
    assert_non_null(tasks);
    for (struct dirent *entry; (entry = readdir(tasks));) {
        unsigned long blocked = ~0ul;
        FILE *file = fopen(text("/proc/%d/task/%s/status", (int)pid, entry->d_name), "re");
        while (file && fgets(line, sizeof line, file))
            sscanf(line, "SigBlk: %lx", &blocked);
        if (file)
            fclose(file);
        if (!(blocked >> (SIGTERM - 1) & 1) && atoi(entry->d_name) != pid)
            stray = atoi(entry->d_name);
    }
    closedir(tasks);
    return stray;
}

/* Where the environment names the kernel, OpenBLAS has a thread from before main(), to which the
 * system may give a signal while the main one has its hands full. */
static void test_sigterm_to_a_thread_of_a_library(void **state) {
    (void)state;
    int status;
    setenv("OPENBLAS_CORETYPE", "Prescott", 1); /* which every processor runs */
    struct daemon *d = daemon_new(NULL);
    unsetenv("OPENBLAS_CORETYPE");
    pid_t stray = find_stray_thread(d->pid);
    if (!stray) {
        daemon_free(d);
        skip(); /* one core, or another OpenBLAS */
    }
    assert_int_equal(syscall(SYS_tgkill, d->pid, stray, SIGTERM), 0);
    assert_int_equal(waitpid(d->pid, &status, 0), d->pid);
    assert_int_equal(status, 0);
    daemon_reaped(d);
    daemon_free(d);
}

static void test_the_reason_of_a_second_wait(void **state) {
    struct daemon *d = *state;
    char *id = submit(d, ENDLESS(""));
    wait_for_epoch(d, id, 3); /* two are done */
    char *urgent = submit(d, "{'priority':50,'dataset':{'generator':'sphere'},'model':{'kind':'mlp'"
                             ",'hidden':[64]},'training':{'epochs':100000,'threads':1}}");
    assert_true(daemon_stop(d) < 10);
    daemon_start(d, one_worker);
    wait_for(d, urgent, "running");
    const json_t *e = show(d, id);
    assert_string_equal(text_at(e, "/state"), "queued");
    assert_non_null(strstr(text_at(e, "/queue/requeued_because"), "shut down"));
    assert_json(e, "/started_at", "null");
    assert_true(json_array_size(at(get(d, "/v1/experiments/%s/metrics", id)->json, "/series")) >=
                2);
    daemon_kill(d);
    daemon_start(d, one_worker);
    wait_for(d, urgent, "running");
    assert_status(cancel(d, urgent), 202);
    wait_for(d, id, "running");
    assert_status(cancel(d, id), 202);
    free(id), free(urgent);
}

static void test_sigterm_with_an_empty_queue_is_quick(void **state) {
    struct daemon *d = *state;
    assert_status(get(d, "/healthz"), 200);
    assert_true(daemon_stop(d) < 1.0 * SLOWNESS);
    assert_int_equal(count_files(d, "/experiments"), 0);
    daemon_start(d, one_worker);
    assert_status(get(d, "/healthz"), 200);
}

static void test_crashes_are_counted(void **state) {
    (void)state;
    static const char *const options[] = {"--workers", "1", "--max-crashes", "2", NULL};
    struct daemon *d = daemon_new(options);
    char *id = submit(d, ENDLESS(""));
    wait_for_epoch(d, id, 2);
    daemon_kill(d);
    daemon_start(d, options);
    for (int i = 0; i < 2; i++) { /* to be shut down is no crash */
        wait_for_epoch(d, id, 2);
        daemon_stop(d);
        daemon_start(d, options);
    }
    wait_for(d, id, "running");
    assert_json(show(d, id), "/attempts", "4");
    for (int i = 0; i < 2; i++) { /* the checkpoint of the shutdown made the count start anew */
        wait_for(d, id, "running");
        daemon_kill(d);
        daemon_start(d, options);
    }
    const json_t *e = wait_for(d, id, "failed")->json;
    assert_string_equal(text_at(e, "/error/type"), "/problems/crashed");
    assert_non_null(strstr(text_at(e, "/error/detail"), "2 times"));
    char *next = submit(d, QUICK(""));
    wait_for(d, next, "succeeded");
    free(id), free(next);
    daemon_free(d);
}

#define LONG_RUN                                                                                   \
    "{'dataset':{'generator':'sphere','samples':4000},'model':{'kind':'mlp','hidden':[300,200],"   \
    "'dropout':0.2},'optimizer':{'learning_rate':0.01},'training':{'epochs':60},'probe':{'epochs'" \
    ":3}}"

/* However often it is interrupted, a run ends with the bits of one that was left alone, and has
 * each epoch once. */
static void test_kills_leave_no_trace(void **state) {
    (void)state;
    static const char *const options[] = {"--workers", "1", "--checkpoint", "1", NULL};
    struct daemon *d = daemon_new(options);
    char *alone = submit(d, LONG_RUN), *disturbed;
    wait_for(d, alone, "succeeded");
    disturbed = submit(d, LONG_RUN);
    for (int i = 0; i < 5; i++) {
        wait_for_epoch(d, disturbed, 8 * (i + 1));
        if (i % 2)
            daemon_kill(d);
        else
            daemon_stop(d);
        daemon_start(d, options);
    }
    wait_for(d, disturbed, "succeeded");
    assert_true(json_integer_value(at(show(d, disturbed), "/attempts")) > 3);
    static const char *const facts[] = {"/provenance/weights/best_sha256",
                                        "/provenance/weights/last_sha256", "/result/accuracy"};
    for (size_t i = 0; i < COUNT(facts); i++) {
        json_t *expected = json_incref(at(show(d, alone), facts[i]));
        assert_non_null(expected);
        assert_true(json_equal(at(show(d, disturbed), facts[i]), expected));
        json_decref(expected);
    }
    json_t *series = json_incref(at(get(d, "/v1/experiments/%s/metrics", alone)->json, "/series"));
    const json_t *other = at(get(d, "/v1/experiments/%s/metrics", disturbed)->json, "/series");
    assert_int_equal(json_array_size(other), json_array_size(series));
    for (size_t i = 0; i < json_array_size(series); i++)
        assert_true(json_equal(json_object_get(json_array_get(other, i), "digest"),
                               json_object_get(json_array_get(series, i), "digest")));
    json_decref(series);
    assert_int_equal(count_files(d, "/checkpoints"), 0);
    free(alone), free(disturbed);
    daemon_free(d);
}

/* Paused in the middle, over a restart, and left alone: the same weights. */
static void test_pause_and_resume(void **state) {
    (void)state;
    static const char *const options[] = {"--workers", "1", NULL};
    struct daemon *d = daemon_new(options);
    char *alone = submit(d, LONG_RUN);
    wait_for(d, alone, "succeeded");
    char *id = submit(d, LONG_RUN), *waiting = submit(d, QUICK(""));
    wait_for_epoch(d, id, 3);
    assert_status(act(d, waiting, "pause"), 202);
    assert_json(show(d, waiting), "/state", "'paused'");
    assert_status(act(d, id, "pause"), 202);
    wait_for(d, id, "paused");
    assert_json(show(d, id), "/queue", "null");
    assert_status(act(d, id, "pause"), 202);
    daemon_kill(d);
    daemon_start(d, options);
    assert_json(show(d, id), "/state", "'paused'");
    assert_int_equal(
        json_array_size(at(get(d, "/v1/experiments?state=paused")->json, "/experiments")), 2);
    assert_status(act(d, id, "resume"), 202);
    wait_for(d, id, "succeeded");
    assert_json(show(d, waiting), "/state", "'paused'"); /* nobody resumed it */
    assert_status(act(d, id, "pause"), 409);
    assert_status(act(d, id, "resume"), 409);
    assert_status(act(d, waiting, "cancel"), 202);
    assert_json(show(d, waiting), "/state", "'cancelled'");
    json_t *expected = json_incref(at(show(d, alone), "/provenance/weights/last_sha256"));
    assert_true(json_equal(at(show(d, id), "/provenance/weights/last_sha256"), expected));
    json_decref(expected);
    free(alone), free(id), free(waiting);
    daemon_free(d);
}

static void test_results_survive_a_restart(void **state) {
    struct daemon *d = *state;
    static const char *const below[] = {"",
                                        "/metrics",
                                        "/histogram",
                                        "/weights",
                                        "/weights/hidden.0.weight",
                                        "/weights/output.bias?format=npy"};
    const struct answer *before[COUNT(below)];
    char *id = submit(d, LONGER);
    wait_for(d, id, "succeeded");
    struct call retry = {.method = "POST",
                         .path = "/v1/experiments",
                         .headers = {"Idempotency-Key: once", "Content-Type: application/json"},
                         .body = "{\"dataset\":{\"generator\":\"sphere\",\"samples\":9},\"model\":"
                                 "{\"kind\":\"mlp\",\"hidden\":[2]},\"training\":{\"epochs\":1}}"};
    const char *once = text_at(call(d, &retry)->json, "/id");
    wait_for(d, once, "succeeded");
    for (size_t i = 0; i < COUNT(below); i++)
        before[i] = get(d, "/v1/experiments/%s%s", id, below[i]);
    daemon_kill(d);
    daemon_start(d, one_worker);
    for (size_t i = 0; i < COUNT(below); i++) {
        const struct answer *after = get(d, "/v1/experiments/%s%s", id, below[i]);
        assert_status(after, 200);
        assert_int_equal(after->size, before[i]->size);
        assert_memory_equal(after->body, before[i]->body, after->size);
        assert_string_equal(header(after, "ETag"), header(before[i], "ETag"));
    }
    assert_string_equal(text_at(call(d, &retry)->json, "/id"), once);
    free(id);
}

static void test_one_daemon_a_directory(void **state) {
    struct daemon *d = *state;
    char said[2000];
    const char *const options[] = {"--listen", "127.0.0.1:0", "--data-dir", d->dir, NULL};
    assert_int_not_equal(daemon_refuses(options, said, sizeof said), 0);
    assert_non_null(strstr(said, "another ovrd works on"));
    assert_non_null(strstr(said, d->dir));
    assert_status(get(d, "/healthz"), 200);
}

static void test_settings_that_cannot_be(void **state) {
    struct daemon *d = *state;
    char said[2000];
    const char *other = text("%s-other", d->dir);
    const char *const cases[][6] = {
        {"--listen", "0.0.0.0:0", "--data-dir", other, NULL},
        {"--listen", text("127.0.0.1:%d", d->port), "--data-dir", other, NULL},
        {"--listen", "nonsense", "--data-dir", other, NULL},
        {"--workers", "-1", NULL},
        {"--isa", "avx", NULL},
        {"--nonsense", NULL},
        {"--data-dir", "/proc/no/such", NULL},
    };
    static const char *const parts[] = {"no admin", "in use",     "no address",   "0..256",
                                        "baseline", "--nonsense", "/proc/no/such"};
    for (size_t i = 0; i < COUNT(cases); i++) {
        int status = daemon_refuses(cases[i], said, sizeof said);
        if (status <= 0 || !strstr(said, parts[i]))
            fail_msg("%s %s: status %d, \"%s\"", cases[i][0], cases[i][1] ? cases[i][1] : "",
                     status, said);
    }
    unlink(text("%s/ovrd.sqlite3", other));
    unlink(text("%s/lock", other));
    rmdir(text("%s/datasets", other));
    rmdir(text("%s/experiments", other));
    rmdir(other);
}

/* ---- Lists ---- */

static size_t count_list(struct daemon *d, const char *query) {
    const struct answer *a = get(d, "/v1/experiments?%s", query);
    assert_status(a, 200);
    return json_array_size(at(a->json, "/experiments"));
}

static void test_filters(void **state) {
    struct daemon *d = *state;
    char *done = submit(d, QUICK(",'name':'sphere-a','tags':['x','paper']"));
    wait_for(d, done, "succeeded");
    char *blocker = submit(d, ENDLESS(""));
    wait_for(d, blocker, "running");
    free(submit(d, QUICK(",'name':'sphere-b','tags':['x']")));
    free(submit(d, QUICK(",'name':'Sphere-c','tags':['a&b=c d','xx']")));
    free(submit(d, QUICK(",'name':'100%%_','tags':['λ']")));
    assert_int_equal(count_list(d, ""), 5);
    assert_int_equal(count_list(d, "state=queued"), 3);
    assert_int_equal(count_list(d, "state=running"), 1);
    assert_int_equal(count_list(d, "state=succeeded"), 1);
    assert_int_equal(count_list(d, "state=failed"), 0);
    assert_int_equal(count_list(d, "name=sphere"), 2);
    assert_int_equal(count_list(d, "name=sphere-b"), 1);
    assert_int_equal(count_list(d, "name=%25"), 0);
    assert_int_equal(count_list(d, "name=100%25_"), 1);
    assert_int_equal(count_list(d, "tag=x"), 2);
    assert_int_equal(count_list(d, "tag=pap"), 0);
    assert_int_equal(count_list(d, "tag=a%26b%3Dc+d"), 1);
    assert_int_equal(count_list(d, "tag=%CE%BB"), 1);
    assert_int_equal(count_list(d, "tag=x&state=queued&name=sphere"), 1);
    const json_t *list = get(d, "/v1/experiments?state=succeeded")->json;
    assert_json(list, "/experiments/0/id", text("'%s'", done));
    assert_true(number_at(list, "/experiments/0/result/accuracy") >= 0);
    assert_null(at(list, "/experiments/0/spec"));
    assert_problem(get(d, "/v1/experiments?state=done"), 422, "invalid-query", "succeeded");
    assert_problem(get(d, "/v1/experiments?cursor=abc"), 422, "invalid-query", "cursor");
    assert_status(cancel(d, blocker), 202);
    free(done), free(blocker);
}

/* The path in a Link with rel="next", or NULL. */
static char *next_page(const struct answer *a) {
    const char *link = header(a, "Link");
    if (!link)
        return NULL;
    const char *end = strchr(link, '>');
    assert_true(link[0] == '<' && end);
    assert_string_equal(end, ">; rel=\"next\"");
    return strndup(link + 1, (size_t)(end - link) - 1);
}

static void test_pages_stay_while_rows_are_added(void **state) {
    struct daemon *d = *state;
    enum { N = 11 };
    char *blocker = submit(d, ENDLESS(""));
    char *ids[N];
    wait_for(d, blocker, "running");
    for (size_t i = 0; i < N; i++)
        ids[i] = submit(d, QUICK(",'name':'page a&b','tags':['λ/%%']"));
    static const char filter[] = "name=page+a%26b&tag=%CE%BB/%25&state=queued";
    size_t seen = 0, pages = 0;
    char *page = strdup(text("/v1/experiments?limit=4&%s", filter));
    while (page) {
        const struct answer *a = get(d, "%s", page);
        assert_status(a, 200);
        size_t i;
        const json_t *e;
        json_array_foreach(at(a->json, "/experiments"), i, e) {
            assert_true(seen < N);
            assert_string_equal(text_at(e, "/id"), ids[N - 1 - seen]); /* newest first */
            seen++;
        }
        pages++;
        free(page);
        page = next_page(a);
        free(submit(d, QUICK(",'name':'page a&b','tags':['λ/%%']"))); /* shifts no page */
    }
    assert_int_equal(seen, N);
    assert_int_equal(pages, 3);
    /* A page that is exactly full has no next one. */
    size_t all = count_list(d, "limit=500");
    assert_null(header(get(d, "/v1/experiments?limit=%zu", all), "Link"));
    assert_non_null(header(get(d, "/v1/experiments?limit=%zu", all - 1), "Link"));
    assert_problem(get(d, "/v1/experiments?limit=0"), 422, "invalid-query", "1..500");
    assert_problem(get(d, "/v1/experiments?limit=501"), 422, "invalid-query", "1..500");
    for (size_t i = 0; i < N; i++)
        free(ids[i]);
    free(blocker);
}

/* ---- Conditional requests ---- */

static const struct answer *get_if_changed(struct daemon *d, const char *path, const char *tags) {
    return call(d, &(struct call){.method = "GET",
                                  .path = path,
                                  .headers = {text("If-None-Match: %s", tags)}});
}

static void test_etag_and_304(void **state) {
    struct daemon *d = *state;
    static const char *const below[] = {"",
                                        "/log",
                                        "/metrics",
                                        "/histogram",
                                        "/weights",
                                        "/weights/hidden.0.bias",
                                        "/weights/hidden.0.bias?format=npy"};
    char *id = submit(d, QUICK(""));
    wait_for(d, id, "succeeded");
    for (size_t i = 0; i < COUNT(below); i++) {
        char path[128], tag[64];
        snprintf(path, sizeof path, "/v1/experiments/%s%s", id, below[i]);
        const struct answer *full = get(d, "%s", path);
        assert_status(full, 200);
        assert_non_null(header(full, "ETag"));
        snprintf(tag, sizeof tag, "%s", header(full, "ETag"));
        assert_true(tag[0] == '"' && tag[strlen(tag) - 1] == '"');
        const struct answer *a = get_if_changed(d, path, tag);
        assert_status(a, 304);
        assert_int_equal(a->size, 0);
        assert_string_equal(header(a, "ETag"), tag);
        assert_status(get_if_changed(d, path, text("\"other\", W/%s", tag)), 304);
        assert_status(get_if_changed(d, path, "*"), 304);
        a = get_if_changed(d, path, "\"other\"");
        assert_status(a, 200);
        assert_int_equal(a->size, full->size);
    }
    free(id);
}

/* Nothing of a body follows a 304 or a HEAD, also where the body would come in chunks: it would be
 * taken for the beginning of the next reply. */
static void test_nothing_follows_a_reply_without_body(void **state) {
    struct daemon *d = *state;
    static const char *const lines[][2] = {{"GET", "If-None-Match: *\r\n"}, {"HEAD", ""}};
    char *id = submit(d, QUICK(""));
    wait_for(d, id, "succeeded");
    for (size_t i = 0; i < COUNT(lines); i++) {
        const char *sent = text("%s /v1/experiments/%s/weights/hidden.0.bias HTTP/1.1\r\n"
                                "Host: localhost\r\n%s\r\n",
                                lines[i][0], id, lines[i][1]);
        const char *reply = raw(d, sent, strlen(sent), 0), *end = strstr(reply, "\r\n\r\n");
        assert_non_null(strstr(reply, i ? "HTTP/1.1 200 " : "HTTP/1.1 304 "));
        assert_non_null(end);
        assert_string_equal(end + 4, "");
    }
    free(id);
}

static void test_etag_follows_a_running_one(void **state) {
    struct daemon *d = *state;
    char *blocker = submit(d, ENDLESS("")), *id = submit(d, QUICK(""));
    char path[64], waiting[64], metrics[64];
    wait_for_epoch(d, blocker, 2);
    snprintf(path, sizeof path, "/v1/experiments/%s", id);
    int tries = 0, status = 0; /* when it may start is told too, and changes now and then */
    for (; status != 304 && tries < 20; tries++) {
        snprintf(waiting, sizeof waiting, "%s", header(get(d, "%s", path), "ETag"));
        status = get_if_changed(d, path, waiting)->status;
    }
    assert_int_equal(status, 304);
    snprintf(metrics, sizeof metrics, "%s",
             header(get(d, "/v1/experiments/%s/metrics", blocker), "ETag"));
    const json_t *e = show(d, blocker);
    wait_for_epoch(d, blocker, (int)number_at(e, "/progress/epoch") + 2);
    double since = now(); /* epochs are written a few times a second */
    while (get_if_changed(d, text("/v1/experiments/%s/metrics", blocker), metrics)->status != 200)
        assert_true(now() - since < 0.25 * SLOWNESS);
    assert_status(cancel(d, blocker), 202);
    wait_for(d, id, "succeeded");
    assert_status(get_if_changed(d, path, waiting), 200);
    free(blocker), free(id);
}

/* Two waiting: when the first goes, the second moves up, and its tag changes. */
static void test_etag_knows_the_place_in_the_queue(void **state) {
    struct daemon *d = *state;
    char *blocker = submit(d, ENDLESS("")), *first = submit(d, QUICK("")),
         *id = submit(d, QUICK(""));
    wait_for(d, blocker, "running");
    char path[64], tag[64];
    snprintf(path, sizeof path, "/v1/experiments/%s", id);
    snprintf(tag, sizeof tag, "%s", header(get(d, "%s", path), "ETag"));
    assert_status(cancel(d, first), 202);
    const struct answer *a = get_if_changed(d, path, tag);
    assert_status(a, 200);
    assert_json(a->json, "/queue/position", "1");
    assert_status(cancel(d, blocker), 202);
    free(blocker), free(first), free(id);
}

static void test_many_at_once(void **state) {
    (void)state;
    struct daemon *d = daemon_new(NULL);
    char *ids[40];
    for (size_t i = 0; i < COUNT(ids); i++)
        ids[i] = submit(d, QUICK(",'name':'%zu'"), i);
    const char *weights = NULL;
    for (size_t i = 0; i < COUNT(ids); i++) {
        const char *these = weights_of(d, ids[i]);
        assert_true(!weights || strcmp(weights, these) == 0);
        weights = these;
        free(ids[i]);
    }
    assert_int_equal(count_list(d, "state=succeeded"), COUNT(ids));
    assert_int_equal(count_files(d, "/experiments"), COUNT(ids));
    daemon_free(d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        with(with_one_worker, test_cancel_a_queued_one),
        with(with_one_worker, test_cancel_a_running_one),
        cmocka_unit_test(test_memory_holds_back_only_who_needs_it),
        with(with_one_worker, test_cancel_while_preparing),
        with(with_one_worker, test_cancel_what_is_over),
        with(with_daemon, test_ids_that_are_not_there),
        with(with_daemon, test_divergence_fails_and_says_why),
        with(with_one_worker, test_time_limit),
        with(with_one_worker, test_time_of_all_attempts),
        with(with_one_worker, test_progress),
        with(with_one_worker, test_priority_then_age),
        with(with_one_worker, test_kill_9_in_mid_training),
        with(with_one_worker, test_kill_9_right_after_the_end),
        with(with_one_worker, test_sigterm_in_mid_training),
        cmocka_unit_test(test_sigterm_to_a_thread_of_a_library),
        with(with_one_worker, test_the_reason_of_a_second_wait),
        with(with_one_worker, test_sigterm_with_an_empty_queue_is_quick),
        cmocka_unit_test(test_crashes_are_counted),
        cmocka_unit_test(test_sigterm_beside_threads_of_a_library),
        cmocka_unit_test(test_kills_leave_no_trace),
        cmocka_unit_test(test_pause_and_resume),
        with(with_one_worker, test_results_survive_a_restart),
        with(with_daemon, test_one_daemon_a_directory),
        with(with_daemon, test_settings_that_cannot_be),
        with(with_one_worker, test_filters),
        with(with_one_worker, test_pages_stay_while_rows_are_added),
        with(with_daemon, test_etag_and_304),
        with(with_daemon, test_nothing_follows_a_reply_without_body),
        with(with_one_worker, test_etag_follows_a_running_one),
        with(with_one_worker, test_etag_knows_the_place_in_the_queue),
        cmocka_unit_test(test_many_at_once),
    };
    return cmocka_run_group_tests_name("life cycle", tests, NULL, NULL);
}
