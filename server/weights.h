/* Learned weights on disk: one NPY file for each tensor, so that numpy reads them as they lie.
 *
 *   DATA_DIR/experiments/<id>/best/<tensor>.npy     weights of the best epoch, preprocessing, probe
 *   DATA_DIR/experiments/<id>/last/<tensor>.npy     weights after the last epoch
 *   DATA_DIR/experiments/<id>/units/<layer>.<part>.npy    what its units do (core/units.h)
 *
 * The directory appears whole, by a rename, before the store says that the experiment succeeded.
 *
 *   encoder.weight K×D, encoder.bias K         of one hidden layer
 *   encoder.<l>.weight, encoder.<l>.bias       of several
 *   decoder.weight D×K (not tied), decoder.bias D                               autoencoder
 *   hidden.<l>.weight K×D, hidden.<l>.bias K, output.weight C×K, output.bias C  mlp
 *   centroids K×D, counts K: of how many samples each is the mean               k-means
 *   preprocess.<i>.mean D, .scale D             standardize, scale: (x − mean)·scale
 *   preprocess.<i>.mean D, .components k×D      pca, zca: components·(x − mean)
 *   preprocess.<i>.epsilon 1                    contrast
 *   probe.weight C×K, probe.bias C
 */
#ifndef SERVER_WEIGHTS_H
#define SERVER_WEIGHTS_H

#include "core/train.h"
#include "server/digest.h"
#include "server/store.h"

enum { MAX_TENSORS = 2 * PARTS_MAX + 2 + 2 * PREPROCESS_MAX };

/* What was written of a result. */
struct saved {
    struct tensor tensors[MAX_TENSORS];
    size_t n;
    char best[DIGEST_SIZE], last[DIGEST_SIZE]; /* SHA-256 of the flat buffers (core/net.h) */
};

/* Writes all tensors of a result. After a failure *saved lists none. */
int weights_save(const char *data_dir, const char *id, enum model_kind kind,
                 const struct train_result *result, struct saved *saved, struct ovr_err *err);

/* The same files in a directory of any name, in whose place they come. Called by every rank of the
 * team that trained; the first one writes, and has *saved and what went wrong. It never holds more
 * of the others' weights than STREAM_BYTES. NULL: there was one rank. */
int weights_write(struct team *team, const char *directory, enum model_kind kind,
                  const struct train_result *result, struct saved *saved, struct ovr_err *err);

/* The digest of a flat buffer, such as a net's params; by every rank, for the first one. */
int weights_digest(struct team *team, const struct net *net, const real *params,
                   char hex[DIGEST_SIZE], struct ovr_err *err);

/* The parts of that: the directory with its three, unless they are there, and the final name, once
 * all files are on disk. */
int weights_make_directories(const char *directory, struct ovr_err *err);
int weights_publish(const char *directory, const char *data_dir, const char *id,
                    struct ovr_err *err);

/* Removes what weights_save() wrote: for a result that came too late. */
void weights_remove(const char *data_dir, const char *id);

/* Weights of an earlier experiment, for a net to start from. */
struct weights {
    struct initial initial;
    float *numbers; /* owned */
};

/* Which of the tensors of an epoch are parts of a net; found[i] is parts[i]'s. Returns how many. */
size_t weights_list_parts(const struct tensor *tensors, size_t n_tensors, const char *epoch,
                          struct net_part parts[PARTS_MAX], const struct tensor *found[PARTS_MAX]);

/* Reads all of them. The caller releases *weights, which is empty after a failure. */
int weights_load(const char *data_dir, const char *id, const struct tensor *tensors,
                 size_t n_tensors, const char *epoch, struct weights *weights, struct ovr_err *err);
void weights_release(struct weights *weights);

/* One tensor, rows×columns. */
int weights_read(const char *data_dir, const char *id, const struct tensor *tensor, float *numbers,
                 struct ovr_err *err);

/* Where a tensor that the store lists lies. */
void weights_path(const char *data_dir, const char *id, const struct tensor *tensor, char *path,
                  size_t size);

/* The parts of a layer's table of units: "table" K×UNIT_FIGURES, "classes" K×C, and with cells of
 * the sphere "cells" K×cells and "cell_samples" cells. All float32. */
void weights_units_path(const char *data_dir, const char *id, int layer, const char *part,
                        char *path, size_t size);

/* Makes DATA_DIR/experiments and removes what a killed daemon left half written. */
int weights_init(const char *data_dir, struct ovr_err *err);

#endif
