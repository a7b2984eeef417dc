-- One page of the kinds that a tenant has or lately had sessions of: one index seek for each.
WITH RECURSIVE found (kind) AS (
    SELECT min(kind) FROM :"schema".sessions WHERE tenant = :tenant AND kind > :after
    UNION ALL
    SELECT (
        SELECT min(s.kind) FROM :"schema".sessions AS s
        WHERE s.tenant = :tenant AND s.kind > found.kind
    )
    FROM found WHERE found.kind IS NOT NULL
)
SELECT kind FROM found WHERE kind IS NOT NULL LIMIT :most
