-- What splits of other formats than CIFAR-10's have to say of themselves.
ALTER TABLE dataset_split ADD COLUMN source_sha256 TEXT NOT NULL DEFAULT ''; -- of the bytes as sent; '': two files, or not known
ALTER TABLE dataset_split ADD COLUMN channels INTEGER NOT NULL DEFAULT 0;    -- of images; 0: they are none
ALTER TABLE dataset_split ADD COLUMN height INTEGER NOT NULL DEFAULT 0;
ALTER TABLE dataset_split ADD COLUMN image_width INTEGER NOT NULL DEFAULT 0;
ALTER TABLE dataset_split ADD COLUMN interleaved INTEGER NOT NULL DEFAULT 0; -- channels of a pixel side by side
ALTER TABLE dataset_split ADD COLUMN named INTEGER NOT NULL DEFAULT 0;       -- classes have names

UPDATE dataset_split SET source_sha256 = sha256, channels = 3, height = 32, image_width = 32
WHERE format = 'cifar10';

-- Features or labels that wait for the other half of their split.
CREATE TABLE dataset_part (
    dataset    TEXT NOT NULL,
    split      TEXT NOT NULL CHECK (split IN ('train', 'test')),
    part       TEXT NOT NULL CHECK (part IN ('features', 'labels')),
    sha256     TEXT NOT NULL,           -- names the file in datasets/
    format     TEXT NOT NULL,
    samples    INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (dataset, split, part)
) STRICT, WITHOUT ROWID;

CREATE INDEX dataset_part_file ON dataset_part (sha256);
CREATE INDEX dataset_split_file ON dataset_split (sha256);
