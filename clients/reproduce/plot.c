#include "clients/reproduce/plot.h"

#include "clients/cli/text.h"
#include "clients/reproduce/figure.h"
#include "clients/reproduce/html.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { COLOURS = 8, MAX_TICKS = 24, FEW_POINTS = 40 };

/* One axis: from data to the picture. A logarithmic one has a place of its own for 0, before the
 * smallest positive value. */
struct scale {
    double low, high; /* of the data, rounded to ticks; log10 of them on a logarithmic axis */
    double from, to;  /* in the picture */
    double zero_at;   /* in the picture; NaN where there is no 0 to show */
    bool log;
    double ticks[MAX_TICKS]; /* values */
    size_t n_ticks;
};

struct box {
    double left, right, top, bottom;
};

static double place(const struct scale *scale, double value) {
    if (scale->log && !(value > 0))
        return scale->zero_at;
    double at = scale->log ? log10(value) : value;
    return scale->from + (at - scale->low) / (scale->high - scale->low) * (scale->to - scale->from);
}

static void add_tick(struct scale *scale, double value) {
    if (scale->n_ticks < MAX_TICKS)
        scale->ticks[scale->n_ticks++] = value;
}

/* 1, 2 or 5 times a power of ten, so that about five steps span the range. */
static double nice_step(double range) {
    double power = pow(10, floor(log10(range / 5))), step = range / 5 / power;
    return power * (step < 1.5 ? 1 : step < 3.5 ? 2 : step < 7.5 ? 5 : 10);
}

/* What hardly varies is not blown up: the axis spans at least 2 % of the largest value. */
static void fit_linear(struct scale *scale, double least, double most) {
    double largest = fmax(fabs(least), fabs(most));
    double lack = (largest > 0 ? 0.02 * largest : 1) - (most - least);
    if (lack > 0) {
        least -= lack / 2;
        most += lack / 2;
    }
    double step = nice_step(most - least);
    double first = floor(least / step + 1e-9), last = ceil(most / step - 1e-9);
    scale->low = first * step;
    scale->high = last * step;
    for (double k = first; k <= last; k++)
        add_tick(scale, k * step);
}

/* Ticks at powers of ten, and at 2 and 5 times them where there are few of those. */
static void fit_log(struct scale *scale, double least, double most) {
    scale->low = log10(least) - 0.05;
    scale->high = log10(most) + 0.05;
    double decades = scale->high - scale->low;
    double every = decades > 10 ? 2 : 1;
    for (double d = floor(scale->low); d <= scale->high; d += every)
        for (int m = 1; m <= (decades < 3.2 ? 5 : 1); m += m == 1 ? 1 : 3) {
            double value = m * pow(10, d);
            if (log10(value) >= scale->low && log10(value) <= scale->high)
                add_tick(scale, value);
        }
}

/* Ticks at the points themselves, where they are few and stand apart. Else leaves them alone. */
static void tick_at_points(struct scale *scale, const struct figure *figure) {
    enum { FEW = 10, APART = 34 };
    double xs[FEW + 1];
    size_t n = 0;
    for (size_t i = 0; i < figure->n; i++)
        for (size_t k = 0; k < figure->series[i].n; k++) {
            double x = figure->series[i].points[k].x;
            size_t at = 0;
            while (at < n && fabs(place(scale, xs[at]) - place(scale, x)) > 0.01)
                at++;
            for (size_t other = 0; other < n; other++)
                if (other != at && fabs(place(scale, xs[other]) - place(scale, x)) < APART)
                    return;
            if (at == FEW)
                return;
            xs[at] = x;
            n += at == n;
        }
    scale->n_ticks = 0;
    for (size_t i = 0; i < n; i++)
        if (!scale->log || xs[i] > 0)
            add_tick(scale, xs[i]);
}

struct extent {
    double least, most, least_positive;
    bool zero;
};

static void extend(struct extent *extent, double value) {
    extent->least = fmin(extent->least, value);
    extent->most = fmax(extent->most, value);
    if (value > 0)
        extent->least_positive = fmin(extent->least_positive, value);
    else
        extent->zero = true;
}

static struct extent extent_of(const struct figure *figure, bool of_x) {
    struct extent extent = {INFINITY, -INFINITY, INFINITY, false};
    for (size_t i = 0; i < figure->n; i++)
        for (size_t k = 0; k < figure->series[i].n; k++) {
            const struct point *point = &figure->series[i].points[k];
            double spread = of_x || figure->y.log ? 0 : point->sd;
            extend(&extent, (of_x ? point->x : point->y) - spread);
            extend(&extent, (of_x ? point->x : point->y) + spread);
        }
    return extent;
}

static struct scale scale_of(const struct figure *figure, bool of_x, double from, double to) {
    struct extent extent = extent_of(figure, of_x);
    struct scale scale = {.from = from, .to = to, .zero_at = NAN};
    scale.log = (of_x ? figure->x.log : figure->y.log) && isfinite(extent.least_positive);
    if (!scale.log)
        fit_linear(&scale, extent.least, extent.most);
    if (scale.log && extent.zero) {
        scale.zero_at = from + (to > from ? 12 : -12);
        scale.from = from + (to > from ? 44 : -36);
    }
    if (scale.log)
        fit_log(&scale, extent.least_positive, extent.most);
    if (of_x)
        tick_at_points(&scale, figure);
    return scale;
}

/* ---- Drawing ---- */

static void add_text(struct buf *svg, double x, double y, const char *anchor, const char *text) {
    buf_addf(svg, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">", x, y, anchor);
    html_text(svg, text);
    buf_add(svg, "</text>\n");
}

static void add_line(struct buf *svg, const char *class, double x1, double y1, double x2,
                     double y2) {
    buf_addf(svg, "<line class=\"%s\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>\n", class,
             x1, y1, x2, y2);
}

static void add_x_axis(struct buf *svg, const struct scale *x, const struct box *box,
                       const char *label) {
    char figure[LABEL_ROOM];
    for (size_t i = 0; i < x->n_ticks; i++) {
        double at = place(x, x->ticks[i]);
        add_line(svg, "grid", at, box->top, at, box->bottom);
        add_text(svg, at, box->bottom + 16, "middle", figure_number(figure, x->ticks[i]));
    }
    if (!isnan(x->zero_at)) {
        add_line(svg, "grid", x->zero_at, box->top, x->zero_at, box->bottom);
        add_text(svg, x->zero_at, box->bottom + 16, "middle", "0");
    }
    add_line(svg, "axis", box->left, box->bottom, box->right, box->bottom);
    /* The axis is broken between 0 and the smallest value above it. */
    for (int i = 0; i < 2 && !isnan(x->zero_at); i++) {
        double at = (x->zero_at + x->from) / 2 + 4 * i;
        add_line(svg, "axis", at - 4, box->bottom + 5, at, box->bottom - 5);
    }
    add_text(svg, (box->left + box->right) / 2, box->bottom + 36, "middle", label);
}

static void add_y_axis(struct buf *svg, const struct scale *y, const struct box *box,
                       const char *label) {
    char figure[LABEL_ROOM];
    double middle = (box->top + box->bottom) / 2;
    for (size_t i = 0; i < y->n_ticks; i++) {
        double at = place(y, y->ticks[i]);
        add_line(svg, "grid", box->left, at, box->right, at);
        add_text(svg, box->left - 8, at + 4, "end", figure_number(figure, y->ticks[i]));
    }
    if (!isnan(y->zero_at))
        add_text(svg, box->left - 8, y->zero_at + 4, "end", "0");
    add_line(svg, "axis", box->left, box->top, box->left, box->bottom);
    buf_addf(svg, "<text transform=\"translate(14 %.1f) rotate(-90)\" text-anchor=\"middle\">",
             middle);
    html_text(svg, label);
    buf_add(svg, "</text>\n");
}

/* Series differ by shape as well as by colour. */
static void add_marker(struct buf *svg, size_t series, double x, double y) {
    static const char *const shapes[] = {
        "M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0", "M-3.6,-3.6h7.2v7.2h-7.2z", "M0,-5L4.6,3.6H-4.6z",
        "M0,-5.2L4.6,0L0,5.2L-4.6,0z",        "M0,5L4.6,-3.6H-4.6z",
    };
    buf_addf(svg, "<path class=\"s%zu mark\" transform=\"translate(%.1f %.1f)\" d=\"%s\"/>\n",
             series % COLOURS, x, y, shapes[series % (sizeof shapes / sizeof *shapes)]);
}

static void add_series_lines(struct buf *svg, const struct series *series, size_t number,
                             const struct scale *x, const struct scale *y) {
    buf_addf(svg, "<path class=\"s%zu line\" d=\"", number % COLOURS);
    for (size_t i = 0; i < series->n; i++)
        buf_addf(svg, "%c%.1f %.1f", i ? 'L' : 'M', place(x, series->points[i].x),
                 place(y, series->points[i].y));
    buf_add(svg, "\"/>\n");
    for (size_t i = 0; i < series->n && series->n <= FEW_POINTS; i++) {
        const struct point *point = &series->points[i];
        double at = place(x, point->x);
        if (point->n > 1 && !y->log) {
            char class[16];
            snprintf(class, sizeof class, "s%zu line", number % COLOURS);
            add_line(svg, class, at, place(y, point->y - point->sd), at,
                     place(y, point->y + point->sd));
        }
        add_marker(svg, number, at, place(y, point->y));
    }
}

static void add_legend(struct buf *svg, const struct figure *figure, double left, double top) {
    if (figure->n == 1 && !*figure->series[0].label)
        return;
    for (size_t i = 0; i < figure->n; i++) {
        double y = top + 18 * (double)i;
        buf_addf(svg, "<path class=\"s%zu line\" d=\"M%.1f %.1fh22\"/>\n", i % COLOURS, left, y);
        add_marker(svg, i, left + 11, y);
        add_text(svg, left + 30, y + 4, "start", figure->series[i].label);
    }
}

static void open_svg(struct buf *svg, double width, double height, const char *title) {
    buf_addf(svg,
             "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" "
             "width=\"%.0f\" height=\"%.0f\" role=\"img\"><title>",
             width, height, width, height);
    html_text(svg, title);
    buf_add(svg, "</title>\n");
}

/* Room for the longest label; a character is about 6.6 wide. */
static double label_width(const struct figure *figure) {
    size_t longest = 0;
    for (size_t i = 0; i < figure->n; i++) {
        size_t columns = text_columns(figure->series[i].label);
        longest = columns > longest ? columns : longest;
    }
    return 6.6 * (double)longest;
}

static void plot_lines(struct buf *svg, const struct figure *figure, const char *title) {
    enum { WIDTH = 560, HEIGHT = 320 };
    const struct box box = {64, WIDTH - 16, 14, HEIGHT - 50};
    struct scale x = scale_of(figure, true, box.left, box.right);
    struct scale y = scale_of(figure, false, box.bottom, box.top);
    double legend = label_width(figure);
    double height = fmax(HEIGHT, 30 + 18 * (double)figure->n);
    open_svg(svg, WIDTH + (legend > 0 ? legend + 40 : 0), height, title);
    add_x_axis(svg, &x, &box, figure->x.label);
    add_y_axis(svg, &y, &box, figure->y.label);
    for (size_t i = 0; i < figure->n; i++)
        add_series_lines(svg, &figure->series[i], i, &x, &y);
    add_legend(svg, figure, WIDTH + 4, box.top + 8);
    buf_add(svg, "</svg>\n");
}

/* Bars lie from 0, the longest on top. */
static void plot_bars(struct buf *svg, const struct figure *figure, const char *title) {
    enum { WIDTH = 440, ROW = 24 };
    double left = label_width(figure) + 12, bottom = 12 + ROW * (double)figure->n;
    struct extent extent = extent_of(figure, false);
    struct scale x = {.from = left, .to = left + WIDTH, .zero_at = NAN};
    fit_linear(&x, fmin(0, extent.least), fmax(0, extent.most));
    const struct box box = {left, left + WIDTH, 6, bottom};
    open_svg(svg, left + WIDTH + 70, bottom + 46, title);
    add_x_axis(svg, &x, &box, figure->y.label);
    for (size_t i = 0; i < figure->n; i++) {
        const struct point *point = &figure->series[i].points[0];
        size_t rank = 0;
        for (size_t k = 0; k < figure->n; k++) {
            double other = figure->series[k].points[0].y;
            rank += other > point->y || (!(other < point->y) && k < i);
        }
        double y = 12 + ROW * (double)rank, zero = place(&x, 0), end = place(&x, point->y);
        char value[LABEL_ROOM];
        buf_addf(svg,
                 "<rect class=\"s0 bar\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%d\"/>\n",
                 fmin(zero, end), y, fabs(end - zero), ROW - 8);
        add_text(svg, left - 8, y + 12, "end", figure->series[i].label);
        add_text(svg, fmax(zero, end) + 6, y + 12, "start", figure_number(value, point->y));
    }
    add_line(svg, "axis", place(&x, 0), box.top, place(&x, 0), box.bottom);
    buf_add(svg, "</svg>\n");
}

void plot_svg(struct buf *html, const struct figure *figure, const char *title) {
    if (!figure->n)
        buf_add(html, "<p class=\"none\">Nothing was measured for this figure.</p>\n");
    else if (figure->bars)
        plot_bars(html, figure, title);
    else
        plot_lines(html, figure, title);
}
