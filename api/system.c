/* The daemon itself: liveness, version, contract. */
#include "api/api.h"
#include "core/linalg.h"

__asm__(".section .rodata\n"
        "openapi_start:\n.incbin \"api/openapi.json\"\n"
        "openapi_end:\n.byte 0\n"
        ".previous\n");
extern const char openapi_start[], openapi_end[];

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

struct reply *handle_schema(struct request *request) {
    (void)request;
    return reply_json_as(200, "application/schema+json", spec_schema());
}
