/* POST /v1/experiments: what is taken, what is refused, and what is said about it. */
#include "tests/api/daemon.h"

#include <math.h>
#include <stdio.h>

/* No test here needs training, so one experiment keeps the only worker busy. */
static int set_up(void **state) {
    struct daemon *d =
        daemon_new((const char *const[]){"--workers", "1", "--memory", "192M", NULL});
    *state = d;
    upload_images(d, "images", 50, 10, 1);
    char *id = submit(d, "{'name':'blocker','dataset':{'generator':'sphere'},'model':{'kind':'mlp',"
                         "'hidden':[64]},'training':{'epochs':100000,'threads':1}}");
    wait_for(d, id, "running");
    free(id);
    return 0;
}

static size_t count_experiments(struct daemon *d) {
    return json_array_size(at(get(d, "/v1/experiments?limit=500")->json, "/experiments"));
}

static const struct answer *post_spec(struct daemon *d, const char *spec) {
    return post(d, "/v1/experiments", spec);
}

static const struct answer *post_with(struct daemon *d, const char *header1, const char *header2,
                                      const char *body) {
    return call(d, &(struct call){.method = "POST",
                                  .path = "/v1/experiments",
                                  .headers = {header1, header2},
                                  .body = body});
}

#define MODEL "'model':{'kind':'mlp','hidden':[8]}"
#define SPHERE "'dataset':{'generator':'sphere'}"
#define IMAGES "'dataset':{'name':'images'}"
#define VALID "{\"dataset\":{\"generator\":\"sphere\"},\"model\":{\"kind\":\"mlp\",\"hidden\":[8]}}"
#define JSON_TYPE "Content-Type: application/json"

static void test_the_minimum_is_enough(void **state) {
    struct daemon *d = *state;
    const struct answer *a = post_spec(d, "{" SPHERE "," MODEL "}");
    assert_status(a, 202);
    const char *id = text_at(a->json, "/id");
    assert_string_equal(header(a, "Location"), text("/v1/experiments/%s", id));
    assert_string_equal(text_at(a->json, "/links/self"), header(a, "Location"));
    assert_string_equal(text_at(a->json, "/state"), "queued");
    assert_json(a->json, "/attempts", "0");
    assert_json(a->json, "/started_at", "null");
    assert_null(at(a->json, "/warnings"));
    assert_json(a->json, "/queue/position", "1");
    assert_non_null(
        strstr(text_at(a->json, "/queue/reason"), "1st in line; 1 of 1 worker is busy"));
    assert_string_equal(text_at(a->json, "/queue/reason_code"), "workers");
    const struct answer *second = post_spec(d, "{" SPHERE "," MODEL "}");
    assert_json(second->json, "/queue/position", "2");
    assert_non_null(strstr(text_at(second->json, "/queue/reason"), "2nd in line; "));
    const struct answer *again = get(d, "%s", header(a, "Location"));
    assert_status(again, 200);
    assert_true(json_equal(at(again->json, "/spec"), at(a->json, "/spec")));
    assert_string_equal(text_at(again->json, "/id"), id);
}

static void test_the_stored_spec_is_complete(void **state) {
    struct daemon *d = *state;
    const struct answer *a = post_spec(d, "{" SPHERE ",'model':{'kind':'mlp','hidden':[8]}}");
    assert_json(a->json, "/spec",
                "{'name':'untitled','tags':[],'priority':0,'private':false,'notes':'','dataset':{'"
                "generator':"
                "'sphere','samples':5000,'test_samples':1000,'latitudes':4,'sectors':5,'classes':"
                "10,'seed':1,'only_classes':null},'preprocess':[],'model':{'kind':'mlp','hidden':["
                "8],'activation':"
                "'relu','dropout':0,'freeze':0,'init':'glorot'},'loss':{'ovr':null,'activity':null,"
                "'l2':0},'optimizer':{'name':"
                "'adam','learning_rate':0.001,'beta1':0.9,'beta2':0.999,'epsilon':1e-7},'training':"
                "{'epochs':35,'batch_size':128,'batching':'random','only_classes':null,'seed':1,'"
                "schedule':{'plateau':{'factor':0.1,"
                "'patience':5,'min':1e-6,'min_delta':1e-4}},'early_stopping':null,'protocol':"
                "'clean','validation':0.1,'threads':'auto','executor':'auto','ranks':'auto','time_"
                "limit_seconds':"
                "null},'probe':"
                "null}");
    a = post_spec(d, "{" IMAGES ",'model':{'kind':'ovr_encoder','hidden':[8]},'preprocess':["
                     "'standardize',{'pca':{'components':3}}],'training':{'schedule':'constant'}}");
    assert_status(a, 202);
    assert_json(
        a->json, "/spec/loss",
        "{'ovr':{'lambda':5e-5,'form':'cosine','layers':null},'activity':{'target':0.5},'l2':0}");
    assert_json(a->json, "/spec/probe",
                "{'kind':'logistic_regression','epochs':100,'batch_size':32,'learning_rate':5e-5}");
    assert_json(a->json, "/spec/model/init", "{'normal':0.05}");
    assert_json(a->json, "/spec/training/schedule", "'constant'");
    assert_json(a->json, "/spec/preprocess",
                "[{'standardize':true},{'pca':{'components':3,'whiten':false}}]");
    const json_t *splits = get(d, "/v1/datasets/images")->json;
    assert_string_equal(text_at(a->json, "/spec/dataset/version/train"),
                        text_at(splits, "/splits/train/sha256"));
    assert_string_equal(text_at(a->json, "/spec/dataset/version/test"),
                        text_at(splits, "/splits/test/sha256"));
    /* It says exactly what runs: posted again it comes out the same. */
    char *spec = json_dumps(at(a->json, "/spec"), JSON_COMPACT);
    const struct answer *again = post_spec(d, spec);
    free(spec);
    assert_status(again, 202);
    assert_true(json_equal(at(again->json, "/spec"), at(a->json, "/spec")));
}

static size_t n_faults(const struct answer *a) {
    return json_array_size(at(a->json, "/errors"));
}

static void test_all_faults_at_once(void **state) {
    struct daemon *d = *state;
    size_t before = count_experiments(d);
    const struct answer *a = post_spec(
        d, "{'dataset':{'generator':'sphere','samples':-5,'sectors':1e300,'seed':1.5,'bands':3},"
           "'model':{'kind':'mlp','hidden':[8,0.5],'activation':'softmax'},"
           "'loss':{'ovr':{'lambda':1e-4,'lambda_per_pair':0.5}},"
           "'optimizer':{'name':'adam','learning_rate':0},"
           "'training':{'epochs':'many','batch_size':null,'threads':'all','schedule':{'linear':{}},"
           "'validation':0.95},"
           "'preprocess':[{'standardize':false},{'pca':{}},{'whiten':true}],"
           "'tags':['a',7],'name':3,'probe':true,'a/b~c':1,'priority':101}");
    assert_problem(a, 422, "invalid-spec", "errors");
    assert_fault(a, "/dataset/samples", "must be an integer 1..10000000, got -5");
    assert_fault(a, "/dataset/sectors", "got 1e+300");
    assert_fault(a, "/dataset/seed", "got 1.5");
    assert_fault(a, "/dataset/bands", "it knows generator, samples");
    assert_fault(a, "/model/hidden/1", "got 0.5");
    assert_fault(a, "/model/activation", "\"top_k\", got \"softmax\"");
    assert_fault(a, "/loss/ovr/lambda", "either lambda or lambda_per_pair");
    assert_fault(a, "/loss/ovr/lambda_per_pair", "either lambda_per_pair or lambda");
    assert_fault(a, "/optimizer/learning_rate", "above 0");
    assert_fault(a, "/training/epochs", "got \"many\"");
    assert_fault(a, "/training/batch_size", "got null");
    assert_fault(a, "/training/threads", "\"auto\" or an integer 1..256");
    assert_fault(a, "/training/schedule", "\"constant\", \"plateau\", \"step\", \"cosine\"");
    assert_fault(a, "/training/validation", "at most 0.9");
    assert_fault(a, "/preprocess/0/standardize", "must be true");
    assert_fault(a, "/preprocess/1", "components or variance");
    assert_fault(a, "/preprocess/2", "\"standardize\", \"pca\"");
    assert_fault(a, "/tags", "strings of 1..64 characters");
    assert_fault(a, "/name", "must be a string");
    assert_fault(a, "/probe", "must be an object or null, got true or false");
    assert_fault(a, "/a~1b~0c", "not a member");
    assert_fault(a, "/priority", "-100..100, got 101");
    assert_int_equal(n_faults(a), 22);
    assert_int_equal(count_experiments(d), before);
}

static void test_pointers_are_rfc_6901(void **state) {
    struct daemon *d = *state;
    static const char *const names[] = {"a/b", "m~n", "~1",    "/", "~",
                                        "",    " ",   "naïve", "*", "//~~"};
    for (size_t i = 0; i < COUNT(names); i++) {
        char pointer[64] = "/training/";
        size_t n = strlen(pointer);
        for (const char *c = names[i]; *c; c++)
            n += (size_t)sprintf(pointer + n, *c == '~' ? "~0" : *c == '/' ? "~1" : "%c", *c);
        json_t *spec = parse("{" SPHERE "," MODEL ",'training':{}}");
        json_object_set_new(at(spec, "/training"), names[i], json_true());
        char *body = json_dumps(spec, 0);
        const struct answer *a = post_spec(d, body);
        free(body);
        assert_fault(a, pointer, "not a member of this section");
        assert_true(json_is_true(at(spec, pointer))); /* it leads to the member */
        assert_int_equal(n_faults(a), 1);
        json_decref(spec);
    }
}

static void test_long_names_of_members(void **state) {
    struct daemon *d = *state;
    char name[5001];
    for (size_t i = 0; i + 2 < sizeof name; i += 2)
        memcpy(name + i, "é", 2);
    name[sizeof name - 1] = '\0';
    json_t *spec = parse("{" SPHERE "," MODEL "}");
    json_object_set_new(spec, name, json_true());
    char *body = json_dumps(spec, 0);
    const struct answer *a = post_spec(d, body);
    assert_problem(a, 422, "invalid-spec", "");
    assert_int_equal(n_faults(a), 1);
    free(body);
    json_decref(spec);
}

static void test_what_is_missing(void **state) {
    struct daemon *d = *state;
    const struct answer *a = post_spec(d, "{}");
    assert_problem(a, 422, "invalid-spec", "");
    assert_fault(a, "/dataset", "is required");
    assert_fault(a, "/model", "is required");
    assert_int_equal(n_faults(a), 2);
    a = post_spec(d, "{'dataset':{},'model':{}}");
    assert_fault(a, "/dataset/name", "is required");
    assert_fault(a, "/model/kind", "is required");
    assert_fault(a, "/model/hidden", "is required");
    assert_int_equal(n_faults(a), 3);
    a = post_spec(d, "{'dataset':null,'model':'mlp'}");
    assert_fault(a, "/dataset", "got null");
    assert_fault(a, "/model", "must be an object, got a string");
    assert_int_equal(n_faults(a), 2);
}

static void test_a_spec_is_an_object(void **state) {
    static const char *const bodies[] = {"[]", "null", "true", "\"x\"", "3", "[{}]"};
    for (size_t i = 0; i < COUNT(bodies); i++) {
        const struct answer *a = post_spec(*state, bodies[i]);
        /* A bare value is either no JSON text for the parser or no spec. */
        if (a->status == 400)
            assert_problem(a, 400, "malformed-json", "line 1");
        else
            assert_fault(a, "", "a spec is an object");
    }
    assert_problem(post_spec(*state, "[]"), 422, "invalid-spec", "");
}

static void test_malformed_json_names_line_and_column(void **state) {
    struct daemon *d = *state;
    const struct answer *a = post_spec(d, "{\n  \"name\": \"x\",\n  \"model\": }\n");
    assert_problem(a, 400, "malformed-json", "line 3, column ");
    assert_int_equal(number_at(a->json, "/line"), 3);
    assert_int_equal(number_at(a->json, "/column"), 12);
    a = post_spec(d, "{\"a\": 1}\n x");
    assert_problem(a, 400, "malformed-json", "line 2");
    assert_problem(post_spec(d, "{\"name\": NaN}"), 400, "malformed-json", "line 1");
    assert_problem(post_spec(d, "{\"name\": 1e999}"), 400, "malformed-json", "line 1");
    assert_problem(post_spec(d, "{\"name\": \"\xff\xfe\"}"), 400, "malformed-json", "line 1");
    assert_problem(post_spec(d, "{\"name\": \"cut"), 400, "malformed-json", "line 1");
    assert_problem(post_spec(d, "{\"seed\": 99999999999999999999999}"), 400, "malformed-json",
                   "line 1");
    a = call(d, &(struct call){.method = "POST",
                               .path = "/v1/experiments",
                               .headers = {JSON_TYPE},
                               .body = "{\"a\":\n\0}",
                               .size = 8});
    assert_problem(a, 400, "malformed-json", "NUL");
    assert_int_equal(number_at(a->json, "/line"), 2);
}

static void test_duplicate_members(void **state) {
    assert_problem(post_spec(*state, "{\"name\":\"a\",\"name\":\"b\"}"), 400, "malformed-json",
                   "duplicate");
    assert_problem(post_spec(*state, "{\"model\":{\"kind\":\"mlp\",\"kind\":\"mlp\"}}"), 400,
                   "malformed-json", "duplicate");
}

static void test_deep_nesting(void **state) {
    enum { DEPTH = 100000 };
    char *deep = malloc(2 * DEPTH + 1);
    memset(deep, '[', DEPTH);
    memset(deep + DEPTH, ']', DEPTH);
    deep[2 * DEPTH] = '\0';
    assert_problem(post_spec(*state, deep), 400, "malformed-json", "depth");
    free(deep);
    assert_status(get(*state, "/healthz"), 200);
}

static void test_empty_bodies(void **state) {
    assert_problem(post_with(*state, NULL, NULL, NULL), 400, "malformed-json", "empty");
    assert_problem(post_with(*state, JSON_TYPE, NULL, " \n"), 400, "malformed-json", "empty");
}

static void test_content_types(void **state) {
    struct daemon *d = *state;
    static const char *const wrong[] = {"text/plain", "application/x-www-form-urlencoded",
                                        "application/jsonp", "application/octet-stream",
                                        "multipart/form-data; boundary=application/json"};
    static const char *const right[] = {"application/json", "application/json; charset=utf-8",
                                        "Application/JSON"};
    for (size_t i = 0; i < COUNT(wrong); i++)
        assert_problem(post_with(d, text("Content-Type: %s", wrong[i]), NULL, VALID), 415,
                       "unsupported-media-type", "application/json");
    for (size_t i = 0; i < COUNT(right); i++)
        assert_status(post_with(d, text("Content-Type: %s", right[i]), NULL, VALID), 202);
}

static void test_bodies_over_the_limit(void **state) {
    struct daemon *d = *state;
    size_t n = (1 << 20) + 1, before = count_experiments(d);
    char *body = malloc(n);
    memset(body, ' ', n);
    memcpy(body, VALID, sizeof VALID - 1);
    struct call over = {.method = "POST",
                        .path = "/v1/experiments",
                        .headers = {JSON_TYPE},
                        .body = body,
                        .size = n};
    assert_problem(call(d, &over), 413, "too-large", "1048576 bytes");
    over.chunked = 1;
    assert_problem(call(d, &over), 413, "too-large", "1048576 bytes");
    assert_int_equal(count_experiments(d), before);
    over.size = n - 1; /* the limit itself is allowed */
    assert_status(call(d, &over), 202);
    over.chunked = 0;
    assert_status(call(d, &over), 202);
    free(body);
}

static void test_a_limit_of_ones_own(void **state) {
    (void)state;
    struct daemon *d = daemon_new((const char *const[]){"--max-body", "2048", NULL});
    char body[2100];
    memset(body, ' ', sizeof body);
    memcpy(body, "{}", 2);
    struct call c = {.method = "POST",
                     .path = "/v1/experiments",
                     .headers = {JSON_TYPE},
                     .body = body,
                     .size = sizeof body};
    assert_problem(call(d, &c), 413, "too-large", "2048");
    c.size = 2048;
    assert_problem(call(d, &c), 422, "invalid-spec", "");
    daemon_free(d);
}

static void test_what_cannot_fit_into_memory(void **state) {
    struct daemon *d = *state;
    const struct answer *a =
        post_spec(d, "{" SPHERE ",'model':{'kind':'ovr_encoder','hidden':[65536]}}");
    assert_problem(a, 422, "invalid-spec", "");
    assert_fault(a, "", "this daemon may use 0.19 GiB");
    assert_fault(a, "", "/model/hidden");
    a = post(d, "/v1/experiments?dry_run=true",
             "{" SPHERE ",'model':{'kind':'ovr_encoder','hidden':[65536]}}");
    assert_fault(a, "", "--memory");
    assert_status(post(d, "/v1/experiments?dry_run=true", "{" SPHERE "," MODEL "}"), 200);
}

static void test_data_that_is_not_there(void **state) {
    struct daemon *d = *state;
    const struct answer *a = post_spec(d, "{'dataset':{'name':'nothing'}," MODEL "}");
    assert_problem(a, 422, "invalid-spec", "");
    assert_fault(a, "/dataset/name", "nothing has no train split");
    assert_fault(a, "/dataset/name", "PUT /v1/datasets/nothing/train");
    uint8_t *records = make_records(3, 9);
    assert_status(put(d, "/v1/datasets/half/train?format=cifar10", records, 3 * RECORD), 201);
    free(records);
    a = post_spec(d, "{'dataset':{'name':'half'}," MODEL "}");
    assert_fault(a, "/dataset/name", "half has no test split");
    assert_int_equal(n_faults(a), 1);
    char version[65];
    memset(version, 'a', 64);
    version[64] = '\0';
    a = post_spec(d, text("{'dataset':{'name':'images','version':{'train':'%s','test':'%s'}}," MODEL
                          "}",
                          version, version));
    assert_fault(a, "/dataset/version", "of version aaaa");
    a = post_spec(
        d, text("{'dataset':{'name':'images','version':{'train':'%s'}}," MODEL "}", version));
    assert_fault(a, "/dataset/version/test", "is required");
    assert_fault(post_spec(d, "{'dataset':{'name':'images','version':{'train':'../../etc/passwd',"
                              "'test':'x'}}," MODEL "}"),
                 "/dataset/version/train", "64 lower-case hex digits");
}

static void test_limits_and_components_go_by_the_data(void **state) {
    struct daemon *d = *state;
    const struct answer *a =
        post_spec(d, "{'dataset':{'name':'images','train_limit':51,'test_limit':11}," MODEL "}");
    assert_fault(a, "/dataset/train_limit", "is 51, but the split has only 50 samples");
    assert_fault(a, "/dataset/test_limit", "is 11, but the split has only 10 samples");
    assert_int_equal(n_faults(a), 2);
    assert_status(
        post_spec(d, "{'dataset':{'name':'images','train_limit':50,'test_limit':10}," MODEL "}"),
        202);
    a = post_spec(d, "{" SPHERE "," MODEL ",'preprocess':[{'pca':{'components':4}}]}");
    assert_fault(a, "/preprocess/0/pca/components", "must be 1..3");
    /* 5 of 50 are held out: 45 are left to fit on. */
    a = post_spec(d,
                  "{" IMAGES "," MODEL ",'preprocess':['standardize',{'pca':{'components':46}}]}");
    assert_fault(a, "/preprocess/1/pca/components", "must be 1..45");
    assert_status(post_spec(d, "{" IMAGES "," MODEL ",'preprocess':[{'pca':{'components':45}}]}"),
                  202);
    a = post_spec(d, "{" IMAGES "," MODEL ",'preprocess':[{'pca':{'components':5}},{'pca':{"
                     "'components':6}}]}");
    assert_fault(a, "/preprocess/1/pca/components", "must be 1..5");
    a = post_spec(d, "{'dataset':{'generator':'sphere','samples':1}," MODEL "}");
    assert_fault(a, "/training/validation", "none is left");
}

static void test_dry_run_stores_nothing(void **state) {
    struct daemon *d = *state;
    size_t before = count_experiments(d);
    const struct answer *a = post(d, "/v1/experiments?dry_run=true",
                                  "{" SPHERE ",'model':{'kind':'mlp','hidden':[100]}}");
    assert_status(a, 200);
    assert_null(header(a, "Location"));
    assert_json(a->json, "/valid", "true");
    assert_int_equal(number_at(a->json, "/estimate/parameters"), 100 * (3 + 1) + 10 * (100 + 1));
    assert_true(number_at(a->json, "/estimate/memory_bytes") > 1e5);
    assert_true(number_at(a->json, "/estimate/flops_per_epoch") > 1e6);
    assert_true(number_at(a->json, "/estimate/seconds") > 0);
    assert_fault(post(d, "/v1/experiments?dry_run=true", "{'model':{}}"), "/dataset", "required");
    assert_int_equal(count_experiments(d), before);
    assert_status(post(d, "/v1/experiments?dry_run=false", "{" SPHERE "," MODEL "}"), 202);
    assert_int_equal(count_experiments(d), before + 1);
    assert_problem(post(d, "/v1/experiments?dry_run=maybe", "{" SPHERE "," MODEL "}"), 422,
                   "invalid-query", "dry_run");
    assert_problem(post(d, "/v1/experiments?dryrun=true", "{" SPHERE "," MODEL "}"), 422,
                   "invalid-query", "known are: dry_run");
    /* A dry run takes no idempotency key. */
    const char *key = "Idempotency-Key: dry";
    assert_status(call(d, &(struct call){.method = "POST",
                                         .path = "/v1/experiments?dry_run=true",
                                         .headers = {key, JSON_TYPE},
                                         .body = VALID}),
                  200);
    assert_status(post_with(d, key, JSON_TYPE, VALID), 202);
}

static void test_the_raw_form_is_warned_of(void **state) {
    struct daemon *d = *state;
    static const char raw_form[] =
        "{" SPHERE ",'model':{'kind':'ovr_encoder','hidden':[64]},'loss':{'ovr':{'lambda':1e-4,"
        "'form':'raw'}}}";
    const struct answer *a = post(d, "/v1/experiments?dry_run=true", raw_form);
    assert_status(a, 200);
    assert_string_equal(text_at(a->json, "/warnings/0/pointer"), "/loss/ovr/lambda");
    a = post_spec(d, raw_form);
    assert_status(a, 202);
    assert_non_null(strstr(text_at(a->json, "/warnings/0/detail"), "collapses"));
}

static void test_idempotency_keys(void **state) {
    struct daemon *d = *state;
    const char *key = "Idempotency-Key: 8d1f-2";
    const struct answer *first = post_with(d, key, JSON_TYPE, VALID);
    assert_status(first, 202);
    size_t before = count_experiments(d);
    const struct answer *again = post_with(d, key, JSON_TYPE, VALID);
    assert_status(again, 202);
    assert_string_equal(text_at(again->json, "/id"), text_at(first->json, "/id"));
    assert_string_equal(header(again, "Location"), header(first, "Location"));
    assert_problem(post_with(d, key, JSON_TYPE, VALID " "), 422, "idempotency",
                   text_at(first->json, "/id"));
    assert_int_equal(count_experiments(d), before);
    const struct answer *other = post_with(d, "Idempotency-Key: 8d1f-3", JSON_TYPE, VALID);
    assert_status(other, 202);
    assert_string_not_equal(text_at(other->json, "/id"), text_at(first->json, "/id"));
    /* What was refused is not remembered. */
    assert_status(post_with(d, "Idempotency-Key: k", JSON_TYPE, "{}"), 422);
    assert_status(post_with(d, "Idempotency-Key: k", JSON_TYPE, VALID), 202);
    char longest[300] = "Idempotency-Key: ";
    memset(longest + strlen(longest), 'k', 255);
    assert_status(post_with(d, longest, JSON_TYPE, VALID), 202);
    strcat(longest, "k");
    assert_problem(post_with(d, longest, JSON_TYPE, VALID), 422, "invalid-request", "1..255");
    assert_problem(post_with(d, "Idempotency-Key;", JSON_TYPE, VALID), 422, "invalid-request",
                   "1..255");
}

static void test_members_that_belong_elsewhere(void **state) {
    struct daemon *d = *state;
    /* What goes with another kind of data set is refused. */
    const struct answer *a =
        post_spec(d, "{'dataset':{'name':'images','samples':5,'sectors':2}," MODEL "}");
    assert_fault(a, "/dataset/samples", "goes with a generated data set");
    assert_fault(a, "/dataset/sectors", "remove it");
    a = post_spec(d,
                  "{'dataset':{'generator':'sphere','name':'images','train_limit':5}," MODEL "}");
    assert_fault(a, "/dataset/name", "goes with a stored data set");
    assert_fault(a, "/dataset/train_limit", "remove it");
    /* Shared sections take what another optimizer uses, and drop it. */
    a = post_spec(d,
                  "{" SPHERE "," MODEL ",'optimizer':{'name':'sgd','momentum':0.9,'beta1':0.5}}");
    assert_status(a, 202);
    assert_json(a->json, "/spec/optimizer",
                "{'name':'sgd','learning_rate':0.001,'momentum':0.9,'nesterov':false}");
    a = post_spec(d, "{" SPHERE "," MODEL ",'optimizer':{'momentum':0.9}}");
    assert_status(a, 202);
    assert_null(at(a->json, "/spec/optimizer/momentum"));
}

/* Names, notes and tags come back as they were sent, whatever is in them. */
static void test_texts_survive(void **state) {
    struct daemon *d = *state;
    static const char spec[] =
        "{\"dataset\":{\"generator\":\"sphere\"},\"model\":{\"kind\":\"mlp\",\"hidden\":[8]},"
        "\"name\":\"\\\"'; DROP TABLE experiment;-- \\u00e9\\ud83d\\ude00\","
        "\"notes\":\"two\\nlines\\t\",\"tags\":[\"a b\",\"%&#=\",\"λ\"]}";
    const struct answer *a = post_spec(d, spec);
    assert_status(a, 202);
    a = get(d, "/v1/experiments/%s", text_at(a->json, "/id"));
    assert_string_equal(text_at(a->json, "/name"), "\"'; DROP TABLE experiment;-- é😀");
    assert_string_equal(text_at(a->json, "/spec/notes"), "two\nlines\t");
    assert_json(a->json, "/tags", "['a b','%&#=','λ']");
    assert_problem(post_spec(d, "{\"name\":\"a\\u0000b\"}"), 400, "malformed-json", "u0000");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_minimum_is_enough),
        cmocka_unit_test(test_the_stored_spec_is_complete),
        cmocka_unit_test(test_all_faults_at_once),
        cmocka_unit_test(test_pointers_are_rfc_6901),
        cmocka_unit_test(test_long_names_of_members),
        cmocka_unit_test(test_what_is_missing),
        cmocka_unit_test(test_a_spec_is_an_object),
        cmocka_unit_test(test_malformed_json_names_line_and_column),
        cmocka_unit_test(test_duplicate_members),
        cmocka_unit_test(test_deep_nesting),
        cmocka_unit_test(test_empty_bodies),
        cmocka_unit_test(test_content_types),
        cmocka_unit_test(test_bodies_over_the_limit),
        cmocka_unit_test(test_a_limit_of_ones_own),
        cmocka_unit_test(test_what_cannot_fit_into_memory),
        cmocka_unit_test(test_data_that_is_not_there),
        cmocka_unit_test(test_limits_and_components_go_by_the_data),
        cmocka_unit_test(test_dry_run_stores_nothing),
        cmocka_unit_test(test_the_raw_form_is_warned_of),
        cmocka_unit_test(test_idempotency_keys),
        cmocka_unit_test(test_members_that_belong_elsewhere),
        cmocka_unit_test(test_texts_survive),
    };
    return cmocka_run_group_tests_name("submit", tests, set_up, without_daemon);
}
