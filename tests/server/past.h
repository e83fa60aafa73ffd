/* The database past the store: what a test writes, reads or wants explained by itself. */
#ifndef TESTS_SERVER_PAST_H
#define TESTS_SERVER_PAST_H

#include "tests/server/check.h"

#include <sqlite3.h>

static inline sqlite3 *open_past(const struct place *place) {
    sqlite3 *db;
    assert_int_equal(sqlite3_open(place->database, &db), SQLITE_OK);
    sqlite3_busy_timeout(db, 10000);
    return db;
}

static inline void write_past(const struct place *place, const char *statements) {
    sqlite3 *db = open_past(place);
    if (sqlite3_exec(db, statements, NULL, NULL, NULL))
        fail_msg("%s", sqlite3_errmsg(db));
    sqlite3_close(db);
}

static inline sqlite3_stmt *prepare(sqlite3 *db, const char *statement) {
    sqlite3_stmt *row;
    if (sqlite3_prepare_v2(db, statement, -1, &row, NULL))
        fail_msg("%s: %s", statement, sqlite3_errmsg(db));
    return row;
}

/* The steps of a statement's plan, each on a line of its own. The caller frees them with
 * sqlite3_free(). */
static inline char *plan_of(sqlite3 *db, const char *statement) {
    char *text = sqlite3_mprintf("EXPLAIN QUERY PLAN %s", statement);
    char *plan = sqlite3_mprintf("");
    sqlite3_stmt *row = prepare(db, text);
    while (sqlite3_step(row) == SQLITE_ROW) {
        char *longer = sqlite3_mprintf("%s%s\n", plan, sqlite3_column_text(row, 3));
        sqlite3_free(plan);
        plan = longer;
    }
    sqlite3_finalize(row);
    sqlite3_free(text);
    assert_non_null(plan);
    return plan;
}

#endif
