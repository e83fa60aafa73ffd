/* Slurm's programs played by small scripts: what they are told, and what their words come to. */
#include "server/slurm.h"
#include "tests/server/check.h"

struct fake {
    const char *dir;
    char path[160];
    struct slurm slurm;
};

static struct fake set_scene(void **state) {
    struct place *place = *state;
    struct fake fake = {.dir = place->dir,
                        .slurm = {.directory = place->dir, .options = "", .timeout_s = 20}};
    return fake;
}

/* Makes the program, which notes its arguments, its input and then does this. */
static void play(struct fake *fake, const char *program, const char *script) {
    char text[4096];
    snprintf(fake->path, sizeof fake->path, "%s/%s", fake->dir, program);
    int n = snprintf(text, sizeof text,
                     "#!/bin/sh\nprintf '%%s\\n' \"$@\" >>%s.args\ncat >%s.input\n%s\n", fake->path,
                     fake->path, script);
    write_whole(fake->path, text, (size_t)n);
    assert_int_equal(chmod(fake->path, 0755), 0);
}

static char *noted(struct fake *fake, const char *program, const char *what) {
    size_t n;
    snprintf(fake->path, sizeof fake->path, "%s/%s.%s", fake->dir, program, what);
    return read_whole(fake->path, &n);
}

static void check_noted(struct fake *fake, const char *program, const char *what,
                        const char *expected) {
    char *text = noted(fake, program, what);
    assert_string_equal(text, expected);
    free(text);
}

static const struct slurm_job job = {.name = "ovrd-abc-1",
                                     .script = "#!/bin/sh\ntoken=secret\n",
                                     .ranks = 2,
                                     .cores_per_rank = 3,
                                     .memory_bytes_per_rank = 10ll << 20,
                                     .minutes = 90};

static void a_job_is_told_in_words(void **state) {
    struct fake fake = set_scene(state);
    struct ovr_err err = {0};
    char id[32];
    play(&fake, "sbatch", "echo a warning >&2; echo '4711;lab'");
    fake.slurm.options = " --partition=gpu   --account me ";
    assert_ok(slurm_submit(&fake.slurm, &job, id, &err), &err);
    assert_string_equal(id, "4711");
    check_noted(&fake, "sbatch", "input", job.script);
    check_noted(&fake, "sbatch", "args",
                "--parsable\n--no-requeue\n--export=NIL\n--chdir=/tmp\n"
                "--output=ovr-worker-%j.out\n--job-name=ovrd-abc-1\n--ntasks=2\n"
                "--cpus-per-task=3\n--mem-per-cpu=4M\n--time=90\n--signal=TERM@60\n"
                "--partition=gpu\n--account\nme\n");
}

static void one_rank_gets_the_signal_itself(void **state) {
    struct fake fake = set_scene(state);
    struct slurm_job one = job;
    struct ovr_err err = {0};
    char id[32];
    one.ranks = 1;
    one.minutes = 0;
    play(&fake, "sbatch", "echo 12");
    assert_ok(slurm_submit(&fake.slurm, &one, id, &err), &err);
    char *args = noted(&fake, "sbatch", "args");
    assert_non_null(strstr(args, "--signal=B:TERM@60\n"));
    assert_null(strstr(args, "--time"));
    free(args);
}

static void a_short_one_gets_on_before_the_signal(void **state) {
    struct fake fake = set_scene(state);
    struct slurm_job brief = job;
    struct ovr_err err = {0};
    char id[32];
    brief.minutes = 2;
    play(&fake, "sbatch", "echo 12");
    assert_ok(slurm_submit(&fake.slurm, &brief, id, &err), &err);
    char *args = noted(&fake, "sbatch", "args");
    assert_non_null(strstr(args, "--time=2\n--signal=TERM@20\n"));
    free(args);
}

static void where_its_output_is(void **state) {
    struct slurm slurm = {.options = "--partition=a"};
    char path[40];
    (void)state;
    slurm_output(&slurm, "17", path, sizeof path);
    assert_string_equal(path, "/tmp/ovr-worker-17.out");
    slurm.options = "--output=/var/log/%j-%N.txt --qos=b";
    slurm_output(&slurm, "17", path, sizeof path);
    assert_string_equal(path, "/var/log/17-%N.txt");
    slurm.options = "--output=/dev/null";
    slurm_output(&slurm, "17", path, sizeof path);
    assert_string_equal(path, "/dev/null");
}

static void check_refusal(struct fake *fake, const char *script, int code, const char *words) {
    struct ovr_err err = {0};
    char id[32];
    play(fake, "sbatch", script);
    int rc = slurm_submit(&fake->slurm, &job, id, &err);
    if (rc != code || !strstr(err.text, words))
        fail_msg("%d, not %d: %s", rc, code, err.text);
}

#define SAYS(words) "echo 'sbatch: error: " words "' >&2; exit 1"
#define FAILED "Batch job submission failed: "

static void refusals_are_told_apart(void **state) {
    struct fake fake = set_scene(state);
    check_refusal(&fake, SAYS(FAILED "Invalid partition name specified"), OVR_INVALID,
                  "Slurm says: Batch job submission failed: Invalid partition name specified (see "
                  "--slurm-options)");
    check_refusal(&fake,
                  "echo 'sbatch: error: invalid partition specified: cpu' >&2\n" SAYS(
                      FAILED "Invalid partition name specified"),
                  OVR_INVALID,
                  "Slurm says: invalid partition specified: cpu; Batch job submission failed: "
                  "Invalid partition name specified (");
    check_refusal(&fake, SAYS("QOSMaxSubmitJobPerUserLimit") ";", OVR_FULL, "QOSMaxSubmit");
    check_refusal(&fake, SAYS(FAILED "Job violates accounting/QOS policy (job submit limit)"),
                  OVR_FULL, "submit limit");
    check_refusal(&fake,
                  "echo 'sbatch: error: Slurm temporarily unable to accept job, sleeping and "
                  "retrying' >&2; exec sleep 600",
                  OVR_FULL, "temporarily unable");
    check_refusal(&fake, SAYS(FAILED "Resource temporarily unavailable"), OVR_FULL, "temporarily");
    check_refusal(&fake, SAYS(FAILED "Requested node configuration is not available"),
                  OVR_TOO_LARGE, "not available (asked for 2 ranks, each of 3 cores and ");
    check_refusal(&fake, SAYS(FAILED "Unable to contact slurm controller (connect failure)"),
                  OVR_IO, "contact");
    check_refusal(&fake, SAYS("If munged is up, restart with --num-threads=10"), OVR_IO, "munged");
    check_refusal(&fake, "exit 1", OVR_INVALID, "it said nothing");
    check_refusal(&fake, "echo Submitted batch job 5", OVR_IO, "gave no job number");
    check_refusal(&fake, "true", OVR_IO, "gave no job number");
    fake.slurm.timeout_s = 1;
    check_refusal(&fake, "sleep 60", OVR_IO, "did not end within 1 s");
    fake.slurm.directory = "/nowhere";
    check_refusal(&fake, "true", OVR_NOT_FOUND, "/nowhere/sbatch can't be run");
}

static void too_many_options(void **state) {
    struct fake fake = set_scene(state);
    char options[4000] = "";
    for (size_t i = 0; i + 4 < sizeof options; i += 4)
        memcpy(options + i, " -x ", 5);
    fake.slurm.options = options;
    check_refusal(&fake, "echo 1", OVR_INVALID, "too long");
}

static void what_squeue_prints_is_read(void **state) {
    struct fake fake = set_scene(state);
    struct ovr_err err = {0};
    struct slurm_status *list;
    size_t n;
    static const char *const names[] = {"ovrd-a-1", "ovrd-b-1", "ovrd-c-2"};
    play(&fake, "squeue",
         "echo '9|ovrd-a-1|FAILED|NonZeroExitCode|h1'\necho '10|ovrd-a-1|PENDING|Resources|'\n"
         "echo '8|ovrd-b-1|RUNNING|None|h[1-2]'\necho 'a line of noise'\n"
         "echo '7|ovrd-c-2|NODE_FAIL|NodeDown|(null)'");
    assert_ok(slurm_poll(&fake.slurm, names, 3, &list, &n, &err), &err);
    assert_int_equal(n, 3);
    assert_string_equal(list[0].id, "10"); /* the newest of its name */
    assert_int_equal(list[0].state, SLURM_WAITS);
    assert_string_equal(list[0].reason, "Resources");
    assert_int_equal(list[1].state, SLURM_RUNS);
    assert_string_equal(list[1].node, "h[1-2]");
    assert_string_equal(list[1].reason, "");
    assert_int_equal(list[2].state, SLURM_LOST);
    assert_string_equal(list[2].word, "NODE_FAIL");
    assert_string_equal(list[2].node, "");
    char expected[256];
    snprintf(expected, sizeof expected,
             "--noheader\n--user=%u\n--format=%%i|%%j|%%T|%%r|%%N\n--states=all\n"
             "--name=ovrd-a-1,ovrd-b-1,ovrd-c-2\n",
             (unsigned)getuid());
    check_noted(&fake, "squeue", "args", expected);
    free(list);
}

static void states_are_six(void **state) {
    static const struct {
        const char *word;
        enum slurm_state means;
    } words[] = {{"CONFIGURING", SLURM_WAITS},    {"COMPLETING", SLURM_RUNS},
                 {"SUSPENDED", SLURM_RUNS},       {"COMPLETED", SLURM_DONE},
                 {"OUT_OF_MEMORY", SLURM_FAILED}, {"CANCELLED", SLURM_CANCELLED},
                 {"TIMEOUT", SLURM_LOST},         {"PREEMPTED", SLURM_LOST},
                 {"BOOT_FAIL", SLURM_LOST},       {"OF_A_LATER_SLURM", SLURM_RUNS}};
    struct fake fake = set_scene(state);
    const char *name = "ovrd-a-1";
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        struct ovr_err err = {0};
        struct slurm_status *list;
        size_t n;
        char script[128];
        snprintf(script, sizeof script, "echo '1|ovrd-a-1|%s|None|'", words[i].word);
        play(&fake, "squeue", script);
        assert_ok(slurm_poll(&fake.slurm, &name, 1, &list, &n, &err), &err);
        assert_int_equal(n, 1);
        assert_int_equal(list->state, words[i].means);
        free(list);
    }
}

/* 250 names are three calls; ours among others' are found by the beginning of their names. */
static void many_names(void **state) {
    enum { N = 250 };
    struct fake fake = set_scene(state);
    struct ovr_err err = {0};
    static char names[N][40];
    const char *pointers[N];
    struct slurm_status *list;
    size_t n;
    for (int i = 0; i < N; i++) {
        snprintf(names[i], sizeof names[i], "ovrd-%012d-%d", i, 1000000 + i);
        pointers[i] = names[i];
    }
    play(&fake, "squeue",
         "for a; do case $a in --name=*) echo \"${a#--name=}\" | tr , '\\n' | "
         "sed 's/.*/5|&|RUNNING|None|h1/';; esac; done");
    assert_ok(slurm_poll(&fake.slurm, pointers, N, &list, &n, &err), &err);
    assert_int_equal(n, N);
    for (int i = 0; i < N; i++)
        assert_string_equal(list[i].name, names[i]);
    free(list);
    char *args = noted(&fake, "squeue", "args");
    int calls = 0;
    for (const char *at = args; (at = strstr(at, "--noheader")); at++)
        calls++;
    assert_int_equal(calls, 3);
    free(args);
    play(&fake, "squeue",
         "echo '1|ovrd-a-1|PENDING|None|'; echo '2|mine|RUNNING|None|h1';"
         "echo '3|ovrd-a-1|RUNNING|None|h1'");
    assert_ok(slurm_list(&fake.slurm, "ovrd-", &list, &n, &err), &err);
    assert_int_equal(n, 2); /* also the older of a name */
    assert_string_equal(list[0].id, "1");
    free(list);
}

static void squeue_fails(void **state) {
    struct fake fake = set_scene(state);
    struct ovr_err err = {0};
    const char *name = "ovrd-a-1";
    struct slurm_status *list;
    size_t n;
    play(&fake, "squeue",
         "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1");
    assert_int_equal(slurm_poll(&fake.slurm, &name, 1, &list, &n, &err), OVR_IO);
    assert_non_null(strstr(err.text, "Unable to contact slurm controller"));
}

static void what_is_gone_is_cancelled(void **state) {
    struct fake fake = set_scene(state);
    struct ovr_err err = {0};
    static const char *const ids[] = {"1", "2", "3", "4", "5", "6"};
    play(&fake, "scancel",
         "for i; do echo \"scancel: error: Kill job error on job id $i: Invalid job id specified\" "
         ">&2; done; exit 1");
    assert_ok(slurm_cancel(&fake.slurm, ids, 6, &err), &err);
    check_noted(&fake, "scancel", "args", "1\n2\n3\n4\n5\n6\n");
    play(&fake, "scancel",
         "echo 'scancel: error: Kill job error on job id 1: Invalid job id specified' >&2\n"
         "echo 'scancel: error: Kill job error on job id 2: Access/permission denied' >&2; exit 1");
    assert_int_equal(slurm_cancel(&fake.slurm, ids, 2, &err), OVR_IO);
    assert_non_null(strstr(err.text, "permission denied"));
}

static void a_missing_program_is_named(void **state) {
    struct fake fake = set_scene(state);
    struct ovr_err err = {0};
    play(&fake, "sbatch", "echo slurm 22.05.8");
    play(&fake, "squeue", "echo no configuration >&2; exit 1"); /* that may change */
    assert_int_equal(slurm_check(&fake.slurm, &err), OVR_NOT_FOUND);
    assert_non_null(strstr(err.text, "/scancel can't be run: No such file or directory; install"));
    play(&fake, "scancel", "echo slurm 22.05.8");
    err = (struct ovr_err){0};
    assert_ok(slurm_check(&fake.slurm, &err), &err);
    check_noted(&fake, "scancel", "args", "--version\n");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        with_place(a_job_is_told_in_words),
        with_place(one_rank_gets_the_signal_itself),
        with_place(a_short_one_gets_on_before_the_signal),
        cmocka_unit_test(where_its_output_is),
        with_place(refusals_are_told_apart),
        with_place(too_many_options),
        with_place(what_squeue_prints_is_read),
        with_place(states_are_six),
        with_place(many_names),
        with_place(squeue_fails),
        with_place(what_is_gone_is_cancelled),
        with_place(a_missing_program_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
