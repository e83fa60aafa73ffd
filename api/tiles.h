/* Images side by side in one picture, in rows, as square as can be. */
#ifndef API_TILES_H
#define API_TILES_H

#include "api/http.h"
#include "core/samples.h"

struct tiles {
    struct image_shape shape; /* of each */
    size_t n, across, width, height;
    uint8_t *pixels;
};

/* Room for n images, black. NULL, or the refusal of what would be too large a picture, which blames
 * the query argument `argument`. */
struct reply *tiles_open(struct tiles *tiles, const struct image_shape *shape, size_t n,
                         const char *argument);
void tiles_close(struct tiles *tiles);

/* Image i: `low` is black, `high` white, and so is what lies beyond. */
void tiles_draw(struct tiles *tiles, size_t i, const real *values, double low, double high);

/* The picture as PNG; closes the tiles. */
struct reply *tiles_reply(struct tiles *tiles);

#endif
