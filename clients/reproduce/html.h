/* Text into HTML and SVG. */
#ifndef REPRODUCE_HTML_H
#define REPRODUCE_HTML_H

struct buf;

/* Appends text with the characters that mean something in markup as entities; what XML has no
 * character for becomes U+FFFD. */
void html_text(struct buf *html, const char *text);

/* Appends markup in which each "{}" stands for one more argument (const char *), escaped. */
void html_add(struct buf *html, const char *pattern, ...);

#endif
