/* Settings: flags over the environment over defaults, and what is refused. */
#include "server/settings.h"
#include "tests/server/check.h"

extern char **environ;

static const char *const names[] = {"data-dir",
                                    "listen",
                                    "host-names",
                                    "tls-cert",
                                    "tls-key",
                                    "admin-token-file",
                                    "visibility",
                                    "user-running",
                                    "user-queued",
                                    "user-storage",
                                    "rate",
                                    "wrong-tokens",
                                    "address-connections",
                                    "body-rate",
                                    "workers",
                                    "fair-share-half-life",
                                    "memory",
                                    "cache",
                                    "model-cache",
                                    "isa",
                                    "blas-kernel",
                                    "http-threads",
                                    "max-connections",
                                    "max-watchers",
                                    "idle-timeout",
                                    "max-body",
                                    "max-upload",
                                    "checkpoint",
                                    "max-crashes",
                                    "keep-backups",
                                    "slurm",
                                    "slurm-directory",
                                    "slurm-options",
                                    "slurm-worker",
                                    "worker-url",
                                    "worker-ca",
                                    "slurm-shared-data",
                                    "slurm-jobs",
                                    "slurm-cores",
                                    "slurm-node-memory",
                                    "slurm-max-minutes",
                                    "slurm-above-memory",
                                    "slurm-above-hours",
                                    "slurm-poll",
                                    "slurm-lease",
                                    "retention-days",
                                    "retention-failed-days",
                                    "log-level"};

/* An environment without settings. */
static int clear_environment(void **state) {
    (void)state;
    char *keep[256];
    size_t n = 0;
    for (char **e = environ; *e && n < COUNT(keep); e++)
        if (strncmp(*e, "OVRD_", 5) == 0)
            keep[n++] = strdup(*e);
    for (size_t i = 0; i < n; i++) {
        *strchr(keep[i], '=') = '\0';
        unsetenv(keep[i]);
        free(keep[i]);
    }
    return 0;
}

struct outcome_of {
    struct settings settings;
    enum settings_action action;
    struct ovr_err err;
    int rc;
};

/* Words of a command line after the program's name, up to NULL. */
static struct outcome_of read_words(const char *const *words) {
    struct outcome_of o = {.action = SETTINGS_RUN};
    const char *argv[16] = {"ovrd"};
    int argc = 1;
    while (*words)
        argv[argc++] = *words++;
    o.rc = settings_read(&o.settings, &o.action, argc, (char **)(uintptr_t)argv, &o.err);
    return o;
}

#define READ(...) read_words((const char *const[]){__VA_ARGS__ __VA_OPT__(, ) NULL})

static void defaults(void **state) {
    (void)state;
    struct outcome_of o = READ();
    const struct settings *s = &o.settings;
    assert_ok(o.rc, &o.err);
    assert_int_equal(o.action, SETTINGS_RUN);
    assert_string_equal(s->data_dir, "ovrd-data");
    assert_string_equal(s->listen, "127.0.0.1:8080");
    assert_string_equal(s->isa, "auto");
    assert_string_equal(s->blas_kernel, "auto");
    assert_string_equal(s->log_level, "info");
    assert_int_equal(s->workers, 0);
    assert_int_equal(s->memory_bytes, 0);
    assert_true(s->cache_bytes == 16ll << 30);
    assert_int_equal(s->max_body_bytes, 1 << 20);
    assert_true(s->max_upload_bytes == 16ll << 30);
}

static void a_flag_wins_over_the_environment(void **state) {
    (void)state;
    setenv("OVRD_DATA_DIR", "/from/environment", 1);
    setenv("OVRD_MAX_BODY", "2M", 1);
    struct outcome_of o = READ();
    assert_ok(o.rc, &o.err);
    assert_string_equal(o.settings.data_dir, "/from/environment");
    assert_int_equal(o.settings.max_body_bytes, 2 << 20);
    o = READ("--data-dir", "/from/flag");
    assert_string_equal(o.settings.data_dir, "/from/flag");
    assert_int_equal(o.settings.max_body_bytes, 2 << 20);
    o = READ("--max-body=3M");
    assert_string_equal(o.settings.data_dir, "/from/environment");
    assert_int_equal(o.settings.max_body_bytes, 3 << 20);
}

static void two_ways_to_write_a_flag(void **state) {
    (void)state;
    struct outcome_of o = READ("--workers", "3", "--listen=127.0.0.1:0", "--data-dir=a=b");
    assert_ok(o.rc, &o.err);
    assert_int_equal(o.settings.workers, 3);
    assert_string_equal(o.settings.listen, "127.0.0.1:0");
    assert_string_equal(o.settings.data_dir, "a=b");
    o = READ("--workers", "3", "--workers=4"); /* the last one counts */
    assert_int_equal(o.settings.workers, 4);
}

static void suffixes(void **state) {
    (void)state;
    static const struct {
        const char *text;
        int64_t bytes;
    } good[] = {
        {"0", 0},          {"1024", 1024},          {"1K", 1 << 10},
        {"1k", 1 << 10},   {"64M", 64 << 20},       {"3g", 3ll << 30},
        {"2T", 2ll << 40}, {"1024T", 1024ll << 40}, {"1048576G", 1024ll << 40},
    };
    static const char *const bad[] = {
        "",
        "K",
        "1KB",
        "1X",
        "1 K",
        "1.5G",
        "-1",
        "-1K",
        "0x10",
        "1e3",
        "1K1",
        "1025T",
        "9999999T",
        "9223372036854775807T",
        "9223372036854775808",
        "99999999999999999999999",
        "17592186044416K1",
        "18014398509481985K",
    };
    for (size_t i = 0; i < COUNT(good); i++) {
        struct outcome_of o = READ("--memory", good[i].text);
        assert_ok(o.rc, &o.err);
        assert_true(o.settings.memory_bytes == good[i].bytes);
    }
    for (size_t i = 0; i < COUNT(bad); i++) {
        struct outcome_of o = READ("--memory", bad[i]);
        assert_failed(o.rc, OVR_INVALID, &o.err, "--memory must be a number 0..1125899906842624");
        assert_non_null(strstr(o.err.text, bad[i]));
        assert_string_equal(o.err.field, "--memory");
    }
}

static void ranges(void **state) {
    (void)state;
    static const struct {
        const char *flag, *low, *high, *below, *above;
    } table[] = {
        {"--workers", "0", "256", "-1", "257"},
        {"--http-threads", "1", "64", "0", "65"},
        {"--max-connections", "8", "100000", "7", "100001"},
        {"--idle-timeout", "1", "3600", "0", "3601"},
        {"--max-body", "1K", "1G", "1023", "1073741825"},
        {"--max-upload", "1K", "1024T", "1023", "1125899906842625"},
        {"--max-crashes", "1", "1000", "0", "1001"},
        {"--slurm-lease", "10", "86400", "9", "86401"},
    };
    for (size_t i = 0; i < COUNT(table); i++) {
        struct outcome_of o = READ(table[i].flag, table[i].low, table[i].flag, table[i].high);
        assert_ok(o.rc, &o.err);
        o = READ(table[i].flag, table[i].below);
        assert_failed(o.rc, OVR_INVALID, &o.err, "must be a number");
        o = READ(table[i].flag, table[i].above);
        assert_failed(o.rc, OVR_INVALID, &o.err, table[i].flag);
    }
}

static void choices(void **state) {
    (void)state;
    static const char *const levels[] = {"auto", "baseline", "avx2", "avx512"};
    static const char *const bad[] = {"",      "avx",           "AVX2", "base", "512",
                                      "avx2 ", "auto baseline", " ",    "neon"};
    for (size_t i = 0; i < COUNT(levels); i++) {
        struct outcome_of o = READ("--isa", levels[i]);
        assert_ok(o.rc, &o.err);
        assert_string_equal(o.settings.isa, levels[i]);
    }
    for (size_t i = 0; i < COUNT(bad); i++) {
        struct outcome_of o = READ("--isa", bad[i]);
        assert_failed(o.rc, OVR_INVALID, &o.err,
                      "--isa must be one of auto baseline avx2 avx512, got");
    }
    struct outcome_of o = READ("--log-level", "debug");
    assert_ok(o.rc, &o.err);
    o = READ("--log-level", "trace");
    assert_failed(o.rc, OVR_INVALID, &o.err, "debug info warn error");
}

static void the_environment_is_checked_too(void **state) {
    (void)state;
    setenv("OVRD_WORKERS", "many", 1);
    struct outcome_of o = READ("--workers", "3");
    assert_failed(o.rc, OVR_INVALID, &o.err, "OVRD_WORKERS must be a number 0..256");
    assert_non_null(strstr(o.err.text, "\"many\""));
    assert_string_equal(o.err.field, "OVRD_WORKERS");
}

static void unknown_flags(void **state) {
    (void)state;
    static const char *const bad[] = {"--worker", "--workerss", "--",        "-w",        "workers",
                                      "",         "--=3",       "--Workers", "--data_dir"};
    for (size_t i = 0; i < COUNT(bad); i++) {
        struct outcome_of o = READ(bad[i], "3");
        assert_failed(o.rc, OVR_INVALID, &o.err, "there is no option");
        assert_non_null(strstr(o.err.text, "ovrd --help"));
        assert_non_null(strstr(o.err.text, bad[i]));
    }
}

static void missing_values(void **state) {
    (void)state;
    struct outcome_of o = READ("--listen", "127.0.0.1:0", "--workers");
    assert_failed(o.rc, OVR_INVALID, &o.err, "--workers needs a value (JOBS)");
    o = READ("--data-dir=");
    assert_failed(o.rc, OVR_INVALID, &o.err, "--data-dir must be a text that is not empty");
    o = READ("--workers=");
    assert_failed(o.rc, OVR_INVALID, &o.err, "--workers must be a number");
}

static void without_a_place_for_the_error(void **state) {
    (void)state;
    const char *argv[] = {"ovrd", "--isa", "?"};
    struct settings settings;
    enum settings_action action;
    assert_int_equal(settings_read(&settings, &action, 3, (char **)(uintptr_t)argv, NULL),
                     OVR_INVALID);
}

static void help_and_version(void **state) {
    (void)state;
    struct outcome_of o = READ("--help");
    assert_ok(o.rc, &o.err);
    assert_int_equal(o.action, SETTINGS_HELP);
    o = READ("--workers", "2", "-h");
    assert_int_equal(o.action, SETTINGS_HELP);
    o = READ("--version");
    assert_int_equal(o.action, SETTINGS_VERSION);
}

static void help_names_everything(void **state) {
    (void)state;
    char *text = NULL;
    size_t n;
    FILE *out = open_memstream(&text, &n);
    assert_non_null(out);
    settings_help(out);
    fclose(out);
    for (size_t i = 0; i < COUNT(names); i++) {
        char flag[64], variable[64] = "environment OVRD_";
        snprintf(flag, sizeof flag, "  --%s ", names[i]);
        size_t at = strlen(variable);
        for (const char *c = names[i]; *c; c++)
            variable[at++] = *c == '-' ? '_' : (char)(*c - 'a' + 'A');
        variable[at++] = '\n';
        if (!strstr(text, flag) || !strstr(text, variable))
            fail_msg("the help lacks %s or %s", flag, variable);
    }
    assert_non_null(strstr(text, "--help"));
    assert_non_null(strstr(text, "--version"));
    size_t n_settings = 0;
    for (const char *c = text; (c = strstr(c, "environment OVRD_")); c++)
        n_settings++;
    assert_int_equal(n_settings, COUNT(names)); /* a new setting belongs in the list above */
    free(text);
}

#define clean(test) cmocka_unit_test_setup_teardown(test, clear_environment, clear_environment)

int main(void) {
    const struct CMUnitTest tests[] = {
        clean(defaults),
        clean(a_flag_wins_over_the_environment),
        clean(two_ways_to_write_a_flag),
        clean(suffixes),
        clean(ranges),
        clean(choices),
        clean(the_environment_is_checked_too),
        clean(unknown_flags),
        clean(missing_values),
        clean(without_a_place_for_the_error),
        clean(help_and_version),
        clean(help_names_everything),
    };
    return cmocka_run_group_tests_name("server/settings", tests, NULL, NULL);
}
