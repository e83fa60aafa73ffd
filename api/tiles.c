#include "api/tiles.h"

#include "api/png.h"
#include "api/problem.h"

#include <math.h>
#include <stdlib.h>

enum {
    PIXELS_MAX = 1 << 24, /* of one picture */
    GAP = 1,              /* pixels between images */
};

struct reply *tiles_open(struct tiles *tiles, const struct image_shape *shape, size_t n,
                         const char *argument) {
    struct ovr_err err = {0};
    size_t across = (size_t)ceil(sqrt((double)n)), down = (n + across - 1) / across;
    *tiles = (struct tiles){.shape = *shape,
                            .n = n,
                            .across = across,
                            .width = across * (shape->width + GAP) - GAP,
                            .height = down * (shape->height + GAP) - GAP};
    if (tiles->width > PIXELS_MAX / tiles->height)
        return problem(422, "invalid-query",
                       "%s: %zu images of %zu by %zu make a picture of more than %d pixels; ask "
                       "for fewer",
                       argument, n, shape->width, shape->height, PIXELS_MAX);
    tiles->pixels = calloc(tiles->width * tiles->height, shape->channels);
    if (tiles->pixels)
        return NULL;
    ovr_nomem(&err, "a picture");
    return problem_from(&err);
}

void tiles_close(struct tiles *tiles) {
    free(tiles->pixels);
    tiles->pixels = NULL;
}

void tiles_draw(struct tiles *tiles, size_t i, const real *values, double low, double high) {
    const struct image_shape *shape = &tiles->shape;
    size_t h = shape->height, w = shape->width, channels = shape->channels;
    size_t left = i % tiles->across * (w + GAP), top = i / tiles->across * (h + GAP);
    double scale = high > low ? 255 / (high - low) : 0;
    for (size_t c = 0; c < channels; c++)
        for (size_t y = 0; y < h; y++)
            for (size_t x = 0; x < w; x++) {
                size_t from = shape->interleaved ? (y * w + x) * channels + c : (c * h + y) * w + x;
                double shade = ((double)values[from] - low) * scale;
                tiles->pixels[((top + y) * tiles->width + left + x) * channels + c] =
                    (uint8_t)lround(fmin(fmax(shade, 0), 255));
            }
}

struct reply *tiles_reply(struct tiles *tiles) {
    struct ovr_err err = {0};
    void *bytes;
    size_t size;
    int rc = encode_png(tiles->pixels, tiles->width, tiles->height, tiles->shape.channels, &bytes,
                        &size, &err);
    tiles_close(tiles);
    return rc ? problem_from(&err) : reply_bytes(200, "image/png", bytes, size);
}
