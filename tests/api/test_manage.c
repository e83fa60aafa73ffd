/* Experiments edited, deleted, run again and replayed; lists by other orders; what an operator asks
 * the daemon. */
#include "tests/api/daemon.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define QUICK(more)                                                                                \
    "{'dataset':{'generator':'sphere','samples':100},'model':{'kind':'mlp','hidden':[8]},"         \
    "'training':{'epochs':3}" more "}"
#define ENDLESS                                                                                    \
    "{'dataset':{'generator':'sphere'},'model':{'kind':'mlp','hidden':[64]},'training':{"          \
    "'epochs':100000,'threads':1}}"

static const char *const one_worker[] = {"--workers", "1", NULL};

static int with_one_worker(void **state) {
    *state = daemon_new(one_worker);
    return 0;
}

static const struct answer *edit(struct daemon *d, const char *id, const char *etag,
                                 const char *json) {
    json_t *body = parse(json);
    char *bytes = json_dumps(body, JSON_COMPACT);
    struct call c = {.method = "PATCH",
                     .path = text("/v1/experiments/%s", id),
                     .headers = {"Content-Type: application/merge-patch+json"},
                     .body = bytes};
    if (etag)
        c.headers[1] = text("If-Match: %s", etag);
    const struct answer *a = call(d, &c);
    free(bytes);
    json_decref(body);
    return a;
}

static const struct answer *delete (struct daemon *d, const char *id) {
    return call(d, &(struct call){.method = "DELETE", .path = text("/v1/experiments/%s", id)});
}

static char *again(struct daemon *d, const char *id, const char *how, const char *patch) {
    const struct answer *a = post(d, text("/v1/experiments/%s/%s", id, how), patch);
    assert_status(a, 202);
    assert_string_equal(header(a, "Location"), text("/v1/experiments/%s", text_at(a->json, "/id")));
    assert_string_equal(text_at(a->json, "/rerun_of"), id);
    return strdup(text_at(a->json, "/id"));
}

static void test_edit(void **state) {
    struct daemon *d = *state;
    char *id = submit(d, QUICK(",'name':'old','notes':'mine'"));
    const struct answer *seen = wait_for(d, id, "succeeded");
    char *etag = strdup(header(seen, "ETag"));
    json_t *spec = at(seen->json, "/spec");
    assert_problem(edit(d, id, NULL, "{'name':'x'}"), 428, "precondition-required", "If-Match");
    assert_status(edit(d, "000000000000", NULL, "{'name':'x'}"), 404);
    assert_status(edit(d, "000000000000", "\"1\"", "{'name':'x'}"), 404);
    assert_problem(edit(d, id, "\"1\"", "{'name':'x'}"), 412, "stale", "not 1 any more");
    assert_problem(edit(d, id, "nonsense", "{'name':'x'}"), 422, "invalid-request", "ETag");
    const struct answer *a = edit(d, id, etag, "{'name':'new','tags':['a','b'],'notes':'better'}");
    assert_status(a, 200);
    assert_string_equal(text_at(a->json, "/name"), "new");
    assert_string_equal(text_at(a->json, "/notes"), "better");
    assert_json(a->json, "/tags", "['a','b']");
    assert_true(json_equal(at(a->json, "/spec"), spec)); /* it says what ran */
    assert_problem(edit(d, id, etag, "{'name':'lost update'}"), 412, "stale", "revision");
    assert_int_equal(json_array_size(at(get(d, "/v1/experiments?tag=b")->json, "/experiments")), 1);
    a = edit(d, id, "*", "{'model':{},'name':7,'priority':1000}");
    assert_problem(a, 422, "invalid-spec", "");
    assert_fault(a, "/model", "run it again");
    assert_fault(a, "/name", "string");
    assert_fault(a, "/priority", "-100..100");
    assert_problem(edit(d, id, "*", "{'priority':3}"), 409, "conflict", "queued");
    assert_problem(edit(d, "0000nothing0", "*", "{}"), 404, "not-found", "0000nothing0");
    a = edit(d, id, "*", "{'notes':null}");
    assert_string_equal(text_at(a->json, "/notes"), "");
    assert_string_equal(text_at(a->json, "/name"), "new");
    free(id), free(etag);
}

static void test_priority_of_a_queued_one(void **state) {
    struct daemon *d = *state;
    char *blocker = submit(d, ENDLESS), *a = submit(d, QUICK("")), *b = submit(d, QUICK(""));
    wait_for(d, blocker, "running");
    assert_int_equal(number_at(get(d, "/v1/experiments/%s", b)->json, "/queue/position"), 2);
    const struct answer *answer = edit(d, b, "*", "{'priority':5}");
    assert_status(answer, 200);
    assert_int_equal(number_at(answer->json, "/queue/position"), 1);
    assert_problem(delete (d, a), 409, "conflict", "queued");
    assert_problem(delete (d, blocker), 409, "conflict", "running");
    assert_status(post(d, text("/v1/experiments/%s/cancel", blocker), NULL), 202);
    wait_for(d, a, "succeeded");
    free(blocker), free(a), free(b);
}

static void test_delete(void **state) {
    struct daemon *d = *state;
    char *id = submit(d, QUICK(""));
    wait_for(d, id, "succeeded");
    char *blocker = submit(d, ENDLESS);
    wait_for(d, blocker, "running");
    char *heir = submit(d,
                        "{'dataset':{'generator':'sphere','samples':100},'model':{'kind':'mlp',"
                        "'hidden':[8],'init':{'experiment':'%s'}},'training':{'epochs':1}}",
                        id);
    int before = count_files(d, "/experiments");
    assert_problem(delete (d, id), 409, "conflict", heir);
    assert_status(post(d, text("/v1/experiments/%s/cancel", heir), NULL), 202);
    char *replay = again(d, id, "replay", NULL);
    assert_problem(delete (d, id), 409, "conflict", replay);
    assert_status(post(d, text("/v1/experiments/%s/cancel", replay), NULL), 202);
    assert_status(delete (d, id), 204);
    assert_problem(get(d, "/v1/experiments/%s", id), 404, "not-found", id);
    assert_problem(delete (d, id), 404, "not-found", id);
    assert_int_equal(count_files(d, "/experiments"), before - 1);
    assert_string_equal(text_at(get(d, "/v1/experiments/%s", replay)->json, "/rerun_of"), id);
    assert_status(post(d, text("/v1/experiments/%s/cancel", blocker), NULL), 202);
    free(id), free(blocker), free(heir), free(replay);
}

/* Trying again makes no second job, and a key stands for one request only. */
static void test_run_again_once(void **state) {
    struct daemon *d = *state;
    char *id = submit(d, QUICK("")), *other = submit(d, QUICK("")), path[2][80];
    static const char *const how[] = {"rerun", "replay"};
    wait_for(d, id, "succeeded");
    wait_for(d, other, "succeeded");
    for (size_t i = 0; i < COUNT(how); i++) {
        snprintf(path[0], sizeof path[0], "/v1/experiments/%s/%s", id, how[i]);
        snprintf(path[1], sizeof path[1], "/v1/experiments/%s/%s", other, how[i]);
        struct call again = {.method = "POST",
                             .path = path[0],
                             .headers = {i ? "Idempotency-Key: b" : "Idempotency-Key: a"}};
        const struct answer *a = call(d, &again), *b = call(d, &again);
        assert_status(a, 202);
        assert_status(b, 202);
        assert_string_equal(text_at(b->json, "/id"), text_at(a->json, "/id"));
        assert_string_equal(header(b, "Location"), text_at(a->json, "/links/self"));
        again.path = path[1];
        assert_problem(call(d, &again), 422, "idempotency", "another body");
    }
    assert_int_equal(json_array_size(at(get(d, "/v1/experiments")->json, "/experiments")), 4);
    free(id), free(other);
}

static void test_rerun_and_replay(void **state) {
    struct daemon *d = *state;
    char *id = submit(d, QUICK(",'name':'first'"));
    const json_t *first = wait_for(d, id, "succeeded")->json;
    assert_status(edit(d, id, "*", "{'name':'second'}"), 200);
    char *more = again(d, id, "rerun", "{'training':{'epochs':4,'seed':9}}");
    const json_t *e = wait_for(d, more, "succeeded")->json;
    assert_string_equal(text_at(e, "/name"), "second");
    assert_int_equal(number_at(e, "/spec/training/epochs"), 4);
    assert_json(e, "/replays", "false");
    assert_null(at(e, "/result/replay"));
    char *replay = again(d, id, "replay", NULL);
    e = wait_for(d, replay, "succeeded")->json;
    assert_string_equal(text_at(e, "/result/replay"), "match");
    assert_true(json_equal(at(e, "/spec"), at(first, "/spec")));
    assert_problem(post(d, text("/v1/experiments/%s/rerun", id), "{'training':{'epochs':0}}"), 422,
                   "invalid-spec", "");
    assert_problem(post(d, text("/v1/experiments/%s/rerun", id), "[]"), 422, "invalid-request",
                   "object");
    free(id), free(more), free(replay);
}

/* On another instruction set the sums differ, and the verdict says since when and why. */
static void test_replay_elsewhere(void **state) {
    struct daemon *d = daemon_new((const char *const[]){"--isa", "baseline", NULL});
    (void)state;
    char *id = submit(d, QUICK(""));
    wait_for(d, id, "succeeded");
    daemon_stop(d);
    daemon_start(d, NULL);
    char *replay = again(d, id, "replay", NULL);
    const json_t *e = wait_for(d, replay, "succeeded")->json;
    if (strcmp(text_at(e, "/provenance/isa"), "baseline") != 0) {
        assert_string_equal(text_at(e, "/result/replay"), "diverged at epoch 1");
        assert_non_null(strstr(text_at(e, "/result/replay_differences"), "isa: baseline then"));
    }
    free(id), free(replay);
    daemon_free(d);
}

/* Each once and in order, though the list grows while it is read. */
static void test_sorted_pages(void **state) {
    struct daemon *d = *state;
    enum { N = 7 };
    char *last = NULL;
    for (int i = 0; i < N; i++) {
        free(last);
        last = submit(d, QUICK(",'tags':['seen'],'priority':%d"), i % 3);
    }
    wait_for(d, last, "succeeded");
    for (int i = 0; i < 100 && json_array_size(at(get(d, "/v1/experiments?state=succeeded")->json,
                                                  "/experiments")) < N;
         i++)
        nap(50);
    static const struct {
        const char *sort, *figure;
        int sign;
    } orders[] = {{"created", "/created_at", 1},
                  {"-created", "/created_at", -1},
                  {"finished", "/finished_at", 1},
                  {"-finished", "/finished_at", -1},
                  {"result.seconds", "/result/seconds", 1},
                  {"-result.accuracy", "/result/accuracy", -1}};
    for (size_t o = 0; o < COUNT(orders); o++) {
        const char *path = text("/v1/experiments?limit=2&tag=seen&sort=%s", orders[o].sort);
        size_t n = 0;
        char before[64] = "";
        double number = NAN;
        while (path) {
            const struct answer *a = get(d, "%s", path);
            assert_status(a, 200);
            json_t *list = at(a->json, "/experiments"), *e;
            size_t i;
            json_array_foreach(list, i, e) {
                json_t *key = at(e, orders[o].figure);
                if (json_is_string(key)) {
                    int order = strcmp(json_string_value(key), before);
                    assert_true(!*before || order * orders[o].sign >= 0);
                    snprintf(before, sizeof before, "%s", json_string_value(key));
                } else {
                    assert_false((json_number_value(key) - number) * orders[o].sign < 0);
                    number = json_number_value(key);
                }
                n++;
            }
            const char *link = header(a, "Link");
            path = link ? text("%.*s", (int)strcspn(link + 1, ">"), link + 1) : NULL;
            free(submit(d, QUICK("")));
        }
        assert_int_equal(n, N);
    }
    assert_problem(get(d, "/v1/experiments?sort=size"), 422, "invalid-query", "sort");
    assert_problem(get(d, "/v1/experiments?sort=finished&cursor=12"), 422, "invalid-query",
                   "cursor");
    static const char *const none[] = {"today",
                                       "2999-01-01",
                                       "2999-01-01T00:00:00",
                                       "2999-02-29T00:00:00Z",
                                       "2999-01-01T24:00:00Z",
                                       "2999-01-01T00:60:00Z",
                                       "2999-01-01T00:00:00.Z",
                                       "2999-01-01T00:00:00%2B24:00",
                                       "2999-01-01T00:00:00%2B0200",
                                       "2999-01-01T00:00:00Zulu",
                                       "-999-01-01T00:00:00Z"};
    for (size_t i = 0; i < COUNT(none); i++)
        assert_problem(get(d, "/v1/experiments?created_after=%s", none[i]), 422, "invalid-query",
                       "time");
    static const char *const before[] = {"0001-01-01T00:00:00Z", "1969-12-31t23:59:59.999999z",
                                         "2020-02-29T23:00:00-23:59"};
    for (size_t i = 0; i < COUNT(before); i++)
        assert_true(
            json_array_size(json_object_get(
                get(d, "/v1/experiments?created_after=%s", before[i])->json, "experiments")) > 0);
    assert_json(get(d, "/v1/experiments?created_after=2999-01-01T00:00:00Z")->json, "/experiments",
                "[]");
    free(last);
}

/* Every line is a comment, or a name with labels and a number whose TYPE was told before. */
static void test_metrics(void **state) {
    struct daemon *d = *state;
    char *id = submit(d, QUICK("")), type[128] = "", name[128];
    int n_lines = 0, n_same = 0;
    wait_for(d, id, "succeeded");
    const struct answer *a = get(d, "/metrics");
    assert_status(a, 200);
    char *copy = strdup(a->body), *save;
    for (char *line = strtok_r(copy, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        if (sscanf(line, "# TYPE %127s", type) == 1 || strncmp(line, "# HELP ", 7) == 0)
            continue;
        size_t n = strcspn(line, "{ ");
        assert_true(n < sizeof name);
        snprintf(name, sizeof name, "%.*s", (int)n, line);
        for (const char *before = a->body; *before;) { /* no series twice */
            size_t length = strcspn(before, "\n"), key = (size_t)(strrchr(line, ' ') - line) + 1;
            n_same += strncmp(before, line, key) == 0;
            before += length + (before[length] == '\n');
        }
        n_lines++;
        assert_true(strncmp(name, type, strlen(type)) == 0);
        char *end, *number = strrchr(line, ' ');
        assert_non_null(number);
        strtod(number, &end);
        assert_true(end > number + 1 && !*end);
    }
    free(copy);
    assert_int_equal(n_same, n_lines);
    assert_non_null(strstr(a->body, "\novrd_experiments{state=\"succeeded\"} 1\n"));
    assert_non_null(strstr(a->body, "\novrd_training_epochs_total 3\n"));
    assert_non_null(strstr(a->body, "\novrd_training_samples_total 270\n")); /* 90 of them */
    assert_non_null(strstr(a->body, "\novrd_job_wait_seconds_count 1\n"));
    assert_non_null(strstr(a->body, "\novrd_cache_misses_total 1\n"));
    assert_non_null(strstr(a->body, "ovrd_http_request_duration_seconds_bucket{method=\"POST\","
                                    "route=\"/v1/experiments\",le=\"0.0005\"}"));
    static const char *const more[] = {
        "ovrd_running_jobs 0",      "ovrd_training_threads 0",
        "ovrd_memory_used_bytes 0", "ovrd_watchers 0",
        "ovrd_disk_full 0",         "ovrd_storage_bytes{kind=\"results\"} ",
        "ovrd_core_seconds_total{", "process_start_time_seconds "};
    char *endless = submit(d, ENDLESS);
    wait_for_epoch(d, endless, 2);
    nap(250); /* cores are counted ten times a second */
    const struct answer *busy = get(d, "/metrics");
    assert_status(post(d, text("/v1/experiments/%s/cancel", endless), NULL), 202);
    for (size_t i = 0; i < COUNT(more); i++)
        if (!strstr(i < 6 ? a->body : busy->body, text("\n%s", more[i])))
            fail_msg("there is no %s", more[i]);
    assert_non_null(strstr(busy->body, "\novrd_running_jobs 1\n"));
    assert_non_null(strstr(busy->body, "\novrd_training_threads 1\n"));
    assert_non_null(strstr(busy->body, "\novrd_owner_experiments{owner=\"\",state=\"running\"} 1"));
    assert_true(atof(strstr(busy->body, "\nprocess_start_time_seconds ") + 28) >
                (double)time(NULL) - 600 * SLOWNESS);
    free(endless);
    assert_null(strstr(a->body, id)); /* labels are few */
    if (system("command -v promtool >/dev/null 2>&1") == 0) {
        FILE *promtool = popen("promtool check metrics", "w");
        fwrite(a->body, 1, a->size, promtool);
        assert_int_equal(pclose(promtool), 0);
    }
    free(id);
}

/* What ovrctl prints on these arguments. */
static const char *ovrctl(struct daemon *d, int expected, const char *arguments) {
    static char out[4096];
    const char *build = getenv("OVRD_TEST_BUILD");
    FILE *pipe =
        popen(text("%s/ovrctl %s --host %s 2>&1", build ? build : "build", arguments, d->url), "r");
    size_t n = fread(out, 1, sizeof out - 1, pipe);
    out[n] = 0;
    assert_int_equal(WEXITSTATUS(pclose(pipe)), expected);
    return out;
}

static void test_ovrctl(void **state) {
    struct daemon *d = *state;
    char *id = submit(d, QUICK(""));
    wait_for(d, id, "succeeded");
    ovrctl(d, 0, text("edit %s '{\"name\": \"better\"}'", id));
    assert_string_equal(text_at(get(d, "/v1/experiments/%s", id)->json, "/name"), "better");
    assert_non_null(strstr(ovrctl(d, 0, text("replay %s --watch", id)), "match"));
    ovrctl(d, 0, text("rerun %s '{\"training\": {\"epochs\": 1}}' --watch", id));
    ovrctl(d, 2, "prune --older-than soon");
    assert_non_null(strstr(ovrctl(d, 0, "prune --older-than 1d"), "0 deleted"));
    ovrctl(d, 0, text("delete %s", id));
    nap(1100);
    char freed[80];
    double each = 0, sum = 0;
    const char *dry = ovrctl(d, 0, "prune --older-than 0m --dry-run");
    assert_int_equal(sscanf(dry, "%*s succeeded %lf kB", &each), 1);
    assert_int_equal(sscanf(strstr(dry, "2 would be"), "2 would be deleted, %lf kB to", &sum), 1);
    assert_true(each > 1 && fabs(sum - 2 * each) < 0.11);
    snprintf(freed, sizeof freed, "2 deleted, %.1f kB freed", sum);
    assert_non_null(
        strstr(ovrctl(d, 0, "prune --older-than 0m --state failed"), "0 deleted, 0 bytes freed"));
    assert_non_null(strstr(ovrctl(d, 0, "prune --older-than 0m"), freed));
    assert_json(get(d, "/v1/experiments")->json, "/experiments", "[]");
    /* Those of a tag. */
    char *sweep = strdup(text_at(
        post(d, "/v1/sweeps",
             "{'base':{'tags':['old'],'dataset':{'generator':'sphere','samples':20},'model':{"
             "'kind':'mlp','hidden':[2]},'training':{'epochs':1}},'points':[{}],'repeats':20}")
            ->json,
        "/id"));
    char *other = submit(d, QUICK(""));
    wait_for(d, other, "succeeded");
    for (int i = 0;
         i < 500 && strcmp(text_at(get(d, "/v1/sweeps/%s", sweep)->json, "/state"), "succeeded");
         i++)
        nap(20);
    nap(1100);
    assert_non_null(strstr(ovrctl(d, 0, "prune --older-than 0m --tag old"), "20 deleted"));
    assert_non_null(strstr(ovrctl(d, 0, "prune --older-than 0m"), "1 deleted"));
    free(id), free(other), free(sweep);
}

#define LONGER                                                                                     \
    "{'dataset':{'name':'images'},'preprocess':[{'standardize':true}],'model':{'kind':'mlp',"      \
    "'hidden':[40]},'training':{'epochs':40,'batch_size':16}}"

static void move_to(struct daemon *d, const char *dir) {
    snprintf(d->dir, sizeof d->dir, "%s", dir);
}

static struct timespec changed_at(const char *path) {
    struct stat found;
    assert_int_equal(stat(path, &found), 0);
    return found.st_mtim;
}

/* A copy of the backup is a data directory: with it another daemon has all of that moment, and what
 * ran then goes on from its last checkpoint to the same weights. */
static void test_backup_and_restore(void **state) {
    static const char *const options[] = {"--workers", "1", "--checkpoint", "1", NULL};
    struct daemon *d = daemon_new(options);
    (void)state;
    upload_images(d, "images", 400, 50, 1);
    char *id = submit(d, LONGER);
    char *digest =
        strdup(text_at(wait_for(d, id, "succeeded")->json, "/provenance/weights/last_sha256"));
    char *running = submit(d, LONGER), *waiting = submit(d, QUICK(""));
    wait_for_epoch(d, running, 5);
    char out[256], home[sizeof d->dir], name[64];
    snprintf(out, sizeof out, "%s", ovrctl(d, 0, "backup"));
    assert_int_equal(sscanf(out, "backups/%40s", name), 1);
    assert_status(delete (d, id), 204);
    assert_status(call(d, &(struct call){.method = "POST",
                                         .path = text("/v1/experiments/%s/cancel", running)}),
                  202);
    assert_int_equal(system(text("cp -a %s/backups/%s %s/restored", d->dir, name, d->dir)), 0);
    /* No checkpoint is ahead of the database, or its epochs would be missing for good. */
    const struct timespec linked = changed_at(text("%s/backups/%s/checkpoints", d->dir, name));
    const struct timespec copied = changed_at(text("%s/backups/%s/ovrd.sqlite3", d->dir, name));
    assert_true(linked.tv_sec < copied.tv_sec ||
                (linked.tv_sec == copied.tv_sec && linked.tv_nsec <= copied.tv_nsec));
    daemon_stop(d);
    memcpy(home, d->dir, sizeof home);
    move_to(d, text("%s/restored", home));
    daemon_start(d, options);
    assert_string_equal(text_at(get(d, "/v1/experiments/%s", id)->json, "/state"), "succeeded");
    assert_status(get(d, "/v1/experiments/%s/weights/hidden.0.weight?format=npy", id), 200);
    const json_t *e = wait_for(d, running, "succeeded")->json;
    assert_string_equal(text_at(e, "/provenance/weights/last_sha256"), digest);
    const struct answer *metrics = get(d, "/v1/experiments/%s/metrics", running);
    assert_int_equal(json_array_size(at(metrics->json, "/series")), 40);
    wait_for(d, waiting, "succeeded");
    assert_status(get(d, "/v1/datasets/images"), 200);
    daemon_stop(d);
    move_to(d, home);
    daemon_start(d, options);
    assert_string_equal(text_at(get(d, "/v1/experiments/%s", running)->json, "/state"),
                        "cancelled");
    free(id), free(running), free(waiting), free(digest);
    daemon_free(d);
}

/* So many stay, the newest. */
/* Until a second begins, so that what follows is of one second. */
static void await_second(void) {
    struct timespec at;
    clock_gettime(CLOCK_REALTIME, &at);
    nap((int)(1010 - at.tv_nsec / 1000000));
}

static void test_backups_are_limited(void **state) {
    struct daemon *d = daemon_new((const char *const[]){"--keep-backups", "2", NULL});
    char names[3][40];
    (void)state;
    for (int i = 0; i < 3; i++) {
        await_second();
        const struct answer *a = post(d, "/v1/admin/backup", NULL);
        assert_status(a, 201);
        snprintf(names[i], sizeof names[i], "%s", text_at(a->json, "/directory"));
        const struct timespec before = changed_at(text("%s/backups", d->dir));
        assert_problem(post(d, "/v1/admin/backup", NULL), 409, "conflict", "this second");
        const struct timespec after = changed_at(text("%s/backups", d->dir));
        assert_true(before.tv_sec == after.tv_sec &&
                    before.tv_nsec == after.tv_nsec); /* refused before anything was done */
    }
    assert_int_equal(count_files(d, "/backups"), 2);
    for (int i = 0; i < 3; i++)
        assert_int_equal(access(text("%s/%s", d->dir, names[i]), F_OK), i ? 0 : -1);
    daemon_free(d);
}

/* Who asked for it stands in the daemon's log, and in the answer. */
/* Bytes of the files of an experiment, as the disk has them. */
static double bytes_on_disk(const struct daemon *d, const char *id) {
    char line[64] = "";
    FILE *pipe = popen(text("find %s/experiments/%s -type f -printf '%%s\\n' | "
                            "awk '{n += $1} END {print n}'",
                            d->dir, id),
                       "r");
    assert_non_null(pipe);
    assert_non_null(fgets(line, sizeof line, pipe));
    assert_int_equal(pclose(pipe), 0);
    return atof(line);
}

static void test_prune(void **state) {
    struct daemon *d = *state;
    enum { N = 3 };
    static const char past[] = "/v1/prune?ended_before=2001-01-01T00:00:00Z";
    static const char all[] = "/v1/prune?ended_before=2999-01-01T00:00:00Z";
    char *ids[N], *kept = submit(d, QUICK(",'tags':['keep']"));
    double bytes[N], sum = 0;
    wait_for(d, kept, "succeeded");
    for (int i = 0; i < N; i++) {
        ids[i] = submit(d, QUICK(""));
        wait_for(d, ids[i], "succeeded");
        sum += bytes[i] = bytes_on_disk(d, ids[i]);
        assert_true(bytes[i] > 1000);
    }
    assert_problem(post(d, "/v1/prune", NULL), 422, "invalid-query", "ended_before is required");
    assert_problem(post(d, text("%s&state=running", all), NULL), 422, "invalid-query", "state");
    assert_problem(post(d, text("%s&cursor=1_x", all), NULL), 422, "invalid-query", "cursor");
    assert_json(post(d, past, NULL)->json, "/experiments", "[]");
    /* Said first, then done, and it is the same; page by page. */
    for (int dry = 1; dry >= 0; dry--) {
        const struct answer *a =
            post(d, text("%s&limit=3%s", all, dry ? "&dry_run=true" : ""), NULL);
        assert_status(a, 200);
        assert_json(a->json, "/dry_run", dry ? "true" : "false");
        for (int i = 0; i < 2; i++) { /* the third that was looked at is kept by its tag */
            assert_string_equal(text_at(a->json, text("/experiments/%d/id", i)), ids[i]);
            assert_true(number_at(a->json, text("/experiments/%d/bytes", i)) == bytes[i]);
        }
        assert_null(at(a->json, "/experiments/2"));
        assert_true(number_at(a->json, "/bytes") == bytes[0] + bytes[1]);
        char *next = strdup(header(a, "Link"));
        *strchr(next, '>') = '\0';
        a = post(d, next + 1, NULL);
        assert_status(a, 200);
        assert_string_equal(text_at(a->json, "/experiments/0/id"), ids[2]);
        assert_true(number_at(a->json, "/bytes") == bytes[2]);
        assert_null(header(a, "Link"));
        assert_status(get(d, "/v1/experiments/%s", ids[0]), dry ? 200 : 404);
        free(next);
    }
    assert_int_equal(count_files(d, "/experiments"), 1);
    assert_status(get(d, "/v1/experiments/%s", kept), 200);
    /* What something needs is kept, and why is said. */
    char *user = submit(d,
                        "{'dataset':{'generator':'sphere'},'model':{'kind':'mlp','hidden':[8],"
                        "'init':{'experiment':'%s'}},'training':{'epochs':100000}}",
                        kept);
    const struct answer *a = post(d, text("%s&tag=keep", all), NULL);
    assert_json(a->json, "/experiments", "[]");
    assert_string_equal(text_at(a->json, "/kept/0/id"), kept);
    assert_non_null(strstr(text_at(a->json, "/kept/0/detail"), user));
    nap(1100); /* ages are told in whole seconds */
    assert_non_null(strstr(ovrctl(d, 3, "prune --older-than 0m --tag keep"), "0 deleted"));
    for (int i = 0; i < N; i++)
        free(ids[i]);
    free(kept), free(user);
}

static void test_request_ids(void **state) {
    struct daemon *d = *state;
    const struct answer *a =
        call(d, &(struct call){.method = "POST",
                               .path = "/v1/experiments",
                               .headers = {"Content-Type: application/json", "X-Request-Id: me-7"},
                               .body = "{\"dataset\":{\"generator\":\"sphere\",\"samples\":100},"
                                       "\"model\":{\"kind\":\"mlp\",\"hidden\":[8]},\"training\":{"
                                       "\"epochs\":1}}"});
    assert_status(a, 202);
    assert_string_equal(header(a, "X-Request-Id"), "me-7");
    const char *id = text_at(a->json, "/id");
    wait_for(d, id, "succeeded");
    assert_int_equal(system(text("grep -q 'experiment=%s queued.* request=me-7$' %s", id, d->log)),
                     0);
    assert_int_not_equal(system(text("grep -q 'experiment=%s started.* request=' %s", id, d->log)),
                         0);
}

static void test_ready(void **state) {
    struct daemon *d = *state;
    assert_json(get(d, "/readyz")->json, "/status", "'ready'");
}

/* The thread that looks after the workers hangs: as a debugger holds it, since a signal would stop
 * all of them. Those that answer go on, and say so. */
static void test_stuck(void **state) {
    struct daemon *d = *state;
    int status;
    if (ptrace(PTRACE_SEIZE, d->pid, NULL, NULL)) {
        print_message("no ptrace here: %s\n", strerror(errno));
        skip();
    }
    nap(150); /* away from its start, and most likely asleep */
    assert_int_equal(ptrace(PTRACE_INTERRUPT, d->pid, NULL, NULL), 0);
    assert_int_equal(waitpid(d->pid, &status, __WALL), d->pid);
    assert_true(WIFSTOPPED(status));
    double stopped = now();
    while (get(d, "/readyz")->status == 200 && now() < stopped + 60)
        nap(500);
    assert_in_range((int)(now() - stopped), 29, 60);
    assert_problem(get(d, "/readyz"), 503, "not-ready", "stuck");
    assert_status(get(d, "/healthz"), 200);
    assert_int_equal(ptrace(PTRACE_DETACH, d->pid, NULL, NULL), 0);
    nap(500);
    assert_status(get(d, "/readyz"), 200);
}

#define with(set_up, test) cmocka_unit_test_setup_teardown(test, set_up, without_daemon)

int main(void) {
    const struct CMUnitTest tests[] = {
        with(with_daemon, test_edit),
        with(with_one_worker, test_priority_of_a_queued_one),
        with(with_one_worker, test_delete),
        with(with_daemon, test_run_again_once),
        with(with_daemon, test_rerun_and_replay),
        cmocka_unit_test(test_replay_elsewhere),
        with(with_daemon, test_sorted_pages),
        with(with_daemon, test_metrics),
        with(with_daemon, test_ovrctl),
        cmocka_unit_test(test_backup_and_restore),
        cmocka_unit_test(test_backups_are_limited),
        with(with_daemon, test_request_ids),
        with(with_daemon, test_prune),
        with(with_daemon, test_ready),
        with(with_daemon, test_stuck),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
