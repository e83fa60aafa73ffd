#include "core/utf8.h"

/* How many bytes a character takes by its first one; 0 for what begins none. */
static size_t announced(unsigned char first) {
    if (first < 0x80)
        return 1;
    if (first < 0xc2 || first > 0xf4)
        return 0;
    return first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
}

/* Whether a second byte may follow the first: not in the long form of a shorter character, not in
 * half of a surrogate pair, not beyond U+10FFFF. */
static int may_follow(unsigned char first, unsigned char second) {
    unsigned char least = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
    unsigned char most = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
    return second >= least && second <= most;
}

/* Bytes of the character as far as they are there and right. */
static size_t count_right(const char *text, size_t wanted) {
    const unsigned char *c = (const unsigned char *)text;
    size_t n = 1;
    while (n < wanted && (n == 1 ? may_follow(c[0], c[1]) : (c[n] & 0xc0) == 0x80))
        n++;
    return n;
}

size_t utf8_length(const char *text) {
    size_t wanted = announced((unsigned char)*text);
    return wanted && count_right(text, wanted) == wanted ? wanted : 0;
}

int utf8_is_valid(const char *text) {
    size_t n = 1;
    while (*text && n) {
        n = utf8_length(text);
        text += n;
    }
    return n != 0;
}

static int begins(char byte) {
    return ((unsigned char)byte & 0xc0) != 0x80;
}

size_t utf8_count(const char *text) {
    size_t n = 0;
    for (; *text; text++)
        n += (size_t)begins(*text);
    return n;
}

size_t utf8_span(const char *text, size_t most) {
    size_t n = 0, bytes = 0;
    while (text[bytes] && (n += (size_t)begins(text[bytes])) <= most)
        bytes++;
    return bytes;
}

void utf8_mend(char *text) {
    while (*text) {
        size_t wanted = announced((unsigned char)*text), n = wanted ? count_right(text, wanted) : 1;
        if (n < wanted && text[n] == '\0')
            *text = '\0';
        else if (n != wanted)
            *text++ = '?';
        else
            text += n;
    }
}
