#!lua
-- parts: session index lives
--
-- Backend.stage. ARGV: incarnation and stage, 16 bytes each; then the parts, as members.
-- Returns {status, now}.

local APPLIED, NO_INDEX = 0, 7

local s, now, usable = present()
local places = index()
if not usable or not places.here() then
    return {NO_INDEX, now}
end
local memory = lives()
local stage = 's' .. ARGV[1]
local old = call('ZRANGE', key, '[' .. stage, '(' .. stage .. '\255', 'BYLEX')
local new = {stage .. encode('>I8', now)}
for n = 2, #ARGV do
    local known = 0
    if old[1] then
        local place = sub(ARGV[n], 1, string.find(ARGV[n], '\0', 34, true))
        known = call('ZLEXCOUNT', key, '[' .. place, '(' .. sub(place, 1, -2) .. '\1')
    end
    if known == 0 then
        new[#new + 1] = ARGV[n]
    end
end
memory.add(new)
if old[1] ~= new[1] then
    memory.remove(old)
end
if not s then
    memory.lapse(now, now)
end
if not old[1] then
    places.lapses_at(now + memory.LASTING)
end
return {APPLIED, now}
