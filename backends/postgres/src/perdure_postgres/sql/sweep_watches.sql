-- Forgets those who wait no more; one row: how many.
WITH lapsed AS (
    DELETE FROM :"schema".watches AS w
    USING (
        SELECT tenant, kind, id FROM :"schema".watches
        WHERE until < (SELECT :clock)
        ORDER BY until LIMIT :most
        FOR UPDATE SKIP LOCKED
    ) AS o
    WHERE w.tenant = o.tenant AND w.kind = o.kind AND w.id = o.id
    RETURNING 1
)
SELECT count(*) FROM lapsed
