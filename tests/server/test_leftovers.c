/* What nobody needs goes, what somebody needs stays. */
#include "server/leftovers.h"
#include "server/people.h"
#include "tests/server/check.h"

static void make(const char *dir, const char *below, const char *id, const char *suffix) {
    char path[256];
    snprintf(path, sizeof path, "%s/%s/%s%s", dir, below, id, suffix);
    if (strcmp(below, "checkpoints") == 0) {
        write_whole(path, "x", 1);
        return;
    }
    assert_int_equal(mkdir(path, 0755), 0);
    snprintf(path, sizeof path, "%s/%s/%s%s/best", dir, below, id, suffix);
    assert_int_equal(mkdir(path, 0755), 0);
    snprintf(path, sizeof path, "%s/%s/%s%s/best/x.npy", dir, below, id, suffix);
    write_whole(path, "x", 1);
}

static int is_there(const char *dir, const char *below, const char *id) {
    char path[256];
    snprintf(path, sizeof path, "%s/%s/%s", dir, below, id);
    return access(path, F_OK) == 0;
}

/* One experiment in each state, and files of all of them and of one that is gone. */
struct scene {
    const char *dir;
    struct store *store;
    char id[N_STATES][ID_SIZE];
};

static void end(struct store *store, enum state how, char id[ID_SIZE]) {
    struct experiment e;
    struct ovr_err err = {0};
    int waiting;
    enqueue(store, &(struct new_experiment){.memory_bytes = 1, .private = 1}, id);
    assert_ok(store_claim(store, INT64_MAX, &e, &waiting, &err), &err);
    if (how != STATE_RUNNING)
        assert_ok(store_finish(store, e.seq, &(struct outcome){.state = how}, &err), &err);
    experiment_release(&e);
}

static struct scene set_scene(void **state) {
    struct place *place = *state;
    struct scene scene = {.dir = place->dir, .store = place->store};
    struct ovr_err err = {0};
    char path[256];
    int running;
    static const char *const below[] = {"experiments", "checkpoints"};
    static const enum state ends[] = {STATE_SUCCEEDED, STATE_FAILED, STATE_CANCELLED,
                                      STATE_RUNNING};
    for (size_t i = 0; i < COUNT(ends); i++)
        end(place->store, ends[i], scene.id[ends[i]]);
    enqueue(place->store, &(struct new_experiment){.memory_bytes = 1, .private = 1},
            scene.id[STATE_PAUSED]);
    assert_ok(store_pause(place->store, scene.id[STATE_PAUSED], &running, &err), &err);
    enqueue(place->store, &(struct new_experiment){.memory_bytes = 1, .private = 1},
            scene.id[STATE_QUEUED]);
    for (size_t b = 0; b < COUNT(below); b++) {
        snprintf(path, sizeof path, "%s/%s", place->dir, below[b]);
        assert_int_equal(mkdir(path, 0755), 0);
        for (int s = 0; s < N_STATES; s++)
            make(place->dir, below[b], scene.id[s], "");
        make(place->dir, below[b], scene.id[STATE_RUNNING], b ? ".old" : ".tmp");
        if (b)
            make(place->dir, below[b], "tmp-", scene.id[STATE_RUNNING]); /* one on its way */
        make(place->dir, below[b], "0000deleted0", b ? ".old" : ".tmp");
        make(place->dir, below[b], "0000deleted0", "");
    }
    return scene;
}

static void at_the_start(void **state) {
    struct scene scene = set_scene(state);
    assert_int_equal(leftovers_sweep_all(scene.store, scene.dir), 6 + 5);
    for (int s = 0; s < N_STATES; s++) {
        /* What runs when the daemon starts runs on a cluster, and brings files. */
        assert_int_equal(is_there(scene.dir, "experiments", scene.id[s]),
                         s == STATE_SUCCEEDED || s == STATE_RUNNING);
        assert_int_equal(is_there(scene.dir, "checkpoints", scene.id[s]), s <= STATE_PAUSED);
    }
    assert_int_equal(count_entries(scene.dir, "/experiments"), 1 + 2);
    assert_int_equal(count_entries(scene.dir, "/checkpoints"), 3 + 1 + 1);
}

static void while_jobs_run(void **state) {
    struct scene scene = set_scene(state);
    assert_int_equal(leftovers_sweep(scene.store, scene.dir), 2 + 5);
    assert_int_equal(count_entries(scene.dir, "/experiments"), N_STATES + 1);
    assert_int_equal(count_entries(scene.dir, "/checkpoints"), 3 + 1 + 1);
}

/* Who cancels something of hers must not remove what others keep to themselves. */
static void whoever_asks(void **state) {
    struct scene scene = set_scene(state);
    const struct asker stranger = {.user = 7, .name = "bob", .level = LEVEL_WRITE};
    ask_as(&stranger);
    assert_int_equal(leftovers_sweep_checkpoints(scene.store, scene.dir), 5);
    assert_ptr_equal(asking(), &stranger);
    ask_as(NULL);
    for (int s = 0; s < N_STATES; s++)
        assert_int_equal(is_there(scene.dir, "checkpoints", scene.id[s]), s <= STATE_PAUSED);
}

int main(void) {
    const struct CMUnitTest tests[] = {with_store(at_the_start), with_store(while_jobs_run),
                                       with_store(whoever_asks)};
    return cmocka_run_group_tests_name("server/leftovers", tests, NULL, NULL);
}
