/* What this processor can do, and which compiled variants of our hot loops and of the BLAS it
 * should run. The instruction-set level is part of what fixes the bits of a result, so it is
 * reported with every result and can be set by hand.
 */
#ifndef OVR_CPU_H
#define OVR_CPU_H

#include <stddef.h>

enum isa { ISA_AUTO, ISA_BASELINE, ISA_AVX2, ISA_AVX512 };

const char *isa_name(enum isa isa);
int isa_read(const char *name, enum isa *isa); /* 1; 0: there is none of that name */
enum isa isa_best(void);                 /* the best this processor and its operating system run */
int isa_runs(enum isa isa);              /* 1 if this processor can */
int cpu_count(void);                     /* processors this process may use (affinity mask) */
void cpu_model(char *text, size_t size); /* "AMD EPYC 7763", or "unknown" */

#endif
