-- Experiments that run on a cluster: which those are, and the attempts of workers away from the
-- daemon.

-- 0: the daemon's own pool, 1: Slurm (enum executor_kind). sent: it has a live attempt there.
ALTER TABLE experiment ADD COLUMN executor INTEGER NOT NULL DEFAULT 0;
ALTER TABLE experiment ADD COLUMN ranks INTEGER NOT NULL DEFAULT 1;
ALTER TABLE experiment ADD COLUMN sent INTEGER NOT NULL DEFAULT 0;

-- The two newest whole checkpoints that workers made; 0: none.
ALTER TABLE experiment ADD COLUMN work_checkpoint INTEGER NOT NULL DEFAULT 0;
ALTER TABLE experiment ADD COLUMN work_checkpoint_before INTEGER NOT NULL DEFAULT 0;

-- Each executor takes from its own queue; what was sent waits elsewhere.
DROP INDEX experiment_queue;
CREATE INDEX experiment_queue ON experiment (executor, owner, priority DESC, seq, memory_bytes, core_seconds)
    WHERE state = 'queued' AND waits_for IS NULL AND NOT sent;

-- One row for each attempt that was to be sent to the cluster: written before it is sent, so that a
-- daemon that ended in between finds its job by name. live: the experiment's current one; those
-- that are over stay as long as the experiment, so that a late worker hears that it is over.
CREATE TABLE attempt (
    experiment INTEGER NOT NULL REFERENCES experiment (seq) ON DELETE CASCADE,
    number INTEGER NOT NULL,            -- experiment.attempts
    token_sha256 TEXT NOT NULL UNIQUE,
    job_name TEXT NOT NULL UNIQUE,
    job TEXT,                           -- the cluster's id for it; NULL: not known (yet)
    reason TEXT,                        -- why the cluster lets it wait
    node TEXT,                          -- where it runs
    cores INTEGER NOT NULL DEFAULT 0,   -- there, of all ranks
    live INTEGER NOT NULL DEFAULT 1,
    submitted_at INTEGER NOT NULL,
    begun_at INTEGER,                   -- of its first report
    batch INTEGER NOT NULL DEFAULT 0,   -- the number of its last report
    PRIMARY KEY (experiment, number)
) STRICT;

CREATE UNIQUE INDEX attempt_live ON attempt (experiment) WHERE live;

-- Whose experiments the cluster has, so that nobody fills it.
CREATE INDEX experiment_sent ON experiment (owner, state) WHERE sent;

-- However an experiment leaves its worker (cancelled, paused, ended, back to the queue): the attempt
-- is over with it.
CREATE TRIGGER attempt_over AFTER UPDATE OF state ON experiment
    WHEN new.sent AND new.state != old.state AND new.state != 'running' BEGIN
    UPDATE attempt SET live = 0 WHERE experiment = new.seq AND live;
    UPDATE experiment SET sent = 0 WHERE seq = new.seq;
END;
