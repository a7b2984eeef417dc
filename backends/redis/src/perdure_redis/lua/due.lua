#!lua flags=no-writes
-- The members of an index whose time has come: expired sessions, and what else lapses.
-- ARGV[1]: how many of each at most.

local index = KEYS[1]
local time = redis.call('TIME')
local now = struct.pack('>I8', time[1] * 1000 + math.floor(time[2] / 1000) + 1)
local due = redis.call('ZRANGE', index, '[x', '(x' .. now, 'BYLEX', 'LIMIT', 0, ARGV[1])
for _, member in ipairs(
    redis.call('ZRANGE', index, '[u', '(u' .. now, 'BYLEX', 'LIMIT', 0, ARGV[1])
) do
    due[#due + 1] = member
end
return due
