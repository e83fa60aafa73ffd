/* SHA-256 by the examples of FIPS 180, and its base64 form. */
#include "server/digest.h"
#include "tests/server/check.h"

static const struct {
    const char *text, *hex, *base64;
} vectors[] = {
    {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
     "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="},
    {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
     "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0="},
    {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
     "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
     "JI1qYdIGOLjlwCaTDD5gOaM85Flk/yFn9uzt1BnbBsE="},
    {"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnop"
     "q"
     "rsmnopqrstnopqrstu",
     "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1",
     "z1sWp3ivg4ADbOWeewSSNwskmxHo8HpRr6xFA3r+6dE="},
};

static void examples_of_the_standard(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(vectors); i++) {
        char hex[DIGEST_SIZE];
        digest_of(vectors[i].text, strlen(vectors[i].text), hex);
        assert_string_equal(hex, vectors[i].hex);
    }
}

static void pieces_of_any_size(void **state) {
    (void)state;
    const char *text = vectors[3].text;
    size_t n = strlen(text);
    for (size_t piece = 1; piece <= n; piece++) {
        struct digest digest;
        char hex[DIGEST_SIZE];
        digest_init(&digest);
        for (size_t at = 0; at < n; at += piece)
            digest_add(&digest, text + at, min_size(piece, n - at));
        digest_add(&digest, text, 0);
        digest_hex(&digest, hex);
        assert_string_equal(hex, vectors[3].hex);
    }
}

static void a_million_letters(void **state) {
    (void)state;
    struct digest digest;
    char hex[DIGEST_SIZE], letters[1000];
    memset(letters, 'a', sizeof letters);
    digest_init(&digest);
    for (int i = 0; i < 1000; i++)
        digest_add(&digest, letters, sizeof letters);
    digest_hex(&digest, hex);
    assert_string_equal(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

static void base64_both_ways(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(vectors); i++) {
        char hex[DIGEST_SIZE], field[80];
        assert_int_equal(digest_from_base64(vectors[i].base64, '\0', hex), 0);
        assert_string_equal(hex, vectors[i].hex);
        snprintf(field, sizeof field, "%s:, sha-512=:AA==:", vectors[i].base64); /* RFC 9530 */
        assert_int_equal(digest_from_base64(field, ':', hex), 0);
        assert_string_equal(hex, vectors[i].hex);
        char text[DIGEST_BASE64_SIZE];
        digest_to_base64(hex, text);
        assert_string_equal(text, vectors[i].base64);
    }
}

static void bad_base64_is_refused(void **state) {
    (void)state;
    static const char *const bad[] = {
        "",
        ":",
        "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",      /* no end */
        "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU:",      /* no padding */
        "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU==:",    /* too much of it */
        "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuA==:",     /* 31 bytes */
        "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFVV:",     /* 33 bytes */
        "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU=:",     /* base64url */
        " 47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:",    /* a space */
        "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NM pJWZG3hSuFU:",     /* a space instead of padding */
        "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NM=JWZG3hSuFU=:",     /* padding in the middle */
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934c:", /* hexadecimal */
    };
    for (size_t i = 0; i < COUNT(bad); i++) {
        char hex[DIGEST_SIZE] = "untouched";
        assert_int_equal(digest_from_base64(bad[i], ':', hex), OVR_INVALID);
        assert_string_equal(hex, "untouched");
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(examples_of_the_standard), cmocka_unit_test(pieces_of_any_size),
        cmocka_unit_test(a_million_letters),        cmocka_unit_test(base64_both_ways),
        cmocka_unit_test(bad_base64_is_refused),
    };
    return cmocka_run_group_tests_name("server/digest", tests, NULL, NULL);
}
