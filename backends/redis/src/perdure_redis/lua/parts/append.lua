-- What nearly every commit is: it names the session's incarnation, is the first since its base,
-- and does no more than append to one log. It is applied here, with the result that the rest of
-- commit.lua would have; whatever else a commit is, nothing is done here, and the rest goes on.
-- It stands before the other parts, because making their functions costs more than all of this.

do
    local call, sub, decode, encode = redis.call, string.sub, struct.unpack, struct.pack
    local NAMED, PRESENT, AT, SEEN = 2, 4, 16, 32
    local APPLIED, REMEMBERED, RECENCY_LAG, MANY = 0, 64, 60 * 1000, 100

    local flags, others, appends, id, digest, base, incarnation, behind =
        decode('>I2c8I2c16c8c8c16', ARGV[1])
    local last = #ARGV
    if bit.band(flags, bit.bnot(PRESENT + AT + SEEN)) == NAMED
        and others == '\0\0\0\0\0\0\0\0' and appends == 1
        and last > 2 and last <= MANY and last == 2 + decode('>I2', ARGV[2]) then
        -- Places in it: version 3, last_delete 11, updated_at 35, expires_at 43, recent_at 51,
        -- bytes 59, incarnation 67, tip 83.
        local rows = call('ZRANGE', KEYS[1], '[h', '(i', 'BYLEX')
        local old = rows[1]
        local as_expected = old and sub(old, 3, 10) == base and sub(old, 67, 82) == incarnation
            and (bit.band(flags, AT) == 0
                or sub(ARGV[1], behind, behind + 23) == base .. sub(old, 83))
        if as_expected then
            local time = call('TIME')
            local now = time[1] * 1000 + math.floor(time[2] / 1000)
            local version = decode('>I8', base) + 1
            local expires_at, recent_at, bytes = decode('>I8I8I8', old, 43)
            local low = sub(ARGV[3], 1, string.find(ARGV[3], '\0', 1, true))
            local high = low
            if last > 3 then
                high = sub(ARGV[last], 1, string.find(ARGV[last], '\0', 1, true))
            end
            high = sub(high, 1, -2) .. '\1'
            -- Keys like those to be made may be there already: anybody may put them.
            if (expires_at == 0 or expires_at > now) and now - recent_at < RECENCY_LAG
                and version % REMEMBERED ~= 0
                and call('ZLEXCOUNT', KEYS[1], '[' .. low, '(' .. high) == 0 then
                local stamp, time_stamp = encode('>I8', version), encode('>I8', now)
                local new = {}
                for n = 3, last do
                    new[2 * n - 5], new[2 * n - 4] = '0', ARGV[n]
                    bytes = bytes + #ARGV[n]
                end
                rows[1] = 'h0' .. stamp .. sub(old, 11, 34) .. time_stamp .. sub(old, 43, 58)
                    .. encode('>I8', bytes) .. incarnation .. id
                local used = 'r' .. id .. 'c' .. incarnation .. stamp .. digest .. time_stamp
                call('ZADD', KEYS[1], '0', rows[1], '0', used, unpack(new))
                call('ZREM', KEYS[1], old)
                announce()
                return {APPLIED, now, rows}
            end
        end
    end
end
