-- One page of the sessions that carry a label, in the order of their ids. A label is in one of
-- four places, each with an index of its own.
SELECT s.id, s.recent_at, s.version, s.incarnation, s.tip, s.last_delete, s.created_at,
    s.updated_at, s.expires_at, s.meta, s.meta_version, s.labels
FROM (SELECT :clock AS now) AS t
CROSS JOIN LATERAL (
    (
        SELECT * FROM :"schema".sessions
        WHERE tenant = :tenant AND kind = :kind AND labels[1] = :label
            AND id >= :start AND id > :after AND id < :stop
            AND (expires_at IS NULL OR expires_at > t.now)
        ORDER BY id LIMIT :most
    )
    UNION ALL
    (
        SELECT * FROM :"schema".sessions
        WHERE tenant = :tenant AND kind = :kind AND labels[2] = :label
            AND id >= :start AND id > :after AND id < :stop
            AND (expires_at IS NULL OR expires_at > t.now)
        ORDER BY id LIMIT :most
    )
    UNION ALL
    (
        SELECT * FROM :"schema".sessions
        WHERE tenant = :tenant AND kind = :kind AND labels[3] = :label
            AND id >= :start AND id > :after AND id < :stop
            AND (expires_at IS NULL OR expires_at > t.now)
        ORDER BY id LIMIT :most
    )
    UNION ALL
    (
        SELECT * FROM :"schema".sessions
        WHERE tenant = :tenant AND kind = :kind AND labels[4] = :label
            AND id >= :start AND id > :after AND id < :stop
            AND (expires_at IS NULL OR expires_at > t.now)
        ORDER BY id LIMIT :most
    )
) AS s
ORDER BY s.id LIMIT :most
