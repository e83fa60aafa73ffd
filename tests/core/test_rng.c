/* Philox4x32-10 against known answers, and what is drawn from it. */
#include "core/rng.h"
#include "tests/core/check.h"

static struct rng at(uint32_t key0, uint32_t key1, const uint32_t *counter) {
    struct rng rng = {.key = {key0, key1}, .used = 4};
    memcpy(rng.counter, counter, sizeof rng.counter);
    return rng;
}

static void assert_draws(struct rng rng, const uint32_t *expected) {
    for (int i = 0; i < 4; i++)
        assert_int_equal(rng_u32(&rng), expected[i]);
}

/* kat_vectors of Random123, the authors' own library: philox4x32 10. */
static void known_answers(void **state) {
    (void)state;
    const uint32_t all = 0xffffffff;
    assert_draws(at(0, 0, (uint32_t[]){0, 0, 0, 0}),
                 (uint32_t[]){0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
    assert_draws(at(all, all, (uint32_t[]){all, all, all, all}),
                 (uint32_t[]){0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
    assert_draws(
        at(0xa4093822, 0x299f31d0, (uint32_t[]){0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}),
        (uint32_t[]){0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

/* Stored results depend on where a stream's name goes: seed → key; (block, index, epoch, purpose) →
 * counter. */
static void names_of_streams(void **state) {
    (void)state;
    struct rng rng;
    rng_init(&rng, 0xffffffffffffffff, (enum rng_purpose)0xffffffff, 0xffffffff, 0xffffffff);
    struct rng expected =
        at(0xffffffff, 0xffffffff, (uint32_t[]){0, 0xffffffff, 0xffffffff, 0xffffffff});
    for (int i = 0; i < 8; i++)
        assert_int_equal(rng_u32(&rng), rng_u32(&expected));
    rng_init(&rng, 0x0000000200000001, RNG_SHUFFLE, 7, 9);
    expected = at(1, 2, (uint32_t[]){0, 9, 7, RNG_SHUFFLE});
    for (int i = 0; i < 8; i++)
        assert_int_equal(rng_u32(&rng), rng_u32(&expected));
}

static void streams_do_not_depend_on_order(void **state) {
    (void)state;
    enum { STREAMS = 5, DRAWS = 11 };
    uint32_t in_turn[STREAMS][DRAWS];
    struct rng rng[STREAMS];
    for (uint32_t i = 0; i < STREAMS; i++)
        rng_init(&rng[i], 3, RNG_INIT, 0, i);
    for (size_t draw = 0; draw < DRAWS; draw++) /* all streams at once */
        for (size_t i = 0; i < STREAMS; i++)
            in_turn[i][draw] = rng_u32(&rng[i]);
    for (uint32_t i = STREAMS; i-- > 0;) { /* one after the other, the last one first */
        rng_init(&rng[0], 3, RNG_INIT, 0, i);
        for (size_t draw = 0; draw < DRAWS; draw++)
            assert_int_equal(rng_u32(&rng[0]), in_turn[i][draw]);
    }
}

static void different_names_are_different_streams(void **state) {
    (void)state;
    struct rng a[5];
    rng_init(&a[0], 3, RNG_INIT, 0, 0);
    rng_init(&a[1], 4, RNG_INIT, 0, 0);
    rng_init(&a[2], 3, RNG_SHUFFLE, 0, 0);
    rng_init(&a[3], 3, RNG_INIT, 1, 0);
    rng_init(&a[4], 3, RNG_INIT, 0, 1);
    uint32_t first[5];
    for (size_t i = 0; i < 5; i++) {
        first[i] = rng_u32(&a[i]);
        for (size_t j = 0; j < i; j++)
            assert_int_not_equal(first[i], first[j]);
    }
}

static void below_is_uniform(void **state) {
    (void)state;
    enum { DRAWS = 100000, MOST = 100 };
    const uint32_t sizes[] = {2, 3, 10, 100};
    struct rng rng = test_stream(1);
    for (size_t s = 0; s < COUNT(sizes); s++) {
        uint32_t n = sizes[s], counts[MOST] = {0};
        double chi_square = 0, expected = (double)DRAWS / n;
        for (int i = 0; i < DRAWS; i++) {
            uint32_t value = rng_below(&rng, n);
            assert_true(value < n);
            counts[value]++;
        }
        for (uint32_t i = 0; i < n; i++)
            chi_square += (counts[i] - expected) * (counts[i] - expected) / expected;
        assert_true(chi_square < n + 5 * sqrt(2. * n) + 10);
    }
    assert_int_equal(rng_below(&rng, 1), 0);
}

/* With n = 3·2^30 a remainder or a plain product would give a third of the values twice as often.
 */
static void below_is_unbiased_for_large_ranges(void **state) {
    (void)state;
    enum { DRAWS = 30000 };
    const uint32_t n = 3u << 30;
    struct rng rng = test_stream(2);
    int residues[3] = {0}, thirds[3] = {0};
    for (int i = 0; i < DRAWS; i++) {
        uint32_t value = rng_below(&rng, n);
        assert_true(value < n);
        residues[value % 3]++;
        thirds[value >> 30]++;
    }
    for (size_t i = 0; i < 3; i++) { /* standard deviation 82 */
        assert_in_range(residues[i], 10000 - 500, 10000 + 500);
        assert_in_range(thirds[i], 10000 - 500, 10000 + 500);
    }
}

static void permutations_are_permutations(void **state) {
    (void)state;
    enum { MOST = 1000 };
    const uint32_t sizes[] = {0, 1, 2, 7, MOST};
    for (size_t s = 0; s < COUNT(sizes); s++) {
        uint32_t order[MOST] = {0}, n = sizes[s];
        char seen[MOST] = {0};
        struct rng rng = test_stream(3);
        rng_permutation(&rng, order, n);
        for (uint32_t i = 0; i < n; i++) {
            assert_true(order[i] < n && !seen[order[i]]);
            seen[order[i]] = 1;
        }
    }
}

static void permutations_are_equally_likely(void **state) {
    (void)state;
    enum { DRAWS = 24000 };
    int counts[4 * 4 * 4] = {0}, different = 0;
    struct rng rng = test_stream(4);
    for (int i = 0; i < DRAWS; i++) {
        uint32_t order[4];
        rng_permutation(&rng, order, 4);
        counts[order[0] * 16 + order[1] * 4 + order[2]]++;
    }
    for (size_t i = 0; i < COUNT(counts); i++)
        if (counts[i]) {
            assert_in_range(counts[i], 1000 - 160, 1000 + 160); /* five standard deviations */
            different++;
        }
    assert_int_equal(different, 24);
}

static void uniform_and_normal_moments(void **state) {
    (void)state;
    enum { DRAWS = 200000 };
    double uniform[2] = {0}, normal[4] = {0};
    struct rng rng = test_stream(5);
    for (int i = 0; i < DRAWS; i++) {
        double u = rng_uniform(&rng), z = rng_normal(&rng);
        assert_true(u > 0 && u < 1);
        uniform[0] += u / DRAWS;
        uniform[1] += u * u / DRAWS;
        for (int power = 1; power <= 4; power++)
            normal[power - 1] += pow(z, power) / DRAWS;
    }
    assert_near(uniform[0], 1. / 2, 5 * 0.289 / sqrt(DRAWS));
    assert_near(uniform[1], 1. / 3, 5 * 0.298 / sqrt(DRAWS));
    assert_near(normal[0], 0, 5 * 1 / sqrt(DRAWS));
    assert_near(normal[1], 1, 5 * 1.42 / sqrt(DRAWS));
    assert_near(normal[2], 0, 5 * 3.88 / sqrt(DRAWS));
    assert_near(normal[3], 3, 5 * 9.8 / sqrt(DRAWS));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_answers),
        cmocka_unit_test(names_of_streams),
        cmocka_unit_test(streams_do_not_depend_on_order),
        cmocka_unit_test(different_names_are_different_streams),
        cmocka_unit_test(below_is_uniform),
        cmocka_unit_test(below_is_unbiased_for_large_ranges),
        cmocka_unit_test(permutations_are_permutations),
        cmocka_unit_test(permutations_are_equally_likely),
        cmocka_unit_test(uniform_and_normal_moments),
    };
    return cmocka_run_group_tests_name("core/rng", tests, NULL, NULL);
}
