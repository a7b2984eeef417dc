-- One page of the tenants that have or lately had a session: one index seek for each.
WITH RECURSIVE found (tenant) AS (
    SELECT min(tenant) FROM :"schema".sessions WHERE tenant > :after
    UNION ALL
    SELECT (SELECT min(s.tenant) FROM :"schema".sessions AS s WHERE s.tenant > found.tenant)
    FROM found WHERE found.tenant IS NOT NULL
)
SELECT tenant FROM found WHERE tenant IS NOT NULL LIMIT :most
