#include "api/text.h"

#include <stdlib.h>
#include <string.h>

int text_add(struct text *text, const char *bytes, size_t n) {
    if (n > text->room - text->n) {
        size_t room = 2 * text->room + n + 1024;
        char *grown = realloc(text->bytes, room);
        if (!grown)
            return -1;
        text->bytes = grown;
        text->room = room;
    }
    memcpy(text->bytes + text->n, bytes, n);
    text->n += n;
    return 0;
}

int text_add_string(struct text *text, const char *string) {
    return text_add(text, string, strlen(string));
}

/* jansson writes a word at a time. */
static int add_word(const char *word, size_t n, void *text) {
    return text_add(text, word, n);
}

int text_add_json(struct text *text, const json_t *value) {
    const size_t flags = JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(15);
    return value ? json_dump_callback(value, add_word, text, flags) : -1;
}

int text_add_member(struct text *text, const char *name, const char *value) {
    text->n--; /* the brace */
    return text_add_string(text, ",\"") || text_add_string(text, name) ||
           text_add_string(text, "\":") || text_add_string(text, value) || text_add(text, "}", 1);
}
