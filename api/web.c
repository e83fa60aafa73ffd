/* The dashboard: the files of clients/web, inside the binary, from a fixed table of names. */
#include "api/api.h"
#include "server/digest.h"

#include <pthread.h>
#include <string.h>

#define EMBED(symbol, file)                                                                        \
    __asm__(".section .rodata\n" #symbol "_start:\n.incbin \"clients/web/" file "\"\n" #symbol     \
            "_end:\n.byte 0\n.previous\n");                                                        \
    extern const char symbol##_start[], symbol##_end[]

#define HTML "text/html; charset=utf-8"
#define CSS "text/css; charset=utf-8"
#define SCRIPT "text/javascript; charset=utf-8"

/* symbol, file below clients/web, media type. The last part of the file's path is its name. */
#define ASSETS(X)                                                                                  \
    X(web_index, "index.html", HTML)                                                               \
    X(web_style, "style.css", CSS)                                                                 \
    X(web_icon, "icon.svg", "image/svg+xml")                                                       \
    X(web_main, "main.js", SCRIPT)                                                                 \
    X(web_api, "api.js", SCRIPT)                                                                   \
    X(web_charts, "charts.js", SCRIPT)                                                             \
    X(web_curves, "curves.js", SCRIPT)                                                             \
    X(web_histogram, "histogram.js", SCRIPT)                                                       \
    X(web_sphere, "sphere.js", SCRIPT)                                                             \
    X(web_dom, "dom.js", SCRIPT)                                                                   \
    X(web_form, "form.js", SCRIPT)                                                                 \
    X(web_format, "format.js", SCRIPT)                                                             \
    X(web_router, "router.js", SCRIPT)                                                             \
    X(web_widgets, "widgets.js", SCRIPT)                                                           \
    X(page_admin, "page-admin.js", SCRIPT)                                                         \
    X(page_compare, "page-compare.js", SCRIPT)                                                     \
    X(page_datasets, "page-datasets.js", SCRIPT)                                                   \
    X(page_experiment, "page-experiment.js", SCRIPT)                                               \
    X(page_experiments, "page-experiments.js", SCRIPT)                                             \
    X(page_new, "page-new.js", SCRIPT)                                                             \
    X(page_queue, "page-queue.js", SCRIPT)                                                         \
    X(page_signin, "page-signin.js", SCRIPT)                                                       \
    X(page_sweep, "page-sweep.js", SCRIPT)                                                         \
    X(page_sweeps, "page-sweeps.js", SCRIPT)                                                       \
    X(vendor_uplot, "vendor/uPlot.esm.js", SCRIPT)                                                 \
    X(vendor_uplot_css, "vendor/uPlot.min.css", CSS)

#define X(symbol, file, type) EMBED(symbol, file);
ASSETS(X)
#undef X

static struct asset {
    const char *file, *type, *bytes, *end;
    char etag[DIGEST_SIZE];
} assets[] = {
#define X(symbol, file, type) {file, type, symbol##_start, symbol##_end, ""},
    ASSETS(X)
#undef X
};

enum { N_ASSETS = sizeof assets / sizeof *assets };

/* Nothing but our own files; pictures that a page made of an answer are blobs. No inline script or
 * style, no frame, nothing sent elsewhere. */
static const char policy[] = "default-src 'none'; script-src 'self'; style-src 'self'; img-src "
                             "'self' blob:; connect-src 'self'; base-uri 'none'; form-action "
                             "'none'; frame-ancestors 'none'";

static void hash_assets(void) {
    for (size_t i = 0; i < N_ASSETS; i++)
        digest_of(assets[i].bytes, (size_t)(assets[i].end - assets[i].bytes), assets[i].etag);
}

static struct reply *reply_asset(const char *name) {
    static pthread_once_t hashed = PTHREAD_ONCE_INIT;
    pthread_once(&hashed, hash_assets);
    for (size_t i = 0; i < N_ASSETS; i++) {
        const struct asset *a = &assets[i];
        const char *slash = strrchr(a->file, '/');
        if (strcmp(slash ? slash + 1 : a->file, name))
            continue;
        struct reply *reply = reply_static(200, a->type, a->bytes, (size_t)(a->end - a->bytes));
        reply = reply_header(reply, "Content-Security-Policy", "%s", policy);
        reply = reply_header(reply, "Referrer-Policy", "%s", "no-referrer");
        reply = reply_header(reply, "Cross-Origin-Opener-Policy", "%s", "same-origin");
        return reply_etag(reply, "%s", a->etag); /* asked for again each time, answered with 304 */
    }
    return problem(404, "not-found", "the dashboard has no file \"%.40s\"; it begins at /", name);
}

struct reply *handle_dashboard(struct request *request) {
    (void)request;
    return reply_asset("index.html");
}

struct reply *handle_asset(struct request *request) {
    return reply_asset(request->segments[0]);
}
