-- Buries sessions that have expired, as delete.sql does; one row: how many.
WITH expired AS (
    SELECT t.now, s.* FROM (SELECT :clock AS now) AS t
    CROSS JOIN LATERAL (
        SELECT tenant, kind, id, sid, incarnation, first_version, version, tip
        FROM :"schema".sessions WHERE expires_at <= t.now
        ORDER BY expires_at LIMIT :most
        FOR UPDATE SKIP LOCKED
    ) AS s
), deleted AS (
    UPDATE :"schema".sessions AS s
    SET version = 0, incarnation = '', tip = :burial, updated_at = expired.now,
        expires_at = NULL, recent_at = NULL, meta = '', labels = NULL
    FROM expired
    WHERE s.tenant = expired.tenant AND s.kind = expired.kind AND s.id = expired.id
        AND s.tip = expired.tip
    RETURNING s.tenant, s.kind, s.id, expired.now, expired.sid, expired.incarnation,
        expired.first_version, expired.version
), buried AS (
    INSERT INTO :"schema".tombstones
        (tenant, kind, id, sid, incarnation, first_version, version, deleted_at)
    SELECT tenant, kind, id, sid, incarnation, first_version, version, now FROM deleted
), unstaged AS (
    DELETE FROM :"schema".stages AS g USING deleted AS d
    WHERE g.tenant = d.tenant AND g.kind = d.kind AND g.id = d.id
        AND g.incarnation = d.incarnation
    RETURNING g.tenant, g.kind, g.id, g.sid
), discarded AS (
    INSERT INTO :"schema".discarded (tenant, kind, id, sid)
    SELECT tenant, kind, id, sid FROM deleted
    UNION ALL
    SELECT tenant, kind, id, sid FROM unstaged
)
SELECT count(*) FROM deleted
