-- What tells how durable a commit is.
SELECT current_setting('server_version'), current_setting('synchronous_commit'),
    current_setting('fsync'), current_setting('synchronous_standby_names')
