#!lua flags=no-writes
-- parts: delta session items
--
-- ARGV: 0 or 1 (strict) and the budget, in bytes; the reads.
-- Returns {OK, now, h members, rows}; {LONG, now, h members} if strict and beyond the budget.

local OK, LONG = 0, 9

local strict, budget = decode('>BI8', ARGV[1])
local now = clock()
local s = load()
if not s or (s.expires_at > 0 and s.expires_at <= now) then
    return {OK, now, {}}
end
if #ARGV == 1 then
    return {OK, now, s.rows}
end
local rows = answer(2, budget, strict == 1, s.bytes)
if not rows then
    return {LONG, now, s.rows}
end
return {OK, now, s.rows, rows}
