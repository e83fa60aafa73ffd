/* Errors as application/problem+json (RFC 9457). */
#ifndef API_PROBLEM_H
#define API_PROBLEM_H

#include "api/http.h"

/* `type` is "/problems/<slug>", `title` the slug's in the table of problem.c, `detail` as
 * formatted; bytes that are not UTF-8 become '?'. */
struct reply *problem(int status, const char *slug, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The same with further members, an object that is taken over. */
struct reply *problem_with(int status, const char *slug, json_t *members, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* The one place where an error of the program becomes an HTTP status. Where the error's field is a
 * JSON pointer it becomes `errors`. */
struct reply *problem_from(const struct ovr_err *err);

/* 422 with all faults: `errors` is an array of {"pointer", "detail"}; taken over. */
struct reply *problem_faults(const char *slug, const char *detail, json_t *errors);

/* The request's body as JSON, owned by the caller; duplicate members are refused. NULL: return
 * *refusal (400 with `line` and `column`), which is itself NULL where memory ran out. */
json_t *body_json(const struct request *request, struct reply **refusal);

/* What a kind of problem is called; a slug that is not in the table is its own title. */
const char *problem_title(const char *slug);

#endif
