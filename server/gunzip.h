/* Bytes on their way in that may be compressed: gzip (RFC 1952, also several members in a row) is
 * told by its first two bytes and unpacked, everything else passes as it is. The only file that
 * knows zlib is gunzip.c. */
#ifndef SERVER_GUNZIP_H
#define SERVER_GUNZIP_H

#include "core/err.h"

#include <stddef.h>

struct gunzip;

/* `put` takes the bytes that come out; what it returns, if not 0, ends the work. */
struct gunzip_sink {
    int (*put)(void *context, const char *bytes, size_t n, struct ovr_err *err);
    void *context;
};

int gunzip_open(struct gunzip **gunzip, const struct gunzip_sink *sink, struct ovr_err *err);
int gunzip_write(struct gunzip *gunzip, const char *bytes, size_t n, struct ovr_err *err);
/* No more bytes come. A stream that was cut off is OVR_INVALID. */
int gunzip_finish(struct gunzip *gunzip, struct ovr_err *err);
int gunzip_is_compressed(const struct gunzip *gunzip);
void gunzip_free(struct gunzip *gunzip); /* NULL is fine */

#endif
