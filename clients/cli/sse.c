#include "clients/cli/sse.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void forget_event(struct sse *sse) {
    sse->coming = 0;
    sse->name[0] = sse->data[0] = '\0';
    sse->lost = false;
}

void sse_begin(struct sse *sse) {
    sse->used = 0;
    forget_event(sse);
}

/* An empty line ends an event; one without data is none. */
static void end_event(struct sse *sse) {
    if (sse->coming)
        sse->number = sse->coming;
    if (sse->data[0] && !sse->lost)
        sse->event(sse->context, sse->name, sse->data);
    forget_event(sse);
}

static const char *value_of(const char *line, const char *field) {
    size_t n = strlen(field);
    if (strncmp(line, field, n) || line[n] != ':')
        return NULL;
    return line + n + 1 + (line[n + 1] == ' ');
}

static void end_line(struct sse *sse) {
    const char *value;
    sse->line[sse->used] = '\0';
    sse->used = 0;
    if (!sse->line[0])
        end_event(sse);
    else if ((value = value_of(sse->line, "id")))
        sse->coming = atoll(value);
    else if ((value = value_of(sse->line, "event")))
        snprintf(sse->name, sizeof sse->name, "%s", value);
    else if ((value = value_of(sse->line, "data"))) /* ours are of one line */
        memcpy(sse->data, value, strlen(value) + 1);
}

void sse_take(struct sse *sse, const char *bytes, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (bytes[i] == '\n')
            end_line(sse);
        else if (bytes[i] == '\r' || bytes[i] == '\0')
            continue;
        else if (sse->used + 1 < sizeof sse->line)
            sse->line[sse->used++] = bytes[i];
        else
            sse->lost = true;
    }
}
