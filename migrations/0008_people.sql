-- People: users with a role and quotas, their tokens, what they own, and what they changed.

CREATE TABLE user (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    name        TEXT NOT NULL UNIQUE,
    role        TEXT NOT NULL CHECK (role IN ('admin', 'member', 'viewer')),
    disabled    INTEGER NOT NULL DEFAULT 0,    -- 1: no token of hers is taken; what she owns stays
    max_running INTEGER,                       -- quotas, NULL: as the daemon's settings say
    max_queued  INTEGER,
    max_storage_bytes INTEGER,
    storage_bytes INTEGER NOT NULL DEFAULT 0,  -- of what she owns; kept by the triggers below
    revision    INTEGER NOT NULL DEFAULT 1,
    created_at  INTEGER NOT NULL
) STRICT;

CREATE TABLE token (
    seq        INTEGER PRIMARY KEY AUTOINCREMENT,
    id         TEXT NOT NULL UNIQUE,           -- to name it; the token itself is not stored
    user       INTEGER NOT NULL REFERENCES user (seq) ON DELETE CASCADE,
    label      TEXT NOT NULL,
    sha256     TEXT NOT NULL UNIQUE,           -- of the token's text
    scope      TEXT NOT NULL CHECK (scope IN ('read', 'write', 'admin')),
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    revoked_at INTEGER,
    used_at    INTEGER                         -- within a minute
) STRICT;

CREATE INDEX token_user ON token (user, seq);

-- Every change that somebody made, in the transaction that made it.
CREATE TABLE audit (
    seq     INTEGER PRIMARY KEY AUTOINCREMENT,
    at      INTEGER NOT NULL,
    user    TEXT,                              -- name, also when she is gone; NULL: there were no users
    token   TEXT,                              -- id
    address TEXT,                              -- the client's
    action  TEXT NOT NULL,                     -- 'experiment.submit', 'user.add', ...
    object  TEXT NOT NULL,                     -- id or name of what was changed
    detail  TEXT                               -- what there is to say beside that
) STRICT;

CREATE INDEX audit_object ON audit (object, seq);
CREATE INDEX audit_user ON audit (user, seq);

-- NULL: from when there were no users.
ALTER TABLE experiment ADD COLUMN owner INTEGER REFERENCES user (seq);
ALTER TABLE sweep ADD COLUMN owner INTEGER REFERENCES user (seq);
ALTER TABLE dataset_split ADD COLUMN owner INTEGER REFERENCES user (seq);
ALTER TABLE dataset_part ADD COLUMN owner INTEGER REFERENCES user (seq);

-- Seen by its owner and admins only.
ALTER TABLE experiment ADD COLUMN private INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sweep ADD COLUMN private INTEGER NOT NULL DEFAULT 0;

CREATE INDEX experiment_owner ON experiment (owner, seq);
-- What somebody has waiting and running is counted with every submission.
CREATE INDEX experiment_active ON experiment (owner, state)
    WHERE state IN ('queued', 'running', 'paused');

-- Storage is counted when it changes, so that asking for it costs nothing: uploads by the size of
-- their file, results by that of their tensors (float32).
ALTER TABLE experiment ADD COLUMN result_bytes INTEGER NOT NULL DEFAULT 0;
UPDATE experiment SET result_bytes = (SELECT coalesce(sum(rows * columns * 4), 0) FROM tensor
    WHERE tensor.experiment = experiment.seq);
CREATE TRIGGER tensor_added AFTER INSERT ON tensor BEGIN
    UPDATE experiment SET result_bytes = result_bytes + new.rows * new.columns * 4
        WHERE seq = new.experiment;
END;
CREATE TRIGGER result_grew AFTER UPDATE OF result_bytes ON experiment WHEN new.owner NOT NULL BEGIN
    UPDATE user SET storage_bytes = storage_bytes + new.result_bytes - old.result_bytes
        WHERE seq = new.owner;
END;
CREATE TRIGGER result_gone AFTER DELETE ON experiment WHEN old.owner NOT NULL BEGIN
    UPDATE user SET storage_bytes = storage_bytes - old.result_bytes WHERE seq = old.owner;
END;
CREATE TRIGGER split_added AFTER INSERT ON dataset_split WHEN new.owner NOT NULL BEGIN
    UPDATE user SET storage_bytes = storage_bytes + new.bytes WHERE seq = new.owner;
END;
CREATE TRIGGER split_taken_over AFTER UPDATE OF owner ON dataset_split BEGIN
    UPDATE user SET storage_bytes = storage_bytes - old.bytes WHERE seq = old.owner;
    UPDATE user SET storage_bytes = storage_bytes + new.bytes WHERE seq = new.owner;
END;
CREATE TRIGGER split_gone AFTER DELETE ON dataset_split WHEN old.owner NOT NULL BEGIN
    UPDATE user SET storage_bytes = storage_bytes - old.bytes WHERE seq = old.owner;
END;

-- A key belongs to who sent it; 0: there were no users.
CREATE TABLE answered (
    owner       INTEGER NOT NULL,
    key         TEXT NOT NULL,
    body_sha256 TEXT NOT NULL,
    experiment  INTEGER REFERENCES experiment (seq) ON DELETE CASCADE,
    sweep       INTEGER REFERENCES sweep (seq) ON DELETE CASCADE,
    created_at  INTEGER NOT NULL,
    PRIMARY KEY (owner, key),
    CHECK ((experiment IS NULL) <> (sweep IS NULL))
) STRICT, WITHOUT ROWID;
INSERT INTO answered SELECT 0, key, body_sha256, experiment, sweep, created_at FROM idempotency;
DROP TABLE idempotency;
ALTER TABLE answered RENAME TO idempotency;
