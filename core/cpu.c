#include "core/cpu.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>

static const char *const names[] = {
    [ISA_AUTO] = "auto", [ISA_BASELINE] = "baseline", [ISA_AVX2] = "avx2", [ISA_AVX512] = "avx512"};

const char *isa_name(enum isa isa) {
    return names[isa];
}

int isa_read(const char *name, enum isa *isa) {
    for (*isa = ISA_AUTO; *isa <= ISA_AVX512; ++*isa)
        if (strcmp(name, isa_name(*isa)) == 0)
            return 1;
    return 0;
}

int isa_runs(enum isa isa) {
    switch (isa) {
    case ISA_AVX512:
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
               isa_runs(ISA_AVX2);
    case ISA_AVX2:
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    default:
        return 1;
    }
}

enum isa isa_best(void) {
    for (enum isa isa = ISA_AVX512; isa > ISA_BASELINE; isa--)
        if (isa_runs(isa))
            return isa;
    return ISA_BASELINE;
}

int cpu_count(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set))
        return 1;
    return CPU_COUNT(&set);
}

void cpu_model(char *text, size_t size) {
    snprintf(text, size, "unknown");
    FILE *file = fopen("/proc/cpuinfo", "re");
    if (!file)
        return;
    char line[256];
    while (fgets(line, sizeof line, file)) {
        char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) || !colon)
            continue;
        colon += strspn(colon, ": \t");
        colon[strcspn(colon, "\n")] = '\0';
        snprintf(text, size, "%s", colon);
        break;
    }
    fclose(file);
}
