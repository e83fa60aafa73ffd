#include "server/splits.h"

#include <string.h>

/* Columns that have names must have the same ones in the same order: else numbers would be taken
 * for each other. */
static int compare_features(const struct samples *train, const struct samples *test,
                            struct ovr_err *err) {
    const char *a = train->feature_names, *b = test->feature_names;
    for (size_t j = 0; a && b && j < train->d; j++) {
        if (strcmp(a, b))
            return ovr_fail(err, OVR_INVALID, "/dataset/name",
                            "value %zu of a sample is called \"%.60s\" in the training split and "
                            "\"%.60s\" in the test split; upload both with the same columns",
                            j, a, b);
        a += strlen(a) + 1;
        b += strlen(b) + 1;
    }
    return 0;
}

static int match_splits(struct samples *train, struct samples *test, struct ovr_err *err) {
    if (train->d != test->d)
        return ovr_fail(err, OVR_INVALID, "/dataset/name",
                        "the training samples have %zu values, the test samples %zu", train->d,
                        test->d);
    int rc = compare_features(train, test, err);
    return rc ? rc : samples_adopt_classes(test, train, err);
}

int splits_fit(const struct spec *spec, struct samples *train, struct samples *test,
               struct ovr_err *err) {
    int rc = spec->generated ? 0 : match_splits(train, test, err);
    if (!rc && spec->only_classes.n) {
        rc = samples_keep_classes(train, &spec->only_classes, err);
        rc = rc ? rc : samples_keep_classes(test, &spec->only_classes, err);
    }
    if (spec->train_limit > 0)
        train->n = min_size(train->n, (size_t)spec->train_limit);
    if (spec->test_limit > 0)
        test->n = min_size(test->n, (size_t)spec->test_limit);
    return rc;
}
