/* The scheduler: single decisions, looking ahead, and a week of a lab of ten people on a machine of
 * 16 cores, with a clock that only these tests turn. */
#include "server/scheduler.h"
#include "tests/server/check.h"

#define HOUR_MS INT64_C(3600000)
#define DAY_MS (24 * HOUR_MS)
#define HALF_LIFE ((double)DAY_MS)

enum { NO_RUN_LIMIT = 1 << 30 };

/* ---- Use ---- */

static void use_fades(void **state) {
    (void)state;
    struct use use = {.at_ms = 1000};
    use_add(&use, 4, 1000, 11000, HALF_LIFE);
    assert_relative(use.core_seconds, 40., 1e-4); /* as good as nothing has faded yet */
    assert_relative(use_at(&use, 11000 + DAY_MS, HALF_LIFE), use.core_seconds / 2, 1e-12);
    assert_relative(use_at(&use, 11000 + 3 * DAY_MS, HALF_LIFE), use.core_seconds / 8, 1e-12);
    struct use steps = use;
    use_add(&use, 2, 11000, 11000 + DAY_MS, HALF_LIFE);
    for (int i = 0; i < 24; i++) /* in one go or hour by hour */
        use_add(&steps, 2, 11000 + i * HOUR_MS, 11000 + (i + 1) * HOUR_MS, HALF_LIFE);
    assert_relative(steps.core_seconds, use.core_seconds, 1e-12);
    double limit = 2 * 86400 / M_LN2; /* what two cores for ever come to */
    assert_relative(use.core_seconds, 20 + limit / 2, 1e-3);
    use_add(&use, 2, use.at_ms, use.at_ms - 5000, HALF_LIFE); /* clocks are set back */
    assert_relative(use.core_seconds, 20 + limit / 2, 1e-3);
}

/* ---- One decision ---- */

static const struct share nobody = {.limit = NO_RUN_LIMIT};

static ptrdiff_t pick(const struct share *shares, struct candidate *candidates, size_t n,
                      int64_t free_bytes) {
    const struct room room = {free_bytes, 100, 10 * HOUR_MS, HALF_LIFE, NULL, 0};
    return scheduler_pick(shares, candidates, n, &room);
}

static void priority_then_share_then_age(void **state) {
    (void)state;
    struct share shares[] = {
        {.use = 50, .limit = 9}, {.use = 49, .limit = 9}, {.use = 50, .limit = 9}};
    struct candidate c[] = {{.seq = 1, .share = 0}, {.seq = 9, .share = 1}, {.seq = 5, .share = 2}};
    assert_int_equal(pick(shares, c, 3, 100), 1); /* who used least */
    shares[1].use = 50;
    assert_int_equal(pick(shares, c, 3, 100), 0); /* all alike: age */
    c[2].priority = 1;
    assert_int_equal(pick(shares, c, 3, 100), 2);
    shares[2].use = 1e9;
    assert_int_equal(pick(shares, c, 3, 100), 2); /* before any use */
    shares[2].running = 9;
    assert_int_equal(pick(shares, c, 3, 100), 0); /* no more than the limit */
    assert_int_equal(pick(shares, c, 0, 100), NO_CANDIDATE);
}

/* What runs counts before it has used anything: two who come at once get half each. */
static void running_cores_count(void **state) {
    (void)state;
    struct share shares[] = {nobody, nobody};
    struct candidate c[] = {{.seq = 1, .share = 0}, {.seq = 100, .share = 1}};
    for (int i = 0; i < 16; i++) {
        ptrdiff_t next = pick(shares, c, 2, 100);
        assert_int_equal(next, i % 2);
        shares[next].cores++;
        shares[next].running++;
        c[next].seq++;
    }
}

static void memory_and_the_reservation(void **state) {
    (void)state;
    struct share shares[] = {nobody, nobody};
    struct candidate c[] = {{.seq = 1, .share = 0, .memory_bytes = 80},
                            {.seq = 2, .share = 1, .memory_bytes = 20},
                            {.seq = 3, .share = 1, .memory_bytes = 30}};
    struct placed placed[] = {{40, 1000}, {5, 9 * HOUR_MS}, {0, 0}};
    struct room room = {50, 100, 10 * HOUR_MS, HALF_LIFE, placed, 2};
    assert_int_equal(scheduler_pick(shares, c, 1, &room), NO_CANDIDATE);
    assert_true(c[0].blocked_ms == room.now_ms);              /* it is its turn */
    assert_int_equal(scheduler_pick(shares, c, 3, &room), 1); /* it is passed */
    c[0].blocked_ms = room.now_ms - SCHEDULER_PATIENCE_MS + 1;
    assert_int_equal(scheduler_pick(shares, c, 3, &room), 1); /* for a while */
    c[0].blocked_ms--;
    assert_int_equal(scheduler_pick(shares, c, 3, &room), 1); /* 20 fit beside its 80 */
    c[1].memory_bytes = 21;
    assert_int_equal(scheduler_pick(shares, c, 3, &room), NO_CANDIDATE);
    c[1].priority = 1; /* who is more urgent does not wait for it */
    assert_int_equal(scheduler_pick(shares, c, 3, &room), 1);
    c[1].priority = 0;
    c[1].memory_bytes = 15;
    placed[2] = (struct placed){5, room.now_ms}; /* since then 5 have been given away */
    room.n_placed = 3;
    assert_int_equal(scheduler_pick(shares, c, 3, &room), 1);
    placed[2].memory_bytes = 6;
    assert_int_equal(scheduler_pick(shares, c, 3, &room), NO_CANDIDATE);
    room.free_bytes = 80;
    room.n_placed = 2;
    shares[0].use = 1e6;
    assert_int_equal(scheduler_pick(shares, c, 3, &room), 0); /* it fits, and has waited enough */
    c[0].blocked_ms = 0;
    assert_int_equal(scheduler_pick(shares, c, 3, &room), 1); /* else share would decide */
    room.free_bytes = 50;
    scheduler_pick(shares, c, 3, &room);
    assert_true(c[0].blocked_ms == 0); /* and memory is not what it waits for */
}

/* ---- Looking ahead ---- */

static const struct machine small_machine = {2, 2, 100, (double)DAY_MS};

static void plan(const struct machine *machine, struct share *shares, size_t n_shares,
                 const struct plan_running *running, size_t n_running, struct plan_job *jobs,
                 size_t n) {
    struct ovr_err err = {0};
    assert_ok(scheduler_plan(machine, shares, n_shares, running, n_running, jobs, n, &err), &err);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(jobs[i].position, i + 1);
}

static void a_plan_says_when(void **state) {
    (void)state;
    struct share shares[] = {nobody};
    const struct plan_running running[] = {{1, 0, 10, 1, 30}, {2, 0, 10, 1, 50}};
    struct plan_job jobs[] = {{.seq = 3, .core_seconds = 100},
                              {.seq = 4, .core_seconds = 40, .priority = 1},
                              {.seq = 5, .core_seconds = 1, .memory_bytes = 101},
                              {.seq = 6, .core_seconds = 7, .after = 4},
                              {.seq = 7, .core_seconds = 7, .after = 99},
                              {.seq = 8, .core_seconds = NAN},
                              {.seq = 9, .core_seconds = 1}};
    static const int64_t order[] = {4, 3, 6, 8, 9, 5, 7};
    static const double start[] = {30, 50, 70, 77, 150, NAN, NAN};
    plan(&small_machine, shares, 1, running, 2, jobs, COUNT(jobs));
    for (size_t i = 0; i < COUNT(jobs); i++) {
        assert_int_equal(jobs[i].seq, order[i]);
        if (isnan(start[i]) ? !isnan(jobs[i].start_s) : fabs(jobs[i].start_s - start[i]) > 1e-9)
            fail_msg("%d starts at %g, not %g", (int)jobs[i].seq, jobs[i].start_s, start[i]);
    }
}

/* Two sweeps of different length, one posted first: they take turns; and a limit holds. */
static void a_plan_is_fair(void **state) {
    (void)state;
    struct share shares[] = {nobody, nobody, {.limit = 1}};
    struct plan_job jobs[30];
    for (int i = 0; i < 30; i++)
        jobs[i] = (struct plan_job){
            .seq = i + 1, .share = (size_t)i / 10, .core_seconds = i < 10 ? 20 : 10};
    int places[3] = {0};
    plan(&small_machine, shares, 3, NULL, 0, jobs, 30);
    for (int i = 0; i < 10; i++)
        places[jobs[i].share]++;
    assert_int_equal(places[0], 2); /* whose jobs take twice as long */
    assert_int_equal(places[1], 4);
    assert_int_equal(places[2], 4);
    for (int i = 1; i < 30; i++)
        assert_true(jobs[i].start_s >= jobs[i - 1].start_s);
    assert_true(jobs[29].start_s >= 180 && jobs[29].start_s <= 200); /* 400 s of work, two cores */
}

/* A hundred thousand that wait are no reason to wait. */
static void a_plan_of_many_is_quick(void **state) {
    (void)state;
    const size_t JOBS = 100000;
    enum { SHARES = 100 };
    struct plan_job *jobs = calloc(JOBS, sizeof *jobs);
    struct share shares[SHARES];
    const struct machine machine = {64, 64, 1000, HALF_LIFE};
    assert_non_null(jobs);
    for (int s = 0; s < SHARES; s++)
        shares[s] = nobody;
    for (size_t i = 0; i < JOBS; i++)
        jobs[i] = (struct plan_job){.seq = (int64_t)i + 1,
                                    .share = i * 7919 % SHARES,
                                    .core_seconds = 1 + (double)(i % 100)};
    int64_t started = now_ms();
    plan(&machine, shares, (size_t)SHARES, NULL, 0, jobs, (size_t)JOBS);
    print_message("100,000 jobs of 100 people: %d ms\n", (int)(now_ms() - started));
    assert_true(now_ms() - started < 10000); /* 0.1 s; sanitizers and busy machines */
    assert_true(jobs[JOBS - 1].start_s > 0);
    free(jobs);
}

/* ---- A week of a lab ---- */

enum { PEOPLE = 10, CORES = 16, MEMORY = 64, MOST_JOBS = 20000 };

struct lab_job {
    int owner, priority, memory;
    int64_t arrives, takes, started, ended; /* ms; started and ended −1: not yet */
};

struct lab {
    struct lab_job *jobs; /* by arrival; the index is the seq − 1 */
    int n_jobs, n_arrived, n_running;
    int first[PEOPLE]; /* none of hers before it waits */
    struct use use[PEOPLE];
    int running[PEOPLE], limit[PEOPLE];
    double core_ms[PEOPLE]; /* that she got */
    int64_t charged[PEOPLE];
    int64_t now, blocked_seq[PEOPLE], blocked_ms[PEOPLE];
    int memory_free;
    uint64_t random;
};

static double random_unit(struct lab *lab) {
    lab->random = lab->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (double)(lab->random >> 11) / (double)(UINT64_C(1) << 53);
}

static void open_lab(struct lab *lab) {
    *lab = (struct lab){.memory_free = MEMORY, .random = 42};
    lab->jobs = calloc(MOST_JOBS, sizeof *lab->jobs);
    assert_non_null(lab->jobs);
    for (int p = 0; p < PEOPLE; p++)
        lab->limit[p] = NO_RUN_LIMIT;
}

static void post(struct lab *lab, int owner, int64_t arrives, int n, int64_t takes, int memory,
                 int priority) {
    for (int i = 0; i < n; i++) {
        assert_true(lab->n_jobs < MOST_JOBS);
        lab->jobs[lab->n_jobs++] = (struct lab_job){
            owner, priority, memory, arrives, (int64_t)((double)takes * (0.5 + random_unit(lab))),
            -1,    -1};
    }
}

static int by_arrival(const void *a, const void *b) {
    const struct lab_job *x = a, *y = b;
    return (x->arrives > y->arrives) - (x->arrives < y->arrives);
}

static int waits(const struct lab_job *job) {
    return job->started < 0;
}

/* Her first job, and the first that fits; as the store finds them. −1: none. */
static void find_firsts(struct lab *lab, int p, int *first, int *fitting) {
    *first = *fitting = -1;
    while (lab->first[p] < lab->n_arrived &&
           (lab->jobs[lab->first[p]].owner != p || !waits(&lab->jobs[lab->first[p]])))
        lab->first[p]++;
    for (int i = lab->first[p]; i < lab->n_arrived; i++) {
        const struct lab_job *job = &lab->jobs[i];
        if (job->owner != p || !waits(job))
            continue;
        if (*first < 0 || job->priority > lab->jobs[*first].priority)
            *first = i;
        if (job->memory <= lab->memory_free &&
            (*fitting < 0 || job->priority > lab->jobs[*fitting].priority))
            *fitting = i;
    }
}

static struct candidate candidate_of(const struct lab *lab, int job) {
    return (struct candidate){.seq = job + 1,
                              .share = (size_t)lab->jobs[job].owner,
                              .priority = lab->jobs[job].priority,
                              .memory_bytes = lab->jobs[job].memory};
}

static size_t list_candidates(struct lab *lab, struct candidate candidates[2 * PEOPLE]) {
    size_t n = 0;
    for (int p = 0; p < PEOPLE; p++) {
        int first, fitting;
        find_firsts(lab, p, &first, &fitting);
        if (first < 0)
            continue;
        candidates[n] = candidate_of(lab, first);
        if (lab->blocked_seq[p] == first + 1)
            candidates[n].blocked_ms = lab->blocked_ms[p];
        n++;
        if (fitting >= 0 && fitting != first)
            candidates[n++] = candidate_of(lab, fitting);
    }
    return n;
}

static void charge(struct lab *lab) {
    for (int p = 0; p < PEOPLE; p++) {
        use_add(&lab->use[p], lab->running[p], lab->charged[p], lab->now, HALF_LIFE);
        lab->core_ms[p] += lab->running[p] * (double)(lab->now - lab->charged[p]);
        lab->charged[p] = lab->now;
    }
}

/* Starts one job. Returns 0 when none can start, which only a reservation excuses. */
static int start_one(struct lab *lab) {
    struct share shares[PEOPLE];
    struct candidate candidates[2 * PEOPLE];
    struct placed placed[CORES];
    struct room room = {lab->memory_free, MEMORY, lab->now, HALF_LIFE, placed, 0};
    for (int p = 0; p < PEOPLE; p++)
        shares[p] = (struct share){p, lab->use[p].core_seconds, lab->running[p], lab->running[p],
                                   lab->limit[p]};
    for (int i = 0; i < lab->n_arrived; i++)
        if (!waits(&lab->jobs[i]) && lab->jobs[i].ended > lab->now)
            placed[room.n_placed++] = (struct placed){lab->jobs[i].memory, lab->jobs[i].started};
    size_t n = list_candidates(lab, candidates);
    ptrdiff_t next = scheduler_pick(shares, candidates, n, &room);
    for (size_t i = 0; i < n; i++)
        if (candidates[i].blocked_ms) {
            lab->blocked_seq[candidates[i].share] = candidates[i].seq;
            lab->blocked_ms[candidates[i].share] = candidates[i].blocked_ms;
        }
    if (next == NO_CANDIDATE) {
        int reserved = 0, fits = 0;
        for (size_t i = 0; i < n; i++) {
            int p = (int)candidates[i].share;
            int may = lab->running[p] < lab->limit[p];
            fits |= may && candidates[i].memory_bytes <= lab->memory_free;
            reserved |= may && candidates[i].blocked_ms &&
                        lab->now - candidates[i].blocked_ms >= SCHEDULER_PATIENCE_MS;
        }
        assert_true(!fits || reserved); /* or the machine would idle */
        return 0;
    }
    struct lab_job *job = &lab->jobs[candidates[next].seq - 1];
    assert_true(waits(job) && job->memory <= lab->memory_free);
    assert_true(lab->running[job->owner] < lab->limit[job->owner]);
    job->started = lab->now;
    job->ended = lab->now + job->takes;
    lab->memory_free -= job->memory;
    lab->running[job->owner]++;
    lab->n_running++;
    return 1;
}

/* To the next arrival or end, or to `until`. */
static void pass_time(struct lab *lab, int64_t until) {
    int64_t next = until;
    if (lab->n_arrived < lab->n_jobs && lab->jobs[lab->n_arrived].arrives < next)
        next = lab->jobs[lab->n_arrived].arrives;
    for (int i = 0; i < lab->n_arrived; i++)
        if (lab->jobs[i].ended > lab->now && lab->jobs[i].ended < next)
            next = lab->jobs[i].ended;
    int64_t before = lab->now;
    lab->now = next;
    charge(lab);
    for (int i = 0; i < lab->n_arrived; i++) {
        const struct lab_job *job = &lab->jobs[i];
        if (job->ended <= before || job->ended > lab->now)
            continue;
        lab->memory_free += job->memory;
        lab->running[job->owner]--;
        lab->n_running--;
    }
    while (lab->n_arrived < lab->n_jobs && lab->jobs[lab->n_arrived].arrives <= lab->now)
        lab->n_arrived++;
}

static void play(struct lab *lab, int64_t until) {
    qsort(lab->jobs + lab->n_arrived, (size_t)(lab->n_jobs - lab->n_arrived), sizeof *lab->jobs,
          by_arrival);
    while (lab->now < until) {
        while (lab->n_running < CORES && start_one(lab))
            ;
        pass_time(lab, until);
    }
}

static double waited_h(const struct lab_job *job) {
    assert_true(job->started >= 0); /* nobody waits for ever */
    return (double)(job->started - job->arrives) / HOUR_MS;
}

/* Ten people who all want the whole machine all week, in sweeps of their own size of jobs of their
 * own length: each gets a tenth. */
static void equal_demand_gives_equal_shares(void **state) {
    (void)state;
    struct lab lab;
    open_lab(&lab);
    for (int p = 0; p < PEOPLE; p++) {
        int64_t takes = (5 + 11 * p) * INT64_C(60000); /* 5 min to 1 h 44 min */
        int n = (int)(16 * 7 * 24 * 60 / (5 + 11 * p) / 6);
        for (int sweep = 0; sweep < 4; sweep++)
            post(&lab, p, sweep * 4 * HOUR_MS, n / 4, takes, 1, 0);
    }
    play(&lab, 7 * DAY_MS);
    double sum = 0;
    for (int p = 0; p < PEOPLE; p++)
        sum += lab.core_ms[p];
    assert_true(sum > 0.999 * 7 * DAY_MS * CORES);
    for (int p = 0; p < PEOPLE; p++)
        if (fabs(lab.core_ms[p] / sum * PEOPLE - 1) > 0.03)
            fail_msg("person %d got %.1f %% of an equal share", p,
                     100 * lab.core_ms[p] / sum * PEOPLE);
    free(lab.jobs);
}

/* A glutton with two weeks of work, sweeps of hundreds at every hour of the day, lone jobs, urgent
 * ones, and some that need nearly all memory. */
static void post_a_week(struct lab *lab) {
    const int64_t minute = 60000;
    post(lab, 0, 0, 4000, 40 * minute, 2, 0); /* 2667 core-hours; the machine has 2688 a week */
    for (int day = 0; day < 7; day++) {
        int64_t morning = day * DAY_MS + 9 * HOUR_MS;
        for (int p = 1; p <= 4; p++)
            post(lab, p, morning + p * HOUR_MS / 2, 40 + 10 * p, 25 * minute, 1 + p, 0);
        for (int p = 5; p <= 8; p++) /* lone ones, a few a day */
            for (int i = 0; i < 4; i++)
                post(lab, p, morning + (int64_t)(random_unit(lab) * 10 * (double)HOUR_MS), 1,
                     90 * minute, 4, p == 8);
        if (day % 2) /* that need nearly all of it */
            post(lab, 9, morning + 5 * HOUR_MS, 1, 60 * minute, 56, 0);
    }
}

static void a_week_of_a_lab(void **state) {
    (void)state;
    struct lab lab;
    double worst[PEOPLE] = {0}, longest_h = 0;
    open_lab(&lab);
    post_a_week(&lab);
    play(&lab, 9 * DAY_MS);
    for (int i = 0; i < lab.n_jobs; i++) {
        const struct lab_job *job = &lab.jobs[i];
        int p = job->owner;
        longest_h = fmax(longest_h, (double)job->takes / HOUR_MS);
        if (p)
            worst[p] = fmax(worst[p], waited_h(job));
        else if (!waits(job))
            worst[0] = fmax(worst[0], waited_h(job));
    }
    for (int p = 0; p < PEOPLE; p++)
        print_message("person %d: %.0f core-hours, waited at most %.1f h\n", p,
                      lab.core_ms[p] / HOUR_MS, worst[p]);
    for (int p = 1; p <= 4; p++) /* their sweep is done by the evening whatever the glutton does */
        assert_true(worst[p] < 12);
    for (int p = 5; p <= 8; p++) /* a lone one starts when the next of the glutton's has ended */
        assert_true(worst[p] < 1.5);
    /* Those that need nearly all memory: until all has ended that ran when patience ended. */
    assert_true(worst[9] < longest_h + (double)SCHEDULER_PATIENCE_MS / HOUR_MS + 0.5);
    assert_true(lab.core_ms[0] > 0.55 * 9 * DAY_MS * CORES); /* and the glutton has the rest */
    free(lab.jobs);
}

/* Who had the machine for herself for days, because nobody else wanted it, is not made to wait for
 * as long as that: use fades. */
static void use_is_forgiven(void **state) {
    (void)state;
    struct lab lab;
    open_lab(&lab);
    post(&lab, 0, 0, 4000, HOUR_MS / 2, 1, 0);
    post(&lab, 1, 3 * DAY_MS, 4000, HOUR_MS / 2, 1, 0);
    play(&lab, 3 * DAY_MS);
    double alone = lab.core_ms[0];
    assert_true(alone > 2.99 * DAY_MS * CORES);
    play(&lab, 3 * DAY_MS + 30 * HOUR_MS);
    assert_true(lab.core_ms[0] - alone > 2 * HOUR_MS * CORES); /* after a half-life or so */
    double before[2] = {lab.core_ms[0], lab.core_ms[1]};
    play(&lab, 5 * DAY_MS); /* then half each */
    assert_relative(lab.core_ms[0] - before[0], lab.core_ms[1] - before[1], 0.05);
    free(lab.jobs);
}

/* A stream of small jobs of one owner, or of another, does not keep a big one out; and at her limit
 * nobody gets more. */
static void big_ones_do_not_starve(void **state) {
    (void)state;
    struct lab lab;
    open_lab(&lab);
    for (int i = 0; i < 1500; i++) /* keeps all cores and 48 of 64 busy for days */
        post(&lab, i % 2, i * INT64_C(60000), 1, 20 * 60000, 3, 0);
    post(&lab, 0, HOUR_MS, 1, HOUR_MS, 60, 0);
    post(&lab, 2, 2 * HOUR_MS, 1, HOUR_MS, 64, 0);
    lab.limit[1] = 5;
    play(&lab, 2 * DAY_MS);
    int found = 0;
    for (int i = 0; i < lab.n_jobs; i++)
        if (lab.jobs[i].memory >= 60) {
            found++;
            assert_true(waited_h(&lab.jobs[i]) < 4);
        }
    assert_int_equal(found, 2);
    free(lab.jobs);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(use_fades),
        cmocka_unit_test(priority_then_share_then_age),
        cmocka_unit_test(running_cores_count),
        cmocka_unit_test(memory_and_the_reservation),
        cmocka_unit_test(a_plan_says_when),
        cmocka_unit_test(a_plan_is_fair),
        cmocka_unit_test(a_plan_of_many_is_quick),
        cmocka_unit_test(equal_demand_gives_equal_shares),
        cmocka_unit_test(a_week_of_a_lab),
        cmocka_unit_test(use_is_forgiven),
        cmocka_unit_test(big_ones_do_not_starve),
    };
    return cmocka_run_group_tests_name("server/scheduler", tests, NULL, NULL);
}
