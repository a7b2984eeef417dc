-- Says that somebody waits for a session, listening to a channel.
INSERT INTO :"schema".watches AS w (tenant, kind, id, channel, until)
VALUES (:tenant, :kind, :id, :channel, :clock + :lasting)
ON CONFLICT (tenant, kind, id) DO UPDATE
SET until = greatest(w.until, excluded.until)
