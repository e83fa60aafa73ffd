/* The daemon is killed and stopped over and over, at any moment, under a client that submits,
 * uploads, pauses, cancels and deletes, and that sends again what got no answer, as clients do. In
 * the end nothing that was acknowledged is lost or there twice, every result is that of an
 * undisturbed run, bit for bit, and no file is left over.
 *
 * `make check` takes a few rounds. `make soak` takes minutes and prints what it does; with
 * OVRD_SOAK_SEED it makes the same choices again (how far the daemon is when it dies stays chance).
 */
#include "tests/api/daemon.h"

#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <time.h>

enum { KINDS = 7, MANY = 60, MOST = MANY + 200 };

static const char *const kinds[KINDS] = {
    "{'dataset':{'generator':'sphere','samples':2000},'model':{'kind':'mlp','hidden':[60,40],"
    "'dropout':0.2},'loss':{'ovr':{'lambda':1e-4}},'training':{'epochs':25,'batch_size':64}}",
    "{'dataset':{'name':'images'},'preprocess':[{'standardize':true},{'pca':{'components':20}}],"
    "'model':{'kind':'ovr_encoder','hidden':[64]},'training':{'epochs':8,'batch_size':32},"
    "'probe':{'epochs':3}}",
    "{'dataset':{'name':'images'},'model':{'kind':'autoencoder','hidden':[24]},'training':{"
    "'epochs':6,'batch_size':32,'protocol':'published'},'probe':null}",
    "{'dataset':{'generator':'sphere','samples':3000},'model':{'kind':'kmeans','hidden':[60]},"
    "'training':{'epochs':30},'probe':null}",
    "{'dataset':{'generator':'sphere','samples':1500},'model':{'kind':'online_kmeans','hidden':[30]"
    "},'training':{'epochs':6},'probe':{'epochs':2}}",
    "{'dataset':{'name':'images'},'model':{'kind':'pca','hidden':[10]},'probe':{'epochs':2}}",
    "{'dataset':{'generator':'sphere','samples':100},'model':{'kind':'mlp','hidden':[8]},"
    "'training':{'epochs':3}}",
};
static const char chain[] =
    "{'name':'chain','base':{'dataset':{'generator':'sphere','samples':800},'model':{'kind':'mlp',"
    "'hidden':[24]},'training':{'epochs':6}},'chain':[{'training':{'seed':1}},{'training':{'seed':"
    "2}},{'training':{'seed':3}}]}";
static const char endless[] =
    "{'dataset':{'generator':'sphere'},'model':{'kind':'mlp','hidden':[64]},'training':{"
    "'epochs':100000,'threads':1}}";

static const char *const options[] = {"--workers", "2",        "--checkpoint", "1", "--max-crashes",
                                      "1000",      "--memory", "4G",           NULL};

/* What the client knows it has. */
struct owned {
    char id[16], key[48]; /* a header */
    int kind;             /* KINDS: the chain; KINDS + 1: endless */
};

struct soak {
    struct daemon *d;
    uint64_t random;
    int talks;
    struct owned owned[MOST];
    size_t n;
    int posted, starts, kills, stops, pauses, deleted, backups;
    uint64_t uploaded; /* seed of the last upload that was acknowledged; 0: none */
    char digests[KINDS][65], chained[3][65];
};

static unsigned draw(struct soak *s, unsigned n) {
    s->random = s->random * 6364136223846793005ull + 1442695040888963407ull;
    return (unsigned)(s->random >> 33) % n;
}

/* ---- An end at a moment of its own ---- */

struct killer {
    pthread_t thread;
    pid_t pid;
    int after_ms, signal;
    _Atomic int called_off;
};

static void *kill_later(void *arg) {
    struct killer *killer = arg;
    for (int ms = 0; ms < killer->after_ms && !killer->called_off; ms += 5)
        nap(5);
    if (!killer->called_off)
        kill(killer->pid, killer->signal);
    return NULL;
}

static void reap(struct soak *s) {
    int status = 0;
    double until = now() + 15 * SLOWNESS;
    while (waitpid(s->d->pid, &status, WNOHANG) == 0) {
        if (now() > until)
            fail_msg("the daemon does not end");
        nap(5);
    }
    if (WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status) != SIGKILL)
        fail_msg("the daemon ended by itself: status %#x", status);
    daemon_reaped(s->d);
}

static void start_again(struct soak *s) {
    reap(s);
    daemon_start(s->d, options);
    s->starts++;
}

/* Sends it until there is an answer that is one. */
static const struct answer *insist(struct soak *s, const struct call *c) {
    struct call patient = *c;
    char path[256], key[64]; /* text() has its buffers for a while only */
    snprintf(path, sizeof path, "%s", c->path);
    snprintf(key, sizeof key, "%s", c->headers[1] ? c->headers[1] : "");
    patient.path = path;
    patient.headers[1] = *key ? key : NULL;
    patient.may_break = 1;
    for (int i = 0; i < 2000; i++) {
        const struct answer *a = call(s->d, &patient);
        if (a->status && a->status != 503)
            return a;
        nap(10);
        siginfo_t info = {0};
        if (waitid(P_PID, (id_t)s->d->pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
            info.si_pid == s->d->pid)
            start_again(s);
    }
    fail_msg("%s %s gets no answer", c->method, path);
    return NULL;
}

static const struct answer *look(struct soak *s, const char *path) {
    return insist(s, &(struct call){.method = "GET", .path = path});
}

/* ---- What the client does ---- */

static void submit_kind(struct soak *s, int kind) {
    struct owned *o = &s->owned[s->n];
    const char *spec = kind < KINDS ? kinds[kind] : kind == KINDS ? chain : endless;
    const char *path = kind == KINDS ? "/v1/sweeps" : "/v1/experiments";
    char *body = strdup(spec);
    if (s->n == MOST)
        return;
    for (char *c = body; *c; c++)
        *c = *c == '\'' ? '"' : *c;
    snprintf(o->key, sizeof o->key, "Idempotency-Key: key-%d", s->posted++);
    struct call c = {.method = "POST",
                     .path = path,
                     .headers = {"Content-Type: application/json", o->key},
                     .body = body};
    const struct answer *a = insist(s, &c);
    assert_status(a, 202);
    snprintf(o->id, sizeof o->id, "%s", text_at(a->json, "/id"));
    if (draw(s, 3) == 0) /* once more, as if the answer had been lost */
        assert_string_equal(text_at(insist(s, &c)->json, "/id"), o->id);
    o->kind = kind;
    s->n++;
    free(body);
}

static void upload(struct soak *s, const char *name, uint64_t seed) {
    static const char *const splits[] = {"train", "test"};
    for (size_t i = 0; i < 2; i++) {
        size_t n = i ? 40 : 200;
        uint8_t *records = make_records(n, seed + i);
        const struct answer *a = insist(
            s, &(struct call){.method = "PUT",
                              .path = text("/v1/datasets/%s/%s?format=cifar10", name, splits[i]),
                              .body = records,
                              .size = n * RECORD});
        assert_true(a->status == 200 || a->status == 201);
        free(records);
    }
}

static struct owned *any(struct soak *s) {
    return s->n ? &s->owned[draw(s, (unsigned)s->n)] : NULL;
}

static void act(struct soak *s, const struct owned *o, const char *action) {
    const struct answer *a = insist(
        s, &(struct call){.method = "POST", .path = text("/v1/experiments/%s/%s", o->id, action)});
    if (a->status != 202)
        assert_status(a, 409); /* it has ended, or is in another state */
}

/* The last one takes its place. */
static void forget(struct soak *s, struct owned *o) {
    *o = s->owned[--s->n];
}

static void delete_some(struct soak *s, struct owned *o) {
    const struct answer *a =
        insist(s, &(struct call){.method = "DELETE", .path = text("/v1/experiments/%s", o->id)});
    /* 404: it was done, and the answer got lost. */
    if (a->status == 409)
        return;
    assert_true(a->status == 204 || a->status == 404);
    s->deleted++;
    forget(s, o);
}

static void do_something(struct soak *s) {
    unsigned what = draw(s, 16);
    struct owned *o = any(s);
    int single = o && o->kind != KINDS;
    if (what < 5)
        submit_kind(s, (int)draw(s, KINDS));
    else if (what == 5)
        submit_kind(s, (int)(KINDS + draw(s, 2)));
    else if (what == 6) {
        s->uploaded = 1000 + draw(s, 100) * 2;
        upload(s, "other", s->uploaded);
    } else if (what < 9 && single) {
        act(s, o, "pause");
        s->pauses++;
    } else if (what < 11 && single)
        act(s, o, "resume");
    else if (what == 11 && single && o->kind > KINDS)
        act(s, o, "cancel");
    else if (what == 12 && single)
        delete_some(s, o);
    else if (what == 13 && draw(s, 4) == 0) {
        const struct answer *a =
            insist(s, &(struct call){.method = "POST", .path = "/v1/admin/backup"});
        assert_true(a->status == 201 || a->status == 409); /* one of this second is there */
        s->backups++;
    } else if (o)
        assert_status(
            look(s, text(o->kind == KINDS ? "/v1/sweeps/%s" : "/v1/experiments/%s", o->id)), 200);
}

static void play_round(struct soak *s) {
    struct killer killer = {.pid = s->d->pid,
                            .after_ms = (int)(draw(s, 4) ? draw(s, 600) : draw(s, 3000)) * SLOWNESS,
                            .signal = draw(s, 4) ? SIGKILL : SIGTERM};
    int starts = s->starts;
    double until = now() + 3.5 * SLOWNESS;
    assert_int_equal(pthread_create(&killer.thread, NULL, kill_later, &killer), 0);
    while (s->starts == starts && now() < until) {
        do_something(s);
        nap((int)draw(s, 60));
        daemon_forget_answers(s->d);
    }
    killer.called_off = 1;
    pthread_join(killer.thread, NULL);
    *(killer.signal == SIGKILL ? &s->kills : &s->stops) += 1;
    /* It may have come after the last answer: whoever speaks next finds out. */
    look(s, "/healthz");
}

/* ---- What there is in the end ---- */

static const struct answer *await(struct soak *s, const char *where, const char *state) {
    char path[256];
    snprintf(path, sizeof path, "%s", where);
    double until = now() + 240 * SLOWNESS;
    for (;;) {
        const struct answer *a = look(s, path);
        if (a->status == 200 && strcmp(text_at(a->json, "/state"), state) == 0)
            return a;
        if (now() > until || a->status != 200 || strcmp(text_at(a->json, "/state"), "failed") == 0)
            fail_msg("%s is not %s: %s", path, state, a->body);
        nap(30);
        daemon_forget_answers(s->d);
    }
}

static void note_digest(const struct answer *a, char digest[65]) {
    const char *found = text_at(a->json, "/provenance/weights/last_sha256");
    if (!*digest)
        snprintf(digest, 65, "%s", found);
    assert_string_equal(found, digest);
}

static void check_epochs(struct soak *s, const char *id) {
    const struct answer *a = look(s, text("/v1/experiments/%s/metrics", id));
    const json_t *series = at(a->json, "/series"), *epoch;
    size_t i;
    json_array_foreach(series, i, epoch) assert_int_equal(number_at(epoch, "/epoch"), i + 1);
}

static void check_one(struct soak *s, const struct owned *o) {
    const struct answer *a = await(s, text("/v1/experiments/%s", o->id), "succeeded");
    note_digest(a, s->digests[o->kind]);
    check_epochs(s, o->id);
}

static void check_chain(struct soak *s, const struct owned *o) {
    const struct answer *a = await(s, text("/v1/sweeps/%s", o->id), "succeeded");
    char ids[3][16];
    for (int p = 0; p < 3; p++)
        snprintf(ids[p], sizeof ids[p], "%s",
                 text_at(a->json, text("/points/%d/experiments/0/id", p)));
    for (int p = 0; p < 3; p++) {
        note_digest(look(s, text("/v1/experiments/%s", ids[p])), s->chained[p]);
        check_epochs(s, ids[p]);
    }
}

/* As a client that wants its results does. */
static void settle(struct soak *s) {
    for (size_t i = 0; i < s->n; i++) {
        struct owned *o = &s->owned[i];
        if (o->kind > KINDS)
            act(s, o, "cancel");
        else if (o->kind < KINDS)
            act(s, o, "resume");
    }
    for (size_t i = 0; i < s->n; i++) {
        struct owned *o = &s->owned[i];
        if (o->kind == KINDS)
            check_chain(s, o);
        else if (o->kind < KINDS)
            check_one(s, o);
        else
            await(s, text("/v1/experiments/%s", o->id), "cancelled");
        daemon_forget_answers(s->d);
    }
}

static size_t count_all(struct soak *s, const char *query) {
    size_t n = 0;
    const char *path = text("/v1/experiments?limit=500%s", query);
    while (path) {
        const struct answer *a = look(s, path);
        n += json_array_size(at(a->json, "/experiments"));
        const char *link = header(a, "Link");
        path = link ? text("%.*s", (int)strcspn(link + 1, ">"), link + 1) : NULL;
    }
    return n;
}

static int count_names(const char *dir, const char *part) {
    int n = 0;
    DIR *handle = opendir(dir);
    assert_non_null(handle);
    for (struct dirent *entry; (entry = readdir(handle));)
        n += strstr(entry->d_name, part) != NULL;
    closedir(handle);
    return n;
}

static void check_files(struct soak *s, int fresh) {
    const char *dir = s->d->dir;
    size_t succeeded = 0, all = 0;
    for (size_t i = 0; i < s->n; i++) {
        all += s->owned[i].kind == KINDS ? 3 : 1;
        succeeded += s->owned[i].kind == KINDS ? 3 : s->owned[i].kind < KINDS;
    }
    assert_int_equal(count_all(s, ""), all);
    assert_int_equal(count_all(s, "&state=succeeded"), succeeded);
    assert_int_equal(count_files(s->d, "/experiments"), succeeded);
    for (int i = 0; i < 300 && count_files(s->d, "/checkpoints"); i++)
        nap(10 * SLOWNESS); /* a worker takes its own away a little later */
    assert_int_equal(count_files(s->d, "/checkpoints"), 0);
    assert_int_equal(count_names(text("%s/datasets", dir), "upload-"), 0);
    assert_int_equal(count_names(text("%s/backups", dir), "making"), 0);
    /* The splits of two data sets, each once, until the next start also as they were before; no
     * experiment names an older version. */
    int splits = s->uploaded ? 4 : 2, more = count_files(s->d, "/datasets") - splits;
    assert_true(more >= 0 && more <= (fresh ? 0 : splits - 2));
}

/* All of them go, and the client begins anew. */
static void clear(struct soak *s) {
    for (;;) {
        const json_t *list = at(look(s, "/v1/experiments?limit=100")->json, "/experiments"), *e;
        size_t i;
        if (!json_array_size(list))
            break;
        json_array_foreach(list, i, e) {
            const struct answer *a =
                insist(s, &(struct call){.method = "DELETE",
                                         .path = text("/v1/experiments/%s", text_at(e, "/id"))});
            assert_true(a->status == 204 || a->status == 404);
        }
    }
    s->n = 0;
    check_files(s, 0);
}

/* The last upload that was acknowledged is the one that is there. */
static void check_upload(struct soak *s) {
    if (!s->uploaded)
        return;
    const struct answer *a = look(s, "/v1/datasets/other");
    char sha256[65];
    snprintf(sha256, sizeof sha256, "%s", text_at(a->json, "/splits/train/sha256"));
    upload(s, "other", s->uploaded);
    a = look(s, "/v1/datasets/other");
    assert_string_equal(text_at(a->json, "/splits/train/sha256"), sha256);
}

/* What undisturbed runs come to. */
static void learn_digests(struct soak *s) {
    s->d = daemon_new(options);
    upload(s, "images", 1);
    for (int kind = 0; kind <= KINDS; kind++)
        submit_kind(s, kind);
    settle(s);
    daemon_free(s->d);
    s->n = 0;
}

static void soak(struct soak *s, double seconds, int rounds) {
    s->d = daemon_new(options);
    assert_int_equal(system(text("mkdir -p %s/backups", s->d->dir)), 0);
    upload(s, "images", 1);
    double until = now() + seconds;
    for (int r = 0; r < rounds || now() < until; r++) {
        play_round(s);
        if (s->talks && r % 10 == 9)
            print_message("round %d: %zu posted, %d kills, %d stops, %d pauses, %d deleted, %d "
                          "backups\n",
                          r + 1, s->n, s->kills, s->stops, s->pauses, s->deleted, s->backups);
        if (s->n >= MANY) {
            settle(s);
            check_files(s, 0);
            clear(s);
        }
    }
    settle(s);
    check_upload(s);
    daemon_kill(s->d);
    daemon_start(s->d, options);
    check_files(s, 1);
    daemon_free(s->d);
}

static void test_nothing_is_lost(void **state) {
    (void)state;
    const char *seconds = getenv("OVRD_SOAK_SECONDS"), *seed = getenv("OVRD_SOAK_SEED");
    struct soak *s = calloc(1, sizeof *s);
    assert_non_null(s);
    s->talks = seconds != NULL;
    s->random = seed ? strtoull(seed, NULL, 10) : seconds ? (uint64_t)time(NULL) : 11;
    if (s->talks)
        print_message("OVRD_SOAK_SEED=%llu\n", (unsigned long long)s->random);
    learn_digests(s);
    soak(s, seconds ? atof(seconds) : 0, 8);
    free(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_nothing_is_lost)};
    return cmocka_run_group_tests_name("soak", tests, NULL, NULL);
}
