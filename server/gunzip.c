#include "server/gunzip.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

struct gunzip {
    struct gunzip_sink sink;
    enum { UNKNOWN, PLAIN, INSIDE, BETWEEN } state; /* inside a member, or behind one */
    unsigned char first[2];
    size_t n_first;
    int open; /* stream has to be ended */
    z_stream stream;
    char out[1 << 16];
};

int gunzip_open(struct gunzip **out, const struct gunzip_sink *sink, struct ovr_err *err) {
    struct gunzip *gunzip = calloc(1, sizeof *gunzip);
    *out = gunzip;
    if (!gunzip)
        return ovr_nomem(err, "an upload");
    gunzip->sink = *sink;
    return 0;
}

void gunzip_free(struct gunzip *gunzip) {
    if (!gunzip)
        return;
    if (gunzip->open)
        inflateEnd(&gunzip->stream);
    free(gunzip);
}

int gunzip_is_compressed(const struct gunzip *gunzip) {
    return gunzip->state >= INSIDE;
}

static int begin_member(struct gunzip *g, struct ovr_err *err) {
    enum { GZIP_ONLY = 16 };
    int rc = g->open ? inflateReset(&g->stream) : inflateInit2(&g->stream, MAX_WBITS + GZIP_ONLY);
    if (rc != Z_OK)
        return ovr_nomem(err, "unpacking gzip");
    g->open = 1;
    g->state = INSIDE;
    return 0;
}

static int inflate_some(struct gunzip *g, const char *bytes, size_t n, struct ovr_err *err) {
    g->stream.next_in = (unsigned char *)(uintptr_t)bytes;
    g->stream.avail_in = (unsigned)n;
    int filled = 0, rc = 0;
    while (!rc && (g->stream.avail_in || filled)) {
        if (g->state == BETWEEN && !g->stream.avail_in)
            break;
        if (g->state == BETWEEN && (rc = begin_member(g, err)))
            break;
        g->stream.next_out = (unsigned char *)g->out;
        g->stream.avail_out = sizeof g->out;
        int status = inflate(&g->stream, Z_NO_FLUSH);
        if (status == Z_MEM_ERROR)
            return ovr_nomem(err, "unpacking gzip");
        if (status != Z_OK && status != Z_STREAM_END && status != Z_BUF_ERROR)
            return ovr_fail(err, OVR_INVALID, "", "the gzip stream is damaged: %s",
                            g->stream.msg ? g->stream.msg : "not what zlib expects");
        size_t made = sizeof g->out - g->stream.avail_out;
        filled = g->stream.avail_out == 0;
        if (made)
            rc = g->sink.put(g->sink.context, g->out, made, err);
        if (status == Z_STREAM_END) {
            g->state = BETWEEN;
            filled = 0;
        }
    }
    return rc;
}

static int pass_on(struct gunzip *g, const char *bytes, size_t n, struct ovr_err *err) {
    if (g->state == PLAIN)
        return g->sink.put(g->sink.context, bytes, n, err);
    while (n) { /* zlib counts in 32 bits */
        size_t part = n < (1 << 30) ? n : 1 << 30;
        int rc = inflate_some(g, bytes, part, err);
        if (rc)
            return rc;
        bytes += part;
        n -= part;
    }
    return 0;
}

/* The first bytes say what it is; `all` when no more come. */
static int decide(struct gunzip *g, int all, struct ovr_err *err) {
    if (g->n_first < 2 && !all)
        return 0;
    g->state = PLAIN;
    if (g->n_first == 2 && g->first[0] == 0x1f && g->first[1] == 0x8b) {
        int rc = begin_member(g, err);
        if (rc)
            return rc;
    }
    return g->n_first ? pass_on(g, (const char *)g->first, g->n_first, err) : 0;
}

int gunzip_write(struct gunzip *g, const char *bytes, size_t n, struct ovr_err *err) {
    while (n && g->state == UNKNOWN) {
        g->first[g->n_first++] = (unsigned char)*bytes++;
        n--;
        int rc = decide(g, 0, err);
        if (rc)
            return rc;
    }
    return n ? pass_on(g, bytes, n, err) : 0;
}

int gunzip_finish(struct gunzip *g, struct ovr_err *err) {
    if (g->state == UNKNOWN)
        return decide(g, 1, err);
    if (g->state == INSIDE)
        return ovr_fail(err, OVR_INVALID, "",
                        "the gzip stream is cut off; compress the file again and send all of it");
    return 0;
}
