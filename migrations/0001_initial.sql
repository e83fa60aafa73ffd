-- Times are milliseconds since 1970 (UTC). `experiment` columns in other tables hold experiment.seq.

CREATE TABLE dataset_split (
    id         INTEGER PRIMARY KEY,
    dataset    TEXT NOT NULL,
    split      TEXT NOT NULL CHECK (split IN ('train', 'test')),
    sha256     TEXT NOT NULL,           -- of the bytes as uploaded; names the file in datasets/
    format     TEXT NOT NULL,
    bytes      INTEGER NOT NULL,
    samples    INTEGER NOT NULL,
    width      INTEGER NOT NULL,        -- values a sample
    classes    INTEGER NOT NULL,
    current    INTEGER NOT NULL,        -- 1: the version a new experiment gets
    created_at INTEGER NOT NULL,
    UNIQUE (dataset, split, sha256)
) STRICT;

CREATE TABLE experiment (
    seq          INTEGER PRIMARY KEY AUTOINCREMENT,
    id           TEXT NOT NULL UNIQUE,
    name         TEXT NOT NULL,
    tags         TEXT NOT NULL,         -- each between newlines: "\npaper\nsphere\n"
    priority     INTEGER NOT NULL,
    state        TEXT NOT NULL
                 CHECK (state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')),
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
    problem_detail  TEXT
) STRICT;

CREATE INDEX experiment_queue ON experiment (priority DESC, seq) WHERE state = 'queued';
CREATE INDEX experiment_state ON experiment (state, seq);

-- Figures of an epoch (epoch >= 1), of the result (epoch 0) and facts of provenance (epoch -1). A name
-- with dots nests in JSON: 'train.loss'. NULL stands for a value that was not finite.
CREATE TABLE figure (
    experiment INTEGER NOT NULL REFERENCES experiment (seq) ON DELETE CASCADE,
    epoch      INTEGER NOT NULL,
    position   INTEGER NOT NULL,        -- order within the epoch
    name       TEXT NOT NULL,
    value      ANY,
    PRIMARY KEY (experiment, epoch, position)
) STRICT, WITHOUT ROWID;

CREATE TABLE histogram (
    experiment INTEGER NOT NULL REFERENCES experiment (seq) ON DELETE CASCADE,
    epoch      INTEGER NOT NULL,
    split      TEXT NOT NULL,
    zero_count INTEGER NOT NULL,
    total      INTEGER NOT NULL,
    maximum    REAL NOT NULL,
    counts     BLOB NOT NULL,           -- 64-bit little-endian, the bins of core/measure.h
    PRIMARY KEY (experiment, epoch, split)
) STRICT, WITHOUT ROWID;

CREATE TABLE tensor (
    experiment INTEGER NOT NULL REFERENCES experiment (seq) ON DELETE CASCADE,
    epoch      TEXT NOT NULL CHECK (epoch IN ('best', 'last')),
    position   INTEGER NOT NULL,
    name       TEXT NOT NULL,
    dtype      TEXT NOT NULL,
    dimensions INTEGER NOT NULL CHECK (dimensions IN (1, 2)),
    rows       INTEGER NOT NULL,
    columns    INTEGER NOT NULL,        -- 1 for a vector
    PRIMARY KEY (experiment, epoch, position)
) STRICT, WITHOUT ROWID;

-- A POST that was answered: the same key and body get the same answer.
CREATE TABLE idempotency (
    key        TEXT PRIMARY KEY,
    body_sha256 TEXT NOT NULL,
    experiment INTEGER NOT NULL REFERENCES experiment (seq) ON DELETE CASCADE,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
