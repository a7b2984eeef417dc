-- Whether the schema is there (a row), and which relations with our names are in it.
SELECT c.relname FROM pg_catalog.pg_namespace AS n
LEFT JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relname = ANY (:names::text[])
WHERE n.nspname = :schema
