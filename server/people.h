/* People: who asks, what she may do, and what has been done.
 *
 * As long as there is no user, everybody may do everything. Then each request is somebody's, by a
 * token. What she may do is her level, the lesser of her role and her token's scope:
 *
 *   role      scope
 *   viewer    read    sees what is not private
 *   member    write   sees her private things too, and changes what she owns
 *   admin     admin   sees and changes everything
 *
 * For experiments, sweeps and data sets the store holds to that, for whoever ask_as() has named on
 * its thread, so that no way to them can forget to; users, tokens and the audit are guarded by the
 * table of routes alone. What nobody asks for, since the daemon itself does it, is not held up by
 * anything. Every change that somebody asks for is a line of the audit, in the same transaction.
 *
 * Tokens are 256 random bits; the store knows their SHA-256 alone.
 */
#ifndef SERVER_PEOPLE_H
#define SERVER_PEOPLE_H

#include "core/err.h"
#include "core/utf8.h"
#include "server/digest.h"
#include "server/store.h"

#include <stddef.h>
#include <stdint.h>

enum level { LEVEL_NONE, LEVEL_READ, LEVEL_WRITE, LEVEL_ADMIN, N_LEVELS };

/* "viewer", "member", "admin" and "read", "write", "admin"; of LEVEL_NONE "". */
extern const char *const role_names[N_LEVELS], *const scope_names[N_LEVELS];

/* LEVEL_NONE: no such name. */
enum level find_level(const char *const names[N_LEVELS], const char *name);

enum {
    ADDRESS_SIZE = 46,
    TOKEN_SIZE = 70,
    LABEL_MOST = 64,
    LABEL_SIZE = LABEL_MOST * UTF8_MOST + 1
};

struct asker {
    int64_t user; /* seq; 0: there are no users, or it is nobody known */
    char name[USER_NAME_SIZE];
    enum level level;
    char token[ID_SIZE];
    int64_t expires_at;         /* of the token; 0: never */
    char address[ADDRESS_SIZE]; /* of the client */
    uint64_t people;            /* store_people_version() that this is true of */
};

/* From now on, on this thread; borrowed. NULL: the daemon itself, as every thread begins. */
void ask_as(const struct asker *asker);
const struct asker *asking(void);

/* Users */

/* 0: no limit. Of a user −1: as the daemon's settings say. */
struct quotas {
    int64_t running, queued, storage_bytes;
};

struct user {
    int64_t seq;
    char name[USER_NAME_SIZE];
    enum level role;
    int disabled; /* no token of hers is taken */
    struct quotas quotas, usage;
    int64_t revision, created_at;
};

/* Of who has none of her own; before the store is used by others. */
void store_set_quotas(struct store *store, const struct quotas *quotas);

/* What counts for her. */
struct quotas store_quotas_of(const struct store *store, const struct user *user);

/* 1 if it is a fit name for a user: 1..64 of a-z 0-9 . _ -, beginning with a letter or digit. */
int user_name_is_valid(const char *name);

struct token {
    char id[ID_SIZE], label[LABEL_SIZE];
    enum level scope;
    int64_t created_at, expires_at, revoked_at, used_at; /* 0: never; used within a minute */
};

/* "ovrd_" and 64 hexadecimal digits. */
int token_make(char text[TOKEN_SIZE], struct ovr_err *err);

struct new_token {
    const char *label, *text; /* the store keeps its digest */
    enum level scope;
    int64_t expires_at; /* 0: never */
};

/* A user with her first token. The first user must be an admin, or nobody could add others.
 * OVR_CONFLICT: the name is taken, perhaps by one that is disabled. */
int store_add_user(struct store *store, const char *name, enum level role,
                   const struct quotas *quotas, const struct new_token *token, char id[ID_SIZE],
                   struct ovr_err *err);

int store_get_user(struct store *store, const char *name, struct user *user, struct ovr_err *err);

/* By name, those after `after` ("": from the first); the caller frees *list. */
int store_list_users(struct store *store, const char *after, int limit, struct user **list,
                     size_t *n, struct ovr_err *err);

/* How many there are, and how many of them are admins that are not disabled. */
int store_count_users(struct store *store, int64_t *users, int64_t *admins, struct ovr_err *err);

struct user_edit { /* NULL: stays */
    const enum level *role;
    const int *disabled;
    const int64_t *running, *queued, *storage_bytes;
    int revoke; /* all her tokens, for good */
};

/* revision −1: any. OVR_CONFLICT with STALE_FIELD, or when no admin would be left. */
int store_edit_user(struct store *store, const char *name, int64_t revision,
                    const struct user_edit *edit, struct ovr_err *err);

/* Tokens */

enum { STORE_MOST_TOKENS = 100 }; /* of a user; long dead ones are forgotten */

/* A scope above her role is OVR_INVALID. */
int store_add_token(struct store *store, const char *name, const struct new_token *token,
                    char id[ID_SIZE], struct ovr_err *err);

/* Newest first, at most STORE_MOST_TOKENS; with an id that one alone (OVR_NOT_FOUND without it). */
int store_list_tokens(struct store *store, const char *name, const char *id, struct token *list,
                      size_t *n, struct ovr_err *err);

/* Doing it twice is fine. */
int store_revoke_token(struct store *store, const char *name, const char *id, struct ovr_err *err);

/* Whose token it is; address and people are left alone, and the time is for the caller to compare.
 * OVR_NOT_FOUND: nobody's, or it was revoked, or she is disabled. */
int store_find_token(struct store *store, const char sha256[DIGEST_SIZE], struct asker *asker,
                     struct ovr_err *err);

int store_note_token(struct store *store, const char id[ID_SIZE], int64_t at, struct ovr_err *err);

/* Grows with every change of users and tokens, and with everything that becomes private, once it is
 * stored: what was let in before may be shut out now. */
uint64_t store_people_version(const struct store *store);

/* Data sets: whether who asks may upload `bytes` into this one, or remove it. */
int store_may_change_dataset(struct store *store, const char *dataset, int64_t bytes,
                             struct ovr_err *err);

/* The audit */

struct audit_entry {
    int64_t seq, at;
    char user[USER_NAME_SIZE], token[ID_SIZE], address[ADDRESS_SIZE], action[32]; /* "": none */
    char object[80];
    char *detail; /* NULL: none */
};

struct audit_filter {
    const char *user, *object; /* NULL: any */
    int64_t since;             /* ms */
    int64_t before;            /* seq; 0: from the newest */
    int limit;
};

/* Newest first; the caller frees *list with audit_free(). */
int store_list_audit(struct store *store, const struct audit_filter *filter,
                     struct audit_entry **list, size_t *n, struct ovr_err *err);
void audit_free(struct audit_entry *list, size_t n);

/* A line for a change that is not the store's. */
int store_audit(struct store *store, const char *action, const char *object, const char *detail,
                struct ovr_err *err);

#endif
