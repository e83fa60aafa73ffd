/* Pictures as PNG. The only file that knows libpng is png.c. */
#ifndef API_PNG_H
#define API_PNG_H

#include "core/err.h"

#include <stddef.h>
#include <stdint.h>

/* 8-bit pixels row by row: gray for 1 channel, red, green and blue side by side for 3. *bytes is
 * the caller's to free. */
int encode_png(const uint8_t *pixels, size_t width, size_t height, size_t channels, void **bytes,
               size_t *n, struct ovr_err *err);

#endif
