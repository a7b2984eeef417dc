#!lua
-- parts: announce append session index lives items
--
-- Backend.commit: the steps of its docstring, in its order.
--
-- ARGV: a header: flags; how many conditions, deletes, stages, puts and appends; id, digest,
-- base, and an incarnation: the one named, else the one proposed. Behind it, as the flags say:
-- At's version and tip; seen; expires_at; expires_in; the version and times restored.
-- Then: meta and labels, as the flags say; conditions (version and place; no place: meta);
-- deletes (length of low, low, high); stages; puts (members); appends (count and `i <prefix>`,
-- then members); reads. Members are stamped for the version that follows base, which saves
-- copying them if that is the one it becomes.
--
-- Returns {status, now, h members, rows, a, b}. a and b: on REPLAYED, the version and the
-- incarnation; on CONFLICT, a: what is there of what a condition requires, or -1 if `expect`
-- does not hold.

local APPLIED, REPLAYED, REUSED, FORGOTTEN, DELETED, CONFLICT, NO_STAGE, NO_INDEX =
    0, 1, 2, 3, 4, 5, 6, 7

local RESEND, NAMED, PRESENT, ABSENT, AT, SEEN, EXPIRES_AT, EXPIRES_IN, META, LABELS, RESTORED =
    1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024

local REMEMBERED = 64
local RECENCY_LAG = 60 * 1000
local RETURNING = 1024 * 1024
local CHUNK_BYTES = 256 * 1024

local band, find = bit.band, string.find
local flags, conditions, deletes, stages, puts, appends, id, digest, base, incarnation, behind =
    decode('>I2I2I2I2I2I2c16c8I8c16', ARGV[1])
local resend, named = band(flags, RESEND) ~= 0, band(flags, NAMED) ~= 0

local at_version, at_tip, seen, expires_at, expires_in
local restored, restored_created, restored_updated
if band(flags, AT) ~= 0 then
    at_version, at_tip, behind = decode('>I8c16', ARGV[1], behind)
end
if flags > NAMED + RESEND + AT then
    if band(flags, SEEN) ~= 0 then
        seen, behind = decode('>I8', ARGV[1], behind)
    end
    if band(flags, EXPIRES_AT) ~= 0 then
        expires_at, behind = decode('>I8', ARGV[1], behind)
    end
    if band(flags, EXPIRES_IN) ~= 0 then
        expires_in, behind = decode('>I8', ARGV[1], behind)
    end
    if band(flags, RESTORED) ~= 0 then
        restored, restored_created, restored_updated = decode('>I8I8I8', ARGV[1], behind)
    end
end

-- Where each kind of argument starts.
local meta, labels
local first_condition = 2
if band(flags, META) ~= 0 then
    meta = ARGV[first_condition]
    first_condition = first_condition + 1
end
if band(flags, LABELS) ~= 0 then
    labels = ARGV[first_condition]
    first_condition = first_condition + 1
end
local first_delete = first_condition + conditions
local first_stage = first_delete + deletes
local first_put = first_stage + stages
local first_append = first_put + puts

local s, now, usable = present()
if not usable then
    return {NO_INDEX, now}
end

local status, a, b  -- why not

-- 1 and 2: the id. Nothing has happened since `base` in the usual case.
if resend or not (s and named and s.incarnation == incarnation and s.version == base) then
    local memory = lives()
    local kind, life, version, earlier = memory.recall(id)
    if kind then
        if kind == 'd' or earlier ~= digest then
            return {REUSED, now, {}}
        end
        status, a, b = REPLAYED, version, life
    elseif (resend or memory.resent_since(seen, now))
        and not memory.remember_since(named and incarnation, base, seen, now) then
        return {FORGOTTEN, now, {}}
    end
end

-- 3 to 6: what it requires.
local life = s and s.incarnation or incarnation
if status then
    -- It is a replay, whatever else it asks.
elseif named and not (s and life == incarnation) then
    return {DELETED, now, s and s.rows or {}}
elseif s and (band(flags, ABSENT) ~= 0
    or (at_version and (s.version ~= at_version or s.tip ~= at_tip))) then
    status, a = CONFLICT, -1
elseif not s and (at_version or band(flags, PRESENT) ~= 0) then
    status, a = CONFLICT, -1
else
    for n = first_condition, first_delete - 1 do
        local required, start = decode('>I8', ARGV[n])
        local place = sub(ARGV[n], start)
        local actual = 0
        if s and place == '' then
            actual = s.meta_version
        elseif s then
            local member = item(place)
            actual = member and decode('>I8', member, #place + 1) or 0
        end
        if actual ~= required then
            status, a = CONFLICT, actual
            break
        end
    end
    for n = first_stage, first_put - 1 do
        local stage = 's' .. life .. ARGV[n]
        local found = call('ZLEXCOUNT', key, '[' .. stage, '(' .. stage .. '\255')
        if found == 0 and not status then
            return {NO_STAGE, now, {}}
        end
    end
end
if status then
    local first_read = first_append
    for _ = 1, appends do
        first_read = first_read + 1 + decode('>I2', ARGV[first_read])
    end
    local rows = s and answer(first_read, RETURNING, false, s.bytes) or {}
    return {status, now, s and s.rows or {}, rows, a, b}
end

-- 7: the head it makes.
local version, last_delete, meta_version, created_at, updated_at, ends_at, recent_at, bytes
if s then
    version = restored or s.version + 1
    last_delete, meta_version = s.last_delete, s.meta_version
    created_at, ends_at, bytes = s.created_at, s.expires_at, s.bytes
    updated_at, recent_at = restored_updated or now, restored_updated or s.recent_at
else
    version, last_delete, meta_version = restored or 1, 0, 0
    created_at, ends_at, bytes = restored_created or now, 0, 0
    updated_at, recent_at = restored_updated or now, restored_updated or now
end
if deletes > 0 then
    last_delete = version
end
if meta then
    meta_version = version
end
if expires_in then
    ends_at = now + expires_in
elseif expires_at then
    ends_at = expires_at
end

-- Recency may lag. Anything else of the index may not: without it the commit cannot be.
local places
local stale = s and not restored and now - s.recent_at >= RECENCY_LAG
local moved = not s or restored or ends_at ~= s.expires_at or (labels and labels ~= s.labels)
if stale or moved then
    places = index()
    if not places.here() then
        if moved then
            return {NO_INDEX, now}
        end
        places = nil
    elseif stale then
        recent_at = now
    end
end

-- From here on it is applied. The key is never empty in between: see index().slot_is_moving.
for n = first_delete, first_stage - 1 do
    local length, start = decode('>I2', ARGV[n])
    local low = '[' .. sub(ARGV[n], start, start + length - 1)
    local high = '(' .. sub(ARGV[n], start + length)
    local count = call('ZLEXCOUNT', key, low, high)
    if count > 0 then
        -- Of what goes and what stays, the less is gone through: reads rely on the result.
        local all = call('ZLEXCOUNT', key, '[i', '(j')
        local chunk = math.max(4, math.min(512, math.floor(CHUNK_BYTES * all / (bytes + 1))))
        local function size_of(from, to)
            local size = 0
            while true do
                local members = call('ZRANGE', key, from, to, 'BYLEX', 'LIMIT', 0, chunk)
                for i = 1, #members do
                    size = size + #members[i]
                end
                if #members < chunk then
                    return size
                end
                from = '(' .. members[chunk]
            end
        end
        if count <= all / 2 then
            bytes = bytes - size_of(low, high)
        else
            bytes = size_of('[i', '(' .. sub(low, 2)) + size_of('[' .. sub(high, 2), '(j')
        end
        call('ZREMRANGEBYLEX', key, low, high)
    end
end

local stamp, stamped = encode('>I8', version), version == (restored or base + 1)
local new, count = {}, 0  -- scores and members, to be written
local replacing = s ~= nil

local function put(place, member)
    local old = replacing and item(place)
    if old then
        bytes = bytes - #old
        call('ZREM', key, old)
    end
    bytes = bytes + #member
    new[count + 1], new[count + 2] = '0', member
    count = count + 2
    if count == 1000 then
        call('ZADD', key, unpack(new))
        new, count = {}, 0
    end
end

for n = first_stage, first_put - 1 do
    local stage = life .. ARGV[n]
    local low, high = '[p' .. stage .. 'i', '(p' .. stage .. 'j'
    while true do
        local parts = call('ZRANGE', key, low, high, 'BYLEX', 'LIMIT', 0, 64)
        for _, part in ipairs(parts) do
            local ends = find(part, '\0', 34, true)
            local place = sub(part, 34, ends)
            put(place, place .. stamp .. sub(part, ends + 1))
        end
        if #parts < 64 then
            break
        end
        low = '(' .. parts[64]
    end
    if count > 0 then
        call('ZADD', key, unpack(new, 1, count))
        new, count = {}, 0
    end
    replacing = true  -- what follows may replace a part
end
for n = first_put, first_append - 1 do
    local member = ARGV[n]
    local ends = find(member, '\0', 1, true)
    local place = sub(member, 1, ends)
    if not stamped then
        member = place .. stamp .. sub(member, ends + 9)
    end
    put(place, member)
end
local n = first_append
for _ = 1, appends do
    local values, start = decode('>I2', ARGV[n])
    for ordinal = 0, values - 1 do
        local member = ARGV[n + 1 + ordinal]
        local ends = find(member, '\0', 1, true)
        local place
        if stamped then
            place = sub(member, 1, ends)
        else
            local suffix = stamp .. encode('>I4', ordinal)
            suffix = string.gsub(suffix, '[%z\1]', {['\0'] = '\1\1', ['\1'] = '\1\2'})
            place = sub(ARGV[n], start) .. suffix .. '\0'
            member = place .. stamp .. sub(member, ends + 9)
        end
        put(place, member)
    end
    n = n + 1 + values
end

local head = 'h0' .. encode(
    HEAD, version, last_delete, meta_version, created_at, updated_at, ends_at, recent_at, bytes,
    life, id
)
local rows = {head}
if meta or labels or (s and #s.rows > 1) then
    local kept = labels or (s and s.labels) or ''
    if kept ~= '' then
        rows[2] = 'h1' .. kept
    end
    kept = meta or (s and s.meta) or ''
    if kept ~= '' then
        rows[#rows + 1] = 'h2' .. kept
    end
end
if s then
    call('ZREM', key, unpack(s.rows))
end
for i = 1, #rows do
    new[count + 1], new[count + 2] = '0', rows[i]
    count = count + 2
end
new[count + 1], new[count + 2] = '0', used(id, 'c', life, version, digest, now)
call('ZADD', key, unpack(new, 1, count + 2))

for n = first_stage, first_put - 1 do
    local stage = life .. ARGV[n]
    call('ZREMRANGEBYLEX', key, '[p' .. stage .. 'i', '(p' .. stage .. 'j')
    call('ZREMRANGEBYLEX', key, '[s' .. stage, '(s' .. stage .. '\255')
end
if resend then
    lives().remember_resend(now)
end
if restored then
    lives().forget_all_but(id, life)
end
if not s then
    lives().forget(now)
end
if not s or ends_at ~= s.expires_at then
    lives().lapse(ends_at, now)
end
if places then
    if s then
        places.remove(places.places_of(s))
    end
    places.add(places.places(labels or (s and s.labels) or '', recent_at, ends_at))
end
if version % REMEMBERED == 0 then
    lives().forget_up_to(life, version - REMEMBERED)
end
announce()
if n > #ARGV then
    return {APPLIED, now, rows}
end
return {APPLIED, now, rows, answer(n, RETURNING, false, bytes)}
