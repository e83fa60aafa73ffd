-- People: users with a role and quotas, their tokens, what they own, and what they changed.

CREATE TABLE user (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    name        TEXT NOT NULL UNIQUE,
    role        TEXT NOT NULL CHECK (role IN ('admin', 'member', 'viewer')),
    disabled    INTEGER NOT NULL DEFAULT 0,    -- 1: no token of hers is taken; what she owns stays
    max_running INTEGER,                       -- quotas, NULL: as the daemon's settings say
    max_queued  INTEGER,
    max_storage_bytes INTEGER,
    revision    INTEGER NOT NULL DEFAULT 1,
    created_at  INTEGER NOT NULL
) STRICT;

CREATE TABLE token (
    seq        INTEGER PRIMARY KEY AUTOINCREMENT,
    id         TEXT NOT NULL UNIQUE,           -- to name it; the token itself is not stored
    user       INTEGER NOT NULL REFERENCES user (seq) ON DELETE CASCADE,
    label      TEXT NOT NULL,
    sha256     BLOB NOT NULL UNIQUE,           -- of the token's text
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
    detail  TEXT                               -- JSON, where there is more to say
) STRICT;

-- NULL: from when there were no users.
ALTER TABLE experiment ADD COLUMN owner INTEGER REFERENCES user (seq);
ALTER TABLE sweep ADD COLUMN owner INTEGER REFERENCES user (seq);
ALTER TABLE dataset_split ADD COLUMN owner INTEGER REFERENCES user (seq);

-- Seen by its owner and admins only.
ALTER TABLE experiment ADD COLUMN private INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sweep ADD COLUMN private INTEGER NOT NULL DEFAULT 0;

CREATE INDEX experiment_owner ON experiment (owner, seq);
