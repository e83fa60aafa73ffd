#include "server/gate.h"

#include "server/attempts.h"
#include "server/limiter.h"
#include "server/log.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ENTRIES = 1024, NOTE_MS = 60000, BURST_S = 10 };

struct entry {
    char sha256[DIGEST_SIZE]; /* "": empty */
    struct asker asker;
    int64_t used_at, noted_at;
};

struct gate {
    struct store *store;
    struct limiter requests, failures;
    pthread_mutex_t lock; /* guards what follows */
    int counted, is_open;
    uint64_t version; /* of the people, when they were counted */
    struct entry entries[ENTRIES];
};

int gate_new(struct gate **out, const struct gate_config *config, struct ovr_err *err) {
    struct gate *gate = calloc(1, sizeof *gate);
    if (!gate)
        return ovr_nomem(err, "the tokens in use");
    gate->store = config->store;
    limiter_init(&gate->requests, config->requests_per_second,
                 config->requests_per_second * BURST_S);
    limiter_init(&gate->failures, config->failures_per_minute / 60, config->failures_per_minute);
    pthread_mutex_init(&gate->lock, NULL);
    *out = gate;
    return 0;
}

void gate_free(struct gate *gate) {
    if (!gate)
        return;
    limiter_release(&gate->requests);
    limiter_release(&gate->failures);
    pthread_mutex_destroy(&gate->lock);
    free(gate);
}

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Whether there are no users; counted anew when anything about people has changed. */
static int look_whether_open(struct gate *gate, uint64_t version, int *is_open,
                             struct ovr_err *err) {
    int64_t users, admins;
    pthread_mutex_lock(&gate->lock);
    int known = gate->counted && gate->version == version;
    *is_open = gate->is_open;
    pthread_mutex_unlock(&gate->lock);
    if (known)
        return 0;
    int rc = store_count_users(gate->store, &users, &admins, err);
    if (rc)
        return rc;
    *is_open = users == 0;
    pthread_mutex_lock(&gate->lock);
    gate->counted = 1;
    gate->is_open = *is_open;
    gate->version = version;
    pthread_mutex_unlock(&gate->lock);
    return 0;
}

/* By the digest's first digits, which are as good as random. */
static struct entry *place_of(struct gate *gate, const char sha256[DIGEST_SIZE]) {
    char digits[9];
    memcpy(digits, sha256, 8);
    digits[8] = '\0';
    return &gate->entries[strtoul(digits, NULL, 16) % ENTRIES];
}

/* Keeps the address. */
static void become(struct asker *asker, const struct asker *known) {
    struct asker was = *asker;
    *asker = *known;
    memcpy(asker->address, was.address, sizeof asker->address);
}

static int is_valid(const struct asker *asker, int64_t now) {
    return !asker->expires_at || asker->expires_at > now;
}

/* *seen: it was valid once, whatever has changed since; so it is no guess. */
static int remembered(struct gate *gate, const char sha256[DIGEST_SIZE], struct asker *asker,
                      int *seen) {
    int64_t now = now_ms();
    pthread_mutex_lock(&gate->lock);
    struct entry *entry = place_of(gate, sha256);
    *seen = digest_equal(entry->sha256, sha256);
    int found = *seen && entry->asker.people == asker->people && is_valid(&entry->asker, now);
    if (found) {
        entry->used_at = now;
        become(asker, &entry->asker);
    }
    pthread_mutex_unlock(&gate->lock);
    return found;
}

static void remember(struct gate *gate, const struct entry *found) {
    pthread_mutex_lock(&gate->lock);
    struct entry *entry = place_of(gate, found->sha256);
    int64_t noted_at = digest_equal(entry->sha256, found->sha256) ? entry->noted_at : 0;
    *entry = *found;
    entry->noted_at = noted_at;
    pthread_mutex_unlock(&gate->lock);
}

static enum verdict wait_for(int64_t ns, int *wait_s) {
    *wait_s = (int)(ns / 1000000000) + 1;
    return GATE_TOO_OFTEN;
}

/* Like any wrong one: expired, revoked, never given. Next time it is a guess, whatever it was. */
static enum verdict refuse(struct gate *gate, const char sha256[DIGEST_SIZE],
                           const struct asker *asker) {
    pthread_mutex_lock(&gate->lock);
    struct entry *entry = place_of(gate, sha256);
    if (digest_equal(entry->sha256, sha256))
        *entry = (struct entry){.used_at = 0};
    pthread_mutex_unlock(&gate->lock);
    limiter_take(&gate->failures, asker->address, now_ns());
    return GATE_WRONG;
}

static enum verdict find(struct gate *gate, const char *token, struct asker *asker, int *wait_s,
                         struct ovr_err *err) {
    struct entry entry = {.asker.people = asker->people, .used_at = now_ms()};
    digest_of(token, strlen(token), entry.sha256);
    int seen;
    if (remembered(gate, entry.sha256, asker, &seen))
        return GATE_KNOWN;
    int64_t wait = seen ? 0 : limiter_look(&gate->failures, asker->address, now_ns());
    if (wait)
        return wait_for(wait, wait_s);
    int rc = store_find_token(gate->store, entry.sha256, &entry.asker, err);
    if (rc == OVR_NOT_FOUND || (!rc && !is_valid(&entry.asker, entry.used_at)))
        return refuse(gate, entry.sha256, asker);
    if (rc)
        return GATE_TROUBLE;
    remember(gate, &entry);
    become(asker, &entry.asker);
    return GATE_KNOWN;
}

enum verdict gate_enter(struct gate *gate, const char *token, struct asker *asker, int *wait_s,
                        struct ovr_err *err) {
    int is_open;
    asker->level = LEVEL_NONE;
    asker->people = store_people_version(gate->store);
    if (look_whether_open(gate, asker->people, &is_open, err))
        return GATE_TROUBLE;
    if (is_open) {
        asker->level = LEVEL_ADMIN;
        return GATE_OPEN;
    }
    enum verdict verdict = token ? find(gate, token, asker, wait_s, err) : GATE_NO_TOKEN;
    if (verdict != GATE_KNOWN && verdict != GATE_NO_TOKEN)
        return verdict;
    int known = verdict == GATE_KNOWN;
    char key[USER_NAME_SIZE + ADDRESS_SIZE]; /* a user may be called 192.0.2.1 */
    snprintf(key, sizeof key, "%s %s", known ? "user" : "address",
             known ? asker->name : asker->address);
    int64_t wait = limiter_take(&gate->requests, key, now_ns());
    return wait ? wait_for(wait, wait_s) : verdict;
}

/* Looked up in any case, so that nobody on its node can keep a worker out by wrong tokens. */
enum verdict gate_enter_worker(struct gate *gate, const char *token, struct asker *asker,
                               int *wait_s, struct ovr_err *err) {
    struct attempt attempt;
    asker->level = LEVEL_NONE;
    if (!token)
        return GATE_NO_TOKEN;
    int rc = store_find_attempt(gate->store, token, &attempt, NULL, err);
    if (rc != OVR_NOT_FOUND)
        return rc ? GATE_TROUBLE : GATE_KNOWN;
    int64_t wait = limiter_take(&gate->failures, asker->address, now_ns());
    return wait ? wait_for(wait, wait_s) : GATE_WRONG;
}

void gate_tick(struct gate *gate) {
    for (size_t i = 0; i < ENTRIES; i++) {
        char id[ID_SIZE] = "";
        int64_t used_at = 0;
        pthread_mutex_lock(&gate->lock);
        struct entry *entry = &gate->entries[i];
        if (*entry->sha256 && entry->used_at - entry->noted_at >= NOTE_MS) {
            memcpy(id, entry->asker.token, sizeof id);
            used_at = entry->noted_at = entry->used_at;
        }
        pthread_mutex_unlock(&gate->lock);
        /* Without room on the disk it is not noted; she gets in all the same. */
        if (*id)
            store_note_token(gate->store, id, used_at, NULL);
    }
}
