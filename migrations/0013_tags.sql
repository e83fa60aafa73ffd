-- Experiments by tag, so that those with a rare one are found without looking through all. The store writes
-- it beside experiment.tags (server/store/experiments.c, put_tags).

CREATE TABLE experiment_tag (
    tag        TEXT NOT NULL,
    experiment INTEGER NOT NULL,        -- seq; no reference, which would want an index the other way round
    PRIMARY KEY (tag, experiment)
) STRICT, WITHOUT ROWID;

INSERT OR IGNORE INTO experiment_tag
    WITH RECURSIVE split (seq, tag, rest) AS (
        SELECT seq, '', substr(tags, 2) FROM experiment
        UNION ALL
        SELECT seq, substr(rest, 1, instr(rest, char(10)) - 1), substr(rest, instr(rest, char(10)) + 1)
        FROM split WHERE rest <> ''
    )
    SELECT tag, seq FROM split WHERE tag <> '';
