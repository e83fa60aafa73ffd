#include "api/tls.h"

#include <errno.h>
#include <gnutls/abstract.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

enum {
    MOST_CERTIFICATES = 16, /* in a chain */
    KEPT_SECONDS = 600,     /* of an old pair: by then the handshakes begun with it have ended */
};

/* A chain and its key. A handshake may go on with it after it was replaced. */
struct pair {
    gnutls_pcert_st chain[MOST_CERTIFICATES];
    unsigned n;
    gnutls_privkey_t key;
    time_t replaced_at;
    struct pair *before;
};

static struct {
    pthread_mutex_t lock;
    const char *certificate, *key;
    struct pair *now; /* and behind it those before */
    struct stat seen[2];
} tls = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void pair_free(struct pair *pair) {
    for (unsigned i = 0; i < pair->n; i++)
        gnutls_pcert_deinit(&pair->chain[i]);
    if (pair->key)
        gnutls_privkey_deinit(pair->key);
    free(pair);
}

static int fault(struct ovr_err *err, const char *what, const char *path, int code) {
    return ovr_fail(err, OVR_INVALID, NULL, "%s %s cannot be used: %s", what, path,
                    code == GNUTLS_E_FILE_ERROR && errno ? strerror(errno) : gnutls_strerror(code));
}

static int load_chain(struct pair *pair, const char *path, struct ovr_err *err) {
    gnutls_datum_t text = {0};
    unsigned n = MOST_CERTIFICATES;
    errno = 0;
    int rc = gnutls_load_file(path, &text);
    if (rc == 0)
        rc = gnutls_pcert_list_import_x509_raw(pair->chain, &n, &text, GNUTLS_X509_FMT_PEM, 0);
    gnutls_free(text.data);
    if (rc < 0)
        return fault(err, "the certificate", path, rc);
    pair->n = n;
    return 0;
}

static int load_key(struct pair *pair, const char *path, struct ovr_err *err) {
    gnutls_datum_t text = {0};
    errno = 0;
    int rc = gnutls_load_file(path, &text);
    if (rc == 0)
        rc = gnutls_privkey_init(&pair->key);
    if (rc == 0)
        rc = gnutls_privkey_import_x509_raw(pair->key, &text, GNUTLS_X509_FMT_PEM, NULL, 0);
    if (text.data)
        gnutls_memset(text.data, 0, text.size);
    gnutls_free(text.data);
    return rc < 0 ? fault(err, "the key", path, rc) : 0;
}

/* Else every handshake would fail. */
static int must_match(const struct pair *pair, struct ovr_err *err) {
    unsigned char ids[2][32];
    size_t sizes[2] = {sizeof ids[0], sizeof ids[1]};
    gnutls_pubkey_t public;
    int rc = gnutls_pubkey_init(&public);
    if (rc < 0)
        return ovr_nomem(err, "a key");
    rc = gnutls_pubkey_import_privkey(public, pair->key, 0, 0);
    if (rc == 0)
        rc = gnutls_pubkey_get_key_id(public, GNUTLS_KEYID_USE_SHA256, ids[0], &sizes[0]);
    if (rc == 0)
        rc = gnutls_pubkey_get_key_id(pair->chain[0].pubkey, GNUTLS_KEYID_USE_SHA256, ids[1],
                                      &sizes[1]);
    gnutls_pubkey_deinit(public);
    if (rc < 0)
        return fault(err, "the key", tls.key, rc);
    return memcmp(ids[0], ids[1], sizeof ids[0]) == 0
               ? 0
               : ovr_fail(err, OVR_INVALID, NULL, "the key %s is not that of the certificate %s",
                          tls.key, tls.certificate);
}

static void look(struct stat seen[2]) {
    memset(seen, 0, 2 * sizeof *seen);
    stat(tls.certificate, &seen[0]);
    stat(tls.key, &seen[1]);
}

static int same_file(const struct stat *a, const struct stat *b) {
    return a->st_ino == b->st_ino && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

int tls_changed(void) {
    struct stat seen[2];
    if (!tls.certificate)
        return 0;
    look(seen);
    return !same_file(&seen[0], &tls.seen[0]) || !same_file(&seen[1], &tls.seen[1]);
}

static void forget_old(time_t now) {
    struct pair **at = &tls.now->before;
    while (*at && now - (*at)->replaced_at < KEPT_SECONDS)
        at = &(*at)->before;
    struct pair *old = *at;
    *at = NULL;
    while (old) {
        struct pair *before = old->before;
        pair_free(old);
        old = before;
    }
}

static void replace(struct pair *pair) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    pthread_mutex_lock(&tls.lock);
    pair->before = tls.now;
    if (tls.now)
        tls.now->replaced_at = now.tv_sec;
    tls.now = pair;
    forget_old(now.tv_sec);
    pthread_mutex_unlock(&tls.lock);
}

int tls_reload(struct ovr_err *err) {
    struct pair *pair = calloc(1, sizeof *pair);
    if (!pair)
        return ovr_nomem(err, "a certificate");
    look(tls.seen); /* first: what changes while we read is read once more */
    int rc = load_chain(pair, tls.certificate, err);
    rc = rc ? rc : load_key(pair, tls.key, err);
    rc = rc ? rc : must_match(pair, err);
    if (rc)
        pair_free(pair);
    else
        replace(pair);
    return rc;
}

int tls_open(const char *certificate, const char *key, struct ovr_err *err) {
    tls.certificate = certificate;
    tls.key = key;
    int rc = tls_reload(err);
    if (rc)
        tls_close();
    return rc;
}

void tls_close(void) {
    for (struct pair *pair = tls.now, *before; pair; pair = before) {
        before = pair->before;
        pair_free(pair);
    }
    tls.now = NULL;
    tls.certificate = tls.key = NULL;
}

static int choose(gnutls_session_t session, const gnutls_datum_t *names, int n_names,
                  const gnutls_pk_algorithm_t *algorithms, int n_algorithms,
                  gnutls_pcert_st **chain, unsigned *n, gnutls_privkey_t *key) {
    (void)session;
    (void)names;
    (void)n_names;
    (void)algorithms;
    (void)n_algorithms;
    pthread_mutex_lock(&tls.lock);
    *chain = tls.now->chain;
    *n = tls.now->n;
    *key = tls.now->key;
    pthread_mutex_unlock(&tls.lock);
    return 0;
}

void *tls_callback(void) {
    union { /* ISO C knows no other way from a function to a void pointer */
        gnutls_certificate_retrieve_function2 *function;
        void *pointer;
    } callback = {choose};
    return callback.pointer;
}
