/* What a job takes: the estimate of a dry run against the daemon's resident peak and processor
 * time, and one copy of the data for all jobs. Not under sanitizers, whose shadow memory is none of
 * ours. */
#include "tests/api/daemon.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#if !defined __SANITIZE_ADDRESS__ && !defined __SANITIZE_THREAD__

/* A line of /proc/PID/status, in bytes. */
static double resident(const struct daemon *d, const char *name) {
    char line[256];
    unsigned long kib = 0;
    FILE *file = fopen(text("/proc/%d/status", (int)d->pid), "re");
    assert_non_null(file);
    while (fgets(line, sizeof line, file))
        if (strncmp(line, name, strlen(name)) == 0)
            assert_int_equal(sscanf(line + strlen(name), ": %lu", &kib), 1);
    fclose(file);
    assert_true(kib > 0);
    return (double)kib * 1024;
}

/* Runs the spec on a daemon that has run nothing yet, so that its peak is this job's. */
static void check_peak(const char *spec) {
    const char *const options[] = {"--workers", "1", NULL};
    struct daemon *d = daemon_new(options);
    upload_images(d, "images", 4000, 1000, 7);
    const struct answer *dry = post(d, "/v1/experiments?dry_run=true", spec);
    assert_status(dry, 200);
    double estimate = number_at(dry->json, "/estimate/memory_bytes");
    double before = resident(d, "VmRSS");
    char *id = submit(d, "%s", spec);
    wait_for(d, id, "succeeded");
    double peak = resident(d, "VmHWM") - before;
    print_message("estimated %.1f MB, at the peak %.1f MB: %.2f\n", estimate / 1e6, peak / 1e6,
                  estimate / peak);
    if (estimate < peak / 1.2 || estimate > peak * 1.2)
        fail_msg("the estimate is %.2f of the peak of %s", estimate / peak, spec);
    free(id);
    daemon_free(d);
}

/* The peak is where the data are prepared: a covariance of 3072 pixels. */
static void test_preparing(void **state) {
    (void)state;
    check_peak(
        "{'dataset':{'name':'images'},'preprocess':['standardize',{'pca':{'components':100}}],"
        "'model':{'kind':'ovr_encoder','hidden':[500]},'probe':null,"
        "'training':{'epochs':1}}");
}

/* The peak is where the network is trained: weights, moments, activations. */
static void test_training(void **state) {
    (void)state;
    check_peak("{'dataset':{'name':'images'},'preprocess':['standardize'],"
               "'model':{'kind':'ovr_encoder','hidden':[6000]},'probe':null,"
               "'training':{'epochs':1,'protocol':'published'}}");
    check_peak("{'dataset':{'generator':'sphere','samples':1000},"
               "'model':{'kind':'mlp','hidden':[65536]},'training':{'epochs':1}}");
}

/* The peak is where the probe is trained: the codes of all samples. */
static void test_probing(void **state) {
    (void)state;
    check_peak("{'dataset':{'name':'images'},'preprocess':['standardize'],"
               "'model':{'kind':'ovr_encoder','hidden':[4096]},'training':{'epochs':1},"
               "'probe':{'epochs':1}}");
    /* an activity term that makes nearly all of the code active */
    check_peak("{'dataset':{'generator':'sphere','samples':20000},'model':{'kind':'ovr_encoder',"
               "'hidden':[2048]},'loss':{'ovr':null,'activity':{'target':50}},"
               "'optimizer':{'learning_rate':0.05},'training':{'epochs':1},'probe':{'epochs':1}}");
}

/* Two jobs at once hold the pixels, as floats 61 MB, once. */
static void test_data_are_shared(void **state) {
    (void)state;
    const char *const options[] = {"--workers", "2", NULL};
    const char *spec = "{'dataset':{'name':'images'},'probe':null,'training':{'epochs':100000,"
                       "'threads':1},'model':{'kind':'ovr_encoder','hidden':[50]}}";
    struct daemon *d = daemon_new(options);
    upload_images(d, "images", 4000, 1000, 7);
    char *first = submit(d, "%s", spec);
    wait_for_epoch(d, first, 1);
    double one = resident(d, "VmRSS");
    char *second = submit(d, "%s", spec);
    wait_for_epoch(d, second, 1);
    double both = resident(d, "VmRSS");
    assert_int_equal(count_files(d, "/cache"), 1);
    if (both - one > 30e6)
        fail_msg("the second job takes %.1f MB more", (both - one) / 1e6);
    free(first);
    free(second);
    daemon_free(d);
}

/* Of all the daemon's threads so far, so that what others do on the machine hardly counts. */
static double processor_seconds(const struct daemon *d) {
    unsigned long user, system;
    FILE *file = fopen(text("/proc/%d/stat", (int)d->pid), "re");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%*d (ovrd) %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu",
                            &user, &system),
                     2);
    fclose(file);
    return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

/* Runs it so often that the clock's ticks do not matter; the estimate is of one core then. */
static void check_time(const char *spec) {
    enum { TIMES = 50 };
    struct daemon *d = daemon_new((const char *const[]){"--workers", "1", NULL});
    const struct answer *dry = post(d, "/v1/experiments?dry_run=true", spec);
    assert_status(dry, 200);
    double estimate = number_at(dry->json, "/estimate/seconds"), before = processor_seconds(d);
    for (int i = 0; i < TIMES; i++) {
        char *id = submit(d, "%s", spec);
        if (i + 1 == TIMES) /* they run in the order in which they came */
            wait_for(d, id, "succeeded");
        free(id);
    }
    double taken = (processor_seconds(d) - before) / TIMES;
    print_message("estimated %.1f ms, took %.1f ms of a core: %.2f\n", estimate * 1e3, taken * 1e3,
                  estimate / taken);
    if (estimate < taken / 4 || estimate > taken * 4)
        fail_msg("the estimate is %.2f of the time of %s", estimate / taken, spec);
    daemon_free(d);
}

#define ON_SPHERE(samples, model, epochs)                                                          \
    "{'dataset':{'generator':'sphere','samples':" samples "},'model':" model ","                   \
    "'training':{'threads':1,'epochs':" epochs "}}"

/* Small jobs, which hardly compute: their start, their epochs' figures, their samples. */
static void test_time_of_small_jobs(void **state) {
    (void)state;
    check_time(ON_SPHERE("100", "{'kind':'mlp','hidden':[8]}", "3"));
    check_time(ON_SPHERE("100", "{'kind':'mlp','hidden':[8]}", "200"));
    check_time(ON_SPHERE("2000", "{'kind':'mlp','hidden':[8]}", "10"));
    check_time(ON_SPHERE("1000", "{'kind':'ovr_encoder','hidden':[64]}", "3"));
    check_time("{'dataset':{'generator':'sphere','samples':1000},'model':{'kind':'identity'},"
               "'training':{'threads':1}}");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_time_of_small_jobs), cmocka_unit_test(test_preparing),
        cmocka_unit_test(test_training),           cmocka_unit_test(test_probing),
        cmocka_unit_test(test_data_are_shared),
    };
    return cmocka_run_group_tests_name("api/memory", tests, NULL, NULL);
}

#else

static void test_skipped(void **state) {
    (void)state;
    skip();
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_skipped)};
    return cmocka_run_group_tests_name("api/memory", tests, NULL, NULL);
}

#endif
