/* The activations of an experiment as bars of text. */
#include "clients/cli/api.h"
#include "clients/cli/jobs.h"
#include "clients/cli/value.h"

#include <math.h>
#include <unistd.h>

enum { ROWS_MAX = 20 };

/* A view of the answer's arrays: bin i lies between edges i and i + 1, exact zeros are in none. */
struct bins {
    const json_t *edges, *counts;
    size_t n; /* without the empty ones at the end */
    double total, zero_count;
};

static double item(const json_t *array, size_t i) {
    return value_number(json_array_get(array, i), "");
}

static bool read_bins(const json_t *answer, struct bins *bins) {
    bins->edges = value_at(answer, "edges");
    bins->counts = value_at(answer, "counts");
    bins->total = value_number(answer, "total");
    bins->zero_count = value_number(answer, "zero_count");
    bins->n = json_array_size(bins->counts);
    if (json_array_size(bins->edges) != bins->n + 1 || isnan(bins->total) ||
        isnan(bins->zero_count))
        return false;
    while (bins->n > 0 && !(item(bins->counts, bins->n - 1) > 0))
        bins->n--;
    return true;
}

/* Which edge is 0.1, below which the paper calls an activation near zero; 0 where none is. */
static size_t near_zero_edge(const struct bins *bins) {
    for (size_t i = 1; i < bins->n; i++)
        if (fabs(item(bins->edges, i) - 0.1) < 1e-6)
            return i;
    return 0;
}

static double sum(const struct bins *bins, size_t from, size_t to) {
    double count = 0;
    for (size_t i = from; i < to; i++)
        count += fmax(0, item(bins->counts, i)); /* fmax also makes 0 of a null */
    return count;
}

/* The end of the row that starts at bin `from`: rows are `step` bins, laid so that one ends at the
 * near-zero edge. */
static size_t row_end(const struct bins *bins, size_t from, size_t step, size_t mark) {
    size_t end = from + step - (from + step - mark % step) % step;
    if (end <= from)
        end = from + step;
    return end < bins->n ? end : bins->n;
}

/* "  0.1000 … 0.1189   4.31 %  ####". A last edge that is null is open. */
static int print_row(const struct bins *bins, size_t from, size_t end, double largest) {
    enum { LEFT_COLUMNS = 36, WIDEST = 70 };
    double count = sum(bins, from, end), high = item(bins->edges, end);
    char low_text[FIGURE_ROOM], high_text[FIGURE_ROOM];
    size_t width = terminal_columns(STDOUT_FILENO);
    struct buf bar = {0};
    width = width < LEFT_COLUMNS + 10 ? 10 : width - LEFT_COLUMNS;
    buf_bar(&bar, largest > 0 ? count / largest : 0, width < WIDEST ? width : WIDEST, "");
    if (bar.failed)
        return api_complain_memory();
    printf("  %9s to %-9s %6.2f %%  %s\n", text_figure(low_text, item(bins->edges, from)),
           isnan(high) ? "" : text_figure(high_text, high),
           bins->total > 0 ? 100 * count / bins->total : 0, bar.data ? bar.data : "");
    buf_release(&bar);
    return EXIT_OK;
}

static int print_rows(const struct bins *bins) {
    size_t step = (bins->n + ROWS_MAX - 1) / ROWS_MAX, mark = near_zero_edge(bins);
    double largest = 0;
    for (size_t from = 0, end; from < bins->n; from = end) {
        end = row_end(bins, from, step, mark);
        largest = fmax(largest, sum(bins, from, end));
    }
    for (size_t from = 0, end; from < bins->n; from = end) {
        if (mark && from == mark)
            printf("  %.*s near zero above, |h| < 0.1\n", 25, "--------------------------");
        end = row_end(bins, from, step, mark);
        int code = print_row(bins, from, end, largest);
        if (code)
            return code;
    }
    return EXIT_OK;
}

static int print_histogram(struct cli *cli, const json_t *answer) {
    struct bins bins;
    char count[FIGURE_ROOM];
    if (!read_bins(answer, &bins))
        return api_complain_nonsense(cli);
    printf("%s activations", text_count(count, bins.total));
    if (*value_string(answer, "split"))
        printf(" on the %s split", value_string(answer, "split"));
    if (!isnan(value_number(answer, "epoch")))
        printf(" after epoch %.0f", value_number(answer, "epoch"));
    else if (*value_string(answer, "epoch"))
        printf(" with the weights of the %s epoch", value_string(answer, "epoch"));
    printf("\n\n  %-22s %6.2f %%\n\n", "exactly zero",
           bins.total > 0 ? 100 * bins.zero_count / bins.total : 0);
    int code = print_rows(&bins);
    if (!code) {
        putchar('\n');
        print_sparsity(value_at(answer, "sparsity"));
    }
    return code;
}

int command_histogram(struct cli *cli) {
    struct buf path = {0};
    json_t *answer;
    buf_path(&path, "/v1/experiments/{}/histogram", cli->args[0]);
    buf_query(&path, "epoch", cli->options.epoch);
    buf_query(&path, "layer", cli->options.layer);
    buf_query(&path, "split", cli->options.split);
    buf_query(&path, "bins", cli->options.bins);
    int code = api_get(cli, &path, &answer);
    if (!code && answer)
        code = print_histogram(cli, answer);
    json_decref(answer);
    return code;
}

static int print_histograms(struct cli *cli, const json_t *answer) {
    static const struct column columns[] = {{"epoch", true, false},
                                            {"activations", true, false},
                                            {"exactly zero", true, false},
                                            {"near zero", true, false},
                                            {"maximum", true, false}};
    struct table table = {.columns = columns, .n_columns = sizeof columns / sizeof *columns};
    const json_t *series = value_at(answer, "series"), *point;
    char figure[FIGURE_ROOM];
    size_t i;
    if (!json_is_array(series))
        return api_complain_nonsense(cli);
    json_array_foreach(series, i, point) {
        struct bins bins = {.edges = value_at(answer, "edges"),
                            .counts = value_at(point, "counts"),
                            .n = json_array_size(value_at(point, "counts")),
                            .zero_count = value_number(point, "zero_count"),
                            .total = value_number(point, "total")};
        double near = bins.zero_count + sum(&bins, 0, near_zero_edge(&bins));
        table_cell(&table, "%.0f", value_number(point, "epoch"));
        table_cell(&table, "%s", text_count(figure, bins.total));
        table_cell(&table, "%s", text_fixed(figure, bins.zero_count / bins.total, 4));
        table_cell(&table, "%s", text_fixed(figure, near / bins.total, 4));
        table_cell(&table, "%s", text_figure(figure, value_number(point, "maximum")));
    }
    return table_print(&table) ? api_complain_memory() : EXIT_OK;
}

int command_histograms(struct cli *cli) {
    struct buf path = {0};
    json_t *answer;
    buf_path(&path, "/v1/experiments/{}/histograms", cli->args[0]);
    buf_query(&path, "layer", cli->options.layer);
    buf_query(&path, "from_epoch", cli->options.from);
    buf_query(&path, "max_points", cli->options.max_points);
    int code = api_get(cli, &path, &answer);
    if (!code && answer)
        code = print_histograms(cli, answer);
    json_decref(answer);
    return code;
}
