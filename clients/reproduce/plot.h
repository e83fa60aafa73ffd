/* A figure as inline SVG. Colours come from the page's style sheet: classes s0…s7 of the series,
 * "axis", "grid" and the text's own. */
#ifndef REPRODUCE_PLOT_H
#define REPRODUCE_PLOT_H

struct buf;
struct figure;

/* `title` is what the picture is called for those who cannot see it. */
void plot_svg(struct buf *html, const struct figure *figure, const char *title);

#endif
