/* Data sets in every format from upload to result, what the API shows of them, and the
 * preprocessing that goes with them. */
#include "tests/api/daemon.h"

#include <math.h>
#include <stdio.h>
#include <zlib.h>

enum { SIDE = 4, VALUES = SIDE * SIDE, CLASSES = 4 };

/* Sample i: its class is a bright row of the image. */
static uint8_t pixel(size_t i, size_t j) {
    size_t class = i % CLASSES;
    return (uint8_t)(j / SIDE == class ? 200 + (i * 7 + j) % 50 : (i * 13 + j * 5) % 60);
}

struct bytes {
    uint8_t *data;
    size_t n;
};

static struct bytes make_bytes(size_t room) {
    struct bytes b = {calloc(1, room), 0};
    assert_non_null(b.data);
    return b;
}

static void add(struct bytes *b, const void *bytes, size_t n) {
    memcpy(b->data + b->n, bytes, n);
    b->n += n;
}

static const char *const names[] = {"north", "east", "south", "west"};

/* Class names, which sort to east, north, south, west; or numbers. */
static struct bytes make_csv(size_t n, int named) {
    struct bytes b = make_bytes(n * VALUES * 4 + n * 16 + 400);
    for (size_t j = 0; j < VALUES; j++)
        b.n += (size_t)sprintf((char *)b.data + b.n, "p%zu;", j);
    b.n += (size_t)sprintf((char *)b.data + b.n, "class\r\n");
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < VALUES; j++)
            b.n += (size_t)sprintf((char *)b.data + b.n, "%u;", pixel(i, j));
        if (named)
            b.n += (size_t)sprintf((char *)b.data + b.n, "\"%s\"\r\n", names[i % CLASSES]);
        else
            b.n += (size_t)sprintf((char *)b.data + b.n, "%zu\r\n", i % CLASSES);
    }
    return b;
}

static struct bytes make_idx(size_t n, int labels) {
    struct bytes b = make_bytes(16 + n * VALUES);
    const uint8_t head[16] = {
        0, 0, 8, labels ? 1 : 3, 0, 0, (uint8_t)(n >> 8), (uint8_t)n, 0, 0, 0, SIDE, 0, 0, 0, SIDE};
    add(&b, head, labels ? 8 : 16);
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < (labels ? 1 : VALUES); j++)
            b.data[b.n++] = labels ? (uint8_t)(i % CLASSES) : pixel(i, j);
    return b;
}

/* float32, or int64 labels. */
static struct bytes make_npy(size_t n, int labels) {
    struct bytes b = make_bytes(128 + n * VALUES * 8);
    memcpy(b.data, "\x93NUMPY\x01\x00\x76\x00", 10);
    b.n = 10;
    b.n +=
        (size_t)sprintf((char *)b.data + 10,
                        labels ? "{'descr': '<i8', 'fortran_order': False, 'shape': (%zu,), }"
                               : "{'descr': '<f4', 'fortran_order': False, 'shape': (%zu, 4, 4), }",
                        n);
    memset(b.data + b.n, ' ', 127 - b.n);
    b.data[127] = '\n';
    b.n = 128;
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < (labels ? 1 : VALUES); j++) {
            int64_t label = (int64_t)(i % CLASSES);
            float value = pixel(i, j);
            add(&b, labels ? (void *)&label : (void *)&value, labels ? 8 : 4);
        }
    return b;
}

static struct bytes gzip(struct bytes plain) {
    struct bytes b = make_bytes(plain.n + 1000);
    z_stream z = {.next_in = plain.data, .avail_in = (unsigned)plain.n, .next_out = b.data};
    z.avail_out = (unsigned)plain.n + 1000;
    assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, MAX_WBITS + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    b.n = (size_t)z.total_out;
    deflateEnd(&z);
    free(plain.data);
    return b;
}

/* Uploads and frees. */
static const struct answer *send(struct daemon *d, const char *path, struct bytes b) {
    const struct answer *a = put(d, path, b.data, b.n);
    free(b.data);
    return a;
}

static void send_named(struct daemon *d, const char *name, size_t n_train, size_t n_test) {
    const char *train = text("/v1/datasets/%s/train?format=csv&label=class", name);
    const char *test = text("/v1/datasets/%s/test?format=csv&label=last", name);
    assert_status(send(d, train, make_csv(n_train, 1)), 201);
    assert_status(send(d, test, make_csv(n_test, 1)), 201);
}

static double accuracy_of(struct daemon *d, const char *name, const char *more) {
    char *id = submit(d,
                      "{'dataset':{'name':'%s'},'preprocess':['standardize'],'model':{'kind':'mlp',"
                      "'hidden':[16]},'optimizer':{'learning_rate':0.02},'training':{'epochs':8,"
                      "'batch_size':16}%s}",
                      name, more);
    double accuracy = number_at(wait_for(d, id, "succeeded")->json, "/result/accuracy");
    free(id);
    return accuracy;
}

static void test_a_table(void **state) {
    struct daemon *d = *state;
    const struct answer *a =
        send(d, "/v1/datasets/table/train?format=csv&label=class", make_csv(200, 1));
    assert_status(a, 201);
    assert_json(a->json, "/format", "'csv'");
    assert_json(a->json, "/shape", "[16]");
    assert_json(a->json, "/image", "null");
    assert_int_equal(number_at(a->json, "/classes"), 4);
    const char *version = text("%s", text_at(a->json, "/sha256"));
    a = send(d, "/v1/datasets/table/train?format=csv&label=16&header=true", gzip(make_csv(200, 1)));
    assert_status(a, 200); /* the same samples */
    assert_string_equal(text_at(a->json, "/sha256"), version);
    assert_status(send(d, "/v1/datasets/table/test?format=csv&label=last", make_csv(41, 1)), 201);
    a = get(d, "/v1/datasets/table?features=2:4");
    assert_json(a->json, "/summary/train/classes",
                "[{'name':'east','samples':50},{'name':'north','samples':50},"
                "{'name':'south','samples':50},{'name':'west','samples':50}]");
    assert_int_equal(number_at(a->json, "/summary/test/classes/1/samples"), 11);
    assert_json(a->json, "/summary/train/features/1/name", "'p3'");
    double sum = 0, squares = 0;
    for (size_t i = 0; i < 200; i++) {
        sum += pixel(i, 3);
        squares += pixel(i, 3) * pixel(i, 3);
    }
    assert_true(fabs(number_at(a->json, "/summary/train/features/1/mean") - sum / 200) < 1e-9);
    assert_true(fabs(number_at(a->json, "/summary/train/features/1/sd") -
                     sqrt(squares / 200 - sum * sum / 40000)) < 1e-9);
    assert_true(accuracy_of(d, "table", "") > 0.95);
}

/* The same samples as a table of numbers, IDX and NPY are the same version. */
static void test_the_same_from_arrays(void **state) {
    struct daemon *d = *state;
    const struct answer *a =
        send(d, "/v1/datasets/idx/train/features?format=idx", gzip(make_idx(200, 0)));
    assert_status(a, 201);
    assert_json(a->json, "/missing", "'labels'");
    assert_int_equal(number_at(a->json, "/samples"), 200);
    assert_status(send(d, "/v1/datasets/idx/train/features?format=idx", make_idx(200, 0)), 200);
    a = get(d, "/v1/datasets/idx");
    assert_status(a, 200);
    assert_json(a->json, "/splits", "{}");
    assert_json(a->json, "/waiting/0/part", "'features'");
    assert_problem(send(d, "/v1/datasets/idx/train/labels?format=idx", make_idx(199, 1)), 422,
                   "invalid-dataset", "labels of 199 samples");
    a = send(d, "/v1/datasets/idx/train/labels?format=idx", make_idx(200, 1));
    assert_status(a, 201);
    assert_json(a->json, "/shape", "[1,4,4]");
    assert_json(a->json, "/image", "{'channels':1,'height':4,'width':4}");
    const char *version = text("%s", text_at(a->json, "/sha256"));
    assert_status(send(d, "/v1/datasets/npy/train/labels?format=npy", make_npy(200, 1)), 201);
    a = send(d, "/v1/datasets/npy/train/features?format=npy", make_npy(200, 0));
    assert_status(a, 201);
    assert_string_equal(text_at(a->json, "/sha256"), version);
    assert_status(send(d, "/v1/datasets/idx/test/labels?format=npy", make_npy(40, 1)), 201);
    assert_status(send(d, "/v1/datasets/idx/test/features?format=npy", make_npy(40, 0)), 201);
    assert_status(send(d, "/v1/datasets/npy/test/labels?format=idx", gzip(make_idx(40, 1))), 201);
    assert_status(send(d, "/v1/datasets/npy/test/features?format=idx", make_idx(40, 0)), 201);
    double idx = accuracy_of(d, "idx", ""), npy = accuracy_of(d, "npy", "");
    assert_true(idx > 0.95 && idx == npy);
}

static void test_gzip_of_records(void **state) {
    struct daemon *d = *state;
    uint8_t *records = make_records(9, 3);
    struct bytes plain = make_bytes(9 * RECORD);
    add(&plain, records, 9 * RECORD);
    const struct answer *a =
        put(d, "/v1/datasets/records/train?format=cifar10", records, 9 * RECORD);
    const char *version = text("%s", text_at(a->json, "/sha256"));
    assert_string_equal(text_at(a->json, "/source_sha256"), version);
    a = send(d, "/v1/datasets/records/train?format=cifar10", gzip(plain));
    assert_status(a, 200);
    assert_string_equal(text_at(a->json, "/sha256"), version);
    assert_json(a->json, "/shape", "[3,32,32]");
    free(records);
}

/* Content-Digest is about the bytes on the wire: those of the gzip stream. */
static void test_content_digest_of_gzip(void **state) {
    struct daemon *d = *state;
    /* printf '1,2,0\n3,4,1\n' | gzip -9n, and openssl dgst -sha256 -binary | base64 of it */
    static const uint8_t packed[] = {0x1f, 0x8b, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00,
                                     0x02, 0x03, 0x33, 0xd4, 0x31, 0xd2, 0x31, 0xe0,
                                     0x32, 0xd6, 0x31, 0xd1, 0x31, 0xe4, 0x02, 0x00,
                                     0x4d, 0x07, 0xe8, 0xbf, 0x0c, 0x00, 0x00, 0x00};
    struct call upload = {
        .method = "PUT",
        .path = "/v1/datasets/digest/train?format=csv&label=last",
        .headers = {"Content-Digest: sha-256=:bOzE/YjiFoc4IH/DJxl7xvccaoyHtJK/Sv3nVOVaoSU=:"},
        .body = packed,
        .size = sizeof packed};
    assert_status(call(d, &upload), 201);
    upload.headers[0] = "Content-Digest: sha-256=:aIGpYg68oVlsFUz7ofI/hNDpEH6w8gu0HiC2jg3PT5I=:";
    assert_problem(call(d, &upload), 422, "invalid-dataset", "send the file again");
}

static void test_bombs(void **state) {
    (void)state;
    struct daemon *d = daemon_new((const char *const[]){"--max-upload", "100000", NULL});
    enum { ROWS = 700000 };
    struct bytes bomb = make_bytes(6 * ROWS);
    for (size_t i = 0; i < ROWS; i++)
        add(&bomb, "1,2,0\n", 6);
    bomb = gzip(bomb);
    assert_true(bomb.n < 50000);
    const struct answer *a =
        put(d, "/v1/datasets/bomb/train?format=csv&label=last", bomb.data, bomb.n);
    assert_problem(a, 413, "too-large", "unpacked these are more than 100000 bytes");
    assert_int_equal(count_files(d, "/datasets"), 0);
    a = put(d, "/v1/datasets/bomb/train?format=csv&label=last", bomb.data, bomb.n / 2);
    assert_problem(a, 413, "too-large", "unpacked");
    free(bomb.data);
    assert_problem(get(d, "/v1/datasets/bomb"), 404, "not-found", "bomb");
    struct bytes cut = gzip(make_csv(20, 1));
    a = put(d, "/v1/datasets/cut/train?format=csv&label=last", cut.data, cut.n - 5);
    assert_problem(a, 422, "invalid-dataset", "the gzip stream is cut off");
    free(cut.data);
    daemon_free(d);
}

static void test_refusals(void **state) {
    struct daemon *d = *state;
    static const struct {
        const char *path, *slug, *part, *body;
    } cases[] = {
        {"bad/train?format=csv", "invalid-query", "csv needs label=", "1,2,0\n"},
        {"bad/train?format=xml", "invalid-query", "there is no format xml", "1,2,0\n"},
        {"bad/train?format=npy", "invalid-query", "send two", "1,2,0\n"},
        {"bad/train/features?format=csv", "invalid-query", "in one file", "1,2,0\n"},
        {"bad/train?format=csv&label=last&header=maybe", "invalid-query", "header must", "1,2,0\n"},
        {"bad/train?format=cifar10&label=last", "invalid-query", "are for format=csv", ""},
        {"bad/train?format=csv&label=last", "invalid-dataset",
         "line 2, column 2: \"x\" is not a finite number", "1,2,0\n3,x,1\n"},
        {"bad/train?format=csv&label=last", "invalid-dataset", "line 2, column 1: \"nan\"",
         "1,2,0\nnan,4,1\n"},
        {"bad/train?format=csv&label=species", "invalid-dataset", "no column \"species\"",
         "a,b,c\n1,2,3\n"},
        {"bad/train/features?format=npy", "invalid-dataset", "not an NPY file", "1,2,0,4,5,6,7\n"},
        {"bad/train/labels?format=idx", "invalid-dataset", "ends within its header", "\n"},
    };
    int files = count_files(d, "/datasets");
    for (size_t i = 0; i < COUNT(cases); i++)
        assert_problem(
            put(d, text("/v1/datasets/%s", cases[i].path), cases[i].body, strlen(cases[i].body)),
            422, cases[i].slug, cases[i].part);
    assert_problem(get(d, "/v1/datasets/bad"), 404, "not-found", "bad");
    assert_int_equal(count_files(d, "/datasets"), files);
}

static void test_previews(void **state) {
    struct daemon *d = *state;
    send_named(d, "seen", 30, 12);
    const struct answer *a = get(d, "/v1/datasets/seen/preview");
    assert_json(a->json, "/rows", "[0,10]");
    assert_json(a->json, "/label_names/0", "'north'");
    assert_json(a->json, "/labels/0", "1"); /* north, by name the second */
    for (size_t i = 0; i < 10; i++)
        for (size_t j = 0; j < VALUES; j++)
            assert_int_equal(number_at(a->json, text("/values/%zu/%zu", i, j)), pixel(i, j));
    a = get(d, "/v1/datasets/seen/preview?split=test&rows=3:5&features=1:3");
    assert_json(a->json, "/feature_names", "['p1','p2']");
    assert_int_equal(json_array_size(at(a->json, "/values")), 2);
    assert_int_equal(number_at(a->json, "/values/1/1"), pixel(4, 2));
    static const char *const bad[] = {"rows=0:31",     "rows=5:5",    "rows=-1:3", "rows=1",
                                      "features=0:17", "split=valid", "format=gif"};
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_problem(get(d, "/v1/datasets/seen/preview?%s", bad[i]), 422, "invalid-query",
                       "must");
    assert_problem(get(d, "/v1/datasets/seen/preview?format=png"), 422, "invalid-query",
                   "no image shape");
    assert_problem(get(d, "/v1/datasets/unseen/preview"), 404, "not-found", "unseen");
    assert_status(send(d, "/v1/datasets/tiles/train/features?format=idx", make_idx(30, 0)), 201);
    assert_status(send(d, "/v1/datasets/tiles/train/labels?format=idx", make_idx(30, 1)), 201);
    a = get(d, "/v1/datasets/tiles/preview?format=png&rows=0:10");
    assert_status(a, 200);
    assert_string_equal(header(a, "Content-Type"), "image/png");
    /* Four across, three down, a pixel between them; 8 bits of gray. */
    static const uint8_t start[] = {0x89, 'P', 'N', 'G', 13, 10, 26, 10, 0, 0, 0,  13, 'I',
                                    'H',  'D', 'R', 0,   0,  0,  19, 0,  0, 0, 14, 8,  0};
    assert_true(a->size > sizeof start);
    assert_memory_equal(a->body, start, sizeof start);
}

static void test_removal(void **state) {
    (void)state;
    struct daemon *d = daemon_new((const char *const[]){"--workers", "1", NULL});
    static const char spec[] = "{'dataset':{'name':'gone'%s},'model':{'kind':'mlp','hidden':[8]},'"
                               "training':{'epochs':%d}}";
    const struct call removal = {.method = "DELETE", .path = "/v1/datasets/gone"};
    send_named(d, "gone", 60, 20);
    char *done = submit(d, spec, "", 2);
    const json_t *result = wait_for(d, done, "succeeded")->json;
    char *running = submit(d, spec, "", 100000);
    assert_problem(call(d, &removal), 409, "conflict", running);
    assert_status(post(d, text("/v1/experiments/%s/cancel", running), NULL), 202);
    assert_status(send(d, "/v1/datasets/gone/train?format=csv&label=last", make_csv(64, 1)), 201);
    assert_status(call(d, &removal), 204);
    assert_problem(call(d, &removal), 404, "not-found", "gone");
    assert_problem(get(d, "/v1/datasets/gone"), 404, "not-found", "gone");
    assert_json(get(d, "/v1/datasets")->json, "/datasets", "[]");
    assert_int_equal(count_files(d, "/datasets"), 2); /* of the 3 versions those of the result */
    const struct answer *a = post(
        d, "/v1/experiments", "{'dataset':{'name':'gone'},'model':{'kind':'mlp','hidden':[8]}}");
    assert_fault(a, "/dataset/name", "has no train split");
    /* Whoever names the version, as a rerun does, still gets it. */
    char *again = submit(d, spec,
                         text(",'version':{'train':'%s','test':'%s'}",
                              text_at(result, "/spec/dataset/version/train"),
                              text_at(result, "/spec/dataset/version/test")),
                         2);
    assert_string_equal(
        text_at(wait_for(d, again, "succeeded")->json, "/provenance/weights/best_sha256"),
        text_at(result, "/provenance/weights/best_sha256"));
    free(done), free(running), free(again);
    daemon_free(d);
}

static void test_faults_of_the_data(void **state) {
    struct daemon *d = *state;
    static const char spec[] = "{'dataset':{'name':'odd'%s},'model':{'kind':'mlp','hidden':[8]}%s}";
    static const char other[] = "1,2,3\n4,5,x\n";
    send_named(d, "odd", 40, 8);
    assert_fault(post(d, "/v1/experiments", text(spec, ",'only_classes':[4]", "")),
                 "/dataset/only_classes", "no sample of a split");
    assert_fault(
        post(d, "/v1/experiments", text(spec, ",'only_classes':[1,2],'train_limit':21", "")),
        "/dataset/train_limit", "the split has only 20 samples");
    assert_fault(post(d, "/v1/experiments",
                      text(spec, "",
                           ",'preprocess':['contrast','zca']"
                           ",'training':{'validation':0.7}")),
                 "/preprocess", "zca needs at least as many");
    assert_fault(
        post(d, "/v1/experiments", text(spec, "", ",'preprocess':[{'experiment':'abcdefghijkl'}]")),
        "/preprocess/0/experiment", "there is no experiment abcdefghijkl");
    assert_fault(post(d, "/v1/experiments",
                      text(spec, "", ",'preprocess':['contrast',{'experiment':'abcdefghijkl'}]")),
                 "/preprocess/1/experiment", "must be the first step");
    assert_fault(
        post(d, "/v1/experiments", text(spec, "", ",'preprocess':[{'scale':{'min':1,'max':1}}]")),
        "/preprocess/0/scale", "min must be below max");
    assert_status(put(d, "/v1/datasets/odd/test?format=csv&label=last", other, strlen(other)), 201);
    assert_fault(post(d, "/v1/experiments", text(spec, "", "")), "/dataset/name",
                 "16 values, its test samples 2");
    struct bytes unknown = make_csv(9, 1);
    memcpy(strstr((char *)unknown.data, "south"), "dunno", 5);
    assert_status(send(d, "/v1/datasets/odd/test?format=csv&label=last", unknown), 201);
    assert_fault(post(d, "/v1/experiments", text(spec, "", "")), "/dataset/name",
                 "of class \"dunno\", which the training split does not know");
    /* A name of which only a part is told, cut inside a character. */
    char cut[400] = "p0,class\n1,x";
    for (int i = 0; i < 60; i++)
        strcat(cut, "é");
    strcat(cut, "\n");
    assert_status(
        put(d, "/v1/datasets/cut/train?format=csv&label=last", "p0,class\n1,y\n2,z\n", 17), 201);
    assert_status(put(d, "/v1/datasets/cut/test?format=csv&label=last", cut, strlen(cut)), 201);
    assert_fault(post(d, "/v1/experiments",
                      "{'dataset':{'name':'cut'},'model':{'kind':'mlp','hidden':[8]}}"),
                 "/dataset/name", "é?\", which the training split does not know");
}

static void test_only_some_classes(void **state) {
    struct daemon *d = *state;
    send_named(d, "some", 200, 40);
    char *id =
        submit(d, "{'dataset':{'name':'some','only_classes':[3,1],'train_limit':90},'model':{"
                  "'kind':'mlp','hidden':[8]},'preprocess':['standardize'],'optimizer':{"
                  "'learning_rate':0.02},'training':{'epochs':8,'batch_size':8}}");
    const struct answer *a = wait_for(d, id, "succeeded");
    assert_true(number_at(a->json, "/result/accuracy") > 0.95);
    assert_json(a->json, "/spec/dataset/only_classes", "[3,1]");
    free(id);
    id = submit(d, "{'dataset':{'generator':'sphere','samples':500,'only_classes':[0,5]},'model':{"
                   "'kind':'mlp','hidden':[8]},'training':{'epochs':2}}");
    wait_for(d, id, "succeeded");
    free(id);
}

static const json_t *tensor(struct daemon *d, const char *id, const char *name) {
    return at(get(d, "/v1/experiments/%s/weights/%s", id, name)->json, "/data");
}

/* An experiment goes on with the steps of another: on other data the same tensors, not new ones;
 * and a third one with those of the second. */
static void test_steps_of_an_experiment(void **state) {
    struct daemon *d = *state;
    static const char spec[] =
        "{'dataset':{'name':'%s'},'preprocess':[%s],'model':{'kind':'ovr_encoder','hidden':[6]},"
        "'training':{'epochs':2},'probe':null}";
    send_named(d, "first", 200, 40);
    send_named(d, "second", 120, 24);
    char *first = submit(d, spec, "first",
                         "{'contrast':{'epsilon':3}},'scale',{'pca':{'components':5}},"
                         "{'zca':{'epsilon':0.2}}");
    wait_for(d, first, "succeeded");
    char *second = submit(d, spec, "second", text("{'experiment':'%s'},{'scale':0.5}", first));
    wait_for(d, second, "succeeded");
    char *third = submit(d, spec, "second", text("{'experiment':'%s'}", second));
    wait_for(d, third, "succeeded");
    static const char *const tensors[] = {"preprocess.0.epsilon",    "preprocess.1.mean",
                                          "preprocess.1.scale",      "preprocess.2.mean",
                                          "preprocess.2.components", "preprocess.3.components"};
    for (size_t i = 0; i < COUNT(tensors); i++) {
        assert_true(json_equal(tensor(d, first, tensors[i]), tensor(d, second, tensors[i])));
        assert_true(json_equal(tensor(d, first, tensors[i]), tensor(d, third, tensors[i])));
    }
    assert_json(tensor(d, second, "preprocess.4.scale"), "/0", "0.5");
    assert_json(tensor(d, third, "preprocess.4.scale"), "/4", "0.5");
    assert_json(tensor(d, first, "preprocess.0.epsilon"), "", "[3]");
    /* Samples of another width. */
    assert_fault(post(d, "/v1/experiments",
                      text("{'dataset':{'generator':'sphere'},'model':{'kind':'mlp','hidden':[4]},"
                           "'preprocess':[{'experiment':'%s'}]}",
                           third)),
                 "/preprocess/0/experiment", "for 16 values a sample, here come 3");
    free(first), free(second), free(third);
}

/* Every step under both protocols. */
static void test_steps_and_protocols(void **state) {
    struct daemon *d = *state;
    static const char *const protocols[] = {"clean", "published"};
    send_named(d, "steps", 200, 40);
    for (size_t i = 0; i < COUNT(protocols); i++) {
        char *id =
            submit(d,
                   "{'dataset':{'name':'steps','train_limit':180},'preprocess':[{'scale':0.01},"
                   "{'contrast':{'epsilon':0.1}},{'zca':{'epsilon':0.05}},{'scale':{'min':-1,"
                   "'max':1,'per_feature':true}},'standardize',{'pca':{'variance':0.999,"
                   "'whiten':true}}],'model':{'kind':'mlp','hidden':[16]},'optimizer':{"
                   "'learning_rate':0.02},'training':{'epochs':10,'batch_size':16,"
                   "'protocol':'%s'}}",
                   protocols[i]);
        const struct answer *a = wait_for(d, id, "succeeded");
        assert_true(number_at(a->json, "/result/accuracy") > 0.9);
        free(id);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_table),
        cmocka_unit_test(test_the_same_from_arrays),
        cmocka_unit_test(test_gzip_of_records),
        cmocka_unit_test(test_content_digest_of_gzip),
        cmocka_unit_test(test_bombs),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_previews),
        cmocka_unit_test(test_removal),
        cmocka_unit_test(test_faults_of_the_data),
        cmocka_unit_test(test_only_some_classes),
        cmocka_unit_test(test_steps_of_an_experiment),
        cmocka_unit_test(test_steps_and_protocols),
    };
    return cmocka_run_group_tests_name("formats", tests, with_daemon, without_daemon);
}
