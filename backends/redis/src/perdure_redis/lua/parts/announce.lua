-- Telling those who wait for the session; nobody pays who is not waited for.

local function announce()
    local listeners = redis.pcall('PUBSUB', 'SHARDNUMSUB', KEYS[1])
    if not listeners.err and listeners[2] > 0 then
        redis.pcall('SPUBLISH', KEYS[1], '')
    end
end
