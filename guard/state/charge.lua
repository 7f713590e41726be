-- Charges and refunds a batch of calls on one ledger, one after the other, atomically. Semantics: guard/model/ledger.py.
--
-- ARGV[1]: JSON list of calls, each a flat list of integers, and texts where there is an event:
--   {0, (limit, amount, label_only, hard_limit or -1, ttl_ms or 0, KIND)...}  a charge
--   {1, (spent, total, KIND)...}                                               a refund
--   KIND: the number of digests, of a claim that counts distinct queries; -1 of a plain one; of one that is entered in
--   the journal three values: -2, rows, event.
-- ARGV[2]: all digests of all calls, 16 bytes each, in the order of the calls; those of one claim differ from each other.
-- ARGV[3]: what the caller's terms are known by, if any claim is journalled: others in force let none of those through.
-- KEYS: per claim its counter (a hash of s: spent, t: total), and if it has digests the set of those paid for; then, if
-- any claim is journalled, the ledger's terms.
-- Returns a JSON list of integers: per charge admission (3: the terms have changed), binding or -1, and per claim spent,
-- total, what was added to each of the two, n, and the places of the n new digests among the claim's own, from 0. A
-- refund returns nothing.
--
-- A journalled counter also has n: entries ever made, jI: entry I, as `rows amount event`, and for each event the totals
-- of entries folded, r|EVENT: rows, a|EVENT: amount. They live and expire with the counter, and s = all a| + all jI. The
-- journal keeps 8 to 15 entries; what a batch adds beyond goes to the totals at once.
--
-- A counter is read once and written once for the whole batch, however many calls charge it: at the end, or at the error
-- that ends the batch, so that sets of digests and counters always say the same.
--
-- Integers stay below 2^53, where a Lua number is exact; `%.0f` writes them so, which tostring does below 1e14 only.

local DIGEST, CHUNK, MOST, KEPT, JOURNALLED = 16, 1000, 9007199254740991, 8, -2
local ALLOW, DENY, CHANGED = 0, 2, 3
local keys_read, digests_read, out, counters, in_order = 0, 0, {}, {}, {}
local in_force = ARGV[3] == '' or (redis.call('HGET', KEYS[#KEYS], 'by') or '-') == ARGV[3]

local function text(number) return string.format('%.0f', number) end

local function put(number) out[#out + 1] = number < 1e14 and number or text(number) end

local function next_key()
  keys_read = keys_read + 1
  return KEYS[keys_read]
end

local function next_digests(count)
  local digests = {}
  for i = 1, count do
    local at = (digests_read + i - 1) * DIGEST
    digests[i] = string.sub(ARGV[2], at + 1, at + DIGEST)
  end
  digests_read = digests_read + count
  return digests
end

-- Calls a set command on many members, a bounded number at once; `each` gets the reply and the place before the first member.
local function in_chunks(command, key, members, each)
  for start = 1, #members, CHUNK do
    local reply = redis.call(command, key, unpack(members, start, math.min(start + CHUNK - 1, #members)))
    each(reply, start - 1)
  end
end

local function expire(key, ttl_ms)
  if ttl_ms > 0 then redis.call('PEXPIRE', key, text(ttl_ms)) end
end

local function counter_of(key)
  local counter = counters[key]
  if not counter then
    local values = redis.call('HMGET', key, 's', 't', 'n')
    counter = {key = key, spent = tonumber(values[1] or '0'), total = tonumber(values[2] or '0'),
      entries = tonumber(values[3] or '0'), exists = values[1], added = {}}
    counters[key] = counter
    in_order[#in_order + 1] = counter
  end
  return counter
end

local function set(counter, spent, total)
  counter.spent, counter.total, counter.exists, counter.changed = spent, math.min(total, MOST), true, true
end

local function enter(counter, rows, amount, event)
  counter.added[#counter.added + 1] = {rows, amount, event}
end

-- Reads what a claim is on: its counter, and by KIND, which stands at `at`, its set and digests, or its rows and event.
-- Returns the claim and where the next one begins.
local function read_claim(call, at)
  local claim, kind = {counter = counter_of(next_key())}, call[at]
  if kind == JOURNALLED then
    claim.rows, claim.event = call[at + 1], call[at + 2]
    return claim, at + 3
  end
  if kind >= 0 then
    claim.set, claim.digests = next_key(), next_digests(kind)
  end
  return claim, at + 1
end

local function read_charge(call, at)
  local claim, next_at = read_claim(call, at + 5)
  claim.limit, claim.amount, claim.label_only = call[at], call[at + 1], call[at + 2] == 1
  claim.hard_limit, claim.ttl_ms, claim.need = call[at + 3], call[at + 4], call[at + 1]
  claim.paid, claim.owed = 0, 0
  if claim.set then
    claim.fresh, claim.places = {}, {}
    in_chunks('SMISMEMBER', claim.set, claim.digests, function(paid, before)
      for i, is_paid in ipairs(paid) do
        if is_paid == 0 then
          claim.fresh[#claim.fresh + 1] = claim.digests[before + i]
          claim.places[#claim.places + 1] = before + i - 1
        end
      end
    end)
    claim.need = #claim.fresh
  end
  claim.fits = claim.counter.spent + claim.need <= claim.limit
  return claim, next_at
end

local function refusal(claim)
  if claim.event and not in_force then return CHANGED end
  if claim.fits then return ALLOW end
  local over = claim.hard_limit >= 0 and claim.counter.total + claim.amount > claim.hard_limit
  if claim.label_only and not over then return 1 end
  return DENY
end

local function apply(claim, admission)
  local counter, paid, owed = claim.counter, claim.fits and claim.need or 0, claim.amount
  if not counter.exists then counter.ttl_ms = claim.ttl_ms end
  if claim.set and admission == ALLOW then
    owed = claim.need
    in_chunks('SADD', claim.set, claim.fresh, function() end)
    if owed > 0 then expire(claim.set, claim.ttl_ms) end
  elseif claim.set then
    paid, claim.places = 0, {}
  end
  if claim.event and paid > 0 then enter(counter, claim.rows, paid, claim.event) end
  claim.paid, claim.owed = paid, owed
  set(counter, counter.spent + paid, counter.total + owed)
end

local function charge(call)
  local claims, admission, binding, at = {}, ALLOW, -1, 2
  while at <= #call do
    local claim
    claim, at = read_charge(call, at)
    claims[#claims + 1] = claim
    local refused = refusal(claim)
    if refused > admission then admission, binding = refused, #claims - 1 end
  end
  put(admission)
  put(binding)
  for _, claim in ipairs(claims) do
    if admission < DENY then apply(claim, admission) else claim.places = nil end
    put(claim.counter.spent)
    put(claim.counter.total)
    put(claim.paid)
    put(claim.owed)
    local places = claim.places or {}
    put(#places)
    for _, place in ipairs(places) do put(place) end
  end
end

local function refund(call)
  local at = 2
  while at <= #call do
    local charged, owed, claim = call[at], call[at + 1], nil
    claim, at = read_claim(call, at + 2)
    local counter = claim.counter
    if claim.set then in_chunks('SREM', claim.set, claim.digests, function() end) end
    -- A counter that is gone stays gone, and what was charged under other terms is not given back in these.
    if counter.exists and (in_force or not claim.event) then
      local taken = math.min(counter.spent, charged)
      if claim.event and taken > 0 then
        local rows = taken == charged and claim.rows or math.floor(claim.rows * taken / charged)
        enter(counter, -rows, -taken, claim.event)
      end
      set(counter, counter.spent - taken, math.max(0, counter.total - owed))
    end
  end
end

-- Of `made` entries, those from here on stay as they are.
local function keep_from(made) return math.max(0, made - made % KEPT - KEPT) end

-- Writes what a batch has added to a journal: the latest entries as they are, what is older into the totals.
local function write_entries(counter, fields)
  local before = counter.entries
  local made = before + #counter.added
  local old, rows, amounts = {}, {}, {}
  local function add(count, amount, event)
    rows[event], amounts[event] = (rows[event] or 0) + count, (amounts[event] or 0) + amount
  end
  for i = keep_from(before), math.min(before, keep_from(made)) - 1 do old[#old + 1] = 'j' .. text(i) end
  if #old > 0 then
    for _, entry in ipairs(redis.call('HMGET', counter.key, unpack(old))) do
      if entry then
        local count, amount, event = string.match(entry, '^(%S+) (%S+) (.*)$')
        add(tonumber(count), tonumber(amount), event)
      end
    end
    redis.call('HDEL', counter.key, unpack(old))
  end
  for i, entry in ipairs(counter.added) do
    if before + i - 1 < keep_from(made) then
      add(unpack(entry))
    else
      fields[#fields + 1] = 'j' .. text(before + i - 1)
      fields[#fields + 1] = text(entry[1]) .. ' ' .. text(entry[2]) .. ' ' .. entry[3]
    end
  end
  for event, amount in pairs(amounts) do
    redis.call('HINCRBY', counter.key, 'r|' .. event, text(rows[event]))
    redis.call('HINCRBY', counter.key, 'a|' .. event, text(amount))
  end
  fields[#fields + 1] = 'n'
  fields[#fields + 1] = text(made)
end

local function write(counter)
  local fields = {'s', text(counter.spent), 't', text(counter.total)}
  if #counter.added > 0 then write_entries(counter, fields) end
  redis.call('HSET', counter.key, unpack(fields))
  if counter.ttl_ms then expire(counter.key, counter.ttl_ms) end
end

local done, problem = pcall(function()
  for _, call in ipairs(cjson.decode(ARGV[1])) do
    if call[1] == 0 then charge(call) else refund(call) end
  end
end)
for _, counter in ipairs(in_order) do
  if counter.changed then write(counter) end
end
if not done then error(problem) end
return '[' .. table.concat(out, ',') .. ']'
