#include "server/store/db.h"

/* All SQL, by name. Every connection prepares all of it when it opens, so a slip shows at start. */
#define EXPERIMENT_COLUMNS                                                                         \
    "seq, id, name, tags, spec, priority, state, revision, memory_bytes, created_at, started_at, " \
    "finished_at, attempts, queue_reason, problem_kind, problem_pointer, problem_detail, "         \
    "(SELECT s.id FROM sweep AS s WHERE s.seq = sweep), point, repeat"
/* Of the one that the cluster has now. */
#define OF_ATTEMPT(column)                                                                         \
    "CASE WHEN sent THEN (SELECT a." column " FROM attempt AS a WHERE a.experiment = seq AND "     \
    "a.live) END"
#define OTHER_COLUMNS(notes)                                                                       \
    "rerun_of, replays, " notes ", (SELECT u.name FROM user AS u WHERE u.seq = owner), private, "  \
    "core_seconds, computed_ms, executor, ranks, " OF_ATTEMPT("job") ", " OF_ATTEMPT("node")
#define NOTES "coalesce(notes, CASE WHEN json_valid(spec) THEN json_extract(spec, '$.notes') END)"
#define COLUMNS(notes)                                                                             \
    EXPERIMENT_COLUMNS                                                                             \
    ", (SELECT p.id FROM experiment AS p WHERE p.seq = e.waits_for), " OTHER_COLUMNS(notes)
#define ALL_COLUMNS COLUMNS(NOTES)
/* Lists show no notes, and looking for them would parse every spec. */
#define LISTED_EXPERIMENTS "SELECT " COLUMNS("NULL")
/* To who asks; 0: an admin, or nobody whose rights are to be looked at. */
#define VISIBLE(asker) "(" asker " = 0 OR NOT private OR owner = " asker ")"
/* What could start, or be sent. By no other index: without statistics SQLite may take one that
 * reads it all. */
#define QUEUE                                                                                      \
    "experiment INDEXED BY experiment_queue WHERE state = 'queued' AND waits_for IS NULL AND NOT " \
    "sent"
/* What waits for its worker on the cluster counts for its owner as if it ran. */
#define SENT_OF(owner)                                                                             \
    "(SELECT count(*) FROM experiment AS w INDEXED BY experiment_sent WHERE w.sent AND w.state = " \
    "'queued' AND w.owner IS " owner ")"
#define ATTEMPT_COLUMNS                                                                            \
    "e.seq, e.id, a.number, a.job_name, a.job, a.node, a.submitted_at, a.begun_at, a.batch, "      \
    "e.work_checkpoint, e.work_checkpoint_before, e.computed_ms, e.ranks, e.state = 'running' "    \
    "AND e.pausing, a.live FROM attempt AS a JOIN experiment AS e ON e.seq = a.experiment"
#define VISIBLE_ID(asker) "CASE WHEN " VISIBLE(asker) " THEN id ELSE '(private)' END"
#define LIST_FILTER                                                                                \
    "(?2 IS NULL OR state = ?2) AND (?3 IS NULL OR instr(tags, char(10) || ?3 || char(10))) AND "  \
    "(?4 IS NULL OR substr(name, 1, length(?4)) = ?4) AND (?5 IS NULL OR sweep = (SELECT s.seq "   \
    "FROM sweep AS s WHERE s.id = ?5)) AND created_at > ?7 AND (?10 IS NULL OR owner = (SELECT "   \
    "u.seq FROM user AS u WHERE u.name = ?10)) AND " VISIBLE("?11") " "
/* Where a list looks: at all, or at those that one filter finds by its index, which ?12 names (enum
 * finder). By age SQLite merges the parts; all but the last three have that order already. No byte
 * of a name is 255, so what begins with a prefix is below the prefix with that behind it. */
#define ALL "experiment AS e"
#define FROM_INDEX "UNION ALL SELECT seq FROM experiment INDEXED BY "
#define FOUND_NUMBERS                                                                              \
    "(SELECT experiment AS number FROM experiment_tag WHERE ?12 = 1 AND tag = ?3 " FROM_INDEX      \
    "experiment_state WHERE ?12 = 2 AND state = ?2 " FROM_INDEX                                    \
    "experiment_owner WHERE ?12 = 3 AND owner = "                                                  \
    "(SELECT u.seq FROM user AS u WHERE u.name = ?10) " FROM_INDEX                                 \
    "experiment_private WHERE ?12 = 4 AND private = 0 " FROM_INDEX                                 \
    "experiment_owner WHERE ?12 = 4 AND owner = ?11 AND private " FROM_INDEX                       \
    "experiment_name WHERE ?12 = 5 AND name >= ?4 AND "                                            \
    "name < ?4 || CAST(x'ff' AS TEXT) " FROM_INDEX "experiment_sweep WHERE ?12 = 6 AND sweep = "   \
    "(SELECT s.seq FROM sweep AS s WHERE s.id = ?5) " FROM_INDEX                                   \
    "experiment_created WHERE ?12 = 7 AND created_at > ?7)"
#define FOUND FOUND_NUMBERS " CROSS JOIN experiment AS e ON e.seq = number"
#define RESULTS "figure AS f WHERE f.name = ?9"
/* The plus keeps it from the index of all results in order. */
#define FOUND_RESULTS                                                                              \
    FOUND_NUMBERS " CROSS JOIN figure AS f ON f.experiment = number WHERE +f.name = ?9"
/* Pages by (key, seq) of the row before: rows that come or go meanwhile move nothing. Only what is
 * on the page is read whole. */
#define PAGE(rows, order)                                                                          \
    LISTED_EXPERIMENTS ", key FROM (SELECT " rows " ORDER BY " order " LIMIT ?6) CROSS JOIN "      \
                       "experiment AS e ON e.seq = number ORDER BY " order
#define LIST_BY_AGE(source, seq, beyond, way)                                                      \
    PAGE(seq " AS number, NULL AS key FROM " source " WHERE " seq " " beyond                       \
             " ?1 AND " LIST_FILTER,                                                               \
         "number" way)
#define LIST_BY_END(source, beyond, way)                                                           \
    PAGE("seq AS number, finished_at AS key FROM " source " WHERE finished_at IS NOT NULL AND "    \
         "(finished_at, seq) " beyond " (?8, ?1) AND " LIST_FILTER,                                \
         "key" way ", number" way)
#define LIST_BY_FIGURE(results, beyond, way)                                                       \
    PAGE("number, key FROM (SELECT f.experiment AS number, value AS key FROM " results             \
         " AND f.epoch = 0 AND typeof(value) IN ('integer', 'real')) CROSS JOIN experiment AS e "  \
         "ON e.seq = number WHERE (key, number) " beyond " (?8, ?1) AND " LIST_FILTER,             \
         "key" way ", number" way)
#define SWEEP_COLUMNS                                                                              \
    "s.seq, s.id, s.name, s.tags, s.notes, s.request, s.axes, s.target, s.points, s.repeats, "     \
    "s.more, s.cancelled, s.created_at, max(e.finished_at), s.revision + total(e.revision), "      \
    "total(e.state = 'queued'), total(e.state = 'running'), total(e.state = 'paused'), "           \
    "total(e.state = 'succeeded'), "                                                               \
    "total(e.state = 'failed'), total(e.state = 'cancelled'), "                                    \
    "(SELECT u.name FROM user AS u WHERE u.seq = s.owner), s.private"
#define OWNER_OF_SPLIT ", (SELECT u.name FROM user AS u WHERE u.seq = owner)"
#define USER_COLUMNS                                                                               \
    "u.seq, u.name, u.role, u.disabled, u.max_running, u.max_queued, u.max_storage_bytes, "        \
    "u.storage_bytes, u.revision, u.created_at, (SELECT count(*) FROM experiment WHERE owner = "   \
    "u.seq AND " ACTIVE " AND state = 'running'), (SELECT count(*) FROM experiment WHERE owner = " \
    "u.seq AND " ACTIVE " AND state <> 'running')"
/* As the index experiment_active has it. */
#define ACTIVE "state IN ('queued', 'running', 'paused')"
#define TOKEN_COLUMNS "t.id, t.label, t.scope, t.created_at, t.expires_at, t.revoked_at, t.used_at"
#define SPLIT_COLUMNS                                                                              \
    "dataset, split, sha256, format, bytes, samples, width, classes, created_at, source_sha256, "  \
    "channels, height, image_width, interleaved, named"

/* A layer's number: that of the last one where it is negative. */
#define LAYER(number, table)                                                                       \
    "CASE WHEN " number " < 0 THEN (SELECT max(layer) FROM " table                                 \
    " WHERE experiment = ?1) ELSE " number " END"

const char *const sql[N_SQL] = {
    [BEGIN] = "BEGIN IMMEDIATE",
    [BEGIN_READING] = "BEGIN",
    [COMMIT] = "COMMIT",
    [ROLLBACK] = "ROLLBACK",
    [SAVEPOINT] = "SAVEPOINT own",
    [RELEASE] = "RELEASE own",
    [ROLLBACK_TO] = "ROLLBACK TO own",
    [ADD_EXPERIMENT] =
        "INSERT INTO experiment (id, name, tags, spec, priority, memory_bytes, "
        "created_at, sweep, point, repeat, waits_for, owner, private, "
        "core_seconds, executor, ranks, state) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, "
        "?11, CASE WHEN ?8 IS NULL THEN ?12 ELSE (SELECT s.owner FROM sweep AS s "
        "WHERE s.seq = ?8) END, ?13, ?14, ?15, ?16, 'queued')",
    [ADD_KEY] = "INSERT INTO idempotency (owner, key, body_sha256, experiment, sweep, created_at) "
                "VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    [FIND_KEY] = "SELECT coalesce(e.id, s.id), i.body_sha256, i.sweep IS NOT NULL "
                 "FROM idempotency AS i LEFT JOIN experiment AS e ON e.seq = i.experiment "
                 "LEFT JOIN sweep AS s ON s.seq = i.sweep WHERE i.owner = ?1 AND i.key = ?2",
    [GET_EXPERIMENT] = "SELECT " ALL_COLUMNS " FROM experiment AS e WHERE id = ?1",
    [GET_NUMBERED] = "SELECT " ALL_COLUMNS " FROM experiment AS e WHERE seq = ?1",
    [LIST_EXPERIMENTS] = LIST_BY_AGE(ALL, "seq", "<", " DESC"),
    [LIST_OLDEST] = LIST_BY_AGE(ALL, "seq", ">", ""),
    [LIST_FINISHED] = LIST_BY_END(ALL, ">", ""),
    [LIST_FINISHED_LAST] = LIST_BY_END(ALL, "<", " DESC"),
    [LIST_LEAST] = LIST_BY_FIGURE(RESULTS, ">", ""),
    [LIST_MOST] = LIST_BY_FIGURE(RESULTS, "<", " DESC"),
    [FOUND_EXPERIMENTS] = LIST_BY_AGE(FOUND, "number", "<", " DESC"),
    [FOUND_OLDEST] = LIST_BY_AGE(FOUND, "number", ">", ""),
    [FOUND_FINISHED] = LIST_BY_END(FOUND, ">", ""),
    [FOUND_FINISHED_LAST] = LIST_BY_END(FOUND, "<", " DESC"),
    [FOUND_LEAST] = LIST_BY_FIGURE(FOUND_RESULTS, ">", ""),
    [FOUND_MOST] = LIST_BY_FIGURE(FOUND_RESULTS, "<", " DESC"),
    [COUNT_FOUND] = "SELECT count(*) FROM (SELECT 1 FROM " FOUND_NUMBERS " LIMIT ?6)",
    [ADD_TAG] = "INSERT OR IGNORE INTO experiment_tag (experiment, tag) VALUES (?1, ?2)",
    [REMOVE_TAG] = "DELETE FROM experiment_tag WHERE experiment = ?1 AND tag = ?2",
    /* The index begins with the owner, then priority and age: what follows on her first one among
     * those of later owners is the first one of the next. Owner 0: nobody's, if there is any. */
    [FIRSTS] = "WITH RECURSIVE first (owner, seq) AS (SELECT 0, (SELECT seq FROM " QUEUE
               " AND executor = ?1 AND owner IS NULL ORDER BY priority DESC, seq LIMIT 1) UNION "
               "ALL SELECT next.owner, next.seq FROM first AS f CROSS JOIN experiment AS next ON "
               "next.seq = (SELECT seq FROM " QUEUE
               " AND executor = ?1 AND owner > f.owner ORDER BY owner, priority DESC, seq LIMIT "
               "1)) SELECT f.owner, q.seq, q.priority, q.memory_bytes, u.max_running, "
               "s.core_seconds, s.at, " SENT_OF(
                   "nullif(f.owner, 0)") " FROM first AS f CROSS JOIN "
                                         "experiment AS q ON q.seq = f.seq LEFT JOIN user AS u ON "
                                         "u.seq = f.owner LEFT JOIN "
                                         "usage AS s ON s.owner = f.owner",
    /* Behind so many that do not fit nobody looks. */
    [FITTING_OF_OWNER] =
        "SELECT seq, priority, memory_bytes FROM (SELECT seq, priority, memory_bytes FROM " QUEUE
        " AND executor = ?2 AND owner IS ?1 ORDER BY priority DESC, seq LIMIT 50) WHERE "
        "memory_bytes <= ?3 ORDER BY priority DESC, seq LIMIT 1",
    [READ_WAITING] =
        "SELECT seq, owner, priority, memory_bytes, core_seconds, NULL, executor FROM " QUEUE
        /* What starts from another's weights runs here. */
        " UNION ALL SELECT seq, owner, priority, memory_bytes, core_seconds, waits_for, 0 FROM "
        "experiment INDEXED BY experiment_waits WHERE waits_for IS NOT NULL AND state = 'queued'",
    [READ_SENT] =
        "SELECT e.seq, e.owner, e.memory_bytes, e.ranks, a.job, a.node, a.reason, a.begun_at, "
        "a.cores FROM "
        "attempt AS a INDEXED BY attempt_live CROSS JOIN experiment AS e ON e.seq = a.experiment "
        "WHERE a.live ORDER BY a.submitted_at, e.seq",
    [READ_OWNERS] = "SELECT 0 AS owner, '', NULL, s.core_seconds, s.at, " SENT_OF(
        "NULL") " FROM (SELECT 0) LEFT JOIN usage AS s ON "
                "s.owner = 0 UNION ALL SELECT u.seq, u.name, u.max_running, s.core_seconds, "
                "s.at, " SENT_OF("u.seq") " FROM user "
                                          "AS u LEFT JOIN usage AS s ON s.owner = u.seq ORDER BY 1",
    [READ_USE] = "SELECT core_seconds, at FROM usage WHERE owner = ?1",
    [WRITE_USE] = "INSERT INTO usage (owner, core_seconds, at) VALUES (?1, ?2, ?3) ON CONFLICT "
                  "(owner) DO UPDATE SET core_seconds = ?2, at = ?3",
    [COUNT_QUEUE] = "SELECT count(*) FROM (SELECT 1 FROM " QUEUE " AND executor = ?2 LIMIT ?1)",
    [CLAIM] =
        "UPDATE experiment SET state = 'running', revision = revision + 1, started_at = "
        "?2, attempts = attempts + 1, queue_reason = NULL WHERE seq = ?1 AND state = 'queued' AND "
        "waits_for IS NULL AND executor = 0 AND NOT sent RETURNING " EXPERIMENT_COLUMNS
        ", NULL, " OTHER_COLUMNS("NULL"),
    [SEND] = "UPDATE experiment SET sent = 1, attempts = attempts + 1 WHERE seq = ?1 AND state = "
             "'queued' AND waits_for IS NULL AND executor <> 0 AND NOT sent RETURNING "
             "" EXPERIMENT_COLUMNS ", NULL, " OTHER_COLUMNS("NULL"),
    [ADD_ATTEMPT] = "INSERT INTO attempt (experiment, number, token_sha256, job_name, "
                    "submitted_at) VALUES (?1, ?2, ?3, ?4, ?5)",
    [RENEW_ATTEMPT] = "UPDATE attempt SET token_sha256 = ?3 WHERE experiment = ?1 AND number = ?2 "
                      "AND live AND begun_at IS NULL",
    [NOTE_JOB] = "UPDATE attempt SET job = ?3 WHERE experiment = ?1 AND number = ?2 AND live",
    [NOTE_REASON] = "UPDATE attempt SET reason = nullif(?3, '') WHERE experiment = ?1 AND number = "
                    "?2 AND live",
    [LIST_ATTEMPTS] = "SELECT " ATTEMPT_COLUMNS " WHERE a.live ORDER BY a.submitted_at, e.seq",
    [FIND_ATTEMPT] = "SELECT " ATTEMPT_COLUMNS " WHERE a.token_sha256 = ?1",
    [GET_ATTEMPT] = "SELECT " ATTEMPT_COLUMNS " WHERE a.experiment = ?1 AND a.number = ?2",
    [REASON_OF_ATTEMPT] =
        "SELECT a.number, a.reason FROM attempt AS a WHERE a.experiment = ?1 AND a.live",
    [BEGIN_RUN] = "UPDATE experiment SET state = 'running', revision = revision + 1, started_at = "
                  "?2, queue_reason = NULL WHERE seq = ?1 AND state = 'queued' AND sent RETURNING "
                  "owner",
    [BEGIN_ATTEMPT] = "UPDATE attempt SET begun_at = ?3, node = ?4, cores = ?5, job = "
                      "coalesce(job, ?6), reason = NULL WHERE experiment = ?1 AND number = ?2",
    [NOTE_BATCH] = "UPDATE attempt SET batch = ?3 WHERE experiment = ?1 AND number = ?2",
    [NOTE_WORK_CHECKPOINT] =
        "UPDATE experiment SET work_checkpoint_before = work_checkpoint, work_checkpoint = ?2 "
        "WHERE seq = ?1 AND work_checkpoint < ?2",
    [WITHDRAW] = "UPDATE experiment SET sent = 0, attempts = attempts - 1, queue_reason = ?2 WHERE "
                 "seq = ?1 AND state = 'queued' AND sent",
    [DELETE_ATTEMPT] = "DELETE FROM attempt WHERE experiment = ?1 AND number = ?2",
    [END_ATTEMPT] = "UPDATE attempt SET live = 0 WHERE experiment = ?1 AND number = ?2",
    [TAKE_BACK] = "UPDATE experiment SET sent = 0, queue_reason = ?2 WHERE seq = ?1 AND state = "
                  "'queued' AND sent",
    [COUNT_LOSS] = "UPDATE experiment SET crashes = crashes + 1 WHERE seq = ?1 RETURNING crashes",
    [REMOTE_RUNS] = "SELECT e.seq, e.owner, e.started_at, a.cores FROM attempt AS a JOIN "
                    "experiment AS e ON e.seq = a.experiment WHERE a.live AND e.state = 'running'",
    [ADD_FIGURE] = "INSERT OR REPLACE INTO figure (experiment, epoch, position, name, value) "
                   "VALUES (?1, ?2, ?3, ?4, ?5)",
    [TOUCH] = "UPDATE experiment SET revision = revision + ?2 WHERE seq = ?1 AND state = 'running'",
    [ADD_HISTOGRAM] = "INSERT OR REPLACE INTO histogram (experiment, epoch, split, zero_count, "
                      "total, maximum, layer, counts) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    [ADD_TENSOR] = "INSERT OR REPLACE INTO tensor (experiment, epoch, position, name, dtype, "
                   "dimensions, rows, columns) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    [ADD_UNIT_TABLE] =
        "INSERT OR REPLACE INTO unit_table (experiment, layer, split, units, classes, "
        "cells) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    [FINISH] = "UPDATE experiment SET state = ?2, revision = revision + 1, finished_at = ?3, "
               "problem_kind = ?4, problem_pointer = ?5, problem_detail = ?6 "
               "WHERE seq = ?1 AND (state = 'running' OR sent)",
    [REQUEUE] = "UPDATE experiment SET state = 'queued', revision = revision + 1, started_at = "
                "NULL, queue_reason = ?2 WHERE seq = ?1 AND state = 'running'",
    [COUNT_CRASH] = "UPDATE experiment SET crashes = crashes + 1 WHERE state = 'running' AND NOT "
                    "sent",
    [GIVE_UP] = "UPDATE experiment SET state = 'failed', revision = revision + 1, finished_at = "
                "?1, problem_kind = 'crashed', problem_detail = 'the daemon ended ' || crashes || "
                "' times while this experiment ran; it may need more memory than the machine has. "
                "Post it again once the cause is found' "
                "WHERE state = 'running' AND NOT sent AND crashes >= ?2",
    [RUNNING] = "SELECT seq FROM experiment WHERE state = 'running' AND NOT sent",
    [DELETE_FIGURES] = "DELETE FROM figure WHERE experiment = ?1 AND epoch >= ?2",
    [DELETE_NEWEST] =
        "DELETE FROM figure WHERE experiment = ?1 AND epoch > (SELECT max(epoch) FROM "
        "figure WHERE experiment = ?1) - 500 AND epoch > 500",
    [DELETE_HISTOGRAMS] = "DELETE FROM histogram WHERE experiment = ?1 AND epoch >= ?2",
    [NOTE_CHECKPOINT] = "UPDATE experiment SET crashes = 0, computed_ms = ?2 WHERE seq = ?1",
    [CANCEL] = "UPDATE experiment SET state = 'cancelled', revision = revision + 1, finished_at = "
               "?2, queue_reason = NULL, waits_for = NULL WHERE seq = ?1 AND state IN ('queued', "
               "'running', 'paused')",
    [PAUSE] = "UPDATE experiment SET pausing = state = 'running', state = CASE state WHEN 'queued' "
              "THEN 'paused' ELSE state END, revision = revision + 1 WHERE seq = ?1 AND (state = "
              "'queued' OR (state = 'running' AND NOT pausing))",
    [PARK] = "UPDATE experiment SET state = 'paused', pausing = 0, revision = revision + 1, "
             "started_at = NULL WHERE seq = ?1 AND state = 'running'",
    [PARK_MARKED] = "UPDATE experiment SET state = 'paused', pausing = 0, revision = revision + 1, "
                    "started_at = NULL WHERE state = 'running' AND NOT sent AND pausing",
    [RESUME] = "UPDATE experiment SET state = 'queued', revision = revision + 1, queue_reason = "
               "'it was paused' WHERE seq = ?1 AND state = 'paused'",
    [RELEASE_NEXT] = "UPDATE experiment SET waits_for = NULL, revision = revision + 1 "
                     "WHERE waits_for = ?1",
    [BREAK_CHAINS] =
        "WITH RECURSIVE broken (seq, why) AS (SELECT e.seq, 'experiment ' || p.id || CASE WHEN "
        "p.point IS NULL THEN '' ELSE ' (point ' || p.point || ')' END || ', whose weights it was "
        "to start from, ' || CASE p.state WHEN 'failed' THEN 'failed' ELSE 'was cancelled' END "
        "FROM experiment AS e JOIN experiment AS p ON p.seq = e.waits_for WHERE e.waits_for IS NOT "
        "NULL AND e.state IN ('queued', 'paused') AND p.state IN ('failed', 'cancelled') UNION ALL "
        "SELECT "
        "e.seq, b.why FROM broken AS b JOIN experiment AS e ON e.waits_for = b.seq WHERE e.state "
        "IN "
        "('queued', 'paused')) UPDATE experiment SET state = 'failed', revision = revision + 1, "
        "finished_at = "
        "?1, problem_kind = 'chain-broken', problem_detail = broken.why, waits_for = NULL "
        "FROM broken WHERE experiment.seq = broken.seq",
    [ADD_SWEEP] = "INSERT INTO sweep (id, name, tags, notes, request, axes, target, points, "
                  "repeats, more, created_at, owner, private) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, "
                  "?8, ?9, ?10, ?11, ?12, ?13)",
    [ADD_POINT] = "INSERT INTO sweep_point (sweep, point, axis_values) VALUES (?1, ?2, ?3)",
    [EXTEND_SWEEP] = "UPDATE sweep SET points = points + ?3, revision = revision + 1 WHERE seq = "
                     "?1 AND points = ?2 AND more",
    [CLOSE_SWEEP] = "UPDATE sweep SET more = 0, revision = revision + 1 WHERE seq = ?1 AND points "
                    "= ?2 AND more",
    [GET_SWEEP] = "SELECT " SWEEP_COLUMNS " FROM sweep AS s LEFT JOIN experiment AS e ON e.sweep = "
                  "s.seq WHERE s.id = ?1 GROUP BY s.seq",
    [LIST_SWEEPS] = "SELECT " SWEEP_COLUMNS " FROM (SELECT * FROM sweep WHERE seq < ?1 AND (?3 IS "
                    "NULL OR owner = (SELECT u.seq FROM user AS u WHERE u.name = ?3)) AND " VISIBLE(
                        "?4") " ORDER BY seq DESC LIMIT ?2) AS s LEFT JOIN experiment AS e ON "
                              "e.sweep = s.seq GROUP BY "
                              "s.seq ORDER BY s.seq DESC",
    [DUE_SWEEP] = "SELECT id FROM sweep WHERE more AND NOT EXISTS (SELECT 1 FROM experiment AS e "
                  "WHERE e.sweep = sweep.seq AND e.state IN ('queued', 'running', 'paused')) LIMIT "
                  "1",
    [SWEEP_POINTS] = "SELECT point, axis_values FROM sweep_point WHERE sweep = ?1 ORDER BY point",
    [SWEEP_RUNS] = "SELECT point, repeat, id, state, problem_kind, problem_detail FROM experiment "
                   "WHERE sweep = ?1 AND " VISIBLE("?2") " ORDER BY point, repeat",
    [SWEEP_FIGURES] =
        "SELECT e.point, f.name, f.value, e.repeat FROM experiment AS e CROSS JOIN figure AS f ON "
        "f.experiment = e.seq AND f.epoch = 0 WHERE e.sweep = ?1 AND " VISIBLE(
            "?2") " ORDER BY e.point, e.repeat, f.position",
    [SWEEP_RUNNING] = "SELECT seq, id FROM experiment WHERE sweep = ?1 AND state = 'running'",
    [CANCEL_SWEEP] = "UPDATE sweep SET cancelled = 1, more = 0, revision = revision + 1 "
                     "WHERE seq = ?1",
    [CANCEL_RUNS] = "UPDATE experiment SET state = 'cancelled', revision = revision + 1, "
                    "finished_at = ?2, queue_reason = NULL, waits_for = NULL "
                    "WHERE sweep = ?1 AND state IN ('queued', 'running', 'paused')",
    [READ_FIGURES] = "SELECT epoch, name, value FROM figure WHERE experiment = ?1 AND epoch "
                     "BETWEEN ?2 AND ?3 ORDER BY epoch, position",
    [READ_HISTOGRAM] =
        "SELECT split, zero_count, total, maximum, counts, epoch, layer FROM histogram WHERE "
        "experiment = ?1 AND (?2 = 0 OR epoch = ?2) AND (?3 = '' OR split = ?3) AND layer = " LAYER(
            "?4", "histogram") " "
                               "ORDER BY epoch = 0 DESC, epoch DESC, split LIMIT 1",
    [READ_HISTOGRAMS] =
        "SELECT split, zero_count, total, maximum, counts, epoch, layer FROM histogram WHERE "
        "experiment = ?1 AND layer = " LAYER(
            "?2", "histogram") " AND epoch >= ?3 ORDER BY epoch, split LIMIT ?4",
    [READ_UNIT_TABLE] =
        "SELECT split, units, classes, cells, layer FROM unit_table WHERE experiment = "
        "?1 AND layer = " LAYER("?2", "unit_table"),
    [READ_TENSORS] = "SELECT name, dtype, dimensions, rows, columns FROM tensor WHERE experiment = "
                     "?1 AND epoch = ?2 ORDER BY position",
    [HAVE_SPLIT] = "SELECT 1 FROM dataset_split WHERE dataset = ?1 AND split = ?2 AND sha256 = ?3 "
                   "AND current",
    [RETIRE_SPLITS] = "UPDATE dataset_split SET current = 0 WHERE dataset = ?1 AND split = ?2",
    [PUT_SPLIT] =
        "INSERT INTO dataset_split (" SPLIT_COLUMNS ", owner, current) VALUES (?1, ?2, ?3, ?4, ?5, "
        "?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, 1) ON CONFLICT (dataset, split, "
        "sha256) DO UPDATE SET current = 1, owner = ?16",
    [GET_SPLIT] = "SELECT " SPLIT_COLUMNS OWNER_OF_SPLIT
                  " FROM dataset_split WHERE dataset = ?1 AND split = ?2 "
                  "AND CASE ?3 WHEN '' THEN current ELSE sha256 = ?3 END",
    [LIST_SPLITS] = "SELECT " SPLIT_COLUMNS OWNER_OF_SPLIT
                    " FROM dataset_split WHERE current AND (?1 IS NULL OR "
                    "dataset = ?1) ORDER BY dataset, split DESC",
    [USER_OF_DATASET] = "SELECT " VISIBLE_ID(
        "?2") " FROM experiment WHERE state NOT IN ('succeeded', 'failed', "
              "'cancelled') AND json_extract(spec, '$.dataset.name') = ?1 LIMIT 1",
    [RETIRE_DATASET] = "UPDATE dataset_split SET current = 0 WHERE dataset = ?1 AND current",
    [FORGET_VERSIONS] =
        "DELETE FROM dataset_split WHERE NOT current AND (?1 IS NULL OR dataset = ?1) AND NOT "
        "EXISTS (SELECT 1 FROM experiment WHERE instr(spec, sha256))",
    [DATASET_OF] = "SELECT json_extract(spec, '$.dataset.name') FROM experiment WHERE seq = ?1 AND "
                   "json_valid(spec)",
    [PUT_PART] =
        "INSERT INTO dataset_part (dataset, split, part, sha256, format, samples, created_at, "
        "owner, bytes) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT (dataset, split, "
        "part) DO UPDATE SET sha256 = ?4, format = ?5, samples = ?6, created_at = ?7, owner = ?8, "
        "bytes = ?9",
    [GET_PART] = "SELECT sha256, format, samples, created_at FROM dataset_part WHERE dataset = ?1 "
                 "AND split = ?2 AND part = ?3",
    [FORGET_PARTS] = "DELETE FROM dataset_part WHERE dataset = ?1 AND (?2 IS NULL OR split = ?2)",
    [IS_STORED] = "SELECT 1 FROM dataset_split WHERE sha256 = ?1 UNION ALL SELECT 1 FROM "
                  "dataset_part WHERE sha256 = ?1",
    [NOTE_ORIGIN] = "UPDATE experiment SET rerun_of = ?2, replays = ?3 WHERE seq = ?1",
    [EDIT_EXPERIMENT] =
        "UPDATE experiment SET name = coalesce(?2, name), tags = coalesce(?3, tags), notes = "
        "coalesce(?4, notes), priority = coalesce(?5, priority), private = coalesce(?6, private), "
        "revision = revision + 1 "
        "WHERE seq = ?1",
    [USER_OF_EXPERIMENT] = "SELECT 'experiment', " VISIBLE_ID(
        "?2") " FROM experiment WHERE state IN ('queued', 'running', 'paused') "
              "AND "
              "(instr(spec, '\"experiment\":\"' || ?1 || '\"') OR (replays AND rerun_of = ?1)) "
              "UNION ALL "
              "SELECT 'sweep', s.id FROM experiment AS e JOIN sweep AS s ON s.seq = e.sweep WHERE "
              "e.id = "
              "?1 AND (s.more OR EXISTS (SELECT 1 FROM experiment AS q WHERE q.sweep = s.seq AND "
              "q.state "
              "IN ('queued', 'running', 'paused'))) LIMIT 1",
    [NOTE_LOSS] = "UPDATE sweep SET revision = revision + 1 + ?2 WHERE seq = (SELECT sweep FROM "
                  "experiment WHERE seq = ?1)",
    [DELETE_EXPERIMENT] = "DELETE FROM experiment WHERE seq = ?1",
    [CENSUS] = "SELECT c.state, c.n, e.created_at FROM (SELECT state, count(*) AS n, min(seq) AS "
               "first FROM experiment GROUP BY state) AS c JOIN experiment AS e ON e.seq = c.first",
    [OWNERS] =
        "SELECT coalesce(u.name, ''), c.state, c.n FROM (SELECT owner, state, count(*) AS n "
        "FROM experiment WHERE state IN ('queued', 'running', 'paused') GROUP BY owner, state) "
        "AS c LEFT JOIN user AS u ON u.seq = c.owner ORDER BY u.name, c.state",
    [TENSOR_BYTES] = "SELECT coalesce(sum(rows * columns), 0) * 4 FROM tensor",
    [PROBE] = "UPDATE probe SET at = ?1",
    [ADD_LINE] = "INSERT INTO event (experiment, number, at, kind, text) SELECT ?1, "
                 "coalesce(max(number), 0) + 1, ?2, 'log', ?3 FROM event WHERE experiment = ?1",
    [TRIM_LINES] =
        "DELETE FROM event WHERE experiment = ?1 AND kind = 'log' AND number <= (SELECT number "
        "FROM event WHERE experiment = ?1 AND kind = 'log' ORDER BY number DESC LIMIT 1 OFFSET ?2)",
    [READ_EVENTS] = "SELECT number, at, kind, epoch, text, detail FROM event WHERE experiment = ?1 "
                    "AND number > ?2 ORDER BY number LIMIT ?3",
    [LAST_EPOCH] = "SELECT max(epoch) FROM figure WHERE experiment = ?1",
    [LAST_EVENT] = "SELECT max(number) FROM event WHERE experiment = ?1",
    [ADD_USER] = "INSERT INTO user (name, role, max_running, max_queued, max_storage_bytes, "
                 "created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    [GET_USER] = "SELECT " USER_COLUMNS " FROM user AS u WHERE u.name = ?1",
    [GET_USER_BY_SEQ] = "SELECT " USER_COLUMNS " FROM user AS u WHERE u.seq = ?1",
    [LIST_USERS] = "SELECT " USER_COLUMNS " FROM user AS u WHERE u.name > ?1 ORDER BY u.name LIMIT "
                   "?2",
    [EDIT_USER] = "UPDATE user SET role = ?2, disabled = ?3, max_running = ?4, max_queued = ?5, "
                  "max_storage_bytes = ?6, revision = revision + 1 WHERE seq = ?1",
    [COUNT_USERS] = "SELECT count(*), total(role = 'admin' AND NOT disabled) FROM user",
    [ADD_TOKEN] = "INSERT INTO token (id, user, label, sha256, scope, created_at, expires_at) "
                  "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    [LIST_TOKENS] = "SELECT " TOKEN_COLUMNS " FROM token AS t JOIN user AS u ON u.seq = t.user "
                    "WHERE u.name = ?1 AND (?2 IS NULL OR t.id = ?2) ORDER BY t.seq DESC LIMIT ?3",
    [COUNT_TOKENS] = "SELECT count(*) FROM token WHERE user = ?1",
    [FORGET_TOKENS] = "DELETE FROM token WHERE user = ?1 AND (revoked_at < ?2 OR expires_at < ?2)",
    [REVOKE_TOKENS] = "UPDATE token SET revoked_at = ?3 WHERE user = ?1 AND (?2 IS NULL OR id = "
                      "?2) AND revoked_at IS NULL",
    [FIND_TOKEN] = "SELECT u.seq, u.name, u.role, t.id, t.scope, t.expires_at FROM token AS t JOIN "
                   "user AS u ON u.seq = t.user WHERE t.sha256 = ?1 AND t.revoked_at IS NULL AND "
                   "NOT u.disabled",
    [NOTE_TOKEN] = "UPDATE token SET used_at = ?2 WHERE id = ?1",
    [ADD_AUDIT] = "INSERT INTO audit (at, user, token, address, action, object, detail) VALUES "
                  "(?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    [LIST_AUDIT] = "SELECT seq, at, user, token, address, action, object, detail FROM audit WHERE "
                   "seq < ?1 AND at >= ?2 AND (?3 IS NULL OR user = ?3) AND (?4 IS NULL OR object "
                   "= ?4) ORDER BY seq DESC LIMIT ?5",
    [OWNER_OF_DATASET] =
        "SELECT u.name FROM (SELECT dataset, owner FROM dataset_split WHERE current UNION ALL "
        "SELECT dataset, owner FROM dataset_part) AS d LEFT JOIN user AS u ON u.seq = d.owner "
        "WHERE d.dataset = ?1 AND d.owner IS NOT ?2 LIMIT 1",
};

/* Events of states and epochs, by triggers: so no change of a state goes without its event, whoever
 * makes it. Temporary ones of the connection that writes. Why it once was queued is no reason of
 * any other state. */
#define NEXT_EVENT(seq, columns, values)                                                           \
    "INSERT INTO event (experiment, number, at, kind, " columns ") SELECT " seq                    \
    ", coalesce(max(number), 0) + 1, CAST(round((julianday('now') - 2440587.5) * 86400000) AS "    \
    "INTEGER), " values " FROM event WHERE experiment = " seq "; END; "
const char event_triggers[] =
    "CREATE TEMP TRIGGER event_added AFTER INSERT ON main.experiment BEGIN " NEXT_EVENT(
        "new.seq", "text, detail", "'state', new.state, new.queue_reason") //
    "CREATE TEMP TRIGGER event_state AFTER UPDATE OF state ON main.experiment WHEN old.state <> "
    "new.state BEGIN " NEXT_EVENT("new.seq", "text, detail",
                                  "'state', new.state, CASE new.state WHEN 'queued' THEN "
                                  "new.queue_reason ELSE new.problem_detail END") //
    "CREATE TEMP TRIGGER event_epoch AFTER INSERT ON main.figure WHEN new.position = 0 AND "
    "new.epoch >= 1 AND NOT EXISTS (SELECT 1 FROM event WHERE experiment = new.experiment AND "
    "epoch = new.epoch) BEGIN " NEXT_EVENT("new.experiment", "epoch", "'epoch', new.epoch");
