-- One page of the sessions that carry a label, last committed first: see list_label_by_id.sql.
SELECT s.id, s.recent_at, s.version, s.incarnation, s.tip, s.last_delete, s.created_at,
    s.updated_at, s.expires_at, s.meta, s.meta_version, s.labels
FROM (SELECT :clock AS now) AS t
CROSS JOIN LATERAL (
    (
        SELECT * FROM :"schema".sessions
        WHERE tenant = :tenant AND kind = :kind AND labels[1] = :label
            AND (recent_at, id) < (:before, :after)
            AND (expires_at IS NULL OR expires_at > t.now)
        ORDER BY recent_at DESC, id DESC LIMIT :most
    )
    UNION ALL
    (
        SELECT * FROM :"schema".sessions
        WHERE tenant = :tenant AND kind = :kind AND labels[2] = :label
            AND (recent_at, id) < (:before, :after)
            AND (expires_at IS NULL OR expires_at > t.now)
        ORDER BY recent_at DESC, id DESC LIMIT :most
    )
    UNION ALL
    (
        SELECT * FROM :"schema".sessions
        WHERE tenant = :tenant AND kind = :kind AND labels[3] = :label
            AND (recent_at, id) < (:before, :after)
            AND (expires_at IS NULL OR expires_at > t.now)
        ORDER BY recent_at DESC, id DESC LIMIT :most
    )
    UNION ALL
    (
        SELECT * FROM :"schema".sessions
        WHERE tenant = :tenant AND kind = :kind AND labels[4] = :label
            AND (recent_at, id) < (:before, :after)
            AND (expires_at IS NULL OR expires_at > t.now)
        ORDER BY recent_at DESC, id DESC LIMIT :most
    )
) AS s
ORDER BY s.recent_at DESC, s.id DESC LIMIT :most
