#include "server/queue.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

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
    s.n_jobs = 2;
    s.newest = 8;
    assert_int_equal(position(&s, 7), 2);
    assert_int_equal(position(&s, 9), 3);
    assert_int_equal(position(&s, 10), 4);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_is_not_in_the_snapshot),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
