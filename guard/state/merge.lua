-- Merges a batch of deltas into clients' records, one after the other, atomically. Semantics: guard/ports.py, `merge`.
--
-- KEYS: a record for each delta; all differ from each other or are merged in turn.
-- ARGV[1]: JSON list of deltas: {seen, once, {field, count...}, {mark, value...}}. ARGV[2]: buckets kept.
-- ARGV[3]: fields a bucket. ARGV[4]: the revision of a record that is made now. ARGV[5]: how long records live, in ms.
-- Returns for each delta a JSON list: {revision, 1 or 0 (whole), {name, value...}}.
--
-- A record is a hash whose names are integers, so that it is returned without being taken apart: a field of a count as
-- it is; -1: the revision; -2: the newest bucket; -3 to -6: `once` of the latest four merges; -16 - M: mark M.
--
-- Integers stay below 2^53, where a Lua number is exact; `%.0f` writes them so, which tostring does below 1e14 only.

local KEPT, PER_BUCKET, ONCES, MARKS = tonumber(ARGV[2]), tonumber(ARGV[3]), 4, 16
local HEAD = {'-1', '-2', '-3', '-4', '-5', '-6'}
local MARK_NAMES = {}
for mark = 0, MARKS - 1 do MARK_NAMES[mark + 1] = tostring(-16 - mark) end

local function text(number) return string.format('%.0f', number) end

-- Drops the counts of buckets that are no longer kept: looked for only when a new bucket has begun.
local function drop_old(key, first)
  local old = {}
  for _, name in ipairs(redis.call('HKEYS', key)) do
    local field = tonumber(name)
    if field >= 0 and field < first then old[#old + 1] = name end
  end
  for start = 1, #old, 1000 do redis.call('HDEL', key, unpack(old, start, math.min(start + 999, #old))) end
end

local function add_counts(key, counts, newest)
  local latest = newest
  for i = 1, #counts, 2 do latest = math.max(latest, math.floor(counts[i] / PER_BUCKET)) end
  local first = math.max(0, latest - KEPT + 1) * PER_BUCKET
  if latest > newest then drop_old(key, first) end
  for i = 1, #counts, 2 do
    if counts[i] >= first then redis.call('HINCRBY', key, text(counts[i]), text(counts[i + 1])) end
  end
  return latest
end

local function add_marks(key, marks)
  for i = 1, #marks, 2 do
    local name = tostring(-16 - marks[i])
    if marks[i + 1] > tonumber(redis.call('HGET', key, name) or '-1') then
      redis.call('HSET', key, name, text(marks[i + 1]))
    end
  end
end

local function was_added(once, head)
  for i = 3, 2 + ONCES do
    if once > 0 and head[i] and tonumber(head[i]) == once then return true end
  end
  return false
end

local function merge(key, delta)
  local head = redis.call('HMGET', key, unpack(HEAD))
  local revision, newest = tonumber(head[1] or '0'), tonumber(head[2] or '0')
  local whole = revision ~= delta[1]
  if #delta[3] + #delta[4] > 0 and not was_added(delta[2], head) then
    revision = revision > 0 and revision + 1 or tonumber(ARGV[4])
    newest = add_counts(key, delta[3], newest)
    add_marks(key, delta[4])
    local slot = tostring(-3 - revision % ONCES)
    redis.call('HSET', key, '-1', text(revision), '-2', text(newest), slot, text(delta[2]))
    redis.call('PEXPIRE', key, ARGV[5])
  end
  local held
  if whole then
    held = redis.call('HGETALL', key)
  else
    held = {}
    for i, value in ipairs(redis.call('HMGET', key, unpack(MARK_NAMES))) do
      if value then held[#held + 1] = MARK_NAMES[i] held[#held + 1] = value end
    end
  end
  return '[' .. text(revision) .. (whole and ',1,[' or ',0,[') .. table.concat(held, ',') .. ']]'
end

local out = {}
for i, delta in ipairs(cjson.decode(ARGV[1])) do out[i] = merge(KEYS[i], delta) end
return out
