-- Forgets lives that ended a day ago, their commits, and keys that had no other; one row: how
-- many.
WITH lapsed AS (
    DELETE FROM :"schema".tombstones AS t
    USING (
        SELECT tenant, kind, id, sid FROM :"schema".tombstones
        WHERE deleted_at < :clock - :kept
        ORDER BY deleted_at LIMIT :most
        FOR UPDATE SKIP LOCKED
    ) AS o
    WHERE t.tenant = o.tenant AND t.kind = o.kind AND t.id = o.id AND t.sid = o.sid
    RETURNING t.tenant, t.kind, t.id, t.sid, t.deleted_at
), forgotten AS (
    DELETE FROM :"schema".commits AS c USING lapsed WHERE c.sid = lapsed.sid
), vacated AS (
    DELETE FROM :"schema".sessions AS s USING lapsed
    WHERE s.tenant = lapsed.tenant AND s.kind = lapsed.kind AND s.id = lapsed.id
        AND s.version = 0 AND s.sid = lapsed.sid
)
SELECT count(*) FROM lapsed
