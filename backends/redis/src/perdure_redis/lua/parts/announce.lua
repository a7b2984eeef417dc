-- Telling those who wait for the session; nobody pays who is not waited for.

local function announce()
    local listeners = redis.pcall('PUBSUB', 'SHARDNUMSUB', key)
    if not listeners.err and listeners[2] > 0 then
        redis.pcall('SPUBLISH', key, '')
    end
end
