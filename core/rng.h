/* Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as
 * 1, 2, 3", SC 2011).
 *
 * A stream is named by (seed, purpose, epoch, index) and by nothing else: not by the order in which
 * streams are drawn, the thread that draws or what was drawn before. So every unit has its own
 * stream of initial weights and every epoch its own shuffle, and a run that is split over
 * threads or resumed in the middle draws the same numbers.
 */
#ifndef OVR_RNG_H
#define OVR_RNG_H

#include <stdint.h>

enum rng_purpose { /* stored results depend on these numbers: append, never renumber */
                   RNG_INIT = 1,        /* initial weights; index = unit */
                   RNG_SHUFFLE = 2,     /* order of samples; by epoch */
                   RNG_SPLIT = 3,       /* which samples are held out for validation */
                   RNG_SPHERE_CELL = 4, /* class of each cell of the sphere */
                   RNG_SPHERE_TRAIN = 5,
                   RNG_SPHERE_TEST = 6,
                   RNG_HEAD_INIT = 7, /* initial weights of a read-out; index = unit */
                   RNG_PROBE_SHUFFLE = 8,
                   RNG_CORRUPTION = 9,   /* by epoch; index = place of the sample in it */
                   RNG_CLASS_ORDER = 10, /* single-class batches: their order; by epoch */
                   RNG_CENTROIDS = 11,   /* k-means: the first ones; index = number of the choice */
                   RNG_SWEEP = 50,       /* random points; epoch = parameter, index = point */
                   RNG_DROPOUT = 64,     /* + layer; by epoch; index = place of the sample in it */
                   RNG_LAYER_INIT = 96,  /* + layer, above the first; index = unit */
};

struct rng {
    uint32_t key[2];
    uint32_t counter[4];
    uint32_t block[4];
    unsigned used;
};

void rng_init(struct rng *rng, uint64_t seed, enum rng_purpose purpose, uint32_t epoch,
              uint32_t index);
void rng_skip(struct rng *rng, uint64_t n); /* of a fresh stream: the first n of rng_u32() */
uint32_t rng_u32(struct rng *rng);
double rng_uniform(struct rng *rng);             /* open interval (0, 1), 53 bits */
double rng_normal(struct rng *rng);              /* mean 0, variance 1 (Box-Muller) */
uint32_t rng_below(struct rng *rng, uint32_t n); /* 0..n-1 without bias; n > 0 */

/* Puts a random permutation of 0..n-1 into `order` (Fisher-Yates). */
void rng_permutation(struct rng *rng, uint32_t *order, uint32_t n);

#endif
