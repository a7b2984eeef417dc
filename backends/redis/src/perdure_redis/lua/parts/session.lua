-- What a session's key holds. Format 1.
--
-- A session is one sorted set, `<prefix>:{<bucket>}:<tenant>\0<kind>\0<id>`, all scores 0, so
-- that its members are ordered by their bytes. The first byte of a member tells what it is:
--
--   h0 <head>                                the head, as HEAD below; absent: no session
--   h1 <label> (\0 <label>)*                 its labels, if it has any
--   h2 <meta>                                its meta, unless empty
--   i <key> \0 <version 8> <value>           an item
--   r <id 16> <kind 1> <incarnation 16> <version 8> <digest 8> <time 8>
--                                            an id that was used: kind c by a commit, d by a
--                                            deletion
--   d <incarnation 16> <time 8>              an incarnation that has gone, and when
--   t <time 8>                               when a commit that was sent again was applied last:
--                                            its first sending may still be on its way
--   s <incarnation 16> <stage 16> <time 8>   a stage, and when it was last added to
--   p <incarnation 16> <stage 16> i <key> \0 <value>   a part of it
--
-- <key>: the item's key, \1 written as \1\2 and \0 as \1\1, so that \0 ends it and the order of
-- members is that of keys. Numbers are unsigned and big-endian; times are ms since the epoch.
--
-- One key for all of it: it moves to another node, expires and is freed as a whole. It lapses
-- by itself a day after nothing in it is of use any more.

-- Parts define few functions, and those that few runs need within another: making a function
-- costs each run of a script something, and the more the more outer variables it uses.

local call, encode, decode, sub = redis.call, struct.pack, struct.unpack, string.sub
local key = KEYS[1]

-- version, last_delete, meta_version, created_at, updated_at, expires_at (0: never), recent_at,
-- bytes of all items, as members, incarnation, tip. append.lua and delta.lua know the places.
local HEAD = '>I8I8I8I8I8I8I8I8c16c16'

local function clock()
    local time = call('TIME')
    return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- The session, also one that has expired; nil if there is none. `rows` are its h members.
local function load()
    local rows = call('ZRANGE', key, '[h', '(i', 'BYLEX')
    if not rows[1] then
        return nil
    end
    local labels, meta = '', ''
    for i = 2, #rows do
        if sub(rows[i], 2, 2) == '1' then
            labels = sub(rows[i], 3)
        else
            meta = sub(rows[i], 3)
        end
    end
    local version, last_delete, meta_version, created_at, updated_at, expires_at, recent_at,
        bytes, incarnation, tip = decode(HEAD, rows[1], 3)
    return {
        rows = rows, labels = labels, meta = meta, version = version, last_delete = last_delete,
        meta_version = meta_version, created_at = created_at, updated_at = updated_at,
        expires_at = expires_at, recent_at = recent_at, bytes = bytes,
        incarnation = incarnation, tip = tip,
    }
end
