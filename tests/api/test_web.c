/* The dashboard's files as the daemon serves them; what they do in a browser is tests/web. */
#include "tests/api/daemon.h"

#include <dirent.h>
#include <stdio.h>

static const char *policy(const struct answer *a) {
    const char *value = header(a, "Content-Security-Policy");
    return value ? value : "";
}

static void test_the_page(void **state) {
    struct daemon *d = *state;
    const struct answer *a = get(d, "/");
    assert_status(a, 200);
    assert_string_equal(header(a, "Content-Type"), "text/html; charset=utf-8");
    assert_non_null(strstr(a->body, "/assets/main.js"));
    assert_string_equal(header(a, "Referrer-Policy"), "no-referrer");
    assert_string_equal(header(a, "X-Content-Type-Options"), "nosniff");
    const char *csp = policy(a);
    assert_non_null(strstr(csp, "default-src 'none'"));
    assert_non_null(strstr(csp, "script-src 'self';"));
    assert_non_null(strstr(csp, "style-src 'self';"));
    assert_non_null(strstr(csp, "frame-ancestors 'none'"));
    assert_null(strstr(csp, "unsafe"));
    assert_null(strstr(csp, "http"));
}

static void test_files_are_revalidated(void **state) {
    struct daemon *d = *state;
    const struct answer *a = get(d, "/assets/main.js");
    assert_status(a, 200);
    assert_string_equal(header(a, "Cache-Control"), "no-cache");
    const char *etag = text("%s", header(a, "ETag"));
    assert_int_equal(strlen(etag), 66); /* a SHA-256 in quotes */
    struct call again = {
        .method = "GET", .path = "/assets/main.js", .headers = {text("If-None-Match: %s", etag)}};
    a = call(d, &again);
    assert_status(a, 304);
    assert_int_equal(a->size, 0);
    again.path = "/assets/api.js"; /* another file */
    assert_status(call(d, &again), 200);
}

static void test_there_is_nothing_else(void **state) {
    struct daemon *d = *state;
    assert_problem(get(d, "/assets/none.js"), 404, "not-found", "none.js");
    assert_problem(get(d, "/assets/package.json"), 404, "not-found", "package.json");
    assert_problem(get(d, "/index.html"), 404, "not-found", "");
}

static const char *type_of(const char *name) {
    const char *dot = strrchr(name, '.');
    if (strcmp(dot, ".js") == 0)
        return "text/javascript; charset=utf-8";
    if (strcmp(dot, ".css") == 0)
        return "text/css; charset=utf-8";
    return strcmp(dot, ".svg") == 0 ? "image/svg+xml" : "text/html; charset=utf-8";
}

/* Each file of a folder that a page can ask for is served as it stands there. Returns how many. */
static size_t check_folder(struct daemon *d, const char *folder) {
    DIR *dir = opendir(folder);
    struct dirent *entry;
    size_t n = 0;
    if (!dir)
        skip();
    while ((entry = readdir(dir))) {
        const char *dot = strrchr(entry->d_name, '.');
        if (!dot || !dot[1] || !strstr(".js.css.svg.html", dot))
            continue;
        const struct answer *a = get(d, "/assets/%s", entry->d_name);
        assert_status(a, 200);
        assert_string_equal(header(a, "Content-Type"), type_of(entry->d_name));
        assert_non_null(strstr(policy(a), "default-src 'none'"));
        FILE *file = fopen(text("%s/%s", folder, entry->d_name), "rb");
        char *bytes = malloc(a->size + 1);
        assert_true(file && bytes);
        assert_int_equal(fread(bytes, 1, a->size + 1, file), a->size);
        assert_memory_equal(bytes, a->body, a->size);
        free(bytes);
        fclose(file);
        n++;
    }
    closedir(dir);
    return n;
}

static void test_every_file_is_served(void **state) {
    struct daemon *d = *state;
    assert_true(check_folder(d, "clients/web") > 15);
    assert_int_equal(check_folder(d, "clients/web/vendor"), 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_page),
        cmocka_unit_test(test_files_are_revalidated),
        cmocka_unit_test(test_there_is_nothing_else),
        cmocka_unit_test(test_every_file_is_served),
    };
    return cmocka_run_group_tests_name("web", tests, with_daemon, without_daemon);
}
