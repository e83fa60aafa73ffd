/* The daemon's log: a line per event on standard error, time first, for people and for grep.
 *
 *   2026-11-24T09:30:00.123Z info experiment=k3f9m2xq7a1b started, 2 threads
 *   2026-11-24T09:30:00.120Z info experiment=k3f9m2xq7a1b queued, name="mine" request=5e0c1f7a-2b
 */
#ifndef SERVER_LOG_H
#define SERVER_LOG_H

#include <stddef.h>
#include <stdint.h>

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

void log_set_level(enum log_level level); /* lines below it are not written; default info */
void log_line(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The lines of this thread end with " request=<id>" from now on; NULL: they don't. */
void log_set_request(const char *id);

int64_t now_ms(void);                                  /* since 1970, UTC */
void format_time(int64_t ms, char *text, size_t size); /* RFC 3339 with ms; 25 bytes */

#endif
