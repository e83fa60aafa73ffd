/* Texts that came from outside, as UTF-8: JSON and CSV hold nothing else. */
#ifndef OVR_UTF8_H
#define OVR_UTF8_H

#include <stddef.h>

/* Bytes that a character may take. */
enum { UTF8_MOST = 4 };

/* Bytes of the character that `text` begins with, 1..4; 0 where it begins with none, or with half
 * of one. The final NUL counts as one. */
size_t utf8_length(const char *text);

/* Whether all of it is UTF-8. */
int utf8_is_valid(const char *text);

/* Of a text that is UTF-8: its characters (code points, as JSON Schema counts them), and the bytes
 * of its first `most` ones, all where there are fewer. */
size_t utf8_count(const char *text);
size_t utf8_span(const char *text, size_t most);

/* Makes it valid in place: half a character at the end, where a text was cut, goes; any other byte
 * that belongs to no character becomes '?'. */
void utf8_mend(char *text);

#endif
