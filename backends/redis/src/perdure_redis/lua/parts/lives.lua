-- What is remembered of ids, and of sessions that have gone.

-- The member that remembers an id; kind: c or d.
local function used(id, kind, incarnation, version, digest, now)
    return 'r' .. encode('>c16c1c16I8c8I8', id, kind, incarnation, version, digest, now)
end

-- The rest, which few runs need.
local function lives()
    local DAY, NEVER = 24 * 3600 * 1000, 2 ^ 52
    local self = {LASTING = DAY + 60 * 1000}  -- tombstones and stages, in ms, and a minute

    -- Write a list of members.
    function self.add(members)
        for first = 1, #members, 500 do
            local args, n = {}, 0
            for i = first, math.min(first + 499, #members) do
                args[n + 1], args[n + 2] = '0', members[i]
                n = n + 2
            end
            call('ZADD', key, unpack(args, 1, n))
        end
    end

    -- Remove a list of members.
    function self.remove(members)
        for first = 1, #members, 1000 do
            call('ZREM', key, unpack(members, first, math.min(first + 999, #members)))
        end
    end

    -- Let the key lapse once nobody needs what is remembered in it.
    function self.lapse(expires_at, now)
        local at = math.max(expires_at, now) + self.LASTING
        if expires_at == 0 or at > NEVER then
            call('PERSIST', key)
        else
            call('PEXPIREAT', key, at)
        end
    end

    -- What `id` was used for: kind, incarnation, version, digest; nil if it is not remembered.
    function self.recall(id)
        local high = '(r' .. id .. '\255'
        local found = call('ZRANGE', key, '[r' .. id, high, 'BYLEX', 'LIMIT', 0, 1)
        if found[1] then
            return decode('>c1c16I8c8', found[1], 18)
        end
    end

    -- Forget the incarnations that went more than a day ago; how many there were.
    function self.forget(now)
        local lapsed, gone = {}, {}
        for _, member in ipairs(call('ZRANGE', key, '[d', '(e', 'BYLEX')) do
            if now - decode('>I8', member, 18) > DAY then
                lapsed[sub(member, 2, 17)] = true
                gone[#gone + 1] = member
            end
        end
        local count = #gone
        if count > 0 then
            for _, member in ipairs(call('ZRANGE', key, '[r', '(s', 'BYLEX')) do
                if lapsed[sub(member, 19, 34)] then
                    gone[#gone + 1] = member
                end
            end
            self.remove(gone)
        end
        return count
    end

    -- Forget the commits of an incarnation but for `id`: it goes on here from where it was
    -- elsewhere, and what is remembered from then on must not look as if it were all.
    function self.forget_all_but(id, incarnation)
        local gone = {}
        for _, member in ipairs(call('ZRANGE', key, '[r', '(s', 'BYLEX')) do
            if sub(member, 18, 34) == 'c' .. incarnation and sub(member, 2, 17) ~= id then
                gone[#gone + 1] = member
            end
        end
        self.remove(gone)
        call('ZREMRANGEBYLEX', key, '[d' .. incarnation, '(d' .. incarnation .. '\255')
    end

    -- Forget the commits of an incarnation up to a version.
    function self.forget_up_to(incarnation, version)
        local gone = {}
        for _, member in ipairs(call('ZRANGE', key, '[r', '(s', 'BYLEX')) do
            local kind, whose, made = decode('>c1c16I8', member, 18)
            if kind == 'c' and whose == incarnation and made <= version then
                gone[#gone + 1] = member
            end
        end
        self.remove(gone)
    end

    -- Whether every commit after version `base` is remembered, or from the time `seen` on: of
    -- the incarnation `named`, or of all that the key ever had.
    function self.remember_since(named, base, seen, now)
        local oldest = {}
        for _, member in ipairs(call('ZRANGE', key, '[r', '(s', 'BYLEX')) do
            local kind, life, version, _, time = decode('>c1c16I8c8I8', member, 18)
            if kind == 'c' and not (oldest[life] and oldest[life].version < version) then
                oldest[life] = {version = version, time = time}
            end
        end
        for life, commit in pairs(oldest) do
            if not named or life == named then
                local in_time = seen and commit.time < seen and seen <= now
                if commit.version > (named and base or 0) + 1 and not in_time then
                    return false
                end
            end
        end
        return true
    end

    -- A commit that says it was sent before has been applied.
    function self.remember_resend(now)
        call('ZREMRANGEBYLEX', key, '[t', '(u')
        call('ZADD', key, '0', 't' .. encode('>I8', now))
    end

    -- Whether one has been since `seen`, but not a day ago.
    function self.resent_since(seen, now)
        local found = call('ZRANGE', key, '[t', '(u', 'BYLEX', 'LIMIT', 0, 1)
        local known = seen and seen <= now and seen or 0
        return found[1] and decode('>I8', found[1], 2) >= math.max(known, now - DAY)
    end

    -- End a session: its items and stages go, its ids stay for a day. `deletion` is the id of
    -- the delete, nil for an expiry. The index must be here.
    function self.bury(s, now, deletion)
        self.forget(now)
        local places = index()
        local kept = {'d' .. encode('>c16I8', s.incarnation, now)}
        if deletion then
            local nothing = string.rep('\0', 8)
            kept[2] = used(deletion, 'd', s.incarnation, s.version, nothing, now)
        end
        local mine, others = {}, {}
        for _, stage in ipairs(call('ZRANGE', key, '[s', '(t', 'BYLEX')) do
            local which = sub(stage, 2, 17) == s.incarnation and mine or others
            which[#which + 1] = stage
        end
        if call('ZCARD', key) > 1000 and not places.slot_is_moving() then
            -- Unlinked, it is freed in the background; what stays is written anew.
            for first, stop in pairs({r = 's', d = 'e', t = 'u'}) do
                for _, member in ipairs(call('ZRANGE', key, '[' .. first, '(' .. stop, 'BYLEX')) do
                    kept[#kept + 1] = member
                end
            end
            for _, stage in ipairs(others) do
                kept[#kept + 1] = stage
                local low = 'p' .. sub(stage, 2, 33)
                local parts = call('ZRANGE', key, '[' .. low .. 'i', '(' .. low .. 'j', 'BYLEX')
                for _, part in ipairs(parts) do
                    kept[#kept + 1] = part
                end
            end
            call('UNLINK', key)
            self.add(kept)
        else
            self.add(kept)
            call('ZREMRANGEBYLEX', key, '[h', '(j')
            self.remove(mine)
            for _, stage in ipairs(mine) do
                local low = 'p' .. sub(stage, 2, 33)
                call('ZREMRANGEBYLEX', key, '[' .. low .. 'i', '(' .. low .. 'j')
            end
        end
        self.lapse(now, now)
        places.remove(places.places_of(s))
        places.lapses_at(now + self.LASTING)
    end

    return self
end

-- The session present, and the time. One found to have expired is buried first; if that cannot
-- be because the index is elsewhere, the third result is false.
local function present()
    local now = clock()
    local s = load()
    if s and s.expires_at > 0 and s.expires_at <= now then
        if not index().here() then
            return nil, now, false
        end
        lives().bury(s, now, nil)
        s = nil
    end
    return s, now, true
end
