-- The plain commit that nearly every turn is: one value is appended, and nothing else is said. As
-- plain.sql, which has the reasons, without arrays and choices.
WITH head AS (
    UPDATE :"schema".sessions AS s
    SET version = s.version + 1,
        tip = :commit,
        updated_at = t.now,
        recent_at = CASE WHEN t.now >= s.recent_at + 60000 THEN t.now ELSE s.recent_at END,
        bytes = s.bytes + octet_length(:value::bytea)
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
                AND (
                    SELECT count(*) FROM :"schema".commits AS c
                    WHERE c.sid = s.sid AND c.id = :commit
                ) = 0
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
    SELECT sid,
        :prefix::bytea || decode(lpad(to_hex(version), 16, '0') || '00000000', 'hex'),
        version, :value
    FROM head
    ON CONFLICT (sid, key) DO UPDATE SET version = excluded.version, value = excluded.value
)
SELECT now, version, last_delete, created_at, expires_at, meta, meta_version, labels,
    (SELECT count(w.told) FROM :"schema".watched AS w
    WHERE w.tenant = :tenant AND w.kind = :kind AND w.id = :id AND w.until > head.now)
FROM head
