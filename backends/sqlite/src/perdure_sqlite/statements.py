"""The SQL of the backend. Every value is a parameter; see ``sql/schema.sql`` for the tables."""

# A head is selected in the order of sessions.head_of.

FIND_HEAD = """
SELECT sid, version, incarnation, tip, last_delete, created_at, updated_at, expires_at,
       meta, meta_version, labels, longest
FROM sessions WHERE tenant = ? AND kind = ? AND id = ?
"""

FIND_SESSION = """
SELECT sid, version, incarnation, tip, last_delete, created_at, updated_at, expires_at,
       meta, meta_version, labels, longest, ids, recent_at, tombstone
FROM sessions WHERE tenant = ? AND kind = ? AND id = ?
"""

INSERT_SESSION = """
INSERT INTO sessions (tenant, kind, id, version, incarnation, tip, last_delete, created_at,
                      updated_at, expires_at, meta, meta_version, labels, longest, ids,
                      recent_at, tombstone)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""

# Sets no indexed column: this is what every turn costs.
UPDATE_SESSION = """
UPDATE sessions SET version = ?, tip = ?, last_delete = ?, updated_at = ?, meta = ?,
                    meta_version = ?, labels = ?, longest = ?, ids = ?
WHERE sid = ?
"""
UPDATE_EXPIRY = "UPDATE sessions SET expires_at = ? WHERE sid = ?"
UPDATE_RECENCY = "UPDATE sessions SET recent_at = ? WHERE sid = ?"
DELETE_SESSION = "DELETE FROM sessions WHERE sid = ?"

INSERT_LABEL = """
INSERT INTO labels (tenant, kind, id, label, recent_at, sid) VALUES (?, ?, ?, ?, ?, ?)
"""
DELETE_LABEL = "DELETE FROM labels WHERE tenant = ? AND kind = ? AND id = ? AND label = ?"

# Items

GET_ITEM = "SELECT key, value, version FROM items WHERE sid = ? AND key = ?"
ITEM_VERSION = "SELECT version FROM items WHERE sid = ? AND key = ?"
SCAN = """
SELECT key, value, version FROM items
WHERE sid = ? AND key >= ? AND key < ? AND version > ? ORDER BY key LIMIT ?
"""
SCAN_REVERSE = """
SELECT key, value, version FROM items
WHERE sid = ? AND key >= ? AND key < ? AND version > ? ORDER BY key DESC LIMIT ?
"""
# The first takes (sid, key, version, value, sid, key); the second follows if it changed no row.
# Plain ? throughout: Python 3.12.0 to 3.12.3 take ?1 for a name and warn
# (https://github.com/python/cpython/issues/117995).
INSERT_ITEM = """
INSERT INTO items (sid, key, version, value)
SELECT ?, ?, ?, ? WHERE NOT EXISTS (SELECT 1 FROM items WHERE sid = ? AND key = ?)
"""
REPLACE_ITEM = "UPDATE items SET version = ?, value = ? WHERE sid = ? AND key = ?"
DELETE_ITEM = "DELETE FROM items WHERE sid = ? AND key = ?"
DELETE_ITEMS = "DELETE FROM items WHERE sid = ? AND key >= ? AND key < ?"
DELETE_SOME_ITEMS = """
DELETE FROM items WHERE item IN (SELECT item FROM items WHERE sid = ? LIMIT ?)
"""

INSERT_DISCARDED = "INSERT INTO discarded (sid) VALUES (?)"
FIND_DISCARDED = "SELECT sid FROM discarded LIMIT 1"
DELETE_DISCARDED = "DELETE FROM discarded WHERE sid = ?"

# Tombstones

FIND_TOMBSTONE = "SELECT tid FROM tombstones WHERE tenant = ? AND kind = ? AND id = ?"
INSERT_TOMBSTONE = """
INSERT INTO tombstones (tenant, kind, id, deleted_at) VALUES (?, ?, ?, ?)
"""
UPDATE_TOMBSTONE = "UPDATE tombstones SET deleted_at = ? WHERE tid = ?"
LAPSED_TOMBSTONES = "SELECT tid FROM tombstones WHERE deleted_at < ? LIMIT ?"
DELETE_TOMBSTONE = "DELETE FROM tombstones WHERE tid = ?"

FIND_REMEMBERED = """
SELECT digest, incarnation, version FROM remembered WHERE tid = ? AND id = ?
"""
OLDEST_REMEMBERED = """
SELECT incarnation, min(version), min(made_at) FROM remembered
WHERE tid = ? GROUP BY incarnation
"""
INSERT_REMEMBERED = """
INSERT INTO remembered (tid, id, digest, incarnation, version, made_at, deleted_at)
VALUES (?, ?, ?, ?, ?, ?, ?)
"""
DELETE_REMEMBERED = "DELETE FROM remembered WHERE tid = ?"
DELETE_OLD_REMEMBERED = "DELETE FROM remembered WHERE tid = ? AND deleted_at < ?"

FIND_RESENT = "SELECT resent_at FROM resent WHERE tenant = ? AND kind = ? AND id = ?"
REPLACE_RESENT = "REPLACE INTO resent (tenant, kind, id, resent_at) VALUES (?, ?, ?, ?)"
DELETE_OLD_RESENT = """
DELETE FROM resent WHERE (tenant, kind, id) IN
    (SELECT tenant, kind, id FROM resent WHERE resent_at < ? LIMIT ?)
"""

# Stages

FIND_STAGE = """
SELECT stage FROM stages
WHERE tenant = ? AND kind = ? AND id = ? AND incarnation = ? AND name = ?
"""
STAGES_OF_INCARNATION = """
SELECT stage FROM stages WHERE tenant = ? AND kind = ? AND id = ? AND incarnation = ?
"""
FORGOTTEN_STAGES = "SELECT stage FROM stages WHERE staged_at < ? LIMIT ?"
INSERT_STAGE = """
INSERT INTO stages (tenant, kind, id, incarnation, name, staged_at) VALUES (?, ?, ?, ?, ?, ?)
"""
TOUCH_STAGE = "UPDATE stages SET staged_at = ? WHERE stage = ?"
DELETE_STAGE = "DELETE FROM stages WHERE stage = ?"
INSERT_PART = "INSERT INTO items (sid, key, version, value) VALUES (?, ?, ?, ?)"
# Where the parts of a stage are to go, if the session is there.
FIND_TARGET = """
SELECT sid, version FROM sessions
WHERE tenant = ? AND kind = ? AND id = ? AND incarnation = ?
"""
LAST_SID = "SELECT seq FROM sqlite_sequence WHERE name = 'sessions'"
# What the parts replace goes first.
DELETE_REPLACED = """
DELETE FROM items WHERE sid = ? AND key IN (SELECT key FROM items WHERE sid = ?)
"""
ADOPT_PARTS = "UPDATE items SET sid = ?, version = ? WHERE sid = ?"
LONGEST_PART = "SELECT coalesce(max(length(value)), 0) FROM items WHERE sid = ?"
DELETE_PARTS = "DELETE FROM items WHERE sid = ?"

# Lists. An upper bound of x'' is above every text: SQLite orders blobs after texts.

LIST_BY_ID = """
SELECT id, version, incarnation, tip, last_delete, created_at, updated_at, expires_at,
       meta, meta_version, labels, recent_at
FROM sessions
WHERE tenant = ? AND kind = ? AND id >= ? AND id < ?
      AND (expires_at IS NULL OR expires_at > ?)
ORDER BY id LIMIT ?
"""
LIST_BY_RECENCY = """
SELECT id, version, incarnation, tip, last_delete, created_at, updated_at, expires_at,
       meta, meta_version, labels, recent_at
FROM sessions
WHERE tenant = ? AND kind = ? AND (recent_at, id) < (?, ?)
      AND (expires_at IS NULL OR expires_at > ?)
ORDER BY recent_at DESC, id DESC LIMIT ?
"""
LIST_LABEL_BY_ID = """
SELECT s.id, s.version, s.incarnation, s.tip, s.last_delete, s.created_at, s.updated_at,
       s.expires_at, s.meta, s.meta_version, s.labels, s.recent_at
FROM labels AS l CROSS JOIN sessions AS s ON s.sid = l.sid
WHERE l.tenant = ? AND l.kind = ? AND l.label = ? AND l.id >= ? AND l.id < ?
      AND (s.expires_at IS NULL OR s.expires_at > ?)
ORDER BY l.id LIMIT ?
"""
LIST_LABEL_BY_RECENCY = """
SELECT s.id, s.version, s.incarnation, s.tip, s.last_delete, s.created_at, s.updated_at,
       s.expires_at, s.meta, s.meta_version, s.labels, s.recent_at
FROM labels AS l CROSS JOIN sessions AS s ON s.sid = l.sid
WHERE l.tenant = ? AND l.kind = ? AND l.label = ? AND (l.recent_at, l.id) < (?, ?)
      AND (s.expires_at IS NULL OR s.expires_at > ?)
ORDER BY l.recent_at DESC, l.id DESC LIMIT ?
"""
# One index seek per tenant and table, not per session.
LIST_TENANTS = """
WITH RECURSIVE tenant (name) AS (
    SELECT min(name) FROM (
        SELECT min(tenant) AS name FROM sessions WHERE tenant > ?
        UNION ALL SELECT min(tenant) FROM tombstones WHERE tenant > ?
    )
    UNION ALL
    SELECT (
        SELECT min(next) FROM (
            SELECT min(s.tenant) AS next FROM sessions AS s WHERE s.tenant > tenant.name
            UNION ALL
            SELECT min(t.tenant) FROM tombstones AS t WHERE t.tenant > tenant.name
        )
    ) FROM tenant WHERE tenant.name IS NOT NULL
)
SELECT name FROM tenant WHERE name IS NOT NULL LIMIT ?
"""
# The same of one tenant.
LIST_KINDS = """
WITH RECURSIVE kind (name) AS (
    SELECT min(name) FROM (
        SELECT min(kind) AS name FROM sessions WHERE tenant = ? AND kind > ?
        UNION ALL SELECT min(kind) FROM tombstones WHERE tenant = ? AND kind > ?
    )
    UNION ALL
    SELECT (
        SELECT min(next) FROM (
            SELECT min(s.kind) AS next FROM sessions AS s
            WHERE s.tenant = ? AND s.kind > kind.name
            UNION ALL
            SELECT min(t.kind) FROM tombstones AS t WHERE t.tenant = ? AND t.kind > kind.name
        )
    ) FROM kind WHERE kind.name IS NOT NULL
)
SELECT name FROM kind WHERE name IS NOT NULL LIMIT ?
"""
EXPIRED = """
SELECT tenant, kind, id FROM sessions WHERE expires_at <= ? ORDER BY expires_at LIMIT ?
"""
