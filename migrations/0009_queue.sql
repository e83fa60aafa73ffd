-- The queue in the shares of its owners.

-- What it was estimated to take; NULL: posted before this was kept.
ALTER TABLE experiment ADD COLUMN core_seconds REAL;

-- What each owner's jobs have used lately, faded until `at` (server/scheduler.h). 0: nobody's, from when
-- there were no users.
CREATE TABLE usage (
    owner        INTEGER PRIMARY KEY,
    core_seconds REAL NOT NULL,
    at           INTEGER NOT NULL
) STRICT;

-- Each owner's queue in order, with all that is needed to choose from it and to look ahead.
DROP INDEX experiment_queue;
CREATE INDEX experiment_queue ON experiment (owner, priority DESC, seq, memory_bytes, core_seconds)
    WHERE state = 'queued' AND waits_for IS NULL;
DROP INDEX experiment_waits;
CREATE INDEX experiment_waits ON experiment (waits_for, state, owner, priority, memory_bytes, core_seconds)
    WHERE waits_for IS NOT NULL;
