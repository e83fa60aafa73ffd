#include "api/png.h"

#include <png.h>
#include <stdlib.h>
#include <string.h>

int encode_png(const uint8_t *pixels, size_t width, size_t height, size_t channels, void **bytes,
               size_t *n, struct ovr_err *err) {
    png_image image;
    memset(&image, 0, sizeof image);
    image.version = PNG_IMAGE_VERSION;
    image.width = (png_uint_32)width;
    image.height = (png_uint_32)height;
    image.format = channels == 3 ? PNG_FORMAT_RGB : PNG_FORMAT_GRAY;
    png_alloc_size_t size = PNG_IMAGE_PNG_SIZE_MAX(image);
    *bytes = malloc(size);
    if (!*bytes)
        return ovr_nomem(err, "a picture");
    if (!png_image_write_to_memory(&image, *bytes, &size, 0, pixels, 0, NULL)) {
        free(*bytes);
        *bytes = NULL;
        return ovr_fail(err, OVR_INTERNAL, NULL, "libpng: %s", image.message);
    }
    *n = size;
    return 0;
}
