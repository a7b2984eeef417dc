-- Waits for parts that are being staged, and keeps others from coming: see lock.sql.
SELECT 1 FROM :"schema".stages
WHERE tenant = :tenant AND kind = :kind AND id = :id AND stage = ANY (:stages::bytea[])
ORDER BY incarnation, stage
FOR UPDATE
