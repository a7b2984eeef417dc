-- The format that the schema was made with.
SELECT format FROM :"schema".perdure_format
