#!lua flags=no-writes
-- The tenants in an index, or a tenant's kinds, in order: one step along the index for each.
-- ARGV: what comes before the names in members (`i`, or `i<tenant>\0`); the name to start
-- behind, or nothing; how many at most.

local index, scope, behind = KEYS[1], ARGV[1], ARGV[2]
local low, high = '[' .. scope, '(j'
if #scope > 1 then
    high = '(' .. string.sub(scope, 1, -2) .. '\1'
end
local found = {}
for n = 1, tonumber(ARGV[3]) do
    if behind ~= '' then
        low = '(' .. scope .. behind .. '\1'
    end
    local member = redis.call('ZRANGE', index, low, high, 'BYLEX', 'LIMIT', 0, 1)[1]
    if not member then
        break
    end
    behind = string.sub(member, #scope + 1, string.find(member, '\0', #scope + 1, true) - 1)
    found[n] = behind
end
return found
