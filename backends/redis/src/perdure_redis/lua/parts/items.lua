-- Reading items. An item's place is `i <key> \0`: what its member starts with.

-- The member at a place; nil if there is none.
local function item(place)
    return call(
        'ZRANGE', key, '[' .. place, '(' .. sub(place, 1, -2) .. '\1', 'BYLEX', 'LIMIT', 0, 1
    )[1]
end

-- Answer the reads in ARGV from `first` on. For each a list: 1 if there may be more, else 0;
-- then the members found. A scan stops where its values reach the budget, in bytes; if
-- `strict`, there is no answer at all then. `bytes` is what all items take: rows are fetched
-- some at a time, and few where they may be long.
local function answer(first, budget, strict, bytes)
    local CHUNK_BYTES = 256 * 1024
    local FEW, SOME, MANY = 4, 32, 512
    local find = string.find

    -- The members from `low` up to but not including `high`. limit 0: none.
    local function scan(low, high, limit, reverse, since, most)
        local rows, count, size = {0}, 0, 0
        local passed, passed_bytes = 0, 1
        local chunk = (bytes > SOME * CHUNK_BYTES or most < CHUNK_BYTES) and FEW or SOME
        if limit > 0 and limit < chunk then
            chunk = limit + 1
        end
        low, high = '[' .. low, '(' .. high
        if strict and bytes > budget and limit == 0 and since == 0 and most > budget then
            -- Rather than find out by reading: what it will be if all items are alike.
            local all = call('ZLEXCOUNT', key, '[i', '(j')
            if bytes * call('ZLEXCOUNT', key, low, high) / all > budget then
                return nil
            end
        end
        while true do
            local part
            if reverse then
                part = call('ZRANGE', key, high, low, 'BYLEX', 'REV', 'LIMIT', 0, chunk)
            else
                part = call('ZRANGE', key, low, high, 'BYLEX', 'LIMIT', 0, chunk)
            end
            for i = 1, #part do
                local member = part[i]
                local ends = find(member, '\0', 2, true)
                if since == 0 or decode('>I8', member, ends + 1) > since then
                    if count > 0 and ((limit > 0 and count >= limit) or size >= most) then
                        rows[1] = 1
                        return rows
                    end
                    if count > 0 and size >= budget then
                        if strict then
                            return nil
                        end
                        rows[1] = 1
                        return rows
                    end
                    count = count + 1
                    rows[count + 1] = member
                    size = size + #member - ends - 8
                end
                passed, passed_bytes = passed + 1, passed_bytes + #member
            end
            if #part < chunk then
                return rows
            end
            if reverse then
                high = '(' .. part[chunk]
            else
                low = '(' .. part[chunk]
            end
            -- As many as there is room for, and one more, to know whether there is more.
            local room = math.min(CHUNK_BYTES, most - size)
            chunk = math.floor(room * passed / passed_bytes) + 1
            chunk = math.max(FEW, math.min(MANY, chunk))
        end
    end

    local found = {}
    for n = first, #ARGV do
        local read = ARGV[n]
        local rows
        if sub(read, 1, 1) == 'i' then
            rows = {0, item(read)}
        else
            local reverse, limit, since, most, length, start = decode('>BI4I8I4I2', read, 2)
            local low, high = sub(read, start, start + length - 1), sub(read, start + length)
            rows = scan(low, high, limit, reverse == 1, since, most)
            if not rows then
                return nil
            end
        end
        found[#found + 1] = rows
    end
    return found
end
