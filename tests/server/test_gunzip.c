/* Unpacking on the way in: pieces of every size, several members, damage, and a sink that has
 * enough. */
#include "server/gunzip.h"
#include "tests/core/check.h"

#include <zlib.h>

enum { ROOM = 1 << 20 };

struct out {
    char *bytes;
    size_t n, most; /* after `most` bytes the sink refuses */
};

static int put(void *context, const char *bytes, size_t n, struct ovr_err *err) {
    struct out *out = context;
    if (out->n + n > out->most)
        return ovr_fail(err, OVR_TOO_LARGE, "", "enough");
    memcpy(out->bytes + out->n, bytes, n);
    out->n += n;
    return 0;
}

/* One member of gzip. */
static size_t pack(const char *bytes, size_t n, unsigned char *packed) {
    z_stream z = {0};
    assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, MAX_WBITS + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    z.next_in = (unsigned char *)(uintptr_t)bytes;
    z.avail_in = (unsigned)n;
    z.next_out = packed;
    z.avail_out = ROOM;
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    deflateEnd(&z);
    return ROOM - z.avail_out;
}

static int unpack(const unsigned char *bytes, size_t n, size_t piece, struct out *out,
                  struct ovr_err *err) {
    struct gunzip *gunzip;
    out->n = 0;
    int rc = gunzip_open(&gunzip, &(struct gunzip_sink){put, out}, err);
    for (size_t at = 0; !rc && at < n; at += piece)
        rc = gunzip_write(gunzip, (const char *)bytes + at, min_size(piece, n - at), err);
    if (!rc)
        rc = gunzip_finish(gunzip, err);
    gunzip_free(gunzip);
    return rc;
}

struct data {
    char text[20000];
    unsigned char *packed;
    struct out out;
};

static int make_data(void **state) {
    struct data *d = calloc(1, sizeof *d);
    struct rng rng = test_stream(60);
    assert_non_null(d);
    for (size_t i = 0; i < sizeof d->text; i++)
        d->text[i] = (char)('a' + rng_below(&rng, 4));
    d->packed = malloc(ROOM);
    d->out = (struct out){.bytes = malloc(ROOM), .most = ROOM};
    assert_true(d->packed && d->out.bytes);
    *state = d;
    return 0;
}

static int free_data(void **state) {
    struct data *d = *state;
    free(d->packed);
    free(d->out.bytes);
    free(d);
    return 0;
}

static void pieces(void **state) {
    struct data *d = *state;
    struct ovr_err err = {0};
    size_t n = pack(d->text, 9000, d->packed);
    n += pack(d->text + 9000, sizeof d->text - 9000, d->packed + n); /* a second member */
    static const size_t sizes[] = {1, 2, 3, 7, 100, 1000, ROOM};
    for (size_t i = 0; i < COUNT(sizes); i++) {
        assert_ok(unpack(d->packed, n, sizes[i], &d->out, &err), &err);
        assert_int_equal(d->out.n, sizeof d->text);
        assert_memory_equal(d->out.bytes, d->text, sizeof d->text);
    }
}

static void anything_else_passes(void **state) {
    struct data *d = *state;
    struct ovr_err err = {0};
    static const char *const texts[] = {"", "\x1f", "\x1f\x8c", "\x1fx\x8b", "plain"};
    for (size_t i = 0; i < COUNT(texts); i++)
        for (size_t piece = 1; piece < 4; piece++) {
            const unsigned char *text = (const unsigned char *)texts[i];
            assert_ok(unpack(text, strlen(texts[i]), piece, &d->out, &err), &err);
            assert_int_equal(d->out.n, strlen(texts[i]));
            assert_memory_equal(d->out.bytes, texts[i], d->out.n);
        }
}

static void damage(void **state) {
    struct data *d = *state;
    size_t n = pack(d->text, sizeof d->text, d->packed);
    for (size_t cut = 2; cut < n; cut += cut < 40 || cut > n - 40 ? 1 : 97) {
        struct ovr_err err = {0};
        assert_failed(unpack(d->packed, cut, 50, &d->out, &err), OVR_INVALID, &err, "cut off");
    }
    struct ovr_err err = {0};
    d->packed[n / 2] ^= 0x55;
    assert_failed(unpack(d->packed, n, 50, &d->out, &err), OVR_INVALID, &err, "damaged");
    d->packed[n / 2] ^= 0x55;
    memcpy(d->packed + n, "more", 4);
    err = (struct ovr_err){0};
    assert_failed(unpack(d->packed, n + 4, 50, &d->out, &err), OVR_INVALID, &err, "damaged");
}

/* A megabyte of one letter takes a kilobyte: the sink decides how much comes out. */
static void a_sink_that_has_enough(void **state) {
    struct data *d = *state;
    struct ovr_err err = {0};
    char *many = malloc(ROOM);
    assert_non_null(many);
    memset(many, 'x', ROOM);
    size_t n = pack(many, ROOM, d->packed);
    assert_true(n < 2000);
    assert_ok(unpack(d->packed, n, n, &d->out, &err), &err);
    assert_int_equal(d->out.n, ROOM);
    assert_memory_equal(d->out.bytes, many, ROOM);
    d->out.most = 200000;
    assert_failed(unpack(d->packed, n, n, &d->out, &err), OVR_TOO_LARGE, &err, "enough");
    assert_true(d->out.n <= 200000);
    free(many);
}

#define with_data(test) cmocka_unit_test_setup_teardown(test, make_data, free_data)

int main(void) {
    const struct CMUnitTest tests[] = {
        with_data(pieces),
        with_data(anything_else_passes),
        with_data(damage),
        with_data(a_sink_that_has_enough),
    };
    return cmocka_run_group_tests_name("server/gunzip", tests, NULL, NULL);
}
