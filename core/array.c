#include "core/intake.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DIMENSIONS_MAX = 4, HEADER_MAX = 1 << 16, CHUNK = 4096 };

struct array {
    struct rowfile_writer *writer;
    enum intake_format format;
    enum intake_part part;
    char *header;        /* HEADER_MAX + 1; its bytes so far */
    size_t used, wanted; /* bytes of the header that are needed to go on */
    int begun;           /* the header is read */
    char kind;           /* 'u', 'i', 'f', 'b' */
    size_t size;
    int big_endian;
    size_t n_dimensions;
    uint64_t dimensions[DIMENSIONS_MAX];
    uint64_t n, d, done;    /* values that came */
    unsigned char piece[8]; /* a value that has not come whole */
    size_t piece_used;
    uint16_t largest;
};

int array_new(struct array **out, const struct intake_config *config, struct rowfile_writer *writer,
              struct ovr_err *err) {
    if (config->part == INTAKE_WHOLE)
        return ovr_fail(err, OVR_INVALID, "format",
                        "%s has one array a file; send two, to …/features and to …/labels",
                        intake_names[config->format]);
    struct array *array = calloc(1, sizeof *array);
    if (array)
        array->header = malloc(HEADER_MAX + 1);
    if (!array || !array->header) {
        array_free(array);
        return ovr_nomem(err, "an array");
    }
    array->writer = writer;
    array->format = config->format;
    array->part = config->part;
    array->wanted = config->format == INTAKE_IDX ? 4 : 12;
    *out = array;
    return 0;
}

void array_free(struct array *array) {
    if (!array)
        return;
    free(array->header);
    free(array);
}

static int refuse(struct ovr_err *err, const char *what) {
    return ovr_fail(err, OVR_INVALID, "", "%s", what);
}

/* ---- IDX ---- */

static int read_idx_type(struct array *a, unsigned char type, struct ovr_err *err) {
    static const struct {
        unsigned char code;
        char kind;
        size_t size;
    } types[] = {{0x08, 'u', 1}, {0x09, 'i', 1}, {0x0b, 'i', 2},
                 {0x0c, 'i', 4}, {0x0d, 'f', 4}, {0x0e, 'f', 8}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (types[i].code == type) {
            a->kind = types[i].kind;
            a->size = types[i].size;
            a->big_endian = 1;
            return 0;
        }
    return ovr_fail(err, OVR_INVALID, "",
                    "type 0x%02x is none of IDX's: 08 and 09 bytes, 0B short, 0C int, 0D float, 0E "
                    "double",
                    type);
}

/* Called with the first 4 bytes and again with all of the header. */
static int read_idx_header(struct array *a, struct ovr_err *err) {
    const unsigned char *h = (const unsigned char *)a->header;
    if (h[0] || h[1])
        return refuse(err, "this is not an IDX file: its first two bytes are not 0");
    if (h[3] < 1 || h[3] > DIMENSIONS_MAX)
        return ovr_fail(err, OVR_INVALID, "", "the array has %u dimensions; 1 to 4 are read", h[3]);
    if (a->used == 4) {
        a->wanted = 4 + 4 * (size_t)h[3];
        return read_idx_type(a, h[2], err);
    }
    a->n_dimensions = h[3];
    for (size_t i = 0; i < a->n_dimensions; i++) {
        const unsigned char *b = h + 4 + 4 * i;
        a->dimensions[i] = (uint64_t)b[0] << 24 | (uint64_t)b[1] << 16 | (uint64_t)b[2] << 8 | b[3];
    }
    a->begun = 1;
    return 0;
}

/* ---- NPY ---- */

/* What stands behind 'key': in the header's dictionary, or NULL. */
static const char *npy_entry(const char *text, const char *key) {
    char quoted[32];
    snprintf(quoted, sizeof quoted, "'%s'", key);
    const char *at = strstr(text, quoted);
    if (!at) {
        snprintf(quoted, sizeof quoted, "\"%s\"", key);
        at = strstr(text, quoted);
    }
    if (!at)
        return NULL;
    at += strlen(quoted);
    at += strspn(at, " ");
    return *at == ':' ? at + 1 + strspn(at + 1, " ") : NULL;
}

/* How much of what stands behind 'descr': is the type, for a message. */
static int type_length(const char *text) {
    size_t n = strspn(text, "'\"") ? strcspn(text + 1, "'\"") + 2 : strlen(text);
    return n < 20 ? (int)n : 20;
}

static int read_npy_type(struct array *a, const char *text, struct ovr_err *err) {
    char order, kind, end;
    unsigned size;
    if (!text || sscanf(text, "%*1['\"]%c%c%1u%c", &order, &kind, &size, &end) != 4 ||
        (end != '\'' && end != '"') || !strchr("<>|=", order) || !strchr("uifb", kind) ||
        (kind == 'f' && size != 4 && size != 8) || (kind == 'b' && size != 1) ||
        (size != 1 && size != 2 && size != 4 && size != 8))
        return ovr_fail(err, OVR_INVALID, "",
                        "the array's type %.*s is not read; save whole numbers (1 to 8 bytes) or "
                        "float32 or float64, as with x.astype('float32')",
                        text ? type_length(text) : 20, text ? text : "is missing and");
    a->kind = kind;
    a->size = size;
    a->big_endian = order == '>';
    return 0;
}

static int read_npy_shape(struct array *a, const char *text, struct ovr_err *err) {
    static const char what[] = "the array's header has no shape of 1 to 4 dimensions";
    if (!text || *text != '(')
        return refuse(err, what);
    text += 1 + strspn(text + 1, " ");
    while (*text != ')') {
        size_t digits = strspn(text, "0123456789");
        if (!digits || digits > 18 || a->n_dimensions == DIMENSIONS_MAX)
            return refuse(err, what);
        a->dimensions[a->n_dimensions++] = strtoull(text, NULL, 10);
        text += digits;
        text += *text == 'L'; /* of Python 2 */
        text += strspn(text, " ");
        if (*text != ',' && *text != ')')
            return refuse(err, what);
        text += *text == ',';
        text += strspn(text, " ");
    }
    return a->n_dimensions ? 0 : refuse(err, what);
}

static int read_npy_dictionary(struct array *a, const char *text, struct ovr_err *err) {
    const char *order = npy_entry(text, "fortran_order");
    int rc = read_npy_type(a, npy_entry(text, "descr"), err);
    rc = rc ? rc : read_npy_shape(a, npy_entry(text, "shape"), err);
    if (!rc && (!order || (strncmp(order, "False", 5) && strncmp(order, "True", 4))))
        rc = refuse(err, "the array's header has no fortran_order");
    if (!rc && *order == 'T' && a->n_dimensions > 1)
        rc = refuse(err, "the array is in Fortran order; save numpy.ascontiguousarray(x)");
    a->begun = !rc;
    return rc;
}

/* Called with the first 12 bytes, and again with all of the header. */
static int read_npy_header(struct array *a, struct ovr_err *err) {
    const unsigned char *h = (const unsigned char *)a->header;
    if (memcmp(h, "\x93NUMPY", 6))
        return refuse(err, "this is not an NPY file: it does not begin with \\x93NUMPY");
    if (h[6] < 1 || h[6] > 3)
        return ovr_fail(err, OVR_INVALID, "", "NPY of version %u is not read; 1 to 3 are", h[6]);
    size_t start = h[6] == 1 ? 10 : 12;
    size_t length = (size_t)(h[8] | h[9] << 8);
    if (h[6] > 1)
        length |= (size_t)h[10] << 16 | (size_t)h[11] << 24;
    if (length < 12 || start + length > HEADER_MAX)
        return refuse(err, "the NPY header has an impossible length");
    a->wanted = start + length;
    if (a->used < a->wanted)
        return 0;
    a->header[a->used] = '\0';
    return read_npy_dictionary(a, a->header + start, err);
}

/* ---- What the header says ---- */

static struct image_shape find_image(const struct array *a) {
    const uint64_t *m = a->dimensions + 1;
    if (a->n_dimensions == 3)
        return (struct image_shape){1, m[0], m[1], 0};
    if (a->n_dimensions == 4 && (m[0] == 1 || m[0] == 3))
        return (struct image_shape){m[0], m[1], m[2], 0};
    if (a->n_dimensions == 4 && (m[2] == 1 || m[2] == 3))
        return (struct image_shape){m[2], m[0], m[1], m[2] > 1};
    return (struct image_shape){0};
}

static int check_shape(struct array *a, struct ovr_err *err) {
    a->n = a->dimensions[0];
    a->d = 1;
    for (size_t i = 1; i < a->n_dimensions; i++) {
        if (a->dimensions[i] > VALUES_MAX || a->d * a->dimensions[i] > VALUES_MAX)
            return ovr_fail(err, OVR_INVALID, "", "a sample has more than %d values", VALUES_MAX);
        a->d *= a->dimensions[i];
    }
    if (a->n == 0 || a->d == 0)
        return refuse(err, "the array is empty: one of its dimensions is 0");
    if (a->n > UINT32_MAX)
        return ovr_fail(err, OVR_TOO_LARGE, "", "more than %u samples", UINT32_MAX);
    if (a->part == INTAKE_LABELS && a->d != 1)
        return ovr_fail(err, OVR_INVALID, "",
                        "labels are one number a sample, this array has %llu; of one-hot rows take "
                        "x.argmax(1)",
                        (unsigned long long)a->d);
    return 0;
}

static int read_header(struct array *a, const char **bytes, size_t *n, struct ovr_err *err) {
    while (*n && !a->begun) {
        size_t part = min_size(*n, a->wanted - a->used);
        memcpy(a->header + a->used, *bytes, part);
        a->used += part;
        *bytes += part;
        *n -= part;
        if (a->used < a->wanted)
            return 0;
        int rc = a->format == INTAKE_IDX ? read_idx_header(a, err) : read_npy_header(a, err);
        if (!rc && a->begun)
            rc = check_shape(a, err);
        if (rc)
            return rc;
    }
    return 0;
}

/* ---- Values ---- */

static double to_double(const struct array *a, const unsigned char *bytes) {
    uint64_t bits = 0;
    for (size_t i = 0; i < a->size; i++)
        bits |= (uint64_t)bytes[a->big_endian ? a->size - 1 - i : i] << 8 * i;
    if (a->kind == 'f' && a->size == 8) {
        double value;
        memcpy(&value, &bits, sizeof value);
        return value;
    }
    if (a->kind == 'f') {
        uint32_t half = (uint32_t)bits;
        float value;
        memcpy(&value, &half, sizeof value);
        return (double)value;
    }
    if (a->kind != 'i')
        return (double)bits;
    unsigned shift = 64 - 8 * (unsigned)a->size;
    return (double)((int64_t)(bits << shift) >> shift);
}

static int put_label(struct array *a, double value, struct ovr_err *err) {
    if (!(value >= 0 && value < CLASSES_MAX && value == floor(value)))
        return ovr_fail(err, OVR_INVALID, "",
                        "the label of sample %llu (from 0) is %g; labels are whole numbers 0..%d",
                        (unsigned long long)a->done, value, CLASSES_MAX - 1);
    uint16_t label = (uint16_t)value;
    a->largest = label > a->largest ? label : a->largest;
    return rowfile_put_label(a->writer, label, err);
}

/* n whole values, at most CHUNK. */
static int put_values(struct array *a, const unsigned char *bytes, size_t n, struct ovr_err *err) {
    float row[CHUNK];
    int rc = 0;
    if (n > a->n * a->d - a->done)
        return ovr_fail(err, OVR_INVALID, "",
                        "there are more bytes than the header's %llu samples of %llu values take",
                        (unsigned long long)a->n, (unsigned long long)a->d);
    for (size_t i = 0; !rc && a->part == INTAKE_LABELS && i < n; i++, a->done++)
        rc = put_label(a, to_double(a, bytes + i * a->size), err);
    if (a->part == INTAKE_LABELS)
        return rc;
    if (a->kind != 'f' && a->kind != 'i' && a->size == 1) {
        a->done += n;
        return rowfile_put_bytes(a->writer, bytes, n, err);
    }
    for (size_t i = 0; i < n; i++, a->done++) {
        double value = to_double(a, bytes + i * a->size);
        row[i] = (float)value;
        if (!isfinite(row[i]))
            return ovr_fail(err, OVR_INVALID, "", "value %llu of sample %llu (both from 0) is %g%s",
                            (unsigned long long)(a->done % a->d),
                            (unsigned long long)(a->done / a->d), value,
                            isfinite(value) ? ", too large for a 32-bit number"
                                            : "; only finite numbers are taken");
    }
    return rowfile_put_floats(a->writer, row, n, err);
}

/* Completes a value of which a part came before. */
static int put_piece(struct array *a, const char **bytes, size_t *n, struct ovr_err *err) {
    size_t part = min_size(*n, a->size - a->piece_used);
    memcpy(a->piece + a->piece_used, *bytes, part);
    a->piece_used += part;
    *bytes += part;
    *n -= part;
    if (a->piece_used < a->size)
        return 0;
    a->piece_used = 0;
    return put_values(a, a->piece, 1, err);
}

int array_write(struct array *a, const char *bytes, size_t n, struct ovr_err *err) {
    int rc = read_header(a, &bytes, &n, err);
    if (!rc && n && a->piece_used)
        rc = put_piece(a, &bytes, &n, err);
    while (!rc && n && n >= a->size) {
        size_t whole = min_size(n / a->size, CHUNK);
        rc = put_values(a, (const unsigned char *)bytes, whole, err);
        bytes += whole * a->size;
        n -= whole * a->size;
    }
    return rc || !n ? rc : put_piece(a, &bytes, &n, err);
}

int array_finish(struct array *a, struct rowfile_end *end, struct ovr_err *err) {
    if (!a->begun)
        return refuse(err, a->used ? "the file ends within its header" : "the file is empty");
    if (a->done == a->n * a->d && a->piece_used)
        return refuse(err, "there are bytes behind the last value");
    if (a->done < a->n * a->d)
        return ovr_fail(err, OVR_INVALID, "",
                        "the file is cut off: its header says %llu samples of %llu values, %llu "
                        "values came",
                        (unsigned long long)a->n, (unsigned long long)a->d,
                        (unsigned long long)a->done);
    *end = (struct rowfile_end){.n = a->n};
    if (a->part == INTAKE_LABELS) {
        end->n_classes = (size_t)a->largest + 1;
    } else {
        end->d = a->d;
        end->image = find_image(a);
    }
    return 0;
}
