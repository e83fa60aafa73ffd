/* The daemon itself: liveness, version, contract. */
#include "api/api.h"
#include "core/linalg.h"

#include <string.h>

__asm__(".section .rodata\n"
        "openapi_start:\n.incbin \"api/openapi.json\"\n"
        "openapi_end:\n.byte 0\n"
        ".previous\n");
extern const char openapi_start[], openapi_end[];

/* docs/errors.md: a section for each type of problem, which is what the type leads to. */
__asm__(".section .rodata\n"
        "errors_start:\n.incbin \"docs/errors.md\"\n"
        "errors_end:\n.byte 0\n"
        ".previous\n");
extern const char errors_start[], errors_end[];

struct reply *handle_healthz(struct request *request) {
    (void)request;
    return reply_json(200, json_pack("{s:s}", "status", "ok"));
}

struct reply *handle_version(struct request *request) {
    struct api *api = request->context;
    char cpu[128];
    cpu_model(cpu, sizeof cpu);
    return reply_json(200,
                      json_pack("{s:s, s:s, s:{s:s, s:s}, s:s, s:s, s:i, s:I}", "program", "ovrd",
                                "version", OVRD_VERSION, "blas", "library", linalg_library(),
                                "kernel", linalg_kernel(), "isa", isa_name(api->kernels->isa),
                                "cpu", cpu, "cores", api->admission.cores, "memory_bytes",
                                (json_int_t)api->admission.memory_bytes));
}

struct reply *handle_openapi(struct request *request) {
    (void)request;
    return reply_static(200, "application/json", openapi_start,
                        (size_t)(openapi_end - openapi_start));
}

struct reply *handle_problem(struct request *request) {
    char head[64];
    const char *slug = request->segments[0];
    const char *at = NULL;
    if (snprintf(head, sizeof head, "\n## %s\n", slug) < (int)sizeof head)
        at = strstr(errors_start, head);
    if (!at)
        return problem(404, "not-found", "there is no kind of problem called %.40s", slug);
    const char *end = strstr(at + 1, "\n## ");
    return reply_static(200, "text/markdown; charset=utf-8", at + 1,
                        (size_t)((end ? end : errors_end) - at - 1));
}

struct reply *handle_schema(struct request *request) {
    (void)request;
    return reply_json_as(200, "application/schema+json", spec_schema());
}
