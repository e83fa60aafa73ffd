#include "server/cluster_job.h"

#include "server/placement.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* So that the script has room for all. */
enum { TEXT_MOST = 500 };

static int is_harmless(const char *text) {
    for (const char *c = text; *c; c++)
        if (!isalnum((unsigned char)*c) && !strchr("-._~:/?@%+,=[]", *c))
            return 0;
    return *text != '\0';
}

static int check(const char *text, const char *setting, struct ovr_err *err) {
    if (!is_harmless(text) || strlen(text) > TEXT_MOST)
        return ovr_fail(err, OVR_INVALID, setting,
                        "%s may have letters, digits and -._~:/?@%%+,=[] only, and at most %d of "
                        "them, got \"%.60s\"",
                        setting, TEXT_MOST, text);
    return 0;
}

int cluster_orders_check(const struct cluster_orders *orders, struct ovr_err *err) {
    int rc = check(orders->url, "--worker-url", err);
    if (!rc && strncmp(orders->url, "http://", 7) && strncmp(orders->url, "https://", 8))
        rc = ovr_fail(err, OVR_INVALID, "--worker-url",
                      "--worker-url must begin with http:// or https://, got \"%.60s\"",
                      orders->url);
    if (!rc && orders->ca)
        rc = check(orders->ca, "--worker-ca", err);
    if (!rc)
        rc = check(orders->worker, "--slurm-worker", err);
    if (!rc && orders->blas_kernel)
        rc = check(orders->blas_kernel, "--blas-kernel", err);
    return rc ? rc : check(orders->srun, "--slurm-directory", err);
}

int cluster_threads(const struct cluster_orders *orders, const struct spec *spec) {
    return spec->threads ? spec->threads : orders->cores;
}

/* "name=value" as a line, or nothing. */
static void write_line(char line[TEXT_MOST + 100], const char *name, const char *value) {
    snprintf(line, TEXT_MOST + 100, "%s%s%s", value ? name : "", value ? value : "",
             value ? "\n" : "");
}

/* OpenBLAS looks for its kernel when the worker is loaded, hence the variable. With exec, so that
 * the worker is the job's own process: it gets the job's signals. (Those of several ranks go to the
 * ranks.) The worker removes the file once it has read it; where it does not start, the shell. */
static void write_script(const struct cluster_orders *orders, const struct attempt *attempt,
                         const char *token, int threads, char script[CLUSTER_SCRIPT_SIZE]) {
    char start[TEXT_MOST + 100] = "exec ", kernel[TEXT_MOST + 100], ca[TEXT_MOST + 100];
    write_line(kernel, "export OPENBLAS_CORETYPE=", orders->blas_kernel);
    write_line(ca, "ca=", orders->ca);
    if (attempt->ranks > 1)
        snprintf(start, sizeof start,
                 "%s --mpi=pmix --export=ALL --kill-on-bad-exit=1 --cpus-per-task=%d ",
                 orders->srun, threads);
    snprintf(script, CLUSTER_SCRIPT_SIZE,
             "#!/bin/sh\n"
             "# Experiment %s of %s, attempt %d\n"
             "%s"
             "worker=%s\n"
             "command -v $worker >/dev/null || {\n"
             "    echo \"there is no $worker on $(hostname)\" >&2\n"
             "    exit 127\n"
             "}\n"
             "umask 077\n"
             "order=$(mktemp) || exit 1\n"
             "trap 'rm -f \"$order\"' EXIT\n"
             "cat >\"$order\" <<'END' || exit 1\n"
             "url=%s\ntoken=%s\n%s"
             "END\n"
             "%s$worker \"$order\"\n",
             attempt->id, orders->url, attempt->number, kernel, orders->worker, orders->url, token,
             ca, start);
}

static int minutes_of(const struct cluster_orders *orders, const struct experiment *e,
                      const struct spec *spec, int cores) {
    static const double SLOWER = 4, MARGIN = 10, MOST = 60 * 24 * 365;
    double minutes = spec->time_limit_seconds > 0 ? spec->time_limit_seconds / 60 + MARGIN
                                                  : e->core_seconds / cores / 60 * SLOWER + MARGIN;
    if (!(minutes <= MOST)) /* nor is it known */
        return orders->max_minutes;
    int whole = (int)ceil(minutes);
    return orders->max_minutes && whole > orders->max_minutes ? orders->max_minutes : whole;
}

void cluster_describe(const struct cluster_orders *orders, const struct attempt *attempt,
                      const char *token, const struct experiment *e, const struct spec *spec,
                      char script[CLUSTER_SCRIPT_SIZE], struct slurm_job *job) {
    int threads = cluster_threads(orders, spec);
    write_script(orders, attempt, token, threads, script);
    *job = (struct slurm_job){.name = attempt->job_name,
                              .script = script,
                              .ranks = attempt->ranks,
                              .cores_per_rank = threads,
                              .memory_bytes_per_rank =
                                  (long long)memory_asked((uint64_t)e->memory_bytes),
                              .minutes = minutes_of(orders, e, spec, threads * attempt->ranks)};
}
