#include "core/eigen.h"

#include "core/linalg.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum {
    DEPTH = 32,  /* reflectors of a panel: rows reduced between two updates of the matrix */
    CHUNK = 128, /* elements of a row that one member works on at once */
    PARTS = 16,  /* partial vectors of the matrix-vector product */
    DOTS = 8,    /* rows of the panel that one member multiplies by the reflector at once */
    TILE = 256,  /* rows and columns of the matrix that are updated at once */
    BACK = 64,   /* reflectors applied to the eigenvectors at once */
    SLICE = 64,  /* eigenvectors that they are applied to at once */
};

/* One decomposition. While row i is reduced to (0 … 0 e_i-1 d_i), the reflector
 * H_i = I - tau_i v vᵀ has elements 0 .. i-1, the last one 1, and the matrix that is left is
 * A_0..i-1 - V Wᵀ - W Vᵀ with the panel's reflectors so far in the rows of V. */
struct eigen {
    size_t n, k;
    double *a, *vectors;
    const struct kernels *kernels;
    const _Atomic int *stop;
    _Atomic int stopped;
    double *diagonal, *off, *tau; /* n each: T, and the factors of the reflectors */
    double *panel;                /* 3·DEPTH×n: V, W, V again */
    double *row;                  /* n: row i of what is left of the matrix */
    double *parts;                /* PARTS×n: partial products */
    double *own;                  /* for each member n: v */
    double *squares, *pulls;      /* a partial sum for each chunk: ‖row‖², w·v */
    double dots[2 * DEPTH];       /* V v, W v */
    double tip;                   /* the newest w's last element, see finish_w() */
    double *factors;              /* for each BACK reflectors BACK×BACK: see block_factor() */
    double *slices;               /* for each member 2·SLICE×BACK */
};

/* The panel that is being worked on: `depth` rows, of which `filled` have their v and w. */
struct panel {
    size_t depth, filled;
    double *v, *w; /* depth×n */
};

static size_t n_chunks(size_t n) {
    return (n + CHUNK - 1) / CHUNK;
}

static double sum(const double *x, size_t n) {
    double total = 0;
    for (size_t i = 0; i < n; i++)
        total += x[i];
    return total;
}

/* How much of v the newest w still lacks: w = w' - tau/2 (w'·v) v. */
static double missing(const struct eigen *eigen, const struct panel *panel, size_t i) {
    return panel->filled ? -0.5 * eigen->tau[i + 1] * sum(eigen->pulls, n_chunks(i + 1)) : 0;
}

/* Elements from .. to - 1 of the newest w. Another member may want the last element of all, which
 * is at hand in `tip`, at the same time. */
static void finish_w(struct eigen *eigen, const struct panel *panel, double pull, size_t from,
                     size_t to) {
    size_t newest = (panel->filled - 1) * eigen->n;
    for (size_t j = from; j < to; j++)
        panel->w[newest + j] += pull * panel->v[newest + j];
}

/* Row i as the panel's reflectors leave it, and the square of its norm without the last two
 * elements. */
static void renew_row(struct member *member, struct eigen *eigen, const struct panel *panel,
                      size_t i) {
    size_t n = eigen->n, filled = panel->filled;
    double of_v[DEPTH], of_w[DEPTH], pull = missing(eigen, panel, i);
    for (size_t p = 0; p < filled; p++) {
        of_v[p] = panel->v[p * n + i];
        of_w[p] = p + 1 < filled ? panel->w[p * n + i] : eigen->tip + pull;
    }
    for (size_t c = (size_t)member->rank; c * CHUNK <= i; c += (size_t)member->size) {
        size_t from = c * CHUNK, to = min_size(from + CHUNK, i + 1);
        memcpy(eigen->row + from, eigen->a + i * n + from, (to - from) * sizeof *eigen->row);
        if (filled) {
            finish_w(eigen, panel, pull, from, to);
            linalg_gemv64(1, filled, to - from, -1, panel->v + from, n, of_w, 1, eigen->row + from);
            linalg_gemv64(1, filled, to - from, -1, panel->w + from, n, of_v, 1, eigen->row + from);
        }
        double squares = 0;
        for (size_t j = from; j + 1 < i && j < to; j++)
            squares += eigen->row[j] * eigen->row[j];
        eigen->squares[c] = squares;
    }
}

/* The reflector that makes row i (0 … 0 e d): v into this member's own copy, and this member's
 * chunks of it into the panel and, for the way back, over the row in the matrix. */
static double *reflect(struct member *member, struct eigen *eigen, const struct panel *panel,
                       size_t i) {
    size_t n = eigen->n, rank = (size_t)member->rank, size = (size_t)member->size;
    double *v = eigen->own + rank * n, squares = sum(eigen->squares, n_chunks(i));
    double last = eigen->row[i - 1], beta = last, tau = 0, scale = 0;
    if (squares != 0) {
        beta = -copysign(sqrt(last * last + squares), last);
        tau = (beta - last) / beta;
        scale = 1 / (last - beta);
    }
#pragma omp simd
    for (size_t j = 0; j < i; j++)
        v[j] = scale * eigen->row[j];
    v[i - 1] = 1;
    for (size_t from = rank * CHUNK; from < i; from += size * CHUNK) {
        size_t bytes = (min_size(from + CHUNK, i) - from) * sizeof *v;
        memcpy(panel->v + panel->filled * n + from, v + from, bytes);
        memcpy(panel->v + (2 * panel->depth + panel->filled) * n + from, v + from, bytes);
        memcpy(eigen->a + i * n + from, v + from, bytes);
    }
    if (rank == 0) {
        eigen->diagonal[i] = eigen->row[i];
        eigen->off[i - 1] = beta;
        eigen->tau[i] = tau;
    }
    return v;
}

/* First row of a part: parts have about the same number of elements in the triangle of i rows. */
static size_t part_start(size_t i, size_t part) {
    if (part == PARTS)
        return i;
    return (size_t)((double)i * sqrt((double)part / PARTS)) / 8 * 8;
}

/* Partial vectors of A v, V v and W v. Reading A takes most of the time of the whole. */
static void multiply(struct member *member, struct eigen *eigen, const struct panel *panel,
                     size_t i, const double *v) {
    size_t n = eigen->n, first, end;
    team_share(member, PARTS, &first, &end);
    for (size_t part = first; part < end; part++) {
        double *sums = eigen->parts + part * n;
        size_t from = part_start(i, part), to = part_start(i, part + 1);
        memset(sums, 0, to * sizeof *sums);
        eigen->kernels->symmetric_product(eigen->a, n, from, to, v, sums);
    }
    size_t per_matrix = (panel->filled + DOTS - 1) / DOTS;
    for (size_t t = (size_t)member->rank; t < 2 * per_matrix; t += (size_t)member->size) {
        int is_w = t >= per_matrix;
        size_t from = (is_w ? t - per_matrix : t) * DOTS;
        linalg_gemv64(0, min_size(DOTS, panel->filled - from), i, 1,
                      (is_w ? panel->w : panel->v) + from * n, n, v, 0,
                      eigen->dots + (is_w ? DEPTH : 0) + from);
    }
}

/* w' = tau (A v - V (Wᵀv) - W (Vᵀv)), chunk by chunk, and w'·v. */
static void add_up(struct member *member, struct eigen *eigen, const struct panel *panel, size_t i,
                   const double *v) {
    size_t n = eigen->n, filled = panel->filled;
    double *w = panel->w + filled * n, tau = eigen->tau[i];
    for (size_t c = (size_t)member->rank; c * CHUNK < i; c += (size_t)member->size) {
        size_t from = c * CHUNK, to = min_size(from + CHUNK, i);
        memset(w + from, 0, (to - from) * sizeof *w);
        for (size_t part = 0; part < PARTS; part++) {
            const double *x = eigen->parts + part * n;
            size_t last = min_size(to, part_start(i, part + 1));
#pragma omp simd
            for (size_t j = from; j < last; j++)
                w[j] += x[j];
        }
        if (filled) {
            linalg_gemv64(1, filled, to - from, -1, panel->v + from, n, eigen->dots + DEPTH, 1,
                          w + from);
            linalg_gemv64(1, filled, to - from, -1, panel->w + from, n, eigen->dots, 1, w + from);
        }
        double pull = 0;
        for (size_t j = from; j < to; j++) {
            w[j] *= tau;
            pull += w[j] * v[j];
        }
        eigen->pulls[c] = pull;
        if (to == i)
            eigen->tip = w[i - 1];
    }
}

/* A -= V Wᵀ + W Vᵀ in the lower triangle of the m rows that are left. */
static void update_matrix(struct member *member, struct eigen *eigen, const struct panel *panel,
                          size_t m) {
    size_t n = eigen->n, t = 0;
    for (size_t r = 0; r < m; r += TILE)
        for (size_t c = 0; c <= r; c += TILE, t++)
            if (t % (size_t)member->size == (size_t)member->rank)
                linalg_gemm64(1, 0, min_size(TILE, m - r), min_size(TILE, m - c), 2 * panel->depth,
                              -1, panel->v + r, n, panel->w + c, n, 1, eigen->a + r * n + c, n);
}

/* Rows below `top` and from top - depth on. */
static void reduce_panel(struct member *member, struct eigen *eigen, size_t top, size_t depth) {
    size_t n = eigen->n, left = top - depth;
    struct panel panel = {
        .depth = depth, .v = eigen->panel, .w = eigen->panel + depth * n}; /* V follows again */
    for (size_t i = top - 1; i >= left; i--, panel.filled++) {
        renew_row(member, eigen, &panel, i);
        team_barrier(member);
        const double *v = reflect(member, eigen, &panel, i);
        multiply(member, eigen, &panel, i, v);
        team_barrier(member);
        add_up(member, eigen, &panel, i, v);
        team_barrier(member);
    }
    double pull = missing(eigen, &panel, left - 1);
    for (size_t from = (size_t)member->rank * CHUNK; from < left;
         from += (size_t)member->size * CHUNK)
        finish_w(eigen, &panel, pull, from, min_size(from + CHUNK, left));
    team_barrier(member);
    update_matrix(member, eigen, &panel, left);
    team_barrier(member);
}

static void reduce(struct member *member, void *arg) {
    struct eigen *eigen = arg;
    size_t depth;
    for (size_t top = eigen->n; top > 1; top -= depth) {
        depth = min_size(DEPTH, top - 1);
        if (team_agree(member, eigen->stop)) {
            eigen->stopped = 1;
            return;
        }
        reduce_panel(member, eigen, top, depth);
    }
    if (member->rank == 0)
        eigen->diagonal[0] = eigen->a[0];
}

/* H_end-1 … H_first = I - Vᵀ S V with the reflectors in the rows of V and a lower triangle S, which
 * goes to `s` (BACK×BACK). What is right of the reflectors in V becomes zero. */
static void block_factor(struct eigen *eigen, size_t first, size_t end, double *s) {
    size_t n = eigen->n, size = end - first, width = end - 1;
    double *v = eigen->a + first * n, gram[BACK * BACK];
    for (size_t j = 0; j < size; j++)
        for (size_t i = first + j; i < width; i++)
            v[j * n + i] = 0;
    linalg_gemm64(0, 1, size, size, width, 1, v, n, v, n, 0, gram, BACK);
    for (size_t j = 0; j < size; j++) {
        double tau = eigen->tau[first + j];
        for (size_t i = 0; i < size; i++)
            s[j * BACK + i] = i == j ? tau : 0;
        for (size_t l = 0; l < j; l++)
            for (size_t i = 0; i <= l; i++)
                s[j * BACK + i] -= tau * gram[j * BACK + l] * s[l * BACK + i];
    }
}

/* Eigenvectors y of T in the rows of z to those of A: z <- z - ((z Vᵀ) Sᵀ) V for every block. */
static void transform_back(struct eigen *eigen, double *z, size_t rows, double *products) {
    size_t n = eigen->n;
    double *shares = products + SLICE * BACK;
    for (size_t first = 1, b = 0; first < n; first += BACK, b++) {
        size_t size = min_size(BACK, n - first), width = first + size - 1;
        const double *v = eigen->a + first * n;
        linalg_gemm64(0, 1, rows, size, width, 1, z, n, v, n, 0, products, BACK);
        linalg_gemm64(0, 1, rows, size, size, 1, products, BACK, eigen->factors + b * BACK * BACK,
                      BACK, 0, shares, BACK);
        linalg_gemm64(0, 0, rows, width, size, -1, shares, BACK, v, n, 1, z, n);
    }
}

static void back(struct member *member, void *arg) {
    struct eigen *eigen = arg;
    size_t n = eigen->n, rank = (size_t)member->rank, first, end;
    for (size_t b = rank; 1 + b * BACK < n; b += (size_t)member->size)
        block_factor(eigen, 1 + b * BACK, min_size(1 + (b + 1) * BACK, n),
                     eigen->factors + b * BACK * BACK);
    team_barrier(member);
    team_share(member, (eigen->k + SLICE - 1) / SLICE, &first, &end);
    for (size_t slice = first; slice < end; slice++) {
        if (eigen->stop && atomic_load(eigen->stop))
            eigen->stopped = 1;
        if (eigen->stopped)
            return;
        transform_back(eigen, eigen->vectors + slice * SLICE * n,
                       min_size(SLICE, eigen->k - slice * SLICE),
                       eigen->slices + rank * 2 * SLICE * BACK);
    }
}

static int stopped(const struct eigen *eigen, struct ovr_err *err) {
    return eigen->stopped
               ? ovr_fail(err, OVR_STOPPED, NULL, "stopped while eigenvectors were computed")
               : 0;
}

/* What the arrays of struct eigen need, in doubles. */
static size_t room(size_t n, int members) {
    size_t blocks = (n + BACK - 1) / BACK, m = (size_t)members;
    return (3 + 3 * DEPTH + 1 + PARTS + m) * n + 2 * n_chunks(n) + blocks * BACK * BACK +
           m * 2 * SLICE * BACK;
}

static void lay_out(struct eigen *eigen, double *at, int members) {
    size_t n = eigen->n;
    eigen->panel = at;
    eigen->row = eigen->panel + 3 * DEPTH * n;
    eigen->parts = eigen->row + n;
    eigen->own = eigen->parts + PARTS * n;
    eigen->diagonal = eigen->own + (size_t)members * n;
    eigen->off = eigen->diagonal + n;
    eigen->tau = eigen->off + n;
    eigen->squares = eigen->tau + n;
    eigen->pulls = eigen->squares + n_chunks(n);
    eigen->factors = eigen->pulls + n_chunks(n);
    eigen->slices = eigen->factors + (n + BACK - 1) / BACK * BACK * BACK;
}

/* Reflections keep the matrix' norm, so that whatever is not finite in it is seen here. */
static int is_finite(const struct eigen *eigen) {
    double norm = 0;
    for (size_t i = 0; i < eigen->n; i++)
        norm += fabs(eigen->diagonal[i]) + (i + 1 < eigen->n ? fabs(eigen->off[i]) : 0);
    return isfinite(norm);
}

int eigen_symmetric(struct team *team, const struct kernels *kernels, size_t n, size_t k, double *a,
                    double *values, double *vectors, const _Atomic int *stop, struct ovr_err *err) {
    struct eigen eigen = {
        .n = n, .k = k, .a = a, .vectors = vectors, .kernels = kernels, .stop = stop};
    double *arrays = ovr_malloc(room(n, team_size(team)), sizeof *arrays);
    if (!arrays)
        return ovr_nomem(err, "the eigenvectors of a matrix");
    lay_out(&eigen, arrays, team_size(team));
    team_run(team, reduce, &eigen);
    int rc = stopped(&eigen, err);
    if (!rc && !is_finite(&eigen))
        rc = ovr_fail(err, OVR_INVALID, NULL, "a matrix has elements that are not finite");
    if (!rc)
        rc = linalg_tridiagonal(n, 0, k, eigen.diagonal, eigen.off, values, vectors, err);
    if (!rc) {
        team_run(team, back, &eigen);
        rc = stopped(&eigen, err);
    }
    free(arrays);
    return rc;
}

size_t eigen_memory(size_t n, size_t k, int members) {
    return room(n, members) * sizeof(double) + linalg_tridiagonal_memory(n, k);
}
