/* What an experiment's units do, and how far the activations of two are apart. */
#include "clients/cli/api.h"
#include "clients/cli/value.h"

#include <math.h>
#include <stdio.h>

static const char *const unit_columns[] = {
    "firing_rate",     "mean",  "maximum",      "bias", "weight_norm", "classes", "cells",
    "strongest_class", "hoyer", "treves_rolls", "gini"};

enum { N_FIGURES = sizeof unit_columns / sizeof *unit_columns };

static int print_units(struct cli *cli, const json_t *answer) {
    const json_t *units = value_at(answer, "units"), *unit;
    struct column columns[N_FIGURES + 1] = {{"unit", true, false}};
    struct table table = {.columns = columns, .n_columns = 1};
    char figure[FIGURE_ROOM], total[FIGURE_ROOM];
    size_t i;
    if (!json_is_array(units))
        return api_complain_nonsense(cli);
    /* Only what the first one has: cells are of the sphere. */
    for (size_t f = 0; f < N_FIGURES; f++)
        if (value_at(json_array_get(units, 0), unit_columns[f]))
            columns[table.n_columns++] = (struct column){unit_columns[f], true, false};
    printf("%s of %s units of layer %s, on the %s split\n\n",
           text_count(figure, value_number(answer, "matching")),
           text_count(total, value_number(answer, "total")), value_string(answer, "layer"),
           value_string(answer, "split"));
    json_array_foreach(units, i, unit) {
        table_cell(&table, "%.0f", value_number(unit, "unit"));
        for (size_t c = 1; c < table.n_columns; c++)
            table_cell(&table, "%s", text_figure(figure, value_number(unit, columns[c].title)));
    }
    return table_print(&table) ? api_complain_memory() : EXIT_OK;
}

int command_units(struct cli *cli) {
    const struct options *options = &cli->options;
    struct buf path = {0};
    json_t *answer;
    buf_path(&path, "/v1/experiments/{}/units", cli->args[0]);
    buf_query(&path, "sort", options->sort);
    buf_query(&path, "dead", options->dead ? "true" : NULL);
    buf_query(&path, "layer", options->layer);
    buf_query(&path, "limit", options->limit);
    int code = api_get(cli, &path, &answer);
    if (!code && answer)
        code = print_units(cli, answer);
    json_decref(answer);
    return code;
}

/* A row for each band, from the north on; in each sector the unit that answers most. */
static int print_tiling(struct cli *cli, const json_t *answer) {
    const json_t *cells = value_at(answer, "cells"), *cell;
    double sectors = value_number(answer, "sectors");
    size_t i, n = json_array_size(cells);
    char unit[FIGURE_ROOM];
    if (!json_is_array(cells) || !(sectors >= 1))
        return api_complain_nonsense(cli);
    printf("the unit of layer %s that answers most, a line for each band of latitude, a column for "
           "each sector\n\n",
           value_string(answer, "layer"));
    for (i = n; i > 0; i--) {
        /* The bands go from the south to the north, a line from west to east. */
        size_t width = (size_t)sectors, at = (i - 1) / width * width + (n - i) % width;
        cell = json_array_get(cells, at);
        printf("%6s%s", text_fixed(unit, value_number(cell, "unit"), 0),
               (n - i + 1) % width ? "" : "\n");
    }
    return EXIT_OK;
}

int command_tiling(struct cli *cli) {
    struct buf path = {0};
    json_t *answer;
    buf_path(&path, "/v1/experiments/{}/tiling", cli->args[0]);
    buf_query(&path, "layer", cli->options.layer);
    int code = api_get(cli, &path, &answer);
    if (!code && answer)
        code = print_tiling(cli, answer);
    json_decref(answer);
    return code;
}

static void print_side(const char *label, const json_t *side) {
    char share[FIGURE_ROOM];
    double epoch = value_number(side, "epoch");
    double zero = value_number(side, "zero_count") / value_number(side, "total");
    printf("%s  %s  %s", label, value_string(side, "experiment"), value_string(side, "name"));
    if (isnan(epoch))
        printf("  best epoch");
    else
        printf("  epoch %.0f", epoch);
    printf("  %s split  zero %s\n", value_string(side, "split"), text_figure(share, zero));
}

static int print_comparison(struct cli *cli, const json_t *answer) {
    char figure[FIGURE_ROOM];
    if (!json_is_object(value_at(answer, "a")) || !json_is_object(value_at(answer, "b")))
        return api_complain_nonsense(cli);
    print_side("a", value_at(answer, "a"));
    print_side("b", value_at(answer, "b"));
    printf("  Kolmogorov-Smirnov  %s\n", text_figure(figure, value_number(answer, "ks")));
    printf("  Wasserstein         %s\n", text_figure(figure, value_number(answer, "wasserstein")));
    return EXIT_OK;
}

int command_compare(struct cli *cli) {
    struct buf path = {0};
    json_t *answer;
    buf_path(&path, "/v1/compare/histograms");
    buf_query(&path, "a", cli->args[0]);
    buf_query(&path, "b", cli->args[1]);
    buf_query(&path, "layer", cli->options.layer);
    int code = api_get(cli, &path, &answer);
    if (!code && answer)
        code = print_comparison(cli, answer);
    json_decref(answer);
    return code;
}
