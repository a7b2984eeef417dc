-- The head alone.
SELECT t.now, s.version, s.incarnation, s.tip, s.last_delete, s.created_at, s.updated_at,
    s.expires_at, s.meta, s.meta_version, s.labels
FROM (SELECT :clock AS now) AS t
LEFT JOIN :"schema".sessions AS s
    ON s.tenant = :tenant AND s.kind = :kind AND s.id = :id AND s.version > 0
        AND (s.expires_at IS NULL OR s.expires_at > t.now)
