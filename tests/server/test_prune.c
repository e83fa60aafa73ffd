/* What ended long ago goes, by request or by retention; what is to stay stays. */
#include "server/checkpoint.h"
#include "server/people.h"
#include "server/retention.h"
#include "server/weights.h"
#include "tests/server/past.h"

enum { DAY_MS = 86400000 };

struct scene {
    struct place *place;
    struct catalog catalog;
    struct prune_site site;
    int64_t now;
};

static struct scene set_scene(void **state) {
    struct scene s = {.place = *state, .now = now_ms()};
    struct ovr_err err = {0};
    assert_ok(weights_init(s.place->dir, &err), &err);
    assert_ok(checkpoint_init(s.place->dir, &err), &err);
    return s;
}

/* Once the struct lies where it stays. */
static void open_scene(struct scene *s) {
    struct ovr_err err = {0};
    assert_ok(catalog_init(&s->catalog, s->place->dir, s->place->store, &err), &err);
    s->site = (struct prune_site){s->place->store, &s->catalog, s->place->dir};
}

/* Ends in a state, with a file of so many bytes; days ago, which only the database can be told. */
static void end(struct scene *s, enum state how, int days, size_t bytes, const char *tags,
                char id[ID_SIZE]) {
    struct experiment e;
    struct ovr_err err = {0};
    char path[256], sql[200];
    int waiting;
    enqueue(s->place->store, &(struct new_experiment){.memory_bytes = 1, .tags = tags}, id);
    assert_ok(store_claim(s->place->store, INT64_MAX, &e, &waiting, &err), &err);
    assert_string_equal(e.id, id);
    assert_ok(store_finish(s->place->store, e.seq, &(struct outcome){.state = how}, &err), &err);
    experiment_release(&e);
    snprintf(path, sizeof path, "%s/experiments/%s", s->place->dir, id);
    assert_int_equal(mkdir(path, 0755), 0);
    snprintf(path, sizeof path, "%s/experiments/%s/best", s->place->dir, id);
    assert_int_equal(mkdir(path, 0755), 0);
    snprintf(path, sizeof path, "%s/experiments/%s/best/x.npy", s->place->dir, id);
    char *zeros = calloc(1, bytes + 1);
    write_whole(path, zeros, bytes);
    free(zeros);
    snprintf(sql, sizeof sql, "UPDATE experiment SET finished_at = %lld WHERE id = '%s'",
             (long long)(s->now - (int64_t)days * DAY_MS), id);
    write_past(s->place, sql);
}

static int is_there(const struct scene *s, const char *id) {
    struct experiment e = {0};
    char path[256];
    int rc = store_get_experiment(s->place->store, id, &e, NULL);
    snprintf(path, sizeof path, "%s/experiments/%s", s->place->dir, id);
    experiment_release(&e);
    assert_int_equal(access(path, F_OK) == 0, rc == 0); /* its files go with it, and stay with it */
    return rc == 0;
}

/* What was said of each, in order. */
struct report {
    char ids[20][ID_SIZE];
    int n, kept, pages;
    int64_t bytes;
};

static int note(void *context, const struct pruned *p) {
    struct report *report = context;
    memcpy(report->ids[report->n++], p->experiment->id, ID_SIZE);
    report->kept += p->kept != NULL;
    report->bytes += p->bytes;
    return 0;
}

static struct report prune(const struct scene *s, struct prune_rules rules, int days, int most) {
    struct report report = {.n = 0};
    struct prune_place place = {0};
    struct ovr_err err = {0};
    int more = 1;
    rules.ended_before = s->now - (int64_t)days * DAY_MS;
    for (; more; report.pages++)
        assert_ok(prune_page(&s->site, &rules, most, &place, &more, note, &report, &err), &err);
    return report;
}

static void the_oldest_go_and_bytes_are_theirs(void **state) {
    struct scene s = set_scene(state);
    char old[3][ID_SIZE], young[ID_SIZE], queued[ID_SIZE];
    open_scene(&s);
    end(&s, STATE_SUCCEEDED, 40, 1000, "", old[0]);
    end(&s, STATE_FAILED, 60, 200, "", old[1]);
    end(&s, STATE_CANCELLED, 50, 30, "", old[2]);
    end(&s, STATE_SUCCEEDED, 20, 4, "", young);
    enqueue(s.place->store, &(struct new_experiment){.memory_bytes = 1}, queued);
    struct report dry = prune(&s, (struct prune_rules){.dry = 1}, 30, 2);
    assert_int_equal(dry.n, 3);
    assert_int_equal(dry.bytes, 1230);
    assert_int_equal(dry.pages, 2);
    assert_string_equal(dry.ids[0], old[1]); /* the one longest ended first */
    assert_string_equal(dry.ids[1], old[2]);
    for (int i = 0; i < 3; i++)
        assert_true(is_there(&s, old[i]));
    struct report failed = prune(&s, (struct prune_rules){.state = "failed"}, 30, 2);
    assert_int_equal(failed.n, 1);
    assert_int_equal(failed.bytes, 200);
    struct report rest = prune(&s, (struct prune_rules){.dry = 0}, 30, 2);
    assert_int_equal(rest.bytes, 1030);
    for (int i = 0; i < 3; i++)
        assert_false(is_there(&s, old[i]));
    assert_true(is_there(&s, young));
    assert_int_equal(state_of(s.place->store, queued), STATE_QUEUED);
}

static void what_a_backup_holds_is_not_freed(void **state) {
    struct scene s = set_scene(state);
    char id[ID_SIZE], from[256], to[256];
    open_scene(&s);
    end(&s, STATE_SUCCEEDED, 40, 1000, "", id);
    snprintf(from, sizeof from, "%s/experiments/%s/best/x.npy", s.place->dir, id);
    snprintf(to, sizeof to, "%s/copy", s.place->dir);
    assert_int_equal(link(from, to), 0);
    assert_int_equal(prune(&s, (struct prune_rules){.dry = 1}, 30, 5).bytes, 0);
    assert_int_equal(unlink(to), 0);
    assert_int_equal(prune(&s, (struct prune_rules){.dry = 1}, 30, 5).bytes, 1000);
}

static void what_is_to_stay_stays(void **state) {
    struct scene s = set_scene(state);
    char tagged[ID_SIZE], similar[ID_SIZE], needed[ID_SIZE], user[ID_SIZE];
    char spec[100];
    open_scene(&s);
    end(&s, STATE_SUCCEEDED, 40, 1, "\nold\nkeep\n", tagged);
    end(&s, STATE_SUCCEEDED, 40, 2, "\nkeepsake\nnokeep\n", similar);
    end(&s, STATE_SUCCEEDED, 40, 4, "", needed);
    snprintf(spec, sizeof spec, "{\"model\":{\"init\":{\"experiment\":\"%s\"}}}", needed);
    enqueue(s.place->store, &(struct new_experiment){.memory_bytes = 1, .spec = spec}, user);
    for (int dry = 1; dry >= 0; dry--) {
        struct report r = prune(&s, (struct prune_rules){.dry = dry}, 30, 1);
        assert_int_equal(r.n, 2);
        assert_int_equal(r.kept, 1);
        assert_int_equal(r.bytes, 2);
    }
    assert_true(is_there(&s, tagged));
    assert_false(is_there(&s, similar));
    assert_true(is_there(&s, needed));
    assert_int_equal(prune(&s, (struct prune_rules){.tag = "old"}, 30, 5).n, 0);
    assert_int_equal(prune(&s, (struct prune_rules){.tag = "keep"}, 30, 5).n, 1);
    assert_false(is_there(&s, tagged));
}

/* ---- Retention ---- */

static struct retention_outcome run(const struct scene *s, struct retention_rules rules,
                                    int64_t now) {
    struct retention_outcome outcome;
    struct ovr_err err = {0};
    assert_ok(retention_run(&s->site, &rules, now, NULL, &outcome, &err), &err);
    return outcome;
}

static void by_default_nothing_goes(void **state) {
    struct scene s = set_scene(state);
    char id[ID_SIZE];
    struct retention *retention = (void *)1;
    struct ovr_err err = {0};
    open_scene(&s);
    end(&s, STATE_SUCCEEDED, 10000, 1, "", id);
    assert_int_equal(run(&s, (struct retention_rules){0, 0}, s.now).deleted, 0);
    assert_ok(retention_start(&retention, &s.site, &(struct retention_rules){0, 0}, &err), &err);
    assert_null(retention);
    retention_stop(retention);
    assert_true(is_there(&s, id));
}

static void retention_has_two_ages(void **state) {
    struct scene s = set_scene(state);
    char good[ID_SIZE], failed[ID_SIZE], cancelled[ID_SIZE], kept[ID_SIZE];
    struct retention_rules rules = {.days = 30, .failed_days = 7};
    open_scene(&s);
    end(&s, STATE_SUCCEEDED, 10, 1, "", good);
    end(&s, STATE_FAILED, 10, 10, "", failed);
    end(&s, STATE_CANCELLED, 10, 100, "", cancelled);
    end(&s, STATE_SUCCEEDED, 10, 1000, "\nkeep\n", kept);
    struct retention_outcome first = run(&s, rules, s.now);
    assert_int_equal(first.deleted, 2);
    assert_int_equal(first.bytes, 110);
    assert_int_equal(run(&s, rules, s.now).deleted, 0);
    assert_int_equal(run(&s, rules, s.now + 19ll * DAY_MS).deleted, 0);
    assert_true(is_there(&s, good));
    assert_int_equal(run(&s, rules, s.now + 21ll * DAY_MS).deleted, 1);
    assert_false(is_there(&s, good));
    assert_int_equal(run(&s, rules, s.now + 10000ll * DAY_MS).deleted, 0);
    assert_true(is_there(&s, kept));
}

static void it_is_in_the_audit_as_nobodys(void **state) {
    struct scene s = set_scene(state);
    char id[ID_SIZE];
    struct audit_entry *list;
    struct ovr_err err = {0};
    size_t n;
    open_scene(&s);
    end(&s, STATE_FAILED, 10, 1, "", id);
    run(&s, (struct retention_rules){.days = 9}, s.now);
    assert_null(asking());
    assert_ok(store_list_audit(s.place->store, &(struct audit_filter){.object = id, .limit = 10},
                               &list, &n, &err),
              &err);
    assert_int_equal(n, 1);
    assert_string_equal(list[0].action, "experiment.delete");
    assert_string_equal(list[0].user, "");
    audit_free(list, n);
}

/* It has one thread, which looks at once, and ends when it is told to. */
static void it_looks_at_its_start(void **state) {
    struct scene s = set_scene(state);
    char id[ID_SIZE];
    struct retention *retention;
    struct ovr_err err = {0};
    open_scene(&s);
    end(&s, STATE_SUCCEEDED, 10, 1, "", id);
    assert_ok(retention_start(&retention, &s.site, &(struct retention_rules){.days = 9}, &err),
              &err);
    struct experiment e = {0};
    for (int ms = 0; store_get_experiment(s.place->store, id, &e, NULL) == 0; ms += 5) {
        experiment_release(&e);
        assert_true(ms < 10000);
        sleep_ms(5);
    }
    retention_stop(retention);
    assert_false(is_there(&s, id));
}

static void it_stops_between_two(void **state) {
    struct scene s = set_scene(state);
    char id[ID_SIZE];
    _Atomic int stop = 1;
    struct retention_outcome outcome;
    struct ovr_err err = {0};
    open_scene(&s);
    end(&s, STATE_SUCCEEDED, 10, 1, "", id);
    assert_ok(
        retention_run(&s.site, &(struct retention_rules){.days = 9}, s.now, &stop, &outcome, &err),
        &err);
    assert_int_equal(outcome.deleted, 0);
    assert_true(is_there(&s, id));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        with_store(the_oldest_go_and_bytes_are_theirs),
        with_store(what_a_backup_holds_is_not_freed),
        with_store(what_is_to_stay_stays),
        with_store(by_default_nothing_goes),
        with_store(retention_has_two_ages),
        with_store(it_is_in_the_audit_as_nobodys),
        with_store(it_looks_at_its_start),
        with_store(it_stops_between_two),
    };
    return cmocka_run_group_tests_name("server/prune", tests, NULL, NULL);
}
