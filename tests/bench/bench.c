/* Measurements of the core, one a call, each printed as one JSON object on a line. run.py calls it
 * in turns with torch_bench.py and prints the table. */
#include "tests/bench/bench.h"

#include "core/linalg.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const struct {
    const char *name;
    json_t *(*run)(const struct options *);
    const char *what;
} measurements[] = {
    {"machine", bench_machine, "processor, BLAS, instruction set"},
    {"step", bench_step, "a training step, and its two bare matrix products"},
    {"jobs", bench_jobs, "steps of several networks at once, each with its own team"},
    {"gradient", bench_gradient, "the weight gradient by active units and by the dense product"},
    {"barrier", bench_barrier, "one barrier of a team"},
    {"optimizer", bench_optimizer, "the fused Adam pass over k*d weights"},
    {"probe", bench_probe, "an epoch of the probe on a made-up code"},
    {"pca", bench_pca, "standardise and PCA: fit and apply"},
};

#define COUNT(array) (sizeof(array) / sizeof *(array))

enum option_type { OPTION_COUNT, OPTION_NUMBER, OPTION_TEXT };

static const struct {
    const char *name;
    enum option_type type;
    size_t offset;
} fields[] = {
    {"d", OPTION_COUNT, offsetof(struct options, d)},
    {"k", OPTION_COUNT, offsetof(struct options, k)},
    {"n", OPTION_COUNT, offsetof(struct options, n)},
    {"threads", OPTION_COUNT, offsetof(struct options, threads)},
    {"jobs", OPTION_COUNT, offsetof(struct options, jobs)},
    {"rounds", OPTION_COUNT, offsetof(struct options, rounds)},
    {"steps", OPTION_COUNT, offsetof(struct options, steps)},
    {"samples", OPTION_COUNT, offsetof(struct options, samples)},
    {"epochs", OPTION_COUNT, offsetof(struct options, epochs)},
    {"components", OPTION_COUNT, offsetof(struct options, components)},
    {"share", OPTION_NUMBER, offsetof(struct options, share)},
    {"rate", OPTION_NUMBER, offsetof(struct options, rate)},
    {"isa", OPTION_TEXT, offsetof(struct options, isa)},
    {"data", OPTION_TEXT, offsetof(struct options, data)},
    {"cifar10", OPTION_TEXT, offsetof(struct options, cifar10)},
};

static _Noreturn void give_up(const char *what, const char *detail) {
    fprintf(stderr, "bench: %s%s%s\n", what, *detail ? ": " : "", detail);
    exit(1);
}

double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double median(double *values, size_t n) {
    qsort(values, n, sizeof *values, by_size);
    return (values[(n - 1) / 2] + values[n / 2]) / 2;
}

void check(int rc, const struct ovr_err *err) {
    if (rc)
        give_up(err->text, err->field);
}

void *new_array(size_t n, size_t size) {
    void *array = ovr_calloc(n, size);
    if (!array)
        give_up("not enough memory", "");
    return array;
}

struct team *new_team(size_t size) {
    struct ovr_err err = {0};
    struct team *team;
    check(team_new(&team, (int)size, &err), &err);
    return team;
}

const struct kernels *chosen_kernels(const struct options *options) {
    for (enum isa isa = ISA_AUTO; isa <= ISA_AVX512; isa++)
        if (!strcmp(options->isa, isa_name(isa)) && kernels_get(isa))
            return kernels_get(isa);
    give_up("this processor has no such instruction set", options->isa);
}

struct net *new_net(const struct options *options, const struct net_config *config, size_t moments,
                    size_t max_rows) {
    struct net *net = new_array(1, sizeof *net);
    struct arena arena = {0};
    struct ovr_err err = {0};
    const struct kernels *kernels = chosen_kernels(options);
    int members = (int)options->threads;
    net_place(net, config, kernels, moments, max_rows, &(struct crew){members, 1}, &arena);
    check(arena_open(&arena, arena.used, &err), &err);
    net_place(net, config, kernels, moments, max_rows, &(struct crew){members, 1}, &arena);
    return net;
}

void hand_over(const struct options *options, const char *name, const void *bytes, size_t n) {
    char path[4096];
    if (!*options->data)
        return;
    snprintf(path, sizeof path, "%s/%s", options->data, name);
    FILE *file = fopen(path, "we");
    int written = file && fwrite(bytes, 1, n, file) == n;
    if (file)
        written &= fclose(file) == 0;
    if (!written)
        give_up(path, strerror(errno));
}

json_t *bench_machine(const struct options *options) {
    char model[128];
    cpu_model(model, sizeof model);
    json_t *isas = json_array();
    for (enum isa isa = ISA_BASELINE; isa <= ISA_AVX512; isa++)
        if (isa_runs(isa))
            json_array_append_new(isas, json_string(isa_name(isa)));
    return json_pack("{s:s, s:i, s:s, s:s, s:s, s:o, s:s}", "processor", model, "cores",
                     cpu_count(), "blas", linalg_library(), "blas_kernel", linalg_kernel(), "isa",
                     isa_name(chosen_kernels(options)->isa), "isas", isas, "version", OVRD_VERSION);
}

static int set_option(struct options *options, const char *argument) {
    for (size_t i = 0; i < COUNT(fields); i++) {
        size_t length = strlen(fields[i].name);
        if (strncmp(argument, fields[i].name, length) || argument[length] != '=')
            continue;
        const char *value = argument + length + 1;
        char *to = (char *)options + fields[i].offset, *end = NULL;
        if (fields[i].type == OPTION_TEXT)
            *(const char **)(void *)to = value;
        else if (fields[i].type == OPTION_COUNT)
            *(size_t *)(void *)to = strtoul(value, &end, 10);
        else
            *(double *)(void *)to = strtod(value, &end);
        return fields[i].type == OPTION_TEXT || (*value && !*end);
    }
    return 0;
}

static int usage(void) {
    fprintf(stderr, "usage: bench MEASUREMENT [NAME=VALUE...]\n\nMeasurements:\n");
    for (size_t i = 0; i < COUNT(measurements); i++)
        fprintf(stderr, "  %-10s %s\n", measurements[i].name, measurements[i].what);
    fprintf(stderr, "Names:");
    for (size_t i = 0; i < COUNT(fields); i++)
        fprintf(stderr, " %s", fields[i].name);
    fprintf(stderr, "\n");
    return 2;
}

int main(int argc, char **argv) {
    struct options options = {.d = 781,
                              .k = 8192,
                              .n = 128,
                              .threads = (size_t)cpu_count(),
                              .jobs = 1,
                              .rounds = 5,
                              .steps = 4,
                              .samples = 10000,
                              .epochs = 2,
                              .components = 781,
                              .share = 0.5,
                              .rate = 5e-4,
                              .isa = "auto",
                              .data = "",
                              .cifar10 = ""};
    struct ovr_err err = {0};
    if (argc < 2)
        return usage();
    check(linalg_start(NULL, argv, &err), &err);
    for (int i = 2; i < argc; i++)
        if (!set_option(&options, argv[i]))
            give_up("no such option, or not with this value", argv[i]);
    for (size_t i = 0; i < COUNT(measurements); i++) {
        if (strcmp(argv[1], measurements[i].name))
            continue;
        json_t *result = measurements[i].run(&options);
        if (!result || json_dumpf(result, stdout, JSON_COMPACT) || puts("") == EOF)
            give_up("the result could not be written", "");
        json_decref(result);
        return 0;
    }
    return usage();
}
