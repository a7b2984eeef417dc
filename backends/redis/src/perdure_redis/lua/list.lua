#!lua flags=no-writes
-- Some members of an index between two bounds, and for each the h members of its session, which
-- are none if it is gone, or is on another node while the slot moves.
--
-- ARGV: low, high, count; how many bytes of a member come before the id; `<tenant>\0<kind>\0`.
-- Returns {now, member, h members, member, h members …}.

local index = KEYS[1]
local time = redis.call('TIME')
local found = {time[1] * 1000 + math.floor(time[2] / 1000)}
local members = redis.call(
    'ZRANGE', index, ARGV[1], ARGV[2], 'BYLEX', 'LIMIT', 0, ARGV[3]
)
for _, member in ipairs(members) do
    local session = index .. ':' .. ARGV[5] .. string.sub(member, ARGV[4] + 1)
    local rows = redis.pcall('ZRANGE', session, '[h', '(i', 'BYLEX')
    found[#found + 1] = member
    found[#found + 1] = rows.err and {} or rows
end
return found
