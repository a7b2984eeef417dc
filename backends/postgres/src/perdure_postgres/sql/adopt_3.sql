-- Third of three: the stage is no more, nor are parts that the commit has overwritten.
WITH stage AS (
    DELETE FROM :"schema".stages
    WHERE tenant = :tenant AND kind = :kind AND id = :id AND stage = :stage AND adopting
    RETURNING sid
)
DELETE FROM :"schema".items AS p USING stage WHERE p.sid = stage.sid
