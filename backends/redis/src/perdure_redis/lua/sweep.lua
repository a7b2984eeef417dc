#!lua flags=allow-oom
-- parts: session index lives announce
--
-- Remove what is due of one session. ARGV[1]: the member of the index that says so.
-- Returns how many things were removed.

local due = ARGV[1]

local s, now, usable = present()
local places, memory = index(), lives()
if not usable or not places.here() then
    return 0
end
local removed = 1
if sub(due, 1, 1) == 'x' then
    -- Buried just now, or gone by itself since, and perhaps made again.
    local expires_at, recent_at, length, start = decode('>I8I8I2', due, 2)
    places.remove(places.places(sub(due, start + length), recent_at, expires_at))
    if s then
        places.add(places.places_of(s))
    else
        announce()
    end
else
    places.remove({due})
    -- In this order no call comes after one that may have emptied the key.
    local stages = call('ZRANGE', key, '[s', '(t', 'BYLEX')
    removed = removed + memory.forget(now)
    for _, stage in ipairs(stages) do
        local due_at = decode('>I8', stage, 34) + memory.LASTING
        if due_at <= now then
            local low = 'p' .. sub(stage, 2, 33)
            call('ZREMRANGEBYLEX', key, '[' .. low .. 'i', '(' .. low .. 'j')
            call('ZREM', key, stage)
        else
            places.lapses_at(due_at)
        end
    end
end
return removed
