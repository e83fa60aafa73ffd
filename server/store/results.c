#include "server/store/db.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct figure read_figure(sqlite3_stmt *row) {
    struct figure f = {.name = (const char *)sqlite3_column_text(row, 1), .real = NAN};
    switch (sqlite3_column_type(row, 2)) {
    case SQLITE_INTEGER:
        f.kind = FIGURE_COUNT;
        f.count = sqlite3_column_int64(row, 2);
        break;
    case SQLITE_TEXT:
        f.kind = FIGURE_TEXT;
        f.text = (const char *)sqlite3_column_text(row, 2);
        break;
    case SQLITE_FLOAT:
        f.real = sqlite3_column_double(row, 2);
        break;
    default: /* NULL: was not finite */
        break;
    }
    return f;
}

int read_last(struct store *store, enum sql which, int64_t seq, int64_t *number,
              struct ovr_err *err) {
    struct connection *c = db_take_reader(store);
    sqlite3_stmt *row = db_bind(c, which, "i", seq);
    int rc = sqlite3_step(row) == SQLITE_ROW ? 0 : db_fail(c, err);
    *number = rc ? 0 : sqlite3_column_int64(row, 0);
    sqlite3_reset(row);
    db_give_back(c);
    return rc;
}

int store_last_epoch(struct store *store, int64_t seq, int64_t *epoch, struct ovr_err *err) {
    return read_last(store, LAST_EPOCH, seq, epoch, err);
}

int store_read_figures(struct store *store, int64_t seq, int from, int to,
                       int (*row)(void *, int, const struct figure *), void *context,
                       struct ovr_err *err) {
    struct connection *c = db_take_reader(store);
    sqlite3_stmt *statement = db_bind(c, READ_FIGURES, "iii", seq, (int64_t)from, (int64_t)to);
    int rc = 0, step = SQLITE_DONE;
    while (!rc && (step = sqlite3_step(statement)) == SQLITE_ROW) {
        struct figure figure = read_figure(statement);
        if (!figure.name || (figure.kind == FIGURE_TEXT && !figure.text))
            rc = ovr_nomem(err, "the figures of an experiment");
        else
            rc = row(context, sqlite3_column_int(statement, 0), &figure);
    }
    if (!rc && step != SQLITE_DONE)
        rc = db_fail(c, err);
    sqlite3_reset(statement);
    db_give_back(c);
    return rc;
}

/* Copies a row's counts; not 0 where they are of other bins. */
static int read_histogram(sqlite3_stmt *row, struct histogram *h) {
    if (sqlite3_column_bytes(row, 4) != sizeof h->counts)
        return -1;
    h->zero_count = (uint64_t)sqlite3_column_int64(row, 1);
    h->total = (uint64_t)sqlite3_column_int64(row, 2);
    h->maximum = sqlite3_column_double(row, 3);
    memcpy(h->counts, sqlite3_column_blob(row, 4), sizeof h->counts);
    return 0;
}

int store_read_histogram(struct store *store, int64_t seq, int *layer, int *epoch, char split[16],
                         struct histogram *h, struct ovr_err *err) {
    struct connection *c = db_take_reader(store);
    sqlite3_stmt *row =
        db_bind(c, READ_HISTOGRAM, "iisi", seq, (int64_t)*epoch, split, (int64_t)*layer);
    int rc = 0, step = sqlite3_step(row);
    if (step == SQLITE_ROW && read_histogram(row, h) == 0) {
        char found[16];
        copy_column(row, 0, found, sizeof found);
        memcpy(split, found, sizeof found);
        *epoch = sqlite3_column_int(row, 5);
        *layer = sqlite3_column_int(row, 6);
    } else if (step == SQLITE_DONE || step == SQLITE_ROW) {
        char of_layer[40] = "", of_epoch[40] = "";
        if (*layer >= 0)
            snprintf(of_layer, sizeof of_layer, " of layer hidden.%d", *layer);
        if (*epoch)
            snprintf(of_epoch, sizeof of_epoch, " of epoch %d", *epoch);
        rc = ovr_fail(err, OVR_NOT_FOUND, NULL, "there is no histogram%s%s%s%s", of_layer, of_epoch,
                      *split ? " on split " : "", split);
    } else {
        rc = db_fail(c, err);
    }
    sqlite3_reset(row);
    db_give_back(c);
    return rc;
}

int store_read_histograms(struct store *store, int64_t seq, int layer, int from, int limit,
                          int (*row)(void *, const struct epoch_histogram *), void *context,
                          struct ovr_err *err) {
    struct connection *c = db_take_reader(store);
    sqlite3_stmt *statement = db_bind(c, READ_HISTOGRAMS, "iiii", seq, (int64_t)layer,
                                      (int64_t)(from > 1 ? from : 1), (int64_t)limit);
    int rc = 0, step = SQLITE_DONE;
    while (!rc && (step = sqlite3_step(statement)) == SQLITE_ROW) {
        struct histogram histogram;
        char split[16];
        copy_column(statement, 0, split, sizeof split);
        struct epoch_histogram one = {sqlite3_column_int(statement, 5), split, &histogram,
                                      sqlite3_column_int(statement, 6)};
        if (read_histogram(statement, &histogram) == 0)
            rc = row(context, &one);
    }
    if (!rc && step != SQLITE_DONE)
        rc = db_fail(c, err);
    sqlite3_reset(statement);
    db_give_back(c);
    return rc;
}

int store_read_unit_table(struct store *store, int64_t seq, int layer, struct unit_table *table,
                          struct ovr_err *err) {
    struct connection *c = db_take_reader(store);
    sqlite3_stmt *row = db_bind(c, READ_UNIT_TABLE, "ii", seq, (int64_t)layer);
    int rc = 0, step = sqlite3_step(row);
    if (step == SQLITE_ROW) {
        *table = (struct unit_table){.layer = sqlite3_column_int(row, 4),
                                     .units = (size_t)sqlite3_column_int64(row, 1),
                                     .classes = (size_t)sqlite3_column_int64(row, 2),
                                     .cells = (size_t)sqlite3_column_int64(row, 3)};
        copy_column(row, 0, table->split, sizeof table->split);
    } else {
        rc = step == SQLITE_DONE ? ovr_fail(err, OVR_NOT_FOUND, NULL,
                                            "there is no table of units of layer hidden.%d", layer)
                                 : db_fail(c, err);
    }
    sqlite3_reset(row);
    db_give_back(c);
    return rc;
}

/* context: of which epoch. */
static int read_tensor(const void *context, sqlite3_stmt *row, void *item, struct ovr_err *err) {
    (void)err;
    const char *epoch = context;
    struct tensor *t = item;
    *t = (struct tensor){.dtype = "float32",
                         .dimensions = sqlite3_column_int(row, 2),
                         .rows = (size_t)sqlite3_column_int64(row, 3),
                         .columns = (size_t)sqlite3_column_int64(row, 4)};
    snprintf(t->epoch, sizeof t->epoch, "%.4s", epoch);
    copy_column(row, 0, t->name, sizeof t->name);
    if (sqlite3_column_text(row, 1) &&
        strcmp((const char *)sqlite3_column_text(row, 1), "float64") == 0)
        t->dtype = "float64";
    return 0;
}

static const struct row_reader tensor_rows = {"a list of tensors", sizeof(struct tensor),
                                              read_tensor, NULL};

int store_read_tensors(struct store *store, int64_t seq, const char *epoch, struct tensor **tensors,
                       size_t *n, struct ovr_err *err) {
    struct connection *c = db_take_reader(store);
    struct rows rows;
    int rc = db_read_list(c, db_bind(c, READ_TENSORS, "is", seq, epoch), &tensor_rows, epoch, &rows,
                          err);
    db_give_back(c);
    *tensors = rows.items;
    *n = rows.n;
    return rc;
}
