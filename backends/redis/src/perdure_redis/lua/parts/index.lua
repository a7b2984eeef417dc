-- The index of a bucket: one sorted set, `<prefix>:{<bucket>}`, in the same slot as the
-- bucket's sessions and written by the same scripts. All scores are 0; <name> is
-- `<tenant>\0<kind>\0<id>`:
--
--   f1                                                the format; it is never empty
--   i <name>                                          each session
--   l <tenant>\0<kind>\0<label>\0<id>                 each of its labels
--   r <tenant>\0<kind>\0<age 8><id>                   by recency; age: LATEST - recent_at
--   s <tenant>\0<kind>\0<label>\0<age 8><id>          each label by recency
--   x <expires_at 8><recent_at 8><length 2><name><labels>   what expires; enough to remove all
--                                                     the above when the session's key is gone
--   u <time 8><name>                                  a tombstone or stage that lapses then

-- The functions that use it.
local function index()
    local split = string.find(key, '}:', 1, true)
    local name, session = sub(key, 1, split), sub(key, split + 2)
    local LATEST = 2 ^ 52
    local self = {}

    -- Whether the bucket's index is here. It is not where nobody has set it up, and while the
    -- slot is being moved key by key and the index is on the other side.
    function self.here()
        return type(redis.pcall('ZSCORE', name, 'f1')) == 'string'
    end

    -- Whether the slot is being moved away from here. A key that is not there counts as moved
    -- then, and any call for it fails: a script must not empty a key and write to it again.
    function self.slot_is_moving()
        return type(redis.pcall('EXISTS', name .. ':')) ~= 'number'
    end

    -- Its members for a session of these facts.
    function self.places(labels, recent_at, expires_at)
        local second = string.find(session, '\0', string.find(session, '\0', 1, true) + 1, true)
        local scope, id = sub(session, 1, second), sub(session, second + 1)
        local age = encode('>I8', LATEST - recent_at)
        local found = {'i' .. session, 'r' .. scope .. age .. id}
        for label in string.gmatch(labels, '[^%z]+') do
            found[#found + 1] = 'l' .. scope .. label .. '\0' .. id
            found[#found + 1] = 's' .. scope .. label .. '\0' .. age .. id
        end
        if expires_at > 0 then
            local facts = encode('>I8I8I2', expires_at, recent_at, #session)
            found[#found + 1] = 'x' .. facts .. session .. labels
        end
        return found
    end

    function self.places_of(s)
        return self.places(s.labels, s.recent_at, s.expires_at)
    end

    function self.remove(members)
        call('ZREM', name, unpack(members))
    end

    function self.add(members)
        for _, member in ipairs(members) do
            call('ZADD', name, '0', member)
        end
    end

    -- Have a sweep look at the session then.
    function self.lapses_at(time)
        call('ZADD', name, '0', 'u' .. encode('>I8', time) .. session)
    end

    return self
end
