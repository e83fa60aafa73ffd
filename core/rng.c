#include "core/rng.h"

#include <math.h>

static void philox(struct rng *rng) {
    uint32_t *c = rng->block;
    uint32_t k0 = rng->key[0], k1 = rng->key[1];
    for (int i = 0; i < 4; i++)
        c[i] = rng->counter[i];
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c[0];
        uint64_t p1 = (uint64_t)0xCD9E8D57u * c[2];
        uint32_t c1 = c[1], c3 = c[3];
        c[0] = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c[1] = (uint32_t)p1;
        c[2] = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c[3] = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    rng->counter[0]++; /* 2^32 blocks a stream: more than any stream here draws */
    rng->used = 0;
}

void rng_init(struct rng *rng, uint64_t seed, enum rng_purpose purpose, uint32_t epoch,
              uint32_t index) {
    *rng = (struct rng){
        .key = {(uint32_t)seed, (uint32_t)(seed >> 32)},
        .counter = {0, index, epoch, (uint32_t)purpose},
        .used = 4,
    };
}

void rng_skip(struct rng *rng, uint64_t n) {
    rng->counter[0] += (uint32_t)(n / 4);
    for (uint64_t i = 0; i < n % 4; i++)
        rng_u32(rng);
}

uint32_t rng_u32(struct rng *rng) {
    if (rng->used == 4)
        philox(rng);
    return rng->block[rng->used++];
}

double rng_uniform(struct rng *rng) {
    uint64_t high = rng_u32(rng) >> 6, low = rng_u32(rng) >> 6;
    return ((double)(high << 26 | low) + 0.5) * 0x1p-52;
}

double rng_normal(struct rng *rng) {
    double u = rng_uniform(rng), v = rng_uniform(rng);
    return sqrt(-2 * log(u)) * cos(2 * M_PI * v);
}

uint32_t rng_below(struct rng *rng, uint32_t n) {
    uint32_t reject = -n % n; /* 2^32 mod n: the values below it would come once too often */
    for (;;) {
        uint64_t product = (uint64_t)rng_u32(rng) * n;
        if ((uint32_t)product >= reject)
            return (uint32_t)(product >> 32);
    }
}

void rng_permutation(struct rng *rng, uint32_t *order, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        uint32_t j = rng_below(rng, i + 1);
        order[i] = order[j];
        order[j] = i;
    }
}
