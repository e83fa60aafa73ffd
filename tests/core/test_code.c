/* Sparse codes hold exactly the activations that they were made of. */
#include "core/code.h"
#include "tests/core/check.h"

enum { UNITS = 300, SAMPLES = 2 * CODE_BLOCK + 17 }; /* ragged last shard, ragged last block */

static void assert_reproduces(const struct code *code, const real *h) {
    real row[UNITS];
    for (size_t i = 0; i < code->n; i++) {
        struct code_sample s = code_sample(code, i);
        size_t active = 0, kept = 0;
        memset(row, 0, sizeof row);
        for (size_t r = 0; r < code->n_runs; r++) {
            assert_int_equal((s.start[r + 1] - s.start[r]) % RUN_STEP, 0);
            for (size_t j = s.start[r]; j < s.start[r + 1]; j++) {
                assert_true(r * RUN_UNITS + s.unit[j] < UNITS);
                row[r * RUN_UNITS + s.unit[j]] += s.value[j];
                kept++;
            }
        }
        for (size_t k = 0; k < UNITS; k++)
            active += h[i * UNITS + k] != 0;
        assert_in_range(kept, active, active + code->n_runs * (RUN_STEP - 1));
        assert_memory_equal(row, h + i * UNITS, sizeof row);
    }
}

static void reproduces_activations(void **state) {
    (void)state;
    real *h = new_activations(SAMPLES * UNITS, 1);
    memset(h + 5 * UNITS, 0, UNITS * sizeof *h);                       /* an empty code */
    memset(h + CODE_BLOCK * UNITS, 0, CODE_BLOCK * UNITS * sizeof *h); /* a whole block of them */
    for (size_t i = 0; i < COUNT(TEAM_SIZES); i++) {
        struct team *team = new_team(TEAM_SIZES[i]);
        struct code *code = new_code(team, h, SAMPLES, UNITS, NULL);
        assert_int_equal(code->n_runs, 2);
        assert_reproduces(code, h);
        code_free(code);
        team_free(team);
    }
    free(h);
}

static void takes_memory_for_active_units_only(void **state) {
    (void)state;
    real *h = new_activations(SAMPLES * UNITS, 2);
    struct team *team = new_team(1);
    size_t active = 0;
    for (size_t i = 0; i < SAMPLES * UNITS; i++)
        active += h[i] != 0;
    struct code *code = new_code(team, h, SAMPLES, UNITS, NULL);
    /* a run is filled up by 1.5 places on average; three blocks of two arrays, each with its end */
    size_t starts = SAMPLES * 3 * sizeof(uint32_t), values = (active + SAMPLES * 3) * 5;
    size_t bytes = code_bytes(SAMPLES, UNITS, (double)active / (SAMPLES * UNITS));
    assert_in_range(bytes, starts + values - 5, starts + values + 5);
    assert_int_equal(code->n_rooms, 1);
    assert_in_range(code->rooms[0].used, active * 5,
                    active * 5 + SAMPLES * 2 * (RUN_STEP - 1) * 5 + 3 * 2 * ARENA_ROOM(0));
    code_free(code);
    team_free(team);
    free(h);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reproduces_activations),
        cmocka_unit_test(takes_memory_for_active_units_only),
    };
    return cmocka_run_group_tests_name("core/code", tests, start_blas, NULL);
}
