-- What nearly every read is: the head, and perhaps the few items of one range that are stamped
-- later than what the caller knows. Answered here as the rest of read.lua would answer; of
-- another read nothing is done here. As in append.lua, it stands before the other parts.

do
    local call, sub, decode = redis.call, string.sub, struct.unpack
    local OK, FEW, SOME, CHUNK_BYTES = 0, 4, 32, 256 * 1024

    local read = ARGV[2]
    -- Forward, without limit and max_bytes, since some version.
    if #ARGV == 1 or (#ARGV == 2 and sub(read, 1, 6) == 's\0\0\0\0\0'
        and sub(read, 15, 18) == '\255\255\255\255'
        and sub(read, 7, 14) ~= '\0\0\0\0\0\0\0\0') then
        local time = call('TIME')
        local now = time[1] * 1000 + math.floor(time[2] / 1000)
        local rows = call('ZRANGE', KEYS[1], '[h', '(i', 'BYLEX')
        local expires_at, _, bytes = 0, 0, 0
        if rows[1] then
            expires_at, _, bytes = decode('>I8I8I8', rows[1], 43)
        end
        if not rows[1] or (expires_at > 0 and expires_at <= now) then
            return {OK, now, {}}
        end
        if #ARGV == 1 then
            return {OK, now, rows}
        end
        local chunk = bytes > SOME * CHUNK_BYTES and FEW or SOME
        local budget = decode('>I8', ARGV[1], 2)
        local since, _, length = decode('>I8I4I2', read, 7)
        local part = call(
            'ZRANGE', KEYS[1], '[' .. sub(read, 21, 20 + length), '(' .. sub(read, 21 + length),
            'BYLEX', 'LIMIT', 0, chunk
        )
        local found, size = {0}, 0
        for i = 1, #part do
            local member = part[i]
            if decode('>I8', member, string.find(member, '\0', 2, true) + 1) > since then
                found[#found + 1] = member
                size = size + #member
            end
        end
        if #part < chunk and size <= budget then
            return {OK, now, rows, {found}}
        end
    end
end
