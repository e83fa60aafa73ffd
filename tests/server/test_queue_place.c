#include "server/queue.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

static int64_t position(const struct queue_snapshot *snapshot, int64_t seq) {
    struct experiment experiment = {.seq = seq, .waits_for = "", .owner = "", .sweep = ""};
    struct queue_place place;
    queue_place(snapshot, &experiment, &place);
    assert_string_equal(place.reason_code, "next");
    return place.position;
}

/* Who is not in the snapshot came later, or was claimed before it. */
static void who_is_not_in_the_snapshot(void **state) {
    (void)state;
    struct owner nobody = {.max_running = 1000};
    struct plan_job jobs[] = {{.seq = 8, .position = 1}, {.seq = 7, .position = 2}};
    uint32_t by_seq[] = {1, 0};
    struct queue_snapshot s = {.owners = &nobody, .n_owners = 1};
    s.pool.workers = 2;
    assert_int_equal(position(&s, 1010), 1); /* nobody was seen before it */
    s.newest = 1009;
    assert_int_equal(position(&s, 1010), 1);
    assert_int_equal(position(&s, 1009), 1);
    assert_int_equal(position(&s, 1012), 3);
    s.jobs = jobs;
    s.by_seq = by_seq;
    s.n_jobs = s.n_here = 2;
    s.newest = 8;
    assert_int_equal(position(&s, 7), 2);
    assert_int_equal(position(&s, 9), 3);
    assert_int_equal(position(&s, 10), 4);
}

/* Two places of the cluster, one taken by a job that runs and one by a job that waits there. */
struct there {
    struct owner nobody;
    struct plan_job jobs[3];
    uint32_t by_seq[3];
    struct sent sent[2];
    struct queue_snapshot s;
};

static void fill(struct there *t) {
    *t = (struct there){
        .nobody = {.max_running = 1000},
        .jobs = {{.seq = 1, .position = 1}, {.seq = 2, .position = 1}, {.seq = 4, .position = 2}},
        .by_seq = {0, 1, 2},
        .sent = {{.seq = 2, .job = "1234", .reason = "Resources"}, {.seq = 3, .begun_ms = 7}},
        .s = {.n_owners = 1, .n_jobs = 3, .n_here = 1, .n_there = 1, .n_sent = 2, .newest = 4},
    };
    t->s.owners = &t->nobody;
    t->s.jobs = t->jobs;
    t->s.by_seq = t->by_seq;
    t->s.sent = t->sent;
    t->s.pool.workers = 2;
    t->s.cluster_jobs = 2;
    t->s.cluster.answers = 1;
}

static void assert_place(const struct there *t, int64_t seq, int64_t position, const char *code,
                         const char *reason) {
    struct experiment e = {.seq = seq, .executor = EXECUTOR_SLURM};
    struct queue_place place;
    queue_place(&t->s, &e, &place);
    assert_int_equal(place.position, position);
    assert_string_equal(place.reason_code, code);
    assert_string_equal(place.reason, reason);
    assert_int_equal(place.starts_at, 0);
}

static void what_the_cluster_lets_wait(void **state) {
    (void)state;
    struct there t;
    fill(&t);
    assert_place(&t, 2, 1, "slurm",
                 "Slurm has it as job 1234 (Resources): the nodes that it needs are busy");
    strcpy(t.sent[0].reason, "PartitionNodeLimit");
    assert_place(&t, 2, 1, "slurm",
                 "Slurm has it as job 1234 (PartitionNodeLimit): the partition never gives so "
                 "much: see --slurm-options");
    strcpy(t.sent[0].reason, "PartitionTimeLimit");
    assert_place(&t, 2, 1, "slurm",
                 "Slurm has it as job 1234 (PartitionTimeLimit): the partition never gives so much "
                 "time: see --slurm-max-minutes");
    strcpy(t.sent[0].reason, "Running on h1");
    assert_place(&t, 2, 1, "slurm",
                 "Slurm has it as job 1234 (Running on h1): its worker starts there, and has not "
                 "reached this daemon yet");
    strcpy(t.sent[0].reason, "SomethingNew");
    assert_place(&t, 2, 1, "slurm", "Slurm has it as job 1234: SomethingNew");
    *t.sent[0].reason = '\0';
    assert_place(&t, 2, 1, "slurm", "Slurm has it as job 1234: it has just come in");
    *t.sent[0].job = '\0';
    assert_place(&t, 2, 1, "slurm", "it is being sent to Slurm");
}

static void what_is_not_sent_yet(void **state) {
    (void)state;
    struct there t;
    fill(&t);
    assert_place(&t, 4, 2, "slurm", "2nd in line for Slurm; Slurm has 2 of at most 2 experiments");
    assert_place(&t, 5, 3, "slurm", /* it came after the look */
                 "3rd in line for Slurm; Slurm has 2 of at most 2 experiments");
    t.s.cluster_jobs = 3;
    assert_place(&t, 4, 2, "slurm", "2nd in line for Slurm; it is sent as soon as its turn comes");
    strcpy(t.s.cluster.trouble, "squeue did not answer within 10 s");
    assert_place(&t, 4, 2, "slurm", "2nd in line for Slurm; squeue did not answer within 10 s");
    t.nobody.running = t.nobody.max_running = 2;
    assert_place(&t, 4, 2, "user_limit",
                 "2nd in line for Slurm; nobody already runs 2 of 2 allowed");
    t.s.pool.stopping = 1;
    assert_place(&t, 4, 2, "slurm",
                 "2nd in line for Slurm; the daemon is stopping and sends nothing more");
    t.s.cluster_jobs = 0;
    assert_place(&t, 4, 2, "slurm",
                 "2nd in line for Slurm; this daemon was started without --slurm on");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_the_cluster_lets_wait),
        cmocka_unit_test(what_is_not_sent_yet),
        cmocka_unit_test(who_is_not_in_the_snapshot),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
