/* A daemon with a Slurm cluster, as people see it: what goes there, what is refused, what is said
 * of what waits and runs there. Slurm itself does not answer here. */
#include "tests/api/daemon.h"

#include <sqlite3.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define SPHERE "'dataset':{'generator':'sphere','samples':200,'test_samples':50},"
#define MODEL(units) "'model':{'kind':'ovr_encoder','hidden':[" units "]},'probe':null,"
#define SPEC(units, training) "{" SPHERE MODEL(units) "'training':{'epochs':2" training "}}"
#define STARTS_FROM                                                                                \
    "{" SPHERE "'model':{'kind':'ovr_encoder','hidden':[600],'init':{'experiment':'%s'}},"         \
    "'training':{'epochs':2,'executor':'%s'}}"
#define FITTED_BY                                                                                  \
    "{" SPHERE "'preprocess':[{'experiment':'%s'}]," MODEL("10") "'training':{'executor':'%s'}}"
#define ON_SLURM ",'executor':'slurm'"

static char programs[64]; /* that play Slurm's and always fail */
static char root[128], bob[128];

static void make_programs(void) {
    static const char *const names[] = {"sbatch", "squeue", "scancel"};
    snprintf(programs, sizeof programs, "/tmp/ovrd-test-slurm-XXXXXX");
    assert_non_null(mkdtemp(programs));
    for (size_t i = 0; i < COUNT(names); i++) {
        FILE *file = fopen(text("%s/%s", programs, names[i]), "w");
        assert_non_null(file);
        assert_true(fputs("#!/bin/sh\nexit 1\n", file) >= 0);
        assert_int_equal(fclose(file), 0);
        assert_int_equal(chmod(text("%s/%s", programs, names[i]), 0755), 0);
    }
}

static void start_with_cluster(struct daemon *d) {
    setenv("OVRD_SLURM_DIRECTORY", programs, 1);
    setenv("OVRD_WORKER_URL", "http://127.0.0.1:1", 1);
    daemon_start(d, (const char *const[]){"--slurm", "on", "--slurm-jobs", "2", "--workers", "1",
                                          "--slurm-node-memory", "160M", NULL});
}

static int with_cluster(void **state) {
    struct daemon *d = daemon_new(NULL);
    *state = d;
    make_programs();
    daemon_stop(d);
    start_with_cluster(d);
    return 0;
}

static int without_cluster(void **state) {
    static const char *const names[] = {"sbatch", "squeue", "scancel"};
    daemon_free(*state);
    for (size_t i = 0; i < COUNT(names); i++)
        unlink(text("%s/%s", programs, names[i]));
    rmdir(programs);
    return 0;
}

static const struct answer *try(struct daemon *d, const char *spec) {
    return post(d, "/v1/experiments?dry_run=true", spec);
}

static void assert_estimate(const struct answer *a, const char *executor, int ranks) {
    assert_status(a, 200);
    assert_string_equal(text_at(a->json, "/estimate/executor"), executor);
    assert_int_equal(number_at(a->json, "/estimate/ranks"), ranks);
}

static void test_without_one(void **state) {
    (void)state;
    struct daemon *d = daemon_new(NULL);
    assert_estimate(try(d, SPEC("2048", "")), "local", 1);
    assert_estimate(try(d, SPEC("2048", ",'executor':'local','ranks':1")), "local", 1);
    const struct answer *a = try(d, SPEC("2048", ON_SLURM));
    assert_fault(a, "/training/executor", "start ovrd with --slurm on");
    a = try(d, SPEC("2048", ",'ranks':2"));
    assert_fault(a, "/training/ranks", "ranks are for a cluster, and this daemon has none");
    a = get(d, "/v1/queue");
    assert_json(a->json, "/cluster", "null");
    daemon_free(d);
}

static void test_who_goes_there(void **state) {
    struct daemon *d = *state;
    assert_estimate(try(d, SPEC("2048", "")), "local", 1);
    assert_estimate(try(d, SPEC("2048", ON_SLURM)), "slurm", 1);
    assert_estimate(try(d, SPEC("2048", ",'ranks':4")), "slurm", 4);
    assert_estimate(try(d, SPEC("2048", ON_SLURM ",'ranks':'auto'")), "slurm", 1);
    const struct answer *a = try(d, SPEC("2048", ",'ranks':5"));
    assert_fault(a, "/training/ranks", "must be 1..4 for this many units");
    a = try(d, SPEC("2048", ",'ranks':2,'executor':'local'"));
    assert_fault(a, "/training/ranks", "set /training/executor to \"slurm\"");
    a = try(d, SPEC("600,600", ",'ranks':2"));
    assert_fault(a, "/training/ranks", "several ranks train one hidden layer, not 2");
    a = try(d, "{'dataset':{'generator':'sphere','samples':2000000},'model':{'kind':'identity'},"
               "'training':{'executor':'slurm'}}");
    assert_fault(a, "", "a rank on the cluster may have 0.16 GiB");
}

static void test_what_starts_from_another(void **state) {
    struct daemon *d = *state;
    char *id = submit(d, SPEC("600", ""));
    wait_for(d, id, "succeeded");
    const char *spec = text(STARTS_FROM, id, "auto");
    assert_estimate(try(d, spec), "local", 1);
    spec = text(STARTS_FROM, id, "slurm");
    assert_fault(try(d, spec), "/training/executor", "another experiment's weights or steps");
    char *fitted = submit(d, "{" SPHERE "'preprocess':['standardize']," MODEL("10") "'training':{"
                                                                                    "'epochs':2}}");
    wait_for(d, fitted, "succeeded");
    assert_estimate(try(d, text(FITTED_BY, fitted, "auto")), "local", 1);
    assert_fault(try(d, text(FITTED_BY, fitted, "slurm")), "/training/executor", "or steps");
    free(id), free(fitted);
}

/* Each point by what it asks for; a chain's later points start from the weights of others. */
static void test_sweeps(void **state) {
    struct daemon *d = *state;
    const struct answer *a =
        post(d, "/v1/sweeps?dry_run=true",
             "{'base':" SPEC("600", "") ",'repeats':2,'grid':{'/training/"
                                        "executor':['local','slurm','auto']}}");
    assert_status(a, 200);
    assert_json(a->json, "/on_cluster", "2");
    assert_json(a->json, "/experiments", "6");
    assert_string_equal(text_at(a->json, "/estimate/executor"), "slurm");
    a = post(d, "/v1/sweeps?dry_run=true",
             "{'base':" SPEC("600", ON_SLURM) ",'chain':[{},{'training':{'epochs':3}}]}");
    assert_problem(a, 422, "invalid-spec", "");
    assert_non_null(strstr(a->body, "another experiment's weights or steps"));
    a = post(d, "/v1/sweeps?dry_run=true",
             "{'base':" SPEC("600", "") ",'chain':[{'training':{'executor':'slurm'}},{'training':{"
                                        "'epochs':3}}]}");
    assert_status(a, 200);
    assert_json(a->json, "/on_cluster", "1");
    a = post(d, "/v1/sweeps?dry_run=true",
             "{'base':" SPEC("600", ON_SLURM) ",'repeats':2,'target_sparsity':{'near_zero':0.5,"
                                              "'points':7}}");
    assert_status(a, 200);
    assert_json(a->json, "/on_cluster", "14");
}

static void run_sql(const struct daemon *d, const char *statements) {
    sqlite3 *db;
    assert_int_equal(sqlite3_open(text("%s/ovrd.sqlite3", d->dir), &db), SQLITE_OK);
    if (sqlite3_exec(db, statements, NULL, NULL, NULL))
        fail_msg("%s", sqlite3_errmsg(db));
    sqlite3_close(db);
}

/* As if Slurm had the first two, and the first of them had begun. */
static void send_two(struct daemon *d, const char *first, const char *second) {
    daemon_stop(d);
    run_sql(d, "DELETE FROM attempt; UPDATE experiment SET sent = 0");
    run_sql(d, text("INSERT INTO attempt (experiment, number, token_sha256, job_name, job, node, "
                    "cores, begun_at, submitted_at) SELECT seq, 1, 'a', 'ovrd-' || id || '-1', "
                    "'4711', 'h1', 8, 5000, 4000 FROM experiment WHERE id = '%s'",
                    first));
    run_sql(d, text("INSERT INTO attempt (experiment, number, token_sha256, job_name, job, reason, "
                    "submitted_at) SELECT seq, 1, 'b', 'ovrd-' || id || '-1', '4712', 'Resources', "
                    "4500 FROM experiment WHERE id = '%s'",
                    second));
    run_sql(d, text("UPDATE experiment SET sent = 1, attempts = 1 WHERE id IN ('%s', '%s'); UPDATE "
                    "experiment SET state = 'running', started_at = 5000 WHERE id = '%s'",
                    first, second, first));
    start_with_cluster(d);
}

static void test_what_is_there(void **state) {
    struct daemon *d = *state;
    char *ids[4];
    ids[0] = submit(d, SPEC("2048", ",'ranks':4"));
    ids[1] = submit(d, SPEC("600", ON_SLURM));
    ids[2] = submit(d, SPEC("600", ON_SLURM));
    ids[3] = submit(d, SPEC("100", ""));
    wait_for(d, ids[3], "succeeded"); /* the others don't keep it */
    send_two(d, ids[0], ids[1]);
    const json_t *e = get(d, "/v1/experiments/%s", ids[0])->json;
    assert_string_equal(text_at(e, "/state"), "running");
    assert_string_equal(text_at(e, "/executor"), "slurm");
    assert_json(e, "/ranks", "4");
    assert_string_equal(text_at(e, "/job"), "4711");
    assert_string_equal(text_at(e, "/node"), "h1");
    e = get(d, "/v1/experiments/%s", ids[1])->json;
    assert_string_equal(text_at(e, "/job"), "4712");
    assert_json(e, "/node", "null");
    assert_string_equal(text_at(e, "/queue/reason_code"), "slurm");
    assert_string_equal(text_at(e, "/queue/reason"), "Slurm has it as job 4712 (Resources): the "
                                                     "nodes that it needs are busy");
    e = get(d, "/v1/experiments/%s", ids[3])->json;
    assert_string_equal(text_at(e, "/executor"), "local");
    assert_json(e, "/job", "null");
    const json_t *q = get(d, "/v1/queue")->json;
    assert_json(q, "/cluster/most", "2");
    assert_json(q, "/cluster/sent", "1");
    assert_json(q, "/cluster/running", "1");
    assert_json(q, "/waiting_total", "2");
    assert_string_equal(text_at(q, "/running/0/id"), ids[0]);
    assert_string_equal(text_at(q, "/running/0/node"), "h1");
    assert_json(q, "/running/0/threads", "8");
    assert_json(q, "/running/0/estimated_end", "null");
    assert_string_equal(text_at(q, "/waiting/0/id"), ids[1]);
    assert_string_equal(text_at(q, "/waiting/1/id"), ids[2]);
    assert_json(q, "/waiting/1/position", "2");
    assert_string_equal(text_at(q, "/waiting/1/reason_code"), "slurm");
    assert_non_null(strstr(text_at(q, "/waiting/1/reason"), "2nd in line for Slurm; "));
    assert_status(post(d, text("/v1/experiments/%s/cancel", ids[1]), NULL), 202);
    e = get(d, "/v1/experiments/%s", ids[1])->json;
    assert_json(e, "/job", "null");
    for (int i = 0; i < 4; i++)
        free(ids[i]);
}

/* What ovrctl says on these arguments. */
static const char *ovrctl(struct daemon *d, const char *arguments) {
    static char said[4096];
    const char *build = getenv("OVRD_TEST_BUILD");
    FILE *pipe = popen(text("OVRD_TOKEN='%s' %s/ovrctl %s --host %s 2>&1", d->token,
                            build ? build : "build", arguments, d->url),
                       "r");
    assert_non_null(pipe);
    said[fread(said, 1, sizeof said - 1, pipe)] = '\0';
    assert_int_equal(pclose(pipe), 0);
    return said;
}

static void assert_said(const char *said, const char *part) {
    if (!strstr(said, part))
        fail_msg("\"%s\" is not in\n%s", part, said);
}

/* A number of Slurm's leads to an experiment's name: others' private ones don't show theirs. */
static void test_people(void **state) {
    struct daemon *d = *state;
    snprintf(root, sizeof root, "%s", add_user(d, "root", "admin"));
    snprintf(d->token, sizeof d->token, "%s", root);
    snprintf(bob, sizeof bob, "%s", add_user(d, "bob", "member"));
    char *first =
        submit(d, "{'private':true,'name':'hidden'," SPHERE MODEL("600") "'training':{"
                                                                         "'executor':'slurm'}}");
    char *second = submit(d, "{'private':true," SPHERE MODEL("600") "'training':{'executor':'slurm'"
                                                                    "}}");
    send_two(d, first, second);
    assert_said(ovrctl(d, "queue"), "Slurm: 1 wait there and 1 run, of at most 2");
    assert_said(ovrctl(d, "queue"), "where");
    assert_said(ovrctl(d, "queue"), "h1");
    assert_said(ovrctl(d, "queue --json"), "4712");
    assert_said(ovrctl(d, text("show %s", first)), "runs on     Slurm, 1 rank, job 4711, node h1");
    snprintf(d->token, sizeof d->token, "%s", bob);
    const struct answer *a = get(d, "/v1/queue");
    assert_json(a->json, "/running/0/job", "null");
    assert_json(a->json, "/running/0/executor", "'slurm'");
    assert_json(a->json, "/waiting/0/job", "null");
    assert_non_null(strstr(text_at(a->json, "/waiting/0/reason"), "job (private) (Resources)"));
    assert_null(strstr(a->body, "4711"));
    assert_null(strstr(a->body, "4712"));
    snprintf(d->token, sizeof d->token, "%s", root);
    free(first), free(second);
}

/* Run again, it goes where it ran; changed, wherever it is told to. */
static void test_run_again(void **state) {
    struct daemon *d = *state;
    char *id = submit(d, SPEC("600", ON_SLURM));
    const struct answer *a = post(d, text("/v1/experiments/%s/rerun", id), NULL);
    assert_status(a, 202);
    assert_string_equal(text_at(a->json, "/executor"), "slurm");
    a = post(d, text("/v1/experiments/%s/rerun", id), "{'training':{'executor':null}}");
    assert_status(a, 202);
    assert_string_equal(text_at(a->json, "/executor"), "local");
    free(id);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_without_one),
        cmocka_unit_test_setup_teardown(test_who_goes_there, with_cluster, without_cluster),
        cmocka_unit_test_setup_teardown(test_what_starts_from_another, with_cluster,
                                        without_cluster),
        cmocka_unit_test_setup_teardown(test_sweeps, with_cluster, without_cluster),
        cmocka_unit_test_setup_teardown(test_what_is_there, with_cluster, without_cluster),
        cmocka_unit_test_setup_teardown(test_people, with_cluster, without_cluster),
        cmocka_unit_test_setup_teardown(test_run_again, with_cluster, without_cluster),
    };
    return cmocka_run_group_tests_name("api/cluster", tests, NULL, NULL);
}
