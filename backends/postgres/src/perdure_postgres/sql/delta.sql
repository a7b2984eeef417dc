-- The head, and the first few items of one range that are newer than a version, as one snapshot
-- shows them: what a writer asks who has read the session before. The head comes again with every
-- item. A value above :size is NULL, which no value is: then, or where there may be more items, it
-- takes read.sql.
SELECT t.now, s.version, s.incarnation, s.tip, s.last_delete, s.created_at, s.updated_at,
    s.expires_at, s.meta, s.meta_version, s.labels, i.key, i.value, i.version
FROM (SELECT :clock AS now) AS t
LEFT JOIN :"schema".sessions AS s
    ON s.tenant = :tenant AND s.kind = :kind AND s.id = :id AND s.version > 0
        AND (s.expires_at IS NULL OR s.expires_at > t.now)
LEFT JOIN LATERAL (
    SELECT key, version,
        CASE WHEN octet_length(value) <= :size::bigint THEN value END AS value
    FROM :"schema".items
    WHERE sid = s.sid AND key >= :start AND key < :stop
        AND version > :since
    ORDER BY key LIMIT :limit::bigint
) AS i ON true
