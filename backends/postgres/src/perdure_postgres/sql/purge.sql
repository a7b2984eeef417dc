-- Removes items of the discarded owners of a key, at most :most of them; one row: how many. Less
-- than :most: there are none left, or somebody else is removing them.
WITH gone AS (
    DELETE FROM :"schema".items AS i
    USING (
        SELECT p.sid, p.key
        FROM :"schema".discarded AS d
        CROSS JOIN LATERAL (
            SELECT sid, key FROM :"schema".items WHERE sid = d.sid ORDER BY key LIMIT :most
        ) AS p
        WHERE d.tenant = :tenant AND d.kind = :kind AND d.id = :id
        LIMIT :most
    ) AS p
    WHERE i.sid = p.sid AND i.key = p.key
    RETURNING 1
)
SELECT count(*) FROM gone
