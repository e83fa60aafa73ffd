/* The spec codec, by tables: spec/fields.json has good and bad values of every field, valid.json
 * what specs become, invalid.json the faults of others.
 *
 * A case is a whole `spec`, or `set`: values by pointer, put into the spec that `base` names. */
#include "server/spec.h"
#include "tests/api/contract.h"
#include "tests/server/check.h"

#include <jansson.h>

static const struct {
    const char *name, *text;
} bases[] = {
    {"encoder", "{'dataset':{'generator':'sphere'},'model':{'kind':'ovr_encoder','hidden':[10]}}"},
    {"stored", "{'dataset':{'name':'cifar10'},'model':{'kind':'ovr_encoder','hidden':[10]}}"},
    {"mlp", "{'dataset':{'name':'cifar10'},'model':{'kind':'mlp','hidden':[10]}}"},
    {"sgd", "{'dataset':{'generator':'sphere'},'model':{'kind':'mlp','hidden':[10]},"
            "'optimizer':{'name':'sgd'}}"},
    {"adamw", "{'dataset':{'generator':'sphere'},'model':{'kind':'mlp','hidden':[10]},"
              "'optimizer':{'name':'adamw'}}"},
    {"rmsprop", "{'dataset':{'generator':'sphere'},'model':{'kind':'mlp','hidden':[10]},"
                "'optimizer':{'name':'rmsprop'}}"},
    {"pca", "{'dataset':{'generator':'sphere'},'model':{'kind':'mlp','hidden':[10]},"
            "'preprocess':[{'pca':{'components':2}}]}"},
    {"deep", "{'dataset':{'generator':'sphere'},'model':{'kind':'mlp','hidden':[10,20,30]}}"},
    {"deep-encoder",
     "{'dataset':{'generator':'sphere'},'model':{'kind':'ovr_encoder','hidden':[10,20,30]}}"},
    {"autoencoder",
     "{'dataset':{'generator':'sphere'},'model':{'kind':'autoencoder','hidden':[10]}}"},
    {"sigmoid", "{'dataset':{'generator':'sphere'},'model':{'kind':'autoencoder','hidden':[10],"
                "'activation':'sigmoid'}}"},
    {"kmeans", "{'dataset':{'generator':'sphere'},'model':{'kind':'kmeans','hidden':[10]}}"},
    {"components", "{'dataset':{'generator':'sphere'},'model':{'kind':'pca','hidden':[3]}}"},
    {"projection",
     "{'dataset':{'generator':'sphere'},'model':{'kind':'random_projection','hidden':[10]}}"},
    {"identity", "{'dataset':{'generator':'sphere'},'model':{'kind':'identity'}}"},
    {"pinned", "{'dataset':{'name':'cifar10','version':{"
               "'train':'0000000000000000000000000000000000000000000000000000000000000000',"
               "'test':'1111111111111111111111111111111111111111111111111111111111111111'}},"
               "'model':{'kind':'ovr_encoder','hidden':[10]}}"},
};

/* JSON with ' for ". */
static json_t *parse(const char *text) {
    char *copy = strdup(text);
    json_error_t error;
    assert_non_null(copy);
    for (char *c = copy; *c; c++)
        if (*c == '\'')
            *c = '"';
    json_t *json = json_loads(copy, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, &error);
    if (!json)
        print_error("%s\n%s\n", copy, error.text);
    assert_non_null(json);
    free(copy);
    return json;
}

static json_t *new_base(const char *name) {
    for (size_t i = 0; i < COUNT(bases); i++)
        if (strcmp(bases[i].name, name) == 0)
            return parse(bases[i].text);
    fail_msg("there is no base %s", name);
    return NULL;
}

/* For free(), whatever jansson's own free() is. */
static char *dump(const json_t *json) {
    size_t flags = JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(15);
    size_t n = json_dumpb(json, NULL, 0, flags);
    char *text = calloc(1, n + 1);
    assert_true(n > 0 && text);
    assert_int_equal(json_dumpb(json, text, n, flags), n);
    return text;
}

static json_t *step_into(json_t *json, const char *name) {
    return json_is_array(json) ? json_array_get(json, (size_t)atoi(name))
                               : json_object_get(json, name);
}

/* The value at a pointer without escapes, or NULL. */
static json_t *at(json_t *json, const char *pointer) {
    char copy[256], *rest, *name;
    snprintf(copy, sizeof copy, "%s", pointer);
    for (name = strtok_r(copy, "/", &rest); name; name = strtok_r(NULL, "/", &rest))
        json = step_into(json, name);
    return json;
}

/* Puts a value there; objects and arrays on the way are made, and replace what is neither. */
static void put(json_t *json, const char *pointer, json_t *value) {
    char copy[256], *rest, *name, *next;
    snprintf(copy, sizeof copy, "%s", pointer);
    name = strtok_r(copy, "/", &rest);
    for (; (next = strtok_r(NULL, "/", &rest)); name = next) {
        json_t *inner = step_into(json, name);
        if (!json_is_object(inner) && !json_is_array(inner)) {
            inner = *next >= '0' && *next <= '9' ? json_array() : json_object();
            if (json_is_array(json))
                json_array_append_new(json, inner);
            else
                json_object_set_new(json, name, inner);
        }
        json = inner;
    }
    if (!json_is_array(json))
        json_object_set(json, name, value);
    else if (step_into(json, name))
        json_array_set(json, (size_t)atoi(name), value);
    else
        json_array_append(json, value);
}

/* {"times": n, "of": text} is a long string. */
static json_t *spelt_out(json_t *value) {
    json_int_t times = json_integer_value(json_object_get(value, "times"));
    const char *of = json_string_value(json_object_get(value, "of"));
    if (!of)
        return json_incref(value);
    char *text = calloc((size_t)times, strlen(of) + 1);
    assert_non_null(text);
    for (json_int_t i = 0; i < times; i++)
        memcpy(text + (size_t)i * strlen(of), of, strlen(of));
    json_t *string = json_string(text);
    free(text);
    return string;
}

static json_t *cases(const char *name) {
    char path[96];
    size_t n;
    snprintf(path, sizeof path, "tests/server/spec/%s", name);
    json_error_t error;
    char *text = read_whole(path, &n);
    json_t *list = json_loadb(text, n, JSON_REJECT_DUPLICATES, &error);
    if (!list)
        fail_msg("%s:%d: %s", path, error.line, error.text);
    free(text);
    return list;
}

static json_t *posted(json_t *this_case) {
    json_t *whole = json_object_get(this_case, "spec"), *value;
    const char *pointer, *base = json_string_value(json_object_get(this_case, "base"));
    json_t *document = whole ? json_deep_copy(whole) : new_base(base);
    json_object_foreach(json_object_get(this_case, "set"), pointer, value)
        put(document, pointer, value);
    return document;
}

static void print_faults(const char *what, const json_t *document, const json_t *faults) {
    char *a = dump(document), *b = dump(faults);
    print_error("%s\n  spec   %s\n  faults %s\n", what, a, b);
    free(a);
    free(b);
}

/* Two bit-equal structs; they hold no pointers. */
static void assert_same_spec(const struct spec *a, const struct spec *b) {
    assert_memory_equal(a, b, sizeof *a);
}

/* A completed spec is complete: read again, also from text, nothing changes. */
static void check_again(json_t *document, const struct spec *spec) {
    struct spec again;
    struct ovr_err err = {0};
    json_t *faults = json_array();
    char *before = dump(document);
    assert_ok(spec_read(document, &again, faults, &err), &err);
    char *after = dump(document);
    assert_string_equal(after, before);
    assert_same_spec(&again, spec);
    assert_ok(spec_read_stored(before, &again, &err), &err);
    assert_same_spec(&again, spec);
    free(before);
    free(after);
    json_decref(faults);
}

/* Completes the document. */
static struct spec read_valid(const char *what, json_t *document) {
    struct spec spec;
    struct ovr_err err = {0};
    json_t *faults = json_array();
    int rc = spec_read(document, &spec, faults, &err);
    if (rc || json_array_size(faults))
        print_faults(what, document, faults);
    assert_ok(rc, &err);
    assert_false(spec_has_faults(faults));
    json_decref(faults);
    check_again(document, &spec);
    return spec;
}

static struct spec read_text(const char *text) {
    json_t *document = parse(text);
    struct spec spec = read_valid(text, document);
    json_decref(document);
    return spec;
}

/* `expected` is {pointer: part of its detail}; all of them and no others have to be there. */
static void check_faults(const char *what, json_t *document, json_t *expected) {
    struct spec spec;
    struct ovr_err err = {0};
    json_t *faults = json_array(), *fault, *copy = json_deep_copy(document);
    size_t i, wrong = 0;
    int rc = spec_read(document, &spec, faults, &err);
    json_array_foreach(faults, i, fault) {
        const char *pointer = json_string_value(json_object_get(fault, "pointer"));
        const char *detail = json_string_value(json_object_get(fault, "detail"));
        const char *part = json_string_value(json_object_get(expected, pointer ? pointer : "?"));
        wrong += !detail || !part || !strstr(detail, part);
    }
    if (wrong || rc != OVR_INVALID || json_array_size(faults) != json_object_size(expected)) {
        print_faults(what, copy, faults);
        fail();
    }
    assert_true(spec_has_faults(faults));
    assert_int_equal(err.code, OVR_INVALID);
    json_decref(faults);
    json_decref(copy);
}

static int same_value(const json_t *a, const json_t *b) {
    return json_is_number(a) && json_is_number(b) ? json_number_value(a) == json_number_value(b)
                                                  : json_equal(a, b);
}

static void values_of_every_field(void **state) {
    (void)state;
    json_t *list = cases("fields.json"), *field, *value;
    size_t i, j;
    json_array_foreach(list, i, field) {
        const char *pointer = json_string_value(json_object_get(field, "at"));
        const char *base = json_string_value(json_object_get(field, "base"));
        json_array_foreach(json_object_get(field, "good"), j, value) {
            json_t *document = new_base(base), *long_value = spelt_out(value);
            put(document, pointer, long_value);
            read_valid(pointer, document);
            json_t *stored = at(document, pointer);
            if (!same_value(stored, long_value) &&
                !(json_is_null(value) && strcmp(pointer, "/dataset/test_samples") == 0))
                fail_msg("%s was stored as another value (good %zu)", pointer, j);
            if (json_object_get(field, "whole") && json_is_number(value))
                assert_true(json_is_integer(stored));
            json_decref(document);
            json_decref(long_value);
        }
        json_array_foreach(json_object_get(field, "bad"), j, value) {
            json_t *document = new_base(base), *long_value = spelt_out(value);
            put(document, pointer, long_value);
            struct spec spec;
            json_t *faults = json_array(), *copy = json_deep_copy(document);
            int rc = spec_read(document, &spec, faults, NULL);
            const char *found =
                json_string_value(json_object_get(json_array_get(faults, 0), "pointer"));
            if (rc != OVR_INVALID || json_array_size(faults) != 1 || !found ||
                strncmp(found, pointer, strlen(pointer))) {
                print_faults(pointer, copy, faults);
                fail();
            }
            json_decref(faults);
            json_decref(copy);
            json_decref(document);
            json_decref(long_value);
        }
    }
    assert_in_range(json_array_size(list), 80, 120); /* the table's fields */
    json_decref(list);
}

static json_t *find_case(json_t *list, const char *what) {
    size_t i;
    json_t *this_case;
    json_array_foreach(list, i,
                       this_case) if (strcmp(json_string_value(json_object_get(this_case, "what")),
                                             what) == 0) return this_case;
    fail_msg("there is no case \"%s\"", what);
    return NULL;
}

/* The same text: order counts. */
static void assert_same_text(const char *what, const json_t *a, const json_t *b) {
    char *text = dump(a), *expected = dump(b);
    if (strcmp(text, expected))
        fail_msg("%s:\n  %s\nis not\n  %s", what, text, expected);
    free(text);
    free(expected);
}

static void what_specs_become(void **state) {
    (void)state;
    json_t *list = cases("valid.json"), *this_case, *value;
    size_t i;
    const char *pointer;
    json_array_foreach(list, i, this_case) {
        const char *what = json_string_value(json_object_get(this_case, "what"));
        const char *other = json_string_value(json_object_get(this_case, "same_as"));
        json_t *stored = json_object_get(other ? find_case(list, other) : this_case, "stored");
        json_t *document = posted(this_case);
        read_valid(what, document);
        if (stored)
            assert_same_text(what, document, stored);
        json_object_foreach(json_object_get(this_case, "becomes"), pointer, value)
            assert_same_text(what, at(document, pointer), value);
        json_decref(document);
    }
    json_decref(list);
}

static void faults_of_invalid_specs(void **state) {
    (void)state;
    json_t *list = cases("invalid.json"), *this_case;
    size_t i;
    json_array_foreach(list, i, this_case) {
        json_t *document = posted(this_case);
        check_faults(json_string_value(json_object_get(this_case, "what")), document,
                     json_object_get(this_case, "faults"));
        json_decref(document);
    }
    json_decref(list);
}

/* What no schema of this kind can say: how values hang together. */
static int is_beyond_schemas(const char *what) {
    static const char *const cases[] = {
        "an experiment's steps behind others",
        "a range of nothing",
        "pca of nothing",
        "a warm-up of all epochs",
        "a cosine that rises",
        "two that imply different ones",
        "kl of what is no share",
        "nothing left to train",
        "more frozen than there are",
        "ovr of a layer that is not there",
        "too few shares",
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (strcmp(cases[i], what) == 0)
            return 1;
    return 0;
}

static void check_schema(json_t *schema, const char *file, int expected) {
    json_t *list = cases(file), *this_case;
    size_t i;
    json_array_foreach(list, i, this_case) {
        const char *what = json_string_value(json_object_get(this_case, "what"));
        json_t *document = posted(this_case);
        struct check check = {.contract = schema};
        int fitting = fits(&check, schema, document, "");
        if (fitting != (expected || is_beyond_schemas(what)))
            fail_msg("%s: by the schema it is %s: %s", what, fitting ? "valid" : "invalid",
                     check.fault);
        json_decref(document);
    }
    json_decref(list);
}

static void the_schema_says_the_same(void **state) {
    (void)state;
    json_t *schema = spec_schema();
    assert_non_null(schema);
    check_schema(schema, "valid.json", 1);
    check_schema(schema, "invalid.json", 0);
    json_decref(schema);
}

/* "x-when" of the member, compact; "" where it has none. */
static void assert_when(const json_t *schema, const char *section, const char *name,
                        const char *expected) {
    const json_t *member = json_object_get(schema, "properties");
    if (*section)
        member = json_object_get(json_object_get(member, section), "properties");
    member = json_object_get(member, name);
    assert_non_null(member);
    char *text = json_dumps(json_object_get(member, "x-when"), JSON_COMPACT | JSON_SORT_KEYS);
    assert_string_equal(text ? text : "", expected);
    free(text);
}

static void the_schema_says_who_uses_a_field(void **state) {
    (void)state;
    json_t *schema = spec_schema();
    assert_non_null(schema);
    assert_when(schema, "", "name", "");
    assert_when(schema, "", "optimizer",
                "{\"/model/kind\":[\"ovr_encoder\",\"mlp\",\"autoencoder\"]}");
    assert_when(schema, "dataset", "train_limit", "{\"/dataset/generator\":[null]}");
    assert_when(schema, "dataset", "sectors", "{\"/dataset/generator\":[\"sphere\"]}");
    assert_when(schema, "model", "corruption", "{\"/model/kind\":[\"autoencoder\"]}");
    assert_when(schema, "model", "slope",
                "{\"/model/activation\":[\"leaky_relu\"],\"/model/kind\":[\"ovr_encoder\",\"mlp\","
                "\"autoencoder\",\"random_projection\"]}");
    assert_when(schema, "optimizer", "nesterov", "{\"/optimizer/name\":[\"sgd\"]}");
    json_decref(schema);
}

static void the_struct_of_an_encoder(void **state) {
    (void)state;
    struct spec s = read_text(
        "{'name':'né','tags':['a','b c'],'priority':-7,"
        "'dataset':{'generator':'sphere','samples':100,'test_samples':30,'latitudes':2,"
        "'sectors':3,'classes':4,'seed':9007199254740991},"
        "'preprocess':['standardize',{'pca':{'components':2,'whiten':true}},"
        "{'pca':{'variance':0.5}}],"
        "'model':{'kind':'ovr_encoder','hidden':[300],'init':'he'},"
        "'loss':{'ovr':{'lambda_per_pair':0.25,'form':'raw'},'activity':{'target':0.75}},"
        "'optimizer':{'name':'sgd','learning_rate':0.5,'momentum':0.9,'nesterov':true},"
        "'training':{'epochs':3,'batch_size':16,'seed':77,'schedule':{'plateau':{'factor':0.5,"
        "'patience':2,'min':0.125,'min_delta':0.25}},'early_stopping':{'patience':4,"
        "'min_delta':0.0625},'protocol':'published','validation':0.25,'threads':2,"
        "'executor':'slurm','ranks':4,'time_limit_seconds':1.5},"
        "'probe':{'epochs':5,'batch_size':8,'learning_rate':0.03125}}");
    const struct train_config *t = &s.train;
    assert_string_equal(s.name, "né");
    assert_string_equal(s.tags, "\na\nb c\n");
    assert_int_equal(s.priority, -7);
    assert_true(s.generated);
    assert_int_equal(s.sphere.samples, 100);
    assert_int_equal(s.sphere.test_samples, 30);
    assert_int_equal(s.sphere.latitudes, 2);
    assert_int_equal(s.sphere.sectors, 3);
    assert_int_equal(s.sphere.classes, 4);
    assert_true(s.sphere.seed == 9007199254740991u);
    assert_int_equal(t->data.n_preprocess, 3);
    assert_int_equal(t->data.preprocess[0].kind, PREPROCESS_STANDARDIZE);
    assert_int_equal(t->data.preprocess[1].kind, PREPROCESS_PCA);
    assert_int_equal(t->data.preprocess[1].components, 2);
    assert_true(t->data.preprocess[1].whiten && !t->data.preprocess[2].whiten);
    assert_true(t->data.preprocess[1].variance == 0 && t->data.preprocess[2].variance == 0.5);
    assert_int_equal(t->data.preprocess[2].components, 0);
    assert_int_equal(t->kind, MODEL_OVR_ENCODER);
    assert_true(t->hidden[0] == 300 && t->n_hidden == 1);
    assert_int_equal(t->init, INIT_HE);
    assert_true(t->ovr.lambda == 0.25 && t->ovr.per_pair && t->ovr.form == OVR_RAW);
    assert_true(t->activity && t->activity_target == 0.75);
    assert_int_equal(t->optimizer.name, OPT_SGD);
    assert_true(t->optimizer.learning_rate == 0.5 && t->optimizer.momentum == 0.9);
    assert_true(t->optimizer.nesterov);
    assert_int_equal(t->epochs, 3);
    assert_int_equal(t->batch_size, 16);
    assert_int_equal(t->seed, 77);
    assert_int_equal(t->schedule.name, SCHEDULE_PLATEAU);
    assert_true(t->schedule.factor == 0.5 && t->schedule.min == 0.125);
    assert_true(t->schedule.min_delta == 0.25 && t->schedule.patience == 2);
    assert_true(t->patience == 4 && t->patience_delta == 0.0625);
    assert_int_equal(t->data.protocol, PROTOCOL_PUBLISHED);
    assert_true(t->data.validation == 0.25);
    assert_int_equal(s.threads, 2);
    assert_int_equal(s.executor, EXECUTOR_SLURM);
    assert_int_equal(s.ranks, 4);
    assert_true(s.time_limit_seconds == 1.5);
    assert_true(t->probe && t->probe_config.epochs == 5 && t->probe_config.batch_size == 8);
    assert_true(t->probe_config.optimizer.learning_rate == 0.03125);
}

static void the_struct_of_an_mlp(void **state) {
    (void)state;
    struct spec s = read_text("{'dataset':{'name':'x','train_limit':10,'test_limit':4000000000},"
                              "'model':{'kind':'mlp','hidden':[7]},"
                              "'training':{'schedule':'constant'}}");
    const struct train_config *t = &s.train;
    assert_string_equal(s.name, "untitled");
    assert_string_equal(s.tags, "");
    assert_string_equal(s.dataset, "x");
    assert_string_equal(s.train_sha256, "");
    assert_false(s.generated);
    assert_true(s.train_limit == 10 && s.test_limit == 4000000000);
    assert_int_equal(t->kind, MODEL_MLP);
    assert_int_equal(t->init, INIT_GLOROT);
    assert_int_equal(t->schedule.name, SCHEDULE_CONSTANT);
    assert_int_equal(t->optimizer.name, OPT_ADAM);
    assert_true(t->optimizer.epsilon == 1e-7);
    assert_true(t->ovr.lambda == 0 && !t->activity && !t->probe);
    assert_true(t->patience == 0 && s.threads == 0 && s.time_limit_seconds == 0);
    assert_true(s.executor == EXECUTOR_AUTO && s.ranks == 0); /* as before there were any */
}

static void the_struct_of_a_deep_mlp(void **state) {
    (void)state;
    struct spec s = read_text("{'dataset':{'generator':'sphere'},"
                              "'model':{'kind':'mlp','hidden':[7,8,9],'activation':'tanh',"
                              "'dropout':[0.5,0,0.25],'freeze':1,"
                              "'init':{'experiment':'abcdefgh2345','epoch':'last'}},"
                              "'loss':{'ovr':{'layers':[2,0]},'l2':0.5},"
                              "'training':{'batching':'single_class','only_classes':[3,1]}}");
    const struct train_config *t = &s.train;
    assert_int_equal(t->n_hidden, 3);
    assert_true(t->hidden[0] == 7 && t->hidden[1] == 8 && t->hidden[2] == 9);
    assert_int_equal(t->f.kind, ACT_TANH);
    assert_true(t->dropout[0] == 0.5 && t->dropout[1] == 0 && t->dropout[2] == 0.25);
    assert_int_equal(t->freeze, 1);
    assert_string_equal(s.init_experiment, "abcdefgh2345");
    assert_int_equal(s.init_last, 1);
    assert_int_equal(t->init, INIT_GLOROT); /* of what does not fit */
    assert_int_equal(t->ovr_layers, 5);
    assert_true(t->l2 == 0.5 && t->l1 == 0 && t->contractive == 0 && t->kl == 0);
    assert_int_equal(t->batching, BATCHING_SINGLE_CLASS);
    assert_true(t->only.n == 2 && t->only.list[0] == 3 && t->only.list[1] == 1);

    s = read_text("{'dataset':{'generator':'sphere'},"
                  "'model':{'kind':'mlp','hidden':[7,8],'dropout':0.5}}");
    assert_true(s.train.dropout[0] == 0.5 && s.train.dropout[1] == 0.5 && s.train.dropout[2] == 0);
    assert_true(s.train.ovr_layers == 0 && s.train.only.n == 0);
    assert_string_equal(s.init_experiment, "");
}

static void the_struct_of_an_autoencoder(void **state) {
    (void)state;
    struct spec s = read_text("{'dataset':{'generator':'sphere'},"
                              "'model':{'kind':'autoencoder','hidden':[7],'activation':'sigmoid',"
                              "'tied':true,'corruption':{'gaussian':0.5}},"
                              "'loss':{'l1':1,'l2':2,'contractive':3,'kl':{'target':0.25,"
                              "'weight':4}}}");
    const struct train_config *t = &s.train;
    assert_int_equal(t->kind, MODEL_AUTOENCODER);
    assert_int_equal(t->f.kind, ACT_SIGMOID);
    assert_true(t->tied);
    assert_int_equal(t->corruption, CORRUPTION_GAUSSIAN);
    assert_true(t->corruption_amount == 0.5);
    assert_true(t->l1 == 1 && t->l2 == 2 && t->contractive == 3);
    assert_true(t->kl == 4 && t->kl_target == 0.25);
    assert_true(t->ovr.lambda == 0 && !t->activity && t->probe);

    s = read_text("{'dataset':{'generator':'sphere'},"
                  "'model':{'kind':'autoencoder','hidden':[7],'top_k':3,'corruption':0.25}}");
    assert_int_equal(s.train.f.kind, ACT_TOP_K);
    assert_int_equal(s.train.top_k, 3);
    assert_int_equal(s.train.corruption, CORRUPTION_MASKING);
    assert_true(s.train.corruption_amount == 0.25 && s.train.kl == 0);

    s = read_text("{'dataset':{'generator':'sphere'},"
                  "'model':{'kind':'autoencoder','hidden':[7],'threshold':0.5}}");
    assert_true(s.train.f.kind == ACT_THRESHOLDED && s.train.f.threshold == 0.5F);
    s = read_text("{'dataset':{'generator':'sphere'},"
                  "'model':{'kind':'autoencoder','hidden':[7],'slope':0.5}}");
    assert_true(s.train.f.kind == ACT_LEAKY_RELU && s.train.f.slope == 0.5F);
}

static void the_structs_of_baselines(void **state) {
    (void)state;
    struct spec s = read_text("{'dataset':{'generator':'sphere'},'model':{'kind':'online_kmeans',"
                              "'hidden':[7],'code':'hard','init':'kmeans++'}}");
    assert_int_equal(s.train.kind, MODEL_ONLINE_KMEANS);
    assert_int_equal(s.train.f.kind, ACT_HARD);
    assert_int_equal(s.train.init, INIT_KMEANS_PLUS_PLUS);
    s = read_text("{'dataset':{'generator':'sphere'},'model':{'kind':'kmeans','hidden':[7]}}");
    assert_int_equal(s.train.f.kind, ACT_TRIANGLE);
    assert_int_equal(s.train.init, INIT_SAMPLES);
    s = read_text("{'dataset':{'generator':'sphere'},'model':{'kind':'pca','hidden':[3]}}");
    assert_int_equal(s.train.f.kind, ACT_LINEAR);
    assert_int_equal(s.train.batch_size, 128);
    s = read_text("{'dataset':{'generator':'sphere'},'model':{'kind':'identity'}}");
    assert_int_equal(s.train.f.kind, ACT_LINEAR);
    assert_int_equal(s.train.n_hidden, 0);
}

/* The published probe, whatever the spec's own optimiser is. */
static void the_probe_has_its_own_optimizer(void **state) {
    (void)state;
    struct spec s = read_text("{'dataset':{'generator':'sphere'},"
                              "'model':{'kind':'ovr_encoder','hidden':[7]},"
                              "'optimizer':{'name':'sgd','momentum':0.5}}");
    const struct optimizer_config *o = &s.train.probe_config.optimizer;
    assert_int_equal(o->name, OPT_ADAM);
    assert_true(o->beta1 == 0.9 && o->beta2 == 0.999 && o->epsilon == 1e-7 && o->momentum == 0);
    assert_true(o->learning_rate == 5e-5);
    assert_int_equal(s.train.probe_config.schedule.name, SCHEDULE_PLATEAU);
}

static void a_version_is_pinned(void **state) {
    (void)state;
    json_t *document = new_base("stored");
    struct spec spec = read_valid("stored", document), again;
    struct ovr_err err = {0};
    memset(spec.train_sha256, 'a', 64);
    memset(spec.test_sha256, 'b', 64);
    assert_ok(spec_pin_version(document, &spec, &err), &err);
    again = read_valid("pinned", document);
    assert_same_spec(&again, &spec);
    char *text = dump(at(document, "/dataset"));
    assert_non_null(strstr(text, "\"name\":\"cifar10\",\"version\":{\"train\":\"aaaa"));
    free(text);
    json_decref(document);
}

/* A name or value of any length, cut at any byte of its characters, is a fault like others. */
static void long_names_and_values(void **state) {
    (void)state;
    static const char *const letters[] = {"x", "é", "–", "😀", "~", "/"};
    for (size_t l = 0; l < COUNT(letters); l++) {
        for (size_t n = 40; n < 330; n++) {
            char name[2048] = "";
            size_t size = strlen(letters[l]), length = n % 4; /* moves the characters' edges */
            memset(name, 'a', length);
            for (; length < n; length += size)
                memcpy(name + length, letters[l], size + 1);
            json_t *document = new_base("encoder"), *faults = json_array(), *training;
            json_object_set_new(document, name, json_integer(1));
            json_object_set_new(document, "training", training = json_object());
            json_object_set_new(training, name, json_null());
            json_object_set_new(training, "protocol", json_string(name));
            struct spec spec;
            assert_int_equal(spec_read(document, &spec, faults, NULL), OVR_INVALID);
            assert_int_equal(json_array_size(faults), 3);
            for (size_t i = 0; i < 3; i++) {
                json_t *fault = json_array_get(faults, i);
                const char *pointer = json_string_value(json_object_get(fault, "pointer"));
                assert_true(pointer && *pointer == '/');
                assert_non_null(json_string_value(json_object_get(fault, "detail")));
            }
            json_decref(faults);
            json_decref(document);
        }
    }
}

static void stored_garbage(void **state) {
    (void)state;
    static const struct {
        const char *text, *part;
    } bad[] = {
        {"", "not JSON"},
        {"{\"name\":", "not JSON"},
        {"{\"name\":1,\"name\":1}", "not JSON"},
        {"\x80\xff", "not JSON"},
        {"[]", "a spec is an object"},
        {"{}", "/dataset is required"},
        {"{\"dataset\":{\"generator\":\"sphere\"},\"model\":{\"kind\":\"mlp\",\"hidden\":[0]}}",
         "/model/hidden/0 must be an integer 1..65536"},
    };
    for (size_t i = 0; i < COUNT(bad); i++) {
        struct spec spec;
        struct ovr_err err = {0};
        assert_failed(spec_read_stored(bad[i].text, &spec, &err), OVR_INVALID, &err, bad[i].part);
        assert_int_equal(spec_read_stored(bad[i].text, &spec, NULL), OVR_INVALID);
    }
}

/* Failing allocations of jansson, as in its own test_chaos.c. */
static long countdown = -1, alive, failed;

static void *chaotic_malloc(size_t size) {
    if (countdown == 0) {
        failed++;
        return NULL;
    }
    countdown -= countdown > 0;
    alive++;
    return malloc(size);
}

static void lasting_free(void *p) {
    alive -= p != NULL;
    free(p);
}

/* One failure (`lasting` 0), or nothing succeeds after it. */
static void *once_failing_malloc(size_t size) {
    void *p = chaotic_malloc(size);
    if (!p)
        countdown = -1;
    return p;
}

static void check_chaos(const char *text, int expected, int lasting) {
    json_t *whole = parse(text), *faults = json_array();
    struct spec good;
    int rc = spec_read(whole, &good, faults, NULL);
    assert_int_equal(rc, expected);
    size_t n_faults = json_array_size(faults);
    json_decref(faults);
    json_set_alloc_funcs(lasting ? chaotic_malloc : once_failing_malloc, lasting_free);
    for (long n = 0;; n++) {
        struct spec spec;
        struct ovr_err err = {0};
        long before = alive;
        json_t *document = parse(text);
        faults = json_array();
        failed = 0;
        countdown = n;
        rc = spec_read(document, &spec, faults, &err);
        countdown = -1;
        if (rc != expected && rc != OVR_NOMEM)
            print_faults("chaos", document, faults);
        assert_int_equal(err.code, rc);
        assert_true(rc == expected || rc == OVR_NOMEM);
        if (rc == 0) {
            assert_same_spec(&spec, &good);
            assert_same_text("chaos", document, whole);
        }
        if (rc == OVR_INVALID)
            assert_int_equal(json_array_size(faults), n_faults);
        assert_true(failed || rc == expected);
        json_decref(document);
        json_decref(faults);
        assert_int_equal(alive, before);
        if (!failed)
            break;
        assert_true(n < 2000);
    }
    json_set_alloc_funcs(malloc, free);
    json_decref(whole);
}

static const char *const chaotic_specs[] = {
    "{'dataset':{'generator':'sphere'},'model':{'kind':'ovr_encoder','hidden':[128.0]},"
    "'preprocess':['standardize','standardize','standardize','standardize','standardize',"
    "'standardize','standardize',{'pca':{'components':2}}],'tags':['a'],"
    "'training':{'schedule':'plateau','early_stopping':{},'epochs':3.0}}",
    "{'dataset':{'name':'x'},'model':{'kind':'mlp','hidden':[10],'init':{'he':{}}},"
    "'optimizer':{'name':'sgd','beta1':0.3},'probe':{}}",
    "{'dataset':{'generator':'sphere'},'model':{'kind':'mlp','hidden':[10,20],'slope':0.5,"
    "'dropout':[0.5,0.25],'init':{'experiment':'abcdefgh2345'}},'loss':{'ovr':{'layers':[1]}},"
    "'training':{'only_classes':[1,2]}}",
    "{'dataset':{'generator':'sphere'},'model':{'kind':'autoencoder','hidden':[10],"
    "'activation':'sigmoid','corruption':0.5},'loss':{'kl':{}}}",
};

static void every_allocation_of_a_valid_spec(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(chaotic_specs); i++)
        for (int lasting = 0; lasting < 2; lasting++)
            check_chaos(chaotic_specs[i], 0, lasting);
}

static void every_allocation_of_an_invalid_spec(void **state) {
    (void)state;
    for (int lasting = 0; lasting < 2; lasting++) {
        check_chaos("{'dataset':{'generator':'sphere'},'model':{'kind':'mlp','hidden':[0]}}",
                    OVR_INVALID, lasting);
        check_chaos("{'x':1,'dataset':{'samples':1},'model':{'hidden':1,'init':'normal'},"
                    "'preprocess':[1,2,3,{'pca':{'whiten':1}}],'tags':1,'notes':1,'name':1,"
                    "'optimizer':{'name':1},'probe':{'epochs':0}}",
                    OVR_INVALID, lasting);
    }
}

static void every_allocation_of_a_stored_spec(void **state) {
    (void)state;
    json_t *document = parse(chaotic_specs[0]);
    struct spec good = read_valid("stored", document);
    char *text = dump(document);
    json_decref(document);
    json_set_alloc_funcs(chaotic_malloc, lasting_free);
    failed = 1;
    for (long n = 0; failed; n++) {
        struct spec spec;
        long before = alive;
        failed = 0;
        countdown = n;
        int rc = spec_read_stored(text, &spec, NULL);
        countdown = -1;
        if (failed) /* jansson's parser takes some failures for bad syntax */
            assert_true(rc == OVR_NOMEM || rc == OVR_INVALID);
        else
            assert_int_equal(rc, 0);
        if (!rc)
            assert_same_spec(&spec, &good);
        assert_int_equal(alive, before);
        assert_true(n < 2000);
    }
    json_set_alloc_funcs(malloc, free);
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_of_every_field),
        cmocka_unit_test(what_specs_become),
        cmocka_unit_test(faults_of_invalid_specs),
        cmocka_unit_test(the_schema_says_the_same),
        cmocka_unit_test(the_schema_says_who_uses_a_field),
        cmocka_unit_test(the_struct_of_an_encoder),
        cmocka_unit_test(the_struct_of_an_mlp),
        cmocka_unit_test(the_struct_of_a_deep_mlp),
        cmocka_unit_test(the_struct_of_an_autoencoder),
        cmocka_unit_test(the_structs_of_baselines),
        cmocka_unit_test(the_probe_has_its_own_optimizer),
        cmocka_unit_test(a_version_is_pinned),
        cmocka_unit_test(long_names_and_values),
        cmocka_unit_test(stored_garbage),
        cmocka_unit_test(every_allocation_of_a_valid_spec),
        cmocka_unit_test(every_allocation_of_an_invalid_spec),
        cmocka_unit_test(every_allocation_of_a_stored_spec),
    };
    return cmocka_run_group_tests_name("server/spec", tests, NULL, NULL);
}
