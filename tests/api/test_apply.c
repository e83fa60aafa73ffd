/* encode, predict, the whole model and its filters: what is refused and how, formats, ovrctl, and
 * that models are kept and let go. What the numbers have to be is in tests/science/test_apply.py.
 */
#include "tests/api/daemon.h"
#include "tests/api/tensors.h"

#include <pthread.h>
#include <sys/wait.h>

enum { HIDDEN = 40, N_TEST = 60 };

static char *encoder, *bare, *sphere, *identity;

static int set_up(void **state) {
    /* Room for one model: two that take turns are read anew each time. */
    struct daemon *d = daemon_new((const char *const[]){"--model-cache", "4M", NULL});
    *state = d;
    upload_images(d, "images", 300, N_TEST, 5);
    encoder = submit(d, "{'dataset':{'name':'images'},'preprocess':[{'standardize':true}],'model':{"
                        "'kind':'ovr_encoder','hidden':[40]},'training':{'epochs':1},'probe':{"
                        "'epochs':2}}");
    bare = submit(d, "{'dataset':{'name':'images'},'model':{'kind':'kmeans','hidden':[7]},"
                     "'training':{'epochs':2},'probe':null}");
    sphere = submit(d, "{'dataset':{'generator':'sphere','samples':300,'test_samples':100},'model':"
                       "{'kind':'mlp','hidden':[20]},'training':{'epochs':2}}");
    identity = submit(d, "{'dataset':{'name':'images'},'model':{'kind':'identity'},'probe':null}");
    wait_for(d, encoder, "succeeded");
    wait_for(d, bare, "succeeded");
    wait_for(d, sphere, "succeeded");
    wait_for(d, identity, "succeeded");
    return 0;
}

static int tear_down(void **state) {
    free(encoder), free(bare), free(sphere), free(identity);
    return without_daemon(state);
}

static const struct answer *apply(struct daemon *d, const char *what, const char *id,
                                  const char *json) {
    return post(d, text("/v1/experiments/%s/%s", id, what), json);
}

static void test_bad_bodies(void **state) {
    struct daemon *d = *state;
    static const struct {
        const char *json, *pointer, *part;
    } bad[] = {
        {"{'samples':[]}", "/samples", "at least one"},
        {"{'samples':7}", "/samples", "3 numbers"},
        {"{'samples':[[1,2,3],4]}", "/samples/1", "array of 3"},
        {"{'samples':[[1,2]]}", "/samples/0", "3 values"},
        {"{'samples':[[1,2,3],[1,2,3,4]]}", "/samples/1", "here are 4"},
        {"{'samples':[[1,2,'x']]}", "/samples/0/2", "number"},
        {"{'samples':[[1,2,1e39]]}", "/samples/0/2", "finite"},
        {"{'samples':[[1,2,3]],'split':'test'}", "/split", "not known"},
        {"{'rows':[[1,2,3]]}", "/rows", "not known"},
        {"{'split':'validation'}", "/split", "train"},
        {"{}", "/split", "train"},
        {"{'dataset':{'name':'nobody'},'split':'test'}", "/dataset/name", "nobody"},
        {"{'dataset':{'name':'images'},'split':'test'}", "/dataset/name", "here are 3072"},
        {"{'dataset':'images','split':'test'}", "/dataset", "name"},
        {"{'dataset':{'name':'images','x':1},'split':'test'}", "/dataset", "name"},
    };
    for (size_t i = 0; i < COUNT(bad); i++) {
        const struct answer *a = apply(d, i % 2 ? "encode" : "predict", sphere, bad[i].json);
        assert_status(a, 422);
        assert_fault(a, bad[i].pointer, bad[i].part);
    }
    assert_problem(apply(d, "encode", sphere, "[1]"), 422, "invalid-request", "object");
    assert_problem(apply(d, "encode", sphere, "{"), 400, "malformed-json", "line 1");
    assert_problem(apply(d, "encode", sphere, ""), 400, "malformed-json", "empty");
    assert_problem(call(d, &(struct call){.method = "POST",
                                          .path = text("/v1/experiments/%s/encode", sphere),
                                          .headers = {"Content-Type: application/octet-stream"},
                                          .body = "%PDF-1.4"}),
                   422, "invalid-request", "no NPY file");
    assert_problem(apply(d, "encode", "nobody", "{'split':'test'}"), 404, "not-found", "nobody");
    assert_problem(apply(d, "encode?format=csv", sphere, "{'split':'test'}"), 422, "invalid-query",
                   "npy");
    assert_problem(apply(d, "predict", bare, "{'split':'test'}"), 422, "no-classifier", "probe");
}

static const struct answer *send_bytes(struct daemon *d, const char *id, const void *bytes,
                                       size_t n, const char *accept) {
    return call(d, &(struct call){.method = "POST",
                                  .path = text("/v1/experiments/%s/encode", id),
                                  .headers = {"Content-Type: application/x-npy", accept},
                                  .body = bytes,
                                  .size = n});
}

/* A float32 array as NPY. */
static size_t make_npy(char *out, const char *descr, size_t rows, size_t columns, const void *bytes,
                       size_t n) {
    memset(out, ' ', 128);
    memcpy(out, "\x93NUMPY\x01\x00\x76\x00", 10);
    int used =
        snprintf(out + 10, 118, "{'descr': '%s', 'fortran_order': False, 'shape': (%zu, %zu), }",
                 descr, rows, columns);
    out[10 + used] = ' ';
    out[127] = '\n';
    memcpy(out + 128, bytes, n);
    return 128 + n;
}

static void test_arrays(void **state) {
    struct daemon *d = *state;
    char array[512];
    const float point[] = {0.6f, 0, 0.8f, -1, 0, 0}, wrong[] = {1, 2, 3, 4};
    size_t n = make_npy(array, "<f4", 2, 3, point, sizeof point);
    const struct answer *a = send_bytes(d, sphere, array, n, "Accept: application/json");
    assert_status(a, 200);
    assert_int_equal(json_array_size(at(a->json, "/codes")), 2);
    assert_int_equal(json_array_size(at(a->json, "/codes/1")), 20);
    const struct answer *b = send_bytes(d, sphere, array, n, "Accept: application/octet-stream");
    assert_status(b, 200);
    assert_non_null(strstr(header(b, "Content-Disposition"), text("%s.codes.npy", sphere)));
    struct tensor codes = read_npy(b, 2);
    assert_true(codes.rows == 2 && codes.columns == 20);
    for (size_t i = 0; i < 40; i++)
        assert_true((double)codes.numbers[i] ==
                    (double)(float)number_at(a->json, text("/codes/%zu/%zu", i / 20, i % 20)));
    free(codes.numbers);
    n = make_npy(array, "<f4", 2, 2, wrong, sizeof wrong);
    assert_problem(send_bytes(d, sphere, array, n, NULL), 422, "invalid-request", "has 3 values");
    assert_problem(send_bytes(d, sphere, array, n - 5, NULL), 422, "invalid-request", "");
    assert_problem(send_bytes(d, sphere, array, 20, NULL), 422, "invalid-request", "");
    n = make_npy(array, "<c8", 1, 2, wrong, sizeof wrong);
    assert_problem(send_bytes(d, sphere, array, n, NULL), 422, "invalid-request", "");
}

/* Over its limit: JSON when it arrives, what is announced at once. */
static void test_bodies_that_are_too_large(void **state) {
    struct daemon *d = *state;
    size_t n = 9 << 20;
    char *big = malloc(n + 1);
    memset(big, ' ', n);
    big[n] = '\0';
    big[0] = '{';
    assert_problem(send_bytes(d, sphere, big, n, NULL), 413, "too-large", "8 MiB");
    free(big);
    const char *head = text("POST /v1/experiments/%s/encode HTTP/1.1\r\nHost: localhost\r\n"
                            "Content-Length: 300000000\r\n\r\n",
                            sphere);
    assert_non_null(strstr(raw(d, head, strlen(head), 0), " 413 "));
}

static void test_predictions(void **state) {
    struct daemon *d = *state;
    const json_t *e = get(d, "/v1/experiments/%s", sphere)->json;
    const json_t *p = apply(d, "predict", sphere, "{'split':'test'}")->json;
    assert_string_equal(text_at(p, "/source"), "classifier");
    assert_true(number_at(p, "/accuracy") == number_at(e, "/result/accuracy"));
    assert_int_equal(json_array_size(at(p, "/classes")), 100);
    p = apply(d, "predict", encoder, "{'dataset':{'name':'images'},'split':'train'}")->json;
    assert_string_equal(text_at(p, "/source"), "probe");
    assert_json(p, "/accuracy", "null");
    assert_json(p, "/class_names", "null");
    assert_int_equal(json_array_size(at(p, "/probabilities/299")), 10);
}

static void test_names_of_classes(void **state) {
    struct daemon *d = *state;
    static const char table[] = "x,y,kind\n1,2,rose\n2,1,daisy\n1,3,rose\n3,1,daisy\n2,5,rose\n";
    for (int i = 0; i < 2; i++)
        assert_status(
            put(d, text("/v1/datasets/flowers/%s?format=csv&label=kind", i ? "test" : "train"),
                table, sizeof table - 1),
            201);
    char *id = submit(d, "{'dataset':{'name':'flowers'},'model':{'kind':'mlp','hidden':[4]},"
                         "'training':{'epochs':2}}");
    wait_for(d, id, "succeeded");
    const json_t *p = apply(d, "predict", id, "{'samples':[[1,2],[3,1]]}")->json;
    assert_json(p, "/class_names", "['daisy','rose']");
    const struct answer *a = get(d, "/v1/experiments/%s/model", id);
    json_t *head = json_loadb(a->body + 8, *(const uint64_t *)(const void *)a->body, 0, NULL);
    assert_string_equal(text_at(head, "/__metadata__/class_names"), "[\"daisy\",\"rose\"]");
    assert_string_equal(text_at(head, "/__metadata__/kind"), "mlp");
    json_decref(head);
    assert_problem(get(d, "/v1/experiments/%s/filters.png", id), 422, "no-images", "image shape");
    free(id);
}

static void test_before_success(void **state) {
    struct daemon *d = *state;
    char *id = submit(d, "{'dataset':{'generator':'sphere'},'model':{'kind':'mlp','hidden':[8]},"
                         "'training':{'epochs':100000}}");
    wait_for_epoch(d, id, 1);
    assert_problem(apply(d, "encode", id, "{'split':'test'}"), 409, "conflict", "running");
    assert_problem(get(d, "/v1/experiments/%s/model", id), 404, "not-found", "running");
    assert_problem(get(d, "/v1/experiments/%s/filters.png", id), 404, "not-found", "running");
    assert_status(post(d, text("/v1/experiments/%s/cancel", id), NULL), 202);
    wait_for(d, id, "cancelled");
    free(id);
}

static void test_model_and_filters(void **state) {
    struct daemon *d = *state;
    const struct answer *a = get(d, "/v1/experiments/%s/model?format=safetensors", encoder);
    assert_status(a, 200);
    assert_non_null(strstr(header(a, "Content-Disposition"), text("%s.safetensors", encoder)));
    const char *etag = text("If-None-Match: %s", header(a, "ETag"));
    const struct call again = {
        .method = "GET", .path = text("/v1/experiments/%s/model", encoder), .headers = {etag}};
    assert_status(call(d, &again), 304);
    assert_problem(get(d, "/v1/experiments/%s/model?format=onnx", encoder), 422, "invalid-query",
                   "safetensors");
    a = get(d, "/v1/experiments/%s/filters.png?units=3:13", encoder);
    assert_status(a, 200);
    assert_string_equal(header(a, "Content-Type"), "image/png");
    assert_int_equal(memcmp(a->body, "\x89PNG", 4), 0);
    assert_int_equal((unsigned char)a->body[19], 4 * 33 - 1); /* 4 images across */
    assert_int_equal((unsigned char)a->body[23], 3 * 33 - 1);
    assert_problem(get(d, "/v1/experiments/%s/filters.png?units=0:41", encoder), 422,
                   "invalid-query", "<= 40");
    assert_problem(get(d, "/v1/experiments/%s/filters.png", identity), 422, "no-images", "weights");
    assert_problem(get(d, "/v1/experiments/%s/filters.png", sphere), 422, "no-images", "shape");
}

/* Two models that do not fit into the cache together, used by two at once, give what they give. */
static void *use_model(void *arg) {
    char command[512], line[128] = "";
    const char *build = getenv("OVRD_TEST_BUILD");
    snprintf(command, sizeof command,
             "for i in 1 2 3 4 5 6 7 8 9 10; do %s/ovrctl --host %s encode %s test --format npy | "
             "sha256sum; done | sort | uniq -c",
             build ? build : "build", ((char **)arg)[0], ((char **)arg)[1]);
    FILE *pipe = popen(command, "r");
    size_t n = fread(line, 1, sizeof line - 1, pipe);
    line[n] = '\0';
    pclose(pipe);
    return strdup(line);
}

static void test_many_users(void **state) {
    struct daemon *d = *state;
    char *jobs[][2] = {{d->url, encoder}, {d->url, bare}, {d->url, encoder}};
    pthread_t threads[COUNT(jobs)];
    void *said[COUNT(jobs)];
    for (size_t i = 0; i < COUNT(jobs); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, use_model, jobs[i]), 0);
    for (size_t i = 0; i < COUNT(jobs); i++) {
        pthread_join(threads[i], &said[i]);
        assert_int_equal(atoi(said[i]), 10); /* all ten alike */
    }
    assert_string_equal(said[0], said[2]);
    assert_string_not_equal(said[0], said[1]);
    for (size_t i = 0; i < COUNT(jobs); i++)
        free(said[i]);
}

static void ovrctl(const struct daemon *d, int expected, const char *arguments, const char *part) {
    char output[4096];
    const char *build = getenv("OVRD_TEST_BUILD");
    FILE *pipe =
        popen(text("%s/ovrctl --host %s %s 2>&1", build ? build : "build", d->url, arguments), "r");
    size_t n = fread(output, 1, sizeof output - 1, pipe);
    output[n] = '\0';
    while (fgetc(pipe) != EOF) {
    }
    int status = pclose(pipe);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != expected || !strstr(output, part))
        fail_msg("ovrctl %s: status %d\n%s", arguments, status, output);
}

static void test_ovrctl(void **state) {
    struct daemon *d = *state;
    char file[96], in[96];
    snprintf(file, sizeof file, "%s/out", d->dir);
    snprintf(in, sizeof in, "%s/in.json", d->dir);
    FILE *samples = fopen(in, "w");
    fputs("{\"samples\":[[0.6,0,0.8]]}", samples);
    fclose(samples);
    ovrctl(d, 0, text("encode %s %s", sphere, in), "\"units\":20,\"codes\":[[");
    ovrctl(d, 0, text("predict %s - < %s", sphere, in), "\"classes\":[");
    ovrctl(d, 0, text("predict %s test --json", sphere), "\"probabilities\":[[");
    ovrctl(d, 0, text("encode %s test -o %s.npy", sphere, file), "");
    ovrctl(d, 3, text("encode %s %s.npy", identity, file), "3072 values"); /* codes are no images */
    ovrctl(d, 3, text("encode %s %s", encoder, in), "3072 values");
    ovrctl(d, 2, text("encode %s %s.nothing", sphere, file), "cannot read");
    ovrctl(d, 2, text("encode %s test --format csv", sphere), "json or npy");
    ovrctl(d, 0, text("model %s -o %s.safetensors", encoder, file), "");
    ovrctl(d, 0, text("filters %s --rows 0:4 -o %s.png", encoder, file), "");
    const struct answer *model = get(d, "/v1/experiments/%s/model", encoder);
    FILE *saved = fopen(text("%s.safetensors", file), "r");
    assert_non_null(saved);
    fseek(saved, 0, SEEK_END);
    assert_int_equal(ftell(saved), model->size);
    fclose(saved);
}

/* What requests take together has a limit: an eighth of --memory, here 1 MiB. */
static void test_memory(void **state) {
    (void)state;
    struct daemon *d = daemon_new((const char *const[]){"--memory", "8M", NULL});
    char *id = submit(d, "{'dataset':{'generator':'sphere','samples':50},'model':{'kind':'mlp',"
                         "'hidden':[4]},'training':{'epochs':1,'threads':1}}");
    wait_for(d, id, "succeeded");
    assert_status(apply(d, "encode", id, "{'samples':[[1,2,3]]}"), 200);
    enum { N = 20000 };
    char *many = malloc(N * 8 + 32), *end = many;
    assert_non_null(many);
    end += sprintf(end, "{\"samples\":[[1,2,3]");
    for (int i = 0; i < N; i++)
        end += sprintf(end, ",[1,2,3]");
    sprintf(end, "]}");
    assert_problem(apply(d, "encode", id, many), 422, "too-large", "--memory");
    assert_status(apply(d, "encode", id, "{'samples':[[1,2,3]]}"), 200); /* all was given back */
    free(many);
    free(id);
    daemon_free(d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_bodies),     cmocka_unit_test(test_memory),
        cmocka_unit_test(test_arrays),         cmocka_unit_test(test_bodies_that_are_too_large),
        cmocka_unit_test(test_predictions),    cmocka_unit_test(test_names_of_classes),
        cmocka_unit_test(test_before_success), cmocka_unit_test(test_model_and_filters),
        cmocka_unit_test(test_many_users),     cmocka_unit_test(test_ovrctl),
    };
    return cmocka_run_group_tests_name("api/apply", tests, set_up, tear_down);
}
