-- What the newest checkpoint took to compute, over all attempts, in ms: the time limit and the result's seconds count it.
ALTER TABLE experiment ADD COLUMN computed_ms INTEGER NOT NULL DEFAULT 0;
