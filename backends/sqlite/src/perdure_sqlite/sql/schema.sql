-- The tables of perdure's SQLite backend, format 1.
--
-- perdure runs this by itself. Where it may not (?setup=false), run it on a new file:
--     sqlite3 sessions.db < schema.sql
--
-- Times are ms since the Unix epoch. Text is compared as UTF-8 bytes (BINARY).

PRAGMA page_size = 4096;
PRAGMA auto_vacuum = NONE;
PRAGMA journal_mode = WAL;

BEGIN IMMEDIATE;

-- The sessions that exist, those that have expired unnoticed included. A turn rewrites one
-- row in place; none of the columns that it sets is indexed.
CREATE TABLE sessions (
    -- AUTOINCREMENT: a number is never given out again while items of its last owner remain.
    sid INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant TEXT NOT NULL,
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    version INTEGER NOT NULL,
    incarnation BLOB NOT NULL,
    tip BLOB NOT NULL,
    last_delete INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    expires_at INTEGER,
    -- updated_at, at most a minute behind, so that a turn need not touch an index.
    recent_at INTEGER NOT NULL,
    meta_version INTEGER NOT NULL,
    -- Bytes of the longest value it ever had: tells which reads are short.
    longest INTEGER NOT NULL,
    -- A JSON array; empty text for none.
    labels TEXT NOT NULL,
    -- tombstones.tid of an earlier session of this key, unless it has lapsed.
    tombstone INTEGER,
    meta BLOB NOT NULL,
    -- The last 64 commits, oldest first: each its id (16 bytes), digest (8), and time in whole
    -- seconds (4, big-endian). The last of them made `version`, the one before it
    -- `version - 1`, and so on.
    ids BLOB NOT NULL,
    UNIQUE (tenant, kind, id)
);
CREATE INDEX sessions_by_recency ON sessions (tenant, kind, recent_at, id);
CREATE INDEX sessions_by_expiry ON sessions (expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE labels (
    tenant TEXT NOT NULL,
    kind TEXT NOT NULL,
    label TEXT NOT NULL,
    id TEXT NOT NULL,
    recent_at INTEGER NOT NULL,
    sid INTEGER NOT NULL,
    PRIMARY KEY (tenant, kind, label, id)
) WITHOUT ROWID;
CREATE INDEX labels_by_recency ON labels (tenant, kind, label, recent_at, id);

-- The items of all sessions, and parts that wait for a commit. Not WITHOUT ROWID: see
-- docs/decisions/0003-sqlite.md.
CREATE TABLE items (
    item INTEGER PRIMARY KEY,
    sid INTEGER NOT NULL,
    key BLOB NOT NULL,
    version INTEGER NOT NULL,
    value BLOB NOT NULL
);
-- (sid, key) is unique by the one statement that inserts. With the version in the index, a read
-- of what is new passes over the rest without touching its rows.
CREATE INDEX items_by_key ON items (sid, key, version);

-- Sessions deleted whose items are too many for one transaction.
CREATE TABLE discarded (
    sid INTEGER PRIMARY KEY
);

-- What is known of a key whose session was deleted; stays for a day, a successor or not.
CREATE TABLE tombstones (
    tid INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant TEXT NOT NULL,
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    deleted_at INTEGER NOT NULL,
    UNIQUE (tenant, kind, id)
);
CREATE INDEX tombstones_by_age ON tombstones (deleted_at);

CREATE TABLE remembered (
    tid INTEGER NOT NULL,
    id BLOB NOT NULL,
    -- Empty for the id of a deletion.
    digest BLOB NOT NULL,
    incarnation BLOB NOT NULL,
    version INTEGER NOT NULL,
    -- In whole seconds.
    made_at INTEGER NOT NULL,
    deleted_at INTEGER NOT NULL,
    PRIMARY KEY (tid, id)
) WITHOUT ROWID;

-- When a commit that was sent again was applied last. Its first sending may still be on its way,
-- and is recognised by this when its id is forgotten. Stays for a day.
CREATE TABLE resent (
    tenant TEXT NOT NULL,
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    resent_at INTEGER NOT NULL,
    PRIMARY KEY (tenant, kind, id)
) WITHOUT ROWID;
CREATE INDEX resent_by_age ON resent (resent_at);

-- Parts written ahead of the commit that will name them. They are items whose sid is the negative
-- number of their stage.
CREATE TABLE stages (
    stage INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant TEXT NOT NULL,
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    incarnation BLOB NOT NULL,
    name BLOB NOT NULL,
    staged_at INTEGER NOT NULL,
    UNIQUE (tenant, kind, id, incarnation, name)
);
CREATE INDEX stages_by_age ON stages (staged_at);

-- 'PERD'
PRAGMA application_id = 1346720324;
PRAGMA user_version = 1;

COMMIT;
