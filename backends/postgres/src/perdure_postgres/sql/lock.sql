-- Keeps everybody else from writing this session until the transaction ends. The statements
-- after this one in it have snapshots of their own, and so see what the row holds then.
SELECT 1 FROM :"schema".sessions
WHERE tenant = :tenant AND kind = :kind AND id = :id
FOR UPDATE
