-- Any commit, in one statement; always one row.
--
-- Everything is judged on the statement's snapshot. While it waits for the lock on the
-- session's row, others may commit, and READ COMMITTED would go on with their row and our old
-- snapshot. So the row is written only if it is still the one seen: every commit and deletion
-- gives it another tip, and a key keeps its row for a day after a deletion. A row that is
-- allowed but not applied was overtaken: try again.
WITH seen AS MATERIALIZED (
    SELECT t.now, s.sid, s.version, s.first_version, s.incarnation, s.tip,
        coalesce(s.resent_at, 0) AS resent_at, s.last_delete,
        s.created_at, s.updated_at, s.expires_at, s.meta, s.meta_version, s.labels,
        coalesce(s.version > 0 AND (s.expires_at IS NULL OR s.expires_at > t.now), false)
            AS present
    FROM (SELECT :clock AS now) AS t
    LEFT JOIN :"schema".sessions AS s
        ON s.tenant = :tenant AND s.kind = :kind AND s.id = :id
), used AS MATERIALIZED (
    SELECT u.digest, u.incarnation, u.version FROM :"schema".used AS u
    WHERE u.tenant = :tenant AND u.kind = :kind AND u.id = :id AND u.used = :commit
    LIMIT 1
), facts AS MATERIALIZED (
    SELECT
        -- Whether it was certainly not sent before (nor overtaken by its resend), or no id can
        -- have been forgotten since.
        NOT (
            :resend
            OR seen.resent_at >= greatest(
                CASE WHEN :told <= seen.now THEN :told ELSE 0 END, seen.now - 86400000
            )
        ) OR NOT EXISTS (
            SELECT FROM :"schema".lives AS l
            WHERE l.tenant = :tenant AND l.kind = :kind AND l.id = :id
                AND (:incarnation::bytea IS NULL OR l.incarnation = :incarnation)
                AND greatest(l.first_version, l.version - 63) > :base::bigint + 1
                AND (
                    SELECT c.made_at FROM :"schema".commits AS c
                    WHERE c.sid = l.sid
                        AND c.slot = greatest(l.first_version, l.version - 63) % 64
                ) >= CASE WHEN :told <= seen.now THEN :told ELSE 0 END
        ) AS complete,
        -- What the conditions speak of.
        ARRAY(
            SELECT CASE
                WHEN NOT seen.present THEN 0
                WHEN c.key IS NULL THEN seen.meta_version
                ELSE coalesce((
                    SELECT i.version FROM :"schema".items AS i
                    WHERE i.sid = seen.sid AND i.key = c.key
                ), 0) END
            FROM unnest(:conditions::bytea[]) WITH ORDINALITY AS c (key, place)
            ORDER BY c.place
        ) AS versions,
        g.stages,
        g.bytes + pg_column_size(:values::bytea[]) AS bytes
    FROM seen
    CROSS JOIN LATERAL (
        SELECT count(*) AS stages, coalesce(sum(bytes), 0)::bigint AS bytes
        FROM :"schema".stages
        WHERE tenant = :tenant AND kind = :kind AND id = :id
            AND incarnation =
                CASE WHEN seen.present THEN seen.incarnation ELSE :new_incarnation END
            AND stage = ANY (:stages::bytea[])
    ) AS g
), verdict AS MATERIALIZED (
    SELECT NOT EXISTS (SELECT FROM used)
        AND facts.complete
        AND (:incarnation::bytea IS NULL OR (seen.present AND seen.incarnation = :incarnation))
        AND (:present::boolean IS NULL OR seen.present = :present)
        AND (:version::bigint IS NULL OR (seen.version = :version AND seen.tip = :tip))
        AND facts.versions = :versions::bigint[]
        AND facts.stages = cardinality(:stages::bytea[]) AS allowed
    FROM seen, facts
), updated AS (
    UPDATE :"schema".sessions AS s
    SET version = coalesce(:restored, s.version + 1),
        first_version = coalesce(:restored, s.first_version),
        tip = :commit,
        resent_at = CASE WHEN :resend THEN seen.now ELSE s.resent_at END,
        last_delete = CASE WHEN :deletes THEN coalesce(:restored, s.version + 1)
            ELSE s.last_delete END,
        updated_at = coalesce(:restored_updated, seen.now),
        expires_at = CASE WHEN :expires_in::bigint IS NOT NULL THEN seen.now + :expires_in
            WHEN :expires_at::bigint IS NOT NULL THEN nullif(:expires_at, 0)
            ELSE s.expires_at END,
        recent_at = CASE WHEN :restored_updated::bigint IS NOT NULL THEN :restored_updated
            WHEN seen.now >= s.recent_at + 60000 THEN seen.now
            ELSE s.recent_at END,
        bytes = s.bytes + facts.bytes,
        meta = coalesce(:meta, s.meta),
        meta_version = CASE WHEN :meta::bytea IS NULL THEN s.meta_version
            ELSE coalesce(:restored, s.version + 1) END,
        labels = CASE WHEN :labels::text[] IS NULL THEN s.labels
            ELSE nullif(:labels, '{}') END
    FROM seen, facts, verdict
    WHERE verdict.allowed AND seen.present
        AND s.tenant = :tenant AND s.kind = :kind AND s.id = :id AND s.tip = seen.tip
    RETURNING s.*
), created AS (
    INSERT INTO :"schema".sessions AS s (
        tenant, kind, id, version, first_version, incarnation, tip, resent_at, last_delete,
        created_at, updated_at, expires_at, recent_at, bytes, meta_version, meta, labels
    )
    SELECT :tenant, :kind, :id, coalesce(:restored, 1), coalesce(:restored, 1),
        :new_incarnation, :commit,
        CASE WHEN :resend THEN seen.now ELSE seen.resent_at END,
        CASE WHEN :deletes THEN coalesce(:restored, 1) ELSE 0 END,
        coalesce(:restored_created, seen.now), coalesce(:restored_updated, seen.now),
        CASE WHEN :expires_in::bigint IS NOT NULL THEN seen.now + :expires_in
            ELSE nullif(:expires_at, 0) END,
        coalesce(:restored_updated, seen.now), facts.bytes,
        CASE WHEN :meta::bytea IS NULL THEN 0 ELSE coalesce(:restored, 1) END,
        coalesce(:meta, ''), nullif(:labels, '{}')
    FROM seen, facts, verdict
    WHERE verdict.allowed AND NOT seen.present
    -- The row of a session that was deleted or has expired.
    ON CONFLICT (tenant, kind, id) DO UPDATE
    SET sid = excluded.sid, version = excluded.version,
        first_version = excluded.first_version, incarnation = excluded.incarnation,
        tip = excluded.tip, resent_at = excluded.resent_at, last_delete = excluded.last_delete,
        created_at = excluded.created_at, updated_at = excluded.updated_at,
        expires_at = excluded.expires_at, recent_at = excluded.recent_at,
        bytes = excluded.bytes, meta_version = excluded.meta_version, meta = excluded.meta,
        labels = excluded.labels
    WHERE s.tip = (SELECT tip FROM seen)
    RETURNING s.*
), head AS (
    SELECT * FROM updated UNION ALL SELECT * FROM created
), buried AS (
    INSERT INTO :"schema".tombstones
        (tenant, kind, id, sid, incarnation, first_version, version, deleted_at)
    SELECT :tenant, :kind, :id, seen.sid, seen.incarnation, seen.first_version, seen.version,
        seen.now
    FROM seen, created WHERE seen.version > 0
), discarded AS (
    INSERT INTO :"schema".discarded (tenant, kind, id, sid)
    SELECT :tenant, :kind, :id, seen.sid FROM seen, created WHERE seen.version > 0
), adopting AS (
    UPDATE :"schema".stages AS g SET adopting = true FROM head
    WHERE g.tenant = :tenant AND g.kind = :kind AND g.id = :id
        AND g.incarnation = head.incarnation AND g.stage = ANY (:stages::bytea[])
), remembered AS (
    INSERT INTO :"schema".commits AS c (sid, slot, version, id, digest, made_at)
    SELECT head.sid, head.version % 64, head.version, :commit, :digest, seen.now
    FROM head, seen
    ON CONFLICT (sid, slot) DO UPDATE
    SET version = excluded.version, id = excluded.id, digest = excluded.digest,
        made_at = excluded.made_at
), removed AS (
    DELETE FROM :"schema".items AS i
    USING head, unnest(:starts::bytea[], :stops::bytea[]) AS r (start, stop)
    -- OFFSET keeps the planner to one walk along the index for each range.
    CROSS JOIN LATERAL (
        SELECT sid, key FROM :"schema".items
        WHERE sid = head.sid AND key >= r.start AND key < r.stop
        OFFSET 0
    ) AS d
    WHERE i.sid = d.sid AND i.key = d.key
        -- What is written below is not to be touched twice.
        AND i.key NOT IN (
            SELECT CASE WHEN w.ordinal IS NULL THEN w.key ELSE w.key || decode(
                lpad(to_hex(h.version), 16, '0') || lpad(to_hex(w.ordinal), 8, '0'), 'hex'
            ) END
            FROM head AS h, unnest(:keys::bytea[], :ordinals::integer[]) AS w (key, ordinal)
        )
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
), shown AS (
    SELECT true AS applied, version, incarnation, tip, last_delete, created_at, updated_at,
        expires_at, meta, meta_version, labels
    FROM head
    UNION ALL
    SELECT false, version, incarnation, tip, last_delete, created_at, updated_at, expires_at,
        meta, meta_version, labels
    FROM seen WHERE NOT EXISTS (SELECT FROM head)
)
SELECT seen.now, seen.present, verdict.allowed,
    shown.applied, shown.version, shown.incarnation, shown.tip, shown.last_delete,
    shown.created_at, shown.updated_at, shown.expires_at, shown.meta, shown.meta_version,
    shown.labels,
    used.digest, used.incarnation, used.version, facts.complete, facts.versions, facts.stages,
    CASE WHEN shown.applied THEN (
        SELECT count(w.told) FROM :"schema".watched AS w
        WHERE w.tenant = :tenant AND w.kind = :kind AND w.id = :id AND w.until > seen.now
    ) END
FROM seen, facts, verdict, shown LEFT JOIN used ON true
