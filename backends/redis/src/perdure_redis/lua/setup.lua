#!lua flags=allow-oom
-- Make a bucket's index, unless ARGV[1] is 0 or it is there.
--
-- Returns {commands that this user may not run, type of the key before, formats in it}. A
-- script that is refused a command half-way has done the half before: so none is run for him.

local index = KEYS[1]
local session = index .. ':'
local forbidden = {}
for _, command in ipairs({
    {'TIME'},
    {'TYPE', index},
    {'ZADD', index, '0', ''},
    {'ZADD', session, '0', ''},
    {'ZREM', index, ''},
    {'ZREM', session, ''},
    {'ZRANGE', index, '-', '+', 'BYLEX'},
    {'ZRANGE', session, '-', '+', 'BYLEX'},
    {'ZSCORE', index, ''},
    {'ZLEXCOUNT', session, '-', '+'},
    {'ZREMRANGEBYLEX', session, '-', '+'},
    {'PERSIST', session},
    {'PEXPIREAT', session, '1'},
    {'UNLINK', session},
}) do
    if not redis.acl_check_cmd(unpack(command)) then
        forbidden[#forbidden + 1] = command[1]
    end
end
if forbidden[1] then
    return {forbidden, '', {}}
end
local kind = redis.call('TYPE', index).ok
if kind == 'none' and ARGV[1] == '1' then
    redis.call('ZADD', index, '0', 'f1')
elseif kind ~= 'none' and kind ~= 'zset' then
    return {forbidden, kind, {}}
end
return {forbidden, kind, redis.call('ZRANGE', index, '[f', '(g', 'BYLEX')}
