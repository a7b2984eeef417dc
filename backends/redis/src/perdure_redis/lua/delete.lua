#!lua flags=allow-oom
-- parts: session index lives announce
--
-- Backend.delete. ARGV[1]: flags (1: an incarnation is named; 2: a version and tip are
-- expected), id, incarnation, version, tip.
-- Returns {status, now, h members}.

local APPLIED, REUSED, CONFLICT, NO_INDEX, NOTHING = 0, 2, 5, 7, 8

local flags, id, incarnation, version, tip = decode('>Bc16c16I8c16', ARGV[1])

local s, now, usable = present()
if not usable then
    return {NO_INDEX, now, {}}
end
local kind = lives().recall(id)
if kind then
    return {kind == 'd' and APPLIED or REUSED, now, {}}
end
if not s or (bit.band(flags, 1) ~= 0 and s.incarnation ~= incarnation) then
    return {NOTHING, now, {}}
end
if bit.band(flags, 2) ~= 0 and (s.version ~= version or s.tip ~= tip) then
    return {CONFLICT, now, s.rows}
end
if not index().here() then
    return {NO_INDEX, now, {}}
end
lives().bury(s, now, id)
announce()
return {APPLIED, now, {}}
