-- Discards stages that no commit has named for a day; one row: how many.
WITH lapsed AS (
    DELETE FROM :"schema".stages AS g
    USING (
        SELECT tenant, kind, id, incarnation, stage FROM :"schema".stages
        WHERE staged_at < (SELECT :clock) - :kept
        ORDER BY staged_at LIMIT :most
        FOR UPDATE SKIP LOCKED
    ) AS o
    WHERE g.tenant = o.tenant AND g.kind = o.kind AND g.id = o.id
        AND g.incarnation = o.incarnation AND g.stage = o.stage
    RETURNING g.tenant, g.kind, g.id, g.sid
), discarded AS (
    INSERT INTO :"schema".discarded (tenant, kind, id, sid)
    SELECT tenant, kind, id, sid FROM lapsed
)
SELECT count(*) FROM lapsed
