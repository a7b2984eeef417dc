-- After a commit that has marked a stage as its own, first of three: remove what the parts
-- replace. What the commit itself wrote stays.
DELETE FROM :"schema".items AS i
USING (
    SELECT s.sid, p.key
    FROM :"schema".stages AS g
    JOIN :"schema".sessions AS s
        ON s.tenant = g.tenant AND s.kind = g.kind AND s.id = g.id
    JOIN :"schema".items AS p ON p.sid = g.sid
    WHERE g.tenant = :tenant AND g.kind = :kind AND g.id = :id AND g.stage = :stage
        AND g.adopting AND p.key NOT IN (SELECT unnest(:keys::bytea[]))
    -- OFFSET keeps the planner to looking up one key after the other.
    OFFSET 0
) AS a
WHERE i.sid = a.sid AND i.key = a.key
