#include "server/store/db.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void read_split(sqlite3_stmt *row, struct dataset_split *s) {
    copy_column(row, 0, s->dataset, sizeof s->dataset);
    copy_column(row, 1, s->split, sizeof s->split);
    copy_column(row, 2, s->sha256, sizeof s->sha256);
    copy_column(row, 3, s->format, sizeof s->format);
    s->bytes = sqlite3_column_int64(row, 4);
    s->samples = sqlite3_column_int64(row, 5);
    s->width = sqlite3_column_int64(row, 6);
    s->classes = sqlite3_column_int64(row, 7);
    s->created_at = sqlite3_column_int64(row, 8);
    copy_column(row, 9, s->source_sha256, sizeof s->source_sha256);
    s->image = (struct image_shape){
        (size_t)sqlite3_column_int64(row, 10), (size_t)sqlite3_column_int64(row, 11),
        (size_t)sqlite3_column_int64(row, 12), sqlite3_column_int(row, 13)};
    s->named = sqlite3_column_int(row, 14);
    copy_column(row, 15, s->owner, sizeof s->owner);
}

int store_put_split(struct store *store, const struct dataset_split *s, int *fresh,
                    struct ovr_err *err) {
    struct connection *c = &store->writer;
    int rc = db_begin(store, err);
    if (rc)
        return rc;
    sqlite3_stmt *row = db_bind(c, HAVE_SPLIT, "sss", s->dataset, s->split, s->sha256);
    int step = sqlite3_step(row);
    sqlite3_reset(row);
    *fresh = step != SQLITE_ROW;
    if (step != SQLITE_ROW && step != SQLITE_DONE)
        rc = db_fail(c, err);
    if (!rc)
        rc = may_change_dataset(store, s->dataset, 0, err);
    /* The halves first: what they were joined to is not counted beside them. */
    if (!rc)
        rc = db_run(c, db_bind(c, FORGET_PARTS, "ss", s->dataset, s->split), err);
    if (!rc && *fresh)
        rc = check_quota(store, 0, s->bytes, err);
    /* The version that is replaced now stays for a while: a spec may be posted that has read it. */
    if (!rc && *fresh)
        rc = db_run(c, db_bind(c, FORGET_VERSIONS, "s", s->dataset), err);
    if (!rc && *fresh)
        rc = db_run(c, db_bind(c, RETIRE_SPLITS, "ss", s->dataset, s->split), err);
    if (!rc && *fresh)
        rc = db_run(c,
                    db_bind(c, PUT_SPLIT, "ssssiiiiisiiiiiI", s->dataset, s->split, s->sha256,
                            s->format, s->bytes, s->samples, s->width, s->classes, s->created_at,
                            s->source_sha256, (int64_t)s->image.channels, (int64_t)s->image.height,
                            (int64_t)s->image.width, (int64_t)s->image.interleaved,
                            (int64_t)s->named, asking_user()),
                    err);
    if (!rc && *fresh)
        rc = audit(c, "dataset.put", s->dataset, s->split, err);
    return db_end(store, rc, err);
}

int store_get_split(struct store *store, const char *dataset, const char *split, const char *sha256,
                    struct dataset_split *found, struct ovr_err *err) {
    struct connection *c = db_take_reader(store);
    sqlite3_stmt *row = db_bind(c, GET_SPLIT, "sss", dataset, split, sha256);
    int rc = 0, step = sqlite3_step(row);
    if (step == SQLITE_ROW)
        read_split(row, found);
    else if (step == SQLITE_DONE)
        rc = ovr_fail(err, OVR_NOT_FOUND, NULL, "data set %s has no %s split%s%s", dataset, split,
                      *sha256 ? " of version " : "", sha256);
    else
        rc = db_fail(c, err);
    sqlite3_reset(row);
    db_give_back(c);
    return rc;
}

static int read_listed(const void *context, sqlite3_stmt *row, void *item, struct ovr_err *err) {
    (void)context;
    (void)err;
    read_split(row, item);
    return 0;
}

static const struct row_reader split_rows = {"a list of data sets", sizeof(struct dataset_split),
                                             read_listed, NULL};

int store_list_splits(struct store *store, const char *name, struct dataset_split **list, size_t *n,
                      struct ovr_err *err) {
    struct connection *c = db_take_reader(store);
    struct rows rows;
    int rc = db_read_list(c, db_bind(c, LIST_SPLITS, "s", name), &split_rows, NULL, &rows, err);
    db_give_back(c);
    *list = rows.items;
    *n = rows.n;
    return rc;
}

int store_put_part(struct store *store, const struct dataset_part *p, struct ovr_err *err) {
    struct connection *c = &store->writer;
    int rc = db_begin(store, err);
    if (rc)
        return rc;
    rc = may_change_dataset(store, p->dataset, p->bytes, err);
    if (!rc)
        rc = db_run(c,
                    db_bind(c, PUT_PART, "sssssiiIi", p->dataset, p->split, p->part, p->sha256,
                            p->format, p->samples, p->created_at, asking_user(), p->bytes),
                    err);
    if (!rc)
        rc = audit(c, "dataset.put", p->dataset, p->part, err);
    return db_end(store, rc, err);
}

int store_get_part(struct store *store, const char *dataset, const char *split, const char *part,
                   struct dataset_part *found, struct ovr_err *err) {
    struct connection *c = db_take_reader(store);
    sqlite3_stmt *row = db_bind(c, GET_PART, "sss", dataset, split, part);
    int rc = 0, step = sqlite3_step(row);
    if (step == SQLITE_ROW) {
        snprintf(found->dataset, sizeof found->dataset, "%s", dataset);
        snprintf(found->split, sizeof found->split, "%s", split);
        snprintf(found->part, sizeof found->part, "%s", part);
        copy_column(row, 0, found->sha256, sizeof found->sha256);
        copy_column(row, 1, found->format, sizeof found->format);
        found->samples = sqlite3_column_int64(row, 2);
        found->created_at = sqlite3_column_int64(row, 3);
    } else if (step == SQLITE_DONE) {
        rc = ovr_fail(err, OVR_NOT_FOUND, NULL, "no %s wait for split %s of data set %s", part,
                      split, dataset);
    } else {
        rc = db_fail(c, err);
    }
    sqlite3_reset(row);
    db_give_back(c);
    return rc;
}

/* OVR_CONFLICT when an experiment that has not ended uses the data set. */
static int must_be_unused(struct connection *c, const char *dataset, struct ovr_err *err) {
    sqlite3_stmt *row = db_bind(c, USER_OF_DATASET, "si", dataset, visible_to());
    char id[ID_SIZE];
    int rc = 0, step = sqlite3_step(row);
    if (step == SQLITE_ROW) {
        copy_column(row, 0, id, sizeof id);
        rc = ovr_fail(err, OVR_CONFLICT, NULL,
                      "experiment %s uses data set %s and has not ended; cancel it or wait", id,
                      dataset);
    } else if (step != SQLITE_DONE) {
        rc = db_fail(c, err);
    }
    sqlite3_reset(row);
    return rc;
}

int store_remove_dataset(struct store *store, const char *dataset, struct ovr_err *err) {
    struct connection *c = &store->writer;
    int rc = db_begin(store, err), changed = 0;
    if (rc)
        return rc;
    rc = may_change_dataset(store, dataset, 0, err);
    if (!rc)
        rc = must_be_unused(c, dataset, err);
    if (!rc)
        rc = db_run(c, db_bind(c, RETIRE_DATASET, "s", dataset), err);
    changed = rc ? 0 : sqlite3_changes(c->db);
    if (!rc)
        rc = db_run(c, db_bind(c, FORGET_PARTS, "ss", dataset, NULL), err);
    changed += rc ? 0 : sqlite3_changes(c->db);
    if (!rc && !changed)
        rc = ovr_fail(err, OVR_NOT_FOUND, NULL, "there is no data set %s", dataset);
    if (!rc)
        rc = db_run(c, db_bind(c, FORGET_VERSIONS, "s", dataset), err);
    if (!rc)
        rc = audit(c, "dataset.remove", dataset, NULL, err);
    return db_end(store, rc, err);
}

int store_forget_versions(struct store *store, struct ovr_err *err) {
    struct connection *c = &store->writer;
    int rc = db_begin(store, err);
    return rc ? rc : db_end(store, db_run(c, db_bind(c, FORGET_VERSIONS, "s", NULL), err), err);
}

int store_has_file(struct store *store, const char *sha256, int *stored, struct ovr_err *err) {
    struct connection *c = db_take_reader(store);
    sqlite3_stmt *row = db_bind(c, IS_STORED, "s", sha256);
    int step = sqlite3_step(row);
    *stored = step == SQLITE_ROW;
    int rc = step == SQLITE_ROW || step == SQLITE_DONE ? 0 : db_fail(c, err);
    sqlite3_reset(row);
    db_give_back(c);
    return rc;
}
