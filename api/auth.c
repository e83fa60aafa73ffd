/* Who may call a route: one decision, from the route's row, the token and what the path is about.
 *
 * RFC 6750: the token comes in the Authorization header and nowhere else. What is wrong with one
 * that is not taken is not told. */
#include "api/api.h"
#include "server/gate.h"
#include "server/log.h"

#include <string.h>
#include <strings.h>

#define REALM "Bearer realm=\"ovrd\""

const char *read_token(const struct request *request) {
    const char *header = request_header(request, "Authorization");
    if (!header)
        return NULL;
    size_t n = strlen("Bearer");
    if (strncasecmp(header, "Bearer", n) != 0 || header[n] != ' ')
        return "";
    return header + n + strspn(header + n, " ");
}

static struct reply *unauthorized(int sent) {
    struct reply *reply =
        sent ? problem(401, "unauthorized",
                       "this token is not taken: it is unknown, expired or revoked, its user is "
                       "disabled, or the header is not Authorization: Bearer and a token")
             : problem(401, "unauthorized",
                       "this needs a token: send it as Authorization: Bearer ovrd_…; an admin "
                       "makes tokens with 'ovrctl token add NAME'");
    return reply_header(reply, "WWW-Authenticate", "%s",
                        sent ? REALM ", error=\"invalid_token\"" : REALM);
}

static struct reply *too_often(int wait_s) {
    return reply_header(problem(429, "rate-limited",
                                "too many requests, or too many wrong tokens; come again in %d s",
                                wait_s),
                        "Retry-After", "%d", wait_s);
}

static enum level usual_level(const struct request *request) {
    return strcmp(request->method, "GET") == 0 ? LEVEL_READ : LEVEL_WRITE;
}

/* What the route needs of this user. */
static enum level needed_level(const struct request *request) {
    switch (request->route->need) {
    case NEED_NOTHING:
        return LEVEL_NONE;
    case NEED_READ:
        return LEVEL_READ;
    case NEED_WRITE:
        return LEVEL_WRITE;
    case NEED_SELF:
        if (*request->asker.name && strcmp(request->asker.name, request->segments[0]) == 0)
            return usual_level(request);
        return LEVEL_ADMIN;
    case NEED_ADMIN:
        return LEVEL_ADMIN;
    default:
        return usual_level(request);
    }
}

static struct reply *insufficient(const struct request *request, enum level needed) {
    const struct asker *asker = &request->asker;
    return reply_header(problem(403, "forbidden",
                                "%s %s needs the rights of %s %s, and %s has those of a %s with "
                                "this token",
                                request->route->method, request->route->path,
                                needed == LEVEL_ADMIN ? "an" : "a", role_names[needed], asker->name,
                                role_names[asker->level]),
                        "WWW-Authenticate", REALM ", error=\"insufficient_scope\", scope=\"%s\"",
                        scope_names[needed]);
}

static struct reply *unauthorized_worker(int sent) {
    return reply_header(
        problem(401, "unauthorized",
                "this is for workers on a cluster, with the token of their attempt: "
                "Authorization: Bearer " WORK_TOKEN_PREFIX "…"),
        "WWW-Authenticate", "%s", sent ? REALM ", error=\"invalid_token\"" : REALM);
}

static int is_for_workers(const char *token) {
    return token && strncmp(token, WORK_TOKEN_PREFIX, strlen(WORK_TOKEN_PREFIX)) == 0;
}

/* Those of its attempt alone, with users and without. A token of another kind is no guess at one.
 */
static int admit_worker(struct request *request, struct reply **refusal) {
    struct api *api = request->context;
    struct ovr_err err = {0};
    int wait_s = 0;
    const char *sent = read_token(request), *token = is_for_workers(sent) ? sent : NULL;
    switch (gate_enter_worker(api->gate, token, &request->asker, &wait_s, &err)) {
    case GATE_KNOWN:
        return 1;
    case GATE_TOO_OFTEN:
        *refusal = too_often(wait_s);
        return 0;
    case GATE_TROUBLE:
        *refusal = problem_from(&err);
        return 0;
    default:
        *refusal = unauthorized_worker(sent != NULL);
        return 0;
    }
}

int api_admit(struct request *request, struct reply **refusal) {
    struct api *api = request->context;
    if (request->route->need == NEED_WORKER)
        return admit_worker(request, refusal);
    struct ovr_err err = {0};
    int wait_s = 0, public = request->route->need == NEED_NOTHING;
    const char *token = public ? NULL : read_token(request);
    if (is_for_workers(token)) { /* also where there are no users, and no token is looked at */
        *refusal = unauthorized(1);
        return 0;
    }
    enum verdict verdict = gate_enter(api->gate, token, &request->asker, &wait_s, &err);
    enum level needed = needed_level(request);
    if (verdict == GATE_TROUBLE)
        *refusal = problem_from(&err);
    else if (verdict == GATE_TOO_OFTEN)
        *refusal = too_often(wait_s);
    else if (needed <= request->asker.level)
        return 1;
    else if (verdict == GATE_KNOWN)
        *refusal = insufficient(request, needed);
    else
        *refusal = unauthorized(verdict == GATE_WRONG);
    return 0;
}

/* What a worker reports is what the daemon's own threads would have stored. */
void api_act(const struct request *request) {
    ask_as(request && request->route->need != NEED_WORKER ? &request->asker : NULL);
    log_set_request(request ? request->id : NULL);
}
