/* What workers on a cluster ask for and send: docs/worker.md. */
#include "api/api.h"
#include "api/reports.h"
#include "api/spool.h"
#include "server/log.h"
#include "server/spec.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct reply *attempt_over(const struct attempt *attempt) {
    return problem(409, "attempt-over",
                   "attempt %d of experiment %s is over: it has ended, was cancelled, paused or "
                   "deleted, or another worker has it now; stop",
                   attempt->number, attempt->id);
}

/* The token was somebody's when the request came; its experiment may have been deleted since. */
static struct reply *no_attempt(const struct ovr_err *err) {
    return err->code == OVR_NOT_FOUND ? problem(401, "unauthorized", "%s", err->text)
                                      : problem_from(err);
}

/* Whose token it is, unless its attempt is over. e may be NULL; else the caller releases it. */
static struct reply *find_work(const struct request *request, struct attempt *attempt,
                               struct experiment *e) {
    const struct api *api = request->context;
    struct ovr_err err = {0};
    if (store_find_attempt(api->store, read_token(request), attempt, e, &err))
        return no_attempt(&err);
    return attempt->live ? NULL : attempt_over(attempt);
}

/* ---- What is to be done ---- */

static int find_split(const struct api *api, const struct spec *spec, const char *name,
                      struct dataset_split *split, struct ovr_err *err) {
    const char *sha256 = strcmp(name, "train") == 0 ? spec->train_sha256 : spec->test_sha256;
    return store_get_split(api->store, spec->dataset, name, sha256, split, err);
}

/* null where the spec generates them; NULL with *err, or without memory. */
static json_t *json_data(const struct api *api, const struct spec *spec, struct ovr_err *err) {
    struct dataset_split train, test;
    if (spec->generated)
        return json_null();
    if (find_split(api, spec, "train", &train, err) || find_split(api, spec, "test", &test, err))
        return NULL;
    return json_pack("{s:{s:s, s:I}, s:{s:s, s:I}}", "train", "sha256", train.sha256, "bytes",
                     (json_int_t)train.bytes, "test", "sha256", test.sha256, "bytes",
                     (json_int_t)test.bytes);
}

static struct reply *reply_work(const struct api *api, const struct attempt *a,
                                const struct experiment *e, const struct spec *spec) {
    const struct work_terms *terms = &api->terms;
    struct ovr_err err = {0};
    json_t *data = json_data(api, spec, &err);
    if (err.code)
        return problem_from(&err);
    return reply_json(
        200, json_pack("{s:s, s:i, s:s, s:i, s:i, s:s, s:o, s:s?, s:I, s:I, s:I, s:I, s:i, s:i}",
                       "experiment", a->id, "attempt", a->number, "spec", e->spec, "threads",
                       spec->threads ? spec->threads : terms->threads, "ranks", a->ranks, "isa",
                       terms->isa, "data", data, "data_dir", terms->shared_dir, "computed_ms",
                       (json_int_t)a->computed_ms, "batch", (json_int_t)a->batch, "checkpoint",
                       (json_int_t)a->checkpoint, "checkpoint_before",
                       (json_int_t)a->checkpoint_before, "checkpoint_seconds",
                       terms->checkpoint_seconds, "lease_seconds", terms->lease_seconds));
}

/* Calls answer() with the attempt, its experiment and its spec. */
static struct reply *
with_spec(struct request *request,
          struct reply *(*answer)(const struct request *request, const struct attempt *attempt,
                                  const struct experiment *e, const struct spec *spec)) {
    struct attempt attempt;
    struct experiment e = {0};
    struct ovr_err err = {0};
    struct spec *spec = malloc(sizeof *spec);
    struct reply *reply = NULL;
    if (!spec && ovr_nomem(&err, "a spec"))
        reply = problem_from(&err);
    if (!reply)
        reply = find_work(request, &attempt, &e);
    if (!reply && spec_read_stored(e.spec, spec, &err))
        reply = problem_from(&err);
    if (!reply)
        reply = answer(request, &attempt, &e, spec);
    experiment_release(&e);
    free(spec);
    return reply;
}

static struct reply *answer_work(const struct request *request, const struct attempt *attempt,
                                 const struct experiment *e, const struct spec *spec) {
    return reply_work(request->context, attempt, e, spec);
}

struct reply *handle_work(struct request *request) {
    return with_spec(request, answer_work);
}

/* ---- Files on their way out ---- */

/* Takes the descriptor over. */
static struct reply *reply_file(int fd) {
    FILE *file = fdopen(fd, "rb");
    if (file)
        return spool_reply(file, 200, "application/octet-stream");
    close(fd);
    return NULL;
}

static struct reply *answer_data(const struct request *request, const struct attempt *attempt,
                                 const struct experiment *e, const struct spec *spec) {
    const struct api *api = request->context;
    const char *name = request->segments[0];
    struct dataset_split split;
    struct ovr_err err = {0};
    (void)e;
    if (spec->generated || (strcmp(name, "train") != 0 && strcmp(name, "test") != 0))
        return problem(404, "not-found", "experiment %s has no stored split %.40s", attempt->id,
                       name);
    int fd = find_split(api, spec, name, &split, &err)
                 ? err.code
                 : catalog_open_file(api->catalog, split.sha256, &err);
    return fd < 0 ? problem_from(&err) : reply_file(fd);
}

struct reply *handle_work_data(struct request *request) {
    return with_spec(request, answer_data);
}

/* What stands for {number} and {rank}: 1 if both are numbers. */
static int read_part(const struct request *request, int64_t *number, int *rank) {
    const char *digits[] = {request->segments[0], request->segments[1]};
    for (int i = 0; i < 2; i++) {
        size_t n = strspn(digits[i], "0123456789");
        if (n == 0 || n > 9 || digits[i][n] || (digits[i][0] == '0' && n > 1))
            return 0;
    }
    *number = strtoll(digits[0], NULL, 10);
    *rank = atoi(digits[1]);
    return *number > 0;
}

static struct reply *no_part(void) {
    return problem(404, "not-found",
                   "parts of checkpoints are at /v1/work/checkpoints/NUMBER/RANK, numbers from 1 "
                   "and ranks from 0");
}

struct reply *handle_work_checkpoint(struct request *request) {
    const struct api *api = request->context;
    struct attempt attempt;
    struct ovr_err err = {0};
    int64_t number;
    int rank;
    struct reply *reply = find_work(request, &attempt, NULL);
    if (!reply && !read_part(request, &number, &rank))
        reply = no_part();
    if (reply)
        return reply;
    int fd = work_open_checkpoint(&api->work, &attempt, number, rank, &err);
    return fd < 0 ? problem_from(&err) : reply_file(fd);
}

/* ---- Files on their way in ---- */

/* A conflict may be that the attempt is over by now. */
static struct reply *refuse_upload(const struct request *request, const struct ovr_err *err) {
    struct attempt attempt;
    struct reply *reply = NULL;
    if (err->code == OVR_TOO_LARGE)
        return problem(413, "too-large", "%s", err->text);
    if (err->code == OVR_CONFLICT)
        reply = find_work(request, &attempt, NULL);
    return reply ? reply : problem_from(err);
}

/* Before the bytes come: its length, where it is told, has to fit on the disk. */
static struct reply *check_room(const struct request *request) {
    const struct api *api = request->context;
    const char *length = request_header(request, "Content-Length");
    int64_t free_bytes = api->disk ? disk_free(api->disk) : -1;
    struct ovr_err err = {0};
    if (!length || free_bytes < 0 || strtoll(length, NULL, 10) < free_bytes)
        return NULL;
    ovr_fail(&err, OVR_FULL, NULL, "the disk has room for %lld bytes, these are %.20s",
             (long long)free_bytes, length);
    return problem_from(&err);
}

/* What both kinds of upload begin with. */
static struct reply *begin_upload(const struct request *request, struct attempt *attempt,
                                  char digest[DIGEST_SIZE]) {
    struct reply *reply = find_work(request, attempt, NULL);
    if (!reply)
        reply = read_content_digest(request, digest);
    return reply ? reply : check_room(request);
}

static void *open_checkpoint(const struct request *request, struct reply **refusal) {
    const struct api *api = request->context;
    struct work_upload *upload = NULL;
    struct attempt attempt;
    struct ovr_err err = {0};
    char digest[DIGEST_SIZE];
    int64_t number;
    int rank;
    if ((*refusal = begin_upload(request, &attempt, digest)))
        return NULL;
    if (!read_part(request, &number, &rank))
        *refusal = no_part();
    else if (work_put_checkpoint(&upload, &api->work, &attempt, number, rank, digest, &err))
        *refusal = refuse_upload(request, &err);
    return upload;
}

static void *open_result(const struct request *request, struct reply **refusal) {
    const struct api *api = request->context;
    struct work_upload *upload = NULL;
    struct attempt attempt;
    struct ovr_err err = {0};
    char digest[DIGEST_SIZE];
    if ((*refusal = begin_upload(request, &attempt, digest)))
        return NULL;
    if (work_put_file(&upload, &api->work, &attempt, request->segments[0], request->segments[1],
                      digest, &err))
        *refusal = refuse_upload(request, &err);
    return upload;
}

static int write_upload(void *upload, const char *bytes, size_t n) {
    return work_write(upload, bytes, n);
}

static void abort_upload(void *upload) {
    work_abort(upload);
}

const struct sink checkpoint_sink = {open_checkpoint, write_upload, abort_upload};
const struct sink result_sink = {open_result, write_upload, abort_upload};

struct reply *handle_work_upload(struct request *request) {
    struct ovr_err err = {0};
    int rc = work_finish(request->upload, &err);
    return rc ? refuse_upload(request, &err) : reply_text(204, NULL, "");
}

/* ---- Reports ---- */

/* Those that wait for the end of an experiment go on. */
static void tell(struct api *api, const struct attempt *attempt, const struct received *received) {
    static const char *const ends[] = {[END_PAUSED] = "paused", [END_QUEUED] = "given back"};
    const struct report *report = &received->report;
    if (report->node)
        log_line(LOG_INFO, "experiment=%s attempt=%d runs on %s", attempt->id, attempt->number,
                 report->node);
    if (!report->end)
        return;
    log_line(LOG_INFO, "experiment=%s attempt=%d %s", attempt->id, attempt->number,
             report->end == END_OUTCOME ? state_names[report->outcome->state] : ends[report->end]);
    executors_submit(&api->executors);
}

static struct reply *refuse_report(const struct attempt *attempt, const struct ovr_err *err) {
    if (err->code == OVR_CONFLICT)
        return attempt->live ? problem(409, "report-out-of-order", "%s", err->text)
                             : attempt_over(attempt);
    return problem_from(err);
}

static struct reply *take(struct api *api, struct attempt *attempt, const struct experiment *e,
                          json_t *body) {
    struct received received;
    struct ovr_err err = {0};
    int repeated = 0;
    int rc = received_read(&received, body, &err);
    rc = rc ? rc : work_take_report(&api->work, attempt, e, &received.report, &repeated, &err);
    struct reply *reply;
    if (rc) {
        reply = refuse_report(attempt, &err);
    } else {
        if (api->cluster)
            cluster_heard(api->cluster, attempt, &received.progress);
        if (!repeated)
            tell(api, attempt, &received);
        reply =
            reply_json(200, json_pack("{s:I, s:s}", "number", (json_int_t)received.report.number,
                                      "stop", attempt->live && attempt->pausing ? "pause" : "no"));
    }
    received_release(&received);
    return reply;
}

/* An attempt that is over is refused by the store, but for its last report, sent again. */
struct reply *handle_report(struct request *request) {
    struct api *api = request->context;
    struct attempt attempt;
    struct experiment e = {0};
    struct ovr_err err = {0};
    struct reply *reply = NULL;
    json_t *body = body_json(request, &reply);
    if (!body)
        return reply;
    if (store_find_attempt(api->store, read_token(request), &attempt, &e, &err))
        reply = no_attempt(&err);
    else
        reply = take(api, &attempt, &e, body);
    experiment_release(&e);
    json_decref(body);
    return reply;
}
