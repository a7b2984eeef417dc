-- A plain commit, as nearly all are: the writer has seen the session's incarnation and a version
-- of it, and there is nothing to remove, to adopt or to compare but the head. No row: it takes
-- commit.sql to tell why, or to apply it after all.
--
-- The row that is locked and judged may be later than what the statement's snapshot shows, which
-- is right for all that is in that row. Only if others have committed after :base must the id be
-- looked for in other rows, among theirs, and then the row locked must be the one that the
-- snapshot shows: every commit gives it another tip.
WITH head AS (
    UPDATE :"schema".sessions AS s
    SET version = s.version + 1,
        tip = :commit,
        updated_at = t.now,
        expires_at = CASE WHEN :expires_in::bigint IS NOT NULL THEN t.now + :expires_in
            WHEN :expires_at::bigint IS NOT NULL THEN nullif(:expires_at, 0)
            ELSE s.expires_at END,
        recent_at = CASE WHEN t.now >= s.recent_at + 60000 THEN t.now ELSE s.recent_at END,
        bytes = s.bytes + pg_column_size(:values::bytea[]),
        meta = coalesce(:meta, s.meta),
        meta_version = CASE WHEN :meta::bytea IS NULL THEN s.meta_version
            ELSE s.version + 1 END,
        labels = CASE WHEN :labels::text[] IS NULL THEN s.labels
            ELSE nullif(:labels, '{}') END
    FROM (SELECT :clock AS now) AS t
    WHERE s.tenant = :tenant AND s.kind = :kind AND s.id = :id
        AND s.incarnation = :incarnation
        AND s.version > 0
        AND (s.expires_at IS NULL OR s.expires_at > t.now)
        AND (:version::bigint IS NULL OR (s.version = :version AND s.tip = :tip))
        AND (
            s.version <= :base
            OR (
                s.tip = (
                    SELECT tip FROM :"schema".sessions
                    WHERE tenant = :tenant AND kind = :kind AND id = :id
                )
                -- Counted: for NOT EXISTS the planner may hash the whole table.
                AND (
                    SELECT count(*) FROM :"schema".commits AS c
                    WHERE c.sid = s.sid AND c.id = :commit
                ) = 0
                -- Nor may it be one whose resend has overtaken it, and is forgotten.
                AND s.resent_at < greatest(
                    CASE WHEN :told <= t.now THEN :told ELSE 0 END, t.now - 86400000
                )
            )
        )
    RETURNING t.now, s.sid, s.version, s.last_delete, s.created_at, s.expires_at, s.meta,
        s.meta_version, s.labels
), remembered AS (
    INSERT INTO :"schema".commits AS c (sid, slot, version, id, digest, made_at)
    SELECT sid, version % 64, version, :commit, :digest, now FROM head
    ON CONFLICT (sid, slot) DO UPDATE
    SET version = excluded.version, id = excluded.id, digest = excluded.digest,
        made_at = excluded.made_at
), written AS (
    INSERT INTO :"schema".items AS i (sid, key, version, value)
    SELECT head.sid,
        CASE WHEN w.ordinal IS NULL THEN w.key ELSE w.key || decode(
            lpad(to_hex(head.version), 16, '0') || lpad(to_hex(w.ordinal), 8, '0'), 'hex'
        ) END,
        head.version, w.value
    FROM head, unnest(:keys::bytea[], :ordinals::integer[], :values::bytea[])
        AS w (key, ordinal, value)
    ON CONFLICT (sid, key) DO UPDATE SET version = excluded.version, value = excluded.value
)
SELECT now, version, last_delete, created_at, expires_at, meta, meta_version, labels,
    (SELECT count(w.told) FROM :"schema".watched AS w
    WHERE w.tenant = :tenant AND w.kind = :kind AND w.id = :id AND w.until > head.now)
FROM head
