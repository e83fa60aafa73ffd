/* What the program says about itself. */
#ifndef WORKER_USAGE_H
#define WORKER_USAGE_H

#include <stdio.h>

void usage_help(FILE *out);    /* all of it, for --help */
void usage_version(FILE *out); /* with the BLAS kernel, and whether it can be several ranks */
void usage_manual(FILE *out);  /* ovr-worker(1), for man */

#endif
