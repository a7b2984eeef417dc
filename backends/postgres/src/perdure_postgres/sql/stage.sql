-- Parts of a stage, which is made if it is new. The row of the stage keeps a commit that would
-- adopt it waiting.
WITH stage AS (
    INSERT INTO :"schema".stages AS g
        (tenant, kind, id, incarnation, stage, bytes, staged_at)
    VALUES (
        :tenant, :kind, :id, :incarnation, :stage, pg_column_size(:values::bytea[]), :clock
    )
    ON CONFLICT (tenant, kind, id, incarnation, stage) DO UPDATE
    SET bytes = g.bytes + excluded.bytes, staged_at = excluded.staged_at
    RETURNING g.sid
)
INSERT INTO :"schema".items (sid, key, version, value)
SELECT stage.sid, p.key, 0, p.value
FROM stage, unnest(:keys::bytea[], :values::bytea[]) AS p (key, value)
ON CONFLICT (sid, key) DO NOTHING
