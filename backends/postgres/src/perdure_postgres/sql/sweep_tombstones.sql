-- Forgets lives that ended a day ago, their commits, and keys that had no other; one row: how
-- many.
WITH lapsed AS (
    DELETE FROM :"schema".tombstones AS t
    USING (
        SELECT tenant, kind, id, sid FROM :"schema".tombstones
        WHERE deleted_at < (SELECT :clock) - :kept
        ORDER BY deleted_at LIMIT :most
        FOR UPDATE SKIP LOCKED
    ) AS o
    WHERE t.tenant = o.tenant AND t.kind = o.kind AND t.id = o.id AND t.sid = o.sid
    RETURNING t.tenant, t.kind, t.id, t.sid, t.deleted_at
), forgotten AS (
    DELETE FROM :"schema".commits AS c USING lapsed WHERE c.sid = lapsed.sid
), vacated AS (
    DELETE FROM :"schema".sessions AS s
    USING (
        -- In the order in which groups of commits lock theirs: neither waits for the other.
        SELECT v.tenant, v.kind, v.id, v.sid
        FROM :"schema".sessions AS v
        JOIN lapsed ON v.tenant = lapsed.tenant AND v.kind = lapsed.kind
            AND v.id = lapsed.id AND v.sid = lapsed.sid
        WHERE v.version = 0
        ORDER BY v.tenant, v.kind, v.id
        FOR UPDATE OF v
    ) AS o
    WHERE s.tenant = o.tenant AND s.kind = o.kind AND s.id = o.id
        AND s.version = 0 AND s.sid = o.sid
)
SELECT count(*) FROM lapsed
