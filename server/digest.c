#include "server/digest.h"

#include "core/err.h"

#include <nettle/base64.h>
#include <nettle/memops.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

void digest_init(struct digest *digest) {
    sha256_init(&digest->state);
}

void digest_add(struct digest *digest, const void *bytes, size_t n) {
    sha256_update(&digest->state, n, bytes);
}

static void write_hex(const uint8_t sum[SHA256_DIGEST_SIZE], char hex[DIGEST_SIZE]) {
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < SHA256_DIGEST_SIZE; i++) {
        hex[2 * i] = digits[sum[i] >> 4];
        hex[2 * i + 1] = digits[sum[i] & 15];
    }
    hex[2 * SHA256_DIGEST_SIZE] = '\0';
}

void digest_hex(struct digest *digest, char hex[DIGEST_SIZE]) {
    uint8_t sum[SHA256_DIGEST_SIZE];
    sha256_digest(&digest->state, sizeof sum, sum);
    write_hex(sum, hex);
}

int digest_from_base64(const char *text, char end, char hex[DIGEST_SIZE]) {
    enum { BASE64_LENGTH = 44 };
    struct base64_decode_ctx decode;
    uint8_t sum[BASE64_DECODE_LENGTH(BASE64_LENGTH)];
    size_t n = sizeof sum;
    const char *stop = strchr(text, end);
    base64_decode_init(&decode);
    if (!stop || stop - text != BASE64_LENGTH ||
        !base64_decode_update(&decode, &n, sum, BASE64_LENGTH, text) ||
        !base64_decode_final(&decode) || n != SHA256_DIGEST_SIZE)
        return OVR_INVALID;
    write_hex(sum, hex);
    return 0;
}

void digest_to_base64(const char hex[DIGEST_SIZE], char text[DIGEST_BASE64_SIZE]) {
    uint8_t sum[SHA256_DIGEST_SIZE];
    for (size_t i = 0; i < sizeof sum; i++)
        sscanf(hex + 2 * i, "%2hhx", &sum[i]);
    base64_encode_raw(text, sizeof sum, sum);
    text[DIGEST_BASE64_SIZE - 1] = '\0';
}

int digest_equal(const char a[DIGEST_SIZE], const char b[DIGEST_SIZE]) {
    return memeql_sec(a, b, DIGEST_SIZE - 1);
}

void digest_of(const void *bytes, size_t n, char hex[DIGEST_SIZE]) {
    struct digest digest;
    digest_init(&digest);
    digest_add(&digest, bytes, n);
    digest_hex(&digest, hex);
}
