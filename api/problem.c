#include "api/problem.h"
#include "core/utf8.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum { RETRY_AFTER_S = 5, QUOTA_RETRY_AFTER_S = 60 };

struct kind {
    const char *slug;
    const char *title;
};

/* Every type of problem there is: clients tell them apart by `type`, so a slug never changes. */
static const struct kind kinds[] = {
    {"attempt-over", "Another worker has it, or nobody"},
    {"bad-request", "Malformed HTTP request"},
    {"chain-broken", "The experiment before it did not succeed"},
    {"conflict", "Not possible in this state"},
    {"connections", "Too many connections"},
    {"cluster-cancelled", "Its job was cancelled on the cluster"},
    {"crashed", "It was lost while it ran"},
    {"digest-mismatch", "The body does not match its digest"},
    {"diverged", "Training left the finite numbers"},
    {"forbidden", "Not allowed"},
    {"forbidden-host", "Host is not this machine"},
    {"forbidden-origin", "Request comes from another site"},
    {"full", "No room now"},
    {"idempotency", "Idempotency-Key was used for another request"},
    {"internal", "Fault of the server"},
    {"invalid-dataset", "Invalid data set"},
    {"invalid-query", "Invalid query argument"},
    {"invalid-request", "Invalid request"},
    {"invalid-spec", "Invalid experiment spec"},
    {"malformed-json", "Malformed JSON"},
    {"method-not-allowed", "Method not allowed"},
    {"no-classifier", "The model predicts no classes"},
    {"no-images", "There is nothing to be seen as images"},
    {"not-found", "Not found"},
    {"not-ready", "Not ready"},
    {"out-of-memory", "Out of memory"},
    {"quota-exceeded", "More than your quota"},
    {"rate-limited", "Too many requests"},
    {"report-out-of-order", "Not the next report"},
    {"shutting-down", "The server is shutting down"},
    {"precondition-required", "If-Match is missing"},
    {"source-gone", "What it builds on is gone"},
    {"stale", "Changed meanwhile"},
    {"storage", "Storage failed"},
    {"time-limit", "Over its time limit"},
    {"too-large", "Over a limit"},
    {"unauthorized", "No valid token"},
    {"watchers", "Too many watchers"},
    {"unsupported-media-type", "Unsupported media type"},
};

/* A slug that nobody entered above is its own title: a reply with a poor title is still a reply. */
const char *problem_title(const char *slug) {
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (strcmp(kinds[i].slug, slug) == 0)
            return kinds[i].title;
    return slug;
}

/* Takes members over; may be NULL. */
static struct reply *build(int status, const char *slug, const char *detail, json_t *members) {
    json_t *body = json_pack("{s:o, s:s, s:i, s:s}", "type", json_sprintf("/problems/%s", slug),
                             "title", problem_title(slug), "status", status, "detail", detail);
    if (body && members && json_object_update_missing(body, members) != 0) {
        json_decref(body);
        body = NULL;
    }
    json_decref(members);
    return reply_json_as(status, "application/problem+json", body);
}

static struct reply *build_formatted(int status, const char *slug, json_t *members,
                                     const char *format, va_list args)
    __attribute__((format(printf, 4, 0)));

static struct reply *build_formatted(int status, const char *slug, json_t *members,
                                     const char *format, va_list args) {
    char *detail;
    if (vasprintf(&detail, format, args) < 0) {
        json_decref(members);
        return NULL;
    }
    utf8_mend(detail); /* a text cut inside a character must not cost the whole reply */
    struct reply *reply = build(status, slug, detail, members);
    free(detail);
    return reply;
}

struct reply *problem(int status, const char *slug, const char *format, ...) {
    va_list args;
    va_start(args, format);
    struct reply *reply = build_formatted(status, slug, NULL, format, args);
    va_end(args);
    return reply;
}

struct reply *problem_with(int status, const char *slug, json_t *members, const char *format, ...) {
    if (!members)
        return NULL;
    va_list args;
    va_start(args, format);
    struct reply *reply = build_formatted(status, slug, members, format, args);
    va_end(args);
    return reply;
}

struct reply *problem_faults(const char *slug, const char *detail, json_t *errors) {
    return problem_with(422, slug, json_pack("{s:o}", "errors", errors), "%s", detail);
}

/* The error's detail, and its field as `errors` where that points into the request's body. */
static struct reply *problem_at(int status, const char *slug, const struct ovr_err *err) {
    if (err->field[0] != '/')
        return problem(status, slug, "%s", err->text);
    json_t *members =
        json_pack("{s:[{s:s, s:s}]}", "errors", "pointer", err->field, "detail", err->text);
    return problem_with(status, slug, members, "%s", err->text);
}

static struct reply *try_again(struct reply *reply) {
    return reply_header(reply, "Retry-After", "%d", RETRY_AFTER_S);
}

struct reply *problem_from(const struct ovr_err *err) {
    switch (err->code) {
    case OVR_INVALID:
        return problem_at(422, "invalid-request", err);
    case OVR_TOO_LARGE: /* not 413: what is too large is the job, not the body that asks for it */
        return problem_at(422, "too-large", err);
    case OVR_NOT_FOUND:
        return problem_at(404, "not-found", err);
    case OVR_CONFLICT:
        return problem_at(409, "conflict", err);
    case OVR_FORBIDDEN:
        return problem_at(403, "forbidden", err);
    case OVR_QUOTA:
        return reply_header(problem_at(429, "quota-exceeded", err), "Retry-After", "%d",
                            QUOTA_RETRY_AFTER_S);
    case OVR_FULL:
        return try_again(problem_at(503, "full", err));
    case OVR_NOMEM:
        return try_again(problem_at(503, "out-of-memory", err));
    case OVR_IO:
        return problem_at(500, "storage", err);
    default:
        return problem_at(500, "internal", err);
    }
}

/* Line and column, from 1, of a place in the body. */
static struct reply *malformed(int line, int column, const char *what) {
    return problem_with(400, "malformed-json",
                        json_pack("{s:i, s:i}", "line", line, "column", column),
                        "line %d, column %d: %s", line, column, what);
}

static struct reply *nul_byte(const char *body, const char *nul) {
    int line = 1, column = 1;
    for (; body < nul; body++, column++)
        if (*body == '\n')
            line++, column = 0;
    return malformed(line, column, "there is a NUL byte");
}

json_t *body_json(const struct request *request, struct reply **refusal) {
    *refusal = NULL;
    if (strspn(request->body, " \t\r\n") == request->body_size) {
        *refusal = malformed(1, 1, "the body is empty; send JSON, with curl by --json @file.json");
        return NULL;
    }
    const char *nul = memchr(request->body, '\0', request->body_size);
    if (nul) {
        *refusal = nul_byte(request->body, nul);
        return NULL;
    }
    json_error_t error;
    json_t *json = json_loadb(request->body, request->body_size, JSON_REJECT_DUPLICATES, &error);
    if (json)
        return json;
    if (error.line > 0) /* else memory ran out, which jansson has no place for */
        *refusal = malformed(error.line, error.column, error.text);
    return NULL;
}
