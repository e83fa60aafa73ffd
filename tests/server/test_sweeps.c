/* Sweeps: what a document becomes, what is wrong with others, how a search goes, and how the
 * experiments of a sweep hang together in the store. */
#include "server/pointer.h"
#include "server/sweeps.h"
#include "tests/server/check.h"

#define SPHERE "'dataset':{'generator':'sphere','samples':500}"
#define MLP "'model':{'kind':'mlp','hidden':[20]}"
#define BASE "'base':{" SPHERE "," MLP ",'training':{'epochs':2}}"

static json_t *parse(const char *text) {
    char *copy = strdup(text);
    json_error_t error;
    assert_non_null(copy);
    for (char *c = copy; *c; c++)
        *c = *c == '\'' ? '"' : *c;
    json_t *json = json_loads(copy, JSON_REJECT_DUPLICATES, &error);
    if (!json)
        print_error("%s\n%s\n", copy, error.text);
    assert_non_null(json);
    free(copy);
    return json;
}

static int read_plan(struct store *store, const json_t *document, struct sweep_plan *plan,
                     json_t *faults, struct ovr_err *err) {
    struct admission admission = {store, 64 << 20, 2, 1e10};
    json_t *warnings = json_array();
    int rc = sweep_plan_read(document, &admission, plan, faults, warnings, err);
    json_decref(warnings);
    return rc;
}

/* The plan of a document that has to be valid. */
static struct sweep_plan plan_of(struct store *store, const char *text) {
    struct sweep_plan plan;
    struct ovr_err err = {0};
    json_t *document = parse(text), *faults = json_array();
    int rc = read_plan(store, document, &plan, faults, &err);
    if (spec_has_faults(faults))
        json_dumpf(faults, stderr, JSON_INDENT(1));
    assert_ok(rc, &err);
    json_decref(document);
    json_decref(faults);
    return plan;
}

/* What stands at a pointer of the i-th experiment's spec, as text. */
static const char *value_in(const struct sweep_plan *plan, size_t i, const char *pointer) {
    static char texts[8][200];
    static int turn;
    char *text = texts[turn++ % 8];
    json_t *spec = json_loads(plan->sweep.points.experiments[i].spec, 0, NULL);
    json_t *value = pointer_get(spec, pointer);
    char *dumped = value ? json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
    snprintf(text, 200, "%s", dumped ? dumped : "nothing");
    free(dumped);
    json_decref(spec);
    return text;
}

#define assert_value(plan, i, pointer, expected)                                                   \
    assert_string_equal(value_in(&(plan), (i), (pointer)), (expected))

/* What documents become */

static void a_grid_has_every_combination(void **state) {
    struct store *store = ((struct place *)*state)->store;
    struct sweep_plan p = plan_of(
        store, "{'name':'g'," BASE ",'grid':{'/model/hidden/0':[8,16],'/loss/ovr/lambda':[0,1e-4,"
               "0.001]}}");
    assert_int_equal(p.n_points, 6);
    assert_int_equal(p.n_experiments, 6);
    for (size_t i = 0; i < 6; i++) {
        static const char *const lambdas[] = {"0", "0.0001", "0.001"};
        assert_value(p, i, "/model/hidden", i < 3 ? "[8]" : "[16]");
        assert_value(p, i, "/loss/ovr/form", "\"cosine\""); /* complete */
        json_t *spec = json_loads(p.sweep.points.experiments[i].spec, 0, NULL);
        assert_near(json_number_value(pointer_get(spec, "/loss/ovr/lambda")), atof(lambdas[i % 3]),
                    1e-12);
        json_decref(spec);
    }
    assert_string_equal(p.sweep.axes, "[\"/model/hidden/0\",\"/loss/ovr/lambda\"]");
    assert_string_equal(p.sweep.points.values[3],
                        "{\"/model/hidden/0\":16,\"/loss/ovr/lambda\":0}");
    assert_string_equal(p.sweep.points.experiments[3].name, "g 3");
    assert_value(p, 3, "/name", "\"g 3\"");
    assert_null(p.sweep.target);
    assert_false(p.sweep.more);
    sweep_plan_release(&p);
}

static void zip_moves_together_and_multiplies_with_a_grid(void **state) {
    struct store *store = ((struct place *)*state)->store;
    struct sweep_plan p =
        plan_of(store, "{" BASE ",'grid':{'/training/epochs':[1,2]},'zip':{'/training/batch_size':["
                       "8,16,32],'/optimizer/learning_rate':[0.25,0.5,0.75]}}");
    assert_int_equal(p.n_points, 6);
    for (size_t i = 0; i < 6; i++) {
        static const char *const sizes[] = {"8", "16", "32"}, *const rates[] = {"0.25", "0.5",
                                                                                "0.75"};
        assert_value(p, i, "/training/epochs", i < 3 ? "1" : "2");
        assert_value(p, i, "/training/batch_size", sizes[i % 3]);
        assert_value(p, i, "/optimizer/learning_rate", rates[i % 3]);
    }
    sweep_plan_release(&p);
}

static void points_are_merged(void **state) {
    struct store *store = ((struct place *)*state)->store;
    struct sweep_plan p = plan_of(
        store,
        "{'name':'p','tags':['a','b'],'notes':'n','priority':5,'base':{" SPHERE ",'model':{'kind':"
        "'ovr_encoder','hidden':[10],'init':{'normal':0.25}},'loss':{'ovr':{'lambda':1,'form':"
        "'raw'},'activity':{'target':0.25}},'training':{'epochs':7,'schedule':{'plateau':{"
        "'patience':9}}}},'points':["
        "{},"
        "{'loss':{'ovr':{'lambda':2}}},"                      /* the rest of loss stays */
        "{'loss':{'ovr':{'lambda_per_pair':2}}},"             /* instead of lambda */
        "{'model':{'kind':'mlp','hidden':[4]},'probe':null}," /* init is the mlp's */
        "{'training':{'schedule':'constant','epochs':null}}," /* epochs by default */
        "{'probe':null,'name':'bare'}]}");
    assert_int_equal(p.n_points, 6);
    assert_value(p, 0, "/model/init", "{\"normal\":0.25}");
    assert_value(p, 1, "/loss/ovr/lambda", "2");
    assert_value(p, 1, "/loss/ovr/form", "\"raw\"");
    assert_value(p, 1, "/loss/activity/target", "0.25");
    assert_value(p, 2, "/loss/ovr/lambda", "nothing");
    assert_value(p, 2, "/loss/ovr/lambda_per_pair", "2");
    assert_value(p, 3, "/model/init", "\"glorot\"");
    assert_value(p, 3, "/training/epochs", "7");
    assert_value(p, 4, "/training/schedule", "\"constant\"");
    assert_value(p, 4, "/training/epochs", "35");
    assert_value(p, 5, "/probe", "null");
    assert_value(p, 0, "/probe/kind", "\"logistic_regression\"");
    assert_string_equal(p.sweep.points.experiments[5].name, "bare");
    assert_string_equal(p.sweep.points.experiments[4].name, "p 4");
    for (size_t i = 0; i < 6; i++) {
        assert_string_equal(p.sweep.points.experiments[i].tags, "\na\nb\n");
        assert_int_equal(p.sweep.points.experiments[i].priority, 5);
        assert_value(p, i, "/notes", "\"n\"");
    }
    assert_string_equal(p.sweep.tags, "\na\nb\n");
    assert_string_equal(p.sweep.points.values[1], "{\"/loss/ovr/lambda\":2}");
    sweep_plan_release(&p);
}

/* What all points have in common tells none apart. */
static void axes_of_points(void **state) {
    struct store *store = ((struct place *)*state)->store;
    struct sweep_plan p = plan_of(
        store, "{" BASE ",'points':[{'model':{'kind':'mlp','hidden':[4]}},{'model':{'kind':'mlp',"
               "'hidden':[5]},'training':{'epochs':1}}]}");
    assert_string_equal(p.sweep.axes, "[\"/model/hidden\",\"/training/epochs\"]");
    assert_string_equal(p.sweep.points.values[0], "{\"/model/hidden\":[4]}");
    assert_string_equal(p.sweep.points.values[1], "{\"/model/hidden\":[5],\"/training/epochs\":1}");
    sweep_plan_release(&p);
}

static void repeats_have_seeds_of_their_own(void **state) {
    struct store *store = ((struct place *)*state)->store;
    struct sweep_plan p =
        plan_of(store, "{'name':'r'," BASE ",'grid':{'/training/seed':[10,20]},'repeats':3}");
    static const char *const seeds[] = {"10", "11", "12", "20", "21", "22"};
    static const char *const names[] = {"r 0.0", "r 0.1", "r 0.2", "r 1.0", "r 1.1", "r 1.2"};
    assert_int_equal(p.n_points, 2);
    assert_int_equal(p.n_experiments, 6);
    for (size_t i = 0; i < 6; i++) {
        assert_value(p, i, "/training/seed", seeds[i]);
        assert_string_equal(p.sweep.points.experiments[i].name, names[i]);
    }
    sweep_plan_release(&p);
}

/* A name of 199 characters has no room for a number; what is cut off are whole characters. */
static void long_names_keep_their_numbers(void **state) {
    struct store *store = ((struct place *)*state)->store;
    char name[400] = "x", text[1000], expected[401];
    for (int i = 0; i < 198; i++)
        strcat(name, "é");
    snprintf(text, sizeof text, "{" BASE ",'points':[{'name':'%s'}],'repeats':2}", name);
    struct sweep_plan p = plan_of(store, text);
    snprintf(expected, sizeof expected, "%.379s.1", name);
    assert_string_equal(p.sweep.points.experiments[1].name, expected);
    sweep_plan_release(&p);
}

static void random_points_follow_the_seed(void **state) {
    struct store *store = ((struct place *)*state)->store;
    static const char text[] =
        "{" BASE ",'random':{'points':%d,'seed':%d,'parameters':{'/loss/ovr/lambda':{'log_uniform':"
        "[1e-6,1e-2]},'/optimizer/learning_rate':{'uniform':[0.5,0.75]},'/model/hidden/0':{"
        "'integer':[3,5]},'/loss/ovr/form':{'choice':['raw','cosine']}}}}";
    char first[800], longer[800], other[800];
    snprintf(first, sizeof first, text, 60, 1);
    snprintf(longer, sizeof longer, text, 90, 1);
    snprintf(other, sizeof other, text, 60, 2);
    struct sweep_plan a = plan_of(store, first), b = plan_of(store, longer),
                      c = plan_of(store, other);
    int low = 0, raw = 0, sizes[3] = {0}, same = 0;
    for (size_t i = 0; i < 60; i++) {
        json_t *values = json_loads(a.sweep.points.values[i], 0, NULL);
        double lambda = json_number_value(json_object_get(values, "/loss/ovr/lambda"));
        double rate = json_number_value(json_object_get(values, "/optimizer/learning_rate"));
        json_int_t size = json_integer_value(json_object_get(values, "/model/hidden/0"));
        const char *form = json_string_value(json_object_get(values, "/loss/ovr/form"));
        assert_true(lambda >= 1e-6 && lambda <= 1e-2 && rate >= 0.5 && rate <= 0.75);
        assert_in_range(size, 3, 5);
        low += lambda < 1e-4;
        raw += strcmp(form, "raw") == 0;
        sizes[size - 3]++;
        assert_string_equal(a.sweep.points.values[i], b.sweep.points.values[i]);
        same += strcmp(a.sweep.points.values[i], c.sweep.points.values[i]) == 0;
        json_decref(values);
    }
    assert_in_range(low, 18, 42); /* half the decades, give or take three deviations */
    assert_in_range(raw, 18, 42);
    assert_true(sizes[0] > 8 && sizes[1] > 8 && sizes[2] > 8);
    assert_int_equal(same, 0);
    sweep_plan_release(&a);
    sweep_plan_release(&b);
    sweep_plan_release(&c);
}

static void a_chain_starts_from_the_one_before(void **state) {
    struct store *store = ((struct place *)*state)->store;
    struct sweep_plan p = plan_of(store, "{'base':{" SPHERE "," MLP
                                         ",'preprocess':['standardize']},'chain':[{},{'training':{"
                                         "'epochs':3}},{'training':{'epochs':4}}],'repeats':2}");
    const struct new_experiment *e = p.sweep.points.experiments;
    assert_true(p.sweep.points.chained);
    for (size_t i = 0; i < 6; i++) {
        char expected[80], list[84];
        snprintf(expected, sizeof expected, "{\"experiment\":\"%s\",\"epoch\":\"best\"}",
                 i < 2 ? "" : e[i - 2].id);
        snprintf(list, sizeof list, "[{\"experiment\":\"%s\"}]", i < 2 ? "" : e[i - 2].id);
        assert_value(p, i, "/model/init", i < 2 ? "\"glorot\"" : expected);
        assert_value(p, i, "/preprocess", i < 2 ? "[{\"standardize\":true}]" : list);
    }
    sweep_plan_release(&p);
    p = plan_of(store, "{" BASE ",'chain':[{},{}]}"); /* nothing to take over but the weights */
    assert_value(p, 1, "/preprocess", "[]");
    sweep_plan_release(&p);
}

static void costs_add_up(void **state) {
    struct store *store = ((struct place *)*state)->store;
    struct sweep_plan one = plan_of(store, "{" BASE ",'points':[{}]}");
    struct sweep_plan many = plan_of(
        store, "{" BASE ",'points':[{},{'model':{'kind':'mlp','hidden':[1]}},{}],'repeats':2}");
    struct sweep_plan search =
        plan_of(store, "{" BASE ",'target_sparsity':{'near_zero':0.5,'points':6},'repeats':2}");
    assert_true(one.cost.seconds > 0);
    assert_true(many.cost.seconds > 4 * one.cost.seconds &&
                many.cost.seconds < 6 * one.cost.seconds);
    assert_true(many.cost.train.memory_bytes == one.cost.train.memory_bytes);
    assert_true(many.cost.train.parameters == one.cost.train.parameters);
    assert_relative(search.cost.seconds, 12 * one.cost.seconds, 1e-9);
    assert_int_equal(search.n_points, 6);
    assert_int_equal(search.n_experiments, 12);
    assert_int_equal(search.sweep.points.n_points, 2);
    assert_true(search.sweep.more);
    sweep_plan_release(&one);
    sweep_plan_release(&many);
    sweep_plan_release(&search);
}

/* What is wrong with others */

static const char *fault_at(const json_t *faults, const char *pointer) {
    size_t i;
    json_t *fault;
    json_array_foreach((json_t *)(uintptr_t)faults, i, fault) {
        if (strcmp(json_string_value(json_object_get(fault, "pointer")), pointer) == 0)
            return json_string_value(json_object_get(fault, "detail"));
    }
    return NULL;
}

static void faults_lead_into_the_document(void **state) {
    struct store *store = ((struct place *)*state)->store;
    static const struct {
        const char *document, *pointer, *detail;
        size_t n; /* of all faults; 0: as many as there are */
    } cases[] = {
        {"{}", "/base", "must be a spec", 2},
        {"{" BASE "}", "", "needs one of grid", 1},
        {"{" BASE ",'gird':{},'points':[{}]}", "/gird", "is not known here", 1},
        {"{" BASE ",'points':[{}],'repeats':0}", "/repeats", "integer 1..20", 1},
        {"{" BASE ",'points':[{}],'repeats':1.5}", "/repeats", "integer 1..20", 1},
        {"{" BASE ",'points':[]}", "/points", "at least one", 1},
        {"{" BASE ",'points':[3,{}]}", "/points/0", "must be an object", 1},
        {"{" BASE ",'points':[{},{},{},{'model':{'kind':'mlp','hidden':[-3]}}]}",
         "/points/3/model/hidden/0", "must be an integer 1..65536, got -3", 1},
        {"{" BASE ",'points':[{},{'model':{'kind':'mlp'}}]}", "/points/1/model/hidden",
         "is required", 1},
        {"{" BASE ",'grid':[]}", "/grid", "must be an object of JSON pointers", 1},
        {"{" BASE ",'grid':{'loss':[1]}}", "/grid/loss", "must be a JSON pointer", 1},
        {"{" BASE ",'grid':{'/training/epochs':3}}", "/grid/~1training~1epochs", "must be an array",
         1},
        {"{" BASE ",'grid':{'/training/epochs':[1,0,'x'],'/training/seed':[1,2]}}",
         "/grid/~1training~1epochs/1", "got 0 (point 2: ", 2},
        {"{" BASE ",'grid':{'/training/epochs':[1,0,'x'],'/training/seed':[1,2]}}",
         "/grid/~1training~1epochs/2", "\"x\" (point 4: ", 2},
        {"{" BASE ",'grid':{'/training/epoch':[1,2]}}", "/grid/~1training~1epoch/1",
         "is not a member", 2},
        {"{" BASE ",'grid':{'/model/hidden/3':[1,2]}}", "/grid/~1model~1hidden~13",
         "leads to no place", 1},
        {"{" BASE ",'grid':{'/training/epochs':[1]},'zip':{'/training/epochs':[1]}}",
         "/zip/~1training~1epochs", "varies in grid already", 1},
        {"{" BASE ",'zip':{'/training/epochs':[1,2],'/training/seed':[1,2,3]}}",
         "/zip/~1training~1seed", "has 3 values, the first axis has 2", 1},
        {"{" BASE ",'zip':{'/training/epochs':[1,-2],'/training/seed':[1,2]}}",
         "/zip/~1training~1epochs/1", "got -2", 1},
        {"{" BASE ",'random':{'points':3}}", "/random", "needs points", 1},
        {"{" BASE ",'random':{'points':3,'parameters':{'/loss/ovr/lambda':{'log_uniform':[0,1]}}}}",
         "/random/parameters/~1loss~1ovr~1lambda", "with 0 < a < b", 1},
        {"{" BASE ",'random':{'points':3,'parameters':{'/training/epochs':{'uniform':[1,2]}}}}",
         "/random/parameters/~1training~1epochs", "must be an integer", 0},
        {"{" BASE ",'random':{'points':3,'parameters':{'/loss/ovr/lambda':{'uniform':[-1e308,1e308"
         "]}}}}",
         "/random/parameters/~1loss~1ovr~1lambda", "must be {", 1},
        {"{" BASE ",'random':{'points':3,'parameters':{'/training/epochs':{'integer':[1,2.5]}}}}",
         "/random/parameters/~1training~1epochs", "must be {", 1},
        {"{" BASE ",'target_sparsity':{}}", "/target_sparsity", "near_zero", 1},
        {"{" BASE ",'target_sparsity':{'near_zero':0.5,'pointer':'/training/epochs','min':1,'max':"
         "9}}",
         "/target_sparsity/min", "no number with a fraction", 2},
        {"{" BASE ",'target_sparsity':{'near_zero':2}}", "/target_sparsity/near_zero", "0..1", 1},
        {"{" BASE ",'target_sparsity':{'near_zero':0.5,'min':1}}", "/target_sparsity/min",
         "below max", 1},
        {"{" BASE ",'target_sparsity':{'near_zero':0.5,'points':2}}", "/target_sparsity/points",
         "3..50", 1},
        {"{" BASE ",'target_sparsity':{'near_zero':0.5,'pointer':'/training/epochs'}}",
         "/target_sparsity/max", "must be an integer", 2},
        {"{'base':{" SPHERE ",'model':{'kind':'kmeans','hidden':[20]}},'target_sparsity':{"
         "'near_zero':0.5}}",
         "/target_sparsity/pointer", "this kind of model does not use it", 1},
        {"{" BASE ",'target_sparsity':{'near_zero':0.5},'points':[{}]}", "/target_sparsity",
         "stands alone", 1},
        {"{" BASE ",'chain':[{}],'grid':{'/training/epochs':[1]}}", "/chain", "stands alone", 1},
        {"{'name':7," BASE ",'points':[{},{}]}", "/name", "must be a string", 1},
        {"{'tags':[1]," BASE ",'points':[{},{}]}", "/tags", "must be an array", 1},
        {"{'base':{" SPHERE "," MLP ",'training':{'epochs':-1,'batch_size':0}},'grid':{"
         "'/training/seed':[1,2,3,4]}}",
         "/base/training/epochs", "got -1", 2},
        {"{'base':{" SPHERE "},'points':[{" MLP "},{}]}", "/base/model", "is required", 1},
        {"{'base':{'dataset':{'name':'nothing'}," MLP "},'points':[{},{}]}", "/base/dataset/name",
         "upload it", 2},
        {"{" BASE ",'grid':{'/training/seed':[9007199254740991]},'repeats':2}",
         "/grid/~1training~1seed/0", "too high for 2 repeats", 1},
        {"{" BASE ",'random':{'points':501,'parameters':{'/training/epochs':{'choice':[1]}}},"
         "'repeats':2}",
         "", "has 1002 experiments, at most 1000", 1},
        {"{" BASE ",'points':[{},{'model':{'kind':'mlp','hidden':[65536]},'dataset':{'generator':"
         "'sphere','samples':10000000}}]}",
         "/points/1", "GiB of memory", 1},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct sweep_plan plan;
        struct ovr_err err = {0};
        json_t *document = parse(cases[i].document), *faults = json_array();
        int rc = read_plan(store, document, &plan, faults, &err);
        const char *detail = fault_at(faults, cases[i].pointer);
        size_t n = json_array_size(faults);
        if (rc != OVR_INVALID || !detail || !strstr(detail, cases[i].detail) ||
            (cases[i].n && n != cases[i].n)) {
            json_dumpf(faults, stderr, JSON_INDENT(1));
            fail_msg("%s: %d, %zu faults, at \"%s\": %s", cases[i].document, rc, n,
                     cases[i].pointer, detail ? detail : "nothing");
        }
        sweep_plan_release(&plan);
        json_decref(document);
        json_decref(faults);
    }
}

static void many_faults_are_bounded(void **state) {
    struct store *store = ((struct place *)*state)->store;
    struct sweep_plan plan;
    struct ovr_err err = {0};
    json_t *document = parse("{" BASE ",'grid':{}}"), *faults = json_array();
    json_t *values = json_array();
    for (int i = 0; i < 900; i++)
        json_array_append_new(values, json_integer(-i));
    json_object_set_new(json_object_get(document, "grid"), "/training/epochs", values);
    assert_int_equal(read_plan(store, document, &plan, faults, &err), OVR_INVALID);
    assert_int_equal(json_array_size(faults), 101);
    assert_non_null(fault_at(faults, ""));
    sweep_plan_release(&plan);
    json_decref(document);
    json_decref(faults);
}

/* No allocation of jansson's may be missed. */
static long countdown = -1, alive;

static void *chaotic_malloc(size_t size) {
    if (countdown >= 0 && countdown-- == 0)
        return NULL;
    alive++;
    return malloc(size);
}

static void counting_free(void *block) {
    alive -= block != NULL;
    free(block);
}

static void every_allocation(void **state) {
    struct store *store = ((struct place *)*state)->store;
    static const char *const documents[] = {
        "{'name':'x'," BASE ",'grid':{'/training/epochs':[1,2]},'points':[{'loss':{'ovr':null}}],"
        "'zip':{'/training/seed':[1]}}",
        "{" BASE ",'target_sparsity':{'near_zero':0.5}}",
        "{" BASE ",'chain':[{},{'training':{'epochs':1}}]}",
        "{" BASE ",'random':{'points':2,'parameters':{'/loss/ovr/lambda':{'uniform':[1,2]}}}}",
    };
    for (size_t i = 0; i < COUNT(documents); i++) {
        struct sweep_plan good = plan_of(store, documents[i]);
        json_t *document = parse(documents[i]);
        long n = 0;
        for (int done = 0; !done; n += n < 200 ? 1 : 7) {
            struct sweep_plan plan;
            struct ovr_err err = {0};
            json_t *faults = json_array();
            json_set_alloc_funcs(chaotic_malloc, counting_free);
            countdown = n;
            int rc = read_plan(store, document, &plan, faults, &err);
            done = countdown >= 0;
            countdown = -1;
            json_set_alloc_funcs(malloc, free);
            assert_true(rc == 0 || rc == OVR_NOMEM || (rc == OVR_INVALID && !done));
            for (size_t k = 0; !rc && k < good.sweep.points.n_points; k++)
                assert_string_equal(plan.sweep.points.values[k], good.sweep.points.values[k]);
            sweep_plan_release(&plan);
            json_decref(faults);
        }
        assert_true(n > 100);
        json_decref(document);
        sweep_plan_release(&good);
    }
}

/* The search */

static const struct sweep_target target = {"/loss/ovr/lambda", 0.8, 0.01, 1e-6, 1e-2, 12};

/* Searches on a curve that is known; returns how it ended. */
static enum sweep_outcome search(const struct sweep_target *t, double (*curve)(double), size_t *n,
                                 double *nearest) {
    struct sweep_sample samples[SWEEP_MAX_SEARCH] = {{0, t->min, curve(t->min), 0.5},
                                                     {1, t->max, curve(t->max), 0.5}};
    double next;
    size_t at;
    for (*n = 2;; (*n)++) {
        enum sweep_outcome outcome = sweep_target_next(t, samples, *n, &at, &next);
        for (size_t i = 1; i < *n; i++)
            assert_true(samples[i - 1].value < samples[i].value);
        *nearest = at < *n ? samples[at].near_zero : NAN;
        if (outcome != SWEEP_SEARCHING)
            return outcome;
        assert_true(next > t->min && next < t->max);
        assert_true(*n < SWEEP_MAX_SEARCH);
        samples[*n] = (struct sweep_sample){(int)*n, next, curve(next), 0.5};
    }
}

static double smooth(double x) { /* from 0.4 to 1 with its slope at 1e-4 */
    return 0.4 + 0.6 / (1 + pow(1e-4 / x, 1.5));
}

static double steep(double x) {
    return 0.4 + 0.6 / (1 + pow(3.3e-3 / x, 8));
}

static double step_curve(double x) {
    return x < 3e-4 ? 0.5 : 0.95;
}

static double flat(double x) {
    (void)x;
    return 0.5;
}

static double falling(double x) {
    return 1 - smooth(x) + 0.4;
}

static double failing_above(double x) {
    return x > 5e-4 ? NAN : smooth(x);
}

static double failing_inside(double x) {
    return x > 1e-4 && x < 1.4e-4 ? NAN : smooth(x);
}

static double failing(double x) {
    (void)x;
    return NAN;
}

static void searches_find_what_is_there(void **state) {
    (void)state;
    double (*const curves[])(double) = {smooth, steep, falling, failing_above, failing_inside};
    for (size_t i = 0; i < COUNT(curves); i++) {
        size_t n;
        double nearest;
        struct sweep_target t = target;
        enum sweep_outcome outcome = search(&t, curves[i], &n, &nearest);
        assert_int_equal(outcome, SWEEP_REACHED);
        assert_near(nearest, 0.8, 0.01);
        assert_in_range(n, 3, 12);
    }
}

static void searches_end(void **state) {
    (void)state;
    size_t n;
    double nearest;
    struct sweep_target t = target;
    assert_int_equal(search(&t, flat, &n, &nearest), SWEEP_OUTSIDE);
    assert_int_equal(n, 2);
    assert_near(nearest, 0.5, 0);
    assert_int_equal(search(&t, step_curve, &n, &nearest), SWEEP_USED_UP);
    assert_int_equal(n, 12);
    assert_near(nearest, 0.95, 0);
    t.points = SWEEP_MAX_SEARCH; /* ends where six digits have no value between any more */
    assert_int_equal(search(&t, step_curve, &n, &nearest), SWEEP_USED_UP);
    assert_true(n < 40);
    assert_int_equal(search(&t, failing, &n, &nearest), SWEEP_NO_RESULT);
    assert_int_equal(n, 2);
    assert_true(isnan(nearest));
    t.near_zero = smooth(t.min); /* an end is it */
    assert_int_equal(search(&t, smooth, &n, &nearest), SWEEP_REACHED);
    assert_int_equal(n, 2);
}

/* In the store */

static void add_sweep(struct store *store, struct sweep_plan *plan, char id[ID_SIZE]) {
    struct ovr_err err = {0};
    int repeated = 1;
    assert_ok(store_add_sweep(store, &plan->sweep, id, &repeated, &err), &err);
    assert_int_equal(repeated, 0);
}

static void post(struct store *store, const char *text, char id[ID_SIZE]) {
    struct sweep_plan plan = plan_of(store, text);
    add_sweep(store, &plan, id);
    sweep_plan_release(&plan);
}

/* The next from the queue; 0 where there is none that may start. */
static int64_t claim(struct store *store, char id[ID_SIZE]) {
    struct experiment e;
    struct ovr_err err = {0};
    int waiting, rc = store_claim(store, INT64_MAX, &e, &waiting, &err);
    if (rc == OVR_NOT_FOUND)
        return 0;
    assert_ok(rc, &err);
    int64_t seq = e.seq;
    memcpy(id, e.id, ID_SIZE);
    experiment_release(&e);
    return seq;
}

static void finish(struct store *store, int64_t seq, enum state how, double near_zero) {
    struct ovr_err err = {0};
    struct figure figure = {.name = "sparsity.near_zero", .real = near_zero};
    struct outcome outcome = {.state = how,
                              .problem_kind = how == STATE_FAILED ? "diverged" : NULL,
                              .problem_detail = how == STATE_FAILED ? "at step 3" : NULL,
                              .result = &figure,
                              .n_result = how == STATE_SUCCEEDED};
    assert_ok(store_finish(store, seq, &outcome, &err), &err);
}

static struct sweep read_sweep(struct store *store, const char *id) {
    struct sweep sweep;
    struct ovr_err err = {0};
    assert_ok(store_read_sweep(store, id, &sweep, &(struct sweep_reader){0}, &err), &err);
    return sweep;
}

#define assert_counts(store, id, ...)                                                              \
    check_counts((store), (id), (const int[N_STATES]){__VA_ARGS__}, __FILE__, __LINE__)

/* queued, running, succeeded, failed, cancelled */
static void check_counts(struct store *store, const char *id, const int expected[N_STATES],
                         const char *file, int line) {
    struct sweep sweep = read_sweep(store, id);
    for (int i = 0; i < N_STATES; i++)
        if (sweep.counts[i] != expected[i]) {
            print_error("%d are %s, not %d\n", (int)sweep.counts[i], state_names[i], expected[i]);
            _fail(file, line);
        }
    sweep_release(&sweep);
}

static enum state state_of_sweep(struct store *store, const char *id) {
    struct sweep sweep = read_sweep(store, id);
    enum state state = sweep_state(&sweep);
    assert_int_equal(sweep.finished_at != 0, state != STATE_RUNNING);
    sweep_release(&sweep);
    return state;
}

static void a_sweep_from_start_to_end(void **state) {
    struct place *place = *state;
    char id[ID_SIZE], run[ID_SIZE];
    post(place->store, "{'name':'n','notes':'why'," BASE ",'grid':{'/training/seed':[1,2,3]}}", id);
    reopen_store(place);
    struct store *store = place->store;
    struct sweep before = read_sweep(store, id);
    assert_string_equal(before.name, "n");
    assert_string_equal(before.notes, "why");
    assert_int_equal(before.points, 3);
    assert_int_equal(sweep_state(&before), STATE_RUNNING);
    assert_counts(store, id, 3, 0, 0, 0, 0, 0);
    int64_t seq = claim(store, run);
    struct experiment e = look_up(store, run);
    assert_string_equal(e.sweep, id);
    assert_int_equal(e.point, 0);
    assert_string_equal(e.name, "n 0");
    experiment_release(&e);
    assert_counts(store, id, 2, 1, 0, 0, 0, 0);
    finish(store, seq, STATE_SUCCEEDED, 0.5);
    finish(store, claim(store, run), STATE_FAILED, 0); /* does not stop the rest */
    assert_int_equal(state_of_sweep(store, id), STATE_RUNNING);
    finish(store, claim(store, run), STATE_SUCCEEDED, 0.5);
    assert_counts(store, id, 0, 0, 0, 2, 1, 0);
    assert_int_equal(state_of_sweep(store, id), STATE_SUCCEEDED);
    struct sweep after = read_sweep(store, id);
    assert_true(after.revision > before.revision);
    sweep_release(&before);
    sweep_release(&after);
    post(store, "{" BASE ",'points':[{}]}", id);
    finish(store, claim(store, run), STATE_FAILED, 0);
    assert_int_equal(state_of_sweep(store, id), STATE_FAILED);
}

static void lists_of_sweeps(void **state) {
    struct store *store = ((struct place *)*state)->store;
    char ids[3][ID_SIZE];
    struct ovr_err err = {0};
    struct sweep *list;
    size_t n;
    for (int i = 0; i < 3; i++)
        post(store, "{" BASE ",'points':[{},{}]}", ids[i]);
    assert_ok(store_list_sweeps(store, NULL, 0, 2, &list, &n, &err), &err);
    assert_int_equal(n, 2);
    assert_string_equal(list[0].id, ids[2]);
    assert_string_equal(list[1].id, ids[1]);
    assert_int_equal(list[1].counts[STATE_QUEUED], 2);
    int64_t before = list[1].seq;
    sweep_list_free(list, n);
    assert_ok(store_list_sweeps(store, NULL, before, 2, &list, &n, &err), &err);
    assert_int_equal(n, 1);
    assert_string_equal(list[0].id, ids[0]);
    sweep_list_free(list, n);
    struct experiment *runs;
    struct experiment_filter filter = {.sweep = ids[1], .limit = 10};
    assert_ok(store_list_experiments(store, &filter, &runs, &n, &err), &err);
    assert_int_equal(n, 2);
    assert_string_equal(runs[0].sweep, ids[1]);
    assert_int_equal(runs[0].point, 1);
    experiment_list_free(runs, n);
}

static void a_key_makes_one_sweep(void **state) {
    struct store *store = ((struct place *)*state)->store;
    struct sweep_plan plan = plan_of(store, "{" BASE ",'points':[{},{}]}");
    char first[ID_SIZE], second[ID_SIZE];
    struct ovr_err err = {0};
    int repeated;
    plan.sweep.idempotency_key = "k";
    plan.sweep.body_sha256 = "s";
    add_sweep(store, &plan, first);
    assert_ok(store_add_sweep(store, &plan.sweep, second, &repeated, &err), &err);
    assert_int_equal(repeated, 1);
    assert_string_equal(first, second);
    assert_counts(store, first, 2, 0, 0, 0, 0, 0);
    plan.sweep.body_sha256 = "t";
    assert_failed(store_add_sweep(store, &plan.sweep, second, &repeated, &err), OVR_CONFLICT, &err,
                  "for sweep");
    err = (struct ovr_err){0};
    struct new_experiment other = {
        .name = "", .tags = "", .spec = "{}", .idempotency_key = "k", .body_sha256 = "s"};
    assert_failed(store_add_experiment(store, &other, second, &repeated, &err), OVR_CONFLICT, &err,
                  "for sweep");
    sweep_plan_release(&plan);
}

#define CHAIN "{" BASE ",'chain':[{},{},{},{}]}"

static void a_chain_runs_one_by_one(void **state) {
    struct place *place = *state;
    char id[ID_SIZE], run[ID_SIZE], next[ID_SIZE];
    post(place->store, CHAIN, id);
    for (int i = 0; i < 4; i++) {
        reopen_store(place); /* nothing about it is only in memory */
        int64_t seq = claim(place->store, run);
        struct experiment e = look_up(place->store, run);
        assert_int_equal(e.point, i);
        assert_string_equal(e.waits_for, "");
        experiment_release(&e);
        assert_int_equal(claim(place->store, next), 0);
        finish(place->store, seq, STATE_SUCCEEDED, 0.5);
    }
    assert_int_equal(claim(place->store, next), 0);
    assert_int_equal(state_of_sweep(place->store, id), STATE_SUCCEEDED);
}

static void assert_broken(struct store *store, const char *sweep, const char *part) {
    struct experiment *runs;
    struct experiment_filter filter = {.sweep = sweep, .state = "failed", .limit = 10};
    struct ovr_err err = {0};
    size_t n;
    assert_ok(store_list_experiments(store, &filter, &runs, &n, &err), &err);
    int found = 0;
    for (size_t i = 0; i < n; i++) {
        if (strcmp(runs[i].problem_kind, "chain-broken"))
            continue;
        found++;
        assert_non_null(strstr(runs[i].problem_detail, part));
        assert_true(runs[i].finished_at > 0);
    }
    assert_int_equal(found, 2);
    experiment_list_free(runs, n);
}

static void a_broken_chain_ends(void **state) {
    struct store *store = ((struct place *)*state)->store;
    char id[ID_SIZE], run[ID_SIZE], part[80];
    int was_running;
    struct ovr_err err = {0};
    post(store, CHAIN, id); /* by a failure */
    finish(store, claim(store, run), STATE_SUCCEEDED, 0.5);
    finish(store, claim(store, run), STATE_FAILED, 0);
    assert_counts(store, id, 0, 0, 0, 1, 3, 0);
    snprintf(part, sizeof part, "experiment %s (point 1), whose weights", run);
    assert_broken(store, id, part);
    assert_int_equal(claim(store, run), 0);

    post(store, CHAIN, id); /* by cancelling one */
    finish(store, claim(store, run), STATE_SUCCEEDED, 0.5);
    assert_true(claim(store, run) > 0);
    assert_ok(store_cancel(store, run, &was_running, &err), &err);
    assert_counts(store, id, 0, 0, 0, 1, 2, 1);
    assert_broken(store, id, "was cancelled");

    post(store, CHAIN, id); /* by a crash too many */
    finish(store, claim(store, run), STATE_SUCCEEDED, 0.5);
    assert_true(claim(store, run) > 0);
    int requeued;
    assert_ok(store_recover(store, 1, &requeued, &err), &err);
    assert_counts(store, id, 0, 0, 0, 1, 3, 0);
    assert_broken(store, id, "failed");
}

static void cancelling_a_sweep(void **state) {
    struct store *store = ((struct place *)*state)->store;
    char id[ID_SIZE], first[ID_SIZE], second[ID_SIZE], other[ID_SIZE], run[ID_SIZE];
    char(*running)[ID_SIZE];
    struct ovr_err err = {0};
    size_t n;
    post(store, "{" BASE ",'grid':{'/training/seed':[1,2,3,4]}}", id);
    post(store, "{" BASE ",'points':[{}]}", other);
    finish(store, claim(store, run), STATE_SUCCEEDED, 0.5);
    int64_t seq = claim(store, first);
    claim(store, second);
    assert_ok(store_cancel_sweep(store, id, &running, &n, &err), &err);
    assert_int_equal(n, 2);
    assert_string_equal(running[0], first);
    assert_string_equal(running[1], second);
    free(running);
    assert_counts(store, id, 0, 0, 0, 1, 0, 3);
    assert_int_equal(state_of_sweep(store, id), STATE_CANCELLED);
    struct outcome late = {.state = STATE_SUCCEEDED};
    assert_int_equal(store_finish(store, seq, &late, NULL), OVR_CONFLICT);
    assert_ok(store_cancel_sweep(store, id, &running, &n, &err), &err); /* twice is fine */
    assert_int_equal(n, 0);
    free(running);
    finish(store, claim(store, run), STATE_SUCCEEDED, 0.5);
    assert_failed(store_cancel_sweep(store, other, &running, &n, &err), OVR_CONFLICT, &err,
                  "already succeeded");
    err = (struct ovr_err){0};
    assert_failed(store_cancel_sweep(store, "nobody", &running, &n, &err), OVR_NOT_FOUND, &err,
                  "no sweep");
}

/* The λ of a claimed experiment. */
static double lambda_of(struct store *store, const char *id) {
    struct experiment e = look_up(store, id);
    json_t *spec = json_loads(e.spec, 0, NULL);
    double lambda = json_number_value(pointer_get(spec, "/loss/ovr/lambda"));
    json_decref(spec);
    experiment_release(&e);
    return lambda;
}

static int advance(struct store *store) {
    struct ovr_err err = {0};
    int added;
    assert_ok(sweeps_advance(store, &added, &err), &err);
    return added;
}

static void a_search_goes_on_over_restarts(void **state) {
    struct place *place = *state;
    char id[ID_SIZE], run[ID_SIZE];
    post(place->store,
         "{'name':'s'," BASE ",'target_sparsity':{'near_zero':0.8,'points':12},'repeats':2}", id);
    assert_int_equal(advance(place->store), 0); /* its ends have not ended */
    int n = 0;
    for (int64_t seq; (seq = claim(place->store, run)); n++) {
        double lambda = lambda_of(place->store, run);
        struct experiment e = look_up(place->store, run);
        char name[20];
        snprintf(name, sizeof name, "s %d.%d", n / 2, n % 2);
        assert_string_equal(e.name, name);
        assert_int_equal(e.point, n / 2);
        experiment_release(&e);
        /* The repeats lie on both sides of the curve: their mean counts. */
        finish(place->store, seq, STATE_SUCCEEDED, smooth(lambda) + (n % 2 ? 0.02 : -0.02));
        reopen_store(place);
        int added = advance(place->store);
        assert_true(added == 0 || (added == 2 && n % 2 == 1));
        assert_int_equal(advance(place->store), 0); /* nothing twice */
        assert_true(n < 24);
    }
    struct sweep sweep = read_sweep(place->store, id);
    assert_int_equal(sweep.more, 0);
    assert_int_equal(sweep.points, n / 2);
    assert_in_range(n / 2, 3, 12);
    assert_int_equal(sweep_state(&sweep), STATE_SUCCEEDED);
    sweep_release(&sweep);
}

static void a_search_survives_failures_but_not_cancelling(void **state) {
    struct store *store = ((struct place *)*state)->store;
    char id[ID_SIZE], run[ID_SIZE];
    char(*running)[ID_SIZE];
    struct ovr_err err = {0};
    size_t n;
    post(store, "{" BASE ",'target_sparsity':{'near_zero':0.8,'points':12}}", id);
    finish(store, claim(store, run), STATE_SUCCEEDED, 0.4);
    finish(store, claim(store, run), STATE_FAILED, 0); /* the upper end: too much */
    assert_int_equal(advance(store), 1);
    int64_t seq = claim(store, run);
    assert_near(lambda_of(store, run), 1e-4, 1e-9); /* half way, by logarithm */
    finish(store, seq, STATE_SUCCEEDED, 0.5);
    assert_int_equal(advance(store), 1);
    assert_ok(store_cancel_sweep(store, id, &running, &n, &err), &err);
    free(running);
    assert_int_equal(advance(store), 0);
    assert_int_equal(state_of_sweep(store, id), STATE_CANCELLED);
    assert_int_equal(claim(store, run), 0);
    /* Who comes late with a point of his own finds that it is over. */
    struct sweep sweep = read_sweep(store, id);
    assert_failed(store_extend_sweep(store, sweep.seq, sweep.points, &(struct new_points){0}, &err),
                  OVR_CONFLICT, &err, "meanwhile");
    sweep_release(&sweep);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        with_store(a_grid_has_every_combination),
        with_store(zip_moves_together_and_multiplies_with_a_grid),
        with_store(points_are_merged),
        with_store(axes_of_points),
        with_store(repeats_have_seeds_of_their_own),
        with_store(long_names_keep_their_numbers),
        with_store(random_points_follow_the_seed),
        with_store(a_chain_starts_from_the_one_before),
        with_store(costs_add_up),
        with_store(faults_lead_into_the_document),
        with_store(many_faults_are_bounded),
        with_store(every_allocation),
        cmocka_unit_test(searches_find_what_is_there),
        cmocka_unit_test(searches_end),
        with_store(a_sweep_from_start_to_end),
        with_store(lists_of_sweeps),
        with_store(a_key_makes_one_sweep),
        with_store(a_chain_runs_one_by_one),
        with_store(a_broken_chain_ends),
        with_store(cancelling_a_sweep),
        with_store(a_search_goes_on_over_restarts),
        with_store(a_search_survives_failures_but_not_cancelling),
    };
    return cmocka_run_group_tests_name("server/sweeps", tests, NULL, NULL);
}
