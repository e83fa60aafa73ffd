/* The table of a spec's fields, and the words that are choices. server/spec.c reads by it. */
#ifndef SERVER_SPEC_FIELDS_H
#define SERVER_SPEC_FIELDS_H

#include "server/spec.h"

enum type {
    T_SECTION, /* object; the rows below its path are its members. int: is it there? */
    T_VARIANT, /* one of the choices, as a name or as an object with that one member. int */
    T_STEPS,   /* array of objects, each a variant "<path>/" + index */
    T_TEXT,    /* string of min..max characters. char[] */
    T_DATASET, /* a data set's name. char[65] */
    T_SHA256,  /* 64 hexadecimal digits. char[65] */
    T_CHOICE,  /* one of the choices. int */
    T_FLAG,    /* true or false. int */
    T_INT,     /* integer. int */
    T_COUNT,   /* integer. 64 bits */
    T_REAL,    /* number. double */
    T_AUTO,    /* "auto" (0) or an integer. int */
    T_TAGS,    /* array of strings. char[], each between newlines */
    T_ID,      /* of an experiment. char[13] */
    T_HIDDEN,  /* array of the hidden layers' sizes. train.hidden */
    T_DROPOUT, /* array of a share for each hidden layer, or one for all. train.dropout */
    T_LAYERS,  /* array of hidden layers' numbers. unsigned, a bit for each */
    T_CLASSES, /* array of classes. struct class_list */
    T_SCALE,   /* number, or section. double */
};

/* Model kinds. */
enum {
    ENCODER = 1 << MODEL_OVR_ENCODER,
    MLP = 1 << MODEL_MLP,
    AUTOENCODER = 1 << MODEL_AUTOENCODER,
    KMEANS = 1 << MODEL_KMEANS | 1 << MODEL_ONLINE_KMEANS,
    PROJECTION = 1 << MODEL_RANDOM_PROJECTION,
    PCA = 1 << MODEL_PCA,
    GRADIENT = ENCODER | MLP | AUTOENCODER, /* trained by an optimiser */
    EPOCHS = GRADIENT | KMEANS,
    HIDDEN = EPOCHS | PROJECTION | PCA,
};
enum { STORED = 1, GENERATED = 2 };
enum {
    ADAM = 1 << OPT_ADAM,
    ADAMW = 1 << OPT_ADAMW,
    SGD = 1 << OPT_SGD,
    RMSPROP = 1 << OPT_RMSPROP,
    ADAMS = ADAM | ADAMW,
};

enum {
    REQUIRED = 1,
    NULLABLE = 2, /* null: not there, or 0 */
    ABOVE = 4,    /* min itself is not allowed */
    NOWHERE = 8,  /* not kept in the struct */
    LIBERAL = 16, /* where it is not used it is dropped instead of refused */
};

struct field {
    const char *path;
    enum type type;
    int flags;
    size_t offset; /* in struct spec; below "/preprocess/" + index in struct preprocess_step */
    double min, max;
    const char *standard;       /* default as JSON; NULL: none */
    const char *standard_other; /* where it is another one for the kinds of `others` */
    int others;
    const char *const *choices;
    int kinds, data, optimizers, activations; /* who uses it; 0: everybody */
    const char *instead_of;                   /* a member beside it that must not be there too */
    const char *beside;                       /* the member of a variant that it goes with */
    const char *help;
};

extern const struct field spec_fields[];
extern const int n_spec_fields;

/* The words of /model/kind, /model/activation and /optimizer/name. */
extern const char *const spec_kinds[], *const spec_activations[], *const spec_optimizers[];

/* Beside those of enum init. */
enum { FROM_EXPERIMENT = INIT_HE + 1 };

#endif
