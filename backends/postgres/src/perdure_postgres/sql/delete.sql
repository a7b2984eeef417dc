-- A deletion; lock.sql comes first. Always one row: what it found, and whether it deleted it.
-- The items go in purge.sql; from here on nothing refers to them.
WITH seen AS MATERIALIZED (
    SELECT t.now, s.sid, s.version, s.first_version, s.incarnation, s.tip, s.last_delete,
        s.created_at, s.updated_at, s.expires_at, s.meta, s.meta_version, s.labels,
        coalesce(s.version > 0 AND (s.expires_at IS NULL OR s.expires_at > t.now), false)
            AS present
    FROM (SELECT :clock AS now) AS t
    LEFT JOIN :"schema".sessions AS s
        ON s.tenant = :tenant AND s.kind = :kind AND s.id = :id
), used AS MATERIALIZED (
    SELECT u.digest, u.version FROM :"schema".used AS u
    WHERE u.tenant = :tenant AND u.kind = :kind AND u.id = :id AND u.used = :deletion
    LIMIT 1
), deleted AS (
    UPDATE :"schema".sessions AS s
    SET version = 0, incarnation = '', tip = :deletion, updated_at = seen.now,
        expires_at = NULL, recent_at = NULL, meta = '', labels = NULL
    FROM seen
    WHERE seen.present AND NOT EXISTS (SELECT FROM used)
        AND (:incarnation::bytea IS NULL OR seen.incarnation = :incarnation)
        AND (:version::bigint IS NULL OR (seen.version = :version AND seen.tip = :tip))
        AND s.tenant = :tenant AND s.kind = :kind AND s.id = :id AND s.tip = seen.tip
    RETURNING 1
), buried AS (
    INSERT INTO :"schema".tombstones
        (tenant, kind, id, sid, incarnation, first_version, version, deletion, deleted_at)
    SELECT :tenant, :kind, :id, seen.sid, seen.incarnation, seen.first_version, seen.version,
        :deletion, seen.now
    FROM seen, deleted
), unstaged AS (
    DELETE FROM :"schema".stages AS g USING seen, deleted
    WHERE g.tenant = :tenant AND g.kind = :kind AND g.id = :id
        AND g.incarnation = seen.incarnation
    RETURNING g.sid
), discarded AS (
    INSERT INTO :"schema".discarded (tenant, kind, id, sid)
    SELECT :tenant, :kind, :id, seen.sid FROM seen, deleted
    UNION ALL
    SELECT :tenant, :kind, :id, sid FROM unstaged
)
SELECT seen.now, seen.present, EXISTS (SELECT FROM deleted) AS applied,
    (SELECT count(*) FROM used) AS used, (SELECT digest FROM used) AS digest,
    seen.version, seen.incarnation, seen.tip, seen.last_delete, seen.created_at,
    seen.updated_at, seen.expires_at, seen.meta, seen.meta_version, seen.labels,
    CASE WHEN EXISTS (SELECT FROM deleted) THEN (
        SELECT count(w.told) FROM :"schema".watched AS w
        WHERE w.tenant = :tenant AND w.kind = :kind AND w.id = :id AND w.until > seen.now
    ) END
FROM seen
