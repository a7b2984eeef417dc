-- Forgets the discarded owners of a key that have no items left.
DELETE FROM :"schema".discarded AS d
WHERE d.tenant = :tenant AND d.kind = :kind AND d.id = :id
    AND NOT EXISTS (SELECT FROM :"schema".items AS i WHERE i.sid = d.sid)
