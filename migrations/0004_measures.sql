-- Histograms of several hidden layers, and the tables of units in the experiments' directories.

CREATE TABLE layer_histogram (
    experiment INTEGER NOT NULL REFERENCES experiment (seq) ON DELETE CASCADE,
    layer      INTEGER NOT NULL,        -- hidden layer, from 0
    epoch      INTEGER NOT NULL,        -- 0: of the result
    split      TEXT NOT NULL,
    zero_count INTEGER NOT NULL,
    total      INTEGER NOT NULL,
    maximum    REAL NOT NULL,
    counts     BLOB NOT NULL,           -- 64-bit little-endian, the bins of core/histogram.h
    PRIMARY KEY (experiment, layer, epoch, split)
) STRICT, WITHOUT ROWID;

INSERT INTO layer_histogram
    SELECT experiment, 0, epoch, split, zero_count, total, maximum, counts FROM histogram;
DROP TABLE histogram;
ALTER TABLE layer_histogram RENAME TO histogram;

-- What server/weights.h's files units/<layer>.npy hold.
CREATE TABLE unit_table (
    experiment INTEGER NOT NULL REFERENCES experiment (seq) ON DELETE CASCADE,
    layer      INTEGER NOT NULL,
    split      TEXT NOT NULL,           -- where it was measured
    units      INTEGER NOT NULL,
    classes    INTEGER NOT NULL,
    cells      INTEGER NOT NULL,        -- of the sphere; 0: none
    PRIMARY KEY (experiment, layer)
) STRICT, WITHOUT ROWID;
