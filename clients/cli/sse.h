/* Server-Sent Events as they come in, piece by piece. */
#ifndef CLI_SSE_H
#define CLI_SSE_H

#include <stdbool.h>
#include <stddef.h>

enum { SSE_LINE_MAX = 64 << 10 }; /* a longer line loses its event */

struct sse {
    /* Called for every event. number: its id, or that of the last one that had any. */
    void (*event)(void *context, const char *name, const char *data);
    void *context;
    long long number; /* of the last event with an id that was told whole; 0: none yet */
    long long coming; /* of the one being read */
    char name[32], line[SSE_LINE_MAX], data[SSE_LINE_MAX];
    size_t used;
    bool lost; /* a line of the event was too long */
};

/* What was half read when a connection broke is forgotten. */
void sse_begin(struct sse *sse);
void sse_take(struct sse *sse, const char *bytes, size_t n);

#endif
