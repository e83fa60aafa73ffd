-- Experiments that were made from others, edited, listed by what they found; and the disk's probe.

-- The id of the experiment whose spec it has, also when that one is gone; replays = 1: the result
-- is compared with that one's, bit for bit.
ALTER TABLE experiment ADD COLUMN rerun_of TEXT;
ALTER TABLE experiment ADD COLUMN replays INTEGER NOT NULL DEFAULT 0;
-- Instead of the spec's, since they were edited. The spec itself stays: it says what ran.
ALTER TABLE experiment ADD COLUMN notes TEXT;

CREATE INDEX experiment_finished ON experiment (finished_at, seq) WHERE finished_at IS NOT NULL;
CREATE INDEX figure_result ON figure (name, value, experiment) WHERE epoch = 0;

-- Written to see whether the disk takes it.
CREATE TABLE probe (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    at INTEGER NOT NULL
) STRICT;
INSERT INTO probe VALUES (1, 0);
