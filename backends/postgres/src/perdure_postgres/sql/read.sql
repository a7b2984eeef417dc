-- The head and any number of ranges of items, as one snapshot shows them: a row for the head,
-- then those of each read.
WITH head AS MATERIALIZED (
    SELECT t.now, s.sid, s.version, s.incarnation, s.tip, s.last_delete, s.created_at,
        s.updated_at, s.expires_at, s.bytes, s.meta_version, s.meta, s.labels
    FROM (SELECT :clock AS now) AS t
    LEFT JOIN :"schema".sessions AS s
        ON s.tenant = :tenant AND s.kind = :kind AND s.id = :id AND s.version > 0
            AND (s.expires_at IS NULL OR s.expires_at > t.now)
)
SELECT incarnation AS key, meta AS value, version, 0 AS place, tip,
    ARRAY[now, bytes, last_delete, created_at, updated_at, expires_at, meta_version] AS numbers,
    labels
FROM head
UNION ALL
SELECT i.key, i.value, i.version, r.place, NULL, NULL, NULL
FROM head, unnest(
    :starts::bytea[], :stops::bytea[], :limits::bigint[], :sizes::bigint[], :since::bigint[],
    :reverse::boolean[]
) WITH ORDINALITY AS r (start, stop, rows, size, since, reverse, place)
-- A running total costs a fifth more, so only where it may come to the size. Pairs are compared
-- because the planner expects more rows of that than of two comparisons of keys, and then walks
-- the index in order rather than sort.
CROSS JOIN LATERAL (
    (
        SELECT key, value, version FROM :"schema".items
        WHERE head.bytes <= r.size AND NOT r.reverse
            AND sid = head.sid
            AND (sid, key) >= (head.sid, r.start) AND (sid, key) < (head.sid, r.stop)
            AND version > r.since
        ORDER BY key LIMIT r.rows
    )
    UNION ALL
    (
        SELECT key, value, version FROM :"schema".items
        WHERE head.bytes <= r.size AND r.reverse
            AND sid = head.sid
            AND (sid, key) >= (head.sid, r.start) AND (sid, key) < (head.sid, r.stop)
            AND version > r.since
        ORDER BY key DESC LIMIT r.rows
    )
    UNION ALL
    SELECT key, value, version
    FROM (
        SELECT key, value, version,
            sum(octet_length(value)) OVER (ORDER BY key ROWS UNBOUNDED PRECEDING)
                - octet_length(value) AS before
        FROM (
            SELECT key, value, version FROM :"schema".items
            WHERE head.bytes > r.size AND NOT r.reverse
                AND sid = head.sid
                AND (sid, key) >= (head.sid, r.start) AND (sid, key) < (head.sid, r.stop)
                AND version > r.since
            ORDER BY key LIMIT r.rows
        ) AS found
    ) AS weighed
    WHERE before < r.size
    UNION ALL
    SELECT key, value, version
    FROM (
        SELECT key, value, version,
            sum(octet_length(value)) OVER (ORDER BY key DESC ROWS UNBOUNDED PRECEDING)
                - octet_length(value) AS before
        FROM (
            SELECT key, value, version FROM :"schema".items
            WHERE head.bytes > r.size AND r.reverse
                AND sid = head.sid
                AND (sid, key) >= (head.sid, r.start) AND (sid, key) < (head.sid, r.stop)
                AND version > r.since
            ORDER BY key DESC LIMIT r.rows
        ) AS found
    ) AS weighed
    WHERE before < r.size
) AS i
