-- What happened to an experiment, in order: what its watchers are told and its text log says. The store
-- writes it (server/store/sql.c, event_triggers), in the transaction of what happened. Numbers only grow,
-- and an epoch that is computed once more after a crash keeps the event it has.

CREATE TABLE event (
    experiment INTEGER NOT NULL REFERENCES experiment (seq) ON DELETE CASCADE,
    number     INTEGER NOT NULL,        -- from 1
    at         INTEGER NOT NULL,
    kind       TEXT NOT NULL CHECK (kind IN ('state', 'epoch', 'log')),
    epoch      INTEGER,                 -- of an epoch: its figures are in `figure`
    text       TEXT,                    -- the new state; the line of the log
    detail     TEXT,                    -- why it is in that state, where there is a reason
    PRIMARY KEY (experiment, number)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX event_epoch ON event (experiment, epoch) WHERE epoch IS NOT NULL;
CREATE INDEX event_log ON event (experiment, number) WHERE kind = 'log';

-- What is known of experiments that are older than this table.
INSERT INTO event (experiment, number, at, kind, text)
    SELECT seq, 1, created_at, 'state', 'queued' FROM experiment;
INSERT INTO event (experiment, number, at, kind, epoch)
    SELECT experiment, 1 + row_number() OVER (PARTITION BY experiment ORDER BY epoch), created_at,
           'epoch', epoch
    FROM figure JOIN experiment ON seq = experiment WHERE epoch >= 1 AND position = 0;
INSERT INTO event (experiment, number, at, kind, text, detail)
    SELECT seq, 1 + (SELECT max(number) FROM event WHERE experiment = seq),
           coalesce(finished_at, started_at, created_at), 'state', state, problem_detail
    FROM experiment WHERE state <> 'queued';
