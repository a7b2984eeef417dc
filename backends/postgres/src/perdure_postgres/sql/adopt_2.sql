-- Second of three: make the parts items of the session. Long values stay where they are.
UPDATE :"schema".items AS p
SET sid = s.sid, version = s.version
FROM :"schema".stages AS g, :"schema".sessions AS s
WHERE g.tenant = :tenant AND g.kind = :kind AND g.id = :id AND g.stage = :stage AND g.adopting
    AND s.tenant = g.tenant AND s.kind = g.kind AND s.id = g.id
    AND p.sid = g.sid AND p.key NOT IN (SELECT unnest(:keys::bytea[]))
