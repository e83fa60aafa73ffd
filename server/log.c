#include "server/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>

static _Atomic int lowest = LOG_INFO;

void log_set_level(enum log_level level) {
    lowest = (int)level;
}

int64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void format_time(int64_t ms, char *text, size_t size) {
    time_t seconds = (time_t)(ms / 1000);
    struct tm utc;
    char date[40];
    gmtime_r(&seconds, &utc);
    strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &utc);
    snprintf(text, size, "%s.%03dZ", date, (int)((uint64_t)ms % 1000));
}

static _Thread_local const char *request_id;

void log_set_request(const char *id) {
    request_id = id;
}

void log_line(enum log_level level, const char *format, ...) {
    static const char *const names[] = {"debug", "info", "warn", "error"};
    if ((int)level < lowest)
        return;
    char text[1024], time[48];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    for (char *c = text; *c; c++) /* one event, one line, whatever a client sent */
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            *c = '?';
    format_time(now_ms(), time, sizeof time);
    fprintf(stderr, "%s %s %s%s%s\n", time, names[level], text, request_id ? " request=" : "",
            request_id ? request_id : "");
}
