-- Experiments can be paused: the table anew, since a CHECK cannot be changed. Foreign keys are off meanwhile.

CREATE TABLE experiment_with_pause (
    seq          INTEGER PRIMARY KEY AUTOINCREMENT,
    id           TEXT NOT NULL UNIQUE,
    name         TEXT NOT NULL,
    tags         TEXT NOT NULL,         -- each between newlines: "\npaper\nsphere\n"
    priority     INTEGER NOT NULL,
    state        TEXT NOT NULL
                 CHECK (state IN ('queued', 'running', 'paused', 'succeeded', 'failed', 'cancelled')),
    revision     INTEGER NOT NULL DEFAULT 1,
    spec         TEXT NOT NULL,         -- completed: all defaults, data version
    memory_bytes INTEGER NOT NULL,      -- estimate, for admission
    created_at   INTEGER NOT NULL,
    started_at   INTEGER,
    finished_at  INTEGER,
    attempts     INTEGER NOT NULL DEFAULT 0,   -- starts
    crashes      INTEGER NOT NULL DEFAULT 0,   -- starts that ended with the daemon's process
    queue_reason TEXT,                  -- why a job that once ran waits again
    problem_kind TEXT,                  -- of a failed one: slug, JSON pointer, sentence
    problem_pointer TEXT,
    problem_detail  TEXT,
    sweep        INTEGER REFERENCES sweep (seq),
    point        INTEGER,
    repeat       INTEGER,               -- from 0
    waits_for    INTEGER REFERENCES experiment (seq),  -- has to succeed before this one may start; NULL from then on
    pausing      INTEGER NOT NULL DEFAULT 0    -- 1: runs, and is to be paused
) STRICT;

INSERT INTO experiment_with_pause
    SELECT seq, id, name, tags, priority, state, revision, spec, memory_bytes, created_at, started_at, finished_at,
           attempts, crashes, queue_reason, problem_kind, problem_pointer, problem_detail, sweep, point, repeat,
           waits_for, 0
    FROM experiment;
-- Numbers of removed experiments are not given again.
UPDATE sqlite_sequence SET seq = (SELECT seq FROM sqlite_sequence WHERE name = 'experiment')
    WHERE name = 'experiment_with_pause' AND EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'experiment');
DROP TABLE experiment;
ALTER TABLE experiment_with_pause RENAME TO experiment;

CREATE INDEX experiment_queue ON experiment (priority DESC, seq) WHERE state = 'queued' AND waits_for IS NULL;
CREATE INDEX experiment_state ON experiment (state, seq);
CREATE UNIQUE INDEX experiment_sweep ON experiment (sweep, point, repeat) WHERE sweep IS NOT NULL;
CREATE INDEX experiment_waits ON experiment (waits_for) WHERE waits_for IS NOT NULL;
