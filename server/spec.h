/* The experiment spec: JSON on the way in, `struct spec` for the program, completed JSON for the
 * store.
 *
 * One table in spec_fields.c says of every field its path, type, default, range, unit, help and
 * which model kinds, data sets and optimisers use it. Reading goes by the table: unknown members,
 * wrong types, values out of range and members that the kind does not use are all reported at once.
 */
#ifndef SERVER_SPEC_H
#define SERVER_SPEC_H

#include "core/err.h"
#include "core/train.h"
#include "core/utf8.h"
#include "server/executor.h"

#include <jansson.h>

enum { EXECUTOR_AUTO = N_EXECUTORS }; /* for the daemon to choose */

/* Limits of texts are in characters (core/utf8.h); sizes are in bytes, with the final NUL. */
enum {
    NAME_MOST = 200,
    NAME_SIZE = NAME_MOST * UTF8_MOST + 1,
    TAG_MOST = 64,
    TAGS_MOST = 16,
    TAGS_SIZE = TAGS_MOST * (TAG_MOST * UTF8_MOST + 2) + 2,
};

struct spec {
    char name[NAME_SIZE];
    char tags[TAGS_SIZE]; /* each between newlines: "\npaper\n"; "" without any */
    int priority, private;
    int generated; /* 1: sphere; 0: a stored data set */
    struct sphere_config sphere;
    char dataset[65], train_sha256[65], test_sha256[65];
    int64_t train_limit, test_limit; /* 0: all */
    struct class_list only_classes;  /* n = 0: all */
    char init_experiment[13];        /* whose weights to start from; "" for none */
    int init_last;                   /* its last epoch's instead of the best one's */
    double slope, threshold;         /* read into train.f */
    int hard_code, seeding;
    struct train_config train;
    int threads;               /* 0: auto; of each rank */
    int executor;              /* enum executor_kind or EXECUTOR_AUTO */
    int ranks;                 /* 0: auto */
    double time_limit_seconds; /* 0: none */
};

/* Reads `document` and completes it in place: defaults are filled in, what the kind does not use is
 * dropped. Appends
 * {"pointer", "detail"} to `faults` for every fault. Returns 0, OVR_INVALID when there were faults,
 * or OVR_NOMEM. */
int spec_read(json_t *document, struct spec *spec, json_t *faults, struct ovr_err *err);

/* Merges `patch`, an object, into a spec that has not been read yet, by RFC 7396 with two rules
 * that follow from what a spec is. A section whose patch says what it is (kind, name or generator)
 * takes the place of the old one whole, and so does a choice such as init or schedule, since
 * members of the one are none of the other. And null takes a member away, so that it has its
 * default, except where null is one of its values: "probe": null means no probe. Returns 0 or
 * OVR_NOMEM. */
int spec_patch(json_t *document, const json_t *patch, struct ovr_err *err);

/* Reads a spec that was stored by this program. */
int spec_read_stored(const char *text, struct spec *spec, struct ovr_err *err);

/* Writes the splits' versions, which spec->train_sha256 and test_sha256 hold, into the document. */
int spec_pin_version(json_t *document, const struct spec *spec, struct ovr_err *err);

/* JSON Schema (2020-12) of a spec, made from the same table (server/schema.c): what no schema can
 * say, such as sizes that depend on others, is left to spec_read(). NULL without memory. */
json_t *spec_schema(void);

/* 1 if it is a fit name for a data set: 1..64 of a-z A-Z 0-9 . _ -, not starting with a dot. */
int spec_dataset_name_is_valid(const char *name);

int spec_has_faults(const json_t *faults);

/* Appends one fault. The pointer is RFC 6901. Without memory for it null stands for the fault, so
 * that it still counts. */
void spec_fault(json_t *faults, const char *pointer, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
