-- Sweeps: experiments that were posted together. `sweep` columns hold sweep.seq.

CREATE TABLE sweep (
    seq        INTEGER PRIMARY KEY AUTOINCREMENT,
    id         TEXT NOT NULL UNIQUE,
    name       TEXT NOT NULL,
    tags       TEXT NOT NULL,           -- as in experiment
    notes      TEXT NOT NULL,
    request    TEXT NOT NULL,           -- the document as it was posted
    axes       TEXT NOT NULL,           -- JSON array of pointers: what differs between the points
    target     TEXT,                    -- of a search: what is wanted, with the spec to vary, as JSON
    points     INTEGER NOT NULL,        -- so far
    repeats    INTEGER NOT NULL,        -- experiments a point
    more       INTEGER NOT NULL,        -- 1: points may follow when those at hand have ended
    cancelled  INTEGER NOT NULL DEFAULT 0,
    revision   INTEGER NOT NULL DEFAULT 0,  -- without those of its experiments
    created_at INTEGER NOT NULL
) STRICT;

CREATE INDEX sweep_more ON sweep (seq) WHERE more;

CREATE TABLE sweep_point (
    sweep       INTEGER NOT NULL REFERENCES sweep (seq) ON DELETE CASCADE,
    point       INTEGER NOT NULL,       -- from 0
    axis_values TEXT NOT NULL,          -- JSON object: pointer to value
    PRIMARY KEY (sweep, point)
) STRICT, WITHOUT ROWID;

ALTER TABLE experiment ADD COLUMN sweep INTEGER REFERENCES sweep (seq);
ALTER TABLE experiment ADD COLUMN point INTEGER;
ALTER TABLE experiment ADD COLUMN repeat INTEGER;   -- from 0
-- The experiment that has to succeed before this one may start; NULL from then on.
ALTER TABLE experiment ADD COLUMN waits_for INTEGER REFERENCES experiment (seq);

CREATE UNIQUE INDEX experiment_sweep ON experiment (sweep, point, repeat) WHERE sweep IS NOT NULL;
CREATE INDEX experiment_waits ON experiment (waits_for) WHERE waits_for IS NOT NULL;
DROP INDEX experiment_queue;
CREATE INDEX experiment_queue ON experiment (priority DESC, seq)
    WHERE state = 'queued' AND waits_for IS NULL;

-- A key now stands for an experiment or for a sweep.
CREATE TABLE answered (
    key         TEXT PRIMARY KEY,
    body_sha256 TEXT NOT NULL,
    experiment  INTEGER REFERENCES experiment (seq) ON DELETE CASCADE,
    sweep       INTEGER REFERENCES sweep (seq) ON DELETE CASCADE,
    created_at  INTEGER NOT NULL,
    CHECK ((experiment IS NULL) <> (sweep IS NULL))
) STRICT, WITHOUT ROWID;
INSERT INTO answered (key, body_sha256, experiment, created_at)
    SELECT key, body_sha256, experiment, created_at FROM idempotency;
DROP TABLE idempotency;
ALTER TABLE answered RENAME TO idempotency;
