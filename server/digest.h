/* SHA-256 (FIPS 180-4), as lower-case hexadecimal. */
#ifndef SERVER_DIGEST_H
#define SERVER_DIGEST_H

#include <nettle/sha2.h>
#include <stddef.h>

#define DIGEST_SIZE 65 /* with the final NUL */

struct digest {
    struct sha256_ctx state;
};

void digest_init(struct digest *digest);
void digest_add(struct digest *digest, const void *bytes, size_t n);
void digest_hex(struct digest *digest, char hex[DIGEST_SIZE]); /* ends it */
void digest_of(const void *bytes, size_t n, char hex[DIGEST_SIZE]);

/* The same the other way round. */
enum { DIGEST_BASE64_SIZE = 45 }; /* with the final NUL */
void digest_to_base64(const char hex[DIGEST_SIZE], char text[DIGEST_BASE64_SIZE]);

/* Whether two are the same, in a time that does not tell where they differ. */
int digest_equal(const char a[DIGEST_SIZE], const char b[DIGEST_SIZE]);

/* The hexadecimal form of a SHA-256 given in base64 (RFC 4648) up to the character `end`. Returns
 * 0, or OVR_INVALID. */
int digest_from_base64(const char *text, char end, char hex[DIGEST_SIZE]);

#endif
