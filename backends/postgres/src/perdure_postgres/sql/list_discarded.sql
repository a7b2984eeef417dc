-- Keys with discarded owners.
SELECT DISTINCT tenant, kind, id FROM :"schema".discarded LIMIT :most
