-- Lists by a rare prefix of the name, of what was posted last, or of the few that somebody may see find them
-- without looking through all (server/store/sql.c, FOUND_NUMBERS).

CREATE INDEX experiment_name ON experiment (name);
CREATE INDEX experiment_created ON experiment (created_at);
CREATE INDEX experiment_private ON experiment (private, seq);
